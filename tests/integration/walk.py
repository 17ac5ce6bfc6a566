#!/usr/bin/env python3
"""The guide's walk on a simulated node: a line for each thing that is checked.

./dev run calls this. It makes a node of four simulated A100s and a kubelet stand-in, starts the agent on the
guide's own files (examples/), and follows the guide: 4 GPUs, then 16, eight pods, ten replicas, an edit with a
mistake in it, restarts; then 28 MIG devices, a mix, and back to 16 (walk_mig.py). Then it stays up with the page
until Ctrl-C; with --once it ends. Exit 0: every check held; 1: one did not, or could not be made; 2: wrong usage;
130: Ctrl-C before the end of the walk.
"""

import os
import signal

END_EARLY = "ended before the walk was over"
# Before anything stands there is nothing to clean up, and nobody wants to read a traceback of half an import.
signal.signal(signal.SIGINT, lambda *_: (os.write(1, f"\n{END_EARLY}\n".encode()), os._exit(130)))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # ./dev blocks it while Python itself starts

import argparse  # noqa: E402
import pathlib  # noqa: E402
import re  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
from collections import Counter  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, NodeUnderTest, config_map_data, eventually, free_port, is_free, same  # noqa: E402
from walk_mig import MigScenes, mig_config  # noqa: E402

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
GPU = "nvidia.com/gpu"
PLAIN = "version: v1\n"


class Walk:
    def __init__(self, node):
        self.node = node
        self.held = 0
        self.failed = 0
        self.left_out = 0

    def title(self, text):
        print(f"\n{text}", flush=True)

    def check(self, text, probe):
        """One line: ✓ and the text when probe() returns; ✗ with what was seen when it raises a Failure.

        What probe() returns, if it is text, is added to the line.
        """
        try:
            more = probe()
        except Failure as failure:
            self.failed += 1
            print(f"  ✗ {text}\n      {failure}", flush=True)
            return False
        self.held += 1
        print(f"  ✓ {text}{f' ({more})' if isinstance(more, str) else ''}", flush=True)
        return True

    def leave_out(self, text):
        self.left_out += 1
        print(f"  – not checked: {text}", flush=True)


def replicas_of(text):
    found = re.search(r"replicas:\s*(\d+)", text)
    if not found:
        raise Failure("no `replicas: N` in this example")
    return int(found.group(1))


class Guide:
    """The steps. Each uses what the ones before it left."""

    def __init__(self, walk):
        self.walk = walk
        self.node = walk.node
        self.shared = config_map_data((EXAMPLES / "time-slicing-config.yaml").read_text())["time-slicing-config"]
        self.replicas = replicas_of(self.shared)
        self.pod_count = replicas_of((EXAMPLES / "time-slicing-test.yaml").read_text())
        self.gpus = self.node.show()["gpus"]
        self.pods_before = {}

    def becomes(self, count, since=None, limit=None, seconds=10.0):
        """Allocatable becomes `count`; with `since`, within `limit` seconds of that moment."""
        try:
            eventually("", lambda: self.node.allocatable() == count, seconds)
        except Failure:
            raise Failure(f"expected {GPU}: {count} allocatable, seen {self.node.allocatable()}; the agent's last words: "
                          + " | ".join(self.node.log("agent").splitlines()[-2:])) from None
        if since is None:
            return None
        took = time.monotonic() - since
        if limit and took > limit:
            raise Failure(f"{count} allocatable came after {took:.2f} s; at most {limit:g} s were to pass")
        return f"{1000 * took:.0f} ms after the edit"

    def still(self, count, seconds=0.5):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            same(f"{GPU} allocatable", self.node.allocatable(), count)
            time.sleep(0.05)

    def pods_feel_nothing(self):
        now = self.node.pods()
        same("running pods", sorted(n for n, p in now.items() if p["phase"] == "Running"), sorted(self.pods_before))
        same("their processes", {n: p["pid"] for n, p in now.items()}, {n: p["pid"] for n, p in self.pods_before.items()})
        same("their devices", {n: p["deviceIds"] for n, p in now.items()}, {n: p["deviceIds"] for n, p in self.pods_before.items()})

    def whole_gpus(self):
        n = len(self.gpus)
        self.walk.title("A node with GPUs (the guide: Installing)")
        self.walk.check(f"{n} × {self.gpus[0]['name']} simulated, driver {self.node.show()['driver']}", lambda: None)
        self.walk.check(f"{n} {GPU} allocatable: nothing is shared yet", lambda: self.becomes(n))

    def time_slicing(self):
        n = len(self.gpus)
        self.walk.title("Time-slicing (the guide's ConfigMap, examples/time-slicing-config.yaml)")
        edited = self.node.configure(self.shared)
        self.walk.check(f"{n * self.replicas} {GPU} allocatable ({n} GPUs × {self.replicas} replicas)",
                        lambda: self.becomes(n * self.replicas, edited, 1.0))

    def eight_pods(self):
        """True when pods can be run at all."""
        self.walk.title("Eight pods (the guide's Deployment, examples/time-slicing-test.yaml)")
        try:
            self.node.sim("pod", "--dir", self.node.kubelet_dir, "run", "gpu-timeslice-test", "--count", self.pod_count,
                          "--request", f"{GPU}=1", "--work", "--memory 1Gi --activity 0.3")
        except Failure as refused:
            if os.geteuid() != 0:
                self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", "--all", check=False)
                self.walk.leave_out(f"pods, which get a private view of the devices and need root for it here: {refused}")
                return False
            self.walk.check(f"{self.pod_count} pods run", lambda: (_ for _ in ()).throw(refused))
            return False
        self.pods_before = self.node.pods()
        self.walk.check(f"{self.pod_count} pods run", self.all_run)
        self.walk.check(f"{self.pod_count // len(self.gpus)} of them on each GPU", self.spread)
        self.walk.check("nvidia-smi in a pod shows its one GPU", self.smi_in_pods)
        self.walk.check(f"nvidia-smi on the node shows {self.pod_count // len(self.gpus)} processes on each GPU", self.smi_on_node)
        self.walk.check("the page says how full each GPU is, and until it knows, nothing", self.memory_on_the_page)
        return True

    def all_run(self):
        same("phases", Counter(p["phase"] for p in self.pods_before.values()), Counter(Running=self.pod_count))

    def spread(self):
        per_gpu = Counter(i.split("::")[0] for p in self.pods_before.values() for i in p["deviceIds"])
        each = self.pod_count // len(self.gpus)
        same("pods by GPU", dict(per_gpu), {g["uuid"]: each for g in self.gpus})
        for name, pod in self.pods_before.items():
            same(f"NVIDIA_VISIBLE_DEVICES of {name}", pod["env"].get("NVIDIA_VISIBLE_DEVICES"), pod["deviceIds"][0].split("::")[0])

    def memory_on_the_page(self):
        """What was so when somebody looked last is not said of now."""
        if ">0 / 40960 MiB" in self.fetch("/"):
            raise Failure("it says 0 MiB while pods hold 1 GiB each")
        full = f">{1024 * self.pod_count // len(self.gpus)} / 40960 MiB"
        eventually(f"the page says {full} of each GPU", lambda: self.fetch("/").count(full) == len(self.gpus), 5)

    def smi_in_pods(self):
        for name, pod in self.pods_before.items():
            uuid = pod["deviceIds"][0].split("::")[0]
            same(f"nvidia-smi -L in {name}", self.node.in_pod(name, "nvidia-smi", "-L").strip(),
                 f"GPU 0: {self.gpus[0]['name']} (UUID: {uuid})")

    def smi_on_node(self):
        rows = self.node.on_node("nvidia-smi", "--query-compute-apps=gpu_uuid,pid,used_memory", "--format=csv,noheader")
        seen = sorted(tuple(cell.strip() for cell in row.split(",")) for row in rows.splitlines() if row.strip())
        wanted = sorted((p["deviceIds"][0].split("::")[0], str(p["pid"]), "1024 MiB") for p in self.pods_before.values())
        same("nvidia-smi --query-compute-apps on the node", seen, wanted)

    def ten_replicas(self):
        n = len(self.gpus)
        self.walk.title("Replicas 4 → 10, while the pods run")
        edited = self.node.configure(self.shared.replace(f"replicas: {self.replicas}", "replicas: 10"))
        self.walk.check(f"{10 * n} {GPU} allocatable", lambda: self.becomes(10 * n, edited, 1.0))
        if self.pods_before:
            self.walk.check(f"the {self.pod_count} pods run on, same processes, same devices", self.pods_feel_nothing)

    def misspelt(self):
        n = len(self.gpus)
        self.walk.title("An edit with a mistake: `replcas: 4`")
        wrong = self.shared.replace("replicas:", "replcas:")
        line = 1 + next(i for i, text in enumerate(wrong.splitlines()) if "replcas" in text)
        column = 1 + wrong.splitlines()[line - 1].index("replcas")
        place = f"{self.node.key}:{line}:{column}:"
        self.node.configure(wrong)

        def said():
            wanted = re.compile(re.escape(place) + r'.*unknown key "replcas".*did you mean replicas\?')
            try:
                found = eventually("", lambda: wanted.search(self.node.log("agent")), 5)
            except Failure:
                raise Failure(f"expected a line with {place} unknown key \"replcas\" … did you mean replicas?; the agent's last "
                              "words: " + " | ".join(self.node.log("agent").splitlines()[-3:])) from None
            return found.group(0)

        self.walk.check("the agent says where the mistake is", said)
        self.walk.check(f"{10 * n} {GPU} stay allocatable: what worked is served on", lambda: self.still(10 * n))
        if self.pods_before:
            self.walk.check(f"the {self.pod_count} pods run on", self.pods_feel_nothing)

    def restarts(self):
        n = len(self.gpus)
        self.walk.title("Restarts, the mistake still in the file")
        self.node.sim("kubelet-restart", "--dir", self.node.kubelet_dir)
        self.walk.check(f"the kubelet restarts, its sockets wiped: {10 * n} {GPU} again", lambda: self.becomes(10 * n))
        self.node.agent.kill()
        self.node.agent.wait()
        self.walk.check("the agent is killed (SIGKILL): none allocatable", lambda: self.becomes(0))
        self.node.start_agent()
        self.walk.check(f"it starts again with the last good configuration: {10 * n} {GPU}", lambda: self.becomes(10 * n))
        if self.pods_before:
            self.walk.check(f"the {self.pod_count} pods run on", self.pods_feel_nothing)

    def back(self):
        n = len(self.gpus)
        self.walk.title("The mistake is mended, the pods go")
        edited = self.node.configure(self.shared)
        self.walk.check(f"{n * self.replicas} {GPU} allocatable", lambda: self.becomes(n * self.replicas, edited, 1.0))
        if not self.pods_before:
            return
        self.node.sim("pod", "--dir", self.node.kubelet_dir, "rm", "--all")
        self.walk.check("nobody holds a GPU any more", self.nobody_left)

    def nobody_left(self):
        same("pods", self.node.pods(), {})
        eventually("no process works on a GPU", lambda: not any(g["clients"] for g in self.node.show()["gpus"]))

    def page(self):
        self.walk.title(f"Seen from outside, on http://{self.node.listen}")
        self.walk.check("/healthz and /readyz say 200", lambda: (self.fetch("/healthz"), self.fetch("/readyz"), None)[2])
        self.walk.check("/metrics counts the devices it offers", self.metrics)

    def fetch(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.node.listen}{path}", timeout=5) as answer:
                return answer.read().decode()
        except (urllib.error.URLError, OSError) as error:
            raise Failure(f"http://{self.node.listen}{path}: {error}") from None

    def metrics(self):
        wanted = f'gpuslice_devices{{resource="{GPU}",state="healthy"}} {len(self.gpus) * self.replicas}'
        if wanted not in self.fetch("/metrics").splitlines():
            raise Failure(f"expected the line {wanted}")


def follow(walk):
    guide = Guide(walk)
    guide.whole_gpus()
    guide.time_slicing()
    guide.eight_pods()
    guide.ten_replicas()
    guide.misspelt()
    guide.restarts()
    guide.back()
    MigScenes(walk, guide).follow()
    guide.page()


def real_driver():
    """What this machine has of its own, or None."""
    try:
        text = pathlib.Path("/proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    found = re.search(r"\b(\d+\.\d+(\.\d+)?)\b", text)
    return found.group(1) if found else "unknown version"


def refuse_taken(said):
    """Says that an address which was asked for is taken, before anything is made."""
    host, _, port = said.rpartition(":")
    if not port.isdigit():
        raise Failure(f"--listen {said}: HOST:PORT, such as 127.0.0.1:9400")
    if not is_free(host.strip("[]"), int(port)):
        raise Failure(f"--listen {said}: another program listens there; take another port, or leave --listen out to get a free one")


def start_agent(node, said):
    """On the address that was said, else on port 9400, else on any free one."""
    node.start_agent(said or "127.0.0.1:9400")

    def up():
        if node.agent.poll() is not None:
            raise Failure(f"the agent ended with {node.agent.returncode}: " + " | ".join(node.log("agent").splitlines()[-2:]))
        return f"http://{node.listen}" in node.log("agent")

    try:
        eventually("the agent starts", up)
    except Failure:
        if said or "cannot be listened on" not in node.log("agent"):
            raise
        node.start_agent(f"127.0.0.1:{free_port()}")
        eventually("the agent starts", up)
        print(f"port 9400 is taken by another program: the page is on http://{node.listen} instead", flush=True)


def stay(node):
    print(f"\nThe node stays up, eight pods on it: http://{node.listen}/")
    print(f"  {node.sim_program} exec --root {node.root} -- nvidia-smi")
    print(f"  {node.sim_program} node --dir {node.kubelet_dir}")
    print(f"  edit {node.map / node.key}")
    print("MIG, once the pods are gone (labels: all-1g.5gb, mixed, all-disabled; with the pods there it says who is in the way):")
    print(f"  {node.sim_program} pod --dir {node.kubelet_dir} rm --all")
    print(f"  echo all-1g.5gb > {node.mig_label}; sleep 1; cat {node.dir / 'run' / 'mig-status.json'}")
    print("Ctrl-C ends it and removes it all.", flush=True)
    while True:
        if node.agent.poll() is not None:
            raise Failure(f"the agent ended with {node.agent.returncode}: " + " | ".join(node.log("agent").splitlines()[-3:]))
        time.sleep(0.5)


def main():
    parser = argparse.ArgumentParser(prog="./dev run", description="the guide's walk on a simulated node")
    parser.add_argument("--bin", required=True, help="folder of gpuslice and gpuslice-sim")
    parser.add_argument("--once", action="store_true", help="end after the walk")
    parser.add_argument("--listen", help="HOST:PORT of the page (127.0.0.1:9400, or a free port if that is taken)")
    options = parser.parse_args()

    def end(number, _):
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    walk, begun, staying = None, time.monotonic(), False
    try:
        driver = real_driver()
        if driver:
            print(f"This machine has an NVIDIA driver ({driver}). It is not touched: what follows is simulated.\n"
                  f"To share its GPUs: {options.bin}/gpuslice agent --config FILE")
        if options.listen:
            refuse_taken(options.listen)
        with NodeUnderTest(options.bin) as node:
            walk = Walk(node)
            node.start_kubelet()
            node.configure(PLAIN)
            node.configure_mig(mig_config())
            start_agent(node, options.listen)
            follow(walk)
            print(f"\n{walk.held} held, {walk.failed} failed"
                  + (f", {walk.left_out} not checked" if walk.left_out else "")
                  + f", {time.monotonic() - begun:.1f} s", flush=True)
            if not options.once:
                staying = True
                node.sim("pod", "--dir", node.kubelet_dir, "run", "gpu-timeslice-test", "--count", 8, "--request", f"{GPU}=1",
                         "--work", "--memory 1Gi --activity 0.3", check=False)
                stay(node)
    except KeyboardInterrupt:
        print("\nended" if staying else f"\n{END_EARLY}", flush=True)
        if not staying:
            return 130
    except Failure as failure:
        print(f"dev run: {failure}", file=sys.stderr)
        return 1
    return 1 if walk is None or walk.failed or walk.left_out else 0


if __name__ == "__main__":
    sys.exit(main())
