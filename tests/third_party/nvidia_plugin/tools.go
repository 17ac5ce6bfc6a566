//go:build tools

// Package tools pins NVIDIA's device plugin: run.sh builds its command from this module's requirements.
package tools

import _ "github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin"
