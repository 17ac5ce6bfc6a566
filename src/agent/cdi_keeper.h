#pragma once

// Keeps our CDI specs as the node is: written before a device of theirs is offered, when their text
// changed and not otherwise, each atomically. They stay when the agent ends (a container that is
// started again needs them); a class that has no devices any more loses its file, and with another
// device list strategy all of ours go. T0.

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "agent/answer.h"
#include "agent/cdi_spec.h"
#include "agent/device_table.h"
#include "base/log.h"
#include "config/effective.h"
#include "ports/host.h"

namespace gpuslice::agent {

struct CdiOptions {
  std::string folder = "/var/run/cdi";
  std::string hook;  // gpuslice as the host has it; "": specs without hooks
  // Puts it there; called before the first spec that names it, and when it has gone. Nothing: it is
  // there.
  std::function<Status()> install_hook;
  std::vector<ExtraMount> extra_mounts;
};

class CdiKeeper {
 public:
  // `root`: where the driver's files are for us; goes before every path that is looked for.
  CdiKeeper(CdiOptions options, std::string root, ports::HostFiles& files, Log& log);

  struct Sight {
    const Hardware& hardware;
    const std::string& driver;  // version
    const CapMinors& caps;
    const config::Effective& config;
    std::string dev_root, driver_root;  // as the host has them
  };
  // Writes what has to be written for answers of this form, also what another program has taken
  // away or written over since, and adds to the form which classes have a spec.
  void look(const Sight& sight, AnswerForm& form);

  // Why a spec is not as it should be; "" when all are.
  [[nodiscard]] const std::string& trouble() const { return trouble_; }

 private:
  [[nodiscard]] CdiSource source(const Sight& sight, const AnswerForm& form);
  [[nodiscard]] std::map<std::string, CdiExtras> extras(const AnswerForm& form) const;
  [[nodiscard]] std::vector<std::string> nodes_like(const std::string& folder,
                                                    std::string_view start) const;
  [[nodiscard]] std::string hook();
  void sweep(const std::map<std::string, std::string>& specs);

  CdiOptions options_;
  std::string root_;
  ports::HostFiles& files_;
  Log& log_;
  std::set<std::string> written_;  // files that are ours
  bool hook_installed_ = false;
  bool swept_ = false;                   // what an earlier life left is gone
  std::optional<std::string> files_of_;  // the driver version that driver_files_ is of
  DriverFiles driver_files_;
  std::string trouble_;
};

}  // namespace gpuslice::agent
