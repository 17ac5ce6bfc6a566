#include "agent/ledger_file.h"

#include "base/text.h"

namespace gpuslice::agent {
namespace {
constexpr std::string_view kHead = "gpuslice-ledger 1 ";
}

std::string format_ledger(const std::vector<LedgerEntry>& entries, std::string_view boot_id) {
  std::string out = fmt::format("{}{}\n", kHead, boot_id);
  for (const LedgerEntry& entry : entries) out += entry.resource + " " + entry.id + "\n";
  return out;
}

Result<std::vector<LedgerEntry>> parse_ledger(std::string_view text, std::string_view boot_id,
                                              MonotonicTime now) {
  if (!text.starts_with(kHead) || !text.ends_with("\n"))
    return fail(Code::kCorrupt, "it is no whole ledger of this version");
  std::vector<LedgerEntry> entries;
  text.remove_suffix(1);
  bool head = true;
  for (const std::string_view line : split(text, '\n')) {
    if (head) {
      head = false;
      if (line.substr(kHead.size()) != boot_id) return entries;
      continue;
    }
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos || blank == 0 || blank + 1 == line.size() ||
        line.find(' ', blank + 1) != std::string_view::npos)
      return fail(Code::kCorrupt, "line \"{}\" is no entry", json_escape(line.substr(0, 80)));
    entries.push_back(
        {std::string(line.substr(0, blank)), std::string(line.substr(blank + 1)), now, false});
  }
  return entries;
}

}  // namespace gpuslice::agent
