#pragma once

// What must hold of a tool so that it has none of mig-parted's defects D1 to D11.

#include "defect.h"
#include "tool.h"

namespace gpuslice::mig_test {

Verdict check_d1(
    Tool& tool);  // an unknown profile: refused with the names that there are, untouched
Verdict check_d2(Tool& tool);  // a GPU instance without compute instance is seen, and goes
Verdict check_d3(Tool& tool);  // the same wish is done by the same calls, none of which fails
Verdict check_d4(Tool& tool);  // a checkpoint is restored by UUID; a GPU that is not there stops it
Verdict check_d5(Tool& tool);  // a malformed filter, a negative count: told as what they are
Verdict check_d6(Tool& tool);  // a zero count: refused, or equal once applied
Verdict check_d7(Tool& tool);  // a label for some GPUs can be asserted
Verdict check_d8(Tool& tool);  // an A30 that misstates its profiles with MIG off
Verdict check_d9(Tool& tool);  // "in use" and "a reset is needed" are told apart
Verdict check_d10(Tool& tool);  // a second writer of a GPU is refused
Verdict check_d11(Tool& tool);  // a driver that fails leaves the old layout or the new one

}  // namespace gpuslice::mig_test
