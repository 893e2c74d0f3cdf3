package baremetal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// A node that has the prefix of an address on a link announces it there (lan.Choose). Any other node would announce the
// address on the link of its InternalIP, where the hosts of that prefix do not look for it. So the candidates are:
//
//	some node has the address on a link, and its speaker runs   those nodes; the others are NotOnLink
//	an Advertisement names interfaces or nodes                  what it names: the operator knows better
//	no node has the address on a link                           all nodes; the Service and the pool say so
//
// What a speaker said of its links counts while it runs, and while it restarts. A link without carrier counts, too: its
// speaker says NoInterface and the next candidate takes over, so that a cable that flaps changes no placement. A candidate
// whose speaker has not said what links it has, as its Speaker was deleted, stays one.

// linkPrefix is a prefix with the nodes that have it on a link.
type linkPrefix struct {
	prefix netip.Prefix
	nodes  map[string]bool
}

// links are the prefixes on the links of all nodes, as their speakers say.
type links struct {
	of       map[string][]netip.Prefix
	prefixes []linkPrefix
}

func newLinks() links { return links{of: map[string][]netip.Prefix{}} }

// set replaces the prefixes of a node, and reports whether that is a change.
func (l *links) set(node string, now []netip.Prefix) bool {
	before := l.of[node]
	if slices.Equal(before, now) {
		return false
	}
	if l.of[node] = now; len(now) == 0 {
		delete(l.of, node)
	}
	at := func(prefix netip.Prefix) (int, bool) {
		return slices.BinarySearchFunc(l.prefixes, prefix, func(p linkPrefix, prefix netip.Prefix) int { return p.prefix.Compare(prefix) })
	}
	for _, prefix := range before {
		if i, found := at(prefix); found {
			delete(l.prefixes[i].nodes, node)
		}
	}
	for _, prefix := range now {
		i, found := at(prefix)
		if !found {
			l.prefixes = slices.Insert(l.prefixes, i, linkPrefix{prefix, map[string]bool{}})
		}
		l.prefixes[i].nodes[node] = true
	}
	l.prefixes = slices.DeleteFunc(l.prefixes, func(p linkPrefix) bool { return len(p.nodes) == 0 })
	return true
}

// linkPrefixes are the prefixes of a speaker's interfaces that have room for other hosts, in order.
func linkPrefixes(speaker *v1alpha1.Speaker) []netip.Prefix {
	if speaker == nil {
		return nil
	}
	var prefixes []netip.Prefix
	for _, i := range parseInterfaces(speaker.Status.Interfaces) {
		if notTheNodes(i.Name) {
			continue
		}
		for _, prefix := range i.Prefixes {
			if !prefix.IsSingleIP() && !prefix.Addr().IsLinkLocalUnicast() && !prefix.Addr().Is4In6() {
				prefixes = append(prefixes, prefix.Masked())
			}
		}
	}
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	return slices.Compact(prefixes)
}

// linked are the nodes that have the address on a link, nil if any node will do.
func (s *scene) linked(apply []advertisement) map[string]bool {
	if choosy(apply) {
		return nil
	}
	var on map[string]bool
	counts := false
	for i := range s.links {
		if !s.links[i].prefix.Contains(s.addr) {
			continue
		}
		for node := range s.links[i].nodes {
			on = with(on, node)
			counts = counts || s.present(node)
		}
	}
	if !counts {
		return nil
	}
	return on
}

// unheard reports whether a node is a candidate so far, and what links it has is not known.
func (s *scene) unheard(node string) bool {
	if !slices.Contains(s.current, node) {
		return false
	}
	speaker := s.speaker(node)
	return speaker == nil || len(speaker.Status.Interfaces) == 0
}

// offLink reports whether no node has the address on a link, as far as speakers have said what they have.
func (s *scene) offLink(apply []advertisement) bool {
	return len(s.links) > 0 && !choosy(apply) && s.linked(apply) == nil
}

// choosy reports whether an Advertisement for L2 names interfaces or nodes.
func choosy(apply []advertisement) bool {
	return slices.ContainsFunc(apply, func(a advertisement) bool { return a.l2 && (len(a.interfaces) > 0 || !a.nodes.Empty()) })
}

// present reports whether what the speaker of a node said of its links counts. The caller locks.
func (p *Provider) present(node string) bool {
	return p.live.alive(node) || p.live.unproven(node) || p.live.returning(node)
}

// linksChanged has everything looked at that depends on what nodes have on their links.
func (p *Provider) linksChanged() {
	p.placeAll()
	p.checkPools()
}

// checkPools has the statuses of all pools looked at.
func (p *Provider) checkPools() {
	for _, name := range p.pools.GetStore().ListKeys() {
		p.poolStatuses.AddAfter(name, statusDelay)
	}
}

// poolOffLink reports whether a pool is announced by L2, with no Advertisement that names interfaces or nodes, and none of
// its addresses is on a link of a node. The caller locks.
func (p *Provider) poolOffLink(pool *v1alpha1.AddressPool) bool {
	if pool.Spec.Announce == v1alpha1.AnnounceNever {
		return false
	}
	byL2, selected := false, false
	for i := range p.advertisements {
		a := &p.advertisements[i]
		if !a.pools(pool.Name, pool.Labels) {
			continue
		}
		selected, byL2 = true, byL2 || a.l2
		if choosy(p.advertisements[i : i+1]) {
			return false
		}
	}
	if selected && !byL2 {
		return false
	}
	known := false
	for _, link := range p.links.prefixes {
		for node := range link.nodes {
			if !p.present(node) {
				continue
			}
			known = true
			if slices.ContainsFunc(pool.Spec.Addresses, func(text string) bool { return overlaps(text, link.prefix) }) {
				return false
			}
			break
		}
	}
	return known
}

// overlaps reports whether a range of a pool and a prefix have addresses in common.
func overlaps(text string, prefix netip.Prefix) bool {
	r, err := ipam.ParseRange(text)
	return err == nil && (prefix.Contains(r.First) || prefix.Contains(r.Last) ||
		r.First.BitLen() == prefix.Addr().BitLen() && !prefix.Addr().Less(r.First) && !r.Last.Less(prefix.Addr()))
}

// readOffLink finds the addresses that no node has on a link, as their placement will: what Services say of it is not to change
// and change back when a controller starts. The caller locks.
func (p *Provider) readOffLink() {
	for addr, vip := range p.ledger.vips {
		s := scene{addr: addr, links: p.links.prefixes, present: p.present}
		pool := p.poolObjects[vip.Spec.Pool]
		if vip.Spec.L2 == nil || pool != nil && pool.Spec.Announce == v1alpha1.AnnounceNever {
			continue
		}
		for i := range vip.Spec.Claims {
			t := tenant{namespaceLabels: p.namespaceLabels(vip.Spec.Claims[i].Namespace)}
			if service, err := p.services.Services(vip.Spec.Claims[i].Namespace).Get(vip.Spec.Claims[i].Name); err == nil {
				t.labels = service.Labels
			}
			s.tenants = append(s.tenants, t)
		}
		var labels map[string]string
		if pool != nil {
			labels = pool.Labels
		}
		if s.offLink(applying(p.advertisements, vip.Spec.Pool, labels, s.tenants)) {
			p.offLink[addr] = true
		}
	}
}

// aside is what else there is to know of where an address is announced, empty if nothing. The caller locks.
func (p *Provider) aside(addr netip.Addr, vip *v1alpha1.VirtualIP) string {
	if vip.Spec.Hold != "" {
		return ""
	}
	var sentences []string
	if p.offLink[addr] {
		sentences = append(sentences, fmt.Sprintf(
			"%s is on no link of a node: it is announced on the link of the nodes' InternalIPs, and other hosts need a route to it there.", addr))
	}
	if node := p.affineNode(vip); node != "" {
		sentences = append(sentences, fmt.Sprintf("%s is advertised by BGP from node %s alone, as sessionAffinity is ClientIP.", addr, node))
	}
	return strings.Join(sentences, " ")
}

// affineNode is the node that alone advertises an address because of session affinity. The caller locks.
func (p *Provider) affineNode(vip *v1alpha1.VirtualIP) string {
	if vip.Spec.BGP == nil {
		return ""
	}
	isAffine := func(claim v1alpha1.Claim) bool {
		service, err := p.services.Services(claim.Namespace).Get(claim.Name)
		return err == nil && service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP
	}
	if !slices.ContainsFunc(vip.Spec.Claims, isAffine) {
		return ""
	}
	for _, limit := range vip.Spec.BGP.Limits {
		if len(limit.Nodes) == 1 {
			return limit.Nodes[0]
		}
	}
	return ""
}
