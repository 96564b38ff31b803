// request-info writes down how the real kube-apiserver understands requests: what net/http's server makes of the
// request line, and then RequestInfoFactory and the long-running check as kube-apiserver sets them up.
//
// The requests come from tables of awkward pieces and a seeded generator, so every run prints the same bytes.
// The columns are described in the file's own head.
package main

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metainternalversionscheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/server/filters"
	"k8s.io/klog/v2"
)

const head = `# How kube-apiserver understands requests. Written by tests/cluster/request-info; tests/it/oracle.rs compares.
# method, target, then 400 (net/http refuses it), 500 (RequestInfo fails), or tab-separated:
# r(esource) or p(ath), with L if long-running; verb; group; version; namespace; resource; subresource; name;
# number of path parts from the resource on; decoded path, = if it is the target's own;
# of lists, watches and deletions of collections: ! if the options cannot be decoded, or
#   limit, resourceVersion (u(nset), 0, x), c(ontinue), i(nitial events), F(ield selector), L(abel selector).
# \xNN is a byte, \\ a backslash.
`

// As pkg/controlplane/apiserver/config.go and pkg/server/config.go of Kubernetes have them.
var (
	factory = request.RequestInfoFactory{
		APIPrefixes:          sets.NewString("api", "apis"),
		GrouplessAPIPrefixes: sets.NewString("api"),
	}
	isLongRunning = filters.BasicLongRunningRequestCheck(
		sets.NewString("watch", "proxy"),
		sets.NewString("attach", "exec", "proxy", "log", "portforward"),
	)
)

func main() {
	// It logs every query that cannot be decoded.
	klog.SetLogger(klog.Logger{})
	out := bufio.NewWriter(os.Stdout)
	defer out.Flush()
	fmt.Fprint(out, head)
	for _, asked := range requests() {
		fmt.Fprintf(out, "%s\t%s\t%s\n", asked.method, escape(asked.target), understand(asked))
	}
}

func understand(asked asked) string {
	line := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n\r\n", asked.method, asked.target)
	parsed, err := http.ReadRequest(bufio.NewReader(strings.NewReader(line)))
	if err != nil {
		return "400"
	}
	info, err := factory.NewRequestInfo(parsed)
	if err != nil {
		return "500"
	}
	kind := "p"
	if info.IsResourceRequest {
		kind = "r"
	}
	if isLongRunning(parsed, info) {
		kind += "L"
	}
	path, _, _ := strings.Cut(asked.target, "?")
	if info.Path == path {
		path = "="
	} else {
		path = escape(info.Path)
	}
	columns := []string{kind, info.Verb, info.APIGroup, info.APIVersion, info.Namespace, info.Resource,
		info.Subresource, info.Name}
	for i := range columns {
		columns[i] = escape(columns[i])
	}
	columns = append(columns, fmt.Sprint(len(info.Parts)), path, options(parsed, info))
	return strings.Join(columns, "\t")
}

func options(parsed *http.Request, info *request.RequestInfo) string {
	isCollection := info.Verb == "list" || info.Verb == "watch" || info.Verb == "deletecollection"
	if !info.IsResourceRequest || !isCollection {
		return ""
	}
	var options internalversion.ListOptions
	decoder := metainternalversionscheme.ParameterCodec
	if decoder.DecodeParameters(parsed.URL.Query(), metav1.SchemeGroupVersion, &options) != nil {
		return "!"
	}
	text := fmt.Sprint(options.Limit)
	switch options.ResourceVersion {
	case "":
		text += " u "
	case "0":
		text += " 0 "
	default:
		text += " x "
	}
	for _, flag := range []struct {
		letter string
		is     bool
	}{
		{"c", options.Continue != ""},
		{"i", options.SendInitialEvents != nil && *options.SendInitialEvents},
		{"F", parsed.URL.Query().Get("fieldSelector") != ""},
		{"L", parsed.URL.Query().Get("labelSelector") != ""},
	} {
		if flag.is {
			text += flag.letter
		}
	}
	return strings.TrimRight(text, " ")
}

func escape(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch b := text[i]; {
		case b == '\\':
			out.WriteString(`\\`)
		case b <= ' ' || b >= 0x7f:
			fmt.Fprintf(&out, `\x%02x`, b)
		default:
			out.WriteByte(b)
		}
	}
	return out.String()
}
