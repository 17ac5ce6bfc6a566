#include "config/device_plugin.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "config/reader.h"
#include "config/sharing.h"

namespace gpuslice::config {
namespace {

using Keys = std::span<const std::string_view>;

constexpr std::string_view kTopKeys[] = {"version", "flags", "resources", "sharing", "imex"};
constexpr std::string_view kSharingKeys[] = {"timeSlicing", "mps"};
constexpr std::string_view kResourcesKeys[] = {"gpus", "mig"};
constexpr std::string_view kPatternKeys[] = {"pattern", "name"};
constexpr std::string_view kImexKeys[] = {"channelIDs", "required"};

// The keys of `flags`, `flags.plugin` and `flags.gfd`.
std::vector<std::string_view> flag_keys(std::string_view section) {
  std::vector<std::string_view> keys;
  for (const FlagRow& row : flag_rows())
    if (row.section == section) keys.push_back(row.key);
  if (section.empty()) keys.insert(keys.end(), {"plugin", "gfd"});
  return keys;
}

std::string flag_parent(std::string_view section) {
  return section.empty() ? "flags" : fmt::format("flags.{}", section);
}

// Every key and where it belongs; built once for each reading.
std::vector<KnownKey> known_keys() {
  std::vector<KnownKey> out;
  for (const auto key : kTopKeys) out.push_back({key, ""});
  for (const auto key : kSharingKeys) out.push_back({key, "sharing"});
  for (const auto key : time_slicing_keys()) out.push_back({key, "sharing.timeSlicing"});
  for (const FlagRow& row : flag_rows()) {
    if (row.section == "-") continue;
    out.push_back({row.key, row.section.empty()       ? "flags"
                            : row.section == "plugin" ? "flags.plugin"
                                                      : "flags.gfd"});
  }
  out.push_back({"plugin", "flags"});
  out.push_back({"gfd", "flags"});
  out.push_back({"channelIDs", "imex"});
  return out;
}

class DevicePluginReader {
 public:
  DevicePluginReader(const MapReader& maps, DevicePluginConfig& config)
      : maps_(maps), config_(config) {}

  void read(const Node& root) {
    if (is_another_file(root)) return;
    const auto fields = maps_.fields(root, {"", kTopKeys, true});
    if (!fields) return;
    for (const auto& field : *fields) {
      if (field.key == "version") read_version(*field.value);
      if (field.key == "flags") read_flags(*field.value, "");
      if (field.key == "resources") read_patterns(*field.value);
      if (field.key == "sharing") read_sharing(*field.value);
      if (field.key == "imex") read_imex(*field.value);
    }
  }

 private:
  // A manifest, or a MIG configuration, given where this file belongs.
  bool is_another_file(const Node& root) {
    const Document& document = maps_.document();
    const Node* kind = document.find(root, "kind");
    if (kind != nullptr && document.find(root, "apiVersion") != nullptr) {
      std::string keys;
      if (const Node* data = document.find(root, "data"); data != nullptr)
        for (const Entry& entry : data->entries)
          keys += fmt::format("{}data.{}", keys.empty() ? "" : ", ", shown(entry.key));
      maps_.ignorable(
          Mistake::kManifest, root.place,
          fmt::format("this is a Kubernetes manifest ({}); the configuration is the text under {}",
                      shown(kind->text), keys.empty() ? "data.<key>" : keys));
      return true;
    }
    for (const Entry& entry : root.entries) {
      if (to_lower(entry.key) != "mig-configs") continue;
      maps_.ignorable(Mistake::kMigConfiguration, entry.place,
                      "this is a MIG configuration (mig-parted's format), not one of the device "
                      "plugin; give it with --mig-config");
      return true;
    }
    return false;
  }

  void read_version(const Node& node) {
    if (node.kind == NodeKind::kNull) return;
    const auto version = maps_.text(node, "version");
    if (version && *version != "v1")
      maps_.problems().error(
          Mistake::kUnknownVersion, node.place,
          fmt::format("unknown version \"{}\": the only version is v1", shown(*version)));
  }

  void read_flags(const Node& node, std::string_view section) {
    const std::vector<std::string_view> keys = flag_keys(section);
    const std::string parent = flag_parent(section);
    const auto fields = maps_.fields(node, {parent, keys, true});
    if (!fields) return;
    for (const auto& field : *fields) {
      if (const FlagRow* row = flag_by_key(section, field.key))
        read_flag(*row, *field.value, path_of(parent, field.key));
      else
        read_flags(*field.value, field.key);
    }
  }

  void read_flag(const FlagRow& row, const Node& node, const std::string& path) {
    if (node.kind == NodeKind::kNull) return;  // `mpsRoot:` with nothing is not set
    const auto value = scalar_of(row, node, path);
    if (!value) return;
    const auto good = canonical(row, *value);
    if (!good) {
      maps_.problems().error(Mistake::kBadValue, node.place,
                             fmt::format("{} {}", path, good.error()));
      return;
    }
    config_.flags[row.flag] = *good;
    config_.flag_places[row.flag] = node.place;
  }

  std::optional<std::string> scalar_of(const FlagRow& row, const Node& node,
                                       const std::string& path) {
    if (row.type == FlagType::kBool) {
      const auto value = maps_.boolean(node, path);
      if (!value) return std::nullopt;
      return *value ? "true" : "false";
    }
    if (row.type == FlagType::kChoices && node.kind == NodeKind::kList) {
      std::vector<std::string> parts;
      for (const size_t item : node.items) {
        const auto part = maps_.text(maps_.document().at(item), path);
        if (!part) return std::nullopt;
        parts.push_back(*part);
      }
      if (parts.empty()) {
        maps_.problems().error(Mistake::kBadValue, node.place, path + " must not be empty");
        return std::nullopt;
      }
      return join(parts, ",");
    }
    if (row.type == FlagType::kDuration && node.kind == NodeKind::kScalar && !node.quoted &&
        parse_u64(node.text))
      return node.text;
    return maps_.text(node, path);
  }

  // NVIDIA's plugin checks these and then fills them itself, with a warning.
  void read_patterns(const Node& node) {
    const auto fields = maps_.fields(node, {"resources", kResourcesKeys, true});
    if (!fields) return;
    for (const auto& field : *fields) {
      const std::string path = path_of("resources", field.key);
      if (field.value->kind == NodeKind::kNull) continue;
      if (field.value->kind != NodeKind::kList) {
        maps_.wrong_type(*field.value, path, "a list");
        continue;
      }
      for (const size_t item : field.value->items) read_pattern(maps_.document().at(item), path);
      if (!field.value->items.empty())
        maps_.problems().warning(
            Mistake::kIgnored, field.place,
            fmt::format("{} is not supported, as in NVIDIA's plugin: the names come from the "
                        "devices; use sharing.timeSlicing.resources[].rename",
                        path));
    }
  }

  void read_pattern(const Node& node, const std::string& path) {
    const auto fields = maps_.fields(node, {path, kPatternKeys, false});
    if (!fields) return;
    for (const std::string_view key : kPatternKeys) {
      const auto it =
          std::find_if(fields->begin(), fields->end(), [&](const auto& f) { return f.key == key; });
      if (it == fields->end())
        maps_.problems().error(
            Mistake::kMissingKey, node.place,
            fmt::format("{}: an entry needs pattern and name; {} is missing", path, key));
      else
        (void)maps_.text(*it->value, path_of(path, key));
    }
  }

  void read_sharing(const Node& node) {
    const auto fields = maps_.fields(node, {"sharing", kSharingKeys, true});
    if (!fields) return;
    const MapReader::Field* mps = nullptr;
    const MapReader::Field* time_slicing = nullptr;
    for (const auto& field : *fields) (field.key == "mps" ? mps : time_slicing) = &field;
    if (mps != nullptr && mps->value->kind == NodeKind::kNull)
      mps = nullptr;  // NVIDIA's reader ignores `mps:`
    if (mps != nullptr) {
      if (time_slicing != nullptr)
        maps_.problems().error(
            Mistake::kBothSharings, mps->place,
            "sharing has both timeSlicing and mps: a GPU is shared in one way; keep one of them");
      // Its inside is read all the same, so that all mistakes are told at once.
      (void)read_time_slicing(maps_, *mps, "sharing.mps");
      maps_.problems().error(Mistake::kMps, mps->place,
                             "sharing.mps: sharing by MPS is not there yet; use "
                             "sharing.timeSlicing, which takes the same entries");
    }
    if (time_slicing != nullptr)
      config_.time_slicing = read_time_slicing(maps_, *time_slicing, "sharing.timeSlicing");
  }

  void read_imex(const Node& node) {
    const auto fields = maps_.fields(node, {"imex", kImexKeys, true});
    if (!fields) return;
    for (const auto& field : *fields) {
      if (field.key == "required") {
        config_.imex.required = maps_.boolean(*field.value, "imex.required").value_or(false);
        continue;
      }
      if (field.value->kind == NodeKind::kNull) continue;
      if (field.value->kind != NodeKind::kList) {
        maps_.wrong_type(*field.value, "imex.channelIDs", "a list");
        continue;
      }
      for (const size_t item : field.value->items) {
        const auto id = maps_.integer(maps_.document().at(item), "imex.channelIDs");
        if (!id) continue;
        if (*id != 0 || !config_.imex.channel_ids.empty())
          maps_.problems().error(Mistake::kBadValue, maps_.document().at(item).place,
                                 "imex.channelIDs must be [] or [0]");
        else
          config_.imex.channel_ids.push_back(0);
      }
    }
  }

  const MapReader& maps_;
  DevicePluginConfig& config_;
};

}  // namespace

DevicePluginFile read_device_plugin(std::string_view text, Compat compat) {
  DevicePluginFile file;
  const bool tolerant = compat == Compat::kNvidia;
  const Document document = Document::parse(text, tolerant, file.problems);
  if (file.problems.has_errors()) return file;
  const std::vector<KnownKey> known = known_keys();
  const MapReader maps(document, known, tolerant, file.problems);
  DevicePluginReader(maps, file.config).read(document.root());
  return file;
}

}  // namespace gpuslice::config
