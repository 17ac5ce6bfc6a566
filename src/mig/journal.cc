#include "mig/journal.h"

#include <fmt/format.h>

#include <optional>
#include <vector>

#include "base/text.h"

namespace gpuslice::mig {
namespace {

constexpr std::string_view kHead = "gpuslice-mig-journal 1";
constexpr size_t kMostInstances = 64;

uint64_t checksum(std::string_view text) {
  uint64_t sum = 0xcbf29ce484222325;  // FNV-1a
  for (const char c : text) sum = (sum ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return sum;
}

std::string span_text(const std::optional<plan::Span>& span) {
  return span ? fmt::format("{}:{}", span->start, span->size) : "-";
}

void write_layout(std::string& out, std::string_view which, const Layout& layout) {
  out += fmt::format("{} {}\n", which, layout.mig ? "on" : "off");
  for (const plan::WantedGi& gi : layout.gis) {
    out += fmt::format("{} gi {} {}", which, gi.profile.value, span_text(gi.placement));
    if (gi.cis)
      for (const plan::WantedCi& ci : *gi.cis)
        out += fmt::format(" ci {} {}", ci.profile.value, span_text(ci.placement));
    out += "\n";
  }
}

std::optional<plan::Span> parse_span(std::string_view text) {
  const auto parts = split(text, ':');
  if (parts.size() != 2) return std::nullopt;
  const auto start = parse_u64(parts[0]);
  const auto size = parse_u64(parts[1]);
  if (!start || !size || *size == 0 || *size > plan::kMostSlices ||
      *start > plan::kMostSlices - *size)
    return std::nullopt;
  return plan::Span{static_cast<uint32_t>(*start), static_cast<uint32_t>(*size)};
}

std::optional<ProfileId> parse_profile(std::string_view text) {
  const auto id = parse_u64(text);
  if (!id || *id > 0xFFFF) return std::nullopt;
  return ProfileId{static_cast<uint32_t>(*id)};
}

// "gi 9 4:4 ci 2 0:3 …" without the leading word.
std::optional<plan::WantedGi> parse_gi(const std::vector<std::string_view>& words) {
  if (words.size() < 4 || words[1] != "gi" || (words.size() - 4) % 3 != 0) return std::nullopt;
  const auto profile = parse_profile(words[2]);
  const auto placement = parse_span(words[3]);
  if (!profile || !placement) return std::nullopt;
  plan::WantedGi gi{*profile, placement, std::vector<plan::WantedCi>{}};
  for (size_t i = 4; i < words.size(); i += 3) {
    const auto ci = parse_profile(words[i + 1]);
    const auto at = parse_span(words[i + 2]);
    if (words[i] != "ci" || !ci || !at || gi.cis->size() >= kMostInstances) return std::nullopt;
    gi.cis->push_back({*ci, at});
  }
  return gi;
}

bool parse_layout_line(const std::vector<std::string_view>& words, Layout& layout, bool& seen) {
  if (words.size() == 2 && (words[1] == "on" || words[1] == "off")) {
    if (seen) return false;
    seen = true;
    layout.mig = words[1] == "on";
    return true;
  }
  auto gi = parse_gi(words);
  if (!seen || !gi || layout.gis.size() >= kMostInstances) return false;
  layout.gis.push_back(std::move(*gi));
  return true;
}

}  // namespace

std::string format_journal(const Journal& journal) {
  std::string out = fmt::format("{}\ngpu {}\nboot {}\n", kHead, journal.gpu, journal.boot);
  write_layout(out, "before", journal.before);
  if (journal.provisional)
    out += "after unknown\n";
  else
    write_layout(out, "after", journal.after);
  return sealed(std::move(out));
}

std::string sealed(std::string lines) {
  lines += fmt::format("sum {:016x}\n", checksum(lines));
  return lines;
}

Result<Journal> parse_journal(std::string_view text) {
  const auto corrupt = [](std::string_view why) {
    return fail(Code::kCorrupt, "journal: {}", why);
  };
  if (text.size() > kMaxJournalBytes) return corrupt("too long");
  const size_t last = text.rfind("sum ");
  if (last == std::string_view::npos || (last != 0 && text[last - 1] != '\n'))
    return corrupt("it has no checksum");
  if (text.substr(last) != fmt::format("sum {:016x}\n", checksum(text.substr(0, last))))
    return corrupt("the checksum does not match");
  Journal journal;
  bool before = false;
  bool after = false;
  size_t number = 0;
  const auto lines = split(text.substr(0, last), '\n');
  for (const std::string_view line : lines) {
    ++number;
    if (line.empty() && number == lines.size()) break;
    if (number == 1) {
      if (line != kHead) return corrupt("it is of another version");
      continue;
    }
    const auto words = split(line, ' ');
    bool good = false;
    if (number == 2) {
      good = words.size() == 2 && words[0] == "gpu" && !words[1].empty();
      if (good) journal.gpu = words[1];
    } else if (number == 3) {
      good = words.size() == 2 && words[0] == "boot";
      if (good) journal.boot = words[1];
    } else if (line == "after unknown") {
      good = before && !after;
      after = true;
      journal.provisional = true;
      journal.after.mig = true;
    } else if (words[0] == "before" && !after) {
      good = parse_layout_line(words, journal.before, before);
    } else if (words[0] == "after" && before && !journal.provisional) {
      good = parse_layout_line(words, journal.after, after);
    }
    if (!good) return corrupt(fmt::format("line {} is not understood", number));
  }
  if (!before || !after) return corrupt("it is cut short");
  normalise(journal.before);
  normalise(journal.after);
  return journal;
}

std::string journal_path(const std::string& folder, const std::string& gpu) {
  return fmt::format("{}/{}.journal", folder, gpu);
}

}  // namespace gpuslice::mig
