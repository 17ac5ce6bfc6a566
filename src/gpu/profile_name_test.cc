#include "gpu/profile_name.h"

#include <gtest/gtest.h>

namespace gpuslice::gpu {
namespace {

TEST(ProfileName, EveryFormThatPeopleWrite) {
  for (const char* name :
       {"1g.5gb", "7g.40gb", "1c.3g.20gb", "2c.4g.20gb", "1g.10gb+me", "1g.24gb+me.all",
        "2g.48gb-me", "1g.24gb+gfx", "1c.2g.48gb+gfx", "1g.5gb+gfx,me"}) {
    const auto parsed = parse_profile_name(name);
    ASSERT_TRUE(parsed.has_value()) << name << ": " << parsed.error().message;
    EXPECT_EQ(parsed->text(), name);
  }
  EXPECT_EQ(parse_profile_name("MIG 1g.5gb").value().text(), "1g.5gb");
  EXPECT_EQ(parse_profile_name("3c.3g.20gb").value().text(), "3g.20gb");
  EXPECT_EQ(parse_profile_name("1c.3g.20gb+me").value().gi_text(), "3g.20gb+me");
}

TEST(ProfileName, EveryRefusalSaysWhat) {
  const auto message = [](std::string_view text) {
    return parse_profile_name(text).error().message;
  };
  const std::string form = "; a profile looks like 1g.5gb, 1c.3g.20gb or 1g.10gb+me";
  EXPECT_EQ(message(""), "\"\" is no MIG profile: the compute slices (1g.) are missing" + form);
  EXPECT_EQ(message("0g.5gb"),
            "\"0g.5gb\" is no MIG profile: the compute slices (1g.) are missing" + form);
  EXPECT_EQ(message("1g"), "\"1g\" is no MIG profile: the compute slices (1g.) are missing" + form);
  EXPECT_EQ(message("1g.5"), "\"1g.5\" is no MIG profile: the memory (.5gb) is missing" + form);
  EXPECT_EQ(message("1g.05gb"),
            "\"1g.05gb\" is no MIG profile: the memory (.5gb) is missing" + form);
  EXPECT_EQ(
      message("4c.3g.20gb"),
      "\"4c.3g.20gb\" is no MIG profile: its compute instance is larger than its GPU instance" +
          form);
  EXPECT_EQ(message("1g.5gbx"),
            "\"1g.5gbx\" is no MIG profile: something follows the memory" + form);
  for (const char* bad : {"1g.5gb+", "1g.5gb+me,me", "1g.5gb+1me", "1g.5gb+me-gfx", "1g.5gb+me,"})
    EXPECT_EQ(message(bad),
              "\"" + std::string(bad) +
                  "\" is no MIG profile: its attributes are malformed or stand twice" + form);
  EXPECT_EQ(message(std::string(100, 'x')),
            "\"" + std::string(64, 'x') + "\" is no MIG profile: it is too long" + form);
}

TEST(ProfileName, DriversDisagreeByAGigabyte) {
  const auto p = [](const char* text) { return parse_profile_name(text).value(); };
  EXPECT_TRUE(same_but_for_a_gigabyte(p("1g.23gb"), p("1g.24gb")));
  EXPECT_FALSE(same_but_for_a_gigabyte(p("1g.23gb"), p("1g.25gb")));
  EXPECT_FALSE(same_but_for_a_gigabyte(p("1g.23gb"), p("1g.24gb+me")));
  EXPECT_TRUE(same_but_for_a_gigabyte(p("7g.79gb"), p("7g.80gb")));
  EXPECT_TRUE(same_but_for_a_gigabyte(p("1g.10gb"), p("1g.11gb")));
  // Other boards' names, not other drivers'.
  EXPECT_FALSE(same_but_for_a_gigabyte(p("1g.5gb"), p("1g.6gb")));
  EXPECT_FALSE(same_but_for_a_gigabyte(p("1g.9gb"), p("1g.10gb")));
}

}  // namespace
}  // namespace gpuslice::gpu
