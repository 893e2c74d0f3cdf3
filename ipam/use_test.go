package ipam

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// uses is a fact: the address is used so.
func uses(addr string, all ...Use) fact {
	return func(a *Allocator) { a.SetUses(netip.MustParseAddr(addr), all) }
}

func block(text string, use Use) Block { return Block{rs(text)[0], use} }

var clusterIPs = block("10.96.0.0/16", Use{Reason: ServiceRange, What: "of the range of cluster IPs 10.96.0.0/16"})

// What cannot work is refused with its name, wherever it is, and whatever else could be said of it.
func TestWhatIsSomethingElseIsRefusedByName(t *testing.T) {
	node := Use{Reason: NodeAddress, What: "the InternalIP of node a"}
	external := func(key Key) Use { return Use{ServiceAddress, "an external IP", key} }
	for _, c := range []struct {
		name  string
		given fact
		addr  string
		want  string
	}{
		{"a node's", uses("10.0.0.9", node), "10.0.0.9", "NodeAddress: Address 10.0.0.9 is the InternalIP of node a: ask for another address."},
		{"a node's, in no pool", uses("172.16.0.9", node), "172.16.0.9", "NodeAddress: Address 172.16.0.9 is the InternalIP of node a: ask for another address."},
		{"a node's, reserved for the Service", func(a *Allocator) { uses("10.0.0.9", node)(a); reserved(web, "10.0.0.9")(a) }, "10.0.0.9",
			"NodeAddress: Address 10.0.0.9 is the InternalIP of node a: ask for another address."},
		{"another Service's of the namespace", uses("10.0.0.9", external(api)), "10.0.0.9",
			"ServiceAddress: Address 10.0.0.9 is an external IP of Service shop/api: ask for another address."},
		{"another Service's of another namespace", uses("10.0.0.9", external(Key{"secret", "bank"})), "10.0.0.9",
			"ServiceAddress: Address 10.0.0.9 is an external IP of a Service in another namespace: ask for another address."},
		{"the Service's own", uses("10.0.0.9", external(web)), "10.0.0.9", ""},
		{"the Service's own and another's", uses("10.0.0.9", external(web), external(api)), "10.0.0.9",
			"ServiceAddress: Address 10.0.0.9 is an external IP of Service shop/api: ask for another address."},
		{"no more", func(a *Allocator) { uses("10.0.0.9", node)(a); uses("10.0.0.9")(a) }, "10.0.0.9", ""},
		{"held before", func(a *Allocator) { uses("10.0.0.9", node)(a); holds(web, "10.0.0.9", Claim{})(a) }, "10.0.0.9", ""},
		{"in a block", nil, "10.96.7.7", "ServiceRange: Address 10.96.7.7 is of the range of cluster IPs 10.96.0.0/16: ask for another address."},
		{"this network", nil, "0.1.2.3", `NotUnicast: Address 0.1.2.3 is of "this network" (RFC 1122): ask for another address.`},
		{"loopback", nil, "127.0.0.1", "NotUnicast: Address 127.0.0.1 is a loopback address (RFC 1122): ask for another address."},
		{"link-local", nil, "169.254.7.7", "NotUnicast: Address 169.254.7.7 is a link-local address (RFC 3927): ask for another address."},
		{"multicast", nil, "224.0.0.5", "NotUnicast: Address 224.0.0.5 is a multicast address (RFC 5771): ask for another address."},
		{"reserved", nil, "240.0.0.1", "NotUnicast: Address 240.0.0.1 is reserved (RFC 1112): ask for another address."},
		{"limited broadcast", nil, "255.255.255.255", "NotUnicast: Address 255.255.255.255 is reserved (RFC 1112): ask for another address."},
		{"IPv6 loopback", nil, "::1", "NotUnicast: Address ::1 is the loopback address (RFC 4291): ask for another address."},
		{"IPv6 link-local", nil, "fe80::7", "NotUnicast: Address fe80::7 is a link-local address (RFC 4291): ask for another address."},
		{"IPv6 multicast", nil, "ff02::1", "NotUnicast: Address ff02::1 is a multicast address (RFC 4291): ask for another address."},
		{"DHCP, as others have it", nil, "0.0.0.0", "NotUnicast: The Service asks for 0.0.0.0, which is no address of a Service. With some providers it asks " +
			"for an address by DHCP, which Herald does not do: remove it, and the Service gets an address from a pool."},
		{"DHCP of IPv6", nil, "::", "NotUnicast: The Service asks for ::, which is no address of a Service. With some providers it asks " +
			"for an address by DHCP, which Herald does not do: remove it, and the Service gets an address from a pool."},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			a.SetPools([]Pool{{Name: "p", Ranges: rs("0.0.0.0/0", "::/0")}}, clusterIPs)
			if c.addr == "172.16.0.9" {
				a.SetPools(nil)
			}
			if c.given != nil {
				c.given(a)
			}
			addr := netip.MustParseAddr(c.addr)
			r := &Request{Key: web, Families: []Family{FamilyOf(addr)}, Addresses: []netip.Addr{addr}}
			if diff := cmp.Diff(c.want, refusal(a.Check(r, addr))); diff != "" {
				t.Errorf("Check (-want +got):\n%s", diff)
			}
			if _, err := a.Assign(r); (err == nil) != (c.want == "") {
				t.Errorf("Assign says %v", err)
			}
		})
	}
}

// What cannot work is never given by itself, not even to a Service whose own it is; the rest is, down to the last.
func TestWhatIsSomethingElseIsNotGiven(t *testing.T) {
	a := New()
	problems := a.SetPools([]Pool{{Name: "p", Ranges: rs("10.95.255.250-10.96.0.9", "126.255.255.254-127.0.0.7"), AutoAssign: true}}, clusterIPs)
	if diff := cmp.Diff(map[string][]Problem{"p": {
		{ServiceRange, "10.96.0.0-10.96.0.9 in 10.95.255.250-10.96.0.9 is not given: each address of it is of the range of cluster IPs 10.96.0.0/16. Take it out of the pool."},
		{NotUnicast, "127.0.0.0/29 in 126.255.255.254-127.0.0.7 is not given: each address of it is a loopback address (RFC 1122). Take it out of the pool."},
	}}, problems); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	uses("10.95.255.250", Use{ServiceAddress, "an external IP", web})(a)
	uses("10.95.255.255", Use{Reason: SubnetAddress, What: "the broadcast address of 10.95.255.0/24"})(a)
	if diff := cmp.Diff(Usage{V4: FamilyUsage{8, 0, 6}}, a.Usage("p")); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	given := map[string]bool{}
	for _, name := range []string{"web", "b", "c", "d", "e", "f"} {
		got, err := a.Assign(&Request{Key: Key{"shop", name}, Families: v4})
		if err != nil {
			t.Fatal(err)
		}
		given[got.Addresses[0].Addr.String()] = true
	}
	if diff := cmp.Diff(map[string]bool{
		"10.95.255.251": true, "10.95.255.252": true, "10.95.255.253": true, "10.95.255.254": true, "126.255.255.254": true, "126.255.255.255": true,
	}, given); diff != "" {
		t.Errorf("given (-want +got):\n%s", diff)
	}
	_, err := a.Assign(&Request{Key: Key{"shop", "g"}, Families: v4})
	want := "PoolExhausted: No pool gives shop/g an IPv4 address (p has all its 8 taken, 2 of them by nodes, networks or Services that have them otherwise): add addresses, or release some."
	if diff := cmp.Diff(want, outcome(Assignment{}, err)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Who has an address that turns out to be something else keeps it, and what stands against it can be told. When the use
// ends, the address is free as soon as it is released.
func TestAUseRenumbersNobody(t *testing.T) {
	a := New()
	pool := []Pool{{Name: "p", Ranges: rs("10.0.0.1"), AutoAssign: true}}
	a.SetPools(pool)
	r := &Request{Key: web, Families: v4}
	addr := addrs("10.0.0.1")[0]
	step := func(what, want string) {
		t.Helper()
		got, err := a.Assign(r)
		_, sentence := a.Obstacle(addr, web)
		if diff := cmp.Diff(want, outcome(got, err)+"; "+sentence); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	step("at first", "10.0.0.1 of p; added 10.0.0.1; ")
	uses("10.0.0.1", Use{ServiceAddress, "an external IP", Key{"secret", "bank"}})(a)
	step("used", "10.0.0.1 of p; Address 10.0.0.1 is an external IP of a Service in another namespace.")
	a.SetPools(pool, block("10.0.0.0/24", clusterIPs.Use))
	step("in a block", "10.0.0.1 of p; Address 10.0.0.1 is of the range of cluster IPs 10.96.0.0/16.")
	if diff := cmp.Diff(addrs("10.0.0.1"), a.Outside("p"), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
	a.SetPools(pool)
	a.Release(addr, web)
	if _, err := a.Assign(r); err == nil {
		t.Error("it is given again while it is used")
	}
	uses("10.0.0.1")(a)
	step("free again", "10.0.0.1 of p; added 10.0.0.1; ")
}
