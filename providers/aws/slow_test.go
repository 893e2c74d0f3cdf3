package aws

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

// Who needs a slow answer of AWS waits for it, as long as it wants to. Who
// does not need it is served meanwhile.
func TestASlowAnswerKeepsNobodyElseWaiting(t *testing.T) {
	for _, c := range []struct {
		name, operation string
		slow            func(ctx context.Context, w *world) error
		others          func(ctx context.Context, w *world) error
	}{
		{
			"an instance", "ec2.DescribeInstances",
			func(ctx context.Context, w *world) error {
				_, _, err := w.provider.livingTargets(ctx, w.nodes)
				return err
			},
			func(ctx context.Context, w *world) error {
				w.provider.forgetNodes(time.Now())
				w.provider.instances.due(time.Now())
				_, err := w.provider.EnsureLoadBalancer(ctx, "", other("warm", "heraldlb.io/nlb", nil), w.nodes[:2])
				return err
			},
		},
		{
			"a name", "ec2.DescribeSecurityGroups",
			func(ctx context.Context, w *world) error {
				_, err := w.provider.namedGroups.find(ctx, w.provider, []string{"mine"}, time.Time{})
				return err
			},
			func(ctx context.Context, w *world) error {
				w.provider.namedGroups.mayBe("mine", "sg-mine")
				_, err := w.provider.namedGroups.find(ctx, w.provider, []string{"extra"}, time.Time{})
				return err
			},
		},
		{
			"subnets", "ec2.DescribeSubnets",
			func(ctx context.Context, w *world) error {
				_, err := w.provider.network.get(ctx, time.Now().Add(-time.Millisecond))
				return err
			},
			func(ctx context.Context, w *world) error {
				_, err := w.provider.network.get(ctx, time.Time{})
				return err
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
				w.warm()
				if _, err := w.provider.namedGroups.find(t.Context(), w.provider, []string{"extra"}, time.Time{}); err != nil {
					t.Fatal(err)
				}
				w.addNode(3)
				time.Sleep(time.Second)
				asked := 0
				w.cloud.Before(func(call awsfake.Call) error {
					if call.String() == c.operation {
						asked++
						time.Sleep(time.Minute)
					}
					return nil
				})
				done := make(chan error, 2)
				for range 2 {
					go func() { done <- c.slow(t.Context(), w) }()
				}
				time.Sleep(time.Second)
				begun := time.Now()
				if err := c.others(t.Context(), w); err != nil {
					t.Error(err)
				}
				if took := time.Since(begun); took > 0 { // of the bubble's clock
					t.Errorf("others waited %s", took)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := c.slow(ctx, w); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("who gives up waiting: %v", err)
				}
				for range 2 {
					if err := <-done; err != nil {
						t.Error(err)
					}
				}
				if asked != 1 {
					t.Errorf("asked %d times, want 1", asked)
				}
			})
		})
	}
}
