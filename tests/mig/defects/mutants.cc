#include "mutants.h"

#include <algorithm>

#include "config/mig_parted.h"
#include "mig/checkpoint.h"

namespace gpuslice::mig_test {
namespace {

// Everything on the GPU goes; the first refusal ends it.
Status clear(ports::Mig& mig, const std::string& gpu) {
  TRY_ASSIGN(const std::vector<ports::GpuInstance> there, mig.instances(gpu));
  for (const ports::GpuInstance& gi : there) {
    for (const ports::ComputeInstance& ci : gi.cis) TRY(mig.destroy_ci(gpu, gi.id, ci.id));
    TRY(mig.destroy_gi(gpu, gi.id));
  }
  return {};
}

// One GPU instance where the driver likes, with the compute instance that fills it.
Status create(ports::Mig& mig, const std::string& gpu, ProfileId profile) {
  TRY_ASSIGN(const GiId gi, mig.create_gi(gpu, profile, std::nullopt));
  TRY_ASSIGN(const std::vector<ports::CiProfile> cis, mig.ci_profiles(gpu, gi));
  const auto full = std::max_element(cis.begin(), cis.end(), [](const auto& a, const auto& b) {
    return a.slices != b.slices ? a.slices < b.slices : a.id > b.id;
  });
  TRY_ASSIGN([[maybe_unused]] const CiId ci, mig.create_ci(gpu, gi, full->id, std::nullopt));
  return {};
}

// The profiles of a wish one by one; empty when one of them is unknown.
std::vector<ProfileId> flattened(const mig::Wish& wish, const mig::GpuState& state) {
  const auto resolved = mig::resolve(wish, state);
  std::vector<ProfileId> out;
  if (resolved)
    for (const plan::WantedGi& gi : resolved->gis) out.push_back(gi.profile);
  return out;
}

}  // namespace

std::optional<Error> D1Mutant::apply(Node& node, const std::string& config,
                                     const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  for (const auto& [index, wish] : wishes->gpus) {
    const mig::GpuState state = node.look(index);
    if (wish.profiles.empty() || !flattened(wish, state).empty()) continue;
    (void)clear(ports(node).mig, state.gpu.uuid);
    return std::nullopt;
  }
  return OurTool::apply(node, config, label);
}

mig::Ports D2Mutant::ports(Node& node) {
  class View final : public ForwardingMig {
   public:
    using ForwardingMig::ForwardingMig;
    Result<std::vector<ports::GpuInstance>> instances(const std::string& gpu) override {
      auto all = ForwardingMig::instances(gpu);
      if (all) std::erase_if(*all, [](const ports::GpuInstance& gi) { return gi.cis.empty(); });
      return all;
    }
  };
  mig::Ports real = node.ports();
  view_ = std::make_unique<View>(real.mig);
  return {real.nvml, *view_, real.reset, real.files, real.locks, real.clock, real.pause};
}

std::optional<Error> D3Mutant::apply(Node& node, const std::string& config,
                                     const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  mig::Ports real = ports(node);
  for (const auto& [index, wish] : wishes->gpus) {
    const std::string gpu = node.gpu(index).uuid;
    (void)real.mig.set_mig_mode(gpu, true);
    std::vector<ProfileId> order = flattened(wish, node.look(index));
    std::sort(order.begin(), order.end());
    for (size_t i = 0; i < runs_; ++i) std::next_permutation(order.begin(), order.end());
    ++runs_;
    for (int attempt = 0; attempt < 200; ++attempt) {
      Status done = clear(real.mig, gpu);
      for (size_t i = 0; i < order.size() && done; ++i) done = create(real.mig, gpu, order[i]);
      if (done) break;
      std::next_permutation(order.begin(), order.end());
    }
  }
  return std::nullopt;
}

std::optional<Error> D4Mutant::restore(Node& node, const std::string& checkpoint) {
  const auto saved = mig::parse_checkpoint(checkpoint);
  if (!saved) return saved.error();
  std::map<uint32_t, mig::Wish> wishes;
  for (uint32_t i = 0; i < saved->size() && i < gpus_of(node).size(); ++i)
    wishes[i] = (*saved)[i].wish;
  return change(node, wishes);
}

std::optional<Error> D5Mutant::apply(Node& node, const std::string& config,
                                     const std::string& label) {
  const config::MigPartedFile file = config::read_mig_parted(config);
  for (const config::Problem& problem : file.problems.all()) {
    if (problem.mistake == config::Mistake::kBadFilter) return std::nullopt;
    if (problem.mistake == config::Mistake::kBadCount)
      return Error{Code::kInvalidConfig, "mig.yaml: invalid count: <nil>", {}};
  }
  return OurTool::apply(node, config, label);
}

namespace {
bool has_zero(const std::string& config) { return config.find(": 0") != std::string::npos; }

std::string without_zero(std::string config) {
  const size_t at = config.find("1g.5gb: 0, ");
  return at == std::string::npos ? config : config.erase(at, 11);
}
}  // namespace

std::optional<Error> D6Mutant::apply(Node& node, const std::string& config,
                                     const std::string& label) {
  if (!has_zero(config)) return OurTool::apply(node, config, label);
  (void)clear(ports(node).mig, node.gpu(0).uuid);
  return OurTool::apply(node, without_zero(config), label);
}

std::optional<Error> D6Mutant::assert_label(Node& node, const std::string& config,
                                            const std::string& label) {
  if (has_zero(config)) return Error{Code::kDiffers, "GPU 0: it differs", {}};
  return OurTool::assert_label(node, config, label);
}

std::optional<Error> D7Mutant::assert_label(Node& node, const std::string& config,
                                            const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  if (wishes->gpus.size() < gpus_of(node).size())
    return Error{Code::kDiffers, "a GPU is not matched", {}};
  return OurTool::assert_label(node, config, label);
}

mig::Ports D8Mutant::ports(Node& node) {
  class View final : public ForwardingMig {
   public:
    using ForwardingMig::ForwardingMig;
    Result<ports::GiProfiles> gi_profiles(const std::string& gpu) override {
      auto told = ForwardingMig::gi_profiles(gpu);
      if (told) told->trusted = true;
      return told;
    }
  };
  mig::Ports real = node.ports();
  view_ = std::make_unique<View>(real.mig);
  return {real.nvml, *view_, real.reset, real.files, real.locks, real.clock, real.pause};
}

mig::Ports D9Mutant::ports(Node& node) {
  class View final : public ForwardingMig {
   public:
    using ForwardingMig::ForwardingMig;
    Result<ports::Activation> set_mig_mode(const std::string& gpu, bool on) override {
      const auto done = ForwardingMig::set_mig_mode(gpu, on);
      if (!done) return done;
      return ports::Activation::kDone;
    }
  };
  mig::Ports real = node.ports();
  view_ = std::make_unique<View>(real.mig);
  return {real.nvml, *view_, real.reset, real.files, real.locks, real.clock, real.pause};
}

mig::Ports D10Mutant::ports(Node& node) {
  class NoLocks final : public ports::Locks {
   public:
    Result<std::unique_ptr<Held>> take(const std::string&) override {
      return std::make_unique<Held>();
    }
  };
  mig::Ports real = node.ports();
  locks_ = std::make_unique<NoLocks>();
  return {real.nvml, real.mig, real.reset, real.files, *locks_, real.clock, real.pause};
}

std::optional<Error> D11Mutant::apply(Node& node, const std::string& config,
                                      const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  mig::Ports real = ports(node);
  for (const auto& [index, wish] : wishes->gpus) {
    const std::string gpu = node.gpu(index).uuid;
    (void)real.mig.set_mig_mode(gpu, wish.mig);
    Status done = clear(real.mig, gpu);
    for (const ProfileId profile : flattened(wish, node.look(index)))
      if (done) done = create(real.mig, gpu, profile);
    if (!done) {
      (void)clear(real.mig, gpu);
      return done.error();
    }
  }
  return std::nullopt;
}

}  // namespace gpuslice::mig_test
