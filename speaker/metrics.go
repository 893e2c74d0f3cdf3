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
	seen          map[v1alpha1.Reason]bool
}

func newMetrics() metrics {
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
		seen: map[v1alpha1.Reason]bool{},
	}
}

func (m *metrics) register(registerer prometheus.Registerer) error {
	if registerer == nil {
		return nil
	}
	return errors.Join(registerer.Register(m.decideSeconds), registerer.Register(m.announced), registerer.Register(m.withheld))
}

func (m *metrics) decided(took time.Duration, d Decision) {
	m.decideSeconds.Observe(took.Seconds())
	announced, withheld := 0, map[v1alpha1.Reason]int{}
	for _, verdict := range d.Verdicts {
		if verdict.Reason == "" {
			announced++
			continue
		}
		withheld[verdict.Reason]++
		m.seen[verdict.Reason] = true
	}
	m.announced.Set(float64(announced))
	for reason := range m.seen {
		m.withheld.WithLabelValues(string(reason)).Set(float64(withheld[reason]))
	}
}
