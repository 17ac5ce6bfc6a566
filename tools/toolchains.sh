# Sourced by ./dev. The Go and Rust that other people's programs in tests/third_party need.
#
# go-nvml and k8s.io/kubelet want Go 1.24 or newer; Debian 12 has 1.19. nvml-wrapper wants Rust 1.74 or newer; Debian 12
# has 1.63 under the usual name and a newer one in rustc-web.

go_version=1.24.9
go_least=1.24
rust_least=1.78

version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

# need_go CACHE: puts a new enough `go` first in PATH. Debian's go fetches the newer toolchain as the module that the Go
# project publishes it as (golang.org/toolchain), so nothing but the module proxy is needed.
need_go() {
  local have="" dir
  have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null | sed 's/^go//') || true
  [ -n "$have" ] && version_at_least "$have" "$go_least" && return
  dir=$1/go-$go_version
  if [ ! -x "$dir/bin/go" ]; then
    [ -n "$have" ] || need golang-go
    local module="golang.org/toolchain@v0.0.1-go$go_version.linux-$(dpkg --print-architecture)" found
    say "dev: fetching Go $go_version from the module proxy"
    mkdir -p "$1/go-bootstrap"
    found=$(cd "$1/go-bootstrap" && GOFLAGS=-modcacherw GOPATH=$1/go-bootstrap go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
    [ -n "$found" ] && [ -d "$found/bin" ] || { say "dev: the module proxy has no $module; the tests need Go $go_least or newer"; exit 1; }
    cp -r "$found" "$dir.new"
    chmod -R u+w "$dir.new"
    chmod +x "$dir.new"/bin/* "$dir.new"/pkg/tool/*/*
    rm -rf "$dir" && mv "$dir.new" "$dir"
  fi
  export PATH=$dir/bin:$PATH GOTOOLCHAIN=local
}

# need_rust: a new enough `cargo` and `rustc` in PATH.
need_rust() {
  local have=""
  have=$(rustc --version 2>/dev/null | awk '{print $2}') || true
  [ -n "$have" ] && version_at_least "$have" "$rust_least" && command -v cargo >/dev/null && return
  need rustc-web cargo-web
  have=$(rustc --version 2>/dev/null | awk '{print $2}') || true
  version_at_least "${have:-0}" "$rust_least" || { say "dev: rustc is ${have:-missing}; the tests need $rust_least or newer (Debian: rustc-web)"; exit 1; }
}
