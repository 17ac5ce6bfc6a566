// Whole nodes on virtual time, seeded, with faults: N seeds from S on, over all CPUs, or one seed,
// twice, with its trace.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/text.h"
#include "invariants.h"
#include "node_model.h"

namespace gpuslice::dst {
namespace {

constexpr uint64_t kLeastStrikes = 100;  // of each fault, in a run of many seeds
constexpr uint64_t kEvents = 220;        // of a node's life
constexpr Duration kCalm = std::chrono::seconds(90);
constexpr Duration kTry = std::chrono::seconds(2);
constexpr uint64_t kProgress = 10'000;  // seeds
constexpr uint64_t kMostFailed = 10;    // then it ends

struct Options {
  uint64_t first = 1;
  uint64_t seeds = 100;
  uint64_t events = kEvents;
  uint64_t threads = std::max(1U, std::thread::hardware_concurrency());
  bool many = false;  // --seeds was given
  bool seed = false;  // --seed was given
  bool trace = false;
  bool strike_floor = true;
};

struct Outcome {
  std::string broken;  // "" when all held
  uint64_t hash = 0;
  uint64_t at_event = 0;
  std::array<uint64_t, kFaults> strikes{};
};

Outcome run_seed(uint64_t seed, const Options& options) {
  NodeModel node(seed, options.trace);
  Outcome outcome;
  for (uint64_t i = 0; i < options.events && outcome.broken.empty(); ++i) {
    node.chance_event();
    outcome.broken = broken_now(node);
    outcome.at_event = i;
  }
  if (outcome.broken.empty()) {
    node.heal();
    node.calm(kCalm + node.wait());
    outcome.broken = broken_now(node);
    // A change that cannot be may be tried once more just then.
    if (outcome.broken.empty() && !broken_in_the_end(node).empty()) {
      node.calm(kTry);
      outcome.broken = broken_now(node);
    }
    if (outcome.broken.empty()) outcome.broken = broken_in_the_end(node);
    if (!outcome.broken.empty()) outcome.at_event = options.events;
  }
  outcome.hash = node.trace().hash();
  outcome.strikes = node.strikes();
  for (const std::string& line : node.trace().lines()) fmt::print("{}\n", line);
  return outcome;
}

int run_one(const Options& options) {
  const Outcome first = run_seed(options.first, options);
  Options quiet = options;
  quiet.trace = false;
  const Outcome again = run_seed(options.first, quiet);
  fmt::print("seed {}: trace {:016x}{}\n", options.first, first.hash,
             first.hash == again.hash ? ", the same again" : ", DIFFERENT AGAIN");
  if (!first.broken.empty())
    fmt::print("seed {}: event {}: {}\n", options.first, first.at_event, first.broken);
  return first.broken.empty() && first.hash == again.hash ? 0 : 1;
}

int run_many(const Options& options) {
  std::mutex mutex;
  uint64_t next = options.first;
  const uint64_t end = options.first + options.seeds;
  uint64_t failed = 0;
  uint64_t differed = 0;
  std::array<uint64_t, kFaults> strikes{};
  const auto work = [&] {
    for (;;) {
      uint64_t seed = 0;
      {
        const std::lock_guard lock(mutex);
        if (next == end || failed >= kMostFailed) return;
        seed = next++;
        if ((seed - options.first) % kProgress == 0 && seed != options.first) {
          fmt::print("{} seeds\n", seed - options.first);
          std::fflush(stdout);
        }
      }
      const Outcome outcome = run_seed(seed, options);
      // Every hundredth seed is run again: the same bytes, or determinism is lost.
      const bool same = seed % 100 != 0 || run_seed(seed, options).hash == outcome.hash;
      const std::lock_guard lock(mutex);
      for (size_t i = 0; i < kFaults; ++i) strikes[i] += outcome.strikes[i];
      if (!same) ++differed;
      if (!same) fmt::print("seed {}: another trace the second time\n", seed);
      if (outcome.broken.empty()) continue;
      ++failed;
      fmt::print("seed {}: event {}: {}\n    replay: ./dev sim --seed {} --trace\n", seed,
                 outcome.at_event, outcome.broken, seed);
      std::fflush(stdout);
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t i = 0; i < options.threads; ++i) threads.emplace_back(work);
  for (std::thread& thread : threads) thread.join();
  fmt::print("faults:");
  bool rare = false;
  for (size_t i = 0; i < kFaults; ++i) {
    fmt::print("{} {} {}", i == 0 ? "" : ",", fault_name(static_cast<Fault>(i)), strikes[i]);
    rare = rare || strikes[i] < kLeastStrikes;
  }
  fmt::print("\n");
  if (rare && options.strike_floor)
    fmt::print("a fault struck less than {} times: too few seeds, or it cannot strike\n",
               kLeastStrikes);
  const bool good = failed == 0 && differed == 0 && !(rare && options.strike_floor);
  fmt::print("{} of {} worlds held\n", next - options.first - failed, next - options.first);
  return good ? 0 : 1;
}

int usage() {
  fmt::print(stderr,
             "usage: gpuslice_dst --seeds N [--seed S] [--events M] [--threads T] "
             "[--no-strike-floor] | --seed S [--trace] [--events M]\n"
             "N seeds from S (1) on, over all CPUs; or the seed S alone, twice\n");
  return 2;
}

int main_of(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string_view arg = argv[i];
    const auto number = [&]() { return i + 1 < argc ? parse_u64(argv[++i]) : std::nullopt; };
    if (arg == "--trace") {
      options.trace = true;
    } else if (arg == "--no-strike-floor") {
      options.strike_floor = false;
    } else if (arg == "--seeds" || arg == "--seed" || arg == "--events" || arg == "--threads") {
      const auto value = number();
      if (!value || *value == 0) return usage();
      if (arg == "--seeds") options.seeds = *value;
      if (arg == "--seed") options.first = *value;
      if (arg == "--events") options.events = *value;
      if (arg == "--threads") options.threads = *value;
      options.many = options.many || arg == "--seeds";
      options.seed = options.seed || arg == "--seed";
    } else {
      return usage();
    }
  }
  return options.seed && !options.many ? run_one(options) : run_many(options);
}

}  // namespace
}  // namespace gpuslice::dst

int main(int argc, char** argv) { return gpuslice::dst::main_of(argc, argv); }
