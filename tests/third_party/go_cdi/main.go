// The container runtimes' own CDI package as the judge of our specs: it reads what the agent wrote on a
// simulated node (a GPU, MIG devices, replicas, extra mounts), validates it, and injects every device into a container.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	oci "github.com/opencontainers/runtime-spec/specs-go"
	"tags.cncf.io/container-device-interface/pkg/cdi"
)

const kind = "k8s.device-plugin.nvidia.com/gpu"

func must(err error, what string) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "FAIL  %s: %v\n", what, err)
		os.Exit(1)
	}
}

func check(holds bool, format string, args ...any) {
	if !holds {
		must(fmt.Errorf(format, args...), "CDI")
	}
}

func run(name string, args ...string) string {
	out, err := exec.Command(name, args...).CombinedOutput()
	must(err, name+" "+strings.Join(args, " ")+": "+string(out))
	return string(out)
}

// One device in a container: what the container then has.
func inject(cache *cdi.Cache, device string) *oci.Spec {
	spec := &oci.Spec{Process: &oci.Process{}, Linux: &oci.Linux{}}
	unresolved, err := cache.InjectDevices(spec, kind+"="+device)
	must(err, "inject "+device)
	check(len(unresolved) == 0, "unresolved: %v", unresolved)
	return spec
}

func judge(folder, root, hook string, devices, nodes int) {
	cache, err := cdi.NewCache(cdi.WithSpecDirs(folder), cdi.WithAutoRefresh(false))
	must(err, "CDI cache")
	check(len(cache.GetErrors()) == 0, "the specs have errors: %v", cache.GetErrors())
	for _, spec := range cache.GetVendorSpecs("k8s.device-plugin.nvidia.com") {
		check(spec.GetVendor() == "k8s.device-plugin.nvidia.com", "vendor %s", spec.GetVendor())
	}
	all := cache.ListDevices()
	check(len(all) == devices, "%d devices expected, seen %v", devices, all)
	for _, qualified := range all {
		name := strings.TrimPrefix(qualified, kind+"=")
		wanted := nodes + 1
		if strings.HasPrefix(name, "MIG-") {
			wanted = nodes + 3
		}
		spec := inject(cache, name)
		check(len(spec.Linux.Devices) == wanted, "%s: %d device nodes expected, seen %v", name, wanted, spec.Linux.Devices)
		check(slices.Contains(spec.Process.Env, "NVIDIA_VISIBLE_DEVICES=void"), "%s: env %v", name, spec.Process.Env)
		check(spec.Hooks != nil && len(spec.Hooks.CreateContainer) == 2, "%s: hooks %v", name, spec.Hooks)
		check(spec.Hooks.CreateContainer[0].Path == hook, "%s: hook %s", name, spec.Hooks.CreateContainer[0].Path)
		paths := []string{}
		for _, mount := range spec.Mounts {
			_, err := os.Stat(mount.Source)
			must(err, "source of "+mount.Destination)
			paths = append(paths, mount.Destination)
		}
		for _, path := range []string{"/usr/bin/nvidia-smi", "/run/gpuslice-sim"} {
			check(slices.Contains(paths, path), "%s: no mount at %s in %v", name, path, paths)
		}
	}
}

// Resets GPU 0 as an administrator would: again while the agent has not let go of it (docs/operations.md: six seconds).
func reset(sim, root string) {
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		out, err := exec.Command(sim, "exec", "--root", root, "--", "nvidia-smi", "-i", "0", "--gpu-reset").CombinedOutput()
		if err == nil {
			return
		}
		check(strings.Contains(string(out), "In use by another client"), "--gpu-reset: %v: %s", err, out)
		check(time.Now().Before(end), "--gpu-reset: still refused after 20 s: %s", out)
	}
}

func main() {
	gpuslice := flag.String("gpuslice", "", "the agent")
	sim := flag.String("sim", "", "gpuslice-sim")
	flag.Parse()
	folder, err := os.MkdirTemp("", "gpuslice-cdi-")
	must(err, "a folder")
	defer os.RemoveAll(folder)
	root := filepath.Join(folder, "node")
	run(*sim, "create", "--root", root, "--gpus", "2xA100-SXM4-40GB")
	state := filepath.Join(folder, "state")
	agent := exec.Command(*gpuslice, "agent", "--root", root, "--kubelet-dir", filepath.Join(folder, "kubelet"),
		"--state-dir", state, "--run-dir", filepath.Join(folder, "run"), "--listen", "", "--no-kube", "--mig-strategy", "mixed",
		"--device-list-strategy", "cdi-cri", "--cdi-extra-mount", root+":/run/gpuslice-sim:rw")
	agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	must(agent.Start(), "the agent")
	specs := filepath.Join(root, "var/run/cdi")
	await := func(what string, count int) {
		for end := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			cache, err := cdi.NewCache(cdi.WithSpecDirs(specs), cdi.WithAutoRefresh(false))
			must(err, "CDI cache")
			if len(cache.ListDevices()) == count {
				return
			}
			check(time.Now().Before(end), "%s: not within 20 s: %v", what, cache.ListDevices())
		}
	}
	hook := filepath.Join(state, "bin/gpuslice")
	await("two GPUs", 2)
	judge(specs, root, hook, 2, 4)
	smi := func(args ...string) {
		run(*sim, append([]string{"exec", "--root", root, "--", "nvidia-smi"}, args...)...)
	}
	smi("-i", "0", "-mig", "1")
	reset(*sim, root) // refused until the agent, which watches the GPU's events, has seen the pending mode and lets go
	smi("mig", "-i", "0", "-cgi", "1g.5gb,2g.10gb,3g.20gb", "-C")
	await("a GPU and three MIG devices", 4)
	judge(specs, root, hook, 4, 4)
	run(hook, "version")
	must(agent.Process.Signal(syscall.SIGTERM), "SIGTERM")
	_ = agent.Wait()
	fmt.Println("go_cdi: the specs hold, every device can be injected")
}
