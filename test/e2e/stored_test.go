package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// withoutRules has AddressPools stored as by a version that did not know the rules yet.
func (w *world) withoutRules(store func()) {
	w.Helper()
	shipped := filepath.Join(box.Config().Root, "deploy/crds/heraldlb.io_addresspools.yaml")
	restore := func() {
		if _, err := box.Kubectl(context.Background(), "replace", "-f", shipped); err != nil {
			w.Error(err)
		}
	}
	w.Cleanup(restore)
	var patches []string
	for _, path := range []string{"spec", "spec/properties/addresses"} {
		patches = append(patches, fmt.Sprintf(`{"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/properties/%s/x-kubernetes-validations"}`, path))
	}
	_, err := box.Kubectl(w.ctx, "patch", "crd", "addresspools.heraldlb.io", "--type=json", "-p", "["+strings.Join(patches, ",")+"]")
	w.must(err)
	store()
	restore()
}

// What an older version stored, and a rule of this one refuses, can still be labelled, has its status written and can be mended;
// so can a Service that has an address of such a pool. Nothing new of its kind comes in.
func TestStoredObjectsThatANewRuleRefusesStayWritable(t *testing.T) {
	w := newWorld(t)
	w.pods("web", "node1")
	proxied := w.pool("proxied", func(s *v1alpha1.AddressPoolSpec) { s.IPMode, s.Announce = v1alpha1.IPModeProxy, v1alpha1.AnnounceNever }, w.v4.String())
	w.service("web", nil)
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	addr := w.address("web")
	broken := &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-broken"},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: []string{w.v6.String(), "2001:db8::/129"}, Namespaces: []string{w.namespace}},
	}
	w.Cleanup(func() {
		w.must(ignoreNotFound(herald.AddressPools.Delete(context.Background(), broken.Name, metav1.DeleteOptions{})))
	})
	w.withoutRules(func() {
		w.quietly("a pool with an address that is none", func() error {
			_, err := herald.AddressPools.Create(w.ctx, broken, metav1.CreateOptions{})
			return err
		})
		w.quietly("a pool with ipMode Proxy that is announced", func() error {
			pool, err := herald.AddressPools.Get(w.ctx, proxied.Name, metav1.GetOptions{})
			w.must(err)
			pool.Spec.Announce = ""
			_, err = herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})
			return err
		})
	})
	w.eventually("the rules are there again", func() error {
		fresh := broken.DeepCopy()
		fresh.Name, fresh.ResourceVersion = w.namespace+"-fresh", ""
		made, err := herald.AddressPools.Create(w.ctx, fresh, metav1.CreateOptions{})
		if err == nil {
			w.must(herald.AddressPools.Delete(w.ctx, made.Name, metav1.DeleteOptions{}))
			return fmt.Errorf("%s was taken", made.Spec.Addresses)
		}
		return has(err.Error(), "each entry must be a prefix")
	})

	w.poolSays(broken.Name, v1alpha1.InvalidRange, "2001:db8::/129")
	for _, pool := range []string{broken.Name, proxied.Name} {
		_, err := box.Kubectl(w.ctx, "label", "addresspool", pool, "kept=yes")
		w.must(err)
	}
	w.editPool(broken.Name, func(s *v1alpha1.AddressPoolSpec) { s.Priority = 7 }) // the field that is refused stays as it is
	w.service("six", all(families(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol), func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} }))
	w.reachable(w.address("six"))
	w.eventually("the pool counts what it gave", func() error {
		pool, err := herald.AddressPools.Get(w.ctx, broken.Name, metav1.GetOptions{})
		w.must(err)
		if pool.Status.IPv6.Allocated != 1 {
			return fmt.Errorf("status %+v", pool.Status)
		}
		return nil
	})

	// The Service keeps its address, is told, and can be edited.
	w.annotate("web", "example.com/touched", "yes")
	w.says("web", metav1.ConditionFalse, v1alpha1.ConflictingRequests, "announce: None")
	if got := shown(w.get("web")); len(got) != 1 || got[0] != addr {
		t.Errorf("it has %v, want %s", got, []netip.Addr{addr})
	}
	w.editPool(proxied.Name, func(s *v1alpha1.AddressPoolSpec) { s.Announce = v1alpha1.AnnounceNever })
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	w.editPool(broken.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = s.Addresses[:1] })
}
