#include "config/other_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace gpuslice::config {
namespace {

constexpr std::string_view kPluginKeys[] = {"sharing", "flags", "imex"};

struct Words {
  std::string_view own_key;  // its top key
  std::string_view name;
  std::string_view option;
};
constexpr std::array<Words, 2> kWords = {
    Words{"mig-configs", "a MIG configuration", "--mig-config"},
    Words{"hooks", "a hooks file", "--hooks-file"}};
const Words& words(FileKind kind) { return kWords[static_cast<size_t>(kind)]; }

bool is_manifest(const MapReader& maps, const Node& root) {
  const Document& document = maps.document();
  const Node* kind = document.find(root, "kind");
  if (kind == nullptr || document.find(root, "apiVersion") == nullptr) return false;
  std::string keys;
  const Node* data = document.find(root, "data");
  if (data != nullptr)
    for (const Entry& entry : data->entries)
      keys += fmt::format("{}data.{}", keys.empty() ? "" : ", ", shown(entry.key));
  maps.problems().error(
      Mistake::kManifest, root.place,
      fmt::format("this is a Kubernetes manifest ({}); the configuration is the text under {}",
                  shown(kind->text), keys.empty() ? "data.<key>" : keys));
  if (data == nullptr) return true;
  for (const Entry& entry : data->entries) {
    const NodeKind value = document.value(entry).kind;
    if (value == NodeKind::kMap || value == NodeKind::kList)
      maps.problems().error(
          Mistake::kManifest, entry.place,
          fmt::format("data.{} is {}, and Kubernetes takes only a text there: write  {}: |",
                      shown(entry.key), kind_name(document.value(entry)), shown(entry.key)));
  }
  return true;
}

// The inside of a ConfigMap's data: `config.yaml: |` and the configuration below it.
bool is_piece_of_manifest(const MapReader& maps, const Node& root, const Words& wanted) {
  const Document& document = maps.document();
  for (const Entry& entry : root.entries) {
    const Node& value = document.value(entry);
    const bool inside = value.kind == NodeKind::kMap
                            ? document.find(value, "version") != nullptr &&
                                  document.find(value, wanted.own_key) != nullptr
                            : value.quoted && value.text.find(fmt::format("{}:", wanted.own_key)) !=
                                                  std::string::npos;
    if (!inside) continue;
    maps.problems().error(
        Mistake::kManifest, entry.place,
        fmt::format("the configuration is what stands under {}; give it alone", shown(entry.key)));
    return true;
  }
  return false;
}

}  // namespace

bool is_other_file(const MapReader& maps, const Node& root, FileKind wanted) {
  if (root.kind != NodeKind::kMap) return false;
  const Words& own = words(wanted);
  if (maps.document().find(root, own.own_key) != nullptr) return false;
  if (is_manifest(maps, root) || is_piece_of_manifest(maps, root, own)) return true;
  const FileKind other = wanted == FileKind::kMig ? FileKind::kHooks : FileKind::kMig;
  for (const Entry& entry : root.entries) {
    if (entry.key == words(other).own_key) {
      maps.problems().error(
          other == FileKind::kMig ? Mistake::kMigConfiguration : Mistake::kOtherFile, entry.place,
          fmt::format("this is {}, not {}; give it with {}", words(other).name, own.name,
                      words(other).option));
      return true;
    }
    const std::string key = to_lower(entry.key);
    if (std::find(std::begin(kPluginKeys), std::end(kPluginKeys), key) == std::end(kPluginKeys))
      continue;
    maps.problems().error(
        Mistake::kOtherFile, entry.place,
        fmt::format(
            "this is a configuration of the device plugin ({}), not {}; give it with --config", key,
            own.name));
    return true;
  }
  return false;
}

}  // namespace gpuslice::config
