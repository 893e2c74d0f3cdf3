package baremetal

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

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

func findClaim(vip *v1alpha1.VirtualIP, namespace, name string) int {
	return slices.IndexFunc(vip.Spec.Claims, func(c v1alpha1.Claim) bool {
		return c.Namespace == namespace && c.Name == name
	})
}
