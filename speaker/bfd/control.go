package bfd

import (
	"encoding/binary"
	"fmt"
	"time"
)

// State of a session (RFC 5880, section 4.1). The values are those on the wire.
type State uint8

const (
	// AdminDown is held down by the operator; here: "I must not serve".
	AdminDown State = iota
	// Down hears nothing, or nothing good.
	Down
	// Init hears the peer, and does not know whether the peer hears it.
	Init
	// Up hears, and is heard.
	Up
)

func (s State) String() string { return [...]string{"AdminDown", "Down", "Init", "Up"}[s&3] }

// Diag is why a session last left Up (RFC 5880, section 4.1). The values are those on the wire.
type Diag uint8

const (
	// NoDiagnostic: nothing has happened.
	NoDiagnostic Diag = 0
	// DetectionTimeExpired: the peer fell silent.
	DetectionTimeExpired Diag = 1
	// NeighborSignaledDown: the peer said that it is Down or AdminDown.
	NeighborSignaledDown Diag = 3
	// ConcatenatedPathDown: the session is Up, and something behind the sender is not (RFC 5880, section 6.8.17).
	ConcatenatedPathDown Diag = 6
	// AdministrativelyDown: it was told to be AdminDown, or ceases to exist.
	AdministrativelyDown Diag = 7
)

func (d Diag) String() string {
	names := [...]string{"NoDiagnostic", "DetectionTimeExpired", "EchoFailed", "NeighborSignaledDown", "ForwardingPlaneReset",
		"PathDown", "ConcatenatedPathDown", "AdministrativelyDown", "ReverseConcatenatedPathDown"}
	if int(d) < len(names) {
		return names[d]
	}
	return fmt.Sprintf("Diag(%d)", uint8(d))
}

// Reason says why a packet was not taken, or not sent. The zero value means that it was.
type Reason string

const (
	// BadVersion: not version 1.
	BadVersion Reason = "BadVersion"
	// BadLength: too short, longer than the datagram, or not as long as its authentication section needs.
	BadLength Reason = "BadLength"
	// ZeroMultiplier: a detection multiplier of 0.
	ZeroMultiplier Reason = "ZeroMultiplier"
	// Multipoint: the bit is reserved for an extension, and must be clear.
	Multipoint Reason = "Multipoint"
	// ZeroDiscriminator: the sender's own discriminator is 0.
	ZeroDiscriminator Reason = "ZeroDiscriminator"
	// NoDiscriminator: ours is 0, but the state says that the sender has heard us.
	NoDiscriminator Reason = "NoDiscriminator"
	// UnknownDiscriminator: ours is none of our sessions, or one of another life.
	UnknownDiscriminator Reason = "UnknownDiscriminator"
	// UnknownPeer: without a discriminator of ours, and from nobody we have a session with.
	UnknownPeer Reason = "UnknownPeer"
	// WrongPath: our discriminator, but not from the session's peer, to its address, on its interface or over as many hops.
	WrongPath Reason = "WrongPath"
	// LowTTL: the sender is further away than the session allows (RFC 5881, section 5; RFC 5883, section 3).
	LowTTL Reason = "LowTTL"
	// AuthMissing: the session needs authentication.
	AuthMissing Reason = "AuthMissing"
	// AuthUnexpected: the session has no authentication.
	AuthUnexpected Reason = "AuthUnexpected"
	// AuthUnknownKey: another type of authentication, or another key ID, than the session's.
	AuthUnknownKey Reason = "AuthUnknownKey"
	// AuthSequence: a replay, or too far ahead.
	AuthSequence Reason = "AuthSequence"
	// AuthDigest: made with another key, or changed on the way.
	AuthDigest Reason = "AuthDigest"
	// SessionAdminDown: in order, but our session is AdminDown.
	SessionAdminDown Reason = "SessionAdminDown"
	// SendFailed: the kernel did not take our packet.
	SendFailed Reason = "SendFailed"
)

var reasons = [...]Reason{
	BadVersion, BadLength, ZeroMultiplier, Multipoint, ZeroDiscriminator, NoDiscriminator, UnknownDiscriminator, UnknownPeer,
	WrongPath, LowTTL, AuthMissing, AuthUnexpected, AuthUnknownKey, AuthSequence, AuthDigest, SessionAdminDown, SendFailed,
}

const (
	headerLen = 24 // mandatory section
	maxLen    = headerLen + sha1Len

	pollBit, finalBit, planeBit, authBit, demandBit, multipointBit = 1 << 5, 1 << 4, 1 << 3, 1 << 2, 1 << 1, 1 << 0
)

// control is a BFD Control packet (RFC 5880, section 4.1). Intervals are whole microseconds.
type control struct {
	diag                        Diag
	state                       State
	poll, final                 bool
	planeIndependent            bool // from the forwarding plane that is watched
	demand                      bool
	multiplier                  uint8
	myDiscr, yourDiscr          uint32
	desiredTx, requiredRx, echo time.Duration // the least that the sender wants to send, can receive, and can receive echoed
	auth                        section
}

// parse is the part of the reception rules of RFC 5880, section 6.8.6, that needs nothing but the packet.
func parse(packet []byte) (control, Reason) {
	if len(packet) < headerLen {
		return control{}, BadLength
	}
	if packet[0]>>5 != 1 {
		return control{}, BadVersion
	}
	flags, length := packet[1], int(packet[3])
	if length < headerLen || length > len(packet) {
		return control{}, BadLength
	}
	if packet[2] == 0 {
		return control{}, ZeroMultiplier
	}
	if flags&multipointBit != 0 {
		return control{}, Multipoint
	}
	be := binary.BigEndian
	c := control{
		diag:             Diag(packet[0] & 0x1f),
		state:            State(flags >> 6),
		poll:             flags&pollBit != 0,
		final:            flags&finalBit != 0,
		planeIndependent: flags&planeBit != 0,
		demand:           flags&demandBit != 0,
		multiplier:       packet[2],
		myDiscr:          be.Uint32(packet[4:]),
		yourDiscr:        be.Uint32(packet[8:]),
		desiredTx:        micros(be.Uint32(packet[12:])),
		requiredRx:       micros(be.Uint32(packet[16:])),
		echo:             micros(be.Uint32(packet[20:])),
	}
	if c.myDiscr == 0 {
		return control{}, ZeroDiscriminator
	}
	if c.yourDiscr == 0 && c.state != Down && c.state != AdminDown {
		return control{}, NoDiscriminator
	}
	if flags&authBit != 0 {
		var reason Reason
		if c.auth, reason = parseSection(packet[headerLen:length]); reason != "" {
			return control{}, reason
		}
	}
	return c, ""
}

// marshal appends the packet to buf, without the digest.
func (c control) marshal(buf []byte) []byte {
	flags, length := byte(c.state)<<6, byte(headerLen)
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{c.poll, pollBit}, {c.final, finalBit}, {c.planeIndependent, planeBit}, {c.demand, demandBit}} {
		if f.set {
			flags |= f.bit
		}
	}
	if c.auth.kind != NoAuth {
		flags |= authBit
		length += sha1Len
	}
	be := binary.BigEndian
	buf = append(buf, 1<<5|byte(c.diag)&0x1f, flags, c.multiplier, length)
	buf = be.AppendUint32(buf, c.myDiscr)
	buf = be.AppendUint32(buf, c.yourDiscr)
	buf = be.AppendUint32(buf, uint32(c.desiredTx.Microseconds()))
	buf = be.AppendUint32(buf, uint32(c.requiredRx.Microseconds()))
	buf = be.AppendUint32(buf, uint32(c.echo.Microseconds()))
	if c.auth.kind != NoAuth {
		buf = c.auth.marshal(buf)
	}
	return buf
}

func micros(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
