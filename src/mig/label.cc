#include "mig/label.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::mig {
namespace {

using config::GpuRef;
using config::MigEntry;

std::string where(const std::string& file, config::Place place) {
  return fmt::format("{}:{}:{}", file, place.line, place.column);
}

bool names(const GpuRef& ref, const ports::Gpu& gpu) {
  switch (ref.kind) {
    case GpuRef::Kind::kIndex:
      return ref.index == gpu.index.value;
    case GpuRef::Kind::kUuid:
      return to_lower(ref.text) == to_lower(gpu.uuid);
    case GpuRef::Kind::kBusId:
      break;
  }
  return to_lower(ref.text) == to_lower(gpu.bus_id);
}

bool passes(const std::vector<config::DeviceFilter>& filters, const ports::Gpu& gpu) {
  return filters.empty() || std::any_of(filters.begin(), filters.end(), [&](const auto& filter) {
           return filter.device == gpu.pci_device_id &&
                  (!filter.subsystem || *filter.subsystem == gpu.pci_subsystem_id);
         });
}

std::string ref_text(const GpuRef& ref) {
  return ref.kind == GpuRef::Kind::kIndex ? fmt::format("GPU {}", ref.index) : ref.text;
}

Wish wish_of(const MigEntry& entry) {
  Wish wish;
  wish.mig = entry.mig_enabled;
  for (const config::WantedProfile& profile : entry.profiles)
    wish.profiles.push_back({profile.name, profile.count, profile.starts});
  return wish;
}

struct Matched {
  std::vector<uint32_t> gpus;
  bool off_without_mig = false;  // MIG is to be off on a board that has none, and so it is
};

// The GPUs that an entry is for.
Result<Matched> matched(const MigEntry& entry, const std::vector<ports::Gpu>& gpus,
                        const std::string& file, std::vector<std::string>& warnings) {
  Matched out;
  for (const GpuRef& ref : entry.gpus) {
    const bool there =
        std::any_of(gpus.begin(), gpus.end(), [&](const ports::Gpu& g) { return names(ref, g); });
    if (!there)
      warnings.push_back(fmt::format("{}: this node has no {}: the entry does nothing there",
                                     where(file, ref.place), ref_text(ref)));
  }
  for (const ports::Gpu& gpu : gpus) {
    const auto named = std::find_if(entry.gpus.begin(), entry.gpus.end(),
                                    [&](const GpuRef& ref) { return names(ref, gpu); });
    if (!entry.all_gpus && named == entry.gpus.end()) continue;
    if (!passes(entry.filters, gpu)) continue;
    if (!gpu.mig) {
      out.off_without_mig = out.off_without_mig || !entry.mig_enabled;
      if (entry.all_gpus || !entry.mig_enabled) continue;
      Error error{Code::kImpossible,
                  fmt::format("GPU {} ({}): MIG is wanted, and this board has none; leave it "
                              "out of devices, or give it mig-enabled: false",
                              gpu.index.value, gpu.name),
                  where(file, named->place)};
      return std::unexpected(std::move(error));
    }
    out.gpus.push_back(gpu.index.value);
  }
  return out;
}

std::string boards_text(const std::vector<ports::Gpu>& gpus) {
  std::string text;
  for (const ports::Gpu& gpu : gpus)
    text += fmt::format("{}GPU {} ({}, PCI 0x{:08X}{})", text.empty() ? "" : ", ", gpu.index.value,
                        gpu.name, gpu.pci_device_id, gpu.mig ? "" : ", no MIG");
  return text.empty() ? "none" : text;
}

}  // namespace

Result<std::string> choose_label(const config::MigPartedConfig& config, const std::string& asked,
                                 const std::string& file) {
  if (asked.empty() && config.labels.size() == 1) return config.labels.begin()->first;
  if (config.labels.contains(asked)) return asked;
  std::vector<std::string_view> labels;
  std::string list;
  for (const auto& [name, label] : config.labels) {
    labels.emplace_back(name);
    list += (list.empty() ? "" : ", ") + name;
  }
  if (asked.empty())
    return fail(Code::kUsage, "{}: it has several labels; choose one with -c: {}", file, list);
  const auto near = nearest(asked, labels);
  return fail(Code::kInvalidConfig, "{}: it has no label {}; {}it has {}", file, asked,
              near ? fmt::format("did you mean {}? ", *near) : "", list);
}

Result<NodeWish> wish_of_label(const config::MigLabel& label, const std::string& name,
                               const std::vector<ports::Gpu>& gpus, const std::string& file) {
  NodeWish out;
  std::map<uint32_t, const MigEntry*> last;
  bool off_without_mig = false;
  for (const MigEntry& entry : label.entries) {
    TRY_ASSIGN(const Matched hit, matched(entry, gpus, file, out.warnings));
    off_without_mig = off_without_mig || hit.off_without_mig;
    for (const uint32_t index : hit.gpus) {
      const MigEntry*& before = last[index];
      if (before != nullptr)
        out.warnings.push_back(
            fmt::format("{}: a second entry for GPU {}, which the one in line {} is for as well: "
                        "the last one counts",
                        where(file, entry.place), index, before->place.line));
      before = &entry;
    }
  }
  if (last.empty() && !off_without_mig) {
    Error error{
        Code::kInvalidConfig,
        fmt::format("label {}: no entry of it is for a GPU of this node, which has {}; name "
                    "one of these in devices and, if given, in device-filter",
                    name, boards_text(gpus)),
        where(file, label.place)};
    return std::unexpected(std::move(error));
  }
  for (const auto& [index, entry] : last) out.gpus[index] = wish_of(*entry);
  return out;
}

}  // namespace gpuslice::mig
