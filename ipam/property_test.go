package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// world is an Allocator beside all that it was told, written down naively.
type world struct {
	*rand.Rand
	a        *Allocator
	pools    []Pool
	held     map[netip.Addr]map[Key]Claim
	reserved map[netip.Addr]Key
	foreign  map[netip.Addr]bool // in quarantine
	used     map[netip.Addr][]Use
	blocks   []Block
	now      time.Time
}

func newWorld(rnd *rand.Rand) *world {
	return &world{Rand: rnd, a: New(), held: map[netip.Addr]map[Key]Claim{}, reserved: map[netip.Addr]Key{}, foreign: map[netip.Addr]bool{},
		used: map[netip.Addr][]Use{}, now: time.Unix(1e9, 0)}
}

// Whatever happens in whatever order, the counts are right, no address has two owners who do not share it, edits of
// the pools move nothing, and another Allocator that is told the same ends in the same place.
func TestAnyOrder(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 30 {
		w := newWorld(rnd)
		w.setPools(t)
		for range 120 {
			switch n := w.IntN(100); {
			case n < 5:
				w.setPools(t)
			case n < 65:
				w.assign(t)
			case n < 86:
				w.release()
			case n < 88:
				addr := w.addr()
				w.a.Quarantine(addr)
				w.foreign[addr] = true
			case n < 90:
				addr := w.addr()
				w.a.Unquarantine(addr)
				delete(w.foreign, addr)
			case n < 94:
				w.use()
			case n < 97:
				w.reserve()
			default:
				w.unreserve()
			}
			w.compare(t)
		}
		w.replay(t)
		w.releaseAll(t)
	}
}

func (w *world) setPools(t *testing.T) {
	before := w.holdings()
	if n := len(w.pools); n > 1 && w.IntN(3) > 0 {
		w.pools = slices.Clone(w.pools)
		i := w.IntN(n)
		w.pools[i] = w.pool(w.pools[i].Name)
	} else {
		w.pools = nil
		for i := range 1 + w.IntN(4) {
			w.pools = append(w.pools, w.pool(fmt.Sprint("p", i)))
		}
		w.Shuffle(len(w.pools), func(i, j int) { w.pools[i], w.pools[j] = w.pools[j], w.pools[i] })
	}
	w.blocks = nil
	for range w.IntN(3) {
		w.blocks = append(w.blocks, Block{w.ranged(6), Use{Reason: ServiceRange, What: "a cluster IP"}})
	}
	w.a.SetPools(w.pools, w.blocks...)
	if diff := gocmp.Diff(before, w.holdings()); diff != "" {
		t.Errorf("an edit of the pools moved addresses (-before +after):\n%s", diff)
	}
}

// pool is a small pool in a small world, so that pools overlap and run full.
func (w *world) pool(name string) Pool {
	p := Pool{
		Name: name, AvoidBuggyIPs: w.IntN(3) == 0, StaticBand: Band(w.IntN(4) - 1), AutoAssign: w.IntN(5) > 0,
		Internal: w.IntN(6) == 0, Priority: int32(w.IntN(2)), MaxPerNamespace: w.IntN(6),
	}
	for range 1 + w.IntN(3) {
		p.Ranges = append(p.Ranges, w.ranged(12))
	}
	for range w.IntN(3) {
		p.Exclude = append(p.Exclude, w.ranged(3))
	}
	if w.IntN(4) == 0 {
		p.Serves = func(r *Request) bool { return r.Key.Namespace == "a" }
	}
	return p
}

func (w *world) ranged(n int) Range {
	first := w.addr()
	return Range{first, after(first, w.Uint64N(uint64(n)))}
}

func (w *world) addr() netip.Addr {
	base := [...]string{"10.0.0.245", "2001:db8::"}[w.IntN(2)]
	return after(netip.MustParseAddr(base), w.Uint64N(24))
}

func (w *world) key() Key {
	return Key{string(rune('a' + w.IntN(3))), string(rune('a' + w.IntN(6)))}
}

func (w *world) request() *Request {
	w.now = w.now.Add(time.Duration(w.IntN(2)) * time.Second)
	r := &Request{
		Now: w.now, Consent: [...]Consent{nil, {"b"}, {"a", "b"}, {Everyone}}[w.IntN(4)],
		Key: w.key(), Partial: w.IntN(3) == 0, Internal: w.IntN(8) == 0, Local: w.IntN(3) == 0,
		Share: [...]string{"", "", "k", "q"}[w.IntN(4)], Backend: [...]string{"", "x", "y"}[w.IntN(3)],
		Families: [...][]Family{v4, v6, dual, {IPv6, IPv4}}[w.IntN(4)],
		Ports:    []Port{{"TCP", uint16(w.IntN(4))}},
	}
	if w.IntN(4) == 0 {
		r.Addresses = append(r.Addresses, w.addr())
	}
	if w.IntN(6) == 0 {
		r.Pool = fmt.Sprint("p", w.IntN(4))
	}
	return r
}

func (w *world) assign(t *testing.T) {
	r := w.request()
	before, held := dump(w.a), w.a.Held(r.Key)
	got, err := w.a.Assign(r)
	if err != nil {
		if after := dump(w.a); after != before {
			t.Errorf("%v changed something:\n%s", err, gocmp.Diff(before, after))
		}
		w.exhausted(t, err)
		return
	}
	for _, addr := range got.Released {
		w.drop(addr, r.Key)
	}
	for _, given := range got.Addresses {
		w.given(t, r, given.Addr, slices.Contains(held, given.Addr))
		if w.held[given.Addr] == nil {
			w.held[given.Addr] = map[Key]Claim{}
		}
		claim := r.claim(given.Pool)
		claim.Since = w.since(r, given.Addr)
		w.held[given.Addr][r.Key] = claim
	}
	settled := dump(w.a)
	again, err := w.a.Assign(r)
	if err != nil || again.Added != nil || again.Released != nil || dump(w.a) != settled {
		t.Errorf("%+v assigned again: %s", r, outcome(again, err))
	}
}

// first is who has had the address for longest.
func (w *world) first(addr netip.Addr) Key {
	return slices.MinFunc(slices.Collect(maps.Keys(w.held[addr])), func(a, b Key) int {
		return cmp.Or(w.held[addr][a].Since.Compare(w.held[addr][b].Since), a.compare(b))
	})
}

// since is from when the Service has the address: as before, or later than all others on it.
func (w *world) since(r *Request, addr netip.Addr) time.Time {
	if claim, holds := w.held[addr][r.Key]; holds {
		return claim.Since
	}
	since := r.Now
	for _, claim := range w.held[addr] {
		if !claim.Since.Before(since) {
			since = claim.Since.Add(time.Microsecond)
		}
	}
	return since
}

// given says whether an address may have been given: to one who shares it, and unless it was held or reserved for the
// Service, from the pool's own addresses.
func (w *world) given(t *testing.T, r *Request, addr netip.Addr, before bool) {
	for other, claim := range w.held[addr] {
		if why, _ := conflict(r, &holder{other, claim}, false); other != r.Key && why != "" && w.first(addr) != r.Key {
			t.Errorf("%s goes to %s, and %s holds it: %s", addr, r.Key, other, why)
		}
	}
	key, kept := w.reserved[addr]
	if w.foreign[addr] && !(kept && key == r.Key) && !(before && slices.Contains(r.Addresses, addr)) {
		t.Errorf("%s goes to %s, and another host uses it", addr, r.Key)
	}
	if before {
		return
	}
	if w.inUse(addr, func(u Use) bool {
		return u.By != r.Key || !slices.Contains(r.Addresses, addr) && !kept && r.Share == ""
	}) {
		t.Errorf("%s goes to %s, and is used otherwise: %v %v", addr, r.Key, w.used[addr], w.blocks)
	}
	if kept && key == r.Key {
		return
	}
	p := w.owner(addr)
	switch {
	case kept:
		t.Errorf("%s goes to %s, and is reserved for %s", addr, r.Key, key)
	case p == nil || !w.gives(p, addr):
		t.Errorf("%s goes to %s, and no pool gives it", addr, r.Key)
	case p.Serves != nil && !p.Serves(r):
		t.Errorf("%s goes to %s, whom %s does not serve", addr, r.Key, p.Name)
	case r.Pool != "" && r.Pool != p.Name:
		t.Errorf("%s of %s goes to %s, who asked for %s", addr, p.Name, r.Key, r.Pool)
	case r.Pool == "" && !slices.Contains(r.Addresses, addr) && (!p.AutoAssign || p.Internal != r.Internal):
		t.Errorf("%s of %s goes to %s by itself", addr, p.Name, r.Key)
	}
}

// exhausted says whether a pool that is said to be full is full.
func (w *world) exhausted(t *testing.T, err error) {
	no, _ := errors.AsType[*Refusal](err)
	if no.Reason != PoolExhausted {
		return
	}
	i := slices.IndexFunc(w.pools, func(p Pool) bool { return p.Name == no.Pool })
	for addr := range w.addresses(&w.pools[i], no.Family) {
		_, kept := w.reserved[addr]
		if len(w.held[addr]) == 0 && !kept && !w.foreign[addr] && len(w.used[addr]) == 0 {
			t.Errorf("%v, and %s is free", err, addr)
		}
	}
}

func (w *world) drop(addr netip.Addr, key Key) {
	delete(w.held[addr], key)
	if len(w.held[addr]) == 0 {
		delete(w.held, addr)
	}
}

func (w *world) release() {
	key := w.key()
	for _, addr := range w.a.Held(key) {
		w.a.Release(addr, key)
		w.drop(addr, key)
	}
}

func (w *world) reserve() {
	addr, key := w.addr(), w.key()
	if w.IntN(3) == 0 {
		key = Key{}
	}
	w.a.Reserve(addr, key)
	w.reserved[addr] = key
}

func (w *world) unreserve() {
	addr := w.addr()
	w.a.Unreserve(addr)
	delete(w.reserved, addr)
}

// use has an address used otherwise by a node, by Services, or by nobody any more.
func (w *world) use() {
	addr, uses := w.addr(), []Use(nil)
	for range w.IntN(3) {
		use := Use{Reason: NodeAddress, What: "a node's"}
		if w.IntN(2) == 0 {
			use = Use{ServiceAddress, "an external IP", w.key()}
		}
		uses = append(uses, use)
	}
	w.a.SetUses(addr, uses)
	w.used[addr] = uses
}

// inUse reports whether the address is in a block or has a use that counts.
func (w *world) inUse(addr netip.Addr, counts func(Use) bool) bool {
	return slices.ContainsFunc(w.blocks, func(b Block) bool { return b.Contains(addr) }) || slices.ContainsFunc(w.used[addr], counts)
}

// owner is the oldest pool with the address.
func (w *world) owner(addr netip.Addr) *Pool {
	for i := range w.pools {
		for _, r := range w.pools[i].Ranges {
			if r.valid() && r.Contains(addr) {
				return &w.pools[i]
			}
		}
	}
	return nil
}

func (w *world) gives(p *Pool, addr netip.Addr) bool {
	for _, r := range p.Exclude {
		if r.valid() && r.Contains(addr) {
			return false
		}
	}
	if w.inUse(addr, func(Use) bool { return false }) {
		return false
	}
	return w.owner(addr) == p && !(p.AvoidBuggyIPs && avoided(addr))
}

func (w *world) addresses(p *Pool, family Family) map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	for _, r := range p.Ranges {
		for addr := r.First; r.Contains(addr); addr = addr.Next() {
			if FamilyOf(addr) == family && w.gives(p, addr) {
				all[addr] = true
			}
		}
	}
	return all
}

// usage counts one by one.
func (w *world) usage(p *Pool) Usage {
	count := func(family Family) FamilyUsage {
		var u FamilyUsage
		for addr := range w.addresses(p, family) {
			_, kept := w.reserved[addr]
			switch {
			case len(w.held[addr]) > 0:
				u.Allocated++
			case !kept && !w.foreign[addr] && len(w.used[addr]) == 0:
				u.Free++
			}
			u.Capacity++
		}
		return u
	}
	u := Usage{V4: count(IPv4), V6: count(IPv6)}
	for addr, claims := range w.held {
		first := slices.MinFunc(slices.Collect(maps.Keys(claims)), Key.compare)
		if claims[first].Pool == p.Name && !w.gives(p, addr) {
			u.Outside++
		}
	}
	if outside := w.a.Outside(p.Name); len(outside) != u.Outside {
		u.Outside = -len(outside)
	}
	return u
}

func (w *world) holdings() map[string][]Key {
	held := map[string][]Key{}
	for addr := range w.held {
		held[addr.String()] = w.a.Holders(addr)
	}
	return held
}

func (w *world) compare(t *testing.T) {
	for i := range w.pools {
		p := &w.pools[i]
		if diff := gocmp.Diff(w.usage(p), w.a.Usage(p.Name)); diff != "" {
			t.Fatalf("usage of %+v (-want +got):\n%s", p, diff)
		}
	}
	want := map[string][]Key{}
	for addr, claims := range w.held {
		want[addr.String()] = slices.SortedFunc(maps.Keys(claims), Key.compare)
	}
	if diff := gocmp.Diff(want, w.holdings()); diff != "" {
		t.Fatalf("holders (-want +got):\n%s", diff)
	}
}

// replay tells another Allocator the same facts in another order, with the pools in between.
func (w *world) replay(t *testing.T) {
	b := New()
	facts := []func(){func() { b.SetPools([]Pool{w.pool("p0"), w.pool("p9")}) }}
	for addr, claims := range w.held {
		for key, claim := range claims {
			facts = append(facts, func() { b.Hold(addr, key, claim) })
		}
	}
	for addr, key := range w.reserved {
		facts = append(facts, func() { b.Reserve(addr, key) })
	}
	for addr := range w.foreign {
		facts = append(facts, func() { b.Quarantine(addr) })
	}
	for addr, uses := range w.used {
		facts = append(facts, func() { b.SetUses(addr, uses) })
	}
	for range 5 {
		addr, key := w.addr(), Key{"z", "gone"}
		facts = append(facts, func() { b.Hold(addr, key, Claim{Pool: "p1", Share: "k"}); b.Release(addr, key) })
	}
	w.Shuffle(len(facts), func(i, j int) { facts[i], facts[j] = facts[j], facts[i] })
	half := w.IntN(len(facts))
	for i, f := range facts {
		if i == half {
			b.SetPools(w.pools, w.blocks...)
		}
		f()
	}
	b.SetPools(w.pools, w.blocks...)
	if diff := gocmp.Diff(dump(w.a), dump(b)); diff != "" {
		t.Fatalf("told in another order (-first +second):\n%s", diff)
	}
	for range 20 {
		r := w.request()
		r.Key = Key{"new", fmt.Sprint(w.IntN(99))}
		got, err := w.a.plan(r)
		again, errAgain := b.plan(r)
		if diff := gocmp.Diff(planned(got, err), planned(again, errAgain)); diff != "" {
			t.Fatalf("%+v (-first +second):\n%s", r, diff)
		}
	}
}

func planned(got Assignment, no *Refusal) string {
	if no != nil {
		return outcome(got, no)
	}
	return outcome(got, nil)
}

// releaseAll leaves nothing behind.
func (w *world) releaseAll(t *testing.T) {
	for addr, claims := range w.held {
		for key := range claims {
			w.a.Release(addr, key)
		}
	}
	for addr := range w.reserved {
		w.a.Unreserve(addr)
	}
	for addr := range w.foreign {
		w.a.Unquarantine(addr)
	}
	for addr := range w.used {
		w.a.SetUses(addr, nil)
	}
	fresh := New()
	fresh.SetPools(w.pools, w.blocks...)
	if diff := gocmp.Diff(dump(fresh), dump(w.a)); diff != "" {
		t.Errorf("left behind (-want +got):\n%s", diff)
	}
	for _, p := range w.a.order {
		for i := range p.parts {
			if p.parts[i].spaces[automatic].taken+p.parts[i].spaces[band].taken > 0 {
				t.Errorf("pool %s still has addresses taken", p.Name)
			}
		}
	}
}
