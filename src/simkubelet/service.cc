#include "simkubelet/service.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "simkubelet/runtime.h"

namespace gpuslice::simkubelet {
namespace {

using Json = nlohmann::json;

MonotonicTime now() {
  timespec ts{};
  ::clock_gettime(CLOCK_MONOTONIC, &ts);
  return MonotonicTime(std::chrono::seconds(ts.tv_sec) + std::chrono::nanoseconds(ts.tv_nsec));
}

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
  try {
    const Json json = Json::parse(request);
    const std::string verb = json.at("verb");
    if (verb == "run") return run_pod(request);
    if (verb == "node") {
      const Quantities q = node_.quantities(now());
      return Json{{"capacity", quantities(q.capacity)}, {"allocatable", quantities(q.allocatable)}}
          .dump();
    }
    if (verb == "ls") {
      Json pods = Json::array();
      for (const Pod& pod : node_.pods()) pods.push_back(pod_json(pod));
      return Json{{"pods", pods}}.dump(-1, ' ', false, Json::error_handler_t::replace);
    }
    if (verb == "rm") {
      const bool all = json.value("all", false);
      std::vector<std::string> names = json.value("names", std::vector<std::string>());
      if (all)
        for (const Pod& pod : node_.pods()) names.push_back(pod.name);
      for (const std::string& name : names) {
        const auto pods = node_.pods();
        const auto it =
            std::find_if(pods.begin(), pods.end(), [&](const Pod& p) { return p.name == name; });
        if (it == pods.end()) return error_answer("there is no pod " + name);
        end_pod(*it);
        node_.remove_pod(name);
        wishes_.erase(name);
      }
      return "{}";
    }
    if (verb == "restart") {
      const Status status = plugins_.restart();
      return status ? "{}" : error_answer(status.error().message);
    }
    return error_answer("unknown verb " + verb);
  } catch (const std::exception& e) {
    return error_answer(std::string("malformed request: ") + e.what());
  }
}

std::string Service::run_pod(const std::string& request) {
  const Json json = Json::parse(request);
  Pod pod;
  pod.name = json.at("name");
  if (pod.name.empty() || pod.name.size() > 253)
    return error_answer("a pod's name has 1 to 253 characters");
  for (const auto& [name, count] : json.at("request").items())
    pod.resources[name] = count.get<uint32_t>();
  pod.uid = fmt::format("{:08x}-0000-4000-8000-{:012x}", random_.next() & 0xffffffff,
                        (random_.next() ^ static_cast<uint64_t>(::getpid())) & 0xffffffffffff);
  Wish wish;
  wish.command = json.value("command", std::vector<std::string>());
  if (wish.command.empty()) {
    wish.command = {default_program(), "work"};
    const std::string work = json.value("work", std::string());
    for (const std::string_view word : split(work, ' '))
      if (!word.empty()) wish.command.emplace_back(word);
  }
  if (const Status added = node_.add_pod(pod); !added) return error_answer(added.error().message);
  wishes_[pod.name] = std::move(wish);
  admit(pod.name);
  return "{}";
}

void Service::fail_pod(const std::string& name, const std::string& reason,
                       const std::string& message) {
  node_.update_pod(name, [&](Pod& pod) {
    pod.phase = "Failed";
    pod.reason = reason;
    pod.message = message;
    pod.device_ids.clear();
  });
}

void Service::admit(const std::string& name) {
  const auto pods = node_.pods();
  const auto it =
      std::find_if(pods.begin(), pods.end(), [&](const Pod& p) { return p.name == name; });
  if (it == pods.end() || it->phase != "Pending") return;
  Launch launch;
  launch.root = command_.root;
  launch.uid = it->uid;
  launch.command = wishes_[name].command;
  for (const auto& [resource, count] : it->resources) {
    const auto choice = node_.choice(resource, count);
    if (!choice) {
      // The scheduler's part: it stays pending and is tried again when devices come.
      node_.update_pod(name, [&](Pod& pod) {
        pod.reason = "Unschedulable";
        pod.message = choice.error().message;
      });
      return;
    }
    std::vector<std::string> preferred;
    if (choice->preferred_available) {
      auto answer = plugins_.preferred(choice->endpoint, choice->free, count);
      if (!answer)
        return fail_pod(
            name, "UnexpectedAdmissionError",
            fmt::format("Allocate failed due to {}, which is unexpected", answer.error().message));
      preferred = std::move(*answer);
    }
    const std::vector<std::string> ids = Node::take(*choice, preferred, count);
    node_.update_pod(name, [&](Pod& pod) { pod.device_ids[resource] = ids; });
    const auto allocated = plugins_.allocate(choice->endpoint, ids);
    if (!allocated)
      return fail_pod(
          name, "UnexpectedAdmissionError",
          fmt::format("Allocate failed due to {}, which is unexpected", allocated.error().message));
    launch.allocated.envs.insert(allocated->envs.begin(), allocated->envs.end());
    launch.allocated.mounts.insert(launch.allocated.mounts.end(), allocated->mounts.begin(),
                                   allocated->mounts.end());
    launch.allocated.device_nodes.insert(launch.allocated.device_nodes.end(),
                                         allocated->device_nodes.begin(),
                                         allocated->device_nodes.end());
  }
  const auto pid = simkubelet::launch(launch);
  if (!pid) return fail_pod(name, "CreateContainerError", pid.error().message);
  node_.update_pod(name, [&](Pod& pod) {
    pod.phase = "Running";
    pod.reason.clear();
    pod.message.clear();
    pod.pid = *pid;
    pod.env = launch.allocated.envs;
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
