package baremetal

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

func stacks(policy corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &policy, families }
}

func ranges(ranges ...string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = ranges }
}

// conditions are those of a Service, its addresses in front: "10.0.0.1 Ready=True/AddressAssigned Announced=True/Announced".
func (w *world) conditions(name string) string {
	s := w.get(name)
	var words []string
	for _, addr := range shownBy(s) {
		words = append(words, addr.String())
	}
	for _, kind := range []string{v1alpha1.ServiceReady, v1alpha1.ServiceAnnounced} {
		if c := meta.FindStatusCondition(s.Status.Conditions, kind); c != nil {
			words = append(words, fmt.Sprintf("%s=%s/%s", strings.TrimPrefix(kind, "heraldlb.io/"), c.Status, c.Reason))
		}
	}
	return strings.Join(words, " ")
}

// A family that the source ranges leave open is not announced: a Service that can do without it is Ready, and told; another is
// not. It is the same whether the Service is new or was edited, and whether it has the address alone or shares it.
func TestSourceRangesThatLeaveAFamilyOpen(t *testing.T) {
	const v4, v6 = corev1.IPv4Protocol, corev1.IPv6Protocol
	require, prefer := stacks(corev1.IPFamilyPolicyRequireDualStack, v4, v6), stacks(corev1.IPFamilyPolicyPreferDualStack, v4, v6)
	for _, c := range []struct {
		name                         string
		families                     func(*corev1.Service)
		ranges                       string
		fresh, edited, guest, remedy string
	}{
		{
			name: "require", families: require, ranges: "192.0.2.0/24", remedy: "::/0",
			fresh:  "Ready=False/SourceRangesIncomplete",
			edited: "10.0.0.1 2001:db8::1 Ready=False/SourceRangesIncomplete Announced=False/SourceRangesIncomplete",
			guest:  "10.0.0.1 Ready=False/SourceRangesIncomplete Announced=False/SourceRangesIncomplete",
		},
		{
			name: "prefer", families: prefer, ranges: "192.0.2.0/24", remedy: "::/0",
			fresh:  "10.0.0.1 Ready=True/AddressPartial Announced=True/Announced",
			edited: "10.0.0.1 2001:db8::1 Ready=True/AddressPartial Announced=True/Announced",
			guest:  "10.0.0.1 Ready=True/AddressPartial Announced=True/Announced",
		},
		{
			name: "prefer, the other family", families: prefer, ranges: "2001:db8:1::/48", remedy: "0.0.0.0/0",
			fresh:  "2001:db8::1 Ready=True/AddressPartial Announced=True/Announced",
			edited: "10.0.0.1 2001:db8::1 Ready=True/AddressPartial Announced=True/Announced",
			guest:  "2001:db8::1 Ready=True/AddressPartial Announced=True/Announced",
		},
		{
			name: "single", families: stacks(corev1.IPFamilyPolicySingleStack, v6), ranges: "192.0.2.0/24", remedy: "::/0",
			fresh:  "Ready=False/SourceRangesIncomplete",
			edited: "2001:db8::1 Ready=False/SourceRangesIncomplete Announced=False/SourceRangesIncomplete",
			guest:  "Ready=False/SourceRangesIncomplete Announced=False/SourceRangesIncomplete",
		},
	} {
		for kind, want := range map[string]string{"fresh": c.fresh, "edited": c.edited, "guest": c.guest} {
			t.Run(c.name+", "+kind, func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.pool("public", nil, "10.0.0.1/32", "2001:db8::1/128")
					w.controller()
					shares := annotated(annotations.Share, "k")
					if kind == "guest" {
						w.create(lb("holder", require, shares))
						w.endpoints("holder", "a")
						w.rest()
					}
					w.endpoints("web", "a")
					if kind == "fresh" {
						w.create(lb("web", c.families, ranges(c.ranges)))
					} else {
						w.create(lb("web", c.families, shares, onPort(81)))
					}
					w.rest()
					announce := func() {
						for _, line := range w.vips() {
							if !strings.Contains(line, "(") {
								w.says(strings.Fields(line)[0], ownedBy("a"))
							}
						}
						w.rest()
					}
					announce()
					if kind != "fresh" {
						w.edit("web", ranges(c.ranges))
						w.rest()
						announce()
					}
					w.until("web", want, func() string { return w.conditions("web") })
					if said := message(w.get("web")); !strings.Contains(said, c.remedy) {
						t.Errorf("it is told %q, want %s", said, c.remedy)
					}
					if kind == "guest" {
						w.until("holder", "10.0.0.1 2001:db8::1 Ready=True/AddressAssigned Announced=True/Announced", func() string { return w.conditions("holder") })
					}
					w.edit("web", ranges(c.ranges, "::/0", "0.0.0.0/0"))
					w.rest()
					announce()
					if got := w.conditions("web"); !strings.HasSuffix(got, "Ready=True/AddressAssigned Announced=True/Announced") {
						t.Errorf("healed, it is %s", got)
					}
				})
			})
		}
	}
}
