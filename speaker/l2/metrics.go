package l2

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

type counters struct {
	requests      [len(protocols)]atomic.Uint64
	announcements [len(protocols)]atomic.Uint64
	questions     [len(protocols)]atomic.Uint64
	replies       atomic.Uint64
	dropped       [len(reasons)]atomic.Uint64
	marks         [len(worths)]atomic.Uint64
	addresses     atomic.Int64
}

// drop counts a frame. Counting by index, not by a map, keeps the receive path free of locks.
func (c *counters) drop(reason Reason) {
	for i := range reasons {
		if reasons[i] == reason {
			c.dropped[i].Add(1)
		}
	}
}

// mark counts a claim by what its mark is worth; one without a mark is not counted.
func (c *counters) mark(worth Worth) {
	for i := range worths {
		if worths[i] == worth {
			c.marks[i].Add(1)
		}
	}
}

var (
	requestsDesc = prometheus.NewDesc("herald_l2_requests_total",
		"ARP requests (arp) and neighbour solicitations (ndp) that passed the kernel's filter.", []string{"protocol"}, nil)
	repliesDesc = prometheus.NewDesc("herald_l2_replies_total",
		"ARP replies and solicited neighbour advertisements sent.", nil, nil)
	droppedDesc = prometheus.NewDesc("herald_l2_dropped_total",
		"Frames that passed the kernel's filter and were not answered, or could not be sent, by reason.", []string{"reason"}, nil)
	marksDesc = prometheus.NewDesc("herald_l2_marks_total",
		"Claims to addresses here that bear the mark of a speaker, by what it is worth.", []string{"worth"}, nil)
	announcementsDesc = prometheus.NewDesc("herald_l2_announcements_total",
		"Gratuitous ARP frames (arp) and unsolicited neighbour advertisements (ndp) sent.", []string{"protocol"}, nil)
	questionsDesc = prometheus.NewDesc("herald_l2_questions_total",
		"ARP probes (arp) and neighbour solicitations (ndp) sent to ask who has an address.", []string{"protocol"}, nil)
	addressesDesc = prometheus.NewDesc("herald_l2_addresses",
		"Addresses that are answered now, counted once for each interface.", nil, nil)
)

// Describe is of prometheus.Collector.
func (r *Responder) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requestsDesc, repliesDesc, droppedDesc, marksDesc, announcementsDesc, questionsDesc, addressesDesc} {
		descs <- d
	}
}

// Collect is of prometheus.Collector.
func (r *Responder) Collect(metrics chan<- prometheus.Metric) {
	count := func(desc *prometheus.Desc, n *atomic.Uint64, labels ...string) {
		metrics <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, float64(n.Load()), labels...)
	}
	for _, p := range protocols {
		count(requestsDesc, &r.counters.requests[p], p.String())
		count(announcementsDesc, &r.counters.announcements[p], p.String())
		count(questionsDesc, &r.counters.questions[p], p.String())
	}
	for i, reason := range reasons {
		count(droppedDesc, &r.counters.dropped[i], string(reason))
	}
	for i, worth := range worths {
		count(marksDesc, &r.counters.marks[i], string(worth))
	}
	count(repliesDesc, &r.counters.replies)
	metrics <- prometheus.MustNewConstMetric(addressesDesc, prometheus.GaugeValue, float64(r.counters.addresses.Load()))
}
