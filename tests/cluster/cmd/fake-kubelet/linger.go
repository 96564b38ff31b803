package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"time"
)

// How long a finished stream waits for the other side to hang up, first before it says that nothing more will come,
// then again before it closes the connection. Normally the other side needs milliseconds.
const linger = 2 * time.Second

// lingering gives the streams behind h connections that end gently.
//
// The streaming packages close the connection as soon as the exit code is written, and that can cut off output and
// exit code that are still on their way (the known race of `kubectl exec` over SPDY). kube-apiserver copies bytes in
// both directions and stops both when either fails: a client's frame meets the closed connection. And a SPDY client
// drops the frames it has read but not yet handed out when the connection ends. So that a byte missing in a test
// is the fault of what the test is about, this kubelet leaves the hanging up to the client, who has seen everything then.
func lingering(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.ServeHTTP(lingeringWriter{w}, r)
	})
}

type lingeringWriter struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController, with which the log handler flushes.
func (w lingeringWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w lingeringWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffers, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if secure, ok := conn.(*tls.Conn); ok {
		conn = lingeringConn{secure}
	}
	return conn, buffers, err
}

type lingeringConn struct{ *tls.Conn }

func (c lingeringConn) Close() error {
	go func() {
		if !c.peerLeft() && c.CloseWrite() == nil {
			c.peerLeft()
		}
		_ = c.Conn.Close()
	}()
	return nil
}

func (c lingeringConn) peerLeft() bool {
	_ = c.SetReadDeadline(time.Now().Add(linger))
	_, err := io.Copy(io.Discard, c.Conn)
	return err == nil
}
