package service

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// bout is a Service that Herald and others write, without an API server.
type bout struct {
	*testing.T
	contest contest
	service *corev1.Service
	now     time.Time
	// wants is what Herald writes.
	wants string
	// writes are Herald's, with the seconds at which they are made.
	writes []string
}

func newBout(t *testing.T) *bout {
	b := &bout{T: t, now: noon, service: &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "1"}}, wants: "10.0.0.1"}
	b.sync()
	b.writes = nil
	return b
}

func statusOf(address string) corev1.LoadBalancerStatus {
	if address == "" {
		return corev1.LoadBalancerStatus{}
	}
	return corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{IP: address}}}
}

// sync is what the controller does when the Service has changed, or it is time.
func (b *bout) sync() {
	b.contest.see(b.service, b.now)
	status := statusOf(b.wants)
	desired, _ := served(b.service, &status, b.contest.verdict(assigned, b.now), metav1.NewTime(b.now))
	b.contest.hold(b.service, desired, b.now)
	was, is := wordsOf(b.service), wordsOf(desired)
	if was.equal(&is) {
		b.contest.stays(b.service)
		return
	}
	b.contest.written(b.service, desired, b.now)
	b.service = desired
	b.writes = append(b.writes, fmt.Sprintf("%v %s %s", b.now.Sub(noon).Seconds(), join(&desired.Status.LoadBalancer), is.ready.reason))
}

// other is another writer.
func (b *bout) other(edit func(*corev1.Service)) {
	b.service = b.service.DeepCopy()
	edit(b.service)
	b.sync()
}

func (b *bout) shows(address string) {
	b.other(func(s *corev1.Service) { s.Status.LoadBalancer = statusOf(address) })
}

// run lets time pass; after each write of Herald's then is called.
func (b *bout) run(span time.Duration, then func()) {
	for end := b.now.Add(span); ; {
		if written := len(b.writes); true {
			then()
			if len(b.writes) > written {
				continue
			}
		}
		rest := b.contest.next(b.now)
		if rest <= 0 || b.now.Add(rest).After(end) {
			b.now = end
			return
		}
		b.now = b.now.Add(rest)
		b.sync()
	}
}

func (b *bout) want(writes ...string) {
	b.Helper()
	if !slices.Equal(b.writes, writes) {
		b.Errorf("writes\n  %s\nwant\n  %s", strings.Join(b.writes, "\n  "), strings.Join(writes, "\n  "))
	}
}

func (b *bout) insists(address string) func() {
	return func() {
		if join(&b.service.Status.LoadBalancer) != address {
			b.shows(address)
		}
	}
}

func calmly() {}

func TestContestWithOneWhoInsists(t *testing.T) {
	b := newBout(t)
	b.run(3*time.Minute, b.insists("192.0.2.1"))
	b.want("0 10.0.0.1 AddressAssigned", "0 192.0.2.1 StatusContested",
		"2 10.0.0.1 StatusContested", "6 10.0.0.1 StatusContested", "14 10.0.0.1 StatusContested", "30 10.0.0.1 StatusContested",
		"62 10.0.0.1 StatusContested", "126 10.0.0.1 StatusContested")
	b.writes = nil
	b.run(20*time.Minute, b.insists("192.0.2.1"))
	if n := len(b.writes); n < 9 || n > 11 {
		t.Errorf("%d writes in 20 min, want one each 2 min: %q", n, b.writes)
	}
	b.writes = nil
	b.run(5*time.Minute, calmly)
	if n := len(b.writes); n != 2 || !strings.HasSuffix(b.writes[1], " 10.0.0.1 AddressAssigned") {
		t.Errorf("after the end: %q", b.writes)
	}
}

func TestContestThatIsNone(t *testing.T) {
	for _, c := range []struct {
		name string
		then func(*bout)
		want []string
	}{
		{"once", func(b *bout) { b.shows("192.0.2.1"); b.run(time.Hour, calmly) }, []string{"0 10.0.0.1 AddressAssigned"}},
		{"once an hour", func(b *bout) {
			for range 3 {
				b.shows("192.0.2.1")
				b.run(time.Hour, calmly)
			}
		}, []string{"0 10.0.0.1 AddressAssigned", "3600 10.0.0.1 AddressAssigned", "7200 10.0.0.1 AddressAssigned"}},
		{"Herald wants something else", func(b *bout) {
			for i := range 3 {
				b.wants = fmt.Sprint("10.0.0.", i+2)
				b.sync()
			}
		}, []string{"0 10.0.0.2 AddressAssigned", "0 10.0.0.3 AddressAssigned", "0 10.0.0.4 AddressAssigned"}},
		{"another field", func(b *bout) {
			for i := range 3 {
				b.other(func(s *corev1.Service) {
					s.Status.Conditions = append(s.Status.Conditions, metav1.Condition{Type: fmt.Sprint("example.com/", i)})
				})
			}
		}, nil},
		{"another Service of its name", func(b *bout) {
			for i := range 3 {
				b.service = &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: types.UID(fmt.Sprint(i + 2))}}
				b.sync()
			}
		}, []string{"0 10.0.0.1 AddressAssigned", "0 10.0.0.1 AddressAssigned", "0 10.0.0.1 AddressAssigned"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBout(t)
			c.then(b)
			b.T = t
			b.want(c.want...)
			if b.contest.next(b.now) != 0 {
				t.Error("it is looked at again")
			}
		})
	}
}

// What Herald wants during a contest is written when it wants it.
func TestContestDoesNotHoldWhatIsNew(t *testing.T) {
	b := newBout(t)
	b.run(time.Minute, b.insists("192.0.2.1"))
	b.writes, b.wants = nil, "10.0.0.9"
	b.sync()
	b.want("60 10.0.0.9 StatusContested")
}

func TestContestAboutConditionsAndFinalizers(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Service){
		"conditions": func(s *corev1.Service) { s.Status.Conditions = nil },
		"one": func(s *corev1.Service) {
			meta.SetStatusCondition(&s.Status.Conditions, metav1.Condition{Type: v1alpha1.ServiceReady, Status: "False", Reason: "NotYours"})
		},
		"finalizers": func(s *corev1.Service) { s.Finalizers = nil },
		"all":        func(s *corev1.Service) { s.Finalizers, s.Status = nil, corev1.ServiceStatus{} },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBout(t)
			b.run(15*time.Second, func() {
				edited := b.service.DeepCopy()
				edit(edited)
				if was, is := wordsOf(b.service), wordsOf(edited); !was.equal(&is) {
					b.other(edit)
				}
			})
			if n := len(b.writes); n < 3 || n > 6 {
				t.Errorf("%d writes: %q", n, b.writes)
			}
			b.run(3*time.Minute, calmly)
			if last := b.writes[len(b.writes)-1]; !strings.HasSuffix(last, "10.0.0.1 AddressAssigned") || len(b.service.Finalizers) != 1 {
				t.Errorf("ends with %q, finalizers %v", last, b.service.Finalizers)
			}
		})
	}
}

// A controller that starts says on what the one before it said, until it is quiet.
func TestContestOutlivesTheController(t *testing.T) {
	b := newBout(t)
	b.run(20*time.Second, b.insists("192.0.2.1"))
	said := wordsOf(b.service).ready
	b.contest, b.writes = contest{}, nil
	b.run(20*time.Second, b.insists("192.0.2.1"))
	if len(b.writes) > 4 || wordsOf(b.service).ready != said {
		t.Errorf("writes %q, says %v, want %v", b.writes, wordsOf(b.service).ready, said)
	}
	b.contest, b.writes = contest{}, nil
	b.run(time.Minute, calmly)
	b.sync()
	b.run(time.Minute, calmly)
	if last := b.writes[len(b.writes)-1]; !strings.HasSuffix(last, "10.0.0.1 AddressAssigned") {
		t.Errorf("writes %q", b.writes)
	}
}

func TestRivals(t *testing.T) {
	entry := func(manager string, second int, fields string) metav1.ManagedFieldsEntry {
		at := metav1.NewTime(noon.Add(time.Duration(second) * time.Second))
		return metav1.ManagedFieldsEntry{Manager: manager, Time: &at, Subresource: "status", FieldsType: "FieldsV1", FieldsV1: metav1.NewFieldsV1(fields)}
	}
	const ingress, condition = `{"f:status":{"f:loadBalancer":{"f:ingress":{}}}}`, `{"f:status":{"f:conditions":{"k:{\"type\":\"heraldlb.io/Ready\"}":{"f:reason":{}}}}}`
	ours := entry(fieldManager, 1, condition)
	ready := wordsOf(&corev1.Service{Status: corev1.ServiceStatus{LoadBalancer: statusOf("10.0.0.1")}})
	elsewhere, denied := ready, ready
	elsewhere.status, denied.ready = statusOf("192.0.2.1"), said{reason: "NotYours"}
	for _, c := range []struct {
		name    string
		is      words
		entries []metav1.ManagedFieldsEntry
		want    string
	}{
		{"nobody", elsewhere, []metav1.ManagedFieldsEntry{ours}, ""},
		{"one", elsewhere, []metav1.ManagedFieldsEntry{ours, entry("k3s", 1, ingress)}, `"k3s"`},
		{"the last of two", elsewhere, []metav1.ManagedFieldsEntry{entry("ccm", 3, ingress), ours, entry("k3s", 2, ingress)}, `"ccm"`},
		{"who has something else", elsewhere, []metav1.ManagedFieldsEntry{ours, entry("k3s", 1, condition)}, ""},
		{"another Herald", elsewhere, []metav1.ManagedFieldsEntry{ours, entry(fieldManager, 1, ingress)}, `another "herald-controller-manager"`},
		{"a condition", denied, []metav1.ManagedFieldsEntry{ours, entry("k3s", 1, condition), entry("ccm", 2, ingress)}, `"k3s"`},
		{"what cannot be read", elsewhere, []metav1.ManagedFieldsEntry{entry("k3s", 1, `{"f:status":1}`), {Manager: "x"}}, ""},
		{"a long name", elsewhere, []metav1.ManagedFieldsEntry{entry(strings.Repeat("k", 500), 1, ingress)}, `"` + strings.Repeat("k", 77) + `…"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{ManagedFields: c.entries}}
			if got := rivalOf(service, &ready, &c.is); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

// With the controller: few writes while another one insists, and then all is as it was.
func TestControllerDoesNotFight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScene(t, "")
		s.create("web", nil)
		s.until("the address", func() bool { return s.reason("web") == string(v1alpha1.AddressAssigned) })
		before := len(s.api.Writes())
		stop, fighting := make(chan struct{}), sync.WaitGroup{}
		fighting.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
				service := s.get("web")
				if join(&service.Status.LoadBalancer) == "192.0.2.1" {
					continue
				}
				service.Status.LoadBalancer = statusOf("192.0.2.1")
				_, _ = s.kube.CoreV1().Services("shop").UpdateStatus(s.ctx, service, metav1.UpdateOptions{}) // may come too late
			}
		})
		time.Sleep(15 * time.Second)
		if s.reason("web") != string(v1alpha1.StatusContested) {
			t.Errorf("reason %s", s.reason("web"))
		}
		close(stop)
		fighting.Wait()
		if n := len(s.api.Writes()) - before; n > 12 {
			t.Errorf("%d writes, %q", n, s.api.Writes()[before:])
		}
		s.until("the end", func() bool { return s.reason("web") == string(v1alpha1.AddressAssigned) })
		if got := join(&s.get("web").Status.LoadBalancer); got != "web.example.com" {
			t.Errorf("shows %s", got)
		}
	})
}

// The cache is waited for, but not for a version that a restored etcd never has.
func TestBehind(t *testing.T) {
	key := types.NamespacedName{Namespace: "shop", Name: "web"}
	at := func(version string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", ResourceVersion: version}}
	}
	c := New(Options{Informers: informers.NewSharedInformerFactory(nil, 0)})
	defer c.queue.ShutDown()
	for _, step := range []struct {
		name    string
		version string
		after   time.Duration
		want    time.Duration
	}{
		{"older", "99", 0, behindMost},
		{"still", "99", 4 * time.Second, behindMost - 4*time.Second},
		{"for too long", "99", behindMost, 0},
		{"the same", "100", 0, 0},
		{"newer", "101", 0, 0},
	} {
		c.written[key] = write{"100", noon}
		if got := c.behind(key, at(step.version), noon.Add(step.after)); got != step.want {
			t.Errorf("%s: waits %v, want %v", step.name, got, step.want)
		}
	}
	c.written[key] = write{"100", noon}
	c.updated(at("90"), at("95"))
	if got := c.behind(key, at("95"), noon); got == 0 {
		t.Error("an update is taken for a restore")
	}
	c.updated(at("95"), at("50"))
	if got := c.behind(key, at("50"), noon); got != 0 {
		t.Errorf("after a restore: waits %v", got)
	}
}
