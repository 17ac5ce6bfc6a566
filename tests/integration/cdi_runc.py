"""A container of a real runtime with the agent's CDI spec: cdi_runc.py --bin DIR

runc starts a container from some files of this machine, edited as the spec says; its hooks are `gpuslice hook …`, and
`nvidia-smi -L` in it finds the driver's library by the loader's cache and shows the one GPU. Without root, or
where runc may start nothing, it says so and ends well.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from node_under_test import Failure, NodeUnderTest, eventually  # noqa: E402

SPEC = "var/run/cdi/k8s.device-plugin.nvidia.com-gpu.json"
CONFIG = "version: v1\nflags: {plugin: {deviceListStrategy: cdi-cri}}\n"
SCRIPT = "echo $NVIDIA_VISIBLE_DEVICES; ls /dev; readlink /usr/lib/x86_64-linux-gnu/libcuda.so.1; nvidia-smi -L"


def lay_root(root, programs):
    """A container's root: these programs with the libraries that they need."""
    for folder in ("bin", "etc", "proc", "dev", "sys", "usr/bin"):
        (root / folder).mkdir(parents=True)
    (root / "etc/ld.so.conf").write_text("include /etc/ld.so.conf.d/*.conf\n")
    for name, program in programs.items():
        shutil.copy(program, root / "bin" / name)
        for library in re.findall(r"/\S+", subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout):
            if os.path.exists(library):
                (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(os.path.realpath(library), root / library[1:])


def edited(config, spec, device):
    """What a runtime makes of a container for one device."""
    config["process"].update(terminal=False, args=["/bin/sh", "-c", SCRIPT])
    linux = config["linux"]
    linux.setdefault("devices", [])
    hooks = config.setdefault("hooks", {})
    for edits in (spec["containerEdits"], device["containerEdits"]):
        config["process"]["env"] += edits.get("env", [])
        for node in edits.get("deviceNodes", []):
            number = os.stat(node.get("hostPath", node["path"])).st_rdev
            place = {"type": "c", "major": os.major(number), "minor": os.minor(number)}
            linux["devices"].append({"path": node["path"], "fileMode": 0o666, "uid": 0, "gid": 0, **place})
            linux["resources"]["devices"].append({"allow": True, "access": "rwm", **place})
        for mount in edits.get("mounts", []):
            config["mounts"].append({"destination": mount["containerPath"], "source": mount["hostPath"], "type": "bind",
                                     "options": mount["options"] + ["bind"]})
        for hook in edits.get("hooks", []):
            hooks.setdefault(hook["hookName"], []).append({"path": hook["path"], "args": hook["args"]})
    return config


def run(bundle, state, name):
    return subprocess.run(["runc", "--root", state, "run", "--bundle", bundle, name], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, check=False)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bin", required=True)
    bin_dir = arguments.parse_args().bin
    if shutil.which("runc") is None:
        print("runc is not installed (Debian: runc)", file=sys.stderr)
        return 1
    if os.geteuid() != 0:
        print("skipped: root is needed")
        return 0
    with NodeUnderTest(bin_dir, gpus="2xA100-SXM4-40GB") as node:
        try:
            bundle, state = node.dir / "bundle", node.dir / "runc"
            lay_root(bundle / "rootfs", {"sh": "/bin/dash", "ls": "/bin/ls", "readlink": "/bin/readlink", "true": "/bin/true"})
            for library in (node.root / "usr/bin/nvidia-smi",):  # what the driver's programs need beside the driver
                lay_root(node.dir / "more", {"smi": library})
            shutil.copytree(node.dir / "more", bundle / "rootfs", dirs_exist_ok=True)
            (bundle / "rootfs/bin/smi").unlink()
            subprocess.run(["runc", "spec"], cwd=bundle, check=True)
            plain = json.loads((bundle / "config.json").read_text())
            plain["process"].update(terminal=False, args=["/bin/true"])
            (bundle / "config.json").write_text(json.dumps(plain))
            tried = run(bundle, state, f"gpuslice-plain-{os.getpid()}")
            if tried.returncode != 0:
                print(f"skipped: runc starts no container here: {tried.stderr.strip()[:300]}")
                return 0
            node.configure(CONFIG)
            node.start_agent(more=["--cdi-extra-mount", f"{node.root}:/run/gpuslice-sim:rw"])
            eventually("a spec", lambda: (node.root / SPEC).exists())
            spec = json.loads((node.root / SPEC).read_text())
            device = spec["devices"][1]
            (bundle / "config.json").write_text(json.dumps(edited(plain, spec, device)))
            done = run(bundle, state, f"gpuslice-cdi-{os.getpid()}")
            lines = done.stdout.splitlines()
            holds = (done.returncode == 0 and lines[0] == "void" and "nvidia1" in lines and "nvidia0" not in lines
                     and lines[-2] == "libcuda.so.580.65.06" and device["name"] in lines[-1] and done.stdout.count("GPU ") == 1)
            if not holds:
                raise Failure(f"the container of {device['name']}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        except Failure as failure:
            print(f"FAIL  {failure}\n--- agent\n{node.log('agent')}", file=sys.stderr)
            return 1
    print("CDI: a container of runc sees its GPU, its libraries and nothing else")
    return 0


if __name__ == "__main__":
    sys.exit(main())
