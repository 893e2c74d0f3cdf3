package baremetal

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func node(name string, edits ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: set{}}}
	for _, edit := range edits {
		edit(n)
	}
	return n
}

func labelled(key, value string) func(*corev1.Node) {
	return func(n *corev1.Node) { metav1.SetMetaDataLabel(&n.ObjectMeta, key, value) }
}

func tainted(key string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key}) }
}

func condition(kind corev1.NodeConditionType, status corev1.ConditionStatus) func(*corev1.Node) {
	return func(n *corev1.Node) {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{Type: kind, Status: status})
	}
}

func cordoned(n *corev1.Node) { n.Spec.Unschedulable = true }

func TestUnfit(t *testing.T) {
	now := metav1.Now()
	for _, c := range []struct {
		name string
		node *corev1.Node
		want v1alpha1.Reason
	}{
		{"a plain node", node("n"), ""},
		{"ready", node("n", condition(corev1.NodeReady, "True"), condition(corev1.NodeNetworkUnavailable, "False")), ""},
		{"not ready", node("n", condition(corev1.NodeReady, "False")), v1alpha1.NodeNotReady},
		{"unknown", node("n", condition(corev1.NodeReady, "Unknown")), v1alpha1.NodeNotReady},
		{"no network", node("n", condition(corev1.NodeReady, "True"), condition(corev1.NodeNetworkUnavailable, "True")), v1alpha1.NetworkDown},
		{"out of memory serves on", node("n", condition(corev1.NodeReady, "True"), condition(corev1.NodeMemoryPressure, "True")), ""},
		{"excluded", node("n", labelled(corev1.LabelNodeExcludeBalancers, "")), v1alpha1.NodeExcluded},
		{"excluded: true", node("n", labelled(corev1.LabelNodeExcludeBalancers, "true")), v1alpha1.NodeExcluded},
		{"excluded: false", node("n", labelled(corev1.LabelNodeExcludeBalancers, "false")), ""},
		{"control plane", node("n", labelled("node-role.kubernetes.io/control-plane", ""), tainted("node-role.kubernetes.io/control-plane")), ""},
		{"cordoned can serve", node("n", cordoned, tainted("node.kubernetes.io/unschedulable")), ""},
		{"the autoscaler deletes it", node("n", tainted("ToBeDeletedByClusterAutoscaler")), v1alpha1.NodeBeingDeleted},
		{"Karpenter disrupts it", node("n", tainted("other"), tainted("karpenter.sh/disrupted")), v1alpha1.NodeBeingDeleted},
		{"being deleted", node("n", func(n *corev1.Node) { n.DeletionTimestamp = &now }), v1alpha1.NodeBeingDeleted},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := unfit(c.node); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestServingNodes(t *testing.T) {
	yes, no := new(bool), new(bool)
	*yes = true
	// on is an endpoint on a node: ready, serving, terminating.
	on := func(node string, ready, serving, terminating *bool) discoveryv1.Endpoint {
		e := discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving, Terminating: terminating}}
		if node != "" {
			e.NodeName = &node
		}
		return e
	}
	slice := func(endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return portSlice(discoveryv1.AddressTypeIPv4, endpoints, "")
	}
	web, metrics := corev1.ServicePort{Name: "web", Port: 80}, corev1.ServicePort{Name: "metrics", Port: 9090, Protocol: corev1.ProtocolTCP}
	both := []corev1.ServicePort{web, metrics}
	named := func(endpoint discoveryv1.Endpoint, ports ...string) *discoveryv1.EndpointSlice {
		return portSlice(discoveryv1.AddressTypeIPv4, []discoveryv1.Endpoint{endpoint}, ports...)
	}
	of := func(family discoveryv1.AddressType, endpoints ...discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
		return portSlice(family, endpoints, "")
	}
	for _, c := range []struct {
		name   string
		slices []*discoveryv1.EndpointSlice
		want   map[string]bool
		ports  []corev1.ServicePort
	}{
		{"no slice", nil, map[string]bool{}, nil},
		{"no endpoint", []*discoveryv1.EndpointSlice{slice()}, map[string]bool{}, nil},
		{"ready", []*discoveryv1.EndpointSlice{slice(on("a", yes, yes, no), on("b", yes, nil, nil))}, map[string]bool{"a": true, "b": true}, nil},
		{"nil means ready", []*discoveryv1.EndpointSlice{slice(on("a", nil, nil, nil))}, map[string]bool{"a": true}, nil},
		{"not ready", []*discoveryv1.EndpointSlice{slice(on("a", no, no, no), on("b", no, nil, nil))}, map[string]bool{}, nil},
		{"leaving and serving, beside a ready one", []*discoveryv1.EndpointSlice{slice(on("a", no, yes, yes), on("b", yes, yes, no))}, map[string]bool{"b": true}, nil},
		{"leaving and serving, and no ready one", []*discoveryv1.EndpointSlice{slice(on("a", no, yes, yes)), slice(on("b", no, no, no))}, map[string]bool{"a": true}, nil},
		{"leaving and not serving", []*discoveryv1.EndpointSlice{slice(on("a", no, no, yes))}, map[string]bool{}, nil},
		{"over two slices", []*discoveryv1.EndpointSlice{slice(on("a", yes, yes, no)), slice(on("b", yes, yes, no), on("c", no, yes, yes))}, map[string]bool{"a": true, "b": true}, nil},
		{"on no node", []*discoveryv1.EndpointSlice{slice(on("", yes, yes, no))}, map[string]bool{"": true}, nil},
		{"of the other family", []*discoveryv1.EndpointSlice{of(discoveryv1.AddressTypeIPv6, on("a", yes, yes, no))}, map[string]bool{}, nil},
		{"of both families", []*discoveryv1.EndpointSlice{of(discoveryv1.AddressTypeIPv6, on("a", yes, yes, no)), of(discoveryv1.AddressTypeIPv4, on("b", yes, yes, no))}, map[string]bool{"b": true}, nil},
		{"host names", []*discoveryv1.EndpointSlice{of(discoveryv1.AddressTypeFQDN, on("a", yes, yes, no))}, map[string]bool{}, nil},
		{"leaving, and ready ones of the other family", []*discoveryv1.EndpointSlice{of(discoveryv1.AddressTypeIPv6, on("a", yes, yes, no)), slice(on("b", no, yes, yes))}, map[string]bool{"b": true}, nil},
		{"leaving, and nothing said of serving", []*discoveryv1.EndpointSlice{slice(on("a", no, nil, yes))}, map[string]bool{"a": true}, nil},
		{"another port", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no), "metrics")}, map[string]bool{}, []corev1.ServicePort{web}},
		{"another protocol", []*discoveryv1.EndpointSlice{slice(on("a", yes, yes, no))}, map[string]bool{}, []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolUDP}}},
		{"no ports", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no))}, map[string]bool{}, nil},
		{"both ports on one of the nodes", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no), "web", "metrics"), named(on("b", yes, yes, no), "web")}, map[string]bool{"a": true}, both},
		{"each port on another node", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no), "web"), named(on("b", yes, yes, no), "metrics")}, map[string]bool{"a": true, "b": true}, both},
		{"a port without endpoints", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no), "web"), named(on("b", no, no, no), "metrics")}, map[string]bool{"a": true}, both},
		{"a port with leaving ones only", []*discoveryv1.EndpointSlice{named(on("a", yes, yes, no), "web"), named(on("b", no, yes, yes), "metrics")}, map[string]bool{"a": true}, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.ports == nil {
				c.ports = []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}
			}
			got := servingNodes(c.slices, ipam.IPv4, c.ports)
			if diff := cmp.Diff(c.want, got.nodes); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// portSlice is an EndpointSlice with ports of these names.
func portSlice(family discoveryv1.AddressType, endpoints []discoveryv1.Endpoint, ports ...string) *discoveryv1.EndpointSlice {
	slice, port, tcp := &discoveryv1.EndpointSlice{AddressType: family, Endpoints: endpoints}, int32(8080), corev1.ProtocolTCP
	for _, name := range ports {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &name, Port: &port, Protocol: &tcp})
	}
	return slice
}

func contenders(names ...string) []contender {
	var all []contender
	for _, name := range names {
		all = append(all, contender{name: name})
	}
	return all
}

func nodeNames(n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("node-%d", i)
	}
	return names
}

func without[T comparable](list []T, out T) []T {
	return slices.DeleteFunc(slices.Clone(list), func(t T) bool { return t == out })
}

// address is the n-th of 10.0.0.0/8.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
}

func TestRankKeepsTheOrder(t *testing.T) {
	load := map[string]int{"a": 1000}
	for _, c := range []struct {
		name    string
		current []string
		nodes   []contender
		want    []string
	}{
		{"as it was", []string{"c", "a", "b"}, contenders("a", "b", "c"), []string{"c", "a", "b"}},
		{"whatever the load and preferences say by now", []string{"a", "b", "c"}, []contender{{"a", 0}, {"b", 1}, {"c", 2}, {"d", 100}}, []string{"a", "b", "c"}},
		{"the first has gone", []string{"c", "a", "b"}, contenders("a", "b"), []string{"a", "b"}},
		{"one in the middle has gone", []string{"c", "a", "b"}, contenders("b", "c"), []string{"c", "b"}},
		{"one that comes back is last", []string{"a", "b"}, contenders("a", "b", "c"), []string{"a", "b", "c"}},
		{"a preferred one that comes back is last", []string{"a", "b"}, []contender{{"a", 0}, {"b", 0}, {"c", 100}}, []string{"a", "b", "c"}},
		{"none is left of the order", []string{"x", "y"}, contenders("a"), []string{"a"}},
		{"one twice", []string{"a", "a", "b"}, contenders("a", "b"), []string{"a", "b"}},
		{"more than it should be", []string{"e", "d", "c", "b", "a"}, contenders("a", "b", "c", "d", "e"), []string{"e", "d", "c"}},
		{"nobody", []string{"a"}, nil, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, rank("10.0.0.1", c.current, c.nodes, load, 3)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestLead(t *testing.T) {
	for _, c := range []struct {
		name    string
		owner   string
		current []string
		ranked  []string
		want    []string
	}{
		{"nobody has it yet", "", []string{"a", "b", "c"}, []string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{"the first has it", "a", []string{"a", "b", "c"}, []string{"a", "b", "c"}, []string{"a", "b", "c"}},
		{"the second took over", "b", []string{"a", "b", "c"}, []string{"a", "b", "c"}, []string{"b", "c", "a"}},
		{"the third took over", "c", []string{"a", "b", "c"}, []string{"a", "b", "c"}, []string{"c", "a", "b"}},
		{"the first is gone as well", "b", []string{"a", "b", "c"}, []string{"b", "c"}, []string{"b", "c"}},
		{"and another one came", "c", []string{"a", "b", "c"}, []string{"b", "c", "d"}, []string{"c", "d", "b"}},
		{"its owner may not have it any more", "b", []string{"a", "b", "c"}, []string{"a", "c"}, []string{"a", "c"}},
		{"its last owner comes back", "a", []string{"b", "c"}, []string{"b", "c", "a"}, []string{"b", "c", "a"}},
		{"an owner that nobody knows", "x", []string{"a", "b"}, []string{"a", "b"}, []string{"a", "b"}},
		{"nobody may have it", "a", []string{"a"}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := lead(c.owner, c.current, c.ranked)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if again := lead(c.owner, got, got); !slices.Equal(again, got) && slices.Contains(c.current, c.owner) {
				t.Errorf("then %v: it does not come to rest", again)
			}
		})
	}
}

func TestRankPrefersWeightBeforeBalance(t *testing.T) {
	nodes := []contender{{"a", 10}, {"b", 0}, {"c", 50}, {"d", 0}, {"e", 10}}
	for i := range 200 {
		got := rank(address(i).String(), nil, nodes, map[string]int{"c": 1000, "a": 500}, 3)
		if got[0] != "c" || got[1] != "e" || got[2] != "a" {
			t.Fatalf("%s: %v, want the heavy c, then e, then the full a", address(i), got)
		}
	}
}

// The order of the nodes in the caches is none: it must not matter.
func TestRankIsDeterministic(t *testing.T) {
	nodes := contenders(nodeNames(9)...)
	load := map[string]int{"node-1": 3, "node-4": 50}
	for i := range 100 {
		want := rank(address(i).String(), nil, nodes, load, 3)
		shuffled := slices.Clone(nodes)
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if got := rank(address(i).String(), nil, shuffled, load, 3); !slices.Equal(want, got) {
			t.Fatalf("%s: %v and %v", address(i), want, got)
		}
		if len(want) != 3 || want[0] == want[1] || want[1] == want[2] || want[0] == want[2] {
			t.Fatalf("%s: %v are no three candidates", address(i), want)
		}
	}
}

// cluster places addresses one after the other, as the provider does.
type cluster struct {
	nodes  []string
	orders map[netip.Addr][]string
	load   map[string]int
}

func newCluster(nodes int) *cluster {
	return &cluster{nodes: nodeNames(nodes), orders: map[netip.Addr][]string{}, load: map[string]int{}}
}

func (c *cluster) place(addr netip.Addr) {
	if before := c.orders[addr]; len(before) > 0 {
		c.load[before[0]]--
	}
	c.orders[addr] = rank(addr.String(), c.orders[addr], contenders(c.nodes...), c.load, Candidates)
	c.load[c.orders[addr][0]]++
}

func (c *cluster) most() (load int) {
	for _, n := range c.load {
		load = max(load, n)
	}
	return load
}

func TestRankSpreads(t *testing.T) {
	for _, many := range []struct{ addresses, nodes int }{{3000, 7}, {3000, 3}, {500, 100}, {20, 7}, {1, 5}} {
		c := newCluster(many.nodes)
		for i := range many.addresses {
			c.place(address(i))
		}
		// A quarter above the average, rounded up.
		if most, limit := c.most(), (many.addresses*5+many.nodes*4-1)/(many.nodes*4); most > limit {
			t.Errorf("%d addresses on %d nodes: one owns %d, want at most %d", many.addresses, many.nodes, most, limit)
		}
	}
}

// What a node that goes leaves behind, others take over evenly; nothing else
// moves, and nothing moves back when it returns.
func TestRankMovesOnlyWhatItMust(t *testing.T) {
	const addresses, nodes = 3000, 7
	c := newCluster(nodes)
	for i := range addresses {
		c.place(address(i))
	}
	before := map[netip.Addr][]string{}
	for addr, order := range c.orders {
		before[addr] = order
	}
	const gone = "node-3"
	c.nodes = without(c.nodes, gone)
	for i := range addresses {
		c.place(address(i))
	}
	for addr, order := range c.orders {
		kept := without(before[addr], gone)
		if !slices.Equal(order[:len(kept)], kept) {
			t.Fatalf("%s: %v became %v when %s went", addr, before[addr], order, gone)
		}
	}
	// The second candidates take over: spread by chance alone, yet all of them.
	if most, limit := c.most(), addresses*3/2/(nodes-1); most > limit {
		t.Errorf("after %s went one node owns %d, want at most %d", gone, most, limit)
	}

	without := map[netip.Addr][]string{}
	for addr, order := range c.orders {
		without[addr] = order
	}
	c.nodes = append(c.nodes, gone)
	for i := range addresses {
		c.place(address(i))
	}
	if diff := cmp.Diff(without, c.orders, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("something moved when %s returned: %s", gone, diff)
	}
}
