#pragma once

// The words by which a MIG configuration chooses GPUs: items of `devices` and of `device-filter`.
// Not a public header.

#include <expected>
#include <string>
#include <string_view>

#include "config/document.h"
#include "config/mig_parted.h"

namespace gpuslice::config {

inline constexpr std::string_view kGpuForms =
    "all, an index, GPU-<uuid>, a PCI address such as 0000:07:00.0, or a list of these";

// One GPU, without its place; or the whole message.
[[nodiscard]] std::expected<GpuRef, std::string> parse_gpu_ref(const Node& node);

// "0x20B010DE" or "0x20B010DE:0x134F10DE", hex in any case, without its place; or the whole
// message, with the PCI ids of the board where `text` is a product's name.
[[nodiscard]] std::expected<DeviceFilter, std::string> parse_device_filter(std::string_view text);

}  // namespace gpuslice::config
