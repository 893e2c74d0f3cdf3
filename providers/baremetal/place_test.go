package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// String tells a placement in a line.
func (p placement) String() string {
	var words []string
	if p.hold != "" {
		words = append(words, "hold "+string(p.hold))
	}
	if p.l2 != nil {
		words = append(words, fmt.Sprintf("l2 by %s on %s", names(p.l2.Candidates), names(p.l2.Interfaces)))
	}
	if p.bgp != nil {
		words = append(words, "bgp "+names(p.bgp.Advertisements))
		for _, limit := range p.bgp.Limits {
			words = append(words, limit.Advertisement+" by "+names(limit.Nodes))
		}
	}
	if p.terminating != nil {
		words = append(words, "terminating "+names(p.terminating))
	}
	if p.why != "" {
		words = append(words, p.why)
	}
	return strings.Join(words, "; ")
}

func names(list []string) string { return "[" + strings.Join(list, " ") + "]" }

func TestPlace(t *testing.T) {
	type spec = v1alpha1.AdvertisementSpec
	all := func(names ...string) map[string]bool {
		m := map[string]bool{}
		for _, name := range names {
			m[name] = true
		}
		return m
	}
	cluster := func(on ...string) tenant {
		return tenant{labels: set{"app": "web"}, serving: serving{nodes: all(on...)}}
	}
	local := func(on ...string) tenant {
		t := cluster(on...)
		t.local = true
		return t
	}
	terminating := func(on ...string) tenant {
		t := local(on...)
		t.serving.terminating = true
		return t
	}
	open, proxied := cluster("x"), cluster("x")
	open.open, proxied.proxied = true, true
	l2 := func(interfaces ...string) *v1alpha1.L2Advertisement {
		return &v1alpha1.L2Advertisement{Interfaces: interfaces}
	}
	bgp := &v1alpha1.BGPAdvertisement{}

	for _, c := range []struct {
		name    string
		adverts map[string]spec
		tenants []tenant
		current []string
		asleep  []string
		foreign bool
		none    bool // announce
		nodes   map[string]func(*corev1.Node)
		want    string
	}{
		{name: "nobody on it", want: "hold Unclaimed; No Service has the address."},
		{name: "nobody on it, although it had an owner", current: []string{"a"}, want: "hold Unclaimed; No Service has the address."},
		{name: "nobody on it but another host", current: []string{"b", "a", "c"}, foreign: true, want: "hold Conflict; l2 by [b a c] on []; Another host uses the address."},
		{name: "another host, wherever the pool is announced", current: []string{"b", "a"}, foreign: true, nodes: map[string]func(*corev1.Node){"a": labelled("rack", "r1")},
			adverts: map[string]spec{"edge": {ServiceSelector: label("app", "db"), NodeSelector: label("rack", "r1"), L2: l2("eth1")}, "tor": {BGP: bgp}},
			want:    "hold Conflict; l2 by [a] on [eth1]; Another host uses the address."},
		{name: "another host, and nobody can ask", adverts: map[string]spec{"tor": {BGP: bgp}}, foreign: true, want: "hold Unclaimed; No Service has the address."},
		{name: "another host does not hold what Services have", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, foreign: true, want: "l2 by [b a c] on []"},
		{name: "the default: L2 from every node", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []"},
		{name: "no endpoint: held, and who would own it is settled", tenants: []tenant{cluster()}, current: []string{"b", "a", "c"},
			want: "hold NoReadyEndpoints; l2 by [b a c] on []; No endpoint is ready."},
		{name: "one of two Services has an endpoint", tenants: []tenant{cluster(), cluster("x")}, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []"},

		{name: "Local: nodes with endpoints", tenants: []tenant{local("c", "a")}, current: []string{"b", "a", "c"}, want: "l2 by [a c] on []"},
		{name: "Local: its only node", tenants: []tenant{local("c")}, want: "l2 by [c] on []"},
		{name: "Local without endpoint: the order waits", tenants: []tenant{local()}, current: []string{"b", "a", "c"},
			want: "hold NoReadyEndpoints; l2 by [b a c] on []; No endpoint is ready."},
		{name: "Local, and no endpoint on a node that speaks", tenants: []tenant{local("x")}, current: []string{"a", "b"},
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NoLocalEndpoint: a, b, c."},
		{name: "Local and Cluster share: nodes of the Local one", tenants: []tenant{local("c"), cluster("a", "b")}, current: []string{"a", "b", "c"}, want: "l2 by [c] on []"},
		{name: "two Local ones: nodes of both", tenants: []tenant{local("b", "c"), local("a", "b")}, current: []string{"a", "b", "c"}, want: "l2 by [b] on []"},

		{name: "Local: the last endpoints terminate", tenants: []tenant{terminating("c", "a")}, current: []string{"b", "a", "c"},
			want: "l2 by [a c] on []; terminating [a c]"},
		{name: "Local: the last endpoints of one terminate, and another's are elsewhere", tenants: []tenant{terminating("c", "a"), local("a", "b")},
			want: "l2 by [a] on []; terminating [a]"},

		{name: "a pool that is not announced", tenants: []tenant{cluster("x")}, current: []string{"b"}, none: true,
			want: `hold AnnounceNone; AddressPool "public" has announce: None: somebody else routes the address.`},
		{name: "a pool that is not announced, whatever Advertisements say", tenants: []tenant{cluster()}, none: true, adverts: map[string]spec{"one": {L2: l2()}, "tor": {BGP: bgp}},
			want: `hold AnnounceNone; AddressPool "public" has announce: None: somebody else routes the address.`},
		{name: "a pool that is not announced, and another host", current: []string{"b"}, foreign: true, none: true, want: "hold Unclaimed; No Service has the address."},
		{name: "source ranges leave the family open", tenants: []tenant{open}, current: []string{"b", "a", "c"},
			want: "hold SourceRangesIncomplete; l2 by [b a c] on []; spec.loadBalancerSourceRanges has no IPv4 prefix, and kube-proxy would then let everybody in over IPv4: " +
				"add the IPv4 prefixes of the clients, or 0.0.0.0/0 if everybody may."},
		{name: "those of a Service that shares it do not", tenants: []tenant{open, cluster("x")}, current: []string{"b", "a", "c"}, want: "l2 by [b a c] on []"},
		{name: "Proxy, and announced", tenants: []tenant{proxied}, current: []string{"b", "a", "c"},
			want: `hold ConflictingRequests; l2 by [b a c] on []; The ipMode is Proxy and AddressPool "public" is announced: set announce: None in the pool, or ipMode to VIP.`},

		{name: "a speaker that sleeps is no candidate", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, asleep: []string{"b"}, want: "l2 by [a c] on []"},
		{name: "no speaker seems to live: the order stays", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, asleep: []string{"a", "b", "c"}, want: "l2 by [b a c] on []"},
		{name: "no speaker seems to live, and one node is out anyway", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, asleep: []string{"a", "b", "c"},
			nodes: map[string]func(*corev1.Node){"b": labelled(corev1.LabelNodeExcludeBalancers, "")}, want: "l2 by [a c] on []"},
		{name: "no speaker ever", tenants: []tenant{cluster("x")}, asleep: []string{"a", "b", "c"},
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NoSpeaker: a, b, c."},
		{name: "no endpoint and no speaker: the endpoint is what lacks", tenants: []tenant{cluster()}, asleep: []string{"a", "b", "c"},
			want: "hold NoReadyEndpoints; l2 by [] on []; No endpoint is ready."},

		{name: "every node has its reason", tenants: []tenant{local("b")}, asleep: []string{"b"}, nodes: map[string]func(*corev1.Node){
			"a": tainted("ToBeDeletedByClusterAutoscaler"), "c": condition(corev1.NodeReady, "Unknown")},
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NoSpeaker: b; NodeBeingDeleted: a; NodeNotReady: c."},
		{name: "an excluded node loses the address", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"},
			nodes: map[string]func(*corev1.Node){"b": labelled(corev1.LabelNodeExcludeBalancers, "")}, want: "l2 by [a c] on []"},

		{name: "a cordoned node hands over", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"},
			nodes: map[string]func(*corev1.Node){"b": cordoned}, want: "l2 by [a c] on []"},
		{name: "uncordoned it is last", tenants: []tenant{cluster("x")}, current: []string{"a", "c"}, want: "l2 by [a c b] on []"},
		{name: "all cordoned: candidates as usual", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"},
			nodes: map[string]func(*corev1.Node){"a": cordoned, "b": cordoned, "c": cordoned}, want: "l2 by [b a c] on []"},
		{name: "cordoned, and the others are no candidates", tenants: []tenant{cluster("x")}, current: []string{"b", "a", "c"}, asleep: []string{"a"},
			nodes: map[string]func(*corev1.Node){"b": cordoned, "c": condition(corev1.NodeReady, "False")}, want: "l2 by [b] on []"},
		{name: "Local: the endpoint on a cordoned node, beside another", tenants: []tenant{local("b", "c")}, current: []string{"b", "c"},
			nodes: map[string]func(*corev1.Node){"b": cordoned}, want: "l2 by [c] on []"},
		{name: "Local: the only endpoint is on a cordoned node", tenants: []tenant{local("b")}, current: []string{"b"},
			nodes: map[string]func(*corev1.Node){"b": cordoned}, want: "l2 by [b] on []"},
		{name: "Local: all endpoints are on cordoned nodes", tenants: []tenant{local("b", "c")}, current: []string{"b", "c"},
			nodes: map[string]func(*corev1.Node){"b": cordoned, "c": cordoned}, want: "l2 by [b c] on []"},

		{name: "only from the nodes that are selected", adverts: map[string]spec{"edge": {NodeSelector: label("rack", "r1"), L2: l2()}}, tenants: []tenant{cluster("x")},
			current: []string{"b", "a"}, nodes: map[string]func(*corev1.Node){"a": labelled("rack", "r1")}, want: "l2 by [a] on []"},
		{name: "no node is selected", adverts: map[string]spec{"edge": {NodeSelector: label("rack", "r1"), L2: l2()}}, tenants: []tenant{cluster("x")},
			want: "hold NoCandidates; l2 by [] on []; No node can announce the address: NotSelected: a, b, c."},
		{name: "an Advertisement that selects other Services", adverts: map[string]spec{"dbs": {ServiceSelector: label("app", "db"), L2: l2()}}, tenants: []tenant{cluster("x")},
			want: `hold NoCandidates; No Advertisement of pool "public" selects the Service.`},
		{name: "interfaces of all together", adverts: map[string]spec{"one": {L2: l2("eth1", "eth0")}, "two": {L2: l2("eth1", "bond*")}}, tenants: []tenant{cluster("x")},
			current: []string{"a", "b", "c"}, want: "l2 by [a b c] on [bond* eth0 eth1]"},
		{name: "one names no interface: the default", adverts: map[string]spec{"one": {L2: l2("eth1")}, "two": {L2: l2()}}, tenants: []tenant{cluster("x")},
			current: []string{"a", "b", "c"}, want: "l2 by [a b c] on []"},
		{name: "BGP does not widen the interfaces", adverts: map[string]spec{"one": {L2: l2("eth1")}, "two": {BGP: bgp}}, tenants: []tenant{cluster("x")},
			current: []string{"a", "b", "c"}, want: "l2 by [a b c] on [eth1]; bgp [two]"},
		{name: "BGP alone", adverts: map[string]spec{"tor": {BGP: bgp}, "fabric": {BGP: bgp}}, tenants: []tenant{cluster("x")}, want: "bgp [fabric tor]"},
		{name: "BGP alone without endpoint", adverts: map[string]spec{"tor": {BGP: bgp}}, tenants: []tenant{cluster()}, want: "hold NoReadyEndpoints; bgp [tor]; No endpoint is ready."},
		{name: "BGP goes on without a candidate for L2", adverts: map[string]spec{"one": {L2: l2()}, "tor": {BGP: bgp}}, tenants: []tenant{local("x")},
			want: `l2 by [] on []; bgp [tor]; No node advertises the address through Advertisement "tor": NoLocalEndpoint: a, b, c.`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &scene{
				addr: seventeen, current: c.current, pool: "public", tenants: c.tenants, quarantined: c.foreign, unannounced: c.none,
				alive:    func(node string) bool { return !slices.Contains(c.asleep, node) },
				speaker:  func(node string) *v1alpha1.Speaker { return speakerWith(node, established("tor")) },
				bgpPeers: []bgpPeer{peerFor("tor", nil)},
			}
			for _, name := range []string{"dbs", "edge", "fabric", "one", "tor", "two"} {
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
			if got := place(s).String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestPlaceWithoutNodes(t *testing.T) {
	s := &scene{addr: seventeen, tenants: []tenant{{serving: serving{nodes: map[string]bool{"a": true}}}}, current: []string{"a"}, alive: func(string) bool { return true }}
	if got, want := place(s).String(), "hold NoCandidates; l2 by [] on []; No node can announce the address: there is no node."; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// A condition is to be read: of a thousand nodes it names a few.
func TestListNamesAFewNodes(t *testing.T) {
	got := list(map[v1alpha1.Reason][]string{v1alpha1.NoSpeaker: nodeNames(1000), v1alpha1.NodeExcluded: {"x"}})
	if want := "NoSpeaker: node-0, node-1, node-10, node-100, node-101 and 995 more; NodeExcluded: x"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
