#include "config/hooks_file.h"

#include <fmt/format.h>

#include <optional>

#include "config/document.h"
#include "config/open_map.h"
#include "config/other_file.h"
#include "config/reader.h"

namespace gpuslice::config {
namespace {

constexpr std::string_view kTopKeys[] = {"version", "hooks"};
constexpr std::string_view kPoints[] = {"apply-start", "pre-apply-mode", "pre-apply-config",
                                        "apply-exit"};
constexpr std::string_view kHookKeys[] = {"command", "args", "envs", "workdir"};
constexpr std::string_view kHookPath = "hooks.<point>[]";
constexpr KnownKey kKnown[] = {{"version", ""},
                               {"hooks", ""},
                               {"apply-start", "hooks"},
                               {"pre-apply-mode", "hooks"},
                               {"pre-apply-config", "hooks"},
                               {"apply-exit", "hooks"},
                               {"command", kHookPath},
                               {"args", kHookPath},
                               {"envs", kHookPath},
                               {"workdir", kHookPath}};

class HookReader {
 public:
  HookReader(const MapReader& maps, Hooks& hooks) : maps_(maps), hooks_(hooks) {}

  void read(const Node& root) {
    if (is_other_file(maps_, root, FileKind::kHooks)) return;
    const auto fields = maps_.fields(root, {"", kTopKeys, false});
    if (!fields) return;
    bool version = false;
    for (const auto& field : *fields) {
      if (field.key == "hooks") {
        read_points(*field.value);
        continue;
      }
      version = true;
      const auto text = maps_.text(*field.value, "version");
      if (text && *text != "v1")
        error(Mistake::kUnknownVersion, field.value->place,
              fmt::format("unknown version \"{}\": the only version is v1", shown(*text)));
    }
    if (!version) error(Mistake::kMissingKey, root.place, "version is missing; write: version: v1");
  }

 private:
  void error(Mistake mistake, Place place, std::string message) {
    maps_.problems().error(mistake, place, std::move(message));
  }

  std::vector<Hook>& point(std::string_view key) {
    if (key == "apply-start") return hooks_.apply_start;
    if (key == "pre-apply-mode") return hooks_.pre_apply_mode;
    return key == "pre-apply-config" ? hooks_.pre_apply_config : hooks_.apply_exit;
  }

  void read_points(const Node& node) {
    const auto fields = maps_.fields(node, {"hooks", kPoints, false});
    if (!fields) return;
    for (const auto& field : *fields) {
      if (field.value->kind == NodeKind::kNull) continue;
      if (field.value->kind != NodeKind::kList) {
        maps_.wrong_type(*field.value, path_of("hooks", field.key),
                         "a list of hooks, such as [{command: /bin/true}]");
        continue;
      }
      for (const size_t item : field.value->items)
        if (auto hook = read_hook(maps_.document().at(item)))
          point(field.key).push_back(std::move(*hook));
    }
  }

  std::optional<Hook> read_hook(const Node& node) {
    if (node.kind != NodeKind::kMap) {
      maps_.wrong_type(node, kHookPath, "a map such as {command: /bin/true, args: []}");
      return std::nullopt;
    }
    const auto fields = maps_.fields(node, {kHookPath, kHookKeys, false});
    if (!fields) return std::nullopt;
    Hook hook;
    hook.place = node.place;
    bool command = false;
    for (const auto& field : *fields) {
      if (field.key == "command") {
        command = true;
        read_command(*field.value, hook);
      } else if (field.key == "workdir") {
        if (field.value->kind != NodeKind::kNull)
          hook.workdir = maps_.text(*field.value, "workdir").value_or("");
      } else if (field.key == "args") {
        read_args(*field.value, hook);
      } else {
        read_envs(*field.value, hook);
      }
    }
    if (!command) error(Mistake::kMissingKey, node.place, "a hook needs a command");
    return hook;
  }

  void read_command(const Node& node, Hook& hook) {
    const auto text = maps_.text(node, "command");
    if (text && text->empty()) error(Mistake::kBadValue, node.place, "command must not be empty");
    hook.command = text.value_or("");
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
    for (const Entry* entry : open_entries(maps_, node, "envs.")) {
      const Node& value = maps_.document().value(*entry);
      if (entry->key.empty() || entry->key.find('=') != std::string::npos)
        error(Mistake::kBadName, entry->place,
              fmt::format("envs: \"{}\" cannot be the name of an environment variable",
                          shown(entry->key)));
      else if (value.kind == NodeKind::kScalar)
        hook.envs[entry->key] = value.text;
      else
        maps_.wrong_type(value, path_of("envs", shown(entry->key)), "a text");
    }
  }

  const MapReader& maps_;
  Hooks& hooks_;
};

}  // namespace

HooksFile read_hooks(std::string_view text) {
  HooksFile file;
  const Document document = Document::parse(text, false, file.problems);
  if (file.problems.has_errors()) return file;
  const MapReader maps(document, kKnown, false, file.problems);
  HookReader(maps, file.hooks).read(document.root());
  return file;
}

}  // namespace gpuslice::config
