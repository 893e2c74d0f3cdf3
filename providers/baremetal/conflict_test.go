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

const foreign = "02:00:00:00:00:66 answers on eth0 of node a."

// disputed says that another host answers for the address, silent that none
// does any more.
func disputed(s *v1alpha1.VirtualIPStatus) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionConflict, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Conflict), Message: foreign,
	})
}

func silent(s *v1alpha1.VirtualIPStatus) {
	meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionConflict, Status: metav1.ConditionFalse, Reason: string(v1alpha1.NoConflict), Message: "No other host answers.",
	})
}

func TestConflictStates(t *testing.T) {
	with := func(edits ...func(*v1alpha1.VirtualIPStatus)) *v1alpha1.VirtualIP {
		v := vip(seventeen, "web")
		for _, edit := range edits {
			edit(&v.Status)
		}
		return v
	}
	unowned := func(s *v1alpha1.VirtualIPStatus) {
		s.Owner = ""
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: "NoReadyEndpoints"})
	}
	held := with(ownedBy("a"), disputed, unowned)
	held.Spec.Hold = v1alpha1.Conflict
	for _, c := range []struct {
		name                             string
		vip                              *v1alpha1.VirtualIP
		conflicted, blocked, quarantined bool
	}{
		{"none", nil, false, false, false},
		{"nothing said", with(), false, false, false},
		{"announced", with(ownedBy("a")), false, false, false},
		{"found before first use", with(disputed), true, true, true},
		{"and said to be unannounced", with(disputed, unowned), true, true, true},
		{"gone", with(disputed, silent), false, false, false},
		{"found while announced", with(ownedBy("a"), disputed), true, false, false},
		{"and not announced any more", with(ownedBy("a"), disputed, unowned), true, true, false},
		{"released", held, true, true, true},
	} {
		if got := [3]bool{conflicted(c.vip), blocked(c.vip), quarantined(c.vip)}; got != [3]bool{c.conflicted, c.blocked, c.quarantined} {
			t.Errorf("%s: conflicted, blocked, quarantined: %v", c.name, got)
		}
	}
}

func TestUnclaimedInConflict(t *testing.T) {
	retained := func(v *v1alpha1.VirtualIP) { v.Spec.ReclaimPolicy = v1alpha1.ReclaimRetain }
	placed := func(v *v1alpha1.VirtualIP) {
		v.Spec.L2, v.Spec.BGP = &v1alpha1.L2Placement{Candidates: []string{"a"}}, &v1alpha1.BGPPlacement{}
	}
	says := func(edit func(*v1alpha1.VirtualIPStatus)) func(*v1alpha1.VirtualIP) {
		return func(v *v1alpha1.VirtualIP) { edit(&v.Status) }
	}
	for _, c := range []struct {
		name  string
		edits []func(*v1alpha1.VirtualIP)
		want  string
	}{
		{"no conflict", nil, "deleted"},
		{"no conflict, retained", []func(*v1alpha1.VirtualIP){retained}, "Unclaimed for web"},
		{"before first use", []func(*v1alpha1.VirtualIP){says(disputed)}, "Conflict by a"},
		{"before first use, retained", []func(*v1alpha1.VirtualIP){retained, says(disputed)}, "Conflict by a"},
		{"in use", []func(*v1alpha1.VirtualIP){says(ownedBy("a")), says(disputed)}, "Conflict by a"},
		{"in use, retained", []func(*v1alpha1.VirtualIP){retained, says(ownedBy("a")), says(disputed)}, "Conflict for web by a"},
		{"over", []func(*v1alpha1.VirtualIP){says(disputed), says(silent)}, "deleted"},
	} {
		v := vip(seventeen, "web")
		placed(v)
		for _, edit := range c.edits {
			edit(v)
		}
		got := "deleted"
		if left := unclaimed(v, keyNamed("web")); left != nil {
			got = string(left.Spec.Hold)
			if left.Spec.ReservedFor != nil {
				got += " for " + left.Spec.ReservedFor.Name
			}
			if left.Spec.L2 != nil {
				got += " by " + strings.Join(left.Spec.L2.Candidates, " ")
			}
			if left.Spec.BGP != nil {
				got += " by BGP"
			}
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// ready is what the condition of a Service says.
func (w *world) ready(name string) *metav1.Condition {
	w.Helper()
	condition := meta.FindStatusCondition(w.get(name).Status.Conditions, v1alpha1.ServiceReady)
	if condition == nil {
		w.Fatalf("%s has no condition", name)
	}
	return condition
}

func (w *world) told(name, want string) {
	w.Helper()
	w.rest()
	if got := w.events.of(name); got != want {
		w.Errorf("events of %s: %s, want %s\n%s", name, got, want, strings.Join(w.events.all(), "\n"))
	}
}

func (w *world) writes(before int, want ...string) {
	w.Helper()
	if got := w.since(before); !slices.Equal(got, want) {
		w.Errorf("writes %q, want %q", got, want)
	}
}

// An address that another host has before its first use is replaced, nobody
// gets it while that host answers, and it is free when it is silent.
func TestConflictBeforeFirstUse(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		_, stop := w.controller()
		w.endpoints("web", "a", "b")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		pool, err := w.herald.AddressPools.Get(w.ctx, "public", metav1.GetOptions{})
		must(w, err)
		pool.Spec.Addresses = append(pool.Spec.Addresses, "203.0.113.18/32")
		must(w, first(w.herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})))

		before := len(w.rest())
		w.says("203.0.113.17", disputed)
		w.untilVIPs("203.0.113.17 (Conflict)", "203.0.113.18 web")
		w.untilService("web", "203.0.113.18 AddressAssigned")
		w.writes(before, "update virtualips/203.0.113.17/status",
			"create virtualips/203.0.113.18", "patch services/shop/web/status", "update virtualips/203.0.113.17")
		w.told("web", "Normal AddressAssigned, Warning AddressConflict, Normal AddressAssigned")
		if line := "web Warning AddressConflict: Another host uses 203.0.113.17. " + foreign + " 203.0.113.18 replaces it."; !slices.Contains(w.events.all(), line) {
			w.Errorf("events %q, want %q", w.events.all(), line)
		}
		// Its candidates go on asking.
		if l2 := w.vip("203.0.113.17").Spec.L2; l2 == nil || len(l2.Candidates) != 3 || len(l2.Peers) != 3 {
			w.Errorf("placed %+v", l2)
		}
		w.create(lb("api"))
		w.untilService("api", "PoolExhausted")
		if message := w.ready("api").Message; !strings.Contains(message, "all its 2 taken, 1 of them by other hosts") {
			w.Errorf("api: %s", message)
		}
		w.create(lb("asks", annotated(annotations.Addresses, "203.0.113.17")))
		w.untilService("asks", "AddressConflict")

		stop()
		before = len(w.rest())
		w.controller()
		w.writes(before)

		w.delete("api")
		before = len(w.rest())
		w.says("203.0.113.17", silent)
		w.untilService("asks", "203.0.113.17 AddressAssigned")
		w.writes(before, "update virtualips/203.0.113.17/status", "delete virtualips/203.0.113.17",
			"create virtualips/203.0.113.17", "patch services/shop/asks/status", "update virtualips/203.0.113.17/status")
		w.untilVIPs("203.0.113.17 asks (NoReadyEndpoints)", "203.0.113.18 web")
	})
}

// Without another address the Service keeps what it has, and says so.
func TestConflictInAFullPool(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		before := len(w.rest())
		w.says("203.0.113.17", disputed)
		w.untilService("web", "203.0.113.17 AddressConflict")
		w.writes(before, "update virtualips/203.0.113.17/status", "patch services/shop/web/status")
		if c := w.ready("web"); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, foreign) || !strings.Contains(c.Message, "1 of them by other hosts") {
			w.Errorf("condition %s: %s", c.Status, c.Message)
		}
		w.says("203.0.113.17", silent)
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.says("203.0.113.17", disputed)
		w.untilService("web", "203.0.113.17 AddressConflict")
		pool, err := w.herald.AddressPools.Get(w.ctx, "public", metav1.GetOptions{})
		must(w, err)
		pool.Spec.Addresses = append(pool.Spec.Addresses, "203.0.113.18/32")
		must(w, first(w.herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})))
		w.untilService("web", "203.0.113.18 AddressAssigned")
		w.untilVIPs("203.0.113.17 (Conflict)", "203.0.113.18 web")
		// Deleted by hand, it is free at once.
		must(w, w.herald.VirtualIPs.Delete(w.ctx, "203.0.113.17", metav1.DeleteOptions{}))
		w.create(lb("api"))
		w.untilService("api", "203.0.113.17 AddressAssigned")
	})
}

// An address that was asked for waits until the other host is silent.
func TestConflictOfARequestedAddress(t *testing.T) {
	reserve := func(w *world) {
		v := vip17("203.0.113.17")
		v.Spec.ReservedFor = &v1alpha1.ServiceReference{Namespace: "shop", Name: "web"}
		must(w, first(w.herald.VirtualIPs.Create(w.ctx, v, metav1.CreateOptions{})))
	}
	for name, c := range map[string]struct {
		before func(*world)
		edit   func(*corev1.Service)
	}{
		"by annotation":     {nil, annotated(annotations.Addresses, "203.0.113.17")},
		"by an alias":       {nil, annotated("metallb.io/loadBalancerIPs", "203.0.113.17")},
		"by loadBalancerIP": {nil, func(s *corev1.Service) { s.Spec.LoadBalancerIP = "203.0.113.17" }},
		"by a reservation":  {reserve, func(*corev1.Service) {}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inWorld(t, func(w *world) {
				w.pool("public", nil, "203.0.113.16/28")
				if c.before != nil {
					c.before(w)
				}
				_, stop := w.controller()
				w.endpoints("web", "a")
				w.create(lb("web", c.edit))
				w.untilService("web", "203.0.113.17 AddressAssigned")
				before := len(w.rest())
				w.says("203.0.113.17", disputed)
				w.untilService("web", "203.0.113.17 AddressConflict")
				w.writes(before, "update virtualips/203.0.113.17/status", "patch services/shop/web/status")
				if c := w.ready("web"); c.Status != metav1.ConditionFalse || !strings.Contains(c.Message, foreign) {
					w.Errorf("condition %s: %s", c.Status, c.Message)
				}
				stop()
				before = len(w.rest())
				w.controller()
				w.writes(before)
				w.says("203.0.113.17", silent)
				w.untilService("web", "203.0.113.17 AddressAssigned")
				w.told("web", "Normal AddressAssigned, Warning AddressConflict, Normal NoConflict")
			})
		})
	}
}

// A conflict that comes later is told, and moves nothing; not even when the
// address then ceases to be announced.
func TestConflictInUse(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32", "203.0.113.18/32")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.until("web", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("web")))) })
		address := shownBy(w.get("web"))[0].String()
		w.rest()
		w.says(address, ownedBy(firstOf(w.vip(address).Spec.L2)))
		before := len(w.rest())
		w.says(address, disputed)
		w.says(address, func(s *v1alpha1.VirtualIPStatus) { s.Conditions[0].Message += " Still." })
		w.writes(before, "update virtualips/"+address+"/status", "update virtualips/"+address+"/status", "patch services/shop/web/status")
		w.told("web", "Normal AddressAssigned, Warning AddressConflict")
		w.move("web")
		w.untilService("web", address+" AddressConflict")
		w.untilVIPs(address + " web (NoReadyEndpoints)")
		w.move("web", ready("a"))
		w.says(address, ownedBy(firstOf(w.vip(address).Spec.L2)))
		w.untilService("web", address+" AddressAssigned")
		// Who releases it does not make it free.
		w.delete("web")
		w.untilVIPs(address + " (Conflict)")
		w.until("owner", "", func() string { return w.vip(address).Status.Owner })
		w.rest()
		w.says(address, silent)
		w.untilVIPs()
	})
}

// What the last owner has said of another host would stay for good when the
// address is advertised by BGP alone from then on: no speaker looks any more.
func TestConflictOfAnAddressThatLeavesTheLAN(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.router("tor", nil)
		w.speaker("a", func(s *v1alpha1.SpeakerStatus) { s.BGP = []v1alpha1.SpeakerBGPSession{established("tor")} })
		w.advertise("edge", v1alpha1.AdvertisementSpec{L2: &v1alpha1.L2Advertisement{}})
		_, stop := w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.rest()
		w.says("203.0.113.17", ownedBy(firstOf(w.vip("203.0.113.17").Spec.L2)))
		w.says("203.0.113.17", disputed)
		w.told("web", "Normal AddressAssigned, Warning AddressConflict")

		conflict := func() string {
			c := meta.FindStatusCondition(w.vip("203.0.113.17").Status.Conditions, v1alpha1.ConditionConflict)
			return string(c.Status) + " " + c.Reason
		}
		toBGP := func(s *v1alpha1.AdvertisementSpec) { s.L2, s.BGP = nil, &v1alpha1.BGPAdvertisement{} }
		toL2 := func(s *v1alpha1.AdvertisementSpec) { s.L2, s.BGP = &v1alpha1.L2Advertisement{}, nil }
		before := len(w.rest())
		w.editAdvertisement("edge", toBGP)
		w.until("conflict", "False NoConflict", conflict)
		w.until("announced", "True Advertised", func() string { return w.announced("203.0.113.17") })
		w.told("web", "Normal AddressAssigned, Warning AddressConflict, Normal NoConflict")
		if writes := w.of("virtualips/", "/status", &before); len(writes) != 1 {
			w.Errorf("writes %q, want one", writes)
		}

		// On the LAN again it is the speakers' to say, and it is not taken from them.
		w.editAdvertisement("edge", toL2)
		w.until("placed", "true", func() string { return fmt.Sprint(w.vip("203.0.113.17").Spec.L2 != nil) })
		w.rest()
		w.says("203.0.113.17", ownedBy(firstOf(w.vip("203.0.113.17").Spec.L2)))
		w.says("203.0.113.17", disputed)
		w.rest()
		if got := conflict(); got != "True Conflict" {
			w.Errorf("conflict: %s", got)
		}

		// Nor is it forgotten while no controller runs.
		stop()
		w.editAdvertisement("edge", toBGP)
		w.controller()
		w.until("conflict", "False NoConflict", conflict)
	})
}

// What speakers say while no controller runs is done when one starts.
func TestConflictWhileNoControllerRan(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32", "203.0.113.18/32")
		_, stop := w.controller()
		w.create(lb("web"))
		w.until("web", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("web")))) })
		address := shownBy(w.get("web"))[0].String()
		other := map[string]string{"203.0.113.17": "203.0.113.18", "203.0.113.18": "203.0.113.17"}[address]
		w.rest()
		stop()
		w.says(address, disputed)
		_, stop = w.controller()
		w.untilService("web", other+" AddressAssigned")
		w.told("web", "Normal AddressAssigned, Warning NoReadyEndpoints, Warning AddressConflict, Normal AddressAssigned")
		stop()
		w.says(address, silent)
		w.controller()
		w.untilVIPs(other + " web (NoReadyEndpoints)")
	})
}

// Retained and in conflict: kept for its Service all along.
func TestConflictOfARetainedAddress(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", func(s *v1alpha1.AddressPoolSpec) { s.ReclaimPolicy = v1alpha1.ReclaimRetain }, "203.0.113.17/32")
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		w.says("203.0.113.17", ownedBy("a"))
		w.says("203.0.113.17", disputed)
		w.delete("web")
		w.untilVIPs("203.0.113.17 (Conflict) for web")
		w.rest() // the owner is taken off it
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressConflict")
		w.delete("web")
		w.untilVIPs("203.0.113.17 (Conflict) for web")
		w.rest()
		w.says("203.0.113.17", silent)
		w.untilVIPs("203.0.113.17 (Unclaimed) for web")
		if l2 := w.vip("203.0.113.17").Spec.L2; l2 != nil {
			w.Errorf("placed %+v", l2)
		}
	})
}

// Two Services share the address: both leave it, for the same one.
func TestConflictOfASharedAddress(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		w.controller()
		w.create(lb("web", annotated(annotations.Share, "key"), onPort(80)))
		w.until("web", "1", func() string { return strings.Repeat("1", len(shownBy(w.get("web")))) })
		address := shownBy(w.get("web"))[0].String()
		w.create(lb("api", annotated(annotations.Share, "key"), onPort(443)))
		w.untilService("api", address+" AddressAssigned")
		w.says(address, disputed)
		w.until("both on another one", "true", func() string {
			lines := w.vips()
			if len(lines) == 2 && slices.Contains(lines, address+" (Conflict)") && slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, " api web ") }) {
				return "true"
			}
			return strings.Join(lines, ", ")
		})
		for _, name := range []string{"web", "api"} {
			w.told(name, "Normal AddressAssigned, Warning NoReadyEndpoints, Warning AddressConflict, Normal AddressAssigned")
		}
	})
}
