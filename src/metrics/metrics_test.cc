#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "metrics/family.h"
#include "metrics/histogram.h"

namespace gpuslice::metrics {
namespace {

TEST(MetricsText, WritesGaugesCountersAndEscapes) {
  const std::vector<Family> families = {
      {"gpuslice_devices",
       "Devices offered.\nBy state \\ resource.",
       Type::kGauge,
       {{{{"resource", "nvidia.com/gpu"}, {"state", "healthy"}}, 16}, {{}, 0.25}},
       {}},
      {"gpuslice_reloads_total", "Reloads.", Type::kCounter, {{{{"why", "a\"b\\c\nd"}}, 3}}, {}},
      {"gpuslice_empty", "Left out.", Type::kGauge, {}, {}},
  };
  EXPECT_EQ(text(families),
            "# HELP gpuslice_devices Devices offered.\\nBy state \\\\ resource.\n"
            "# TYPE gpuslice_devices gauge\n"
            "gpuslice_devices{resource=\"nvidia.com/gpu\",state=\"healthy\"} 16\n"
            "gpuslice_devices 0.25\n"
            "# HELP gpuslice_reloads_total Reloads.\n"
            "# TYPE gpuslice_reloads_total counter\n"
            "gpuslice_reloads_total{why=\"a\\\"b\\\\c\\nd\"} 3\n");
}

TEST(MetricsText, WritesHistogramsCumulatively) {
  const std::vector<Family> families = {
      {"gpuslice_rpc_seconds",
       "RPCs.",
       Type::kHistogram,
       {},
       {{{{"method", "Allocate"}}, {0.001, 0.01}, {2, 0, 1}, 0.5}}}};
  EXPECT_EQ(text(families),
            "# HELP gpuslice_rpc_seconds RPCs.\n"
            "# TYPE gpuslice_rpc_seconds histogram\n"
            "gpuslice_rpc_seconds_bucket{method=\"Allocate\",le=\"0.001\"} 2\n"
            "gpuslice_rpc_seconds_bucket{method=\"Allocate\",le=\"0.01\"} 2\n"
            "gpuslice_rpc_seconds_bucket{method=\"Allocate\",le=\"+Inf\"} 3\n"
            "gpuslice_rpc_seconds_sum{method=\"Allocate\"} 0.5\n"
            "gpuslice_rpc_seconds_count{method=\"Allocate\"} 3\n");
}

TEST(MetricsText, CutsLabelValuesAtTheLimitAndKeepsUtf8Whole) {
  std::string value(kMaxLabelValueBytes - 1, 'x');
  const std::string kept = value;
  value += "\xC3\xA9 and more";  // é would straddle the limit
  const std::vector<Family> families = {{"m", "h", Type::kGauge, {{{{"pod", value}}, 1}}, {}}};
  EXPECT_EQ(text(families), "# HELP m h\n# TYPE m gauge\nm{pod=\"" + kept + "\"} 1\n");
}

TEST(MetricsText, CutsAFamilyAtItsLimitAndSaysSo) {
  Family family{"m", "h", Type::kGauge, {}, {}};
  family.samples.resize(kMaxSeriesPerFamily + 7);
  const std::vector<Family> families = {family};
  const std::string out = text(families);
  EXPECT_TRUE(out.ends_with("\ngpuslice_metrics_dropped_series 7\n"));
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'),
            static_cast<ptrdiff_t>(kMaxSeriesPerFamily) + 2 + 3);
}

TEST(MetricsText, Numbers) {
  EXPECT_EQ(number(0), "0");
  EXPECT_EQ(number(-3), "-3");
  EXPECT_EQ(number(0.1), "0.1");
  EXPECT_EQ(number(85899345920.0), "85899345920");
  EXPECT_EQ(number(HUGE_VAL), "+Inf");
  EXPECT_EQ(number(-HUGE_VAL), "-Inf");
  EXPECT_EQ(number(std::nan("")), "NaN");
}

TEST(MetricsText, Names) {
  EXPECT_TRUE(valid_metric_name("a:b_9"));
  EXPECT_FALSE(valid_metric_name("9a"));
  EXPECT_FALSE(valid_metric_name(""));
  EXPECT_FALSE(valid_metric_name("a-b"));
  EXPECT_TRUE(valid_label_name("le"));
  EXPECT_FALSE(valid_label_name("a:b"));
  EXPECT_FALSE(valid_label_name("__name"));
}

TEST(MetricsTextDeathTest, ABugOfOursStopsLoudly) {
  const std::vector<Family> bad = {{"9m", "h", Type::kGauge, {{{}, 1}}, {}}};
  EXPECT_DEATH((void)text(bad), "metric name '9m'");
  const std::vector<Family> twice = {{"m", "h", Type::kGauge, {}, {}},
                                     {"m", "h", Type::kGauge, {}, {}}};
  EXPECT_DEATH((void)text(twice), "metric m comes twice");
}

TEST(DurationHistogram, BoundsAreInclusive) {
  DurationHistogram histogram;
  histogram.observe(std::chrono::microseconds(100));
  histogram.observe(std::chrono::microseconds(101));
  histogram.observe(std::chrono::seconds(20));
  histogram.observe(Duration(-5));
  const HistogramSample sample = histogram.sample({});
  EXPECT_EQ(sample.counts, (std::vector<uint64_t>{2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
  EXPECT_DOUBLE_EQ(sample.sum, 20.000201);
  EXPECT_EQ(histogram.count(), 4u);
}

TEST(DurationHistogram, ThreadsLoseNothing) {
  DurationHistogram histogram;
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10'000; ++i) histogram.observe(std::chrono::microseconds(i));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(histogram.count(), 40'000u);
}

// The judge that Prometheus itself ships. It reads the text from a pipe; its answer is its exit
// status.
TEST(MetricsText, PromtoolAccepts) {
  DurationHistogram histogram;
  histogram.observe(std::chrono::milliseconds(2));
  const std::vector<Family> families = {
      {"gpuslice_devices",
       "Devices offered, by resource and state.",
       Type::kGauge,
       {{{{"resource", "nvidia.com/gpu"}, {"state", "healthy"}}, 16}},
       {}},
      {"gpuslice_config_reloads_total",
       "Reloads.",
       Type::kCounter,
       {{{{"result", "odd \"\\\n value"}}, 3}},
       {}},
      {"gpuslice_rpc_duration_seconds",
       "RPCs.",
       Type::kHistogram,
       {},
       {histogram.sample({{"method", "Allocate"}})}}};
  FILE* promtool = popen("promtool check metrics", "w");
  ASSERT_NE(promtool, nullptr);
  const std::string out = text(families);
  EXPECT_EQ(fwrite(out.data(), 1, out.size(), promtool), out.size());
  EXPECT_EQ(pclose(promtool), 0) << "promtool (Debian package prometheus) refused:\n" << out;
}

}  // namespace
}  // namespace gpuslice::metrics
