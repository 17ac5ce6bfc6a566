#!/usr/bin/env bash
# Builds the programs of a real Kubernetes out of Go modules at the versions that go.mod pins: tests/cluster/build.sh
# Says the folder they are in as its last line. Some 12 minutes and 5 GB of Go's caches the first time, nothing later:
# the folder's name is a checksum of what it was built from.
#
# Environment: GO_BUILD_FLAGS ("-p=1" keeps a shared machine usable).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
command -v go >/dev/null || { echo "go is missing: install golang-go; ./dev cluster brings a new enough one" >&2; exit 1; }
sum=$(cd "$here" && cat build.sh pause.c kubernetes/{main.go,go.mod,go.sum} runtime/{tools.go,go.mod,go.sum} | sha256sum | cut -c 1-12)
out=${XDG_CACHE_HOME:-$HOME/.cache}/gpuslice/cluster/$sum
read -ra flags <<<"${GO_BUILD_FLAGS:-}"
flags+=(-mod=readonly -trimpath -buildvcs=false)
export CGO_ENABLED=0

if [ ! -e "$out/complete" ]; then
  new=$out.new.$$
  rm -rf "$new" && mkdir -p "$new"
  trap 'rm -rf "$new"' EXIT
  echo "cluster: building containerd and etcd" >&2
  cd "$here/runtime"
  # Debian's runc is taken: one built without libseccomp refuses the pods' seccomp profiles.
  go build "${flags[@]}" -tags "no_btrfs no_devmapper no_zfs" -ldflags "-s -w" -o "$new/" \
    github.com/containerd/containerd/v2/cmd/{containerd,containerd-shim-runc-v2,ctr}
  go build "${flags[@]}" -ldflags "-s -w" -o "$new/etcd" go.etcd.io/etcd/server/v3
  echo "cluster: building Kubernetes (8 minutes on two cores)" >&2
  cd "$here/kubernetes"
  version=$(sed -n 's/^require k8s.io\/kubernetes \|^\tk8s.io\/kubernetes //p' go.mod | head -n 1)
  package=k8s.io/component-base/version
  # Without these the API server calls itself v0.0.0, and kubectl and kubelet compare versions.
  go build "${flags[@]}" -o "$new/kubernetes" -ldflags "-s -w -X $package.gitVersion=$version -X $package.gitTreeState=clean \
    -X $package.gitMajor=$(cut -d. -f1 <<<"${version#v}") -X $package.gitMinor=$(cut -d. -f2 <<<"$version")" .
  for name in kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl; do ln -s kubernetes "$new/$name"; done
  gcc -O2 -static -o "$new/pause" "$here/pause.c"
  touch "$new/complete"
  rm -rf "$out" && mv "$new" "$out"
fi
echo "$out"
