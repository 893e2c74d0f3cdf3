package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/awsfake"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// other is another Service of the same ports.
func other(name, class string, edit func(*corev1.Service)) *corev1.Service {
	s := service(class, edit)
	s.Name = name
	s.UID = types.UID(fmt.Sprintf("%x-0000-4000-8000-000000000000", name))
	return s
}

// warm has the provider know what all Services share.
func (w *world) warm() {
	w.ensure(other("warm", "heraldlb.io/nlb", nil))
}

func (w *world) counted(do func()) map[string]int {
	w.cloud.ResetCalls()
	do()
	return w.cloud.Counts()
}

func sum(counts map[string]int) int {
	total := 0
	for _, n := range counts {
		total += n
	}
	return total
}

// What an operation costs, beyond what all Services share: subnets, routes and
// zones every ten minutes, and each instance once.
func TestCallsOfOperations(t *testing.T) {
	for _, c := range []struct {
		class                       string
		create, nodeAdded, deletion int
	}{
		{"heraldlb.io/nlb", 10, 2, 5},
		{"heraldlb.io/clb", 6, 1, 3},
	} {
		t.Run(c.class, func(t *testing.T) {
			bubble(t, 4, awsfake.Options{Delays: awsfake.Delays{Interfaces: -1, Groups: -1}}, func(t *testing.T, w *world) {
				w.warm()
				s := service(c.class, nil)
				check := func(what string, want int, counts map[string]int) {
					t.Helper()
					if got := sum(counts); got != want {
						t.Errorf("%s: %d calls, want %d: %v", what, got, want, counts)
					}
				}
				check("create", c.create, w.counted(func() { w.ensure(s) }))
				check("resync", 0, w.counted(func() { w.ensure(s) }))
				time.Sleep(time.Hour)
				check("resync after an hour", 0, w.counted(func() { w.ensure(s) }))
				w.addNode(5)
				check("node added", c.nodeAdded+1, w.counted(func() { w.ensure(s) })) // and the instance is looked at, for all Services
				w.nodes = w.nodes[1:]
				check("node removed", c.nodeAdded, w.counted(func() { w.ensure(s) }))
				check("deletion", c.deletion, w.counted(func() { w.delete(s) }))
			})
		})
	}
}

// A new node is in before an old one is out.
func TestNodesAreReplacedWithoutAGap(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
		for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
			s := other("web-"+class[len(class)-3:], class, nil)
			w.ensure(s)
		}
		w.addNode(2)
		w.nodes = w.nodes[1:]
		for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
			w.cloud.ResetCalls()
			w.ensure(other("web-"+class[len(class)-3:], class, nil))
			in, out := -1, -1
			for i, call := range w.cloud.Calls() {
				if strings.Contains(call.Operation, "Deregister") {
					out = max(out, i)
				} else if strings.Contains(call.Operation, "Register") {
					in = max(in, i)
				}
			}
			if in < 0 || out < in {
				t.Errorf("%s: the last to register is call %d, the last to deregister %d: %s", class, in, out, w.calls())
			}
		}
	})
}

// After a restart a Service is observed once, by few calls for all.
func TestObservedOnceAfterARestart(t *testing.T) {
	bubble(t, 4, awsfake.Options{}, func(t *testing.T, w *world) {
		var services []*corev1.Service
		for i := range 20 {
			services = append(services, other(fmt.Sprintf("web-%02d", i), []string{"heraldlb.io/nlb", "heraldlb.io/clb"}[i%2], nil))
			services[i].UID = types.UID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", i))
			w.ensure(services[i])
		}
		before := w.cloud.String()
		w.restart()
		counts := w.counted(func() {
			for _, s := range services {
				w.ensure(s)
			}
		})
		if counts["elbv2.DescribeLoadBalancers"] != 1 || counts["elb.DescribeLoadBalancers"] != 1 || counts["elbv2.DescribeTargetGroups"] != 1 {
			t.Errorf("what there is was read more than once: %v", counts)
		}
		for call := range counts {
			if !strings.Contains(call, "Describe") {
				t.Errorf("%s changes something", call)
			}
		}
		if got := sum(w.counted(func() {
			for _, s := range services {
				w.ensure(s)
			}
		})); got != 0 {
			t.Errorf("%d calls when nothing changed: %s", got, w.calls())
		}
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Error(diff)
		}
	})
}

// What others delete while it is looked at keeps nobody from looking.
func TestObservedWhileOthersDelete(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		for i := range 12 { // more than one call has the tags of
			theirs := fmt.Sprintf("k8s-theirs-%02d", i)
			must[*elbv2.CreateTargetGroupOutput](t)(w.cloud.ELBV2().CreateTargetGroup(t.Context(), &elbv2.CreateTargetGroupInput{
				Name: &theirs, Protocol: elbv2types.ProtocolEnumTcp, Port: awssdk.Int32(80), VpcId: awssdk.String("vpc-1"),
			}))
		}
		time.Sleep(10 * time.Minute)
		w.restart()
		deleted := 0
		w.cloud.Before(func(call awsfake.Call) error {
			if call.String() != "elbv2.DescribeTags" || deleted > 3 {
				return nil
			}
			for _, arn := range call.Input.(*elbv2.DescribeTagsInput).ResourceArns {
				if strings.Contains(arn, "k8s-theirs") {
					deleted++
					_, err := w.cloud.ELBV2().DeleteTargetGroup(t.Context(), &elbv2.DeleteTargetGroupInput{TargetGroupArn: &arn})
					return err
				}
			}
			return nil
		})
		if _, err := w.sync(t.Context(), s); err != nil || deleted == 0 {
			t.Fatalf("%d deleted meanwhile: %v", deleted, err)
		}
		if n := len(w.provider.held(w.provider.entryOf(s)).state.TargetGroups); n != 2 {
			t.Errorf("%d target groups are seen", n)
		}
	})
}

// What others change is seen after some hours, and undone.
func TestDriftIsUndone(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		time.Sleep(10 * time.Minute)
		before := w.cloud.String()
		w.provider.instances.haunt(time.Now()) // nobody
		held := w.provider.held(w.provider.entryOf(s))
		a := &applier{Provider: w.provider, holding: held.clone()}
		for _, step := range drift(&held.state) {
			if err := a.take(t.Context(), step); err != nil {
				t.Fatal(err)
			}
		}
		if before == w.cloud.String() {
			t.Fatal("nothing was changed")
		}
		time.Sleep(checkEvery + checkEvery/2)
		w.ensure(s)
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
	})
}

// A security group that lost its tags is ours all the same.
func TestGroupWithoutTagsIsFound(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		empty := w.cloud.String()
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		time.Sleep(10 * time.Minute)
		before := w.cloud.String()
		id := w.provider.held(w.provider.entryOf(s)).groupID()
		must[*ec2.DeleteTagsOutput](t)(w.cloud.EC2().DeleteTags(t.Context(), &ec2.DeleteTagsInput{Resources: []string{id}}))
		w.restart()
		w.ensure(s)
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
		w.delete(s)
		if diff := cmp.Diff(empty, w.cloud.String()); diff != "" {
			t.Errorf("-empty +after\n%s", diff)
		}
	})
}

// Many Services are made at a time, not one after another.
func TestManyAtATime(t *testing.T) {
	const latency = time.Second
	bubble(t, 4, awsfake.Options{Limits: awsfake.Limits{NetworkLoadBalancers: 100, RulesPerSecurityGroup: 100}}, func(t *testing.T, w *world) {
		w.warm()
		w.cloud.Before(func(awsfake.Call) error {
			time.Sleep(latency)
			return nil
		})
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 99 {
			s := other(fmt.Sprintf("web-%02d", i), "heraldlb.io/nlb", nil)
			s.UID = types.UID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", i))
			wg.Go(func() {
				if _, err := w.provider.EnsureLoadBalancer(t.Context(), "", s, w.nodes); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took > 10*latency {
			t.Errorf("99 Services of 10 calls took %s, with %s a call", took, latency)
		}
	})
}

// An AWS that lets an account call as seldom as it does makes many Services
// take long. It makes them take hardly longer than it must: what is throttled
// goes on where it was, and is not looked at again.
func TestManyWhileThrottled(t *testing.T) {
	const many, perSecond, burst = 100, 3, 20
	options := awsfake.Options{
		Rates:  map[string]awsfake.Rate{"elbv2": {Burst: burst, PerSecond: perSecond}},
		Limits: awsfake.Limits{NetworkLoadBalancers: 101, RulesPerSecurityGroup: 101},
	}
	bubble(t, 4, options, func(t *testing.T, w *world) {
		w.options.CallsPerSecond, w.options.CallBurst = 0, 0 // as they are by default
		w.restart()
		w.warm()
		w.cloud.ResetCalls()
		start := time.Now()
		var wg sync.WaitGroup
		workers := make(chan struct{}, 16)
		for i := range many {
			s := other(fmt.Sprintf("web-%02d", i), "heraldlb.io/nlb", nil)
			s.UID = types.UID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", i))
			wg.Go(func() {
				until(t, func() error {
					workers <- struct{}{}
					defer func() { <-workers }()
					_, err := w.provider.EnsureLoadBalancer(t.Context(), "", s, w.nodes)
					return err
				})
			})
		}
		wg.Wait()
		counts := w.cloud.Counts()
		for call := range counts {
			if strings.Contains(call, "Describe") {
				t.Errorf("%s: what was throttled was looked at again: %v", call, counts)
			}
		}
		if n := sum(counts); n > 2*10*many {
			t.Errorf("%d calls where %d do: %v", n, 10*many, counts)
		}
		must := time.Duration(7*many/perSecond) * time.Second
		if took := time.Since(start); took > must+must/4 { // of the bubble's clock, which is the fake's
			t.Errorf("%d Services took %s, where the rate allows %s", many, took, must)
		}
	})
}

// Instances that AWS does not know or not take keep nobody else out.
func TestGhosts(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		for _, groups := range [][]string{nil, {"sg-nodes"}} {
			t.Run(fmt.Sprint(class, groups), func(t *testing.T) {
				bubble(t, 499, awsfake.Options{}, func(t *testing.T, w *world) {
					w.options.NodeSecurityGroups = groups
					w.restart()
					ghost := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "ghost"}, Spec: corev1.NodeSpec{ProviderID: "aws:///eu-west-1a/i-0000000000000dead"}}
					w.nodes = append(w.nodes, ghost)
					w.cloud.SetInstanceState("i-00000000000000007", ec2types.InstanceStateNameStopped)
					s := service(class, nil)
					w.ensure(s)
					registered := 0
					for line := range strings.Lines(w.cloud.String()) {
						if strings.HasPrefix(line, "target k8s") || strings.HasPrefix(line, "instance ") {
							registered++
						}
					}
					want := 498
					if class == "heraldlb.io/nlb" {
						want *= 2
					}
					if registered != want {
						t.Errorf("%d registered, want %d", registered, want)
					}
					if n := sum(w.counted(func() { w.ensure(s) })); n != 0 {
						t.Errorf("%d calls for what AWS has just refused", n)
					}
					w.delete(s)
				})
			})
		}
	}
}

// An instance that AWS did not take is tried again, and taken once it runs.
func TestAGhostComesBack(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		const id = "i-00000000000000002"
		w.cloud.SetInstanceState(id, ec2types.InstanceStateNameStopped)
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		if missing := w.unregistered(); !slices.Equal(missing, []string{id}) {
			t.Fatalf("%v are not registered", missing)
		}
		w.cloud.SetInstanceState(id, ec2types.InstanceStateNameRunning)
		woken := make(chan struct{}, 100)
		w.provider.wake = func(types.NamespacedName) { woken <- struct{}{} }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.provider.watch(ctx) }()
		time.Sleep(ghostFirst + watchEvery) // long before it is looked for what others changed
		cancel()
		<-done
		if len(woken) == 0 {
			t.Error("nobody is told that its time is over")
		}
		w.ensure(s)
		if missing := w.unregistered(); len(missing) > 0 {
			t.Errorf("%v are not registered", missing)
		}
	})
}

// In which order security groups are named does not matter.
func TestOrderOfGroups(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			w.ensure(service(class, annotate("extra-security-groups", "sg-extra,sg-mine")))
			if n := sum(w.counted(func() { w.ensure(service(class, annotate("extra-security-groups", "sg-mine, sg-extra"))) })); n > 0 {
				t.Errorf("%s: %d calls for another order: %s", class, n, w.calls())
			}
		})
	}
}

// Each refusal comes before any call that changes something, names what is
// wrong, and what serves stays.
func TestBadInputTouchesNothing(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-v4", VPC: "vpc-1", Zone: "eu-west-1a", Public: true, CIDR: netip.MustParsePrefix("10.0.31.0/24"), Free: new(int)})
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		w.ensure(other("theirs", "heraldlb.io/nlb", annotate("name", "theirs")))
		time.Sleep(10 * time.Minute)
		before := w.cloud.String()
		for _, c := range []struct {
			name  string
			edit  func(*corev1.Service)
			named []string
		}{
			{"two subnets of a zone", annotate("subnets", "subnet-public1,subnet-private1"), []string{"subnets", "eu-west-1a"}},
			{"no such subnet", annotate("subnets", "subnet-9"), []string{"subnets", "subnet-9"}},
			{"no such group", annotate("security-groups", "nobody"), []string{"security-groups", "nobody"}},
			{"too few addresses", annotate("eip-allocations", "eipalloc-1"), []string{"eip-allocations", "subnet-public1", "subnet-public2"}},
			{"an address of no subnet", all(annotate("internal", "true"), annotate("private-ipv4-addresses", "10.9.9.9")), []string{"private-ipv4-addresses", "10.9.9.9"}},
			{"a name that is taken", annotate("name", "theirs"), []string{"name", "theirs"}},
			{"a subnet without IPv6", all(annotate("subnets", "subnet-v4"), annotate("ip-address-type", "dualstack")), []string{"ip-address-type", "subnet-v4", "subnets"}},
			{"a bad scheme", annotate("scheme", "public"), []string{"scheme", "internet-facing"}},
		} {
			edited := service("heraldlb.io/nlb", c.edit)
			status, err := w.sync(t.Context(), edited)
			refusal, ok := err.(*v1alpha1.Refusal)
			if !ok || status != nil {
				t.Errorf("%s: %v, %v", c.name, status, err)
				continue
			}
			for _, name := range c.named {
				if !strings.Contains(refusal.Message, name) {
					t.Errorf("%s: %q does not name %s", c.name, refusal.Message, name)
				}
			}
		}
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
	})
}

// Who prefers two families has the one that the subnets have, and is told; who
// needs IPv6 is refused.
func TestSubnetsWithoutIPv6(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-v4", VPC: "vpc-1", Zone: "eu-west-1a", Public: true, CIDR: netip.MustParsePrefix("10.0.31.0/24")})
		families := func(policy corev1.IPFamilyPolicy) func(*corev1.Service) {
			return all(annotate("subnets", "subnet-v4"), func(s *corev1.Service) {
				s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, &policy
			})
		}
		s := service("heraldlb.io/nlb", families(corev1.IPFamilyPolicyPreferDualStack))
		w.ensure(s)
		if _, _, message := w.provider.Explain(s); !strings.Contains(message, "spec.ipFamilies has IPv6, which the subnet subnet-v4 does not have") {
			t.Error(message)
		}
		if n := sum(w.counted(func() { w.ensure(s) })); n > 0 {
			t.Errorf("%d calls when nothing changed", n)
		}
		_, err := w.sync(t.Context(), service("heraldlb.io/nlb", families(corev1.IPFamilyPolicyRequireDualStack)))
		if refusal, ok := errors.AsType[*v1alpha1.Refusal](err); !ok || refusal.Reason != v1alpha1.WrongFamily {
			t.Errorf("who needs IPv6: %v", err)
		}
	})
}

// Nodes come and go also while the author of a Service looks for a mistake,
// and after a restart meanwhile. All else stays, also what others set.
func TestARefusedServiceKeepsUpWithItsNodes(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		for _, restart := range []bool{false, true} {
			bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
				asked := much
				if class == "heraldlb.io/nlb" {
					asked = all(much, annotate("attributes", "dns_record.client_routing_policy=availability_zone_affinity"))
				}
				w.ensure(service(class, all(asked, annotate("target-node-labels", "zone"))))
				time.Sleep(10 * time.Minute)
				rest := func() string {
					return strings.Join(slices.DeleteFunc(strings.Split(w.cloud.String(), "\n"), func(line string) bool {
						return strings.HasPrefix(line, "target k8s") || strings.HasPrefix(line, "instance ")
					}), "\n")
				}
				before := rest()
				w.addNode(2)
				if restart {
					w.restart()
				}
				for i, wrong := range []func(*corev1.Service){annotate("internal", "0.0.0.0/0"), annotate("subnets", "nowhere"), annotate("internal", "0.0.0.0/0")} {
					s := service(class, all(wrong, annotate("target-node-labels", "zone")))
					_, err := w.sync(t.Context(), s)
					if _, refused := errors.AsType[*v1alpha1.Refusal](err); !refused {
						t.Errorf("%s, restart %t: %v is no refusal", class, restart, err)
					}
					if wrong := w.unregistered(); len(wrong) > 0 {
						t.Errorf("%s, restart %t, %d: %v is wrong in\n%s", class, restart, i, wrong, w.cloud)
					}
					if diff := cmp.Diff(before, rest()); diff != "" {
						t.Errorf("%s, restart %t, %d: -before +after\n%s", class, restart, i, diff)
					}
					if n := sum(w.counted(func() { _, _ = w.sync(t.Context(), s) })); n > 0 {
						t.Errorf("%s, restart %t, %d: %d calls for a mistake that stays: %s", class, restart, i, n, w.calls())
					}
					w.addNode(i + 3)
					w.nodes = w.nodes[1:]
				}
				labels := service(class, annotate("target-node-labels", "=no"))
				_, _ = w.sync(t.Context(), labels) // whom to send to is not known
				w.ensure(service(class, asked))
				w.delete(service(class, asked))
			})
		}
	}
}

// What AWS throttles of that goes on where it was, and what nobody remembers is
// looked at again every few hours.
func TestTheNodesOfARefusedServiceWhileThrottled(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
		w.ensure(service("heraldlb.io/nlb", nil))
		time.Sleep(10 * time.Minute)
		w.addNode(2)
		w.restart()
		w.cloud.Inject(awsfake.Fault{Operation: "elbv2.RegisterTargets", Nth: 2, Times: attempts})
		s := service("heraldlb.io/nlb", annotate("internal", "0.0.0.0/0"))
		_, err := w.sync(t.Context(), s)
		wait, ok := errors.AsType[*api.RetryError](err)
		if !ok {
			t.Fatalf("%v asks for no other attempt", err)
		}
		time.Sleep(wait.RetryAfter())
		counts := w.counted(func() { _, err = w.sync(t.Context(), s) })
		if _, refused := errors.AsType[*v1alpha1.Refusal](err); !refused {
			t.Errorf("%v is no refusal", err)
		}
		if wrong := w.unregistered(); len(wrong) > 0 || sum(counts) != 1 {
			t.Errorf("%v is wrong after %v", wrong, counts)
		}
		held := w.provider.held(w.provider.entryOf(s))
		if len(held.state.TargetGroups[0].Targets) != 2 || len(held.state.TargetGroups[1].Targets) != 2 {
			t.Errorf("the targets are known as %v", held.state.TargetGroups)
		}
		time.Sleep(2 * checkEvery)
		if n := sum(w.counted(func() { _, _ = w.sync(t.Context(), s) })); n == 0 {
			t.Error("what others changed is not looked for")
		}
		if n := len(w.provider.keys(func(e *entry) bool { return e.due(time.Now()) })); n > 0 {
			t.Error("it is due again at once")
		}
	})
}

// Nodes come and go also while AWS refuses something else for good.
func TestWhatAWSRefusesKeepsNoNodeOut(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
			w.ensure(service(class, nil))
			w.addNode(2)
			many := service(class, func(s *corev1.Service) {
				for i := range 40 { // a rule for each port, and one for ICMP
					s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, fmt.Sprintf("10.%d.0.0/16", i))
				}
			})
			for range 2 {
				if _, err := w.sync(t.Context(), many); codeOf(err) != "RulesPerSecurityGroupLimitExceeded" {
					t.Errorf("%s: %v", class, err)
				}
				if missing := w.unregistered(); len(missing) > 0 {
					t.Errorf("%s: %v are not registered:\n%s", class, missing, w.cloud)
				}
				w.addNode(3)
			}
		})
	}
}

// unregistered are the instances of nodes that are targets of nothing, and
// those that are and have no node.
func (w *world) unregistered() []string {
	wrong := map[string]bool{}
	for _, node := range w.nodes {
		id, _ := instanceOf(node)
		wrong[id] = true
	}
	seen := map[string]bool{}
	for line := range strings.Lines(w.cloud.String()) {
		words := strings.Fields(line)
		if (words[0] == "target" || words[0] == "instance") && !strings.Contains(line, "draining") {
			id, _, _ := strings.Cut(words[2], ":")
			if _, node := wrong[id]; !seen[id] {
				seen[id], wrong[id] = true, !node
			}
		}
	}
	maps.DeleteFunc(wrong, func(_ string, wrong bool) bool { return !wrong })
	return slices.Sorted(maps.Keys(wrong))
}

// A subnet goes for another one of its zone, in place as long as the load
// balancer is in another zone as well.
func TestSubnetsWithinAZone(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-another1", VPC: "vpc-1", Zone: "eu-west-1a", Public: true, CIDR: netip.MustParsePrefix("10.0.21.0/24")})
			in := func(subnets string) *corev1.LoadBalancerStatus {
				status := w.ensure(service(class, annotate("subnets", subnets)))
				if !strings.Contains(w.cloud.String(), " internet-facing "+subnets+" ") {
					t.Errorf("%s is not in %s:\n%s", class, subnets, w.cloud)
				}
				return status
			}
			first := in("subnet-public1,subnet-public2")
			if moved := in("subnet-another1,subnet-public2"); !reflect.DeepEqual(first, moved) {
				t.Errorf("%s: %v became %v", class, first, moved)
			}
			in("subnet-another1")
			in("subnet-public1")
			w.delete(service(class, nil))
		})
	}
}

// Load balancers are in the subnets of the cloud config, those that fit, for
// not one call more. One that is there stays where it is, and so says a Service
// that names its own.
func TestSubnetsOfTheCloudConfig(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-another1", VPC: "vpc-1", Zone: "eu-west-1a", Public: true, CIDR: netip.MustParsePrefix("10.0.21.0/24")})
			in := func(s *corev1.Service, where string) {
				t.Helper()
				if w.ensure(s); !strings.Contains(w.cloud.String(), where+" ") {
					t.Errorf("%s is not %s:\n%s", class, where, w.cloud)
				}
			}
			old, first, second := other("old", class, nil), other("first", class, nil), other("second", class, nil)
			in(old, "internet-facing subnet-public1,subnet-public2")
			w.restart()
			found := w.counted(func() { w.ensure(first) })

			w.options.Subnets = []string{"subnet-public1", "subnet-private2", "subnet-private1"}
			w.restart()
			if listed := w.counted(func() { w.ensure(second) }); !reflect.DeepEqual(found, listed) {
				t.Errorf("%s: %v with a list, %v without", class, listed, found)
			}
			in(second, "internet-facing subnet-public1")
			in(other("internal", class, annotate("internal", "true")), "internal subnet-private1,subnet-private2")
			in(other("own", class, annotate("subnets", "public-b")), "internet-facing subnet-public2")
			time.Sleep(time.Hour) // what is being made is made
			before := w.cloud.String()
			w.ensure(old)
			if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
				t.Errorf("%s: what was there changed, -before +after\n%s", class, diff)
			}

			w.options.Subnets = []string{"subnet-public1", "subnet-9"}
			w.restart()
			refused := other("refused", class, nil)
			_, err := w.sync(t.Context(), refused)
			refusal, ok := errors.AsType[*v1alpha1.Refusal](err)
			if !ok || refusal.Reason != v1alpha1.SubnetsNotFound || !strings.Contains(refusal.Message, "aws.subnets") || !strings.Contains(refusal.Message, "subnet-9") {
				t.Errorf("%s: %v", class, err)
			}
			if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
				t.Errorf("%s: a refusal changes something, -before +after\n%s", class, diff)
			}
			w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-9", VPC: "vpc-1", Zone: "eu-west-1b", Public: true, CIDR: netip.MustParsePrefix("10.0.22.0/24")})
			time.Sleep(snapshotAge)
			in(refused, "internet-facing subnet-9,subnet-public1")
		})
	}
}

// What AWS does not know is told by the annotation that has it, also where AWS
// does not name it; who is served stays served.
func TestUnknownToAWS(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		for _, c := range []struct{ annotation, value string }{
			{"security-groups", "sg-9"}, {"extra-security-groups", "sg-extra,sg-9"}, {"ssl-cert", certificate + "9"},
		} {
			bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
				refused := func(s *corev1.Service) {
					t.Helper()
					var err error
					for range 3 { // what was done on the way is undone first
						_, err = w.sync(t.Context(), s)
						if _, waits := errors.AsType[*api.RetryError](err); !waits {
							break
						}
						time.Sleep(settle)
					}
					if err == nil || !strings.Contains(err.Error(), settings.Prefix+c.annotation) {
						t.Errorf("%s, %s of a new Service: %v", class, c.annotation, err)
					}
					refusal, ok := errors.AsType[*v1alpha1.Refusal](err)
					if group := c.annotation != "ssl-cert"; ok != group || group && (refusal.Reason != v1alpha1.GroupNotFound || !strings.Contains(err.Error(), "sg-9")) {
						t.Errorf("%s, %s: %v", class, c.annotation, err)
					}
				}
				refused(other("fresh", class, annotate(c.annotation, c.value)))

				s := service(class, nil)
				w.ensure(s)
				time.Sleep(time.Hour)
				edited := service(class, annotate(c.annotation, c.value))
				refused(edited)
				if calls := w.counted(func() { refused(edited) }); c.annotation != "ssl-cert" && sum(calls) > 0 {
					t.Errorf("%s, %s: a mistake that is known costs %v", class, c.annotation, calls)
				}
				if !strings.Contains(w.cloud.String(), "k8s-elb-a0f9e8d7c6b5a4938271605f4e3d2c1b") {
					t.Errorf("%s, %s: it is gone from\n%s", class, c.annotation, w.cloud)
				}

				w.cloud.AddSecurityGroup(awsfake.SecurityGroup{ID: "sg-9", Name: "nine", VPC: "vpc-1"})
				w.cloud.AddCertificate(certificate + "9")
				time.Sleep(snapshotAge + time.Second)
				w.ensure(edited)
				w.ensure(s)
				w.delete(s)
			})
		}
	}
}

// What annotations chose is found without them.
func TestDeletionNeedsNoAnnotation(t *testing.T) {
	for _, restart := range []bool{false, true} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			before := w.cloud.String()
			w.ensure(service("heraldlb.io/nlb", all(much, annotate("name", "chosen"), annotate("security-groups", "mine"))))
			plain := service("heraldlb.io/nlb", nil)
			if restart {
				w.restart()
			}
			w.delete(plain)
			if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
				t.Errorf("restart %t: -before +after\n%s", restart, diff)
			}
		})
	}
}

// A load balancer that somebody deleted leaves nothing behind either.
func TestDeletionWithoutTheLoadBalancer(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			before := w.cloud.String()
			s := service(class, nil)
			w.ensure(s)
			a := &applier{Provider: w.provider, holding: w.provider.held(w.provider.entryOf(s)).clone()}
			for _, step := range loss(&a.state) {
				if err := a.take(t.Context(), step); err != nil {
					t.Fatal(err)
				}
			}
			w.restart()
			w.delete(s)
			if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
				t.Errorf("%s: -before +after\n%s", class, diff)
			}
		})
	}
}

// Two Services that share a security group of the user's making share its rule
// at the nodes.
func TestSharedGroupKeepsItsRule(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		before := w.cloud.String()
		one, two := other("one", "heraldlb.io/nlb", annotate("security-groups", "mine")), other("two", "heraldlb.io/clb", annotate("security-groups", "sg-mine"))
		w.ensure(one)
		w.ensure(two)
		rule := "rule sg-nodes -1 sg-mine"
		w.delete(one)
		if !strings.Contains(w.cloud.String(), rule) {
			t.Errorf("the rule went with the first of two:\n%s", w.cloud)
		}
		w.delete(two)
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
	})
}

// The events that a Service got.
func (w *world) told() []string {
	var told []string
	for {
		select {
		case event := <-w.events.Events:
			told = append(told, event)
		default:
			return told
		}
	}
}

func TestReplacementIsTold(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		w.ensure(service("heraldlb.io/nlb", nil))
		w.told()
		w.ensure(service("heraldlb.io/nlb", annotate("internal", "true")))
		told := w.told()
		if !slices.ContainsFunc(told, func(event string) bool {
			return strings.Contains(event, string(v1alpha1.LoadBalancerReplaced)) && strings.Contains(event, "internal")
		}) {
			t.Errorf("told %q", told)
		}
	})
}

func TestIgnoredAnnotationsAreTold(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", all(annotate("nonsense", "x"), annotate("access-log-emit-interval", "5")))
		w.ensure(s)
		told := strings.Join(w.told(), "\n")
		for _, name := range []string{"nonsense", "access-log-emit-interval"} {
			if !strings.Contains(told, settings.Prefix+name) {
				t.Errorf("%s is not told of: %s", name, told)
			}
		}
		_, _, message := w.provider.Explain(s)
		s.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ServiceReady, Message: message}}
		w.restart()
		w.ensure(s)
		if told := w.told(); len(told) > 0 {
			t.Errorf("told again: %q", told)
		}
	})
}

func TestALoadBalancerWithoutNodesSaysWhy(t *testing.T) {
	for _, class := range []string{"heraldlb.io/nlb", "heraldlb.io/clb"} {
		bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
			s := service(class, annotate("target-node-labels", "zone=3"))
			w.ensure(s)
			const want = "No node is behind it: none that may be has the labels of " + settings.Prefix + "target-node-labels."
			if told := w.told(); !slices.Equal(told, []string{"Warning NoTargets " + want}) {
				t.Errorf("told %q", told)
			}
			if _, _, message := w.provider.Explain(s); !strings.HasSuffix(message, want) {
				t.Error(message)
			}
			w.ensure(service(class, annotate("target-node-labels", "zone=1")))
			if _, _, message := w.provider.Explain(s); strings.Contains(message, "No node") {
				t.Error(message)
			}
		})
	}
	bubble(t, 0, awsfake.Options{}, func(t *testing.T, w *world) {
		w.ensure(service("heraldlb.io/nlb", nil))
		if told := strings.Join(w.told(), "\n"); !strings.Contains(told, "NoTargets No node is behind it: none that may be is an instance in EC2") {
			t.Errorf("told %q", told)
		}
	})
}

// A port that cannot be served has an error; the others are served.
func TestPortsThatCannotBeServed(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/clb", port(1, func(p *corev1.ServicePort) { p.Protocol = corev1.ProtocolUDP }))
		status := w.ensure(s)
		ports := status.Ingress[0].Ports
		if len(ports) != 2 || ports[0].Error != nil || ports[1].Error == nil || *ports[1].Error != portNotServed {
			t.Errorf("ports %+v", ports)
		}
		if ready, reason, message := w.provider.Explain(s); ready || reason != v1alpha1.PortNotServed || !strings.Contains(message, "443") {
			t.Errorf("%t %s %s", ready, reason, message)
		}
	})
}

// The condition says when AWS is done, which one call asks for all.
func TestProvisioning(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", nil)
		w.ensure(s)
		if ready, reason, _ := w.provider.Explain(s); ready || reason != v1alpha1.Provisioning {
			t.Errorf("at first %t %s", ready, reason)
		}
		woken := map[types.NamespacedName]int{}
		w.provider.wake = func(key types.NamespacedName) { woken[key]++ }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.provider.watch(ctx) }()
		time.Sleep(3 * time.Minute)
		cancel()
		<-done
		if ready, reason, message := w.provider.Explain(s); !ready || reason != v1alpha1.LoadBalancerMade {
			t.Errorf("then %t %s %s", ready, reason, message)
		}
		if n := woken[types.NamespacedName{Namespace: "shop", Name: "web"}]; n != 1 {
			t.Errorf("woken %v", woken)
		}
	})
}
