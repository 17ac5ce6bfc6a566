#pragma once

// Unix sockets by path: what gRPC is told, and whether somebody else lives there.

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"

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

}  // namespace gpuslice::kubelet
