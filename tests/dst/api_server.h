#pragma once

// An API server on virtual time that has one Node, answering HTTP as a real one does, as far as
// kube/ asks: list, watch with bookmarks and an end, merge patch, server-side apply with owners of
// labels, Events. And what such servers do to their clients.

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
  struct Connection {
    kube::Wire::Answer* answer = nullptr;
    kube::Request request;
    bool watching = false;
    uint64_t seen = 0;  // the version of the last event that was sent
  };

  [[nodiscard]] Duration delay();
  void open(uint64_t id, kube::Request request, kube::Wire::Answer& answer);
  void close(uint64_t id) { connections_.erase(id); }
  void after(Duration d, uint64_t id, void (ApiServer::*work)(uint64_t));
  void serve(uint64_t id);
  void list(uint64_t id);
  void watch(uint64_t id);
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
  void changed(const char* type);
  [[nodiscard]] bool apply_to(Node& node, const nlohmann::json& metadata, bool applied) const;

  Timeline& timeline_;
  Random& random_;
  std::function<void(Fault)> strike_;
  std::function<void()> called_;
  std::optional<Node> node_;
  uint64_t nodes_ = 0;
  std::string node_text_;  // as it was in version node_text_of_
  uint64_t node_text_of_ = 0;
  uint64_t version_ = 100;
  uint64_t oldest_ = 100;  // versions before it are forgotten
  std::deque<Event> history_;
  std::map<uint64_t, Connection> connections_;
  uint64_t next_connection_ = 0;
  uint64_t writes_ = 0;
  bool away_ = false;
  Duration slow_{};
  int busy_ = 0;
  int refusing_ = 0;
};

}  // namespace gpuslice::dst
