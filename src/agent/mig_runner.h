#pragma once

// Changes of MIG as T0 sees them: asked for without waiting, done where calls may block, answered
// as events on T0. One question is under way at a time; its answer always follows, unless the
// driver hangs.
//
// Answers and inventories (ports/driver.h) come in the order in which the hardware was looked at:
// an inventory that arrives after on_mig_done() was read after the change.

#include <string>
#include <vector>

#include "mig/check.h"

namespace gpuslice::agent {

struct MigTask {
  mig::GpuName gpu;
  mig::Wish wish;
};

using MigChecked = mig::Checked;    // of a task
using MigPrepared = mig::Prepared;  // likewise

class MigRunner {
 public:
  virtual ~MigRunner() = default;
  // Finishes or reverts what the journals of these GPUs say. on_mig_recovered().
  virtual void recover(std::vector<std::string> gpus) = 0;
  // Changes nothing. on_mig_checked().
  virtual void check(std::vector<MigTask> tasks) = 0;
  // Takes the GPU's lock, plans, writes the journal; the GPU is not touched. on_mig_prepared();
  // when it is ready, execute() or abandon() must follow.
  virtual void prepare(MigTask task) = 0;
  // on_mig_done().
  virtual void execute() = 0;
  // on_mig_done() as well, with nothing done.
  virtual void abandon() = 0;
};

}  // namespace gpuslice::agent
