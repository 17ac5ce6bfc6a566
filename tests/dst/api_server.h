#pragma once

// An API server on virtual time that has one Node and its pods, answering HTTP as a real one does,
// as far as kube/ asks: list, watch with bookmarks and an end, merge patch, server-side apply with
// owners of labels, Events, evictions. And what such servers do to their clients.
//
// api_server.cc has what all objects have in common, api_node_object.cc the Node, api_pods.cc the
// pods.

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <set>
#include <string>

#include "base/random.h"
#include "fault.h"
#include "kube/transport.h"
#include "timeline.h"

namespace gpuslice::dst {

class ApiServer {
 public:
  using Labels = std::map<std::string, std::string>;
  static constexpr const char* kNode = "n1";

  // `strike`: a fault has just met the client. `called`: a call of the transport's by the agent,
  // which may not return.
  ApiServer(Timeline& timeline, Random& random, std::function<void(Fault)> strike,
            std::function<void()> called);
  ~ApiServer();
  ApiServer(const ApiServer&) = delete;
  ApiServer& operator=(const ApiServer&) = delete;

  // A client's way here. Must not outlive this.
  [[nodiscard]] std::unique_ptr<kube::Transport> connect();

  // --- the Node, as an administrator sees it
  [[nodiscard]] bool exists() const { return node_.has_value(); }
  [[nodiscard]] std::string label(const std::string& key) const;  // "" for none
  [[nodiscard]] const Labels& labels() const;
  [[nodiscard]] std::set<std::string> owned() const;  // labels that the agent applied
  // "" removes it. Nothing happens without a Node.
  void set_labels(const Labels& changes);
  // Gone, and back a moment later with another uid and none of the labels.
  void replace_node();
  // Changes that clients have made.
  [[nodiscard]] uint64_t writes() const { return writes_; }

  // --- the Node's pods, all of namespace "default"
  struct PodObject {
    std::string name;
    std::string uid;
    bool daemon = false;     // a DaemonSet's
    bool is_static = false;  // the mirror of one of a file
    bool deleting = false;   // its grace period runs
  };
  // It is there, or is now so.
  void put_pod(const PodObject& pod);
  void remove_pod(const std::string& name);
  [[nodiscard]] bool has_pod(const std::string& name) const { return pod_objects_.contains(name); }
  [[nodiscard]] std::string uid_of_pod(const std::string& name) const {  // "" for none
    const auto found = pod_objects_.find(name);
    return found == pod_objects_.end() ? "" : found->second.uid;
  }
  // What an eviction of the pod of this name and uid becomes.
  enum class Evicted : uint8_t { kYes, kGone, kAnother, kBudget };
  using Evictions = std::function<Evicted(const std::string& name, const std::string& uid)>;
  void set_evictions(Evictions evictions) { evictions_ = std::move(evictions); }
  // The next eviction is done, and the connection breaks before it is said.
  void cut_next_eviction() { cut_eviction_ = true; }

  // --- faults
  void set_away(bool away);
  void set_slow(Duration slow) { slow_ = slow; }
  void be_busy(int answers) { busy_ += answers; }
  void refuse_patches(int patches) { refusing_ += patches; }
  void cut_watches();
  // Forgets all versions but the newest; watches are cut.
  void compact();
  void heal();

 private:
  static constexpr uint64_t kFirstVersion = 100;
  class Client;
  class Wire;
  struct Node {
    std::string uid;
    Labels labels;
    Labels annotations;
    std::set<std::string> ours;  // labels that the agent owns by apply
  };
  struct Event {
    uint64_t version = 0;
    std::string text;
  };
  // Objects of one kind, as watches see them.
  struct Collection {
    const char* kind = nullptr;
    std::deque<Event> history;
    uint64_t oldest = kFirstVersion;  // versions before it are forgotten
  };
  struct Connection {
    kube::Wire::Answer* answer = nullptr;
    kube::Request request;
    const Collection* watched = nullptr;
    uint64_t seen = 0;  // the version of the last event that was sent
  };

  [[nodiscard]] Duration delay();
  void open(uint64_t id, kube::Request request, kube::Wire::Answer& answer);
  void close(uint64_t id) { connections_.erase(id); }
  void after(Duration d, uint64_t id, void (ApiServer::*work)(uint64_t));
  void serve(uint64_t id);
  void list(uint64_t id, const Collection& of);
  void watch(uint64_t id, const Collection& of);
  void evict(uint64_t id);
  void deliver(uint64_t id);
  void bookmark(uint64_t id);
  void end_watch(uint64_t id);
  void patch(uint64_t id);
  void break_all(bool watches_only);
  // Each says the rest of an answer; the connection may be gone afterwards.
  void refuse(uint64_t id, int status, const std::string& reason, const std::string& field = "");
  void answer(uint64_t id, int status, const std::string& body, Duration retry_after = {});
  void say(uint64_t id, const std::string& bytes);
  void end(uint64_t id, Status status);
  [[nodiscard]] const std::string& node_text();
  [[nodiscard]] std::string pods_text() const;
  [[nodiscard]] std::string pod_text(const PodObject& pod) const;
  void changed(const char* type);  // the Node was
  void remember(Collection& of, std::string event);
  [[nodiscard]] bool apply_to(Node& node, const nlohmann::json& metadata, bool applied) const;

  Timeline& timeline_;
  Random& random_;
  std::function<void(Fault)> strike_;
  std::function<void()> called_;
  std::optional<Node> node_;
  uint64_t nodes_ = 0;
  std::string node_text_;  // as it was in version node_text_of_
  uint64_t node_text_of_ = 0;
  uint64_t node_version_ = kFirstVersion;
  std::map<std::string, PodObject> pod_objects_;
  Evictions evictions_;
  bool cut_eviction_ = false;
  uint64_t version_ = kFirstVersion;
  Collection node_watches_{"Node", {}, kFirstVersion};
  Collection pod_watches_{"Pod", {}, kFirstVersion};
  std::map<uint64_t, Connection> connections_;
  uint64_t next_connection_ = 0;
  uint64_t writes_ = 0;
  bool away_ = false;
  Duration slow_{};
  int busy_ = 0;
  int refusing_ = 0;
};

}  // namespace gpuslice::dst
