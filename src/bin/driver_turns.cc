#include "bin/driver_turns.h"

#include <chrono>
#include <utility>

namespace gpuslice::bin {

std::optional<DriverTurns::Hanging> DriverTurns::begin_look() {
  constexpr Duration kLook = std::chrono::milliseconds(250);
  std::unique_lock lock(mutex_);
  while (changing_) {
    const char* const name = watch_.name();
    if (name != nullptr && watch_.lasts() >= patience_) {
      looking_ = true;
      return Hanging{gpu_, name};
    }
    changed_.wait_for(lock, kLook, [this] { return !changing_; });
  }
  looking_ = true;
  return std::nullopt;
}

void DriverTurns::end_look() {
  const std::lock_guard lock(mutex_);
  looking_ = false;
  changed_.notify_all();
}

void DriverTurns::begin_change(std::string gpu) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !looking_; });
  changing_ = true;
  gpu_ = std::move(gpu);
}

void DriverTurns::end_change() {
  const std::lock_guard lock(mutex_);
  changing_ = false;
  changed_.notify_all();
}

}  // namespace gpuslice::bin
