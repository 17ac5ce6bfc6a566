#include "cli/smi_table.h"

#include <fmt/format.h>

#include <algorithm>

namespace gpuslice::cli {
namespace {

using ports::Gpu;

// Inner widths of driver branch 580's table: one box of 89, or columns of 41, 24 and 22.
constexpr size_t kWidth = 89;

std::string rule(char fill) { return "+" + std::string(kWidth, fill) + "+\n"; }
std::string row(const std::string& text) { return fmt::format("| {:<87} |\n", text); }
std::string columns(const std::string& a, const std::string& b, const std::string& c) {
  return fmt::format("|{:<41}|{:<24}|{:<22}|\n", a, b, c);
}
std::string column_rule(char left, char fill, char cross, char right) {
  return fmt::format("{}{}{}{}{}{}{}\n", left, std::string(41, fill), cross, std::string(24, fill),
                     cross, std::string(22, fill), right);
}

template <class T, class Format>
std::string or_na(const std::optional<T>& value, Format&& format) {
  return value ? format(*value) : "N/A";
}

std::string cut(const std::string& text, size_t width) {
  return text.size() <= width ? text : text.substr(0, width - 3) + "...";
}

// A path that is too long keeps its end.
std::string cut_front(const std::string& text, size_t width) {
  return text.size() <= width ? text : "..." + text.substr(text.size() - width + 3);
}

std::string cuda(uint32_t version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

std::string compute_mode(const std::optional<uint32_t>& mode) {
  switch (mode.value_or(99)) {
    case 0:
      return "Default";
    case 2:
      return "Prohibited";
    case 3:
      return "E. Process";
    default:
      return "N/A";
  }
}

std::string gpu_rows(const Gpu& gpu) {
  const std::string persistence =
      or_na(gpu.persistence_mode, [](bool on) { return std::string(on ? "On" : "Off"); });
  const std::string display =
      or_na(gpu.display_active, [](bool on) { return std::string(on ? "On" : "Off"); });
  const std::string ecc = or_na(gpu.ecc_uncorrected, [](uint64_t n) { return std::to_string(n); });
  const std::string fan = or_na(gpu.fan_percent, [](uint32_t n) { return fmt::format("{}%", n); });
  const std::string temperature =
      or_na(gpu.temperature_c, [](uint32_t n) { return fmt::format("{}C", n); });
  const std::string state =
      or_na(gpu.performance_state, [](uint32_t n) { return fmt::format("P{}", n); });
  const std::string draw =
      or_na(gpu.power_mw, [](uint32_t n) { return fmt::format("{}W", n / 1000); });
  const std::string limit =
      or_na(gpu.power_limit_mw, [](uint32_t n) { return fmt::format("{}W", n / 1000); });
  const std::string used =
      or_na(gpu.memory_used_bytes, [](uint64_t n) { return fmt::format("{}MiB", n >> 20); });
  const std::string total = fmt::format("{}MiB", gpu.memory_total_bytes >> 20);
  const std::string busy = gpu.mig_on() ? "N/A" : or_na(gpu.utilisation_percent, [](uint32_t n) {
    return fmt::format("{}%", n);
  });
  std::string mig = "N/A";
  if (gpu.mig)
    mig = std::string(gpu.mig->current ? "Enabled" : "Disabled") +
          (gpu.mig->current != gpu.mig->pending ? "*" : "");
  return columns(fmt::format(" {:>3}  {:<28}   {:<3} ", gpu.index.value, cut(gpu.name, 28),
                             persistence),
                 fmt::format(" {:>18} {:>3} ", gpu.bus_id, display), fmt::format(" {:>20} ", ecc)) +
         columns(fmt::format("{:>4}  {:>4}   {:>3}  {:>14} / {:>5} ", fan, temperature, state, draw,
                             limit),
                 fmt::format(" {:>10} / {:>9} ", used, total),
                 fmt::format(" {:>7} {:>12} ", busy, compute_mode(gpu.compute_mode))) +
         columns("", "", fmt::format(" {:>20} ", mig));
}

std::string mig_rows(const Gpu& gpu) {
  std::string out;
  for (const ports::MigDevice& m : gpu.mig_devices) {
    out += fmt::format(
        "|{:>3}  {:>3}  {:>2} {:>3}  |{:>15}MiB / {:>6}MiB    |{:>3}    {:>3} |{:>3}  {:>2}  {:>3} "
        " {:>3}  {:>3} |\n",
        gpu.index.value, m.gi.value, m.ci.value, m.index, m.memory_used_bytes >> 20,
        m.memory_total_bytes >> 20, m.sm,
        gpu.ecc_uncorrected ? std::to_string(*gpu.ecc_uncorrected) : "N/A", m.ce, m.enc, m.dec,
        m.ofa, m.jpeg);
    out += fmt::format("|{:<18}|{:>15}MiB / {:>6}MiB    |{:<11}|{:<23}|\n", "",
                       m.bar1_used_bytes >> 20, m.bar1_total_bytes >> 20, "", "");
    out += fmt::format("+{}+{}+{}+{}+\n", std::string(18, '-'), std::string(34, '-'),
                       std::string(11, '-'), std::string(23, '-'));
  }
  return out;
}

std::string mig_box(const NodeView& node) {
  const bool any_mode =
      std::any_of(node.gpus.begin(), node.gpus.end(), [](const Gpu& g) { return g.mig_on(); });
  if (!any_mode) return "";
  std::string rows;
  for (const Gpu& gpu : node.gpus) rows += mig_rows(gpu);
  std::string out = "\n" + rule('-') + row("MIG devices:");
  if (rows.empty())
    return out + "|" + std::string(kWidth, '=') + "|\n" + row(" No MIG devices found") + rule('-');
  out += fmt::format("+{}+{}+{}+{}+\n", std::string(18, '-'), std::string(34, '-'),
                     std::string(11, '-'), std::string(23, '-'));
  out +=
      "| GPU  GI  CI  MIG |              Shared Memory-Usage |        Vol|        Shared         "
      "|\n";
  out +=
      "|      ID  ID  Dev |                Shared BAR1-Usage | SM     Unc| CE ENC  DEC  OFA  JPG "
      "|\n";
  out +=
      "|                  |                                  |        ECC|                       "
      "|\n";
  out += fmt::format("|{}+{}+{}+{}|\n", std::string(18, '='), std::string(34, '='),
                     std::string(11, '='), std::string(23, '='));
  return out + rows;
}

char type_of(ports::Process::Kind kind) {
  return kind == ports::Process::Kind::kGraphics ? 'G'
         : kind == ports::Process::Kind::kMps    ? 'M'
                                                 : 'C';
}

std::string process_box(const NodeView& node) {
  std::string out = "\n" + rule('-') + row("Processes:");
  out += row(
      " GPU   GI   CI              PID   Type   Process name                        GPU Memory");
  out += row(
      "       ID   ID                                                               Usage     ");
  out += "|" + std::string(kWidth, '=') + "|\n";
  std::string rows;
  for (const Gpu& gpu : node.gpus) {
    for (const ports::Process& p : gpu.processes) {
      const std::string gi = p.gi ? std::to_string(p.gi->value) : "N/A";
      const std::string ci = p.ci ? std::to_string(p.ci->value) : "N/A";
      const std::string memory =
          p.memory_bytes ? fmt::format("{}MiB", *p.memory_bytes >> 20) : "N/A";
      rows += row(fmt::format("{:>4}  {:>4} {:>4}  {:>14}   {:>4}   {:<35} {:>10}", gpu.index.value,
                              gi, ci, p.pid, type_of(p.kind), cut_front(p.name, 35), memory));
    }
  }
  return out + (rows.empty() ? row(" No running processes found") : rows) + rule('-');
}

}  // namespace

std::string smi_table(const NodeView& node) {
  std::string out = rule('-');
  out += row(fmt::format("{:<33} {:<30} {:<22}", "gpuslice smi " + node.driver.version,
                         "Driver Version: " + node.driver.version,
                         "CUDA Version: " + cuda(node.driver.cuda_version)));
  out += column_rule('+', '-', '+', '+');
  out += columns(" GPU  Name                 Persistence-M ", " Bus-Id          Disp.A ",
                 " Volatile Uncorr. ECC ");
  out += columns(" Fan  Temp   Perf          Pwr:Usage/Cap ", "           Memory-Usage ",
                 " GPU-Util  Compute M. ");
  out += columns("", "", "               MIG M. ");
  out += column_rule('|', '=', '+', '|');
  for (const Gpu& gpu : node.gpus) out += gpu_rows(gpu) + column_rule('+', '-', '+', '+');
  if (node.gpus.empty() && node.silent.empty()) out += row("No devices were found") + rule('-');
  for (const SilentGpu& gpu : node.silent) {
    const std::string name = fmt::format("GPU {}: ", gpu.index);
    const std::string& why = gpu.error.message;
    out += row(cut(why.starts_with(name) ? why : name + why, 87)) + rule('-');
  }
  return out + mig_box(node) + process_box(node);
}

}  // namespace gpuslice::cli
