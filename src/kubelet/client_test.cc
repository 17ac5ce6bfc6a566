// What we ask of the kubelet.

#include "kubelet/client.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <future>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "deviceplugin/api.grpc.pb.h"
#include "kubelet/served_plugin_for_test.h"
#include "kubelet/socket_path.h"
#include "podresources/api.grpc.pb.h"

namespace gpuslice::kubelet {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

class FakeKubelet final : public v1beta1::Registration::Service,
                          public v1::PodResourcesLister::Service {
 public:
  explicit FakeKubelet(const std::string& path) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(grpc_target(path), grpc::InsecureServerCredentials());
    builder.RegisterService(static_cast<v1beta1::Registration::Service*>(this));
    builder.RegisterService(static_cast<v1::PodResourcesLister::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  grpc::Status Register(grpc::ServerContext*, const v1beta1::RegisterRequest* request,
                        v1beta1::Empty*) override {
    said = request->version() + " " + request->endpoint() + " " + request->resource_name() +
           (request->options().get_preferred_allocation_available() ? " preferred" : "");
    if (request->resource_name() == "bad") {
      return {grpc::StatusCode::INVALID_ARGUMENT, "the ResourceName \"bad\" is invalid"};
    }
    return grpc::Status::OK;
  }
  grpc::Status List(grpc::ServerContext*, const v1::ListPodResourcesRequest*,
                    v1::ListPodResourcesResponse* response) override {
    auto& pod = *response->add_pod_resources();
    pod.set_name("pod-1");
    pod.set_namespace_("default");
    auto& container = *pod.add_containers();
    container.set_name("main");
    auto& devices = *container.add_devices();
    devices.set_resource_name("nvidia.com/gpu");
    devices.add_device_ids("GPU-0::1");
    auto& more = *container.add_devices();  // a kubelet may send one entry for each NUMA node
    more.set_resource_name("nvidia.com/gpu");
    more.add_device_ids("GPU-0::3");
    return grpc::Status::OK;
  }
  std::string said;

 private:
  std::unique_ptr<grpc::Server> server_;
};

class ClientTest : public ServedPlugin {
 protected:
  Status register_and_wait(const std::string& resource) {
    std::promise<Status> answer;
    client_.register_plugin(path_, {resource, "nvidia-gpu.sock"},
                            [&](Status status) { answer.set_value(std::move(status)); });
    return answer.get_future().get();
  }
  Client client_;
};

TEST_F(ClientTest, Registers) {
  FakeKubelet kubelet(path_);
  EXPECT_TRUE(register_and_wait("nvidia.com/gpu").has_value());
  EXPECT_EQ(kubelet.said, "v1beta1 nvidia-gpu.sock nvidia.com/gpu preferred");
  EXPECT_EQ(register_and_wait("bad").error(),
            (Error{Code::kFailed,
                   path_ + ": registering bad: the kubelet refused: the ResourceName \"bad\" is "
                           "invalid",
                   {}}));
}

TEST_F(ClientTest, AKubeletThatWasAwayIsTriedAnewAtOnce) {
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(register_and_wait("nvidia.com/gpu").error().code, Code::kUnavailable);
  }
  FakeKubelet kubelet(path_);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(register_and_wait("nvidia.com/gpu").has_value());
  EXPECT_LT(std::chrono::steady_clock::now() - start, milliseconds(500));
}

TEST_F(ClientTest, ListsThePodsDevices) {
  FakeKubelet kubelet(path_);
  std::promise<Result<std::vector<ports::PodDevices>>> answer;
  client_.list_pods(path_, [&](Result<std::vector<ports::PodDevices>> pods) {
    answer.set_value(std::move(pods));
  });
  const auto pods = answer.get_future().get();
  ASSERT_TRUE(pods.has_value());
  ASSERT_EQ(pods->size(), 1u);
  EXPECT_EQ(
      (*pods)[0],
      (ports::PodDevices{"default", "pod-1", "main", "nvidia.com/gpu", {"GPU-0::1", "GPU-0::3"}}));
}

TEST_F(ClientTest, ItsThreadLivesUnlessAnAnswerHoldsIt) {
  std::promise<void> hang;
  std::promise<void> done;
  client_.list_pods(dir_ + "/nobody.sock", [&](const Result<std::vector<ports::PodDevices>>&) {
    hang.get_future().wait();
    done.set_value();
  });
  EXPECT_TRUE(eventually([this] { return client_.unanswered() > milliseconds(300); }));
  hang.set_value();
  done.get_future().wait();
  EXPECT_TRUE(eventually([this] { return client_.unanswered() == Duration::zero(); }));
}

TEST(ClientEnd, AnswersWhatIsUnderWay) {
  std::string pattern = ::testing::TempDir() + "gsXXXXXX";
  const std::string dir = ::mkdtemp(pattern.data());
  const int fd = listen_raw(dir + "/kubelet.sock");  // takes connections and says nothing
  Status answer;
  {
    Client client;
    client.register_plugin(dir + "/kubelet.sock", {"r", "e"},
                           [&](Status status) { answer = status; });
  }
  ASSERT_FALSE(answer.has_value());
  EXPECT_EQ(answer.error().code, Code::kUnavailable);
  ::close(fd);
  fs::remove_all(dir);
}

}  // namespace
}  // namespace gpuslice::kubelet
