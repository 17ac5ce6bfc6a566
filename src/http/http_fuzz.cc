// Arbitrary bytes at the HTTP door, by a real connection: the server's thread lives on, what it
// answers is HTTP, and the next client is served. An input that begins with "listen " is an
// address.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/stranger_for_test.h"
#include "base/text.h"
#include "http/server.h"

namespace {

using namespace gpuslice;

constexpr std::string_view kListen = "listen ";
constexpr int kQuietMs = 10;
constexpr uint64_t kLookEvery = 64;

http::Response answer(std::string_view path) {
  if (path == "/memory") throw std::bad_alloc();
  if (path == "/large") return {200, "text/plain", std::string(256 * 1024, 'x')};
  if (path == "/healthz") return {200, "text/plain", "ok\n"};
  return {404, "text/plain", std::string(path)};
}

http::Server& server() {
  static const auto one = http::Server::listen("127.0.0.1:0", answer);
  CHECK(one.has_value(), "{}", one.error().text());
  return **one;
}

UniqueFd connect() {
  static const std::string address = server().address();
  static const auto port = parse_u64(address.substr(address.rfind(':') + 1));
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<uint16_t>(*port));
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // Thousands of connections a second: none may stay for a minute after its end.
  const linger at_once{1, 0};
  ::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  CHECK(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0,
        "the server does not listen any more");
  return fd;
}

void look() {
  const std::string said =
      Stranger("\x10GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").talk(connect(), 5000);
  CHECK(said.starts_with("HTTP/1.1 200 OK\r\n") && said.ends_with("\r\n\r\nok\n"), "answered: {}",
        said);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  if (input.starts_with(kListen)) {
    const auto other = http::Server::listen(input.substr(kListen.size()), answer);
    CHECK(other || !other.error().message.empty(), "an error without a sentence");
    return 0;
  }
  const std::string said = Stranger(input).talk(connect(), kQuietMs);
  CHECK(said.empty() || said.starts_with("HTTP/1."), "this is no HTTP: {}", said);
  static uint64_t inputs = 0;
  if (++inputs % kLookEvery == 0) look();
  return 0;
}
