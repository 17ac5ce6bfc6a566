#include "bin/node_evictor.h"

#include <utility>

namespace gpuslice::bin {

void NodeEvictor::begin(ports::KubeApi& kube) {
  kube_ = &kube;
  kube.watch_pods();
}

const ports::PodObject* NodeEvictor::find(const ports::PodList& pods,
                                          const ports::ObjectName& name) {
  if (pods == nullptr) return nullptr;
  for (const ports::PodObject& pod : *pods)
    if (pod.name == name) return &pod;
  return nullptr;
}

void NodeEvictor::refuse(const ports::ObjectName& pod, Error why) {
  refused_.insert_or_assign(pod, std::move(why));
  refusals_->after({}, [this] {
    for (const auto& [name, error] : std::exchange(refused_, {}))
      failed_(name.name_space, name.name, error);
  });
}

Status NodeEvictor::evictable(const std::string& name_space, const std::string& pod) const {
  const ports::ObjectName name{name_space, pod};
  if (pods_ == nullptr)
    return fail(Code::kUnavailable, "the API server has not listed the node's pods yet");
  const ports::PodObject* there = find(pods_, name);
  if (there == nullptr)
    return fail(Code::kUnavailable, "the API server knows of no such pod on this node");
  if (there->is_static)
    return fail(Code::kImpossible,
                "it is a static pod: remove its file from the kubelet's folder of manifests");
  if (there->daemon)
    return fail(Code::kImpossible,
                "it is a DaemonSet's and would be back before the change: keep the DaemonSet off "
                "this node");
  const ports::PodObject* before = find(looked_at_, name);
  if (before == nullptr || before->uid != there->uid)
    return fail(Code::kUnavailable,
                "the API server names a pod that was not known yet when it was looked who holds "
                "what: it is looked again");
  return {};
}

void NodeEvictor::evict(const std::string& name_space, const std::string& pod) {
  const ports::ObjectName name{name_space, pod};
  if (kube_ == nullptr) return;
  if (Status may = evictable(name_space, pod); !may) return refuse(name, std::move(may).error());
  const ports::PodObject* there = find(pods_, name);
  if (there->deleting) return;
  kube_->evict(name, there->uid);
}

void NodeEvictor::on_evicted(const ports::ObjectName& pod, const Status& status) {
  if (status || status.error().code == Code::kNotFound) return;
  failed_(pod.name_space, pod.name, status.error());
}

}  // namespace gpuslice::bin
