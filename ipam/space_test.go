package ipam

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// Whatever is set, next is what stepping one by one would find.
func TestBitsetNext(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, n := range []uint64{1, 63, 64, 65, 4096, 4097, 300000} {
		b, model := newBitset(n), make([]bool, n)
		for range 300 {
			i, run := rnd.Uint64N(n), rnd.Uint64N(min(n, 9000))
			set := rnd.IntN(3) > 0
			for j := i; j < min(n, i+run); j++ {
				if model[j] = set; set {
					b.set(j)
				} else {
					b.clear(j)
				}
			}
			from := rnd.Uint64N(n)
			want := from
			for want < n && model[want] {
				want++
			}
			got, ok := b.next(from)
			if ok != (want < n) || ok && got != want {
				t.Fatalf("n=%d: next(%d) is %d, %t, want %d", n, from, got, ok, want)
			}
		}
	}
}

// A space walks through its addresses in turn, jumps over holes and what is avoided, and goes round.
func TestSpaceNext(t *testing.T) {
	for _, c := range []struct {
		name  string
		space space
		from  uint64
		want  []string
	}{
		{"in turn", numbered(false, "10.0.0.1-10.0.0.2", "10.0.0.9"), 0, []string{"10.0.0.1", "10.0.0.2", "10.0.0.9", ""}},
		{"round", numbered(false, "10.0.0.1-10.0.0.2", "10.0.0.9"), 5, []string{"10.0.0.9", "10.0.0.1", "10.0.0.2", ""}},
		{"avoided", numbered(true, "10.0.0.254-10.0.1.2"), 1, []string{"10.0.1.1", "10.0.1.2", "10.0.0.254", ""}},
		{"avoided in a big one", numbered(true, "10.0.0.254-10.0.1.1", "20.0.0.0-23.255.255.255"), 1, []string{"10.0.1.1", "20.0.0.1"}},
		{"a /64", numbered(false, "2001:db8::/64"), 1<<63 + 1, []string{"2001:db8::8000:0:0:1", "2001:db8::8000:0:0:2"}},
		{"all there is", numbered(false, "::/0"), 7, []string{"::7", "::8"}},
		{"all there is of IPv4", numbered(true, "0.0.0.0/0"), 1<<32 - 1, []string{"0.0.0.1", "0.0.0.2"}},
		{"nothing", numbered(false), 7, []string{""}},
	} {
		t.Run(c.name, func(t *testing.T) {
			taken := map[netip.Addr]bool{}
			for _, want := range c.want {
				addr, ok := c.space.next(c.from, func(addr netip.Addr) bool { return taken[addr] })
				if got := text(addr); got != want {
					t.Fatalf("next is %q, want %q", got, want)
				}
				if ok {
					taken[addr] = true
					c.space.mark(positionOf(&c.space, addr), true)
				}
			}
		})
	}
}

func numbered(avoid bool, ranges ...string) space {
	s := space{avoid: avoid}
	for _, r := range rs(ranges...) {
		s.append(r)
	}
	s.seal()
	return s
}

func positionOf(s *space, addr netip.Addr) uint64 {
	for _, p := range s.pieces {
		if p.Contains(addr) {
			return p.at + distance(p.First, addr)
		}
	}
	return s.size
}

func text(addr netip.Addr) string {
	if !addr.IsValid() {
		return ""
	}
	return addr.String()
}
