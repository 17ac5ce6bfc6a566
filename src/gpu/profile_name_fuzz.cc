// Arbitrary bytes as a profile name: refused, or a name that its own spelling gives again.
#include <cstdlib>
#include <string>

#include "gpu/profile_name.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice::gpu;
  const std::string text(data, data + size);
  const auto name = parse_profile_name(text);
  if (!name) return name.error().message.empty() ? (std::abort(), 0) : 0;
  const auto again = parse_profile_name(name->text());
  if (!again || *again != *name) std::abort();
  return 0;
}
