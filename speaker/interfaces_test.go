package speaker

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/link"
)

func linkOf(index int, name string, prefixes ...string) link.Link {
	l := link.Link{Index: index, Name: name, MAC: [6]byte{2, 0, 0, 0, byte(index >> 8), byte(index)}, Up: true, ARP: true}
	for _, text := range prefixes {
		l.Prefixes = append(l.Prefixes, netip.MustParsePrefix(text))
	}
	return l
}

func reportedNames(s Snapshot) string {
	var names []string
	for _, i := range Decide(s).Interfaces {
		names = append(names, i.Name)
	}
	return strings.Join(names, " ")
}

func TestInterfacesThatAreReported(t *testing.T) {
	eth0 := linkOf(2, "eth0", "198.51.100.1/24", "fe80::1/64")
	for _, tt := range []struct {
		name    string
		links   []link.Link
		pattern string
		want    string
	}{
		{"the node's own", []link.Link{eth0}, "", "eth0"},
		{"a second LAN", []link.Link{eth0, linkOf(3, "eth1", "203.0.113.1/24"), linkOf(4, "vlan7", "2001:db8:7::1/64")}, "", "eth0 eth1 vlan7"},
		{"an InternalIP that is a host route", []link.Link{linkOf(2, "eth0", "198.51.100.1/32"), linkOf(3, "eth1")}, "", "eth0"},
		{"an InternalIP on the link to one router", []link.Link{linkOf(2, "eth0", "198.51.100.1/31")}, "", "eth0"},
		{"pods' interfaces without addresses", []link.Link{eth0, linkOf(9, "cali1", "fe80::ecee:eeff:feee:eeee/64"), linkOf(10, "eni2"), linkOf(11, "lxc3")}, "", "eth0"},
		{"169.254.1.1 on each", []link.Link{eth0, linkOf(9, "veth1", "169.254.1.1/32"), linkOf(10, "veth2", "169.254.1.1/16")}, "", "eth0"},
		{"the gateway as a host route on each", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/32", "fd00:1::1/128"), linkOf(10, "veth2", "10.1.0.1/32")}, "", "eth0"},
		{"a host route of its own on each", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/32"), linkOf(10, "veth2", "10.1.0.2/32"), linkOf(11, "cilium_host", "10.1.0.3/32")}, "", "eth0"},
		{"the gateway with its prefix on each", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/24"), linkOf(10, "veth2", "10.1.0.1/24")}, "", "eth0"},
		{"a link of two ends for each", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/31"), linkOf(10, "veth2", "10.1.0.5/30", "fd00:1::1/127")}, "", "eth0"},
		{"the bridge of the pods", []link.Link{eth0, linkOf(9, "cni0", "10.244.1.1/24", "fd00:244:1::1/64"), linkOf(10, "veth2")}, "", "eth0"},
		{"a pod's interface that is named", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/32"), linkOf(10, "veth2", "10.1.0.1/32")}, "veth1", "eth0 veth1"},
		{"a pattern", []link.Link{eth0, linkOf(9, "bond0", "10.1.0.1/32")}, "bond*", "bond0 eth0"},
		{"a pattern for all names none", []link.Link{eth0, linkOf(9, "veth1", "10.1.0.1/32")}, "*", "eth0"},
		{"a tunnel", []link.Link{eth0, {Index: 7, Name: "wg0", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.9.0.1/24")}}}, "", "eth0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newPlay(t, nil).s
			s.Links = tt.links
			s.PodCIDRs = podCIDRs(&corev1.Node{Spec: corev1.NodeSpec{PodCIDR: "10.244.1.0/24", PodCIDRs: []string{"10.244.1.0/24", "fd00:244:1::/64"}}})
			if tt.pattern != "" {
				s.Advertisements = []*v1alpha1.Advertisement{{Spec: v1alpha1.AdvertisementSpec{L2: &v1alpha1.L2Advertisement{Interfaces: []string{tt.pattern}}}}}
			}
			if diff := cmp.Diff(tt.want, reportedNames(s)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// Pods that start and stop cost no write, however their CNI plugin gives them addresses on the host's side.
func TestPodsCostNoWrites(t *testing.T) {
	for name, address := range map[string]func(i int) []string{
		"without an address": func(int) []string { return nil },
		"ptp":                func(int) []string { return []string{"10.7.0.1/32", "fd00:7::1/128"} },
		"host routes":        func(i int) []string { return []string{fmt.Sprintf("10.7.0.%d/32", i+1)} },
		"169.254":            func(int) []string { return []string{"169.254.1.1/16"} },
		"links":              func(i int) []string { return []string{fmt.Sprintf("10.7.0.%d/31", 2*i)} },
		"pod CIDR":           func(i int) []string { return []string{fmt.Sprintf("10.244.1.%d/24", i+1)} },
	} {
		t.Run(name, func(t *testing.T) {
			w := newStatusWriter(Options{Node: "node-1"}, nil, heldLease())
			defer w.queue.ShutDown()
			s := newPlay(t, nil).s
			s.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
			own := s.Links
			var first v1alpha1.SpeakerStatus
			for step, pods := range []int{0, 1, 4, 8, 2, 110, 1, 110, 0} {
				s.Links = slices.Clone(own)
				for i := range pods {
					s.Links = append(s.Links, linkOf(100+i, fmt.Sprintf("veth%d", i), address(i)...))
				}
				d := Decide(s)
				w.want(&s, d)
				s.Before = d
				if step == 0 {
					first = w.said
				} else if !equality.Semantic.DeepEqual(first, w.said) {
					t.Fatalf("%d pods: %s", pods, cmp.Diff(first, w.said))
				}
			}
		})
	}
}

// Pods whose interfaces have a gateway in common with its prefix cost a write or two, and then none.
func TestASharedGatewayIsRemembered(t *testing.T) {
	s := newPlay(t, nil).s
	own := s.Links
	changes, last := 0, ""
	for _, pods := range []int{0, 1, 2, 1, 0, 1, 8, 1, 0} {
		s.Links = slices.Clone(own)
		for i := range pods {
			s.Links = append(s.Links, linkOf(100+i, fmt.Sprintf("veth%d", i), "10.7.0.1/24"))
		}
		s.Before = Decide(s)
		if now := reportedNames(s); now != last {
			changes, last = changes+1, now
		}
	}
	if changes > 3 || last != "eth0 eth1" {
		t.Errorf("%d changes, %s at the end", changes, last)
	}
}
