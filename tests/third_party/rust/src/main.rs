//! nvml-wrapper 0.13.0 on a simulated node: what it says, against the truth that the runner worked out.

use std::{env, fmt::Debug, fs, process};

use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};
use nvml_wrapper::enums::device::UsedGpuMemory;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::struct_wrappers::device::ProcessInfo;
use nvml_wrapper::{Device, Nvml};
use serde_json::Value;

const MIB: u64 = 1 << 20;

#[derive(Default)]
struct Judge {
    agreed: u32,
    differences: Vec<String>,
}

impl Judge {
    fn equal<T: PartialEq + Debug>(&mut self, what: String, seen: T, expected: T) {
        if seen == expected {
            self.agreed += 1;
        } else {
            self.differences.push(format!("{what}: expected {expected:?}, seen {seen:?}"));
        }
    }
    fn within<T: PartialOrd + Debug>(&mut self, what: String, seen: T, low: T, high: T) {
        if seen >= low && seen <= high {
            self.agreed += 1;
        } else {
            self.differences.push(format!("{what}: expected {low:?}..{high:?}, seen {seen:?}"));
        }
    }
    fn refused<T: Debug>(&mut self, what: String, seen: Result<T, NvmlError>, expected: &str) {
        let name = match seen {
            Err(error) => format!("{error:?}"),
            Ok(answer) => format!("answer {answer:?}"),
        };
        self.equal(what, name, expected.to_string());
    }
}

fn text(value: &Value) -> String {
    value.as_str().expect("text in the truth").to_string()
}
fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number in the truth")
}
fn list(value: &Value) -> &Vec<Value> {
    value.as_array().expect("a list in the truth")
}

type Row = (u32, u64, Option<u32>, Option<u32>);

fn clients(of: &Value, gi: Option<u32>, ci: Option<u32>) -> Vec<Row> {
    list(&of["clients"])
        .iter()
        .map(|c| (number(&c["pid"]) as u32, number(&c["memoryMiB"]) * MIB, gi, ci))
        .collect()
}

fn all_clients(gpu: &Value) -> Vec<Row> {
    let mut rows = clients(gpu, None, None);
    for gi in list(&gpu["instances"]) {
        for ci in list(&gi["computeInstances"]) {
            rows.extend(clients(ci, Some(number(&gi["gi"]) as u32), Some(number(&ci["ci"]) as u32)));
        }
    }
    rows.sort();
    rows
}

fn rows_of(processes: Vec<ProcessInfo>) -> Vec<Row> {
    let mut rows: Vec<Row> = processes
        .into_iter()
        .map(|p| {
            let memory = match p.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => bytes,
                UsedGpuMemory::Unavailable => u64::MAX,
            };
            (p.pid, memory, p.gpu_instance_id, p.compute_instance_id)
        })
        .collect();
    rows.sort();
    rows
}

fn whole_gpu(j: &mut Judge, nvml: &Nvml, gpu: &Value, device: &Device) -> Result<(), NvmlError> {
    let at = format!("GPU {}", gpu["index"]);
    let uuid = text(&gpu["uuid"]);
    j.equal(format!("{at} UUID"), device.uuid()?, uuid.clone());
    j.equal(format!("{at} name"), device.name()?, text(&gpu["name"]));
    j.equal(format!("{at} index"), device.index()? as u64, number(&gpu["index"]));
    j.equal(format!("{at} minor"), device.minor_number()? as u64, number(&gpu["minor"]));
    j.equal(format!("{at} by UUID"), nvml.device_by_uuid(uuid.as_str())?.index()? as u64, number(&gpu["index"]));
    let bus_id = text(&gpu["busId"]);
    j.equal(format!("{at} bus id"), device.pci_info()?.bus_id, bus_id.clone());
    j.equal(format!("{at} by bus id"), nvml.device_by_pci_bus_id(bus_id)?.uuid()?, uuid);
    let cc = device.cuda_compute_capability()?;
    j.equal(format!("{at} compute capability"), format!("{}.{}", cc.major, cc.minor), text(&gpu["cc"]));

    let memory = device.memory_info()?;
    j.equal(format!("{at} memory total"), memory.total, number(&gpu["memoryMiB"]) * MIB);
    j.equal(format!("{at} used + free + reserved"), memory.used + memory.free + memory.reserved, memory.total);
    let wanted = all_clients(gpu);
    j.within(
        format!("{at} memory used"),
        memory.used,
        wanted.iter().map(|row| row.1).sum::<u64>(),
        wanted.iter().map(|row| row.1).sum::<u64>() + 256 * MIB,
    );
    j.equal(format!("{at} processes"), rows_of(device.running_compute_processes()?), wanted.clone());
    j.equal(format!("{at} processes, v2"), rows_of(device.running_compute_processes_v2()?), wanted.clone());
    j.equal(format!("{at} count of processes"), device.running_compute_processes_count()? as usize, wanted.len());
    j.equal(format!("{at} graphics processes"), rows_of(device.running_graphics_processes()?), vec![]);

    let mig = gpu["mig"].as_bool().expect("mig");
    if mig {
        j.refused(format!("{at} utilisation under MIG"), device.utilization_rates(), "NotSupported");
    } else {
        let busy = number(&gpu["busy"]) as i64;
        j.within(format!("{at} utilisation"), device.utilization_rates()?.gpu as i64, busy - 1, busy + 1);
    }
    if !mig && !wanted.is_empty() {
        let mut pids: Vec<u32> = device.process_utilization_stats(None)?.iter().map(|s| s.pid).collect();
        pids.sort();
        pids.dedup();
        j.equal(format!("{at} processes with utilisation"), pids, wanted.iter().map(|row| row.0).collect());
    }
    let limit = device.enforced_power_limit()?;
    let constraints = device.power_management_limit_constraints()?;
    j.within(format!("{at} power limit"), limit, constraints.min_limit, constraints.max_limit);
    j.within(format!("{at} power"), device.power_usage()?, 1000, limit);
    j.within(format!("{at} temperature"), device.temperature(TemperatureSensor::Gpu)?, 20, 90);
    j.within(format!("{at} SM clock"), device.clock_info(Clock::SM)?, 100, device.max_clock_info(Clock::SM)?);
    mig_of(j, gpu, device, mig)
}

fn mig_of(j: &mut Judge, gpu: &Value, device: &Device, mig: bool) -> Result<(), NvmlError> {
    let at = format!("GPU {}", gpu["index"]);
    if !gpu["capable"].as_bool().expect("capable") {
        j.equal(format!("{at} MIG mode"), device.mig_mode().is_err(), true);
        return Ok(());
    }
    let mode = device.mig_mode()?;
    j.equal(format!("{at} MIG mode"), (mode.current, mode.pending), (mig as u32, mig as u32));
    for row in list(&gpu["profiles"]) {
        let info = device.profile_info(number(&row["nvml_gi_enum"]) as u32)?;
        let seen = [info.id, info.slice_count, info.instance_count, info.multiprocessor_count, info.copy_engine_count,
                    info.decoder_count, info.encoder_count, info.jpeg_count, info.ofa_count, info.memory_size_mb as u32];
        let keys = ["smi_id", "slices", "max_instances", "sm", "ce", "nvdec", "nvenc", "jpeg", "ofa", "memory_mib"];
        j.equal(format!("{at} profile {}", row["name"]), seen, keys.map(|key| number(&row[key]) as u32));
    }
    let mut wanted = Vec::new();
    for gi in list(&gpu["instances"]) {
        for ci in list(&gi["computeInstances"]) {
            wanted.push((gi, ci));
        }
    }
    let mut seen = Vec::new();
    for index in 0..if mig { device.mig_device_count()? } else { 0 } {
        let instance = match device.mig_device_by_index(index) {
            Ok(instance) => instance,
            Err(NvmlError::NotFound) => break,
            Err(other) => return Err(other),
        };
        let uuid = instance.uuid()?;
        if let Some((gi, ci)) = wanted.iter().find(|(_, ci)| text(&ci["uuid"]) == uuid) {
            mig_device(j, &format!("{at} MIG {index}"), gpu, gi, ci, &instance)?;
        }
        seen.push(uuid);
    }
    seen.sort();
    let mut uuids: Vec<String> = wanted.iter().map(|(_, ci)| text(&ci["uuid"])).collect();
    uuids.sort();
    j.equal(format!("{at} MIG devices"), seen, uuids);
    Ok(())
}

fn mig_device(j: &mut Judge, at: &str, gpu: &Value, gi: &Value, ci: &Value, instance: &Device) -> Result<(), NvmlError> {
    j.equal(format!("{at} name"), instance.name()?, text(&ci["name"]));
    j.equal(format!("{at} parent"), instance.mig_parent_device()?.uuid()?, text(&gpu["uuid"]));
    j.equal(format!("{at} is a MIG device"), instance.mig_is_mig_device_handle()?, true);
    let row = &gi["row"];
    let attributes = instance.attributes()?;
    j.equal(
        format!("{at} slices, memory"),
        (attributes.gpu_instance_slice_count as u64, attributes.compute_instance_slice_count as u64, attributes.memory_size_mb),
        (number(&row["slices"]), number(&ci["slices"]), number(&row["memory_mib"])),
    );
    j.equal(format!("{at} memory total"), instance.memory_info()?.total, number(&row["memory_mib"]) * MIB);
    let mut wanted: Vec<(u32, u64)> = clients(ci, None, None).iter().map(|c| (c.0, c.1)).collect();
    wanted.sort();
    let seen: Vec<(u32, u64)> = rows_of(instance.running_compute_processes()?).iter().map(|c| (c.0, c.1)).collect();
    j.equal(format!("{at} processes"), seen, wanted);
    Ok(())
}

fn judge(j: &mut Judge, truth: &Value) -> Result<(), NvmlError> {
    let nvml = Nvml::init()?;
    j.equal("driver".into(), nvml.sys_driver_version()?, text(&truth["driver"]));
    let gpus = list(&truth["gpus"]);
    j.equal("GPUs".into(), nvml.device_count()? as usize, gpus.len());
    j.refused("a GPU beyond the last".into(), nvml.device_by_index(gpus.len() as u32).map(|_| ()), "InvalidArg");
    j.equal("hic versions".into(), nvml.hic_versions()?.len(), 0);
    for gpu in gpus {
        let device = nvml.device_by_index(number(&gpu["index"]) as u32)?;
        whole_gpu(j, &nvml, gpu, &device)?;
    }
    nvml.shutdown()
}

fn main() {
    let path = env::var("JUDGE_TRUTH").expect("JUDGE_TRUTH names the file with the truth");
    let truth: Value = serde_json::from_str(&fs::read_to_string(path).expect("the truth")).expect("JSON");
    let mut j = Judge::default();
    if let Err(error) = judge(&mut j, &truth) {
        j.differences.push(format!("an error where none was expected: {error:?}"));
    }
    for difference in &j.differences {
        println!("{difference}");
    }
    println!("{} values agree{}", j.agreed, if j.differences.is_empty() { String::new() } else { format!(", {} do not", j.differences.len()) });
    process::exit(if j.differences.is_empty() && j.agreed > 0 { 0 } else { 1 });
}
