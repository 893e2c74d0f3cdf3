package v1alpha1

import (
	"net"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// InternalIPs are the addresses of type InternalIP of a node, in its order.
// What is no address is left out.
func InternalIPs(node *corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, address := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP {
			addresses = append(addresses, addr)
		}
	}
	return addresses
}

// ParseMAC reads an Ethernet address of six bytes; ok is false for all else.
func ParseMAC(text string) (mac [6]byte, ok bool) {
	parsed, err := net.ParseMAC(text)
	if err != nil || len(parsed) != len(mac) {
		return mac, false
	}
	return [6]byte(parsed), true
}
