#pragma once

// What calls about a whole GPU have in common.

#include <cstdint>
#include <utility>

#include "sim/life.h"
#include "simnvml/session.h"

namespace gpuslice::simnvml {

[[nodiscard]] inline sim::Vitals vitals(const Call& c) {
  return sim::vitals(c.state(), c.object.gpu, c.now());
}

// A call that answers one number of a whole GPU: f(Call&).
template <class F>
int board_value(const char* name, Handle h, uint32_t* out, F&& f) {
  return device_call(name, h, kGpuOnly,
                     [&](Call& c) { return put(out, static_cast<uint32_t>(f(c))); });
}

}  // namespace gpuslice::simnvml
