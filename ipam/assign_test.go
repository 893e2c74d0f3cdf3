package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	web  = Key{"shop", "web"}
	api  = Key{"shop", "api"}
	mail = Key{"post", "mail"}

	v4   = []Family{IPv4}
	v6   = []Family{IPv6}
	dual = []Family{IPv4, IPv6}

	http  = []Port{{"TCP", 80}}
	https = []Port{{"TCP", 443}}
)

// A fact is what the Allocator was told before.
type fact func(*Allocator)

func holds(key Key, addr string, c Claim) fact {
	return func(a *Allocator) { a.Hold(netip.MustParseAddr(addr), key, c) }
}

func reserved(key Key, addr string) fact {
	return func(a *Allocator) { a.Reserve(netip.MustParseAddr(addr), key) }
}

func quarantine(addr string) fact {
	return func(a *Allocator) { a.Quarantine(netip.MustParseAddr(addr)) }
}

func TestAssign(t *testing.T) {
	one := Pool{Name: "one", Ranges: rs("10.0.0.1"), AutoAssign: true}
	two := Pool{Name: "two", Ranges: rs("10.0.2.1-10.0.2.2"), AutoAssign: true}
	six := Pool{Name: "six", Ranges: rs("2001:db8::1"), AutoAssign: true}
	both := Pool{Name: "both", Ranges: rs("10.0.4.1", "2001:db8:4::1"), AutoAssign: true}
	manual := Pool{Name: "manual", Ranges: rs("10.0.5.1")}
	inside := Pool{Name: "inside", Ranges: rs("10.0.6.1"), AutoAssign: true, Internal: true}
	picky := Pool{Name: "picky", Ranges: rs("10.0.7.1"), AutoAssign: true, Serves: func(r *Request) bool { return r.Labels["tier"] == "web" }}
	first := Pool{Name: "zfirst", Ranges: rs("10.0.8.1"), AutoAssign: true, Priority: 5}
	small := Pool{Name: "small", Ranges: rs("10.0.9.1-10.0.9.9"), AutoAssign: true, MaxPerNamespace: 1}
	gaps := Pool{Name: "gaps", Ranges: rs("10.0.10.0-10.0.10.3"), Exclude: rs("10.0.10.2-10.0.10.3"), AvoidBuggyIPs: true, AutoAssign: true}
	last := Pool{Name: "zlast", Ranges: rs("10.0.11.1", "2001:db8:11::1"), AutoAssign: true}
	key := func(ports []Port) Claim { return Claim{Share: "k", Ports: ports} }
	consenting := func(to ...string) Claim { return Claim{Share: "k", Consent: to, Ports: http} }

	for _, c := range []struct {
		name    string
		pools   []Pool
		given   []fact
		request Request
		want    string
	}{
		// Automatic allocation.
		{"a free address", []Pool{one}, nil, Request{Families: v4}, "10.0.0.1 of one; added 10.0.0.1"},
		{"by priority", []Pool{one, first}, nil, Request{Families: v4}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"by name", []Pool{two, one}, nil, Request{Families: v4}, "10.0.0.1 of one; added 10.0.0.1"},
		{"a full pool falls through", []Pool{one, first}, []fact{holds(api, "10.0.8.1", Claim{})}, Request{Families: v4}, "10.0.0.1 of one; added 10.0.0.1"},
		{"internal", []Pool{first, inside}, nil, Request{Families: v4, Internal: true}, "10.0.6.1 of inside; added 10.0.6.1"},
		{"selectors", []Pool{picky, two}, nil, Request{Families: v4, Labels: map[string]string{"tier": "web"}}, "10.0.7.1 of picky; added 10.0.7.1"},
		{"what is left of a pool with gaps", []Pool{gaps}, nil, Request{Families: v4}, "10.0.10.1 of gaps; added 10.0.10.1"},
		{"a pool by name", []Pool{one, manual}, nil, Request{Families: v4, Pool: "manual"}, "10.0.5.1 of manual; added 10.0.5.1"},
		{"internal, and a pool that is not", []Pool{one, inside}, nil, Request{Families: v4, Internal: true, Pool: "one"},
			"ConflictingRequests: The Service asks for an internal load balancer and for pool one, whose scope is External: " +
				"remove the request for an internal load balancer, or ask for a pool of scope Internal."},
		{"internal, and an address that is not", []Pool{one, inside}, nil, Request{Families: v4, Internal: true, Addresses: addrs("10.0.0.1")},
			"ConflictingRequests: The Service asks for an internal load balancer and for address 10.0.0.1 of pool one, whose scope is External: " +
				"remove the request for an internal load balancer, or ask for a pool of scope Internal."},
		{"internal, and an internal address", []Pool{one, inside}, nil, Request{Families: v4, Internal: true, Addresses: addrs("10.0.6.1")}, "10.0.6.1 of inside; added 10.0.6.1"},
		{"an internal pool by name", []Pool{one, inside}, nil, Request{Families: v4, Pool: "inside"}, "10.0.6.1 of inside; added 10.0.6.1"},
		{"no pool", nil, nil, Request{Families: v4}, "NoPool: There is no address pool: create one."},
		{"no pool of the name", []Pool{one}, nil, Request{Families: v4, Pool: "tow"}, "UnknownPool: There is no pool tow: create it, or ask for another one."},
		{"no pool serves it", []Pool{manual, inside, picky, six}, nil, Request{Families: v4},
			"NoPool: No pool gives shop/web an IPv4 address (inside is for internal load balancers; " +
				"manual is only for Services that name it (autoAssign: false); picky does not select the Service; six has no IPv4 addresses): " +
				"add a pool that serves it, or ask for one by name."},
		{"exhausted", []Pool{one, two}, []fact{holds(api, "10.0.0.1", Claim{}), holds(api, "10.0.2.1", Claim{}), reserved(api, "10.0.2.2")}, Request{Families: v4},
			"PoolExhausted: No pool gives shop/web an IPv4 address (one has all its 1 taken; two has all its 2 taken): add addresses, or release some."},
		{"quota", []Pool{small}, []fact{holds(api, "10.0.9.3", Claim{})}, Request{Families: v4},
			"NamespaceQuota: No pool gives shop/web an IPv4 address (small gives a namespace 1 (maxPerNamespace) and shop has them): release an address of the namespace, or raise maxPerNamespace."},
		{"quota of another namespace", []Pool{small}, []fact{holds(mail, "10.0.9.3", Claim{})}, Request{Families: v4, Addresses: addrs("10.0.9.4")},
			"10.0.9.4 of small; added 10.0.9.4"},
		{"quota when one takes the other's place", []Pool{small}, []fact{holds(web, "10.0.9.3", Claim{})}, Request{Families: v4, Addresses: addrs("10.0.9.4")},
			"10.0.9.4 of small; added 10.0.9.4; released 10.0.9.3"},

		// Families.
		{"both of one pool", []Pool{first, six, both}, nil, Request{Families: []Family{IPv6, IPv4}},
			"2001:db8:4::1 of both, 10.0.4.1 of both; added 2001:db8:4::1 10.0.4.1"},
		{"both of two pools", []Pool{one, six}, nil, Request{Families: dual}, "10.0.0.1 of one, 2001:db8::1 of six; added 10.0.0.1 2001:db8::1"},
		{"the second of the pool of the first", []Pool{both, last}, []fact{holds(web, "10.0.11.1", Claim{Pool: "zlast"})}, Request{Families: dual},
			"10.0.11.1 of zlast, 2001:db8:11::1 of zlast; added 2001:db8:11::1"},
		{"all or nothing", []Pool{one}, nil, Request{Families: dual},
			"NoPool: No pool gives shop/web an IPv6 address (one has no IPv6 addresses): add a pool that serves it, or ask for one by name."},
		{"what there is", []Pool{one}, nil, Request{Families: dual, Partial: true}, "10.0.0.1 of one; added 10.0.0.1; missing NoPool IPv6"},
		{"what there is, the second", []Pool{six}, nil, Request{Families: dual, Partial: true}, "2001:db8::1 of six; added 2001:db8::1; missing NoPool IPv4"},
		{"what there is, nothing", []Pool{manual}, nil, Request{Families: dual, Partial: true},
			"NoPool: No pool gives shop/web an IPv4 address (manual is only for Services that name it (autoAssign: false)): add a pool that serves it, or ask for one by name."},
		{"a family less", []Pool{one, six}, []fact{holds(web, "10.0.0.1", Claim{}), holds(web, "2001:db8::1", Claim{})}, Request{Families: v6},
			"2001:db8::1 of six; released 10.0.0.1"},

		// What is asked for.
		{"an address of a manual pool", []Pool{manual, one}, nil, Request{Families: v4, Addresses: addrs("10.0.5.1")}, "10.0.5.1 of manual; added 10.0.5.1"},
		{"one family asked for, the other given", []Pool{both}, nil, Request{Families: dual, Addresses: addrs("2001:db8:4::1")},
			"10.0.4.1 of both, 2001:db8:4::1 of both; added 10.0.4.1 2001:db8:4::1"},
		{"another address than the held one", []Pool{two}, []fact{holds(web, "10.0.2.1", Claim{})}, Request{Families: v4, Addresses: addrs("10.0.2.2")},
			"10.0.2.2 of two; added 10.0.2.2; released 10.0.2.1"},
		{"another address that cannot be had", []Pool{two}, []fact{holds(web, "10.0.2.1", Claim{}), holds(api, "10.0.2.2", Claim{})}, Request{Families: v4, Addresses: addrs("10.0.2.2")},
			"NotShared: Address 10.0.2.2 is held by shop/api, and neither of the two has a sharing key: give both the same key, or ask for another address."},
		{"another pool", []Pool{one, two}, []fact{holds(web, "10.0.0.1", Claim{Pool: "one"}), reserved(api, "10.0.2.2")}, Request{Families: v4, Pool: "two"},
			"10.0.2.1 of two; added 10.0.2.1; released 10.0.0.1"},
		{"asked for and not had is an error though partial", []Pool{both}, nil, Request{Families: dual, Partial: true, Addresses: addrs("10.9.9.9")},
			"OutsidePools: Address 10.9.9.9 is in no pool: add it to one, or ask for another address."},
		{"no family", []Pool{one}, nil, Request{}, "InvalidRequest: The Service names no IP family: set spec.ipFamilies."},
		{"a family twice", []Pool{one}, nil, Request{Families: []Family{IPv4, IPv4}},
			"InvalidRequest: The Service asks for the IP families [IPv4 IPv4]: IPv4 and IPv6 are possible, each once."},

		// What is held.
		{"held before", []Pool{one, two}, []fact{holds(web, "10.0.2.2", Claim{Pool: "two"})}, Request{Families: v4}, "10.0.2.2 of two"},
		{"held, and the pool is gone", []Pool{two}, []fact{holds(web, "10.0.0.1", Claim{Pool: "one"})}, Request{Families: v4, Pool: "one"}, "10.0.0.1 of one"},
		{"held, and the pool has another name now", []Pool{one}, []fact{holds(web, "10.0.0.1", Claim{Pool: "old"})}, Request{Families: v4}, "10.0.0.1 of one"},
		{"held, and not served any more", []Pool{picky, one}, []fact{holds(web, "10.0.7.1", Claim{Pool: "picky"})}, Request{Families: v4}, "10.0.7.1 of picky"},
		{"held, and over the quota", []Pool{small}, []fact{holds(web, "10.0.9.1", Claim{}), holds(api, "10.0.9.2", Claim{})}, Request{Families: v4}, "10.0.9.1 of small"},
		{"held, and the pool was turned internal", []Pool{inside, one}, []fact{holds(web, "10.0.6.1", Claim{Scope: External})}, Request{Families: v4}, "10.0.6.1 of inside"},
		{"held, and the Service was turned internal", []Pool{inside, one}, []fact{holds(web, "10.0.0.1", Claim{Scope: External})}, Request{Families: v4, Internal: true},
			"10.0.6.1 of inside; added 10.0.6.1; released 10.0.0.1"},
		{"held, told of again, and the Service was turned internal", []Pool{inside, one},
			[]fact{holds(web, "10.0.0.1", Claim{Scope: External}), holds(web, "10.0.0.1", Claim{})}, Request{Families: v4, Internal: true},
			"10.0.6.1 of inside; added 10.0.6.1; released 10.0.0.1"},
		{"held, the Service is internal, and since when is not known", []Pool{inside, one}, []fact{holds(web, "10.0.0.1", Claim{})}, Request{Families: v4, Internal: true}, "10.0.6.1 of inside; added 10.0.6.1; released 10.0.0.1"},
		{"held, and asked for by the old name of the pool", []Pool{one}, []fact{holds(web, "10.0.0.1", Claim{Pool: "old"})}, Request{Families: v4, Pool: "old"}, "10.0.0.1 of old"},
		{"two of one family held", []Pool{two}, []fact{holds(web, "10.0.2.2", Claim{}), holds(web, "10.0.2.1", Claim{})}, Request{Families: v4},
			"10.0.2.1 of two; released 10.0.2.2"},

		// Reservations.
		{"reserved for it", []Pool{one, two}, []fact{reserved(web, "10.0.2.2")}, Request{Families: v4}, "10.0.2.2 of two; added 10.0.2.2"},
		{"reserved for it outside the pools", []Pool{one}, []fact{reserved(web, "10.9.9.9")}, Request{Families: v4}, "10.9.9.9 of ; added 10.9.9.9"},
		{"reserved for it, and it asks for another", []Pool{one, two}, []fact{reserved(web, "10.0.2.2")}, Request{Families: v4, Pool: "one"}, "10.0.0.1 of one; added 10.0.0.1"},
		{"reserved for it in a pool of the other scope", []Pool{one, inside}, []fact{reserved(web, "10.0.6.1")}, Request{Families: v4}, "10.0.0.1 of one; added 10.0.0.1"},
		{"reserved for another", []Pool{one, two}, []fact{reserved(api, "10.0.0.1"), reserved(Key{}, "10.0.2.1")}, Request{Families: v4}, "10.0.2.2 of two; added 10.0.2.2"},

		// Quarantine.
		{"in use by another host", []Pool{one, two}, []fact{quarantine("10.0.0.1")}, Request{Families: v4}, "10.0.2.1 of two; added 10.0.2.1"},
		{"held, and in use by another host", []Pool{two}, []fact{holds(web, "10.0.2.2", Claim{}), quarantine("10.0.2.2")}, Request{Families: v4},
			"10.0.2.1 of two; added 10.0.2.1; released 10.0.2.2"},
		{"held and asked for, and in use by another host", []Pool{two}, []fact{holds(web, "10.0.2.2", Claim{}), quarantine("10.0.2.2")},
			Request{Families: v4, Addresses: addrs("10.0.2.2")}, "10.0.2.2 of two"},
		{"held and kept, and in use by another host", []Pool{two}, []fact{holds(web, "10.0.2.2", Claim{}), quarantine("10.0.2.2")},
			Request{Families: v4, Keeps: addrs("10.0.2.2")}, "10.0.2.2 of two"},
		{"not held and kept, and in use by another host", []Pool{two}, []fact{quarantine("10.0.2.1")}, Request{Families: v4, Keeps: addrs("10.0.2.1")}, "10.0.2.2 of two; added 10.0.2.2"},
		{"held and reserved for it, and in use by another host", []Pool{two}, []fact{holds(web, "10.0.2.2", Claim{}), reserved(web, "10.0.2.2"), quarantine("10.0.2.2")},
			Request{Families: v4}, "10.0.2.2 of two"},
		{"reserved for it, and in use by another host", []Pool{two}, []fact{reserved(web, "10.0.2.2"), quarantine("10.0.2.2")}, Request{Families: v4}, "10.0.2.2 of two; added 10.0.2.2"},
		{"reserved for another, and in use by another host", []Pool{two}, []fact{reserved(api, "10.0.2.2"), quarantine("10.0.2.2")},
			Request{Families: v4, Addresses: addrs("10.0.2.2")}, "AddressConflict: Another host uses address 10.0.2.2: its VirtualIP says which. Take the address from that host, or ask for another one."},
		{"asked for, and in use by another host", []Pool{two}, []fact{quarantine("10.0.2.2")}, Request{Families: v4, Addresses: addrs("10.0.2.2")},
			"AddressConflict: Another host uses address 10.0.2.2: its VirtualIP says which. Take the address from that host, or ask for another one."},
		{"does not join where another host is", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http)), quarantine("10.0.0.1")},
			Request{Families: v4, Share: "k", Ports: https}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"exhausted by other hosts", []Pool{one, two}, []fact{quarantine("10.0.0.1"), holds(api, "10.0.2.1", Claim{}), holds(web, "10.0.2.2", Claim{}), quarantine("10.0.2.2")}, Request{Families: v4},
			"PoolExhausted: No pool gives shop/web an IPv4 address (one has all its 1 taken, 1 of them by other hosts; two has all its 2 taken, 1 of them by other hosts): " +
				"add addresses, or release some."},

		// Sharing.
		{"joins", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http))}, Request{Families: v4, Share: "k", Ports: https}, "10.0.0.1 of one; added 10.0.0.1"},
		{"joins across namespaces", []Pool{one}, []fact{holds(mail, "10.0.0.1", consenting("shop"))}, Request{Families: v4, Share: "k", Consent: Consent{"post"}, Ports: https}, "10.0.0.1 of one; added 10.0.0.1"},
		{"joins across namespaces, all of them", []Pool{one}, []fact{holds(mail, "10.0.0.1", consenting("*"))}, Request{Families: v4, Share: "k", Consent: Consent{"*"}, Ports: https}, "10.0.0.1 of one; added 10.0.0.1"},
		{"does not join without the holder's consent", []Pool{one, first}, []fact{holds(mail, "10.0.0.1", consenting("else"))}, Request{Families: v4, Share: "k", Consent: Consent{"post"}, Ports: https},
			"10.0.8.1 of zfirst; added 10.0.8.1"},
		{"does not join without consenting", []Pool{one, first}, []fact{holds(mail, "10.0.0.1", consenting("*"))}, Request{Families: v4, Share: "k", Ports: https}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"hears nothing of a key in another namespace", []Pool{one}, []fact{holds(mail, "10.0.0.1", consenting("*"))}, Request{Families: v4, Share: "k", Ports: https},
			"PoolExhausted: No pool gives shop/web an IPv4 address (one has all its 1 taken): add addresses, or release some."},
		{"does not join where it is not served", []Pool{picky, one}, []fact{holds(api, "10.0.7.1", key(http))}, Request{Families: v4, Share: "k", Ports: https}, "10.0.0.1 of one; added 10.0.0.1"},
		{"does not join where it is excluded", []Pool{gaps, one}, []fact{holds(api, "10.0.10.2", key(http))}, Request{Families: v4, Share: "k", Ports: https}, "10.0.10.1 of gaps; added 10.0.10.1"},
		{"joins in the pool tried first", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http)), holds(Key{"shop", "zoo"}, "10.0.8.1", key(http))}, Request{Families: v4, Share: "k", Ports: https}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"does not join on the same port", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http))}, Request{Families: v4, Share: "k", Ports: http}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"does not join another key", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http))}, Request{Families: v4, Share: "q", Ports: https}, "10.0.8.1 of zfirst; added 10.0.8.1"},
		{"its port is taken now, and it moves", []Pool{one, first}, []fact{holds(api, "10.0.0.1", key(http)), holds(web, "10.0.0.1", key(https))}, Request{Families: v4, Share: "k", Ports: http},
			"10.0.8.1 of zfirst; added 10.0.8.1; released 10.0.0.1"},
		{"its port is taken now, and it cannot move", []Pool{one}, []fact{holds(api, "10.0.0.1", key(http)), holds(web, "10.0.0.1", key(https))}, Request{Families: v4, Share: "k", Ports: http},
			"PortConflict: Address 10.0.0.1 is held by shop/api, which serves TCP port 80 too: change one of the ports, or ask for another address. " +
				"There is no address of its own for it either. No pool gives shop/web an IPv4 address (one has all its 1 taken): add addresses, or release some."},
		{"its key cannot be honored, and there is no other address", []Pool{one}, []fact{holds(api, "10.0.0.1", key(http))}, Request{Families: v4, Share: "k", Ports: https, Local: true, Backend: "b"},
			"PolicyConflict: Address 10.0.0.1 is held by shop/api, and with externalTrafficPolicy Local both must have the same selector: make both Cluster, or ask for another address. " +
				"There is no address of its own for it either. No pool gives shop/web an IPv4 address (one has all its 1 taken): add addresses, or release some."},
		{"the holder serves a guest's port now, and stays", []Pool{one, first}, []fact{holds(web, "10.0.0.1", Claim{Share: "k", Since: time.Unix(1, 0)}), holds(api, "10.0.0.1", Claim{Share: "k", Ports: http, Since: time.Unix(2, 0)})},
			Request{Families: v4, Share: "k", Ports: http}, "10.0.0.1 of one"},
		{"the holder removes its key, and stays", []Pool{one, first}, []fact{holds(web, "10.0.0.1", Claim{Share: "k", Since: time.Unix(1, 0)}), holds(api, "10.0.0.1", Claim{Share: "k", Ports: http, Since: time.Unix(2, 0)})},
			Request{Families: v4, Ports: https}, "10.0.0.1 of one"},
		{"a guest serves another guest's port now, and moves", []Pool{one, first}, []fact{holds(mail, "10.0.0.1", Claim{Share: "k", Consent: Consent{"*"}}),
			holds(web, "10.0.0.1", Claim{Share: "k", Since: time.Unix(1, 0)}), holds(api, "10.0.0.1", Claim{Share: "k", Ports: http, Since: time.Unix(2, 0)})},
			Request{Families: v4, Share: "k", Consent: Consent{"post"}, Ports: http}, "10.0.8.1 of zfirst; added 10.0.8.1; released 10.0.0.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools(c.pools)
			for _, f := range c.given {
				f(a)
			}
			before := dump(a)
			c.request.Key = web
			got, err := a.Assign(&c.request)
			if diff := cmp.Diff(c.want, outcome(got, err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err != nil && dump(a) != before {
				t.Errorf("a refused request changed something:\n%s", cmp.Diff(before, dump(a)))
			}
			if again, err := a.Assign(&c.request); err == nil && (again.Added != nil || again.Released != nil) {
				t.Errorf("assigned again: %s", outcome(again, err))
			}
		})
	}
}

// An address that is asked for is had, or there is a reason, and the reason names who or what is in the way.
func TestCheckAsked(t *testing.T) {
	claim := func(local bool, backend string) Claim {
		return Claim{Pool: "public", Share: "k", Ports: http, Local: local, Backend: backend}
	}
	ask := func(share string, ports []Port, local bool, backend string) Request {
		return Request{Share: share, Ports: ports, Local: local, Backend: backend}
	}
	with := func(share string, ports []Port, to ...string) Claim {
		return Claim{Share: share, Ports: ports, Consent: to}
	}
	from := func(share string, ports []Port, to ...string) Request {
		return Request{Share: share, Ports: ports, Consent: to}
	}
	const elsewhere = "NotShared: Address 203.0.113.9 is held by a Service of another namespace, which does not share it with shop/web: that takes one sharing key, " +
		"consent of both sides, no port in common and externalTrafficPolicy Cluster. Ask for another address."
	pools := []Pool{
		{Name: "public", Ranges: rs("203.0.113.0/24", "2001:db8::/64"), Exclude: rs("203.0.113.32/28"), AvoidBuggyIPs: true, StaticBand: 16},
		{Name: "other", Ranges: rs("10.0.0.0/8"), Serves: func(*Request) bool { return false }},
		{Name: "inside", Ranges: rs("172.16.0.0/12"), Internal: true, AutoAssign: true, MaxPerNamespace: 1},
	}
	for _, c := range []struct {
		name    string
		given   fact
		request Request
		addr    string
		want    string
	}{
		{"free", nil, Request{}, "203.0.113.99", ""},
		{"in the static band", nil, Request{}, "203.0.113.3", ""},
		{"internal pool", nil, Request{}, "172.16.0.1", ""},
		{"IPv6", nil, Request{Families: v6}, "2001:db8::ffff:ffff:ffff:ffff", ""},
		{"outside", nil, Request{}, "198.51.100.1", "OutsidePools: Address 198.51.100.1 is in no pool: add it to one, or ask for another address."},
		{"not served", nil, Request{}, "10.0.0.1", "PoolNotServing: Pool other, which has 10.0.0.1, does not serve shop/web: change its selectors, or ask for another address."},
		{"excluded", nil, Request{}, "203.0.113.33", "Excluded: Address 203.0.113.33 is excluded from pool public: ask for another address."},
		{"avoided", nil, Request{}, "203.0.113.255", "BuggyAddress: Pool public avoids addresses that end in .0 and .255, as 203.0.113.255 does: ask for another address."},
		{"wrong family", nil, Request{}, "2001:db8::1", "WrongFamily: Address 2001:db8::1 is IPv6 and the Service has only IPv4: change the address or spec.ipFamilies."},
		{"two of one family", nil, Request{Addresses: addrs("203.0.113.9")}, "203.0.113.10",
			"TwoOfOneFamily: The Service asks for 203.0.113.9 and 203.0.113.10, both IPv4: ask for one address of a family."},
		{"IPv4 in IPv6", nil, Request{}, "::ffff:203.0.113.9",
			`InvalidRequest: The Service asks for "::ffff:203.0.113.9", which is not a plain address: write it like 203.0.113.10 or 2001:db8::10.`},
		{"not in the pool asked for", nil, Request{Pool: "inside"}, "203.0.113.9",
			"NotInPool: The Service asks for pool inside, and 203.0.113.9 is in pool public: ask for one of the two."},
		{"in no pool, and one asked for", nil, Request{Pool: "inside"}, "198.51.100.1",
			"NotInPool: The Service asks for pool inside, and 198.51.100.1 is in no pool: ask for one of the two."},
		{"unknown pool", nil, Request{Pool: "nope"}, "203.0.113.9", "UnknownPool: There is no pool nope: create it, or ask for another one."},
		{"quota", holds(api, "172.16.0.2", Claim{}), Request{}, "172.16.0.1",
			"NamespaceQuota: Namespace shop holds 1 IPv4 addresses of pool inside, and its maxPerNamespace is 1: release one, or raise it."},
		{"reserved for it", reserved(web, "203.0.113.9"), Request{}, "203.0.113.9", ""},
		{"reserved for it and excluded", reserved(web, "203.0.113.33"), Request{}, "203.0.113.33", ""},
		{"reserved for another", reserved(api, "203.0.113.9"), Request{}, "203.0.113.9",
			"Reserved: Address 203.0.113.9 is reserved for shop/api: delete its VirtualIP, or ask for another address. (shop/api)"},
		{"reserved for nobody", reserved(Key{}, "203.0.113.9"), Request{}, "203.0.113.9",
			"Reserved: Address 203.0.113.9 is reserved and not for any Service: delete its VirtualIP, or ask for another address."},

		{"taken, no key", holds(api, "203.0.113.9", Claim{}), Request{}, "203.0.113.9",
			"NotShared: Address 203.0.113.9 is held by shop/api, and neither of the two has a sharing key: give both the same key, or ask for another address. (shop/api)"},
		{"taken, the holder has no key", holds(api, "203.0.113.9", Claim{}), ask("k", nil, false, ""), "203.0.113.9",
			"NotShared: Address 203.0.113.9 is held by shop/api, and shop/api has no sharing key: give both the same key, or ask for another address. (shop/api)"},
		{"taken, the Service has no key", holds(api, "203.0.113.9", claim(false, "")), Request{}, "203.0.113.9",
			"NotShared: Address 203.0.113.9 is held by shop/api, and shop/web has no sharing key: give both the same key, or ask for another address. (shop/api)"},
		{"taken, another key", holds(api, "203.0.113.9", claim(false, "")), ask("q", nil, false, ""), "203.0.113.9",
			`OtherShareKey: Address 203.0.113.9 is held by shop/api under another sharing key: give both the same key, or ask for another address. (shop/api)`},
		{"taken in another namespace", holds(mail, "203.0.113.9", Claim{}), ask("k", https, false, ""), "203.0.113.9", elsewhere},
		{"taken in another namespace, another key", holds(mail, "203.0.113.9", with("q", http, "*")), from("k", https, "post"), "203.0.113.9", elsewhere},
		{"taken in another namespace, without its consent", holds(mail, "203.0.113.9", with("k", http)), from("k", https, "post"), "203.0.113.9", elsewhere},
		{"taken in another namespace, without consenting", holds(mail, "203.0.113.9", with("k", http, "*")), from("k", https), "203.0.113.9", elsewhere},
		{"taken in another namespace, same port", holds(mail, "203.0.113.9", with("k", https, "*")), from("k", https, "post"), "203.0.113.9", elsewhere},
		{"taken in another namespace, with all that it takes", holds(mail, "203.0.113.9", with("k", http, "shop")), from("k", https, "post"), "203.0.113.9", ""},
		{"reserved in another namespace", reserved(mail, "203.0.113.9"), Request{}, "203.0.113.9",
			"Reserved: Address 203.0.113.9 is reserved for a Service of another namespace: ask for another address."},
		{"shared, other port", holds(api, "203.0.113.9", claim(false, "a")), ask("k", https, false, "b"), "203.0.113.9", ""},
		{"shared, other protocol", holds(api, "203.0.113.9", claim(false, "")), ask("k", []Port{{"UDP", 80}}, false, ""), "203.0.113.9", ""},
		{"shared, same port", holds(api, "203.0.113.9", claim(false, "")), ask("k", []Port{{"TCP", 443}, {"TCP", 80}}, false, ""), "203.0.113.9",
			"PortConflict: Address 203.0.113.9 is held by shop/api, which serves TCP port 80 too: change one of the ports, or ask for another address. (shop/api)"},
		{"shared, both Local, same selector", holds(api, "203.0.113.9", claim(true, "a")), ask("k", https, true, "a"), "203.0.113.9", ""},
		{"shared, one Local, same selector", holds(api, "203.0.113.9", claim(false, "a")), ask("k", https, true, "a"), "203.0.113.9", ""},
		{"shared, both Local, no selector", holds(api, "203.0.113.9", claim(true, "")), ask("k", https, true, ""), "203.0.113.9",
			"PolicyConflict: Address 203.0.113.9 is held by shop/api, and with externalTrafficPolicy Local both must have the same selector: make both Cluster, or ask for another address. (shop/api)"},
		{"shared, one Local, other selector", holds(api, "203.0.113.9", claim(true, "a")), ask("k", https, false, "b"), "203.0.113.9",
			"PolicyConflict: Address 203.0.113.9 is held by shop/api, and with externalTrafficPolicy Local both must have the same selector: make both Cluster, or ask for another address. (shop/api)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools(pools)
			if c.given != nil {
				c.given(a)
			}
			r, addr := c.request, netip.MustParseAddr(c.addr)
			r.Key, r.Addresses = web, append(r.Addresses, addr)
			if r.Families == nil {
				r.Families = v4
			}
			if diff := cmp.Diff(c.want, refusal(a.Check(&r, addr))); diff != "" {
				t.Errorf("Check (-want +got):\n%s", diff)
			}
			if _, err := a.Assign(&r); (err == nil) != (c.want == "") {
				t.Errorf("Assign says %v", err)
			}
		})
	}
}

// A pool edit makes no held address wrong; only the request can.
func TestCheckHeld(t *testing.T) {
	pools := []Pool{{Name: "now", Ranges: rs("10.0.0.0/24"), Exclude: rs("10.0.0.9"), Serves: func(*Request) bool { return false }}}
	for _, c := range []struct {
		name    string
		addr    string
		request Request
		want    Reason
	}{
		{"excluded now", "10.0.0.9", Request{Families: v4}, ""},
		{"not served now", "10.0.0.8", Request{Families: v4}, ""},
		{"in no pool now", "10.9.9.9", Request{Families: v4}, ""},
		{"of a pool that is gone", "10.9.9.9", Request{Families: v4, Pool: "before"}, ""},
		{"of the pool that has it now", "10.0.0.8", Request{Families: v4, Pool: "now"}, ""},
		{"asked for", "10.9.9.9", Request{Families: v4, Addresses: addrs("10.9.9.9")}, ""},
		{"another asked for", "10.0.0.8", Request{Families: v4, Addresses: addrs("10.0.0.7")}, NotRequested},
		{"another pool asked for", "10.0.0.8", Request{Families: v4, Pool: "never"}, NotInPool},
		{"another family", "10.0.0.8", Request{Families: v6}, WrongFamily},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools(pools)
			addr := netip.MustParseAddr(c.addr)
			a.Hold(addr, web, Claim{Pool: "before"})
			c.request.Key = web
			got := Reason("")
			if no := a.Check(&c.request, addr); no != nil {
				got = no.Reason
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("reason (-want +got):\n%s", diff)
			}
		})
	}
}

// Automatic allocation fills what is above the static band first, and the band then.
func TestStaticBand(t *testing.T) {
	for _, c := range []struct {
		band Band
		size int // of the range, which starts at 10.0.0.0
		want int // addresses in the band
	}{
		{AutoBand, 15, 0}, {AutoBand, 17, 16}, {AutoBand, 256, 16}, {AutoBand, 1024, 64}, {AutoBand, 8192, 256},
		{NoBand, 256, 0}, {7, 10, 7}, {70, 10, 10},
	} {
		t.Run(fmt.Sprintf("%d of %d", c.band, c.size), func(t *testing.T) {
			base := netip.MustParseAddr("10.0.0.0")
			a := New()
			a.SetPools([]Pool{{Name: "p", AutoAssign: true, StaticBand: c.band, Ranges: []Range{{base, after(base, uint64(c.size-1))}}}})
			static := Range{base, after(base, uint64(c.want))}
			for i := range c.size {
				got, err := a.Assign(&Request{Key: Key{"n", fmt.Sprint(i)}, Families: v4})
				if err != nil {
					t.Fatal(err)
				}
				inBand := got.Addresses[0].Addr != static.Last && static.Contains(got.Addresses[0].Addr)
				if wantBand := i >= c.size-c.want; inBand != wantBand {
					t.Fatalf("address %d is %s", i, got.Addresses[0].Addr)
				}
			}
			if _, err := a.Assign(&Request{Key: web, Families: v4}); err == nil {
				t.Error("there is one more address than there are")
			}
		})
	}
}

// A Service that comes back gets its old address, and who came in between gets another one.
func TestAddressComesBack(t *testing.T) {
	a := New()
	a.SetPools([]Pool{{Name: "p", Ranges: rs("10.0.0.0/16"), AutoAssign: true}})
	assign := func(key Key) netip.Addr {
		got, err := a.Assign(&Request{Key: key, Families: v4})
		if err != nil {
			t.Fatal(err)
		}
		return got.Addresses[0].Addr
	}
	old := assign(web)
	if want := netip.MustParseAddr("10.0.153.196"); old != want {
		t.Errorf("shop/web starts at %s, want %s: every cluster would renumber at the next upgrade", old, want)
	}
	a.Release(old, web)
	if other := assign(api); other == old {
		t.Errorf("%s goes to another Service at once", old)
	}
	if again := assign(web); again != old {
		t.Errorf("%s comes back as %s", old, again)
	}
}

// In a space without bits the neighbour is taken when the first choice is, be it held, reserved or avoided.
func TestBigPool(t *testing.T) {
	for _, ranges := range []string{"2001:db8::/64", "16.0.0.0/4", "::/0"} {
		t.Run(ranges, func(t *testing.T) {
			a := New()
			a.SetPools([]Pool{{Name: "p", Ranges: rs(ranges), AutoAssign: true, AvoidBuggyIPs: true}})
			r := &Request{Key: web, Families: []Family{FamilyOf(rs(ranges)[0].First)}}
			first, err := a.plan(r)
			if err != nil {
				t.Fatal(err)
			}
			want := first.Addresses[0].Addr
			for i := range 1000 {
				if a.Reserve(want, Key{}); i%2 == 0 {
					a.Hold(want, mail, Claim{})
				}
				for want = want.Next(); avoided(want); {
					want = want.Next()
				}
			}
			got, no := a.Assign(r)
			if diff := cmp.Diff(fmt.Sprintf("%s of p; added %s", want, want), outcome(got, no)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestRefusalIsAnError(t *testing.T) {
	_, err := New().Assign(&Request{Key: web, Families: v4})
	if no, ok := errors.AsType[*Refusal](err); !ok || no.Reason != NoPool || no.Family != IPv4 || err.Error() == "" {
		t.Errorf("got %#v", err)
	}
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, s := range texts {
		list = append(list, netip.MustParseAddr(s))
	}
	return list
}

// outcome is what Assign returned, in a line.
func outcome(got Assignment, err error) string {
	if err != nil {
		no := err.(*Refusal)
		return string(no.Reason) + ": " + no.Message
	}
	var has, parts []string
	for _, given := range got.Addresses {
		has = append(has, given.Addr.String()+" of "+given.Pool)
	}
	parts = append(parts, strings.Join(has, ", "))
	if got.Added != nil {
		parts = append(parts, "added "+strings.Trim(fmt.Sprint(got.Added), "[]"))
	}
	if got.Released != nil {
		parts = append(parts, "released "+strings.Trim(fmt.Sprint(got.Released), "[]"))
	}
	for _, no := range got.Missing {
		parts = append(parts, fmt.Sprintf("missing %s %s", no.Reason, no.Family))
	}
	return strings.Join(parts, "; ")
}

func refusal(no *Refusal) string {
	switch {
	case no == nil:
		return ""
	case no.Holder == Key{}:
		return string(no.Reason) + ": " + no.Message
	}
	return fmt.Sprintf("%s: %s (%s)", no.Reason, no.Message, no.Holder)
}

// dump is all that can be seen of an Allocator, one fact a line.
func dump(a *Allocator) string {
	var lines []string
	for addr, h := range a.holdings {
		pool, _ := a.PoolOf(addr)
		lines = append(lines, fmt.Sprintf("%s in %q reserved %t %s quarantined %t used %v", addr, pool, h.reserved, h.reservedFor, h.quarantined, a.Uses(addr)))
		for _, holder := range h.holders {
			lines = append(lines, fmt.Sprintf("%s held by %s %+v", addr, holder.Key, holder.Claim))
		}
	}
	for key := range a.held {
		lines = append(lines, fmt.Sprintf("%s holds %v", key, a.Held(key)))
	}
	for key, list := range a.reserved {
		lines = append(lines, fmt.Sprintf("%s has reserved %v", key, list))
	}
	for key, list := range a.shared {
		lines = append(lines, fmt.Sprintf("%s shares %v", key, list))
	}
	for _, p := range a.order {
		lines = append(lines, fmt.Sprintf("pool %s %+v %v", p.Name, a.Usage(p.Name), p.byNamespace))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
