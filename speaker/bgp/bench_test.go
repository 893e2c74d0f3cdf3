package bgp

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// many are /32 routes to a peer.
func many(n int, peer string) []Route {
	routes := make([]Route, n)
	for i := range routes {
		a := netip.AddrFrom4([4]byte{100, 64 + byte(i>>16), byte(i >> 8), byte(i)})
		routes[i] = Route{Prefix: netip.PrefixFrom(a, 32), Peers: []string{peer}, Communities: []string{"64512:100"}}
	}
	return routes
}

// BenchmarkConvergence is how long it takes until an FRR has what is set. It prints a line for each number of routes.
func BenchmarkConvergence(b *testing.B) {
	for _, n := range []int{1000, 10000, 100000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			l := newLab(b)
			p := l.place(1)
			f := p.frr(p.frrConfig(65001, 64512))
			r := l.speaker([]Peer{p.peer(65001, func(p *Peer) { p.HoldTime, p.KeepaliveTime = 30*time.Second, 10*time.Second })}, nil)
			r.established("tor1")
			peers, routes := r.peers, many(n, "tor1")
			has := func(n int) func() bool { return func() bool { return f.received() == n } }
			for b.Loop() {
				start := time.Now()
				r.set(peers, routes)
				set := time.Since(start)
				l.Eventually("the router has all", has(n))
				learnt := time.Since(start)
				start = time.Now()
				r.set(peers, routes)
				again := time.Since(start)
				start = time.Now()
				r.set(peers, nil)
				l.Eventually("the router has none", has(0))
				fmt.Printf("routes=%d set_ms=%d learnt_ms=%d same_again_ms=%d withdrawn_ms=%d rss_mib=%d\n", n,
					set.Milliseconds(), learnt.Milliseconds(), again.Milliseconds(), time.Since(start).Milliseconds(), rss())
			}
		})
	}
}

// received is how many routes FRR has from the node.
func (f frr) received() int {
	for _, line := range strings.Split(f.Vtysh("show bgp ipv4 unicast summary"), "\n") {
		if fields := strings.Fields(line); len(fields) > 9 && fields[0] == f.node4().String() {
			n, err := strconv.Atoi(fields[9])
			if err == nil {
				return n
			}
		}
	}
	return -1
}

func rss() int {
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if fields := strings.Fields(line); len(fields) > 1 && fields[0] == "VmRSS:" {
			kib, _ := strconv.Atoi(fields[1])
			return kib / 1024
		}
	}
	return 0
}
