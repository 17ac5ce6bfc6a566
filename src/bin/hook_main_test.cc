#include "bin/hook_main.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace gpuslice::bin {
namespace {

namespace fs = std::filesystem;

class HookTest : public ::testing::Test {
 protected:
  HookTest() {
    std::string pattern = ::testing::TempDir() + "gpuslice-hook-XXXXXX";
    tmp_ = ::mkdtemp(pattern.data());
    root_ = tmp_ + "/rootfs";
    outside_ = tmp_ + "/outside";
    fs::create_directories(root_);
    fs::create_directories(outside_);
  }
  ~HookTest() override { fs::remove_all(tmp_); }
  static void write(const std::string& path, const std::string& text) {
    fs::create_directories(fs::path(path).parent_path());
    std::ofstream(path) << text;
  }
  static std::string text(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  [[nodiscard]] bool outside_is_empty() const { return fs::is_empty(outside_); }

  std::string tmp_, root_, outside_;
};

TEST_F(HookTest, TheRootIsWhatTheBundleSays) {
  write(tmp_ + "/bundle/config.json", R"({"root": {"path": "rootfs"}})");
  EXPECT_EQ(container_root(R"({"bundle": ")" + tmp_ + R"(/bundle"})").value(),
            tmp_ + "/bundle/rootfs");
  write(tmp_ + "/bundle/config.json", R"({"root": {"path": "/abs"}})");
  EXPECT_EQ(container_root(R"({"bundle": ")" + tmp_ + R"(/bundle"})").value(), "/abs");
  for (const char* bad : {"", "[]", "{}", R"({"bundle": 7})", R"({"bundle": "relative"})"})
    EXPECT_EQ(container_root(bad).error().code, Code::kInvalidConfig) << bad;
  EXPECT_EQ(container_root(R"({"bundle": "/nowhere"})").error().code, Code::kNotFound);
  for (const char* bad : {"", "{}", R"({"root": 1})", R"({"root": {"path": ""}})"}) {
    write(tmp_ + "/bundle/config.json", bad);
    EXPECT_EQ(container_root(R"({"bundle": ")" + tmp_ + R"(/bundle"})").error().code,
              Code::kInvalidConfig)
        << bad;
  }
}

TEST_F(HookTest, LinksAreMadeWithTheirFolders) {
  ASSERT_TRUE(create_symlinks(root_, {{"libcuda.so.580", "/usr/lib64/libcuda.so.1"},
                                      {"libcuda.so.1", "/usr/lib64/libcuda.so"}})
                  .has_value());
  EXPECT_EQ(fs::read_symlink(root_ + "/usr/lib64/libcuda.so.1"), "libcuda.so.580");
  EXPECT_EQ(fs::read_symlink(root_ + "/usr/lib64/libcuda.so"), "libcuda.so.1");
  // Again, and with another target: the newest counts. A file of the image stays.
  write(root_ + "/usr/lib64/libfile.so", "mine");
  ASSERT_TRUE(create_symlinks(root_, {{"libcuda.so.581", "/usr/lib64/libcuda.so.1"},
                                      {"x", "/usr/lib64/libfile.so"}})
                  .has_value());
  EXPECT_EQ(fs::read_symlink(root_ + "/usr/lib64/libcuda.so.1"), "libcuda.so.581");
  EXPECT_EQ(text(root_ + "/usr/lib64/libfile.so"), "mine");
}

// An image may hold any link: the host stays as it is.
TEST_F(HookTest, NoLinkOfAnImageLeadsOut) {
  fs::create_symlink(outside_, root_ + "/usr");
  fs::create_symlink("../../../../../../../../.." + outside_, root_ + "/opt");
  fs::create_directories(root_ + "/etc");
  fs::create_symlink(outside_, root_ + "/etc/ld.so.conf.d");
  // The container itself would look for these below its own root: so do we.
  EXPECT_FALSE(create_symlinks(root_, {{"t", "/usr/lib/a"}}).has_value());
  EXPECT_FALSE(create_symlinks(root_, {{"t", "/opt/b"}}).has_value());
  EXPECT_FALSE(update_ldcache(root_, {"/usr/lib64"}).has_value());
  fs::create_directories(root_ + outside_);
  EXPECT_TRUE(create_symlinks(root_, {{"t", "/usr/c"}, {"t", "/../../../x/../d"}}).has_value());
  EXPECT_EQ(fs::read_symlink(root_ + outside_ + "/c"), "t");
  EXPECT_TRUE(fs::is_symlink(root_ + "/d"));
  EXPECT_TRUE(outside_is_empty());
}

TEST_F(HookTest, TheLoadersCacheKnowsTheFolders) {
  if (::geteuid() != 0) GTEST_SKIP() << "ldconfig -r is a chroot: root only";
  const std::string lib = root_ + "/usr/lib/nvidia";
  fs::create_directories(lib);
  fs::create_directories(root_ + "/etc");
  fs::copy_file(A_LIBRARY, lib + "/libnvidia-ml.so.580.65.06");
  // The image's own file of that name is a link out: it is replaced, not followed.
  fs::create_directories(root_ + "/etc/ld.so.conf.d");
  fs::create_symlink(outside_ + "/victim", root_ + "/etc/ld.so.conf.d/00-gpuslice.conf");
  const Status done = update_ldcache(root_, {"/usr/lib/nvidia"});
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_EQ(text(root_ + "/etc/ld.so.conf.d/00-gpuslice.conf"), "/usr/lib/nvidia\n");
  EXPECT_NE(text(root_ + "/etc/ld.so.cache").find("/usr/lib/nvidia/libnvidia-ml.so.1"),
            std::string::npos);
  EXPECT_EQ(fs::read_symlink(lib + "/libnvidia-ml.so.1"), "libnvidia-ml.so.580.65.06");
  EXPECT_TRUE(outside_is_empty());
}

TEST_F(HookTest, WithoutEtcThereIsNoLoaderToTell) {
  EXPECT_TRUE(update_ldcache(root_, {"/usr/lib64"}).has_value());
  EXPECT_TRUE(fs::is_empty(root_));
}

TEST(HookCommand, IsReadStrictly) {
  const auto parse = [](std::vector<std::string> args) { return parse_hook_command(args); };
  EXPECT_EQ(parse({"create-symlinks", "--link", "a::/b", "--link", "c.so.1::/d/e"})->links,
            (std::vector<HookCommand::Link>{{"a", "/b"}, {"c.so.1", "/d/e"}}));
  EXPECT_EQ(parse({"update-ldcache", "--folder", "/a"})->folders, std::vector<std::string>{"/a"});
  EXPECT_EQ(parse({"update-ldcach"}).error().message,
            "hook: unknown hook 'update-ldcach'; did you mean 'update-ldcache'?");
  for (const std::vector<std::string>& bad : {std::vector<std::string>{},
                                              {"create-symlinks", "--link"},
                                              {"create-symlinks", "--folder", "/a"},
                                              {"create-symlinks", "--link", "::/b"},
                                              {"create-symlinks", "--link", "a::b"},
                                              {"create-symlinks", "--link", "a::/b/"},
                                              {"update-ldcache", "--folder", "a"},
                                              {"update-ldcache", "--folder", "/a\n/b"}})
    EXPECT_EQ(parse(bad).error().code, Code::kUsage);
}

}  // namespace
}  // namespace gpuslice::bin
