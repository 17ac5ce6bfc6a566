#pragma once

// The driver's libnvidia-ml.so.1, opened at run time: nothing of NVIDIA's is needed to build or to
// start.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::nvml {

// Where the library may lie below a driver root, most likely first. For "/" the loader's own search
// (ld.so.cache, LD_LIBRARY_PATH) goes before all of them.
[[nodiscard]] std::vector<std::string> library_candidates(std::string_view root);

class Library {
 public:
  // kUnavailable when no candidate is there (the driver is not installed, or not yet), or when one
  // is and cannot be loaded; the message names where it was looked for.
  [[nodiscard]] static Result<std::unique_ptr<Library>> load(std::string_view root);
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;
  ~Library();

  // The function `name`, or null: older drivers lack newer functions.
  template <class Function>
  [[nodiscard]] Function* function(const char* name) const {
    return reinterpret_cast<Function*>(symbol(name));
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  Library(void* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  [[nodiscard]] void* symbol(const char* name) const;

  void* handle_;
  std::string path_;
};

}  // namespace gpuslice::nvml
