// Arbitrary bytes as a journal, as they are and with the sum that they would need: refused with a
// sentence, or a journal that its own writing gives again.
#include <cstdlib>
#include <string>

#include "mig/journal.h"

namespace {

using namespace gpuslice;

void check_span(const std::optional<plan::Span>& span) {
  if (!span || span->size == 0 || span->start + span->size > plan::kMostSlices) std::abort();
}

void check_layout(const mig::Layout& layout) {
  for (const plan::WantedGi& gi : layout.gis) {
    check_span(gi.placement);
    if (!gi.cis) std::abort();
    for (const plan::WantedCi& ci : *gi.cis) check_span(ci.placement);
  }
}

void check(const std::string& text) {
  const auto journal = mig::parse_journal(text);
  if (!journal) {
    if (journal.error().code != Code::kCorrupt || journal.error().message.empty()) std::abort();
    return;
  }
  check_layout(journal->before);
  check_layout(journal->after);
  const auto again = mig::parse_journal(mig::format_journal(*journal));
  if (!again || *again != *journal) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(data, data + size);
  check(text);
  check(mig::sealed(text));
  return 0;
}
