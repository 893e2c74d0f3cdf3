package awsfake_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func TestErrorsComeAsFromTheWire(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	err := b.createListener(aws.String("arn:aws:elasticloadbalancing:eu-west-1:111122223333:loadbalancer/net/no/1"), nil, 80, nil)
	if typed, ok := errors.AsType[*elbv2types.LoadBalancerNotFoundException](err); !ok || typed.ErrorFault() != smithy.FaultClient {
		t.Errorf("%T is no LoadBalancerNotFoundException", err)
	}
	if operation, ok := errors.AsType[*smithy.OperationError](err); !ok || operation.OperationName != "CreateListener" {
		t.Errorf("%T is no OperationError", err)
	}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); !ok || response.HTTPStatusCode() != http.StatusBadRequest || response.ServiceRequestID() == "" {
		t.Errorf("%T is no ResponseError", err)
	}
}

func TestCallsAreCounted(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.nlb("web", nil)
	_ = b.createNLB("-", nil)
	b.check(b.clb())
	b.securityGroup("web")
	want := map[string]int{"elbv2.CreateLoadBalancer": 2, "elb.CreateLoadBalancer": 1, "ec2.CreateSecurityGroup": 1}
	if diff := cmp.Diff(want, b.Counts()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	calls := b.Calls()
	if in, ok := calls[1].Input.(*elbv2.CreateLoadBalancerInput); !ok || *in.Name != "-" || calls[1].N != 2 {
		t.Errorf("the second call is %+v", calls[1])
	}
	b.ResetCalls()
	if n := len(b.Calls()); n != 0 {
		t.Errorf("%d calls after the reset", n)
	}
	_, _ = b.ELBV2().DeleteListener(b.ctx, &elbv2.DeleteListenerInput{})
	if n := len(b.Calls()); n != 0 {
		t.Errorf("%d calls reached AWS that the SDK refuses", n)
	}
}

func TestFaults(t *testing.T) {
	broken := errors.New("connection reset by peer")
	create := func(b *bench, name string) string {
		err := b.createNLB(name, nil)
		if errors.Is(err, broken) {
			return "broken"
		}
		return code(err)
	}
	for _, test := range []struct {
		name  string
		fault awsfake.Fault
		want  []string // of three load balancers
		made  string
	}{
		{"the first call", awsfake.Fault{Err: broken}, []string{"broken", "", ""}, "b c"},
		{"the second", awsfake.Fault{Nth: 2, Err: broken}, []string{"", "broken", ""}, "a c"},
		{"two from the second on", awsfake.Fault{Nth: 2, Times: 2, Err: broken}, []string{"", "broken", "broken"}, "a"},
		{"all from the second on", awsfake.Fault{Nth: 2, Times: -1, Err: broken}, []string{"", "broken", "broken"}, "a"},
		{"a lost answer", awsfake.Fault{Nth: 2, Err: broken, Late: true}, []string{"", "broken", ""}, "a b c"},
		{"a throttled call", awsfake.Fault{Nth: 3}, []string{"", "", "Throttling"}, "a b"},
		{"another operation", awsfake.Fault{Operation: "elb.CreateLoadBalancer", Err: broken}, []string{"", "", ""}, "a b c"},
		{"this operation", awsfake.Fault{Operation: "elbv2.CreateLoadBalancer", Err: broken}, []string{"broken", "", ""}, "b c"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBench(t, awsfake.Options{})
			b.Inject(test.fault)
			got := []string{create(b, "a"), create(b, "b"), create(b, "c")}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			b.Heal()
			if made := strings.Join(b.names(), " "); made != test.made {
				t.Errorf("made %q, want %q", made, test.made)
			}
		})
	}
}

// names are the Network Load Balancers that are described, page by page.
func (b *bench) names() []string {
	b.Helper()
	var names []string
	pages := elbv2.NewDescribeLoadBalancersPaginator(b.ELBV2(), &elbv2.DescribeLoadBalancersInput{})
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		for _, lb := range page.LoadBalancers {
			names = append(names, *lb.LoadBalancerName)
		}
	}
	return names
}

func TestClientDiesAfterACall(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	b.Inject(awsfake.Fault{Late: true, Err: context.Canceled, Do: cancel})
	_, err := b.ELBV2().CreateLoadBalancer(ctx, nlbInput("web", nil))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("answered %v, want %v", err, context.Canceled)
	}
	if _, err := b.ELBV2().CreateLoadBalancer(ctx, nlbInput("other", nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("a dead client is answered %v", err)
	}
	if diff := cmp.Diff([]string{"web"}, b.names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := b.Counts()["elbv2.CreateLoadBalancer"]; n != 1 {
		t.Errorf("%d calls, want 1: a dead client makes none", n)
	}
}

func TestHooks(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.Before(func(call awsfake.Call) error {
		if in, ok := call.Input.(*elbv2.CreateLoadBalancerInput); ok && *in.Name == "a" {
			return awsfake.ServerError(call)
		}
		// A hook may look at the cloud and change it.
		b.SetInstanceState("i-1", types.InstanceStateNameStopped)
		return nil
	})
	b.After(func(call awsfake.Call) error {
		if in, ok := call.Input.(*elbv2.CreateLoadBalancerInput); ok && *in.Name == "b" {
			return awsfake.Throttling(call)
		}
		return nil
	})
	var got []string
	for _, name := range []string{"a", "b", "c"} {
		got = append(got, code(b.createNLB(name, nil)))
	}
	if diff := cmp.Diff([]string{"InternalFailure", "Throttling", ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"b", "c"}, b.names()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestThrottling(t *testing.T) {
	b := newBench(t, awsfake.Options{Rates: map[string]awsfake.Rate{"elbv2.CreateLoadBalancer": {Burst: 2, PerSecond: 0.5}, "ec2": {Burst: 1, PerSecond: 1}}})
	var got []string
	for i := range 3 {
		got = append(got, code(b.createNLB(fmt.Sprint("web-", i), nil)))
	}
	b.Advance(time.Second)
	got = append(got, code(b.createNLB("web-3", nil)))
	b.Advance(time.Second)
	got = append(got, code(b.createNLB("web-4", nil)), code(b.createGroup("other", nil)))
	if diff := cmp.Diff([]string{"", "", "Throttling", "Throttling", "", ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	b.securityGroup("web")
	_, err := b.EC2().DescribeVpcs(b.ctx, &ec2.DescribeVpcsInput{})
	if code(err) != "RequestLimitExceeded" {
		t.Errorf("EC2 answered %q, want RequestLimitExceeded", code(err))
	}
	if response, ok := errors.AsType[*awshttp.ResponseError](err); !ok || response.HTTPStatusCode() != http.StatusServiceUnavailable {
		t.Errorf("the status of %v", err)
	}
}

func TestPages(t *testing.T) {
	b := newBench(t, awsfake.Options{PageSize: 2})
	lb, group := b.nlb("web-0", nil), b.group("tg-0", nil)
	for i := range 5 {
		b.nlb(fmt.Sprint("web-", i+1), nil)
		b.group(fmt.Sprint("tg-", i+1), nil)
		b.listener(lb, group, int32(80+i), nil)
		b.securityGroup(fmt.Sprint("group-", i))
		name := fmt.Sprint("clb-", i)
		b.check(b.clb(func(in *elb.CreateLoadBalancerInput) { in.LoadBalancerName = &name }))
	}
	seen := map[string]int{"nlb": len(b.names())}
	for pages := elbv2.NewDescribeTargetGroupsPaginator(b.ELBV2(), &elbv2.DescribeTargetGroupsInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		seen["group"] += len(page.TargetGroups)
	}
	for pages := elbv2.NewDescribeListenersPaginator(b.ELBV2(), &elbv2.DescribeListenersInput{LoadBalancerArn: lb}); pages.HasMorePages(); {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		seen["listener"] += len(page.Listeners)
	}
	for pages := elb.NewDescribeLoadBalancersPaginator(b.ELB(), &elb.DescribeLoadBalancersInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		seen["clb"] += len(page.LoadBalancerDescriptions)
	}
	for pages := ec2.NewDescribeSecurityGroupsPaginator(b.EC2(), &ec2.DescribeSecurityGroupsInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		seen["security group"] += len(page.SecurityGroups)
	}
	for pages := ec2.NewDescribeInstancesPaginator(b.EC2(), &ec2.DescribeInstancesInput{}); pages.HasMorePages(); {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		seen["instance"] += len(page.Reservations)
	}
	if diff := cmp.Diff(map[string]int{"nlb": 6, "group": 6, "listener": 5, "clb": 5, "security group": 7, "instance": 3}, seen); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n := b.Counts()["elbv2.DescribeLoadBalancers"]; n != 3 {
		t.Errorf("%d pages of 6 load balancers, want 3", n)
	}
}

func TestDeletionBetweenPagesShiftsNothing(t *testing.T) {
	b := newBench(t, awsfake.Options{PageSize: 2})
	arns := map[string]*string{}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		arns[name] = b.nlb(name, nil)
	}
	pages := elbv2.NewDescribeLoadBalancersPaginator(b.ELBV2(), &elbv2.DescribeLoadBalancersInput{})
	var got []string
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		for _, lb := range page.LoadBalancers {
			got = append(got, *lb.LoadBalancerName)
		}
		if arn := arns["b"]; arn != nil {
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: arn})
			b.check(err)
			arns["b"] = nil
		}
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "d", "e"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDescriptionsLag(t *testing.T) {
	b := newBench(t, awsfake.Options{Delays: awsfake.Delays{Visible: 5 * time.Second, Gone: 5 * time.Second, Known: 2 * time.Second}})
	find := func(name string) string {
		_, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{name}})
		return code(err)
	}
	lb := b.nlb("web", nil)
	b.check(b.createNLB("web", nil))
	b.check(b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "true"))
	got := []string{find("web")}
	b.Advance(5 * time.Second)
	got = append(got, find("web"))
	_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: lb})
	b.check(err)
	got = append(got, find("web"), code(b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "false")))
	b.Advance(5 * time.Second)
	got = append(got, find("web"))
	if diff := cmp.Diff([]string{"LoadBalancerNotFound", "", "", "LoadBalancerNotFound", "LoadBalancerNotFound"}, got); diff != "" {
		t.Errorf("load balancer (-want +got):\n%s", diff)
	}

	group := b.securityGroup("web")
	use := func() string {
		return code(b.authorize(group, ports("tcp", 80, 80, "0.0.0.0/0")))
	}
	got = []string{use()}
	b.Advance(2 * time.Second)
	got = append(got, use())
	if diff := cmp.Diff([]string{"InvalidGroup.NotFound", ""}, got); diff != "" {
		t.Errorf("security group (-want +got):\n%s", diff)
	}

	b.nlb("again", nil)
	b.Advance(5 * time.Second)
	again := b.names()
	if diff := cmp.Diff([]string{"again"}, again); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestOneClockForAll(t *testing.T) {
	now := time.Date(2026, time.May, 1, 0, 0, 0, 0, time.UTC)
	b := newBench(t, awsfake.Options{Now: func() time.Time { return now }, Delays: awsfake.Delays{Provisioning: -1}})
	out, err := b.ELBV2().CreateLoadBalancer(b.ctx, nlbInput("web", nil))
	b.check(err)
	if lb := out.LoadBalancers[0]; lb.State.Code != elbv2types.LoadBalancerStateEnumActive || !lb.CreatedTime.Equal(now) {
		t.Errorf("made %s at %s", lb.State.Code, lb.CreatedTime)
	}
	if !b.Now().Equal(now) {
		t.Errorf("it is %s", b.Now())
	}
}

func TestManyCallAtOnce(t *testing.T) {
	b := newBench(t, awsfake.Options{Limits: awsfake.Limits{NetworkLoadBalancers: 100}, Rates: map[string]awsfake.Rate{"ec2": {Burst: 10, PerSecond: 1}}})
	var callers sync.WaitGroup
	for i := range 50 {
		callers.Go(func() {
			name := fmt.Sprint("web-", i)
			lb, err := b.ELBV2().CreateLoadBalancer(b.ctx, nlbInput(name, nil))
			if err != nil {
				t.Error(err)
				return
			}
			group, err := b.ELBV2().CreateTargetGroup(b.ctx, groupInput(name, nil))
			if err != nil {
				t.Error(err)
				return
			}
			if err := b.createListener(lb.LoadBalancers[0].LoadBalancerArn, group.TargetGroups[0].TargetGroupArn, 80, nil); err != nil {
				t.Error(err)
			}
			_ = b.String()
			b.Advance(time.Millisecond)
			b.AddAddress(awsfake.Address{ID: "eipalloc-" + name, IP: netip.MustParseAddr("198.51.100.3")})
			_, _ = b.EC2().DescribeSubnets(b.ctx, &ec2.DescribeSubnetsInput{})
		})
	}
	callers.Wait()
	if n := strings.Count(b.String(), "\nlistener "); n != 50 {
		t.Errorf("%d listeners, want 50", n)
	}
}
