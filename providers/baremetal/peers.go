package baremetal

import (
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/lan"
)

// peers says how the candidates of an address are reached on its network.
func (s *scene) peers(l2 *v1alpha1.L2Placement) []v1alpha1.L2Peer {
	var peers []v1alpha1.L2Peer
	for _, name := range l2.Candidates {
		i := slices.IndexFunc(s.nodes, func(n *corev1.Node) bool { return n.Name == name })
		if i < 0 {
			continue // a candidate is a node
		}
		peers = append(peers, peer(s.addr, l2.Interfaces, s.nodes[i], s.speaker(name)))
	}
	return peers
}

// signed reports whether the speakers of all candidates sign what they say.
func (s *scene) signed(l2 *v1alpha1.L2Placement) bool {
	return len(l2.Candidates) > 0 && !slices.ContainsFunc(l2.Candidates, func(name string) bool {
		speaker := s.speaker(name)
		return speaker == nil || !speaker.Status.SignsMarks
	})
}

// peer says how a node is reached on the network of an address: as its speaker
// sees its interfaces, else by its InternalIP.
func peer(addr netip.Addr, patterns []string, node *corev1.Node, speaker *v1alpha1.Speaker) v1alpha1.L2Peer {
	found := v1alpha1.L2Peer{Node: node.Name}
	internal := v1alpha1.InternalIPs(node)
	var all []lan.Interface
	if speaker != nil {
		all = parseInterfaces(speaker.Status.Interfaces)
	}
	chosen := lan.Choose(addr, patterns, internal, all)
	if len(chosen) == 0 {
		if len(internal) > 0 {
			found.Address = slices.MinFunc(internal, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() }).String()
		}
		return found
	}
	on := chosen[0]
	if at, by, ok := lan.Reach(internal, chosen); ok {
		found.Address, on = at.String(), by
	}
	if on.MAC != [6]byte{} {
		found.MAC = net.HardwareAddr(on.MAC[:]).String()
	}
	return found
}

// parseInterfaces reads what a speaker says of its interfaces. What cannot be
// read is left out.
func parseInterfaces(said []v1alpha1.SpeakerInterface) []lan.Interface {
	all := make([]lan.Interface, 0, len(said))
	for _, i := range said {
		parsed := lan.Interface{Name: i.Name}
		parsed.MAC, _ = v1alpha1.ParseMAC(i.MAC)
		for _, text := range i.Prefixes {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				parsed.Prefixes = append(parsed.Prefixes, prefix)
			}
		}
		all = append(all, parsed)
	}
	return all
}
