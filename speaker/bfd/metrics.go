package bfd

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// counters are written by the loop alone.
type counters struct {
	sent, received atomic.Uint64
	transitions    atomic.Uint64
	dropped        [len(reasons)]atomic.Uint64
	realTime       atomic.Bool

	lateness    [len(latenessBounds) + 1]atomic.Uint64
	latenessSum atomic.Int64 // ns
	latest      atomic.Int64 // ns
}

var latenessBounds = [...]time.Duration{
	100 * time.Microsecond, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 500 * time.Millisecond,
}

// drop counts a packet. Counting by index, not by a map, keeps the receive path free of locks.
func (c *counters) drop(reason Reason) {
	for i := range reasons {
		if reasons[i] == reason {
			c.dropped[i].Add(1)
		}
	}
}

// late counts a transmission by how long after its time it was.
func (c *counters) late(by time.Duration) {
	i := 0
	for i < len(latenessBounds) && by > latenessBounds[i] {
		i++
	}
	c.lateness[i].Add(1)
	c.latenessSum.Add(int64(by))
	if int64(by) > c.latest.Load() {
		c.latest.Store(int64(by))
	}
}

var (
	sessionsDesc = prometheus.NewDesc("herald_bfd_sessions",
		"BFD sessions, by state.", []string{"state"}, nil)
	transitionsDesc = prometheus.NewDesc("herald_bfd_transitions_total",
		"Changes of state of all sessions.", nil, nil)
	sentDesc = prometheus.NewDesc("herald_bfd_sent_total",
		"Packets sent.", nil, nil)
	receivedDesc = prometheus.NewDesc("herald_bfd_received_total",
		"Packets received that were in order.", nil, nil)
	droppedDesc = prometheus.NewDesc("herald_bfd_dropped_total",
		"Packets that were refused, or could not be sent, by reason.", []string{"reason"}, nil)
	latenessDesc = prometheus.NewDesc("herald_bfd_transmit_lateness_seconds",
		"Time from when a periodic packet was due to when it was sent, in seconds.", nil, nil)
	latestDesc = prometheus.NewDesc("herald_bfd_transmit_lateness_max_seconds",
		"The longest time from when a periodic packet was due to when it was sent, in seconds.", nil, nil)
	realTimeDesc = prometheus.NewDesc("herald_bfd_realtime",
		"Whether packets are sent and received by a thread with real-time priority.", nil, nil)
)

// Describe is of prometheus.Collector.
func (w *Watcher) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		sessionsDesc, transitionsDesc, sentDesc, receivedDesc, droppedDesc, latenessDesc, latestDesc, realTimeDesc,
	} {
		descs <- d
	}
}

// Collect is of prometheus.Collector.
func (w *Watcher) Collect(metrics chan<- prometheus.Metric) {
	count := func(desc *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	c := &w.counters
	count(transitionsDesc, &c.transitions)
	count(sentDesc, &c.sent)
	count(receivedDesc, &c.received)
	for i, reason := range reasons {
		count(droppedDesc, &c.dropped[i], string(reason))
	}
	var sessions [Up + 1]int
	for _, s := range w.States() {
		sessions[s.State]++
	}
	for state, n := range sessions {
		gauge(sessionsDesc, float64(n), State(state).String())
	}
	gauge(latestDesc, time.Duration(c.latest.Load()).Seconds())
	realTime := 0.0
	if c.realTime.Load() {
		realTime = 1
	}
	gauge(realTimeDesc, realTime)
	metrics <- c.histogram()
}

func (c *counters) histogram() prometheus.Metric {
	buckets, total := map[float64]uint64{}, uint64(0)
	for i, bound := range latenessBounds {
		total += c.lateness[i].Load()
		buckets[bound.Seconds()] = total
	}
	total += c.lateness[len(latenessBounds)].Load()
	return prometheus.MustNewConstHistogram(latenessDesc, total, time.Duration(c.latenessSum.Load()).Seconds(), buckets)
}
