#include "config/sharing.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::config {
namespace {

constexpr std::string_view kTimeSlicingKeys[] = {"renameByDefault", "failRequestsGreaterThanOne",
                                                 "resources"};
constexpr std::string_view kEntryKeys[] = {"name", "rename", "devices", "replicas"};
constexpr std::string_view kDomain = "nvidia.com/";
constexpr std::string_view kDeviceForms =
    "all, a number of GPUs, or a list of GPU indices (0), MIG indices (0:1), GPU-<uuid>, "
    "MIG-<uuid> or MIG-GPU-<uuid>/<gi>/<ci>";
constexpr int64_t kMostReplicas = 1'000'000;  // far beyond what the kubelet's 4 MiB take

bool is_dns_subdomain(std::string_view text) {
  const auto alnum = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  if (text.empty()) return false;
  for (const std::string_view label : split(text, '.')) {
    if (label.empty() || !alnum(label.front()) || !alnum(label.back())) return false;
    if (!std::all_of(label.begin(), label.end(), [&](char c) { return alnum(c) || c == '-'; }))
      return false;
  }
  return true;
}

bool is_uuid(std::string_view text) {
  if (text.size() != 36) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const char c = text[i];
    const bool hex = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (dash ? c != '-' : !hex) return false;
  }
  return true;
}

std::optional<uint32_t> index_of(std::string_view text) {
  const auto value = parse_u64(text);
  if (!value || *value > 255) return std::nullopt;
  return static_cast<uint32_t>(*value);
}

class EntryReader {
 public:
  EntryReader(const MapReader& maps, std::string_view parent)
      : maps_(maps), path_(fmt::format("{}.resources", parent)) {}

  std::optional<SharedResource> read(const Node& node) {
    const auto fields = maps_.fields(node, {path_, kEntryKeys, false});
    if (!fields) return std::nullopt;
    SharedResource resource;
    resource.place = node.place;
    bool has_name = false;
    bool has_replicas = false;
    for (const auto& field : *fields) {
      if (field.key == "name") {
        has_name = true;
        resource.name = read_name(*field.value, "name");
      } else if (field.key == "rename") {
        read_rename(*field.value, resource);
      } else if (field.key == "devices") {
        read_devices(*field.value, resource.devices);
      } else {
        has_replicas = true;
        resource.replicas = read_replicas(*field.value);
      }
    }
    if (!has_name) missing(node, "name", "nvidia.com/gpu");
    if (!has_replicas) missing(node, "replicas", "4");
    return resource;
  }

 private:
  void missing(const Node& node, std::string_view key, std::string_view example) {
    maps_.problems().error(
        Mistake::kMissingKey, node.place,
        fmt::format("{}: an entry needs {}, such as {}: {}", path_, key, key, example));
  }

  std::string read_name(const Node& node, std::string_view key) {
    const auto text = maps_.text(node, path_of(path_, key));
    if (!text) return "";
    const auto name = resource_name(*text);
    if (name) return *name;
    maps_.problems().error(name.error().mistake, node.place,
                           fmt::format("{}.{}: {}", path_, key, name.error().message));
    return "";
  }

  void read_rename(const Node& node, SharedResource& resource) {
    if (node.kind == NodeKind::kNull || (node.kind == NodeKind::kScalar && node.text.empty()))
      return;
    const std::string name = read_name(node, "rename");
    if (name.empty()) return;
    if (maps_.tolerant()) {
      maps_.problems().warning(
          Mistake::kIgnored, node.place,
          fmt::format("{}.rename is ignored by NVIDIA's plugin, and so it is here: the GPUs are "
                      "offered as {}",
                      path_, resource.name.empty() ? "before" : resource.name));
      return;
    }
    resource.rename = name;
    maps_.problems().warning(
        Mistake::kDiffers, node.place,
        fmt::format(
            "rename is done as written: the shared devices are offered as {}; NVIDIA's plugin "
            "would ignore it, and pods that ask for the old name find only what is not shared",
            name));
  }

  uint32_t read_replicas(const Node& node) {
    const auto value = maps_.integer(node, path_of(path_, "replicas"));
    if (!value) return 0;
    if (*value >= 2 && *value <= kMostReplicas) return static_cast<uint32_t>(*value);
    if (*value == 1)
      maps_.problems().error(
          Mistake::kReplicas, node.place,
          fmt::format(
              "{}.replicas must be at least 2; for devices that are not shared leave the entry out",
              path_));
    else if (*value > kMostReplicas)
      maps_.problems().error(
          Mistake::kReplicas, node.place,
          fmt::format("{}.replicas is {}: the kubelet cannot take so many; at most {}", path_,
                      *value, kMostReplicas));
    else
      maps_.problems().error(Mistake::kReplicas, node.place,
                             fmt::format("{}.replicas must be at least 2, not {}", path_, *value));
    return 0;
  }

  void read_devices(const Node& node, DeviceSelection& devices) {
    DeviceSelection read;
    if (node.kind == NodeKind::kNull) return;
    if (node.kind == NodeKind::kList) {
      read.kind = DeviceSelection::Kind::kList;
      for (const size_t item : node.items) read_device(maps_.document().at(item), read);
      if (node.items.empty()) bad_device(node, "an empty list");
    } else if (node.kind == NodeKind::kMap) {
      bad_device(node, "a map");
    } else if (node.text == "all") {
      read.kind = DeviceSelection::Kind::kAll;
    } else if (const auto count = parse_u64(node.text);
               count && !node.quoted && *count >= 1 && *count <= 255) {
      read.kind = DeviceSelection::Kind::kCount;
      read.count = static_cast<uint32_t>(*count);
    } else {
      bad_device(node, "\"" + shown(node.text) + "\"");
    }
    if (maps_.tolerant()) {
      if (read.kind != DeviceSelection::Kind::kAll)
        maps_.problems().warning(Mistake::kIgnored, node.place,
                                 path_ +
                                     ".devices is ignored by NVIDIA's plugin, and so it is here: "
                                     "all devices are shared");
      return;
    }
    if (read.kind != DeviceSelection::Kind::kAll)
      maps_.problems().warning(Mistake::kDiffers, node.place,
                               "devices is done as written: only these are shared; NVIDIA's plugin "
                               "would ignore it and share all");
    devices = std::move(read);
  }

  void read_device(const Node& item, DeviceSelection& devices) {
    if (item.kind == NodeKind::kScalar) {
      if (auto ref = parse_device_ref(item.text)) {
        ref->place = item.place;
        const bool twice = std::any_of(devices.list.begin(), devices.list.end(),
                                       [&](const DeviceRef& r) { return r.text == ref->text; });
        if (twice)
          maps_.problems().error(Mistake::kBadDevice, item.place,
                                 fmt::format("{}.devices names {} twice", path_, shown(item.text)));
        else
          devices.list.push_back(std::move(*ref));
        return;
      }
      bad_device(item, "\"" + shown(item.text) + "\"");
      return;
    }
    bad_device(item, kind_name(item));
  }

  void bad_device(const Node& node, std::string_view what) {
    maps_.problems().error(
        Mistake::kBadDevice, node.place,
        fmt::format("{}.devices cannot be {}: it is {}", path_, what, kDeviceForms));
  }

  const MapReader& maps_;
  std::string path_;
};

// Two entries may name the same resource only when both say which devices they mean, and mean
// different ones.
bool may_stand_together(const SharedResource& a, const SharedResource& b) {
  if (a.devices.kind != DeviceSelection::Kind::kList ||
      b.devices.kind != DeviceSelection::Kind::kList)
    return false;
  return std::none_of(a.devices.list.begin(), a.devices.list.end(), [&](const DeviceRef& x) {
    return std::any_of(b.devices.list.begin(), b.devices.list.end(),
                       [&](const DeviceRef& y) { return x.text == y.text; });
  });
}

void check_same_resource(const MapReader& maps, TimeSlicing& sharing, std::string_view path) {
  for (size_t i = 1; i < sharing.resources.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      SharedResource& later = sharing.resources[i];
      SharedResource& earlier = sharing.resources[j];
      if (later.name.empty() || later.name != earlier.name || may_stand_together(earlier, later))
        continue;
      const std::string message = fmt::format(
          "{}.resources names {} twice (line {} already), so it is open how many replicas it gets",
          path, later.name, earlier.place.line);
      if (!maps.tolerant()) {
        maps.problems().error(Mistake::kSameResource, later.place, message);
        break;
      }
      maps.problems().warning(Mistake::kIgnored, later.place,
                              message + "; as in NVIDIA's plugin the larger number counts");
      earlier.replicas = std::max(earlier.replicas, later.replicas);
      sharing.resources.erase(sharing.resources.begin() + static_cast<std::ptrdiff_t>(i));
      --i;
      break;
    }
  }
}

void rename_by_default(const MapReader& maps, TimeSlicing& sharing, std::string_view path) {
  if (!sharing.rename_by_default) return;
  for (SharedResource& resource : sharing.resources) {
    if (!resource.rename.empty() || resource.name.empty()) continue;
    resource.rename = resource.name + ".shared";
    if (resource.rename.size() > kMaxResourceName && !maps.tolerant())
      maps.problems().error(
          Mistake::kNameTooLong, resource.place,
          fmt::format("{}.renameByDefault makes {}, which has {} characters; Kubernetes takes {}; "
                      "give it a shorter rename",
                      path, resource.rename, resource.rename.size(), kMaxResourceName));
  }
}

}  // namespace

std::span<const std::string_view> time_slicing_keys() { return kTimeSlicingKeys; }

std::expected<std::string, NameFault> resource_name(std::string_view name) {
  if (name.empty())
    return std::unexpected(
        NameFault{Mistake::kBadName, "the name is empty; GPUs are called nvidia.com/gpu"});
  const size_t slash = name.find('/');
  std::string full(name);
  if (slash == std::string_view::npos) full = std::string(kDomain) + full;
  if (!std::string_view(full).starts_with(kDomain))
    return std::unexpected(NameFault{
        Mistake::kBadName,
        fmt::format("\"{}\" is not of the domain nvidia.com; GPUs are called nvidia.com/gpu",
                    shown(name))});
  const std::string_view tail = std::string_view(full).substr(kDomain.size());
  if (!is_dns_subdomain(tail))
    return std::unexpected(NameFault{
        Mistake::kBadName,
        fmt::format("\"{}\" is no name that Kubernetes takes: after nvidia.com/ come lower-case "
                    "letters, digits, - and ., with a letter or digit at both ends",
                    shown(name))});
  if (full.size() > kMaxResourceName)
    return std::unexpected(NameFault{Mistake::kNameTooLong,
                                     fmt::format("\"{}\" has {} characters; Kubernetes takes {}",
                                                 shown(full), full.size(), kMaxResourceName)});
  return full;
}

std::optional<DeviceRef> parse_device_ref(std::string_view text) {
  DeviceRef ref;
  ref.text = std::string(text);
  if (const auto index = index_of(text)) {
    ref.gpu = *index;
    return ref;
  }
  if (text.starts_with("GPU-") && is_uuid(text.substr(4))) {
    ref.kind = DeviceRef::Kind::kGpuUuid;
    return ref;
  }
  if (text.starts_with("MIG-GPU-") && text.size() > 44 && text[44] == '/' &&
      is_uuid(text.substr(8, 36))) {
    const auto parts = split(text.substr(45), '/');
    if (parts.size() != 2 || !index_of(parts[0]) || !index_of(parts[1])) return std::nullopt;
    ref.kind = DeviceRef::Kind::kMigUuid;
    return ref;
  }
  if (text.starts_with("MIG-") && is_uuid(text.substr(4))) {
    ref.kind = DeviceRef::Kind::kMigUuid;
    return ref;
  }
  const auto parts = split(text, ':');
  if (parts.size() == 2 && index_of(parts[0]) && index_of(parts[1])) {
    ref.kind = DeviceRef::Kind::kMigIndex;
    ref.gpu = *index_of(parts[0]);
    ref.mig = *index_of(parts[1]);
    return ref;
  }
  return std::nullopt;
}

std::optional<TimeSlicing> read_time_slicing(const MapReader& maps,
                                             const MapReader::Field& field_of,
                                             std::string_view path) {
  const Node& node = *field_of.value;
  const Place place = field_of.place;
  const size_t errors_before = maps.problems().errors();
  TimeSlicing sharing;
  const Node* resources = nullptr;
  bool replicas_above = false;
  if (node.kind == NodeKind::kMap) {
    // `timeSlicing: {replicas: 8}`: said below, with the block that was meant.
    for (const Entry& entry : node.entries)
      replicas_above = replicas_above || entry.key == "replicas";
  }
  std::vector<std::string_view> keys(std::begin(kTimeSlicingKeys), std::end(kTimeSlicingKeys));
  if (replicas_above) keys.emplace_back("replicas");
  const auto fields = maps.fields(node, {path, keys, false});
  if (!fields) return std::nullopt;
  for (const auto& field : *fields) {
    if (field.key == "renameByDefault" && field.value->kind != NodeKind::kNull)
      sharing.rename_by_default =
          maps.boolean(*field.value, path_of(path, field.key)).value_or(false);
    if (field.key == "failRequestsGreaterThanOne" && field.value->kind != NodeKind::kNull)
      sharing.fail_requests_greater_than_one =
          maps.boolean(*field.value, path_of(path, field.key)).value_or(false);
    if (field.key == "resources") resources = field.value;
    if (field.key == "replicas")
      maps.problems().error(Mistake::kMisplacedKey, field.place,
                            fmt::format("replicas does not belong under {}: write  resources: "
                                        "[{{name: nvidia.com/gpu, replicas: {}}}]",
                                        path, shown(field.value->text)));
  }
  if (resources != nullptr && resources->kind != NodeKind::kList &&
      resources->kind != NodeKind::kNull) {
    maps.wrong_type(*resources, path_of(path, "resources"),
                    "a list of entries such as {name: nvidia.com/gpu, replicas: 4}");
  } else if (resources == nullptr || resources->items.empty()) {
    if (!replicas_above)
      maps.problems().error(
          Mistake::kNoResources, place,
          fmt::format("{} needs resources, such as  resources: [{{name: nvidia.com/gpu, replicas: "
                      "4}}]; to share nothing leave sharing out",
                      path));
  } else {
    EntryReader entries(maps, path);
    for (const size_t item : resources->items)
      if (auto resource = entries.read(maps.document().at(item)))
        sharing.resources.push_back(std::move(*resource));
  }
  check_same_resource(maps, sharing, path);
  rename_by_default(maps, sharing, path);
  if (maps.problems().errors() > errors_before) return std::nullopt;
  return sharing;
}

}  // namespace gpuslice::config
