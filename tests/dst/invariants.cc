#include "invariants.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "config/device_plugin.h"
#include "config/mig_parted.h"
#include "mig/holders.h"
#include "mig/label.h"
#include "places.h"

namespace gpuslice::dst {
namespace {

std::string_view base_of(std::string_view id) { return id.substr(0, id.find("::")); }

bool lists(const ports::DeviceList& list, const std::string& id) {
  return std::any_of(list.devices.begin(), list.devices.end(),
                     [&](const ports::Device& d) { return d.id == id; });
}

// 1. No device is offered twice: an id stands once in a list, and in one list only.
// (Between a start and the kubelet's first word about its pods the ledger alone is known, and a
// full disk may have kept the newest one from its file; the same holds for 3.)
std::string offered_twice(NodeModel& node) {
  if (!node.pods_known_since_start()) return "";
  std::unordered_map<std::string_view, std::string_view> seen;
  for (const auto& [resource, list] : node.published()) {
    for (const ports::Device& device : list->devices) {
      const auto [it, fresh] = seen.emplace(device.id, resource);
      if (!fresh)
        return fmt::format("{} is offered twice: as {} and as {}", device.id, it->second, resource);
    }
  }
  return "";
}

// 2. No device is offered that is not there, or was not when the agent last looked. (What a lost
// GPU had is listed, unhealthy, as it was last seen.)
std::string offered_ghost(NodeModel& node) {
  std::string_view good;  // replicas of one device stand beside each other
  for (const auto& [resource, list] : node.published())
    for (const ports::Device& device : list->devices) {
      if (!device.healthy || base_of(device.id) == good) continue;
      good = base_of(device.id);
      if (!node.may_be_offered(std::string(good)))
        return fmt::format("{} offers {}, which is no device of this node", resource, device.id);
    }
  return "";
}

// 3. No pod's device is withdrawn: what a running pod holds stays in the list of its resource,
// unless another program destroyed it.
// (Between a start and the kubelet's first word about its pods the ledger alone is known, which a
// full disk may have kept from the file.)
std::string withdrawn_from_pod(NodeModel& node) {
  if (!node.agent_alive() || !node.pods_known_since_start()) return "";
  if (node.published().empty())
    return "";  // it has not begun to offer: the driver has not answered since its start
  for (const Pod& pod : node.pods()) {
    const std::string first(base_of(pod.ids.front()));
    if (node.taken_by_others(first) || node.taken_by_others(std::string(base_of(pod.ids.back()))))
      continue;
    const auto list = node.published().find(pod.resource);
    if (list == node.published().end() && node.unknowable(first)) continue;
    if (list == node.published().end())
      return fmt::format("pod {} holds {} of {}, which is not offered any more", pod.number,
                         pod.ids[0], pod.resource);
    for (const std::string& id : pod.ids)
      if (!lists(*list->second, id) && !node.unknowable(std::string(base_of(id))))
        return fmt::format("pod {} holds {} of {}, which was withdrawn", pod.number, id,
                           pod.resource);
  }
  return "";
}

// 4. No two pods hold the same device.
std::string held_twice(NodeModel& node) {
  std::set<std::pair<std::string_view, std::string_view>> seen;
  for (const Pod& pod : node.pods())
    for (const std::string& id : pod.ids)
      if (!seen.emplace(pod.resource, id).second)
        return fmt::format("{} of {} is held by two pods", id, pod.resource);
  return "";
}

// 5. Nothing grows: queues, files, resources are bounded by what there is, not by what happened.
std::string grown(NodeModel& node) {
  constexpr size_t kMostQueued = 200;
  constexpr size_t kMostFiles = 24;
  constexpr size_t kMostResources = 8;
  if (node.queue_size() > kMostQueued)
    return fmt::format("{} events are queued", node.queue_size());
  if (node.files_count() > kMostFiles) return fmt::format("{} files were made", node.files_count());
  if (node.published().size() > kMostResources)
    return fmt::format("{} resources are served", node.published().size());
  return "";
}

// 7. No instance that a pod holds is destroyed, not even to be made again.
std::string instance_lost(NodeModel& node) {
  for (const Pod& pod : node.pods())
    for (const auto& [uuid, generation] : pod.generations)
      if (!node.taken_by_others(uuid) && node.hardware().generation(uuid) != generation)
        return fmt::format("pod {} holds {}, which was {} under it", pod.number, uuid,
                           node.hardware().generation(uuid) == 0 ? "destroyed" : "made anew");
  return "";
}

// 8. Nobody waits for MIG longer than its deadline, and than it was told to wait for holders.
std::string pending_for_ever(NodeModel& node) {
  if (!node.agent_alive() || node.mig_status().state != "pending") return "";
  if (node.mig_state_age() <= agent::kPendingDeadline + node.wait() + std::chrono::seconds(10))
    return "";
  return fmt::format(
      "MIG has been pending for {} s",
      std::chrono::duration_cast<std::chrono::seconds>(node.mig_state_age()).count());
}

// One of those in the way, if there is none among them that nobody can put out.
std::string pods_that_could_go(NodeModel& node, const std::vector<mig::Holder>& holders) {
  std::string one;
  for (const mig::Holder& holder : holders)
    for (const Pod& pod : node.pods()) {
      if (pod.name != holder.pod) continue;
      if (pod.stays() || pod.stuck) return "";
      one = pod.name;
    }
  return one;
}

// 9. In the end each GPU has the layout that the label wants, or what is in the way is held or
// cannot be, and the state says which.
std::string layout_in_the_end(NodeModel& node) {
  if (node.mig_label().empty()) return "";
  const config::MigPartedFile file = config::read_mig_parted(node.last_good_mig());
  const auto label = mig::choose_label(file.config, node.mig_label(), "f");
  const std::string& state = node.mig_status().state;
  const std::vector<ports::Gpu>& gpus = node.hardware().gpus();
  const auto wish = label ? mig::wish_of_label(file.config.labels.at(*label), *label, gpus, "f")
                          : Result<mig::NodeWish>(std::unexpected(label.error()));
  if (!wish) return state == "failed" ? "" : "a label that means nothing ended as " + state;
  std::vector<ports::PodDevices> pods;
  for (const Pod& pod : node.pods())
    pods.push_back({"default", pod.name, "main", pod.resource, pod.ids});
  bool refused = false;
  bool impossible = false;
  std::string could_go;
  std::string missing;
  for (const auto& [index, one] : wish->gpus) {
    const mig::GpuState there = node.hardware().state_of(mig::name_of(gpus[index]));
    const auto by_pods = mig::pod_holders(there, pods);
    const auto holders = mig::merged(
        mig::with_pods(mig::process_holders(there), by_pods, [](uint32_t) { return true; }),
        {by_pods});
    const mig::Decision decision = mig::decide(there, one, holders);
    // What only shows with MIG on was tried, and undone.
    const bool tried = decision.plan && decision.plan->provisional;
    refused = refused || tried || decision.refusal.has_value();
    if (decision.refusal && decision.refusal->error.code == Code::kInUse)
      could_go = pods_that_could_go(node, decision.refusal->holders);
    impossible =
        impossible || tried || (decision.refusal && decision.refusal->error.code != Code::kInUse);
    if (decision.plan && !tried && !decision.plan->nothing_to_do())
      missing = fmt::format("GPU {} is {}, and label {} wants another layout", index,
                            mig::layout_text(there.layout(), there), node.mig_label());
  }
  if (!missing.empty() && !impossible) return missing + " (" + node.mig_status().reason + ")";
  if (node.evicts() && !impossible && !could_go.empty())
    return fmt::format("pod {} is in the way of label {}, could be evicted, and is there", could_go,
                       node.mig_label());
  const bool waits = state == "pending" && node.wait() > Duration::zero() &&
                     node.mig_state_age() <= node.wait() + std::chrono::seconds(10);
  if (refused != (state == "failed" || waits))
    return fmt::format("label {} ended as \"{}\": {}", node.mig_label(), state,
                       node.mig_status().reason);
  return "";
}

// 10. What an XID has marked is listed as unhealthy within two seconds, all of it, and stays so
// until the hardware itself has changed: no restart makes a dead GPU healthy. A GPU that is lost,
// or tells that it is not well, is unhealthy from the agent's next look on.
std::string trusted_too_early(NodeModel& node) {
  const auto& struck = node.struck();
  const auto& demanded = node.demanded();
  if (struck.empty() && demanded.empty()) return "";
  std::map<std::string, MonotonicTime, std::less<>> due;
  for (const auto& [uuid, mark] : struck) due[uuid] = mark.due;
  std::map<std::string, MonotonicTime, std::less<>> ill(demanded.begin(), demanded.end());
  for (const ports::Gpu& gpu : node.hardware().gpus())
    for (const ports::MigDevice& device : gpu.mig_devices) {
      if (const auto whole = struck.find(gpu.uuid); whole != struck.end())
        due.try_emplace(device.uuid, whole->second.due);
      if (const auto whole = demanded.find(gpu.uuid); whole != demanded.end())
        ill.try_emplace(device.uuid, whole->second);
    }
  for (const auto& [resource, list] : node.published())
    for (const ports::Device& device : list->devices) {
      if (!device.healthy) continue;
      const auto mark = due.find(base_of(device.id));
      if (mark != due.end() && node.now() >= mark->second)
        return fmt::format("{}: {} is listed as healthy, and an XID has marked it", resource,
                           device.id);
      if (ill.contains(base_of(device.id)))
        return fmt::format("{}: {} is listed as healthy, and its GPU was seen not to be", resource,
                           device.id);
    }
  // The kubelet has heard of it as well.
  constexpr Duration kHeard = std::chrono::seconds(2);
  for (const auto& [resource, view] : node.views()) {
    if (!view.connected || !view.list) continue;
    for (const ports::Device& device : view.list->devices) {
      if (!device.healthy) continue;
      const auto one = ill.find(base_of(device.id));
      if (one != ill.end() && node.now() >= one->second + kHeard)
        return fmt::format("the kubelet sees {} of {} as healthy, and its GPU was seen not to be",
                           device.id, resource);
    }
  }
  return "";
}

// … and the next look comes soon.
std::string not_looked_at(NodeModel& node) {
  constexpr Duration kMostBetweenLooks = std::chrono::seconds(8);
  if (!node.agent_alive() || node.not_looked_for() <= kMostBetweenLooks) return "";
  return fmt::format(
      "nobody has looked at the GPUs for {} s",
      std::chrono::duration_cast<std::chrono::seconds>(node.not_looked_for()).count());
}

// 10, in the end: what the agent says of the GPUs that are not well is what is.
std::string troubles_in_the_end(NodeModel& node) {
  NodeModel::Troubles said;
  for (const agent::TroubleMark& one : node.agent()->status()->troubles)
    said.emplace(one.gpu, one.seen.trouble);
  for (const auto& [gpu, trouble] : node.troubles())
    if (!said.contains({gpu, trouble}))
      return fmt::format("{} tells of \"{}\", and the agent says nothing of it", gpu,
                         agent::word_of(trouble));
  for (const auto& [gpu, trouble] : said)
    if (!node.troubles().contains({gpu, trouble}))
      return fmt::format("the agent says \"{}\" of {}, and it is over", agent::word_of(trouble),
                         gpu);
  return "";
}

// 10, in the end: no XID is told of whose GPU was reset, wherever the driver tells of it.
std::string marked_in_the_end(NodeModel& node) {
  for (const auto& [uuid, why] : node.agent()->status()->unhealthy) {
    if (why.find("XID ") == std::string::npos || node.was_struck(uuid)) continue;
    const auto& gpus = node.hardware().gpus();
    const auto of_struck = [&](const ports::Gpu& gpu) {
      return node.was_struck(gpu.uuid) &&
             std::any_of(gpu.mig_devices.begin(), gpu.mig_devices.end(),
                         [&](const ports::MigDevice& one) { return one.uuid == uuid; });
    };
    if (std::none_of(gpus.begin(), gpus.end(), of_struck))
      return fmt::format("the agent says \"{}\" of {}, and its GPU was reset since", why, uuid);
  }
  return "";
}

// 11. A configuration counts only when the Node's label chose its file, in this life of the agent
// or at its start; before the first sight of the Node the last good one alone.
std::string unasked_config(NodeModel& node) {
  if (node.api() == nullptr || !node.agent_alive()) return "";
  const std::string& from = node.agent()->status()->config_from;
  if (from.empty() || from == kLastGood || node.chosen_files().contains(from)) return "";
  return fmt::format("{} is in force, and the Node's label never chose it", from);
}

// 12. For one wish each device is withdrawn at most once.
std::string withdrawn_twice(NodeModel& node) { return node.withdrawals().twice(); }

// 13. In the end the Node says what is: the state of MIG, the labels of what is served and no
// others of ours, and no pause that a crashed MIG manager left.
std::string node_in_the_end(NodeModel& node) {
  if (node.api() == nullptr) return "";
  const ApiServer& api = *node.api();
  const std::string state = api.label(std::string(bin::kMigStateLabel));
  if (state != node.mig_status().state)
    return fmt::format("the Node says MIG is \"{}\", and it is \"{}\"", state,
                       node.mig_status().state);
  for (const auto& [key, value] : node.labels_wanted())
    if (api.label(key) != value)
      return fmt::format("the Node's label {} is \"{}\", not \"{}\"", key, api.label(key), value);
  for (const std::string& key : api.owned())
    if (!node.labels_wanted().contains(key))
      return fmt::format("the Node still has the agent's label {}", key);
  if (const auto paused = bin::paused_labels(api.labels()); !paused.empty())
    return fmt::format("the Node's label {} is still paused", paused.front());
  return "";
}

// 14. No pod is evicted unless that was asked for, none but those that hold what must go, and none
// beside one that nobody can put out.
std::string wrongly_evicted(NodeModel& node) { return node.wrong_eviction(); }

// 15. What is withdrawn for a change of MIG is given to nobody new, also while it waits for
// holders.
std::string given_all_the_same(NodeModel& node) { return node.kept_back().wrong(); }

}  // namespace

// An instance that was destroyed under its pod leaves the lists as well: the cause first.
std::string broken_now(NodeModel& node) {
  for (const auto check : {offered_twice, offered_ghost, instance_lost, withdrawn_from_pod,
                           held_twice, grown, pending_for_ever, trusted_too_early, not_looked_at,
                           unasked_config, withdrawn_twice, wrongly_evicted, given_all_the_same})
    if (std::string fault = check(node); !fault.empty()) return fault;
  return "";
}

// 6. In the end the kubelet's view is the configuration's: after the last fault, within a minute of
// calm, every resource that the last good configuration asks for is registered, watched and shows
// just its devices, all healthy but what an XID has marked and the GPUs that are not well.
std::string broken_in_the_end(NodeModel& node) {
  if (!node.agent_alive()) return "the agent is not running";
  const config::DevicePluginFile file =
      config::read_device_plugin(node.last_good_text(), config::Compat::kStrict);
  const auto effective = config::merge({}, file.config, "f");
  if (!effective) return "the last good configuration is none: " + effective.error().message;
  if (std::string layout = layout_in_the_end(node); !layout.empty()) return layout;
  if (std::string said = node_in_the_end(node); !said.empty()) return said;
  if (std::string said = troubles_in_the_end(node); !said.empty()) return said;
  if (std::string said = marked_in_the_end(node); !said.empty()) return said;
  agent::Hardware hardware;
  hardware.gpus = node.visible_gpus();
  for (const auto& [uuid, why] : node.agent()->status()->unhealthy)
    if (node.was_struck(uuid) && why.find("XID ") != std::string::npos)
      hardware.unhealthy[uuid] = why;
  for (const auto& [uuid, since] : node.demanded()) hardware.unhealthy[uuid] = "not well";
  agent::HeldIds held;
  for (const Pod& pod : node.pods()) held[pod.resource].insert(pod.ids.begin(), pod.ids.end());
  const auto wanted = agent::make_device_table(hardware, *effective, held);
  if (!wanted) return "the wanted table cannot be made: " + wanted.error().message;
  for (const auto& [resource, table] : wanted->resources) {
    const auto view = node.views().find(resource);
    if (view == node.views().end() || !view->second.connected)
      return fmt::format("{} is wanted, and the kubelet does not listen to it", resource);
    if (!view->second.list || *view->second.list != *table->list)
      return fmt::format("{}: the kubelet sees {} devices, {} are wanted, or they differ", resource,
                         view->second.list ? view->second.list->devices.size() : 0,
                         table->list->devices.size());
  }
  for (const auto& [resource, view] : node.views())
    if (view.connected && view.list && !view.list->devices.empty() &&
        !wanted->resources.contains(resource))
      return fmt::format("{} is still offered with {} devices, and nothing wants it", resource,
                         view.list->devices.size());
  const bool nothing =
      std::all_of(wanted->resources.begin(), wanted->resources.end(),
                  [](const auto& one) { return one.second->list->devices.empty(); });
  if (!node.agent()->status()->ready && !nothing)
    return "the agent is not ready: " + node.agent()->status()->why_not_ready;
  return "";
}

}  // namespace gpuslice::dst
