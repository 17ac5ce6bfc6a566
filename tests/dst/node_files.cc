// The node's disk: what is written and not yet safe is lost by a power cut, as it may be.

#include <fmt/format.h>

#include "node_model.h"
#include "places.h"

namespace gpuslice::dst {

Result<std::string> NodeModel::read(const std::string& path, size_t most) {
  port_call();
  const auto it = files_.find(path);
  if (it == files_.end()) return fail(Code::kNotFound, "{}: no such file", path);
  if (it->second.size() > most) return fail(Code::kInvalidConfig, "{}: too long", path);
  return it->second;
}

Status NodeModel::write_atomic(const std::string& path, const std::string& text, bool durable) {
  port_call();
  hardware_.count_call();
  if (!full_.empty() && path.starts_with(full_))
    return fail(Code::kFailed, "{}: no space left on device", path);
  if (durable)
    unwritten_.erase(path);
  else if (const auto old = files_.find(path); !unwritten_.contains(path))
    unwritten_[path] = old == files_.end() ? std::optional<std::string>() : old->second;
  files_[path] = text;
  if (path == std::string(kLedger) + ".gpus") remember_memo(text);
  return {};
}

Result<std::string> NodeModel::boot_id() { return fmt::format("boot-{}", boot_); }

bool NodeModel::exists(const std::string&) { return true; }

Status NodeModel::remove(const std::string& path, bool durable) {
  port_call();
  hardware_.count_call();
  if (durable)
    unwritten_.erase(path);
  else if (const auto old = files_.find(path); old != files_.end())
    unwritten_.try_emplace(path, old->second);
  files_.erase(path);
  return {};
}

Result<std::vector<std::string>> NodeModel::list(const std::string& folder) {
  port_call();
  std::vector<std::string> names;
  for (const auto& [path, text] : files_)
    if (path.starts_with(folder + "/") && path.find('/', folder.size() + 1) == std::string::npos)
      names.push_back(path.substr(folder.size() + 1));
  return names;
}

void NodeModel::put(const std::string& path, const std::string& text) {
  unwritten_.erase(path);
  files_[path] = text;
}

void NodeModel::lose_unwritten() {
  for (const auto& [path, old] : unwritten_) {
    if (random_.chance(1, 2)) continue;
    if (old)
      files_[path] = *old;
    else
      files_.erase(path);
  }
}

// An agent has written down which GPUs it knows: later ones must not forget them.
void NodeModel::remember_memo(const std::string& text) {
  for (const std::string& uuid : hardware_.uuids())
    if (uuid.starts_with("GPU-") && text.find(uuid) != std::string::npos) memoed_.insert(uuid);
}

}  // namespace gpuslice::dst
