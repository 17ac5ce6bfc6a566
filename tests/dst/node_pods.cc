// The pods of the node: how they come and go, and who may put them out.

#include <fmt/format.h>

#include <algorithm>

#include "mig/holders.h"
#include "node_model.h"

namespace gpuslice::dst {

using std::chrono::milliseconds;
using std::chrono::seconds;

namespace {

constexpr uint64_t kSets = 6;  // names that are given again: those of a StatefulSet's pods

std::string uid_of(uint64_t number) { return fmt::format("uid-of-pod-{}", number); }

}  // namespace

// --- coming and going
// ------------------------------------------------------------------------------------------

// A DaemonSet's pods and static ones never have the name of another.
std::string NodeModel::new_name(const Pod& pod) {
  std::string name = fmt::format("train-{}", random_.below(kSets));
  const bool taken = !with_api_ || api_.has_pod(name) || random_.chance(1, 2);
  return taken || pod.stays() ? fmt::format("pod-{}", pod.number) : name;
}

void NodeModel::show_pod(const Pod& pod) {
  if (with_api_)
    api_.put_pod({pod.name, uid_of(pod.number), pod.daemon, pod.is_static, pod.leaving});
}

void NodeModel::pod_comes() {
  std::vector<std::string> names;
  for (const auto& [name, view] : views_)
    if (view.connected && view.list && served_.contains(name)) names.push_back(name);
  if (names.empty() || !kubelet_up_) return;
  const std::string& resource = names[random_.below(names.size())];
  std::set<std::string> taken;
  for (const Pod& pod : pods_)
    if (pod.resource == resource) taken.insert(pod.ids.begin(), pod.ids.end());
  ports::PreferredContainer container;
  for (const ports::Device& device : views_[resource].list->devices)
    if (device.healthy && !taken.contains(device.id)) container.available.push_back(device.id);
  container.size = static_cast<uint32_t>(1 + random_.below(2));
  if (container.available.size() < container.size) return;
  ports::PluginService& service = *served_[resource].service;
  std::vector<std::string> ids(container.available.begin(),
                               container.available.begin() + container.size);
  if (const auto answer = service.preferred({{container}}); answer) ids = answer->containers.at(0);
  const auto allocated = service.allocate({{ids}});
  note(fmt::format("pod {} {}", resource, allocated ? "admitted" : "refused"));
  if (allocated) kept_back_.given(ids, hardware_.gpus());
  // A device that another program has just destroyed: the container cannot be started.
  const std::set<std::string>& uuids = hardware_.uuids();
  const bool there = std::all_of(ids.begin(), ids.end(), [&](const std::string& id) {
    return uuids.contains(id.substr(0, id.find("::")));
  });
  if (allocated && there) {
    Pod pod;
    pod.number = next_pod_++;
    pod.is_static = random_.chance(1, 24);
    pod.daemon = !pod.is_static && random_.chance(1, 16);
    pod.name = new_name(pod);
    pod.resource = resource;
    pod.ids = ids;
    // Not every pod computes: of the others the kubelet alone knows.
    const bool works = random_.chance(2, 3);
    for (const std::string& id : ids) {
      const std::string device = id.substr(0, id.find("::"));
      if (device.starts_with("MIG-")) pod.generations[device] = hardware_.generation(device);
      if (!works) continue;
      if (const auto client = hardware_.work(device)) pod.clients.push_back(*client);
    }
    show_pod(pod);
    pods_.push_back(std::move(pod));
  }
  run_agent();
}

void NodeModel::pod_ends() {
  if (pods_.empty()) return;
  const size_t which = random_.below(pods_.size());
  if (!pods_[which].stuck) end_pod(which);
}

void NodeModel::end_pod(size_t which) {
  const Pod& pod = pods_[which];
  note(fmt::format("pod {} ends", pod.number));
  hardware_.end_work(pod.clients);
  for (const std::string& id : pod.ids) withdrawals_.released(pod.resource, id);
  if (with_api_) {
    api_.remove_pod(pod.name);
    if (pod.name.starts_with("train-") && random_.chance(1, 2)) comes_again(pod.name);
  }
  pods_.erase(pods_.begin() + static_cast<std::ptrdiff_t>(which));
}

// A pod of the same name and without devices, as a StatefulSet makes it.
void NodeModel::comes_again(const std::string& name) {
  time_.after(milliseconds(random_.between(1, 2000)), [this, name] {
    if (api_.has_pod(name)) return;
    api_.put_pod({name, uid_of(next_pod_++)});
    time_.after(seconds(random_.between(5, 60)), [this, name] {
      const bool ours =
          std::any_of(pods_.begin(), pods_.end(), [&](const Pod& pod) { return pod.name == name; });
      if (!ours) api_.remove_pod(name);
    });
  });
}

// --- being put out
// ---------------------------------------------------------------------------------------------

// On some nodes changes wait for who is in the way, on some of these pods are put out.
void NodeModel::choose_patience() {
  const uint64_t dice = random_.below(4);
  evicts_ = with_api_ && dice == 0;
  if (dice < 2) wait_ = seconds(random_.between(evicts_ ? 60 : 10, 120));
}

// What the agent believes after it has looked who holds what: these pods are in the way of a wish
// on a GPU that is in this state. One is so in truth if the wish cannot be while it stays, even if
// all the others go; and it goes for nothing where one of them stays in any case.
void NodeModel::judge_holders(const mig::GpuState& state, const mig::Wish& wish,
                              const std::vector<mig::Holder>& in_the_way) {
  if (!evicts_) return;
  std::set<std::string> named;
  std::set<std::string> devices;
  for (const mig::Holder& holder : in_the_way) {
    named.insert(holder.pod);
    devices.insert(holder.device);
  }
  // What was given out a moment ago, to whom the kubelet does not say yet.
  std::vector<std::string> unlisted = unlisted_ids();
  std::erase_if(unlisted, [&](const std::string& id) { return devices.contains(id); });
  const auto stays = std::find_if(pods_.begin(), pods_.end(), [&](const Pod& pod) {
    return pod.stays() && named.contains(pod.name);
  });
  if (stays != pods_.end()) {
    for (const std::string& name : named) for_nothing_.emplace(name, stays->name);
    return;
  }
  mig::GpuState idle = state;
  idle.processes.clear();
  idle.gpu_busy = false;
  for (plan::Gi& gi : idle.there) {
    gi.busy = false;
    for (plan::Ci& ci : gi.cis) ci.busy = false;
  }
  for (const Pod& one : pods_) {
    if (!named.contains(one.name)) continue;
    std::vector<ports::PodDevices> stay;
    for (const Pod& pod : pods_)
      if (pod.number == one.number || !named.contains(pod.name))
        stay.push_back({"default", pod.name, "main", pod.resource, pod.ids});
    const auto holders =
        mig::merged(mig::pod_holders(idle, stay), {mig::ledger_holders(idle, unlisted)});
    if (mig::decide(idle, wish, holders).refusal) may_go_[one.name] = one.number;
  }
}

void NodeModel::before_look() {
  port_call();
  api_node_->evictor()->before_look();
}

Status NodeModel::evictable(const std::string& name_space, const std::string& name) const {
  return api_node_->evictor()->evictable(name_space, name);
}

// The agent, before it asks the API server: through the evictor that a process has.
void NodeModel::evict(const std::string& name_space, const std::string& name) {
  port_call();
  const auto pod = may_go_.find(name);
  if (pod != may_go_.end()) asked_to_go_.insert(uid_of(pod->second));
  if (wrong_eviction_.empty() && (!evicts_ || pod == may_go_.end())) {
    const auto beside = for_nothing_.find(name);
    std::string why = "nobody has said that pods may be";
    if (evicts_ && beside == for_nothing_.end())
      why = "holds nothing that must go";
    else if (evicts_)
      why = beside->second == name
                ? "would be back at once"
                : fmt::format("goes for nothing: {} is in the way as well, and stays",
                              beside->second);
    wrong_eviction_ = fmt::format("pod {} is to be evicted, and {}", name, why);
  }
  api_node_->evictor()->evict(name_space, name);
}

// The API server, asked by whoever it was.
ApiServer::Evicted NodeModel::evicted(const std::string& name, const std::string& uid) {
  const auto wrong = [&](const char* why) {
    if (wrong_eviction_.empty()) wrong_eviction_ = fmt::format("pod {} was evicted{}", name, why);
  };
  const auto find = [&] {
    return std::find_if(pods_.begin(), pods_.end(),
                        [&](const Pod& one) { return one.name == name; });
  };
  const std::optional<Fault> how = std::exchange(next_eviction_, std::nullopt);
  if (const auto pod = find(); pod != pods_.end() && !pod->stuck &&
                               (how == Fault::kEvictedGone || how == Fault::kEvictedAnother)) {
    end_pod(static_cast<size_t>(pod - pods_.begin()));
    if (how == Fault::kEvictedAnother) api_.put_pod({name, uid_of(next_pod_++)});
  }
  if (!api_.has_pod(name)) {
    strike(Fault::kEvictedGone);
    return ApiServer::Evicted::kGone;
  }
  if (!uid.empty() && api_.uid_of_pod(name) != uid) {
    strike(Fault::kEvictedAnother);
    return ApiServer::Evicted::kAnother;
  }
  const auto pod = find();
  if (pod == pods_.end() || uid_of(pod->number) != api_.uid_of_pod(name)) {
    wrong(" in the place of one that had its name");
    return ApiServer::Evicted::kYes;
  }
  if (!asked_to_go_.contains(uid)) wrong(" in the place of one that had its name");
  if (pod->stays()) wrong(", and would be back at once");
  if (pod->leaving) return ApiServer::Evicted::kYes;
  if (now() < budget_until_) {
    strike(Fault::kBudgetForbids);
    return ApiServer::Evicted::kBudget;
  }
  strike(Fault::kPodEvicted);
  pod->leaving = true;
  if (how == Fault::kPodNeverEnds) {
    strike(Fault::kPodNeverEnds);
    pod->stuck = true;
  }
  if (how == Fault::kEvictionCut) api_.cut_next_eviction();
  show_pod(*pod);
  time_.after(milliseconds(random_.between(0, 20'000)), [this, number = pod->number] {
    for (size_t i = 0; i < pods_.size(); ++i)
      if (pods_[i].number == number && !pods_[i].stuck) return end_pod(i);
  });
  return ApiServer::Evicted::kYes;
}

// Strikes at an eviction; another layout asks for some.
void NodeModel::eviction_fault(Fault fault) {
  if (!evicts_) return;
  if (fault == Fault::kBudgetForbids)
    budget_until_ = now() + seconds(random_.between(5, 60));
  else if (fault != Fault::kPodEvicted && fault != Fault::kHoldersWaited)
    next_eviction_ = fault;
  set_label(some_label());
}

}  // namespace gpuslice::dst
