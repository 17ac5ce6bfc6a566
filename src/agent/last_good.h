#pragma once

// The text of the last configuration that worked, kept on disk for the next start.

#include <string>

#include "base/result.h"
#include "ports/host.h"

namespace gpuslice::agent {

// After it `text` lies at `path`, durably. At the usual start it is there already: then nobody
// waits for a disk. An error leaves what was there.
[[nodiscard]] Status keep_last_good(ports::HostFiles& files, const std::string& path,
                                    const std::string& text);

}  // namespace gpuslice::agent
