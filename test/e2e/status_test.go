package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// said is how long it may take until the death of a speaker is told.
const said = 15 * time.Second

// claimsToServe says what still says that something is served: Speakers of the
// nodes, the VirtualIP and the Service.
func (w *world) claimsToServe(service string, addr netip.Addr, nodes ...string) error {
	w.Helper()
	var errs []error
	for _, node := range nodes {
		speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
		w.must(err)
		for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionServiceProxyHealthy} {
			if c := meta.FindStatusCondition(speaker.Status.Conditions, kind); c == nil || c.Status != metav1.ConditionUnknown || c.Reason != string(v1alpha1.LeaseExpired) {
				errs = append(errs, fmt.Errorf("speaker %s: %+v", node, c))
			}
		}
		if speaker.Status.Announcing != nil || len(speaker.Status.Peers) > 0 {
			errs = append(errs, fmt.Errorf("speaker %s: announcing %v, peers %v", node, speaker.Status.Announcing, speaker.Status.Peers))
		}
	}
	vip := w.virtualIP(addr)
	if c := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionAnnounced); c == nil || c.Status != metav1.ConditionUnknown || c.Reason != string(v1alpha1.SpeakerLost) {
		errs = append(errs, fmt.Errorf("VirtualIP: %+v", c))
	}
	s := w.get(service)
	for _, kind := range []string{v1alpha1.ServiceReady, v1alpha1.ServiceAnnounced} {
		if c := meta.FindStatusCondition(s.Status.Conditions, kind); c == nil || c.Status != metav1.ConditionUnknown || c.Reason != string(v1alpha1.SpeakerLost) {
			errs = append(errs, fmt.Errorf("service: %+v", c))
		}
	}
	return errors.Join(errs...)
}

// allReady waits until the speakers of all nodes and the Service say that they are well.
func (w *world) allReady(service string) {
	w.Helper()
	w.eventually("all is Ready again", func() error {
		for _, node := range box.Nodes() {
			speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
			w.must(err)
			if !meta.IsStatusConditionTrue(speaker.Status.Conditions, v1alpha1.ConditionReady) || speaker.Status.Announcing == nil {
				return fmt.Errorf("speaker %s: %+v", node, speaker.Status)
			}
		}
		if c := ready(w.get(service)); c == nil || c.Status != metav1.ConditionTrue {
			return fmt.Errorf("service: %+v", c)
		}
		return nil
	})
}

// quickly waits for something, and fails when it takes longer than it may.
func (w *world) quickly(what string, most time.Duration, check func() error) {
	w.Helper()
	if took := w.quietly(what, check); took > most {
		w.Errorf("%s: after %v, want %v", what, took, most)
	} else {
		w.Logf("%s: after %v", what, took)
	}
}

// Nobody says that anything is served when all speakers are dead, and all is
// well again when they are back, without a hand.
func TestDeadSpeakersAreTold(t *testing.T) {
	w := newWorld(t)
	w.pool("public", nil, w.v4.String())
	w.pods("web", box.Nodes()...)
	w.service("web", nil)
	addr := w.address("web")
	owner := w.owner(addr)
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	if c := announced(w.get("web")); c == nil || has(c.Message, addr.String(), owner) != nil {
		t.Errorf("Announced: %+v: want the owner, %s", c, owner)
	}
	w.allReady("web")

	kill := func() {
		for _, node := range box.Nodes() {
			w.must(box.Kill(w.ctx, "speaker-"+node))
		}
	}
	start := func() {
		for _, node := range box.Nodes() {
			w.must(box.StartAgain("speaker-" + node))
		}
	}
	w.Cleanup(func() {
		for _, node := range box.Nodes() {
			if !box.Running("speaker-" + node) {
				w.must(box.StartAgain("speaker-" + node))
			}
		}
	})
	kill()
	w.quickly("nobody says that it is served", said, func() error { return w.claimsToServe("web", addr, box.Nodes()...) })
	w.told("Service", "web", v1alpha1.SpeakerLost)
	w.told("VirtualIP", v1alpha1.VirtualIPName(addr), v1alpha1.SpeakerLost)
	start()
	w.allReady("web")
	w.reachable(addr)

	// The same when the controller is dead meanwhile: from its return on.
	w.must(box.Kill(w.ctx, "controller"))
	kill()
	time.Sleep(said)
	w.resume()
	w.quickly("nobody says that it is served, since the controller is back", said+5*time.Second,
		func() error { return w.claimsToServe("web", addr, box.Nodes()...) })
	start()
	w.allReady("web")
}

// One speaker that cannot start again: the others take over, its Speaker says so.
func TestOneDeadSpeakerIsTold(t *testing.T) {
	w := newWorld(t)
	w.pool("public", nil, w.v4.String())
	w.pods("web", box.Nodes()...)
	w.service("web", nil)
	addr := w.address("web")
	owner := w.owner(addr)
	w.must(box.Kill(w.ctx, "speaker-"+owner))
	w.quickly("its Speaker is told lost", said, func() error {
		speaker, err := herald.Speakers.Get(w.ctx, owner, metav1.GetOptions{})
		w.must(err)
		if c := meta.FindStatusCondition(speaker.Status.Conditions, v1alpha1.ConditionReady); c == nil || c.Status != metav1.ConditionUnknown {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
	w.ownerOtherThan(addr, owner)
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	w.must(box.StartAgain("speaker-" + owner))
	w.allReady("web")
	if events := w.events("Service", "web", v1alpha1.SpeakerLost); len(events) > 0 {
		t.Errorf("the Service was told lost, though another node took over: %v", events)
	}
}

// A Service is Ready only if somebody answers for it; kubectl shows why not.
func TestServiceIsReadyWhenItIsAnnounced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pool("public", nil, w.v4.String())
	w.service("web", nil)
	w.says("web", metav1.ConditionFalse, v1alpha1.NoReadyEndpoints, w.address("web").String())
	w.told("Service", "web", v1alpha1.NoReadyEndpoints)
	w.pods("web", "node1")
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)

	// On an interface that exists nowhere.
	w.pool("nowhere", func(s *v1alpha1.AddressPoolSpec) { s.Priority = -1 }, w.v6.String())
	advert, err := herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-nowhere"},
		Spec: v1alpha1.AdvertisementSpec{
			Pools: []string{w.namespace + "-nowhere", w.namespace + "-other"},
			L2:    &v1alpha1.L2Advertisement{Interfaces: []string{"nosuch0", "nosuch1"}},
		},
	}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		w.must(herald.Advertisements.Delete(context.Background(), advert.Name, metav1.DeleteOptions{}))
	})
	w.pods("lost", "node1")
	w.service("lost", func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = ptr.To(corev1.IPFamilyPolicySingleStack), []corev1.IPFamily{corev1.IPv6Protocol}
	})
	w.says("lost", metav1.ConditionFalse, v1alpha1.NoInterface)
	w.told("Service", "lost", v1alpha1.NoInterface)
	out, err := box.Kubectl(w.ctx, "describe", "service", "-n", w.namespace, "lost")
	w.must(err)
	w.must(has(out, "NoInterface", "has no interface to announce the address on"))
}

// What kubectl get shows of lists is all of them, by every name of the kind.
func TestColumnsShowWholeLists(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first, second := nth(w.v4, 1).String()+"/32", nth(w.v4, 2).String()+"/32"
	pool := w.pool("two", nil, first, second)
	advert, err := herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace},
		Spec: v1alpha1.AdvertisementSpec{
			Pools: []string{pool.Name, "another"},
			L2:    &v1alpha1.L2Advertisement{Interfaces: []string{"eth0", "bond*"}},
		},
	}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		w.must(herald.Advertisements.Delete(context.Background(), advert.Name, metav1.DeleteOptions{}))
	})
	w.pods("web", "node1")
	shared := func(port int32) func(*corev1.Service) {
		return func(s *corev1.Service) {
			annotated("heraldlb.io/share", "key")(s)
			s.Spec.Selector, s.Spec.Ports[0].Port = map[string]string{"app": "web"}, port
		}
	}
	w.service("web", shared(80))
	addr := w.address("web")
	w.service("more", shared(81))
	w.address("more")
	w.owner(addr)
	for _, c := range []struct {
		names []string
		args  []string
		words []string
	}{
		{[]string{"vip", "vips", "virtualips"}, []string{addr.String()}, []string{w.namespace + "/more," + w.namespace + "/web", "node"}},
		{[]string{"pool", "pools", "addresspools"}, []string{pool.Name}, []string{first + "," + second}},
		{[]string{"adv", "advs", "advertisements"}, []string{advert.Name}, []string{pool.Name + ",another", "eth0,bond*"}},
		{[]string{"speaker", "speakers"}, []string{"node1"}, []string{"eth0"}},
		{[]string{"peer", "peers", "bgppeers"}, nil, nil},
	} {
		for _, name := range c.names {
			w.eventually("kubectl get "+name, func() error {
				out, err := box.Kubectl(w.ctx, append([]string{"get", name, "-o", "wide"}, c.args...)...)
				if err != nil {
					return err
				}
				if strings.Contains(out, "[") {
					return fmt.Errorf("JSON: %s", out)
				}
				return has(out, c.words...)
			})
		}
	}
}
