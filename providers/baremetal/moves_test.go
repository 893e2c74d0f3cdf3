package baremetal

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyLocal, 31234
}

// The pod of a Local Service moves: its node leaves the candidates as soon as
// another one can serve, in one write.
func TestLocalServiceFollowsItsPod(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web", local))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.untilCandidates("203.0.113.17", "a")
		for _, c := range []struct {
			name      string
			endpoints func()
			want      string
			writes    int
		}{
			{"a second pod is ready", func() { w.move("web", ready("a"), ready("b")) }, "a b", 1},
			{"the first one leaves", func() { w.move("web", leaving("a"), ready("b")) }, "b", 1},
			{"and is gone", func() { w.move("web", ready("b")) }, "b", 0},
			{"the last one leaves, and serves on", func() { w.move("web", leaving("b")) }, "b", 1},
			{"until another one is ready", func() { w.move("web", leaving("b"), ready("c")) }, "c", 1},
		} {
			before := len(w.rest())
			c.endpoints()
			w.untilCandidates("203.0.113.17", c.want)
			if writes := w.since(before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
		}
	})
}

func TestCordonedNodeHandsOver(t *testing.T) {
	for _, policy := range []string{"Cluster", "Local"} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				w.pool("public", nil, "203.0.113.17/32")
				w.controller()
				w.endpoints("web", "a", "b", "c")
				w.create(lb("web", func(s *corev1.Service) {
					s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicy(policy)
				}))
				w.untilService("web", "203.0.113.17 AddressAssigned")
				order := w.vip("203.0.113.17").Spec.L2.Candidates
				x, y, z := order[0], order[1], order[2]
				uncordon := func(n *corev1.Node) { n.Spec.Unschedulable = false }
				for _, c := range []struct {
					node string
					edit func(*corev1.Node)
					want string
				}{
					{x, cordoned, y + " " + z},
					{x, uncordon, y + " " + z + " " + x},
					{z, cordoned, y + " " + x},
					{y, cordoned, x},
				} {
					before := len(w.rest())
					w.editNode(c.node, c.edit)
					w.untilCandidates("203.0.113.17", c.want)
					writes := slices.DeleteFunc(w.since(before), func(write string) bool { return strings.HasPrefix(write, "patch services/") })
					if !slices.Equal(writes, []string{"update virtualips/203.0.113.17"}) {
						w.Errorf("%s: writes %q, want one", c.want, writes)
					}
				}
				// With all of them cordoned, they are candidates as if none was.
				w.editNode(x, cordoned)
				w.until("candidates", "3, first "+x, func() string {
					v := w.vip("203.0.113.17")
					return fmt.Sprintf("%d, first %s", len(v.Spec.L2.Candidates), v.Spec.L2.Candidates[0])
				})
			})
		})
	}
}

// A node that took over keeps the address; the one that failed is last. The
// status of an address that is where it should be makes no write.
func TestOwnerLeads(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		_, stop := w.controller()
		w.endpoints("web", "a", "b", "c")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		order := w.vip("203.0.113.17").Spec.L2.Candidates
		x, y, z := order[0], order[1], order[2]
		update, status := "update virtualips/203.0.113.17", "update virtualips/203.0.113.17/status"
		for _, c := range []struct {
			name   string
			owner  string
			want   []string
			writes []string
		}{
			{"the first one", x, []string{x, y, z}, []string{status}},
			{"the second one", y, []string{y, z, x}, []string{status, update}},
			{"the last one", x, []string{x, y, z}, []string{status, update}},
			{"one that is no candidate, and whose Lease nobody has seen: it is not believed", "stranger", []string{x, y, z}, []string{status, status}},
		} {
			before := len(w.rest())
			w.says("203.0.113.17", ownedBy(c.owner))
			w.untilCandidates("203.0.113.17", strings.Join(c.want, " "))
			time.Sleep(30 * time.Second) // longer than a Lease lasts
			writes := slices.DeleteFunc(w.since(before), func(write string) bool { return strings.HasPrefix(write, "patch services/") })
			if !slices.Equal(writes, c.writes) {
				w.Errorf("%s: writes %q, want %q", c.name, writes, c.writes)
			}
		}
		// Also when it took over while no controller ran.
		stop()
		w.says("203.0.113.17", ownedBy(z))
		w.controller()
		w.untilCandidates("203.0.113.17", strings.Join([]string{z, x, y}, " "))
		// A node that may not have the address any more does not keep it.
		w.editNode(z, cordoned)
		w.untilCandidates("203.0.113.17", x+" "+y)
		w.editNode(z, func(n *corev1.Node) { n.Spec.Unschedulable = false })
		w.until("candidates", "3", func() string { return strconv.Itoa(len(w.vip("203.0.113.17").Spec.L2.Candidates)) })
	})
}
