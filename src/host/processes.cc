#include "host/processes.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <vector>

#include "base/text.h"
#include "host/files.h"

namespace gpuslice::host {
namespace {

constexpr size_t kMaxProcFile = 64 * 1024;
constexpr size_t kUidLength = 36;  // 8-4-4-4-12

// "pod<uid>" somewhere in a cgroup's name: static pods have 32 hex digits instead of a UUID.
std::optional<std::string> pod_uid_of(std::string_view part) {
  if (part.ends_with(".slice")) part.remove_suffix(6);
  const size_t at = part.rfind("pod");
  if (at == std::string_view::npos) return std::nullopt;
  // "kubepods" holds the word as well; a pod's name has it at the start or after a dash.
  if (at != 0 && part[at - 1] != '-') return std::nullopt;
  std::string uid(part.substr(at + 3));
  std::replace(uid.begin(), uid.end(), '_', '-');
  const bool plain = std::all_of(uid.begin(), uid.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || c == '-';
  });
  if (!plain || (uid.size() != kUidLength && uid.size() != 32)) return std::nullopt;
  return uid;
}

std::string container_of(std::string_view part) {
  if (part.ends_with(".scope")) part.remove_suffix(6);
  if (const size_t dash = part.rfind('-'); dash != std::string_view::npos) {
    part.remove_prefix(dash + 1);
  }
  return std::string(part);
}

}  // namespace

std::optional<PodOfProcess> pod_of_cgroup(std::string_view cgroup_file) {
  for (const std::string_view line : split(cgroup_file, '\n')) {
    const size_t path_at = line.find('/');
    if (path_at == std::string_view::npos || line.find("kubepods") == std::string_view::npos) {
      continue;
    }
    const std::vector<std::string_view> parts = split(line.substr(path_at + 1), '/');
    for (size_t i = 0; i < parts.size(); ++i) {
      if (auto uid = pod_uid_of(parts[i])) {
        return PodOfProcess{std::move(*uid),
                            i + 1 < parts.size() ? container_of(parts[i + 1]) : ""};
      }
    }
  }
  return std::nullopt;
}

std::optional<std::string> process_command(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/comm", pid), kMaxProcFile);
  if (!text) return std::nullopt;
  return std::string(trim(*text));
}

std::optional<PodOfProcess> process_pod(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/cgroup", pid), kMaxProcFile);
  if (!text) return std::nullopt;
  return pod_of_cgroup(*text);
}

std::optional<uint64_t> process_start_ticks(pid_t pid) {
  const auto text = read_file(fmt::format("/proc/{}/stat", pid), kMaxProcFile);
  if (!text) return std::nullopt;
  // The command stands in parentheses and may hold anything: count fields after the last ')'.
  const size_t close = text->rfind(')');
  if (close == std::string::npos) return std::nullopt;
  constexpr size_t kStartTime = 22 - 2;  // field 22 of the line; field 2 is the command
  const std::vector<std::string_view> fields =
      split(std::string_view(*text).substr(close + 1), ' ');
  return fields.size() > kStartTime ? parse_u64(fields[kStartTime]) : std::nullopt;
}

bool has_sys_admin() {
  constexpr uint64_t kSysAdmin = uint64_t{1} << 21;
  constexpr std::string_view kLine = "CapEff:";
  const auto text = read_file("/proc/self/status", 64 * 1024);
  if (!text) return false;
  for (const std::string_view line : split(*text, '\n')) {
    if (!line.starts_with(kLine)) continue;
    const std::string_view mask = trim(line.substr(kLine.size()));
    uint64_t value = 0;
    std::from_chars(mask.data(), mask.data() + mask.size(), value, 16);
    return (value & kSysAdmin) != 0;
  }
  return false;
}

}  // namespace gpuslice::host
