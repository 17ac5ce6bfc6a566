#include "gpu/mig_minors.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>

namespace gpuslice::gpu {
namespace {

// As an NVIDIA driver writes it: every instance that could ever be.
std::string whole_file() {
  std::string text = "config 1\nmonitor 2\n";
  uint32_t minor = 3;
  for (int gpu = 0; gpu < 32; ++gpu)
    for (int gi = 0; gi < 15; ++gi) {
      text += fmt::format("gpu{}/gi{}/access {}\n", gpu, gi, minor++);
      for (int ci = 0; ci < 8; ++ci)
        text += fmt::format("gpu{}/gi{}/ci{}/access {}\n", gpu, gi, ci, minor++);
    }
  return text;
}

TEST(MigMinors, TheDriversFile) {
  const auto minors = parse_mig_minors(whole_file());
  ASSERT_TRUE(minors.has_value()) << minors.error().message;
  EXPECT_EQ(minors->size(), 4320U);
  EXPECT_EQ(minors->config(), 1U);
  EXPECT_EQ(minors->monitor(), 2U);
  EXPECT_EQ(minors->access(GpuMinor{0}, GiId{0}), 3U);
  EXPECT_EQ(minors->access(GpuMinor{0}, GiId{0}, CiId{0}), 4U);
  EXPECT_EQ(minors->access(GpuMinor{2}, GiId{7}), 3U + 135 * 2 + 9 * 7);
  EXPECT_EQ(minors->access(GpuMinor{2}, GiId{7}, CiId{5}), 3U + 135 * 2 + 9 * 7 + 1 + 5);
  EXPECT_EQ(minors->access(GpuMinor{31}, GiId{14}, CiId{7}), 4322U);
  EXPECT_EQ(minors->access(GpuMinor{32}, GiId{0}), std::nullopt);
  EXPECT_EQ(minors->access(GpuMinor{0}, GiId{15}), std::nullopt);
  EXPECT_EQ(minors->access(GpuMinor{0}, GiId{0}, CiId{8}), std::nullopt);
}

TEST(MigMinors, NumbersAreTheFilesNotAFormulas) {
  const auto minors = parse_mig_minors("gpu1/gi9/access 40\ngpu1/gi9/ci0/access 7");
  ASSERT_TRUE(minors.has_value()) << minors.error().message;
  EXPECT_EQ(minors->access(GpuMinor{1}, GiId{9}), 40U);
  EXPECT_EQ(minors->access(GpuMinor{1}, GiId{9}, CiId{0}), 7U);
  EXPECT_EQ(minors->config(), std::nullopt);
}

TEST(MigMinors, NothingAndWhatANewerDriverMayAdd) {
  EXPECT_EQ(parse_mig_minors("").value().size(), 0U);
  EXPECT_EQ(parse_mig_minors("config 1\nvgpu/config 9000\n\ngpu0/gi0/access 3\n").value().size(),
            1U);
}

TEST(MigMinors, EveryRefusalNamesItsLine) {
  const auto message = [](const std::string& text) {
    const auto minors = parse_mig_minors(text);
    if (minors) return "taken: " + text;
    EXPECT_EQ(minors.error().code, Code::kCorrupt);
    return minors.error().message;
  };
  const auto line = [](int number, const std::string& text, const std::string& why) {
    return fmt::format("/proc/driver/nvidia-caps/mig-minors: line {}, \"{}\", cannot be read: {}",
                       number, text, why);
  };
  EXPECT_EQ(message("config"), line(1, "config", "the minor is missing"));
  EXPECT_EQ(message("config 1\nmonitor"), line(2, "monitor", "the minor is missing"));
  EXPECT_EQ(message("config one"), line(1, "config one", "the minor is no device number"));
  EXPECT_EQ(message("config 1048576"), line(1, "config 1048576", "the minor is no device number"));
  EXPECT_EQ(message("config -1"), line(1, "config -1", "the minor is no device number"));
  EXPECT_EQ(message("config  1"), line(1, "config  1", "the minor is no device number"));
  EXPECT_EQ(message("config 1\r\n"), line(1, "config 1\\r", "the minor is no device number"));
  EXPECT_EQ(message("config 1\nconfig 2"), line(2, "config 2", "it stands twice"));
  EXPECT_EQ(message("config 1\nmonitor 1"), line(2, "monitor 1", "its minor stands twice"));
  EXPECT_EQ(message("gpu0/gi0/access 3\ngpu0/gi0/access 4"),
            line(2, "gpu0/gi0/access 4", "it stands twice"));
  EXPECT_EQ(message("gpu0/gi0/ci0/access 3\ngpu0/gi0/ci0/access 4"),
            line(2, "gpu0/gi0/ci0/access 4", "it stands twice"));
  for (const char* name :
       {"gpu", "gpu0", "gpu0/access", "gpu0/gi0", "gpu0/gi0/", "gpu0/gi0/acces", "gpu/gi0/access",
        "gpu00/gi0/access", "gpu0/gi-1/access", "gpu0/gi0/ci/access", "gpu0/gi0/ci0/ci0/access",
        "gpu0/ci0/access", "gpu0/gi0/gi0/access", "gpu10000/gi0/access"})
    EXPECT_EQ(message(std::string(name) + " 3"),
              line(1, std::string(name) + " 3",
                   "an instance looks like gpu0/gi7/access or gpu0/gi7/ci0/access"));
  EXPECT_EQ(message(std::string(kMaxMigMinorsBytes + 1, '\n')),
            "/proc/driver/nvidia-caps/mig-minors: longer than 1048576 bytes; a driver's has some "
            "100,000");
  EXPECT_EQ(message(std::string(kMaxMigMinors, '\n') + "config 1"),
            line(65537, "config 1", "there are too many lines"));
  // What it quotes is bounded, and is text whatever stood there.
  EXPECT_EQ(message(std::string(200, 'x')), line(1, std::string(80, 'x'), "the minor is missing"));
}

}  // namespace
}  // namespace gpuslice::gpu
