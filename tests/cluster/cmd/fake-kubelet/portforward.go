package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/types"
)

// forwarder gives every pod two ports: 7 repeats what it is sent, 80 is an HTTP server. Any other port is closed.
type forwarder struct {
	web string
}

func newForwarder() (*forwarder, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s\n", r.Method, r.URL.RequestURI())
		_, _ = io.Copy(w, r.Body)
	})
	go func() { panic(http.Serve(listener, page)) }() // Nobody closes the listener: returning is a bug.
	return &forwarder{web: listener.Addr().String()}, nil
}

func (f *forwarder) PortForward(_ context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	defer stream.Close()
	switch port {
	case 7:
		_, err := io.Copy(stream, stream)
		return err
	case 80:
		return f.toWeb(stream)
	}
	return fmt.Errorf("port %d of the pod is closed: only 7 (echo) and 80 (HTTP) are open", port)
}

func (f *forwarder) toWeb(stream io.ReadWriteCloser) error {
	socket, err := net.Dial("tcp", f.web)
	if err != nil {
		return err
	}
	defer socket.Close()
	go func() {
		_, _ = io.Copy(socket, stream)
		_ = socket.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(stream, socket)
	return err
}
