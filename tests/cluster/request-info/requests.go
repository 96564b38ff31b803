package main

import (
	"fmt"
	"strings"
)

// asked is one request line.
type asked struct{ method, target string }

// generated is how many random requests follow the tables.
const generated = 9_900

// fixed are the verdict tables of the threat model and of the protocol notes: all of them with GET, the resources
// among them with every method.
var fixed = []string{
	"/", "//", "/api", "/api/", "/api/v1", "/api/v1/", "/apis", "/apis/apps", "/apis/apps/v1", "/apis/apps/v1/",
	"/api/version/", "/apis/group/version/", "/badprefix/v/r", "/apis/version/resource", "/apis/v/r/",
	"/healthz", "/healthz/", "/livez", "/livez/etcd", "/readyz?verbose", "/version", "/version/", "/metrics",
	"/openapi/v2", "/openapi/v3/apis/apps/v1", "/openid/v1/jwks", "/.well-known/openid-configuration",
	"/debug/pprof", "/debug/pprof/", "/debug/pprof/profile?seconds=1", "/debug/pprofx/", "/a/b/exec",
	"/api/v1/namespaces", "/api/v1/namespaces/other", "/api/v1/namespaces/other/", "/api/v1/namespaces//pods",
	"/api/v1/namespaces/other/status", "/api/v1/namespaces/other/finalize", "/api/v1/namespaces/n/finalize/x",
	"/api/v1/namespaces/n/status/x/y", "/api/v1/namespaces/other/pods", "/api/v1/namespaces/other/pods/foo",
	"/api/v1/namespaces/other/pods/foo/status", "/api/v1/namespaces/other/pods/foo/proxy/subpath",
	"/api/v1/namespaces/n/pods/p/exec?command=sh", "/api/v1/namespaces/n/pods/p/attach",
	"/api/v1/namespaces/n/pods/p/portforward", "/api/v1/namespaces/n/pods/p/log?follow=false",
	"/api/v1/namespaces/n/services/https:s:443/proxy/a/b", "/api/v1/nodes/n1/proxy/metrics",
	"/api/v1/namespaces/d/pods/x%2Fexec", "/api/v1%2Fnamespaces", "/api/v1/%70ods", "/api%2fv1%2fpods",
	"/api/v1/namespaces/a%2Fb/pods", "/api/v1/namespaces/a%2F..%2Fx/pods", "/api/v1/namespaces/a%252Fb/pods",
	"/api/v1/pods/", "/api/v1/pods//", "//api/v1/pods", "/api//v1/pods", "/api/v1//pods", "/api/v1/./pods",
	"/api/v1/../v1/pods", "/api/v1/%2e%2e/pods", "/api/v1/pods/%2e", "/api/v1/pods/..", "/API/v1/pods",
	"/healthz/../api/v1/pods", "/apis//v1/pods", "/api/v1/pods;x=1", "/api/v1/pods%3Fwatch=1", "/api/v1/pods%00",
	"/api/v1/pods%ff", "/api/v1/pods/%zz", "/api/v1/pods/%", "/api/v1/pods/%2", "/api/v1/po+ds", "/api/v1/po%2Bds",
	"/api/v1/watch", "/api/v1/watch/", "/api/v1/proxy", "/apis/g/v/watch", "/api/v1/watch/pods",
	"/api/v1/watch/pods?watch=0", "/api/v1/watch/namespaces", "/api/v1/watch/namespaces/other",
	"/api/v1/watch/namespaces/other/pods", "/api/v1/watch/namespaces/other/pods/foo", "/api/v1/watch/watch/pods",
	"/api/v1/proxy/namespaces/other/pods/foo", "/api/v1/proxy/namespaces/other/pods/foo/subpath/x",
	"/api/v1/proxy/nodes/n", "/api/v1/proxy/watch/pods", "/apis/g/v/watch/r?fieldSelector=metadata.name=foo",
	"/apis/g/v/watch/r/name", "/apis/apps/v1/namespaces/n/deployments/d/scale",
	"/apis/example.com/v1alpha1/namespaces/n/widgets/w", "/apis/example.com/v1alpha1/widgets/w/status",
	"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "/api/v1/namespaces/n/pods/p/eviction",
	"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1", "/apis/batch/v1/job/foo/scale",
	"/api/v1/namespaces/n/serviceaccounts/sa/token", "/api/v1/namespaces/n/pods/p?watch=true",
	"http://x/api/v1/pods?watch=1", "http://x//api/v1/pods", "http://x/api/v1/namespaces/a%2Fb",
}

// queries follow a list of pods, of one group's resources, and a named object.
var queries = []string{
	"watch=true", "watch=True", "watch=false", "watch=False", "watch=FALSE", "watch=0", "watch=00", "watch=1",
	"watch=t", "watch=f", "watch=F", "watch=yes", "watch=no", "watch", "watch=", "WATCH=1", "Watch=1", "w%61tch=1",
	"watch=%30", "watch=+0", "watch=0+", "watch=fal%73e", "watch=fal%C5%BFe", "limit=x&watch=fal%C5%BFe",
	"watch=0&watch=1", "watch=1&watch=0", "watch=%zz&watch=1", "watch=1;x=1", "watch=false;timeoutSeconds=1",
	";watch=1", "watch=1&;", "&&watch=1&&", "=1&watch=1", "=&=&watch", "watch=1=2", "watch%3D1", "watch%26=1",
	"x=%zz&watch=1", "%zz=1&watch=1", "%zz&watch", "?watch=1", "watch=1?", "watch=1#x", "x=%23&watch=1",
	"limit=500", "limit=abc", "limit=abc&watch=1", "limit=abc&watch=no", "limit=", "limit", "limit=+5", "limit=-1",
	"limit=0", "limit=0x10", "limit=1_000", "limit=9223372036854775807", "limit=9223372036854775808", "limit=5&limit=6",
	"limit=%35", "limit=+5&watch=0", "limit=1.5", "limit=%205", "timeoutSeconds=x&fieldSelector=metadata.name=a",
	"timeoutSeconds=&watch=1", "timeoutSeconds=300&watch=1", "resourceVersion=0", "resourceVersion=", "resourceVersion=7",
	"resourceVersion=0&resourceVersion=7", "resourceVersionMatch=Exact&resourceVersion=5", "continue=abc", "continue=",
	"sendInitialEvents=true&watch=1", "sendInitialEvents=0&watch=1", "sendInitialEvents&watch", "allowWatchBookmarks=x",
	"fieldSelector=metadata.name=a", "fieldSelector=metadata.name%3Da", "fieldSelector=metadata.name==a",
	"fieldSelector=metadata.name!=a", "fieldSelector=metadata.name=b,metadata.name=a",
	"fieldSelector=metadata.name==b,metadata.name=a", "fieldSelector=,metadata.name=a,", "fieldSelector=,",
	"fieldSelector=metadata.name=a%5C,b", "fieldSelector=metadata.name=a%5Cb", "fieldSelector=metadata.name=a%5C",
	"fieldSelector=metadata.name=a%5C=b", "fieldSelector=metadata.name=a=b", "fieldSelector=metadata.name=a,foo",
	"fieldSelector=metadata.name=..", "fieldSelector=metadata.name=.", "fieldSelector=metadata.name=a%252Fb",
	"fieldSelector=metadata.name=a%2Fb", "fieldSelector=metadata.name=", "fieldSelector=metadata.name",
	"fieldSelector=metadata.name=,metadata.name=b", "fieldSelector=!metadata.name=a", "fieldSelector==a",
	"fieldSelector=spec.nodeName=n,metadata.name=a", "fieldSelector=metadata.namespace=a", "fieldSelector= metadata.name=a",
	"fieldSelector=metadata.name=+a", "fieldSelector=metadata.name=%E2%82%AC", "fieldSelector=metadata.name=%ff",
	"fieldSelector=metadata.name=%ff%5C,", "fieldSelector=metadata.name=%80b,metadata.name=%C3%A9",
	"fieldSelector=&fieldSelector=metadata.name=a", "fieldSelector=metadata.name=a&fieldSelector=metadata.name=b",
	"fieldSelector=metadata.name=a&watch=1", "fieldSelector=metadata.name=a&limit=x", "fieldSelector=!=a",
	"fieldSelector=metadata.name=a!=b", "fieldSelector=metadata.name!=a,metadata.name=b", "fieldSelector=metadata.name=!a",
	"fieldSelector=foo=bar&labelSelector=a=b", "labelSelector=a=b", "labelSelector=", "labelSelector", "labelSelector=a",
}

// labels stand beside a field selector that names an object: only if kube-apiserver can read them does the name count.
var labels = []string{
	"", "a", "!a", "a=b", "a==b", "a!=b", "a=", "a!=", "a in (b)", "a in (b,c)", "a in ()", "a in (,)", "a in (b,)",
	"a in (,b)", "a in (b,,c)", "a notin (b)", "a in b", "a in", "in", "in in (in)", "notin notin (notin)", "!in",
	"in=notin", "a,b", "a,", ",a", "a,,b", "a b", "a=b c", "a=b,c!=d,!e,f in (g),h", "a>1", "a<1", "a>b", "a<", "a>-5",
	"a>+5", "a>1,b<2", "a===b", "a=!b", "a!b", "a!!b", "!!a", "! a", "!a=b", "!a in (b)", "!", "=", "=b", "(a)", "a)",
	"a in (b", "a in b)", "a in ((b))", "a in (b))", "a in (=)", "a in (!b)", "a in (b c)", "x/y=z", "x/y/z=a", "/y=z",
	"x/=z", "X.com/y=z", "x.com/Y_z.1-2=v", "x..com/y", "-x/y", "x-/y", "x_y/z", "-a", "a-", "a_", "_a", ".a", "a.b-c_d",
	"a=-b", "a=b-", "a=.b", "a=b.c_d-e", "a=b/c", "a=\u00e9", "\u00e9=a", "a=b\x00c", "a\x00=b", "a=b\tc", " a = b ",
	"a\t=\nb\r", "a =b", "a!= b", "a ! = b", "a= =b", "a=<b", "a=>b", "a<>b", "a=(b)", "a=(b", "a=b(c", "a in(b)", "a in (b)c",
	"a in (b) ,c", "a in (b),", "ain (b)", "a=in", "a=notin", "a=b,a=b", "a,!a", "a in (in,notin)", "a in (a,a,,)",
	strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("a", 63) + "=" + strings.Repeat("b", 63),
	"a=" + strings.Repeat("b", 64), strings.Repeat("x", 253) + "/y", strings.Repeat("x", 254) + "/y",
	"a>9223372036854775807", "a>9223372036854775808", "a<01", "a>1_0", "a>\u0661",
}

// Pieces of random requests. A piece stands more than once where it should come more often.
var (
	methods = []string{"GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET", "GET",
		"GET", "GET", "GET", "GET", "GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "DELETE",
		"OPTIONS", "get", "Post", "delete", "TRACE", "WATCH", "watch", "LIST", "PROXY", "CREATE", "PROPFIND", "X!~"}
	prefixes = []string{"api", "api", "api", "api", "api", "api", "apis", "apis", "apis", "apis", "apis", "apis", "API", "apis2", "", "healthz", "debug", "openapi"}
	groups   = []string{"apps", "batch", "coordination.k8s.io", "example.com", "v1", "watch", "namespaces", "", "..", "a"}
	versions = []string{"v1", "v1", "v1", "v1beta1", "v2alpha1", "watch", "proxy", "namespaces", "", ".", "pods"}
	spaces   = []string{"default", "kube-system", "status", "finalize", "namespaces", "a.b", "", "..", "watch", "n"}
	kinds    = []string{"pods", "pods", "pods", "nodes", "services", "secrets", "leases", "deployments", "widgets",
		"namespaces", "namespaces", "watch", "proxy", "status", "events", "serviceaccounts", "", "."}
	names = []string{"web-1", "node-7", "a", "status", "finalize", "proxy", "https:web:443", "system:node:x", "",
		"..", "log", "exec", "\u00fc", "a b", "x\xffy", "%", "a%2Fb", "a;b", "a+b", "a=b&c", "?"}
	parts = []string{"status", "scale", "exec", "attach", "log", "portforward", "proxy", "token", "eviction", "binding",
		"finalize", "Exec", "logs", "", "ephemeralcontainers"}
	keys = []string{"watch", "watch", "watch", "limit", "limit", "fieldSelector", "fieldSelector", "fieldSelector",
		"labelSelector", "resourceVersion", "resourceVersionMatch", "continue", "timeoutSeconds", "sendInitialEvents",
		"allowWatchBookmarks", "timeout", "pretty", "dryRun", "follow", "command", "Watch", "watch ", "", "x;y", "%"}
	// Half of the values fit their key.
	fitting = map[string][]string{
		"watch":             {"1", "true", "0", "false", "", "no", "False", "t"},
		"limit":             {"500", "1", "0", "-3", "abc", "", "9223372036854775807"},
		"timeoutSeconds":    {"300", "300", "x"},
		"resourceVersion":   {"0", "0", "7", "", "1234567"},
		"continue":          {"abc", ""},
		"sendInitialEvents": {"true", "false", ""},
		"fieldSelector": {"metadata.name=web-1", "metadata.name==a", "metadata.name!=a", "metadata.name=a,spec.nodeName=n",
			"spec.nodeName=n", "metadata.name=b,metadata.name=a", "metadata.name=..", "metadata.name=", "metadata.name",
			"status.phase!=Failed,metadata.name=x", "metadata.name=a\\,b", "metadata.name=a\\", "metadata.name=\u00fc"},
	}
	values = []string{"1", "0", "true", "false", "False", "no", "", "", "500", "-3", "abc", "300", "9223372036854775808",
		"metadata.name=web-1", "metadata.name==a", "metadata.name!=a", "metadata.name=a,spec.nodeName=n",
		"spec.nodeName=n", "metadata.name=b,metadata.name=a", "metadata.name=..", "metadata.name=", "metadata.name",
		"status.phase!=Failed,metadata.name=x", "metadata.name=a\\,b", "metadata.name=a\\", "app=web", "app in (a,b)",
		"a b", "!x", "\xfe", "\u20ac", "a;b", "%", "0x1", "NotOlderThan", "eyJ2IjoiMSJ9"}
)

// source is splitmix64: the same numbers from every version of Go.
type source uint64

func (s *source) next() uint64 {
	*s += 0x9e3779b97f4a7c15
	x := uint64(*s)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (s *source) below(n int) int             { return int(s.next() % uint64(n)) }
func (s *source) oneIn(n int) bool            { return s.below(n) == 0 }
func (s *source) pick(pieces []string) string { return pieces[s.below(len(pieces))] }

func requests() []asked {
	var all []asked
	for _, target := range fixed {
		all = append(all, asked{"GET", target})
		if strings.HasPrefix(target, "/api") {
			for _, method := range []string{"HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "WATCH", "get"} {
				all = append(all, asked{method, target})
			}
		}
	}
	for _, query := range queries {
		for _, path := range []string{"/api/v1/pods", "/apis/g/v/r", "/api/v1/namespaces/n/pods/p", "/healthz"} {
			all = append(all, asked{"GET", path + "?" + query})
		}
		all = append(all, asked{"DELETE", "/api/v1/namespaces/n/pods?" + query})
	}
	for _, label := range labels {
		all = append(all, asked{"GET", "/api/v1/pods?fieldSelector=metadata.name=a&labelSelector=" + percent(label, nil)})
	}
	all = append(all, long()...)
	random := source(20241211)
	for range generated {
		all = append(all, asked{random.pick(methods), random.target()})
	}
	return all
}

// long are targets of unusual length.
func long() []asked {
	return []asked{
		{"GET", "/api/v1/namespaces/" + strings.Repeat("n", 2000) + "/pods"},
		{"GET", "/api/v1/pods?labelSelector=a&" + strings.Repeat("x&", 1500) + "watch=1"},
		{"GET", "/" + strings.Repeat("api/", 500)},
		{"GET", "/api/v1/pods" + strings.Repeat("/", 1000)},
		{"GET", "/api/v1/pods?" + strings.Repeat("&", 3000) + "watch"},
		{"GET", "/api/v1/" + strings.Repeat("%70", 700)},
	}
}

func (s *source) target() string {
	target := s.path()
	if s.oneIn(3) {
		return target
	}
	return target + "?" + s.query()
}

func (s *source) path() string {
	prefix := s.pick(prefixes)
	segments := []string{prefix}
	if prefix != "api" {
		segments = append(segments, s.pick(groups))
	}
	segments = append(segments, s.pick(versions))
	if s.oneIn(10) {
		segments = append(segments, s.pick([]string{"watch", "proxy"}))
	}
	if s.below(5) < 3 {
		segments = append(segments, "namespaces", s.pick(spaces))
	}
	segments = append(segments, s.pick(kinds))
	for _, more := range [][]string{names, parts, names, parts} {
		if s.oneIn(2) {
			break
		}
		segments = append(segments, s.pick(more))
	}
	if s.oneIn(12) {
		segments = segments[:s.below(len(segments))]
	}
	var path strings.Builder
	for i, segment := range segments {
		slash := "/"
		if i > 0 && s.oneIn(10) {
			slash = s.pick([]string{"%2F", "%2F", "%2f", "//", "/./", "/%2e%2E/"})
		}
		path.WriteString(slash + s.spell(segment))
	}
	if s.oneIn(8) {
		path.WriteString(s.pick([]string{"/", "//", "%2F", "%", "%zz", "%2", ";", "*", "\xc3\xa9", "\x80"}))
	}
	if path.Len() == 0 {
		return "/"
	}
	return path.String()
}

func (s *source) query() string {
	var pairs []string
	for range 1 + s.below(4) {
		key, value := s.pick(keys), s.pick(values)
		if own, ok := fitting[key]; ok && s.oneIn(2) {
			value = s.pick(own)
		} else if key == "labelSelector" || s.oneIn(12) {
			value = s.pick(labels)
		}
		key = s.spell(key)
		pair := key + "=" + s.spell(value)
		if s.oneIn(12) {
			pair = key
		}
		if s.oneIn(40) {
			pair += s.pick([]string{"%", "%zz", ";", "=", "+", "?", "\xe9"})
		}
		pairs = append(pairs, pair)
	}
	return strings.Join(pairs, s.pick([]string{"&", "&", "&", "&", "&&", ";"}))
}

// spell writes a piece so that it means itself, with more escapes than needed now and then, or as it stands.
func (s *source) spell(piece string) string {
	if s.oneIn(8) && !strings.ContainsAny(piece, " \t\r\n\x00") {
		return piece
	}
	return percent(piece, s)
}

// percent escapes whatever has a meaning in a URL, and by chance other bytes.
func percent(piece string, by *source) string {
	var out strings.Builder
	for i := 0; i < len(piece); i++ {
		b := piece[i]
		plain := 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("-._~:,!()", b) >= 0
		if b == '=' && by != nil {
			plain = by.oneIn(2)
		}
		if plain && (by == nil || !by.oneIn(40)) {
			out.WriteByte(b)
		} else if by != nil && by.oneIn(2) {
			fmt.Fprintf(&out, "%%%02x", b)
		} else {
			fmt.Fprintf(&out, "%%%02X", b)
		}
	}
	return out.String()
}
