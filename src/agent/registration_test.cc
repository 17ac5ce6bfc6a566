// One resource and a kubelet that goes, comes and fails, on virtual time: when is it asked to
// register us, and what is made again.

#include "agent/registration.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>

namespace gpuslice::agent {
namespace {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

class NobodysService final : public ports::PluginService {
 public:
  Result<ports::PreferredAnswer> preferred(const ports::PreferredRequest&) override {
    return ports::PreferredAnswer{};
  }
  Result<ports::AllocateAnswer> allocate(const ports::AllocateRequest&) override {
    return ports::AllocateAnswer{};
  }
};

class FakeKubelet final : public ports::Kubelet {
 public:
  Status serve(const std::string&, ports::PluginService&,
               std::shared_ptr<const ports::DeviceList>) override {
    if (!folder) return fail(Code::kUnavailable, "no folder");
    ++served;
    in_place = true;
    return {};
  }
  void publish(const std::string&, std::shared_ptr<const ports::DeviceList>) override {}
  void stop(const std::string&) override { in_place = is_watched = false; }
  bool socket_in_place(const std::string&) const override { return in_place; }
  bool watched(const std::string&) const override { return is_watched; }
  void register_plugin(const std::string&) override {
    ++asked;
    is_watched = false;
  }
  void list_pods() override {}
  std::string kubelet_socket() const override { return socket; }

  std::string socket = "life 1";
  bool folder = true, in_place = false, is_watched = false;
  int served = 0, asked = 0;
};

class RegistrationTest : public ::testing::Test {
 protected:
  RegistrationTest() { registration.show(std::make_shared<ports::DeviceList>()); }

  // Steps whenever it wants to be called, and whenever something was changed, until `until`.
  void run_to(MonotonicTime until) {
    for (int steps = 0; steps < 10'000; ++steps) {
      const MonotonicTime next = registration.step(now);
      if (next > until) break;
      ASSERT_GT(next, now) << "it would be called for ever";
      now = next;
    }
    now = until;
  }
  void pass(Duration time) { run_to(now + time); }
  void answer(const Status& status) { registration.on_registered(status, now); }
  void refuse() { answer(fail(Code::kUnavailable, "nobody answers there")); }
  // Asked since the last time that this was asked?
  bool asks() {
    pass(Duration(0));
    return std::exchange(seen, kubelet.asked) != kubelet.asked;
  }
  void registers() {
    ASSERT_TRUE(asks());
    answer({});
    kubelet.is_watched = true;
    ASSERT_TRUE(registration.registered());
  }

  Log log{[](std::string_view) {}, [] { return WallTime{}; }};
  NobodysService service;
  FakeKubelet kubelet;
  MonotonicTime now = MonotonicTime(std::chrono::hours(1));
  Registration registration{"nvidia.com/gpu", service, kubelet, log};
  int seen = 0;
};

TEST_F(RegistrationTest, AnotherLifeOfTheKubeletIsAskedAtOnce) {
  registers();
  for (int life = 2; life < 10; ++life) {
    kubelet.socket = "life " + std::to_string(life);
    registers();
  }
  EXPECT_EQ(kubelet.served, 1) << "our socket still stood";
}

TEST_F(RegistrationTest, TwiceWithinMillisecondsIsAskedTwice) {
  registers();
  kubelet.socket = "life 2";
  ASSERT_TRUE(asks());
  now += milliseconds(2);
  kubelet.socket = "life 3";
  // The question to the last one is not waited for.
  registers();
  now += milliseconds(1);
  kubelet.socket = "";
  EXPECT_FALSE(asks());
  now += milliseconds(1);
  kubelet.socket = "life 4";
  registers();
}

TEST_F(RegistrationTest, AnAnswerOfAKubeletThatIsGoneDelaysNothing) {
  registers();
  kubelet.socket = "life 2";
  ASSERT_TRUE(asks());
  kubelet.socket = "";
  ASSERT_FALSE(asks());
  refuse();
  kubelet.socket = "life 3";
  registers();
}

// Killed, it leaves its socket behind: nobody answers there for minutes, and then somebody does.
TEST_F(RegistrationTest, AfterMinutesOfAStaleSocketTheNewOneIsAskedAtOnce) {
  registers();
  kubelet.is_watched = false;
  const MonotonicTime killed = now;
  int tries = 0;
  while (now < killed + minutes(5)) {
    pass(milliseconds(50));
    if (asks()) {
      ++tries;
      refuse();
    }
  }
  // Every five seconds in the end: no storm, no silence.
  EXPECT_GE(tries, 55);
  EXPECT_LE(tries, 75);
  kubelet.socket = "life 2";
  registers();
}

TEST_F(RegistrationTest, AfterMinutesWithoutTheFolderItIsServedAndRegisteredAtOnce) {
  registers();
  kubelet.folder = kubelet.in_place = kubelet.is_watched = false;
  kubelet.socket = "";
  pass(minutes(5));
  EXPECT_EQ(kubelet.served, 1);
  kubelet.folder = true;
  kubelet.socket = "life 2";
  registers();
  EXPECT_EQ(kubelet.served, 2);
}

TEST_F(RegistrationTest, AKubeletThatStartsMoreSlowlyThanItsSocketIsAskedAgainSoon) {
  registers();
  kubelet.socket = "life 2";
  ASSERT_TRUE(asks());
  refuse();  // bound, and nobody listens yet
  pass(milliseconds(99));
  EXPECT_FALSE(asks());
  pass(milliseconds(1));
  registers();
}

TEST_F(RegistrationTest, OurSocketIsMadeAgainAndRegistered) {
  registers();
  for (int turn = 2; turn < 6; ++turn) {
    kubelet.in_place = false;
    registers();
    EXPECT_EQ(kubelet.served, turn);
  }
}

TEST_F(RegistrationTest, AQuestionThatIsNotAnsweredIsAskedAgain) {
  ASSERT_TRUE(asks());
  pass(kRegistrationPatience - milliseconds(1));
  EXPECT_FALSE(asks());
  pass(milliseconds(1));
  registers();
}

TEST_F(RegistrationTest, ASocketThatNobodyCanConnectToIsMadeAgain) {
  registers();
  pass(kLookEvery);
  kubelet.is_watched = false;  // the stream broke
  pass(kUnwatchedPatience + kLookEvery);
  EXPECT_EQ(kubelet.served, 1) << "it may just come again";
  ASSERT_TRUE(asks());
  answer({});
  pass(kUnwatchedPatience + kLookEvery);
  EXPECT_EQ(kubelet.served, 2) << "it was told, and did not come";
  ASSERT_TRUE(asks());
  answer({});
  kubelet.is_watched = true;
  pass(minutes(1));
  EXPECT_EQ(kubelet.served, 2);
  EXPECT_FALSE(asks());
}

TEST_F(RegistrationTest, AStreamThatBrokeIsRegisteredAgain) {
  registers();
  pass(minutes(1));
  EXPECT_FALSE(asks());
  kubelet.is_watched = false;
  pass(kUnwatchedPatience + kLookEvery);
  registers();
}

}  // namespace
}  // namespace gpuslice::agent
