#include "simkubelet/service.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "simkubelet/runtime.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;

std::string error_answer(const std::string& message) {
  return Json{{"error", message}}.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json quantities(const std::map<std::string, uint64_t>& values) {
  Json out = Json::object();
  for (const auto& [name, value] : values)
    out[name] = std::to_string(value);  // as Kubernetes writes quantities
  return out;
}

Json pod_json(const Pod& pod) {
  Json ids = Json::array();
  for (const auto& [resource, list] : pod.device_ids)
    for (const std::string& id : list) ids.push_back(id);
  Json resources = Json::object();
  for (const auto& [name, count] : pod.resources) resources[name] = std::to_string(count);
  return {{"name", pod.name},       {"phase", pod.phase},     {"reason", pod.reason},
          {"message", pod.message}, {"resources", resources}, {"deviceIds", ids},
          {"env", pod.env},         {"pid", pod.pid},         {"uid", pod.uid}};
}

std::string default_program() {
  std::error_code ec;
  return std::filesystem::read_symlink("/proc/self/exe", ec).string();
}

}  // namespace

Service::~Service() {
  for (const Pod& pod : node_.pods()) end_pod(pod);
}

std::string Service::answer(const std::string& request) {
  const auto call = read_call(request);
  if (!call) return error_answer(call.error().message);
  Status status;
  switch (call->verb) {
    case PodCall::Verb::kNode: {
      const Quantities q = node_.quantities();
      return Json{{"capacity", quantities(q.capacity)},
                  {"allocatable", quantities(q.allocatable)},
                  {"registrations", node_.registrations()}}
          .dump();
    }
    case PodCall::Verb::kList: {
      Json pods = Json::array();
      for (const Pod& pod : node_.pods()) pods.push_back(pod_json(pod));
      return Json{{"pods", pods}}.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    case PodCall::Verb::kRun:
      status = run_pod(*call);
      break;
    case PodCall::Verb::kRemove:
      status = remove_pods(*call);
      break;
    case PodCall::Verb::kRestart:
      return restart(call->times);
  }
  return status ? "{}" : error_answer(status.error().message);
}

std::string Service::restart(uint32_t times) {
  Json served = Json::array();  // when its socket stood, each time
  for (uint32_t i = 0; i < times; ++i) {
    if (const Status restarted = plugins_.restart(); !restarted)
      return error_answer(restarted.error().message);
    served.push_back(
        std::chrono::duration<double, std::milli>(monotonic_now().time_since_epoch()).count());
  }
  return Json{{"servedAtMs", served}}.dump();
}

Status Service::remove_pods(const PodCall& call) {
  std::vector<std::string> names = call.names;
  if (call.all)
    for (const Pod& pod : node_.pods()) names.push_back(pod.name);
  for (const std::string& name : names) {
    const auto pods = node_.pods();
    const auto it =
        std::find_if(pods.begin(), pods.end(), [&](const Pod& p) { return p.name == name; });
    if (it == pods.end()) return fail(Code::kNotFound, "there is no pod {}", name);
    end_pod(*it);
    node_.remove_pod(name);
    wishes_.erase(name);
  }
  return {};
}

Status Service::run_pod(const PodCall& call) {
  Pod pod;
  pod.name = call.name;
  pod.resources = call.request;
  pod.init_resources = call.init;
  pod.uid = fmt::format("{:08x}-0000-4000-8000-{:012x}", random_.next() & 0xffffffff,
                        (random_.next() ^ static_cast<uint64_t>(::getpid())) & 0xffffffffffff);
  Wish wish;
  wish.command = call.command;
  if (wish.command.empty()) {
    wish.command = {default_program(), "work"};
    for (const std::string_view word : split(call.work, ' '))
      if (!word.empty()) wish.command.emplace_back(word);
  }
  TRY(node_.add_pod(pod));
  wishes_[pod.name] = std::move(wish);
  admit(pod.name);
  return {};
}

void Service::fail_pod(const std::string& name, const std::string& reason,
                       const std::string& message) {
  node_.update_pod(name, [&](Pod& pod) {
    pod.phase = "Failed";
    pod.reason = reason;
    pod.message = message;
    pod.device_ids.clear();  // a pod that was never started holds nothing
    pod.listed.clear();
  });
}

Result<Service::Given> Service::give(const std::map<std::string, uint32_t>& wanted,
                                     const Given& reusable) {
  Given given;
  for (const auto& [resource, count] : wanted) {
    const auto of_init = reusable.ids.find(resource);
    std::vector<std::string> had =
        of_init == reusable.ids.end() ? std::vector<std::string>() : of_init->second;
    if (had.size() > count) had.resize(count);
    TRY_ASSIGN(const Node::Choice choice,
               node_.choice(resource, count - static_cast<uint32_t>(had.size())));
    std::vector<std::string> preferred;
    if (choice.preferred_available && had.size() < count) {
      Plugins::Ask ask{had, had, count};
      ask.available.insert(ask.available.end(), choice.free.begin(), choice.free.end());
      auto answer = plugins_.preferred(choice.endpoint, ask);
      if (!answer) return fail(Code::kFailed, "{}", answer.error().message);
      preferred = std::move(*answer);
    }
    given.ids[resource] = Node::take(choice, had, preferred, count);
    const auto allocated = plugins_.allocate(choice.endpoint, given.ids[resource]);
    if (!allocated) return fail(Code::kFailed, "{}", allocated.error().message);
    given.allocated.add(*allocated);
  }
  return given;
}

void Service::admit(const std::string& name) {
  const auto pods = node_.pods();
  const auto it =
      std::find_if(pods.begin(), pods.end(), [&](const Pod& p) { return p.name == name; });
  if (it == pods.end() || it->phase != "Pending") return;
  // The scheduler's part: a pod stays pending and is tried again when devices come.
  std::map<std::string, uint32_t> most = it->resources;
  for (const auto& [resource, count] : it->init_resources)
    most[resource] = std::max(most[resource], count);
  for (const auto& [resource, count] : most) {
    const auto choice = node_.choice(resource, count);
    if (choice) continue;
    node_.update_pod(name, [&](Pod& pod) {
      pod.reason = "Unschedulable";
      pod.message = choice.error().message;
    });
    return;
  }
  const auto refused = [&](const Error& error) {
    fail_pod(name, "UnexpectedAdmissionError",
             fmt::format("Pod was rejected: Allocate failed due to {}, which is unexpected",
                         error.message));
  };
  const auto init = give(it->init_resources, {});
  if (!init) return refused(init.error());
  node_.update_pod(name, [&](Pod& pod) { pod.device_ids = init->ids; });
  const auto given = give(it->resources, *init);
  if (!given) return refused(given.error());
  std::map<std::string, std::vector<DeviceSeen>> listed;
  for (const auto& [resource, ids] : given->ids) listed[resource] = node_.seen(resource, ids);
  // What an init container had is the pod's until its end.
  node_.update_pod(name, [&](Pod& pod) {
    pod.listed = std::move(listed);
    for (const auto& [resource, ids] : given->ids)
      for (const std::string& id : ids) {
        std::vector<std::string>& of_pod = pod.device_ids[resource];
        if (std::find(of_pod.begin(), of_pod.end(), id) == of_pod.end()) of_pod.push_back(id);
      }
  });
  const auto launched =
      launcher_({command_.root, it->uid, given->allocated, wishes_[name].command});
  if (!launched) return fail_pod(name, "CreateContainerError", launched.error().message);
  node_.update_pod(name, [&](Pod& pod) {
    pod.phase = "Running";
    pod.reason.clear();
    pod.message.clear();
    pod.pid = launched->pid;
    pod.env = launched->env;
  });
}

void Service::end_pod(const Pod& pod) {
  if (pod.phase == "Running" && pod.pid > 0) {
    ::kill(-pod.pid, SIGTERM);
    ::kill(pod.pid, SIGTERM);
    for (int i = 0; i < 100; ++i) {
      if (::waitpid(pod.pid, nullptr, WNOHANG) == pod.pid) break;
      const timespec pause{0, 10'000'000};
      ::nanosleep(&pause, nullptr);
      if (i == 98) {
        ::kill(-pod.pid, SIGKILL);
        ::kill(pod.pid, SIGKILL);
        ::waitpid(pod.pid, nullptr, 0);
        break;
      }
    }
  }
  remove_cgroups(pod.uid);
}

void Service::look_at_pods() {
  for (;;) {
    int status = 0;
    const pid_t pid = ::waitpid(-1, &status, WNOHANG);
    if (pid <= 0) break;
    for (const Pod& pod : node_.pods()) {
      if (pod.pid != pid || pod.phase != "Running") continue;
      const bool good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
      node_.update_pod(pod.name, [&](Pod& p) {
        p.phase = good ? "Succeeded" : "Failed";
        p.reason = good ? "Completed" : "Error";
        p.message = WIFEXITED(status) ? fmt::format("exit status {}", WEXITSTATUS(status))
                                      : fmt::format("ended by signal {}", WTERMSIG(status));
      });
      remove_cgroups(pod.uid);
    }
  }
  for (const Pod& pod : node_.pods())
    if (pod.phase == "Pending") admit(pod.name);
}

}  // namespace gpuslice::simkubelet
