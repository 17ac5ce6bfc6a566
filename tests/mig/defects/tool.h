#pragma once

// A tool that makes MIG layouts from mig-parted's configurations and checkpoints, as the checks of
// D1 to D11 see one; ours, as the verbs put it together; and ports that stand in front of others.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "../node.h"
#include "mig/label.h"

namespace gpuslice::mig_test {

class Tool {
 public:
  virtual ~Tool() = default;
  // Each: nothing when it is done (or equal), else what it says.
  [[nodiscard]] virtual std::optional<Error> apply(Node& node, const std::string& config,
                                                   const std::string& label) = 0;
  [[nodiscard]] virtual std::optional<Error> assert_label(Node& node, const std::string& config,
                                                          const std::string& label) = 0;
  [[nodiscard]] virtual std::optional<Error> restore(Node& node, const std::string& checkpoint) = 0;
};

// Reader, planner and executor in the order of `gpuslice apply`: everything is read and checked for
// every GPU before the first is touched.
class OurTool : public Tool {
 public:
  std::optional<Error> apply(Node& node, const std::string& config,
                             const std::string& label) override;
  std::optional<Error> assert_label(Node& node, const std::string& config,
                                    const std::string& label) override;
  std::optional<Error> restore(Node& node, const std::string& checkpoint) override;

 protected:
  // A mutant puts its own before the node's.
  [[nodiscard]] virtual mig::Ports ports(Node& node) { return node.ports(); }
  [[nodiscard]] std::optional<Error> change(Node& node, const std::map<uint32_t, mig::Wish>& gpus);
};

[[nodiscard]] std::vector<ports::Gpu> gpus_of(Node& node);
[[nodiscard]] Result<mig::NodeWish> wishes_of(Node& node, const std::string& config,
                                              const std::string& label);

// Hands every call on.
class ForwardingMig : public ports::Mig {
 public:
  explicit ForwardingMig(ports::Mig& to) : to_(to) {}
  Result<ports::MigMode> mig_mode(const std::string& gpu) override { return to_.mig_mode(gpu); }
  Result<bool> mode_needs_reset(const std::string& gpu) override {
    return to_.mode_needs_reset(gpu);
  }
  Result<ports::GiProfiles> gi_profiles(const std::string& gpu) override {
    return to_.gi_profiles(gpu);
  }
  Result<uint32_t> gi_free(const std::string& gpu, ProfileId profile) override {
    return to_.gi_free(gpu, profile);
  }
  Result<std::vector<ports::CiProfile>> ci_profiles(const std::string& gpu, GiId gi) override {
    return to_.ci_profiles(gpu, gi);
  }
  Result<std::vector<ports::GpuInstance>> instances(const std::string& gpu) override {
    return to_.instances(gpu);
  }
  Result<std::vector<ports::Process>> processes(const std::string& gpu) override {
    return to_.processes(gpu);
  }
  Result<ports::Activation> set_mig_mode(const std::string& gpu, bool on) override {
    return to_.set_mig_mode(gpu, on);
  }
  Result<GiId> create_gi(const std::string& gpu, ProfileId profile,
                         std::optional<gpu::Placement> placement) override {
    return to_.create_gi(gpu, profile, placement);
  }
  Status destroy_gi(const std::string& gpu, GiId gi) override { return to_.destroy_gi(gpu, gi); }
  Result<CiId> create_ci(const std::string& gpu, GiId gi, ProfileId profile,
                         std::optional<gpu::Placement> placement) override {
    return to_.create_ci(gpu, gi, profile, placement);
  }
  Status destroy_ci(const std::string& gpu, GiId gi, CiId ci) override {
    return to_.destroy_ci(gpu, gi, ci);
  }

 private:
  ports::Mig& to_;
};

}  // namespace gpuslice::mig_test
