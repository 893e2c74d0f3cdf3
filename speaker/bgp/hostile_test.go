package bgp

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The routers here say what no router should, over TCP. That a hostile UPDATE harms nobody is shown by the end-to-end tests; here
// it is what comes before a session, and what comes too often.

// bgpMessage puts a header before a body (RFC 4271, section 4.1).
func bgpMessage(kind byte, body ...byte) []byte {
	message := bytes.Repeat([]byte{0xff}, 16)
	message = binary.BigEndian.AppendUint16(message, uint16(19+len(body)))
	return append(append(message, kind), body...)
}

var (
	keepalive = bgpMessage(4)
	refresh   = bgpMessage(5, 0, 1, 0, 1)
	ceased    = bgpMessage(3, 6, 4)
)

// capable are the capabilities of a router in AS 65001 that speaks of both families.
var capable = []byte{1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1, 2, 0, 65, 4, 0, 0, 0xfd, 0xe9}

// open is an OPEN message with capabilities.
func open(capabilities ...byte) []byte {
	return openWith(4, 65001, 90, [4]byte{192, 0, 2, 1}, append([]byte{byte(len(capabilities) + 2), 2, byte(len(capabilities))}, capabilities...)...)
}

func openWith(version byte, asn, hold uint16, id [4]byte, parameters ...byte) []byte {
	body := binary.BigEndian.AppendUint16([]byte{version}, asn)
	body = binary.BigEndian.AppendUint16(body, hold)
	return bgpMessage(1, append(append(body, id[:]...), parameters...)...)
}

// greeting is what a router says first, and what is known of it then; nothing when it may have a session.
type greeting struct {
	name string
	says []byte
	want string
}

func greetings() []greeting {
	var (
		ours      = routerID.As4()
		id        = [4]byte{192, 0, 2, 1}
		with      = func(more ...byte) []byte { return open(append(slices.Clone(capable), more...)...) }
		parameter = append([]byte{byte(len(capable) + 2), 2, byte(len(capable))}, capable...)
		long      = bgpMessage(1, append([]byte{4, 0xfd, 0xe9, 0, 90, 192, 0, 2, 1, 255, 255, 0xff, 0xff, 2}, make([]byte, 20)...)...)
		length    = func(m []byte, n uint16) []byte {
			m = slices.Clone(m)
			binary.BigEndian.PutUint16(m[16:], n)
			return m
		}
	)
	const (
		refused    = "the router's message was refused: "
		unexpected = "the router refuses our OPEN message: "
	)
	return []greeting{
		{"version 3", openWith(3, 65001, 90, id, parameter...), refused},
		{"AS 0", openWith(4, 0, 90, id, 0), "wrong AS: the router is not in AS 65001"},
		{"another AS", openWith(4, 65002, 90, id, 0), "wrong AS: the router is not in AS 65001"},
		{"AS_TRANS without the number", openWith(4, 23456, 90, id, 0), "wrong AS: the router is not in AS 65001"},
		{"another long AS", open(65, 4, 0, 1, 0xfd, 0xe9), "wrong AS: the router is not in AS 65001"},
		{"a hold time of 1 s", openWith(4, 65001, 1, id, parameter...), "the router's hold time cannot be accepted"},
		{"a hold time of 2 s", openWith(4, 65001, 2, id, parameter...), "the router's hold time cannot be accepted"},
		{"a hold time of 0", openWith(4, 65001, 0, id, parameter...), ""},
		{"no router ID", openWith(4, 65001, 90, [4]byte{}, parameter...), "the router's ID is not valid"},
		{"our router ID", openWith(4, 65001, 90, ours, parameter...), ""}, // only for internal peers (RFC 6286)
		{"parameters beyond the end", openWith(4, 65001, 90, id, 200, 2, 6), refused},
		{"a parameter beyond the end", openWith(4, 65001, 90, id, 4, 2, 200, 1, 4), refused},
		{"half a parameter", openWith(4, 65001, 90, id, 1, 2), refused},
		{"long parameters beyond the end", long, refused},
		{"an unknown parameter", openWith(4, 65001, 90, id, 4, 99, 2, 1, 1), ""},
		{"a capability beyond the end", open(1, 200, 0, 1), refused},
		{"half a capability", open(65), ""},
		{"an AS of 2 bytes", open(65, 2, 0xfd, 0xe9), refused},
		{"an AS of no bytes", open(65, 0), refused},
		{"a family of 1 byte", open(1, 1, 0), refused},
		{"a restart of 1 byte", with(64, 1, 0x80), refused},
		{"a restart of half a family", with(64, 4, 0x80, 120, 0, 1), ""},
		{"many paths of half a family", with(69, 3, 0, 1, 1), refused},
		{"a hop of half a family", with(5, 5, 0, 1, 0, 1, 0), refused},
		{"a name beyond the end", with(73, 3, 200, 'a', 'b'), refused},
		{"a name of nothing", with(73, 0), refused},
		{"a software version beyond the end", with(75, 2, 200, 'a'), refused},
		{"a long restart of half a family", with(71, 5, 0, 1, 1, 0, 0), refused},
		{"an unknown capability", with(250, 4, 1, 2, 3, 4), ""},
		{"all twice", with(capable...), ""},
		{"an OPEN of 10 bytes", bgpMessage(1, 4, 0xfd, 0xe9), refused},
		{"an OPEN longer than allowed", length(open(capable...), 4097), refused},
		{"an OPEN of length 0", length(open(capable...), 0), refused},
		{"an UPDATE first", bgpMessage(2, 0, 0, 0, 0), unexpected},
		{"a KEEPALIVE first", keepalive, unexpected},
		{"a NOTIFICATION first", ceased, unexpected},
		{"a NOTIFICATION without a code", bgpMessage(3), refused},
		{"a route refresh first", refresh, unexpected},
		{"a message of no kind", bgpMessage(77, 1, 2, 3), refused},
		{"two OPENs", slices.Concat(open(capable...), open(capable...)), unexpected},
		{"an UPDATE before the KEEPALIVE", slices.Concat(open(capable...), bgpMessage(2, 0, 0, 0, 0)), unexpected},
		{"a thousand NOTIFICATIONs", bytes.Repeat(ceased, 1000), unexpected},
		{"another protocol", []byte("SSH-2.0-OpenSSH_9.2p1 Debian\r\n"), refused},
		{"zeros", make([]byte, 70000), refused},
		{"ones", bytes.Repeat([]byte{0xff}, 70000), refused},
		{"one byte", []byte{0xff}, refused},
		{"nothing", nil, unexpected},
	}
}

// host is a router of the test's own: it answers at an address with a function for each connection.
func (l lab) host(a netip.Addr, answer func(net.Conn)) {
	l.Helper()
	listener, err := net.Listen("tcp", netip.AddrPortFrom(a, 1179).String())
	if err != nil {
		l.Fatal(err)
	}
	var ended sync.WaitGroup
	conns := make(chan net.Conn, 1000)
	ended.Go(func() {
		defer close(conns)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			conns <- conn
			ended.Go(func() {
				defer conn.Close()
				answer(conn)
			})
		}
	})
	l.Cleanup(func() {
		listener.Close()
		for conn := range conns {
			conn.Close()
		}
		ended.Wait()
	})
}

func local(i int) netip.Addr { return netip.AddrFrom4([4]byte{127, 1, 0, byte(i)}) }

// evil is a peer at one of our own addresses.
func evil(name string, a netip.Addr) Peer {
	return Peer{
		Name: name, LocalASN: 64512, PeerASN: 65001, Address: a, Port: 1179, Source: addr("127.0.0.1"),
		HoldTime: 30 * time.Second, KeepaliveTime: 10 * time.Second, ConnectRetryTime: time.Second,
	}
}

func TestHostileGreetings(t *testing.T) {
	l := newLab(t)
	p := l.place(1)
	f := p.frr(p.frrConfig(65001, 64512))
	peers := []Peer{p.peer(65001)}
	for i, g := range greetings() {
		a := local(i + 1)
		l.host(a, func(conn net.Conn) {
			conn.Write(g.says)
			conn.Write(keepalive)
			if g.says != nil {
				io.Copy(io.Discard, conn)
			}
		})
		peers = append(peers, evil(g.name, a))
	}
	r := l.speaker(peers, plainTo("tor1"))
	r.established("tor1")
	since := r.status("tor1").Since
	for _, g := range greetings() {
		l.Eventually(g.name+" has been heard", func() bool {
			is := r.status(g.name)
			if g.want == "" {
				return is.State == established
			}
			return strings.HasPrefix(is.LastError, g.want)
		})
	}
	for _, s := range r.history() {
		i := slices.IndexFunc(greetings(), func(g greeting) bool { return g.name == s.Peer })
		if i >= 0 && greetings()[i].want != "" && s.State == established {
			t.Errorf("there was a session with a router that says %s", s.Peer)
		}
	}
	r.set(peers, append(plainTo("tor1"), Route{Prefix: prefix("198.51.100.2/32"), Peers: []string{"tor1"}}))
	l.eventuallyIs("another route", "via 10.0.1.1 path 64512", func() string { return f.route("198.51.100.2/32") })
	if now := r.status("tor1"); now.State != established || now.Since != since {
		t.Errorf("the other router's session is %+v", now)
	}
}

// A router that has a session may say what is right far too often, and strangers may knock where passive peers are awaited.
func TestStorms(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	f, g := p.frr(p.frrConfig(65001, 64512)), q.frr(q.frrConfig(65002, 64512))
	var sessions, strangers atomic.Int32
	storm := func(message []byte) func(net.Conn) {
		return func(conn net.Conn) {
			conn.Write(open(capable...))
			conn.Write(keepalive)
			sessions.Add(1)
			go io.Copy(io.Discard, conn)
			for range 200 {
				if _, err := conn.Write(bytes.Repeat(message, 100)); err != nil {
					return
				}
			}
		}
	}
	peers := []Peer{p.peer(65001), q.peer(65002, func(p *Peer) { p.Passive = true })}
	for i, message := range [][]byte{refresh, keepalive, ceased, bgpMessage(2, 0, 0, 0, 0)} {
		l.host(local(i+1), storm(message))
		peers = append(peers, evil(fmt.Sprint("storm", i), local(i+1)))
	}
	routes := append(plainTo("tor1", "tor2"), many(1000, "storm0")...)
	r := l.speaker(peers, routes)
	r.established("tor1", "tor2")
	since := []time.Time{r.status("tor1").Since, r.status("tor2").Since}
	for range 500 {
		if conn, err := net.Dial("tcp", "127.0.0.1:179"); err == nil {
			strangers.Add(1)
			l.Cleanup(func() { conn.Close() })
			conn.Write(open(capable...))
		}
	}
	l.Eventually("all storms are there", func() bool { return sessions.Load() >= 4 })
	if n := strangers.Load(); n != 500 {
		t.Errorf("%d strangers of 500 were heard", n)
	}
	r.set(peers, append(routes, Route{Prefix: prefix("198.51.100.2/32"), Peers: []string{"tor1", "tor2"}}))
	l.eventuallyIs("another route", "via 10.0.1.1 path 64512", func() string { return f.route("198.51.100.2/32") })
	l.eventuallyIs("another route", "via 10.0.2.1 path 64512", func() string { return g.route("198.51.100.2/32") })
	for i, name := range []string{"tor1", "tor2"} {
		if now := r.status(name); now.State != established || now.Since != since[i] {
			t.Errorf("the session with %s is %+v", name, now)
		}
	}
}
