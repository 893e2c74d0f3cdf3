package election

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/internal/fakeapi"
)

func TestNext(t *testing.T) {
	now := time.Unix(1000, 0)
	at := metav1.NewMicroTime(now)
	lease := func(holder string, seconds, transitions int32) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, LeaseTransitions: &transitions},
		}
	}
	for _, c := range []struct {
		name        string
		lease       *coordinationv1.Lease
		seen        time.Duration // before now
		wait        time.Duration
		transitions int32
		acquires    bool
	}{
		{name: "there is none", transitions: 0, acquires: true},
		{name: "its own", lease: lease("me", 15, 3), transitions: 3},
		{name: "its own, not renewed for long", lease: lease("me", 15, 3), seen: time.Hour, transitions: 3},
		{name: "released", lease: lease("", 1, 3), transitions: 4, acquires: true},
		{name: "another's", lease: lease("other", 15, 3), seen: 14 * time.Second, wait: time.Second},
		{name: "another's, at the end", lease: lease("other", 15, 3), seen: 15 * time.Second, transitions: 4, acquires: true},
		{name: "another's, for a time of its own", lease: lease("other", 60, 3), seen: 15 * time.Second, wait: 45 * time.Second},
		{name: "never filled", lease: &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "7"}}, transitions: 1, acquires: true},
	} {
		got, wait := next(c.lease, now.Add(-c.seen), "me", 15*time.Second, now)
		if wait != c.wait {
			t.Errorf("%s: waits %v, want %v", c.name, wait, c.wait)
		}
		if c.wait > 0 {
			if got != nil {
				t.Errorf("%s: writes %+v, want nothing", c.name, got)
			}
			continue
		}
		spec := got.Spec
		if *spec.HolderIdentity != "me" || *spec.LeaseDurationSeconds != 15 || *spec.RenewTime != at || *spec.LeaseTransitions != c.transitions {
			t.Errorf("%s: writes %+v", c.name, spec)
		}
		if acquires := spec.AcquireTime != nil && *spec.AcquireTime == at; acquires != c.acquires {
			t.Errorf("%s: acquired at %v", c.name, spec.AcquireTime)
		}
		if c.lease != nil && got.ResourceVersion != "7" {
			t.Errorf("%s: is not bound to the version that was read", c.name)
		}
	}
}

// stage is an API server with candidates for one Lease.
type stage struct {
	*testing.T
	api    *fakeapi.Server
	client kubernetes.Interface
}

func onStage(t *testing.T, play func(s *stage)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := fakeapi.New(t)
		client, err := kubernetes.NewForConfig(api.Config())
		if err != nil {
			t.Fatal(err)
		}
		play(&stage{t, api, client})
	})
}

func (s *stage) candidate(identity string) *Elector {
	return &Elector{
		Leases: s.client.CoordinationV1(), Namespace: "herald-system", Name: "leader", Identity: identity,
		LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second,
	}
}

func (s *stage) lease() *coordinationv1.Lease {
	s.Helper()
	lease, err := s.client.CoordinationV1().Leases("herald-system").Get(s.Context(), "leader", metav1.GetOptions{})
	if err != nil {
		s.Fatal(err)
	}
	return lease
}

// write lets the API server have the Lease as others wrote it.
func (s *stage) write(edit func(*coordinationv1.Lease)) {
	s.Helper()
	err := retry.RetryOnConflict(retry.DefaultRetry, func() error {
		lease := s.lease()
		edit(lease)
		_, err := s.client.CoordinationV1().Leases("herald-system").Update(s.Context(), lease, metav1.UpdateOptions{})
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
}

func heldBy(identity string) func(*coordinationv1.Lease) {
	return func(l *coordinationv1.Lease) { l.Spec.HolderIdentity = &identity }
}

// run is a candidate in its own goroutine.
type run struct {
	leading, working atomic.Bool
	finish           chan struct{} // lets the work end
	ended            chan error
	stop             context.CancelFunc
}

// end tells a candidate to end, lets its work end at once, and waits for it.
func (r *run) end() {
	r.stop()
	close(r.finish)
	<-r.ended
}

// start runs a candidate whose work goes on until it is told to finish.
func (s *stage) start(e *Elector) *run {
	ctx, cancel := context.WithCancel(s.Context())
	s.Cleanup(cancel)
	r := &run{finish: make(chan struct{}), ended: make(chan error, 1), stop: cancel}
	go func() {
		r.ended <- e.Run(ctx, func(ctx context.Context) error {
			r.leading.Store(true)
			r.working.Store(true)
			<-ctx.Done()
			<-r.finish
			r.working.Store(false)
			return nil
		})
	}()
	return r
}

func (s *stage) is(what string, got, want any) {
	s.Helper()
	if got != want {
		s.Errorf("%s: %v, want %v", what, got, want)
	}
}

func TestLeaderReleasesWhenItsWorkHasEnded(t *testing.T) {
	onStage(t, func(s *stage) {
		first := s.start(s.candidate("first"))
		time.Sleep(time.Second)
		second := s.start(s.candidate("second"))
		time.Sleep(time.Minute)
		s.is("the first leads", first.leading.Load(), true)
		s.is("the second leads", second.leading.Load(), false)

		// Its work takes longer than a Lease lasts: it is renewed until then.
		first.stop()
		time.Sleep(40 * time.Second)
		s.is("the holder while work goes on", holder(s.lease()), "first")
		s.is("the second leads", second.leading.Load(), false)
		close(first.finish)
		synctest.Wait()
		s.is("the end of the first", <-first.ended, error(nil))
		s.is("the holder then", holder(s.lease()), "")
		time.Sleep(2500 * time.Millisecond)
		s.is("the second leads", second.leading.Load(), true)
		s.is("the holder in the end", holder(s.lease()), "second")
		s.is("transitions", ptr.Deref(s.lease().Spec.LeaseTransitions, 0), int32(1))
		second.end()
	})
}

func TestDeadLeaderIsReplacedWhenItsLeaseHasEnded(t *testing.T) {
	onStage(t, func(s *stage) {
		first := s.start(s.candidate("first"))
		time.Sleep(3300 * time.Millisecond)
		first.end()
		// As if it had died: the Lease is its, and nobody renews it. Its clock was wrong, too.
		s.write(func(l *coordinationv1.Lease) {
			heldBy("first")(l)
			l.Spec.LeaseDurationSeconds = ptr.To[int32](15)
			l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now().Add(time.Hour)))
		})
		second := s.start(s.candidate("second"))
		time.Sleep(14 * time.Second)
		s.is("the second leads", second.leading.Load(), false)
		time.Sleep(4 * time.Second)
		s.is("the second leads", second.leading.Load(), true)
		second.end()
	})
}

// The Lease is another's by now: it is neither renewed nor released.
func TestLeaderLeavesTheLeaseOfAnotherAlone(t *testing.T) {
	onStage(t, func(s *stage) {
		first := s.start(s.candidate("first"))
		time.Sleep(3300 * time.Millisecond)
		s.write(heldBy("other"))
		version := s.lease().ResourceVersion
		err := <-first.ended
		s.is("it ends", errors.Is(err, ErrLost), true)
		s.is("it does not wait for its work", first.working.Load(), true)
		s.is("the version of the Lease", s.lease().ResourceVersion, version)
		first.stop()
		close(first.finish)
	})
	t.Run("while it stops", func(t *testing.T) {
		onStage(t, func(s *stage) {
			e := s.candidate("first")
			first := s.start(e)
			time.Sleep(3300 * time.Millisecond)
			first.stop()
			s.write(heldBy("other"))
			version := s.lease().ResourceVersion
			close(first.finish) // before the next renewal
			s.is("its end", <-first.ended, error(nil))
			s.is("the holder", holder(s.lease()), "other")
			s.is("the version of the Lease", s.lease().ResourceVersion, version)
		})
	})
}

// A write whose answer was lost is no reason to end, or to leave the Lease.
func TestWritesWhoseAnswerIsLost(t *testing.T) {
	onStage(t, func(s *stage) {
		e := s.candidate("first")
		first := s.start(e)
		time.Sleep(3300 * time.Millisecond)
		for range 3 {
			s.write(func(l *coordinationv1.Lease) { l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now())) })
			time.Sleep(3300 * time.Millisecond)
			s.is("the holder", holder(s.lease()), "first")
		}
		if err := s.client.CoordinationV1().Leases("herald-system").Delete(s.Context(), "leader", metav1.DeleteOptions{}); err != nil {
			s.Fatal(err)
		}
		time.Sleep(3300 * time.Millisecond)
		s.is("the holder of the Lease made again", holder(s.lease()), "first")
		first.stop()
		s.write(func(l *coordinationv1.Lease) { l.Spec.RenewTime = ptr.To(metav1.NewMicroTime(time.Now())) })
		close(first.finish)
		s.is("its end", <-first.ended, error(nil))
		s.is("the holder", holder(s.lease()), "")
	})
}

func TestLeaderThatCannotRenewEndsBeforeItsLease(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(request string, s *stage) error
	}{
		{"refused", func(string, *stage) error { return apierrors.NewInternalError(fmt.Errorf("no")) }},
		{"silent", func(_ string, s *stage) error {
			<-s.Context().Done()
			return errors.New("too late")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				var away atomic.Bool
				s.api.Before = func(request string) error {
					if away.Load() && strings.Contains(request, "leases/") {
						return c.refuse(request, s)
					}
					return nil
				}
				e := s.candidate("first")
				first := s.start(e)
				time.Sleep(9 * time.Second)
				// A short outage is survived.
				away.Store(true)
				time.Sleep(5 * time.Second)
				away.Store(false)
				time.Sleep(10 * time.Second)
				s.is("it works", first.working.Load(), true)
				s.is("it is healthy", e.Check(nil), error(nil))
				away.Store(true)
				began := time.Now()
				err := <-first.ended
				s.is("it ends", errors.Is(err, ErrLost), true)
				if took := time.Since(began); took > 13*time.Second {
					s.Errorf("it ended after %v: its Lease had ended before it", took)
				}
				time.Sleep(time.Minute)
				s.is("what goes on nevertheless is healthy", e.Check(nil) == nil, false)
				first.stop()
				close(first.finish)
			})
		})
	}
}

// A candidate waits for an API server that refuses or is silent, and ends when it is told to.
func TestCandidateWaits(t *testing.T) {
	onStage(t, func(s *stage) {
		var away atomic.Bool
		away.Store(true)
		s.api.Before = func(string) error {
			if away.Load() {
				return errors.New("not now")
			}
			return nil
		}
		first, second := s.start(s.candidate("first")), s.start(s.candidate("second"))
		time.Sleep(time.Hour)
		second.stop()
		s.is("the end of one that never led", <-second.ended, error(nil))
		s.is("it led", second.leading.Load(), false)
		away.Store(false)
		time.Sleep(3300 * time.Millisecond)
		s.is("the other leads", first.leading.Load(), true)
		first.end()
	})
}
