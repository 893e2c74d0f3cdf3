package bfd

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// lan is a network without a kernel. Packets arrive at once, and in order.
type lan struct {
	mu    sync.Mutex
	hosts map[netip.Addr]*host
	// onWire may lose a packet, by returning nil, or change it. It may not keep it.
	onWire func(*packet) *packet
	sent   []sentPacket
	open   int // sockets
}

type sentPacket struct {
	from netip.Addr
	at   time.Time
	port int
	data []byte
	control
}

func (s sentPacket) String() string {
	text := fmt.Sprintf("%s %s", s.from, s.state)
	if s.diag != 0 {
		text += " " + s.diag.String()
	}
	if s.poll {
		text += " poll"
	}
	if s.final {
		text += " final"
	}
	return fmt.Sprintf("%s tx=%s rx=%s ×%d", text, s.desiredTx, s.requiredRx, s.multiplier)
}

func newLAN() *lan { return &lan{hosts: map[netip.Addr]*host{}} }

// take returns what was sent since it was last asked, by an address or by all.
func (n *lan) take(from ...netip.Addr) (sent []sentPacket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sent {
		if len(from) == 0 || s.from == from[0] {
			sent = append(sent, s)
		}
	}
	n.sent = nil
	return sent
}

func lines(sent []sentPacket) string {
	var all []string
	for _, s := range sent {
		all = append(all, s.String())
	}
	return strings.Join(all, "\n")
}

// setWire replaces onWire.
func (n *lan) setWire(f func(*packet) *packet) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.onWire = f
}

// host is a member of the network, and its sockets.
type host struct {
	net       *lan
	addr      netip.Addr
	mu        sync.Mutex
	listening [len(ports)]bool
	refused   error // why listening fails
	noDevice  bool  // the interface is not there
	queue     []packet
	arrived   chan struct{}
	woken     chan struct{}
}

func (n *lan) host(addr netip.Addr) *host {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := &host{net: n, addr: addr, arrived: make(chan struct{}, 1), woken: make(chan struct{}, 1)}
	n.hosts[addr] = h
	return h
}

func (h *host) open() (socket, error) { h.net.count(1); return h, nil }
func (h *host) close()                { h.net.count(-1); h.listen([len(ports)]bool{}) }

func (n *lan) count(d int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.open += d
}

func (h *host) listen(needed [len(ports)]bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.refused != nil && needed != [len(ports)]bool{} {
		return h.refused
	}
	h.listening = needed
	return nil
}

// set changes what only the test changes.
func (h *host) set(f func(*host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(h)
}

func (h *host) wait(until time.Time) {
	var timeout <-chan time.Time
	if !until.IsZero() {
		timeout = time.After(time.Until(until))
	}
	select {
	case <-h.arrived:
	case <-h.woken:
	case <-timeout:
	}
}

func (h *host) wake() { signal(h.woken) }

func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (h *host) receive(p *packet) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.queue) == 0 {
		return false
	}
	*p = h.queue[0]
	h.queue = h.queue[1:]
	return true
}

// deliver has a packet come to the host, whoever sent it.
func (h *host) deliver(p packet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := portOf(Path{Peer: p.to, MultiHop: p.multiHop}); !h.listening[i] {
		return
	}
	h.queue = append(h.queue, p)
	signal(h.arrived)
}

func (h *host) dial(path Path, source uint16) (sender, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.noDevice && path.Interface != "" {
		return nil, unix.ENODEV
	}
	if source == 0 {
		source = uint16(firstSource + rand.IntN(lastSource-firstSource+1))
	}
	h.net.count(1)
	return &memorySender{h, path, source}, nil
}

type memorySender struct {
	*host
	path   Path
	source uint16
}

func (s *memorySender) port() uint16 { return s.source }
func (s *memorySender) index() int {
	if s.path.Interface == "" {
		return 0
	}
	return 7
}
func (s *memorySender) stale() bool { return false }
func (s *memorySender) close()      { s.net.count(-1) }

func (s *memorySender) send(data []byte) error {
	s.mu.Lock()
	gone := s.noDevice && s.path.Interface != ""
	s.mu.Unlock()
	if gone {
		return unix.ENODEV
	}
	n := s.net
	n.mu.Lock()
	defer n.mu.Unlock()
	data = append([]byte(nil), data...)
	c, _ := parse(data)
	n.sent = append(n.sent, sentPacket{s.addr, time.Now(), int(s.source), data, c})
	p := &packet{data: append([]byte(nil), data...), from: s.addr, to: s.path.Peer, index: 7, ttl: 255, multiHop: s.path.MultiHop}
	if p.multiHop {
		p.ttl = 254
	}
	if n.onWire != nil {
		p = n.onWire(p)
	}
	if p == nil {
		return nil
	}
	if to := n.hosts[p.to]; to != nil {
		to.deliver(*p)
	}
	return nil
}
