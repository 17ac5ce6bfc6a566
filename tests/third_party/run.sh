#!/usr/bin/env bash
# Other people's programs judge the simulated library: run.sh [BUILD_DIR] [--only NAME]
#
# Everything they need is pinned (requirements.txt, rust/Cargo.lock, go_nvml/go.sum) and kept outside the tree, in
# ${XDG_CACHE_HOME:-~/.cache}/gpuslice/judges. A missing tool is a failure that names it. The last line is
# "N passed, N failed"; the exit status is 0 only when none failed.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
build=$(cd "${1:-$here/../../build/release}" && pwd)
[ $# -gt 0 ] && shift
cache=${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/gpuslice/judges

give_up() { printf 'FAIL  %s\n0 passed, 1 failed\n' "$*"; exit 1; }
newer() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; } # newer LEAST HAVE

[ -x "$build/bin/gpuslice-sim" ] || give_up "$build/bin/gpuslice-sim is not there: build first (./dev build)"
for tool in python3 go cargo rustc c++; do
  command -v "$tool" >/dev/null || give_up "$tool is missing (./dev test installs it: Debian's python3, golang-go, rustc-web, cargo-web, g++)"
done
rust_version=$(rustc --version | awk '{print $2}')
newer 1.74 "$rust_version" || give_up "rustc is $rust_version; nvml-wrapper's dependencies want 1.74 or newer (Debian 12: rustc-web, cargo-web)"
mkdir -p "$cache"

# Python: one environment for each state of requirements.txt; a half-made one never gets the final name.
pins=$(sha256sum "$here/requirements.txt" | cut -c 1-16)
venv=$cache/venv-$pins
if [ ! -x "$venv/bin/python" ] || [ ! -e "$venv/complete" ]; then
  rm -rf "$venv"
  python3 -m venv "$venv" || give_up "python3 cannot make a virtual environment (Debian: python3-venv)"
  "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/requirements.txt" >"$cache/pip.log" 2>&1 ||
    { tail -n 10 "$cache/pip.log"; give_up "pip could not install tests/third_party/requirements.txt"; }
  touch "$venv/complete"
fi

(cd "$here/rust" && CARGO_TARGET_DIR=$cache/rust cargo build -q --locked >"$cache/cargo.log" 2>&1) ||
  { tail -n 20 "$cache/cargo.log"; give_up "the Rust judge did not build"; }

# GOTOOLCHAIN=auto lets Go fetch a newer one of itself if the module wants it.
go_test() { # PROGRAM PACKAGE
  (cd "$here/go_nvml" && CGO_CFLAGS=-w GOFLAGS=-mod=readonly go test -c -o "$cache/go/$1" "$2" >"$cache/go.log" 2>&1) ||
    { tail -n 20 "$cache/go.log"; give_up "Go's judge $1 did not build"; }
}
mkdir -p "$cache/go"
go_test values.test .
go_test nvml.test github.com/NVIDIA/go-nvml/pkg/nvml
go_test dl.test github.com/NVIDIA/go-nvml/pkg/dl
(cd "$here/go_nvml" && CGO_CFLAGS=-w GOFLAGS=-mod=readonly go build -o "$cache/go/crowd" ./crowd >"$cache/go.log" 2>&1) ||
  { tail -n 20 "$cache/go.log"; give_up "Go's part of the crowd did not build"; }
c++ -std=c++17 -O1 -o "$cache/crowd" "$here/crowd/crowd.cc" -ldl || give_up "the C++ part of the crowd did not build"

exec "$venv/bin/python" "$here/judges.py" --build "$build" --rust "$cache/rust/debug/nvml_judge" --go "$cache/go" --cc "$cache/crowd" "$@"
