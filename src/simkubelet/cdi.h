#pragma once

// Container Device Interface: the specs that lie on a node, and what they make of a container that
// asks for their devices. The rules are containerd's (its CDI cache): /var/run/cdi goes before
// /etc/cdi; a device that two files of one folder define is nobody's; a file that is not right
// gives no devices.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"
#include "simkubelet/plugins.h"

namespace gpuslice::simkubelet {

inline constexpr size_t kMaxCdiFile = 4 * 1024 * 1024;  // bytes
inline constexpr size_t kMaxCdiFiles = 1024;            // in a folder
inline constexpr size_t kMaxCdiValues = 200'000;        // of a YAML file, aliases counted each time

struct CdiHook {
  std::string name;  // "createContainer"
  std::string path;
  std::vector<std::string> args;  // args[0] too; empty: the path alone
  std::vector<std::string> env;
  uint32_t timeout_s = 0;  // 0: none
};
// What is edited into a container, in order; later ones win.
struct CdiEdits {
  std::vector<std::string> env;  // NAME=VALUE
  struct DeviceNode {
    std::string path, host_path;  // host_path is never empty
  };
  std::vector<DeviceNode> device_nodes;
  struct Mount {
    std::string host_path, container_path;
    bool read_only = false;
  };
  std::vector<Mount> mounts;
  std::vector<CdiHook> hooks;

  [[nodiscard]] bool empty() const {
    return env.empty() && device_nodes.empty() && mounts.empty() && hooks.empty();
  }
  void add(const CdiEdits& more);
};

struct CdiSpec {
  std::string kind;  // "vendor.com/class"
  CdiEdits edits;    // of the spec: once for a container that has any of its devices
  std::map<std::string, CdiEdits> devices;
};
enum class CdiFormat : uint8_t { kJson, kYaml };
// kInvalidConfig with the place in the document.
[[nodiscard]] Result<CdiSpec> parse_cdi_spec(const std::string& text, CdiFormat format);

class CdiSpecs {
 public:
  // Folders by rising priority. Folders that are not there are empty; files that are not right are
  // remembered for the sentence.
  [[nodiscard]] static CdiSpecs read(const std::vector<std::string>& folders);
  // <root>/etc/cdi, <root>/var/run/cdi.
  [[nodiscard]] static CdiSpecs of_node(const std::string& root);

  // kNotFound, as containerd: "unresolvable CDI devices vendor.com/class=name, …".
  [[nodiscard]] Result<CdiEdits> resolve(const std::vector<std::string>& names) const;

 private:
  void read_folder(const std::string& folder);

  struct Device {
    size_t spec = 0;
    CdiEdits edits;
  };
  std::vector<CdiSpec> specs_;
  std::map<std::string, Device> devices_;  // by qualified name
  std::vector<std::string> wrong_;         // sentences
};

// The names a container asks for: by its annotations cdi.k8s.io/… and by cdi_devices, each once.
// kInvalidConfig for an annotation that holds no qualified names.
[[nodiscard]] Result<std::vector<std::string>> cdi_names(const Allocated& allocated);

}  // namespace gpuslice::simkubelet
