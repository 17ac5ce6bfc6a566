#include "kubelet/node_kubelet.h"

#include <absl/synchronization/mutex.h>
#include <fcntl.h>
#include <grpc/support/log.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "base/check.h"
#include "kubelet/acceptor.h"
#include "kubelet/socket_path.h"

namespace gpuslice::kubelet {

void quiet_grpc() {
  gpr_set_log_function([](gpr_log_func_args*) {});
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
}

NodeKubelet::NodeKubelet(Options options, ports::KubeletEvents& events)
    : options_(std::move(options)),
      events_(events),
      plugin_dir_(options_.kubelet_dir + "/device-plugins"),
      registration_socket_(options_.registration_socket.empty() ? plugin_dir_ + "/kubelet.sock"
                                                                : options_.registration_socket),
      acceptor_(std::make_shared<Acceptor>()) {}

NodeKubelet::~NodeKubelet() = default;

Status NodeKubelet::serve(const std::string& resource, ports::PluginService& service,
                          std::shared_ptr<const ports::DeviceList> list) {
  TRY_ASSIGN(std::string path, plugin_socket_path(plugin_dir_, resource));
  servers_.erase(resource);  // one that is served already is replaced
  PluginServer::Options options;
  options.socket_path = std::move(path);
  options.service = &service;
  options.list = std::move(list);
  options.memory = memory_;
  options.acceptor = acceptor_;
  options.seen = [this, resource](const CallSeen& seen) {
    if (options_.seen) options_.seen(resource, seen);
  };
  options.unique = fmt::format("{}.{}", ::getpid(), next_unique_++);
  TRY_ASSIGN(std::unique_ptr<PluginServer> server, PluginServer::serve(std::move(options)));
  servers_[resource] = std::move(server);
  asked_.erase(resource);
  return {};
}

void NodeKubelet::publish(const std::string& resource,
                          std::shared_ptr<const ports::DeviceList> list) {
  const auto server = servers_.find(resource);
  CHECK(server != servers_.end(), "{} is published and not served", resource);
  server->second->publish(std::move(list));
}

void NodeKubelet::stop(const std::string& resource) {
  servers_.erase(resource);
  asked_.erase(resource);
}

bool NodeKubelet::watched(const std::string& resource) const {
  const auto it = servers_.find(resource);
  if (it == servers_.end()) return false;
  const auto asked = asked_.find(resource);
  return it->second->watched_since(asked == asked_.end() ? 0 : asked->second.streams_begun);
}

bool NodeKubelet::socket_in_place(const std::string& resource) const {
  const auto server = servers_.find(resource);
  return server != servers_.end() && server->second->in_place();
}

void NodeKubelet::register_plugin(const std::string& resource) {
  const Result<std::string> path = plugin_socket_path(plugin_dir_, resource);
  const auto server = servers_.find(resource);
  CHECK(path.has_value() && server != servers_.end(), "{} is registered and not served", resource);
  // Whom it asks to connect: among strangers, that one is kept.
  acceptor_->set_kubelet(pid_that_serves(registration_socket_).value_or(0));
  const uint64_t turn = ++turns_;
  asked_[resource] = {turn, server->second->streams_begun()};
  client_.register_plugin(
      registration_socket_, {resource, path->substr(path->find_last_of('/') + 1)},
      [this, resource, turn, alive = std::weak_ptr<Alive>(alive_)](Status status) {
        options_.post([this, resource, turn, alive, status = std::move(status)] {
          if (alive.expired()) return;
          const auto asked = asked_.find(resource);
          if (asked == asked_.end() || asked->second.turn != turn) return;
          events_.on_registered(resource, status);
        });
      });
}

void NodeKubelet::list_pods() {
  client_.list_pods(
      options_.kubelet_dir + "/pod-resources/kubelet.sock",
      [this, alive = std::weak_ptr<Alive>(alive_)](Result<std::vector<ports::PodDevices>> pods) {
        options_.post([this, alive, pods = std::move(pods)] {
          if (!alive.expired()) events_.on_pods(pods);
        });
      });
}

std::string NodeKubelet::kubelet_socket() const {
  // An inode number is given again soon after; its time of birth is not.
  struct statx info{};
  if (::statx(AT_FDCWD, registration_socket_.c_str(), 0, STATX_BASIC_STATS | STATX_BTIME, &info) !=
          0 ||
      !S_ISSOCK(info.stx_mode)) {
    return "";
  }
  const statx_timestamp& born =
      (info.stx_mask & STATX_BTIME) != 0 ? info.stx_btime : info.stx_ctime;
  return fmt::format("{}:{}:{}:{}.{:09}", info.stx_dev_major, info.stx_dev_minor, info.stx_ino,
                     born.tv_sec, born.tv_nsec);
}

NodeKubelet::Silent NodeKubelet::most_silent() {
  Silent most{"what is asked of the kubelet", client_.unanswered()};
  for (const auto& [resource, server] : servers_)
    if (const Duration since = server->unanswered(); since > most.since) most = {resource, since};
  return most;
}

std::map<std::string, PluginCounts> NodeKubelet::counts() const {
  std::map<std::string, PluginCounts> counts;
  for (const auto& [resource, server] : servers_) {
    counts[resource] = {server->streams(), server->refused_streams(), server->connections(),
                        server->refused_connections(), server->lists_sent()};
  }
  return counts;
}

}  // namespace gpuslice::kubelet
