package baremetal

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	coordinationinformers "k8s.io/client-go/informers/coordination/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/ipam"
)

const (
	// Waits between two attempts at an object that fails.
	retryFirst = 50 * time.Millisecond
	retryLast  = time.Minute
	// statusDelay gathers what happens around an object into one write.
	statusDelay = 500 * time.Millisecond
	// placers is how many addresses are placed at a time.
	placers = 4
)

// leaseInformer watches the speakers' Leases; each is named after its node.
func leaseInformer(client kubernetes.Interface, namespace string) cache.SharedIndexInformer {
	return coordinationinformers.NewFilteredLeaseInformer(client, namespace, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.LabelSelector = v1alpha1.SpeakerLabel
	})
}

// Start implements the service controller's Starter.
func (p *Provider) Start(ctx context.Context, wake func(types.NamespacedName), serves func(*corev1.Service) bool) error {
	p.wake, p.serves = wake, serves
	own := []cache.SharedIndexInformer{p.leases, p.pools, p.vips, p.adverts, p.peers, p.speakers}
	for _, informer := range own {
		p.running.Go(func() { informer.RunWithContext(ctx) })
	}
	p.running.Go(func() { p.cidrs.run(ctx, p.Client) })
	shared := []cache.SharedIndexInformer{p.namespaces, p.nodes, p.slices, p.Informers.Core().V1().Services().Informer()}
	synced := []cache.InformerSynced{}
	for _, informer := range append(own, shared...) {
		synced = append(synced, informer.HasSynced)
	}
	if !cache.WaitForNamedCacheSyncWithContext(ctx, synced...) {
		return ctx.Err()
	}
	p.cidrs.wait(ctx)
	p.load(ctx)
	if err := p.watch(ctx); err != nil {
		return err
	}
	p.lookAround()
	p.running.Go(func() { p.expireSpeakers(ctx) })
	p.running.Go(func() { p.watchSpeakers(ctx) })
	for range placers {
		p.running.Go(func() { work(ctx, p.places, "placing an address", p.reconcilePlace) })
	}
	p.running.Go(func() { work(ctx, p.poolStatuses, "writing the status of a pool", p.reconcilePool) })
	p.running.Go(func() {
		work(ctx, p.advertStatuses, "writing the status of an Advertisement", p.reconcileAdvertisement)
	})
	p.running.Go(func() { work(ctx, p.peerStatuses, "writing the status of a BGPPeer", p.reconcilePeer) })
	p.running.Go(func() { work(ctx, p.speakerStatuses, "writing the status of a Speaker", p.reconcileSpeaker) })
	p.running.Go(func() { work(ctx, p.retries, "trying another address", p.retry) })
	if err := p.watchSecret(ctx); err != nil {
		return err
	}
	p.secrets.Add(v1alpha1.BFDSecret)
	p.running.Go(func() { work(ctx, p.secrets, "making a Secret", p.reconcileSecret) })
	return nil
}

// Wait returns when everything has ended that Start began. Its context has to be done.
func (p *Provider) Wait() { p.running.Wait() }

// load fills the ledger from the caches, before the first assignment: every
// VirtualIP is a fact, then come the addresses that Services show without one.
// An address that another provider gave is not adopted: its Service is not ours.
func (p *Provider) load(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.readPools()
	p.readAdvertisements()
	for _, lease := range client.Objects[*coordinationv1.Lease](p.leases.GetStore()) {
		p.live.renew(lease, time.Now())
		p.heedLease(lease.Name, lease)
	}
	for _, speaker := range client.Objects[*v1alpha1.Speaker](p.speakers.GetStore()) {
		p.links.set(speaker.Name, linkPrefixes(speaker))
	}
	for _, vip := range client.Objects[*v1alpha1.VirtualIP](p.vips.GetStore()) {
		p.ledger.see(vip)
	}
	p.readOffLink()
	p.readSieges()
	p.readUses()
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return // a lister over a cache does not fail
	}
	// The oldest Service first, so that of two that show one address the same
	// one keeps it at every start.
	slices.SortFunc(services, func(a, b *corev1.Service) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, service := range services {
		if !p.serves(service) && !hasVerdict(service) {
			continue
		}
		p.adoptShown(service)
	}
	klog.FromContext(ctx).Info("Loaded", "virtualIPs", len(p.ledger.vips), "adopted", len(p.ledger.adopted), "pools", len(p.poolObjects))
}

// adoptShown keeps for the Service what it shows, as far as that can be had; the
// caller locks.
func (p *Provider) adoptShown(service *corev1.Service) {
	shown := shownBy(service)
	if len(shown) == 0 {
		return
	}
	request, _, refusal := parseRequest(service, p.namespaceLabels(service.Namespace))
	if refusal != nil {
		request = &ipam.Request{Key: keyOf(service)}
	}
	request.Now = service.CreationTimestamp.Time
	for _, addr := range shown {
		p.ledger.adopt(addr, request)
	}
}

// lookAround has everything looked at once: what changed while nobody looked.
func (p *Provider) lookAround() {
	p.mu.Lock()
	vips := slices.Collect(maps.Values(p.ledger.vips))
	var adopted []ipam.Key
	for _, services := range p.ledger.adopted {
		adopted = slices.AppendSeq(adopted, maps.Keys(services))
	}
	p.mu.Unlock()
	// The Service of a claim may have gone.
	p.wakeClaims(vips...)
	for _, key := range adopted {
		p.wakeKey(key)
	}
	p.placeAll()
}

// watch connects the informers with the work they make.
func (p *Provider) watch(ctx context.Context) error {
	for _, w := range []struct {
		informer cache.SharedIndexInformer
		changed  func(before, after any)
	}{
		{p.vips, func(before, after any) {
			p.vipChanged(ctx, as[v1alpha1.VirtualIP](before), as[v1alpha1.VirtualIP](after))
		}},
		{p.slices, func(before, after any) {
			p.endpointsChanged(as[discoveryv1.EndpointSlice](before), as[discoveryv1.EndpointSlice](after))
		}},
		{p.nodes, func(before, after any) { p.nodeChanged(as[corev1.Node](before), as[corev1.Node](after)) }},
		{p.leases, func(before, after any) {
			p.leaseChanged(ctx, as[coordinationv1.Lease](before), as[coordinationv1.Lease](after))
		}},
		{p.pools, func(before, after any) {
			p.poolChanged(as[v1alpha1.AddressPool](before), as[v1alpha1.AddressPool](after))
		}},
		{p.adverts, func(before, after any) {
			p.advertisementChanged(as[v1alpha1.Advertisement](before), as[v1alpha1.Advertisement](after))
		}},
		{p.peers, func(before, after any) { p.peerChanged(as[v1alpha1.BGPPeer](before), as[v1alpha1.BGPPeer](after)) }},
		{p.speakers, func(before, after any) { p.speakerChanged(as[v1alpha1.Speaker](before), as[v1alpha1.Speaker](after)) }},
		{p.Informers.Core().V1().Services().Informer(), func(before, after any) {
			p.serviceChanged(as[corev1.Service](before), as[corev1.Service](after))
		}},
		{p.cidrs.informer, func(before, after any) {
			p.serviceCIDRChanged(as[networkingv1.ServiceCIDR](before), as[networkingv1.ServiceCIDR](after))
		}},
		{p.namespaces, func(before, after any) { p.namespaceChanged(as[corev1.Namespace](before), as[corev1.Namespace](after)) }},
	} {
		_, err := w.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { w.changed(nil, object) },
			UpdateFunc: w.changed,
			DeleteFunc: func(object any) {
				if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
					object = withoutVersion(unknown.Obj)
				}
				w.changed(object, nil)
			},
		})
		if err != nil {
			return fmt.Errorf("watching what addresses depend on: %w", err)
		}
	}
	return nil
}

// withoutVersion is a VirtualIP that is in no list any more: its version is that
// of an earlier one, which there may never have been after etcd was restored.
func withoutVersion(object any) any {
	vip, ok := object.(*v1alpha1.VirtualIP)
	if !ok {
		return object
	}
	bare := *vip
	bare.ResourceVersion = ""
	return &bare
}

// as is the object as a *T, nil if it is none.
func as[T any](object any) *T {
	typed, _ := object.(*T)
	return typed
}

// vipChanged takes in what the API server says of a VirtualIP. Our own writes
// are known already and make no work.
func (p *Provider) vipChanged(ctx context.Context, before, after *v1alpha1.VirtualIP) {
	if after == nil {
		p.vipDeleted(ctx, before)
		return
	}
	p.mu.Lock()
	restored := before != nil && older(after.ResourceVersion, before.ResourceVersion) && p.ledger.ahead(after)
	p.mu.Unlock()
	if restored {
		p.rewind(ctx)
	}
	p.mu.Lock()
	known, fresh := p.ledger.see(after)
	p.mu.Unlock()
	if fresh {
		p.news(ctx, known, after)
	}
}

// rewind takes in that etcd was restored from a backup, as an informer has told
// of an older version than before: what informers have counts from now on.
func (p *Provider) rewind(ctx context.Context) {
	type change struct{ known, now *v1alpha1.VirtualIP }
	var changes []change
	p.mu.Lock()
	p.restored = time.Now()
	p.ledger.rewind(client.Objects[*v1alpha1.VirtualIP](p.vips.GetStore()), func(known, now *v1alpha1.VirtualIP) {
		changes = append(changes, change{known, now})
	})
	p.mu.Unlock()
	for _, c := range changes {
		p.news(ctx, c.known, c.now)
	}
}

// restoredFor is how long after a restore informers may still have what was
// before: each lists anew with a backoff of its own.
const restoredFor = 2 * time.Minute

// notYet is for a Service that is not, or is not there, as we know it.
var notYet = api.NewRetryError("the Service is known as it was before etcd was restored", time.Second)

// stale reports, for some time after a restore, that the Service is not what we
// think: nothing is to be decided about it before we know better.
func (p *Provider) stale(ctx context.Context, service *corev1.Service) error {
	p.mu.Lock()
	restored := p.restored
	p.mu.Unlock()
	if restored.IsZero() || time.Since(restored) > restoredFor {
		return nil
	}
	// A list, which is a right that there is already.
	list, err := p.Client.CoreV1().Services(service.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, service.Name).String(),
	})
	if err != nil {
		return fmt.Errorf("reading Service %s/%s: %w", service.Namespace, service.Name, err)
	}
	if len(list.Items) == 0 && service.UID == "" {
		return nil
	}
	if len(list.Items) == 0 || list.Items[0].UID != service.UID || older(list.Items[0].ResourceVersion, service.ResourceVersion) {
		return notYet
	}
	return nil
}

// learn takes in a version of a VirtualIP that we asked for.
func (p *Provider) learn(ctx context.Context, vip *v1alpha1.VirtualIP) {
	p.mu.Lock()
	known, fresh := p.ledger.answered(vip)
	p.mu.Unlock()
	if fresh {
		p.news(ctx, known, vip)
	}
}

// news does what follows from a version of a VirtualIP that others wrote.
func (p *Provider) news(ctx context.Context, known, after *v1alpha1.VirtualIP) {
	addr, err := v1alpha1.ParseVirtualIPName(after.Name)
	if err != nil {
		return
	}
	p.expectSpeaker(after.Status.Owner)
	if saysOther(known, after) {
		p.wakeClaims(after)
	}
	p.tellOwner(ctx, known, after)
	p.tellConflict(ctx, addr, known, after)
	p.siegeChanged(after)
	if owner := after.Status.Owner; owner != "" && owner != firstOf(after.Spec.L2) {
		p.places.Add(addr)
	}
	if known != nil && byBGPAlone(after) && !equality.Semantic.DeepEqual(known.Status.Conditions, after.Status.Conditions) {
		p.places.Add(addr) // it is ours to say
	}
	if known != nil && known.Generation == after.Generation {
		return
	}
	p.wakeClaims(known, after)
	if reserved := after.Spec.ReservedFor; reserved != nil {
		p.wakeKey(ipam.Key{Namespace: reserved.Namespace, Name: reserved.Name})
	}
	p.places.Add(addr)
	p.lockedCountPool(addr, known, after)
	if known != nil && len(known.Spec.Claims) > len(after.Spec.Claims) {
		p.wakeWaiting()
	}
}

// vipDeleted takes in that a VirtualIP is gone. If that was not us and Services
// use it, they keep the address: it is made again.
func (p *Provider) vipDeleted(ctx context.Context, vip *v1alpha1.VirtualIP) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil {
		return
	}
	p.mu.Lock()
	missing := vip.ResourceVersion == "" // in a list, perhaps after a restore: then Services may be known from before it
	restored := missing && !p.restored.IsZero() && time.Since(p.restored) < restoredFor
	if missing {
		p.restored = time.Now()
	}
	// Not news if the answer to our own deletion came first; when it comes
	// later, nobody is left to keep the address for.
	news := p.ledger.bury(vip, true)
	kept := news && !restored && p.ledger.keep(addr, vip, func(key ipam.Key) bool {
		service, err := p.services.Services(key.Namespace).Get(key.Name)
		return err == nil && p.serves(service) && slices.Contains(shownBy(service), addr)
	})
	p.mu.Unlock()
	if !news {
		return
	}
	if kept {
		p.event(ctx, vip, corev1.EventTypeWarning, v1alpha1.VirtualIPRemade,
			fmt.Sprintf("VirtualIP %s was deleted while in use and is made again: to free the address, delete the Service or change its type.", vip.Name))
	}
	p.siegeChanged(vip)
	p.wakeClaims(vip)
	p.wakeWaiting()
	p.lockedCountPool(addr, vip)
}

// tellOwner tells the Services when another node took over their address.
func (p *Provider) tellOwner(ctx context.Context, before, after *v1alpha1.VirtualIP) {
	if before == nil || before.Status.Owner == "" || after.Status.Owner == "" || before.Status.Owner == after.Status.Owner {
		return
	}
	p.event(ctx, after, corev1.EventTypeNormal, v1alpha1.Announced,
		fmt.Sprintf("%s moved from node %s to node %s.", after.Spec.Address, before.Status.Owner, after.Status.Owner))
}

func (p *Provider) endpointsChanged(before, after *discoveryv1.EndpointSlice) {
	for _, slice := range []*discoveryv1.EndpointSlice{before, after} {
		if slice == nil {
			continue
		}
		key := ipam.Key{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
		p.mu.Lock()
		held := p.ledger.allocator.Held(key)
		p.mu.Unlock()
		for _, addr := range held {
			p.places.Add(addr)
		}
		if before != nil && after != nil && before.Labels[discoveryv1.LabelServiceName] == after.Labels[discoveryv1.LabelServiceName] {
			return
		}
	}
}

func (p *Provider) nodeChanged(before, after *corev1.Node) {
	p.usesChanged(source{kind: "Node", name: cmp.Or(after, before).Name}, nodeUses(after))
	if before == nil || after == nil || unfit(before) != unfit(after) || before.Spec.Unschedulable != after.Spec.Unschedulable ||
		!maps.Equal(before.Labels, after.Labels) {
		p.nodesChanged()
		return
	}
	if !slices.Equal(v1alpha1.InternalIPs(before), v1alpha1.InternalIPs(after)) {
		p.placeCandidate(after.Name)
	}
}

// speakerChanged looks at how the node is reached, and at its sessions; the
// rest of what a speaker says of itself, often, makes no work.
func (p *Provider) speakerChanged(before, after *v1alpha1.Speaker) {
	var was, is v1alpha1.SpeakerStatus
	name := ""
	if before != nil {
		name, was = before.Name, before.Status
	}
	if after != nil {
		name, is = after.Name, after.Status
	}
	if after != nil {
		p.expectSpeaker(name)
		p.speakerStatuses.Add(name)
	}
	if !equality.Semantic.DeepEqual(was.Interfaces, is.Interfaces) {
		p.usesChanged(source{kind: "Speaker", name: name}, speakerUses(after))
	}
	if was.SignsMarks != is.SignsMarks || !equality.Semantic.DeepEqual(was.Interfaces, is.Interfaces) {
		p.placeCandidate(name)
	}
	p.mu.Lock()
	relinked := p.links.set(name, linkPrefixes(after))
	p.mu.Unlock()
	if relinked {
		p.linksChanged()
	}
	p.sessionsChanged(&was, &is)
}

// placeCandidate has the addresses looked at that the node is a candidate of.
func (p *Provider) placeCandidate(node string) {
	p.mu.Lock()
	var addresses []netip.Addr
	for addr, vip := range p.ledger.vips {
		if vip.Spec.L2 != nil && slices.Contains(vip.Spec.L2.Candidates, node) {
			addresses = append(addresses, addr)
		}
	}
	p.mu.Unlock()
	for _, addr := range addresses {
		p.places.Add(addr)
	}
}

func (p *Provider) leaseChanged(ctx context.Context, before, after *coordinationv1.Lease) {
	name := ""
	if before != nil && after != nil && older(after.ResourceVersion, before.ResourceVersion) {
		p.rewind(ctx) // of all objects Leases change most
	}
	p.mu.Lock()
	switch {
	case after != nil:
		name = after.Name
		alive := p.live.alive(name)
		p.live.renew(after, time.Now())
		if back := p.heedLease(name, after); alive == p.live.alive(name) && !back {
			name = ""
		}
	case before != nil:
		name = before.Name
		p.live.forget(name)
		p.heedLease(name, nil)
	}
	p.mu.Unlock()
	p.pokeWatch()
	select {
	case p.beats <- struct{}{}:
	default:
	}
	if name != "" {
		p.nodesChanged()
	}
}

// expireSpeakers notices the speakers whose Lease is not renewed.
func (p *Provider) expireSpeakers(ctx context.Context) {
	whenDue(ctx, p.beats, func() time.Time {
		p.mu.Lock()
		changed, next := p.live.expire(time.Now())
		p.mu.Unlock()
		if changed {
			p.nodesChanged()
		}
		return next
	})
}

// whenDue calls look at once, when it is poked, and at the time that look
// returned, zero being never, until ctx is done.
func whenDue(ctx context.Context, poked <-chan struct{}, look func() (next time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-poked:
		case <-timer.C:
		}
		if next := look(); next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

func (p *Provider) poolChanged(before, after *v1alpha1.AddressPool) {
	if before != nil && after != nil && before.Generation == after.Generation && maps.Equal(before.Labels, after.Labels) {
		return
	}
	p.mu.Lock()
	p.readPools()
	changed := p.readServiceUses()
	p.readAdvertisements()
	names := slices.Collect(maps.Keys(p.poolObjects))
	var given []*v1alpha1.VirtualIP
	modeChanged := before != nil && after != nil && (before.Spec.IPMode != after.Spec.IPMode || before.Spec.Announce != after.Spec.Announce)
	for _, vip := range p.ledger.vips {
		if after != nil && vip.Spec.Pool == after.Name || before != nil && vip.Spec.Pool == before.Name {
			given = append(given, vip)
		}
	}
	p.mu.Unlock()
	for _, name := range names {
		p.poolStatuses.AddAfter(name, statusDelay)
	}
	p.followUses(changed)
	p.checkAdvertisements()
	for _, vip := range given {
		if addr, err := v1alpha1.ParseVirtualIPName(vip.Name); err == nil {
			p.places.Add(addr)
		}
		if modeChanged {
			p.wakeClaims(vip)
		}
	}
	p.wakeWaiting()
}

func (p *Provider) advertisementChanged(before, after *v1alpha1.Advertisement) {
	if before != nil && after != nil && before.Generation == after.Generation {
		return
	}
	p.mu.Lock()
	p.readAdvertisements()
	p.mu.Unlock()
	p.checkAdvertisements()
	p.placeAll()
}

func (p *Provider) checkAdvertisements() {
	for _, advert := range client.Objects[*v1alpha1.Advertisement](p.adverts.GetStore()) {
		p.advertStatuses.Add(advert.Name)
	}
}

func (p *Provider) namespaceChanged(before, after *corev1.Namespace) {
	if before == nil || after == nil || reflect.DeepEqual(before.Labels, after.Labels) {
		return
	}
	p.mu.Lock()
	var keys []ipam.Key
	for key := range p.waiting {
		if key.Namespace == after.Name {
			keys = append(keys, key)
		}
	}
	p.mu.Unlock()
	for _, key := range keys {
		p.wakeKey(key)
	}
	p.placeAll()
}

// nodesChanged has looked at all that depends on which nodes there are.
func (p *Provider) nodesChanged() {
	p.placeAll()
	p.checkPools()
	for _, advert := range client.Objects[*v1alpha1.Advertisement](p.adverts.GetStore()) {
		p.advertStatuses.AddAfter(advert.Name, statusDelay)
	}
	for _, peer := range client.Objects[*v1alpha1.BGPPeer](p.peers.GetStore()) {
		p.peerStatuses.AddAfter(peer.Name, statusDelay)
	}
}

func (p *Provider) placeAll() {
	p.mu.Lock()
	addresses := slices.Collect(maps.Keys(p.ledger.vips))
	p.mu.Unlock()
	for _, addr := range addresses {
		p.places.Add(addr)
	}
}

func (p *Provider) lockedCountPool(addr netip.Addr, vips ...*v1alpha1.VirtualIP) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countPool(addr, vips...)
}

// countPool has the pools of a VirtualIP counted anew; the caller locks.
func (p *Provider) countPool(addr netip.Addr, vips ...*v1alpha1.VirtualIP) {
	if name, ok := p.ledger.allocator.PoolOf(addr); ok {
		p.poolStatuses.AddAfter(name, statusDelay)
	}
	for _, vip := range vips {
		if vip != nil && vip.Spec.Pool != "" {
			p.poolStatuses.AddAfter(vip.Spec.Pool, statusDelay)
		}
	}
}

// readPools brings the AddressPools into the allocator; the caller locks.
func (p *Provider) readPools() {
	objects := client.Objects[*v1alpha1.AddressPool](p.pools.GetStore())
	p.poolObjects = make(map[string]*v1alpha1.AddressPool, len(objects))
	for _, object := range objects {
		p.poolObjects[object.Name] = object
	}
	pools, problems := parsePools(objects)
	for name, found := range p.ledger.allocator.SetPools(pools, p.cidrs.blocks()...) {
		for _, f := range found {
			problems[name] = append(problems[name], problem{v1alpha1.Reason(f.Reason), f.Message})
		}
	}
	p.poolProblems = problems
}

// readAdvertisements parses the Advertisements and the BGPPeers that they are
// for; the caller locks.
func (p *Provider) readAdvertisements() {
	hasPool := func(name string) bool { return p.poolObjects[name] != nil }
	hasPeer := func(name string) bool {
		_, exists, err := p.peers.GetStore().GetByKey(name)
		return err == nil && exists
	}
	p.bgpPeers = nil
	for _, object := range client.Objects[*v1alpha1.BGPPeer](p.peers.GetStore()) {
		parsed, _ := parsePeer(object) // told where its status is written
		p.bgpPeers = append(p.bgpPeers, parsed)
	}
	p.advertisements = nil
	p.advertProblems = map[string][]problem{}
	for _, object := range client.Objects[*v1alpha1.Advertisement](p.adverts.GetStore()) {
		parsed, problems := parseAdvertisement(object, hasPool, hasPeer)
		p.advertisements = append(p.advertisements, parsed)
		p.advertProblems[object.Name] = problems
	}
}

// work takes items from a queue until ctx is done; what fails comes again.
func work[T comparable](ctx context.Context, queue workqueue.TypedRateLimitingInterface[T], doing string, reconcile func(context.Context, T) error) {
	stop := context.AfterFunc(ctx, queue.ShutDown)
	defer stop()
	for {
		item, shutdown := queue.Get()
		if shutdown {
			return
		}
		err := reconcile(ctx, item)
		if err == nil || ctx.Err() != nil {
			queue.Forget(item)
		} else {
			klog.FromContext(ctx).Error(err, "Failed, will be tried again", "doing", doing, "item", item)
			queue.AddRateLimited(item)
		}
		queue.Done(item)
	}
}
