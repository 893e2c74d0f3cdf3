package baremetal

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// claimed is the VirtualIP of an address with the claim on it: the one there
// is, or a new one. It says whether that is any change.
func claimed(vip *v1alpha1.VirtualIP, addr netip.Addr, pool string, reclaim v1alpha1.ReclaimPolicy, claim v1alpha1.Claim) (*v1alpha1.VirtualIP, bool) {
	if vip == nil {
		return &v1alpha1.VirtualIP{
			ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.VirtualIPName(addr)},
			Spec: v1alpha1.VirtualIPSpec{
				Address:       addr.String(),
				Pool:          pool,
				ReclaimPolicy: reclaim,
				Claims:        []v1alpha1.Claim{claim},
			},
		}, true
	}
	desired := vip.DeepCopy()
	if pool != "" {
		desired.Spec.Pool = pool
	}
	i := findClaim(desired, claim.Namespace, claim.Name)
	if i < 0 {
		desired.Spec.Claims = append(desired.Spec.Claims, claim)
		slices.SortFunc(desired.Spec.Claims, func(a, b v1alpha1.Claim) int {
			return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
		})
	} else {
		desired.Spec.Claims[i] = claim
	}
	return desired, !equality.Semantic.DeepEqual(vip.Spec, desired.Spec)
}

// unclaimed is the VirtualIP without the Service's claim; nil means that it
// should go. Retained, it is kept for the Service; while another host has the
// address it stays, so that nobody is given it.
func unclaimed(vip *v1alpha1.VirtualIP, key ipam.Key) *v1alpha1.VirtualIP {
	desired := vip.DeepCopy()
	if i := findClaim(desired, key.Namespace, key.Name); i >= 0 {
		desired.Spec.Claims = slices.Delete(desired.Spec.Claims, i, i+1)
	}
	if len(desired.Spec.Claims) > 0 {
		return desired
	}
	retain, conflict := desired.Spec.ReclaimPolicy == v1alpha1.ReclaimRetain, conflicted(vip)
	if !retain && !conflict {
		return nil
	}
	// An address that was never used is nothing to retain.
	if retain && desired.Spec.ReservedFor == nil && !quarantined(vip) {
		desired.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: key.Namespace, Name: key.Name}
	}
	desired.Spec.BGP, desired.Spec.TerminatingNodes = nil, nil
	if conflict {
		desired.Spec.Hold = v1alpha1.Conflict // its candidates go on asking
		return desired
	}
	desired.Spec.Hold, desired.Spec.L2 = v1alpha1.Unclaimed, nil
	return desired
}

// settled completes claims that an older version made, which did not say since
// when. The later of the VirtualIP and the Service was there then, at the
// earliest. Services of several namespaces shared without consent, and go on.
// It returns the VirtualIP itself when nothing lacks.
func settled(vip *v1alpha1.VirtualIP, created func(ipam.Key) time.Time) *v1alpha1.VirtualIP {
	unknown := func(c v1alpha1.Claim) bool { return c.Since == nil }
	if vip.CreationTimestamp.IsZero() || !slices.ContainsFunc(vip.Spec.Claims, unknown) {
		return vip
	}
	vip = vip.DeepCopy()
	var old []*v1alpha1.Claim
	mixed := false
	for i := range vip.Spec.Claims {
		if claim := &vip.Spec.Claims[i]; claim.Since == nil {
			since := vip.CreationTimestamp.Time
			if made := created(ipam.Key{Namespace: claim.Namespace, Name: claim.Name}); made.After(since) {
				since = made
			}
			claim.Since = &metav1.MicroTime{Time: since}
			old = append(old, claim)
			mixed = mixed || claim.Namespace != old[0].Namespace
		}
	}
	for _, claim := range old {
		claim.Grandfathered = mixed
	}
	return vip
}

func findClaim(vip *v1alpha1.VirtualIP, namespace, name string) int {
	return slices.IndexFunc(vip.Spec.Claims, func(c v1alpha1.Claim) bool {
		return c.Namespace == namespace && c.Name == name
	})
}
