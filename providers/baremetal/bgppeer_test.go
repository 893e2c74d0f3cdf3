package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func (v peerVerdict) String() string {
	words := fmt.Sprintf("%d/%d %s: %s", v.established, v.nodes, v.reason, v.message)
	if v.pending {
		words += " (pending)"
	}
	return words
}

func TestJudgePeer(t *testing.T) {
	type session = v1alpha1.SpeakerBGPSession
	state := func(state string) *session { return &session{Peer: "tor", State: state} }
	up := state("Established")
	no := func(reason v1alpha1.Reason, words string) *session {
		s := failing("tor", reason, words)
		return &s
	}
	half := &session{Peer: "tor", State: "Established", Reason: v1alpha1.FamilyNotAgreed, LastError: "the router does not speak of IPv6"}
	on := func(sessions ...*session) []nodeSession {
		var all []nodeSession
		for i, s := range sessions {
			all = append(all, nodeSession{fmt.Sprintf("n%d", i), s})
		}
		return all
	}
	const refused = "connection refused by 198.51.100.1:179"
	for _, c := range []struct {
		name     string
		problems []problem
		sessions []nodeSession
		want     string
	}{
		{"all is well", nil, on(up, up), "2/2 : Every node has a session."},
		{"no node", nil, nil, "0/0 NoNode: No node with a live speaker is selected."},
		{"the selector cannot be read", []problem{{v1alpha1.InvalidSelector, "spec.nodeSelector: x."}}, nil, "0/0 InvalidSelector: spec.nodeSelector: x."},
		{"one fails", nil, on(up, no("", refused), up), "2/3 NotEstablished: Node n1: connection refused by 198.51.100.1:179."},
		{"for the same reason", nil, on(no("", refused), up, no("NotEstablished", refused)), "1/3 NotEstablished: Nodes n0, n2: connection refused by 198.51.100.1:179."},
		{"for two", nil, on(no("", "b."), no("", "a"), no("", "b")), "0/3 NotEstablished: Nodes n0, n2: b. Node n1: a."},
		{"one has not said yet", nil, on(up, nil), "1/2 NotEstablished: Node n1: no session yet. (pending)"},
		{"one is on its way", nil, on(state("OpenSent"), state("Active"), nil), "0/3 NotEstablished: Nodes n0, n1, n2: no session yet. (pending)"},
		{"one has not said yet, and one says why", nil, on(nil, no("", "a")), "0/2 NotEstablished: Node n0: no session yet. Node n1: a."},
		{"there is a session, without a family", nil, on(up, half), "2/2 FamilyNotAgreed: Node n1: the router does not speak of IPv6."},
		{"the worst reason comes first", nil, on(half, no("", "a"), no("NoGateway", "there is none"), no("SecretKeyMissing", "k"), no("SecretMissing", "s"), no("InvalidPeer", "i")),
			"1/6 InvalidPeer: Node n5: i. Node n4: s. Node n3: k. Node n2: there is none. Node n1: a. And 1 more."},
		{"a reason without words", nil, on(no("SecretMissing", "")), "0/1 SecretMissing: Node n0: SecretMissing."},
		{"a reason that nobody knows", nil, on(no("Gremlins", "eek")), "0/1 NotEstablished: Node n0: eek."},
		{"a reason that nobody knows, of a session", nil, on(&session{State: "Established", Reason: "Gremlins"}), "1/1 NotEstablished: Node n0: Gremlins."},
		{"many fail", nil, on(no("", "a"), no("", "a"), no("", "a"), no("", "a"), no("", "a"), no("", "a"), no("", "a")),
			"0/7 NotEstablished: Nodes n0, n1, n2, n3, n4 and 2 more: a."},
		{"each in another way", nil, on(no("", "a"), no("", "b"), no("", "c"), no("", "d"), no("", "e"), no("", "f"), no("", "f")),
			"0/7 NotEstablished: Node n0: a. Node n1: b. Node n2: c. Node n3: d. Node n4: e. And 2 more."},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := judgePeer(c.problems, c.sessions).String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			reversed := slices.Clone(c.sessions)
			slices.Reverse(reversed)
			if got := judgePeer(c.problems, reversed).String(); got != c.want {
				t.Errorf("in another order: %s\nwant %s", got, c.want)
			}
		})
	}
}

// A look at a peer: what is said of it and what is to be said, and how long that
// waits.
func TestPeerWatchWaits(t *testing.T) {
	good := peerVerdict{nodes: 1, established: 1, message: "good"}
	pending := peerVerdict{nodes: 1, reason: v1alpha1.NotEstablished, message: "not yet", pending: true}
	bad := func(words string) peerVerdict {
		return peerVerdict{nodes: 1, reason: v1alpha1.NotEstablished, message: words}
	}
	said := func(generation int64, reason, message string) *metav1.Condition {
		return &metav1.Condition{Reason: reason, Message: message, ObservedGeneration: generation}
	}
	type look struct {
		at         int // seconds
		generation int64
		said       *metav1.Condition
		verdict    peerVerdict
		want       int // seconds to wait
	}
	for _, c := range []struct {
		name  string
		looks []look
	}{
		{"a new one is well", []look{{0, 1, nil, good, 0}}},
		{"a new one is bad, and says why", []look{{0, 1, nil, bad("x"), 0}}},
		{"a new one is given time", []look{{0, 1, nil, pending, 5}, {2, 1, nil, pending, 3}, {4, 1, nil, good, 0}}},
		{"but not for ever", []look{{0, 1, nil, pending, 5}, {5, 1, nil, pending, 0}}},
		{"so is one where a node comes", []look{{0, 1, said(1, "", "good"), good, 0}, {60, 1, said(1, "", "good"), pending, 5}, {63, 1, said(1, "", "good"), good, 0},
			{70, 1, said(1, "", "good"), pending, 5}}},
		{"one that is lost is told at once", []look{{0, 1, said(1, "", "good"), good, 0}, {60, 1, said(1, "", "good"), bad("x"), 0}}},
		{"an edit may take effect first", []look{{0, 1, said(1, "", "good"), good, 0}, {60, 2, said(1, "", "good"), good, 5}, {62, 2, said(1, "", "good"), bad("x"), 3},
			{65, 2, said(1, "", "good"), bad("x"), 0}}},
		{"an edit of one that is given time begins anew", []look{{0, 1, nil, pending, 5}, {4, 2, nil, pending, 5}}},
		{"words alone are not told often", []look{{0, 1, said(1, "NotEstablished", "x"), bad("y"), 0}, {2, 1, said(1, "NotEstablished", "y"), bad("x"), 3},
			{5, 1, said(1, "NotEstablished", "y"), bad("x"), 0}}},
		{"what no speaker need say is told at once", []look{{0, 1, said(1, "", "good"), good, 0}, {60, 2, said(1, "", "good"), peerVerdict{reason: v1alpha1.InvalidSelector}, 0}}},
		{"another reason is", []look{{0, 1, said(1, "NotEstablished", "x"), bad("y"), 0}, {1, 1, said(1, "NoNode", "y"), bad("y"), 0}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var watch peerWatch
			for _, l := range c.looks {
				now := noon.Add(time.Duration(l.at) * time.Second)
				wait := watch.wait(l.generation, l.said, &l.verdict, now)
				if wait != time.Duration(l.want)*time.Second {
					t.Fatalf("%ds: waits %s, want %ds", l.at, wait, l.want)
				}
				if wait == 0 {
					watch.written = now
				}
			}
		})
	}
}

func TestWhatOfASpeakerMatters(t *testing.T) {
	tor, rot := established("tor", "IPv4", "IPv6"), established("rot", "IPv4")
	busy := tor
	busy.Advertised, busy.Refused, busy.BFD = 7, 9, "Up"
	with := func(sessions ...v1alpha1.SpeakerBGPSession) *v1alpha1.Speaker { return speakerWith("a", sessions...) }
	for _, c := range []struct {
		name          string
		before, after *v1alpha1.Speaker
		peers         string
		offers        bool
	}{
		{"nothing", with(tor), with(tor), "", false},
		{"counts and BFD", with(tor, rot), with(rot, busy), "", false},
		{"a new session", with(rot), with(rot, tor), "tor", true},
		{"one that is not up", with(rot), with(rot, failing("tor", "", "x")), "tor", false},
		{"other words", with(failing("tor", "", "y")), with(failing("tor", "", "x")), "tor", false},
		{"one is lost", with(rot, tor), with(rot, failing("tor", "", "x")), "tor", true},
		{"all are gone", with(rot, tor), with(), "rot tor", true},
		{"a family less", with(tor), with(established("tor", "IPv4")), "", true},
		{"the service proxy fails", with(tor), proxy(with(tor), "False"), "", true},
		{"the service proxy is first heard of", with(tor), proxy(with(tor), "True"), "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(changedSessions(&c.before.Status, &c.after.Status), " "); got != c.peers {
				t.Errorf("peers %q, want %q", got, c.peers)
			}
			if got := offers(&c.before.Status) != offers(&c.after.Status); got != c.offers {
				t.Errorf("another offer: %t, want %t", got, c.offers)
			}
		})
	}
}

// router makes a BGPPeer for the nodes that the selector chooses.
func (w *world) router(name string, nodes *metav1.LabelSelector) {
	w.Helper()
	must(w, first(w.herald.BGPPeers.Create(w.ctx, &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, Address: "198.51.100.1", NodeSelector: nodes},
	}, metav1.CreateOptions{})))
}

func (w *world) editRouter(name string, edit func(*v1alpha1.BGPPeerSpec)) {
	w.Helper()
	peer, err := w.herald.BGPPeers.Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	edit(&peer.Spec)
	must(w, first(w.herald.BGPPeers.Update(w.ctx, peer, metav1.UpdateOptions{})))
}

// advertise makes an Advertisement.
func (w *world) advertise(name string, spec v1alpha1.AdvertisementSpec) {
	w.Helper()
	must(w, first(w.herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})))
}

func (w *world) editAdvertisement(name string, edit func(*v1alpha1.AdvertisementSpec)) {
	w.Helper()
	advert, err := w.herald.Advertisements.Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	edit(&advert.Spec)
	must(w, first(w.herald.Advertisements.Update(w.ctx, advert, metav1.UpdateOptions{})))
}

// sessions has the speaker of a node say that it has these.
func (w *world) sessions(node string, sessions ...v1alpha1.SpeakerBGPSession) {
	w.Helper()
	w.speaker(node, func(s *v1alpha1.SpeakerStatus) { s.BGP = sessions })
}

// leave has the speaker of a node give up its Lease.
func (w *world) leave(node string) {
	w.Helper()
	leases := w.kube.CoordinationV1().Leases("herald-system")
	lease, err := leases.Get(w.ctx, node, metav1.GetOptions{})
	must(w, err)
	nobody := ""
	lease.Spec.HolderIdentity = &nobody
	must(w, first[*coordinationv1.Lease](leases.Update(w.ctx, lease, metav1.UpdateOptions{})))
}

// tellPeer is the status of a BGPPeer in a line.
func (w *world) tellPeer(name string) string {
	w.Helper()
	peer, err := w.herald.BGPPeers.Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	line := fmt.Sprintf("%d/%d", peer.Status.Established, peer.Status.Nodes)
	if c := meta.FindStatusCondition(peer.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		line += fmt.Sprintf(" %s %s@%d: %s", c.Status, c.Reason, c.ObservedGeneration, c.Message)
	}
	return line
}

func (w *world) untilPeer(name, want string) {
	w.Helper()
	w.until(name, want, func() string { return w.tellPeer(name) })
}

// of are the writes after the first n of them whose object has the prefix and
// the suffix; n then counts all.
func (w *world) of(prefix, suffix string, n *int) (writes []string) {
	w.Helper()
	all := w.rest()
	for _, write := range all[*n:] {
		if _, object, _ := strings.Cut(write, " "); strings.HasPrefix(object, prefix) && strings.HasSuffix(object, suffix) {
			writes = append(writes, write)
		}
	}
	*n = len(all)
	return writes
}

// restarted has a new controller look at everything: it has nothing to write.
func (w *world) restarted(stop func()) {
	w.Helper()
	stop()
	before := len(w.rest())
	w.controller()
	if writes := w.rest()[before:]; len(writes) > 0 {
		w.Errorf("written after a restart: %q", writes)
	}
}

func TestPeerStatusFollowsTheSessions(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, stop := w.controller()
		up := established("tor", "IPv4")
		router := func(edit func(*v1alpha1.BGPPeerSpec)) func() { return func() { w.editRouter("tor", edit) } }
		const refused = "connection refused by 198.51.100.1:179"
		before := len(w.rest())
		for _, c := range []struct {
			name   string
			change func()
			want   string
			writes int
			events int
		}{
			{"a new one, until every node has a session", func() {
				w.router("tor", nil)
				time.Sleep(2 * statusDelay)
				w.sessions("a", failing("tor", "", ""))
				w.sessions("b", failing("tor", "", ""))
				time.Sleep(2 * statusDelay)
				for _, node := range []string{"a", "b", "c"} {
					w.sessions(node, up)
				}
			}, "3/3 True Established@1: Every node has a session.", 1, 0},
			{"a session is lost", func() { w.sessions("b", failing("tor", "", refused)) }, "2/3 False NotEstablished@1: Node b: " + refused + ".", 1, 1},
			{"and another", func() { w.sessions("c", failing("tor", "", refused)) }, "1/3 False NotEstablished@1: Nodes b, c: " + refused + ".", 1, 0},
			{"a reason that is worse", func() { w.sessions("c", failing("tor", v1alpha1.SecretMissing, "no Secret x")) },
				"1/3 False SecretMissing@1: Node c: no Secret x. Node b: " + refused + ".", 1, 1},
			{"one speaker leaves", func() { w.leave("c") }, "1/2 False NotEstablished@1: Node b: " + refused + ".", 1, 1},
			{"what does not matter", func() {
				more := up
				more.Advertised = 100
				w.sessions("a", more)
				w.editNode("a", condition(corev1.NodeMemoryPressure, "True"))
			}, "1/2 False NotEstablished@1: Node b: " + refused + ".", 0, 0},
			{"well again", func() { w.sessions("b", up) }, "2/2 True Established@1: Every node has a session.", 1, 1},
			{"fewer nodes are selected", router(func(s *v1alpha1.BGPPeerSpec) { s.NodeSelector = label("rack", "r1") }), "0/0 False NoNode@2: No node with a live speaker is selected.", 1, 1},
			{"one node matches", func() { w.editNode("a", labelled("rack", "r1")) }, "1/1 True Established@2: Every node has a session.", 1, 1},
			{"a selector that cannot be read", router(func(s *v1alpha1.BGPPeerSpec) { s.NodeSelector = broken() }),
				`0/0 False InvalidSelector@3: spec.nodeSelector: "` + "…", 1, 1},
		} {
			events := len(w.events.all())
			c.change()
			w.until(c.name, c.want, func() string {
				got := w.tellPeer("tor")
				if prefix, _, cut := strings.Cut(c.want, `: "…`); cut && strings.HasPrefix(got, prefix) {
					return c.want
				}
				return got
			})
			if writes := w.of("bgppeers/tor", "/status", &before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
			if told := w.events.all()[events:]; len(told) != c.events {
				w.Errorf("%s: told %q, want %d", c.name, told, c.events)
			}
		}
		w.restarted(stop)
	})
}

// Nodes that never say why are told of in the end, and words that change all the
// time are written now and then.
func TestPeerStatusIsNotHasty(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.leave("c")
		w.controller()
		began := time.Now()
		w.router("tor", nil)
		w.untilPeer("tor", "0/2 False NotEstablished@1: Nodes a, b: no session yet.")
		if took := time.Since(began); took < settling {
			w.Errorf("it is said after %s, want %s", took, settling)
		}
		before := len(w.rest())
		began = time.Now()
		for i := 0; time.Since(began) < wordsDelay; i++ {
			w.sessions("a", failing("tor", "", fmt.Sprintf("error %d", i%2)))
			time.Sleep(100 * time.Millisecond)
		}
		w.sessions("a", failing("tor", "", "the last error"))
		w.untilPeer("tor", "0/2 False NotEstablished@1: Node a: the last error. Node b: no session yet.")
		if writes := w.of("bgppeers/", "", &before); len(writes) > 3 {
			w.Errorf("%d writes in %s", len(writes), time.Since(began))
		}
		if got := w.events.of("tor"); got != "Warning NotEstablished" {
			w.Errorf("events %s, want one", got)
		}
	})
}

func TestAdvertisementCountsNodes(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, stop := w.controller()
		w.advertise("fabric", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}})
		w.advertise("lan", v1alpha1.AdvertisementSpec{L2: &v1alpha1.L2Advertisement{}})
		counts := func() string {
			var words []string
			for _, name := range []string{"fabric", "lan"} {
				advert, err := w.herald.Advertisements.Get(w.ctx, name, metav1.GetOptions{})
				must(w, err)
				words = append(words, fmt.Sprintf("%s %d %t", name, advert.Status.Nodes, meta.IsStatusConditionTrue(advert.Status.Conditions, v1alpha1.ConditionReady)))
			}
			return strings.Join(words, ", ")
		}
		before := len(w.rest())
		for _, c := range []struct {
			name   string
			change func()
			want   string
			writes int
		}{
			{"L2 needs no peer", func() {}, "fabric 0 true, lan 3 true", 0},
			{"a peer", func() { w.router("tor", nil) }, "fabric 3 true, lan 3 true", 1},
			{"a cordoned node, and one that leaves, gathered", func() {
				w.editNode("a", cordoned)
				w.leave("b")
			}, "fabric 1 true, lan 1 true", 2},
			{"a node whose kubelet is silent", func() { w.editNode("c", condition(corev1.NodeReady, "Unknown")) }, "fabric 1 true, lan 1 true", 0},
			{"an excluded one", func() { w.editNode("c", labelled(corev1.LabelNodeExcludeBalancers, "")) }, "fabric 0 true, lan 0 true", 2},
			{"it is back", func() { w.editNode("c", func(n *corev1.Node) { delete(n.Labels, corev1.LabelNodeExcludeBalancers) }) }, "fabric 1 true, lan 1 true", 2},
			{"another selector", func() {
				w.editAdvertisement("fabric", func(s *v1alpha1.AdvertisementSpec) { s.NodeSelector = label("rack", "r1") })
			}, "fabric 0 true, lan 1 true", 1},
		} {
			c.change()
			w.until(c.name, c.want, counts)
			if writes := w.of("advertisements/", "/status", &before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
		}
		w.restarted(stop)
	})
}

// limits are who advertises the address through which Advertisement.
func (w *world) limits(address string) string {
	w.Helper()
	var words []string
	if bgp := w.vip(address).Spec.BGP; bgp != nil {
		for _, limit := range bgp.Limits {
			words = append(words, limit.Advertisement+" by "+names(limit.Nodes))
		}
	}
	return strings.Join(words, ", ")
}

func TestMaxNodes(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.advertise("fabric", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{MaxNodes: 2}})
		w.router("tor", nil)
		_, stop := w.controller()
		w.endpoints("web", "a", "b", "c")
		w.create(lb("web", local))
		w.untilService("web", "203.0.113.17 NoSession")
		w.rest()
		list := w.vip("203.0.113.17").Spec.BGP.Limits[0].Nodes
		if len(list) != 2 {
			w.Fatalf("%v advertise it, want two", list)
		}
		other := without(without([]string{"a", "b", "c"}, list[0]), list[1])[0]
		sorted := func(nodes ...string) string {
			slices.Sort(nodes)
			return "fabric by " + names(nodes)
		}
		before := len(w.rest())
		for _, c := range []struct {
			name   string
			change func()
			want   string
			writes int
		}{
			{"one is cordoned", func() { w.editNode(list[0], cordoned) }, sorted(list[1], other), 1},
			{"and comes back", func() { w.editNode(list[0], func(n *corev1.Node) { n.Spec.Unschedulable = false }) }, sorted(list[1], other), 0},
			{"its kubelet falls silent", func() { w.editNode(other, condition(corev1.NodeReady, "Unknown")) }, sorted(list[1], other), 0},
			{"its endpoint goes", func() { w.move("web", ready(list[0]), ready(list[1])) }, sorted(list...), 1},
			{"its speaker leaves", func() { w.leave(list[0]) }, sorted(list[1]), 1},
			{"all may", func() { w.editAdvertisement("fabric", func(s *v1alpha1.AdvertisementSpec) { s.BGP.MaxNodes = 0 }) }, "", 1},
		} {
			c.change()
			w.until(c.name, c.want, func() string { return w.limits("203.0.113.17") })
			if writes := w.of("virtualips/", "203.0.113.17", &before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
		}
		w.restarted(stop)
	})
}

// A rolling upgrade of the speakers moves no path of BGP whose routers wait for
// them. By L2 nobody would answer meanwhile: there the address moves.
func TestMaxNodesDuringARollingUpgrade(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.advertise("fabric", v1alpha1.AdvertisementSpec{L2: &v1alpha1.L2Advertisement{}, BGP: &v1alpha1.BGPAdvertisement{MaxNodes: 2}})
		w.router("tor", nil)
		w.editRouter("tor", func(s *v1alpha1.BGPPeerSpec) { s.GracefulRestart = &v1alpha1.GracefulRestart{} })
		_, stop := w.controller()
		w.endpoints("web", "a", "b", "c")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.rest()
		limits := w.limits("203.0.113.17")
		order := w.vip("203.0.113.17").Spec.L2.Candidates
		if len(order) != 3 {
			w.Fatalf("candidates %v, want three", order)
		}
		unmoved := func(when string) {
			w.Helper()
			w.untilCandidates("203.0.113.17", strings.Join(order, " "))
			w.rest()
			if got := w.limits("203.0.113.17"); got != limits {
				w.Errorf("%s: %s, want %s", when, got, limits)
			}
		}
		for _, node := range slices.Clone(order) {
			w.leave(node)
			order = without(order, node)
			unmoved("while " + node + " restarts")
			w.comeBack(node)
			order = append(order, node)
			unmoved("when " + node + " is back")
		}
		w.restarted(stop)
	})
}

// comeBack has the speaker of a node hold its Lease again.
func (w *world) comeBack(node string) {
	w.Helper()
	leases := w.kube.CoordinationV1().Leases("herald-system")
	lease, err := leases.Get(w.ctx, node, metav1.GetOptions{})
	must(w, err)
	now := metav1.NowMicro()
	lease.Spec.HolderIdentity, lease.Spec.RenewTime = &node, &now
	must(w, first[*coordinationv1.Lease](leases.Update(w.ctx, lease, metav1.UpdateOptions{})))
}

// announced is the condition of an address in a line, with its owner.
func (w *world) announced(address string) string {
	w.Helper()
	v := w.vip(address)
	line := ""
	if c := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionAnnounced); c != nil {
		line = fmt.Sprintf("%s %s", c.Status, c.Reason)
	}
	if v.Status.Owner != "" {
		line += " by " + v.Status.Owner
	}
	return line
}

func TestAnnouncedByBGPAlone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.advertise("fabric", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}})
		w.router("tor", nil)
		_, stop := w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		up := established("tor", "IPv4")
		fabric := func(edit func(*v1alpha1.AdvertisementSpec)) func() {
			return func() { w.editAdvertisement("fabric", edit) }
		}
		l2 := &v1alpha1.L2Advertisement{}
		before := len(w.rest())
		for _, c := range []struct {
			name   string
			change func()
			want   string
			writes int // of its status
			told   string
		}{
			{"no endpoint", func() {}, "False NoReadyEndpoints", 0, ""},
			{"no session", func() { w.endpoints("web", "a") }, "False NoSession", 1, "Warning NoSession"},
			{"a session", func() { w.sessions("b", up) }, "True Advertised", 1, "Normal Advertised"},
			{"and another", func() { w.sessions("c", up) }, "True Advertised", 0, ""},
			{"one goes", func() { w.sessions("b", failing("tor", "", "x")) }, "True Advertised", 0, ""},
			{"the last one goes", func() { w.sessions("c", failing("tor", "", "x")) }, "False NoSession", 1, "Warning NoSession"},
			{"one is back", func() { w.sessions("c", up) }, "True Advertised", 1, "Normal Advertised"},
			{"its service proxy fails", func() {
				w.speaker("c", func(s *v1alpha1.SpeakerStatus) { s.Conditions = proxy(speakerWith("c"), "False").Status.Conditions })
			},
				"False NoSession", 1, "Warning NoSession"},
			{"and another node's does not", func() { w.sessions("a", up) }, "True Advertised", 1, "Normal Advertised"},
			{"somebody else has another opinion", func() { w.says("203.0.113.17", func(s *v1alpha1.VirtualIPStatus) { s.Conditions = nil }) }, "True Advertised", 2, ""},
			{"the endpoints go", func() { w.move("web") }, "False NoReadyEndpoints", 1, "Warning NoReadyEndpoints"},
			{"and are back", func() { w.move("web", ready("a")) }, "True Advertised", 1, "Normal Advertised"},
			{"L2 as well: the owner says it", fabric(func(s *v1alpha1.AdvertisementSpec) { s.L2 = l2 }), "True Advertised", 0, ""},
			{"as it does", func() { w.says("203.0.113.17", ownedBy("b")) }, "True Announced by b", 1, ""},
			{"whatever becomes of the sessions", func() { w.sessions("a", failing("tor", "", "x")) }, "True Announced by b", 0, ""},
			{"L2 no more: nobody owns it", fabric(func(s *v1alpha1.AdvertisementSpec) { s.L2 = nil }), "False NoSession", 1, "Warning NoSession"},
			{"no Advertisement for the Service", fabric(func(s *v1alpha1.AdvertisementSpec) { s.ServiceSelector = label("app", "db") }),
				"False NoCandidates", 1, "Warning NoCandidates"},
		} {
			told := len(w.events.of("web"))
			c.change()
			w.until(c.name, c.want, func() string { return w.announced("203.0.113.17") })
			if writes := w.of("virtualips/", "/status", &before); len(writes) != c.writes {
				w.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
			}
			if got := strings.TrimPrefix(w.events.of("web")[told:], ", "); got != c.told {
				w.Errorf("%s: told %q, want %q", c.name, got, c.told)
			}
		}
		w.restarted(stop)
	})
}
