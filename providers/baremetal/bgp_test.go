package baremetal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// peerFor is a BGPPeer for the nodes that the selector chooses.
func peerFor(name string, nodes *metav1.LabelSelector) bgpPeer {
	parsed, _ := parsePeer(&v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BGPPeerSpec{NodeSelector: nodes}})
	return parsed
}

// keeping is a BGPPeer with graceful restart.
func keeping(name string) bgpPeer {
	parsed, _ := parsePeer(&v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BGPPeerSpec{GracefulRestart: &v1alpha1.GracefulRestart{}}})
	return parsed
}

// established is a session with the peer, of both families if none is given,
// and failing one that is not, for that reason and in those words.
func established(peer string, families ...string) v1alpha1.SpeakerBGPSession {
	return v1alpha1.SpeakerBGPSession{Peer: peer, State: "Established", Families: families}
}

func failing(peer string, reason v1alpha1.Reason, words string) v1alpha1.SpeakerBGPSession {
	return v1alpha1.SpeakerBGPSession{Peer: peer, State: "Active", Reason: reason, LastError: words}
}

func speakerWith(node string, sessions ...v1alpha1.SpeakerBGPSession) *v1alpha1.Speaker {
	return &v1alpha1.Speaker{ObjectMeta: metav1.ObjectMeta{Name: node}, Status: v1alpha1.SpeakerStatus{BGP: sessions}}
}

// proxy sets what a Speaker says of its service proxy.
func proxy(speaker *v1alpha1.Speaker, status metav1.ConditionStatus) *v1alpha1.Speaker {
	meta.SetStatusCondition(&speaker.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionServiceProxyHealthy, Status: status, Reason: "X"})
	return speaker
}

// serves is a Service with endpoints on the nodes, servesLocally one of policy
// Local.
func serves(nodes ...string) tenant {
	t := tenant{serving: serving{nodes: map[string]bool{}}}
	for _, node := range nodes {
		t.serving.nodes[node] = true
	}
	return t
}

func servesLocally(nodes ...string) tenant {
	t := serves(nodes...)
	t.local = true
	return t
}

func fabric(edits ...func(*v1alpha1.AdvertisementSpec)) advertisement {
	spec := v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}}
	for _, edit := range edits {
		edit(&spec)
	}
	parsed, _ := adv("fabric", spec)
	return parsed
}

func atMost(nodes int32) func(*v1alpha1.AdvertisementSpec) {
	return func(s *v1alpha1.AdvertisementSpec) { s.BGP.MaxNodes = nodes }
}

func towards(peers ...string) func(*v1alpha1.AdvertisementSpec) {
	return func(s *v1alpha1.AdvertisementSpec) { s.BGP.Peers = peers }
}

func from(key, value string) func(*v1alpha1.AdvertisementSpec) {
	return func(s *v1alpha1.AdvertisementSpec) { s.NodeSelector = label(key, value) }
}

// fourNodes are a, b, c and d, edited, in no order.
func fourNodes(edits map[string]func(*corev1.Node)) []*corev1.Node {
	var nodes []*corev1.Node
	for _, name := range []string{"c", "a", "d", "b"} {
		n := node(name)
		if edit := edits[name]; edit != nil {
			edit(n)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func TestLimit(t *testing.T) {
	type edits = map[string]func(*corev1.Node)
	excluded := labelled(corev1.LabelNodeExcludeBalancers, "")
	rack := labelled("rack", "r1")
	for _, c := range []struct {
		name    string
		by      advertisement
		tenants []tenant
		current []string
		asleep  string
		back    string // who has left a moment ago
		nodes   edits
		peers   []bgpPeer
		want    string
	}{
		{name: "whose speaker restarts stays: routers keep its routes", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", back: "a", peers: []bgpPeer{keeping("tor")}, want: "a d"},
		{name: "for a while", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", nodes: edits{"b": excluded}, peers: []bgpPeer{keeping("tor")}, want: "c d"},
		{name: "routers that keep nothing have another at once", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", back: "a", nodes: edits{"b": excluded}, want: "c d"},
		{name: "also one of two", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", back: "a", nodes: edits{"b": excluded}, peers: []bgpPeer{keeping("tor"), peerFor("rot", nil)}, want: "c d"},
		{name: "not one of another Advertisement", by: fabric(atMost(2), towards("tor")), current: []string{"a", "d"}, asleep: "a", back: "a", peers: []bgpPeer{keeping("tor"), peerFor("rot", nil)}, want: "a d"},
		{name: "who advertised nothing does not begin", by: fabric(atMost(2)), current: []string{"d"}, asleep: "ac", back: "a", peers: []bgpPeer{keeping("tor")}, want: "b d"},
		{name: "a drained node does not come back", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", back: "a", nodes: edits{"a": cordoned, "b": excluded}, peers: []bgpPeer{keeping("tor")}, want: "c d"},
		{name: "nor one about to be deleted", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", back: "a", nodes: edits{"a": tainted("karpenter.sh/disrupted"), "b": excluded}, peers: []bgpPeer{keeping("tor")}, want: "c d"},
		{name: "Local: the endpoint has gone meanwhile", by: fabric(atMost(1)), tenants: []tenant{servesLocally("c")}, current: []string{"a"}, asleep: "a", back: "a", peers: []bgpPeer{keeping("tor")}, want: "c"},
		{name: "who advertises goes on", by: fabric(atMost(2)), current: []string{"b", "d"}, want: "b d"},
		{name: "who died is replaced", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "a", nodes: edits{"b": excluded}, want: "c d"},
		{name: "who is back waits", by: fabric(atMost(2)), current: []string{"c", "d"}, want: "c d"},
		{name: "more than there are", by: fabric(atMost(2_000_000_000)), want: "a b c d"},
		{name: "only nodes that are selected", by: fabric(atMost(3), from("rack", "r1")), current: []string{"a", "b"}, nodes: edits{"b": rack, "c": rack}, want: "b c"},
		{name: "excluded", by: fabric(atMost(3)), current: []string{"a", "b"}, nodes: edits{"a": excluded}, want: "b c d"},
		{name: "about to be deleted", by: fabric(atMost(3)), current: []string{"a", "b"}, nodes: edits{"a": tainted("karpenter.sh/disrupted")}, want: "b c d"},
		{name: "without a network", by: fabric(atMost(3)), nodes: edits{"a": condition(corev1.NodeNetworkUnavailable, "True")}, want: "b c d"},
		{name: "kubelet is silent, the service proxy is not", by: fabric(atMost(2)), current: []string{"a", "b"}, nodes: edits{"a": condition(corev1.NodeReady, "Unknown")}, want: "a b"},
		{name: "Local: with an endpoint", by: fabric(atMost(3)), tenants: []tenant{servesLocally("b", "d")}, current: []string{"a", "b"}, want: "b d"},
		{name: "Local: one moves", by: fabric(atMost(1)), tenants: []tenant{servesLocally("c")}, current: []string{"b"}, want: "c"},
		{name: "Local without endpoint: it waits", by: fabric(atMost(2)), tenants: []tenant{servesLocally()}, current: []string{"a", "d"}, want: "a d"},
		{name: "a cordoned node leaves it to others", by: fabric(atMost(3)), current: []string{"a", "b"}, nodes: edits{"a": cordoned}, want: "b c d"},
		{name: "unless there is none", by: fabric(atMost(2)), tenants: []tenant{servesLocally("a", "b")}, current: []string{"a"}, nodes: edits{"a": cordoned, "b": cordoned}, want: "a b"},
		{name: "no speaker seems to live: the list stays", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "abcd", want: "a d"},
		{name: "as far as its nodes may", by: fabric(atMost(2)), current: []string{"a", "d"}, asleep: "abcd", nodes: edits{"a": excluded}, want: "d"},
		{name: "nobody ever", by: fabric(atMost(2)), asleep: "abcd", want: ""},
		{name: "a node without a peer would advertise to nobody", by: fabric(atMost(3)), current: []string{"a", "b"}, nodes: edits{"b": rack},
			peers: []bgpPeer{peerFor("tor", label("rack", "r1"))}, want: "b"},
		{name: "nor would one whose peer is another Advertisement's", by: fabric(atMost(3), towards("tor")), nodes: edits{"b": rack},
			peers: []bgpPeer{peerFor("tor", label("rack", "r1")), peerFor("rot", nil)}, want: "b"},
		{name: "no peer at all", by: fabric(atMost(3)), peers: []bgpPeer{}, want: ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scene{
				addr: seventeen, tenants: c.tenants, nodes: fourNodes(c.nodes), bgpPeers: c.peers,
				alive:     func(node string) bool { return !strings.Contains(c.asleep, node) },
				returning: func(node string) bool { return strings.Contains(c.back, node) },
				limits:    []v1alpha1.BGPLimit{{Advertisement: "other", Nodes: []string{"c"}}, {Advertisement: "fabric", Nodes: c.current}},
			}
			if c.tenants == nil {
				s.tenants = []tenant{serves("x")}
			}
			if c.peers == nil {
				s.bgpPeers = []bgpPeer{peerFor("tor", nil)}
			}
			got := s.limit(&c.by)
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want [%s]", got, c.want)
			}
			s.limits[1].Nodes = got
			if again := s.limit(&c.by); !slices.Equal(again, got) {
				t.Errorf("then %v: it does not come to rest", again)
			}
		})
	}
}

// Nothing moves but what a node that goes leaves behind; addresses are spread,
// also after fewer nodes are allowed than before.
func TestLimitsSpreadAndStay(t *testing.T) {
	const addresses, nodes = 1000, 10
	var all []*corev1.Node
	for _, name := range nodeNames(nodes) {
		all = append(all, node(name))
	}
	gone := ""
	lists := make([][]string, addresses)
	place := func(most int32) map[string]int {
		by := fabric(atMost(most))
		load := map[string]int{}
		for i := range lists {
			s := &scene{
				addr: address(i), tenants: []tenant{serves("x")}, nodes: all, bgpPeers: []bgpPeer{peerFor("tor", nil)},
				alive:  func(node string) bool { return node != gone },
				limits: []v1alpha1.BGPLimit{{Advertisement: "fabric", Nodes: lists[i]}},
			}
			lists[i] = s.limit(&by)
			if len(lists[i]) != int(most) || !slices.IsSorted(lists[i]) {
				t.Fatalf("%s: %v, want %d, sorted", s.addr, lists[i], most)
			}
			for _, name := range lists[i] {
				load[name]++
			}
		}
		return load
	}
	even := func(when string, load map[string]int, nodes int, most int32) {
		for name, n := range load {
			if average := addresses * int(most) / nodes; n < average*7/10 || n > average*13/10 {
				t.Errorf("%s: %s advertises %d, and the average is %d", when, name, n, average)
			}
		}
		if len(load) != nodes {
			t.Errorf("%s: %d nodes advertise, want %d", when, len(load), nodes)
		}
	}
	even("at first", place(3), nodes, 3)
	before := slices.Clone(lists)
	gone = "node-3"
	even("without one", place(3), nodes-1, 3)
	for i := range lists {
		if kept := without(before[i], gone); len(intersection(kept, lists[i])) != len(kept) {
			t.Fatalf("%s: %v became %v when %s went", address(i), before[i], lists[i], gone)
		}
	}
	before, gone = slices.Clone(lists), ""
	place(3)
	if diff := cmp.Diff(before, lists); diff != "" {
		t.Errorf("something moved when the node returned: %s", diff)
	}
	even("with fewer each", place(2), nodes-1, 2)
}

func intersection(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return !slices.Contains(b, s) })
}

func TestByBGP(t *testing.T) {
	one, _ := adv("one", v1alpha1.AdvertisementSpec{L2: &v1alpha1.L2Advertisement{}})
	two, _ := adv("two", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{MaxNodes: 9}, NodeSelector: label("rack", "r1")})
	s := &scene{
		addr: seventeen, tenants: []tenant{serves("x")}, bgpPeers: []bgpPeer{peerFor("tor", nil)},
		nodes: fourNodes(map[string]func(*corev1.Node){"c": labelled("rack", "r1")}), alive: func(string) bool { return true },
	}
	if got := s.byBGP([]advertisement{one}); got != nil {
		t.Errorf("an Advertisement for L2 gives %+v", got)
	}
	got := s.byBGP([]advertisement{two, one, fabric(atMost(4))})
	want := &v1alpha1.BGPPlacement{Advertisements: []string{"fabric", "two"}, Limits: []v1alpha1.BGPLimit{
		{Advertisement: "fabric", Nodes: []string{"a", "b", "c", "d"}}, {Advertisement: "two", Nodes: []string{"c"}},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestParticipants(t *testing.T) {
	for _, c := range []struct {
		name  string
		by    advertisement
		nodes map[string]func(*corev1.Node)
		peers []bgpPeer
		want  int32
	}{
		{"all that live", fabric(), nil, []bgpPeer{peerFor("tor", nil)}, 3},
		{"not a cordoned one", fabric(), map[string]func(*corev1.Node){"a": cordoned}, []bgpPeer{peerFor("tor", nil)}, 2},
		{"one whose kubelet is silent", fabric(), map[string]func(*corev1.Node){"a": condition(corev1.NodeReady, "Unknown")}, []bgpPeer{peerFor("tor", nil)}, 3},
		{"not an excluded one, nor one that is to be deleted, nor one without network", fabric(), map[string]func(*corev1.Node){
			"a": labelled(corev1.LabelNodeExcludeBalancers, ""), "b": tainted("ToBeDeletedByClusterAutoscaler"), "c": condition(corev1.NodeNetworkUnavailable, "True"),
		}, []bgpPeer{peerFor("tor", nil)}, 0},
		{"of those selected", fabric(from("rack", "r1")), map[string]func(*corev1.Node){"a": labelled("rack", "r1"), "d": labelled("rack", "r1")}, []bgpPeer{peerFor("tor", nil)}, 1},
		{"with a peer", fabric(), map[string]func(*corev1.Node){"a": labelled("rack", "r1")}, []bgpPeer{peerFor("tor", label("rack", "r1"))}, 1},
		{"L2 needs none", everywhere, nil, nil, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			alive := func(node string) bool { return node != "d" }
			if got := participants(&c.by, c.peers, fourNodes(c.nodes), alive); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestUnadvertised(t *testing.T) {
	type edits = map[string]func(*corev1.Node)
	none := func(reasons string) string {
		return `No node advertises the address through Advertisement "fabric": ` + reasons + "."
	}
	on := func(speakers ...*v1alpha1.Speaker) []*v1alpha1.Speaker { return speakers }
	for _, c := range []struct {
		name     string
		by       []advertisement
		addr     string
		tenants  []tenant
		nodes    edits
		speakers []*v1alpha1.Speaker
		limits   []v1alpha1.BGPLimit
		back     string // who has left, or come, a moment ago
		want     string
	}{
		{name: "routers keep the routes of a speaker that restarts", by: []advertisement{fabric(towards("rot"))}, speakers: on(speakerWith("d", established("rot"))), back: "d", want: ""},
		{name: "and that has not got its session again", by: []advertisement{fabric(towards("rot"))}, speakers: on(speakerWith("b", failing("rot", "", ""))), back: "b", want: ""},
		{name: "others do not", by: []advertisement{fabric(towards("tor"))}, speakers: on(speakerWith("d", established("tor"))), back: "d", want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "it restarts on a node over maxNodes", by: []advertisement{fabric(towards("rot"), atMost(1))}, limits: []v1alpha1.BGPLimit{{Advertisement: "fabric", Nodes: []string{"a"}}},
			speakers: on(speakerWith("d", established("rot"))), back: "d", want: none("NoSession: a; OverMaxNodes: b, c, d")},
		{name: "one session of one node is enough", speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "no Speaker has said anything", want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "no session", speakers: on(speakerWith("b", failing("tor", "", ""))), want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "a session of a dead speaker", speakers: on(speakerWith("d", established("tor"))), want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "with a peer of the Advertisement", by: []advertisement{fabric(towards("tor"))}, speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "with another one", by: []advertisement{fabric(towards("tor"))}, speakers: on(speakerWith("b", established("rot"))), want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "of the family", speakers: on(speakerWith("b", established("tor", "IPv6", "IPv4"))), want: ""},
		{name: "of the other family", speakers: on(speakerWith("b", established("tor", "IPv6"))), want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "IPv6", addr: "2001:db8::17", speakers: on(speakerWith("b", established("tor", "IPv6"))), want: ""},
		{name: "from a node that is not selected", by: []advertisement{fabric(from("rack", "r1"))}, nodes: edits{"a": labelled("rack", "r1")},
			speakers: on(speakerWith("b", established("tor"))), want: none("NoSession: a; NotSelected: b, c, d")},
		{name: "of a node that is excluded", nodes: edits{"b": labelled(corev1.LabelNodeExcludeBalancers, "")}, speakers: on(speakerWith("b", established("tor"))),
			want: none("NoSession: a, c; NoSpeaker: d; NodeExcluded: b")},
		{name: "of a node whose kubelet is silent", nodes: edits{"b": condition(corev1.NodeReady, "Unknown")}, speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "its service proxy is well", speakers: on(proxy(speakerWith("b", established("tor")), "True")), want: ""},
		{name: "its service proxy is not well", speakers: on(proxy(speakerWith("b", established("tor")), "False")),
			want: none("NoSession: a, c; NoSpeaker: d; ProxyNotHealthy: b")},
		{name: "Local: no endpoint there", tenants: []tenant{servesLocally("a", "d")}, speakers: on(speakerWith("b", established("tor"))),
			want: none("NoLocalEndpoint: b, c; NoSession: a; NoSpeaker: d")},
		{name: "Local: an endpoint", tenants: []tenant{servesLocally("b")}, speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "cordoned, and others have no session: it has handed over", nodes: edits{"b": cordoned}, speakers: on(speakerWith("b", established("tor"))),
			want: none("NoSession: a, c; NoSpeaker: d; NodeCordoned: b")},
		{name: "cordoned, and there is no other", nodes: edits{"a": cordoned, "b": cordoned, "c": cordoned}, speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "all cordoned, and no session", nodes: edits{"a": cordoned, "b": cordoned, "c": cordoned}, want: none("NoSession: a, b, c; NoSpeaker: d")},
		{name: "Local: its endpoint serves on a cordoned node", tenants: []tenant{servesLocally("a", "b")}, nodes: edits{"b": cordoned},
			speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "within maxNodes", by: []advertisement{fabric(atMost(1))}, limits: []v1alpha1.BGPLimit{{Advertisement: "fabric", Nodes: []string{"b"}}},
			speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "over maxNodes", by: []advertisement{fabric(atMost(1))}, limits: []v1alpha1.BGPLimit{{Advertisement: "fabric", Nodes: []string{"a"}}},
			speakers: on(speakerWith("b", established("tor"))), want: none("NoSession: a; NoSpeaker: d; OverMaxNodes: b, c")},
		{name: "through one of two", by: []advertisement{fabric(towards("rot")), fabric(towards("tor"))}, speakers: on(speakerWith("b", established("tor"))), want: ""},
		{name: "an Advertisement for L2 has no say", by: []advertisement{everywhere, fabric()}, want: none("NoSession: a, b, c; NoSpeaker: d")},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scene{
				addr: seventeen, tenants: c.tenants, nodes: fourNodes(c.nodes), bgpPeers: []bgpPeer{peerFor("tor", nil), keeping("rot")},
				alive:     func(node string) bool { return node != "d" },
				returning: func(node string) bool { return node == c.back },
				speaker: func(node string) *v1alpha1.Speaker {
					i := slices.IndexFunc(c.speakers, func(s *v1alpha1.Speaker) bool { return s.Name == node })
					if i < 0 {
						return nil
					}
					return c.speakers[i]
				},
			}
			if c.addr != "" {
				s.addr = netip.MustParseAddr(c.addr)
			}
			if c.tenants == nil {
				s.tenants = []tenant{serves("x")}
			}
			by := c.by
			if by == nil {
				by = []advertisement{fabric()}
			}
			if _, got := s.advertised(by, c.limits); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestAnnouncement(t *testing.T) {
	l2, bgp := &v1alpha1.L2Placement{}, &v1alpha1.BGPPlacement{}
	said := func(owner string, status metav1.ConditionStatus) v1alpha1.VirtualIPStatus {
		s := v1alpha1.VirtualIPStatus{Owner: owner}
		if status != "" {
			meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionAnnounced, Status: status, Reason: "X"})
		}
		return s
	}
	advertised, routers := "True Advertised: Advertised by BGP to router tor.", []string{"tor"}
	owned := &v1alpha1.L2Placement{Candidates: []string{"a"}}
	for _, c := range []struct {
		name string
		said v1alpha1.VirtualIPStatus
		p    placement
		want string // "" leaves it as it is
	}{
		{"BGP alone", said("", ""), placement{bgp: bgp, routers: routers}, advertised},
		{"BGP alone, and nobody does", said("", ""), placement{bgp: bgp, why: "w"}, "False NoSession: w"},
		{"BGP alone, held", said("", ""), placement{bgp: bgp, hold: v1alpha1.NoReadyEndpoints, why: "w"}, "False NoReadyEndpoints: w"},
		{"BGP alone, after L2", said("a", "True"), placement{bgp: bgp, routers: routers}, advertised},
		{"L2", said("a", "True"), placement{l2: l2}, ""},
		{"L2, and no owner yet", said("", ""), placement{l2: l2}, ""},
		{"L2 and BGP", said("", "False"), placement{l2: owned, bgp: bgp}, ""},
		{"L2 without a candidate, and BGP", said("", "False"), placement{l2: l2, bgp: bgp, routers: routers}, advertised},
		{"BGP to some", said("", ""), placement{bgp: bgp, routers: []string{"rot", "tor"}}, "True Advertised: Advertised by BGP to 2 routers: rot, tor."},
		{"the owner is lost", said("a", "True"), placement{l2: owned, lost: "w"}, "Unknown SpeakerLost: w"},
		{"those who advertise are lost", said("", "True"), placement{bgp: bgp, why: "w", lost: "w"}, "Unknown SpeakerLost: w"},
		{"held, and the owner is lost", said("a", "Unknown"), placement{l2: owned, hold: v1alpha1.NoReadyEndpoints, why: "w"}, "False NoReadyEndpoints: w"},
		{"L2 after BGP alone", said("", "True"), placement{l2: l2}, ""},
		{"L2, held, and it had an owner", said("a", "True"), placement{l2: l2, hold: v1alpha1.NoReadyEndpoints, why: "w"}, "False NoReadyEndpoints: w"},
		{"L2, held, whatever was said", said("", "False"), placement{l2: l2, hold: v1alpha1.NoReadyEndpoints, why: "w"}, "False NoReadyEndpoints: w"},
		{"L2, held, after BGP alone", said("", "True"), placement{l2: l2, hold: v1alpha1.NoReadyEndpoints, why: "w"}, "False NoReadyEndpoints: w"},
		{"no Advertisement, after BGP alone", said("", "False"), placement{hold: v1alpha1.NoCandidates, why: "w"}, "False NoCandidates: w"},
		{"reserved, and never used", said("", ""), placement{hold: v1alpha1.Unclaimed, why: "w"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if condition, ours := announcement(&c.said, &c.p); ours {
				got = fmt.Sprintf("%s %s: %s", condition.Status, condition.Reason, condition.Message)
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
