#include "agent/cdi_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/text.h"

namespace gpuslice::agent {
namespace {

using config::Flag;

constexpr size_t kMaxSpecBytes = 4 * 1024 * 1024;
constexpr std::string_view kClasses[] = {"gpu", "imex-channel", "gds", "mofed", "gdrcopy"};

}  // namespace

CdiKeeper::CdiKeeper(CdiOptions options, std::string root, ports::HostFiles& files, Log& log)
    : options_(std::move(options)), root_(std::move(root)), files_(files), log_(log) {}

std::vector<std::string> CdiKeeper::nodes_like(const std::string& folder,
                                               std::string_view start) const {
  std::vector<std::string> out;
  if (const auto names = files_.list(root_ + folder))
    for (const std::string& name : *names)
      if (name.starts_with(start)) out.push_back(folder + "/" + name);
  return out;
}

std::map<std::string, CdiExtras> CdiKeeper::extras(const AnswerForm& form) const {
  std::map<std::string, CdiExtras> out;
  if (form.gds) {
    CdiExtras& gds = out["gds"];
    gds.nodes = nodes_like("/dev", "nvidia-fs");
    for (const char* path : {"/run/udev", "/etc/cufile.json"})
      if (files_.exists(root_ + path)) gds.mounts.emplace_back(path);
  }
  if (form.mofed) {
    CdiExtras& mofed = out["mofed"];
    mofed.nodes = nodes_like("/dev/infiniband", "uverbs");
    for (std::string& node : nodes_like("/dev/infiniband", "rdma_cm"))
      mofed.nodes.push_back(std::move(node));
  }
  if (form.gdrcopy && files_.exists(root_ + "/dev/gdrdrv")) out["gdrcopy"].nodes = {"/dev/gdrdrv"};
  return out;
}

CdiSource CdiKeeper::source(const Sight& sight, const AnswerForm& form) {
  if (files_of_ != sight.driver) {
    driver_files_ = find_driver_files(files_, root_, sight.driver);
    files_of_ = sight.driver;
    if (driver_files_.libraries.empty())
      log_.once(Level::kWarning, "cdi-files",
                fmt::format("CDI: no library of driver {} lies below {}: containers get device "
                            "nodes alone; is --driver-root right?",
                            sight.driver, root_.empty() ? "/" : root_));
    else
      log_.over("cdi-files");
  }
  CdiSource out;
  out.gpus = sight.hardware.gpus;
  out.caps = sight.caps;
  out.index_ids = form.index_ids;
  out.whole_gpus = sight.config.text(Flag::kMigStrategy) == "none";
  out.dev_root = sight.dev_root;
  out.driver_root = sight.driver_root;
  for (const std::string_view node : kControlNodes)
    if (files_.exists(root_ + std::string(node))) out.control_nodes.emplace_back(node);
  out.files = driver_files_;
  out.extra_mounts = options_.extra_mounts;
  out.hook = hook();
  for (const std::string_view name : split(sight.config.text(Flag::kCdiDisableHooks), ','))
    if (!trim(name).empty()) out.disabled_hooks.emplace_back(trim(name));
  for (const std::string& channel : form.imex_channels)
    if (files_.exists(root_ + imex_node(channel))) out.imex_channels.push_back(channel);
  out.extras = extras(form);
  return out;
}

// Without it in its place a container that names it could not start: then there are no hooks.
std::string CdiKeeper::hook() {
  if (options_.hook.empty() || !options_.install_hook) return options_.hook;
  if (hook_installed_ && files_.exists(options_.hook)) return options_.hook;
  const Status installed = options_.install_hook();
  if (!installed) {
    log_.once(Level::kWarning, "cdi-hook",
              fmt::format("CDI: {}; until that is mended the loader of a container finds the "
                          "driver's libraries by LD_LIBRARY_PATH alone",
                          installed.error().message));
    return "";
  }
  log_.over("cdi-hook");
  hook_installed_ = true;
  return options_.hook;
}

void CdiKeeper::look(const Sight& sight, AnswerForm& form) {
  std::map<std::string, std::string> specs;
  if (form.any_cdi()) specs = cdi_specs(source(sight, form));
  trouble_.clear();
  for (const auto& [name, text] : specs) {
    const std::string path = options_.folder + "/" + name;
    // One that is as it should be is left alone; another program may have taken it away.
    const auto there = files_.read(path, kMaxSpecBytes);
    if (!there || *there != text) {
      if (const Status done = files_.write_atomic(path, text, false); !done) {
        trouble_ = fmt::format("CDI: {}; pods that ask for its devices cannot start",
                               done.error().message);
        continue;
      }
      log_.info("CDI: {} written", path);
    }
    written_.insert(name);
  }
  sweep(specs);
  if (trouble_.empty())
    log_.over("cdi");
  else
    log_.once(Level::kError, "cdi", trouble_);
  for (const std::string_view cls : {"gds", "mofed", "gdrcopy"})
    if (specs.contains(cdi_file_name(cls))) form.cdi_classes.emplace_back(cls);
}

void CdiKeeper::sweep(const std::map<std::string, std::string>& specs) {
  bool all_gone = true;
  for (const std::string_view cls : kClasses) {
    const std::string name = cdi_file_name(cls);
    // What was there before our first spec is another program's (or an earlier life's that used
    // CDI), and is left alone as long as we write none.
    const bool ours = written_.contains(name) || (!swept_ && !specs.empty());
    if (specs.contains(name) || !ours) continue;
    const std::string path = options_.folder + "/" + name;
    if (files_.exists(path)) {
      if (const Status gone = files_.remove(path, false); !gone) {
        trouble_ =
            fmt::format("CDI: {}; it names devices that are not there", gone.error().message);
        all_gone = false;
        continue;
      }
      log_.info("CDI: {} removed", path);
    }
    written_.erase(name);
  }
  swept_ = swept_ || (all_gone && !specs.empty());
}

}  // namespace gpuslice::agent
