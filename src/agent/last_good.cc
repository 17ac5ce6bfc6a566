#include "agent/last_good.h"

#include "config/document.h"

namespace gpuslice::agent {

Status keep_last_good(ports::HostFiles& files, const std::string& path, const std::string& text) {
  if (const auto there = files.read(path, config::kMaxFileBytes); there && *there == text)
    return {};
  return files.write_atomic(path, text, true);
}

}  // namespace gpuslice::agent
