// Arbitrary bytes as a hooks file: read, or refused with a place inside the text.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "config/hooks_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace gpuslice::config;
  const std::string text(data, data + size);
  const auto lines = static_cast<uint32_t>(std::count(text.begin(), text.end(), '\n')) + 1;
  const HooksFile file = read_hooks(text);
  for (const Problem& problem : file.problems.all())
    if (problem.message.empty() || problem.place.line > lines + 1) std::abort();
  if (file.problems.has_errors()) return 0;
  const Hooks& hooks = file.hooks;
  for (const auto* list :
       {&hooks.apply_start, &hooks.pre_apply_mode, &hooks.pre_apply_config, &hooks.apply_exit})
    for (const Hook& hook : *list)
      if (hook.command.empty()) std::abort();
  return 0;
}
