#pragma once

// The port Kubelet of a real node: a plugin server for each resource, and what is asked of the
// kubelet.

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "kubelet/client.h"
#include "kubelet/plugin_server.h"
#include "ports/kubelet.h"

namespace gpuslice::kubelet {

// gRPC writes to stderr what our errors say better, and Debian's build of its mutexes looks for
// deadlocks at every lock: neither. For the whole process; called once, before anything else of
// this folder.
void quiet_grpc();

// What the servers of one resource have seen; counted across their lives.
struct PluginCounts {
  size_t streams = 0;
  uint64_t refused_streams = 0;
  size_t connections = 0;
  uint64_t refused_connections = 0;
  uint64_t lists_sent = 0;
};

class NodeKubelet final : public ports::Kubelet {
 public:
  // Takes work to T0. Must not refuse: at most kMaxCallsUnderWay answers are under way.
  using Post = std::function<void(std::function<void()>)>;
  // A call was answered; called on the thread of the resource's server.
  using Seen = std::function<void(const std::string& resource, const CallSeen& seen)>;

  // `kubelet_dir` is laid out like /var/lib/kubelet. `registration_socket` if it is not
  // <kubelet_dir>/device-plugins/kubelet.sock. `events` is called on T0 only, and not after the end
  // of this object.
  struct Options {
    std::string kubelet_dir;
    std::string registration_socket;
    Post post;
    Seen seen;
  };
  NodeKubelet(Options options, ports::KubeletEvents& events);
  ~NodeKubelet() override;

  [[nodiscard]] Status serve(const std::string& resource, ports::PluginService& service,
                             std::shared_ptr<const ports::DeviceList> list) override;
  void publish(const std::string& resource, std::shared_ptr<const ports::DeviceList> list) override;
  void stop(const std::string& resource) override;
  [[nodiscard]] bool socket_in_place(const std::string& resource) const override;
  [[nodiscard]] bool watched(const std::string& resource) const override;
  void register_plugin(const std::string& resource) override;
  void list_pods() override;
  [[nodiscard]] std::string kubelet_socket() const override;

  // T0. By resource, those served now.
  [[nodiscard]] std::map<std::string, PluginCounts> counts() const;
  // T0. The thread that has not answered for longest: of which socket, and for how long. See
  // PluginServer::unanswered().
  struct Silent {
    std::string of;  // "nvidia.com/gpu", or "what is asked of the kubelet"
    Duration since{};
  };
  [[nodiscard]] Silent most_silent();
  // Any thread. What is asked of the kubelet.
  [[nodiscard]] const Client& calls() const { return client_; }
  // The sockets that matter: the kubelet's and ours. For whoever watches the folder.
  [[nodiscard]] const std::string& registration_socket() const { return registration_socket_; }
  [[nodiscard]] const std::string& plugin_dir() const { return plugin_dir_; }

 private:
  struct Alive {};
  // The last question of a resource to be registered: its number, and how many streams there had
  // been by then.
  struct Asked {
    uint64_t turn = 0;
    uint64_t streams_begun = 0;
  };

  Options options_;
  ports::KubeletEvents& events_;
  std::string plugin_dir_;
  std::string registration_socket_;
  uint64_t next_unique_ = 0;
  const std::shared_ptr<const BufferMemory> memory_ = make_buffer_memory();  // of all servers
  const std::shared_ptr<Acceptor> acceptor_;                                 // of all servers
  std::map<std::string, std::unique_ptr<PluginServer>> servers_;
  uint64_t turns_ = 0;
  std::map<std::string, Asked> asked_;  // of served resources
  // Answers that were posted and not yet run when this object ends find it gone.
  std::shared_ptr<Alive> alive_ = std::make_shared<Alive>();
  Client client_;
};

}  // namespace gpuslice::kubelet
