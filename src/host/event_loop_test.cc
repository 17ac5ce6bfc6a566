#include "host/event_loop.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "host/loop_timers.h"
#include "host/signals.h"

namespace gpuslice::host {
namespace {

std::unique_ptr<EventLoop> make_loop() {
  Result<std::unique_ptr<EventLoop>> loop = EventLoop::create();
  EXPECT_TRUE(loop.has_value());
  return std::move(*loop);
}

TEST(EventLoop, TimersFireInOrderOfTimeNotOfAsking) {
  const auto loop = make_loop();
  std::string order;
  auto c = loop->after(std::chrono::milliseconds(6), [&] {
    order += 'c';
    loop->stop();
  });
  auto a = loop->after(std::chrono::milliseconds(2), [&] { order += 'a'; });
  auto b = loop->after(std::chrono::milliseconds(4), [&] { order += 'b'; });
  auto never = loop->after(std::chrono::milliseconds(3), [&] { order += 'x'; });
  never.reset();
  loop->run();
  EXPECT_EQ(order, "abc");
}

TEST(EventLoop, ATimerMayReplaceItselfAndCancelOthers) {
  const auto loop = make_loop();
  int turns = 0;
  EventLoop::Token other = loop->after(std::chrono::milliseconds(1), [&] { turns += 100; });
  EventLoop::Token self;
  std::function<void()> again = [&] {
    other.reset();
    if (++turns == 3) {
      loop->stop();
      return;
    }
    self = loop->after(std::chrono::microseconds(10), again);
  };
  self = loop->at(EventLoop::now() - std::chrono::seconds(1), again);
  loop->run();
  EXPECT_EQ(turns, 3);
}

TEST(LoopTimers, ATimerIsActiveUntilItsCallAndMaySetItselfAnew) {
  const auto loop = make_loop();
  LoopTimers timers(*loop);
  const auto timer = timers.timer();
  int turns = 0;
  const std::function<void()> again = [&] {
    EXPECT_FALSE(timer->active());
    if (++turns == 1) return timer->after(std::chrono::milliseconds(1), again);
    loop->stop();
  };
  EXPECT_FALSE(timer->active());
  timer->after(std::chrono::milliseconds(1), again);
  EXPECT_TRUE(timer->active());
  loop->run();
  EXPECT_EQ(turns, 2);
  EXPECT_FALSE(timer->active());
  timer->after(std::chrono::milliseconds(1), again);
  timer->cancel();
  EXPECT_FALSE(timer->active());
}

TEST(EventLoop, PostsFromManyThreadsAllRunOnTheLoop) {
  const auto loop = make_loop();
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  int done = 0;  // T0 only
  uint64_t refused = 0;
  std::atomic<uint64_t> refusals{0};
  std::vector<std::thread> threads;
  threads.reserve(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kEach; ++i) {
        while (!loop->post([&] {
          if (++done == kThreads * kEach) loop->stop();
        })) {
          refusals.fetch_add(1);
          std::this_thread::yield();
        }
      }
    });
  }
  loop->run();
  for (std::thread& thread : threads) thread.join();
  refused = refusals.load();
  EXPECT_EQ(done, kThreads * kEach);
  EXPECT_EQ(loop->posted_dropped(), refused);
}

TEST(EventLoop, APostBeyondTheLimitIsRefused) {
  const auto loop = make_loop();
  size_t ran = 0;
  for (size_t i = 0; i < EventLoop::kMaxPosted; ++i) ASSERT_TRUE(loop->post([&] { ++ran; }));
  EXPECT_FALSE(loop->post([&] { ++ran; }));
  EXPECT_EQ(loop->posted_dropped(), 1u);
  loop->stop();
  loop->run();
  EXPECT_EQ(ran, EventLoop::kMaxPosted);
}

TEST(EventLoop, ACancelledWatchIsNotCalledAlthoughItsEventWasRead) {
  const auto loop = make_loop();
  const UniqueFd first(eventfd(1, EFD_NONBLOCK));
  const UniqueFd second(eventfd(1, EFD_NONBLOCK));
  int calls = 0;
  EventLoop::Token a;
  EventLoop::Token b;
  const auto ready = [&](uint32_t) {
    ++calls;
    a.reset();
    b.reset();
    loop->stop();
  };
  a = *loop->watch(first.get(), EPOLLIN, ready);
  b = *loop->watch(second.get(), EPOLLIN, ready);
  loop->run();
  EXPECT_EQ(calls, 1);
}

TEST(EventLoop, ABadDescriptorIsAnError) {
  const auto loop = make_loop();
  const auto token = loop->watch(-1, EPOLLIN, [](uint32_t) {});
  ASSERT_FALSE(token.has_value());
  EXPECT_EQ(token.error().message,
            "event loop: file descriptor -1 cannot be watched: Bad file descriptor");
}

TEST(Signals, ArriveOnTheLoop) {
  Signals::block();
  const auto loop = make_loop();
  std::vector<int> got;
  auto signals = Signals::watch(*loop, [&](int signal) {
    got.push_back(signal);
    if (signal == SIGTERM) loop->stop();
  });
  ASSERT_TRUE(signals.has_value());
  ASSERT_EQ(::kill(::getpid(), SIGHUP), 0);
  auto term = loop->after(std::chrono::milliseconds(5), [] { ::kill(::getpid(), SIGTERM); });
  loop->run();
  EXPECT_EQ(got, (std::vector<int>{SIGHUP, SIGTERM}));
}

}  // namespace
}  // namespace gpuslice::host
