#include "bin/agent_main.h"

#include <fmt/core.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <memory>
#include <optional>
#include <random>
#include <utility>

#include "agent/agent.h"
#include "base/check.h"
#include "base/log.h"
#include "bin/agent_door.h"
#include "bin/agent_driver.h"
#include "bin/agent_dump.h"
#include "bin/agent_events.h"
#include "bin/agent_mig.h"
#include "bin/agent_setup.h"
#include "bin/agent_shown.h"
#include "bin/agent_web.h"
#include "bin/api_node.h"
#include "bin/config_folder.h"
#include "bin/hook_main.h"
#include "bin/socket_watches.h"
#include "bin/version.h"
#include "host/event_loop.h"
#include "host/loop_timers.h"
#include "host/node_host.h"
#include "host/path_watch.h"
#include "host/signals.h"
#include "kube/https_transport.h"
#include "kube/node_kube.h"
#include "kubelet/node_kubelet.h"

namespace gpuslice::bin {
namespace {

// How long a driver that does not answer may hold up the end of the process, in all threads that
// call it: a wait for an event that has begun goes on to its end.
constexpr Duration kDriverFarewell = AgentEvents::kSlice + std::chrono::milliseconds(500);
// Open files, where the machine allows it; the usual soft limit is 1,024.
constexpr rlim_t kWantedDescriptors = 65536;
// After an Allocate the ledger is written and the page renewed this much later: a burst of pods
// makes one such change, and does not wait for it.
constexpr Duration kLedgerDelay = std::chrono::milliseconds(50);
// The driver's events and the topology follow the first registration; where none comes, they follow
// the first look at the GPUs by this.
constexpr Duration kRegistrationFirst = std::chrono::milliseconds(100);

Level level_of(const std::string& name) {
  if (name == "debug") return Level::kDebug;
  if (name == "warning") return Level::kWarning;
  return name == "error" ? Level::kError : Level::kInfo;
}

// Everything of one agent process. T0 only, but where a member says otherwise.
class NodeAgent final : public ports::KubeletEvents, public ports::DriverEvents {
 public:
  NodeAgent(const AgentCommand& command, AgentSetup setup, host::EventLoop& loop, Log& log);

  Status start();
  // Ends what can be ended. False when the driver hangs: then the process can only be left by
  // _exit.
  [[nodiscard]] bool stop();

  // Events of the adapters: the agent hears them, and reconciles soon after.
  void on_inventory(Result<ports::Inventory> inventory) override;
  void on_registered(const std::string& resource, Status status) override;
  void on_pods(Result<std::vector<ports::PodDevices>> pods) override;
  void on_kubelet_folder_changed() override;

 private:
  [[nodiscard]] std::unique_ptr<WorkerMig> make_mig();
  void make_api_node();
  void begin_kube();
  void begin_what_can_wait();
  void reconcile_soon();
  void reconcile();
  Status watch_config();
  void open_door();
  [[nodiscard]] std::vector<GivenOut> given_out() const;
  [[nodiscard]] AgentParts parts();
  [[nodiscard]] std::string stuck();
  void on_signal(int signal);
  // Any thread: the desk's ledger moved, or may have.
  void poke();

  const AgentCommand command_;
  AgentSetup setup_;
  host::EventLoop& loop_;
  Log& log_;
  host::LoopTimers timers_{loop_};
  host::SystemClock clock_;
  host::NodeFiles files_;
  RpcMetrics rpcs_;  // any thread
  std::atomic<bool> poked_{false};

  AgentShown shown_;

  WorkerDriver driver_;
  AgentEvents events_;
  std::unique_ptr<kubelet::NodeKubelet> kubelet_;
  std::unique_ptr<WorkerMig> mig_;
  MigStatusFile mig_status_;
  MigStatusBoards mig_boards_;
  std::unique_ptr<ApiNode> api_node_;
  std::unique_ptr<agent::Agent> agent_;
  std::unique_ptr<kube::NodeKube> kube_;
  std::unique_ptr<AgentWeb> web_;
  std::unique_ptr<AgentDoor> door_;
  std::unique_ptr<host::Signals> signals_;
  std::unique_ptr<host::PathWatch> config_watch_;
  std::unique_ptr<ConfigFolder> config_folder_;
  std::vector<std::unique_ptr<host::PathWatch>> mig_watches_;
  SocketWatches socket_watches_{loop_, log_, [this] { on_kubelet_folder_changed(); }};
  host::EventLoop::Token next_reconcile_;
  host::EventLoop::Token ledger_due_;
  host::EventLoop::Token what_can_wait_due_;
  bool looked_ = false;  // an inventory came
  MonotonicTime next_at_ = MonotonicTime::max();
  const MonotonicTime started_ = host::EventLoop::now();
};

agent::AgentOptions agent_options(const AgentSetup& setup) {
  agent::AgentOptions options;
  options.config = setup.config;
  options.root = setup.root == "/" ? "" : setup.root;
  options.host_root = setup.host_root;
  options.require_distinct = setup.require_distinct;
  options.cdi = setup.cdi;
  if (setup.install_hook)
    options.cdi.install_hook = [path = setup.cdi.hook] { return install_self(path); };
  options.seed = std::random_device()();
  options.labels.to = setup.labels_to;
  options.labels.print = [](const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  options.partition = setup.partition;
  options.health = setup.health;
  options.ledger_path = setup.places.ledger();
  return options;
}

NodeAgent::NodeAgent(const AgentCommand& command, AgentSetup setup, host::EventLoop& loop, Log& log)
    : command_(command),
      setup_(std::move(setup)),
      loop_(loop),
      log_(log),
      files_(setup_.root),
      driver_(setup_.root, loop_, *this),
      events_(setup_.root, setup_.places.locks(), loop_, log_,
              [this](const ports::GpuEvent& event) {
                agent_->on_gpu_event(event);
                reconcile_soon();
              }),
      mig_status_(setup_.places.run_dir + "/mig-status.json", files_) {
  // Loading the library and the first look take longest: they run while the rest is made, and are
  // heard when the loop runs.
  driver_.ask_inventory();
  kubelet::NodeKubelet::Options options;
  options.kubelet_dir = setup_.kubelet_dir;
  options.registration_socket = setup_.registration_socket;
  options.post = [this](std::function<void()> work) {
    CHECK(loop_.post(std::move(work)), "the event loop has no room for an answer of the kubelet");
  };
  options.seen = [this](const std::string& resource, const kubelet::CallSeen& seen) {
    rpcs_.seen(resource, seen.method, seen.duration, seen.ok);
    if (seen.method == "Allocate") poke();
  };
  kubelet_ = std::make_unique<kubelet::NodeKubelet>(std::move(options), *this);
  if (setup_.changes_mig) mig_ = make_mig();
  agent::AgentPorts ports{files_, clock_, driver_, *kubelet_};
  ports.mig = mig_.get();
  mig_boards_.add(mig_status_);
  ports.mig_status = &mig_boards_;
  agent::AgentOptions mine = agent_options(setup_);
  if (setup_.config_folder)
    config_folder_ = std::make_unique<ConfigFolder>(*setup_.config_folder, loop_,
                                                    [this](Result<std::string> file) {
                                                      agent_->on_config_file(std::move(file));
                                                      reconcile_soon();
                                                    });
  if (setup_.kube) {
    make_api_node();
    if (setup_.health_events)
      mine.health_event = [this](ports::KubeEvent event) { api_node_->record(std::move(event)); };
    mine.labels.apply = [this](const agent::Labels& labels) { api_node_->labels().want(labels); };
    ports.evictor = api_node_->evictor();
  }
  agent_ = std::make_unique<agent::Agent>(std::move(mine), ports, log_);
  if (setup_.kube) begin_kube();
}

void NodeAgent::make_api_node() {
  ApiNode::Told told;
  told.labels_applied = [this](const Status& status) { agent_->on_labels_applied(status); };
  if (setup_.partition.source.label_from_api)
    told.mig_label = [this](const std::optional<std::string>& label) {
      agent_->on_mig_label(label);
      reconcile_soon();
    };
  told.mig_asked_again = [this] {
    agent_->on_mig_asked_again();
    reconcile_soon();
  };
  if (setup_.evicts)
    told.not_evicted = [this](const std::string& name_space, const std::string& pod,
                              const Error& why) { agent_->on_not_evicted(name_space, pod, why); };
  if (config_folder_)
    told.config_label = [this](const std::optional<std::string>& label) {
      config_folder_->on_label(label);
    };
  api_node_ = std::make_unique<ApiNode>(timers_, log_, std::move(told));
  if (ports::MigStatusBoard* board = api_node_->mig_board()) mig_boards_.add(*board);
}

void NodeAgent::begin_kube() {
  kube::NodeKube::Options options;
  options.node = setup_.node;
  options.post = [this](std::function<void()> work) {
    CHECK(loop_.post(std::move(work)),
          "the event loop has no room for an answer of the API server");
  };
  options.seed = std::random_device()();
  kube_ = std::make_unique<kube::NodeKube>(std::move(options), kube::https_transport(*setup_.kube),
                                           *api_node_);
  api_node_->begin(*kube_);
}

std::unique_ptr<WorkerMig> NodeAgent::make_mig() {
  // What was given out is asked for on the worker; the agent outlives the worker's work.
  LedgerSource ledger = [this]() -> Result<std::vector<GivenOut>> { return given_out(); };
  MigAnswers answers;
  answers.recovered = [this](const std::vector<mig::Report>& reports) {
    agent_->on_mig_recovered(reports);
    reconcile_soon();
  };
  answers.checked = [this](const std::vector<agent::MigChecked>& checked) {
    agent_->on_mig_checked(checked);
    reconcile_soon();
  };
  answers.prepared = [this](agent::MigPrepared prepared) {
    agent_->on_mig_prepared(std::move(prepared));
    reconcile_soon();
  };
  answers.done = [this](const mig::Report& report) {
    agent_->on_mig_done(report);
    reconcile_soon();
  };
  return std::make_unique<WorkerMig>(setup_.root, setup_.places, setup_.kubelet_dir, driver_,
                                     events_, loop_, std::move(ledger), std::move(answers));
}

// Any thread.
std::vector<GivenOut> NodeAgent::given_out() const {
  std::vector<GivenOut> out;
  const MonotonicTime now = clock_.now();
  const Duration grace = agent::AgentOptions{}.allocation_grace;
  const std::vector<agent::LedgerEntry> entries = agent_->ledger();
  for (const agent::LedgerEntry& entry : entries)
    out.push_back({entry.id, agent::may_be_unlisted(entry, now, grace)});
  return out;
}

AgentParts NodeAgent::parts() {
  return {setup_,
          loop_,
          driver_,
          *agent_,
          *kubelet_,
          files_,
          web_.get(),
          door_.get(),
          api_node_.get(),
          kube_.get(),
          host::EventLoop::now() - started_};
}

void NodeAgent::open_door() {
  AgentDoor::Sources sources;
  sources.status = [this] { return dump_status(parts()); };
  sources.ledger = [this] { return given_out(); };
  sources.withdraw = [this](agent::Withdrawal withdrawal) {
    reconcile_soon();
    return agent_->withdraw(std::move(withdrawal));
  };
  sources.withdrawn = [this](agent::Withdrawals::Id id) { return agent_->withdrawn(id); };
  sources.give_back = [this](agent::Withdrawals::Id id) {
    agent_->give_back(id);
    reconcile_soon();
  };
  door_ = std::make_unique<AgentDoor>(loop_, log_, setup_.places.door(), std::move(sources));
}

Status NodeAgent::start() {
  TRY_ASSIGN(signals_, host::Signals::watch(loop_, [this](int signal) { on_signal(signal); }));
  TRY(watch_config());
  if (!command_.listen.empty()) {
    TRY_ASSIGN(
        web_,
        AgentWeb::start(command_.listen, loop_, rpcs_,
                        {[this] { return shown_.web_state(*agent_->status(), driver_, log_); },
                         [this] { shown_.sample_if_stale(driver_); }, [this] { return stuck(); }}));
  }
  log_.info("gpuslice {} serves {} below {}{}", kVersion, setup_.root, setup_.kubelet_dir,
            web_ ? fmt::format("; page, metrics and health at http://{}/", web_->address()) : "");
  if (!setup_.without_kube.empty())
    log_.info("the node's labels choose nothing: {}", setup_.without_kube);
  open_door();  // before anything is offered: who finds nobody here can be sure of that
  agent_->start();
  reconcile();
  return {};
}

bool NodeAgent::stop() {
  const MonotonicTime until = host::EventLoop::now() + kDriverFarewell;
  (void)events_.stop({});  // what these do ends while the rest is left
  (void)driver_.stop({});
  door_.reset();
  web_.reset();
  socket_watches_.clear();
  config_watch_.reset();
  config_folder_.reset();
  mig_watches_.clear();
  signals_.reset();
  next_reconcile_.reset();
  ledger_due_.reset();
  what_can_wait_due_.reset();
  mig_status_.write();
  if (api_node_) api_node_->end();
  kube_.reset();
  // Streams and sockets go whatever the driver does. The agent itself stays while a change of MIG
  // may ask it what was given out; one that does not end in time is left to its journal.
  if (agent_) agent_->leave();
  kubelet_.reset();
  const auto left = [until] { return std::max(until - host::EventLoop::now(), Duration::zero()); };
  const bool events_ended = events_.stop(left());
  return driver_.stop(left()) && events_ended;
}

void NodeAgent::on_inventory(Result<ports::Inventory> inventory) {
  events_.on_inventory(inventory);
  if (!std::exchange(looked_, true))
    what_can_wait_due_ = loop_.after(kRegistrationFirst, [this] { begin_what_can_wait(); });
  agent_->on_inventory(std::move(inventory));
  reconcile_soon();
}

void NodeAgent::on_registered(const std::string& resource, Status status) {
  begin_what_can_wait();
  agent_->on_registered(resource, std::move(status));
  reconcile_soon();
}

void NodeAgent::on_pods(Result<std::vector<ports::PodDevices>> pods) {
  agent_->on_pods(std::move(pods));
  reconcile_soon();
}

void NodeAgent::on_kubelet_folder_changed() {
  agent_->on_kubelet_folder_changed();
  reconcile_soon();
}

void NodeAgent::begin_what_can_wait() {
  what_can_wait_due_.reset();
  events_.begin();
  driver_.begin_topology();
}

// Once for all events that one turn of the loop brings.
void NodeAgent::reconcile_soon() {
  const MonotonicTime now = host::EventLoop::now();
  if (next_reconcile_.active() && next_at_ <= now) return;
  next_at_ = now;
  next_reconcile_ = loop_.at(now, [this] { reconcile(); });
}

void NodeAgent::reconcile() {
  next_at_ = agent_->reconcile();
  next_reconcile_ = next_at_ == MonotonicTime::max() ? host::EventLoop::Token()
                                                     : loop_.at(next_at_, [this] { reconcile(); });
  mig_status_.write();
  socket_watches_.look(*kubelet_);
  door_->look();
  shown_.keep(kubelet_->counts(), queue_states(parts()),
              kube_ ? std::optional(kube_->counts()) : std::nullopt);
}

Status NodeAgent::watch_config() {
  for (const std::string& path :
       {setup_.partition.source.config_path, setup_.partition.source.label_path}) {
    if (path.empty()) continue;
    TRY_ASSIGN(auto watch, host::PathWatch::watch(loop_, path, true, [this] {
                 agent_->on_mig_files_changed();
                 reconcile_soon();
               }));
    mig_watches_.push_back(std::move(watch));
  }
  if (config_folder_) return config_folder_->start();
  if (setup_.config.path.empty()) return {};
  TRY_ASSIGN(config_watch_, host::PathWatch::watch(loop_, setup_.config.path, true, [this] {
               agent_->on_config_changed();
               reconcile_soon();
             }));
  return {};
}

void NodeAgent::on_signal(int signal) {
  if (signal != SIGHUP) {
    log_.info("{}: ending", signal == SIGTERM ? "SIGTERM" : "SIGINT");
    loop_.stop();
    return;
  }
  log_.info("SIGHUP: reading the configuration again");
  agent_->on_config_changed();
  if (config_folder_) config_folder_->look();
  agent_->on_mig_files_changed();
  reconcile_soon();
}

void NodeAgent::poke() {
  if (poked_.exchange(true)) return;
  const bool posted = loop_.post([this] {
    ledger_due_ = loop_.after(kLedgerDelay, [this] {
      poked_.store(false);
      reconcile_soon();
    });
  });
  if (!posted) poked_.store(false);  // the next Allocate tries again
}

// Which other thread does not answer; "" when all do.
std::string NodeAgent::stuck() {
  if (const auto silent = kubelet_->most_silent(); silent.since > AgentWeb::kDeadAfter)
    return fmt::format("the thread of {} has not answered for {} s", silent.of,
                       std::chrono::duration_cast<std::chrono::seconds>(silent.since).count());
  const Duration busy = driver_.busy_for();
  if (setup_.driver_patience == Duration::zero() || busy <= setup_.driver_patience) return "";
  return fmt::format("the driver has not answered for {} s (--driver-patience); see dmesg for XIDs",
                     std::chrono::duration_cast<std::chrono::seconds>(busy).count());
}

// As many as may be: who opens connections by the hundred must not keep us from reading a file.
void allow_descriptors() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= kWantedDescriptors) return;
  limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, kWantedDescriptors);
  // Without it there are fewer.
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

Result<int> run_agent(const AgentCommand& command, char** environment) {
  TRY_ASSIGN(AgentSetup setup, make_setup(command, environment));
  allow_descriptors();
  host::Signals::block();
  kubelet::quiet_grpc();
  TRY_ASSIGN(const std::unique_ptr<host::EventLoop> loop, host::EventLoop::create());
  const host::SystemClock clock;
  Log log(
      fd_sink(STDERR_FILENO), [&clock] { return clock.wall(); }, level_of(command.log_level),
      command.log_form == "json" ? Log::Form::kJson : Log::Form::kText);
  auto agent = std::make_unique<NodeAgent>(command, std::move(setup), *loop, log);
  const Status started = agent->start();
  if (started) loop->run();
  const bool clean = agent->stop();
  if (!started) {
    if (!clean) {
      fmt::print(stderr, "{}\n", started.error().text());
      ::_exit(exit_code(started.error().code));
    }
    return std::unexpected(started.error());
  }
  if (!clean) {
    // A thread that waits for the driver uses what would be destroyed now.
    log.warning("the driver does not answer; leaving without waiting for it");
    ::_exit(0);
  }
  return 0;
}

}  // namespace gpuslice::bin
