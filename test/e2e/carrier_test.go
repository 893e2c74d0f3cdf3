package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// segment gives the test a second LAN, which the API server is not on, with a Service on it.
func (w *world) segment() netip.Addr {
	w.Helper()
	hosts := append(box.Nodes(), "client")
	w.must(box.AddSegment(w.ctx, hosts...))
	w.Cleanup(func() { w.must(box.RemoveSegment(context.Background(), hosts...)) })
	w.pool("segment", nil, "100.65.0.200/32")
	w.pods("web", box.Nodes()...)
	w.service("web", nil)
	addr := w.address("web")
	w.owner(addr)
	return addr
}

// versions counts what is written of a VirtualIP during a span of time.
func (w *world) versionsOf(addr netip.Addr, span time.Duration) int {
	w.Helper()
	vip := w.virtualIP(addr)
	watching, err := herald.VirtualIPs.Watch(w.ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + vip.Name, ResourceVersion: vip.ResourceVersion,
	})
	w.must(err)
	defer watching.Stop()
	count := 0
	for end := time.After(span); ; {
		select {
		case event, ok := <-watching.ResultChan():
			if !ok {
				w.Fatal("the watch has ended")
			}
			if event.Type == watch.Modified {
				count++
			}
		case <-end:
			return count
		}
	}
}

func (w *world) onSegment(addr netip.Addr) error {
	answer, err := box.Get(w.ctx, "client", "http://"+addr.String())
	if err == nil && answer == "" {
		err = errors.New("an empty answer")
	}
	return err
}

// The cable of the owner is out on the LAN of the address, and its way to the API server is well: the next one takes the
// address, and the API server is left alone.
func TestANodeWithoutCarrierDoesNotOwn(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		addr := w.segment()
		lost := w.owner(addr)
		w.eventually("the client is served", func() error { return w.onSegment(addr) })
		w.must(box.Unplug(w.ctx, lost))
		pulled := time.Now()
		next := w.ownerOtherThan(addr, lost)
		w.eventually("the client is served by "+next, func() error { return w.onSegment(addr) })
		t.Logf("%s took over from %s within %v", next, lost, time.Since(pulled))
		if count := w.versionsOf(addr, 15*time.Second); count > 6 {
			t.Errorf("%d versions of the VirtualIP in 15 s", count)
		}
		if now := w.owner(addr); now != next {
			t.Errorf("owner %s, want %s", now, next)
		}
		w.must(box.Plug(w.ctx, lost))
		if count := w.versionsOf(addr, 5*time.Second); count > 4 {
			t.Errorf("%d versions of the VirtualIP after the cable is back", count)
		}
		if now := w.owner(addr); now != next {
			t.Errorf("owner %s, want %s: no failback", now, next)
		}
	})
}

// With every cable out nobody owns, and it is said why.
func TestWithoutAnyCarrierNobodyOwns(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		addr := w.segment()
		for _, node := range box.Nodes() {
			w.must(box.Unplug(w.ctx, node))
		}
		w.eventually("it is said that there is no interface", func() error {
			vip := w.virtualIP(addr)
			c := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionAnnounced)
			if vip.Status.Owner != "" || c == nil || c.Status != metav1.ConditionFalse || c.Reason != string(v1alpha1.NoInterface) {
				return fmt.Errorf("status %+v", vip.Status)
			}
			return has(c.Message, "eth1", "carrier")
		})
		if count := w.versionsOf(addr, 15*time.Second); count > 6 {
			t.Errorf("%d versions of the VirtualIP in 15 s", count)
		}
		for _, node := range box.Nodes() {
			w.must(box.Plug(w.ctx, node))
		}
		w.owner(addr)
		w.eventually("the client is served again", func() error { return w.onSegment(addr) })
	})
}

// The second LAN falls apart, and each part reaches the API server: each of the two that answer says so once.
func TestTwoThatBothBelieveLeaveTheAPIServerAlone(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		addr := w.segment()
		alone := w.owner(addr)
		w.must(box.CutSegment(w.ctx, alone))
		w.Cleanup(func() { w.must(box.MendSegment(context.Background())) })
		w.ownerOtherThan(addr, alone)
		if count := w.versionsOf(addr, 15*time.Second); count > 6 {
			t.Errorf("%d versions of the VirtualIP in 15 s", count)
		}
		w.must(box.MendSegment(w.ctx))
		w.eventually("the VirtualIP names who answers", func() error {
			if err := w.onSegment(addr); err != nil {
				return err
			}
			vip := w.virtualIP(addr)
			if vip.Status.Owner == "" {
				return errors.New("no owner")
			}
			return nil
		})
	})
}
