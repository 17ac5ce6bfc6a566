#pragma once

// Who follows a node's label nvidia.com/mig.config and shows states, as the checks of M1 to M9 see
// one: ours, and NVIDIA's MIG manager in small, with one of its defects or with none. Two boards;
// virtual time.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "../partition/partition_node.h"
#include "tool.h"

namespace gpuslice::mig_test {

// Where something beside the driver goes wrong: before the GPU is touched (clients that have to
// stop, a journal), and after it (clients that start again, a look at what came of it).
enum class Stage { kBefore, kAfter };

class Follower {
 public:
  virtual ~Follower() = default;
  virtual void begin() = 0;
  virtual void label(std::optional<std::string> label) = 0;  // also the same again
  virtual void config(const std::string& text) = 0;          // the file is edited
  virtual void pass(Duration duration) = 0;
  // Everything that is on the node may be given to pods.
  [[nodiscard]] virtual bool serves() = 0;
  [[nodiscard]] virtual ports::MigStatus status() const = 0;

  [[nodiscard]] std::string layout(uint32_t gpu) {
    const mig::GpuState state = node.look(gpu);
    return mig::layout_text(state.layout(), state);
  }

  Node node{two_boards()};
  std::function<std::optional<Error>(Stage)> fault;
  bool may_reboot = false, reboot_fails = false;

 protected:
  [[nodiscard]] std::optional<Error> strike(Stage stage) const {
    return fault ? fault(stage) : std::nullopt;
  }

 private:
  static sim::NodeOptions two_boards() {
    sim::NodeOptions options;
    options.gpus = {{"A100-SXM4-40GB", sim::Sweep::kPlain}, {"A100-SXM4-40GB", sim::Sweep::kPlain}};
    return options;
  }
};

class OurFollower final : public Follower {
 public:
  void begin() override;
  void label(std::optional<std::string> label) override;
  void config(const std::string& text) override;
  void pass(Duration duration) override;
  [[nodiscard]] bool serves() override;
  [[nodiscard]] ports::MigStatus status() const override;

 private:
  void before();
  PartitionNode agent_{node};
};

enum class Defect { kNone, kM1, kM2, kM3, kM4, kM5, kM6, kM7, kM8, kM9 };

// Pauses every GPU client of the node, changes modes, then layouts, and lets the clients go on.
class Manager : public Follower {
 public:
  explicit Manager(Defect defect) : defect_(defect) {}
  void begin() override {}
  void label(std::optional<std::string> label) override;
  void config(const std::string& text) override;
  void pass(Duration duration) override;
  [[nodiscard]] bool serves() override { return !paused_; }
  [[nodiscard]] ports::MigStatus status() const override { return status_; }

 private:
  [[nodiscard]] bool has(Defect defect) const { return defect_ == defect; }
  void reconfigure();
  [[nodiscard]] bool as_wanted(const mig::NodeWish& wish);
  [[nodiscard]] std::optional<Error> change(const mig::NodeWish& wish, bool mode_only);
  void failed(const std::string& reason);
  void show(std::string state, std::string reason);

  Defect defect_;
  std::string text_, newest_;
  std::optional<std::string> label_;
  bool paused_ = false;
  bool succeeded_once_ = false;
  MonotonicTime retry_at_ = MonotonicTime::max();
  ports::MigStatus status_;
};

template <Defect D>
class With final : public Manager {
 public:
  With() : Manager(D) {}
};

}  // namespace gpuslice::mig_test
