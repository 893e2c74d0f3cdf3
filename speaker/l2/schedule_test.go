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

// Of very many that come at once: what is announced comes before what is asked, first requests before repeated ones, the
// pace holds for all together, and repetitions give way to everything else and to nobody for ever.
func TestScheduleOfManyQuestions(t *testing.T) {
	const n = 3000
	var s schedule
	addr := netip.MustParseAddr("10.0.0.0")
	for i := range n {
		addr = addr.Next()
		s.start(duty{addr, "eth0", true}, time.Duration(1+i%2)*10*time.Millisecond, epoch)
	}
	late := duty{addr: v4, name: "eth0"}
	count, total, announced := map[duty]int{}, 0, []time.Duration(nil)
	const until = 3 * time.Second // 30,000 turns, where the questions want 675,000
	for now := epoch; now.Sub(epoch) < until; {
		for _, d := range s.take(now) {
			total++
			if d == late {
				announced = append(announced, now.Sub(epoch))
				continue
			}
			count[d]++
			if count[d] == 2 && len(count) < n {
				t.Fatal("one is asked again before all are asked once")
			}
		}
		if len(count) == n/10 && s.runs[late].id == 0 {
			s.start(late, 0, now)
		}
		next, more := s.next()
		if !more {
			t.Fatal("questions have ended")
		}
		now = next
	}
	if most := int(until/pace) + batch; total > most {
		t.Errorf("%d turns, the pace allows %d", total, most)
	}
	if len(announced) < 4 || announced[0] > 60*time.Millisecond {
		t.Errorf("announced at %s, want to be first", announced)
	}
	least, most := total, 0
	for _, c := range count {
		least, most = min(least, c), max(most, c)
	}
	if least < 7 || most > 13 {
		t.Errorf("asked between %d and %d times, want some 10 each", least, most)
	}
}

// A question that stands for a long time costs nothing but its frames.
func TestScheduleRepeatsWithoutGarbage(t *testing.T) {
	var s schedule
	for i := range 1000 {
		s.start(duty{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), "eth0", true}, time.Second, epoch)
	}
	now := epoch
	round := func() {
		for end := now.Add(10 * time.Second); now.Before(end); now, _ = s.next() {
			s.take(now)
		}
	}
	round()
	if got := testing.AllocsPerRun(10, round); got > 0 {
		t.Errorf("%.0f allocations for 10,000 requests", got)
	}
}
