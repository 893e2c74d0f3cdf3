package link

import (
	"context"
	"fmt"
	"testing"
	"time"
)

func TestWatchGateways(t *testing.T) {
	ns, ip := namespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	lists, done := make(chan []Gateway, 100), make(chan error)
	go func() { done <- watchGateways(ctx, ns, func(g []Gateway) { lists <- g }) }()
	until := func(want string) {
		t.Helper()
		last := "nothing"
		for last != want {
			select {
			case gateways := <-lists:
				last = fmt.Sprint(gateways)
			case <-time.After(30 * time.Second):
				t.Fatalf("got %s, want %s", last, want)
			}
		}
	}
	until("[]")
	ip("link add eth0 type veth peer name eth1")
	ip("link set eth0 up")
	ip("link set eth1 up")
	ip("addr add 192.0.2.7/24 dev eth0")
	ip("addr add 2001:db8::7/64 dev eth0 nodad")
	ip("route add 203.0.113.0/24 via 192.0.2.9") // no default route
	ip("route add default via 192.0.2.1 metric 100")
	until("[{192.0.2.1 eth0 100}]")
	ip("route add default via 192.0.2.2 metric 50")
	until("[{192.0.2.2 eth0 50} {192.0.2.1 eth0 100}]")
	ip("-6 route add default via fe80::1 dev eth0 metric 10")
	until("[{192.0.2.2 eth0 50} {192.0.2.1 eth0 100} {fe80::1%eth0 eth0 10}]")
	ip("route add default via 192.0.2.3 metric 7 table 100") // another table
	ip("route del default via 192.0.2.2")
	until("[{192.0.2.1 eth0 100} {fe80::1%eth0 eth0 10}]")
	ip("route replace default metric 100 nexthop via 192.0.2.4 dev eth0 nexthop via 192.0.2.3 dev eth0")
	until("[{192.0.2.3 eth0 100} {192.0.2.4 eth0 100} {fe80::1%eth0 eth0 10}]")
	ip("-6 route del default via fe80::1 dev eth0")
	until("[{192.0.2.3 eth0 100} {192.0.2.4 eth0 100}]")
	ip("link set eth0 down")
	until("[]")

	cancel()
	if err := <-done; err != nil {
		t.Errorf("watchGateways returned %v after its context was done, want nil", err)
	}
}
