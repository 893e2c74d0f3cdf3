package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/internal/netlab"
)

// The tests here run between network namespaces.

// lab is a set of namespaces, named after the process so that nothing else is touched:
//
//	node eth0 192.0.2.1 --- switch --- 192.0.2.2 eth0 peer
//	node eth1 198.51.100.1 --- router --- 203.0.113.1 eth1 peer
//
// and the same for IPv6 in 2001:db8::/64, 2001:db8:1::/64, 2001:db8:2::/64.
type lab struct{ netlab.Lab }

// kind is in the names of the namespaces.
const kind = "bfdtest"

func labOf(t testing.TB) lab {
	return lab{netlab.Lab{TB: t, Prefix: netlab.Prefix(kind), Patience: time.Minute, Poll: ms}}
}

var (
	farA4, farB4 = netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("203.0.113.1")
	farA6, farB6 = netip.MustParseAddr("2001:db8:1::1"), netip.MustParseAddr("2001:db8:2::1")
)

func newLab(t testing.TB) lab {
	t.Helper()
	l := labOf(t)
	for _, name := range []string{"node", "peer", "switch", "router"} {
		l.Host(name)
	}
	l.In("switch", "ip link add br0 type bridge forward_delay 0 mcast_snooping 0")
	l.In("switch", "ip link set br0 up")
	l.In("router", "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
	l.attach("node", 1)
	l.attach("peer", 2)
	for i, name := range []string{"node", "peer"} {
		here, there := []string{"198.51.100", "203.0.113"}[i], []string{"203.0.113", "198.51.100"}[i]
		l.In(name, "ip link add eth1 type veth peer name to-"+name+" netns "+l.Full("router"))
		l.In("router", fmt.Sprintf("ip addr add %s.254/24 dev to-%s", here, name))
		l.In("router", fmt.Sprintf("ip addr add 2001:db8:%d::fe/64 dev to-%s nodad", i+1, name))
		l.In("router", "ip link set to-"+name+" up")
		l.In(name, "ip link set eth1 up")
		l.In(name, "ip addr add "+here+".1/24 dev eth1")
		l.In(name, fmt.Sprintf("ip addr add 2001:db8:%d::1/64 dev eth1 nodad", i+1))
		l.In(name, fmt.Sprintf("ip route add %s.0/24 via %s.254", there, here))
		l.In(name, fmt.Sprintf("ip route add 2001:db8:%d::/64 via 2001:db8:%d::fe", 2-i, i+1))
	}
	return l
}

// attach connects eth0 to the switch.
func (l lab) attach(name string, host int) {
	l.In(name, "ip link add eth0 type veth peer name port-"+name+" netns "+l.Full("switch"))
	l.In("switch", "ip link set port-"+name+" up master br0")
	l.In(name, "ip link set eth0 up")
	l.In(name, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0", host))
	l.In(name, fmt.Sprintf("ip addr add 2001:db8::%d/64 dev eth0 nodad", host))
	l.In(name, fmt.Sprintf("ip addr add fe80::%d/64 dev eth0 nodad", host))
}

// cut and mend have the switch lose what passes, while all links stay up.
func (l lab) cut()  { l.In("switch", "bridge link set dev port-peer state 0") }
func (l lab) mend() { l.In("switch", "bridge link set dev port-peer state 3") }

// inside is the kernel's network in a namespace. It keeps the last packet that is sent.
type inside struct {
	netlab.Inside
	mu   sync.Mutex
	last []byte
}

func (l lab) inside(name string) *inside { return &inside{Inside: l.Inside(name)} }

func (n *inside) open() (socket, error) {
	s, err := kernel{}.open()
	return insideSockets{s, n}, err
}

type insideSockets struct {
	socket
	home *inside
}

func (s insideSockets) listen(needed [len(ports)]bool) (err error) {
	s.home.Do(func() { err = s.socket.listen(needed) })
	return err
}

func (s insideSockets) dial(path Path, port uint16) (t sender, err error) {
	s.home.Do(func() { t, err = s.socket.dial(path, port) })
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
	if err := s.Set(sessions); err != nil {
		l.Fatal(err)
	}
	l.Running(klog.NewContext(context.Background(), klog.Logger{}), s.Run)
	l.Eventually("running", func() bool { return len(s.States()) == len(sessions) })
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

// catchUp waits until all events have been told that there were: Set returns after them.
func (s *speaker) catchUp() {
	s.setting.Lock()
	desired := s.desired
	s.setting.Unlock()
	_ = s.Set(desired) // what cannot be had is known
}

// heard are the events since it was last asked.
func (s *speaker) heard() string {
	s.catchUp()
	return s.events.take()
}

func (l lab) expectEvents(s *speaker, want ...string) {
	l.Helper()
	if got := s.heard(); got != strings.Join(want, "\n") {
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

// steady is for sessions of which no failure is to be seen: a machine with other things to do than to run the tests, or another
// router, is none for so many intervals.
func steady(s *Session) { s.Multiplier = steadily }

const (
	steadily = 30
	// steadyTime is the detection time of such sessions at the usual interval.
	steadyTime = steadily * 100 * ms
)

// attempts is how often a scene is played that a pause of the test itself can spoil.
const attempts = 10

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
				l := labOf(t)
				a, b := l.speaker("node", on(tt.there, change, steady)), l.speaker("peer", on(tt.back, change, steady))
				took := l.Eventually("Up at 100 ms", func() bool { return a.negotiated(100*ms, steadyTime) && b.negotiated(100*ms, steadyTime) })
				t.Logf("Up after %s", took.Round(ms))
				if err := a.Set(nil); err != nil {
					t.Fatal(err)
				}
				l.Eventually("told", func() bool { return b.States()[0].State == Down })
				l.expectEvents(b, "Up", "Down NeighborSignaledDown, peer AdminDown")
			})
		}
	}
	t.Run("all at once", func(t *testing.T) {
		l := labOf(t)
		var there, back []Session
		for _, tt := range paths {
			if tt.name != "IPv4" { // as this, without an interface, is a path beside the one with it only for us
				there, back = append(there, on(tt.there, steady)), append(back, on(tt.back, steady))
			}
		}
		a, b := l.speaker("node", there...), l.speaker("peer", back...)
		l.Eventually("Up", func() bool { return a.up() && b.up() })
		time.Sleep(time.Second)
		if !a.up() || !b.up() {
			t.Errorf("%v\n%v", a.States(), b.States())
		}
	})
	t.Run("one hop is not several", func(t *testing.T) {
		l := labOf(t)
		a := l.speaker("node", on(Path{Peer: farB4, Local: farA4}))
		l.speaker("peer", on(Path{Peer: farA4, Local: farB4}))
		l.Eventually("refused", func() bool { return a.dropped(LowTTL) > 0 })
		l.expectEvents(a)
	})
}

// refused is how many packets that came were dropped.
func (w *Watcher) refused() (n uint64) {
	for _, reason := range reasons {
		if reason != SendFailed {
			n += w.dropped(reason)
		}
	}
	return n
}

// lostIn counts the UDP packets for which there was no room in a namespace's sockets.
func (l lab) lostIn(name string) (n uint64) {
	l.Helper()
	var titles []string
	for line := range strings.Lines(l.In(name, "cat /proc/net/snmp")) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if titles == nil {
			titles = fields
			continue
		}
		n, _ = strconv.ParseUint(fields[slices.Index(titles, "RcvbufErrors")], 10, 64)
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

// A switch loses everything. Both sides see it by the detection time; when it is mended, both are Up again.
func TestCutOnWire(t *testing.T) {
	l := newLab(t)
	change := func(s *Session) { s.Multiplier = 10 } // longer than the switch's command takes
	a, b := l.speaker("node", on(paths[0].there, change), on(paths[1].there, change)), l.speaker("peer", on(paths[0].back, change), on(paths[1].back, change))
	seen := 0
	for range attempts {
		l.Eventually("Up at 100 ms", func() bool { return a.negotiated(100*ms, time.Second) && b.negotiated(100*ms, time.Second) })
		a.heard()
		b.heard()
		cut := time.Now()
		l.cut()
		after := time.Now()
		l.Eventually("Down", func() bool { return !a.anyUp() && !b.anyUp() })
		early := false // neither side ran for so long that the other missed it before the switch cut them off
		for _, s := range []*speaker{a, b} {
			s.catchUp()
			early = early || s.events.anyBefore(after)
		}
		for name, s := range map[string]*speaker{"node": a, "peer": b} {
			for _, status := range s.States() {
				t.Logf("%s saw %s after %s", name, status.Event, status.Time.Sub(cut).Round(ms))
			}
			if early {
				t.Logf("%s had no chance: %q", name, s.heard())
				continue
			}
			l.expectEvents(s, "Down DetectionTimeExpired, peer Down", "Down DetectionTimeExpired, peer Down")
		}
		l.mend()
		t.Logf("Up again after %s", l.Eventually("Up", func() bool { return a.up() && b.up() }).Round(ms))
		if !early {
			seen++
		}
		if seen == 3 {
			return
		}
	}
	t.Errorf("the sessions lasted until the cut %d times of %d, want 3", seen, attempts)
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
	l.Eventually("Up", func() bool { return a.up() && b.up() })
	l.In("node", "ip link del eth0")
	l.Eventually("Down", func() bool { return !a.anyUp() && !b.anyUp() })
	if err := a.Set([]Session{on(paths[2].there), on(paths[3].there)}); err == nil {
		l.Eventually("an error is known", func() bool { return a.Set([]Session{on(paths[2].there), on(paths[3].there)}) != nil })
	}
	l.attach("node", 1)
	l.Eventually("Up again", func() bool { return a.up() && b.up() })
}

// A daemon that has the port is named, and when it is gone, so is the error.
func TestPortTakenOnWire(t *testing.T) {
	l := newLab(t)
	a, b := l.speaker("node"), l.speaker("peer", on(paths[0].back))
	var squatter *receiver
	var err error
	a.home.Do(func() { squatter, err = openReceiver(ports[0]) })
	if err != nil {
		t.Fatal(err)
	}
	err = a.Set([]Session{on(paths[0].there), on(paths[1].there)})
	if err == nil || err.Error() != "listening for BFD on port 3784: address already in use" {
		t.Errorf("Set returned %v", err)
	}
	unix.Close(squatter.fd)
	b.Set([]Session{on(paths[0].back), on(paths[1].back)})
	l.Eventually("Up", func() bool { return a.up() && b.up() })
}

// A thread that was late does not take packets that came in time for a failure.
func TestLateReaderOnWire(t *testing.T) {
	newLab(t)
	for attempt := range attempts {
		judged := false
		t.Run(fmt.Sprintf("attempt %d", attempt+1), func(t *testing.T) { judged = lateReader(t) })
		if judged || t.Failed() {
			return
		}
	}
	t.Errorf("the peer was late itself %d times", attempts)
}

// lateReader says whether there was something to judge: the peer has sent in time all the while.
func lateReader(t *testing.T) bool {
	l := labOf(t)
	patient := func(s *Session) { s.Multiplier = 100 } // so that only the node's own judgement is tested
	a := l.speaker("node", on(paths[0].there, patient), on(paths[1].there, patient))
	b := l.speaker("peer", on(paths[0].back), on(paths[1].back))
	l.Eventually("Up", func() bool { return a.negotiated(100*ms, 300*ms) && b.up() })
	a.heard()
	b.counters.latest.Store(0)
	var first sync.Once
	stuck := make(chan struct{})
	a.events.mu.Lock()
	a.events.onEvent = func(Event) {
		first.Do(func() {
			time.Sleep(1500 * ms) // blocks the thread that sends and receives
			close(stuck)
		})
	}
	a.events.mu.Unlock()
	b.Set([]Session{on(paths[0].back)})
	<-stuck
	l.Eventually("late", func() bool { return time.Duration(a.counters.latest.Load()) > time.Second })
	a.catchUp()
	a.events.mu.Lock()
	events := slices.Clone(a.events.all)
	a.events.mu.Unlock()
	sent := b.counters.sent.Load()
	l.Eventually("the peer has sent", func() bool { return b.counters.sent.Load() > sent })
	if late := time.Duration(b.counters.latest.Load()); late > 100*ms {
		t.Logf("the peer was %s late", late)
		return false
	}
	var told []string
	for _, e := range events {
		if e.Peer == b6 {
			told = append(told, describe(e))
			continue
		}
		t.Errorf("of the one that stays: %s", describe(e))
	}
	if len(told) == 0 || told[0] != "Down NeighborSignaledDown, peer AdminDown" {
		t.Errorf("of the one that goes: %q", told)
	}
	if got := a.States()[0]; got.State != Up {
		t.Errorf("%s", got)
	}
	return true
}

// spoofer sends from the peer's namespace what a Watcher would not.
type spoofer struct {
	fd int
	to unix.Sockaddr
}

func (l lab) spoofer(from, peer netip.Addr) (s spoofer) {
	home := l.inside("peer")
	home.Do(func() {
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

// send says whether the kernel has taken it.
func (s spoofer) send(ttl int, data []byte) bool {
	unix.SetsockoptInt(s.fd, unix.IPPROTO_IP, unix.IP_TTL, ttl)
	unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl)
	return unix.Sendto(s.fd, data, 0, s.to) == nil
}

func TestSpoofsOnWire(t *testing.T) {
	l := newLab(t)
	l.In("peer", "ip addr add 192.0.2.66/24 dev eth0")
	l.In("peer", "ip addr add 2001:db8::66/64 dev eth0 nodad preferred_lft 0")
	strangers := []netip.Addr{netip.MustParseAddr("192.0.2.66"), netip.MustParseAddr("2001:db8::66")}
	for i, p := range paths[:2] {
		for _, auth := range []struct {
			name   string
			list   []spoof
			change func(*Session)
		}{{"without authentication", spoofs, func(*Session) {}}, {"signed", signedSpoofs, signed5}} {
			t.Run(p.name+" "+auth.name, func(t *testing.T) {
				l := labOf(t)
				a, b := l.speaker("node", on(p.there, auth.change, steady)), l.speaker("peer", on(p.back, auth.change, steady))
				own, stranger := l.spoofer(p.there.Peer, p.back.Peer), l.spoofer(strangers[i], p.back.Peer)
				l.Eventually("Up", func() bool { return a.negotiated(100*ms, steadyTime) && b.negotiated(100*ms, steadyTime) })
				a.heard()
				b.heard()
				for _, tt := range auth.list {
					t.Run(tt.name, func(t *testing.T) {
						l := labOf(t)
						before := a.dropped(tt.reason)
						from := own
						if tt.stranger {
							from = stranger
						}
						from.send(tt.hops(), tt.edit(b.home.lastSent()))
						l.Eventually(string(tt.reason), func() bool { return a.dropped(tt.reason) == before+1 })
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
	l.In("peer", "ip addr add 192.0.2.66/24 dev eth0")
	a, b := l.speaker("node", on(paths[0].there, signed5, steady)), l.speaker("peer", on(paths[0].back, signed5, steady))
	own, stranger := l.spoofer(b4, a4), l.spoofer(netip.MustParseAddr("192.0.2.66"), a4)
	l.Eventually("Up", func() bool { return a.negotiated(100*ms, steadyTime) && b.negotiated(100*ms, steadyTime) })
	a.heard()
	b.heard()
	refused := 0 // by our own kernel
	flood := func() (sent uint64) {
		for i := range 2 * len(signedSpoofs) {
			list := [...][]spoof{signedSpoofs, spoofs}[i%2]
			tt := list[i/2]
			from := own
			if tt.stranger {
				from = stranger
			}
			if from.send(tt.hops(), tt.edit(b.home.lastSent())) {
				sent++
			} else {
				refused++
			}
		}
		return sent
	}
	start, sent, thrown := time.Now(), uint64(0), l.lostIn("node")
	for sent < 100_000 {
		sent += flood()
		// What a kernel cannot hand over in time it throws away, the peer's packets too.
		asked := time.Now()
		l.Eventually("each is counted", func() bool {
			counted := a.refused()
			if counted < sent && time.Since(asked) > time.Second {
				asked = time.Now()
				lost := l.lostIn("node")
				t.Logf("%d sent, %d counted, %d thrown away by the kernel", sent, counted, lost)
				sent -= min(lost-thrown, sent-counted) // the others may be the peer's
				thrown = lost
			}
			if counted > sent {
				t.Fatalf("%d counted of %d", counted, sent)
			}
			return counted == sent
		})
	}
	t.Logf("%d packets in %s; the latest transmission was %s late", sent, time.Since(start).Round(ms), time.Duration(a.counters.latest.Load()))
	l.expectEvents(a)
	l.expectEvents(b)
	if !a.up() || !b.up() {
		t.Errorf("%v %v", a.States(), b.States())
	}

	// More than the machine can take may cost the session, but not for longer than it lasts.
	a.Set([]Session{on(paths[0].there, signed5)})
	b.Set([]Session{on(paths[0].back, signed5)})
	for stop := time.Now().Add(time.Second); time.Now().Before(stop); {
		sent += flood()
	}
	l.Eventually("Up after it", func() bool { return a.up() && b.up() })
	t.Logf("%d packets and %d that were refused, %d counted; %q, %q", sent, refused, a.refused(), a.heard(), b.heard())
}

func TestRealTime(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("taking a capability away needs one")
	}
	if err := RealTime(); err != nil {
		t.Skipf("root may not, here: %v", err)
	}
	var err error
	netlab.Without(t, unix.CAP_SYS_NICE, func() { err = becomeRealTime() })
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
