#include "kube/watcher.h"

#include <utility>

namespace gpuslice::kube {

Watcher::Watcher(Transport& transport, Source source, uint64_t seed, Sink& sink, Seen seen)
    : transport_(transport),
      source_(std::move(source)),
      sink_(sink),
      seen_(std::move(seen)),
      random_(seed),
      backoff_(random_.next()),
      wire_(transport.wire()),
      timer_(transport.timer()) {}

void Watcher::list() {
  doing_ = Doing::kListing;
  head_ = {};
  refusal_.clear();
  cutter_.emplace(JsonCutter::Cut::kItems);
  if (continue_from_.empty()) {
    pages_ = 0;
    sink_.on_list_begins();
    seen_.relisted();
  }
  asked_ = transport_.now();
  wire_->send(list_request(source_, continue_from_), *this);
}

void Watcher::watch() {
  doing_ = Doing::kWatching;
  head_ = {};
  refusal_.clear();
  cutter_.emplace(JsonCutter::Cut::kStream);
  heard_ = false;
  asked_ = transport_.now();
  wire_->send(
      watch_request(source_, version_, random_.between(kWatchSecondsLeast, kWatchSecondsMost)),
      *this);
}

void Watcher::on_head(const Head& head) {
  head_ = head;
  seen_.answered(doing_ == Doing::kListing ? "list" : "watch", head.status);
  if (head.status == 200 && doing_ == Doing::kWatching) reachable();
}

void Watcher::on_body(std::string_view bytes) {
  if (head_.status != 200) {
    refusal_.append(bytes.substr(0, kMaxRefusalBytes - refusal_.size()));
    return;
  }
  const Status cut = cutter_->push(bytes, [this](std::string_view json) { return take(json); });
  if (cut) return;
  wire_->cancel();
  Error error = cut.error();
  // take_event() says kDiffers for a version that the API server has forgotten.
  const Failure failure = error.code == Code::kDiffers ? Failure::kRelist : Failure::kPasses;
  failed(std::move(error).in(source_.what), failure);
}

Status Watcher::take(std::string_view json) {
  if (doing_ == Doing::kWatching) return take_event(json);
  TRY_ASSIGN(ApiObject object, read_object(json));
  sink_.on_listed(std::move(object));
  return {};
}

Status Watcher::take_event(std::string_view json) {
  TRY_ASSIGN(WatchEvent event, read_watch_event(json));
  seen_.event();
  if (event.type == "ERROR") {
    if (event.object.code == 410 || event.object.reason == "Expired")
      return fail(Code::kDiffers, "the version of the watch is too old: {}", event.object.message);
    return fail(Code::kUnavailable, "the API server ended the watch: {}", event.object.message);
  }
  if (event.object.version.empty())
    return fail(Code::kFailed, "an event '{}' without a version", event.type);
  version_ = event.object.version;
  heard_ = true;
  resumes_ = 0;
  backoff_.succeeded();
  if (event.type == "ADDED" || event.type == "MODIFIED") sink_.on_changed(std::move(event.object));
  if (event.type == "DELETED") sink_.on_deleted(std::move(event.object));
  return {};  // a bookmark, or what a later API server may invent
}

void Watcher::on_end(Status status) {
  if (!status) {
    if (head_.status == 0) seen_.answered(doing_ == Doing::kListing ? "list" : "watch", 0);
    // A watch that worked and broke is resumed as one that ended.
    return failed(std::move(status).error().in(source_.what), Failure::kPasses);
  }
  if (head_.status != 200) {
    Refusal refusal = refusal_of(head_.status, refusal_,
                                 doing_ == Doing::kListing ? "list" : "watch", source_.what);
    return failed(std::move(refusal.error), refusal.expired ? Failure::kRelist : Failure::kPasses);
  }
  doing_ == Doing::kListing ? list_over() : watch_over();
}

void Watcher::list_over() {
  const Result<std::string> envelope = cutter_->end();
  if (!envelope) return failed(Error(envelope.error()).in(source_.what), Failure::kRelist);
  Result<ApiObject> list = read_object(*envelope);
  if (list && list->version.empty()) list = fail(Code::kFailed, "a list without a version");
  if (!list) return failed(Error(list.error()).in(source_.what), Failure::kRelist);
  continue_from_ = std::move(list->continue_from);
  if (!continue_from_.empty()) {
    if (++pages_ < kMaxListPages) return this->list();
    return failed({Code::kFailed, fmt::format("{}: a list without an end", source_.what), {}},
                  Failure::kRelist);
  }
  version_ = std::move(list->version);
  resumes_ = 0;
  sink_.on_list_ends();
  reachable();
  watch();
}

void Watcher::watch_over() {
  // Whatever stands half-said at the end of a watch is said again from `version_` on.
  if (heard_ || transport_.now() - asked_ >= kWatchSettled) {
    backoff_.succeeded();
    return watch();
  }
  failed({Code::kUnavailable,
          fmt::format("{}: the API server ends every watch at once", source_.what),
          {}},
         Failure::kPasses);
}

void Watcher::reachable() {
  failing_since_.reset();
  if (told_good_ == true) return;
  told_good_ = true;
  told_.clear();
  sink_.on_reachable({});
}

bool Watcher::odd() const {
  const int status = head_.status;
  return status == 200 || (status >= 400 && status < 500 && status != 401 && status != 429);
}

void Watcher::failed(Error error, Failure failure) {
  const bool worked = doing_ == Doing::kWatching && head_.status == 200 &&
                      (heard_ || transport_.now() - asked_ >= kWatchSettled);
  if (worked) backoff_.succeeded();
  if (doing_ == Doing::kListing) {
    continue_from_.clear();  // a page of an old list fits no new one
  } else if (failure == Failure::kRelist || (odd() && ++resumes_ > kMaxResumes)) {
    version_.clear();
  }
  if (failure == Failure::kRelist && error.code == Code::kDiffers && worked) return next({});
  const MonotonicTime now = transport_.now();
  if (!failing_since_) failing_since_ = now;
  // A token that was replaced a moment ago passes; a missing right does not.
  const bool for_good = head_.status != 401 &&
                        (error.code == Code::kNoPermission || error.code == Code::kInvalidConfig);
  const bool tell = for_good || now - *failing_since_ >= kToldAfter;
  if (tell && (told_good_ != false || told_ != error.message)) {
    told_good_ = false;
    told_ = error.message;
    sink_.on_reachable(std::unexpected(std::move(error)));
  }
  seen_.retried();
  next(backoff_.next(head_.retry_after));
}

void Watcher::next(Duration delay) {
  const bool listing = doing_ == Doing::kListing || version_.empty();
  timer_->after(delay, [this, listing] { listing ? list() : watch(); });
}

}  // namespace gpuslice::kube
