package ipam

import (
	"net/netip"
	"testing"
	"time"
)

// at is the time of a claim.
func at(second int64) time.Time { return time.Unix(second, 0) }

// A guest that cannot be on the address any more gives it up even if there is no other one; the holder never does.
func TestForfeits(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	shop := func(name string) Key { return Key{"shop", name} }
	for _, c := range []struct {
		name   string
		holder Key
		claim  Claim
		ask    Request
		want   bool
	}{
		{"goes together", shop("api"), Claim{Share: "k", Ports: http}, Request{Share: "k", Ports: https}, false},
		{"same port", shop("api"), Claim{Share: "k", Ports: http}, Request{Share: "k", Ports: http}, true},
		{"another key in one namespace", shop("api"), Claim{Share: "k", Ports: http}, Request{Share: "q", Ports: https}, false},
		{"another key and the same port", shop("api"), Claim{Share: "k", Ports: http}, Request{Share: "q", Ports: http}, true},
		{"no key and the same port", shop("api"), Claim{Ports: http}, Request{Share: "k", Ports: http}, true},
		{"another key in another namespace", mail, Claim{Share: "k", Consent: Consent{"shop"}, Ports: http}, Request{Share: "q", Consent: Consent{"post"}, Ports: https}, true},
		{"consent taken back", mail, Claim{Share: "k", Ports: http}, Request{Share: "k", Consent: Consent{"post"}, Ports: https}, true},
		{"consent of both", mail, Claim{Share: "k", Consent: Consent{"shop"}, Ports: http}, Request{Share: "k", Consent: Consent{"post"}, Ports: https}, false},
		{"turned internal", shop("api"), Claim{Share: "k", Ports: http}, Request{Share: "k", Ports: https, Internal: true}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools([]Pool{{Name: "one", Ranges: rs("10.0.0.1"), AutoAssign: true}})
			c.claim.Since = at(1)
			a.Hold(addr, c.holder, c.claim)
			a.Hold(addr, web, Claim{Share: "k", Ports: https, Consent: c.ask.Consent, Since: at(2), Scope: External})
			c.ask.Key, c.ask.Families = web, v4
			if got := a.Forfeits(&c.ask, addr); got != c.want {
				t.Errorf("the guest forfeits: %t, want %t", got, c.want)
			}
			holder := Request{Key: c.holder, Families: v4, Ports: https}
			if a.Forfeits(&holder, addr) {
				t.Error("the holder has to leave for its guest")
			}
		})
	}
}

// What was shared without consent stays, until one of the two says with whom it shares; a third does not join.
func TestGrandfathered(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	a := New()
	a.SetPools([]Pool{{Name: "one", Ranges: rs("10.0.0.1", "10.0.0.2"), AutoAssign: true}})
	a.Hold(addr, mail, Claim{Share: "k", Ports: http, Grandfathered: true})
	a.Hold(addr, web, Claim{Share: "k", Ports: https, Grandfathered: true})
	asks := func(key Key, ports []Port, consent ...string) *Request {
		return &Request{Key: key, Families: v4, Share: "k", Ports: ports, Consent: consent, Addresses: []netip.Addr{addr}}
	}
	if no := a.Check(asks(web, https), addr); no != nil {
		t.Errorf("the guest: %v", no)
	}
	if !a.Unconsented(web, addr) || !a.Unconsented(mail, addr) {
		t.Error("nobody is told that it is shared without consent")
	}
	if no := a.Check(asks(Key{"shop", "third"}, []Port{{"TCP", 81}}, Everyone), addr); no == nil {
		t.Error("a third joins without consent")
	}
	if _, err := a.Assign(asks(mail, http, "else")); err != nil {
		t.Errorf("the holder names namespaces: %v", err)
	}
	if no := a.Check(asks(web, https), addr); no == nil || a.Unconsented(web, addr) {
		t.Errorf("the holder named its namespaces, and the guest stays")
	}
	if by, parted := a.Parted(web, addr); !parted || by != mail {
		t.Errorf("parted %t by %s", parted, by)
	}
}

// Only the one that came later is told that it could not join.
func TestApart(t *testing.T) {
	for _, c := range []struct {
		name  string
		older Key
		claim Claim
		ask   Request
		want  Reason
	}{
		{"other selectors", api, Claim{Share: "k", Ports: http, Local: true, Backend: "a"}, Request{Share: "k", Ports: https, Local: true, Backend: "b"}, PolicyConflict},
		{"the same port", api, Claim{Share: "k", Ports: http}, Request{Share: "k", Ports: http}, PortConflict},
		{"in another namespace", mail, Claim{Share: "k", Ports: http, Consent: Consent{"*"}}, Request{Share: "k", Ports: http, Consent: Consent{"*"}}, ""},
		{"another key", api, Claim{Share: "q", Ports: http}, Request{Share: "k", Ports: http}, ""},
		{"no key", api, Claim{Ports: http}, Request{Ports: http}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools([]Pool{{Name: "two", Ranges: rs("10.0.0.1-10.0.0.2"), AutoAssign: true}})
			c.claim.Since = at(1)
			a.Hold(netip.MustParseAddr("10.0.0.1"), c.older, c.claim)
			c.ask.Key, c.ask.Families, c.ask.Now = web, v4, at(2)
			if got, err := a.Assign(&c.ask); err != nil || got.Addresses[0].Addr.String() != "10.0.0.2" {
				t.Fatalf("%s", outcome(got, err))
			}
			reason := Reason("")
			if no := a.Apart(&c.ask); no != nil {
				reason = no.Reason
			}
			if reason != c.want {
				t.Errorf("told %q, want %q", reason, c.want)
			}
			elder := Request{Key: c.older, Families: v4, Share: c.claim.Share, Ports: c.claim.Ports}
			if no := a.Apart(&elder); no != nil {
				t.Errorf("the older is told %v", no)
			}
		})
	}
}

// A refusal names the oldest of those in the way, so that it stays true for as long as that one has the address.
func TestTheOldestInTheWayIsNamed(t *testing.T) {
	addr := netip.MustParseAddr("10.0.0.1")
	for _, younger := range []Key{{"shop", "a"}, {"shop", "z"}, mail} {
		a := New()
		a.SetPools([]Pool{{Name: "one", Ranges: rs("10.0.0.1"), AutoAssign: true}})
		a.Hold(addr, api, Claim{Share: "k", Ports: http, Since: at(1), Consent: Consent{Everyone}})
		ask := &Request{Key: web, Families: v4, Share: "k", Ports: append(https, http...), Addresses: []netip.Addr{addr}}
		before := a.Check(ask, addr)
		a.Hold(addr, younger, Claim{Share: "k", Ports: https, Since: at(2), Consent: Consent{Everyone}})
		if after := a.Check(ask, addr); before.Message != after.Message || after.Holder != api {
			t.Errorf("with %s: %q, before %q", younger, after.Message, before.Message)
		}
	}
}

// What Services of other namespaces do on the address of an older one changes nothing in what the younger one is told.
func TestApartIsOfTheNamespaceAlone(t *testing.T) {
	shared, own := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	a := New()
	a.SetPools([]Pool{{Name: "two", Ranges: rs("10.0.0.1-10.0.0.2"), AutoAssign: true}})
	a.Hold(shared, api, Claim{Share: "k", Ports: http, Since: at(2), Consent: Consent{Everyone}})
	a.Hold(own, web, Claim{Share: "k", Ports: http, Since: at(3)})
	ask := &Request{Key: web, Families: v4, Share: "k", Ports: http}
	before := a.Apart(ask)
	for _, since := range []time.Time{at(1), at(4)} {
		a.Hold(shared, mail, Claim{Share: "k", Ports: http, Since: since})
		if after := a.Apart(ask); before == nil || after == nil || after.Message != before.Message {
			t.Errorf("told %v, before %v", after, before)
		}
	}
	ask.Families = v6 // it leaves the IPv4 address, which may take a moment
	if no := a.Apart(ask); no != nil {
		t.Errorf("told of a family that it has not any more: %v", no)
	}
}

// Those who are told of an edit are the younger ones of the namespace who have an address for themselves.
func TestJuniors(t *testing.T) {
	a := New()
	for i, c := range []struct {
		addr string
		key  Key
		at   int64
	}{{"10.0.0.1", api, 2}, {"10.0.0.2", web, 3}, {"10.0.0.3", Key{"shop", "elder"}, 1}, {"10.0.0.4", mail, 3}, {"10.0.0.5", Key{"shop", "x"}, 4}, {"10.0.0.5", Key{"shop", "y"}, 5}} {
		a.Hold(netip.MustParseAddr(c.addr), c.key, Claim{Share: "k", Ports: []Port{{"TCP", uint16(i + 1)}}, Since: at(c.at)})
	}
	if got := a.Juniors(api, netip.MustParseAddr("10.0.0.1"), "k"); len(got) != 1 || got[0] != web {
		t.Errorf("%v, want %v", got, web)
	}
	if got := a.Juniors(api, netip.MustParseAddr("10.0.0.1"), ""); len(got) != 0 {
		t.Errorf("without a key: %v", got)
	}
}
