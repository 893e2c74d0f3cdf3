package service

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/record"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/internal/fakeapi"
)

const classOutside = "heraldlb.io/outside"

// outside is a provider that makes things outside the cluster: a name for each
// Service.
type outside struct {
	mu   sync.Mutex
	held map[string]bool
	// refuse and fail are what is said to those who ask for it or give it back.
	refuse *v1alpha1.Refusal
	fail   error
	// gaveBack is how often it was asked to give something back.
	gaveBack int
	// sawFinalizer are the Services that came with it to their first attempt.
	sawFinalizer []string
}

func (*outside) Outside() {}

func (*outside) Leaves(service *corev1.Service) bool { return service.Annotations["type"] == "others" }

func (*outside) GetLoadBalancerName(context.Context, string, *corev1.Service) string { return "" }

func (o *outside) GetLoadBalancer(_ context.Context, _ string, service *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return nil, o.held[service.Name], nil
}

func (o *outside) EnsureLoadBalancer(_ context.Context, _ string, service *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.refuse != nil {
		return nil, o.refuse
	}
	if servicehelper.HasLBFinalizer(service) && !o.held[service.Name] {
		o.sawFinalizer = append(o.sawFinalizer, service.Name)
	}
	o.held[service.Name] = true
	return &corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{{Hostname: service.Name + ".example.com"}}}, nil
}

func (*outside) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return nil
}

func (o *outside) EnsureLoadBalancerDeleted(_ context.Context, _ string, service *corev1.Service) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.gaveBack++
	if o.fail != nil {
		return o.fail
	}
	delete(o.held, service.Name)
	return nil
}

func (o *outside) set(change func(*outside)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	change(o)
}

func (o *outside) attempts() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.gaveBack
}

func (o *outside) has(name string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.held[name]
}

// scene is an API server with a controller of one provider.
type scene struct {
	*testing.T
	ctx      context.Context
	kube     kubernetes.Interface
	api      *fakeapi.Server
	provider *outside
	// byDefault is the class of Services that name none; stop ends the controller.
	byDefault  string
	controller *Controller
	stop       func()
}

func newScene(t *testing.T, byDefault string) *scene {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	s := &scene{T: t, ctx: ctx, api: fakeapi.New(t), provider: &outside{held: map[string]bool{}}, byDefault: byDefault}
	var err error
	if s.kube, err = kubernetes.NewForConfig(s.api.Config()); err != nil {
		t.Fatal(err)
	}
	s.start(false)
	t.Cleanup(func() { s.stop(); cancel() })
	return s
}

// start starts a controller.
func (s *scene) start(releasing bool) {
	factory := informers.NewSharedInformerFactory(s.kube, 0)
	s.controller = New(Options{
		Client: s.kube, Informers: factory, Recorder: record.NewFakeRecorder(1000), Workers: 2, Releasing: releasing,
		Classes: Classes{ByName: map[string]Class{classOutside: {Provider: s.provider}, "example.com/gone": {}}, Default: s.byDefault},
	})
	ctx, cancel := context.WithCancel(s.ctx)
	factory.Start(ctx.Done())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.controller.Run(ctx) }()
	s.stop = func() { cancel(); <-done; factory.Shutdown() }
}

func (s *scene) create(name string, edit func(*corev1.Service)) {
	s.Helper()
	class := classOutside
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: &class, Ports: []corev1.ServicePort{{Port: 80}}},
	}
	if edit != nil {
		edit(service)
	}
	if _, err := s.kube.CoreV1().Services("shop").Create(s.ctx, service, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) update(name string, edit func(*corev1.Service)) {
	s.Helper()
	s.until("the update", func() bool {
		service, err := s.kube.CoreV1().Services("shop").Get(s.ctx, name, metav1.GetOptions{})
		if err != nil {
			s.Fatal(err)
		}
		edit(service)
		_, err = s.kube.CoreV1().Services("shop").Update(s.ctx, service, metav1.UpdateOptions{})
		return err == nil
	})
}

// get returns the Service; nil is that it is gone.
func (s *scene) get(name string) *corev1.Service {
	service, err := s.kube.CoreV1().Services("shop").Get(s.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		s.Fatal(err)
	}
	return service
}

func (s *scene) delete(name string) {
	s.Helper()
	if err := s.kube.CoreV1().Services("shop").Delete(s.ctx, name, metav1.DeleteOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) until(what string, is func() bool) {
	s.Helper()
	for !is() {
		select {
		case <-s.ctx.Done():
			s.Fatalf("%s does not come", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (s *scene) reason(name string) string {
	service := s.get(name)
	if service == nil {
		return "gone"
	}
	condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	if condition == nil {
		return "none"
	}
	return condition.Reason
}

// The finalizer is there before anything is made, and the Service goes only
// when nothing is left.
func TestWhatIsOutsideGoesBeforeTheService(t *testing.T) {
	s := newScene(t, "")
	s.create("web", nil)
	s.until("the address", func() bool { return s.reason("web") == string(v1alpha1.AddressAssigned) })
	if service := s.get("web"); !servicehelper.HasLBFinalizer(service) || service.Status.LoadBalancer.Ingress[0].Hostname != "web.example.com" {
		t.Errorf("finalizers %v, status %v", service.Finalizers, service.Status.LoadBalancer)
	}
	s.provider.set(func(o *outside) {
		if len(o.sawFinalizer) > 0 {
			t.Errorf("%v came with the finalizer, as if there might be something", o.sawFinalizer)
		}
	})

	s.provider.set(func(o *outside) { o.fail = errors.New("AccessDenied") })
	s.delete("web")
	s.until("the failure", func() bool { return s.reason("web") == string(v1alpha1.SyncFailed) })
	if service := s.get("web"); len(service.Status.LoadBalancer.Ingress) > 0 {
		t.Errorf("what is being deleted shows %v", service.Status.LoadBalancer.Ingress)
	}
	s.provider.set(func(o *outside) { o.fail, o.gaveBack = api.NewRetryError("not yet", 20*time.Millisecond), 0 })
	s.until("the third attempt", func() bool {
		if s.get("web") == nil {
			t.Fatal("gone before what it has")
		}
		return s.provider.attempts() > 2
	})
	s.provider.set(func(o *outside) { o.fail = nil })
	s.until("the end", func() bool { return s.get("web") == nil })
	if s.provider.has("web") {
		t.Error("something is left")
	}
}

// A controller that removes Herald takes all that is Herald's off the Services,
// and nothing else.
func TestReleasing(t *testing.T) {
	s := newScene(t, classOutside)
	finalizer := []string{servicehelper.LoadBalancerCleanupFinalizer}
	s.create("web", func(service *corev1.Service) { service.Finalizers = []string{"example.com/keep"} })
	s.create("classless", func(service *corev1.Service) { service.Spec.LoadBalancerClass = nil })
	s.create("refused", func(service *corev1.Service) { service.Annotations = map[string]string{"refuse": ""} })
	for _, name := range []string{"web", "classless", "refused"} {
		s.until("the address of "+name, func() bool { return s.reason(name) == string(v1alpha1.AddressAssigned) })
	}
	s.stop()
	// It was Herald's, of a class whose provider is gone with all that it gave; it is being deleted.
	s.create("orphan", func(service *corev1.Service) {
		service.Spec.LoadBalancerClass = ptr.To("example.com/gone")
		service.Finalizers = finalizer
	})
	s.write("orphan", func(status *corev1.ServiceStatus) {
		status.Conditions = []metav1.Condition{{Type: v1alpha1.ServiceReady, Status: metav1.ConditionTrue, Reason: "AddressAssigned"}}
		status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.17"}}
	})
	s.delete("orphan")
	// These are others'.
	others := map[string]string{"foreign": "example.com/other", "unserved": classOutside}
	for name, class := range others {
		s.create(name, func(service *corev1.Service) {
			service.Spec.LoadBalancerClass, service.Finalizers = &class, finalizer
		})
		s.write(name, func(status *corev1.ServiceStatus) {
			status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.18"}}
		})
		others[name] = s.get(name).ResourceVersion
	}
	if left := s.unreleased(); len(left) != 4 {
		t.Errorf("left are %q, want four", left)
	}

	s.start(true)
	s.until("nothing left", func() bool { return len(s.unreleased()) == 0 })
	if service := s.get("web"); !slices.Equal(service.Finalizers, []string{"example.com/keep"}) || len(service.Status.LoadBalancer.Ingress) > 0 || len(service.Status.Conditions) > 0 {
		t.Errorf("what was released has finalizers %v and shows %v", service.Finalizers, service.Status)
	}
	for _, name := range []string{"web", "classless", "refused"} {
		if s.provider.has(name) {
			t.Errorf("%s: something is left outside", name)
		}
	}
	if s.get("orphan") != nil {
		t.Error("a Service that is being deleted is kept")
	}
	s.create("new", nil)
	s.update("web", func(service *corev1.Service) { service.Labels = map[string]string{"a": "b"} })
	time.Sleep(200 * time.Millisecond)
	if s.reason("new") != "none" || s.reason("web") != "none" || s.provider.has("new") {
		t.Error("a Service is served by a controller that is to release all")
	}
	for name, version := range others {
		if now := s.get(name).ResourceVersion; now != version {
			t.Errorf("%s was written", name)
		}
	}
}

// write lets the status of a Service be as others wrote it.
func (s *scene) write(name string, edit func(*corev1.ServiceStatus)) {
	s.Helper()
	service := s.get(name)
	edit(&service.Status)
	if _, err := s.kube.CoreV1().Services("shop").UpdateStatus(s.ctx, service, metav1.UpdateOptions{}); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) unreleased() []string {
	s.Helper()
	left, err := s.controller.Unreleased(s.ctx)
	if err != nil {
		s.Fatal(err)
	}
	return left
}

func TestAServiceOfAnotherTypeKeepsNothingOfOurs(t *testing.T) {
	s := newScene(t, "")
	s.create("web", nil)
	s.until("the address", func() bool { return s.reason("web") == string(v1alpha1.AddressAssigned) })
	s.update("web", func(service *corev1.Service) {
		service.Spec.Type, service.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil
	})
	s.until("the release", func() bool { return s.reason("web") == "none" && !servicehelper.HasLBFinalizer(s.get("web")) })
	if s.provider.has("web") {
		t.Error("something is left")
	}
}

// A refused Service has the finalizer and goes all the same.
func TestARefusedServiceCanBeDeleted(t *testing.T) {
	s := newScene(t, "")
	s.provider.set(func(o *outside) { o.refuse = v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "no") })
	s.create("web", nil)
	s.until("the refusal", func() bool { return s.reason("web") == string(v1alpha1.InvalidAnnotation) })
	s.delete("web")
	s.until("the end", func() bool { return s.get("web") == nil })
}

// Another controller beside us has Services without class, with the same
// finalizer: they are not ours to touch, whatever there is in their names.
func TestServicesOfOthersAreLeftAlone(t *testing.T) {
	for _, c := range []struct {
		name, byDefault string
		edit            func(*corev1.Service)
	}{
		{"no class and no default", "", func(service *corev1.Service) { service.Spec.LoadBalancerClass = nil }},
		{"left by the default provider", classOutside, func(service *corev1.Service) {
			service.Spec.LoadBalancerClass, service.Annotations = nil, map[string]string{"type": "others"}
		}},
		{"a foreign class", classOutside, func(service *corev1.Service) {
			class := "example.com/lb"
			service.Spec.LoadBalancerClass = &class
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newScene(t, c.byDefault)
			s.provider.set(func(o *outside) { o.held["theirs"] = true })
			s.create("theirs", func(service *corev1.Service) {
				c.edit(service)
				service.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
			})
			s.create("ours", nil)
			s.until("ours", func() bool { return s.reason("ours") == string(v1alpha1.AddressAssigned) })
			s.delete("theirs")
			s.create("later", nil)
			s.until("what came later", func() bool { return s.reason("later") == string(v1alpha1.AddressAssigned) })
			if service := s.get("theirs"); service == nil || !servicehelper.HasLBFinalizer(service) || s.reason("theirs") != "none" || !s.provider.has("theirs") {
				t.Errorf("touched: %v, held %t", service, s.provider.has("theirs"))
			}
			writes := s.api.Writes()
			if slices.ContainsFunc(writes, func(write string) bool { return write == "patch services/theirs/status" }) {
				t.Errorf("written: %q", writes)
			}
		})
	}
}
