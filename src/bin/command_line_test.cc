#include "bin/command_line.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace gpuslice::bin {
namespace {

using Verb = CommandLine::Verb;

Result<CommandLine> parse(std::vector<std::string> args) { return parse_command_line(args); }

std::string error_of(std::vector<std::string> args) {
  const auto parsed = parse(std::move(args));
  if (parsed) return "no error";
  EXPECT_EQ(parsed.error().code, Code::kUsage);
  return parsed.error().message;
}

TEST(CommandLine, AgentHasDefaults) {
  const auto line = parse({"agent"});
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->verb, Verb::kAgent);
  EXPECT_EQ(line->agent.root, "");
  EXPECT_EQ(line->agent.kubelet_dir, "/var/lib/kubelet");
  EXPECT_EQ(line->agent.listen, "127.0.0.1:9400");
  EXPECT_EQ(line->agent.config_compat, "strict");
  EXPECT_FALSE(line->agent.no_kube);
  EXPECT_TRUE(line->agent.options.empty());
  EXPECT_TRUE(line->agent.kube.empty());
}

TEST(CommandLine, AgentTakesOurFlagsAndThePeers) {
  const auto line =
      parse({"agent", "--root=/n o d e", "--kubelet-dir", "/k", "--listen", "", "--no-kube",
             "--roles", "plugin,metrics", "--config", "/c.yaml", "--nvidia-driver-root", "/d",
             "--pass-device-specs", "--fail-on-init-error=false", "--mig-strategy", "mixed"});
  ASSERT_TRUE(line.has_value()) << line.error().message;
  EXPECT_EQ(line->agent.root, "/n o d e");
  EXPECT_EQ(line->agent.kubelet_dir, "/k");
  EXPECT_EQ(line->agent.listen, "");
  EXPECT_TRUE(line->agent.no_kube);
  EXPECT_EQ(line->agent.roles, (std::vector<std::string>{"plugin", "metrics"}));
  EXPECT_EQ(line->agent.config_file, "/c.yaml");
  using config::Flag;
  EXPECT_EQ(line->agent.options, (std::map<Flag, std::string>{{Flag::kNvidiaDriverRoot, "/d"},
                                                              {Flag::kPassDeviceSpecs, "true"},
                                                              {Flag::kFailOnInitError, "false"},
                                                              {Flag::kMigStrategy, "mixed"}}));
}

TEST(CommandLine, AListMayBeGivenPieceByPiece) {
  for (const std::vector<std::string>& pieces :
       {std::vector<std::string>{"--device-list-strategy", "envvar,cdi-cri"},
        {"--device-list-strategy", "envvar", "--device-list-strategy=cdi-cri"}}) {
    std::vector<std::string> words = {"agent"};
    words.insert(words.end(), pieces.begin(), pieces.end());
    const auto line = parse(words);
    ASSERT_TRUE(line.has_value()) << line.error().message;
    EXPECT_EQ(line->agent.options.at(config::Flag::kDeviceListStrategy), "envvar,cdi-cri");
  }
}

TEST(CommandLine, MigPartedsDebugStandsBeforeTheVerb) {
  for (const char* debug : {"-d", "--debug"}) {
    const auto line = parse({debug, "apply", "-f", "x"});
    ASSERT_TRUE(line.has_value()) << line.error().message;
    EXPECT_EQ(line->verb, Verb::kMig);
    EXPECT_EQ(line->args, (std::vector<std::string>{"apply", "-f", "x"}));
  }
  EXPECT_EQ(error_of({"-d"}), "gpuslice: unknown verb '-d'; see gpuslice --help");
  EXPECT_NE(error_of({"-d", "list"}), "no error");
}

TEST(CommandLine, EveryFlagOfThePeersIsAcceptedUnderEachOfItsNames) {
  for (const config::FlagRow& row : config::flag_rows()) {
    for (const std::string_view name : row.options) {
      if (name.empty()) continue;
      const auto line = parse({"agent", fmt::format("--{}=true", name)});
      ASSERT_TRUE(line.has_value()) << name;
      EXPECT_EQ(line->agent.options, (std::map<config::Flag, std::string>{{row.flag, "true"}}))
          << name;
    }
  }
  const auto line = parse({"agent", "--node-name", "n1"});
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->agent.kube, (std::map<std::string, std::string>{{"node-name", "n1"}}));
}

TEST(CommandLine, SaysWhatWasMeant) {
  EXPECT_EQ(error_of({"agnet"}), "gpuslice: unknown verb 'agnet'; did you mean 'agent'?");
  EXPECT_EQ(error_of({"xyzzy"}), "gpuslice: unknown verb 'xyzzy'; see gpuslice --help");
  EXPECT_EQ(error_of({"doctor"}),
            "gpuslice: this version has no verb 'doctor'; see gpuslice --help");
  EXPECT_EQ(error_of({}),
            "gpuslice: a verb is missing: agent, plan, apply, list, smi …; see gpuslice --help");
  EXPECT_EQ(error_of({"agent", "--mig-strategie=single"}),
            "agent: unknown flag '--mig-strategie'; did you mean --mig-strategy?");
  EXPECT_EQ(error_of({"agent", "--zzz"}), "agent: unknown flag '--zzz'; see gpuslice agent --help");
  EXPECT_EQ(error_of({"agent", "start"}),
            "agent: 'start': the agent takes flags only; see gpuslice agent --help");
  EXPECT_EQ(
      error_of({"agent", "-o", "x"}),
      "agent: flag '-o': one-letter flags mean different things in the programs that gpuslice "
      "takes the place of; write the long name, perhaps --output-file");
  EXPECT_EQ(error_of({"agent", "--config-compat", "strictly"}),
            "agent: --config-compat: strictly not in {strict,nvidia}; see gpuslice agent --help");
  EXPECT_EQ(error_of({"agent", "--root"}),
            "agent: --root: 1 required TEXT missing; see gpuslice agent --help");
}

TEST(CommandLine, OtherVerbsKeepTheirArguments) {
  const auto line = parse({"smi", "-L", "--x"});
  ASSERT_TRUE(line.has_value());
  EXPECT_EQ(line->verb, Verb::kSmi);
  EXPECT_EQ(line->args, (std::vector<std::string>{"-L", "--x"}));
  EXPECT_EQ(parse({"list", "gpus"})->verb, Verb::kList);
  EXPECT_EQ(parse({"version"})->verb, Verb::kVersion);
  EXPECT_EQ(parse({"--help"})->verb, Verb::kHelp);
  const auto help = parse({"agent", "--help"});
  EXPECT_EQ(help->verb, Verb::kHelp);
  EXPECT_NE(help->help.find("--kubelet-dir"), std::string::npos);
}

}  // namespace
}  // namespace gpuslice::bin
