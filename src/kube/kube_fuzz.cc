// Arbitrary bytes as what an API server says and as a kubeconfig. The first byte chooses.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "kube/account.h"
#include "kube/fake_transport_for_test.h"
#include "kube/json_cutter.h"
#include "kube/node_kube.h"
#include "kube/objects.h"
#include "kube/requests.h"

namespace {

using namespace gpuslice;
using namespace gpuslice::kube;

// What is cut out must not depend on where the pieces of the text begin.
void cut(JsonCutter::Cut how, std::string_view text, size_t step) {
  const auto run = [&](size_t size) {
    JsonCutter cutter(how);
    std::string pieces;
    bool good = true;
    for (size_t at = 0; at < text.size() && good; at += size)
      good = cutter
                 .push(text.substr(at, size),
                       [&](std::string_view piece) {
                         pieces.append(piece).push_back('\n');
                         return Status();
                       })
                 .has_value();
    if (good) {
      if (const Result<std::string> rest = cutter.end()) pieces += *rest;
    }
    return pieces;
  };
  if (run(text.size() + 1) != run(step)) std::abort();
}

class Listener final : public ports::KubeEvents {
  void on_node(std::optional<ports::NodeObject> node) override {
    if (node && node->name != "n1") std::abort();
  }
  void on_config_map(const ports::ObjectName&, std::optional<ports::ConfigMapObject>) override {}
  void on_pods(ports::PodList) override {}
  void on_kube_reachable(Status status) override {
    if (!status && status.error().message.empty()) std::abort();
  }
  void on_labels_applied(Status) override {}
  void on_node_patched(Status) override {}
  void on_evicted(const ports::ObjectName&, Status) override {}
};

// The bytes are answers, one to each request: a status, a length, and so much of what follows.
void serve(const uint8_t* data, size_t size) {
  Listener listener;
  auto owned = std::make_unique<FakeTransport>();
  FakeTransport* transport = owned.get();
  NodeKube kube({"n1", [](const std::function<void()>& work) { work(); }, 1}, std::move(owned),
                listener);
  kube.watch_node();
  kube.watch_pods();
  if (!kube.watch_config_map({"a", "b"})) std::abort();
  constexpr int kStatus[] = {200, 200, 200, 200, 401, 403, 404, 409, 410, 429, 500, 503};
  while (size > 2) {
    if (transport->asked.empty()) transport->until_asked();
    if (transport->asked.empty()) std::abort();  // a client that gave up
    if (transport->asked.size() > 4) std::abort();
    const FakeTransport::Asked asked = transport->take();
    const int status = kStatus[data[0] % std::size(kStatus)];
    const size_t length = std::min<size_t>(data[1] * 4U, size - 2);
    const std::string_view text(reinterpret_cast<const char*>(data + 2), length);
    asked.wire->head(status);
    asked.wire->body(text.substr(0, length / 2));
    asked.wire->body(text.substr(length / 2));
    if (data[0] & 0x80) {
      asked.wire->breaks();
    } else {
      asked.wire->end();
    }
    data += 2 + length;
    size -= 2 + length;
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t choice = data[0] % 6;
  const std::string text(data + 1, data + size);
  switch (choice) {
    case 0:
      if (const Result<Account> account = read_kubeconfig(text, "/k");
          account ? account->host.empty() : account.error().message.empty())
        std::abort();
      break;
    case 1:
      cut(JsonCutter::Cut::kStream, text, 1 + data[0] / 6);
      break;
    case 2:
      cut(JsonCutter::Cut::kItems, text, 1 + data[0] / 6);
      break;
    case 3:
      (void)read_watch_event(text);
      if (Result<ApiObject> object = read_object(text)) {
        (void)node_of(*object);
        (void)config_map_of(*object);
        (void)pod_of(*object);
      }
      break;
    case 4:
      if (refusal_of(400 + data[0], text, "patch", "node").error.message.empty()) std::abort();
      break;
    default:
      serve(data + 1, size - 1);
  }
  return 0;
}
