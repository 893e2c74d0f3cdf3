package speaker

import (
	"time"

	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/l2"
)

const (
	// grace is how long a session may take to come up: a packet a second is sent until then (RFC 5880, section 6.8.3).
	grace = 3500 * time.Millisecond
	// linger is how long a session is kept that no address needs any more. By then the other side does not need it either,
	// and does not take its end for a word about addresses.
	linger = 5 * time.Second
	// Speakers that are not heard are asked for on the network each askAbsent. One that has not answered for the time of
	// presence is absent, and the first answer then means that the network is whole again.
	askAbsent = 100 * time.Millisecond
	presence  = 500 * time.Millisecond
)

// life is what is known of another speaker. The zero value is alive: as long as nothing speaks against it, it is the
// controller that takes a dead one off the candidates, by its Lease.
type life struct {
	// lost: it has fallen silent; maybe only on the way to here. gone: it must not serve, and says so, or it is listed no
	// more.
	lost, gone bool
	// how it went, to go on a sentence about it.
	how string
}

func (l life) alive() bool { return !l.lost && !l.gone }

func (l life) String() string {
	if l.how == "" {
		return "which lives"
	}
	return l.how
}

// watch has a path to another speaker watched.
func (c *course) watch(path bfd.Path, node string) {
	if c.Watch == nil || c.sessions[path] {
		return
	}
	c.sessions[path] = true
	c.Nodes[path] = node
	c.Sessions = append(c.Sessions, c.session(path))
}

func (c *course) session(path bfd.Path) bfd.Session {
	return bfd.Session{
		Path: path, Transmit: c.Watch.Interval, Receive: c.Watch.Interval, Multiplier: c.Watch.Multiplier,
		Auth: c.Watch.Auth, AlsoAccept: c.Watch.AlsoAccept, AdminDown: c.Unfit != "",
	}
}

// linger keeps sessions for a while that were needed before.
func (c *course) linger() {
	if c.Watch == nil {
		return
	}
	for _, before := range c.Before.Sessions {
		if c.sessions[before.Path] || c.Before.Nodes[before.Path] == "" {
			continue // needed, or with a router
		}
		until, lingering := c.Before.Lingering[before.Path]
		if !lingering {
			until = c.Now.Add(linger)
		}
		if !c.Now.Before(until) {
			continue
		}
		c.Lingering[before.Path] = until
		c.Nodes[before.Path] = c.Before.Nodes[before.Path]
		c.Sessions = append(c.Sessions, c.session(before.Path))
		c.again(until)
	}
}

// lifeOf is what a session says of the other speaker.
func (c *course) lifeOf(path bfd.Path) life {
	status, ok := c.States[path]
	switch {
	case !ok || c.Watch == nil || status.State == bfd.Up || status.State == bfd.AdminDown:
		return life{}
	case status.RemoteState == bfd.AdminDown:
		return life{gone: true, how: "which said that it must not serve (BFD AdminDown)"}
	case status.Diag == bfd.NoDiagnostic || status.Diag == bfd.AdministrativelyDown:
		if until := status.Time.Add(grace); c.Now.Before(until) {
			c.again(until)
			return life{}
		}
		return life{lost: true, how: "which has not been heard (BFD)"}
	}
	return life{lost: true, how: "which was lost (BFD " + status.Diag.String() + ")"}
}

// refuses reports whether the other speaker says that it cannot serve some address of this session's.
func (c *course) refuses(path bfd.Path) bool {
	status := c.States[path]
	return status.State == bfd.Up && status.RemoteDiag == bfd.ConcatenatedPathDown
}

// watchAbsent asks the network for the other candidates that are not heard. When one is back that was absent, there may be
// two owners, and both are to hear of each other at once, not when their session is up again.
func (c *course) watchAbsent(p *place) {
	for _, o := range p.peers {
		if c.Watch == nil || !o.path.Peer.IsValid() || c.Up[o.addr] || o.life.gone {
			continue
		}
		c.Questions = append(c.Questions, l2.Question{Addr: o.addr, Interface: o.path.Interface, Every: askAbsent})
		if !c.back[o.addr] && (c.Before.Absent[o.addr] || c.silent(o)) {
			c.Absent[o.addr] = true
		}
		if !c.Before.Absent[o.addr] {
			c.again(c.Now.Add(presence))
		}
	}
}

// askHosts asks the network for the hosts of candidates that are lost: whether it is their speakers alone.
func (c *course) askHosts(p *place, role Role) {
	for _, o := range p.peers {
		if o.life.lost && o.path.Peer.IsValid() && c.Watch != nil {
			c.Questions = append(c.Questions, l2.Question{Addr: o.addr, Interface: o.path.Interface, Every: askAbsent, Round: role.Asks})
		}
	}
}

// silent says whether nothing has been heard of a speaker's host since its session went, or not of late.
func (c *course) silent(o peer) bool {
	for _, claim := range c.Claims[o.addr] {
		if c.Now.Sub(claim.Time) < presence && claim.Time.After(c.States[o.path].Time) {
			return false
		}
	}
	return true
}
