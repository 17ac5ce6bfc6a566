#pragma once

// Where things lie on a modelled node.

namespace gpuslice::dst {

inline constexpr const char* kConfig = "/etc/gpuslice/config.yaml";
inline constexpr const char* kConfigFolder = "/etc/gpuslice/configs";  // a mounted ConfigMap
inline constexpr const char* kLastGood = "/var/lib/gpuslice/last-good.yaml";
inline constexpr const char* kLedger = "/run/gpuslice/ledger";
inline constexpr const char* kMigConfig = "/etc/gpuslice/mig.yaml";
inline constexpr const char* kMigLabelFile = "/etc/gpuslice/mig-label";
inline constexpr const char* kState = "/var/lib/gpuslice";

}  // namespace gpuslice::dst
