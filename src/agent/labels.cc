#include "agent/labels.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

constexpr std::string_view kDomain = "nvidia.com/";
constexpr uint64_t kMiB = uint64_t{1} << 20;

bool is_alnum(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
bool is_inside(char c) { return is_alnum(c) || c == '-' || c == '_' || c == '.'; }

// Letters and digits at both ends.
std::string_view trimmed(std::string_view text) {
  while (!text.empty() && !is_alnum(text.front())) text.remove_prefix(1);
  while (!text.empty() && !is_alnum(text.back())) text.remove_suffix(1);
  return text;
}

std::string_view family(uint32_t major, uint32_t minor) {
  switch (major) {
    case 1:
      return "tesla";
    case 2:
      return "fermi";
    case 3:
      return "kepler";
    case 5:
      return "maxwell";
    case 6:
      return "pascal";
    case 7:
      return minor < 5 ? "volta" : "turing";
    case 8:
      return minor < 9 ? "ampere" : "ada-lovelace";
    case 9:
      return "hopper";
    case 10:
    case 12:
      return "blackwell";
    case 13:
      return "rubin";
    default:
      return "undefined";
  }
}

// How one device is served.
struct Served {
  size_t replicas = 0;  // ids that are offered of it; 0: it is not offered
  bool renamed = false;
  [[nodiscard]] bool shared() const { return replicas > 1; }
};
using ServedByUuid = std::map<std::string, Served>;

ServedByUuid served_of(const DeviceTable& table) {
  ServedByUuid out;
  for (const auto& [name, resource] : table.resources) {
    std::vector<size_t> ids(resource->bases.size());
    for (const OfferedDevice& device : resource->devices) ++ids[device.base];
    for (size_t i = 0; i < ids.size(); ++i) {
      const BaseDevice& base = resource->bases[i];
      if (ids[i] > 0) out[base.uuid] = {ids[i], name != base.resource};
    }
  }
  return out;
}

Served served_as(const ServedByUuid& served, const std::string& uuid) {
  const auto it = served.find(uuid);
  return it == served.end() ? Served{} : it->second;
}

class Maker {
 public:
  explicit Maker(const LabelFacts& facts) : facts_(facts) {
    if (facts.served != nullptr) served_ = served_of(*facts.served);
  }

  Labels make() {
    if (facts_.timestamp) labels_.emplace(kTimestampLabel, std::to_string(*facts_.timestamp));
    add_vgpu();
    if (facts_.gpus.empty()) return std::move(labels_);
    add_machine();
    add_driver();
    add_node_wide();
    add_models();
    if (facts_.mig_strategy == "single") add_single();
    if (facts_.mig_strategy == "mixed") add_mixed();
    return std::move(labels_);
  }

 private:
  using GpuList = std::vector<const ports::Gpu*>;

  void set(const std::string& name, std::string_view value) {
    labels_[std::string(kDomain) + name] = label_value(value);
  }
  void set(const std::string& name, uint64_t value) { set(name, std::to_string(value)); }

  void add_vgpu() {
    const auto it = std::find_if(facts_.gpus.begin(), facts_.gpus.end(),
                                 [](const ports::Gpu& gpu) { return gpu.vgpu.has_value(); });
    set("vgpu.present", it == facts_.gpus.end() ? "false" : "true");
    if (it == facts_.gpus.end()) return;
    set("vgpu.host-driver-version", it->vgpu->driver_version);
    set("vgpu.host-driver-branch", it->vgpu->driver_branch);
  }

  void add_machine() {
    const std::string machine = label_value(sanitise(facts_.machine));
    set("gpu.machine", machine.empty() ? "unknown" : machine);
  }

  void add_driver() {
    const auto parts = split(facts_.driver.version, '.');
    if (parts.size() == 2 || parts.size() == 3) {
      const std::string_view revision = parts.size() == 3 ? parts[2] : "";
      set("cuda.driver-version.major", parts[0]);
      set("cuda.driver-version.minor", parts[1]);
      set("cuda.driver-version.revision", revision);
      set("cuda.driver-version.full", facts_.driver.version);
      set("cuda.driver.major", parts[0]);
      set("cuda.driver.minor", parts[1]);
      set("cuda.driver.rev", revision);
    }
    const uint32_t major = facts_.driver.cuda_version / 1000;
    const uint32_t minor = facts_.driver.cuda_version % 1000 / 10;
    if (facts_.driver.cuda_version == 0) return;  // the driver did not tell
    set("cuda.runtime-version.major", major);
    set("cuda.runtime-version.minor", minor);
    set("cuda.runtime-version.full", fmt::format("{}.{}", major, minor));
    set("cuda.runtime.major", major);
    set("cuda.runtime.minor", minor);
  }

  void add_node_wide() {
    const auto& gpus = facts_.gpus;
    set("mig.capable", std::any_of(gpus.begin(), gpus.end(),
                                   [](const ports::Gpu& gpu) { return gpu.mig.has_value(); })
                           ? "true"
                           : "false");
    if (facts_.mig_strategy != "none") set("mig.strategy", facts_.mig_strategy);
    set("mps.capable", "false");  // not there yet
    set("gpu.mode", mode());
    std::set<std::string> cliques;
    for (const ports::Gpu& gpu : gpus)
      if (!gpu.fabric_clique.empty()) cliques.insert(gpu.fabric_clique);
    if (cliques.size() == 1) set("gpu.clique", *cliques.begin());
  }

  [[nodiscard]] std::string_view mode() const {
    std::set<uint32_t> classes;
    for (const ports::Gpu& gpu : facts_.gpus)
      if (!gpu.name.empty()) classes.insert(gpu.pci_class >> 8);
    if (classes == std::set<uint32_t>{0x0300}) return "graphics";
    if (classes == std::set<uint32_t>{0x0302}) return "compute";
    return "unknown";
  }

  // The GPUs by model, in the order of the first GPU of each.
  void sort_models() {
    for (const ports::Gpu& gpu : facts_.gpus) {
      if (gpu.name.empty()) continue;
      auto it = std::find_if(models_.begin(), models_.end(),
                             [&](const GpuList& list) { return list.front()->name == gpu.name; });
      if (it == models_.end()) it = models_.insert(models_.end(), GpuList{});
      it->push_back(&gpu);
    }
    const auto most =
        std::max_element(models_.begin(), models_.end(),
                         [](const GpuList& a, const GpuList& b) { return a.size() < b.size(); });
    if (most == models_.end()) return;
    majority_ = *most;
    nameless_ =
        static_cast<size_t>(std::count_if(facts_.gpus.begin(), facts_.gpus.end(),
                                          [](const ports::Gpu& gpu) { return gpu.name.empty(); }));
  }

  // As what a model's GPUs are served: as most of them are, MIG-enabled ones (which are not served
  // as GPUs) left out; of equals as the lowest index is.
  [[nodiscard]] Served served_model(const GpuList& gpus) const {
    std::vector<std::pair<Served, size_t>> kinds;
    for (const ports::Gpu* gpu : gpus) {
      const Served one = served_as(served_, gpu->uuid);
      if (one.replicas == 0) continue;
      auto it = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) {
        return kind.first.replicas == one.replicas && kind.first.renamed == one.renamed;
      });
      if (it == kinds.end()) it = kinds.insert(kinds.end(), {one, 0});
      ++it->second;
    }
    const auto most =
        std::max_element(kinds.begin(), kinds.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    return most == kinds.end() ? Served{} : most->first;
  }

  // The labels that every resource has: `name` is "gpu" or "mig-1g.5gb", `kind` "" or
  // "-MIG-1g.5gb". A product that is too long loses the end of the model, never its kind.
  void add_resource(const std::string& name, const ports::Gpu& gpu, const std::string& kind,
                    uint64_t count, const Served& served) {
    const bool suffixed = served.shared() && !served.renamed;
    labels_[fmt::format("{}{}.product", kDomain, name)] =
        label_value(sanitise(gpu.name), kind + (suffixed ? "-SHARED" : ""));
    set(name + ".count", count);
    set(name + ".replicas", served.replicas);
    set(name + ".sharing-strategy", served.shared() ? "time-slicing" : "none");
  }

  void add_models() {
    sort_models();
    if (majority_.empty()) return;
    const ports::Gpu& first = *majority_.front();
    const Served served = served_model(majority_);
    add_resource("gpu", first, "", majority_.size() + nameless_, served);
    if (const uint64_t mib = first.memory_total_bytes / kMiB; mib > 0) set("gpu.memory", mib);
    if (first.cc_major > 0) {
      set("gpu.family", family(first.cc_major, first.cc_minor));
      set("gpu.compute.major", first.cc_major);
      set("gpu.compute.minor", first.cc_minor);
    }
    uint64_t total = 0;
    for (const ports::Gpu& gpu : facts_.gpus) {
      total += served_as(served_, gpu.uuid).replicas;
      if (facts_.mig_strategy == "single")
        for (const ports::MigDevice& device : gpu.mig_devices)
          total += served_as(served_, device.uuid).replicas;
    }
    set("gpu.replicas-total", total);
    if (models_.size() > 1)
      for (const GpuList& gpus : models_) add_model(gpus);
  }

  void add_model(const GpuList& gpus) {
    // Two models whose names differ only beyond what fits are one row: the first one's.
    const std::string head =
        "gpu-model." + std::string(trimmed(sanitise(gpus.front()->name).substr(0, 43)));
    if (labels_.contains(std::string(kDomain) + head + ".count")) return;
    set(head + ".count", gpus.size());
    if (const uint64_t mib = gpus.front()->memory_total_bytes / kMiB; mib > 0)
      set(head + ".memory", mib);
    set(head + ".replicas", served_model(gpus).replicas);
  }

  void add_mig(const std::string& name, const ports::Gpu& gpu, const ports::MigDevice& device,
               uint64_t count, const Served& served) {
    add_resource(name, gpu, "-MIG-" + sanitise(device.profile), count, served);
    set(name + ".memory", device.memory_mib);
    set(name + ".multiprocessors", device.sm);
    set(name + ".slices.gi", device.gi_slices);
    set(name + ".slices.ci", device.ci_slices);
    set(name + ".engines.copy", device.ce);
    set(name + ".engines.decoder", device.dec);
    set(name + ".engines.encoder", device.enc);
    set(name + ".engines.jpeg", device.jpeg);
    set(name + ".engines.ofa", device.ofa);
  }

  // All GPUs have MIG and all MIG devices one profile: they are the node's "gpu". A node that is
  // neither that nor without MIG is told to be invalid.
  void add_single() {
    const auto& gpus = facts_.gpus;
    if (std::ranges::none_of(gpus, &ports::Gpu::mig_on)) return;
    std::set<std::string> profiles;
    uint64_t count = 0;
    bool valid = true;
    for (const ports::Gpu& gpu : gpus) {
      if (gpu.name.empty()) continue;
      valid = valid && gpu.mig_on() && !gpu.mig_devices.empty();
      count += gpu.mig_devices.size();
      for (const ports::MigDevice& device : gpu.mig_devices) profiles.insert(device.profile);
    }
    if (valid && profiles.size() == 1) {
      const auto& first = *std::find_if(
          gpus.begin(), gpus.end(), [](const ports::Gpu& gpu) { return !gpu.mig_devices.empty(); });
      const ports::MigDevice& device = first.mig_devices.front();
      add_mig("gpu", first, device, count, served_as(served_, device.uuid));
      return;
    }
    labels_[std::string(kDomain) + "gpu.product"] =
        label_value(sanitise(majority_.empty() ? "" : majority_.front()->name), "-MIG-INVALID");
    set("gpu.count", 0);
    set("gpu.replicas", 0);
    set("gpu.memory", 0);
    labels_[std::string(kDomain) + "gpu.sharing-strategy"] = "";
  }

  // Each profile that is offered is a resource of its own; one of several boards tells of the board
  // that has most of it, of equals of the lowest index.
  void add_mixed() {
    struct Kind {
      const ports::Gpu* gpu = nullptr;
      const ports::MigDevice* device = nullptr;
      uint64_t count = 0;
    };
    std::map<std::string, std::vector<Kind>> by_name;
    for (const ports::Gpu& gpu : facts_.gpus) {
      for (const ports::MigDevice& device : gpu.mig_devices) {
        if (served_as(served_, device.uuid).replicas == 0) continue;
        std::string name = "mig-" + device.profile;
        std::replace(name.begin(), name.end(), '+', '.');
        std::vector<Kind>& kinds = by_name[name];
        auto it = std::find_if(kinds.begin(), kinds.end(),
                               [&](const Kind& kind) { return kind.gpu->name == gpu.name; });
        if (it == kinds.end()) it = kinds.insert(kinds.end(), Kind{&gpu, &device, 0});
        ++it->count;
      }
    }
    for (const auto& [name, kinds] : by_name) {
      const auto most =
          std::max_element(kinds.begin(), kinds.end(),
                           [](const Kind& a, const Kind& b) { return a.count < b.count; });
      uint64_t count = 0;
      for (const Kind& kind : kinds) count += kind.count;
      add_mig(name, *most->gpu, *most->device, count, served_as(served_, most->device->uuid));
    }
  }

  const LabelFacts& facts_;
  ServedByUuid served_;
  std::vector<GpuList> models_;
  GpuList majority_;
  size_t nameless_ = 0;
  Labels labels_;
};

}  // namespace

std::string sanitise(std::string_view text) {
  std::string out;
  bool gap = false;
  for (const char c : text) {
    if (c == ' ') gap = true;
    if (!is_inside(c)) continue;
    if (gap && !out.empty()) out += '-';
    gap = false;
    out += c;
  }
  return out;
}

std::string label_value(std::string_view text, std::string_view suffix) {
  std::string kept;
  for (const char c : text)
    if (is_inside(c)) kept += c;
  std::string_view head = trimmed(kept);
  if (suffix.size() >= kMaxLabelValue) suffix = suffix.substr(0, kMaxLabelValue);
  head = trimmed(head.substr(0, kMaxLabelValue - suffix.size()));
  return std::string(trimmed(std::string(head) + std::string(suffix)));
}

bool is_label_value(std::string_view value) {
  if (value.empty()) return true;
  return value.size() <= kMaxLabelValue && is_alnum(value.front()) && is_alnum(value.back()) &&
         std::all_of(value.begin(), value.end(), is_inside);
}

bool is_label_key(std::string_view key) {
  if (!key.starts_with(kDomain)) return false;
  key.remove_prefix(kDomain.size());
  return !key.empty() && is_label_value(key);
}

Labels make_labels(const LabelFacts& facts) { return Maker(facts).make(); }

}  // namespace gpuslice::agent
