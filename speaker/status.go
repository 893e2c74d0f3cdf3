package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
)

const (
	// statusWriters write the status of VirtualIPs at a time.
	statusWriters = 4
	// speakerDelay gathers changes of the Speaker's status into one write.
	speakerDelay = 2 * time.Second
	// writeTimeout bounds one request: a connection to an API server that hangs must not hold a writer.
	writeTimeout = 10 * time.Second
	// staleFor is how long a version of an object that is older than what we wrote is taken to be on its way. An API server that
	// was restored from a backup has older versions for good.
	staleFor = 5 * time.Second
	// countersDelay is the least time between two writes of the Speaker that change nothing but counters.
	countersDelay = 10 * time.Second
	// noDelay is how long nobody has to announce an address before that is said.
	noDelay    = 2 * time.Second
	retryFirst = 50 * time.Millisecond
	retryLast  = 30 * time.Second
)

// statusWriter says in the status of VirtualIPs and of the Speaker what this
// node does, each time that changes.
//
// Nothing is said while the Lease is not held: the controller says then that this speaker is lost, and is right for all that it
// knows.
type statusWriter struct {
	Options
	owner func() *metav1.OwnerReference // the Node; nil while there is none, or none that is known to be there
	lease *lease
	queue workqueue.TypedRateLimitingInterface[string] // names of VirtualIPs; "" is the Speaker

	mu       sync.Mutex
	decision *Decision
	said     v1alpha1.SpeakerStatus
	speaker  *v1alpha1.Speaker // as we wrote it, or as it has been changed since
	counted  time.Time         // when the Speaker was last written
	words    map[string]stated // by the name of the VirtualIP; "" is the Speaker
	waiting  map[string]bool   // names of what is to be said when the Lease is held again
}

// stated is a word with the resourceVersion of the object that has it.
type stated struct {
	word
	version string
}

func newStatusWriter(options Options, owner func() *metav1.OwnerReference, lease *lease) *statusWriter {
	return &statusWriter{
		Options: options,
		owner:   owner,
		lease:   lease,
		words:   map[string]stated{},
		waiting: map[string]bool{},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast),
			workqueue.TypedRateLimitingQueueConfig[string]{Name: "status"}),
	}
}

// want takes in what is so from now on. Of what is as it was before, all has been said already, or is in the queue.
func (w *statusWriter) want(snapshot *Snapshot, decision *Decision) {
	w.mu.Lock()
	before := w.decision
	says := w.says(snapshot, decision)
	changed := before == nil || !equality.Semantic.DeepEqual(w.said, says)
	w.decision, w.said = decision, says
	if len(w.words) > len(decision.Verdicts)+1 {
		maps.DeleteFunc(w.words, func(name string, _ stated) bool { _, known := decision.Verdicts[name]; return !known && name != "" })
	}
	w.mu.Unlock()
	for name, verdict := range decision.Verdicts {
		if before != nil && verdict.same(before.Verdicts[name]) {
			continue
		}
		if _, changed := told(verdict.Of, w.Node, verdict, time.Time{}); !changed {
			continue
		}
		if verdict.Tells && verdict.Reason != v1alpha1.Conflict {
			// It may be settled in a moment; somebody else may announce it.
			w.queue.AddAfter(name, noDelay)
			continue
		}
		w.queue.Add(name)
	}
	switch {
	case before == nil:
		w.queue.Add("")
	case changed:
		w.queue.AddAfter("", speakerDelay)
	}
}

// says is the Speaker's status without what only a write adds. The caller locks.
func (w *statusWriter) says(snapshot *Snapshot, decision *Decision) v1alpha1.SpeakerStatus {
	status := speakerStatus(w.Version, snapshot, decision, w.said.BGP)
	status.Conditions = []metav1.Condition{watchedCondition(snapshot)}
	if proxy, ok := proxyCondition(snapshot); ok {
		status.Conditions = append(status.Conditions, proxy)
	}
	return status
}

// follow has the Speaker watched, so that it is made again, and said again, when it was deleted or changed by anybody.
func (w *statusWriter) follow(speakers cache.SharedIndexInformer) error {
	changed := func(before, after any) {
		if speaker, ok := after.(*v1alpha1.Speaker); ok {
			if old, ok := before.(*v1alpha1.Speaker); ok && !newer(speaker.ResourceVersion, old.ResourceVersion) {
				w.keep(nil) // it comes from a backup: no later one is there any more
			}
			w.found(speaker)
		}
	}
	_, err := speakers.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(after any) { changed(nil, after) }, UpdateFunc: changed, DeleteFunc: func(any) { w.keep(nil); w.queue.Add("") },
	})
	if err != nil {
		return fmt.Errorf("watching Speaker %s: %w", w.Node, err)
	}
	return nil
}

// found takes in a version of the Speaker.
func (w *statusWriter) found(speaker *v1alpha1.Speaker) {
	w.mu.Lock()
	last := w.speaker
	if last != nil && last.UID == speaker.UID && !newer(speaker.ResourceVersion, last.ResourceVersion) {
		w.mu.Unlock()
		return // our own word
	}
	w.speaker = speaker
	_, changed := saying(speaker, w.said)
	again := changed && w.decision != nil
	w.mu.Unlock()
	if again {
		w.queue.Add("")
	}
}

// newer compares two resourceVersions of one object. What cannot be compared is newer.
func newer(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err != nil || order > 0
}

// hold reports whether something may be said now, and has it said later if not.
func (w *statusWriter) hold(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lease.holds(time.Now()) {
		return true
	}
	w.waiting[name] = true
	return false
}

// resume says what has waited for the Lease.
func (w *statusWriter) resume() {
	w.mu.Lock()
	waiting := w.waiting
	w.waiting = map[string]bool{}
	w.mu.Unlock()
	for name := range waiting {
		w.queue.Add(name)
	}
}

// say reports whether a word is to be written now. One that has to wait is looked at again.
func (w *statusWriter) say(name string, r role, text string, replaced bool) bool {
	w.mu.Lock()
	last := w.words[name]
	next, wait, ok := last.say(r, text, replaced, time.Now())
	last.word = next
	if !ok {
		w.words[name] = last
	}
	w.mu.Unlock()
	if !ok {
		w.queue.AddAfter(name, wait)
	}
	return ok
}

// state notes what was written.
func (w *statusWriter) state(name string, r role, text string, replaced bool, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next, _, ok := w.words[name].say(r, text, replaced, time.Now())
	if ok {
		w.words[name] = stated{next, version}
	}
}

// announcing is how many addresses this node answers for.
func (w *statusWriter) announcing() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.decision == nil {
		return 0
	}
	return w.decision.announced()
}

func (w *statusWriter) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, w.queue.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range statusWriters {
		workers.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	workers.Wait()
}

func (w *statusWriter) next(ctx context.Context) bool {
	name, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(name)
	write := w.writeVirtualIP
	if name == "" {
		write = w.writeSpeaker
	}
	if !w.hold(name) {
		return true
	}
	request, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	if err := write(request, name); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).V(2).Info("A status was not written, will be tried again", "name", name, "err", err)
		w.queue.AddRateLimited(name)
		return true
	}
	w.queue.Forget(name)
	return true
}

func (w *statusWriter) writeVirtualIP(ctx context.Context, name string) error {
	now := time.Now()
	w.mu.Lock()
	verdict, known := w.decision.Verdicts[name]
	last, said := w.words[name]
	w.mu.Unlock()
	if !known || said && now.Sub(last.at) < staleFor && newer(last.version, verdict.Of.ResourceVersion) {
		return nil // or the version that has our word is on its way here
	}
	desired, changed := told(verdict.Of, w.Node, verdict, now)
	if !changed {
		return nil
	}
	text, replaced := verdict.word(desired), verdict.replaced(w.Node)
	if !w.say(name, verdict.Role, text, replaced) {
		return nil
	}
	written, err := w.Herald.VirtualIPs.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of VirtualIP %s: %w", name, err)
	}
	w.state(name, verdict.Role, text, replaced, written.ResourceVersion)
	return nil
}

// word is what a status says, without its times.
func (v Verdict) word(vip *v1alpha1.VirtualIP) string {
	text := vip.Status.Owner
	for _, kind := range []string{v1alpha1.ConditionAnnounced, v1alpha1.ConditionConflict} {
		if c := meta.FindStatusCondition(vip.Status.Conditions, kind); c != nil {
			text += fmt.Sprintf("|%s=%s/%s: %s", c.Type, c.Status, c.Reason, c.Message)
		}
	}
	return text
}

// replaced reports whether the status has another speaker's word: it is the owner, or says why nobody is.
func (v Verdict) replaced(node string) bool {
	status := &v.Of.Status
	if v.Reason == "" {
		return status.Owner != "" && status.Owner != node
	}
	return meta.IsStatusConditionFalse(status.Conditions, v1alpha1.ConditionAnnounced)
}

// told is the VirtualIP with the status that this node gives it. The owner writes; whoever is owner no more leaves that to the
// next one. When nobody announces the address, the candidate whose turn it would be says why.
func told(vip *v1alpha1.VirtualIP, node string, verdict Verdict, now time.Time) (desired *v1alpha1.VirtualIP, changed bool) {
	if verdict.Reason != "" && !verdict.Tells {
		return vip, false
	}
	if before := vip.Status.Owner; (verdict.Yielding || verdict.Reason != "") && before != "" && before != node {
		return vip, false // the owner's word, which the API server lets us replace only by taking over (deploy/kustomize/policy.yaml)
	}
	desired = vip.DeepCopy()
	changed = setConflict(desired, verdict, now)
	condition := metav1.Condition{
		Type:               v1alpha1.ConditionAnnounced,
		Status:             metav1.ConditionTrue,
		Reason:             string(v1alpha1.Announced),
		Message:            fmt.Sprintf("Node %s answers on %s; it %s.", node, strings.Join(verdict.Interfaces, ", "), verdict.Why),
		LastTransitionTime: metav1.NewTime(now),
	}
	owner := node
	if verdict.Reason != "" {
		owner = ""
		condition.Status = metav1.ConditionFalse
		condition.Reason = string(verdict.Reason)
		condition.Message = verdict.message(node)
	}
	changed = meta.SetStatusCondition(&desired.Status.Conditions, condition) || changed
	switch {
	case desired.Status.Owner == owner:
	case owner == "":
		desired.Status.Owner, changed = "", true // OwnerSince stays: the address has been in use
	default:
		since := metav1.NewTime(now)
		desired.Status.Owner, desired.Status.OwnerSince, changed = owner, &since, true
	}
	return desired, changed
}

// setConflict says whether a stranger has the address; nothing as long as there never was one.
func setConflict(vip *v1alpha1.VirtualIP, verdict Verdict, now time.Time) bool {
	before := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionConflict)
	condition := metav1.Condition{
		Type: v1alpha1.ConditionConflict, Status: metav1.ConditionFalse, Reason: string(v1alpha1.NoConflict),
		Message: "No other host answers for the address any more.", LastTransitionTime: metav1.NewTime(now),
	}
	switch {
	case verdict.Conflict:
		condition.Status, condition.Reason = metav1.ConditionTrue, string(v1alpha1.Conflict)
		condition.Message = fmt.Sprintf("The host with the MAC address %s answers for %s.", net.HardwareAddr(verdict.Foreign[:]), vip.Spec.Address)
		if verdict.Foreign == ([6]byte{}) && before != nil {
			condition.Message = before.Message // from before this speaker started
		}
	case !verdict.Asked || before == nil:
		return false
	}
	return meta.SetStatusCondition(&vip.Status.Conditions, condition)
}

// message says why a node does not announce an address that it should.
func (v Verdict) message(node string) string {
	switch v.Reason {
	case v1alpha1.NoInterface:
		if v.Why != "" {
			return fmt.Sprintf("Node %s has no interface to announce the address on: no carrier on %s.", node, v.Why)
		}
		return fmt.Sprintf("Node %s has no interface to announce the address on.", node)
	case v1alpha1.AnnounceFailed:
		return fmt.Sprintf("Node %s cannot answer for the address on %s.", node, v.Why)
	case v1alpha1.Conflict:
		return "Another host has the address, see the condition Conflict."
	case v1alpha1.ProxyNotHealthy:
		return fmt.Sprintf("Node %s cannot serve: its service proxy is not well (%s), and no other candidate is alive.", node, v.Why)
	case v1alpha1.NotServedLocally:
		return fmt.Sprintf("Node %s does not serve all Services of policy Local on the address (%s), and no other candidate has taken it.", node, v.Why)
	}
	return fmt.Sprintf("Node %s does not announce the address: %s.", node, v.Reason)
}

func (w *statusWriter) writeSpeaker(ctx context.Context, _ string) error {
	w.mu.Lock()
	said, speaker, counted := w.said, w.speaker, w.counted
	decided := w.decision != nil
	w.mu.Unlock()
	if !decided {
		return nil
	}
	if speaker == nil {
		found, err := w.getSpeaker(ctx)
		if err != nil {
			return err
		}
		speaker = found
	}
	desired, changed := saying(speaker, said)
	if !changed {
		w.keep(speaker)
		return nil
	}
	if rest := time.Until(counted.Add(countersDelay)); rest > 0 && countersAlone(&speaker.Status, &desired.Status) {
		w.keep(speaker)
		w.queue.AddAfter("", rest)
		return nil
	}
	words, err := json.Marshal(said)
	if err != nil {
		return fmt.Errorf("writing the status of Speaker %s: %w", w.Node, err)
	}
	text := string(speaker.UID) + string(words)
	if !w.say("", role{}, text, false) {
		return nil
	}
	written, err := w.Herald.Speakers.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if err != nil {
		w.keep(nil) // ask anew
		return fmt.Errorf("writing the status of Speaker %s: %w", w.Node, err)
	}
	w.state("", role{}, text, false, written.ResourceVersion)
	w.keep(written)
	w.mu.Lock()
	w.counted = time.Now()
	w.mu.Unlock()
	return nil
}

// countersAlone reports whether two statuses of a Speaker differ in counters only: of addresses and of routes.
func countersAlone(before, after *v1alpha1.SpeakerStatus) bool {
	if before.Announcing == nil || after.Announcing == nil {
		return false // one of them is not known
	}
	plain := func(s *v1alpha1.SpeakerStatus) *v1alpha1.SpeakerStatus {
		s = s.DeepCopy()
		s.Announcing = nil
		for i := range s.BGP {
			session := &s.BGP[i]
			session.Advertised, session.AdvertisedIPv4, session.AdvertisedIPv6, session.Refused = 0, 0, 0, 0
		}
		return s
	}
	return equality.Semantic.DeepEqual(plain(before), plain(after))
}

// saying is the Speaker with the status that this speaker gives it.
func saying(speaker *v1alpha1.Speaker, said v1alpha1.SpeakerStatus) (desired *v1alpha1.Speaker, changed bool) {
	desired = speaker.DeepCopy()
	status := said
	status.Conditions = desired.Status.Conditions
	own := append([]metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Running), Message: "The speaker runs.",
	}}, said.Conditions...)
	for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionServiceProxyHealthy, v1alpha1.ConditionWatched} {
		if c := meta.FindStatusCondition(own, kind); c != nil {
			meta.SetStatusCondition(&status.Conditions, *c)
		} else {
			meta.RemoveStatusCondition(&status.Conditions, kind)
		}
	}
	desired.Status = status
	return desired, !equality.Semantic.DeepEqual(speaker.Status, desired.Status)
}

func (w *statusWriter) keep(speaker *v1alpha1.Speaker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.speaker = speaker
}

// getSpeaker asks for our Speaker, and makes it if there is none.
func (w *statusWriter) getSpeaker(ctx context.Context) (*v1alpha1.Speaker, error) {
	speaker, err := w.Herald.Speakers.Get(ctx, w.Node, metav1.GetOptions{})
	if err == nil {
		return speaker, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading Speaker %s: %w", w.Node, err)
	}
	owner := w.owner()
	if owner == nil {
		return nil, fmt.Errorf("creating Speaker %s: %w", w.Node, errNoNode)
	}
	speaker, err = w.Herald.Speakers.Create(ctx, &v1alpha1.Speaker{
		ObjectMeta: metav1.ObjectMeta{Name: w.Node, OwnerReferences: []metav1.OwnerReference{*owner}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating Speaker %s: %w", w.Node, err)
	}
	return speaker, nil
}

// proxyCondition says how the service proxy is; false when it is not asked, or has not answered yet.
func proxyCondition(s *Snapshot) (metav1.Condition, bool) {
	state := s.Health[health.Target{Kind: health.Proxy, URL: s.ProxyURL}]
	condition := metav1.Condition{
		Type: v1alpha1.ConditionServiceProxyHealthy, Status: metav1.ConditionTrue,
		Reason: string(v1alpha1.ProxyHealthy), Message: "The service proxy says that it is well.",
	}
	if state.Healthy {
		return condition, true
	}
	condition.Status, condition.Reason = metav1.ConditionFalse, string(v1alpha1.ProxyNotHealthy)
	condition.Message = fmt.Sprintf("%s: %s.", s.ProxyURL, state.Reason)
	return condition, s.ProxyURL != "" && state.Reason != health.Unknown && state.Reason != ""
}

// watchedCondition says whether the other speakers can see that this one is lost.
func watchedCondition(s *Snapshot) metav1.Condition {
	if s.Watch == nil {
		return metav1.Condition{
			Type: v1alpha1.ConditionWatched, Status: metav1.ConditionFalse, Reason: string(v1alpha1.NoKey),
			Message: fmt.Sprintf("There is no key in the Secret %s: speakers do not watch each other, and a lost node is noticed by its Lease alone. The controller makes the Secret.", v1alpha1.BFDSecret),
		}
	}
	return metav1.Condition{
		Type: v1alpha1.ConditionWatched, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Watching), Message: "Speakers watch each other by BFD.",
	}
}

// speakerStatus is what the Speaker object says, but for its conditions; it has said before what the sessions with routers are.
func speakerStatus(version string, s *Snapshot, d *Decision, before []v1alpha1.SpeakerBGPSession) v1alpha1.SpeakerStatus {
	announcing, interfaces := int32(d.announced()), d.Interfaces
	return v1alpha1.SpeakerStatus{
		Node:           s.Node,
		Version:        version,
		Announcing:     &announcing,
		Interfaces:     interfaces,
		InterfaceNames: v1alpha1.OneLine(interfaces, func(i v1alpha1.SpeakerInterface) string { return i.Name }),
		BGP:            reportedSessions(s, d, before),
		Peers:          reportedPeers(s, d),
		SignsMarks:     len(s.MarkKeys[0]) > 0,
	}
}

// reportedSessions are the sessions with routers. One that comes up goes through all the states of RFC 4271 each time it is
// tried: these are Active here, so that a router that is down costs no writes.
func reportedSessions(s *Snapshot, d *Decision, before []v1alpha1.SpeakerBGPSession) []v1alpha1.SpeakerBGPSession {
	var sessions []v1alpha1.SpeakerBGPSession
	for i := range d.Routers {
		r := &d.Routers[i]
		session := v1alpha1.SpeakerBGPSession{Peer: r.Name, State: "Idle", Reason: r.Reason, LastError: r.Why}
		if r.Peer.Address.IsValid() {
			session.Address = r.Peer.Address.String()
		}
		if r.Reason == "" {
			sessionOf(&session, r, s.BGP[r.Name])
			if r.BFD != (bfd.Path{}) {
				session.BFD = bfd.Down.String()
				if status, watched := s.States[r.BFD]; watched {
					session.BFD = bfdWord(status)
				}
			}
		}
		if j := slices.IndexFunc(before, func(b v1alpha1.SpeakerBGPSession) bool { return b.Peer == r.Name }); j >= 0 {
			steady(&session, &before[j])
		}
		sessions = append(sessions, session)
	}
	return sessions
}

// sessionOf says how a session is that can be.
func sessionOf(session *v1alpha1.SpeakerBGPSession, r *Router, status bgp.Status) {
	if status.Address.IsValid() {
		session.Address = status.Address.String()
	}
	if !status.Since.IsZero() {
		since := metav1.NewTime(status.Since.Truncate(time.Second))
		session.Since = &since
	}
	session.Refused = int64(status.RefusedRoutes)
	if status.State != established {
		session.State, session.Reason, session.LastError = "Active", v1alpha1.NotEstablished, status.LastError
		return
	}
	session.State = established
	for _, family := range status.Families {
		session.Families = append(session.Families, string(family))
	}
	session.AdvertisedIPv4, session.AdvertisedIPv6 = int32(status.Advertised[bgp.IPv4]), int32(status.Advertised[bgp.IPv6])
	session.Advertised = session.AdvertisedIPv4 + session.AdvertisedIPv6
	switch {
	case status.NoHoldTime:
		session.Reason, session.LastError = v1alpha1.NoHoldTime, "the router's hold time is 0: when it is gone, that is not noticed, and the session does not come back"
	case r.Lacks != "":
		session.Reason, session.LastError = v1alpha1.FamilyNotAgreed, fmt.Sprintf("the router does not speak of %s", r.Lacks)
	}
}

// steady keeps what has not changed as it was said before: since when it is so, and a count that a router could have written
// all the time: it is said anew when it has doubled.
func steady(session, before *v1alpha1.SpeakerBGPSession) {
	if session.State != before.State {
		return
	}
	session.Since = before.Since
	if session.LastError == "" && session.Reason == before.Reason {
		session.LastError = before.LastError // between two attempts there is none
	}
	if session.Refused >= before.Refused && session.Refused < 2*before.Refused {
		session.Refused = before.Refused
	}
}

func bfdWord(status bfd.Status) string {
	switch {
	case status.State == bfd.Up:
		return bfd.Up.String()
	case status.State == bfd.AdminDown, status.RemoteState == bfd.AdminDown && !status.Time.IsZero():
		return bfd.AdminDown.String()
	}
	return bfd.Down.String()
}

// reportedPeers are the other speakers with the state of the worst of the sessions with each.
func reportedPeers(s *Snapshot, d *Decision) []v1alpha1.SpeakerPeer {
	states := map[string]bfd.State{}
	for _, session := range d.Sessions {
		if _, lingering := d.Lingering[session.Path]; lingering || d.Nodes[session.Path] == "" {
			continue
		}
		node, status := d.Nodes[session.Path], s.States[session.Path]
		state := status.State
		if state != bfd.Up && status.RemoteState == bfd.AdminDown && status.Time != (time.Time{}) {
			state = bfd.AdminDown
		}
		if before, ok := states[node]; !ok || state < before {
			states[node] = state
		}
	}
	var peers []v1alpha1.SpeakerPeer
	for _, node := range slices.Sorted(maps.Keys(states)) {
		// A session on its way up is down: it would be written twice.
		state := states[node]
		if state == bfd.Init {
			state = bfd.Down
		}
		peers = append(peers, v1alpha1.SpeakerPeer{Node: node, BFD: state.String()})
	}
	return peers
}
