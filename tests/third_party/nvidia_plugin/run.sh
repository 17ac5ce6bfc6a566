#!/usr/bin/env bash
# NVIDIA's own device plugin and the agent take a node over from each other: tests/third_party/nvidia_plugin/run.sh [BUILD_DIR]
# The plugin is built from the module that go.mod pins (two minutes, once), and runs on the simulated library.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-$here/../../../build/release}" && pwd)
command -v go >/dev/null || { echo "go is missing: install golang-go; ./dev test brings a new enough one" >&2; exit 1; }
bin=${XDG_CACHE_HOME:-$HOME/.cache}/gpuslice/third_party/bin
mkdir -p "$bin"
(cd "$here" && go build -mod=readonly -trimpath -ldflags "-s -w" -o "$bin/nvidia-device-plugin" \
  github.com/NVIDIA/k8s-device-plugin/cmd/nvidia-device-plugin)
# The plugin's folder is /var/lib/kubelet/device-plugins whatever its flags say: it gets one that only this test sees.
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(--map-root-user)
exec unshare --mount "${as_root[@]}" --propagation private -- sh -c \
  'mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/kubelet && exec "$@"' - \
  python3 "$here/takeover.py" --plugin "$bin/nvidia-device-plugin" --bin "$build/bin"
