#include "nvml/pci_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <charconv>

#include "base/text.h"

namespace gpuslice::nvml {
namespace {

// PCI's own places and numbers.
constexpr size_t kConfigBytes = 256;
constexpr size_t kStatus = 0x06;
constexpr uint8_t kStatusHasCapabilities = 0x10;
constexpr size_t kFirstCapability = 0x34;
constexpr uint8_t kVendorCapability = 0x09;
// NVIDIA's: the signature stands at 3, the records from 5 on.
constexpr size_t kSignature = 3;
constexpr size_t kRecords = 5;
constexpr size_t kTextBytes = 10;

std::string read_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return "";
  std::array<char, kConfigBytes> buffer{};
  const ssize_t length = ::read(fd, buffer.data(), buffer.size());
  ::close(fd);
  return length <= 0 ? "" : std::string(buffer.data(), static_cast<size_t>(length));
}

uint8_t byte(std::string_view text, size_t at) { return static_cast<uint8_t>(text[at]); }

std::string text_at(std::string_view config, size_t at) {
  const std::string_view field = config.substr(at, kTextBytes);
  return std::string(trim(field.substr(0, field.find('\0'))));
}

std::optional<ports::VgpuHost> host_of(std::string_view capability) {
  if (capability.size() <= kRecords || capability.substr(kSignature, 2) != "VF")
    return std::nullopt;
  ports::VgpuHost host;
  for (size_t at = kRecords; at + 2 <= capability.size();) {
    const size_t length = byte(capability, at + 1);
    if (byte(capability, at) == 0 && at + 2 + 2 * kTextBytes <= capability.size()) {
      host.driver_version = text_at(capability, at + 2);
      host.driver_branch = text_at(capability, at + 2 + kTextBytes);
      break;
    }
    if (length < 2) break;
    at += length;
  }
  return host;
}

}  // namespace

std::optional<ports::VgpuHost> vgpu_of(std::string_view config) {
  if (config.size() < kConfigBytes || (byte(config, kStatus) & kStatusHasCapabilities) == 0)
    return std::nullopt;
  size_t at = byte(config, kFirstCapability);
  for (size_t steps = 0; steps < kConfigBytes / 4 && at >= 0x40 && at + 3 <= kConfigBytes;
       ++steps) {
    const size_t length = byte(config, at + 2);
    if (byte(config, at) == kVendorCapability && at + length <= kConfigBytes)
      if (auto host = host_of(config.substr(at, length))) return host;
    at = byte(config, at + 1);
  }
  return std::nullopt;
}

PciFacts pci_facts(const std::string& root, std::string_view bus_id) {
  PciFacts out;
  if (bus_id.size() < 12) return out;
  // sysfs writes the domain with four digits and small letters.
  const std::string folder =
      fmt::format("{}/sys/bus/pci/devices/{}/", root, to_lower(bus_id.substr(bus_id.size() - 12)));
  const std::string numa = read_file(folder + "numa_node");
  if (const auto node = parse_u64(trim(numa))) out.numa_node = static_cast<int64_t>(*node);
  const std::string text = read_file(folder + "class");
  if (const std::string_view digits = trim(text); digits.starts_with("0x"))
    std::from_chars(digits.data() + 2, digits.data() + digits.size(), out.device_class, 16);
  out.vgpu = vgpu_of(read_file(folder + "config"));
  return out;
}

}  // namespace gpuslice::nvml
