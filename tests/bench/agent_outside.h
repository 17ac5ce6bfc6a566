#pragma once

// The agent seen from outside, as a kubelet, a scraper and an administrator see it: the real
// program on a simulated node, its sockets and /proc. For programs that measure.

#include <grpcpp/grpcpp.h>
#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/api.grpc.pb.h"

namespace gpuslice::bench {

using Clock = std::chrono::steady_clock;
using Milliseconds = std::chrono::duration<double, std::milli>;

inline constexpr auto kPatience = std::chrono::seconds(20);

// Says why on standard error, takes the agent along and exits with 1.
[[noreturn]] void die(const std::string& why);

[[nodiscard]] double since_ms(Clock::time_point start);

// The kubelet's side of registration. Any thread.
class Registration final : public v1beta1::Registration::Service {
 public:
  explicit Registration(const std::string& socket);
  ~Registration() override;
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override;
  // The next registration: its endpoint and when it came.
  [[nodiscard]] std::pair<std::string, Clock::time_point> wait();
  // Resource → its endpoint, as registered last.
  [[nodiscard]] std::map<std::string, std::string> endpoints();
  [[nodiscard]] uint64_t count();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<std::string> endpoint_;
  std::map<std::string, std::string> endpoints_;
  uint64_t count_ = 0;
  Clock::time_point when_;
  std::unique_ptr<grpc::Server> server_;
};

// A port of this machine that is free now.
[[nodiscard]] int free_port();

// The agent's own metrics; "" where it does not answer.
[[nodiscard]] std::string scrape(int port);
// The value of a series, by the start of its line; 0 where there is none.
[[nodiscard]] double series(const std::string& text, const std::string& start);

struct Place {
  std::string gpuslice, root, dir;
  int gpus = 0, replicas = 0;
  int port = 0;
  std::vector<std::string> more;  // flags of the agent
  std::string note;               // of the rows that tell of it

  [[nodiscard]] std::string kubelet() const { return dir + "/kubelet"; }
  [[nodiscard]] std::string config() const { return dir + "/config.yaml"; }
  // `count` replicas; 1: none.
  void write_config(int count) const;
  // Flags for everything that the agent does, and the files that they name: layouts by a label in a
  // file, labels of the node into a file. `mig_gpu`: what the label "on" makes seven of.
  void all_roles(const std::string& mig_gpu = "0");
  // The label of MIG: "off", or "on".
  void write_label(const std::string& label) const;
};

class Agent {
 public:
  explicit Agent(const Place& place);
  Agent(const Agent&) = delete;
  Agent& operator=(const Agent&) = delete;
  ~Agent() { stop(); }

  // Milliseconds until it was gone.
  double stop();
  [[nodiscard]] bool runs() const;
  // A number of /proc/<pid>/status.
  [[nodiscard]] double status(const std::string& key) const;
  [[nodiscard]] int descriptors() const;
  // Times that any thread went to sleep of its own will: each is a wake-up to come.
  [[nodiscard]] double wakeups() const;

  pid_t pid = 0;
  Clock::time_point started;
};

[[nodiscard]] std::shared_ptr<grpc::Channel> channel_to(const std::string& socket);

}  // namespace gpuslice::bench
