#include "nvml/kernel_gpus.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <system_error>

#include "base/text.h"
#include "nvml/pci_files.h"

namespace gpuslice::nvml {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostGpus = 256;
constexpr size_t kUuidChars = 40;  // "GPU-" and 36

// "GPU UUID: \t GPU-…" → "GPU-…"; "" where there is no such line.
std::string_view value_of(std::string_view text, std::string_view key) {
  for (const std::string_view line : split(text, '\n'))
    if (line.starts_with(key)) return trim(line.substr(key.size()));
  return "";
}

bool is_uuid(std::string_view text) {
  return text.size() == kUuidChars && text.starts_with("GPU-") &&
         std::all_of(text.begin() + 4, text.end(), [](char c) {
           return c == '-' || (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

}  // namespace

std::vector<ports::Gpu> kernel_gpus(const std::string& root) {
  std::vector<ports::Gpu> out;
  std::error_code error;
  for (fs::directory_iterator at(root + "/proc/driver/nvidia/gpus", error), end;
       !error && at != end && out.size() < kMostGpus; at.increment(error)) {
    std::ifstream file(at->path() / "information");
    const std::string text{std::istreambuf_iterator<char>(file), {}};
    const std::string_view uuid = value_of(text, "GPU UUID:");
    const auto minor = parse_u64(value_of(text, "Device Minor:"));
    if (!is_uuid(uuid) || !minor || *minor > kMostGpus) continue;
    ports::Gpu gpu;
    gpu.bus_id = at->path().filename().string();
    gpu.uuid = std::string(uuid);
    gpu.minor = GpuMinor{static_cast<uint32_t>(*minor)};
    gpu.numa_node = pci_facts(root, gpu.bus_id).numa_node;
    out.push_back(std::move(gpu));
  }
  std::sort(out.begin(), out.end(),
            [](const ports::Gpu& a, const ports::Gpu& b) { return a.bus_id < b.bus_id; });
  return out;
}

void name_silent(const std::vector<ports::Gpu>& kernel, ports::Inventory& inventory) {
  std::vector<ports::Gpu> left;
  for (const ports::Gpu& gpu : kernel)
    if (std::none_of(inventory.gpus.begin(), inventory.gpus.end(),
                     [&](const ports::Gpu& one) { return one.uuid == gpu.uuid; }))
      left.push_back(gpu);
  if (left.size() != inventory.silent.size()) return;
  for (size_t i = 0; i < left.size(); ++i) {
    left[i].index = inventory.silent[i].index;
    inventory.silent[i].gpu = std::move(left[i]);
  }
}

}  // namespace gpuslice::nvml
