// Who may connect, and who goes when there are too many.

#include "kubelet/acceptor.h"

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/served_plugin_for_test.h"

namespace gpuslice::kubelet {
namespace {

namespace fs = std::filesystem;

using AcceptorTest = ServedPlugin;

// Another process that connects `count` times, says `bytes` each time, and holds what it has until
// this ends; or as many processes with a connection each. They have done so when the object is
// made.
class Crowd {
 public:
  enum class Of { kOneProcess, kManyProcesses };
  Crowd(const std::string& path, int count, const std::string& bytes = {},
        Of of = Of::kOneProcess) {
    std::array<int, 2> done{}, end{};
    EXPECT_EQ(::pipe2(done.data(), O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(end.data(), O_CLOEXEC), 0);
    child_ = ::fork();
    if (child_ == 0) {
      ::close(end[1]);
      for (int i = 0; i < count; ++i) {
        if (of == Of::kManyProcesses && ::fork() != 0) continue;
        char byte = 0;
        [[maybe_unused]] ssize_t told =
            ::send(connect_raw(path), bytes.data(), bytes.size(), MSG_NOSIGNAL);
        told = ::write(done[1], &byte, 1);
        if (of == Of::kManyProcesses) break;
      }
      char byte = 0;
      [[maybe_unused]] const ssize_t told = ::read(end[0], &byte, 1);
      ::_exit(0);
    }
    ::close(done[1]);
    ::close(end[0]);
    char byte = 0;
    for (int i = 0; i < count; ++i) EXPECT_EQ(::read(done[0], &byte, 1), 1);
    ::close(done[0]);
    end_ = end[1];
  }
  ~Crowd() {
    ::close(end_);
    ::waitpid(child_, nullptr, 0);
  }

 private:
  pid_t child_ = 0;
  int end_ = -1;
};

size_t descriptors() {
  return static_cast<size_t>(std::distance(fs::directory_iterator("/proc/self/fd"), {}));
}

// What a client says to ask for `streams` ListAndWatch streams on one connection, byte for byte.
std::string list_and_watch(uint8_t streams) {
  const auto frame = [](uint8_t kind, uint8_t flags, uint8_t stream, const std::string& payload) {
    std::string out{0, 0, static_cast<char>(payload.size()), static_cast<char>(kind)};
    out += {static_cast<char>(flags), 0, 0, 0, static_cast<char>(stream)};
    return out + payload;
  };
  std::string headers;
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {":method", "POST"},
           {":scheme", "http"},
           {":path", "/v1beta1.DevicePlugin/ListAndWatch"},
           {":authority", "localhost"},
           {"content-type", "application/grpc"},
           {"te", "trailers"}}) {
    headers += std::string{0, static_cast<char>(name.size())} + name;
    headers += std::string{static_cast<char>(value.size())} + value;
  }
  std::string out = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, "");
  for (uint8_t i = 0; i < streams; ++i) {
    const auto stream = static_cast<uint8_t>(2 * i + 1);
    out += frame(1, 4, stream, headers) + frame(0, 1, stream, std::string(5, '\0'));
  }
  return out;
}

TEST_F(AcceptorTest, OneConnectionTooManyIsClosedAndTheOthersGoOn) {
  serve();
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads());
  std::vector<int> held;
  for (size_t i = 1; i < kMaxConnections; ++i) held.push_back(connect_raw(path_));
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections; }));
  EXPECT_EQ(server_->refused_connections(), 0u);

  const int one_more = connect_raw(path_);
  char byte = 0;
  EXPECT_EQ(::recv(one_more, &byte, 1, 0), 0) << "closed without a word";
  ::close(one_more);
  EXPECT_EQ(server_->refused_connections(), 1u);
  EXPECT_EQ(server_->connections(), kMaxConnections);
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  ASSERT_TRUE(watch.reads());

  ::close(held.back());
  held.pop_back();
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections - 1; }));
  EXPECT_TRUE(answers());
  for (const int fd : held) ::close(fd);
}

TEST_F(AcceptorTest, AConnectionThatEndsOnEitherSideIsForgotten) {
  serve();
  const size_t before = descriptors();
  constexpr size_t kRounds = 20;
  for (size_t round = 0; round < kRounds; ++round) {
    const int leaves = connect_raw(path_);
    ASSERT_TRUE(eventually([&] { return server_->connections() == 1; }));
    ::close(leaves);
    ASSERT_TRUE(eventually([&] { return server_->connections() == 0; }));

    const int babbles = connect_raw(path_);  // gRPC closes it
    const std::string garbage(100, 'x');
    ASSERT_EQ(::send(babbles, garbage.data(), garbage.size(), MSG_NOSIGNAL), 100);
    ASSERT_TRUE(eventually([&] {
      std::array<char, 256> bytes{};
      return ::recv(babbles, bytes.data(), bytes.size(), 0) <= 0;
    }));
    ASSERT_TRUE(eventually([&] { return server_->connections() == 0; }));
    ::close(babbles);
  }
  // Not to be the same to the last one: gRPC may yet have been closing those of another test, and
  // opens some for itself when it first needs them.
  EXPECT_TRUE(eventually([&] { return descriptors() < before + kRounds / 2; }));
  EXPECT_EQ(server_->refused_connections(), 0u);
}

TEST_F(AcceptorTest, AKubeletGetsInAmongTheConnectionsOfAnother) {
  serve();
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads());
  const size_t before = descriptors();
  {
    const Crowd crowd(path_, 1000);
    EXPECT_TRUE(
        eventually([&] { return server_->refused_connections() >= 1001 - kMaxConnections; }));
    EXPECT_EQ(server_->connections(), kMaxConnections);
    // gRPC's descriptor and ours of each.
    EXPECT_LE(descriptors(), before + 2 * kMaxConnections + 4);
    for (int i = 0; i < 20; ++i) EXPECT_TRUE(answers()) << i;
    server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
    ASSERT_TRUE(watch.reads());
    EXPECT_EQ(watch.list->devices_size(), 3);
  }
  EXPECT_TRUE(eventually([&] { return server_->connections() == 1 && descriptors() <= before; }));
}

TEST_F(AcceptorTest, AKubeletGetsItsStreamAmongThoseOfAnother) {
  serve();
  const Crowd crowd(path_, 1, list_and_watch(90));
  ASSERT_TRUE(eventually([&] { return server_->streams() == kMaxStreams; }));
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads()) << watch.stream->Finish().error_message();
  EXPECT_EQ(server_->streams(), kMaxStreams);
  // What has a stream goes as well, when all of another process do.
  const Crowd more(path_, 100, list_and_watch(1));
  ASSERT_TRUE(eventually([&] { return server_->connections() == kMaxConnections; }));
  EXPECT_TRUE(answers());
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  ASSERT_TRUE(watch.reads());
  EXPECT_EQ(watch.list->devices_size(), 3);
}

TEST_F(AcceptorTest, AKubeletThatIsKnownStaysAmongThoseOfManyProcesses) {
  serve();
  acceptor_->set_kubelet(::getpid());
  const int kubelets = connect_raw(path_);  // it has yet to ask for its stream
  ASSERT_TRUE(eventually([&] { return server_->connections() == 1; }));
  const Crowd crowd(path_, 100, {}, Crowd::Of::kManyProcesses);
  ASSERT_TRUE(eventually([&] { return server_->refused_connections() >= 101 - kMaxConnections; }));
  pollfd end{kubelets, POLLRDHUP, 0};
  EXPECT_EQ(::poll(&end, 1, 0), 0) << "it was closed";
  // Where all the others stream, one of theirs goes.
  const Crowd more(path_, 100, list_and_watch(1), Crowd::Of::kManyProcesses);
  Watch watch(channel_);
  ASSERT_TRUE(watch.reads()) << watch.stream->Finish().error_message();
  server_->publish(std::make_shared<const ports::DeviceList>(list_of(3)));
  ASSERT_TRUE(watch.reads());
  EXPECT_EQ(watch.list->devices_size(), 3);
  EXPECT_EQ(server_->connections(), kMaxConnections);
  ::close(kubelets);
}

TEST_F(AcceptorTest, WhoComesAndGoesWithoutEndKeepsNobodyOut) {
  serve();
  const size_t before = descriptors();
  size_t most = 0;
  for (int i = 0; i < 5000; ++i) {
    ::close(connect_raw(path_));
    if (i % 100 == 0) most = std::max(most, descriptors());
    if (i % 1000 == 0) {
      EXPECT_TRUE(answers());
    }
  }
  EXPECT_TRUE(answers());
  EXPECT_LE(most, before + 2 * kMaxConnections + 16);
}

TEST(WhoGoes, IsOfTheProcessThatHasMost) {
  const auto goes = [](std::vector<Guest> guests, int pid, int kubelet = 0) {
    const std::optional<size_t> place = who_goes(guests, pid, kubelet);
    return place ? static_cast<int>(*place) : -1;
  };
  // The new one, if its process has as many as any.
  EXPECT_EQ(goes({{1, false}, {2, false}, {2, false}}, 2), -1);
  EXPECT_EQ(goes({{1, false}, {2, false}}, 2), -1);
  // Else the oldest of the process that has most, without a stream if there is one.
  EXPECT_EQ(goes({{1, false}, {2, true}, {2, false}, {2, false}}, 1), 2);
  EXPECT_EQ(goes({{1, false}, {2, true}, {2, true}}, 3), 1);
  EXPECT_EQ(goes({{1, false}, {2, false}}, 3), 0);
  // One of several that stream is not missed as the only one is.
  EXPECT_EQ(goes({{1, true}, {2, true}}, 3), -1);
  // Of those that cannot be told apart none that streams goes, and the newest comes in.
  EXPECT_EQ(goes({{0, true}, {0, false}, {0, false}}, 0), 1);
  EXPECT_EQ(goes({{0, true}, {0, true}, {3, true}}, 4), -1);
  EXPECT_EQ(goes({{0, true}, {0, true}}, 0), -1);
  EXPECT_EQ(goes({{0, true}, {3, true}, {3, true}}, 0), 1);
  // What is known to be the kubelet's stays, and finds room among those of many processes.
  EXPECT_EQ(goes({{7, false}, {1, false}, {2, false}}, 3, 7), 1);
  EXPECT_EQ(goes({{7, true}, {7, false}, {1, true}}, 3, 7), -1);
  EXPECT_EQ(goes({{1, true}, {2, true}}, 7, 7), 0);
  EXPECT_EQ(goes({{1, true}, {2, false}}, 7, 7), 1);
  EXPECT_EQ(goes({{7, true}, {7, false}}, 7, 7), -1);
  EXPECT_EQ(goes({{0, true}, {7, true}}, 7, 7), -1) << "who the first is is not known";
}

}  // namespace
}  // namespace gpuslice::kubelet
