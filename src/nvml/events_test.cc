// The driver's events through its library: what is registered, what is heard, and that everything
// is let go.

#include "nvml/events.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <string>

namespace gpuslice::nvml {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr unsigned long long kXid = 0x8;
constexpr unsigned long long kDoubleBitEcc = 0x2;
constexpr unsigned kNone = 0xFFFFFFFFu;

class EventsTest : public ::testing::Test {
 protected:
  EventsTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice events XXXXXX";
    root_ = ::mkdtemp(pattern.data());
    fs::create_directories(root_ + "/lib64");
    fs::copy_file(FAKE_NVML, path());
    library_ = ::dlopen(path().c_str(), RTLD_LAZY | RTLD_LOCAL);
    EXPECT_NE(library_, nullptr);
  }
  ~EventsTest() override {
    ::dlclose(library_);
    fs::remove_all(root_);
  }
  [[nodiscard]] std::string path() const { return root_ + "/lib64/libnvidia-ml.so.1"; }
  template <class... Args>
  int fake(const char* name, Args... args) {
    auto* const function = reinterpret_cast<int (*)(Args...)>(::dlsym(library_, name));
    return function(args...);
  }
  void event(int gpu, unsigned long long type, unsigned long long data, unsigned gi = kNone,
             unsigned ci = kNone) {
    auto* const function =
        reinterpret_cast<void (*)(int, unsigned long long, unsigned long long, unsigned, unsigned)>(
            ::dlsym(library_, "fake_nvml_event"));
    function(gpu, type, data, gi, ci);
  }
  std::optional<ports::GpuEvent> next() {
    auto heard = reader_->wait(milliseconds(1));
    EXPECT_TRUE(heard.has_value()) << heard.error().message;
    return heard.value_or(std::nullopt);
  }

  std::string root_;
  void* library_ = nullptr;
  std::unique_ptr<EventReader> reader_;
};

struct OpenTest : EventsTest {
  OpenTest() { reader_ = std::make_unique<EventReader>(root_); }
};

TEST_F(OpenTest, RegistersWhatEachGpuSupportsAndNamesThoseThatCannotBeWatched) {
  const auto refused = reader_->open({});
  ASSERT_TRUE(refused.has_value()) << refused.error().message;
  ASSERT_EQ(refused->size(), 1U) << "the third one fell off the bus";
  EXPECT_EQ((*refused)[0].code, Code::kGpuLost);
  EXPECT_TRUE((*refused)[0].message.starts_with("GPU 2: nvmlDeviceGetUUID: GPU is lost"))
      << (*refused)[0].message;
  EXPECT_EQ(fake("fake_nvml_registered", 0), static_cast<int>(kXid | kDoubleBitEcc));
  EXPECT_EQ(fake("fake_nvml_registered", 1), static_cast<int>(kXid));
  EXPECT_EQ(fake("fake_nvml_registered", 2), 0);
}

// A registration that fails leaves the set undefined: the others are registered in a new one.
TEST_F(OpenTest, ARefusedRegistrationTakesNobodyElseAway) {
  fake("fake_nvml_refuse", 0);
  const auto refused = reader_->open({});
  ASSERT_TRUE(refused.has_value());
  EXPECT_EQ(refused->size(), 2U);
  EXPECT_EQ(fake("fake_nvml_registered", 0), 0);
  EXPECT_EQ(fake("fake_nvml_registered", 1), static_cast<int>(kXid));
  EXPECT_EQ(fake("fake_nvml_sets_open"), 1);
}

TEST_F(OpenTest, AGpuThatIsLeftOutIsNotTouched) {
  const auto refused = reader_->open({0, 2});
  ASSERT_TRUE(refused.has_value());
  EXPECT_TRUE(refused->empty());
  EXPECT_EQ(fake("fake_nvml_registered", 0), 0);
  EXPECT_EQ(fake("fake_nvml_registered", 1), static_cast<int>(kXid));
}

TEST_F(OpenTest, HearsXidsWithTheirInstancesAndDoubleBitErrors) {
  ASSERT_TRUE(reader_->open({}).has_value());
  EXPECT_EQ(next(), std::nullopt) << "nothing came";
  event(1, kXid, 94, 7, 0);
  EXPECT_EQ(next(),
            (ports::GpuEvent{"GPU-0001", ports::GpuEvent::Kind::kXid, 94, GiId{7}, CiId{0}}));
  event(1, kXid, 94, 7);
  EXPECT_EQ(next(), (ports::GpuEvent{"GPU-0001", ports::GpuEvent::Kind::kXid, 94, GiId{7}, {}}));
  event(0, kXid, 79, kNone, 3);
  EXPECT_EQ(next(), (ports::GpuEvent{"GPU-0000", ports::GpuEvent::Kind::kXid, 79, {}, {}}))
      << "a compute instance of no GPU instance is none";
  event(0, kDoubleBitEcc, 5);
  EXPECT_EQ(next(), (ports::GpuEvent{"GPU-0000", ports::GpuEvent::Kind::kDoubleBitEcc, 0, {}, {}}));
  event(0, 0x100, 1);
  EXPECT_EQ(next(), std::nullopt) << "nobody asked for that";
  event(2, kXid, 79);
  EXPECT_EQ(next(), std::nullopt) << "of a GPU that is not registered";
}

TEST_F(OpenTest, AWaitThatFailsIsAnErrorWithTheCall) {
  EXPECT_EQ(reader_->wait(milliseconds(1)).error().code, Code::kUnavailable) << "not open";
  ASSERT_TRUE(reader_->open({}).has_value());
  fake("fake_nvml_fail_waits", 1);
  const auto heard = reader_->wait(milliseconds(1));
  ASSERT_FALSE(heard.has_value());
  EXPECT_EQ(heard.error(),
            (Error{Code::kGpuLost, "NVIDIA driver: nvmlEventSetWait_v2: GPU is lost (15)", {}}));
}

TEST_F(OpenTest, ClosedItHoldsNothing) {
  ASSERT_TRUE(reader_->open({}).has_value());
  EXPECT_EQ(fake("fake_nvml_open_count"), 1);
  EXPECT_EQ(fake("fake_nvml_sets_open"), 1);
  ASSERT_TRUE(reader_->open({}).has_value()) << "anew";
  EXPECT_EQ(fake("fake_nvml_open_count"), 1);
  EXPECT_EQ(fake("fake_nvml_sets_open"), 1);
  reader_->close();
  EXPECT_FALSE(reader_->is_open());
  EXPECT_EQ(fake("fake_nvml_open_count"), 0);
  EXPECT_EQ(fake("fake_nvml_sets_open"), 0);
}

TEST_F(OpenTest, WithoutADriverNothingIsOpen) {
  fs::remove(path());
  EventReader none(root_ + "/lib64");
  EXPECT_EQ(none.open({}).error().code, Code::kUnavailable);
  EXPECT_FALSE(none.is_open());
}

}  // namespace
}  // namespace gpuslice::nvml
