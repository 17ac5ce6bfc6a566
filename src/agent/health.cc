#include "agent/health.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

using std::chrono::seconds;

constexpr size_t kMaxMarks = 1024;
constexpr size_t kMaxHealthBytes = 1024 * 1024;
// Pairs of a GPU and an XID that are counted; further ones count as XID 0.
constexpr size_t kMaxCounted = 512;
// An inventory that was under way when the event came may have been read before the instance was
// made, and comes twice (its topology follows); the next one was not.
constexpr uint32_t kMostMisses = 3;
// Looks further apart than this prove nothing about the time between them.
constexpr Duration kLongestGap = seconds(30);

// "GPU 3", "GPU 3, GPU instance 7, compute instance 0".
std::string name_of(const HealthMark& mark, const std::vector<ports::Gpu>& gpus) {
  const auto gpu = std::find_if(gpus.begin(), gpus.end(),
                                [&](const ports::Gpu& g) { return g.uuid == mark.gpu; });
  std::string out = gpu == gpus.end() ? mark.gpu : fmt::format("GPU {}", gpu->index.value);
  if (mark.gi) out += fmt::format(", GPU instance {}", mark.gi->value);
  if (mark.ci) out += fmt::format(", compute instance {}", mark.ci->value);
  return out;
}

WallTime whole_seconds(WallTime now) {
  return std::max(WallTime(std::chrono::floor<seconds>(now).time_since_epoch()), WallTime{});
}

template <class Id>
std::string key_of_id(const std::optional<Id>& id) {
  return id ? std::to_string(id->value) : "-";
}

// Of what the log says of a mark.
std::string log_key(const HealthMark& mark) {
  return fmt::format("xid {} {} {} {}", mark.xid, mark.gpu, key_of_id(mark.gi), key_of_id(mark.ci));
}

std::string trouble_key(const TroubleMark& mark) {
  return fmt::format("trouble {} {}", mark.gpu, word_of(mark.seen.trouble));
}

bool counts_energy(const ports::Gpu& gpu) {
  return gpu.energy_mj && gpu.persistence_mode.value_or(false);
}

std::string until(const HealthMark& mark, std::optional<Duration> probe) {
  if (probe)
    return fmt::format("it has been clean for {} s",
                       std::chrono::duration_cast<seconds>(*probe).count());
  return mark.gi ? "the instance is made anew" : "the GPU is reset";
}

}  // namespace

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
  auto record = parse_health(*text, boot_id_);
  if (!record) {
    log_.warning("health: {}: {}; GPUs that an XID marked are taken for healthy", path_,
                 record.error().message);
    return;
  }
  record_ = std::move(*record);
  for (HealthMark& mark : record_.marks) mark.kept = true;
  troubles_ = record_.troubles;
  written_ = *text;
}

bool Health::on_event(const ports::GpuEvent& event, const std::vector<ports::Gpu>& known,
                      MonotonicTime now, WallTime wall) {
  std::vector<HealthMark>& marks = record_.marks;
  HealthMark mark;
  mark.gpu = event.gpu;
  mark.gi = event.gi;
  if (mark.gi) mark.ci = event.ci;
  mark.xid = event.kind == ports::GpuEvent::Kind::kXid ? event.xid : kXidOfDoubleBitEcc;
  mark.since = whole_seconds(wall);
  mark.told = now;
  count(mark.gpu, mark.xid);
  if (policy_.ignores(mark.xid)) {
    log_.once(Level::kInfo, log_key(mark),
              fmt::format("{}: XID {}: ignored, as a program's own mistake or because "
                          "DP_DISABLE_HEALTHCHECKS says so",
                          name_of(mark, known), mark.xid));
    return false;
  }
  clean_since_.erase(mark.gpu);
  const auto probe = policy_.clean_probe(mark.xid);
  log_.once(Level::kError, log_key(mark),
            fmt::format("{}: XID {}: {} unhealthy until {}; see the kernel's log for the "
                        "driver's own words",
                        name_of(mark, known), mark.xid,
                        mark.gi ? "its devices are" : "all of it is", until(mark, probe)));
  const auto there = std::find_if(marks.begin(), marks.end(), [&](const HealthMark& one) {
    return one.gpu == mark.gpu && one.gi == mark.gi && one.ci == mark.ci;
  });
  if (there != marks.end()) {
    // What it asked for before may have been done meanwhile; if not, it asks on.
    there->asked = false;
    const bool told = there->energy_mj.has_value();
    there->energy_mj.reset();
    there->most_mj = 0;
    there->told = now;
    // The first reason stays, but for one that its loss or a clean probe would take away.
    const bool graver = policy_.clean_probe(there->xid) && !probe;
    if (!there->lost && !graver) return told;
    marks.erase(there);
  }
  // More instances than all boards have: the GPU as a whole takes their place.
  if (marks.size() >= kMaxMarks) {
    std::erase_if(marks, [&](const HealthMark& one) { return one.gpu == mark.gpu; });
    mark.gi.reset();
    mark.ci.reset();
    if (marks.size() >= kMaxMarks) marks.erase(marks.begin());
  }
  for (const ports::Gpu& gpu : known)
    for (const ports::MigDevice& device : gpu.mig_devices)
      if (mark.is_of(gpu, device)) mark.devices.insert(device.uuid);
  const auto gpu = std::find_if(known.begin(), known.end(),
                                [&](const ports::Gpu& one) { return one.uuid == mark.gpu; });
  marks.push_back(std::move(mark));
  return gpu != known.end() && counts_energy(*gpu);
}

void Health::on_inventory(const HealthLook& look) {
  look_at_marks(look);
  look_at_driver(look.driver);
  tell_of_kept(look);
  look_at_troubles(look);
  probe(look);
  looked_ = look.now;
}

void Health::look_at_marks(const HealthLook& look) {
  for (HealthMark& mark : record_.marks) {
    const auto gpu = std::find_if(look.gpus.begin(), look.gpus.end(),
                                  [&](const ports::Gpu& g) { return g.uuid == mark.gpu; });
    if (gpu == look.gpus.end() || look.silent.contains(mark.gpu)) {
      if (!look.mute.contains(mark.gpu)) mark.lost = true;
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
  forget_all([](const HealthMark& mark) { return mark.back; }, "the GPU was lost and came back");
  forget_all([](const HealthMark& mark) { return mark.misses >= kMostMisses; }, "it is gone");
  look_for_resets(look);
}

// The log of a start says by itself why not all is given out.
void Health::tell_of_kept(const HealthLook& look) {
  for (HealthMark& mark : record_.marks) {
    if (!std::exchange(mark.kept, false)) continue;
    log_.once(
        Level::kError, log_key(mark),
        fmt::format("{}: {}, before this start: {} unhealthy until {}", name_of(mark, look.gpus),
                    mark.reason(Since::kSaid), mark.gi ? "its devices are" : "all of it is",
                    until(mark, policy_.clean_probe(mark.xid))));
  }
}

// By others than us.
void Health::look_for_resets(const HealthLook& look) {
  for (const ports::Gpu& gpu : look.gpus) {
    if (look.silent.contains(gpu.uuid)) continue;
    // Each mark by what looks since it came have told: one that came after the reset stays.
    const auto of_it = [&](const HealthMark& mark) { return mark.gpu == gpu.uuid; };
    // Nothing but a reset ends this request of the driver.
    if (gpu.recovery_action == 0U)
      forget_all([&](const HealthMark& mark) { return of_it(mark) && mark.asked; },
                 "the GPU had asked for a reset, and asks no more: it was reset");
    if (counts_energy(gpu))
      forget_all(
          [&](const HealthMark& mark) {
            return of_it(mark) && mark.energy_mj &&
                   *gpu.energy_mj < std::max(*mark.energy_mj, mark.most_mj);
          },
          "the driver has initialised the GPU anew: it was reset");
    for (HealthMark& mark : record_.marks) {
      // A look that began before may have read the GPU as it was before a reset.
      if (!of_it(mark) || mark.told > look.begun) continue;
      if (gpu.recovery_action) mark.asked = asks_for_reset(gpu);
      if (!counts_energy(gpu)) continue;
      if (!mark.energy_mj) mark.energy_mj = gpu.energy_mj;
      mark.most_mj = std::max(mark.most_mj, *gpu.energy_mj);
    }
  }
}

// A driver's modules go and others come only with every GPU initialised anew.
void Health::look_at_driver(std::string_view driver) {
  if (driver.empty() || record_.driver == driver) return;
  if (!record_.driver.empty())
    forget_all([](const HealthMark&) { return true; },
               fmt::format("driver {} took the place of {}", driver, record_.driver));
  record_.driver = std::string(driver);
}

void Health::look_at_troubles(const HealthLook& look) {
  std::vector<TroubleMark> before = std::move(troubles_);
  troubles_.clear();
  const auto known_before = [&](const std::string& gpu, GpuTrouble trouble) {
    return std::find_if(before.begin(), before.end(), [&](const TroubleMark& one) {
      return one.gpu == gpu && one.seen.trouble == trouble;
    });
  };
  for (const ports::Gpu& gpu : look.gpus) {
    if (look.silent.contains(gpu.uuid)) {
      // It says nothing: what it said last holds.
      for (const TroubleMark& one : before)
        if (one.gpu == gpu.uuid) troubles_.push_back(one);
      continue;
    }
    const bool was_hot = known_before(gpu.uuid, GpuTrouble::kTemperature) != before.end();
    for (TroubleSeen& seen : troubles_of(gpu, was_hot)) {
      TroubleMark mark{gpu.uuid, std::move(seen), whole_seconds(look.wall), {}};
      mark.verdict = policy_.judge(mark.seen.trouble, !gpu.mig_devices.empty());
      if (const auto known = known_before(gpu.uuid, mark.seen.trouble); known != before.end())
        mark.since = known->since;
      tell_of(gpu, mark);
      troubles_.push_back(std::move(mark));
    }
    for (const TroubleMark& one : before)
      if (one.gpu == gpu.uuid &&
          std::none_of(troubles_.begin(), troubles_.end(), [&](const TroubleMark& now) {
            return now.gpu == one.gpu && now.seen.trouble == one.seen.trouble;
          })) {
        log_.info("GPU {}: {}: over", gpu.index.value, one.seen.text);
        log_.over(trouble_key(one));
      }
  }
  record_.troubles.clear();
  for (const TroubleMark& one : troubles_)
    if (one.unhealthy()) record_.troubles.push_back(one);
}

void Health::tell_of(const ports::Gpu& gpu, const TroubleMark& mark) {
  const std::string name = fmt::format("GPU {}: {}", gpu.index.value, mark.seen.text);
  switch (mark.verdict) {
    case HealthPolicy::Verdict::kUnhealthy:
      log_.once(Level::kError, trouble_key(mark),
                fmt::format("{}: all of it is unhealthy as long as it says so", name));
      break;
    case HealthPolicy::Verdict::kTold:
      log_.once(Level::kWarning, trouble_key(mark),
                fmt::format("{}: its MIG devices are given out all the same", name));
      break;
    case HealthPolicy::Verdict::kIgnored:
      break;
  }
}

void Health::probe(const HealthLook& look) {
  if (look.now - looked_ > kLongestGap) clean_since_.clear();
  for (const ports::Gpu& gpu : look.gpus) {
    const bool clean = !look.silent.contains(gpu.uuid) &&
                       std::none_of(record_.troubles.begin(), record_.troubles.end(),
                                    [&](const TroubleMark& one) { return one.gpu == gpu.uuid; });
    if (!clean) {
      clean_since_.erase(gpu.uuid);
      continue;
    }
    const MonotonicTime since = clean_since_.try_emplace(gpu.uuid, look.now).first->second;
    forget_all(
        [&](const HealthMark& mark) {
          const auto time = policy_.clean_probe(mark.xid);
          return mark.gpu == gpu.uuid && time && look.now - since >= *time;
        },
        "it has been clean for as long as --xid-clean-probe says");
  }
  std::erase_if(clean_since_, [&](const auto& one) {
    return std::none_of(look.gpus.begin(), look.gpus.end(),
                        [&](const ports::Gpu& gpu) { return gpu.uuid == one.first; });
  });
}

void Health::on_reset(const std::string& gpu) {
  forget_all([&](const HealthMark& mark) { return mark.gpu == gpu; }, "the GPU was reset");
}

void Health::on_destroyed(const std::set<std::string>& devices) {
  for (HealthMark& mark : record_.marks) {
    if (mark.devices.empty()) continue;
    std::erase_if(mark.devices, [&](const std::string& one) { return devices.contains(one); });
    if (mark.devices.empty()) mark.misses = kMostMisses;
  }
  forget_all([](const HealthMark& mark) { return mark.misses >= kMostMisses; }, "it was destroyed");
}

template <class Matches>
void Health::forget_all(Matches matches, std::string_view why) {
  std::erase_if(record_.marks, [&](const HealthMark& mark) {
    if (!matches(mark)) return false;
    log_.info("{}: {} is over: {}", name_of(mark, {}), mark.reason(Since::kSaid), why);
    log_.over(log_key(mark));
    return true;
  });
}

void Health::count(const std::string& gpu, uint64_t xid) {
  const bool room = counts_.size() < kMaxCounted || counts_.contains({gpu, xid});
  ++counts_[{gpu, room ? xid : 0}];
}

void Health::write() {
  const bool nothing = record_.marks.empty() && record_.troubles.empty();
  if (path_.empty() || (nothing && written_.empty())) return;
  std::string text = format_health(record_, boot_id_);
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
