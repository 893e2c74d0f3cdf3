package bgp

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/api"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestParseCommunities(t *testing.T) {
	tests := []struct {
		given     string
		standards []uint32
		larges    []large
		err       string
	}{
		{given: ""},
		{given: "64512:100 no-export 0:0", standards: []uint32{0, 64512<<16 | 100, 0xffffff01}},
		{given: "no-export 65535:65281", standards: []uint32{0xffffff01}},
		{given: "no-advertise local-as no-peer blackhole graceful-shutdown accept-own",
			standards: []uint32{0xffff0000, 0xffff0001, 0xffff029a, 0xffffff02, 0xffffff03, 0xffffff04}},
		{given: "2:1:1 1:4294967295:0 2:1:1", larges: []large{{1, 4294967295, 0}, {2, 1, 1}}},
		{given: "65536:1", err: `community "65536:1": "65536" is not a number of 16 bits`},
		{given: "1:-1", err: `community "1:-1": "-1" is not a number of 16 bits`},
		{given: "1:2:4294967296", err: `community "1:2:4294967296": "4294967296" is not a number of 32 bits`},
		{given: "4294967295:1:0", err: `community "4294967295:1:0": AS 4294967295 is reserved (RFC 7300)`},
		{given: "none", err: `community "none" is neither like 64512:100 nor like 64512:1:2 nor a well-known name`},
	}
	for _, tt := range tests {
		t.Run(tt.given, func(t *testing.T) {
			standards, larges, err := parseCommunities(strings.Fields(tt.given))
			if diff := cmp.Diff(tt.err, text(err)); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.standards, standards); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.larges, larges); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func FuzzParseCommunities(f *testing.F) {
	f.Add("64512:100")
	f.Add("64512:1:2")
	f.Add("no-export")
	f.Fuzz(func(t *testing.T, s string) {
		standards, larges, err := parseCommunities([]string{s})
		if err == nil && len(standards)+len(larges) != 1 {
			t.Errorf("%q is %v %v", s, standards, larges)
		}
		for _, l := range larges {
			if _, again, err := parseCommunities([]string{l.String()}); err != nil || again[0] != l {
				t.Errorf("%q is %v, and that is %v, %v", s, l, again, err)
			}
		}
	})
}

// valid is a peer that nothing is wrong with.
func valid(change func(*Peer)) Peer {
	p := Peer{Name: "tor", LocalASN: 64512, PeerASN: 65001, Address: addr("192.0.2.1")}
	change(&p)
	return p
}

func TestBadInput(t *testing.T) {
	peer := func(change func(*Peer)) []Peer { return []Peer{valid(change)} }
	route := func(change func(*Route)) []Route {
		r := Route{Prefix: prefix("198.51.100.1/32"), Peers: []string{"tor"}}
		change(&r)
		return []Route{r}
	}
	good := peer(func(*Peer) {})
	tests := []struct {
		name   string
		peers  []Peer
		routes []Route
		want   string
	}{
		{"nothing", nil, nil, ""},
		{"all is well", good, route(func(*Route) {}), ""},
		{"no local ASN", peer(func(p *Peer) { p.LocalASN = 0 }), nil, "peer tor: the local ASN must not be 0"},
		{"no ASN", peer(func(p *Peer) { p.PeerASN = 0 }), nil, "peer tor: a peer needs an ASN or a type"},
		{"two ASNs", peer(func(p *Peer) { p.PeerType = Internal }), nil, "peer tor: an ASN and a type exclude each other"},
		{"a type", peer(func(p *Peer) { p.PeerASN, p.PeerType = 0, "Other" }), nil, `peer tor: peer type "Other" is neither External nor Internal`},
		{"no address", peer(func(p *Peer) { p.Address = netip.Addr{} }), nil, "peer tor: a peer needs an address or an interface"},
		{"two addresses", peer(func(p *Peer) { p.Interface = "eth0" }), nil, "peer tor: an address and an interface exclude each other"},
		{"an address", peer(func(p *Peer) { p.Address = addr("0.0.0.0") }), nil, "peer tor: 0.0.0.0 is not the address of a router"},
		{"a source", peer(func(p *Peer) { p.Source = addr("::1") }), nil, "peer tor: the source address ::1 is of another family than the peer's"},
		{"a family", peer(func(p *Peer) { p.Families = []Family{"L2VPN"} }), nil, `peer tor: there is no family "L2VPN"`},
		{"a router ID", peer(func(p *Peer) { p.RouterID = addr("::1") }), nil, "peer tor: the router ID must be written as an IPv4 address"},
		{"a hold time", peer(func(p *Peer) { p.HoldTime = 2 * time.Second }), nil, "peer tor: a hold time of 2s is not between 3s and 65535s"},
		{"keepalives too rare", peer(func(p *Peer) { p.HoldTime, p.KeepaliveTime = 9*time.Second, 9*time.Second }), nil,
			"peer tor: a keepalive time of 9s is not shorter than the hold time"},
		{"part of a second", peer(func(p *Peer) { p.HoldTime = 3500 * time.Millisecond }), nil, "peer tor: a time of 3.5s is not in whole seconds"},
		{"TTL", peer(func(p *Peer) { p.EBGPMultiHop, p.TTLSecurityHops = 2, 2 }), nil, "peer tor: TTL security and multi-hop exclude each other"},
		{"a long password", peer(func(p *Peer) { p.Password = Secret(strings.Repeat("x", 81)) }), nil, "peer tor: the password is longer than 80 bytes"},
		{"the same name", append(peer(func(p *Peer) { p.Address = addr("192.0.2.2") }), good...), nil, "peer tor: there is another peer of this name"},
		{"the same address", append(peer(func(p *Peer) { p.Name = "other" }), good...), nil, "peer tor: there is another peer with this address"},
		{
			"two router IDs to listen with", []Peer{
				valid(func(p *Peer) { p.Passive = true }),
				valid(func(p *Peer) { p.Name, p.Address, p.Passive, p.RouterID = "same", addr("192.0.2.3"), true, routerID }),
				valid(func(p *Peer) { p.Name, p.Address, p.RouterID = "active", addr("192.0.2.4"), addr("192.0.2.99") }),
				valid(func(p *Peer) {
					p.Name, p.Address, p.Passive, p.RouterID = "other", addr("192.0.2.2"), true, addr("192.0.2.99")
				}),
			}, nil, "peer other: there is another passive peer with another router ID",
		},
		{"a bad peer's route", peer(func(p *Peer) { p.LocalASN = 0 }), route(func(*Route) {}), "peer tor: the local ASN must not be 0"},
		{"no such peer", nil, route(func(*Route) {}), "route 198.51.100.1/32 to peer tor: there is no such peer"},
		{"a prefix", good, route(func(r *Route) { r.Prefix = netip.MustParsePrefix("198.51.100.1/24") }),
			"route 198.51.100.1/24: not a prefix, or there are bits behind its length"},
		{"no prefix", good, route(func(r *Route) { r.Prefix = netip.Prefix{} }), "route invalid Prefix: not a prefix, or there are bits behind its length"},
		{"a community", good, route(func(r *Route) { r.Communities = []string{"x"} }),
			`route 198.51.100.1/32: community "x" is neither like 64512:100 nor like 64512:1:2 nor a well-known name`},
		{"a bandwidth", good, route(func(r *Route) { r.Bandwidth = -1 }), "route 198.51.100.1/32: -1 is no bandwidth"},
		{"a family that is not spoken", peer(func(p *Peer) { p.Families = []Family{IPv6} }), route(func(*Route) {}),
			"route 198.51.100.1/32 to peer tor: the peer does not speak of IPv4"},
		{"no next hop", good, route(func(r *Route) { r.Prefix = prefix("2001:db8::/64") }),
			"route 2001:db8::/64 to peer tor: over an IPv4 session an IPv6 route needs a next hop"},
		{"a next hop", good, route(func(r *Route) { r.Prefix, r.NextHop = prefix("2001:db8::/64"), addr("192.0.2.9") }),
			"route 2001:db8::/64: an IPv6 route needs an IPv6 next hop"},
		{"two routes", good, append(route(func(*Route) {}), route(func(r *Route) { r.MED = to(1) })...),
			"route 198.51.100.1/32 to peer tor: there is another route for this prefix and peer, with other attributes"},
		{"the same route twice", good, append(route(func(*Route) {}), route(func(*Route) {})...), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := text(New(Options{RouterID: routerID}).Set(tt.peers, tt.routes))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAPeerWithItsDefaultsIsValid(t *testing.T) {
	for name, p := range map[string]Peer{
		"by number":  {Name: "a", LocalASN: 64512, PeerASN: 64513, Address: addr("198.51.100.1")},
		"external":   {Name: "a", LocalASN: 64512, PeerType: External, Address: addr("198.51.100.1"), EBGPMultiHop: 2},
		"internal":   {Name: "a", LocalASN: 64512, PeerType: Internal, Address: addr("198.51.100.1")},
		"unnumbered": {Name: "a", LocalASN: 64512, PeerType: External, Interface: "eth1", GracefulRestart: GracefulRestart{Enabled: true}},
	} {
		o := Options{RouterID: routerID}
		once, wrong := Valid([]Peer{p}, o)
		if len(wrong) > 0 {
			t.Fatalf("%s: %v", name, wrong)
		}
		twice, wrong := Valid(once, o)
		if len(wrong) > 0 || !reflect.DeepEqual(once, twice) {
			t.Errorf("%s: %+v becomes %+v, %v", name, once, twice, wrong)
		}
	}
}

func TestThePasswordIsNotPrinted(t *testing.T) {
	p := valid(func(p *Peer) { p.Password = "hush" })
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if s := fmt.Sprintf(format, p); strings.Contains(s, "hush") {
			t.Errorf("%s prints %s", format, s)
		}
	}
}

func TestPlan(t *testing.T) {
	one := neighbor{Peer: valid(func(p *Peer) { p.Name = "one" })}
	two := neighbor{Peer: valid(func(p *Peer) { p.Name, p.Address, p.PeerASN = "two", addr("192.0.2.2"), 64512 })}
	lost := neighbor{Peer: valid(func(p *Peer) { p.Name, p.Address, p.Interface = "lost", netip.Addr{}, "eth0" })}
	all := []neighbor{one, two, lost}
	tests := []struct {
		name   string
		routes []Route
		want   string
	}{
		{"nothing", nil, `
			1:0 to 192.0.2.1
			2:0 to 192.0.2.2`},
		{"the same to all", []Route{{Peers: []string{"one", "two", "lost"}, MED: to(5)}}, `
			1:0 to 192.0.2.1
			2:0 to 192.0.2.2
			198.51.100.1/32 med 5 tags 1:0 2:0`},
		{"to one", []Route{{Peers: []string{"two"}, LocalPref: to(7)}}, `
			1:0 to 192.0.2.1
			2:0 to 192.0.2.2
			198.51.100.1/32 pref 7 tags 2:0`},
		{"what internal peers alone see", []Route{{Peers: []string{"one", "two"}, LocalPref: to(7)}}, `
			1:0 to 192.0.2.1
			1:3 to 192.0.2.1
			2:0 to 192.0.2.2
			2:4 to 192.0.2.2
			198.51.100.1/32 pref 0 tags 1:3 2:4`},
		{"to one that is not found yet", []Route{{Peers: []string{"lost"}}}, `
			1:0 to 192.0.2.1
			2:0 to 192.0.2.2`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			peers, known := map[string]neighbor{}, map[string]bool{}
			for _, n := range all {
				n.Peer = n.withDefaults(Options{})
				peers[n.Name], known[n.Name] = n, true
			}
			for i := range tt.routes {
				tt.routes[i].Prefix = prefix("198.51.100.1/32")
			}
			resolved, errs := resolve(peers, known, tt.routes)
			if len(errs) > 0 {
				t.Fatal(errs)
			}
			n := newNumbering()
			p := n.plan(all, resolved)
			got := p.String()
			if diff := cmp.Diff(strings.ReplaceAll(strings.TrimSpace(tt.want), "\t", ""), strings.TrimSpace(got)); diff != "" {
				t.Error(diff)
			}
			if again := n.plan(all, resolved); again.String() != got {
				t.Errorf("the same again is %s", again)
			}
		})
	}
}

func (p plan) String() string {
	var b strings.Builder
	b.WriteString(p.rules.String())
	for prefix, a := range p.announcements {
		fmt.Fprintf(&b, "%s", prefix)
		if a.med.set {
			fmt.Fprintf(&b, " med %d", a.med.value)
		}
		if a.localPref.set {
			fmt.Fprintf(&b, " pref %d", a.localPref.value)
		}
		b.WriteString(" tags")
		for _, t := range a.unpackTags() {
			fmt.Fprintf(&b, " %d:%d", t.peer, t.variant)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func TestActions(t *testing.T) {
	r := rule{attributes: attributes{
		nextHop: addr("192.0.2.9"), localPref: number{5, true}, med: number{0, true}, communities: pack(1<<16|2, gracefulShutdown),
		larges: pack(1, 2, 3), asn: 70000, prepend: 2, bandwidth: mostBandwidth,
	}}
	got := r.actions(1)
	want := []string{
		"1:2 65535:0", "1:2:3", "lb:23456:4294967040", "5", "0", "70000 2", "192.0.2.9",
	}
	if diff := cmp.Diff(want, []string{
		strings.Join(got.Community.Communities, " "), strings.Join(got.LargeCommunity.Communities, " "),
		strings.Join(got.ExtCommunity.Communities, " "), fmt.Sprint(got.LocalPref.Value), fmt.Sprint(got.Med.Value),
		fmt.Sprint(got.AsPrepend.Asn, got.AsPrepend.Repeat), got.Nexthop.Address,
	}); diff != "" {
		t.Error(diff)
	}
	if as := r.actions(0); as.Community != nil || as.LargeCommunity.Type != api.CommunityAction_TYPE_REMOVE {
		t.Errorf("variant 0 does %v", as)
	}
}

func TestWhyARouterHasEndedTheSession(t *testing.T) {
	for message, want := range map[string]string{
		"notification-received code 6(cease) subcode 2(administrative shutdown)": "the router has ended the session: code 6(cease) subcode 2(administrative shutdown)",
		"notification-received code 6(cease) subcode 10(undefined)":              "the router has ended the session: code 6(cease) subcode 10(BFD down)",
	} {
		if got := ended(neighbor{}, established, api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED, message); got != want {
			t.Errorf("%s is %q", message, got)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := New(Options{RouterID: routerID})
	if err := s.Set([]Peer{valid(func(*Peer) {})}, nil); err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(s)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range families {
		names = append(names, f.GetName())
	}
	want := []string{"herald_bgp_advertised_routes", "herald_bgp_refused_routes_total", "herald_bgp_sessions", "herald_bgp_transitions_total"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if n := testutil.CollectAndCount(s, "herald_bgp_sessions"); n != 6 {
		t.Errorf("%d states, want 6", n)
	}
}

// Whatever was set before, the table, the policy and the peers are what was set last.
func TestAnyOrderEndsInTheSamePlace(t *testing.T) {
	sets := [][]Route{
		nil,
		{{Prefix: prefix("198.51.100.1/32"), Peers: []string{"tor", "two"}}},
		{{Prefix: prefix("198.51.100.1/32"), Peers: []string{"tor"}}, {Prefix: prefix("198.51.100.1/32"), Peers: []string{"two"}, MED: to(1)}},
		{{Prefix: prefix("198.51.100.2/32"), Peers: []string{"two"}}},
	}
	peers := []Peer{
		valid(func(p *Peer) { p.Address, p.ConnectRetryTime = addr("127.0.0.2"), time.Hour }),
		valid(func(p *Peer) { p.Name, p.Address, p.ConnectRetryTime = "two", addr("127.0.0.3"), time.Hour }),
	}
	b := newBoard()
	for from := range sets {
		for to := range sets {
			s, err := newServer(t.Context(), identity{routerID: routerID}, &b)
			if err != nil {
				t.Fatal(err)
			}
			set := func(i int) plan {
				byName, known, all := map[string]neighbor{}, map[string]bool{}, []neighbor{}
				for _, p := range peers {
					n := neighbor{Peer: p.withDefaults(Options{RouterID: routerID})}
					byName[p.Name], known[p.Name], all = n, true, append(all, n)
				}
				routes, _ := resolve(byName, known, sets[i])
				if errs := s.set(all, routes, func(string) bool { return false }); len(errs) > 0 {
					t.Fatal(errs)
				}
				return s.numbers.plan(all, routes)
			}
			set(from)
			want := set(to)
			if got := s.plan; got.String() != want.String() {
				t.Errorf("from %d to %d: is\n%s\nwant\n%s", from, to, got, want)
			}
			if n := slices.Max([]int{len(s.numbers.peers), len(s.neighbors)}); n != 2 {
				t.Errorf("%d peers", n)
			}
			if err := s.stop(false); err != nil {
				t.Error(err)
			}
		}
	}
}
