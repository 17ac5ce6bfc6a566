#pragma once

// A scripted HTTPS server on 127.0.0.1 with throw-away certificates, for the transport's tests. It
// serves one connection a thread; the script of a request writes whatever bytes it likes.

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace gpuslice::kube::testing {

// A CA and what it signed, as PEM.
struct Certificates {
  std::string ca;
  std::string certificate;
  std::string key;
};
// `name`: the subject alternative name, as OpenSSL writes it: "IP:127.0.0.1", "DNS:kube.example".
[[nodiscard]] Certificates make_certificates(const std::string& name);

struct ServerRequest {
  std::string method;
  std::string target;
  std::string authorization;
  std::string body;
  int connection = 0;  // counted from 1
  std::string client;  // the subject of the client's certificate, "" for none
};

class Line {
 public:
  virtual ~Line() = default;
  // False: the client is gone.
  virtual bool write(std::string_view bytes) = 0;
  // Waits until the client closes, at most ten seconds.
  virtual void wait_for_close() = 0;
};

class HttpsServer {
 public:
  // False: close the connection (without TLS's goodbye). Called on the connection's thread.
  using Script = std::function<bool(const ServerRequest& request, Line& line)>;

  // `own`: its certificate; clients' certificates of the same CA are asked for and need not come.
  HttpsServer(const Certificates& own, Script script);
  // Accepts connections and says nothing, not even TLS's first word.
  static std::unique_ptr<HttpsServer> mute();
  ~HttpsServer();
  [[nodiscard]] std::string port() const;
  // Ends listening: connections are refused from now on.
  void close();

 private:
  class Impl;
  explicit HttpsServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// A whole answer, with its length.
[[nodiscard]] std::string answer(int status, std::string_view body, std::string_view headers = {});
// The head of an answer in chunks, and a chunk; the last one is empty.
[[nodiscard]] std::string chunked_head();
[[nodiscard]] std::string chunk(std::string_view bytes);

}  // namespace gpuslice::kube::testing
