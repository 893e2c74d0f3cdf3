package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func TestWhatOfASpeakerMatters(t *testing.T) {
	tor, rot := established("tor", "IPv4", "IPv6"), established("rot", "IPv4")
	busy := tor
	busy.Advertised, busy.Refused, busy.BFD = 7, 9, "Up"
	with := func(sessions ...v1alpha1.SpeakerBGPSession) *v1alpha1.Speaker { return speakerWith("a", sessions...) }
	for _, c := range []struct {
		name          string
		before, after *v1alpha1.Speaker
		offers        bool
	}{
		{"nothing", with(tor), with(tor), false},
		{"counts and BFD", with(tor, rot), with(rot, busy), false},
		{"a new session", with(rot), with(rot, tor), true},
		{"one that is not up", with(rot), with(rot, failing("tor", "", "x")), false},
		{"other words", with(failing("tor", "", "y")), with(failing("tor", "", "x")), false},
		{"one is lost", with(rot, tor), with(rot, failing("tor", "", "x")), true},
		{"all are gone", with(rot, tor), with(), true},
		{"a family less", with(tor), with(established("tor", "IPv4")), true},
		{"the service proxy fails", with(tor), proxy(with(tor), "False"), true},
		{"the service proxy is first heard of", with(tor), proxy(with(tor), "True"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
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

func TestAdvertisementCountsNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
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
			t.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
		}
	}
	w.restarted(stop)
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
	w := newWorld(t)
	w.pool("public", nil, "203.0.113.17/32")
	w.advertise("fabric", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{MaxNodes: 2}})
	w.router("tor", nil)
	_, stop := w.controller()
	w.endpoints("web", "a", "b", "c")
	w.create(lb("web", local))
	w.untilService("web", "203.0.113.17 AddressAssigned")
	w.rest()
	list := w.vip("203.0.113.17").Spec.BGP.Limits[0].Nodes
	if len(list) != 2 {
		t.Fatalf("%v advertise it, want two", list)
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
			t.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
		}
	}
	w.restarted(stop)
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
	w := newWorld(t)
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
		{"no session", func() { w.endpoints("web", "a") }, "False NoSession", 1, ""},
		{"a session", func() { w.sessions("b", up) }, "True Advertised", 1, ""},
		{"and another", func() { w.sessions("c", up) }, "True Advertised", 0, ""},
		{"one goes", func() { w.sessions("b", failing("tor", "", "x")) }, "True Advertised", 0, ""},
		{"the last one goes", func() { w.sessions("c", failing("tor", "", "x")) }, "False NoSession", 1, "Warning NoSession"},
		{"one is back", func() { w.sessions("c", up) }, "True Advertised", 1, ""},
		{"its service proxy fails", func() {
			w.speaker("c", func(s *v1alpha1.SpeakerStatus) { s.Conditions = proxy(speakerWith("c"), "False").Status.Conditions })
		},
			"False NoSession", 1, "Warning NoSession"},
		{"and another node's does not", func() { w.sessions("a", up) }, "True Advertised", 1, ""},
		{"somebody else has another opinion", func() { w.says("203.0.113.17", func(s *v1alpha1.VirtualIPStatus) { s.Conditions = nil }) }, "True Advertised", 2, ""},
		{"the endpoints go", func() { w.move("web") }, "False NoReadyEndpoints", 1, "Warning NoReadyEndpoints"},
		{"and are back", func() { w.move("web", ready("a")) }, "True Advertised", 1, ""},
		{"L2 as well: the owner says it", fabric(func(s *v1alpha1.AdvertisementSpec) { s.L2 = l2 }), "True Advertised", 0, ""},
		{"as it does", func() { w.says("203.0.113.17", ownedBy("b")) }, "True Announced by b", 1, ""},
		{"whatever becomes of the sessions", func() { w.sessions("a", failing("tor", "", "x")) }, "True Announced by b", 0, ""},
		{"L2 no more: nobody owns it", fabric(func(s *v1alpha1.AdvertisementSpec) { s.L2 = nil }), "False NoSession", 1, "Warning NoSession"},
		{"no Advertisement for the Service", fabric(func(s *v1alpha1.AdvertisementSpec) { s.ServiceSelector = label("app", "db") }),
			"False NoCandidates", 1, "Warning NoCandidates, Normal AddressAssigned"},
	} {
		told := len(w.events.of("web"))
		c.change()
		w.until(c.name, c.want, func() string { return w.announced("203.0.113.17") })
		if writes := w.of("virtualips/", "/status", &before); len(writes) != c.writes {
			t.Errorf("%s: writes %q, want %d", c.name, writes, c.writes)
		}
		if got := strings.TrimPrefix(w.events.of("web")[told:], ", "); got != c.told {
			t.Errorf("%s: told %q, want %q", c.name, got, c.told)
		}
	}
	w.restarted(stop)
}
