package l2

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	arplib "github.com/mdlayher/arp"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/heraldlb/herald/internal/netlab"
)

// The tests here run on veth pairs between network namespaces, with the kernel and its tools as the neighbours.

type lab struct{ netlab.Lab }

// kind is in the names of the namespaces.
const kind = "l2test"

func newLab(t testing.TB, names ...string) lab {
	t.Helper()
	l := lab{netlab.Lab{TB: t, Prefix: netlab.Prefix(kind), Patience: 30 * time.Second, Poll: time.Millisecond}}
	for _, name := range names {
		l.Host(name)
	}
	return l
}

// newPair is a node and a client. The node holds the virtual IPs on its loopback, so that it replies to pings of them,
// and its kernel does not answer for them.
func newPair(t testing.TB) lab {
	l := newLab(t, "node", "client")
	l.In("node", "ip link add eth0 address 02:00:00:00:00:0a type veth peer name eth0 netns "+l.Full("client")+" address 02:00:00:00:00:cc")
	l.In("node", "ip link add eth1 address 02:00:00:00:00:0b type veth peer name other")
	l.In("node", "ip link set other up")
	l.In("node", "ip link set eth1 up")
	l.equipNode("node", 1)
	l.equipClient()
	l.up("node", "client")
	return l
}

// newSwitch is two nodes and a client on a bridge.
func newSwitch(t testing.TB) lab {
	l := newLab(t, "switch", "a", "b", "client")
	l.In("switch", "ip link add br0 type bridge")
	l.In("switch", "ip link set br0 up")
	for name, m := range map[string]string{"a": "02:00:00:00:00:0a", "b": "02:00:00:00:00:0b", "client": "02:00:00:00:00:cc"} {
		l.In("switch", "ip link add port-"+name+" type veth peer name eth0 netns "+l.Full(name)+" address "+m)
		l.In("switch", "ip link set port-"+name+" up master br0")
	}
	l.equipNode("a", 1)
	l.equipNode("b", 2)
	l.equipClient()
	l.up("a", "b", "client")
	l.Eventually("the switch forwards", func() bool {
		return strings.Count(l.In("switch", "ip -d link show master br0"), " state forwarding ") == 3
	})
	return l
}

func (l lab) equipNode(name string, host int) {
	l.In(name, "sysctl -qw net.ipv4.conf.all.arp_ignore=1")
	l.In(name, "ip link set eth0 up")
	l.In(name, fmt.Sprintf("ip addr add 192.0.2.%d/24 dev eth0", host))
	l.In(name, fmt.Sprintf("ip addr add 2001:db8::%d/64 dev eth0 nodad", host))
	l.In(name, "ip addr add 192.0.2.10/32 dev lo")
	l.In(name, "ip addr add 2001:db8::10/128 dev lo nodad")
}

func (l lab) equipClient() {
	l.In("client", "ip link set eth0 up")
	l.In("client", "ip addr add 192.0.2.77/24 dev eth0")
	l.In("client", "ip addr add 2001:db8::77/64 dev eth0 nodad")
}

// up waits for the links of hosts: the kernel finds the time for a carrier, for the address that comes with it, and for the
// groups in which addresses are asked for, later than the command that has called for them returns.
func (l lab) up(names ...string) {
	for _, name := range names {
		n := l.inside(name)
		l.Eventually("the links of "+name+" are up", func() bool {
			interfaces := n.interfaces(l)
			down := slices.ContainsFunc(interfaces, func(i Interface) bool { return !i.Up || !n.hears(l, i) })
			return len(interfaces) > 0 && !down
		})
	}
}

// works wants a command of the client's to succeed. It is given again when it does not, as a neighbour asks again.
func (l lab) works(command string) {
	l.Helper()
	l.Eventually(command, func() bool {
		out, err := l.Try("client", command)
		if err != nil {
			l.Logf("%s: %v: %s", command, err, out)
		}
		return err == nil
	})
}

// neighbour returns the MAC that the client's kernel has for an address.
func (l lab) neighbour(addr netip.Addr) string {
	fields := strings.Fields(l.In("client", "ip neigh show dev eth0 "+addr.String()))
	for i, f := range fields {
		if f == "lladdr" {
			return fields[i+1]
		}
	}
	return ""
}

// inside is the kernel's network in a namespace.
type inside struct{ netlab.Inside }

func (l lab) inside(name string) inside { return inside{l.Inside(name)} }

func (n inside) listen(i Interface, p protocol, filter []bpf.Instruction) (c conn, err error) {
	n.Do(func() { c, err = kernel{}.listen(i, p, filter) })
	return c, err
}

func (n inside) groups(i Interface) (s groupSocket, err error) {
	n.Do(func() { s, err = kernel{}.groups(i) })
	return s, err
}

func (n inside) interfaces(t testing.TB) (interfaces []Interface) {
	n.Do(func() {
		links, err := net.Interfaces()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range links {
			if len(l.HardwareAddr) == 6 && strings.HasPrefix(l.Name, "eth") {
				interfaces = append(interfaces, Interface{l.Name, l.Index, mac(l.HardwareAddr), l.Flags&net.FlagRunning != 0})
			}
		}
	})
	return interfaces
}

// hears says that an interface has its link-local address, and hears when its addresses are asked for.
func (n inside) hears(t testing.TB, i Interface) bool {
	local, deaf := false, false
	n.Do(func() {
		addrs, err := (&net.Interface{Index: i.Index}).Addrs()
		groups, also := os.ReadFile("/proc/thread-self/net/igmp6")
		if err = errors.Join(err, also); err != nil {
			t.Error(err)
			return
		}
		for _, a := range addrs {
			if addr := netip.MustParsePrefix(a.String()).Addr(); addr.Is6() {
				local = local || addr.IsLinkLocalUnicast()
				deaf = deaf || !slices.ContainsFunc(strings.Split(string(groups), "\n"), func(line string) bool {
					fields := strings.Fields(line)
					return len(fields) > 2 && fields[1] == i.Name && fields[2] == hex.EncodeToString(solicitedNode(addr).AsSlice())
				})
			}
		}
	})
	return local && !deaf
}

// speaker is a running Responder in a namespace.
type speaker struct {
	*Responder
	home inside
	mouth
}

func (l lab) speaker(name string, o Options) speaker {
	return l.speakerOn(name, o, func(n network) network { return n })
}

// speakerOn is one whose network is wrapped.
func (l lab) speakerOn(name string, o Options, wrap func(network) network) speaker {
	s := speaker{New(o), l.inside(name), mouth{new([len(protocols)]atomic.Int64)}}
	s.open()
	s.SetKeys(secret, nil)
	s.network = wrap(gagged{s.home, s.mouth})
	l.Running(context.Background(), s.Run)
	// Set does not wait for Run, so without this the test would not measure what it means to.
	l.Eventually("running", func() bool { s.setting.Lock(); defer s.setting.Unlock(); return s.running })
	return s
}

func (s speaker) set(t testing.TB, desired ...Announcement) {
	t.Helper()
	s.ask(t, desired)
}

func (s speaker) ask(t testing.TB, desired []Announcement, questions ...Question) {
	t.Helper()
	if err := s.Set(s.home.interfaces(t), desired, questions); err != nil {
		t.Fatal(err)
	}
}

// quietly is ask without what is sent then, announcements and requests, for tests that listen for answers.
func (s speaker) quietly(t testing.TB, desired []Announcement, questions ...Question) {
	t.Helper()
	s.shut(0, 0)
	s.ask(t, desired, questions...)
	s.hush()
	s.open()
}

// hush ends the announcements.
func (s speaker) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule = schedule{}
}

// mouth is how many frames of each protocol a speaker may still send.
type mouth struct {
	left *[len(protocols)]atomic.Int64
}

func (m mouth) open() { m.shut(math.MaxInt64, math.MaxInt64) }

// shut has all be lost that is sent after so many frames.
func (m mouth) shut(afterARP, afterNDP int64) {
	m.left[arp].Store(afterARP)
	m.left[ndp].Store(afterNDP)
}

// gagged is a network that sends what a mouth lets out.
type gagged struct {
	network
	mouth
}

func (g gagged) listen(i Interface, p protocol, filter []bpf.Instruction) (conn, error) {
	inner, err := g.network.listen(i, p, filter)
	if err != nil {
		return nil, err
	}
	return gaggedConn{inner, &g.left[p]}, nil
}

type gaggedConn struct {
	conn
	left *atomic.Int64
}

func (c gaggedConn) Write(frame []byte) (int, error) {
	if c.left.Add(-1) < 0 {
		return len(frame), nil
	}
	return c.conn.Write(frame)
}

// packets returns how many frames have come to a socket since it was last asked, with those that its queue had no room for.
func packets(t testing.TB, s *packetSocket) (n int) {
	s.raw.Control(func(fd uintptr) {
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err != nil {
			t.Error(err)
			return
		}
		n = int(stats.Packets)
	})
	return n
}

// arrivals counts the frames that arrive at a host.
func (l lab) arrivals(name string, p protocol) func() int {
	s, total := l.socketOf(name, p), 0
	return func() int { total += packets(l, s); return total }
}

// send sends a frame as soon as the kernel takes it: one that is busy may not do so at once.
func (l lab) send(s *packetSocket, frame []byte) {
	l.Helper()
	l.Eventually("a frame is sent", func() bool { _, err := s.Write(frame); return err == nil })
}

// socket opens a packet socket of the client's that hears everything.
func (l lab) socket(p protocol) *packetSocket { return l.socketOf("client", p) }

func (l lab) socketOf(name string, p protocol) *packetSocket {
	n := l.inside(name)
	c, err := n.listen(n.interfaces(l)[0], p, []bpf.Instruction{accept})
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { c.Close() })
	socket := c.(*packetSocket)
	socket.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0) })
	if err != nil {
		l.Fatal(err)
	}
	return socket
}

// answer reads up to the next answer, which is what describe makes of it.
func answer(t testing.TB, s *packetSocket) string {
	t.Helper()
	s.SetReadDeadline(time.Now().Add(30 * time.Second))
	frame := make([]byte, 2000)
	for {
		n, err := s.Read(frame)
		if err != nil {
			t.Fatalf("no answer: %v", err)
		}
		if got := describe(frame[:n]); strings.Contains(got, " ARP reply ") || strings.Contains(got, " NA ") {
			return got
		}
	}
}

func TestConformanceOnWire(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.quietly(t, testDesired, testQuestions...)
	sockets := map[byte]*packetSocket{0x08: l.socket(arp), 0x86: l.socket(ndp)}
	// The second request tells silence from slowness: when its answer comes, none to the first will.
	second := map[byte][]byte{0x08: edit(request(v4), set(31, 78)), 0x86: edit(request(v6), set(37, 0x78), sum)}
	for _, tt := range frames {
		t.Run(tt.name, func(t *testing.T) {
			if len(tt.frame) < headerLen {
				t.Skip("the kernel does not send such a frame")
			}
			socket := sockets[tt.frame[12]]
			if _, err := socket.Write(tt.frame); err != nil {
				t.Fatal(err)
			}
			if tt.reply != "" {
				if got := answer(t, socket); got != tt.reply {
					t.Errorf("got  %s\nwant %s", got, tt.reply)
				}
			}
			if _, err := socket.Write(second[tt.frame[12]]); err != nil {
				t.Fatal(err)
			}
			if got := answer(t, socket); !strings.Contains(got, "192.0.2.78") && !strings.Contains(got, "2001:db8::78") {
				t.Errorf("got %s, want silence", got)
			}
		})
	}
}

func TestKernelResolves(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	commands := []string{
		"arping -q -c 1 -w 1 -I eth0 192.0.2.10",
		"ping -q -c 1 -W 1 192.0.2.10",
		"ndisc6 -q -1 -r 1 -w 1000 2001:db8::10 eth0",
		"ping -q -c 1 -W 1 2001:db8::10",
	}
	silence := func(when string) {
		t.Helper()
		l.In("client", "ip neigh flush all")
		var all sync.WaitGroup
		for _, command := range commands {
			all.Go(func() {
				if out, err := l.Try("client", command); err == nil {
					t.Errorf("%s: %s works: %s", when, command, out)
				}
			})
		}
		all.Wait()
	}
	silence("before")
	s.set(t, Announcement{Addr: v4, Interface: "eth0"}, Announcement{Addr: v6, Interface: "eth0"})
	l.In("client", "ip neigh flush all")
	for _, command := range commands {
		l.works(command)
	}
	l.Eventually("duplicate address detection finds the owner", func() bool {
		out, err := l.Try("client", "arping -D -c 1 -w 1 -I eth0 192.0.2.10")
		return err != nil && strings.Contains(out, "[02:00:00:00:00:0A]")
	})
	s.set(t)
	silence("released")

	// Another host that takes the address finds it in use. It asks once a second.
	s.set(t, Announcement{Addr: v6, Interface: "eth0"})
	l.In("client", "sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1 net.ipv6.conf.eth0.dad_transmits=30")
	l.In("client", "ip addr add 2001:db8::10/64 dev eth0")
	l.Eventually("duplicate address detection fails", func() bool {
		return strings.Contains(l.In("client", "ip addr show dev eth0 to 2001:db8::10"), "dadfailed")
	})
}

// An address outside of all the interface's prefixes is answered just as well.
func TestForeignPrefix(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.set(t, Announcement{Addr: netip.MustParseAddr("198.51.100.7"), Interface: "eth0"})
	l.works("arping -q -c 1 -w 1 -I eth0 198.51.100.7")
}

func TestReleaseSilencesWithinSet(t *testing.T) {
	l := newPair(t)
	sent := new(atomic.Int64)
	s := l.speakerOn("node", Options{}, func(n network) network { return counted{n, sent} })
	socket := l.socket(arp)
	rate := time.NewTicker(50 * time.Microsecond)
	defer rate.Stop()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // asks all the time
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-rate.C:
				socket.Write(request(v4))
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	for round := range uint64(20) {
		s.set(t, Announcement{Addr: v4, Interface: "eth0", Term: round}, Announcement{Addr: v6, Interface: "eth0"})
		for !strings.HasSuffix(answer(t, socket), fmt.Sprint("term ", round)) { // there may be others in the queue
		}
		s.set(t, Announcement{Addr: v6, Interface: "eth0"})
		before := sent.Load()
		time.Sleep(20 * time.Millisecond)
		if after := sent.Load(); after != before {
			t.Fatalf("%d frames sent after Set returned", after-before)
		}
	}
}

// counted counts the ARP frames that are sent.
type counted struct {
	network
	sent *atomic.Int64
}

func (c counted) listen(i Interface, p protocol, filter []bpf.Instruction) (conn, error) {
	inner, err := c.network.listen(i, p, filter)
	if err != nil || p != arp {
		return inner, err
	}
	return countedConn{inner, c.sent}, nil
}

type countedConn struct {
	conn
	sent *atomic.Int64
}

func (c countedConn) Write(frame []byte) (int, error) {
	c.sent.Add(1)
	return c.conn.Write(frame)
}

func TestFlap(t *testing.T) {
	for _, told := range []bool{true, false} {
		t.Run(fmt.Sprintf("the responder is told: %t", told), func(t *testing.T) {
			l := newPair(t)
			s := l.speaker("node", Options{})
			both := []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}
			s.set(t, both...)
			for range 2 {
				l.In("node", "ip link set eth0 down")
				if told {
					s.set(t, both...)
				}
				l.In("node", "ip link set eth0 up")
				l.In("node", "ip addr replace 2001:db8::1/64 dev eth0 nodad")
				l.up("node", "client")
				// A client that believes in another MAC hears the announcement.
				for _, a := range both {
					l.In("client", "ip neigh replace "+a.Addr.String()+" lladdr 02:00:00:00:00:dd dev eth0 nud reachable")
				}
				if told {
					s.set(t, both...)
				}
				for _, a := range both {
					l.Eventually("announced again", func() bool { return l.neighbour(a.Addr) == "02:00:00:00:00:0a" })
				}
				l.In("client", "ip neigh flush all")
				l.works("ping -q -c 1 -W 2 192.0.2.10")
				l.works("ping -q -c 1 -W 2 2001:db8::10")
			}
		})
	}
}

func TestInterfaceComesBackWithAnotherIndex(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	both := []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}
	s.set(t, both...)
	l.In("node", "ip link del eth0")
	s.set(t, both...)
	l.In("node", "ip link add eth0 address 02:00:00:00:00:0a type veth peer name eth0 netns "+l.Full("client")+" address 02:00:00:00:00:cc")
	l.In("node", "ip link set eth0 up")
	l.In("node", "ip addr add 192.0.2.1/24 dev eth0")
	l.In("node", "ip addr add 2001:db8::1/64 dev eth0 nodad")
	l.equipClient()
	l.up("node", "client")
	s.set(t, both...)
	l.works("ping -q -c 1 -W 2 192.0.2.10")
	l.works("ping -q -c 1 -W 2 2001:db8::10")
}

func TestTakeOver(t *testing.T) {
	l := newSwitch(t)
	claims := make(chan Claim, 100)
	a, b := l.speaker("a", Options{Observe: func(c Claim) { claims <- c }}), l.speaker("b", Options{})
	both := []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}
	a.set(t, both...)
	l.works("ping -q -c 1 -W 2 192.0.2.10")
	l.works("ping -q -c 1 -W 2 2001:db8::10")
	for _, addr := range []netip.Addr{v4, v6} {
		if got := l.neighbour(addr); got != "02:00:00:00:00:0a" {
			t.Fatalf("%s is at %s before", addr, got)
		}
	}

	a.hush()          // it would take them back with its next announcement, while it may
	b.shut(2, 1)      // the first announcement is all that is heard, of ARP in its two forms
	b.set(t, both...) // make before break
	for range 3 {
		if got := receive(t, claims); got.MAC != (mac{0x02, 0, 0, 0, 0, 0x0b}) {
			t.Errorf("the old owner heard a claim of %x", got.MAC)
		}
	}
	a.set(t)
	for _, addr := range []netip.Addr{v4, v6} {
		took := l.Eventually("taken over", func() bool { return l.neighbour(addr) == "02:00:00:00:00:0b" })
		t.Logf("%s moved within %s", addr, took)
	}
	b.open()
	l.works("ping -q -c 1 -W 2 192.0.2.10")
	l.works("ping -q -c 1 -W 2 2001:db8::10")
	for _, addr := range []netip.Addr{v4, v6} {
		if got := l.neighbour(addr); got != "02:00:00:00:00:0b" {
			t.Errorf("%s is at %s afterwards", addr, got)
		}
	}
}

// The owners that are asked: the client's kernel, and nobody.
func TestQuestionToKernel(t *testing.T) {
	l := newPair(t)
	claims := make(chan Claim, 100)
	s := l.speaker("node", Options{Observe: func(c Claim) { claims <- c }})
	client4, client6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")
	for _, desired := range [][]Announcement{nil, testDesired} { // without and with something to announce
		for _, addr := range []netip.Addr{client4, client6} {
			start := time.Now()
			s.ask(t, desired, Question{Addr: addr, Interface: "eth0"})
			returned := time.Since(start)
			for range 2 { // at once, and 10 ms later
				got := receive(t, claims)
				t.Logf("%s: Set returned after %s, answered after %s", addr, returned, got.Time.Sub(start))
				if got.Time = (time.Time{}); got != (Claim{Addr: addr, Interface: "eth0", MAC: hostMAC}) {
					t.Errorf("got %+v", got)
				}
			}
		}
		s.set(t)
	}
	s.ask(t, nil, Question{Addr: stranger4, Interface: "eth0"}, Question{Addr: stranger6, Interface: "eth0"})
	asked := func() [2]uint64 {
		return [2]uint64{s.counters.questions[arp].Load(), s.counters.questions[ndp].Load()}
	}
	l.Eventually("asked for all", func() bool { return asked() == [2]uint64{6, 6} })
	// When one who is there has answered what is asked after that, nobody else will.
	s.ask(t, nil, Question{Addr: stranger4, Interface: "eth0"}, Question{Addr: stranger6, Interface: "eth0"},
		Question{Addr: client4, Interface: "eth0"}, Question{Addr: client6, Interface: "eth0"})
	heard := map[netip.Addr]int{}
	for range 4 {
		heard[receive(t, claims).Addr]++
	}
	if diff := cmp.Diff(map[netip.Addr]int{client4: 2, client6: 2}, heard, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
	l.Eventually("asked for all but those who are known to be strangers", func() bool { return asked() == [2]uint64{8, 8} })
	if len(claims) > 0 {
		t.Errorf("got %+v too", <-claims)
	}
	for _, addr := range []netip.Addr{stranger4, stranger6, host4} {
		if got := l.In("client", "ip neigh show to "+addr.String()); got != "" {
			t.Errorf("the questions left a trace: %s", got)
		}
	}
}

func receive(t *testing.T, claims <-chan Claim) Claim {
	t.Helper()
	select {
	case c := <-claims:
		return c
	case <-time.After(30 * time.Second):
		t.Fatal("no claim")
		return Claim{}
	}
}

// One node asks another, which announces, yields and falls silent.
func TestQuestionToResponder(t *testing.T) {
	l := newSwitch(t)
	claims := make(chan Claim, 100)
	a, b := l.speaker("a", Options{}), l.speaker("b", Options{Observe: func(c Claim) { claims <- c }})
	macA := mac{0x02, 0, 0, 0, 0, 0x0a}
	for round, addr := range []netip.Addr{v4, v6, v4, v6} {
		yielding, p := round > 1, protocolOf(addr)
		other := Announcement{Addr: map[protocol]netip.Addr{arp: v4other, ndp: v6other}[p], Interface: "eth0", Term: uint64(round)}
		question := Question{Addr: addr, Interface: "eth0", Round: uint64(round)}
		answers := func(want Claim) {
			t.Helper()
			for range 2 {
				got := receive(t, claims)
				t.Logf("%s answered at %s", got.Addr, got.Time.Format(time.StampMicro))
				want.Interface, want.MAC, want.Marked, want.Time = "eth0", macA, true, got.Time
				if got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
			}
		}
		a.quietly(t, []Announcement{{Addr: addr, Interface: "eth0", Term: 41, Yielding: yielding}, other})
		b.ask(t, nil, question)
		answers(Claim{Addr: addr, Term: 41, Yielding: yielding})
		a.set(t, other)
		before := b.counters.questions[p].Load()
		question.Round += 10
		b.ask(t, nil, question)
		l.Eventually("asked twice", func() bool { return b.counters.questions[p].Load() == before+2 })
		// When what is asked after that is answered, nobody has the address.
		b.ask(t, nil, question, Question{Addr: other.Addr, Interface: "eth0"})
		answers(Claim{Addr: other.Addr, Term: other.Term})
		b.ask(t, nil)
		a.set(t)
	}
	// What is not asked for is announced for the first time.
	before := b.counters.questions[arp].Load()
	b.ask(t, nil, Question{Addr: v4, Interface: "eth0"})
	l.Eventually("asked twice", func() bool { return b.counters.questions[arp].Load() == before+2 })
	a.set(t, Announcement{Addr: v4, Interface: "eth0", Term: 42})
	got := receive(t, claims)
	if !got.Recorded || got.Marked {
		t.Errorf("the announcement was heard as %+v", got)
	}
	for got.Recorded { // until the one who announces has answered
		got = receive(t, claims)
	}
	if got.Addr != v4 || got.Term != 42 || !got.Marked {
		t.Errorf("the announcement was heard as %+v", got)
	}
}

// Two owners hear of each other, with what decides between them.
func TestTwoOwners(t *testing.T) {
	l := newSwitch(t)
	claims := map[string]chan Claim{"a": make(chan Claim, 100), "b": make(chan Claim, 100)}
	a := l.speaker("a", Options{Observe: func(c Claim) { claims["a"] <- c }})
	b := l.speaker("b", Options{Observe: func(c Claim) { claims["b"] <- c }})
	for _, addr := range []netip.Addr{v4, v6} {
		a.set(t, Announcement{Addr: addr, Interface: "eth0", Term: 1})
		b.set(t, Announcement{Addr: addr, Interface: "eth0", Term: 2})
		for name, want := range map[string]Claim{
			"a": {Addr: addr, Interface: "eth0", MAC: mac{0x02, 0, 0, 0, 0, 0x0b}, Marked: true, Term: 2},
			"b": {Addr: addr, Interface: "eth0", MAC: mac{0x02, 0, 0, 0, 0, 0x0a}, Marked: true, Term: 1}, // 100 ms later
		} {
			got := receive(t, claims[name])
			for got.Addr != addr || got.Recorded { // of the address before, or not yet proven
				got = receive(t, claims[name])
			}
			if got.Time = (time.Time{}); got != want {
				t.Errorf("%s heard %+v, want %+v", name, got, want)
			}
		}
		a.set(t)
		b.set(t)
	}
}

// What a former owner has said is recorded by a host, which says it again: nobody takes it for the owner.
func TestReplayOnWire(t *testing.T) {
	l := newSwitch(t)
	claims := make(chan Claim, 1000)
	a := l.speaker("a", Options{})
	b := l.speaker("b", Options{Observe: func(c Claim) { claims <- c }})
	for p, addr := range map[protocol]netip.Addr{arp: v4, ndp: v6} {
		recorder := l.socket(p)
		a.set(t, Announcement{Addr: addr, Interface: "eth0", Term: 99})
		frame := make([]byte, 2000)
		recorder.SetReadDeadline(time.Now().Add(30 * time.Second))
		size := 0
		for !strings.HasSuffix(describe(frame[:size]), "term 99") {
			n, err := recorder.Read(frame)
			if err != nil {
				t.Fatal(err)
			}
			size = n
		}
		a.set(t)
		b.set(t, Announcement{Addr: addr, Interface: "eth0", Term: 100})
		before := b.counters.questions[p].Load()
		for range 10 {
			l.send(recorder, frame[:size])
		}
		for range 10 {
			if got := receive(t, claims); got.Marked || !got.Recorded || got.Addr != addr {
				t.Errorf("the replay was heard as %+v", got)
			}
		}
		if asked := b.counters.questions[p].Load() - before; asked == 0 {
			t.Error("who said so before was not asked")
		}
		// A mark that is forged is none.
		forged := claimed(addr, mark{term: math.MaxUint64}, newKey(otherSecret), 0)
		l.send(recorder, forged)
		if got := receive(t, claims); got.Marked || got.Recorded || got.MAC != otherMAC {
			t.Errorf("the forged mark was heard as %+v", got)
		}
		b.set(t)
	}
}

func TestManyGroups(t *testing.T) {
	const n = 3000
	l := newPair(t)
	s := l.speaker("node", Options{})
	reports := l.socket(ndp)
	var many []Announcement
	for i := range n {
		a := v6.As16()
		binary.BigEndian.PutUint16(a[13:], uint16(i)) // its own group each
		many = append(many, Announcement{Addr: netip.AddrFrom16(a), Interface: "eth0"})
	}
	memberships := func() int { return strings.Count(l.In("node", "cat /proc/net/igmp6"), "eth0") }
	before := memberships()
	start := time.Now()
	s.set(t, many...)
	t.Logf("%d groups joined in %s, %d sockets", n, time.Since(start), len(s.ports["eth0"].groups.sockets))
	if got := memberships(); got != before+n {
		t.Errorf("%d groups joined, want %d", got-before, n)
	}
	last := many[n-1].Addr.String()
	l.works("ndisc6 -q -1 -r 1 -w 1000 " + last + " eth0")

	// A switch that snoops hears of the groups: type 143 behind a hop-by-hop header, with records of 20 bytes. The first
	// reports are in the queue, however many there were that it had no room for.
	reports.SetReadDeadline(time.Now().Add(30 * time.Second))
	ours := solicitedNodes(s.ports["eth0"].answered(ndp))
	frame := make([]byte, 2000)
	for heard := false; !heard; {
		size, err := reports.Read(frame)
		if err != nil {
			t.Fatalf("no MLD report: %v", err)
		}
		if size < 70 || frame[20] != 0 || frame[62] != 143 {
			continue
		}
		for record := range slices.Chunk(frame[70:size], 20) {
			if len(record) == 20 {
				_, our := ours[netip.AddrFrom16([16]byte(record[4:]))]
				heard = heard || our
			}
		}
	}

	start = time.Now()
	s.set(t)
	t.Logf("left in %s", time.Since(start))
	l.Eventually("groups left", func() bool { return memberships() == before })
}

func TestUnrelatedTrafficStaysInKernel(t *testing.T) {
	const n = 10_000
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.quietly(t, testDesired)
	sockets, arrived, before := map[protocol]*packetSocket{}, map[protocol]func() int{}, map[protocol]int{}
	passed := func(p protocol) int { return packets(t, s.ports["eth0"].conns[p].(gaggedConn).conn.(*packetSocket)) }
	for _, p := range protocols { // reading them sets them to zero
		sockets[p], arrived[p] = l.socket(p), l.arrivals("node", p)
		before[p] = arrived[p]()
		passed(p)
	}
	start := time.Now()
	for i := range n {
		w := v6.As16()
		binary.BigEndian.PutUint16(w[12:], uint16(i+1))
		l.send(sockets[arp], request(netip.AddrFrom4([4]byte{192, 0, byte(3 + i>>8), byte(i)})))
		l.send(sockets[ndp], request(netip.AddrFrom16(w)))
		if i%100 == 99 {
			// A kernel that is sent more than it can take loses some, and the filter would not see them.
			for _, p := range protocols {
				l.Eventually("all have arrived", func() bool { return arrived[p]()-before[p] > i })
			}
		}
	}
	t.Logf("%d requests each in %s", n, time.Since(start))
	for _, p := range protocols {
		if got := passed(p); got != 0 {
			t.Errorf("%s: %d frames passed the filter", p, got)
		}
	}
	l.send(sockets[arp], request(v4))
	answer(t, sockets[arp])
	if got := passed(arp); got != 1 {
		t.Errorf("%d frames passed the filter, want the one that asks for us", got)
	}
}

// Whatever else the LAN asks for: addresses that are announced are answered, and the rest stays in the kernel or is counted.
// Of more than the machine can take it loses some, requests for us among them: then it is up to the neighbours to ask again,
// and when it is over nothing is lost any more.
func TestFlood(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	arrived := l.arrivals("node", arp)
	var scattered []Announcement // so far apart that the filter lets through what is between them
	var addrs, strangers []netip.Addr
	for i := range 3 * maxPrefixes {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i), 1})
		scattered, addrs = append(scattered, Announcement{Addr: addr, Interface: "eth0"}), append(addrs, addr)
	}
	for _, prefix := range cover(append(addrs, v4), maxPrefixes) {
		if stranger := prefix.Addr().Next().Next(); prefix.Contains(stranger) {
			strangers = append(strangers, stranger)
		}
	}
	dropped := func() int { return int(s.counters.dropped[slices.Index(reasons[:], NotAnnounced)].Load()) }
	for _, tt := range []struct {
		name    string
		desired []Announcement
		taken   func() int
		counted bool
	}{
		{"outside of the filter", testDesired, arrived, false},
		{"through the filter", append(scattered, testDesired...), dropped, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := l
			l.TB = t
			oneProcessor(t)
			s.quietly(t, tt.desired)
			neighbour, flooding, sent := l.asker(), l.socket(arp), 0
			next := func() []byte {
				sent++
				return request(strangers[sent%len(strangers)])
			}

			asTaken := func(rounds int) {
				before, slowest, start := dropped(), time.Duration(0), time.Now()
				sent = 0
				for range rounds {
					taken := tt.taken()
					for range 50 {
						l.send(flooding, next())
					}
					asked, want := time.Now(), neighbour.ask()
					for range 50 {
						l.send(flooding, next())
					}
					if got := neighbour.hear(); got != want {
						t.Fatalf("got  %s\nwant %s", got, want)
					}
					slowest = max(slowest, time.Since(asked))
					l.Eventually("all are taken", func() bool { return tt.taken() >= taken+100 })
				}
				want := 0
				if tt.counted {
					want = sent
				}
				if got := dropped() - before; got != want {
					t.Errorf("%d of %d frames counted as %s, want %d", got, sent, NotAnnounced, want)
				}
				t.Logf("%d requests in %s, the slowest of our answers took %s", sent, time.Since(start), slowest)
			}
			asTaken(100)

			before, asked, heard, start := dropped(), 0, 0, time.Now()
			sent = 0
			for heard == 0 || time.Since(start) < time.Second {
				if time.Since(start) > l.Patience {
					t.Fatalf("none of %d requests was answered", asked)
				}
				for range rand.IntN(1000) {
					flooding.Write(next())
				}
				neighbour.ask()
				asked++
				heard = len(neighbour.answers)
			}
			took := time.Since(start)
			// All take one way, in order: when the last request is answered, nothing is left of the flood.
			last := neighbour.ask()
			l.Eventually("the last request is answered", func() bool {
				select {
				case got := <-neighbour.answers:
					return got == last
				case <-time.After(time.Second):
					last = neighbour.ask()
					return false
				}
			})
			if counted := dropped() > before; counted != tt.counted {
				t.Errorf("%d frames counted as %s", dropped()-before, NotAnnounced)
			}
			t.Logf("%.0f requests a second, %d of %d counted, %d of %d of ours answered meanwhile",
				float64(sent)/took.Seconds(), dropped()-before, sent, heard, asked)
			asTaken(20)
		})
	}
}

// oneProcessor keeps the rest of a test on one processor, so that the frames it sends stay in order. Its thread ends with
// it, as it is never unlocked.
func oneProcessor(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	var allowed, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &allowed); err != nil {
		t.Fatal(err)
	}
	for i := 0; one.Count() == 0; i++ {
		if allowed.IsSet(i) {
			one.Set(i)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
}

// asker asks for v4, as another host each time, so that one answer is told from the other.
type asker struct {
	lab
	socket  *packetSocket
	answers chan string
	asked   uint16
}

func (l lab) asker() *asker {
	a := &asker{l, l.socket(arp), make(chan string, math.MaxUint16), 0}
	go func() {
		for frame := make([]byte, 2000); ; {
			n, err := a.socket.Read(frame)
			if err != nil {
				return
			}
			a.answers <- describe(frame[:n])
		}
	}()
	return a
}

// ask returns the answer that there should be.
func (a *asker) ask() string {
	a.Helper()
	a.asked++
	host := netip.AddrFrom4([4]byte{172, 16, byte(a.asked >> 8), byte(a.asked)})
	a.send(a.socket, arpFrame(arplib.OperationRequest, host, v4))
	return strings.Replace(arpAnswer, host4.String(), host.String(), 1)
}

func (a *asker) hear() string {
	a.Helper()
	select {
	case got := <-a.answers:
		return got
	case <-time.After(a.Patience):
		a.Fatal("no answer")
		return ""
	}
}

// Of 10,000 addresses at once, each is announced. How fast, TestManyAnnouncementsInMemory tells.
func TestManyAnnouncements(t *testing.T) {
	const n = 10_000
	l := newPair(t)
	s := l.speaker("node", Options{})
	heard := l.arrivals("client", arp)
	many := addresses(n)
	start := time.Now()
	s.set(t, many...)
	t.Logf("set in %s", time.Since(start))
	l.Eventually("all announced", func() bool { return s.counters.announcements[arp].Load() >= 2*n })
	t.Logf("all announced in %s", time.Since(start))
	l.Eventually("all heard", func() bool { return heard() >= 2*n })
	start = time.Now()
	s.set(t, append(many, Announcement{Addr: v4, Interface: "eth0"})...)
	t.Logf("one more set in %s", time.Since(start))
}

func TestProbe(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("taking a capability away needs one")
	}
	if err := Probe(); err != nil {
		t.Errorf("as root: %v", err)
	}
	var err error
	netlab.Without(t, unix.CAP_NET_RAW, func() { err = Probe() })
	if !errors.Is(err, unix.EPERM) || err.Error() != "CAP_NET_RAW is needed to answer ARP and NDP: operation not permitted" {
		t.Errorf("without CAP_NET_RAW: %v", err)
	}
}

// BenchmarkRoundTrip is a request and its answer through two kernels, with 10,000 addresses.
func BenchmarkRoundTrip(b *testing.B) {
	for _, p := range protocols {
		b.Run(p.String(), func(b *testing.B) {
			l := newPair(b)
			s := l.speaker("node", Options{})
			var many []Announcement
			addr := map[protocol]netip.Addr{arp: netip.MustParseAddr("10.0.0.0"), ndp: netip.MustParseAddr("2001:db8:1::")}[p]
			for range 10_000 {
				addr = addr.Next()
				many = append(many, Announcement{Addr: addr, Interface: "eth0"})
			}
			s.set(b, many...)
			s.hush()
			socket, frame, in := l.socket(p), request(addr), make([]byte, 2000)
			for b.Loop() {
				if _, err := socket.Write(frame); err != nil {
					b.Fatal(err)
				}
				for {
					if _, err := socket.Read(in); err != nil {
						b.Fatal(err)
					}
					if mac(in[:6]) == hostMAC { // and not what the kernel multicasts
						break
					}
				}
			}
		})
	}
}

// What is addressed to another host is none of ours, though a promiscuous interface hears it.
func TestPromiscuousIsNotAnswered(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	l.In("node", "ip link set eth0 promisc on")
	s.set(t, Announcement{Addr: v4, Interface: "eth0"})
	socket := l.socket(arp)
	for range 10 {
		if _, err := socket.Write(edit(request(v4), set(0, otherMAC[:]...))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := socket.Write(request(v4)); err != nil {
		t.Fatal(err)
	}
	l.Eventually("the answer", func() bool { return s.counters.requests[arp].Load() > 0 })
	if got := s.counters.requests[arp].Load(); got != 1 {
		t.Errorf("%d requests received, want the one that is not for another host", got)
	}
}

// A socket on an interface also gets the frames of VLANs on top of it, without their tags.
func TestVLANsAreOtherLANs(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.quietly(t, testDesired)
	sockets := map[protocol]*packetSocket{arp: l.socket(arp), ndp: l.socket(ndp)}
	tests := []struct {
		name    string
		tag     uint16
		answers bool
	}{
		{"VLAN 100", 100, false},
		{"VLAN 100 with priority", 0x6000 | 100, false},
		{"priority alone", 0x6000, true},
	}
	run := func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				for p, frame := range map[protocol][]byte{arp: request(v4), ndp: request(v6)} {
					tagged := binary.BigEndian.AppendUint16(append(append([]byte{}, frame[:12]...), 0x81, 0), tt.tag)
					before := s.counters.replies.Load()
					if _, err := sockets[p].Write(append(tagged, frame[12:]...)); err != nil {
						t.Fatal(err)
					}
					sockets[p].Write(frame)
					want := before + 1
					if tt.answers {
						want++
					}
					l.Eventually("an answer", func() bool { return s.counters.replies.Load() >= want })
					time.Sleep(10 * time.Millisecond)
					if got := s.counters.replies.Load(); got != want {
						t.Errorf("%s: %d replies, want %d", p, got-before, want-before)
					}
				}
			})
		}
	}
	t.Run("the node has no such VLAN", run)
	if out, err := l.Try("node", "ip link add link eth0 name vlan100 type vlan id 100"); err != nil {
		t.Skipf("this kernel has no VLAN interfaces: %s", out)
	}
	l.In("node", "ip link set vlan100 up")
	t.Run("the node has it", run)
}
