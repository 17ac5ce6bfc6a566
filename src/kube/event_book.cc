#include "kube/event_book.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/check.h"
#include "base/log.h"

namespace gpuslice::kube {
namespace {

using nlohmann::json;

// Not in the middle of a character.
void cut(std::string& text, size_t most) {
  if (text.size() <= most) return;
  size_t end = most;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
}

// metav1.Time has whole seconds: "2026-11-24T10:16:37Z".
std::string seconds_utc(WallTime time) {
  std::string text = format_utc(time);
  const size_t dot = text.find('.');
  if (dot != std::string::npos) text.replace(dot, std::string::npos, "Z");
  return text;
}

std::string text_of(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace

EventBook::EventBook(std::string node, uint64_t seed) : node_(std::move(node)), random_(seed) {}

bool EventBook::record(ports::KubeEvent event, MonotonicTime now) {
  cut(event.reason, ports::kMaxEventReasonBytes);
  cut(event.message, ports::kMaxEventMessageBytes);
  const Key key{static_cast<int>(event.about),
                event.pod.name_space,
                event.pod.name,
                event.pod_uid,
                event.warning,
                event.reason,
                event.message};
  auto found = entries_.find(key);
  if (found == entries_.end()) {
    if (entries_.size() >= kMaxEventsKept && !make_room()) return false;
    found = entries_.emplace(key, Entry{}).first;
    found->second.first = event.at;
    found->second.not_before = now;
    found->second.age = ages_.insert(ages_.end(), key);
  }
  Entry& entry = found->second;
  ages_.splice(ages_.end(), ages_, entry.age);
  entry.event = std::move(event);
  ++entry.waiting;
  return true;
}

bool EventBook::make_room() {
  for (auto key = ages_.begin(); key != ages_.end(); ++key) {
    const auto entry = entries_.find(*key);
    if (entry->second.waiting > 0 || sending_ == *key) continue;
    entries_.erase(entry);
    ages_.erase(key);
    return true;
  }
  return false;
}

int64_t EventBook::tokens(MonotonicTime now) const {
  const int64_t refilled = (now - spent_since_) / kEventRefill;
  return kEventBurst - std::max<int64_t>(0, spent_ - refilled);
}

std::optional<Request> EventBook::next(MonotonicTime now) {
  CHECK(!sending_, "an Event is asked for while another is under way");
  // Before the node was seen its uid is not known, and an Event without it is shown nowhere.
  if (node_uid_.empty()) return std::nullopt;
  for (const Key& key : ages_) {
    Entry& entry = entries_.at(key);
    if (entry.waiting == 0 || entry.not_before > now) continue;
    if (!entry.object.empty() && now - entry.touched > kEventLife) {
      entry.object.clear();
      entry.written = 0;
    }
    creating_ = entry.object.empty();
    if (creating_) {
      if (tokens(now) <= 0) continue;
      const int64_t left = tokens(now);
      spent_ = kEventBurst - left + 1;
      // The bucket goes on refilling from where it is, not from nothing.
      spent_since_ = spent_ == 1 ? now : now - (now - spent_since_) % kEventRefill;
    }
    sending_ = key;
    sending_count_ = entry.waiting;
    return creating_ ? create(entry) : count(entry);
  }
  return std::nullopt;
}

uint64_t EventBook::done(const Status& status, MonotonicTime now) {
  CHECK(sending_.has_value(), "an Event is done that was not begun");
  Entry& entry = entries_.at(*sending_);
  sending_.reset();
  entry.not_before = now + kEventPause;
  if (!status && !creating_ && status.error().code == Code::kNotFound) {
    // Its hour is over: begin again, now.
    entry.object.clear();
    entry.written = 0;
    entry.first = entry.event.at;
    entry.not_before = now;
    return 0;
  }
  // An Event of that name that is there already: an earlier try reached the API server, and only
  // its answer was lost.
  const bool there = creating_ && !status && status.error().code == Code::kDiffers;
  if (!status && !there) {
    if (creating_) entry.object.clear();
    const bool passes =
        status.error().code == Code::kUnavailable || status.error().code == Code::kTimeout;
    if (passes) return 0;
    if (status.error().code == Code::kNoPermission && ++entry.refused < kMaxEventRefusals) return 0;
    // No right, or nonsense: said again it is refused again.
    entry.refused = 0;
    entry.waiting -= sending_count_;
    return 0;
  }
  entry.written += sending_count_;
  entry.waiting -= sending_count_;
  entry.refused = 0;
  entry.touched = now;
  return sending_count_;
}

std::optional<MonotonicTime> EventBook::due(MonotonicTime now) const {
  if (node_uid_.empty()) return std::nullopt;
  std::optional<MonotonicTime> soonest;
  for (const auto& [key, entry] : entries_) {
    if (entry.waiting == 0) continue;
    MonotonicTime when = entry.not_before;
    const bool creates = entry.object.empty() || now - entry.touched > kEventLife;
    if (creates && tokens(now) <= 0)
      when = std::max(when, now + kEventRefill - (now - spent_since_) % kEventRefill);
    if (!soonest || when < *soonest) soonest = when;
  }
  return soonest;
}

std::string EventBook::name_space(const ports::KubeEvent& event) const {
  // Events of objects that are in no namespace lie in "default".
  return event.about == ports::KubeEvent::About::kPod ? event.pod.name_space : "default";
}

Request EventBook::create(Entry& entry) {
  const ports::KubeEvent& event = entry.event;
  const bool pod = event.about == ports::KubeEvent::About::kPod;
  std::string name = pod ? event.pod.name : node_;
  cut(name, 200);  // of 253 that an object's name may have
  entry.object = fmt::format("{}.{:016x}", name, random_.next());
  json object = {{"apiVersion", "v1"},
                 {"kind", pod ? "Pod" : "Node"},
                 {"name", pod ? event.pod.name : node_},
                 {"uid", pod ? event.pod_uid : node_uid_}};
  if (pod) object["namespace"] = event.pod.name_space;
  Request request;
  request.verb = "create";
  request.method = "POST";
  request.target = fmt::format("/api/v1/namespaces/{}/events", percent_encoded(name_space(event)));
  request.content_type = "application/json";
  request.body = text_of({{"apiVersion", "v1"},
                          {"kind", "Event"},
                          {"metadata", {{"name", entry.object}, {"namespace", name_space(event)}}},
                          {"involvedObject", object},
                          {"type", event.warning ? "Warning" : "Normal"},
                          {"reason", event.reason},
                          {"message", event.message},
                          {"count", entry.waiting},
                          {"firstTimestamp", seconds_utc(entry.first)},
                          {"lastTimestamp", seconds_utc(event.at)},
                          {"source", {{"component", ports::kFieldManager}, {"host", node_}}},
                          {"reportingComponent", ports::kFieldManager},
                          {"reportingInstance", node_}});
  return request;
}

Request EventBook::count(const Entry& entry) const {
  Request request;
  request.verb = "patch";
  request.method = "PATCH";
  request.target =
      fmt::format("/api/v1/namespaces/{}/events/{}", percent_encoded(name_space(entry.event)),
                  percent_encoded(entry.object));
  request.content_type = "application/merge-patch+json";
  request.body = text_of(
      {{"count", entry.written + entry.waiting}, {"lastTimestamp", seconds_utc(entry.event.at)}});
  return request;
}

}  // namespace gpuslice::kube
