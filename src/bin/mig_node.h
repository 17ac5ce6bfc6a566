#pragma once

// A node whose MIG is looked at or changed from the command line: the driver's session, the places
// of our files, and somebody who ends the process when the driver hangs.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/time.h"
#include "bin/agent_link.h"
#include "bin/holders.h"
#include "bin/mig_command.h"
#include "bin/places.h"
#include "host/node_host.h"
#include "mig/change.h"
#include "nvml/reset.h"
#include "nvml/session.h"

namespace gpuslice::bin {

struct MigPlaces {
  std::string root;  // "/" or a folder
  std::string kubelet_dir = "/var/lib/kubelet";
  std::string state_dir;  // "" when not said: see places_below()
  std::string run_dir;
  Duration call_timeout = std::chrono::seconds(60);
  // Whether the agent of this node is asked. kMust: one that runs and does not answer is an error,
  // since it would go on giving out what goes.
  enum class Agent : uint8_t { kNot, kMay, kMust } agent = Agent::kMay;
};

// What a command line says of them.
[[nodiscard]] MigPlaces places_of(const MigCommand& command);

class MigNode {
 public:
  explicit MigNode(MigPlaces places);
  ~MigNode();
  MigNode(const MigNode&) = delete;
  MigNode& operator=(const MigNode&) = delete;

  // Opens the driver and reads which GPUs there are. A GPU that does not answer is an error only
  // for whoever wants something of it: see silent().
  [[nodiscard]] Status open();
  [[nodiscard]] const std::vector<ports::Gpu>& gpus() const { return gpus_; }
  struct Silent {
    uint32_t index = 0;
    Error error;
  };
  [[nodiscard]] const std::vector<Silent>& silent() const { return silent_; }
  [[nodiscard]] const ports::Gpu* find(uint32_t index) const;

  [[nodiscard]] nvml::Session& session() { return session_; }
  [[nodiscard]] mig::Ports ports();
  [[nodiscard]] mig::Options options() const;
  // GPU's UUID → UUIDs of devices: the agent gives them to nobody while the lease lives.
  [[nodiscard]] Result<AgentLink::Lease> withdraw(
      const std::map<std::string, std::set<std::string>>& gpus) const;
  // kNoPermission where the driver would refuse the first call that changes something: it lets root
  // change MIG, and whoever can open the device of mig/config. What is not known is left to it.
  [[nodiscard]] Status may_change() const;
  // Those whose change was interrupted.
  [[nodiscard]] std::set<std::string> left_half_way();
  // Everything of one GPU, with its holders marked.
  [[nodiscard]] Result<mig::GpuState> read(const ports::Gpu& gpu);
  // Every GPU with MIG.
  [[nodiscard]] Result<std::vector<mig::GpuState>> read_all(std::vector<uint32_t>* pci_ids);

 private:
  void watch();
  [[nodiscard]] Result<std::vector<GivenOut>> given_out() const;

  MigPlaces places_;
  Places own_;
  AgentLink link_;
  nvml::CallWatch calls_;
  nvml::Session session_;
  nvml::NodeReset reset_;
  host::NodeFiles files_;
  host::FileLocks locks_;
  host::SystemClock clock_;
  host::SystemPause pause_;
  std::vector<ports::Gpu> gpus_;
  std::vector<Silent> silent_;
  std::atomic<bool> ending_{false};
  std::thread watcher_;
};

}  // namespace gpuslice::bin
