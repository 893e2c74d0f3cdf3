package model

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// Network is the VPC as far as load balancers care.
type Network struct {
	// Prefixes of the VPC.
	Prefixes []netip.Prefix
	Subnets  []Subnet
}

// Subnet of the VPC.
type Subnet struct {
	ID, Name, Zone string
	// Prefixes, the IPv4 one first.
	Prefixes []netip.Prefix
	// Public says that it has a route to an internet gateway.
	Public bool
	// Local says that it is in a local or wavelength zone, or on an Outpost.
	Local bool
	// Full says that it has no room for another load balancer.
	Full bool
	// Ours and Others say that it has the tag of this cluster, or of others.
	Ours, Others bool
	// RolePublic and RoleInternal say that it has these tags.
	RolePublic, RoleInternal bool
}

// chooseSubnets returns the subnets of a load balancer; when no annotation
// chooses, those that it has will do.
func chooseSubnets(in *Input, has []string) (chosen []Subnet, refusal *v1alpha1.Refusal) {
	const annotation = settings.Prefix + "subnets"
	network, s := &in.Network, &in.Settings
	switch {
	case len(s.Subnets) > 0:
		chosen, refusal = namedSubnets(network, s.Subnets)
	case len(s.PrivateIPv4) > 0:
		chosen, refusal = subnetsOf(network, s.PrivateIPv4)
	case len(has) > 0:
		return network.subnets(has), nil
	case len(in.Subnets) > 0:
		return among(network, in.Subnets, s.Internal)
	default:
		chosen = discover(network, s.Internal)
	}
	if refusal != nil {
		return nil, refusal
	}
	if len(chosen) == 0 {
		kind := "public subnet (with a route to an internet gateway)"
		if s.Internal {
			kind = "subnet"
		}
		return nil, v1alpha1.Refuse(v1alpha1.SubnetsNotFound, "the VPC has no %s with room for the load balancer among its %d: tag one, or name it in %s", kind, len(network.Subnets), annotation)
	}
	zones := map[string]string{}
	for _, subnet := range chosen {
		if other, twice := zones[subnet.Zone]; twice {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %s and %s, both of zone %s: want one of each zone", annotation, other, subnet.ID, subnet.Zone)
		}
		zones[subnet.Zone] = subnet.ID
	}
	return chosen, nil
}

// listed is how the cloud config calls its list of subnets.
const listed = "aws.subnets of the cloud config"

// among finds a subnet of each zone among those of the cloud config: one with
// the tag of its role before the others; for an internal load balancer one that
// is not public before one that is. It does not guess between two.
func among(network *Network, ids []string, internal bool) ([]Subnet, *v1alpha1.Refusal) {
	rank := func(subnet Subnet) int {
		switch {
		case subnet.hasRole(internal):
			return 0
		case internal && subnet.Public:
			return 2
		}
		return 1
	}
	byZone := map[string][]Subnet{}
	for _, id := range ids {
		i := slices.IndexFunc(network.Subnets, func(subnet Subnet) bool { return subnet.ID == id })
		if i < 0 {
			return nil, v1alpha1.Refuse(v1alpha1.SubnetsNotFound, "%s has %s, which is no subnet of the VPC: mend the list, or name subnets in %ssubnets", listed, id, settings.Prefix)
		}
		if subnet := network.Subnets[i]; internal || subnet.Public {
			byZone[subnet.Zone] = append(byZone[subnet.Zone], subnet)
		}
	}
	if len(byZone) == 0 {
		return nil, v1alpha1.Refuse(v1alpha1.SubnetsNotFound,
			"%s has no public subnet (with a route to an internet gateway) among its %d, and the load balancer is to face the internet: add one, name subnets in %ssubnets, or make it internal by %sinternal",
			listed, len(ids), settings.Prefix, settings.Prefix)
	}
	var chosen []Subnet
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		subnets := byZone[zone]
		slices.SortStableFunc(subnets, func(a, b Subnet) int { return cmp.Compare(rank(a), rank(b)) })
		if len(subnets) > 1 && rank(subnets[0]) == rank(subnets[1]) {
			return nil, v1alpha1.Refuse(v1alpha1.SubnetsNotFound, "%s has %s and %s, both of zone %s and fit for the load balancer: want one of each zone, or tag one of them %s",
				listed, subnets[0].ID, subnets[1].ID, zone, roleTag(internal))
		}
		chosen = append(chosen, subnets[0])
	}
	return chosen, nil
}

// The tags by which a subnet of several in a zone is chosen.
const (
	RolePublicTag   = "kubernetes.io/role/elb"
	RoleInternalTag = "kubernetes.io/role/internal-elb"
)

func roleTag(internal bool) string {
	if internal {
		return RoleInternalTag
	}
	return RolePublicTag
}

// hasRole says whether the subnet has the tag of such load balancers.
func (s Subnet) hasRole(internal bool) bool {
	if internal {
		return s.RoleInternal
	}
	return s.RolePublic
}

// subnets returns the subnets of the IDs, also those that are not known.
func (n *Network) subnets(ids []string) []Subnet {
	chosen := make([]Subnet, len(ids))
	for i, id := range ids {
		chosen[i].ID = id
		if at := slices.IndexFunc(n.Subnets, func(subnet Subnet) bool { return subnet.ID == id }); at >= 0 {
			chosen[i] = n.Subnets[at]
		}
	}
	return chosen
}

func namedSubnets(network *Network, names []string) ([]Subnet, *v1alpha1.Refusal) {
	var chosen []Subnet
	for _, name := range names {
		i := slices.IndexFunc(network.Subnets, func(subnet Subnet) bool { return subnet.ID == name || subnet.Name == name })
		if i < 0 {
			return nil, v1alpha1.Refuse(v1alpha1.SubnetsNotFound, "%ssubnets has %q, which is neither ID nor Name tag of a subnet of the VPC", settings.Prefix, name)
		}
		chosen = append(chosen, network.Subnets[i])
	}
	return chosen, nil
}

// subnetsOf returns the subnets that the addresses are of.
func subnetsOf(network *Network, addresses []netip.Addr) ([]Subnet, *v1alpha1.Refusal) {
	var chosen []Subnet
	for _, addr := range addresses {
		i := slices.IndexFunc(network.Subnets, func(subnet Subnet) bool { return subnet.contains(addr) })
		if i < 0 {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%sprivate-ipv4-addresses has %s, which is in no subnet of the VPC", settings.Prefix, addr)
		}
		chosen = append(chosen, network.Subnets[i])
	}
	return chosen, nil
}

func (s Subnet) contains(addr netip.Addr) bool {
	return slices.ContainsFunc(s.Prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// discover finds a subnet of each zone: one with the tag of its role before
// one with the tag of the cluster before the one with the lowest ID.
func discover(network *Network, internal bool) []Subnet {
	rank := func(subnet Subnet) int {
		switch {
		case subnet.hasRole(internal):
			return 0
		case subnet.Ours:
			return 1
		}
		return 2
	}
	byZone := map[string]Subnet{}
	for _, subnet := range network.Subnets {
		if subnet.Local || subnet.Full || subnet.Others && !subnet.Ours || !internal && !subnet.Public {
			continue
		}
		other, taken := byZone[subnet.Zone]
		if !taken || rank(subnet) < rank(other) || rank(subnet) == rank(other) && subnet.ID < other.ID {
			byZone[subnet.Zone] = subnet
		}
	}
	var chosen []Subnet
	for _, zone := range slices.Sorted(maps.Keys(byZone)) {
		chosen = append(chosen, byZone[zone])
	}
	return chosen
}

// mapAddresses gives each subnet the addresses that were asked for: an Elastic
// IP by the order of the subnets, the others by the subnet that they are of.
// What a subnet has and nobody asks to be otherwise it keeps.
func mapAddresses(subnets []Subnet, s *settings.Settings, has []Mapping) ([]Mapping, *v1alpha1.Refusal) {
	if n := len(s.Allocations); n > 0 && n != len(subnets) {
		return nil, v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%seip-allocations has %d and the load balancer is in %d subnets (%s): want one for each, or choose by %ssubnets",
			settings.Prefix, n, len(subnets), describe(subnets), settings.Prefix)
	}
	mappings := make([]Mapping, len(subnets))
	for i, subnet := range subnets {
		mappings[i].Subnet = subnet.ID
	}
	allocate(mappings, s.Allocations, has)
	for _, given := range []struct {
		name      string
		addresses []netip.Addr
		set       func(*Mapping, string) bool
	}{
		{"private-ipv4-addresses", s.PrivateIPv4, func(m *Mapping, addr string) bool { free := m.PrivateIPv4 == ""; m.PrivateIPv4 = addr; return free }},
		{"ipv6-addresses", s.IPv6, func(m *Mapping, addr string) bool { free := m.IPv6 == ""; m.IPv6 = addr; return free }},
	} {
		for _, addr := range given.addresses {
			i := slices.IndexFunc(subnets, func(subnet Subnet) bool { return subnet.contains(addr) })
			if i < 0 || !given.set(&mappings[i], addr.String()) {
				return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s%s has %s: want one address in each of %s", settings.Prefix, given.name, addr, describe(subnets))
			}
		}
		if n := len(given.addresses); n > 0 && n != len(subnets) {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s%s has %d addresses: want one in each of %s", settings.Prefix, given.name, n, describe(subnets))
		}
	}
	for i := range mappings {
		if at := slices.IndexFunc(has, func(other Mapping) bool { return other.Subnet == mappings[i].Subnet }); at >= 0 {
			m, old := &mappings[i], &has[at]
			m.Allocation = cmp.Or(m.Allocation, old.Allocation)
			m.PrivateIPv4 = cmp.Or(m.PrivateIPv4, old.PrivateIPv4)
			m.IPv6 = cmp.Or(m.IPv6, old.IPv6)
		}
	}
	slices.SortFunc(mappings, func(a, b Mapping) int { return strings.Compare(a.Subnet, b.Subnet) })
	return mappings, nil
}

// allocate gives each subnet an Elastic IP: the one that it has if that is
// among them, then the others in order.
func allocate(mappings []Mapping, allocations []string, has []Mapping) {
	left := slices.Clone(allocations)
	for i := range mappings {
		at := slices.IndexFunc(has, func(other Mapping) bool { return other.Subnet == mappings[i].Subnet })
		if at >= 0 && slices.Contains(left, has[at].Allocation) {
			mappings[i].Allocation = has[at].Allocation
			left = slices.DeleteFunc(left, func(allocation string) bool { return allocation == has[at].Allocation })
		}
	}
	for i := range mappings {
		if mappings[i].Allocation == "" && len(left) > 0 {
			mappings[i].Allocation, left = left[0], left[1:]
		}
	}
}

func describe(subnets []Subnet) string {
	var all []string
	for _, subnet := range subnets {
		prefixes := make([]string, len(subnet.Prefixes))
		for i, prefix := range subnet.Prefixes {
			prefixes[i] = prefix.String()
		}
		all = append(all, fmt.Sprintf("%s in %s (%s)", subnet.ID, subnet.Zone, strings.Join(prefixes, ", ")))
	}
	return strings.Join(all, ", ")
}
