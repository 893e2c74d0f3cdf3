package ipam

import (
	"fmt"
	"testing"
)

// One Assign and one Release, with a number of addresses held: the cost must not grow with it.
func BenchmarkAllocate(b *testing.B) {
	for _, pool := range []Pool{
		{Name: "IPv4", Ranges: rs("10.0.0.0/16"), AutoAssign: true},
		{Name: "IPv6", Ranges: rs("2001:db8::/64"), AutoAssign: true},
	} {
		family := []Family{Family(pool.Name)}
		for _, n := range []int{1000, 10000, 50000} {
			b.Run(fmt.Sprintf("family=%s/held=%d", pool.Name, n), func(b *testing.B) {
				a := New()
				a.SetPools([]Pool{pool})
				for i := range n {
					if _, err := a.Assign(&Request{Key: Key{"shop", fmt.Sprint("web-", i)}, Families: family}); err != nil {
						b.Fatal(err)
					}
				}
				var requests [1024]Request
				for i := range requests {
					requests[i] = Request{Key: Key{"shop", fmt.Sprint("new-", i)}, Families: family, Ports: http}
				}
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					r := &requests[i%len(requests)]
					got, err := a.Assign(r)
					if err != nil {
						b.Fatal(err)
					}
					a.Release(got.Addresses[0].Addr, r.Key)
				}
			})
		}
	}
}

// SetPools with one pool changed of a hundred, and 50,000 addresses held.
func BenchmarkSetPools(b *testing.B) {
	pools := []Pool{{Name: "big", Ranges: rs("10.0.0.0/16"), AutoAssign: true}}
	for i := range 99 {
		pools = append(pools, Pool{Name: fmt.Sprint("p", i), Ranges: rs(fmt.Sprintf("192.168.%d.0/24", i))})
	}
	a := New()
	a.SetPools(pools)
	for i := range 50000 {
		if _, err := a.Assign(&Request{Key: Key{"shop", fmt.Sprint("web-", i)}, Families: v4}); err != nil {
			b.Fatal(err)
		}
	}
	for _, changed := range []bool{false, true} {
		b.Run(fmt.Sprintf("changed=%t", changed), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				pools[99].AvoidBuggyIPs = changed && i%2 == 0
				a.SetPools(pools)
			}
		})
	}
}
