package bfd

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/heraldlb/herald/internal/netlab"
)

// The tests here have FRR's bfdd and BIRD as the peer.

type frr struct{ *netlab.FRR }

type frrPeer struct {
	Peer       string
	Status     string
	Diagnostic string
	RemoteDiag string `json:"remote-diagnostic"`
	Receive    int    `json:"remote-receive-interval"`
	Transmit   int    `json:"remote-transmit-interval"`
	Multiplier int    `json:"remote-detect-multiplier"`
}

// peer is what FRR knows of a session.
func (f frr) peer(addr netip.Addr) (found frrPeer) {
	var peers []frrPeer
	json.Unmarshal([]byte(f.Vtysh("show bfd peers json")), &peers)
	for _, p := range peers {
		if p.Peer == addr.String() {
			found = p
		}
	}
	return found
}

const frrConfig = `
bfd
 profile fast
  transmit-interval 100
  receive-interval 100
  detect-multiplier 30
 !
 profile slow
  transmit-interval 400
  receive-interval 250
  detect-multiplier 20
 !
 peer 192.0.2.1 interface eth0
  profile fast
 !
 peer 2001:db8::1 local-address 2001:db8::2 interface eth0
  profile fast
 !
 peer fe80::1 local-address fe80::2 interface eth0
  profile fast
 !
 peer 198.51.100.1 multihop local-address 203.0.113.1
  profile fast
 !
 peer 2001:db8:1::1 multihop local-address 2001:db8:2::1
  profile fast
 !
`

func TestFRR(t *testing.T) {
	l := newLab(t)
	var sessions []Session
	for _, p := range paths {
		if p.name != "IPv4" && p.name != "IPv6" {
			sessions = append(sessions, on(p.there, steady))
		}
	}
	sessions = append(sessions, on(Path{Peer: b6, Interface: "eth0"}, steady))
	f := frr{l.FRR("peer", "bfdd", frrConfig)}
	a := l.speaker("node", sessions...)
	up := func() bool { return a.negotiated(100*ms, steadyTime) }
	t.Logf("Up after %s", l.Eventually("Up", up).Round(ms))
	v4 := a4
	of := func() Status {
		for _, s := range a.States() {
			if s.Peer == b4 {
				return s
			}
		}
		return Status{}
	}
	l.Eventually("FRR is Up too", func() bool { return f.peer(v4).Status == "up" })
	got := f.peer(v4)
	if got.Receive != 100 || got.Transmit != 100 || got.Multiplier != steadily {
		t.Errorf("FRR has heard %+v", got)
	}
	time.Sleep(2 * time.Second)
	if events := strings.Split(a.heard(), "\n"); len(events) != len(sessions) {
		t.Errorf("%d sessions came up with %q", len(sessions), events)
	}

	t.Run("a profile changes the peer's timers", func(t *testing.T) {
		l := labOf(t)
		f.Vtysh("configure terminal", "bfd", "peer 192.0.2.1 interface eth0", "profile slow")
		l.Eventually("the timers", func() bool { s := of(); return s.Transmit == 250*ms && s.Detection == 8*time.Second })
		f.Vtysh("configure terminal", "bfd", "peer 192.0.2.1 interface eth0", "profile fast")
		l.Eventually("the timers", up)
		l.expectEvents(a)
	})

	t.Run("our timers change", func(t *testing.T) {
		l := labOf(t)
		for _, interval := range []time.Duration{500 * ms, 50 * ms, 100 * ms} {
			changed := append([]Session(nil), sessions...)
			for i := range changed {
				changed[i].Transmit, changed[i].Receive = interval, interval
			}
			if err := a.Set(changed); err != nil {
				t.Fatal(err)
			}
			l.Eventually("FRR knows", func() bool {
				p := f.peer(v4)
				return p.Receive == int(interval/ms) && p.Transmit == int(interval/ms)
			})
			l.Eventually("negotiated", func() bool { return a.negotiated(max(interval, 100*ms), steadily*max(interval, 100*ms)) })
		}
		l.expectEvents(a)
		if got := f.peer(v4); got.Status != "up" {
			t.Errorf("FRR: %+v", got)
		}
	})

	t.Run("the peer is AdminDown", func(t *testing.T) {
		l := labOf(t)
		f.Vtysh("configure terminal", "bfd", "peer 192.0.2.1 interface eth0", "shutdown")
		l.Eventually("Down", func() bool { s := of(); return s.State == Down && s.RemoteState == AdminDown })
		l.expectEvents(a, "Down NeighborSignaledDown, peer AdminDown")
		f.Vtysh("configure terminal", "bfd", "peer 192.0.2.1 interface eth0", "no shutdown")
		l.Eventually("Up", up)
		a.heard()
	})

	t.Run("we are AdminDown", func(t *testing.T) {
		l := labOf(t)
		down := append([]Session(nil), sessions...)
		for i := range down {
			down[i].AdminDown = true
		}
		a.Set(down)
		l.Eventually("FRR knows", func() bool {
			p := f.peer(v4)
			return p.Status == "down" && p.Diagnostic == "neighbor signaled session down"
		})
		if got := f.peer(v4); got.RemoteDiag != "administratively down" {
			t.Errorf("FRR: %+v", got)
		}
		a.Set(sessions)
		l.Eventually("Up", func() bool { return up() && f.peer(v4).Status == "up" })
		a.heard()
	})

	t.Run("the switch loses everything", func(t *testing.T) {
		l := labOf(t)
		cut := time.Now()
		l.cut()
		l.Eventually("Down", func() bool { return of().State == Down })
		t.Logf("Down after %s", of().Time.Sub(cut).Round(ms))
		l.Eventually("FRR is Down", func() bool { return f.peer(v4).Status == "down" })
		if got := f.peer(v4); got.Diagnostic != "control detection time expired" {
			t.Errorf("FRR: %+v", got)
		}
		l.mend()
		t.Logf("Up after %s", l.Eventually("Up", up).Round(ms))
		for _, e := range strings.Split(a.heard(), "\n") {
			if e != "Down DetectionTimeExpired, peer Down" && e != "Up" {
				t.Errorf("event %s", e)
			}
		}
	})

	t.Run("bfdd is killed", func(t *testing.T) {
		l := labOf(t)
		killed := time.Now()
		f.Kill()
		l.Eventually("Down", func() bool { return !a.anyUp() })
		t.Logf("Down after %s", of().Time.Sub(killed).Round(ms))
		f.Start()
		t.Logf("Up after %s", l.Eventually("Up", up).Round(ms))
		if events := strings.Split(a.heard(), "\n"); len(events) != 2*len(sessions) {
			t.Errorf("events %q", events)
		}
	})

	t.Run("bfdd is killed and starts before we miss it", func(t *testing.T) {
		l := labOf(t)
		patient := append([]Session(nil), sessions...)
		for i := range patient {
			patient[i].Receive = 5 * time.Second
		}
		a.Set(patient)
		l.Eventually("patient", func() bool { return a.negotiated(100*ms, steadily*5*time.Second) })
		f.Kill()
		f.Start()
		l.Eventually("noticed", func() bool { return len(a.heard()) > 0 })
		a.Set(sessions)
		l.Eventually("Up", up)
		a.heard()
	})

	t.Run("we go", func(t *testing.T) {
		l := labOf(t)
		a.Set(nil)
		l.Eventually("FRR knows", func() bool {
			p := f.peer(v4)
			return p.Status == "down" && p.Diagnostic == "neighbor signaled session down"
		})
		l.expectEvents(a)
	})
}

// sessionsUp counts BIRD's sessions that are up.
func sessionsUp(shown string) (n int) {
	for _, line := range strings.Split(shown, "\n") {
		if fields := strings.Fields(line); len(fields) > 2 && fields[2] == "Up" {
			n++
		}
	}
	return n
}

func TestBIRD(t *testing.T) {
	tests := []struct {
		name, auth string
		change     func(*Session)
	}{
		{"without authentication", "", func(*Session) {}},
		{"keyed SHA1", `authentication keyed sha1; password "secret" { id 1; };`,
			func(s *Session) { s.Auth = Auth{KeyedSHA1, 1, "secret"} }},
		{"meticulous keyed SHA1", `authentication meticulous keyed sha1; password "secret" { id 1; };`, signed5},
		{"meticulous keyed SHA1, a key of 20 bytes", `authentication meticulous keyed sha1; password "abcdefghijklmnopqrst" { id 200; };`,
			func(s *Session) { s.Auth = Auth{MeticulousKeyedSHA1, 200, "abcdefghijklmnopqrst"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			var sessions []Session
			config := fmt.Sprintf(`
				router id 192.0.2.2;
				protocol bfd {
					interface "eth0" { interval 100 ms; idle tx interval 1 s; multiplier 30; %s };
					multihop { interval 100 ms; idle tx interval 1 s; multiplier 30; %s };
					neighbor 192.0.2.1 dev "eth0" local 192.0.2.2;
					neighbor 2001:db8::1 dev "eth0" local 2001:db8::2;
					neighbor 198.51.100.1 local 203.0.113.1 multihop yes;
					neighbor 2001:db8:1::1 local 2001:db8:2::1 multihop yes;
				}`, tt.auth, tt.auth)
			for _, i := range []int{1, 2, 4, 5} {
				sessions = append(sessions, on(paths[i].there, tt.change, steady, func(s *Session) { s.MinTTL = 63 })) // BIRD sends 64 over several hops
			}
			bird, ask := l.BIRD("peer", config)
			a := l.speaker("node", sessions...)
			up := func() bool { return a.negotiated(100*ms, steadyTime) && sessionsUp(ask("show bfd sessions")) == 4 }
			t.Logf("Up after %s", l.Eventually("Up", up).Round(ms))
			time.Sleep(2 * time.Second)
			l.expectEvents(a, "Up", "Up", "Up", "Up")

			changed := append([]Session(nil), sessions...)
			for i := range changed {
				changed[i].Transmit, changed[i].Receive = 300*ms, 200*ms
			}
			a.Set(changed)
			l.Eventually("negotiated", func() bool { return a.negotiated(300*ms, steadily*200*ms) })
			a.Set(sessions)
			l.Eventually("negotiated", up)
			l.expectEvents(a)

			cut := time.Now()
			l.cut()
			isDown := func(p Path) bool {
				for _, s := range a.States() {
					if s.Path == p && s.State != Up {
						return true
					}
				}
				return false
			}
			l.Eventually("Down", func() bool { return isDown(sessions[0].Path) && isDown(sessions[1].Path) })
			t.Logf("Down after %s", time.Since(cut).Round(ms))
			l.Eventually("BIRD is Down", func() bool { return sessionsUp(ask("show bfd sessions")) == 2 })
			l.expectEvents(a, "Down DetectionTimeExpired, peer Down", "Down DetectionTimeExpired, peer Down")
			l.mend()
			t.Logf("Up after %s", l.Eventually("Up", up).Round(ms))

			a.heard()
			bird.Kill()
			l.Eventually("Down", func() bool { return !a.anyUp() })
			bird.Start()
			t.Logf("Up after a restart in %s", l.Eventually("Up", up).Round(ms))
			if events := strings.Split(a.heard(), "\n"); len(events) != 2*len(sessions) {
				t.Errorf("events %q", events)
			}

			a.Set(nil)
			l.Eventually("BIRD knows", func() bool { return sessionsUp(ask("show bfd sessions")) == 0 })
		})
	}
	t.Run("wrong key", func(t *testing.T) {
		l := newLab(t)
		_, ask := l.BIRD("peer", `
			router id 192.0.2.2;
			protocol bfd {
				interface "eth0" { interval 100 ms; idle tx interval 200 ms; authentication meticulous keyed sha1; password "other" { id 1; }; };
				neighbor 192.0.2.1 dev "eth0" local 192.0.2.2;
			}`)
		a := l.speaker("node", on(paths[0].there, signed5))
		l.Eventually("refused", func() bool { return a.dropped(AuthDigest) >= 3 })
		l.expectEvents(a)
		if n := sessionsUp(ask("show bfd sessions")); n != 0 {
			t.Errorf("%d sessions are Up in BIRD", n)
		}
	})
}
