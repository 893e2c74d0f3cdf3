package speaker

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
)

// Senses gather what the responder, the watcher and the prober tell, for the next decision. Telling never blocks.
type Senses struct {
	changed chan struct{} // something did
	failed  atomic.Bool   // the service proxy has

	mu      sync.Mutex
	claims  map[netip.Addr][]l2.Claim
	routers []bgp.Status
}

// claimants is how many claims to one address are remembered, the last one of each host and kind.
const claimants = 8

// NewSenses returns Senses that have been told nothing.
func NewSenses() *Senses {
	return &Senses{changed: make(chan struct{}, 1), claims: map[netip.Addr][]l2.Claim{}}
}

// Claim takes in another host's claim to an address: l2.Options.Observe.
func (s *Senses) Claim(c l2.Claim) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// What was handed out is not touched again.
	hosts := slices.DeleteFunc(slices.Clone(s.claims[c.Addr]), func(o l2.Claim) bool { return o.MAC == c.MAC && proven(o) == proven(c) })
	if len(hosts) == claimants {
		first := max(0, slices.IndexFunc(hosts, func(o l2.Claim) bool { return !proven(o) }))
		hosts = slices.Delete(hosts, first, first+1)
	}
	s.claims[c.Addr] = append(hosts, c)
	s.poke()
}

// proven reports whether a speaker made the claim. What others send in its name, or in many names, must not hide it.
func proven(c l2.Claim) bool { return c.Marked && !c.Unsigned }

// Session takes in that a session has changed: bfd.Options.Notify.
func (s *Senses) Session(bfd.Event) { s.poke() }

// Health takes in that something is well or not: health.Options.Notify.
func (s *Senses) Health(changes []health.Change) {
	for _, c := range changes {
		if c.Target.Kind == health.Proxy && !c.Now.Healthy && c.Now.Reason != health.Unknown {
			s.failed.Store(true)
		}
	}
	s.poke()
}

// Router takes in that a session with a router has changed: bgp.Options.Notify.
func (s *Senses) Router(status bgp.Status) {
	s.mu.Lock()
	s.routers = append(s.routers, status)
	s.mu.Unlock()
	s.poke()
}

// sessions are the changes of sessions with routers since the last call, in order.
func (s *Senses) sessions() []bgp.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	taken := s.routers
	s.routers = nil
	return taken
}

func (s *Senses) proxyFailed() bool { return s.failed.Load() }

func (s *Senses) poke() {
	select {
	case s.changed <- struct{}{}:
	default: // it is known already
	}
}

// heard are the claims of each host to each address.
func (s *Senses) heard() map[netip.Addr][]l2.Claim {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.claims)
}

// forget drops the claims to addresses that a decision is not about any more.
func (s *Senses) forget(d *Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.claims) == 0 {
		return
	}
	about := make(map[netip.Addr]bool, len(d.L2)+len(d.Questions))
	for _, a := range d.L2 {
		about[a.Addr] = true
	}
	for _, q := range d.Questions {
		about[q.Addr] = true
	}
	maps.DeleteFunc(s.claims, func(addr netip.Addr, hosts []l2.Claim) bool {
		return !about[addr] && time.Since(hosts[len(hosts)-1].Time) > time.Second
	})
}
