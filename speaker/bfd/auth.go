package bfd

import (
	"crypto/sha1"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
)

// AuthType is a kind of authentication (RFC 5880, section 4.1). The values are those on the wire. Simple passwords and MD5
// are not offered.
type AuthType uint8

const (
	// NoAuth takes any packet; with it, whoever is on the link can take a session down.
	NoAuth AuthType = 0
	// KeyedSHA1 proves the sender. A packet can be replayed until the next one is heard.
	KeyedSHA1 AuthType = 4
	// MeticulousKeyedSHA1 proves the sender, and takes each packet once.
	MeticulousKeyedSHA1 AuthType = 5
)

// Auth is a key. The zero value is none.
type Auth struct {
	Type AuthType
	// ID names the key in packets. Both sides need the same.
	ID uint8
	// Key is 1 to 20 bytes.
	Key string
}

// String does not tell the key.
func (a Auth) String() string {
	if a.Type == NoAuth {
		return "none"
	}
	return fmt.Sprintf("type %d, key ID %d", a.Type, a.ID)
}

// GoString does not tell the key.
func (a Auth) GoString() string { return "bfd.Auth{" + a.String() + "}" }

func (a Auth) validate() error {
	switch {
	case a == Auth{}:
		return nil
	case a.Type != KeyedSHA1 && a.Type != MeticulousKeyedSHA1:
		return fmt.Errorf("authentication type %d is not offered", a.Type)
	case len(a.Key) < 1 || len(a.Key) > sha1.Size:
		return errors.New("a key has 1 to 20 bytes")
	}
	return nil
}

const (
	sha1Len      = 28 // of the authentication section
	digestOffset = headerLen + 8
)

// section is the authentication section of a packet (RFC 5880, section 4.4). Of types that are not offered, only kind and
// keyID are known.
type section struct {
	kind     AuthType
	keyID    uint8
	sequence uint32
	digest   [sha1.Size]byte
}

func parseSection(b []byte) (section, Reason) {
	if len(b) < 2 || int(b[1]) > len(b) || b[1] < 3 {
		return section{}, BadLength
	}
	s := section{kind: AuthType(b[0]), keyID: b[2]}
	switch s.kind {
	case NoAuth: // reserved
		return section{}, AuthUnknownKey
	case KeyedSHA1, MeticulousKeyedSHA1:
		if len(b) != sha1Len || b[1] != sha1Len {
			return section{}, BadLength
		}
		s.sequence = binary.BigEndian.Uint32(b[4:])
		s.digest = [sha1.Size]byte(b[8:])
	}
	return s, ""
}

func (s section) marshal(buf []byte) []byte {
	buf = append(buf, byte(s.kind), sha1Len, s.keyID, 0)
	buf = binary.BigEndian.AppendUint32(buf, s.sequence)
	return append(buf, s.digest[:]...)
}

// sign writes the digest into a packet: that of the packet with the key in its place, padded with zeros (section 6.7.4).
func sign(packet []byte, key string) {
	place := packet[digestOffset:maxLen]
	clear(place)
	copy(place, key)
	digest := sha1.Sum(packet[:maxLen])
	copy(place, digest[:])
}

// signed tells whether the digest of a packet, which parse has accepted, was made with the key.
func signed(packet []byte, key string) bool {
	var again [maxLen]byte
	copy(again[:], packet)
	sign(again[:], key)
	return subtle.ConstantTimeCompare(again[digestOffset:], packet[digestOffset:maxLen]) == 1
}

// inWindow is the rule for sequence numbers of RFC 5880, section 6.7.4: not before the last one heard, and at most three
// detection times ahead. The numbers are circular.
func inWindow(kind AuthType, last, sequence uint32, multiplier uint8) bool {
	ahead := sequence - last
	if kind == MeticulousKeyedSHA1 && ahead == 0 {
		return false
	}
	return ahead <= 3*uint32(multiplier)
}
