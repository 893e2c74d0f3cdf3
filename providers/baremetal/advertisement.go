package baremetal

import (
	"fmt"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// advertisement is an Advertisement, parsed.
type advertisement struct {
	name       string
	pools      func(name string, poolLabels map[string]string) bool
	services   labels.Selector
	namespaces labels.Selector
	nodes      labels.Selector
	l2         bool
	interfaces []string
	preferred  []preference
	bgp        bool
	// peers to advertise to, by name; none means all.
	peers    []string
	maxNodes int
}

type preference struct {
	weight int32
	nodes  labels.Selector
}

// parseAdvertisement reads an Advertisement and says what is wrong with it. A
// selector that cannot be read selects nothing. hasPool and hasPeer say
// whether an object of that name exists.
func parseAdvertisement(object *v1alpha1.Advertisement, hasPool, hasPeer func(string) bool) (advertisement, []problem) {
	spec := &object.Spec
	var problems []problem
	parsed := advertisement{name: object.Name, l2: spec.L2 != nil, bgp: spec.BGP != nil}

	byLabels, wrong := parseSelector("spec.poolSelector", spec.PoolSelector)
	problems = append(problems, wrong...)
	parsed.pools = func(name string, poolLabels map[string]string) bool {
		if len(spec.Pools) > 0 {
			return slices.Contains(spec.Pools, name)
		}
		return byLabels.Matches(labels.Set(poolLabels))
	}
	parsed.services, wrong = parseSelector("spec.serviceSelector", spec.ServiceSelector)
	problems = append(problems, wrong...)
	parsed.namespaces, wrong = parseSelector("spec.namespaceSelector", spec.NamespaceSelector)
	problems = append(problems, wrong...)
	parsed.nodes, wrong = parseSelector("spec.nodeSelector", spec.NodeSelector)
	problems = append(problems, wrong...)

	for _, name := range spec.Pools {
		if !hasPool(name) {
			problems = append(problems, problem{v1alpha1.UnknownPool, fmt.Sprintf("spec.pools names %q, and there is no such AddressPool.", name)})
		}
	}
	problems = append(problems, parsed.parseL2(spec.L2)...)
	if spec.BGP != nil {
		parsed.peers, parsed.maxNodes = spec.BGP.Peers, int(spec.BGP.MaxNodes)
		for _, name := range spec.BGP.Peers {
			if !hasPeer(name) {
				problems = append(problems, problem{v1alpha1.UnknownPeer, fmt.Sprintf("spec.bgp.peers names %q, and there is no such BGPPeer.", name)})
			}
		}
	}
	return parsed, problems
}

func (a *advertisement) parseL2(l2 *v1alpha1.L2Advertisement) []problem {
	if l2 == nil {
		return nil
	}
	var problems []problem
	for _, pattern := range l2.Interfaces {
		if _, err := path.Match(pattern, ""); err != nil {
			problems = append(problems, problem{v1alpha1.InvalidInterface, fmt.Sprintf("spec.l2.interfaces has %q, which is no pattern: want a name such as eth0, or bond*.", pattern)})
		}
		// Kept also when broken: it matches no interface, and without it the
		// Advertisement would stand for all of them.
		a.interfaces = append(a.interfaces, pattern)
	}
	for i := range l2.PreferredNodes {
		nodes, wrong := parseSelector(fmt.Sprintf("spec.l2.preferredNodes[%d].nodeSelector", i), &l2.PreferredNodes[i].NodeSelector)
		problems = append(problems, wrong...)
		a.preferred = append(a.preferred, preference{l2.PreferredNodes[i].Weight, nodes})
	}
	return problems
}

// everywhere stands for the Advertisement of a pool that has none: L2 from
// every node.
var everywhere = advertisement{
	pools:    func(string, map[string]string) bool { return true },
	services: labels.Everything(), namespaces: labels.Everything(), nodes: labels.Everything(),
	l2: true,
}

// tenant is a Service on an address, with what placement asks of it.
type tenant struct {
	labels          map[string]string
	namespaceLabels map[string]string
	local           bool
	// serving says where endpoints can serve the Service on the address.
	serving serving
	// affine says that its sessionAffinity is ClientIP.
	affine bool
	// open says that the Service's source ranges let everybody in over the
	// family of the address, proxied that it has the address with ipMode Proxy.
	open, proxied bool
}

// applying are the Advertisements for an address of the pool with these
// Services, without Services all of the pool. A pool that no Advertisement
// selects has the default one.
func applying(all []advertisement, pool string, poolLabels map[string]string, tenants []tenant) []advertisement {
	selected := false
	var apply []advertisement
	for _, a := range all {
		if !a.pools(pool, poolLabels) {
			continue
		}
		selected = true
		matches := len(tenants) == 0 || slices.ContainsFunc(tenants, func(t tenant) bool {
			return a.services.Matches(labels.Set(t.labels)) && a.namespaces.Matches(labels.Set(t.namespaceLabels))
		})
		if matches {
			apply = append(apply, a)
		}
	}
	if !selected {
		return []advertisement{everywhere}
	}
	return apply
}

// weigh says whether an L2 Advertisement selects the node, and how much weight
// they give it.
func weigh(advertisements []advertisement, node *corev1.Node) (weight int32, selected bool) {
	for _, a := range advertisements {
		if !a.l2 || !a.nodes.Matches(labels.Set(node.Labels)) {
			continue
		}
		selected = true
		for _, p := range a.preferred {
			if p.nodes.Matches(labels.Set(node.Labels)) {
				weight += p.weight
			}
		}
	}
	return weight, selected
}
