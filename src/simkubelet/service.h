#pragma once

// The running stand-in: one thread that takes commands, starts pods and notices those that ended.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "base/random.h"
#include "simkubelet/messages.h"
#include "simkubelet/node.h"
#include "simkubelet/plugins.h"
#include "simkubelet/runtime.h"
#include "simkubelet/verbs.h"

namespace gpuslice::simkubelet {

using Launcher = std::function<Result<Launched>(const Launch&)>;

class Service {
 public:
  Service(KubeletCommand command, Node& node, Plugins& plugins, Launcher launcher = launch)
      : command_(std::move(command)),
        node_(node),
        plugins_(plugins),
        launcher_(std::move(launcher)),
        random_(1) {}
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // One request as JSON, one answer as JSON; malformed requests get an answer that says so.
  [[nodiscard]] std::string answer(const std::string& request);
  // Pods whose process ended change their phase; pending pods are tried again.
  void look_at_pods();

 private:
  [[nodiscard]] std::string restart(uint32_t times);
  [[nodiscard]] Status run_pod(const PodCall& call);
  [[nodiscard]] Status remove_pods(const PodCall& call);
  // Admission: GetPreferredAllocation, Allocate, start.
  void admit(const std::string& name);
  // The devices of one container; `reusable` are those of an init container before it.
  struct Given {
    std::map<std::string, std::vector<std::string>> ids;  // by resource
    Allocated allocated;
  };
  [[nodiscard]] Result<Given> give(const std::map<std::string, uint32_t>& wanted,
                                   const Given& reusable);
  void fail_pod(const std::string& name, const std::string& reason, const std::string& message);
  void end_pod(const Pod& pod);

  struct Wish {
    std::vector<std::string> command;
  };
  KubeletCommand command_;
  Node& node_;
  Plugins& plugins_;
  Launcher launcher_;
  Random random_;
  std::map<std::string, Wish> wishes_;  // by pod
};

}  // namespace gpuslice::simkubelet
