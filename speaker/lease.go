package speaker

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// A speaker counts as dead when it has not renewed its Lease for so long.
const (
	leaseDuration = 10 * time.Second
	leaseRenewal  = 3 * time.Second
	leaseTimeout  = 2 * time.Second // of one request
)

// lease is the Lease that says that this speaker lives.
type lease struct {
	Options
	owner metav1.OwnerReference
	heard func(time.Time) // that the API server has answered

	mu       sync.Mutex
	last     *coordinationv1.Lease // as we wrote it; nil asks the API server
	released bool
}

func newLease(options Options, node *corev1.Node, heard func(time.Time)) *lease {
	return &lease{Options: options, owner: ownedBy(node), heard: heard}
}

// ownedBy has the API server delete an object together with the Node.
func ownedBy(node *corev1.Node) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// keep renews the Lease until ctx is done.
func (l *lease) keep(ctx context.Context) {
	failed := false
	for {
		err := l.renew(ctx)
		if err != nil && ctx.Err() == nil && !failed {
			klog.FromContext(ctx).Error(err, "The Lease is not renewed; others may take over")
		}
		failed = err != nil
		again := wait.Jitter(leaseRenewal, 0.1)
		if failed {
			again = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

func (l *lease) renew(ctx context.Context) error {
	return l.write(ctx, l.Node, false)
}

// release gives the Lease up: nobody holds it.
func (l *lease) release(ctx context.Context) error {
	return l.write(ctx, "", true)
}

func (l *lease) write(ctx context.Context, holder string, release bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.released {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	leases := l.Client.CoordinationV1().Leases(l.Namespace)
	desired := l.last.DeepCopy()
	if desired == nil {
		found, err := leases.Get(ctx, l.Node, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err):
			desired = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: l.Node}}
		case err != nil:
			return fmt.Errorf("reading Lease %s/%s: %w", l.Namespace, l.Node, err)
		default:
			desired = found
		}
	}
	l.fill(desired, holder)
	var err error
	if desired.ResourceVersion == "" {
		l.last, err = leases.Create(ctx, desired, metav1.CreateOptions{})
	} else {
		l.last, err = leases.Update(ctx, desired, metav1.UpdateOptions{})
	}
	if err != nil {
		l.last = nil
		return fmt.Errorf("writing Lease %s/%s: %w", l.Namespace, l.Node, err)
	}
	l.released = release
	l.heard(time.Now())
	return nil
}

func (l *lease) fill(desired *coordinationv1.Lease, holder string) {
	if desired.Labels == nil {
		desired.Labels = map[string]string{}
	}
	desired.Labels[v1alpha1.SpeakerLabel] = ""
	desired.OwnerReferences = []metav1.OwnerReference{l.owner}
	seconds := int32(leaseDuration.Seconds())
	now := metav1.NowMicro()
	if held := desired.Spec.HolderIdentity; held == nil || *held != holder {
		desired.Spec.AcquireTime = &now
	}
	desired.Spec.HolderIdentity = &holder
	desired.Spec.LeaseDurationSeconds = &seconds
	desired.Spec.RenewTime = &now
}
