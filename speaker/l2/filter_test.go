package l2

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/bpf"
)

func TestCover(t *testing.T) {
	tests := []struct {
		name  string
		addrs []string
		limit int
		want  []string
	}{
		{"nothing", nil, 4, nil},
		{"one", []string{"192.0.2.10"}, 4, []string{"192.0.2.10/32"}},
		{"apart", []string{"192.0.2.10", "192.0.2.12"}, 4, []string{"192.0.2.10/32", "192.0.2.12/32"}},
		{"siblings cost nothing", []string{"192.0.2.10", "192.0.2.11"}, 4, []string{"192.0.2.10/31"}},
		{"neighbours are no siblings", []string{"192.0.2.11", "192.0.2.12"}, 4, []string{"192.0.2.11/32", "192.0.2.12/32"}},
		{"the least waste", []string{"10.0.0.1", "10.0.0.2", "10.0.0.9", "10.9.0.0"}, 2, []string{"10.0.0.0/28", "10.9.0.0/32"}},
		{"to one", []string{"10.0.0.1", "10.0.0.2", "10.0.1.9"}, 1, []string{"10.0.0.0/23"}},
		{"far apart", []string{"1.0.0.1", "223.0.0.1"}, 1, []string{"0.0.0.0/0"}},
		{"IPv6", []string{"2001:db8::1", "2001:db8::2", "2001:db8:1::"}, 2, []string{"2001:db8::/126", "2001:db8:1::/128"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var addrs []netip.Addr
			for _, a := range tt.addrs {
				addrs = append(addrs, netip.MustParseAddr(a))
			}
			var got []string
			for _, p := range cover(addrs, tt.limit) {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever the addresses, the kernel gets every request for them and none for an address outside of the cover, which is
// small, sorted and disjoint, and does not take in more than there is to gain.
func TestFilterProperty(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		proto := protocols[round%2]
		addrs := randomAddrs(random, proto, 1+random.IntN(3*maxPrefixes))
		prefixes := cover(addrs, maxPrefixes)
		if len(prefixes) > maxPrefixes || len(prefixes) > len(addrs) {
			t.Fatalf("%d prefixes for %d addresses", len(prefixes), len(addrs))
		}
		for i, p := range prefixes {
			if p != p.Masked() || i > 0 && (p.Overlaps(prefixes[i-1]) || p.Addr().Less(prefixes[i-1].Addr())) {
				t.Fatalf("not sorted and disjoint: %v", prefixes)
			}
		}
		program := filter(proto, addrs)
		vm := machine(t, program)
		for _, a := range addrs {
			if !passes(t, vm, request(a)) {
				t.Fatalf("the request for %s is lost; prefixes %v", a, prefixes)
			}
		}
		for range 300 {
			a := randomAddrs(random, proto, 1)[0]
			if random.IntN(2) == 0 { // near an edge
				p := prefixes[random.IntN(len(prefixes))]
				a = [...]netip.Addr{p.Addr(), p.Addr().Prev(), lastOf(p), lastOf(p).Next()}[random.IntN(4)]
			}
			if !a.IsValid() || a.IsMulticast() || a.Is4() && a == host4 {
				continue
			}
			want := slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) }) ||
				proto == arp && slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(host4) })
			if got := passes(t, vm, request(a)); got != want {
				t.Fatalf("the request for %s passes: %t, want %t; prefixes %v", a, got, want, prefixes)
			}
		}
	}
}

// What the handler would answer or observe, the filter lets pass.
func TestFilterLetsPassWhatMatters(t *testing.T) {
	for _, tt := range frames {
		vm := machine(t, filter(arp, []netip.Addr{v4, asked4}))
		if len(tt.frame) > 12 && tt.frame[12] == 0x86 {
			vm = machine(t, filter(ndp, []netip.Addr{v6, asked6}))
		}
		matters := tt.reply != "" || tt.reason == Answered || tt.reason == Conflict && tt.name != "NS from the address itself"
		if got := passes(t, vm, tt.frame); matters && !got {
			t.Errorf("%s: dropped by the filter", tt.name)
		}
		if got := passes(t, vm, tt.frame); tt.reason == NotAnnounced && got && !strings.HasSuffix(tt.name, "for the asked") {
			t.Errorf("%s: let through by the filter", tt.name)
		}
	}
}

func TestFilterOfNothing(t *testing.T) {
	for _, p := range protocols {
		vm := machine(t, filter(p, nil))
		for _, tt := range frames {
			if passes(t, vm, tt.frame) {
				t.Errorf("%s passes", tt.name)
			}
		}
	}
}

// A socket of an older kernel has 20 KiB for the old and the new filter; one instruction is at most three of the kernel's.
func TestFilterIsSmall(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, p := range protocols {
		program := filter(p, randomAddrs(random, p, 10_000))
		raw, err := bpf.Assemble(program)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > 700 {
			t.Errorf("%s: %d instructions", p, len(raw))
		}
	}
}

func BenchmarkFilter(b *testing.B) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, p := range protocols {
		addrs := randomAddrs(random, p, 10_000)
		b.Run(p.String(), func(b *testing.B) {
			for b.Loop() {
				filter(p, addrs)
			}
		})
	}
}

// randomAddrs are sorted, without duplicates, and in clusters as pools are.
func randomAddrs(random *rand.Rand, p protocol, n int) []netip.Addr {
	var addrs []netip.Addr
	for range n {
		cluster, low := byte(random.IntN(4)), uint16(random.IntN(1<<random.IntN(17)))
		if p == arp {
			addrs = append(addrs, netip.AddrFrom4([4]byte{10 + 30*cluster, cluster, byte(low >> 8), byte(low)}))
			continue
		}
		a := [16]byte{0x20, 0x01, 0x0d, 0xb8, 5: cluster, 14: byte(low >> 8), 15: byte(low)}
		a[8+random.IntN(6)] = byte(random.IntN(3))
		addrs = append(addrs, netip.AddrFrom16(a))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func machine(t *testing.T, program []bpf.Instruction) *bpf.VM {
	t.Helper()
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return vm
}

func passes(t *testing.T, vm *bpf.VM, frame []byte) bool {
	t.Helper()
	n, err := vm.Run(frame)
	if err != nil {
		t.Fatal(err)
	}
	return n > 0
}
