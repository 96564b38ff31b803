#!/usr/bin/env bash
# CPU cost per proxied request, side by side in one run: TLS + HTTP/2 from the client, TLS to the upstream.
# usage: peers.sh WORKDIR [PEER...]      peers: direct haproxy envoy nginx nghttpx, and any script peer-NAME.sh beside this file
# Each peer listens on 127.0.0.1:7500 with one worker; the upstream is nghttpd on 127.0.0.1:7443.
# SHAPE=plain (default): one URL, no credential. SHAPE=varied: 3,000 query strings, a kubelet's headers and a signed 900-byte
# service-account token, which is what Kubernetes traffic looks like and what HPACK cannot index.
# Figures: requests/s, proxy CPU microseconds per request (user+system, from /proc), mean and max latency as h2load tells.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd); work=$1; shift
peers=("$@"); [ ${#peers[@]} -gt 0 ] || peers=(direct nghttpx haproxy envoy nginx)
n=${N:-60000} clients=${CLIENTS:-20} streams=${STREAMS:-5} rounds=${ROUNDS:-3} size=${SIZE:-1500}
certs=$work/certs; "$here/gen-certs.sh" "$certs"
root=$work/root; path=api/v1/namespaces/default/pods/p; mkdir -p "$root/$(dirname $path)"; head -c "$size" /dev/zero | tr '\0' x > "$root/$path"
pids=(); trap 'for p in "${pids[@]}"; do kill "$p" 2>/dev/null || true; done' EXIT
load=("https://127.0.0.1:PORT/$path")
if [ "${SHAPE:-plain}" = varied ]; then
  token=$("$here/token.sh" "$certs")
  for i in $(seq 3000); do echo "https://127.0.0.1:PORT/$path?resourceVersion=$((i * 7919))&timeoutSeconds=$((300 + i % 300))"; done > "$work/urls.PORT"
  load=(-i "$work/urls.PORT" -H "authorization: Bearer $token" -H 'user-agent: kubelet/v1.34.4 (linux/amd64) kubernetes/cc4b4d6'
    -H 'accept: application/vnd.kubernetes.protobuf,application/json' -H 'accept-encoding: gzip')
fi
h2() { # port requests: runs h2load
  local args=("${load[@]//PORT/$1}")
  [ -f "$work/urls.PORT" ] && sed "s/PORT/$1/" "$work/urls.PORT" > "$work/urls.$1"
  h2load -n "$2" -c "$clients" -m "$streams" "${args[@]}" 2>&1
}
nghttpd -n1 -d "$root" --no-content-length 7443 "$certs/server.key" "$certs/server.crt" >/dev/null 2>&1 & pids+=($!)
sleep .5
cat > "$work/haproxy.cfg" <<C
global
  nbthread 1
  tune.ssl.default-dh-param 2048
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:7500 ssl crt $certs/server.pem alpn h2,http/1.1
  default_backend b
backend b
  http-reuse always
  server s 127.0.0.1:7443 ssl verify required ca-file $certs/ca.crt sni str(localhost) alpn h2
C
cat > "$work/nginx.conf" <<C
worker_processes 1; pid $work/nginx.pid; error_log $work/nginx.err; daemon off;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000;
 upstream u { server 127.0.0.1:7444; keepalive 200; keepalive_requests 100000000; }
 server { listen 127.0.0.1:7500 ssl http2; ssl_certificate $certs/server.crt; ssl_certificate_key $certs/server.key;
  location / { proxy_pass https://u; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_ssl_verify on; proxy_ssl_trusted_certificate $certs/ca.crt; proxy_ssl_name localhost; proxy_ssl_server_name on; proxy_ssl_session_reuse on; } } }
C
cat > "$work/nginx-up.conf" <<C
worker_processes 1; pid $work/nginx-up.pid; error_log $work/nginx-up.err; daemon off;
events { worker_connections 4096; }
http { access_log off; keepalive_requests 100000000; sendfile on; open_file_cache max=100;
 server { listen 127.0.0.1:7444 ssl; ssl_certificate $certs/server.crt; ssl_certificate_key $certs/server.key; root $root; } }
C
cat > "$work/envoy.yaml" <<C
static_resources:
  listeners:
  - address: {socket_address: {address: 127.0.0.1, port_value: 7500}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates: [{certificate_chain: {filename: $certs/server.crt}, private_key: {filename: $certs/server.key}}]
      filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: p
          generate_request_id: false
          route_config: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: up}}]}]}
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: up
    connect_timeout: 5s
    type: STATIC
    circuit_breakers: {thresholds: [{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}]}
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 7443}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        sni: localhost
        common_tls_context: {alpn_protocols: [h2], validation_context: {trusted_ca: {filename: $certs/ca.crt}}}
C
start() { # prints the pid of the proxy to measure
  case $1 in
    direct) echo 0;;
    haproxy) haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 & echo $!;;
    envoy) "${ENVOY:-envoy}" -c "$work/envoy.yaml" --concurrency 1 -l error --use-dynamic-base-id >"$work/envoy.log" 2>&1 & echo $!;;
    nghttpx) nghttpx --conf=/dev/null -n1 -f127.0.0.1,7500 -b'127.0.0.1,7443;/;proto=h2;tls;sni=localhost' --cacert="$certs/ca.crt" --errorlog-file="$work/nghttpx.log" --accesslog-file=/dev/null "$certs/server.key" "$certs/server.crt" >/dev/null 2>&1 & echo $!;;
    nginx) nginx -c "$work/nginx.conf" >"$work/nginx.log" 2>&1 & echo $!;;
    *) CERTS=$certs WORK=$work "$here/peer-$1.sh" >"$work/$1.log" 2>&1 & echo $!;;
  esac
}
tree() { local p=$1; echo "$p"; for c in $(pgrep -P "$p" || true); do tree "$c"; done; }
cpu() { local t=0 u; for p in $(tree "$1"); do u=$(awk '{sub(/.*\) /,""); print $12+$13}' "/proc/$p/stat" 2>/dev/null || echo 0); t=$((t+u)); done; echo $t; }
rss() { local t=0 u; for p in $(tree "$1"); do u=$(awk '/VmRSS/{print $2}' "/proc/$p/status" 2>/dev/null || echo 0); t=$((t+u)); done; echo $t; }
nginx -c "$work/nginx-up.conf" >/dev/null 2>&1 & pids+=($!)
printf '%-10s %6s %10s %14s %12s %12s %8s\n' peer round req/s cpu_us/req mean_lat max_lat rss_MB
for r in $(seq 1 "$rounds"); do for p in "${peers[@]}"; do
  port=7500; [ "$p" = direct ] && port=7443
  pid=$(start "$p"); [ "$pid" != 0 ] && pids+=("$pid")
  for _ in $(seq 50); do curl -sk -o /dev/null "https://127.0.0.1:$port/$path" && break; sleep .1; done
  [ "$pid" = 0 ] || kill -0 "$pid" 2>/dev/null || { echo "$p did not start:"; cat "$work/$p.log"; exit 1; } >&2
  h2 "$port" 3000 >/dev/null
  a=0; [ "$pid" != 0 ] && a=$(cpu "$pid")
  out=$(h2 "$port" "$n")
  b=0 m=0; [ "$pid" != 0 ] && { b=$(cpu "$pid"); m=$(rss "$pid"); }
  [ "$(grep -oP '(?<=status codes: )[0-9]+' <<<"$out")" = "$n" ] || echo "$p: $(grep 'status codes' <<<"$out")" >&2
  rps=$(grep -oP 'finished in .*?, \K[0-9.]+(?= req/s)' <<<"$out"); ok=$(grep -oP '[0-9]+(?= succeeded)' <<<"$out")
  lat=$(awk '/^time for request:/{print $6, $5}' <<<"$out")
  hz=$(getconf CLK_TCK)
  printf '%-10s %6s %10s %14s %12s %12s %8s %s\n' "$p" "$r" "$rps" "$(awk -v a="$a" -v b="$b" -v n="$ok" -v h="$hz" 'BEGIN{printf "%.1f",(b-a)*1e6/h/n}')" $lat "$((m/1024))" "$([ "$ok" = "$n" ] || echo "ONLY $ok OK")"
  if [ "$pid" != 0 ]; then kill "$pid" 2>/dev/null || true; for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep .1; done; kill -9 "$pid" 2>/dev/null || true; sleep .2; fi
done; done
