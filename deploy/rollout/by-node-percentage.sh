#!/usr/bin/env bash
# Rolls a DaemonSet out over 1, 5, 25, 50 and 100 % of the nodes. Between two steps `spillway gate` watches kube-apiserver; when it
# is not well, the last step is taken back and everything stops. No Helm, no controller: kubectl and labels on nodes.
#
#   kubectl apply -f otel-collector.yaml            # its nodeSelector is {"rollout.spillway.dev/otel-collector": "on"}
#   deploy/rollout/by-node-percentage.sh -n monitoring otel-collector
#   deploy/rollout/by-node-percentage.sh -n monitoring otel-collector -- --for 10m --metrics http://10.0.0.11:10270/metrics
#   deploy/rollout/by-node-percentage.sh -n monitoring otel-collector --undo      # off all nodes
#
# What stands behind -- goes to `spillway gate`; without it, gate asks the spillway of this machine for 5 minutes a step.
# Run again after a stop, it goes on where it stopped. Other programs: KUBECTL, SPILLWAY. Other steps: STAGES="10 100".
# Ends with 0 when all nodes have it, 1 when it was stopped, 2 for a wrong command line.
set -euo pipefail

kubectl=${KUBECTL:-kubectl} spillway=${SPILLWAY:-spillway} stages=${STAGES:-1 5 25 50 100}
namespace=default name='' undo=no gate=()
die() { echo "rollout: $*" >&2; exit 2; }
say() { echo "rollout: $*"; }

while [ $# -gt 0 ]; do
  case $1 in
    -n | --namespace) [ $# -gt 1 ] || die "-n needs a namespace"; namespace=$2; shift 2 ;;
    --undo) undo=yes; shift ;;
    --) shift; gate=("$@"); break ;;
    -*) die "$1 is not known; the first lines of this file say what is" ;;
    *) [ -z "$name" ] || die "one DaemonSet, not $name and $1"; name=$1; shift ;;
  esac
done
[ -n "$name" ] || die "name the DaemonSet: $0 -n monitoring otel-collector"
for stage in $stages; do [[ $stage =~ ^[0-9]+$ && $stage -ge 1 && $stage -le 100 ]] || die "STAGES: $stage is no percentage"; done

label=rollout.spillway.dev/$name
selector=$("$kubectl" get daemonset -n "$namespace" "$name" -o jsonpath='{.spec.template.spec.nodeSelector}') || exit 1
[[ $selector == *"\"$label\":\"on\""* ]] || die "$namespace/$name would run on every node at once: its pods need
  nodeSelector: {\"$label\": \"on\"}"

# One number for each name, the same at every run: a step is spread over racks and zones, and goes on where the last one stopped.
all() { "$kubectl" get nodes -o name | sort | sort -R --random-source=<(yes "$name"); }
on() { "$kubectl" get nodes -l "$label=on" -o name; }
take_back() { [ $# -eq 0 ] || "$kubectl" label "$@" "$label-" >/dev/null; }
desired() { "$kubectl" get daemonset -n "$namespace" "$name" -o jsonpath='{.status.desiredNumberScheduled}'; }
put_on() {
  local before; before=$(desired) || return
  "$kubectl" label "$@" "$label=on" --overwrite >/dev/null || return
  # The controller has to see the labels first, else `rollout status` is content with what was. Nodes whose taints keep the
  # pods away never show: then this waits in vain, and goes on.
  for _ in {1..20}; do [ "$(desired)" = "$before" ] || break; sleep 1; done
  "$kubectl" rollout status -n "$namespace" "daemonset/$name" --timeout=5m >/dev/null
}

if [ $undo = yes ]; then
  mapfile -t nodes < <(on)
  take_back "${nodes[@]}"
  say "off ${#nodes[@]} nodes"
  exit 0
fi

mapfile -t nodes < <(all)
[ ${#nodes[@]} -gt 0 ] || die "there are no nodes"
for stage in $stages; do
  # Rounded up: 1 % of 20 nodes is one.
  wanted=$(((${#nodes[@]} * stage + 99) / 100))
  has=$(on)
  batch=()
  for node in "${nodes[@]:0:wanted}"; do
    grep -qxF "$node" <<<"$has" || batch+=("$node")
  done
  [ ${#batch[@]} -gt 0 ] || continue
  say "$stage %: $wanted of ${#nodes[@]} nodes, ${#batch[@]} new"
  # A step whose pods do not start proves nothing, and one that kube-apiserver cannot carry fails here or at the gate.
  if put_on "${batch[@]}" && "$spillway" gate "${gate[@]}"; then continue; fi
  take_back "${batch[@]}" || say "could NOT be taken back; when kube-apiserver answers: $0 -n $namespace $name --undo"
  say "STOPPED at $stage %: taken back from ${#batch[@]} nodes; $((wanted - ${#batch[@]})) keep it"
  say "next: spillway status; then run this again, or with --undo"
  exit 1
done
say "done: all ${#nodes[@]} nodes"
