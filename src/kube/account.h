#pragma once

// Who we are for the API server, where it is, and whom we believe: from a kubeconfig, or from the
// files that a pod is given.

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"

namespace gpuslice::kube {

inline constexpr size_t kMaxKubeconfigBytes = 1024 * 1024;
inline constexpr size_t kMaxCredentialBytes = 256 * 1024;  // a token, a key, a bundle of CAs
// A pod's token is replaced by the kubelet in its file, long before it ends.
inline constexpr Duration kTokenAge = std::chrono::seconds(60);
inline constexpr std::string_view kServiceAccountDir =
    "/var/run/secrets/kubernetes.io/serviceaccount";

// Something given by value or as a file, which is read anew each time.
struct Material {
  std::string text;
  std::string file;
  [[nodiscard]] bool empty() const { return text.empty() && file.empty(); }
  // kNotFound, kNoPermission, kInvalidConfig (empty, or longer than kMaxCredentialBytes).
  [[nodiscard]] Result<std::string> load(std::string_view what) const;
  friend bool operator==(const Material&, const Material&) = default;
};

struct Account {
  std::string source;       // "kubeconfig /etc/k", for messages
  std::string host;         // a name or an address, IPv6 without brackets
  std::string port;         // "443"
  std::string path;         // before every path, without a slash at its end: "" or "/k8s/c1"
  std::string server_name;  // what the certificate must say; empty: `host`
  Material ca;              // PEM; empty: the machine's own CAs
  Material certificate;     // PEM, with `key`
  Material key;
  Material token;
  friend bool operator==(const Account&, const Account&) = default;
};

// The account of `context` (empty: the file's current-context). `path` of the file: relative paths
// in it begin at its folder. kInvalidConfig with a sentence for what cannot be followed: exec and
// auth-provider plugins, passwords, proxies, insecure-skip-tls-verify, http.
[[nodiscard]] Result<Account> read_kubeconfig(std::string_view text, std::string_view path,
                                              std::string_view context = {});
[[nodiscard]] Result<Account> load_kubeconfig(const std::string& path,
                                              std::string_view context = {});

// What the kubelet gives every pod. `host`, `port`: KUBERNETES_SERVICE_HOST and _PORT.
// `folder`: kServiceAccountDir. kUnavailable when this is no pod with an account.
[[nodiscard]] Result<Account> in_cluster_account(std::string_view host, std::string_view port,
                                                 const std::string& folder);

// The account's token as it is now.
class Token {
 public:
  explicit Token(Material material) : material_(std::move(material)) {}
  // Empty: the account has none.
  [[nodiscard]] Result<std::string> at(MonotonicTime now);
  // The API server refused it: read it anew.
  void refused() { read_ = false; }

 private:
  Material material_;
  std::string text_;
  MonotonicTime when_{};
  bool read_ = false;
};

}  // namespace gpuslice::kube
