package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"
)

// call makes one call to AWS, once its operation has a token for it.
func call[In, Out, Opt any](ctx context.Context, p *Provider, do func(context.Context, *In, ...func(*Opt)) (*Out, error), in *In) (*Out, error) {
	operation := operationOf(in)
	if err := p.buckets.wait(ctx, operation); err != nil {
		return nil, fmt.Errorf("%s: %w", operation, err)
	}
	begun := time.Now()
	out, err := do(ctx, in)
	callSeconds.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
	if err != nil {
		callsMade.WithLabelValues(operation, cmp.Or(codeOf(err), "none")).Inc()
		return nil, &callError{operation, err}
	}
	callsMade.WithLabelValues(operation, "").Inc()
	return out, nil
}

// operationOf is "elasticloadbalancingv2.CreateListener" for its input.
func operationOf(in any) string {
	return strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", in), "*"), "Input")
}

// callError says which call failed, and AWS's code and words. It says the same
// each time: the IDs of requests are left out, so that a condition with it
// does not change with each attempt.
type callError struct {
	operation string
	err       error
}

func (e *callError) Error() string {
	if api, ok := errors.AsType[smithy.APIError](e.err); ok {
		return fmt.Sprintf("%s: %s: %s", e.operation, api.ErrorCode(), api.ErrorMessage())
	}
	return fmt.Sprintf("%s: %v", e.operation, e.err)
}

func (e *callError) Unwrap() error { return e.err }

// codeOf is AWS's code of an error; empty for an error of another kind.
func codeOf(err error) string {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode()
	}
	return ""
}

// buckets are the token buckets of the operations.
type buckets struct {
	rate  rate.Limit
	burst int

	mu          sync.Mutex
	byOperation map[string]*rate.Limiter
}

func newBuckets(perSecond float64, burst int) *buckets {
	return &buckets{rate: rate.Limit(perSecond), burst: burst, byOperation: map[string]*rate.Limiter{}}
}

func (b *buckets) wait(ctx context.Context, operation string) error {
	b.mu.Lock()
	bucket := b.byOperation[operation]
	if bucket == nil {
		bucket = rate.NewLimiter(b.rate, b.burst)
		b.byOperation[operation] = bucket
	}
	b.mu.Unlock()
	return bucket.Wait(ctx)
}

// collect reads all pages of a list.
func collect[T any](page func(token *string) (items []T, next *string, err error)) ([]T, error) {
	var all []T
	var token *string
	for {
		items, next, err := page(token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == nil || *next == "" {
			return all, nil
		}
		token = next
	}
}
