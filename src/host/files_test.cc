#include "host/files.h"

#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "host/node_host.h"
#include "host/path_watch.h"

namespace gpuslice::host {
namespace {

namespace fs = std::filesystem;

class FilesTest : public ::testing::Test {
 protected:
  FilesTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice host XXXXXX";
    dir_ = ::mkdtemp(pattern.data());
  }
  ~FilesTest() override { fs::remove_all(dir_); }

  [[nodiscard]] std::string at(const std::string& name) const { return dir_ + "/" + name; }
  static void put(const std::string& path, const std::string& content) {
    std::ofstream(path) << content;
  }

  std::string dir_;
};

TEST_F(FilesTest, ReadsUpToItsBoundAndNotBeyond) {
  put(at("a"), "12345");
  EXPECT_EQ(*read_file(at("a"), 5), "12345");
  const auto over = read_file(at("a"), 4);
  ASSERT_FALSE(over.has_value());
  EXPECT_EQ(over.error().code, Code::kInvalidConfig);
  EXPECT_EQ(over.error().message, at("a") + ": cannot be read: it is longer than 4 bytes");
  put(at("empty"), "");
  EXPECT_EQ(*read_file(at("empty"), 10), "");
  EXPECT_FALSE(read_file("/proc/self/status", 1 << 20)->empty());
}

TEST_F(FilesTest, SaysWhyAFileCannotBeRead) {
  EXPECT_EQ(
      read_file(at("none"), 5).error(),
      (Error{Code::kNotFound, at("none") + ": cannot be read: No such file or directory", {}}));
  EXPECT_EQ(read_file(dir_, 5).error().message,
            dir_ + ": cannot be read: it is not a regular file");
  ASSERT_EQ(::mkfifo(at("fifo").c_str(), 0600), 0);
  EXPECT_EQ(read_file(at("fifo"), 5).error().code, Code::kInvalidConfig);
}

TEST_F(FilesTest, WritesThroughNewFoldersAndReplaces) {
  const std::string path = at("x/y/last-good.yaml");
  ASSERT_TRUE(write_file_atomically(path, "one", true).has_value());
  ASSERT_TRUE(write_file_atomically(path, "two", false).has_value());
  EXPECT_EQ(*read_file(path, 100), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(at("x/y")), fs::directory_iterator()), 1);
}

TEST_F(FilesTest, AFailedWriteLeavesTheOldContent) {
  fs::create_directory(at("target"));
  const Status written =
      write_file_atomically(at("target"), "x", true);  // a folder cannot be replaced
  ASSERT_FALSE(written.has_value());
  EXPECT_EQ(written.error().message, at("target") + ": cannot be replaced: Is a directory");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir_), fs::directory_iterator()), 1);
  put(at("file"), "");
  EXPECT_EQ(write_file_atomically(at("file/under"), "x", true).error().message,
            at("file") + ": cannot be made a folder: something else stands there");
}

TEST_F(FilesTest, RemovingTwiceIsNoFailure) {
  put(at("a"), "");
  EXPECT_TRUE(remove_file(at("a")).has_value());
  EXPECT_TRUE(remove_file(at("a")).has_value());
  EXPECT_EQ(remove_file(at("")).error().code, Code::kFailed);
}

TEST_F(FilesTest, ThePortReadsTheBootIdBelowItsRoot) {
  NodeFiles node(dir_);
  EXPECT_EQ(node.boot_id().value_or(""), NodeFiles("/").boot_id().value_or("none"));
  ASSERT_TRUE(
      node.write_atomic(at("proc/sys/kernel/random/boot_id"), "abc-1\n", false).has_value());
  EXPECT_EQ(*node.boot_id(), "abc-1");
  EXPECT_TRUE(node.exists(at("proc")));
  EXPECT_FALSE(node.exists(at("none")));
  EXPECT_EQ(*node.read(at("proc/sys/kernel/random/boot_id"), 6), "abc-1\n");
}

// --- PathWatch ---

class PathWatchTest : public FilesTest {
 protected:
  PathWatchTest() { loop_ = std::move(*EventLoop::create()); }

  void watch(const std::string& path, bool settle = true) {
    auto watch = PathWatch::watch(*loop_, path, settle, [this] {
      ++changes_;
      loop_->stop();
    });
    ASSERT_TRUE(watch.has_value()) << watch.error().text();
    watch_ = std::move(*watch);
  }
  // Whether a change is told within a second.
  bool told() {
    const int before = changes_;
    auto limit = loop_->after(std::chrono::seconds(1), [this] { loop_->stop(); });
    loop_->run();
    return changes_ > before;
  }
  // Whether nothing is told for a while.
  bool quiet() {
    const int before = changes_;
    auto limit = loop_->after(std::chrono::milliseconds(300), [this] { loop_->stop(); });
    loop_->run();
    return changes_ == before;
  }
  ~PathWatchTest() override { watch_.reset(); }

  std::unique_ptr<EventLoop> loop_;
  std::unique_ptr<PathWatch> watch_;
  int changes_ = 0;
};

TEST_F(PathWatchTest, SeesWritesInPlace) {
  put(at("c.yaml"), "1");
  watch(at("c.yaml"));
  put(at("c.yaml"), "2");
  EXPECT_TRUE(told());
  std::ofstream(at("c.yaml"), std::ios::app) << "3";
  EXPECT_TRUE(told());
  EXPECT_TRUE(quiet());
}

TEST_F(PathWatchTest, SeesReplacementByRenameAgainAndAgain) {
  put(at("c.yaml"), "1");
  watch(at("c.yaml"));
  for (int i = 0; i < 3; ++i) {
    put(at("new"), std::to_string(i));
    fs::rename(at("new"), at("c.yaml"));
    EXPECT_TRUE(told());
  }
  put(at("c.yaml"), "in place, in the newest inode");
  EXPECT_TRUE(told());
}

TEST_F(PathWatchTest, SeesAConfigMapSwap) {
  fs::create_directory(at("..1"));
  put(at("..1/c.yaml"), "1");
  fs::create_directory_symlink("..1", at("..data"));
  fs::create_symlink("..data/c.yaml", at("c.yaml"));
  watch(at("c.yaml"));
  for (int i = 2; i < 5; ++i) {
    const std::string next = "..";
    fs::create_directory(at(next + std::to_string(i)));
    put(at(next + std::to_string(i) + "/c.yaml"), std::to_string(i));
    fs::create_directory_symlink(next + std::to_string(i), at("..data_tmp"));
    fs::rename(at("..data_tmp"), at("..data"));
    EXPECT_TRUE(told());
    fs::remove_all(at(next + std::to_string(i - 1)));
    EXPECT_EQ(*read_file(at("c.yaml"), 10), std::to_string(i));
  }
}

TEST_F(PathWatchTest, SeesFoldersRemovedAndMadeAgain) {
  fs::create_directories(at("a/b"));
  put(at("a/b/c.yaml"), "1");
  watch(at("a/b/c.yaml"));
  fs::remove_all(at("a"));
  EXPECT_TRUE(told());
  fs::create_directories(at("a/b"));
  told();  // the folder alone may be told as well
  put(at("a/b/c.yaml"), "2");
  EXPECT_TRUE(told());
  fs::rename(at("a"), at("z"));
  EXPECT_TRUE(told());
  fs::rename(at("z"), at("a"));
  EXPECT_TRUE(told());
  put(at("a/b/c.yaml"), "3");
  EXPECT_TRUE(told());
}

TEST_F(PathWatchTest, SeesAFileThatComesLater) {
  watch(at("not/yet/here"));
  EXPECT_TRUE(quiet());
  fs::create_directories(at("not/yet"));
  put(at("not/yet/here"), "1");
  EXPECT_TRUE(told());
}

// As a kubelet does when it starts, raced on purpose: what is watched goes and comes while it is
// being walked.
TEST_F(PathWatchTest, MissesNothingOfAFolderThatIsMadeAgainWhileItLooks) {
  constexpr int kRounds = 400;
  std::atomic<int> seen{-1};
  std::atomic<bool> missed{false};
  fs::create_directories(at("a/b"));
  auto watch = PathWatch::watch(*loop_, at("a/b/it"), false, [&] {
    if (const auto text = read_file(at("a/b/it"), 10); text && !text->empty())
      seen = std::stoi(*text);
  });
  ASSERT_TRUE(watch.has_value()) << watch.error().text();
  std::thread kubelet([&] {
    for (int round = 0; round < kRounds && !missed; ++round) {
      put(at("next"), std::to_string(round));
      fs::remove(at("a/b/it"));
      for (int turn = 0; turn <= round % 7; ++turn) {
        ::rmdir(at("a/b").c_str());
        ::mkdir(at("a/b").c_str(), 0700);
      }
      fs::rename(at("next"), at("a/b/it"));
      const auto until = EventLoop::now() + std::chrono::seconds(2);
      while (seen != round && !missed) {
        missed = EventLoop::now() > until;
        std::this_thread::yield();
      }
    }
    while (!loop_->post([this] { loop_->stop(); })) std::this_thread::yield();
  });
  loop_->run();
  kubelet.join();
  EXPECT_FALSE(missed) << "seen up to " << seen << " of " << kRounds;
}

TEST_F(PathWatchTest, NeighboursDoNotWakeIt) {
  put(at("c.yaml"), "1");
  watch(at("c.yaml"));
  put(at("d.yaml"), "2");
  fs::remove(at("d.yaml"));
  EXPECT_TRUE(quiet());
}

TEST_F(PathWatchTest, ABurstIsToldOnceItSettles) {
  put(at("c.yaml"), "1");
  watch(at("c.yaml"));
  for (int i = 0; i < 50; ++i) put(at("c.yaml"), std::to_string(i));
  EXPECT_TRUE(told());
  EXPECT_TRUE(quiet());
  EXPECT_EQ(changes_, 1);
}

TEST_F(PathWatchTest, ALoopOfLinksIsNoLoopOfOurs) {
  fs::create_symlink("b", at("a"));
  fs::create_symlink("a", at("b"));
  watch(at("a"));
  fs::remove(at("b"));
  put(at("b"), "1");
  EXPECT_TRUE(told());
}

}  // namespace
}  // namespace gpuslice::host
