#pragma once

// The simulated library as a program meets it: dlopen'ed, by its C symbols, on a world of the
// test's own. Only for tests.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "sim/ret.h"
#include "sim/testing.h"
#include "sim/world.h"
#include "simnvml/exports.h"

namespace gpuslice::sim {

inline void PrintTo(Ret ret, std::ostream* out) { *out << ret_name(ret); }

}  // namespace gpuslice::sim

namespace gpuslice::simnvml {

using sim::Ret;

// CALL(nvmlDeviceGetName, handle, text, 96): the exported function, found by its name, with the
// types of its declaration.
#define CALL(name, ...) \
  static_cast<Ret>(     \
      reinterpret_cast<decltype(&::gpuslice::simnvml::name)>(symbol(#name))(__VA_ARGS__))

inline constexpr const char* kA100 = "A100-SXM4-40GB";
inline constexpr const char* kH100 = "H100-80GB-SXM";
inline constexpr const char* kT4 = "T4";

[[nodiscard]] inline sim::NodeOptions node_of(const std::vector<std::string>& boards,
                                              const std::string& driver = "580.65.06") {
  sim::NodeOptions options;
  options.driver = driver;
  for (const std::string& board : boards) options.gpus.push_back({board, sim::Sweep::kPlain});
  return options;
}

// A struct with a guard behind it, all of it filled with one byte: what a call writes shows.
inline constexpr uint8_t kFill = 0xa5;
template <class T>
struct Guarded {
  T value;
  uint8_t guard[64];

  Guarded() { std::memset(static_cast<void*>(this), kFill, sizeof *this); }
  [[nodiscard]] bool untouched_from(size_t offset) const {
    const auto* bytes = reinterpret_cast<const uint8_t*>(this);
    for (size_t i = offset; i < sizeof *this; ++i)
      if (bytes[i] != kFill) return false;
    return true;
  }
};

// A call by words: `first`, then `others` for every further argument. So the two ABIs that we run
// on pass integers and pointers alike.
[[nodiscard]] Ret call_by_words(void* function, uintptr_t first, uintptr_t others);

class LibraryTest : public testing::Test {
 protected:
  LibraryTest();
  ~LibraryTest() override;

  // A node of these boards, to which the library's next init leads.
  void make(const sim::NodeOptions& options);
  // The same, and init.
  void begin(const sim::NodeOptions& options);

  [[nodiscard]] static void* symbol(const char* name);
  [[nodiscard]] Handle gpu(uint32_t index = 0);
  [[nodiscard]] std::string uuid_of(Handle device);
  // MIG on, then a GPU instance of `profile` with one compute instance of `ci_profile`.
  struct Made {
    Handle gi = nullptr;
    Handle ci = nullptr;
    Handle device = nullptr;
  };
  void mig_on(Handle device);
  [[nodiscard]] Made make_instance(Handle device, uint32_t profile, uint32_t ci_profile);
  // A process by word that computes on a device.
  uint16_t add_process(int32_t pid, const sim::Work& work);
  void add_fault(const char* call, const sim::Fault& fault);

  std::string root;
  std::unique_ptr<sim::World> world;

 private:
  std::unique_ptr<sim::TempFolder> folder_;
};

// Names of data/nvml-symbols.txt and our own; with what the driver branches export.
struct SymbolRow {
  std::string name;
  bool in_535 = false;
  bool in_550 = false;
};
[[nodiscard]] std::vector<SymbolRow> symbol_rows();

}  // namespace gpuslice::simnvml
