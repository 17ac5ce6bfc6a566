#pragma once

// A device plugin whose every word the test says. Only for tests.

#include <memory>
#include <string>
#include <vector>

#include "simkubelet/node.h"
#include "simkubelet/plugins.h"

namespace gpuslice::simkubelet {

class FakePlugin {
 public:
  FakePlugin();
  virtual ~FakePlugin();
  FakePlugin(const FakePlugin&) = delete;
  FakePlugin& operator=(const FakePlugin&) = delete;

  // Serves at `dir`/device-plugins/`endpoint`.
  void serve(const std::string& dir, const std::string& endpoint);
  void stop();
  // Says a list on every stream, now and later.
  void list(const std::vector<DeviceSeen>& devices);
  // Ends the streams that there are, as a plugin that ends does.
  void end_streams();
  [[nodiscard]] int streams() const;

  // What it answers; an error's message goes out with code UNKNOWN.
  bool preferred_available = true;
  std::vector<std::string> preferred;
  Allocated allocated;
  std::string preferred_error, allocate_error;
  bool answer_no_container = false;
  // What it was asked for.
  [[nodiscard]] std::vector<Plugins::Ask> asks() const;
  [[nodiscard]] std::vector<std::vector<std::string>> allocations() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Registers with the kubelet at `dir`: "" or the words of its refusal.
[[nodiscard]] std::string register_plugin(const std::string& dir, const RegisterCall& call);

}  // namespace gpuslice::simkubelet
