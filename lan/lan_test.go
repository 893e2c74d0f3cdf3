package lan

import (
	"net/netip"
	"slices"
	"testing"
)

var (
	eth0 = Interface{Name: "eth0", Prefixes: prefixes("198.51.100.31/24", "2001:db8:51::31/64", "fe80::1/64")}
	eth1 = Interface{Name: "eth1", Prefixes: prefixes("203.0.113.31/24", "203.0.113.5/24")}
	bond = Interface{Name: "bond0", Prefixes: prefixes("2001:db8:99::1/64", "192.0.2.7/32")}
	bare = Interface{Name: "vlan7"}
	all  = []Interface{eth1, eth0, bond, bare}
	ips  = []netip.Addr{netip.MustParseAddr("198.51.100.31"), netip.MustParseAddr("2001:db8:51::31")}
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range texts {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func TestAnAddressLivesWhereItsPrefixIs(t *testing.T) {
	for _, test := range []struct {
		name     string
		addr     string
		patterns []string
		want     []string
		reach    string
	}{
		{"IPv4 in the prefix of one interface", "203.0.113.200", nil, []string{"eth1"}, "203.0.113.5"},
		{"IPv6 in the prefix of another", "2001:db8:51::ff", nil, []string{"eth0"}, "198.51.100.31"},
		{"in no prefix: where the InternalIP is", "10.9.8.7", nil, []string{"eth0"}, "198.51.100.31"},
		{"in a prefix of one address only: the same", "192.0.2.7", nil, []string{"eth0"}, "198.51.100.31"},
		{"patterns choose, whatever the prefixes", "203.0.113.200", []string{"bond*", "vlan7"}, []string{"bond0", "vlan7"}, "192.0.2.7"},
		{"an interface without addresses cannot be reached", "203.0.113.200", []string{"vlan7"}, []string{"vlan7"}, ""},
		{"patterns may match none", "203.0.113.200", []string{"wlan*"}, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			chosen := Choose(netip.MustParseAddr(test.addr), test.patterns, ips, all)
			var names []string
			for _, i := range chosen {
				names = append(names, i.Name)
			}
			if !slices.Equal(names, test.want) {
				t.Errorf("Choose: %v, want %v", names, test.want)
			}
			addr, _, ok := Reach(ips, chosen)
			if ok != (test.reach != "") || ok && addr.String() != test.reach {
				t.Errorf("Reach: %v, %v; want %q", addr, ok, test.reach)
			}
		})
	}
}
