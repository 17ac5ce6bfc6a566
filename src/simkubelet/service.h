#pragma once

// The running stand-in: one thread that takes commands, starts pods and notices those that ended.

#include <map>
#include <memory>
#include <string>

#include "base/random.h"
#include "simkubelet/node.h"
#include "simkubelet/plugins.h"
#include "simkubelet/verbs.h"

namespace gpuslice::simkubelet {

class Service {
 public:
  Service(KubeletCommand command, Node& node, Plugins& plugins)
      : command_(std::move(command)), node_(node), plugins_(plugins), random_(1) {}
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  // One request as JSON, one answer as JSON; malformed requests get an answer that says so.
  [[nodiscard]] std::string answer(const std::string& request);
  // Pods whose process ended change their phase; pending pods are tried again.
  void look_at_pods();

 private:
  [[nodiscard]] std::string run_pod(const std::string& request);
  // Admission: GetPreferredAllocation, Allocate, start.
  void admit(const std::string& name);
  void fail_pod(const std::string& name, const std::string& reason, const std::string& message);
  void end_pod(const Pod& pod);

  struct Wish {
    std::vector<std::string> command;
  };
  KubeletCommand command_;
  Node& node_;
  Plugins& plugins_;
  Random random_;
  std::map<std::string, Wish> wishes_;  // by pod
};

}  // namespace gpuslice::simkubelet
