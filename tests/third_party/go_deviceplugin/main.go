// A kubelet's side of the device-plugin protocol by Kubernetes' own Go package, against the agent over its real socket.
//
// usage: go_deviceplugin -gpuslice PATH -sim PATH
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

type registry struct {
	pluginapi.UnimplementedRegistrationServer
	calls chan *pluginapi.RegisterRequest
}

func (r *registry) Register(_ context.Context, request *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	r.calls <- request
	return &pluginapi.Empty{}, nil
}

var held, broken int

func check(what string, ok bool, seen any) {
	if ok {
		held++
		fmt.Println("ok   " + what)
		return
	}
	broken++
	fmt.Printf("FAIL %s; seen: %v\n", what, seen)
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go_deviceplugin:", err)
		os.Exit(1)
	}
}

func ids(list *pluginapi.ListAndWatchResponse) []string {
	var out []string
	for _, device := range list.Devices {
		out = append(out, device.ID)
	}
	return out
}

func write(path, replicas string) {
	text := "version: v1\n"
	if replicas != "" {
		text += "sharing: {timeSlicing: {resources: [{name: nvidia.com/gpu, replicas: " + replicas + "}]}}\n"
	}
	must(os.WriteFile(path+".new", []byte(text), 0o644))
	must(os.Rename(path+".new", path))
}

func run(gpuslice, sim, base string) {
	node, kubelet, config := filepath.Join(base, "node"), filepath.Join(base, "kubelet"), filepath.Join(base, "config.yaml")
	out, err := exec.Command(sim, "create", "--root", node, "--gpus", "2xA100-SXM4-40GB").CombinedOutput()
	if err != nil {
		must(fmt.Errorf("%v: %s", err, out))
	}
	var uuids []string
	for _, line := range strings.Split(string(out), "\n") {
		if at := strings.Index(line, "(UUID: "); at >= 0 {
			uuids = append(uuids, strings.TrimSuffix(line[at+7:], ")"))
		}
	}
	write(config, "")
	must(os.MkdirAll(filepath.Join(kubelet, "device-plugins"), 0o755))
	listener, err := net.Listen("unix", filepath.Join(kubelet, "device-plugins", "kubelet.sock"))
	must(err)
	server := grpc.NewServer()
	calls := &registry{calls: make(chan *pluginapi.RegisterRequest, 16)}
	pluginapi.RegisterRegistrationServer(server, calls)
	go server.Serve(listener)
	defer server.Stop()

	agent := exec.Command(gpuslice, "agent", "--root", node, "--kubelet-dir", kubelet, "--config", config, "--listen", "", "--no-kube",
		"--state-dir", filepath.Join(base, "state"), "--run-dir", filepath.Join(base, "run"))
	agent.Stderr = os.Stderr
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(agent.Start())
	defer func() {
		agent.Process.Signal(syscall.SIGTERM)
		agent.Wait()
	}()

	var request *pluginapi.RegisterRequest
	select {
	case request = <-calls.calls:
	case <-time.After(20 * time.Second):
		must(fmt.Errorf("no Register within 20 s"))
	}
	check("Register: version v1beta1", request.Version == pluginapi.Version, request.Version)
	check("Register: nvidia.com/gpu", request.ResourceName == "nvidia.com/gpu", request.ResourceName)
	check("Register: endpoint nvidia-gpu.sock", request.Endpoint == "nvidia-gpu.sock", request.Endpoint)
	check("Register: preferred allocation is available", request.Options.GetGetPreferredAllocationAvailable(), request.Options)

	socket := "unix://" + filepath.Join(kubelet, "device-plugins", request.Endpoint)
	connection, err := grpc.NewClient(socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(err)
	defer connection.Close()
	client := pluginapi.NewDevicePluginClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	options, err := client.GetDevicePluginOptions(ctx, &pluginapi.Empty{})
	must(err)
	check("GetDevicePluginOptions: preferred, no PreStart", options.GetPreferredAllocationAvailable && !options.PreStartRequired, options)

	watch, err := client.ListAndWatch(ctx, &pluginapi.Empty{})
	must(err)
	list, err := watch.Recv()
	must(err)
	sorted := append([]string(nil), uuids...)
	sort.Strings(sorted)
	check("ListAndWatch: the two UUIDs, sorted", fmt.Sprint(ids(list)) == fmt.Sprint(sorted), ids(list))
	check("ListAndWatch: healthy", list.Devices[0].Health == pluginapi.Healthy && list.Devices[1].Health == pluginapi.Healthy, list)

	begun := time.Now()
	write(config, "3")
	list, err = watch.Recv()
	must(err)
	check("an edit reaches the stream within a second", time.Since(begun) < time.Second, time.Since(begun))
	check("six replicas", len(list.Devices) == 6, ids(list))
	check("ids are <uuid>::<n>", list.Devices[0].ID == sorted[0]+"::0" && list.Devices[5].ID == sorted[1]+"::2", ids(list))

	preferred, err := client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{
		{AvailableDeviceIDs: ids(list), MustIncludeDeviceIDs: []string{sorted[1] + "::2"}, AllocationSize: 2}}})
	must(err)
	chosen := preferred.ContainerResponses[0].DeviceIDs
	check("GetPreferredAllocation: what must be included, then the other GPU", fmt.Sprint(chosen) == fmt.Sprint([]string{sorted[1] + "::2", sorted[0] + "::0"}), chosen)

	allocated, err := client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{sorted[0] + "::1"}}}})
	must(err)
	answer := allocated.ContainerResponses[0]
	check("Allocate: NVIDIA_VISIBLE_DEVICES names the GPU, once", len(answer.Envs) == 1 && answer.Envs["NVIDIA_VISIBLE_DEVICES"] == sorted[0], answer.Envs)
	check("Allocate: nothing else", len(answer.Mounts)+len(answer.Devices)+len(answer.Annotations)+len(answer.CdiDevices) == 0, answer)

	_, err = client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: []string{"GPU-of-nobody"}}}})
	check("Allocate: an unknown id is refused by name", err != nil && strings.Contains(err.Error(), "GPU-of-nobody"), err)

	write(config, "2")
	list, err = watch.Recv()
	must(err)
	check("fewer replicas: the held one stays, two on each GPU", len(list.Devices) == 4 && strings.Contains(fmt.Sprint(ids(list)), sorted[0]+"::1"), ids(list))
	_, err = client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: []string{sorted[0] + "::1"}})
	check("PreStartContainer answers", err == nil, err)
}

func main() {
	gpuslice := flag.String("gpuslice", "", "the agent's program")
	sim := flag.String("sim", "", "gpuslice-sim")
	flag.Parse()
	base, err := os.MkdirTemp("", "gpuslice-go-")
	must(err)
	run(*gpuslice, *sim, base)
	os.RemoveAll(base)
	fmt.Printf("%d passed, %d failed\n", held, broken)
	if broken > 0 {
		os.Exit(1)
	}
}
