package baremetal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/runtime"

	"github.com/heraldlb/herald/api/v1alpha1"
)

var eighteen, nineteen = seventeen.Next(), seventeen.Next().Next()

func TestLedgerAfterARestore(t *testing.T) {
	l := plainLedger()
	l.see(life(vip(seventeen, "web"), "u1", 100))
	deleted := life(vip(eighteen, "api"), "u2", 101)
	l.see(deleted)
	l.bury(deleted, false) // and the informer never tells
	old := life(vip(seventeen, "db"), "u1", 50)
	if _, fresh := l.see(old); fresh || !l.ahead(old) {
		t.Error("an older version counts")
	}
	var changed []string
	l.rewind([]*v1alpha1.VirtualIP{old, life(vip(eighteen, "api"), "u2", 40)}, func(before, after *v1alpha1.VirtualIP) {
		changed = append(changed, fmt.Sprintf("%t %s", before != nil, after.ResourceVersion))
	})
	l.want(t, "after the restore", "[db]")
	if got := fmt.Sprint(l.allocator.Holders(eighteen)); got != "[shop/api]" {
		t.Errorf("what was deleted is held by %s", got)
	}
	if got := strings.Join(changed, ", "); got != "true 50, false 40" {
		t.Errorf("changed: %s", got)
	}
	gone := life(vip(nineteen, "x"), "u3", 102)
	gone.ResourceVersion = "" // of no list
	l.bury(gone, true)
	if _, fresh := l.answered(life(vip(nineteen, "new"), "u9", 51)); !fresh {
		t.Error("what is written after the restore is not known")
	}
	if l.rewind([]*v1alpha1.VirtualIP{old}, func(*v1alpha1.VirtualIP, *v1alpha1.VirtualIP) { t.Error("changed again") }); l.ahead(old) {
		t.Error("something newer is known")
	}
}

// etcd is restored from a backup while the controller runs: what there is counts.
func TestControllerAfterARestore(t *testing.T) {
	handlers := runtime.ErrorHandlers
	runtime.ErrorHandlers = nil // one of them sleeps until the time that it is outside of the bubble
	defer func() { runtime.ErrorHandlers = handlers }()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/28")
		w.controller()
		names := []string{"stays", "moved", "deleted", "again", "retyped"}
		addresses := map[string]string{}
		for i, name := range names {
			w.create(lb(name, at(fmt.Sprint("203.0.113.", 17+i))))
			addresses[name] = fmt.Sprint("203.0.113.", 17+i)
			w.untilService(name, addresses[name]+" AddressAssigned")
		}
		w.rest()
		backup := w.api.Version()

		for round := range 5 { // many versions, so that the restored API server does not come to them soon
			for i, address := range []string{"203.0.113.28", addresses["moved"]} {
				w.edit("moved", at(address))
				w.untilService("moved", address+" AddressAssigned")
				w.edit("stays", annotated("example.com/round", fmt.Sprint(round, i)))
			}
		}
		w.edit("moved", at("203.0.113.28"))
		w.untilService("moved", "203.0.113.28 AddressAssigned")
		w.edit("retyped", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
		w.delete("deleted")
		w.delete("again")
		w.rest()
		w.create(lb("again", at("203.0.113.27")))
		for i := range 5 {
			w.create(lb(fmt.Sprint("after", i)))
		}
		for i := range 5 {
			w.wantVerdict(fmt.Sprint("after", i), "Assigned ")
		}
		w.rest()
		w.api.Restore(backup)
		for _, name := range names {
			w.untilService(name, addresses[name]+" AddressAssigned")
		}
		time.Sleep(time.Minute)
		w.create(lb("new", at("203.0.113.28")))
		w.untilService("new", "203.0.113.28 AddressAssigned")
		for i := range 9 { // the pool has room for as many
			w.create(lb(fmt.Sprint("more", i)))
		}
		for i := range 9 {
			w.wantVerdict(fmt.Sprint("more", i), "Assigned ")
		}
		w.edit("stays", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
		w.delete("new")
		w.rest()
		list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
		must(w, err)
		if n := len(list.Items); n != 4+9 {
			t.Errorf("%d VirtualIPs, want 13", n)
		}
		for i := range list.Items {
			for _, claim := range list.Items[i].Spec.Claims {
				service, err := w.kube.CoreV1().Services(claim.Namespace).Get(w.ctx, claim.Name, metav1.GetOptions{})
				if err != nil || service.UID != claim.UID || !strings.HasPrefix(tell(service), list.Items[i].Spec.Address+" ") {
					t.Errorf("VirtualIP %s is claimed by %s: %v, %s", list.Items[i].Name, claim.Name, err, tell(service))
				}
			}
		}
	})
}
