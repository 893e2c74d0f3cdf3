package aws

import (
	"cmp"
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/providers/aws/model"
)

// aim gives the input for a plan the endpoints that are to be targets. Others
// are addresses of pods that AWS does not take.
func (p *Provider) aim(ctx context.Context, in *model.Input, service *corev1.Service, ipv6 bool, since time.Time) (others []netip.Addr, err error) {
	if in.Network.Prefixes, err = p.prefixes.get(ctx, since); err != nil {
		return nil, err
	}
	endpoints := p.endpoints(service, ipv6)
	if in.Endpoints, others = model.Registrable(endpoints, in.Network.Prefixes); len(others) == 0 {
		return nil, nil
	}
	// The VPC may have got another prefix.
	if in.Network.Prefixes, err = p.prefixes.get(ctx, time.Now().Add(-snapshotAge)); err != nil {
		return nil, err
	}
	in.Endpoints, others = model.Registrable(endpoints, in.Network.Prefixes)
	return others, nil
}

// endpoints are the addresses of pods by the port of the Service: those that
// are ready, or if there are none, those that still serve. Left out are those
// that AWS did not take just now.
func (p *Provider) endpoints(service *corev1.Service, ipv6 bool) map[int32][]netip.AddrPort {
	family := discoveryv1.AddressTypeIPv4
	if ipv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	ready, serving := map[int32][]netip.AddrPort{}, map[int32][]netip.AddrPort{}
	for _, slice := range client.SlicesOf(p.slices, byService, service.Namespace, service.Name) {
		if slice.AddressType != family {
			continue
		}
		for i := range service.Spec.Ports {
			port := &service.Spec.Ports[i]
			addAddresses(ready, port, slice, func(c *discoveryv1.EndpointConditions) bool { return c.Ready == nil || *c.Ready })
			addAddresses(serving, port, slice, func(c *discoveryv1.EndpointConditions) bool { return c.Serving != nil && *c.Serving })
		}
	}
	for port, addresses := range serving {
		if len(ready[port]) == 0 {
			ready[port] = addresses
		}
	}
	now := time.Now()
	for port, addresses := range ready {
		ready[port] = slices.DeleteFunc(addresses, func(at netip.AddrPort) bool { return p.instances.haunted(at.Addr().String(), now) })
	}
	return ready
}

// addAddresses adds the endpoints of a slice that are good to a port.
func addAddresses(to map[int32][]netip.AddrPort, port *corev1.ServicePort, slice *discoveryv1.EndpointSlice, good func(*discoveryv1.EndpointConditions) bool) {
	for _, at := range slice.Ports {
		if at.Port == nil || at.Name == nil && port.Name != "" || at.Name != nil && *at.Name != port.Name {
			continue
		}
		if at.Protocol != nil && *at.Protocol != cmp.Or(port.Protocol, corev1.ProtocolTCP) {
			continue
		}
		for i := range slice.Endpoints {
			endpoint := &slice.Endpoints[i]
			if !good(&endpoint.Conditions) {
				continue
			}
			for _, text := range endpoint.Addresses {
				if addr, err := netip.ParseAddr(text); err == nil {
					to[port.Port] = append(to[port.Port], netip.AddrPortFrom(addr, uint16(*at.Port)))
				}
			}
		}
	}
}
