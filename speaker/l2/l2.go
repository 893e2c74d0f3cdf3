// Package l2 answers ARP (RFC 826) and Neighbour Discovery (RFC 4861) for addresses, and announces them.
//
// It does so from user space: the kernel does not own the addresses. So when the process dies or hangs, it falls silent,
// and nothing keeps answering for an address that has moved to another node. The kernel must not answer either: where an
// address is on a local interface, arp_ignore has to be 1 or more.
package l2

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/klog/v2"
)

// Announcement says that an address is answered and announced on an interface.
type Announcement struct {
	Addr      netip.Addr
	Interface string
	// Term orders the claims of Herald's nodes to one address: answers and announcements carry it. Its meaning is the
	// caller's.
	Term uint64
	// Yielding: the address is answered and no longer announced, and the answers say that whoever hears them may take it.
	Yielding bool
	// Round: another one than before announces anew, as does an end of Yielding. Another Term alone does not.
	Round uint64
}

// Question asks the LAN who has an address. It changes nothing there: no neighbour learns anything from it.
type Question struct {
	Addr      netip.Addr
	Interface string
	// Every is the time between two requests after the first two, which go at once and 10 ms later; zero: none after those.
	Every time.Duration
	// Round: another one than before asks anew, at once and 10 ms later. Another Every alone does not.
	Round uint64
}

// Interface is an Ethernet interface of the node. While it is not Up, nothing is sent on it; when it is Up again, when its
// index changes or its MAC, its addresses are announced anew.
type Interface struct {
	Name  string
	Index int
	MAC   [6]byte
	Up    bool
}

// Claim is another host's claim to an address that is announced or asked about here: an ARP packet with the address as its
// sender, or a neighbour advertisement of it.
type Claim struct {
	Addr      netip.Addr
	Interface string
	MAC       [6]byte
	// Marked: the claim is that of a Responder with one of our keys, which has just answered a question of ours, with the
	// Term and Yielding of its Announcement. Unless it is Unsigned: then any host of the LAN can have sent it.
	Marked   bool
	Unsigned bool
	Term     uint64
	Yielding bool
	// Recorded: one with our key has made this claim at some time. Who makes it now is unknown: the Responder asks, and
	// another claim follows if it is answered.
	Recorded bool
	Time     time.Time
}

// Options of a Responder. The zero value will do.
type Options struct {
	// Observe is told of claims. It is called on the receive path, one call per frame, and must not block or call Set.
	Observe func(Claim)
}

// Responder answers for addresses while it runs. It is a prometheus.Collector.
type Responder struct {
	observe  func(Claim)
	network  network
	counters counters
	wake     chan struct{} // something is due
	failed   chan struct{} // applying the desired set failed, and is to be tried again

	// setting is held for the whole of Set, so that two do not mix. What it guards only Set, and starting and stopping, use.
	setting       sync.Mutex
	running       bool
	interfaces    []Interface
	announcements []Announcement
	questions     []Question
	secrets       [2][]byte // that the keys are made of
	keys          keyring
	log           klog.Logger
	listening     sync.WaitGroup

	// mu guards what the sending goroutine uses too. Joining multicast groups, which takes long, is done without it.
	mu       sync.Mutex
	ports    map[string]*port // by the name of the interface
	active   map[duty]terms
	schedule schedule
	frame    []byte // what is being sent
}

// terms of a duty: what they were last time decides whether it starts anew.
type terms struct {
	round uint64
	every time.Duration // of a question
}

// New returns a Responder that does nothing until it is run.
func New(o Options) *Responder {
	return &Responder{
		observe: o.Observe,
		network: kernel{},
		wake:    make(chan struct{}, 1),
		failed:  make(chan struct{}, 1),
		ports:   map[string]*port{},
		active:  map[duty]terms{},
	}
}

// Run answers, announces and asks until ctx is done; then it has fallen silent and returns nil.
func (r *Responder) Run(ctx context.Context) error {
	if err := r.start(klog.FromContext(ctx)); err != nil {
		return err
	}
	defer r.stop()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { r.send(ctx); return nil })
	group.Go(func() error { r.retry(ctx); return nil })
	return group.Wait()
}

// SetKeys replaces the key that claims are signed with, and the other one that is accepted, too, while the key is changed.
// Either may be empty. Without a key, claims are not signed, and those of others cannot be verified. It holds from the next
// Set on.
func (r *Responder) SetKeys(key, other []byte) {
	r.setting.Lock()
	defer r.setting.Unlock()
	if bytes.Equal(r.secrets[0], key) && bytes.Equal(r.secrets[1], other) {
		return
	}
	old := r.keys
	r.secrets = [2][]byte{bytes.Clone(key), bytes.Clone(other)}
	r.keys = newKeyring(key, other)
	if len(old) > 0 && len(r.keys) > 0 && *old[0] == *r.keys[0] {
		r.keys[0] = old[0] // what is signed with it need not be signed again
	}
}

// Set replaces the addresses to answer for and those to ask about, each on the interface it names, which need not have a
// matching prefix. An address of an interface that is not there waits for it. An address may be in both.
//
// When Set returns, addresses that are no longer desired are answered, announced and asked about no more; new ones are
// answered, and their first announcements and requests are sent, or follow at the pace of 10,000 per second. Calling it
// again with the same set changes nothing. Before Run, the set is kept.
//
// An error concerns the addresses it names, or the interface, which is tried again by itself; all others are served.
func (r *Responder) Set(interfaces []Interface, announcements []Announcement, questions []Question) error {
	r.setting.Lock()
	defer r.setting.Unlock()
	var invalid []error
	r.interfaces, r.announcements, r.questions = slices.Clone(interfaces), nil, nil
	for _, a := range announcements {
		if err := validate(a.Addr); err != nil {
			invalid = append(invalid, &AddressError{Addr: a.Addr, Interface: a.Interface, Err: err})
			continue
		}
		r.announcements = append(r.announcements, a)
	}
	for _, q := range questions {
		if err := validate(q.Addr); err != nil {
			invalid = append(invalid, &AddressError{Addr: q.Addr, Interface: q.Interface, Err: err, Question: true})
			continue
		}
		r.questions = append(r.questions, q)
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
	silenced, _ := r.serve(nil)
	leave(silenced)
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

// apply makes the desired set true in the order of urgency: silence, answers, announcements and requests, closing
// and multicast groups.
func (r *Responder) apply() error {
	silenced, err := r.serve(plan(r.interfaces, r.announcements, r.questions, r.keys, r.ports))
	r.sendDue(time.Now()) // and not only by the other goroutine, which may have to wait for a processor
	notify(r.wake)
	leave(silenced)
	for _, p := range r.ports {
		p.closeRetired()
		// Addresses that are only asked about need no group: the answers come to all nodes.
		if joining := p.groups.set(solicitedNodes(p.answered(ndp))); joining != nil {
			err = errors.Join(err, p.refusing(joining))
		}
	}
	if err != nil {
		notify(r.failed)
	}
	return err
}

// serve opens, changes and silences ports as planned, and returns the silenced ones, which are still to be left.
func (r *Responder) serve(planned map[string]portPlan) (silenced []*port, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, p := range r.ports {
		if next, ok := planned[name]; ok && next.Interface == p.Interface {
			p.setTable(next.table)
			continue
		}
		p.silence()
		delete(r.ports, name)
		silenced = append(silenced, p)
		// Forgotten, so that they begin anew if the interface is back with another index or MAC.
		maps.DeleteFunc(r.active, func(d duty, _ terms) bool { return d.name == name })
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
				failed = append(failed, refusedAll(next.addrs[proto], name, err))
			}
			if opened {
				c := p.conns[proto]
				r.listening.Go(func() { r.answer(p, proto, c) })
			}
		}
	}
	r.activate()
	return silenced, errors.Join(failed...)
}

// activate starts the duties that have become active or begin anew, and ends those that are not active any more.
func (r *Responder) activate() {
	before, now, answered := r.active, time.Now(), 0
	r.active = make(map[duty]terms, len(before))
	for _, p := range r.ports {
		answered += len(p.answered(arp)) + len(p.answered(ndp))
		for d, next := range p.duties() {
			r.active[d] = next
			last, ok := before[d]
			if !ok && !d.question {
				p.asking.forget(d.addr) // who has answered before this node had the address may have it no more
			}
			switch {
			case !ok || last.round != next.round:
				r.schedule.start(d, next.every, now)
			case last.every != next.every:
				r.schedule.repeat(d, next.every, now)
			}
		}
	}
	r.schedule.keep(func(d duty) bool { _, ok := r.active[d]; return ok })
	r.counters.addresses.Store(int64(answered))
}

// send sends announcements and questions when they are due.
func (r *Responder) send(ctx context.Context) {
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
		case <-due.C:
		}
		due.Stop()
		if next, more := r.sendDue(time.Now()); more {
			due.Reset(time.Until(next))
		}
	}
}

// sendDue holds mu while it sends, so that nothing is announced once Set has taken it away.
func (r *Responder) sendDue(now time.Time) (next time.Time, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range r.schedule.take(now) {
		p, proto := r.ports[d.name], protocolOf(d.addr)
		if d.question {
			r.frame = appendQuestion(r.frame[:0], p.MAC, d.addr, p.asking.next(d.addr, now))
			r.write(p.conns[proto], r.frame, &r.counters.questions[proto])
			continue
		}
		for _, frame := range announcement(p.MAC, d.addr, p.table.here[d.addr]) {
			r.write(p.conns[proto], frame, &r.counters.announcements[proto])
		}
	}
	return r.schedule.next()
}

func (r *Responder) write(c conn, frame []byte, sent *atomic.Uint64) {
	if _, err := c.Write(frame); err != nil {
		r.counters.drop(SendFailed)
		return
	}
	sent.Add(1)
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
	claimed, dropped := p.reply(c, frame, buf)
	switch dropped {
	case "":
		r.counters.replies.Add(1)
		r.counters.requests[proto].Add(1)
	case Conflict, Answered, Unrelated:
		r.counters.drop(dropped)
	default:
		r.counters.drop(dropped)
		r.counters.requests[proto].Add(1)
	}
	if claimed {
		r.hear(p, proto, c, frame, buf)
	}
}

// hear passes a claim on, and asks whether it still holds if that is not known.
func (r *Responder) hear(p *port, proto protocol, c conn, frame, buf []byte) {
	heard, how := p.claim(frame)
	r.counters.mark(how.worth)
	if heard.Recorded {
		sent, dropped := p.challenge(c, heard.Addr, how.asked, buf)
		if sent {
			r.counters.questions[proto].Add(1)
		}
		if dropped != "" {
			r.counters.drop(dropped)
		}
	}
	if r.observe != nil {
		heard.Time = time.Now()
		r.observe(heard)
	}
}

// restart begins the announcements and questions of a port anew.
func (r *Responder) restart(p *port, proto protocol) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ports[p.Name] != p {
		return
	}
	now := time.Now()
	for d, terms := range p.duties() {
		if protocolOf(d.addr) == proto {
			r.schedule.start(d, terms.every, now)
		}
	}
	notify(r.wake)
}

func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is known already
	}
}
