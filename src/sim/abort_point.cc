#include "sim/abort_point.h"

#include <atomic>

namespace gpuslice::sim {
namespace {
std::atomic<AbortPointHook> the_hook{nullptr};
}  // namespace

void set_abort_point_hook(AbortPointHook hook) { the_hook.store(hook); }

void abort_point(const char* what) {
  if (const AbortPointHook hook = the_hook.load(std::memory_order_relaxed)) [[unlikely]]
    hook(what);
}

}  // namespace gpuslice::sim
