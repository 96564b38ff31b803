#!/usr/bin/env bash
# Builds the real Kubernetes programs the cluster tests run, once per set of sources, and prints their directory as
# the only line on stdout; progress goes to stderr. Cold it takes minutes (about 5 on two cores), later nothing.
#
# They are kept outside target/, so neither `cargo clean` nor a new clone builds them again. A directory that exists
# is complete: it appears by a rename. Two callers at once: the second waits for the first.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")"

readonly KUBERNETES=v1.34.4
readonly PROGRAMS=(kube-apiserver etcd kubectl kube-controller-manager kube-scheduler hollow-node fake-kubelet)

say() { echo "cluster build: $*" >&2; }
die() { say "$*"; exit 1; }

# Everything that decides the result: versions, our sources, and the flags in this file.
sources() { find go.mod go.sum build.sh cmd -type f \( -name 'go.*' -o -name '*.go' -o -name build.sh \) | LC_ALL=C sort; }
hash=$(sources | xargs sha256sum | sha256sum | cut -c1-16)
base="${XDG_CACHE_HOME:-$HOME/.cache}/spillway"
directory="$base/cluster-$hash"

# Says where the programs are. The touch keeps a build in use from the clean-up below.
finish() { touch "$directory"; echo "$directory"; exit 0; }
if [[ -d $directory ]]; then finish; fi

command -v go >/dev/null || die "Go is not installed. Go 1.24 or newer builds the real Kubernetes programs: https://go.dev/dl/"
export GOTOOLCHAIN=local CGO_ENABLED=0
version=$(go env GOVERSION)
minor=$(sed -nE 's/^go1\.([0-9]+).*/\1/p' <<<"$version")
[[ -n $minor && $minor -ge 24 ]] || die "Go 1.24 or newer is needed, this is ${version:-unknown}: https://go.dev/dl/"

mkdir -p "$base"
exec 9>"$base/cluster.lock"
flock 9
if [[ -d $directory ]]; then finish; fi

# Without a version the server calls itself v0.0.0, and clients that compare versions misbehave.
flags="-s -w"
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$KUBERNETES -X $package.gitMajor=1 -X $package.gitMinor=34 -X $package.gitCommit=spillway"
done

temporary=$(mktemp -d "$base/building.XXXXXX")
trap 'rm -rf "$temporary"' EXIT
started=$SECONDS
for program in "${PROGRAMS[@]}"; do
    say "$program ($((SECONDS - started)) s so far)"
    nice -n 10 go build -trimpath -buildvcs=false -ldflags "$flags" -o "$temporary/$program" "./cmd/$program" 1>&2
done
chmod 755 "$temporary"
mv -T "$temporary" "$directory"
say "done in $((SECONDS - started)) s"
# A build is 440 MB, and each version of the sources leaves one.
find "$base" -maxdepth 1 -name 'cluster-????????????????' -mtime +30 -exec rm -rf {} +
finish
