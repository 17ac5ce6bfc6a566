#pragma once

// The page at "/": what this node shares, as plain HTML that works without JavaScript and looks
// again by itself. Pure: a model goes in, bytes come out.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace gpuslice::http {

// More rows than this of one table are cut, and the page says how many were left out.
inline constexpr size_t kMaxRows = 2000;
// The page asks to be loaded again after this many seconds; sooner while nothing is known of any
// GPU's use: a look at the page is what has it asked for.
inline constexpr int kRefreshSeconds = 5;
inline constexpr int kRefreshSoonSeconds = 1;

struct PageGpu {
  uint32_t index = 0;
  std::string uuid;
  std::string name;
  std::string health;                       // "healthy", or why not
  std::optional<uint64_t> memory_used_mib;  // not known: nobody has looked lately
  uint64_t memory_total_mib = 0;
  std::optional<uint32_t> utilisation_percent;
};

struct PageSlice {
  std::string resource;  // "nvidia.com/gpu"
  std::string id;        // "GPU-…::0"
  std::string gpu;       // "0", or "0 (MIG 1g.5gb)"
  std::string health;
  std::string pod;  // "namespace/name", or empty when nobody holds it
};

struct PagePod {
  std::string name;  // "namespace/name"
  std::string container;
  std::string resource;
  std::vector<std::string> ids;
};

struct PageModel {
  std::string version;
  std::string driver;         // driver version, or why there is none
  std::string state;          // "ready", or why not
  std::string configuration;  // where it comes from, and its generation
  std::string problem;        // the last configuration error, or empty
  std::string mig;            // which layout is wanted and what became of it; empty: none is
  std::string mig_problem;    // why the GPUs are not as wanted, or empty
  std::vector<PageGpu> gpus;
  std::vector<PageSlice> slices;
  std::vector<PagePod> pods;
};

[[nodiscard]] std::string page(const PageModel& model);

// `text` with the five characters that mean something in HTML replaced.
[[nodiscard]] std::string html_escape(std::string_view text);

}  // namespace gpuslice::http
