package aws

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
)

// A controller that has to end lets the call end that has begun, for a while,
// and begins none.
func TestCallsOfAControllerThatEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration
		fails bool
	}{
		{"in time", callPatience - time.Second, false},
		{"not in time", callPatience + time.Second, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &Provider{buckets: newBuckets(100, 10)}
				made := 0
				do := func(ctx context.Context, _ *ec2.DescribeVpcsInput, _ ...func(*ec2.Options)) (*ec2.DescribeVpcsOutput, error) {
					made++
					select {
					case <-ctx.Done():
						return nil, ctx.Err()
					case <-time.After(c.takes):
						return &ec2.DescribeVpcsOutput{}, nil
					}
				}
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(time.Millisecond, cancel)
				out, err := call(ctx, p, do, &ec2.DescribeVpcsInput{})
				if failed := err != nil; failed != c.fails || failed == (out != nil) {
					t.Errorf("the call that had begun: %v, %v", out, err)
				}
				if _, err := call(ctx, p, do, &ec2.DescribeVpcsInput{}); !errors.Is(err, context.Canceled) || made != 1 {
					t.Errorf("another call: %v, %d calls made", err, made)
				}
			})
		})
	}
}
