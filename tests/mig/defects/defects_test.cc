// D1 to D11: what mig-parted does wrong, one named test each, on ours and on a mutant that has it.

#include "checks.h"
#include "mutants.h"

namespace gpuslice::mig_test {
namespace {

TEST(Defects, D1_AnUnknownProfileWipesTheGpu) { told_apart<Tool, OurTool, D1Mutant>(check_d1); }
TEST(Defects, D2_AGpuInstanceWithoutComputeInstanceIsNotSeen) {
  told_apart<Tool, OurTool, D2Mutant>(check_d2);
}
TEST(Defects, D3_TheOrderOfAttemptsIsRandom) { told_apart<Tool, OurTool, D3Mutant>(check_d3); }
TEST(Defects, D4_RestorePairsGpusByPosition) { told_apart<Tool, OurTool, D4Mutant>(check_d4); }
TEST(Defects, D5_AMalformedFilterIsSilent) { told_apart<Tool, OurTool, D5Mutant>(check_d5); }
TEST(Defects, D6_AZeroCountIsNeverEqual) { told_apart<Tool, OurTool, D6Mutant>(check_d6); }
TEST(Defects, D7_ALabelForSomeGpusIsNeverEqual) { told_apart<Tool, OurTool, D7Mutant>(check_d7); }
TEST(Defects, D8_AnA30IsBelievedWithMigOff) { told_apart<Tool, OurTool, D8Mutant>(check_d8); }
TEST(Defects, D9_WhatBecameOfTheModeIsNotLookedAt) {
  told_apart<Tool, OurTool, D9Mutant>(check_d9);
}
TEST(Defects, D10_TwoWritersInterleave) { told_apart<Tool, OurTool, D10Mutant>(check_d10); }
TEST(Defects, D11_ADriverThatFailsLeavesTheGpuEmpty) {
  told_apart<Tool, OurTool, D11Mutant>(check_d11);
}

}  // namespace
}  // namespace gpuslice::mig_test
