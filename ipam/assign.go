package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Assignment is what a Service holds after Assign.
type Assignment struct {
	Addresses []Assigned   // in the order of the request's families
	Added     []netip.Addr // of these, what it did not hold before
	Released  []netip.Addr // what it held before, and does not any more
	Missing   []*Refusal   // with Request.Partial: why the other families are not there
}

// Assigned is an address and the pool that it was given from, "" when none has it.
type Assigned struct {
	Addr netip.Addr
	Pool string
}

// Assign decides what the Service holds, and records it as Hold and Release do. The error is a *Refusal, and then
// nothing has changed: the Service keeps what it had.
//
// It keeps what the Service holds and Check finds right, and releases the rest. A missing family it takes from, in
// this order: what is asked for; what is reserved for the Service; an address under the same sharing key; a free
// address. Assigning twice changes nothing.
//
// Pools are tried by priority, then by name. One that can give all that is missing goes before one of higher priority
// that can not, and before all the pool of an address that the Service has already, so that both addresses of a
// Service are announced alike.
func (a *Allocator) Assign(r *Request) (Assignment, error) {
	plan, no := a.plan(r)
	if no != nil {
		return Assignment{}, no
	}
	a.apply(r, &plan)
	return plan, nil
}

// plan decides and changes nothing.
func (a *Allocator) plan(r *Request) (Assignment, *Refusal) {
	if no := r.validate(); no != nil {
		return Assignment{}, no
	}
	if no := a.contradicts(r); no != nil {
		return Assignment{}, no
	}
	var c choice
	for _, addr := range r.Addresses {
		if no := a.check(r, addr); no != nil {
			return Assignment{}, no
		}
		c[index(addr)] = addr
	}
	for _, addr := range a.held[r.Key] {
		if i := index(addr); !c[i].IsValid() && a.check(r, addr) == nil {
			c[i] = addr
		}
	}
	missing := a.complete(r, &c)
	if len(missing) > 0 && (!r.Partial || len(missing) == len(r.Families)) {
		return Assignment{}, missing[0]
	}
	return a.assignment(r, &c, missing), nil
}

// choice is the address of each family, as indexed by families. Not valid is not there.
type choice [len(families)]netip.Addr

// open is the families of the request that have no address yet.
func (c *choice) open(r *Request) (open [len(families)]bool) {
	for _, family := range r.Families {
		i := slices.Index(families[:], family)
		open[i] = !c[i].IsValid()
	}
	return open
}

// complete chooses an address for each family that has none, and says why not for the others.
func (a *Allocator) complete(r *Request, c *choice) (missing []*Refusal) {
	for i, open := range c.open(r) {
		if open {
			c[i] = a.kept(r, i)
		}
	}
	var apart [len(families)]*Refusal
	if r.Share != "" {
		for i, open := range c.open(r) {
			if open {
				c[i], apart[i] = a.shareable(r, i)
			}
		}
	}
	open := c.open(r)
	if open == ([len(families)]bool{}) {
		return nil
	}
	if a.fromOnePool(r, c, open) {
		return nil
	}
	for _, family := range r.Families {
		i := slices.Index(families[:], family)
		if open[i] {
			c[i] = a.free(r, i)
		}
		if !c[i].IsValid() {
			missing = append(missing, a.none(r, i).orApart(apart[i]))
		}
	}
	return missing
}

// kept is the lowest address that is reserved for the Service and that it may have.
func (a *Allocator) kept(r *Request, family int) netip.Addr {
	if r.Key == (Key{}) {
		return netip.Addr{}
	}
	for _, addr := range a.reserved[r.Key] {
		if index(addr) != family || a.check(r, addr) != nil {
			continue
		}
		if place := a.find(addr); r.Pool != "" || place == nil || place.pool.Internal == r.Internal {
			return addr
		}
	}
	return netip.Addr{}
}

// fromOnePool fills all open families from one pool, if one can.
func (a *Allocator) fromOnePool(r *Request, c *choice, open [len(families)]bool) bool {
	for _, addr := range c {
		if place := a.find(addr); place != nil && a.fill(r, c, open, place.pool) {
			return true
		}
	}
	for _, p := range a.order {
		if a.fill(r, c, open, p) {
			return true
		}
	}
	return false
}

func (a *Allocator) fill(r *Request, c *choice, open [len(families)]bool, p *pool) bool {
	filled := *c
	for i := range open {
		if !open[i] {
			continue
		}
		addr, no := a.give(r, p, i)
		if no != "" {
			return false
		}
		filled[i] = addr
	}
	*c = filled
	return true
}

// free is a free address of the first pool that gives one.
func (a *Allocator) free(r *Request, family int) netip.Addr {
	for _, p := range a.order {
		if addr, no := a.give(r, p, family); no == "" {
			return addr
		}
	}
	return netip.Addr{}
}

// give is the free address that the pool has for the Service, or why not.
func (a *Allocator) give(r *Request, p *pool, family int) (netip.Addr, Reason) {
	if no := p.turnsAway(r); no != "" {
		return netip.Addr{}, no
	}
	part := &p.parts[family]
	if part.capacity() == 0 {
		return netip.Addr{}, noFamily
	}
	if a.quota(p, r.Key, family) {
		return netip.Addr{}, NamespaceQuota
	}
	start := r.Key.start()
	for use := range part.spaces {
		if addr, ok := part.spaces[use].next(start, a.taken); ok {
			return addr, ""
		}
	}
	return netip.Addr{}, PoolExhausted
}

// turnsAway says why the pool is not for this Service, when it does not name an address.
func (p *pool) turnsAway(r *Request) Reason {
	switch {
	case r.Pool != "" && r.Pool != p.Name:
		return NotInPool
	case r.Pool == "" && !p.AutoAssign:
		return manualPool
	case r.Pool == "" && p.Internal != r.Internal:
		return OtherScope
	case p.Serves != nil && !p.Serves(r):
		return PoolNotServing
	}
	return ""
}

// assignment compares what was chosen with what is held.
func (a *Allocator) assignment(r *Request, c *choice, missing []*Refusal) Assignment {
	plan := Assignment{Missing: missing, Addresses: make([]Assigned, 0, len(r.Families))}
	held := a.held[r.Key]
	for _, family := range r.Families {
		addr := c[slices.Index(families[:], family)]
		if !addr.IsValid() {
			continue
		}
		plan.Addresses = append(plan.Addresses, Assigned{addr, a.origin(r, addr)})
		if !slices.Contains(held, addr) {
			plan.Added = append(plan.Added, addr)
		}
	}
	for _, addr := range held {
		if c[index(addr)] != addr {
			plan.Released = append(plan.Released, addr)
		}
	}
	return plan
}

// origin is the pool to record for the address: the one that it was given from goes on having given it, unless that
// pool is gone and another one has the address now.
func (a *Allocator) origin(r *Request, addr netip.Addr) string {
	recorded := ""
	if h := a.holdings[addr]; h != nil {
		recorded = h.pool()
		if i, found := h.find(r.Key); found && h.holders[i].Pool != "" {
			recorded = h.holders[i].Pool
		}
	}
	if recorded != "" && (a.pools[recorded] != nil || recorded == r.Pool) {
		return recorded
	}
	name, _ := a.PoolOf(addr)
	return name
}

func (a *Allocator) apply(r *Request, plan *Assignment) {
	for _, addr := range plan.Released {
		a.Release(addr, r.Key)
	}
	for _, given := range plan.Addresses {
		a.Hold(given.Addr, r.Key, a.renewed(r, given))
	}
}

// none says why no pool gives the Service an address of the family.
func (a *Allocator) none(r *Request, family int) *Refusal {
	if r.Pool != "" && a.pools[r.Pool] == nil {
		return unknownPool(r.Pool)
	}
	if len(a.order) == 0 {
		return refuse(NoPool, "There is no address pool: create one.").of(family, "")
	}
	reason, pool := NoPool, ""
	var whys []string
	for _, p := range a.order {
		_, no := a.give(r, p, family)
		if no == NotInPool {
			continue
		}
		whys = append(whys, p.why(r, family, no))
		if reason == NoPool && no == NamespaceQuota || reason != PoolExhausted && no == PoolExhausted {
			reason, pool = no, p.Name
		}
	}
	if n := len(whys) - 10; n > 1 {
		whys = append(whys[:10], fmt.Sprintf("and %d more", n))
	}
	return refuse(reason, "No pool gives %s an %s address (%s): %s.", r.Key, families[family], strings.Join(whys, "; "), remedies[reason]).of(family, pool)
}

// orApart is the refusal of a Service that would not need an address of its own, could it join the one of its sharing key.
func (r *Refusal) orApart(apart *Refusal) *Refusal {
	if apart == nil {
		return r
	}
	joined := *apart
	joined.Message += " There is no address of its own for it either. " + r.Message
	return &joined
}

var remedies = map[Reason]string{
	NoPool:         "add a pool that serves it, or ask for one by name",
	PoolExhausted:  "add addresses, or release some",
	NamespaceQuota: "release an address of the namespace, or raise maxPerNamespace",
}

// why says briefly why the pool did not give an address.
func (p *pool) why(r *Request, family int, no Reason) string {
	part := &p.parts[family]
	switch no {
	case manualPool:
		return p.Name + " is only for Services that name it (autoAssign: false)"
	case OtherScope:
		if p.Internal {
			return p.Name + " is for internal load balancers"
		}
		return p.Name + " is not for internal load balancers"
	case PoolNotServing:
		return p.Name + " does not select the Service"
	case noFamily:
		return fmt.Sprintf("%s has no %s addresses", p.Name, families[family])
	case NamespaceQuota:
		return fmt.Sprintf("%s gives a namespace %d (maxPerNamespace) and %s has them", p.Name, p.MaxPerNamespace, r.Key.Namespace)
	}
	taken := fmt.Sprintf("%s has all its %d taken", p.Name, part.capacity())
	if part.quarantined > 0 {
		taken += fmt.Sprintf(", %d of them by other hosts", part.quarantined)
	}
	if part.used > 0 {
		taken += fmt.Sprintf(", %d of them by nodes, networks or Services that have them otherwise", part.used)
	}
	return taken
}
