// How long the planner takes: every layout of an A100 with all seven profiles, from each to every
// multiset that it can have. By the time that this thread had on a processor: the worst of 294,386
// plans is the planner's, not the machine's. Prints rows of a markdown table.

#include <fmt/core.h>
#include <time.h>

#include <algorithm>
#include <vector>

#include "mig/change.h"
#include "plan/brute_force_for_test.h"
#include "sim/nvml_port.h"
#include "sim/world.h"

namespace gpuslice {
namespace {

double thread_us() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) * 1e6 + static_cast<double>(now.tv_nsec) / 1e3;
}

plan::Offer offer_of_a100() {
  sim::NodeOptions options;
  options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain}};
  auto world = sim::World::in_memory(options);
  sim::WorldNvml nvml(**world);
  const auto gpu = nvml.gpu(GpuIndex{0}, ports::Detail::kInventory);
  const auto state = mig::read_state(nvml, mig::name_of(*gpu));
  return state->offer;
}

std::vector<plan::Gi> there_of(const plan::Offer& offer, const plan::brute_force::Layout& layout) {
  std::vector<plan::Gi> out;
  for (const auto& [span, id] : layout) {
    const plan::CiProfile& full = offer.find(ProfileId{id})->cis.back();
    out.push_back({GiId{static_cast<uint32_t>(out.size() + 1)},
                   ProfileId{id},
                   span,
                   false,
                   {{CiId{0}, full.id, full.placements[0], false}}});
  }
  return out;
}

int run() {
  const plan::Offer offer = offer_of_a100();
  const auto layouts = plan::brute_force::all_layouts(offer, {true});
  const auto multisets = plan::brute_force::by_multiset(layouts);
  std::vector<double> us;
  us.reserve(layouts.size() * multisets.size());
  for (const auto& layout : layouts) {
    const std::vector<plan::Gi> there = there_of(offer, layout);
    for (const auto& [multiset, unused] : multisets) {
      std::vector<plan::WantedGi> wanted;
      for (const uint32_t id : multiset)
        wanted.push_back({ProfileId{id}, std::nullopt, std::nullopt});
      const double before = thread_us();
      const plan::Outcome outcome = plan::make_plan(offer, there, wanted);
      us.push_back(thread_us() - before);
      if (!std::holds_alternative<plan::Plan>(outcome)) return 1;
    }
  }
  std::sort(us.begin(), us.end());
  fmt::print(
      "| planning one GPU, {} layouts × {} wishes | ≤ 1 ms | median {:.3f} ms, p99 {:.3f} ms, "
      "worst "
      "{:.3f} ms |\n",
      layouts.size(), multisets.size(), us[us.size() / 2] / 1000, us[us.size() * 99 / 100] / 1000,
      us.back() / 1000);
  return 0;
}

}  // namespace
}  // namespace gpuslice

int main() { return gpuslice::run(); }
