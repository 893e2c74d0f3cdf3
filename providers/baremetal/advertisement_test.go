package baremetal

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// adv parses an Advertisement in a cluster with the pool "public" and the peer
// "tor".
func adv(name string, spec v1alpha1.AdvertisementSpec) (advertisement, []problem) {
	return parseAdvertisement(&v1alpha1.Advertisement{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec},
		func(pool string) bool { return pool == "public" }, func(peer string) bool { return peer == "tor" })
}

func TestParseAdvertisement(t *testing.T) {
	type spec = v1alpha1.AdvertisementSpec
	for _, c := range []struct {
		name string
		spec spec
		told []string
	}{
		{"l2", spec{L2: &v1alpha1.L2Advertisement{}}, nil},
		{"everything right", spec{
			Pools: []string{"public"}, ServiceSelector: label("a", "b"), NamespaceSelector: label("a", "b"), NodeSelector: label("a", "b"),
			L2:  &v1alpha1.L2Advertisement{Interfaces: []string{"eth0", "bond*", "en[op]?"}, PreferredNodes: []v1alpha1.PreferredNodes{{Weight: 5, NodeSelector: *label("a", "b")}}},
			BGP: &v1alpha1.BGPAdvertisement{Peers: []string{"tor"}},
		}, nil},
		{"no such pool", spec{Pools: []string{"public", "pubic"}}, []string{`UnknownPool: spec.pools … "pubic"`}},
		{"no such peer", spec{BGP: &v1alpha1.BGPAdvertisement{Peers: []string{"tor", "rot"}}}, []string{`UnknownPeer: spec.bgp.peers … "rot"`}},
		{"no pattern", spec{L2: &v1alpha1.L2Advertisement{Interfaces: []string{"eth[0"}}}, []string{`InvalidInterface: spec.l2.interfaces … "eth[0"`}},
		{"broken selectors", spec{
			PoolSelector: broken(), ServiceSelector: broken(), NamespaceSelector: broken(), NodeSelector: broken(),
			L2: &v1alpha1.L2Advertisement{PreferredNodes: []v1alpha1.PreferredNodes{{}, {NodeSelector: *broken()}}},
		}, []string{
			"InvalidSelector: spec.poolSelector:", "InvalidSelector: spec.serviceSelector:", "InvalidSelector: spec.namespaceSelector:",
			"InvalidSelector: spec.nodeSelector:", "InvalidSelector: spec.l2.preferredNodes[1].nodeSelector:",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			parsed, problems := adv("a", c.spec)
			toldOf(t, c.told, problems)
			if parsed.l2 != (c.spec.L2 != nil) || parsed.bgp != (c.spec.BGP != nil) {
				t.Errorf("l2 %t, bgp %t", parsed.l2, parsed.bgp)
			}
		})
	}
}

func TestApplying(t *testing.T) {
	type spec = v1alpha1.AdvertisementSpec
	l2 := &v1alpha1.L2Advertisement{}
	web, db := tenant{labels: set{"app": "web"}}, tenant{labels: set{"app": "db"}, namespaceLabels: set{"team": "shop"}}
	for _, c := range []struct {
		name    string
		all     map[string]spec
		tenants []tenant
		want    []string // "" is the default one
	}{
		{"none: the default", nil, []tenant{web}, []string{""}},
		{"one for all pools", map[string]spec{"a": {L2: l2}}, []tenant{web}, []string{"a"}},
		{"one for the pool by name", map[string]spec{"a": {Pools: []string{"public"}, L2: l2}}, []tenant{web}, []string{"a"}},
		{"one for the pool by label", map[string]spec{"a": {PoolSelector: label("zone", "dmz"), L2: l2}}, []tenant{web}, []string{"a"}},
		{"those of other pools: the default", map[string]spec{"a": {Pools: []string{"private"}, L2: l2}, "b": {PoolSelector: label("zone", "lan"), L2: l2}}, []tenant{web}, []string{""}},
		{"a selector of pools that cannot be read selects none", map[string]spec{"a": {PoolSelector: broken(), L2: l2}}, []tenant{web}, []string{""}},
		{"the pool is selected and the Service is not: nothing", map[string]spec{"a": {ServiceSelector: label("app", "web"), L2: l2}}, []tenant{db}, nil},
		{"of several only those of the Service", map[string]spec{"a": {ServiceSelector: label("app", "web"), L2: l2}, "b": {L2: l2}, "c": {NamespaceSelector: label("team", "shop"), L2: l2}},
			[]tenant{web}, []string{"a", "b"}},
		{"one Service on a shared address is enough", map[string]spec{"a": {ServiceSelector: label("app", "web"), L2: l2}}, []tenant{db, web}, []string{"a"}},
		{"both selectors must be of one Service", map[string]spec{"a": {ServiceSelector: label("app", "web"), NamespaceSelector: label("team", "shop"), L2: l2}}, []tenant{web, db}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var all []advertisement
			for _, name := range []string{"a", "b", "c"} {
				if spec, ok := c.all[name]; ok {
					parsed, _ := adv(name, spec)
					all = append(all, parsed)
				}
			}
			var got []string
			for _, a := range applying(all, "public", set{"zone": "dmz"}, c.tenants) {
				got = append(got, a.name)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestWeigh(t *testing.T) {
	type spec = v1alpha1.AdvertisementSpec
	prefer := func(weight int32, key, value string) v1alpha1.PreferredNodes {
		return v1alpha1.PreferredNodes{Weight: weight, NodeSelector: *label(key, value)}
	}
	racks, _ := adv("racks", spec{L2: &v1alpha1.L2Advertisement{PreferredNodes: []v1alpha1.PreferredNodes{prefer(10, "rack", "a"), prefer(5, "disk", "ssd")}}})
	edge, _ := adv("edge", spec{NodeSelector: label("edge", "yes"), L2: &v1alpha1.L2Advertisement{PreferredNodes: []v1alpha1.PreferredNodes{prefer(100, "rack", "a")}}})
	fabric, _ := adv("fabric", spec{BGP: &v1alpha1.BGPAdvertisement{}})
	for _, c := range []struct {
		name     string
		all      []advertisement
		labels   set
		weight   int32
		selected bool
	}{
		{"no preference", []advertisement{everywhere}, nil, 0, true},
		{"one preference", []advertisement{racks}, set{"rack": "a"}, 10, true},
		{"two add up", []advertisement{racks}, set{"rack": "a", "disk": "ssd"}, 15, true},
		{"not preferred", []advertisement{racks}, set{"rack": "b"}, 0, true},
		{"not selected, whatever is preferred", []advertisement{edge}, set{"rack": "a"}, 0, false},
		{"Advertisements add up", []advertisement{edge, racks}, set{"rack": "a", "edge": "yes"}, 110, true},
		{"only of those that select it", []advertisement{edge, racks}, set{"rack": "a"}, 10, true},
		{"BGP does not select for L2", []advertisement{fabric}, nil, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			weight, selected := weigh(c.all, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: c.labels}})
			if weight != c.weight || selected != c.selected {
				t.Errorf("got %d, %t, want %d, %t", weight, selected, c.weight, c.selected)
			}
		})
	}
}
