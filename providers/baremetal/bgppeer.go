package baremetal

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// stateEstablished is the last state of a session (RFC 4271, section 8.2.2).
const stateEstablished = "Established"

// bgpPeer is a BGPPeer, parsed.
type bgpPeer struct {
	name  string
	nodes labels.Selector
}

// parsePeer reads a BGPPeer, as far as it is the controller's affair.
func parsePeer(object *v1alpha1.BGPPeer) bgpPeer {
	nodes, _ := parseSelector("spec.nodeSelector", object.Spec.NodeSelector)
	return bgpPeer{object.Name, nodes}
}

// peerChanged has looked at what depends on a BGPPeer.
func (p *Provider) peerChanged(before, after *v1alpha1.BGPPeer) {
	if before != nil && after != nil && before.Generation == after.Generation {
		return
	}
	if before != nil && after != nil && equality.Semantic.DeepEqual(before.Spec.NodeSelector, after.Spec.NodeSelector) {
		return
	}
	p.advertisementChanged(nil, nil)
}

// sessionsChanged has looked at what depends on the sessions of a speaker. What
// happens in short order is gathered.
func (p *Provider) sessionsChanged(before, after *v1alpha1.SpeakerStatus) {
	if offers(before) == offers(after) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for addr, vip := range p.ledger.vips {
		if byBGPAlone(vip) {
			p.places.AddAfter(addr, statusDelay)
		}
	}
}

// offers is what a speaker has to advertise addresses by, to be compared.
func offers(s *v1alpha1.SpeakerStatus) string {
	var words []string
	for i := range s.BGP {
		if session := &s.BGP[i]; session.State == stateEstablished {
			families := slices.Sorted(slices.Values(session.Families))
			words = append(words, session.Peer+" "+strings.Join(families, " "))
		}
	}
	slices.Sort(words)
	if meta.IsStatusConditionFalse(s.Conditions, v1alpha1.ConditionServiceProxyHealthy) {
		words = append(words, "not healthy")
	}
	return strings.Join(words, ",")
}
