package bfd

import (
	"net/netip"
	"time"
)

// slow is the least transmit interval of a session that is not Up (RFC 5880, section 6.8.3).
const slow = time.Second

// next is the state of a session that hears a packet of a peer in state remote (RFC 5880, sections 6.2 and 6.8.6).
func next(local, remote State) State {
	switch {
	case local == AdminDown:
		return AdminDown
	case remote == AdminDown:
		return Down
	case local == Down && remote == Down:
		return Init
	case local == Down && remote == Init:
		return Up
	case local == Init && remote != Down:
		return Up
	case local == Up && remote == Down:
		return Down
	}
	return local
}

// jitter is the interval less a part of it, which r, from 0 to 1, chooses: up to 25 %. When one lost packet is enough for
// the peer to give up, at least 10 % (RFC 5880, section 6.8.7).
func jitter(interval time.Duration, multiplier uint8, r float64) time.Duration {
	least, most := 0.75, 1.0
	if multiplier == 1 {
		most = 0.9
	}
	return time.Duration(float64(interval) * (least + r*(most-least)))
}

// session is the state of RFC 5880, section 6.8.1. It is a value: reception and the passing of time make a new one.
type session struct {
	Session // with defaults in the place of zeros

	index  int // of the interface that the session is bound to
	discr  uint32
	state  State
	diag   Diag
	since  time.Time
	remote remote

	// What the peer has been told, and what is in use: the latter follows when the peer is known to have heard it.
	desiredTx, requiredRx time.Duration
	tx, rx                time.Duration
	polling               bool

	// farewell is how many packets are still to be sent at the pace of the session that was, so that the peer hears of
	// AdminDown before it misses us.
	farewell uint8
	pace     time.Duration

	heard, sent time.Time
	spread      float64 // from 0 to 1: the jitter of the next packet

	sequence      uint32
	heardSequence uint32
	sequenceUntil time.Time // until when heardSequence counts
}

// remote is what the peer says of itself. Its discriminator is 0 when it is not known, or not any more.
type remote struct {
	discr      uint32
	state      State
	diag       Diag
	desiredTx  time.Duration
	minRx      time.Duration
	multiplier uint8
	demand     bool
}

var nobody = remote{state: Down, minRx: time.Microsecond}

// packet is a datagram that came to a BFD port.
type packet struct {
	data     []byte
	from, to netip.Addr
	index    int // of the interface it came by
	ttl      int
	multiHop bool
}

func newSession(s Session, discr, sequence uint32, now time.Time) session {
	fresh := session{discr: discr, sequence: sequence, state: Down, since: now, remote: nobody}
	return fresh.configure(s, now)
}

// configure changes the settings. The peer is told of new intervals by a poll sequence, and the session stays Up.
func (s session) configure(settings Session, now time.Time) session {
	s.Session = settings
	switch {
	case s.AdminDown && s.state != AdminDown:
		return s.disable(now)
	case !s.AdminDown && s.state == AdminDown:
		s.farewell = 0
		return s.enter(Down, NoDiagnostic, now)
	}
	return s.retime()
}

// disable makes the session AdminDown. The peer is to hear of it for at least a detection time (RFC 5880, section 6.8.16).
//
// To the letter of section 6.8.3, all but the first of these packets would wait for a second; then one loss would make the
// peer take for a failure what is none. So the interval stays, as it does in other cases, until the peer has heard of it.
func (s session) disable(now time.Time) session {
	if s.state == Init || s.state == Up {
		s.farewell, s.pace = s.Multiplier, s.interval()
	}
	return s.enter(AdminDown, AdministrativelyDown, now)
}

func (s session) enter(state State, diag Diag, now time.Time) session {
	if state == s.state {
		return s
	}
	s.state, s.since = state, now
	switch state {
	case Up:
		s.diag = NoDiagnostic
		s.polling = false // what was polled for in another state is void
	case Down, AdminDown:
		s.diag = diag
	}
	return s.retime()
}

// retime tells the peer of intervals that have changed, by a poll sequence (RFC 5880, section 6.8.3).
func (s session) retime() session {
	tx, rx := s.Transmit, s.Receive
	if s.state != Up {
		tx = max(tx, slow)
	}
	if tx == s.desiredTx && rx == s.requiredRx {
		return s
	}
	if s.state == Up && s.polling {
		return s // the answer would not say to which of the two changes
	}
	s.desiredTx, s.requiredRx = tx, rx
	s.polling = s.remote.discr != 0
	if s.state != Up || !s.polling {
		s.tx, s.rx = tx, rx
		return s
	}
	// Sending more often and waiting longer do no harm before the peer knows.
	s.tx, s.rx = min(s.tx, tx), max(s.rx, rx)
	return s
}

// take is the reception of a packet that is for this session, by its discriminator or its addresses: the part of the rules
// of RFC 5880, section 6.8.6, that needs the session. A poll is to be answered. A packet that there is a reason against has
// changed nothing, unless the reason is SessionAdminDown.
func (s session) take(p *packet, c control, now time.Time) (after session, poll bool, dropped Reason) {
	if !s.onPath(p) {
		return s, false, WrongPath
	}
	if p.ttl < s.leastTTL() {
		return s, false, LowTTL
	}
	if reason := s.authenticate(c, p.data, now); reason != "" {
		return s, false, reason
	}
	s = s.receive(c, now)
	if s.state == AdminDown {
		return s, false, SessionAdminDown
	}
	return s, c.poll, ""
}

func (s session) onPath(p *packet) bool {
	return p.from == s.Peer && p.multiHop == s.MultiHop &&
		(!s.Local.IsValid() || p.to == s.Local) && (s.Interface == "" || p.index == s.index)
}

func (s session) leastTTL() int {
	if s.MultiHop {
		return int(s.MinTTL)
	}
	return 255
}

func (s session) authenticate(c control, data []byte, now time.Time) Reason {
	switch {
	case s.Auth.Type == NoAuth && c.auth.kind == NoAuth:
		return ""
	case s.Auth.Type == NoAuth:
		return AuthUnexpected
	case c.auth.kind == NoAuth:
		return AuthMissing
	}
	key := s.Auth
	if key.Type != c.auth.kind || key.ID != c.auth.keyID {
		key = s.AlsoAccept
	}
	if key.Type != c.auth.kind || key.ID != c.auth.keyID {
		return AuthUnknownKey
	}
	if now.Before(s.sequenceUntil) && !inWindow(c.auth.kind, s.heardSequence, c.auth.sequence, c.multiplier) {
		return AuthSequence
	}
	if !signed(data, key.Key) {
		return AuthDigest
	}
	return ""
}

// receive is the reception of a packet that is in order.
func (s session) receive(c control, now time.Time) session {
	s.heard = now
	s.remote = remote{c.myDiscr, c.state, c.diag, c.desiredTx, c.requiredRx, c.multiplier, c.demand}
	if c.final && s.polling {
		s.polling = false
		s.tx, s.rx = s.desiredTx, s.requiredRx
		s = s.retime()
	}
	if !s.unheard() {
		s.farewell = 0
	}
	s = s.enter(next(s.state, c.state), NeighborSignaledDown, now)
	if c.auth.kind != NoAuth {
		s.heardSequence = c.auth.sequence
		s.sequenceUntil = now.Add(2 * s.detection()) // bfd.AuthSeqKnown of RFC 5880, section 6.8.1
	}
	return s
}

// unheard says that the peer has not yet heard that this side has left Init or Up.
func (s session) unheard() bool { return s.remote.state == Init || s.remote.state == Up }

// expire is the passing of the detection time (RFC 5880, sections 6.8.1 and 6.8.4), if it has passed.
func (s session) expire(now time.Time) session {
	if s.remote.discr == 0 || now.Before(s.expiry()) {
		return s
	}
	s.remote, s.polling, s.farewell = nobody, false, 0
	s.tx, s.rx = s.desiredTx, s.requiredRx
	if s.state == Init || s.state == Up {
		return s.enter(Down, DetectionTimeExpired, now)
	}
	return s.retime()
}

func (s session) expiry() time.Time { return s.heard.Add(s.detection()) }

// detection is the time without a packet after which the peer is taken for gone (RFC 5880, section 6.8.4).
func (s session) detection() time.Duration {
	return time.Duration(s.remote.multiplier) * max(s.rx, s.remote.desiredTx)
}

// interval is the time from one packet to the next, before jitter (RFC 5880, section 6.8.2).
func (s session) interval() time.Duration {
	if s.farewell > 0 {
		return s.pace
	}
	return max(s.tx, s.remote.minRx)
}

// due is when to send the next periodic packet, if that is permitted by then.
func (s session) due() time.Time { return s.sent.Add(jitter(s.interval(), s.Multiplier, s.spread)) }

// deadline is when something happens next unless a packet comes before.
func (s session) deadline() time.Time {
	due := s.due()
	if s.remote.discr != 0 && s.expiry().Before(due) {
		return s.expiry()
	}
	return due
}

// speaks says whether packets may be sent, other than answers to polls (RFC 5880, section 6.8.7).
func (s session) speaks() bool {
	switch {
	case s.Passive && s.remote.discr == 0:
		return false
	case s.remote.minRx == 0:
		return false
	case s.remote.demand && s.state == Up && s.remote.state == Up:
		return s.polling // the peer asks when it wants to know
	}
	return true
}

// transmitted is the session after a packet that was not an answer to a poll; r, from 0 to 1, is the jitter of the next one.
func (s session) transmitted(now time.Time, r float64) session {
	s.sent, s.spread = now, r
	if s.farewell > 0 {
		s.farewell--
	}
	return s
}

// message is the packet to send (RFC 5880, section 6.8.7). When it changes, the peer is told before it is time. Whether it
// is a poll or answers one is for the sender to add, and does not count as a change.
func (s session) message() control {
	diag := s.diag
	if s.state == Up && s.ConcatenatedDown {
		diag = ConcatenatedPathDown
	}
	return control{
		diag:       diag,
		state:      s.state,
		multiplier: s.Multiplier,
		myDiscr:    s.discr,
		yourDiscr:  s.remote.discr,
		desiredTx:  s.desiredTx,
		requiredRx: s.requiredRx,
		auth:       section{kind: s.Auth.Type, keyID: s.Auth.ID},
	}
}
