package baremetal

import (
	"cmp"
	"maps"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/ipam"
)

// Which nodes can serve an address is decided as kube-proxy does, for each IP family and each port of the Service:
//
//   - An endpoint counts for an address of its own family only, and for the ports that its EndpointSlice names as the
//     Service does, with the same protocol. Slices of host names (FQDN) count for nothing.
//   - The endpoints of a port are its ready ones. If there are none, they are those that are terminating and still serve
//     (KEP-1669).
//   - A port without endpoints is rejected by kube-proxy on every node. It does not keep the other ports from being served.
//   - With externalTrafficPolicy Local, kube-proxy drops what comes for a port without an endpoint on the node. So the nodes
//     of the address are those with an endpoint for each port that has any. Where no node has all, any of them will do.

// serving says where a Service is served on addresses of one family.
type serving struct {
	// nodes with endpoints; "" stands for endpoints that are on no node.
	nodes map[string]bool
	// terminating says that no endpoint is ready, and these are the last ones.
	terminating bool
}

// servingNodes are the nodes that can serve a Service with these ports on addresses of the family.
func servingNodes(slices []*discoveryv1.EndpointSlice, family ipam.Family, ports []corev1.ServicePort) serving {
	ready, leaving := make([]map[string]bool, len(ports)), make([]map[string]bool, len(ports))
	for _, slice := range slices {
		if string(slice.AddressType) != string(family) {
			continue
		}
		for i := range ports {
			if hasPort(slice, &ports[i]) {
				ready[i], leaving[i] = addEndpoints(ready[i], leaving[i], slice)
			}
		}
	}
	if nodes := allOrAny(ready); len(nodes) > 0 {
		return serving{nodes: nodes}
	}
	nodes := allOrAny(leaving)
	return serving{nodes: nodes, terminating: len(nodes) > 0}
}

// hasPort reports whether the endpoints of a slice have a port of the Service.
func hasPort(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) bool {
	for i := range slice.Ports {
		p := &slice.Ports[i]
		if p.Port != nil && value(p.Name, "") == port.Name && value(p.Protocol, corev1.ProtocolTCP) == cmp.Or(port.Protocol, corev1.ProtocolTCP) {
			return true
		}
	}
	return false
}

// addEndpoints adds the nodes of a slice's endpoints to those with ready ones, and to those with serving, terminating ones.
func addEndpoints(ready, leaving map[string]bool, slice *discoveryv1.EndpointSlice) (map[string]bool, map[string]bool) {
	for i := range slice.Endpoints {
		conditions, node := &slice.Endpoints[i].Conditions, value(slice.Endpoints[i].NodeName, "")
		switch {
		case value(conditions.Ready, true):
			ready = with(ready, node)
		case value(conditions.Serving, true) && value(conditions.Terminating, false):
			leaving = with(leaving, node)
		}
	}
	return ready, leaving
}

func value[T any](p *T, otherwise T) T {
	if p == nil {
		return otherwise
	}
	return *p
}

func with(set map[string]bool, name string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[name] = true
	return set
}

// allOrAny are the nodes that are in all sets but the empty ones; if there are none, those in any.
func allOrAny(sets []map[string]bool) map[string]bool {
	var all map[string]bool
	for _, set := range sets {
		switch {
		case len(set) == 0:
		case all == nil:
			all = maps.Clone(set)
		default:
			maps.DeleteFunc(all, func(node string, _ bool) bool { return !set[node] })
		}
	}
	if len(all) > 0 {
		return all
	}
	anywhere := map[string]bool{}
	for _, set := range sets {
		maps.Copy(anywhere, set)
	}
	return anywhere
}
