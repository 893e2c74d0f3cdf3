package ipam

import (
	"math"
	"net/netip"
	"slices"
)

// denseLimit is the largest space with a bit for each address: 2 MiB.
const denseLimit = 1 << 24

// space numbers the addresses that a pool may give of one family, without the holes that other pools and exclusions
// leave, so that the search for a free one jumps over them. What lies behind position 2^64-2 is not numbered: it can
// be asked for, but is never given by itself.
type space struct {
	pieces   []piece
	size     uint64  // positions
	capacity uint64  // positions that may be given: size less the avoided
	taken    uint64  // positions held or reserved
	avoid    bool    // never .0 and .255; of IPv4 only
	bits     *bitset // nil when the space is too big: then the caller is asked about each address
}

// piece is a range of a space and the position of its first address.
type piece struct {
	Range
	at uint64
}

// append numbers the range.
func (s *space) append(r Range) {
	n := min(r.Size(), math.MaxUint64-s.size)
	if n == 0 {
		return
	}
	numbered := Range{r.First, after(r.First, n-1)}
	s.pieces = append(s.pieces, piece{numbered, s.size})
	s.size += n
	s.capacity += n
	if s.avoid {
		s.capacity -= countAvoided(numbered)
	}
}

// seal ends the numbering.
func (s *space) seal() {
	if s.size == 0 || s.size > denseLimit {
		return
	}
	s.bits = newBitset(s.size)
	if !s.avoid {
		return
	}
	for _, p := range s.pieces {
		for i, n := uint64(0), p.Size(); i < n; {
			last := after(p.First, i).As4()[3]
			if last == 0 || last == 255 {
				s.bits.set(p.at + i)
			}
			i += max(1, uint64(255-last))
		}
	}
}

// mark records that the address at a position is taken, or free again.
func (s *space) mark(at uint64, taken bool) {
	if at >= s.size {
		return
	}
	if taken {
		s.taken++
	} else {
		s.taken--
	}
	if s.bits == nil {
		return
	}
	if taken {
		s.bits.set(at)
	} else {
		s.bits.clear(at)
	}
}

// next is the first free address from where the hash points, going round.
func (s *space) next(hash uint64, taken func(netip.Addr) bool) (netip.Addr, bool) {
	if s.taken >= s.capacity {
		return netip.Addr{}, false
	}
	start := hash % s.size
	if s.bits == nil {
		return s.probe(start, taken), true
	}
	at, ok := s.bits.next(start)
	if !ok {
		at, _ = s.bits.next(0)
	}
	return s.addr(at), true
}

// probe tries one address after the other. More than 2^24 of them are there, so a neighbour is hardly ever taken.
func (s *space) probe(at uint64, taken func(netip.Addr) bool) netip.Addr {
	for {
		addr := s.addr(at)
		if !(s.avoid && avoided(addr)) && !taken(addr) {
			return addr
		}
		at = (at + 1) % s.size
	}
}

func (s *space) addr(at uint64) netip.Addr {
	i, found := slices.BinarySearchFunc(s.pieces, at, func(p piece, at uint64) int {
		if p.at < at {
			return -1
		}
		return int(min(1, p.at-at))
	})
	if !found {
		i--
	}
	return after(s.pieces[i].First, at-s.pieces[i].at)
}
