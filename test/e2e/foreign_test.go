package e2e

import (
	"context"
	"fmt"
	"slices"
	"testing"
)

// A kernel that answers for an address is a foreign host, even if it is a node's.
func TestKernelOfANodeThatAnswersIsInConflict(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	w.service("web", nil)
	addr := w.address("web")
	owner := w.owner(addr)
	other := []string{"node1", "node2", "node3"}[slices.IndexFunc([]string{"node1", "node2", "node3"}, func(n string) bool { return n != owner })]
	for _, node := range []string{other, owner} {
		prefix := fmt.Sprintf("%s/32", addr)
		_, err := box.Exec(w.ctx, node, "ip", "addr", "add", prefix, "dev", "eth0")
		w.must(err)
		removed := false
		remove := func() {
			if !removed {
				removed = true
				_, err := box.Exec(context.Background(), node, "ip", "addr", "del", prefix, "dev", "eth0")
				w.must(err)
			}
		}
		w.Cleanup(remove)
		if node != owner {
			_, err := box.Exec(w.ctx, node, "arping", "-U", "-c", "2", "-I", "eth0", addr.String())
			w.must(err)
		}
		mac, err := box.MAC(node)
		w.must(err)
		w.conflicting(addr, mac.String())
		if node != owner { // the first event
			w.toldOfConflict("web", mac.String())
		}
		if now := w.owner(addr); now != owner {
			t.Errorf("%s has the address: want %s, as before", now, owner)
		}
		remove()
		w.unconflicting(addr)
		w.reachable(addr)
	}
}
