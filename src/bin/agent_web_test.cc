#include "bin/agent_web.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <future>
#include <mutex>
#include <string>
#include <thread>

#include "base/text.h"

namespace gpuslice::bin {
namespace {

// The answer to GET `path`, whole.
std::string get(const std::string& address, const std::string& path) {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(*parse_u64(address.substr(address.rfind(':') + 1))));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  EXPECT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
  const std::string request = "GET " + path + " HTTP/1.0\r\n\r\n";
  EXPECT_EQ(::send(fd, request.data(), request.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(request.size()));
  std::string all;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = ::recv(fd, buffer, sizeof buffer, 0)) > 0) {
    all.append(buffer, static_cast<size_t>(got));
  }
  ::close(fd);
  return all;
}

std::string body_of(const std::string& answer) {
  return answer.substr(answer.find("\r\n\r\n") + 4);
}

class AgentWebTest : public ::testing::Test {
 protected:
  AgentWebTest() {
    loop_ = std::move(*host::EventLoop::create());
    web_ = std::move(*AgentWeb::start(
        "127.0.0.1:0", *loop_, rpcs_,
        {[this] {
           const std::lock_guard lock(mutex_);
           return state_;
         },
         [this] { ++wanted_; }, [this] { return stuck_; }, std::chrono::milliseconds(300)}));
    t0_ = std::thread([this] { loop_->run(); });
  }
  ~AgentWebTest() override {
    loop_->stop();
    t0_.join();
    web_.reset();  // after T0: what it posted there uses it
  }
  void publish(WebState state) {
    const std::lock_guard lock(mutex_);
    state_ = std::move(state);
  }
  int wanted() {
    std::promise<int> done;
    EXPECT_TRUE(loop_->post([&] { done.set_value(wanted_); }));
    return done.get_future().get();
  }

  RpcMetrics rpcs_;
  std::mutex mutex_;
  WebState state_;
  int wanted_ = 0;     // T0
  std::string stuck_;  // T0
  std::unique_ptr<host::EventLoop> loop_;
  std::unique_ptr<AgentWeb> web_;
  std::thread t0_;
};

TEST_F(AgentWebTest, IsAliveBeforeItIsReady) {
  EXPECT_EQ(body_of(get(web_->address(), "/healthz")), "ok\n");
  EXPECT_EQ(body_of(get(web_->address(), "/readyz")), "starting\n");
  publish({false, "no driver yet", {}, {}});
  const std::string not_ready = get(web_->address(), "/readyz");
  EXPECT_TRUE(not_ready.starts_with("HTTP/1.0 503 "));
  EXPECT_EQ(body_of(not_ready), "no driver yet\n");
  publish({true, "", {}, {}});
  EXPECT_EQ(body_of(get(web_->address(), "/readyz")), "ready\n");
  EXPECT_TRUE(get(web_->address(), "/other").starts_with("HTTP/1.0 404 "));
}

TEST_F(AgentWebTest, AMainThreadThatHangsIsDeadAndOneThatGoesOnIsNot) {
  std::promise<void> hang;
  EXPECT_TRUE(loop_->post([&] { hang.get_future().wait(); }));
  EXPECT_EQ(body_of(get(web_->address(), "/healthz")), "ok\n");
  EXPECT_EQ(body_of(get(web_->address(), "/healthz")), "ok\n") << "not yet";
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  const std::string dead = get(web_->address(), "/healthz");
  EXPECT_TRUE(dead.starts_with("HTTP/1.0 503 "));
  EXPECT_EQ(body_of(dead), "the agent's main thread has not answered for 0 s\n");
  hang.set_value();
  EXPECT_EQ(wanted(), 0);  // it has come to the end of its queue
  EXPECT_EQ(body_of(get(web_->address(), "/healthz")), "ok\n");
}

TEST_F(AgentWebTest, AnotherThreadThatHangsIsNamed) {
  EXPECT_TRUE(loop_->post([this] { stuck_ = "the driver has not answered for 700 s"; }));
  (void)get(web_->address(), "/healthz");  // it is asked now
  EXPECT_EQ(wanted(), 0);                  // … and has answered
  const std::string dead = get(web_->address(), "/healthz");
  EXPECT_TRUE(dead.starts_with("HTTP/1.0 503 "));
  EXPECT_EQ(body_of(dead), "the driver has not answered for 700 s\n");
  EXPECT_EQ(wanted(), 0);  // what that look asked has been answered as well
  EXPECT_TRUE(loop_->post([this] { stuck_ = ""; }));
  (void)get(web_->address(), "/healthz");
  EXPECT_EQ(wanted(), 0);
  EXPECT_EQ(body_of(get(web_->address(), "/healthz")), "ok\n");
}

TEST_F(AgentWebTest, ShowsThePageAndAsksForSamples) {
  WebState state;
  state.page.version = "9.9";
  publish(state);
  EXPECT_NE(get(web_->address(), "/").find("version 9.9"), std::string::npos);
  EXPECT_EQ(wanted(), 1);
}

TEST_F(AgentWebTest, MetricsPassPromtool) {
  rpcs_.seen("nvidia.com/gpu", "Allocate", std::chrono::microseconds(300), true);
  rpcs_.seen("nvidia.com/gpu", "Allocate", std::chrono::microseconds(30), false);
  WebState state;
  state.families = {{"gpuslice_devices",
                     "Devices offered.",
                     metrics::Type::kGauge,
                     {{{{"resource", "nvidia.com/gpu"}, {"state", "healthy"}}, 4}},
                     {}}};
  publish(state);
  const std::string answer = get(web_->address(), "/metrics");
  EXPECT_NE(answer.find("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"),
            std::string::npos);
  const std::string text = body_of(answer);
  EXPECT_NE(text.find("gpuslice_devices{resource=\"nvidia.com/gpu\",state=\"healthy\"} 4\n"),
            std::string::npos);
  EXPECT_NE(text.find("gpuslice_kubelet_rpc_duration_seconds_bucket{resource=\"nvidia.com/gpu\","
                      "method=\"Allocate\",le=\"0.0005\"} 2\n"),
            std::string::npos)
      << text;
  EXPECT_NE(text.find("gpuslice_kubelet_rpc_failed_total{resource=\"nvidia.com/gpu\",method="
                      "\"Allocate\"} 1\n"),
            std::string::npos);
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  EXPECT_EQ(fwrite(text.data(), 1, text.size(), promtool), text.size());
  EXPECT_EQ(pclose(promtool), 0) << text;
}

TEST(RpcMetrics, CountsFurtherResourcesUnderOther) {
  RpcMetrics rpcs;
  for (size_t i = 0; i < RpcMetrics::kMaxResources + 5; ++i) {
    rpcs.seen("nvidia.com/r" + std::to_string(i), "Allocate", Duration(1), true);
  }
  const auto families = rpcs.families();
  ASSERT_EQ(families.size(), 2u);
  ASSERT_EQ(families[1].samples.size(), RpcMetrics::kMaxResources + 1);
  uint64_t other = 0;
  for (const auto& series : families[0].histograms) {
    if (series.labels[0].value == "other") other = series.counts[0];
  }
  EXPECT_EQ(other, 5u);
}

}  // namespace
}  // namespace gpuslice::bin
