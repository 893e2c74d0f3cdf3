package v1alpha1

import (
	"fmt"
	"net/netip"
	"strings"
)

// VirtualIPName is the name of the VirtualIP object of an address: the address
// itself for IPv4; for IPv6 its eight groups of four hex digits, joined by
// dashes, as an object name cannot hold colons.
func VirtualIPName(addr netip.Addr) string {
	if addr.Is4() {
		return addr.String()
	}
	return strings.ReplaceAll(addr.StringExpanded(), ":", "-")
}

// ParseVirtualIPName is the inverse of VirtualIPName. It refuses every other
// spelling of the address.
func ParseVirtualIPName(name string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(strings.ReplaceAll(name, "-", ":"))
	// Of IPv4, ParseAddr knows but one spelling.
	if err != nil || !addr.Is4() && (addr.Zone() != "" || VirtualIPName(addr) != name) {
		return netip.Addr{}, fmt.Errorf("%q is not the name of a VirtualIP: want 203.0.113.17, or 2001-0db8-0000-0000-0000-0000-0000-0001 for IPv6", name)
	}
	return addr, nil
}

// SpeakerLabel is on the Lease of every speaker, which is named after its node.
const SpeakerLabel = GroupName + "/speaker"

// BFDSecret is the Secret, in the namespace of the speakers, by whose key the
// speakers know each other. The controller makes it.
const (
	BFDSecret    = "herald-bfd"
	BFDSecretKey = "key"
)
