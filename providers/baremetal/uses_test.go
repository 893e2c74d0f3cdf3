package baremetal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// usesOf are uses, a line each.
func usesOf(all []addressUse) []string {
	var lines []string
	for _, u := range all {
		lines = append(lines, fmt.Sprintf("%s %s: %s", u.addr, u.use.Reason, u.use.What))
	}
	return lines
}

func same(t *testing.T, want, got []string) {
	t.Helper()
	if !slices.Equal(want, got) {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func TestWhatNodesHave(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
		{Type: corev1.NodeHostName, Address: "10.9.9.9"}, {Type: corev1.NodeInternalIP, Address: "198.51.100.31"},
		{Type: corev1.NodeExternalIP, Address: "2001:db8::31"}, {Type: corev1.NodeInternalIP, Address: "nonsense"},
	}}}
	same(t, []string{"198.51.100.31 NodeAddress: the InternalIP of node a", "2001:db8::31 NodeAddress: the ExternalIP of node a"}, usesOf(nodeUses(node)))

	speaker := &v1alpha1.Speaker{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: v1alpha1.SpeakerStatus{Interfaces: []v1alpha1.SpeakerInterface{
		{Name: "eth0", Prefixes: []string{"198.51.100.31/24", "2001:db8::31/64", "nonsense", "203.0.113.9/32", "192.0.2.2/31", "2001:db8:1::1/127"}},
		{Name: "kube-ipvs0", Prefixes: []string{"203.0.113.10/32"}},
		{Name: "lo", Prefixes: []string{"203.0.113.11/32"}},
	}}}
	same(t, []string{
		"198.51.100.31 NodeAddress: an address of node a, on eth0",
		"2001:db8::31 NodeAddress: an address of node a, on eth0",
		"203.0.113.9 NodeAddress: an address of node a, on eth0",
		"192.0.2.2 NodeAddress: an address of node a, on eth0",
		"2001:db8:1::1 NodeAddress: an address of node a, on eth0",
		"198.51.100.0 SubnetAddress: the network address of 198.51.100.0/24, which node a has on eth0",
		"198.51.100.255 SubnetAddress: the broadcast address of 198.51.100.0/24, which node a has on eth0",
		"2001:db8:: SubnetAddress: the subnet-router anycast address of 2001:db8::/64, which node a has on eth0",
	}, usesOf(speakerUses(speaker)))
}

// at asks for an address.
func at(address string) func(*corev1.Service) { return annotated("heraldlb.io/addresses", address) }

// wantVerdict waits for the words in the Service's condition.
func (w *world) wantVerdict(name string, words ...string) {
	w.Helper()
	w.until(name, "", func() string {
		c := meta.FindStatusCondition(w.get(name).Status.Conditions, v1alpha1.ServiceReady)
		if c == nil {
			return "no condition"
		}
		return lacks(c.Reason+": "+c.Message, words...)
	})
}

// poolSays waits for the words in the pool's condition.
func (w *world) poolSays(name string, words ...string) {
	w.Helper()
	w.until("pool "+name, "", func() string {
		pool, err := w.herald.AddressPools.Get(w.ctx, name, metav1.GetOptions{})
		must(w, err)
		c := meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
		if c == nil {
			return "no condition"
		}
		return lacks(fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message), words...)
	})
}

// lacks says which words are not in the text, "" if all are.
func lacks(text string, words ...string) string {
	for _, word := range words {
		if !strings.Contains(text, word) {
			return fmt.Sprintf("%q lacks %q", text, word)
		}
	}
	return ""
}

// What a node has is not given, and refused by its name; when the node has it no more, who waits gets it.
func TestNodesKeepTheirAddresses(t *testing.T) {
	inWorld(t, func(w *world) {
		w.speaker("a", on("eth0", "0a", "203.0.113.5/29"))
		w.editNode("b", func(n *corev1.Node) {
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeExternalIP, Address: "203.0.113.1"}}
		})
		w.pool("p", nil, "203.0.113.0/29")
		w.controller()
		w.poolSays("p", "False NodeAddress", "203.0.113.1 is the ExternalIP of node b", "203.0.113.5 is an address of node a, on eth0", "Take them out")
		// Of eight addresses two are nodes', one the network's and one for broadcasts.
		for _, name := range []string{"s1", "s2", "s3", "s4"} {
			w.create(lb(name))
		}
		for _, name := range []string{"s1", "s2", "s3", "s4"} {
			w.wantVerdict(name, "Assigned ")
		}
		w.create(lb("full"))
		w.wantVerdict("full", "PoolExhausted", "4 of them by nodes, networks or Services")
		for address, words := range map[string][]string{
			"203.0.113.1": {"NodeAddress: Address 203.0.113.1 is the ExternalIP of node b"},
			"203.0.113.5": {"NodeAddress", "node a, on eth0"},
			"203.0.113.0": {"SubnetAddress", "network address of 203.0.113.0/29"},
			"203.0.113.7": {"SubnetAddress", "broadcast address of 203.0.113.0/29"},
			"0.0.0.0":     {"NotUnicast", "DHCP", "remove it"},
			"224.0.0.9":   {"NotUnicast", "multicast"},
		} {
			name := "asks" + strings.ReplaceAll(address, ".", "-")
			w.create(lb(name, at(address)))
			w.wantVerdict(name, words...)
		}
		w.editNode("b", func(n *corev1.Node) { n.Status.Addresses = nil })
		w.until("it is free", "", func() string {
			if got := tell(w.get("full")) + tell(w.get("asks203-0-113-1")); !strings.Contains(got, "203.0.113.1") {
				return got
			}
			return ""
		})
	})
}

// A node that comes with an address in use renumbers nobody, and it is told on both. When it leaves, that is told, too.
func TestANodeThatComesWithAnAddressInUseIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("p", nil, "203.0.113.16/30")
		w.controller()
		w.create(lb("web", at("203.0.113.17")))
		w.wantVerdict("web", "Assigned 203.0.113.17 ")
		w.speaker("d", on("eth0", "0d", "203.0.113.17/24"))
		w.wantVerdict("web", "203.0.113.17 is an address of node d, on eth0.")
		usable := func() string {
			c := meta.FindStatusCondition(w.vip("203.0.113.17").Status.Conditions, v1alpha1.ConditionUnusable)
			if c == nil {
				return ""
			}
			return string(c.Status) + " " + c.Reason
		}
		w.until("the VirtualIP", "True NodeAddress", usable)
		if got := w.events.of("web"); !strings.Contains(got, "Warning NodeAddress") {
			t.Errorf("events %s", got)
		}
		w.poolSays("p", "NodeAddress", "203.0.113.17")
		if n := len(w.rest()); n == 0 {
			t.Error("no writes")
		}
		writes := len(w.rest())
		w.speaker("d", on("eth0", "0d", "203.0.113.18/24"))
		w.until("the VirtualIP", "False NoObstacle", usable)
		w.poolSays("p", "203.0.113.18 is an address of node d")
		if got := tell(w.get("web")); !strings.HasPrefix(got, "203.0.113.17 ") {
			t.Errorf("web: %s", got)
		}
		if n := len(w.rest()) - writes; n > 6 {
			t.Errorf("%d writes", n)
		}
	})
}

// What Services have otherwise is not given, and refused without the name of who is in another namespace.
func TestServicesKeepWhatTheyHaveOtherwise(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("p", nil, "203.0.113.16/30", "10.96.0.8/30", "10.97.0.0/31")
		must(w, first(w.kube.NetworkingV1().ServiceCIDRs().Create(w.ctx, &networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16"}}}, metav1.CreateOptions{})))
		internal := func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }
		w.create(lb("db", internal, func(s *corev1.Service) {
			s.Spec.ExternalIPs, s.Spec.ClusterIPs = []string{"203.0.113.16"}, []string{"10.97.0.1"}
		}))
		must(w, first(w.kube.CoreV1().Services("bank").Create(w.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bank", Name: "vault"},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ExternalIPs: []string{"203.0.113.17"}}}, metav1.CreateOptions{})))
		w.controller()
		w.poolSays("p", "False ServiceRange", "10.96.0.8/30 is not given", "10.96.0.0/16 (ServiceCIDR kubernetes)")
		for _, name := range []string{"s1", "s2", "s3"} {
			w.create(lb(name))
		}
		given := ""
		for _, name := range []string{"s1", "s2", "s3"} {
			w.wantVerdict(name, "Assigned ")
			given += tell(w.get(name)) + " "
		}
		for _, address := range []string{"203.0.113.18", "203.0.113.19", "10.97.0.0"} {
			if !strings.Contains(given, address+" ") {
				t.Errorf("given %s: not %s", given, address)
			}
		}
		w.create(lb("near", at("203.0.113.16")))
		w.wantVerdict("near", "ServiceAddress", "an external IP of Service shop/db")
		w.create(lb("far", at("203.0.113.17")))
		w.wantVerdict("far", "ServiceAddress", "an external IP of a Service in another namespace")
		w.create(lb("cluster", at("10.97.0.1")))
		w.wantVerdict("cluster", "ServiceAddress", "the cluster IP of Service shop/db")
		w.create(lb("range", at("10.96.0.9")))
		w.wantVerdict("range", "ServiceRange", "10.96.0.0/16")
		w.create(lb("own", at("203.0.113.16"), func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.16"} }))
		w.wantVerdict("own", "ServiceAddress", "shop/db")

		must(w, w.kube.CoreV1().Services("bank").Delete(w.ctx, "vault", metav1.DeleteOptions{}))
		w.wantVerdict("far", "Assigned 203.0.113.17 ")
		w.delete("near")
		w.edit("db", func(s *corev1.Service) { s.Spec.ExternalIPs = nil })
		w.wantVerdict("own", "Assigned 203.0.113.16 ")
		must(w, w.kube.NetworkingV1().ServiceCIDRs().Delete(w.ctx, "kubernetes", metav1.DeleteOptions{}))
		w.wantVerdict("range", "Assigned 10.96.0.9 ")
		w.poolSays("p", "True Valid", "10.97.0.1 is the cluster IP of Service shop/db")
	})
}

// An API server without ServiceCIDRs, or one that does not let us read them, keeps nobody waiting.
func TestWithoutServiceCIDRs(t *testing.T) {
	inWorld(t, func(w *world) {
		w.api.Before = func(request string) error {
			if strings.Contains(request, "servicecidrs") {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "servicecidrs"}, "", errors.New("not allowed"))
			}
			return nil
		}
		w.pool("p", nil, "203.0.113.16/30")
		start := time.Now()
		w.controller()
		w.create(lb("web"))
		w.wantVerdict("web", "Assigned ")
		if took := time.Since(start); took > time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

// The pool names who has addresses that it has no more.
func TestThePoolNamesWhoIsOutside(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("p", nil, "203.0.113.16/28")
		w.controller()
		for i := range 7 {
			w.create(lb(fmt.Sprint("s", i), at(netip.AddrFrom4([4]byte{203, 0, 113, byte(16 + i)}).String())))
		}
		for i := range 7 {
			w.wantVerdict(fmt.Sprint("s", i), "Assigned ")
		}
		pool, err := w.herald.AddressPools.Get(w.ctx, "p", metav1.GetOptions{})
		must(w, err)
		pool.Spec.Addresses = []string{"203.0.113.24/29"}
		must(w, first(w.herald.AddressPools.Update(w.ctx, pool, metav1.UpdateOptions{})))
		w.poolSays("p", "True Valid", "In use, given from the pool and in it no more: 203.0.113.16 (shop/s0); 203.0.113.17 (shop/s1)", "203.0.113.20 (shop/s4); and 2 more.")
	})
}

// What another provider gave is not given, and refused without the name of who is in another namespace.
func TestWhatOtherProvidersGaveIsNotGiven(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("p", nil, "203.0.113.16/29")
		foreign := func(class, namespace, name, address string) {
			s := lb(name, func(s *corev1.Service) { s.Namespace = namespace })
			if s.Spec.LoadBalancerClass = &class; class == "" {
				s.Spec.LoadBalancerClass = nil
			}
			made, err := w.kube.CoreV1().Services(namespace).Create(w.ctx, s, metav1.CreateOptions{})
			must(w, err)
			made.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}, {Hostname: "x.example.com"}, {IP: "nonsense"}}
			must(w, first(w.kube.CoreV1().Services(namespace).UpdateStatus(w.ctx, made, metav1.UpdateOptions{})))
		}
		foreign("example.com/lb", "shop", "theirs", "203.0.113.16")
		foreign("", "bank", "vault", "203.0.113.17")
		w.controllerWith("") // nobody's class is ours
		ours := func(s *corev1.Service) {
			class := bareMetal
			s.Spec.LoadBalancerClass = &class
		}
		for i := range 6 {
			w.create(lb(fmt.Sprint("s", i), ours))
		}
		for i := range 6 {
			w.wantVerdict(fmt.Sprint("s", i), "Assigned ")
			if got := tell(w.get(fmt.Sprint("s", i))); strings.HasPrefix(got, "203.0.113.16 ") || strings.HasPrefix(got, "203.0.113.17 ") {
				t.Errorf("s%d: %s", i, got)
			}
		}
		w.create(lb("full", ours))
		w.wantVerdict("full", "PoolExhausted")
		w.create(lb("near", ours, at("203.0.113.16")))
		w.wantVerdict("near", "ServiceAddress", "203.0.113.16 is the load balancer's address of Service shop/theirs")
		w.create(lb("far", ours, at("203.0.113.17")))
		w.wantVerdict("far", "ServiceAddress", "203.0.113.17 is the load balancer's address of a Service in another namespace")
		// A Service that becomes ours keeps what it shows, if that can be had.
		w.edit("theirs", ours)
		w.untilService("theirs", "203.0.113.16 AddressAssigned")
		must(w, w.kube.CoreV1().Services("bank").Delete(w.ctx, "vault", metav1.DeleteOptions{}))
		w.until("who asks for it, or who waits, gets it", "", func() string {
			if got := tell(w.get("far")) + tell(w.get("full")); !strings.Contains(got, "203.0.113.17 ") {
				return got
			}
			return ""
		})
		// What is ours is no obstacle, whoever has it in the end.
		w.edit("s0", func(s *corev1.Service) {
			class := "example.com/lb"
			s.Spec.LoadBalancerClass = &class
		})
		w.untilService("s0", "")
		list, err := w.herald.VirtualIPs.List(w.ctx, metav1.ListOptions{})
		must(w, err)
		for i := range list.Items {
			vip := &list.Items[i]
			if c := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionUnusable); c != nil {
				t.Errorf("%s: %+v", vip.Name, c)
			}
		}
	})
}
