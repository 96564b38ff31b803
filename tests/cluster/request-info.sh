#!/usr/bin/env bash
# Builds the program that asks Kubernetes' own code how it reads requests, once per version of its sources, and prints
# its path as the only line on stdout. Apart from build.sh, so that a change here does not build Kubernetes anew.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

command -v go >/dev/null || { echo "request-info: Go is not installed: https://go.dev/dl/" >&2; exit 1; }
export GOTOOLCHAIN=local CGO_ENABLED=0

hash=$(find go.mod go.sum request-info.sh request-info -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
base="${XDG_CACHE_HOME:-$HOME/.cache}/spillway"
program="$base/request-info-$hash"
if [[ ! -x $program ]]; then
    mkdir -p "$base"
    temporary=$(mktemp -d "$base/building.XXXXXX")
    trap 'rm -rf "$temporary"' EXIT
    echo "request-info: building it, once" >&2
    nice -n 10 go build -trimpath -buildvcs=false -ldflags "-s -w" -o "$temporary/request-info" ./request-info 1>&2
    # A program that exists is complete: it appears by a rename.
    mv -T "$temporary/request-info" "$program"
    find "$base" -maxdepth 1 -name 'request-info-*' -mtime +30 -delete
fi
touch "$program"
echo "$program"
