#include "nvml/kernel_gpus.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace gpuslice::nvml {
namespace {

namespace fs = std::filesystem;

struct KernelGpus : ::testing::Test {
  fs::path root = fs::path(::testing::TempDir()) / "kernel_gpus";
  KernelGpus() { fs::remove_all(root); }
  ~KernelGpus() override { fs::remove_all(root); }
  void add(const std::string& bus_id, const std::string& uuid, int minor) {
    const fs::path folder = root / "proc/driver/nvidia/gpus" / bus_id;
    fs::create_directories(folder);
    std::ofstream(folder / "information") << "Model: \t\t NVIDIA A100\nGPU UUID: \t " << uuid
                                          << "\nDevice Minor: \t " << minor << "\n";
  }
  static std::string uuid(char digit) {
    return "GPU-" + std::string(8, digit) + "-1111-2222-3333-444444444444";
  }
};

TEST_F(KernelGpus, StandInPcisOrder) {
  add("0000:b7:00.0", uuid('b'), 1);
  add("0000:07:00.0", uuid('a'), 0);
  std::string unknown = uuid('c');
  std::replace_if(unknown.begin() + 4, unknown.end(), [](char c) { return c != '-'; }, '?');
  add("0001:00:00.0", unknown, 2);
  fs::create_directories(root / "proc/driver/nvidia/gpus/0000:ff:00.0");
  const auto gpus = kernel_gpus(root);
  ASSERT_EQ(gpus.size(), 2U);
  EXPECT_EQ(gpus[0].uuid, uuid('a'));
  EXPECT_EQ(gpus[1].uuid, uuid('b'));
  EXPECT_EQ(gpus[1].minor, GpuMinor{1});
  EXPECT_TRUE(kernel_gpus(root / "nowhere").empty());
}

TEST_F(KernelGpus, NameThoseThatAreSilentOrNobody) {
  for (int i = 0; i < 4; ++i)
    add("0000:0" + std::to_string(i) + ":00.0", uuid(static_cast<char>('a' + i)), i);
  ports::Inventory inventory;
  for (const uint32_t i : {0U, 2U}) {
    inventory.gpus.emplace_back();
    inventory.gpus.back().index = GpuIndex{i};
    inventory.gpus.back().uuid = uuid(static_cast<char>('a' + i));
  }
  inventory.silent = {{GpuIndex{1}, {}, {}}, {GpuIndex{3}, {}, {}}};
  name_silent(kernel_gpus(root), inventory);
  ASSERT_TRUE(inventory.silent[1].gpu);
  EXPECT_EQ(inventory.silent[0].gpu->uuid, uuid('b'));
  EXPECT_EQ(inventory.silent[1].gpu->uuid, uuid('d'));
  EXPECT_EQ(inventory.silent[1].gpu->index, GpuIndex{3});
  // One whose UUID nobody knows: it may be either.
  inventory.silent = {{GpuIndex{1}, {}, {}}, {GpuIndex{3}, {}, {}}, {GpuIndex{4}, {}, {}}};
  name_silent(kernel_gpus(root), inventory);
  EXPECT_FALSE(inventory.silent[0].gpu);
}

}  // namespace
}  // namespace gpuslice::nvml
