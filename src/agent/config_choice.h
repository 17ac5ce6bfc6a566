#pragma once

// Follows a mounted ConfigMap and the node's label: says which file counts, anew whenever either
// changes. With the API server nothing is said before the first sight of the node. T0.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "agent/config_key.h"
#include "base/result.h"
#include "ports/timers.h"

namespace gpuslice::agent {

// A start without the API server serves the last good configuration after this.
inline constexpr Duration kFirstSightPatience = std::chrono::seconds(10);

struct ConfigFolderOptions {
  std::string folder;      // absolute
  std::string by_default;  // a key, "" for none
  bool by_label = false;   // the node's label counts first, and is waited for
  Fallbacks fallbacks = kUsualFallbacks;
};

class ConfigChoice {
 public:
  // The keys that are there now, sorted; an error: the folder cannot be read.
  using Keys = std::function<Result<std::vector<std::string>>()>;
  // `chosen`: this file counts, or none is known to, and why. Also called when nothing but the
  // file's text may have changed.
  using Chosen = std::function<void(Result<std::string> path)>;
  ConfigChoice(ConfigFolderOptions options, ports::Timers& timers, Keys keys, Chosen chosen);

  void start();
  // At the first sight of the node and when the label says something else; nothing: there is none.
  void on_label(const std::optional<std::string>& label);
  // Something may have changed.
  void look();

  // The key that should count, there or not: whose coming and going matters. "" before it is known.
  [[nodiscard]] const std::string& named() const { return named_; }

 private:
  ConfigFolderOptions options_;
  Keys keys_;
  Chosen chosen_;
  bool label_known_ = false;
  std::string label_;
  std::string named_;
  std::unique_ptr<ports::Timer> patience_;
};

// The file of the key that counts, or why none does: agent::choose_key(), or what `keys` says.
[[nodiscard]] Result<std::string> chosen_file(const ConfigFolderOptions& options,
                                              const Result<std::vector<std::string>>& keys,
                                              const std::string& label);

}  // namespace gpuslice::agent
