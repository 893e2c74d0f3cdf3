package awsfake_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

// walker makes random calls, of which many are refused.
type walker struct {
	*bench
	random *rand.Rand
	// arns and ids are what was made, also if it is gone by now.
	networks, groups, listeners, security []string
}

func (w *walker) of(list []string) *string {
	if len(list) == 0 {
		return aws.String("none")
	}
	return aws.String(list[w.random.IntN(len(list))])
}

func (w *walker) name() string { return string(rune('a' + w.random.IntN(4))) }

func (w *walker) subnets() []string {
	all := []string{"subnet-a", "subnet-b", "subnet-c", "subnet-a2"}
	w.random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all[:1+w.random.IntN(2)]
}

func (w *walker) wanted() []string {
	if w.random.IntN(2) == 0 || len(w.security) == 0 {
		return nil
	}
	return []string{*w.of(w.security)}
}

// step makes one call.
func (w *walker) step() error {
	calls := []func() error{
		w.makeNetwork, w.makeGroup, w.makeGroup, w.makeListener, w.makeListener, w.makeSecurityGroup, w.makeClassic, w.changeNetwork, w.changeTargets, w.changeRules,
		func() error {
			_, err := w.ELBV2().DeleteLoadBalancer(w.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: w.of(w.networks)})
			return err
		},
		func() error {
			_, err := w.ELBV2().DeleteListener(w.ctx, &elbv2.DeleteListenerInput{ListenerArn: w.of(w.listeners)})
			return err
		},
		func() error {
			_, err := w.ELBV2().DeleteTargetGroup(w.ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: w.of(w.groups)})
			return err
		},
		func() error {
			_, err := w.ELB().DeleteLoadBalancer(w.ctx, &elb.DeleteLoadBalancerInput{LoadBalancerName: aws.String(w.name())})
			return err
		},
		func() error {
			_, err := w.EC2().DeleteSecurityGroup(w.ctx, &ec2.DeleteSecurityGroupInput{GroupId: w.of(w.security)})
			return err
		},
		func() error {
			_, err := w.ELBV2().ModifyListener(w.ctx, &elbv2.ModifyListenerInput{
				ListenerArn: w.of(w.listeners), DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: w.of(w.groups)}},
			})
			return err
		},
	}
	return calls[w.random.IntN(len(calls))]()
}

func (w *walker) makeNetwork() error {
	out, err := w.ELBV2().CreateLoadBalancer(w.ctx, nlbInput(w.name(), func(in *elbv2.CreateLoadBalancerInput) {
		in.SecurityGroups, in.Subnets = w.wanted(), w.subnets()
		if w.random.IntN(3) == 0 {
			in.Scheme, in.Subnets = types.LoadBalancerSchemeEnumInternetFacing, nil
			in.SubnetMappings = []types.SubnetMapping{{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-a")}}
		}
	}))
	if err == nil {
		w.networks = append(w.networks, *out.LoadBalancers[0].LoadBalancerArn)
	}
	return err
}

func (w *walker) makeGroup() error {
	out, err := w.ELBV2().CreateTargetGroup(w.ctx, groupInput(w.name(), nil))
	if err == nil {
		w.groups = append(w.groups, *out.TargetGroups[0].TargetGroupArn)
	}
	return err
}

func (w *walker) makeListener() error {
	out, err := w.ELBV2().CreateListener(w.ctx, listenerInput(w.of(w.networks), w.of(w.groups), int32(80+w.random.IntN(2)), nil))
	if err == nil {
		w.listeners = append(w.listeners, *out.Listeners[0].ListenerArn)
	}
	return err
}

func (w *walker) makeSecurityGroup() error {
	id, err := w.createSecurityGroup(w.name())
	if err == nil {
		w.security = append(w.security, id)
	}
	return err
}

func (w *walker) makeClassic() error {
	return w.clb(func(in *elb.CreateLoadBalancerInput) {
		in.LoadBalancerName, in.Subnets, in.SecurityGroups = aws.String(w.name()), w.subnets(), w.wanted()
	})
}

func (w *walker) changeNetwork() error {
	if groups := w.wanted(); groups != nil {
		_, err := w.ELBV2().SetSecurityGroups(w.ctx, &elbv2.SetSecurityGroupsInput{LoadBalancerArn: w.of(w.networks), SecurityGroups: groups})
		return err
	}
	_, err := w.ELBV2().SetSubnets(w.ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: w.of(w.networks), Subnets: w.subnets()})
	return err
}

func (w *walker) changeTargets() error {
	id := fmt.Sprint("i-", 1+w.random.IntN(4))
	if w.random.IntN(3) == 0 {
		_, err := w.ELB().RegisterInstancesWithLoadBalancer(w.ctx, &elb.RegisterInstancesWithLoadBalancerInput{
			LoadBalancerName: aws.String(w.name()), Instances: []elbtypes.Instance{{InstanceId: aws.String(id)}},
		})
		return err
	}
	if w.random.IntN(2) == 0 {
		return w.deregister(w.of(w.groups), id)
	}
	return w.register(w.of(w.groups), id)
}

func (w *walker) changeRules() error {
	permission := ports("tcp", 80, 80, *w.of(append([]string{"10.0.0.0/8"}, w.security...)))
	group := *w.of(append([]string{"sg-nodes"}, w.security...))
	if w.random.IntN(2) == 0 {
		return w.revoke(group, permission)
	}
	return w.authorize(group, permission)
}

// dangling are the things that a line of the printed state names and that have
// no line of their own.
func dangling(state string) []string {
	have := map[string]bool{}
	lines := strings.Split(strings.TrimSuffix(state, "\n"), "\n")
	for _, line := range lines {
		words := strings.Fields(line)
		have[words[0]+" "+words[1]] = true
	}
	var missing []string
	for _, line := range lines {
		words := strings.Fields(line)
		var named []string
		switch {
		case words[0] == "listener" && !strings.Contains(line, "TCP:31080"):
			named = []string{"nlb " + words[1], "target-group " + words[4]}
		case words[0] == "target":
			named = []string{"target-group " + words[1]}
		case (words[0] == "nlb" || words[0] == "clb") && len(words) > 4 && !strings.HasPrefix(words[4], "sg-default"):
			named = []string{"security-group " + words[4]}
		case words[0] == "rule" && !strings.Contains(words[4], "/"):
			named = []string{"security-group " + words[4]}
		}
		for _, name := range named {
			if !have[name] {
				missing = append(missing, line)
			}
		}
	}
	return missing
}

func TestWhateverIsCalled(t *testing.T) {
	refusals := map[string]int{}
	for seed := range uint64(40) {
		w := &walker{bench: newBench(t, awsfake.Options{}), random: rand.New(rand.NewPCG(seed, 1))} //nolint:gosec // a test repeats itself
		for range 250 {
			before := w.String()
			err := w.step()
			after := w.String()
			if refusals[code(err)]++; err != nil && before != after {
				t.Fatalf("seed %d: %v, and yet (-before +after):\n%s", seed, err, cmp.Diff(before, after))
			}
			if lost := dangling(after); len(lost) > 0 {
				t.Fatalf("seed %d: %s name what is not:\n%s", seed, lost, after)
			}
			w.Advance(time.Duration(w.random.IntN(20)) * time.Second)
		}
		w.empty(seed)
	}
	for _, want := range []string{
		"", "DuplicateLoadBalancerName", "DuplicateListener", "ResourceInUse", "DependencyViolation", "InvalidPermission.Duplicate", "InvalidPermission.NotFound",
		"TargetGroupAssociationLimit", "LoadBalancerNotFound", "TargetGroupNotFound", "InvalidGroup.Duplicate", wrong,
	} {
		if refusals[want] == 0 {
			t.Errorf("no call was answered with %q: %v", want, refusals)
		}
	}
}

// empty deletes all that was made. In the right order and with some patience
// nothing stays.
func (w *walker) empty(seed uint64) {
	for _, arn := range w.networks {
		_, err := w.ELBV2().DeleteLoadBalancer(w.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: &arn})
		w.check(err)
	}
	for _, name := range []string{"a", "b", "c", "d"} {
		_, err := w.ELB().DeleteLoadBalancer(w.ctx, &elb.DeleteLoadBalancerInput{LoadBalancerName: &name})
		w.check(err)
	}
	w.Advance(time.Minute)
	for _, arn := range w.groups {
		_, err := w.ELBV2().DeleteTargetGroup(w.ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: &arn})
		w.check(err)
	}
	out, err := w.EC2().DescribeSecurityGroups(w.ctx, &ec2.DescribeSecurityGroupsInput{})
	w.check(err)
	for _, g := range out.SecurityGroups {
		if len(g.IpPermissions) > 0 {
			w.check(w.revoke(*g.GroupId, g.IpPermissions...))
		}
	}
	for _, id := range w.security {
		if got := code(w.deleteSecurityGroup(id)); got != "" && got != "InvalidGroup.NotFound" {
			w.Errorf("seed %d: deleting %s: %s", seed, id, got)
		}
	}
	if diff := cmp.Diff("security-group sg-nodes\n", w.String()); diff != "" {
		w.Errorf("seed %d: what stays (-want +got):\n%s", seed, diff)
	}
	addresses, err := w.EC2().DescribeAddresses(w.ctx, &ec2.DescribeAddressesInput{})
	w.check(err)
	for _, a := range addresses.Addresses {
		if a.AssociationId != nil {
			w.Errorf("seed %d: %s is still in use", seed, *a.AllocationId)
		}
	}
}

func BenchmarkDescribe(b *testing.B) {
	cloud := world(awsfake.Options{})
	client, in := cloud.EC2(), &ec2.DescribeSubnetsInput{}
	for b.Loop() {
		if _, err := client.DescribeSubnets(b.Context(), in); err != nil {
			b.Fatal(err)
		}
	}
}
