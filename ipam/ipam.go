// Package ipam assigns addresses from pools. It knows nothing of Kubernetes.
package ipam

import (
	"net/netip"
	"slices"
)

// Allocator is what the pools have and who holds what. Pools are configuration, holdings are facts: an edit of the
// pools changes no holding. The order in which pools and facts arrive does not matter. The caller locks.
type Allocator struct {
	pools    map[string]*pool
	order    []*pool   // as they are tried
	places   []located // of all pools, sorted and disjoint
	holdings map[netip.Addr]*holding
	held     map[Key][]netip.Addr    // sorted
	reserved map[Key][]netip.Addr    // sorted
	shared   map[string][]netip.Addr // by sharing key, sorted
	uses     map[netip.Addr][]Use
	blocks   []Block // in every pool
}

// holding is who holds an address and for whom it is kept.
type holding struct {
	holders     []holder // sorted by key
	reserved    bool
	reservedFor Key       // zero is nobody
	quarantined bool      // a host that is none of ours uses it
	used        bool      // Allocator.uses says for what
	first       [1]holder // the room for holders of an address that is not shared
}

type holder struct {
	Key
	Claim
}

// New is an Allocator without pools.
func New() *Allocator {
	return &Allocator{
		pools:    map[string]*pool{},
		holdings: map[netip.Addr]*holding{},
		held:     map[Key][]netip.Addr{},
		reserved: map[Key][]netip.Addr{},
		shared:   map[string][]netip.Addr{},
		uses:     map[netip.Addr][]Use{},
		blocks:   notUnicast,
	}
}

// SetPools replaces the pools, given oldest first, and says by name what is wrong with them. Where pools overlap, the
// older keeps the addresses, also those that it excludes. A pool whose addresses stay as they were is not built anew.
// No pool gives the addresses of a block.
func (a *Allocator) SetPools(pools []Pool, blocks ...Block) map[string][]Problem {
	problems := map[string][]Problem{}
	before := a.pools
	a.blocks = slices.Concat(notUnicast, blocks)
	a.pools = make(map[string]*pool, len(pools))
	var all estate
	for _, p := range pools {
		if a.pools[p.Name] != nil {
			problems[p.Name] = append(problems[p.Name], Problem{DuplicatePool, "An older pool has the same name: rename one of the two."})
			continue
		}
		layout, found := all.layout(p, a.blocks)
		if len(found) > 0 {
			problems[p.Name] = found
		}
		if old := before[p.Name]; old != nil && old.same(p, layout) {
			old.Pool = p
			a.pools[p.Name] = old
			continue
		}
		a.pools[p.Name] = newPool(p, layout)
	}
	a.arrange()
	return problems
}

// arrange puts the pools in order, makes their addresses findable, and counts what is held in the fresh ones.
func (a *Allocator) arrange() {
	a.order, a.places = nil, nil
	fresh := false
	for _, p := range a.pools {
		a.order = append(a.order, p)
		a.places = append(a.places, p.locate()...)
		fresh = fresh || p.fresh
	}
	slices.SortFunc(a.order, byRank)
	slices.SortFunc(a.places, func(a, b located) int { return byFirst(a.Range, b.Range) })
	if fresh {
		for addr, h := range a.holdings {
			a.count(addr, h, 1, true)
		}
	}
	for i, p := range a.order {
		p.rank, p.fresh = i, false
	}
}

// Hold records that the Service holds the address, whatever the pools and the rules of sharing say: the caller knows
// it for a fact. It replaces what the Service claimed of that address before; a scope that is not known leaves the one
// before. After a restart, hold everything before the first Assign, with sharing keys: a Service is moved away from who
// does not seem to share with it.
func (a *Allocator) Hold(addr netip.Addr, key Key, claim Claim) {
	h := a.holding(addr)
	a.forget(addr, h)
	i, found := h.find(key)
	if !found {
		h.holders = slices.Insert(h.holders, i, holder{Key: key})
		insert(a.held, key, addr)
	}
	if claim.Scope == "" {
		claim.Scope = h.holders[i].Scope
	}
	h.holders[i].Claim = claim
	a.learn(addr, h)
}

// Release ends what the Service holds of the address.
func (a *Allocator) Release(addr netip.Addr, key Key) {
	h := a.holdings[addr]
	if h == nil {
		return
	}
	i, found := h.find(key)
	if !found {
		return
	}
	a.forget(addr, h)
	h.holders = slices.Delete(h.holders, i, i+1)
	remove(a.held, key, addr)
	a.learn(addr, h)
}

// Reserve keeps the address for the Service: nobody else gets it, and the Service gets it first when it asks for no
// other, whatever the pools say. The zero Key keeps it from everyone. It replaces an earlier reservation of the
// address, and who holds the address goes on holding it.
func (a *Allocator) Reserve(addr netip.Addr, key Key) {
	h := a.holding(addr)
	a.forget(addr, h)
	if h.reserved {
		remove(a.reserved, h.reservedFor, addr)
	}
	h.reserved, h.reservedFor = true, key
	insert(a.reserved, key, addr)
	a.learn(addr, h)
}

// Unreserve ends the reservation of the address.
func (a *Allocator) Unreserve(addr netip.Addr) {
	h := a.holdings[addr]
	if h == nil || !h.reserved {
		return
	}
	a.forget(addr, h)
	remove(a.reserved, h.reservedFor, addr)
	h.reserved, h.reservedFor = false, Key{}
	a.learn(addr, h)
}

// Quarantine records that a host that is none of ours uses the address: nobody gets it who has not got it, and of
// those who hold it only who asked for this very address keeps it, or who is to (Request.Keeps). A reservation counts as asking.
func (a *Allocator) Quarantine(addr netip.Addr) { a.quarantine(addr, true) }

// Unquarantine ends the quarantine of the address.
func (a *Allocator) Unquarantine(addr netip.Addr) { a.quarantine(addr, false) }

func (a *Allocator) quarantine(addr netip.Addr, quarantined bool) {
	if h := a.holdings[addr]; (h != nil && h.quarantined) == quarantined {
		return
	}
	h := a.holding(addr)
	a.forget(addr, h)
	h.quarantined = quarantined
	a.learn(addr, h)
}

// holding is that of the address, made if there is none.
func (a *Allocator) holding(addr netip.Addr) *holding {
	h := a.holdings[addr]
	if h == nil {
		h = &holding{}
		h.holders = h.first[:0]
		a.holdings[addr] = h
	}
	return h
}

// Held is what the Service holds, sorted.
func (a *Allocator) Held(key Key) []netip.Addr { return slices.Clone(a.held[key]) }

// Holders is who holds the address, sorted.
func (a *Allocator) Holders(addr netip.Addr) []Key {
	var keys []Key
	if h := a.holdings[addr]; h != nil {
		for _, holder := range h.holders {
			keys = append(keys, holder.Key)
		}
	}
	return keys
}

// PoolOf is the pool that has the address, be it excluded there, or else the one that it was given from.
func (a *Allocator) PoolOf(addr netip.Addr) (name string, ok bool) {
	if place := a.find(addr); place != nil {
		return place.pool.Name, true
	}
	if h := a.holdings[addr]; h != nil {
		name = h.pool()
	}
	return name, name != ""
}

// GivenBy returns the pool that gives the address, as far as nobody has it and it is used for nothing else.
func (a *Allocator) GivenBy(addr netip.Addr) (name string, ok bool) {
	if place := a.find(addr); place != nil && place.gives(addr) {
		return place.pool.Name, true
	}
	return "", false
}

// Usage is how full the pool is; zero when there is no such pool.
func (a *Allocator) Usage(name string) Usage {
	p := a.pools[name]
	if p == nil {
		return Usage{}
	}
	return Usage{V4: p.parts[0].usage(), V6: p.parts[1].usage(), Outside: p.outside}
}

// Outside returns the addresses that were given from the pool and are not in it any more, sorted.
func (a *Allocator) Outside(name string) []netip.Addr {
	p := a.pools[name]
	if p == nil || p.outside == 0 {
		return nil
	}
	var outside []netip.Addr
	for addr, h := range a.holdings {
		place := a.find(addr)
		if h.pool() == name && len(h.holders) > 0 && (place == nil || place.pool != p || !place.gives(addr)) {
			outside = append(outside, addr)
		}
	}
	slices.SortFunc(outside, netip.Addr.Compare)
	return outside
}

// find is the place of the address in a pool, nil when no pool has it.
func (a *Allocator) find(addr netip.Addr) *located {
	if !plain(addr) {
		return nil
	}
	i, found := slices.BinarySearchFunc(a.places, addr, func(l located, addr netip.Addr) int { return l.First.Compare(addr) })
	if !found {
		i--
	}
	if i < 0 || !a.places[i].Contains(addr) {
		return nil
	}
	return &a.places[i]
}

// forget takes the holding out of all that is counted and listed, before it changes.
func (a *Allocator) forget(addr netip.Addr, h *holding) {
	a.count(addr, h, -1, false)
	for i := range h.holders {
		if share := h.holders[i].Share; share != "" {
			remove(a.shared, share, addr)
		}
	}
}

// learn puts the changed holding back, unless nothing is left of it.
func (a *Allocator) learn(addr netip.Addr, h *holding) {
	if !h.taken() {
		delete(a.holdings, addr)
		return
	}
	a.count(addr, h, 1, false)
	for i := range h.holders {
		if share := h.holders[i].Share; share != "" {
			insert(a.shared, share, addr)
		}
	}
}

// count adds the holding to the pools that it concerns, or with by=-1 takes it out: to the one that has the address,
// and to the one that it was given from. With onlyFresh it leaves the pools alone that have counted it already.
func (a *Allocator) count(addr netip.Addr, h *holding, by int, onlyFresh bool) {
	if !h.taken() {
		return
	}
	place := a.find(addr)
	in := place != nil && place.gives(addr)
	if in && (place.pool.fresh || !onlyFresh) {
		place.count(addr, h, by)
	}
	from := a.pools[h.pool()]
	if from == nil || len(h.holders) == 0 || in && place.pool == from || onlyFresh && !from.fresh {
		return
	}
	from.outside += by
}

func (l *located) count(addr netip.Addr, h *holding, by int) {
	family := index(addr)
	part := &l.pool.parts[family]
	part.spaces[l.use].mark(l.position(addr), by > 0)
	if h.quarantined {
		part.quarantined += uint64(by)
	}
	if h.used {
		part.used += uint64(by)
	}
	if len(h.holders) == 0 {
		part.reserved += uint64(by)
		return
	}
	part.allocated += uint64(by)
	for i := range h.holders {
		t := tenant{h.holders[i].Namespace, family}
		if l.pool.byNamespace[t] += by; l.pool.byNamespace[t] == 0 {
			delete(l.pool.byNamespace, t)
		}
	}
}

func (h *holding) taken() bool { return h.reserved || h.quarantined || h.used || len(h.holders) > 0 }

// keptFor says whether the address is reserved for the Service.
func (h *holding) keptFor(key Key) bool { return h.reserved && h.reservedFor == key && key != Key{} }

func (h *holding) find(key Key) (int, bool) {
	return slices.BinarySearchFunc(h.holders, key, func(h holder, key Key) int { return h.Key.compare(key) })
}

// pool is the one that the address was given from, as its first holder knows it.
func (h *holding) pool() string {
	for i := range h.holders {
		if pool := h.holders[i].Pool; pool != "" {
			return pool
		}
	}
	return ""
}

func insert[K comparable](lists map[K][]netip.Addr, key K, addr netip.Addr) {
	list := lists[key]
	if i, found := slices.BinarySearchFunc(list, addr, netip.Addr.Compare); !found {
		lists[key] = slices.Insert(list, i, addr)
	}
}

func remove[K comparable](lists map[K][]netip.Addr, key K, addr netip.Addr) {
	list := lists[key]
	i, found := slices.BinarySearchFunc(list, addr, netip.Addr.Compare)
	switch {
	case found && len(list) == 1:
		delete(lists, key)
	case found:
		lists[key] = slices.Delete(list, i, i+1)
	}
}

// taken is for the spaces that keep no bits.
func (a *Allocator) taken(addr netip.Addr) bool { return a.holdings[addr] != nil }

// start is where the search for a free address begins: the same for a Service at any time and in any process, and
// another one for another Service. It is FNV-1a: see docs/adr/0002.
func (k Key) start() uint64 {
	hash := uint64(14695981039346656037)
	for _, s := range [...]string{k.Namespace, "/", k.Name} {
		for i := range len(s) {
			hash = (hash ^ uint64(s[i])) * 1099511628211
		}
	}
	return hash
}
