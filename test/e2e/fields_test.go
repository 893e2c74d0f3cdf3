package e2e

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

func TestSourceRangesDropForeignClients(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	v4, v6 := box.Addrs("client")
	ranges := []string{v4.String() + "/32", v6.String() + "/128"}
	w.service("field", all(families(corev1.IPFamilyPolicyRequireDualStack), func(s *corev1.Service) {
		s.Spec.Selector = map[string]string{"app": "web"}
		s.Spec.LoadBalancerSourceRanges = ranges
	}))
	w.service("annotation", all(families(corev1.IPFamilyPolicyRequireDualStack), func(s *corev1.Service) {
		s.Spec.Selector = map[string]string{"app": "web"}
	}, annotated(corev1.AnnotationLoadBalancerSourceRangesKey, ranges[0]+","+ranges[1])))
	for _, name := range []string{"field", "annotation"} {
		for _, addr := range w.addresses(name, 2) {
			w.reachableFrom("client", addr)
			if answer, err := request(w.ctx, "client2", addr, 80); err == nil {
				t.Errorf("%s: a client outside the source ranges reached %s: %s", name, addr, answer)
			}
		}
	}
	w.told("Service", "annotation", v1alpha1.SourceRangesCopied)

	// The API server refuses broken ranges by name, before they come to us.
	_, err := kube.CoreV1().Services(w.namespace).Create(w.ctx, w.serviceObject("bad", func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = []string{"everyone"}
	}), metav1.CreateOptions{})
	if err == nil || has(err.Error(), "oadBalancerSourceRanges", "everyone") != nil {
		t.Errorf("error %v: want one that names the field and the value", err)
	}
}

func TestIPModeFromPoolAndAnnotationChangesLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	announce := func(mode v1alpha1.IPMode, announce v1alpha1.Announce) func(*v1alpha1.AddressPoolSpec) {
		return func(s *v1alpha1.AddressPoolSpec) { s.IPMode, s.Announce = mode, announce }
	}
	pool := w.pool("modes", announce("Proxy", "None"), w.v4.String())
	w.pods("web", "node1")
	w.service("web", nil)
	addr := w.address("web")
	mode := func(want corev1.LoadBalancerIPMode) {
		t.Helper()
		w.eventually("ipMode is "+string(want), func() error {
			if got := w.get("web").Status.LoadBalancer.Ingress; len(got) != 1 || got[0].IPMode == nil || *got[0].IPMode != want || got[0].IP != addr.String() {
				return fmt.Errorf("ingress %+v", got)
			}
			return nil
		})
	}
	mode("Proxy")
	w.annotate("web", "heraldlb.io/ip-mode", "VIP")
	mode("VIP")
	w.annotate("web", "heraldlb.io/ip-mode", "")
	mode("Proxy")
	w.held(addr, v1alpha1.AnnounceNone)
	w.editPool(pool.Name, announce("VIP", "None"))
	mode("VIP")
	w.held(addr, v1alpha1.AnnounceNone)
	// What is announced is served by kube-proxy, and so cannot be a proxy's.
	w.editPool(pool.Name, announce("VIP", "Auto"))
	w.reachable(addr)
	w.annotate("web", "heraldlb.io/ip-mode", "Proxy")
	w.refused("web", v1alpha1.ConflictingRequests, "heraldlb.io/ip-mode", pool.Name, "announce: None")
	mode("VIP")
	w.reachable(addr)
	w.service("other", annotated("heraldlb.io/ip-mode", "Proxy"))
	w.refused("other", v1alpha1.ConflictingRequests, "announce: None")
	if got := shown(w.get("other")); len(got) != 0 {
		t.Errorf("it has %v", got)
	}
	w.editPool(pool.Name, announce("VIP", "None"))
	mode("Proxy")
	w.address("other")
	w.held(addr, v1alpha1.AnnounceNone)
	w.annotate("web", "heraldlb.io/ip-mode", "")
	w.editPool(pool.Name, announce("VIP", "Auto"))
	mode("VIP")
	w.reachable(addr)
}

func TestSCTPIsServedBesideTCPAndUDP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.service("mixed", func(s *corev1.Service) {
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "tcp", Port: 53, Protocol: corev1.ProtocolTCP},
			{Name: "udp", Port: 53, Protocol: corev1.ProtocolUDP},
			{Name: "sctp", Port: 53, Protocol: corev1.ProtocolSCTP},
		}
	})
	if ports := w.virtualIP(w.address("mixed")).Spec.Claims[0].Ports; len(ports) != 3 {
		t.Errorf("ports %v: want all three", ports)
	}
}

func TestServiceMadeAgainUnderTheSameNameAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.service("web", nil)
	first := w.address("web")
	for range 10 {
		w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "web", metav1.DeleteOptions{}))
		var service *corev1.Service
		w.quietly("the name is free", func() (err error) { // its finalizer keeps it until its address is out of the status
			service, err = kube.CoreV1().Services(w.namespace).Create(w.ctx, w.serviceObject("web", nil), metav1.CreateOptions{})
			return err
		})
		addr := w.address("web")
		w.eventually("the claim is the new Service's", func() error {
			claims := w.virtualIP(addr).Spec.Claims
			if len(claims) != 1 || claims[0].UID != service.UID {
				return fmt.Errorf("claims %+v: want UID %s", claims, service.UID)
			}
			return nil
		})
		if addr != first {
			t.Errorf("the Service made again has %s: want %s again", addr, first)
		}
	}
}

func TestOtherTypesAreNotOurs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	versions := map[string]string{}
	for name, edit := range map[string]func(*corev1.Service){
		"external": func(s *corev1.Service) {
			s.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
		},
		"headless": func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeClusterIP
			s.Spec.ClusterIP = corev1.ClusterIPNone
		},
		"nodeport": func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeNodePort },
	} {
		versions[name] = w.service(name, edit).ResourceVersion
	}
	w.service("ours", nil)
	w.address("ours")
	for name, version := range versions {
		if now := w.get(name); now.ResourceVersion != version {
			t.Errorf("%s was written: %+v", name, now.Status)
		}
	}
}

func TestAliasesOfOtherProviders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	pool := w.pool("named", func(s *v1alpha1.AddressPoolSpec) { s.AutoAssign = new(bool) }, w.v4.String())
	for i, c := range []struct{ name, annotation string }{
		{"metallb", "metallb.io/loadBalancerIPs"},
		{"metallb-old", "metallb.universe.tf/loadBalancerIPs"},
		{"cilium", "lbipam.cilium.io/ips"},
		{"kube-vip", "kube-vip.io/loadbalancerIPs"},
		{"purelb", "purelb.io/addresses"},
	} {
		want := nth(w.v4, 20+i)
		w.service(c.name, annotated(c.annotation, want.String()))
		w.becomes(c.name, want)
	}
	for i, annotation := range []string{"metallb.io/address-pool", "metallb.universe.tf/address-pool", "purelb.io/service-group"} {
		name := fmt.Sprintf("pool-%d", i)
		w.service(name, annotated(annotation, pool.Name))
		w.address(name)
	}
	var shared netip.Addr
	for i, annotation := range []string{"metallb.io/allow-shared-ip", "metallb.universe.tf/allow-shared-ip", "lbipam.cilium.io/sharing-key"} {
		name := fmt.Sprintf("share-%d", i)
		w.service(name, all(annotated(annotation, "key", "heraldlb.io/pool", pool.Name), func(s *corev1.Service) { s.Spec.Ports[0].Port = int32(8000 + i) }))
		if addr := w.address(name); i == 0 {
			shared = addr
		} else if addr != shared {
			t.Errorf("%s: has %s, want the shared %s", annotation, addr, shared)
		}
	}
	w.service("torn", annotated("metallb.io/loadBalancerIPs", nth(w.v4, 30).String(), "lbipam.cilium.io/ips", nth(w.v4, 31).String()))
	w.refused("torn", v1alpha1.ConflictingRequests, "metallb.io/loadBalancerIPs", "lbipam.cilium.io/ips")
}

// showing makes a Service that another provider served before us.
func (w *world) showing(name string, ingress ...corev1.LoadBalancerIngress) {
	w.Helper()
	w.showingOf(name, ptr.To("heraldlb.io/bare-metal"), ingress...)
}

// showingOf makes a Service of a class, or of none, that shows what another
// provider gave it.
func (w *world) showingOf(name string, class *string, ingress ...corev1.LoadBalancerIngress) {
	w.Helper()
	service := w.service(name, func(s *corev1.Service) { s.Spec.LoadBalancerClass = class })
	service.Status.LoadBalancer.Ingress = ingress
	_, err := kube.CoreV1().Services(w.namespace).UpdateStatus(w.ctx, service, metav1.UpdateOptions{})
	w.must(err)
}

func TestStatusOfAnotherProviderIsAdoptedOrReplaced(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	adopted := nth(w.v4, 77)
	// As after a migration: the Services are there before the controller.
	w.must(box.Kill(w.ctx, "controller"))
	w.showing("adopted", corev1.LoadBalancerIngress{IP: adopted.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	w.showing("foreign", corev1.LoadBalancerIngress{IP: "192.0.2.9", IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	w.showing("hostname", corev1.LoadBalancerIngress{Hostname: "lb.example.com"})
	// Others wait for an address already: none of them gets the one adopted.
	for i := range 5 {
		w.service(fmt.Sprintf("pending-%d", i), annotated("heraldlb.io/addresses", adopted.String()))
	}
	w.resume()
	w.becomes("adopted", adopted)
	w.address("adopted")
	w.told("Service", "adopted", v1alpha1.AddressAdopted)
	for _, name := range []string{"foreign", "hostname"} {
		w.eventually(name+" is replaced", func() error {
			if now := shown(w.get(name)); len(now) != 1 || !w.v4.Contains(now[0]) {
				return fmt.Errorf("%+v", w.get(name).Status)
			}
			return nil
		})
		w.told("Service", name, v1alpha1.AddressReplaced)
	}
	for i := range 5 {
		name := fmt.Sprintf("pending-%d", i)
		w.eventually(name+" does not get it", func() error {
			condition := ready(w.get(name))
			// Kept for the other, or already given to it.
			if condition == nil || condition.Reason != string(v1alpha1.NotShared) && condition.Reason != string(v1alpha1.Reserved) {
				return fmt.Errorf("condition %+v", condition)
			}
			return has(condition.Message, "adopted")
		})
	}
}

func TestDefaultClassCanBeTurnedOff(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	config := filepath.Join(box.Dir(), "no-default.yaml")
	w.must(os.WriteFile(config, []byte("apiVersion: config.heraldlb.io/v1alpha1\nkind: CloudConfig\ndefault: \"\"\n"), 0o644))
	w.must(box.Stop(w.ctx, "controller"))
	w.vacate()
	w.startController("controller-without-default", "--cloud-config="+config)
	none := w.service("none", nil)
	// Another provider gave one without class an address that a pool of ours has.
	w.showingOf("theirs", nil, corev1.LoadBalancerIngress{IP: nth(w.v4, 99).String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	w.showingOf("foreign", ptr.To("example.com/lb"), corev1.LoadBalancerIngress{IP: nth(w.v4, 98).String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP)})
	theirs, foreign := w.get("theirs"), w.get("foreign")
	w.must(box.Stop(w.ctx, "controller-without-default"))
	w.vacate()
	w.startController("controller-without-default-again", "--cloud-config="+config)
	w.service("ours", func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To("heraldlb.io/bare-metal") })
	w.address("ours")
	w.service("asks", all(annotated("heraldlb.io/addresses", nth(w.v4, 98).String()), func(s *corev1.Service) {
		s.Spec.LoadBalancerClass = ptr.To("heraldlb.io/bare-metal")
	}))
	w.refused("asks", v1alpha1.ServiceAddress, nth(w.v4, 98).String(), "the load balancer's address of Service", "foreign")
	w.always("a Service without class is left alone", time.Second, func() error {
		for _, before := range []*corev1.Service{none, theirs, foreign} {
			if now := w.get(before.Name); now.ResourceVersion != before.ResourceVersion {
				return fmt.Errorf("%s was written: %+v", now.Name, now.Status)
			}
		}
		return nil
	})
	for _, name := range []string{"none", "theirs", "foreign"} {
		if events := w.events("Service", name, v1alpha1.AddressReleased); len(events) > 0 {
			t.Errorf("%s was told %v", name, events)
		}
	}
	w.must(box.Stop(w.ctx, "controller-without-default-again"))
	w.resume()
	w.address("none")
}

// startController starts a further controller manager with flags of its own,
// until the test ends.
func (w *world) startController(name string, args ...string) {
	w.Helper()
	kubeconfig, err := box.KubeconfigFor(w.ctx, "cp", "herald-system", "herald-controller-manager")
	w.must(err)
	w.must(box.Start(sandbox.Process{
		Name: name, Host: "cp",
		Args: slices.Concat([]string{
			filepath.Join(box.Config().BinDir, "herald-controller-manager"), "--cloud-provider=herald", "--secure-port=0", "-v=2", "--kubeconfig=" + kubeconfig,
		}, args),
	}))
	w.Cleanup(func() {
		if box.Running(name) {
			w.must(box.Kill(w.ctx, name))
		}
	})
}
