#include "base/error.h"

namespace gpuslice {
namespace {

struct Row {
  std::string_view name;
  int exit;
  int http;
  int grpc;  // google.rpc.Code
};

// One row per Code, in the order of the enum. The exit codes are the contract of the command line.
constexpr Row kRows[] = {
    {"internal", 1, 500, 13},  {"usage", 2, 400, 3},         {"invalid-config", 3, 422, 3},
    {"impossible", 4, 422, 9}, {"in-use", 5, 409, 9},        {"needs-reset", 6, 409, 9},
    {"failed", 7, 500, 10},    {"half-done", 8, 500, 13},    {"differs", 10, 409, 9},
    {"not-found", 7, 404, 5},  {"no-permission", 7, 403, 7}, {"unavailable", 7, 503, 14},
    {"timeout", 7, 504, 4},    {"gpu-lost", 7, 500, 14},     {"corrupt", 7, 500, 15},
};
static_assert(sizeof(kRows) / sizeof(kRows[0]) == static_cast<size_t>(Code::kCorrupt) + 1);

const Row& row(Code code) { return kRows[static_cast<size_t>(code)]; }

}  // namespace

std::string_view code_name(Code code) { return row(code).name; }
int exit_code(Code code) { return row(code).exit; }
int http_status(Code code) { return row(code).http; }
int grpc_status(Code code) { return row(code).grpc; }

}  // namespace gpuslice
