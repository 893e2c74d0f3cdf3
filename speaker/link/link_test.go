package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/internal/netlab"
)

func TestMain(m *testing.M) {
	netlab.Sweep(kind)
	goleak.VerifyTestMain(m)
}

func TestLinkFrom(t *testing.T) {
	const mac = "02:00:00:00:00:01"
	up := uint32(unix.IFF_UP | unix.IFF_RUNNING)
	tests := []struct {
		name  string
		encap string
		mac   string
		flags uint32
		want  Link
	}{
		{"Ethernet", "ether", mac, up, Link{Up: true, ARP: true}},
		{"Ethernet, down", "ether", mac, 0, Link{ARP: true}},
		{"Ethernet, no carrier", "ether", mac, unix.IFF_UP, Link{ARP: true}},
		{"Ethernet, arp off", "ether", mac, up | unix.IFF_NOARP, Link{Up: true}},
		{"loopback", "loopback", "00:00:00:00:00:00", up | unix.IFF_LOOPBACK, Link{Up: true, Loopback: true}},
		{"tunnel", "none", "", up | unix.IFF_NOARP, Link{Up: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			hw, _ := net.ParseMAC(tt.mac)
			tt.want.Index, tt.want.Name, tt.want.MTU = 7, "eth0", 1500
			if tt.encap == "ether" {
				tt.want.MAC = [6]byte(hw)
			}
			attrs := &netlink.LinkAttrs{Index: 7, Name: "eth0", MTU: 1500, EncapType: tt.encap, HardwareAddr: hw, RawFlags: tt.flags}
			if diff := cmp.Diff(tt.want, linkFrom(attrs, nil)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestReceiveSurvivesOverflow(t *testing.T) {
	answers := []error{unix.EINTR, unix.ENOBUFS, unix.EBADF}
	next := func() error { err := answers[0]; answers = answers[1:]; return err }
	changes := make(chan struct{}, 1)
	if err := receive(t.Context(), next, changes); !errors.Is(err, unix.EBADF) {
		t.Errorf("receive returned %v, want the error that is no overflow", err)
	}
	if len(changes) != 1 {
		t.Error("a dropped message must count as a change")
	}
}

func TestRelistPassesOnWhatDiffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		one, two := []Link{{Index: 1}}, []Link{{Index: 1}, {Index: 2}}
		lists := [][]Link{nil, nil, one, one, two}
		list := func() ([]Link, error) { l := lists[0]; lists = lists[1:]; return l, nil }
		var got [][]Link
		changes := make(chan struct{})
		go relist(ctx, list, changes, func(l []Link) { got = append(got, l) })
		for range 4 {
			changes <- struct{}{}
		}
		time.Sleep(2 * settle)
		cancel()
		synctest.Wait()
		if diff := cmp.Diff([][]Link{nil, one, two}, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestListHere(t *testing.T) {
	links, err := List()
	if err != nil {
		t.Fatal(err)
	}
	if len(links) == 0 || !links[0].Loopback || links[0].ARP {
		t.Errorf("want the loopback first, got %+v", links)
	}
}

func TestWatch(t *testing.T) {
	ns, ip := namespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	lists, done := make(chan []Link, 100), make(chan error)
	go func() { done <- watch(ctx, ns, func(l []Link) { lists <- l }) }()

	// until reads lists up to one that has eth0 as told; each step is one change that a kernel makes.
	until := func(want string) {
		t.Helper()
		last := "nothing"
		for last != want {
			select {
			case links := <-lists:
				last = describe(links)
			case <-time.After(30 * time.Second):
				t.Fatalf("got %s, want %s", last, want)
			}
		}
	}
	until("")
	ip("link add eth0 address 02:00:00:00:00:01 type veth peer name eth1")
	until("eth0 down []")
	ip("link set eth0 up")
	ip("addr add 192.0.2.7/24 dev eth0")
	until("eth0 down [192.0.2.7/24]") // no carrier
	ip("link set eth1 up")
	until("eth0 up [192.0.2.7/24 fe80::ff:fe00:1/64]")
	ip("addr add 2001:db8::7/64 dev eth0 nodad")
	until("eth0 up [192.0.2.7/24 2001:db8::7/64 fe80::ff:fe00:1/64]")
	ip("link set eth1 down")
	until("eth0 down [192.0.2.7/24 2001:db8::7/64 fe80::ff:fe00:1/64]") // carrier lost, addresses stay
	ip("link del eth0")
	until("")
	ip("link add eth0 address 02:00:00:00:00:01 type veth peer name eth1")
	until("eth0 down []")

	cancel()
	if err := <-done; err != nil {
		t.Errorf("watch returned %v after its context was done, want nil", err)
	}
}

func describe(links []Link) string {
	for _, l := range links {
		if l.Name == "eth0" {
			state := map[bool]string{true: "up", false: "down"}[l.Up]
			return fmt.Sprintf("eth0 %s %v", state, append([]netip.Prefix{}, l.Prefixes...))
		}
	}
	return ""
}

// kind is in the names of the namespaces.
const kind = "linktest"

// namespace makes a network namespace for the test; ip changes it.
func namespace(t *testing.T) (ns netns.NsHandle, ip func(args string)) {
	t.Helper()
	l := netlab.Lab{TB: t, Prefix: netlab.Prefix(kind)}
	l.Namespace("node")
	return l.Inside("node").NsHandle, func(args string) {
		t.Helper()
		l.In("node", "ip "+args)
	}
}
