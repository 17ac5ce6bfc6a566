#include "bin/hook_main.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/text.h"
#include "base/unique_fd.h"
#include "host/files.h"

namespace gpuslice::bin {
namespace {

using Json = nlohmann::json;

constexpr size_t kMaxStateBytes = 1024 * 1024;
constexpr size_t kMaxConfigBytes = 16 * 1024 * 1024;
constexpr const char* kConf = "00-gpuslice.conf";
constexpr std::string_view kVerbs[] = {"create-symlinks", "update-ldcache"};

std::unexpected<Error> os_error(const std::string& what) {
  const int error = errno;
  return fail(host::code_of_errno(error), "hook: {}: {}", what, std::strerror(error));
}

// Opens a path inside the container: links are followed as the container would, never out of it.
UniqueFd open_inside(int root, const std::string& path, uint64_t flags, uint64_t mode = 0) {
  open_how how{};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;
  return UniqueFd(static_cast<int>(::syscall(SYS_openat2, root, path.c_str(), &how, sizeof how)));
}

Result<UniqueFd> open_root(const std::string& root) {
  UniqueFd fd(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return os_error("the container's root " + root);
  return fd;
}

// The folder `path` inside the container, made where it is not there.
Result<UniqueFd> folder_inside(int root, const std::string& path) {
  std::string so_far;
  UniqueFd at = open_inside(root, "/", O_PATH | O_DIRECTORY);
  if (!at.valid()) return os_error("the container's root");
  for (const std::string_view part : split(path, '/')) {
    if (part.empty()) continue;
    so_far += "/" + std::string(part);
    UniqueFd next = open_inside(root, so_far, O_PATH | O_DIRECTORY);
    if (!next.valid() && errno == ENOENT) {
      if (::mkdirat(at.get(), std::string(part).c_str(), 0755) != 0 && errno != EEXIST)
        return os_error(so_far + " cannot be made in the container");
      next = open_inside(root, so_far, O_PATH | O_DIRECTORY);
    }
    if (!next.valid()) return os_error(so_far + " in the container");
    at = std::move(next);
  }
  return at;
}

Status make_link(int root, const HookCommand::Link& link) {
  const size_t slash = link.path.rfind('/');
  const std::string name = link.path.substr(slash + 1);
  TRY_ASSIGN(const UniqueFd folder, folder_inside(root, link.path.substr(0, slash)));
  std::array<char, 4096> old{};
  const ssize_t length = ::readlinkat(folder.get(), name.c_str(), old.data(), old.size());
  if (length >= 0) {
    if (std::string_view(old.data(), static_cast<size_t>(length)) == link.target) return {};
    if (::unlinkat(folder.get(), name.c_str(), 0) != 0)
      return os_error(link.path + " cannot be replaced");
  } else if (errno == EINVAL) {
    return {};  // a file of the image's own: it stays
  }
  if (::symlinkat(link.target.c_str(), folder.get(), name.c_str()) != 0 && errno != EEXIST)
    return os_error(link.path + " cannot be linked to " + link.target);
  return {};
}

Status write_conf(int root, const std::vector<std::string>& folders) {
  TRY_ASSIGN(const UniqueFd folder, folder_inside(root, "/etc/ld.so.conf.d"));
  // A new file in place of whatever the image has under that name: a link there is not followed.
  if (::unlinkat(folder.get(), kConf, 0) != 0 && errno != ENOENT)
    return os_error(std::string("/etc/ld.so.conf.d/") + kConf);
  const UniqueFd file(
      ::openat(folder.get(), kConf, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0644));
  const std::string text = join(folders, "\n") + "\n";
  if (!file.valid() ||
      ::write(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return os_error(std::string("/etc/ld.so.conf.d/") + kConf);
  return {};
}

// The same folder: a "container" whose root is ours is none.
bool is_own_root(const std::string& root) {
  struct stat a{}, b{};
  return ::stat(root.c_str(), &a) == 0 && ::stat("/", &b) == 0 && a.st_dev == b.st_dev &&
         a.st_ino == b.st_ino;
}

Result<std::string> ldconfig() {
  // Ubuntu's /sbin/ldconfig is a script around ldconfig.real, which a container may not have.
  for (const char* path :
       {"/sbin/ldconfig.real", "/usr/sbin/ldconfig.real", "/sbin/ldconfig", "/usr/sbin/ldconfig"})
    if (::access(path, X_OK) == 0) return std::string(path);
  return fail(Code::kNotFound,
              "hook: update-ldcache: this machine has no ldconfig; install it, or leave the hook "
              "out with --cdi-disable-hooks update-ldcache");
}

Result<std::string> read_all_input() {
  std::string text;
  std::array<char, 8192> buffer{};
  for (;;) {
    const ssize_t n = ::read(STDIN_FILENO, buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return os_error("the container's state on the standard input");
    if (n == 0) return text;
    text.append(buffer.data(), static_cast<size_t>(n));
    if (text.size() > kMaxStateBytes)
      return fail(Code::kInvalidConfig, "hook: the container's state is longer than {} bytes",
                  kMaxStateBytes);
  }
}

// A text member of an object; "" where it is not there.
std::string text_of(const Json& json, const char* key) {
  if (!json.is_object()) return "";
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : "";
}

}  // namespace

Result<HookCommand> parse_hook_command(std::span<const std::string> args) {
  if (args.empty()) return fail(Code::kUsage, "hook: which one? create-symlinks or update-ldcache");
  HookCommand command;
  const bool links = args[0] == "create-symlinks";
  if (!links && args[0] != "update-ldcache") {
    const auto near = nearest(args[0], kVerbs);
    return fail(Code::kUsage, "hook: unknown hook '{}'{}", args[0],
                near ? fmt::format("; did you mean '{}'?", *near) : "");
  }
  command.what = links ? HookCommand::What::kCreateSymlinks : HookCommand::What::kUpdateLdcache;
  const std::string_view option = links ? "--link" : "--folder";
  for (size_t i = 1; i < args.size(); i += 2) {
    if (args[i] != option || i + 1 >= args.size())
      return fail(Code::kUsage, "hook {}: '{}': it takes {} VALUE, as often as needed", args[0],
                  args[i], option);
    const std::string& value = args[i + 1];
    if (!links) {
      if (!value.starts_with("/") || value.find('\n') != std::string::npos)
        return fail(Code::kUsage, "hook {}: --folder '{}' is no absolute path", args[0],
                    json_escape(value));
      command.folders.push_back(value);
      continue;
    }
    const size_t at = value.find("::");
    const std::string path = at == std::string::npos ? "" : value.substr(at + 2);
    if (at == 0 || !path.starts_with("/") || path.ends_with("/"))
      return fail(Code::kUsage, "hook {}: --link '{}' is no TARGET::/PATH", args[0],
                  json_escape(value));
    command.links.push_back({value.substr(0, at), path});
  }
  return command;
}

Result<std::string> container_root(const std::string& state_json) {
  const Json state = Json::parse(state_json, nullptr, false);
  const std::string bundle = text_of(state, "bundle");
  if (!bundle.starts_with("/"))
    return fail(Code::kInvalidConfig,
                "hook: the standard input is no OCI state with a bundle: a container runtime runs "
                "this, not a person");
  TRY_ASSIGN(const std::string text, host::read_file(bundle + "/config.json", kMaxConfigBytes));
  const Json config = Json::parse(text, nullptr, false);
  const std::string root =
      config.is_object() && config.contains("root") ? text_of(config["root"], "path") : "";
  if (root.empty()) return fail(Code::kInvalidConfig, "hook: {}/config.json names no root", bundle);
  return root.starts_with("/") ? root : bundle + "/" + root;
}

Status create_symlinks(const std::string& root, const std::vector<HookCommand::Link>& links) {
  TRY_ASSIGN(const UniqueFd fd, open_root(root));
  for (const HookCommand::Link& link : links) TRY(make_link(fd.get(), link));
  return {};
}

Status update_ldcache(const std::string& root, const std::vector<std::string>& folders) {
  TRY_ASSIGN(const UniqueFd fd, open_root(root));
  if (folders.empty() || !open_inside(fd.get(), "/etc", O_PATH | O_DIRECTORY).valid()) return {};
  TRY_ASSIGN(const std::string program, ldconfig());
  TRY(write_conf(fd.get(), folders));
  // -r is a chroot: neither names nor links lead out of it. The folders are named here as well, for
  // an image whose ld.so.conf includes no folder.
  std::vector<std::string> words = {program, "-r", root};
  words.insert(words.end(), folders.begin(), folders.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  char* const environment[] = {nullptr};
  pid_t pid = 0;
  if (const int error =
          ::posix_spawn(&pid, program.c_str(), nullptr, nullptr, argv.data(), environment);
      error != 0)
    return fail(Code::kFailed, "hook: {}: {}", program, std::strerror(error));
  int status = 0;
  while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
    return fail(Code::kFailed, "hook: {} -r {}: it failed; see what it wrote above", program, root);
  return {};
}

Status install_self(const std::string& path) {
  constexpr size_t kMostBytes = 256 * 1024 * 1024;
  TRY_ASSIGN(const std::string mine, host::read_file("/proc/self/exe", kMostBytes));
  const auto there = host::read_file(path, kMostBytes);
  if (there && *there == mine && ::access(path.c_str(), X_OK) == 0) return {};
  // Whole and executable before it has its name: a container may start at any moment.
  const std::string fresh = path + ".new";
  TRY(host::write_file_atomically(fresh, mine, false));
  if (::chmod(fresh.c_str(), 0755) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0)
    return os_error(path + " cannot be put in place");
  return {};
}

Result<int> run_hook(const std::vector<std::string>& args) {
  TRY_ASSIGN(const HookCommand command, parse_hook_command(args));
  TRY_ASSIGN(const std::string state, read_all_input());
  TRY_ASSIGN(const std::string root, container_root(state));
  if (is_own_root(root)) {
    fmt::print(stderr, "hook: the container's root is this machine's own; nothing is changed\n");
    return 0;
  }
  if (command.what == HookCommand::What::kCreateSymlinks)
    TRY(create_symlinks(root, command.links));
  else
    TRY(update_ldcache(root, command.folders));
  return 0;
}

}  // namespace gpuslice::bin
