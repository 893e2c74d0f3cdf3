package aws

import (
	"k8s.io/component-base/metrics"
	"k8s.io/component-base/metrics/legacyregistry"
)

var (
	callsMade = metrics.NewCounterVec(&metrics.CounterOpts{
		Name:           "herald_aws_calls_total",
		Help:           "Calls to AWS, with AWS's code of those that failed: empty when one succeeded, none when there was no answer.",
		StabilityLevel: metrics.ALPHA,
	}, []string{"operation", "code"})
	callSeconds = metrics.NewHistogramVec(&metrics.HistogramOpts{
		Name:           "herald_aws_call_duration_seconds",
		Help:           "Time that a call to AWS took, in seconds, with the attempts that the SDK made of it.",
		Buckets:        metrics.ExponentialBuckets(0.01, 2, 12),
		StabilityLevel: metrics.ALPHA,
	}, []string{"operation"})
)

// RegisterMetrics adds the metrics of this package to those served at /metrics.
func RegisterMetrics() {
	legacyregistry.MustRegister(callsMade, callSeconds)
}
