package speaker

import (
	"cmp"
	"net"
	"net/netip"
	"path"
	"slices"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/lan"
	"github.com/heraldlb/herald/speaker/link"
)

// A node has many interfaces that no virtual IP can live on: under many CNI plugins each pod has one on the host's side, some
// of them with an address. They come and go with the pods, and must cost neither a write of the Speaker nor a place in it:
//
//   - An interface with an InternalIP of the node counts, whatever its prefix is.
//   - Else it takes a prefix with room for others: no host route (ptp, GKE and kubenet give the same one to each pod's
//     interface; Calico, Cilium and AWS give none), no link-local one, none of the node's pod CIDRs.
//   - An address that is on several interfaces is a gateway that pods have in common.
//   - What an Advertisement names counts, but for "*", which names nothing in particular.

// mostShared bounds how many shared addresses are remembered.
const mostShared = 1000

// homes are the interfaces that an address can live on without being named.
func (c *course) homes() []lan.Interface {
	c.share()
	return slices.DeleteFunc(slices.Clone(c.lans), func(i lan.Interface) bool { return !c.home(i) })
}

// share finds the addresses that are on several interfaces. They are remembered: that a pod ends, and its gateway is on one
// interface alone, makes that no LAN.
func (c *course) share() {
	seen := map[netip.Addr]bool{}
	c.Shared = c.Before.Shared
	for _, i := range c.lans {
		for _, p := range i.Prefixes {
			addr := p.Addr()
			if addr.IsLinkLocalUnicast() || p.IsSingleIP() {
				continue
			}
			if seen[addr] && !slices.Contains(c.Shared, addr) && len(c.Shared) < mostShared {
				c.Shared = append(slices.Clip(c.Shared), addr)
			}
			seen[addr] = true
		}
	}
}

// home reports whether an address can live on an interface.
func (c *course) home(i lan.Interface) bool {
	return slices.ContainsFunc(i.Prefixes, func(p netip.Prefix) bool {
		addr := p.Addr()
		if slices.Contains(c.InternalIPs, addr) {
			return true
		}
		pods := slices.ContainsFunc(c.PodCIDRs, func(pods netip.Prefix) bool { return pods.Contains(addr) })
		room := p.Bits() < addr.BitLen()-2 // more than the two ends of a link
		return room && !pods && !addr.IsLinkLocalUnicast() && !slices.Contains(c.Shared, addr)
	})
}

// named reports whether an Advertisement names an interface.
func named(adverts []*v1alpha1.Advertisement, name string) bool {
	return slices.ContainsFunc(adverts, func(a *v1alpha1.Advertisement) bool {
		return a.Spec.L2 != nil && slices.ContainsFunc(a.Spec.L2.Interfaces, func(pattern string) bool {
			matches, err := path.Match(pattern, name)
			return err == nil && matches && pattern != "*"
		})
	})
}

// reported are the interfaces for the status of the Speaker.
func (c *course) reported() []v1alpha1.SpeakerInterface {
	var interfaces []v1alpha1.SpeakerInterface
	for i := range c.Links {
		l := &c.Links[i]
		on := lan.Interface{Name: l.Name, Prefixes: l.Prefixes}
		if !l.ARP || !c.home(on) && !named(c.Advertisements, l.Name) {
			continue
		}
		if entry := reportedInterface(l); len(entry.Prefixes) > 0 { // one without addresses says nothing
			interfaces = append(interfaces, entry)
		}
	}
	slices.SortFunc(interfaces, func(a, b v1alpha1.SpeakerInterface) int { return cmp.Compare(a.Name, b.Name) })
	return interfaces
}

func reportedInterface(l *link.Link) v1alpha1.SpeakerInterface {
	entry := v1alpha1.SpeakerInterface{Name: l.Name, MAC: net.HardwareAddr(l.MAC[:]).String(), Up: l.Up}
	for _, prefix := range l.Prefixes {
		if !prefix.Addr().IsLinkLocalUnicast() {
			entry.Prefixes = append(entry.Prefixes, prefix.String())
		}
	}
	return entry
}
