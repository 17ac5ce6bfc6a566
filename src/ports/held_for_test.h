#pragma once

// What a fake of Locks gives out: in memory, and gone with its process.

#include <memory>
#include <set>
#include <string>
#include <utility>

#include "ports/host.h"

namespace gpuslice::ports {

// Null: somebody has it. `all`, the paths that are held, outlives what is given out.
inline std::unique_ptr<Locks::Held> held_in_memory(std::set<std::string>& all, std::string path) {
  class InMemory final : public Locks::Held {
   public:
    InMemory(std::set<std::string>& all, std::string path) : all_(all), path_(std::move(path)) {}
    ~InMemory() override { all_.erase(path_); }

   private:
    std::set<std::string>& all_;
    std::string path_;
  };
  if (!all.insert(path).second) return nullptr;
  return std::make_unique<InMemory>(all, std::move(path));
}

}  // namespace gpuslice::ports
