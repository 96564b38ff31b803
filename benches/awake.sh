#!/usr/bin/env bash
# benches/awake.sh COMMAND...: runs it while no processor may sleep. On a virtual machine it takes milliseconds to wake one,
# which is more than what is measured, and whoever keeps them busy would look like a benefactor. What keeps them awake has
# the scheduler's idle class: it runs only when nobody else wants to.
set -euo pipefail
spinning=()
trap 'kill "${spinning[@]}" 2>/dev/null || true' EXIT
for _ in $(seq "$(nproc)"); do
  chrt --idle 0 bash -c 'while :; do :; done' &
  spinning+=($!)
done
"$@"
