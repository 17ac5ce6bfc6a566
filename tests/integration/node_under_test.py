"""A simulated node with its kubelet stand-in and the agent, as processes, for walk.py and the tests here.

Python's standard library only. Everything lives in one temporary folder and ends with the NodeUnderTest
that made it, whatever happens: children die with us (PR_SET_PDEATHSIG) even if we are killed.
"""

import argparse
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    # A session of its own: Ctrl-C reaches us alone, and we end the children in order.
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@contextlib.contextmanager
def undisturbed():
    """Ctrl-C, SIGTERM and SIGHUP wait until the block is over. Main thread only."""
    came = []
    before = {number: signal.signal(number, lambda seen, _: came.append(seen)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            os.kill(os.getpid(), came[0])


class Failure(Exception):
    """Something that was to hold does not; the text says what was expected and what was seen."""


def eventually(what, probe, seconds=10.0):
    """Waits until probe() is truthy and returns that; a Failure names `what` and what was seen last."""
    until = time.monotonic() + seconds
    while True:
        seen = probe()
        if seen:
            return seen
        if time.monotonic() > until:
            raise Failure(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_free(host, port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind((host, port))
        except OSError:
            return False
        return True


def config_map_data(manifest):
    """The `data` of a ConfigMap manifest as {key: text}: block scalars (`key: |`) at one indentation."""
    data, key, indent = {}, None, None
    in_data = False
    for line in manifest.splitlines():
        if re.match(r"data:\s*$", line):
            in_data = True
            continue
        if in_data and line and not line[0].isspace() and not line.startswith("#"):
            in_data = False
        if not in_data:
            continue
        opened = re.match(r"  ([\w.-]+):\s*\|-?\s*$", line)
        if opened:
            key, indent = opened.group(1), None
            data[key] = ""
        elif key is not None and (not line.strip() or line.startswith("    ")):
            if indent is None:
                indent = len(line) - len(line.lstrip())
            data[key] += line[indent:] + "\n"
    if not data:
        raise Failure("this manifest has no `data:` with `key: |` in it")
    return data


def same(what, seen, expected):
    if seen != expected:
        raise Failure(f"{what}: expected {expected}, seen {seen}")


class NodeUnderTest:
    """A folder with node/, kubelet/, config/ and mig-config/ (mounted as a kubelet mounts a ConfigMap), mig-label, state/, run/
    and logs."""

    def __init__(self, bin_dir, gpus="4xA100-SXM4-40GB", seed=1, under=None):
        self.sim_program = str(pathlib.Path(bin_dir).resolve() / "gpuslice-sim")
        self.agent_program = str(pathlib.Path(bin_dir).resolve() / "gpuslice")
        for program in (self.sim_program, self.agent_program):
            if not os.access(program, os.X_OK):
                raise Failure(f"{program} is not there: build first with ./dev build")
        self.key = "time-slicing-config"
        self.mig_key = "config.yaml"
        self.follows_mig = False
        self.swaps = 0
        self.dir = None
        self.kubelet = None
        self.agent = None
        self.listen = None
        try:
            with undisturbed():
                self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice-run-", dir=under))
                self.root = self.dir / "node"
                self.kubelet_dir = self.dir / "kubelet"
                self.map = self.dir / "config"
                self.mig_map = self.dir / "mig-config"
                self.mig_label = self.dir / "mig-label"
                self.sim("create", "--root", self.root, "--gpus", gpus, "--seed", seed)
        except BaseException:
            self.end()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.end()

    # --- running things ------------------------------------------------------------------------------------------

    def sim(self, *words, check=True, timeout=60):
        """`gpuslice-sim WORDS…`: its standard output; a Failure with its own sentence when it refuses."""
        done = subprocess.run([self.sim_program, *map(str, words)], capture_output=True, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, start_new_session=True)
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip()
            raise Failure(f"gpuslice-sim {' '.join(map(str, words))}: exit {done.returncode}: {said}")
        return done.stdout

    def on_node(self, *command):
        """Runs a command on the simulated node, as its administrator would; its standard output."""
        return self.sim("exec", "--root", self.root, "--", *command)

    def in_pod(self, pod, *command):
        return self.sim("pod", "--dir", self.kubelet_dir, "exec", pod, "--", *command)

    def _start(self, name, *words):
        log = open(self.dir / f"{name}.log", "ab")
        with log:
            return subprocess.Popen(list(map(str, words)), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                    preexec_fn=_die_with_parent)

    def start_kubelet(self):
        self.kubelet = self._start("kubelet", self.sim_program, "kubelet", "--root", self.root, "--dir", self.kubelet_dir)
        eventually("the kubelet stand-in serves " + str(self.kubelet_dir), self._kubelet_answers)

    def _kubelet_answers(self):
        if self.kubelet.poll() is not None:
            raise Failure(f"the kubelet stand-in ended with {self.kubelet.returncode}: {self.log('kubelet').strip()}")
        return (self.kubelet_dir / "device-plugins" / "kubelet.sock").exists() and (
            self.kubelet_dir / "gpuslice-sim.sock").exists()

    def start_agent(self, listen=None, more=()):
        self.listen = listen or self.listen or f"127.0.0.1:{free_port()}"
        if self.follows_mig:
            more = ("--mig-config", self.mig_map / self.mig_key, "--mig-label-file", self.mig_label, "--mig-strategy", "mixed", *more)
        self.agent = self._start("agent", self.agent_program, "agent", "--root", self.root, "--kubelet-dir", self.kubelet_dir,
                                 "--config", self.map / self.key, "--state-dir", self.dir / "state", "--run-dir",
                                 self.dir / "run", "--listen", self.listen, "--no-kube", *more)

    def log(self, name):
        try:
            return (self.dir / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # --- the configuration, as a kubelet mounts a ConfigMap ------------------------------------------------------

    def configure(self, text):
        """Swaps the mounted ConfigMap for one whose only key holds `text`; returns when that was done."""
        return self._swap(self.map, self.key, text)

    def configure_mig(self, text):
        """The same with the MIG configuration, which an agent that is started from now on follows."""
        self.follows_mig = True
        return self._swap(self.mig_map, self.mig_key, text)

    def _swap(self, folder, key, text):
        self.swaps += 1
        version = f"..{self.swaps:04d}"
        (folder / version).mkdir(parents=True)
        (folder / version / key).write_text(text)
        if not (folder / key).is_symlink():
            os.symlink(f"..data/{key}", folder / key)
        os.symlink(version, folder / "..data_tmp")
        os.rename(folder / "..data_tmp", folder / "..data")
        done = time.monotonic()
        for old in folder.glob("..[0-9]*"):
            if old.name != version:
                shutil.rmtree(old)
        return done

    def set_mig_label(self, label):
        """Asks for a MIG layout; the same label again is asked for again. Returns when that was done."""
        fresh = self.mig_label.with_suffix(".new")
        fresh.write_text(label + "\n")
        os.rename(fresh, self.mig_label)
        return time.monotonic()

    # --- what is seen --------------------------------------------------------------------------------------------

    def show(self):
        return json.loads(self.sim("show", "--root", self.root, "-o", "json"))

    def node_status(self):
        return json.loads(self.sim("node", "--dir", self.kubelet_dir, "-o", "json"))

    def allocatable(self, resource="nvidia.com/gpu"):
        return int(self.node_status()["allocatable"].get(resource, 0))

    def all_allocatable(self):
        """{resource: how many} of what is above zero of NVIDIA's names."""
        return {name: int(count) for name, count in self.node_status()["allocatable"].items() if name.startswith("nvidia.com/") and int(count)}

    def becomes(self, resource, count, seconds=15.0):
        """Waits until so many of the resource are allocatable."""
        try:
            eventually("", lambda: self.allocatable(resource) == count, seconds)
        except Failure:
            raise Failure(f"{resource}: expected {count} allocatable, seen {self.allocatable(resource)}; the agent's last words: "
                          f"{self.log('agent').splitlines()[-4:]}") from None

    def watched(self, gpus):
        """Waits until the agent hears the events of these GPUs: they are told from the registration on."""
        pid = self.agent.pid
        eventually(f"the agent waits for the events of GPUs {list(gpus)}", lambda: all(
            any(c["events"] and c["pid"] == pid for c in self.show()["gpus"][gpu]["attached"]) for gpu in gpus), 15)

    def list_devices(self):
        """`gpuslice list devices -o json`: as the agent says."""
        done = subprocess.run([self.agent_program, "list", "devices", "--root", self.root, "--run-dir", self.dir / "run", "-o", "json"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"list devices: exit {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def get(self, path):
        """What the agent's page, /metrics and the like say."""
        with urllib.request.urlopen(f"http://{self.listen}{path}", timeout=10) as answer:
            return answer.read().decode()

    def metric(self, name, **labels):
        """The values, as text, of the series of `name` that have these labels."""
        return [line.split()[-1] for line in self.get("/metrics").splitlines() if line.startswith(name + "{")
                and all(f'{key}="{value}"' in line for key, value in labels.items())]

    def mig_status(self):
        """What the agent says of the label, {} before it says anything."""
        try:
            return json.loads((self.dir / "run" / "mig-status.json").read_text())
        except FileNotFoundError:
            return {}

    def pods(self):
        return {pod["name"]: pod for pod in json.loads(self.sim("pod", "--dir", self.kubelet_dir, "ls", "-o", "json"))}

    # --- the end -------------------------------------------------------------------------------------------------

    @staticmethod
    def _end(process, patience=5.0):
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def end(self):
        """Ends agent and kubelet (its pods end with it), then removes the folder. May be called twice."""
        with undisturbed():
            self._end(self.agent)
            self._end(self.kubelet)
            self._remove()

    def _remove(self, patience=3.0):
        """Removes the folder; again while processes that are just dying still write there."""
        until = time.monotonic() + patience
        while self.dir is not None and self.dir.exists():
            shutil.rmtree(self.dir, ignore_errors=time.monotonic() < until)


def judge(description, gpus, story):
    """A test's main(): story(node) on a node of its own, with --bin DIR. What failed is said with the last words of agent and
    kubelet stand-in. The exit code."""
    words = argparse.ArgumentParser(description=description.splitlines()[0])
    words.add_argument("--bin", required=True)
    with NodeUnderTest(words.parse_args().bin, gpus=gpus) as node:
        try:
            story(node)
        except (Failure, OSError, subprocess.SubprocessError) as problem:
            said = problem if isinstance(problem, Failure) else repr(problem)
            print(f"FAIL  {said}\n--- agent\n{node.log('agent')[-5000:]}\n--- kubelet\n{node.log('kubelet')[-5000:]}", file=sys.stderr)
            return 1
    return 0
