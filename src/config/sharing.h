#pragma once

// The inside of sharing.timeSlicing and sharing.mps (the same shape), and names of resources. Not a
// public header.

#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "config/device_plugin.h"
#include "config/reader.h"

namespace gpuslice::config {

[[nodiscard]] std::span<const std::string_view> time_slicing_keys();

// Nothing when there were errors; they stand in the reader's problems.
[[nodiscard]] std::optional<TimeSlicing> read_time_slicing(const MapReader& maps,
                                                           const MapReader::Field& field,
                                                           std::string_view path);

// "gpu" and "nvidia.com/gpu" as "nvidia.com/gpu", or what is wrong with it.
struct NameFault {
  Mistake mistake;
  std::string message;
};
[[nodiscard]] std::expected<std::string, NameFault> resource_name(std::string_view name);

// A form of `devices`' items, or nothing.
[[nodiscard]] std::optional<DeviceRef> parse_device_ref(std::string_view text);

}  // namespace gpuslice::config
