#include "http/server.h"

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <charconv>
#include <exception>
#include <list>
#include <optional>
#include <thread>
#include <utility>

namespace gpuslice::http {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;

// After a failed accept (out of file descriptors) the server waits this long before it tries again.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

struct Parsed {
  asio::ip::address address;
  uint16_t port = 0;
};

Result<Parsed> parse_address(std::string_view text) {
  const auto wrong = [text] {
    return fail(Code::kUsage,
                "listen address '{}': not understood; write HOST:PORT, for example 127.0.0.1:9400 "
                "or [::1]:9400, or :9400 for all interfaces",
                text);
  };
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return wrong();
  std::string host(text.substr(0, colon));
  const std::string_view port_text = text.substr(colon + 1);
  Parsed parsed;
  const auto [end, error] =
      std::from_chars(port_text.data(), port_text.data() + port_text.size(), parsed.port);
  if (error != std::errc() || end != port_text.data() + port_text.size()) return wrong();
  if (host.empty() || host == "*") {
    parsed.address = asio::ip::address_v4::any();
    return parsed;
  }
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  boost::system::error_code bad;
  parsed.address = asio::ip::make_address(host, bad);
  if (bad) return wrong();
  return parsed;
}

class BeastServer;

// One connection. Lives in the server's list until it closes.
class Connection {
 public:
  Connection(BeastServer& server, tcp::socket socket);
  void start() { read(); }
  // What is under way ends, and done() follows.
  void cut() { stream_.close(); }

  std::list<Connection>::iterator place;
  bool cut_off = false;

 private:
  void read();
  void answer();
  void fail_with(bhttp::status status, std::string text);
  void send(bool keep_alive);
  void done();

  BeastServer& server_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::optional<bhttp::request_parser<bhttp::empty_body>> parser_;
  bhttp::response<bhttp::string_body> response_;
};

class BeastServer final : public Server {
 public:
  BeastServer(Answer answer, Limits limits)
      : answer_(std::move(answer)), limits_(limits), acceptor_(context_), pause_(context_) {}

  ~BeastServer() override {
    asio::post(context_, [this] {
      boost::system::error_code ignored;
      acceptor_.close(ignored);
      pause_.cancel();
      context_.stop();
    });
    if (thread_.joinable()) thread_.join();
  }

  Status open(std::string_view text) {
    TRY_ASSIGN(const Parsed parsed, parse_address(text));
    const tcp::endpoint endpoint(parsed.address, parsed.port);
    boost::system::error_code error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error == asio::error::address_in_use) {
      return fail(Code::kUnavailable,
                  "{}: cannot be listened on: another program has this port; stop it, or choose "
                  "another with --listen HOST:PORT (--listen 127.0.0.1:0 takes a free one)",
                  text);
    }
    if (error == asio::error::access_denied) {
      return fail(Code::kNoPermission,
                  "{}: cannot be listened on: ports below 1024 need root; choose another with "
                  "--listen HOST:PORT",
                  text);
    }
    if (error) {
      return fail(Code::kUnavailable,
                  "{}: cannot be listened on: {}; choose another address with --listen HOST:PORT",
                  text, error.message());
    }
    const tcp::endpoint bound = acceptor_.local_endpoint(error);
    address_ = bound.address().is_v6()
                   ? fmt::format("[{}]:{}", bound.address().to_string(), bound.port())
                   : fmt::format("{}:{}", bound.address().to_string(), bound.port());
    accept();
    thread_ = std::thread([this] { context_.run(); });
    return {};
  }

  [[nodiscard]] std::string address() const override { return address_; }
  [[nodiscard]] size_t connections() const override {
    return open_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t refused_connections() const override {
    return refused_.load(std::memory_order_relaxed);
  }
  [[nodiscard]] uint64_t requests() const override {
    return requests_.load(std::memory_order_relaxed);
  }

  // For connections, on the server's thread.
  [[nodiscard]] const Limits& limits() const { return limits_; }
  // It begins to wait for its client anew.
  void waits(Connection& connection) {
    if (!connection.cut_off)
      connections_.splice(connections_.end(), connections_, connection.place);
  }
  void forget(Connection& connection) {
    (connection.cut_off ? cut_off_ : connections_).erase(connection.place);
    open_.store(connections_.size(), std::memory_order_relaxed);
  }
  Response answer(std::string_view path) {
    requests_.fetch_add(1, std::memory_order_relaxed);
    return answer_(path);
  }

 private:
  void accept() {
    acceptor_.async_accept([this](boost::system::error_code error, tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) {
        pause_.expires_after(kAcceptPause);
        pause_.async_wait([this](boost::system::error_code cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      if (connections_.size() >= limits_.connections) {
        refused_.fetch_add(1, std::memory_order_relaxed);
        cut_off_longest();
      }
      if (connections_.size() < limits_.connections) {
        connections_.emplace_back(*this, std::move(socket));
        Connection& connection = connections_.back();
        connection.place = std::prev(connections_.end());
        open_.store(connections_.size(), std::memory_order_relaxed);
        connection.start();
      }
      accept();
    });
  }

  // Whoever holds all places for as long as they are given does not keep the kubelet's probes out.
  void cut_off_longest() {
    if (cut_off_.size() >= limits_.connections) return;
    Connection& longest = connections_.front();
    longest.cut_off = true;
    cut_off_.splice(cut_off_.end(), connections_, longest.place);
    longest.cut();
  }

  Answer answer_;
  Limits limits_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_;
  asio::steady_timer pause_;
  std::list<Connection> connections_;  // who waits longest for its client first
  std::list<Connection> cut_off_;      // until what was under way has ended
  std::string address_;
  std::atomic<size_t> open_{0};
  std::atomic<uint64_t> refused_{0};
  std::atomic<uint64_t> requests_{0};
  std::thread thread_;
};

Connection::Connection(BeastServer& server, tcp::socket socket)
    : server_(server), stream_(std::move(socket)), buffer_(server.limits().header_bytes) {}

void Connection::read() {
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(server_.limits().header_bytes));
  parser_->body_limit(0);
  if (cut_off) return done();
  server_.waits(*this);
  stream_.expires_after(server_.limits().time);
  bhttp::async_read_header(
      stream_, buffer_, *parser_, [this](beast::error_code error, std::size_t) {
        if (!error) return answer();
        if (error == bhttp::error::header_limit || error == bhttp::error::buffer_overflow) {
          return fail_with(bhttp::status::request_header_fields_too_large, "header too large\n");
        }
        if (error == bhttp::error::body_limit) {
          return fail_with(bhttp::status::payload_too_large, "no body, please\n");
        }
        if (error.category() == bhttp::make_error_code(bhttp::error::bad_method).category() &&
            error != bhttp::error::end_of_stream && error != bhttp::error::partial_message) {
          return fail_with(bhttp::status::bad_request, "not an HTTP request\n");
        }
        done();
      });
}

void Connection::answer() {
  const auto& request = parser_->get();
  if (request.method() != bhttp::verb::get && request.method() != bhttp::verb::head) {
    return fail_with(bhttp::status::method_not_allowed, "only GET and HEAD\n");
  }
  if (request.target().size() > server_.limits().target_bytes) {
    return fail_with(bhttp::status::uri_too_long, "target too long\n");
  }
  if (!parser_->is_done()) return fail_with(bhttp::status::payload_too_large, "no body, please\n");
  const std::string_view target(request.target().data(), request.target().size());
  Response made;
  try {
    made = server_.answer(target.substr(0, target.find('?')));
  } catch (const std::exception&) {
    // Answers are ours and do not throw, but for memory: one request fails, not the agent.
    return fail_with(bhttp::status::internal_server_error, "the answer could not be made\n");
  }
  const bool head = request.method() == bhttp::verb::head;
  const bool keep_alive = request.keep_alive();
  response_ = {static_cast<bhttp::status>(made.status), request.version()};
  response_.set(bhttp::field::content_type, made.content_type);
  response_.set(bhttp::field::cache_control, "no-store");
  response_.set("X-Content-Type-Options", "nosniff");
  response_.keep_alive(keep_alive);
  response_.content_length(made.body.size());
  if (!head) response_.body() = std::move(made.body);
  send(keep_alive);
}

void Connection::fail_with(bhttp::status status, std::string text) {
  response_ = {status, 11};
  response_.set(bhttp::field::content_type, "text/plain; charset=utf-8");
  if (status == bhttp::status::method_not_allowed) {
    response_.set(bhttp::field::allow, "GET, HEAD");
  }
  response_.keep_alive(false);
  response_.body() = std::move(text);
  response_.prepare_payload();
  send(false);
}

void Connection::send(bool keep_alive) {
  if (cut_off) return done();
  server_.waits(*this);
  stream_.expires_after(server_.limits().time);
  bhttp::async_write(stream_, response_, [this, keep_alive](beast::error_code error, std::size_t) {
    if (error || !keep_alive) return done();
    response_ = {};
    read();
  });
}

void Connection::done() {
  boost::system::error_code ignored;
  stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
  server_.forget(*this);  // the end of *this
}

}  // namespace

Result<std::unique_ptr<Server>> Server::listen(std::string_view address, Answer answer,
                                               Limits limits) {
  try {
    auto server = std::make_unique<BeastServer>(std::move(answer), limits);
    TRY(server->open(address));
    return server;
  } catch (const std::exception& error) {
    return fail(Code::kUnavailable, "{}: the HTTP server cannot start: {}", address, error.what());
  }
}

}  // namespace gpuslice::http
