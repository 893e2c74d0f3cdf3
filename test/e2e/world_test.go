package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

// patience is how long a test waits for what takes milliseconds: the machine
// may be busy. How long it took is logged, not judged.
const patience = time.Minute

// world is what one test has to itself: a namespace and a range of addresses.
type world struct {
	testing.TB

	ctx       context.Context
	namespace string
	// v4 and v6 are ranges that no other test uses: 198.18.N.0/24 and
	// 2001:db8:18:N::/64.
	v4, v6 netip.Prefix
}

var worlds atomic.Int32

// newWorld makes the test's namespace; all of it goes when the test ends.
func newWorld(t testing.TB) *world {
	t.Helper()
	n := worlds.Add(1)
	w := &world{
		TB:        t,
		ctx:       t.Context(),
		namespace: fmt.Sprintf("test-%d", n),
		v4:        netip.MustParsePrefix(fmt.Sprintf("198.18.%d.0/24", n)),
		v6:        netip.MustParsePrefix(fmt.Sprintf("2001:db8:18:%x::/64", n)),
	}
	_, err := kube.CoreV1().Namespaces().Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.namespace}}, metav1.CreateOptions{})
	w.must(err)
	t.Cleanup(w.close)
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// close removes what the test made, and proves that its addresses come free.
func (w *world) close() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*patience) // there may be a thousand Services
	defer cancel()
	w.ctx = ctx
	pods, err := box.Pods()
	w.must(err)
	for _, pod := range pods {
		if pod.Namespace == w.namespace {
			w.must(box.DeletePod(ctx, pod.Namespace, pod.Name))
		}
	}
	w.must(w.deleteServices())
	w.eventually("no VirtualIP is left of the test", func() error {
		for _, vip := range w.virtualIPs() {
			if len(vip.Spec.Claims) > 0 {
				return fmt.Errorf("VirtualIP %s is claimed by %v", vip.Name, vip.Spec.Claims)
			}
			w.must(ignoreNotFound(herald.VirtualIPs.Delete(ctx, vip.Name, metav1.DeleteOptions{})))
		}
		return nil
	})
	w.must(kube.CoreV1().Namespaces().Delete(ctx, w.namespace, metav1.DeleteOptions{}))
}

// eventually waits until check returns nil, and logs how long that took.
func (w *world) eventually(what string, check func() error) {
	w.Helper()
	w.Logf("%s: after %v", what, w.quietly(what, check))
}

// quietly waits until check returns nil.
func (w *world) quietly(what string, check func() error) time.Duration {
	w.Helper()
	start := time.Now()
	var err error
	for time.Since(start) < patience {
		if err = check(); err == nil {
			return time.Since(start).Round(time.Millisecond)
		}
		time.Sleep(25 * time.Millisecond)
	}
	w.Fatalf("not within %v: %s: %v", patience, what, err)
	return 0
}

// always checks that something stays so for a while.
func (w *world) always(what string, span time.Duration, check func() error) {
	w.Helper()
	for start := time.Now(); time.Since(start) < span; time.Sleep(50 * time.Millisecond) {
		if err := check(); err != nil {
			w.Fatalf("no longer after %v: %s: %v", time.Since(start).Round(time.Millisecond), what, err)
		}
	}
}

// pool makes an AddressPool that serves this test's namespace alone.
func (w *world) pool(name string, edit func(*v1alpha1.AddressPoolSpec), addresses ...string) *v1alpha1.AddressPool {
	w.Helper()
	pool := &v1alpha1.AddressPool{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-" + name},
		Spec:       v1alpha1.AddressPoolSpec{Addresses: addresses, Namespaces: []string{w.namespace}},
	}
	if edit != nil {
		edit(&pool.Spec)
	}
	made, err := herald.AddressPools.Create(w.ctx, pool, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		err := herald.AddressPools.Delete(context.Background(), pool.Name, metav1.DeleteOptions{})
		if err := ignoreNotFound(err); err != nil {
			w.Error(err)
		}
	})
	return made
}

// editPool changes the pool, whoever else writes it.
func (w *world) editPool(name string, edit func(*v1alpha1.AddressPoolSpec)) {
	w.Helper()
	w.eventually("edit of pool "+name, func() error {
		pool, err := herald.AddressPools.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		edit(&pool.Spec)
		_, err = herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})
		return err
	})
}

// dualPool makes a pool of all of this test's addresses.
func (w *world) dualPool() *v1alpha1.AddressPool {
	w.Helper()
	return w.pool("dual", nil, w.v4.String(), w.v6.String())
}

// service makes a Service of type LoadBalancer for the pods app=name, on port
// 80, policy Cluster and IPv4 unless edit says otherwise.
func (w *world) service(name string, edit func(*corev1.Service)) *corev1.Service {
	w.Helper()
	service, err := kube.CoreV1().Services(w.namespace).Create(w.ctx, w.serviceObject(name, edit), metav1.CreateOptions{})
	w.must(err)
	return service
}

func (w *world) serviceObject(name string, edit func(*corev1.Service)) *corev1.Service {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: w.namespace},
		Spec: corev1.ServiceSpec{
			Type:     corev1.ServiceTypeLoadBalancer,
			Selector: map[string]string{"app": name},
			Ports: []corev1.ServicePort{{
				Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: podPort,
			}},
		},
	}
	if edit != nil {
		edit(service)
	}
	return service
}

func (w *world) get(name string) *corev1.Service {
	w.Helper()
	service, err := kube.CoreV1().Services(w.namespace).Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	return service
}

// edit changes a Service, whoever else writes it.
func (w *world) edit(name string, edit func(*corev1.Service)) {
	w.Helper()
	w.eventually("edit of Service "+name, func() error {
		service := w.get(name)
		edit(service)
		_, err := kube.CoreV1().Services(w.namespace).Update(w.ctx, service, metav1.UpdateOptions{})
		return err
	})
}

func (w *world) annotate(name, annotation, value string) {
	w.Helper()
	w.edit(name, func(s *corev1.Service) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		if value == "" {
			delete(s.Annotations, annotation)
			return
		}
		s.Annotations[annotation] = value
	})
}

// addresses waits until the Service has so many addresses, whether they are announced or not.
func (w *world) addresses(name string, count int) []netip.Addr {
	w.Helper()
	var addresses []netip.Addr
	w.eventually(fmt.Sprintf("Service %s has %d addresses", name, count), func() error {
		service := w.get(name)
		addresses = shown(service)
		if condition := ready(service); len(addresses) != count || !assigned(service) {
			return fmt.Errorf("has %v, condition %+v", addresses, condition)
		}
		return nil
	})
	return addresses
}

// assigned reports whether a Service has what it asks for: it is Ready, or lacks an announcement alone.
func assigned(service *corev1.Service) bool {
	condition, said := ready(service), announced(service)
	if condition == nil || condition.Status == metav1.ConditionTrue {
		return condition != nil
	}
	return said != nil && condition.Reason == said.Reason
}

func announced(service *corev1.Service) *metav1.Condition {
	return meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced)
}

// says waits until the Service's condition Ready is so, for the reason.
func (w *world) says(name string, status metav1.ConditionStatus, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("Service %s is Ready %s: %s", name, status, reason), func() error {
		condition := ready(w.get(name))
		if condition == nil || condition.Status != status || condition.Reason != string(reason) {
			return fmt.Errorf("condition %+v", condition)
		}
		return has(condition.Message, words...)
	})
}

func (w *world) address(name string) netip.Addr {
	w.Helper()
	return w.addresses(name, 1)[0]
}

// refused waits until the Service's condition says no for the reason, and that
// the message has all the words.
func (w *world) refused(name string, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("Service %s is refused: %s", name, reason), func() error {
		condition := ready(w.get(name))
		if condition == nil || condition.Status != metav1.ConditionFalse || condition.Reason != string(reason) {
			return fmt.Errorf("condition %+v", condition)
		}
		return has(condition.Message, words...)
	})
	w.told("Service", name, reason)
}

// told waits until there is exactly one event of that reason on the object,
// said once.
func (w *world) told(kind, name string, reason v1alpha1.Reason) {
	w.Helper()
	w.eventually(fmt.Sprintf("one event %s on %s %s", reason, kind, name), func() error {
		if events := w.events(kind, name, reason); len(events) != 1 || events[0].Count > 1 {
			return fmt.Errorf("events: %v", events)
		}
		return nil
	})
}

func (w *world) events(kind, name string, reason v1alpha1.Reason) []corev1.Event {
	w.Helper()
	namespace := w.namespace
	if kind != "Service" {
		namespace = "default" // events of objects without a namespace
	}
	list, err := kube.CoreV1().Events(namespace).List(w.ctx, metav1.ListOptions{
		FieldSelector: "involvedObject.kind=" + kind + ",involvedObject.name=" + name,
	})
	w.must(err)
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return reason != "" && e.Reason != string(reason) })
}

// virtualIPs are those of this test.
func (w *world) virtualIPs() []v1alpha1.VirtualIP {
	w.Helper()
	list, err := herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
	w.must(err)
	return slices.DeleteFunc(list.Items, func(vip v1alpha1.VirtualIP) bool {
		addr := netip.MustParseAddr(vip.Spec.Address)
		ours := slices.ContainsFunc(vip.Spec.Claims, func(c v1alpha1.Claim) bool { return c.Namespace == w.namespace })
		return !ours && !w.v4.Contains(addr) && !w.v6.Contains(addr)
	})
}

func (w *world) virtualIP(addr netip.Addr) *v1alpha1.VirtualIP {
	w.Helper()
	vip, err := herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(addr), metav1.GetOptions{})
	w.must(err)
	return vip
}

// owner waits until a node announces the address, and returns it.
func (w *world) owner(addr netip.Addr) string {
	w.Helper()
	return w.ownerOtherThan(addr, "")
}

func (w *world) ownerOtherThan(addr netip.Addr, other string) string {
	w.Helper()
	owner := ""
	w.eventually(fmt.Sprintf("%s has an owner other than %q", addr, other), func() error {
		vip := w.virtualIP(addr)
		if vip.Status.Owner == "" || vip.Status.Owner == other || !meta.IsStatusConditionTrue(vip.Status.Conditions, v1alpha1.ConditionAnnounced) {
			return fmt.Errorf("spec %+v, status %+v", vip.Spec, vip.Status)
		}
		owner = vip.Status.Owner
		return nil
	})
	return owner
}

// pods makes a pod app=app on each of the nodes.
func (w *world) pods(app string, nodes ...string) {
	w.Helper()
	for _, node := range nodes {
		w.pod(app, node)
	}
}

func (w *world) pod(app, node string) {
	w.Helper()
	_, err := box.AddPod(w.ctx, sandbox.Pod{
		Namespace: w.namespace, Name: app + "-" + node, Node: node, Labels: map[string]string{"app": app},
	})
	w.must(err)
}

// reachable waits until the address answers an HTTP request from the client,
// and returns the answer.
func (w *world) reachable(addr netip.Addr) string {
	w.Helper()
	return w.reachableFrom("client", addr)
}

func (w *world) reachableFrom(host string, addr netip.Addr) string {
	w.Helper()
	answer := ""
	w.eventually(fmt.Sprintf("%s answers %s", addr, host), func() error {
		var err error
		answer, err = request(w.ctx, host, addr, 80)
		return err
	})
	return answer
}

// request makes one HTTP request from a host, on a connection of its own. It is made to be made again: it does not wait long.
func request(ctx context.Context, host string, addr netip.Addr, port uint16) (string, error) {
	return requestWithin(ctx, time.Second, host, addr, port)
}

// requestWithin makes one HTTP request that is waited for so long.
func requestWithin(ctx context.Context, span time.Duration, host string, addr netip.Addr, port uint16) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, span)
	defer cancel()
	return box.Get(ctx, host, "http://"+netip.AddrPortFrom(addr, port).String()+"/")
}

// requestUDP sends one datagram from a host and returns the answer.
func requestUDP(ctx context.Context, host string, addr netip.Addr, port uint16) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := box.Dialer(host)(ctx, "udp", netip.AddrPortFrom(addr, port).String())
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("hello")); err != nil {
		return "", err
	}
	answer := make([]byte, 1500)
	n, err := conn.Read(answer)
	return string(answer[:n]), err
}

// resume starts the controller again, which was stopped or killed.
func (w *world) resume() {
	w.Helper()
	w.vacate()
	w.must(box.StartAgain("controller"))
}

// vacate takes the Lease from a controller that has ended, so that the next one need not wait until it runs out. It is
// of the length that ships: with a short one a busy machine is enough for a controller to lose it and end.
func (w *world) vacate() {
	w.Helper()
	leases := kube.CoordinationV1().Leases("herald-system")
	w.must(ignoreNotFound(leases.Delete(w.ctx, "herald-controller-manager", metav1.DeleteOptions{})))
}

// answered is the hardware address that answers for an address when the client
// asks now, nil when nobody does.
func (w *world) answered(addr netip.Addr) net.HardwareAddr {
	w.Helper()
	_, err := box.Exec(w.ctx, "client", "ip", "neigh", "flush", "to", addr.String())
	w.must(err)
	_, _ = request(w.ctx, "client", addr, 80) // have the kernel ask
	mac, err := box.Neighbour(w.ctx, "client", addr)
	w.must(err)
	return mac
}

// silent waits until nobody answers ARP or NDP for the address, and checks
// that it stays so.
func (w *world) silent(addr netip.Addr) {
	w.Helper()
	probe := []string{"arping", "-c", "1", "-w", "1", "-I", "eth0", addr.String()}
	if addr.Is6() {
		probe = []string{"ndisc6", "-1", "-r", "1", "-w", "500", addr.String(), "eth0"}
	}
	w.eventually(fmt.Sprintf("nobody answers for %s", addr), func() error {
		if out, err := box.Exec(w.ctx, "client", probe...); err == nil {
			return fmt.Errorf("answered: %s", out)
		}
		return nil
	})
}

// shown are the addresses in the status of a Service.
func shown(service *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, ingress := range service.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(ingress.IP); err == nil {
			addresses = append(addresses, addr)
		}
	}
	return addresses
}

func ready(service *corev1.Service) *metav1.Condition {
	return meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
}

func has(text string, words ...string) error {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return fmt.Errorf("%q is not in %q", word, text)
		}
	}
	return nil
}

func families(policy corev1.IPFamilyPolicy, families ...corev1.IPFamily) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.IPFamilyPolicy = ptr.To(policy)
		s.Spec.IPFamilies = families
	}
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func annotated(pairs ...string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		if s.Annotations == nil {
			s.Annotations = map[string]string{}
		}
		for i := 0; i < len(pairs); i += 2 {
			s.Annotations[pairs[i]] = pairs[i+1]
		}
	}
}

// all edits by each in turn.
func all(edits ...func(*corev1.Service)) func(*corev1.Service) {
	return func(s *corev1.Service) {
		for _, edit := range edits {
			edit(s)
		}
	}
}
