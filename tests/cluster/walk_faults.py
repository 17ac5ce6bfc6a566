"""What a cluster does to the agent on a bad day, and what people then ask of it at the same time: cluster_walk.py runs it."""

import json
import pathlib
import signal
import time

from cluster import NODE, NODE_IP, PORT, SERVER, WORK_IMAGE
from node_under_test import Failure, eventually

FORWARD = pathlib.Path(__file__).with_name("forward.py")
THROUGH = 7444  # the agent speaks with the API server through a forwarder, so that it can be cut off alone
GPU = "nvidia.com/gpu"
SMALL = "nvidia.com/mig-1g.5gb"
LAYOUT = "nvidia.com/mig.config"
MIXED = {"nvidia.com/mig-2g.10gb": 3, SMALL: 7, "nvidia.com/mig-4g.20gb": 1, GPU: 1}
AWAY = 60  # seconds without an API server
# What a pod is told that the kubelet chose a device for which a change of MIG was about to take.
ADMITTED_TOO_LATE = ("is not offered (any more); the pod must be admitted anew", "is about to go, by a change of MIG; the pod must be admitted anew")
PLAIN = "version: v1\nflags:\n  migStrategy: mixed\n"


def shared(replicas):
    return PLAIN + f"sharing:\n  timeSlicing:\n    resources:\n    - name: {GPU}\n      replicas: {replicas}\n"


class Faults:
    def __init__(self, walk):
        self.walk, self.cluster, self.agent, self.check = walk, walk.cluster, walk.agent, walk.check

    def run(self):
        self.begin()
        self.api_server_away()
        self.watch_cut()
        self.mig_while_it_is_away()
        self.admitted_during_a_change()
        self.kubelet_under_a_change()
        self.evictions()

    # --- what it does --------------------------------------------------------------------------------------------

    def begin(self):
        """No pods, no layout; the agent with all roles, evicting, through the forwarder."""
        print("\nThe agent through a connection that can be cut, with --mig-evict", flush=True)
        self.cluster.kubectl("delete", "pods", "--all")
        self.cluster.kubectl("delete", "deployments", "--all")
        eventually("the pods are gone", lambda: not self.cluster.get("pods")["items"], 90)
        if self.cluster.alive("agent"):
            self.cluster.kill("agent")
        self.cluster.kubectl("label", "node", NODE, f"{LAYOUT}-", f"{LAYOUT}.state-", "nvidia.com/device-plugin.config-")
        self.agent.whole_gpus()
        self.agent.configure(shared(4))
        self.forward()
        self.agent.start(server=f"https://127.0.0.1:{THROUGH}", more=("--mig-evict", "--mig-wait", "3m"))
        self.check("16 are allocatable", lambda: self.walk.becomes(16, 60))

    def forward(self):
        self.cluster.start("forward", "python3", FORWARD, THROUGH, NODE_IP, PORT)

    def pod(self, name, limits, **labels):
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": {
            "terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "containers": [{
                "name": "c", "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000"],
                "resources": {"limits": {key: str(value) for key, value in limits.items()}}}]}})

    def ends_as(self, name, phase, seconds=60):
        eventually(f"pod {name} is {phase}", lambda: self.walk.phase(name) == phase, seconds)

    def slow(self, what, duration):
        """Calls of the driver take so long from now on; none of them when it is 0."""
        if duration:
            self.agent.sim("inject", "--root", self.agent.root, "latency", "--call", what, "--for", duration)
        else:
            self.agent.sim("inject", "--root", self.agent.root, "clear")

    def status_file(self):
        try:
            return json.loads(self.cluster.inside("cat /run/gpuslice/mig-status.json"))
        except Failure:
            return {}

    def instances(self):
        gpus = json.loads(self.agent.sim("show", "--root", self.agent.root, "-o", "json"))["gpus"]
        return {ci["uuid"] for gpu in gpus for gi in gpu["gpuInstances"] for ci in gi["computeInstances"]}

    # --- the API server ------------------------------------------------------------------------------------------

    def api_server_away(self):
        print(f"\nThe API server is away for {AWAY} s", flush=True)
        self.cluster.apply({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stays"}, "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "stays"}}, "template": {"metadata": {"labels": {"app": "stays"}}, "spec": {
                "terminationGracePeriodSeconds": 0, "containers": [{
                    "name": "c", "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000"],
                    "resources": {"limits": {GPU: "1"}}}]}}}})
        self.check("four pods run", lambda: self.walk.running("app=stays", 4))
        self.walk.selector, self.walk.uids = "app=stays", {name: pod["metadata"]["uid"] for name, pod in self.cluster.pods("app=stays").items()}
        registrations, served = self.walk.registrations(), self.agent.metric("gpuslice_registrations_total")
        self.cluster.kill("apiserver", signal.SIGKILL)
        left = time.monotonic()
        self.agent.configure(shared(5))
        self.check("an edit is followed meanwhile: the kubelet is offered 20", lambda: eventually(
            "20 devices", lambda: self.agent.metric("gpuslice_devices") == 20, 10))
        self.check("it is ready", lambda: self.cluster.inside(f"busybox wget -qO- http://{self.agent.page}/readyz").strip())
        time.sleep(max(0.0, AWAY - (time.monotonic() - left)))
        self.check("that the API server is away is said once", self.said_once)
        self.cluster.start_api_server()
        self.check("20 are allocatable", lambda: self.walk.becomes(20, 60))
        self.check("the labels say five replicas", lambda: self.walk.labelled({"nvidia.com/gpu.replicas": "5"}, 60))
        self.check("the kubelet heard of no new registration", lambda: self.same_registrations(registrations, served))
        self.check("the pods felt nothing", self.unmoved)

    def said_once(self):
        lines = [line for line in self.cluster.log("agent").splitlines() if " warning API server: " in line]
        # Each of the two watches, of the Node and of its pods, says it by itself.
        told = [line.split(" warning API server: ")[1].split(":")[0] for line in lines]
        if sorted(told) not in ([f"node {NODE}"], [f"node {NODE}", f"pods of node {NODE}"]):
            raise Failure(f"seen {lines}")

    def same_registrations(self, kubelets, agents):
        now = self.walk.registrations(), self.agent.metric("gpuslice_registrations_total")
        if now != (kubelets, agents):
            raise Failure(f"registrations: {kubelets}, {agents} before, {now} after")

    def unmoved(self):
        """The four pods, the same as before, without a restart."""
        now = self.cluster.pods("app=stays")
        if {name: pod["metadata"]["uid"] for name, pod in now.items()} != self.walk.uids or any(
                pod["status"]["containerStatuses"][0]["restartCount"] for pod in now.values()):
            raise Failure(f"pods: {sorted(now)}, before {sorted(self.walk.uids)}")

    def watch_cut(self):
        print("\nThe agent's connections to the API server are cut", flush=True)
        self.agent.configure(shared(3), "three")
        # A client that was left alone for a minute may wait half of one before it looks again.
        self.walk.label(**{"nvidia.com/device-plugin.config": "three"})
        self.check("a minute later the agent follows the Node again", lambda: self.walk.becomes(12, 60))
        self.walk.label(**{"nvidia.com/device-plugin.config": "default"})
        self.walk.becomes(20)
        for turn, (key, count) in enumerate((("three", 12), ("default", 20), ("three", 12))):
            self.cluster.kill("forward", signal.SIGKILL)
            self.walk.label(**{"nvidia.com/device-plugin.config": key})
            time.sleep((0, 2, 6)[turn])
            self.forward()
            self.check(f"what was said while it was cut off ({(0, 2, 6)[turn]} s) is followed: {count}", lambda n=count: self.walk.becomes(n, 40))
            self.check("and the Node is told", lambda n=count: self.walk.labelled({"nvidia.com/gpu.replicas": str(n // 4)}, 40))
        self.check("the pods felt nothing", self.unmoved)
        self.cluster.kubectl("label", "node", NODE, "nvidia.com/device-plugin.config-")
        self.cluster.kubectl("delete", "deployment", "stays")
        eventually("the pods are gone", lambda: not self.cluster.get("pods")["items"], 90)
        self.agent.configure(PLAIN)
        self.check("4 whole GPUs", lambda: self.walk.becomes(4, 60))

    def mig_while_it_is_away(self):
        print("\nThe API server goes while a layout is made", flush=True)
        self.slow("nvmlDeviceCreateGpuInstance*", "300ms")
        self.walk.label(**{LAYOUT: "all-1g.5gb"})
        eventually("the change is under way", lambda: self.status_file().get("state") == "pending", 20)
        self.cluster.kill("apiserver", signal.SIGKILL)
        self.check("it is finished without it", lambda: eventually("success", lambda: self.status_file().get("state") == "success", 60))
        self.slow("", None)
        self.check("28 instances are offered", lambda: eventually(
            "28 devices", lambda: self.agent.metric("gpuslice_devices") == 28, 20))
        before = time.time()
        self.cluster.start_api_server()
        self.check("then the Node says success", lambda: eventually("", lambda: self.walk.told()["state"] == "success", 60))
        self.check("28 are allocatable", lambda: self.walk.allocatables({SMALL: 28, GPU: 0}))
        self.check("and there is an Event of it", lambda: eventually("MigChanged", lambda: self.changed_since(before), 60))
        # An API server that starts refuses everybody until it has read its roles: what is refused from here on counts.
        self.log_before = len(self.cluster.log("agent"))

    def changed_since(self, when):
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when - 120))
        return any(event["reason"] == "MigChanged" and "all-1g.5gb" in event["message"] and (event.get("lastTimestamp") or "") >= stamp
                   for event in self.cluster.get("events", "-A")["items"] if event["involvedObject"]["name"] == NODE)

    # --- pods and the kubelet during a change --------------------------------------------------------------------

    def admitted_during_a_change(self):
        print("\nTwelve pods come while 28 instances become a mix", flush=True)
        # Slow enough that pods meet every part of it.
        self.slow("nvmlGpuInstanceDestroy", "150ms")
        self.slow("nvmlDeviceCreateGpuInstance*", "150ms")
        names = [f"meanwhile-{number}" for number in range(12)]
        for name in names[:3]:
            self.pod(name, {SMALL: 1})
        self.walk.label(**{LAYOUT: "mixed"})
        for name in names[3:]:
            self.pod(name, {SMALL: 1})
        self.check("each runs in an instance that is there, waits, was evicted, or refused as documented", lambda: self.each_is_well(names))
        self.slow("", None)
        self.check("so it stays", lambda: (time.sleep(8), self.each_is_well(names))[1])
        self.cluster.kubectl("delete", "pods", "--all")
        self.check("without them the mix is there", lambda: self.walk.allocatables(MIXED))
        self.check("the Node says success", lambda: self.walk.ends("mixed"))

    def each_is_well(self, names):
        def settled():
            pods = self.cluster.pods()
            return all(self.fate(pods.get(name)) != "under way" for name in names) and pods
        pods = eventually("every pod has come to something", settled, 90)
        fates = [self.fate(pods.get(name)) for name in names]
        there = self.instances()
        for name, fate in zip(names, fates, strict=True):
            if fate.startswith("bad"):
                raise Failure(f"{name}: {fate}")
            if fate == "runs":
                seen = self.walk.instances_of(name)
                if len(seen) != 1 or seen[0] not in there:
                    raise Failure(f"{name} runs with {seen}, and there are {sorted(there)}")
        return ", ".join(f"{fates.count(fate)} {fate}" for fate in sorted(set(fates)))

    @staticmethod
    def fate(pod):
        if pod is None or pod["metadata"].get("deletionTimestamp"):
            return "evicted"
        status = pod["status"]
        if status["phase"] == "Running":
            return "runs"
        if status["phase"] == "Failed":
            message = status.get("message", "")
            refused = status.get("reason") == "UnexpectedAdmissionError" and any(words in message for words in ADMITTED_TOO_LATE)
            return "refused" if refused else f"bad: {status.get('reason')}: {message}"
        unscheduled = any(c["type"] == "PodScheduled" and c["status"] == "False" for c in status.get("conditions", []))
        return "waits" if unscheduled else "under way"

    def kubelet_under_a_change(self):
        print("\nThe kubelet is killed while a layout is made", flush=True)
        self.slow("nvmlDeviceCreateGpuInstance*", "400ms")
        self.slow("nvmlGpuInstanceDestroy", "200ms")
        before = self.walk.registrations(SMALL)
        self.walk.label(**{LAYOUT: "all-1g.5gb"})
        eventually("the change is under way", lambda: self.status_file().get("state") == "pending", 20)
        self.cluster.kill("kubelet", signal.SIGKILL)
        time.sleep(1)
        self.cluster.start_kubelet()
        self.check("the new kubelet hears of the agent", lambda: eventually(
            "a registration", lambda: self.walk.registrations(SMALL) > before, 60))
        self.check("and of the layout that was made", lambda: self.walk.allocatables({SMALL: 28, GPU: 0}))
        self.check("the Node says success", lambda: self.walk.ends("all-1g.5gb"))
        self.slow("", None)
        self.pod("after", {SMALL: 1})
        self.check("a pod gets an instance", lambda: (self.ends_as("after", "Running"), self.each_is_well(["after"]))[1])

    # --- evictions -----------------------------------------------------------------------------------------------

    def evictions(self):
        print("\nPods in the way of a layout are evicted, as far as a PodDisruptionBudget lets them", flush=True)
        self.pod("kept", {SMALL: 1}, budget="kept")
        self.ends_as("kept", "Running")
        self.cluster.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"}, "spec": {
            "minAvailable": 1, "selector": {"matchLabels": {"budget": "kept"}}}})
        eventually("the budget is known", lambda: self.cluster.get("pdb", "kept").get("status", {}).get("currentHealthy"), 30)
        self.agent.layout("off", "  - devices: all\n    mig-enabled: false\n")
        self.walk.label(**{LAYOUT: "off"})
        self.check("the Node says that the budget is in the way", lambda: eventually(
            "", lambda: self.in_the_way(), 30))
        self.check("the pod that may go is gone", lambda: eventually("", lambda: self.cluster.get("pod", "after") is None, 60))
        self.check("the pod that may not runs", lambda: self.each_is_well(["kept"]))
        self.cluster.kubectl("delete", "pdb", "kept")
        self.check("without the budget it goes", lambda: eventually("", lambda: self.cluster.get("pod", "kept") is None, 90))
        self.check("and 4 whole GPUs are there", lambda: self.walk.allocatables({GPU: 4, SMALL: 0}))
        self.check("the Node says success", lambda: self.walk.ends("off"))
        self.check("the rights of examples/agent-rbac.yaml were enough for all of it", self.enough_rights)

    def enough_rights(self):
        lines = [line for line in self.cluster.log("agent")[self.log_before:].splitlines() if "forbidden" in line]
        if lines:
            raise Failure(f"seen {lines[:3]}")

    def in_the_way(self):
        told = self.walk.told()
        return told["state"] == "pending" and "pod default/kept cannot be evicted" in told["reason"] and "budget" in told["reason"] and told["reason"][:120]
