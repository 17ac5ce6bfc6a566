#pragma once

// A defect that another program has and ours must not: a check that tells the two apart. It is run
// on ours, where it must hold, and on a mutant that has the defect, where it must not: a check that
// also passes the mutant would prove nothing.
//
//   TEST(Defects, D1_AnUnknownProfileWipesTheGpu) { told_apart<Tool, OurTool, D1Mutant>(check_d1);
//   }

#include <gtest/gtest.h>

#include <optional>
#include <string>

namespace gpuslice::mig_test {

// What was seen that must not be; nothing when the check holds.
using Verdict = std::optional<std::string>;

template <class Subject, class Ours, class Mutant>
void told_apart(Verdict (*check)(Subject&)) {
  Ours ours;
  const Verdict on_ours = check(ours);
  EXPECT_EQ(on_ours, std::nullopt) << "ours has the defect: " << on_ours.value_or("");
  Mutant mutant;
  const Verdict on_mutant = check(mutant);
  EXPECT_NE(on_mutant, std::nullopt) << "the check does not see the defect of the mutant";
  if (on_mutant) ::testing::Test::RecordProperty("mutant", *on_mutant);
}

}  // namespace gpuslice::mig_test
