package speaker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	owner func() *metav1.OwnerReference // the Node; nil while there is none, or none that is known to be there
	heard func(time.Time)               // that the API server has answered
	back  func()                        // called when the Lease is renewed that had ended, and the first time
	wake  chan struct{}                 // to renew now
	// renewed is when that was done last. given: the Lease has been given up.
	renewed atomic.Pointer[time.Time]
	given   atomic.Bool

	mu   sync.Mutex
	last *coordinationv1.Lease // as we wrote it; nil asks the API server
}

func newLease(options Options, owner func() *metav1.OwnerReference, heard func(time.Time)) *lease {
	return &lease{Options: options, owner: owner, heard: heard, back: func() {}, wake: make(chan struct{}, 1)}
}

// ownedBy has the API server delete an object together with the Node.
func ownedBy(node *corev1.Node) *metav1.OwnerReference {
	return &metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}
}

// errNoNode is why nothing is made that belongs to the Node: with the UID of one that is gone, the garbage collector would
// delete it again and again.
var errNoNode = errors.New("the Node does not exist, or is not known to")

// holds reports whether the controller takes this speaker for alive: what it says may be overruled otherwise.
func (l *lease) holds(now time.Time) bool {
	at := l.renewed.Load()
	return l.given.Load() || at != nil && now.Sub(*at) < leaseDuration
}

// hurry has the Lease renewed now.
func (l *lease) hurry() {
	select {
	case l.wake <- struct{}{}:
	default: // it is known already
	}
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
		case <-l.wake:
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
	if l.given.Load() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, leaseTimeout)
	defer cancel()
	held := l.holds(time.Now())
	err := l.put(ctx, holder)
	if apierrors.IsNotFound(err) {
		err = l.put(ctx, holder) // somebody has deleted it
	}
	if err != nil {
		return err
	}
	now := time.Now()
	l.given.Store(release)
	l.renewed.Store(&now)
	l.heard(now)
	if !held {
		l.back()
	}
	return nil
}

// put writes the Lease over the last one that is known. After an error the API server is asked for it. The caller holds mu.
func (l *lease) put(ctx context.Context, holder string) error {
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
	owner := l.owner()
	if owner == nil && desired.ResourceVersion == "" {
		return fmt.Errorf("creating Lease %s/%s: %w", l.Namespace, l.Node, errNoNode)
	}
	l.fill(desired, holder, owner)
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
	return nil
}

func (l *lease) fill(desired *coordinationv1.Lease, holder string, owner *metav1.OwnerReference) {
	if desired.Labels == nil {
		desired.Labels = map[string]string{}
	}
	desired.Labels[v1alpha1.SpeakerLabel] = ""
	if owner != nil {
		desired.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	seconds := int32(leaseDuration.Seconds())
	now := metav1.NowMicro()
	if held := desired.Spec.HolderIdentity; held == nil || *held != holder {
		desired.Spec.AcquireTime = &now
	}
	desired.Spec.HolderIdentity = &holder
	desired.Spec.LeaseDurationSeconds = &seconds
	desired.Spec.RenewTime = &now
}
