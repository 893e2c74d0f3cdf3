package baremetal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// This file has what the Provider does about Services that share an address:
// the holder, who has had it for longest, and its guests. Package ipam has the
// rules.

// createdAt is when the Service was made; zero when it is not there.
func (p *Provider) createdAt(key ipam.Key) time.Time {
	service, err := p.services.Services(key.Namespace).Get(key.Name)
	if err != nil {
		return time.Time{}
	}
	return service.CreationTimestamp.Time
}

// renewInherited makes claims of an earlier Service of the same name as young as
// the Service; the caller locks.
func (p *Provider) renewInherited(service *corev1.Service, now time.Time) {
	key := keyOf(service)
	for _, addr := range p.ledger.allocator.Held(key) {
		vip := p.ledger.vips[addr]
		if vip == nil || len(vip.Spec.Claims) < 2 {
			continue
		}
		if i := findClaim(vip, key.Namespace, key.Name); i >= 0 && vip.Spec.Claims[i].UID != "" && vip.Spec.Claims[i].UID != service.UID {
			p.ledger.allocator.Renew(addr, key, now)
		}
	}
}

// forfeited are the addresses that a refused Service has to leave even though it
// gets no other one; the caller locks. Where its annotations cannot be read, what
// it was given counts, beside the ports that it has now.
func (p *Provider) forfeited(service *corev1.Service, request *ipam.Request) []netip.Addr {
	var addresses []netip.Addr
	key := keyOf(service)
	for _, addr := range p.ledger.allocator.Held(key) {
		r := request
		if r == nil {
			r = factsOf(service)
			held, _ := p.ledger.allocator.Claim(addr, key)
			r.Share, r.Consent, r.Internal = held.Share, held.Consent, held.Scope == ipam.Internal
		}
		if p.ledger.allocator.Forfeits(r, addr) {
			addresses = append(addresses, addr)
		}
	}
	return addresses
}

// planRefused brings the claim of a refused Service, which keeps the address, up
// to date: kube-proxy serves its ports as they are now, whatever it is refused
// for, and a holder may take its key and consent back at any time. What a guest
// asks for in vain is not in the way of the others, but keeps Services of other
// namespaces from joining. The scope stays: it says
// what the address was given for. The caller locks.
func (p *Provider) planRefused(service *corev1.Service, request *ipam.Request, addr netip.Addr) []*claimWrite {
	key, vip := keyOf(service), p.ledger.vips[addr]
	claim, now := vip.Spec.Claims[findClaim(vip, service.Namespace, service.Name)], claimFor(service)
	claim.Ports = now.Ports
	if request != nil && p.ledger.allocator.Holder(addr, key) {
		claim.ExternalTrafficPolicy, claim.HealthCheckNodePort = now.ExternalTrafficPolicy, now.HealthCheckNodePort
		claim.Share, claim.ShareNamespaces = now.Share, now.ShareNamespaces
		claim.Grandfathered = claim.Grandfathered && len(now.ShareNamespaces) == 0
	}
	held, _ := p.ledger.allocator.Claim(addr, key)
	p.ledger.allocator.Hold(addr, key, holdingFor(&claim, held.Pool, service))
	if _, changed := claimed(vip, addr, vip.Spec.Pool, "", claim); !changed {
		return nil
	}
	return p.planClaim(key, ipam.Assigned{Addr: addr, Pool: vip.Spec.Pool}, claim)
}

func (p *Provider) isOutdated(key ipam.Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ledger.allocator.Outdated(key)
}

// parting is a guest that an edit of the holder sends away.
type parting struct {
	addr   netip.Addr
	holder ipam.Key
}

// partedFrom are the addresses that the Service shows and that their holder does
// not share with it any more.
func (p *Provider) partedFrom(service *corev1.Service) []parting {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []parting
	for _, addr := range shownBy(service) {
		if holder, parted := p.ledger.allocator.Parted(keyOf(service), addr); parted {
			all = append(all, parting{addr, holder})
		}
	}
	return all
}

// tellParted tells a guest and its holder that the guest leaves, once its status
// is not to show the address any more. Names stay within their namespace.
func (p *Provider) tellParted(guest *corev1.Service, parted []parting, status *corev1.LoadBalancerStatus) {
	told := map[netip.Addr]bool{}
	for _, from := range parted {
		if told[from.addr] {
			continue
		}
		told[from.addr] = true
		shows := func(entry corev1.LoadBalancerIngress) bool { return entry.IP == from.addr.String() }
		if status == nil || slices.ContainsFunc(status.Ingress, shows) {
			continue
		}
		leaver, stayer := "A Service of another namespace", "a Service of another namespace"
		if from.holder.Namespace == guest.Namespace {
			leaver, stayer = keyOf(guest).String(), from.holder.String()
		}
		p.Recorder.Event(guest, corev1.EventTypeWarning, string(v1alpha1.SharingEnded), fmt.Sprintf(
			"It leaves %s, where it was a guest of %s: since an edit of that Service the two cannot share an address.", from.addr, stayer))
		holder, err := p.services.Services(from.holder.Namespace).Get(from.holder.Name)
		if err != nil {
			continue // it is gone meanwhile
		}
		p.Recorder.Event(holder, corev1.EventTypeNormal, string(v1alpha1.SharingEnded), fmt.Sprintf(
			"%s leaves %s, where it was a guest: since an edit of this Service the two cannot share an address.", leaver, from.addr))
	}
}

// sharingNotes is what a Service that has its addresses should know of how it
// shares them; the caller locks.
func (p *Provider) sharingNotes(request *ipam.Request) []*v1alpha1.Refusal {
	var notes []*v1alpha1.Refusal
	if no := p.ledger.allocator.Apart(request); no != nil {
		notes = append(notes, v1alpha1.Refuse(v1alpha1.Reason(no.Reason), "It does not share an address with the others of its sharing key. %s", no.Message))
	}
	for _, addr := range p.ledger.allocator.Held(request.Key) {
		if p.ledger.allocator.Unconsented(request.Key, addr) {
			notes = append(notes, v1alpha1.Refuse(v1alpha1.SharedWithoutConsent,
				"It shares %s with a Service of another namespace from before that took consent, and goes on: to consent, both name the other's namespace in %s; to end it, change the sharing key.",
				addr, annotations.ShareNamespaces))
		}
	}
	return notes
}

// tellNotes tells what the condition of the Service does not say yet.
func (p *Provider) tellNotes(service *corev1.Service, notes []*v1alpha1.Refusal) {
	said := ""
	if condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady); condition != nil {
		said = condition.Message
	}
	for _, note := range notes {
		if !strings.Contains(said, note.Message) {
			p.Recorder.Event(service, corev1.EventTypeWarning, string(note.Reason), note.Message)
		}
	}
}

// noteApart remembers that the Service could not join the others of its sharing
// key, so that it is looked at when they change; the caller locks.
func (p *Provider) noteApart(request *ipam.Request) {
	if p.ledger.allocator.Apart(request) != nil {
		p.apart[request.Key] = true
		return
	}
	delete(p.apart, request.Key)
}

// wakeSharers has the other Services of an address looked at after a write of
// one's claim: guests may have to leave. Services that might join it, or might
// not any more, are told so.
func (p *Provider) wakeSharers(w *claimWrite) {
	if w.opens() {
		p.wakeJuniors(w)
	}
	if w.desired == nil {
		return
	}
	for i := range w.desired.Spec.Claims {
		key := ipam.Key{Namespace: w.desired.Spec.Claims[i].Namespace, Name: w.desired.Spec.Claims[i].Name}
		if key != w.key {
			p.wakeKey(key)
		}
	}
}

// wakeJuniors has the Services looked at that have an address for themselves
// under the key that a Service had before the write, or has since.
func (p *Provider) wakeJuniors(w *claimWrite) {
	was := w.before.Spec.Claims[findClaim(w.before, w.key.Namespace, w.key.Name)]
	is := w.desired.Spec.Claims[findClaim(w.desired, w.key.Namespace, w.key.Name)]
	p.mu.Lock()
	juniors := p.ledger.allocator.Juniors(w.key, w.addr, is.Share)
	if was.Share != is.Share {
		juniors = append(juniors, p.ledger.allocator.Juniors(w.key, w.addr, was.Share)...)
	}
	p.mu.Unlock()
	for _, key := range juniors {
		p.wakeKey(key)
	}
}

// opens reports whether the write changes with whom a Service shares an address
// that it had already: others may join.
func (w *claimWrite) opens() bool {
	if w.before == nil || w.desired == nil {
		return false
	}
	was, is := findClaim(w.before, w.key.Namespace, w.key.Name), findClaim(w.desired, w.key.Namespace, w.key.Name)
	if was < 0 || is < 0 {
		return false
	}
	before, after := w.before.Spec.Claims[was], w.desired.Spec.Claims[is]
	before.Since, before.Scope, before.Grandfathered = after.Since, after.Scope, after.Grandfathered
	before.UID, before.HealthCheckNodePort = after.UID, after.HealthCheckNodePort
	return !equality.Semantic.DeepEqual(before, after)
}
