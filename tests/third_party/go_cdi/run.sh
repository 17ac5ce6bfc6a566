#!/usr/bin/env bash
# The container runtimes' own CDI package judges our specs: tests/third_party/go_cdi/run.sh [BUILD_DIR]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-$here/../../../build/release}" && pwd)
command -v go >/dev/null || { echo "go is missing: install golang-go; ./dev test brings a new enough one" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "go_cdi: skipped: without root a simulated node has plain files for device nodes"; exit 0; }
bin=${XDG_CACHE_HOME:-$HOME/.cache}/gpuslice/third_party/bin
mkdir -p "$bin"
(cd "$here" && go build -mod=readonly -o "$bin/go_cdi" .)
exec "$bin/go_cdi" -gpuslice "$build/bin/gpuslice" -sim "$build/bin/gpuslice-sim"
