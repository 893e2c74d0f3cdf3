package bgp

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"k8s.io/klog/v2"
)

const established = "Established"

// answerTime is what a router needs at most to answer an OPEN message, when it does.
const answerTime = 5 * time.Second

var states = map[bgp.FSMState]string{
	bgp.BGP_FSM_IDLE: "Idle", bgp.BGP_FSM_CONNECT: "Connect", bgp.BGP_FSM_ACTIVE: "Active",
	bgp.BGP_FSM_OPENSENT: "OpenSent", bgp.BGP_FSM_OPENCONFIRM: "OpenConfirm", bgp.BGP_FSM_ESTABLISHED: established,
}

// board is what is known of peers. GoBGP's goroutines write to it, some of them under GoBGP's locks, so nothing here calls
// GoBGP or anyone else.
type board struct {
	log klog.Logger
	// news has something when take has.
	news chan struct{}

	mu      sync.Mutex
	entries map[string]*entry
	names   map[netip.Addr]string
	queue   []Status
}

type entry struct {
	neighbor
	status      Status
	desired     map[Family]int
	transitions uint64
	// asked is when an OPEN message was sent that is not answered yet.
	asked time.Time
	// overfull: the router has advertised too many routes to us.
	overfull bool
	// restarting: the router may keep routes of a Speaker before us, and has not heard of us yet.
	restarting bool
	// losses counts sessions in a row that have not lasted.
	losses int
	// overflows counts the times that there were too many routes.
	overflows int
	renewal   renewal
}

func newBoard() board {
	return board{
		log: klog.Background(), news: make(chan struct{}, 1),
		entries: map[string]*entry{}, names: map[netip.Addr]string{},
	}
}

// keep has entries for these peers and no others.
func (b *board) keep(peers []Peer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	kept := map[string]*entry{}
	for _, p := range peers {
		e := b.entries[p.Name]
		if e == nil {
			now := time.Now()
			e = &entry{status: Status{Peer: p.Name, State: "Idle", Since: now, Without: now}}
			if p.unnumbered() {
				e.status.LastError = noRouter(p.Interface)
			}
		}
		kept[p.Name] = e
	}
	b.entries = kept
}

// added is called before GoBGP is told of a neighbor.
func (b *board) added(n neighbor, restarting bool) {
	b.change(n.Name, func(e *entry) {
		e.neighbor, e.overfull, e.restarting, e.losses, e.overflows = n, false, restarting, 0, 0
		e.calm(time.Now())
		b.names[n.Address] = n.Name
		if n.Passive {
			e.status.LastError = "the router has not connected yet"
		} else if n.unnumbered() || e.status.LastError == noRouter(n.Interface) {
			e.status.LastError = ""
		}
	})
}

// changed is called before GoBGP is told of other settings of a neighbor, whose session stays.
func (b *board) changed(n neighbor) {
	b.change(n.Name, func(e *entry) { e.neighbor = n })
}

// gone is called after GoBGP has been told to forget a neighbor.
func (b *board) gone(n neighbor) {
	b.change(n.Name, func(e *entry) {
		e.to("Idle", time.Now())
		if n.Interface != "" {
			e.status.LastError = noRouter(n.Interface)
		}
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.names[n.Address] == n.Name {
		delete(b.names, n.Address)
	}
}

func (b *board) failed(name, why string) {
	b.change(name, func(e *entry) { e.status.LastError = why })
}

func (b *board) established(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries[name] != nil && b.entries[name].status.State == established
}

func (e *entry) to(state string, at time.Time) {
	if e.status.State == state {
		return
	}
	switch established {
	case state:
		e.transitions++
		e.status.Without = time.Time{}
	case e.status.State:
		e.transitions++
		e.status.Without = at
	}
	e.status.State, e.status.Since = state, at
	if state != established {
		e.status.Families, e.status.NoHoldTime = nil, false
	}
}

// change changes an entry, and queues it when its State or LastError is another one.
func (b *board) change(name string, f func(*entry)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[name]
	if e == nil {
		return
	}
	before := e.status
	f(e)
	if e.status.State == before.State && e.status.LastError == before.LastError {
		return
	}
	b.queue = append(b.queue, e.now())
	select {
	case b.news <- struct{}{}:
	default:
	}
}

// take returns the changes since the last time.
func (b *board) take() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.queue
	b.queue = nil
	return queue
}

func (e *entry) now() Status {
	s := e.status
	s.Address, s.Source = e.Address, e.Source
	s.Families = slices.Clone(s.Families)
	s.Advertised = map[Family]int{}
	for _, f := range s.Families {
		s.Advertised[f] = e.desired[f]
	}
	return s
}

func (b *board) statuses() []Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make([]Status, 0, len(b.entries))
	for _, name := range slices.Sorted(maps.Keys(b.entries)) {
		all = append(all, b.entries[name].now())
	}
	return all
}

// advertised counts what each peer is to be told.
func (b *board) advertised(all routes) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.entries {
		e.desired = map[Family]int{}
	}
	for prefix, tolds := range all {
		for _, t := range tolds {
			if e := b.entries[t.peer]; e != nil {
				e.desired[familyOf(prefix)]++
			}
		}
	}
}

// moved is called with each state that GoBGP enters. It says whether the session must be ended: the autonomous system of
// an external peer can be any but ours, which GoBGP does not check.
func (b *board) moved(p apiutil.Peer, at time.Time) (wrong bool) {
	b.change(b.name(p.State.NeighborAddress), func(e *entry) {
		was, since := e.status.State, e.status.Since
		e.asked = time.Time{}
		e.to(states[p.State.SessionState], at)
		switch {
		case e.status.State == established:
			e.renewal, e.restarting = renewal{}, false
		case e.status.State == "Idle" && was == established && e.overfull:
			e.overflowed(at.Sub(since), at)
		case e.status.State == "Idle" && was == established && !wrongBefore(e):
			e.lost(at.Sub(since), at)
		case e.status.State != "Idle" && e.renewal.eagerly:
			e.calm(at) // it has been made anew for another reason
		}
		switch {
		case e.status.State == established && e.PeerType == External && p.State.PeerASN == e.LocalASN:
			wrong = true
			e.status.LastError = wrongAS(e.neighbor)
		case e.status.State == established:
			e.status.LastError = ""
			e.status.Families = e.negotiated(p.State.RemoteCap)
		case e.status.State == "Idle" && was != "Idle":
			if why := ended(e.neighbor, was, p.State.DisconnectReason, p.State.DisconnectMessage); why != "" && !wrongBefore(e) {
				e.status.LastError = why
			}
		}
	})
	return wrong
}

// unanswered finds the routers that have taken the connection and have said nothing since. GoBGP waits four minutes for them
// (RFC 4271, section 8.2.2), and says nothing either.
func (b *board) unanswered(now time.Time) {
	for _, s := range b.statuses() {
		b.change(s.Peer, func(e *entry) {
			if !e.asked.IsZero() && now.Sub(e.asked) >= answerTime && e.status.State != established {
				e.status.LastError = noAnswer(e.neighbor, onLink(e.neighbor))
			}
		})
	}
}

// wrongBefore keeps the reason that we have ended a session for.
func wrongBefore(e *entry) bool {
	return e.overfull || e.PeerType == External && e.status.LastError == wrongAS(e.neighbor)
}

func (b *board) name(a netip.Addr) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.names[a]
}

// negotiated are the families that both sides speak. A router that says nothing of families speaks IPv4 (RFC 4760).
func (n neighbor) negotiated(capabilities []bgp.ParameterCapabilityInterface) (both []Family) {
	theirs := map[Family]bool{}
	for _, c := range capabilities {
		if c, ok := c.(*bgp.CapMultiProtocol); ok {
			theirs[IPv4] = theirs[IPv4] || c.CapValue == bgp.RF_IPv4_UC
			theirs[IPv6] = theirs[IPv6] || c.CapValue == bgp.RF_IPv6_UC
		}
	}
	for _, f := range n.Families {
		if theirs[f] || len(theirs) == 0 && f == IPv4 {
			both = append(both, f)
		}
	}
	return both
}

// refused counts routes that a router has advertised. The import policy refuses them all.
func (b *board) refused(paths []*apiutil.Path) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range paths {
		if e := b.entries[b.names[p.PeerAddress]]; e != nil && !p.Withdrawal {
			e.status.RefusedRoutes++
		}
	}
}

// heard is called with what GoBGP logs of a neighbor. Why a connection cannot be made, or an OPEN message was refused, it
// says nowhere else.
func (b *board) heard(a netip.Addr, r slog.Record) {
	attrs := map[string]slog.Value{}
	r.Attrs(func(a slog.Attr) bool {
		attrs[a.Key] = a.Value
		return true
	})
	var why func(neighbor) string
	switch r.Message {
	case "outgoing connection established":
		b.change(b.name(a), func(e *entry) { e.asked = r.Time })
		return
	case "prefix limit reached":
		b.change(b.name(a), func(e *entry) { e.overfull, e.status.LastError = true, tooMany(e.neighbor) })
		return
	case "failed to connect":
		why = func(n neighbor) string { return unconnected(n, attrs["Error"].String(), onLink(n)) }
	case "outgoing connection IO error":
		why = closedEarly
	case "sent notification":
		code, subcode := attrs["Code"], attrs["Subcode"]
		if code.Kind() != slog.KindInt64 || subcode.Kind() != slog.KindInt64 {
			return
		}
		why = func(n neighbor) string { return complaint(n, code.Int64(), subcode.Int64()) }
	default:
		if r.Level >= slog.LevelWarn {
			b.log.V(2).Info("GoBGP: "+r.Message, "peer", a, "attributes", fmt.Sprint(attrs))
		}
		return
	}
	b.change(b.name(a), func(e *entry) {
		e.asked = time.Time{}
		if text := why(e.neighbor); text != "" && e.status.State != established {
			e.status.LastError = text
		}
	})
}

// onLink says whether the neighbor is on a network that this node is connected to.
func onLink(n neighbor) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil || n.Address.IsLinkLocalUnicast() {
		return true
	}
	return slices.ContainsFunc(addrs, func(a net.Addr) bool {
		prefix, err := netip.ParsePrefix(a.String())
		return err == nil && prefix.Contains(n.Address)
	})
}

// tap is a slog.Handler that hands on what is about a neighbor.
type tap struct {
	*board
	neighbor netip.Addr // not valid for what is about none
}

// Enabled takes the details too as long as there is no session: that a connection was refused is one of them to GoBGP. When
// there is one, there are details for each route.
func (t tap) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo || t.neighbor.IsValid() && !t.established(t.name(t.neighbor))
}

// Handle is of slog.Handler.
func (t tap) Handle(_ context.Context, r slog.Record) error {
	t.heard(t.neighbor, r)
	return nil
}

// WithAttrs is of slog.Handler.
func (t tap) WithAttrs(attrs []slog.Attr) slog.Handler {
	for _, a := range attrs {
		if n, err := netip.ParseAddr(a.Value.String()); err == nil && a.Key == "Key" {
			t.neighbor = n
		}
	}
	return t
}

// WithGroup is of slog.Handler.
func (t tap) WithGroup(string) slog.Handler { return t }
