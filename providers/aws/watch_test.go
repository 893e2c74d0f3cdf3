package aws

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

// pod is an endpoint.
type pod struct {
	address string
	ready   bool
	serving bool
}

// setEndpoints makes pods the endpoints of the Service web, by slices of one
// each.
func (w *world) setEndpoints(family discoveryv1.AddressType, pods ...pod) {
	w.t.Helper()
	store := w.provider.slices.GetStore()
	for _, object := range store.List() {
		if object.(*discoveryv1.EndpointSlice).AddressType == family {
			_ = store.Delete(object)
		}
	}
	w.slices = slices.DeleteFunc(w.slices, func(slice *discoveryv1.EndpointSlice) bool { return slice.AddressType == family })
	for i, pod := range pods {
		var ports []discoveryv1.EndpointPort
		for name, number := range map[string]int32{"http": 8080, "https": 8443} {
			tcp := corev1.ProtocolTCP
			ports = append(ports, discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &tcp})
		}
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprintf("web-%s-%d", family, i), Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			AddressType: family, Ports: ports,
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{pod.address}, Conditions: discoveryv1.EndpointConditions{Ready: &pod.ready, Serving: &pod.serving}}},
		}
		if err := store.Add(slice); err != nil {
			w.t.Fatal(err)
		}
		w.slices = append(w.slices, slice)
	}
}

// targets are the targets of what AWS holds, by address and port of the pods.
func (w *world) targets() []string {
	held := w.provider.held(w.provider.entryOf(w.services[types.NamespacedName{Namespace: "shop", Name: "web"}]))
	var targets []string
	for _, group := range held.state.TargetGroups {
		for _, target := range group.Targets {
			if strings.Contains(w.cloud.String(), "target "+group.Name+" "+target.ID) {
				targets = append(targets, fmt.Sprintf("%s:%d", target.ID, target.Port))
			}
		}
	}
	slices.Sort(targets)
	return targets
}

func TestPodsAreTargets(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", func(s *corev1.Service) {
			annotate("target-type", "ip")(s)
			for i := range s.Spec.Ports {
				s.Spec.Ports[i].NodePort = 0
				s.Spec.Ports[i].TargetPort = intstr.FromString(s.Spec.Ports[i].Name)
			}
		})
		for _, c := range []struct {
			name string
			pods []pod
			want string
		}{
			{"none", nil, ""},
			{"one of the VPC", []pod{{"10.0.11.9", true, true}}, "10.0.11.9:8080 10.0.11.9:8443"},
			{"and one outside", []pod{{"10.0.11.9", true, true}, {"192.168.7.7", true, true}}, "10.0.11.9:8080 10.0.11.9:8443 192.168.7.7:8080 192.168.7.7:8443"},
			{"one that ends", []pod{{"10.0.11.9", false, true}, {"192.168.7.7", true, true}}, "192.168.7.7:8080 192.168.7.7:8443"},
			{"all end", []pod{{"10.0.11.9", false, true}, {"192.168.7.7", false, false}}, "10.0.11.9:8080 10.0.11.9:8443"},
		} {
			w.setEndpoints(discoveryv1.AddressTypeIPv4, c.pods...)
			w.setEndpoints(discoveryv1.AddressTypeIPv6, pod{"2001:db8:0:11::9", true, true})
			w.ensure(s)
			time.Sleep(10 * time.Minute)
			if got := strings.Join(w.targets(), " "); got != c.want {
				t.Errorf("%s: %s, want %s", c.name, got, c.want)
			}
		}
		if n := sum(w.counted(func() { w.ensure(s) })); n != 0 {
			t.Errorf("%d calls when nothing changed", n)
		}
		w.restart()
		w.setEndpoints(discoveryv1.AddressTypeIPv4, pod{"10.0.11.8", true, true}, pod{"192.168.7.8", true, true})
		refused := s.DeepCopy()
		annotate("scheme", "public")(refused)
		if _, err := w.sync(t.Context(), refused); err == nil {
			t.Error("a bad scheme is not refused")
		}
		if got := strings.Join(w.targets(), " "); got != "10.0.11.8:8080 10.0.11.8:8443 192.168.7.8:8080 192.168.7.8:8443" {
			t.Errorf("of a refused Service after a restart: %s", got)
		}
		w.setEndpoints(discoveryv1.AddressTypeIPv6, pod{"2001:db8:0:11::9", true, true})
		w.ensure(service("heraldlb.io/nlb", func(edited *corev1.Service) {
			*edited = *s.DeepCopy()
			edited.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		}))
		if got := strings.Join(w.targets(), " "); got != "2001:db8:0:11::9:8080 2001:db8:0:11::9:8443" {
			t.Errorf("by IPv6: %s", got)
		}
	})
}

// Pods at addresses that AWS does not take keep no other pod out. That is told
// once, and costs nothing as long as nothing changes.
func TestPodsThatAWSDoesNotTake(t *testing.T) {
	for _, c := range []struct {
		name     string
		families []corev1.IPFamily
		pods     map[discoveryv1.AddressType][]pod
		want     string
		event    string
		// tries are the calls when the address may be tried again.
		tries int
	}{
		{
			"public", []corev1.IPFamily{corev1.IPv4Protocol},
			map[discoveryv1.AddressType][]pod{discoveryv1.AddressTypeIPv4: {{"203.0.113.9", true, true}, {"10.0.11.9", true, true}, {"100.64.0.9", true, true}}},
			"10.0.11.9:8080 10.0.11.9:8443 100.64.0.9:8080 100.64.0.9:8443", "TargetRefused Left out are pods at 203.0.113.9: AWS takes no targets outside of the VPC", 0,
		},
		{
			"IPv6 of another VPC", []corev1.IPFamily{corev1.IPv6Protocol},
			map[discoveryv1.AddressType][]pod{discoveryv1.AddressTypeIPv6: {{"2001:db8:ffff::9", true, true}, {"2001:db8:0:11::9", true, true}}},
			"2001:db8:0:11::9:8080 2001:db8:0:11::9:8443", "TargetRefused AWS does not take 2001:db8:ffff::9 as targets", 2,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
				s := service("heraldlb.io/nlb", all(toPods, dualStack(c.families...)))
				for family, pods := range c.pods {
					w.setEndpoints(family, pods...)
				}
				w.ensure(s)
				for range 3 {
					w.provider.forgetNodes(time.Now())
					if n := sum(w.counted(func() { w.ensure(s) })); n > 0 {
						t.Errorf("%d calls when nothing changed: %s", n, w.calls())
					}
				}
				time.Sleep(ghostFirst)
				w.provider.forgetNodes(time.Now())
				if n := w.counted(func() { w.ensure(s) })["elbv2.RegisterTargets"]; n != c.tries {
					t.Errorf("tried again by %d calls, want %d", n, c.tries)
				}
				if got := strings.Join(w.targets(), " "); got != c.want {
					t.Errorf("%s, want %s", got, c.want)
				}
				var told []string
				for len(w.events.Events) > 0 {
					if event := <-w.events.Events; strings.Contains(event, "TargetRefused") {
						told = append(told, event)
					}
				}
				if len(told) != 1 || !strings.Contains(told[0], c.event) {
					t.Errorf("told %q, want once %q", told, c.event)
				}
				for family := range c.pods {
					w.setEndpoints(family)
				}
				w.ensure(s)
				time.Sleep(ghostLast + time.Hour)
				w.provider.forgetNodes(time.Now())
				if n := len(w.provider.instances.ghosts); n > 0 {
					t.Errorf("%d are remembered for ever", n)
				}
			})
		})
	}
}

func TestWhoIsWoken(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		pods := other("pods", "heraldlb.io/nlb", annotate("target-type", "ip"))
		pods.Name = "web"
		nodes := other("nodes", "heraldlb.io/clb", nil)
		w.ensure(pods)
		w.ensure(nodes)
		var woken []string
		w.provider.wake = func(key types.NamespacedName) { woken = append(woken, key.Name) }
		slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}}
		w.provider.endpointsChanged(slice)
		slice.Labels[discoveryv1.LabelServiceName] = "nodes"
		w.provider.endpointsChanged(slice)
		if got := strings.Join(woken, " "); got != "web" {
			t.Errorf("by endpoints: %s", got)
		}
		before := w.nodes[0]
		for _, c := range []struct {
			name string
			edit func(*corev1.Node)
			same bool
		}{
			{"heartbeat", func(n *corev1.Node) { n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady}} }, true},
			{"not ready", func(n *corev1.Node) {
				n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoExecute}}
			}, true},
			{"excluded", func(n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "" }, false},
			{"not excluded", func(n *corev1.Node) { n.Labels[corev1.LabelNodeExcludeBalancers] = "false" }, false},
			{"going", func(n *corev1.Node) {
				n.Spec.Taints = []corev1.Taint{{Key: autoscalerTaint, Effect: corev1.TaintEffectNoSchedule}}
			}, false},
			{"known to the cloud", func(n *corev1.Node) { n.Spec.ProviderID = "aws:///a/i-9" }, false},
		} {
			after := before.DeepCopy()
			c.edit(after)
			if got := sameTarget(before, after); got != c.same {
				t.Errorf("%s: same %t, want %t", c.name, got, c.same)
			}
		}
	})
}

func TestEligibleNodes(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*corev1.Node)
		want bool
	}{
		{"any", func(*corev1.Node) {}, true},
		{"not ready", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionFalse}}
		}, true},
		{"unschedulable", func(n *corev1.Node) { n.Spec.Unschedulable = true }, true},
		{"excluded", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: "true"} }, false},
		{"included", func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: "false"} }, true},
		{"scaled down", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: autoscalerTaint}} }, false},
		{"disrupted", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: karpenterTaint, Effect: corev1.TaintEffectNoSchedule}}
		}, false},
		{"being deleted", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: time.Now()} }, false},
	} {
		node := &corev1.Node{}
		c.edit(node)
		if got := len(targetNodes([]*corev1.Node{node}, nil)) == 1; got != c.want {
			t.Errorf("%s: %t, want %t", c.name, got, c.want)
		}
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"gw": "front", "empty": ""}}}
	for _, c := range []struct {
		labels map[string]string
		want   bool
	}{
		{map[string]string{"gw": "front"}, true},
		{map[string]string{"gw": ""}, true},
		{map[string]string{"gw": "", "empty": ""}, true},
		{map[string]string{"gw": "back"}, false},
		{map[string]string{"empty": "front"}, false},
		{map[string]string{"gw": "front", "other": ""}, false},
	} {
		if got := len(targetNodes([]*corev1.Node{node}, c.labels)) == 1; got != c.want {
			t.Errorf("%v: %t, want %t", c.labels, got, c.want)
		}
	}
	for id, want := range map[string]string{
		"aws:///eu-west-1a/i-0123": "i-0123", "aws:///i-0123": "i-0123", "aws:///eu-west-1a/4711/fargate-ip-10-0-0-7": "", "gce://x/i-0123": "", "": "",
	} {
		got, ok := instanceOf(&corev1.Node{Spec: corev1.NodeSpec{ProviderID: id}})
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%s: %q, want %q", id, got, want)
		}
	}
}

// A Service without class says by an annotation whose it is, and what it gets.
func TestServicesWithoutClass(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
		for value, want := range map[string]Type{"": CLB, "nlb": NLB, "clb": CLB, "external": "", "nlb-ip": ""} {
			s := service("", annotate("type", value))
			if got := w.provider.Leaves(s); got != (want == "") {
				t.Errorf("%q: left to others %t", value, got)
			}
			if got := w.provider.typeOf(s); want != "" && got != want {
				t.Errorf("%q: %s, want %s", value, got, want)
			}
			if s := service("heraldlb.io/nlb", annotate("type", value)); w.provider.Leaves(s) || w.provider.typeOf(s) != NLB {
				t.Errorf("%q: the class does not count", value)
			}
		}
	})
}

// What AWS lacked may be there later: a refused Service is looked at again.
func TestRefusedByWhatAWSLacks(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", all(annotate("subnets", "public-a"), annotate("eip-allocations", "eipalloc-9")))
		if _, err := w.sync(t.Context(), s); err == nil || !strings.Contains(err.Error(), "eipalloc-9") {
			t.Fatal(err)
		}
		for call := range w.cloud.Counts() {
			if !strings.Contains(call, "Describe") {
				t.Errorf("%s for what is refused", call)
			}
		}
		woken := 0
		w.provider.wake = func(types.NamespacedName) { woken++ }
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); w.provider.watch(ctx) }()
		time.Sleep(snapshotAge + time.Minute)
		cancel()
		<-done
		if woken != 1 {
			t.Errorf("woken %d times", woken)
		}

		bare := service("heraldlb.io/nlb", annotate("subnets", "subnet-9"))
		if _, err := w.sync(t.Context(), bare); err == nil || !strings.Contains(err.Error(), "subnet-9") {
			t.Fatal(err)
		}
		w.cloud.AddSubnet(awsfake.Subnet{ID: "subnet-9", VPC: "vpc-1", Zone: "eu-west-1b", Public: true, CIDR: netip.MustParsePrefix("10.0.22.0/24")})
		if calls := w.counted(func() { _, _ = w.sync(t.Context(), bare) }); sum(calls) > 0 {
			t.Errorf("what was read just now is read again: %v", calls)
		}
		time.Sleep(snapshotAge + time.Second)
		w.ensure(bare)
	})
}

// Each operation has its own bucket: one that is empty holds nothing else up.
func TestBuckets(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, _ *world) {
		b := newBuckets(10, 5)
		start := time.Now()
		for range 15 {
			if err := b.wait(t.Context(), "a"); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("15 calls took %s, want 5 at once and 10 in a second", took)
		}
		start = time.Now()
		if err := b.wait(t.Context(), "b"); err != nil || time.Since(start) > 0 {
			t.Errorf("another operation waited %s, %v", time.Since(start), err)
		}
	})
}

// An operation that AWS throttles is called less often, and as often as before
// once AWS takes its calls.
func TestBucketsHeedThrottling(t *testing.T) {
	bubble(t, 1, awsfake.Options{}, func(t *testing.T, _ *world) {
		b := newBuckets(8, 40)
		for range 10 { // at once: the workers
			b.heed("a", true, time.Now())
		}
		took := func(operation string, n int) time.Duration {
			start := time.Now()
			for range n {
				if err := b.wait(t.Context(), operation); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		if got := took("a", 5); got != time.Second {
			t.Errorf("5 calls of what is throttled took %s, want 1 at once and 4 in a second", got)
		}
		if got := took("b", 40); got != 0 {
			t.Errorf("another operation waited %s", got)
		}
		for range 10 {
			time.Sleep(time.Second)
			b.heed("a", true, time.Now())
		}
		took("a", 1)
		if got := took("a", 1); got != 2*time.Second {
			t.Errorf("at its slowest a call waits %s, want 2s", got)
		}
		for range 50 {
			b.heed("a", false, time.Now())
		}
		time.Sleep(10 * time.Second)
		if got := took("a", 41); got != time.Second/8 {
			t.Errorf("41 calls once AWS takes them took %s, want 40 at once and 1 after 125ms", got)
		}
	})
}
