#include "agent/gpu_memo.h"

#include "base/text.h"

namespace gpuslice::agent {
namespace {
constexpr std::string_view kHead = "gpuslice-gpus 1 ";
constexpr size_t kMostGpus = 256;
}  // namespace

std::string format_gpu_memo(const std::vector<ports::Gpu>& gpus, std::string_view boot_id) {
  std::string out = fmt::format("{}{}\n", kHead, boot_id);
  for (const ports::Gpu& gpu : gpus)
    out += fmt::format("{} {} {} {}\n", gpu.index.value, gpu.minor.value, gpu.numa_node, gpu.uuid);
  return out;
}

Result<std::vector<ports::Gpu>> parse_gpu_memo(std::string_view text, std::string_view boot_id) {
  if (!text.starts_with(kHead) || !text.ends_with("\n"))
    return fail(Code::kCorrupt, "it is no whole memo of this version");
  text.remove_suffix(1);
  std::vector<ports::Gpu> gpus;
  bool head = true;
  for (const std::string_view line : split(text, '\n')) {
    if (head) {
      head = false;
      if (line.substr(kHead.size()) != boot_id) return gpus;
      continue;
    }
    const auto words = split(line, ' ');
    const auto index = parse_u64(words[0]);
    const auto minor = words.size() == 4 ? parse_u64(words[1]) : std::nullopt;
    const auto numa = words.size() == 4
                          ? words[2] == "-1" ? std::optional<uint64_t>(0) : parse_u64(words[2])
                          : std::nullopt;
    if (!index || !minor || !numa || *index > kMostGpus || words[3].empty() ||
        gpus.size() >= kMostGpus)
      return fail(Code::kCorrupt, "line \"{}\" is no GPU", json_escape(line.substr(0, 80)));
    ports::Gpu gpu;
    gpu.index = GpuIndex{static_cast<uint32_t>(*index)};
    gpu.minor = GpuMinor{static_cast<uint32_t>(*minor)};
    gpu.numa_node = words[2] == "-1" ? -1 : static_cast<int64_t>(*numa);
    gpu.uuid = std::string(words[3]);
    gpus.push_back(std::move(gpu));
  }
  return gpus;
}

}  // namespace gpuslice::agent
