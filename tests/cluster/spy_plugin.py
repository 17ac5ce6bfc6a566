#!/usr/bin/env python3
"""A device plugin that writes down what the kubelet does with it: spy_plugin.py KUBELET_DIR (with environment.sh's Python).

Commands on standard input, answers and calls as JSON lines on standard output:
  serve | register [VERSION RESOURCE] | stop | devices ID[:bad][@NUMA] … | flood COUNT | prefer highest|none|nonsense|fail
  fail TEXT | slow SECONDS | heal | unlink | file NAME | directory NAME | folder | pods | allocatable
"""

import concurrent.futures
import json
import os
import pathlib
import sys
import threading
import time

import grpc
from deviceplugin import api_pb2 as api
from deviceplugin import api_pb2_grpc as services
from podresources import api_pb2 as pods_api
from podresources import api_pb2_grpc as pods_services

RESOURCE = "test.example/dev"
ENDPOINT = "spy.sock"
out = threading.Lock()


def say(**what):
    with out:
        print(json.dumps(what, sort_keys=True), flush=True)


class Plugin(services.DevicePluginServicer):
    def __init__(self):
        self.changed = threading.Condition()
        self.devices, self.version, self.serving = [], 0, True
        self.prefer, self.failure, self.slow = "highest", None, 0.0

    def set_devices(self, words):
        devices = []
        for word in words:
            name, _, numa = word.partition("@")
            name, _, bad = name.partition(":")
            device = api.Device(ID=name, health="Unhealthy" if bad else "Healthy")
            if numa:
                device.topology.nodes.add(ID=int(numa))
            devices.append(device)
        with self.changed:
            self.devices, self.version = devices, self.version + 1
            self.changed.notify_all()

    def GetDevicePluginOptions(self, request, context):
        say(call="GetDevicePluginOptions")
        return api.DevicePluginOptions(get_preferred_allocation_available=True)

    def ListAndWatch(self, request, context):
        say(call="ListAndWatch")
        sent = -1
        while context.is_active():
            with self.changed:
                if self.version == sent:
                    self.changed.wait(0.2)
                    continue
                sent = self.version
                answer = api.ListAndWatchResponse(devices=self.devices)
            yield answer

    def GetPreferredAllocation(self, request, context):
        one = request.container_requests[0]
        say(call="GetPreferredAllocation", containers=len(request.container_requests), available=sorted(one.available_deviceIDs),
            must=sorted(one.must_include_deviceIDs), size=one.allocation_size)
        chosen = []
        if self.prefer == "fail":
            context.abort(grpc.StatusCode.INTERNAL, "no topology")
        if self.prefer == "highest":
            rest = sorted(set(one.available_deviceIDs) - set(one.must_include_deviceIDs), reverse=True)
            chosen = (list(one.must_include_deviceIDs) + rest)[:one.allocation_size]
        if self.prefer == "nonsense":
            chosen = ["nobody"] * one.allocation_size
        return api.PreferredAllocationResponse(container_responses=[api.ContainerPreferredAllocationResponse(deviceIDs=chosen)])

    def Allocate(self, request, context):
        say(call="Allocate", containers=len(request.container_requests), ids=sorted(request.container_requests[0].devices_ids))
        time.sleep(self.slow)
        if self.failure:
            context.abort(grpc.StatusCode.UNKNOWN, self.failure)
        return api.AllocateResponse(container_responses=[api.ContainerAllocateResponse(envs={"SPY": ",".join(sorted(request.container_requests[0].devices_ids))})])

    def PreStartContainer(self, request, context):
        say(call="PreStartContainer")
        return api.PreStartContainerResponse()


class Spy:
    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.plugin, self.server = Plugin(), None

    def serve(self):
        path = self.dir / "device-plugins" / ENDPOINT
        path.unlink(missing_ok=True)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
        services.add_DevicePluginServicer_to_server(self.plugin, self.server)
        self.server.add_insecure_port(f"unix:{path}")
        self.server.start()

    def ask(self, socket, stub, call):
        with grpc.insecure_channel(f"unix:{self.dir}/{socket}") as channel:
            return call(stub(channel))

    def do(self, verb, words):
        if verb == "serve":
            self.serve()
        elif verb == "register":
            self.ask("device-plugins/kubelet.sock", services.RegistrationStub, lambda stub: stub.Register(api.RegisterRequest(
                version=words[0] if words else "v1beta1", endpoint=ENDPOINT, resource_name=words[1] if words else RESOURCE,
                options=api.DevicePluginOptions(get_preferred_allocation_available=True)), timeout=10, wait_for_ready=True))
        elif verb == "stop":
            self.server.stop(None).wait()
        elif verb == "devices":
            self.plugin.set_devices(words)
        elif verb == "prefer":
            self.plugin.prefer = words[0]
        elif verb == "fail":
            self.plugin.failure = " ".join(words)
        elif verb == "slow":
            self.plugin.slow = float(words[0])
        elif verb == "heal":
            self.plugin.failure, self.plugin.slow = None, 0.0
        elif verb == "flood":
            self.plugin.set_devices([f"d{number:0100}" for number in range(int(words[0]))])
        elif verb == "unlink":
            (self.dir / "device-plugins" / ENDPOINT).unlink()
        elif verb == "file":
            (self.dir / "device-plugins" / words[0]).write_text("x")
        elif verb == "directory":
            (self.dir / "device-plugins" / words[0]).mkdir()
        elif verb == "folder":
            return sorted(name for name in os.listdir(self.dir / "device-plugins"))
        elif verb == "pods":
            answer = self.ask("pod-resources/kubelet.sock", pods_services.PodResourcesListerStub,
                              lambda stub: stub.List(pods_api.ListPodResourcesRequest(), timeout=10))
            # The order of a container's entries is chance in the kubelet (a map in Go).
            return sorted([pod.name, sorted([list(c.device_ids), [n.ID for n in c.topology.nodes]]
                                            for container in pod.containers for c in container.devices if c.resource_name == RESOURCE)]
                          for pod in answer.pod_resources)
        elif verb == "allocatable":
            answer = self.ask("pod-resources/kubelet.sock", pods_services.PodResourcesListerStub,
                              lambda stub: stub.GetAllocatableResources(pods_api.AllocatableResourcesRequest(), timeout=10))
            return sorted([list(c.device_ids), [n.ID for n in c.topology.nodes]] for c in answer.devices if c.resource_name == RESOURCE)
        else:
            return f"what is {verb}?"
        return "ok"


def main():
    spy = Spy(sys.argv[1])
    for line in sys.stdin:
        verb, *words = line.split()
        try:
            say(done=verb, said=spy.do(verb, words))
        except grpc.RpcError as problem:
            say(done=verb, said=f"{problem.code().name}: {problem.details()}")
    os._exit(0)


main()
