package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Types of BGP messages, RFC 4271, section 4.1.
const (
	bgpOpen      = 1
	bgpUpdate    = 2
	bgpKeepalive = 4
)

// bgpMessage puts a header before a body.
func bgpMessage(kind byte, body []byte) []byte {
	message := bytes.Repeat([]byte{0xff}, 16)
	message = binary.BigEndian.AppendUint16(message, uint16(19+len(body)))
	message = append(message, kind)
	return append(message, body...)
}

// openOf is the OPEN message of a router with both families and long AS numbers.
func openOf(id netip.Addr) []byte {
	capabilities := []byte{
		1, 4, 0, 1, 0, 1, // IPv4 unicast (RFC 4760)
		1, 4, 0, 2, 0, 1, // IPv6 unicast
		65, 4, 0, 0, torASN >> 8, torASN & 0xff, // RFC 6793
	}
	body := append([]byte{4, torASN >> 8, torASN & 0xff, 0, 90}, id.AsSlice()...)
	body = append(body, byte(2+len(capabilities)), 2, byte(len(capabilities)))
	return bgpMessage(bgpOpen, append(body, capabilities...))
}

// update is an UPDATE message of withdrawn routes, attributes and routes.
func update(withdrawn, attributes, routes []byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	body = append(body, withdrawn...)
	body = binary.BigEndian.AppendUint16(body, uint16(len(attributes)))
	body = append(body, attributes...)
	return bgpMessage(bgpUpdate, append(body, routes...))
}

func attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags | 0x10, kind, byte(len(value) >> 8), byte(len(value))}, value...)
}

// What every route has: ORIGIN, AS_PATH, NEXT_HOP.
var (
	origin    = attribute(0x40, 1, 0)
	asPath    = attribute(0x40, 2, 2, 1, 0, 0, torASN>>8, torASN&0xff)
	nextHop   = attribute(0x40, 3, 198, 51, 100, 2)
	mandatory = slices.Concat(origin, asPath, nextHop)
	network   = []byte{24, 192, 0, 2}
)

// multiprotocol is MP_REACH_NLRI (RFC 4760) of a family.
func multiprotocol(afi uint16, safi, hopLength byte, rest ...byte) []byte {
	value := append(binary.BigEndian.AppendUint16(nil, afi), safi, hopLength)
	return attribute(0x80, 14, append(value, rest...)...)
}

// hostile are messages that no sane router sends.
func hostile() map[string][]byte {
	with := func(attributes ...[]byte) []byte {
		return update(nil, slices.Concat(append([][]byte{mandatory}, attributes...)...), network)
	}
	short := bgpMessage(bgpUpdate, []byte{0, 0})
	badLength := func(length uint16) []byte {
		m := update(nil, mandatory, network)
		binary.BigEndian.PutUint16(m[16:], length)
		return m
	}
	hop6 := make([]byte, 16)
	messages := map[string][]byte{
		"withdrawn beyond the end":         bgpMessage(bgpUpdate, []byte{0xff, 0xff, 24, 192, 0, 2}),
		"attributes beyond the end":        bgpMessage(bgpUpdate, []byte{0, 0, 0xff, 0xff, 0x40, 1, 1}),
		"cut off":                          short,
		"half an attribute":                update(nil, []byte{0x40}, nil),
		"attribute longer than all":        update(nil, []byte{0x50, 2, 0xff, 0xff, 2, 1}, network),
		"no attributes":                    update(nil, nil, network),
		"ORIGIN without a value":           update(nil, slices.Concat(attribute(0x40, 1), asPath, nextHop), network),
		"ORIGIN of 200":                    update(nil, slices.Concat(attribute(0x40, 1, 200), asPath, nextHop), network),
		"AS_PATH with a count of 255":      update(nil, slices.Concat(origin, attribute(0x40, 2, 2, 255), nextHop), network),
		"AS_PATH of an unknown kind":       update(nil, slices.Concat(origin, attribute(0x40, 2, 99, 1, 0, 0, 0, 1), nextHop), network),
		"AS_PATH with half a number":       update(nil, slices.Concat(origin, attribute(0x40, 2, 2, 1, 0, 0), nextHop), network),
		"an empty confederation":           update(nil, slices.Concat(origin, attribute(0x40, 2, 3, 0), nextHop), network),
		"NEXT_HOP of 3 bytes":              update(nil, slices.Concat(origin, asPath, attribute(0x40, 3, 1, 2, 3)), network),
		"NEXT_HOP of 0.0.0.0":              update(nil, slices.Concat(origin, asPath, attribute(0x40, 3, 0, 0, 0, 0)), network),
		"everything twice":                 with(mandatory, mandatory, mandatory),
		"a prefix of 255 bits":             update(nil, mandatory, []byte{255, 192, 0, 2}),
		"half a prefix":                    update(nil, mandatory, []byte{32, 192}),
		"a withdrawn prefix of 255 bits":   update([]byte{255, 1}, nil, nil),
		"MED of 2 bytes":                   with(attribute(0x80, 4, 1, 2)),
		"LOCAL_PREF of 9 bytes":            with(attribute(0x40, 5, 1, 2, 3, 4, 5, 6, 7, 8, 9)),
		"AGGREGATOR of 1 byte":             with(attribute(0xc0, 7, 1)),
		"communities of 5 bytes":           with(attribute(0xc0, 8, 1, 2, 3, 4, 5)),
		"extended communities of 7 bytes":  with(attribute(0xc0, 16, 1, 2, 3, 4, 5, 6, 7)),
		"large communities of 11 bytes":    with(attribute(0xc0, 32, make([]byte, 11)...)),
		"IPv6 extended communities, short": with(attribute(0xc0, 25, make([]byte, 19)...)),
		"CLUSTER_LIST of 3 bytes":          with(attribute(0x80, 10, 1, 2, 3)),
		"ORIGINATOR_ID of 1 byte":          with(attribute(0x80, 9, 1)),
		"AS4_PATH with a count of 200":     with(attribute(0xc0, 17, 2, 200, 1)),
		"AS4_AGGREGATOR of 2 bytes":        with(attribute(0xc0, 18, 1, 2)),
		"a tunnel beyond the end":          with(attribute(0xc0, 23, 0, 8, 0xff, 0xff, 1)),
		"a tunnel's TLV beyond the end":    with(attribute(0xc0, 23, 0, 15, 0, 4, 12, 200, 0, 1)),
		"a PMSI tunnel of 2 bytes":         with(attribute(0xc0, 22, 0, 6)),
		"AIGP beyond the end":              with(attribute(0x80, 26, 1, 0xff, 0xff)),
		"AIGP of length 0":                 with(attribute(0x80, 26, 1, 0, 0)),
		"link state beyond the end":        with(attribute(0x80, 29, 4, 2, 0xff, 0xff, 1)),
		"a prefix SID beyond the end":      with(attribute(0xc0, 40, 1, 0, 7, 0)),
		"a prefix SID of SRv6, cut off":    with(attribute(0xc0, 40, 5, 0, 3, 0, 1, 0)),
		"an unknown well-known attribute":  with(attribute(0x40, 99, 1)),
		"an unknown optional one":          with(attribute(0xc0, 200, make([]byte, 3000)...)),
		"MP_REACH with a hop of 255 bytes": update(nil, slices.Concat(origin, asPath, multiprotocol(2, 1, 255, 1, 2)), nil),
		"MP_REACH without anything":        update(nil, slices.Concat(origin, asPath, attribute(0x80, 14)), nil),
		"MP_REACH with a hop of 5 bytes":   update(nil, slices.Concat(origin, asPath, multiprotocol(2, 1, 5, 1, 2, 3, 4, 5, 0, 64)), nil),
		"an IPv6 prefix of 200 bits":       update(nil, slices.Concat(origin, asPath, multiprotocol(2, 1, 16, slices.Concat(hop6, []byte{0, 200, 1, 2})...)), nil),
		"a family of nobody":               update(nil, slices.Concat(origin, asPath, multiprotocol(4711, 99, 4, 1, 2, 3, 4, 0, 1, 2, 3)), nil),
		"MP_UNREACH of 2 bytes":            update(nil, attribute(0x80, 15, 0, 2), nil),
		"MP_UNREACH of a family of nobody": update(nil, attribute(0x80, 15, 0, 99, 99, 1, 2, 3), nil),
		"no marker":                        append(make([]byte, 16), update(nil, mandatory, network)[16:]...),
		"a length of 0":                    badLength(0),
		"a length of 18":                   badLength(18),
		"a length of 65535":                badLength(65535),
		"a message of no kind":             bgpMessage(77, []byte{1, 2, 3}),
		"an OPEN in the middle":            bgpMessage(bgpOpen, []byte{4, 0, 0, 0, 0, 0, 0, 0, 0, 255, 2, 255}),
		"a KEEPALIVE with a body":          bgpMessage(bgpKeepalive, make([]byte, 100)),
		"a NOTIFICATION without a reason":  bgpMessage(3, nil),
		"a route refresh of 1 byte":        bgpMessage(5, []byte{1}),
	}
	// Families that were never agreed on, with bytes that make no sense.
	for _, family := range []struct {
		afi  uint16
		safi byte
	}{{1, 133}, {2, 133}, {1, 134}, {25, 65}, {25, 70}, {16388, 71}, {1, 4}, {1, 128}, {1, 132}, {1, 73}, {1, 5}, {16397, 241}, {1, 85}} {
		for _, garbage := range [][]byte{{}, {0}, {0xf0, 0xff, 1}, {1, 0xff, 2}, bytes.Repeat([]byte{0xff}, 40), make([]byte, 40)} {
			name := fmt.Sprintf("family %d/%d and %d bytes %x", family.afi, family.safi, len(garbage), garbage[:min(3, len(garbage))])
			messages[name] = update(nil, slices.Concat(origin, asPath, multiprotocol(family.afi, family.safi, 4, append([]byte{192, 0, 2, 1, 0}, garbage...)...)), nil)
		}
	}
	return messages
}

// mutants are valid messages with some bytes changed, always the same ones.
func mutants(count int) [][]byte {
	random := rand.New(rand.NewPCG(4271, 7606))
	valid := [][]byte{
		update(nil, slices.Concat(mandatory, attribute(0xc0, 8, 0xfc, 0, 0, 1), attribute(0xc0, 16, make([]byte, 16)...), attribute(0xc0, 32, make([]byte, 12)...)), network),
		update(network, slices.Concat(origin, asPath, multiprotocol(2, 1, 16, append(make([]byte, 16), 0, 32, 0x20, 1, 0xd, 0xb8)...)), nil),
		update(nil, slices.Concat(mandatory, attribute(0xc0, 23, 0, 8, 0, 6, 1, 4, 1, 2, 3, 4), attribute(0xc0, 40, 1, 0, 7, 0, 0, 0, 0, 0, 0, 1)), network),
	}
	var all [][]byte
	for i := range count {
		message := slices.Clone(valid[i%len(valid)])
		for range 1 + random.IntN(4) {
			message[19+random.IntN(len(message)-19)] = byte(random.IntN(256))
		}
		all = append(all, message)
	}
	return all
}

// adversary is a router that says what it should not, message after message, to
// whoever connects.
type adversary struct {
	mu    sync.Mutex
	queue [][]byte
	sent  int
	// heard counts sessions that were established.
	heard int
	ended sync.WaitGroup
}

func (a *adversary) next() []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sent == len(a.queue) {
		return nil
	}
	a.sent++
	return a.queue[a.sent-1]
}

func (a *adversary) left() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue) - a.sent
}

// listen takes connections at an address of a host until ctx is done.
func (a *adversary) listen(ctx context.Context, host string, addr netip.Addr) error {
	var listener net.Listener
	err := box.Do(host, func() (err error) {
		listener, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(addr, 179).String())
		return err
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listener.Close() })
	a.ended.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			a.ended.Go(func() {
				defer conn.Close()
				context.AfterFunc(ctx, func() { conn.Close() })
				a.talk(conn, addr)
			})
		}
	})
	return nil
}

// talk establishes a session and goes on until it is ended.
func (a *adversary) talk(conn net.Conn, id netip.Addr) {
	if expectMessage(conn, bgpOpen) != nil {
		return
	}
	conn.Write(openOf(id))
	conn.Write(bgpMessage(bgpKeepalive, nil))
	if expectMessage(conn, bgpKeepalive) != nil {
		return
	}
	a.mu.Lock()
	a.heard++
	a.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		io.Copy(io.Discard, conn)
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(20 * time.Millisecond):
		}
		message := a.next()
		if message == nil {
			message = bgpMessage(bgpKeepalive, nil)
			time.Sleep(time.Second)
		}
		if _, err := conn.Write(message); err != nil {
			return
		}
	}
}

// expectMessage reads a message, which has to be of a kind.
func expectMessage(conn net.Conn, kind byte) error {
	header := make([]byte, 19)
	if _, err := io.ReadFull(conn, header); err != nil {
		return err
	}
	if _, err := io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint16(header[16:])-19)); err != nil {
		return err
	}
	if header[18] != kind {
		return errors.New("another message")
	}
	return nil
}

func TestHostileRoutersHarmNobody(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("good", nil)
	w.dualPool()
	w.advertise("a", nil, peer)
	v4, _ := w.routedService("web", nil, nodes...)
	w.established(peer, nodes...)
	router.has(host(v4), from("path 64512", nodes...))
	sessions, pids := router.since(), w.speakers()

	a := &adversary{}
	for name, message := range hostile() {
		t.Logf("%s: %d bytes", name, len(message))
		a.queue = append(a.queue, message)
	}
	a.queue = append(a.queue, mutants(100)...)
	ctx, cancel := context.WithCancel(w.ctx)
	w.Cleanup(func() {
		cancel()
		a.ended.Wait()
	})
	for i := range 12 {
		addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(100 + i)})
		_, err := box.Exec(w.ctx, "router2", "ip", "addr", "add", addr.String()+"/24", "dev", "eth0")
		w.must(err)
		w.Cleanup(func() {
			box.Exec(context.Background(), "router2", "ip", "addr", "del", addr.String()+"/24", "dev", "eth0")
		})
		w.must(a.listen(ctx, "router2", addr))
		w.peer(fmt.Sprintf("evil%d", i), func(s *v1alpha1.BGPPeerSpec) { s.Address = addr.String() })
	}
	start := time.Now()
	for a.left() > 0 && time.Since(start) < 5*patience {
		if now := w.speakers(); !maps.Equal(now, pids) {
			t.Fatalf("the speakers are %v and were %v", now, pids)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Logf("%d messages in %d sessions and %v", a.sent, a.heard, time.Since(start).Round(time.Second))
	if left := a.left(); left > 0 {
		t.Errorf("%d messages could not be sent: no session was left to send them in", left)
	}
	w.always("all goes on", 2*time.Second, func() error {
		if now := w.speakers(); !maps.Equal(now, pids) {
			return fmt.Errorf("the speakers are %v and were %v", now, pids)
		}
		return nil
	})
	router.unmoved(sessions, nodes...)
	router.has(host(v4), from("path 64512", nodes...))
	w.spreadAny(v4)
	for _, node := range nodes {
		routes, err := box.Exec(w.ctx, node, "ip", "route", "show", "192.0.2.0/24")
		w.must(err)
		if routes != "" {
			t.Errorf("%s has taken %s", node, routes)
		}
	}
	// The speakers still do what they are told.
	w.must(box.SetPodReady(w.ctx, w.namespace, "web-node1", false))
	w.edit("web", local)
	router.has(host(v4), from("path 64512", "node2", "node3"))
}
