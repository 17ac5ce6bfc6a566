#include "config/gpu_selector.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/text.h"
#include "config/reader.h"
#include "gpu/board.h"

namespace gpuslice::config {
namespace {

constexpr uint32_t kNvidia = 0x10de;
constexpr uint64_t kMostIndex = 255;

bool is_hex(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  });
}

// One to eight hex digits.
std::optional<uint32_t> parse_digits(std::string_view text) {
  if (!is_hex(text) || text.size() > 8) return std::nullopt;
  uint32_t value = 0;
  for (const char c : to_lower(text))
    value = value << 4 | static_cast<uint32_t>(c <= '9' ? c - '0' : c - 'a' + 10);
  return value;
}

// "0x20B010DE" as a number.
std::optional<uint32_t> parse_hex(std::string_view text) {
  if (!text.starts_with("0x") && !text.starts_with("0X")) return std::nullopt;
  return parse_digits(text.substr(2));
}

// "07:00.0", "0000:07:00.0" and "00000000:07:00.0" as NVML writes it; nothing else: "0:1" looks
// like one, and is a MIG index elsewhere.
std::optional<std::string> bus_id_of(std::string_view text) {
  auto parts = split(text, ':');
  if (parts.size() == 2) parts.insert(parts.begin(), "0000");
  if (parts.size() != 3 || (parts[0].size() != 4 && parts[0].size() != 8) || parts[1].size() != 2 ||
      parts[2].size() != 4 || !parts[2].ends_with(".0"))
    return std::nullopt;
  const auto domain = parse_digits(parts[0]);
  const auto bus = parse_digits(parts[1]);
  const auto device = parse_digits(parts[2].substr(0, 2));
  if (!domain || !bus || !device || *device > 31) return std::nullopt;
  return fmt::format("{:08X}:{:02X}:{:02X}.0", *domain, *bus, *device);
}

bool is_gpu_uuid(std::string_view text) {
  if (!text.starts_with("GPU-") || text.size() != 40) return false;
  text.remove_prefix(4);
  for (size_t i = 0; i < text.size(); ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    if (dash ? text[i] != '-' : !is_hex(text.substr(i, 1))) return false;
  }
  return true;
}

// What was probably meant by a text that names no GPU.
std::string gpu_hint(const Node& node) {
  const std::string& text = node.text;
  if (node.quoted && parse_u64(text)) return fmt::format("write {} without quotes", text);
  if (to_lower(text) == "all") return "write  devices: all";
  if (text.starts_with("MIG-"))
    return "that is a MIG device, and MIG is configured for whole GPUs: GPU-<uuid>";
  const auto parts = split(text, ',');
  const bool numbers = parts.size() > 1 && std::all_of(parts.begin(), parts.end(), [](auto part) {
                         return parse_u64(trim(part)).has_value();
                       });
  if (numbers) return fmt::format("write [{}]", text);
  return fmt::format("write {}", kGpuForms);
}

// "NVIDIA-A100-80GB-PCIe", as in the node label nvidia.com/gpu.product, is "A100-80GB-PCIe".
std::string product_of(std::string_view text) {
  std::string name = to_lower(trim(text));
  std::replace(name.begin(), name.end(), ' ', '-');
  if (name.starts_with("nvidia-")) name.erase(0, 7);
  return name;
}

// The PCI ids of the boards that a product name means: of one board, or of all of a family
// ("A100"). Empty if it names none.
std::string ids_of_product(std::string_view text) {
  const std::string wanted = product_of(text);
  if (const auto board = gpu::find_board(wanted))
    return fmt::format("the PCI id of that board is \"0x{:08X}\"", (*board)->pci_device_id);
  if (wanted.size() < 2) return "";
  std::string ids;
  for (const gpu::Board& board : gpu::boards())
    if (product_of(board.name).starts_with(wanted))
      ids += fmt::format("{}{} is \"0x{:08X}\"", ids.empty() ? "" : ", ", board.name,
                         board.pci_device_id);
  return ids.empty() ? "" : "the PCI ids of such boards: " + ids;
}

// The id that a malformed one nearly is: "20B010DE", "0x20B0", "0x10DE20B0".
std::optional<uint32_t> nearly_id(std::string_view text) {
  auto value = parse_hex(text);
  if (!value && text.size() == 8) value = parse_digits(text);
  if (!value || *value == 0) return std::nullopt;
  if (*value <= 0xffff && text.size() == 6) return *value << 16 | kNvidia;
  if (*value >> 16 == kNvidia && (*value & 0xffff) != 0) return *value << 16 | kNvidia;
  if ((*value & 0xffff) == kNvidia && *value >> 16 != 0) return value;
  return std::nullopt;
}

std::string filter_fault(std::string_view text) {
  const std::string said = shown(text);
  if (const std::string ids = ids_of_product(text); !ids.empty())
    return fmt::format("\"{}\" is a product name and would never match; {}", said, ids);
  if (const auto meant = nearly_id(text))
    return fmt::format("\"{}\" would never match; did you mean \"0x{:08X}\" (device and vendor)?",
                       said, *meant);
  return fmt::format(
      "\"{}\" is no PCI id and would never match; write \"0x\", the device and the vendor: "
      "\"0x20B010DE\", if wanted with the subsystem: \"0x20B010DE:0x134F10DE\"; nvidia-smi "
      "--query-gpu=name,pci.device_id,pci.sub_device_id --format=csv shows them",
      said);
}

}  // namespace

std::expected<GpuRef, std::string> parse_gpu_ref(const Node& node) {
  GpuRef ref;
  ref.text = node.text;
  if (node.kind != NodeKind::kScalar)
    return std::unexpected(
        fmt::format("devices: {} names no GPU; write {}", kind_name(node), kGpuForms));
  if (const auto index = parse_u64(node.text); index && *index <= kMostIndex && !node.quoted) {
    ref.index = static_cast<uint32_t>(*index);
    return ref;
  }
  if (is_gpu_uuid(node.text)) {
    ref.kind = GpuRef::Kind::kUuid;
    ref.text = "GPU-" + to_lower(std::string_view(node.text).substr(4));
    return ref;
  }
  if (auto bus_id = bus_id_of(node.text)) {
    ref.kind = GpuRef::Kind::kBusId;
    ref.text = std::move(*bus_id);
    return ref;
  }
  return std::unexpected(
      fmt::format("devices: \"{}\" names no GPU; {}", shown(node.text), gpu_hint(node)));
}

std::expected<DeviceFilter, std::string> parse_device_filter(std::string_view text) {
  const auto parts = split(text, ':');
  const auto device = parse_hex(parts[0]);
  if (!device || (*device & 0xffff) != kNvidia || *device >> 16 == 0 || parts.size() > 2)
    return std::unexpected(filter_fault(text));
  DeviceFilter filter;
  filter.text = std::string(text);
  filter.device = *device;
  if (parts.size() == 1) return filter;
  filter.subsystem = parse_hex(parts[1]);
  if (!filter.subsystem || *filter.subsystem == 0) return std::unexpected(filter_fault(text));
  return filter;
}

}  // namespace gpuslice::config
