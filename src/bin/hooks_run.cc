#include "bin/hooks_run.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace gpuslice::bin {
namespace {

Status run_hook(const std::string& point, const config::Hook& hook,
                const std::map<std::string, std::string>& envs) {
  std::map<std::string, std::string> all;
  for (char** entry = ::environ; *entry != nullptr; ++entry) {
    const std::string text(*entry);
    const size_t equals = text.find('=');
    if (equals != std::string::npos) all[text.substr(0, equals)] = text.substr(equals + 1);
  }
  for (const auto& [name, value] : envs) all[name] = value;
  for (const auto& [name, value] : hook.envs) all[name] = value;
  std::vector<std::string> words = {hook.command};
  words.insert(words.end(), hook.args.begin(), hook.args.end());
  std::vector<std::string> settings;
  for (const auto& [name, value] : all) settings.push_back(fmt::format("{}={}", name, value));
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (std::string& setting : settings) environment.push_back(setting.data());
  environment.push_back(nullptr);

  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  if (!hook.workdir.empty()) ::posix_spawn_file_actions_addchdir_np(&actions, hook.workdir.c_str());
  pid_t pid = 0;
  const int failed = ::posix_spawnp(&pid, hook.command.c_str(), &actions, nullptr, argv.data(),
                                    environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0)
    return fail(Code::kFailed, "hook {}: {}: cannot be run: {}", point, hook.command,
                std::strerror(failed));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0)
    if (errno != EINTR)
      return fail(Code::kFailed, "hook {}: {}: {}", point, hook.command, std::strerror(errno));
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return {};
  return fail(Code::kFailed, "hook {}: {}: {}", point, hook.command,
              WIFEXITED(status) ? fmt::format("ended with exit code {}", WEXITSTATUS(status))
                                : fmt::format("was killed by signal {}", WTERMSIG(status)));
}

}  // namespace

Status run_hooks(const std::string& point, const std::vector<config::Hook>& hooks,
                 const std::map<std::string, std::string>& envs) {
  for (const config::Hook& hook : hooks) TRY(run_hook(point, hook, envs));
  return {};
}

}  // namespace gpuslice::bin
