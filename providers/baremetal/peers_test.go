package baremetal

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func addressed(ips ...string) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "192.0.2.1"}, {Type: corev1.NodeHostName, Address: n.Name}}
		for _, ip := range ips {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
		}
	}
}

func TestPeer(t *testing.T) {
	eth0 := v1alpha1.SpeakerInterface{Name: "eth0", MAC: "02:00:00:00:00:0A", Prefixes: []string{"198.51.100.2/24", "2001:db8::2/64"}}
	eth1 := v1alpha1.SpeakerInterface{Name: "eth1", MAC: "02:00:00:00:00:0b", Prefixes: []string{"203.0.113.2/24"}}
	edited := func(i v1alpha1.SpeakerInterface, mac string, prefixes ...string) v1alpha1.SpeakerInterface {
		i.MAC, i.Prefixes = mac, prefixes
		return i
	}
	type interfaces = []v1alpha1.SpeakerInterface
	for _, c := range []struct {
		name     string
		addr     string
		patterns []string
		node     *corev1.Node
		speaker  interfaces
		want     string
	}{
		{"on the network of the address", "203.0.113.17", nil, node("a", addressed("198.51.100.2")), interfaces{eth0, eth1}, "203.0.113.2 02:00:00:00:00:0b"},
		{"where the InternalIP is", "10.0.0.1", nil, node("a", addressed("198.51.100.2")), interfaces{eth0, eth1}, "198.51.100.2 02:00:00:00:00:0a"},
		{"IPv6: by the address that it is known by", "2001:db8::17", nil, node("a", addressed("2001:db8::2")), interfaces{eth0, eth1}, "2001:db8::2 02:00:00:00:00:0a"},
		{"the Advertisement names the interface", "203.0.113.17", []string{"eth0"}, node("a"), interfaces{eth0, eth1}, "198.51.100.2 02:00:00:00:00:0a"},
		{"the Advertisement names one that is not there", "203.0.113.17", []string{"bond*"}, node("a", addressed("2001:db8::2", "198.51.100.2")), interfaces{eth0}, "198.51.100.2 "},
		{"no speaker: IPv4 first", "203.0.113.17", nil, node("a", addressed("2001:db8::2", "198.51.100.2", "198.51.100.1")), nil, "198.51.100.2 "},
		{"no speaker, IPv6 alone", "203.0.113.17", nil, node("a", addressed("2001:db8::2")), nil, "2001:db8::2 "},
		{"nothing known", "203.0.113.17", nil, node("a"), nil, " "},
		{"an interface without an address", "203.0.113.17", []string{"eth1"}, node("a"), interfaces{edited(eth1, eth1.MAC)}, " 02:00:00:00:00:0b"},
		{"an address of its own link only", "203.0.113.17", []string{"eth1"}, node("a"), interfaces{edited(eth1, eth1.MAC, "fe80::1/64")}, " 02:00:00:00:00:0b"},
		{"a MAC that is none", "203.0.113.17", nil, node("a"), interfaces{edited(eth1, "02:00:5e", "203.0.113.2/24")}, "203.0.113.2 "},
		{"a MAC of another kind of network", "203.0.113.17", nil, node("a"), interfaces{edited(eth1, "02:00:5e:00:00:00:00:01", "203.0.113.2/24")}, "203.0.113.2 "},
		{"a prefix that is none, beside a good one", "203.0.113.17", nil, node("a"), interfaces{edited(eth1, eth1.MAC, "x", "203.0.113.3", "203.0.113.2/24")}, "203.0.113.2 02:00:00:00:00:0b"},
		{"an InternalIP that is none", "203.0.113.17", nil, node("a", addressed("x", "198.51.100.2")), nil, "198.51.100.2 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			var speaker *v1alpha1.Speaker
			if c.speaker != nil {
				speaker = &v1alpha1.Speaker{Status: v1alpha1.SpeakerStatus{Interfaces: c.speaker}}
			}
			got := peer(netip.MustParseAddr(c.addr), c.patterns, c.node, speaker)
			if s := got.Address + " " + got.MAC; s != c.want || got.Node != "a" {
				t.Errorf("%s: %q, want %q", got.Node, s, c.want)
			}
		})
	}
}

// Peers come with the allocation itself, follow the interfaces of the speakers,
// and nothing else that a speaker says makes a write.
func TestPeersFollowTheSpeakers(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.editNode("c", cordoned)
		w.speaker("a", on("eth0", "0a", "203.0.113.2/24"))
		w.speaker("b", on("eth0", "0b", "203.0.113.3/24"))
		w.speaker("c", on("eth0", "0c", "203.0.113.4/24"))
		_, stop := w.controller()
		w.endpoints("web", "a")
		before := len(w.rest())
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		if writes, want := w.since(before), []string{"create virtualips/203.0.113.17", "patch services/shop/web/status"}; !slices.Equal(writes, want) {
			w.Errorf("writes %q, want %q", writes, want)
		}
		order := w.vip("203.0.113.17").Spec.L2.Candidates
		// want is the peers in the order of the candidates.
		want := func(at map[string]string) string {
			var words []string
			for _, name := range order {
				words = append(words, name+"="+at[name])
			}
			return strings.Join(words, " ")
		}
		at := map[string]string{"a": "203.0.113.2@02:00:00:00:00:0a", "b": "203.0.113.3@02:00:00:00:00:0b"}
		if got := w.peers("203.0.113.17"); got != want(at) {
			w.Errorf("peers %s, want %s", got, want(at))
		}
		for _, c := range []struct {
			name   string
			change func()
			then   func()
			writes int
		}{
			{"a new MAC", func() { w.speaker("a", on("eth0", "1a", "203.0.113.2/24")) }, func() { at["a"] = "203.0.113.2@02:00:00:00:00:1a" }, 1},
			{"another address", func() { w.speaker("b", on("eth0", "0b", "203.0.113.9/24")) }, func() { at["b"] = "203.0.113.9@02:00:00:00:00:0b" }, 1},
			{"of no consequence", func() { w.speaker("b", on("eth9", "0b", "203.0.113.9/24")) }, func() {}, 0},
			{"one that is no candidate", func() { w.speaker("c", on("eth0", "1c", "203.0.113.4/24")) }, func() {}, 0},
			{"not of its interfaces", func() {
				w.speaker("a", func(s *v1alpha1.SpeakerStatus) {
					seven := int32(7)
					s.Announcing = &seven
					s.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: "True", Reason: "Running"}}
				})
			}, func() {}, 0},
			{"the Speaker is gone", func() { must(w, w.herald.Speakers.Delete(w.ctx, "a", metav1.DeleteOptions{})) }, func() { at["a"] = "@" }, 1},
			{"the Node has an InternalIP", func() { w.editNode("a", addressed("198.51.100.2")) }, func() { at["a"] = "198.51.100.2@" }, 1},
		} {
			before := len(w.rest())
			c.change()
			c.then()
			w.until(c.name, want(at), func() string { return w.peers("203.0.113.17") })
			if writes := w.since(before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
		}
		stop()
		before = len(w.rest())
		w.controller()
		if writes := w.since(before); len(writes) > 0 {
			w.Errorf("written after a restart: %q", writes)
		}
	})
}

// Unsigned marks count until all candidates sign.
func TestMarksAreSignedWhenAllCandidatesSign(t *testing.T) {
	t.Parallel()
	signs := map[string]bool{"new": true, "newer": true, "old": false}
	s := &scene{speaker: func(node string) *v1alpha1.Speaker {
		sign, known := signs[node]
		if !known {
			return nil
		}
		return &v1alpha1.Speaker{Status: v1alpha1.SpeakerStatus{SignsMarks: sign}}
	}}
	for candidates, want := range map[string]bool{"new newer": true, "new": true, "new old": false, "old": false, "new unknown": false, "": false} {
		if got := s.signed(&v1alpha1.L2Placement{Candidates: strings.Fields(candidates)}); got != want {
			t.Errorf("%q: signed %t, want %t", candidates, got, want)
		}
	}
}
