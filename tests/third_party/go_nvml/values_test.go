package gonvml

import (
	"encoding/json"
	"fmt"
	"os"
	"sort"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

const mib = 1 << 20
const nowhere = 0xFFFFFFFF

type client struct {
	Pid       uint32
	MemoryMiB uint64
}
type row struct {
	Name         string
	Enum         int `json:"nvml_gi_enum"`
	ID           int `json:"smi_id"`
	Slices       int
	MemoryMiB    uint64 `json:"memory_mib"`
	SM           int
	CE           int
	NVDEC        int
	NVENC        int
	JPEG         int
	OFA          int
	MaxInstances int `json:"max_instances"`
	Placements   []string
}
type computeInstance struct {
	CI      uint32
	Slices  int
	UUID    string
	Name    string
	Clients []client
}
type instance struct {
	GI               uint32
	ProfileID        uint32 `json:"profileId"`
	Placement        struct{ Start, Size uint32 }
	Row              row
	ComputeInstances []computeInstance
}
type gpu struct {
	Index     int
	UUID      string
	Name      string
	Minor     int
	BusID     string `json:"busId"`
	MemoryMiB uint64
	CC        string
	Capable   bool
	MIG       bool
	Busy      int
	Profiles  []row
	Clients   []client
	Instances []instance
}
type truth struct {
	Driver string
	GPUs   []gpu
}

var agreed int

func same[T any](t *testing.T, what string, seen, expected T) {
	t.Helper()
	if fmt.Sprintf("%#v", seen) != fmt.Sprintf("%#v", expected) {
		t.Errorf("%s: expected %v, seen %v", what, expected, seen)
		return
	}
	agreed++
}

func within(t *testing.T, what string, seen, low, high int64) {
	t.Helper()
	if seen < low || seen > high {
		t.Errorf("%s: expected %d..%d, seen %d", what, low, high, seen)
		return
	}
	agreed++
}

func must[T any](t *testing.T, what string) func(T, nvml.Return) T {
	return func(value T, ret nvml.Return) T {
		t.Helper()
		if ret != nvml.SUCCESS {
			t.Errorf("%s: %v", what, ret)
		}
		return value
	}
}

func theTruth(t *testing.T) truth {
	bytes, err := os.ReadFile(os.Getenv("JUDGE_TRUTH"))
	if err != nil {
		t.Fatal(err)
	}
	var known truth
	if err := json.Unmarshal(bytes, &known); err != nil {
		t.Fatal(err)
	}
	if len(known.GPUs) == 0 {
		t.Fatal("the truth has no GPUs")
	}
	return known
}

func TestValues(t *testing.T) {
	known := theTruth(t)
	if ret := nvml.Init(); ret != nvml.SUCCESS {
		t.Fatalf("init: %v", ret)
	}
	same(t, "driver", must[string](t, "driver")(nvml.SystemGetDriverVersion()), known.Driver)
	same(t, "GPUs", must[int](t, "count")(nvml.DeviceGetCount()), len(known.GPUs))
	for _, g := range known.GPUs {
		device := must[nvml.Device](t, "handle")(nvml.DeviceGetHandleByIndex(g.Index))
		wholeGPU(t, g, device)
		migOf(t, g, device)
	}
	if ret := nvml.Shutdown(); ret != nvml.SUCCESS {
		t.Errorf("shutdown: %v", ret)
	}
}

func wholeGPU(t *testing.T, g gpu, device nvml.Device) {
	at := fmt.Sprintf("GPU %d", g.Index)
	same(t, at+" UUID", must[string](t, at)(device.GetUUID()), g.UUID)
	same(t, at+" name", must[string](t, at)(device.GetName()), g.Name)
	same(t, at+" index", must[int](t, at)(device.GetIndex()), g.Index)
	same(t, at+" minor", must[int](t, at)(device.GetMinorNumber()), g.Minor)
	pci := must[nvml.PciInfo](t, at)(device.GetPciInfo())
	same(t, at+" bus id", text(pci.BusId[:]), g.BusID)
	byUUID := must[nvml.Device](t, at)(nvml.DeviceGetHandleByUUID(g.UUID))
	same(t, at+" by UUID", must[int](t, at)(byUUID.GetIndex()), g.Index)
	byBus := must[nvml.Device](t, at)(nvml.DeviceGetHandleByPciBusId(g.BusID))
	same(t, at+" by bus id", must[int](t, at)(byBus.GetIndex()), g.Index)
	major, minor, ret := device.GetCudaComputeCapability()
	same(t, at+" compute capability", fmt.Sprintf("%v %d.%d", ret, major, minor), "Success "+g.CC)
	v1 := must[nvml.Memory](t, at)(device.GetMemoryInfo())
	v2 := must[nvml.Memory_v2](t, at)(device.GetMemoryInfo_v2())
	same(t, at+" memory total", v2.Total, g.MemoryMiB*mib)
	same(t, at+" memory of v1", []uint64{v1.Total, v1.Free, v1.Used}, []uint64{v2.Total, v2.Free, v2.Used + v2.Reserved})
	var wanted []string
	for _, c := range g.Clients {
		wanted = append(wanted, process(c, nowhere, nowhere))
	}
	for _, gi := range g.Instances {
		for _, ci := range gi.ComputeInstances {
			for _, c := range ci.Clients {
				wanted = append(wanted, process(c, gi.GI, ci.CI))
			}
		}
	}
	sort.Strings(wanted)
	same(t, at+" processes", running(t, at, device), wanted)
	utilization, ret := device.GetUtilizationRates()
	if g.MIG {
		same(t, at+" utilisation under MIG", ret, nvml.ERROR_NOT_SUPPORTED)
	} else {
		same(t, at+" utilisation", ret, nvml.SUCCESS)
		within(t, at+" utilisation", int64(utilization.Gpu), int64(g.Busy-1), int64(g.Busy+1))
	}
	limit := must[uint32](t, at)(device.GetEnforcedPowerLimit())
	within(t, at+" power", int64(must[uint32](t, at)(device.GetPowerUsage())), 1000, int64(limit))
	energy := must[uint64](t, at)(device.GetTotalEnergyConsumption())
	within(t, at+" energy", int64(must[uint64](t, at)(device.GetTotalEnergyConsumption())), int64(energy), int64(energy)+1_000_000)
}

func process(c client, gi, ci uint32) string {
	return fmt.Sprintf("%d %d %d %d", c.Pid, c.MemoryMiB*mib, gi, ci)
}

func running(t *testing.T, at string, device nvml.Device) []string {
	var rows []string
	for _, p := range must[[]nvml.ProcessInfo](t, at)(device.GetComputeRunningProcesses()) {
		rows = append(rows, fmt.Sprintf("%d %d %d %d", p.Pid, p.UsedGpuMemory, p.GpuInstanceId, p.ComputeInstanceId))
	}
	sort.Strings(rows)
	return rows
}

func migOf(t *testing.T, g gpu, device nvml.Device) {
	at := fmt.Sprintf("GPU %d", g.Index)
	current, pending, ret := device.GetMigMode()
	if !g.Capable {
		same(t, at+" MIG mode of a board without", ret, nvml.ERROR_NOT_SUPPORTED)
		return
	}
	on := 0
	if g.MIG {
		on = 1
	}
	same(t, at+" MIG mode", []int{current, pending}, []int{on, on})
	byEnum := map[int]row{}
	for _, r := range g.Profiles {
		byEnum[r.Enum] = r
	}
	for enum := 0; enum < nvml.GPU_INSTANCE_PROFILE_COUNT; enum++ {
		r, there := byEnum[enum]
		info, ret := device.GetGpuInstanceProfileInfo(enum)
		if !there {
			// A later binding knows one more than branch 580, which ends the list at 16.
			refused := nvml.ERROR_NOT_SUPPORTED
			if enum > 16 {
				refused = nvml.ERROR_INVALID_ARGUMENT
			}
			same(t, fmt.Sprintf("%s profile %d", at, enum), ret, refused)
			continue
		}
		same(t, at+" "+r.Name, ret, nvml.SUCCESS)
		same(t, at+" "+r.Name,
			[]int{int(info.Id), int(info.SliceCount), int(info.InstanceCount), int(info.MultiprocessorCount), int(info.CopyEngineCount),
				int(info.DecoderCount), int(info.EncoderCount), int(info.JpegCount), int(info.OfaCount), int(info.MemorySizeMB)},
			[]int{r.ID, r.Slices, r.MaxInstances, r.SM, r.CE, r.NVDEC, r.NVENC, r.JPEG, r.OFA, int(r.MemoryMiB)})
		v3, ret := device.GetGpuInstanceProfileInfoV(enum).V3()
		// Branch 580 leaves the name of the third version empty (docs/hardware.md); the second has it.
		same(t, at+" "+r.Name+" v3", fmt.Sprintf("%v %q %d", ret, text(v3.Name[:]), v3.MemorySizeMB), fmt.Sprintf("Success %q %d", "", r.MemoryMiB))
		v2, ret := device.GetGpuInstanceProfileInfoV(enum).V2()
		same(t, at+" "+r.Name+" v2", fmt.Sprintf("%v %s %d", ret, text(v2.Name[:]), v2.MemorySizeMB), fmt.Sprintf("Success MIG %s %d", r.Name, r.MemoryMiB))
		var places []string
		for _, p := range must[[]nvml.GpuInstancePlacement](t, at)(device.GetGpuInstancePossiblePlacements(&info)) {
			places = append(places, fmt.Sprintf("%d:%d", p.Start, p.Size))
		}
		same(t, at+" placements of "+r.Name, places, r.Placements)
		if g.MIG {
			var here []int
			for _, gi := range g.Instances {
				if int(gi.ProfileID) == r.ID {
					here = append(here, int(gi.GI))
				}
			}
			var seen []int
			for _, gi := range must[[]nvml.GpuInstance](t, at)(device.GetGpuInstances(&info)) {
				seen = append(seen, int(must[nvml.GpuInstanceInfo](t, at)(gi.GetInfo()).Id))
			}
			sort.Ints(here)
			sort.Ints(seen)
			same(t, at+" instances of "+r.Name, seen, here)
		}
	}
	for _, gi := range g.Instances {
		handle := must[nvml.GpuInstance](t, at)(device.GetGpuInstanceById(int(gi.GI)))
		info := must[nvml.GpuInstanceInfo](t, at)(handle.GetInfo())
		same(t, fmt.Sprintf("%s GI %d", at, gi.GI), []uint32{info.Id, info.ProfileId, info.Placement.Start, info.Placement.Size},
			[]uint32{gi.GI, gi.ProfileID, gi.Placement.Start, gi.Placement.Size})
		for _, ci := range gi.ComputeInstances {
			computeHandle := must[nvml.ComputeInstance](t, at)(handle.GetComputeInstanceById(int(ci.CI)))
			computeInfo := must[nvml.ComputeInstanceInfo](t, at)(computeHandle.GetInfo())
			same(t, at+" the device of a compute instance is its MIG device", must[string](t, at)(computeInfo.Device.GetUUID()), ci.UUID)
			migDevice(t, at+" "+ci.UUID, g, gi, ci)
		}
	}
}

func migDevice(t *testing.T, at string, g gpu, gi instance, ci computeInstance) {
	device := must[nvml.Device](t, at)(nvml.DeviceGetHandleByUUID(ci.UUID))
	same(t, at+" name", must[string](t, at)(device.GetName()), ci.Name)
	same(t, at+" GI", must[int](t, at)(device.GetGpuInstanceId()), int(gi.GI))
	same(t, at+" CI", must[int](t, at)(device.GetComputeInstanceId()), int(ci.CI))
	parent := must[nvml.Device](t, at)(device.GetDeviceHandleFromMigDeviceHandle())
	same(t, at+" parent", must[string](t, at)(parent.GetUUID()), g.UUID)
	attributes := must[nvml.DeviceAttributes](t, at)(device.GetAttributes())
	same(t, at+" slices, memory", []int{int(attributes.GpuInstanceSliceCount), int(attributes.ComputeInstanceSliceCount), int(attributes.MemorySizeMB)},
		[]int{gi.Row.Slices, ci.Slices, int(gi.Row.MemoryMiB)})
	same(t, at+" memory total", must[nvml.Memory](t, at)(device.GetMemoryInfo()).Total, gi.Row.MemoryMiB*mib)
	var wanted []string
	for _, c := range ci.Clients {
		wanted = append(wanted, process(c, gi.GI, ci.CI))
	}
	sort.Strings(wanted)
	same(t, at+" processes", running(t, at, device), wanted)
}

func text[B ~int8 | ~uint8](bytes []B) string {
	var out []byte
	for _, b := range bytes {
		if b == 0 {
			break
		}
		out = append(out, byte(b))
	}
	return string(out)
}

func TestMain(m *testing.M) {
	code := m.Run()
	fmt.Printf("%d values agree\n", agreed)
	if agreed == 0 {
		code = 1
	}
	os.Exit(code)
}
