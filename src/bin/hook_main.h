#pragma once

// `gpuslice hook …`: what our CDI specs ask a container runtime to run before a container starts
// (createContainer): the OCI state comes on the standard input, the container's root is what its
// bundle names. A container's image is a stranger's: nothing is followed out of that root.
//
//   create-symlinks --link TARGET::PATH …   links beside the driver's libraries
//   update-ldcache --folder FOLDER …        the loader's cache knows the libraries in these folders
//
// A root that is our own is left alone (exit 0): then there is no container.

#include <span>
#include <string>
#include <vector>

#include "base/result.h"

namespace gpuslice::bin {

struct HookCommand {
  enum class What { kCreateSymlinks, kUpdateLdcache } what = What::kCreateSymlinks;
  struct Link {
    std::string target, path;
    friend bool operator==(const Link&, const Link&) = default;
  };
  std::vector<Link> links;
  std::vector<std::string> folders;
};

// `args`: what stands after "hook". kUsage.
[[nodiscard]] Result<HookCommand> parse_hook_command(std::span<const std::string> args);

// Where the container's root is on this machine. kInvalidConfig when the state or its bundle's
// config.json does not say.
[[nodiscard]] Result<std::string> container_root(const std::string& state_json);

// `root` as container_root() told. Nothing is changed outside of it, whatever links it holds.
[[nodiscard]] Status create_symlinks(const std::string& root,
                                     const std::vector<HookCommand::Link>& links);
// Writes /etc/ld.so.conf.d/00-gpuslice.conf in the container and lets this machine's ldconfig make
// its cache, confined to `root`. Nothing to do where the container has no loader's folder /etc.
[[nodiscard]] Status update_ldcache(const std::string& root,
                                    const std::vector<std::string>& folders);

// A copy of this program at `path`, for runtimes that start hooks on the host while the agent lives
// in a container. One that is the same already stays.
[[nodiscard]] Status install_self(const std::string& path);

[[nodiscard]] Result<int> run_hook(const std::vector<std::string>& args);

}  // namespace gpuslice::bin
