#pragma once

// --config-dir: a mounted ConfigMap, one file a key. Watches the folder for agent/config_choice.h,
// which says what of it counts. T0.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/config_choice.h"
#include "base/result.h"
#include "host/event_loop.h"
#include "host/loop_timers.h"
#include "host/path_watch.h"

namespace gpuslice::bin {

// Reads the folder. kInvalidConfig: it cannot be read, or see agent::choose_key().
[[nodiscard]] Result<std::string> choose_file(const agent::ConfigFolderOptions& options,
                                              const std::string& label);

class ConfigFolder {
 public:
  ConfigFolder(agent::ConfigFolderOptions options, host::EventLoop& loop,
               agent::ConfigChoice::Chosen chosen);
  ConfigFolder(const ConfigFolder&) = delete;
  ConfigFolder& operator=(const ConfigFolder&) = delete;

  // kUnavailable: the limits of inotify are reached.
  [[nodiscard]] Status start();
  // See ConfigChoice.
  void on_label(const std::optional<std::string>& label) { choice_.on_label(label); }
  void look() { choice_.look(); }

 private:
  [[nodiscard]] Status watch(const std::string& name, std::unique_ptr<host::PathWatch>& with);
  void watch_key();

  const std::string folder_;
  host::EventLoop& loop_;
  host::LoopTimers timers_;
  agent::ConfigChoice choice_;
  host::EventLoop::Token due_;
  std::unique_ptr<host::PathWatch> data_watch_;  // of `..data`, which a mounted ConfigMap swaps
  std::unique_ptr<host::PathWatch> key_watch_;
  std::string key_watched_;
};

}  // namespace gpuslice::bin
