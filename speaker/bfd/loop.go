package bfd

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

const (
	// drainLimit is how many packets are read before others are sent. It is more than the receive buffers hold, so what
	// was there when the reading began has been read, even if a flood goes on.
	drainLimit = 4096
	// retryListening is after how long to try again to open a port that something else has.
	retryListening = time.Second
	// lastWords bounds the time in which peers are told that the Watcher stops.
	lastWords = 500 * time.Millisecond
)

// loop is a running Watcher. All that it has belongs to its one thread: nothing on the way of a packet waits for a lock, which
// a thread of lower priority could be holding.
type loop struct {
	notify   func(Event)
	realtime func() error
	status   func([]Status)
	counters *counters
	socket   socket

	requests chan request
	stopped  chan struct{}
	logs     chan func(klog.Logger) // for Run to log, as writing a log may block

	entries map[Path]*entry
	byDiscr map[uint32]*entry
	byPeer  map[netip.Addr][]*entry
	queue   queue
	retry   time.Time // when to listen again; zero when all ports are open
	end     time.Time // zero until it is time to stop

	packet packet
	buf    [maxLen]byte
	events []Event
	dirty  bool // States is to be renewed
}

type request struct {
	desired []Session
	reply   chan error
}

// entry is a session with what the loop needs to serve it.
type entry struct {
	session
	sender  sender // nil when it could not be opened; err says why
	port    uint16 // 0 until sender was opened once
	err     error
	lost    bool // sender is of no use any more
	leaving bool // not desired, and saying farewell

	at    time.Time // not after deadline
	place int       // in the queue
}

func newLoop(w *Watcher, s socket) *loop {
	return &loop{
		notify:   w.notify,
		realtime: w.realtime,
		status:   func(states []Status) { w.status.Store(&states) },
		counters: &w.counters,
		socket:   s,
		requests: make(chan request, 1),
		stopped:  make(chan struct{}),
		logs:     make(chan func(klog.Logger), 256),
		entries:  map[Path]*entry{},
		byDiscr:  map[uint32]*entry{},
		byPeer:   map[netip.Addr][]*entry{},
	}
}

// set has the loop apply a desired set. It may be called from any one goroutine at a time.
func (l *loop) set(desired []Session) error {
	r := request{desired, make(chan error, 1)}
	l.requests <- r
	l.socket.wake()
	select {
	case err := <-r.reply:
		return err
	case <-l.stopped:
		return nil
	}
}

func (l *loop) run(ctx context.Context, desired []Session) {
	defer close(l.stopped)
	runtime.LockOSThread()
	err := l.realtime()
	l.counters.realTime.Store(err == nil)
	l.log(func(log klog.Logger) {
		if err != nil {
			log.Info("No real-time priority, so intervals well below 300 ms may see failures that are none", "reason", err.Error())
			return
		}
		log.V(2).Info("Sending and receiving with real-time priority")
	})
	if err := l.apply(desired, time.Now()); err != nil {
		l.log(func(log klog.Logger) { log.Error(err, "Cannot watch all paths, will try again") })
	}
	l.publish()
	for l.goesOn(ctx) {
		l.socket.wait(l.next())
		l.step()
	}
	for _, e := range l.entries {
		l.remove(e)
	}
	l.socket.close()
	l.publish()
}

// goesOn takes all sessions away when ctx is done, and says false when their peers have been told.
func (l *loop) goesOn(ctx context.Context) bool {
	if ctx.Err() == nil {
		return true
	}
	if l.end.IsZero() {
		now := time.Now()
		l.end = now.Add(lastWords)
		_ = l.apply(nil, now)
		l.publish()
	}
	return len(l.entries) > 0 && time.Now().Before(l.end)
}

func (l *loop) next() time.Time {
	next := l.retry
	if len(l.queue) > 0 && (next.IsZero() || l.queue[0].at.Before(next)) {
		next = l.queue[0].at
	}
	if !l.end.IsZero() && (next.IsZero() || l.end.Before(next)) {
		next = l.end
	}
	return next
}

// step does what is to be done now. Its order is what keeps a session alive whose packets were in time, but are read late:
// the clock is read first, then the packets, and only then is looked for detection times that have passed.
func (l *loop) step() {
	now := time.Now()
	select {
	case r := <-l.requests:
		var err error
		if l.end.IsZero() {
			err = l.apply(r.desired, now)
		}
		l.publish() // before the caller goes on, who may ask for it
		r.reply <- err
	default:
	}
	l.drain(now)
	l.proceed(now)
	if !l.retry.IsZero() && !now.Before(l.retry) {
		_ = l.listen(now)
	}
	l.publish()
}

// apply makes the desired set true.
func (l *loop) apply(desired []Session, now time.Time) error {
	var failed []error
	stays := make(map[Path]bool, len(desired))
	for _, s := range desired {
		stays[s.Path] = true
	}
	for path, e := range l.entries {
		if !stays[path] && !e.leaving {
			l.leave(e, now)
		}
	}
	if err := l.listen(now, desired...); err != nil {
		failed = append(failed, err)
	}
	for _, s := range desired {
		e := l.entries[s.Path]
		if e != nil && e.leaving {
			l.remove(e)
			e = nil
		}
		if e == nil {
			l.add(s, now)
		} else if e.Session != s {
			l.update(e, e.configure(s, now), now)
			l.reschedule(e)
		}
		if err := l.entries[s.Path].err; err != nil {
			failed = append(failed, fmt.Errorf("watching %s: %w", s.Path, err))
		}
	}
	l.dirty = true
	return errors.Join(failed...)
}

// listen opens the ports that the desired sessions and those that are there need, and closes the others.
func (l *loop) listen(now time.Time, desired ...Session) error {
	var needed [len(ports)]bool
	for _, s := range desired {
		needed[portOf(s.Path)] = true
	}
	for path := range l.entries {
		needed[portOf(path)] = true
	}
	err := l.socket.listen(needed)
	l.retry = time.Time{}
	if err != nil {
		l.retry = now.Add(retryListening)
	}
	return err
}

func (l *loop) add(s Session, now time.Time) {
	discr := rand.Uint32()
	for discr == 0 || l.byDiscr[discr] != nil {
		discr = rand.Uint32()
	}
	e := &entry{session: newSession(s, discr, rand.Uint32(), now), at: now}
	l.entries[s.Path] = e
	l.byDiscr[discr] = e
	l.byPeer[s.Peer] = append(l.byPeer[s.Peer], e)
	// Those that are more particular come first.
	slices.SortStableFunc(l.byPeer[s.Peer], func(a, b *entry) int { return cmp.Compare(b.rank(), a.rank()) })
	heap.Push(&l.queue, e)
	l.dial(e)
}

func (e *entry) rank() (rank int) {
	if e.Interface != "" {
		rank += 2
	}
	if e.Local.IsValid() {
		rank++
	}
	return rank
}

// leave takes a session away: at once, or when it has told the peer.
func (l *loop) leave(e *entry, now time.Time) {
	e.leaving = true
	l.update(e, e.disable(now), now)
	if e.farewell == 0 {
		l.remove(e)
		return
	}
	l.reschedule(e)
}

func (l *loop) remove(e *entry) {
	delete(l.entries, e.Path)
	delete(l.byDiscr, e.discr)
	l.byPeer[e.Peer] = slices.DeleteFunc(l.byPeer[e.Peer], func(o *entry) bool { return o == e })
	if len(l.byPeer[e.Peer]) == 0 {
		delete(l.byPeer, e.Peer)
	}
	heap.Remove(&l.queue, e.place)
	if e.sender != nil {
		e.sender.close()
	}
	l.dirty = true
}

// dial opens the socket to send from. One that is opened again keeps its port, as all packets of a session have the same one
// (RFC 5881, section 4).
func (l *loop) dial(e *entry) {
	if e.sender != nil {
		e.sender.close()
		e.sender = nil
	}
	sender, err := l.socket.dial(e.Path, e.port)
	if err != nil {
		if e.err == nil {
			path := e.Path
			l.log(func(log klog.Logger) { log.Error(err, "Cannot send, will try again", "peer", path) })
		}
		e.err = err
		return
	}
	e.sender, e.port, e.err, e.lost = sender, sender.port(), nil, false
	e.index = sender.index()
}

// drain receives what has come.
func (l *loop) drain(now time.Time) {
	for range drainLimit {
		if !l.socket.receive(&l.packet) {
			return
		}
		if reason := l.receive(&l.packet, now); reason != "" {
			l.counters.drop(reason)
		}
	}
}

func (l *loop) receive(p *packet, now time.Time) Reason {
	c, reason := parse(p.data)
	if reason != "" {
		return reason
	}
	e, reason := l.find(p, c)
	if reason != "" {
		return reason
	}
	after, poll, reason := e.take(p, c, now)
	if reason != "" && reason != SessionAdminDown {
		return reason
	}
	l.counters.received.Add(1)
	l.update(e, after, now)
	if poll { // answered at once, whatever the interval
		l.transmit(e, control{final: true})
	}
	if e.leaving && e.farewell == 0 {
		l.remove(e)
		_ = l.listen(now)
		return reason
	}
	l.reschedule(e)
	return reason
}

// find returns the session that a packet is for (RFC 5880, section 6.8.6; RFC 5881, section 3).
func (l *loop) find(p *packet, c control) (*entry, Reason) {
	if c.yourDiscr != 0 {
		if e := l.byDiscr[c.yourDiscr]; e != nil {
			return e, ""
		}
		return nil, UnknownDiscriminator
	}
	for _, e := range l.byPeer[p.from] {
		if e.onPath(p) {
			return e, ""
		}
	}
	return nil, UnknownPeer
}

// proceed does what time demands, for sessions whose packets have all been read.
func (l *loop) proceed(now time.Time) {
	left := false
	for len(l.queue) > 0 && !l.queue[0].at.After(now) {
		e := l.queue[0]
		l.update(e, e.expire(now), now)
		if !now.Before(e.due()) {
			l.periodic(e)
		}
		if e.leaving && e.farewell == 0 {
			l.remove(e)
			left = true
			continue
		}
		e.at = e.deadline()
		heap.Fix(&l.queue, e.place)
	}
	if left {
		_ = l.listen(now)
	}
}

// reschedule makes sure that the session is looked at by its deadline. When that moves away, as it does with each packet, the
// queue is left alone: looking too early costs less.
func (l *loop) reschedule(e *entry) {
	if deadline := e.deadline(); deadline.Before(e.at) {
		e.at = deadline
		heap.Fix(&l.queue, e.place)
	}
}

// periodic sends what is due. While the session is not Up, it is also the time to see after its socket.
func (l *loop) periodic(e *entry) {
	if e.sender == nil || e.lost || e.state != Up && e.sender.stale() {
		l.dial(e)
	}
	now := time.Now()
	if !e.speaks() {
		e.session = e.transmitted(now, rand.Float64())
		return
	}
	if !e.sent.IsZero() {
		l.counters.late(now.Sub(e.due()))
	}
	l.tell(e, now)
}

// update replaces the value of a session, and tells the peer at once if there is something new (RFC 5880, section 6.8.7).
func (l *loop) update(e *entry, after session, now time.Time) {
	before := &e.session
	changed := before.state != after.state
	if changed {
		l.counters.transitions.Add(1)
	}
	if !e.leaving {
		if changed || (before.remote.state == AdminDown) != (after.remote.state == AdminDown) ||
			(before.remote.diag == ConcatenatedPathDown) != (after.remote.diag == ConcatenatedPathDown) {
			l.events = append(l.events, after.event(now))
			l.dirty = true
		}
		if before.interval() != after.interval() || before.detection() != after.detection() ||
			before.remote.state != after.remote.state || before.remote.diag != after.remote.diag {
			l.dirty = true
		}
	}
	news := before.message() != after.message()
	e.session = after
	if news && e.speaks() {
		l.tell(e, time.Now())
	}
}

func (s session) event(now time.Time) Event {
	return Event{s.Path, s.state, s.diag, s.remote.state, s.remote.diag, now}
}

// tell sends a packet, and begins the interval to the next.
func (l *loop) tell(e *entry, now time.Time) {
	l.transmit(e, control{poll: e.polling})
	e.session = e.transmitted(now, rand.Float64())
}

// transmit sends the session's message, as a poll or as the answer to one.
func (l *loop) transmit(e *entry, flags control) {
	if e.sender == nil {
		l.counters.drop(SendFailed)
		return
	}
	c := e.message()
	c.poll, c.final = flags.poll, flags.final
	if e.Auth.Type != NoAuth {
		e.sequence++
		c.auth.sequence = e.sequence
	}
	packet := c.marshal(l.buf[:0])
	if e.Auth.Type != NoAuth {
		sign(packet, e.Auth.Key)
	}
	if err := e.sender.send(packet); err != nil {
		// The interface that the socket is bound to has gone, or its address.
		e.lost = errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO) || errors.Is(err, unix.EINVAL)
		l.counters.drop(SendFailed)
		return
	}
	l.counters.sent.Add(1)
}

// publish makes changes known: first to those who look, then to those who are told.
func (l *loop) publish() {
	if l.dirty {
		l.dirty = false
		states := make([]Status, 0, len(l.entries))
		for _, e := range l.entries {
			if !e.leaving {
				states = append(states, e.status())
			}
		}
		slices.SortFunc(states, func(a, b Status) int { return a.Path.compare(b.Path) })
		l.status(states)
	}
	for _, e := range l.events {
		l.log(func(log klog.Logger) {
			log.Info("Session changed", "peer", e.Path, "state", e.State, "diag", e.Diag, "remoteState", e.RemoteState)
		})
		if l.notify != nil {
			l.notify(e)
		}
	}
	l.events = l.events[:0]
}

func (s session) status() Status {
	return Status{s.event(s.since), s.interval(), s.detection()}
}

func (p Path) compare(o Path) int {
	hops := func(p Path) int {
		if p.MultiHop {
			return 1
		}
		return 0
	}
	return cmp.Or(p.Peer.Compare(o.Peer), p.Local.Compare(o.Local), cmp.Compare(p.Interface, o.Interface),
		cmp.Compare(hops(p), hops(o)))
}

// log has Run log something, unless it is too far behind.
func (l *loop) log(write func(klog.Logger)) {
	select {
	case l.logs <- write:
	default:
	}
}

// queue is a heap of sessions by when to look at them next.
type queue []*entry

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].at.Before(q[j].at) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}
func (q *queue) Push(x any) {
	e := x.(*entry)
	e.place = len(*q)
	*q = append(*q, e)
}
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	return e
}
