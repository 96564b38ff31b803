package main

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	"k8s.io/kubelet/pkg/cri/streaming/remotecommand"
)

const (
	// The real kubelet's defaults.
	streamIdle     = 4 * time.Hour
	streamCreation = remotecommandconsts.DefaultStreamCreationTimeout

	// A container that has been running for a moment: what `kubectl logs` without -f prints.
	logLinesPast = 10
	logInterval  = 100 * time.Millisecond
)

func routes(c *container, f *forwarder) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	mux.HandleFunc("/exec/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeExec(w, r, c, r.PathValue("pod"), "", r.PathValue("container"), r.URL.Query()["command"],
			options, streamIdle, streamCreation, remotecommandconsts.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/attach/{namespace}/{pod}/{container}", func(w http.ResponseWriter, r *http.Request) {
		options, err := remotecommand.NewOptions(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		remotecommand.ServeAttach(w, r, c, r.PathValue("pod"), "", r.PathValue("container"),
			options, streamIdle, streamCreation, remotecommandconsts.SupportedStreamingProtocols)
	})
	mux.HandleFunc("/portForward/{namespace}/{pod}", func(w http.ResponseWriter, r *http.Request) {
		options, err := portforward.NewV4Options(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		portforward.ServePortForward(w, r, f, r.PathValue("pod"), "", options, streamIdle, streamCreation,
			portforward.SupportedProtocols)
	})
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", serveLogs)
	return mux
}

// serveLogs prints numbered lines: the past ones at once, then with follow=true one each logInterval for as long as
// the caller stays.
func serveLogs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	first := 1
	if tail, err := strconv.Atoi(query.Get("tailLines")); err == nil && tail < logLinesPast {
		first = logLinesPast - tail + 1
	}
	follow, _ := strconv.ParseBool(query.Get("follow"))
	stream := http.NewResponseController(w)

	w.Header().Set("Content-Type", "text/plain")
	tick := time.NewTicker(logInterval)
	defer tick.Stop()
	for n := first; n <= logLinesPast || follow; n++ {
		if _, err := io.WriteString(w, logLine(n)); err != nil {
			return
		}
		if n < logLinesPast {
			continue
		}
		if stream.Flush() != nil || !follow {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-tick.C:
		}
	}
}

func logLine(n int) string { return fmt.Sprintf("line %d\n", n) }
