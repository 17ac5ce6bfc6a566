// Measures the agent from outside, as a kubelet sees it: starts the real program on a simulated
// node, plays the kubelet's registration service, and times what comes back. Prints rows of a
// markdown table.
//
//   agent_bench GPUSLICE ROOT GPUS REPLICAS [all-roles]     (REPLICAS 1: whole GPUs)

#include <fmt/core.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "agent_outside.h"

namespace gpuslice::bench {
namespace {

struct Spread {
  double median = 0, p99 = 0, worst = 0;
};
Spread spread_of(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double q) {
    return values[std::min(values.size() - 1,
                           static_cast<size_t>(q * static_cast<double>(values.size())))];
  };
  return {at(0.5), at(0.99), values.back()};
}

void row(const std::string& what, const std::string& budget, const std::string& measured) {
  fmt::print("| {} | {} | {} |\n", what, budget, measured);
  std::fflush(stdout);
}

struct Handler {
  double seconds = 0, calls = 0;
};
Handler handler_of(int port, const std::string& method) {
  const std::string text = scrape(port);
  if (text.empty()) die("no metrics");
  const std::string labels = "{resource=\"nvidia.com/gpu\",method=\"" + method + "\"}";
  return {series(text, "gpuslice_kubelet_rpc_duration_seconds_sum" + labels),
          series(text, "gpuslice_kubelet_rpc_duration_seconds_count" + labels)};
}

void measure_start(const Place& place, Registration& registration) {
  std::vector<double> times;
  for (int i = 0; i < 20; ++i) {
    Agent agent(place);
    times.push_back(Milliseconds(registration.wait().second - agent.started).count());
  }
  const Spread spread = spread_of(times);
  row(fmt::format("exec → registered, {} GPUs × {}{}", place.gpus, place.replicas, place.note),
      "≤ 10 ms",
      fmt::format("median {:.1f} ms, worst of 20 {:.1f} ms", spread.median, spread.worst));
}

void measure_allocate(const Place& place, v1beta1::DevicePlugin::Stub& stub,
                      const std::vector<std::string>& ids) {
  std::vector<double> times;
  for (size_t i = 0; i < 5000; ++i) {
    grpc::ClientContext context;
    v1beta1::AllocateRequest request;
    request.add_container_requests()->add_devices_ids(ids[i % ids.size()]);
    v1beta1::AllocateResponse response;
    const auto start = Clock::now();
    const grpc::Status status = stub.Allocate(&context, request, &response);
    times.push_back(since_ms(start));
    if (!status.ok()) die("Allocate: " + status.error_message());
  }
  const Spread spread = spread_of(times);
  row(fmt::format("Allocate over the socket, {} GPUs × {}{}", place.gpus, place.replicas,
                  place.note),
      "p99 ≤ 1 ms", fmt::format("median {:.3f} ms, p99 {:.3f} ms", spread.median, spread.p99));
}

void measure_preferred(const Place& place, v1beta1::DevicePlugin::Stub& stub,
                       const std::vector<std::string>& ids, int size) {
  std::vector<double> times;
  const Handler before = handler_of(place.port, "GetPreferredAllocation");
  for (int i = 0; i < 500; ++i) {
    grpc::ClientContext context;
    v1beta1::PreferredAllocationRequest request;
    auto& container = *request.add_container_requests();
    for (const std::string& id : ids) container.add_available_deviceids(id);
    container.set_allocation_size(size);
    v1beta1::PreferredAllocationResponse response;
    const auto start = Clock::now();
    const grpc::Status status = stub.GetPreferredAllocation(&context, request, &response);
    times.push_back(since_ms(start));
    if (!status.ok()) die("GetPreferredAllocation: " + status.error_message());
    if (response.container_responses(0).deviceids_size() != size) die("a wrong number of devices");
  }
  const Spread spread = spread_of(times);
  row(fmt::format("GetPreferredAllocation of {} over the socket, {} GPUs × {}{}", size, place.gpus,
                  place.replicas, place.note),
      "p99 ≤ 5 ms", fmt::format("median {:.3f} ms, p99 {:.3f} ms", spread.median, spread.p99));
  const Handler after = handler_of(place.port, "GetPreferredAllocation");
  row(fmt::format("… of which in the handler, {} GPUs × {}{}", place.gpus, place.replicas,
                  place.note),
      place.gpus > 8 ? "≤ 5 ms" : "≤ 1 ms",
      fmt::format("mean of {:.0f} calls {:.3f} ms", after.calls - before.calls,
                  1000 * (after.seconds - before.seconds) / (after.calls - before.calls)));
}

void measure_idle(const Place& place, const Agent& agent) {
  constexpr int kSeconds = 30;  // three looks at the GPUs, which wake a thread for each
  std::this_thread::sleep_for(std::chrono::seconds(3));
  const double before = agent.wakeups();
  std::this_thread::sleep_for(std::chrono::seconds(kSeconds));
  const double after = agent.wakeups();
  row(fmt::format("wake-ups, idle, {} GPUs × {}{}", place.gpus, place.replicas, place.note),
      "≤ 10 a second", fmt::format("{:.1f} a second", (after - before) / kSeconds));
  row(fmt::format("resident memory, idle, {} GPUs × {}{}", place.gpus, place.replicas, place.note),
      place.replicas <= 10 ? "≤ 15 MiB" : "—",
      fmt::format("{:.1f} MiB, of which {:.1f} MiB its own pages (the rest is the program file)",
                  agent.status("VmRSS") / 1024, agent.status("RssAnon") / 1024));
}

void measure_edit(const Place& place, grpc::ClientReader<v1beta1::ListAndWatchResponse>& stream) {
  std::vector<double> times;
  v1beta1::ListAndWatchResponse list;
  for (int i = 0; i < 20; ++i) {
    const int replicas = i % 2 == 0 ? place.replicas + 1 : place.replicas;
    const auto start = Clock::now();
    place.write_config(replicas);
    do {
      if (!stream.Read(&list)) die("the stream ended at an edit");
    } while (list.devices_size() != place.gpus * replicas);
    times.push_back(since_ms(start));
  }
  const Spread spread = spread_of(times);
  row(fmt::format("configuration edit → kubelet sees, {} GPUs × {}{}", place.gpus, place.replicas,
                  place.note),
      "≤ 1 s", fmt::format("median {:.0f} ms, worst of 20 {:.0f} ms", spread.median, spread.worst));
}

}  // namespace
}  // namespace gpuslice::bench

int main(int argc, char** argv) {
  using namespace gpuslice::bench;
  const bool all_roles = argc == 6 && std::string_view(argv[5]) == "all-roles";
  if (argc != 5 && !all_roles) die("usage: agent_bench GPUSLICE ROOT GPUS REPLICAS [all-roles]");
  Place place;
  place.gpuslice = argv[1];
  place.root = argv[2];
  place.gpus = std::atoi(argv[3]);
  place.replicas = std::atoi(argv[4]);
  place.port = free_port();
  std::string pattern = "/tmp/gpuslice-bench-XXXXXX";
  place.dir = mkdtemp(pattern.data());
  std::filesystem::create_directories(place.kubelet() + "/device-plugins");
  place.write_config(place.replicas);
  if (all_roles) {
    place.all_roles();
    place.note = ", all roles";
  }
  {
    Registration registration(place.kubelet() + "/device-plugins/kubelet.sock");
    measure_start(place, registration);
    Agent agent(place);
    const std::string endpoint = registration.wait().first;
    const auto stub =
        v1beta1::DevicePlugin::NewStub(channel_to(place.kubelet() + "/device-plugins/" + endpoint));
    grpc::ClientContext context;
    const auto stream = stub->ListAndWatch(&context, {});
    v1beta1::ListAndWatchResponse list;
    if (!stream->Read(&list)) die("no list came: " + stream->Finish().error_message());
    std::vector<std::string> ids;
    for (const auto& device : list.devices()) ids.push_back(device.id());
    // As a kubelet sends them: out of a map, in no order.
    std::shuffle(ids.begin(), ids.end(), std::mt19937_64(1));
    if (static_cast<int>(ids.size()) != place.gpus * place.replicas) {
      die(fmt::format("{} devices were listed", ids.size()));
    }
    measure_idle(place, agent);
    measure_allocate(place, *stub, ids);
    measure_preferred(place, *stub, ids, 1);
    measure_preferred(place, *stub, ids, place.gpus / 2);
    if (place.replicas > 1) measure_edit(place, *stream);
    context.TryCancel();
    row(fmt::format("SIGTERM → gone, {} GPUs × {}{}", place.gpus, place.replicas, place.note),
        "≤ 2 s", fmt::format("{:.0f} ms", agent.stop()));
  }
  std::filesystem::remove_all(place.dir);
  return 0;
}
