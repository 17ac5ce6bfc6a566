#pragma once

// One resource and the kubelet: serving its socket, registering it, and doing so again whenever the
// kubelet or the socket has come anew. A small state machine on T0, driven by time and by what it
// sees; every wait has a bound.

#include <memory>
#include <string>

#include "base/log.h"
#include "base/time.h"
#include "ports/kubelet.h"

namespace gpuslice::agent {

// The first wait after a failure, doubled at each further one up to the longest.
inline constexpr Duration kFirstRetry = std::chrono::milliseconds(100);
inline constexpr Duration kLongestRetry = std::chrono::seconds(5);
// A registration that was not answered in this time is asked for again.
inline constexpr Duration kRegistrationPatience = std::chrono::seconds(10);
// A registered resource that nobody watches for this long is registered again: a kubelet whose
// stream broke waits for that.
inline constexpr Duration kUnwatchedPatience = std::chrono::seconds(2);
// How often a registered resource is looked at.
inline constexpr Duration kLookEvery = std::chrono::seconds(1);
// An empty list is shown for this long before the socket of a withdrawn resource goes.
inline constexpr Duration kFarewell = std::chrono::milliseconds(300);

class Registration {
 public:
  Registration(std::string resource, ports::PluginService& service, ports::Kubelet& kubelet,
               Log& log)
      : resource_(std::move(resource)), service_(service), kubelet_(kubelet), log_(log) {}

  // The list to show; sent if it differs from the one shown. Empty while leaving.
  void show(std::shared_ptr<const ports::DeviceList> list);
  // The resource is withdrawn: an empty list, then the socket goes.
  void leave(MonotonicTime now);
  // Brings the world nearer to what is wanted. Returns when to be called again at the latest.
  [[nodiscard]] MonotonicTime step(MonotonicTime now);
  void on_registered(const Status& status, MonotonicTime now);

  [[nodiscard]] bool gone() const { return gone_; }
  [[nodiscard]] bool leaving() const { return leaving_; }
  [[nodiscard]] bool registered() const { return registered_; }
  [[nodiscard]] const std::string& trouble() const { return trouble_; }  // "" when all is well
  [[nodiscard]] uint64_t registrations() const { return registrations_; }
  [[nodiscard]] uint64_t failures() const { return failures_; }

 private:
  void failed(const Error& error, MonotonicTime now);
  [[nodiscard]] bool serve(MonotonicTime now);

  std::string resource_;
  ports::PluginService& service_;
  ports::Kubelet& kubelet_;
  Log& log_;
  std::shared_ptr<const ports::DeviceList> list_;
  bool serving_ = false;
  bool registered_ = false;
  bool asking_ = false;
  bool heard_ = false;  // somebody has watched since the last registration
  bool leaving_ = false;
  bool gone_ = false;
  std::string kubelet_life_;  // the kubelet's socket, as it was looked at last
  MonotonicTime asked_at_{};
  MonotonicTime not_before_{};
  MonotonicTime leave_at_{};
  MonotonicTime watched_at_{};  // when somebody was last seen to watch
  Duration retry_ = kFirstRetry;
  std::string trouble_;
  uint64_t registrations_ = 0;
  uint64_t failures_ = 0;
};

}  // namespace gpuslice::agent
