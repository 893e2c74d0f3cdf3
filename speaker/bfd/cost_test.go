package bfd

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// noSocket takes what is sent, and has nothing to receive.
type noSocket struct{}

func (noSocket) listen([len(ports)]bool) error     { return nil }
func (noSocket) dial(Path, uint16) (sender, error) { return noSocket{}, nil }
func (noSocket) wait(time.Time)                    {}
func (noSocket) wake()                             {}
func (noSocket) receive(*packet) bool              { return false }
func (noSocket) close()                            {}
func (noSocket) send([]byte) error                 { return nil }
func (noSocket) port() uint16                      { return firstSource }
func (noSocket) index() int                        { return 0 }
func (noSocket) stale() bool                       { return false }

// oneSession is a loop that is not run, with a session that is Up, and a way to make packets of its peer.
func oneSession(change func(*Session)) (l *loop, next func(poll bool) *packet) {
	l = newLoop(New(Options{}), noSocket{})
	s := to(b4, change).withDefaults()
	if err := l.apply([]Session{s}, time.Now()); err != nil {
		panic(err)
	}
	e := l.entries[s.Path]
	buf, sequence := make([]byte, maxLen), uint32(0)
	p := &packet{from: b4, to: a4, ttl: 255}
	state := Init
	next = func(poll bool) *packet {
		sequence++
		c := control{state: state, poll: poll, final: true, multiplier: 3, myDiscr: 9, yourDiscr: e.discr, desiredTx: 100 * ms, requiredRx: 100 * ms,
			auth: section{kind: s.Auth.Type, keyID: s.Auth.ID, sequence: sequence}}
		p.data = c.marshal(buf[:0])
		if s.Auth.Type != NoAuth {
			sign(p.data, s.Auth.Key)
		}
		return p
	}
	l.receive(next(false), time.Now())
	state = Up
	l.receive(next(false), time.Now())
	l.publish()
	if e.state != Up || e.polling {
		panic("not Up")
	}
	return l, next
}

var kinds = []struct {
	name   string
	change func(*Session)
}{{"plain", func(*Session) {}}, {"signed", signed5}}

// Receiving, answering a poll and sending leave nothing for the garbage collector.
func TestNoGarbage(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l, next := oneSession(k.change)
			run := func() {
				now := time.Now()
				p := next(true)
				if reason := l.receive(p, now); reason != "" {
					t.Fatal(reason)
				}
				l.queue[0].at, l.queue[0].sent = now, now.Add(-time.Second) // as if time had passed
				l.proceed(now)
				l.publish()
			}
			run() // the first telling of new intervals
			before := l.counters.sent.Load()
			if n := testing.AllocsPerRun(1000, run); n != 0 {
				t.Errorf("%v allocations", n)
			}
			if sent := l.counters.sent.Load() - before; sent != 2002 {
				t.Errorf("%d packets sent, want two each time", sent)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		l, next := oneSession(signed5)
		p := *next(false)
		for _, s := range append(signedSpoofs, spoofs...) {
			spoofed := p
			spoofed.data = s.edit(append(make([]byte, 0, 100), p.data...))
			spoofed.ttl = s.hops()
			now := time.Now()
			if n := testing.AllocsPerRun(100, func() {
				if reason := l.receive(&spoofed, now); reason != "" {
					l.counters.drop(reason)
				}
			}); n != 0 {
				t.Errorf("%s: %v allocations", s.name, n)
			}
		}
	})
}

func TestNoGarbageOnWire(t *testing.T) {
	l := newLab(t)
	home := l.inside("node")
	for _, path := range []Path{{Peer: netip.MustParseAddr("127.0.0.1")}, {Peer: netip.IPv6Loopback()}, {Peer: a4, Local: a4}, {Peer: a6, Local: a6}} {
		s, err := kernel{}.open()
		if err != nil {
			t.Fatal(err)
		}
		var out sender
		home.Do(func() {
			if err = s.listen([len(ports)]bool{true, true, true, true}); err != nil {
				return
			}
			out, err = s.dial(path, 0)
		})
		if err != nil {
			t.Fatal(err)
		}
		data := control{state: Up, multiplier: 3, myDiscr: 1}.marshal(nil)
		var p packet
		if n := testing.AllocsPerRun(1000, func() {
			if err := out.send(data); err != nil {
				t.Fatal(err)
			}
			s.wait(time.Now().Add(time.Minute))
			if !s.receive(&p) || s.receive(&p) {
				t.Fatal("not received once")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", path, n)
		}
		if want := (packet{data: p.data, from: path.Peer, to: path.Peer, index: p.index, ttl: 255}); fmt.Sprint(p) != fmt.Sprint(want) || p.index == 0 {
			t.Errorf("received %+v", p)
		}
		out.close()
		s.close()
	}
}

// BenchmarkReceive is a packet of a session that is Up, once it has been read.
func BenchmarkReceive(b *testing.B) {
	for _, k := range kinds {
		b.Run(k.name, func(b *testing.B) {
			l, next := oneSession(k.change)
			p := next(false)
			now := time.Now()
			e := l.queue[0]
			b.ReportAllocs()
			for b.Loop() {
				e.sequenceUntil = time.Time{} // so that one packet will do
				if reason := l.receive(p, now); reason != "" {
					b.Fatal(reason)
				}
			}
		})
	}
	for _, s := range []spoof{spoofs[1], spoofs[14], signedSpoofs[9]} {
		b.Run(string(s.reason), func(b *testing.B) {
			l, next := oneSession(signed5)
			p := *next(false)
			p.data = s.edit(p.data)
			now := time.Now()
			for b.Loop() {
				if l.receive(&p, now) != s.reason {
					b.Fatal("taken")
				}
			}
		})
	}
}

// BenchmarkSession is what sessions at 100 ms × 3 cost, in per cent of a core for each, kernel included.
func BenchmarkSession(b *testing.B) {
	for _, n := range []int{1, 50} {
		for _, k := range kinds {
			b.Run(fmt.Sprintf("sessions=%d/%s", n, k.name), func(b *testing.B) {
				l := newLab(b)
				node, peer := l.many(n, k.change)
				x, y := l.speaker("node", node...), l.speaker("peer", peer...)
				l.Eventually("Up", func() bool { return x.negotiated(100*ms, 300*ms) && y.negotiated(100*ms, 300*ms) })
				const long = 10 * time.Second
				before := cpu()
				time.Sleep(long)
				used := cpu() - before
				b.ReportMetric(100*used.Seconds()/long.Seconds()/float64(2*n), "%core/session")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// many are sessions between as many pairs of addresses.
func (l lab) many(n int, change func(*Session)) (node, peer []Session) {
	for i := range n {
		here, there := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 3)}), netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 103)})
		l.In("node", fmt.Sprintf("ip addr add %s/24 dev eth0", here))
		l.In("peer", fmt.Sprintf("ip addr add %s/24 dev eth0", there))
		node, peer = append(node, on(Path{Peer: there, Local: here}, change)), append(peer, on(Path{Peer: here, Local: there}, change))
	}
	return node, peer
}

func cpu() time.Duration {
	var u syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBusy counts sessions that were taken for Down while nothing was wrong but that all cores were busy: with other
// processes, or with goroutines of this one.
func BenchmarkBusy(b *testing.B) {
	tests := []struct {
		name     string
		interval time.Duration
		realtime func() error
	}{
		{"300ms/normal", 300 * ms, normalPriority},
		{"100ms/normal", 100 * ms, normalPriority},
		{"100ms/fifo", 100 * ms, becomeRealTime},
		{"50ms/fifo", 50 * ms, becomeRealTime},
	}
	loads := []struct {
		name string
		load func(testing.TB)
	}{{"processes", busyProcesses}, {"goroutines", busyGoroutines}}
	for _, load := range loads {
		for _, tt := range tests {
			b.Run(load.name+"/"+tt.name, func(b *testing.B) {
				l := newLab(b)
				change := func(s *Session) { s.Transmit, s.Receive = tt.interval, tt.interval }
				x := l.speakerWith("node", tt.realtime, on(paths[0].there, change))
				y := l.speakerWith("peer", tt.realtime, on(paths[0].back, change))
				l.Eventually("Up", func() bool {
					return x.negotiated(tt.interval, 3*tt.interval) && y.negotiated(tt.interval, 3*tt.interval)
				})
				x.events.take()
				y.events.take()
				load.load(b)
				time.Sleep(30 * time.Second)
				downs, latest := 0, int64(0)
				for _, s := range []*speaker{x, y} {
					downs += strings.Count(s.events.take(), "DetectionTimeExpired")
					latest = max(latest, s.counters.latest.Load())
				}
				b.ReportMetric(float64(downs), "downs")
				b.ReportMetric(time.Duration(latest).Seconds()*1000, "ms-late-max")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

func busyProcesses(t testing.TB) {
	for range 4 {
		c := exec.Command("sh", "-c", "while :; do :; done")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	}
}

func busyGoroutines(t testing.TB) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	for range 4 {
		go func() {
			for x := []byte{1}; ; x = append([]byte(nil), x...) { //nolint:staticcheck // what counts is the work
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
	}
}
