#include "config/problems.h"

#include <fmt/format.h>

#include <array>

namespace gpuslice::config {
namespace {

constexpr std::array<std::string_view, kMistakes> kCodes = {
    "syntax",        "tab",           "second-document",   "too-large",     "duplicate-key",
    "unknown-key",   "misplaced-key", "spelling",          "wrong-type",    "unknown-version",
    "bad-value",     "manifest",      "mig-configuration", "both-sharings", "mps",
    "no-resources",  "missing-key",   "bad-name",          "name-too-long", "replicas",
    "same-resource", "bad-device",    "ignored",           "differs",       "other-file",
    "bad-profile",   "same-profile",  "bad-count",         "bad-placement", "bad-filter",
    "same-device"};

}  // namespace

std::string_view problem_code(Mistake mistake) { return kCodes[static_cast<size_t>(mistake)]; }

std::string Problem::text(std::string_view file) const {
  const std::string place_text =
      place.line == 0 ? std::string(file) : fmt::format("{}:{}:{}", file, place.line, place.column);
  return fmt::format("{}: {}: {} [{}]", place_text,
                     severity == Severity::kError ? "error" : "warning", message,
                     problem_code(mistake));
}

void Problems::add(Problem problem) {
  if (problem.severity == Severity::kError) ++errors_;
  if (all_.size() < kMost) all_.push_back(std::move(problem));
}

Error Problems::first_error(std::string_view file) const {
  for (const Problem& problem : all_) {
    if (problem.severity != Severity::kError) continue;
    std::string message = problem.message;
    if (errors_ > 1)
      message += fmt::format(" (and {} more error{})", errors_ - 1, errors_ == 2 ? "" : "s");
    std::string where(file);
    if (problem.place.line > 0)
      where = fmt::format("{}:{}:{}", file, problem.place.line, problem.place.column);
    return {Code::kInvalidConfig, std::move(message), std::move(where)};
  }
  return {Code::kInvalidConfig, fmt::format("{} errors", errors_), std::string(file)};
}

}  // namespace gpuslice::config
