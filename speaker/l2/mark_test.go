package l2

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var (
	secret, otherSecret = []byte("a secret"), []byte("another secret")
	ours                = newKeyring(secret)
)

// claimed is a claim of a speaker on otherMAC, as an answer or an announcement.
func claimed(addr netip.Addr, m mark, k *key, nonce uint64) []byte {
	a := newAssertion(addr, otherMAC, m, k, nonce)
	frames := announcement(otherMAC, addr, &a)
	return frames[len(frames)-1]
}

func TestKeyIsHMAC(t *testing.T) {
	derived := sha256.Sum256(append([]byte("herald mark 2\x00"), secret...))
	message := [signedLen]byte{1, 2, 3}
	h := hmac.New(sha256.New, derived[:])
	h.Write(message[:])
	if got := ours[0].hmac(&message); !hmac.Equal(got[:], h.Sum(nil)) {
		t.Errorf("got %x, want %x", got, h.Sum(nil))
	}
}

// What is behind a mark decides what it is worth.
func TestWorth(t *testing.T) {
	m := mark{term: 41, yielding: true}
	for _, addr := range []netip.Addr{v4, v6} {
		asked := &challenges{}
		first := asked.next(addr, time.Now())
		last := asked.next(addr, time.Now())
		signed := claimed(addr, m, ours[0], last)
		// The same positions are changed in both protocols: counted from the end of the frame.
		fromEnd := func(i int) func([]byte) {
			return func(frame []byte) {
				frame[len(frame)-i] ^= 1
				if addr.Is6() {
					sum(frame)
				}
			}
		}
		body := map[bool]int{true: 22, false: 80}[addr.Is4()] // the MAC of the sender
		tests := []struct {
			name  string
			frame []byte
			keys  keyring
			want  Worth
		}{
			{"an answer", signed, ours, Proven},
			{"an answer to the question before", claimed(addr, m, ours[0], first), ours, Proven},
			{"an answer by the key before a change", signed, newKeyring(otherSecret, secret), Proven},
			{"an announcement", claimed(addr, m, ours[0], 0), ours, Recorded},
			{"an answer to another question", claimed(addr, m, ours[0], last^1), ours, Recorded},
			{"another key", claimed(addr, m, newKey(otherSecret), last), ours, Forged},
			{"a nonce changed", edit(slices.Clone(signed), fromEnd(codeLen+1)), ours, Forged},
			{"a code changed", edit(slices.Clone(signed), fromEnd(1)), ours, Forged},
			{"no mark's version", claimed(addr, m, nil, 0), ours, Unsigned},
			{"without a key to look with", signed, nil, Unsigned},
			{"another key without a key to look with", claimed(addr, m, newKey(otherSecret), last), newKeyring(nil, secret), Unsigned},
			{"the sender changed", edit(slices.Clone(signed), set(body, 0), func(frame []byte) {
				if addr.Is6() {
					sum(frame)
				}
			}), ours, Forged},
		}
		for _, tt := range tests {
			table := table{keys: tt.keys}
			c, how := table.claim(tt.frame, asked)
			if how.worth != tt.want {
				t.Errorf("%s, %s: got %q, want %q", addr, tt.name, how.worth, tt.want)
			}
			counts := tt.want == Proven || tt.want == Unsigned
			if c.Marked != counts || c.Unsigned != (tt.want == Unsigned) || c.Recorded != (tt.want == Recorded) || c.Yielding != counts {
				t.Errorf("%s, %s: %+v", addr, tt.name, c)
			}
		}
		asked.forget(addr)
		if _, how := (&table{keys: ours}).claim(signed, asked); how.worth != Recorded {
			t.Errorf("%s: an answer to a question that is void is %s", addr, how.worth)
		}
	}
	// Another address, another flag, another term.
	asked := &challenges{}
	nonce := asked.next(v4other, time.Now())
	for name, frame := range map[string][]byte{
		"address": edit(claimed(v4, m, ours[0], nonce), set(28, v4other.AsSlice()...)),
		"flag":    edit(claimed(v4other, m, ours[0], nonce), set(arpLen+5, markSigned)),
		"term":    edit(claimed(v4other, m, ours[0], nonce), set(arpLen+6, 0xff)),
		"cut off": claimed(v4other, m, ours[0], nonce)[:minFrameLen+proofLen-1],
	} {
		if _, how := (&table{keys: ours}).claim(frame, asked); how.worth != Forged {
			t.Errorf("another %s: %s", name, how.worth)
		}
	}
}

// Speakers of the version before read the mark as before: at the end of 60 bytes, or as an option of 16.
func TestSignedMarkIsReadByTheVersionBefore(t *testing.T) {
	frame := claimed(v4, mark{41, true}, ours[0], 7)
	if len(frame) != minFrameLen+proofLen || describeMark(frame[arpLen:minFrameLen-4], "") == "" && !bytes.Equal(frame[56:60], otherMAC[2:]) {
		t.Errorf("%x", frame)
	}
	if m, _, ok := parseMark(frame[arpLen:]); !ok || m != (mark{41, true}) {
		t.Errorf("got %v", m)
	}
	na := claimed(v6, mark{41, true}, ours[0], 7)
	value, ok := option(na[icmpOffset+ndpMinLen:], experiment, 2)
	if m, _, marked := parseMark(value); !ok || !marked || m != (mark{41, true}) {
		t.Errorf("got %v", m)
	}
	if !strings.Contains(describe(na), "target 2001:db8::10 at 02:00:00:00:00:dd") {
		t.Errorf("got %s", describe(na))
	}
}

func TestAnsweringAllocatesNothing(t *testing.T) {
	table := plan(testInterfaces, testDesired, testQuestions, ours, nil)["eth0"].table
	buf := make([]byte, 0, maxReplyLen)
	for _, frame := range [][]byte{request(v4), request(v6), appendQuestion(nil, otherMAC, v4, 7), appendQuestion(nil, otherMAC, v6, 7)} {
		if n := testing.AllocsPerRun(100, func() { _, _, _ = table.handle(frame, buf) }); n != 0 {
			t.Errorf("%v allocations for %s", n, describe(frame))
		}
	}
	asked, c := &challenges{}, claimed(v4, mark{}, ours[0], 7)
	if n := testing.AllocsPerRun(100, func() { table.claim(c, asked) }); n != 0 {
		t.Errorf("%v allocations for a claim", n)
	}
}

// What is signed already is not signed again, and a new key signs all anew.
func TestSignedOnce(t *testing.T) {
	p := &port{Interface: testInterfaces[0], table: plan(testInterfaces, testDesired, nil, ours, nil)["eth0"].table}
	before := map[string]*port{"eth0": p}
	if again := plan(testInterfaces, testDesired, nil, ours, before)["eth0"].table; again.here[v4] != p.table.here[v4] {
		t.Error("signed again")
	}
	keys := newKeyring(otherSecret, secret)
	if anew := plan(testInterfaces, testDesired, nil, keys, before)["eth0"].table; anew.here[v4].end == p.table.here[v4].end {
		t.Error("the old key's signature is still sent")
	}
}

// A claim that may be replayed is asked about at once, and again only after a while.
func TestRecordedClaimIsChallenged(t *testing.T) {
	for _, addr := range []netip.Addr{v4, v6} {
		var heard []Claim
		inMemory(t, Options{Observe: func(c Claim) { c.Time = time.Time{}; heard = append(heard, c) }}, func(t *testing.T, r *Responder, m *memory) {
			heard = nil
			r.SetKeys(secret, nil)
			mustSet(t, r, testInterfaces, Announcement{Addr: addr, Interface: "eth0", Term: 7})
			time.Sleep(2 * time.Minute)
			m.take()
			for range 10 {
				m.receive("eth0", claimed(addr, mark{term: 9}, ours[0], 0))
				synctest.Wait()
			}
			sent := m.take()
			if len(sent) != 1 || !strings.Contains(sent[0], " 0.0.0.0 ") && !strings.Contains(sent[0], " NS :: ") {
				t.Fatalf("sent %q, want one question", sent)
			}
			// The answer to that very question, and its replay when there is another.
			nonce := r.ports["eth0"].asking.asked[addr].last
			m.receive("eth0", claimed(addr, mark{term: 9}, ours[0], nonce))
			synctest.Wait()
			want := Claim{Addr: addr, Interface: "eth0", MAC: otherMAC, Marked: true, Term: 9}
			if got := heard[len(heard)-1]; got != want || len(heard) != 11 || !heard[0].Recorded || heard[0].Marked {
				t.Errorf("heard %+v", heard)
			}
			for range 3 {
				time.Sleep(time.Second)
				m.receive("eth0", claimed(addr, mark{term: 9}, ours[0], nonce))
				synctest.Wait()
			}
			if got := heard[len(heard)-1]; got.Marked || !got.Recorded {
				t.Errorf("the replay was heard as %+v", got)
			}
		})
	}
}
