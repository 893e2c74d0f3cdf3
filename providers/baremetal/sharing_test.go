package baremetal

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

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
		now.Annotations, now.Spec.Ports = s.Annotations, s.Spec.Ports
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

// game is two tenants who edit their Services as they like.
type game struct {
	*world
	rnd  *rand.Rand
	stop func()
	said int // events that were looked at
}

var players = []string{"alice", "bob"}

// step is one edit of one tenant; it returns whose Service it was.
func (g *game) step() (namespace, name string) {
	namespace, name = players[g.rnd.IntN(2)], []string{"x", "y"}[g.rnd.IntN(2)]
	if _, err := g.kube.CoreV1().Services(namespace).Get(g.ctx, name, metav1.GetOptions{}); err == nil && g.rnd.IntN(6) == 0 {
		must(g.world, g.kube.CoreV1().Services(namespace).Delete(g.ctx, name, metav1.DeleteOptions{}))
		return namespace, name
	}
	other := map[string]string{"alice": "bob", "bob": "alice"}[namespace]
	// The ports of the two differ in what they look like, so that they are found in messages.
	port := []int32{7101, 7102, 7103}[g.rnd.IntN(3)]
	s := of(namespace, name, port)
	if g.rnd.IntN(4) > 0 {
		s.Annotations[share] = []string{"sesame", "secret"}[g.rnd.IntN(4)/3]
	}
	if g.rnd.IntN(3) > 0 {
		s.Annotations[consent] = []string{other, "*", "nobody"}[g.rnd.IntN(3)]
	}
	if g.rnd.IntN(2) == 0 {
		s.Annotations[asks] = fmt.Sprintf("10.0.0.%d", 1+g.rnd.IntN(3))
	}
	g.put(s)
	return namespace, name
}

// holders are the address of each Service, and who has held each address for longest.
func (g *game) holders() (holder map[string]string, on map[string]string) {
	holder, on = map[string]string{}, map[string]string{}
	list, err := g.herald.VirtualIPs.List(g.ctx, metav1.ListOptions{})
	must(g.world, err)
	for i := range list.Items {
		v := &list.Items[i]
		var oldest *v1alpha1.Claim
		for j := range v.Spec.Claims {
			c := &v.Spec.Claims[j]
			if c.Since == nil {
				g.Fatalf("%s has no since on %s", c.Name, v.Name)
			}
			on[c.Namespace+"/"+c.Name] = v.Spec.Address
			if oldest == nil || c.Since.Time.Before(oldest.Since.Time) {
				oldest = c
			}
		}
		if oldest != nil {
			holder[v.Spec.Address] = oldest.Namespace + "/" + oldest.Name
		}
	}
	return holder, on
}

// silent checks that nothing of one tenant is in what the other gets.
func (g *game) silent() {
	for i, namespace := range players {
		other := players[1-i]
		services, err := g.kube.CoreV1().Services(namespace).List(g.ctx, metav1.ListOptions{})
		must(g.world, err)
		for k := range services.Items {
			s := &services.Items[k]
			words := []string{"sesame", "secret", other + "/"}
			for _, port := range []int32{7101, 7102, 7103} {
				if port != s.Spec.Ports[0].Port {
					words = append(words, fmt.Sprint(port))
				}
			}
			for _, word := range words {
				if said := message(s); strings.Contains(said, word) {
					g.Fatalf("%s/%s is told of %q: %s", namespace, s.Name, word, said)
				}
			}
		}
	}
	for _, line := range g.events.all()[g.said:] {
		if strings.Contains(line, "sesame") || strings.Contains(line, "secret") || strings.Contains(line, "alice/") && strings.Contains(line, "bob/") {
			g.Fatalf("an event tells: %s", line)
		}
	}
}

// Two tenants edit as they like, and controllers restart in between: the holder of an address never moves by another's
// edit; a guest moves when its holder is edited, and both are told; a stranger moves nobody; nobody learns anything.
func TestTwoTenants(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inWorld(t, func(w *world) {
		w.tenants()
		w.pool("public", nil, "10.0.0.1-10.0.0.12")
		g := &game{world: w, rnd: rand.New(rand.NewPCG(seed, 0))}
		_, g.stop = w.controller()
		for i := range 120 {
			holder, on := g.holders()
			g.said = len(w.events.all())
			namespace, name := g.step()
			editor := namespace + "/" + name
			w.rest()
			_, now := g.holders()
			for service, addr := range on {
				if service == editor || now[service] == addr || now[service] != "" && now[service] == g.asked(service) {
					continue // what it waited for has become free
				}
				g.moved(service, editor, holder[addr])
			}
			g.silent()
			if i%15 == 14 {
				g.restart()
			}
		}
	})
}

// asked is the address that the Service asks for.
func (g *game) asked(service string) string {
	g.Helper()
	namespace, name, _ := strings.Cut(service, "/")
	return g.at(namespace, name).Annotations[asks]
}

// moved checks that a Service might move by the edit of another.
func (g *game) moved(service, editor, holder string) {
	g.Helper()
	if holder != editor || service == holder {
		_, now := g.holders()
		g.Fatalf("%s moved to %q by an edit of %s, and asks for %q; the holder was %s\n%s", service, now[service], editor, g.asked(service), holder, strings.Join(g.events.all()[g.said:], "\n"))
	}
	told := 0
	for _, line := range g.events.all()[g.said:] {
		if strings.Contains(line, string(v1alpha1.SharingEnded)) {
			told++
		}
	}
	if told < 2 {
		g.Fatalf("%s moved by an edit of its holder %s, and only %d were told:\n%s", service, editor, told, strings.Join(g.events.all()[g.said:], "\n"))
	}
}

// restart changes nothing.
func (g *game) restart() {
	g.Helper()
	_, before := g.holders()
	g.stop()
	time.Sleep(time.Second)
	_, g.stop = g.controller()
	g.rest()
	if _, after := g.holders(); fmt.Sprint(before) != fmt.Sprint(after) {
		g.Fatalf("a restart moved them: %v, before %v", after, before)
	}
}
