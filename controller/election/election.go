// Package election lets one of several processes work: the one that holds a
// Lease. It keeps to what the leader election of client-go writes into Leases
// (coordination.k8s.io/v1), so that processes of both kinds can be candidates
// side by side. Unlike it, a leader that is told to stop first ends its work,
// then gives up the Lease, and gives up no Lease that has become another's.
package election

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedcoordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// ErrLost is the end of a leader whose Lease another may have by now.
var ErrLost = errors.New("leadership is lost")

// Elector is one candidate.
type Elector struct {
	Leases    typedcoordinationv1.LeasesGetter
	Namespace string
	Name      string
	// Identity is the candidate's own name, which no other process has.
	Identity string
	// Recorder may be nil.
	Recorder record.EventRecorder

	// LeaseDuration is how long others keep off a Lease that is not renewed,
	// RenewDeadline how long the leader tries to renew it before it ends, and
	// RetryPeriod the time between two attempts. Each is shorter than the one
	// before.
	LeaseDuration, RenewDeadline, RetryPeriod time.Duration

	lease *coordinationv1.Lease // as the API server said last
	since time.Time             // when this version was first seen, by our clock

	mu      sync.Mutex
	renewed time.Time // zero unless leading
}

// Run waits until the candidate leads and then runs work, whose context is done
// when ctx is. It renews the Lease until work has returned, releases it, and
// returns what work returned. If the Lease cannot be renewed in time, Run
// returns ErrLost at once, with work still running: the process has to end. Run
// returns nil if ctx is done before the candidate leads.
func (e *Elector) Run(ctx context.Context, work func(ctx context.Context) error) error {
	logger := klog.FromContext(ctx).WithValues("lease", klog.KRef(e.Namespace, e.Name), "identity", e.Identity)
	ctx = klog.NewContext(ctx, logger)
	if !e.acquire(ctx) {
		return nil
	}
	logger.Info("Leading")
	e.tell("became leader")
	worked := make(chan error, 1)
	go func() { worked <- work(ctx) }()
	err := e.keep(context.WithoutCancel(ctx), worked)
	if errors.Is(err, ErrLost) {
		return err
	}
	e.release(context.WithoutCancel(ctx))
	return err
}

// Leader returns the identity of the leader as it was last seen, "" if there is none.
func (e *Elector) Leader() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return holder(e.lease)
}

// Check returns an error if this process leads and could not renew the Lease
// for so long that it should have ended.
func (e *Elector) Check(*http.Request) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	const tolerance = 20 * time.Second
	if age := time.Since(e.renewed); !e.renewed.IsZero() && age > e.LeaseDuration+tolerance {
		return fmt.Errorf("the leader renewed its Lease %s ago, and should have ended", age.Round(time.Second))
	}
	return nil
}

// acquire returns true when the candidate leads, false when ctx is done.
func (e *Elector) acquire(ctx context.Context) bool {
	klog.FromContext(ctx).Info("Waiting to lead")
	for {
		err := e.try(ctx)
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		klog.FromContext(ctx).V(4).Info("Not leading", "reason", err)
		// Candidates that began together do not ask together.
		select {
		case <-ctx.Done():
			return false
		case <-time.After(e.RetryPeriod + rand.N(max(1, e.RetryPeriod/5))):
		}
	}
}

// keep renews the Lease until work has returned, and returns what it did.
func (e *Elector) keep(ctx context.Context, worked <-chan error) error {
	ticker := time.NewTicker(e.RetryPeriod)
	defer ticker.Stop()
	for {
		select {
		case err := <-worked:
			return err
		case <-ticker.C:
		}
		err := e.try(ctx)
		if err == nil {
			continue
		}
		klog.FromContext(ctx).Info("The Lease was not renewed", "reason", err.Error())
		if errors.Is(err, errHeld) || time.Since(e.lastRenewed()) >= e.RenewDeadline {
			return fmt.Errorf("%w: %w", ErrLost, err)
		}
	}
}

func (e *Elector) lastRenewed() time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.renewed
}

// errHeld is the answer while another holds the Lease.
var errHeld = errors.New("the Lease is held")

// try takes or renews the Lease, once. It is bound to the version that was read
// last: a Lease that another has written since is not taken from it.
func (e *Elector) try(ctx context.Context) error {
	start := time.Now()
	end := start.Add(e.timeout())
	if renewed := e.lastRenewed(); !renewed.IsZero() && renewed.Add(e.RenewDeadline).Before(end) {
		end = renewed.Add(e.RenewDeadline)
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	lease, err := e.write(ctx, start)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) || apierrors.IsAlreadyExists(err) {
		// Somebody else wrote it, maybe we ourselves without hearing of it.
		if err := e.read(ctx); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		lease, err = e.write(ctx, start)
	}
	if err != nil {
		return err
	}
	e.see(lease)
	e.mu.Lock()
	e.renewed = start
	e.mu.Unlock()
	return nil
}

// timeout of what is asked of the API server for one attempt: a request that
// hangs leaves time for another.
func (e *Elector) timeout() time.Duration { return max(time.Second, e.RenewDeadline/2) }

func (e *Elector) write(ctx context.Context, now time.Time) (*coordinationv1.Lease, error) {
	// Who does not lead reads first: only versions that it sees change tell that the holder lives.
	if holder(e.lease) != e.Identity {
		if err := e.read(ctx); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	desired, wait := next(e.lease, e.since, e.Identity, e.LeaseDuration, now)
	switch {
	case wait > 0:
		return nil, fmt.Errorf("%w by %s", errHeld, holder(e.lease))
	case e.lease == nil:
		desired.Namespace, desired.Name = e.Namespace, e.Name
		return e.Leases.Leases(e.Namespace).Create(ctx, desired, metav1.CreateOptions{})
	}
	return e.Leases.Leases(e.Namespace).Update(ctx, desired, metav1.UpdateOptions{})
}

// read asks for the Lease; that there is none is an error, too.
func (e *Elector) read(ctx context.Context) error {
	lease, err := e.Leases.Leases(e.Namespace).Get(ctx, e.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		e.see(nil)
	case err == nil:
		e.see(lease)
	}
	return err
}

// see takes in a version of the Lease, nil if there is none.
func (e *Elector) see(lease *coordinationv1.Lease) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lease == nil || lease == nil || e.lease.UID != lease.UID || e.lease.ResourceVersion != lease.ResourceVersion {
		e.since = time.Now()
	}
	e.lease = lease
}

// release gives up the Lease if it is still ours. Others then need not wait
// until it ends by itself.
func (e *Elector) release(ctx context.Context) {
	logger := klog.FromContext(ctx)
	e.mu.Lock()
	e.renewed = time.Time{}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, e.timeout())
	defer cancel()
	for {
		if holder(e.lease) != e.Identity {
			logger.Info("The Lease was another's already")
			return
		}
		_, err := e.Leases.Leases(e.Namespace).Update(ctx, released(e.lease, time.Now()), metav1.UpdateOptions{})
		if apierrors.IsConflict(err) {
			err = e.read(ctx)
			if err == nil {
				continue
			}
		}
		if err != nil {
			logger.Error(err, "The Lease could not be released: others wait until it ends")
			return
		}
		logger.Info("Released the Lease")
		e.tell("stopped leading")
		return
	}
}

func (e *Elector) tell(what string) {
	if e.Recorder != nil && e.lease != nil {
		lease := &coordinationv1.Lease{TypeMeta: metav1.TypeMeta{APIVersion: "coordination.k8s.io/v1", Kind: "Lease"}, ObjectMeta: e.lease.ObjectMeta}
		e.Recorder.Event(lease, corev1.EventTypeNormal, "LeaderElection", e.Identity+" "+what)
	}
}
