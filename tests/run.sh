#!/usr/bin/env bash
# Everything that has to be true before a change lands. Each step says what it does; the last line counts them.
# Steps go on after a failure, so that one run shows everything that is wrong.
set -uo pipefail
cd "$(dirname "$0")/.."

passed=0 failed=0 skipped=0 log=$(mktemp -d)
trap 'rm -rf "$log"' EXIT

step() { # name command...
  local name=$1 started=$SECONDS; shift
  printf '== %s\n' "$name"
  if "$@"; then
    passed=$((passed + 1)); printf '   ok: %s (%d s)\n' "$name" $((SECONDS - started))
  else
    failed=$((failed + 1)); printf '   FAILED: %s (%d s)\n' "$name" $((SECONDS - started))
  fi
}

missing=()
need() { # command package: installed by apt when we are root, named otherwise
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$2" >/dev/null
  fi
  command -v "$1" >/dev/null || missing+=("$1 (Debian: $2)")
}

for rust in cargo rustc; do command -v $rust >/dev/null || missing+=("$rust (https://rustup.rs)"); done
command -v go >/dev/null || missing+=("go >= 1.24 (https://go.dev/dl)")
need cc gcc
need cmake cmake
need taskset util-linux
need script bsdutils
need tar tar
need ip iproute2
need nsenter util-linux
need promtool prometheus
need systemd-analyze systemd
need pgrep procps
need musl-gcc musl-tools
need buildah buildah
need readelf binutils
need slowhttptest slowhttptest
need chromium chromium
need npm npm
need openssl openssl
if [ ${#missing[@]} -gt 0 ]; then
  printf 'make test needs these tools, and could not install them:\n'; printf '  - %s\n' "${missing[@]}"
  exit 2
fi

deny() {
  local cache=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/cargo-deny-0.20.2
  if [ ! -x "$cache/bin/cargo-deny" ]; then
    echo "   building cargo-deny once, into the user's cache"
    cargo install cargo-deny --version 0.20.2 --locked --no-default-features --quiet --root "$cache" || return 1
  fi
  # Offline it reads every platform's crates, and a build has fetched this one's alone.
  cargo fetch --locked --quiet || return 1
  "$cache/bin/cargo-deny" --offline --log-level warn --config .deny.toml check bans licenses sources
}

step "format" cargo fmt --check
step "lints" cargo clippy --locked --all-targets --quiet -- -D warnings
step "dependencies: bans, licenses, sources" deny
rules() {
  promtool check rules deploy/monitoring/recording.yaml deploy/monitoring/alerts.yaml >/dev/null &&
    promtool test rules deploy/monitoring/tests.yaml
}
step "alerts and recording rules" rules
step "programs of a real cluster (built once)" bash -c 'tests/cluster/build.sh > '"$log"'/bin && tests/cluster/request-info.sh'
step "fuzz targets: format" bash -c 'cd fuzz && cargo fmt --check'
step "h2spec (built once)" bash -c 'tests/h2spec/build.sh > '"$log"'/h2spec'
step "kubeadm (built once)" bash -c 'tests/kubeadm/build.sh > '"$log"'/kubeadm'
step "Helm (built once)" bash -c 'tests/helm/build.sh > '"$log"'/helm'
export SPILLWAY_CLUSTER_BIN; SPILLWAY_CLUSTER_BIN=$(cat "$log/bin" 2>/dev/null || true)
step "unit, documentation, tidy and integration tests" cargo test --locked
step "documentation builds" env RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --quiet
step "the release binary" cargo build --release --locked --quiet --bin spillway
service() {
  local unit=$log/spillway.service binary
  binary=$(realpath "${CARGO_TARGET_DIR:-target}/release/spillway")
  "$binary" manifest systemd --binary "$binary" > "$unit" && systemd-analyze verify "$unit" &&
    # Exposure in tenths: 0 is none, 100 everything. It has 12.
    systemd-analyze security --offline=true --threshold=20 --no-pager "$unit" | tail -1
}
step "the systemd unit" service
step "the systemd unit, run by systemd" tests/systemd.sh "${CARGO_TARGET_DIR:-target}/release/spillway"
step "the drills" "${CARGO_TARGET_DIR:-target}/release/spillway" drill --all
step "the image: static, small, started alone; the demo, headless" tests/image.sh

printf '\n%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" = 0 ]
