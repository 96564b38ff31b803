#!/usr/bin/env bash
# spillway as a peer of peers.sh: one shard, the default rules, classification and scheduling on for every request.
# What differs from a production configuration, and why:
#  - unverifiedProtocol Http2: the upstream here speaks only HTTP/2, and is no kube-apiserver that closes connections;
#  - no rate per client, and room to wait: the load generator is one client that shall use the whole proxy.
#  - the limit starts at 256 seats: a run lasts a second, the limit's growth from 64 to what 100 requests in flight need, three.
# $SPILLWAY = the binary; $CERTS and $WORK come from peers.sh.
set -euo pipefail
"$(dirname "$0")/token.sh" "$CERTS" >/dev/null
cat > "$WORK/spillway.yaml" <<C
apiVersion: config.spillway.dev/v1alpha1
kind: ProxyConfiguration
listeners:
  - name: main
    address: 127.0.0.1:7500
    tls: { certFile: $CERTS/server.crt, keyFile: $CERTS/server.key }
authentication:
  clientCertificate: { caFile: $CERTS/ca.crt }
  serviceAccountToken:
    issuers: [https://kubernetes.default.svc.cluster.local]
    publicKeyFiles: [$CERTS/sa.pub]
upstreams:
  servers: [{ name: bench, url: "https://127.0.0.1:7443" }]
  tls: { caFile: $CERTS/ca.crt, serverName: localhost }
  forwardIdentity:
    frontProxy: { certFile: $CERTS/front-proxy.crt, keyFile: $CERTS/front-proxy.key }
    unverifiedProtocol: Http2
runtime: { mode: ${MODE:-Sharded}, shards: 1 }
metrics: { address: 127.0.0.1:7510 }
---
apiVersion: config.spillway.dev/v1alpha1
kind: TrafficPolicy
name: bench
overload: { limit: { initial: 256 } }
lanes:
  unknown: { ceilingPercent: 100, wait: 2s, queueLength: 1000, identityRate: { perSecond: 0 } }
  workload: { ceilingPercent: 100, wait: 2s, queueLength: 1000, identityRate: { perSecond: 0 } }
C
exec "${SPILLWAY:?set SPILLWAY to the binary}" run --config "$WORK/spillway.yaml"
