package health

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	beProxy()
	goleak.VerifyTestMain(m)
}

// memory is a service proxy in memory. It serves all addresses alike.
type memory struct {
	mu      sync.Mutex
	refuses bool
	hangs   chan struct{} // closed when it goes on; nil when it does not hang
	delay   time.Duration
	says    string // the whole HTTP answer
	closes  bool   // after each answer
	conns   []net.Conn
	dials   int
	probes  int
}

func httpAnswer(status int, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), len(body), body)
}

func (m *memory) dial(ctx context.Context, _ string) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dials++
	if m.refuses {
		return nil, syscall.ECONNREFUSED
	}
	ours, theirs := net.Pipe()
	m.conns = append(m.conns, ours)
	go m.serve(ours)
	return theirs, ctx.Err()
}

func (m *memory) serve(c net.Conn) {
	defer c.Close()
	for requests := bufio.NewReader(c); ; {
		if _, err := http.ReadRequest(requests); err != nil {
			return
		}
		m.mu.Lock()
		hangs, delay := m.hangs, m.delay
		m.mu.Unlock()
		if hangs != nil {
			<-hangs
		}
		time.Sleep(delay)
		m.mu.Lock()
		says, closes := m.says, m.closes
		m.probes++
		m.mu.Unlock()
		if _, err := c.Write([]byte(says)); err != nil || closes {
			return
		}
	}
}

func (m *memory) do(change func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	change()
}

func (m *memory) say(status int, body string) { m.do(func() { m.says = httpAnswer(status, body) }) }

// cut closes all connections.
func (m *memory) cut() {
	m.do(func() {
		for _, c := range m.conns {
			c.Close()
		}
		m.conns = nil
	})
}

func (m *memory) kill()   { m.do(func() { m.refuses = true }); m.cut() }
func (m *memory) revive() { m.do(func() { m.refuses = false }) }
func (m *memory) hang()   { m.do(func() { m.hangs = make(chan struct{}) }) }
func (m *memory) resume() { m.do(func() { close(m.hangs); m.hangs = nil }) }

// counts returns what has happened since it was called last.
func (m *memory) counts() (dials, probes int) {
	m.do(func() { dials, probes, m.dials, m.probes = m.dials, m.probes, 0, 0 })
	return dials, probes
}

// bubble is a running Prober, a service proxy in memory, and the changes seen.
type bubble struct {
	*Prober
	*memory
	mu      sync.Mutex
	changes []string
}

func (b *bubble) note(changes []Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range changes {
		b.changes = append(b.changes, fmt.Sprintf("%s %s→%s", c.Target.Kind, word(c.Before), word(c.Now)))
	}
	b.States() // may be called from here
}

func word(s State) string {
	if s.Healthy {
		return fmt.Sprintf("Healthy(%d)", s.LocalEndpoints)
	}
	return string(s.Reason)
}

func (b *bubble) take() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	taken := b.changes
	b.changes = nil
	return taken
}

func (b *bubble) wantChanges(t *testing.T, want ...string) {
	t.Helper()
	synctest.Wait()
	if diff := cmp.Diff(want, b.take()); diff != "" {
		t.Errorf("changes, -want +got:\n%s", diff)
	}
}

// within returns how long it takes until a change, and fails when that is longer than most.
func (b *bubble) within(t *testing.T, most time.Duration, want ...string) time.Duration {
	t.Helper()
	began := time.Now()
	for time.Since(began) < most+time.Millisecond {
		synctest.Wait()
		b.mu.Lock()
		enough := len(b.changes) >= len(want)
		b.mu.Unlock()
		if enough {
			break
		}
		time.Sleep(time.Millisecond)
	}
	took := time.Since(began)
	b.wantChanges(t, want...)
	if took > most {
		t.Errorf("took %v, more than %v", took, most)
	}
	return took
}

func inMemory(t *testing.T, o Options, test func(*testing.T, *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{memory: &memory{says: httpAnswer(200, proxyWell)}}
		o.Notify = b.note
		b.Prober = New(o)
		b.Prober.dial = b.memory.dial
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		synctest.Wait()
		test(t, b)
		if b.hangs != nil {
			b.resume()
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run returned %v", err)
		}
		for target, state := range b.States() {
			if state.Reason != Unknown {
				t.Errorf("after Run %s is %v", target.URL, state)
			}
		}
		b.cut()
		time.Sleep(b.delay) // the proxy may be about to answer
	})
}

func (b *bubble) mustSet(t *testing.T, targets ...Target) {
	t.Helper()
	if err := b.Set(targets); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestAsksOverOneConnection(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.mustSet(t, proxyTarget)
		b.wantChanges(t, "proxy Unknown→Healthy(0)")
		since := time.Now()
		time.Sleep(10 * time.Second)
		if want := (State{Healthy: true, Since: since}); b.States()[proxyTarget].notable() != want {
			t.Errorf("state %+v, want %+v", b.States()[proxyTarget], want)
		}
		dials, probes := b.counts()
		if dials != 1 || probes < 40 || probes > 51 {
			t.Errorf("%d connections and %d probes in 10 s", dials, probes)
		}
		b.wantChanges(t)
	})
}

func TestAnswersAreBelievedAtOnce(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.say(503, localNone)
		b.mustSet(t, webTarget)
		b.wantChanges(t, "local Unknown→NoLocalEndpoints")
		for _, step := range []struct {
			status     int
			body, want string
		}{
			{200, localTwo, "local NoLocalEndpoints→Healthy(2)"},
			{200, strings.Replace(localTwo, "2", "3", 1), "local Healthy(2)→Healthy(3)"},
			{503, localLagging, "local Healthy(3)→ProxyUnhealthy"},
			{200, localTwo, "local ProxyUnhealthy→Healthy(2)"},
		} {
			b.say(step.status, step.body)
			b.within(t, 500*time.Millisecond, step.want)
		}
		if dials, _ := b.counts(); dials != 1 {
			t.Errorf("%d connections", dials)
		}
	})
}

// Deaths and recoveries come at all phases of the interval.
func phases(yield func(time.Duration) bool) {
	for phase := 10 * time.Second; phase < 11*time.Second; phase += 37 * time.Millisecond {
		if !yield(phase) {
			return
		}
	}
}

func TestDeathIsNoticedByItsConnection(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		for phase := range phases {
			b.mustSet(t, proxyTarget)
			b.wantChanges(t, "proxy Unknown→Healthy(0)")
			time.Sleep(phase)
			b.kill()
			b.within(t, 51*time.Millisecond, "proxy Healthy(0)→ProxyUnreachable")
			time.Sleep(phase)
			b.revive()
			b.within(t, time.Second, "proxy ProxyUnreachable→Healthy(0)")
			b.mustSet(t)
		}
	})
}

func TestHangIsNoticedWithinASecond(t *testing.T) {
	for _, target := range []Target{proxyTarget, localTarget} {
		t.Run(string(target.Kind), func(t *testing.T) {
			inMemory(t, Options{}, func(t *testing.T, b *bubble) {
				b.say(200, localTwo) // will do for both
				word := "Healthy(0)"
				if target.Kind == Local {
					word = "Healthy(2)"
				}
				var worst time.Duration
				for phase := range phases {
					b.mustSet(t, target)
					b.wantChanges(t, fmt.Sprintf("%s Unknown→%s", target.Kind, word))
					time.Sleep(phase)
					b.hang()
					worst = max(worst, b.within(t, 950*time.Millisecond, fmt.Sprintf("%s %s→ProxyHung", target.Kind, word)))
					time.Sleep(phase)
					b.resume()
					b.within(t, time.Second, fmt.Sprintf("%s ProxyHung→%s", target.Kind, word))
					b.mustSet(t)
				}
				t.Logf("at worst after %v", worst)
			})
		})
	}
}

func TestLateAnswerCounts(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.memory.delay = 680 * time.Millisecond // after the 650 ms, within the grace
		b.mustSet(t, proxyTarget)
		b.within(t, 681*time.Millisecond, "proxy Unknown→Healthy(0)")
		time.Sleep(10 * time.Second)
		b.wantChanges(t)
	})
}

func TestOneCutConnectionIsNoDeath(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.mustSet(t, proxyTarget)
		b.wantChanges(t, "proxy Unknown→Healthy(0)")
		for range 10 {
			time.Sleep(2 * time.Second)
			b.counts()
			b.cut()
			synctest.Wait() // no time passes
			if dials, probes := b.counts(); dials != 1 || probes != 1 {
				t.Errorf("%d connections and %d probes after a cut", dials, probes)
			}
		}
		b.wantChanges(t)
	})
}

func TestOneRefusalIsNoDeath(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.mustSet(t, proxyTarget)
		time.Sleep(time.Second)
		b.take()
		b.kill()
		time.Sleep(10 * time.Millisecond)
		b.revive()
		time.Sleep(time.Second)
		b.wantChanges(t)
	})
}

// A server that closes after each answer, whether it says so or not, is not asked more often for it.
func TestClosingServerIsAskedAsOthers(t *testing.T) {
	for name, says := range map[string]string{
		"announced": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok",
		"silent":    httpAnswer(200, "ok"),
		"HTTP/1.0":  "HTTP/1.0 200 OK\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, Options{}, func(t *testing.T, b *bubble) {
				b.closes, b.says = true, says
				b.mustSet(t, proxyTarget)
				time.Sleep(10 * time.Second)
				if dials, probes := b.counts(); dials != probes || probes < 40 || probes > 51 {
					t.Errorf("%d connections and %d probes in 10 s", dials, probes)
				}
				b.wantChanges(t, "proxy Unknown→Healthy(0)")
			})
		})
	}
}

func TestAskedLessOftenWhileDown(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.refuses = true
		b.mustSet(t, proxyTarget)
		b.within(t, 51*time.Millisecond, "proxy Unknown→ProxyUnreachable")
		time.Sleep(10 * time.Second)
		b.counts()
		time.Sleep(100 * time.Second)
		if dials, _ := b.counts(); dials < 99 || dials > 126 {
			t.Errorf("%d connections tried in 100 s", dials)
		}
	})
}

func TestSetIsTheWhole(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.say(200, localTwo)
		b.mustSet(t, proxyTarget, webTarget)
		time.Sleep(3 * time.Second)
		before := b.States()
		b.counts()
		b.mustSet(t, webTarget, proxyTarget, proxyTarget)
		if dials, probes := b.counts(); dials != 0 || probes != 0 {
			t.Errorf("the same set again: %d connections, %d probes", dials, probes)
		}
		if diff := cmp.Diff(before, b.States()); diff != "" {
			t.Errorf("the same set again, -before +after:\n%s", diff)
		}
		b.take()
		b.mustSet(t, proxyTarget)
		if _, ok := b.States()[webTarget]; ok || len(b.States()) != 1 {
			t.Errorf("left: %v", b.States())
		}
		b.say(503, localNone)
		time.Sleep(3 * time.Second)
		b.wantChanges(t, "proxy Healthy(0)→ProxyUnhealthy")

		b.mustSet(t, proxyTarget, webTarget)
		b.wantChanges(t, "local Unknown→NoLocalEndpoints")
	})
}

func TestSetNamesWhatItCannotAsk(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		err := b.Set([]Target{
			{Kind: Proxy, URL: "https://127.0.0.1/healthz"}, {Kind: Proxy, URL: "http:///healthz"}, {Kind: Proxy, URL: "http://[::1/"},
			{Kind: "other", URL: "http://127.0.0.1/"}, proxyTarget,
		})
		if err == nil || strings.Count(err.Error(), "asking") != 4 {
			t.Errorf("error %v", err)
		}
		synctest.Wait()
		b.wantChanges(t, "proxy Unknown→Healthy(0)")
	})
}

func TestSetBeforeRunIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &memory{says: httpAnswer(200, proxyWell)}
		p := New(Options{})
		p.dial = m.dial
		if err := p.Set([]Target{proxyTarget}); err != nil {
			t.Fatal(err)
		}
		for range 2 { // it may be run again
			if s := p.States()[proxyTarget]; s.Healthy || s.Reason != Unknown {
				t.Errorf("before Run: %+v", s)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- p.Run(ctx) }()
			synctest.Wait()
			if s := p.States()[proxyTarget]; !s.Healthy {
				t.Errorf("while it runs: %+v", s)
			}
			if err := p.Run(ctx); err == nil {
				t.Error("ran twice at once")
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}

// A thousand targets keep one connection each, and all of them are seen to die.
func TestManyTargets(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.say(200, localTwo)
		var targets []Target
		for i := range 1000 {
			targets = append(targets, Target{Kind: Local, URL: fmt.Sprintf("http://192.0.2.1:%d/", 30000+i), Service: "default/web"})
		}
		b.mustSet(t, targets...)
		time.Sleep(3 * time.Second)
		if dials, _ := b.counts(); dials != 1000 {
			t.Errorf("%d connections", dials)
		}
		b.take()
		b.kill()
		time.Sleep(51 * time.Millisecond)
		synctest.Wait()
		if seen := b.take(); len(seen) != 1000 || slices.ContainsFunc(seen, func(s string) bool { return s != "local Healthy(2)→ProxyUnreachable" }) {
			t.Errorf("%d changes", len(seen))
		}
	})
}

func TestMetrics(t *testing.T) {
	inMemory(t, Options{}, func(t *testing.T, b *bubble) {
		b.mustSet(t, proxyTarget, webTarget) // the answer is none for a Local target
		time.Sleep(60 * time.Millisecond)
		const want = `
# HELP herald_health_healthy Targets that are healthy now.
# TYPE herald_health_healthy gauge
herald_health_healthy{kind="local"} 0
herald_health_healthy{kind="proxy"} 1
# HELP herald_health_probes_total Probes of the service proxy (proxy) and of health check node ports (local), by result: Healthy or why not.
# TYPE herald_health_probes_total counter
herald_health_probes_total{kind="local",result="GarbledAnswer"} 2
herald_health_probes_total{kind="local",result="Healthy"} 0
herald_health_probes_total{kind="proxy",result="Healthy"} 1
`
		if err := testutil.CollectAndCompare(b, strings.NewReader(want), "herald_health_healthy", "herald_health_probes_total"); err != nil {
			t.Error(err)
		}
		if problems, err := testutil.CollectAndLint(b); err != nil || len(problems) > 0 {
			t.Error(problems, err)
		}
	})
}
