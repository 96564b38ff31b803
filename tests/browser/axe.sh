#!/usr/bin/env bash
# Prints the path of axe.min.js, fetched once through npm into the user's cache and checked against its published digest.
# It is a tool of the tests (MPL-2.0) and no part of spillway.
set -euo pipefail
version=4.14.1
digest='FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=='
cache=${XDG_CACHE_HOME:-$HOME/.cache}/spillway/axe-core-$version
if [ ! -s "$cache/axe.min.js" ]; then
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  (cd "$work" && npm pack --silent "axe-core@$version" >/dev/null)
  [ "$(openssl dgst -sha512 -binary "$work"/axe-core-*.tgz | base64 -w0)" = "$digest" ] ||
    { echo "axe-core $version is not what was published: digest differs" >&2; exit 1; }
  tar -xzf "$work"/axe-core-*.tgz -C "$work"
  mkdir -p "$cache"
  cp "$work/package/LICENSE" "$cache/"
  # Moved last: whoever runs beside us sees it whole or not at all.
  cp "$work/package/axe.min.js" "$cache/axe.$$" && mv "$cache/axe.$$" "$cache/axe.min.js"
fi
printf '%s\n' "$cache/axe.min.js"
