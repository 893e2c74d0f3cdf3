package baremetal

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

// tenants adds the namespaces alice and bob.
func (w *world) tenants() {
	w.Helper()
	for _, name := range []string{"alice", "bob"} {
		must(w, first(w.kube.CoreV1().Namespaces().Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})))
	}
}

// put makes or edits the Service in its own namespace.
func (w *world) put(s *corev1.Service) {
	w.Helper()
	services := w.kube.CoreV1().Services(s.Namespace)
	for range 100 {
		now, err := services.Get(w.ctx, s.Name, metav1.GetOptions{})
		if err != nil {
			must(w, first(services.Create(w.ctx, s.DeepCopy(), metav1.CreateOptions{})))
			return
		}
		now.Annotations, now.Spec = s.Annotations, s.Spec
		if _, err := services.Update(w.ctx, now, metav1.UpdateOptions{}); err == nil {
			return
		}
	}
	w.Fatalf("Service %s could not be written", s.Name)
}

// of is a Service of a tenant on a port, with annotations: key, value, key, value.
func of(namespace, name string, port int32, annotations ...string) *corev1.Service {
	s := lb(name, onPort(port))
	s.Namespace = namespace
	for i := 0; i < len(annotations); i += 2 {
		s.Annotations[annotations[i]] = annotations[i+1]
	}
	return s
}

func (w *world) at(namespace, name string) *corev1.Service {
	w.Helper()
	s, err := w.kube.CoreV1().Services(namespace).Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	return s
}

func (w *world) untilAt(namespace, name, want string) {
	w.Helper()
	w.until(namespace+"/"+name, want, func() string { return tell(w.at(namespace, name)) })
}

func message(s *corev1.Service) string {
	if condition := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceReady); condition != nil {
		return condition.Message
	}
	return ""
}

const share, consent, asks = annotations.Share, annotations.ShareNamespaces, annotations.Addresses

// A stranger learns nothing by asking for an address, whatever he tries, and gets it with the consent of both alone.
func TestAStrangerLearnsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tenants()
		w.pool("public", nil, "10.0.0.1-10.0.0.2")
		w.controller()
		w.put(of("alice", "shop", 80, share, "secret-key", asks, "10.0.0.1"))
		w.untilAt("alice", "shop", "10.0.0.1 AddressAssigned")
		said := map[string]bool{}
		for _, s := range []*corev1.Service{
			of("bob", "thief", 443, asks, "10.0.0.1"),
			of("bob", "thief", 443, asks, "10.0.0.1", share, "guess"),
			of("bob", "thief", 443, asks, "10.0.0.1", share, "secret-key"),
			of("bob", "thief", 443, asks, "10.0.0.1", share, "secret-key", consent, "alice"),
			of("bob", "thief", 80, asks, "10.0.0.1", share, "secret-key", consent, "*"),
		} {
			w.put(s)
			w.rest()
			w.untilAt("bob", "thief", "NotShared")
			said[message(w.at("bob", "thief"))] = true
		}
		if len(said) != 1 {
			t.Errorf("refusals differ: %v", said)
		}
		for _, line := range append(w.events.all(), message(w.at("bob", "thief"))) {
			if strings.Contains(line, "secret-key") || strings.Contains(line, "alice/shop") {
				t.Errorf("it is told: %s", line)
			}
		}
		w.put(of("bob", "thief", 443, asks, "10.0.0.1", share, "secret-key", consent, "alice"))
		w.put(of("alice", "shop", 80, share, "secret-key", asks, "10.0.0.1", consent, "bob"))
		w.untilAt("bob", "thief", "10.0.0.1 AddressAssigned")
		w.put(of("alice", "shop", 80, share, "secret-key", asks, "10.0.0.1"))
		w.untilAt("bob", "thief", "NotShared")
		w.untilAt("alice", "shop", "10.0.0.1 AddressAssigned")
		for _, name := range []string{"Service thief Warning SharingEnded", "Service shop Normal SharingEnded"} {
			if !slices.ContainsFunc(w.events.all(), func(line string) bool {
				return strings.HasPrefix(strings.TrimPrefix(line, "Service "), strings.TrimPrefix(name, "Service "))
			}) {
				t.Errorf("no event %q in\n%s", name, strings.Join(w.events.all(), "\n"))
			}
		}
	})
}

// kube-proxy serves the ports that a Service has, whatever it is refused for: a holder that is refused something sends guests
// away as any other does, and so does one that takes its key or consent back.
func TestARefusedHolderIsFollowed(t *testing.T) {
	const nowhere = "192.0.2.1"
	for name, edited := range map[string]*corev1.Service{
		"a port of the guest": func() *corev1.Service {
			s := of("alice", "shop", 80, share, "k", consent, "bob", asks, nowhere)
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "more", Protocol: "TCP", Port: 443})
			return s
		}(),
		"a port of the guest, and what cannot be read": of("alice", "shop", 443, share, "k", consent, "bob", asks, "no address"),
		"consent":         of("alice", "shop", 80, share, "k", asks, nowhere),
		"the sharing key": of("alice", "shop", 80, consent, "bob", asks, nowhere),
		"the policy": func() *corev1.Service {
			s := of("alice", "shop", 80, share, "k", consent, "bob", asks, nowhere)
			s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
			return s
		}(),
	} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, away=%t", name, away), func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.tenants()
					w.pool("public", nil, "10.0.0.1-10.0.0.2")
					_, stop := w.controller()
					w.put(of("alice", "shop", 80, share, "k", consent, "bob", asks, "10.0.0.1"))
					w.untilAt("alice", "shop", "10.0.0.1 AddressAssigned")
					w.put(of("bob", "guest", 443, share, "k", consent, "alice"))
					w.untilAt("bob", "guest", "10.0.0.1 AddressAssigned")
					w.rest()
					if away {
						stop()
					}
					w.put(edited)
					if away {
						w.controller()
					}
					w.untilAt("bob", "guest", "10.0.0.2 AddressAssigned")
					w.rest()
					if got := tell(w.at("alice", "shop")); !strings.HasPrefix(got, "10.0.0.1 ") || strings.HasSuffix(got, "AddressAssigned") {
						t.Errorf("the holder: %s", got)
					}
					told := 0
					for _, line := range w.events.all() {
						if strings.Contains(line, " "+string(v1alpha1.SharingEnded)+":") {
							told++
						}
					}
					if told != 2 {
						t.Errorf("%d are told, want 2:\n%s", told, strings.Join(w.events.all(), "\n"))
					}
				})
			})
		}
	}
}

// A guest that asks for another key, and is left on the address as there is no other one, is moved by no stranger: nobody of
// another namespace joins until it has found a place, or asks for the old key again.
func TestNobodyJoinsAGuestThatWantsToLeave(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%t", restart), func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.tenants()
				w.pool("public", nil, "10.0.0.1")
				_, stop := w.controller()
				w.put(of("bob", "holder", 80, share, "k", consent, "alice"))
				w.untilAt("bob", "holder", "10.0.0.1 AddressAssigned")
				w.put(of("bob", "guest", 443, share, "k", consent, "alice"))
				w.untilAt("bob", "guest", "10.0.0.1 AddressAssigned")
				w.put(of("bob", "guest", 443, share, "other", consent, "alice"))
				w.untilAt("bob", "guest", "10.0.0.1 PoolExhausted")
				w.rest()
				if restart {
					stop()
					w.controller()
				}
				w.put(of("alice", "joiner", 81, share, "k", consent, "bob"))
				w.untilAt("alice", "joiner", "PoolExhausted")
				w.rest()
				w.untilAt("bob", "guest", "10.0.0.1 PoolExhausted")
				w.put(of("bob", "guest", 443, share, "k", consent, "alice"))
				w.untilAt("bob", "guest", "10.0.0.1 AddressAssigned")
				w.untilAt("alice", "joiner", "10.0.0.1 AddressAssigned")
			})
		})
	}
}

// Claims of an older version say neither since when nor with whose consent: nobody is moved, and all is told.
func TestWhatSharedBeforeGoesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		w.tenants()
		w.pool("public", nil, "10.0.0.1-10.0.0.4")
		both := []string{share, "k", asks, "10.0.0.1"}
		_, stop := w.controller()
		w.put(of("alice", "shop", 80, append(both, consent, "bob")...))
		w.put(of("bob", "guest", 443, append(both, consent, "alice")...))
		w.untilAt("bob", "guest", "10.0.0.1 AddressAssigned")
		w.rest()
		stop()
		v := w.vip("10.0.0.1")
		for i := range v.Spec.Claims {
			c := &v.Spec.Claims[i]
			c.Since, c.Scope, c.ShareNamespaces = nil, "", nil
		}
		must(w, first(w.herald.VirtualIPs.Update(w.ctx, v, metav1.UpdateOptions{})))
		w.put(of("alice", "shop", 80, both...))
		w.put(of("bob", "guest", 443, both...))
		for range 2 {
			_, stop = w.controller()
			w.rest()
			w.untilAt("alice", "shop", "10.0.0.1 AddressAssigned")
			w.untilAt("bob", "guest", "10.0.0.1 AddressAssigned")
			for _, claim := range w.vip("10.0.0.1").Spec.Claims {
				if claim.Since == nil || !claim.Grandfathered || claim.Scope != v1alpha1.ScopeExternal {
					t.Errorf("claim of %s: since %v, grandfathered %t, scope %q", claim.Name, claim.Since, claim.Grandfathered, claim.Scope)
				}
			}
			if said := message(w.at("bob", "guest")); !strings.Contains(said, "from before that took consent") {
				t.Errorf("the guest is told %q", said)
			}
			stop()
		}
		w.controller()
		w.put(of("bob", "third", 81, append(both, consent, "*")...))
		w.untilAt("bob", "third", "NotShared")
		w.put(of("alice", "shop", 80, append(both, consent, "else")...))
		w.untilAt("bob", "guest", "NotShared")
		w.untilAt("alice", "shop", "10.0.0.1 AddressAssigned")
	})
}

// A key that could not be honored is told, though there is an address; with none left it is the reason.
func TestAKeyThatCannotBeHonoredIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "10.0.0.1-10.0.0.2")
		w.controller()
		local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
		w.create(lb("a", annotated(share, "k"), local))
		w.rest()
		w.create(lb("b", annotated(share, "k"), onPort(81), local))
		w.rest()
		if said := message(w.get("b")); !strings.Contains(said, "must have the same selector") {
			t.Errorf("b is told %q", said)
		}
		if got := w.events.of("b"); !strings.Contains(got, "Warning PolicyConflict") {
			t.Errorf("events of b: %s", got)
		}
		if said := message(w.get("a")); strings.Contains(said, "selector") {
			t.Errorf("a, which came first, is told %q", said)
		}
		w.create(lb("c", annotated(share, "k"), onPort(82), local))
		w.untilService("c", "PolicyConflict")
	})
}

// Internal means internal, in either order of the addresses, whoever was away when it was asked for, and with no
// internal pool to go to.
func TestInternalIsFollowed(t *testing.T) {
	for _, private := range []string{"10.0.0.1/32", "203.0.113.200/32", ""} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s away=%t", private, away), func(t *testing.T) {
				inWorld(t, func(w *world) {
					w.pool("public", nil, "203.0.113.17/32")
					if private != "" {
						w.pool("private", func(s *v1alpha1.AddressPoolSpec) { s.Scope = v1alpha1.ScopeInternal }, private)
					}
					_, stop := w.controller()
					w.create(lb("web"))
					w.untilService("web", "203.0.113.17 AddressAssigned")
					w.rest()
					if away {
						stop()
					}
					w.edit("web", annotated("service.beta.kubernetes.io/azure-load-balancer-internal", "true"))
					if away {
						w.controller()
					}
					want := strings.TrimSuffix(private, "/32") + " AddressAssigned"
					if private == "" {
						want = "NoPool"
					}
					w.untilService("web", want)
					w.rest()
					for _, line := range w.vips() {
						if strings.Contains(line, "203.0.113.17") {
							t.Errorf("the public address is still there: %s", line)
						}
					}
				})
			})
		}
	}
}
