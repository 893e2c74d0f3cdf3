package ipam

import "math/bits"

const fullWord = ^uint64(0)

// bitset finds the next clear bit among n in O(log64 n): a bit of level k+1 says that a word of level k is full.
type bitset struct{ levels [][]uint64 }

func newBitset(n uint64) *bitset {
	b := &bitset{}
	for {
		words := (n + 63) / 64
		level := make([]uint64, words)
		if tail := n % 64; tail != 0 {
			level[words-1] = fullWord << tail // what lies behind the end is never clear
		}
		b.levels = append(b.levels, level)
		if words <= 1 {
			return b
		}
		n = words
	}
}

func (b *bitset) set(i uint64) {
	for _, level := range b.levels {
		level[i/64] |= 1 << (i % 64)
		if level[i/64] != fullWord {
			return
		}
		i /= 64
	}
}

func (b *bitset) clear(i uint64) {
	for _, level := range b.levels {
		full := level[i/64] == fullWord
		level[i/64] &^= 1 << (i % 64)
		if !full {
			return
		}
		i /= 64
	}
}

// next is the lowest clear bit at i or above.
func (b *bitset) next(i uint64) (uint64, bool) {
	for k, level := range b.levels {
		word := i / 64
		if word >= uint64(len(level)) {
			return 0, false
		}
		if open := ^level[word] & (fullWord << (i % 64)); open != 0 {
			return b.descend(k, word*64+uint64(bits.TrailingZeros64(open))), true
		}
		i = word + 1
	}
	return 0, false
}

// descend follows a clear bit of level k down to the lowest clear bit below it.
func (b *bitset) descend(k int, i uint64) uint64 {
	for k--; k >= 0; k-- {
		i = i*64 + uint64(bits.TrailingZeros64(^b.levels[k][i]))
	}
	return i
}
