#pragma once

// Calling the driver's functions by name: what every reading and change of nvml/ passes. A function
// that the library lacks answers FUNCTION_NOT_FOUND.

#include <fmt/format.h>

#include <array>
#include <atomic>
#include <chrono>
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

// An answer that means "not on this GPU" alone. Where a list of what is there is read before
// something is changed, "not for you" must not look like "nothing there".
[[nodiscard]] bool not_offered(api::Return code);

template <size_t N>
[[nodiscard]] std::string text_of(const std::array<char, N>& buffer) {
  return {buffer.data(), ::strnlen(buffer.data(), N)};
}

// The call that is under way, and since when: written by the thread that calls, read by one that
// watches it. A driver that hangs obeys no time-out of ours.
class CallWatch {
 public:
  void begin(const char* name) {
    since_.store(std::chrono::steady_clock::now().time_since_epoch().count());
    name_.store(name, std::memory_order_release);
  }
  void end() { name_.store(nullptr, std::memory_order_release); }
  // Null: none.
  [[nodiscard]] const char* name() const { return name_.load(std::memory_order_acquire); }
  [[nodiscard]] std::chrono::nanoseconds lasts() const {
    return std::chrono::steady_clock::now().time_since_epoch() -
           std::chrono::steady_clock::duration(since_.load());
  }

 private:
  std::atomic<const char*> name_{nullptr};
  std::atomic<std::chrono::steady_clock::rep> since_{0};
};

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
    if (function == nullptr) return api::kFunctionNotFound;
    const Watched watched(watch_, name);
    return function(args...);
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

  // For whoever watches from another thread: the call that is under way. Null: nobody watches.
  void set_watch(CallWatch* watch) { watch_ = watch; }

  // Compute, graphics and MPS processes of a GPU or a MIG device; empty where we may not ask.
  [[nodiscard]] std::vector<ports::Process> processes(api::Device device);
  // The same for whoever is about to end them: a list that cannot be read is an error.
  [[nodiscard]] Result<std::vector<ports::Process>> all_processes(const std::string& object,
                                                                  api::Device device);

 private:
  api::Return read_processes(api::Device device, ports::Process::Kind kind, const char* name,
                             std::vector<ports::Process>& out);
  std::string process_name(unsigned pid);

  class Watched {
   public:
    Watched(CallWatch* watch, const char* name) : watch_(watch) {
      if (watch_ != nullptr) watch_->begin(name);
    }
    ~Watched() {
      if (watch_ != nullptr) watch_->end();
    }
    Watched(const Watched&) = delete;
    Watched& operator=(const Watched&) = delete;

   private:
    CallWatch* watch_;
  };

  std::unique_ptr<Library> library_;
  CallWatch* watch_ = nullptr;
};

}  // namespace gpuslice::nvml
