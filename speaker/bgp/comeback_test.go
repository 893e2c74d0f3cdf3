package bgp

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// What a board says of a neighbor, second by second: when it is to be made anew, and how.
func TestComeBack(t *testing.T) {
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	type move struct {
		at    int
		state bgp.FSMState
	}
	up := func(s int) []move { return []move{{s, bgp.BGP_FSM_OPENCONFIRM}, {s, bgp.BGP_FSM_ESTABLISHED}} }
	session := func(from, to int) []move { return append(up(from), move{to, bgp.BGP_FSM_IDLE}) }
	tests := []struct {
		name   string
		given  [][]move
		change func(*entry)
		until  int
		want   []string
	}{
		{"never there", nil, nil, 300, []string{"60 as asked"}},
		{"there at once", [][]move{up(2)}, nil, 300, nil},
		{"about to be there after a minute", [][]move{{{60, bgp.BGP_FSM_OPENCONFIRM}, {62, bgp.BGP_FSM_ESTABLISHED}}}, nil, 300, nil},
		{"lost, and not there for long", [][]move{session(2, 100)}, nil, 300, []string{"100 eagerly", "160 as asked"}},
		{"lost and back", [][]move{session(2, 100), up(102)}, nil, 300, []string{"100 eagerly"}},
		{
			"that does not last", [][]move{session(2, 3), session(5, 6), session(10, 11), session(20, 21), session(30, 31), up(40)}, nil, 300,
			[]string{"3 eagerly", "7 eagerly", "14 eagerly", "25 eagerly", "35 eagerly"},
		},
		{
			"that lasts again", [][]move{session(2, 3), session(5, 6), session(10, 20), session(30, 31), up(40)}, nil, 300,
			[]string{"3 eagerly", "7 eagerly", "20 eagerly", "32 eagerly"},
		},
		{"with its own time short enough", [][]move{session(2, 100)}, func(e *entry) { e.ConnectRetryTime = 5 * time.Second }, 300, []string{"100 eagerly"}},
		{"with too many routes", [][]move{session(2, 100)}, func(e *entry) { e.overfull = true }, 300, []string{"160 eagerly", "220 as asked"}},
		{
			"with too many routes again", [][]move{session(2, 100)}, func(e *entry) { e.overfull, e.overflows = true, 2 }, 400,
			[]string{"340 eagerly"},
		},
		{
			"with too many routes after many times", [][]move{session(2, 100)}, func(e *entry) { e.overfull, e.overflows = true, 50 }, 1930,
			[]string{"1900 eagerly"},
		},
		{
			"made anew otherwise while it waits", [][]move{session(2, 3), session(5, 6), {{6, bgp.BGP_FSM_ACTIVE}}}, nil, 300,
			[]string{"3 eagerly", "66 as asked"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBoard()
			n := neighbor{Peer: valid(func(p *Peer) { p.ConnectRetryTime = 0 })}
			b.keep([]Peer{n.Peer})
			b.added(n, false)
			e := b.entries[n.Name]
			e.calm(start)
			if tt.change != nil {
				tt.change(e)
				e.calm(start)
			}
			var got []string
			var moves []move
			for _, m := range tt.given {
				moves = append(moves, m...)
			}
			for s := range tt.until {
				for _, m := range moves {
					if m.at == s {
						b.moved(apiutil.Peer{State: apiutil.PeerState{NeighborAddress: n.Address, SessionState: m.state}}, at(s))
					}
				}
				due, next := b.due(at(s))
				for _, eagerly := range due {
					got = append(got, fmt.Sprintf("%d %s", s, map[bool]string{true: "eagerly", false: "as asked"}[eagerly]))
				}
				if !next.IsZero() && next.Before(at(s)) {
					t.Errorf("after %d s the next time is %s ago", s, at(s).Sub(next))
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// comesBack ends a session in some way, and sees that it is back once and for good.
func (r *running) comesBack(name, how string, end func()) {
	r.Helper()
	before := r.status(name).Since
	end()
	var states []string
	var lost time.Time
	r.Eventually("the session is back after "+how, func() bool {
		states = nil
		for _, s := range r.history() {
			if s.Peer == name && s.Since.After(before) && (len(states) == 0 || states[len(states)-1] != s.State) {
				if states = append(states, s.State); len(states) == 1 {
					lost = s.Since
				}
			}
		}
		return slices.Contains(states, established)
	})
	if states[0] != "Idle" || slices.Index(states, established) != len(states)-1 {
		r.Errorf("after %s the session was %s", how, strings.Join(states, " "))
	}
	r.Logf("%s: back %s after its end: %s", how, r.status(name).Since.Sub(lost).Round(10*time.Millisecond), strings.Join(states, " "))
}

// The node has to wait for two minutes between attempts here, and the router never connects.
func TestSessionsComeBack(t *testing.T) {
	l := newLab(t)
	p, q := l.place(1), l.place(2)
	patient := func(peer *Peer) { peer.ConnectRetryTime = 0 }
	f := p.frr(p.frrConfig(65001, 64512, "passive"))
	b, birdc := q.BIRD(q.name, `router id 10.0.2.2;
		protocol bgp node { local 10.0.2.2 as 65002; neighbor 10.0.2.1 as 64512; passive; ipv4 { import all; export none; }; }`)
	r := l.speaker([]Peer{p.peer(65001, patient), q.peer(65002, patient)}, plainTo("tor1", "tor2"))
	r.established("tor1", "tor2")
	sessions := func(want int) {
		t.Helper()
		l.eventuallyIs("FRR has the route", "via 10.0.1.1 path 64512", func() string { return f.route(plain) })
		if got := f.session("10.0.1.1").Established; got != want {
			t.Errorf("FRR has had %d sessions, want %d", got, want)
		}
	}
	r.comesBack("tor1", "FRR's Cease", func() { f.Vtysh("clear bgp 10.0.1.1") })
	sessions(2)
	r.comesBack("tor1", "another one", func() { f.Vtysh("clear bgp 10.0.1.1") })
	sessions(3)
	r.comesBack("tor2", "BIRD's Cease", func() { birdc("restart node") })
	l.Eventually("BIRD has the route", func() bool { return strings.Contains(birdc("show route"), plain) })

	// A router that is away for some attempts.
	away := func(what string, d interface {
		Kill()
		Start()
	}) func() {
		return func() {
			d.Kill()
			time.Sleep(6 * time.Second)
			d.Start()
			t.Log(what, "starts again")
		}
	}
	r.comesBack("tor1", "a restart of FRR", away("FRR", f))
	sessions(1)
	r.comesBack("tor2", "a restart of BIRD", away("BIRD", b))
	l.Eventually("BIRD has the route", func() bool { return strings.Contains(birdc("show route"), plain) })
}

func TestHoldTimeOfZero(t *testing.T) {
	l := newLab(t)
	p := l.place(1)
	f := p.frr(p.frrConfig(65001, 64512, "timers 0 0"))
	r := l.speaker([]Peer{p.peer(65001)}, plainTo("tor1"))
	r.established("tor1")
	l.Eventually("it is known", func() bool { return r.status("tor1").NoHoldTime })
	f.Vtysh("configure terminal", "router bgp 65001", "neighbor 10.0.1.1 timers 1 60")
	f.Vtysh("clear bgp 10.0.1.1")
	l.Eventually("there is one", func() bool { s := r.status("tor1"); return s.State == established && !s.NoHoldTime })
	time.Sleep(300 * time.Millisecond)
	if r.status("tor1").NoHoldTime {
		t.Error("there is said to be none")
	}
}
