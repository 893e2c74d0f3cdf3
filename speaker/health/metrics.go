package health

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// resultHealthy is the result of a probe that has no Reason.
const resultHealthy = "Healthy"

type metrics struct {
	probes  *prometheus.CounterVec
	seconds *prometheus.HistogramVec
}

func newMetrics() metrics {
	m := metrics{
		probes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "herald_health_probes_total",
			Help: "Probes of the service proxy (proxy) and of health check node ports (local), by result: Healthy or why not.",
		}, []string{"kind", "result"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "herald_health_duration_seconds",
			Help:    "Time that a probe took, until its answer or until it was given up.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 12), // up to 1 s
		}, []string{"kind"}),
	}
	for _, k := range kinds {
		m.probes.WithLabelValues(string(k), resultHealthy)
		m.seconds.WithLabelValues(string(k))
	}
	return m
}

func (m metrics) observe(k Kind, r Reason, took time.Duration) {
	result := string(r)
	if r == "" {
		result = resultHealthy
	}
	m.probes.WithLabelValues(string(k), result).Inc()
	m.seconds.WithLabelValues(string(k)).Observe(took.Seconds())
}

var healthyDesc = prometheus.NewDesc("herald_health_healthy", "Targets that are healthy now.", []string{"kind"}, nil)

// Describe is of prometheus.Collector.
func (p *Prober) Describe(descs chan<- *prometheus.Desc) {
	p.metrics.probes.Describe(descs)
	p.metrics.seconds.Describe(descs)
	descs <- healthyDesc
}

// Collect is of prometheus.Collector.
func (p *Prober) Collect(metrics chan<- prometheus.Metric) {
	p.metrics.probes.Collect(metrics)
	p.metrics.seconds.Collect(metrics)
	healthy := map[Kind]int{}
	for t, s := range p.States() {
		if s.Healthy {
			healthy[t.Kind]++
		}
	}
	for _, k := range kinds {
		metrics <- prometheus.MustNewConstMetric(healthyDesc, prometheus.GaugeValue, float64(healthy[k]), string(k))
	}
}
