#pragma once

// Where a writer can die. Every store of a write that another process or the next start could see
// (bytes of the shared file, names in the trees, locks) is announced here first. In a normal run
// nothing listens and this is one relaxed load; a test listens, counts, and kills its process at
// the n-th point while the lock is held.

#include <cstdint>

namespace gpuslice::sim {

// Called just before the store that `what` names ("state: copy", "trees: mknod"). Process-wide; a
// test sets it in a child of its own. Null: nobody listens.
using AbortPointHook = void (*)(const char* what);
void set_abort_point_hook(AbortPointHook hook);

void abort_point(const char* what);

}  // namespace gpuslice::sim
