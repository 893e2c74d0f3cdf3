package ipam

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The older pool keeps what both have, and the younger works with the rest.
func TestSetPoolsProblems(t *testing.T) {
	old := Pool{Name: "old", Ranges: rs("10.0.0.0/24", "2001:db8::/64"), Exclude: rs("10.0.0.128/25"), StaticBand: NoBand}
	for _, c := range []struct {
		name  string
		young Pool
		want  []Problem
		usage Usage
	}{
		{"apart", Pool{Ranges: rs("10.0.1.0/24")}, nil, Usage{V4: FamilyUsage{256, 0, 256}}},
		{"half", Pool{Ranges: rs("10.0.0.0/23")},
			[]Problem{{Overlap, "10.0.0.0/23 overlaps 10.0.0.0/24 of pool old, which is older and keeps 10.0.0.0/24: take it out of one of the two."}},
			Usage{V4: FamilyUsage{256, 0, 256}}},
		{"what the older excludes", Pool{Ranges: rs("10.0.0.200-10.0.1.9")},
			[]Problem{{Overlap, "10.0.0.200-10.0.1.9 overlaps 10.0.0.0/24 of pool old, which is older and keeps 10.0.0.200-10.0.0.255: take it out of one of the two."}},
			Usage{V4: FamilyUsage{10, 0, 10}}},
		{"all", Pool{Ranges: rs("10.0.0.7", "2001:db8::7/128")},
			[]Problem{
				{Overlap, "10.0.0.7 overlaps 10.0.0.0/24 of pool old, which is older and keeps 10.0.0.7: take it out of one of the two."},
				{Overlap, "2001:db8::7 overlaps 2001:db8::/64 of pool old, which is older and keeps 2001:db8::7: take it out of one of the two."},
			}, Usage{}},
		{"itself", Pool{Ranges: rs("10.1.0.0/24", "10.1.0.0/23")},
			[]Problem{{Repeated, "10.1.0.0/23 repeats addresses of 10.1.0.0/24: they count once."}},
			Usage{V4: FamilyUsage{512, 0, 512}}},
		{"not a range", Pool{Ranges: append(rs("10.1.0.1"), Range{})},
			[]Problem{{InvalidRange, "invalid IP is not a range: write it like 203.0.113.0/24 or 203.0.113.10-203.0.113.50."}},
			Usage{V4: FamilyUsage{1, 0, 1}}},
		{"its name", Pool{Name: "old", Ranges: rs("10.1.0.0/24")},
			[]Problem{{DuplicatePool, "An older pool has the same name: rename one of the two."}},
			Usage{V4: FamilyUsage{128, 0, 128}, V6: FamilyUsage{math.MaxInt64, 0, math.MaxInt64}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.young.Name == "" {
				c.young.Name = "young"
			}
			a := New()
			got := a.SetPools([]Pool{old, c.young})
			if diff := cmp.Diff(c.want, got[c.young.Name]); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.usage, a.Usage(c.young.Name)); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
		})
	}
}

// The static band is measured on the range as it is written, whatever is left of it.
func TestLayout(t *testing.T) {
	var e estate
	e.layout(Pool{Name: "old", Ranges: rs("10.0.0.0/30", "10.0.1.0/24")}, nil)
	plots, _ := e.layout(Pool{Name: "young", Ranges: rs("10.0.0.0/23"), Exclude: rs("10.0.0.8/30", "10.0.0.64-10.0.5.0")}, nil)
	var got []string
	for _, p := range plots {
		got = append(got, [...]string{"automatic ", "band ", "excluded "}[p.use]+p.String())
	}
	want := []string{"band 10.0.0.4/30", "excluded 10.0.0.8/30", "band 10.0.0.12-10.0.0.31", "automatic 10.0.0.32/27", "excluded 10.0.0.64-10.0.0.255"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestUsage(t *testing.T) {
	for _, c := range []struct {
		name  string
		pool  Pool
		given []fact
		want  Usage
	}{
		{"nothing", Pool{}, nil, Usage{}},
		{"exclusions and avoided", Pool{Ranges: rs("10.0.0.0/24"), Exclude: rs("10.0.0.0-10.0.0.9", "10.0.0.5-10.0.0.19"), AvoidBuggyIPs: true}, nil,
			Usage{V4: FamilyUsage{235, 0, 235}}},
		{"more than can be counted, less what is not unicast", Pool{Ranges: rs("::/0", "0.0.0.0/0")}, []fact{holds(web, "::7", Claim{}), holds(web, "1.1.1.1", Claim{})},
			Usage{V4: FamilyUsage{3724476416, 1, 3724476415}, V6: FamilyUsage{math.MaxInt64, 1, math.MaxInt64}}},
		{"shared counts once", Pool{Ranges: rs("10.0.0.0/24")}, []fact{holds(web, "10.0.0.1", Claim{}), holds(api, "10.0.0.1", Claim{})},
			Usage{V4: FamilyUsage{256, 1, 255}}},
		{"reserved is not free", Pool{Ranges: rs("10.0.0.0/24")}, []fact{reserved(web, "10.0.0.1"), reserved(Key{}, "10.0.0.2"), holds(api, "10.0.0.2", Claim{})},
			Usage{V4: FamilyUsage{256, 1, 254}}},
		{"in use by another host is not free", Pool{Ranges: rs("10.0.0.0/24")}, []fact{quarantine("10.0.0.1"), holds(api, "10.0.0.2", Claim{}), quarantine("10.0.0.2")},
			Usage{V4: FamilyUsage{256, 1, 254}}},
		{"held twice is once", Pool{Ranges: rs("10.0.0.0/24")}, []fact{holds(web, "10.0.0.1", Claim{}), holds(web, "10.0.0.1", Claim{Share: "k"})},
			Usage{V4: FamilyUsage{256, 1, 255}}},
		{"outside", Pool{Ranges: rs("10.0.0.0/24"), Exclude: rs("10.0.0.9"), AvoidBuggyIPs: true}, []fact{
			holds(web, "10.0.0.1", Claim{Pool: "p"}), holds(web, "10.0.0.9", Claim{Pool: "p"}), holds(web, "10.0.0.255", Claim{Pool: "p"}),
			holds(web, "10.0.1.1", Claim{Pool: "p"}), holds(web, "10.0.2.1", Claim{Pool: "q"}), reserved(web, "10.0.3.1")},
			Usage{V4: FamilyUsage{253, 1, 252}, Outside: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := New()
			for _, f := range c.given {
				f(a)
			}
			c.pool.Name = "p"
			a.SetPools([]Pool{c.pool})
			if diff := cmp.Diff(c.want, a.Usage("p")); diff != "" {
				t.Errorf("usage (-want +got):\n%s", diff)
			}
		})
	}
}

// A pool whose addresses stay keeps what it counted; only the pools that change are built anew.
func TestSetPoolsKeepsUnchanged(t *testing.T) {
	a := New()
	one, two := Pool{Name: "one", Ranges: rs("10.0.0.0/24")}, Pool{Name: "two", Ranges: rs("10.0.1.0/24")}
	a.SetPools([]Pool{one, two})
	holds(web, "10.0.0.1", Claim{Pool: "one"})(a)
	before := [...]*pool{a.pools["one"], a.pools["two"]}

	one.Priority, one.AutoAssign, two.Exclude = 7, true, rs("10.0.1.1")
	a.SetPools([]Pool{one, two})
	if a.pools["one"] != before[0] || a.pools["two"] == before[1] {
		t.Error("built anew: one, or not: two")
	}
	if got, err := a.Assign(&Request{Key: api, Families: v4}); err != nil || got.Addresses[0].Pool != "one" {
		t.Errorf("the unchanged pool does not follow its new options: %s", outcome(got, err))
	}
}

func TestPoolOf(t *testing.T) {
	a := New()
	a.SetPools([]Pool{{Name: "p", Ranges: rs("10.0.0.0/24"), Exclude: rs("10.0.0.9")}})
	holds(web, "10.9.9.9", Claim{Pool: "gone"})(a)
	for addr, want := range map[string]string{"10.0.0.1": "p", "10.0.0.9": "p", "10.9.9.9": "gone", "10.9.9.8": "", "::a00:1": ""} {
		got, ok := a.PoolOf(addrs(addr)[0])
		if got != want || ok != (want != "") {
			t.Errorf("pool of %s is %q, %t, want %q", addr, got, ok, want)
		}
	}
}

func TestParseBand(t *testing.T) {
	for in, want := range map[string]Band{"": AutoBand, "Auto": AutoBand, "None": NoBand, "0": NoBand, "32": 32} {
		if got, err := ParseBand(in); err != nil || got != want {
			t.Errorf("%q is %d, %v, want %d", in, got, err, want)
		}
	}
	for _, in := range []string{"-1", "auto", "99999999999"} {
		if got, err := ParseBand(in); err == nil {
			t.Errorf("%q is %d, want an error", in, got)
		}
	}
}
