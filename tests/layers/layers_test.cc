// The include-layer check: ARCHITECTURE.md's tables against every #include under src/. The checker
// itself is tested on small trees that break each rule.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "base/text.h"

namespace gpuslice {
namespace {

namespace fs = std::filesystem;

struct Floor {
  int level = 0;
  bool sees_everything = false;
  std::set<std::string> sees;
};

struct Rules {
  std::map<std::string, Floor> folders;
  std::map<std::string, std::set<std::string>> heavy;  // header prefix -> folders
};

using Files = std::map<std::string, std::string>;  // path below src/ -> text

std::string unquoted(std::string_view cell) {
  std::string out;
  for (const char c : trim(cell))
    if (c != '`') out += c;
  return out;
}

std::set<std::string> names(std::string_view cell) {
  std::set<std::string> out;
  for (const std::string_view part : split(cell, ','))
    if (std::string name = unquoted(part); !name.empty()) out.insert(std::move(name));
  return out;
}

Rules parse_rules(const std::string& markdown) {
  enum class Table { kNone, kFloors, kHeavy };
  Rules rules;
  Table table = Table::kNone;
  std::istringstream in(markdown);
  for (std::string line; std::getline(in, line);) {
    if (line.empty() || line[0] != '|') {
      table = Table::kNone;
      continue;
    }
    const std::vector<std::string_view> cells = split(line, '|');
    if (line.starts_with("| floor ")) {
      table = Table::kFloors;
    } else if (line.starts_with("| heavy header ")) {
      table = Table::kHeavy;
    } else if (line.starts_with("|---")) {
      continue;
    } else if (table == Table::kFloors && cells.size() >= 6) {
      Floor floor;
      floor.level = static_cast<int>(parse_u64(trim(cells[1])).value_or(0));
      floor.sees = names(cells[4]);
      floor.sees_everything = floor.sees.erase("everything") > 0;
      rules.folders[unquoted(cells[2])] = floor;
    } else if (table == Table::kHeavy && cells.size() >= 4) {
      rules.heavy[unquoted(cells[1])] = names(cells[2]);
    }
  }
  return rules;
}

// The path of an #include line, or "".
std::string included(std::string_view line) {
  line = trim(line);
  if (!line.starts_with("#")) return "";
  line = trim(line.substr(1));
  if (!line.starts_with("include")) return "";
  const size_t open = line.find_first_of("\"<");
  if (open == std::string_view::npos) return "";
  const size_t close = line.find_first_of("\">", open + 1);
  return close == std::string_view::npos ? ""
                                         : std::string(line.substr(open + 1, close - open - 1));
}

void check_tables(const Rules& rules, std::vector<std::string>& faults) {
  for (const auto& [folder, floor] : rules.folders) {
    for (const std::string& seen : floor.sees) {
      const auto it = rules.folders.find(seen);
      if (it == rules.folders.end())
        faults.push_back("ARCHITECTURE.md: " + folder + " sees " + seen +
                         ", which is not in the table");
      else if (it->second.level >= floor.level)
        faults.push_back("ARCHITECTURE.md: " + folder + " sees " + seen +
                         ", which is not below it");
    }
  }
}

void check_file(const Rules& rules, const std::string& path, const std::string& text,
                std::vector<std::string>& faults) {
  const std::string folder = path.substr(0, path.find('/'));
  const auto it = rules.folders.find(folder);
  if (it == rules.folders.end()) {
    faults.push_back(path + ": folder " + folder + " is missing from ARCHITECTURE.md's table");
    return;
  }
  const Floor& floor = it->second;
  std::istringstream in(text);
  size_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    const std::string target = included(line);
    if (target.empty()) continue;
    const std::string place = path + ":" + std::to_string(number) + ": ";
    for (const auto& [prefix, folders] : rules.heavy) {
      if (!target.starts_with(prefix)) continue;
      if (!folders.contains(folder))
        faults.push_back(place + "<" + target + "> does not belong in " + folder);
      if (path.ends_with(".h")) faults.push_back(place + "<" + target + "> stands in a header");
    }
    const std::string other = target.substr(0, target.find('/'));
    const auto seen = rules.folders.find(other);
    if (target.find('/') == std::string::npos || seen == rules.folders.end() || other == folder)
      continue;
    if (seen->second.level >= floor.level)
      faults.push_back(place + folder + " includes " + target + ": not downwards");
    else if (!floor.sees_everything && !floor.sees.contains(other))
      faults.push_back(place + folder + " includes " + target +
                       ": ARCHITECTURE.md does not let it see " + other);
  }
}

std::vector<std::string> check(const Rules& rules, const Files& files) {
  std::vector<std::string> faults;
  if (rules.folders.empty()) faults.emplace_back("ARCHITECTURE.md has no table of floors");
  check_tables(rules, faults);
  for (const auto& [path, text] : files) check_file(rules, path, text, faults);
  return faults;
}

std::string read(const fs::path& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

Files read_sources(const fs::path& root) {
  Files files;
  for (const auto& entry : fs::recursive_directory_iterator(root)) {
    const std::string extension = entry.path().extension();
    if (entry.is_regular_file() && (extension == ".cc" || extension == ".h" || extension == ".c"))
      files[fs::relative(entry.path(), root).string()] = read(entry.path());
  }
  return files;
}

TEST(Layers, TheTreeObeysArchitectureMd) {
  const Rules rules = parse_rules(read("ARCHITECTURE.md"));
  EXPECT_GE(rules.folders.size(), 15U);
  EXPECT_GE(rules.heavy.size(), 5U);
  const Files files = read_sources("src");
  EXPECT_GE(files.size(), 10U);
  std::string all;
  for (const std::string& fault : check(rules, files)) all += fault + "\n";
  EXPECT_EQ(all, "");
}

constexpr const char* kSmallTable =
    "| floor | folder | what | sees |\n|---|---|---|---|\n"
    "| 3 | `top` | x | everything |\n| 2 | `left` | x | low |\n| 2 | `right` | x | |\n| 1 | `low` "
    "| x | |\n\n"
    "| heavy header | only in |\n|---|---|\n| `yaml-cpp/` | left |\n";

std::vector<std::string> faults_of(const Files& files) {
  return check(parse_rules(kSmallTable), files);
}

TEST(Layers, DownwardsAndInsideIsFine) {
  EXPECT_TRUE(faults_of({{"left/a.cc",
                          "#include \"left/a.h\"\n#include \"low/b.h\"\n#include <yaml-cpp/x.h>\n"},
                         {"top/t.cc", "#include \"right/r.h\"\n#include <vector>\n"}})
                  .empty());
}

TEST(Layers, EachBrokenRuleIsNamed) {
  EXPECT_EQ(faults_of({{"low/a.cc", "\n#include \"left/a.h\"\n"}}),
            std::vector<std::string>{"low/a.cc:2: low includes left/a.h: not downwards"});
  EXPECT_EQ(faults_of({{"left/a.cc", "#include \"right/a.h\"\n"}}),
            std::vector<std::string>{"left/a.cc:1: left includes right/a.h: not downwards"});
  EXPECT_EQ(faults_of({{"right/a.cc", "# include \"low/a.h\"\n"}}),
            std::vector<std::string>{
                "right/a.cc:1: right includes low/a.h: ARCHITECTURE.md does not let it see low"});
  EXPECT_EQ(
      faults_of({{"new/a.cc", ""}}),
      std::vector<std::string>{"new/a.cc: folder new is missing from ARCHITECTURE.md's table"});
  EXPECT_EQ(faults_of({{"right/a.cc", "#include <yaml-cpp/yaml.h>\n"}}),
            std::vector<std::string>{"right/a.cc:1: <yaml-cpp/yaml.h> does not belong in right"});
  EXPECT_EQ(faults_of({{"left/a.h", "#include <yaml-cpp/yaml.h>\n"}}),
            std::vector<std::string>{"left/a.h:1: <yaml-cpp/yaml.h> stands in a header"});
  const Rules upward =
      parse_rules("| floor | folder | what | sees |\n|---|\n| 1 | a | x | b |\n| 2 | b | x | |\n");
  EXPECT_EQ(check(upward, {}),
            std::vector<std::string>{"ARCHITECTURE.md: a sees b, which is not below it"});
}

}  // namespace
}  // namespace gpuslice
