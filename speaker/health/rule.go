package health

import "time"

const (
	// failuresUntilDown in a row make a target unhealthy: a connection may be refused or cut once while a proxy restarts.
	failuresUntilDown = 2
	// retryLeast and retryMost are the pauses after the first failure, and after many: they double in between.
	retryLeast, retryMost = 50 * time.Millisecond, time.Second
)

// progress is what is remembered of a target between two probes.
type progress struct {
	State
	failures int // in a row
}

// next is the rule by which a target is declared dead or alive:
//
//   - What a service proxy answers is believed at once, yes or no, and it is asked again after the interval.
//   - Without an answer in the time that a probe may take it is dead at once (ProxyHung): it has had its chance.
//   - Other failures make it dead when there are two in a row, 50 ms apart; until then it stays what it was.
//   - After failures it is asked again after 50, 100, 200, 400, 800 ms, and then every second.
//
// A connection that closes between two probes is no failure, but calls for the next probe at once; see probe.wait.
func (p progress) next(a answer, interval time.Duration, now time.Time) (progress, time.Duration) {
	if !a.reason.failed() {
		return p.become(a, now), interval
	}
	failures := p.failures + 1
	if a.reason == ProxyHung || failures >= failuresUntilDown {
		p = p.become(a, now)
	}
	p.failures = failures
	return p, min(retryLeast<<min(failures-1, 10), retryMost)
}

// become leaves Since alone when only the number of endpoints changes.
func (p progress) become(a answer, now time.Time) progress {
	s := State{Healthy: a.reason == "", Reason: a.reason, LocalEndpoints: a.localEndpoints, Since: p.Since, Written: a.written}
	if s.Reason != p.Reason || p.Since.IsZero() {
		s.Since = now
	}
	return progress{State: s}
}
