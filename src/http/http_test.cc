#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/random.h"
#include "base/text.h"
#include "http/page.h"
#include "http/server.h"

namespace gpuslice::http {
namespace {

// A client as plain as can be: what it sends is what the test says.
class Client {
 public:
  explicit Client(const std::string& address) : fd_(::socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<uint16_t>(*parse_u64(address.substr(address.rfind(':') + 1))));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
    timeval limit{5, 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { ::close(fd_); }

  [[nodiscard]] bool connected() const { return connected_; }
  void send(const std::string& bytes) const {
    ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL),
              static_cast<ssize_t>(bytes.size()));
  }
  // Everything until the server closes.
  [[nodiscard]] std::string rest() const {
    std::string all;
    char buffer[4096];
    ssize_t got = 0;
    while ((got = ::recv(fd_, buffer, sizeof buffer, 0)) > 0) {
      all.append(buffer, static_cast<size_t>(got));
    }
    return all;
  }
  // One answer of which the length of the body is known.
  [[nodiscard]] std::string some(size_t bytes) const {
    std::string all(bytes, '\0');
    const ssize_t got = ::recv(fd_, all.data(), bytes, MSG_WAITALL);
    all.resize(got > 0 ? static_cast<size_t>(got) : 0);
    return all;
  }

 private:
  int fd_;
  bool connected_ = false;
};

std::unique_ptr<Server> serve(Limits limits = {}) {
  auto server = Server::listen(
      "127.0.0.1:0",
      [](std::string_view path) -> Response {
        if (path == "/healthz") return {200, "text/plain; charset=utf-8", "ok\n"};
        if (path == "/throw") throw std::runtime_error("x");
        if (path == "/large") return {200, "text/plain", std::string(8 << 20, 'x')};
        return {404, "text/plain; charset=utf-8", "not found\n"};
      },
      limits);
  EXPECT_TRUE(server.has_value());
  return std::move(*server);
}

std::string ask(const Server& server, const std::string& request) {
  const Client client(server.address());
  client.send(request);
  return client.rest();
}

constexpr std::string_view kOk =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n"
    "X-Content-Type-Options: nosniff\r\n";

TEST(HttpServer, AnswersGetAndHead) {
  const auto server = serve();
  EXPECT_EQ(ask(*server, "GET /healthz?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            std::string(kOk) + "Connection: close\r\nContent-Length: 3\r\n\r\nok\n");
  EXPECT_EQ(ask(*server, "HEAD /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"),
            std::string(kOk) + "Connection: close\r\nContent-Length: 3\r\n\r\n");
  EXPECT_TRUE(ask(*server, "GET /none HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 404 Not Found\r\n"));
  EXPECT_EQ(server->requests(), 3u);
}

TEST(HttpServer, KeepsAConnectionForTheNextRequest) {
  const auto server = serve();
  const Client client(server->address());
  const std::string expected = std::string(kOk) + "Content-Length: 3\r\n\r\nok\n";
  for (int i = 0; i < 3; ++i) {
    client.send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(client.some(expected.size()), expected);
  }
}

TEST(HttpServer, RefusesWhatItDoesNotServe) {
  const auto server = serve();
  EXPECT_TRUE(ask(*server, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
                  .starts_with("HTTP/1.1 405 Method Not Allowed\r\n"));
  EXPECT_TRUE(ask(*server, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
                  .starts_with("HTTP/1.1 413 Payload Too Large\r\n"));
  EXPECT_TRUE(ask(*server, "GET /" + std::string(3000, 'x') + " HTTP/1.1\r\nHost: a\r\n\r\n")
                  .starts_with("HTTP/1.1 414 URI Too Long\r\n"));
  EXPECT_TRUE(ask(*server, "GET / HTTP/1.1\r\nA: " + std::string(9000, 'x') + "\r\n\r\n")
                  .starts_with("HTTP/1.1 431 Request Header Fields Too Large\r\n"));
  EXPECT_TRUE(ask(*server, "\x16\x03\x01 garbage\r\n\r\n").starts_with("HTTP/1.1 400 Bad Request"));
  EXPECT_TRUE(ask(*server, "GET /throw HTTP/1.1\r\nHost: a\r\n\r\n")
                  .starts_with("HTTP/1.1 500 Internal Server Error\r\n"));
}

TEST(HttpServer, GarbageNeverStopsIt) {
  const auto server = serve();
  Random random(7);
  for (int i = 0; i < 300; ++i) {
    std::string bytes = random.chance(1, 2) ? "GET /healthz HTTP/1.1\r\n" : "";
    const size_t length = random.below(200);
    while (bytes.size() < length) bytes += static_cast<char>(random.below(256));
    const Client client(server->address());
    client.send(bytes);
  }
  EXPECT_TRUE(ask(*server, "GET /healthz HTTP/1.0\r\n\r\n").ends_with("\r\n\r\nok\n"));
}

TEST(HttpServer, ASlowClientIsCutOffAndHoldsNobodyUp) {
  Limits limits;
  limits.time = std::chrono::milliseconds(200);
  const auto server = serve(limits);
  const Client slow(server->address());
  slow.send("GET /healthz HT");
  EXPECT_TRUE(ask(*server, "GET /healthz HTTP/1.0\r\n\r\n").ends_with("ok\n"));
  EXPECT_EQ(slow.rest(), "");
  const Client never_reads(server->address());
  never_reads.send("GET /large HTTP/1.0\r\n\r\n");
  std::this_thread::sleep_for(std::chrono::milliseconds(500));
  EXPECT_LT(never_reads.rest().size(), 8u << 20);
}

TEST(HttpServer, OneConnectionTooManyTakesThePlaceOfTheLongestIdle) {
  Limits limits;
  limits.connections = 3;
  const auto server = serve(limits);
  const std::string expected = std::string(kOk) + "Content-Length: 3\r\n\r\nok\n";
  std::vector<std::unique_ptr<Client>> clients;
  const auto asks = [&](size_t i) {
    clients[i]->send("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    EXPECT_EQ(clients[i]->some(expected.size()), expected) << i;
  };
  for (size_t i = 0; i < 3; ++i) {
    clients.push_back(std::make_unique<Client>(server->address()));
    asks(i);
  }
  asks(0);  // the second one is the longest idle now
  clients.push_back(std::make_unique<Client>(server->address()));
  asks(3);
  EXPECT_EQ(server->refused_connections(), 1u);
  EXPECT_EQ(clients[1]->rest(), "");
  for (const size_t i : {0U, 2U, 3U}) asks(i);
  EXPECT_EQ(server->connections(), 3u);
  clients.clear();
  for (int i = 0; i < 100; ++i) {
    const Client again(server->address());
    again.send("GET /healthz HTTP/1.0\r\n\r\n");
    if (again.rest().ends_with("ok\n")) return;
  }
  FAIL() << "places of closed connections are not given again";
}

TEST(HttpServer, SaysWhyItCannotListen) {
  const auto server = serve();
  const auto taken = Server::listen(server->address(), {});
  ASSERT_FALSE(taken.has_value());
  EXPECT_EQ(taken.error(),
            (Error{Code::kUnavailable,
                   server->address() +
                       ": cannot be listened on: another program has this port; stop it, or choose "
                       "another with --listen HOST:PORT (--listen 127.0.0.1:0 takes a free one)",
                   {}}));
  for (const char* wrong : {"9400", "a:b", "host.name:1", "127.0.0.1:", "127.0.0.1:99999", ""}) {
    const auto refused = Server::listen(wrong, {});
    ASSERT_FALSE(refused.has_value()) << wrong;
    EXPECT_EQ(refused.error().code, Code::kUsage) << wrong;
    EXPECT_EQ(refused.error().message,
              fmt::format("listen address '{}': not understood; write HOST:PORT, for example "
                          "127.0.0.1:9400 or [::1]:9400, or :9400 for all interfaces",
                          wrong));
  }
}

TEST(HttpServer, EndsAtOnceWithConnectionsOpen) {
  auto server = serve();
  const Client idle(server->address());
  const Client half(server->address());
  half.send("GET /");
  const auto start = std::chrono::steady_clock::now();
  server.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
  EXPECT_EQ(half.rest(), "");
}

TEST(Page, ShowsGpusSlicesAndPodsEscaped) {
  PageModel model;
  model.version = "0.1.0";
  model.driver = "580.65.06";
  model.state = "ready";
  model.configuration = "/etc/<gpuslice>.yaml, generation 2";
  model.problem = "a.yaml:3:5: 'replica' & more";
  model.mig = "label mixed: failed";
  model.mig_problem = "GPU 0: <held>";
  model.gpus = {{0, "GPU-1", "NVIDIA A100", "healthy", 12, 40960, 37},
                {1, "GPU-2", "NVIDIA A100", "XID 79", {}, 40960, {}}};
  model.slices = {{"nvidia.com/gpu", "GPU-1::0", "0", "healthy", "default/pod-0"},
                  {"nvidia.com/gpu", "MIG-1::0", "0:3", "healthy", ""},
                  {"nvidia.com/gpu", "GPU-2::0", "1", "XID 79", ""}};
  model.pods = {{"default/pod-0", "main", "nvidia.com/gpu", {"GPU-1::0", "GPU-2::0"}}};
  const std::string html = page(model);
  const auto has = [&](std::string_view part) {
    EXPECT_NE(html.find(part), std::string::npos) << part << "\nin\n" << html;
  };
  has("<meta http-equiv=refresh content=5>");
  has("configuration: /etc/&lt;gpuslice&gt;.yaml, generation 2");
  has("<p class=problem>a.yaml:3:5: &#39;replica&#39; &amp; more</p>");
  has("<p class=facts>MIG: label mixed: failed</p>\n<p class=problem>GPU 0: &lt;held&gt;</p>");
  has("<h2>GPUs (2)</h2>");
  has("<p class=good>ready</p>");
  has("<meter max=40960 value=12></meter>12 / 40960 MiB</span></td>");
  has("<meter max=100 value=37></meter>37 %</span></td><td class=good data-l=Health>healthy</td>");
  has("<td class=n data-l=Memory><span>– / 40960 MiB</span></td>");
  has("<span>–</span></td><td class=bad data-l=Health>XID 79</td>");
  has("<span class=s><i class=h></i><i></i></span>1 of 2 held");
  has("<span class=s><i class=x></i></span>0 of 1 held");
  has("<td data-l=GPU>0:3</td><td class=good data-l=Health>healthy</td><td data-l='Held by'>–</td>"
      "<td data-l=Device><code>MIG-1::0</code></td>");
  has("<td data-l='Held by'>default/pod-0</td><td data-l=Device><code>GPU-1::0</code></td>");
  has("<span><code>GPU-1::0</code><br><code>GPU-2::0</code></span>");
  for (const std::string_view foreign : {"<script", "http://", "https://", "src=", "@import"})
    EXPECT_EQ(html.find(foreign), std::string::npos) << foreign;
}

TEST(Page, ManySlicesAreCountedAndNotDrawn) {
  PageModel model;
  model.state = "not ready: <no> GPU";
  model.gpus = {{7, "GPU-7", "NVIDIA A100", "healthy", 0, 0, {}}};
  for (int i = 0; i < 65; ++i)
    model.slices.push_back({"nvidia.com/gpu", "GPU-7::" + std::to_string(i), "7", "healthy",
                            i < 3 ? "default/pod" : ""});
  const std::string html = page(model);
  EXPECT_NE(html.find("<span>3 of 65 held</span>"), std::string::npos) << html;
  EXPECT_EQ(html.find("<i>"), std::string::npos);
  EXPECT_EQ(html.find("<meter"), std::string::npos) << "nothing is known of its memory";
  EXPECT_NE(html.find("<p class=bad>not ready: &lt;no&gt; GPU</p>"), std::string::npos);
}

// The first look in a while has the GPUs asked; what they said then is nothing to show.
TEST(Page, LooksAgainSoonWhileNothingIsKnownOfAnyGpusUse) {
  PageModel model;
  const std::string often = "<meta http-equiv=refresh content=1>";
  EXPECT_EQ(page(model).find(often), std::string::npos);
  model.gpus = {{0, "GPU-1", "NVIDIA A100", "healthy", {}, 40960, {}},
                {1, "GPU-2", "NVIDIA A100", "healthy", {}, 40960, {}}};
  EXPECT_NE(page(model).find(often), std::string::npos);
  EXPECT_NE(page(model).find("– / 40960 MiB"), std::string::npos);
  model.gpus[1].memory_used_mib = 0;
  EXPECT_EQ(page(model).find(often), std::string::npos);
  EXPECT_NE(page(model).find("</meter>0 / 40960 MiB"), std::string::npos);
}

TEST(Page, CutsLongTablesAndSaysSo) {
  PageModel model;
  model.slices.resize(kMaxRows + 5);
  EXPECT_NE(page(model).find("… and 5 more slices."), std::string::npos);
  EXPECT_NE(page(PageModel{}).find("No GPU is seen yet."), std::string::npos);
}

}  // namespace
}  // namespace gpuslice::http
