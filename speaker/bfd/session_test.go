package bfd

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The rows are the local state, the columns the peer's: RFC 5880, section 6.8.6, in the place of a drawing (section 6.2).
func TestNext(t *testing.T) {
	states := []State{AdminDown, Down, Init, Up}
	table := map[State][]State{
		AdminDown: {AdminDown, AdminDown, AdminDown, AdminDown},
		Down:      {Down, Init, Up, Down},
		Init:      {Down, Init, Up, Up},
		Up:        {Down, Down, Up, Up},
	}
	for local, row := range table {
		for i, remote := range states {
			if got := next(local, remote); got != row[i] {
				t.Errorf("%s that hears %s is %s, want %s", local, remote, got, row[i])
			}
		}
	}
}

func TestJitter(t *testing.T) {
	for _, multiplier := range []uint8{1, 2, 3, 255} {
		least, most := time.Hour, time.Duration(0)
		for range 100_000 {
			got := jitter(time.Second, multiplier, rand.Float64())
			least, most = min(least, got), max(most, got)
		}
		bound := time.Second
		if multiplier == 1 {
			bound = 900 * ms
		}
		if least < 750*ms || least > 760*ms || most > bound || most < bound-10*ms {
			t.Errorf("multiplier %d: %s to %s", multiplier, least, most)
		}
	}
}

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// watched is a session in a state, whose peer 2 has been heard at t0.
func watched(state State, change ...func(*Session)) session {
	s := newSession(to(b4, change...).withDefaults(), 1, 100, t0)
	s.remote = remote{discr: 2, state: Down, desiredTx: 100 * ms, minRx: 100 * ms, multiplier: 3}
	s.heard, s.sent = t0, t0
	if state >= Init {
		s.remote.state = Init
	}
	return s.enter(state, AdministrativelyDown, t0).settled()
}

// settled has no poll under way.
func (s session) settled() session {
	s.polling = false
	s.tx, s.rx = s.desiredTx, s.requiredRx
	return s
}

func peerSays(state State, change ...func(*control)) control {
	c := control{state: state, multiplier: 3, myDiscr: 2, yourDiscr: 1, desiredTx: 100 * ms, requiredRx: 100 * ms}
	for _, f := range change {
		f(&c)
	}
	return c
}

func fromPeer(data []byte) *packet { return &packet{data: data, from: b4, to: a4, ttl: 255} }

// Each state × what is received, with the packet that follows.
func TestReceive(t *testing.T) {
	type outcome struct {
		state State
		diag  Diag
		told  bool // the peer is told at once
	}
	none := NoDiagnostic
	table := map[State]map[State]outcome{
		AdminDown: {
			AdminDown: {AdminDown, AdministrativelyDown, false}, Down: {AdminDown, AdministrativelyDown, false},
			Init: {AdminDown, AdministrativelyDown, false}, Up: {AdminDown, AdministrativelyDown, false},
		},
		Down: {
			AdminDown: {Down, AdministrativelyDown, false}, Down: {Init, AdministrativelyDown, true},
			Init: {Up, none, true}, Up: {Down, AdministrativelyDown, false},
		},
		Init: {
			AdminDown: {Down, NeighborSignaledDown, true}, Down: {Init, none, false}, Init: {Up, none, true}, Up: {Up, none, true},
		},
		Up: {
			AdminDown: {Down, NeighborSignaledDown, true}, Down: {Down, NeighborSignaledDown, true}, Init: {Up, none, false}, Up: {Up, none, false},
		},
	}
	for local, row := range table {
		for remote, want := range row {
			before := watched(local)
			if local == Down {
				before.diag = AdministrativelyDown // any
			}
			after, poll, reason := before.take(fromPeer(nil), peerSays(remote), t0.Add(50*ms))
			got := outcome{after.state, after.diag, after.message() != before.message()}
			if got != want || poll {
				t.Errorf("%s that hears %s: %v, want %v", local, remote, got, want)
			}
			if (reason == SessionAdminDown) != (local == AdminDown) {
				t.Errorf("%s that hears %s: reason %q", local, remote, reason)
			}
			if !after.heard.Equal(t0.Add(50*ms)) || after.remote.state != remote {
				t.Errorf("%s that hears %s has not noted it", local, remote)
			}
			if (after.state != before.state) != after.since.After(before.since) {
				t.Errorf("%s that hears %s is %s since %s", local, remote, after.state, after.since)
			}
		}
	}
}

func TestExpire(t *testing.T) {
	want := map[State]struct {
		state State
		diag  Diag
	}{AdminDown: {AdminDown, AdministrativelyDown}, Down: {Down, NoDiagnostic}, Init: {Down, DetectionTimeExpired}, Up: {Down, DetectionTimeExpired}}
	for state, want := range want {
		s := watched(state)
		if early := s.expire(t0.Add(300*ms - 1)); early != s {
			t.Errorf("%s: expired early: %+v", state, early)
		}
		after := s.expire(t0.Add(300 * ms))
		if after.state != want.state || after.diag != want.diag || after.remote != nobody {
			t.Errorf("%s: %s %s, remote %+v", state, after.state, after.diag, after.remote)
		}
		if again := after.expire(t0.Add(time.Hour)); again != after {
			t.Errorf("%s: expired again", state)
		}
	}
}

// The detection time is the peer's multiplier and the slower of its and our interval (RFC 5880, section 6.8.4).
func TestDetectionTime(t *testing.T) {
	tests := []struct {
		multiplier uint8
		tx, rx     time.Duration
		want       time.Duration
	}{
		{3, 100 * ms, 100 * ms, 300 * ms},
		{3, 50 * ms, 100 * ms, 300 * ms},
		{5, 400 * ms, 100 * ms, 2 * time.Second},
		{1, 0, 10 * ms, 10 * ms},
	}
	for _, tt := range tests {
		s := watched(Up, func(s *Session) { s.Receive = tt.rx; s.Multiplier = 77 })
		s = s.receive(peerSays(Up, func(c *control) { c.multiplier, c.desiredTx = tt.multiplier, tt.tx }), t0)
		if got := s.detection(); got != tt.want {
			t.Errorf("%+v: %s", tt, got)
		}
	}
}

func TestPollAndFinal(t *testing.T) {
	change := func(s session, f func(*Session)) session {
		settings := s.Session
		f(&settings)
		return s.configure(settings, t0)
	}
	final := peerSays(Up, func(c *control) { c.final = true })
	type timing struct {
		polling      bool
		tx, rx       time.Duration // in use
		toldT, toldR time.Duration
	}
	of := func(s session) timing { return timing{s.polling, s.tx, s.rx, s.desiredTx, s.requiredRx} }
	tests := []struct {
		name          string
		change        func(*Session)
		before, after timing // the answer to the poll
	}{
		{"nothing", func(*Session) {}, timing{false, 100 * ms, 100 * ms, 100 * ms, 100 * ms}, timing{false, 100 * ms, 100 * ms, 100 * ms, 100 * ms}},
		{"send less: after the answer", func(s *Session) { s.Transmit = time.Second },
			timing{true, 100 * ms, 100 * ms, time.Second, 100 * ms}, timing{false, time.Second, 100 * ms, time.Second, 100 * ms}},
		{"send more: at once", func(s *Session) { s.Transmit = 50 * ms },
			timing{true, 50 * ms, 100 * ms, 50 * ms, 100 * ms}, timing{false, 50 * ms, 100 * ms, 50 * ms, 100 * ms}},
		{"receive less: at once", func(s *Session) { s.Receive = time.Second },
			timing{true, 100 * ms, time.Second, 100 * ms, time.Second}, timing{false, 100 * ms, time.Second, 100 * ms, time.Second}},
		{"receive more: after the answer", func(s *Session) { s.Receive = 50 * ms },
			timing{true, 100 * ms, 100 * ms, 100 * ms, 50 * ms}, timing{false, 100 * ms, 50 * ms, 100 * ms, 50 * ms}},
		{"multiplier: no poll", func(s *Session) { s.Multiplier = 9 },
			timing{false, 100 * ms, 100 * ms, 100 * ms, 100 * ms}, timing{false, 100 * ms, 100 * ms, 100 * ms, 100 * ms}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := change(watched(Up), tt.change)
			if got := of(s); got != tt.before {
				t.Errorf("before: %+v, want %+v", got, tt.before)
			}
			if got := of(s.receive(peerSays(Up), t0)); got != tt.before {
				t.Errorf("after a packet that is no answer: %+v, want %+v", got, tt.before)
			}
			if got := of(s.receive(final, t0)); got != tt.after {
				t.Errorf("after: %+v, want %+v", got, tt.after)
			}
			if s.state != Up {
				t.Error("not Up any more")
			}
		})
	}
	t.Run("a change during a poll waits, and is polled for in turn", func(t *testing.T) {
		s := change(watched(Up), func(s *Session) { s.Transmit = time.Second })
		s = change(s, func(s *Session) { s.Transmit = 2 * time.Second })
		for i, want := range []timing{
			{true, 100 * ms, 100 * ms, time.Second, 100 * ms},
			{true, time.Second, 100 * ms, 2 * time.Second, 100 * ms},
			{false, 2 * time.Second, 100 * ms, 2 * time.Second, 100 * ms},
		} {
			if got := of(s); got != want {
				t.Errorf("%d: %+v, want %+v", i, got, want)
			}
			s = s.receive(final, t0)
		}
	})
	t.Run("an answer to nothing", func(t *testing.T) {
		if got := of(watched(Up).receive(final, t0)); got != (timing{false, 100 * ms, 100 * ms, 100 * ms, 100 * ms}) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("Down to Up: fast at once, and polled for", func(t *testing.T) {
		s := watched(Down)
		if s.tx != time.Second {
			t.Errorf("Down sends every %s", s.tx)
		}
		if got := of(s.receive(peerSays(Init), t0)); got != (timing{true, 100 * ms, 100 * ms, 100 * ms, 100 * ms}) {
			t.Errorf("%+v", got)
		}
	})
	t.Run("Up to Down: slow at once", func(t *testing.T) {
		if got := watched(Up).receive(peerSays(Down), t0); got.tx != time.Second || got.desiredTx != time.Second {
			t.Errorf("%+v", of(got))
		}
	})
	for _, state := range []State{Down, Init, Up} {
		t.Run(fmt.Sprintf("a poll is answered in %s", state), func(t *testing.T) {
			_, poll, _ := watched(state).take(fromPeer(nil), peerSays(state, func(c *control) { c.poll = true }), t0)
			if !poll {
				t.Error("not answered")
			}
		})
	}
}

// When the peer asks for packets more often, it is not kept waiting for the old interval (RFC 5880, section 6.8.3).
func TestPeerAsksForMore(t *testing.T) {
	s := watched(Up)
	s = s.receive(peerSays(Up, func(c *control) { c.requiredRx = 10 * time.Second }), t0).transmitted(t0, 1)
	if got := s.due().Sub(t0); got != 10*time.Second {
		t.Errorf("due after %s", got)
	}
	s = s.receive(peerSays(Up, func(c *control) { c.requiredRx = 10 * ms }), t0)
	if got := s.due().Sub(t0); got != 100*ms {
		t.Errorf("due after %s", got)
	}
}

func TestSpeaks(t *testing.T) {
	passive := func(s *Session) { s.Passive = true }
	tests := []struct {
		name string
		s    session
		want bool
	}{
		{"active, nobody heard", watched(Up).expire(t0.Add(time.Hour)), true},
		{"passive, nobody heard", watched(Up, passive).expire(t0.Add(time.Hour)), false},
		{"passive", watched(Down, passive), true},
		{"the peer takes none", watched(Up).receive(peerSays(Up, func(c *control) { c.requiredRx = 0 }), t0), false},
		{"demand mode", watched(Up).receive(peerSays(Up, demand), t0), false},
		{"demand mode, but the peer is not Up", watched(Up).receive(peerSays(Init, demand), t0), true},
		{"demand mode, with a poll of ours", watched(Up).receive(peerSays(Up, demand), t0).configure(Session{Transmit: 50 * ms, Receive: 50 * ms}, t0), true},
	}
	for _, tt := range tests {
		if got := tt.s.speaks(); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}

func demand(c *control) { c.demand = true }

// Of the rules for a packet that is for the session by its discriminator. The others are in the table of spoofs.
func TestPath(t *testing.T) {
	bound := func(s *Session) { s.Local, s.Interface = a4, "eth0" }
	several := func(s *Session) { s.MultiHop, s.MinTTL = true, 250 }
	tests := []struct {
		name   string
		change func(*Session)
		packet packet
		want   Reason
	}{
		{"of the peer", bound, packet{from: b4, to: a4, index: 7, ttl: 255}, ""},
		{"another sender", bound, packet{from: a4, to: a4, index: 7, ttl: 255}, WrongPath},
		{"another address of ours", bound, packet{from: b4, to: b4, index: 7, ttl: 255}, WrongPath},
		{"another interface", bound, packet{from: b4, to: a4, index: 8, ttl: 255}, WrongPath},
		{"on the port of several hops", bound, packet{from: b4, to: a4, index: 7, ttl: 255, multiHop: true}, WrongPath},
		{"TTL 254", bound, packet{from: b4, to: a4, index: 7, ttl: 254}, LowTTL},
		{"several hops", several, packet{from: b4, to: a4, ttl: 250, multiHop: true}, ""},
		{"too many hops", several, packet{from: b4, to: a4, ttl: 249, multiHop: true}, LowTTL},
		{"on the port of one hop", several, packet{from: b4, to: a4, ttl: 255}, WrongPath},
		{"the default of several hops", func(s *Session) { s.MultiHop = true }, packet{from: b4, to: a4, ttl: 253, multiHop: true}, LowTTL},
		{"any TTL", func(s *Session) { s.MultiHop, s.MinTTL = true, 1 }, packet{from: b4, to: a4, ttl: 1, multiHop: true}, ""},
		{"unknown TTL", func(s *Session) { s.MultiHop, s.MinTTL = true, 1 }, packet{from: b4, to: a4, multiHop: true}, LowTTL},
	}
	for _, tt := range tests {
		s := watched(Up, tt.change)
		s.index = 7
		after, _, got := s.take(&tt.packet, peerSays(Down), t0)
		if got != tt.want || got != "" && after != s {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestAuthentication(t *testing.T) {
	type step struct {
		name     string
		key      Auth
		sequence uint32
		after    time.Duration // since t0
		want     Reason
	}
	key := Auth{MeticulousKeyedSHA1, 1, "secret"}
	next := Auth{MeticulousKeyedSHA1, 2, "new secret"}
	keyed := Auth{KeyedSHA1, 1, "secret"}
	tests := []struct {
		name         string
		auth, accept Auth
		steps        []step
	}{
		{"meticulous", key, Auth{}, []step{
			{"the first is any", key, 4_000_000_000, 0, ""},
			{"replay", key, 4_000_000_000, 0, AuthSequence},
			{"next", key, 4_000_000_001, 0, ""},
			{"with a gap", key, 4_000_000_010, 0, ""},
			{"too far", key, 4_000_000_020, 0, AuthSequence},
			{"back", key, 4_000_000_009, 0, AuthSequence},
			{"wrong key", Auth{key.Type, key.ID, "guess"}, 4_000_000_011, 0, AuthDigest},
			{"which has not moved the window", key, 4_000_000_011, 0, ""},
			{"twice the detection time later, not yet", key, 5, 599 * ms, AuthSequence},
			{"twice the detection time later: the peer has restarted", key, 5, 600 * ms, ""},
			{"and its old packets count no more", key, 4_000_000_012, 600 * ms, AuthSequence},
		}},
		{"keyed", keyed, Auth{}, []step{
			{"the first is any", keyed, 7, 0, ""},
			{"replay", keyed, 7, 0, ""},
			{"back", keyed, 6, 0, AuthSequence},
			{"with a gap", keyed, 16, 0, ""},
			{"another type", key, 17, 0, AuthUnknownKey},
		}},
		{"two keys", key, next, []step{
			{"the old", key, 7, 0, ""},
			{"the new", next, 8, 0, ""},
			{"the old again", key, 9, 0, ""},
			{"the new ID with the old key", Auth{next.Type, next.ID, key.Key}, 10, 0, AuthDigest},
			{"a third", Auth{next.Type, 3, key.Key}, 10, 0, AuthUnknownKey},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := watched(Up, func(s *Session) { s.Auth, s.AlsoAccept = tt.auth, tt.accept })
			for _, step := range tt.steps {
				c := peerSays(Up)
				c.auth = section{kind: step.key.Type, keyID: step.key.ID, sequence: step.sequence}
				data := c.marshal(nil)
				sign(data, step.key.Key)
				c, _ = parse(data)
				after, _, got := s.take(fromPeer(data), c, t0.Add(step.after))
				if got != step.want || got != "" && after != s {
					t.Fatalf("%s: %q, want %q", step.name, got, step.want)
				}
				s = after
			}
		})
	}
}

// A spoofed or malformed packet has no effect but that it is counted.
func TestSpoofsInMemory(t *testing.T) {
	run := func(t *testing.T, list []spoof, change func(*Session)) {
		for _, tt := range list {
			t.Run(tt.name, func(t *testing.T) {
				bubble(t, func(t *testing.T, n *lan) {
					a, b := pair(t, n, change)
					time.Sleep(100 * ms)
					before := n.take(b4)
					live := before[len(before)-1].data
					p := packet{data: tt.edit(live), from: b4, to: a4, ttl: tt.hops()}
					if tt.stranger {
						p.from = a6
					}
					a.host.deliver(p)
					expectEvents(t, a)
					for i, reason := range reasons {
						want := uint64(0)
						if reason == tt.reason {
							want = 1
						}
						if got := a.counters.dropped[i].Load(); got != want {
							t.Errorf("%s counted %d times", reason, got)
						}
					}
					time.Sleep(5 * time.Second)
					expectEvents(t, a)
					expectEvents(t, b)
				})
			})
		}
	}
	t.Run("without authentication", func(t *testing.T) { run(t, spoofs, func(*Session) {}) })
	t.Run("signed", func(t *testing.T) { run(t, signedSpoofs, signed5) })
}

// Keys are changed on both sides, one after the other, and nothing is lost.
func TestKeyRotation(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n, signed5)
		old, fresh := Auth{MeticulousKeyedSHA1, 1, "secret"}, Auth{MeticulousKeyedSHA1, 2, "new secret"}
		for _, step := range []struct{ auth, also Auth }{{old, fresh}, {fresh, old}, {fresh, Auth{}}} {
			for _, s := range []*side{a, b} {
				peer := b4
				if s == b {
					peer = a4
				}
				if err := s.Set([]Session{to(peer, func(s *Session) { s.Auth, s.AlsoAccept = step.auth, step.also })}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
		}
		expectEvents(t, a)
		expectEvents(t, b)
		for i, reason := range reasons {
			if got := a.counters.dropped[i].Load(); got > 0 {
				t.Errorf("%d dropped: %s", got, reason)
			}
		}
	})
}

// A peer that asks for demand mode is sent nothing but answers.
func TestPeerInDemandMode(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n, func(s *Session) { s.Multiplier = 50 }) // b, who knows nothing of it, is to be patient
		n.setWire(func(p *packet) *packet {
			if p.from == b4 {
				p.data[1] |= demandBit
			}
			return p
		})
		time.Sleep(time.Second)
		n.take()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if sent := n.take(a4); len(sent) != 0 {
			t.Errorf("sent\n%s", lines(sent))
		}
		b.Set([]Session{to(a4, func(s *Session) { s.Multiplier, s.Transmit = 50, 200*ms })})
		synctest.Wait()
		if diff := cmp.Diff("192.0.2.1 Up final tx=100ms rx=100ms ×50", lines(n.take(a4))); diff != "" {
			t.Error(diff)
		}
		expectEvents(t, a)
		expectEvents(t, b)
	})
}

// Whatever comes, a session keeps its promises.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, control{state: Up, multiplier: 3, myDiscr: 2, yourDiscr: 1}.marshal(nil))
	f.Fuzz(func(t *testing.T, script, data []byte) {
		c, reason := parse(data)
		if reason != "" {
			c = peerSays(Up)
		}
		now := t0
		s := watched(Down)
		for i, b := range script {
			now = now.Add(time.Duration(b) * ms)
			before := s
			switch b % 8 {
			case 0:
				s = s.expire(now)
			case 1:
				s = s.transmitted(now, float64(b)/256)
			case 2:
				settings := s.Session
				settings.Transmit, settings.Receive = time.Duration(b+10)*ms, time.Duration(256-int(b)+10)*ms
				settings.AdminDown = b > 200
				s = s.configure(settings, now)
			default:
				c.state, c.final, c.poll = State(b>>3)&3, b&32 != 0, b&64 != 0
				if len(data) > 0 {
					c.requiredRx = time.Duration(data[i%len(data)]) * 10 * ms
				}
				var poll bool
				s, poll, reason = s.take(fromPeer(nil), c, now)
				if reason != "" && reason != SessionAdminDown && s != before {
					t.Fatalf("%s, and yet it changed", reason)
				}
				if poll && (s.state == AdminDown || !c.poll) {
					t.Fatal("answers a poll")
				}
			}
			if s.state != Up && (s.desiredTx < slow || s.tx < slow) {
				t.Fatalf("%s sends every %s", s.state, s.tx)
			}
			if s.state == AdminDown != s.AdminDown {
				t.Fatalf("%s, AdminDown %t", s.state, s.AdminDown)
			}
			if s.tx > s.desiredTx || s.rx < s.requiredRx {
				t.Fatalf("sends every %s after telling %s; takes %s after telling %s", s.tx, s.desiredTx, s.rx, s.requiredRx)
			}
			if s.state >= Init && s.remote.discr == 0 {
				t.Fatalf("%s without a peer", s.state)
			}
			if wait := s.due().Sub(s.sent); wait < 7*ms {
				t.Fatalf("sends again after %s", wait)
			}
			if state := s.message().state; state != s.state {
				t.Fatalf("tells %s", state)
			}
		}
	})
}
