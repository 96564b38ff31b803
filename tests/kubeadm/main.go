// kubeadm as it is, built from the published module.
package main

import "k8s.io/kubernetes/cmd/kubeadm/app"

func main() {
	if err := app.Run(); err != nil {
		panic(err)
	}
}
