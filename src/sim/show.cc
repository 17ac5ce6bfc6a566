#include "sim/show.h"

#include <array>
#include <map>
#include <nlohmann/json.hpp>

#include "sim/clock.h"
#include "sim/mig.h"

namespace gpuslice::sim {
namespace {

// Keys stand in the order in which they are written here, not by name: people read this too.
using Json = nlohmann::ordered_json;
using Pids = std::map<uint16_t, int32_t>;  // live slots

constexpr uint64_t kMiB = uint64_t{1} << 20;

Json placement(uint8_t start, uint8_t size) { return {{"start", start}, {"size", size}}; }

// The work on one instance (gi == kNone: on the whole GPU) of processes that live.
Json workers(const State& state, const Pids& pids, uint32_t gpu, uint8_t gi, uint8_t ci) {
  Json list = Json::array();
  for (const Work& work : state.works) {
    if (!work.used || work.gpu != gpu || work.gi != gi || work.ci != ci) continue;
    const auto pid = pids.find(work.client);
    if (pid == pids.end()) continue;
    list.push_back({{"pid", pid->second},
                    {"startTime", state.clients[work.client].start_ticks},
                    {"memoryMiB", work.memory_bytes / kMiB},
                    {"activity", work.activity_permille / 1000.0}});
  }
  return list;
}

Json attached(const State& state, const Pids& pids, uint32_t gpu) {
  Json list = Json::array();
  for (const auto& [slot, pid] : pids) {
    const Client& client = state.clients[slot];
    if ((client.attached_gpus >> gpu & 1) == 0) continue;
    Json held = Json::array();
    for (const Subscription& one : state.subscriptions) {
      if (!one.used || one.client != slot || one.gpu != gpu) continue;
      Json handle = {{"gi", one.gi}};
      if (one.ci != kNone) handle["ci"] = one.ci;
      held.push_back(std::move(handle));
    }
    list.push_back({{"pid", pid},
                    {"startTime", client.start_ticks},
                    {"name", client.name},
                    {"events", (client.event_gpus >> gpu & 1) != 0},
                    {"handles", std::move(held)}});
  }
  return list;
}

Json compute_instances(const State& state, const Pids& pids, uint32_t gpu, uint8_t gi) {
  Json list = Json::array();
  for (uint8_t id = 0; id < kMaxCis; ++id) {
    const Ci& ci = state.gpus[gpu].gis[gi].cis[id];
    if (!ci.live) continue;
    list.push_back({{"id", id},
                    {"profile", ci_name(state, gpu, gi, id)},
                    {"placement", placement(ci.start, ci.size)},
                    {"generation", ci.generation},
                    {"uuid", mig_uuid(state, gpu, gi, id)},
                    {"clients", workers(state, pids, gpu, gi, id)}});
  }
  return list;
}

Json gpu_instances(const State& state, const Pids& pids, uint32_t gpu) {
  Json list = Json::array();
  for (uint8_t id = 0; id < kMaxGis; ++id) {
    const Gi& gi = state.gpus[gpu].gis[id];
    if (!gi.live) continue;
    const gpu::Profile& profile = gi_profile(state, gpu, id);
    list.push_back({{"id", id},
                    {"profile", profile.name},
                    {"profileId", profile.id.value},
                    {"placement", placement(gi.start, gi.size)},
                    {"generation", gi.generation},
                    {"computeInstances", compute_instances(state, pids, gpu, id)}});
  }
  return list;
}

Json calls(const CallCounts& counts) {
  const auto one = [](const CallCount& count) -> Json {
    return {{"ok", count.ok}, {"failed", count.failed}};
  };
  return {{"createGi", one(counts.create_gi)},      {"destroyGi", one(counts.destroy_gi)},
          {"createCi", one(counts.create_ci)},      {"destroyCi", one(counts.destroy_ci)},
          {"setMigMode", one(counts.set_mig_mode)}, {"reset", one(counts.reset)}};
}

std::string boot_id(const Node& node) {
  std::string text;
  for (size_t i = 0; i < sizeof(node.boot_id); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += fmt::format("{:02x}", node.boot_id[i]);
  }
  return text;
}

}  // namespace

std::string show_json(const World& world, const Visible& visible) {
  const std::shared_ptr<const State> state = world.snapshot();
  Pids pids;
  for (const LiveClient& client : world.live_clients(*state)) pids[client.slot] = client.pid;

  Json gpus = Json::array();
  for (uint32_t index = 0; index < state->node.gpu_count; ++index) {
    const Gpu& gpu = state->gpus[index];
    gpus.push_back({{"index", index},
                    {"uuid", gpu.uuid},
                    {"name", board_of(*state, index).name},
                    {"minor", gpu.minor},
                    {"visible", !visible || visible(*state, index)},
                    {"lost", gpu.lost != 0},
                    {"resetRequired", gpu.reset_required != 0},
                    {"migMode", {{"current", gpu.mig_current}, {"pending", gpu.mig_pending}}},
                    {"resets", gpu.resets},
                    {"generation", gpu.generation},
                    {"gpuInstances", gpu_instances(*state, pids, index)},
                    {"clients", workers(*state, pids, index, kNone, kNone)},
                    {"attached", attached(*state, pids, index)},
                    {"calls", calls(gpu.calls)}});
  }
  const Json document = {
      {"driver", state->node.driver},    {"time", now_ns(*state)},
      {"seed", state->node.seed},        {"bootId", boot_id(state->node)},
      {"boots", state->node.boot_count}, {"driverReloads", state->node.driver_reloads},
      {"gpus", std::move(gpus)}};
  return document.dump(2) + "\n";
}

}  // namespace gpuslice::sim
