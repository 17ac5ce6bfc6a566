#include "config/mig_parted.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <span>

#include "base/text.h"
#include "config/document.h"
#include "config/gpu_selector.h"
#include "config/open_map.h"
#include "config/other_file.h"
#include "config/reader.h"

namespace gpuslice::config {
namespace {

using Keys = std::span<const std::string_view>;

constexpr std::string_view kTopKeys[] = {"version", "mig-configs"};
constexpr std::string_view kEntryKeys[] = {"device-filter", "devices", "mig-enabled",
                                           "mig-devices"};
constexpr std::string_view kPlacedKeys[] = {"count", "placements"};
constexpr std::string_view kEntryPath = "mig-configs.<label>[]";
constexpr KnownKey kKnown[] = {
    {"version", ""},         {"mig-configs", ""},         {"device-filter", kEntryPath},
    {"devices", kEntryPath}, {"mig-enabled", kEntryPath}, {"mig-devices", kEntryPath}};
constexpr std::string_view kFrame =
    "version: v1, then mig-configs:, then the labels, each a list of entries";
constexpr size_t kLongestLabelValue = 63;  // of a Kubernetes label

bool is_label_value(std::string_view text) {
  const auto alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  if (text.empty() || text.size() > kLongestLabelValue || !alnum(text.front()) ||
      !alnum(text.back()))
    return false;
  return std::all_of(text.begin(), text.end(),
                     [&](char c) { return alnum(c) || c == '-' || c == '_' || c == '.'; });
}

bool is_one_of(std::string_view key, Keys keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

// Whether a key of `map` that is none of `keys` is `missing`, misspelt: that was said already.
bool is_misspelt(const Node& map, std::string_view missing, Keys keys) {
  return std::any_of(map.entries.begin(), map.entries.end(), [&](const Entry& entry) {
    return !is_one_of(entry.key, keys) && nearest(entry.key, keys) == missing;
  });
}

class MigReader {
 public:
  MigReader(const MapReader& maps, MigPartedConfig& config) : maps_(maps), config_(config) {}

  void read(const Node& root) {
    if (is_other_file(maps_, root, FileKind::kMig) || is_without_frame(root)) return;
    const auto fields = maps_.fields(root, {"", kTopKeys, false});
    if (!fields) return;
    bool version = is_misspelt(root, "version", kTopKeys);
    bool configs = is_misspelt(root, "mig-configs", kTopKeys);
    for (const auto& field : *fields) {
      if (field.key == "version") {
        version = true;
        const auto text = maps_.text(*field.value, "version");
        if (text && *text != "v1")
          error(Mistake::kUnknownVersion, field.value->place,
                fmt::format("unknown version \"{}\": the only version is v1", shown(*text)));
      } else {
        configs = true;
        read_labels(field);
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

  bool is_entry_list(const Node& node) const {
    if (node.kind != NodeKind::kList || node.items.empty()) return false;
    const Node& first = maps_.document().at(node.items[0]);
    return std::any_of(first.entries.begin(), first.entries.end(),
                       [](const Entry& entry) { return is_one_of(entry.key, kEntryKeys); });
  }

  // Labels, or the entries of one, without what belongs around them.
  bool is_without_frame(const Node& root) {
    if (is_entry_list(root)) {
      error(Mistake::kMissingKey, root.place,
            fmt::format("these are the entries of a label, and the frame around them is missing: "
                        "{}",
                        kFrame));
      return true;
    }
    if (maps_.document().find(root, "mig-configs") != nullptr) return false;
    for (const Entry& entry : root.entries) {
      if (!is_entry_list(maps_.document().value(entry))) continue;
      error(Mistake::kMissingKey, entry.place,
            fmt::format("\"{}\" looks like a label, and the frame around it is missing: {}",
                        shown(entry.key), kFrame));
      return true;
    }
    return false;
  }

  void read_labels(const MapReader::Field& field) {
    const Node& node = *field.value;
    if (node.kind == NodeKind::kScalar || node.kind == NodeKind::kList) {
      maps_.wrong_type(node, "mig-configs", "a map of labels, each a list of entries");
      return;
    }
    if (node.entries.empty()) {
      error(Mistake::kMissingKey, node.kind == NodeKind::kNull ? field.place : node.place,
            "mig-configs needs at least one label with a list of entries");
      return;
    }
    for (const Entry* entry : open_entries(maps_, node, "the label ")) {
      if (is_one_of(entry->key, kEntryKeys) && !is_entry_list(maps_.document().value(*entry))) {
        error(Mistake::kMisplacedKey, entry->place,
              fmt::format("{} stands where a label belongs: write  mig-configs: {{<label>: "
                          "[{{devices: all, mig-enabled: …}}]}}",
                          entry->key));
        continue;
      }
      read_label(*entry);
    }
  }

  void read_label(const Entry& entry) {
    if (!is_label_value(entry.key))
      warning(Mistake::kBadName, entry.place,
              fmt::format("\"{}\" cannot be the value of a node label, so nvidia.com/mig.config "
                          "can never choose it (at most {} letters, digits, '-', '_', '.')",
                          shown(entry.key), kLongestLabelValue));
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
    const auto fields = maps_.fields(node, {kEntryPath, kEntryKeys, false});
    if (!fields) return std::nullopt;
    MigEntry entry;
    entry.place = node.place;
    bool devices = is_misspelt(node, "devices", kEntryKeys);
    bool enabled = is_misspelt(node, "mig-enabled", kEntryKeys);
    std::optional<bool> mode;
    const MapReader::Field* mig_devices = nullptr;
    for (const auto& field : *fields) {
      if (field.key == "devices") {
        devices = true;
        read_devices(field, entry);
      } else if (field.key == "device-filter") {
        read_filters(*field.value, entry);
      } else if (field.key == "mig-enabled") {
        enabled = true;
        mode = read_enabled(*field.value);
      } else {
        mig_devices = &field;
      }
    }
    if (!devices)
      error(Mistake::kMissingKey, node.place,
            fmt::format("{}: an entry needs devices: {}", path, kGpuForms));
    if (!enabled)
      error(Mistake::kMissingKey, node.place,
            fmt::format("{}: an entry needs mig-enabled: true or false", path));
    entry.mig_enabled = mode.value_or(false);
    if (mig_devices != nullptr) read_profiles(*mig_devices->value, entry);
    check_mode(mode, mig_devices, node, path, entry);
    return entry;
  }

  void check_mode(std::optional<bool> mode, const MapReader::Field* mig_devices, const Node& node,
                  const std::string& path, const MigEntry& entry) {
    if (!mode) return;
    if (!*mode && !entry.profiles.empty())
      error(Mistake::kBadValue, mig_devices->place,
            "mig-devices are wanted and mig-enabled is false: set mig-enabled: true, or leave "
            "mig-devices out");
    const bool nothing = mig_devices == nullptr || mig_devices->value->kind == NodeKind::kNull;
    if (*mode && nothing && !is_misspelt(node, "mig-devices", kEntryKeys))
      error(Mistake::kMissingKey, mig_devices == nullptr ? node.place : mig_devices->place,
            fmt::format("{}: with mig-enabled: true an entry needs mig-devices, such as {{1g.5gb: "
                        "7}}, or {{}} for MIG without instances",
                        path));
  }

  // YAML 1.1's other words for true and false work in mig-parted, so they work here.
  std::optional<bool> read_enabled(const Node& node) {
    const std::string word =
        node.kind == NodeKind::kScalar && !node.quoted ? to_lower(node.text) : "";
    const bool yes = word == "yes" || word == "on" || word == "y" || word == "true";
    const bool no = word == "no" || word == "off" || word == "n" || word == "false";
    if (!yes && !no) return maps_.boolean(node, "mig-enabled");
    if (node.text != "true" && node.text != "false")
      warning(
          Mistake::kSpelling, node.place,
          fmt::format("mig-enabled: {} is usually written {}", node.text, yes ? "true" : "false"));
    return yes;
  }

  // One GPU of `devices`; nothing, and a problem, if it is none.
  std::optional<GpuRef> read_gpu(const Node& node) {
    auto ref = parse_gpu_ref(node);
    if (!ref) {
      error(Mistake::kBadDevice, node.place, ref.error());
      return std::nullopt;
    }
    ref->place = node.place;
    return std::move(*ref);
  }

  void read_devices(const MapReader::Field& field, MigEntry& entry) {
    const Node& node = *field.value;
    if (node.kind == NodeKind::kScalar && node.text == "all") {
      entry.all_gpus = true;
      return;
    }
    if (node.kind != NodeKind::kList) {
      if (auto ref = read_gpu(node)) entry.gpus.push_back(std::move(*ref));
      return;
    }
    if (node.items.empty())
      error(Mistake::kBadDevice, field.place,
            fmt::format("devices is an empty list: an entry that is for no GPU; write {}",
                        kGpuForms));
    std::set<std::string> seen;
    for (const size_t item : node.items) {
      auto ref = read_gpu(maps_.document().at(item));
      if (!ref) continue;
      const std::string name =
          ref->kind == GpuRef::Kind::kIndex ? std::to_string(ref->index) : ref->text;
      if (seen.insert(name).second)
        entry.gpus.push_back(std::move(*ref));
      else
        warning(Mistake::kSameDevice, ref->place, fmt::format("devices names {} twice", name));
    }
  }

  void read_filters(const Node& node, MigEntry& entry) {
    if (node.kind == NodeKind::kNull || (node.kind == NodeKind::kScalar && node.text.empty()))
      return;  // no filter, as in mig-parted
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
    auto filter = parse_device_filter(node.text);
    if (!filter) {
      error(Mistake::kBadFilter, node.place, "device-filter: " + filter.error());
      return;
    }
    filter->place = node.place;
    entry.filters.push_back(std::move(*filter));
  }

  void read_profiles(const Node& node, MigEntry& entry) {
    if (node.kind == NodeKind::kNull) return;
    if (node.kind != NodeKind::kMap) {
      maps_.wrong_type(node, "mig-devices", "a map of profiles and counts, such as {1g.5gb: 7}");
      return;
    }
    std::map<std::string, Place> seen;  // "1g.5gb", "1c.1g.5gb" and "MIG 1g.5gb" are one
    for (const Entry* one : open_entries(maps_, node, "mig-devices: ")) {
      const auto name = read_name(*one);
      if (!name) continue;
      if (const auto [it, fresh] = seen.emplace(name->text(), one->place); !fresh) {
        error(Mistake::kSameProfile, one->place,
              fmt::format("mig-devices: {} is {}, which stands in line {} already", shown(one->key),
                          name->text(), it->second.line));
        continue;
      }
      WantedProfile wanted;
      wanted.name = *name;
      wanted.text = one->key;
      wanted.place = one->place;
      if (read_count(maps_.document().value(*one), wanted))
        entry.profiles.push_back(std::move(wanted));
    }
  }

  std::optional<gpu::ProfileName> read_name(const Entry& one) {
    auto name = gpu::parse_profile_name(one.key);
    if (name) return std::move(*name);
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
    return std::nullopt;
  }

  std::optional<uint32_t> read_number(const Node& node, const std::string& path) {
    const auto count = maps_.integer(node, path);
    if (!count) return std::nullopt;
    if (*count >= 1 && *count <= kMostInstances) return static_cast<uint32_t>(*count);
    error(Mistake::kBadCount, node.place,
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
      error(Mistake::kBadPlacement, node.place,
            fmt::format("{}: {} placements, and count is {}", path, wanted.starts.size(), *count));
      return false;
    }
    wanted.count = count.value_or(static_cast<uint32_t>(wanted.starts.size()));
    return true;
  }

  bool read_starts(const Node& list, const std::string& path, WantedProfile& wanted) {
    if (list.items.empty()) {
      error(Mistake::kBadPlacement, list.place,
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
        error(Mistake::kBadPlacement, node.place,
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

}  // namespace

MigPartedFile read_mig_parted(std::string_view text) {
  MigPartedFile file;
  const Document document = Document::parse(text, false, file.problems);
  if (file.problems.has_errors()) return file;
  const MapReader maps(document, kKnown, false, file.problems);
  MigReader(maps, file.config).read(document.root());
  return file;
}

}  // namespace gpuslice::config
