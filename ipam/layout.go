package ipam

import (
	"fmt"
	"slices"
)

// estate is who has which addresses, sorted and disjoint. Who comes first keeps them.
type estate []owned

// owned is a stretch of addresses and the range that a pool wrote to have them.
type owned struct {
	Range
	pool    string
	written Range
}

// layout gives the pool what is left of its ranges, split by use, and says what is not left.
func (e *estate) layout(p Pool, blocks []Block) ([]plot, []Problem) {
	var plots []plot
	var problems []Problem
	holes := slices.DeleteFunc(slices.Clone(p.Exclude), func(r Range) bool { return !r.valid() })
	for i := range blocks {
		holes = append(holes, blocks[i].Range)
	}
	holes = union(holes)
	for _, written := range p.Ranges {
		if !written.valid() {
			problems = append(problems, Problem{InvalidRange, fmt.Sprintf("%s is not a range: write it like 203.0.113.0/24 or 203.0.113.10-203.0.113.50.", written)})
			continue
		}
		kept, lost := e.take(p.Name, written)
		problems = append(problems, overlaps(p.Name, written, lost)...)
		problems = append(problems, blocked(written, blocks)...)
		for _, r := range kept {
			plots = split(plots, r, written, p.StaticBand, holes)
		}
	}
	slices.SortFunc(plots, func(a, b plot) int { return byFirst(a.Range, b.Range) })
	return plots, problems
}

// take gives the pool what nobody has of the range.
func (e *estate) take(pool string, written Range) (kept []Range, lost []owned) {
	lost = slices.Clone(overlapping(*e, written))
	kept = without(written, lost)
	for _, r := range kept {
		at, _ := slices.BinarySearchFunc(*e, r, func(o owned, r Range) int { return byFirst(o.Range, r) })
		*e = slices.Insert(*e, at, owned{r, pool, written})
	}
	return kept, lost
}

// split cuts r, a part of a written range, by use.
func split(plots []plot, r, written Range, b Band, holes []Range) []plot {
	for _, hole := range overlapping(holes, r) {
		plots = append(plots, plot{r.meet(hole), excluded})
	}
	for _, open := range without(r, holes) {
		n := b.of(written.Size())
		if n == 0 {
			plots = append(plots, plot{open, automatic})
			continue
		}
		static := Range{written.First, after(written.First, n-1)}
		if open.Overlaps(static) {
			plots = append(plots, plot{open.meet(static), band})
		}
		for _, above := range without(open, []Range{static}) {
			plots = append(plots, plot{above, automatic})
		}
	}
	return plots
}

// overlaps tells the pool what it lost of a range, once for each range that has it.
func overlaps(pool string, written Range, lost []owned) []Problem {
	var problems []Problem
	told := map[owned]bool{}
	for _, o := range lost {
		o.Range = o.written
		if told[o] {
			continue
		}
		told[o] = true
		if o.pool == pool {
			problems = append(problems, Problem{Repeated, fmt.Sprintf("%s repeats addresses of %s: they count once.", written, o.written)})
			continue
		}
		problems = append(problems, Problem{Overlap, fmt.Sprintf("%s overlaps %s of pool %s, which is older and keeps %s: take it out of one of the two.",
			written, o.written, o.pool, written.meet(o.written))})
	}
	return problems
}
