#pragma once

// The one error type of gpuslice, and the one table that maps it to the outside.
//
// An error is written for the person with the pager: it names the object, the action that failed,
// the cause and the next step. It is a value: it is returned, never thrown, and crosses folders
// only inside Result<T>.

#include <string>
#include <string_view>
#include <utility>

namespace gpuslice {

// What kind of failure this is. Each code maps once to an exit code (exit_code()), once to an HTTP
// status (http_status()) and once to a gRPC status (grpc_status(), as its number, so that base
// needs no gRPC).
enum class Code {
  kInternal,       // a bug of ours, or an answer that nobody expected
  kUsage,          // the command line is wrong
  kInvalidConfig,  // a configuration file, flag or environment variable is wrong
  kImpossible,     // the hardware cannot do what was asked
  kInUse,          // somebody holds what would have to go
  kNeedsReset,     // a GPU reset or a reboot is needed first
  kFailed,         // the action failed; what was there before is still there
  kHalfDone,       // a GPU was left half-way: no test may reach it
  kDiffers,        // assert, diff, plan --detailed-exitcode: not equal
  kNotFound,       // no such GPU, instance, file, pod
  kNoPermission,   // not root, or no access to the node
  kUnavailable,    // not there yet: the driver, the kubelet, a socket; trying again may help
  kTimeout,        // did not answer within its bound
  kGpuLost,        // the GPU has fallen off the bus
  kCorrupt,        // a file of ours is torn or of another version
};

// The name of a code as it stands in JSON ("invalid-config").
[[nodiscard]] std::string_view code_name(Code code);

// The exit status of every verb: 0 done · 1 internal · 2 usage · 3 configuration invalid · 4
// impossible on this hardware · 5 in use · 6 reset or reboot needed · 7 failed, nothing lost · 8
// half-way · 10 differs.
[[nodiscard]] int exit_code(Code code);
[[nodiscard]] int http_status(Code code);
[[nodiscard]] int grpc_status(Code code);

struct Error {
  Code code = Code::kInternal;
  std::string message;  // "<object>: <action failed>: <cause>; <next step>", no trailing newline
  std::string where;    // "file:line:column" for configuration, else empty

  // One line for a terminal or a log: where (if any) before the message.
  [[nodiscard]] std::string text() const {
    return where.empty() ? message : where + ": " + message;
  }

  // The same error seen from further away: `object` goes before the message.
  [[nodiscard]] Error in(std::string_view object) && {
    message.insert(0, std::string(object) + ": ");
    return std::move(*this);
  }

  friend bool operator==(const Error&, const Error&) = default;
};

}  // namespace gpuslice
