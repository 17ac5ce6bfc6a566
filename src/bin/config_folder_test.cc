#include "bin/config_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

// A mounted ConfigMap, as the kubelet lays it out.
class ConfigFolderTest : public ::testing::Test {
 protected:
  ConfigFolderTest() : dir_(fs::temp_directory_path() / fmt::format("cf-{}", ::getpid())) {
    fs::remove_all(dir_);
    fs::create_directories(dir_);
  }
  ~ConfigFolderTest() override { fs::remove_all(dir_); }

  void mount(const std::vector<std::string>& keys) {
    const std::string data = fmt::format("..{}", ++mounts_);
    fs::create_directory(dir_ / data);
    for (const std::string& key : keys) {
      std::ofstream(dir_ / data / key) << mounts_;
      if (!fs::is_symlink(dir_ / key)) fs::create_symlink("..data/" + key, dir_ / key);
    }
    fs::create_symlink(data, dir_ / "..tmp");
    fs::rename(dir_ / "..tmp", dir_ / "..data");
  }
  ConfigFolder fresh(bool by_label, const std::string& by_default = "") {
    return {
        {dir_.string(), by_default, by_label}, *loop_, [this](Result<std::string> file) {
          said_.push_back(file ? fs::path(*file).filename().string() : "! " + file.error().message);
          if (awaited_ && awaited_()) loop_->stop();
        }};
  }
  // Whether something with this text is said within a while; "" for anything.
  bool says(const std::string& text, milliseconds most = std::chrono::seconds(5)) {
    const size_t before = said_.size();
    awaited_ = [this, text, before] {
      return said_.size() > before && said_.back().find(text) != std::string::npos;
    };
    const auto late = loop_->after(most, [this] { loop_->stop(); });
    loop_->run();
    return std::exchange(awaited_, nullptr)();
  }

  fs::path dir_;
  int mounts_ = 0;
  std::vector<std::string> said_;
  std::function<bool()> awaited_;
  std::unique_ptr<host::EventLoop> loop_ = std::move(*host::EventLoop::create());
};

TEST_F(ConfigFolderTest, WithoutALabelItSaysAtOnceAndFollowsTheMount) {
  mount({"a", "default"});
  ConfigFolder folder = fresh(false);
  ASSERT_TRUE(folder.start());
  EXPECT_EQ(said_, (std::vector<std::string>{"default"}));
  mount({"a", "default"});
  EXPECT_TRUE(says("default"));  // an edit: look at it again
}

TEST_F(ConfigFolderTest, NothingIsSaidBeforeTheNodeIsSeen) {
  mount({"a", "b"});
  ConfigFolder folder = fresh(true, "a");
  ASSERT_TRUE(folder.start());
  mount({"a", "b"});
  EXPECT_FALSE(says("", milliseconds(100)));
  folder.on_label("b");
  EXPECT_EQ(said_, (std::vector<std::string>{"b"}));  // never a
  folder.on_label(std::nullopt);
  EXPECT_EQ(said_.back(), "a");
}

TEST_F(ConfigFolderTest, AKeyThatComesOrGoesIsSeen) {
  mount({"a"});
  ConfigFolder folder = fresh(true);
  ASSERT_TRUE(folder.start());
  folder.on_label("b");
  EXPECT_NE(said_.back().find("names the key b, which is not there"), std::string::npos);
  mount({"a", "b"});
  EXPECT_TRUE(says("b"));
  mount({"a"});  // the link of b is there and leads nowhere
  EXPECT_TRUE(says("names the key b, which is not there"));
}

TEST_F(ConfigFolderTest, APlainFolderIsFollowedAsWell) {
  std::ofstream(dir_ / "a") << "1";
  ConfigFolder folder = fresh(true);
  ASSERT_TRUE(folder.start());
  folder.on_label("a");
  std::ofstream(dir_ / "a") << "2";
  EXPECT_TRUE(says("a"));
  folder.on_label("b");
  EXPECT_EQ(said_.back().substr(0, 1), "!");
  std::ofstream(dir_ / "b") << "3";
  EXPECT_TRUE(says("b"));
  fs::remove(dir_ / "b");
  EXPECT_TRUE(says("! "));
}

TEST_F(ConfigFolderTest, AFolderThatIsNotThereIsSaid) {
  fs::remove_all(dir_);
  ConfigFolder folder = fresh(true);
  ASSERT_TRUE(folder.start());
  folder.on_label("a");
  EXPECT_NE(said_.back().find("cannot be read"), std::string::npos);
  fs::create_directories(dir_);
  mount({"a"});
  EXPECT_TRUE(says("a"));
}

}  // namespace
}  // namespace gpuslice::bin
