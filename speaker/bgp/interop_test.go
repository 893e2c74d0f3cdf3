package bgp

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"go.uber.org/goleak"
)

// The tests here have FRR and BIRD as the router, and look into its table.

func TestRoutesInFRR(t *testing.T) {
	l := newLab(t)
	external, internal, six := l.place(1), l.place(2), l.place(3)
	e := external.frr(external.frrConfig(65001, 64512))
	i := internal.frr(internal.frrConfig(64512, 64512))
	s := six.frr(six.frrConfig(65003, 64512))
	over6 := func(p *Peer) { p.Address, p.Source = six.addr6(), six.node6() }
	peers := []Peer{external.peer(65001), internal.peer(64512), six.peer(65003, over6)}
	all := []string{"tor1", "tor2", "tor3"}
	tests := []struct {
		name                      string
		route                     Route
		external, internal, other string
	}{
		{
			"IPv4", Route{Prefix: prefix("198.51.100.1/32")},
			"via 10.0.1.1 path 64512", "via 10.0.2.1 path Local pref 100", "via fd00:3::1 path 64512",
		},
		{
			"IPv6", Route{Prefix: prefix("2001:db8::1/128"), NextHop: addr("fd00:1::1")},
			"via fd00:1::1 path 64512", "via fd00:1::1 path Local pref 100 invalid", "via fd00:1::1 path 64512 invalid",
		},
		{
			"everything", Route{
				Prefix: prefix("198.51.100.2/32"), LocalPref: to(200), MED: to(77), Prepend: 2, Bandwidth: 125000,
				Communities: []string{"64512:100", "no-export", "64512:1:2", "graceful-shutdown", "64512:0:4294967295"},
			},
			"via 10.0.1.1 path 64512 64512 64512 med 77 pref 0 [64512:100 graceful-shutdown no-export] [64512:0:4294967295 64512:1:2] [LB:64512:125000 (1.000 Mbps)]",
			"via 10.0.2.1 path Local med 77 pref 200 [64512:100 graceful-shutdown no-export] [64512:0:4294967295 64512:1:2] [LB:64512:125000 (1.000 Mbps)]",
			"via fd00:3::1 path 64512 64512 64512 med 77 pref 0 [64512:100 graceful-shutdown no-export] [64512:0:4294967295 64512:1:2] [LB:64512:125000 (1.000 Mbps)]",
		},
		{
			"more bandwidth than FRR can count", Route{Prefix: prefix("198.51.100.4/32"), Bandwidth: 5e9},
			"via 10.0.1.1 path 64512 [LB:64512:4294967040 (34.000 Gbps)]", "via 10.0.2.1 path Local pref 100 [LB:64512:4294967040 (34.000 Gbps)]",
			"via fd00:3::1 path 64512 [LB:64512:4294967040 (34.000 Gbps)]",
		},
		{
			"local preference 0 and MED 0", Route{Prefix: prefix("198.51.100.3/32"), LocalPref: to(0), MED: to(0)},
			"via 10.0.1.1 path 64512 med 0", "via 10.0.2.1 path Local med 0 pref 0", "via fd00:3::1 path 64512 med 0",
		},
		{
			"an aggregate", Route{Prefix: prefix("198.51.100.128/25")},
			"via 10.0.1.1 path 64512", "via 10.0.2.1 path Local pref 100", "via fd00:3::1 path 64512",
		},
	}
	var desired []Route
	for _, tt := range tests {
		tt.route.Peers = all
		desired = append(desired, tt.route)
	}
	r := l.speaker(peers, desired)
	t.Logf("established after %s", r.established(all...))
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			p := tt.route.Prefix.String()
			l.eventuallyIs("external", tt.external, func() string { return e.route(p) })
			l.eventuallyIs("internal", tt.internal, func() string { return i.route(p) })
			l.eventuallyIs("over IPv6", tt.other, func() string { return s.route(p) })
		})
	}
}

func TestPeersAreToldApart(t *testing.T) {
	l := newLab(t)
	a, b, c := l.place(1), l.place(2), l.place(3)
	first := a.frr(a.frrConfig(65001, 64512))
	second := b.frr(b.frrConfig(65002, 64513))
	third := c.frr(c.frrConfig(64512, 64512))
	peers := []Peer{a.peer(65001), b.peer(65002, func(p *Peer) { p.LocalASN = 64513 }), c.peer(64512)}
	const p, q, v6 = "198.51.100.1/32", "198.51.100.2/32", "2001:db8::1/128"
	route := func(prefix string, change func(*Route), peers ...string) Route {
		r := Route{Prefix: netip.MustParsePrefix(prefix), Peers: peers}
		change(&r)
		return r
	}
	full := func(r *Route) {
		r.MED, r.LocalPref, r.Prepend, r.Bandwidth = to(5), to(0), 1, 250000
		r.Communities = []string{"64512:1", "64512:1:1", "blackhole"}
	}
	hop := func(a netip.Addr) func(*Route) { return func(r *Route) { r.NextHop = a } }
	plain := func(*Route) {}
	r := l.speaker(peers, []Route{
		route(p, full, "tor1"), route(p, plain, "tor2"), route(p, func(r *Route) { r.LocalPref = to(300) }, "tor3"),
		route(q, plain, "tor1"),
		route(v6, hop(a.node6()), "tor1"), route(v6, hop(b.node6()), "tor2"), route(v6, hop(c.node6()), "tor3"),
	})
	r.established("tor1", "tor2", "tor3")
	expect := func(prefix string, want ...string) {
		t.Helper()
		for i, f := range []frr{first, second, third} {
			l.eventuallyIs(f.name+" "+prefix, want[i], func() string { return f.route(prefix) })
		}
	}
	expect(p,
		"via 10.0.1.1 path 64512 64512 med 5 [64512:1 blackhole no-export] [64512:1:1] [LB:64512:250000 (2.000 Mbps)]",
		"via 10.0.2.1 path 64513", "via 10.0.3.1 path Local pref 300")
	expect(q, "via 10.0.1.1 path 64512", "", "")
	expect(v6, "via fd00:1::1 path 64512", "via fd00:2::1 path 64513", "via fd00:3::1 path Local pref 100")

	// FRR itself keeps what is to be discarded at home: no-export is its own (RFC 7999).

	// All change places.
	r.set(peers, []Route{
		route(p, plain, "tor1"), route(p, plain, "tor2"), route(p, full, "tor3"),
		route(q, plain, "tor2"), route(v6, hop(c.node6()), "tor3"),
	})
	expect(p, "via 10.0.1.1 path 64512", "via 10.0.2.1 path 64513",
		"via 10.0.3.1 path Local med 5 pref 0 [64512:1 blackhole] [64512:1:1] [LB:64512:250000 (2.000 Mbps)]")
	expect(q, "", "via 10.0.2.1 path 64513", "")
	expect(v6, "", "", "via fd00:3::1 path Local pref 100")

	// One is shut down gracefully.
	peers[0].ShutDown = true
	r.set(peers, []Route{route(p, plain, "tor1", "tor2"), route(q, full, "tor1")})
	expect(p, "via 10.0.1.1 path 64512 pref 0 [graceful-shutdown]", "via 10.0.2.1 path 64513", "")
	expect(q, "via 10.0.1.1 path 64512 64512 med 5 pref 0 [64512:1 graceful-shutdown blackhole no-export] [64512:1:1] [LB:64512:250000 (2.000 Mbps)]", "", "")
	peers[0].ShutDown = false
	r.set(peers, []Route{route(p, plain, "tor1", "tor2")})
	expect(p, "via 10.0.1.1 path 64512", "via 10.0.2.1 path 64513", "")
	expect(q, "", "", "")

	for _, f := range []frr{first, second, third} {
		if s := f.session(f.node4().String()); s.Established != 1 {
			t.Errorf("%s has had %d sessions, want 1", f.name, s.Established)
		}
	}
	if n := len(r.onlyServer().plan.rules); n != 3 {
		t.Errorf("%d rules are left for 3 peers", n)
	}
}

func (r *running) onlyServer() *server {
	for _, s := range r.servers {
		return s
	}
	return nil
}

// plain is a route that the transport tests look for.
const plain = "198.51.100.1/32"

func plainTo(names ...string) []Route {
	return []Route{{Prefix: netip.MustParsePrefix(plain), Peers: names}}
}

func TestPasswords(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	f := p.frr(p.frrConfig(65001, 64512, "password right"))
	other := q.frr(q.frrConfig(65002, 64512))
	with := func(s Secret) func(*Peer) { return func(p *Peer) { p.Password = s } }
	peers := []Peer{p.peer(65001, with("right")), q.peer(65002)}
	r := l.speaker(peers, plainTo("tor1", "tor2"))
	r.established("tor1", "tor2")
	l.eventuallyIs("tor1", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })

	// The router gets a new one, and we later.
	f.Vtysh("configure terminal", "router bgp 65001", "neighbor 10.0.1.1 password new", "neighbor fd00:1::1 password new")
	peers[0].Password = "wrong"
	r.set(peers, plainTo("tor1", "tor2"))
	l.eventuallyIs("the reason", "no answer from 10.0.1.2:179: wrong password; a firewall, or the router is down",
		func() string { return r.status("tor1").LastError })
	peers[0].Password = ""
	r.set(peers, plainTo("tor1", "tor2"))
	l.eventuallyIs("the reason", "no answer from 10.0.1.2:179: a password that the router wants; a firewall, or the router is down",
		func() string { return r.status("tor1").LastError })
	peers[0].Password = "new"
	r.set(peers, plainTo("tor1", "tor2"))
	r.established("tor1")
	l.eventuallyIs("tor1", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
	if s := other.session("10.0.2.1"); s.Established != 1 {
		t.Errorf("tor2 has had %d sessions, want 1", s.Established)
	}
}

func TestReasons(t *testing.T) {
	l := newLab(t)
	p, q, nobody, closed, ours, low := l.place(1), l.place(2), l.place(3), l.place(4), l.place(5), l.place(6)
	p.frr(p.frrConfig(65001, 64512))
	q.frr(q.frrConfig(65002, 64999))
	ours.frr(ours.frrConfig(64512, 64512))
	closed.frr("router bgp 65004\n no bgp ebgp-requires-policy\n")
	low.frr(low.frrConfig(65006, 64512))
	far := p.beyond()
	far.frr(far.frrConfig(65001, 64512))
	l.Here("ip route add unreachable 203.0.113.9/32")
	l.Cleanup(func() { exec.Command("ip", "route", "del", "unreachable", "203.0.113.9/32").Run() })
	peers := []Peer{
		p.peer(65009),
		q.peer(65002),
		nobody.peer(65003),
		nobody.peer(65003, func(p *Peer) {
			p.Name, p.Address, p.TTLSecurityHops = "ttl", addr("fd00:3::2"), 1
			p.Source = nobody.node6()
		}),
		closed.peer(65004),
		ours.peer(0, func(p *Peer) { p.PeerType = External }),
		low.peer(65006, func(p *Peer) { p.TTLSecurityHops = 1 }),
		p.peer(65001, func(p *Peer) { p.Name, p.Address = "far", addr("203.0.113.2") }),
		p.peer(65001, func(p *Peer) { p.Name, p.Address = "unreachable", addr("203.0.113.9") }),
		p.peer(65001, func(p *Peer) { p.Name, p.Address, p.Source = "source", addr("203.0.113.3"), addr("10.0.1.77") }),
		nobody.peer(65001, func(p *Peer) { p.Name, p.Address, p.ConnectRetryTime = "down", addr("10.0.3.99"), 6*time.Second }),
	}
	for i := range peers {
		peers[i].HoldTime = 3 * time.Second // how long a router may say nothing
	}
	r := l.speaker(peers, nil)
	for name, want := range map[string]string{
		"tor1":        "wrong AS: the router is not in AS 65009",
		"tor2":        "the router refuses our OPEN message: it expects another AS than 64512, or another family or router ID",
		"tor3":        "connection refused by 10.0.3.2:179",
		"tor4":        "the router closes the connection at once: it does not take this node for a neighbor, or makes it wait after a session that was lost",
		"tor5":        "wrong AS: the router is in our own, 64512",
		"tor6":        "the router takes the connection and says nothing on it: TTL below 255, which is what ttlSecurityHops wants",
		"far":         "no route to 203.0.113.2:179, or none that a TTL of 1 is enough for: see multi-hop",
		"ttl":         "no answer from [fd00:3::2]:179: TTL below 255; a password that the router wants; a firewall, or the router is down",
		"unreachable": "no route to 203.0.113.9:179, or none that a TTL of 1 is enough for: see multi-hop",
		"source":      "the source address 10.0.1.77 is not on this node",
		"down":        "no route to 10.0.3.99:179",
	} {
		l.eventuallyIs(name, want, func() string { return r.status(name).LastError })
	}
}

func TestDistance(t *testing.T) {
	l := newLab(t)
	p, gtsm := l.place(1), l.place(2)
	far := p.beyond()
	f := far.frr(strings.ReplaceAll(p.frrConfig(65001, 64512, "ebgp-multihop 5"), "fd00:1::1", "fd00:99::1"))
	g := gtsm.frr(gtsm.frrConfig(65002, 64512, "ttl-security hops 1"))
	peers := []Peer{
		p.peer(65001, func(p *Peer) { p.Address, p.EBGPMultiHop = addr("203.0.113.2"), 5 }),
		gtsm.peer(65002, func(p *Peer) { p.TTLSecurityHops = 1 }),
	}
	r := l.speaker(peers, plainTo("tor1", "tor2"))
	r.established("tor1", "tor2")
	l.eventuallyIs("multi-hop", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
	l.eventuallyIs("TTL security", "via 10.0.2.1 path 64512", func() string { return g.route(plain) })

	// Both change their minds.
	g.Vtysh("configure terminal", "router bgp 65002", "no neighbor 10.0.2.1 ttl-security hops 1")
	peers[1].TTLSecurityHops = 0
	r.set(peers, plainTo("tor1", "tor2"))
	r.established("tor2")
	if s := f.session("10.0.1.1"); s.Established != 1 {
		t.Errorf("tor1 has had %d sessions, want 1", s.Established)
	}
}

func TestPassive(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	f := p.frr(p.frrConfig(65001, 64512, "password right"))
	g := q.frr(q.frrConfig(65002, 64512, "ttl-security hops 1"))
	peers := []Peer{
		p.peer(65001, func(p *Peer) { p.Passive, p.Password = true, "right" }),
		q.peer(65002, func(p *Peer) { p.Passive, p.TTLSecurityHops = true, 1 }),
	}
	r := l.speaker(peers, plainTo("tor1", "tor2"))
	r.established("tor1", "tor2")
	l.eventuallyIs("with a password", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
	l.eventuallyIs("with TTL security", "via 10.0.2.1 path 64512", func() string { return g.route(plain) })

	// The listening socket forgets the password.
	peers[0].Password = ""
	r.set(peers, plainTo("tor1", "tor2"))
	f.Vtysh("configure terminal", "router bgp 65001", "no neighbor 10.0.1.1 password")
	r.established("tor1")
	if s := g.session("10.0.2.1"); s.Established != 1 {
		t.Errorf("tor2 has had %d sessions, want 1", s.Established)
	}
}

// Another program may have the port when the speaker starts, and end later.
func TestPassiveOnAPortThatGetsFree(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	f := p.frr(p.frrConfig(65001, 64512))
	q.frr(q.frrConfig(65002, 64512))
	other, err := net.Listen("tcp4", "127.0.0.1:179")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	peers := []Peer{p.peer(65001, func(p *Peer) { p.Passive = true }), q.peer(65002)}
	r := l.speaker(peers, nil)
	r.established("tor2")
	if got := r.status("tor1").LastError; !strings.Contains(got, "address already in use") {
		t.Errorf("the reason is %q", got)
	}
	r.Set(peers, plainTo("tor1"))
	other.Close()
	r.established("tor1")
	l.eventuallyIs("the route", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
}

func TestChangesOfOnePeer(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	announcing := func(prefixes ...string) (config string) {
		for _, p := range prefixes {
			config += " address-family ipv4 unicast\n  network " + p + "\n exit-address-family\n"
		}
		return config + " no bgp network import-check\n"
	}
	f := p.frr(p.frrConfig(65001, 64512) + announcing("203.0.113.0/25", "203.0.113.128/25", plain))
	g := q.frr(q.frrConfig(65002, 64512) + announcing("192.0.2.0/24"))
	steady, changing := p.peer(65001), q.peer(65002)
	all := plainTo("tor1", "tor2")
	r := l.speaker([]Peer{steady}, plainTo("tor1"))
	r.established("tor1")

	r.set([]Peer{steady, changing}, all)
	r.established("tor2")
	l.eventuallyIs("added", "via 10.0.2.1 path 64512", func() string { return g.route(plain) })
	t.Run("nothing is accepted", func(t *testing.T) {
		l := newLab(t)
		l.Eventually("routes are refused", func() bool {
			return r.status("tor1").RefusedRoutes == 3 && r.status("tor2").RefusedRoutes == 1
		})
		for router, prefix := range map[frr]string{f: "192.0.2.0/24", g: "203.0.113.0/25"} {
			if got := router.route(prefix); got != "" {
				t.Errorf("%s has %s %s", router.name, prefix, got)
			}
		}
		// Nor does what a router says of a prefix of ours replace it.
		var paths []*apiutil.Path
		err := r.onlyServer().ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: bgp.RF_IPv4_UC},
			func(_ bgp.NLRI, ps []*apiutil.Path) { paths = append(paths, ps...) })
		if err != nil || len(paths) != 1 || paths[0].PeerASN != 0 {
			t.Errorf("the table has %v, %v; want our own route alone", paths, err)
		}
	})

	sessions := 1
	change := func(name string, resets bool, f func(*Peer)) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			before := r.status("tor2").Since
			f(&changing)
			r.set([]Peer{steady, changing}, all)
			if resets {
				sessions++
			} else {
				time.Sleep(300 * time.Millisecond)
			}
			l.Eventually("there is a session", func() bool {
				s := r.status("tor2")
				return s.State == established && s.Since.After(before) == resets
			})
			l.eventuallyIs("the route", "via 10.0.2.1 path 64512", func() string { return g.route(plain) })
			if got := g.session("10.0.2.1").Established; got != sessions {
				t.Errorf("%d sessions, want %d", got, sessions)
			}
		})
	}
	change("nothing", false, func(*Peer) {})
	change("connect retry", false, func(p *Peer) { p.ConnectRetryTime = 3 * time.Second })
	change("hold time", true, func(p *Peer) { p.HoldTime, p.KeepaliveTime = 90*time.Second, 2*time.Second })
	change("families", true, func(p *Peer) { p.Families = []Family{IPv4} })
	change("graceful restart", true, func(p *Peer) { p.GracefulRestart.Enabled = true })
	if got := r.status("tor2").Families; len(got) != 1 || got[0] != IPv4 {
		t.Errorf("families are %v", got)
	}

	r.set([]Peer{steady}, plainTo("tor1"))
	l.eventuallyIs("removed", "", func() string { return g.route(plain) })
	if len(r.Statuses()) != 1 {
		t.Errorf("peers: %v", r.Statuses())
	}
	if s := f.session("10.0.1.1"); s.Established != 1 {
		t.Errorf("tor1 has had %d sessions, want 1", s.Established)
	}
	r.stop()
	l.eventuallyIs("the end", "Cease/Administrative Shutdown", func() string { return f.session("10.0.1.1").Reason })
}

func TestGracefulRestart(t *testing.T) {
	l := newLab(t)
	p, down := l.place(1), l.place(2)
	f := p.frr(p.frrConfig(65001, 64512) + " bgp graceful-restart\n")
	restart := func(p *Peer) { p.GracefulRestart = GracefulRestart{Enabled: true, RestartTime: 5 * time.Minute} }
	// A second router, which is down, must not hold up the first.
	config := childConfig{Peers: []Peer{p.peer(65001, restart), down.peer(65002, restart)}, Routes: plainTo("tor1", "tor2")}
	process := l.child(config)
	const fresh, stale = "via 10.0.1.1 path 64512", "via 10.0.1.1 path 64512 stale"
	l.eventuallyIs("a route", fresh, func() string { return f.route(plain) })
	// From here to missing, and for some seconds.
	watch := func() (missing func() int) {
		looked, n := 0, 0
		end, done := make(chan struct{}), make(chan struct{})
		start := time.Now()
		go func() {
			defer close(done)
			for ; ; time.Sleep(20 * time.Millisecond) {
				out, err := p.Try(p.name, "ip route show 198.51.100.1")
				if looked++; err != nil || !strings.Contains(out, "via 10.0.1.1") {
					n++
				}
				select {
				case <-end:
					if time.Since(start) > 6*time.Second {
						return
					}
				default:
				}
			}
		}()
		return func() int {
			close(end)
			<-done
			t.Logf("looked %d times in %s", looked, time.Since(start).Round(time.Millisecond))
			return n
		}
	}
	l.Eventually("the router's kernel has the route", func() bool { return strings.Contains(p.in("ip route show 198.51.100.1"), "via 10.0.1.1") })

	missing := watch()
	process.Process.Kill()
	process.Wait()
	l.eventuallyIs("kept", stale, func() string { return f.route(plain) })
	config.Restarting = true
	process = l.child(config)
	l.eventuallyIs("again", fresh, func() string { return f.route(plain) })
	if n := missing(); n > 0 {
		t.Errorf("the router's kernel was without the route %d times", n)
	}
	// What is stale is kept only for who says that it has restarted (RFC 4724, section 3).
	if says := f.Vtysh("show bgp neighbors 10.0.1.1"); !strings.Contains(says, "R bit: True") {
		t.Errorf("the router does not know that we have restarted: %s", says)
	}
	process.Process.Kill()
	process.Wait()

	t.Run("an end without a word", func(t *testing.T) {
		l := newLab(t)
		r := l.speaker(config.Peers, config.Routes, func(o *Options) { o.Restarting = true })
		l.eventuallyIs("again", fresh, func() string { return f.route(plain) })
		r.LeaveQuietly()
		r.stop()
		l.eventuallyIs("kept", stale, func() string { return f.route(plain) })
	})
	t.Run("a route that is no more", func(t *testing.T) {
		l := newLab(t)
		r := l.speaker(config.Peers, nil, func(o *Options) { o.Restarting = true })
		l.eventuallyIs("gone", "", func() string { return f.route(plain) })
		r.set(config.Peers, config.Routes)
		l.eventuallyIs("again", fresh, func() string { return f.route(plain) })
	})
	t.Run("an end with a word", func(t *testing.T) {
		newLab(t).eventuallyIs("withdrawn", "", func() string { return f.route(plain) })
	})
}

func TestUnnumbered(t *testing.T) {
	l := newLab(t)
	places := []place{l.place(1), l.place(2)}
	var routers []frr
	var peers []Peer
	for _, p := range places {
		// Both routers have the same link-local address.
		p.in("ip link set eth0 down")
		p.in("ip link set eth0 address 02:00:00:00:00:02")
		p.in("ip link set eth0 up")
		peers = append(peers, p.peer(65001, func(peer *Peer) {
			peer.Address, peer.Source, peer.Interface = netip.Addr{}, netip.Addr{}, p.name
		}))
	}
	const v6 = "2001:db8::1/128"
	r := l.speaker(peers, append(plainTo("tor1"), Route{Prefix: prefix(v6), Peers: []string{"tor1", "tor2"}}))
	l.eventuallyIs("before there are routers", "no router has been heard on tor1", func() string { return r.status("tor1").LastError })
	for _, p := range places {
		routers = append(routers, p.frr(`router bgp 65001
 bgp router-id 10.0.1.2
 no bgp ebgp-requires-policy
 neighbor eth0 interface remote-as external
 neighbor eth0 timers 1 60
 neighbor eth0 timers connect 1
 address-family ipv6 unicast
  neighbor eth0 activate
`))
	}
	t.Logf("established after %s", r.established("tor1", "tor2"))
	for i, p := range places {
		hop := strings.TrimSuffix(strings.Fields(p.Here("ip -6 -o addr show dev " + p.name + " scope link"))[3], "/64")
		want := "via " + hop + " path 64512"
		l.eventuallyIs("IPv6", want, func() string { return routers[i].route(v6) })
		if i == 1 {
			want = ""
		}
		l.eventuallyIs("IPv4", want, func() string { return routers[i].route(plain) })
		if i == 0 {
			l.Eventually("the router's kernel has the route", func() bool {
				return strings.Contains(p.in("ip route show 198.51.100.1"), "via inet6 "+hop)
			})
		}
	}
	r.set(peers[1:], nil)
	l.eventuallyIs("without its peer", "", func() string { return routers[0].route(v6) })
}

func TestBIRD(t *testing.T) {
	l := newLab(t)
	p, q, s := l.place(1), l.place(2), l.place(3)
	config := func(p place, asn int, node netip.Addr, more string) string {
		local := p.addr4()
		if node.Is6() {
			local = p.addr6()
		}
		return fmt.Sprintf(`router id %s;
			protocol static { ipv4; route 203.0.113.0/24 unreachable; }
			protocol bgp node {
				local %s as %d; neighbor %s as 64512; hold time 60; connect retry time 1; %s
				ipv4 { import all; export all; %s };
				ipv6 { import all; export all; };
			}`, p.addr4(), local, asn, node, more, map[bool]string{true: "extended next hop;"}[node.Is6()])
	}
	_, external := p.BIRD(p.name, config(p, 65001, p.node4(), `password "right"; ttl security on;`))
	_, internal := q.BIRD(q.name, config(q, 64512, q.node4(), ""))
	_, six := s.BIRD(s.name, config(s, 65003, s.node6(), ""))
	peers := []Peer{
		p.peer(65001, func(p *Peer) { p.Password, p.TTLSecurityHops = "right", 1 }),
		q.peer(0, func(p *Peer) { p.PeerType = Internal }),
		s.peer(0, func(p *Peer) { p.PeerType, p.Address, p.Source = External, s.addr6(), s.node6() }),
	}
	all := []string{"tor1", "tor2", "tor3"}
	const v6 = "2001:db8::1/128"
	r := l.speaker(peers, []Route{
		{
			Prefix: prefix(plain), Peers: all, LocalPref: to(200), MED: to(77), Prepend: 1, Bandwidth: 125000,
			Communities: []string{"64512:100", "no-peer", "64512:1:2"},
		},
		{Prefix: prefix(v6), Peers: all[:1], NextHop: p.node6()},
		{Prefix: prefix(v6), Peers: all[1:2], NextHop: q.node6()},
		{Prefix: prefix(v6), Peers: all[2:]},
	})
	r.established(all...)
	for _, tt := range []struct {
		name  string
		show  func(string) string
		wants []string
	}{
		{"external", external, []string{
			"BGP.as_path: 64512 64512", "BGP.next_hop: 10.0.1.1", "BGP.med: 77", "BGP.community: (64512,100) (65535,65284)",
			"BGP.large_community: (64512, 1, 2)", "BGP.ext_community: (unknown 0x4004, 64512, 1207182336)",
		}},
		{"internal", internal, []string{"BGP.as_path: \n", "BGP.local_pref: 200", "BGP.next_hop: 10.0.2.1"}},
		{"over IPv6", six, []string{"BGP.as_path: 64512 64512", "BGP.next_hop: fd00:3::1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			l.Eventually("the routes", func() bool {
				return strings.Contains(tt.show("show route all for "+plain), "BGP.") && strings.Contains(tt.show("show route all for "+v6), "BGP.next_hop: fd00:")
			})
			got := tt.show("show route all for " + plain)
			for _, want := range tt.wants {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
		})
	}
	l.Eventually("routes are refused", func() bool { return r.status("tor1").RefusedRoutes == 1 })
	r.set(peers, nil)
	for _, show := range []func(string) string{external, internal, six} {
		l.Eventually("withdrawn", func() bool { return !strings.Contains(show("show route"), plain) })
	}
}

// networks are routes of FRR's own.
func networks(from, to int) string {
	all := " address-family ipv4 unicast\n"
	for i := from; i < to; i++ {
		all += fmt.Sprintf("  network 192.0.2.%d/32\n", i)
	}
	return all + " exit-address-family\n no bgp network import-check\n"
}

func TestTooManyRoutesEndTheSession(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	f := p.frr(p.frrConfig(65001, 64512) + networks(0, 12))
	g := q.frr(q.frrConfig(65002, 64512))
	few := func(peer *Peer) { peer.MostRefused = 10 }
	r := l.speaker([]Peer{p.peer(65001, few), q.peer(65002, few)}, plainTo("tor1", "tor2"))
	ended := func() bool {
		s := r.status("tor1")
		return s.State == "Idle" && strings.HasPrefix(s.LastError, "the router advertises more than 10 routes to us")
	}
	l.Eventually("the session ends", ended)
	r.established("tor2")
	l.eventuallyIs("the other router", "via 10.0.2.1 path 64512", func() string { return g.route(plain) })

	again := func() {
		t.Helper()
		r.board.mu.Lock()
		wait := time.Until(r.board.entries["tor1"].renewal.at)
		r.board.mu.Unlock()
		if wait < overflowPause/2 {
			t.Errorf("it is tried again within %s", wait)
		}
		r.board.change("tor1", func(e *entry) {
			e.renewal.at = time.Now()
			e.status.LastError = "the wait is over"
		})
	}
	before := r.status("tor1").Since
	again()
	l.Eventually("it ends again", func() bool { return ended() && r.status("tor1").Since.After(before) })
	f.Vtysh("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "no network 192.0.2.0/32", "no network 192.0.2.1/32")
	again()
	r.established("tor1")
	l.eventuallyIs("the router", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
}

// More may be refused while a session lasts, and not less.
func TestMoreRoutesMayBeRefused(t *testing.T) {
	l := newLab(t)
	p := l.place(1)
	f := p.frr(p.frrConfig(65001, 64512) + networks(0, 8))
	most := func(n uint32) []Peer { return []Peer{p.peer(65001, func(peer *Peer) { peer.MostRefused = n })} }
	r := l.speaker(most(10), plainTo("tor1"))
	r.established("tor1")
	refused := func(n uint64) {
		t.Helper()
		l.Eventually(fmt.Sprint(n, " are refused"), func() bool { return r.status("tor1").RefusedRoutes == n })
	}
	refused(8)
	r.set(most(20), plainTo("tor1"))
	f.Vtysh("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "network 192.0.2.8/32", "network 192.0.2.9/32", "network 192.0.2.10/32")
	refused(11)
	r.set(most(10), plainTo("tor1"))
	f.Vtysh("configure terminal", "router bgp 65001", "address-family ipv4 unicast", "network 192.0.2.11/32")
	refused(12)
	r.established("tor1")
	if n := f.session("10.0.1.1").Established; n != 1 {
		t.Errorf("there have been %d sessions", n)
	}
}

// A speaker that has ended leaves nothing running, whatever state its sessions were in.
func TestNothingOutlivesRun(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	p.frr(p.frrConfig(65001, 64512))
	down, passive := q.peer(65002), q.peer(65003)
	down.Name, passive.Name, passive.Passive = "down", "passive", true
	passive.Address = addr("10.0.2.3")
	before := goleak.IgnoreCurrent()
	for _, quietly := range []bool{false, true} {
		r := l.speaker([]Peer{p.peer(65001), down, passive}, plainTo("tor1"))
		r.established("tor1")
		if quietly {
			r.LeaveQuietly()
		}
		r.stop()
		var left error
		ended := func() bool { left = goleak.Find(before); return left == nil }
		for start := time.Now(); !ended() && time.Since(start) < l.Patience; {
			time.Sleep(l.Poll)
		}
		if left != nil {
			t.Errorf("quietly %v: %v", quietly, left)
		}
	}
}
