#!/usr/bin/env bash
# Says (as its last line) the Python that has grpcio and the kubelet's protocols, made of proto/: environment.sh
# It is kept outside the tree, one for each state of what it is made of; a half-made one never gets the final name.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
proto=$here/../../../proto
sum=$(cat "$here/requirements.txt" "$here/environment.sh" "$proto"/*/api.proto | sha256sum | cut -c 1-16)
venv=${XDG_CACHE_HOME:-$HOME/.cache}/gpuslice/python_grpcio/$sum
if [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv" || { echo "python3 cannot make a virtual environment (Debian: python3-venv)" >&2; exit 1; }
  "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >&2
  packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  # Both files are called api.proto and say `package v1…`: as modules they are deviceplugin.api_pb2 and podresources.api_pb2.
  "$venv/bin/python" -m grpc_tools.protoc --proto_path="$proto" --python_out="$packages" --grpc_python_out="$packages" \
    "$proto"/{deviceplugin,podresources}/api.proto
  touch "$venv/complete"
fi
echo "$venv/bin/python"
