#!/usr/bin/env bash
# Everything at once on a node of its own, and nothing may have grown: soak.sh BUILD_DIR SECONDS EVENTS. The agent's log goes to
# BUILD_DIR/soak.log.
set -euo pipefail
build=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$build/bin/gpuslice-sim" create --root "$work/node" --gpus 8xA100-SXM4-40GB >/dev/null
"$build/bin/agent_soak" "$build/bin/gpuslice" "$work/node" "$2" "$3" 2>"$build/soak.log" || { tail -n 5 "$build/soak.log" >&2; exit 1; }
