package speaker

import (
	"unique"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// lean is what informers keep of objects: of all without what only the API server needs, and of VirtualIPs, which may be very
// many, no more than a speaker reads. A VirtualIP as it is kept is good for writing its status, and for nothing else: the API
// server takes the rest from its own copy.
func lean(object any) (any, error) {
	if o, ok := object.(metav1.Object); ok {
		o.SetManagedFields(nil)
	}
	if vip, ok := object.(*v1alpha1.VirtualIP); ok {
		leanVirtualIP(vip)
	}
	return object, nil
}

func leanVirtualIP(vip *v1alpha1.VirtualIP) {
	vip.ObjectMeta = metav1.ObjectMeta{
		Name: vip.Name, UID: vip.UID, ResourceVersion: vip.ResourceVersion, Generation: vip.Generation, CreationTimestamp: vip.CreationTimestamp,
	}
	if vip.Spec.Address == vip.Name {
		vip.Spec.Address = vip.Name // one string
	}
	vip.Spec.Pool, vip.Spec.ReclaimPolicy, vip.Spec.ReservedFor = "", "", nil
	for i := range vip.Spec.Claims {
		claim := &vip.Spec.Claims[i]
		*claim = v1alpha1.Claim{Namespace: once(claim.Namespace), Name: claim.Name, HealthCheckNodePort: claim.HealthCheckNodePort}
	}
	vip.Spec.Hold = once(vip.Spec.Hold)
	onceEach(vip.Spec.TerminatingNodes)
	if l2 := vip.Spec.L2; l2 != nil {
		onceEach(l2.Candidates)
		onceEach(l2.Interfaces)
		for i := range l2.Peers {
			p := &l2.Peers[i]
			p.Node, p.Address, p.MAC = once(p.Node), once(p.Address), once(p.MAC)
		}
	}
	if bgp := vip.Spec.BGP; bgp != nil {
		onceEach(bgp.Advertisements)
		for i := range bgp.Limits {
			bgp.Limits[i].Advertisement = once(bgp.Limits[i].Advertisement)
			onceEach(bgp.Limits[i].Nodes)
		}
	}
	vip.Status.Owner = once(vip.Status.Owner)
	for i := range vip.Status.Conditions {
		c := &vip.Status.Conditions[i]
		c.Type, c.Status, c.Reason, c.Message = once(c.Type), once(c.Status), once(c.Reason), once(c.Message)
	}
}

// once is the text, which is in memory once however many objects have it.
func once[T ~string](text T) T { return unique.Make(text).Value() }

func onceEach(texts []string) {
	for i, text := range texts {
		texts[i] = once(text)
	}
}
