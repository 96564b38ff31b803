#!/usr/bin/env bash
# Sends the corpus of tests/it/framing to HAProxy as well, and prints where it and spillway differ, as a table.
# Not part of `make test`: what HAProxy takes is its own affair. Needs root once, to install it.
set -euo pipefail
cd "$(dirname "$0")/../.."

if ! command -v haproxy >/dev/null; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq haproxy >/dev/null
fi
haproxy -v | head -1
SPILLWAY_HAPROXY=$(command -v haproxy) \
  cargo test --locked --test it --quiet -- --nocapture framing::haproxy::
