#pragma once

// What `gpuslice agent` is started with, as values.

#include <map>
#include <string>
#include <vector>

#include "config/flags.h"

namespace gpuslice::bin {

struct AgentCommand {
  std::string root;  // "" when not said: see driver_root() in bin/agent_main.h
  std::string kubelet_dir = "/var/lib/kubelet";
  std::string listen = "127.0.0.1:9400";  // "" for none
  std::string config_file;
  std::string config_dir;
  std::string default_config;  // a key of it, "" when not said
  std::string config_compat = "strict";
  std::string mig_config;
  std::string mig_label;
  std::string mig_label_file;
  std::string mig_wait;  // "10m"
  bool mig_evict = false;
  std::string state_dir;  // "" when not said: see places_below()
  std::string run_dir;
  std::string driver_patience = "10m";
  std::string log_level = "info";
  std::string log_form = "text";
  std::vector<std::string> roles;
  std::string labels_to;  // node, nfd-file, stdout; "" for nowhere
  std::vector<std::string> cdi_extra_mounts;
  std::string cdi_dir;        // "" when not said: /var/run/cdi, below --root if that is said
  std::string cdi_hook_path;  // "" when not said: bin/gpuslice below the state folder
  bool require_distinct = false;
  bool no_kube = false;
  std::string events = "auto";                  // of health, on the Node: auto, on, off
  bool check = false;                           // --check: look whether all is there, and end
  std::map<std::string, std::string> kube;      // flags about the API server: "node-name"
  std::map<config::Flag, std::string> options;  // NVIDIA's flags that were written, as written
};

}  // namespace gpuslice::bin
