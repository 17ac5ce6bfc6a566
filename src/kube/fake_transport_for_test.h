#pragma once

// A transport on virtual time whose API server is the test: it sees each request and answers it as
// it likes.

#include <algorithm>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kube/transport.h"

namespace gpuslice::kube {

class FakeTransport final : public Transport {
 public:
  class FakeWire;
  struct Asked {
    FakeWire* wire;
    Request request;
    MonotonicTime at;
  };

  class FakeWire final : public Wire {
   public:
    explicit FakeWire(FakeTransport& owner) : owner_(owner) {}
    ~FakeWire() override { owner_.forget(this); }
    void send(Request request, Answer& answer) override {
      answer_ = &answer;
      owner_.asked.push_back({this, std::move(request), owner_.now()});
    }
    void cancel() override { answer_ = nullptr; }

    [[nodiscard]] bool open() const { return answer_ != nullptr; }
    void head(int status, Duration retry_after = {}) {
      if (answer_ != nullptr) answer_->on_head({status, retry_after});
    }
    void body(std::string_view bytes) {
      if (answer_ != nullptr) answer_->on_body(bytes);
    }
    void end(Status status = {}) {
      if (answer_ != nullptr) std::exchange(answer_, nullptr)->on_end(std::move(status));
    }
    void answer(int status, std::string_view bytes, Duration retry_after = {}) {
      head(status, retry_after);
      body(bytes);
      end();
    }
    void breaks(Code code = Code::kUnavailable) { end(fail(code, "the connection broke")); }

   private:
    FakeTransport& owner_;
    Answer* answer_ = nullptr;
  };

  [[nodiscard]] MonotonicTime now() const override { return now_; }
  [[nodiscard]] std::unique_ptr<Wire> wire() override { return std::make_unique<FakeWire>(*this); }
  [[nodiscard]] std::unique_ptr<Timer> timer() override {
    return std::make_unique<FakeTimer>(*this);
  }
  void post(std::function<void()> work) override { work(); }
  void stop() override {}

  // The next request that nobody took yet; the test fails by a throw when there is none.
  Asked take() {
    if (asked.empty()) throw std::out_of_range("nothing was asked");
    Asked first = std::move(asked.front());
    asked.pop_front();
    return first;
  }
  // Lets time pass until something is asked, at most `most`; how long that took.
  Duration until_asked(Duration most = std::chrono::minutes(10)) {
    const MonotonicTime begun = now_;
    while (asked.empty() && !timers_.empty() && timers_.begin()->first.first - begun <= most)
      run_one();
    return now_ - begun;
  }
  void pass(Duration time) {
    const MonotonicTime end = now_ + time;
    while (!timers_.empty() && timers_.begin()->first.first <= end) run_one();
    now_ = end;
  }

  std::deque<Asked> asked;

 private:
  using Key = std::pair<MonotonicTime, uint64_t>;

  class FakeTimer final : public Timer {
   public:
    explicit FakeTimer(FakeTransport& owner) : owner_(owner) {}
    ~FakeTimer() override { cancel(); }
    void after(Duration delay, std::function<void()> work) override {
      cancel();
      key_ = {owner_.now_ + delay, ++owner_.next_};
      owner_.timers_[key_] = std::move(work);
    }
    void cancel() override { owner_.timers_.erase(key_); }

   private:
    FakeTransport& owner_;
    Key key_{};
  };

  void run_one() {
    auto first = timers_.extract(timers_.begin());
    now_ = std::max(now_, first.key().first);
    first.mapped()();
  }
  void forget(const FakeWire* wire) {
    std::erase_if(asked, [wire](const Asked& one) { return one.wire == wire; });
  }

  MonotonicTime now_{std::chrono::hours(1)};
  uint64_t next_ = 0;
  std::map<Key, std::function<void()>> timers_;
};

}  // namespace gpuslice::kube
