package sandbox

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxNodes keeps the nodes' addresses below those left to load balancers.
const maxNodes = 60

const (
	clusterCIDRs  = "10.244.0.0/16,fd00:244::/48"
	serviceCIDRs  = "10.96.0.0/16,fd00:96::/112"
	controlPlane  = "cp"
	lan           = "lan"
	router        = "router"
	router2       = "router2"
	core          = "core"
	apiServerPort = 6443
	// podHostNumber is the last number of a pod host's own address; lower ones
	// are the pods'.
	podHostNumber = 254
)

// fixedHosts are the hosts on the LAN besides the nodes, with the last number
// of their addresses.
var fixedHosts = []struct {
	name   string
	number int
}{{router, 1}, {router2, 2}, {"client", 10}, {"client2", 11}, {controlPlane, 20}}

func nodeName(n int) string { return fmt.Sprintf("node%d", n) }

func podHost(n int) string { return fmt.Sprintf("pod%d", n) }

// nodeNumber is the N of nodeN or podN, or 0 for any other host.
func nodeNumber(host string) int {
	for _, prefix := range []string{"node", "pod"} {
		digits, ok := strings.CutPrefix(host, prefix)
		if !ok {
			continue
		}
		var n int
		if _, err := fmt.Sscanf(digits, "%d", &n); err == nil && n > 0 && fmt.Sprint(n) == digits {
			return n
		}
	}
	return 0
}

// nodeNames lists the nodes of a sandbox with so many of them.
func nodeNames(nodes int) []string {
	var names []string
	for n := 1; n <= nodes; n++ {
		names = append(names, nodeName(n))
	}
	return names
}

// lanHosts lists the hosts with a leg in the LAN.
func lanHosts(nodes int) []string {
	var names []string
	for _, h := range fixedHosts {
		names = append(names, h.name)
	}
	return append(names, nodeNames(nodes)...)
}

// allHosts lists every host, the switch first.
func allHosts(nodes int) []string {
	names := append([]string{lan, core}, lanHosts(nodes)...)
	for n := 1; n <= nodes; n++ {
		names = append(names, podHost(n))
	}
	return names
}

// isHost tells whether a sandbox of any size has a host of this name.
func isHost(name string) bool {
	return nodeNumber(name) > 0 || slices.Contains(allHosts(0), name)
}

// lanNumber is the last number of a host's LAN addresses, 0 for a host without.
func lanNumber(host string) int {
	for _, h := range fixedHosts {
		if h.name == host {
			return h.number
		}
	}
	if n := nodeNumber(host); n > 0 && strings.HasPrefix(host, "node") {
		return 30 + n
	}
	return 0
}

// lanAddrs returns the addresses of a host on the LAN. IPv6 repeats the decimal
// digits, so that node1 is 198.51.100.31 and 2001:db8:51::31.
func lanAddrs(host string) (v4, v6 netip.Addr) {
	number := lanNumber(host)
	if number == 0 {
		return netip.Addr{}, netip.Addr{}
	}
	return netip.AddrFrom4([4]byte{198, 51, 100, byte(number)}),
		netip.MustParseAddr(fmt.Sprintf("2001:db8:51::%d", number))
}

// coreAddrs returns the addresses of a host on the link between the router and
// the core.
func coreAddrs(host string) (v4, v6 netip.Addr) {
	number := 1
	if host == core {
		number = 2
	}
	return netip.AddrFrom4([4]byte{100, 64, 0, byte(number)}), netip.MustParseAddr(fmt.Sprintf("2001:db8:64::%d", number))
}

// isRouter tells whether a host is there to lead packets on.
func isRouter(host string) bool { return host == router || host == router2 || host == core }

// podAddrs returns the addresses with a number in the pod networks of node n;
// number 1 is the node itself, the pods' gateway.
func podAddrs(n, number int) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 244, byte(n), byte(number)}),
		netip.MustParseAddr(fmt.Sprintf("fd00:244:%d::%x", n, number))
}

func podCIDRs(n int) (v4, v6 netip.Prefix) {
	a4, a6 := podAddrs(n, 1)
	return netip.PrefixFrom(a4, 24).Masked(), netip.PrefixFrom(a6, 64).Masked()
}
