package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

var podPort = intstr.FromInt32(sandbox.DefaultPodPort)

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func TestAutomaticAddressAnswersOverIPv4AndIPv6(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		families []corev1.IPFamily
		policy   corev1.IPFamilyPolicy
	}{
		{"IPv4", []corev1.IPFamily{corev1.IPv4Protocol}, corev1.IPFamilyPolicySingleStack},
		{"IPv6", []corev1.IPFamily{corev1.IPv6Protocol}, corev1.IPFamilyPolicySingleStack},
		{"DualStack", []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}, corev1.IPFamilyPolicyRequireDualStack},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.dualPool()
			w.pods("web", "node1", "node2", "node3")
			w.service("web", families(c.policy, c.families...))
			for i, addr := range w.addresses("web", len(c.families)) {
				if addr.Is4() != (c.families[i] == corev1.IPv4Protocol) {
					t.Errorf("address %d is %s: want %s", i, addr, c.families[i])
				}
				if !w.v4.Contains(addr) && !w.v6.Contains(addr) {
					t.Errorf("%s is not from the pool", addr)
				}
				answer := w.reachable(addr)
				if err := has(answer, "pod=web-node"); err != nil {
					t.Error(err)
				}
				w.eventually("the neighbour that answers is the owner that the VirtualIP names", func() error {
					want, err := box.MAC(w.owner(addr))
					w.must(err)
					if got := w.answered(addr); got.String() != want.String() {
						return fmt.Errorf("%s answers for %s: want the owner's %s", got, addr, want)
					}
					return nil
				})
			}
		})
	}
}

func TestAddressInTheNodesOwnNetworkIsAnnouncedThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.pool("lan", nil, "198.51.100.192/28", "2001:db8:51:0:1::/120")
	w.pods("web", "node1")
	w.service("web", families(corev1.IPFamilyPolicyRequireDualStack))
	for _, addr := range w.addresses("web", 2) {
		w.reachable(addr)
	}
}

func TestRequestedAddressIsGiven(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1")
	want := w.v4.Addr().Next().Next() // in the static band
	w.service("web", annotated("heraldlb.io/addresses", want.String()))
	if got := w.address("web"); got != want {
		t.Errorf("got %s: want the requested %s", got, want)
	}
	w.reachable(want)
}

func TestLocalPolicyKeepsTheClientAddressAndOnlyNodesWithEndpointsOwnIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pod("web", "node2")
	w.service("web", all(local, families(corev1.IPFamilyPolicyRequireDualStack)))
	addresses := w.addresses("web", 2)
	for _, addr := range addresses {
		if owner := w.owner(addr); owner != "node2" {
			t.Errorf("%s owns %s: want node2, which has the pod", owner, addr)
		}
		v4, v6 := box.Addrs("client")
		want := "client=" + v4.String()
		if addr.Is6() {
			want = "client=" + v6.String()
		}
		if err := has(w.reachable(addr), want, "pod=web-node2"); err != nil {
			t.Error(err)
		}
	}
	// The pod moves: so does the address.
	w.pod("web", "node3")
	w.must(box.DeletePod(w.ctx, w.namespace, "web-node2"))
	for _, addr := range addresses {
		if owner := w.ownerOtherThan(addr, "node2"); owner != "node3" {
			t.Errorf("%s owns %s: want node3, where the pod is now", owner, addr)
		}
		w.eventually(fmt.Sprintf("%s is served from node3", addr), func() error {
			answer, err := request(w.ctx, "client", addr, 80)
			if err != nil {
				return err
			}
			return has(answer, "node=node3")
		})
	}
}

func TestTCPAndUDPOnOneService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("dns", "node1", "node2")
	w.service("dns", all(families(corev1.IPFamilyPolicyRequireDualStack), func(s *corev1.Service) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "udp", Port: 80, Protocol: corev1.ProtocolUDP, TargetPort: podPort})
	}))
	for _, addr := range w.addresses("dns", 2) {
		w.reachable(addr)
		w.eventually(fmt.Sprintf("%s answers over UDP", addr), func() error {
			answer, err := requestUDP(w.ctx, "client", addr, 80)
			if err != nil {
				return err
			}
			return has(answer, "pod=dns-")
		})
	}
}

func TestNodePortsAreNotNeeded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1")
	w.service("web", func(s *corev1.Service) { s.Spec.AllocateLoadBalancerNodePorts = ptr.To(false) })
	addr := w.address("web")
	w.reachable(addr)
	if port := w.get("web").Spec.Ports[0].NodePort; port != 0 {
		t.Errorf("node port %d: want none", port)
	}
}

func TestClassOursForeignAndNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.service("ours", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("heraldlb.io/bare-metal") })
	w.service("none", nil)
	foreign := w.service("foreign", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("example.com/other") })
	w.address("ours")
	w.address("none")
	w.always("the foreign Service is not touched", time.Second, func() error {
		if now := w.get("foreign"); now.ResourceVersion != foreign.ResourceVersion {
			return fmt.Errorf("written: %+v", now.Status)
		}
		return nil
	})
	if events := w.events("Service", "foreign", ""); len(events) > 0 {
		t.Errorf("events on the foreign Service: %v", events)
	}
}

func TestDeletionReleasesTheAddressAndSilencesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	w.service("web", families(corev1.IPFamilyPolicyRequireDualStack))
	addresses := w.addresses("web", 2)
	for _, addr := range addresses {
		w.reachable(addr)
	}
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "web", metav1.DeleteOptions{}))
	for _, addr := range addresses {
		w.gone(addr)
		w.silent(addr)
	}
}

func TestTypeChangeReleasesTheAddressAndClearsTheStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	w.service("web", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("heraldlb.io/bare-metal") })
	addr := w.address("web")
	w.reachable(addr)
	w.edit("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP; s.Spec.LoadBalancerClass = nil })
	w.gone(addr)
	w.silent(addr)
	w.eventually("the status is clear", func() error {
		if s := w.get("web"); len(s.Status.LoadBalancer.Ingress) > 0 || ready(s) != nil {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
	// And back.
	w.edit("web", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer })
	w.reachable(w.address("web"))
}

// gone waits until the VirtualIP of the address is deleted.
func (w *world) gone(addr netip.Addr) {
	w.Helper()
	w.eventually(fmt.Sprintf("VirtualIP %s is gone", addr), func() error {
		_, err := herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(addr), metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("there (err %v)", err)
		}
		return nil
	})
}

func TestExhaustedPoolSaysSoAndServesTheWaitingWhenAnAddressIsFreed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pool := w.pool("two", nil, w.v4.Addr().String()+"/31")
	w.service("a", nil)
	w.service("b", nil)
	first := w.address("a")
	w.address("b")
	w.service("c", nil)
	w.refused("c", v1alpha1.PoolExhausted, pool.Name)
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "a", metav1.DeleteOptions{}))
	if got := w.address("c"); got != first {
		t.Errorf("the waiting Service got %s: want the freed %s", got, first)
	}
	w.eventually("the pool counts its addresses", func() error {
		now, err := herald.AddressPools.Get(w.ctx, pool.Name, metav1.GetOptions{})
		w.must(err)
		want := v1alpha1.AddressCount{Capacity: 2, Allocated: 2}
		if now.Status.IPv4 != want {
			return fmt.Errorf("status %+v: want %+v", now.Status.IPv4, want)
		}
		return nil
	})
}

func TestGrowingThePoolServesTheWaiting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pool := w.pool("one", nil, w.v4.Addr().String()+"/32")
	w.service("a", nil)
	w.address("a")
	w.service("b", nil)
	w.refused("b", v1alpha1.PoolExhausted, pool.Name)
	w.editPool(pool.Name, func(s *v1alpha1.AddressPoolSpec) { s.Addresses = []string{w.v4.Addr().String() + "/31"} })
	w.address("b")
}

func TestAddressesOfManyServicesAreSpreadOverTheNodes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	const count = 30
	for i := range count {
		w.service(fmt.Sprintf("web-%d", i), func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} })
	}
	owners := map[string]int{}
	for i := range count {
		owners[w.owner(w.address(fmt.Sprintf("web-%d", i)))]++
	}
	t.Logf("owners: %v", owners)
	if len(owners) != 3 {
		t.Errorf("owners %v: want all three nodes", owners)
	}
}

func TestKubectlTellsWhatHappened(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pool := w.pool("tiny", nil, w.v4.Addr().String()+"/32")
	w.pods("web", "node1")
	w.service("web", nil)
	addr := w.address("web")
	owner := w.owner(addr)
	w.service("late", nil)
	w.refused("late", v1alpha1.PoolExhausted)

	out, err := box.Kubectl(w.ctx, "get", "vip", addr.String())
	w.must(err)
	for _, word := range []string{"ADDRESS", "POOL", "SERVICES", "OWNER", "ANNOUNCED", addr.String(), pool.Name, w.namespace + "/web", owner, "True"} {
		if !strings.Contains(out, word) {
			t.Errorf("kubectl get vip lacks %q:\n%s", word, out)
		}
	}
	w.eventually("kubectl get pool tells how full it is", func() error {
		out, err := box.Kubectl(w.ctx, "get", "pool", pool.Name)
		w.must(err)
		_, row, _ := strings.Cut(out, pool.Name)
		fields := strings.Fields(row)
		if want := []string{"True", "1", "0"}; len(fields) < 3 || !slices.Equal(fields[:3], want) {
			return fmt.Errorf("%v: want %v", fields, want)
		}
		return nil
	})
	out, err = box.Kubectl(w.ctx, "describe", "svc", "-n", w.namespace, "late")
	w.must(err)
	for _, word := range []string{"PoolExhausted", pool.Name} {
		if !strings.Contains(out, word) {
			t.Errorf("kubectl describe svc lacks %q:\n%s", word, out)
		}
	}
	out, err = box.Kubectl(w.ctx, "describe", "svc", "-n", w.namespace, "web")
	w.must(err)
	for _, word := range []string{"AddressAssigned", addr.String(), pool.Name} {
		if !strings.Contains(out, word) {
			t.Errorf("kubectl describe svc lacks %q:\n%s", word, out)
		}
	}
}
