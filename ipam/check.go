package ipam

import (
	"net/netip"
	"slices"
)

// Check says why the Service may not hold the address under this request; nil is yes.
//
// For an address that it holds, only what the Service asks for now can be in the way, and who shares the address:
// never an edit of the pools. An address that it does not hold is judged as if it were asked for.
func (a *Allocator) Check(r *Request, addr netip.Addr) *Refusal {
	if no := r.validate(); no != nil {
		return no
	}
	if !plain(addr) {
		return refuse(InvalidRequest, "%q is not a plain address: write it like 203.0.113.10 or 2001:db8::10.", addr).at(addr, "")
	}
	if no := a.contradicts(r); no != nil {
		return no
	}
	return a.check(r, addr)
}

// contradicts refuses a Service that asks for an internal load balancer and
// names a pool or an address that is not: whichever is meant, it must not be
// reachable from outside by mistake.
func (a *Allocator) contradicts(r *Request) *Refusal {
	if !r.Internal {
		return nil
	}
	const remedy = "remove the request for an internal load balancer, or ask for a pool of scope Internal."
	if p := a.pools[r.Pool]; p != nil && !p.Internal {
		no := refuse(ConflictingRequests, "The Service asks for an internal load balancer and for pool %s, whose scope is External: "+remedy, p.Name)
		no.Pool = p.Name
		return no
	}
	for _, addr := range r.Addresses {
		if place := a.find(addr); place != nil && !place.pool.Internal {
			return refuse(ConflictingRequests, "The Service asks for an internal load balancer and for address %s of pool %s, whose scope is External: "+remedy,
				addr, place.pool.Name).at(addr, place.pool.Name)
		}
	}
	return nil
}

func (a *Allocator) check(r *Request, addr netip.Addr) *Refusal {
	if no := r.wants(addr); no != nil {
		return no
	}
	if h := a.holdings[addr]; h != nil {
		if i, holds := h.find(r.Key); holds {
			return a.checkHeld(r, addr, h, &h.holders[i].Claim)
		}
	}
	return a.checkNew(r, addr)
}

func (a *Allocator) checkHeld(r *Request, addr netip.Addr, h *holding, claim *Claim) *Refusal {
	if h.quarantined && !slices.Contains(r.Addresses, addr) && !slices.Contains(r.Keeps, addr) && !h.keptFor(r.Key) {
		return quarantined(addr)
	}
	in, _ := a.PoolOf(addr)
	if r.Pool != "" && r.Pool != in && r.Pool != claim.Pool {
		return refuse(NotInPool, "The Service asks for pool %s, and %s is not of it.", r.Pool, addr).at(addr, claim.Pool)
	}
	if kept := h.keptFor(r.Key) && a.find(addr) == nil; !kept && a.turned(r, claim, in) {
		return refuse(OtherScope, "The Service asks for scope %s, and %s is of pool %s, which is not.", r.scope(), addr, in).at(addr, in)
	}
	return a.checkShare(r, addr, h)
}

// turned reports whether the Service was turned internal or external since it got the address. It was not when the pool
// was turned, nor when the Service names the pool or the address itself. Where nobody knows what it asked for then, an
// internal Service does not stay in an external pool: internal means internal.
func (a *Allocator) turned(r *Request, claim *Claim, in string) bool {
	if claim.Scope == "" && !r.Internal || claim.Scope == r.scope() || r.Pool != "" || len(r.Addresses) > 0 {
		return false
	}
	p := a.pools[in]
	return p != nil && p.Internal != r.Internal
}

func (a *Allocator) checkNew(r *Request, addr netip.Addr) *Refusal {
	if use := a.inUse(addr, r.Key); use != nil {
		return used(addr, use, r.Key)
	}
	place, h := a.find(addr), a.holdings[addr]
	if h != nil && h.quarantined && !h.keptFor(r.Key) {
		return quarantined(addr)
	}
	if h != nil && h.reserved && !h.keptFor(r.Key) {
		return reservedFor(h.reservedFor, r.Key, addr)
	}
	if r.Pool != "" {
		if no := a.checkPool(r, addr, place); no != nil {
			return no
		}
	}
	if kept := h != nil && h.reserved; !kept {
		if no := a.checkPlace(r, addr, place); no != nil {
			return no
		}
	}
	return a.checkShare(r, addr, h)
}

// checkPool is for a request that names a pool.
func (a *Allocator) checkPool(r *Request, addr netip.Addr, place *located) *Refusal {
	if a.pools[r.Pool] == nil {
		return unknownPool(r.Pool)
	}
	if place == nil {
		return refuse(NotInPool, "The Service asks for pool %s, and %s is in no pool: ask for one of the two.", r.Pool, addr).at(addr, r.Pool)
	}
	if name := place.pool.Name; name != r.Pool {
		return refuse(NotInPool, "The Service asks for pool %s, and %s is in pool %s: ask for one of the two.", r.Pool, addr, name).at(addr, name)
	}
	return nil
}

// checkPlace says whether the pool of the address gives it to this Service.
func (a *Allocator) checkPlace(r *Request, addr netip.Addr, place *located) *Refusal {
	if place == nil {
		return refuse(OutsidePools, "Address %s is in no pool: add it to one, or ask for another address.", addr).at(addr, "")
	}
	p := place.pool
	if place.use == excluded {
		return refuse(Excluded, "Address %s is excluded from pool %s: ask for another address.", addr, p.Name).at(addr, p.Name)
	}
	if !place.gives(addr) {
		return refuse(BuggyAddress, "Pool %s avoids addresses that end in .0 and .255, as %s does: ask for another address.", p.Name, addr).at(addr, p.Name)
	}
	if p.Serves != nil && !p.Serves(r) {
		return refuse(PoolNotServing, "Pool %s, which has %s, does not serve %s: change its selectors, or ask for another address.",
			p.Name, addr, r.Key).at(addr, p.Name)
	}
	if a.quota(p, r.Key, index(addr)) {
		return quota(p, r.Key, index(addr)).at(addr, p.Name)
	}
	return nil
}

// quota says whether the Service's namespace holds all that it may in the pool. What the Service holds itself does
// not count: the address in question takes its place.
func (a *Allocator) quota(p *pool, key Key, family int) bool {
	if p.MaxPerNamespace <= 0 {
		return false
	}
	others := p.byNamespace[tenant{key.Namespace, family}]
	for _, addr := range a.held[key] {
		if place := a.find(addr); index(addr) == family && place != nil && place.pool == p && place.gives(addr) {
			others--
		}
	}
	return others >= p.MaxPerNamespace
}

func reservedFor(key, asker Key, addr netip.Addr) *Refusal {
	if key == (Key{}) {
		return refuse(Reserved, "Address %s is reserved and not for any Service: delete its VirtualIP, or ask for another address.", addr).at(addr, "")
	}
	if key.Namespace != asker.Namespace {
		return refuse(Reserved, "Address %s is reserved for a Service of another namespace: ask for another address.", addr).at(addr, "")
	}
	return refuse(Reserved, "Address %s is reserved for %s: delete its VirtualIP, or ask for another address.", addr, key).at(addr, "").by(key)
}

func quarantined(addr netip.Addr) *Refusal {
	return refuse(AddressConflict, "Another host uses address %s: its VirtualIP says which. Take the address from that host, or ask for another one.", addr).at(addr, "")
}

func unknownPool(name string) *Refusal {
	no := refuse(UnknownPool, "There is no pool %s: create it, or ask for another one.", name)
	no.Pool = name
	return no
}

func quota(p *pool, key Key, family int) *Refusal {
	return refuse(NamespaceQuota, "Namespace %s holds %d %s addresses of pool %s, and its maxPerNamespace is %d: release one, or raise it.",
		key.Namespace, p.byNamespace[tenant{key.Namespace, family}], families[family], p.Name, p.MaxPerNamespace).of(family, p.Name)
}
