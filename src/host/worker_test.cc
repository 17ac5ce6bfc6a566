#include "host/worker.h"

#include <gtest/gtest.h>

#include <future>
#include <vector>

namespace gpuslice::host {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(Worker, DoesWorkInOrder) {
  std::vector<int> order;
  std::promise<void> done;
  Worker worker("test");
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(worker.post([&order, i] { order.push_back(i); }));
  ASSERT_TRUE(worker.post([&] { done.set_value(); }));
  ASSERT_EQ(done.get_future().wait_for(seconds(10)), std::future_status::ready);
  ASSERT_EQ(order.size(), 100u);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(order[static_cast<size_t>(i)], i);
  EXPECT_TRUE(worker.stop(seconds(10)));
  EXPECT_FALSE(worker.post([] {}));
}

TEST(Worker, AHangIsSeenAndBoundsTheQueue) {
  std::promise<void> release;
  const std::shared_future<void> released = release.get_future().share();
  std::promise<void> started;
  int ran = 0;
  Worker worker("test");
  ASSERT_TRUE(worker.post([&, released] {
    started.set_value();
    released.wait();
  }));
  started.get_future().wait();
  for (size_t i = 0; i < Worker::kMaxWaiting; ++i) ASSERT_TRUE(worker.post([&] { ++ran; }));
  EXPECT_FALSE(worker.post([&] { ++ran; }));
  EXPECT_EQ(worker.waiting(), Worker::kMaxWaiting);
  EXPECT_GT(worker.busy_for().count(), 0);
  EXPECT_FALSE(worker.stop(milliseconds(20)));
  release.set_value();
  EXPECT_TRUE(worker.stop(seconds(10)));
  EXPECT_EQ(ran, 0);
}

}  // namespace
}  // namespace gpuslice::host
