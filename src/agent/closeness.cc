#include "agent/closeness.h"

#include <algorithm>
#include <map>
#include <optional>

#include "base/check.h"

namespace gpuslice::agent {
namespace {

constexpr uint32_t kPerNvlink = 100;

uint32_t pcie_score(std::optional<uint32_t> ancestor, const ClosenessGpu& a,
                    const ClosenessGpu& b) {
  if (ancestor) return *ancestor >= 50 ? 10 : 60 - *ancestor / 10 * 10;
  if (a.numa_node < 0 || b.numa_node < 0) return 0;
  return a.numa_node == b.numa_node ? 20 : 10;
}

std::optional<uint32_t> farther(std::optional<uint32_t> a, std::optional<uint32_t> b) {
  if (!a || !b) return a ? a : b;
  return std::max(*a, *b);
}

// Sums of a set while it is built. Greater is better.
struct Value {
  uint64_t inside = 0;   // of the pairs in the set
  uint64_t degrees = 0;  // of its members to all that are available: less is left torn
  [[nodiscard]] bool better_than(const Value& other) const {
    return inside != other.inside ? inside > other.inside : degrees < other.degrees;
  }
};

// Sets in lexicographic order, so of equals the first one stays.
class Search {
 public:
  Search(const Closeness& closeness, std::span<const size_t> available,
         std::span<const size_t> must, size_t count)
      : closeness_(closeness), available_(available), must_(must), count_(count) {
    for (const size_t a : available) {
      uint64_t degree = 0;
      for (const size_t b : available) degree += a == b ? 0 : closeness.score(a, b);
      degrees_.push_back(degree);
    }
  }

  std::vector<size_t> exact() {
    std::vector<size_t> chosen;
    step(0, Value(), chosen);
    return to_numbers(best_);
  }

  // From each start the nearest next one, again and again; then swaps while they help.
  std::vector<size_t> greedy() {
    for (size_t start = 0; start < available_.size(); ++start) {
      std::vector<size_t> chosen = fixed();
      if (!must_.empty() && start > 0) break;
      if (must_.empty() && count_ > 0) chosen.push_back(start);
      while (chosen.size() < count_) chosen.push_back(next(chosen));
      improve(chosen);
      std::sort(chosen.begin(), chosen.end());
      consider(chosen, value(chosen));
    }
    return to_numbers(best_);
  }

 private:
  void consider(const std::vector<size_t>& chosen, const Value& value) {
    if (found_ && !value.better_than(best_value_)) return;
    found_ = true;
    best_ = chosen;
    best_value_ = value;
  }

  [[nodiscard]] bool is_must(size_t at) const {
    return std::find(must_.begin(), must_.end(), available_[at]) != must_.end();
  }

  [[nodiscard]] uint64_t to_chosen(size_t at, const std::vector<size_t>& chosen) const {
    uint64_t sum = 0;
    for (const size_t c : chosen)
      if (c != at) sum += closeness_.score(available_[at], available_[c]);
    return sum;
  }

  void step(size_t at, Value value, std::vector<size_t>& chosen) {
    if (chosen.size() == count_) {
      // What must be in and comes later was left out.
      for (size_t rest = at; rest < available_.size(); ++rest)
        if (is_must(rest)) return;
      consider(chosen, value);
      return;
    }
    if (available_.size() - at < count_ - chosen.size()) return;
    const Value with{value.inside + to_chosen(at, chosen), value.degrees + degrees_[at]};
    chosen.push_back(at);
    step(at + 1, with, chosen);
    chosen.pop_back();
    if (!is_must(at)) step(at + 1, value, chosen);
  }

  [[nodiscard]] std::vector<size_t> fixed() const {
    std::vector<size_t> out;
    for (size_t at = 0; at < available_.size(); ++at)
      if (is_must(at)) out.push_back(at);
    return out;
  }

  [[nodiscard]] Value value(const std::vector<size_t>& chosen) const {
    Value out;
    for (size_t i = 0; i < chosen.size(); ++i) {
      out.degrees += degrees_[chosen[i]];
      for (size_t j = i + 1; j < chosen.size(); ++j)
        out.inside += closeness_.score(available_[chosen[i]], available_[chosen[j]]);
    }
    return out;
  }

  [[nodiscard]] size_t next(const std::vector<size_t>& chosen) const {
    std::optional<size_t> best;
    Value best_value;
    for (size_t at = 0; at < available_.size(); ++at) {
      if (std::find(chosen.begin(), chosen.end(), at) != chosen.end()) continue;
      const Value one{to_chosen(at, chosen), degrees_[at]};
      if (best && !one.better_than(best_value)) continue;
      best = at;
      best_value = one;
    }
    CHECK(best.has_value(), "more GPUs are asked for than are available");
    return *best;
  }

  void improve(std::vector<size_t>& chosen) const {
    for (size_t rounds = 0; rounds < available_.size(); ++rounds) {
      bool better = false;
      for (size_t& member : chosen) {
        if (is_must(member)) continue;
        for (size_t at = 0; at < available_.size(); ++at) {
          if (std::find(chosen.begin(), chosen.end(), at) != chosen.end()) continue;
          const size_t old = member;
          const uint64_t before = to_chosen(old, chosen);
          member = at;
          if (to_chosen(at, chosen) > before)
            better = true;
          else
            member = old;
        }
      }
      if (!better) return;
    }
  }

  [[nodiscard]] std::vector<size_t> to_numbers(const std::vector<size_t>& places) const {
    std::vector<size_t> out;
    for (const size_t at : places) out.push_back(available_[at]);
    return out;
  }

  const Closeness& closeness_;
  std::span<const size_t> available_, must_;
  size_t count_;
  std::vector<uint64_t> degrees_;  // by place in available_
  bool found_ = false;
  std::vector<size_t> best_;  // places in available_
  Value best_value_;
};

}  // namespace

Closeness::Closeness(std::span<const ClosenessGpu> gpus, const ports::Topology& topology)
    : size_(gpus.size()), scores_(gpus.size() * gpus.size()) {
  std::map<std::pair<GpuIndex, GpuIndex>, const ports::GpuLink*> links;
  for (const ports::GpuLink& link : topology.links) links[{link.from, link.to}] = &link;
  const auto link_of = [&](GpuIndex from, GpuIndex to) {
    const auto it = links.find({from, to});
    return it == links.end() ? ports::GpuLink() : *it->second;
  };
  const auto switched = [&](GpuIndex gpu) {
    const auto it = topology.switch_links.find(gpu);
    return it == topology.switch_links.end() ? 0U : it->second;
  };
  for (size_t a = 0; a < size_; ++a) {
    for (size_t b = a + 1; b < size_; ++b) {
      const ports::GpuLink there = link_of(gpus[a].index, gpus[b].index);
      const ports::GpuLink back = link_of(gpus[b].index, gpus[a].index);
      const uint32_t nvlinks = std::min(there.nvlinks, back.nvlinks) +
                               std::min(switched(gpus[a].index), switched(gpus[b].index));
      const uint32_t score = nvlinks * kPerNvlink +
                             pcie_score(farther(there.ancestor, back.ancestor), gpus[a], gpus[b]);
      scores_[a * size_ + b] = scores_[b * size_ + a] = score;
    }
  }
}

std::vector<size_t> nearest_set(const Closeness& closeness, std::span<const size_t> available,
                                std::span<const size_t> must, size_t count) {
  CHECK(must.size() <= count && count <= available.size(), "a set of a size that can be");
  Search search(closeness, available, must, count);
  return available.size() <= kMaxExact ? search.exact() : search.greedy();
}

}  // namespace gpuslice::agent
