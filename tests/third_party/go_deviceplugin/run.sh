#!/usr/bin/env bash
# Kubernetes' own Go package as the kubelet of the agent: tests/third_party/go_deviceplugin/run.sh [BUILD_DIR]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-$here/../../../build/release}" && pwd)
command -v go >/dev/null || { echo "go is missing: install golang-go; ./dev test brings a new enough one" >&2; exit 1; }
bin=${XDG_CACHE_HOME:-$HOME/.cache}/gpuslice/third_party/bin
mkdir -p "$bin"
(cd "$here" && go build -mod=readonly -o "$bin/go_deviceplugin" .)
exec "$bin/go_deviceplugin" -gpuslice "$build/bin/gpuslice" -sim "$build/bin/gpuslice-sim"
