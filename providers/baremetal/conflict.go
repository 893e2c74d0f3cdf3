package baremetal

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// conflicted says whether a host that is none of ours answers for the address.
func conflicted(vip *v1alpha1.VirtualIP) bool {
	return vip != nil && meta.IsStatusConditionTrue(vip.Status.Conditions, v1alpha1.ConditionConflict)
}

// blocked says whether the address is not announced while another host has it.
func blocked(vip *v1alpha1.VirtualIP) bool {
	return conflicted(vip) && vip.Status.Owner == "" && !meta.IsStatusConditionTrue(vip.Status.Conditions, v1alpha1.ConditionAnnounced)
}

// quarantined says whether the address should be given to nobody: another host
// had it before its first use, or when its last Service left it.
func quarantined(vip *v1alpha1.VirtualIP) bool {
	return vip != nil && (vip.Spec.Hold == v1alpha1.Conflict || blocked(vip) && vip.Status.OwnerSince == nil)
}

// tellConflict tells the Services of an address that another host has it, or
// has it no more. Where the address is not announced, their conditions say so.
func (p *Provider) tellConflict(ctx context.Context, addr netip.Addr, known, after *v1alpha1.VirtualIP) {
	switch was, is := conflicted(known), conflicted(after); {
	case is && !was && !blocked(after):
		p.event(ctx, after, corev1.EventTypeWarning, v1alpha1.AddressConflict, conflictMessage(after))
	case was && !is:
		message := fmt.Sprintf("No other host uses %s any more.", addr)
		if after.Spec.L2 == nil {
			message = fmt.Sprintf("%s is not announced on the network any more, where another host used it.", addr)
		}
		p.event(ctx, after, corev1.EventTypeNormal, v1alpha1.NoConflict, message)
		p.places.Add(addr) // it may be free
		p.wakeWaiting()
	}
	if blocked(known) != blocked(after) {
		p.wakeClaims(after)
	}
}

// conflictMessage is what the speaker says of the other host, with its MAC.
func conflictMessage(vip *v1alpha1.VirtualIP) string {
	message := fmt.Sprintf("Another host uses %s.", vip.Spec.Address)
	if condition := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionConflict); condition != nil && condition.Message != "" {
		message += " " + condition.Message
	}
	return message
}

// conflictOf is the VirtualIP that the Service should leave for the sake of
// another host, if there is one; the caller locks.
func (p *Provider) conflictOf(request *ipam.Request) *v1alpha1.VirtualIP {
	for _, addr := range p.ledger.allocator.Held(request.Key) {
		if no := p.ledger.allocator.Check(request, addr); no != nil && no.Reason == ipam.AddressConflict {
			return p.ledger.vips[addr]
		}
	}
	return nil
}

// replacements tell which address was replaced by which one on account of
// another host; the caller locks. An assignment that is repeated adds nothing,
// and so nothing is told twice.
func (p *Provider) replacements(assignment *ipam.Assignment) []string {
	var messages []string
	for _, old := range assignment.Released {
		vip := p.ledger.vips[old]
		if !quarantined(vip) {
			continue
		}
		for _, added := range assignment.Added {
			if ipam.FamilyOf(added) == ipam.FamilyOf(old) {
				messages = append(messages, fmt.Sprintf("%s %s replaces it.", conflictMessage(vip), added))
			}
		}
	}
	return messages
}

// free deletes the VirtualIP of an address whose quarantine is over.
func (p *Provider) free(ctx context.Context, addr netip.Addr, vip *v1alpha1.VirtualIP) error {
	err := p.Herald.VirtualIPs.Delete(ctx, vip.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
		UID: &vip.UID, ResourceVersion: &vip.ResourceVersion,
	}})
	if apierrors.IsConflict(err) {
		return p.reread(ctx, vip)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("deleting VirtualIP %s: %w", vip.Name, err)
	}
	p.mu.Lock()
	p.ledger.bury(vip, false)
	p.countPool(addr, vip)
	p.mu.Unlock()
	p.siegeChanged(vip)
	p.wakeWaiting()
	return nil
}
