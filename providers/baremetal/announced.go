package baremetal

import (
	"context"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// word is what is said of the announcement of an address, or of a Service.
type word struct {
	status  metav1.ConditionStatus
	reason  v1alpha1.Reason
	message string
}

// arriving is an address that is about to be announced, as nobody says no.
var arriving = word{metav1.ConditionFalse, v1alpha1.Announcing, "It is about to be announced."}

// Announced implements the service controller's Announcer: what the VirtualIPs
// of the Service say.
func (p *Provider) Announced(service *corev1.Service) (metav1.ConditionStatus, v1alpha1.Reason, string) {
	request, _, refusal := parseRequest(service, p.namespaceLabels(service.Namespace))
	p.mu.Lock()
	defer p.mu.Unlock()
	var vips []*v1alpha1.VirtualIP
	if refusal == nil {
		request.Keeps = p.keeps[request.Key]
		vips = p.servedAt(request)
	}
	if len(vips) == 0 {
		// It is refused what it asks for now, and has what it had.
		key := keyOf(service)
		for _, addr := range p.ledger.allocator.Held(key) {
			if vip := p.ledger.vips[addr]; vip != nil && findClaim(vip, key.Namespace, key.Name) >= 0 {
				vips = append(vips, vip)
			}
		}
	}
	sum := p.wordFor(service, vips, request != nil && request.Partial)
	return sum.status, sum.reason, sum.message
}

// wordFor is what the VirtualIPs say to one of their Services; the caller holds
// the lock. What its source ranges leave open is not announced for it, though
// it may be for others on the address. A Service that can do without a family
// is as well announced as the rest of it.
func (p *Provider) wordFor(service *corev1.Service, vips []*v1alpha1.VirtualIP, partial bool) word {
	var words, open []word
	for _, vip := range vips {
		addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
		switch {
		case err != nil || !leavesOpen(service, ipam.FamilyOf(addr)):
			words = append(words, p.wordOf(vip))
		case vip.Spec.Hold != "" || blocked(vip):
			open = append(open, p.wordOf(vip))
		default:
			no := openRefusal([]ipam.Family{ipam.FamilyOf(addr)})
			open = append(open, word{metav1.ConditionFalse, no.Reason, fmt.Sprintf("%s is not announced for this Service. %s", vip.Spec.Address, no.Message)})
		}
	}
	if !partial || len(words) == 0 {
		return sumUp(append(words, open...))
	}
	sum := sumUp(words)
	for _, w := range open {
		if sum.reason != v1alpha1.Announcing {
			sum.message += " " + w.message
		}
	}
	return sum
}

// wordOf is what a VirtualIP says to its Services; the caller holds the lock.
func (p *Provider) wordOf(vip *v1alpha1.VirtualIP) word {
	said := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionAnnounced)
	address := vip.Spec.Address
	switch {
	case blocked(vip):
		if addr, err := v1alpha1.ParseVirtualIPName(vip.Name); err == nil {
			if sentence := p.besieged(addr, vip); sentence != "" {
				return word{metav1.ConditionFalse, v1alpha1.HostAnswersAll, fmt.Sprintf("%s is not announced. %s", address, sentence)}
			}
		}
		return word{metav1.ConditionFalse, v1alpha1.AddressConflict, fmt.Sprintf("%s is not announced. %s", address, conflictMessage(vip))}
	case vip.Spec.Hold != "":
		why := ""
		if said != nil && said.Reason == string(vip.Spec.Hold) {
			why = said.Message
		} else if addr, err := v1alpha1.ParseVirtualIPName(vip.Name); err == nil {
			why = place(p.sceneOf(addr, vip)).why
		}
		return word{metav1.ConditionFalse, vip.Spec.Hold, strings.TrimSpace(fmt.Sprintf("%s is not announced. %s", address, why))}
	case said == nil || holds[v1alpha1.Reason(said.Reason)] && !(byBGPAlone(vip) && said.Reason == string(v1alpha1.NoCandidates)):
		return arriving // what was said is of a hold that is over
	case said.Status == metav1.ConditionTrue:
		return word{said.Status, v1alpha1.Reason(said.Reason), fmt.Sprintf("%s: %s", address, said.Message)}
	case said.Status == metav1.ConditionUnknown:
		return word{said.Status, v1alpha1.Reason(said.Reason), fmt.Sprintf("Whether %s is announced is not known. %s", address, said.Message)}
	case said.Reason == string(v1alpha1.Conflict):
		return word{metav1.ConditionFalse, v1alpha1.AddressConflict, fmt.Sprintf("%s is not announced. %s", address, conflictMessage(vip))}
	}
	return word{metav1.ConditionFalse, v1alpha1.Reason(said.Reason), fmt.Sprintf("%s is not announced. %s", address, said.Message)}
}

// holds are the reasons that stand in spec.hold while they count.
var holds = map[v1alpha1.Reason]bool{
	v1alpha1.NoReadyEndpoints: true, v1alpha1.NoCandidates: true, v1alpha1.Unclaimed: true, v1alpha1.AnnounceNone: true,
}

// sumUp is what is said of several addresses together: the worst, and what
// there is to say of each.
func sumUp(words []word) word {
	var worst word
	var messages []string
	for _, w := range words {
		if worst.status == "" || w.gravity() > worst.gravity() {
			worst = w
		}
		if w.reason != v1alpha1.Announcing {
			messages = append(messages, w.message)
		}
	}
	if worst.reason != v1alpha1.Announcing {
		worst.message = strings.Join(messages, " ")
	}
	return worst
}

// gravity orders words: what is known not to be so comes before what is not known.
func (w word) gravity() int {
	switch {
	case w.status == metav1.ConditionTrue:
		return 0
	case w.reason == v1alpha1.AnnounceNone:
		return 1
	case w.reason == v1alpha1.Announcing:
		return 2
	case w.status == metav1.ConditionUnknown:
		return 3
	}
	return 4
}

// saysOther reports whether a VirtualIP says another thing to its Services than
// it did before.
func saysOther(before, after *v1alpha1.VirtualIP) bool {
	if before == nil {
		return false // its Services are being worked on, or are woken for the spec
	}
	if before.Status.Owner != after.Status.Owner || blocked(before) != blocked(after) {
		return true
	}
	was := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionAnnounced)
	is := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionAnnounced)
	if was == nil || is == nil {
		return was != is
	}
	return was.Status != is.Status || was.Reason != is.Reason || was.Message != is.Message
}

// unknownStatus is the status of a Speaker that is lost: nothing stays of it
// that would mislead.
func unknownStatus(before *v1alpha1.SpeakerStatus) v1alpha1.SpeakerStatus {
	status := *before.DeepCopy()
	status.Announcing, status.Peers = nil, nil
	for i := range status.BGP {
		session := &status.BGP[i]
		status.BGP[i] = v1alpha1.SpeakerBGPSession{Peer: session.Peer, Address: session.Address, State: stateUnknown}
	}
	unknown := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: string(v1alpha1.LeaseExpired),
		Message: "The Lease of the speaker has ended: it is dead, cannot start, or is cut off from the API server.",
	}
	meta.SetStatusCondition(&status.Conditions, unknown)
	if meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionServiceProxyHealthy) != nil {
		unknown.Type, unknown.Message = v1alpha1.ConditionServiceProxyHealthy, "The speaker, which asks kube-proxy, is lost."
		meta.SetStatusCondition(&status.Conditions, unknown)
	}
	return status
}

// stateUnknown is the state of the sessions of a speaker that is lost.
const stateUnknown = "Unknown"

// reconcileSpeaker says of a speaker that is lost that nobody knows how it is.
// Who is back says the rest.
func (p *Provider) reconcileSpeaker(ctx context.Context, node string) error {
	p.mu.Lock()
	_, lost := p.vigil.lost(node)
	p.mu.Unlock()
	speaker := p.speakerOf(node)
	if !lost || speaker == nil {
		return nil
	}
	desired := speaker.DeepCopy()
	desired.Status = unknownStatus(&speaker.Status)
	if equality.Semantic.DeepEqual(speaker.Status, desired.Status) {
		return nil
	}
	written, err := p.Herald.Speakers.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil // the informer tells the rest
	}
	if err != nil && !apierrors.IsForbidden(err) { // an outage, in which it could not renew its Lease either
		p.mu.Lock()
		p.vigil.unsure(node, time.Now())
		p.mu.Unlock()
		p.pokeWatch()
	}
	if err != nil {
		return fmt.Errorf("writing the status of Speaker %s: %w", node, err)
	}
	p.tellLost(written, &speaker.Status)
	return nil
}

// tellLost tells as an event that a speaker is lost, once.
func (p *Provider) tellLost(speaker runtime.Object, before *v1alpha1.SpeakerStatus) {
	said := meta.FindStatusCondition(before.Conditions, v1alpha1.ConditionReady)
	if said != nil && said.Status == metav1.ConditionUnknown {
		return
	}
	p.Recorder.Event(speaker, corev1.EventTypeWarning, string(v1alpha1.LeaseExpired),
		"The Lease of the speaker has ended: it is dead, cannot start, or is cut off from the API server.")
}
