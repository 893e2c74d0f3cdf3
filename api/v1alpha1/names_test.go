package v1alpha1

import (
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestVirtualIPName(t *testing.T) {
	for address, want := range map[string]string{
		"203.0.113.17":        "203.0.113.17",
		"0.0.0.0":             "0.0.0.0",
		"2001:db8::1":         "2001-0db8-0000-0000-0000-0000-0000-0001",
		"::":                  "0000-0000-0000-0000-0000-0000-0000-0000",
		"fe80:a::ffff:0:0:1f": "fe80-000a-0000-0000-ffff-0000-0000-001f",
	} {
		addr := netip.MustParseAddr(address)
		if got := VirtualIPName(addr); got != want {
			t.Errorf("name of %s = %q, want %q", address, got, want)
		}
		if got, err := ParseVirtualIPName(want); err != nil || got != addr {
			t.Errorf("address of %q = %v, %v, want %s", want, got, err, address)
		}
	}
}

// An address has one name, so that the API server can refuse the second one.
func TestParseVirtualIPNameRefusesOtherSpellings(t *testing.T) {
	for _, name := range []string{
		"", "web", "203.0.113", "203.0.113.017", "203.0.113.17/32", "203-0-113-17",
		"2001:db8::1", "2001-db8--1", "2001-db8-0-0-0-0-0-1", "2001-0DB8-0000-0000-0000-0000-0000-0001",
		"2001-0db8-0000-0000-0000-0000-203.0.113.17", "0000-0000-0000-0000-0000-ffff-203.0.113.17",
		"fe80-0000-0000-0000-0000-0000-0000-0001%eth0",
	} {
		if addr, err := ParseVirtualIPName(name); err == nil {
			t.Errorf("%q is taken for %s", name, addr)
		}
	}
}

func FuzzVirtualIPName(f *testing.F) {
	f.Add([]byte{203, 0, 113, 17}, "203.0.113.17")
	f.Add(netip.MustParseAddr("2001:db8::1").AsSlice(), "2001-0db8-0000-0000-0000-0000-0000-0001")
	f.Add(netip.MustParseAddr("::ffff:203.0.113.17").AsSlice(), "0000-0000-0000-0000-0000-ffff-cb00-7111")
	f.Add([]byte{}, "fe80--1%eth0")
	f.Fuzz(func(t *testing.T, raw []byte, name string) {
		if addr, ok := netip.AddrFromSlice(raw); ok && !addr.Is4In6() {
			name := VirtualIPName(addr)
			if got, err := ParseVirtualIPName(name); err != nil || got != addr {
				t.Errorf("%s becomes %q becomes %v, %v", addr, name, got, err)
			}
			if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
				t.Errorf("%q cannot name an object: %v", name, problems)
			}
		}
		if addr, err := ParseVirtualIPName(name); err == nil && VirtualIPName(addr) != name {
			t.Errorf("%q becomes %s becomes %q", name, addr, VirtualIPName(addr))
		}
	})
}
