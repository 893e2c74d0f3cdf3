package e2e

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// kube-proxy opens health check node ports where --nodeport-addresses says; 127.0.0.0/8 is the example of Kubernetes' page on
// Services. It serves load balancers as ever, so Local Services are announced.
func TestLocalServicesWithNodePortsOnFewAddresses(t *testing.T) {
	for name, addresses := range map[string]string{"loopback": "127.0.0.0/8", "IPv6Loopback": "127.0.0.0/8,::1/128", "primary": "primary"} {
		t.Run(name, func(t *testing.T) {
			play(t, func(t testing.TB) {
				w := newWorld(t)
				for _, node := range box.Nodes() {
					w.must(box.RunProxy(w.ctx, node, "--nodeport-addresses="+addresses))
				}
				w.Cleanup(func() {
					for _, node := range box.Nodes() {
						w.must(box.RunProxy(context.Background(), node))
					}
				})
				w.dualPool()
				w.pods("web", "node2")
				w.service("web", all(local, families(corev1.IPFamilyPolicyRequireDualStack)))
				for _, addr := range w.addresses("web", 2) {
					if owner := w.owner(addr); owner != "node2" {
						t.Errorf("%s is announced by %s, the pod is on node2", addr, owner)
					}
					w.reachable(addr)
				}
			})
		})
	}
}
