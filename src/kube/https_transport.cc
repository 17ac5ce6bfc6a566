#include "kube/https_transport.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <charconv>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace gpuslice::kube {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
namespace ssl = boost::asio::ssl;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// A peer that is gone without a word (its machine lost power) is noticed after about a minute on a
// connection where nothing is sent, and after this where something waits to be confirmed.
constexpr unsigned kUserTimeoutMs = 30'000;
constexpr int kKeepAliveIdleSeconds = 30;
constexpr int kKeepAliveEverySeconds = 10;
constexpr int kKeepAliveProbes = 3;
constexpr size_t kPieceBytes = 16 * 1024;

MonotonicTime clock_now() {
  return MonotonicTime(
      std::chrono::duration_cast<Duration>(std::chrono::steady_clock::now().time_since_epoch()));
}

struct Stream {
  explicit Stream(asio::io_context& io, ssl::context own)
      : context(std::move(own)), tls(io, context) {}
  ssl::context context;
  beast::ssl_stream<beast::tcp_stream> tls;
  beast::flat_buffer buffer;
  [[nodiscard]] beast::tcp_stream& tcp_layer() { return beast::get_lowest_layer(tls); }
};

struct Shared {
  Shared(Account the_account, HttpsLimits the_limits)
      : account(std::move(the_account)), token(account.token), limits(the_limits) {}
  asio::io_context io{1};
  Account account;
  Token token;
  HttpsLimits limits;
  [[nodiscard]] std::string server() const {
    return fmt::format("API server {}:{}", account.host, account.port);
  }
};

Result<ssl::context> tls_context(const Account& account) {
  ssl::context context(ssl::context::tls_client);
  ErrorCode bad;
  const auto wrong = [&](std::string_view what) {
    return fail(Code::kInvalidConfig, "{}: {} is not usable: {}", account.source, what,
                bad.message());
  };
  context.set_options(ssl::context::default_workarounds | ssl::context::no_sslv2 |
                          ssl::context::no_sslv3 | ssl::context::no_tlsv1 |
                          ssl::context::no_tlsv1_1,
                      bad);
  context.set_verify_mode(ssl::verify_peer, bad);
  // A bundle may hold the certificate that signs the server's, and not that one's own signer.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context.native_handle()),
                              X509_V_FLAG_PARTIAL_CHAIN);
  if (account.ca.empty()) {
    context.set_default_verify_paths(bad);
  } else {
    TRY_ASSIGN(const std::string pem, account.ca.load("the cluster's CA"));
    context.add_certificate_authority(asio::buffer(pem), bad);
    if (bad) return wrong("the cluster's CA");
  }
  if (!account.certificate.empty()) {
    TRY_ASSIGN(const std::string certificate, account.certificate.load("the client certificate"));
    context.use_certificate_chain(asio::buffer(certificate), bad);
    if (bad) return wrong("the client certificate");
    TRY_ASSIGN(const std::string key, account.key.load("the client key"));
    context.use_private_key(asio::buffer(key), ssl::context::pem, bad);
    if (bad) return wrong("the client key");
  }
  return context;
}

bool is_address(const std::string& host) {
  ErrorCode no;
  asio::ip::make_address(host, no);
  return !no;
}

// Server Name Indication; OpenSSL's own macro for it has a cast of C's.
bool send_name(SSL* handle, const std::string& name) {
  std::string text = name;
  return SSL_ctrl(handle, SSL_CTRL_SET_TLSEXT_HOSTNAME, TLSEXT_NAMETYPE_host_name, text.data()) ==
         1;
}

Status expect_name(Stream& stream, const std::string& name) {
  SSL* handle = stream.tls.native_handle();
  X509_VERIFY_PARAM* expected = SSL_get0_param(handle);
  const bool set = is_address(name)
                       ? X509_VERIFY_PARAM_set1_ip_asc(expected, name.c_str()) == 1
                       : X509_VERIFY_PARAM_set1_host(expected, name.c_str(), name.size()) == 1 &&
                             send_name(handle, name);
  if (!set)
    return fail(Code::kInvalidConfig, "'{}' is no name that a certificate could have", name);
  return {};
}

void tune(beast::tcp_stream& stream) {
  const int socket = stream.socket().native_handle();
  const int on = 1;
  const auto set = [socket](int level, int option, const auto& value) {
    // A kernel that refuses leaves the time-outs of the requests, which are only later.
    (void)::setsockopt(socket, level, option, &value, sizeof value);
  };
  set(IPPROTO_TCP, TCP_NODELAY, on);
  set(SOL_SOCKET, SO_KEEPALIVE, on);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveIdleSeconds);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveEverySeconds);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepAliveProbes);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kUserTimeoutMs);
}

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  explicit Connection(Shared& shared) : shared_(shared) {}

  void send(Request request, Wire::Answer& answer) {
    answer_ = &answer;
    const uint64_t turn = ++turn_;
    asio::co_spawn(shared_.io, run(shared_from_this(), std::move(request), turn), asio::detached);
  }
  void cancel() {
    ++turn_;
    answer_ = nullptr;
    drop();
  }

 private:
  struct Outcome {
    Status status;
    bool answered = false;  // something of the answer came
    bool keep = false;
  };

  // `self` keeps the connection while its coroutine sleeps.
  asio::awaitable<void> run(std::shared_ptr<Connection> self, Request request, uint64_t turn) {
    (void)self;
    Outcome outcome;
    bool again = true;
    while (again) {
      again = false;
      const bool kept = stream_ != nullptr;
      if (!kept) {
        outcome.status = co_await connect(turn);
        if (turn != turn_) co_return;
      }
      if (kept || outcome.status) outcome = co_await exchange(stream_, request, turn);
      if (turn != turn_) co_return;
      // A server may close a kept connection at any time: not its refusal, and once tried anew.
      again = kept && !outcome.status && !outcome.answered &&
              outcome.status.error().code == Code::kUnavailable;
      if (!outcome.status || !outcome.keep) drop();
    }
    end(std::move(outcome.status));
  }

  void end(Status status) {
    Wire::Answer* answer = std::exchange(answer_, nullptr);
    ++turn_;
    answer->on_end(std::move(status));
  }
  void drop() {
    if (!stream_) return;
    // Whoever waits on it wakes up with an error, and then lets it go.
    stream_->tcp_layer().close();
    stream_.reset();
  }

  [[nodiscard]] std::unexpected<Error> broken(std::string_view doing, const ErrorCode& why) const {
    if (why == beast::error::timeout || why == asio::error::timed_out)
      return fail(Code::kTimeout, "{}: {}: no answer in time", shared_.server(), doing);
    return fail(Code::kUnavailable, "{}: {}: {}", shared_.server(), doing, why.message());
  }

  asio::awaitable<Status> connect(uint64_t turn) {
    Result<ssl::context> context = tls_context(shared_.account);
    if (!context) co_return std::unexpected(context.error());
    auto stream = std::make_shared<Stream>(shared_.io, std::move(*context));
    stream_ = stream;
    const Account& account = shared_.account;
    if (Status named =
            expect_name(*stream, account.server_name.empty() ? account.host : account.server_name);
        !named)
      co_return named;

    ErrorCode bad;
    std::vector<tcp::endpoint> endpoints;
    tcp::resolver resolver(shared_.io);
    const auto found = co_await resolver.async_resolve(
        account.host, account.port, asio::redirect_error(asio::use_awaitable, bad));
    if (turn != turn_) co_return Status();
    if (bad) co_return broken("looking up its address", bad);
    for (const auto& entry : found) endpoints.push_back(entry.endpoint());

    stream->tcp_layer().expires_after(shared_.limits.connect);
    co_await stream->tcp_layer().async_connect(endpoints,
                                               asio::redirect_error(asio::use_awaitable, bad));
    if (turn != turn_) co_return Status();
    if (bad) co_return broken("connecting", bad);
    tune(stream->tcp_layer());

    stream->tcp_layer().expires_after(shared_.limits.handshake);
    co_await stream->tls.async_handshake(ssl::stream_base::client,
                                         asio::redirect_error(asio::use_awaitable, bad));
    if (turn != turn_) co_return Status();
    if (bad) co_return no_handshake(*stream, bad);
    co_return Status();
  }

  [[nodiscard]] std::unexpected<Error> no_handshake(Stream& stream, const ErrorCode& why) const {
    const long verdict = SSL_get_verify_result(stream.tls.native_handle());
    if (verdict == X509_V_OK) return broken("TLS", why);
    return fail(Code::kInvalidConfig,
                "{}: its certificate is not to be trusted: {}; is the CA of {} the right one, and "
                "the address the one it was made for?",
                shared_.server(), X509_verify_cert_error_string(verdict), shared_.account.source);
  }

  asio::awaitable<Outcome> exchange(std::shared_ptr<Stream> stream, const Request& request,
                                    uint64_t turn) {
    Outcome outcome;
    const MonotonicTime begun = clock_now();
    // Whichever is sooner: the silence's bound or the whole's.
    const auto limit = [&] {
      Duration left = request.idle;
      if (request.whole > Duration::zero())
        left = std::clamp(begun + request.whole - clock_now(), Duration(1), left);
      stream->tcp_layer().expires_after(left);
    };
    Result<bhttp::request<bhttp::string_body>> message = make_message(request);
    if (!message) {
      outcome.status = std::unexpected(message.error());
      co_return outcome;
    }
    ErrorCode bad;
    limit();
    co_await bhttp::async_write(stream->tls, *message,
                                asio::redirect_error(asio::use_awaitable, bad));
    if (turn != turn_) co_return outcome;
    if (bad) {
      outcome.status = broken(request.verb, bad);
      co_return outcome;
    }

    bhttp::response_parser<bhttp::buffer_body> parser;
    parser.header_limit(static_cast<uint32_t>(shared_.limits.header_bytes));
    parser.body_limit(boost::none);
    limit();
    co_await bhttp::async_read_header(stream->tls, stream->buffer, parser,
                                      asio::redirect_error(asio::use_awaitable, bad));
    if (turn != turn_) co_return outcome;
    if (bad) {
      outcome.answered = stream->buffer.size() > 0;
      outcome.status = broken(request.verb, bad);
      co_return outcome;
    }
    outcome.answered = true;
    const Head head = head_of(parser.get());
    if (head.status == 401) shared_.token.refused();
    answer_->on_head(head);
    std::array<char, kPieceBytes> piece{};
    while (turn == turn_ && !parser.is_done()) {
      parser.get().body().data = piece.data();
      parser.get().body().size = piece.size();
      limit();
      co_await bhttp::async_read_some(stream->tls, stream->buffer, parser,
                                      asio::redirect_error(asio::use_awaitable, bad));
      if (turn != turn_) co_return outcome;
      const size_t got = piece.size() - parser.get().body().size;
      if (got > 0) answer_->on_body({piece.data(), got});
      if (turn != turn_) co_return outcome;
      if (bad && bad != bhttp::error::need_buffer) {
        outcome.status = broken(request.verb, bad);
        co_return outcome;
      }
    }
    outcome.keep = parser.keep_alive();
    stream->tcp_layer().expires_never();
    co_return outcome;
  }

  [[nodiscard]] Result<bhttp::request<bhttp::string_body>> make_message(const Request& request) {
    bhttp::request<bhttp::string_body> message;
    message.method_string(request.method);
    message.target(shared_.account.path + request.target);
    message.version(11);
    const bool v6 = shared_.account.host.find(':') != std::string::npos;
    message.set(bhttp::field::host, fmt::format("{}{}{}:{}", v6 ? "[" : "", shared_.account.host,
                                                v6 ? "]" : "", shared_.account.port));
    message.set(bhttp::field::user_agent, "gpuslice");
    message.set(bhttp::field::accept, "application/json");
    TRY_ASSIGN(const std::string token, shared_.token.at(clock_now()));
    if (!token.empty()) message.set(bhttp::field::authorization, "Bearer " + token);
    if (!request.content_type.empty())
      message.set(bhttp::field::content_type, request.content_type);
    message.body() = request.body;
    message.prepare_payload();
    return message;
  }

  [[nodiscard]] static Head head_of(const bhttp::response<bhttp::buffer_body>& message) {
    Head head;
    head.status = static_cast<int>(message.result_int());
    const auto after = message[bhttp::field::retry_after];
    int seconds = 0;
    const auto [end, error] = std::from_chars(after.data(), after.data() + after.size(), seconds);
    if (error == std::errc() && seconds > 0) head.retry_after = std::chrono::seconds(seconds);
    return head;
  }

  Shared& shared_;
  std::shared_ptr<Stream> stream_;
  Wire::Answer* answer_ = nullptr;
  uint64_t turn_ = 0;  // what was begun before the last send() or cancel() is over
};

class HttpsWire final : public Wire {
 public:
  explicit HttpsWire(Shared& shared) : connection_(std::make_shared<Connection>(shared)) {}
  ~HttpsWire() override { connection_->cancel(); }
  void send(Request request, Answer& answer) override {
    connection_->send(std::move(request), answer);
  }
  void cancel() override { connection_->cancel(); }

 private:
  std::shared_ptr<Connection> connection_;
};

class HttpsTimer final : public Timer {
 public:
  explicit HttpsTimer(asio::io_context& io) : timer_(io) {}
  ~HttpsTimer() override { ++*turn_; }
  void after(Duration delay, std::function<void()> work) override {
    const uint64_t turn = ++*turn_;
    timer_.expires_after(delay);
    timer_.async_wait([turn, now = turn_, work = std::move(work)](const ErrorCode& cancelled) {
      if (!cancelled && *now == turn) work();
    });
  }
  void cancel() override {
    ++*turn_;
    timer_.cancel();
  }

 private:
  asio::steady_timer timer_;
  std::shared_ptr<uint64_t> turn_ = std::make_shared<uint64_t>(0);
};

class HttpsTransport final : public Transport {
 public:
  HttpsTransport(Account account, HttpsLimits limits)
      : shared_(std::move(account), limits),
        work_(asio::make_work_guard(shared_.io)),
        thread_([this] { shared_.io.run(); }) {}
  ~HttpsTransport() override { join(); }

  [[nodiscard]] MonotonicTime now() const override { return clock_now(); }
  [[nodiscard]] std::unique_ptr<Wire> wire() override {
    return std::make_unique<HttpsWire>(shared_);
  }
  [[nodiscard]] std::unique_ptr<Timer> timer() override {
    return std::make_unique<HttpsTimer>(shared_.io);
  }
  void post(std::function<void()> work) override { asio::post(shared_.io, std::move(work)); }
  void stop() override { join(); }

 private:
  void join() {
    shared_.io.stop();
    if (thread_.joinable()) thread_.join();
  }

  Shared shared_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<Transport> https_transport(Account account, HttpsLimits limits) {
  return std::make_unique<HttpsTransport>(std::move(account), limits);
}

}  // namespace gpuslice::kube
