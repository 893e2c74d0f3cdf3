package e2e

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// nth is the address of the prefix with that number.
func nth(prefix netip.Prefix, n int) netip.Addr {
	addr := prefix.Addr()
	for range n {
		addr = addr.Next()
	}
	return addr
}

func TestRequestsAreGrantedOrRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	main := w.pool("main", func(s *v1alpha1.AddressPoolSpec) {
		s.Exclude = []string{nth(w.v4, 9).String()}
		s.AvoidBuggyIPs = true
	}, w.v4.Addr().String()+"/25", w.v6.String())
	other := w.pool("other", func(s *v1alpha1.AddressPoolSpec) { s.Namespaces = []string{"elsewhere"} }, nth(w.v4, 128).String()+"/25")
	taken := nth(w.v4, 5)
	w.service("holder", annotated("heraldlb.io/addresses", taken.String()))
	w.address("holder")

	four, six := nth(w.v4, 6), nth(w.v6, 6)
	for _, c := range []struct {
		name   string
		edit   func(*corev1.Service)
		want   []netip.Addr // granted
		reason v1alpha1.Reason
		words  []string
	}{
		{name: "both-families", edit: all(families(corev1.IPFamilyPolicyRequireDualStack), annotated("heraldlb.io/addresses", fmt.Sprintf("%s, %s", six, four))), want: []netip.Addr{four, six}},
		{name: "one-family-of-two", edit: all(families(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol), annotated("heraldlb.io/addresses", nth(w.v6, 7).String())), want: []netip.Addr{nth(w.v6, 7)}},
		{name: "field", edit: func(s *corev1.Service) { s.Spec.LoadBalancerIP = nth(w.v4, 7).String() }, want: []netip.Addr{nth(w.v4, 7)}},
		{name: "agreeing", edit: all(annotated("heraldlb.io/addresses", nth(w.v4, 8).String(), "heraldlb.io/pool", main.Name), func(s *corev1.Service) { s.Spec.LoadBalancerIP = nth(w.v4, 8).String() }), want: []netip.Addr{nth(w.v4, 8)}},
		{name: "disagreeing", edit: all(annotated("heraldlb.io/addresses", nth(w.v4, 20).String()), func(s *corev1.Service) { s.Spec.LoadBalancerIP = nth(w.v4, 21).String() }), reason: v1alpha1.ConflictingRequests, words: []string{"heraldlb.io/addresses", "spec.loadBalancerIP"}},
		{name: "malformed", edit: annotated("heraldlb.io/addresses", "203.0.113"), reason: v1alpha1.InvalidAddress, words: []string{"heraldlb.io/addresses", `"203.0.113"`}},
		{name: "two-of-one-family", edit: annotated("heraldlb.io/addresses", fmt.Sprintf("%s,%s", nth(w.v4, 20), nth(w.v4, 21))), reason: v1alpha1.InvalidAddress, words: []string{"one family"}},
		{name: "wrong-family", edit: annotated("heraldlb.io/addresses", nth(w.v6, 20).String()), reason: v1alpha1.WrongFamily, words: []string{"IPv6"}},
		{name: "outside", edit: annotated("heraldlb.io/addresses", "192.0.2.77"), reason: v1alpha1.OutsidePools, words: []string{"192.0.2.77"}},
		{name: "not-for-us", edit: annotated("heraldlb.io/addresses", nth(w.v4, 130).String()), reason: v1alpha1.PoolNotServing, words: []string{other.Name}},
		{name: "excluded", edit: annotated("heraldlb.io/addresses", nth(w.v4, 9).String()), reason: v1alpha1.Excluded, words: []string{main.Name}},
		{name: "buggy", edit: annotated("heraldlb.io/addresses", w.v4.Addr().String()), reason: v1alpha1.BuggyAddress, words: []string{main.Name}},
		{name: "taken", edit: annotated("heraldlb.io/addresses", taken.String()), reason: v1alpha1.NotShared, words: []string{w.namespace + "/holder"}},
		{name: "unknown-pool", edit: annotated("heraldlb.io/pool", "nowhere"), reason: v1alpha1.UnknownPool, words: []string{"nowhere"}},
		{name: "pool-not-for-us", edit: annotated("heraldlb.io/pool", other.Name), reason: v1alpha1.NoPool, words: []string{other.Name}},
		{name: "address-of-another-pool", edit: annotated("heraldlb.io/pool", main.Name, "heraldlb.io/addresses", nth(w.v4, 131).String()), reason: v1alpha1.NotInPool, words: []string{main.Name}},
		{name: "bad-scope", edit: annotated("heraldlb.io/scope", "internal"), reason: v1alpha1.InvalidAnnotation, words: []string{"heraldlb.io/scope", "External or Internal"}},
		{name: "bad-mode", edit: annotated("heraldlb.io/ip-mode", "Nat"), reason: v1alpha1.InvalidAnnotation, words: []string{"heraldlb.io/ip-mode", "VIP or Proxy"}},
	} {
		w.service(c.name, c.edit)
		if c.reason != "" {
			w.refused(c.name, c.reason, c.words...)
			continue
		}
		got := w.addresses(c.name, len(c.want))
		for i, want := range c.want {
			if got[i] != want {
				t.Errorf("%s: got %v, want %v", c.name, got, c.want)
			}
		}
	}
}

func TestLiveServiceMovesToAnotherRequestedAddressOrPool(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pool("a", nil, w.v4.Addr().String()+"/25")
	b := w.pool("b", func(s *v1alpha1.AddressPoolSpec) { s.Priority = -1 }, nth(w.v4, 128).String()+"/25")
	w.pods("web", "node1")
	w.service("web", nil)
	first := w.address("web")
	w.reachable(first)

	want := nth(w.v4, 3)
	w.annotate("web", "heraldlb.io/addresses", want.String())
	w.becomes("web", want)
	w.reachable(want)
	w.gone(first)
	w.silent(first)

	// The address goes, the request for the pool comes.
	w.edit("web", func(s *corev1.Service) { s.Annotations = map[string]string{"heraldlb.io/pool": b.Name} })
	w.eventually("the Service is served from the other pool", func() error {
		now := shown(w.get("web"))
		if len(now) != 1 || !netip.PrefixFrom(nth(w.v4, 128), 25).Contains(now[0]) {
			return fmt.Errorf("at %v", now)
		}
		return nil
	})
	w.gone(want)
	moved := w.address("web")
	w.reachable(moved)

	// A request that cannot be met takes nothing away.
	w.annotate("web", "heraldlb.io/addresses", "192.0.2.1")
	w.refused("web", v1alpha1.NotInPool)
	if now := shown(w.get("web")); len(now) != 1 || now[0] != moved {
		t.Errorf("the refused Service has %v: want %s, as before", now, moved)
	}
	w.reachable(moved)
}

// becomes waits until the Service shows just this address.
func (w *world) becomes(name string, want ...netip.Addr) {
	w.Helper()
	w.eventually(fmt.Sprintf("Service %s is served at %v", name, want), func() error {
		now := shown(w.get(name))
		if fmt.Sprint(now) != fmt.Sprint(want) {
			return fmt.Errorf("at %v", now)
		}
		return nil
	})
}

func TestFamiliesOfAService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	four := w.pool("four", nil, w.v4.String())
	w.service("single", nil)
	w.service("prefer", families(corev1.IPFamilyPolicyPreferDualStack))
	w.service("require", families(corev1.IPFamilyPolicyRequireDualStack))
	w.service("reversed", families(corev1.IPFamilyPolicyPreferDualStack, corev1.IPv6Protocol, corev1.IPv4Protocol))
	single := w.address("single")
	prefer := w.address("prefer")
	w.address("reversed")
	w.pods("prefer", "node1")
	w.says("prefer", metav1.ConditionTrue, v1alpha1.AddressPartial, "IPv6", four.Name)
	w.refused("require", v1alpha1.NoPool, "IPv6")
	if now := shown(w.get("require")); len(now) > 0 {
		t.Errorf("require has %v: want all or nothing", now)
	}

	// A second family becomes available: Prefer completes itself, Require is served.
	w.pool("six", nil, w.v6.String())
	if now := w.addresses("prefer", 2); now[0] != prefer || !now[1].Is6() {
		t.Errorf("prefer has %v: want %s and an IPv6 address", now, prefer)
	}
	w.addresses("require", 2)
	if now := w.addresses("reversed", 2); !now[0].Is6() || !now[1].Is4() {
		t.Errorf("reversed has %v: want IPv6 before IPv4, the order of ipFamilies", now)
	}

	// A family is added to a live Service, and taken away again.
	w.edit("single", families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol))
	both := w.addresses("single", 2)
	if both[0] != single {
		t.Errorf("single had %s and has %v: want it kept", single, both)
	}
	w.edit("single", func(s *corev1.Service) {
		families(corev1.IPFamilyPolicySingleStack, corev1.IPv4Protocol)(s)
		s.Spec.ClusterIPs = s.Spec.ClusterIPs[:1]
	})
	w.becomes("single", single)
	w.gone(both[1])
}

func TestPoolSelection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ns, err := kube.CoreV1().Namespaces().Get(w.ctx, w.namespace, metav1.GetOptions{})
	w.must(err)
	ns.Labels["tier"] = w.namespace
	_, err = kube.CoreV1().Namespaces().Update(w.ctx, ns, metav1.UpdateOptions{})
	w.must(err)
	part := func(i int) string { return netip.PrefixFrom(nth(w.v4, 32*i), 27).String() }
	in := func(name string, i int) {
		t.Helper()
		if addr := w.address(name); !netip.MustParsePrefix(part(i)).Contains(addr) {
			t.Errorf("%s has %s: want one of %s", name, addr, part(i))
		}
	}
	byLabel := func(s *v1alpha1.AddressPoolSpec) {
		s.Priority = 10
		s.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"gold": "yes"}}
	}
	w.pool("b-plain", nil, part(0))
	w.pool("a-plain", nil, part(1))
	w.pool("labelled", byLabel, part(2))
	w.pool("namespace", func(s *v1alpha1.AddressPoolSpec) {
		s.Priority = 20
		s.Namespaces = nil
		s.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"tier": w.namespace}}
		s.ServiceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"both": "yes"}}
	}, part(3))
	manual := w.pool("manual", func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool); s.Priority = 100 }, part(4))
	w.pool("internal", func(s *v1alpha1.AddressPoolSpec) { s.Scope = v1alpha1.ScopeInternal; s.Priority = 100 }, part(5))

	labelled := func(key string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Labels = map[string]string{key: "yes"} }
	}
	w.service("tie", nil)
	in("tie", 1) // equal priority: by name
	w.service("gold", labelled("gold"))
	in("gold", 2)
	w.service("both", labelled("both"))
	in("both", 3)
	w.service("by-name", annotated("heraldlb.io/pool", manual.Name))
	in("by-name", 4)
	w.service("scope", annotated("heraldlb.io/scope", "Internal"))
	in("scope", 5)
	for i, pair := range [][2]string{
		{"networking.gke.io/load-balancer-type", "Internal"},
		{"service.beta.kubernetes.io/aws-load-balancer-scheme", "internal"},
		{"service.beta.kubernetes.io/azure-load-balancer-internal", "true"},
		{"service.beta.kubernetes.io/openstack-internal-load-balancer", "true"},
		{"service.beta.kubernetes.io/cce-load-balancer-internal-vpc", "true"},
		{"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid", "subnet-xyz"},
	} {
		name := fmt.Sprintf("cloud-%d", i)
		w.service(name, annotated(pair[0], pair[1]))
		in(name, 5)
	}
}

func TestFullPoolFallsBackToTheNextAndQuotaHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pool("better", func(s *v1alpha1.AddressPoolSpec) { s.Priority = 1 }, w.v4.Addr().String()+"/32")
	last := w.pool("last", func(s *v1alpha1.AddressPoolSpec) { s.MaxPerNamespace = 1 }, nth(w.v4, 128).String()+"/25")
	w.service("first", nil)
	if got := w.address("first"); got != w.v4.Addr() {
		t.Errorf("first has %s: want the one address of the better pool", got)
	}
	w.service("second", nil)
	if got := w.address("second"); !netip.PrefixFrom(nth(w.v4, 128), 25).Contains(got) {
		t.Errorf("second has %s: want one of the next pool", got)
	}
	w.service("third", nil)
	w.eventually("third waits for quota or room", func() error {
		condition := ready(w.get("third"))
		if condition == nil || condition.Status == metav1.ConditionTrue {
			return fmt.Errorf("condition %+v", condition)
		}
		return has(condition.Message, last.Name, "maxPerNamespace")
	})
	w.editPool(last.Name, func(s *v1alpha1.AddressPoolSpec) { s.MaxPerNamespace = 2 })
	w.address("third")
}
