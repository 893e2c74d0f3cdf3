package ipam

import (
	"net/netip"
	"slices"
	"time"
)

// This file has the rules of sharing. See docs/adr/0011-sharing-across-namespaces.md.
//
// The holder of an address is the Service with the oldest claim; the others are its guests. Nobody moves the holder. A
// guest leaves when it does not go together with the holder, or, as it was edited itself, with another guest.
//
//	                        same namespace   other namespace
//	same sharing key              x                x
//	consent of both sides                          x
//	no port in common             x                x
//	all Cluster                   x (or equal selectors)   x

// before reports whether the claim of h is older than that of o.
func (h *holder) before(o *holder) bool {
	if order := h.Since.Compare(o.Since); order != 0 {
		return order < 0
	}
	return h.Key.compare(o.Key) < 0
}

// oldest is the index of the holder of the address among those who have it; h has at least one.
func (h *holding) oldest() int {
	first := 0
	for i := range h.holders {
		if h.holders[i].before(&h.holders[first]) {
			first = i
		}
	}
	return first
}

// next is when a claim is made that is to be the youngest on the address.
func (h *holding) next(now time.Time) time.Time {
	now = now.Truncate(time.Microsecond)
	for i := range h.holders {
		if since := h.holders[i].Since; !since.Before(now) {
			now = since.Add(time.Microsecond)
		}
	}
	return now
}

// checkShare says why the Service may not be on the address with those who have it already.
func (a *Allocator) checkShare(r *Request, addr netip.Addr, h *holding) *Refusal {
	if h == nil {
		return nil
	}
	own, holds := h.find(r.Key)
	if holds && h.oldest() == own {
		return nil
	}
	kept := holds && h.holders[own].Grandfathered && len(r.Consent) == 0
	// Of those in the way the oldest is told: who joins later does not change what a Service that waits was told.
	var first *holder
	var why Reason
	var port Port
	for i := range h.holders {
		o := &h.holders[i]
		if o.Key == r.Key || first != nil && first.before(o) {
			continue
		}
		reason, common := conflict(r, o, kept && o.Grandfathered)
		if reason == "" && !holds && o.Outdated && o.Namespace != r.Key.Namespace {
			reason = NotShared
		}
		if reason != "" {
			first, why, port = o, reason, common
		}
	}
	if first == nil {
		return nil
	}
	return notShared(why, port, r, first, addr, h.pool())
}

// conflict says why two Services may not share an address, as the table above has it. With kept, consent is not asked
// for.
func conflict(r *Request, o *holder, kept bool) (Reason, Port) {
	switch {
	case r.Share == "" || o.Share == "":
		return NotShared, Port{}
	case r.Share != o.Share:
		return OtherShareKey, Port{}
	case !kept && !consent(r, o):
		return NotShared, Port{}
	}
	if port, common := r.common(o.Ports); common {
		return PortConflict, port
	}
	if (r.Local || o.Local) && (r.Backend != o.Backend || r.Backend == "") {
		return PolicyConflict, Port{}
	}
	return "", Port{}
}

// common is a port that the Service has and that is among those of another one.
func (r *Request) common(ports []Port) (port Port, found bool) {
	for _, port := range r.Ports {
		if slices.Contains(ports, port) {
			return port, true
		}
	}
	return Port{}, false
}

// consent reports whether the two Services are of one namespace, or each names the other's.
func consent(r *Request, o *holder) bool {
	return r.Key.Namespace == o.Namespace || r.Consent.to(o.Namespace) && o.Consent.to(r.Key.Namespace)
}

// notShared refuses. What the Service of another namespace is called and has, nobody is told: the sentence is the same
// whatever is in the way, so that no key, port or consent can be guessed by asking.
func notShared(reason Reason, port Port, r *Request, o *holder, addr netip.Addr, pool string) *Refusal {
	if r.Key.Namespace != o.Namespace {
		return refuse(NotShared, "Address %s is held by a Service of another namespace, which does not share it with %s: that takes one sharing key, "+
			"consent of both sides, no port in common and externalTrafficPolicy Cluster. Ask for another address.", addr, r.Key).at(addr, pool)
	}
	return notSharedWithin(reason, port, r, o, addr).at(addr, pool).by(o.Key)
}

func notSharedWithin(reason Reason, port Port, r *Request, o *holder, addr netip.Addr) *Refusal {
	switch reason {
	case OtherShareKey:
		return refuse(reason, "Address %s is held by %s under another sharing key: give both the same key, or ask for another address.", addr, o.Key)
	case PortConflict:
		return refuse(reason, "Address %s is held by %s, which serves %s too: change one of the ports, or ask for another address.", addr, o.Key, port)
	case PolicyConflict:
		return refuse(reason, "Address %s is held by %s, and with externalTrafficPolicy Local both must have the same selector: make both Cluster, or ask for another address.",
			addr, o.Key)
	}
	without := "neither of the two has a sharing key"
	switch {
	case r.Share != "":
		without = o.Key.String() + " has no sharing key"
	case o.Share != "":
		without = r.Key.String() + " has no sharing key"
	}
	return refuse(reason, "Address %s is held by %s, and %s: give both the same key, or ask for another address.", addr, o.Key, without)
}

// shareable is the address under the Service's sharing key that it may join: of the pool tried first, the lowest. If
// there is none, no says why it may not join the one of its own namespace.
func (a *Allocator) shareable(r *Request, family int) (best netip.Addr, no *Refusal) {
	rank := len(a.order)
	for _, addr := range a.shared[r.Share] {
		place, h := a.find(addr), a.holdings[addr]
		if index(addr) != family || place == nil || place.pool.rank >= rank || !h.open(r) || place.pool.turnsAway(r) != "" {
			continue
		}
		switch refused := a.check(r, addr); {
		case refused == nil:
			best, rank = addr, place.pool.rank
		case no == nil && refused.ofSharing() && refused.Holder != Key{}:
			no = refused
		}
	}
	return best, no
}

// open reports whether all on the address are of the Service's namespace or have agreed with it to share. It formats
// nothing, as strangers may have very many addresses under a key.
func (h *holding) open(r *Request) bool {
	for i := range h.holders {
		if o := &h.holders[i]; o.Key != r.Key && !consent(r, o) {
			return false
		}
	}
	return true
}

// ofSharing reports whether the address is refused because of who shares it.
func (r *Refusal) ofSharing() bool {
	switch r.Reason {
	case NotShared, OtherShareKey, PortConflict, PolicyConflict:
		return true
	}
	return false
}

// Apart says why the Service has an address for itself although it has a sharing key, and an older Service of its
// namespace has an address under the same key. It is nil when the Service shares, or has nothing to join. Nothing that
// Services of other namespaces do changes it.
func (a *Allocator) Apart(r *Request) *Refusal {
	if r.Share == "" {
		return nil
	}
	for _, own := range a.held[r.Key] {
		mine := a.holdings[own]
		if _, asked := r.asked(FamilyOf(own)); asked || !slices.Contains(r.Families, FamilyOf(own)) || len(mine.holders) > 1 {
			continue
		}
		for _, addr := range a.shared[r.Share] {
			if addr == own || index(addr) != index(own) {
				continue
			}
			if no := a.elderInTheWay(r, addr, &mine.holders[0]); no != nil {
				return no
			}
		}
	}
	return nil
}

// elderInTheWay says why the Service may not join an older one of its namespace that has the address under its sharing key.
func (a *Allocator) elderInTheWay(r *Request, addr netip.Addr, own *holder) *Refusal {
	h := a.holdings[addr]
	for i := range h.holders {
		o := &h.holders[i]
		if o.Key == r.Key || o.Namespace != r.Key.Namespace || o.Share != r.Share || !o.before(own) {
			continue
		}
		if reason, port := conflict(r, o, false); reason != "" {
			return notShared(reason, port, r, o, addr, h.pool())
		}
	}
	return nil
}

// Juniors are the Services of the same namespace that have an address for themselves under the sharing key, and have it for
// less long than the Service has addr: what Apart says of them depends on that Service.
func (a *Allocator) Juniors(key Key, addr netip.Addr, share string) (juniors []Key) {
	claim, holds := a.Claim(addr, key)
	if !holds || share == "" {
		return nil
	}
	elder := holder{Key: key, Claim: claim}
	for _, other := range a.shared[share] {
		h := a.holdings[other]
		if first := &h.holders[0]; len(h.holders) == 1 && first.Namespace == key.Namespace && elder.before(first) {
			juniors = append(juniors, first.Key)
		}
	}
	return juniors
}

// Forfeits reports whether the Service has to leave an address that it holds even if it gets no other one: it is in the
// way of another Service there, which serves one of its ports or is of another namespace, and is not the holder itself; or
// it asks for an internal load balancer and the address is of an external pool.
func (a *Allocator) Forfeits(r *Request, addr netip.Addr) bool {
	h := a.holdings[addr]
	if h == nil {
		return false
	}
	i, holds := h.find(r.Key)
	if !holds {
		return false
	}
	if in, _ := a.PoolOf(addr); r.Internal && a.turned(r, &h.holders[i].Claim, in) {
		return true
	}
	if h.oldest() == i {
		return false
	}
	kept := h.holders[i].Grandfathered && len(r.Consent) == 0
	return slices.ContainsFunc(h.holders, func(o holder) bool {
		if o.Key == r.Key {
			return false
		}
		if o.Namespace == r.Key.Namespace {
			_, common := r.common(o.Ports)
			return common
		}
		reason, _ := conflict(r, &o, kept && o.Grandfathered)
		return reason != ""
	})
}

// Parted is the holder of an address on which the Service is a guest, if an edit of the holder has put them at odds: what
// both were given does not go together any more.
func (a *Allocator) Parted(key Key, addr netip.Addr) (by Key, parted bool) {
	h := a.holdings[addr]
	if h == nil {
		return Key{}, false
	}
	i, holds := h.find(key)
	first := 0
	if holds {
		first = h.oldest()
	}
	if !holds || first == i {
		return Key{}, false
	}
	guest, holder := &h.holders[i], &h.holders[first]
	given := Request{Key: key, Share: guest.Share, Consent: guest.Consent, Ports: guest.Ports, Local: guest.Local, Backend: guest.Backend}
	reason, _ := conflict(&given, holder, guest.Grandfathered && holder.Grandfathered)
	return holder.Key, reason != ""
}

// Outdated reports whether a claim of the Service does not say what it asks for by now.
func (a *Allocator) Outdated(key Key) bool {
	for _, addr := range a.held[key] {
		if claim, _ := a.Claim(addr, key); claim.Outdated {
			return true
		}
	}
	return false
}

// Holder reports whether the Service is the holder of the address: nobody has had it for longer.
func (a *Allocator) Holder(addr netip.Addr, key Key) bool {
	h := a.holdings[addr]
	return h != nil && len(h.holders) > 0 && h.holders[h.oldest()].Key == key
}

// Unconsented reports whether the Service shares the address with Services of other namespaces without consent, as it
// did before that took any.
func (a *Allocator) Unconsented(key Key, addr netip.Addr) bool {
	h := a.holdings[addr]
	if h == nil {
		return false
	}
	i, holds := h.find(key)
	if !holds || !h.holders[i].Grandfathered {
		return false
	}
	return slices.ContainsFunc(h.holders, func(o holder) bool { return o.Grandfathered && o.Namespace != key.Namespace })
}

// Claim is what the Service claims of the address.
func (a *Allocator) Claim(addr netip.Addr, key Key) (claim Claim, holds bool) {
	h := a.holdings[addr]
	if h == nil {
		return Claim{}, false
	}
	i, holds := h.find(key)
	if !holds {
		return Claim{}, false
	}
	return h.holders[i].Claim, true
}

// Renew makes the Service's claim the youngest on the address: it is another Service of the same name.
func (a *Allocator) Renew(addr netip.Addr, key Key, now time.Time) {
	if claim, holds := a.Claim(addr, key); holds {
		claim.Since, claim.Grandfathered = a.holdings[addr].next(now), false
		a.Hold(addr, key, claim)
	}
}

// After is when a claim is made that is younger than all on the address.
func (a *Allocator) After(addr netip.Addr, now time.Time) time.Time {
	if h := a.holdings[addr]; h != nil {
		return h.next(now)
	}
	return now.Truncate(time.Microsecond)
}

// renewed is the claim that the request makes of an address: the place among those who share it is as it was.
func (a *Allocator) renewed(r *Request, given Assigned) Claim {
	claim := r.claim(given.Pool)
	h := a.holdings[given.Addr]
	if h == nil {
		claim.Since = r.Now.Truncate(time.Microsecond)
		return claim
	}
	i, holds := h.find(r.Key)
	if !holds {
		claim.Since = h.next(r.Now)
		return claim
	}
	claim.Since = h.holders[i].Since
	claim.Grandfathered = h.holders[i].Grandfathered && len(r.Consent) == 0
	return claim
}
