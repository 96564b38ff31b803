#!/usr/bin/env bash
# Does the unit work under systemd itself? It is process 1 of namespaces of its own, with a file system in memory where it would
# write; the machine's own services are not touched. Needs root, as namespaces do.
#   tests/systemd.sh PROGRAM
set -euo pipefail
program=$(realpath "$1")
here=$(mktemp -d) holder=
# Whoever is process 1 of a namespace takes its processes along.
end() {
  if [ -n "$holder" ]; then kill -9 "$holder" && wait "$holder"; fi 2>/dev/null || true
  rm -rf "$here"
}
trap end EXIT
fail() { echo "systemd: $*" >&2; tail -20 "$here/log" >&2; [ -z "${init:-}" ] || inside tail -20 /run/said >&2; exit 1; }
wait_for() { # what, command...: at most a minute
  local what=$1 until=$((SECONDS + 60)); shift
  until "$@"; do [ $SECONDS -lt $until ] || fail "waited in vain for $what"; sleep 0.2; done
}

mkdir -p "$here/pki" "$here/etc" "$here/bin"
cp "$program" "$here/bin/spillway"
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key" && chmod 600 "$1.key"; }
(
  cd "$here/pki"
  for ca in ca front-proxy-ca break-glass-ca; do
    key $ca
    openssl req -x509 -key $ca.key -subj "/CN=$ca" -days 90 -out $ca.crt
  done
  signed() { # name, CA, common name, extensions
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$3" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA "$2.crt" -CAkey "$2.key" -CAcreateserial -days 90 -extfile <(echo "$4") -out "$1.crt"
  }
  signed apiserver ca kube-apiserver "subjectAltName=IP:127.0.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc"
  signed front-proxy-client front-proxy-ca front-proxy-client "extendedKeyUsage=clientAuth"
  key sa && openssl ec -in sa.key -pubout -out sa.pub
  mv break-glass-ca.crt "$here/etc/"
  rm -f ./*.csr ca.key front-proxy-ca.key
) 2>"$here/log" || fail "certificates were not made"
"$program" manifest systemd > "$here/spillway.service"
# As the unit says: keys are systemd's copies.
"$program" manifest config --node-address 127.0.0.1 --mode side-port |
  sed -E 's#/etc/kubernetes/pki/([a-z-]+)\.key#/run/credentials/spillway.service/\1.key#' > "$here/etc/spillway.yaml"
"$program" manifest policy > "$here/etc/policy.yaml"

cat > "$here/boot" <<'BOOT'
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/here && cp -a "$1/." /mnt/here && cp -a /etc /mnt/etc
mkdir -p /mnt/etc/kubernetes /mnt/etc/spillway
cp -a /mnt/here/pki /mnt/etc/kubernetes/ && cp -a /mnt/here/etc/. /mnt/etc/spillway/
for folder in /run /tmp /var/lib; do mount -t tmpfs tmpfs $folder; done
mount --bind /mnt/etc /etc
mount --bind /mnt/here/bin /usr/local/bin
# Nothing of the machine can be set from in here.
mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys
umount -R /sys/fs/cgroup 2>/dev/null || umount -l /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p /run/systemd/system/spillway.service.d
cp /mnt/here/spillway.service /run/systemd/system/
# A hang is to be seen within seconds, not half a minute, and there is no journal.
printf '[Unit]\nDefaultDependencies=no\n[Service]\nWatchdogSec=4\nStandardOutput=append:/run/said\nStandardError=append:/run/said\n' > /run/systemd/system/spillway.service.d/test.conf
printf '[Unit]\nDefaultDependencies=no\n' > /run/systemd/system/test.target
# As container engines have it: what systemd mounts for a service in a child, credentials, is seen by itself.
mount --make-rshared /
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=test.target --log-target=console
BOOT
unshare --pid --fork --kill-child --mount --mount-proc --cgroup --net --uts --ipc sh "$here/boot" "$here" </dev/null >"$here/log" 2>&1 &
holder=$!
first() { init=$(pgrep -P "$holder") && [ "$(cat "/proc/$init/comm")" = systemd ]; }
inside() { nsenter --target "$init" --pid --mount --net --ipc --uts "$@"; }
wait_for "systemd" first
wait_for "systemd's socket" inside test -S /run/systemd/private
systemctl() { inside systemctl "$@"; }
shown() { systemctl show --value -p "$1" spillway; }

systemctl start spillway || fail "it did not start: $(systemctl status spillway)"
[ "$(shown ActiveState)" = active ] || fail "started, and $(shown ActiveState)"
[ -n "$(shown StatusText)" ] || fail "it says nothing of itself"
main=$(shown MainPID)
status=$(inside cat "/proc/$main/status")
grep -q $'^CapEff:\t0*$' <<<"$status" || fail "it has capabilities: $status"
! grep -qP '^Uid:\t0\t' <<<"$status" || fail "it runs as root"
# The key that it serves with is systemd's copy: its own user cannot read root's.
inside openssl s_client -connect 127.0.0.1:7443 -CAfile /etc/kubernetes/pki/ca.crt -verify_return_error </dev/null >/dev/null 2>&1 ||
  fail "no TLS with the key that LoadCredential gave it"

before=$(shown WatchdogTimestampMonotonic)
later() { [ "$(shown WatchdogTimestampMonotonic)" -gt "$before" ]; }
wait_for "a sign of life" later

if [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -ge 253 ]; then
  systemctl reload spillway || fail "a reload did not end"
else
  systemctl kill --kill-whom=main -s HUP spillway
fi
before=$(shown WatchdogTimestampMonotonic)
wait_for "a sign of life after a reload" later
[ "$(shown MainPID)" = "$main" ] || fail "a reload started it anew"

inside kill -STOP "$main"
another() { [ "$(shown MainPID)" != "$main" ] && [ "$(shown ActiveState)" = active ]; }
wait_for "the watchdog to start another one instead of one that hangs" another
[ "$(shown NRestarts)" = 1 ] || fail "$(shown NRestarts) restarts instead of one"
systemctl stop spillway
[ "$(shown ActiveState)" = inactive ] || fail "stopped, and $(shown ActiveState): $(shown Result)"
echo "   started, alive, read again, started anew when it hung, stopped"
