package l2

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

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
	l := lab{netlab.Lab{TB: t, Prefix: netlab.Prefix(kind), Patience: 5 * time.Second, Poll: time.Millisecond}}
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

// speaker is a running Responder in a namespace.
type speaker struct {
	*Responder
	home inside
}

func (l lab) speaker(name string, o Options) speaker {
	return l.speakerOn(name, o, func(n network) network { return n })
}

// speakerOn is one whose network is wrapped.
func (l lab) speakerOn(name string, o Options, wrap func(network) network) speaker {
	s := speaker{New(o), l.inside(name)}
	s.network = wrap(s.home)
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

// hush ends the announcements, for tests that listen for answers.
func (s speaker) hush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schedule = schedule{}
}

// socket opens a packet socket of the client's that hears everything.
func (l lab) socket(p protocol) *packetSocket {
	n := l.inside("client")
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
	s.SetReadDeadline(time.Now().Add(2 * time.Second))
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
	s.ask(t, testDesired, testQuestions...)
	time.Sleep(50 * time.Millisecond)
	s.hush()
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
	expect := func(when string, works bool) {
		t.Helper()
		l.In("client", "ip neigh flush all")
		var all sync.WaitGroup
		for _, command := range commands {
			all.Go(func() {
				if out, err := l.Try("client", command); (err == nil) != works {
					t.Errorf("%s: %s works: %t, want %t: %s", when, command, err == nil, works, out)
				}
			})
		}
		all.Wait()
	}
	expect("before", false)
	s.set(t, Announcement{Addr: v4, Interface: "eth0"}, Announcement{Addr: v6, Interface: "eth0"})
	expect("announced", true)
	if out, err := l.Try("client", "arping -q -D -c 1 -w 1 -I eth0 192.0.2.10"); err == nil {
		t.Errorf("duplicate address detection found nobody: %s", out)
	}
	s.set(t)
	expect("released", false)

	// Another host that takes the address finds it in use.
	s.set(t, Announcement{Addr: v6, Interface: "eth0"})
	l.In("client", "sysctl -qw net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.eth0.accept_dad=1")
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
	l.In("client", "arping -q -c 1 -w 1 -I eth0 198.51.100.7")
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
	for range 20 {
		s.set(t, Announcement{Addr: v4, Interface: "eth0"}, Announcement{Addr: v6, Interface: "eth0"})
		answer(t, socket)
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
				l.In("client", "ping -q -c 1 -W 2 192.0.2.10")
				l.In("client", "ping -q -c 1 -W 2 2001:db8::10")
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
	s.set(t, both...)
	l.In("client", "ping -q -c 1 -W 2 192.0.2.10")
	l.In("client", "ping -q -c 1 -W 2 2001:db8::10")
}

func TestTakeOver(t *testing.T) {
	l := newSwitch(t)
	claims := make(chan Claim, 100)
	a, b := l.speaker("a", Options{Observe: func(c Claim) { claims <- c }}), l.speaker("b", Options{})
	both := []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}
	a.set(t, both...)
	l.In("client", "ping -q -c 1 -W 2 192.0.2.10")
	l.In("client", "ping -q -c 1 -W 2 2001:db8::10")
	for _, addr := range []netip.Addr{v4, v6} {
		if got := l.neighbour(addr); got != "02:00:00:00:00:0a" {
			t.Fatalf("%s is at %s before", addr, got)
		}
	}

	b.set(t, both...) // make before break
	for range 3 {
		if got := <-claims; got.MAC != (mac{0x02, 0, 0, 0, 0, 0x0b}) {
			t.Errorf("the old owner heard a claim of %x", got.MAC)
		}
	}
	a.set(t)
	for _, addr := range []netip.Addr{v4, v6} {
		took := l.Eventually("taken over", func() bool { return l.neighbour(addr) == "02:00:00:00:00:0b" })
		t.Logf("%s moved within %s", addr, took)
		if took > 90*time.Millisecond { // the second announcement comes after 100 ms
			t.Errorf("%s moved after %s, want with the first announcement", addr, took)
		}
	}
	l.In("client", "ping -q -c 1 -W 1 192.0.2.10")
	l.In("client", "ping -q -c 1 -W 1 2001:db8::10")
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
	time.Sleep(50 * time.Millisecond)
	if len(claims) > 0 || asked() != [2]uint64{6, 6} {
		t.Errorf("asked %d, and got %+v", asked(), <-claims)
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
	case <-time.After(15 * time.Second):
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
		yielding := round > 1
		a.set(t, Announcement{Addr: addr, Interface: "eth0", Term: 41, Yielding: yielding})
		time.Sleep(10 * time.Millisecond)
		a.hush()
		start := time.Now()
		b.ask(t, nil, Question{Addr: addr, Interface: "eth0", Round: uint64(round)})
		for range 2 {
			got := receive(t, claims)
			t.Logf("%s answered after %s", addr, got.Time.Sub(start))
			got.Time = time.Time{}
			if want := (Claim{Addr: addr, Interface: "eth0", MAC: macA, Marked: true, Term: 41, Yielding: yielding}); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		a.set(t)
		b.ask(t, nil, Question{Addr: addr, Interface: "eth0", Round: uint64(round) + 10})
		time.Sleep(30 * time.Millisecond)
		if len(claims) > 0 {
			t.Errorf("%+v, though nobody has the address", <-claims)
		}
		b.ask(t, nil)
	}
	// What is not asked for is announced for the first time.
	b.ask(t, nil, Question{Addr: v4, Interface: "eth0"})
	time.Sleep(20 * time.Millisecond)
	a.set(t, Announcement{Addr: v4, Interface: "eth0", Term: 42})
	if got := receive(t, claims); got.Term != 42 || !got.Marked {
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
			if got.Time = (time.Time{}); got != want {
				t.Errorf("%s heard %+v, want %+v", name, got, want)
			}
		}
		a.set(t)
		b.set(t)
		time.Sleep(5 * time.Millisecond)
		for _, c := range claims {
			for len(c) > 0 {
				<-c
			}
		}
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
	l.In("client", "ndisc6 -q -1 -r 1 -w 1000 "+last+" eth0")

	// A switch that snoops hears of the groups: type 143 behind a hop-by-hop header.
	reports.SetReadDeadline(time.Now().Add(3 * time.Second))
	frame := make([]byte, 2000)
	for {
		size, err := reports.Read(frame)
		if err != nil {
			t.Fatalf("no MLD report: %v", err)
		}
		group := solicitedNode(many[0].Addr).As16()
		if size > 62 && frame[20] == 0 && frame[62] == 143 && strings.Contains(string(frame[:size]), string(group[:13])) {
			break
		}
	}

	start = time.Now()
	s.set(t)
	t.Logf("left in %s", time.Since(start))
	l.Eventually("groups left", func() bool { return memberships() == before })
}

func TestUnrelatedTrafficStaysInKernel(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.set(t, testDesired...)
	a, n := l.socket(arp), l.socket(ndp)
	statistics := func(p protocol) (packets uint32) {
		node := s.ports["eth0"].conns[p].(*packetSocket)
		node.raw.Control(func(fd uintptr) {
			stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
			if err != nil {
				t.Fatal(err)
			}
			packets = stats.Packets
		})
		return packets
	}
	for _, p := range protocols { // reading them sets them to zero
		statistics(p)
	}
	sent := 0
	start := time.Now()
	for i := range 10_000 {
		v := netip.AddrFrom4([4]byte{192, 0, byte(3 + i>>8), byte(i)})
		w := v6.As16()
		binary.BigEndian.PutUint16(w[12:], uint16(i+1))
		if _, err := a.Write(request(v)); err == nil {
			sent++
		}
		n.Write(request(netip.AddrFrom16(w)))
		if i%100 == 0 {
			time.Sleep(time.Until(start.Add(time.Duration(i) * 100 * time.Microsecond)))
		}
	}
	t.Logf("%d requests in %s", sent, time.Since(start))
	if sent < 9_900 {
		t.Errorf("only %d of 10000 could be sent", sent)
	}
	for _, p := range protocols {
		if got := statistics(p); got != 0 {
			t.Errorf("%s: %d frames passed the filter", p, got)
		}
	}
	a.Write(request(v4))
	answer(t, a)
	if got := statistics(arp); got != 1 {
		t.Errorf("%d frames passed the filter, want the one that asks for us", got)
	}
}

// Whatever else the LAN asks for, at a rate that would fill a network card of 100 Mbit/s: addresses that are announced are
// answered, and the rest stays in the kernel or is counted.
func TestFlood(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	var scattered []Announcement // so far apart that the filter lets through what is between them
	for i := range 3 * maxPrefixes {
		scattered = append(scattered, Announcement{Addr: netip.AddrFrom4([4]byte{10, 0, byte(i), 1}), Interface: "eth0"})
	}
	for _, tt := range []struct {
		name    string
		desired []Announcement
		counted bool
	}{
		{"outside of the filter", testDesired, false},
		{"through the filter", append(scattered, testDesired...), true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.set(t, tt.desired...)
			time.Sleep(50 * time.Millisecond)
			s.hush()
			dropped := func() uint64 { return s.counters.dropped[slices.Index(reasons[:], NotAnnounced)].Load() }
			before, flooding, socket := dropped(), l.socket(arp), l.socket(arp)
			stop, sent := make(chan struct{}), make(chan int)
			start := time.Now()
			go func() {
				frame, n := request(netip.AddrFrom4([4]byte{10, 0, 0, 0})), 0
				for {
					select {
					case <-stop:
						sent <- n
						return
					default:
					}
					n++
					binary.BigEndian.PutUint16(frame[40:], uint16(n)|2) // never one that is announced
					flooding.Write(frame)
				}
			}()
			var slowest time.Duration
			for range 40 {
				asked := time.Now()
				if _, err := socket.Write(request(v4)); err != nil {
					t.Error(err)
				}
				answer(t, socket)
				slowest = max(slowest, time.Since(asked))
				time.Sleep(10 * time.Millisecond)
			}
			close(stop)
			n, took := <-sent, time.Since(start)
			t.Logf("%.0f requests a second, %d of %d counted, the slowest of our answers took %s",
				float64(n)/took.Seconds(), dropped()-before, n, slowest)
			if counted := dropped() > before; counted != tt.counted {
				t.Errorf("%d frames counted as %s", dropped()-before, NotAnnounced)
			}
		})
	}
}

// With 10,000 addresses at once, each is announced within some more than a second.
func TestManyAnnouncements(t *testing.T) {
	const n = 10_000
	l := newPair(t)
	s := l.speaker("node", Options{})
	var many []Announcement
	addr := netip.MustParseAddr("10.0.0.0")
	for range n {
		addr = addr.Next()
		many = append(many, Announcement{Addr: addr, Interface: "eth0"})
	}
	start := time.Now()
	s.set(t, many...)
	t.Logf("set in %s", time.Since(start))
	l.Eventually("all announced", func() bool { return s.counters.announcements[arp].Load() >= 2*n })
	took := time.Since(start)
	t.Logf("all announced in %s", took)
	if took > 3*time.Second {
		t.Errorf("%d addresses were announced in %s", n, took)
	}
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
	l.Eventually("the answer", func() bool { return s.counters.replies.Load() > 0 })
	if got := s.counters.requests[arp].Load(); got != 1 {
		t.Errorf("%d requests received, want the one that is not for another host", got)
	}
}

// A socket on an interface also gets the frames of VLANs on top of it, without their tags.
func TestVLANsAreOtherLANs(t *testing.T) {
	l := newPair(t)
	s := l.speaker("node", Options{})
	s.set(t, testDesired...)
	time.Sleep(50 * time.Millisecond)
	s.hush()
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
