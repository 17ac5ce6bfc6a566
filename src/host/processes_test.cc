#include "host/processes.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace gpuslice::host {
namespace {

constexpr const char* kUid = "8b1c7d3e-1f2a-4b3c-9d4e-5f6a7b8c9d0e";

TEST(PodOfCgroup, ReadsBothDriversAndBothVersions) {
  EXPECT_EQ(pod_of_cgroup("0::/kubepods.slice/kubepods-besteffort.slice/"
                          "kubepods-besteffort-pod8b1c7d3e_1f2a_4b3c_9d4e_5f6a7b8c9d0e.slice/"
                          "cri-containerd-0123456789abcdef.scope\n"),
            (PodOfProcess{kUid, "0123456789abcdef"}));
  EXPECT_EQ(pod_of_cgroup("0::/kubepods.slice/"
                          "kubepods-pod8b1c7d3e_1f2a_4b3c_9d4e_5f6a7b8c9d0e.slice/"
                          "crio-0123456789abcdef.scope/container\n"),
            (PodOfProcess{kUid, "0123456789abcdef"}));
  EXPECT_EQ(pod_of_cgroup("12:cpuset:/\n11:memory:/kubepods/burstable/"
                          "pod8b1c7d3e-1f2a-4b3c-9d4e-5f6a7b8c9d0e/abcdef\n0::/\n"),
            (PodOfProcess{kUid, "abcdef"}));
  EXPECT_EQ(pod_of_cgroup("0::/kubepods/pod0123456789abcdef0123456789abcdef\n"),
            (PodOfProcess{"0123456789abcdef0123456789abcdef", ""}));
}

TEST(PodOfCgroup, IsNothingForOthers) {
  for (const char* text :
       {"", "0::/\n", "0::/system.slice/ssh.service\n", "0::/kubepods.slice\n",
        "0::/kubepods/burstable/podnot-a-uid/abc\n", "0::/user/kubepods-like/pods\n"}) {
    EXPECT_EQ(pod_of_cgroup(text), std::nullopt) << text;
  }
}

TEST(Processes, KnowsItself) {
  EXPECT_EQ(process_command(::getpid()), "host_test");
  EXPECT_GT(process_start_ticks(::getpid()).value_or(0), 0u);
  EXPECT_EQ(process_command(-1), std::nullopt);
  EXPECT_EQ(process_pod(-1), std::nullopt);
  EXPECT_EQ(process_start_ticks(-1), std::nullopt);
}

}  // namespace
}  // namespace gpuslice::host
