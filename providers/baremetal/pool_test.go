package baremetal

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

type set = map[string]string

func label(key, value string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: set{key: value}}
}

// broken is a selector that cannot be read.
func broken() *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: "Near", Values: []string{"web"}}}}
}

// told is problems as reason and message.
func told(problems []problem) []string {
	var all []string
	for _, p := range problems {
		all = append(all, fmt.Sprintf("%s: %s", p.reason, p.message))
	}
	return all
}

// toldOf compares what was told with words, of which each message must have
// its own; the reason comes first.
func toldOf(t *testing.T, want []string, problems []problem) {
	t.Helper()
	got := told(problems)
	if len(got) != len(want) {
		t.Fatalf("told %q, want %q", got, want)
	}
	for i := range want {
		for word := range strings.SplitSeq(want[i], " … ") {
			if !strings.Contains(got[i], word) {
				t.Errorf("told %q, want %q in it", got[i], word)
			}
		}
		if !strings.HasSuffix(got[i], ".") || strings.HasSuffix(got[i], "..") {
			t.Errorf("%q is no sentence", got[i])
		}
	}
}

func TestParsePool(t *testing.T) {
	number, auto, none, negative, word := intstr.FromInt32(7), intstr.FromString("Auto"), intstr.FromString("None"), intstr.FromInt32(-1), intstr.FromString("Lots")
	no := false
	for _, c := range []struct {
		name string
		spec v1alpha1.AddressPoolSpec
		want string // what an allocator with the pool alone makes of it
		told []string
	}{
		{"a prefix", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}}, "v4 16, v6 0, auto", nil},
		{"a range and a prefix of both families", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.1-10.0.0.3", "2001:db8::/126"}}, "v4 3, v6 4, auto", nil},
		{"excluded", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, Exclude: []string{"10.0.0.1", "10.0.0.8/30"}}, "v4 11, v6 0, auto", nil},
		{"not automatic, internal", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, AutoAssign: &no, Scope: v1alpha1.ScopeInternal, Priority: 3, MaxPerNamespace: 2},
			"v4 16, v6 0, internal, priority 3, 2 a namespace", nil},
		{"bands", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, StaticBand: &number}, "v4 16, v6 0, auto", nil},
		{"band Auto", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, StaticBand: &auto}, "v4 16, v6 0, auto", nil},
		{"band None", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, StaticBand: &none}, "v4 16, v6 0, auto", nil},

		{"a broken entry leaves the others", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/33", "10.0.0.0/28", "10.0.0.9-10.0.0.1", "web"}}, "v4 16, v6 0, auto",
			[]string{"InvalidRange: spec.addresses: … 10.0.0.0/33", "InvalidRange: spec.addresses: … 10.0.0.9-10.0.0.1", "InvalidRange: spec.addresses: … web"}},
		{"a broken exclusion leaves the others", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, Exclude: []string{"10.0.0.300", "10.0.0.1"}}, "v4 15, v6 0, auto",
			[]string{"InvalidRange: spec.exclude: … 10.0.0.300"}},
		{"a negative band", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, StaticBand: &negative}, "v4 16, v6 0, auto", []string{"InvalidStaticBand: spec.staticBand: … -1"}},
		{"a band of another name", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, StaticBand: &word}, "v4 16, v6 0, auto", []string{"InvalidStaticBand: spec.staticBand: … Lots"}},
		{"broken selectors", v1alpha1.AddressPoolSpec{Addresses: []string{"10.0.0.0/28"}, ServiceSelector: broken(), NamespaceSelector: broken()}, "v4 16, v6 0, auto",
			[]string{"InvalidSelector: spec.serviceSelector: … Near", "InvalidSelector: spec.namespaceSelector: … Near"}},
		{"nothing right", v1alpha1.AddressPoolSpec{Addresses: []string{"x"}, Exclude: []string{"y"}, StaticBand: &word, ServiceSelector: broken()}, "v4 0, v6 0, auto",
			[]string{"spec.addresses", "spec.exclude", "spec.staticBand", "spec.serviceSelector"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pool, problems := parsePool(&v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "public"}, Spec: c.spec})
			toldOf(t, c.told, problems)
			allocator := ipam.New()
			allocator.SetPools([]ipam.Pool{pool})
			usage := allocator.Usage("public")
			got := fmt.Sprintf("v4 %d, v6 %d", usage.V4.Capacity, usage.V6.Capacity)
			if pool.AutoAssign {
				got += ", auto"
			}
			if pool.Internal {
				got += ", internal"
			}
			if pool.Priority != 0 {
				got += fmt.Sprintf(", priority %d", pool.Priority)
			}
			if pool.MaxPerNamespace != 0 {
				got += fmt.Sprintf(", %d a namespace", pool.MaxPerNamespace)
			}
			if got != c.want {
				t.Errorf("pool of %s, want %s", got, c.want)
			}
		})
	}
}

func TestPoolServes(t *testing.T) {
	type spec = v1alpha1.AddressPoolSpec
	web, shop := label("app", "web"), label("team", "shop")
	for _, c := range []struct {
		name string
		spec spec
		// Of the Services a/web, a/db, b/web and c/web, where the namespace b
		// has the label team=shop.
		want []string
	}{
		{"no selector", spec{}, []string{"a/web", "a/db", "b/web", "c/web"}},
		{"empty selectors", spec{ServiceSelector: &metav1.LabelSelector{}, NamespaceSelector: &metav1.LabelSelector{}}, []string{"a/web", "a/db", "b/web", "c/web"}},
		{"Services by label", spec{ServiceSelector: web}, []string{"a/web", "b/web", "c/web"}},
		{"namespaces by name", spec{Namespaces: []string{"c", "a"}}, []string{"a/web", "a/db", "c/web"}},
		{"namespaces by label", spec{NamespaceSelector: shop}, []string{"b/web"}},
		{"namespaces by name or label", spec{NamespaceSelector: shop, Namespaces: []string{"a"}}, []string{"a/web", "a/db", "b/web"}},
		{"Services and namespaces", spec{ServiceSelector: web, Namespaces: []string{"a"}}, []string{"a/web"}},
		{"a broken selector serves nobody", spec{ServiceSelector: broken()}, nil},
		{"a broken selector of namespaces leaves the named", spec{NamespaceSelector: broken(), Namespaces: []string{"c"}}, []string{"c/web"}},
		{"a broken selector of namespaces alone", spec{NamespaceSelector: broken()}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			serves, _ := parseServes(&c.spec)
			var got []string
			for _, r := range []*ipam.Request{
				{Key: ipam.Key{Namespace: "a", Name: "web"}, Labels: set{"app": "web"}},
				{Key: ipam.Key{Namespace: "a", Name: "db"}, Labels: set{"app": "db"}},
				{Key: ipam.Key{Namespace: "b", Name: "web"}, Labels: set{"app": "web"}, NamespaceLabels: set{"team": "shop"}},
				{Key: ipam.Key{Namespace: "c", Name: "web"}, Labels: set{"app": "web"}, NamespaceLabels: set{"team": "ops"}},
			} {
				if serves == nil || serves(r) {
					got = append(got, r.Key.String())
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// Where pools overlap the older one wins, so they must come in that order.
func TestParsePoolsOldestFirst(t *testing.T) {
	day := func(n int) metav1.Time { return metav1.NewTime(time.Date(2026, 1, n, 0, 0, 0, 0, time.UTC)) }
	pool := func(name string, made metav1.Time, addresses string) *v1alpha1.AddressPool {
		return &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: made}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{addresses}}}
	}
	pools, problems := parsePools([]*v1alpha1.AddressPool{
		pool("young", day(3), "10.0.0.0/28"), pool("b", day(2), "x"), pool("a", day(2), "10.0.1.0/28"), pool("old", day(1), "10.0.2.0/28"),
	})
	var got []string
	for _, p := range pools {
		got = append(got, p.Name)
	}
	if diff := cmp.Diff([]string{"old", "a", "b", "young"}, got); diff != "" {
		t.Errorf("order: -want +got\n%s", diff)
	}
	if len(problems) != 1 || len(problems["b"]) != 1 {
		t.Errorf("problems %v, want one of b", problems)
	}
}

func TestReadyCondition(t *testing.T) {
	good := readyCondition(nil, "All is well.", 7)
	if diff := cmp.Diff(metav1.Condition{Type: "Ready", Status: "True", Reason: "Valid", Message: "All is well.", ObservedGeneration: 7}, good); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	bad := readyCondition([]problem{{v1alpha1.InvalidRange, "One is wrong."}, {v1alpha1.Overlap, "Another, too."}}, "All is well.", 8)
	if diff := cmp.Diff(metav1.Condition{Type: "Ready", Status: "False", Reason: "InvalidRange", Message: "One is wrong. Another, too.", ObservedGeneration: 8}, bad); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

// The API server refuses a condition whose message is longer than 32768 bytes,
// and any string that is not UTF-8.
func TestReadyConditionOfManyProblems(t *testing.T) {
	for shift := range 3 {
		many := []problem{{v1alpha1.InvalidInterface, strings.Repeat("x", shift)}}
		for range 600 {
			many = append(many, problem{v1alpha1.InvalidInterface, "……………"})
		}
		message := readyCondition(many, "", 1).Message
		if len(message) > 4096 || !strings.HasSuffix(message, "...") || !utf8.ValidString(message) {
			t.Errorf("%d bytes, ends in %q", len(message), message[len(message)-12:])
		}
	}
}
