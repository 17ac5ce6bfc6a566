#include "bin/config_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "agent/config_key.h"

namespace gpuslice::bin {

namespace fs = std::filesystem;

Result<std::string> choose_file(const ConfigFolderOptions& options, const std::string& label) {
  std::vector<std::string> keys;
  std::error_code error;
  for (fs::directory_iterator at(options.folder, error), end; !error && at != end;
       at.increment(error)) {
    const std::string name = at->path().filename().string();
    // A key that was taken away is a link to nowhere for a while.
    std::error_code gone;
    if (!name.starts_with(".") && at->is_regular_file(gone)) keys.push_back(name);
  }
  if (error)
    return fail(Code::kInvalidConfig, "--config-dir {}: cannot be read: {}", options.folder,
                error.message());
  std::sort(keys.begin(), keys.end());
  auto key = agent::choose_key(keys, label, options.by_default);
  if (!key)
    return fail(key.error().code, "--config-dir {}: {}", options.folder, key.error().message);
  return options.folder + "/" + *key;
}

Status ConfigFolder::start() {
  TRY(watch("..data", data_watch_));
  if (!options_.by_label) {
    label_known_ = true;
    look();
    return {};
  }
  patience_ = loop_.after(kFirstSightPatience, [this] {
    chosen_(fail(Code::kUnavailable,
                 "--config-dir {}: which key counts is not known: the node's label {} was not "
                 "seen yet",
                 options_.folder, agent::kConfigLabel));
  });
  return {};
}

void ConfigFolder::on_label(const std::optional<std::string>& label) {
  label_known_ = true;
  label_ = label.value_or("");
  patience_.reset();
  look();
}

void ConfigFolder::look() {
  if (!label_known_) return;
  auto file = choose_file(options_, label_);
  watch_key(file);
  chosen_(std::move(file));
}

Status ConfigFolder::watch(const std::string& name, std::unique_ptr<host::PathWatch>& with) {
  // Not in the watch's own call: looking may replace that watch.
  TRY_ASSIGN(with, host::PathWatch::watch(loop_, options_.folder + "/" + name, true, [this] {
               due_ = loop_.at(host::EventLoop::now(), [this] { look(); });
             }));
  return {};
}

// In a plain folder: the key that counts, or the one that should.
void ConfigFolder::watch_key(const Result<std::string>& file) {
  std::string name = label_.empty() ? options_.by_default : label_;
  if (file) name = fs::path(*file).filename().string();
  if (name.empty()) name = "default";
  if (name == key_watched_ || name.find('/') != std::string::npos) return;
  key_watched_ = name;
  if (!watch(name, key_watch_)) key_watched_.clear();
}

}  // namespace gpuslice::bin
