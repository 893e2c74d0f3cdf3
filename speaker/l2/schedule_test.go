package l2

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var epoch = time.Unix(1_000_000, 0)

// run takes all that is due, in jumps from one time to the next.
func (s *schedule) run(now time.Time, sent func(time.Time, []duty)) {
	for next, more := s.next(); more; next, more = s.next() {
		if next.After(now) {
			now = next
		}
		sent(now, s.take(now))
	}
}

func TestScheduleOfOne(t *testing.T) {
	var s schedule
	s.start(duty{addr: v4, name: "eth0"}, 0, epoch)
	var got []string
	s.run(epoch, func(now time.Time, _ []duty) { got = append(got, now.Sub(epoch).String()) })
	want := []string{"0s", "100ms", "300ms", "1s", "2s", "4s", "8s", "16s", "32s", "1m0s"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if len(s.runs) != 0 {
		t.Error("something is left")
	}
}

func TestScheduleStartsAgain(t *testing.T) {
	var s schedule
	a := duty{addr: v4, name: "eth0"}
	s.start(a, 0, epoch)
	s.take(epoch)
	s.start(a, 0, epoch.Add(50*time.Millisecond))
	var got []string
	s.run(epoch, func(now time.Time, _ []duty) { got = append(got, now.Sub(epoch).String()) })
	if diff := cmp.Diff([]string{"50ms", "150ms", "350ms"}, got[:3]); diff != "" {
		t.Error(diff)
	}
	if len(got) != len(gaps)+1 {
		t.Errorf("%d announcements, want only those of the second start", len(got))
	}
}

func TestScheduleStops(t *testing.T) {
	var s schedule
	a, b := duty{addr: v4, name: "eth0"}, duty{addr: v6, name: "eth0"}
	s.start(a, 0, epoch)
	s.start(b, 0, epoch)
	s.keep(func(d duty) bool { return d == b })
	s.run(epoch, func(now time.Time, due []duty) {
		if slices.Contains(due, a) {
			t.Fatalf("announced after the stop, at %s", now.Sub(epoch))
		}
	})
}

// However many there are and whenever they come: each is announced before any is repeated, never faster than the pace,
// and each as often as there are rounds.
func TestScheduleOfMany(t *testing.T) {
	const n = 10_000
	var s schedule
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range n {
		addr = addr.Next()
		s.start(duty{addr: addr, name: fmt.Sprint("eth", i%3)}, 0, epoch)
	}
	count, total := map[duty]int{}, 0
	var firsts time.Duration
	last := time.Time{}
	s.run(epoch, func(now time.Time, due []duty) {
		if len(due) > batch {
			t.Fatalf("%d at once", len(due))
		}
		if !last.IsZero() && now.Before(last) {
			t.Fatal("too fast")
		}
		last = now.Add(time.Duration(len(due)) * pace)
		for _, a := range due {
			count[a]++
			total++
			if count[a] > 1 && len(count) < n {
				t.Fatal("one is repeated before all are announced")
			}
		}
		if len(count) == n && firsts == 0 {
			firsts = now.Sub(epoch)
		}
	})
	if firsts > time.Second {
		t.Errorf("all are announced after %s, want a second", firsts)
	}
	if total != n*(len(gaps)+1) {
		t.Errorf("%d announcements, want %d", total, n*(len(gaps)+1))
	}
}

// The order of starts and stops does not matter: in the end those kept have been announced, and nothing is due.
func TestScheduleProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	var s schedule
	active, now, rounds := map[duty]struct{}{}, epoch, map[duty]int{}
	for range 20_000 {
		a := duty{addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(random.IntN(100))}), name: "eth0"}
		switch random.IntN(3) {
		case 0:
			s.start(a, 0, now)
			active[a] = struct{}{}
			rounds[a] = 0
		case 1:
			delete(active, a)
			s.keep(func(d duty) bool { _, ok := active[d]; return ok })
		case 2:
			now = now.Add(time.Duration(random.IntN(1000)) * time.Millisecond)
			for _, a := range s.take(now) {
				if _, ok := active[a]; !ok {
					t.Fatalf("%v is announced and not active", a)
				}
				rounds[a]++
			}
		}
	}
	s.run(now, func(_ time.Time, due []duty) {
		for _, a := range due {
			rounds[a]++
		}
	})
	for a := range active {
		if rounds[a] != len(gaps)+1 {
			t.Errorf("%v was announced %d times since its start", a, rounds[a])
		}
	}
}
