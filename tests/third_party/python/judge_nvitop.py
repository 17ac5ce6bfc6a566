"""nvitop 1.7.2: what its library says, and what its one-shot screen shows."""

import subprocess
import sys

from nvitop import Device, MigDevice

from judge import Judge, all_clients, memory_of, overhead_of

MIB = 1 << 20


def memory(j, at, device, total_mib, used_mib, overhead):
    j.equal(f"{at} memory total", device.memory_total(), total_mib * MIB)
    j.within(f"{at} memory used", device.memory_used() / MIB, used_mib + overhead[0], used_mib + overhead[1])


def whole(j, gpu, device):
    at = f"GPU {gpu['index']}"
    j.equal(f"{at} UUID", device.uuid(), gpu["uuid"])
    j.equal(f"{at} name", device.name(), gpu["name"])
    j.equal(f"{at} bus id", device.bus_id(), gpu["busId"])
    memory(j, at, device, gpu["memoryMiB"], memory_of(all_clients(gpu)), overhead_of(gpu["instances"]))
    j.equal(f"{at} compute capability", "%d.%d" % device.cuda_compute_capability(), gpu["cc"])
    j.equal(f"{at} MIG mode", device.is_mig_mode_enabled(), gpu["mig"])
    if gpu["mig"]:
        j.equal(f"{at} utilisation", device.gpu_utilization(), "N/A")
    else:
        j.within(f"{at} utilisation", device.gpu_utilization(), gpu["busy"] - 1, gpu["busy"] + 1)
    wanted = {c["pid"]: c["memoryMiB"] * MIB for c in all_clients(gpu)}
    j.equal(f"{at} processes", {pid: p.gpu_memory() for pid, p in device.processes().items()}, wanted)


def instances(j, gpu, device):
    at = f"GPU {gpu['index']}"
    wanted = {ci["uuid"]: (gi, ci) for gi in gpu["instances"] for ci in gi["computeInstances"]}
    seen = device.mig_devices()
    j.equal(f"{at} MIG devices", sorted(m.uuid() for m in seen), sorted(wanted))
    for mig in seen:
        if mig.uuid() not in wanted:
            continue
        gi, ci = wanted[mig.uuid()]
        j.equal(f"{at} {ci['uuid']} name", mig.name(), ci["name"])
        j.equal(f"{at} {ci['uuid']} ids", (mig.gpu_instance_id(), mig.compute_instance_id()), (gi["gi"], ci["ci"]))
        used = sum(memory_of(other["clients"]) for other in gi["computeInstances"])
        memory(j, f"{at} {ci['uuid']}", mig, gi["row"]["memory_mib"], used, overhead_of([gi]))
        j.within(f"{at} {ci['uuid']} BAR1", mig.bar1_memory_total(), 1, 1 << 40)
        j.equal(f"{at} {ci['uuid']} processes", {pid: p.gpu_memory() for pid, p in mig.processes().items()},
                {c["pid"]: c["memoryMiB"] * MIB for c in ci["clients"]})
        j.equal(f"{at} {ci['uuid']} snapshot", mig.as_snapshot().uuid, ci["uuid"])


def screen(j):
    """`nvitop -1`: a row for each GPU, and one for each process."""
    done = subprocess.run([sys.executable, "-m", "nvitop", "-1", "--no-unicode"], capture_output=True, text=True)
    j.equal("nvitop -1 exit status", (done.returncode, done.stderr), (0, ""))
    for gpu in j.truth["gpus"]:
        j.equal(f"nvitop -1 shows {gpu['busId']}", gpu["busId"] in done.stdout, True)
        for client in all_clients(gpu):
            shown = (client["memoryMiB"], f"{client['memoryMiB']:.1f}")
            row = [line for line in done.stdout.splitlines() if f" {client['pid']} C" in line]
            j.equal(f"nvitop -1 shows process {client['pid']}", [any(f" {text}MiB" in line for text in shown) for line in row], [True])


def main():
    j = Judge()
    j.equal("driver", Device.driver_version(), j.truth["driver"])
    j.equal("GPUs", Device.count(), len(j.truth["gpus"]))
    for gpu, device in zip(j.truth["gpus"], Device.all()):
        whole(j, gpu, device)
        instances(j, gpu, device)
    j.equal("MIG devices of the node", len(MigDevice.all()),
            sum(len(gi["computeInstances"]) for gpu in j.truth["gpus"] for gi in gpu["instances"]))
    screen(j)
    j.end()


if __name__ == "__main__":
    main()
