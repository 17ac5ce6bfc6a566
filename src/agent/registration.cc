#include "agent/registration.h"

#include <fmt/format.h>

#include <algorithm>

namespace gpuslice::agent {
namespace {

constexpr MonotonicTime kNever = MonotonicTime::max();

}  // namespace

void Registration::show(std::shared_ptr<const ports::DeviceList> list) {
  if (leaving_) {
    // Wanted again before it was gone: the stream and the registration are still good.
    leaving_ = false;
  }
  if (list_ && *list_ == *list) return;
  list_ = std::move(list);
  if (serving_) kubelet_.publish(resource_, list_);
}

void Registration::leave(MonotonicTime now) {
  if (leaving_) return;
  list_ = std::make_shared<ports::DeviceList>();
  if (serving_) kubelet_.publish(resource_, list_);
  leaving_ = true;
  leave_at_ = now + kFarewell;
}

MonotonicTime Registration::step(MonotonicTime now) {
  if (gone_) return kNever;
  if (leaving_) {
    if (serving_ && now < leave_at_) return leave_at_;
    if (serving_) kubelet_.stop(resource_);
    serving_ = false;
    registered_ = false;
    gone_ = true;
    return kNever;
  }
  if (serving_ && !kubelet_.socket_in_place(resource_)) {
    log_.warning("{}: our socket was removed; it is made again", resource_);
    kubelet_.stop(resource_);
    serving_ = false;
    registered_ = false;
    asking_ = false;
    not_before_ = now;
  }
  const std::string socket = kubelet_.kubelet_socket();
  if (socket != kubelet_life_) {
    // Another kubelet, or none: what was asked of the last one, and how long it was to be left in
    // peace, says nothing of this one.
    kubelet_life_ = socket;
    registered_ = false;
    asking_ = false;
    not_before_ = std::min(not_before_, now);
    retry_ = kFirstRetry;
  }
  if (registered_ && kubelet_.watched(resource_)) {
    watched_at_ = now;
    heard_ = true;
  }
  if (registered_ && now - watched_at_ >= kUnwatchedPatience) {
    log_.warning("{}: the kubelet no longer listens; registering again", resource_);
    registered_ = false;
    not_before_ = now;
    // It was told where we are, and did not come: a listener of gRPC's that ran out of file
    // descriptors once accepts nobody any more. Nobody loses a stream by a new one.
    if (!heard_) {
      kubelet_.stop(resource_);
      serving_ = false;
    }
  }
  if (registered_) return now + kLookEvery;
  if (asking_ && now - asked_at_ < kRegistrationPatience) return asked_at_ + kRegistrationPatience;
  asking_ = false;
  if (now < not_before_) return not_before_;
  if (!serving_ && !serve(now)) return not_before_;
  if (socket.empty()) {
    trouble_ = "the kubelet is not there: it has no device-plugins/kubelet.sock";
    log_.once(Level::kWarning, "kubelet " + resource_,
              fmt::format("{}: waiting for the kubelet: there is no socket of it", resource_));
    return kNever;  // the folder is watched
  }
  asking_ = true;
  asked_at_ = now;
  kubelet_.register_plugin(resource_);
  return now + kRegistrationPatience;
}

bool Registration::serve(MonotonicTime now) {
  const Status served = kubelet_.serve(resource_, service_, list_);
  if (!served) {
    failed(served.error(), now);
    return false;
  }
  serving_ = true;
  return true;
}

void Registration::on_registered(const Status& status, MonotonicTime now) {
  if (!asking_) return;  // an answer to a question that was given up
  asking_ = false;
  if (!status) {
    failed(status.error(), now);
    return;
  }
  registered_ = true;
  heard_ = false;
  watched_at_ = now;
  retry_ = kFirstRetry;
  trouble_.clear();
  ++registrations_;
  log_.over("kubelet " + resource_);
  log_.over("serve " + resource_);
  log_.info("{}: registered with the kubelet, {} devices", resource_,
            list_ ? list_->devices.size() : 0);
}

void Registration::failed(const Error& error, MonotonicTime now) {
  ++failures_;
  trouble_ = error.message;
  log_.once(Level::kWarning, "serve " + resource_,
            fmt::format("{}: {}; tried again until it works", resource_, error.message));
  not_before_ = now + retry_;
  retry_ = std::min(retry_ * 2, kLongestRetry);
}

}  // namespace gpuslice::agent
