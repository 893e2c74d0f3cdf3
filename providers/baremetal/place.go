package baremetal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// scene is all that the placement of an address depends on.
type scene struct {
	addr netip.Addr
	// current is the order of candidates so far, and limits who advertises so far.
	current []string
	limits  []v1alpha1.BGPLimit
	// owner is the node that has the address by its status.
	owner string
	// pool that the address was given from, with its labels.
	pool       string
	poolLabels map[string]string
	tenants    []tenant
	// unannounced says that the pool has announce: None.
	unannounced bool
	// quarantined says that another host had the address when its last Service
	// left it.
	quarantined    bool
	advertisements []advertisement
	bgpPeers       []bgpPeer
	nodes          []*corev1.Node
	// alive says whether a speaker runs on the node.
	alive func(node string) bool
	// speaks says whether its Lease has not ended, as far as what is told goes,
	// and lost whether the speaker is told lost, and since when; nil is alive, and never.
	speaks func(node string) bool
	lost   func(node string) (since time.Time, lost bool)
	// returning says whether it stopped or started so lately that it may be one
	// that restarts; nil is never.
	returning func(node string) bool
	// speaker is the Speaker of the node, nil if there is none.
	speaker func(node string) *v1alpha1.Speaker
	// links are the prefixes that nodes have on their links, and present reports
	// whether what the speaker of a node said of its links still counts.
	links   []linkPrefix
	present func(node string) bool
	// load is how many addresses each node owns, without this one.
	load map[string]int
}

// placement is where an address may be announced, or why nowhere.
type placement struct {
	hold v1alpha1.Reason
	// terminating are the nodes with the last endpoints, which terminate.
	terminating []string
	l2          *v1alpha1.L2Placement
	bgp         *v1alpha1.BGPPlacement
	// offLink says that no node has the address on a link: it is announced on
	// that of the InternalIPs.
	offLink bool
	// why says in a sentence what stands in the way: of a held address, and of
	// one for BGP alone that no node advertises now.
	why string
	// lost says in a sentence that nobody is known to announce the address, as
	// speakers are lost. heirs says that others may take it over in a moment.
	lost  string
	heirs bool
	// barred says that no node at all may announce an address for BGP alone.
	barred bool
	// routers that an address for BGP alone is advertised to, by name.
	routers []string
}

// byL2 reports whether a node can own the address.
func (p *placement) byL2() bool { return p.l2 != nil && len(p.l2.Candidates) > 0 }

// place decides where an address is announced.
func place(s *scene) placement {
	apply := applying(s.advertisements, s.pool, s.poolLabels, s.tenants)
	if s.unannounced {
		apply = nil
	}
	byL2 := slices.ContainsFunc(apply, func(a advertisement) bool { return a.l2 })
	if len(s.tenants) == 0 && !(s.quarantined && byL2) {
		return placement{hold: v1alpha1.Unclaimed, why: "No Service has the address."}
	}
	if s.unannounced {
		return placement{hold: v1alpha1.AnnounceNone, why: fmt.Sprintf("AddressPool %q has announce: None: somebody else routes the address.", s.pool)}
	}
	p := placement{bgp: s.byBGP(apply), terminating: s.terminatingNodes()}
	if byL2 {
		p.l2 = &v1alpha1.L2Placement{Interfaces: interfaces(apply)}
	}
	if p.l2 == nil && p.bgp == nil {
		p.hold, p.why = v1alpha1.NoCandidates, fmt.Sprintf("No Advertisement of pool %q selects the Service.", s.pool)
		return p
	}
	// Who may own the address is settled also while nobody can serve it: the
	// owner should be the same when the endpoints are back.
	if p.l2 != nil {
		p.l2.Candidates, p.why = s.candidates(apply)
		p.l2.Peers, p.l2.SignedMarks = s.peers(p.l2), s.signed(p.l2)
		p.offLink = s.offLink(apply)
	}
	withheld, why := s.withheld()
	switch {
	case len(s.tenants) == 0:
		// Nobody announces it, and its candidates ask whether it is free.
		p.hold, p.bgp, p.why = v1alpha1.Conflict, nil, "Another host uses the address."
	case withheld != "":
		p.hold, p.why = withheld, why
	case !s.servable():
		p.hold, p.why = v1alpha1.NoReadyEndpoints, "No endpoint is ready."
	case p.l2 != nil && len(p.l2.Candidates) == 0 && p.bgp == nil:
		p.hold = v1alpha1.NoCandidates
	case !p.byL2():
		p.routers, p.why = s.advertised(apply, p.bgp.Limits)
		if why := s.allBarred(); p.why != "" && why != "" {
			p.barred, p.why = true, why
		}
		if p.why != "" && s.mayAdvertise(apply) {
			p.lost = p.why
		}
	default:
		p.why = ""
		p.lost, p.heirs = s.ownerLost(p.l2.Candidates)
	}
	return p
}

// ownerLost says that the owner of an address is lost, or all that could be its
// owner while there is none, and whether others may take it over.
func (s *scene) ownerLost(candidates []string) (why string, heirs bool) {
	if s.lost == nil {
		return "", false
	}
	lost := func(node string) bool {
		_, lost := s.lost(node)
		return lost
	}
	heirs = slices.ContainsFunc(candidates, s.speaks)
	switch {
	case s.owner != "" && lost(s.owner):
		return fmt.Sprintf("The Lease of the speaker on node %s, which announced the address, has ended, and no other node has taken over.", s.owner), heirs
	case s.owner == "" && !heirs && slices.ContainsFunc(candidates, lost):
		return fmt.Sprintf("The Leases of the speakers that could announce the address have ended: %s.", few(candidates)), false
	}
	return "", false
}

// servable says whether any Service on the address has an endpoint.
func (s *scene) servable() bool {
	return slices.ContainsFunc(s.tenants, func(t tenant) bool { return len(t.serving.nodes) > 0 })
}

// terminatingNodes are the nodes that serve all Services of policy Local on the
// address, one of them by endpoints that terminate, while none of it is ready.
func (s *scene) terminatingNodes() []string {
	last := func(t tenant) bool { return t.local && t.serving.terminating }
	if !slices.ContainsFunc(s.tenants, last) {
		return nil
	}
	var names []string
	for _, node := range s.nodes {
		if s.local(node.Name) {
			names = append(names, node.Name)
		}
	}
	slices.Sort(names)
	return names
}

// candidates are the nodes that may own the address, best first, and if there
// are none why not.
func (s *scene) candidates(apply []advertisement) (names []string, why string) {
	linked := s.linked(apply)
	field := s.field(func(node *corev1.Node) (int32, v1alpha1.Reason) {
		weight, selected := weigh(apply, node)
		if !selected {
			return 0, v1alpha1.NotSelected
		}
		reason := unfit(node)
		if reason == "" && linked != nil && !linked[node.Name] && !s.unheard(node.Name) {
			reason = v1alpha1.NotOnLink
		}
		return weight, reason
	}, nil)
	contenders := field.contenders()
	if len(contenders) == 0 {
		return field.kept(s.current), noNode(field.no)
	}
	return lead(s.owner, s.current, rank(s.addr.String(), s.current, contenders, s.load, Candidates)), ""
}

// noNode says why no node can announce an address, and what to do about the
// label that single nodes and control planes often have.
func noNode(no map[v1alpha1.Reason][]string) string {
	why := "No node can announce the address: " + list(no) + "."
	if len(no[v1alpha1.NodeExcluded]) > 0 {
		why += " A node takes part again without the label " + corev1.LabelNodeExcludeBalancers + "."
	}
	return why
}

// allBarred says why no node at all may announce anything, empty if some may.
func (s *scene) allBarred() string {
	no := map[v1alpha1.Reason][]string{}
	for _, node := range s.nodes {
		reason := v1alpha1.NodeBarred(node)
		if reason == "" {
			return ""
		}
		no[reason] = append(no[reason], node.Name)
	}
	return noNode(no)
}

// field is who could have an address, and who could not and why.
type field struct {
	open, cordoned, asleep []contender
	// staying are those of the asleep that lose nothing for it.
	staying []contender
	no      map[v1alpha1.Reason][]string
}

// field sorts out the nodes; judge gives the weight of a node, or says why it
// is out of the question; stays says whether one without a speaker has what it
// had all the same, nil is none.
func (s *scene) field(judge func(*corev1.Node) (weight int32, reason v1alpha1.Reason), stays func(*corev1.Node) bool) field {
	f := field{no: map[v1alpha1.Reason][]string{}}
	for _, node := range s.nodes {
		weight, reason := judge(node)
		if reason == "" && !s.local(node.Name) {
			reason = v1alpha1.NoLocalEndpoint
		}
		if reason == "" && !s.alive(node.Name) {
			f.asleep = append(f.asleep, contender{node.Name, weight})
			if stays != nil && stays(node) {
				f.staying = append(f.staying, contender{node.Name, weight})
				continue
			}
			reason = v1alpha1.NoSpeaker
		}
		if reason == "" && node.Spec.Unschedulable {
			f.cordoned = append(f.cordoned, contender{node.Name, weight})
			reason = v1alpha1.NodeCordoned
		}
		if reason != "" {
			f.no[reason] = append(f.no[reason], node.Name)
			continue
		}
		f.open = append(f.open, contender{node.Name, weight})
	}
	return f
}

// contenders are the nodes that may have the address. Cordoned nodes serve as
// long as there is no other.
func (f *field) contenders() []contender {
	if len(f.open) == 0 {
		return f.cordoned
	}
	return f.open
}

// kept is what stays of a list when there is no contender. Not one speaker
// seems to live: more likely they cannot be seen from here. The list stays, and
// whoever does live goes on.
func (f *field) kept(current []string) []string {
	return slices.DeleteFunc(slices.Clone(current), func(name string) bool { return !has(f.asleep, name) })
}

func has(contenders []contender, name string) bool {
	return slices.ContainsFunc(contenders, func(c contender) bool { return c.name == name })
}

// local says whether the node can serve every Service of policy Local. While
// no node can, all may own the address: it is held anyway.
func (s *scene) local(node string) bool {
	for _, t := range s.tenants {
		if t.local && len(t.serving.nodes) > 0 && !t.serving.nodes[node] {
			return false
		}
	}
	return true
}

// list tells reasons and nodes in a fixed order, few enough to read.
func list(no map[v1alpha1.Reason][]string) string {
	var words []string
	for reason, nodes := range no {
		words = append(words, fmt.Sprintf("%s: %s", reason, few(nodes)))
	}
	if len(words) == 0 {
		return "there is no node"
	}
	slices.Sort(words)
	return strings.Join(words, "; ")
}

// few tells nodes in order, few enough to read.
func few(nodes []string) string {
	nodes = slices.Sorted(slices.Values(nodes))
	more := ""
	if n := len(nodes) - 5; n > 0 {
		nodes, more = nodes[:5], fmt.Sprintf(" and %d more", n)
	}
	return strings.Join(nodes, ", ") + more
}

// interfaces are those of all L2 Advertisements together. One that names none
// stands for the default, which covers the others.
func interfaces(apply []advertisement) []string {
	var all []string
	for _, a := range apply {
		if a.l2 && len(a.interfaces) == 0 {
			return nil
		}
		all = append(all, a.interfaces...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
