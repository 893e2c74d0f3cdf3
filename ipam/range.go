package ipam

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
)

// Range is the addresses from First to Last, both included, of one family.
type Range struct{ First, Last netip.Addr }

// ParseRange reads a CIDR ("203.0.113.0/24"), a range ("203.0.113.10-203.0.113.50") or a single address.
// The error says what is wrong and how to write it right.
func ParseRange(s string) (Range, error) {
	text := strings.TrimSpace(s)
	if first, last, ok := strings.Cut(text, "-"); ok {
		return parseFromTo(strings.TrimSpace(first), strings.TrimSpace(last))
	}
	if strings.Contains(text, "/") {
		return parseCIDR(text)
	}
	addr, err := parseAddr(text)
	if err != nil {
		return Range{}, err
	}
	return Range{addr, addr}, nil
}

func parseFromTo(from, to string) (Range, error) {
	first, err := parseAddr(from)
	if err != nil {
		return Range{}, err
	}
	last, err := parseAddr(to)
	if err != nil {
		return Range{}, err
	}
	if first.Is4() != last.Is4() {
		return Range{}, fmt.Errorf("the range %s-%s mixes IPv4 and IPv6: write one range for each family", first, last)
	}
	if last.Less(first) {
		return Range{}, fmt.Errorf("the range %s-%s ends before it starts: write %s-%s", first, last, last, first)
	}
	return Range{first, last}, nil
}

func parseCIDR(s string) (Range, error) {
	if _, zone, ok := strings.Cut(s, "%"); ok {
		return Range{}, fmt.Errorf("%q has a zone: write the network without %q", s, "%"+zone)
	}
	prefix, err := netip.ParsePrefix(s)
	if err != nil {
		return Range{}, fmt.Errorf("%q is not a network: write it like 203.0.113.0/24 or 2001:db8::/64", s)
	}
	if addr := prefix.Addr(); addr.Is4In6() {
		if prefix.Bits() < 96 {
			return Range{}, fmt.Errorf("%q is an IPv4 address in an IPv6 network: write one or the other", s)
		}
		return Range{}, fmt.Errorf("%q is IPv4 written as IPv6: write %s", s, netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96).Masked())
	}
	if prefix != prefix.Masked() {
		return Range{}, fmt.Errorf("%s is an address inside a network: write %s for the network or %s for the address",
			s, prefix.Masked(), prefix.Addr())
	}
	return Range{prefix.Addr(), lastOf(prefix)}, nil
}

func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%q is not an address: write it like 203.0.113.10 or 2001:db8::10", s)
	}
	if addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q has a zone: write %s", s, addr.WithZone(""))
	}
	if addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is IPv4 written as IPv6: write %s", s, addr.Unmap())
	}
	return addr, nil
}

// String writes the range as ParseRange reads it, the shortest way: an address, a CIDR, or first-last.
func (r Range) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	if prefix, ok := r.prefix(); ok {
		return prefix.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// Contains says whether addr lies in the range.
func (r Range) Contains(addr netip.Addr) bool {
	return r.First.Compare(addr) <= 0 && addr.Compare(r.Last) <= 0
}

// Overlaps says whether the two ranges have an address in common.
func (r Range) Overlaps(o Range) bool {
	return r.First.Compare(o.Last) <= 0 && o.First.Compare(r.Last) <= 0
}

// Size is the number of addresses, math.MaxUint64 when there are more.
func (r Range) Size() uint64 { return add(distance(r.First, r.Last), 1) }

// valid says whether this is a range that ParseRange could have returned.
func (r Range) valid() bool {
	return plain(r.First) && plain(r.Last) && r.First.Is4() == r.Last.Is4() && !r.Last.Less(r.First)
}

func (r Range) prefix() (netip.Prefix, bool) {
	firstHi, firstLo := halves(r.First)
	lastHi, lastLo := halves(r.Last)
	host := bits.Len64(firstLo ^ lastLo)
	if firstHi != lastHi {
		host = 64 + bits.Len64(firstHi^lastHi)
	}
	prefix := netip.PrefixFrom(r.First, r.First.BitLen()-host)
	return prefix, prefix.Masked() == prefix && lastOf(prefix) == r.Last
}

// meet is the part that two overlapping ranges have in common.
func (r Range) meet(o Range) Range {
	if r.First.Less(o.First) {
		r.First = o.First
	}
	if o.Last.Less(r.Last) {
		r.Last = o.Last
	}
	return r
}

// bounded is a Range, or something that has one.
type bounded interface{ bounds() Range }

func (r Range) bounds() Range { return r }

// overlapping is the part of a sorted list of disjoint ranges that overlaps r.
func overlapping[T bounded](sorted []T, r Range) []T {
	from, _ := slices.BinarySearchFunc(sorted, r.First, func(s T, addr netip.Addr) int { return s.bounds().Last.Compare(addr) })
	to := from
	for to < len(sorted) && sorted[to].bounds().First.Compare(r.Last) <= 0 {
		to++
	}
	return sorted[from:to]
}

// without cuts the holes, which are sorted and disjoint, out of r.
func without[T bounded](r Range, holes []T) []Range {
	var left []Range
	for _, h := range overlapping(holes, r) {
		hole := h.bounds()
		if r.First.Less(hole.First) {
			left = append(left, Range{r.First, hole.First.Prev()})
		}
		if !hole.Last.Less(r.Last) {
			return left
		}
		r.First = hole.Last.Next()
	}
	return append(left, r)
}

// union sorts the ranges and joins those that overlap.
func union(ranges []Range) []Range {
	sorted := slices.SortedFunc(slices.Values(ranges), byFirst)
	joined := sorted[:0]
	for _, r := range sorted {
		if n := len(joined); n > 0 && joined[n-1].Overlaps(r) {
			if joined[n-1].Last.Less(r.Last) {
				joined[n-1].Last = r.Last
			}
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

func byFirst(a, b Range) int { return a.First.Compare(b.First) }

// plain says whether addr is written the one way in which it is looked up: no zone, no IPv4 inside IPv6.
func plain(addr netip.Addr) bool { return addr.IsValid() && addr.Zone() == "" && !addr.Is4In6() }

// avoided says whether addr ends in .0 or .255, which some old stacks take for a network's own.
func avoided(addr netip.Addr) bool {
	if !addr.Is4() {
		return false
	}
	last := addr.As4()[3]
	return last == 0 || last == 255
}

// countAvoided is how many addresses of the range avoided says yes to.
func countAvoided(r Range) uint64 {
	if !r.First.Is4() {
		return 0
	}
	below := func(n uint64) uint64 { return n/256 + (n+255)/256 }
	_, first := halves(r.First)
	_, last := halves(r.Last)
	return below(last+1) - below(first)
}

// halves is the address as a 128-bit number; an IPv4 address fills the low 32 bits.
func halves(addr netip.Addr) (hi, lo uint64) {
	if addr.Is4() {
		b := addr.As4()
		return 0, uint64(binary.BigEndian.Uint32(b[:]))
	}
	b := addr.As16()
	return binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
}

// distance is last-first, math.MaxUint64 when it does not fit.
func distance(first, last netip.Addr) uint64 {
	firstHi, firstLo := halves(first)
	lastHi, lastLo := halves(last)
	lo, borrow := bits.Sub64(lastLo, firstLo, 0)
	if hi, _ := bits.Sub64(lastHi, firstHi, borrow); hi != 0 {
		return math.MaxUint64
	}
	return lo
}

// after is the address n after addr, which must exist.
func after(addr netip.Addr, n uint64) netip.Addr {
	hi, lo := halves(addr)
	lo, carry := bits.Add64(lo, n, 0)
	if addr.Is4() {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(lo))))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi+carry)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b)
}

func lastOf(prefix netip.Prefix) netip.Addr {
	if prefix.Addr().Is4() {
		b := prefix.Addr().As4()
		fillHostBits(b[:], prefix.Bits())
		return netip.AddrFrom4(b)
	}
	b := prefix.Addr().As16()
	fillHostBits(b[:], prefix.Bits())
	return netip.AddrFrom16(b)
}

func fillHostBits(b []byte, bits int) {
	for i := range b {
		b[i] |= byte(0xff >> min(8, max(0, bits-8*i)))
	}
}

// add saturates.
func add(a, b uint64) uint64 {
	sum, carry := bits.Add64(a, b, 0)
	if carry != 0 {
		return math.MaxUint64
	}
	return sum
}
