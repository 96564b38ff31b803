#!/usr/bin/env bash
# Builds kubeadm once per version of these sources, and prints its path as the only line on stdout; progress goes to
# stderr. Apart from tests/cluster, so that neither builds the other anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly KUBERNETES=v1.34.4
hash=$(cat go.mod go.sum main.go build.sh | sha256sum | cut -c1-16)
base="${XDG_CACHE_HOME:-$HOME/.cache}/spillway"
program="$base/kubeadm-$hash"
if [[ -x $program ]]; then touch "$program"; echo "$program"; exit 0; fi

command -v go >/dev/null || { echo "kubeadm build: Go is not installed. Go 1.24 or newer builds it: https://go.dev/dl/" >&2; exit 1; }
mkdir -p "$base"
temporary=$(mktemp -d "$base/building.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
echo "kubeadm build: half a minute after the cluster's programs, minutes without them; once" >&2
version="-X k8s.io/component-base/version.gitVersion=$KUBERNETES -X k8s.io/component-base/version.gitMajor=1"
version+=" -X k8s.io/component-base/version.gitMinor=34"
GOTOOLCHAIN=local CGO_ENABLED=0 nice -n 10 \
    go build -trimpath -buildvcs=false -ldflags "-s -w $version" -o "$temporary/kubeadm" . 1>&2
# A program that exists is complete: it appears by a rename.
mv -T "$temporary/kubeadm" "$program"
find "$base" -maxdepth 1 -name 'kubeadm-*' -mtime +30 -delete
echo "$program"
