#pragma once

// What is wrong with a configuration, with its place. Every problem has a code (listed in
// docs/configuration.md) and an exact message: what, where, and what was probably meant.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace gpuslice::config {

struct Place {
  uint32_t line = 0;    // from 1; 0: no place in a file
  uint32_t column = 0;  // from 1, in bytes
  friend bool operator==(const Place&, const Place&) = default;
};

enum class Severity { kWarning, kError };

// Each stands for one kind of mistake; problem_code() is its stable name.
enum class Mistake {
  kSyntax,          // not YAML
  kTab,             // a tab as indentation
  kSecondDocument,  // "---" and another document
  kTooLarge,        // beyond kMaxFileBytes, kMaxNodes, kMaxDepth
  kDuplicateKey,
  kUnknownKey,
  kMisplacedKey,  // known, but under another parent
  kSpelling,      // works, but is usually written otherwise
  kWrongType,
  kUnknownVersion,
  kBadValue,          // right type, value not allowed
  kManifest,          // a Kubernetes manifest
  kMigConfiguration,  // a mig-parted file
  kBothSharings,
  kMps,  // not there yet
  kNoResources,
  kMissingKey,
  kBadName,
  kNameTooLong,
  kReplicas,
  kSameResource,
  kBadDevice,
  kIgnored,    // what NVIDIA's plugin ignores (--config-compat nvidia)
  kDiffers,    // taken as written, unlike NVIDIA's plugin
  kOtherFile,  // a good file of another kind: of the device plugin, of hooks
  // Of MIG configurations:
  kBadProfile,    // not the name of a MIG profile
  kSameProfile,   // two spellings of one profile
  kBadCount,      // of instances: not from 1 to kMostInstances
  kBadPlacement,  // where instances start
  kBadFilter,     // a device-filter that would never match
  kSameDevice,    // a list that names a GPU twice
};
inline constexpr size_t kMistakes = static_cast<size_t>(Mistake::kSameDevice) + 1;

[[nodiscard]] std::string_view problem_code(Mistake mistake);

struct Problem {
  Severity severity = Severity::kError;
  Mistake mistake = Mistake::kSyntax;
  Place place;
  std::string message;
  friend bool operator==(const Problem&, const Problem&) = default;

  // "config.yaml:3:5: error: … [unknown-key]"
  [[nodiscard]] std::string text(std::string_view file) const;
};

// All problems of a text, in the order found; beyond kMost they are counted only.
class Problems {
 public:
  static constexpr size_t kMost = 50;

  void error(Mistake mistake, Place place, std::string message) {
    add({Severity::kError, mistake, place, std::move(message)});
  }
  void warning(Mistake mistake, Place place, std::string message) {
    add({Severity::kWarning, mistake, place, std::move(message)});
  }
  [[nodiscard]] bool has_errors() const { return errors_ > 0; }
  [[nodiscard]] size_t errors() const { return errors_; }
  [[nodiscard]] const std::vector<Problem>& all() const { return all_; }
  // The first error as one line for a log: "file:3:5: message (and 2 more)". Call only with
  // has_errors().
  [[nodiscard]] Error first_error(std::string_view file) const;

 private:
  void add(Problem problem);
  std::vector<Problem> all_;
  size_t errors_ = 0;
};

}  // namespace gpuslice::config
