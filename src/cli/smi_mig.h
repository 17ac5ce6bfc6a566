#pragma once

// `gpuslice smi mig …`, `smi -mig 0|1` and `smi --gpu-reset`: MIG by nvidia-smi's habits, with its
// words, widths and exit codes. The low-level tool: it does what it is told, plans nothing, and
// keeps what succeeded before something failed. What it adds goes to `err`: who stands in the way
// and what to do.
//
// It takes a GPU's lock before it changes anything there, the same as `apply` and the agent.

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/node_view.h"
#include "ports/host.h"
#include "ports/mig.h"

namespace gpuslice::cli {

struct SmiMigRequest {
  enum class What : uint8_t {
    kHelp,
    kGiProfiles,    // -lgip
    kGiPlacements,  // -lgipp
    kInstances,     // -lgi
    kCiProfiles,    // -lcip
    kCiPlacements,  // -lcipp
    kCis,           // -lci
    kCreateGi,      // -cgi
    kCreateCi,      // -cci
    kDestroyGi,     // -dgi
    kDestroyCi,     // -dci
    kMode,          // -mig
    kReset,         // --gpu-reset
  } what = What::kHelp;
  struct Profile {
    std::string text;               // "19", "1g.5gb"; without "MIG "
    std::optional<uint32_t> start;  // "19:4"
  };
  std::vector<Profile> profiles;  // of -cgi and -cci; -cci without any: what fills the GPU instance
  bool with_ci = false;           // -C
  bool on = false;                // of -mig
  std::vector<uint32_t> gis;      // -gi; empty: all
  std::vector<uint32_t> cis;      // -ci; empty: all
  std::vector<std::string> gpus;  // -i: indices, UUIDs or bus ids; empty: all

  [[nodiscard]] bool changes() const { return what >= What::kCreateGi; }
};

// Is this command line one of those above?
[[nodiscard]] bool is_smi_mig(std::span<const std::string> args);
// kUsage names the word that was not understood and the nearest that exists.
[[nodiscard]] Result<SmiMigRequest> parse_smi_mig(std::span<const std::string> args);

struct SmiMigPorts {
  ports::Nvml& nvml;  // open; closed for a reset, and opened again
  ports::Mig& mig;
  ports::GpuReset& reset;
  ports::Locks& locks;
  std::string lock_folder;                     // <lock_folder>/<uuid>.lock
  std::function<void(std::string_view)> out;   // standard output: the tool's words
  std::function<void(std::string_view)> hint;  // one sentence for people, without line end
};

// The exit code: 0, or NVML's code of what failed first, or 255 for a GPU that was not reset.
[[nodiscard]] int run_smi_mig(const SmiMigRequest& request, const NodeView& node,
                              const SmiMigPorts& ports);

// What nvidia-smi exits with for an error: NVML's code where it has one.
[[nodiscard]] int smi_exit_code(const Error& error);

// Is it one of those that `wanted` names by index, UUID or bus id? Nothing wanted: yes.
[[nodiscard]] bool smi_chosen(const std::vector<std::string>& wanted, const ports::Gpu& gpu);
[[nodiscard]] bool smi_chosen(const std::vector<std::string>& wanted, const SilentGpu& gpu);

}  // namespace gpuslice::cli
