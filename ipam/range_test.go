package ipam

import (
	"math"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseRange(t *testing.T) {
	for _, c := range []struct{ in, want, wantErr string }{
		{in: "203.0.113.0/24", want: "203.0.113.0/24"},
		{in: " 203.0.113.10 - 203.0.113.50 ", want: "203.0.113.10-203.0.113.50"},
		{in: "203.0.113.0-203.0.113.255", want: "203.0.113.0/24"},
		{in: "203.0.113.7", want: "203.0.113.7"},
		{in: "203.0.113.7/32", want: "203.0.113.7"},
		{in: "0.0.0.0/0", want: "0.0.0.0/0"},
		{in: "2001:db8::/64", want: "2001:db8::/64"},
		{in: "::/0", want: "::/0"},
		{in: "2001:db8::1-2001:db8::1:0", want: "2001:db8::1-2001:db8::1:0"},
		{in: "203.0.113.9/24", wantErr: "203.0.113.9/24 is an address inside a network: write 203.0.113.0/24 for the network or 203.0.113.9 for the address"},
		{in: "203.0.113.9-203.0.113.3", wantErr: "the range 203.0.113.9-203.0.113.3 ends before it starts: write 203.0.113.3-203.0.113.9"},
		{in: "203.0.113.9-2001:db8::1", wantErr: "the range 203.0.113.9-2001:db8::1 mixes IPv4 and IPv6: write one range for each family"},
		{in: "203.0.113.9-12", wantErr: `"12" is not an address: write it like 203.0.113.10 or 2001:db8::10`},
		{in: "", wantErr: `"" is not an address: write it like 203.0.113.10 or 2001:db8::10`},
		{in: "203.0.113.0/33", wantErr: `"203.0.113.0/33" is not a network: write it like 203.0.113.0/24 or 2001:db8::/64`},
		{in: "fe80::1%eth0", wantErr: `"fe80::1%eth0" has a zone: write fe80::1`},
		{in: "fe80::%eth0/64", wantErr: `"fe80::%eth0/64" has a zone: write the network without "%eth0/64"`},
		{in: "::ffff:203.0.113.9", wantErr: `"::ffff:203.0.113.9" is IPv4 written as IPv6: write 203.0.113.9`},
		{in: "::ffff:203.0.113.9/120", wantErr: `"::ffff:203.0.113.9/120" is IPv4 written as IPv6: write 203.0.113.0/24`},
		{in: "::ffff:0:0/90", wantErr: `"::ffff:0:0/90" is an IPv4 address in an IPv6 network: write one or the other`},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := ParseRange(c.in)
			if err != nil {
				if diff := cmp.Diff(c.wantErr, err.Error()); diff != "" {
					t.Errorf("error (-want +got):\n%s", diff)
				}
				return
			}
			if diff := cmp.Diff(c.want+c.wantErr, got.String()); diff != "" {
				t.Errorf("range (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzParseRange(f *testing.F) {
	for _, s := range []string{"203.0.113.0/24", "10.0.0.1-10.0.0.9", "2001:db8::/64", "::/0", "::-ffff::", "1.2.3.4", "::ffff:1.2.3.4/100", "fe80::%a/10"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRange(s)
		if err != nil {
			return
		}
		if !r.valid() || r.Size() == 0 || !r.Contains(r.First) || !r.Contains(r.Last) {
			t.Errorf("%q parses to %v - %v", s, r.First, r.Last)
		}
		if again, err := ParseRange(r.String()); err != nil || again != r {
			t.Errorf("%q is written as %q, which parses to %v, %v", s, r, again, err)
		}
	})
}

func TestRangeSize(t *testing.T) {
	for in, want := range map[string]uint64{
		"10.0.0.1":                 1,
		"10.0.0.1-10.0.1.0":        256,
		"0.0.0.0/0":                1 << 32,
		"2001:db8::/64":            math.MaxUint64, // one less than there are
		"2001:db8::-2001:db8::1:0": 1<<16 + 1,
		"2001:db8::/65":            1 << 63,
		"::/0":                     math.MaxUint64,
		"2001:db8::ffff:ffff:ffff:ffff-2001:db8:0:1::1": 3,
	} {
		if got := mustRange(in).Size(); got != want {
			t.Errorf("size of %s is %d, want %d", in, got, want)
		}
	}
}

func TestWithout(t *testing.T) {
	for _, c := range []struct {
		name  string
		from  string
		holes []Range
		want  []Range
	}{
		{"nothing", "10.0.0.0/24", nil, rs("10.0.0.0/24")},
		{"elsewhere", "10.0.0.0/24", rs("10.0.1.0/24"), rs("10.0.0.0/24")},
		{"all", "10.0.0.0/24", rs("10.0.0.0/8"), nil},
		{"ends", "10.0.0.0/24", rs("10.0.0.0/32", "10.0.0.255"), rs("10.0.0.1-10.0.0.254")},
		{"middle, twice", "10.0.0.0/24", rs("10.0.0.10", "10.0.0.20-10.0.0.29"), rs("10.0.0.0-10.0.0.9", "10.0.0.11-10.0.0.19", "10.0.0.30-10.0.0.255")},
		{"the end of the world", "255.255.255.0/24", rs("255.255.255.255"), rs("255.255.255.0-255.255.255.254")},
		{"the start of the world", "::/0", rs("::"), rs("::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, without(mustRange(c.from), c.holes), sameAddr); diff != "" {
				t.Errorf("left (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCountAvoided(t *testing.T) {
	for in, want := range map[string]uint64{
		"10.0.0.0/24": 2, "10.0.0.1-10.0.0.254": 0, "10.0.0.255-10.0.1.0": 2, "0.0.0.0/0": 1 << 25, "10.0.0.0": 1, "::/64": 0,
	} {
		if got := countAvoided(mustRange(in)); got != want {
			t.Errorf("%s has %d avoided addresses, want %d", in, got, want)
		}
	}
}

var sameAddr = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func mustRange(s string) Range {
	r, err := ParseRange(s)
	if err != nil {
		panic(err)
	}
	return r
}

// rs is ranges.
func rs(texts ...string) []Range {
	var ranges []Range
	for _, s := range texts {
		ranges = append(ranges, mustRange(s))
	}
	return ranges
}
