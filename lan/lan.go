// Package lan says on which of a node's interfaces an address lives, and by which of its own addresses the node is reached
// there. The controller and the speakers both ask, and must come to the same answer.
package lan

import (
	"net/netip"
	"path"
	"slices"
	"strings"
)

// Interface is a network interface of a node that ARP and Neighbour Discovery work on.
type Interface struct {
	Name string
	MAC  [6]byte
	// Prefixes are the interface's own addresses, each with the length of its prefix.
	Prefixes []netip.Prefix
}

// Choose returns the interfaces to announce an address on, sorted by name: those that the patterns (path.Match) name; without
// patterns those whose prefix contains the address; if there are none those of the node's InternalIPs.
func Choose(addr netip.Addr, patterns []string, internal []netip.Addr, all []Interface) []Interface {
	if len(patterns) > 0 {
		return filter(all, func(i *Interface) bool {
			return slices.ContainsFunc(patterns, func(pattern string) bool {
				matches, err := path.Match(pattern, i.Name)
				return err == nil && matches
			})
		})
	}
	near := filter(all, func(i *Interface) bool {
		return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return p.Contains(addr) && !p.IsSingleIP() })
	})
	if len(near) > 0 {
		return near
	}
	return filter(all, func(i *Interface) bool {
		return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool { return slices.Contains(internal, p.Addr()) })
	})
}

// Reach returns the address by which a node is reached on one of the interfaces, and that interface: an InternalIP if one
// is there, else the lowest IPv4 address that is not link-local, else the lowest such IPv6 address. It is the same for all
// virtual IPs of a network, whatever their family, so that two nodes watch each other once. It returns false when the
// interfaces have no address.
func Reach(internal []netip.Addr, on []Interface) (netip.Addr, Interface, bool) {
	var best netip.Addr
	var at Interface
	for _, i := range on {
		for _, p := range i.Prefixes {
			if a := p.Addr(); !a.IsLinkLocalUnicast() && (!best.IsValid() || better(a, best, internal)) {
				best, at = a, i
			}
		}
	}
	return best, at, best.IsValid()
}

// better compares two addresses of a node.
func better(a, b netip.Addr, internal []netip.Addr) bool {
	if x, y := slices.Contains(internal, a), slices.Contains(internal, b); x != y {
		return x
	}
	return a.Less(b) // IPv4 comes before IPv6
}

func filter(all []Interface, matches func(*Interface) bool) []Interface {
	var some []Interface
	for i := range all {
		if matches(&all[i]) {
			some = append(some, all[i])
		}
	}
	slices.SortFunc(some, func(a, b Interface) int { return strings.Compare(a.Name, b.Name) })
	return some
}
