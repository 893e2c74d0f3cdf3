package bfd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/internal/netlab"
)

func TestMain(m *testing.M) {
	netlab.Sweep(kind)
	goleak.VerifyTestMain(m)
}

var (
	a4, b4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

const ms = time.Millisecond

// side is a running Watcher on a network in memory.
type side struct {
	*Watcher
	*host
	events *record
	stop   func()
}

// record keeps events.
type record struct {
	mu  sync.Mutex
	all []Event
	// onEvent is called in Notify.
	onEvent func(Event)
}

func (r *record) add(e Event) {
	r.mu.Lock()
	r.all = append(r.all, e)
	onEvent := r.onEvent
	r.mu.Unlock()
	if onEvent != nil {
		onEvent(e)
	}
}

// take returns the events since it was last asked, as text.
func (r *record) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []string
	for _, e := range r.all {
		if e.State != Init { // who of the two goes through it is chance
			all = append(all, describe(e))
		}
	}
	r.all = nil
	return strings.Join(all, "\n")
}

// anyBefore says whether there was an event before a time.
func (r *record) anyBefore(t time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.all, func(e Event) bool { return e.Time.Before(t) })
}

func describe(e Event) string {
	s := e.State.String()
	if e.State == Up {
		return s
	}
	if e.Diag != NoDiagnostic {
		s += " " + e.Diag.String()
	}
	return s + ", peer " + e.RemoteState.String()
}

// start runs a Watcher at an address. It is stopped at the end of the bubble's test.
func start(t *testing.T, n *lan, addr netip.Addr, sessions ...Session) *side {
	t.Helper()
	s := &side{host: n.host(addr), events: &record{}}
	s.Watcher = New(Options{Notify: s.events.add})
	s.network = s.host
	s.realtime = func() error { return nil }
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
	done := make(chan error, 1)
	if err := s.Set(sessions); err != nil {
		t.Fatal(err)
	}
	go func() { done <- s.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
	})
	t.Cleanup(s.stop)
	synctest.Wait()
	return s
}

// bubble runs a test whose Watchers have all closed their sockets in the end.
func bubble(t *testing.T, test func(*testing.T, *lan)) {
	synctest.Test(t, func(t *testing.T) {
		n := newLAN()
		t.Cleanup(func() {
			if n.open != 0 {
				t.Errorf("%d sockets left open", n.open)
			}
		})
		test(t, n)
	})
}

func to(peer netip.Addr, change ...func(*Session)) Session {
	s := Session{Path: Path{Peer: peer}, Transmit: 100 * ms, Receive: 100 * ms}
	for _, c := range change {
		c(&s)
	}
	return s
}

// pair is two Watchers whose session is Up, and that have nothing more to tell.
func pair(t *testing.T, n *lan, change ...func(*Session)) (a, b *side) {
	t.Helper()
	a, b = start(t, n, a4, to(b4, change...)), start(t, n, b4, to(a4, change...))
	time.Sleep(5 * time.Second)
	synctest.Wait()
	for _, s := range []*side{a, b} {
		if got := s.States(); len(got) != 1 || got[0].State != Up {
			t.Fatalf("not Up: %+v", got)
		}
		s.events.take()
	}
	n.take()
	return a, b
}

func expectEvents(t *testing.T, s *side, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(strings.Join(want, "\n"), s.events.take()); diff != "" {
		t.Errorf("events of %s: %s", s.addr, diff)
	}
}

func TestUpAndNegotiation(t *testing.T) {
	tests := []struct {
		name         string
		a, b         func(*Session)
		sendA, sendB time.Duration // the interval at which they send
		detA, detB   time.Duration
	}{
		{"equal", func(s *Session) {}, func(s *Session) {}, 100 * ms, 100 * ms, 300 * ms, 300 * ms},
		{"the receiver asks for less", func(s *Session) {}, func(s *Session) { s.Receive = 500 * ms }, 500 * ms, 100 * ms, 300 * ms, 1500 * ms},
		{"the sender wants less", func(s *Session) { s.Transmit = 700 * ms }, func(s *Session) {}, 700 * ms, 100 * ms, 300 * ms, 2100 * ms},
		{"each its own", func(s *Session) { s.Transmit, s.Receive, s.Multiplier = 50*ms, 200*ms, 5 },
			func(s *Session) { s.Transmit, s.Receive, s.Multiplier = 300*ms, 60*ms, 2 }, 60 * ms, 300 * ms, 600 * ms, 300 * ms},
		{"slower than slow", func(s *Session) { s.Transmit = 3 * time.Second }, func(s *Session) {}, 3 * time.Second, 100 * ms, 300 * ms, 9 * time.Second},
		{"multiplier 1", func(s *Session) { s.Multiplier = 1 }, func(s *Session) {}, 100 * ms, 100 * ms, 300 * ms, 100 * ms},
		{"several hops", func(s *Session) { s.MultiHop = true }, func(s *Session) { s.MultiHop = true }, 100 * ms, 100 * ms, 300 * ms, 300 * ms},
		{"signed", signed5, signed5, 100 * ms, 100 * ms, 300 * ms, 300 * ms},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, n *lan) {
				a, b := start(t, n, a4, to(b4, tt.a)), start(t, n, b4, to(a4, tt.b))
				time.Sleep(20 * time.Second)
				synctest.Wait()
				expectEvents(t, b, "Up")
				n.take()
				time.Sleep(30 * time.Second)
				synctest.Wait()
				type timing struct{ send, det time.Duration }
				for _, s := range []*side{a, b} {
					want := timing{tt.sendA, tt.detA}
					if s == b {
						want = timing{tt.sendB, tt.detB}
					}
					if got := s.States()[0]; got.State != Up || (timing{got.Transmit, got.Detection}) != want {
						t.Errorf("%s: %+v, want Up, %v", s.addr, got, want)
					}
				}
				sent := n.take()
				expectGaps(t, "a", sent, a4, tt.sendA)
				expectGaps(t, "b", sent, b4, tt.sendB)
				if a.events.take(); b.events.take() != "" {
					t.Error("b has changed")
				}
			})
		})
	}
}

func signed5(s *Session) { s.Auth = Auth{Type: MeticulousKeyedSHA1, ID: 1, Key: "secret"} }

// expectGaps checks that periodic packets come at 75 to 100 % of the interval, and not always at the same.
func expectGaps(t *testing.T, name string, sent []sentPacket, from netip.Addr, interval time.Duration) {
	t.Helper()
	var last time.Time
	gaps := map[time.Duration]int{}
	for _, s := range sent {
		if s.from != from {
			continue
		}
		if gap := s.at.Sub(last); !last.IsZero() {
			gaps[gap]++
			most := interval
			if s.multiplier == 1 {
				most = interval * 9 / 10
			}
			if gap < interval*3/4 || gap > most {
				t.Errorf("%s waited %s between packets, want %s to %s", name, gap, interval*3/4, most)
			}
		}
		last = s.at
		if s.poll || s.final {
			t.Errorf("%s still negotiates: %s", name, s)
		}
	}
	if len(gaps) < 5 {
		t.Errorf("%s: %d different intervals, want jitter", name, len(gaps))
	}
}

func TestSlowWhileNotUp(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a := start(t, n, a4, to(b4))
		time.Sleep(time.Minute)
		synctest.Wait()
		sent := n.take()
		expectGaps(t, "a", sent, a4, time.Second)
		if got := sent[0].String(); got != "192.0.2.1 Down tx=1s rx=100ms ×3" {
			t.Errorf("sent %s", got)
		}
		expectEvents(t, a)
	})
}

// The peer falls silent: Down after the detection time and not before, with the diagnostic on the wire at once.
func TestDetection(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		var lastHeard time.Time
		n.setWire(func(p *packet) *packet { return nil })
		for _, s := range n.take(b4) {
			lastHeard = s.at
		}
		before := time.Now()
		time.Sleep(200 * ms) // packets are up to 100 ms old by now
		expectEvents(t, a)
		time.Sleep(100 * ms)
		expectEvents(t, a, "Down DetectionTimeExpired, peer Down")
		expectEvents(t, b, "Down DetectionTimeExpired, peer Down")
		if took := a.States()[0].Time.Sub(before); lastHeard.IsZero() && (took < 200*ms || took > 300*ms) {
			t.Errorf("detected after %s", took)
		}
		var down []sentPacket
		for _, s := range n.take(a4) {
			if s.state == Down {
				down = append(down, s)
			}
		}
		if len(down) != 1 || !down[0].at.Equal(a.States()[0].Time) || down[0].String() != "192.0.2.1 Down DetectionTimeExpired tx=1s rx=100ms ×3" {
			t.Errorf("told the peer: %v", down)
		}
		if down[0].yourDiscr != 0 {
			t.Error("a peer that is gone still has a discriminator")
		}

		n.setWire(nil)
		time.Sleep(3 * time.Second)
		expectEvents(t, a, "Up")
	})
}

// Only one direction fails: the side that still hears is told.
func TestOneWayFailure(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		n.setWire(func(p *packet) *packet {
			if p.from == a4 {
				return nil
			}
			return p
		})
		time.Sleep(400 * ms)
		expectEvents(t, b, "Down DetectionTimeExpired, peer Down")
		expectEvents(t, a, "Down NeighborSignaledDown, peer Down")
		n.setWire(nil)
		time.Sleep(4 * time.Second)
		if a.States()[0].State != Up || b.States()[0].State != Up {
			t.Errorf("not Up again: %v %v", a.States(), b.States())
		}
	})
}

func TestAdminDown(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		admin := to(b4, func(s *Session) { s.AdminDown = true })
		if err := a.Set([]Session{admin}); err != nil {
			t.Fatal(err)
		}
		expectEvents(t, a, "AdminDown AdministrativelyDown, peer Up")
		expectEvents(t, b, "Down NeighborSignaledDown, peer AdminDown")
		n.take()
		time.Sleep(30 * time.Second)
		expectEvents(t, a)
		expectEvents(t, b)
		for _, s := range n.take(a4) {
			if s.state != AdminDown || s.diag != AdministrativelyDown || s.desiredTx != time.Second {
				t.Errorf("sent %s", s)
			}
		}
		if got := b.States()[0]; got.RemoteState != AdminDown || got.RemoteDiag != AdministrativelyDown {
			t.Errorf("b knows %+v", got)
		}
		if testutil.CollectAndCount(a.Watcher, "herald_bfd_dropped_total") == 0 || a.counters.dropped[15].Load() == 0 {
			t.Error("packets to a session that is AdminDown are not counted")
		}

		if err := a.Set([]Session{to(b4)}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		expectEvents(t, a, "Down, peer Down", "Up")
		expectEvents(t, b, "Up")
	})
}

func TestConcatenatedDownIsToldAtOnceAndTheSessionStaysUp(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		for _, down := range []bool{true, false} {
			if err := a.Set([]Session{to(b4, func(s *Session) { s.ConcatenatedDown = down })}); err != nil {
				t.Fatal(err)
			}
			expectEvents(t, a)
			expectEvents(t, b, "Up")
			want := map[bool]Diag{true: ConcatenatedPathDown, false: NoDiagnostic}[down]
			if got := b.States()[0]; got.State != Up || got.RemoteState != Up || got.RemoteDiag != want {
				t.Errorf("b knows %+v", got)
			}
			time.Sleep(time.Second)
		}
	})
}

// The first packets that tell of AdminDown are lost: the peer hears of it before it misses us.
func TestAdminDownSurvivesLoss(t *testing.T) {
	for _, removed := range []bool{false, true} {
		t.Run(fmt.Sprintf("removed: %t", removed), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *lan) {
				a, b := pair(t, n)
				lost := 0
				n.setWire(func(p *packet) *packet {
					if c, _ := parse(p.data); c.state == AdminDown && lost < 2 {
						lost++
						return nil
					}
					return p
				})
				var desired []Session
				if !removed {
					desired = []Session{to(b4, func(s *Session) { s.AdminDown = true })}
				}
				if err := a.Set(desired); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
				expectEvents(t, b, "Down NeighborSignaledDown, peer AdminDown")
			})
		})
	}
}

func TestRemoval(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		if err := a.Set(nil); err != nil {
			t.Fatal(err)
		}
		if got := a.States(); len(got) != 0 {
			t.Errorf("still there: %v", got)
		}
		synctest.Wait()
		// The peer has answered the first, so that is all.
		if diff := cmp.Diff("192.0.2.1 AdminDown AdministrativelyDown poll tx=1s rx=100ms ×3", lines(n.take(a4))); diff != "" {
			t.Error(diff)
		}
		expectEvents(t, b, "Down NeighborSignaledDown, peer AdminDown")
		expectEvents(t, a)
		time.Sleep(30 * time.Second)
		expectEvents(t, b, "Down NeighborSignaledDown, peer Down") // it knows nothing any more
		if sent := n.take(a4); len(sent) != 0 {
			t.Errorf("sent after the removal:\n%s", lines(sent))
		}
		if n.hosts[a4].listening != [len(ports)]bool{} {
			t.Error("still listening")
		}
	})
}

// Nobody answers the farewell.
func TestRemovalWhenPeerIsGone(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, _ := pair(t, n)
		n.setWire(func(*packet) *packet { return nil })
		a.Set(nil)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		sent := n.take(a4)
		if len(sent) != 3 || sent[2].at.Sub(sent[0].at) > 200*ms {
			t.Errorf("sent\n%s", lines(sent))
		}
	})
}

func TestRemovedAndSetAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		n.setWire(func(*packet) *packet { return nil })
		a.Set(nil)
		n.setWire(nil)
		a.Set([]Session{to(b4)})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if a.States()[0].State != Up || b.States()[0].State != Up {
			t.Errorf("not Up: %v %v", a.States(), b.States())
		}
	})
}

func TestStopTellsPeers(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		began := time.Now()
		a.stop()
		expectEvents(t, b, "Down NeighborSignaledDown, peer AdminDown")
		if took := time.Since(began); took != 0 {
			t.Errorf("took %s", took)
		}
		n.setWire(func(*packet) *packet { return nil })
		time.Sleep(3 * time.Second)
		b.stop()
	})
}

func TestStopIsBounded(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n, func(s *Session) { s.Transmit = time.Minute })
		n.setWire(func(*packet) *packet { return nil })
		began := time.Now()
		a.stop()
		if took := time.Since(began); took > lastWords {
			t.Errorf("took %s", took)
		}
		b.stop()
	})
}

// Timers of a live session change by poll sequences, without a flap, however tight they are.
func TestTimersChangeLive(t *testing.T) {
	timers := []func(*Session){
		func(s *Session) { s.Transmit, s.Receive = time.Second, time.Second },
		func(s *Session) { s.Transmit, s.Receive = 20*ms, 20*ms },
		func(s *Session) { s.Transmit, s.Receive = 10*time.Second, 10*ms },
		func(s *Session) { s.Transmit, s.Receive = 10*ms, 10*time.Second },
		func(s *Session) { s.Transmit, s.Receive, s.Multiplier = 50*ms, 50*ms, 1 },
		func(s *Session) {},
	}
	for _, lossy := range []bool{false, true} {
		t.Run(fmt.Sprintf("every second packet is lost: %t", lossy), func(t *testing.T) {
			bubble(t, func(t *testing.T, n *lan) {
				a, b := pair(t, n)
				drop := false
				if lossy {
					n.setWire(func(p *packet) *packet {
						if p.from == a4 {
							if drop = !drop; drop {
								return nil
							}
						}
						return p
					})
					timers[4] = func(s *Session) { s.Multiplier = 3 }
				}
				for i, change := range timers {
					desired := to(b4, change)
					if err := a.Set([]Session{desired}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * time.Minute)
					synctest.Wait()
					expectEvents(t, a)
					expectEvents(t, b)
					got := a.States()[0]
					if want := max(desired.Transmit, 100*ms); got.State != Up || got.Transmit != want {
						t.Errorf("change %d: %+v, want to send every %s", i, got, want)
					}
					if want := 3 * max(desired.Receive, 100*ms); got.Detection != want {
						t.Errorf("change %d: detection time %s, want %s", i, got.Detection, want)
					}
				}
			})
		})
	}
}

// Two changes in a row: the second waits for the answer to the first.
func TestTimersChangeTwice(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		n.setWire(func(*packet) *packet { return nil })
		a.Set([]Session{to(b4, func(s *Session) { s.Transmit = 200 * ms })})
		a.Set([]Session{to(b4, func(s *Session) { s.Transmit = 5 * time.Second })})
		n.setWire(nil)
		time.Sleep(2 * time.Second)
		expectEvents(t, a)
		expectEvents(t, b)
		if got := a.States()[0]; got.Transmit != 5*time.Second {
			t.Errorf("%+v", got)
		}
		var polls []string
		for _, s := range n.take(a4) {
			if s.poll {
				polls = append(polls, s.desiredTx.String())
			}
		}
		if diff := cmp.Diff([]string{"200ms", "200ms", "5s"}, polls); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSetIsIdempotent(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		before := a.States()
		for range 100 {
			if err := a.Set([]Session{to(b4)}); err != nil {
				t.Fatal(err)
			}
		}
		expectEvents(t, a)
		expectEvents(t, b)
		if sent := n.take(); len(sent) != 0 {
			t.Errorf("sent\n%s", lines(sent))
		}
		if diff := cmp.Diff(before, a.States(), cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Error(diff)
		}
	})
}

func TestSetRefuses(t *testing.T) {
	tests := []struct {
		name    string
		session Session
		want    string
	}{
		{"no peer", Session{}, "watching invalid IP: the peer is not a unicast address without a zone"},
		{"multicast", to(netip.MustParseAddr("224.0.0.1")), "watching 224.0.0.1: the peer is not a unicast address without a zone"},
		{"mapped", to(netip.MustParseAddr("::ffff:192.0.2.1")), "watching ::ffff:192.0.2.1: the peer is not a unicast address without a zone"},
		{"zone", to(netip.MustParseAddr("fe80::1%eth0")), "watching fe80::1%eth0: the peer is not a unicast address without a zone"},
		{"link-local", to(netip.MustParseAddr("fe80::1")), "watching fe80::1: a link-local peer needs an interface"},
		{"mixed families", to(b4, func(s *Session) { s.Local = a6 }),
			"watching 192.0.2.2 from 2001:db8::1: the local address is of another family than the peer's"},
		{"fast", to(b4, func(s *Session) { s.Transmit = ms }), "watching 192.0.2.2: an interval of 1ms is not between 10ms and 1m0s"},
		{"slow", to(b4, func(s *Session) { s.Receive = time.Hour }), "watching 192.0.2.2: an interval of 1h0m0s is not between 10ms and 1m0s"},
		{"long key", to(b4, func(s *Session) { s.Auth = Auth{KeyedSHA1, 1, strings.Repeat("k", 21)} }), "watching 192.0.2.2: a key has 1 to 20 bytes"},
		{"no key", to(b4, func(s *Session) { s.Auth = Auth{Type: KeyedSHA1} }), "watching 192.0.2.2: a key has 1 to 20 bytes"},
		{"MD5", to(b4, func(s *Session) { s.Auth = Auth{3, 1, "k"} }), "watching 192.0.2.2: authentication type 3 is not offered"},
		{"key without a type", to(b4, func(s *Session) { s.Auth = Auth{Key: "k"} }), "watching 192.0.2.2: authentication type 0 is not offered"},
		{"two keys of one ID", to(b4, func(s *Session) { signed5(s); s.AlsoAccept = s.Auth }), "watching 192.0.2.2: a second key needs a first one with another ID"},
		{"long interface", to(b4, func(s *Session) { s.Interface = "abcdefghijklmnop" }), "watching 192.0.2.2 on abcdefghijklmnop: the interface's name is too long"},
		{"a path twice", to(a4, func(s *Session) { s.Transmit = time.Second }), "watching 192.0.2.1: there is another session for this path"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := New(Options{})
			err := w.Set([]Session{to(a4), tt.session})
			if err == nil || err.Error() != tt.want {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
			if len(w.desired) != 1 || w.desired[0].Peer != a4 {
				t.Errorf("the others are not kept: %v", w.desired)
			}
		})
	}
}

func TestKeyIsNotPrinted(t *testing.T) {
	s := to(b4, signed5)
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{s, s.Auth, &s, []Auth{s.Auth}} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "secret") {
				t.Errorf("%s prints the key: %s", format, text)
			}
		}
	}
}

func TestPassive(t *testing.T) {
	passive := func(s *Session) { s.Passive = true }
	bubble(t, func(t *testing.T, n *lan) {
		a, b := start(t, n, a4, to(b4, passive)), start(t, n, b4, to(a4, passive))
		time.Sleep(time.Minute)
		if sent := n.take(); len(sent) != 0 {
			t.Errorf("two passive sides said\n%s", lines(sent))
		}
		b.Set([]Session{to(a4)})
		time.Sleep(3 * time.Second)
		expectEvents(t, a, "Up")

		// The active side goes, and the passive one falls silent.
		n.setWire(func(*packet) *packet { return nil })
		time.Sleep(time.Second)
		b.Set(nil)
		time.Sleep(5 * time.Second)
		n.take()
		time.Sleep(time.Minute)
		if sent := n.take(a4); len(sent) != 0 {
			t.Errorf("a passive side that hears nothing said\n%s", lines(sent))
		}
	})
}

// The peer is killed, and starts again with another discriminator before we miss it.
func TestPeerRestarts(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		first := a.States()[0].Time
		n.setWire(func(p *packet) *packet { return nil })
		b.Set(nil)
		n.setWire(nil)
		b.Set([]Session{to(a4)})
		time.Sleep(3 * time.Second)
		expectEvents(t, a, "Down NeighborSignaledDown, peer Down", "Up")
		if got := a.States()[0].Time; !got.After(first) {
			t.Errorf("Up since %s", got)
		}
	})
}

// A thread that was late does not take packets that came in time for a failure.
func TestLateReader(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		third := netip.MustParseAddr("192.0.2.3")
		a := start(t, n, a4, to(b4), to(third))
		b, c := start(t, n, b4, to(a4, func(s *Session) { s.Multiplier = 255 })), start(t, n, third, to(a4))
		a.Set([]Session{to(b4, func(s *Session) { s.Multiplier = 255 }), to(third)})
		b.Set([]Session{to(a4)})
		time.Sleep(5 * time.Second)
		for _, s := range []*side{a, b, c} {
			s.events.take()
		}
		// The loop of a is stuck for ten detection times, while b's packets wait to be read.
		a.events.onEvent = func(Event) { time.Sleep(3 * time.Second) }
		c.Set(nil)
		time.Sleep(5 * time.Second)
		expectEvents(t, a, "Down NeighborSignaledDown, peer AdminDown", "Down NeighborSignaledDown, peer Down")
		expectEvents(t, b)
		a.events.onEvent = nil
	})
}

func TestListeningRefused(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := start(t, n, a4), start(t, n, b4, to(a4))
		a.host.set(func(h *host) { h.refused = unix.EADDRINUSE })
		if err := a.Set([]Session{to(b4)}); !errors.Is(err, unix.EADDRINUSE) {
			t.Errorf("Set returned %v", err)
		}
		time.Sleep(10 * time.Second)
		if got := b.States()[0].State; got != Init && got != Down {
			t.Errorf("b is %s", got)
		}
		a.host.set(func(h *host) { h.refused = nil })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := a.States()[0]; got.State != Up {
			t.Errorf("a is %+v", got)
		}
	})
}

func TestInterfaceComesLater(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		onEth0 := to(b4, func(s *Session) { s.Interface = "eth0" })
		a, b := start(t, n, a4), start(t, n, b4, to(a4))
		a.host.set(func(h *host) { h.noDevice = true })
		if err := a.Set([]Session{onEth0}); err == nil || err.Error() != "watching 192.0.2.2 on eth0: no such device" {
			t.Errorf("Set returned %v", err)
		}
		time.Sleep(5 * time.Second)
		a.host.set(func(h *host) { h.noDevice = false })
		time.Sleep(5 * time.Second)
		expectEvents(t, a, "Up")
		b.events.take()
		n.take()

		a.host.set(func(h *host) { h.noDevice = true })
		time.Sleep(5 * time.Second)
		expectEvents(t, a, "Down NeighborSignaledDown, peer Down")
		a.host.set(func(h *host) { h.noDevice = false })
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := a.States()[0]; got.State != Up {
			t.Errorf("a is %+v", got)
		}
	})
}

// A session's packets all have the same source port.
func TestSourcePort(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		time.Sleep(time.Second)
		a.host.set(func(h *host) { h.noDevice = true })
		time.Sleep(3 * time.Second)
		a.host.set(func(h *host) { h.noDevice = false })
		time.Sleep(5 * time.Second)
		used := map[netip.Addr]map[int]bool{a4: {}, b4: {}}
		for _, s := range n.take() {
			used[s.from][s.port] = true
			if s.port < 49152 {
				t.Errorf("source port %d", s.port)
			}
		}
		for from, numbers := range used {
			if len(numbers) != 1 {
				t.Errorf("%s used the ports %v", from, numbers)
			}
		}
		b.events.take()
	})
}

func TestRunTwice(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a := start(t, n, a4)
		if err := a.Run(t.Context()); err == nil || err.Error() != "the watcher is running already" {
			t.Errorf("Run returned %v", err)
		}
	})
}

func TestRunAgain(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, b := pair(t, n)
		a.stop()
		if len(a.States()) != 0 {
			t.Errorf("%v", a.States())
		}
		again, cancel := context.WithCancel(klog.NewContext(t.Context(), klog.Logger{}))
		done := make(chan error)
		go func() { done <- a.Run(again) }()
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := b.States()[0].State; got != Up {
			t.Errorf("b is %s", got)
		}
		cancel()
		<-done
	})
}

func TestMetrics(t *testing.T) {
	bubble(t, func(t *testing.T, n *lan) {
		a, _ := pair(t, n)
		a.host.deliver(packet{data: []byte("garbage"), from: b4, to: a4, ttl: 255})
		time.Sleep(ms)
		synctest.Wait()
		want := `
			# HELP herald_bfd_sessions BFD sessions, by state.
			# TYPE herald_bfd_sessions gauge
			herald_bfd_sessions{state="AdminDown"} 0
			herald_bfd_sessions{state="Down"} 0
			herald_bfd_sessions{state="Init"} 0
			herald_bfd_sessions{state="Up"} 1
			# HELP herald_bfd_realtime Whether packets are sent and received by a thread with real-time priority.
			# TYPE herald_bfd_realtime gauge
			herald_bfd_realtime 1
			# HELP herald_bfd_transitions_total Changes of state of all sessions.
			# TYPE herald_bfd_transitions_total counter
			herald_bfd_transitions_total 2
		`
		if err := testutil.CollectAndCompare(a.Watcher, strings.NewReader(want), "herald_bfd_sessions", "herald_bfd_realtime", "herald_bfd_transitions_total"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.CollectAndLint(a.Watcher); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		if got := a.counters.dropped[1].Load(); got != 1 {
			t.Errorf("%d packets of bad length counted", got)
		}
	})
}
