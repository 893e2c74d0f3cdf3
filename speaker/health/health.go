// Package health asks the service proxy of this node what it can serve.
//
// A service proxy that dies is noticed at once, by its connections, and one that hangs within a second; one that is back
// is noticed within a second.
package health

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/klog/v2"
)

// Kind of a Target.
type Kind string

const (
	// Proxy is the service proxy as a whole: the /healthz of kube-proxy, or of another that answers 200 or 503.
	Proxy Kind = "proxy"
	// Local is the health check node port of a Service whose external traffic policy is Local.
	Local Kind = "local"
)

var kinds = [...]Kind{Proxy, Local}

// DefaultProxyURL is where kube-proxy answers unless it is told otherwise.
const DefaultProxyURL = "http://127.0.0.1:10256/healthz"

// Target is something to ask.
type Target struct {
	Kind Kind
	// URL begins with http://. For a Local one its host is the address of the node that the proxy serves node ports on by
	// default.
	URL string
	// Service is the namespace/name that a Local target has to answer for; empty for any.
	Service string
}

// State of a target. A target that is not known is not healthy, and neither is the zero value.
type State struct {
	Healthy bool
	// Reason is empty when the target is healthy.
	Reason Reason
	// LocalEndpoints is the number of ready endpoints on this node, for a Local target that has answered.
	LocalEndpoints int
	// Since is when Reason became what it is.
	Since time.Time
	// Written is when the proxy last wrote its rules, for a Proxy target. It changes without a Change.
	Written Written
}

// Change is a State that has become another.
type Change struct {
	Target      Target
	Before, Now State
}

// Options of a Prober. The zero value will do.
type Options struct {
	// ProxyInterval and LocalInterval are the time between two probes of a target that answers, by default 250 and 500 ms.
	// They are shortened at random by up to a fifth.
	ProxyInterval, LocalInterval time.Duration
	// HangTime is after how long a target that hangs is not healthy, by default 900 ms. What is left of it after the interval
	// is how long an answer may take, but at least 100 ms.
	HangTime time.Duration
	// Notify is told of changes, in order, one call at a time. It must not block; it may call States and Set. It may still be
	// told of a target that Set is just taking away.
	Notify func([]Change)
}

// Prober asks its targets while it runs. It is a prometheus.Collector.
type Prober struct {
	options Options
	dial    dialFunc
	metrics metrics
	hosts   atomic.Pointer[[]netip.Addr]

	notifying sync.Mutex // held while a change is stored and told, so that changes are told in order

	mu      sync.Mutex
	ctx     context.Context // of Run while it runs, else nil
	targets map[Target]*worker
	working sync.WaitGroup
}

// worker is the goroutine of a target. The Prober's mu guards it.
type worker struct {
	stop  context.CancelFunc // nil when it is not running
	state State
}

// New returns a Prober that does nothing until it is run.
func New(o Options) *Prober {
	if o.ProxyInterval <= 0 {
		o.ProxyInterval = 250 * time.Millisecond
	}
	if o.LocalInterval <= 0 {
		o.LocalInterval = 500 * time.Millisecond
	}
	if o.HangTime <= 0 {
		o.HangTime = 900 * time.Millisecond
	}
	return &Prober{options: o, dial: dialTCP, metrics: newMetrics(), targets: map[Target]*worker{}}
}

// Run asks until ctx is done; then all connections are closed, all targets Unknown, and it returns nil.
func (p *Prober) Run(ctx context.Context) error {
	if err := p.start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	p.stop()
	p.working.Wait()
	return nil
}

func (p *Prober) start(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ctx != nil {
		return errors.New("the prober is running already")
	}
	p.ctx = ctx
	for t := range p.targets {
		p.work(ctx, t)
	}
	return nil
}

func (p *Prober) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ctx = nil
	for t, w := range p.targets {
		w.stop()
		p.targets[t] = newWorker()
	}
}

// Set replaces the targets. New ones are Unknown and asked at once; what is known of the others stays. Calling it again
// with the same set changes nothing. Before Run, the set is kept.
//
// An error concerns the targets it names, which are not asked; all others are.
func (p *Prober) Set(targets []Target) error {
	var invalid []error
	desired := make(map[Target]struct{}, len(targets))
	for _, t := range targets {
		if err := t.validate(); err != nil {
			invalid = append(invalid, fmt.Errorf("asking %q: %w", t.URL, err))
			continue
		}
		desired[t] = struct{}{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.targets, func(t Target, w *worker) bool {
		_, keep := desired[t]
		if !keep && w.stop != nil {
			w.stop()
		}
		return !keep
	})
	for t := range desired {
		if p.targets[t] != nil {
			continue
		}
		p.targets[t] = newWorker()
		if p.ctx != nil {
			p.work(p.ctx, t)
		}
	}
	return errors.Join(invalid...)
}

// SetHosts replaces the addresses of this node that a Local target may answer on, besides the one in its URL and the loopback
// of its family. A target is asked at the others when there is no right answer at the one.
func (p *Prober) SetHosts(hosts []netip.Addr) {
	hosts = slices.Clone(hosts)
	p.hosts.Store(&hosts)
}

func (p *Prober) elsewhere() []netip.Addr {
	if hosts := p.hosts.Load(); hosts != nil {
		return *hosts
	}
	return nil
}

// States returns the state of each target.
func (p *Prober) States() map[Target]State {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make(map[Target]State, len(p.targets))
	for t, w := range p.targets {
		states[t] = w.state
	}
	return states
}

func (t Target) validate() error {
	u, err := url.Parse(t.URL)
	switch {
	case err != nil:
		return err
	case t.Kind != Proxy && t.Kind != Local:
		return fmt.Errorf("there is no kind %q", t.Kind)
	case u.Scheme != "http":
		return errors.New("the URL does not begin with http://")
	case u.Hostname() == "":
		return errors.New("the URL has no host")
	}
	return nil
}

func newWorker() *worker {
	return &worker{state: State{Reason: Unknown, Since: time.Now()}}
}

// work starts the goroutine of a target. The caller holds mu.
func (p *Prober) work(ctx context.Context, t Target) {
	w := p.targets[t]
	ctx, cancel := context.WithCancel(ctx)
	w.stop = cancel
	known := progress{State: w.state}
	interval := p.options.interval(t.Kind)
	asker := newProbe(ctx, t, p.dial, max(p.options.HangTime-interval, 100*time.Millisecond), p.elsewhere)
	p.working.Go(func() {
		defer cancel()
		p.ask(ctx, w, t, known, asker)
	})
}

func (o *Options) interval(k Kind) time.Duration {
	if k == Proxy {
		return o.ProxyInterval
	}
	return o.LocalInterval
}

// ask asks one target until ctx is done.
func (p *Prober) ask(ctx context.Context, w *worker, t Target, known progress, asker *probe) {
	defer asker.close()
	for {
		began := time.Now()
		a, err := asker.ask(ctx)
		if ctx.Err() != nil {
			return
		}
		now := time.Now()
		p.metrics.observe(t.Kind, a.reason, now.Sub(began))
		before := known.State
		var pause time.Duration
		known, pause = known.next(a, p.options.interval(t.Kind), now)
		if known.State != before {
			p.change(ctx, w, Change{t, before, known.State}, err)
		}
		asker.wait(ctx, jitter(pause))
		if ctx.Err() != nil {
			return
		}
	}
}

// change stores a change and tells it.
func (p *Prober) change(ctx context.Context, w *worker, c Change, err error) {
	p.notifying.Lock()
	defer p.notifying.Unlock()
	if !p.store(w, c) {
		return
	}
	log := klog.FromContext(ctx)
	if c.Target.Kind == Local {
		log = log.V(2) // there may be a thousand of them
	}
	log.Info("Health changed", "kind", c.Target.Kind, "service", c.Target.Service, "url", c.Target.URL,
		"healthy", c.Now.Healthy, "reason", c.Now.Reason, "before", c.Before.Reason,
		"localEndpoints", c.Now.LocalEndpoints, "err", err)
	if p.options.Notify != nil {
		p.options.Notify([]Change{c})
	}
}

// notable is what of a state calls for a Change.
func (s State) notable() State {
	s.Written = Written{}
	return s
}

// store is false when the target has been taken away in the meantime, or nobody needs to be told.
func (p *Prober) store(w *worker, c Change) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.targets[c.Target] != w {
		return false
	}
	w.state = c.Now
	return c.Now.notable() != c.Before.notable()
}

var _ prometheus.Collector = (*Prober)(nil)
