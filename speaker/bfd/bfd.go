// Package bfd watches paths to other systems by Bidirectional Forwarding Detection (RFC 5880), over one hop (RFC 5881) and
// over several (RFC 5883).
//
// It speaks in asynchronous mode. Echo and demand mode are not offered; a peer that asks for demand mode is obeyed, and is
// sent nothing but polls and their answers while both sides are Up.
package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// Path is what a session watches, and what names it.
type Path struct {
	// Peer is a unicast address without a zone. When it is link-local, an Interface is needed.
	Peer netip.Addr
	// Local is the source address. When it is not set, the kernel chooses, and packets to any address of ours are taken.
	Local netip.Addr
	// Interface binds the session to a network interface. It may come later, and come back.
	Interface string
	// MultiHop is for a peer that is not on the same link.
	MultiHop bool
}

func (p Path) String() string {
	s := p.Peer.String()
	if p.Local.IsValid() {
		s += " from " + p.Local.String()
	}
	if p.Interface != "" {
		s += " on " + p.Interface
	}
	if p.MultiHop {
		s += " over several hops"
	}
	return s
}

// Session is how a path is watched.
type Session struct {
	Path
	// Transmit is the least interval at which we want to send, Receive the least at which we want to be sent to: 10 ms to
	// 1 min, 300 ms when zero. The peer may ask for more. While a session is not Up, packets are sent once per second.
	Transmit, Receive time.Duration
	// Multiplier is how many intervals without a packet make the peer take us for gone; 3 when zero. It is the peer's
	// multiplier that says when we do so.
	Multiplier uint8
	// MinTTL is the least TTL of packets over several hops: 255 less the routers in between; 254 when zero. Some peers send
	// with 64 (BIRD 2.0), so it is 64 less the routers then. Over one hop it is always 255.
	MinTTL uint8
	// Passive sends nothing before the peer does.
	Passive bool
	// AdminDown tells the peer, as long as it is set, that this side is not to be used. The peer can tell that from a
	// failure.
	AdminDown bool
	// ConcatenatedDown tells the peer, while the session is Up, that this side cannot serve something behind it (RFC 5880,
	// section 6.8.17). The session stays Up.
	ConcatenatedDown bool
	// Auth signs what is sent, and is required of what is received.
	Auth Auth
	// AlsoAccept is another key that may be received, with an ID of its own: the next or the previous one. To change keys
	// without a loss, have everyone accept the new one, then sign with it, then forget the old one.
	AlsoAccept Auth
}

// Event is a change of a session: of its State, or the peer has entered or left AdminDown or ConcatenatedPathDown.
type Event struct {
	Path
	State State
	// Diag is why the session left Up. DetectionTimeExpired is a failure; NeighborSignaledDown is one if RemoteState is
	// not AdminDown.
	Diag Diag
	// RemoteState and RemoteDiag are what the peer said last; Down when it has fallen silent.
	RemoteState State
	RemoteDiag  Diag
	// Time of the change, on the monotonic clock too.
	Time time.Time
}

func (e Event) String() string {
	s := e.Path.String() + " " + e.State.String()
	if e.Diag != NoDiagnostic {
		s += " " + e.Diag.String()
	}
	return s + ", peer " + e.RemoteState.String()
}

// Status is a session as it is now. Time is since when it is in its State.
type Status struct {
	Event
	// Transmit is the interval in use, before jitter.
	Transmit time.Duration
	// Detection is the time without a packet after which the peer is taken for gone; 0 when it has not been heard.
	Detection time.Duration
}

// Options of a Watcher. The zero value will do.
type Options struct {
	// Notify is told of changes, in their order. It is called from the thread that sends and receives, so it must neither
	// block nor call Set. A session that Set takes away is gone without an event.
	Notify func(Event)
}

// Watcher keeps sessions while it runs. It is a prometheus.Collector.
type Watcher struct {
	notify   func(Event)
	network  network
	realtime func() error
	counters counters
	status   atomic.Pointer[[]Status]

	// setting is held for the whole of Set.
	setting sync.Mutex
	desired []Session
	running *loop // or nil
}

// New returns a Watcher that does nothing until it is run.
func New(o Options) *Watcher {
	return &Watcher{notify: o.Notify, network: kernel{}, realtime: becomeRealTime}
}

// Run keeps the sessions until ctx is done. Then it tells the peers that they are AdminDown, as Set does of sessions it takes
// away, for half a second at most, and returns nil. It has a thread of its own, with real-time priority if permitted.
func (w *Watcher) Run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	l, err := w.start(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	defer context.AfterFunc(ctx, l.socket.wake)()
	for {
		select {
		case write := <-l.logs:
			write(log)
		case <-l.stopped:
			return nil
		}
	}
}

func (w *Watcher) start(ctx context.Context) (*loop, error) {
	w.setting.Lock()
	defer w.setting.Unlock()
	if w.running != nil {
		return nil, errors.New("the watcher is running already")
	}
	socket, err := w.network.open()
	if err != nil {
		return nil, fmt.Errorf("opening sockets for BFD: %w", err)
	}
	w.running = newLoop(w, socket)
	go w.running.run(ctx, w.desired)
	return w.running, nil
}

func (w *Watcher) stop() {
	w.setting.Lock()
	defer w.setting.Unlock()
	w.running = nil
}

// Set replaces the sessions. A session whose Path stays keeps its state; changed intervals are negotiated with the peer while
// it stays Up. Calling it again with the same set changes nothing. Before Run, the set is kept.
//
// The peer of a session that is not desired any more, and was Init or Up, is told that it is AdminDown, so that it does not
// take the silence for a failure: at once, and again at the session's interval until it answers, at most as often as
// the multiplier says. After that nothing is sent.
//
// An error concerns the sessions it names; all others are kept. What the kernel refuses is tried again by itself.
func (w *Watcher) Set(sessions []Session) error {
	w.setting.Lock()
	defer w.setting.Unlock()
	var invalid []error
	w.desired = make([]Session, 0, len(sessions))
	paths := make(map[Path]bool, len(sessions))
	for _, s := range sessions {
		if err := s.validate(); err != nil {
			invalid = append(invalid, fmt.Errorf("watching %s: %w", s.Path, err))
			continue
		}
		if paths[s.Path] {
			invalid = append(invalid, fmt.Errorf("watching %s: there is another session for this path", s.Path))
			continue
		}
		paths[s.Path] = true
		w.desired = append(w.desired, s.withDefaults())
	}
	if w.running == nil {
		return errors.Join(invalid...)
	}
	return errors.Join(append(invalid, w.running.set(w.desired))...)
}

// States returns the sessions of the running Watcher, sorted by path. It may be called from anywhere.
func (w *Watcher) States() []Status {
	if states := w.status.Load(); states != nil {
		return *states
	}
	return nil
}

func (s Session) validate() error {
	const least, most = 10 * time.Millisecond, time.Minute
	switch {
	case !unicast(s.Peer):
		return errors.New("the peer is not a unicast address without a zone")
	case s.Local.IsValid() && !unicast(s.Local):
		return errors.New("the local address is not a unicast address without a zone")
	case s.Local.IsValid() && s.Local.Is4() != s.Peer.Is4():
		return errors.New("the local address is of another family than the peer's")
	case s.Peer.IsLinkLocalUnicast() && s.Peer.Is6() && s.Interface == "":
		return errors.New("a link-local peer needs an interface")
	case len(s.Interface) >= unix.IFNAMSIZ:
		return errors.New("the interface's name is too long")
	}
	for _, interval := range []time.Duration{s.Transmit, s.Receive} {
		if interval != 0 && (interval < least || interval > most) {
			return fmt.Errorf("an interval of %s is not between %s and %s", interval, least, most)
		}
	}
	if err := errors.Join(s.Auth.validate(), s.AlsoAccept.validate()); err != nil {
		return err
	}
	if s.AlsoAccept.Type != NoAuth && (s.Auth.Type == NoAuth || s.Auth.ID == s.AlsoAccept.ID) {
		return errors.New("a second key needs a first one with another ID")
	}
	return nil
}

func unicast(a netip.Addr) bool {
	return a.IsValid() && !a.Is4In6() && a.Zone() == "" && (a.IsGlobalUnicast() || a.IsLinkLocalUnicast() || a.IsLoopback())
}

func (s Session) withDefaults() Session {
	const interval = 300 * time.Millisecond
	if s.Transmit == 0 {
		s.Transmit = interval
	}
	if s.Receive == 0 {
		s.Receive = interval
	}
	if s.Multiplier == 0 {
		s.Multiplier = 3
	}
	if s.MinTTL == 0 {
		s.MinTTL = 254
	}
	// A packet counts in whole microseconds.
	s.Transmit, s.Receive = s.Transmit.Truncate(time.Microsecond), s.Receive.Truncate(time.Microsecond)
	return s
}
