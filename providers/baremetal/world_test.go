package baremetal

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/controller/service"
	"github.com/heraldlb/herald/internal/fakeapi"
)

// world is a cluster with three nodes a, b and c, the namespace shop, and no
// pool: an API server in memory, and as many controllers as are started.
type world struct {
	*testing.T
	ctx    context.Context
	api    *fakeapi.Server
	kube   kubernetes.Interface
	herald *client.Clients
	events events
}

// inWorld runs a test in a bubble of synctest with a world in it. Time passes
// there when all wait for it: a busy machine is not seen, and to wait costs nothing.
func inWorld(t *testing.T, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(newWorld(t)) })
}

func newWorld(t *testing.T) *world {
	ctx, cancel := context.WithTimeout(klog.NewContext(t.Context(), klog.TODO()), time.Hour)
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, api: fakeapi.New(t)}
	config := w.api.Config()
	client.SurviveRestores(config)
	var err error
	if w.kube, err = kubernetes.NewForConfig(config); err != nil {
		t.Fatal(err)
	}
	if w.herald, err = client.New(config); err != nil {
		t.Fatal(err)
	}
	must(w, first(w.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}, metav1.CreateOptions{})))
	for _, name := range []string{"a", "b", "c"} {
		must(w, first(w.kube.CoreV1().Nodes().Create(ctx, node(name), metav1.CreateOptions{})))
		lease := heldLease(name, time.Now())
		lease.Labels = set{v1alpha1.SpeakerLabel: ""}
		hour := int32(3600)
		lease.Spec.LeaseDurationSeconds = &hour
		must(w, first[*coordinationv1.Lease](w.kube.CoordinationV1().Leases("herald-system").Create(ctx, lease, metav1.CreateOptions{})))
	}
	return w
}

func first[T any](_ T, err error) error { return err }

func must(w *world, err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// pool makes an AddressPool.
func (w *world) pool(name string, edit func(*v1alpha1.AddressPoolSpec), addresses ...string) {
	w.Helper()
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AddressPoolSpec{Addresses: addresses}}
	if edit != nil {
		edit(&pool.Spec)
	}
	must(w, first(w.herald.AddressPools.Create(w.ctx, pool, metav1.CreateOptions{})))
}

// bareMetal is the class that the controllers of a world serve.
const bareMetal = "heraldlb.io/bare-metal"

// controller starts a controller with a provider; stop ends it.
func (w *world) controller() (p *Provider, stop func()) {
	w.Helper()
	return w.controllerWith(bareMetal)
}

// controllerWith starts a controller with a class for Services that name none.
func (w *world) controllerWith(byDefault string) (p *Provider, stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	factory := informers.NewSharedInformerFactory(w.kube, 0)
	p, err := New(Options{Client: w.kube, Herald: w.herald, Informers: factory, Recorder: &w.events, Namespace: "herald-system"})
	must(w, err)
	controller := service.New(service.Options{
		Client: w.kube, Informers: factory, Recorder: &w.events, Workers: 4,
		Classes: service.Classes{ByName: map[string]service.Class{bareMetal: {Provider: p}}, Default: byDefault},
	})
	factory.Start(ctx.Done())
	done := make(chan error, 1)
	go func() { done <- controller.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		factory.Shutdown()
	})
	w.Cleanup(stop)
	return p, stop
}

// lb is a Service of type LoadBalancer in the namespace shop.
func lb(name string, edits ...func(*corev1.Service)) *corev1.Service {
	single := corev1.IPFamilyPolicySingleStack
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: set{}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilyPolicy: &single, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Selector: set{"app": name}, Ports: []corev1.ServicePort{{Protocol: "TCP", Port: 80}},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
		},
	}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

func annotated(key, value string) func(*corev1.Service) {
	return func(s *corev1.Service) { metav1.SetMetaDataAnnotation(&s.ObjectMeta, key, value) }
}

func onPort(port int32) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Ports[0].Port = port }
}

func showing(addresses ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = nil
		for _, address := range addresses {
			s.Status.LoadBalancer.Ingress = append(s.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: address})
		}
	}
}

func toClusterIP(s *corev1.Service) {
	s.Spec.Type, s.Spec.LoadBalancerClass = corev1.ServiceTypeClusterIP, nil
}

// create makes a Service, with the status that it shows.
func (w *world) create(s *corev1.Service) {
	w.Helper()
	made, err := w.kube.CoreV1().Services("shop").Create(w.ctx, s, metav1.CreateOptions{})
	must(w, err)
	if len(s.Status.LoadBalancer.Ingress) > 0 {
		made.Status = s.Status
		must(w, first(w.kube.CoreV1().Services("shop").UpdateStatus(w.ctx, made, metav1.UpdateOptions{})))
	}
}

func (w *world) edit(name string, edits ...func(*corev1.Service)) {
	w.Helper()
	for range 100 {
		s := w.get(name)
		for _, edit := range edits {
			edit(s)
		}
		if _, err := w.kube.CoreV1().Services("shop").Update(w.ctx, s, metav1.UpdateOptions{}); err == nil {
			return
		}
	}
	w.Fatalf("Service %s could not be edited", name)
}

func (w *world) delete(name string) {
	w.Helper()
	must(w, w.kube.CoreV1().Services("shop").Delete(w.ctx, name, metav1.DeleteOptions{}))
}

// remove deletes a Service at once, whatever finalizer it has.
func (w *world) remove(name string) {
	w.Helper()
	if len(w.get(name).Finalizers) > 0 {
		w.edit(name, func(s *corev1.Service) { s.Finalizers = nil })
	}
	w.delete(name)
}

func (w *world) get(name string) *corev1.Service {
	w.Helper()
	s, err := w.kube.CoreV1().Services("shop").Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	return s
}

// endpoints gives the Service a ready endpoint on each of the nodes.
func (w *world) endpoints(service string, nodes ...string) {
	w.Helper()
	port := int32(8080)
	for name, family := range slicesOf(service) {
		slice := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: set{discoveryv1.LabelServiceName: service}},
			AddressType: family, Ports: []discoveryv1.EndpointPort{{Port: &port}},
		}
		for _, node := range nodes {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{NodeName: &node})
		}
		must(w, first(w.kube.DiscoveryV1().EndpointSlices("shop").Create(w.ctx, slice, metav1.CreateOptions{})))
	}
}

// move gives the Service other endpoints than it has.
func (w *world) move(service string, endpoints ...discoveryv1.Endpoint) {
	w.Helper()
	for name := range slicesOf(service) {
		slice, err := w.kube.DiscoveryV1().EndpointSlices("shop").Get(w.ctx, name, metav1.GetOptions{})
		must(w, err)
		slice.Endpoints = endpoints
		must(w, first(w.kube.DiscoveryV1().EndpointSlices("shop").Update(w.ctx, slice, metav1.UpdateOptions{})))
	}
}

// slicesOf are the EndpointSlices of a Service: one for each family.
func slicesOf(service string) map[string]discoveryv1.AddressType {
	return map[string]discoveryv1.AddressType{service + "-4": discoveryv1.AddressTypeIPv4, service + "-6": discoveryv1.AddressTypeIPv6}
}

// ready is an endpoint on the node that is ready, leaving one that terminates
// and still serves.
func ready(node string) discoveryv1.Endpoint { return discoveryv1.Endpoint{NodeName: &node} }

func leaving(node string) discoveryv1.Endpoint {
	yes, no := true, false
	return discoveryv1.Endpoint{NodeName: &node, Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &yes, Terminating: &yes}}
}

func (w *world) editNode(name string, edit func(*corev1.Node)) {
	w.Helper()
	n, err := w.kube.CoreV1().Nodes().Get(w.ctx, name, metav1.GetOptions{})
	must(w, err)
	edit(n)
	written, err := w.kube.CoreV1().Nodes().Update(w.ctx, n, metav1.UpdateOptions{})
	must(w, err)
	written.Status = n.Status
	must(w, first(w.kube.CoreV1().Nodes().UpdateStatus(w.ctx, written, metav1.UpdateOptions{})))
}

// says writes what a speaker says of an address into its status.
func (w *world) says(address string, edit func(*v1alpha1.VirtualIPStatus)) {
	w.Helper()
	for range 100 {
		v := w.vip(address)
		edit(&v.Status)
		if _, err := w.herald.VirtualIPs.UpdateStatus(w.ctx, v, metav1.UpdateOptions{}); err == nil {
			return
		}
	}
	w.Fatalf("the status of %s could not be written", address)
}

// ownedBy says that the node answers for the address.
func ownedBy(node string) func(*v1alpha1.VirtualIPStatus) {
	return func(s *v1alpha1.VirtualIPStatus) {
		now := metav1.Now()
		s.Owner, s.OwnerSince = node, &now
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Announced), Message: "Node " + node + " answers on eth0.",
		})
	}
}

// speaker makes the Speaker of a node, or edits it.
func (w *world) speaker(node string, edit func(*v1alpha1.SpeakerStatus)) {
	w.Helper()
	speaker, err := w.herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
	if err != nil {
		speaker, err = w.herald.Speakers.Create(w.ctx, &v1alpha1.Speaker{ObjectMeta: metav1.ObjectMeta{Name: node}}, metav1.CreateOptions{})
		must(w, err)
	}
	edit(&speaker.Status)
	must(w, first(w.herald.Speakers.UpdateStatus(w.ctx, speaker, metav1.UpdateOptions{})))
}

// on is a Speaker with one interface, its MAC address ending in mac.
func on(name, mac string, prefixes ...string) func(*v1alpha1.SpeakerStatus) {
	return func(s *v1alpha1.SpeakerStatus) {
		s.Interfaces = []v1alpha1.SpeakerInterface{{Name: name, MAC: "02:00:00:00:00:" + mac, Up: true, Prefixes: prefixes}}
	}
}

// peers are the candidates with how they are reached: "a=203.0.113.2@02:…:0a".
func (w *world) peers(address string) string {
	w.Helper()
	var words []string
	if l2 := w.vip(address).Spec.L2; l2 != nil {
		for _, peer := range l2.Peers {
			words = append(words, peer.Node+"="+peer.Address+"@"+peer.MAC)
		}
	}
	return strings.Join(words, " ")
}

// candidates are the nodes that may own the address, in order.
func (w *world) candidates(address string) string {
	w.Helper()
	v := w.vip(address)
	if v.Spec.L2 == nil {
		return "no L2"
	}
	return strings.Join(v.Spec.L2.Candidates, " ")
}

func (w *world) untilCandidates(address, want string) {
	w.Helper()
	w.until("candidates of "+address, want, func() string { return w.candidates(address) })
}

// since are the writes after the first n of them of VirtualIPs and of the
// status of Services.
func (w *world) since(n int) []string {
	w.Helper()
	return slices.DeleteFunc(w.rest()[n:], func(write string) bool {
		return !strings.Contains(write, " virtualips/") && !strings.HasPrefix(write, "patch services/")
	})
}

// tell is a Service in a line: its addresses, and the reason of its condition.
// Of a Service that has all but endpoints and an announcement, it is
// AddressAssigned: here are no speakers.
func tell(s *corev1.Service) string {
	var words []string
	for _, addr := range shownBy(s) {
		words = append(words, addr.String())
	}
	if condition := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceReady); condition != nil {
		if condition.Reason == string(v1alpha1.Announcing) || condition.Reason == string(v1alpha1.NoReadyEndpoints) {
			condition.Reason = string(v1alpha1.AddressAssigned)
		}
		words = append(words, condition.Reason)
	}
	return strings.Join(words, " ")
}

// vips are the VirtualIPs, a line each: address, Services, hold.
func (w *world) vips() []string {
	w.Helper()
	list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	must(w, err)
	var lines []string
	for i := range list.Items {
		v := &list.Items[i]
		words := []string{v.Spec.Address}
		for _, claim := range v.Spec.Claims {
			words = append(words, claim.Name)
		}
		if v.Spec.Hold != "" {
			words = append(words, "("+string(v.Spec.Hold)+")")
		}
		if v.Spec.ReservedFor != nil {
			words = append(words, "for "+v.Spec.ReservedFor.Name)
		}
		lines = append(lines, strings.Join(words, " "))
	}
	slices.Sort(lines)
	return lines
}

func (w *world) vip(address string) *v1alpha1.VirtualIP {
	w.Helper()
	v, err := w.herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(netip.MustParseAddr(address)), metav1.GetOptions{})
	must(w, err)
	return v
}

// until waits for what is to become so.
func (w *world) until(what, want string, got func() string) {
	w.Helper()
	last := ""
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if last = got(); last == want {
			return
		}
	}
	w.Fatalf("%s: %q, want %q\n%s", what, last, want, strings.Join(w.events.all(), "\n"))
}

func (w *world) untilService(name, want string) {
	w.Helper()
	w.until(name, want, func() string { return tell(w.get(name)) })
}

func (w *world) untilVIPs(want ...string) {
	w.Helper()
	w.until("VirtualIPs", strings.Join(want, ", "), func() string { return strings.Join(w.vips(), ", ") })
}

// rest waits until nothing has been written for a while.
func (w *world) rest() (writes []string) {
	w.Helper()
	for range 50 {
		before := len(w.api.Writes())
		time.Sleep(countersDelay + statusDelay + 200*time.Millisecond) // what is written seldom, too
		if writes = w.api.Writes(); len(writes) == before {
			return writes
		}
	}
	w.Fatalf("it does not come to rest; the last writes are\n%s", strings.Join(writes[max(0, len(writes)-20):], "\n"))
	return nil
}

// events records events, a line each: "Service web Normal AddressAssigned: Assigned …".
type events struct {
	mu    sync.Mutex
	lines []string
	// spaces are the namespaces of the objects, line by line.
	spaces []string
}

func (e *events) Event(object runtime.Object, kind, reason, message string) {
	name, namespace := "?", ""
	if accessor, err := meta.Accessor(object); err == nil {
		name, namespace = accessor.GetName(), accessor.GetNamespace()
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, fmt.Sprintf("%s %s %s: %s", name, kind, reason, message))
	e.spaces = append(e.spaces, namespace)
}

func (e *events) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	e.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

func (e *events) AnnotatedEventf(object runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	e.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.lines)
}

// of are the events of one object, without their messages.
func (e *events) of(name string) string {
	var reasons []string
	for _, line := range e.all() {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			reason, _, _ := strings.Cut(rest, ":")
			reasons = append(reasons, reason)
		}
	}
	return strings.Join(reasons, ", ")
}
