#pragma once

// The transport of a real API server: HTTP/1.1 over TLS, on one thread of its own that sleeps when
// nothing comes. Every connection reads the account's files anew, so that replaced certificates and
// CAs are taken up.

#include <memory>

#include "kube/account.h"
#include "kube/transport.h"

namespace gpuslice::kube {

struct HttpsLimits {
  Duration connect = std::chrono::seconds(5);
  Duration handshake = std::chrono::seconds(5);
  size_t header_bytes = 64 * 1024;
};

// Threads: one is begun here. A host that is a name and no address is looked up by the C library's
// resolver, which nobody can interrupt: stop() may then take as long as that does.
[[nodiscard]] std::unique_ptr<Transport> https_transport(Account account, HttpsLimits limits = {});

}  // namespace gpuslice::kube
