package e2e

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func sharing(key string, port int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		annotated("heraldlb.io/share", key)(s)
		s.Spec.Ports[0].Port = port
	}
}

func TestSharingIsGrantedAndRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	web := func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} }
	w.service("a", all(web, sharing("k", 80)))
	addr := w.address("a")
	w.service("b", all(web, sharing("k", 81)))
	w.becomes("b", addr)
	w.address("b")

	// One owner for all on the address, and both ports answer.
	w.owner(addr)
	for _, port := range []uint16{80, 81} {
		w.eventually(fmt.Sprintf("port %d answers", port), func() error {
			_, err := request(w.ctx, "client", addr, port)
			return err
		})
	}
	if claims := w.virtualIP(addr).Spec.Claims; len(claims) != 2 || claims[0].Name != "a" || claims[1].Name != "b" {
		t.Errorf("claims %+v: want a and b", claims)
	}

	at := annotated("heraldlb.io/addresses", addr.String())
	for _, c := range []struct {
		name   string
		edit   func(*corev1.Service)
		reason v1alpha1.Reason
		word   string
	}{
		{"port-conflict", all(sharing("k", 80), at), v1alpha1.PortConflict, "port 80"},
		{"other-key", all(sharing("other", 82), at), v1alpha1.OtherShareKey, "key"},
		{"no-key", all(at, func(s *corev1.Service) { s.Spec.Ports[0].Port = 82 }), v1alpha1.NotShared, "key"},
		{"local", all(sharing("k", 82), at, local), v1alpha1.PolicyConflict, w.namespace},
	} {
		w.service(c.name, c.edit)
		w.refused(c.name, c.reason, c.word)
	}

	// A change on one evicts the one that changed.
	w.annotate("b", "heraldlb.io/share", "mine")
	w.eventually("b has an address of its own", func() error {
		if now := shown(w.get("b")); len(now) != 1 || now[0] == addr {
			return fmt.Errorf("has %v", now)
		}
		return nil
	})
	w.becomes("a", addr)
	w.eventually("the address is a's alone", func() error {
		if claims := w.virtualIP(addr).Spec.Claims; len(claims) != 1 || claims[0].Name != "a" {
			return fmt.Errorf("claims %+v", claims)
		}
		return nil
	})
	w.reachable(addr)
}

func TestLocalServicesWithOneSelectorShare(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node2")
	web := func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} }
	w.service("a", all(web, local, sharing("k", 80)))
	addr := w.address("a")
	w.service("b", all(web, local, sharing("k", 81)))
	w.becomes("b", addr)
	if owner := w.owner(addr); owner != "node2" {
		t.Errorf("owner %s: want node2, which has the pod of both", owner)
	}
}

// outside waits until the pool counts so many addresses that it no longer has.
func (w *world) outside(pool string, count int64) {
	w.Helper()
	w.eventually(fmt.Sprintf("pool %s has %d addresses outside", pool, count), func() error {
		now, err := herald.AddressPools.Get(w.ctx, pool, metav1.GetOptions{})
		w.must(err)
		if now.Status.AddressesOutside != count {
			return fmt.Errorf("%d", now.Status.AddressesOutside)
		}
		return nil
	})
}

func TestPoolEditsNeverRenumber(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	whole, half := w.v4.String(), netip.PrefixFrom(nth(w.v4, 128), 25).String()
	pool := w.pool("edited", nil, whole)
	w.pods("web", "node1")
	want := nth(w.v4, 40)
	w.service("web", annotated("heraldlb.io/addresses", want.String()))
	w.becomes("web", want)
	w.annotate("web", "heraldlb.io/addresses", "")
	version := ""
	kept := func(after string) {
		t.Helper()
		w.always("kept after: "+after, 300*time.Millisecond, func() error {
			s := w.get("web")
			if now := shown(s); len(now) != 1 || now[0] != want {
				return fmt.Errorf("has %v", now)
			}
			if version != "" && s.ResourceVersion != version {
				return fmt.Errorf("the Service was written")
			}
			version = s.ResourceVersion
			return nil
		})
		w.reachable(want)
	}
	w.address("web")
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned) // nothing is left to be written
	kept("nothing")

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = []string{half} })
	w.outside(pool.Name, 1)
	kept("shrinking")
	// Nothing new comes from what went.
	w.service("asks", annotated("heraldlb.io/addresses", nth(w.v4, 41).String()))
	w.refused("asks", v1alpha1.OutsidePools)

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = []string{whole} })
	w.outside(pool.Name, 0)
	kept("growing again")
	w.becomes("asks", nth(w.v4, 41))

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Exclude = []string{want.String()} })
	w.outside(pool.Name, 1)
	kept("excluding it")
	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Exclude = nil })
	w.outside(pool.Name, 0)

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Namespaces = []string{"elsewhere"} })
	kept("selecting others")
	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Namespaces = []string{w.namespace} })

	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool); s.Scope = v1alpha1.ScopeInternal })
	kept("turning internal")
	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = nil; s.Scope = v1alpha1.ScopeExternal })

	younger := w.pool("younger", nil, netip.PrefixFrom(w.v4.Addr(), 25).String())
	w.poolSays(younger.Name, v1alpha1.Overlap, pool.Name)
	kept("an overlap")
	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = []string{half} })
	kept("a split: the younger pool has it now")
	w.must(herald.AddressPools.Delete(w.ctx, younger.Name, metav1.DeleteOptions{}))
	kept("deleting that one")
	w.must(herald.AddressPools.Delete(w.ctx, pool.Name, metav1.DeleteOptions{}))
	kept("deleting the pool")
	w.pool("edited", nil, whole)
	kept("making it again")
	w.must(herald.AddressPools.Delete(w.ctx, pool.Name, metav1.DeleteOptions{}))
	w.pool("renamed", nil, whole)
	kept("renaming it")
}

func (w *world) reserve(addr netip.Addr, edit func(*v1alpha1.VirtualIPSpec)) {
	w.Helper()
	vip := &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.VirtualIPName(addr)},
		Spec:       v1alpha1.VirtualIPSpec{Address: addr.String()},
	}
	if edit != nil {
		edit(&vip.Spec)
	}
	_, err := herald.VirtualIPs.Create(w.ctx, vip, metav1.CreateOptions{})
	w.must(err)
}

func TestReservedAddressIsKeptForItsService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	mine, nobodys := nth(w.v4, 50), nth(w.v4, 51)
	w.reserve(mine, func(s *v1alpha1.VirtualIPSpec) {
		s.ReservedFor = &v1alpha1.ServiceReference{Namespace: w.namespace, Name: "web"}
	})
	w.reserve(nobodys, nil)
	w.eventually("the reservation is held", func() error {
		if hold := w.virtualIP(mine).Spec.Hold; hold != v1alpha1.Unclaimed {
			return fmt.Errorf("hold %q", hold)
		}
		return nil
	})
	w.service("thief", annotated("heraldlb.io/addresses", mine.String()))
	w.refused("thief", v1alpha1.Reserved, w.namespace+"/web")
	w.service("squatter", annotated("heraldlb.io/addresses", nobodys.String()))
	w.refused("squatter", v1alpha1.Reserved)
	w.service("web", nil)
	w.becomes("web", mine)
	w.must(herald.VirtualIPs.Delete(w.ctx, v1alpha1.VirtualIPName(nobodys), metav1.DeleteOptions{}))
	w.becomes("squatter", nobodys)
}

func TestRetainedAddressComesBackWithItsService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pool("kept", func(s *v1alpha1.AddressPoolSpec) { s.ReclaimPolicy = v1alpha1.ReclaimRetain }, w.v4.String())
	w.pods("web", "node1")
	w.service("web", nil)
	addr := w.address("web")
	w.reachable(addr)
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "web", metav1.DeleteOptions{}))
	w.eventually("the address is kept for the Service", func() error {
		spec := w.virtualIP(addr).Spec
		if len(spec.Claims) > 0 || spec.ReservedFor == nil || spec.ReservedFor.Name != "web" || spec.Hold != v1alpha1.Unclaimed {
			return fmt.Errorf("spec %+v", spec)
		}
		return nil
	})
	w.silent(addr)
	w.service("other", annotated("heraldlb.io/addresses", addr.String()))
	w.refused("other", v1alpha1.Reserved, w.namespace+"/web")
	w.service("web", nil)
	w.becomes("web", addr)
	w.reachable(addr)
}

func TestDeletedVirtualIPInUseIsMadeAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	w.service("web", nil)
	addr := w.address("web")
	uid := w.virtualIP(addr).UID
	w.must(herald.VirtualIPs.Delete(w.ctx, v1alpha1.VirtualIPName(addr), metav1.DeleteOptions{}))
	w.eventually("it is made again", func() error {
		vip, err := herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(addr), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if vip.UID == uid || len(vip.Spec.Claims) != 1 {
			return fmt.Errorf("VirtualIP %+v", vip.Spec)
		}
		return nil
	})
	w.told("Service", "web", v1alpha1.VirtualIPRemade)
	w.becomes("web", addr)
	w.reachable(addr)
}
