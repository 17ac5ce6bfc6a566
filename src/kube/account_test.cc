// Kubeconfigs and the files of a pod's account.
#include "kube/account.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

namespace gpuslice::kube {
namespace {

std::string config(const std::string& cluster, const std::string& user) {
  return "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
         "clusters: [{name: other, cluster: {server: 'https://no'}}, {name: c, cluster: {" +
         cluster + "}}]\nusers: [{name: u, user: {" + user +
         "}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}, {name: y, context: {cluster: "
         "other, user: u}}]\n";
}
std::string refusal(const std::string& cluster, const std::string& user) {
  const Result<Account> account = read_kubeconfig(config(cluster, user), "/etc/k");
  return account ? "none" : account.error().message;
}

TEST(Kubeconfig, TokenAndInlineCa) {
  const Result<Account> account = read_kubeconfig(
      config("server: 'https://10.0.0.1:6443/k8s/c1/', certificate-authority-data: aGVsbG8=",
             "token: abc"),
      "/etc/k");
  ASSERT_TRUE(account) << account.error().message;
  Account expected;
  expected.source = "kubeconfig /etc/k";
  expected.host = "10.0.0.1";
  expected.port = "6443";
  expected.path = "/k8s/c1";
  expected.ca.text = "hello";
  expected.token.text = "abc";
  EXPECT_EQ(*account, expected);
}

TEST(Kubeconfig, FilesBeginAtItsFolder) {
  const Result<Account> account = read_kubeconfig(
      config("server: https://api.example, certificate-authority: ca.crt, tls-server-name: kube",
             "client-certificate: /abs/c.crt, client-key-data: a2V5, token: abc, tokenFile: t"),
      "/etc/kube/config");
  ASSERT_TRUE(account) << account.error().message;
  EXPECT_EQ(account->host, "api.example");
  EXPECT_EQ(account->port, "443");
  EXPECT_EQ(account->server_name, "kube");
  EXPECT_EQ(account->ca.file, "/etc/kube/ca.crt");
  EXPECT_EQ(account->certificate.file, "/abs/c.crt");
  EXPECT_EQ(account->key.text, "key");
  EXPECT_EQ(account->token.file, "/etc/kube/t");
  EXPECT_EQ(account->token.text, "");
}

TEST(Kubeconfig, AnotherContextAndIpv6) {
  const std::string text = config("server: 'https://[fd00::1]:6443'", "token: t");
  EXPECT_EQ(read_kubeconfig(text, "k", "y")->host, "no");
  EXPECT_EQ(read_kubeconfig(text, "k")->host, "fd00::1");
  EXPECT_EQ(read_kubeconfig(text, "k", "z").error().message,
            "kubeconfig k: there is no context 'z'");
}

TEST(Kubeconfig, SaysWhatItDoesNotFollow) {
  const std::string server = "server: https://a";
  EXPECT_EQ(refusal(server, "exec: {command: aws}"),
            "kubeconfig /etc/k: user 'u': exec: programs that fetch credentials are not run on a "
            "node; use a token, a client certificate, or the pod's own account");
  EXPECT_NE(refusal(server, "auth-provider: {name: gcp}").find("auth-provider"), std::string::npos);
  EXPECT_NE(refusal(server, "username: me").find("passwords"), std::string::npos);
  EXPECT_EQ(refusal(server, "client-certificate: a"),
            "kubeconfig /etc/k: user 'u': client-certificate is given without client-key");
  EXPECT_EQ(refusal("server: http://a", "token: t"),
            "kubeconfig /etc/k: cluster 'c': server 'http://a': only https is spoken, since the "
            "account's token goes over it; write https://HOST:PORT");
  EXPECT_NE(refusal(server + ", insecure-skip-tls-verify: true", "token: t")
                .find("certificate-authority"),
            std::string::npos);
  EXPECT_EQ(refusal(server + ", insecure-skip-tls-verify: false", "token: t"), "none");
  EXPECT_NE(refusal(server + ", proxy-url: 'http://p'", "token: t").find("proxy"),
            std::string::npos);
  EXPECT_NE(refusal(server + ", certificate-authority-data: '!!!!'", "token: t").find("base64"),
            std::string::npos);
  for (const char* bad : {"https://", "https://a:b", "https://a:", "https://[::1", "https://a b",
                          "https://u@h", "https://a:1234567"})
    EXPECT_NE(refusal(std::string("server: '") + bad + "'", "token: t"), "none") << bad;
}

TEST(Kubeconfig, NotAKubeconfig) {
  EXPECT_FALSE(read_kubeconfig("", "k"));
  EXPECT_FALSE(read_kubeconfig("[1]", "k"));
  EXPECT_FALSE(read_kubeconfig("contexts: 7\ncurrent-context: x", "k"));
  EXPECT_FALSE(read_kubeconfig("current-context: [x]", "k"));
  const Result<Account> torn = read_kubeconfig("a: [1\nb", "k");
  ASSERT_FALSE(torn);
  EXPECT_EQ(torn.error().where.substr(0, 2), "k:");
  EXPECT_FALSE(read_kubeconfig(std::string(kMaxKubeconfigBytes + 1, '#'), "k"));
}

class AccountFiles : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("kube-account-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name) << text;
  }
  std::filesystem::path folder_;
};

TEST_F(AccountFiles, InCluster) {
  EXPECT_EQ(in_cluster_account("", "", folder_).error().code, Code::kUnavailable);
  EXPECT_EQ(in_cluster_account("10.96.0.1", "443", folder_).error().code, Code::kNotFound);
  write("token", "t1\n");
  write("ca.crt", "pem");
  const Result<Account> account = in_cluster_account("10.96.0.1", "443", folder_);
  ASSERT_TRUE(account) << account.error().message;
  EXPECT_EQ(account->ca.file, (folder_ / "ca.crt").string());
  EXPECT_EQ(account->host, "10.96.0.1");
}

TEST_F(AccountFiles, ATokenIsReadAnewWhenItIsOldOrRefused) {
  write("token", "t1\n");
  Token token({"", folder_ / "token"});
  const MonotonicTime start{std::chrono::hours(1)};
  EXPECT_EQ(*token.at(start), "t1");
  write("token", "t2\n");
  EXPECT_EQ(*token.at(start + kTokenAge / 2), "t1");
  EXPECT_EQ(*token.at(start + kTokenAge), "t2");
  write("token", "t3");
  token.refused();
  EXPECT_EQ(*token.at(start + kTokenAge), "t3");
  write("token", "two words");
  token.refused();
  EXPECT_EQ(token.at(start + kTokenAge).error().code, Code::kInvalidConfig);
  write("token", "");
  EXPECT_EQ(token.at(start + kTokenAge).error().code, Code::kInvalidConfig);
}

}  // namespace
}  // namespace gpuslice::kube
