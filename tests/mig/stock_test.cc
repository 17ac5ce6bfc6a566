// The labels that come without anybody's writing them: those that generate-config makes of each
// board's own answers, and those of a static list for all boards. Each is applied, one after the
// other on one node of two boards, then asserted, and looked at.

#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "config/mig_parted.h"
#include "defects/tool.h"
#include "mig/files.h"

namespace gpuslice::mig_test {
namespace {

// What is there as mig-parted counts it: compute instances by the names of their profiles.
std::map<std::string, uint32_t> devices_on(Node& node, uint32_t gpu) {
  std::map<std::string, uint32_t> out;
  const mig::GpuState state = node.look(gpu);
  for (const ports::GpuInstance& gi : state.instances)
    out[state.profile_name(gi.profile)] += static_cast<uint32_t>(gi.cis.size());
  return out;
}

// Applies and asserts each label; `at_least` of them must have something for this board.
void apply_each(Node& node, const std::string& config, size_t at_least, bool all) {
  OurTool tool;
  const config::MigPartedFile file = config::read_mig_parted(config);
  ASSERT_TRUE(file.problems.all().empty()) << file.problems.all()[0].text("f");
  size_t done = 0;
  for (const auto& [label, entries] : file.config.labels) {
    const auto wishes = wishes_of(node, config, label);
    if (!wishes) {
      // A label of other boards is told as that, and changes nothing.
      ASSERT_FALSE(all) << label << ": " << wishes.error().message;
      EXPECT_NE(wishes.error().message.find("no entry of it is for a GPU of this node"),
                std::string::npos);
      continue;
    }
    const auto error = tool.apply(node, config, label);
    ASSERT_EQ(error, std::nullopt) << label << ": " << error->message;
    const auto differs = tool.assert_label(node, config, label);
    ASSERT_EQ(differs, std::nullopt) << label << ": " << differs->message;
    ++done;
    for (const auto& [index, wish] : wishes->gpus) {
      std::map<std::string, uint32_t> wanted;
      for (const mig::WishedProfile& profile : wish.profiles)
        wanted[profile.name.text()] = profile.count;
      EXPECT_EQ(devices_on(node, index), wanted) << label;
      EXPECT_EQ(node.look(index).mode.current, wish.mig) << label;
      EXPECT_EQ(node.world->snapshot()->gpus[index].calls.create_gi.failed, 0U) << label;
    }
  }
  EXPECT_GE(done, at_least);
}

class EachBoard : public ::testing::TestWithParam<std::string> {
 protected:
  static sim::NodeOptions two(sim::Sweep sweep, const char* driver) {
    sim::NodeOptions options;
    options.gpus.assign(2, {GetParam(), sweep});
    options.driver = driver;
    return options;
  }
};

std::vector<std::string> boards_with_mig() {
  std::vector<std::string> out;
  for (const gpu::Board& board : gpu::boards())
    if (board.mig()) out.emplace_back(board.name);
  return out;
}

TEST_P(EachBoard, GeneratedLabelsAreAppliedAndAsserted) {
  for (const char* driver : {"535.183.01", "550.90.07", "570.86.15", "580.65.06"})
    for (const sim::Sweep sweep : {sim::Sweep::kPlain, sim::Sweep::kMirrored, sim::Sweep::kSwept}) {
      const sim::NodeOptions options = two(sweep, driver);
      if (!sim::World::in_memory(options)) continue;  // a board that this driver does not know
      Node node(options);
      if (std::string_view(driver).starts_with("535")) {
        // It names its profiles only with MIG on.
        OurTool tool;
        const auto on = tool.apply(node,
                                   "version: v1\nmig-configs: {on: [{devices: all, mig-enabled: "
                                   "true, mig-devices: {}}]}\n",
                                   "on");
        ASSERT_EQ(on, std::nullopt) << on->message;
      }
      const std::vector<ports::Gpu> gpus = gpus_of(node);
      const std::string config = mig::generate_config(
          {node.look(0), node.look(1)}, {gpus[0].pci_device_id, gpus[1].pci_device_id},
          mig::FileForm::kYaml);
      // all-disabled, all-enabled, all-balanced and one for each profile.
      apply_each(node, config, node.look(0).profiles.size() + 3, true);
    }
}

TEST_P(EachBoard, LabelsOfAStaticListAreAppliedAndAsserted) {
  std::ifstream in("tests/mig/testdata/static_labels.yaml");
  std::stringstream text;
  text << in.rdbuf();
  Node node(two(sim::Sweep::kPlain, "580.65.06"));
  apply_each(node, text.str(), node.look(0).profiles.size() + 3, false);
}

INSTANTIATE_TEST_SUITE_P(Boards, EachBoard, ::testing::ValuesIn(boards_with_mig()),
                         [](const auto& board) {
                           std::string name = board.param;
                           for (char& c : name)
                             if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
                           return name;
                         });

}  // namespace
}  // namespace gpuslice::mig_test
