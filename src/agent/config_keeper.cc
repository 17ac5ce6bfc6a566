#include "agent/config_keeper.h"

#include <fmt/format.h>

#include "agent/config_key.h"
#include "agent/last_good.h"
#include "base/text.h"
#include "config/device_plugin.h"
#include "config/document.h"

namespace gpuslice::agent {

void ConfigKeeper::use(Result<std::string> path) {
  told_ = true;
  if (!path) {
    if (unknown_ == path.error().message) return;
    unknown_ = path.error().message;
    say_bad(unknown_);
    return;
  }
  if (unknown_.empty() && source_.path == *path) return;
  unknown_.clear();
  source_.path = std::move(*path);
  seen_.reset();
}

bool ConfigKeeper::look() {
  if (source_.follows && !told_) return false;
  if (!unknown_.empty()) return candidate_ ? false : fall_back();
  if (source_.path.empty()) {
    if (in_force_ || candidate_) return false;
    return consider({"", "the command line", false});
  }
  auto text = source_.path == kEmptyConfig ? Result<std::string>("")
                                           : files_.read(source_.path, config::kMaxFileBytes);
  look_again_ = !text && text.error().code == Code::kFailed;
  if (text) {
    if (seen_ == *text) return false;
    seen_ = *text;
    if (consider({std::move(*text), source_.path, false})) return true;
  } else {
    const std::string why = text.error().message;
    if (problem_ != why) say_bad(why);
    seen_.reset();
  }
  return fall_back();
}

// Nothing in force yet and the newest text is bad: what worked last time, tried once.
bool ConfigKeeper::fall_back() {
  if (in_force_ || tried_last_good_ || source_.last_good_path.empty()) return false;
  tried_last_good_ = true;
  auto last = files_.read(source_.last_good_path, config::kMaxFileBytes);
  if (!last) return false;
  const std::string problem = problem_;
  const bool usable = consider({std::move(*last), source_.last_good_path, true});
  problem_ = problem;
  return usable;
}

bool ConfigKeeper::consider(Text text) {
  candidate_.reset();
  const config::DevicePluginFile file = config::read_device_plugin(text.bytes, source_.compat);
  for (const config::Problem& problem : file.problems.all())
    if (problem.severity == config::Severity::kWarning) log_.warning("{}", problem.text(text.name));
  if (file.problems.has_errors()) {
    for (const config::Problem& problem : file.problems.all())
      if (problem.severity == config::Severity::kError) log_.error("{}", problem.text(text.name));
    say_bad(file.problems.first_error(text.name).text());
    return false;
  }
  auto merged = config::merge(source_.said, file.config, text.name);
  if (!merged) {
    say_bad(merged.error().text());
    return false;
  }
  candidate_ = std::move(*merged);
  candidate_text_ = std::move(text);
  return true;
}

void ConfigKeeper::accept() {
  if (!candidate_) return;
  in_force_ = std::move(candidate_);
  candidate_.reset();
  ++generation_;
  from_ = candidate_text_.name;
  fingerprint_ = fmt::format("{:016x}", fnv1a(candidate_text_.bytes));
  if (candidate_text_.is_last_good) {
    log_.warning("configuration: serving the last good one from {} because {}", from_, problem_);
    return;
  }
  problem_ = unknown_;
  log_.info("configuration: generation {} from {}", generation_, from_);
  if (source_.path.empty() || source_.last_good_path.empty()) return;
  if (auto kept = keep_last_good(files_, source_.last_good_path, candidate_text_.bytes); !kept)
    log_.once(Level::kWarning, "last-good",
              fmt::format("configuration: the last good one cannot be kept for the next start: {}",
                          kept.error().message));
  else
    log_.over("last-good");
}

void ConfigKeeper::refuse(const Error& why) {
  candidate_.reset();
  say_bad(why.text());
  (void)fall_back();
}

void ConfigKeeper::say_bad(const std::string& why) {
  problem_ = why;
  ++bad_;
  if (in_force_)
    log_.error("configuration: not taken, generation {} stays in force: {}", generation_, why);
  else
    log_.error("configuration: not taken: {}", why);
}

}  // namespace gpuslice::agent
