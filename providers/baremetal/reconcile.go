package baremetal

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/ipam"
)

// placeSpec writes into a VirtualIP where the address may be announced, and
// returns that with the rest. The caller locks.
func (p *Provider) placeSpec(addr netip.Addr, vip *v1alpha1.VirtualIP) placement {
	p.ledger.count(p.ledger.vips[addr], -1)
	defer p.ledger.count(p.ledger.vips[addr], 1)
	placed := place(p.sceneOf(addr, vip))
	if placed.offLink {
		p.offLink[addr] = true
	} else {
		delete(p.offLink, addr)
	}
	vip.Spec.Hold, vip.Spec.L2, vip.Spec.BGP, vip.Spec.TerminatingNodes = placed.hold, placed.l2, placed.bgp, placed.terminating
	return placed
}

// sceneOf gathers what the placement of an address depends on.
func (p *Provider) sceneOf(addr netip.Addr, vip *v1alpha1.VirtualIP) *scene {
	s := &scene{
		addr:           addr,
		owner:          vip.Status.Owner,
		quarantined:    vip.Spec.Hold == v1alpha1.Conflict && !meta.IsStatusConditionFalse(vip.Status.Conditions, v1alpha1.ConditionConflict),
		pool:           vip.Spec.Pool,
		advertisements: p.advertisements,
		bgpPeers:       p.bgpPeers,
		nodes:          client.Objects[*corev1.Node](p.nodes.GetStore()),
		alive:          func(node string) bool { return p.live.alive(node) || p.live.unproven(node) && placedOn(vip, node) },
		speaks:         p.vigil.speaks,
		lost:           p.vigil.lost,
		returning:      p.live.returning,
		speaker:        p.speakerOf,
		links:          p.links.prefixes,
		present:        p.present,
		load:           p.ledger.load,
	}
	if vip.Spec.L2 != nil {
		s.current = vip.Spec.L2.Candidates
	}
	if vip.Spec.BGP != nil {
		s.limits = vip.Spec.BGP.Limits
	}
	if pool := p.poolObjects[vip.Spec.Pool]; pool != nil {
		s.poolLabels, s.unannounced = pool.Labels, pool.Spec.Announce == v1alpha1.AnnounceNever
	}
	for i := range vip.Spec.Claims {
		claim := &vip.Spec.Claims[i]
		t := tenant{
			local:           claim.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
			namespaceLabels: p.namespaceLabels(claim.Namespace),
		}
		if service, err := p.services.Services(claim.Namespace).Get(claim.Name); err == nil {
			t.labels = service.Labels
			t.serving = servingNodes(p.slicesOf(claim.Namespace, claim.Name), ipam.FamilyOf(addr), service.Spec.Ports)
			t.affine = service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP
			t.open, t.proxied = leavesOpen(service, ipam.FamilyOf(addr)), proxies(service, addr, p.poolObjects[vip.Spec.Pool])
		}
		s.tenants = append(s.tenants, t)
	}
	return s
}

// placedOn reports whether an address is placed on the node already.
func placedOn(vip *v1alpha1.VirtualIP, node string) bool {
	if vip.Status.Owner == node || vip.Spec.L2 != nil && slices.Contains(vip.Spec.L2.Candidates, node) {
		return true
	}
	return vip.Spec.BGP != nil && slices.ContainsFunc(vip.Spec.BGP.Limits, func(l v1alpha1.BGPLimit) bool { return slices.Contains(l.Nodes, node) })
}

// speakerOf is the Speaker of the node, nil if there is none.
func (p *Provider) speakerOf(node string) *v1alpha1.Speaker {
	object, exists, err := p.speakers.GetStore().GetByKey(node)
	if err != nil || !exists {
		return nil
	}
	return object.(*v1alpha1.Speaker)
}

func (p *Provider) slicesOf(namespace, name string) []*discoveryv1.EndpointSlice {
	return client.SlicesOf(p.slices, byService, namespace, name)
}

// reconcilePlace brings the placement of an address up to date.
func (p *Provider) reconcilePlace(ctx context.Context, addr netip.Addr) error {
	p.mu.Lock()
	vip := p.ledger.vips[addr]
	if vip == nil {
		delete(p.pending, addr)
		delete(p.offLink, addr)
		p.mu.Unlock()
		return nil
	}
	desired := vip.DeepCopy()
	before := p.aside(addr, vip)
	placed := p.placeSpec(addr, desired)
	if desired.Spec.Pool == "" {
		desired.Spec.Pool, _ = p.ledger.allocator.PoolOf(addr)
	}
	desired.Spec.Summarize()
	after := p.aside(addr, desired)
	tooMany := p.isSurplus(addr, vip)
	p.mu.Unlock()
	if before != after {
		defer p.wakeClaims(vip) // their conditions say it
	}

	if vip.Spec.Hold == v1alpha1.Conflict && vip.Spec.ReservedFor == nil && (desired.Spec.Hold == v1alpha1.Unclaimed || tooMany) {
		return p.free(ctx, addr, vip)
	}
	if !equality.Semantic.DeepEqual(vip.Spec, desired.Spec) {
		written, err := p.Herald.VirtualIPs.Update(ctx, desired, metav1.UpdateOptions{})
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return p.reread(ctx, vip)
		}
		if err != nil {
			return fmt.Errorf("placing VirtualIP %s: %w", vip.Name, err)
		}
		p.mu.Lock()
		p.ledger.answered(written)
		p.mu.Unlock()
		p.tellPlacement(vip, written, placed.why)
		vip = written
	}
	if err := p.announce(ctx, vip, &placed); err != nil {
		return err
	}
	return p.tellUse(ctx, addr)
}

// reread takes in the version of a VirtualIP that ours lost against, and
// returns an error so that the work is done again.
func (p *Provider) reread(ctx context.Context, vip *v1alpha1.VirtualIP) error {
	latest, err := p.Herald.VirtualIPs.Get(ctx, vip.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the informer tells the rest
	}
	if err != nil {
		return fmt.Errorf("reading VirtualIP %s: %w", vip.Name, err)
	}
	p.learn(ctx, latest)
	return errStale
}

// tellPlacement tells that an address ceased to be announced, and why. Its
// Services say it in their conditions.
func (p *Provider) tellPlacement(before, after *v1alpha1.VirtualIP, why string) {
	if before.Spec.Hold == after.Spec.Hold {
		return
	}
	p.wakeClaims(after)
	announced := before.Status.Owner != "" || meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionAnnounced)
	if after.Spec.Hold == v1alpha1.NoCandidates || after.Spec.Hold != "" && announced {
		p.Recorder.Event(after, corev1.EventTypeWarning, string(after.Spec.Hold), why)
	}
}

// announce says in the status of an address what no speaker says: that it is
// held, that its speaker is lost, or how it is with one for BGP alone. The last
// owner may not be there to say so. Nor is there one who looks for other hosts.
func (p *Provider) announce(ctx context.Context, vip *v1alpha1.VirtualIP, placed *placement) error {
	condition, ours := announcement(&vip.Status, placed)
	said := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionAnnounced)
	lost := condition.Reason == string(v1alpha1.SpeakerLost)
	if (vip.Status.Owner == "" || lost) && said != nil && said.Reason == condition.Reason && said.Message == condition.Message {
		ours = false
	}
	ours = p.isTime(vip, said, &condition, placed, ours)
	unseen := placed.l2 == nil && conflicted(vip)
	if !ours && !unseen {
		return nil
	}
	desired := vip.DeepCopy()
	if ours {
		if !lost {
			desired.Status.Owner = "" // and since when it was stays: the address has been in use
		}
		condition.ObservedGeneration = vip.Generation
		meta.SetStatusCondition(&desired.Status.Conditions, condition)
	}
	if unseen {
		meta.SetStatusCondition(&desired.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ConditionConflict, Status: metav1.ConditionFalse, Reason: string(v1alpha1.NoConflict), ObservedGeneration: vip.Generation,
			Message: "The address is not announced on the network any more, and nobody looks for other hosts there.",
		})
	}
	written, err := p.Herald.VirtualIPs.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return p.reread(ctx, vip)
	}
	if err != nil {
		return fmt.Errorf("writing the status of VirtualIP %s: %w", vip.Name, err)
	}
	p.learn(ctx, written)
	if ours && (lost || condition.Reason == string(v1alpha1.NoSession) || placed.barred) && said != nil && said.Status == metav1.ConditionTrue {
		p.Recorder.Event(written, corev1.EventTypeWarning, condition.Reason, condition.Message)
	}
	return nil
}

// pendingWord is what the status of an address is about to say, and since when.
type pendingWord struct {
	reason string
	since  time.Time
}

const (
	// takeover is how long another candidate has to take over an address whose
	// owner is lost, before that is said.
	takeover = 2 * time.Second
	// endpointsDelay is how long a new address is without endpoints before its
	// status says so: spec.hold does at once.
	endpointsDelay = 5 * time.Second
	// routersDelay is the least time for which the names of the routers differ
	// before that is written.
	routersDelay = 10 * time.Second
)

// isTime reports whether the condition is to be written now. What may pass in
// a moment, or is of words alone, waits.
func (p *Provider) isTime(vip *v1alpha1.VirtualIP, said, condition *metav1.Condition, placed *placement, ours bool) bool {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	delay := time.Duration(0)
	switch {
	case !ours:
		delete(p.pending, addr)
		return false
	case condition.Reason == string(v1alpha1.SpeakerLost) && placed.heirs:
		delay = takeover
	case condition.Reason == string(v1alpha1.NoReadyEndpoints) && said == nil:
		delay = endpointsDelay
	case condition.Reason == string(v1alpha1.Advertised) && said != nil && said.Reason == condition.Reason:
		delay = routersDelay
	}
	word := p.pending[addr]
	if word.reason != condition.Reason {
		word = pendingWord{condition.Reason, now}
	}
	if rest := word.since.Add(delay).Sub(now); rest > 0 {
		p.pending[addr] = word
		p.places.AddAfter(addr, rest)
		return false
	}
	delete(p.pending, addr)
	return true
}

// reconcilePool writes the status of a pool, if it changed.
func (p *Provider) reconcilePool(ctx context.Context, name string) error {
	p.mu.Lock()
	pool := p.poolObjects[name]
	usage := p.ledger.allocator.Usage(name)
	problems := slices.Clone(p.poolProblems[name])
	nodes, others := p.usesIn(name)
	outside := p.outsideOf(name)
	offLink := pool != nil && p.poolOffLink(pool)
	for _, sentence := range p.siegesOf(name) {
		problems = append(problems, problem{v1alpha1.HostAnswersAll, sentence})
	}
	p.mu.Unlock()
	if pool == nil {
		p.mu.Lock()
		delete(p.poolWrites, name)
		p.mu.Unlock()
		return nil
	}
	// The newest version: ours may lack what we wrote last.
	if object, exists, err := p.pools.GetStore().GetByKey(name); err == nil && exists {
		pool = object.(*v1alpha1.AddressPool)
	}
	desired := pool.DeepCopy()
	desired.Status.IPv4, desired.Status.IPv6 = addressCount(usage.V4), addressCount(usage.V6)
	desired.Status.AddressesOutside = int64(usage.Outside)
	desired.Status.Addresses = v1alpha1.OneLineOf(pool.Spec.Addresses)
	condition := poolCondition(problems, nodes, others, outside, offLink, pool.Generation)
	meta.SetStatusCondition(&desired.Status.Conditions, condition)
	if equality.Semantic.DeepEqual(pool.Status, desired.Status) {
		return nil
	}
	if rest := p.countersWait(pool, desired); rest > 0 {
		p.poolStatuses.AddAfter(name, rest)
		return nil
	}
	_, err := p.Herald.AddressPools.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of AddressPool %s: %w", name, err)
	}
	p.mu.Lock()
	p.poolWrites[name] = time.Now()
	p.mu.Unlock()
	p.tellCondition(pool, meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady), &condition)
	return nil
}

// countersDelay is the least time between two writes of the counters of a pool.
const countersDelay = 10 * time.Second

// countersWait is how long the counters of a pool wait to be written, and with
// them the names in the message of its condition. Whether the pool is in order
// does not wait.
func (p *Provider) countersWait(pool, desired *v1alpha1.AddressPool) time.Duration {
	before := meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady)
	after := meta.FindStatusCondition(desired.Status.Conditions, v1alpha1.ConditionReady)
	if before == nil || before.Status != after.Status || before.Reason != after.Reason || before.ObservedGeneration != after.ObservedGeneration {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Until(p.poolWrites[pool.Name].Add(countersDelay))
}

// tellCondition tells as an event that an object turned bad or good again.
func (p *Provider) tellCondition(object runtime.Object, before, after *metav1.Condition) {
	if before != nil && before.Reason == after.Reason && before.Message == after.Message {
		return
	}
	if after.Status == metav1.ConditionTrue {
		if before != nil && before.Status != metav1.ConditionTrue {
			p.Recorder.Event(object, corev1.EventTypeNormal, after.Reason, after.Message)
		}
		return
	}
	p.Recorder.Event(object, corev1.EventTypeWarning, after.Reason, after.Message)
}

func addressCount(usage ipam.FamilyUsage) v1alpha1.AddressCount {
	return v1alpha1.AddressCount{
		Capacity:  saturate(usage.Capacity),
		Allocated: saturate(usage.Allocated),
		Free:      saturate(usage.Free),
	}
}

func saturate(n uint64) int64 { return int64(min(n, math.MaxInt64)) }

// reconcileAdvertisement writes the status of an Advertisement, if it changed.
func (p *Provider) reconcileAdvertisement(ctx context.Context, name string) error {
	object, exists, err := p.adverts.GetStore().GetByKey(name)
	if err != nil || !exists {
		return err
	}
	advert := object.(*v1alpha1.Advertisement)
	p.mu.Lock()
	problems := p.advertProblems[name]
	nodes := advert.Status.Nodes
	for i := range p.advertisements {
		if a := &p.advertisements[i]; a.name == name {
			nodes = participants(a, p.bgpPeers, client.Objects[*corev1.Node](p.nodes.GetStore()), p.vigil.speaks)
		}
	}
	p.mu.Unlock()
	desired := advert.DeepCopy()
	desired.Status.Nodes = nodes
	desired.Status.Pools, desired.Status.Interfaces, desired.Status.Peers = v1alpha1.OneLineOf(advert.Spec.Pools), "", ""
	if advert.Spec.L2 != nil {
		desired.Status.Interfaces = v1alpha1.OneLineOf(advert.Spec.L2.Interfaces)
	}
	if advert.Spec.BGP != nil {
		desired.Status.Peers = v1alpha1.OneLineOf(advert.Spec.BGP.Peers)
	}
	condition := readyCondition(problems, "The Advertisement is in force.", advert.Generation)
	meta.SetStatusCondition(&desired.Status.Conditions, condition)
	if equality.Semantic.DeepEqual(advert.Status, desired.Status) {
		return nil
	}
	_, err = p.Herald.Advertisements.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of Advertisement %s: %w", name, err)
	}
	p.tellCondition(advert, meta.FindStatusCondition(advert.Status.Conditions, v1alpha1.ConditionReady), &condition)
	return nil
}
