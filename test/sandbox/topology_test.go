package sandbox

import (
	"net/netip"
	"slices"
	"testing"
)

func TestLANAddresses(t *testing.T) {
	tests := []struct{ host, v4, v6 string }{
		{"router", "198.51.100.1", "2001:db8:51::1"},
		{"client", "198.51.100.10", "2001:db8:51::10"},
		{"cp", "198.51.100.20", "2001:db8:51::20"},
		{"node1", "198.51.100.31", "2001:db8:51::31"},
		{"node12", "198.51.100.42", "2001:db8:51::42"},
		{"pod1", "invalid IP", "invalid IP"},
		{"lan", "invalid IP", "invalid IP"},
	}
	for _, tt := range tests {
		v4, v6 := lanAddrs(tt.host)
		if v4.String() != tt.v4 || v6.String() != tt.v6 {
			t.Errorf("%s: %s %s, want %s %s", tt.host, v4, v6, tt.v4, tt.v6)
		}
	}
}

func TestNodesStayBelowLoadBalancers(t *testing.T) {
	v4, v6 := lanAddrs(nodeName(maxNodes))
	if netip.MustParsePrefix("198.51.100.128/25").Contains(v4) || netip.MustParsePrefix("2001:db8:51:0:1::/80").Contains(v6) {
		t.Errorf("node%d has %s and %s, of the range for load balancers", maxNodes, v4, v6)
	}
}

func TestIsHost(t *testing.T) {
	for _, host := range append(allHosts(12), "node99") {
		if !isHost(host) {
			t.Errorf("%s is a host", host)
		}
	}
	for _, name := range []string{"", "node", "node0", "node01", "b-client", "nodex", "pod-1", "node1x"} {
		if isHost(name) {
			t.Errorf("%q is no host", name)
		}
	}
}

func TestNodeRoutesToPodsOfOthers(t *testing.T) {
	plan := planNetwork("x", 2)
	for _, want := range []string{
		"addr add 10.244.1.1/24 dev pods",
		"route add 10.244.2.0/24 via 198.51.100.32",
		"route add fd00:244:2::/64 via 2001:db8:51::32",
	} {
		if !slices.Contains(plan.hosts["node1"], want) {
			t.Errorf("node1 lacks %q: %q", want, plan.hosts["node1"])
		}
	}
	if slices.Contains(plan.hosts["node1"], "route add 10.244.1.0/24 via 198.51.100.31") {
		t.Error("node1 has a route to its own pods by way of itself")
	}
}
