// Seeded runs of plan and execute with faults at every call: errors before and after the effect,
// calls that hang, kills, power cuts, reboots, lost GPUs, full disks, other programs that change
// the GPU, clients that come and go. At the end of each the GPU has its old layout or its new one,
// or somebody was told why it has neither.
//
//   mig_dst --seeds 10000 [--first 0] [--replay SEED]

#include <fmt/core.h>
#include <fmt/format.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "node.h"

namespace gpuslice::mig_test {
namespace {

using mig::Change;
using mig::End;
using mig::Layout;

enum class Fault : uint8_t {
  kInUse,
  kNoRoom,
  kTimeoutBefore,
  kTimeoutAfter,
  kUnknown,
  kHang,
  kKilled,
  kKilledAfter,
  kPowerCut,
  kReboot,
  kLost,
  kResetRequired,
  kDiskFull,
  kForeignCreates,
  kForeignDestroys,
  kClientComes,
  kClientGoes,
  kCount,
};
constexpr uint64_t kSeedsForEveryFault = 10'000;  // from so many on each strikes 100 times
constexpr size_t kFaults = static_cast<size_t>(Fault::kCount);
constexpr std::array<const char*, kFaults> kNames = {
    "in-use",       "no-room",        "timeout-before", "timeout-after",   "unknown",
    "hang",         "killed",         "killed-after",   "power-cut",       "reboot",
    "lost",         "reset-required", "disk-full",      "foreign-creates", "foreign-destroys",
    "client-comes", "client-goes"};

struct Totals {
  std::array<uint64_t, kFaults> strikes{};
  std::array<uint64_t, 9> ends{};
  uint64_t old_kept = 0, new_made = 0, told = 0;
};

bool changes_something(std::string_view call) {
  return call == "create_gi" || call == "destroy_gi" || call == "create_ci" ||
         call == "destroy_ci" || call == "set_mig_mode";
}

class Run {
 public:
  Run(uint64_t seed, bool verbose) : random_(seed), verbose_(verbose) {
    std::vector<std::string> boards;
    for (const gpu::Board& board : gpu::boards())
      if (board.mig()) boards.emplace_back(board.name);
    sim::NodeOptions options =
        one_board(boards[random_.below(boards.size())], static_cast<sim::Sweep>(random_.below(3)));
    constexpr std::array<const char*, 4> kDrivers = {"535.183.01", "550.90.07", "570.86.15",
                                                     "580.65.06"};
    options.driver = kDrivers[random_.below(kDrivers.size())];
    options.seed = seed;
    options.passthrough = random_.below(20) == 0;
    // Not every board exists with every sweep and driver.
    if (!sim::World::in_memory(options)) options.driver = "580.65.06";
    if (!sim::World::in_memory(options)) options.gpus[0].sweep = sim::Sweep::kPlain;
    node_ = std::make_unique<Node>(options);
    say(fmt::format("seed {}: {} {}", seed, options.gpus[0].board, options.driver));
  }

  // What is wrong, or nothing.
  std::string go(Totals& totals);
  [[nodiscard]] uint64_t hash() const { return hash_; }

 private:
  void say(const std::string& text) {
    for (const char c : text) hash_ = (hash_ ^ static_cast<unsigned char>(c)) * 0x100000001b3;
    if (verbose_) fmt::print("{}\n", text);
  }
  mig::Wish random_wish();
  std::optional<Error> strike(std::string_view call, const std::string& object, bool after);
  void struck(Fault fault) {
    ++strikes_[static_cast<size_t>(fault)];
    --budget_;
    say(fmt::format("  fault: {}", kNames[static_cast<size_t>(fault)]));
  }
  void foreign_creates();
  void foreign_destroys();
  void note_foreign();
  void client_comes();
  void client_goes();
  void allow(const Layout& layout);
  void note_journal();
  mig::Report run_once(const mig::Wish& wish, bool recover_only);
  std::string check_busy(std::string_view call);
  [[nodiscard]] std::string judge_foreign(const Layout& now, const mig::Report& last) const;

  Random random_;
  bool verbose_;
  uint64_t hash_ = 0xcbf29ce484222325;
  std::unique_ptr<Node> node_;
  std::array<uint64_t, kFaults> strikes_{};
  int budget_ = 0;
  bool armed_ = false;
  bool rebooted_ = false, foreign_ = false, lost_ = false, needs_reset_ = false;
  bool told_ = false;             // that something came between
  bool untouched_since_ = false;  // the change of another program, by us
  std::vector<Layout> allowed_;
  std::set<std::pair<plan::Span, ProfileId>> known_;  // instances that somebody meant to be there
  std::vector<uint16_t> workers_;
  // What the last look at the processes showed busy: GPU instances and compute instances, with
  // their generations then.
  std::map<uint8_t, uint64_t> busy_gis_;
  std::map<std::pair<uint8_t, uint8_t>, uint64_t> busy_cis_;
  std::string wrong_;
};

mig::Wish Run::random_wish() {
  const auto state = node_->world->snapshot();
  const gpu::Board& board = sim::board_of(*state, 0);
  mig::Wish wish;
  wish.mig = random_.below(10) != 0;
  if (!wish.mig) return wish;
  const uint64_t kinds = random_.below(3);
  std::set<std::string> used;
  for (uint64_t i = 0; i < kinds; ++i) {
    const gpu::Profile& p = board.profiles[random_.below(board.profiles.size())];
    std::string name(p.name);
    if (p.slices > 1 && random_.below(4) == 0) name = "1c." + name;
    if (!used.insert(name).second) continue;
    // Most wishes fit; what cannot be is refused before anything happens.
    const uint32_t most = std::max<uint32_t>(1, random_.below(3) == 0 ? p.max_instances : 2);
    wish.profiles.push_back(
        {*gpu::parse_profile_name(name), 1 + static_cast<uint32_t>(random_.below(most)), {}});
  }
  return wish;
}

void Run::foreign_creates() {
  const bool done =
      node_->world
          ->write([&](sim::State& state) {
            const gpu::Board& board = sim::board_of(state, 0);
            const gpu::Profile& p = board.profiles[random_.below(board.profiles.size())];
            uint8_t made = 0;
            if (sim::create_gi(state, 0, p.id, std::nullopt, {true, sim::kNoClient}, made) !=
                sim::Ret::kSuccess)
              return false;
            uint8_t ci = 0;
            (void)sim::create_ci(state, 0, made, 0, std::nullopt, {true, sim::kNoClient}, ci);
            return true;
          })
          .value_or(false);
  if (!done) return;
  foreign_ = untouched_since_ = true;
  note_foreign();
  struck(Fault::kForeignCreates);
}

// What is there just after another program created something may be there at the end.
void Run::note_foreign() {
  for (const plan::WantedGi& gi : node_->look(0).layout().gis)
    known_.insert({*gi.placement, gi.profile});
}

void Run::foreign_destroys() {
  const bool done =
      node_->world
          ->write([&](sim::State& state) {
            for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi) {
              if (!state.gpus[0].gis[gi].live || random_.below(3) != 0) continue;
              bool any = false;  // in what is busy only some go
              for (uint8_t ci = 0; ci < sim::kMaxCis; ++ci)
                if (state.gpus[0].gis[gi].cis[ci].live &&
                    sim::destroy_ci(state, 0, gi, ci, {true, sim::kNoClient}) == sim::Ret::kSuccess)
                  any = true;
              return sim::destroy_gi(state, 0, gi, {true, sim::kNoClient}) == sim::Ret::kSuccess ||
                     any;
            }
            return false;
          })
          .value_or(false);
  if (!done) return;
  foreign_ = untouched_since_ = true;
  struck(Fault::kForeignDestroys);
}

void Run::client_comes() {
  const auto state = node_->world->snapshot();
  if (!state->gpus[0].mig_current) return;
  for (uint8_t gi = 0; gi < sim::kMaxGis; ++gi) {
    if (!state->gpus[0].gis[gi].live || !state->gpus[0].gis[gi].cis[0].live) continue;
    if (random_.below(2) != 0) continue;
    workers_.push_back(node_->work(0, gi, 0));
    struck(Fault::kClientComes);
    return;
  }
}

void Run::client_goes() {
  struck(Fault::kClientGoes);
  node_->end_work(workers_.back());
  workers_.pop_back();
}

// A destroy of an instance that the last look at the processes showed busy, and that still is.
std::string Run::check_busy(std::string_view call) {
  const auto gi = node_->nvml->instance_of_call();
  if (!gi) return "";
  const auto id = static_cast<uint8_t>(gi->value);
  const auto state = node_->world->snapshot();
  const sim::Gi& now = state->gpus[0].gis[id];
  if (call == "destroy_gi") {
    const auto it = busy_gis_.find(id);
    if (it == busy_gis_.end() || now.generation != it->second) return "";
    return fmt::format("destroy_gi of GPU instance {}, which is in use", id);
  }
  if (call != "destroy_ci") return "";
  const auto ci = node_->nvml->compute_instance_of_call();
  if (!ci) return "";
  const auto it = busy_cis_.find({id, static_cast<uint8_t>(ci->value)});
  if (it == busy_cis_.end() || now.cis[ci->value].generation != it->second) return "";
  return fmt::format("destroy_ci of compute instance {} of GPU instance {}, which is in use",
                     ci->value, id);
}

std::optional<Error> Run::strike(std::string_view call, const std::string& object, bool after) {
  if (call == "processes" && after) {
    busy_gis_.clear();
    busy_cis_.clear();
    const auto state = node_->world->snapshot();
    for (const sim::Work& work : state->works) {
      if (!work.used || work.gi == sim::kNone) continue;
      if (!state->clients[work.client].alive) continue;
      const sim::Gi& gi = state->gpus[0].gis[work.gi];
      busy_gis_[work.gi] = gi.generation;
      if (work.ci != sim::kNone) busy_cis_[{work.gi, work.ci}] = gi.cis[work.ci].generation;
    }
  }
  if (after && changes_something(call)) untouched_since_ = false;
  if (!after) {
    if (std::string wrong = check_busy(call); !wrong.empty()) wrong_ = wrong;
  }
  if (after && (call == "write")) note_journal();
  if (needs_reset_ && !after && changes_something(call))
    return Error{Code::kNeedsReset, fmt::format("{}: {}: Reset Required (16)", object, call), {}};
  if (!armed_ || budget_ <= 0) return std::nullopt;
  const bool changes = changes_something(call);
  if (random_.below(changes ? 5 : call == "write" ? 6 : 36) != 0) return std::nullopt;
  if (after) {
    switch (random_.below(8)) {
      case 0:
      case 1:
      case 2:
        if (!changes) return std::nullopt;
        struck(Fault::kTimeoutAfter);
        return Error{Code::kTimeout, fmt::format("{}: {}: Timeout (10)", object, call), {}};
      case 3:
        struck(Fault::kKilledAfter);
        if (random_.below(2) == 0) node_->files.power_cut();
        throw Died{};
      default:
        return std::nullopt;
    }
  }
  switch (random_.below(24)) {
    case 0:
      if (!changes) break;
      struck(Fault::kInUse);
      return Error{
          Code::kInUse, fmt::format("{}: {}: In use by another client (19)", object, call), {}};
    case 1:
      if (call != "write") break;
      struck(Fault::kDiskFull);
      return Error{Code::kFailed, fmt::format("{}: No space left on device", object), {}};
    case 2:
      if (!changes) break;
      struck(Fault::kTimeoutBefore);
      return Error{Code::kTimeout, fmt::format("{}: {}: Timeout (10)", object, call), {}};
    case 3:
      if (call == "read" || call == "write" || call == "remove") break;
      struck(Fault::kUnknown);
      return Error{Code::kFailed, fmt::format("{}: {}: Unknown Error (999)", object, call), {}};
    case 4:
      if (call == "read" || call == "write" || call == "remove") break;
      struck(Fault::kHang);
      node_->time += std::chrono::minutes(2);
      throw Died{};  // whoever watches the calls ends the process
    case 5:
      struck(Fault::kKilled);
      throw Died{};
    case 6:
      struck(Fault::kPowerCut);
      node_->files.power_cut();
      throw Died{};
    case 7:
      struck(Fault::kReboot);
      rebooted_ = true;
      (void)node_->world->write([](sim::State& s) { sim::reboot(s); });
      workers_.clear();
      node_->files.power_cut();
      node_->files.boot = fmt::format("boot-{}", random_.below(1'000'000));
      throw Died{};
    case 8:
      if (call == "read" || call == "write" || call == "remove") break;
      struck(Fault::kLost);
      lost_ = true;
      (void)node_->world->write([](sim::State& s) { s.gpus[0].lost = 1; });
      break;
    case 9:
    case 10:
      if (call != "write") {
        foreign_creates();
        break;
      }
      struck(Fault::kDiskFull);
      return Error{Code::kFailed, fmt::format("{}: No space left on device", object), {}};
    case 11:
      foreign_destroys();
      break;
    case 18:
      if (!changes) break;
      struck(Fault::kResetRequired);
      needs_reset_ = true;
      return Error{Code::kNeedsReset, fmt::format("{}: {}: Reset Required (16)", object, call), {}};
    case 12:
    case 17:
      if (workers_.empty()) break;
      client_goes();
      break;
    case 13:
    case 14:
    case 15:
    case 16:
      if (!call.starts_with("create")) break;
      struck(Fault::kNoRoom);
      return Error{
          Code::kImpossible, fmt::format("{}: {}: Insufficient Resources (23)", object, call), {}};
    default:
      if (workers_.empty() || random_.below(4) == 0) {
        client_comes();
        break;
      }
      client_goes();
      break;
  }
  return std::nullopt;
}

void Run::allow(const Layout& layout) {
  allowed_.push_back(layout);
  for (const plan::WantedGi& gi : layout.gis) known_.insert({*gi.placement, gi.profile});
}

void Run::note_journal() {
  for (const auto& [path, text] : node_->files.files) {
    if (!path.ends_with(".journal")) continue;
    const auto journal = mig::parse_journal(text);
    if (!journal) {
      wrong_ = "the journal cannot be read: " + journal.error().message;
      continue;
    }
    allow(journal->before);
    if (!journal->provisional) allow(journal->after);
  }
}

mig::Report Run::run_once(const mig::Wish& wish, bool recover_only) {
  mig::Options options = Node::options();
  options.told = [this](const std::string& text) {
    say("  " + text);
    if (text.find("another program changed it") != std::string::npos) told_ = true;
  };
  Change change(node_->ports(), options, node_->gpu(0));
  if (recover_only)
    change.recover();
  else
    change.run(wish);
  return change.report();
}

bool is_as_wished(const mig::GpuState& state, const mig::Wish& wish) {
  const mig::Decision decision = mig::decide(state, wish, {});
  return decision.plan && !decision.plan->provisional && decision.plan->nothing_to_do();
}

// A layout that is neither old nor new: another program's doing, which somebody was told, and
// nothing on it that nobody meant.
std::string Run::judge_foreign(const Layout& now, const mig::Report& last) const {
  if (!foreign_) return "it is neither old nor new";
  if (untouched_since_) return "";
  if (!told_ && !last.error) return "another program changed it, and nobody was told";
  for (const plan::WantedGi& gi : now.gis)
    if (!known_.contains({*gi.placement, gi.profile})) return "an instance that nobody meant";
  return "";
}

std::string Run::go(Totals& totals) {
  // A start without faults.
  mig::Wish start = random_wish();
  for (int i = 0; i < 3 && start.profiles.empty(); ++i) start = random_wish();
  const mig::Report first = run_once(start, false);
  say(fmt::format("start: {}", first.layout));
  if (random_.below(2) == 0) {
    client_comes();
    strikes_ = {};
  }
  allow(node_->look(0).layout());
  // A monitoring tool: on Ampere the mode cannot change while it holds the driver open.
  if (random_.below(10) == 0) (void)sim::add_simulated_client(*node_->world, 77, "nv-hostengine");
  node_->strike = [this](std::string_view call, const std::string& object, uint64_t, bool after) {
    return strike(call, object, after);
  };
  armed_ = true;
  budget_ = 1 + static_cast<int>(random_.below(5));
  const mig::Wish wish = random_wish();
  bool died = false;
  mig::Report report;
  for (int life = 0; life < 8; ++life) {
    try {
      report = run_once(wish, died && random_.below(2) == 0);
      say(fmt::format("end: {} {}", mig::end_name(report.end),
                      report.error ? report.error->message : ""));
      ++totals.ends[static_cast<size_t>(report.end)];
      died = false;
      told_ = told_ || report.error.has_value();
    } catch (const Died&) {
      say("died");
      died = true;
    }
    if (report.end == End::kHalfDone) return "a GPU was left half-way: " + report.error->message;
    if (!died && node_->files.files.empty()) break;
  }
  armed_ = false;
  for (const uint16_t worker : workers_) node_->end_work(worker);
  if (lost_) {
    // Back on the bus after a reset: instances are gone with it.
    (void)node_->world->write([](sim::State& s) { s.gpus[0].lost = 0; });
  }
  if (needs_reset_) {
    needs_reset_ = false;
    rebooted_ = true;  // as far as instances go
    (void)node_->world->write(
        [](sim::State& s) { return sim::reset_gpu(s, 0, {true, sim::kNoClient}); });
    say("  reset");
  }
  // The next start.
  const mig::Report last = run_once(wish, true);
  say(fmt::format("next start: {} {}", mig::end_name(last.end),
                  last.error ? last.error->message : ""));
  node_->strike = nullptr;
  for (size_t i = 0; i < kFaults; ++i) totals.strikes[i] += strikes_[i];
  if (!wrong_.empty()) return wrong_;
  if (last.end == End::kHalfDone) return "a GPU was left half-way: " + last.error->message;
  const bool quiet = last.end == End::kAlready || last.end == End::kDone;
  if (quiet && !node_->files.files.empty()) return "a journal is left";
  const mig::GpuState state = node_->look(0);
  const Layout now = state.layout();
  if (now == allowed_.front())
    ++totals.old_kept;
  else if (std::find(allowed_.begin(), allowed_.end(), now) != allowed_.end())
    ++totals.new_made;
  else if (is_as_wished(state, wish))
    ++totals.new_made;  // by whomever
  else if (rebooted_ && now.gis.empty())
    ++totals.told;
  else if (std::string wrong = judge_foreign(now, last); wrong.empty())
    ++totals.told;
  else
    return fmt::format("{}: {}", wrong, mig::layout_text(now, state));
  return "";
}

int run(int argc, char** argv) {
  uint64_t seeds = 1000;
  uint64_t first = 0;
  bool replay = false;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string_view name = argv[i];
    const uint64_t value = std::strtoull(argv[i + 1], nullptr, 10);
    if (name == "--seeds") seeds = value;
    if (name == "--first") first = value;
    if (name == "--replay") {
      first = value;
      seeds = 1;
      replay = true;
    }
  }
  Totals totals;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Run one(seed, replay);
    const std::string wrong = one.go(totals);
    if (!wrong.empty()) {
      fmt::print("seed {}: {}\nagain: mig_dst --replay {}\n", seed, wrong, seed);
      return 1;
    }
    if (seed % 100 == 0) {
      Totals ignored;
      Run again(seed, false);
      (void)again.go(ignored);
      if (again.hash() != one.hash()) {
        fmt::print("seed {}: a second run was another one\nagain: mig_dst --replay {}\n", seed,
                   seed);
        return 1;
      }
    }
  }
  fmt::print("{} seeds hold: {} ended old, {} new, {} told\nfaults:", seeds, totals.old_kept,
             totals.new_made, totals.told);
  bool enough = true;
  for (size_t i = 0; i < kFaults; ++i) {
    fmt::print(" {} {}", kNames[i], totals.strikes[i]);
    enough = enough && (seeds < kSeedsForEveryFault || totals.strikes[i] >= 100);
  }
  fmt::print("\nends:");
  for (size_t i = 0; i < totals.ends.size(); ++i)
    fmt::print(" {} {}", mig::end_name(static_cast<End>(i)), totals.ends[i]);
  fmt::print("\n");
  if (!enough) fmt::print("a fault struck fewer than 100 times\n");
  return enough ? 0 : 1;
}

}  // namespace
}  // namespace gpuslice::mig_test

int main(int argc, char** argv) { return gpuslice::mig_test::run(argc, argv); }
