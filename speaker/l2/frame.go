package l2

import (
	"bytes"
	"cmp"
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
	// ForeignSender: the sender, in the frame or in the message, is no single host: a group address or zero.
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
	// Answered: another host claims an address that is asked about here, and not announced. Options.Observe is told.
	Answered Reason = "Answered"
	// SendFailed: the kernel did not take our frame.
	SendFailed Reason = "SendFailed"
)

var reasons = [...]Reason{
	Malformed, BadHopLimit, BadChecksum, ForeignSender, OwnFrame, Unrelated, NotAnnounced, WrongInterface, Conflict, Answered,
	SendFailed,
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
	ndpMinLen  = 24  // of a solicitation or an advertisement without options
	sourceMAC  = 1   // option: source link-layer address
	targetMAC  = 2   // option: target link-layer address
	experiment = 253 // option: RFC 4727, section 5.1.3; receivers ignore what they do not know (RFC 4861, section 4.6)

	// Flags of an advertisement. The router flag is never set: a virtual IP forwards nothing, and a host that sees the
	// flag vanish would drop the address from its default routers (RFC 4861, section 7.2.5).
	solicited = 0x40
	override  = 0x20

	minFrameLen = 60 // of Ethernet, without the checksum
	maxReplyLen = icmpOffset + ndpMinLen + 8 + maxEndLen
	markOption  = 2 + markLen // a multiple of 8
	maxEndLen   = markOption + proofOption
	proofOption = 2 + len(markMagic) + 2 + proofLen
)

// table is what one interface answers for. The zero value answers nothing.
type table struct {
	mac   mac
	own   map[mac]struct{}          // of all interfaces of this node
	here  map[netip.Addr]*assertion // announced on this interface
	asked map[netip.Addr]Question   // asked about on this interface
	all   map[netip.Addr]struct{}   // announced on any
	keys  keyring
}

// assertion is an announcement as it is sent. Its end, which has the mark, is made once and not for each frame: nearly all
// requests ask for no nonce.
type assertion struct {
	mark
	round  uint64
	end    [maxEndLen]byte
	length int // of the end
}

// newAssertion makes what is said of an address from an interface with that MAC, unsigned without a key.
func newAssertion(addr netip.Addr, from mac, m mark, k *key, nonce uint64) assertion {
	a := assertion{mark: m}
	signed, b := k != nil, a.end[:0]
	if addr.Is4() {
		b = append(appendMark(b, m, signed), from[markTail:]...)
	} else {
		b = appendMark(append(b, experiment, byte(markOption/8)), m, signed)
	}
	if signed {
		if !addr.Is4() {
			b = append(append(append(b, experiment, byte(proofOption/8)), markMagic...), questionVersion, 0)
		}
		p := proof{nonce, k.code(addr, from, m, nonce)}
		b = p.append(b)
	}
	a.length = len(b)
	return a
}

// answering returns the answer to a question with that nonce.
func (t *table) answering(a *assertion, addr netip.Addr, nonce uint64) assertion {
	if len(t.keys) == 0 || nonce == 0 {
		return *a
	}
	return newAssertion(addr, t.mac, a.mark, t.keys[0], nonce)
}

// concerns reports whether an address is announced or asked about on this interface.
func (t *table) concerns(addr netip.Addr) bool {
	_, here := t.here[addr]
	_, asked := t.asked[addr]
	return here || asked
}

// handle answers a frame: the reply is written to buf, which needs a capacity of maxReplyLen to avoid an allocation. When
// the frame claims an address that is announced or asked about here, claim says what it claims; a claim may be answered,
// as the host that has an address which is asked about may ask in turn.
func (t *table) handle(frame, buf []byte) (reply []byte, claimed bool, dropped Reason) {
	if len(frame) < headerLen {
		return nil, false, Malformed
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case etherTypeARP:
		return t.handleARP(frame, buf)
	case etherTypeIPv6:
		return t.handleNDP(frame, buf)
	}
	return nil, false, Unrelated
}

// handleARP follows RFC 826 and RFC 5227: a probe, whose sender address is zero, is answered as any request. The sender is
// the MAC in the message, as for every kernel: that of the frame differs where a router answers with the MAC of a virtual
// router (RFC 5798, section 8.1.2), and behind proxies. A group as the sender, as of some clusters, has the address as well,
// but is sent nothing.
func (t *table) handleARP(frame, buf []byte) (reply []byte, claimed bool, dropped Reason) {
	if len(frame) < arpLen || [6]byte(frame[14:20]) != [6]byte{0, 1, 8, 0, 6, 4} { // Ethernet, IPv4, and their lengths
		return nil, false, Malformed
	}
	source, from := mac(frame[6:12]), mac(frame[22:28])
	if t.owns(source) || t.owns(from) {
		return nil, false, OwnFrame
	}
	if !unicast(source) || from == (mac{}) || from == broadcast {
		return nil, false, ForeignSender
	}
	operation := binary.BigEndian.Uint16(frame[20:])
	if operation != arpRequest && operation != arpReply {
		return nil, false, Unrelated
	}
	sender, target := netip.AddrFrom4([4]byte(frame[28:32])), netip.AddrFrom4([4]byte(frame[38:42]))
	claimed, dropped = t.claimed(sender)
	if dropped == Conflict {
		return nil, true, Conflict
	}
	if operation != arpRequest {
		return nil, claimed, cmp.Or(dropped, Unrelated)
	}
	if !unicast(from) {
		return nil, claimed, ForeignSender
	}
	answered, reason := t.lookup(target)
	if reason != "" {
		return nil, claimed, cmp.Or(dropped, reason)
	}
	if nonce := parseNonce(frame[arpLen:]); nonce != 0 {
		fresh := t.answering(answered, target, nonce)
		answered = &fresh
	}
	return appendARP(buf[:0], arpMessage{
		to: from, from: t.mac, operation: arpReply,
		senderMAC: t.mac, sender: target, targetMAC: from, target: sender,
	}, answered), claimed, ""
}

// handleNDP follows RFC 4861: sections 7.1.1 and 7.1.2 for what is valid, 7.2.4 for the answer.
func (t *table) handleNDP(frame, buf []byte) (reply []byte, claimed bool, dropped Reason) {
	if len(frame) < icmpOffset || frame[14]>>4 != 6 {
		return nil, false, Malformed
	}
	if frame[20] != icmpv6 {
		return nil, false, Unrelated
	}
	length := int(binary.BigEndian.Uint16(frame[18:]))
	if length < 1 || icmpOffset+length > len(frame) {
		return nil, false, Malformed
	}
	message := frame[icmpOffset : icmpOffset+length]
	if message[0] != nsType && message[0] != naType {
		return nil, false, Unrelated
	}
	from := mac(frame[6:12])
	if t.owns(from) {
		return nil, false, OwnFrame
	}
	if !unicast(from) {
		return nil, false, ForeignSender
	}
	if frame[21] != 255 {
		return nil, false, BadHopLimit
	}
	if length < ndpMinLen || message[1] != 0 {
		return nil, false, Malformed
	}
	source, destination := netip.AddrFrom16([16]byte(frame[22:38])), netip.AddrFrom16([16]byte(frame[38:54]))
	if checksum(source, destination, message) != 0 {
		return nil, false, BadChecksum
	}
	if netip.AddrFrom16([16]byte(message[8:24])).IsMulticast() || source.IsMulticast() {
		return nil, false, Malformed
	}
	if message[0] == naType {
		claimed, dropped = t.advertised(message, destination)
		return nil, claimed, dropped
	}
	return t.solicited(message, from, source, destination, buf)
}

// solicited answers a solicitation that another host sends from the MAC from.
func (t *table) solicited(message []byte, from mac, source, destination netip.Addr, buf []byte) (reply []byte, claimed bool, dropped Reason) {
	value, ok := option(message[ndpMinLen:], sourceMAC, 1)
	switch {
	case !ok:
		return nil, false, Malformed
	case source.IsUnspecified() && (value != nil || !isSolicitedNode(destination)):
		return nil, false, Malformed
	case value != nil && (mac(value) == mac{} || mac(value) == broadcast):
		return nil, false, ForeignSender
	case value != nil && t.owns(mac(value)):
		return nil, false, OwnFrame
	}
	claimed, dropped = t.claimed(source)
	if dropped == Conflict {
		return nil, true, Conflict
	}
	if value != nil && !unicast(mac(value)) {
		return nil, claimed, ForeignSender
	}
	target := netip.AddrFrom16([16]byte(message[8:24]))
	answered, reason := t.lookup(target)
	if reason != "" {
		return nil, claimed, cmp.Or(dropped, reason)
	}
	if question, _ := option(message[ndpMinLen:], experiment, byte(markOption/8)); question != nil {
		fresh := t.answering(answered, target, parseNonce(question))
		answered = &fresh
	}
	if source.IsUnspecified() {
		// Duplicate address detection: the host that asks has no address yet, so all nodes are told.
		return appendNA(buf[:0], t.mac, groupMAC(allNodes), target, allNodes, override, answered), false, ""
	}
	if value != nil {
		from = mac(value)
	}
	return appendNA(buf[:0], t.mac, from, target, source, solicited|override, answered), claimed, ""
}

// advertised judges the advertisement of another host.
func (t *table) advertised(message []byte, destination netip.Addr) (claimed bool, dropped Reason) {
	value, ok := option(message[ndpMinLen:], targetMAC, 1)
	if !ok || destination.IsMulticast() && message[4]&solicited != 0 {
		return false, Malformed
	}
	if value != nil {
		// Another host, such as a proxy, may repeat where our addresses are.
		if t.owns(mac(value)) {
			return false, OwnFrame
		}
	}
	claimed, dropped = t.claimed(netip.AddrFrom16([16]byte(message[8:24])))
	return claimed, cmp.Or(dropped, Unrelated)
}

// claimed judges another host's claim to an address.
func (t *table) claimed(addr netip.Addr) (claimed bool, dropped Reason) {
	if _, ok := t.here[addr]; ok {
		return true, Conflict
	}
	if _, ok := t.asked[addr]; ok {
		return true, Answered
	}
	return false, ""
}

// owns reports whether an interface of this node has the MAC.
func (t *table) owns(m mac) bool {
	_, own := t.own[m]
	return own
}

func (t *table) lookup(target netip.Addr) (*assertion, Reason) {
	if a, ok := t.here[target]; ok {
		return a, ""
	}
	if _, ok := t.all[target]; ok {
		return nil, WrongInterface
	}
	return nil, NotAnnounced
}

// claim returns what a frame claims: the address, its MAC and what its mark is worth.
func (t *table) claim(frame []byte, asked *challenges) (Claim, seal) {
	if binary.BigEndian.Uint16(frame[12:]) == etherTypeARP {
		c := Claim{Addr: netip.AddrFrom4([4]byte(frame[28:32])), MAC: mac(frame[22:28])}
		m, signed, ok := parseMark(frame[arpLen:])
		if !ok || !bytes.Equal(c.MAC[markTail:], frame[arpLen+markLen:min(len(frame), minFrameLen)]) {
			return c, seal{}
		}
		var rest []byte
		if signed {
			rest = frame[min(len(frame), minFrameLen):]
		}
		judged := t.judge(&c, m, signed, rest, asked)
		return c, judged
	}
	message := frame[icmpOffset : icmpOffset+int(binary.BigEndian.Uint16(frame[18:]))]
	c, kind := Claim{Addr: netip.AddrFrom16([16]byte(frame[22:38])), MAC: mac(frame[6:12])}, byte(sourceMAC)
	if message[0] == naType {
		c.Addr, kind = netip.AddrFrom16([16]byte(message[8:24])), targetMAC
	}
	options := message[ndpMinLen:]
	if value, _ := option(options, kind, 1); value != nil {
		c.MAC = mac(value)
	}
	value, _ := option(options, experiment, byte(markOption/8))
	m, signed, ok := parseMark(value)
	if !ok {
		return c, seal{}
	}
	rest, _ := option(options, experiment, byte(proofOption/8))
	if len(rest) > 0 {
		rest = rest[len(markMagic)+2:]
	}
	judged := t.judge(&c, m, signed, rest, asked)
	return c, judged
}

// announcement returns the frames that make neighbours update their entry for an address. Of the two forms of gratuitous
// ARP some hosts heed only the request (RFC 5227, section 2.3) and some only the reply.
func announcement(from mac, addr netip.Addr, a *assertion) [][]byte {
	if addr.Is4() {
		request := arpMessage{to: broadcast, from: from, operation: arpRequest, senderMAC: from, sender: addr, target: addr}
		reply := request
		reply.operation, reply.targetMAC = arpReply, from
		return [][]byte{appendARP(nil, request, a), appendARP(nil, reply, a)}
	}
	return [][]byte{appendNA(nil, from, groupMAC(allNodes), addr, allNodes, override, a)}
}

// appendQuestion appends a request whose answer leaves no trace with other hosts: a probe (RFC 5227, section 2.1.1), or a
// solicitation as in duplicate address detection (RFC 4862, section 5.4.2). It has a nonce for speakers to sign, and no
// mark: a host that answers in the buffer that it received in would return it.
func appendQuestion(b []byte, from mac, addr netip.Addr, nonce uint64) []byte {
	if addr.Is4() {
		b = appendNonce(appendARPMessage(b, arpMessage{
			to: broadcast, from: from, operation: arpRequest, senderMAC: from, sender: netip.IPv4Unspecified(), target: addr,
		}), nonce)
		return append(b, 0, 0, 0, 0)
	}
	group, target := solicitedNode(addr), addr.As16()
	b = appendIPv6(b, from, groupMAC(group), netip.IPv6Unspecified(), group, ndpMinLen+byte(markOption))
	start := len(b)
	b = append(b, nsType, 0, 0, 0, 0, 0, 0, 0)
	b = append(b, target[:]...)
	b = appendNonce(append(b, experiment, byte(markOption/8)), nonce)
	return sign(b, start, netip.IPv6Unspecified(), group)
}

type arpMessage struct {
	to, from             mac // of the frame
	operation            byte
	senderMAC, targetMAC mac
	sender, target       netip.Addr
}

// appendARP appends a claim, padded to the least length of a frame, with the mark in the padding and its proof behind it.
func appendARP(b []byte, m arpMessage, a *assertion) []byte {
	return append(appendARPMessage(b, m), a.end[:a.length]...)
}

func appendARPMessage(b []byte, m arpMessage) []byte {
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
func appendNA(b []byte, from, to mac, addr, destination netip.Addr, flags byte, a *assertion) []byte {
	target := addr.As16()
	b = appendIPv6(b, from, to, addr, destination, byte(ndpMinLen+8+a.length))
	start := len(b)
	b = append(b, naType, 0, 0, 0, flags, 0, 0, 0)
	b = append(b, target[:]...)
	b = append(b, targetMAC, 1)
	b = append(b, from[:]...)
	b = append(b, a.end[:a.length]...)
	return sign(b, start, addr, destination)
}

// appendIPv6 appends the headers of a message of ICMPv6.
func appendIPv6(b []byte, from, to mac, source, destination netip.Addr, length byte) []byte {
	s, d := source.As16(), destination.As16()
	b = append(b, to[:]...)
	b = append(b, from[:]...)
	b = append(b, etherTypeIPv6>>8, etherTypeIPv6&0xff, 0x60, 0, 0, 0, 0, length, icmpv6, 255)
	b = append(b, s[:]...)
	return append(b, d[:]...)
}

// sign writes the checksum of the message that begins at start.
func sign(b []byte, start int, source, destination netip.Addr) []byte {
	binary.BigEndian.PutUint16(b[start+2:], checksum(source, destination, b[start:]))
	return b
}

// checksum is that of ICMPv6 (RFC 4443, section 2.3). Over a message that carries its checksum, the result is zero.
func checksum(source, destination netip.Addr, message []byte) uint16 {
	s, d := source.As16(), destination.As16()
	sum := add(add(add(uint64(len(message))+icmpv6, s[:]), d[:]), message)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// add takes four bytes at a time, which comes to the same when the sum is folded (RFC 1071, section 2).
func add(sum uint64, b []byte) uint64 {
	for ; len(b) >= 4; b = b[4:] {
		sum += uint64(binary.BigEndian.Uint32(b))
	}
	if len(b) >= 2 {
		sum += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}

// option returns the value of the option of that kind and length (in units of 8 bytes), or nil when there is none. It is
// not ok when an option is cut off or has length zero.
func option(options []byte, kind, length byte) (value []byte, ok bool) {
	for len(options) > 0 {
		if len(options) < 8 || options[1] == 0 || int(options[1])*8 > len(options) {
			return nil, false
		}
		size := int(options[1]) * 8
		if options[0] == kind && options[1] == length {
			value = options[2:size]
		}
		options = options[size:]
	}
	return value, true
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
