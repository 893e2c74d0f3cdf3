package baremetal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// lives has the speaker of a node renew its Lease every 3 s, from a clock that
// is so far ahead, until it is killed.
func (w *world) lives(node string, ahead time.Duration) (kill func()) {
	w.Helper()
	leases := w.kube.CoordinationV1().Leases("herald-system")
	renew := func() error {
		lease, err := leases.Get(w.ctx, node, metav1.GetOptions{})
		fresh := heldLease(node, time.Now().Add(ahead))
		fresh.Labels = set{v1alpha1.SpeakerLabel: ""}
		if apierrors.IsNotFound(err) {
			_, err = leases.Create(w.ctx, fresh, metav1.CreateOptions{})
			return err
		}
		if err != nil {
			return err
		}
		lease.Spec = fresh.Spec
		_, err = leases.Update(w.ctx, lease, metav1.UpdateOptions{})
		return err
	}
	must(w, renew())
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for wait := 3 * time.Second; ; {
			select {
			case <-stop:
				return
			case <-w.ctx.Done():
				return
			case <-time.After(wait):
			}
			wait = 3 * time.Second
			if renew() != nil {
				wait = time.Second
			}
		}
	}()
	killed := false
	kill = func() {
		if !killed {
			killed = true
			close(stop)
			<-done
		}
	}
	w.Cleanup(kill)
	return kill
}

// speaks is what a speaker that starts writes of itself.
func speaks(s *v1alpha1.SpeakerStatus) {
	seven := int32(7)
	s.Announcing, s.Peers = &seven, []v1alpha1.SpeakerPeer{{Node: "x", BFD: "Up"}}
	for _, c := range []metav1.Condition{
		{Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Running)},
		{Type: v1alpha1.ConditionServiceProxyHealthy, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ProxyHealthy)},
	} {
		meta.SetStatusCondition(&s.Conditions, c)
	}
}

// speakerSays is a Speaker in a line.
func (w *world) speakerSays(node string) string {
	w.Helper()
	speaker, err := w.herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
	must(w, err)
	words := []string{conditionLine(speaker.Status.Conditions, v1alpha1.ConditionReady), conditionLine(speaker.Status.Conditions, v1alpha1.ConditionServiceProxyHealthy)}
	if speaker.Status.Announcing != nil {
		words = append(words, fmt.Sprint(*speaker.Status.Announcing))
	}
	for _, session := range speaker.Status.BGP {
		words = append(words, session.Peer+" "+session.State)
	}
	for _, peer := range speaker.Status.Peers {
		words = append(words, "hears "+peer.Node)
	}
	return strings.Join(words, ", ")
}

func conditionLine(conditions []metav1.Condition, kind string) string {
	c := meta.FindStatusCondition(conditions, kind)
	if c == nil {
		return "none"
	}
	return string(c.Status) + " " + c.Reason
}

// serviceSays are the two conditions of a Service.
func (w *world) serviceSays(name string) string {
	w.Helper()
	s := w.get(name)
	return conditionLine(s.Status.Conditions, v1alpha1.ServiceReady) + ", " + conditionLine(s.Status.Conditions, v1alpha1.ServiceAnnounced)
}

func (w *world) within(span time.Duration, what, want string, got func() string) {
	w.Helper()
	start := time.Now()
	w.until(what, want, got)
	if took := time.Since(start); took > span {
		w.Errorf("%s: after %v, want %v", what, took, span)
	}
}

const (
	allWell   = "True AddressAssigned, True Announced"
	lostWord  = "Unknown SpeakerLost, Unknown SpeakerLost"
	lostSpeak = "Unknown LeaseExpired, Unknown LeaseExpired"
)

// announcedWorld has three speakers, and the Service web announced by the first candidate.
func announcedWorld(w *world) (stop func(), kill map[string]func(), owner string) {
	w.Helper()
	w.pool("public", nil, "203.0.113.17/32")
	kill = map[string]func(){}
	for _, node := range []string{"a", "b", "c"} {
		kill[node] = w.lives(node, 0)
		w.speaker(node, speaks)
	}
	_, stop = w.controller()
	w.endpoints("web", "a", "b", "c")
	w.create(lb("web"))
	w.untilService("web", "203.0.113.17 AddressAssigned")
	owner = firstOf(w.vip("203.0.113.17").Spec.L2)
	w.says("203.0.113.17", ownedBy(owner))
	w.until("web", allWell, func() string { return w.serviceSays("web") })
	return stop, kill, owner
}

func (w *world) vipSays() string { return w.announced("203.0.113.17") }

func TestAllSpeakersLost(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		stop, kill, owner := announcedWorld(w)
		time.Sleep(time.Minute)
		for _, dies := range kill {
			dies()
		}
		died := time.Now()
		for _, node := range []string{"a", "b", "c"} {
			w.until(node, lostSpeak, func() string { return w.speakerSays(node) })
		}
		w.until("the address", "Unknown SpeakerLost by "+owner, w.vipSays)
		w.until("web", lostWord, func() string { return w.serviceSays("web") })
		if took := time.Since(died); took > 15*time.Second {
			w.Errorf("told after %v", took)
		}
		time.Sleep(5 * time.Minute)
		for object, want := range map[string]string{
			"a": "Warning LeaseExpired", "203.0.113.17": "Warning SpeakerLost", "web": "Normal AddressAssigned, Warning SpeakerLost",
		} {
			if got := w.events.of(object); got != want {
				w.Errorf("told of %s: %q, want %q", object, got, want)
			}
		}
		// A new Service is not told that it is served either.
		stop()
		w.controller()
		w.lives("a", 0)
		w.speaker("a", speaks)
		w.says("203.0.113.17", ownedBy("a"))
		w.until("web", allWell, func() string { return w.serviceSays("web") })
		time.Sleep(time.Minute)
		if got := w.speakerSays("a"); !strings.HasPrefix(got, "True Running") {
			w.Errorf("a: %s", got)
		}
		if got := w.speakerSays("b"); got != lostSpeak {
			w.Errorf("b: %s", got)
		}
	})
}

func TestOneSpeakerLost(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, kill, owner := announcedWorld(w)
		other := without([]string{"a", "b", "c"}, owner)[0]
		kill[other]()
		w.within(15*time.Second, "its Speaker", lostSpeak, func() string { return w.speakerSays(other) })
		time.Sleep(time.Minute)
		if got := w.vipSays() + "; " + w.serviceSays("web"); got != "True Announced by "+owner+"; "+allWell {
			w.Errorf("another one is lost: %s", got)
		}
		kill[owner]()
		w.within(15*time.Second, "the address", "Unknown SpeakerLost by "+owner, w.vipSays)
		last := without(without([]string{"a", "b", "c"}, owner), other)[0]
		w.says("203.0.113.17", ownedBy(last))
		w.within(15*time.Second, "web", allWell, func() string { return w.serviceSays("web") })
		if got := w.events.of("203.0.113.17"); got != "Warning SpeakerLost" {
			w.Errorf("told of the address: %s", got)
		}
	})
}

// Whoever takes over in time keeps it from being told.
func TestTakenOverInTime(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, kill, owner := announcedWorld(w)
		kill[owner]()
		w.until("its Speaker", lostSpeak, func() string { return w.speakerSays(owner) })
		w.says("203.0.113.17", ownedBy(without([]string{"a", "b", "c"}, owner)[0]))
		time.Sleep(time.Minute)
		if got := w.events.of("203.0.113.17") + "; " + w.events.of("web"); strings.Contains(got, "SpeakerLost") {
			w.Errorf("told: %s", got)
		}
		if got := w.serviceSays("web"); got != allWell {
			w.Errorf("web: %s", got)
		}
	})
}

// While the API server refuses everything, speakers cannot renew either.
func TestNobodyIsLostInAnOutage(t *testing.T) {
	t.Parallel()
	for _, span := range []time.Duration{5 * time.Second, 12 * time.Second, time.Minute} {
		inWorld(t, func(w *world) {
			var away atomic.Bool
			w.api.Before = func(string) error {
				if away.Load() {
					return apierrors.NewInternalError(errors.New("etcd is away"))
				}
				return nil
			}
			_, _, owner := announcedWorld(w)
			time.Sleep(time.Minute)
			away.Store(true)
			time.Sleep(span)
			away.Store(false)
			time.Sleep(2 * time.Minute)
			for _, node := range []string{"a", "b", "c"} {
				if got := w.speakerSays(node); !strings.HasPrefix(got, "True Running") {
					w.Errorf("%v: %s: %s", span, node, got)
				}
			}
			if got := w.vipSays() + "; " + w.serviceSays("web"); got != "True Announced by "+owner+"; "+allWell {
				w.Errorf("%v: %s", span, got)
			}
			if events := w.events.all(); slices.ContainsFunc(events, func(e string) bool { return strings.Contains(e, "Lost") || strings.Contains(e, "Expired") }) {
				w.Errorf("%v: told %q", span, events)
			}
		})
	}
}

// A speaker that died while no controller ran, one whose Lease was deleted, and
// one that never had one.
func TestLostWithoutAWitness(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		stop, kill, owner := announcedWorld(w)
		stop()
		for _, dies := range kill {
			dies()
		}
		must(w, w.kube.CoordinationV1().Leases("herald-system").Delete(w.ctx, without([]string{"a", "b", "c"}, owner)[0], metav1.DeleteOptions{}))
		time.Sleep(time.Hour / 6)
		w.speaker("d", speaks)
		w.controller()
		returned := time.Now()
		for _, node := range []string{"a", "b", "c", "d"} {
			w.until(node, lostSpeak, func() string { return w.speakerSays(node) })
		}
		w.until("web", lostWord, func() string { return w.serviceSays("web") })
		if took := time.Since(returned); took > 15*time.Second {
			w.Errorf("told after %v", took)
		}
	})
}

// A Lease that is given up and taken back in time is a restart.
func TestARestartIsNoLoss(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, kill, owner := announcedWorld(w)
		kill[owner]()
		w.leave(owner)
		time.Sleep(9 * time.Second)
		w.lives(owner, 0)
		time.Sleep(time.Minute)
		if got := w.events.of(owner); got != "" {
			w.Errorf("told %s", got)
		}
		other := without([]string{"a", "b", "c"}, owner)[0]
		kill[other]()
		w.leave(other)
		w.within(15*time.Second, "given up for good", lostSpeak, func() string { return w.speakerSays(other) })
	})
}

// An address for BGP alone is not known to be advertised when those who did are lost.
func TestLostByBGPAlone(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.advertise("fabric", v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}})
		w.router("tor", nil)
		kill := map[string]func(){}
		for _, node := range []string{"a", "b", "c"} {
			kill[node] = w.lives(node, 0)
			w.speaker(node, func(s *v1alpha1.SpeakerStatus) {
				speaks(s)
				s.BGP = []v1alpha1.SpeakerBGPSession{established("tor", "IPv4")}
			})
		}
		w.controller()
		w.endpoints("web", "a")
		w.create(lb("web"))
		w.until("web", "True AddressAssigned, True Advertised", func() string { return w.serviceSays("web") })
		if c := meta.FindStatusCondition(w.get("web").Status.Conditions, v1alpha1.ServiceAnnounced); !strings.Contains(c.Message, "router tor") {
			w.Errorf("it does not name its router: %s", c.Message)
		}
		kill["a"]()
		kill["b"]()
		w.until("the peer", "1/1 True Established@1: Every node has a session.", func() string { return w.tellPeer("tor") })
		if got := w.vipSays(); got != "True Advertised" {
			w.Errorf("one advertises: %s", got)
		}
		kill["c"]()
		w.within(15*time.Second, "the address", "Unknown SpeakerLost", w.vipSays)
		w.within(10*time.Second, "web", lostWord, func() string { return w.serviceSays("web") })
		w.until("c", lostSpeak+", tor Unknown", func() string { return w.speakerSays("c") })
		w.until("the peer", "0/0 False NoNode@1: No node with a live speaker is selected.", func() string { return w.tellPeer("tor") })
	})
}

// A node whose clock is wrong keeps its addresses when the controller starts.
func TestClocksThatAreWrong(t *testing.T) {
	t.Parallel()
	for _, ahead := range []time.Duration{-time.Hour, -90 * time.Second, time.Hour} {
		inWorld(t, func(w *world) {
			w.pool("public", nil, "203.0.113.17/32")
			for _, node := range []string{"a", "b", "c"} {
				w.lives(node, ahead)
			}
			_, stop := w.controller()
			time.Sleep(15 * time.Second)
			w.endpoints("web", "a", "b", "c")
			w.create(lb("web"))
			w.untilService("web", "203.0.113.17 AddressAssigned")
			time.Sleep(15 * time.Second)
			generation, candidates := w.vip("203.0.113.17").Generation, w.candidates("203.0.113.17")
			for range 3 {
				stop()
				_, stop = w.controller()
				time.Sleep(time.Minute)
			}
			if v := w.vip("203.0.113.17"); v.Generation != generation || w.candidates("203.0.113.17") != candidates {
				w.Errorf("%v: candidates %s, want %s", ahead, w.candidates("203.0.113.17"), candidates)
			}
		})
	}
}

// A dead node is given nothing when a controller starts, and loses what it has.
func TestDeadAtTheStart(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, kill, owner := announcedWorld(w)
		kill[owner]()
		time.Sleep(5 * time.Minute)
		w.until("it is no candidate", "true", func() string {
			return fmt.Sprint(!slices.Contains(w.vip("203.0.113.17").Spec.L2.Candidates, owner))
		})
	})
}

// What becomes reachable costs two writes on the Service and two on each address.
func TestNewServiceCostsTwoWrites(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32", "2001:db8::17/128")
		w.controller()
		w.endpoints("web", "a", "b", "c")
		before := len(w.rest())
		w.create(lb("web", func(s *corev1.Service) {
			dual := corev1.IPFamilyPolicyRequireDualStack
			s.Spec.IPFamilyPolicy, s.Spec.IPFamilies = &dual, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}))
		w.until("web", "False Announcing, False Announcing", func() string { return w.serviceSays("web") })
		for _, address := range []string{"203.0.113.17", "2001:db8::17"} {
			time.Sleep(500 * time.Millisecond)
			w.says(address, ownedBy(firstOf(w.vip(address).Spec.L2)))
		}
		w.within(2*time.Second, "web", allWell, func() string { return w.serviceSays("web") })
		counts := map[string]int{}
		for _, write := range w.rest()[before:] {
			for _, object := range []string{"services/shop/web/status", "virtualips/203.0.113.17", "virtualips/2001", "addresspools/"} {
				if strings.Contains(write, object) {
					counts[object]++
				}
			}
		}
		if fmt.Sprint(counts) != "map[addresspools/:1 services/shop/web/status:2 virtualips/2001:2 virtualips/203.0.113.17:2]" {
			w.Errorf("writes: %v", counts)
		}
		if c := meta.FindStatusCondition(w.get("web").Status.Conditions, v1alpha1.ServiceAnnounced); !strings.Contains(c.Message, "203.0.113.17: Node") || !strings.Contains(c.Message, "2001:db8::17: Node") {
			w.Errorf("Announced: %s", c.Message)
		}
		if got := w.events.of("web"); got != "Normal AddressAssigned" {
			w.Errorf("told %s", got)
		}
	})
}

// A pod that flaps costs one write on the Service in 10 s, and the last word is true.
func TestFlappingPod(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, _, owner := announcedWorld(w)
		time.Sleep(time.Minute)
		before, start := len(w.api.Writes()), time.Now()
		flaps := 0
		for ; time.Since(start) < 2*time.Minute; flaps++ {
			w.move("web")
			time.Sleep(1700 * time.Millisecond)
			w.move("web", ready("a"))
			time.Sleep(300 * time.Millisecond)
			w.says("203.0.113.17", ownedBy(owner))
			time.Sleep(1300 * time.Millisecond)
		}
		writes := 0
		for _, write := range w.api.Writes()[before:] {
			if strings.HasPrefix(write, "patch services/") {
				writes++
			}
		}
		if writes > 13 {
			w.Errorf("%d writes in %v", writes, time.Since(start))
		}
		time.Sleep(15 * time.Second)
		if got := w.serviceSays("web"); got != allWell {
			w.Errorf("at last: %s", got)
		}
		w.move("web")
		w.within(12*time.Second, "no endpoint", "False NoReadyEndpoints, False NoReadyEndpoints", func() string { return w.serviceSays("web") })
		w.move("web", ready("a"))
		time.Sleep(100 * time.Millisecond)
		w.says("203.0.113.17", ownedBy(owner))
		w.within(12*time.Second, "back", allWell, func() string { return w.serviceSays("web") })
	})
}

// A standing no is told again before its event is forgotten, and not more often,
// whatever restarts.
func TestStandingNoIsToldAgain(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		_, stop := w.controller()
		w.create(lb("web"))
		w.create(lb("full"))
		w.until("web", "false", func() string {
			return fmt.Sprint(!strings.Contains(w.serviceSays("web")+w.serviceSays("full"), "PoolExhausted"))
		})
		count := func() (n int) {
			for _, line := range w.events.all() {
				if strings.Contains(line, "NoReadyEndpoints") || strings.Contains(line, "PoolExhausted") {
					n++
				}
			}
			return n
		}
		time.Sleep(time.Minute)
		if count() != 2 {
			w.Errorf("told %q at first", w.events.all())
		}
		before := len(w.api.Writes())
		for range 35 { // a controller that starts every minute tells nothing early
			stop()
			_, stop = w.controller()
			time.Sleep(time.Minute)
		}
		if count() != 2 {
			w.Errorf("told again by restarts: %q", w.events.all())
		}
		time.Sleep(15 * time.Minute) // 51 min in all
		if count() != 4 {
			w.Errorf("not told once more each: %q", w.events.all())
		}
		if writes := w.api.Writes()[before:]; len(writes) > 0 {
			w.Errorf("written: %q", writes)
		}
	})
}

// The counters of a pool are written once in 10 s; the first change at once.
func TestPoolCountersAreWrittenSeldom(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.0/24")
		w.controller()
		before := len(w.rest())
		for i := range 60 {
			w.create(lb(fmt.Sprintf("s%d", i)))
			time.Sleep(500 * time.Millisecond)
		}
		writes := 0
		for _, write := range w.rest()[before:] {
			if strings.HasPrefix(write, "update addresspools/") {
				writes++
			}
		}
		if writes < 2 || writes > 5 {
			w.Errorf("%d writes in 30 s", writes)
		}
		pool, err := w.herald.AddressPools.Get(w.ctx, "public", metav1.GetOptions{})
		must(w, err)
		if pool.Status.IPv4.Allocated != 60 || pool.Status.Addresses != "203.0.113.0/24" {
			w.Errorf("at last: %+v", pool.Status)
		}
	})
}

// Without a candidate, and without an Advertisement that applies, a Service says why.
func TestServiceSaysWhyItIsNotAnnounced(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.endpoints("web", "a")
		for _, node := range []string{"a", "b", "c"} {
			w.editNode(node, func(n *corev1.Node) { n.Labels = set{corev1.LabelNodeExcludeBalancers: ""} })
		}
		w.create(lb("web"))
		w.until("web", "False NoCandidates, False NoCandidates", func() string { return w.serviceSays("web") })
		w.rest()
		ready := meta.FindStatusCondition(w.get("web").Status.Conditions, v1alpha1.ServiceReady)
		for _, word := range []string{"203.0.113.17", "NodeExcluded: a, b, c"} {
			if !strings.Contains(ready.Message, word) {
				w.Errorf("%q lacks %q", ready.Message, word)
			}
		}
		if said := meta.FindStatusCondition(w.vip("203.0.113.17").Status.Conditions, v1alpha1.ConditionAnnounced); said == nil || !strings.Contains(said.Message, "NodeExcluded: a, b, c") {
			w.Errorf("the VirtualIP says %v", said)
		}
		w.editNode("b", func(n *corev1.Node) { n.Labels = nil })
		w.until("b may", "b", func() string { return w.candidates("203.0.113.17") })
		w.says("203.0.113.17", func(s *v1alpha1.VirtualIPStatus) {
			s.Conditions = []metav1.Condition{{
				Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionFalse, Reason: string(v1alpha1.NoInterface), Message: "Node b has no interface.",
			}}
		})
		w.within(15*time.Second, "web", "False NoInterface, False NoInterface", func() string { return w.serviceSays("web") })
		w.says("203.0.113.17", ownedBy("b"))
		w.within(15*time.Second, "web", allWell, func() string { return w.serviceSays("web") })
		if got, want := w.events.of("web"), "Normal AddressAssigned, Warning NoCandidates, Warning NoInterface, Normal Announced"; got != want {
			w.Errorf("told %q, want %q", got, want)
		}
	})
}
