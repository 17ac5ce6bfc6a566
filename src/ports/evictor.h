#pragma once

// Puts pods out of a node that are in the way of a change: opt-in. T0; asks and does not wait: pods
// have grace periods, so who asks looks again later. What the API server refuses (a
// PodDisruptionBudget forbids it now) is said afterwards, to Agent::on_not_evicted().

#include <string>

#include "base/result.h"

namespace gpuslice::ports {

class Evictor {
 public:
  virtual ~Evictor() = default;
  // It is about to be asked who holds what. Names are given again: what is evicted from here on is
  // a pod that is known by now, and not another one that has its name by then.
  virtual void before_look() = 0;
  // Whether evict() can do anything about it. kImpossible: never, since it would be back at once;
  // kUnavailable: who it is is not known by now.
  [[nodiscard]] virtual Status evictable(const std::string& name_space,
                                         const std::string& name) const = 0;
  virtual void evict(const std::string& name_space, const std::string& pod) = 0;
};

}  // namespace gpuslice::ports
