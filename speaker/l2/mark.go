package l2

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"net/netip"
	"time"
)

// mark is what Herald's claims carry for Herald's other nodes, where others do not look: behind ARP messages, and in
// options of Neighbor Discovery. A signed claim has three parts:
//
//   - The mark: magic, version 1, flags and term, in the padding of an ARP frame or an option of 16 bytes. Speakers that
//     know no keys send and read this part alone.
//   - The nonce: that of the question that the claim answers, or zero for a claim that nobody asked for.
//   - The code: HMAC-SHA256 over protocol, flags, term, address, sender MAC and nonce, cut to 16 bytes.
//
// The nonce and the code follow the padding of an ARP frame, which grows from 60 to 84 bytes, or are an option of 32 bytes.
// A question carries its nonce in a mark of version 2.
type mark struct {
	term     uint64
	yielding bool
}

const (
	markMagic    = "Hrld"
	markVersion  = 1
	markYielding = 1 // flag
	markSigned   = 2 // flag: a nonce and a code follow; speakers without keys ignore it
	markLen      = len(markMagic) + 2 + 8

	questionVersion = 2

	// The padding of an ARP frame ends with the sender's MAC from here on, or the mark does not count: a host that answers
	// in the buffer that it received in returns our padding.
	markTail = 6 - (minFrameLen - arpLen - markLen)

	nonceLen  = 8
	codeLen   = 16
	proofLen  = nonceLen + codeLen
	signedLen = len(markMagic) + 2 + 1 + 8 + 16 + 6 + nonceLen // what a code is made of
)

// appendMark appends a mark without a signature, or the first part of one with a signature.
func appendMark(b []byte, m mark, signed bool) []byte {
	b = append(b, markMagic...)
	b = append(b, markVersion, m.flags(signed))
	return binary.BigEndian.AppendUint64(b, m.term)
}

func (m mark) flags(signed bool) (flags byte) {
	if m.yielding {
		flags |= markYielding
	}
	if signed {
		flags |= markSigned
	}
	return flags
}

// parseMark reads the mark that b begins with, and reports whether it is signed.
func parseMark(b []byte) (m mark, signed, ok bool) {
	if len(b) < markLen || string(b[:len(markMagic)]) != markMagic || b[len(markMagic)] != markVersion {
		return mark{}, false, false
	}
	rest := b[len(markMagic)+1:]
	m = mark{term: binary.BigEndian.Uint64(rest[1:]), yielding: rest[0]&markYielding != 0}
	return m, rest[0]&markSigned != 0, true
}

// appendNonce appends what a question carries, which is as long as a mark.
func appendNonce(b []byte, nonce uint64) []byte {
	b = append(b, markMagic...)
	b = append(b, questionVersion, 0)
	return binary.BigEndian.AppendUint64(b, nonce)
}

// parseNonce reads the nonce of a question; zero when there is none.
func parseNonce(b []byte) uint64 {
	if len(b) < markLen || string(b[:len(markMagic)]) != markMagic || b[len(markMagic)] != questionVersion {
		return 0
	}
	return binary.BigEndian.Uint64(b[len(markMagic)+2:])
}

// newNonce returns a number that nobody can foresee, and not zero.
func newNonce() uint64 {
	var b [nonceLen]byte
	_, _ = rand.Read(b[:]) // never fails
	return max(1, binary.BigEndian.Uint64(b[:]))
}

// proof is the second and third part of a signed claim.
type proof struct {
	nonce uint64
	code  [codeLen]byte
}

func (p *proof) append(b []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, p.nonce), p.code[:]...)
}

// parseProof reads the proof that b begins with.
func parseProof(b []byte) (p proof, ok bool) {
	if len(b) < proofLen {
		return proof{}, false
	}
	return proof{binary.BigEndian.Uint64(b), [codeLen]byte(b[nonceLen:])}, true
}

// key is a key for HMAC-SHA256 (RFC 2104), as the blocks that begin the inner and the outer hash. It has no state, so that
// all sockets can use it at once and none allocates.
type key struct{ inner, outer [sha256.BlockSize]byte }

// newKey derives a key from a secret of any length. The speakers use the secret for BFD too, hence the label.
func newKey(secret []byte) *key {
	derived := sha256.Sum256(append([]byte("herald mark 2\x00"), secret...))
	k := &key{}
	for i := range k.inner {
		b := byte(0)
		if i < len(derived) {
			b = derived[i]
		}
		k.inner[i], k.outer[i] = b^0x36, b^0x5c
	}
	return k
}

func (k *key) hmac(message *[signedLen]byte) [sha256.Size]byte {
	var in [sha256.BlockSize + signedLen]byte
	var out [sha256.BlockSize + sha256.Size]byte
	copy(in[:], k.inner[:])
	copy(in[sha256.BlockSize:], message[:])
	sum := sha256.Sum256(in[:])
	copy(out[:], k.outer[:])
	copy(out[sha256.BlockSize:], sum[:])
	return sha256.Sum256(out[:])
}

// code is the authentication code of a claim.
func (k *key) code(addr netip.Addr, from mac, m mark, nonce uint64) [codeLen]byte {
	var message [signedLen]byte
	b := append(message[:0], markMagic...)
	b = append(b, questionVersion, byte(protocolOf(addr)), m.flags(true))
	b = binary.BigEndian.AppendUint64(b, m.term)
	a := addr.As16()
	b = append(b, a[:]...)
	b = append(b, from[:]...)
	binary.BigEndian.AppendUint64(b, nonce)
	sum := k.hmac(&message)
	return [codeLen]byte(sum[:])
}

// keyring is the key to sign with, first, and the others that are accepted while the key is changed. It never changes.
type keyring []*key

// newKeyring returns the keyring of the secrets that are not empty. Without the first there is no key to sign with, and none
// to look with.
func newKeyring(secrets ...[]byte) (keys keyring) {
	if len(secrets) == 0 || len(secrets[0]) == 0 {
		return nil
	}
	for _, secret := range secrets {
		if len(secret) > 0 {
			keys = append(keys, newKey(secret))
		}
	}
	return keys
}

// key is the key to sign with; nil when there is none.
func (t *table) key() *key {
	if len(t.keys) == 0 {
		return nil
	}
	return t.keys[0]
}

// verify reports whether a holder of one of the keys made the claim.
func (ring keyring) verify(c *Claim, m mark, p *proof) bool {
	for _, k := range ring {
		code := k.code(c.Addr, c.MAC, m, p.nonce)
		if subtle.ConstantTimeCompare(code[:], p.code[:]) == 1 {
			return true
		}
	}
	return false
}

// Worth is what a mark proves. The zero value is that of a claim without one.
type Worth string

const (
	// Proven: signed with our key, with the nonce of a question that was asked just now.
	Proven Worth = "Proven"
	// Recorded: signed with our key, but in answer to nothing that was asked just now. It may be replayed.
	Recorded Worth = "Recorded"
	// Unsigned: of a speaker without a key, or of an earlier version; or there is no key here to look with. Every host can
	// send it.
	Unsigned Worth = "Unsigned"
	// Forged: its code is not made with our key.
	Forged Worth = "Forged"
)

var worths = [...]Worth{Proven, Recorded, Unsigned, Forged}

// seal is what has been found out about a mark.
type seal struct {
	worth Worth
	// asked: the claim answers somebody's question.
	asked bool
}

// judge finds out what the mark of a claim is worth, and puts into the claim what counts.
func (t *table) judge(c *Claim, m mark, signed bool, rest []byte, asked *challenges) seal {
	if !signed || len(t.keys) == 0 {
		c.Marked, c.Unsigned, c.Term, c.Yielding = true, true, m.term, m.yielding
		return seal{worth: Unsigned}
	}
	p, ok := parseProof(rest)
	switch {
	case !ok || !t.keys.verify(c, m, &p):
		return seal{worth: Forged}
	case asked.fresh(c.Addr, p.nonce, time.Now()):
		c.Marked, c.Term, c.Yielding = true, m.term, m.yielding
		return seal{worth: Proven, asked: true}
	}
	c.Recorded = true
	return seal{worth: Recorded, asked: p.nonce != 0}
}
