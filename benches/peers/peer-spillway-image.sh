#!/usr/bin/env bash
# The same with the binary of the container image, which is optimised for size: $SPILLWAY_IMAGE.
set -euo pipefail
SPILLWAY=${SPILLWAY_IMAGE:?set SPILLWAY_IMAGE to the static binary} exec "$(dirname "$0")/peer-spillway.sh"
