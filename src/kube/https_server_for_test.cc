#include "kube/https_server_for_test.h"

#include <fmt/core.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <list>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>

namespace gpuslice::kube::testing {
namespace {

namespace asio = boost::asio;
namespace ssl = boost::asio::ssl;
namespace bhttp = boost::beast::http;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr long kDay = 24 * 3600;

struct Free {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(BIO* bio) const { BIO_free(bio); }
};
using Key = std::unique_ptr<EVP_PKEY, Free>;
using Certificate = std::unique_ptr<X509, Free>;

std::string pem(const std::function<int(BIO*)>& write) {
  const std::unique_ptr<BIO, Free> bio(BIO_new(BIO_s_mem()));
  if (write(bio.get()) != 1) throw std::runtime_error("no PEM");
  std::string text(16384, '\0');
  text.resize(static_cast<size_t>(BIO_read(bio.get(), text.data(), static_cast<int>(text.size()))));
  return text;
}

Key make_key() { return Key(EVP_EC_gen("P-256")); }

struct Names {
  std::string subject;
  std::string alternative;  // empty: a CA
};

Certificate sign(EVP_PKEY* key, const Names& names, X509* issuer, EVP_PKEY* issuer_key) {
  static std::atomic<long> serial{1};
  Certificate certificate(X509_new());
  X509* x = certificate.get();
  X509_set_version(x, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(x), serial.fetch_add(1));
  X509_gmtime_adj(X509_getm_notBefore(x), -kDay);
  X509_gmtime_adj(X509_getm_notAfter(x), kDay);
  X509_set_pubkey(x, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(names.subject.c_str()), -1, -1,
                             0);
  X509_set_issuer_name(x, X509_get_subject_name(issuer != nullptr ? issuer : x));
  const bool ca = names.alternative.empty();
  X509_EXTENSION* extension =
      X509V3_EXT_conf_nid(nullptr, nullptr, ca ? NID_basic_constraints : NID_subject_alt_name,
                          ca ? "critical,CA:TRUE" : names.alternative.c_str());
  X509_add_ext(x, extension, -1);
  X509_EXTENSION_free(extension);
  X509_sign(x, issuer_key, EVP_sha256());
  return certificate;
}

class TlsLine final : public Line {
 public:
  explicit TlsLine(ssl::stream<tcp::socket&>& stream) : stream_(stream) {}
  bool write(std::string_view bytes) override {
    ErrorCode bad;
    asio::write(stream_, asio::buffer(bytes.data(), bytes.size()), bad);
    return !bad;
  }
  void wait_for_close() override {
    char byte = 0;
    ErrorCode bad;
    stream_.read_some(asio::buffer(&byte, 1), bad);
  }

 private:
  ssl::stream<tcp::socket&>& stream_;
};

}  // namespace

Certificates make_certificates(const std::string& name) {
  const Key ca_key = make_key();
  const Certificate ca = sign(ca_key.get(), {"test CA", ""}, nullptr, ca_key.get());
  const Key key = make_key();
  const Certificate own = sign(key.get(), {"test", name}, ca.get(), ca_key.get());
  Certificates made;
  made.ca = pem([&](BIO* bio) { return PEM_write_bio_X509(bio, ca.get()); });
  made.certificate = pem([&](BIO* bio) { return PEM_write_bio_X509(bio, own.get()); });
  made.key = pem([&](BIO* bio) {
    return PEM_write_bio_PrivateKey(bio, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  });
  return made;
}

class HttpsServer::Impl {
 public:
  Impl(const Certificates* own, Script script)
      : script_(std::move(script)),
        acceptor_(io_, tcp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    port_ = acceptor_.local_endpoint().port();
    if (own != nullptr) {
      context_.use_certificate_chain(asio::buffer(own->certificate));
      context_.use_private_key(asio::buffer(own->key), ssl::context::pem);
      context_.add_certificate_authority(asio::buffer(own->ca));
      context_.set_verify_mode(ssl::verify_peer);
    }
    thread_ = std::thread([this] { accept(); });
  }
  ~Impl() { close(); }
  [[nodiscard]] uint16_t port() const { return port_; }
  void close() {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
      closing_ = true;
      // shutdown() wakes who sleeps in accept() or read(); close() would not.
      ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
      for (const int socket : sockets_) ::shutdown(socket, SHUT_RDWR);
    }
    thread_.join();
    for (std::thread& connection : connections_) connection.join();
    acceptor_.close();
  }

 private:
  void accept() {
    for (int count = 1;; ++count) {
      tcp::socket socket(io_);
      ErrorCode bad;
      acceptor_.accept(socket, bad);
      const std::lock_guard lock(mutex_);
      if (bad || closing_) return;
      sockets_.insert(socket.native_handle());
      connections_.emplace_back(
          [this, count, mine = std::make_shared<tcp::socket>(std::move(socket))] {
            serve(*mine, count);
            const std::lock_guard inner(mutex_);
            sockets_.erase(mine->native_handle());
            ErrorCode ignored;
            mine->close(ignored);
          });
    }
  }
  void serve(tcp::socket& socket, int count) {
    ErrorCode bad;
    if (!script_) {
      char bytes[512];
      while (!bad) socket.read_some(asio::buffer(bytes), bad);
      return;
    }
    ssl::stream<tcp::socket&> stream(socket, context_);
    stream.handshake(ssl::stream_base::server, bad);
    TlsLine line(stream);
    boost::beast::flat_buffer buffer;
    while (!bad) {
      bhttp::request<bhttp::string_body> request;
      bhttp::read(stream, buffer, request, bad);
      if (bad) return;
      ServerRequest seen;
      seen.method = request.method_string();
      seen.target = request.target();
      seen.authorization = request[bhttp::field::authorization];
      seen.body = request.body();
      seen.connection = count;
      X509* peer = SSL_get1_peer_certificate(stream.native_handle());
      if (peer != nullptr) {
        char name[256] = {};
        X509_NAME_oneline(X509_get_subject_name(peer), name, sizeof name);
        seen.client = name;
        X509_free(peer);
      }
      if (!script_(seen, line)) return;
    }
  }

  Script script_;
  asio::io_context io_;
  ssl::context context_{ssl::context::tls_server};
  tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  std::mutex mutex_;
  bool closing_ = false;
  std::set<int> sockets_;
  std::list<std::thread> connections_;
  std::thread thread_;
};

HttpsServer::HttpsServer(const Certificates& own, Script script)
    : impl_(std::make_unique<Impl>(&own, std::move(script))) {}
HttpsServer::HttpsServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpsServer::~HttpsServer() = default;
std::unique_ptr<HttpsServer> HttpsServer::mute() {
  return std::unique_ptr<HttpsServer>(new HttpsServer(std::make_unique<Impl>(nullptr, nullptr)));
}
std::string HttpsServer::port() const { return std::to_string(impl_->port()); }
void HttpsServer::close() { impl_->close(); }

std::string answer(int status, std::string_view body, std::string_view headers) {
  return fmt::format("HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n{}", status, body.size(),
                     headers, body);
}
std::string chunked_head() {
  return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
}
std::string chunk(std::string_view bytes) {
  return fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes);
}

}  // namespace gpuslice::kube::testing
