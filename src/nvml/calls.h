#pragma once

// Calling the driver's functions by name: what every reading and change of nvml/ passes. A function
// that the library lacks answers FUNCTION_NOT_FOUND.

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "nvml/api.h"
#include "nvml/library.h"
#include "ports/nvml.h"
#include "ports/nvml_return.h"

namespace gpuslice::nvml {

using ports::code_of_return;

// An answer that means "not on this GPU" or "not for you", which is no failure of the GPU.
[[nodiscard]] bool merely_absent(api::Return code);

template <size_t N>
[[nodiscard]] std::string text_of(const std::array<char, N>& buffer) {
  return {buffer.data(), ::strnlen(buffer.data(), N)};
}

class Calls {
 public:
  explicit Calls(std::unique_ptr<Library> library) : library_(std::move(library)) {}

  // Calls `name` with `args`, whose types must be those of NVML's manual as far as the machine's
  // calling convention sees them: enums are ints and handles are pointers, whatever their names.
  template <class... Args>
#if defined(__clang__)
  __attribute__((no_sanitize("function")))
#endif
  api::Return
  call(const char* name, Args... args) {
    auto* function = library_->function<api::Return(Args...)>(name);
    return function == nullptr ? api::kFunctionNotFound : function(args...);
  }

  [[nodiscard]] Error error(std::string_view object, const char* name, api::Return code) {
    const char* words = "function not found in this driver's library";
    if (auto* error_string = library_->function<const char*(api::Return)>("nvmlErrorString");
        code != api::kFunctionNotFound && error_string != nullptr) {
      words = error_string(code);
    }
    return {code_of_return(code), fmt::format("{}: {}: {} ({})", object, name, words, code), {}};
  }

  // A call without which the object is of no use.
  template <class... Args>
  Status must(std::string_view object, const char* name, Args... args) {
    const api::Return code = call(name, args...);
    if (code != api::kSuccess) return std::unexpected(error(object, name, code));
    return {};
  }

  // A call whose answer may be absent; anything worse is an error all the same.
  template <class... Args>
  Status may(std::string_view object, const char* name, Args... args) {
    const api::Return code = call(name, args...);
    if (code != api::kSuccess && !merely_absent(code)) {
      return std::unexpected(error(object, name, code));
    }
    return {};
  }

  // An unsigned getter; nothing where the driver does not tell.
  template <class... Args>
  std::optional<uint32_t> value(const char* name, Args... args) {
    unsigned out = 0;
    if (call(name, args..., &out) != api::kSuccess) return std::nullopt;
    return out;
  }

  template <size_t N>
  std::string string(const char* name, api::Device device) {
    std::array<char, N> buffer{};
    if (call(name, device, buffer.data(), static_cast<unsigned>(N)) != api::kSuccess) return "";
    return text_of(buffer);
  }

  // Compute, graphics and MPS processes of a GPU or a MIG device; empty where we may not ask.
  [[nodiscard]] std::vector<ports::Process> processes(api::Device device);

 private:
  void read_processes(api::Device device, ports::Process::Kind kind, const char* name,
                      std::vector<ports::Process>& out);
  std::string process_name(unsigned pid);

  std::unique_ptr<Library> library_;
};

}  // namespace gpuslice::nvml
