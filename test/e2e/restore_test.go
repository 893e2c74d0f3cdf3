package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// etcd is restored from a backup, and nothing of Herald's is started anew: what there is counts, not what was remembered.
func TestEtcdIsRestoredFromABackup(t *testing.T) {
	w := newWorld(t)
	w.pool("public", nil, w.v4.String())
	names := []string{"edited", "stays", "deleted", "retyped", "again"}
	before := map[string]netip.Addr{}
	for _, name := range names {
		w.pods(name, "node1", "node2", "node3")
		w.service(name, nil)
		before[name] = w.address(name)
		w.says(name, metav1.ConditionTrue, v1alpha1.AddressAssigned)
	}
	// One that keeps its Lease all the time: an API server that is away for longer than a Lease lasts ends the leader.
	w.must(box.Stop(w.ctx, "controller"))
	const controller = "forced-restore"
	w.startController(controller, "--leader-elect=false")
	w.Cleanup(func() {
		if !box.Running("controller") { // the test went wrong
			w.must(box.Kill(context.Background(), controller))
			w.must(box.StartAgain("controller"))
		}
	})
	w.must(box.Backup(w.ctx))

	// What the backup knows nothing of, with enough versions that the restored API server does not reach them soon.
	for i := range 5 {
		w.service(fmt.Sprint("after-", i), nil)
		w.address(fmt.Sprint("after-", i))
	}
	for i := range 100 {
		w.annotate("stays", "example.com/turn", fmt.Sprint(i))
	}
	other := w.v4.Addr().Next().Next()
	for range 3 {
		w.annotate("edited", "heraldlb.io/addresses", other.String())
		w.eventually("it has the other address", func() error {
			if now := shown(w.get("edited")); len(now) != 1 || now[0] != other {
				return fmt.Errorf("shows %v", now)
			}
			return nil
		})
		w.annotate("edited", "heraldlb.io/addresses", before["edited"].String())
		w.eventually("it has its own address", func() error {
			if now := shown(w.get("edited")); len(now) != 1 || now[0] != before["edited"] {
				return fmt.Errorf("shows %v", now)
			}
			return nil
		})
	}
	w.annotate("edited", "heraldlb.io/addresses", other.String())
	w.edit("retyped", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	for _, name := range []string{"deleted", "again"} {
		w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, name, metav1.DeleteOptions{}))
	}
	w.eventually("it is gone", func() error {
		_, err := kube.CoreV1().Services(w.namespace).Get(w.ctx, "again", metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("it is there")
		}
		return ignoreNotFound(err)
	})
	w.service("again", nil)
	w.address("again")

	start := time.Now()
	w.must(box.Restore(w.ctx))
	t.Logf("restored in %v", time.Since(start).Round(time.Millisecond))
	for _, name := range names {
		w.quickly("Service "+name+" is served", patience, func() error {
			service := w.get(name)
			if now := shown(service); len(now) != 1 || now[0] != before[name] {
				return fmt.Errorf("shows %v, had %s", now, before[name])
			}
			if c := ready(service); c == nil || c.Status != metav1.ConditionTrue {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}
	for i := range 3 {
		w.service(fmt.Sprint("new-", i), nil)
		w.address(fmt.Sprint("new-", i))
	}
	w.must(kube.CoreV1().Services(w.namespace).Delete(context.Background(), "new-0", metav1.DeleteOptions{}))
	w.eventually("what Services and VirtualIPs say goes together", w.consistent)
	for _, name := range names {
		w.reachable(before[name])
	}
	w.edit("edited", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	w.eventually("an edit is followed", func() error {
		if s := w.get("edited"); len(shown(s)) > 0 || ready(s) != nil {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
	for _, node := range box.Nodes() {
		w.eventually("its Speaker is written", func() error {
			speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
			w.must(err)
			if at := speaker.Status.Announcing; at == nil {
				return fmt.Errorf("status %+v", speaker.Status)
			}
			return nil
		})
	}
	if !box.Running(controller) {
		t.Error("the controller has ended")
	}
	w.must(box.Stop(w.ctx, controller))
	w.resume()
}
