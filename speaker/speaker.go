// Package speaker announces virtual IPs from one node. It watches VirtualIPs,
// Advertisements, BGPPeers and its own Node, decides what to announce, has
// that done, and says so in the objects' status. It is the only package of the
// speaker that knows Kubernetes.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// Responder answers for addresses on the local network, and asks it: *l2.Responder.
type Responder interface {
	Run(ctx context.Context) error
	SetKeys(key, other []byte)
	Set(interfaces []l2.Interface, announced []l2.Announcement, questions []l2.Question) error
}

// Watcher watches other speakers: *bfd.Watcher.
type Watcher interface {
	Run(ctx context.Context) error
	Set(sessions []bfd.Session) error
	States() []bfd.Status
}

// Prober asks the service proxy: *health.Prober.
type Prober interface {
	Run(ctx context.Context) error
	Set(targets []health.Target) error
	SetHosts(own []netip.Addr)
	States() map[health.Target]health.State
}

// Advertiser keeps sessions with routers: *bgp.Speaker.
type Advertiser interface {
	Run(ctx context.Context) error
	Set(peers []bgp.Peer, routes []bgp.Route) error
	Statuses() []bgp.Status
	LeaveQuietly()
}

// Options of a Speaker.
type Options struct {
	Client kubernetes.Interface
	Herald *client.Clients
	// Node the speaker runs on.
	Node string
	// Namespace of Herald: that of the speakers' Leases and of their key.
	Namespace string
	// Version to report.
	Version string
	// StateDir is a folder to keep what is known in, so that a speaker can start while the API server is away; empty for
	// none.
	StateDir string
	// ProxyURL is where the service proxy tells how it is; empty if it is not to be asked.
	ProxyURL string
	// Interval and Multiplier of the sessions with other speakers.
	Interval   time.Duration
	Multiplier uint8

	Responder  Responder
	Watcher    Watcher
	Prober     Prober
	Advertiser Advertiser
	// Senses are told by Responder, Watcher, Prober and Advertiser.
	Senses *Senses
	// Watch tells of the node's interfaces: link.Watch. WatchGateways tells of its default gateways: link.WatchGateways.
	Watch         func(ctx context.Context, notify func([]link.Link)) error
	WatchGateways func(ctx context.Context, notify func([]link.Gateway)) error
	// Recorder of events on BGPPeers; nil for none.
	Recorder record.EventRecorder
	// Metrics takes the speaker's own.
	Metrics prometheus.Registerer
}

// Speaker announces addresses from its node.
type Speaker struct {
	Options
	node    atomic.Pointer[corev1.Node] // as it was when it was there last, or on disk
	asked   bool                        // the API server had the Node at the start
	saved   *saved                      // what was known when the speaker ran last, until the API server has been heard
	vips    cache.SharedIndexInformer
	nodes   cache.SharedIndexInformer
	adverts cache.SharedIndexInformer
	peers   cache.SharedIndexInformer
	secrets *secretWatches            // the key of the speakers, and what BGPPeers name
	speaker cache.SharedIndexInformer // our own
	lease   *lease
	status  *statusWriter
	metrics metrics
	pulse   pulse
	// effectors are asked by Healthy.
	effectors effectors
	leaving   atomic.Bool
	edits     atomic.Uint64         // of VirtualIPs, Advertisements and BGPPeers, counted
	told      map[string]bgp.Status // by BGPPeer, what events say of the sessions with routers
	// decision is the last one.
	decision atomic.Pointer[Decision]
	contact  atomic.Pointer[time.Time] // when the API server was heard last

	mu       sync.Mutex
	links    []link.Link
	gateways []link.Gateway
	known    bool // the links

	// markKeys are the last key and the other one that marks were signed with. Only decisions use it.
	markKeys [2][]byte
}

const (
	// handOver is how long a speaker that stops goes on answering while the others take over.
	handOver = 4 * time.Second
	// afterlife is how long routers are still answered by BFD after the end of BGP.
	afterlife = 300 * time.Millisecond
	// patienceAtStart is how long the API server is waited for before what is on disk will do.
	patienceAtStart = 3 * time.Second
)

// New returns a Speaker. It asks for the Node, and fails when there is none: a speaker that misspells its node would never
// be a candidate, and not say why.
func New(ctx context.Context, options Options) (*Speaker, error) {
	s := &Speaker{
		Options: options,
		vips:    client.Informer(options.Herald.VirtualIPs, &v1alpha1.VirtualIP{}),
		nodes: coreinformers.NewFilteredNodeInformer(options.Client, 0, cache.Indexers{}, func(list *metav1.ListOptions) {
			list.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, options.Node).String()
		}),
		adverts: client.Informer(options.Herald.Advertisements, &v1alpha1.Advertisement{}),
		peers:   client.Informer(options.Herald.BGPPeers, &v1alpha1.BGPPeer{}),
		told:    map[string]bgp.Status{},
		speaker: client.InformerOf(options.Herald.Speakers, &v1alpha1.Speaker{}, options.Node),
	}
	s.secrets = newSecretWatches(options.Client, options.Namespace, func() {
		s.heardAPI(time.Now())
		s.Senses.poke()
	})
	for _, informer := range s.informers() {
		if err := informer.SetTransform(lean); err != nil {
			return nil, fmt.Errorf("preparing to watch objects: %w", err)
		}
	}
	s.metrics = newMetrics(s.stateAge)
	if err := s.metrics.register(options.Metrics); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	if err := s.findNode(ctx); err != nil {
		return nil, err
	}
	s.lease = newLease(options, s.owner, s.heardAPI)
	s.status = newStatusWriter(options, s.owner, s.lease)
	s.lease.back = s.status.resume
	return s, nil
}

// findNode waits for the API server, but not for the Node. When the API server does not answer, refuses, or has no such Node,
// what is on disk will do: tokens and rights come back, and a Node that was deleted is registered anew.
func (s *Speaker) findNode(ctx context.Context) error {
	logger := klog.FromContext(ctx)
	for start := time.Now(); ; {
		node, err := s.getNode(ctx)
		if err == nil {
			s.asked = true
			s.node.Store(node)
			s.heardAPI(time.Now())
			return nil
		}
		if final := s.final(err); final != nil {
			if s.resume(ctx, err) {
				return nil
			}
			return final
		}
		if time.Since(start) >= patienceAtStart {
			if s.resume(ctx, err) {
				return nil
			}
			start = time.Now()
		}
		logger.Error(err, "The API server does not answer, will ask again")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// final is what to say of an error that waiting does not mend by itself; nil of any other.
func (s *Speaker) final(err error) error {
	switch {
	case apierrors.IsNotFound(err):
		return fmt.Errorf("there is no Node %q: --node-name must be the name of the Node that the speaker runs on", s.Node)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("reading Node %q: %w", s.Node, err)
	}
	return nil
}

func (s *Speaker) getNode(ctx context.Context) (*corev1.Node, error) {
	ctx, cancel := context.WithTimeout(ctx, patienceAtStart)
	defer cancel()
	return s.Client.CoreV1().Nodes().Get(ctx, s.Node, metav1.GetOptions{})
}

// resume goes on with what is on disk, if there is anything; cause is why.
func (s *Speaker) resume(ctx context.Context, cause error) bool {
	if s.StateDir == "" {
		return false
	}
	logger := klog.FromContext(ctx)
	known, err := load(s.StateDir, s.Node)
	if err != nil {
		logger.Error(err, "There is nothing on disk to go on with")
		return false
	}
	s.saved = known
	s.node.Store(known.node())
	s.heardAPI(known.SavedAt)
	logger.Info("The API server does not answer, or refuses: going on with what is on disk", "reason", cause,
		"savedAt", known.SavedAt, "age", time.Since(known.SavedAt).Round(time.Second), "virtualIPs", len(known.VirtualIPs))
	return true
}

// ownNode is the Node as it is, or was when it was there last.
func (s *Speaker) ownNode() *corev1.Node {
	if node := s.registered(); node != nil {
		s.node.Store(node)
		return node
	}
	return s.node.Load()
}

// registered is the Node that the API server has now, nil for none.
func (s *Speaker) registered() *corev1.Node {
	object, exists, err := s.nodes.GetStore().GetByKey(s.Node)
	if err != nil || !exists {
		return nil
	}
	return object.(*corev1.Node)
}

// owner is the Node as the owner of objects; nil while there is none, or only one on disk, which may be another one by now. A
// node that was deleted and registered anew has another UID: the garbage collector deletes what has the old one.
func (s *Speaker) owner() *metav1.OwnerReference {
	if node := s.registered(); node != nil {
		return ownedBy(node)
	}
	if s.nodes.HasSynced() || !s.asked {
		return nil
	}
	return ownedBy(s.node.Load())
}

// heardAPI takes down when the API server told us something last.
func (s *Speaker) heardAPI(at time.Time) { s.contact.Store(&at) }

// stateAge is how old what we know may be, in seconds.
func (s *Speaker) stateAge() float64 {
	if at := s.contact.Load(); at != nil {
		return time.Since(*at).Seconds()
	}
	return 0
}

// Run announces until ctx is done. Then it lets go: it says that it must not serve any more, gives up its Lease, and goes on
// answering until others have taken over, so that nothing is lost.
func (s *Speaker) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	// The responder falls silent last.
	answer, silence := context.WithCancel(context.WithoutCancel(work))
	defer silence()
	answering := make(chan error, 1)
	go func() { answering <- s.Responder.Run(answer) }()

	// Routers hear the last word while the paths to them are still watched.
	talk, hangUp := context.WithCancel(context.WithoutCancel(work))
	defer hangUp()
	talking := make(chan error, 1)
	go func() { talking <- s.Advertiser.Run(talk) }()

	if err := s.follow(); err != nil { //nolint:contextcheck // Secrets are watched until the context of their run is done
		return err
	}
	for _, informer := range append(s.informers(), s.speaker) {
		group.Go(func() error { informer.RunWithContext(work); return nil })
	}
	group.Go(func() error { s.secrets.run(work); return nil })
	group.Go(func() error { return s.Options.Watch(work, s.setLinks) })
	group.Go(func() error { return s.WatchGateways(work, s.setGateways) })
	group.Go(func() error { return s.Watcher.Run(work) })
	group.Go(func() error { return s.Prober.Run(work) })
	group.Go(func() error { return s.decide(work) })
	group.Go(func() error { s.save(work, saveDelay); return nil })
	group.Go(func() error { s.status.run(work); return nil })
	group.Go(func() error { s.lease.keep(ctx); return nil })
	group.Go(func() error {
		defer stop()
		select {
		case <-work.Done():
		case err := <-answering:
			answering <- err
			return fmt.Errorf("answering ARP and NDP: %w", errors.Join(err, errors.New("the responder ended")))
		case err := <-talking:
			talking <- err
			return fmt.Errorf("advertising by BGP: %w", errors.Join(err, errors.New("the BGP speaker ended")))
		case <-ctx.Done():
			s.leave(work)
			hangUp()
			err := <-talking
			talking <- nil
			s.outlive(work)
			return err
		}
		return nil
	})
	err := group.Wait()
	hangUp()
	silence()
	return errors.Join(err, <-talking, <-answering)
}

func (s *Speaker) informers() []cache.SharedIndexInformer {
	return []cache.SharedIndexInformer{s.vips, s.nodes, s.adverts, s.peers}
}

// leave hands over. The other candidates hear at once that this node must not serve, and take over; where there are none
// that hear, the controller does the same, as the Lease is given up. Announce before releasing: a gap of one packet is an
// outage, a duplicate is not. Routers have the time to find other ways; those that keep the routes for the next speaker of this
// node are told nothing.
func (s *Speaker) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, handOver)
	defer cancel()
	logger := klog.FromContext(ctx)
	logger.Info("Leaving", "announcing", s.status.announcing())
	s.leaving.Store(true)
	s.Senses.poke()
	if err := s.lease.release(ctx); err != nil {
		logger.Error(err, "The Lease could not be given up: it will expire")
	}
	defer func() {
		if d := s.decision.Load(); d != nil && d.Departs == v1alpha1.Leaving {
			s.Advertiser.LeaveQuietly()
		}
	}()
	for d := s.decision.Load(); d.handsOver() || d.parts(time.Now()); d = s.decision.Load() {
		select {
		case <-ctx.Done():
			logger.Info("Nobody took over in time", "announcing", s.status.announcing())
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// outlive keeps the paths to routers watched for a moment that have seen their sessions end. FRR takes the end of BFD, AdminDown
// too, for the end of the node as long as there is a BGP session, and for nothing when it is already waiting for a restart.
func (s *Speaker) outlive(ctx context.Context) {
	if d := s.decision.Load(); d == nil || len(d.RouterPaths) == 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(afterlife):
	}
}

// handsOver says whether somebody could still take over what this node answers for.
func (d *Decision) handsOver() bool {
	if d == nil {
		return false
	}
	for _, verdict := range d.Verdicts {
		if verdict.Reason == "" && verdict.Heirs {
			return true
		}
	}
	return d.Unfit != v1alpha1.Leaving && len(d.L2) > 0 // not yet decided
}

// parts says whether routers are to have some more time to find other ways.
func (d *Decision) parts(now time.Time) bool {
	if d == nil || len(d.Routes) == 0 || len(d.Peers) == 0 {
		return false
	}
	return d.Unfit != v1alpha1.Leaving || d.loud() && now.Sub(d.Departure) < shutdownWait
}

// decide follows every change with a decision and has it done.
func (s *Speaker) decide(ctx context.Context) error {
	s.waitForAPI(ctx)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.Senses.changed:
		case <-timer.C:
		}
		start := time.Now()
		s.pulse.beat(0)
		again, ok := s.decideOnce(ctx)
		if !ok {
			continue
		}
		// Whoever floods us with claims gets a part of our time.
		pause := max(time.Millisecond, 2*time.Since(start))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		if again.IsZero() {
			again = time.Now().Add(time.Minute)
		}
		s.pulse.beat(time.Until(again))
		timer.Reset(time.Until(again))
	}
}

// follow has each change of an object decided about. Those of many objects are counted: nobody is to go through them for
// finding out that there is nothing to save.
func (s *Speaker) follow() error {
	s.watchSecrets()
	for _, informer := range s.informers() {
		counted := informer != s.nodes
		heard := func(any) {
			if informer == s.peers {
				s.watchSecrets()
			}
			if counted {
				s.edits.Add(1)
			}
			s.heardAPI(time.Now())
			s.Senses.poke()
		}
		handler := cache.ResourceEventHandlerFuncs{AddFunc: heard, UpdateFunc: func(_, after any) { heard(after) }, DeleteFunc: heard}
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching objects: %w", err)
		}
	}
	return errors.Join(s.followNode(), s.status.follow(s.speaker))
}

// followNode has the Lease and the Speaker made again for a Node that is registered anew.
func (s *Speaker) followNode() error {
	anew := func(any) {
		s.lease.hurry()
		s.status.queue.Add("")
	}
	_, err := s.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: anew, UpdateFunc: func(before, after any) {
		was, isNode := before.(*corev1.Node)
		if is, ok := after.(*corev1.Node); isNode && ok && was.UID != is.UID {
			anew(is)
		}
	}})
	if err != nil {
		return fmt.Errorf("watching Node %s: %w", s.Node, err)
	}
	return nil
}

// waitForAPI returns when the VirtualIPs are known, or there is something on disk to go on with meanwhile.
func (s *Speaker) waitForAPI(ctx context.Context) {
	looked := time.Now()
	for start := looked; ctx.Err() == nil && !s.synced(); {
		s.pulse.beat(0) // to wait for the API server is not to hang
		if s.saved == nil && time.Since(looked) >= patienceAtStart {
			s.resume(ctx, errors.New("not all objects could be read"))
			looked = time.Now()
		}
		if s.saved != nil && time.Since(start) >= patienceAtStart/6 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *Speaker) synced() bool {
	return !slices.ContainsFunc(s.informers(), func(i cache.SharedIndexInformer) bool { return !i.HasSynced() }) &&
		s.secrets.known(s.secretNames())
}

// decideOnce decides by what is known now and has it done. It is false when too little is known.
func (s *Speaker) decideOnce(ctx context.Context) (again time.Time, ok bool) {
	snapshot, ok := s.snapshot()
	if !ok {
		return time.Time{}, false
	}
	logger := klog.FromContext(ctx)
	start := time.Now()
	decision := Decide(snapshot)
	before := snapshot.Before
	// What is to fall silent, and what is to be answered, comes first.
	s.Responder.SetKeys(snapshot.MarkKeys[0], snapshot.MarkKeys[1])
	err := s.Responder.Set(interfaces(snapshot.Links), decision.L2, decision.Questions)
	failed := decision.fail(err, snapshot.Now)
	if err != nil {
		refused := l2.Refused(err)
		if len(refused) > 0 {
			err = refused[0] // there may be thousands
		}
		logger.Error(err, "Not everything can be announced", "refused", len(refused))
	}
	if before == nil || !slices.Equal(before.Sessions, decision.Sessions) {
		if err := s.Watcher.Set(decision.Sessions); err != nil {
			logger.Error(err, "Not every speaker can be watched")
		}
	}
	if before == nil || !slices.Equal(before.OwnAddresses, decision.OwnAddresses) {
		s.Prober.SetHosts(decision.OwnAddresses)
	}
	if before == nil || !slices.Equal(before.Targets, decision.Targets) {
		if err := s.Prober.Set(decision.Targets); err != nil {
			logger.Error(err, "Not everything can be asked for its health")
		}
	}
	s.advertise(logger, &snapshot, decision)
	s.decision.Store(decision)
	s.Senses.forget(decision)
	tell(logger, before, decision)
	tellRoutes(logger, before, decision)
	s.tellSessions(decision.Routers)
	s.metrics.decided(time.Since(start), before, decision)
	if failed {
		s.Senses.poke() // nothing is said of what is to be decided anew
		return decision.Again, true
	}
	s.status.want(&snapshot, decision)
	return decision.Again, true
}

// advertise has the routers told what was decided, and brings what is known of the sessions up to date: Advertiser.Set changes
// how many routes each has, and nothing tells of that later.
func (s *Speaker) advertise(logger klog.Logger, snapshot *Snapshot, decision *Decision) {
	before := snapshot.Before
	if !decision.Settled || before != nil && before.Settled && reflect.DeepEqual(before.Peers, decision.Peers) && sameRoutes(before.Routes, decision.Routes) {
		return
	}
	if err := s.Advertiser.Set(decision.Peers, decision.Routes); err != nil {
		logger.Error(err, "Not everything can be advertised")
	}
	for _, status := range s.Advertiser.Statuses() {
		snapshot.BGP[status.Peer] = status
	}
}

// tell logs what has changed for an address.
func tell(logger klog.Logger, before, after *Decision) {
	for name, role := range after.Roles {
		var was Role
		if before != nil {
			was = before.Roles[name]
		}
		if role.Phase == was.Phase || role.Phase == Asking {
			continue
		}
		logger.Info("Role changed", "address", name, "phase", phaseName(role.Phase), "was", phaseName(was.Phase),
			"reason", after.Verdicts[name].Reason, "why", after.Verdicts[name].Why)
	}
	if before == nil {
		return
	}
	for name, was := range before.Roles {
		if _, now := after.Roles[name]; !now && was.answers() {
			logger.Info("Released", "address", name, "was", phaseName(was.Phase))
		}
	}
}

// tellRoutes logs what has changed for an address, and for the node.
func tellRoutes(logger klog.Logger, before, after *Decision) {
	if before == nil {
		before = &Decision{}
	}
	for name, verdict := range after.Routed {
		was, known := before.Routed[name]
		if known && was.Reason == verdict.Reason && slices.Equal(was.Advertisements, verdict.Advertisements) {
			continue
		}
		if verdict.Reason == "" {
			logger.Info("Advertised by BGP", "address", name, "advertisements", verdict.Advertisements)
		} else if known && was.Reason == "" {
			logger.Info("Not advertised by BGP any more", "address", name, "reason", verdict.Reason, "why", verdict.Why)
		}
	}
	if before.Departs != after.Departs {
		logger.Info("Departure from the routers", "reason", after.Departs)
	}
}

func phaseName(p Phase) string {
	if p == Idle {
		return "Idle"
	}
	return string(p)
}

func (s *Speaker) setLinks(links []link.Link) {
	s.mu.Lock()
	s.links, s.known = links, true
	s.mu.Unlock()
	s.Senses.poke()
}

func (s *Speaker) setGateways(gateways []link.Gateway) {
	s.mu.Lock()
	s.gateways = gateways
	s.mu.Unlock()
	s.Senses.poke()
}

// snapshot gathers what there is to decide by; not before the links are known.
func (s *Speaker) snapshot() (Snapshot, bool) {
	s.mu.Lock()
	links, gateways, known := s.links, s.gateways, s.known
	s.mu.Unlock()
	snapshot := Snapshot{
		Now:         time.Now(),
		Node:        s.Node,
		Links:       links,
		Gateways:    gateways,
		Leaving:     s.leaving.Load(),
		ProxyURL:    s.ProxyURL,
		Health:      s.Prober.States(),
		ProxyFailed: s.Senses.proxyFailed(),
		States:      map[bfd.Path]bfd.Status{},
		BGP:         map[string]bgp.Status{},
		Claims:      s.Senses.heard(),
		Before:      s.decision.Load(),
	}
	for _, status := range s.Watcher.States() {
		snapshot.States[status.Path] = status
	}
	for _, status := range s.Advertiser.Statuses() {
		snapshot.BGP[status.Peer] = status
	}
	s.objects(&snapshot)
	return snapshot, known
}

// objects puts into the snapshot what the API server has told, or what is on disk.
func (s *Speaker) objects(snapshot *Snapshot) {
	node := s.ownNode()
	var key keys
	if s.saved != nil && !s.synced() {
		snapshot.VirtualIPs, snapshot.Advertisements, snapshot.BGPPeers = s.saved.VirtualIPs, s.saved.Advertisements, s.saved.BGPPeers
		snapshot.Secrets = s.saved.Secrets
		key = keys{s.saved.Key, s.saved.OtherKey}
	} else {
		s.saved = nil // it would be held for good
		snapshot.VirtualIPs = client.Objects[*v1alpha1.VirtualIP](s.vips.GetStore())
		snapshot.Advertisements = client.Objects[*v1alpha1.Advertisement](s.adverts.GetStore())
		snapshot.BGPPeers = client.Objects[*v1alpha1.BGPPeer](s.peers.GetStore())
		snapshot.Secrets, snapshot.Forbidden = s.passwords(snapshot.BGPPeers)
		key = s.keys()
	}
	snapshot.InternalIPs, snapshot.PodCIDRs = v1alpha1.InternalIPs(node), podCIDRs(node)
	snapshot.Labels, snapshot.Barred, snapshot.Cordoned = node.Labels, v1alpha1.NodeBarred(node), node.Spec.Unschedulable
	snapshot.Watch = s.watch(key)
	// While the Secret is away, marks are signed as before: others verify them as before, too.
	if len(key.now) > 0 {
		s.markKeys = [2][]byte{key.now, key.other}
	}
	snapshot.MarkKeys = s.markKeys
}

// podCIDRs are the ranges that the node's pods have their addresses of, as far as the Node says so.
func podCIDRs(node *corev1.Node) (all []netip.Prefix) {
	for _, text := range append([]string{node.Spec.PodCIDR}, node.Spec.PodCIDRs...) {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			all = append(all, prefix)
		}
	}
	return all
}

// interfaces are the links as the responder sees them.
func interfaces(links []link.Link) []l2.Interface {
	var all []l2.Interface
	for _, l := range links {
		if l.ARP {
			all = append(all, l2.Interface{Name: l.Name, Index: l.Index, MAC: l.MAC, Up: l.Up})
		}
	}
	slices.SortFunc(all, func(a, b l2.Interface) int { return strings.Compare(a.Name, b.Name) })
	return all
}
