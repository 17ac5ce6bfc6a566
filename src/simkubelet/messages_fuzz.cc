// Arbitrary bytes as what reaches the stand-in: plugins' messages, parsed as gRPC parses them, the
// pod verbs' lines, and the CDI specs that lie on a node. What was understood must be what was
// sent.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>

#include "base/check.h"
#include "deviceplugin/api.pb.h"
#include "simkubelet/cdi.h"
#include "simkubelet/messages.h"

namespace {

using namespace gpuslice;
using namespace gpuslice::simkubelet;

void registration(const std::string& bytes) {
  v1beta1::RegisterRequest request;
  if (!request.ParseFromString(bytes)) return;
  const auto call = read(request);
  if (!call) {
    CHECK(!call.error().message.empty(), "a refusal without words");
    return;
  }
  CHECK(call->version == "v1beta1" && call->endpoint == request.endpoint() &&
            call->resource == request.resource_name(),
        "not what was sent");
  CHECK(call->endpoint.find('/') == std::string::npos, "an endpoint elsewhere");
  Node node;
  CHECK(node.registered(*call).has_value(), "read, but not taken");
}

void devices(const std::string& bytes) {
  v1beta1::ListAndWatchResponse response;
  if (!response.ParseFromString(bytes)) return;
  const auto list = read(response);
  if (!list) return;
  CHECK(list->size() == static_cast<size_t>(response.devices_size()), "a device is lost");
  Node node;
  const auto life = node.registered({"v1beta1", "p.sock", "nvidia.com/gpu", false});
  CHECK(life.has_value() && node.devices("nvidia.com/gpu", *life, *list), "not taken");
  const Quantities q = node.quantities();
  uint64_t healthy = 0;
  for (const DeviceSeen& device : *list) healthy += device.healthy ? 1 : 0;
  CHECK(q.capacity.at("nvidia.com/gpu") == list->size(), "capacity");
  CHECK(q.allocatable.at("nvidia.com/gpu") == healthy, "allocatable");
}

void allocation(const std::string& bytes) {
  v1beta1::AllocateResponse response;
  if (!response.ParseFromString(bytes)) return;
  auto allocated = read(response);
  CHECK(allocated.has_value() == (response.container_responses_size() > 0), "who is refused");
  if (!allocated) return;
  const auto& answer = response.container_responses(0);
  CHECK(allocated->envs.size() == static_cast<size_t>(answer.envs_size()) &&
            allocated->mounts.size() == static_cast<size_t>(answer.mounts_size()) &&
            allocated->cdi_devices.size() == static_cast<size_t>(answer.cdi_devices_size()),
        "something is lost");
  if (const auto names = cdi_names(*allocated)) {
    const std::set<std::string> once(names->begin(), names->end());
    CHECK(once.size() == names->size(), "a name twice");
    CHECK(CdiSpecs().resolve(*names).has_value() == names->empty(), "a device of no spec");
  }
  Allocated whole;
  for (const auto& one : response.container_responses()) {
    v1beta1::AllocateResponse single;
    *single.add_container_responses() = one;
    whole.add(*read(single));
    whole.add(*read(single));
  }
  std::set<std::string> places;
  for (const auto& mount : whole.mounts)
    CHECK(places.insert(mount.container_path).second, "two mounts at one place");
}

void preferred(const std::string& bytes) {
  v1beta1::PreferredAllocationResponse response;
  if (!response.ParseFromString(bytes)) return;
  const std::vector<std::string> ids = read(response);
  Node::Choice choice;
  choice.free = {"a", "b", "c"};
  const std::vector<std::string> taken = Node::take(choice, {}, ids, 2);
  CHECK(taken.size() == 2 && taken[0] != taken[1], "not two devices");
}

void pod_call(const std::string& bytes) {
  const auto call = read_call(bytes);
  if (!call) {
    CHECK(!call.error().message.empty(), "a refusal without words");
    return;
  }
  if (call->verb != PodCall::Verb::kRun) return;
  CHECK(!call->name.empty() && call->name.size() <= 253, "a name of {}", call->name.size());
  for (const auto& [resource, count] : call->request)
    CHECK(count > 0 && count <= kMaxRequest, "{} of a resource", count);
}

void cdi_spec(const std::string& bytes, CdiFormat format) {
  const auto spec = parse_cdi_spec(bytes, format);
  if (!spec) {
    CHECK(!spec.error().message.empty(), "a refusal without words");
    return;
  }
  for (const auto& [name, edits] : spec->devices) {
    CHECK(!edits.empty(), "a device that edits nothing");
    Allocated allocated;
    allocated.annotations["cdi.k8s.io/x"] = spec->kind + "=" + name;
    CHECK(cdi_names(allocated).has_value(), "a device that cannot be named");
    for (const CdiEdits::DeviceNode& node : edits.device_nodes)
      CHECK(!node.path.empty() && !node.host_path.empty(), "a device node of nowhere");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 7) {
    case 0:
      registration(bytes);
      break;
    case 1:
      devices(bytes);
      break;
    case 2:
      allocation(bytes);
      break;
    case 3:
      preferred(bytes);
      break;
    case 4:
      pod_call(bytes);
      break;
    case 5:
      cdi_spec(bytes, CdiFormat::kJson);
      break;
    default:
      cdi_spec(bytes, CdiFormat::kYaml);
  }
  return 0;
}
