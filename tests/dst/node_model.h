#pragma once

// A whole node on virtual time: a driver, files, a kubelet with pods, and the real agent on its
// ports. One thread, one queue of events, one seeded source of chance: the same seed gives the same
// run, byte for byte.

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/agent.h"
#include "base/log.h"
#include "base/random.h"

namespace gpuslice::dst {

// What is done to the node on purpose. Each is counted.
enum class Fault : uint8_t {
  kBadEdit,
  kKubeletRestart,
  kFolderWiped,
  kOurSocketRemoved,
  kStreamDrop,
  kRegistrationRefused,
  kGpuLost,
  kGpuRestored,
  kDriverSlow,
  kDriverFails,
  kDriverAway,
  kAgentKilled,
  kReboot,
  kDiskFull,
  kPodsUnknown,
  kClockJump,
};
inline constexpr size_t kFaults = static_cast<size_t>(Fault::kClockJump) + 1;
[[nodiscard]] std::string_view fault_name(Fault fault);

struct Pod {
  uint64_t number = 0;
  std::string resource;
  std::vector<std::string> ids;
};

class Trace {
 public:
  void add(std::string_view text);
  [[nodiscard]] uint64_t hash() const { return hash_; }
  [[nodiscard]] const std::vector<std::string>& lines() const { return lines_; }
  bool keep = false;

 private:
  uint64_t hash_ = 1469598103934665603ULL;
  std::vector<std::string> lines_;
};

// The kubelet's picture of one resource.
struct KubeletView {
  bool connected = false;
  std::shared_ptr<const ports::DeviceList> list;
};

class NodeModel final : public ports::HostFiles,
                        public ports::Clock,
                        public ports::Driver,
                        public ports::Kubelet {
 public:
  explicit NodeModel(uint64_t seed, bool keep_trace);
  ~NodeModel() override;
  NodeModel(const NodeModel&) = delete;
  NodeModel& operator=(const NodeModel&) = delete;

  // One event of chance, then everything that is due until the next.
  void chance_event();
  // No more faults: lets `d` of virtual time pass.
  void calm(Duration d);
  void heal();  // everything that was broken works again

  // For the invariants.
  [[nodiscard]] const std::map<std::string, KubeletView>& views() const { return views_; }
  [[nodiscard]] const std::map<std::string, std::shared_ptr<const ports::DeviceList>>& published()
      const {
    return published_;
  }
  [[nodiscard]] const std::vector<Pod>& pods() const { return pods_; }
  [[nodiscard]] std::set<std::string> gpu_uuids() const;
  [[nodiscard]] bool agent_alive() const { return agent_ != nullptr; }
  [[nodiscard]] const agent::Agent* agent() const { return agent_.get(); }
  [[nodiscard]] bool pods_known_since_start() const { return pods_known_; }
  // A GPU that no agent of this boot could write down: if it is lost at a start, nobody can know
  // its UUID.
  [[nodiscard]] bool unknowable(const std::string& uuid) const;
  [[nodiscard]] const std::string& last_good_text() const { return good_text_; }
  [[nodiscard]] size_t queue_size() const { return queue_.size(); }
  [[nodiscard]] size_t files_count() const { return files_.size(); }
  [[nodiscard]] std::vector<ports::Gpu> visible_gpus() const;
  [[nodiscard]] const std::array<uint64_t, kFaults>& strikes() const { return strikes_; }
  [[nodiscard]] Trace& trace() { return trace_; }
  [[nodiscard]] uint64_t events() const { return events_; }

  // Ports.
  [[nodiscard]] Result<std::string> read(const std::string& path, size_t most) override;
  [[nodiscard]] Status write_atomic(const std::string& path, const std::string& text,
                                    bool durable) override;
  [[nodiscard]] Result<std::string> boot_id() override;
  [[nodiscard]] bool exists(const std::string& path) override;
  [[nodiscard]] Status remove(const std::string& path, bool durable) override;
  [[nodiscard]] Result<std::vector<std::string>> list(const std::string& folder) override;
  [[nodiscard]] MonotonicTime now() const override { return now_; }
  [[nodiscard]] WallTime wall() const override {
    return WallTime(now_.time_since_epoch() + wall_offset_);
  }
  void ask_inventory() override;
  [[nodiscard]] Status serve(const std::string& resource, ports::PluginService& service,
                             std::shared_ptr<const ports::DeviceList> list) override;
  void publish(const std::string& resource, std::shared_ptr<const ports::DeviceList> list) override;
  void stop(const std::string& resource) override;
  [[nodiscard]] bool socket_in_place(const std::string& resource) const override;
  [[nodiscard]] bool watched(const std::string& resource) const override;
  void register_plugin(const std::string& resource) override;
  void list_pods() override;
  [[nodiscard]] std::string kubelet_socket() const override;

 private:
  struct Served {
    ports::PluginService* service = nullptr;
    bool socket = true;
  };
  using Task = std::function<void()>;

  void strike(Fault fault);
  void after(Duration d, Task task);            // of the world
  void after_for_agent(Duration d, Task task);  // dropped when this agent's life ends
  void run_until(MonotonicTime end);
  void run_agent();
  void start_agent();
  void kill_agent();
  void edit_config(bool good);
  void set_config(const std::string& text);
  void pod_comes();
  void pod_ends();
  void deliver(const std::string& resource);
  void drop_stream(const std::string& resource);
  void note(std::string_view text);
  void fault_event(uint64_t which);

  Random random_;
  Trace trace_;
  MonotonicTime now_{std::chrono::seconds(1000)};
  Duration wall_offset_ = std::chrono::hours(500'000);
  std::multimap<MonotonicTime, Task> queue_;
  MonotonicTime agent_wakes_ = MonotonicTime::max();

  // Hardware.
  std::vector<ports::Gpu> gpus_;
  std::set<uint32_t> lost_;
  bool driver_away_ = false;
  int driver_fails_ = 0;
  Duration driver_latency_ = std::chrono::milliseconds(5);

  // Files.
  std::map<std::string, std::string> files_;
  bool disk_full_ = false;
  uint64_t boot_ = 1;
  std::string good_text_;

  // Kubelet.
  uint64_t kubelet_life_ = 1;
  bool kubelet_up_ = true;
  int refuse_ = 0;
  int pods_unknown_ = 0;
  std::map<std::string, Served> served_;
  std::map<std::string, std::shared_ptr<const ports::DeviceList>> published_;
  std::map<std::string, KubeletView> views_;
  std::vector<Pod> pods_;
  uint64_t next_pod_ = 1;

  Log log_;
  uint64_t agent_life_ = 0;
  bool killing_ = false;
  bool pods_known_ = false;
  std::unique_ptr<agent::Agent> agent_;
  std::array<uint64_t, kFaults> strikes_{};
  uint64_t events_ = 0;
};

}  // namespace gpuslice::dst
