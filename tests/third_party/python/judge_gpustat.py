"""gpustat 1.1.1: its JSON against the truth."""

import json
import subprocess
import sys

from judge import Judge, all_clients, memory_of, overhead_of


def main():
    j = Judge()
    done = subprocess.run([sys.executable, "-m", "gpustat", "--json"], capture_output=True, text=True)
    j.equal("gpustat --json", (done.returncode, done.stderr), (0, ""))
    seen = json.loads(done.stdout)
    j.equal("driver", seen["driver_version"], j.truth["driver"])
    j.equal("GPUs", len(seen["gpus"]), len(j.truth["gpus"]))
    for gpu, row in zip(j.truth["gpus"], seen["gpus"]):
        at = f"GPU {gpu['index']}"
        j.equal(f"{at} index, UUID, name", (row["index"], row["uuid"], row["name"]), (gpu["index"], gpu["uuid"], gpu["name"]))
        j.equal(f"{at} memory total", row["memory.total"], gpu["memoryMiB"])
        used, overhead = memory_of(all_clients(gpu)), overhead_of(gpu["instances"])
        j.within(f"{at} memory used", row["memory.used"], used + overhead[0], used + overhead[1])
        if gpu["mig"]:
            j.equal(f"{at} utilisation under MIG", row["utilization.gpu"], None)
        else:
            j.within(f"{at} utilisation", row["utilization.gpu"], gpu["busy"] - 1, gpu["busy"] + 1)
        j.within(f"{at} power", row["power.draw"], 1, row["enforced.power.limit"])
        j.within(f"{at} temperature", row["temperature.gpu"], 20, 90)
        j.equal(f"{at} processes", sorted((p["pid"], p["gpu_memory_usage"], p["command"]) for p in row["processes"]),
                [(c["pid"], c["memoryMiB"], "gpuslice-sim") for c in all_clients(gpu)])
    j.end()


if __name__ == "__main__":
    main()
