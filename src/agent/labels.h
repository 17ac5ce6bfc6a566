#pragma once

// The node's labels, as GPU feature discovery v0.20 would set them, from what is really served.
// Pure, ordered, always valid: a value is at most 63 characters of [A-Za-z0-9-_.] with a letter or
// a digit at both ends, or empty.
//
// On a node with several models GPU feature discovery lets one win at random; here the labels
// gpu.* are those of the model that most GPUs are of, of equals the one of the lowest index, and
// each model has labels of its own beside: gpu-model.<model>.{count,memory,replicas}. A node with
// one model has none of those.
//
// Where it differs, because it tells what is served:
//   · gpu.replicas-total: how many nvidia.com/gpu (or what it was renamed to) are offered in all;
//   · a MIG-enabled GPU under strategy none is served whole, and labelled so;
//   · a MIG device that is not offered (a compute instance smaller than its GPU instance) has no
//     labels under strategy mixed.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/device_table.h"
#include "config/effective.h"
#include "ports/nvml.h"

namespace gpuslice::agent {

using Labels = std::map<std::string, std::string>;

inline constexpr size_t kMaxLabelValue = 63;  // Kubernetes' bound; that of a key's name too
inline constexpr std::string_view kTimestampLabel = "nvidia.com/gfd.timestamp";

struct LabelFacts {
  ports::DriverInfo driver;
  // By index; GPUs that do not answer as last seen: a lost GPU changes no label. One whose name is
  // not known counts as one of the model that most others are of.
  std::vector<ports::Gpu> gpus;
  std::string mig_strategy = "none";
  // What the configuration offers of them (make_device_table without held ids).
  const DeviceTable* served = nullptr;
  std::string machine;               // the DMI product name; "" for unknown
  std::optional<int64_t> timestamp;  // seconds since 1970; nothing: no such label
};

[[nodiscard]] Labels make_labels(const LabelFacts& facts);

// A text as a part of a label's value: what is neither of [A-Za-z0-9-_. ] is dropped, words are
// joined by '-'. May be too long and may end in punctuation.
[[nodiscard]] std::string sanitise(std::string_view text);
// The longest valid value that starts as `text` does and ends in all of `suffix`.
[[nodiscard]] std::string label_value(std::string_view text, std::string_view suffix = "");

// Does a value hold as Kubernetes takes it?
[[nodiscard]] bool is_label_value(std::string_view value);
// "nvidia.com/<name>" with such a name.
[[nodiscard]] bool is_label_key(std::string_view key);

}  // namespace gpuslice::agent
