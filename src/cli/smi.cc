#include "cli/smi.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "base/text.h"
#include "cli/smi_mig.h"
#include "cli/smi_table.h"

namespace gpuslice::cli {
namespace {

using ports::Gpu;

constexpr std::string_view kNa = "[N/A]";

template <class T>
std::optional<std::string> number(const std::optional<T>& value) {
  if (!value) return std::nullopt;
  return std::to_string(*value);
}
std::optional<std::string> mib(const std::optional<uint64_t>& bytes) {
  if (!bytes) return std::nullopt;
  return std::to_string(*bytes >> 20);
}
std::optional<std::string> watts(const std::optional<uint32_t>& milliwatts) {
  if (!milliwatts) return std::nullopt;
  return fmt::format("{:.2f}", *milliwatts / 1000.0);
}
std::optional<std::string> text(const std::string& value) {
  if (value.empty()) return std::nullopt;
  return value;
}
std::optional<std::string> pci_id(uint32_t id) {
  if (id == 0) return std::nullopt;
  return fmt::format("0x{:08X}", id);
}
std::optional<std::string> onoff(const std::optional<bool>& value) {
  if (!value) return std::nullopt;
  return *value ? "Enabled" : "Disabled";
}
std::string compute_mode(const std::optional<uint32_t>& mode) {
  switch (mode.value_or(99)) {
    case 0:
      return "Default";
    case 2:
      return "Prohibited";
    case 3:
      return "Exclusive_Process";
    default:
      return std::string(kNa);
  }
}

using GpuValue = std::optional<std::string> (*)(const NodeView&, const Gpu&);
struct GpuField {
  std::string_view name;
  std::string_view unit;  // "MiB": in the header and after the value
  GpuValue value;
};

// Fields of --query-gpu, with the units that nvidia-smi gives them.
constexpr auto kGpuFields = std::to_array<GpuField>({
    {"index", "",
     [](const NodeView&, const Gpu& g) -> std::optional<std::string> {
       return std::to_string(g.index.value);
     }},
    {"uuid", "", [](const NodeView&, const Gpu& g) { return text(g.uuid); }},
    {"gpu_uuid", "", [](const NodeView&, const Gpu& g) { return text(g.uuid); }},
    {"name", "", [](const NodeView&, const Gpu& g) { return text(g.name); }},
    {"gpu_name", "", [](const NodeView&, const Gpu& g) { return text(g.name); }},
    {"gpu_bus_id", "", [](const NodeView&, const Gpu& g) { return text(g.bus_id); }},
    {"pci.bus_id", "", [](const NodeView&, const Gpu& g) { return text(g.bus_id); }},
    {"pci.device_id", "", [](const NodeView&, const Gpu& g) { return pci_id(g.pci_device_id); }},
    {"pci.sub_device_id", "",
     [](const NodeView&, const Gpu& g) { return pci_id(g.pci_subsystem_id); }},
    {"compute_cap", "",
     [](const NodeView&, const Gpu& g) -> std::optional<std::string> {
       if (g.cc_major == 0) return std::nullopt;
       return fmt::format("{}.{}", g.cc_major, g.cc_minor);
     }},
    {"serial", "", [](const NodeView&, const Gpu& g) { return text(g.serial); }},
    {"gpu_serial", "", [](const NodeView&, const Gpu& g) { return text(g.serial); }},
    {"vbios_version", "", [](const NodeView&, const Gpu& g) { return text(g.vbios); }},
    {"driver_version", "", [](const NodeView& n, const Gpu&) { return text(n.driver.version); }},
    {"count", "",
     [](const NodeView& n, const Gpu&) -> std::optional<std::string> {
       return std::to_string(n.gpus.size());
     }},
    {"mig.mode.current", "",
     [](const NodeView&, const Gpu& g) { return g.mig ? onoff(g.mig->current) : std::nullopt; }},
    {"mig.mode.pending", "",
     [](const NodeView&, const Gpu& g) { return g.mig ? onoff(g.mig->pending) : std::nullopt; }},
    {"persistence_mode", "",
     [](const NodeView&, const Gpu& g) { return onoff(g.persistence_mode); }},
    {"display_active", "", [](const NodeView&, const Gpu& g) { return onoff(g.display_active); }},
    {"compute_mode", "",
     [](const NodeView&,
        const Gpu& g) -> std::optional<std::string> { return compute_mode(g.compute_mode); }},
    {"pstate", "",
     [](const NodeView&, const Gpu& g) -> std::
                                           optional<std::string> {
                                             if (!g.performance_state) return std::nullopt;
                                             return fmt::format("P{}", *g.performance_state);
                                           }},
    {"memory.total", "MiB",
     [](const NodeView&, const Gpu& g) { return mib(g.memory_total_bytes); }},
    {"memory.reserved", "MiB",
     [](const NodeView&, const Gpu& g) { return mib(g.memory_reserved_bytes); }},
    {"memory.used", "MiB", [](const NodeView&, const Gpu& g) { return mib(g.memory_used_bytes); }},
    {"memory.free", "MiB", [](const NodeView&, const Gpu& g) { return mib(g.memory_free_bytes); }},
    {"utilization.gpu", "%",
     [](const NodeView&, const Gpu& g) { return number(g.utilisation_percent); }},
    {"utilization.memory", "%",
     [](const NodeView&, const Gpu& g) { return number(g.memory_utilisation_percent); }},
    {"temperature.gpu", "", [](const NodeView&, const Gpu& g) { return number(g.temperature_c); }},
    {"fan.speed", "%", [](const NodeView&, const Gpu& g) { return number(g.fan_percent); }},
    {"power.draw", "W", [](const NodeView&, const Gpu& g) { return watts(g.power_mw); }},
    {"power.limit", "W", [](const NodeView&, const Gpu& g) { return watts(g.power_limit_mw); }},
    {"power.default_limit", "W",
     [](const NodeView&, const Gpu& g) { return watts(g.power_default_limit_mw); }},
    {"clocks.gr", "MHz", [](const NodeView&, const Gpu& g) { return number(g.graphics_mhz); }},
    {"clocks.current.graphics", "MHz",
     [](const NodeView&, const Gpu& g) { return number(g.graphics_mhz); }},
    {"clocks.sm", "MHz", [](const NodeView&, const Gpu& g) { return number(g.sm_mhz); }},
    {"clocks.current.sm", "MHz", [](const NodeView&, const Gpu& g) { return number(g.sm_mhz); }},
    {"clocks.mem", "MHz", [](const NodeView&, const Gpu& g) { return number(g.memory_mhz); }},
    {"clocks.current.memory", "MHz",
     [](const NodeView&, const Gpu& g) { return number(g.memory_mhz); }},
    {"ecc.errors.uncorrected.volatile.total", "",
     [](const NodeView&, const Gpu& g) { return number(g.ecc_uncorrected); }},
    {"pcie.link.gen.current", "",
     [](const NodeView&, const Gpu& g) { return number(g.pcie_generation); }},
    {"pcie.link.gen.max", "",
     [](const NodeView&, const Gpu& g) { return number(g.pcie_generation); }},
    {"pcie.link.width.current", "",
     [](const NodeView&, const Gpu& g) { return number(g.pcie_width); }},
    {"pcie.link.width.max", "", [](const NodeView&, const Gpu& g) { return number(g.pcie_width); }},
});

using AppValue = std::optional<std::string> (*)(const Gpu&, const ports::Process&);
struct AppField {
  std::string_view name;
  std::string_view header;
  std::string_view unit;
  AppValue value;
};
constexpr auto kAppFields = std::to_array<AppField>({
    {"pid", "pid", "",
     [](const Gpu&, const ports::Process& p) -> std::optional<std::string> {
       return std::to_string(p.pid);
     }},
    {"process_name", "process_name", "",
     [](const Gpu&, const ports::Process& p) { return text(p.name); }},
    {"name", "process_name", "", [](const Gpu&, const ports::Process& p) { return text(p.name); }},
    {"used_memory", "used_gpu_memory", "MiB",
     [](const Gpu&, const ports::Process& p) { return mib(p.memory_bytes); }},
    {"used_gpu_memory", "used_gpu_memory", "MiB",
     [](const Gpu&, const ports::Process& p) { return mib(p.memory_bytes); }},
    {"gpu_uuid", "gpu_uuid", "", [](const Gpu& g, const ports::Process&) { return text(g.uuid); }},
    {"gpu_name", "gpu_name", "", [](const Gpu& g, const ports::Process&) { return text(g.name); }},
    {"gpu_bus_id", "gpu_bus_id", "",
     [](const Gpu& g, const ports::Process&) { return text(g.bus_id); }},
});

template <class Fields>
std::vector<std::string_view> names_of(const Fields& fields) {
  std::vector<std::string_view> out;
  for (const auto& field : fields) out.push_back(field.name);
  return out;
}

template <class Fields>
Status check_fields(const Fields& fields, const std::vector<std::string>& wanted,
                    std::string_view option) {
  const std::vector<std::string_view> names = names_of(fields);
  for (const std::string& name : wanted) {
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    const auto near = nearest(name, names);
    return fail(Code::kUsage, "Field \"{}\" is not a valid field to query with {}{}",
                json_escape(name), option, near ? fmt::format("; did you mean {}?", *near) : ".");
  }
  return {};
}

template <class Fields>
const auto& field_of(const Fields& fields, const std::string& name) {
  return *std::find_if(fields.begin(), fields.end(), [&](const auto& f) { return f.name == name; });
}

std::string with_unit(const std::optional<std::string>& value, std::string_view unit, bool units) {
  if (!value) return std::string(kNa);
  return unit.empty() || !units ? *value : fmt::format("{} {}", *value, unit);
}

std::string header_of(std::string_view name, std::string_view unit, bool units) {
  return unit.empty() || !units ? std::string(name) : fmt::format("{} [{}]", name, unit);
}

// Some fields have a second name; the header has the first.
constexpr auto kSecondNames = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"gpu_uuid", "uuid"},
    {"gpu_name", "name"},
    {"gpu_bus_id", "pci.bus_id"},
    {"gpu_serial", "serial"},
    {"clocks.gr", "clocks.current.graphics"},
    {"clocks.sm", "clocks.current.sm"},
    {"clocks.mem", "clocks.current.memory"},
});
std::string_view first_name(std::string_view name) {
  for (const auto& [second, first] : kSecondNames)
    if (name == second) return first;
  return name;
}

std::string query_gpu(const SmiRequest& request, const NodeView& node) {
  std::string out;
  const auto line = [&](auto&& cell) {
    std::vector<std::string> cells;
    for (const std::string& name : request.fields)
      cells.push_back(cell(field_of(kGpuFields, name)));
    out += join(cells, ", ") + "\n";
  };
  if (request.header)
    line([&](const GpuField& f) { return header_of(first_name(f.name), f.unit, request.units); });
  for (const Gpu& gpu : node.gpus)
    if (smi_chosen(request.gpus, gpu))
      line([&](const GpuField& f) { return with_unit(f.value(node, gpu), f.unit, request.units); });
  return out;
}

std::string query_apps(const SmiRequest& request, const NodeView& node) {
  std::string out;
  const auto line = [&](auto&& cell) {
    std::vector<std::string> cells;
    for (const std::string& name : request.fields)
      cells.push_back(cell(field_of(kAppFields, name)));
    out += join(cells, ", ") + "\n";
  };
  if (request.header)
    line([&](const AppField& f) { return header_of(f.header, f.unit, request.units); });
  for (const Gpu& gpu : node.gpus) {
    if (!smi_chosen(request.gpus, gpu)) continue;
    for (const ports::Process& process : gpu.processes)
      if (process.kind != ports::Process::Kind::kGraphics)
        line([&](const AppField& f) {
          return with_unit(f.value(gpu, process), f.unit, request.units);
        });
  }
  return out;
}

// As `nvidia-smi -L`: MIG devices below their GPU, the profile padded to 11, the index in 2.
std::string list(const SmiRequest& request, const NodeView& node) {
  std::string out;
  for (const Gpu& gpu : node.gpus) {
    if (!smi_chosen(request.gpus, gpu)) continue;
    out += fmt::format("GPU {}: {} (UUID: {})\n", gpu.index.value, gpu.name, gpu.uuid);
    for (const ports::MigDevice& mig : gpu.mig_devices)
      out +=
          fmt::format("  MIG {:<11} Device {:>2}: (UUID: {})\n", mig.profile, mig.index, mig.uuid);
  }
  for (const SilentGpu& gpu : node.silent)
    if (smi_chosen(request.gpus, gpu))
      out += fmt::format("Unable to determine the device handle for gpu {}: {}\n", gpu.index,
                         gpu.error.message);
  return out;
}

Status parse_query(const std::string& arg, size_t equals, SmiRequest& request) {
  if (equals == std::string::npos || equals + 1 == arg.size())
    return fail(Code::kUsage, "{}: which fields? such as {}=index,name", arg,
                arg.substr(0, equals));
  const std::string list = arg.substr(equals + 1);
  for (const std::string_view part : split(list, ',')) request.fields.emplace_back(trim(part));
  return {};
}

Status parse_csv(const std::string& value, SmiRequest& request, bool& csv) {
  for (const std::string_view part : split(value, ',')) {
    const std::string_view word = trim(part);
    if (word == "csv")
      csv = true;
    else if (word == "noheader")
      request.header = false;
    else if (word == "nounits")
      request.units = false;
    else
      return fail(Code::kUsage, "--format={}: must be csv, with noheader and nounits if wanted",
                  value);
  }
  return {};
}

constexpr auto kOptions = std::to_array<std::string_view>(
    {"-L", "--list-gpus", "-i", "--id", "--query-gpu", "--query-compute-apps", "--format", "-h",
     "--help", "mig", "-mig", "--multi-instance-gpu", "-r", "--gpu-reset"});

}  // namespace

std::string smi_help() {
  return "gpuslice smi: GPUs and who uses them, by nvidia-smi's habits\n\n"
         "  smi                                   the table\n"
         "  smi -L                                GPUs and MIG devices with their UUIDs\n"
         "  smi --query-gpu=FIELD,… --format=csv[,noheader][,nounits]\n"
         "  smi --query-compute-apps=FIELD,… --format=csv[,noheader][,nounits]\n"
         "  smi mig -lgip | -lgipp                GPU instance profiles, and where each may lie\n"
         "  smi mig -lgi | -lci                   GPU instances, compute instances\n"
         "  smi mig -lcip | -lcipp                compute instance profiles, and where each may "
         "lie\n"
         "  smi mig -cgi PROFILE[:START],… [-C]   makes GPU instances: 19, 1g.5gb, 9:4; -C: with "
         "a\n"
         "                                        compute instance in each\n"
         "  smi mig -cci [PROFILE[:START],…]      makes compute instances\n"
         "  smi mig -dci | -dgi                   destroys them\n"
         "    -gi ID[,ID…]  -ci ID[,ID…]          of these instances only\n"
         "  smi -mig 0|1                          MIG off or on\n"
         "  smi -r | --gpu-reset                  resets GPUs\n"
         "  -i ID[,ID…]                           of these GPUs only: index, UUID or bus id\n"
         "  --root DIR, --run-dir DIR             where the driver's files and our locks are\n\n"
         "Exit codes are NVML's: 0 done, 2 usage, 3 not supported, 4 no permission, 6 not found, "
         "9 no driver,\n15 GPU lost, 19 in use, 23 no room; 255 a GPU in use was not reset\n";
}

Result<SmiRequest> parse_smi(std::span<const std::string> args) {
  SmiRequest request;
  bool csv = false;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string& arg = args[i];
    const size_t equals = arg.find('=');
    const std::string name = arg.substr(0, equals);
    if (arg == "-L" || arg == "--list-gpus") {
      request.what = SmiRequest::What::kList;
    } else if (arg == "-h" || arg == "--help") {
      request.what = SmiRequest::What::kHelp;
    } else if (name == "--query-gpu" || name == "--query-compute-apps") {
      request.what =
          name == "--query-gpu" ? SmiRequest::What::kQueryGpu : SmiRequest::What::kQueryApps;
      TRY(parse_query(arg, equals, request));
    } else if (name == "--format") {
      TRY(parse_csv(equals == std::string::npos ? "" : arg.substr(equals + 1), request, csv));
    } else if (name == "-i" || name == "--id") {
      const bool next = equals == std::string::npos;
      if (next && i + 1 == args.size()) return fail(Code::kUsage, "{}: which GPU?", name);
      const std::string value = next ? args[++i] : arg.substr(equals + 1);
      for (const std::string_view part : split(value, ',')) request.gpus.emplace_back(trim(part));
    } else {
      const auto near = nearest(name, kOptions);
      return fail(Code::kUsage, "smi: unknown option {}{}", json_escape(arg),
                  near ? fmt::format("; did you mean {}?", *near) : "; smi --help lists them");
    }
  }
  const bool query =
      request.what == SmiRequest::What::kQueryGpu || request.what == SmiRequest::What::kQueryApps;
  if (query && !csv) return fail(Code::kUsage, "\"--format=\" switch is missing: add --format=csv");
  if (request.what == SmiRequest::What::kQueryGpu)
    TRY(check_fields(kGpuFields, request.fields, "--query-gpu"));
  if (request.what == SmiRequest::What::kQueryApps)
    TRY(check_fields(kAppFields, request.fields, "--query-compute-apps"));
  return request;
}

Result<std::string> smi(const SmiRequest& request, const NodeView& node) {
  for (const std::string& wanted : request.gpus) {
    const std::vector<std::string> one = {wanted};
    const auto is_it = [&](const auto& gpu) { return smi_chosen(one, gpu); };
    if (std::none_of(node.gpus.begin(), node.gpus.end(), is_it) &&
        std::none_of(node.silent.begin(), node.silent.end(), is_it))
      return fail(Code::kNotFound, "No devices were found: there is no GPU {}",
                  json_escape(wanted));
  }
  switch (request.what) {
    case SmiRequest::What::kHelp:
      return smi_help();
    case SmiRequest::What::kList:
      return list(request, node);
    case SmiRequest::What::kQueryGpu:
      return query_gpu(request, node);
    case SmiRequest::What::kQueryApps:
      return query_apps(request, node);
    case SmiRequest::What::kTable:
      break;
  }
  NodeView shown = node;
  std::erase_if(shown.gpus, [&](const Gpu& g) { return !smi_chosen(request.gpus, g); });
  std::erase_if(shown.silent, [&](const SilentGpu& g) { return !smi_chosen(request.gpus, g); });
  return smi_table(shown);
}

}  // namespace gpuslice::cli
