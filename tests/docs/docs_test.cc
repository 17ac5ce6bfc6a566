// docs/testing.md names tests: each of them is there.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>
#include <string>

namespace gpuslice {
namespace {

namespace fs = std::filesystem;

std::string text_of(const fs::path& path) {
  std::ostringstream out;
  out << std::ifstream(path).rdbuf();
  return out.str();
}

// `Suite.Name` in backticks, as gtest prints them.
std::set<std::string> named_in(const std::string& text) {
  static const std::regex kName("`([A-Z][A-Za-z0-9]+\\.[A-Z][A-Za-z0-9_]+)`");
  std::set<std::string> out;
  for (std::sregex_iterator at(text.begin(), text.end(), kName), end; at != end; ++at)
    out.insert((*at)[1]);
  return out;
}

std::set<std::string> defined_below(const fs::path& folder) {
  static const std::regex kTest("\\nTEST(?:_F|_P)?\\((\\w+),\\s+(\\w+)\\)");
  std::set<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (!entry.path().string().ends_with("_test.cc")) continue;
    const std::string text = text_of(entry.path());
    for (std::sregex_iterator at(text.begin(), text.end(), kTest), end; at != end; ++at)
      out.insert((*at)[1].str() + "." + (*at)[2].str());
  }
  return out;
}

TEST(Docs, EveryTestThatIsNamedIsThere) {
  std::set<std::string> there = defined_below("src");
  there.merge(defined_below("tests"));
  ASSERT_GT(there.size(), 500U);
  const std::set<std::string> named = named_in(text_of("docs/testing.md"));
  EXPECT_GE(named.size(), 20U) << "the table is there";
  for (const std::string& name : named)
    EXPECT_TRUE(there.contains(name)) << "docs/testing.md names " << name;
}

TEST(Docs, ANameThatIsNotThereIsFound) {
  EXPECT_EQ(named_in("| `Docs.ANameThatIsNotThereIsFound`, `docs/x.md`, `a.B`, `Nobody.WroteIt` |"),
            (std::set<std::string>{"Docs.ANameThatIsNotThereIsFound", "Nobody.WroteIt"}));
  EXPECT_FALSE(defined_below("tests").contains("Nobody.WroteIt"));
  EXPECT_TRUE(defined_below("tests").contains("Docs.ANameThatIsNotThereIsFound"));
}

}  // namespace
}  // namespace gpuslice
