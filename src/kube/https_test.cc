// The transport and the whole client over real TLS, against a scripted server.
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <filesystem>
#include <fstream>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "kube/https_server_for_test.h"
#include "kube/https_transport.h"
#include "kube/node_kube.h"

namespace gpuslice::kube {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::answer;
using testing::Certificates;
using testing::chunk;
using testing::chunked_head;
using testing::HttpsServer;
using testing::Line;
using testing::make_certificates;
using testing::ServerRequest;

const Certificates& certificates() {
  static const Certificates made = make_certificates("IP:127.0.0.1");
  return made;
}

Account account_of(const std::string& port) {
  Account account;
  account.source = "the test";
  account.host = "127.0.0.1";
  account.port = port;
  account.ca.text = certificates().ca;
  account.token.text = "secret";
  return account;
}

// Collects one answer; wait() on the test's thread.
struct Collected final : Wire::Answer {
  int status = 0;
  Duration retry_after{};
  std::string body;
  std::promise<Status> ended;
  void on_head(const Head& head) override {
    status = head.status;
    retry_after = head.retry_after;
  }
  void on_body(std::string_view bytes) override { body += bytes; }
  void on_end(Status how) override { ended.set_value(std::move(how)); }
};

class Asking {
 public:
  explicit Asking(Account account, HttpsLimits limits = {})
      : transport_(https_transport(std::move(account), limits)), wire_(transport_->wire()) {}
  ~Asking() { transport_->stop(); }
  // The answer and how it ended.
  std::pair<std::unique_ptr<Collected>, Status> ask(Request request) {
    auto collected = std::make_unique<Collected>();
    std::future<Status> ended = collected->ended.get_future();
    transport_->post([&] { wire_->send(std::move(request), *collected); });
    if (ended.wait_for(seconds(60)) != std::future_status::ready)
      throw std::runtime_error("no answer within 20 s");
    return {std::move(collected), ended.get()};
  }

 private:
  std::unique_ptr<Transport> transport_;
  std::unique_ptr<Wire> wire_;
};

Request get(std::string target) {
  Request request;
  request.verb = "list";
  request.method = "GET";
  request.target = std::move(target);
  return request;
}

TEST(Https, KeepsItsConnectionAndSaysWhoItIs) {
  std::vector<ServerRequest> seen;
  HttpsServer server(certificates(), [&](const ServerRequest& request, Line& line) {
    seen.push_back(request);
    return line.write(answer(200, "hello"));
  });
  Account account = account_of(server.port());
  account.path = "/k8s/c1";
  Asking asking(account);
  for (int i = 0; i < 3; ++i) {
    const auto [collected, how] = asking.ask(get("/api?x=1"));
    ASSERT_TRUE(how) << how.error().message;
    EXPECT_EQ(collected->status, 200);
    EXPECT_EQ(collected->body, "hello");
  }
  ASSERT_EQ(seen.size(), 3U);
  EXPECT_EQ(seen[2].connection, 1);
  EXPECT_EQ(seen[2].target, "/k8s/c1/api?x=1");
  EXPECT_EQ(seen[2].authorization, "Bearer secret");
}

TEST(Https, AKeptConnectionThatWasClosedIsNoFailure) {
  HttpsServer server(certificates(), [](const ServerRequest& request, Line& line) {
    line.write(answer(200, std::to_string(request.connection)));
    return false;
  });
  Asking asking(account_of(server.port()));
  for (int i = 1; i <= 3; ++i) {
    const auto [collected, how] = asking.ask(get("/"));
    ASSERT_TRUE(how) << how.error().message;
    EXPECT_EQ(collected->body, std::to_string(i));
  }
}

TEST(Https, TheServersCertificateIsChecked) {
  const auto fails = [](const Certificates& own, const Account& account) {
    HttpsServer server(own, [](const ServerRequest&, Line& line) {
      ADD_FAILURE() << "a request reached a server that must not be trusted";
      return line.write(answer(200, ""));
    });
    Account to = account;
    to.port = server.port();
    Asking asking(to);
    return asking.ask(get("/")).second.error();
  };
  const Account account = account_of("");
  const Error stranger = fails(make_certificates("IP:127.0.0.1"), account);
  EXPECT_EQ(stranger.code, Code::kInvalidConfig);
  EXPECT_TRUE(stranger.message.contains("certificate signature failure")) << stranger.message;
  // Signed by the right CA, for somebody else.
  Account elsewhere = account;
  elsewhere.server_name = "kube.example";
  const Error other = fails(certificates(), elsewhere);
  EXPECT_EQ(other.code, Code::kInvalidConfig);
  EXPECT_TRUE(other.message.contains("ostname mismatch")) << other.message;
  const Certificates named = make_certificates("DNS:kube.example");
  Account by_address = account;
  by_address.ca.text = named.ca;
  EXPECT_TRUE(fails(named, by_address).message.contains("IP address mismatch"));
  Account nonsense = account;
  nonsense.ca.text = "not PEM";
  EXPECT_EQ(fails(certificates(), nonsense).code, Code::kInvalidConfig);
}

TEST(Https, ANameOtherThanTheAddressMayBeExpected) {
  const Certificates named = make_certificates("DNS:kube.example");
  HttpsServer server(
      named, [](const ServerRequest&, Line& line) { return line.write(answer(200, "yes")); });
  Account account = account_of(server.port());
  account.ca.text = named.ca;
  account.server_name = "kube.example";
  Asking asking(account);
  EXPECT_EQ(asking.ask(get("/")).first->body, "yes");
}

TEST(Https, AClientCertificateIsShown) {
  HttpsServer server(certificates(), [](const ServerRequest& request, Line& line) {
    return line.write(answer(200, request.client));
  });
  Account account = account_of(server.port());
  account.certificate.text = certificates().certificate;
  account.key.text = certificates().key;
  Asking asking(account);
  EXPECT_EQ(asking.ask(get("/")).first->body, "/CN=test");
}

TEST(Https, NobodyThereMuteAndSlowServersAreLeft) {
  std::string closed;
  {
    HttpsServer server(certificates(), [](const ServerRequest&, Line&) { return false; });
    closed = server.port();
  }
  {
    Asking asking(account_of(closed));
    EXPECT_EQ(asking.ask(get("/")).second.error().code, Code::kUnavailable);
  }
  {
    const std::unique_ptr<HttpsServer> mute = HttpsServer::mute();
    Asking asking(account_of(mute->port()), {seconds(5), milliseconds(100), 65536});
    EXPECT_EQ(asking.ask(get("/")).second.error().code, Code::kTimeout);
  }
  HttpsServer slow(certificates(), [](const ServerRequest& request, Line& line) {
    if (request.target == "/silent") {
      line.wait_for_close();
      return false;
    }
    // Never silent for long, and never done.
    if (!line.write("HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")) return false;
    while (line.write("x")) std::this_thread::sleep_for(milliseconds(5));
    return false;
  });
  Asking asking(account_of(slow.port()));
  Request silent = get("/silent");
  silent.idle = milliseconds(100);
  EXPECT_EQ(asking.ask(silent).second.error().code, Code::kTimeout);
  Request drip = get("/drip");
  drip.idle = milliseconds(500);
  drip.whole = milliseconds(300);
  const auto [collected, how] = asking.ask(drip);
  EXPECT_EQ(how.error().code, Code::kTimeout);
  EXPECT_GT(collected->body.size(), 1U);
}

TEST(Https, GarbageAndTornAnswersAreFailures) {
  std::deque<std::string> answers = {
      "SSH-2.0-OpenSSH\r\n\r\n",
      "HTTP/1.1 200 OK\r\n" + std::string(100'000, 'h') + ": x\r\n\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
      "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
      std::string(1, '\0'),
  };
  std::mutex mutex;
  HttpsServer server(certificates(), [&](const ServerRequest&, Line& line) {
    const std::lock_guard lock(mutex);
    if (answers.empty()) return line.write(answer(200, "fine"));
    line.write(answers.front());
    answers.pop_front();
    return false;
  });
  Asking asking(account_of(server.port()));
  for (int i = 0; i < 6; ++i) {
    const auto [collected, how] = asking.ask(get("/"));
    EXPECT_FALSE(how) << i;
  }
  EXPECT_EQ(asking.ask(get("/")).first->body, "fine");
}

TEST(Https, RetryAfterIsRead) {
  HttpsServer server(certificates(), [](const ServerRequest& request, Line& line) {
    return line.write(answer(
        429, "", request.target == "/1" ? "Retry-After: 7\r\n" : "Retry-After: tomorrow\r\n"));
  });
  Asking asking(account_of(server.port()));
  EXPECT_EQ(asking.ask(get("/1")).first->retry_after, seconds(7));
  EXPECT_EQ(asking.ask(get("/2")).first->retry_after, seconds(0));
}

TEST(Https, AReplacedTokenIsTakenUpWhenTheOldOneIsRefused) {
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / ("kube-token-" + std::to_string(::getpid()));
  std::ofstream(file) << "old\n";
  HttpsServer server(certificates(), [](const ServerRequest& request, Line& line) {
    return line.write(answer(request.authorization == "Bearer new" ? 200 : 401, ""));
  });
  Account account = account_of(server.port());
  account.token = {"", file};
  Asking asking(account);
  EXPECT_EQ(asking.ask(get("/")).first->status, 401);
  std::ofstream(file) << "new\n";
  EXPECT_EQ(asking.ask(get("/")).first->status, 200);
  std::filesystem::remove(file);
}

// --- The whole client.

class ClientTest : public ::testing::Test, public ports::KubeEvents {
 protected:
  void on_node(std::optional<ports::NodeObject> node) override {
    tell(node ? "node " + node->labels["l"] : "no node");
  }
  void on_config_map(const ports::ObjectName&, std::optional<ports::ConfigMapObject>) override {}
  void on_pods(ports::PodList pods) override { tell(fmt::format("pods {}", pods->size())); }
  void on_kube_reachable(Status good) override { tell(good ? "good" : "bad"); }
  void on_labels_applied(Status done) override { tell(done ? "applied" : done.error().message); }
  void on_node_patched(Status) override {}
  void on_evicted(const ports::ObjectName&, Status) override {}

  void tell(std::string line) {
    const std::lock_guard lock(mutex_);
    told_.push_back(std::move(line));
    changed_.notify_all();
  }
  // Waits until `line` is told; what came before it is dropped.
  bool hears(const std::string& line) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, seconds(60), [&] {
      while (!told_.empty()) {
        const std::string first = told_.front();
        told_.pop_front();
        if (first == line) return true;
      }
      return false;
    });
  }
  std::unique_ptr<NodeKube> client(const std::string& port) {
    // T0 stands in for itself here: what is posted is done at once, on the transport's thread.
    return std::make_unique<NodeKube>(
        NodeKube::Options{"n1", [](const std::function<void()>& work) { work(); }, 1},
        https_transport(account_of(port)), *this);
  }
  static std::string node(int version) {
    return fmt::format(
        R"({{"metadata":{{"name":"n1","uid":"u","resourceVersion":"{0}","labels":{{"l":"{0}"}}}}}})",
        version);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::string> told_;
};

TEST_F(ClientTest, AWatchCutAtEveryByte) {
  // Every watch delivers one change in two TLS records cut at another byte, and is then broken off.
  const std::string change =
      chunk(fmt::format(R"({{"type":"MODIFIED","object":{}}})", node(11)) + "\n");
  std::atomic<size_t> cut{0};
  std::atomic<int> resumed{0};
  HttpsServer server(certificates(), [&](const ServerRequest& request, Line& line) {
    if (!request.target.contains("watch=true"))
      return line.write(answer(
          200, fmt::format(R"({{"metadata":{{"resourceVersion":"10"}},"items":[{}]}})", node(10))));
    if (!request.target.contains("resourceVersion=10&")) ++resumed;
    const size_t at = cut.fetch_add(1);
    if (at > change.size()) {
      line.write(chunked_head() + chunk(R"({"type":"DELETED","object":)" + node(12) + "}\n"));
      line.wait_for_close();
      return false;
    }
    line.write(chunked_head());
    return line.write(change.substr(0, at)) && line.write(change.substr(at)) &&
           line.write(chunk(""));
  });
  const std::unique_ptr<NodeKube> kube = client(server.port());
  kube->watch_node();
  EXPECT_TRUE(hears("node 10"));
  EXPECT_TRUE(hears("node 11"));
  EXPECT_TRUE(hears("no node"));
  EXPECT_EQ(kube->counts().relists, 1U);
  EXPECT_GE(resumed, static_cast<int>(change.size()));
}

TEST_F(ClientTest, AThousandPodsOfFourPagesAndAServerThatComesBack) {
  std::atomic<int> page{0};
  HttpsServer server(certificates(), [&](const ServerRequest& request, Line& line) {
    if (request.target.contains("watch=true")) {
      line.write(chunked_head());
      line.wait_for_close();
      return false;
    }
    const int now = page++;
    if (now == 1) return line.write(answer(500, "oops"));
    if (now == 2) return false;  // in the middle of nothing
    std::string items;
    for (int i = 0; i < 250; ++i)
      items += fmt::format(
          R"({}{{"metadata":{{"name":"p-{}-{}","namespace":"x"}},"spec":{{"padding":"{}"}}}})",
          i == 0 ? "" : ",", now, i, std::string(20'000, 'x'));
    return line.write(answer(
        200, fmt::format(R"({{"metadata":{{"resourceVersion":"1","continue":"{}"}},"items":[{}]}})",
                         now == 6 ? "" : "on", items)));
  });
  const std::unique_ptr<NodeKube> kube = client(server.port());
  kube->watch_pods();
  EXPECT_TRUE(hears("pods 1000"));
}

TEST_F(ClientTest, EndsAtOnceWhateverIsUnderWay) {
  HttpsServer server(certificates(), [&](const ServerRequest& request, Line& line) {
    if (!request.target.contains("watch=true") && request.method == "GET")
      return line.write(answer(
          200, fmt::format(R"({{"metadata":{{"resourceVersion":"10"}},"items":[{}]}})", node(10))));
    line.wait_for_close();
    return false;
  });
  std::unique_ptr<NodeKube> kube = client(server.port());
  kube->watch_node();
  kube->watch_pods();
  EXPECT_TRUE(hears("node 10"));
  kube->apply_labels({});
  const auto start = std::chrono::steady_clock::now();
  kube.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(500));
}

}  // namespace
}  // namespace gpuslice::kube
