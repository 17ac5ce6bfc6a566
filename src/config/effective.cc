#include "config/effective.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"

namespace gpuslice::config {
namespace {

// The command line is not the configuration.
Code code_of(Origin origin) {
  return origin == Origin::kCommandLine ? Code::kUsage : Code::kInvalidConfig;
}

Result<Setting> checked(const FlagRow& row, std::string_view value, Origin origin,
                        std::string from) {
  const auto good = canonical(row, value);
  if (!good) return fail(code_of(origin), "{} {}", from, good.error());
  return Setting{*good, origin, std::move(from)};
}

// What the command line or the environment says of a flag; nothing if neither does.
Result<std::optional<Setting>> outside(const FlagRow& row, const Said& said) {
  if (const auto it = said.options.find(row.flag); it != said.options.end()) {
    TRY_ASSIGN(Setting setting,
               checked(row, it->second, Origin::kCommandLine, fmt::format("--{}", row.options[0])));
    return std::optional(std::move(setting));
  }
  for (const std::string_view name : row.environment) {
    if (name.empty()) continue;
    const auto it = said.environment.find(std::string(name));
    if (it == said.environment.end() || it->second.empty()) continue;
    TRY_ASSIGN(Setting setting, checked(row, it->second, Origin::kEnvironment, std::string(name)));
    return std::optional(std::move(setting));
  }
  return std::optional<Setting>();
}

Status read_imex(const Effective& effective, Imex& imex) {
  const Setting& ids = effective.setting(Flag::kImexChannelIds);
  if (ids.origin != Origin::kDefault) {
    imex.channel_ids.clear();
    for (const std::string_view part : split(ids.value, ',')) {
      if (part.empty()) continue;
      if (part != "0" || !imex.channel_ids.empty())
        return fail(code_of(ids.origin), "{} must be empty or 0, not \"{}\"", ids.from,
                    json_escape(ids.value));
      imex.channel_ids.push_back(0);
    }
  }
  const Setting& required = effective.setting(Flag::kImexRequired);
  if (required.origin != Origin::kDefault) imex.required = required.value == "true";
  return {};
}

}  // namespace

bool Effective::lists(Flag flag, std::string_view word) const {
  const auto parts = split(text(flag), ',');
  return std::find(parts.begin(), parts.end(), word) != parts.end();
}

Result<Effective> merge(const Said& said, const DevicePluginConfig& file,
                        std::string_view file_name) {
  Effective effective;
  for (const FlagRow& row : flag_rows()) {
    Setting& setting = effective.settings[static_cast<size_t>(row.flag)];
    TRY_ASSIGN(std::optional<Setting> said_outside, outside(row, said));
    if (said_outside) {
      setting = std::move(*said_outside);
    } else if (const auto it = file.flags.find(row.flag); it != file.flags.end()) {
      const Place place = file.flag_places.at(row.flag);
      setting = {it->second, Origin::kFile,
                 fmt::format("{}:{}:{}", file_name, place.line, place.column)};
    } else {
      setting = {std::string(row.by_default), Origin::kDefault, "default"};
    }
  }
  effective.time_slicing = file.time_slicing;
  effective.imex = file.imex;
  TRY(read_imex(effective, effective.imex));
  return effective;
}

Status check_said(const Said& said) {
  const auto merged = merge(said, DevicePluginConfig{}, "");
  if (!merged) return std::unexpected(merged.error());
  return {};
}

}  // namespace gpuslice::config
