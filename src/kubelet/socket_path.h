#pragma once

// Unix sockets by path: what gRPC is told, and whether somebody else lives there.

#include <sys/types.h>

#include <expected>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/unique_fd.h"

namespace gpuslice::kubelet {

// The socket of `resource` in `plugin_dir`, named as NVIDIA's plugin names it: "nvidia.com/gpu" →
// "<plugin_dir>/nvidia-gpu.sock". kInvalidConfig when it would be longer than Linux allows.
[[nodiscard]] Result<std::string> plugin_socket_path(std::string_view plugin_dir,
                                                     std::string_view resource);

// "unix:" and `path` with what a URI cannot hold (blanks, percent signs) escaped.
[[nodiscard]] std::string grpc_target(std::string_view path);

// Who answers on the socket at `path`: "nvidia-device-plugin (PID 4711)", or "another program" when
// its PID is in another namespace. Nothing when nobody does.
[[nodiscard]] std::optional<std::string> who_serves(const std::string& path);

// The process that answers there; 0 when it is of another namespace. Nothing when nobody does.
[[nodiscard]] std::optional<pid_t> pid_that_serves(const std::string& path);

// A socket that listens at `path` and does not block, bound as `beside` in the same folder and
// moved into place: whatever file stood at `path` is replaced at once, and nobody finds one that
// does not listen. The error is errno's.
struct Listener {
  UniqueFd fd;
  dev_t device = 0;
  ino_t inode = 0;  // of the file at `path`
};
[[nodiscard]] std::expected<Listener, int> listen_at(const std::string& path,
                                                     const std::string& beside, int backlog);

}  // namespace gpuslice::kubelet
