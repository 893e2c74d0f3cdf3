package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// withPorts gives a Service these TCP ports.
func withPorts(ports ...int32) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Spec.Ports = nil
		for _, port := range ports {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", port), Port: port, TargetPort: podPort})
		}
	}
}

// hears is all that the author of a Service can read of it: conditions and events.
func (w *world) hears(name string) string {
	w.Helper()
	var all []string
	for _, condition := range w.get(name).Status.Conditions {
		all = append(all, condition.Message)
	}
	for _, event := range w.events("Service", name, "") {
		all = append(all, event.Message)
	}
	return strings.Join(all, "\n")
}

// Who may edit Services in one namespace and no other takes nobody's address,
// whatever he guesses, moves nobody, and learns nothing.
func TestATenantTakesNobodysAddress(t *testing.T) {
	t.Parallel()
	alice, bob := newWorld(t), newWorld(t)
	alice.pool("both", func(s *v1alpha1.AddressPoolSpec) { s.Namespaces = []string{alice.namespace, bob.namespace} }, alice.v4.String())
	alice.pods("shop", "node1")
	const key, port = "alices-secret-key", 8443
	alice.service("shop", all(annotated("heraldlb.io/share", key, "heraldlb.io/share-namespaces", "alices-friend"), withPorts(80, port)))
	addr := alice.address("shop")
	alice.reachable(addr)

	attempts := map[string]func(*corev1.Service){
		"any-key":     annotated("heraldlb.io/addresses", addr.String(), "heraldlb.io/share", "guess"),
		"her-key":     annotated("heraldlb.io/addresses", addr.String(), "heraldlb.io/share", key),
		"consent":     annotated("heraldlb.io/addresses", addr.String(), "heraldlb.io/share", key, "heraldlb.io/share-namespaces", alice.namespace),
		"everybody":   annotated("heraldlb.io/addresses", addr.String(), "heraldlb.io/share", key, "io.cilium/lb-ipam-sharing-key", key, "io.cilium/lb-ipam-sharing-cross-namespace", "*"),
		"metallb":     annotated("metallb.io/loadBalancerIPs", addr.String(), "metallb.io/allow-shared-ip", key),
		"field":       all(annotated("heraldlb.io/share", key), func(s *corev1.Service) { s.Spec.LoadBalancerIP = addr.String() }),
		"without-key": annotated("heraldlb.io/addresses", addr.String()),
	}
	for name, edit := range attempts {
		bob.service(name, all(edit, withPorts(9000)))
	}
	for name := range attempts {
		bob.refused(name, v1alpha1.NotShared)
		for _, secret := range []string{key, "alices-friend", alice.namespace + "/", "shop", fmt.Sprint(port)} {
			if name != "her-key" && strings.Contains(bob.hears(name), secret) {
				t.Errorf("%s: Bob reads %q:\n%s", name, secret, bob.hears(name))
			}
		}
	}
	// With the same key and no address asked for, he gets one of his own, and hears nothing of hers.
	bob.service("waits", all(annotated("heraldlb.io/share", key), withPorts(9001)))
	if own := bob.address("waits"); own == addr {
		t.Fatalf("Bob has %s, which is Alice's", own)
	}
	bob.reachableNothing(addr, 9000)

	// Her edits move her nowhere, whatever he asks for; with consent on both sides he is a guest.
	alice.edit("shop", withPorts(80, port, 9000))
	alice.always("Alice stays", 2*time.Second, func() error { return alice.at("shop", addr) })
	alice.annotate("shop", "heraldlb.io/share-namespaces", bob.namespace)
	bob.edit("consent", withPorts(9002))
	bob.becomes("consent", addr)
	bob.refused("her-key", v1alpha1.NotShared)

	// She adds a port that he occupies: he leaves, with a word on both sides, and she stays.
	alice.edit("shop", withPorts(80, port, 9002))
	bob.eventually("Bob leaves", func() error {
		if slices.Contains(shown(bob.get("consent")), addr) {
			return fmt.Errorf("has %v", shown(bob.get("consent")))
		}
		return nil
	})
	alice.told("Service", "shop", v1alpha1.SharingEnded)
	bob.told("Service", "consent", v1alpha1.SharingEnded)
	alice.must(alice.at("shop", addr))
	alice.reachable(addr)

	// She takes her consent back, and her key: the address is hers.
	alice.annotate("shop", "heraldlb.io/share-namespaces", "")
	alice.annotate("shop", "heraldlb.io/share", "")
	alice.always("Alice stays", 2*time.Second, func() error { return alice.at("shop", addr) })
	alice.reachable(addr)
	if claims := alice.virtualIP(addr).Spec.Claims; len(claims) != 1 || claims[0].Name != "shop" {
		t.Errorf("claims %+v, want hers alone", claims)
	}
}

func (w *world) at(name string, addr netip.Addr) error {
	w.Helper()
	if now := shown(w.get(name)); len(now) != 1 || now[0] != addr {
		return fmt.Errorf("%s is at %v", name, now)
	}
	return nil
}

// reachableNothing checks that nothing answers on a port of an address.
func (w *world) reachableNothing(addr netip.Addr, port int) {
	w.Helper()
	if answer, err := box.Get(w.ctx, "client", fmt.Sprintf("http://%s/", netip.AddrPortFrom(addr, uint16(port)))); err == nil {
		w.Errorf("%s port %d answers %q", addr, port, answer)
	}
}

// What cannot be the address of a Service is given to none, and refused by name
// to whoever asks for it.
func TestAddressesThatCannotWorkAreNotGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	nodes, err := kube.CoreV1().Nodes().List(w.ctx, metav1.ListOptions{})
	w.must(err)
	node := nodes.Items[0]
	own := v1alpha1.InternalIPs(&node)[0]
	lan := netip.PrefixFrom(own, 24).Masked()
	broadcast := nth(lan, 255)
	w.service("uses-it", func(s *corev1.Service) {
		s.Spec.Type = corev1.ServiceTypeClusterIP
		s.Spec.ExternalIPs = []string{nth(w.v4, 0).String()}
	})
	clusterIP := netip.MustParseAddr(w.get("uses-it").Spec.ClusterIP)
	used := w.pool("used", func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool) }, own.String()+"/32", lan.Addr().String()+"/32", broadcast.String()+"/32", clusterIP.String()+"/32")
	w.pool("free", nil, nth(w.v4, 0).String()+"/31")
	w.pool("unicast", func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool) }, "127.0.0.0/30", "224.0.1.0/30", "169.254.7.0/30")
	w.poolSays(w.namespace+"-unicast", v1alpha1.NotUnicast, "127.0.0.0/30")

	for name, c := range map[string]struct {
		addr   netip.Addr
		reason v1alpha1.Reason
		words  []string
	}{
		"node":      {own, v1alpha1.NodeAddress, []string{own.String(), node.Name}},
		"network":   {lan.Addr(), v1alpha1.SubnetAddress, []string{lan.Addr().String()}},
		"broadcast": {broadcast, v1alpha1.SubnetAddress, []string{broadcast.String()}},
		"cluster":   {clusterIP, v1alpha1.ServiceRange, []string{clusterIP.String()}},
		"external":  {nth(w.v4, 0), v1alpha1.ServiceAddress, []string{nth(w.v4, 0).String()}},
		"loopback":  {netip.MustParseAddr("127.0.0.1"), v1alpha1.NotUnicast, []string{"127.0.0.1"}},
		"dhcp":      {netip.IPv4Unspecified(), v1alpha1.NotUnicast, []string{"0.0.0.0"}},
	} {
		w.service(name, annotated("heraldlb.io/addresses", c.addr.String()))
		w.refused(name, c.reason, c.words...)
	}
	// Of the pool's two addresses one is in use: the other one is given, and then none.
	w.service("gets", nil)
	if got := w.address("gets"); got != nth(w.v4, 1) {
		t.Errorf("got %s, want %s", got, nth(w.v4, 1))
	}
	w.service("late", nil)
	w.refused("late", v1alpha1.PoolExhausted)
	w.service("named", annotated("heraldlb.io/pool", used.Name))
	w.refused("named", v1alpha1.PoolExhausted)
}

// Who asks for an internal load balancer in any way that is documented never
// gets an address of an External pool, and an edit is followed.
func TestInternalMeansInternal(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	public := w.pool("public", nil, w.v4.Addr().String()+"/25")
	w.service("web", nil)
	first := w.address("web")
	w.annotate("web", "heraldlb.io/scope", "Internal")
	w.refused("web", v1alpha1.NoPool, "not for internal load balancers")
	if now := shown(w.get("web")); len(now) > 0 {
		t.Errorf("it keeps %v, which is public", now)
	}
	w.pool("private", func(s *v1alpha1.AddressPoolSpec) { s.Scope = v1alpha1.ScopeInternal }, nth(w.v4, 128).String()+"/25")
	inside := netip.PrefixFrom(nth(w.v4, 128), 25)
	w.eventually("the Service is served inside", func() error {
		if now := shown(w.get("web")); len(now) != 1 || !inside.Contains(now[0]) {
			return fmt.Errorf("at %v, before at %s", now, first)
		}
		return nil
	})
	for i, annotation := range [][]string{
		{"service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type", "intranet"},
		{"service.beta.kubernetes.io/aws-load-balancer-internal", "0.0.0.0/0"},
		{"service.beta.kubernetes.io/azure-load-balancer-internal", "true"},
		{"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid", "subnet-1"},
		{"service.beta.kubernetes.io/openstack-internal-load-balancer", "true"},
	} {
		name := fmt.Sprintf("cloud-%d", i)
		w.service(name, annotated(annotation...))
		if got := w.address(name); !inside.Contains(got) {
			t.Errorf("%s=%s: got %s", annotation[0], annotation[1], got)
		}
		both := fmt.Sprintf("both-%d", i)
		w.service(both, annotated(append(annotation, "metallb.io/address-pool", public.Name)...))
		w.refused(both, v1alpha1.ConflictingRequests, public.Name)
	}
	w.service("address", annotated("heraldlb.io/scope", "Internal", "heraldlb.io/addresses", first.String()))
	w.refused("address", v1alpha1.ConflictingRequests, first.String())
}
