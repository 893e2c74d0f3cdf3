package election

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// next returns the Lease as a candidate writes it, or for how long it has to
// wait, because another holds it.
//
//	lease as seen            what the candidate does
//	none                     creates it
//	its own                  renews it
//	without a holder         takes it
//	another's, and not       takes it
//	changed for its duration
//	another's                waits
//
// since is when this version was first seen. Clocks are not compared: what the
// holder wrote as its time is not looked at.
func next(lease *coordinationv1.Lease, since time.Time, identity string, duration time.Duration, now time.Time) (desired *coordinationv1.Lease, wait time.Duration) {
	if lease == nil {
		lease = &coordinationv1.Lease{}
	}
	desired = lease.DeepCopy()
	spec := &desired.Spec
	at := metav1.NewMicroTime(now)
	if current := holder(lease); current != identity {
		if current != "" {
			if wait := since.Add(durationOf(lease)).Sub(now); wait > 0 {
				return nil, wait
			}
		}
		spec.AcquireTime = &at
		spec.LeaseTransitions = ptr.To(ptr.Deref(spec.LeaseTransitions, 0) + 1)
		if lease.ResourceVersion == "" {
			spec.LeaseTransitions = ptr.To[int32](0)
		}
	}
	spec.HolderIdentity = &identity
	spec.LeaseDurationSeconds = ptr.To(int32(duration / time.Second))
	spec.RenewTime = &at
	return desired, 0
}

// released is the Lease without a holder. Its duration is short for candidates
// that look at nothing else.
func released(lease *coordinationv1.Lease, now time.Time) *coordinationv1.Lease {
	lease = lease.DeepCopy()
	at := metav1.NewMicroTime(now)
	lease.Spec.HolderIdentity = ptr.To("")
	lease.Spec.LeaseDurationSeconds = ptr.To[int32](1)
	lease.Spec.RenewTime, lease.Spec.AcquireTime = &at, &at
	return lease
}

func holder(lease *coordinationv1.Lease) string {
	if lease == nil {
		return ""
	}
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

func durationOf(lease *coordinationv1.Lease) time.Duration {
	return time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
}
