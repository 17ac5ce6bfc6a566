#pragma once

// --config-dir: a mounted ConfigMap, one file a key. Says which file counts, anew whenever the
// folder or the node's label changes. With the API server nothing is said before the first sight
// of the node. T0.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "host/event_loop.h"
#include "host/path_watch.h"

namespace gpuslice::bin {

// A start without the API server serves the last good configuration after this.
inline constexpr Duration kFirstSightPatience = std::chrono::seconds(10);

struct ConfigFolderOptions {
  std::string folder;      // absolute
  std::string by_default;  // a key, "" for none
  bool by_label = false;   // the node's label counts first, and is waited for
};

// Reads the folder. kInvalidConfig: it cannot be read, or see agent::choose_key().
[[nodiscard]] Result<std::string> choose_file(const ConfigFolderOptions& options,
                                              const std::string& label);

class ConfigFolder {
 public:
  // `chosen`: this file counts, or none is known to, and why. Also called when nothing but the
  // file's text may have changed.
  using Chosen = std::function<void(Result<std::string> path)>;
  ConfigFolder(ConfigFolderOptions options, host::EventLoop& loop, Chosen chosen)
      : options_(std::move(options)), loop_(loop), chosen_(std::move(chosen)) {}

  // kUnavailable: the limits of inotify are reached.
  [[nodiscard]] Status start();
  // At the first sight of the node and when the label says something else; nothing: there is none.
  void on_label(const std::optional<std::string>& label);
  // Something may have changed.
  void look();

 private:
  [[nodiscard]] Status watch(const std::string& name, std::unique_ptr<host::PathWatch>& with);
  void watch_key(const Result<std::string>& file);

  ConfigFolderOptions options_;
  host::EventLoop& loop_;
  Chosen chosen_;
  bool label_known_ = false;
  std::string label_;
  host::EventLoop::Token patience_;
  host::EventLoop::Token due_;
  std::unique_ptr<host::PathWatch> data_watch_;  // of `..data`, which a mounted ConfigMap swaps
  std::unique_ptr<host::PathWatch> key_watch_;
  std::string key_watched_;
};

}  // namespace gpuslice::bin
