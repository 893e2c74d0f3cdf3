package baremetal

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

var seventeen = netip.MustParseAddr("203.0.113.17")

// vip is the VirtualIP of an address with those Services on it.
func vip(addr netip.Addr, names ...string) *v1alpha1.VirtualIP {
	v := &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.VirtualIPName(addr)},
		Spec:       v1alpha1.VirtualIPSpec{Address: addr.String(), Pool: "public", ReclaimPolicy: v1alpha1.ReclaimDelete},
	}
	for _, name := range names {
		v.Spec.Claims = append(v.Spec.Claims, claimOf(name))
	}
	return v
}

func claimOf(name string) v1alpha1.Claim {
	return v1alpha1.Claim{Namespace: "shop", Name: name, Ports: []v1alpha1.ClaimPort{{Protocol: "TCP", Port: 80}}}
}

func keyNamed(name string) ipam.Key { return ipam.Key{Namespace: "shop", Name: name} }

func TestClaimed(t *testing.T) {
	edited := func(v *v1alpha1.VirtualIP, edit func(*v1alpha1.VirtualIP)) *v1alpha1.VirtualIP { edit(v); return v }
	other := claimOf("web")
	other.Ports[0].Port = 443
	for _, c := range []struct {
		name    string
		vip     *v1alpha1.VirtualIP
		pool    string
		claim   v1alpha1.Claim
		want    *v1alpha1.VirtualIP
		changed bool
	}{
		{"a new one", nil, "public", claimOf("web"), vip(seventeen, "web"), true},
		{"it is there", vip(seventeen, "web"), "public", claimOf("web"), vip(seventeen, "web"), false},
		{"other ports", vip(seventeen, "web"), "public", other, edited(vip(seventeen, "web"), func(v *v1alpha1.VirtualIP) { v.Spec.Claims[0].Ports[0].Port = 443 }), true},
		{"one more, in order", vip(seventeen, "api", "web"), "public", claimOf("mail"), vip(seventeen, "api", "mail", "web"), true},
		{"a reservation keeps what it says", edited(vip(seventeen), func(v *v1alpha1.VirtualIP) {
			v.Spec.ReclaimPolicy = v1alpha1.ReclaimRetain
			v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}
		}), "public", claimOf("web"), edited(vip(seventeen, "web"), func(v *v1alpha1.VirtualIP) {
			v.Spec.ReclaimPolicy = v1alpha1.ReclaimRetain
			v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}
		}), true},
		{"the pool was renamed", vip(seventeen, "web"), "renamed", claimOf("web"), edited(vip(seventeen, "web"), func(v *v1alpha1.VirtualIP) { v.Spec.Pool = "renamed" }), true},
		{"no pool has it any more", vip(seventeen, "web"), "", claimOf("web"), vip(seventeen, "web"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.vip.DeepCopy()
			got, changed := claimed(c.vip, seventeen, c.pool, v1alpha1.ReclaimDelete, c.claim)
			if diff := cmp.Diff(c.want, got); diff != "" || changed != c.changed {
				t.Errorf("changed %t, -want +got\n%s", changed, diff)
			}
			if diff := cmp.Diff(before, c.vip); diff != "" {
				t.Errorf("the cached object was changed: %s", diff)
			}
			if again, changed := claimed(got, seventeen, c.pool, v1alpha1.ReclaimDelete, c.claim); changed {
				t.Errorf("the second time it changed again: %s", cmp.Diff(got, again))
			}
		})
	}
}

func TestUnclaimed(t *testing.T) {
	retain := func(v *v1alpha1.VirtualIP, reservedFor string) *v1alpha1.VirtualIP {
		v.Spec.ReclaimPolicy = v1alpha1.ReclaimRetain
		v.Spec.L2 = &v1alpha1.L2Placement{Candidates: []string{"a"}}
		v.Spec.BGP = &v1alpha1.BGPPlacement{Advertisements: []string{"tor"}}
		if reservedFor != "" {
			v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: reservedFor}
		}
		return v
	}
	kept := func(name string) *v1alpha1.VirtualIP {
		v := retain(vip(seventeen), name)
		v.Spec.Claims = []v1alpha1.Claim{}
		v.Spec.Hold, v.Spec.L2, v.Spec.BGP = v1alpha1.Unclaimed, nil, nil
		return v
	}
	for _, c := range []struct {
		name string
		vip  *v1alpha1.VirtualIP
		want *v1alpha1.VirtualIP
	}{
		{"the last one: it goes", vip(seventeen, "web"), nil},
		{"one of two", vip(seventeen, "api", "web"), vip(seventeen, "api")},
		{"retained: kept for the Service, announced by nobody", retain(vip(seventeen, "web"), ""), kept("web")},
		{"a reservation for another stays that", retain(vip(seventeen, "web"), "old"), kept("old")},
		{"one of two on a retained one reserves nothing", retain(vip(seventeen, "api", "web"), ""), retain(vip(seventeen, "api"), "")},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := c.vip.DeepCopy()
			if diff := cmp.Diff(c.want, unclaimed(c.vip, keyNamed("web"))); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if diff := cmp.Diff(before, c.vip); diff != "" {
				t.Errorf("the cached object was changed: %s", diff)
			}
		})
	}
}

func TestParseRequest(t *testing.T) {
	prefer := corev1.IPFamilyPolicyPreferDualStack
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: set{"app": "web"}, Annotations: set{
			"heraldlb.io/addresses": "2001:db8::17,203.0.113.17", "heraldlb.io/pool": "public", "heraldlb.io/share": "key", "heraldlb.io/scope": "Internal",
		}},
		Spec: corev1.ServiceSpec{
			Selector:              set{"b": "2", "a": "1"},
			IPFamilies:            []corev1.IPFamily{"IPv6", "IPv4"},
			IPFamilyPolicy:        &prefer,
			ExternalTrafficPolicy: "Local",
			Ports:                 []corev1.ServicePort{{Protocol: "TCP", Port: 80}, {Protocol: "UDP", Port: 53}},
		},
	}
	got, _, refusal := parseRequest(service, set{"team": "shop"})
	if refusal != nil {
		t.Fatal(refusal)
	}
	want := &ipam.Request{
		Key: keyNamed("web"), Families: []ipam.Family{"IPv6", "IPv4"}, Partial: true,
		Addresses: []netip.Addr{seventeen, netip.MustParseAddr("2001:db8::17")},
		Pool:      "public", Share: "key", Internal: true, Local: true, Backend: "shop/a=1,b=2",
		Ports:  []ipam.Port{{Protocol: "TCP", Port: 80}, {Protocol: "UDP", Port: 53}},
		Labels: set{"app": "web"}, NamespaceLabels: set{"team": "shop"},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}

	service.Annotations = set{"heraldlb.io/addresses": "x"}
	if _, _, refusal := parseRequest(service, nil); refusal == nil || refusal.Reason != v1alpha1.InvalidAddress {
		t.Errorf("a broken annotation: %v", refusal)
	}
	service.Annotations, service.Spec.LoadBalancerSourceRanges = nil, []string{"x"}
	if _, _, refusal := parseRequest(service, nil); refusal == nil || refusal.Reason != v1alpha1.InvalidSourceRange {
		t.Errorf("a broken source range: %v", refusal)
	}
}

// Without a selector nobody knows which pods serve, so two such Services are
// not alike.
func TestBackendOf(t *testing.T) {
	of := func(namespace string, selector set) string {
		return backendOf(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}, Spec: corev1.ServiceSpec{Selector: selector}})
	}
	if of("shop", nil) != "" || of("shop", set{}) != "" {
		t.Error("no selector is a backend")
	}
	if of("shop", set{"app": "web"}) == of("post", set{"app": "web"}) {
		t.Error("the pods of another namespace are the same")
	}
	if of("shop", set{"a": "1", "b": "2"}) != of("shop", set{"b": "2", "a": "1"}) {
		t.Error("the order of a selector matters")
	}
}
