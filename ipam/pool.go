package ipam

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
)

// Pool is what one AddressPool says, parsed.
type Pool struct {
	Name          string
	Ranges        []Range
	Exclude       []Range
	AvoidBuggyIPs bool  // never an IPv4 address that ends in .0 or .255
	StaticBand    Band  // of each range
	AutoAssign    bool  // false: only for Services that ask for the pool or the address
	Internal      bool  // scope: Internal
	Priority      int32 // higher is tried first, then in the order of names

	// MaxPerNamespace limits what the Services of one namespace hold in this pool of one family, 0 is no limit.
	// Each Service counts once for each address that it holds, also for a shared one. Nobody loses an address by it.
	MaxPerNamespace int

	// Serves says whether the selectors take the Service in. Nil serves everyone.
	Serves func(*Request) bool
}

// Band is how many addresses at the low end of a range are kept for Services that ask for one. Automatic allocation
// turns to them when all others are taken. The zero value is AutoBand.
type Band int

const (
	// AutoBand is min(max(16, size/16), 256) addresses, none in a range of less than 16: as Kubernetes does for ClusterIPs.
	AutoBand Band = 0
	// NoBand keeps no addresses.
	NoBand Band = -1
)

// ParseBand reads "Auto", "None" or a number. "" is Auto, and 0 is None.
func ParseBand(s string) (Band, error) {
	switch s {
	case "", "Auto":
		return AutoBand, nil
	case "None", "0":
		return NoBand, nil
	}
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return AutoBand, fmt.Errorf("%q is not a static band: write Auto, None or a number of addresses", s)
	}
	return Band(n), nil
}

func (b Band) of(size uint64) uint64 {
	switch {
	case b > 0:
		return min(uint64(b), size)
	case b < 0 || size < 16:
		return 0
	}
	return min(max(16, size/16), 256)
}

// Problem is something in a pool that is left out. The rest of the pool works.
type Problem struct {
	Reason  Reason
	Message string
}

const (
	Overlap       Reason = "Overlap"       // an older pool has the addresses
	Repeated      Reason = "Repeated"      // the pool has the addresses in another of its ranges
	InvalidRange  Reason = "InvalidRange"  // not a range that ParseRange returns
	DuplicatePool Reason = "DuplicatePool" // an older pool has the name
)

// Usage is how full a pool is.
type Usage struct {
	V4, V6  FamilyUsage
	Outside int // addresses given from this pool that an edit took out of it; they stay until they are released
}

// FamilyUsage counts the addresses of one family, math.MaxInt64 when there are more. An address that several Services
// share counts once. What is neither allocated nor free is reserved, quarantined or used otherwise. What is blocked is
// no part of the capacity.
type FamilyUsage struct{ Capacity, Allocated, Free uint64 }

// pool is a Pool with what is held in it.
type pool struct {
	Pool
	fresh       bool // just built: what is held is still to be counted
	rank        int  // in the order of trying
	layout      []plot
	parts       [len(families)]part
	byNamespace map[tenant]int // for MaxPerNamespace
	outside     int
}

// plot is a stretch of a pool's addresses that are all given alike.
type plot struct {
	Range
	use use
}

type use uint8

const (
	automatic use = iota // given by itself
	band                 // given by itself when nothing else is left
	excluded             // never given: the pool excludes it, or it is blocked
)

// part is what a pool has of one family.
type part struct {
	spaces              [2]space // by use: automatic, band
	allocated, reserved uint64
	quarantined         uint64 // of these, in use by hosts that are none of ours
	used                uint64 // of these, that Allocator.uses has
}

type tenant struct {
	namespace string
	family    int
}

// located is a plot with its place in the spaces, as the Allocator finds it by address.
type located struct {
	plot
	pool *pool
	at   uint64 // position of the first address in its space
}

// position of addr in its space; the space ignores what it did not number.
func (l *located) position(addr netip.Addr) uint64 { return add(l.at, distance(l.First, addr)) }

// gives says whether the pool may give the address at all.
func (l *located) gives(addr netip.Addr) bool {
	return l.use != excluded && !(l.pool.AvoidBuggyIPs && avoided(addr))
}

func newPool(p Pool, layout []plot) *pool {
	return &pool{Pool: p, fresh: true, layout: layout, byNamespace: map[tenant]int{}}
}

// locate numbers the addresses of a fresh pool, and says where the plots of any pool are.
func (p *pool) locate() []located {
	next := map[*space]uint64{}
	places := make([]located, 0, len(p.layout))
	for _, l := range p.layout {
		place := located{plot: l, pool: p, at: math.MaxUint64}
		if l.use != excluded {
			s := &p.parts[index(l.First)].spaces[l.use]
			if p.fresh {
				s.avoid = p.AvoidBuggyIPs && l.First.Is4()
				s.append(l.Range)
			}
			place.at = next[s]
			next[s] = add(place.at, l.Size())
		}
		places = append(places, place)
	}
	if p.fresh {
		for i := range p.parts {
			p.parts[i].spaces[automatic].seal()
			p.parts[i].spaces[band].seal()
		}
	}
	return places
}

// same says whether the addresses are used as before, so that what was counted still holds.
func (p *pool) same(o Pool, layout []plot) bool {
	return p.Name == o.Name && p.AvoidBuggyIPs == o.AvoidBuggyIPs && slices.Equal(p.layout, layout)
}

func (p *part) capacity() uint64 { return add(p.spaces[automatic].capacity, p.spaces[band].capacity) }

func (p *part) usage() FamilyUsage {
	capacity := p.capacity()
	return FamilyUsage{
		Capacity:  min(capacity, math.MaxInt64),
		Allocated: min(p.allocated, math.MaxInt64),
		Free:      min(capacity-p.allocated-p.reserved, math.MaxInt64),
	}
}

func byRank(a, b *pool) int {
	return cmp.Or(cmp.Compare(b.Priority, a.Priority), cmp.Compare(a.Name, b.Name))
}
