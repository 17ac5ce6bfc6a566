#include "kube/account.h"

#include <openssl/evp.h>
#include <yaml-cpp/yaml.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <vector>

namespace gpuslice::kube {
namespace {

Result<std::string> read_file(const std::string& path, std::string_view what, size_t most) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    if (errno == EACCES || errno == EPERM)
      return fail(Code::kNoPermission, "{} {}: may not be read; give its reader access", what,
                  path);
    return fail(Code::kNotFound, "{} {}: there is no such file", what, path);
  }
  std::string text(most + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > most)
    return fail(Code::kInvalidConfig, "{} {}: longer than {} bytes", what, path, most);
  return text;
}

std::optional<std::string> decode_base64(std::string_view text) {
  std::string clean;
  for (const char c : text)
    if (c != '\n' && c != '\r' && c != ' ' && c != '\t') clean.push_back(c);
  if (clean.empty() || clean.size() % 4 != 0) return std::nullopt;
  std::vector<unsigned char> bytes(clean.size() / 4 * 3);
  // EVP_DecodeBlock counts the padding as bytes.
  const int length =
      EVP_DecodeBlock(bytes.data(), reinterpret_cast<const unsigned char*>(clean.data()),
                      static_cast<int>(clean.size()));
  if (length < 0) return std::nullopt;
  size_t real = static_cast<size_t>(length);
  const size_t text_end = clean.find_last_not_of('=') + 1;
  const size_t padding = clean.size() - text_end;
  if (padding > 2) return std::nullopt;
  real -= padding;
  return std::string(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(real));
}

// One named entry of a kubeconfig's list ("clusters": [{name, cluster: {…}}]).
class Entry {
 public:
  Entry(const YAML::Node& node, std::string object, std::string folder)
      : node_(node), object_(std::move(object)), folder_(std::move(folder)) {}

  [[nodiscard]] const std::string& object() const { return object_; }
  [[nodiscard]] bool has(const char* key) const {
    return node_.IsMap() && node_[key].IsDefined() && !node_[key].IsNull();
  }
  [[nodiscard]] std::string text(const char* key) const {
    return has(key) && node_[key].IsScalar() ? node_[key].Scalar() : std::string();
  }
  // <key>-data, by value, goes before the file <key>, as kubectl takes them.
  [[nodiscard]] Result<Material> material(const char* key) const {
    Material found;
    const std::string inline_key = std::string(key) + "-data";
    if (const std::string data = text(inline_key.c_str()); !data.empty()) {
      const std::optional<std::string> decoded = decode_base64(data);
      if (!decoded) return fail(Code::kInvalidConfig, "{}: {}: not base64", object_, inline_key);
      found.text = *decoded;
    } else {
      found.file = file(key);
    }
    return found;
  }
  [[nodiscard]] std::string file(const char* key) const {
    std::string path = text(key);
    if (!path.empty() && path.front() != '/') path.insert(0, folder_);
    return path;
  }

 private:
  YAML::Node node_;
  std::string object_;
  std::string folder_;
};

struct Place {
  const char* list;  // "clusters"
  const char* key;   // "cluster"
};

Result<Entry> entry(const YAML::Node& root, Place place, const std::string& name,
                    std::string_view path) {
  const YAML::Node list = root[place.list];
  if (list.IsDefined() && list.IsSequence()) {
    for (const YAML::Node& item : list) {
      if (!item.IsMap() || !item["name"].IsDefined() || !item["name"].IsScalar()) continue;
      if (item["name"].Scalar() != name) continue;
      const size_t slash = path.rfind('/');
      return Entry(
          item[place.key], fmt::format("kubeconfig {}: {} '{}'", path, place.key, name),
          slash == std::string_view::npos ? std::string() : std::string(path.substr(0, slash + 1)));
    }
  }
  return fail(Code::kInvalidConfig, "kubeconfig {}: there is no {} '{}'", path, place.key, name);
}

// "https://host:port/path"
Status read_server(const std::string& server, const std::string& object, Account& account) {
  constexpr std::string_view kScheme = "https://";
  const auto wrong = [&](std::string_view why) {
    return fail(Code::kInvalidConfig, "{}: server '{}': {}; write https://HOST:PORT", object,
                server, why);
  };
  if (!server.starts_with(kScheme))
    return wrong("only https is spoken, since the account's token goes over it");
  std::string_view rest = std::string_view(server).substr(kScheme.size());
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    account.path = rest.substr(slash);
    while (account.path.ends_with('/')) account.path.pop_back();
    rest = rest.substr(0, slash);
  }
  account.port = "443";
  if (rest.starts_with('[')) {
    const size_t end = rest.find(']');
    if (end == std::string_view::npos) return wrong("its address does not end");
    account.host = rest.substr(1, end - 1);
    rest = rest.substr(end + 1);
  } else {
    const size_t colon = rest.find(':');
    account.host = rest.substr(0, colon);
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon);
  }
  if (!rest.empty()) {
    if (rest.front() != ':' || rest.size() < 2 || rest.size() > 6 ||
        rest.find_first_not_of("0123456789", 1) != std::string_view::npos)
      return wrong("its port is no number");
    account.port = rest.substr(1);
  }
  if (account.host.empty()) return wrong("it names no host");
  for (const std::string* text : {&account.host, &account.path})
    for (const char c : *text)
      if (c <= ' ' || c == 0x7f || c == '@' || c == '?' || c == '#')
        return wrong("it has a character that does not belong there");
  return {};
}

Status read_cluster(const Entry& cluster, Account& account) {
  TRY(read_server(cluster.text("server"), cluster.object(), account));
  const std::string insecure = cluster.text("insecure-skip-tls-verify");
  if (!insecure.empty() && insecure != "false")
    return fail(Code::kInvalidConfig,
                "{}: insecure-skip-tls-verify: not followed: an account must not be shown to "
                "strangers; give the server's CA as certificate-authority",
                cluster.object());
  if (!cluster.text("proxy-url").empty())
    return fail(Code::kInvalidConfig,
                "{}: proxy-url: not followed; give an address that this node reaches",
                cluster.object());
  account.server_name = cluster.text("tls-server-name");
  TRY_ASSIGN(account.ca, cluster.material("certificate-authority"));
  return {};
}

Status read_user(const Entry& user, Account& account) {
  for (const char* key : {"exec", "auth-provider"})
    if (user.has(key))
      return fail(Code::kInvalidConfig,
                  "{}: {}: programs that fetch credentials are not run on a node; use a token, a "
                  "client certificate, or the pod's own account",
                  user.object(), key);
  for (const char* key : {"username", "password"})
    if (user.has(key))
      return fail(Code::kInvalidConfig,
                  "{}: {}: the API server takes no passwords; use a token or a client certificate",
                  user.object(), key);
  if (user.has("as"))
    return fail(Code::kInvalidConfig, "{}: as: acting as somebody else is not supported",
                user.object());
  TRY_ASSIGN(account.certificate, user.material("client-certificate"));
  TRY_ASSIGN(account.key, user.material("client-key"));
  if (account.certificate.empty() != account.key.empty())
    return fail(Code::kInvalidConfig, "{}: {} is given without {}", user.object(),
                account.key.empty() ? "client-certificate" : "client-key",
                account.key.empty() ? "client-key" : "client-certificate");
  // A file goes before a value here, as kubectl takes them: the file is the one that is renewed.
  account.token.file = user.file("tokenFile");
  if (account.token.file.empty()) account.token.text = user.text("token");
  return {};
}

}  // namespace

Result<std::string> Material::load(std::string_view what) const {
  if (file.empty()) return text;
  TRY_ASSIGN(std::string read, read_file(file, what, kMaxCredentialBytes));
  if (read.find_first_not_of(" \t\r\n") == std::string::npos)
    return fail(Code::kInvalidConfig, "{} {}: is empty", what, file);
  return read;
}

Result<Account> read_kubeconfig(std::string_view text, std::string_view path,
                                std::string_view context) {
  if (text.size() > kMaxKubeconfigBytes)
    return fail(Code::kInvalidConfig, "kubeconfig {}: longer than {} bytes", path,
                kMaxKubeconfigBytes);
  try {
    const YAML::Node root = YAML::Load(std::string(text));
    if (!root.IsMap())
      return fail(Code::kInvalidConfig, "kubeconfig {}: is not a kubeconfig (kind: Config)", path);
    std::string chosen(context);
    if (chosen.empty() && root["current-context"].IsDefined() && root["current-context"].IsScalar())
      chosen = root["current-context"].Scalar();
    if (chosen.empty())
      return fail(Code::kInvalidConfig, "kubeconfig {}: no current-context; say which one is meant",
                  path);
    TRY_ASSIGN(const Entry how, entry(root, {"contexts", "context"}, chosen, path));
    TRY_ASSIGN(const Entry cluster,
               entry(root, {"clusters", "cluster"}, how.text("cluster"), path));
    TRY_ASSIGN(const Entry user, entry(root, {"users", "user"}, how.text("user"), path));
    Account account;
    account.source = fmt::format("kubeconfig {}", path);
    TRY(read_cluster(cluster, account));
    TRY(read_user(user, account));
    return account;
  } catch (const YAML::Exception& problem) {
    Error error{Code::kInvalidConfig, fmt::format("kubeconfig: not YAML: {}", problem.msg),
                std::string(path)};
    if (!problem.mark.is_null())
      error.where += fmt::format(":{}:{}", problem.mark.line + 1, problem.mark.column + 1);
    return std::unexpected(std::move(error));
  }
}

Result<Account> load_kubeconfig(const std::string& path, std::string_view context) {
  TRY_ASSIGN(const std::string text, read_file(path, "kubeconfig", kMaxKubeconfigBytes));
  return read_kubeconfig(text, path, context);
}

Result<Account> in_cluster_account(std::string_view host, std::string_view port,
                                   const std::string& folder) {
  Account account;
  account.source = fmt::format("service account {}", folder);
  account.host = host;
  account.port = port;
  account.ca.file = folder + "/ca.crt";
  account.token.file = folder + "/token";
  if (host.empty() || port.empty())
    return fail(Code::kUnavailable,
                "API server: this is no pod (KUBERNETES_SERVICE_HOST is not set) and no "
                "kubeconfig is given; name one with --kubeconfig");
  TRY(account.token.load("the account's token"));
  TRY(account.ca.load("the cluster's CA"));
  return account;
}

Result<std::string> Token::at(MonotonicTime now) {
  if (material_.empty()) return std::string();
  if (read_ && (material_.file.empty() || now - when_ < kTokenAge)) return text_;
  TRY_ASSIGN(std::string text, material_.load("the account's token"));
  while (!text.empty() && static_cast<unsigned char>(text.back()) <= ' ') text.pop_back();
  for (const char c : text)
    if (c <= ' ' || c == 0x7f)
      return fail(Code::kInvalidConfig,
                  "the account's token{}{}: has characters that no token has; was it cut or "
                  "mixed up with another file?",
                  material_.file.empty() ? "" : " ", material_.file);
  text_ = std::move(text);
  when_ = now;
  read_ = true;
  return text_;
}

}  // namespace gpuslice::kube
