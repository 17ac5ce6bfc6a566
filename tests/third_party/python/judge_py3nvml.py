"""py3nvml 0.2.7: the oldest ABI of all, with process lists of 16 bytes an entry and PCI information of version 2."""

from py3nvml import py3nvml as p

from judge import Judge, all_clients, memory_of

MIB = 1 << 20


def main():
    j = Judge()
    p.nvmlInit()
    j.equal("driver", p.nvmlSystemGetDriverVersion(), j.truth["driver"])
    j.equal("GPUs", p.nvmlDeviceGetCount(), len(j.truth["gpus"]))
    for gpu in j.truth["gpus"]:
        at = f"GPU {gpu['index']}"
        device = p.nvmlDeviceGetHandleByIndex(gpu["index"])
        j.equal(f"{at} UUID", p.nvmlDeviceGetUUID(device), gpu["uuid"])
        j.equal(f"{at} name", p.nvmlDeviceGetName(device), gpu["name"])
        j.equal(f"{at} minor", p.nvmlDeviceGetMinorNumber(device), gpu["minor"])
        pci = p.nvmlDeviceGetPciInfo(device)
        bus_id = pci.busId.decode() if isinstance(pci.busId, bytes) else pci.busId
        j.equal(f"{at} bus id", bus_id, gpu["busId"][4:])
        j.equal(f"{at} bus", (pci.domain, pci.bus, pci.device),
                (int(gpu["busId"][:8], 16), int(gpu["busId"][9:11], 16), int(gpu["busId"][12:14], 16)))
        if gpu["pciDeviceIds"]:
            j.equal(f"{at} PCI device id is the board's", f"0x{pci.pciDeviceId:08X}" in gpu["pciDeviceIds"], True)
        memory = p.nvmlDeviceGetMemoryInfo(device)
        j.equal(f"{at} memory total", memory.total, gpu["memoryMiB"] * MIB)
        j.equal(f"{at} used + free", memory.used + memory.free, memory.total)
        j.within(f"{at} memory used, the driver's own included", memory.used // MIB, memory_of(all_clients(gpu)) + 1,
                 memory_of(all_clients(gpu)) + 1024)
        j.equal(f"{at} processes", sorted((q.pid, q.usedGpuMemory) for q in p.nvmlDeviceGetComputeRunningProcesses(device)),
                [(c["pid"], c["memoryMiB"] * MIB) for c in all_clients(gpu)])
        j.equal(f"{at} graphics processes", p.nvmlDeviceGetGraphicsRunningProcesses(device), [])
        if not gpu["mig"]:
            j.within(f"{at} utilisation", p.nvmlDeviceGetUtilizationRates(device).gpu, gpu["busy"] - 1, gpu["busy"] + 1)
        j.within(f"{at} temperature", p.nvmlDeviceGetTemperature(device, p.NVML_TEMPERATURE_GPU), 20, 90)
        j.within(f"{at} power", p.nvmlDeviceGetPowerUsage(device), 1000, p.nvmlDeviceGetEnforcedPowerLimit(device))
    p.nvmlShutdown()
    j.end()


if __name__ == "__main__":
    main()
