#pragma once

// The files of a driver that a container needs, found below a driver root by their names: the
// libraries that carry the driver's version, its programs, sockets and firmware.

#include <string>
#include <vector>

#include "ports/host.h"

namespace gpuslice::agent {

struct DriverFiles {
  // Paths as a container sees them; on the host they lie below the driver root.
  std::vector<std::string> libraries;  // ".../libcuda.so.580.65.06"
  std::vector<std::string> programs;   // "/usr/bin/nvidia-smi"
  std::vector<std::string> sockets;    // "/run/nvidia-persistenced/socket"
  std::vector<std::string> firmware;   // "/lib/firmware/nvidia/580.65.06/gsp_ga10x.bin"
  // Links that the driver has beside its libraries: where they lie, and where they point.
  struct Link {
    std::string path, target;
    friend bool operator==(const Link&, const Link&) = default;
  };
  std::vector<Link> links;
  std::vector<std::string> library_folders;  // those that hold any of `libraries`
  friend bool operator==(const DriverFiles&, const DriverFiles&) = default;
};

// Below `root` ("" for "/"); `version` is the driver's. Lists some folders with thousands of names:
// for when the driver changed. What cannot be listed holds nothing.
[[nodiscard]] DriverFiles find_driver_files(ports::HostFiles& files, const std::string& root,
                                            const std::string& version);

}  // namespace gpuslice::agent
