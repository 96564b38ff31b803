#!/usr/bin/env bash
# Prints the folder of a Go module whose CRDs the files in deploy/ are checked against: real ones, of an exact version, and not
# committed here. They come from the Go module proxy, verified by Go's checksum database, into the user's Go module cache.
#   tests/cluster/crds.sh chaos-mesh | argo-rollouts | flagger
set -euo pipefail

case ${1:-} in
  chaos-mesh) module=github.com/chaos-mesh/chaos-mesh@v0.9.1-0.20260902003049-47411975a8cb ;; # master of 2026-09: 2.x has no module path
  argo-rollouts) module=github.com/argoproj/argo-rollouts@v1.8.3 ;;
  flagger) module=github.com/fluxcd/flagger@v1.36.1 ;;
  *) echo "crds: expected chaos-mesh, argo-rollouts or flagger, not '${1:-}'" >&2; exit 2 ;;
esac
command -v go >/dev/null || { echo "crds: Go is not installed: https://go.dev/dl/" >&2; exit 1; }

# A folder of its own, so that no go.mod above decides anything.
empty=$(mktemp -d)
trap 'rm -rf "$empty"' EXIT
cd "$empty"
folder=$(GOFLAGS=-mod=mod GOWORK=off GOTOOLCHAIN=local go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
[ -d "$folder" ] || { echo "crds: $module was not downloaded" >&2; exit 1; }
echo "$folder"
