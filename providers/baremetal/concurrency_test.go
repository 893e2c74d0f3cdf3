package baremetal

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

// The API server answers late and finds conflicts where there are none; other
// hosts use addresses for a while; Services come, change and go. At no time do two show one address that they
// do not share, and in the end every address has its Service and every Service
// what it can have.
func TestConcurrency(t *testing.T) {
	concurrency(t, 1)
}

// With two controllers at once, which leader election prevents, two Services
// may show one address for a moment; the end is the same.
func TestConcurrencyOfTwoControllers(t *testing.T) {
	concurrency(t, 2)
}

func concurrency(t *testing.T, controllers int) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	inWorld(t, func(w *world) {
		shows := w.disturb(seed)
		// Too few IPv4 addresses for all: some wait.
		w.pool("public", nil, "203.0.113.0/26", "2001:db8::/116")
		var providers []*Provider
		for range controllers {
			p, _ := w.controller()
			providers = append(providers, p)
		}

		const writers, services, actions = 4, 200, 400
		stop := make(chan struct{})
		var watching, writing sync.WaitGroup
		if controllers == 1 {
			watching.Go(func() { w.watchForDoubles(stop, shows) })
		}
		for i := range writers {
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			writing.Go(func() {
				for range actions / writers {
					w.act(rnd, fmt.Sprintf("s%d", i+writers*rnd.IntN(services/writers)))
					w.dispute(rnd)
					time.Sleep(time.Duration(rnd.IntN(5)) * time.Millisecond)
				}
			})
		}
		writing.Wait()
		w.rest()
		w.Logf("%d addresses end in conflict", w.silence())
		w.rest()
		close(stop)
		watching.Wait()
		w.settled()
		for i, p := range providers {
			w.mirrors(i, p)
		}
		if w.Failed() {
			w.Logf("seed %d", seed)
		}
	})
}

// disturb makes answers late and some writes of VirtualIPs fail. What is sent on the channel says that a Service shows something
// else than before.
func (w *world) disturb(seed uint64) (shows <-chan struct{}) {
	changed := make(chan struct{}, 1)
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(seed, 1<<32))
	roll := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	w.api.Before = func(request string) error {
		verb, object, _ := strings.Cut(request, " ")
		if !strings.HasPrefix(object, "virtualips/") || verb == "get" {
			return nil
		}
		switch roll(40) {
		case 0, 1:
			return apierrors.NewConflict(schema.GroupResource{Resource: "virtualips"}, object, errors.New("injected"))
		case 2:
			return apierrors.NewInternalError(errors.New("injected"))
		}
		return nil
	}
	w.api.After = func(request string) {
		if strings.HasPrefix(request, "patch services/") {
			select {
			case changed <- struct{}{}:
			default:
			}
		}
		// All take their time, so that they meet: nothing else does in a bubble.
		late := roll(3)
		if roll(10) == 0 {
			late = roll(20)
		}
		time.Sleep(time.Duration(late) * time.Millisecond)
	}
	return changed
}

// act does something with the Service.
func (w *world) act(rnd *rand.Rand, name string) {
	services := w.kube.CoreV1().Services("shop")
	s, err := services.Get(w.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		if _, err := services.Create(w.ctx, anyService(rnd, name), metav1.CreateOptions{}); err != nil {
			w.Error(err)
		}
		return
	}
	if err != nil {
		w.Error(err)
		return
	}
	switch rnd.IntN(5) {
	case 0, 1:
		err = services.Delete(w.ctx, name, metav1.DeleteOptions{})
	case 2:
		if s.Spec.Type == corev1.ServiceTypeLoadBalancer {
			toClusterIP(s)
		} else {
			s.Spec.Type = corev1.ServiceTypeLoadBalancer
		}
		_, err = services.Update(w.ctx, s, metav1.UpdateOptions{})
	default:
		other := anyService(rnd, name)
		s.Annotations, s.Spec.IPFamilies, s.Spec.IPFamilyPolicy = other.Annotations, other.Spec.IPFamilies, other.Spec.IPFamilyPolicy
		_, err = services.Update(w.ctx, s, metav1.UpdateOptions{})
	}
	// One that is being deleted may go meanwhile.
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		w.Error(err)
	}
}

// dispute says of one of the addresses, now and then, that another host has it,
// or has it no more, or that a node announces it.
func (w *world) dispute(rnd *rand.Rand) {
	list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) == 0 || rnd.IntN(4) > 0 {
		return
	}
	v := &list.Items[rnd.IntN(len(list.Items))]
	[]func(*v1alpha1.VirtualIPStatus){disputed, disputed, silent, ownedBy("a")}[rnd.IntN(4)](&v.Status)
	_, err = w.herald.VirtualIPs.UpdateStatus(w.ctx, v, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) && !apierrors.IsInternalError(err) {
		w.Error(err)
	}
}

// silence says that no other host has any address any more.
func (w *world) silence() (disputed int) {
	list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	must(w, err)
	for i := range list.Items {
		v := &list.Items[i]
		if !conflicted(v) {
			continue
		}
		disputed++
		for range 100 {
			silent(&v.Status)
			if _, err = w.herald.VirtualIPs.UpdateStatus(w.ctx, v, metav1.UpdateOptions{}); err == nil || apierrors.IsNotFound(err) {
				break
			}
			if v, err = w.herald.VirtualIPs.Get(w.ctx, list.Items[i].Name, metav1.GetOptions{}); err != nil {
				break
			}
		}
	}
	return disputed
}

func anyService(rnd *rand.Rand, name string) *corev1.Service {
	s := lb(name, onPort(1000+rnd.Int32N(1000)))
	switch rnd.IntN(4) {
	case 0:
		annotated(annotations.Share, fmt.Sprintf("key%d", rnd.IntN(5)))(s)
	case 1:
		annotated(annotations.Addresses, fmt.Sprintf("203.0.113.%d", rnd.IntN(16)))(s)
	}
	switch policy := []corev1.IPFamilyPolicy{corev1.IPFamilyPolicySingleStack, corev1.IPFamilyPolicyPreferDualStack, corev1.IPFamilyPolicyRequireDualStack}[rnd.IntN(3)]; policy {
	case corev1.IPFamilyPolicySingleStack:
	default:
		s.Spec.IPFamilyPolicy = &policy
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	}
	return s
}

func (w *world) services() []corev1.Service {
	list, err := w.kube.CoreV1().Services("shop").List(w.ctx, metav1.ListOptions{})
	if err != nil {
		w.Error(err)
		return nil
	}
	return list.Items
}

// watchForDoubles looks whether two Services show one address whenever one shows another.
func (w *world) watchForDoubles(stop, shows <-chan struct{}) {
	for looked := 0; ; looked++ {
		shown := map[netip.Addr]*corev1.Service{}
		for _, s := range w.services() {
			for _, addr := range shownBy(&s) {
				other := shown[addr]
				shown[addr] = &s
				// A key that was changed or removed is not what it was shown under.
				if other != nil && (s.Annotations[annotations.Share] == "" && other.Annotations[annotations.Share] == "") && !w.mayHaveShared(&s, other, addr) {
					w.Errorf("%s and %s both show %s; VirtualIPs %v", s.Name, other.Name, addr, w.vips())
					for _, line := range w.events.all() {
						if strings.HasPrefix(line, s.Name+" ") || strings.HasPrefix(line, other.Name+" ") {
							w.Log(line)
						}
					}
					return
				}
			}
		}
		select {
		case <-stop:
			w.Logf("looked %d times", looked)
			return
		case <-shows:
		}
	}
}

// mayHaveShared says whether both still are on the address together: the keys
// under which they came were taken from them, and they have not moved yet.
func (w *world) mayHaveShared(a, b *corev1.Service, addr netip.Addr) bool {
	v, err := w.herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(addr), metav1.GetOptions{})
	if err == nil && findClaim(v, "shop", a.Name) >= 0 && findClaim(v, "shop", b.Name) >= 0 {
		return true
	}
	// One may have moved, and been taken off the address, since we looked.
	shows := func(name string) bool {
		s, err := w.kube.CoreV1().Services("shop").Get(w.ctx, name, metav1.GetOptions{})
		return err == nil && slices.Contains(shownBy(s), addr)
	}
	return !shows(a.Name) || !shows(b.Name)
}

// settled checks the end: Services and VirtualIPs say the same.
func (w *world) settled() {
	list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	must(w, err)
	claimed := map[string]bool{}
	byName := map[string]*corev1.Service{}
	served := 0
	services := w.services()
	for i := range services {
		byName[services[i].Name] = &services[i]
	}
	for i := range list.Items {
		v := &list.Items[i]
		if len(v.Spec.Claims) == 0 {
			w.Errorf("VirtualIP %s is left over", v.Name)
		}
		ports := map[int32]string{}
		var shares *corev1.Service
		for _, claim := range v.Spec.Claims {
			claimed[claim.Name+" "+v.Spec.Address] = true
			s := byName[claim.Name]
			if s == nil || s.Spec.Type != corev1.ServiceTypeLoadBalancer || s.UID != claim.UID {
				w.Errorf("VirtualIP %s is leaked by %s", v.Name, claim.Name)
				continue
			}
			if other := ports[claim.Ports[0].Port]; other != "" {
				w.Errorf("%s and %s have one port on %s", claim.Name, other, v.Name)
			}
			ports[claim.Ports[0].Port] = claim.Name
			if !meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ServiceReady) {
				continue // it asks for what it cannot have, and keeps what it had
			}
			if shares != nil && shares.Annotations[annotations.Share] != s.Annotations[annotations.Share] || shares != nil && s.Annotations[annotations.Share] == "" {
				w.Errorf("%s and %s are both served at %s and do not share", s.Name, shares.Name, v.Name)
			}
			shares = s
		}
	}
	for _, s := range services {
		condition := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceReady)
		shown := shownBy(&s)
		switch {
		case s.Spec.Type != corev1.ServiceTypeLoadBalancer:
			if len(shown) > 0 || condition != nil {
				w.Errorf("%s is no load balancer and says %s", s.Name, tell(&s))
			}
		case condition == nil:
			w.Errorf("%s has no condition", s.Name)
		case (condition.Status == metav1.ConditionTrue) && len(shown) == 0, condition.Reason == string(v1alpha1.SyncFailed):
			w.Errorf("%s: %q, %s", s.Name, tell(&s), condition.Message)
		}
		for _, addr := range shown {
			if !claimed[s.Name+" "+addr.String()] {
				w.Errorf("%s shows %s, which is not its", s.Name, addr)
			}
			delete(claimed, s.Name+" "+addr.String())
		}
		if len(shown) > 0 {
			served++
		}
	}
	for claim := range claimed {
		// One that is refused keeps what it had, also the end of a move.
		if s := byName[strings.Fields(claim)[0]]; s != nil && meta.IsStatusConditionTrue(s.Status.Conditions, v1alpha1.ServiceReady) {
			w.Errorf("claimed and not shown: %s (%s)", claim, tell(s))
		}
	}
	w.Logf("%d Services, %d served, %d VirtualIPs, %d writes", len(services), served, len(list.Items), len(w.api.Writes()))
	if served < 20 {
		w.Errorf("only %d Services are served: this proves little", served)
	}
}

// mirrors checks that a provider at rest knows what there is and nothing else.
func (w *world) mirrors(n int, p *Provider) {
	w.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	must(w, err)
	if len(list.Items) != len(p.ledger.vips) || len(p.ledger.writing)+len(p.ledger.buried)+len(p.ledger.adopted) > 0 {
		w.Errorf("provider %d knows %d VirtualIPs of %d; writing %v, buried %v, adopted %v",
			n, len(p.ledger.vips), len(list.Items), p.ledger.writing, p.ledger.buried, p.ledger.adopted)
	}
	load := map[string]int{}
	for i := range list.Items {
		v := &list.Items[i]
		load[firstOf(v.Spec.L2)]++
		holders := p.ledger.allocator.Holders(netip.MustParseAddr(v.Spec.Address))
		if len(holders) != len(v.Spec.Claims) {
			w.Errorf("provider %d has %s held by %v, and it is claimed by %v", n, v.Name, holders, v.Spec.Claims)
		}
	}
	if fmt.Sprint(load) != fmt.Sprint(p.ledger.load) {
		w.Errorf("provider %d counts %v for %v", n, p.ledger.load, load)
	}
	for key := range p.waiting {
		s := w.get(key.Name)
		if condition := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceReady); condition == nil || condition.Reason == string(v1alpha1.AddressAssigned) {
			w.Errorf("provider %d has %s waiting, and it says %q", n, key, tell(s))
		}
	}
}
