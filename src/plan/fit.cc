#include "plan/fit.h"

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>

namespace gpuslice::plan {
namespace {

Engines budget_of(std::span<const Kind> kinds) {
  Engines most;
  for (const Kind& kind : kinds) {
    most.dec = std::max(most.dec, kind.engines.dec);
    most.enc = std::max(most.enc, kind.engines.enc);
    most.jpeg = std::max(most.jpeg, kind.engines.jpeg);
    most.ofa = std::max(most.ofa, kind.engines.ofa);
  }
  return most;
}

Engines plus(Engines a, const Engines& b) {
  a.dec += b.dec;
  a.enc += b.enc;
  a.jpeg += b.jpeg;
  a.ofa += b.ofa;
  return a;
}

bool within(const Engines& used, const Engines& budget) {
  return used.dec <= budget.dec && used.enc <= budget.enc && used.jpeg <= budget.jpeg &&
         used.ofa <= budget.ofa;
}

Cost plus(Cost a, const Cost& b) {
  a.destroyed += b.destroyed;
  a.inner_destroyed += b.inner_destroyed;
  a.created += b.created;
  a.inner_created += b.inner_created;
  return a;
}

auto order(const Cost& c) {
  return std::tie(c.destroyed, c.inner_destroyed, c.created, c.inner_created);
}

class Search {
 public:
  explicit Search(const FitProblem& problem)
      : problem_(problem),
        budget_(budget_of(problem.kinds)),
        at_(problem.items.size()),
        keeps_(problem.items.size()),
        count_(problem.kinds.size(), 0) {
    sequence_.resize(problem.items.size());
    std::iota(sequence_.begin(), sequence_.end(), size_t{0});
    std::sort(sequence_.begin(), sequence_.end(),
              [&](size_t a, size_t b) { return key(a) < key(b); });
    for (const Item& item : problem.items)
      variant_count_ = std::max(variant_count_, item.variant + 1);
    memo_.assign(problem.lying.size() * variant_count_, Memo{});
    for (const Kind& kind : problem.kinds) {
      std::vector<Span> sorted = kind.placements;
      std::sort(sorted.begin(), sorted.end());
      placements_.push_back(std::move(sorted));
    }
  }

  std::optional<Fit> run(uint64_t& visited) {
    place(0, 0, Engines{}, Cost{});
    visited += visited_;
    return best_;
  }

 private:
  struct Memo {
    bool known = false;
    std::optional<Cost> cost;
  };

  // Larger items first: they have the fewest places. Interchangeable items stand side by side.
  std::tuple<int64_t, size_t, std::optional<Span>, size_t> key(size_t item) const {
    const Item& i = problem_.items[item];
    const std::vector<Span>& spans = problem_.kinds[i.kind].placements;
    const int64_t size = spans.empty() ? 0 : static_cast<int64_t>(spans.front().size);
    return {-size, i.kind, i.fixed, i.variant};
  }

  const std::optional<Cost>& keep_cost(size_t lying, size_t variant) {
    Memo& memo = memo_[lying * variant_count_ + variant];
    if (!memo.known) memo = {true, problem_.keep_cost(lying, variant)};
    return memo.cost;
  }

  std::optional<size_t> lying_at(size_t kind, Span span) const {
    for (size_t i = 0; i < problem_.lying.size(); ++i)
      if (problem_.lying[i].kind == kind && problem_.lying[i].placement == span) return i;
    return std::nullopt;
  }

  void place(size_t depth, uint64_t mask, Engines engines, const Cost& cost) {
    if (best_ && order(best_cost_) < order(cost)) return;  // costs only grow
    if (depth == sequence_.size()) {
      finish(cost);
      return;
    }
    const size_t index = sequence_[depth];
    const Item& item = problem_.items[index];
    const Kind& kind = problem_.kinds[item.kind];
    engines = plus(engines, kind.engines);
    if (count_[item.kind] >= kind.most || !within(engines, budget_)) return;
    const bool twin = depth > 0 && key(sequence_[depth - 1]) == key(index) && !item.fixed;
    ++count_[item.kind];
    for (const Span span : placements_[item.kind]) {
      if (item.fixed && *item.fixed != span) continue;
      if (twin && span <= at_[sequence_[depth - 1]]) continue;  // equal items in rising order only
      if ((mask & mask_of(span)) != 0) continue;
      at_[index] = span;
      keeps_[index] = lying_at(item.kind, span);
      Cost next = cost;
      if (keeps_[index]) {
        const std::optional<Cost>& kept = keep_cost(*keeps_[index], item.variant);
        if (!kept) continue;  // keeping it so would touch something busy
        next = plus(next, *kept);
      } else {
        next = plus(next, problem_.create_cost(item.variant));
      }
      place(depth + 1, mask | mask_of(span), engines, next);
    }
    --count_[item.kind];
  }

  void finish(const Cost& placed) {
    ++visited_;
    Cost cost = placed;
    for (size_t i = 0; i < problem_.lying.size(); ++i) {
      if (std::find(keeps_.begin(), keeps_.end(), std::optional<size_t>(i)) != keeps_.end())
        continue;
      if (problem_.lying[i].busy) return;
      cost = plus(cost, problem_.destroy_cost(i));
    }
    if (best_ && order(best_cost_) < order(cost)) return;
    std::vector<Used> used;
    used.reserve(at_.size());
    for (size_t i = 0; i < at_.size(); ++i) used.push_back({problem_.items[i].kind, at_[i]});
    const uint32_t open = left_open(problem_.kinds, used);
    std::vector<Span> positions;
    positions.reserve(at_.size());
    for (const size_t i : sequence_) positions.push_back(at_[i]);
    const bool better = !best_ || order(cost) < order(best_cost_) ||
                        (open > best_open_ || (open == best_open_ && positions < best_positions_));
    if (!better) return;
    best_ = Fit{at_, keeps_};
    best_cost_ = cost;
    best_open_ = open;
    best_positions_ = std::move(positions);
  }

  const FitProblem& problem_;
  Engines budget_;
  std::vector<size_t> sequence_;
  std::vector<std::vector<Span>> placements_;
  std::vector<Span> at_;
  std::vector<std::optional<size_t>> keeps_;
  std::vector<uint32_t> count_;
  size_t variant_count_ = 1;
  std::vector<Memo> memo_;
  std::optional<Fit> best_;
  Cost best_cost_;
  uint32_t best_open_ = 0;
  std::vector<Span> best_positions_;
  uint64_t visited_ = 0;
};

}  // namespace

uint32_t left_open(std::span<const Kind> kinds, std::span<const Used> used) {
  const Engines budget = budget_of(kinds);
  uint64_t mask = 0;
  Engines engines;
  for (const Used& u : used) {
    mask |= mask_of(u.placement);
    engines = plus(engines, kinds[u.kind].engines);
  }
  uint32_t open = 0;
  for (size_t k = 0; k < kinds.size(); ++k) {
    const auto of_kind =
        std::count_if(used.begin(), used.end(), [&](const Used& u) { return u.kind == k; });
    if (static_cast<uint32_t>(of_kind) >= kinds[k].most ||
        !within(plus(engines, kinds[k].engines), budget))
      continue;
    for (const Span span : kinds[k].placements)
      if ((mask & mask_of(span)) == 0) ++open;
  }
  return open;
}

std::optional<Fit> best_fit(const FitProblem& problem, uint64_t& visited) {
  return Search(problem).run(visited);
}

}  // namespace gpuslice::plan
