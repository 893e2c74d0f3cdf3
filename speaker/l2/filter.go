package l2

import (
	"container/heap"
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"

	"golang.org/x/net/bpf"
)

// maxPrefixes bounds the length of a filter, which the kernel runs on every ARP frame or IPv6 packet of the interface. It
// also keeps two filters, the old and the new one, within the 20 KiB that older kernels give a socket (optmem_max).
const maxPrefixes = 64

// filter compiles the program that lets through what concerns addrs: requests for them, and claims to them. It may let
// through more, as far as the covering prefixes reach, never less. Without addresses it lets nothing through.
func filter(p protocol, addrs []netip.Addr) []bpf.Instruction {
	prefixes := cover(addrs, maxPrefixes)
	if len(prefixes) == 0 {
		return []bpf.Instruction{drop}
	}
	if p == arp {
		return arpFilter(prefixes)
	}
	return ndpFilter(prefixes)
}

var (
	drop   = bpf.RetConstant{Val: 0}
	accept = bpf.RetConstant{Val: math.MaxUint16}
)

func arpFilter(prefixes []netip.Prefix) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 20, Size: 2}, // operation
		bpf.JumpIf{Cond: bpf.JumpLessOrEqual, Val: arpReply, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: 28, Size: 4}, // sender: a claim
	}
	program = append(program, matchIPv4(prefixes)...)
	program = append(program,
		bpf.LoadAbsolute{Off: 20, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arpRequest, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: 38, Size: 4}, // target
	)
	program = append(program, matchIPv4(prefixes)...)
	return append(program, drop)
}

// matchIPv4 accepts when the accumulator is in one of the prefixes, and goes on behind itself when not.
func matchIPv4(prefixes []netip.Prefix) []bpf.Instruction {
	var program []bpf.Instruction
	for i, p := range prefixes {
		first, last := word(p.Addr().AsSlice(), 0), word(p.Addr().AsSlice(), 0)|^mask(p.Bits())
		program = append(program,
			// The prefixes are sorted: below the first of one, there is none to come.
			bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: first, SkipTrue: 1},
			bpf.Jump{Skip: uint32(4*(len(prefixes)-i) - 2)},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: last, SkipTrue: 1},
			accept)
	}
	return program
}

func ndpFilter(prefixes []netip.Prefix) []bpf.Instruction {
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 20, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: icmpv6, SkipTrue: 1},
		drop,
		bpf.LoadAbsolute{Off: icmpOffset, Size: 1}, // type
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: nsType, SkipTrue: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: naType, SkipTrue: 1},
		drop,
	}
	// The target's words are kept in scratch memory, from where loading is one instruction of the kernel's, not eight.
	for i := range 4 {
		program = append(program,
			bpf.LoadAbsolute{Off: uint32(icmpOffset + 8 + 4*i), Size: 4},
			bpf.StoreScratch{Src: bpf.RegA, N: i})
	}
	for _, p := range prefixes {
		program = append(program, matchIPv6(p)...)
	}
	return append(program, drop)
}

// matchIPv6 accepts when the target in scratch memory is in the prefix, and goes on behind itself when not.
func matchIPv6(p netip.Prefix) []bpf.Instruction {
	var program []bpf.Instruction
	for i := 0; 32*i < p.Bits(); i++ {
		program = append(program, bpf.LoadScratch{Dst: bpf.RegA, N: i})
		if rest := p.Bits() - 32*i; rest < 32 {
			program = append(program, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask(rest)})
		}
		program = append(program, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(p.Addr().AsSlice(), i)})
	}
	program = append(program, accept)
	for i, instruction := range program {
		if jump, ok := instruction.(bpf.JumpIf); ok {
			jump.SkipTrue = uint8(len(program) - i - 1)
			program[i] = jump
		}
	}
	return program
}

func word(b []byte, i int) uint32 {
	return uint32(b[4*i])<<24 | uint32(b[4*i+1])<<16 | uint32(b[4*i+2])<<8 | uint32(b[4*i+3])
}

func mask(bits int) uint32 { return ^uint32(math.MaxUint32 >> bits) }

// cover returns at most limit disjoint prefixes, sorted, that hold all of addrs, which are sorted, without duplicates and
// of one family. Starting from the prefixes that are full of addresses, it joins, again and again, the two neighbours whose
// common prefix takes in the fewest other addresses.
func cover(addrs []netip.Addr, limit int) []netip.Prefix {
	full := aggregate(addrs)
	if len(full) <= limit {
		return full
	}
	c := covering{nodes: make([]node, 0, 2*len(full)), joins: make([]join, 0, 2*len(full))}
	for i, p := range full {
		c.nodes = append(c.nodes, node{Prefix: p, previous: i - 1, next: i + 1})
	}
	c.nodes[len(full)-1].next = -1
	for i := range len(full) - 1 {
		c.joins = append(c.joins, c.join(i, i+1))
	}
	heap.Init(&c)

	for left := len(full); c.Len() > 0; {
		cheapest := heap.Pop(&c).(join)
		if c.nodes[cheapest.a].gone || c.nodes[cheapest.b].gone {
			continue
		}
		if left <= limit && cheapest.waste > 0 {
			break
		}
		c.apply(cheapest)
		left--
	}

	var prefixes []netip.Prefix
	for i, n := range c.nodes {
		if !n.gone && n.previous == -1 {
			for ; i != -1; i = c.nodes[i].next {
				prefixes = append(prefixes, c.nodes[i].Prefix)
			}
			break
		}
	}
	return prefixes
}

// aggregate returns the fewest prefixes that hold addrs and nothing else: two halves become a whole, as long as there are.
func aggregate(addrs []netip.Addr) []netip.Prefix {
	var full []netip.Prefix
	for _, a := range addrs {
		full = append(full, netip.PrefixFrom(a, a.BitLen()))
		for n := len(full); n > 1 && full[n-1].Bits() == full[n-2].Bits(); n = len(full) {
			whole := common(full[n-2].Addr(), full[n-1].Addr())
			if whole.Bits() != full[n-1].Bits()-1 {
				break
			}
			full = append(full[:n-2], whole)
		}
	}
	return full
}

// covering is a sorted, linked list of prefixes, and a heap of the joins of neighbours.
type covering struct {
	nodes []node
	joins []join
}

type node struct {
	netip.Prefix
	previous, next int
	gone           bool // into a join
}

type join struct {
	a, b  int
	into  netip.Prefix
	waste float64 // addresses in the joint prefix and in neither of the two
}

func (c *covering) join(a, b int) join {
	p, q := c.nodes[a].Prefix, c.nodes[b].Prefix
	into := common(p.Addr(), q.Addr())
	return join{a: a, b: b, into: into, waste: size(into) - size(p) - size(q)}
}

func (c *covering) apply(j join) {
	a, b := &c.nodes[j.a], &c.nodes[j.b]
	a.gone, b.gone = true, true
	joint, id := node{Prefix: j.into, previous: a.previous, next: b.next}, len(c.nodes)
	c.nodes = append(c.nodes, joint)
	if joint.previous != -1 {
		c.nodes[joint.previous].next = id
		heap.Push(c, c.join(joint.previous, id))
	}
	if joint.next != -1 {
		c.nodes[joint.next].previous = id
		heap.Push(c, c.join(id, joint.next))
	}
}

func (c *covering) Len() int      { return len(c.joins) }
func (c *covering) Swap(i, j int) { c.joins[i], c.joins[j] = c.joins[j], c.joins[i] }
func (c *covering) Push(x any)    { c.joins = append(c.joins, x.(join)) }

func (c *covering) Pop() any {
	last := c.joins[len(c.joins)-1]
	c.joins = c.joins[:len(c.joins)-1]
	return last
}

// Less prefers the longer prefix where floating point cannot tell two wastes apart. Joining in this order, a prefix never
// takes in a neighbour of the two: one of them and that neighbour would have had less waste.
func (c *covering) Less(i, j int) bool {
	a, b := c.joins[i], c.joins[j]
	if a.waste != b.waste {
		return a.waste < b.waste
	}
	return a.into.Bits() > b.into.Bits()
}

func size(p netip.Prefix) float64 { return math.Ldexp(1, p.Addr().BitLen()-p.Bits()) }

// common returns the longest prefix that holds both. The first address of a prefix stands for all of it, since prefixes
// that are disjoint differ within the bits of both.
func common(a, b netip.Addr) netip.Prefix {
	x, y := a.As16(), b.As16() // an IPv4 address is the last 4 bytes, after 12 bytes that are the same
	length := bits.LeadingZeros64(binary.BigEndian.Uint64(x[:8]) ^ binary.BigEndian.Uint64(y[:8]))
	if length == 64 {
		length += bits.LeadingZeros64(binary.BigEndian.Uint64(x[8:]) ^ binary.BigEndian.Uint64(y[8:]))
	}
	p, _ := a.Prefix(length - (128 - a.BitLen()))
	return p
}
