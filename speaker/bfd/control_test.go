package bfd

import (
	"bytes"
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func compare(t *testing.T, want, got control) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(control{}, section{})); diff != "" {
		t.Error(diff)
	}
}

func TestParse(t *testing.T) {
	// Version 1, Diag 3; Up with Poll, control plane independent; multiplier 3; length 24.
	plain := []byte{0x23, 0xe8, 3, 24, 0, 0, 0, 1, 0xff, 0, 0, 2, 0, 0, 0x27, 0x10, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 50}
	want := control{diag: NeighborSignaledDown, state: Up, poll: true, planeIndependent: true, multiplier: 3, myDiscr: 1, yourDiscr: 0xff000002,
		desiredTx: 10 * ms, requiredRx: time.Second, echo: 50 * time.Microsecond}
	got, reason := parse(plain)
	if reason != "" {
		t.Fatal(reason)
	}
	compare(t, want, got)
	if again := want.marshal(nil); !bytes.Equal(plain, again) {
		t.Errorf("marshal: %x", again)
	}

	// What follows the packet in the datagram is not of it (RFC 5880, section 6.8.6).
	got, reason = parse(append(plain[:24:24], 1, 2, 3))
	if reason != "" {
		t.Error(reason)
	}
	compare(t, want, got)
}

func TestParseLongestInterval(t *testing.T) {
	c := control{state: Down, multiplier: 255, myDiscr: math.MaxUint32, desiredTx: micros(math.MaxUint32), requiredRx: micros(math.MaxUint32)}
	got, reason := parse(c.marshal(nil))
	if reason != "" {
		t.Fatal(reason)
	}
	compare(t, c, got)
	if s := (session{remote: remote{multiplier: 255, desiredTx: got.desiredTx}}); s.detection() != 255*micros(math.MaxUint32) {
		t.Errorf("detection time %s", s.detection())
	}
}

// The digest of a packet made by hand, with the sha1 of another implementation.
func TestSign(t *testing.T) {
	c := control{state: Up, multiplier: 3, myDiscr: 1, yourDiscr: 2, desiredTx: 100 * ms, requiredRx: 100 * ms,
		auth: section{kind: MeticulousKeyedSHA1, keyID: 7, sequence: 0x01020304}}
	packet := c.marshal(nil)
	if len(packet) != 52 || packet[3] != 52 || packet[1] != 0xc4 {
		t.Fatalf("%x", packet)
	}
	if head := packet[24:32]; !bytes.Equal(head, []byte{5, 28, 7, 0, 1, 2, 3, 4}) {
		t.Errorf("authentication section %x", head)
	}
	sign(packet, "secret")
	if got, want := packet[32:], wantDigest; !bytes.Equal(got, want) {
		t.Errorf("digest %x, want %x", got, want)
	}
	if !signed(packet, "secret") || signed(packet, "secret2") || signed(packet, "") {
		t.Error("a digest is not told from another")
	}
	for i := range 52 {
		changed := bytes.Clone(packet)
		changed[i] ^= 1
		if signed(changed, "secret") {
			t.Errorf("byte %d is not covered", i)
		}
	}
}

// wantDigest was made with Python's hashlib.
var wantDigest = []byte{0x1a, 0x97, 0x3a, 0xcc, 0xaa, 0x0c, 0xb5, 0x48, 0x2f, 0x69, 0x00, 0x6d, 0xfd, 0x9b, 0x14, 0xfb, 0x69, 0x71, 0xc1, 0x1b}

func TestSequenceWindow(t *testing.T) {
	tests := []struct {
		name       string
		kind       AuthType
		last, next uint32
		ok         bool
	}{
		{"the same", KeyedSHA1, 5, 5, true},
		{"the same, meticulously", MeticulousKeyedSHA1, 5, 5, false},
		{"next", MeticulousKeyedSHA1, 5, 6, true},
		{"the furthest", MeticulousKeyedSHA1, 5, 14, true},
		{"further", MeticulousKeyedSHA1, 5, 15, false},
		{"the furthest, keyed", KeyedSHA1, 5, 14, true},
		{"further, keyed", KeyedSHA1, 5, 15, false},
		{"before", MeticulousKeyedSHA1, 5, 4, false},
		{"before, keyed", KeyedSHA1, 5, 4, false},
		{"around", MeticulousKeyedSHA1, math.MaxUint32, 0, true},
		{"around to the furthest", MeticulousKeyedSHA1, math.MaxUint32, 8, true},
		{"around further", MeticulousKeyedSHA1, math.MaxUint32, 9, false},
		{"around before", KeyedSHA1, 0, math.MaxUint32, false},
	}
	for _, tt := range tests {
		if got := inWindow(tt.kind, tt.last, tt.next, 3); got != tt.ok {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.ok)
		}
	}
}

// spoofs are packets that are not to have any effect on a session without authentication, made from the last one of its peer.
var spoofs = []spoof{
	{name: "empty", edit: func([]byte) []byte { return nil }, reason: BadLength},
	{name: "cut", edit: func(b []byte) []byte { return b[:23] }, reason: BadLength},
	{name: "version 0", edit: set(0, 0), reason: BadVersion},
	{name: "version 2", edit: set(0, 2<<5), reason: BadVersion},
	{name: "length below the header", edit: set(3, 23), reason: BadLength},
	{name: "length beyond the datagram", edit: set(3, 25), reason: BadLength},
	{name: "authentication without room", edit: set(1, byte(Up)<<6|authBit), reason: BadLength},
	{name: "authentication of length 0", edit: section0, reason: BadLength},
	{name: "authentication longer than the packet", edit: shortSection, reason: BadLength},
	{name: "multiplier 0", edit: set(2, 0), reason: ZeroMultiplier},
	{name: "multipoint", edit: set(1, byte(Up)<<6|multipointBit), reason: Multipoint},
	{name: "no discriminator of its own", edit: set(4, 0, 0, 0, 0), reason: ZeroDiscriminator},
	{name: "no discriminator of ours, Up", edit: set(8, 0, 0, 0, 0), reason: NoDiscriminator},
	{name: "no discriminator of ours, Init", edit: all(set(8, 0, 0, 0, 0), set(1, byte(Init)<<6)), reason: NoDiscriminator},
	{name: "a foreign discriminator", edit: func(b []byte) []byte { b[8] ^= 0x80; return b }, reason: UnknownDiscriminator},
	{name: "a stranger", edit: all(set(8, 0, 0, 0, 0), set(1, byte(Down)<<6)), stranger: true, reason: UnknownPeer},
	{name: "a stranger who knows our discriminator", edit: set(1, byte(Down)<<6), stranger: true, reason: WrongPath},
	{name: "one router away", edit: set(1, byte(Down)<<6), ttl: 254, reason: LowTTL},
	{name: "far away", edit: set(1, byte(Down)<<6), ttl: 1, reason: LowTTL},
	{name: "one router away, without a discriminator", edit: all(set(8, 0, 0, 0, 0), set(1, byte(Down)<<6)), ttl: 254, reason: LowTTL},
	{name: "authenticated", edit: all(set(1, byte(Down)<<6), signWith(MeticulousKeyedSHA1, 1, 1, "secret")), reason: AuthUnexpected},
}

// signedSpoofs are those for a session with signed5. The last packet of its peer is signed.
var signedSpoofs = []spoof{
	{name: "unsigned", edit: all(unsign, set(1, byte(Down)<<6)), reason: AuthMissing},
	{name: "unsigned, without a discriminator", edit: all(unsign, set(8, 0, 0, 0, 0), set(1, byte(Down)<<6)), reason: AuthMissing},
	{name: "another type of signature", edit: all(unsign, set(1, byte(Down)<<6), signWith(KeyedSHA1, 1, 1, "secret")), reason: AuthUnknownKey},
	{name: "simple password", edit: all(unsign, password), reason: AuthUnknownKey},
	{name: "type 0", edit: set(24, 0), reason: AuthUnknownKey},
	{name: "another key ID", edit: set(26, 2), reason: AuthUnknownKey},
	{name: "replay", edit: func(b []byte) []byte { return b }, reason: AuthSequence},
	{name: "too far ahead", edit: signWith(MeticulousKeyedSHA1, 1, 1000, "secret"), reason: AuthSequence},
	{name: "before", edit: all(signWith(MeticulousKeyedSHA1, 1, math.MaxUint32, "secret")), reason: AuthSequence},
	{name: "another key", edit: all(set(1, byte(Down)<<6|authBit), signWith(MeticulousKeyedSHA1, 1, 5, "guess")), reason: AuthDigest},
	{name: "changed on the way", edit: all(signWith(MeticulousKeyedSHA1, 1, 5, "secret"), set(1, byte(Down)<<6|authBit)), reason: AuthDigest},
	{name: "half a digest", edit: func(b []byte) []byte { b[3], b[25] = 42, 18; return b[:42] }, reason: BadLength},
	{name: "longer than the digest", edit: func(b []byte) []byte { b[3]++; return append(b, 0) }, reason: BadLength},
}

type spoof struct {
	name     string
	edit     func(live []byte) []byte
	ttl      int // 255 when 0
	stranger bool
	reason   Reason
}

func (s spoof) hops() int {
	if s.ttl == 0 {
		return 255
	}
	return s.ttl
}

func set(at int, values ...byte) func([]byte) []byte {
	return func(b []byte) []byte { copy(b[at:], values); return b }
}

func all(edits ...func([]byte) []byte) func([]byte) []byte {
	return func(b []byte) []byte {
		for _, edit := range edits {
			b = edit(b)
		}
		return b
	}
}

func section0(b []byte) []byte {
	b[1] |= authBit
	b[3] += 3
	return append(b, 5, 0, 1)
}

func shortSection(b []byte) []byte {
	b[1] |= authBit
	b[3] += 4
	return append(b, 5, 28, 1, 0)
}

func unsign(b []byte) []byte {
	b[1] &^= authBit
	b[3] = headerLen
	return b[:headerLen]
}

func password(b []byte) []byte {
	b[1] |= authBit
	b[3] = headerLen + 9
	return append(b, 1, 9, 1, 's', 'e', 'c', 'r', 'e', 't')
}

// signWith signs with a sequence number that is as far from the packet's.
func signWith(kind AuthType, id uint8, ahead uint32, key string) func([]byte) []byte {
	return func(b []byte) []byte {
		var sequence uint32
		if b[1]&authBit != 0 {
			sequence = binary.BigEndian.Uint32(b[28:])
		}
		b = append(unsign(b), section{kind: kind, keyID: id, sequence: sequence + ahead}.marshal(nil)...)
		b[1] |= authBit
		b[3] = maxLen
		sign(b, key)
		return b
	}
}

func FuzzParse(f *testing.F) {
	f.Add(control{state: Up, multiplier: 3, myDiscr: 1, yourDiscr: 2}.marshal(nil))
	f.Add(signWith(MeticulousKeyedSHA1, 1, 1, "secret")(control{state: Down, multiplier: 1, myDiscr: 1}.marshal(nil)))
	for _, s := range spoofs {
		f.Add(s.edit(control{state: Up, multiplier: 3, myDiscr: 1, yourDiscr: 2}.marshal(nil)))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, reason := parse(b)
		if reason != "" {
			if c != (control{}) {
				t.Errorf("%s, and yet %+v", reason, c)
			}
			return
		}
		if c.auth.kind != NoAuth && c.auth.kind != KeyedSHA1 && c.auth.kind != MeticulousKeyedSHA1 {
			return // of which not all is known
		}
		again := c.marshal(nil)
		length := int(b[3])
		same := bytes.Clone(b[:length])
		if c.auth.kind != NoAuth {
			same[27] = 0 // reserved
		} else {
			same = same[:headerLen] // bytes after the header, without an authentication section, mean nothing
			same[3] = headerLen
		}
		if !bytes.Equal(again, same) {
			t.Errorf("parsed   %x\nmarshals %x", same, again)
		}
		if c2, reason := parse(again); reason != "" || c2 != c {
			t.Errorf("parsed again: %s %+v", reason, c2)
		}
	})
}
