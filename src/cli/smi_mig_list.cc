#include "cli/smi_mig_list.h"

#include <fmt/format.h>

#include <algorithm>

namespace gpuslice::cli {
namespace {

// Inner widths of the boxes.
constexpr size_t kGiProfiles = 79;
constexpr size_t kInstances = 55;
constexpr size_t kCiProfiles = 86;

std::string rule(size_t width, char ends, char fill) {
  return fmt::format("{}{}{}\n", ends, std::string(width, fill), ends);
}
std::string line(size_t width, const std::string& text) {
  return fmt::format("|{:<{}}|\n", text, width);
}

// Title, head, and the rows, each with a rule below.
std::string box(size_t width, std::initializer_list<const char*> head,
                const std::vector<std::string>& rows) {
  std::string out = rule(width, '+', '-');
  for (const char* text : head) out += line(width, text);
  out += rule(width, '|', '=');
  for (const std::string& row : rows) out += row + rule(width, '+', '-');
  return out;
}

std::string gib(uint32_t mib) { return fmt::format("{:.2f}", mib / 1024.0); }

std::string placements(const std::vector<gpu::Placement>& all) {
  std::string starts;
  for (const gpu::Placement p : all)
    starts += (starts.empty() ? "" : ",") + fmt::format("{}", p.start);
  return fmt::format("{} {{{}}}:{}", all.size() == 1 ? "Placement :" : "Placements:", starts,
                     all.empty() ? 0 : all.front().size);
}

// What stands left of the numbers, `width` wide: the profile's name, its id right-aligned in two
// columns. A long name, such as 1c.2g.48gb+me.all, takes of the blanks that follow.
std::string profile_cell(const std::string& name, uint32_t id, char star, size_t width) {
  std::string cell = "MIG " + name;
  const std::string number = std::to_string(id);
  const size_t end = 22;
  cell.resize(std::max(cell.size() + 1, end - number.size()), ' ');
  return fmt::format("{:<{}}", cell + number + (star == ' ' ? "" : "*"), width);
}

}  // namespace

std::string gi_profile_table(const std::vector<GiProfileRow>& rows) {
  std::vector<std::string> lines;
  for (const GiProfileRow& r : rows) {
    const ports::GiProfile& p = r.profile;
    lines.push_back(line(kGiProfiles, fmt::format("{:>4}  {}{:<11}{:<11}No     {:<7}{:<6}{}", r.gpu,
                                                  profile_cell(p.name, p.id.value, ' ', 27),
                                                  fmt::format("{}/{}", r.free, p.most),
                                                  gib(p.memory_mib), p.sm, p.dec, p.enc)) +
                    line(kGiProfiles, fmt::format("{:>64}     {:<6}{}", p.ce, p.jpeg, p.ofa)));
  }
  return box(kGiProfiles,
             {" GPU instance profiles:",
              " GPU   Name               ID    Instances   Memory     P2P    SM    DEC   ENC",
              "                                Free/Total   GiB              CE    JPEG  OFA"},
             lines);
}

std::string gi_table(const std::vector<GiRow>& rows) {
  std::vector<std::string> lines;
  for (const GiRow& r : rows)
    lines.push_back(
        line(kInstances, fmt::format("{:>4}  {}{:>2}{:>11}:{}", r.gpu,
                                     profile_cell(r.profile, r.gi.profile.value, ' ', 29),
                                     r.gi.id.value, r.gi.placement.start, r.gi.placement.size)));
  return box(kInstances,
             {" GPU instances:", " GPU   Name             Profile  Instance   Placement",
              "                          ID       ID       Start:Size"},
             lines);
}

std::string ci_profile_table(const std::vector<CiProfileRow>& rows) {
  std::vector<std::string> lines;
  for (const CiProfileRow& r : rows) {
    const ports::CiProfile& p = r.profile;
    lines.push_back(
        line(kCiProfiles,
             fmt::format("{:>4}{:>7}       {}{:<14}{:<10}{:<6}{:<6}{}", r.gpu, r.gi,
                         profile_cell(p.name, p.id.value, r.fills ? '*' : ' ', 28),
                         fmt::format("{}/{}", p.free, p.most), p.sm, p.dec, p.enc, p.ofa)) +
        line(kCiProfiles, fmt::format("{:70}{:<6}{}", "", p.ce, p.jpeg)));
  }
  return box(
      kCiProfiles,
      {" Compute instance profiles:",
       " GPU     GPU       Name             Profile  Instances   Exclusive       Shared",
       "       Instance                       ID     Free/Total     SM       DEC   ENC   OFA",
       "         ID                                                          CE    JPEG"},
      lines);
}

std::string ci_table(const std::vector<CiRow>& rows) {
  std::vector<std::string> lines;
  for (const CiRow& r : rows)
    lines.push_back(
        line(kInstances,
             fmt::format("{:>4}{:>7}       {}{:>2}", r.gpu, r.gi,
                         profile_cell(r.profile, r.ci.profile.value, ' ', 30), r.ci.id.value)));
  return box(kInstances,
             {" Compute instances:", " GPU     GPU       Name             Profile   Instance",
              "       Instance                       ID        ID", "         ID"},
             lines);
}

std::string gi_placement_lines(const std::vector<GiProfileRow>& rows) {
  std::string out;
  for (const GiProfileRow& r : rows)
    out += fmt::format("GPU {:>2} Profile ID {:>2} {}\n", r.gpu, r.profile.id.value,
                       placements(r.profile.placements));
  return out;
}

std::string ci_placement_lines(const std::vector<CiProfileRow>& rows) {
  std::string out;
  for (const CiProfileRow& r : rows)
    out += fmt::format("GPU {:>2} GI {:>2} Profile ID {:>2} {}\n", r.gpu, r.gi, r.profile.id.value,
                       placements(r.profile.placements));
  return out;
}

}  // namespace gpuslice::cli
