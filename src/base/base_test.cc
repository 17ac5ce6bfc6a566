#include <gtest/gtest.h>

#include <array>
#include <set>
#include <string>

#include "base/check.h"
#include "base/error.h"
#include "base/ids.h"
#include "base/log.h"
#include "base/random.h"
#include "base/result.h"
#include "base/text.h"

namespace gpuslice {
namespace {

Result<int> half(int n) {
  if (n % 2 != 0) return fail(Code::kImpossible, "{}: not even", n);
  return n / 2;
}

Result<int> quarter(int n) {
  TRY_ASSIGN(const int h, half(n));
  return half(h);
}

TEST(Error, ExitCodesAreTheContract) {
  EXPECT_EQ(exit_code(Code::kInternal), 1);
  EXPECT_EQ(exit_code(Code::kUsage), 2);
  EXPECT_EQ(exit_code(Code::kInvalidConfig), 3);
  EXPECT_EQ(exit_code(Code::kImpossible), 4);
  EXPECT_EQ(exit_code(Code::kInUse), 5);
  EXPECT_EQ(exit_code(Code::kNeedsReset), 6);
  EXPECT_EQ(exit_code(Code::kFailed), 7);
  EXPECT_EQ(exit_code(Code::kHalfDone), 8);
  EXPECT_EQ(exit_code(Code::kDiffers), 10);
}

TEST(Error, TextPutsThePlaceFirst) {
  EXPECT_EQ((Error{Code::kInvalidConfig, "unknown key", "a.yaml:3:5"}).text(),
            "a.yaml:3:5: unknown key");
  EXPECT_EQ((Error{Code::kInUse, "GPU 0: busy", ""}).text(), "GPU 0: busy");
  EXPECT_EQ((Error{Code::kInUse, "busy", ""}).in("GPU 0").message, "GPU 0: busy");
}

TEST(Result, TryAssignHandsTheErrorUp) {
  EXPECT_EQ(quarter(8).value(), 2);
  ASSERT_FALSE(quarter(6).has_value());
  EXPECT_EQ(quarter(6).error().message, "3: not even");
}

TEST(CheckDeathTest, SaysWhatMustHold) {
  EXPECT_DEATH(CHECK(1 > 2, "one is {}", 1), "CHECK\\(1 > 2\\) failed: one is 1");
}

TEST(Random, IsTheSameEverywhere) {
  Random a(42);
  EXPECT_EQ(a.next(), 1546998764402558742ULL);
  Random b(42), c(42);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(b.next(), c.next());
}

TEST(Random, StaysInItsBounds) {
  Random r(7);
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) {
    const uint64_t n = r.below(6);
    ASSERT_LT(n, 6U);
    seen.insert(n);
    const int64_t m = r.between(-2, 2);
    ASSERT_TRUE(m >= -2 && m <= 2);
    const double u = r.unit();
    ASSERT_TRUE(u >= 0 && u < 1);
  }
  EXPECT_EQ(seen.size(), 6U);
}

TEST(Text, JsonEscapeIsAlwaysValid) {
  EXPECT_EQ(json_escape("a\"b\\c\n\x01"), "a\\\"b\\\\c\\n\\u0001");
  EXPECT_EQ(json_escape("\xff\xc3\xa9"), "\xef\xbf\xbd\xc3\xa9");
  EXPECT_EQ(json_escape("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
}

TEST(Text, SplitTrimJoin) {
  EXPECT_EQ(split("a,,b", ',').size(), 3U);
  EXPECT_EQ(split("", ',').size(), 1U);
  EXPECT_EQ(trim("  a b\r\n"), "a b");
  EXPECT_EQ(trim(" \t"), "");
  const std::array<std::string, 2> parts = {"a", "b"};
  EXPECT_EQ(join(parts, ", "), "a, b");
}

TEST(Text, NumbersAreWholeOrNothing) {
  EXPECT_EQ(parse_u64("10"), 10U);
  EXPECT_EQ(parse_u64("010"), 10U);
  EXPECT_FALSE(parse_u64("1x").has_value());
  EXPECT_FALSE(parse_u64("-1").has_value());
  EXPECT_FALSE(parse_u64("").has_value());
  EXPECT_FALSE(parse_u64("18446744073709551616").has_value());
}

TEST(Text, NearestSuggestsWhatWasMeant) {
  constexpr std::array<std::string_view, 3> kKeys = {"timeSlicing", "mps", "replicas"};
  EXPECT_EQ(nearest("timeSlice", kKeys), "timeSlicing");
  EXPECT_EQ(nearest("repilcas", kKeys), "replicas");
  EXPECT_FALSE(nearest("devices", kKeys).has_value());
  EXPECT_EQ(edit_distance("ab", "ba"), 1U);
}

TEST(Text, QuantitiesAndDurations) {
  EXPECT_EQ(parse_bytes("2Gi"), 2147483648U);
  EXPECT_EQ(parse_bytes("1.5Ki"), 1536U);
  EXPECT_FALSE(parse_bytes("Gi").has_value());
  EXPECT_FALSE(parse_bytes("1Q").has_value());
  EXPECT_EQ(parse_duration_ns("1.5m"), 90'000'000'000);
  EXPECT_FALSE(parse_duration_ns("5").has_value());
}

TEST(Log, OfEqualLinesAFewAreWrittenAndTheRestCounted) {
  std::vector<std::string> lines;
  WallTime time{};
  Log log([&](std::string_view line) { lines.emplace_back(line); }, [&] { return time; });
  for (int i = 0; i < 1000; ++i) log.warning("the disk is full");
  EXPECT_EQ(lines.size(), Log::kMaxSame);
  EXPECT_EQ(log.left_out(), 1000 - Log::kMaxSame);
  // Others are written, and so is the same text at another level.
  log.error("the disk is full");
  log.info("x");
  EXPECT_EQ(lines.size(), Log::kMaxSame + 2);
  time += Log::kSameWindow;
  log.info("y");
  ASSERT_EQ(lines.size(), Log::kMaxSame + 4);
  EXPECT_EQ(lines[Log::kMaxSame + 2],
            "1970-01-01T00:01:00.000Z warning said 995 times more since 1970-01-01T00:00:00.000Z: "
            "the disk is full\n");
  EXPECT_EQ(lines.back(), "1970-01-01T00:01:00.000Z info y\n");
  log.warning("the disk is full");
  EXPECT_EQ(lines.back(), "1970-01-01T00:01:00.000Z warning the disk is full\n");
  // A clock that was set back does not silence it for ever.
  time = WallTime{} - std::chrono::hours(1);
  for (int i = 0; i < 10; ++i) log.warning("the disk is full");
  EXPECT_EQ(lines.back(), "1969-12-31T23:00:00.000Z warning the disk is full\n");
}

TEST(Log, ManyDifferentLinesAndLongOnesCostBoundedMemory) {
  std::vector<std::string> lines;
  Log log([&](std::string_view line) { lines.emplace_back(line); }, [] { return WallTime{}; });
  for (size_t round = 0; round < 3; ++round)
    for (size_t i = 0; i < Log::kMaxLinesKnown + 50; ++i) log.info("line {}", i);
  EXPECT_EQ(lines.size(), 3 * (Log::kMaxLinesKnown + 50)) << "what differs is written";
  log.info("{}", std::string(1 << 20, 'x'));
  EXPECT_LE(lines.back().size(), Log::kMaxLineBytes + 64);
  // What somebody else chose makes no line of its own.
  log.info("pod {}", "a\n1970-01-01T00:00:00.000Z error forged");
  EXPECT_EQ(lines.back(),
            "1970-01-01T00:00:00.000Z info pod a 1970-01-01T00:00:00.000Z error forged\n");
}

TEST(Log, WritesTextAndJsonAndDoesNotRepeatItself) {
  std::string out;
  const auto sink = [&](std::string_view line) { out += line; };
  const auto now = [] { return WallTime(std::chrono::milliseconds(1'000)); };
  Log text(sink, now);
  text.info("hello {}", 1);
  text.debug("not this");
  EXPECT_EQ(out, "1970-01-01T00:00:01.000Z info hello 1\n");
  out.clear();
  text.once(Level::kWarning, "driver", "no driver");
  text.once(Level::kWarning, "driver", "no driver");
  EXPECT_EQ(out, "1970-01-01T00:00:01.000Z warning no driver\n");
  text.over("driver");
  text.once(Level::kWarning, "driver", "no driver");
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 2);
  out.clear();
  Log json(sink, now, Level::kInfo, Log::Form::kJson);
  json.error("a \"b\"");
  EXPECT_EQ(
      out,
      "{\"time\":\"1970-01-01T00:00:01.000Z\",\"level\":\"error\",\"message\":\"a \\\"b\\\"\"}\n");
}

TEST(Ids, DifferentIdsDoNotMix) {
  static_assert(!std::is_convertible_v<GiId, CiId>);
  EXPECT_LT(GiId{1}, GiId{2});
}

}  // namespace
}  // namespace gpuslice
