#!/usr/bin/env bash
# Builds Helm once per version, and prints its path as the only line on stdout; progress goes to stderr. Cold it takes
# minutes, later nothing. Kept outside target/, as the cluster's programs are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

hash=$(cat go.mod go.sum build.sh | sha256sum | cut -c1-16)
base="${XDG_CACHE_HOME:-$HOME/.cache}/spillway"
directory="$base/helm-$hash"
finish() { touch "$directory"; echo "$directory/helm"; exit 0; }
if [[ -d $directory ]]; then finish; fi

command -v go >/dev/null || { echo "helm build: Go is not installed. Go 1.24 or newer builds Helm: https://go.dev/dl/" >&2; exit 1; }
mkdir -p "$base"
exec 9>"$base/helm.lock"
flock 9
if [[ -d $directory ]]; then finish; fi

temporary=$(mktemp -d "$base/building.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
echo "helm build: minutes, once" >&2
# Without these it takes itself for a Helm of Kubernetes 1.20, and refuses charts that ask for more.
flags="-s -w"
for package in pkg/lint/rules pkg/chartutil; do
    flags+=" -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=34"
done
GOTOOLCHAIN=local CGO_ENABLED=0 nice -n 10 \
    go build -trimpath -buildvcs=false -ldflags "$flags" -o "$temporary/helm" helm.sh/helm/v3/cmd/helm 1>&2
chmod 755 "$temporary"
mv -T "$temporary" "$directory"
find "$base" -maxdepth 1 -name 'helm-????????????????' -mtime +30 -exec rm -rf {} +
finish
