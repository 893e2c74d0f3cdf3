package speaker

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// metrics of a speaker beside those of its responder.
type metrics struct {
	decideSeconds prometheus.Histogram
	announced     prometheus.Gauge
	withheld      *prometheus.GaugeVec
	advertised    prometheus.Gauge
	unadvertised  *prometheus.GaugeVec
	moves         *prometheus.CounterVec
	conflicts     prometheus.Gauge
	age           prometheus.GaugeFunc
	// seen are the reasons that a gauge has had: those that hold no more are 0 there.
	seen map[*prometheus.GaugeVec]map[v1alpha1.Reason]bool
}

// newMetrics returns metrics; age is how old in seconds what the speaker knows may be.
func newMetrics(age func() float64) metrics {
	return metrics{
		decideSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "herald_speaker_decide_duration_seconds",
			Help:    "Time from a change to its being in force, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16),
		}),
		announced: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_speaker_announced_virtualips",
			Help: "VirtualIPs that this node announces.",
		}),
		withheld: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_speaker_withheld_virtualips",
			Help: "VirtualIPs that this node does not announce, by reason.",
		}, []string{"reason"}),
		advertised: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_speaker_advertised_virtualips",
			Help: "VirtualIPs that this node advertises by BGP.",
		}),
		unadvertised: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "herald_speaker_unadvertised_virtualips",
			Help: "VirtualIPs that are to be advertised by BGP and are not from this node, by reason.",
		}, []string{"reason"}),
		moves: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_speaker_role_changes_total",
			Help: "Changes of this node's role for an address, by the role that it has now: Owning, Yielding, Waiting, Blocked or Idle.",
		}, []string{"role"}),
		conflicts: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "herald_speaker_conflicting_virtualips",
			Help: "VirtualIPs that a foreign host answers for, as seen from this node.",
		}),
		age: prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "herald_speaker_state_age_seconds",
			Help: "Time since the API server was heard, in seconds: what the speaker goes by may be as old.",
		}, age),
		seen: map[*prometheus.GaugeVec]map[v1alpha1.Reason]bool{},
	}
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	var failed []error
	for _, c := range []prometheus.Collector{m.decideSeconds, m.announced, m.withheld, m.advertised, m.unadvertised, m.moves, m.conflicts, m.age} {
		failed = append(failed, registerer.Register(c))
	}
	return errors.Join(failed...)
}

func (m *metrics) decided(took time.Duration, before, d *Decision) {
	m.decideSeconds.Observe(took.Seconds())
	if before == nil {
		before = &Decision{}
	}
	for name, role := range d.Roles {
		if role.Phase != before.Roles[name].Phase && role.Phase != Asking {
			m.moves.WithLabelValues(phaseName(role.Phase)).Inc()
		}
	}
	conflicts := 0
	announced, advertised := map[v1alpha1.Reason]int{}, map[v1alpha1.Reason]int{}
	for _, verdict := range d.Verdicts {
		if verdict.Conflict {
			conflicts++
		}
		announced[verdict.Reason]++
	}
	for _, verdict := range d.Routed {
		advertised[verdict.Reason]++
	}
	m.conflicts.Set(float64(conflicts))
	m.count(m.announced, m.withheld, announced)
	m.count(m.advertised, m.unadvertised, advertised)
}

// count says how many have no reason against them, and how many have which.
func (m *metrics) count(without prometheus.Gauge, with *prometheus.GaugeVec, counts map[v1alpha1.Reason]int) {
	without.Set(float64(counts[""]))
	delete(counts, "")
	if m.seen[with] == nil {
		m.seen[with] = map[v1alpha1.Reason]bool{}
	}
	for reason := range counts {
		m.seen[with][reason] = true
	}
	for reason := range m.seen[with] {
		with.WithLabelValues(string(reason)).Set(float64(counts[reason]))
	}
}
