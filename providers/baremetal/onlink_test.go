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

// on4 and on6 are links that contain the addresses of the tests; apart is one that does not.
const (
	on4   = "203.0.113.%/24"
	on6   = "2001:db8::%/64"
	apart = "198.51.100.%/24"
)

func TestOnlyNodesOnTheLinkAreCandidates(t *testing.T) {
	type spec = v1alpha1.AdvertisementSpec
	six := netip.MustParseAddr("2001:db8::17")
	l2 := func(interfaces ...string) *v1alpha1.L2Advertisement {
		return &v1alpha1.L2Advertisement{Interfaces: interfaces}
	}
	excluded := labelled(corev1.LabelNodeExcludeBalancers, "")
	for _, c := range []struct {
		name    string
		addr    netip.Addr
		links   string // node=link, with % for a number
		current []string
		owner   string
		asleep  string
		back    string // who restarts
		adverts map[string]spec
		nodes   map[string]func(*corev1.Node)
		local   string
		want    string
		off     bool
	}{
		{name: "nobody said anything", current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []"},
		{name: "one of three", links: "a=" + apart + " b=" + on4 + " c=" + apart, want: "l2 by [b] on []"},
		{name: "two of three, one of them by its second link", links: "a=" + apart + " b=" + on4 + " c=" + apart + " c=" + on4, current: []string{"c", "b"}, want: "l2 by [c b] on []"},
		{name: "the other family does not count", links: "a=" + on6 + " b=" + on4 + " c=" + on6, want: "l2 by [b] on []"},
		{name: "IPv6", addr: six, links: "a=" + on6 + " b=" + on4 + " c=" + on4, want: "l2 by [a] on []"},
		{name: "IPv6 on no link", addr: six, links: "a=" + on4 + " b=" + on4 + " c=2001:db8:1::%/64", current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []", off: true},
		{name: "on no link: as before, and told", links: "a=" + apart + " b=" + apart + " c=" + apart, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []", off: true},
		{name: "the address itself, as kube-proxy has it in mode IPVS, is no link", links: "a=203.0.113.17/32 b=" + apart + " c=" + apart, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []", off: true},
		{name: "an owner elsewhere makes way: the one on the link takes it, then the owner lets go", links: "a=" + apart + " b=" + on4 + " c=" + apart, owner: "a", current: []string{"a", "c", "b"}, want: "l2 by [b] on []"},
		{name: "who comes later comes after", links: "a=" + on4 + " b=" + on4 + " c=" + apart, owner: "b", current: []string{"b"}, want: "l2 by [b a] on []"},
		{name: "a candidate that has not said what links it has stays, and nobody becomes one so", links: "b=" + on4, current: []string{"b", "a"}, want: "l2 by [b a] on []"},

		{name: "an Advertisement names interfaces", links: "a=" + apart + " b=" + on4 + " c=" + apart, adverts: map[string]spec{"one": {L2: l2("eth1")}}, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on [eth1]"},
		{name: "an Advertisement names nodes", links: "a=" + apart + " b=" + on4, adverts: map[string]spec{"one": {L2: l2(), NodeSelector: label("rack", "r1")}}, nodes: map[string]func(*corev1.Node){"a": labelled("rack", "r1")}, want: "l2 by [a] on []"},
		{name: "one that names neither does not", links: "a=" + apart + " b=" + on4 + " c=" + apart, adverts: map[string]spec{"one": {L2: l2()}}, want: "l2 by [b] on []"},
		{name: "one for BGP that names nodes does not", links: "a=" + apart + " b=" + on4 + " c=" + apart, adverts: map[string]spec{"one": {L2: l2()}, "tor": {BGP: &v1alpha1.BGPAdvertisement{}, NodeSelector: label("rack", "r1")}},
			want: "l2 by [b] on []; bgp [tor]"},
		{name: "BGP needs no link", links: "a=" + apart + " b=" + on4 + " c=" + apart, adverts: map[string]spec{"tor": {BGP: &v1alpha1.BGPAdvertisement{}}}, want: "bgp [tor]"},

		{name: "a speaker that is dead does not count", links: "a=" + apart + " b=" + on4 + " c=" + apart, asleep: "b", current: []string{"b", "a", "c"}, want: "l2 by [a c] on []", off: true},
		{name: "one that restarts does, and keeps the address", links: "a=" + apart + " b=" + on4 + " c=" + apart, asleep: "b", back: "b", current: []string{"b"}, want: "l2 by [b] on []"},
		{name: "two on the link, and the owner's speaker is dead", links: "a=" + on4 + " b=" + on4 + " c=" + apart, asleep: "b", owner: "b", current: []string{"b", "a"}, want: "l2 by [a] on []"},
		{name: "all asleep: the list stays", links: "a=" + apart + " b=" + on4 + " c=" + apart, asleep: "abc", current: []string{"a", "b"}, want: "l2 by [a b] on []", off: true},
		{name: "the only one loses its link: the owner stays first", links: "a=" + apart + " b=" + apart + " c=" + apart, owner: "b", current: []string{"b"}, want: "l2 by [b a c] on []", off: true},
		{name: "and has it again", links: "a=" + apart + " b=" + on4 + " c=" + apart, owner: "b", current: []string{"b", "a", "c"}, want: "l2 by [b] on []"},

		{name: "those on the link may not", links: "a=" + apart + " b=" + on4 + " c=" + apart, nodes: map[string]func(*corev1.Node){"b": excluded},
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NodeExcluded: b; NotOnLink: a, c. A node takes part again without the label node.kubernetes.io/exclude-from-external-load-balancers."},
		{name: "Local: the endpoint is elsewhere", links: "a=" + apart + " b=" + on4 + " c=" + apart, local: "c",
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NoLocalEndpoint: b; NotOnLink: a, c."},
	} {
		t.Run(c.name, func(t *testing.T) {
			tenants := []tenant{serves("x")}
			if c.local != "" {
				tenants = []tenant{servesLocally(c.local)}
			}
			addr := seventeen
			if c.addr.IsValid() {
				addr = c.addr
			}
			known, speakers := newLinks(), map[string]*v1alpha1.Speaker{}
			for i, pair := range strings.Fields(c.links) {
				node, prefix, _ := strings.Cut(pair, "=")
				if speakers[node] == nil {
					speakers[node] = speakerWith(node, established("tor"))
				}
				status := &speakers[node].Status
				status.Interfaces = append(status.Interfaces, v1alpha1.SpeakerInterface{Name: "eth" + string(rune('0'+i)), Prefixes: []string{strings.Replace(prefix, "%", string(rune('2'+i)), 1)}})
				known.set(node, linkPrefixes(speakers[node]))
			}
			alive := func(node string) bool { return !strings.Contains(c.asleep, node) }
			s := &scene{
				addr: addr, current: c.current, owner: c.owner, pool: "public", tenants: tenants, alive: alive,
				speaker: func(node string) *v1alpha1.Speaker { return speakers[node] },
				links:   known.prefixes, present: func(node string) bool { return alive(node) || c.back == node },
				bgpPeers: []bgpPeer{peerFor("tor", nil)},
			}
			for _, name := range []string{"one", "tor"} {
				if spec, ok := c.adverts[name]; ok {
					parsed, _ := adv(name, spec)
					s.advertisements = append(s.advertisements, parsed)
				}
			}
			for _, name := range []string{"c", "a", "b"} {
				n := node(name)
				if edit := c.nodes[name]; edit != nil {
					edit(n)
				}
				s.nodes = append(s.nodes, n)
			}
			placed := place(s)
			if placed.hold == "" {
				placed.why = "" // of BGP, which other tests are about
			}
			if got := placed.String(); got != c.want || placed.offLink != c.off {
				t.Errorf("off link: %t\ngot  %s\nwant %s", placed.offLink, got, c.want)
			}
		})
	}
}

// What a set of links says depends on what each node said last alone.
func TestLinksForgetNothingAndKeepNothing(t *testing.T) {
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	l := newLinks()
	tell := func() string {
		var words []string
		for _, p := range l.prefixes {
			var nodes []string
			for node := range p.nodes {
				nodes = append(nodes, node)
			}
			slices.Sort(nodes)
			words = append(words, p.prefix.String()+"="+strings.Join(nodes, "+"))
		}
		return strings.Join(words, " ")
	}
	for _, c := range []struct {
		node    string
		now     []netip.Prefix
		changed bool
		want    string
	}{
		{"a", prefixes("10.1.0.0/24"), true, "10.1.0.0/24=a"},
		{"a", prefixes("10.1.0.0/24"), false, "10.1.0.0/24=a"},
		{"b", prefixes("10.0.0.0/8", "10.1.0.0/24", "2001:db8::/64"), true, "10.0.0.0/8=b 10.1.0.0/24=a+b 2001:db8::/64=b"},
		{"a", prefixes("2001:db8::/64"), true, "10.0.0.0/8=b 10.1.0.0/24=b 2001:db8::/64=a+b"},
		{"b", nil, true, "2001:db8::/64=a"},
		{"b", nil, false, "2001:db8::/64=a"},
		{"a", nil, true, ""},
	} {
		if changed := l.set(c.node, c.now); changed != c.changed || tell() != c.want {
			t.Errorf("%s has %v: changed %t, %s; want %s", c.node, c.now, changed, tell(), c.want)
		}
	}
}

func TestLinkPrefixesAreThoseOfOtherHosts(t *testing.T) {
	got := linkPrefixes(&v1alpha1.Speaker{Status: v1alpha1.SpeakerStatus{Interfaces: []v1alpha1.SpeakerInterface{
		{Name: "eth0", Prefixes: []string{"198.51.100.31/24", "198.51.100.77/32", "fe80::1/64", "2001:db8::31/64", "broken"}},
		{Name: "eth1", Prefixes: []string{"198.51.100.32/24"}},
		{Name: "kube-ipvs0", Prefixes: []string{"203.0.113.17/24"}},
		{Name: "lo", Prefixes: []string{"203.0.113.18/24"}},
	}}})
	want := []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if got := linkPrefixes(nil); got != nil {
		t.Errorf("no Speaker has %v", got)
	}
}

// The pool and the Service say that no node has the address on a link, until one has; then only that one is a candidate.
func TestOffLinkIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32", "2001:db8::17/128")
		for i, name := range []string{"a", "b", "c"} {
			w.speaker(name, on("eth0", "0"+name, "198.51.100."+string(rune('2'+i))+"/24"))
		}
		w.create(lb("web"))
		w.endpoints("web", "a")
		_, stop := w.controller()
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.rest()
		says := func() string {
			w.says("203.0.113.17", ownedBy("a"))
			w.rest()
			words := []string{}
			pool, err := w.herald.AddressPools.Get(w.ctx, "public", metav1.GetOptions{})
			must(w, err)
			for _, c := range pool.Status.Conditions {
				if strings.Contains(c.Message, "on a link of a node") {
					words = append(words, "pool")
				}
			}
			if strings.Contains(w.ready("web").Message, "203.0.113.17 is on no link of a node") {
				words = append(words, "service")
			}
			return strings.Join(words, " ")
		}
		w.until("pool and Service say so", "pool service", says)
		if got := len(strings.Fields(w.candidates("203.0.113.17"))); got != 3 {
			w.Errorf("%d candidates", got)
		}
		stop()
		before := len(w.rest())
		w.controller()
		if writes := w.rest()[before:]; len(writes) > 0 {
			w.Errorf("written after a restart: %q", writes)
		}
		w.speaker("c", func(s *v1alpha1.SpeakerStatus) {
			s.Interfaces = append(s.Interfaces, v1alpha1.SpeakerInterface{Name: "eth1", MAC: "02:00:00:00:01:0c", Prefixes: []string{"203.0.113.4/24"}})
		})
		w.untilCandidates("203.0.113.17", "c")
		w.rest()
		w.until("nobody says so", "", says)
		w.speaker("c", on("eth0", "0c", "198.51.100.4/24"))
		w.until("pool and Service say so again", "pool service", says)
	})
}
