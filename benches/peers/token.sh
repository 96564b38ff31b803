#!/usr/bin/env bash
# Prints a service-account token of about 900 bytes, signed with a throw-away key; the public key goes to $1/sa.pub.
set -euo pipefail
d=$1
[ -f "$d/sa.key" ] || { openssl genrsa -out "$d/sa.key" 2048 2>/dev/null; openssl rsa -in "$d/sa.key" -pubout -out "$d/sa.pub" 2>/dev/null; }
b64() { base64 -w0 | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
header=$(printf '{"alg":"RS256","typ":"JWT"}' | b64)
claims=$(printf '{"iss":"https://kubernetes.default.svc.cluster.local","aud":["https://kubernetes.default.svc.cluster.local"],"sub":"system:serviceaccount:bench:load","iat":%d,"nbf":%d,"exp":%d,"kubernetes.io":{"namespace":"bench","serviceaccount":{"name":"load","uid":"6f9d2c1e-0000-4000-8000-000000000001"},"node":{"name":"n1","uid":"6f9d2c1e-0000-4000-8000-000000000002"},"pod":{"name":"load-0","uid":"6f9d2c1e-0000-4000-8000-000000000003"},"warnafter":%d}}' "$now" "$now" $((now + 3600)) $((now + 3000)) | b64)
signature=$(printf '%s.%s' "$header" "$claims" | openssl dgst -sha256 -sign "$d/sa.key" -binary | b64)
printf '%s.%s.%s\n' "$header" "$claims" "$signature"
