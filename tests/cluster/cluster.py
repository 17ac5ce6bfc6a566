"""A real Kubernetes of one node, in namespaces of its own: etcd, API server, scheduler, controller-manager, containerd
and kubelet, from the programs that build.sh built.

Everything lives in a mount, network and PID namespace whose first process dies with us, so that nothing is left
whatever happens: no process, no mount, no network link. Files lie in one temporary folder, control groups under one
name; close() removes both. Needs root.
"""

import ctypes
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "integration"))
sys.dont_write_bytecode = True
from images import write_image  # noqa: E402
from node_under_test import Failure, eventually  # noqa: E402

NODE = "gpu-node-0"
NODE_IP = "10.55.0.1"  # inside the network namespace only
SERVICE_IP = "10.96.0.1"
POD_NET = "10.56.0.0/24"
PORT = 443
SERVER = f"https://{NODE_IP}:{PORT}"
WORK_IMAGE = "gpuslice.test/work:1"
# The image that the guide's manifests name, so that they run here as they are: the same shell, no CUDA.
GUIDE_IMAGE = "docker.io/nvidia/cuda:11.8.0-base-ubuntu22.04"
PAUSE_IMAGE = "gpuslice.test/pause:1"
# Who the API server knows, with the groups that its own roles are bound to.
USERS = {
    "admin": ("admin", "system:masters"),
    "scheduler": ("system:kube-scheduler", ""),
    "controllers": ("system:kube-controller-manager", ""),
    "node": (f"system:node:{NODE}", "system:nodes"),
}
CGROUPS = pathlib.Path("/sys/fs/cgroup")
PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def _die_with_parent():
    os.setsid()
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _child_of(pid):
    """The one child of a process that forked once (unshare, nsenter), or None while there is none."""
    try:
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


class Cluster:
    def __init__(self, programs, keep_logs=None):
        """`programs`: the folder that build.sh named. `keep_logs`: a folder that gets the logs at the end."""
        if os.geteuid() != 0:
            raise Failure("a cluster needs root: it makes namespaces and control groups")
        self.programs = pathlib.Path(programs)
        self.keep_logs = keep_logs
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="gpuslice-cluster-"))
        self.gpus = self.dir / "gpus"  # where a simulated node's driver may be put; CDI specs below it are read
        self.cgroup = f"gpuslice-{os.getpid()}"
        self.children = {}
        self.made_kubelet_dir = False
        self.init = None
        try:
            self._namespaces()
            self._keys()
            self._control_plane()
            self._node()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- processes -----------------------------------------------------------------------------------------------

    def _namespaces(self):
        for name in ("pki", "log", "kubelet", "device-plugins", "cni", "etc-cni", "agent"):
            (self.dir / name).mkdir()
        # The kubelet's folder of plugins is /var/lib/kubelet/device-plugins whatever --root-dir says.
        kubelet_dir = pathlib.Path("/var/lib/kubelet")
        if not kubelet_dir.exists():
            kubelet_dir.mkdir()
            self.made_kubelet_dir = True
        self.init = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private",
             str(self.programs / "pause")], preexec_fn=_die_with_parent, stdin=subprocess.DEVNULL)
        eventually("the node's first process", lambda: _child_of(self.init.pid), 5)
        self.inside(f"""
            set -e
            until [ "$(cat /proc/1/comm)" = pause ]; do sleep 0.02; done
            mount -t tmpfs tmpfs /run
            mkdir /run/netns /run/lock
            mount --bind {self.dir}/kubelet {kubelet_dir}
            ip link set lo up
            ip link add gs0 type bridge
            ip addr add {NODE_IP}/24 dev gs0
            ip addr add {SERVICE_IP}/32 dev gs0
            ip link set gs0 up
            ip route add default dev gs0
            echo 1 > /proc/sys/net/ipv4/ip_forward
        """)

    def enter(self, *words):
        """The command that runs `words` on the node, in its namespaces."""
        return ["nsenter", f"--target={_child_of(self.init.pid)}", "--mount", "--net", "--pid", "--", *map(str, words)]

    def inside(self, script, timeout=30):
        done = subprocess.run(self.enter("sh", "-c", script), capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL)
        if done.returncode != 0:
            raise Failure(f"on the node: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def start(self, name, *words, env=None):
        """Starts a program on the node; its output goes to the log of that name."""
        with open(self.dir / "log" / f"{name}.log", "ab") as log:
            self.children[name] = subprocess.Popen(
                self.enter(*words), stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.dir, preexec_fn=_die_with_parent,
                env={"PATH": f"{self.programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **(env or {})})

    def alive(self, name):
        child = self.children.get(name)
        return child is not None and child.poll() is None

    def kill(self, name, number=signal.SIGTERM, seconds=20):
        """Ends a program on the node and waits for it."""
        child = self.children.pop(name)
        # It may have been started just now, and not be there yet.
        pid = eventually(f"{name} runs or has ended", lambda: _child_of(child.pid) or (child.poll() is not None and -1), 10)
        if pid > 0:
            os.kill(pid, number)
        try:
            return child.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"{name} did not end within {seconds} s of signal {number}") from None

    def log(self, name):
        try:
            return (self.dir / "log" / f"{name}.log").read_text(errors="replace")
        except OSError:
            return ""

    def _ready(self, name, what, probe, seconds):
        def look():
            if not self.alive(name):
                raise Failure(f"{name} ended: " + " | ".join(self.log(name).splitlines()[-4:]))
            return probe()
        try:
            return eventually(what, look, seconds)
        except Failure as failure:
            raise Failure(f"{failure}; last words of {name}: " + " | ".join(self.log(name).splitlines()[-4:])) from None

    # --- what it is made of --------------------------------------------------------------------------------------

    def _keys(self):
        pki = self.dir / "pki"

        def openssl(*words):
            done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True, cwd=pki)
            if done.returncode != 0:
                raise Failure(f"openssl {words[0]}: {done.stderr.strip()}")

        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 2, "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=kube-apiserver", "-keyout", "api.key", "-out", "api.csr")
        (pki / "names").write_text(f"subjectAltName=IP:127.0.0.1,IP:{NODE_IP},IP:{SERVICE_IP},DNS:kubernetes.default.svc\n")
        openssl("x509", "-req", "-in", "api.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", 2, "-extfile", "names",
                "-out", "api.crt")
        openssl("genrsa", "-out", "accounts.key", 2048)
        openssl("rsa", "-in", "accounts.key", "-pubout", "-out", "accounts.pub")
        tokens = []
        for name, (user, group) in USERS.items():
            token = secrets.token_hex(16)
            tokens.append(f'{token},{user},{user},"{group}"\n' if group else f"{token},{user},{user}\n")
            self.write_kubeconfig(name, token)
        (pki / "tokens.csv").write_text("".join(tokens))

    def write_kubeconfig(self, name, token):
        path = self.dir / "pki" / f"{name}.kubeconfig"
        path.write_text(f"""apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: "{SERVER}", certificate-authority: {self.dir}/pki/ca.crt}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
""")
        path.chmod(0o600)
        return path

    def start_api_server(self):
        pki = self.dir / "pki"
        self.start("apiserver", "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--bind-address=0.0.0.0",
                   f"--advertise-address={NODE_IP}", f"--secure-port={PORT}", f"--tls-cert-file={pki}/api.crt",
                   f"--tls-private-key-file={pki}/api.key", f"--client-ca-file={pki}/ca.crt", f"--token-auth-file={pki}/tokens.csv",
                   f"--service-account-key-file={pki}/accounts.pub", f"--service-account-signing-key-file={pki}/accounts.key",
                   "--service-account-issuer=https://kubernetes.default.svc", "--authorization-mode=Node,RBAC",
                   "--service-cluster-ip-range=10.96.0.0/16", "--allow-privileged=true",
                   # Without it `kubectl logs` looks the node's name up and waits for an answer that never comes.
                   "--kubelet-preferred-address-types=InternalIP")
        self._ready("apiserver", "the API server is ready", lambda: self.kubectl("get", "--raw", "/readyz", check=False) == "ok", 120)

    def _control_plane(self):
        pki = self.dir / "pki"
        self.start("etcd", "etcd", "--data-dir", self.dir / "etcd", "--listen-client-urls", "http://127.0.0.1:2379",
                   "--advertise-client-urls", "http://127.0.0.1:2379", "--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync")
        self.start_containerd()
        self.start_api_server()
        self.start("scheduler", "kube-scheduler", f"--kubeconfig={pki}/scheduler.kubeconfig", "--leader-elect=false",
                   "--bind-address=127.0.0.1")
        self.start("controllers", "kube-controller-manager", f"--kubeconfig={pki}/controllers.kubeconfig", "--leader-elect=false",
                   f"--service-account-private-key-file={pki}/accounts.key", f"--root-ca-file={pki}/ca.crt",
                   "--use-service-account-credentials=true", "--bind-address=127.0.0.1", "--allocate-node-cidrs=false")

    def start_containerd(self):
        config = self.dir / "containerd.toml"
        config.write_text(f"""version = 3
root = "{self.dir}/containerd"
state = "/run/containerd"
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "{PAUSE_IMAGE}"
[plugins.'io.containerd.cri.v1.runtime']
  # Where lowering oom_score_adj is not allowed (no CAP_SYS_RESOURCE) runc would die of it.
  restrict_oom_score_adj = true
  enable_cdi = true
  cdi_spec_dirs = ["{self.gpus}/var/run/cdi"]
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{self.dir}/etc-cni"
""")
        (self.dir / "etc-cni" / "10-pods.conflist").write_text(json.dumps({
            "cniVersion": "1.0.0", "name": "pods", "plugins": [{
                "type": "ptp", "ipam": {"type": "host-local", "dataDir": f"{self.dir}/cni", "subnet": POD_NET,
                                        "routes": [{"dst": "0.0.0.0/0"}]}}]}))
        self.start("containerd", "containerd", "-c", config)
        self._ready("containerd", "containerd answers", lambda: self.ctr("version", check=False), 60)
        shell = {"/bin/busybox": shutil.which("busybox"), "/bin/bash": "/bin/bash", **_libraries_of("/bin/bash")}
        links = {f"/bin/{applet}": "busybox" for applet in ("sh", "sleep", "cat", "env", "ls", "wget", "mount")}
        for file, image, entry, files, applets in (
                ("pause.tar", PAUSE_IMAGE, ["/pause"], {"/pause": self.programs / "pause"}, {}),
                ("work.tar", WORK_IMAGE, ["/bin/sh"], shell, links),
                ("guide.tar", GUIDE_IMAGE, ["/bin/bash"], shell, links)):
            write_image(self.dir / file, image, entry, files, applets)
            self.ctr("images", "import", self.dir / file)

    def start_kubelet(self):
        config = self.dir / "kubelet.yaml"
        config.write_text(json.dumps({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},  # of `kubectl logs`; reached from this namespace only
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.cgroup}", "failCgroupV1": False, "failSwapOn": False,
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDomain": "cluster.local", "clusterDNS": ["10.96.0.10"],
            "address": NODE_IP, "healthzBindAddress": "127.0.0.1",
            # This is no machine to defend: its disk and memory are the tests'.
            "imageGCHighThresholdPercent": 100,
            "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%"},
            "podLogsDir": f"{self.dir}/log/pods", "serverTLSBootstrap": False,
            "nodeStatusUpdateFrequency": "2s",
        }))
        self.start("kubelet", "kubelet", f"--config={config}", f"--kubeconfig={self.dir}/pki/node.kubeconfig",
                   "--root-dir=/var/lib/kubelet", f"--hostname-override={NODE}", f"--node-ip={NODE_IP}",
                   f"--cert-dir={self.dir}/pki/kubelet", "--v=2")

    def _node(self):
        for hierarchy in self._hierarchies():
            group = hierarchy / self.cgroup
            group.mkdir()
            # A new cpuset is empty, and nothing may run in an empty one.
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (group / name).exists():
                    (group / name).write_text((hierarchy / name).read_text())
        self.start_kubelet()
        self._ready("kubelet", "the node is Ready", self.node_ready, 90)
        # Pods of a namespace are refused until its account was made.
        self._ready("controllers", "the default account", lambda: self.kubectl("get", "serviceaccount", "default", check=False), 60)

    @staticmethod
    def _hierarchies():
        if (CGROUPS / "cgroup.controllers").exists():
            return [CGROUPS]
        return [found for found in sorted(CGROUPS.iterdir()) if found.is_dir() and not found.is_symlink() and (found / "cgroup.procs").exists()]

    # --- asking it -----------------------------------------------------------------------------------------------

    def ctr(self, *words, check=True):
        return self._ask("ctr", "-a", "/run/containerd/containerd.sock", "-n", "k8s.io", *words, check=check)

    def kubectl(self, *words, stdin=None, check=True):
        return self._ask("kubectl", f"--kubeconfig={self.dir}/pki/admin.kubeconfig", "--cache-dir=/run/kubectl", *words, stdin=stdin, check=check)

    def _ask(self, program, *words, stdin=None, check=True):
        done = subprocess.run(self.enter(self.programs / program, *words), input=stdin, capture_output=True, text=True, timeout=120)
        if done.returncode != 0:
            if check:
                raise Failure(f"{program} {' '.join(map(str, words[:4]))}: {done.stderr.strip() or done.stdout.strip()}")
            return ""
        return done.stdout

    def get(self, *words):
        """An object, or None."""
        said = self.kubectl("get", *words, "-o", "json", check=False)
        return json.loads(said) if said else None

    def apply(self, manifest):
        return self.kubectl("apply", "-f", "-", stdin=manifest if isinstance(manifest, str) else json.dumps(manifest))

    def node_ready(self):
        node = self.get("node", NODE)
        return node and any(c["type"] == "Ready" and c["status"] == "True" for c in node["status"].get("conditions", []))

    def allocatable(self, resource):
        return int(self.get("node", NODE)["status"]["allocatable"].get(resource, -1))

    def pods(self, selector=None):
        words = ["-l", selector] if selector else []
        return {pod["metadata"]["name"]: pod for pod in self.get("pods", *words)["items"]}

    # --- the end -------------------------------------------------------------------------------------------------

    def close(self):
        """Ends everything; what is left is said as a Failure."""
        if self.init is not None:
            # The first process of a PID namespace takes all others with it, shims and containers too.
            pid = _child_of(self.init.pid)
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            self.init.kill()
            self.init.wait()
            for child in self.children.values():
                child.wait()
            self.init = None
        left = []
        for hierarchy in self._hierarchies():
            if not _remove_groups(hierarchy / self.cgroup):
                left.append(str(hierarchy / self.cgroup))
        if self.keep_logs and (self.dir / "log").exists():
            shutil.copytree(self.dir / "log", self.keep_logs, dirs_exist_ok=True)
        shutil.rmtree(self.dir, ignore_errors=True)
        if self.dir.exists():
            left.append(str(self.dir))
        if self.made_kubelet_dir:
            pathlib.Path("/var/lib/kubelet").rmdir()
            self.made_kubelet_dir = False
        if left:
            raise Failure("left behind: " + ", ".join(left))


def _libraries_of(program):
    """{path: file} of what a program of this machine is linked to, with the rest of the C library: a driver's programs,
    which come into a container from outside, find theirs there."""
    found = {}
    for line in subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout.splitlines():
        for word in line.split():
            if word.startswith("/"):
                found[word] = os.path.realpath(word)
    folder = os.path.dirname(next(path for path in found if "libc.so" in path))
    for name in ("libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1"):
        if os.path.exists(f"{folder}/{name}"):
            found[f"{folder}/{name}"] = os.path.realpath(f"{folder}/{name}")
    return found


def _remove_groups(group, seconds=10):
    """Removes a control group with those below it, once their last processes are gone."""
    until = time.monotonic() + seconds
    while group.exists():
        for path, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(path)
            except OSError:
                pass
        if time.monotonic() > until:
            return not group.exists()
        time.sleep(0.05)
    return True
