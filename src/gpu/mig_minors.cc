#include "gpu/mig_minors.h"

#include <set>
#include <string>

#include "base/text.h"

namespace gpuslice::gpu {
namespace {

constexpr std::string_view kFile = "/proc/driver/nvidia-caps/mig-minors";
constexpr size_t kMostShown = 80;

// "<prefix><number>": the number, of 1..4 digits without leading zero.
std::optional<uint32_t> numbered(std::string_view part, std::string_view prefix) {
  if (!part.starts_with(prefix)) return std::nullopt;
  part.remove_prefix(prefix.size());
  if (part.size() > 4 || (part.size() > 1 && part[0] == '0')) return std::nullopt;
  const auto value = parse_u64(part);
  if (!value) return std::nullopt;
  return static_cast<uint32_t>(*value);
}

std::optional<uint32_t> lookup(const auto& map, const auto& key) {
  const auto found = map.find(key);
  if (found == map.end()) return std::nullopt;
  return found->second;
}

}  // namespace

std::optional<uint32_t> MigMinors::access(GpuMinor gpu, GiId gi) const {
  return lookup(gis_, std::tuple{gpu, gi});
}

std::optional<uint32_t> MigMinors::access(GpuMinor gpu, GiId gi, CiId ci) const {
  return lookup(cis_, std::tuple{gpu, gi, ci});
}

// One line after the other into `out`.
struct MigMinorsReader {
  MigMinors out;
  std::set<uint32_t> minors;

  // Nothing, or what is wrong with the line.
  [[nodiscard]] std::optional<std::string_view> take(std::string_view line) {
    const size_t blank = line.find(' ');
    if (blank == std::string_view::npos) return "the minor is missing";
    const std::string_view name = line.substr(0, blank);
    const auto minor = parse_u64(line.substr(blank + 1));
    if (!minor || *minor > kMaxCapMinor) return "the minor is no device number";
    if (!minors.insert(static_cast<uint32_t>(*minor)).second) return "its minor stands twice";
    return place(name, static_cast<uint32_t>(*minor));
  }

 private:
  [[nodiscard]] std::optional<std::string_view> place(std::string_view name, uint32_t minor) {
    const std::string_view twice = "it stands twice";
    const auto once = [&](std::optional<uint32_t>& into) -> std::optional<std::string_view> {
      if (into) return twice;
      into = minor;
      return std::nullopt;
    };
    if (name == "config") return once(out.config_);
    if (name == "monitor") return once(out.monitor_);
    if (!name.starts_with("gpu")) return std::nullopt;
    const std::vector<std::string_view> parts = split(name, '/');
    const std::string_view form = "an instance looks like gpu0/gi7/access or gpu0/gi7/ci0/access";
    if (parts.size() < 3 || parts.size() > 4 || parts.back() != "access") return form;
    const auto gpu = numbered(parts[0], "gpu");
    const auto gi = numbered(parts[1], "gi");
    if (!gpu || !gi) return form;
    if (parts.size() == 3) {
      const bool added = out.gis_.emplace(std::tuple{GpuMinor{*gpu}, GiId{*gi}}, minor).second;
      return added ? std::nullopt : std::optional(twice);
    }
    const auto ci = numbered(parts[2], "ci");
    if (!ci) return form;
    const bool added =
        out.cis_.emplace(std::tuple{GpuMinor{*gpu}, GiId{*gi}, CiId{*ci}}, minor).second;
    return added ? std::nullopt : std::optional(twice);
  }
};

Result<MigMinors> parse_mig_minors(std::string_view text) {
  if (text.size() > kMaxMigMinorsBytes)
    return fail(Code::kCorrupt, "{}: longer than {} bytes; a driver's has some 100,000", kFile,
                kMaxMigMinorsBytes);
  MigMinorsReader reader;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    ++number;
    if (line.empty()) continue;
    const auto wrong = number > kMaxMigMinors ? "there are too many lines" : reader.take(line);
    if (wrong)
      return fail(Code::kCorrupt, "{}: line {}, \"{}\", cannot be read: {}", kFile, number,
                  json_escape(line.substr(0, kMostShown)), *wrong);
  }
  return std::move(reader.out);
}

}  // namespace gpuslice::gpu
