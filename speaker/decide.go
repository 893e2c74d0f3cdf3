package speaker

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/lan"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// Snapshot is all that a speaker knows when it decides.
type Snapshot struct {
	// Node the speaker runs on, and its addresses of type InternalIP.
	Node        string
	InternalIPs []netip.Addr
	// Links are the interfaces of the node.
	Links []link.Link
	// VirtualIPs in any order.
	VirtualIPs []*v1alpha1.VirtualIP
}

// Decision is what a speaker should do.
type Decision struct {
	// L2 are the addresses to answer for, sorted.
	L2 []l2.Announcement
	// Verdicts say for each VirtualIP, by its name, whether this node answers
	// for it or why not.
	Verdicts map[string]Verdict
}

// Verdict is yes, with the interfaces, or no, with the reason.
type Verdict struct {
	// Owner says that it is this node's part to announce the address.
	Owner bool
	// Reason why the address is not announced from here; empty when it is.
	Reason v1alpha1.Reason
	// Interfaces that it is announced on.
	Interfaces []string
}

// Decide says what to announce from this node. It reads nothing but the
// snapshot.
func Decide(s Snapshot) Decision {
	d := Decision{Verdicts: make(map[string]Verdict, len(s.VirtualIPs))}
	for _, vip := range s.VirtualIPs {
		addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
		if err != nil {
			continue // the API server lets none pass
		}
		verdict := s.judge(vip, addr)
		d.Verdicts[vip.Name] = verdict
		for _, name := range verdict.Interfaces {
			d.L2 = append(d.L2, l2.Announcement{Addr: addr, Interface: name})
		}
	}
	slices.SortFunc(d.L2, func(a, b l2.Announcement) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Interface, b.Interface))
	})
	return d
}

// judge decides about one address.
func (s *Snapshot) judge(vip *v1alpha1.VirtualIP, addr netip.Addr) Verdict {
	switch {
	case len(vip.Spec.Claims) == 0:
		return Verdict{Reason: v1alpha1.Unclaimed}
	case vip.Spec.Hold != "":
		return Verdict{Reason: vip.Spec.Hold}
	case vip.Spec.L2 == nil:
		return Verdict{Reason: v1alpha1.NotAnnouncedByL2}
	case !slices.Contains(vip.Spec.L2.Candidates, s.Node):
		return Verdict{Reason: v1alpha1.NotCandidate}
	case vip.Spec.L2.Candidates[0] != s.Node:
		return Verdict{Reason: v1alpha1.NotFirst}
	}
	interfaces := s.interfaces(addr, vip.Spec.L2.Interfaces)
	if len(interfaces) == 0 {
		return Verdict{Owner: true, Reason: v1alpha1.NoInterface}
	}
	return Verdict{Owner: true, Interfaces: interfaces}
}

// interfaces are the names of those to announce an address on.
func (s *Snapshot) interfaces(addr netip.Addr, patterns []string) []string {
	var names []string
	for _, i := range lan.Choose(addr, patterns, s.InternalIPs, lanInterfaces(s.Links)) {
		names = append(names, i.Name)
	}
	return names
}

// lanInterfaces are the links that ARP works on.
func lanInterfaces(links []link.Link) []lan.Interface {
	var all []lan.Interface
	for i := range links {
		if l := &links[i]; l.ARP {
			all = append(all, lan.Interface{Name: l.Name, MAC: l.MAC, Prefixes: l.Prefixes})
		}
	}
	return all
}

// String tells the decision, a line an address.
func (d Decision) String() string {
	lines := make([]string, 0, len(d.Verdicts))
	for name, v := range d.Verdicts {
		if v.Reason != "" {
			lines = append(lines, fmt.Sprintf("%s: no, %s\n", name, v.Reason))
			continue
		}
		lines = append(lines, fmt.Sprintf("%s: on %s\n", name, strings.Join(v.Interfaces, ", ")))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}
