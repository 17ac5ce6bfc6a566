#include <gtest/gtest.h>
#include <yaml-cpp/yaml.h>

#include <map>
#include <set>
#include <string>

#include "gpu/board.h"
#include "gpu/board_profiles.h"
#include "gpu/uuid.h"

namespace gpuslice::gpu {
namespace {

std::string places(std::span<const Placement> placements) {
  std::string out;
  for (const Placement p : placements)
    out += std::to_string(p.start) + ":" + std::to_string(p.size) + " ";
  return out;
}

TEST(Boards, EveryRowIsThatOfTheDataFile) {
  const YAML::Node devices = YAML::LoadFile("data/mig-profiles.yaml")["devices"];
  size_t rows = 0;
  for (const ProfileTable& table : profile_tables()) {
    const YAML::Node device = devices[std::string(table.key)];
    ASSERT_TRUE(device.IsMap()) << table.key;
    ASSERT_EQ(device["profiles"].size(), table.profiles.size()) << table.key;
    std::map<int, YAML::Node> by_enum;
    for (const YAML::Node& row : device["profiles"]) by_enum[row["nvml_gi_enum"].as<int>()] = row;
    for (const Profile& p : table.profiles) {
      const YAML::Node row = by_enum.at(p.gi_enum);
      ++rows;
      EXPECT_EQ(row["name"].as<std::string>(), p.name);
      EXPECT_EQ(row["smi_id"].as<uint32_t>(), p.id.value) << p.name;
      EXPECT_EQ(row["slices"].as<uint32_t>(), p.slices) << p.name;
      EXPECT_EQ(row["memory_mib"].as<uint32_t>(), p.memory_mib) << p.name;
      EXPECT_EQ(row["sm"].as<uint32_t>(), p.sm) << p.name;
      EXPECT_EQ(row["ce"].as<uint32_t>(), p.ce) << p.name;
      EXPECT_EQ(row["nvdec"].as<uint32_t>(), p.dec) << p.name;
      EXPECT_EQ(row["nvenc"].as<uint32_t>(), p.enc) << p.name;
      EXPECT_EQ(row["jpeg"].as<uint32_t>(), p.jpeg) << p.name;
      EXPECT_EQ(row["ofa"].as<uint32_t>(), p.ofa) << p.name;
      EXPECT_EQ(row["max_instances"].as<uint32_t>(), p.max_instances) << p.name;
      std::string want;
      for (const YAML::Node& place : row["placements"]) want += place.as<std::string>() + " ";
      EXPECT_EQ(want, places(p.placements)) << p.name;
    }
  }
  EXPECT_EQ(rows, 5U + 7U * 6U + 11U);  // A30, six 8-slice boards, RTX PRO 6000
}

TEST(Boards, EachBoardOfTheFileIsKnownOrRefusedByName) {
  const YAML::Node devices = YAML::LoadFile("data/mig-profiles.yaml")["devices"];
  std::set<std::string> keys;
  for (const ProfileTable& t : profile_tables()) keys.insert(std::string(t.key));
  for (const UnknownBoard& b : unknown_boards()) keys.insert(std::string(b.key));
  for (const auto& device : devices) EXPECT_TRUE(keys.contains(device.first.as<std::string>()));
}

TEST(Boards, PciIdsAreThoseOfTheDataFile) {
  const YAML::Node devices = YAML::LoadFile("data/mig-profiles.yaml")["devices"];
  for (const Board& b : boards()) {
    if (!b.mig()) continue;
    std::set<uint32_t> ids;
    for (const YAML::Node& id : devices[std::string(b.key)]["pci_device_ids"])
      ids.insert(static_cast<uint32_t>(std::stoul(id.as<std::string>(), nullptr, 16)));
    EXPECT_TRUE(ids.contains(b.pci_device_id)) << b.name;
  }
}

TEST(Boards, NamesOfProfilesFollowFromTheMemory) {
  for (const Board& b : boards())
    for (const Profile& p : b.profiles) {
      const std::string gb =
          std::to_string(profile_gigabytes(p.memory_mib, b.memory_total_mib)) + "gb";
      const std::string name(p.name);
      const size_t dot = name.find('.') + 1;
      EXPECT_EQ(name.substr(dot, name.find("gb") + 2 - dot), gb) << b.name << " " << name;
    }
}

TEST(Boards, AreFoundByTheNamesThatPeopleUse) {
  EXPECT_EQ(find_board("A100-SXM4-40GB").value()->name, "NVIDIA A100-SXM4-40GB");
  EXPECT_EQ(find_board("nvidia h200").value()->name, "NVIDIA H200");
  EXPECT_EQ(find_board("T4").value()->name, "Tesla T4");
  EXPECT_EQ(find_board("L40S").value()->name, "NVIDIA L40S");
  EXPECT_EQ(find_board("A30-24GB").value()->name, "NVIDIA A30");
}

TEST(Boards, TheUnknownAreRefusedWithWhatIsMissing) {
  const Error b200 = find_board("B200").error();
  EXPECT_EQ(b200.code, Code::kImpossible);
  EXPECT_EQ(b200.message,
            "board NVIDIA B200: cannot be simulated: no published listing gives memory_mib/sm of "
            "3g.90gb; memory_mib/sm of 4g.90gb; "
            "memory_mib of 7g.180gb; if you have one, send its `nvidia-smi mig -lgip -lgipp`");
  // A part of the name is enough to be told.
  for (const char* part : {"RTX-PRO-5000", "NVIDIA Thor", "GH200-144G", "gh200-96gb"}) {
    const Error error = find_board(part).error();
    EXPECT_EQ(error.code, Code::kImpossible) << part;
    EXPECT_NE(error.message.find("no published listing gives"), std::string::npos) << part;
  }
  EXPECT_EQ(find_board("H100").error().message,
            "board \"H100\": which one? There is NVIDIA H100 80GB HBM3, NVIDIA H100 PCIe, NVIDIA "
            "H100 NVL");
  const Error typo = find_board("A100-SXM-40GB").error();
  EXPECT_EQ(typo.code, Code::kNotFound);
  EXPECT_NE(typo.message.find("did you mean a100-sxm4-40gb?"), std::string::npos) << typo.message;
}

TEST(Boards, ComputeInstancesByWidth) {
  EXPECT_EQ(ci_profiles(7).size(), 6U);
  EXPECT_EQ(ci_profiles(5).size(), 0U);
  const Board& a100 = *find_board("A100-SXM4-40GB").value();
  const Board& h100 = *find_board("H100-80GB-SXM").value();
  EXPECT_EQ(ci_multiprocessors(a100, a100.profiles[2], 1), 14U);
  EXPECT_EQ(ci_multiprocessors(a100, a100.profiles[2], 3), 42U);
  EXPECT_EQ(ci_multiprocessors(h100, h100.profiles[2], 3), 60U);
  EXPECT_EQ(ci_multiprocessors(h100, h100.profiles[2], 2), 32U);
}

TEST(Uuid, IsVersionFiveAndTheSameAgain) {
  const std::string gpu = uuid_text(gpu_uuid(0x170, 0x1234567890abcdefULL));
  EXPECT_EQ(gpu.size(), 36U);
  EXPECT_EQ(gpu[14], '5');
  EXPECT_TRUE(std::string("89ab").find(gpu[19]) != std::string::npos);
  EXPECT_EQ(gpu, uuid_text(gpu_uuid(0x170, 0x1234567890abcdefULL)));
  EXPECT_NE(gpu, uuid_text(gpu_uuid(0x170, 0x1234567890abcdeeULL)));
  std::set<std::string> migs;
  for (uint32_t gi = 0; gi < 15; ++gi)
    for (uint32_t engine = 0; engine < 8; ++engine)
      migs.insert(uuid_text(mig_uuid(0x170, 1, gi, engine)));
  EXPECT_EQ(migs.size(), 120U);
}

TEST(Uuid, IsSha1OfTheDocumentedBytes) {
  // python3: hashlib.sha1(ns + b"NVIDIA GPU" + b"\x02" + (0x170).to_bytes(2, "little") + b"\x08" +
  // (1).to_bytes(8, "little"))
  EXPECT_EQ(uuid_text(gpu_uuid(0x170, 1)), "2260dec2-db9e-5b90-b8b7-fde9b2a18ff4");
  EXPECT_EQ(uuid_text(mig_uuid(0x170, 1, 7, 0)), "8c895f70-5dcf-53d9-8ef8-2ffc278ce62a");
}

}  // namespace
}  // namespace gpuslice::gpu
