#include "agent/health.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

using std::chrono::seconds;

constexpr std::string_view kHead = "gpuslice-health 1 ";
constexpr size_t kMaxMarks = 1024;
constexpr size_t kMaxHealthBytes = 1024 * 1024;
// Pairs of a GPU and an XID that are counted; further ones count as XID 0.
constexpr size_t kMaxCounted = 512;
// An inventory that was under way when the event came may have been read before the instance was
// made, and comes twice (its topology follows); the next one was not.
constexpr uint32_t kMostMisses = 3;

void read_list(std::string_view name, std::string_view list, bool& all, std::set<uint64_t>& xids,
               std::vector<std::string>& problems) {
  for (const std::string_view part : split(list, ',')) {
    const std::string word = to_lower(trim(part));
    if (word.empty()) continue;
    if (word == "all" || word == "xids")
      all = true;
    else if (const auto xid = parse_u64(word))
      xids.insert(*xid);
    else
      problems.push_back(
          fmt::format("{}: \"{}\" is none of all, xids and the number of an XID: it is left out",
                      name, json_escape(word.substr(0, 40))));
  }
}

template <class Id>
std::string text_of_id(const std::optional<Id>& id) {
  return id ? std::to_string(id->value) : "-";
}

template <class Id>
bool parse_id(std::string_view text, std::optional<Id>& out) {
  if (text == "-") return true;
  const auto number = parse_u64(text);
  if (!number || *number > UINT32_MAX) return false;
  out = Id{static_cast<uint32_t>(*number)};
  return true;
}

// "GPU 3", "GPU 3, GPU instance 7, compute instance 0".
std::string name_of(const HealthMark& mark, const std::vector<ports::Gpu>& gpus) {
  const auto gpu = std::find_if(gpus.begin(), gpus.end(),
                                [&](const ports::Gpu& g) { return g.uuid == mark.gpu; });
  std::string out = gpu == gpus.end() ? mark.gpu : fmt::format("GPU {}", gpu->index.value);
  if (mark.gi) out += fmt::format(", GPU instance {}", mark.gi->value);
  if (mark.ci) out += fmt::format(", compute instance {}", mark.ci->value);
  return out;
}

}  // namespace

XidPolicy::XidPolicy(std::string_view disable, std::string_view enable,
                     std::vector<std::string>& problems) {
  read_list("DP_DISABLE_HEALTHCHECKS", disable, none_, disabled_, problems);
  read_list("DP_ENABLE_HEALTHCHECKS", enable, all_, enabled_, problems);
}

bool XidPolicy::ignores(uint64_t xid) const {
  if (all_ || enabled_.contains(xid)) return false;
  return none_ || disabled_.contains(xid);
}

std::string HealthMark::reason() const {
  std::string when = format_utc(since);
  when.erase(when.rfind('.'), 4);  // whole seconds
  return fmt::format("XID {} at {}", xid, when);
}

std::string format_health(const std::vector<HealthMark>& marks, std::string_view boot_id) {
  std::string out = fmt::format("{}{}\n", kHead, boot_id);
  for (const HealthMark& mark : marks)
    out += fmt::format("{} {} {} {} {} {}\n", mark.gpu, text_of_id(mark.gi), text_of_id(mark.ci),
                       mark.xid,
                       std::chrono::duration_cast<seconds>(mark.since.time_since_epoch()).count(),
                       mark.lost ? 1 : 0);
  return out;
}

Result<std::vector<HealthMark>> parse_health(std::string_view text, std::string_view boot_id) {
  if (!text.starts_with(kHead) || !text.ends_with("\n"))
    return fail(Code::kCorrupt, "it is no whole record of this version");
  text.remove_suffix(1);
  std::vector<HealthMark> marks;
  bool head = true;
  for (const std::string_view line : split(text, '\n')) {
    if (head) {
      head = false;
      if (line.substr(kHead.size()) != boot_id) return marks;
      continue;
    }
    const auto words = split(line, ' ');
    HealthMark mark;
    const bool whole = words.size() == 6 && !words[0].empty() && parse_id(words[1], mark.gi) &&
                       parse_id(words[2], mark.ci) && (words[5] == "0" || words[5] == "1");
    const auto xid = whole ? parse_u64(words[3]) : std::nullopt;
    const auto since = whole ? parse_u64(words[4]) : std::nullopt;
    if (!xid || !since || *since > 1ULL << 33 || marks.size() >= kMaxMarks)
      return fail(Code::kCorrupt, "line \"{}\" is no mark", json_escape(line.substr(0, 80)));
    mark.gpu = std::string(words[0]);
    mark.xid = *xid;
    mark.since = WallTime(seconds(*since));
    mark.lost = words[5] == "1";
    marks.push_back(std::move(mark));
  }
  return marks;
}

std::map<std::string, std::string> reasons_of(const std::vector<HealthMark>& marks,
                                              const std::vector<ports::Gpu>& gpus) {
  std::map<std::string, std::string> out;
  for (const HealthMark& mark : marks) {
    if (!mark.gi) out.emplace(mark.gpu, mark.reason());
    for (const ports::Gpu& gpu : gpus)
      for (const ports::MigDevice& device : gpu.mig_devices)
        if (mark.is_of(gpu, device)) out.emplace(device.uuid, mark.reason());
  }
  return out;
}

Health::Health(const HealthOptions& options, std::string path, ports::HostFiles& files, Log& log)
    : policy_(options.disable, options.enable, problems_),
      path_(std::move(path)),
      files_(files),
      log_(log) {}

void Health::start(std::string boot_id) {
  for (const std::string& problem : problems_) log_.warning("{}", problem);
  boot_id_ = std::move(boot_id);
  if (path_.empty()) return;
  const auto text = files_.read(path_, kMaxHealthBytes);
  if (!text) return;  // nothing was marked
  auto marks = parse_health(*text, boot_id_);
  if (!marks) {
    log_.warning("health: {}: {}; GPUs that an XID marked are taken for healthy", path_,
                 marks.error().message);
    return;
  }
  marks_ = std::move(*marks);
  written_ = *text;
}

void Health::on_event(const ports::GpuEvent& event, const std::vector<ports::Gpu>& known,
                      WallTime now) {
  HealthMark mark;
  mark.gpu = event.gpu;
  mark.gi = event.gi;
  if (mark.gi) mark.ci = event.ci;
  mark.xid = event.kind == ports::GpuEvent::Kind::kXid ? event.xid : kXidOfDoubleBitEcc;
  mark.since = std::max(WallTime(std::chrono::floor<seconds>(now).time_since_epoch()), WallTime{});
  count(mark.gpu, mark.xid);
  const std::string key =
      fmt::format("xid {} {} {} {}", mark.xid, mark.gpu, text_of_id(mark.gi), text_of_id(mark.ci));
  if (policy_.ignores(mark.xid)) {
    log_.once(Level::kInfo, key,
              fmt::format("{}: XID {}: ignored, as a program's own mistake or because "
                          "DP_DISABLE_HEALTHCHECKS says so",
                          name_of(mark, known), mark.xid));
    return;
  }
  log_.once(
      Level::kError, key,
      fmt::format("{}: XID {}: {} unhealthy until {}; see the kernel's log for the "
                  "driver's own words",
                  name_of(mark, known), mark.xid, mark.gi ? "its devices are" : "all of it is",
                  mark.gi ? "the instance is made anew" : "the GPU is reset"));
  const auto there = std::find_if(marks_.begin(), marks_.end(), [&](const HealthMark& one) {
    return one.gpu == mark.gpu && one.gi == mark.gi && one.ci == mark.ci;
  });
  if (there != marks_.end()) {
    // The first reason stays, but for one that its loss would take away.
    if (!there->lost) return;
    marks_.erase(there);
  }
  // More instances than all boards have: the GPU as a whole takes their place.
  if (marks_.size() >= kMaxMarks) {
    std::erase_if(marks_, [&](const HealthMark& one) { return one.gpu == mark.gpu; });
    mark.gi.reset();
    mark.ci.reset();
    if (marks_.size() >= kMaxMarks) marks_.erase(marks_.begin());
  }
  for (const ports::Gpu& gpu : known)
    for (const ports::MigDevice& device : gpu.mig_devices)
      if (mark.is_of(gpu, device)) mark.devices.insert(device.uuid);
  marks_.push_back(std::move(mark));
}

void Health::on_inventory(const std::vector<ports::Gpu>& gpus,
                          const std::map<std::string, std::string>& silent,
                          const std::set<std::string>& mute) {
  for (HealthMark& mark : marks_) {
    const auto gpu = std::find_if(gpus.begin(), gpus.end(),
                                  [&](const ports::Gpu& g) { return g.uuid == mark.gpu; });
    if (gpu == gpus.end() || silent.contains(mark.gpu)) {
      if (!mute.contains(mark.gpu)) mark.lost = true;
      continue;
    }
    mark.back = mark.lost;
    if (!mark.gi) continue;
    std::set<std::string> there;
    for (const ports::MigDevice& device : gpu->mig_devices)
      if (mark.is_of(*gpu, device)) there.insert(device.uuid);
    const bool others = !there.empty() && !mark.devices.empty() &&
                        std::none_of(there.begin(), there.end(), [&](const std::string& uuid) {
                          return mark.devices.contains(uuid);
                        });
    if (there.empty() || others) {
      mark.misses = mark.devices.empty() ? mark.misses + 1 : kMostMisses;
    } else {
      mark.misses = 0;
      mark.devices = std::move(there);
    }
  }
  // A mark that came after the loss stays: the GPU that came back has failed again.
  std::erase_if(marks_, [&](const HealthMark& mark) {
    const bool over = mark.back || mark.misses >= kMostMisses;
    if (over) forget(mark, mark.back ? "the GPU was lost and came back" : "it is gone");
    return over;
  });
}

void Health::on_reset(const std::string& gpu) {
  std::erase_if(marks_, [&](const HealthMark& mark) {
    if (mark.gpu == gpu) forget(mark, "the GPU was reset");
    return mark.gpu == gpu;
  });
}

void Health::on_destroyed(const std::set<std::string>& devices) {
  for (HealthMark& mark : marks_) {
    if (mark.devices.empty()) continue;
    std::erase_if(mark.devices, [&](const std::string& one) { return devices.contains(one); });
    if (mark.devices.empty()) mark.misses = kMostMisses;
  }
  std::erase_if(marks_, [&](const HealthMark& mark) {
    if (mark.misses >= kMostMisses) forget(mark, "it was destroyed");
    return mark.misses >= kMostMisses;
  });
}

void Health::forget(const HealthMark& mark, std::string_view why) {
  log_.info("{}: {} is over: {}", name_of(mark, {}), mark.reason(), why);
  log_.over(
      fmt::format("xid {} {} {} {}", mark.xid, mark.gpu, text_of_id(mark.gi), text_of_id(mark.ci)));
}

void Health::count(const std::string& gpu, uint64_t xid) {
  const bool room = counts_.size() < kMaxCounted || counts_.contains({gpu, xid});
  ++counts_[{gpu, room ? xid : 0}];
}

void Health::write() {
  if (path_.empty() || (marks_.empty() && written_.empty())) return;
  std::string text = format_health(marks_, boot_id_);
  if (text == written_) return;
  if (const Status written = files_.write_atomic(path_, text, false); !written) {
    log_.once(Level::kWarning, "health",
              fmt::format("health: {}; a restart of the agent would take these GPUs for healthy",
                          written.error().message));
    return;
  }
  log_.over("health");
  written_ = std::move(text);
}

}  // namespace gpuslice::agent
