#pragma once

// Which MIG layout is wanted of this node: a label of a mig-parted configuration. A good file
// replaces the one before it, a bad one changes nothing; the last good one and the last label lie
// on disk, so that a start with a broken file, or without the API server, wants what was wanted.
// T0 only.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/log.h"
#include "config/mig_parted.h"
#include "mig/label.h"
#include "ports/host.h"

namespace gpuslice::agent {

struct MigSource {
  std::string config_path;      // mig-parted's file; "" for none
  std::string label;            // asked for on the command line; "" for none
  std::string label_path;       // a file that holds the label; "" for none
  bool label_from_api = false;  // set_label() says it; neither flag nor file does
  std::string state_dir;        // last-good-mig-config.yaml and mig-request; "" for neither
  [[nodiscard]] bool any() const { return !config_path.empty(); }
};

class MigWanted {
 public:
  MigWanted(MigSource source, ports::HostFiles& files, Log& log)
      : source_(std::move(source)),
        files_(files),
        log_(log),
        known_(!source_.label_from_api),
        heard_(known_) {}

  // Reads what the last life of the agent wanted, and the files.
  void start();
  // Reads the files again. True when what is wanted, or why it cannot be, may have changed.
  bool look();
  // The label of the API server's node. Nothing: it was taken away, and what is there stays. True
  // when it is another one.
  bool set_label(const std::optional<std::string>& label);
  // False before the API server's first word, where no earlier life heard one.
  [[nodiscard]] bool known() const { return known_; }
  // False: what is wanted is what the API server said in an earlier life, and it may have taken
  // that back since.
  [[nodiscard]] bool heard() const { return heard_; }

  // "" when nothing is wanted.
  [[nodiscard]] const std::string& label() const { return label_; }
  // Names label and meaning; the same for two files that mean the same by it.
  [[nodiscard]] const std::string& request() const { return request_; }
  // What it means on these GPUs, or why it means nothing.
  [[nodiscard]] Result<mig::NodeWish> wish(const std::vector<ports::Gpu>& gpus) const;
  // Why the newest file is not in force; "" when it is.
  [[nodiscard]] const std::string& problem() const { return problem_; }

  // One reboot for a request, remembered across it ("": for none). False when it could not be kept.
  [[nodiscard]] bool rebooted_for(const std::string& request) const {
    return rebooted_for_ == request;
  }
  [[nodiscard]] bool remember_reboot(const std::string& request);

 private:
  bool read_config();
  bool read_label();
  bool take(const std::string& text, const std::string& name);
  bool remember();
  void name_request();

  MigSource source_;
  ports::HostFiles& files_;
  Log& log_;
  std::optional<config::MigPartedConfig> config_;
  std::string config_name_;
  std::optional<std::string> seen_;  // the text that was judged last
  std::string problem_;
  std::string label_;
  bool known_;
  bool heard_;
  std::string request_;
  std::string rebooted_for_;
  std::string written_;
};

}  // namespace gpuslice::agent
