// fake-kubelet answers the part of the kubelet's HTTPS API that kube-apiserver streams through: exec, attach,
// containerLogs and portForward. The protocols (SPDY, WebSocket) are the kubelet's own packages; behind them there
// is no container but a fixed table of commands written in Go, so that a test can never run anything on the machine.
//
// It registers nothing: whoever starts it creates the Node object that names its port, and Pods bound to that node.
// Every pod and container name is served alike, because kube-apiserver has already checked that the pod exists.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:10250", "address of the HTTPS API")
	cert := flag.String("cert", "", "serving certificate, PEM")
	key := flag.String("key", "", "serving key, PEM")
	clientCA := flag.String("client-ca", "", "only callers with a certificate of this CA are served")
	root := flag.String("root", "", "empty directory that tar sees as / (kubectl cp)")
	flag.Parse()

	files, err := os.OpenRoot(*root)
	if err != nil {
		log.Fatalf("fake-kubelet: --root must be an existing directory: %v", err)
	}
	authorities, err := readAuthorities(*clientCA)
	if err != nil {
		log.Fatalf("fake-kubelet: --client-ca: %v", err)
	}
	forwarder, err := newForwarder()
	if err != nil {
		log.Fatalf("fake-kubelet: start the port-forward targets: %v", err)
	}

	server := &http.Server{
		Addr:    *listen,
		Handler: lingering(routes(&container{files: files}, forwarder)),
		TLSConfig: &tls.Config{
			ClientCAs:  authorities,
			ClientAuth: tls.RequireAndVerifyClientCert,
			// Upgrades need HTTP/1.1; the real kubelet offers h2 as well, but kube-apiserver dials it for streams without.
			NextProtos: []string{"http/1.1"},
		},
	}
	log.Printf("fake-kubelet: serving on %s", *listen)
	log.Fatal(server.ListenAndServeTLS(*cert, *key))
}

func readAuthorities(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate", path)
	}
	return pool, nil
}
