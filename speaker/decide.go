package speaker

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/heraldlb/herald/api/v1alpha1"
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

// interfaces are those to announce an address on: the ones that the patterns
// name; without patterns the ones whose prefix contains the address; if there
// are none the one of the node's InternalIP.
func (s *Snapshot) interfaces(addr netip.Addr, patterns []string) []string {
	if len(patterns) > 0 {
		return s.links(func(l *link.Link) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool {
				matches, err := path.Match(pattern, l.Name)
				return err == nil && matches
			})
		})
	}
	near := s.links(func(l *link.Link) bool {
		return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) && !p.IsSingleIP() })
	})
	if len(near) > 0 {
		return near
	}
	return s.links(func(l *link.Link) bool {
		return slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return slices.Contains(s.InternalIPs, p.Addr()) })
	})
}

// links are the names of the links that ARP works on and that match, sorted.
func (s *Snapshot) links(matches func(*link.Link) bool) []string {
	var names []string
	for i := range s.Links {
		if l := &s.Links[i]; l.ARP && matches(l) {
			names = append(names, l.Name)
		}
	}
	slices.Sort(names)
	return names
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
