package v1alpha1

import (
	"net"
	"net/netip"
	"strconv"

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
	// As net.HardwareAddr writes it: those there may be very many of, which are not to leave garbage.
	if len(text) == len("00:00:00:00:00:00") {
		ok = true
		for i := range mac {
			octet, err := strconv.ParseUint(text[3*i:3*i+2], 16, 8)
			mac[i] = byte(octet)
			ok = ok && err == nil && (i == 0 || text[3*i-1] == ':')
		}
		if ok {
			return mac, true
		}
	}
	parsed, err := net.ParseMAC(text)
	if err != nil || len(parsed) != len(mac) {
		return [6]byte{}, false
	}
	return [6]byte(parsed), true
}
