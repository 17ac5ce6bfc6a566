#pragma once

// The driver's events, read through an open driver of its own: XIDs and double-bit ECC errors of
// every physical GPU (MIG devices cannot be registered; the event says which instance it was).
//
// An open reader counts as a client of the driver: on Ampere nobody can switch MIG meanwhile.
// Not thread-safe; calls block as long as the driver does.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/time.h"
#include "ports/nvml_events.h"

namespace gpuslice::nvml {

class EventReader {
 public:
  // `root`: where the driver's files lie, "/" for the machine's own.
  explicit EventReader(std::string root);
  EventReader(const EventReader&) = delete;
  EventReader& operator=(const EventReader&) = delete;
  ~EventReader();

  // Opens the driver and registers every GPU that there is but `without` (indices: those that hang
  // would hang this); what it answers are the GPUs that cannot be watched, each with the reason.
  // kUnavailable: no driver.
  [[nodiscard]] Result<std::vector<Error>> open(const std::set<uint32_t>& without);
  void close();
  [[nodiscard]] bool is_open() const { return impl_ != nullptr; }
  // The next event, or nothing within `limit`. After an error it is to be closed and opened again.
  [[nodiscard]] Result<std::optional<ports::GpuEvent>> wait(Duration limit);

 private:
  class Impl;
  std::string root_;
  std::unique_ptr<Impl> impl_;  // while open
};

}  // namespace gpuslice::nvml
