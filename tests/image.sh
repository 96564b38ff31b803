#!/usr/bin/env bash
# The container image: the static binary as deploy/Dockerfile builds it, small enough and able to run alone, and the
# Dockerfile's last stage, built and started without a container engine (buildah, chroot).
set -euo pipefail
cd "$(dirname "$0")/.."

# What a node pulls (compressed), and what it unpacks.
readonly TARGET=x86_64-unknown-linux-musl PULLED_MAX=7000000 UNPACKED_MAX=15000000
fail() { echo "image: $*" >&2; exit 1; }

if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx $TARGET; then rustup target add $TARGET; fi
cargo build --profile image --locked --quiet --bin spillway --target $TARGET
binary=$(realpath "${CARGO_TARGET_DIR:-target}")/$TARGET/image/spillway

unpacked=$(stat -c %s "$binary") pulled=$(gzip -c "$binary" | wc -c)
echo "   $unpacked bytes, $pulled of them when it is pulled"
[ "$unpacked" -le $UNPACKED_MAX ] || fail "$binary has $unpacked bytes, $UNPACKED_MAX are the most"
[ "$pulled" -le $PULLED_MAX ] || fail "$binary has $pulled bytes compressed, $PULLED_MAX are the most"
! readelf -l "$binary" | grep -q INTERP || fail "$binary needs a dynamic loader: it is not static"

here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
mkdir "$here/build" "$here/empty"
cp "$binary" "$here/build/spillway"
buildah() { command buildah --storage-driver vfs --root "$here/storage" --runroot "$here/run" "$@"; }
# A context called as the first stage stands for it, so nothing is fetched: the binary is built already.
buildah bud --quiet --isolation chroot --build-context build="$here/build" -f deploy/Dockerfile -t spillway "$here/empty" >/dev/null
container=$(buildah from spillway)
# Nothing else is in it: no shell, no libc.
root=$(buildah mount "$container")
[ "$(find "$root" -type f | wc -l)" = 1 ] || fail "the image holds more than one file: $(find "$root" -type f | head)"
cp config/spillway.yaml config/policy.yaml "$root/"
buildah run --isolation chroot --user 65532 "$container" -- /spillway --version
buildah run --isolation chroot --user 65532 "$container" -- /spillway validate --skip-files /spillway.yaml /policy.yaml
buildah umount "$container" >/dev/null

"$binary" demo --headless
