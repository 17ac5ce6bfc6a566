#pragma once

// Metric families as values, and Prometheus' text format (version 0.0.4) of them.
//
// Pure: a snapshot of families goes in, bytes come out; the same families give the same bytes.
// Series that are no longer in the snapshot are no longer in the text, so nothing goes stale.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gpuslice::metrics {

// A label value longer than this is cut (at a UTF-8 boundary): a name that somebody else chose must
// not blow up a scrape.
inline constexpr size_t kMaxLabelValueBytes = 256;
// A family with more series than this is cut there, and text() says so in
// `gpuslice_metrics_dropped_series`.
inline constexpr size_t kMaxSeriesPerFamily = 50'000;

enum class Type { kCounter, kGauge, kHistogram };

struct Label {
  std::string name;
  std::string value;
  friend bool operator==(const Label&, const Label&) = default;
};

struct Sample {
  std::vector<Label> labels;  // written in this order
  double value = 0;
};

// The counts of one histogram series. counts[i] is the number of observations in bucket i alone
// (not cumulative); the last one is the bucket up to +Inf, so counts.size() == bounds.size() + 1.
struct HistogramSample {
  std::vector<Label> labels;
  std::vector<double> bounds;  // upper bounds, inclusive, ascending
  std::vector<uint64_t> counts;
  double sum = 0;
};

struct Family {
  std::string name;  // [a-zA-Z_:][a-zA-Z0-9_:]*; counters end in _total
  std::string help;
  Type type = Type::kGauge;
  std::vector<Sample> samples;              // counters and gauges
  std::vector<HistogramSample> histograms;  // histograms
};

// The families as Prometheus reads them. A family without series is left out. CHECKs that names are
// valid and that no family comes twice: both are bugs of ours.
[[nodiscard]] std::string text(std::span<const Family> families);

// Whether `name` may be a metric name (colons allowed) or a label name (no colons, not "__…").
[[nodiscard]] bool valid_metric_name(std::string_view name);
[[nodiscard]] bool valid_label_name(std::string_view name);

// A number as the text format writes it: the shortest form that reads back the same; "+Inf",
// "-Inf", "NaN".
[[nodiscard]] std::string number(double value);

}  // namespace gpuslice::metrics
