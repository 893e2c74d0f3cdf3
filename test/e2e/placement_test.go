package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// unaskable keeps the speaker of a node from asking a health check node port there, until the returned function is called.
func (w *world) unaskable(node string, port int) (askable func()) {
	w.Helper()
	table := fmt.Sprintf("e2e-%d", port)
	_, err := box.Exec(w.ctx, node, "nft", fmt.Sprintf(
		"add table inet %[1]s; add chain inet %[1]s in { type filter hook input priority -300; }; add rule inet %[1]s in tcp dport %[2]d reject with tcp reset", table, port))
	w.must(err)
	askable = func() {
		_, _ = box.Exec(w.ctx, node, "nft", "delete", "table", "inet", table)
	}
	w.Cleanup(askable)
	return askable
}

// ownedWithin waits for a node to own an address, for so long at most after the test begins to wait.
func (w *world) ownedWithin(addr netip.Addr, node string, span time.Duration) {
	w.Helper()
	start := time.Now()
	w.eventually(fmt.Sprintf("%s belongs to %s", addr, node), func() error {
		if owner := w.owner(addr); owner != node {
			return fmt.Errorf("the owner is %q", owner)
		}
		return nil
	})
	if took := time.Since(start); took > span {
		w.Errorf("%s belongs to %s after %s: want %s at most", addr, node, took, span)
	}
}

func TestCandidatesThatCannotServeALocalServiceAreSkipped(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	const port, services = 30991, 3
	healed := map[string]func(){}
	for _, node := range []string{"node1", "node2"} {
		for i := range services {
			askable := w.unaskable(node, port+i)
			healed[fmt.Sprint(node, i)] = askable
		}
	}
	// With three addresses some other node is the first candidate of one.
	for i := range services {
		w.service(fmt.Sprintf("web-%d", i), all(local, func(s *corev1.Service) {
			s.Spec.Selector = map[string]string{"app": "web"}
			s.Spec.HealthCheckNodePort = int32(port + i)
		}))
	}
	for i := range services {
		addr := w.address(fmt.Sprintf("web-%d", i))
		w.ownedWithin(addr, "node3", 6*time.Second)
		if err := has(w.reachable(addr), "node=node3"); err != nil {
			t.Error(err)
		}
	}
	// The owner cannot be asked any more, and another node can.
	addr := w.address("web-0")
	healed["node10"]()
	w.unaskable("node3", port)
	w.ownedWithin(addr, "node1", 10*time.Second)
}
