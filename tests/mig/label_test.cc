// Labels as people write them, from the text to the layout on simulated boards: which GPUs an entry
// names, which entry counts, which profiles are meant, where they lie.

#include <gtest/gtest.h>

#include "defects/tool.h"

namespace gpuslice::mig_test {
namespace {

std::string label(const std::string& entries) {
  return "version: v1\nmig-configs:\n  wanted:\n" + entries;
}

sim::NodeOptions boards(std::initializer_list<const char*> names) {
  sim::NodeOptions options;
  for (const char* name : names) options.gpus.push_back({name, sim::Sweep::kPlain});
  return options;
}

std::string layout_of(Node& node, uint32_t gpu) {
  const mig::GpuState state = node.look(gpu);
  return mig::layout_text(state.layout(), state);
}

std::vector<uint32_t> named_by(Node& node, const std::string& entry) {
  const auto wishes = wishes_of(node, label(entry), "wanted");
  EXPECT_TRUE(wishes.has_value()) << wishes.error().text();
  std::vector<uint32_t> out;
  if (wishes)
    for (const auto& [index, wish] : wishes->gpus) out.push_back(index);
  return out;
}

TEST(Label, EveryWayToNameAGpu) {
  Node node(boards({"A100-SXM4-40GB", "A30", "A100-SXM4-40GB", "T4"}));
  const std::vector<ports::Gpu> gpus = gpus_of(node);
  const auto entry = [](const std::string& devices, const std::string& filter = "") {
    return "  - {devices: " + devices + (filter.empty() ? "" : ", device-filter: " + filter) +
           ", mig-enabled: true, mig-devices: {}}\n";
  };
  using Indices = std::vector<uint32_t>;
  EXPECT_EQ(named_by(node, entry("all")), (Indices{0, 1, 2}));  // the T4 is passed over
  EXPECT_EQ(named_by(node, entry("2")), (Indices{2}));
  EXPECT_EQ(named_by(node, entry("[0, 2]")), (Indices{0, 2}));
  EXPECT_EQ(named_by(node, entry(gpus[1].uuid)), (Indices{1}));
  EXPECT_EQ(named_by(node, entry("[\"" + gpus[2].bus_id + "\"]")), (Indices{2}));
  EXPECT_EQ(named_by(node, entry("[\"" + gpus[2].bus_id.substr(4) + "\", 1]")), (Indices{1, 2}));
  EXPECT_EQ(named_by(node, entry("all", "\"0x20B010DE\"")), (Indices{0, 2}));
  EXPECT_EQ(named_by(node, entry("all", "[\"0x20b710de\", \"0x20B010DE\"]")), (Indices{0, 1, 2}));
  EXPECT_EQ(named_by(node, entry("all",
                                 fmt::format("\"0x20B010DE:0x{:08X}\"", gpus[0].pci_subsystem_id))),
            (Indices{0, 2}));
  EXPECT_EQ(named_by(node, entry("[0, 1]", "\"0x20B710DE\"")), (Indices{1}));
  // Of the right board, with another maker's subsystem: nothing, which is an error.
  const auto none = wishes_of(node, label(entry("all", "\"0x20B010DE:0x000010DE\"")), "wanted");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Code::kInvalidConfig);
}

TEST(Label, MigOffIsWhatABoardWithoutMigHas) {
  Node node(boards({"T4", "L40S"}));
  EXPECT_TRUE(named_by(node, "  - {devices: all, mig-enabled: false}\n").empty());
  EXPECT_TRUE(named_by(node, "  - {devices: [1], mig-enabled: false}\n").empty());
  for (const char* entry : {"  - {devices: all, mig-enabled: true, mig-devices: {}}\n",
                            "  - {devices: [7], mig-enabled: false}\n"}) {
    const auto none = wishes_of(node, label(entry), "wanted");
    ASSERT_FALSE(none.has_value()) << entry;
    EXPECT_EQ(none.error().code, Code::kInvalidConfig) << entry;
  }
}

TEST(Label, TheLastEntryThatNamesAGpuCountsOnceWithAWarning) {
  Node node(boards({"A100-SXM4-40GB", "A100-SXM4-40GB"}));
  const std::string config = label(
      "  - {devices: all, mig-enabled: false}\n"
      "  - {devices: [0], mig-enabled: true, mig-devices: {1g.5gb: 7}}\n");
  const auto wishes = wishes_of(node, config, "wanted");
  ASSERT_TRUE(wishes.has_value());
  EXPECT_TRUE(wishes->gpus.at(0).mig);
  EXPECT_FALSE(wishes->gpus.at(1).mig);
  ASSERT_EQ(wishes->warnings.size(), 1U);
  EXPECT_EQ(wishes->warnings[0],
            "mig.yaml:5:5: a second entry for GPU 0, which the one in line 4 is for as well: the "
            "last one counts");
  OurTool tool;
  ASSERT_EQ(tool.apply(node, config, "wanted"), std::nullopt);
  EXPECT_EQ(node.look(0).instances.size(), 7U);
  const auto calls = node.world->snapshot()->gpus[0].calls;
  EXPECT_EQ(calls.set_mig_mode.ok, 1U);  // not off and on again
  EXPECT_EQ(tool.assert_label(node, config, "wanted"), std::nullopt);
}

TEST(Label, IndicesThatAreNotThereAreWarningsAndNothingAtAllIsAnError) {
  Node node(boards({"A100-SXM4-40GB", "A100-SXM4-40GB"}));
  const auto some = wishes_of(
      node, label("  - {devices: [0, 1, 2, 3], mig-enabled: true, mig-devices: {1g.5gb: 7}}\n"),
      "wanted");
  ASSERT_TRUE(some.has_value());
  EXPECT_EQ(some->gpus.size(), 2U);
  ASSERT_EQ(some->warnings.size(), 2U);
  EXPECT_EQ(some->warnings[0],
            "mig.yaml:4:22: this node has no GPU 2: the entry does nothing there");
  const auto none =
      wishes_of(node, label("  - {devices: [4, 7], mig-enabled: true, mig-devices: {1g.5gb: 7}}\n"),
                "wanted");
  ASSERT_FALSE(none.has_value());
  EXPECT_EQ(none.error().code, Code::kInvalidConfig);
}

TEST(Label, ProfilesOfEveryForm) {
  OurTool tool;
  const auto made = [&](const char* board, const std::string& profiles) {
    Node node(boards({board}));
    const auto error = tool.apply(
        node, label("  - {devices: all, mig-enabled: true, mig-devices: {" + profiles + "}}\n"),
        "wanted");
    return error ? std::string(code_name(error->code)) + ": " + error->message : layout_of(node, 0);
  };
  EXPECT_EQ(made("A100-SXM4-40GB", "1c.3g.20gb: 2, 2c.4g.20gb: 2"),
            "4g.20gb at 0:4 in 2 compute instances, 3g.20gb at 4:4 in 2 compute instances");
  EXPECT_EQ(made("A100-SXM4-40GB", "1g.5gb+me: 1, 1g.10gb: 3"),
            "1g.10gb at 0:2, 1g.10gb at 2:2, 1g.5gb+me at 4:1, 1g.10gb at 6:2");
  EXPECT_EQ(made("RTX-PRO-6000", "1g.24gb+me.all: 1, 1g.24gb-me: 3"),
            "1g.24gb-me at 0:3, 1g.24gb-me at 3:3, 1g.24gb-me at 6:3, 1g.24gb+me.all at 9:3");
  EXPECT_EQ(made("RTX-PRO-6000", "2g.48gb+gfx: 1, 1g.24gb+gfx: 2"),
            "2g.48gb+gfx at 0:6, 1g.24gb+gfx at 6:3, 1g.24gb+gfx at 9:3");
  // Where they lie: a list of starts, or a count with some of them.
  EXPECT_EQ(made("A100-SXM4-40GB", "1g.5gb: [6, 0], 3g.20gb: [0]").substr(0, 11), "impossible:");
  EXPECT_EQ(made("A100-SXM4-40GB", "1g.5gb: [6, 5], 3g.20gb: [0]"),
            "3g.20gb at 0:4, 1g.5gb at 5:1, 1g.5gb at 6:1");
  EXPECT_EQ(made("A100-SXM4-40GB", "2g.10gb: {count: 2, placements: [2]}").find("2g.10gb at 2:2") !=
                std::string::npos,
            true);
}

TEST(Label, ANameThatAnotherDriverGivesIsTakenAndTold) {
  Node node(boards({"H100 NVL"}));
  const auto wishes = wishes_of(
      node, label("  - {devices: all, mig-enabled: true, mig-devices: {3g.48gb: 2}}\n"), "wanted");
  ASSERT_TRUE(wishes.has_value());
  const mig::Decision decision = mig::decide(node.look(0), wishes->gpus.at(0), {});
  ASSERT_TRUE(decision.plan.has_value());
  ASSERT_EQ(decision.plan->notes.size(), 1U);
  EXPECT_EQ(decision.plan->notes[0], "GPU 0: 3g.48gb is called 3g.47gb by this driver");
}

TEST(Label, TheLabelItselfMayBeLeftOutOnlyWhereThereIsOne) {
  Node node(boards({"A100-SXM4-40GB"}));
  const std::string one = label("  - {devices: all, mig-enabled: false}\n");
  EXPECT_TRUE(wishes_of(node, one, "").has_value());
  const auto two = wishes_of(node, one + "  other: [{devices: all, mig-enabled: false}]\n", "");
  ASSERT_FALSE(two.has_value());
  EXPECT_EQ(two.error().code, Code::kUsage);
  EXPECT_EQ(two.error().message,
            "mig.yaml: it has several labels; choose one with -c: other, wanted");
}

}  // namespace
}  // namespace gpuslice::mig_test
