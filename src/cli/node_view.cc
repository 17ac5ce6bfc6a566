#include "cli/node_view.h"

namespace gpuslice::cli {

Result<NodeView> read_node(ports::Nvml& nvml, ports::Detail detail) {
  TRY(nvml.open());
  NodeView view;
  const auto read = [&]() -> Status {
    TRY_ASSIGN(view.driver, nvml.driver());
    TRY_ASSIGN(const uint32_t count, nvml.gpu_count());
    for (uint32_t i = 0; i < count; ++i) {
      auto gpu = nvml.gpu(GpuIndex{i}, detail);
      if (gpu)
        view.gpus.push_back(std::move(*gpu));
      else
        view.silent.push_back({i, std::move(gpu).error()});
    }
    return {};
  };
  const Status status = read();
  nvml.close();
  if (!status) return std::unexpected(status.error());
  return view;
}

}  // namespace gpuslice::cli
