// The record of marks and troubles as text, and as reasons.

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>

#include "agent/health.h"
#include "base/text.h"

namespace gpuslice::agent {
namespace {

using std::chrono::seconds;

constexpr std::string_view kHead = "gpuslice-health 3 ";
constexpr size_t kMaxLines = 2048;

constexpr auto kTroubles = std::to_array<GpuTrouble>(
    {GpuTrouble::kEcc, GpuTrouble::kRemapPending, GpuTrouble::kRemapFailed, GpuTrouble::kRecovery,
     GpuTrouble::kTemperature});

template <class Id>
std::string text_of_id(const std::optional<Id>& id) {
  return id ? std::to_string(id->value) : "-";
}

template <class Id>
bool parse_id(std::string_view text, std::optional<Id>& out) {
  if (text == "-") return true;
  const auto number = parse_u64(text);
  if (!number || *number > UINT32_MAX) return false;
  out = Id{static_cast<uint32_t>(*number)};
  return true;
}

bool parse_bit(std::string_view text, bool& out) {
  out = text == "1";
  return out || text == "0";
}

bool parse_since(std::string_view text, WallTime& out) {
  const auto since = parse_u64(text);
  if (!since || *since > 1ULL << 33) return false;
  out = WallTime(seconds(*since));
  return true;
}

int64_t seconds_of(WallTime time) {
  return std::chrono::duration_cast<seconds>(time.time_since_epoch()).count();
}

bool parse_mark(const std::vector<std::string_view>& words, HealthRecord& record) {
  HealthMark mark;
  if (words.size() != 9 || words[1].empty() || !parse_id(words[2], mark.gi) ||
      !parse_id(words[3], mark.ci) || !parse_since(words[5], mark.since) ||
      !parse_bit(words[6], mark.lost) || !parse_bit(words[7], mark.asked))
    return false;
  const auto xid = parse_u64(words[4]);
  if (!xid) return false;
  if (words[8] != "-" && !(mark.energy_mj = parse_u64(words[8]))) return false;
  mark.gpu = std::string(words[1]);
  mark.xid = *xid;
  record.marks.push_back(std::move(mark));
  return true;
}

bool parse_trouble(std::string_view line, const std::vector<std::string_view>& words,
                   HealthRecord& record) {
  TroubleMark mark;
  if (words.size() < 5 || words[1].empty() || !parse_since(words[3], mark.since)) return false;
  const auto* const trouble = std::find_if(
      kTroubles.begin(), kTroubles.end(), [&](GpuTrouble one) { return word_of(one) == words[2]; });
  if (trouble == kTroubles.end()) return false;
  mark.gpu = std::string(words[1]);
  mark.seen.trouble = *trouble;
  mark.seen.text = std::string(line.substr(static_cast<size_t>(words[4].data() - line.data())));
  record.troubles.push_back(std::move(mark));
  return true;
}

}  // namespace

std::string HealthMark::reason(Since said) const {
  if (said == Since::kLeftOut) return fmt::format("XID {}", xid);
  std::string when = format_utc(since);
  when.erase(when.rfind('.'), 4);  // whole seconds
  return fmt::format("XID {} at {}", xid, when);
}

std::string format_health(const HealthRecord& record, std::string_view boot_id) {
  std::string out =
      fmt::format("{}{} {}\n", kHead, boot_id, record.driver.empty() ? "-" : record.driver);
  for (const HealthMark& mark : record.marks)
    out += fmt::format("xid {} {} {} {} {} {} {} {}\n", mark.gpu, text_of_id(mark.gi),
                       text_of_id(mark.ci), mark.xid, seconds_of(mark.since), mark.lost ? 1 : 0,
                       mark.asked ? 1 : 0, mark.energy_mj ? std::to_string(*mark.energy_mj) : "-");
  for (const TroubleMark& mark : record.troubles)
    out += fmt::format("trouble {} {} {} {}\n", mark.gpu, word_of(mark.seen.trouble),
                       seconds_of(mark.since), mark.seen.text);
  return out;
}

Result<HealthRecord> parse_health(std::string_view text, std::string_view boot_id) {
  if (!text.starts_with(kHead) || !text.ends_with("\n"))
    return fail(Code::kCorrupt, "it is no whole record of this version");
  text.remove_suffix(1);
  HealthRecord record;
  const auto lines = split(text, '\n');
  const auto head = split(lines[0].substr(kHead.size()), ' ');
  if (head.size() != 2 || lines.size() > kMaxLines)
    return fail(Code::kCorrupt, "it is no whole record of this version");
  if (head[0] != boot_id) return record;
  if (head[1] != "-") record.driver = std::string(head[1]);
  for (size_t i = 1; i < lines.size(); ++i) {
    const auto words = split(lines[i], ' ');
    const bool good = words[0] == "xid"
                          ? parse_mark(words, record)
                          : words[0] == "trouble" && parse_trouble(lines[i], words, record);
    if (!good)
      return fail(Code::kCorrupt, "line \"{}\" is no mark", json_escape(lines[i].substr(0, 80)));
  }
  return record;
}

std::map<std::string, std::string> reasons_of(const HealthRecord& record,
                                              const std::vector<ports::Gpu>& gpus, Since since) {
  std::map<std::string, std::string> out;
  for (const HealthMark& mark : record.marks) {
    if (!mark.gi) out.emplace(mark.gpu, mark.reason(since));
    for (const ports::Gpu& gpu : gpus)
      for (const ports::MigDevice& device : gpu.mig_devices)
        if (mark.is_of(gpu, device)) out.emplace(device.uuid, mark.reason(since));
  }
  for (const TroubleMark& mark : record.troubles) {
    std::string& text = out[mark.gpu];
    text += (text.empty() ? "" : "; ") + mark.seen.text;
  }
  return out;
}

}  // namespace gpuslice::agent
