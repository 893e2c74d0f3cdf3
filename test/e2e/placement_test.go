package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

// unaskable keeps the speaker of a node from asking a health check node port there, until the returned function is called.
func (w *world) unaskable(node string, port int) (askable func()) {
	w.Helper()
	table := fmt.Sprintf("e2e-%d", port)
	_, err := box.Exec(w.ctx, node, "nft", fmt.Sprintf(
		"add table inet %[1]s; add chain inet %[1]s in { type filter hook input priority -300; }; add rule inet %[1]s in tcp dport %[2]d reject with tcp reset", table, port))
	w.must(err)
	askable = func() {
		_, _ = box.Exec(w.ctx, node, "nft", "delete", "table", "inet", table)
	}
	w.Cleanup(askable)
	return askable
}

// ownedWithin waits for a node to own an address, for so long at most after the test begins to wait.
func (w *world) ownedWithin(addr netip.Addr, node string, span time.Duration) {
	w.Helper()
	start := time.Now()
	w.eventually(fmt.Sprintf("%s belongs to %s", addr, node), func() error {
		if owner := w.owner(addr); owner != node {
			return fmt.Errorf("the owner is %q", owner)
		}
		return nil
	})
	if took := time.Since(start); took > span {
		w.Errorf("%s belongs to %s after %s: want %s at most", addr, node, took, span)
	}
}

func TestCandidatesThatCannotServeALocalServiceAreSkipped(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	const port, services = 30991, 3
	healed := map[string]func(){}
	for _, node := range []string{"node1", "node2"} {
		for i := range services {
			askable := w.unaskable(node, port+i)
			healed[fmt.Sprint(node, i)] = askable
		}
	}
	// With three addresses some other node is the first candidate of one.
	for i := range services {
		w.service(fmt.Sprintf("web-%d", i), all(local, func(s *corev1.Service) {
			s.Spec.Selector = map[string]string{"app": "web"}
			s.Spec.HealthCheckNodePort = int32(port + i)
		}))
	}
	for i := range services {
		addr := w.address(fmt.Sprintf("web-%d", i))
		w.ownedWithin(addr, "node3", 6*time.Second)
		if err := has(w.reachable(addr), "node=node3"); err != nil {
			t.Error(err)
		}
	}
	// The owner cannot be asked any more, and another node can.
	addr := w.address("web-0")
	healed["node10"]()
	w.unaskable("node3", port)
	w.ownedWithin(addr, "node1", 10*time.Second)
}

// slice makes an EndpointSlice of a Service without a selector, for the addresses of a pod in one family.
func (w *world) slice(service string, pod sandbox.Pod, family discoveryv1.AddressType, port string) {
	w.Helper()
	number, tcp, addr := int32(sandbox.DefaultPodPort), corev1.ProtocolTCP, pod.IPv4
	if family == discoveryv1.AddressTypeIPv6 {
		addr = pod.IPv6
	}
	_, err := kube.DiscoveryV1().EndpointSlices(w.namespace).Create(w.ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{GenerateName: service + "-", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: family,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{addr.String()}, NodeName: &pod.Node}},
		Ports:       []discoveryv1.EndpointPort{{Name: &port, Port: &number, Protocol: &tcp}},
	}, metav1.CreateOptions{})
	w.must(err)
}

// held waits until an address is held for a reason, and nobody answers for it.
func (w *world) held(addr netip.Addr, reason v1alpha1.Reason) {
	w.Helper()
	w.eventually(fmt.Sprintf("%s is held: %s", addr, reason), func() error {
		vip := w.virtualIP(addr)
		if vip.Spec.Hold != reason || vip.Status.Owner != "" {
			return fmt.Errorf("hold %q, owner %q", vip.Spec.Hold, vip.Status.Owner)
		}
		return nil
	})
	w.silent(addr)
}

func TestEndpointsOfOneFamilyDoNotServeTheOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	pod, err := box.AddPod(w.ctx, sandbox.Pod{Namespace: w.namespace, Name: "db", Node: "node2"})
	w.must(err)
	unselected := func(s *corev1.Service) { s.Spec.Selector = nil }
	for name, policy := range map[string]func(*corev1.Service){"cluster": func(*corev1.Service) {}, "local": local} {
		w.service(name, all(policy, unselected, families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol)))
		w.slice(name, pod, discoveryv1.AddressTypeIPv4, "http")
		addresses := w.addresses(name, 2)
		w.reachable(addresses[0])
		w.held(addresses[1], v1alpha1.NoReadyEndpoints)
		w.slice(name, pod, discoveryv1.AddressTypeIPv6, "http")
		w.reachable(addresses[1])
	}
	// Endpoints that have not the Service's port do not serve it either.
	w.service("port", unselected)
	w.slice("port", pod, discoveryv1.AddressTypeIPv4, "metrics")
	addr := w.address("port")
	w.held(addr, v1alpha1.NoReadyEndpoints)
	w.slice("port", pod, discoveryv1.AddressTypeIPv4, "http")
	w.reachable(addr)
}

func TestLastEndpointThatTerminatesIsRoutedToUntilItIsGone(t *testing.T) {
	w := newRoutedWorld(t)
	w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", nil)
	w.dualPool()
	w.advertise("fabric", nil)
	v4, _ := w.routedService("web", local, "node2")
	w.established(peer, box.Nodes()...)
	w.lastEndpoint(v4, "web", "node2", "node3")
}

// kube-proxy filters per family, and without a range of the family it lets everybody in.
func TestSourceRangesOfOneFamilyDoNotLeaveTheOtherOpen(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	v4, v6 := box.Addrs("client")
	only4, only6 := v4.String()+"/32", v6.String()+"/128"
	ranges := func(ranges ...string) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Selector, s.Spec.LoadBalancerSourceRanges = map[string]string{"app": "web"}, ranges
		}
	}
	both := []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
	require, prefer := families(corev1.IPFamilyPolicyRequireDualStack, both...), families(corev1.IPFamilyPolicyPreferDualStack, both...)
	old := annotated(corev1.AnnotationLoadBalancerSourceRangesKey, only4)
	for name, c := range map[string]struct {
		edit func(*corev1.Service)
		word string
	}{
		"require":     {all(ranges(only4), require), "::/0"},
		"require-six": {all(ranges(only6), require), "0.0.0.0/0"},
		"single":      {all(ranges(only4), families(corev1.IPFamilyPolicySingleStack, corev1.IPv6Protocol)), "::/0"},
		"annotation":  {all(ranges(), require, old), "::/0"},
	} {
		w.service(name, c.edit)
		w.refused(name, v1alpha1.SourceRangesIncomplete, c.word)
		if got := shown(w.get(name)); len(got) != 0 {
			t.Errorf("%s has %v", name, got)
		}
	}
	w.service("prefer", all(ranges(only4), prefer))
	w.reachable(w.address("prefer"))
	w.eventually("the condition tells of the family that is missing", func() error {
		c := ready(w.get("prefer"))
		if c == nil || c.Reason != string(v1alpha1.AddressPartial) {
			return fmt.Errorf("condition %+v", c)
		}
		return has(c.Message, "IPv6", "::/0")
	})
	w.edit("prefer", ranges(only4, "::/0"))
	w.addresses("prefer", 2)

	// An edit of a live Service stops the announcement, and the next one heals it.
	w.service("live", all(ranges(only4, only6), require))
	for _, name := range []string{"live", "prefer"} {
		w.edit(name, ranges(only4, only6))
		addresses := w.addresses(name, 2)
		w.reachable(addresses[1])
		w.edit(name, ranges(only4))
		w.held(addresses[1], v1alpha1.SourceRangesIncomplete)
		if name == "prefer" {
			w.says(name, metav1.ConditionTrue, v1alpha1.AddressPartial, "IPv6", "::/0")
		} else {
			w.says(name, metav1.ConditionFalse, v1alpha1.SourceRangesIncomplete, "IPv6", "::/0")
		}
		w.reachable(addresses[0])
		if got := shown(w.get(name)); !slices.Equal(got, addresses) {
			t.Errorf("%s has %v, want %v", name, got, addresses)
		}
		w.edit(name, ranges(only4, only6))
		w.reachable(addresses[1])
	}

	// A guest that leaves a family open is closed, and the holder of the address is not.
	shares := annotated("heraldlb.io/share", "k")
	w.service("holder", all(ranges(), require, shares))
	holds := w.addresses("holder", 2)
	w.service("guest", all(ranges(), prefer, shares, func(s *corev1.Service) { s.Spec.Ports[0].Port = 81 }))
	w.eventually("the guest has the holder's addresses", func() error {
		if got := shown(w.get("guest")); !slices.Equal(got, holds) {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
	ask := func(addr netip.Addr) error { _, err := request(w.ctx, "client", addr, 81); return err }
	w.eventually("the guest answers", func() error { return ask(holds[1]) })
	w.edit("guest", ranges(only4))
	w.says("guest", metav1.ConditionTrue, v1alpha1.AddressPartial, "IPv6", "::/0")
	w.eventually("the guest is closed over IPv6", func() error {
		if ask(holds[1]) == nil {
			return errors.New("it answers")
		}
		return ask(holds[0])
	})
	w.reachable(holds[1])
	w.edit("guest", ranges(only4, only6))
	w.eventually("the guest answers again", func() error { return ask(holds[1]) })
}

// steady checks for some time that each request is answered by the pod.
func (w *world) steady(addr netip.Addr, pod string, span time.Duration) {
	w.Helper()
	w.always(fmt.Sprintf("%s answers at %s", pod, addr), span, func() error {
		answer, err := requestWithin(w.ctx, 2*time.Second, "client", addr, 80)
		if err != nil {
			return err
		}
		return has(answer, "pod="+pod)
	})
}

// lastEndpoint has the only pod of a Service of policy Local terminate: its node goes on until another pod is ready, or it is gone.
func (w *world) lastEndpoint(addr netip.Addr, app, node, next string) {
	w.Helper()
	w.reachable(addr)
	w.must(box.TerminatePod(w.ctx, w.namespace, app+"-"+node))
	w.steady(addr, app+"-"+node, 8*time.Second)
	w.pod(app, next)
	w.eventually("the ready pod answers", func() error {
		answer, err := requestWithin(w.ctx, 2*time.Second, "client", addr, 80)
		if err != nil {
			return err
		}
		return has(answer, "pod="+app+"-"+next)
	})
	w.must(box.DeletePod(w.ctx, w.namespace, app+"-"+node))
	w.steady(addr, app+"-"+next, 2*time.Second)
	// The last one goes for good.
	w.must(box.TerminatePod(w.ctx, w.namespace, app+"-"+next))
	w.steady(addr, app+"-"+next, 4*time.Second)
	w.must(box.DeletePod(w.ctx, w.namespace, app+"-"+next))
	w.eventually("the address is held", func() error {
		if vip := w.virtualIP(addr); vip.Spec.Hold != v1alpha1.NoReadyEndpoints || vip.Spec.TerminatingNodes != nil {
			return fmt.Errorf("hold %q, terminating on %v", vip.Spec.Hold, vip.Spec.TerminatingNodes)
		}
		return nil
	})
}

func TestLastEndpointThatTerminatesIsServedUntilItIsGone(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node2")
	w.service("web", local)
	w.lastEndpoint(w.address("web"), "web", "node2", "node3")
}

// candidatesWithin waits until all candidates of an address are among the nodes.
func (w *world) candidatesWithin(addr netip.Addr, nodes ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("candidates of %s are among %v", addr, nodes), func() error {
		vip := w.virtualIP(addr)
		if vip.Spec.L2 == nil || len(vip.Spec.L2.Candidates) != len(nodes) {
			return fmt.Errorf("placed %+v", vip.Spec.L2)
		}
		for _, name := range vip.Spec.L2.Candidates {
			if !slices.Contains(nodes, name) {
				return fmt.Errorf("candidates %v", vip.Spec.L2.Candidates)
			}
		}
		return nil
	})
}

// Only nodes that have the prefix of an address on a link announce it; the hosts of that link find it nowhere else.
func TestOnlyNodesOnTheLANOfAnAddressAnnounceIt(t *testing.T) {
	w := newWorld(t)
	const services = 4
	w.pool("segment", nil, "100.65.0.200/29", "2001:db8:65::200/125")
	w.dualPool()
	w.pods("web", box.Nodes()...)
	web := func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} }
	dual := families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol)
	for i := range services {
		w.service(fmt.Sprintf("web-%d", i), all(web, dual, annotated("heraldlb.io/pool", w.namespace+"-segment")))
	}
	var addrs []netip.Addr
	for i := range services {
		addrs = append(addrs, w.addresses(fmt.Sprintf("web-%d", i), 2)...)
	}
	poolSays := func(pool string, off bool) {
		w.Helper()
		w.eventually(fmt.Sprintf("pool %s is off link: %t", pool, off), func() error {
			object, err := herald.AddressPools.Get(w.ctx, w.namespace+"-"+pool, metav1.GetOptions{})
			w.must(err)
			condition := meta.FindStatusCondition(object.Status.Conditions, v1alpha1.ConditionReady)
			if condition == nil || condition.Status != metav1.ConditionTrue || (has(condition.Message, "None is on a link of a node") == nil) != off {
				return fmt.Errorf("condition %+v", condition)
			}
			return nil
		})
	}
	// No node is on that LAN: told, and announced all the same.
	poolSays("segment", true)
	for _, addr := range addrs {
		w.owner(addr)
	}
	w.says("web-0", metav1.ConditionTrue, v1alpha1.AddressAssigned, "is on no link of a node")

	// Two nodes come to it: their addresses move there, and the client on that LAN is served.
	hosts := []string{"node2", "node3", "client"}
	w.must(box.AddSegment(w.ctx, hosts...))
	w.Cleanup(func() { w.must(box.RemoveSegment(context.Background(), hosts...)) })
	poolSays("segment", false)
	poolSays("dual", true)
	for _, addr := range addrs {
		w.candidatesWithin(addr, "node2", "node3")
		w.eventually("the client is served at "+addr.String(), func() error {
			if owner := w.virtualIP(addr).Status.Owner; owner != "node2" && owner != "node3" {
				return fmt.Errorf("the owner is %q", owner)
			}
			_, err := requestWithin(w.ctx, 2*time.Second, "client", addr, 80)
			return err
		})
	}
	w.says("web-0", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	if message := ready(w.get("web-0")).Message; has(message, "on no link") == nil {
		t.Errorf("the Service still says %q", message)
	}

	// One of them leaves that LAN: the other one has all, and keeps all when it is back.
	_, err := box.Exec(w.ctx, "node2", "ip", "addr", "flush", "dev", "eth1", "scope", "global")
	w.must(err)
	for _, addr := range addrs {
		w.candidatesWithin(addr, "node3")
		w.ownedWithin(addr, "node3", patience)
		w.eventually("the client is served at "+addr.String(), func() error {
			_, err := requestWithin(w.ctx, 2*time.Second, "client", addr, 80)
			return err
		})
	}
	for _, prefix := range []string{"100.65.0.250/24", "2001:db8:65::250/64"} {
		_, err := box.Exec(w.ctx, "node2", "ip", "addr", "add", prefix, "dev", "eth1", "nodad")
		w.must(err)
	}
	for _, addr := range addrs {
		w.candidatesWithin(addr, "node3", "node2")
		if owner := w.owner(addr); owner != "node3" {
			t.Errorf("%s moved to %s when that was back", addr, owner)
		}
	}

	// An Advertisement that names nodes knows better, and takes nothing from who is served.
	w.pool("named", nil, "100.65.0.216/32")
	advert := &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-named"},
		Spec: v1alpha1.AdvertisementSpec{
			Pools: []string{w.namespace + "-named"}, NodeSelector: onNodes("node1"), L2: &v1alpha1.L2Advertisement{},
		},
	}
	_, err = herald.Advertisements.Create(w.ctx, advert, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.dropAdvertisement(advert.Name) })
	w.service("named", all(web, annotated("heraldlb.io/pool", w.namespace+"-named")))
	w.candidatesWithin(w.address("named"), "node1")
}

// A client comes back to its pod, also by BGP: one node advertises the address, and hands over before it lets go.
func TestSessionAffinityByBGPIsOneNodes(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		nodes := box.Nodes()
		scene, router := w.routedTo(restarts, nil, nodes...)
		router.has(host(scene.Addr), from("path 64512", nodes...))
		_, err := box.Exec(w.ctx, "router", "sysctl", "-w", "net.ipv4.fib_multipath_hash_policy=1")
		w.must(err)
		w.eventually("without affinity the answers are of several pods", func() error {
			if pods := w.answers(scene.Addr, 30); len(pods) < 2 {
				return fmt.Errorf("answers %v", pods)
			}
			return nil
		})
		// The affinity of a live Service takes nothing from its clients.
		r := w.beginRouted(scene)
		w.edit("web", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP })
		alone := func(not string) (node string) {
			w.Helper()
			w.eventually("one node advertises, and the Service says which", func() error {
				paths := router.paths(host(scene.Addr))
				if len(paths) != 1 || paths[not] != "" {
					return fmt.Errorf("paths %v", paths)
				}
				for node = range paths {
				}
				return has(ready(w.get("web")).Message, "from node "+node+" alone", "sessionAffinity is ClientIP")
			})
			return node
		}
		first := alone("")
		r.settle(first)
		undisturbed(t, r.end())
		one := w.answers(scene.Addr, 10)
		if len(one) != 1 {
			t.Errorf("ten requests of one client were answered by %v", one)
		}
		for pod := range one {
			if again := w.answers(scene.Addr, 10); again[pod] != 10 {
				t.Errorf("then by %v, not %s", again, pod)
			}
		}
		// A node that is drained hands over first.
		r = w.beginRouted(scene)
		w.must(scene.Cordon(w.ctx, first, true))
		next := alone(first)
		r.settle(next)
		undisturbed(t, r.end())
		w.must(scene.Cordon(w.ctx, first, false))
		w.always("it stays", 3*time.Second, func() error {
			if paths := router.paths(host(scene.Addr)); len(paths) != 1 || paths[next] == "" {
				return fmt.Errorf("paths %v", paths)
			}
			return nil
		})
		// Without affinity all advertise again.
		w.edit("web", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityNone })
		router.has(host(scene.Addr), from("path 64512", nodes...))
	})
}

// Single nodes and control planes often have the label that takes them out: the Service says so, and what to do.
func TestServiceSaysThatAllNodesAreExcluded(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", nil)
	w.dualPool()
	w.advertise("a", nil)
	w.pool("lan", nil, fmt.Sprintf("198.18.%d.0/28", w.v4.Addr().As4()[2]))
	v4, v6 := w.routedService("web", annotated("heraldlb.io/pool", w.namespace+"-dual"), nodes...)
	w.service("near", all(func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} }, annotated("heraldlb.io/pool", w.namespace+"-lan")))
	w.established(peer, nodes...)
	router.has(host(v4), from("path 64512", nodes...))
	w.reachable(w.address("near"))
	exclude := func(value string) {
		for _, node := range nodes {
			patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, corev1.LabelNodeExcludeBalancers, value)
			_, err := kube.CoreV1().Nodes().Patch(context.Background(), node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			w.must(err)
		}
	}
	w.Cleanup(func() { exclude("null") })
	exclude(`""`)
	for _, name := range []string{"web", "near"} {
		w.says(name, metav1.ConditionFalse, v1alpha1.NoCandidates, "NodeExcluded: node1, node2, node3", "without the label "+corev1.LabelNodeExcludeBalancers)
	}
	router.has(host(v6), map[string]string{})
	w.silent(w.address("near"))
	exclude("null")
	for _, name := range []string{"web", "near"} {
		w.eventually(name+" is Ready again", func() error {
			if c := ready(w.get(name)); c == nil || c.Status != metav1.ConditionTrue {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}
	router.has(host(v4), from("path 64512", nodes...))
	w.reachable(w.address("near"))
}

// answersAll has the foreign host answer for all of this test's addresses: as an NDP proxy, and by ARP. Proxy ARP as Linux does
// it is silent on probes (RFC 5227), other routers' is not: so all addresses are local.
func (w *world) answersAll(sixes netip.Prefix) (mac string, silence func()) {
	w.Helper()
	set := func(on int, verb string) string {
		return fmt.Sprintf("sysctl -qw net.ipv4.conf.eth0.proxy_arp=%[1]d net.ipv6.conf.eth0.proxy_ndp=%[1]d; ip route %[2]s local %[3]s dev lo", on, verb, w.v4)
	}
	commands := []string{
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.neigh.eth0.proxy_delay=0 net.ipv6.neigh.eth0.proxy_delay=0",
		set(1, "add"),
	}
	for addr := sixes.Addr(); sixes.Contains(addr); addr = addr.Next() {
		commands = append(commands, fmt.Sprintf("ip -6 neigh add proxy %s dev eth0", addr))
	}
	w.Cleanup(func() {
		_, err := box.Exec(context.Background(), foreign, "sh", "-c", set(0, "flush")+"; ip -6 neigh flush proxy")
		w.must(err)
	})
	_, err := box.Exec(w.ctx, foreign, "sh", "-ec", strings.Join(commands, "\n"))
	w.must(err)
	own, err := box.MAC(foreign)
	w.must(err)
	return own.String(), func() {
		_, err := box.Exec(w.ctx, foreign, "sh", "-c", set(0, "del"))
		w.must(err)
	}
}

// A router with proxy ARP burns no pool: a handful of addresses are tried, then Services and the pool say which host answers
// for every address, and all of them are served when it stops.
func TestHostThatAnswersForEveryAddressBurnsNoPool(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		sixes := netip.PrefixFrom(w.v6.Addr(), 122)
		w.pool("dual", nil, w.v4.String(), sixes.String())
		w.pods("web", box.Nodes()...)
		web := all(families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol), func(s *corev1.Service) {
			s.Spec.Selector = map[string]string{"app": "web"}
		})
		w.service("old", web)
		old := w.addresses("old", 2)
		owners := []string{w.owner(old[0]), w.owner(old[1])}
		time.Sleep(time.Second) // what is made in one second is made at once

		mac, silence := w.answersAll(sixes)
		names := []string{"one", "two", "three"}
		for _, name := range names {
			w.service(name, web)
		}
		poolSays := func(status metav1.ConditionStatus, reason v1alpha1.Reason, words ...string) {
			w.Helper()
			w.eventually(fmt.Sprintf("the pool is %s", reason), func() error {
				pool, err := herald.AddressPools.Get(w.ctx, w.namespace+"-dual", metav1.GetOptions{})
				w.must(err)
				c := meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
				if c == nil || c.Status != status || c.Reason != string(reason) {
					return fmt.Errorf("condition %+v", c)
				}
				return has(c.Message, words...)
			})
		}
		for _, name := range names {
			w.says(name, metav1.ConditionFalse, v1alpha1.HostAnswersAll, mac, "proxy ARP?")
		}
		poolSays(metav1.ConditionFalse, v1alpha1.HostAnswersAll, mac)
		few := func() error {
			var four, six int
			for _, vip := range w.virtualIPs() {
				if strings.Contains(vip.Spec.Address, ":") {
					six++
				} else {
					four++
				}
			}
			w.Logf("%d IPv4 and %d IPv6 addresses for four Services", four, six)
			if four > 10 || six > 10 {
				return fmt.Errorf("%d IPv4 and %d IPv6 addresses for four Services", four, six)
			}
			return nil
		}
		w.must(few())
		w.always("nothing moves", 8*time.Second, func() error {
			if got := shown(w.get("old")); !slices.Equal(got, old) {
				return fmt.Errorf("the Service in use has %v, it had %v", got, old)
			}
			for i, addr := range old {
				if owner := w.virtualIP(addr).Status.Owner; owner != owners[i] {
					return fmt.Errorf("%s belongs to %q, it was %s's", addr, owner, owners[i])
				}
			}
			return nil
		})
		w.must(few())

		had := map[string][]netip.Addr{}
		for _, name := range names {
			had[name] = w.addresses(name, 2)
		}
		silence()
		for _, name := range names {
			w.says(name, metav1.ConditionTrue, v1alpha1.AddressAssigned)
			if now := w.addresses(name, 2); !slices.Equal(now, had[name]) {
				t.Errorf("%s has %v, it had %v", name, now, had[name])
			}
			for _, addr := range had[name] {
				w.reachable(addr)
			}
		}
		poolSays(metav1.ConditionTrue, v1alpha1.Valid)
		w.eventually("the other addresses are free", func() error {
			if n := len(w.virtualIPs()); n != 8 {
				return fmt.Errorf("%d VirtualIPs", n)
			}
			return nil
		})
	})
}
