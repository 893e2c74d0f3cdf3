package service

import (
	"errors"
	"time"

	"k8s.io/cloud-provider/api"
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	syncSeconds = metrics.NewHistogram(&metrics.HistogramOpts{
		Name:           "herald_service_sync_duration_seconds",
		Help:           "Time to bring one Service to where it should be, in seconds.",
		Buckets:        metrics.ExponentialBuckets(0.0005, 2, 15),
		StabilityLevel: metrics.ALPHA,
	})
	syncErrors = metrics.NewCounter(&metrics.CounterOpts{
		Name:           "herald_service_sync_errors_total",
		Help:           "Attempts at a Service that failed and are tried again.",
		StabilityLevel: metrics.ALPHA,
	})
)

// RegisterMetrics adds the metrics of this package to those served at /metrics.
func RegisterMetrics() {
	legacyregistry.MustRegister(syncSeconds, syncErrors)
}

func observe(took time.Duration, err error) {
	syncSeconds.Observe(took.Seconds())
	if _, waits := errors.AsType[*api.RetryError](err); err != nil && !waits {
		syncErrors.Inc()
	}
}
