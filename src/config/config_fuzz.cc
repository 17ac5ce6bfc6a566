// Arbitrary bytes as a device-plugin configuration, strictly and as NVIDIA's plugin takes it: read
// or refused with a place inside the text, never both a refusal in kNvidia and silence in strict
// mode.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "config/device_plugin.h"
#include "config/effective.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice::config;
  const std::string text(data, data + size);
  const auto lines = static_cast<uint32_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  const DevicePluginFile strict = read_device_plugin(text, Compat::kStrict);
  for (const Problem& problem : strict.problems.all())
    if (problem.message.empty() || problem.text("f").empty() || problem.place.line > lines + 1)
      std::abort();
  const DevicePluginFile nvidia = read_device_plugin(text, Compat::kNvidia);
  if (nvidia.problems.has_errors() && !strict.problems.has_errors()) std::abort();
  if (!strict.problems.has_errors() && !merge({}, strict.config, "f")) std::abort();
  return 0;
}
