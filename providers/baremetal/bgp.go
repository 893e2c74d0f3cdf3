package baremetal

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// byBGP is how the address is advertised by BGP, nil if it is not.
func (s *scene) byBGP(apply []advertisement) *v1alpha1.BGPPlacement {
	var placed v1alpha1.BGPPlacement
	affine := s.affine()
	for i := range apply {
		a := &apply[i]
		if !a.bgp {
			continue
		}
		placed.Advertisements = append(placed.Advertisements, a.name)
		if a.maxNodes > 0 && !affine {
			placed.Limits = append(placed.Limits, v1alpha1.BGPLimit{Advertisement: a.name, Nodes: s.limit(a)})
		}
	}
	if affine {
		placed.Limits = s.oneNode(apply)
	}
	if placed.Advertisements == nil {
		return nil
	}
	slices.Sort(placed.Advertisements)
	slices.SortFunc(placed.Limits, func(a, b v1alpha1.BGPLimit) int { return strings.Compare(a.Advertisement, b.Advertisement) })
	return &placed
}

// affine reports whether a Service on the address has sessionAffinity ClientIP. Each node's kube-proxy keeps its own affinity,
// and routers spread connections by ports, too: only if one node has the address, a client comes back to the same endpoint.
func (s *scene) affine() bool {
	return slices.ContainsFunc(s.tenants, func(t tenant) bool { return t.affine })
}

// oneNode limits all Advertisements for BGP to the same node. One that does not select the node is limited to none.
func (s *scene) oneNode(apply []advertisement) []v1alpha1.BGPLimit {
	var limits []v1alpha1.BGPLimit
	may := map[string][]string{} // by Advertisement
	reaches := map[string]bool{}
	for i := range apply {
		a := &apply[i]
		if !a.bgp {
			continue
		}
		may[a.name] = s.mayAdvertiseBy(a, reaches)
		limits = append(limits, v1alpha1.BGPLimit{Advertisement: a.name})
	}
	node := s.chooseOne(may, reaches)
	for i := range limits {
		if slices.Contains(may[limits[i].Advertisement], node) {
			limits[i].Nodes = []string{node}
		}
	}
	slices.SortFunc(limits, func(a, b v1alpha1.BGPLimit) int { return strings.Compare(a.Advertisement, b.Advertisement) })
	return limits
}

// mayAdvertiseBy are the nodes that may advertise the address through an Advertisement. Those that reach a router are added to
// reaches: they have a session, or their routes stay while their speaker restarts.
func (s *scene) mayAdvertiseBy(a *advertisement, reaches map[string]bool) []string {
	field := s.bgpField(a)
	contenders := field.contenders()
	if len(contenders) == 0 {
		return field.kept(limitOf(s.limits, a.name))
	}
	var names []string
	for _, c := range contenders {
		names = append(names, c.name)
		if _, lacks := said(a, ipam.FamilyOf(s.addr), s.speaker(c.name)); lacks == "" {
			reaches[c.name] = true
		}
	}
	for _, c := range field.staying {
		if slices.Contains(limitOf(s.limits, a.name), c.name) {
			names = append(names, c.name)
			reaches[c.name] = true
		}
	}
	return names
}

// chooseOne chooses the node that has an address alone: one that reaches a router before one that does not, then one that
// advertises the address already, then by rendezvous hashing.
func (s *scene) chooseOne(may map[string][]string, reaches map[string]bool) string {
	addr := s.addr.String()
	advertises := func(node string) bool {
		return slices.ContainsFunc(s.limits, func(l v1alpha1.BGPLimit) bool { return slices.Contains(l.Nodes, node) })
	}
	best := ""
	for _, names := range may {
		for _, name := range names {
			better := cmp.Or(compareBool(reaches[name], reaches[best]), compareBool(advertises(name), advertises(best)),
				cmp.Compare(score(addr, name), score(addr, best)), strings.Compare(best, name))
			if best == "" || better > 0 {
				best = name
			}
		}
	}
	return best
}

// limit are the nodes that advertise the address through an Advertisement with
// maxNodes, by name. Who does so already goes on as far as it may, also while
// its speaker restarts and routers keep its routes: if another came into its
// place, each restart would move the paths of connections, and a rolling upgrade
// those of all.
func (s *scene) limit(a *advertisement) []string {
	current := limitOf(s.limits, a.name)
	field := s.bgpField(a)
	contenders := field.contenders()
	if len(contenders) == 0 {
		return field.kept(current)
	}
	for _, c := range field.staying {
		if slices.Contains(current, c.name) {
			contenders = append(slices.Clip(contenders), c)
		}
	}
	// When fewer may than do, it is not the last ones of the alphabet that go.
	addr := s.addr.String()
	best := slices.SortedFunc(slices.Values(current), func(a, b string) int {
		return cmp.Or(cmp.Compare(score(addr, b), score(addr, a)), strings.Compare(a, b))
	})
	nodes := rank(addr, best, contenders, nil, min(a.maxNodes, len(contenders)))
	slices.Sort(nodes)
	return nodes
}

func limitOf(limits []v1alpha1.BGPLimit, advertisement string) []string {
	for i := range limits {
		if limits[i].Advertisement == advertisement {
			return limits[i].Nodes
		}
	}
	return nil
}

// bgpField is who could advertise the address through the Advertisement.
func (s *scene) bgpField(a *advertisement) field {
	return s.field(
		func(node *corev1.Node) (int32, v1alpha1.Reason) { return 0, outOf(a, s.bgpPeers, node) },
		func(node *corev1.Node) bool { return s.keepsRoutes(a, node) },
	)
}

// keepsRoutes says whether the routes of a node are on the routers of an
// Advertisement though its speaker is not there, or not long enough to have its
// sessions again: it restarts, and all of them keep them so long. A node on its
// way out has told them not to.
func (s *scene) keepsRoutes(a *advertisement, node *corev1.Node) bool {
	return s.returning != nil && s.returning(node.Name) && !node.Spec.Unschedulable && !slices.ContainsFunc(s.bgpPeers, func(p bgpPeer) bool {
		return a.to(p.name) && p.nodes.Matches(labels.Set(node.Labels)) && !p.keeps
	})
}

// keepers are the nodes whose routes stay while their speakers restart.
func (s *scene) keepers(a *advertisement) map[string]bool {
	names := map[string]bool{}
	for _, node := range s.nodes {
		names[node.Name] = s.keepsRoutes(a, node)
	}
	return names
}

// outOf says why a node takes no part in an Advertisement, whatever the
// address.
func outOf(a *advertisement, peers []bgpPeer, node *corev1.Node) v1alpha1.Reason {
	if !a.nodes.Matches(labels.Set(node.Labels)) {
		return v1alpha1.NotSelected
	}
	if reason := v1alpha1.NodeBarred(node); reason != "" {
		return reason
	}
	forNode := func(p bgpPeer) bool { return a.to(p.name) && p.nodes.Matches(labels.Set(node.Labels)) }
	if a.bgp && !slices.ContainsFunc(peers, forNode) {
		return v1alpha1.NoPeer
	}
	return ""
}

// to says whether the Advertisement is for the peer.
func (a *advertisement) to(peer string) bool {
	return len(a.peers) == 0 || slices.Contains(a.peers, peer)
}

// participants is how many nodes can take part in an Advertisement now, and
// will go on to.
func participants(a *advertisement, peers []bgpPeer, nodes []*corev1.Node, alive func(string) bool) int32 {
	var n int32
	for _, node := range nodes {
		if outOf(a, peers, node) == "" && alive(node.Name) && !node.Spec.Unschedulable {
			n++
		}
	}
	return n
}

// advertised are the routers that the address is advertised to by BGP, or says
// why there are none, as far as that can be seen in what the speakers say.
func (s *scene) advertised(apply []advertisement, limits []v1alpha1.BGPLimit) (routers []string, why string) {
	told := *s
	if s.speaks != nil {
		told.alive = s.speaks
	}
	taken := map[string]bool{}
	var sentences []string
	for i := range apply {
		a := &apply[i]
		if !a.bgp {
			continue
		}
		advertises, no := told.advertisers(a, limits, taken)
		if !advertises {
			sentences = append(sentences, fmt.Sprintf("No node advertises the address through Advertisement %q: %s.", a.name, list(no)))
		}
	}
	if len(taken) > 0 {
		return slices.Sorted(maps.Keys(taken)), ""
	}
	slices.Sort(sentences)
	return nil, truncate(strings.Join(sentences, " "), 1024)
}

// advertisers adds the routers that nodes advertise the address to through an
// Advertisement, and says why others do not.
func (s *scene) advertisers(a *advertisement, limits []v1alpha1.BGPLimit, taken map[string]bool) (advertises bool, no map[v1alpha1.Reason][]string) {
	field := s.bgpField(a)
	contenders := field.contenders()
	if slices.ContainsFunc(s.tenants, func(t tenant) bool { return t.local }) {
		// There an endpoint on a cordoned node serves until it goes.
		contenders = slices.Concat(field.open, field.cordoned)
	}
	keepers := s.keepers(a)
	for _, c := range slices.Concat(contenders, field.staying) {
		if (a.maxNodes > 0 || s.affine()) && !slices.Contains(limitOf(limits, a.name), c.name) {
			field.no[v1alpha1.OverMaxNodes] = append(field.no[v1alpha1.OverMaxNodes], c.name)
			continue
		}
		peers, reason := said(a, ipam.FamilyOf(s.addr), s.speaker(c.name))
		if reason == v1alpha1.NoSession && keepers[c.name] {
			peers, reason = s.peersOf(a, c.name), ""
		}
		if reason != "" {
			field.no[reason] = append(field.no[reason], c.name)
			continue
		}
		advertises = true
		for _, peer := range peers {
			taken[peer] = true
		}
	}
	if slices.ContainsFunc(field.cordoned, func(c contender) bool { return has(contenders, c.name) }) {
		delete(field.no, v1alpha1.NodeCordoned) // they have another reason by now
	}
	return advertises, field.no
}

// peersOf are the BGPPeers that a node advertises to through an Advertisement.
func (s *scene) peersOf(a *advertisement, node string) (names []string) {
	i := slices.IndexFunc(s.nodes, func(n *corev1.Node) bool { return n.Name == node })
	for _, p := range s.bgpPeers {
		if i >= 0 && a.to(p.name) && p.nodes.Matches(labels.Set(s.nodes[i].Labels)) {
			names = append(names, p.name)
		}
	}
	return names
}

// mayAdvertise reports whether a speaker that is lost may go on to advertise
// the address: it may only be cut off from the API server.
func (s *scene) mayAdvertise(apply []advertisement) bool {
	return s.lost != nil && slices.ContainsFunc(s.nodes, func(node *corev1.Node) bool {
		_, lost := s.lost(node.Name)
		return lost && slices.ContainsFunc(apply, func(a advertisement) bool {
			return a.bgp && outOf(&a, s.bgpPeers, node) == "" && s.local(node.Name)
		})
	})
}

// said are the routers of an Advertisement with which a speaker has sessions for
// the family, or says what it lacks to advertise addresses.
func said(a *advertisement, family ipam.Family, speaker *v1alpha1.Speaker) (peers []string, lacks v1alpha1.Reason) {
	if speaker == nil {
		return nil, v1alpha1.NoSession
	}
	if meta.IsStatusConditionFalse(speaker.Status.Conditions, v1alpha1.ConditionServiceProxyHealthy) {
		return nil, v1alpha1.ProxyNotHealthy
	}
	for i := range speaker.Status.BGP {
		session := &speaker.Status.BGP[i]
		speaks := len(session.Families) == 0 || slices.Contains(session.Families, string(family))
		if session.State == stateEstablished && a.to(session.Peer) && speaks {
			peers = append(peers, session.Peer)
		}
	}
	if len(peers) == 0 {
		return nil, v1alpha1.NoSession
	}
	return peers, ""
}

// byBGPAlone says whether an address is placed for BGP, and no node can own it.
func byBGPAlone(vip *v1alpha1.VirtualIP) bool {
	return vip.Spec.BGP != nil && (vip.Spec.L2 == nil || len(vip.Spec.L2.Candidates) == 0)
}

// announcement is the condition Announced as far as it is the controller's
// affair: of an address that is held, of one whose speakers are lost, and of one
// that is advertised by BGP alone. Speakers say the rest.
func announcement(status *v1alpha1.VirtualIPStatus, p *placement) (metav1.Condition, bool) {
	said := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionAnnounced)
	shown := status.Owner != "" || said != nil && said.Status != metav1.ConditionFalse
	condition := metav1.Condition{Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionFalse, Message: p.why}
	switch {
	case p.hold != "":
		condition.Reason = string(p.hold)
		// An address that nobody has is nobody's to announce: there is nothing to say.
		return condition, shown || p.hold != v1alpha1.Unclaimed && p.hold != v1alpha1.Conflict || p.l2 == nil && (p.bgp != nil || said != nil)
	case p.lost != "":
		condition.Status, condition.Reason, condition.Message = metav1.ConditionUnknown, string(v1alpha1.SpeakerLost), p.lost
	case p.byL2() || p.bgp == nil:
		return condition, false
	case p.barred:
		condition.Reason = string(v1alpha1.NoCandidates)
	case p.why != "":
		condition.Reason = string(v1alpha1.NoSession)
	default:
		condition.Status, condition.Reason = metav1.ConditionTrue, string(v1alpha1.Advertised)
		condition.Message = fmt.Sprintf("Advertised by BGP to %d routers: %s.", len(p.routers), few(p.routers))
		if len(p.routers) == 1 {
			condition.Message = fmt.Sprintf("Advertised by BGP to router %s.", p.routers[0])
		}
	}
	return condition, true
}
