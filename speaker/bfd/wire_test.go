package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// The tests here run between network namespaces.

// lab is a set of namespaces, named after the process so that nothing else is touched:
//
//	node eth0 192.0.2.1 --- switch --- 192.0.2.2 eth0 peer
//	node eth1 198.51.100.1 --- router --- 203.0.113.1 eth1 peer
//
// and the same for IPv6 in 2001:db8::/64, 2001:db8:1::/64, 2001:db8:2::/64.
type lab struct{ testing.TB }

var (
	farA4, farB4 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")
	farA6, farB6 = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")
)

func newLab(t testing.TB) lab {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("making network namespaces needs root")
	}
	l := lab{t}
	for _, name := range []string{"node", "peer", "switch", "router"} {
		l.run("ip", "netns", "add", l.full(name))
		t.Cleanup(func() { exec.Command("ip", "netns", "del", l.full(name)).Run() })
		l.in(name, "ip link set lo up")
		l.in(name, "sysctl -qw net.ipv6.conf.default.accept_dad=0") // it would take a second each time
	}
	l.in("switch", "ip link add br0 type bridge forward_delay 0 mcast_snooping 0")
	l.in("switch", "ip link set br0 up")
	l.in("router", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	l.attach("node", 1)
	l.attach("peer", 2)
	for i, name := range []string{"node", "peer"} {
		here, there := []string{"198.51.100", "203.0.113"}[i], []string{"203.0.113", "198.51.100"}[i]
		l.in(name, "ip link add eth1 type veth peer name to-"+name+" netns "+l.full("router"))
		l.in("router", fmt.Sprintf("ip addr add %s.254/24 dev to-%s", here, name))
		l.in("router", fmt.Sprintf("ip addr add 2001:db8:%d::fe/64 dev to-%s nodad", i+1, name))
		l.in("router", "ip link set to-"+name+" up")
		l.in(name, "ip link set eth1 up")
		l.in(name, "ip addr add "+here+".1/24 dev eth1")
		l.in(name, fmt.Sprintf("ip addr add 2001:db8:%d::1/64 dev eth1 nodad", i+1))
		l.in(name, fmt.Sprintf("ip route add %s.0/24 via %s.254", there, here))
		l.in(name, fmt.Sprintf("ip route add 2001:db8:%d::/64 via 2001:db8:%d::fe", 2-i, i+1))
	}
	return l
}

// attach connects eth0 to the switch.
func (l lab) attach(name string, host int) {
	l.in(name, "ip link add eth0 type veth peer name port-"+name+" netns "+l.full("switch"))
	l.in("switch", "ip link set port-"+name+" up master br0")
	l.in(name, "ip link set eth0 up")
	l.in(name, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0", host))
	l.in(name, fmt.Sprintf("ip addr add 2001:db8::%d/64 dev eth0 nodad", host))
	l.in(name, fmt.Sprintf("ip addr add fe80::%d/64 dev eth0 nodad", host))
}

// cut and mend have the switch lose what passes, while all links stay up.
func (l lab) cut()  { l.in("switch", "bridge link set dev port-peer state 0") }
func (l lab) mend() { l.in("switch", "bridge link set dev port-peer state 3") }

func (l lab) full(name string) string { return fmt.Sprintf("herald-bfdtest-%d-%s", os.Getpid(), name) }

// sweep deletes the namespaces of test runs that did not live to do it.
func sweep() {
	names, _ := filepath.Glob("/run/netns/herald-bfdtest-*")
	for _, name := range names {
		var pid int
		fmt.Sscanf(filepath.Base(name), "herald-bfdtest-%d-", &pid)
		if pid > 0 && unix.Kill(pid, 0) != nil {
			exec.Command("ip", "netns", "del", filepath.Base(name)).Run()
		}
	}
}

func (l lab) run(args ...string) {
	l.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
}

func (l lab) in(name, command string) string {
	l.Helper()
	args := append([]string{"netns", "exec", l.full(name)}, strings.Fields(command)...)
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		l.Fatalf("%s: %s: %v: %s", name, command, err, out)
	}
	return string(out)
}

// eventually waits for a condition, and returns how long that took.
func (l lab) eventually(what string, condition func() bool) time.Duration {
	l.Helper()
	start := time.Now()
	for !condition() {
		if time.Since(start) > 15*time.Second {
			l.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
	return time.Since(start)
}

// inside is the kernel's network in a namespace. It keeps the last packet that is sent.
type inside struct {
	netns.NsHandle
	mu   sync.Mutex
	last []byte
}

func (l lab) inside(name string) *inside {
	ns, err := netns.GetFromName(l.full(name))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { ns.Close() })
	return &inside{NsHandle: ns}
}

// do calls f on a thread in the namespace. The thread ends with the goroutine, as that is never unlocked from it.
func (n *inside) do(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := netns.Set(n.NsHandle); err != nil {
			panic(err)
		}
		f()
	}()
	<-done
}

func (n *inside) open() (socket, error) {
	s, err := kernel{}.open()
	return insideSockets{s, n}, err
}

type insideSockets struct {
	socket
	home *inside
}

func (s insideSockets) listen(needed [len(ports)]bool) (err error) {
	s.home.do(func() { err = s.socket.listen(needed) })
	return err
}

func (s insideSockets) dial(path Path, port uint16) (t sender, err error) {
	s.home.do(func() { t, err = s.socket.dial(path, port) })
	return tapped{t, s.home}, err
}

type tapped struct {
	sender
	home *inside
}

func (t tapped) send(packet []byte) error {
	t.home.mu.Lock()
	t.home.last = append(t.home.last[:0], packet...)
	t.home.mu.Unlock()
	return t.sender.send(packet)
}

// lastSent is a copy of the last packet.
func (n *inside) lastSent() []byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]byte(nil), n.last...)
}

// speaker is a running Watcher in a namespace.
type speaker struct {
	*Watcher
	home   *inside
	events *record
}

func (l lab) speaker(name string, sessions ...Session) *speaker {
	l.Helper()
	return l.speakerWith(name, becomeRealTime, sessions...)
}

func (l lab) speakerWith(name string, realtime func() error, sessions ...Session) *speaker {
	l.Helper()
	s := &speaker{home: l.inside(name), events: &record{}}
	s.Watcher = New(Options{Notify: s.events.add})
	s.network, s.realtime = s.home, realtime
	ctx, cancel := context.WithCancel(klog.NewContext(context.Background(), klog.Logger{}))
	done := make(chan error, 1)
	if err := s.Set(sessions); err != nil {
		l.Fatal(err)
	}
	go func() { done <- s.Run(ctx) }()
	l.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			l.Error(err)
		}
	})
	l.eventually("running", func() bool { return len(s.States()) == len(sessions) })
	return s
}

func normalPriority() error { return errors.New("for the sake of the test") }

func (s *speaker) up() bool {
	states := s.States()
	for _, status := range states {
		if status.State != Up {
			return false
		}
	}
	return len(states) > 0
}

// negotiated says that the sessions are up, and at the intervals that were asked for.
func (s *speaker) negotiated(interval, detection time.Duration) bool {
	for _, status := range s.States() {
		if status.State != Up || status.Transmit != interval || status.Detection != detection {
			return false
		}
	}
	return len(s.States()) > 0
}

func (l lab) expectEvents(s *speaker, want ...string) {
	l.Helper()
	if got := s.events.take(); got != strings.Join(want, "\n") {
		l.Errorf("events\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// paths are the ways from the node to the peer, and back.
var paths = []struct {
	name        string
	there, back Path
}{
	{"IPv4", Path{Peer: b4}, Path{Peer: a4}},
	{"IPv6", Path{Peer: b6}, Path{Peer: a6}},
	{"IPv4 with source and interface", Path{Peer: b4, Local: a4, Interface: "eth0"}, Path{Peer: a4, Local: b4, Interface: "eth0"}},
	{"IPv6 link-local", Path{Peer: netip.MustParseAddr("fe80::2"), Interface: "eth0"},
		Path{Peer: netip.MustParseAddr("fe80::1"), Local: netip.MustParseAddr("fe80::2"), Interface: "eth0"}},
	{"IPv4 over a router", Path{Peer: farB4, Local: farA4, MultiHop: true}, Path{Peer: farA4, Local: farB4, MultiHop: true}},
	{"IPv6 over a router", Path{Peer: farB6, Local: farA6, MultiHop: true}, Path{Peer: farA6, Local: farB6, MultiHop: true}},
}

func on(p Path, change ...func(*Session)) Session {
	s := to(p.Peer, change...)
	s.Path = p
	return s
}

func TestUpOnWire(t *testing.T) {
	newLab(t)
	for _, tt := range paths {
		for name, change := range map[string]func(*Session){"": func(*Session) {}, ", signed": signed5} {
			t.Run(tt.name+name, func(t *testing.T) {
				l := lab{t}
				a, b := l.speaker("node", on(tt.there, change)), l.speaker("peer", on(tt.back, change))
				took := l.eventually("Up at 100 ms", func() bool { return a.negotiated(100*ms, 300*ms) && b.negotiated(100*ms, 300*ms) })
				t.Logf("Up after %s", took.Round(ms))
				if err := a.Set(nil); err != nil {
					t.Fatal(err)
				}
				l.eventually("told", func() bool { return b.States()[0].State == Down })
				l.expectEvents(b, "Up", "Down NeighborSignaledDown, peer AdminDown")
			})
		}
	}
	t.Run("all at once", func(t *testing.T) {
		l := lab{t}
		var there, back []Session
		for _, tt := range paths {
			if tt.name != "IPv4" { // as this, without an interface, is a path beside the one with it only for us
				there, back = append(there, on(tt.there)), append(back, on(tt.back))
			}
		}
		a, b := l.speaker("node", there...), l.speaker("peer", back...)
		l.eventually("Up", func() bool { return a.up() && b.up() })
		time.Sleep(time.Second)
		if !a.up() || !b.up() {
			t.Errorf("%v\n%v", a.States(), b.States())
		}
	})
	t.Run("one hop is not several", func(t *testing.T) {
		l := lab{t}
		a := l.speaker("node", on(Path{Peer: farB4, Local: farA4}))
		l.speaker("peer", on(Path{Peer: farA4, Local: farB4}))
		l.eventually("refused", func() bool { return a.dropped(LowTTL) > 0 })
		l.expectEvents(a)
	})
}

// droppedAtAll is the sum over all reasons.
func (w *Watcher) droppedAtAll() (n uint64) {
	for _, reason := range reasons {
		n += w.dropped(reason)
	}
	return n
}

// dropped is the count of a reason.
func (w *Watcher) dropped(reason Reason) (n uint64) {
	for i := range reasons {
		if reasons[i] == reason {
			n = w.counters.dropped[i].Load()
		}
	}
	return n
}

// A switch loses everything. Both sides see it within the detection time; when it is mended, both are Up again.
func TestCutOnWire(t *testing.T) {
	l := newLab(t)
	a, b := l.speaker("node", on(paths[0].there), on(paths[1].there)), l.speaker("peer", on(paths[0].back), on(paths[1].back))
	for range 3 {
		l.eventually("Up at 100 ms", func() bool { return a.negotiated(100*ms, 300*ms) && b.negotiated(100*ms, 300*ms) })
		a.events.take()
		b.events.take()
		cut := time.Now()
		l.cut()
		l.eventually("Down", func() bool { return !a.anyUp() && !b.anyUp() })
		for name, s := range map[string]*speaker{"node": a, "peer": b} {
			for _, status := range s.States() {
				t.Logf("%s saw %s after %s", name, status.Event, status.Time.Sub(cut).Round(ms))
			}
			l.expectEvents(s, "Down DetectionTimeExpired, peer Down", "Down DetectionTimeExpired, peer Down")
		}
		l.mend()
		t.Logf("Up again after %s", l.eventually("Up", func() bool { return a.up() && b.up() }).Round(ms))
	}
}

func (s *speaker) anyUp() bool {
	for _, status := range s.States() {
		if status.State == Up {
			return true
		}
	}
	return false
}

// The interface goes, and another of its name comes.
func TestInterfaceRecreatedOnWire(t *testing.T) {
	l := newLab(t)
	a := l.speaker("node", on(paths[2].there), on(paths[3].there))
	b := l.speaker("peer", on(paths[2].back), on(paths[3].back))
	l.eventually("Up", func() bool { return a.up() && b.up() })
	l.in("node", "ip link del eth0")
	l.eventually("Down", func() bool { return !a.anyUp() && !b.anyUp() })
	if err := a.Set([]Session{on(paths[2].there), on(paths[3].there)}); err == nil {
		l.eventually("an error is known", func() bool { return a.Set([]Session{on(paths[2].there), on(paths[3].there)}) != nil })
	}
	l.attach("node", 1)
	l.eventually("Up again", func() bool { return a.up() && b.up() })
}

// A daemon that has the port is named, and when it is gone, so is the error.
func TestPortTakenOnWire(t *testing.T) {
	l := newLab(t)
	a, b := l.speaker("node"), l.speaker("peer", on(paths[0].back))
	var squatter *receiver
	var err error
	a.home.do(func() { squatter, err = openReceiver(ports[0]) })
	if err != nil {
		t.Fatal(err)
	}
	err = a.Set([]Session{on(paths[0].there), on(paths[1].there)})
	if err == nil || err.Error() != "listening for BFD on port 3784: address already in use" {
		t.Errorf("Set returned %v", err)
	}
	unix.Close(squatter.fd)
	b.Set([]Session{on(paths[0].back), on(paths[1].back)})
	l.eventually("Up", func() bool { return a.up() && b.up() })
}

// A thread that was late does not take packets that came in time for a failure.
func TestLateReaderOnWire(t *testing.T) {
	l := newLab(t)
	patient := func(s *Session) { s.Multiplier = 100 } // so that only the node's own judgement is tested
	a := l.speaker("node", on(paths[0].there, patient), on(paths[1].there))
	b := l.speaker("peer", on(paths[0].back), on(paths[1].back))
	l.eventually("Up", func() bool { return a.negotiated(100*ms, 300*ms) && b.up() })
	a.events.take()
	a.events.mu.Lock()
	a.events.onEvent = func(Event) { time.Sleep(1500 * ms) } // blocks the thread that sends and receives
	a.events.mu.Unlock()
	b.Set([]Session{on(paths[0].back)})
	time.Sleep(2 * time.Second)
	a.events.mu.Lock()
	a.events.onEvent = nil
	a.events.mu.Unlock()
	l.expectEvents(a, "Down NeighborSignaledDown, peer AdminDown")
	l.eventually("late", func() bool { return time.Duration(a.counters.latest.Load()) > time.Second })
	if got := a.States()[0]; got.State != Up {
		t.Errorf("%s", got)
	}
}

// spoofer sends from the peer's namespace what a Watcher would not.
type spoofer struct {
	fd int
	to unix.Sockaddr
}

func (l lab) spoofer(from, peer netip.Addr) (s spoofer) {
	home := l.inside("peer")
	home.do(func() {
		sockets := &sockets{}
		t, err := sockets.dial(Path{Peer: peer, Local: from}, 0)
		if err != nil {
			l.Fatal(err)
		}
		s = spoofer{t.(*transmitter).fd, t.(*transmitter).peer}
	})
	l.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func (s spoofer) send(ttl int, data []byte) {
	unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, ttl)
	unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
	unix.Sendto(s.fd, data, 0, s.to)
}

func TestSpoofsOnWire(t *testing.T) {
	l := newLab(t)
	l.in("peer", "ip addr add 192.0.2.66/24 dev eth0")
	l.in("peer", "ip addr add 2001:db8::66/64 dev eth0 nodad preferred_lft 0")
	strangers := []netip.Addr{netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("2001:db8::66")}
	for i, p := range paths[:2] {
		for _, auth := range []struct {
			name   string
			list   []spoof
			change func(*Session)
		}{{"without authentication", spoofs, func(*Session) {}}, {"signed", signedSpoofs, signed5}} {
			t.Run(p.name+" "+auth.name, func(t *testing.T) {
				l := lab{t}
				a, b := l.speaker("node", on(p.there, auth.change)), l.speaker("peer", on(p.back, auth.change))
				own, stranger := l.spoofer(p.there.Peer, p.back.Peer), l.spoofer(strangers[i], p.back.Peer)
				l.eventually("Up", func() bool { return a.negotiated(100*ms, 300*ms) && b.negotiated(100*ms, 300*ms) })
				a.events.take()
				b.events.take()
				for _, tt := range auth.list {
					t.Run(tt.name, func(t *testing.T) {
						l := lab{t}
						before := a.dropped(tt.reason)
						from := own
						if tt.stranger {
							from = stranger
						}
						from.send(tt.hops(), tt.edit(b.home.lastSent()))
						l.eventually(string(tt.reason), func() bool { return a.dropped(tt.reason) == before+1 })
					})
				}
				time.Sleep(300 * ms)
				l.expectEvents(a)
				l.expectEvents(b)
			})
		}
	}
}

// A flood of them as fast as they are taken changes nothing either.
func TestFloodOnWire(t *testing.T) {
	l := newLab(t)
	l.in("peer", "ip addr add 192.0.2.66/24 dev eth0")
	a, b := l.speaker("node", on(paths[0].there, signed5)), l.speaker("peer", on(paths[0].back, signed5))
	own, stranger := l.spoofer(b4, a4), l.spoofer(netip.MustParseAddr("192.0.2.66"), a4)
	l.eventually("Up", func() bool { return a.negotiated(100*ms, 300*ms) && b.negotiated(100*ms, 300*ms) })
	a.events.take()
	b.events.take()
	flood := func() (sent uint64) {
		for i := range 2 * len(signedSpoofs) {
			list := [...][]spoof{signedSpoofs, spoofs}[i%2]
			tt := list[i/2]
			from := own
			if tt.stranger {
				from = stranger
			}
			from.send(tt.hops(), tt.edit(b.home.lastSent()))
			sent++
		}
		return sent
	}
	start, sent := time.Now(), uint64(0)
	for sent < 100_000 {
		sent += flood()
		// What a kernel cannot hand over in time it throws away, the peer's packets too.
		l.eventually("each is counted", func() bool { return a.droppedAtAll() == sent })
	}
	t.Logf("%d packets in %s; the latest transmission was %s late", sent, time.Since(start).Round(ms), time.Duration(a.counters.latest.Load()))
	l.expectEvents(a)
	l.expectEvents(b)
	if !a.up() || !b.up() {
		t.Errorf("%v %v", a.States(), b.States())
	}

	// More than the machine can take may cost the session, but not for longer than it lasts.
	for stop := time.Now().Add(time.Second); time.Now().Before(stop); {
		sent += flood()
	}
	l.eventually("Up after it", func() bool { return a.up() && b.up() })
	t.Logf("%d packets, %d counted; %q, %q", sent, a.droppedAtAll(), a.events.take(), b.events.take())
}

func TestRealTime(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("taking a capability away needs one")
	}
	if err := RealTime(); err != nil {
		t.Skipf("root may not, here: %v", err)
	}
	var err error
	without(t, unix.CAP_SYS_NICE, func() { err = becomeRealTime() })
	if !errors.Is(err, unix.EPERM) || err.Error() != "SCHED_FIFO, which needs CAP_SYS_NICE or RLIMIT_RTPRIO: operation not permitted" {
		t.Errorf("without CAP_SYS_NICE: %v", err)
	}
	l := newLab(t)
	a := l.speaker("node", on(paths[0].there))
	if !a.counters.realTime.Load() {
		t.Error("the metric does not say it")
	}
	if l.speakerWith("peer", normalPriority, on(paths[0].back)).counters.realTime.Load() {
		t.Error("the metric says it when it is not so")
	}
}

// without calls f on a thread of its own that lacks a capability.
func without(t *testing.T, capability uint, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		data[capability/32].Effective &^= 1 << (capability % 32)
		if err := unix.Capset(&header, &data[0]); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}
