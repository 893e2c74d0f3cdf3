package l2

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func group(b byte) netip.Addr { return solicitedNode(netip.AddrFrom16([16]byte{15: b})) }

// Whatever is joined and left in whatever order, the memberships are the desired ones, on no more sockets than were
// needed at some time, and none is left at the end.
func TestGroupsProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(9, 10))
	m := newMemory()
	m.limit = 7
	g := groups{open: func() (groupSocket, error) { return m.groups(Interface{Name: "eth0"}) }}
	for range 500 {
		desired := map[netip.Addr]struct{}{}
		for range random.IntN(60) {
			desired[group(byte(random.IntN(50)))] = struct{}{}
		}
		if err := g.set(desired); err != nil {
			t.Fatal(err)
		}
		joined := map[netip.Addr]struct{}{}
		for _, s := range m.sockets {
			for addr := range s.groups {
				joined[addr] = struct{}{}
			}
		}
		if diff := cmp.Diff(len(desired), len(joined)); diff != "" {
			t.Fatal(diff)
		}
		if len(m.sockets) > 8 {
			t.Fatalf("%d sockets for %d groups", len(m.sockets), len(desired))
		}
	}
	g.close()
	if len(m.sockets) != 0 {
		t.Errorf("left open:\n%s", m)
	}
}

func TestGroupsShared(t *testing.T) {
	same := []netip.Addr{netip.MustParseAddr("2001:db8::1:2:3"), netip.MustParseAddr("2001:db8:9::1:2:3"), v6}
	if got := len(solicitedNodes(same)); got != 2 {
		t.Errorf("%d groups, want 2: the last 24 bits decide", got)
	}
}

func TestGroupsRefused(t *testing.T) {
	g := groups{open: func() (groupSocket, error) { return nil, syscall.EMFILE }}
	err := g.set(map[netip.Addr]struct{}{group(1): {}, group(2): {}})
	if !errors.Is(err, syscall.EMFILE) || !strings.Contains(err.Error(), "joining 2 of 2 multicast groups") {
		t.Errorf("got %v", err)
	}
}
