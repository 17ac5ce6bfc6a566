"""The API server's client (src/kube, as the program kube_probe) against a real API server."""

import pathlib
import queue
import signal
import subprocess
import threading
import time

from cluster import NODE, NODE_IP, SERVER, SERVICE_IP, WORK_IMAGE, PORT
from node_under_test import Failure, eventually

NAMESPACE = "gpu-operator"
RBAC = pathlib.Path(__file__).resolve().parents[2] / "examples" / "agent-rbac.yaml"


class Probe:
    """kube_probe on the cluster's node; says() waits for a line."""

    def __init__(self, cluster, program, *words):
        self.lines, self.seen = queue.Queue(), []
        self.process = subprocess.Popen(cluster.enter(program, *words), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, bufsize=1)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def do(self, command):
        self.process.stdin.write(command + "\n")

    def says(self, start, *parts, seconds=20):
        """The next line that begins so and has all parts; what comes before it is dropped."""
        until = time.monotonic() + seconds
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, until - time.monotonic()))
            except queue.Empty:
                raise Failure(f"expected a line '{start} … {' … '.join(parts)}'; seen: {self.seen[-4:]}") from None
            self.seen.append(line)
            if line.startswith(start) and all(part in line for part in parts):
                return line

    def quiet(self, start, seconds):
        """No line that begins so comes."""
        time.sleep(seconds)
        while not self.lines.empty():
            line = self.lines.get()
            self.seen.append(line)
            if line.startswith(start):
                raise Failure(f"unexpected: {line}")

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure("the client did not end within 5 s") from None


class ApiClient:
    def __init__(self, cluster, program, check):
        self.cluster, self.program, self.check = cluster, program, check

    def account_folder(self, name, namespace, account):
        folder = self.cluster.dir / "agent" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "token").write_text(self.cluster.kubectl("create", "token", account, "-n", namespace))
        (folder / "ca.crt").write_bytes((self.cluster.dir / "pki" / "ca.crt").read_bytes())
        return folder

    def labels(self):
        return self.cluster.get("node", NODE)["metadata"]["labels"]

    def run(self):
        print("\nThe API server's client, with the account of examples/agent-rbac.yaml", flush=True)
        self.cluster.apply(RBAC.read_text())
        folder = self.account_folder("account", NAMESPACE, "gpuslice")
        self.probe = Probe(self.cluster, self.program, NODE, "in-cluster", SERVICE_IP, PORT, folder)
        try:
            self.check("sees its node", lambda: (self.probe.says("node", f"kubernetes.io/hostname={NODE}"), self.probe.says("reachable ok"))[0][:30])
            self.check("applies labels, and takes them back", self.applied)
            self.check("leaves others' labels, and takes over what it is told to", self.ownership)
            self.check("a node that is not there is not made by an apply", self.no_ghost)
            self.check("patches single labels, and only the version it saw", self.patched)
            self.check("an Event said three times is one that counts", self.counted)
            self.check("a ConfigMap comes, changes and goes", self.config_map)
            self.check("pods of the node, and an eviction", self.evicted)
            self.check("an eviction that a PodDisruptionBudget forbids", self.budget)
            self.check("the API server is killed and stays away: told once; then all goes on", self.outage)
        finally:
            self.probe.close()
        self.check("its connections are cut ten times: every change is seen, and nothing is listed anew", self.cut)
        self.check("a client certificate", self.certificate)
        self.check("an account without rights is told so", self.no_rights)
        self.check("a stranger's CA is not believed", self.stranger)
        self.check("a token that is not valid any more: told, and the one that replaces it is used", self.token_ends)

    def applied(self):
        # An agent that ran before has applied labels under the same name; these go first, and what others set stays.
        self.probe.do("labels")
        self.probe.says("labels ok")
        before = self.labels()
        self.probe.do("labels nvidia.com/gpu.count=4 nvidia.com/gpu.product=A100")
        self.probe.says("labels ok")
        self.probe.says("node", "nvidia.com/gpu.count=4", "nvidia.com/gpu.product=A100")
        self.probe.do("labels nvidia.com/gpu.count=3")
        self.probe.says("labels ok")
        seen = self.labels()
        if seen != before | {"nvidia.com/gpu.count": "3"}:
            raise Failure(f"labels: {seen}, before {before}")

    def ownership(self):
        self.cluster.kubectl("label", "node", NODE, "theirs=1", "nvidia.com/gpu.family=nfd")
        self.probe.says("node", "theirs=1")
        self.probe.do("labels nvidia.com/gpu.family=ampere")
        self.probe.says("labels ok")
        now = self.labels()
        if now.get("theirs") != "1" or now.get("nvidia.com/gpu.family") != "ampere" or "nvidia.com/gpu.count" in now:
            raise Failure(f"labels: {now}")
        self.probe.do("labels")
        self.probe.says("labels ok")
        if self.labels().get("theirs") != "1":
            raise Failure("another's label went")

    def no_ghost(self):
        try:
            self.cluster.kubectl("apply", "--server-side", "-f", "-", stdin="apiVersion: v1\nkind: Node\nmetadata: {name: ghost, uid: 0-0}\n")
        except Failure as refused:
            if self.cluster.get("node", "ghost"):
                raise Failure("a node 'ghost' was made") from None
            return str(refused).split("\n")[0][-90:]
        raise Failure("it was not refused")

    def patched(self):
        self.probe.do("patch nvidia.com/mig.config.state=pending theirs-")
        self.probe.says("patched ok")
        version = self.probe.says("node", "mig.config.state=pending").split()[1]
        if "theirs" in self.labels():
            raise Failure("the label was not removed")
        self.cluster.kubectl("annotate", "node", NODE, "by=another")
        self.probe.do(f"patch nvidia.com/mig.config.state=success @{version}")
        self.probe.says("patched differs")
        self.probe.do("patch nvidia.com/mig.config.state-")
        self.probe.says("patched ok")

    def counted(self):
        for _ in range(3):
            self.probe.do("event GpuLost GPU 3 fell off the bus")

        def look():
            events = [event for event in self.cluster.get("events", "--field-selector", "reason=GpuLost")["items"]]
            return len(events) == 1 and events[0]["count"] == 3 and events[0]
        event = eventually("one Event with count 3", look, 30)
        if event["involvedObject"]["name"] != NODE or event["type"] != "Warning":
            raise Failure(f"{event}")
        said = self.cluster.kubectl("describe", "node", NODE)
        if "GpuLost" not in said:
            raise Failure("kubectl describe node does not show it")

    def config_map(self):
        self.probe.do(f"map {NAMESPACE} plugin")
        self.probe.says("map plugin none")
        self.cluster.kubectl("create", "configmap", "plugin", "-n", NAMESPACE, "--from-literal=a=1")
        self.probe.says("map plugin a=1")
        self.cluster.kubectl("patch", "configmap", "plugin", "-n", NAMESPACE, "-p", '{"data":{"a":"2"}}')
        self.probe.says("map plugin a=2")
        self.cluster.kubectl("delete", "configmap", "plugin", "-n", NAMESPACE)
        self.probe.says("map plugin none")
        self.probe.do(f"unmap {NAMESPACE} plugin")

    def a_pod(self, name):
        self.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"evict": name}}, "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": WORK_IMAGE, "imagePullPolicy": "Never", "args": ["-c", "sleep 100000"]}]}})
        return eventually(f"pod {name} runs", lambda: (lambda pod: pod["status"]["phase"] == "Running" and pod)(
            self.cluster.get("pod", name)), 60)["metadata"]["uid"]

    def evicted(self):
        self.probe.do("pods")
        uid = self.a_pod("evictee")
        self.probe.says("pods", "default/evictee:Running")
        self.probe.do("evict default evictee 00000000-0000-0000-0000-000000000000")
        self.probe.says("evicted evictee differs")
        self.probe.do(f"evict default evictee {uid}")
        self.probe.says("evicted evictee ok")
        eventually("it is gone", lambda: self.cluster.get("pod", "evictee") is None, 60)
        self.probe.do("evict default evictee")
        self.probe.says("evicted evictee not-found")

    def budget(self):
        uid = self.a_pod("kept")
        self.cluster.apply({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"}, "spec": {
            "minAvailable": 1, "selector": {"matchLabels": {"evict": "kept"}}}})
        eventually("the budget is known", lambda: self.cluster.get("pdb", "kept").get("status", {}).get("expectedPods"), 30)
        self.probe.do(f"evict default kept {uid}")
        line = self.probe.says("evicted kept in-use", "budget")
        self.cluster.kubectl("delete", "pod/kept", "pdb/kept")
        return line[-60:]

    def outage(self):
        self.cluster.kill("apiserver", signal.SIGKILL)
        self.probe.says("reachable unavailable", seconds=40)
        self.probe.quiet("reachable", 5)
        self.cluster.start_api_server()
        self.probe.says("reachable ok", seconds=60)
        self.cluster.kubectl("label", "node", NODE, "after=outage")
        self.probe.says("node", "after=outage")
        self.probe.do("labels nvidia.com/gpu.count=4")
        self.probe.says("labels ok")

    def cut(self):
        config = self.cluster.dir / "pki" / "cut.kubeconfig"
        config.write_text((self.cluster.dir / "pki" / "admin.kubeconfig").read_text().replace(SERVER, "https://127.0.0.1:7443"))
        forward = ("python3", pathlib.Path(__file__).with_name("forward.py"), 7443, NODE_IP, PORT)
        self.cluster.start("forward", *forward)
        probe = Probe(self.cluster, self.program, NODE, "kubeconfig", config)
        try:
            probe.says("reachable ok")
            for turn in range(10):
                self.cluster.kill("forward", signal.SIGKILL)
                self.cluster.kubectl("label", "--overwrite", "node", NODE, f"cut={turn}")
                self.cluster.start("forward", *forward)
                probe.says("node", f"cut={turn}")
            probe.do("counts")
            counts = probe.says("counts")
            if "[list 200]=1 " not in counts or "[watch 200]=1 " in counts:
                raise Failure(counts)
        finally:
            probe.close()
        return counts

    def certificate(self):
        pki = self.cluster.dir / "pki"
        for words in (["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/O=system:masters/CN=me", "-keyout", "me.key", "-out", "me.csr"],
                      ["x509", "-req", "-in", "me.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-out", "me.crt"]):
            subprocess.run(["openssl", *words], cwd=pki, check=True, capture_output=True)
        config = pki / "me.kubeconfig"
        config.write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{SERVER}", certificate-authority: ca.crt}}}}]
users: [{{name: u, user: {{client-certificate: me.crt, client-key: me.key}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
""")
        self.first_words(config, "reachable ok")

    def no_rights(self):
        folder = self.account_folder("nobody", "default", "default")
        probe = Probe(self.cluster, self.program, NODE, "in-cluster", SERVICE_IP, PORT, folder)
        try:
            line = probe.says("reachable no-permission", "cannot list resource")
        finally:
            probe.close()
        return line[:200]

    def stranger(self):
        pki = self.cluster.dir / "pki"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca", "-keyout", "x.key", "-out", "x.crt"],
                       cwd=pki, check=True, capture_output=True)
        config = pki / "stranger.kubeconfig"
        config.write_text((pki / "admin.kubeconfig").read_text().replace("/ca.crt", "/x.crt"))
        self.first_words(config, "reachable invalid-config")

    def token_ends(self):
        """Tokens end with their account; one of its name that is made again has others. The API server remembers a token for ten seconds."""
        folder = self.account_folder("ends", NAMESPACE, "gpuslice")
        probe = Probe(self.cluster, self.program, NODE, "in-cluster", SERVICE_IP, PORT, folder)
        try:
            probe.says("reachable ok")
            probe.do("labels nvidia.com/gpu.count=1")
            probe.says("labels ok")
            self.cluster.kubectl("delete", "serviceaccount", "gpuslice", "-n", NAMESPACE)
            self.cluster.apply(RBAC.read_text())
            time.sleep(12)
            probe.do("labels nvidia.com/gpu.count=2")
            line = probe.says("labels", "Unauthorized")
            (folder / "token").write_text(self.cluster.kubectl("create", "token", "gpuslice", "-n", NAMESPACE))
            probe.do("labels nvidia.com/gpu.count=3")
            probe.says("labels ok")
            probe.says("node", "nvidia.com/gpu.count=3", seconds=60)
            probe.do("labels")
            probe.says("labels ok")
        finally:
            probe.close()
        return line[:200]

    def first_words(self, config, words):
        probe = Probe(self.cluster, self.program, NODE, "kubeconfig", config)
        try:
            probe.says(words)
        finally:
            probe.close()
