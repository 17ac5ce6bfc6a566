#include "metrics/family.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <set>

#include "base/check.h"

namespace gpuslice::metrics {
namespace {

bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

void append_number(std::string& out, double value) {
  if (std::isnan(value)) {
    out += "NaN";
  } else if (std::isinf(value)) {
    out += value > 0 ? "+Inf" : "-Inf";
  } else if (value == std::floor(value) && std::fabs(value) < 1e15) {
    fmt::format_to(std::back_inserter(out), "{}", static_cast<int64_t>(value));
  } else {
    fmt::format_to(std::back_inserter(out), "{}", value);
  }
}

// Cut at kMaxLabelValueBytes without splitting a UTF-8 sequence.
std::string_view bounded(std::string_view value) {
  if (value.size() <= kMaxLabelValueBytes) return value;
  size_t end = kMaxLabelValueBytes;
  while (end > 0 && (static_cast<unsigned char>(value[end]) & 0xC0u) == 0x80u) --end;
  return value.substr(0, end);
}

void append_escaped(std::string& out, std::string_view value) {
  for (const char c : value) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '"') {
      out += "\\\"";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
}

void append_help(std::string& out, std::string_view help) {
  for (const char c : help) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
}

std::string_view type_name(Type type) {
  switch (type) {
    case Type::kCounter:
      return "counter";
    case Type::kGauge:
      return "gauge";
    case Type::kHistogram:
      return "histogram";
  }
  return "untyped";
}

// `extra` is one more label ("le"), already formatted, or empty.
void append_series(std::string& out, std::string_view name, std::string_view suffix,
                   const std::vector<Label>& labels, std::string_view extra, double value) {
  out += name;
  out += suffix;
  if (!labels.empty() || !extra.empty()) {
    out += '{';
    bool first = true;
    for (const Label& label : labels) {
      CHECK(valid_label_name(label.name), "metric {}: label name '{}'", name, label.name);
      if (!first) out += ',';
      first = false;
      out += label.name;
      out += "=\"";
      append_escaped(out, bounded(label.value));
      out += '"';
    }
    if (!extra.empty()) {
      if (!first) out += ',';
      out += extra;
    }
    out += '}';
  }
  out += ' ';
  append_number(out, value);
  out += '\n';
}

void append_histogram(std::string& out, const Family& family, const HistogramSample& sample) {
  CHECK(sample.counts.size() == sample.bounds.size() + 1, "metric {}: {} counts for {} bounds",
        family.name, sample.counts.size(), sample.bounds.size());
  uint64_t seen = 0;
  std::string le;
  for (size_t i = 0; i < sample.counts.size(); ++i) {
    seen += sample.counts[i];
    le = "le=\"";
    append_number(le, i < sample.bounds.size() ? sample.bounds[i] : HUGE_VAL);
    le += '"';
    append_series(out, family.name, "_bucket", sample.labels, le, static_cast<double>(seen));
  }
  append_series(out, family.name, "_sum", sample.labels, "", sample.sum);
  append_series(out, family.name, "_count", sample.labels, "", static_cast<double>(seen));
}

}  // namespace

bool valid_metric_name(std::string_view name) {
  if (name.empty() || digit(name[0])) return false;
  return std::all_of(name.begin(), name.end(),
                     [](char c) { return letter(c) || digit(c) || c == ':'; });
}

bool valid_label_name(std::string_view name) {
  if (name.empty() || digit(name[0]) || name.starts_with("__")) return false;
  return std::all_of(name.begin(), name.end(), [](char c) { return letter(c) || digit(c); });
}

std::string number(double value) {
  std::string out;
  append_number(out, value);
  return out;
}

std::string text(std::span<const Family> families) {
  std::string out;
  std::set<std::string_view> names;
  uint64_t dropped = 0;
  for (const Family& family : families) {
    CHECK(valid_metric_name(family.name), "metric name '{}'", family.name);
    CHECK(names.insert(family.name).second, "metric {} comes twice", family.name);
    if (family.samples.empty() && family.histograms.empty()) continue;
    out += "# HELP ";
    out += family.name;
    out += ' ';
    append_help(out, family.help);
    out += "\n# TYPE ";
    out += family.name;
    out += ' ';
    out += type_name(family.type);
    out += '\n';
    const size_t plain = std::min(family.samples.size(), kMaxSeriesPerFamily);
    for (size_t i = 0; i < plain; ++i) {
      append_series(out, family.name, "", family.samples[i].labels, "", family.samples[i].value);
    }
    const size_t histograms = std::min(family.histograms.size(), kMaxSeriesPerFamily);
    for (size_t i = 0; i < histograms; ++i) append_histogram(out, family, family.histograms[i]);
    dropped += family.samples.size() - plain + family.histograms.size() - histograms;
  }
  if (dropped > 0) {
    out +=
        "# HELP gpuslice_metrics_dropped_series Series that did not fit the limit of a family.\n"
        "# TYPE gpuslice_metrics_dropped_series gauge\n";
    append_series(out, "gpuslice_metrics_dropped_series", "", {}, "", static_cast<double>(dropped));
  }
  return out;
}

}  // namespace gpuslice::metrics
