#include "bin/agent_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "agent/device_nodes.h"
#include "agent/device_table.h"
#include "base/text.h"
#include "bin/agent_link.h"
#include "bin/agent_setup.h"
#include "bin/kube_check.h"
#include "bin/mig_node.h"
#include "config/document.h"
#include "host/files.h"
#include "host/processes.h"
#include "http/server.h"
#include "kubelet/node_kubelet.h"
#include "kubelet/socket_path.h"
#include "mig/check.h"
#include "mig/label.h"

namespace gpuslice::bin {
namespace {

// How long the driver may take for one call.
constexpr Duration kDriverPatience = std::chrono::seconds(10);

class Check {
 public:
  Check(const AgentCommand& command, char** environment)
      : command_(command), environment_(environment) {}
  int run();

 private:
  void ok(const char* what, const std::string& how) { say(fmt::format("ok    {}: {}", what, how)); }
  void bad(const char* what, const Error& error) {
    if (failed_ == 0) failed_ = exit_code(error.code);
    say(fmt::format("FAIL  {}: {}", what, error.text()));
  }
  void judge(const char* what, const Result<std::string>& how) {
    how ? ok(what, *how) : bad(what, how.error());
  }
  static void say(const std::string& line) {
    std::fwrite((line + "\n").data(), 1, line.size() + 1, stdout);
    std::fflush(stdout);  // the next one may hang
  }

  void find_agent();
  [[nodiscard]] Result<std::string> configuration();
  [[nodiscard]] Result<std::string> mig_configuration();
  [[nodiscard]] Result<std::string> mig_rights() const;
  // That of the agent that runs here is ours.
  [[nodiscard]] bool of_agent(const std::string& who) const {
    return agent_pid_ > 0 && who.ends_with(fmt::format("(PID {})", agent_pid_));
  }
  [[nodiscard]] static Result<std::string> folder(const std::string& path, const char* flag);
  void kubelet();
  void own_socket(const std::string& resource);
  [[nodiscard]] Result<std::string> listens() const;
  [[nodiscard]] Result<std::string> imex() const;
  void driver();
  void devices(const MigNode& node);
  void layout(MigNode& node);

  const AgentCommand& command_;
  char** environment_;
  AgentSetup setup_;
  std::optional<config::Effective> config_;
  std::optional<config::MigPartedConfig> mig_;
  std::string mig_label_;  // that is known without the API server
  int agent_pid_ = 0;
  int failed_ = 0;
};

void Check::find_agent() {
  const auto status = AgentLink(setup_.places.door()).status();
  if (!status) return bad("agent", status.error());
  if (!*status) return ok("agent", "none runs here yet");
  const auto json = nlohmann::json::parse(**status, nullptr, false);
  if (json.is_object() && json.contains("pid") && json["pid"].is_number_integer())
    agent_pid_ = json["pid"].get<int>();
  ok("agent", fmt::format("one runs here already, PID {}", agent_pid_));
}

Result<std::string> Check::configuration() {
  std::string path = setup_.config.path;
  if (setup_.config_folder && path.empty()) {
    // The node's label is asked for when it runs: what holds without one.
    TRY_ASSIGN(path, choose_file(*setup_.config_folder, ""));
  }
  std::string text;
  if (!path.empty() && path != agent::kEmptyConfig) {
    auto read = host::read_file(path, config::kMaxFileBytes);
    if (!read && read.error().code == Code::kNoPermission) return read;
    if (!read) return fail(Code::kInvalidConfig, "{}", read.error().message);
    text = std::move(*read);
  }
  const config::DevicePluginFile file = config::read_device_plugin(text, setup_.config.compat);
  if (file.problems.has_errors()) return std::unexpected(file.problems.first_error(path));
  TRY_ASSIGN(config_, config::merge(setup_.config.said, file.config, path));
  if (path.empty()) return std::string("no file: flags, environment and defaults");
  std::string how = path;
  for (const config::Problem& warning : file.problems.all())
    how += fmt::format(" (warning: {})", warning.text(path));
  return how;
}

Result<std::string> Check::mig_configuration() {
  const agent::MigSource& source = setup_.partition.source;
  TRY_ASSIGN(const std::string text, host::read_file(source.config_path, config::kMaxFileBytes));
  config::MigPartedFile file = config::read_mig_parted(text);
  if (file.problems.has_errors())
    return std::unexpected(file.problems.first_error(source.config_path));
  mig_ = std::move(file.config);
  std::string label = source.label;
  if (!source.label_path.empty()) {
    TRY_ASSIGN(label, host::read_file(source.label_path, config::kMaxFileBytes));
    label = std::string(trim(label));
  }
  mig_label_ = label;
  if (label.empty())
    return fmt::format(
        "{}: {} labels{}", source.config_path, mig_->labels.size(),
        source.label_from_api ? "; the node's label nvidia.com/mig.config chooses" : "");
  TRY_ASSIGN(label, mig::choose_label(*mig_, label, source.config_path));
  return fmt::format("{}: label {}", source.config_path, label);
}

Result<std::string> Check::mig_rights() const {
  if (!setup_.changes_mig) return std::string("not changed: the role mig is off");
  if (host::has_sys_admin()) return std::string("may be changed (CAP_SYS_ADMIN)");
  return fail(Code::kNoPermission,
              "the driver changes MIG for root alone (CAP_SYS_ADMIN); run the agent as root, or "
              "without the role mig");
}

Result<std::string> Check::folder(const std::string& path, const char* flag) {
  // What is not there yet is made: below the nearest folder that is.
  std::string there = path;
  while (there.size() > 1 && ::faccessat(AT_FDCWD, there.c_str(), F_OK, AT_EACCESS) != 0 &&
         errno == ENOENT) {
    const size_t slash = there.rfind('/');
    there = slash == 0 ? "/" : there.substr(0, slash);
  }
  if (::faccessat(AT_FDCWD, there.c_str(), W_OK | X_OK, AT_EACCESS) == 0)
    return there == path ? path : fmt::format("{} (to be made)", path);
  const int error = errno;
  return fail(Code::kNoPermission, "{}{}: {}; give write access there, or name another with {}",
              path, there == path ? "" : ": " + there, std::strerror(error), flag);
}

void Check::kubelet() {
  const std::string plugins = setup_.kubelet_dir + "/device-plugins";
  if (::faccessat(AT_FDCWD, plugins.c_str(), W_OK | X_OK, AT_EACCESS) == 0)
    ok("kubelet's folder", plugins);
  else
    bad("kubelet's folder",
        {errno == ENOENT ? Code::kUnavailable : Code::kNoPermission,
         fmt::format("{}: {}; {}", plugins, std::strerror(errno),
                     errno == ENOENT
                         ? "the kubelet makes this folder when it starts (see --kubelet-dir)"
                         : "run as root, or give write access to this folder"),
         {}});
  const std::string registration =
      setup_.registration_socket.empty() ? plugins + "/kubelet.sock" : setup_.registration_socket;
  const std::string pods = setup_.kubelet_dir + "/pod-resources/kubelet.sock";
  for (const auto& [what, socket] : {std::pair{"kubelet", registration}, {"pod-resources", pods}}) {
    if (const auto who = kubelet::who_serves(socket)) {
      ok(what, fmt::format("{}: {}", socket, *who));
      continue;
    }
    const bool there = ::access(socket.c_str(), F_OK) == 0;
    const bool may = ::faccessat(AT_FDCWD, socket.c_str(), W_OK, AT_EACCESS) == 0;
    bad(what, {there && !may ? Code::kNoPermission : Code::kUnavailable,
               fmt::format("{}: {}", socket,
                           !there ? "it is not there; is the kubelet running (see --kubelet-dir)?"
                           : !may ? "this user may not connect; run as root, or give write access "
                                    "to this socket"
                                  : "nobody answers there; is the kubelet running?"),
               {}});
  }
}

Result<std::string> Check::imex() const {
  std::string node = (setup_.root == "/" ? "" : setup_.root) + agent::imex_node("0");
  if (::access(node.c_str(), F_OK) == 0) return node;
  if (!config_->imex.required)
    return fmt::format("warning: {} is not there: containers do not get the channel", node);
  return fail(Code::kUnavailable,
              "{} is not there, and imex.required is true: the agent would not be ready; see the "
              "driver's nvidia-imex service, or leave imex.required out",
              node);
}

Result<std::string> Check::listens() const {
  if (command_.listen.empty()) return std::string("nowhere (--listen \"\")");
  const auto server =
      http::Server::listen(command_.listen, [](std::string_view) { return http::Response{}; });
  if (server) return command_.listen;
  if (server.error().code == Code::kUnavailable && agent_pid_ > 0)
    return fmt::format("{}: taken, while PID {} runs", command_.listen, agent_pid_);
  return std::unexpected(server.error());
}

void Check::own_socket(const std::string& resource) {
  const auto path = kubelet::plugin_socket_path(setup_.kubelet_dir + "/device-plugins", resource);
  if (!path) return bad("socket", path.error());
  const auto who = kubelet::who_serves(*path);
  if (!who || of_agent(*who))
    return ok("socket", fmt::format("{}: {}", *path, who ? *who : std::string("free")));
  bad("socket",
      {Code::kInUse,
       fmt::format("{}: {} is serving there; remove NVIDIA's device plugin from this node", *path,
                   *who),
       {}});
}

void Check::driver() {
  MigPlaces places{setup_.root,      setup_.kubelet_dir, command_.state_dir,
                   command_.run_dir, kDriverPatience,    MigPlaces::Agent::kMay};
  MigNode node(std::move(places));  // ends the process, with a sentence, when the driver hangs
  if (const Status opened = node.open(); !opened) return bad("driver", opened.error());
  const auto version = node.session().driver();
  if (!version) return bad("driver", version.error());
  ok("driver",
     fmt::format("{}, {} GPUs", version->version, node.gpus().size() + node.silent().size()));
  for (const MigNode::Silent& silent : node.silent())
    bad("GPU", {silent.error.code,
                fmt::format("{}; it is not given out until it answers", silent.error.message),
                {}});
  if (node.gpus().empty() && node.silent().empty())
    bad("GPU", {Code::kUnavailable, "the driver shows no GPU; see dmesg", {}});
  devices(node);
  layout(node);
}

// Whether the label can be at all; who holds what today is for the agent to see.
void Check::layout(MigNode& node) {
  if (!mig_ || mig_label_.empty()) return;
  const auto found = mig_->labels.find(mig_label_);
  if (found == mig_->labels.end()) return;
  const auto wish = mig::wish_of_label(found->second, mig_label_, node.gpus(),
                                       setup_.partition.source.config_path);
  if (!wish) return bad("MIG layout", wish.error());
  for (const auto& [index, of_gpu] : wish->gpus) {
    const mig::Checked checked =
        mig::check(node.session(), nullptr, mig::name_of(*node.find(index)), of_gpu);
    // Who may change MIG is judged above.
    if (checked.refused && checked.refused->code != Code::kNoPermission)
      bad("MIG layout", *checked.refused);
  }
}

void Check::devices(const MigNode& node) {
  if (!config_) return;
  agent::Hardware hardware;
  hardware.gpus = node.gpus();
  const auto table = agent::make_device_table(hardware, *config_, {});
  if (!table) return bad("devices", table.error());
  for (const auto& [name, resource] : table->resources) {
    ok("devices", fmt::format("{}: {}", name, resource->devices.size()));
    own_socket(name);
  }
  for (const std::string& warning : table->warnings) ok("devices", "warning: " + warning);
}

int Check::run() {
  auto setup = make_setup(command_, environment_);
  if (!setup) {
    bad("command line", setup.error());
    return failed_;
  }
  setup_ = std::move(*setup);
  judge("configuration", configuration());
  find_agent();
  judge("state folder", folder(setup_.places.state_dir, "--state-dir"));
  judge("run folder", folder(setup_.places.run_dir, "--run-dir"));
  if (config_ && (config_->lists(config::Flag::kDeviceListStrategy, "cdi-annotations") ||
                  config_->lists(config::Flag::kDeviceListStrategy, "cdi-cri")))
    judge("CDI folder", folder(setup_.cdi.folder, "--cdi-dir"));
  if (config_ && setup_.labels_to == agent::LabelsTo::kNfdFile) {
    const std::string& file = config_->text(config::Flag::kGfdOutputFile);
    judge("labels' folder", folder(file.substr(0, file.rfind('/')), "--output-file"));
  }
  if (config_ && !config_->imex.channel_ids.empty()) judge("IMEX", imex());
  kubelet();
  judge("listen", listens());
  if (setup_.partition.source.any()) {
    judge("MIG configuration", mig_configuration());
    judge("MIG", mig_rights());
  }
  if (setup_.kube)
    judge("API server", ask_api_server(*setup_.kube, setup_.node));
  else
    ok("API server", "not asked" + (setup_.without_kube.empty() ? "" : ": " + setup_.without_kube));
  driver();
  return failed_;
}

}  // namespace

int run_agent_check(const AgentCommand& command, char** environment) {
  kubelet::quiet_grpc();
  return Check(command, environment).run();
}

}  // namespace gpuslice::bin
