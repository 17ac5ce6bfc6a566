#include "agent/mig_wanted.h"

#include <fmt/format.h>

#include <utility>

#include "agent/last_good.h"
#include "base/text.h"
#include "config/document.h"

namespace gpuslice::agent {
namespace {

constexpr std::string_view kHead = "gpuslice-mig-request 1";
constexpr size_t kMaxRequestBytes = 4096;
// A node label's value is at most 63 characters long; a configuration's labels may be longer.
constexpr size_t kMaxLabelBytes = 1024;

std::string last_good_path(const std::string& dir) { return dir + "/last-good-mig-config.yaml"; }
std::string request_path(const std::string& dir) { return dir + "/mig-request"; }

// What an entry means, without where it stands.
std::string meaning(const config::MigEntry& entry) {
  std::string out = entry.all_gpus ? "all" : "";
  for (const config::GpuRef& gpu : entry.gpus)
    out +=
        gpu.kind == config::GpuRef::Kind::kIndex ? fmt::format(" {}", gpu.index) : " " + gpu.text;
  for (const config::DeviceFilter& filter : entry.filters)
    out += fmt::format(" f{:x}:{:x}", filter.device, filter.subsystem.value_or(0));
  out += entry.mig_enabled ? " on" : " off";
  for (const config::WantedProfile& profile : entry.profiles) {
    out += fmt::format(" {}x{}", profile.name.text(), profile.count);
    for (const uint32_t start : profile.starts) out += fmt::format("@{}", start);
  }
  return out + ";";
}

}  // namespace

void MigWanted::start() {
  if (!source_.state_dir.empty()) {
    if (const auto text = files_.read(request_path(source_.state_dir), kMaxRequestBytes)) {
      written_ = *text;
      const auto lines = split(*text, '\n');
      // Of the label: what the API server said last counts until it has spoken again.
      if (lines.front() == kHead)
        for (const std::string_view line : lines) {
          if (line.starts_with("label ") && source_.label_from_api) {
            label_ = line.substr(6);
            known_ = true;
          }
          if (line.starts_with("rebooted-for ")) rebooted_for_ = line.substr(13);
        }
    }
  }
  name_request();
  (void)look();
}

bool MigWanted::look() {
  if (!source_.any()) return false;
  const bool config = read_config();
  return read_label() || config;
}

bool MigWanted::read_config() {
  auto text = files_.read(source_.config_path, config::kMaxFileBytes);
  bool changed = false;
  if (text) {
    if (seen_ == *text) return false;
    seen_ = *text;
    changed = true;
    if (take(*text, source_.config_path)) {
      problem_.clear();
      if (source_.state_dir.empty()) return true;
      if (auto kept = keep_last_good(files_, last_good_path(source_.state_dir), *text); !kept)
        log_.once(Level::kWarning, "last-good-mig",
                  fmt::format("MIG configuration: the last good one cannot be kept for the next "
                              "start: {}",
                              kept.error().message));
      else
        log_.over("last-good-mig");
      return true;
    }
  } else if (problem_ != text.error().message) {
    seen_.reset();
    problem_ = text.error().message;
    changed = true;
    log_.error("MIG configuration: {}{}", problem_,
               config_ ? "; the last good one stays in force" : "");
  }
  if (config_ || source_.state_dir.empty()) return changed;
  const auto last = files_.read(last_good_path(source_.state_dir), config::kMaxFileBytes);
  if (!last) return changed;
  const std::string problem = problem_;
  if (take(*last, last_good_path(source_.state_dir)))
    log_.warning("MIG configuration: the last good one is in force, from {}, because {}",
                 config_name_, problem);
  problem_ = problem;
  return true;
}

// True when the text is good, and in force.
bool MigWanted::take(const std::string& text, const std::string& name) {
  config::MigPartedFile file = config::read_mig_parted(text);
  for (const config::Problem& problem : file.problems.all()) {
    if (problem.severity == config::Severity::kWarning)
      log_.warning("{}", problem.text(name));
    else
      log_.error("{}", problem.text(name));
  }
  if (file.problems.has_errors()) {
    problem_ = file.problems.first_error(name).text();
    log_.error("MIG configuration: not taken{}",
               config_ ? ": the last good one stays in force" : "");
    return false;
  }
  config_ = std::move(file.config);
  config_name_ = name;
  name_request();
  return true;
}

bool MigWanted::read_label() {
  if (source_.label_from_api) return false;
  std::string label = source_.label;
  if (!source_.label_path.empty()) {
    const auto text = files_.read(source_.label_path, kMaxLabelBytes);
    if (text)
      label = trim(*text);
    else if (text.error().code != Code::kNotFound)
      log_.once(Level::kError, "mig-label", text.error().text());
  }
  if (label == label_) return false;
  label_ = label;
  name_request();
  remember();
  return true;
}

bool MigWanted::set_label(const std::optional<std::string>& label) {
  std::string now = label.value_or("");
  const bool news = !std::exchange(known_, true);
  heard_ = true;
  if (now == label_ && !news) return false;
  label_ = std::move(now);
  name_request();
  remember();
  return true;
}

void MigWanted::name_request() {
  std::string text = label_;
  if (config_)
    if (const auto it = config_->labels.find(label_); it != config_->labels.end())
      for (const config::MigEntry& entry : it->second.entries) text += "\n" + meaning(entry);
  request_ = fmt::format("{:016x}", fnv1a(text));
}

Result<mig::NodeWish> MigWanted::wish(const std::vector<ports::Gpu>& gpus) const {
  if (!config_)
    return fail(Code::kInvalidConfig, "{}",
                problem_.empty() ? "there is no MIG configuration: start with --mig-config FILE"
                                 : problem_);
  TRY_ASSIGN(const std::string label, mig::choose_label(*config_, label_, config_name_));
  return mig::wish_of_label(config_->labels.at(label), label, gpus, config_name_);
}

bool MigWanted::remember_reboot(const std::string& request) {
  const std::string before = std::exchange(rebooted_for_, request);
  if (before == request || remember()) return true;
  rebooted_for_ = before;
  return false;
}

bool MigWanted::remember() {
  if (source_.state_dir.empty()) return false;
  std::string text = fmt::format("{}\nlabel {}\n", kHead, label_);
  if (!rebooted_for_.empty()) text += fmt::format("rebooted-for {}\n", rebooted_for_);
  if (text == written_) return true;
  if (const Status kept = files_.write_atomic(request_path(source_.state_dir), text, true)) {
    written_ = text;
    log_.over("mig-request");
    return true;
  } else {
    log_.once(Level::kWarning, "mig-request",
              fmt::format("MIG: what is wanted cannot be kept for the next start: {}",
                          kept.error().message));
  }
  return false;
}

}  // namespace gpuslice::agent
