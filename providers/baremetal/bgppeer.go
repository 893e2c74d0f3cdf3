package baremetal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
)

const (
	// settling is how long sessions that come up may take before it is said that
	// they are not there: a speaker tells of them in 2 s.
	settling = 5 * time.Second
	// wordsDelay is the least time between two writes that differ in words alone.
	wordsDelay = 5 * time.Second
	// stateEstablished is the last state of a session (RFC 4271, section 8.2.2).
	stateEstablished = "Established"
)

// bgpPeer is a BGPPeer, parsed.
type bgpPeer struct {
	name  string
	nodes labels.Selector
	// keeps says that the router keeps the routes of a speaker that restarts.
	keeps bool
}

// parsePeer reads a BGPPeer, as far as it is the controller's affair.
func parsePeer(object *v1alpha1.BGPPeer) (bgpPeer, []problem) {
	nodes, problems := parseSelector("spec.nodeSelector", object.Spec.NodeSelector)
	restart := object.Spec.GracefulRestart
	return bgpPeer{object.Name, nodes, restart != nil && (restart.Enabled == nil || *restart.Enabled)}, problems
}

// nodeSession is a node that is to keep a session, with what its speaker says
// of it: nil is nothing yet.
type nodeSession struct {
	node    string
	session *v1alpha1.SpeakerBGPSession
}

// peerVerdict is how the sessions with a peer are, on the whole.
type peerVerdict struct {
	nodes, established int32
	// reason why not all is well; empty when it is.
	reason  v1alpha1.Reason
	message string
	// pending says that the sessions that lack may be coming: no node says what
	// stands in the way.
	pending bool
}

// severity has the reasons why a session is not, or not all of it, the worst
// first: what no session can work with comes before what one node lacks.
var severity = []v1alpha1.Reason{
	v1alpha1.InvalidSelector, v1alpha1.InvalidPeer, v1alpha1.SecretForbidden, v1alpha1.SecretMissing, v1alpha1.SecretKeyMissing,
	v1alpha1.NoGateway, v1alpha1.NotEstablished, v1alpha1.NoHoldTime, v1alpha1.FamilyNotAgreed, v1alpha1.NoNode,
}

// judgePeer sums up the sessions with a peer.
func judgePeer(problems []problem, sessions []nodeSession) peerVerdict {
	verdict := peerVerdict{nodes: int32(len(sessions)), message: "Every node has a session."}
	if len(problems) > 0 {
		verdict.reason, verdict.message = problems[0].reason, problems[0].message
		return verdict
	}
	if len(sessions) == 0 {
		verdict.reason, verdict.message = v1alpha1.NoNode, "No node with a live speaker is selected."
		return verdict
	}
	var lacks []lack
	for _, s := range sessions {
		if s.session != nil && s.session.State == stateEstablished {
			verdict.established++
		}
		if reason, words := s.lacks(); reason != "" {
			lacks = addLack(lacks, reason, words, s.node)
		}
	}
	if len(lacks) == 0 {
		return verdict
	}
	for i := range lacks {
		slices.Sort(lacks[i].nodes)
	}
	slices.SortFunc(lacks, func(a, b lack) int {
		return cmp.Or(cmp.Compare(rankOf(a.reason), rankOf(b.reason)), strings.Compare(a.nodes[0], b.nodes[0]))
	})
	verdict.reason, verdict.message = lacks[0].reason, tellLacks(lacks)
	verdict.pending = !slices.ContainsFunc(lacks, func(l lack) bool { return l.words != "" })
	return verdict
}

// lacks says what a session lacks, in words as far as the speaker finds any.
func (s nodeSession) lacks() (reason v1alpha1.Reason, words string) {
	if s.session == nil {
		return v1alpha1.NotEstablished, ""
	}
	reason, words = s.session.Reason, strings.TrimSuffix(strings.TrimSpace(s.session.LastError), ".")
	if reason == "" && s.session.State == stateEstablished {
		return "", ""
	}
	if words == "" && reason != v1alpha1.NotEstablished {
		words = string(reason)
	}
	if rankOf(reason) == len(severity) {
		reason = v1alpha1.NotEstablished
	}
	return reason, truncate(words, 300)
}

func rankOf(reason v1alpha1.Reason) int {
	if i := slices.Index(severity, reason); i >= 0 {
		return i
	}
	return len(severity)
}

// lack is what the sessions of some nodes lack.
type lack struct {
	reason v1alpha1.Reason
	words  string
	nodes  []string
}

func addLack(lacks []lack, reason v1alpha1.Reason, words, node string) []lack {
	for i := range lacks {
		if lacks[i].reason == reason && lacks[i].words == words {
			lacks[i].nodes = append(lacks[i].nodes, node)
			return lacks
		}
	}
	return append(lacks, lack{reason, words, []string{node}})
}

// tellLacks tells a few nodes what their sessions lack.
func tellLacks(lacks []lack) string {
	var sentences []string
	for _, l := range lacks[:min(len(lacks), 5)] {
		words := cmp.Or(l.words, "no session yet")
		if len(l.nodes) == 1 {
			sentences = append(sentences, fmt.Sprintf("Node %s: %s.", l.nodes[0], words))
			continue
		}
		sentences = append(sentences, fmt.Sprintf("Nodes %s: %s.", few(l.nodes), words))
	}
	more := 0
	for _, l := range lacks[len(sentences):] {
		more += len(l.nodes)
	}
	if more > 0 {
		sentences = append(sentences, fmt.Sprintf("And %d more.", more))
	}
	return strings.Join(sentences, " ")
}

// status is what the verdict makes of the status of a peer.
func (v *peerVerdict) status(peer *v1alpha1.BGPPeer) v1alpha1.BGPPeerStatus {
	status := *peer.Status.DeepCopy()
	status.Nodes, status.Established = v.nodes, v.established
	condition := metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Established),
		Message: v.message, ObservedGeneration: peer.Generation,
	}
	if v.reason != "" {
		condition.Status, condition.Reason = metav1.ConditionFalse, string(v.reason)
	}
	meta.SetStatusCondition(&status.Conditions, condition)
	return status
}

// peerWatch is what is remembered of a peer from one look at it to the next.
type peerWatch struct {
	generation int64
	// seen is when we first saw this generation, pending since when sessions
	// lack without a word, written when we last wrote.
	seen, pending, written time.Time
}

// wait is how long to leave the status of a peer as it is, for it may be another
// in a moment; 0 is to write it now. said is the condition so far.
func (w *peerWatch) wait(generation int64, said *metav1.Condition, v *peerVerdict, now time.Time) time.Duration {
	if w.generation != generation || w.seen.IsZero() {
		w.generation, w.seen, w.pending = generation, now, time.Time{}
	}
	switch {
	case !v.pending:
		w.pending = time.Time{}
	case w.pending.IsZero():
		w.pending = now
	}
	rest := func(since time.Time, delay time.Duration) time.Duration { return max(0, since.Add(delay).Sub(now)) }
	switch {
	case v.pending:
		return rest(w.pending, settling)
	case said == nil, v.reason == v1alpha1.InvalidSelector:
		return 0
	case said.ObservedGeneration != generation:
		// What the speakers say may still be about what the peer was before.
		return rest(w.seen, settling)
	case said.Reason == string(v.reason) && said.Message != v.message:
		return rest(w.written, wordsDelay)
	}
	return 0
}

// reconcilePeer writes the status of a peer, if it changed.
func (p *Provider) reconcilePeer(ctx context.Context, name string) error {
	object, exists, err := p.peers.GetStore().GetByKey(name)
	if err != nil {
		return err
	}
	now := time.Now()
	p.mu.Lock()
	if !exists {
		delete(p.peerWatches, name)
		p.mu.Unlock()
		return nil
	}
	peer := object.(*v1alpha1.BGPPeer)
	verdict := p.judge(peer)
	watch := p.peerWatches[name]
	said := meta.FindStatusCondition(peer.Status.Conditions, v1alpha1.ConditionReady)
	wait := watch.wait(peer.Generation, said, &verdict, now)
	p.peerWatches[name] = watch
	p.mu.Unlock()

	desired := peer.DeepCopy()
	desired.Status = verdict.status(peer)
	if equality.Semantic.DeepEqual(peer.Status, desired.Status) {
		return nil
	}
	if wait > 0 {
		p.peerStatuses.AddAfter(name, wait)
		return nil
	}
	_, err = p.Herald.BGPPeers.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of BGPPeer %s: %w", name, err)
	}
	p.mu.Lock()
	watch.written = now
	p.peerWatches[name] = watch
	p.mu.Unlock()
	condition := meta.FindStatusCondition(desired.Status.Conditions, v1alpha1.ConditionReady)
	if said == nil || said.Reason != condition.Reason {
		// Which words an error has is no event.
		p.tellCondition(peer, said, condition)
	}
	return nil
}

// judge gathers what the speakers say of a peer, and sums it up; the caller
// locks.
func (p *Provider) judge(peer *v1alpha1.BGPPeer) peerVerdict {
	parsed, problems := parsePeer(peer)
	var sessions []nodeSession
	for _, node := range client.Objects[*corev1.Node](p.nodes.GetStore()) {
		if !p.vigil.speaks(node.Name) || !parsed.nodes.Matches(labels.Set(node.Labels)) {
			continue
		}
		sessions = append(sessions, nodeSession{node.Name, sessionOf(p.speakerOf(node.Name), peer.Name)})
	}
	return judgePeer(problems, sessions)
}

func sessionOf(speaker *v1alpha1.Speaker, peer string) *v1alpha1.SpeakerBGPSession {
	if speaker == nil {
		return nil
	}
	for i := range speaker.Status.BGP {
		if speaker.Status.BGP[i].Peer == peer {
			return &speaker.Status.BGP[i]
		}
	}
	return nil
}

// peerChanged has looked at what depends on a BGPPeer.
func (p *Provider) peerChanged(before, after *v1alpha1.BGPPeer) {
	if before != nil && after != nil && before.Generation == after.Generation {
		return
	}
	name := ""
	if before != nil {
		name = before.Name
	}
	if after != nil {
		name = after.Name
	}
	p.peerStatuses.Add(name)
	if before != nil && after != nil && equality.Semantic.DeepEqual(before.Spec.NodeSelector, after.Spec.NodeSelector) {
		return
	}
	p.advertisementChanged(nil, nil)
}

// sessionsChanged has looked at what depends on the sessions of a speaker. What
// happens in short order is gathered.
func (p *Provider) sessionsChanged(before, after *v1alpha1.SpeakerStatus) {
	for _, name := range changedSessions(before, after) {
		p.peerStatuses.AddAfter(name, statusDelay)
	}
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

// changedSessions are the peers of which a speaker says another thing.
func changedSessions(before, after *v1alpha1.SpeakerStatus) []string {
	type words struct {
		state     string
		reason    v1alpha1.Reason
		lastError string
	}
	says := func(s *v1alpha1.SpeakerStatus) map[string]words {
		all := make(map[string]words, len(s.BGP))
		for i := range s.BGP {
			all[s.BGP[i].Peer] = words{s.BGP[i].State, s.BGP[i].Reason, s.BGP[i].LastError}
		}
		return all
	}
	was, is := says(before), says(after)
	var changed []string
	for peer, w := range is {
		if before, ok := was[peer]; !ok || before != w {
			changed = append(changed, peer)
		}
	}
	for peer := range was {
		if _, ok := is[peer]; !ok {
			changed = append(changed, peer)
		}
	}
	slices.Sort(changed)
	return changed
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
