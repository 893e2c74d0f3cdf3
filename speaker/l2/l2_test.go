package l2

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	arplib "github.com/mdlayher/arp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/internal/netlab"
)

func TestMain(m *testing.M) {
	netlab.Sweep(kind)
	goleak.VerifyTestMain(m)
}

// inMemory runs a test with a running Responder and its network, in a bubble.
func inMemory(t *testing.T, o Options, test func(*testing.T, *Responder, *memory)) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r := New(o)
		r.network = m
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run returned %v", err)
			}
			if left := m.String(); left != "" {
				t.Errorf("left open:\n%s", left)
			}
		}()
		synctest.Wait()
		test(t, r, m)
	})
}

func mustSet(t *testing.T, r *Responder, interfaces []Interface, desired ...Announcement) {
	t.Helper()
	mustAsk(t, r, interfaces, desired)
}

func mustAsk(t *testing.T, r *Responder, interfaces []Interface, desired []Announcement, questions ...Question) {
	t.Helper()
	if err := r.Set(interfaces, desired, questions); err != nil {
		t.Fatal(err)
	}
}

// ask returns the answer to a request.
func ask(m *memory, name string, frame []byte) string {
	m.take()
	m.receive(name, frame)
	synctest.Wait()
	return strings.Join(m.take(), "\n")
}

func TestConformanceInMemory(t *testing.T) {
	for _, tt := range frames {
		t.Run(tt.name, func(t *testing.T) {
			inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
				mustAsk(t, r, testInterfaces, testDesired, testQuestions...)
				time.Sleep(2 * time.Minute) // the announcements are over
				got := strings.TrimPrefix(ask(m, "eth0", tt.frame), "eth0: ")
				if got != tt.reply {
					t.Errorf("got  %s\nwant %s", got, tt.reply)
				}
			})
		})
	}
}

func TestSetOpensAndCloses(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		steps := []struct {
			name       string
			interfaces []Interface
			desired    []Announcement
			questions  []Question
			want       string
		}{
			{"nothing", nil, nil, nil, ""},
			{"interfaces alone", testInterfaces, nil, nil, ""},
			{"one", testInterfaces, []Announcement{{Addr: v4, Interface: "eth0"}}, nil, "eth0 arp"},
			{"both families", testInterfaces, []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}, nil,
				"eth0 arp\neth0 ndp\neth0 (2) groups ff02::1:ff00:10"},
			{"the same address twice", testInterfaces, []Announcement{{Addr: v6, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}, nil,
				"eth0 ndp\neth0 (2) groups ff02::1:ff00:10"},
			{"another index", []Interface{{"eth0", 9, nodeMAC, true}}, []Announcement{{Addr: v6, Interface: "eth0"}}, nil,
				"eth0 ndp\neth0 (9) groups ff02::1:ff00:10"},
			{"down", []Interface{{"eth0", 9, nodeMAC, false}}, []Announcement{{Addr: v6, Interface: "eth0"}}, nil, ""},
			{"up", []Interface{{"eth0", 9, nodeMAC, true}}, []Announcement{{Addr: v6, Interface: "eth0"}}, nil,
				"eth0 ndp\neth0 (9) groups ff02::1:ff00:10"},
			{"without a MAC", []Interface{{"eth0", 9, mac{}, true}}, []Announcement{{Addr: v6, Interface: "eth0"}}, nil, ""},
			{"two interfaces", testInterfaces, []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v4, Interface: "eth1"}}, nil, "eth0 arp\neth1 arp"},
			{"an interface that is not there", testInterfaces, []Announcement{{Addr: v4, Interface: "eth7"}}, nil, ""},
			{"asked alone, in no group", testInterfaces, nil, []Question{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}},
				"eth0 arp\neth0 ndp"},
			{"asked and announced", testInterfaces, []Announcement{{Addr: v6, Interface: "eth0"}},
				[]Question{{Addr: v6, Interface: "eth0"}, {Addr: v6other, Interface: "eth0"}},
				"eth0 ndp\neth0 (2) groups ff02::1:ff00:10"},
			{"left open for Run to close", testInterfaces, []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth1"}}, nil,
				"eth0 arp\neth1 ndp\neth1 (3) groups ff02::1:ff00:10"},
		}
		for _, s := range steps {
			mustAsk(t, r, s.interfaces, s.desired, s.questions...)
			if diff := cmp.Diff(s.want, m.String()); diff != "" {
				t.Fatalf("%s: %s", s.name, diff)
			}
			opened := m.opened
			mustAsk(t, r, s.interfaces, s.desired, s.questions...)
			if diff := cmp.Diff(s.want, m.String()); diff != "" || m.opened != opened {
				t.Fatalf("%s, set again, is a change: %s", s.name, diff)
			}
		}
	})
}

func TestSetBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r := New(Options{})
		r.network = m
		mustSet(t, r, testInterfaces, testDesired...)
		if m.String() != "" {
			t.Error("something is open before Run")
		}
		ctx, cancel := context.WithCancel(t.Context())
		go r.Run(ctx)
		synctest.Wait()
		if got := ask(m, "eth0", request(v4)); got != "eth0: "+arpAnswer {
			t.Errorf("got %s", got)
		}
		if err := r.Run(ctx); err == nil {
			t.Error("Run twice at once must fail")
		}
		cancel()
		synctest.Wait()
		if m.String() != "" {
			t.Error("something is open after Run")
		}
		if got := ask(m, "eth0", request(v4)); got != "" {
			t.Errorf("answered after Run: %s", got)
		}
	})
}

func TestReleaseSilences(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		mustSet(t, r, testInterfaces, Announcement{Addr: v4, Interface: "eth0"}, Announcement{Addr: v4other, Interface: "eth0"})
		synctest.Wait()
		mustSet(t, r, testInterfaces, Announcement{Addr: v4other, Interface: "eth0"})
		if got := ask(m, "eth0", request(v4)); got != "" {
			t.Errorf("still answered: %s", got)
		}
		time.Sleep(2 * time.Minute)
		for _, sent := range m.take() {
			if strings.Contains(sent, v4.String()+" ") {
				t.Errorf("still announced: %s", sent)
			}
		}
		if got := ask(m, "eth0", request(v4other)); got == "" {
			t.Error("the other one is silent too")
		}
	})
}

func TestAnnounces(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		// heard returns who was announced how often in that time.
		heard := func(d time.Duration) map[string]int {
			time.Sleep(d)
			synctest.Wait()
			count := map[string]int{}
			for _, sent := range m.take() {
				name, _, _ := strings.Cut(sent, ":")
				for _, a := range []netip.Addr{v4, v6} {
					if strings.Contains(sent, " "+a.String()+" ") {
						count[name+" "+a.String()]++
					}
				}
			}
			return count
		}
		up, down := []Interface{{"eth0", 2, nodeMAC, true}}, []Interface{{"eth0", 2, nodeMAC, false}}
		both := []Announcement{{Addr: v4, Interface: "eth0"}, {Addr: v6, Interface: "eth0"}}
		// ARP counts twice: there are two forms.
		steps := []struct {
			name string
			do   func()
			wait time.Duration
			want map[string]int
		}{
			{"at once", func() { mustSet(t, r, up, both[0]) }, 0, map[string]int{"eth0 192.0.2.10": 2}},
			{"again", func() {}, 2100 * time.Millisecond, map[string]int{"eth0 192.0.2.10": 8}},
			{"only the new one", func() { mustSet(t, r, up, both...) }, 2100 * time.Millisecond,
				map[string]int{"eth0 192.0.2.10": 2, "eth0 2001:db8::10": 5}},
			{"over after a minute", func() {}, 2 * time.Minute, map[string]int{"eth0 192.0.2.10": 8, "eth0 2001:db8::10": 5}},
			{"the same set", func() { mustSet(t, r, up, both...) }, 2 * time.Minute, map[string]int{}},
			{"down", func() { mustSet(t, r, down, both...) }, time.Minute, map[string]int{}},
			{"up", func() { mustSet(t, r, up, both...) }, 0, map[string]int{"eth0 192.0.2.10": 2, "eth0 2001:db8::10": 1}},
			{"over again", func() {}, 2 * time.Minute, map[string]int{"eth0 192.0.2.10": 18, "eth0 2001:db8::10": 9}},
			{"down and up unnoticed by the caller", func() { m.goDown("eth0 arp") }, 0, map[string]int{"eth0 192.0.2.10": 2}},
			{"over again", func() {}, 2 * time.Minute, map[string]int{"eth0 192.0.2.10": 18}},
			{"another MAC", func() { mustSet(t, r, []Interface{{"eth0", 2, otherMAC, true}}, both...) }, 0,
				map[string]int{"eth0 192.0.2.10": 2, "eth0 2001:db8::10": 1}},
		}
		for _, s := range steps {
			s.do()
			if diff := cmp.Diff(s.want, heard(s.wait)); diff != "" {
				t.Fatalf("%s: %s", s.name, diff)
			}
		}
	})
}

// addresses are announcements of so many.
func addresses(n int) (many []Announcement) {
	addr := netip.MustParseAddr("10.0.0.0")
	for range n {
		addr = addr.Next()
		many = append(many, Announcement{Addr: addr, Interface: "eth0"})
	}
	return many
}

// With 10,000 addresses at once, each is announced within a second, and none for the second time before all were for the
// first.
func TestManyAnnouncementsInMemory(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		const n = 10_000
		start, heard := time.Now(), map[string]struct{}{}
		mustSet(t, r, testInterfaces, addresses(n)...)
		for len(heard) < 2*n && time.Since(start) < time.Minute { // ARP counts twice: there are two forms
			for _, sent := range m.take() {
				if _, again := heard[sent]; again {
					t.Fatalf("after %s, when %d were sent, again: %s", time.Since(start), len(heard), sent)
				}
				heard[sent] = struct{}{}
			}
			time.Sleep(time.Millisecond)
			synctest.Wait()
		}
		if took := time.Since(start); len(heard) != 2*n || took > 1010*time.Millisecond {
			t.Errorf("%d frames in %s", len(heard), took)
		}
	})
}

// timeline returns when what was sent, since a time.
func timeline(m *memory, since time.Time, d time.Duration) (sent []string) {
	for end := time.Now().Add(d); ; time.Sleep(time.Millisecond) {
		synctest.Wait()
		for _, s := range m.take() {
			what := "other"
			switch {
			case strings.Contains(s, "ARP request 0.0.0.0 "), strings.Contains(s, " NS :: "):
				what = "question"
			case strings.Contains(s, " ARP request "), strings.Contains(s, " NA "):
				what = "announcement"
			case strings.Contains(s, " ARP reply "):
				continue // the second form
			}
			if _, mark, ok := strings.Cut(s, " term "); ok {
				what += " " + mark
			}
			sent = append(sent, fmt.Sprint(time.Since(since), " ", what))
		}
		if !time.Now().Before(end) {
			return sent
		}
	}
}

func TestAsks(t *testing.T) {
	for _, addr := range []netip.Addr{v4, v6} {
		inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
			up, down := []Interface{{"eth0", 2, nodeMAC, true}}, []Interface{{"eth0", 2, nodeMAC, false}}
			once, again := Question{Addr: addr, Interface: "eth0"}, Question{Addr: addr, Interface: "eth0", Round: 1}
			often := Question{Addr: addr, Interface: "eth0", Round: 1, Every: 20 * time.Millisecond}
			seldom := Question{Addr: addr, Interface: "eth0", Round: 1, Every: 30 * time.Millisecond}
			steps := []struct {
				name       string
				interfaces []Interface
				questions  []Question
				wait       time.Duration
				want       []string
			}{
				{"twice", up, []Question{once}, 100 * time.Millisecond, []string{"0s question", "10ms question"}},
				{"the same", up, []Question{once, once}, 100 * time.Millisecond, nil},
				{"a new round", up, []Question{again}, 5 * time.Millisecond, []string{"0s question"}},
				{"often, from the middle of the round", up, []Question{often}, 50 * time.Millisecond,
					[]string{"5ms question", "25ms question", "45ms question"}},
				{"the same", up, []Question{often}, 25 * time.Millisecond, []string{"15ms question"}},
				{"seldom", up, []Question{seldom}, 70 * time.Millisecond, []string{"30ms question", "60ms question"}},
				{"no more", up, []Question{again}, 100 * time.Millisecond, nil},
				{"often again", up, []Question{often}, 25 * time.Millisecond, []string{"20ms question"}},
				{"gone", up, nil, 100 * time.Millisecond, nil},
				{"back", up, []Question{often}, 0, []string{"0s question"}},
				{"down", down, []Question{often}, 50 * time.Millisecond, nil},
				{"up", up, []Question{often}, 15 * time.Millisecond, []string{"0s question", "10ms question"}},
				{"the end", up, nil, 100 * time.Millisecond, nil},
			}
			for _, s := range steps {
				start := time.Now()
				mustAsk(t, r, s.interfaces, nil, s.questions...)
				if diff := cmp.Diff(s.want, timeline(m, start, s.wait)); diff != "" {
					t.Fatalf("%s: %s", s.name, diff)
				}
			}
			if len(r.schedule.runs) > 0 {
				t.Error("something is left in the schedule")
			}
		})
	}
}

func TestYields(t *testing.T) {
	for addr, answer := range map[netip.Addr]string{v4: arpAnswer, v6: ndpAnswer} {
		inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
			owner := Announcement{Addr: addr, Interface: "eth0", Term: 7}
			higher, yielding, self := owner, owner, Question{Addr: addr, Interface: "eth0", Every: 80 * time.Millisecond}
			higher.Term, yielding.Yielding = 8, true
			anew := higher
			anew.Round = 1
			steps := []struct {
				name         string
				announcement Announcement
				questions    []Question
				want         []string // within 200 ms
				mark         string
			}{
				{"announced", owner, nil, []string{"0s announcement 7", "100ms announcement 7"}, ""},
				{"yielding", yielding, nil, nil, " yielding"},
				{"still", yielding, nil, nil, " yielding"},
				{"not any more", owner, nil, []string{"0s announcement 7", "100ms announcement 7"}, ""},
				{"another term goes along with what is to come", higher, nil, []string{"100ms announcement 8"}, ""},
				{"a new round", anew, nil, []string{"0s announcement 8", "100ms announcement 8"}, ""},
				{"and asked about", anew, []Question{self},
					[]string{"0s question", "10ms question", "90ms question", "100ms announcement 8", "170ms question"}, ""},
			}
			for _, s := range steps {
				start := time.Now()
				mustAsk(t, r, testInterfaces, []Announcement{s.announcement}, s.questions...)
				if diff := cmp.Diff(s.want, timeline(m, start, 200*time.Millisecond)); diff != "" {
					t.Fatalf("%s: %s", s.name, diff)
				}
				want := "eth0: " + strings.Replace(answer, "term 7", fmt.Sprint("term ", s.announcement.Term), 1) + s.mark
				if got := ask(m, "eth0", request(addr)); got != want {
					t.Errorf("%s:\ngot  %s\nwant %s", s.name, got, want)
				}
			}
		})
	}
}

func TestFailuresAreRetried(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		refused := errors.New("no such device")
		m.setRefusal("eth0", refused)
		if err := r.Set(testInterfaces, testDesired, nil); !errors.Is(err, refused) {
			t.Errorf("Set returned %v", err)
		}
		if diff := cmp.Diff("eth1 arp\neth1 ndp\neth1 (3) groups ff02::1:ff00:11", m.String()); diff != "" {
			t.Errorf("the other interface must be served: %s", diff)
		}
		time.Sleep(10 * time.Second)
		m.setRefusal("eth0", nil)
		time.Sleep(30 * time.Second)
		if got := ask(m, "eth0", request(v4)); got != "eth0: "+arpAnswer {
			t.Errorf("not served when it was possible again: %q", got)
		}
	})
}

func TestFilterRefused(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		mustSet(t, r, testInterfaces, Announcement{Addr: v4other, Interface: "eth0"})
		m.conns["eth0 arp"].stuck = errors.New("out of memory")
		mustSet(t, r, testInterfaces, testDesired[0])
		synctest.Wait()
		if got := ask(m, "eth0", request(v4)); got != "eth0: "+arpAnswer {
			t.Errorf("got %q", got)
		}
	})
}

func TestInvalidAddresses(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		for _, s := range []string{"0.0.0.0", "::", "224.0.0.5", "ff02::1", "127.0.0.1", "::1", "255.255.255.255", "::ffff:192.0.2.1", "fe80::1%eth0"} {
			addr := netip.MustParseAddr(s)
			err := r.Set(testInterfaces, []Announcement{{Addr: addr, Interface: "eth0"}, {Addr: v4, Interface: "eth0"}},
				[]Question{{Addr: addr, Interface: "eth0"}, {Addr: v4, Interface: "eth0"}})
			if err == nil || !strings.Contains(err.Error(), "announcing "+s) || !strings.Contains(err.Error(), "asking for "+s) {
				t.Errorf("%s: got error %v", s, err)
			}
			if refused := Refused(err); len(refused) != 2 || refused[0].Addr != addr || refused[1].Addr != addr {
				t.Errorf("%s: refused %v", s, refused)
			}
			if got := m.String(); got != "eth0 arp" {
				t.Errorf("%s: the valid one is not served: %s", s, got)
			}
		}
		if err := r.Set(nil, []Announcement{{}}, nil); err == nil {
			t.Error("the zero address must be refused")
		}
	})
}

func TestObserve(t *testing.T) {
	var got []Claim
	o := Options{Observe: func(c Claim) { got = append(got, c) }}
	inMemory(t, o, func(t *testing.T, r *Responder, m *memory) {
		mustAsk(t, r, testInterfaces, testDesired, testQuestions...)
		for _, frame := range [][]byte{
			arpFrame(arplib.OperationReply, v4, host4), naFrame(v6, allNodes, false),
			naFrame(stranger6, allNodes, false), request(v4), arpFrame(arplib.OperationReply, v4other, host4),
			arpFrame(arplib.OperationReply, asked4, zero4), naFrame(asked6, allNodes, false),
			announcement(otherMAC, v4, saidFrom(otherMAC, v4, mark{9, true}))[0], announcement(secondMAC, v4, saidFrom(secondMAC, v4, mark{7, false}))[0],
		} {
			ask(m, "eth0", frame)
		}
		if got := ask(m, "eth0", arpFrame(arplib.OperationRequest, asked4, v4)); got == "" {
			t.Error("the host that has an address which is asked about got no answer")
		}
		now := time.Now()
		want := []Claim{
			{Addr: v4, Interface: "eth0", MAC: hostMAC, Time: now}, {Addr: v6, Interface: "eth0", MAC: hostMAC, Time: now},
			{Addr: asked4, Interface: "eth0", MAC: hostMAC, Time: now}, {Addr: asked6, Interface: "eth0", MAC: hostMAC, Time: now},
			{Addr: v4, Interface: "eth0", MAC: otherMAC, Marked: true, Unsigned: true, Term: 9, Yielding: true, Time: now},
			{Addr: asked4, Interface: "eth0", MAC: hostMAC, Time: now},
		}
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
			t.Error(diff)
		}
	})
}

func TestMetrics(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, r *Responder, m *memory) {
		mustAsk(t, r, testInterfaces, testDesired, testQuestions...)
		for _, frame := range [][]byte{
			request(v4), request(v6), request(v6), arpFrame(arplib.OperationReply, v4, host4), naFrame(asked6, allNodes, false),
		} {
			ask(m, "eth0", frame)
		}
		err := testutil.CollectAndCompare(r, strings.NewReader(`
# HELP herald_l2_addresses Addresses that are answered now, counted once for each interface.
# TYPE herald_l2_addresses gauge
herald_l2_addresses 4
# HELP herald_l2_replies_total ARP replies and solicited neighbour advertisements sent.
# TYPE herald_l2_replies_total counter
herald_l2_replies_total 3
# HELP herald_l2_requests_total ARP requests (arp) and neighbour solicitations (ndp) that passed the kernel's filter.
# TYPE herald_l2_requests_total counter
herald_l2_requests_total{protocol="arp"} 1
herald_l2_requests_total{protocol="ndp"} 2
# HELP herald_l2_announcements_total Gratuitous ARP frames (arp) and unsolicited neighbour advertisements (ndp) sent.
# TYPE herald_l2_announcements_total counter
herald_l2_announcements_total{protocol="arp"} 4
herald_l2_announcements_total{protocol="ndp"} 2
# HELP herald_l2_questions_total ARP probes (arp) and neighbour solicitations (ndp) sent to ask who has an address.
# TYPE herald_l2_questions_total counter
herald_l2_questions_total{protocol="arp"} 1
herald_l2_questions_total{protocol="ndp"} 1
`), "herald_l2_addresses", "herald_l2_questions_total", "herald_l2_replies_total", "herald_l2_requests_total", "herald_l2_announcements_total")
		if err != nil {
			t.Error(err)
		}
		if problems, err := testutil.CollectAndLint(r); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
		if got := r.counters.dropped[8].Load(); reasons[8] != Conflict || got != 1 {
			t.Errorf("%d frames dropped as %s, want one as Conflict", got, reasons[8])
		}
		if got := r.counters.dropped[9].Load(); reasons[9] != Answered || got != 1 {
			t.Errorf("%d frames dropped as %s, want one as Answered", got, reasons[9])
		}
	})
}

// BenchmarkSet is one address more or less, besides 10,000 that stay.
func BenchmarkSet(b *testing.B) {
	r := New(Options{})
	r.network = newMemory()
	r.start(klog.Background())
	defer r.stop()
	var desired []Announcement
	addr := netip.MustParseAddr("10.0.0.0")
	for range 10_000 {
		addr = addr.Next()
		desired = append(desired, Announcement{Addr: addr, Interface: "eth0"})
	}
	with := append(slices.Clone(desired), Announcement{Addr: v4, Interface: "eth0"})
	r.Set(testInterfaces, desired, nil)
	r.schedule = schedule{} // what is announced is not measured
	for b.Loop() {
		r.Set(testInterfaces, with, nil)
		r.Set(testInterfaces, desired, nil)
	}
}
