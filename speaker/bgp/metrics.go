package bgp

import (
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	sessionsDesc = prometheus.NewDesc("herald_bgp_sessions",
		"BGP sessions, by peer and state: 1 for the state that it is in.", []string{"peer", "state"}, nil)
	advertisedDesc = prometheus.NewDesc("herald_bgp_advertised_routes",
		"Routes advertised, by peer and family.", []string{"peer", "family"}, nil)
	refusedDesc = prometheus.NewDesc("herald_bgp_refused_routes_total",
		"Routes that a peer has advertised to us, which are all refused.", []string{"peer"}, nil)
	transitionsDesc = prometheus.NewDesc("herald_bgp_transitions_total",
		"How often a session was established or lost, by peer.", []string{"peer"}, nil)
)

// Describe is of prometheus.Collector.
func (s *Speaker) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{sessionsDesc, advertisedDesc, refusedDesc, transitionsDesc} {
		descs <- d
	}
}

// Collect is of prometheus.Collector.
func (s *Speaker) Collect(metrics chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, v float64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, labels...)
	}
	s.board.mu.Lock()
	defer s.board.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(s.board.entries)) {
		e := s.board.entries[name]
		now := e.now()
		for _, state := range states {
			gauge(sessionsDesc, float64(b2i(state == now.State)), name, state)
		}
		for _, f := range []Family{IPv4, IPv6} {
			gauge(advertisedDesc, float64(now.Advertised[f]), name, string(f))
		}
		metrics <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(now.RefusedRoutes), name)
		metrics <- prometheus.MustNewConstMetric(transitionsDesc, prometheus.CounterValue, float64(e.transitions), name)
	}
}
