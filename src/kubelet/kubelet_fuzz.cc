// Arbitrary bytes as the messages that reach us over the kubelet's sockets: parsed as gRPC parses
// them, turned into the agent's values and back. What was understood must survive the way there and
// back.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "deviceplugin/api.pb.h"
#include "kubelet/convert.h"
#include "kubelet/socket_path.h"
#include "podresources/api.pb.h"

namespace {

using namespace gpuslice;

void allocate(const std::string& bytes) {
  v1beta1::AllocateRequest request;
  if (!request.ParseFromString(bytes)) return;
  const ports::AllocateRequest values = kubelet::from_proto(request);
  CHECK(values.containers.size() == static_cast<size_t>(request.container_requests_size()),
        "a container is lost");
  // What would be answered: every id comes back, whatever it is made of.
  ports::AllocateAnswer answer;
  for (const auto& ids : values.containers) {
    ports::ContainerAnswer& one = answer.containers.emplace_back();
    for (const std::string& id : ids) {
      one.envs[id] = id;
      one.mounts.push_back({id, id, true});
      one.devices.push_back({id, id, "rw"});
      one.annotations[id] = id;
      one.cdi_devices.push_back(id);
    }
  }
  v1beta1::AllocateResponse response;
  kubelet::to_proto(answer, response);
  CHECK(response.container_responses_size() == request.container_requests_size(),
        "an answer is lost");
  std::string wire;
  CHECK(response.SerializeToString(&wire), "our own answer cannot be written");
  v1beta1::AllocateResponse again;
  CHECK(again.ParseFromString(wire), "our own answer cannot be read");
}

void preferred(const std::string& bytes) {
  v1beta1::PreferredAllocationRequest request;
  if (!request.ParseFromString(bytes)) return;
  const int containers = request.container_requests_size();
  const ports::PreferredRequest values = kubelet::from_proto(request);
  CHECK(values.containers.size() == static_cast<size_t>(containers), "a container is lost");
  ports::PreferredAnswer answer;
  for (const auto& container : values.containers) {
    CHECK(container.size <= INT32_MAX, "size {}", container.size);
    answer.containers.emplace_back(container.available.begin(), container.available.end());
  }
  v1beta1::PreferredAllocationResponse response;
  kubelet::to_proto(answer, response);
  CHECK(response.container_responses_size() == containers, "an answer is lost");
}

void pods(const std::string& bytes) {
  v1::ListPodResourcesResponse response;
  if (!response.ParseFromString(bytes)) return;
  size_t ids = 0;
  for (const auto& pod : response.pod_resources()) {
    for (const auto& container : pod.containers()) {
      for (const auto& devices : container.devices()) {
        ids += static_cast<size_t>(devices.device_ids_size());
      }
    }
  }
  size_t kept = 0;
  for (const ports::PodDevices& pod : kubelet::from_proto(response)) kept += pod.ids.size();
  CHECK(kept == ids, "{} of {} ids", kept, ids);
}

// A resource's name comes from the configuration, a folder's from the command line.
void names(const std::string& bytes) {
  const size_t middle = bytes.size() / 2;
  const auto path = kubelet::plugin_socket_path(bytes.substr(0, middle), bytes.substr(middle));
  if (!path) return;
  CHECK(path->size() <= 107, "{}", path->size());
  for (const char c : kubelet::grpc_target(*path)) {
    CHECK(c > ' ' && c < 0x7F, "a target with byte {}", static_cast<int>(c));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0] % 4) {
    case 0:
      allocate(bytes);
      break;
    case 1:
      preferred(bytes);
      break;
    case 2:
      pods(bytes);
      break;
    default:
      names(bytes);
  }
  return 0;
}
