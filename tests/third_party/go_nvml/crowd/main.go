// crowd ROUNDS: see ../../crowd/README.md.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

const oneSlice = 19

func must[T any](value T, ret nvml.Return) T {
	if ret != nvml.SUCCESS {
		fmt.Println(ret)
		os.Exit(1)
	}
	return value
}

func readAll(devices []nvml.Device, uuids []string) (wrong int) {
	for i, device := range devices {
		m := must(device.GetMemoryInfo_v2())
		if m.Total != m.Reserved+m.Free+m.Used || must(device.GetUUID()) != uuids[i] {
			wrong++
		}
	}
	return wrong
}

func main() {
	rounds, err := strconv.Atoi(os.Args[1])
	if err != nil {
		os.Exit(2)
	}
	must(0, nvml.Init())
	var devices []nvml.Device
	var uuids []string
	for i := 0; i < must(nvml.DeviceGetCount()); i++ {
		devices = append(devices, must(nvml.DeviceGetHandleByIndex(i)))
		uuids = append(uuids, must(devices[i].GetUUID()))
	}
	profile := must(devices[0].GetGpuInstanceProfileInfo(nvml.GPU_INSTANCE_PROFILE_1_SLICE))
	fmt.Println("ready")
	input := bufio.NewReader(os.Stdin)
	if _, err := input.ReadString('\n'); err != nil {
		os.Exit(1)
	}
	var created, refused, destroyed, wrong int
	for ; rounds > 0; rounds-- {
		wrong += readAll(devices, uuids)
		gi, ret := devices[0].CreateGpuInstance(&profile)
		if ret == nvml.ERROR_INSUFFICIENT_RESOURCES {
			refused++
			continue
		}
		must(0, ret)
		created++
		if must(gi.GetInfo()).ProfileId != oneSlice {
			wrong++
		}
		must(0, gi.Destroy())
		destroyed++
	}
	fmt.Printf("created %d refused %d destroyed %d wrong %d\n", created, refused, destroyed, wrong)
	_, _ = io.Copy(io.Discard, input)
	must(0, nvml.Shutdown())
}
