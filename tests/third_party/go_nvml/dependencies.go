// Package gonvml runs go-nvml on simulated nodes. What its own tests need is named here, so that go.sum pins it.
package gonvml

import (
	_ "github.com/NVIDIA/go-nvml/pkg/dl"
	_ "github.com/NVIDIA/go-nvml/pkg/nvml"
	_ "github.com/google/uuid"
	_ "github.com/stretchr/testify/require"
)
