// Arbitrary bytes as a MIG configuration: read, or refused with a place inside the text.
#include <algorithm>
#include <cstdlib>
#include <string_view>

#include "config/mig_parted.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice::config;
  const std::string text(data, data + size);
  const auto lines = static_cast<uint32_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  const MigPartedFile file = read_mig_parted(text);
  for (const Problem& problem : file.problems.all())
    if (problem.message.empty() || problem.text("f").empty() || problem.place.line > lines + 1)
      std::abort();
  if (!file.problems.has_errors()) {
    if (file.config.labels.empty()) std::abort();
    for (const auto& [name, label] : file.config.labels)
      for (const MigEntry& entry : label.entries) {
        if (!entry.all_gpus && entry.gpus.empty()) std::abort();
        for (const WantedProfile& profile : entry.profiles)
          if (profile.count == 0 || profile.starts.size() > profile.count) std::abort();
      }
  }
  return 0;
}
