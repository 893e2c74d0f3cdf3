package aws

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/smithy-go"
	"golang.org/x/time/rate"
)

// attempts are made of a call that AWS throttles, each as late as the bucket
// of its operation says by then.
const attempts = 3

const (
	// callLongest is how long a call may take.
	callLongest = 5 * time.Minute
	// callPatience is how long it may still take when the controller has to end.
	callPatience = 15 * time.Second
)

// call makes one call to AWS, once its operation has a token for it. None
// begins when ctx is done, and one that has begun is not broken off for that:
// AWS may carry it out nevertheless, while another controller looks already.
func call[In, Out, Opt any](ctx context.Context, p *Provider, do func(context.Context, *In, ...func(*Opt)) (*Out, error), in *In) (*Out, error) {
	operation := operationOf(in)
	for attempt := 1; ; attempt++ {
		if err := p.buckets.wait(ctx, operation); err != nil {
			return nil, fmt.Errorf("%s: %w", operation, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("%s: %w", operation, err)
		}
		begun := time.Now()
		unbroken, done := outlasting(ctx, callPatience)
		out, err := do(unbroken, in)
		done()
		callSeconds.WithLabelValues(operation).Observe(time.Since(begun).Seconds())
		callsMade.WithLabelValues(operation, resultOf(err)).Inc()
		p.buckets.heed(operation, throttled(err), time.Now())
		if err == nil {
			return out, nil
		}
		if !throttled(err) || attempt == attempts || ctx.Err() != nil {
			return nil, &callError{operation, err}
		}
	}
}

// outlasting returns a context that is done some time after ctx is, or at its
// deadline.
func outlasting(ctx context.Context, patience time.Duration) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(callLongest)
	}
	longer, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	stop := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(patience, cancel)
		context.AfterFunc(longer, func() { timer.Stop() })
	})
	return longer, func() {
		stop()
		cancel()
	}
}

// resultOf is what the metric says of a call: AWS's code, or none for an error
// of another kind.
func resultOf(err error) string {
	if err == nil {
		return ""
	}
	return cmp.Or(codeOf(err), "none")
}

// throttled says that AWS did nothing, for the account calls too often.
func throttled(err error) bool {
	_, is := retry.DefaultThrottleErrorCodes[codeOf(err)]
	return is
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

// buckets are the token buckets of the operations. How often an account may
// call is AWS's to say, and shared with whoever else works in it: a bucket
// fills half as fast once AWS throttles its operation, and a little faster
// again with each call that AWS takes.
type buckets struct {
	rate  rate.Limit
	burst int

	mu          sync.Mutex
	byOperation map[string]*bucket
}

type bucket struct {
	*rate.Limiter
	// slowed is when it was slowed down last: calls that are throttled at the
	// same time say it once.
	slowed time.Time
}

// slowest is how often an operation is called at least, each second.
const slowest rate.Limit = 0.5

func newBuckets(perSecond float64, burst int) *buckets {
	return &buckets{rate: rate.Limit(perSecond), burst: burst, byOperation: map[string]*bucket{}}
}

func (b *buckets) wait(ctx context.Context, operation string) error {
	return b.of(operation).Wait(ctx)
}

func (b *buckets) of(operation string) *bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	one := b.byOperation[operation]
	if one == nil {
		one = &bucket{Limiter: rate.NewLimiter(b.rate, b.burst)}
		b.byOperation[operation] = one
	}
	return one
}

// heed has the bucket of an operation fill as AWS's answer says.
func (b *buckets) heed(operation string, throttled bool, now time.Time) {
	one := b.of(operation)
	b.mu.Lock()
	defer b.mu.Unlock()
	limit := one.Limit()
	switch {
	case throttled && now.Sub(one.slowed) >= time.Second:
		one.slowed = now
		one.SetBurstAt(now, 1)
		one.SetLimitAt(now, max(limit/2, min(slowest, b.rate)))
	case !throttled && limit < b.rate:
		if limit = min(limit+b.rate/50, b.rate); limit == b.rate {
			one.SetBurstAt(now, b.burst)
		}
		one.SetLimitAt(now, limit)
	}
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
