// World files that are not whole.

#include "sim/world_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>

#include "sim/testing.h"
#include "sim/validate.h"
#include "sim/world.h"

namespace gpuslice::sim {
namespace {

struct Damage {
  const char* what;
  size_t offset;
  std::string bytes;
  const char* cause;
};

TEST(WorldFile, RefusesWhatIsNotWholeAndSaysWhy) {
  const std::vector<Damage> damages = {
      {"magic", 0, "G", "it does not begin as a world file does"},
      {"format", 16, "\x09", "it is of format 9 where this version reads 1"},
      {"byte order", 20, std::string("\x01\x02\x03\x04", 4),
       "it was written by a machine of the other byte order"},
      {"sequence", 40, "\x07", "its checksum is wrong: something else has written to it"},
      {"checksum", 48, "\x01\x02\x03", "its checksum is wrong: something else has written to it"},
      {"state", 4096 + 5000, "\x55", "its checksum is wrong: something else has written to it"},
  };
  for (const Damage& damage : damages) {
    SCOPED_TRACE(damage.what);
    const TempFolder folder;
    (void)must(World::create(folder.path(), four_a100()));
    const std::string path = folder.path() + "/world/state";
    {
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekp(static_cast<std::streamoff>(damage.offset));
      file.write(damage.bytes.data(), static_cast<std::streamsize>(damage.bytes.size()));
    }
    const auto world = World::open(folder.path());
    ASSERT_FALSE(world);
    EXPECT_EQ(world.error().code, Code::kCorrupt);
    EXPECT_EQ(
        world.error().text(),
        fmt::format("simulated node: world file {}: refused: {}; remove the node's folder and "
                    "make it anew with gpuslice-sim create",
                    path, damage.cause));
  }
}

TEST(WorldFile, RefusesOtherLengthsAndOtherThings) {
  const TempFolder folder;
  const auto missing = World::open(folder.path() + "/none");
  ASSERT_FALSE(missing);
  EXPECT_EQ(missing.error().code, Code::kNotFound);
  EXPECT_EQ(
      missing.error().text(),
      "simulated node: no world file " + folder.path() +
          "/none/world/state; make a node with gpuslice-sim create, or name the right folder");
  (void)must(World::create(folder.path(), four_a100()));
  const std::string path = folder.path() + "/world/state";
  ASSERT_EQ(truncate(path.c_str(), 5000), 0);
  const auto cut = World::open(folder.path());
  ASSERT_FALSE(cut);
  EXPECT_EQ(cut.error().code, Code::kCorrupt);
  EXPECT_NE(cut.error().text().find("it has 5000 bytes where"), std::string::npos);
  ASSERT_EQ(unlink(path.c_str()), 0);
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);
  const auto directory = World::open(folder.path());
  ASSERT_FALSE(directory);
}

TEST(WorldFile, DamageUnderARunningWorldIsToldByTheNextWrite) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  bump(*world);
  const std::shared_ptr<const State> good = world->snapshot();
  const auto other = must(World::open(folder.path()));
  const int fd = open((folder.path() + "/world/state").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  const std::string junk(64, 'x');
  for (const size_t copy : {size_t{0}, size_t{1}})
    ASSERT_EQ(pwrite(fd, junk.data(), junk.size(),
                     static_cast<off_t>(kWorldPage + copy * kCopyBytes + 4096)),
              64);
  close(fd);
  const Status status = world->write([](State&) {});
  ASSERT_FALSE(status);
  EXPECT_EQ(status.error().code, Code::kCorrupt);
  EXPECT_EQ(world->snapshot(), good);
  EXPECT_EQ(other->snapshot()->node.gpu_count, 0U) << "it had read nothing yet";
}

TEST(WorldFile, NothingInItIsNewerThanItsClock) {
  const TempFolder folder;
  const auto world = must(World::create(folder.path(), four_a100()));
  bump(*world);
  const State good = *world->snapshot();
  ASSERT_TRUE(validate(good));
  EXPECT_LE(good.life.gpus[0].settled_ns, good.node.clock.last_ns);
  State one = good;
  one.life.past[0][0].until_ns = one.life.gpus[0].settled_ns + 1;
  EXPECT_EQ(validate(one).error().message, "GPU 0: an impossible past");
  one = good;
  one.life.gpus[1].settled_ns = one.node.clock.last_ns + 1;
  EXPECT_EQ(validate(one).error().message, "GPU 1: energy or temperature of an impossible time");
}

}  // namespace
}  // namespace gpuslice::sim
