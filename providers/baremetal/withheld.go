package baremetal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// An address that a Service has is not announced when what the Service or its pool asks for would be broken by that:
//
//   - The source ranges have no prefix of the address's family. kube-proxy filters per family, and without a prefix it lets
//     everybody in.
//   - The ipMode is Proxy. kube-proxy makes no rule for the address, so a packet to it reaches nobody.
//   - The pool has announce: None. Somebody else routes the address.

// restricted reports whether a Service names the clients that it is for.
func restricted(service *corev1.Service) bool {
	return len(service.Spec.LoadBalancerSourceRanges) > 0 || service.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey] != ""
}

// leavesOpen reports whether the source ranges of a Service let everybody in over a family.
func leavesOpen(service *corev1.Service, family ipam.Family) bool {
	if !restricted(service) {
		return false
	}
	ranges, refusal := annotations.SourceRanges(service)
	return refusal == nil && len(ranges) > 0 && !slices.ContainsFunc(ranges, func(p netip.Prefix) bool {
		return !p.Addr().Is4In6() && ipam.FamilyOf(p.Addr()) == family
	})
}

// openRefusal says that source ranges leave families open.
func openRefusal(open []ipam.Family) *v1alpha1.Refusal {
	var names, all []string
	for _, family := range open {
		names = append(names, string(family))
		all = append(all, map[ipam.Family]string{ipam.IPv4: "0.0.0.0/0", ipam.IPv6: "::/0"}[family])
	}
	return v1alpha1.Refuse(v1alpha1.SourceRangesIncomplete,
		"spec.loadBalancerSourceRanges has no %[1]s prefix, and kube-proxy would then let everybody in over %[1]s: add the %[1]s prefixes of the clients, or %[2]s if everybody may.",
		strings.Join(names, " or "), strings.Join(all, " and "))
}

// closeFamilies takes the families out of a request that the source ranges leave open, if the Service can do without; else
// it is refused. A family stays in which the Service has an address: that is kept, and not announced.
func (p *Provider) closeFamilies(service *corev1.Service, request *ipam.Request) (lacks, refusal *v1alpha1.Refusal) {
	var open []ipam.Family
	for _, family := range request.Families {
		if leavesOpen(service, family) {
			open = append(open, family)
		}
	}
	if len(open) == 0 {
		return nil, nil
	}
	lacks = openRefusal(open)
	if !request.Partial || len(open) == len(request.Families) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.waiting[request.Key] = lacks
		return nil, lacks
	}
	p.mu.Lock()
	held := p.ledger.allocator.Held(request.Key)
	p.mu.Unlock()
	without := func(family ipam.Family) bool {
		return slices.Contains(open, family) && !slices.ContainsFunc(held, func(addr netip.Addr) bool { return ipam.FamilyOf(addr) == family })
	}
	request.Families = slices.DeleteFunc(slices.Clone(request.Families), without)
	request.Addresses = slices.DeleteFunc(slices.Clone(request.Addresses), func(addr netip.Addr) bool { return without(ipam.FamilyOf(addr)) })
	return lacks, nil
}

// closed is a status without the addresses that the Service shares with others and leaves open: they stay announced for
// the others, and kube-proxy makes no rule for this Service. The caller locks.
func (p *Provider) closed(service *corev1.Service, status *corev1.LoadBalancerStatus) *corev1.LoadBalancerStatus {
	if status == nil || !restricted(service) {
		return status
	}
	status.Ingress = slices.DeleteFunc(status.Ingress, func(entry corev1.LoadBalancerIngress) bool {
		addr, err := netip.ParseAddr(entry.IP)
		if err != nil || !leavesOpen(service, ipam.FamilyOf(addr)) {
			return false
		}
		vip := p.ledger.vips[addr]
		return vip != nil && len(vip.Spec.Claims) > 1
	})
	return status
}

// proxyAnnounced refuses an assignment that has an address with ipMode Proxy of a pool that is announced, and takes the
// assignment back. The caller locks.
func (p *Provider) proxyAnnounced(assignment *ipam.Assignment, mode corev1.LoadBalancerIPMode) *v1alpha1.Refusal {
	for _, given := range assignment.Addresses {
		pool := p.poolObjects[given.Pool]
		if pool == nil || pool.Spec.Announce == v1alpha1.AnnounceNever || !proxied(mode, pool) {
			continue
		}
		for _, addr := range assignment.Released {
			p.ledger.mirror(addr)
		}
		for _, taken := range assignment.Addresses {
			p.ledger.mirror(taken.Addr)
		}
		by := fmt.Sprintf("AddressPool %q has ipMode Proxy", pool.Name)
		if mode != "" {
			by = fmt.Sprintf("%s asks for Proxy", annotations.IPMode)
		}
		return v1alpha1.Refuse(v1alpha1.ConflictingRequests,
			"%s, and AddressPool %q is announced: kube-proxy makes no rule for such an address, so nobody could answer. Ask for ipMode VIP, or set announce: None in the pool if something else routes its addresses.",
			by, pool.Name)
	}
	return nil
}

// proxied reports whether the ipMode of an address is Proxy: as the Service asks, else as the pool says.
func proxied(mode corev1.LoadBalancerIPMode, pool *v1alpha1.AddressPool) bool {
	if mode != "" {
		return mode == corev1.LoadBalancerIPModeProxy
	}
	return pool.Spec.IPMode == v1alpha1.IPModeProxy
}

// proxies reports whether a Service has the address with ipMode Proxy, and is to have it so.
func proxies(service *corev1.Service, addr netip.Addr, pool *v1alpha1.AddressPool) bool {
	asked, refusal := annotations.Parse(service)
	if refusal != nil || pool == nil || !proxied(asked.IPMode, pool) {
		return false
	}
	return slices.ContainsFunc(service.Status.LoadBalancer.Ingress, func(entry corev1.LoadBalancerIngress) bool {
		return entry.IP == addr.String() && entry.IPMode != nil && *entry.IPMode == corev1.LoadBalancerIPModeProxy
	})
}

// withheld says why the Services on the address keep it from being announced; a Service that shares it does not do so alone.
func (s *scene) withheld() (v1alpha1.Reason, string) {
	all := func(is func(tenant) bool) bool {
		return !slices.ContainsFunc(s.tenants, func(t tenant) bool { return !is(t) })
	}
	switch {
	case all(func(t tenant) bool { return t.open }):
		return v1alpha1.SourceRangesIncomplete, openRefusal([]ipam.Family{ipam.FamilyOf(s.addr)}).Message
	case all(func(t tenant) bool { return t.proxied }):
		return v1alpha1.ConflictingRequests, fmt.Sprintf("The ipMode is Proxy and AddressPool %q is announced: set announce: None in the pool, or ipMode to VIP.", s.pool)
	}
	return "", ""
}
