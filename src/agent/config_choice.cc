#include "agent/config_choice.h"

#include <fmt/format.h>

#include <utility>

#include "agent/config_key.h"

namespace gpuslice::agent {

Result<std::string> chosen_file(const ConfigFolderOptions& options,
                                const Result<std::vector<std::string>>& keys,
                                const std::string& label) {
  auto key = keys ? choose_key(*keys, label, options.by_default, options.fallbacks)
                  : Result<std::string>(std::unexpected(keys.error()));
  if (!key)
    return fail(key.error().code, "--config-dir {}: {}", options.folder, key.error().message);
  return *key == kEmptyConfig ? *key : options.folder + "/" + *key;
}

ConfigChoice::ConfigChoice(ConfigFolderOptions options, ports::Timers& timers, Keys keys,
                           Chosen chosen)
    : options_(std::move(options)),
      keys_(std::move(keys)),
      chosen_(std::move(chosen)),
      patience_(timers.timer()) {}

void ConfigChoice::start() {
  if (!options_.by_label) {
    label_known_ = true;
    return look();
  }
  patience_->after(kFirstSightPatience, [this] {
    chosen_(fail(Code::kUnavailable,
                 "--config-dir {}: which key counts is not known: the node's label {} was not "
                 "seen yet",
                 options_.folder, kConfigLabel));
  });
}

void ConfigChoice::on_label(const std::optional<std::string>& label) {
  label_known_ = true;
  label_ = label.value_or("");
  patience_->cancel();
  look();
}

void ConfigChoice::look() {
  if (!label_known_) return;
  auto file = chosen_file(options_, keys_(), label_);
  const bool a_key = file && *file != kEmptyConfig;
  named_ = a_key            ? file->substr(options_.folder.size() + 1)
           : label_.empty() ? options_.by_default
                            : label_;
  if (named_.empty()) named_ = "default";
  chosen_(std::move(file));
}

}  // namespace gpuslice::agent
