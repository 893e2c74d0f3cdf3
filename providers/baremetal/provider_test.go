package baremetal

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

func TestServiceIsServedWithTwoWritesAndOneEvent(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.endpoints("web", "a", "b")
		before := len(w.rest())
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		writes := slices.DeleteFunc(w.rest()[before+1:], func(write string) bool { return strings.Contains(write, "addresspools/") })
		if want := []string{"create virtualips/203.0.113.17", "patch services/shop/web/status"}; !slices.Equal(writes, want) {
			w.Errorf("writes %q, want %q", writes, want)
		}
		if got, want := w.events.of("web"), "Normal AddressAssigned"; got != want {
			w.Errorf("events %q, want %q", got, want)
		}
		v := w.vip("203.0.113.17")
		if v.Spec.L2 == nil || len(v.Spec.L2.Candidates) != 3 || v.Spec.Hold != "" || v.Spec.Pool != "public" {
			w.Errorf("VirtualIP %+v", v.Spec)
		}
	})
}

func TestRestartWritesAndTellsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		_, stop := w.controller()
		for _, name := range []string{"web", "api", "mail", "news", "waits"} {
			w.create(lb(name))
		}
		w.create(lb("broken", annotated(annotations.Addresses, "x")))
		w.endpoints("web", "a")
		w.untilService("broken", "InvalidAddress")
		w.until("served", "4", func() string { return strconv.Itoa(len(w.vips())) })
		before := w.rest()
		told := w.events.all()
		for range 2 {
			stop()
			_, stop = w.controller()
			if after := w.rest(); len(after) != len(before) {
				w.Fatalf("written after a restart: %q", after[len(before):])
			}
		}
		if after := w.events.all(); len(after) != len(told) {
			w.Errorf("told after a restart: %q", after[len(told):])
		}
	})
}

func TestRefusalIsToldOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		w.controller()
		w.create(lb("web", annotated(annotations.Addresses, "192.0.2.1")))
		w.untilService("web", "OutsidePools")
		w.create(lb("api", annotated(annotations.Addresses, "203.0.113.17"))) // whatever else happens
		w.untilService("api", "203.0.113.17 AddressAssigned")
		w.edit("web", annotated("example.com/unrelated", "1"))
		w.edit("web", func(s *corev1.Service) { s.Labels = set{"a": "b"} })
		w.rest()
		if got := w.events.of("web"); got != "Warning OutsidePools" {
			w.Errorf("events %q, want one", got)
		}
		w.edit("web", annotated(annotations.Addresses, "203.0.113.18"))
		w.untilService("web", "203.0.113.18 AddressAssigned")
		w.rest()
		if got := w.events.of("web"); got != "Warning OutsidePools, Normal AddressAssigned, Warning NoReadyEndpoints" {
			w.Errorf("events %q, want one more", got)
		}
	})
}

// A Service that asks for what it cannot have keeps what it has.
func TestRefusedServiceKeepsItsAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		for _, c := range []struct{ value, want string }{
			{"192.0.2.1", "203.0.113.17 OutsidePools"},
			{"nonsense", "203.0.113.17 InvalidAddress"},
			{"203.0.113.17", "203.0.113.17 AddressAssigned"},
		} {
			w.edit("web", annotated(annotations.Addresses, c.value))
			w.untilService("web", c.want)
			w.untilVIPs("203.0.113.17 web (NoReadyEndpoints)")
			// Also when somebody deletes it.
			lost := w.vip("203.0.113.17").UID
			must(w, w.herald.VirtualIPs.Delete(w.ctx, "203.0.113.17", metav1.DeleteOptions{}))
			w.until("made again", "true", func() string {
				return strconv.FormatBool(len(w.vips()) == 1 && w.vip("203.0.113.17").UID != lost)
			})
			w.untilService("web", c.want)
		}
	})
}

// A neighbour that gives up the common key and is refused stays where it is,
// and harms nobody, whichever controller looks, and since when.
func TestRefusedServiceKeepsItsNeighbours(t *testing.T) {
	shared := annotated(annotations.Share, "dns")
	alone := func(s *corev1.Service) { delete(s.Annotations, annotations.Share) }
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32", "203.0.113.20/32")
		_, stop := w.controller()
		w.create(lb("mail", annotated(annotations.Addresses, "203.0.113.20")))
		w.untilService("mail", "203.0.113.20 AddressAssigned")
		w.create(lb("api", shared))
		w.untilService("api", "203.0.113.17 AddressAssigned")
		w.create(lb("web", shared, onPort(443)))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.edit("web", alone, annotated(annotations.Addresses, "203.0.113.20"))
		w.untilService("web", "203.0.113.17 NotShared")
		w.create(lb("news", shared, onPort(444)))
		w.untilService("news", "203.0.113.17 AddressAssigned")
		written := len(w.rest())

		stop()
		w.controller()
		if after := w.since(written); len(after) > 0 {
			w.Errorf("written after a restart: %q", after)
		}
		w.delete("mail")
		w.untilService("web", "203.0.113.20 AddressAssigned")
		w.untilService("api", "203.0.113.17 AddressAssigned")
		w.untilService("news", "203.0.113.17 AddressAssigned")
	})
}

func TestExhaustedPool(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		for _, name := range []string{"api", "mail"} {
			w.create(lb(name))
			w.untilService(name, "PoolExhausted")
		}
		served := func() string {
			outcomes := []string{tell(w.get("api")), tell(w.get("mail"))}
			slices.Sort(outcomes)
			return strings.Join(outcomes, ", ")
		}
		w.delete("web")
		w.until("one is served in its place", "203.0.113.17 AddressAssigned, PoolExhausted", served)
		pool, err := w.herald.AddressPools.Get(w.ctx, "public", metav1.GetOptions{})
		must(w, err)
		pool.Spec.Addresses = []string{"203.0.113.17/32", "203.0.113.20/32"}
		must(w, first(w.herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})))
		w.until("the pool grows", "203.0.113.17 AddressAssigned, 203.0.113.20 AddressAssigned", served)
	})
}

// A Service that moves away makes room, too.
func TestMoveWakesWhoWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.pool("private", func(s *v1alpha1.AddressPoolSpec) { s.Scope = v1alpha1.ScopeInternal }, "10.0.0.1/32")
		w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.create(lb("waits"))
		w.untilService("waits", "PoolExhausted")
		w.edit("web", annotated(annotations.Scope, "Internal"))
		w.untilService("web", "10.0.0.1 AddressAssigned")
		w.untilService("waits", "203.0.113.17 AddressAssigned")
	})
}

// A Service is deleted and made again under the same name before anybody
// looks, and the new one asks for what it cannot have: it does not inherit.
func TestNewServiceDoesNotInherit(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		_, stop := w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		stop()
		w.remove("web")
		w.create(lb("web", annotated(annotations.Addresses, "192.0.2.1")))
		w.controller()
		w.untilService("web", "OutsidePools")
		w.untilVIPs()
	})
}

// Who waits for an address and goes is not woken for ever.
func TestNobodyWaitsWhoHasGone(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		p, _ := w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		for _, name := range []string{"deleted", "retyped", "waits"} {
			w.create(lb(name))
			w.untilService(name, "PoolExhausted")
		}
		w.delete("deleted")
		w.edit("retyped", toClusterIP)
		w.untilService("retyped", "")
		w.until("waiting", "[shop/waits]", func() string {
			p.mu.Lock()
			defer p.mu.Unlock()
			var keys []string
			for key := range p.waiting {
				keys = append(keys, key.String())
			}
			slices.Sort(keys)
			return "[" + strings.Join(keys, " ") + "]"
		})
	})
}

func TestLeavingReleases(t *testing.T) {
	for name, leave := range map[string]func(*world){
		"deleted": func(w *world) { w.delete("web") },
		"type changed": func(w *world) {
			w.edit("web", toClusterIP)
			w.untilService("web", "")
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				// The watch tells of the end of a VirtualIP before the answer does.
				w.api.After = func(request string) {
					if strings.HasPrefix(request, "delete virtualips") {
						time.Sleep(100 * time.Millisecond)
					}
				}
				w.pool("public", nil, "203.0.113.17/32")
				w.controller()
				w.create(lb("web"))
				w.untilService("web", "203.0.113.17 AddressAssigned")
				leave(w)
				w.untilVIPs()
				w.rest()
				for _, line := range w.events.all() {
					if strings.Contains(line, "VirtualIPRemade") {
						w.Errorf("told that somebody else deleted it: %s", line)
					}
				}
			})
		})
		t.Run(name+" while no controller ran", func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pool("public", nil, "203.0.113.17/32")
				_, stop := w.controller()
				w.create(lb("web"))
				w.untilService("web", "203.0.113.17 AddressAssigned")
				stop()
				if name == "deleted" {
					leave(w)
				} else {
					w.edit("web", toClusterIP)
				}
				w.controller()
				w.untilVIPs()
				if name != "deleted" {
					w.untilService("web", "")
				}
			})
		})
	}
}

func TestForeignClassIsNotTouched(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		foreign := "example.com/other"
		w.create(lb("web", showing("203.0.113.17"), func(s *corev1.Service) { s.Spec.LoadBalancerClass = &foreign }))
		before := w.get("web")
		w.controller()
		w.create(lb("api", annotated(annotations.Addresses, "203.0.113.17")))
		w.untilService("api", "ServiceAddress") // what another provider gave is not given
		w.rest()
		if after := w.get("web"); after.ResourceVersion != before.ResourceVersion {
			w.Errorf("it was written: %+v", after)
		}
		if got := w.events.of("web"); got != "" {
			w.Errorf("events %q", got)
		}
	})
}

// The new address is claimed first, then shown, and only then the old one goes:
// no moment is without an address, and no free address is shown.
func TestMoveClaimsBeforeItReleases(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/28")
		w.controller()
		w.create(lb("web", annotated(annotations.Addresses, "203.0.113.17")))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		before := len(w.rest())
		w.edit("web", annotated(annotations.Addresses, "203.0.113.18"))
		w.untilVIPs("203.0.113.18 web (NoReadyEndpoints)")
		w.untilService("web", "203.0.113.18 AddressAssigned")
		writes := slices.DeleteFunc(w.rest()[before+1:], func(write string) bool { return strings.Contains(write, "addresspools/") })
		want := []string{"create virtualips/203.0.113.18", "patch services/shop/web/status", "delete virtualips/203.0.113.17", "update virtualips/203.0.113.18/status"}
		if !slices.Equal(writes, want) {
			w.Errorf("writes %q, want %q", writes, want)
		}
	})
}

func TestDeletedVirtualIPIsMadeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		w.controller()
		w.create(lb("web", annotated(annotations.Share, "key"), onPort(80)))
		w.until("web", "true", func() string { return strconv.FormatBool(len(shownBy(w.get("web"))) == 1) })
		address := shownBy(w.get("web"))[0].String()
		w.create(lb("api", annotated(annotations.Share, "key"), onPort(443)))
		w.untilService("api", address+" AddressAssigned")
		w.rest()
		for range 5 {
			must(w, w.herald.VirtualIPs.Delete(w.ctx, w.vip(address).Name, metav1.DeleteOptions{}))
			w.untilVIPs(address + " api web (NoReadyEndpoints)")
			w.rest()
			w.untilService("web", address+" AddressAssigned")
			w.untilService("api", address+" AddressAssigned")
		}
		for _, name := range []string{"web", "api"} {
			if got := w.events.of(name); strings.Count(got, "VirtualIPRemade") != 5 {
				w.Errorf("events of %s: %s, want one for each deletion", name, got)
			}
		}
	})
}

// After a restore there are Services with addresses and no VirtualIPs.
func TestRestoredServicesKeepTheirAddresses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		for _, s := range []*corev1.Service{
			lb("web", showing("203.0.113.17")),
			lb("shared-1", showing("203.0.113.18"), annotated(annotations.Share, "key"), onPort(80)),
			lb("shared-2", showing("203.0.113.18"), annotated(annotations.Share, "key"), onPort(81)),
			lb("shared-3", showing("203.0.113.18"), annotated(annotations.Share, "key"), onPort(82)),
			lb("new"),
			lb("thief", annotated(annotations.Addresses, "203.0.113.17")),
		} {
			w.create(s)
		}
		w.controller()
		w.untilService("web", "203.0.113.17 AddressAssigned")
		for _, name := range []string{"shared-1", "shared-2", "shared-3"} {
			w.untilService(name, "203.0.113.18 AddressAssigned")
		}
		w.until("thief", "true", func() string {
			return strconv.FormatBool(tell(w.get("thief")) == "NotShared")
		})
		w.until("new", "true", func() string { return strconv.FormatBool(len(shownBy(w.get("new"))) == 1) })
		if got := shownBy(w.get("new"))[0].String(); got == "203.0.113.17" || got == "203.0.113.18" {
			w.Errorf("new has %s, which others show", got)
		}
	})
}

// What another provider wrote is kept where a pool has it, and else replaced.
func TestStatusOfAnotherProvider(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.create(lb("web", func(s *corev1.Service) {
			s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}, {IP: "192.0.2.99"}}
		}))
		w.create(lb("waits", showing("192.0.2.100"), annotated(annotations.Pool, "private")))
		w.controller()
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.untilService("waits", "192.0.2.100 UnknownPool")
	})
}

func TestRetainedAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", func(s *v1alpha1.AddressPoolSpec) { s.ReclaimPolicy = v1alpha1.ReclaimRetain }, "203.0.113.17/32")
		w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.delete("web")
		w.untilVIPs("203.0.113.17 (Unclaimed) for web")
		w.create(lb("api"))
		w.untilService("api", "PoolExhausted")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.untilVIPs("203.0.113.17 web (NoReadyEndpoints) for web")
		w.delete("web")
		w.untilVIPs("203.0.113.17 (Unclaimed) for web")
		must(w, w.herald.VirtualIPs.Delete(w.ctx, "203.0.113.17", metav1.DeleteOptions{}))
		w.untilService("api", "203.0.113.17 AddressAssigned")
	})
}

func TestReservedAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		reserve := func(address, name string) {
			v := vip17(address)
			if name != "" {
				v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: name}
			}
			must(w, first(w.herald.VirtualIPs.Create(w.ctx, v, metav1.CreateOptions{})))
		}
		reserve("203.0.113.17", "web")
		w.controller()
		w.create(lb("api"))
		w.untilService("api", "PoolExhausted")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		// One outside every pool, made for a Service that waits.
		reserve("192.0.2.7", "api")
		w.untilService("api", "192.0.2.7 AddressAssigned")
	})
}

func vip17(address string) *v1alpha1.VirtualIP {
	return &v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: address}, Spec: v1alpha1.VirtualIPSpec{Address: address, ReclaimPolicy: v1alpha1.ReclaimDelete}}
}

// An API server that fails now and then delays, and no more.
func TestFailuresOfTheAPIServer(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		failing := map[string]int{}
		w.api.Before = func(request string) error {
			w.events.mu.Lock()
			defer w.events.mu.Unlock()
			if failing[request]++; !strings.HasPrefix(request, "get") && !strings.HasPrefix(request, "list") && failing[request] <= 2 && strings.Contains(request, "/203.0.113.17") {
				return errors.New("etcd is on holiday")
			}
			return nil
		}
		w.controller()
		w.create(lb("web", annotated(annotations.Addresses, "203.0.113.17")))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.endpoints("web", "a", "b")
		w.untilVIPs("203.0.113.17 web")
		w.delete("web")
		w.untilVIPs()
		w.create(lb("api", annotated(annotations.Addresses, "203.0.113.17")))
		w.untilService("api", "203.0.113.17 AddressAssigned")
	})
}

// An annotation that does nothing is named in one event, whoever looks at the
// Service, and for as long as it stands in the condition.
func TestIgnoredAnnotationsAreToldOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		_, stop := w.controller()
		w.create(lb("web", annotated("heraldlb.io/adresses", "203.0.113.18"), annotated("service.kubernetes.io/loadbalance-type", "classic")))
		w.untilIgnored("web", 2)
		for _, words := range []string{"heraldlb.io/adresses", "service.kubernetes.io/loadbalance-type"} {
			if message := w.ready("web").Message; !strings.Contains(message, words) {
				w.Errorf("%q does not name %s", message, words)
			}
		}
		// A Service that is refused.
		w.create(lb("api", annotated("heraldlb.io/adresses", "x"), annotated(annotations.Addresses, "192.0.2.1")))
		w.untilIgnored("api", 1)
		w.untilService("api", "OutsidePools")
		if message := w.ready("api").Message; !strings.Contains(message, "heraldlb.io/adresses") {
			w.Errorf("%q does not name it", message)
		}
		stop()
		before := len(w.events.all())
		w.controller()
		w.edit("web", func(s *corev1.Service) { s.Labels = set{"a": "b"} })
		w.rest()
		if all := w.events.all(); len(all) > before {
			w.Errorf("told again: %q", all[before:])
		}
		w.edit("web", annotated("heraldlb.io/poool", "public"))
		w.untilIgnored("web", 3)
	})
}

// untilIgnored waits until that many annotations of a Service were told of.
func (w *world) untilIgnored(service string, count int) {
	w.Helper()
	w.until("annotations of "+service+" that are told", strconv.Itoa(count), func() string {
		return strconv.Itoa(strings.Count(w.events.of(service), string(v1alpha1.AnnotationIgnored)))
	})
	w.rest()
}

func TestMessagesAreBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.16/30")
		w.controller()
		huge := strings.Repeat("x", 100_000)
		for i, name := range []string{annotations.Addresses, annotations.Pool, annotations.Share, annotations.Scope, annotations.IPMode, "metallb.io/loadBalancerIPs"} {
			service := fmt.Sprintf("web-%d", i)
			w.create(lb(service, annotated(name, huge)))
			w.until(service+" is refused", "true", func() string { return strconv.FormatBool(hasVerdict(w.get(service))) })
			if c := w.ready(service); c.Status == metav1.ConditionTrue || len(c.Message) > v1alpha1.MaxMessage || !strings.Contains(c.Message, name) {
				w.Errorf("%s: %s, %d bytes: %.200s", name, c.Status, len(c.Message), c.Message)
			}
		}
		for _, event := range w.events.all() {
			if len(event) > v1alpha1.MaxMessage+200 {
				w.Errorf("an event of %d bytes: %.200s", len(event), event)
			}
		}
		for _, vip := range w.vips() {
			w.Errorf("an address was given: %s", vip)
		}
	})
}
