// Package l2 answers ARP (RFC 826) and Neighbour Discovery (RFC 4861) for addresses, and announces them.
//
// It does so from user space: the kernel does not own the addresses. So when the process dies or hangs, it falls silent,
// and nothing keeps answering for an address that has moved to another node. The kernel must not answer either: where an
// address is on a local interface, arp_ignore has to be 1 or more.
package l2

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

// Announcement says that an address is answered and announced on an interface.
type Announcement struct {
	Addr      netip.Addr
	Interface string
}

// Interface is an Ethernet interface of the node. While it is not Up, nothing is sent on it; when it is Up again, when its
// index changes or its MAC, its addresses are announced anew.
type Interface struct {
	Name  string
	Index int
	MAC   [6]byte
	Up    bool
}

// Observation is another host's claim to an address that is announced here: an ARP packet with the address as its sender,
// or a neighbour advertisement of it.
type Observation struct {
	Announcement
	MAC [6]byte
}

// Options of a Responder. The zero value will do.
type Options struct {
	// Observe is told of claims. It is called on the receive path, one call per frame, and must not block.
	Observe func(Observation)
}

// Responder answers for addresses while it runs. It is a prometheus.Collector.
type Responder struct {
	observe  func(Observation)
	network  network
	counters counters
	wake     chan struct{} // something is due
	failed   chan struct{} // applying the desired set failed, and is to be tried again

	// setting is held for the whole of Set, so that two do not mix. What it guards only Set, and starting and stopping, use.
	setting    sync.Mutex
	running    bool
	interfaces []Interface
	desired    []Announcement
	log        klog.Logger
	listening  sync.WaitGroup

	// mu guards what the announcing goroutine uses too. Joining multicast groups, which takes long, is done without it.
	mu       sync.Mutex
	ports    map[string]*port // by the name of the interface
	active   map[Announcement]struct{}
	schedule schedule
}

// New returns a Responder that does nothing until it is run.
func New(o Options) *Responder {
	return &Responder{
		observe: o.Observe,
		network: kernel{},
		wake:    make(chan struct{}, 1),
		failed:  make(chan struct{}, 1),
		ports:   map[string]*port{},
		active:  map[Announcement]struct{}{},
	}
}

// Run answers and announces until ctx is done; then it has fallen silent and returns nil.
func (r *Responder) Run(ctx context.Context) error {
	if err := r.start(klog.FromContext(ctx)); err != nil {
		return err
	}
	defer r.stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { r.announce(ctx); return nil })
	group.Go(func() error { r.retry(ctx); return nil })
	return group.Wait()
}

// Set replaces the addresses to answer for, each on the interface it names, which need not have a matching prefix. An
// address of an interface that is not there waits for it.
//
// When Set returns, addresses that are no longer desired are answered and announced no more; new ones are answered, and
// their first announcement follows within milliseconds, or at the pace of 10,000 addresses per second. Calling it again
// with the same set changes nothing. Before Run, the set is kept.
//
// An error concerns the addresses it names, or the interface, which is tried again by itself; all others are served.
func (r *Responder) Set(interfaces []Interface, desired []Announcement) error {
	r.setting.Lock()
	defer r.setting.Unlock()
	var invalid []error
	r.interfaces, r.desired = slices.Clone(interfaces), nil
	for _, a := range desired {
		if err := validate(a.Addr); err != nil {
			invalid = append(invalid, fmt.Errorf("announcing %s on %s: %w", a.Addr, a.Interface, err))
			continue
		}
		r.desired = append(r.desired, a)
	}
	if !r.running {
		return errors.Join(invalid...)
	}
	return errors.Join(append(invalid, r.apply())...)
}

func validate(a netip.Addr) error {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || !a.IsGlobalUnicast() && !a.IsLinkLocalUnicast() {
		return errors.New("not a unicast address")
	}
	return nil
}

func (r *Responder) start(log klog.Logger) error {
	r.setting.Lock()
	defer r.setting.Unlock()
	if r.running {
		return errors.New("the responder is running already")
	}
	r.running, r.log = true, log
	if err := r.apply(); err != nil {
		r.log.Error(err, "Cannot answer for all addresses, will try again")
	}
	return nil
}

func (r *Responder) stop() {
	r.setting.Lock()
	defer r.setting.Unlock()
	r.running = false
	closed, _ := r.serve(nil)
	leave(closed)
	r.listening.Wait()
}

// retry applies the desired set again some time after that failed: a socket or a group may be refused for a moment.
func (r *Responder) retry(ctx context.Context) {
	const least, most = time.Second, 30 * time.Second
	for delay := least; ; {
		select {
		case <-ctx.Done():
			return
		case <-r.failed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, most)
		if err := r.reapply(); err != nil {
			r.log.Error(err, "Still cannot answer for all addresses, will try again", "after", delay)
			continue
		}
		delay = least
	}
}

func (r *Responder) reapply() error {
	r.setting.Lock()
	defer r.setting.Unlock()
	return r.apply()
}

// apply makes the desired set true in the order of urgency: silence, answers, announcements, multicast groups.
func (r *Responder) apply() error {
	closed, err := r.serve(plan(r.interfaces, r.desired))
	notify(r.wake)
	leave(closed)
	for _, p := range r.ports {
		if joining := p.groups.set(solicitedNodes(p.addrs[ndp])); joining != nil {
			err = errors.Join(err, fmt.Errorf("on %s: %w", p.Name, joining))
		}
	}
	if err != nil {
		notify(r.failed)
	}
	return err
}

// serve opens, changes and closes ports as planned, and returns the closed ones, whose groups are still to be left.
func (r *Responder) serve(planned map[string]portPlan) (closed []*port, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, p := range r.ports {
		if next, ok := planned[name]; ok && next.Interface == p.Interface {
			p.setTable(next.table)
			continue
		}
		p.close()
		delete(r.ports, name)
		closed = append(closed, p)
		// Forgotten, so that they are announced anew if the interface is back with another index or MAC.
		maps.DeleteFunc(r.active, func(a Announcement, _ struct{}) bool { return a.Interface == name })
	}
	var failed []error
	for name, next := range planned {
		p, ok := r.ports[name]
		if !ok {
			p = newPort(next, r.network)
			r.ports[name] = p
		}
		for _, proto := range protocols {
			opened, err := p.listen(proto, next.addrs[proto])
			if err != nil {
				failed = append(failed, err)
			}
			if opened {
				c := p.conns[proto]
				r.listening.Go(func() { r.answer(p, proto, c) })
			}
		}
	}
	r.activate()
	return closed, errors.Join(failed...)
}

// activate starts the announcements that have become active, and stops those that are not any more.
func (r *Responder) activate() {
	before, now := r.active, time.Now()
	r.active = make(map[Announcement]struct{}, len(before))
	for name, p := range r.ports {
		for _, addrs := range p.addrs {
			for _, addr := range addrs {
				a := Announcement{addr, name}
				r.active[a] = struct{}{}
				if _, ok := before[a]; !ok {
					r.schedule.start(a, now)
				}
			}
		}
	}
	r.schedule.keep(r.active)
	r.counters.addresses.Store(int64(len(r.active)))
}

// announce sends announcements when they are due.
func (r *Responder) announce(ctx context.Context) {
	for {
		var due <-chan time.Time
		if next, ok := r.announceDue(time.Now()); ok {
			due = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-due:
		}
	}
}

// announceDue holds mu while it sends, so that nothing is announced once Set has taken it away.
func (r *Responder) announceDue(now time.Time) (next time.Time, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.schedule.take(now) {
		p, proto := r.ports[a.Interface], protocolOf(a.Addr)
		for _, frame := range announcement(p.MAC, a.Addr) {
			if _, err := p.conns[proto].Write(frame); err != nil {
				r.counters.drop(SendFailed)
				continue
			}
			r.counters.announcements[proto].Add(1)
		}
	}
	return r.schedule.next()
}

// answer answers the frames of one socket until it is closed.
func (r *Responder) answer(p *port, proto protocol, c conn) {
	frame, reply := make([]byte, 2048), make([]byte, 0, maxReplyLen)
	for {
		n, err := c.Read(frame)
		switch {
		case errors.Is(err, os.ErrClosed):
			return
		case err != nil && !errors.Is(err, io.EOF):
			// The link went down (ENETDOWN). The socket hears again when it is up, maybe before anyone has noticed.
			r.log.V(2).Info("Receiving failed, will go on", "interface", p.Name, "protocol", proto, "err", err)
			r.restart(p, proto)
			time.Sleep(10 * time.Millisecond) // so that an error that stays costs nothing
		default:
			r.answerFrame(p, proto, c, frame[:n], reply)
		}
	}
}

func (r *Responder) answerFrame(p *port, proto protocol, c conn, frame, buf []byte) {
	dropped := p.reply(c, frame, buf)
	if dropped != Conflict && dropped != Unrelated {
		r.counters.requests[proto].Add(1)
	}
	if dropped == "" {
		r.counters.replies.Add(1)
		return
	}
	r.counters.drop(dropped)
	if dropped == Conflict && r.observe != nil {
		addr, claimant := claim(frame)
		r.observe(Observation{Announcement{addr, p.Name}, claimant})
	}
}

// restart announces the addresses of a port anew.
func (r *Responder) restart(p *port, proto protocol) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[p.Name] != p {
		return
	}
	for _, addr := range p.addrs[proto] {
		r.schedule.start(Announcement{addr, p.Name}, time.Now())
	}
	notify(r.wake)
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is known already
	}
}
