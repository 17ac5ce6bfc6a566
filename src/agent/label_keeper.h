#pragma once

// Takes the node's labels to where they are read: a features file of Node Feature Discovery, the
// standard output, or the node itself through the API server. Says them when they changed and not
// otherwise; never takes them back, also not at the end: a restart leaves no gap. T0.
//
// A new timestamp alone is no change: it is the time of the start that last changed something.

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "agent/device_table.h"
#include "agent/labels.h"
#include "base/log.h"
#include "base/result.h"
#include "config/effective.h"
#include "ports/host.h"

namespace gpuslice::agent {

enum class LabelsTo : uint8_t { kNowhere, kNode, kNfdFile, kStdout };

struct LabelOptions {
  LabelsTo to = LabelsTo::kNowhere;
  std::function<void(const std::string&)> print;  // of kStdout: all labels, a line each
  // Of kNode: sets these, removes those of an earlier call that are missing. applied() follows.
  std::function<void(const Labels&)> apply;
};

class LabelKeeper {
 public:
  // `start`: what the timestamp says, seconds since 1970.
  LabelKeeper(LabelOptions options, ports::HostFiles& files, Log& log, int64_t start);

  // The node as it is now. Call it when the hardware or the configuration may have changed: it
  // makes the labels and takes them where they belong, again if that failed the last time.
  void look(const ports::DriverInfo& driver, const Hardware& hardware,
            const config::Effective& config);
  // What became of the last call of `apply`.
  void applied(const Status& status);

  // What was said last; nothing before the first time.
  [[nodiscard]] const std::optional<Labels>& said() const { return said_; }

 private:
  void say(const Labels& labels, const std::string& file);
  [[nodiscard]] Status write(const Labels& labels, const std::string& file);

  LabelOptions options_;
  ports::HostFiles& files_;
  Log& log_;
  int64_t start_;
  std::optional<Labels> said_;
  std::string said_to_;  // the file
};

// "key=value" lines, sorted; and back: lines that are none are skipped.
[[nodiscard]] std::string format_labels(const Labels& labels);
[[nodiscard]] Labels parse_labels(std::string_view text);

}  // namespace gpuslice::agent
