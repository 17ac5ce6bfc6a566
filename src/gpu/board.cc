#include "gpu/board.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/text.h"
#include "gpu/board_profiles.h"

namespace gpuslice::gpu {
namespace {

std::span<const Profile> rows(std::string_view key) {
  for (const ProfileTable& table : profile_tables())
    if (table.key == key) return table.profiles;
  CHECK(false, "no profiles of board {}", key);
}

Board ampere(std::string_view key, std::string_view name, uint32_t device, uint32_t total_mib) {
  Board b;
  b.key = key;
  b.name = name;
  b.arch = Arch::kAmpere;
  b.cc_major = 8;
  b.pci_device_id = device << 16 | 0x10de;
  b.pci_subsystem_id = 0x134f10de;
  b.chip_id = 0x170;  // GA100
  b.memory_total_mib = total_mib;
  b.memory_reserved_mib = total_mib > 50000 ? 840 : 424;
  b.bar1_mib = total_mib > 50000 ? 131072 : 65536;
  b.memory_bus_bits = 5120;
  b.sm = 108;
  b.cores_per_sm = 64;
  b.compute_slices = 7;
  b.memory_units = 8;
  b.mode_change = ModeChange::kReset;
  b.clocks = {210, 765, 1410, 1215, 1215, 1290};
  b.power = {46'000, 100'000, 400'000, 400'000};
  b.temperatures = {30, 68, 89, 92, 85, 95};
  b.links = {4, 16, 12, 3, true, 25'000};
  b.vbios = "92.00.19.00.01";
  b.part_number = "692-2G506-0200-002";
  b.profiles = rows(key);
  return b;
}

Board ampere_pcie(std::string_view key, std::string_view name, uint32_t device, uint32_t total_mib,
                  uint32_t watts) {
  Board b = ampere(key, name, device, total_mib);
  b.power = {34'000, 150'000, watts * 1000, watts * 1000};
  b.links = {4, 16, 12, 3, false, 25'000};
  b.pci_subsystem_id = 0x145f10de;
  return b;
}

Board hopper(std::string_view key, std::string_view name, uint32_t device, uint32_t total_mib,
             uint32_t sm) {
  Board b = ampere(key, name, device, total_mib);
  b.arch = Arch::kHopper;
  b.cc_major = 9;
  b.chip_id = 0x180;  // GH100
  b.pci_subsystem_id = 0x16c110de;
  b.memory_reserved_mib = 552;
  b.bar1_mib = 131072;
  b.sm = sm;
  b.cores_per_sm = 128;
  b.mode_change = ModeChange::kResetless;
  b.clocks = {345, 1095, 1980, 2619, 2619, 1545, 0, 1593};
  b.power = {70'000, 200'000, 700'000, 700'000};
  b.temperatures = {32, 70, 87, 90, 85, 95};
  b.links = {5, 16, 18, 4, true, 26'562};
  b.vbios = "96.00.89.00.01";
  b.part_number = "692-2G520-0280-000";
  return b;
}

Board hopper_pcie(Board b, uint32_t graphics_max, uint32_t memory_mhz, uint32_t watts,
                  uint8_t nvlinks) {
  b.clocks.graphics_max = graphics_max;
  b.clocks.memory_idle = b.clocks.memory_max = memory_mhz;
  if (b.clocks.memory_low >= memory_mhz) b.clocks.memory_low = 0;
  b.power = {50'000, 200'000, watts * 1000, watts * 1000};
  b.links.nvswitch = false;
  b.links.nvlinks = nvlinks;
  return b;
}

// As one answered under driver 580.159.04: docs/hardware.md.
Board h200() {
  Board b = hopper("H200-141GB", "NVIDIA H200", 0x2335, 143771, 132);
  b.pci_subsystem_id = 0x18bf10de;
  b.memory_reserved_mib = 615;
  b.bar1_mib = 262144;
  b.memory_bus_bits = 6016;
  b.remap_banks = 3072;
  b.clocks = {345, 1095, 1980, 3201, 3201, 1545, 765, 2201, 1980};
  b.power.idle = 78'000;
  b.temperatures.shutdown = 95;
  b.temperatures.slowdown = 89;
  b.temperatures.max_operating = 87;
  b.vbios = "96.00.A5.00.1A";
  b.part_number = "692-2G520-0282-000";
  return b;
}

Board no_mig(std::string_view name, Arch arch, uint8_t cc_major, uint8_t cc_minor, uint32_t device,
             uint32_t total_mib) {
  Board b;
  b.key = name;
  b.name = name;
  b.arch = arch;
  b.cc_major = cc_major;
  b.cc_minor = cc_minor;
  b.pci_device_id = device << 16 | 0x10de;
  b.memory_total_mib = total_mib;
  return b;
}

Board a30() {
  Board b = ampere_pcie("A30-24GB", "NVIDIA A30", 0x20b7, 24576, 165);
  b.memory_reserved_mib = 284;
  b.bar1_mib = 32768;
  b.memory_bus_bits = 3072;
  b.sm = 56;
  b.compute_slices = 4;
  b.memory_units = 4;
  b.clocks = {210, 930, 1440, 1215, 1215, 1305};
  b.links = {4, 16, 4, 3, false, 25'000};
  b.pci_subsystem_id = 0x153210de;
  return b;
}

Board rtx_pro_6000() {
  Board b = hopper("RTX-PRO-6000-Blackwell-96GB", "NVIDIA RTX PRO 6000 Blackwell Server Edition",
                   0x2bb5, 97887, 188);
  b.arch = Arch::kBlackwell;
  b.brand = 12;
  b.cc_major = 12;
  b.chip_id = 0x1b2;  // GB202
  b.pci_subsystem_id = 0x204e10de;
  b.memory_bus_bits = 512;
  b.memory_reserved_mib = 640;
  b.compute_slices = 4;
  b.memory_units = 12;
  b.encoders = 4;
  b.clocks = {180, 1590, 2430, 405, 12481, 2430};
  b.power = {32'000, 300'000, 600'000, 600'000};
  b.links = {5, 16, 0, 0, false, 0};
  return b;
}

Board l40s() {
  Board b = no_mig("NVIDIA L40S", Arch::kAda, 8, 9, 0x26b9, 46068);
  b.pci_subsystem_id = 0x185110de;
  b.chip_id = 0x192;  // AD102
  b.memory_reserved_mib = 621;
  b.bar1_mib = 65536;
  b.memory_bus_bits = 384;
  b.sm = 142;
  b.cores_per_sm = 128;
  b.encoders = 3;
  b.clocks = {210, 1110, 2520, 405, 9001, 1965};
  b.power = {32'000, 100'000, 350'000, 350'000};
  b.temperatures = {31, 70, 88, 92, 85, 0};
  b.links = {4, 16, 0, 0, false, 0};
  b.vbios = "95.02.66.00.02";
  b.part_number = "900-2G133-0080-000";
  return b;
}

Board t4() {
  Board b = no_mig("Tesla T4", Arch::kTuring, 7, 5, 0x1eb8, 15360);
  b.brand = 2;
  b.pci_subsystem_id = 0x12a210de;
  b.chip_id = 0x164;  // TU104
  b.memory_reserved_mib = 448;
  b.bar1_mib = 256;
  b.memory_bus_bits = 256;
  b.sm = 40;
  b.cores_per_sm = 64;
  b.encoders = 1;
  b.clocks = {300, 585, 1590, 405, 5001, 1470};
  b.power = {9'000, 60'000, 70'000, 70'000};
  b.temperatures = {33, 72, 93, 96, 85, 0};
  b.links = {3, 16, 0, 0, false, 0};
  b.vbios = "90.04.38.00.03";
  b.part_number = "900-2G183-0000-001";
  return b;
}

const std::vector<Board>& all() {
  // Append only: a world file names its boards by their index here.
  static const std::vector<Board> kBoards = {
      ampere("A100-40GB", "NVIDIA A100-SXM4-40GB", 0x20b0, 40960),
      ampere_pcie("A100-40GB", "NVIDIA A100-PCIE-40GB", 0x20f1, 40960, 250),
      ampere("A100-80GB", "NVIDIA A100-SXM4-80GB", 0x20b2, 81920),
      ampere_pcie("A100-80GB", "NVIDIA A100 80GB PCIe", 0x20b5, 81920, 300),
      ampere("A100-80GB", "NVIDIA A800-SXM4-80GB", 0x20f3, 81920),
      ampere_pcie("A100-80GB", "NVIDIA A800 80GB PCIe", 0x20f5, 81920, 300),
      ampere_pcie("A100-40GB", "NVIDIA A800 40GB", 0x20f6, 40960, 240),
      a30(),
      hopper("H100-80GB-SXM", "NVIDIA H100 80GB HBM3", 0x2330, 81559, 132),
      hopper_pcie(hopper("H100-80GB-PCIe", "NVIDIA H100 PCIe", 0x2331, 81559, 114), 1755, 1593, 350,
                  12),
      hopper_pcie(hopper("H100-94GB-NVL", "NVIDIA H100 NVL", 0x2321, 95830, 132), 1785, 2619, 400,
                  12),
      h200(),
      hopper_pcie(hopper("H200-141GB", "NVIDIA H200 NVL", 0x233b, 143771, 132), 1785, 3201, 600,
                  18),
      rtx_pro_6000(),
      l40s(),
      t4(),
  };
  return kBoards;
}

constexpr std::string_view kVendor = "nvidia ";

// "NVIDIA A100-SXM4-40GB" and "a100-sxm4-40gb" are the same; so are blanks and dashes.
std::string plain(std::string_view name) {
  std::string text = to_lower(trim(name));
  if (text.starts_with(kVendor)) text.erase(0, kVendor.size());
  std::replace(text.begin(), text.end(), ' ', '-');
  return text;
}

// Other names under which a board is sold or asked for.
struct Alias {
  std::string_view alias;
  std::string_view name;
};
constexpr Alias kAliases[] = {
    {"a100-40gb", "NVIDIA A100-SXM4-40GB"},
    {"a100-80gb", "NVIDIA A100-SXM4-80GB"},
    {"a30-24gb", "NVIDIA A30"},
    {"h100-sxm5-80gb", "NVIDIA H100 80GB HBM3"},
    {"h100-80gb-sxm", "NVIDIA H100 80GB HBM3"},
    {"h100-80gb-pcie", "NVIDIA H100 PCIe"},
    {"h100-94gb-nvl", "NVIDIA H100 NVL"},
    {"h200-141gb", "NVIDIA H200"},
    {"h200-sxm5-141gb", "NVIDIA H200"},
    {"rtx-pro-6000-blackwell-96gb", "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
    {"t4", "Tesla T4"},
    {"rtx-pro-6000-blackwell", "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
    {"rtx-pro-6000", "NVIDIA RTX PRO 6000 Blackwell Server Edition"},
};

// Whether `part` of a name is given, as in "RTX PRO 5000" or "GH200-96GB": each of its words is one
// of the name or of the key, and the first begins one of them.
bool may_mean(std::string_view part, std::string_view name, std::string_view key) {
  const std::string plain_name = plain(name);
  const std::string plain_key = plain(key);
  std::vector<std::string_view> words;
  for (const std::string_view text : {std::string_view(plain_name), std::string_view(plain_key)})
    for (std::string_view word : split(text, '-')) {
      while (word.starts_with('(')) word.remove_prefix(1);
      while (word.ends_with(')')) word.remove_suffix(1);
      words.push_back(word);
    }
  const std::vector<std::string_view> wanted = split(part, '-');
  return (plain_name.starts_with(wanted.front()) || plain_key.starts_with(wanted.front())) &&
         std::all_of(wanted.begin(), wanted.end(), [&](std::string_view word) {
           return std::find(words.begin(), words.end(), word) != words.end();
         });
}

Error cannot_be_simulated(const UnknownBoard& board) {
  return {Code::kImpossible,
          fmt::format("board {}: cannot be simulated: no published listing gives {}; if you have "
                      "one, send its `nvidia-smi mig -lgip -lgipp`",
                      board.name, board.missing),
          {}};
}

constexpr Placement kSpots[] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 1},
                                {0, 2}, {2, 2}, {4, 2}, {0, 3}, {4, 3}, {0, 4}, {0, 7}};
constexpr std::span<const Placement> spots(size_t from, size_t count) {
  return std::span(kSpots).subspan(from, count);
}

// data/mig-profiles.yaml, compute_instances; by rising NVML enum. 1_SLICE_REV1 (7) is offered
// wherever 1_SLICE is.
constexpr CiProfile kCis1[] = {{0, "1c", 1, 1, spots(0, 1), false},
                               {7, "1c+me", 1, 1, spots(0, 1), true}};
constexpr CiProfile kCis2[] = {{0, "1c", 1, 2, spots(0, 2), false},
                               {1, "2c", 2, 1, spots(7, 1), false},
                               {7, "1c+me", 1, 1, spots(0, 2), true}};
constexpr CiProfile kCis3[] = {{0, "1c", 1, 3, spots(0, 3), false},
                               {1, "2c", 2, 1, spots(7, 1), false},
                               {2, "3c", 3, 1, spots(10, 1), false},
                               {7, "1c+me", 1, 1, spots(0, 3), true}};
constexpr CiProfile kCis4[] = {{0, "1c", 1, 4, spots(0, 4), false},
                               {1, "2c", 2, 2, spots(7, 2), false},
                               {3, "4c", 4, 1, spots(12, 1), false},
                               {7, "1c+me", 1, 1, spots(0, 4), true}};
constexpr CiProfile kCis7[] = {
    {0, "1c", 1, 7, spots(0, 7), false},  {1, "2c", 2, 3, spots(7, 3), false},
    {2, "3c", 3, 2, spots(10, 2), false}, {3, "4c", 4, 1, spots(12, 1), false},
    {4, "7c", 7, 1, spots(13, 1), false}, {7, "1c+me", 1, 1, spots(0, 7), true}};

}  // namespace

std::span<const Board> boards() { return all(); }

Result<const Board*> find_board(std::string_view name) {
  const std::string wanted = plain(name);
  std::string_view meant;
  for (const Alias& alias : kAliases)
    if (alias.alias == wanted) meant = alias.name;
  for (const Board& board : all())
    if (plain(board.name) == wanted || board.name == meant) return &board;
  for (const UnknownBoard& board : unknown_boards())
    if (plain(board.name) == wanted || plain(board.key) == wanted)
      return std::unexpected(cannot_be_simulated(board));
  std::string several;
  for (const Board& board : all())
    if (may_mean(wanted, board.name, board.key))
      several += (several.empty() ? "" : ", ") + std::string(board.name);
  if (!several.empty())
    return fail(Code::kNotFound, "board \"{}\": which one? There is {}", json_escape(name),
                several);
  for (const UnknownBoard& board : unknown_boards())
    if (may_mean(wanted, board.name, board.key)) return std::unexpected(cannot_be_simulated(board));
  std::vector<std::string> plain_names;
  for (const Board& board : all()) plain_names.push_back(plain(board.name));
  const std::vector<std::string_view> views(plain_names.begin(), plain_names.end());
  std::string hint;
  if (const auto near = nearest(wanted, views)) hint = fmt::format("; did you mean {}?", *near);
  std::string known;
  for (const Board& board : all()) known += (known.empty() ? "" : ", ") + std::string(board.name);
  return fail(Code::kNotFound, "board \"{}\": no such board{} Known: {}", json_escape(name),
              hint.empty() ? "." : hint, known);
}

std::span<const CiProfile> ci_profiles(uint8_t slices) {
  switch (slices) {
    case 1:
      return kCis1;
    case 2:
      return kCis2;
    case 3:
      return kCis3;
    case 4:
      return kCis4;
    case 7:
      return kCis7;
    default:
      return {};
  }
}

uint32_t ci_multiprocessors(const Board& board, const Profile& gi, uint8_t ci_slices) {
  if (ci_slices >= gi.slices) return gi.sm;
  // Narrower ones follow the size of one slice of the board.
  uint32_t one = gi.slices == 0 ? 0 : gi.sm / gi.slices;
  for (const Profile& p : board.profiles)
    if (p.slices == 1 && (one == 0 || p.sm < one)) one = p.sm;
  return one * ci_slices;
}

uint32_t profile_gigabytes(uint32_t gi_memory_mib, uint32_t total_mib) {
  if (total_mib == 0) return 0;
  const uint64_t eighths = (uint64_t{gi_memory_mib} * 8 + total_mib - 1) / total_mib;
  const uint64_t total_gib = (total_mib + 1023) / 1024;
  return static_cast<uint32_t>((eighths * total_gib * 2 + 8) / 16);
}

}  // namespace gpuslice::gpu
