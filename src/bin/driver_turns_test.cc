// Who waits for whom, with threads.

#include "bin/driver_turns.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

namespace gpuslice::bin {
namespace {

using std::chrono::milliseconds;

// Long enough for a thread that may go on to do so.
void give_time() { std::this_thread::sleep_for(milliseconds(50)); }

struct TurnsTest : ::testing::Test {
  nvml::CallWatch watch;
  DriverTurns turns{watch, milliseconds(200)};
  std::atomic<bool> began{false};
};

TEST_F(TurnsTest, AChangeWaitsForTheLook) {
  EXPECT_FALSE(turns.begin_look());
  std::thread change([&] {
    turns.begin_change("GPU-1");
    began = true;
  });
  give_time();
  EXPECT_FALSE(began);
  turns.end_look();
  change.join();
  EXPECT_TRUE(began);
}

TEST_F(TurnsTest, ALookWaitsForAChangeThatGoesOn) {
  turns.begin_change("GPU-1");
  std::thread look([&] {
    EXPECT_FALSE(turns.begin_look());
    began = true;
  });
  // Longer than its patience in all, and no call of it is.
  for (int call = 0; call < 4; ++call) {
    watch.begin("nvmlDeviceCreateGpuInstance");
    std::this_thread::sleep_for(milliseconds(80));
    watch.end();
  }
  EXPECT_FALSE(began);
  turns.end_change();
  look.join();
  EXPECT_TRUE(began);
}

TEST_F(TurnsTest, ALookGoesOnWithoutAChangeThatHangs) {
  turns.begin_change("GPU-1");
  watch.begin("nvmlDeviceSetMigMode");
  const auto hanging = turns.begin_look();
  ASSERT_TRUE(hanging);
  EXPECT_EQ(hanging->gpu, "GPU-1");
  EXPECT_EQ(hanging->call, "nvmlDeviceSetMigMode");
  turns.end_look();
  watch.end();
  turns.end_change();
  EXPECT_FALSE(turns.begin_look()) << "and afterwards as ever";
  turns.end_look();
}

}  // namespace
}  // namespace gpuslice::bin
