package l2

import (
	"encoding/binary"
	"net/netip"
)

// Reason says why a frame was not answered. The zero value means that it was.
type Reason string

const (
	// Malformed: too short, or against RFC 826 or the validation of RFC 4861, sections 7.1.1 and 7.1.2.
	Malformed Reason = "Malformed"
	// BadHopLimit: a hop limit below 255, so the sender is not on this link.
	BadHopLimit Reason = "BadHopLimit"
	// BadChecksum: the ICMPv6 checksum is wrong.
	BadChecksum Reason = "BadChecksum"
	// ForeignSender: the sender in the message is not the sender of the frame, or no unicast address.
	ForeignSender Reason = "ForeignSender"
	// OwnFrame: sent by an interface of this node, and come back.
	OwnFrame Reason = "OwnFrame"
	// Unrelated: neither a request nor a claim to an address.
	Unrelated Reason = "Unrelated"
	// NotAnnounced: nobody here announces the address.
	NotAnnounced Reason = "NotAnnounced"
	// WrongInterface: the address is announced on another interface only.
	WrongInterface Reason = "WrongInterface"
	// Conflict: another host claims an address that is announced here. Options.Observe is told.
	Conflict Reason = "Conflict"
	// SendFailed: the kernel did not take our frame.
	SendFailed Reason = "SendFailed"
)

var reasons = [...]Reason{
	Malformed, BadHopLimit, BadChecksum, ForeignSender, OwnFrame, Unrelated, NotAnnounced, WrongInterface, Conflict, SendFailed,
}

// protocol is how addresses of a family are resolved.
type protocol uint8

const (
	arp protocol = iota
	ndp
)

var protocols = [...]protocol{arp, ndp}

func (p protocol) String() string { return [...]string{"arp", "ndp"}[p] }

func protocolOf(a netip.Addr) protocol {
	if a.Is4() {
		return arp
	}
	return ndp
}

type mac = [6]byte

var (
	broadcast = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
)

const (
	headerLen = 14 // Ethernet

	etherTypeARP  = 0x0806
	etherTypeIPv6 = 0x86dd

	arpLen     = headerLen + 28
	arpRequest = 1
	arpReply   = 2

	icmpOffset = headerLen + 40
	icmpv6     = 58
	nsType     = 135
	naType     = 136
	ndpMinLen  = 24 // of a solicitation or an advertisement without options
	sourceMAC  = 1  // option: source link-layer address
	targetMAC  = 2  // option: target link-layer address

	// Flags of an advertisement. The router flag is never set: a virtual IP forwards nothing, and a host that sees the
	// flag vanish would drop the address from its default routers (RFC 4861, section 7.2.5).
	solicited = 0x40
	override  = 0x20

	maxReplyLen = icmpOffset + ndpMinLen + 8
)

// table is what one interface answers for. The zero value answers nothing.
type table struct {
	mac  mac
	own  map[mac]struct{}        // of all interfaces of this node
	here map[netip.Addr]struct{} // announced on this interface
	all  map[netip.Addr]struct{} // announced on any
}

// handle answers a frame: the reply is written to buf, which needs a capacity of maxReplyLen to avoid an allocation.
func (t *table) handle(frame, buf []byte) (reply []byte, dropped Reason) {
	if len(frame) < headerLen {
		return nil, Malformed
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeARP:
		return t.handleARP(frame, buf)
	case etherTypeIPv6:
		return t.handleNDP(frame, buf)
	}
	return nil, Unrelated
}

// handleARP follows RFC 826 and RFC 5227: a probe, whose sender address is zero, is answered as any request.
func (t *table) handleARP(frame, buf []byte) ([]byte, Reason) {
	if len(frame) < arpLen || [6]byte(frame[14:20]) != [6]byte{0, 1, 8, 0, 6, 4} { // Ethernet, IPv4, and their lengths
		return nil, Malformed
	}
	from := mac(frame[6:12])
	if _, own := t.own[from]; own {
		return nil, OwnFrame
	}
	if mac(frame[22:28]) != from || !unicast(from) {
		return nil, ForeignSender
	}
	operation := binary.BigEndian.Uint16(frame[20:])
	if operation != arpRequest && operation != arpReply {
		return nil, Unrelated
	}
	sender, target := netip.AddrFrom4([4]byte(frame[28:32])), netip.AddrFrom4([4]byte(frame[38:42]))
	if _, claimed := t.here[sender]; claimed {
		return nil, Conflict
	}
	if operation != arpRequest {
		return nil, Unrelated
	}
	if reason := t.lookup(target); reason != "" {
		return nil, reason
	}
	return appendARP(buf[:0], arpMessage{
		to: from, from: t.mac, operation: arpReply,
		senderMAC: t.mac, sender: target, targetMAC: from, target: sender,
	}), ""
}

// handleNDP follows RFC 4861: sections 7.1.1 and 7.1.2 for what is valid, 7.2.4 for the answer.
func (t *table) handleNDP(frame, buf []byte) ([]byte, Reason) {
	if len(frame) < icmpOffset || frame[14]>>4 != 6 {
		return nil, Malformed
	}
	if frame[20] != icmpv6 {
		return nil, Unrelated
	}
	length := int(binary.BigEndian.Uint16(frame[18:]))
	if length < 1 || icmpOffset+length > len(frame) {
		return nil, Malformed
	}
	message := frame[icmpOffset : icmpOffset+length]
	if message[0] != nsType && message[0] != naType {
		return nil, Unrelated
	}
	from := mac(frame[6:12])
	if _, own := t.own[from]; own {
		return nil, OwnFrame
	}
	if !unicast(from) {
		return nil, ForeignSender
	}
	if frame[21] != 255 {
		return nil, BadHopLimit
	}
	if length < ndpMinLen || message[1] != 0 {
		return nil, Malformed
	}
	source, destination := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	if checksum(source, destination, message) != 0 {
		return nil, BadChecksum
	}
	target := netip.AddrFrom16([16]byte(message[8:24]))
	if target.IsMulticast() || source.IsMulticast() {
		return nil, Malformed
	}
	if message[0] == naType {
		return nil, t.heard(message, destination, target)
	}

	claimed, given, ok := option(message[ndpMinLen:], sourceMAC)
	switch {
	case !ok:
		return nil, Malformed
	case source.IsUnspecified() && (given || !isSolicitedNode(destination)):
		return nil, Malformed
	case given && !unicast(claimed):
		return nil, ForeignSender
	}
	if _, claimed := t.here[source]; claimed {
		return nil, Conflict
	}
	if reason := t.lookup(target); reason != "" {
		return nil, reason
	}
	if source.IsUnspecified() {
		// Duplicate address detection: the host that asks has no address yet, so all nodes are told.
		return appendNA(buf[:0], t.mac, groupMAC(allNodes), target, allNodes, override), ""
	}
	if given {
		from = claimed
	}
	return appendNA(buf[:0], t.mac, from, target, source, solicited|override), ""
}

// heard judges the advertisement of another host.
func (t *table) heard(message []byte, destination, target netip.Addr) Reason {
	if _, _, ok := option(message[ndpMinLen:], targetMAC); !ok {
		return Malformed
	}
	if destination.IsMulticast() && message[4]&solicited != 0 {
		return Malformed
	}
	if _, claimed := t.here[target]; claimed {
		return Conflict
	}
	return Unrelated
}

func (t *table) lookup(target netip.Addr) Reason {
	if _, ok := t.here[target]; ok {
		return ""
	}
	if _, ok := t.all[target]; ok {
		return WrongInterface
	}
	return NotAnnounced
}

// claim returns the address that a frame dropped as Conflict claims, and the MAC it is claimed for.
func claim(frame []byte) (netip.Addr, mac) {
	if binary.BigEndian.Uint16(frame[12:]) == etherTypeARP {
		return netip.AddrFrom4([4]byte(frame[28:32])), mac(frame[22:28])
	}
	message := frame[icmpOffset : icmpOffset+int(binary.BigEndian.Uint16(frame[18:]))]
	addr, kind := netip.AddrFrom16([16]byte(frame[22:38])), byte(sourceMAC)
	if message[0] == naType {
		addr, kind = netip.AddrFrom16([16]byte(message[8:24])), targetMAC
	}
	if m, given, _ := option(message[ndpMinLen:], kind); given {
		return addr, m
	}
	return addr, mac(frame[6:12])
}

// announcement returns the frames that make neighbours update their entry for addr. Of the two forms of gratuitous ARP
// some hosts heed only the request (RFC 5227, section 2.3) and some only the reply.
func announcement(from mac, addr netip.Addr) [][]byte {
	if addr.Is4() {
		request := arpMessage{to: broadcast, from: from, operation: arpRequest, senderMAC: from, sender: addr, target: addr}
		reply := request
		reply.operation, reply.targetMAC = arpReply, from
		return [][]byte{appendARP(nil, request), appendARP(nil, reply)}
	}
	return [][]byte{appendNA(nil, from, groupMAC(allNodes), addr, allNodes, override)}
}

type arpMessage struct {
	to, from             mac // of the frame
	operation            byte
	senderMAC, targetMAC mac
	sender, target       netip.Addr
}

func appendARP(b []byte, m arpMessage) []byte {
	sender, target := m.sender.As4(), m.target.As4()
	b = append(b, m.to[:]...)
	b = append(b, m.from[:]...)
	b = append(b, etherTypeARP>>8, etherTypeARP&0xff, 0, 1, 8, 0, 6, 4, 0, m.operation)
	b = append(b, m.senderMAC[:]...)
	b = append(b, sender[:]...)
	b = append(b, m.targetMAC[:]...)
	return append(b, target[:]...)
}

// appendNA appends an advertisement of addr. It is sent from addr itself, which is thereby the one address that a filter
// on the way must let pass.
func appendNA(b []byte, from, to mac, addr, destination netip.Addr, flags byte) []byte {
	source, dest := addr.As16(), destination.As16()
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = append(b, etherTypeIPv6>>8, etherTypeIPv6&0xff, 0x60, 0, 0, 0, 0, ndpMinLen+8, icmpv6, 255)
	b = append(b, source[:]...)
	b = append(b, dest[:]...)
	start := len(b)
	b = append(b, naType, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, source[:]...)
	b = append(b, targetMAC, 1)
	b = append(b, from[:]...)
	binary.BigEndian.PutUint16(b[start+2:], checksum(addr, destination, b[start:]))
	return b
}

// checksum is that of ICMPv6 (RFC 4443, section 2.3). Over a message that carries its checksum, the result is zero.
func checksum(source, destination netip.Addr, message []byte) uint16 {
	s, d := source.As16(), destination.As16()
	sum := add(add(add(uint32(len(message))+icmpv6, s[:]), d[:]), message)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// option looks for a link-layer address among options. It is not ok when one of them is cut off or has length zero.
func option(options []byte, kind byte) (m mac, given, ok bool) {
	for len(options) > 0 {
		if len(options) < 8 || options[1] == 0 || int(options[1])*8 > len(options) {
			return mac{}, false, false
		}
		if options[0] == kind && options[1] == 1 {
			m, given = mac(options[2:8]), true
		}
		options = options[int(options[1])*8:]
	}
	return m, given, true
}

func unicast(m mac) bool { return m[0]&1 == 0 && m != mac{} }

// groupMAC is the Ethernet address of an IPv6 multicast group (RFC 2464, section 7).
func groupMAC(group netip.Addr) mac {
	g := group.As16()
	return mac{0x33, 0x33, g[12], g[13], g[14], g[15]}
}

// solicitedNode is the multicast group in which addr is asked for (RFC 4291, section 2.7.1).
func solicitedNode(addr netip.Addr) netip.Addr {
	a := addr.As16()
	return netip.AddrFrom16([16]byte{0xff, 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
}

func isSolicitedNode(addr netip.Addr) bool { return addr == solicitedNode(addr) }
