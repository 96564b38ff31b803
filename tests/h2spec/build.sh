#!/usr/bin/env bash
# Builds h2spec, once per version, and prints where it lies as the only line on stdout. It is kept outside target/, so
# neither `cargo clean` nor a new clone builds it again. A file that exists is complete: it appears by a rename.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

die() { echo "h2spec build: $*" >&2; exit 1; }

hash=$(cat go.mod go.sum build.sh | sha256sum | cut -c1-16)
base="${XDG_CACHE_HOME:-$HOME/.cache}/spillway"
program="$base/h2spec-$hash"
if [[ -x $program ]]; then echo "$program"; exit 0; fi

command -v go >/dev/null || die "Go is not installed. Go 1.24 or newer builds h2spec: https://go.dev/dl/"
export GOTOOLCHAIN=local CGO_ENABLED=0
mkdir -p "$base"
exec 9>"$base/h2spec.lock"
flock 9
if [[ ! -x $program ]]; then
    go build -trimpath -buildvcs=false -o "$program.$$" github.com/summerwind/h2spec/cmd/h2spec 1>&2
    mv "$program.$$" "$program"
fi
echo "$program"
