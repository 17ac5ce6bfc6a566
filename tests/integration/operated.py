#!/usr/bin/env python3
"""The agent as somebody operates it: operated.py --bin DIR

`agent --check` before and while it runs, running without root with just the permissions that docs/operations.md lists,
and an end within two seconds while everything hangs that it talks to.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, _die_with_parent, eventually, free_port, judge, same  # noqa: E402

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all")
SHARED = """version: v1
flags: {plugin: {deviceListStrategy: cdi-cri}}
sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: 4}]}}
"""
LAYOUTS = "version: v1\nmig-configs:\n  small: [{devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 7}}]\n  elsewhere: [{devices: [7], mig-enabled: true, mig-devices: {1g.5gb: 7}}]\n"


class Run:
    def __init__(self, node):
        self.node = node
        self.program = node.dir / "gpuslice"  # where anybody may read it
        shutil.copy(node.agent_program, self.program)
        os.chmod(node.dir, 0o755)
        self.listen = f"127.0.0.1:{free_port()}"
        self.layouts = node.dir / "layouts.yaml"
        self.layouts.write_text(LAYOUTS)
        self.cdi = node.root / "var" / "run" / "cdi"
        self.agent = None

    def flags(self, *more, config=None):
        return ["--root", self.node.root, "--kubelet-dir", self.node.kubelet_dir, "--config", config or self.node.map / self.node.key, "--state-dir",
                self.node.dir / "state", "--run-dir", self.node.dir / "run", "--listen", self.listen, "--no-kube", *more]

    def tree(self):
        """All that there is, with what would change if it were touched."""
        out = {}
        for path in self.node.dir.rglob("*"):
            info = path.lstat()
            if "world" not in path.parts and not path.name.endswith(".log"):
                out[str(path)] = (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns if path.is_file() else 0)
        return out

    def check(self, *more, before=(), config=None):
        tree = self.tree()
        done = subprocess.run([*before, *map(str, [self.program, "agent", "--check", *self.flags(*more, config=config)])], capture_output=True, text=True,
                              timeout=60)
        same("it changes nothing", sorted(set(self.tree().items()) ^ set(tree.items())), [])
        lines = {}
        for line in done.stdout.splitlines():
            word, what, how = re.fullmatch(r"(ok|FAIL) +([^:]+): (.*)", line).groups()
            lines.setdefault(what, []).append((word, how))
        return done.returncode, lines, done.stdout + done.stderr

    def start(self, *more, before=(), env=None):
        log = open(self.node.dir / "agent.log", "ab")
        with log:
            self.agent = subprocess.Popen([*before, *map(str, [self.program, "agent", *self.flags(*more)])], stdout=log, stderr=log,
                                          stdin=subprocess.DEVNULL, preexec_fn=_die_with_parent, env=dict(os.environ, **(env or {})))

    def end(self, seconds=2.0):
        begun = time.monotonic()
        self.agent.send_signal(signal.SIGTERM)
        code = self.agent.wait(20)
        took = time.monotonic() - begun
        same("its exit", code, 0)
        if took > seconds:
            raise Failure(f"its end took {took:.2f} s")

    def get(self, path):
        try:
            with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    # -----------------------------------------------------------------------------------------------------------------

    def a_check_before_there_is_a_kubelet(self):
        code, lines, said = self.check()
        same(said, code, 7)
        same(said, lines["configuration"], [("ok", str(self.node.map / self.node.key))])
        same(said, lines["kubelet's folder"], [("FAIL", f"{self.node.kubelet_dir}/device-plugins: No such file or directory; the kubelet makes this "
                                                        "folder when it starts (see --kubelet-dir)")])
        same(said, lines["kubelet"][0][0], "FAIL")
        same(said, lines["driver"], [("ok", "580.65.06, 2 GPUs")])
        same(said, lines["devices"], [("ok", "nvidia.com/gpu: 8")])
        same(said, lines["agent"], [("ok", "none runs here yet")])

    def a_check_of_a_node_that_is_ready(self):
        self.node.start_kubelet()
        code, lines, said = self.check("--mig-config", self.layouts, "--mig-label", "small")
        same(said, code, 0)
        same(said, lines["MIG configuration"], [("ok", f"{self.layouts}: label small")])
        same(said, lines["pod-resources"][0][1].startswith(f"{self.node.kubelet_dir}/pod-resources/kubelet.sock: gpuslice-sim (PID "), True)

    def a_check_finds_what_is_wrong(self):
        self.node.configure("version: v1\nsharing:\n  timeSlicing:\n    resources:\n    - {name: nvidia.com/gpu, replicsa: 4}\n")
        code, lines, said = self.check()
        same(said, code, 3)
        same(said, (lines["configuration"][0][0], f"{self.node.key}:5:30: " in lines["configuration"][0][1]), ("FAIL", True))
        self.node.configure(SHARED)
        code, lines, said = self.check("--mig-config", self.layouts, "--mig-label", "smal")
        same(said, (code, lines["MIG configuration"][0][0]), (3, "FAIL"))
        self.layouts.write_text(LAYOUTS.replace("1g.5gb", "1g.10gb"))
        code, lines, said = self.check("--mig-config", self.layouts, "--mig-label", "small")
        self.layouts.write_text(LAYOUTS)
        same(said, (code, lines["MIG layout"][0][0], "1g.10gb" in lines["MIG layout"][0][1]), (4, "FAIL", True))
        label = self.node.dir / "wanted"
        label.write_text("elsewhere\n")
        code, lines, said = self.check("--mig-config", self.layouts, "--mig-label-file", label)
        same(said, (code, "no entry of it is for a GPU of this node" in lines["MIG layout"][0][1]), (3, True))
        for required, code_then, word in ((False, 0, "ok"), (True, 7, "FAIL")):
            self.node.configure(SHARED + f"imex: {{channelIDs: [0], required: {str(required).lower()}}}\n")
            code, lines, said = self.check()
            same(said, (code, lines["IMEX"][0][0], "channel0 is not there" in lines["IMEX"][0][1]), (code_then, word, True))
        self.node.configure(SHARED)
        with socket.socket() as taken:
            taken.bind(tuple([self.listen.split(":")[0], int(self.listen.split(":")[1])]))
            taken.listen()
            code, lines, said = self.check()
            same(said, (code, lines["listen"][0][0]), (7, "FAIL"))
        with socket.socket(socket.AF_UNIX) as other:
            path = self.node.kubelet_dir / "device-plugins" / "nvidia-gpu.sock"
            other.bind(str(path))
            other.listen()
            code, lines, said = self.check()
            same(said, (code, lines["socket"][0][0], "remove NVIDIA's device plugin" in lines["socket"][0][1]), (5, "FAIL", True))
            path.unlink()
        self.node.sim("inject", "--root", self.node.root, "hang", "--call", "nvmlDeviceGetUUID", "--times", 1)
        code, lines, said = self.check()
        self.node.sim("inject", "--root", self.node.root, "clear")
        same(said, (code, "nvmlDeviceGetUUID has not answered for 10 s" in said), (7, True))
        self.node.sim("inject", "--root", self.node.root, "lose", "--gpu", 1)
        code, lines, said = self.check()
        self.node.sim("inject", "--root", self.node.root, "restore", "--gpu", 1)
        same(said, (code, lines["GPU"][0][0], lines["devices"]), (7, "FAIL", [("ok", "nvidia.com/gpu: 4")]))
        here = self.node.map / "nowhere.yaml"
        code, lines, said = self.check(config=here)
        same(said, (code, lines["configuration"]), (3, [("FAIL", f"{here}: cannot be read: No such file or directory")]))
        code, lines, said = self.check("--mig-stratgy", "mixed")
        same(said, code, 2)

    def a_check_of_the_api_server(self):
        """One that takes the connection and says nothing."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            config = self.node.dir / "kubeconfig"
            config.write_text("apiVersion: v1\nkind: Config\ncurrent-context: c\n"
                              f"clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{silent.getsockname()[1]}'}}}}]\n"
                              "users: [{name: u, user: {token: t}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n")
            flags = [flag for flag in self.flags("--labels-to", "node", "--node-name", "n", "--kubeconfig", config) if flag != "--no-kube"]
            begun = time.monotonic()
            done = subprocess.run(list(map(str, [self.program, "agent", "--check", *flags])), capture_output=True, text=True, timeout=60)
            same(done.stdout, (done.returncode, bool(re.search(rf"^FAIL  API server: 127.0.0.1:{silent.getsockname()[1]}: ", done.stdout, re.M))), (7, True))
            if time.monotonic() - begun > 20:
                raise Failure("it waited for too long")

    def without_root(self):
        """Each permission that docs/operations.md lists, and no other."""
        if os.geteuid() != 0:
            raise Failure("this needs root, to give it up: run this test as root (in a container is enough)")
        node = self.node
        labels = node.dir / "features.d"
        labels.mkdir()
        more = ("--labels-to", "nfd-file", "--output-file", labels / "gfd", "--mig-config", self.layouts, "--mig-label", "small")
        code, lines, said = self.check(*more, before=AS_NOBODY)
        same(said, code, 7)
        wanted = {"state folder", "run folder", "CDI folder", "labels' folder", "kubelet's folder", "kubelet", "pod-resources", "MIG"}
        same(said, {what for what, how in lines.items() if how[0][0] == "FAIL"}, wanted)
        for folder in (node.dir / "state", node.dir / "run", self.cdi):
            folder.mkdir(parents=True, exist_ok=True)
            os.chown(folder, NOBODY, NOBODY)
        os.chown(labels, NOBODY, NOBODY)
        os.chown(node.kubelet_dir / "device-plugins", NOBODY, NOBODY)
        for kubelet_socket in (node.kubelet_dir / "device-plugins" / "kubelet.sock", node.kubelet_dir / "pod-resources" / "kubelet.sock"):
            os.chown(kubelet_socket, NOBODY, NOBODY)
        os.chmod(node.kubelet_dir / "pod-resources", 0o755)
        code, lines, said = self.check(*more, before=AS_NOBODY)
        same(said, {what for what, how in lines.items() if how[0][0] == "FAIL"}, {"MIG"})
        self.start(*more, before=AS_NOBODY)
        eventually("eight replicas", lambda: node.allocatable() == 8, 15)
        same("its user", os.stat(f"/proc/{self.agent.pid}").st_uid, NOBODY)
        eventually("it is ready", lambda: self.get("/readyz")[0] == 200)
        same("alive", self.get("/healthz"), (200, "ok\n"))
        same("metrics", self.get("/metrics")[0], 200)
        spec = json.loads((self.cdi / "k8s.device-plugin.nvidia.com-gpu.json").read_text())
        same("a CDI spec of both GPUs", len({d["name"] for d in spec["devices"]} & {"0", "1"} or spec["devices"]) >= 2, True)
        same("labels", "nvidia.com/gpu.count=2" in (labels / "gfd").read_text(), True)
        node.sim("pod", "--dir", node.kubelet_dir, "run", "one", "--request", "nvidia.com/gpu=1")
        eventually("a pod runs", lambda: node.pods()["one"]["phase"] == "Running")
        eventually("who holds it is known from the kubelet", lambda: any("default/one" in d.get("heldBy", "") for r in self.status()["resources"] for d in r["devices"]))
        eventually("MIG cannot be changed, and that is said", lambda: self.status()["mig"]["state"] == "failed", 15)
        same("the reason", "ermission" in self.status()["mig"]["reason"], True)
        same("served all the same", node.allocatable(), 8)
        node.sim("pod", "--dir", node.kubelet_dir, "rm", "one")
        self.end()

    def status(self):
        done = subprocess.run([*AS_NOBODY, *map(str, [self.program, "agent", "status", "--root", self.node.root, "--run-dir", self.node.dir / "run", "-o", "json"])],
                              capture_output=True, text=True)
        same(done.stderr, done.returncode, 0)
        return json.loads(done.stdout)

    def a_check_beside_the_agent(self):
        self.start()
        eventually("it is ready", lambda: self.get("/readyz")[0] == 200, 15)
        code, lines, said = self.check()
        same(said, code, 0)
        same(said, lines["agent"], [("ok", f"one runs here already, PID {self.agent.pid}")])
        same(said, lines["listen"], [("ok", f"{self.listen}: taken, while PID {self.agent.pid} runs")])
        same(said, lines["socket"][0][1].endswith(f"gpuslice (PID {self.agent.pid})"), True)
        same("it is ready still", self.get("/readyz")[0], 200)
        self.end()

    def an_end_while_the_driver_hangs(self):
        """In every thread that calls it: the look at the hardware and the wait for events."""
        self.start()
        eventually("events are waited for", lambda: all(any(c["events"] for c in gpu["attached"]) for gpu in self.node.show()["gpus"]), 15)
        for call in ("nvmlEventSetWait*", "nvmlDeviceGetUUID"):
            self.node.sim("inject", "--root", self.node.root, "hang", "--call", call, "--times", 0)
        time.sleep(6.5)  # the next look begins within five seconds
        same("it serves", (self.get("/readyz")[0], self.node.allocatable()), (200, 8))
        self.end()
        self.node.sim("inject", "--root", self.node.root, "clear")

    def an_end_while_mig_is_changed(self):
        """In the middle of a change that hangs: left to its journal, and the next start goes on from it."""
        self.node.sim("inject", "--root", self.node.root, "hang", "--call", "nvmlGpuInstanceCreateComputeInstance*", "--after", 2, "--times", 1)
        self.start("--mig-config", self.layouts, "--mig-label", "small")
        eventually("it is in the middle", lambda: len(self.node.show()["gpus"][0]["gpuInstances"]) == 7, 20)
        time.sleep(0.5)
        self.end()
        same("a journal is left", len(list((self.node.dir / "state" / "mig").glob("*.journal"))), 1)
        self.node.sim("inject", "--root", self.node.root, "clear")
        self.start("--mig-config", self.layouts, "--mig-label", "small")
        eventually("it goes on", lambda: not list((self.node.dir / "state" / "mig").glob("*.journal")) and
                   sum(len(gi["computeInstances"]) for gi in self.node.show()["gpus"][0]["gpuInstances"]) == 7, 30)
        self.end()

    def run(self):
        self.node.configure(SHARED)
        for step in (self.a_check_before_there_is_a_kubelet, self.a_check_of_a_node_that_is_ready, self.a_check_finds_what_is_wrong, self.a_check_of_the_api_server,
                     self.without_root, self.a_check_beside_the_agent, self.an_end_while_the_driver_hangs, self.an_end_while_mig_is_changed):
            begun = time.monotonic()
            step()
            print(f"ok   {step.__name__.replace('_', ' ')} ({time.monotonic() - begun:.1f} s)", flush=True)

    def close(self):
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait()


def story(node):
    run = Run(node)
    try:
        run.run()
    finally:
        run.close()


if __name__ == "__main__":
    sys.exit(judge(__doc__, "2xA100-SXM4-40GB", story))
