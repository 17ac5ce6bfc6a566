#include "nvml/pci_files.h"

#include <gtest/gtest.h>

#include <string>

namespace gpuslice::nvml {
namespace {

void put(std::string& config, size_t at, std::string_view bytes) {
  config.replace(at, bytes.size(), bytes);
}

// A configuration space with a power-management capability at 0x60 and the vendor's at 0x68.
std::string config(std::string_view vendor_capability) {
  std::string out(256, '\0');
  out[6] = 0x10;
  out[0x34] = 0x60;
  put(out, 0x60, std::string_view("\x01\x68\x03", 3));
  put(out, 0x68, vendor_capability);
  return out;
}

const std::string kVirtual = std::string(
                                 "\x09\x00\x1f"
                                 "VF",
                                 5) +
                             std::string("\x07\x04zz", 4) + std::string("\x00\x16", 2) +
                             "580.95.02" + std::string(1, '\0') + "r581_36" + std::string(3, '\0');

TEST(VgpuOf, AVirtualGpuTellsItsHost) {
  EXPECT_EQ(vgpu_of(config(kVirtual)), (ports::VgpuHost{"580.95.02", "r581_36"}));
}

TEST(VgpuOf, NoneOfTheOthersDoes) {
  const std::string whole = config(kVirtual);
  EXPECT_EQ(vgpu_of(""), std::nullopt);
  EXPECT_EQ(vgpu_of(whole.substr(0, 64)), std::nullopt);  // all that is read without root
  std::string other = whole;
  other[6] = 0;
  EXPECT_EQ(vgpu_of(other), std::nullopt) << "no list of capabilities";
  EXPECT_EQ(vgpu_of(config(std::string("\x09\x00\x14"
                                       "P2P",
                                       6))),
            std::nullopt);
  other = whole;
  other[0x61] = 0x60;
  EXPECT_EQ(vgpu_of(other), std::nullopt) << "a list that goes round in a circle";
  other = whole;
  other[0x6a] = static_cast<char>(0xff);
  EXPECT_EQ(vgpu_of(other), std::nullopt) << "longer than the space";
  other = whole;
  other[0x6d] = 7;
  other[0x6e] = 0;
  EXPECT_EQ(vgpu_of(other), (ports::VgpuHost{"", ""})) << "a record without length";
}

}  // namespace
}  // namespace gpuslice::nvml
