// The agent's local socket: what its clients may do to it, and what that costs.

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "host/local_client.h"
#include "host/local_server.h"

namespace gpuslice::host {
namespace {

namespace fs = std::filesystem;

// A client as plain as can be: what it sends is what the test says.
class Raw {
 public:
  explicit Raw(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, path.data(), path.size());
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    timeval limit{5, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  }
  Raw(const Raw&) = delete;
  Raw& operator=(const Raw&) = delete;
  ~Raw() { ::close(fd_); }
  [[nodiscard]] bool connected() const { return connected_; }
  bool send(const std::string& bytes) const {
    return ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) ==
           static_cast<ssize_t>(bytes.size());
  }
  void no_more() const { ::shutdown(fd_, SHUT_WR); }
  // Everything until the server closes; "timeout" when it does not.
  [[nodiscard]] std::string rest() const {
    std::string all;
    char buffer[4096];
    ssize_t got = 0;
    while ((got = ::recv(fd_, buffer, sizeof buffer, 0)) > 0)
      all.append(buffer, static_cast<size_t>(got));
    return got == 0 || errno == ECONNRESET ? all : "timeout";
  }

 private:
  int fd_;
  bool connected_ = false;
};

struct LocalTest : testing::Test {
  LocalTest() {
    std::string pattern = "/tmp/gpuslice-local-XXXXXX";
    folder = ::mkdtemp(pattern.data());
    path = folder + "/run/agent.sock";
    loop = std::move(*EventLoop::create());
  }
  ~LocalTest() override {
    stop();
    fs::remove_all(folder);
  }
  void start(Duration patience = kLocalPatience) {
    LocalServer::Events events;
    events.asked = [this](const LocalServer::Peer& peer, const std::string& line) {
      pid = peer.pid;
      if (line == "large") return server->answer(peer.id, std::string(8 << 20, 'x'), kClose);
      if (line == "keep") return server->answer(peer.id, "kept", LocalServer::Then::kKeep);
      if (line == "late") return;
      server->answer(peer.id, "<" + line + ">", kClose);
    };
    events.gone = [this](LocalServer::Id) { ++gone; };
    server = std::move(*LocalServer::listen(*loop, path, std::move(events), patience));
    t0 = std::thread([this] { loop->run(); });
  }
  void stop() {
    if (!t0.joinable()) return;
    loop->stop();
    t0.join();
    server.reset();
  }
  template <class Probe>
  auto on_t0(Probe probe) {
    std::promise<decltype(probe())> done;
    EXPECT_TRUE(loop->post([&] { done.set_value(probe()); }));
    return done.get_future().get();
  }
  LocalCounts counts() {
    return on_t0([this] { return server->counts(); });
  }
  template <class Holds>
  static bool eventually(Holds holds) {
    for (int i = 0; i < 500; ++i) {
      if (holds()) return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }
  std::string ask(const std::string& line) const {
    auto client = LocalClient::connect(path);
    if (!client || !*client) return "nobody";
    return (*client)->ask(line, std::chrono::seconds(5)).value_or("no answer");
  }

  static constexpr auto kClose = LocalServer::Then::kClose;
  std::string folder, path;
  std::unique_ptr<EventLoop> loop;
  std::unique_ptr<LocalServer> server;
  std::thread t0;
  int pid = 0;
  std::atomic<int> gone{0};
};

TEST_F(LocalTest, AnswersItsOwnUserAlone) {
  start();
  EXPECT_EQ(ask("status"), "<status>");
  EXPECT_EQ(on_t0([this] { return pid; }), ::getpid());
  EXPECT_EQ(ask("large").size(), size_t{8} << 20);
  struct stat info{};
  ASSERT_EQ(::stat(path.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0600U);
  EXPECT_EQ(gone, 0) << "what its answer closed is not told of";
}

TEST_F(LocalTest, NobodyThereIsNoError) {
  const auto none = LocalClient::connect(path);
  ASSERT_TRUE(none.has_value());
  EXPECT_FALSE(none->has_value());
  start();
  stop();
  EXPECT_FALSE(fs::exists(path)) << "its socket goes with it";
  // One that a killed agent left behind.
  std::string other = path;
  {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    std::memcpy(to.sun_path, other.data(), other.size());
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&to), sizeof to), 0);
    ::close(fd);
  }
  const auto stale = LocalClient::connect(path);
  ASSERT_TRUE(stale.has_value());
  EXPECT_FALSE(stale->has_value());
  start();
  EXPECT_EQ(ask("x"), "<x>") << "a stale one is replaced";
}

TEST_F(LocalTest, AnotherAgentIsLeftAlone) {
  start();
  const auto second = LocalServer::listen(*loop, path, {});
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Code::kInUse);
  EXPECT_EQ(second.error().message,
            path + ": another agent answers there; end it, or choose another --run-dir");
  EXPECT_EQ(ask("x"), "<x>");
  const auto too_long = LocalServer::listen(*loop, "/tmp/" + std::string(120, 'x'), {});
  EXPECT_EQ(too_long.error().code, Code::kInvalidConfig);
}

TEST_F(LocalTest, AKeptConnectionIsALeaseThatEndsWithItsClient) {
  start();
  {
    auto client = LocalClient::connect(path);
    ASSERT_TRUE(client && *client);
    EXPECT_EQ((*client)->ask("keep", std::chrono::seconds(5)).value(), "kept");
    EXPECT_EQ(counts().connections, 1U);
    EXPECT_EQ(gone, 0);
  }
  EXPECT_TRUE(eventually([this] { return gone == 1; }));
  // Who goes before the answer is told of as well.
  {
    const Raw raw(path);
    raw.send("late\n");
    EXPECT_TRUE(eventually([this] { return counts().requests == 2; }));
  }
  EXPECT_TRUE(eventually([this] { return gone == 2; }));
  EXPECT_EQ(counts().connections, 0U);
}

TEST_F(LocalTest, ASlowClientIsCutOffAndHoldsNobodyUp) {
  start(std::chrono::milliseconds(300));
  const Raw slow(path), never_reads(path), silent(path);
  slow.send("stat");
  never_reads.send("large\n");
  EXPECT_EQ(ask("x"), "<x>");
  EXPECT_EQ(slow.rest(), "");
  EXPECT_EQ(silent.rest(), "");
  EXPECT_TRUE(eventually([this] { return counts().cut == 3; }));
  EXPECT_LT(never_reads.rest().size(), size_t{8} << 20);
  // A lease is not slow: it may live for as long as it likes.
  auto lease = LocalClient::connect(path);
  EXPECT_EQ((*lease)->ask("keep", std::chrono::seconds(5)).value(), "kept");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  EXPECT_EQ(gone, 1) << "the one that did not read alone";
}

TEST_F(LocalTest, GarbageAndLongLinesAreCutOff) {
  start();
  const Raw endless(path);
  const std::string block(32 * 1024, 'x');
  size_t taken = 0;
  while (taken < (size_t{64} << 20) && endless.send(block)) taken += block.size();
  EXPECT_LT(taken, size_t{1} << 20);
  const Raw two_lines(path);
  two_lines.send("a\nb\n");
  EXPECT_EQ(two_lines.rest(), "");
  const Raw half(path);
  half.send("half a li");
  half.no_more();
  EXPECT_EQ(half.rest(), "");
  const Raw zeros(path);
  zeros.send(std::string("\0\xff\x80\n", 4));
  EXPECT_EQ(zeros.rest(), std::string("<\0\xff\x80>\n", 6));
  EXPECT_EQ(ask("x"), "<x>");
}

TEST_F(LocalTest, OneConnectionTooManyIsClosedAndCounted) {
  start(std::chrono::seconds(30));
  std::vector<std::unique_ptr<Raw>> clients;
  for (size_t i = 0; i < kMaxLocalConnections; ++i) clients.push_back(std::make_unique<Raw>(path));
  ASSERT_TRUE(eventually([this] { return counts().connections == kMaxLocalConnections; }));
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Raw(path).rest(), "");
  EXPECT_EQ(counts().refused, 50U);
  clients.clear();
  EXPECT_TRUE(eventually([this] { return ask("x") == "<x>"; }))
      << "places of closed connections are not given again";
}

TEST_F(LocalTest, TheClientWaitsSoLongAndNoLonger) {
  start();
  auto client = LocalClient::connect(path);
  const auto begun = std::chrono::steady_clock::now();
  const auto answer = (*client)->ask("late", std::chrono::milliseconds(200));
  EXPECT_EQ(answer.error().code, Code::kTimeout);
  EXPECT_LT(std::chrono::steady_clock::now() - begun, std::chrono::seconds(2));
  auto closed = LocalClient::connect(path);
  EXPECT_EQ((*closed)->ask("a\nb", std::chrono::seconds(5)).error().code, Code::kUnavailable);
}

}  // namespace
}  // namespace gpuslice::host
