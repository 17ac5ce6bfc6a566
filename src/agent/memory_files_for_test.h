#pragma once

// Files in memory, for tests of what is written and when.

#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "ports/host.h"

namespace gpuslice::agent {

struct MemoryFiles final : ports::HostFiles {
  std::map<std::string, std::string> files;
  int writes = 0;
  bool full = false;
  bool no_descriptors = false;

  Result<std::string> read(const std::string& path, size_t) override {
    if (no_descriptors) return fail(Code::kFailed, "{}: Too many open files", path);
    const auto it = files.find(path);
    if (it == files.end()) return fail(Code::kNotFound, "{}: no such file", path);
    return it->second;
  }
  Status write_atomic(const std::string& path, const std::string& text, bool) override {
    if (full) return fail(Code::kFailed, "{}: no space left on device", path);
    ++writes;
    files[path] = text;
    return {};
  }
  Result<std::string> boot_id() override { return std::string("b"); }
  bool exists(const std::string& path) override {
    const auto it = files.lower_bound(path);
    return it != files.end() && (it->first == path || it->first.starts_with(path + "/"));
  }
  Status remove(const std::string& path, bool) override {
    files.erase(path);
    return {};
  }
  Result<std::vector<std::string>> list(const std::string& folder) override {
    std::vector<std::string> names;
    const std::string head = folder + "/";
    for (const auto& [path, text] : files) {
      if (!path.starts_with(head)) continue;
      std::string name = path.substr(head.size(), path.find('/', head.size()) - head.size());
      if (names.empty() || names.back() != name) names.push_back(std::move(name));
    }
    return names;
  }
};

}  // namespace gpuslice::agent
