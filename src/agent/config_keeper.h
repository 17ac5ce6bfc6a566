#pragma once

// The configuration in force. A good file replaces it; a bad one changes nothing. The last good
// text lies on disk, so that a start with a broken file (also after a reboot) serves what worked.
// T0 only.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "base/result.h"
#include "config/effective.h"
#include "ports/host.h"

namespace gpuslice::agent {

struct ConfigSource {
  std::string path;  // "" for none: defaults, flags and environment only
  config::Compat compat = config::Compat::kStrict;
  config::Said said;
  std::string last_good_path;  // where the last good text is kept
  bool follows = false;        // ConfigKeeper::use() says which file; nothing is read before it
};

class ConfigKeeper {
 public:
  ConfigKeeper(ConfigSource source, ports::HostFiles& files, Log& log)
      : source_(std::move(source)), files_(files), log_(log) {
    if (source_.follows) problem_ = "which file counts is not known yet: the node was not seen";
  }

  // From the next look() on this is the file, where `follows` is set. An error: none is known to
  // be, and why; what is in force stays.
  void use(Result<std::string> path);

  // Reads the file. True when there is a candidate other than the one in force, to be accepted or
  // refused.
  bool look();

  // The file could not be read for a reason that passes without a change of it (no file descriptor,
  // no memory, a disk's error): look() again after a while.
  [[nodiscard]] bool look_again() const { return look_again_; }

  // What look() found, if it is not in force yet.
  [[nodiscard]] const std::optional<config::Effective>& candidate() const { return candidate_; }
  // The candidate holds on this node: it is in force and becomes the last good one.
  void accept();
  // It does not: what is in force stays; if nothing is, the last good text may be the next
  // candidate.
  void refuse(const Error& why);

  // In force; nothing before the first good one.
  [[nodiscard]] const std::optional<config::Effective>& in_force() const { return in_force_; }
  [[nodiscard]] uint64_t generation() const { return generation_; }  // counts acceptances
  [[nodiscard]] uint64_t reloads_good() const { return generation_; }
  [[nodiscard]] uint64_t reloads_bad() const { return bad_; }
  [[nodiscard]] const std::string& problem() const {
    return problem_;
  }  // why the newest text is not in force; or ""
  [[nodiscard]] const std::string& from() const {
    return from_;
  }  // where what is in force was read
  // The file that counts; "" for none. It may not be in force: see problem().
  [[nodiscard]] const std::string& wanted_from() const { return source_.path; }
  [[nodiscard]] const std::string& last_good_path() const { return source_.last_good_path; }
  // 16 hexadecimal digits of the text in force: another text has others. "" before the first.
  [[nodiscard]] const std::string& fingerprint() const { return fingerprint_; }

 private:
  struct Text {
    std::string bytes;
    std::string name;  // for messages
    bool is_last_good = false;
  };
  bool consider(Text text);
  bool fall_back();
  void say_bad(const std::string& why);

  ConfigSource source_;
  ports::HostFiles& files_;
  Log& log_;
  std::optional<config::Effective> in_force_;
  std::optional<config::Effective> candidate_;
  Text candidate_text_;
  std::optional<std::string> seen_;  // the text that was judged last
  bool tried_last_good_ = false;
  bool look_again_ = false;
  bool told_ = false;    // by use()
  std::string unknown_;  // which file counts is not known, and why; or ""
  uint64_t generation_ = 0;
  uint64_t bad_ = 0;
  std::string problem_;
  std::string from_;
  std::string fingerprint_;
};

}  // namespace gpuslice::agent
