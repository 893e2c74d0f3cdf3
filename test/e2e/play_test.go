package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// plays bounds how often a scene is played.
	plays = 5
	// still is for how long this process may not run before a scene that went wrong says nothing of Herald: speakers and
	// routers are other processes, and count on a packet each 300 ms.
	still = 200 * time.Millisecond
	// lateBound is the bound of the speakers' histogram with the same meaning.
	lateBound = `le="0.2"`
)

// play plays a scene in which Herald, its routers and clients count on being run when their time has come. When it goes wrong and a process
// was seen not to be run, as on a machine that others keep busy, it is played again.
func play(t *testing.T, scene func(t testing.TB)) {
	t.Helper()
	for n := 1; ; n++ {
		watch := watchMachine(t)
		failures := (&attempt{TB: t}).run(scene)
		excuse := watch.end()
		if len(failures) == 0 {
			return
		}
		said := strings.Join(failures, "\n")
		if excuse == "" || n == plays {
			t.Fatalf("play %d: %s\nthe machine: %s", n, said, excuse)
		}
		t.Logf("play %d went wrong while %s, so it is played again: %s", n, excuse, said)
	}
}

// attempt is a test of which it is not decided yet whether its failures count.
type attempt struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex
	failures []string
	cleanups []func()
}

// run runs a test and its clean-ups, and returns in what it failed.
func (a *attempt) run(test func(testing.TB)) []string {
	ctx, cancel := context.WithCancel(a.TB.Context())
	a.ctx = ctx
	part(func() { test(a) })
	cancel()
	for {
		a.mu.Lock()
		last := len(a.cleanups) - 1
		if last < 0 {
			a.mu.Unlock()
			return a.failures
		}
		cleanup := a.cleanups[last]
		a.cleanups = a.cleanups[:last]
		a.mu.Unlock()
		part(cleanup)
	}
}

// part runs what FailNow may end.
func part(f func()) {
	var running sync.WaitGroup
	running.Go(f)
	running.Wait()
}

func (a *attempt) Context() context.Context { return a.ctx }

func (a *attempt) Cleanup(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cleanups = append(a.cleanups, f)
}

func (a *attempt) fail(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.failures = append(a.failures, strings.TrimSpace(text))
}

func (a *attempt) Failed() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.failures) > 0
}

func (a *attempt) Fail()                             { a.fail("failed") }
func (a *attempt) FailNow()                          { a.Fail(); runtime.Goexit() }
func (a *attempt) Error(args ...any)                 { a.fail(fmt.Sprintln(args...)) }
func (a *attempt) Errorf(format string, args ...any) { a.fail(fmt.Sprintf(format, args...)) }
func (a *attempt) Fatal(args ...any)                 { a.Error(args...); runtime.Goexit() }
func (a *attempt) Fatalf(format string, args ...any) { a.Errorf(format, args...); runtime.Goexit() }

// machine watches whether processes are run when their time has come: this one, and the speakers, which count how late they are.
type machine struct {
	stop    context.CancelFunc
	ended   sync.WaitGroup
	longest time.Duration
	late    map[string]int
}

func watchMachine(t testing.TB) *machine {
	ctx, stop := context.WithCancel(t.Context())
	m := &machine{stop: stop, late: lateSpeakers()}
	m.ended.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for last := time.Now(); ctx.Err() == nil; <-ticker.C {
			now := time.Now()
			m.longest = max(m.longest, now.Sub(last))
			last = now
		}
	})
	return m
}

// end says who was not run when; empty when everybody was, as far as seen.
func (m *machine) end() string {
	m.stop()
	m.ended.Wait()
	var excuses []string
	if m.longest >= still {
		excuses = append(excuses, fmt.Sprintf("this process stood still for %v", m.longest.Round(time.Millisecond)))
	}
	for node, count := range lateSpeakers() {
		if count < m.late[node] {
			m.late[node] = 0 // another process
		}
		if more := count - m.late[node]; more > 0 {
			excuses = append(excuses, fmt.Sprintf("the speaker of %s sent %d packets of BFD more than %v late", node, more, still))
		}
	}
	return strings.Join(excuses, ", ")
}

// lateSpeakers counts the packets of BFD that each speaker sent late. One that does not answer is left out.
func lateSpeakers() map[string]int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	late := map[string]int{}
	for _, node := range box.Nodes() {
		metrics, err := box.Get(ctx, node, "http://127.0.0.1:7472/metrics")
		if err != nil {
			continue
		}
		if count, err := lateOf(metrics); err == nil {
			late[node] = count
		}
	}
	return late
}

// lateOf reads the histogram of a speaker.
func lateOf(metrics string) (late int, err error) {
	const name = "herald_bfd_transmit_lateness_seconds_"
	total, inTime := -1, -1
	for lines := bufio.NewScanner(strings.NewReader(metrics)); lines.Scan(); {
		series, value, _ := strings.Cut(lines.Text(), " ")
		switch {
		case strings.HasPrefix(series, name+"count"):
			total, err = strconv.Atoi(value)
		case strings.HasPrefix(series, name+"bucket") && strings.Contains(series, lateBound):
			inTime, err = strconv.Atoi(value)
		}
		if err != nil {
			return 0, err
		}
	}
	if total < 0 || inTime < 0 {
		return 0, errors.New("there is no histogram of BFD")
	}
	return total - inTime, nil
}

func TestAnAttemptKeepsItsFailuresAndCleansUp(t *testing.T) {
	var order []string
	failures := (&attempt{TB: t}).run(func(t testing.TB) {
		ctx := t.Context()
		t.Cleanup(func() { order = append(order, "first") })
		t.Cleanup(func() {
			if ctx.Err() == nil {
				t.Error("the context lives while it is cleaned up")
			}
			order = append(order, "second")
			t.Fatal("cleaning up")
		})
		t.Error("an", "error")
		if !t.Failed() {
			order = append(order, "not failed")
		}
		must := func() { t.Fatalf("the %s", "end") }
		must()
		order = append(order, "after the end")
	})
	if got, want := fmt.Sprintf("%q", failures), `["an error" "the end" "cleaning up"]`; got != want {
		t.Errorf("failures %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(order), "[second first]"; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	if failures := (&attempt{TB: t}).run(func(testing.TB) {}); len(failures) > 0 {
		t.Errorf("failures of nothing: %q", failures)
	}
}

func TestSpeakersSayHowLateTheyAre(t *testing.T) {
	for _, node := range box.Nodes() {
		metrics, err := box.Get(t.Context(), node, "http://127.0.0.1:7472/metrics")
		if err != nil {
			t.Fatal(err)
		}
		if late, err := lateOf(metrics); err != nil || late < 0 {
			t.Errorf("%s: %d late, %v", node, late, err)
		}
	}
}
