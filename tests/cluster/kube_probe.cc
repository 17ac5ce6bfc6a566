// The API server's client as a program: commands on standard input, what it tells on standard
// output, a line each. For tests/cluster, which runs it against a real API server.
//
//   kube_probe NODE kubeconfig FILE [CONTEXT]
//   kube_probe NODE in-cluster HOST PORT FOLDER
//
//   labels [KEY=VALUE …]       patch [KEY=VALUE | KEY-] … [@VERSION]     event REASON TEXT…
//   evict NAMESPACE POD [UID]  map NAMESPACE NAME     unmap NAMESPACE NAME     pods     counts
#include <fmt/core.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "host/event_loop.h"
#include "kube/account.h"
#include "kube/https_transport.h"
#include "kube/node_kube.h"

namespace {

using namespace gpuslice;

void tell(const std::string& line) {
  fmt::print("{}\n", line);
  std::fflush(stdout);
}

std::string of(const Status& status) {
  return status ? "ok"
                : fmt::format("{}: {}", code_name(status.error().code), status.error().message);
}

class Probe final : public ports::KubeEvents {
 public:
  void on_node(std::optional<ports::NodeObject> node) override {
    if (!node) return tell("node none");
    std::string line = "node " + node->version + (node->unschedulable ? " cordoned" : "");
    for (const auto& [key, value] : node->labels) line += fmt::format(" {}={}", key, value);
    tell(line);
  }
  void on_config_map(const ports::ObjectName& name,
                     std::optional<ports::ConfigMapObject> map) override {
    std::string line = fmt::format("map {}", name.name);
    if (!map) line += " none";
    if (map)
      for (const auto& [key, value] : map->data) line += fmt::format(" {}={}", key, value);
    tell(line);
  }
  void on_pods(ports::PodList pods) override {
    std::string line = "pods";
    for (const ports::PodObject& pod : *pods) {
      line += fmt::format(" {}/{}:{}{}", pod.name.name_space, pod.name.name, pod.phase,
                          pod.deleting ? ":deleting" : "");
      for (const auto& [resource, count] : pod.limits)
        line += fmt::format(":{}={}", resource, count);
    }
    tell(line);
  }
  void on_kube_reachable(Status status) override { tell("reachable " + of(status)); }
  void on_labels_applied(Status status) override { tell("labels " + of(status)); }
  void on_node_patched(Status status) override { tell("patched " + of(status)); }
  void on_evicted(const ports::ObjectName& pod, Status status) override {
    tell(fmt::format("evicted {} {}", pod.name, of(status)));
  }
};

void command(kube::NodeKube& kube, const std::string& text) {
  std::istringstream in(text);
  std::string verb;
  in >> verb;
  std::vector<std::string> words;
  for (std::string word; in >> word;) words.push_back(word);
  if (verb == "labels") {
    ports::NodeLabels labels;
    for (const std::string& word : words)
      labels.labels[word.substr(0, word.find('='))] = word.substr(word.find('=') + 1);
    kube.apply_labels(std::move(labels));
  } else if (verb == "patch") {
    ports::NodePatch patch;
    for (const std::string& word : words) {
      const size_t equals = word.find('=');
      if (word.starts_with('@')) {
        patch.only_version = word.substr(1);
      } else if (equals == std::string::npos) {
        patch.labels[word.substr(0, word.size() - 1)] = std::nullopt;
      } else {
        patch.labels[word.substr(0, equals)] = word.substr(equals + 1);
      }
    }
    kube.patch_node(std::move(patch));
  } else if (verb == "event" && !words.empty()) {
    ports::KubeEvent event;
    event.reason = words[0];
    for (size_t i = 1; i < words.size(); ++i) event.message += (i > 1 ? " " : "") + words[i];
    event.warning = true;
    event.at = WallTime(
        std::chrono::duration_cast<Duration>(std::chrono::system_clock::now().time_since_epoch()));
    kube.record(std::move(event));
  } else if (verb == "evict" && words.size() >= 2) {
    kube.evict({words[0], words[1]}, words.size() > 2 ? words[2] : "");
  } else if (verb == "map" && words.size() == 2) {
    if (const Status watched = kube.watch_config_map({words[0], words[1]}); !watched)
      tell("map " + of(watched));
  } else if (verb == "unmap" && words.size() == 2) {
    kube.unwatch_config_map({words[0], words[1]});
  } else if (verb == "pods") {
    kube.watch_pods();
  } else if (verb == "counts") {
    const ports::KubeCounts counts = kube.counts();
    std::string line = fmt::format("counts relists={} events={} recorded={}", counts.relists,
                                   counts.watch_events, counts.events_recorded);
    for (const auto& [what, count] : counts.requests) line += fmt::format(" [{}]={}", what, count);
    tell(line);
  } else {
    tell("what? " + text);
  }
}

Result<kube::Account> account_of(const std::vector<std::string>& words) {
  if (words.size() >= 3 && words[1] == "kubeconfig")
    return kube::load_kubeconfig(words[2], words.size() > 3 ? words[3] : "");
  if (words.size() == 5 && words[1] == "in-cluster")
    return kube::in_cluster_account(words[2], words[3], words[4]);
  return fail(Code::kUsage, "kube_probe NODE kubeconfig FILE [CONTEXT] | in-cluster HOST PORT DIR");
}

Status run(const std::vector<std::string>& words) {
  TRY_ASSIGN(kube::Account account, account_of(words));
  TRY_ASSIGN(const std::unique_ptr<host::EventLoop> loop, host::EventLoop::create());
  Probe probe;
  kube::NodeKube kube(
      {words[0], [&loop](std::function<void()> work) { (void)loop->post(std::move(work)); }, 1},
      kube::https_transport(std::move(account)), probe);
  kube.watch_node();
  std::string line;
  TRY_ASSIGN(host::EventLoop::Token input, loop->watch(STDIN_FILENO, EPOLLIN, [&](uint32_t) {
    char bytes[4096];
    const ssize_t got = ::read(STDIN_FILENO, bytes, sizeof bytes);
    if (got <= 0) return loop->stop();
    for (ssize_t i = 0; i < got; ++i) {
      if (bytes[i] != '\n') {
        line.push_back(bytes[i]);
        continue;
      }
      command(kube, line);
      line.clear();
    }
  }));
  loop->run();
  return {};
}

}  // namespace

int main(int argc, char** argv) {
  const Status done = run(std::vector<std::string>(argv + 1, argv + argc));
  if (done) return 0;
  fmt::print(stderr, "kube_probe: {}\n", done.error().text());
  return exit_code(done.error().code);
}
