#include "tool.h"

#include <algorithm>

#include "config/mig_parted.h"
#include "mig/checkpoint.h"

namespace gpuslice::mig_test {

std::vector<ports::Gpu> gpus_of(Node& node) {
  std::vector<ports::Gpu> out;
  sim::WorldNvml quiet(*node.world);
  const uint32_t count = quiet.gpu_count().value_or(0);
  for (uint32_t i = 0; i < count; ++i) {
    auto gpu = quiet.gpu(GpuIndex{i}, ports::Detail::kInventory);
    if (gpu) out.push_back(std::move(*gpu));
  }
  return out;
}

Result<mig::NodeWish> wishes_of(Node& node, const std::string& config, const std::string& label) {
  const config::MigPartedFile file = config::read_mig_parted(config);
  if (file.problems.has_errors()) return std::unexpected(file.problems.first_error("mig.yaml"));
  TRY_ASSIGN(const std::string name, mig::choose_label(file.config, label, "mig.yaml"));
  return mig::wish_of_label(file.config.labels.at(name), name, gpus_of(node), "mig.yaml");
}

std::optional<Error> OurTool::change(Node& node, const std::map<uint32_t, mig::Wish>& gpus) {
  for (const auto& [index, wish] : gpus) {
    const auto state = mig::read_state(ports(node).mig, node.gpu(index));
    if (!state) return state.error();
    const mig::Decision decision = mig::decide(*state, wish, {});
    if (decision.refusal) return decision.refusal->error;
  }
  for (const auto& [index, wish] : gpus) {
    mig::Change change(ports(node), Node::options(), node.gpu(index));
    change.run(wish);
    if (change.report().error) return change.report().error;
  }
  return std::nullopt;
}

std::optional<Error> OurTool::apply(Node& node, const std::string& config,
                                    const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  return change(node, wishes->gpus);
}

std::optional<Error> OurTool::assert_label(Node& node, const std::string& config,
                                           const std::string& label) {
  const auto wishes = wishes_of(node, config, label);
  if (!wishes) return wishes.error();
  for (const auto& [index, wish] : wishes->gpus) {
    const auto state = mig::read_state(ports(node).mig, node.gpu(index));
    if (!state) return state.error();
    const mig::Decision decision = mig::decide(*state, wish, {});
    if (decision.refusal || !decision.plan->nothing_to_do())
      return Error{Code::kDiffers, node.gpu(index).text() + ": it differs", {}};
  }
  return std::nullopt;
}

std::optional<Error> OurTool::restore(Node& node, const std::string& checkpoint) {
  const auto saved = mig::parse_checkpoint(checkpoint);
  if (!saved) return saved.error();
  std::map<uint32_t, mig::Wish> wishes;
  const std::vector<ports::Gpu> gpus = gpus_of(node);
  for (const mig::SavedGpu& one : *saved) {
    const auto there = std::find_if(gpus.begin(), gpus.end(),
                                    [&](const ports::Gpu& gpu) { return gpu.uuid == one.uuid; });
    if (there == gpus.end())
      return Error{Code::kImpossible, "it has " + one.uuid + ", which this node has not", {}};
    wishes[there->index.value] = one.wish;
  }
  return change(node, wishes);
}

}  // namespace gpuslice::mig_test
