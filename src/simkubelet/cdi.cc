#include "simkubelet/cdi.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/text.h"

namespace gpuslice::simkubelet {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> spec_files(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code ec;
  for (const auto& entry : fs::directory_iterator(folder, ec)) {
    const fs::path extension = entry.path().extension();
    if (entry.is_regular_file(ec) &&
        (extension == ".json" || extension == ".yaml" || extension == ".yml"))
      files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  if (files.size() > kMaxCdiFiles) files.resize(kMaxCdiFiles);
  return files;
}

Result<std::string> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxCdiFile + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (file.bad() || (!file.eof() && file.gcount() == 0))
    return fail(Code::kNoPermission, "cannot be read");
  text.resize(static_cast<size_t>(file.gcount()));
  return text;
}

Result<CdiSpec> read_spec(const fs::path& path) {
  TRY_ASSIGN(const std::string text, read_file(path));
  return parse_cdi_spec(text, path.extension() == ".json" ? CdiFormat::kJson : CdiFormat::kYaml);
}

}  // namespace

CdiSpecs CdiSpecs::read(const std::vector<std::string>& folders) {
  CdiSpecs out;
  for (const std::string& folder : folders) out.read_folder(folder);
  return out;
}

CdiSpecs CdiSpecs::of_node(const std::string& root) {
  return read({root + "/etc/cdi", root + "/var/run/cdi"});
}

void CdiSpecs::read_folder(const std::string& folder) {
  std::set<std::string> here, twice;
  for (const fs::path& path : spec_files(folder)) {
    auto spec = read_spec(path);
    if (!spec) {
      wrong_.push_back(fmt::format("{}: {}", path.string(), spec.error().message));
      continue;
    }
    for (const auto& [device, edits] : spec->devices) {
      const std::string name = spec->kind + "=" + device;
      if (!here.insert(name).second) {
        twice.insert(name);
        wrong_.push_back(fmt::format("{}: {} is defined by another file of this folder too",
                                     path.string(), name));
      }
      devices_[name] = {specs_.size(), edits};
    }
    specs_.push_back(std::move(*spec));
  }
  for (const std::string& name : twice) devices_.erase(name);
}

Result<CdiEdits> CdiSpecs::resolve(const std::vector<std::string>& names) const {
  CdiEdits edits;
  std::set<size_t> specs;
  std::vector<std::string> unknown;
  for (const std::string& name : names) {
    const auto it = devices_.find(name);
    if (it == devices_.end()) {
      unknown.push_back(json_escape(name));
      continue;
    }
    if (specs.insert(it->second.spec).second) edits.add(specs_[it->second.spec].edits);
    edits.add(it->second.edits);
  }
  if (unknown.empty()) return edits;
  return fail(Code::kNotFound, "CDI device injection failed: unresolvable CDI devices {}{}",
              join(unknown, ", "), wrong_.empty() ? "" : " (" + join(wrong_, "; ") + ")");
}

}  // namespace gpuslice::simkubelet
