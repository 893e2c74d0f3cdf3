package failover

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Summary is what the rounds of a case come to.
type Summary struct {
	Case   Case
	Traces []Trace
	// Errors counts the rounds that could not be played, or did not end well.
	Errors int
}

// String is the line that the benchmark prints. The milliseconds are those of
// [Trace.Gap] over the rounds; failed and moves are sums. move_ms is the longest
// that it took until another node answered, dual_ms the longest that two did.
func (s Summary) String() string {
	var gaps []time.Duration
	var move, dual time.Duration
	failed, moves := 0, 0
	for _, t := range s.Traces {
		gaps = append(gaps, t.Gap())
		failed += len(t.Failed())
		moves += len(t.Moves())
		move, dual = max(move, t.FirstClaim()), max(dual, t.Dual())
	}
	line := fmt.Sprintf("case=%s rounds=%d p50_ms=%d p99_ms=%d max_ms=%d failed=%d moves=%d", s.Case.Name, len(s.Traces),
		milliseconds(percentile(gaps, 50)), milliseconds(percentile(gaps, 99)), milliseconds(percentile(gaps, 100)), failed, moves)
	if s.Case.Moves > 0 {
		line += fmt.Sprintf(" move_ms=%d", milliseconds(move))
	}
	if s.Case.Dual {
		line += fmt.Sprintf(" dual_ms=%d", milliseconds(dual))
	}
	if s.Errors > 0 {
		line += fmt.Sprintf(" errors=%d", s.Errors)
	}
	return line
}

// percentile is the least value that so many percent of all do not exceed (the
// nearest rank), 0 of none.
func percentile(values []time.Duration, percent float64) time.Duration {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(percent / 100 * float64(len(sorted))))
	return sorted[max(rank, 1)-1]
}

func milliseconds(d time.Duration) int64 { return d.Round(time.Millisecond).Milliseconds() }
