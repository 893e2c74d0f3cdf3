package baremetal

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

func ofClass(class string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeLoadBalancer, &class
	}
}

func guarded(s *corev1.Service) {
	s.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
}

// others are the Services of another provider, each with the version that
// this provider, and nobody else, wrote last.
type others struct {
	*world
	random    *rand.Rand
	versions  map[string]string
	stop      func()
	byDefault string
}

// anyOf picks one of the values.
func anyOf[T any](random *rand.Rand, values ...T) T { return values[random.IntN(len(values))] }

// theirs writes the status, and all else, as the other provider does.
func (o *others) theirs(name string, edits ...func(*corev1.Service)) {
	o.Helper()
	o.edit(name, edits...)
	s := o.get(name)
	for _, edit := range edits {
		edit(s)
	}
	must(o.world, first(o.kube.CoreV1().Services("shop").UpdateStatus(o.ctx, s, metav1.UpdateOptions{})))
	o.versions[name] = o.get(name).ResourceVersion
}

// shape gives a Service what one of another provider may have.
func (o *others) shape(s *corev1.Service) {
	ip := fmt.Sprintf("203.0.113.%d", o.random.IntN(64))
	s.Status.LoadBalancer.Ingress = anyOf(o.random,
		nil, []corev1.LoadBalancerIngress{{IP: ip}}, []corev1.LoadBalancerIngress{{IP: "192.0.2.9"}, {IP: ip}}, []corev1.LoadBalancerIngress{{Hostname: "lb.example.com"}})
	if finalizers := anyOf(o.random, nil, []string{servicehelper.LoadBalancerCleanupFinalizer}, []string{"example.com/guard"}); s.DeletionTimestamp == nil {
		s.Finalizers = finalizers // one that is being deleted is not gone before its provider has done its work
	}
	s.Status.Conditions = anyOf(o.random, nil, []metav1.Condition{{Type: "example.com/Ready", Status: metav1.ConditionTrue, Reason: "Ok"}})
	metav1.SetMetaDataAnnotation(&s.ObjectMeta, annotations.Addresses, anyOf(o.random, "", "203.0.113.5", "nonsense"))
	s.Spec.ExternalTrafficPolicy = anyOf(o.random, corev1.ServiceExternalTrafficPolicyCluster, corev1.ServiceExternalTrafficPolicyLocal)
}

// class names the other provider, or nobody if that leaves a Service to it.
func (o *others) class(s *corev1.Service) {
	class := "example.com/lb"
	s.Spec.LoadBalancerClass = &class
	if o.byDefault == "" && o.random.IntN(3) > 0 {
		s.Spec.LoadBalancerClass = nil
	}
}

func (o *others) restart() {
	if o.stop != nil {
		o.stop()
	}
	_, o.stop = o.controllerWith(o.byDefault)
	// One that is stopped while it starts waits in client-go's handler of errors,
	// which compares the time in here with that outside.
	time.Sleep(time.Second)
}

// step does one thing that may happen in a cluster of two providers.
func (o *others) step(n int) {
	name := anyOf(o.random, slices.Sorted(maps.Keys(o.versions))...)
	switch o.random.IntN(8) {
	case 0:
		o.restart()
	case 1, 2:
		o.theirs(name, o.shape)
	case 3:
		if o.get(name).DeletionTimestamp == nil && len(o.get(name).Finalizers) > 0 {
			o.delete(name) // its provider takes its time
			o.versions[name] = o.get(name).ResourceVersion
		}
	case 4:
		o.create(lb(fmt.Sprintf("ours-%d", n), ofClass(bareMetal)))
	case 5: // a Service of ours goes and another provider's gets its name, while we are away
		name = fmt.Sprintf("was-ours-%d", n)
		o.create(lb(name, ofClass(bareMetal)))
		o.until(name, "true", func() string { return fmt.Sprint(len(shownBy(o.get(name))) == 1) })
		o.stop()
		o.remove(name)
		o.create(lb(name, o.class, o.shape))
		o.versions[name] = o.get(name).ResourceVersion
		o.events.forget(name)
		o.restart()
	case 6:
		o.theirs(name, func(s *corev1.Service) { s.Spec.Ports[0].Port = int32(1 + o.random.IntN(1000)) })
	case 7:
		o.stop()
		o.theirs(name, o.shape)
		o.restart()
	}
}

// Whatever Herald did not give or take over, it never writes to.
func TestWhatIsAnothersIsNeverWritten(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			inWorld(t, func(w *world) {
				random := rand.New(rand.NewPCG(seed, 12))
				o := &others{world: w, random: random, versions: map[string]string{}, byDefault: anyOf(random, "", bareMetal)}
				w.pool("public", nil, "203.0.113.0/26")
				for i := range 6 {
					name := fmt.Sprintf("theirs-%d", i)
					w.create(lb(name, o.class, o.shape))
					o.versions[name] = w.get(name).ResourceVersion
				}
				o.restart()
				for n := range 25 {
					o.step(n)
				}
				w.rest()
				for name, version := range o.versions {
					if s := w.get(name); s.ResourceVersion != version {
						w.Errorf("%s was written: %v %+v", name, s.Finalizers, s.Status)
					}
					if got := w.events.of(name); got != "" {
						w.Errorf("%s was told %s", name, got)
					}
				}
				for _, line := range w.vips() {
					if strings.Contains(line, "theirs") || strings.Contains(line, "was-ours") {
						w.Errorf("VirtualIP %s", line)
					}
				}
			})
		})
	}
}

// A Service that Herald served is released, whoever has it then: what Herald
// gave goes, what the other one gave stays.
func TestWhoLeavesHeraldKeepsWhatAnotherGave(t *testing.T) {
	const foreign = "example.com/lb"
	for _, c := range []struct {
		name      string
		byDefault string // of the controller that comes back
		was       []func(*corev1.Service)
		leave     []func(*corev1.Service)
		want      string // what the status shows in the end
	}{
		{name: "to a foreign class", byDefault: bareMetal, leave: []func(*corev1.Service){ofClass(foreign)}},
		{
			name: "to a foreign class that gave an address", byDefault: bareMetal,
			leave: []func(*corev1.Service){ofClass(foreign), showing("203.0.113.17", "192.0.2.9")}, want: "192.0.2.9",
		},
		{name: "the default switched off", byDefault: ""},
		{
			name: "the default switched off, another gave an address", byDefault: "",
			leave: []func(*corev1.Service){showing("203.0.113.40")}, want: "203.0.113.40",
		},
		{
			name: "refused and never served", byDefault: "",
			was: []func(*corev1.Service){annotated(annotations.Pool, "none"), showing("203.0.113.40")}, want: "203.0.113.40",
		},
		{name: "to another type", byDefault: bareMetal, leave: []func(*corev1.Service){toClusterIP}},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.pool("public", nil, "203.0.113.17/32")
				_, stop := w.controller()
				w.create(lb("web", c.was...))
				w.until("the condition", "true", func() string { return fmt.Sprint(hasVerdict(w.get("web"))) })
				stop()
				o := &others{world: w, versions: map[string]string{}}
				if len(c.leave) > 0 {
					o.theirs("web", c.leave...)
				}
				w.controllerWith(c.byDefault)
				w.untilService("web", c.want)
				w.untilVIPs()
				w.rest()
				s := w.get("web")
				if len(s.Finalizers) > 0 || len(s.Status.Conditions) > 0 {
					w.Errorf("left on it: %v %v", s.Finalizers, s.Status.Conditions)
				}
				if !strings.Contains(w.events.of("web"), string(v1alpha1.AddressReleased)) {
					w.Errorf("events %s", w.events.of("web"))
				}
			})
		})
	}
}

// The finalizer comes with the first address, in the same write, and a Service
// that is deleted is freed of it, whoever put it there.
func TestFinalizerComesWithTheFirstAddress(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		_, stop := w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		if s := w.get("web"); !servicehelper.HasLBFinalizer(s) {
			w.Errorf("finalizers %v", s.Finalizers)
		}
		if got := w.since(0); len(got) == 0 || countOf(got, "patch services/shop/web/status") != 1 {
			w.Errorf("writes %q: want one of the Service", got)
		}
		w.create(lb("refused"))
		w.untilService("refused", "PoolExhausted")
		if s := w.get("refused"); len(s.Finalizers) > 0 {
			w.Errorf("a Service that has nothing has %v", s.Finalizers)
		}
		w.create(lb("guarded", guarded))
		w.untilService("guarded", "PoolExhausted")
		stop()
		w.create(lb("leaving", guarded, showing("192.0.2.9")))
		for _, name := range []string{"web", "refused", "guarded", "leaving"} {
			w.delete(name)
		}
		w.controller()
		w.until("Services", "0", func() string {
			list, err := w.kube.CoreV1().Services("shop").List(w.ctx, metav1.ListOptions{})
			must(w, err)
			return fmt.Sprint(len(list.Items))
		})
		w.untilVIPs()
	})
}

func countOf(lines []string, line string) (n int) {
	for _, l := range lines {
		if l == line {
			n++
		}
	}
	return n
}

// forget drops what was told on an object so far.
func (e *events) forget(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = slices.DeleteFunc(e.lines, func(line string) bool { return strings.HasPrefix(line, name+" ") })
}
