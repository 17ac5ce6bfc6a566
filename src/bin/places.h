#pragma once

// Where our own files lie. What belongs to a simulated node lies with it, so that two nodes on one
// machine share nothing; the agent and the verbs agree without being told.

#include <string>

namespace gpuslice::bin {

struct Places {
  std::string state_dir;  // survives a reboot: journals, what was good last
  std::string run_dir;    // does not: locks, the ledger
  [[nodiscard]] std::string journals() const { return state_dir + "/mig"; }
  [[nodiscard]] std::string locks() const { return run_dir + "/mig"; }
  [[nodiscard]] std::string door() const { return run_dir + "/agent.sock"; }
  [[nodiscard]] std::string ledger() const { return run_dir + "/ledger"; }
  [[nodiscard]] std::string health() const { return ledger() + ".health"; }
  [[nodiscard]] std::string gpus() const { return ledger() + ".gpus"; }
};

// `state_dir`, `run_dir`: as said on the command line, "" when not said. All paths are absolute.
[[nodiscard]] Places places_below(const std::string& root, const std::string& state_dir,
                                  const std::string& run_dir);

}  // namespace gpuslice::bin
