// Made by tools/gen_board_profiles.py from data/mig-profiles.yaml. Do not edit.

#include "gpu/board_profiles.h"

namespace gpuslice::gpu {
namespace {

constexpr Placement kPlaces0[] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}};
constexpr Placement kPlaces1[] = {{0, 2}, {2, 2}};
constexpr Placement kPlaces2[] = {{0, 4}};
constexpr Placement kPlaces3[] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}, {6, 1}};
constexpr Placement kPlaces4[] = {{0, 2}, {2, 2}, {4, 2}};
constexpr Placement kPlaces5[] = {{0, 4}, {4, 4}};
constexpr Placement kPlaces6[] = {{0, 8}};
constexpr Placement kPlaces7[] = {{0, 2}, {2, 2}, {4, 2}, {6, 2}};
constexpr Placement kPlaces8[] = {{0, 3}, {3, 3}, {6, 3}, {9, 3}};
constexpr Placement kPlaces9[] = {{0, 6}, {6, 6}};
constexpr Placement kPlaces10[] = {{0, 12}};

constexpr Profile k_a30_24gb[] = {
    {"1g.6gb", 0, {14}, 1, 5952, 14, 1, 1, 0, 0, 0, 4, kPlaces0},
    {"2g.12gb", 1, {5}, 2, 11968, 28, 2, 2, 0, 0, 0, 2, kPlaces1},
    {"4g.24gb", 3, {0}, 4, 24000, 56, 4, 4, 0, 1, 1, 1, kPlaces2},
    {"1g.6gb+me", 7, {21}, 1, 5952, 14, 1, 1, 0, 1, 1, 1, kPlaces0},
    {"2g.12gb+me", 8, {6}, 2, 11968, 28, 2, 2, 0, 1, 1, 1, kPlaces1},
};
constexpr Profile k_a100_40gb[] = {
    {"1g.5gb", 0, {19}, 1, 4864, 14, 1, 0, 0, 0, 0, 7, kPlaces3},
    {"2g.10gb", 1, {14}, 2, 9856, 28, 2, 1, 0, 0, 0, 3, kPlaces4},
    {"3g.20gb", 2, {9}, 3, 19968, 42, 3, 2, 0, 0, 0, 2, kPlaces5},
    {"4g.20gb", 3, {5}, 4, 19968, 56, 4, 2, 0, 0, 0, 1, kPlaces2},
    {"7g.40gb", 4, {0}, 7, 40192, 98, 7, 5, 0, 1, 1, 1, kPlaces6},
    {"1g.5gb+me", 7, {20}, 1, 4864, 14, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.10gb", 9, {15}, 1, 9856, 14, 1, 1, 0, 0, 0, 4, kPlaces7},
};
constexpr Profile k_a100_80gb[] = {
    {"1g.10gb", 0, {19}, 1, 9728, 14, 1, 0, 0, 0, 0, 7, kPlaces3},
    {"2g.20gb", 1, {14}, 2, 19968, 28, 2, 1, 0, 0, 0, 3, kPlaces4},
    {"3g.40gb", 2, {9}, 3, 40192, 42, 3, 2, 0, 0, 0, 2, kPlaces5},
    {"4g.40gb", 3, {5}, 4, 40192, 56, 4, 2, 0, 0, 0, 1, kPlaces2},
    {"7g.80gb", 4, {0}, 7, 80896, 98, 7, 5, 0, 1, 1, 1, kPlaces6},
    {"1g.10gb+me", 7, {20}, 1, 9728, 14, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.20gb", 9, {15}, 1, 19968, 14, 1, 1, 0, 0, 0, 4, kPlaces7},
};
constexpr Profile k_h100_80gb_sxm[] = {
    {"1g.10gb", 0, {19}, 1, 9984, 16, 1, 1, 0, 1, 0, 7, kPlaces3},
    {"2g.20gb", 1, {14}, 2, 20096, 32, 2, 2, 0, 2, 0, 3, kPlaces4},
    {"3g.40gb", 2, {9}, 3, 40448, 60, 3, 3, 0, 3, 0, 2, kPlaces5},
    {"4g.40gb", 3, {5}, 4, 40448, 64, 4, 4, 0, 4, 0, 1, kPlaces2},
    {"7g.80gb", 4, {0}, 7, 81152, 132, 8, 7, 0, 7, 1, 1, kPlaces6},
    {"1g.10gb+me", 7, {20}, 1, 9984, 16, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.20gb", 9, {15}, 1, 20096, 26, 1, 1, 0, 1, 0, 4, kPlaces7},
};
constexpr Profile k_h100_80gb_pcie[] = {
    {"1g.10gb", 0, {19}, 1, 9984, 14, 1, 1, 0, 1, 0, 7, kPlaces3},
    {"2g.20gb", 1, {14}, 2, 20096, 30, 2, 2, 0, 2, 0, 3, kPlaces4},
    {"3g.40gb", 2, {9}, 3, 40448, 46, 3, 3, 0, 3, 0, 2, kPlaces5},
    {"4g.40gb", 3, {5}, 4, 40448, 62, 4, 4, 0, 4, 0, 1, kPlaces2},
    {"7g.80gb", 4, {0}, 7, 81152, 114, 8, 7, 0, 7, 1, 1, kPlaces6},
    {"1g.10gb+me", 7, {20}, 1, 9984, 14, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.20gb", 9, {15}, 1, 20096, 14, 1, 1, 0, 1, 0, 4, kPlaces7},
};
constexpr Profile k_h100_94gb_nvl[] = {
    {"1g.12gb", 0, {19}, 1, 11008, 16, 1, 1, 0, 1, 0, 7, kPlaces3},
    {"2g.24gb", 1, {14}, 2, 22144, 32, 2, 2, 0, 2, 0, 3, kPlaces4},
    {"3g.47gb", 2, {9}, 3, 47488, 60, 3, 3, 0, 3, 0, 2, kPlaces5},
    {"4g.47gb", 3, {5}, 4, 47488, 64, 4, 4, 0, 4, 0, 1, kPlaces2},
    {"7g.94gb", 4, {0}, 7, 95360, 132, 8, 7, 0, 7, 1, 1, kPlaces6},
    {"1g.12gb+me", 7, {20}, 1, 11008, 16, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.24gb", 9, {15}, 1, 22144, 26, 1, 1, 0, 1, 0, 4, kPlaces7},
};
constexpr Profile k_h200_141gb[] = {
    {"1g.18gb", 0, {19}, 1, 16384, 16, 1, 1, 0, 1, 0, 7, kPlaces3},
    {"2g.35gb", 1, {14}, 2, 33280, 32, 2, 2, 0, 2, 0, 3, kPlaces4},
    {"3g.71gb", 2, {9}, 3, 71424, 60, 3, 3, 0, 3, 0, 2, kPlaces5},
    {"4g.71gb", 3, {5}, 4, 71424, 64, 4, 4, 0, 4, 0, 1, kPlaces2},
    {"7g.141gb", 4, {0}, 7, 143360, 132, 8, 7, 0, 7, 1, 1, kPlaces6},
    {"1g.18gb+me", 7, {20}, 1, 16384, 16, 1, 1, 0, 1, 1, 1, kPlaces3},
    {"1g.35gb", 9, {15}, 1, 33280, 26, 1, 1, 0, 1, 0, 4, kPlaces7},
};
constexpr Profile k_rtx_pro_6000_blackwell_96gb[] = {
    {"1g.24gb", 0, {14}, 1, 24192, 46, 1, 1, 1, 1, 0, 4, kPlaces8},
    {"2g.48gb", 1, {5}, 2, 48512, 94, 2, 2, 2, 2, 0, 2, kPlaces9},
    {"4g.96gb", 3, {0}, 4, 97280, 188, 4, 4, 4, 4, 1, 1, kPlaces10},
    {"1g.24gb+me", 7, {21}, 1, 24192, 46, 1, 1, 1, 1, 1, 1, kPlaces8},
    {"1g.24gb+gfx", 10, {47}, 1, 24192, 46, 1, 1, 1, 1, 0, 4, kPlaces8},
    {"2g.48gb+gfx", 11, {35}, 2, 48512, 94, 2, 2, 2, 2, 0, 2, kPlaces9},
    {"4g.96gb+gfx", 12, {32}, 4, 97280, 188, 4, 4, 4, 4, 1, 1, kPlaces10},
    {"1g.24gb-me", 13, {67}, 1, 24192, 46, 1, 0, 0, 0, 0, 4, kPlaces8},
    {"2g.48gb-me", 14, {66}, 2, 48512, 94, 2, 0, 0, 0, 0, 2, kPlaces9},
    {"1g.24gb+me.all", 15, {65}, 1, 24192, 46, 1, 4, 4, 4, 1, 1, kPlaces8},
    {"2g.48gb+me.all", 16, {64}, 2, 48512, 94, 2, 4, 4, 4, 1, 1, kPlaces9},
};

constexpr ProfileTable kTables[] = {
    {"A30-24GB", k_a30_24gb},
    {"A100-40GB", k_a100_40gb},
    {"A100-80GB", k_a100_80gb},
    {"H100-80GB-SXM", k_h100_80gb_sxm},
    {"H100-80GB-PCIe", k_h100_80gb_pcie},
    {"H100-94GB-NVL", k_h100_94gb_nvl},
    {"H200-141GB", k_h200_141gb},
    {"RTX-PRO-6000-Blackwell-96GB", k_rtx_pro_6000_blackwell_96gb},
};

constexpr UnknownBoard kUnknown[] = {
    {"A100-96GB-PG506", "PG506-96GB",
     "memory_mib of 1g.12gb; memory_mib of 2g.24gb; memory_mib of 3g.48gb; memory_mib of 4g.48gb; "
     "memory_mib of 7g.96gb; memory_mib of 1g.12gb+me; memory_mib of 1g.24gb"},
    {"H100-96GB-GH200-H20", "NVIDIA GH200 480GB (96GB HBM3)",
     "memory_mib of 1g.12gb; memory_mib of 2g.24gb; memory_mib of 3g.48gb; memory_mib of 4g.48gb; "
     "memory_mib of 7g.96gb; memory_mib of 1g.12gb+me; memory_mib of 1g.24gb"},
    {"H100-96GB-GH200-H20", "NVIDIA H100 96GB",
     "memory_mib of 1g.12gb; memory_mib of 2g.24gb; memory_mib of 3g.48gb; memory_mib of 4g.48gb; "
     "memory_mib of 7g.96gb; memory_mib of 1g.12gb+me; memory_mib of 1g.24gb"},
    {"H100-96GB-GH200-H20", "NVIDIA H20",
     "memory_mib of 1g.12gb; memory_mib of 2g.24gb; memory_mib of 3g.48gb; memory_mib of 4g.48gb; "
     "memory_mib of 7g.96gb; memory_mib of 1g.12gb+me; memory_mib of 1g.24gb"},
    {"GH200-144GB", "NVIDIA GH200 144G HBM3e",
     "memory_mib of 3g.72gb; memory_mib of 4g.72gb; memory_mib of 7g.144gb"},
    {"B200-180GB", "NVIDIA B200",
     "memory_mib/sm of 3g.90gb; memory_mib/sm of 4g.90gb; memory_mib of 7g.180gb"},
    {"GB200-186GB", "NVIDIA GB200",
     "memory_mib/sm of 3g.93gb; memory_mib/sm of 4g.93gb; memory_mib/sm of 7g.186gb"},
    {"GB200-186GB", "HGX GB200",
     "memory_mib/sm of 3g.93gb; memory_mib/sm of 4g.93gb; memory_mib/sm of 7g.186gb"},
    {"B300-269GB", "NVIDIA B300",
     "memory_mib/sm of 1g.34gb; memory_mib/sm of 2g.67gb; memory_mib/sm of 3g.135gb; memory_mib/sm "
     "of 4g.135gb; memory_mib/sm of 7g.269gb; memory_mib/sm of 1g.34gb+me; memory_mib/sm of "
     "1g.67gb"},
    {"GB300-278GB", "NVIDIA GB300",
     "memory_mib/sm of 1g.35gb; memory_mib/sm of 2g.70gb; memory_mib/sm of 3g.139gb; memory_mib/sm "
     "of 4g.139gb; memory_mib/sm of 7g.278gb; memory_mib/sm of 1g.35gb+me; memory_mib/sm of "
     "1g.70gb"},
    {"RTX-PRO-5000-Blackwell-48GB", "NVIDIA RTX PRO 5000 Blackwell",
     "memory_mib/sm/smi_id/placements of 1g.24gb; memory_mib/sm/smi_id/placements of 2g.48gb; "
     "memory_mib/sm/smi_id/placements of 1g.24gb+me; memory_mib/sm/smi_id/placements of "
     "1g.24gb+gfx; memory_mib/sm/smi_id/placements of 2g.48gb+gfx; memory_mib/sm/smi_id/placements "
     "of 1g.24gb-me; memory_mib/sm/smi_id/placements of 1g.24gb+me.all"},
    {"RTX-PRO-4500-Blackwell-32GB", "NVIDIA RTX PRO 4500 Blackwell",
     "memory_mib/sm/smi_id/placements of 1g.16gb; memory_mib/sm/smi_id/placements of 2g.32gb; "
     "memory_mib/sm/smi_id/placements of 1g.16gb+gfx; memory_mib/sm/smi_id/placements of "
     "2g.32gb+gfx; memory_mib/sm/smi_id/placements of 1g.16gb-me; memory_mib/sm/smi_id/placements "
     "of 1g.16gb+me.all"},
    {"Thor-iGPU-GB10B", "NVIDIA Thor iGPU",
     "sm/smi_id/placements of 1g.0gb; sm/smi_id/placements of 2g.0gb; sm/smi_id/placements of "
     "3g.0gb; sm/smi_id/placements of 1g.0gb+me; sm/smi_id/placements of 1g.0gb+gfx; "
     "sm/smi_id/placements of 2g.0gb+gfx; sm/smi_id/placements of 3g.0gb+gfx"},
};

}  // namespace

std::span<const ProfileTable> profile_tables() { return kTables; }
std::span<const UnknownBoard> unknown_boards() { return kUnknown; }

}  // namespace gpuslice::gpu
