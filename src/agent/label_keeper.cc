#include "agent/label_keeper.h"

#include <fmt/format.h>

#include <utility>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

using config::Flag;

constexpr size_t kMaxFileBytes = 1024 * 1024;
constexpr size_t kMaxMachineBytes = 4096;

bool same_but_for_the_time(Labels a, Labels b) {
  a.erase(std::string(kTimestampLabel));
  b.erase(std::string(kTimestampLabel));
  return a == b;
}

}  // namespace

LabelKeeper::LabelKeeper(LabelOptions options, ports::HostFiles& files, Log& log, int64_t start)
    : options_(std::move(options)), files_(files), log_(log), start_(start) {}

void LabelKeeper::look(const ports::DriverInfo& driver, const Hardware& hardware,
                       const config::Effective& config) {
  if (options_.to == LabelsTo::kNowhere) return;
  // Without what pods still hold: the labels tell what is on offer, and an edit of the
  // configuration changes them once.
  const auto served = make_device_table(hardware, config, {});
  if (!served) return;  // refused where the tables are made
  LabelFacts facts;
  facts.driver = driver;
  facts.gpus = hardware.gpus;
  facts.mig_strategy = config.text(Flag::kMigStrategy);
  facts.served = &*served;
  if (const auto name = files_.read(config.text(Flag::kGfdMachineTypeFile), kMaxMachineBytes))
    facts.machine = std::string(trim(*name));
  if (!config.on(Flag::kGfdNoTimestamp)) facts.timestamp = start_;
  say(make_labels(facts), config.text(Flag::kGfdOutputFile));
}

void LabelKeeper::say(const Labels& labels, const std::string& file) {
  // As feature discovery: no file means the standard output.
  const bool to_file = options_.to == LabelsTo::kNfdFile && !file.empty();
  const bool said = said_ && said_to_ == file && same_but_for_the_time(*said_, labels);
  // A file that somebody took away, or changed, is written again.
  if (said && !to_file) return;
  if (to_file) {
    if (const Status written = write(labels, file); !written) {
      log_.once(Level::kWarning, "labels",
                fmt::format("labels: {}; they are written again when that is mended",
                            written.error().message));
      return;
    }
    log_.over("labels");
    if (said) return;
  }
  said_ = labels;
  said_to_ = file;
  if (options_.to == LabelsTo::kNode && options_.apply) options_.apply(labels);
  if (!to_file && options_.to != LabelsTo::kNode && options_.print)
    options_.print(format_labels(labels));
}

Status LabelKeeper::write(const Labels& labels, const std::string& file) {
  // What an earlier life wrote and still holds is left as it is.
  const auto there = files_.read(file, kMaxFileBytes);
  if (there && there->ends_with('\n')) {
    const Labels old = parse_labels(*there);
    const bool stamped =
        old.contains(std::string(kTimestampLabel)) == labels.contains(std::string(kTimestampLabel));
    if (stamped && format_labels(old) == *there && same_but_for_the_time(old, labels)) return {};
  }
  return files_.write_atomic(file, format_labels(labels), false);
}

void LabelKeeper::applied(const Status& status) {
  if (status) {
    log_.over("labels");
    return;
  }
  log_.once(Level::kWarning, "labels",
            fmt::format("labels: {}; they are set again at the next look at the hardware",
                        status.error().message));
  said_.reset();
}

std::string format_labels(const Labels& labels) {
  std::string out;
  for (const auto& [key, value] : labels) out += fmt::format("{}={}\n", key, value);
  return out;
}

Labels parse_labels(std::string_view text) {
  Labels out;
  for (const std::string_view line : split(text, '\n')) {
    const size_t equals = line.find('=');
    if (equals == std::string_view::npos) continue;
    out.emplace(line.substr(0, equals), line.substr(equals + 1));
  }
  return out;
}

}  // namespace gpuslice::agent
