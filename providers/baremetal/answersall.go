package baremetal

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// A host with proxy ARP, or an NDP proxy, answers for addresses that it does not have. An address that a foreign host has
// before its first use is replaced by another one of the pool; a host that answers for all of them would so burn the whole
// pool. It is told from a host with a few static addresses by a streak: the addresses of one pool and family that a foreign
// host had before their first use, made after the newest one that was announced.
//
//	fewer than 4                                           each is replaced, as it may be a static address
//	4 and more, of half as many hosts, or 16 and more      nothing is replaced: a host answers for every address
//
// In the second case a Service keeps its address and says HostAnswersAll, and so does the pool. The speakers go on asking for
// the address, and announce it as soon as nobody answers: that ends the streak. In case the host answers for a part of the
// pool only, one Service at a time is given another address: when the streak has gone on for twice as long as when the last one
// was tried, after 5 minutes at first and every 80 minutes in the end. Of the addresses
// that were replaced 16 stay in quarantine, the others are free again.

const (
	streakOfHosts = 4
	streakOfAll   = 16
	// retryOther is the first wait before another address is tried, and retryOtherLast the longest.
	retryOther     = 5 * time.Minute
	retryOtherLast = 80 * time.Minute
	// quarantineMost is how many addresses without a Service stay in quarantine while a host answers for every address.
	quarantineMost = 16
	// lull is longer than speakers take to see that a host is silent.
	lull = 30 * time.Second
)

// part is one family of a pool.
type part struct {
	pool   string
	family ipam.Family
}

func partOf(addr netip.Addr, vip *v1alpha1.VirtualIP) part {
	return part{vip.Spec.Pool, ipam.FamilyOf(addr)}
}

// streak is how many addresses in a row a foreign host had.
type streak struct {
	count          int
	oldest, newest time.Time
	macs           []string
}

// answersAll reports whether a host seems to answer for every address.
func (s *streak) answersAll() bool {
	return s.count >= streakOfAll || s.count >= streakOfHosts && 2*len(s.macs) <= s.count
}

// wait is how long no other address is tried.
func (s *streak) wait() time.Duration {
	return min(max(s.newest.Sub(s.oldest), retryOther), retryOtherLast)
}

// hosts names those that answer.
func (s *streak) hosts() string {
	switch len(s.macs) {
	case 0:
		return "A host answers"
	case 1:
		return "Host " + s.macs[0] + " answers"
	}
	return "Hosts " + few(s.macs) + " answer"
}

// taken reports whether a foreign host had an address before its first use, and still has it.
func taken(vip *v1alpha1.VirtualIP) bool {
	return quarantined(vip) && conflicted(vip) && vip.Status.OwnerSince == nil
}

// foreignMAC is the MAC address of the foreign host, as the speaker says it; empty if it does not.
func foreignMAC(vip *v1alpha1.VirtualIP) string {
	condition := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionConflict)
	if condition == nil {
		return ""
	}
	for _, word := range strings.Fields(condition.Message) {
		if word = strings.TrimRight(word, ".,;:"); len(word) == len("00:00:00:00:00:00") {
			if _, ok := v1alpha1.ParseMAC(word); ok {
				return word
			}
		}
	}
	return ""
}

// judge takes in whether a foreign host has an address, or it was announced.
func (l *ledger) judge(addr netip.Addr, vip *v1alpha1.VirtualIP) {
	if taken(vip) {
		l.taken[addr] = true
		return
	}
	delete(l.taken, addr)
	if vip == nil || vip.Status.OwnerSince == nil {
		return
	}
	if of := partOf(addr, vip); vip.CreationTimestamp.After(l.announced[of]) {
		l.announced[of] = vip.CreationTimestamp.Time
	}
}

// streakOf is that of a part of a pool.
func (l *ledger) streakOf(of part) streak {
	var s streak
	for addr := range l.taken {
		vip := l.vips[addr]
		made := vip.CreationTimestamp.Time
		if partOf(addr, vip) != of || !made.After(l.announced[of]) {
			continue
		}
		s.count++
		if made.After(s.newest) {
			s.newest = made
		}
		if s.oldest.IsZero() || made.Before(s.oldest) {
			s.oldest = made
		}
		if mac := foreignMAC(vip); mac != "" && !slices.Contains(s.macs, mac) && len(s.macs) < streakOfAll {
			s.macs = append(s.macs, mac)
		}
	}
	slices.Sort(s.macs)
	return s
}

// surplus are the addresses in quarantine without a Service that are too many while a host answers for every address: the
// oldest ones.
func (l *ledger) surplus(of part) []netip.Addr {
	if s := l.streakOf(of); !s.answersAll() {
		return nil
	}
	var idle []netip.Addr
	for addr := range l.taken {
		if vip := l.vips[addr]; partOf(addr, vip) == of && len(vip.Spec.Claims) == 0 && vip.Spec.ReservedFor == nil {
			idle = append(idle, addr)
		}
	}
	slices.SortFunc(idle, func(a, b netip.Addr) int {
		return cmp.Or(l.vips[a].CreationTimestamp.Compare(l.vips[b].CreationTimestamp.Time), a.Compare(b))
	})
	return idle[:max(0, len(idle)-quarantineMost)]
}

// replaced reports whether a Service that holds these addresses has another one in place of an address that a foreign host
// has: one of its family that was made later, or that no host has.
func (l *ledger) replaced(addr netip.Addr, held []netip.Addr) bool {
	return slices.ContainsFunc(held, func(other netip.Addr) bool {
		if other == addr || ipam.FamilyOf(other) != ipam.FamilyOf(addr) {
			return false
		}
		if !l.taken[other] {
			return true
		}
		made := l.vips[other].CreationTimestamp.Compare(l.vips[addr].CreationTimestamp.Time)
		return made > 0 || made == 0 && other.Compare(addr) > 0
	})
}

// isSurplus reports whether an address is to be freed though a foreign host has it, and has the others looked at that are.
// The caller locks.
func (p *Provider) isSurplus(addr netip.Addr, vip *v1alpha1.VirtualIP) bool {
	if !p.ledger.taken[addr] || len(vip.Spec.Claims) > 0 {
		return false
	}
	surplus := p.ledger.surplus(partOf(addr, vip))
	for _, other := range surplus {
		if other != addr {
			p.places.Add(other)
		}
	}
	return slices.Contains(surplus, addr)
}

// isSiege reports whether a host answers for every address of a part of a pool. Once it does, that goes on until an address
// is announced or none is answered for: the addresses of a streak fall silent one by one. The caller locks.
func (p *Provider) isSiege(of part, s *streak) bool {
	return s.answersAll() || p.sieges[of] && s.count > 0
}

// lull is how long an address that a Service kept stays after another one has been announced: the same may be about to be said
// of it. The caller locks.
func (p *Provider) lull(of part, now time.Time) time.Duration {
	if p.sieges[of] {
		return lull // it has not been noticed yet
	}
	return p.ended[of].Add(lull).Sub(now)
}

// keeping are the addresses of a Service that stay though a foreign host has them, as another one would fare no better, and
// those of them that it is time to try another one for. The Service is woken when that time comes. The caller locks.
func (p *Provider) keeping(request *ipam.Request) (keeps, due []netip.Addr) {
	held := p.ledger.allocator.Held(request.Key)
	for _, addr := range held {
		if !p.ledger.taken[addr] || slices.Contains(request.Addresses, addr) || p.ledger.replaced(addr, held) {
			continue
		}
		of := partOf(addr, p.ledger.vips[addr])
		s := p.ledger.streakOf(of)
		if !p.isSiege(of, &s) {
			if rest := p.lull(of, request.Now); rest > 0 && slices.Contains(p.keeps[request.Key], addr) {
				keeps = append(keeps, addr)
				p.retries.AddAfter(request.Key, rest)
			}
			continue
		}
		wait := s.wait()
		// Up to an eighth later, so that not all Services try at once.
		wait += time.Duration(score(request.Key.String(), addr.String()) % uint64(wait/8))
		last := s.newest
		if tried := p.tried[of]; tried.After(last) {
			last = tried
		}
		rest := last.Add(wait).Sub(request.Now)
		if rest <= 0 {
			due, rest = append(due, addr), wait
		} else {
			keeps = append(keeps, addr)
		}
		p.retries.AddAfter(request.Key, rest)
	}
	return keeps, due
}

// assignKeeping assigns, so that a Service keeps what it would replace in vain. The caller locks.
func (p *Provider) assignKeeping(request *ipam.Request) (ipam.Assignment, error) {
	keeps, due := p.keeping(request)
	request.Keeps = keeps
	assignment, err := p.ledger.allocator.Assign(request)
	if err != nil && len(due) > 0 { // there is no other one to try
		request.Keeps = slices.Concat(keeps, due)
		assignment, err = p.ledger.allocator.Assign(request)
	}
	for _, addr := range due {
		p.tried[partOf(addr, p.ledger.vips[addr])] = request.Now // whatever came of it
	}
	if len(request.Keeps) > 0 {
		p.keeps[request.Key] = request.Keeps
	} else {
		delete(p.keeps, request.Key)
	}
	return assignment, err
}

// retry has a Service looked at whose time to try another address has come.
func (p *Provider) retry(_ context.Context, key ipam.Key) error {
	p.wakeKey(key)
	return nil
}

// besieged says what a Service on the address is told when a host answers for every address, empty if none does. The caller
// locks.
func (p *Provider) besieged(addr netip.Addr, vip *v1alpha1.VirtualIP) string {
	of := partOf(addr, vip)
	if !p.ledger.taken[addr] || !vip.CreationTimestamp.After(p.ledger.announced[of]) {
		return ""
	}
	s := p.ledger.streakOf(of)
	if !p.isSiege(of, &s) {
		return ""
	}
	return fmt.Sprintf("%s for every address (proxy ARP?): for this one, and for all new %s addresses of pool %q before it. It is announced when nobody answers any more. "+
		"Turn off proxy ARP or the NDP proxy on that host, or leave what it answers for out of the pool.", s.hosts(), of.family, of.pool)
}

// siegesOf says of a pool which hosts answer for every address of a family. The caller locks.
func (p *Provider) siegesOf(pool string) (sentences []string) {
	for _, family := range []ipam.Family{ipam.IPv4, ipam.IPv6} {
		of := part{pool, family}
		if s := p.ledger.streakOf(of); p.isSiege(of, &s) {
			sentences = append(sentences, fmt.Sprintf(
				"%s for every %s address (proxy ARP?): new addresses are not announced until nobody answers any more. Turn off proxy ARP or the NDP proxy there, or leave what it answers for out of the pool.",
				s.hosts(), family))
		}
	}
	return sentences
}

// readSieges finds the parts of pools that a host answers all addresses of. The caller locks.
func (p *Provider) readSieges() {
	for addr := range p.ledger.taken {
		of := partOf(addr, p.ledger.vips[addr])
		if s := p.ledger.streakOf(of); !p.sieges[of] && s.answersAll() {
			p.sieges[of] = true
		}
	}
}

// siegeChanged looks whether a host begins or ceases to answer for every address of the pool of a VirtualIP, and has those
// looked at that say so.
func (p *Provider) siegeChanged(vip *v1alpha1.VirtualIP) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil {
		return
	}
	of := partOf(addr, vip)
	p.mu.Lock()
	if !p.ledger.taken[addr] && !p.sieges[of] {
		p.mu.Unlock()
		return
	}
	s := p.ledger.streakOf(of)
	now := p.isSiege(of, &s)
	changed := now != p.sieges[of]
	var all []*v1alpha1.VirtualIP
	if changed {
		if p.sieges[of] = now; !now {
			delete(p.sieges, of)
			delete(p.tried, of)
			p.ended[of] = time.Now()
		}
		for addr := range p.ledger.taken {
			if vip := p.ledger.vips[addr]; partOf(addr, vip) == of {
				all = append(all, vip)
			}
		}
	}
	p.mu.Unlock()
	if changed {
		p.poolStatuses.AddAfter(of.pool, statusDelay)
		p.wakeClaims(all...)
	}
}
