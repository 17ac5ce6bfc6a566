#include "config/mig_parted.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"
#include "config/document.h"
#include "config/reader.h"
#include "gpu/board.h"

namespace gpuslice::config {
namespace {

constexpr std::string_view kTopKeys[] = {"version", "mig-configs"};
constexpr std::string_view kEntryKeys[] = {"device-filter", "devices", "mig-enabled",
                                           "mig-devices"};
constexpr std::string_view kPlacedKeys[] = {"count", "placements"};
constexpr KnownKey kKnown[] = {
    {"version", ""},         {"mig-configs", ""},         {"device-filter", "an entry"},
    {"devices", "an entry"}, {"mig-enabled", "an entry"}, {"mig-devices", "an entry"}};
constexpr std::string_view kDeviceForms =
    "all, an index, GPU-<uuid>, a PCI address such as 0000:07:00.0, or a list of these";
constexpr std::string_view kFrame =
    "version: v1, then mig-configs:, then the labels, each a list of entries";

bool is_hex(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

// "0x20B010DE" as a number; at most eight digits.
std::optional<uint32_t> parse_hex(std::string_view text) {
  if (!text.starts_with("0x") && !text.starts_with("0X")) return std::nullopt;
  text.remove_prefix(2);
  if (!is_hex(text) || text.size() > 8) return std::nullopt;
  uint32_t value = 0;
  for (const char c : text) {
    const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c - 'A' + 'a') : c;
    value = value << 4 | static_cast<uint32_t>(lower <= '9' ? lower - '0' : lower - 'a' + 10);
  }
  return value;
}

// A PCI address as NVML writes it, from any of its usual forms; nothing if it is none.
std::optional<std::string> bus_id_of(std::string_view text) {
  auto parts = split(text, ':');
  if (parts.size() == 2) parts.insert(parts.begin(), "0");
  if (parts.size() != 3) return std::nullopt;
  const auto slot = split(parts[2], '.');
  if (slot.size() > 2 || parts[0].size() > 8 || parts[1].size() > 2 || slot[0].size() > 2 ||
      (slot.size() == 2 && slot[1] != "0"))
    return std::nullopt;
  const auto domain = parse_hex("0x" + std::string(parts[0]));
  const auto bus = parse_hex("0x" + std::string(parts[1]));
  const auto device = parse_hex("0x" + std::string(slot[0]));
  if (!domain || !bus || !device) return std::nullopt;
  return fmt::format("{:08X}:{:02X}:{:02X}.0", *domain, *bus, *device);
}

bool is_gpu_uuid(std::string_view text) {
  if (!text.starts_with("GPU-") || text.size() != 40) return false;
  text.remove_prefix(4);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !is_hex(text.substr(i, 1))) return false;
  }
  return true;
}

// The PCI ids of boards that a product name means: "A100-SXM4-80GB" → "0x20B210DE".
std::string ids_of_board(std::string_view name) {
  const auto board = gpu::find_board(name);
  return board ? fmt::format("0x{:08X}", (*board)->pci_device_id) : "";
}

bool is_label_value(std::string_view text) {
  const auto alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (text.empty() || text.size() > 63 || !alnum(text.front()) || !alnum(text.back())) return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

class MigReader {
 public:
  MigReader(const MapReader& maps, MigPartedConfig& config) : maps_(maps), config_(config) {}

  void read(const Node& root) {
    if (root.kind == NodeKind::kMap && is_another_file(root)) return;
    const auto fields = maps_.fields(root, {"", kTopKeys, false});
    if (!fields) return;
    bool version = false;
    bool configs = false;
    for (const auto& field : *fields) {
      if (field.key == "version") {
        version = true;
        const auto text = maps_.text(*field.value, "version");
        if (text && *text != "v1")
          error(Mistake::kUnknownVersion, field.value->place,
                fmt::format("unknown version \"{}\": the only version is v1", shown(*text)));
      } else {
        configs = true;
        read_labels(*field.value);
      }
    }
    if (!version) error(Mistake::kMissingKey, root.place, "version is missing; write: version: v1");
    if (!configs)
      error(Mistake::kMissingKey, root.place,
            fmt::format("mig-configs is missing; the form is: {}", kFrame));
  }

 private:
  void error(Mistake mistake, Place place, std::string message) {
    maps_.problems().error(mistake, place, std::move(message));
  }
  void warning(Mistake mistake, Place place, std::string message) {
    maps_.problems().warning(mistake, place, std::move(message));
  }

  bool is_another_file(const Node& root) {
    const Document& document = maps_.document();
    if (document.find(root, "mig-configs") != nullptr) return false;
    const Node* kind = document.find(root, "kind");
    if (kind != nullptr && document.find(root, "apiVersion") != nullptr) {
      std::string keys;
      bool nested = false;
      if (const Node* data = document.find(root, "data"); data != nullptr)
        for (const Entry& entry : data->entries) {
          keys += fmt::format("{}data.{}", keys.empty() ? "" : ", ", shown(entry.key));
          nested = nested || document.value(entry).kind == NodeKind::kMap;
        }
      error(Mistake::kManifest, root.place,
            fmt::format("this is a Kubernetes manifest ({}); the configuration is the text under "
                        "{}{}",
                        shown(kind->text), keys.empty() ? "data.<key>" : keys,
                        nested ? ", which must be a text: write | after its key" : ""));
      return true;
    }
    if (document.find(root, "sharing") != nullptr || document.find(root, "flags") != nullptr) {
      error(Mistake::kOtherFile, root.place,
            "this is a configuration of the device plugin, not a MIG configuration; give it with "
            "--config");
      return true;
    }
    // Labels without the frame around them.
    for (const Entry& entry : root.entries) {
      const Node& value = document.value(entry);
      if (value.kind != NodeKind::kList || value.items.empty()) continue;
      const Node& first = document.at(value.items[0]);
      if (first.kind != NodeKind::kMap || document.find(first, "devices") == nullptr) continue;
      error(Mistake::kMissingKey, entry.place,
            fmt::format("\"{}\" looks like a label, and the frame around it is missing: {}",
                        shown(entry.key), kFrame));
      return true;
    }
    return false;
  }

  void read_labels(const Node& node) {
    if (node.kind != NodeKind::kMap || node.entries.empty()) {
      error(Mistake::kMissingKey, node.place,
            "mig-configs needs at least one label with a list of entries");
      return;
    }
    std::map<std::string, Place> seen;
    for (const Entry& entry : node.entries) {
      if (const auto [it, fresh] = seen.emplace(entry.key, entry.place); !fresh) {
        error(Mistake::kDuplicateKey, entry.place,
              fmt::format("the label {} stands twice; it stood in line {} already",
                          shown(entry.key), it->second.line));
        continue;
      }
      if (!is_label_value(entry.key))
        warning(Mistake::kBadName, entry.place,
                fmt::format("\"{}\" cannot be the value of a node label, so nvidia.com/mig.config "
                            "can never choose it (at most 63 letters, digits, '-', '_', '.')",
                            shown(entry.key)));
      read_label(entry);
    }
  }

  void read_label(const Entry& entry) {
    const Node& list = maps_.document().value(entry);
    const std::string path = fmt::format("mig-configs.{}", shown(entry.key));
    if (list.kind != NodeKind::kList || list.items.empty()) {
      error(list.kind == NodeKind::kList || list.kind == NodeKind::kNull ? Mistake::kMissingKey
                                                                         : Mistake::kWrongType,
            list.kind == NodeKind::kNull ? entry.place : list.place,
            fmt::format("{} must be a list with at least one entry: - devices: all …", path));
      return;
    }
    MigLabel label;
    label.place = entry.place;
    for (const size_t item : list.items)
      if (auto one = read_entry(maps_.document().at(item), path))
        label.entries.push_back(std::move(*one));
    config_.labels[entry.key] = std::move(label);
  }

  std::optional<MigEntry> read_entry(const Node& node, const std::string& path) {
    const auto fields = maps_.fields(node, {"an entry", kEntryKeys, false});
    if (!fields) return std::nullopt;
    MigEntry entry;
    entry.place = node.place;
    bool devices = false;
    bool enabled = false;
    const Node* mig_devices = nullptr;
    Place mig_devices_place;
    for (const auto& field : *fields) {
      if (field.key == "devices") {
        devices = true;
        read_devices(*field.value, field.place, entry);
      } else if (field.key == "device-filter") {
        read_filters(*field.value, entry);
      } else if (field.key == "mig-enabled") {
        enabled = true;
        entry.mig_enabled = read_enabled(*field.value);
      } else {
        mig_devices = field.value;
        mig_devices_place = field.place;
      }
    }
    if (!devices)
      error(Mistake::kMissingKey, node.place,
            fmt::format("{}: an entry needs devices: {}", path, kDeviceForms));
    if (!enabled)
      error(Mistake::kMissingKey, node.place,
            fmt::format("{}: an entry needs mig-enabled: true or false", path));
    if (enabled && entry.mig_enabled && mig_devices == nullptr)
      error(Mistake::kMissingKey, node.place,
            fmt::format("{}: with mig-enabled: true an entry needs mig-devices, such as {{1g.5gb: "
                        "7}}, or {{}} for MIG without instances",
                        path));
    if (mig_devices != nullptr) read_profiles(*mig_devices, mig_devices_place, entry);
    if (enabled && !entry.mig_enabled && !entry.profiles.empty())
      error(Mistake::kBadValue, mig_devices_place,
            "mig-devices are wanted and mig-enabled is false: set mig-enabled: true, or leave "
            "mig-devices out");
    return entry;
  }

  // YAML 1.1's other words for true and false work in mig-parted, so they work here.
  bool read_enabled(const Node& node) {
    const std::string word =
        node.kind == NodeKind::kScalar && !node.quoted ? to_lower(node.text) : "";
    const bool yes = word == "yes" || word == "on" || word == "y";
    if (yes || word == "no" || word == "off" || word == "n") {
      warning(
          Mistake::kSpelling, node.place,
          fmt::format("mig-enabled: {} is usually written {}", node.text, yes ? "true" : "false"));
      return yes;
    }
    return maps_.boolean(node, "mig-enabled").value_or(false);
  }

  // One GPU of `devices`; nothing, and a problem, if it is none.
  std::optional<GpuRef> read_gpu(const Node& node) {
    GpuRef ref;
    ref.place = node.place;
    ref.text = node.text;
    if (node.kind == NodeKind::kScalar) {
      if (const auto index = parse_u64(node.text); index && *index < 256 && !node.quoted) {
        ref.index = static_cast<uint32_t>(*index);
        return ref;
      }
      if (is_gpu_uuid(node.text)) {
        ref.kind = GpuRef::Kind::kUuid;
        ref.text = "GPU-" + to_lower(std::string_view(node.text).substr(4));
        return ref;
      }
      if (auto bus_id = bus_id_of(node.text)) {
        ref.kind = GpuRef::Kind::kBusId;
        ref.text = std::move(*bus_id);
        return ref;
      }
    }
    error(Mistake::kBadDevice, node.place,
          fmt::format("devices: {} names no GPU; write {}",
                      node.kind == NodeKind::kScalar ? fmt::format("\"{}\"", shown(node.text))
                                                     : std::string(kind_name(node)),
                      kDeviceForms));
    return std::nullopt;
  }

  void read_devices(const Node& node, Place key, MigEntry& entry) {
    if (node.kind == NodeKind::kScalar && node.text == "all") {
      entry.all_gpus = true;
      return;
    }
    if (node.kind != NodeKind::kList) {
      if (auto ref = read_gpu(node)) entry.gpus.push_back(std::move(*ref));
      return;
    }
    if (node.items.empty())
      error(Mistake::kBadDevice, key,
            fmt::format("devices is an empty list: an entry that is for no GPU; write {}",
                        kDeviceForms));
    for (const size_t item : node.items) {
      auto ref = read_gpu(maps_.document().at(item));
      if (!ref) continue;
      const bool twice = std::any_of(entry.gpus.begin(), entry.gpus.end(), [&](const GpuRef& g) {
        return g.kind == ref->kind && g.index == ref->index &&
               (g.kind == GpuRef::Kind::kIndex || g.text == ref->text);
      });
      if (twice)
        warning(Mistake::kSameResource, ref->place,
                fmt::format("devices names {} twice", shown(ref->text)));
      else
        entry.gpus.push_back(std::move(*ref));
    }
  }

  void read_filters(const Node& node, MigEntry& entry) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kList) {
      read_filter(node, entry);
      return;
    }
    for (const size_t item : node.items) read_filter(maps_.document().at(item), entry);
  }

  void read_filter(const Node& node, MigEntry& entry) {
    if (node.kind != NodeKind::kScalar) {
      maps_.wrong_type(node, "device-filter", "a text such as \"0x20B010DE\", or a list of them");
      return;
    }
    DeviceFilter filter;
    filter.text = node.text;
    filter.place = node.place;
    const auto parts = split(node.text, ':');
    const auto device = parse_hex(parts[0]);
    const auto subsystem = parts.size() == 2 ? parse_hex(parts[1]) : std::nullopt;
    const bool whole = device && *device > 0xFFFF && (*device & 0xFFFF) != 0;
    if (whole && parts.size() == 1 + (subsystem ? 1U : 0U)) {
      filter.device = *device;
      filter.subsystem = subsystem;
      entry.filters.push_back(std::move(filter));
      return;
    }
    const std::string ids = ids_of_board(node.text);
    error(Mistake::kBadDevice, node.place,
          ids.empty()
              ? fmt::format("device-filter: \"{}\" is no PCI id and would never match; write "
                            "\"0x\", the device and the vendor: \"0x20B010DE\", if wanted "
                            "\":0x\" with the subsystem",
                            shown(node.text))
              : fmt::format("device-filter: \"{}\" is a product name and would never match; the "
                            "PCI id of that board is \"{}\"",
                            shown(node.text), ids));
  }

  void read_profiles(const Node& node, Place key, MigEntry& entry) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kMap) {
      maps_.wrong_type(node, "mig-devices", "a map of profiles and counts, such as {1g.5gb: 7}");
      return;
    }
    const size_t before = maps_.problems().errors();
    for (const Entry& one : node.entries) read_profile(one, entry);
    if (maps_.problems().errors() == before && node.entries.empty() && !entry.profiles.empty())
      error(Mistake::kBadValue, key, "mig-devices is empty");
  }

  void read_profile(const Entry& one, MigEntry& entry) {
    const auto name = gpu::parse_profile_name(one.key);
    if (!name) {
      // The way labels spell it: "1g.5gb.me" for "1g.5gb+me".
      std::string hint;
      const size_t dot = one.key.find("gb.");
      if (dot != std::string::npos) {
        std::string meant = one.key;
        meant[dot + 2] = '+';
        if (gpu::parse_profile_name(meant)) hint = fmt::format("; did you mean {}?", meant);
      }
      error(Mistake::kBadProfile, one.place,
            fmt::format("mig-devices: {}{}", name.error().message, hint));
      return;
    }
    for (const WantedProfile& other : entry.profiles) {
      if (other.name != *name) continue;
      error(Mistake::kDuplicateKey, one.place,
            fmt::format("mig-devices: {} stands twice; it stood in line {} already", name->text(),
                        other.place.line));
      return;
    }
    WantedProfile wanted;
    wanted.name = *name;
    wanted.text = one.key;
    wanted.place = one.place;
    if (read_count(maps_.document().value(one), wanted))
      entry.profiles.push_back(std::move(wanted));
  }

  std::optional<uint32_t> read_number(const Node& node, const std::string& path) {
    const auto count = maps_.integer(node, path);
    if (!count) return std::nullopt;
    if (*count >= 1 && *count <= kMostInstances) return static_cast<uint32_t>(*count);
    error(Mistake::kReplicas, node.place,
          *count == 0
              ? fmt::format("{} is 0: leave the profile out; with a 0 mig-parted makes everything "
                            "anew at each apply",
                            path)
              : fmt::format("{} must be a number from 1 to {}, not {}", path, kMostInstances,
                            *count));
    return std::nullopt;
  }

  // 7, [0, 4] (where they start), or {count: 2, placements: [0, 4]}.
  bool read_count(const Node& node, WantedProfile& wanted) {
    const std::string path = "mig-devices." + wanted.text;
    if (node.kind == NodeKind::kList) return read_starts(node, path, wanted);
    if (node.kind != NodeKind::kMap) {
      const auto count = read_number(node, path);
      wanted.count = count.value_or(0);
      return count.has_value();
    }
    const auto fields = maps_.fields(node, {path, kPlacedKeys, false});
    if (!fields) return false;
    std::optional<uint32_t> count;
    for (const auto& field : *fields) {
      if (field.key == "count") {
        count = read_number(*field.value, path + ".count");
        if (!count) return false;
      } else if (field.value->kind != NodeKind::kList) {
        maps_.wrong_type(*field.value, path + ".placements", "a list of starts, such as [0, 4]");
        return false;
      } else if (!read_starts(*field.value, path + ".placements", wanted)) {
        return false;
      }
    }
    if (!count && wanted.starts.empty()) {
      error(Mistake::kMissingKey, node.place, fmt::format("{} needs count or placements", path));
      return false;
    }
    if (count && !wanted.starts.empty() && *count < wanted.starts.size()) {
      error(Mistake::kBadValue, node.place,
            fmt::format("{}: {} placements for {} instances", path, wanted.starts.size(), *count));
      return false;
    }
    wanted.count = count.value_or(static_cast<uint32_t>(wanted.starts.size()));
    return true;
  }

  bool read_starts(const Node& list, const std::string& path, WantedProfile& wanted) {
    if (list.items.empty()) {
      error(Mistake::kBadValue, list.place,
            fmt::format("{} is an empty list; write where the instances start, such as [0, 4], or "
                        "a number",
                        path));
      return false;
    }
    for (const size_t item : list.items) {
      const Node& node = maps_.document().at(item);
      const auto start = maps_.integer(node, path);
      if (!start) return false;
      const auto value = static_cast<uint32_t>(*start);
      const bool twice =
          std::find(wanted.starts.begin(), wanted.starts.end(), value) != wanted.starts.end();
      if (*start < 0 || *start >= kMostInstances || twice) {
        error(Mistake::kBadValue, node.place,
              twice ? fmt::format("{}: two instances cannot both start at {}", path, *start)
                    : fmt::format("{}: a start is a memory slice, from 0 to {}", path,
                                  kMostInstances - 1));
        return false;
      }
      wanted.starts.push_back(value);
    }
    wanted.count = static_cast<uint32_t>(wanted.starts.size());
    return true;
  }

  const MapReader& maps_;
  MigPartedConfig& config_;
};

// --- hooks ---

constexpr std::string_view kHookTopKeys[] = {"version", "hooks"};
constexpr std::string_view kPoints[] = {"apply-start", "pre-apply-mode", "pre-apply-config",
                                        "apply-exit"};
constexpr std::string_view kHookKeys[] = {"command", "args", "envs", "workdir"};
constexpr KnownKey kKnownHooks[] = {{"version", ""},
                                    {"hooks", ""},
                                    {"apply-start", "hooks"},
                                    {"pre-apply-mode", "hooks"},
                                    {"pre-apply-config", "hooks"},
                                    {"apply-exit", "hooks"},
                                    {"command", "a hook"},
                                    {"args", "a hook"},
                                    {"envs", "a hook"},
                                    {"workdir", "a hook"}};

class HookReader {
 public:
  explicit HookReader(const MapReader& maps) : maps_(maps) {}

  void read(const Node& root, Hooks& hooks) {
    const auto fields = maps_.fields(root, {"", kHookTopKeys, false});
    if (!fields) return;
    bool version = false;
    for (const auto& field : *fields) {
      if (field.key == "hooks") {
        read_points(*field.value, hooks);
        continue;
      }
      version = true;
      const auto text = maps_.text(*field.value, "version");
      if (text && *text != "v1")
        maps_.problems().error(
            Mistake::kUnknownVersion, field.value->place,
            fmt::format("unknown version \"{}\": the only version is v1", shown(*text)));
    }
    if (!version)
      maps_.problems().error(Mistake::kMissingKey, root.place,
                             "version is missing; write: version: v1");
  }

 private:
  void read_points(const Node& node, Hooks& hooks) {
    const auto fields = maps_.fields(node, {"hooks", kPoints, false});
    if (!fields) return;
    for (const auto& field : *fields) {
      std::vector<Hook>& point = field.key == "apply-start"        ? hooks.apply_start
                                 : field.key == "pre-apply-mode"   ? hooks.pre_apply_mode
                                 : field.key == "pre-apply-config" ? hooks.pre_apply_config
                                                                   : hooks.apply_exit;
      if (field.value->kind == NodeKind::kNull) continue;
      if (field.value->kind != NodeKind::kList) {
        maps_.wrong_type(*field.value, path_of("hooks", field.key), "a list of hooks");
        continue;
      }
      for (const size_t item : field.value->items)
        if (auto hook = read_hook(maps_.document().at(item))) point.push_back(std::move(*hook));
    }
  }

  std::optional<Hook> read_hook(const Node& node) {
    const auto fields = maps_.fields(node, {"a hook", kHookKeys, false});
    if (!fields) return std::nullopt;
    Hook hook;
    for (const auto& field : *fields) {
      const Node& value = *field.value;
      if (field.key == "command") hook.command = maps_.text(value, "command").value_or("");
      if (field.key == "workdir" && value.kind != NodeKind::kNull)
        hook.workdir = maps_.text(value, "workdir").value_or("");
      if (field.key == "args") read_args(value, hook);
      if (field.key == "envs") read_envs(value, hook);
    }
    if (hook.command.empty()) {
      maps_.problems().error(Mistake::kMissingKey, node.place, "a hook needs a command");
      return std::nullopt;
    }
    return hook;
  }

  void read_args(const Node& node, Hook& hook) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kList) {
      maps_.wrong_type(node, "args", "a list of texts");
      return;
    }
    for (const size_t item : node.items) {
      const Node& arg = maps_.document().at(item);
      if (arg.kind == NodeKind::kScalar)
        hook.args.push_back(arg.text);  // a number is an argument too
      else
        maps_.wrong_type(arg, "args", "a list of texts");
    }
  }

  void read_envs(const Node& node, Hook& hook) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kMap) {
      maps_.wrong_type(node, "envs", "a map of names and values");
      return;
    }
    for (const Entry& entry : node.entries) {
      const Node& value = maps_.document().value(entry);
      if (value.kind == NodeKind::kScalar)
        hook.envs[entry.key] = value.text;
      else
        maps_.wrong_type(value, path_of("envs", entry.key), "a text");
    }
  }

  const MapReader& maps_;
};

}  // namespace

MigPartedFile read_mig_parted(std::string_view text) {
  MigPartedFile file;
  const Document document = Document::parse(text, false, file.problems);
  if (file.problems.has_errors()) return file;
  const MapReader maps(document, kKnown, false, file.problems);
  MigReader(maps, file.config).read(document.root());
  return file;
}

HooksFile read_hooks(std::string_view text) {
  HooksFile file;
  const Document document = Document::parse(text, false, file.problems);
  if (file.problems.has_errors()) return file;
  const MapReader maps(document, kKnownHooks, false, file.problems);
  HookReader(maps).read(document.root(), file.hooks);
  return file;
}

}  // namespace gpuslice::config
