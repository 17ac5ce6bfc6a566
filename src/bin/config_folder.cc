#include "bin/config_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

namespace gpuslice::bin {

namespace fs = std::filesystem;

namespace {

Result<std::vector<std::string>> keys_in(const std::string& folder) {
  std::vector<std::string> keys;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const std::string name = at->path().filename().string();
    // A key that was taken away is a link to nowhere for a while.
    std::error_code gone;
    if (!name.starts_with(".") && at->is_regular_file(gone)) keys.push_back(name);
  }
  if (error) return fail(Code::kInvalidConfig, "cannot be read: {}", error.message());
  std::sort(keys.begin(), keys.end());
  return keys;
}

}  // namespace

Result<std::string> choose_file(const agent::ConfigFolderOptions& options,
                                const std::string& label) {
  return agent::chosen_file(options, keys_in(options.folder), label);
}

ConfigFolder::ConfigFolder(agent::ConfigFolderOptions options, host::EventLoop& loop,
                           agent::ConfigChoice::Chosen chosen)
    : folder_(options.folder),
      loop_(loop),
      timers_(loop),
      choice_(
          std::move(options), timers_, [this] { return keys_in(folder_); },
          [this, chosen = std::move(chosen)](Result<std::string> file) {
            watch_key();
            chosen(std::move(file));
          }) {}

Status ConfigFolder::start() {
  TRY(watch("..data", data_watch_));
  choice_.start();
  return {};
}

Status ConfigFolder::watch(const std::string& name, std::unique_ptr<host::PathWatch>& with) {
  // Not in the watch's own call: looking may replace that watch.
  TRY_ASSIGN(with, host::PathWatch::watch(loop_, folder_ + "/" + name, true, [this] {
               due_ = loop_.at(host::EventLoop::now(), [this] { look(); });
             }));
  return {};
}

// In a plain folder: the key that counts, or the one that should.
void ConfigFolder::watch_key() {
  const std::string& name = choice_.named();
  if (name.empty() || name == key_watched_ || name.find('/') != std::string::npos) return;
  key_watched_ = name;
  if (!watch(name, key_watch_)) key_watched_.clear();
}

}  // namespace gpuslice::bin
