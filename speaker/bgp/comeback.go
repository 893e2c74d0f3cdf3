package bgp

import (
	"cmp"
	"fmt"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"k8s.io/klog/v2"
)

// GoBGP holds a neighbor in Idle for 5 s when its session has ended, whatever it is told (IdleHoldTimer of RFC 4271, section
// 8.1.3). Then it connects after 2 s, and when that fails, after the connect retry time, 120 s by default: a router that was
// away for 10 s would be without its routes for two minutes. A neighbor that is made anew is not held, so that is what is done,
// and it is tried more often at first.
const (
	// eager is how long a neighbor is tried more often than its connect retry time says, and eagerRetry how often. A connection
	// may take the time that it takes to find out that nobody has the router's address, 3 s.
	eager      = time.Minute
	eagerRetry = 5 * time.Second
	// settled is how long a session lasts that there was nothing wrong with.
	settled = 10 * time.Second
	// longestPause is before GoBGP goes on by itself.
	longestPause = 4 * time.Second
	// A session that has ended for too many routes is tried again after overflowPause at first. It is likely to end again
	// within seconds, and takes what is advertised along. One that has lasted for overflowSettled begins anew.
	overflowPause        = time.Minute
	longestOverflowPause = 30 * time.Minute
	overflowSettled      = time.Hour

	defaultConnectRetryTime = 120 * time.Second
)

// renewal is when to make a neighbor anew, and whether it is to be tried more often then.
type renewal struct {
	at      time.Time
	eagerly bool
}

// pause is how long to wait with a neighbor whose session has ended, after so many others that have not lasted.
func pause(losses int) time.Duration {
	return min(time.Duration(1<<min(losses, 8)-1)*time.Second, longestPause)
}

// retry is the connect retry time that GoBGP is told.
func (n neighbor) retry(eagerly bool) time.Duration {
	own := cmp.Or(n.ConnectRetryTime, defaultConnectRetryTime)
	if eagerly {
		return min(own, eagerRetry)
	}
	return own
}

// lost is called when a session has ended that lasted so long.
func (e *entry) lost(lasted time.Duration, at time.Time) {
	if lasted >= settled {
		e.losses = 0
	}
	e.renewal = renewal{at.Add(pause(e.losses)), true}
	e.losses++
}

// overflowed is called when a session has ended that lasted so long, because the router has advertised too many routes to us.
func (e *entry) overflowed(lasted time.Duration, at time.Time) {
	if lasted >= overflowSettled {
		e.overflows = 0
	}
	e.renewal = renewal{at.Add(min(overflowPause<<min(e.overflows, 8), longestOverflowPause)), true}
	e.overflows++
}

// eager says whether a neighbor is tried more often than it asks for.
func (b *board) eager(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[name]
	return e != nil && !e.renewal.at.IsZero() && !e.renewal.eagerly
}

// calm is called when a neighbor begins to be tried eagerly.
func (e *entry) calm(at time.Time) {
	e.renewal = renewal{}
	if e.retry(true) != e.retry(false) {
		e.renewal.at = at.Add(eager)
	}
}

// due returns the neighbors that it is time to make anew, with whether they are to be tried eagerly, and when the next ones
// are; the zero value for never.
func (b *board) due(now time.Time) (due map[string]bool, next time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	due = map[string]bool{}
	for name, e := range b.entries {
		r := e.renewal
		switch {
		case r.at.IsZero():
			continue
		case now.Before(r.at):
		case e.status.State == "OpenSent", e.status.State == "OpenConfirm":
			e.renewal.at = now.Add(time.Second) // a session may be about to be
		case r.eagerly:
			due[name], e.overfull = true, false
			e.calm(now)
		default:
			due[name] = false
			e.renewal = renewal{}
		}
		if at := e.renewal.at; !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return due, next
}

// restarting says that the neighbor has not heard yet that we have restarted.
func (b *board) restarting(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.entries[name] != nil && b.entries[name].restarting
}

// comeBack makes neighbors anew that it is time for, and sets the timer for the next ones.
func (s *Speaker) comeBack(log klog.Logger, timer *time.Timer) {
	due, next := s.board.due(time.Now())
	if !next.IsZero() {
		timer.Reset(time.Until(next))
	}
	if len(due) == 0 {
		return
	}
	s.setting.Lock()
	defer s.setting.Unlock()
	for _, server := range s.servers {
		for name, eagerly := range due {
			n, ok := server.neighbors[name]
			if !ok {
				continue
			}
			if err := server.renew(n, eagerly); err != nil {
				log.V(1).Info("Connecting again", "peer", name, "reason", err.Error())
				s.board.failed(name, err.Error())
				delete(server.neighbors, name)
				s.incomplete = true
			}
		}
	}
}

// renew makes a neighbor anew that there is no session with.
func (s *server) renew(n neighbor, eagerly bool) error {
	if s.board.established(n.Name) {
		return nil
	}
	if err := s.removePeer(n); err != nil {
		return fmt.Errorf("ending the attempt: %w", err)
	}
	return s.AddPeer(s.ctx, &api.AddPeerRequest{Peer: n.gobgp(s.board.restarting(n.Name), eagerly)})
}
