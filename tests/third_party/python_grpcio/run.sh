#!/usr/bin/env bash
# Python's grpcio as the kubelet of the agent: tests/third_party/python_grpcio/run.sh [BUILD_DIR]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-$here/../../../build/release}" && pwd)
python=$("$here/environment.sh" | tail -n 1)
exec "$python" "$here/kubelet_peer.py" --bin "$build/bin"
