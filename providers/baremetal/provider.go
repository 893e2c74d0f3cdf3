// Package baremetal gives Services of type LoadBalancer virtual IPs from
// pools: it writes VirtualIP objects, which are the allocation, and decides
// which nodes may announce each address. Speakers do the rest.
package baremetal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/ipam"
)

// Options of a Provider.
type Options struct {
	Client    kubernetes.Interface
	Herald    *client.Clients
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	// Namespace of the speakers' Leases, and of the Secret that they share.
	Namespace string
}

// Provider serves Services with virtual IPs.
type Provider struct {
	Options
	services   corelisters.ServiceLister
	namespaces cache.SharedIndexInformer
	nodes      cache.SharedIndexInformer
	slices     cache.SharedIndexInformer
	leases     cache.SharedIndexInformer
	pools      cache.SharedIndexInformer
	vips       cache.SharedIndexInformer
	adverts    cache.SharedIndexInformer
	peers      cache.SharedIndexInformer
	speakers   cache.SharedIndexInformer
	cidrs      *serviceCIDRs
	secret     cache.SharedIndexInformer

	// wake asks the service controller to look at a Service again.
	wake func(types.NamespacedName)
	// serves reports whether a Service is ours to serve.
	serves func(*corev1.Service) bool
	// places are addresses whose placement is to be looked at, poolStatuses,
	// advertStatuses and peerStatuses objects whose status is.
	places         workqueue.TypedRateLimitingInterface[netip.Addr]
	poolStatuses   workqueue.TypedRateLimitingInterface[string]
	advertStatuses workqueue.TypedRateLimitingInterface[string]
	peerStatuses   workqueue.TypedRateLimitingInterface[string]
	// speakerStatuses are Speakers that may have to be told lost.
	speakerStatuses workqueue.TypedRateLimitingInterface[string]
	// secrets are the names of Secrets that are to be there.
	secrets workqueue.TypedRateLimitingInterface[string]
	// beats and watches are poked when a Lease changes.
	beats, watches chan struct{}
	running        sync.WaitGroup // what Start began

	mu     sync.Mutex
	ledger *ledger
	// restored is when a restore of etcd was last noticed.
	restored time.Time
	live     liveness
	vigil    vigil
	uses     uses
	// waiting are Services that lack an address, with the reason.
	waiting map[ipam.Key]*v1alpha1.Refusal
	// ignored are sentences about annotations that do nothing, told of Services.
	ignored map[ipam.Key][]string
	// apart are Services that could not join the others of their sharing key.
	apart map[ipam.Key]bool
	// poolObjects and problems are the AddressPools by name.
	poolObjects    map[string]*v1alpha1.AddressPool
	poolProblems   map[string][]problem
	advertisements []advertisement
	advertProblems map[string][]problem
	bgpPeers       []bgpPeer
	peerWatches    map[string]peerWatch
	// pending is since when the status of an address could say something else
	// that is not worth a write if it passes; poolWrites is when the counters of
	// a pool were last written.
	pending    map[netip.Addr]pendingWord
	poolWrites map[string]time.Time
	// links are those of the nodes; offLink are the addresses that no node has on one.
	links   links
	offLink map[netip.Addr]bool
	// keeps are addresses that Services keep though a foreign host has them,
	// retries are Services that may try another one, and sieges are the parts of
	// pools that a host answers all addresses of.
	keeps   map[ipam.Key][]netip.Addr
	retries workqueue.TypedRateLimitingInterface[ipam.Key]
	sieges  map[part]bool
	// tried is when another address was last tried in such a part, and ended when
	// a host has ceased to answer for all.
	tried, ended map[part]time.Time
}

var _ cloudprovider.LoadBalancer = (*Provider)(nil)

// byService is the index of EndpointSlices by namespace/name of the Service.
const byService = "service"

// New returns a Provider; it registers the informers that it needs.
func New(options Options) (*Provider, error) {
	core := options.Informers.Core().V1()
	p := &Provider{
		Options:         options,
		services:        core.Services().Lister(),
		namespaces:      core.Namespaces().Informer(),
		nodes:           core.Nodes().Informer(),
		slices:          options.Informers.Discovery().V1().EndpointSlices().Informer(),
		leases:          leaseInformer(options.Client, options.Namespace),
		pools:           client.Informer(options.Herald.AddressPools, &v1alpha1.AddressPool{}),
		vips:            client.Informer(options.Herald.VirtualIPs, &v1alpha1.VirtualIP{}),
		adverts:         client.Informer(options.Herald.Advertisements, &v1alpha1.Advertisement{}),
		peers:           client.Informer(options.Herald.BGPPeers, &v1alpha1.BGPPeer{}),
		speakers:        client.Informer(options.Herald.Speakers, &v1alpha1.Speaker{}),
		cidrs:           newServiceCIDRs(options.Client),
		uses:            newUses(),
		places:          newQueue[netip.Addr]("placement"),
		poolStatuses:    newQueue[string]("pool-status"),
		advertStatuses:  newQueue[string]("advertisement-status"),
		peerStatuses:    newQueue[string]("peer-status"),
		speakerStatuses: newQueue[string]("speaker-status"),
		secrets:         newQueue[string]("secret"),
		beats:           make(chan struct{}, 1),
		watches:         make(chan struct{}, 1),
		pending:         map[netip.Addr]pendingWord{},
		poolWrites:      map[string]time.Time{},
		waiting:         map[ipam.Key]*v1alpha1.Refusal{},
		ignored:         map[ipam.Key][]string{},
		apart:           map[ipam.Key]bool{},
		peerWatches:     map[string]peerWatch{},
		wake:            func(types.NamespacedName) {},
		serves:          func(*corev1.Service) bool { return false },
		links:           newLinks(),
		offLink:         map[netip.Addr]bool{},
		keeps:           map[ipam.Key][]netip.Addr{},
		retries:         newQueue[ipam.Key]("retry"),
		sieges:          map[part]bool{},
		tried:           map[part]time.Time{},
		ended:           map[part]time.Time{},
	}
	p.ledger = newLedger(p.holding)
	p.ledger.created = p.createdAt
	var err error
	if p.secret, err = secretInformer(options.Client, options.Namespace, v1alpha1.BFDSecret); err != nil {
		return nil, fmt.Errorf("preparing to watch the Secret of the speakers: %w", err)
	}
	if err := client.IndexSlices(p.slices, byService); err != nil {
		return nil, err
	}
	return p, nil
}

func newQueue[T comparable](name string) workqueue.TypedRateLimitingInterface[T] {
	return workqueue.NewTypedRateLimitingQueueWithConfig(
		workqueue.NewTypedItemExponentialFailureRateLimiter[T](retryFirst, retryLast),
		workqueue.TypedRateLimitingQueueConfig[T]{Name: name})
}

// holding completes a claim with the selector of its Service.
func (p *Provider) holding(claim *v1alpha1.Claim, pool string) ipam.Claim {
	service, err := p.services.Services(claim.Namespace).Get(claim.Name)
	if err != nil {
		service = nil
	}
	return holdingFor(claim, pool, service)
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer.
func (p *Provider) GetLoadBalancerName(_ context.Context, _ string, service *corev1.Service) string {
	return cloudprovider.DefaultLoadBalancerName(service)
}

// GetLoadBalancer implements cloudprovider.LoadBalancer: a load balancer
// exists as long as an address is the Service's, or it waits for one. The status
// has what was given to this very Service: not what an earlier one of its name
// had, nor what it shows and was given by somebody else.
func (p *Provider) GetLoadBalancer(_ context.Context, _ string, service *corev1.Service) (*corev1.LoadBalancerStatus, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := keyOf(service)
	held := p.ledger.allocator.Held(key)
	if len(held) == 0 {
		return nil, p.waiting[key] != nil, nil
	}
	held = slices.DeleteFunc(held, func(addr netip.Addr) bool { return !p.claims(addr, service) })
	return p.status(held, ""), true, nil
}

// claims reports whether the VirtualIP of the address says that it is this very
// Service's; the caller locks.
func (p *Provider) claims(addr netip.Addr, service *corev1.Service) bool {
	vip := p.ledger.vips[addr]
	if vip == nil {
		return false
	}
	i := findClaim(vip, service.Namespace, service.Name)
	return i >= 0 && vip.Spec.Claims[i].UID == service.UID
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer. Nodes are no part
// of what is configured for a Service here.
func (p *Provider) UpdateLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) error {
	return nil
}

// errStale says that somebody else wrote a VirtualIP first: look again.
var errStale = errors.New("the VirtualIP was written by another")

// attempts at an assignment before the Service goes back into the queue, with
// the error busy.
const attempts = 5

var busy = api.NewRetryError("others keep writing the VirtualIP", 100*time.Millisecond)

// EnsureLoadBalancer implements cloudprovider.LoadBalancer: it assigns what
// addresses the Service lacks. The error is a *v1alpha1.Refusal when the
// Service cannot be served as it is, or not now; it is woken when that may
// have changed. The status beside a refusal has what it holds all the same.
func (p *Provider) EnsureLoadBalancer(ctx context.Context, _ string, service *corev1.Service, _ []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	if err := p.stale(ctx, service); err != nil {
		return nil, err
	}
	p.tellIgnored(service)
	parted := p.partedFrom(service)
	for range attempts {
		status, err := p.ensure(ctx, service)
		if refusal, ok := errors.AsType[*v1alpha1.Refusal](err); ok {
			err = withIgnored(service, refusal)
		}
		if !errors.Is(err, errStale) {
			// Once more: the holder may have been edited meanwhile.
			p.tellParted(service, append(parted, p.partedFrom(service)...), status)
			return status, err
		}
	}
	return nil, busy
}

func (p *Provider) ensure(ctx context.Context, service *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	request, asked, refusal := parseRequest(service, p.namespaceLabels(service.Namespace))
	if refusal != nil {
		return p.refuse(ctx, service, nil, refusal)
	}
	if err := p.copySourceRanges(ctx, service); err != nil {
		return p.lockedKept(service), err
	}
	lacks, refusal := p.closeFamilies(service, request)
	if refusal != nil {
		return p.refuse(ctx, service, request, refusal)
	}
	outdated := p.isOutdated(request.Key)
	writes, assignment, err := p.assign(service, request, asked.IPMode, lacks)
	if refusal, ok := errors.AsType[*v1alpha1.Refusal](err); ok {
		return p.refuse(ctx, service, request, refusal)
	}
	if err != nil {
		return p.lockedKept(service), err
	}
	if err := p.writeAll(ctx, writes); err != nil {
		return nil, err
	}
	if outdated {
		p.wakeWaiting() // who may join now
	}
	addresses := make([]netip.Addr, len(assignment.Addresses))
	for i, given := range assignment.Addresses {
		addresses[i] = given.Addr
	}
	p.mu.Lock()
	status, replaced := p.closed(service, p.status(addresses, asked.IPMode)), p.replacements(&assignment)
	notes := p.sharingNotes(request)
	p.mu.Unlock()
	p.tellNotes(service, notes)
	for _, message := range replaced {
		p.Recorder.Event(service, corev1.EventTypeWarning, string(v1alpha1.AddressConflict), message)
	}
	return status, nil
}

// refuse leaves a refused Service what it has, which is made again where it
// was lost, but for addresses that it forfeits. A claim of an earlier Service
// of its name is no claim of its. request is nil when it cannot be read.
func (p *Provider) refuse(
	ctx context.Context, service *corev1.Service, request *ipam.Request, refusal *v1alpha1.Refusal,
) (*corev1.LoadBalancerStatus, error) {
	p.mu.Lock()
	key, claim, shown := keyOf(service), claimFor(service), shownBy(service)
	p.ledger.disown(key, shown)
	forfeited := p.forfeited(service, request)
	inherited := slices.Clone(forfeited)
	var writes []*claimWrite
	for _, addr := range p.ledger.allocator.Held(key) {
		vip := p.ledger.vips[addr]
		i := -1
		if vip != nil {
			i = findClaim(vip, key.Namespace, key.Name)
		}
		switch {
		case slices.Contains(forfeited, addr):
		case i < 0:
			pool, _ := p.ledger.allocator.PoolOf(addr)
			writes = append(writes, p.planClaim(key, ipam.Assigned{Addr: addr, Pool: pool}, claim)...)
		case vip.Spec.Claims[i].UID != service.UID:
			inherited = append(inherited, addr)
		default:
			writes = append(writes, p.planRefused(service, request, addr)...)
		}
	}
	writes = append(writes, p.planReleases(key, inherited, shown)...)
	for _, addr := range p.ledger.allocator.Held(key) {
		p.places.Add(addr) // what it is refused for may keep it from being announced
	}
	p.mu.Unlock()
	if err := p.writeAll(ctx, writes); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed(service, p.kept(service, forfeited...)), refusal
}

// copySourceRanges brings the source ranges of the old annotation into the
// field, where kube-proxy finds them: it does not read the annotation, and a
// Service whose clients are meant to be few must not be open to all.
func (p *Provider) copySourceRanges(ctx context.Context, service *corev1.Service) error {
	ranges, refusal := annotations.SourceRanges(service)
	if refusal != nil || len(ranges) == 0 || len(service.Spec.LoadBalancerSourceRanges) > 0 {
		return nil //nolint:nilerr // parseRequest tells of a refusal
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": service.UID, "resourceVersion": service.ResourceVersion},
		"spec":     map[string]any{"loadBalancerSourceRanges": ranges},
	})
	if err != nil {
		return err
	}
	_, err = p.Client.CoreV1().Services(service.Namespace).Patch(ctx, service.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return fmt.Errorf("writing the source ranges of Service %s/%s: %w", service.Namespace, service.Name, err)
	}
	p.Recorder.Event(service, corev1.EventTypeNormal, string(v1alpha1.SourceRangesCopied), fmt.Sprintf(
		"The annotation %s was copied into spec.loadBalancerSourceRanges, which is what kube-proxy enforces. From now on the field counts: remove the annotation.",
		corev1.AnnotationLoadBalancerSourceRangesKey))
	return nil
}

// assign decides which addresses the Service has from now on, and plans the
// writes that make it so. Workers do not wait for each other's writes. mode is
// the ipMode that the Service asks for, lacks what it does not get.
func (p *Provider) assign(service *corev1.Service, request *ipam.Request, mode corev1.LoadBalancerIPMode, lacks *v1alpha1.Refusal) ([]*claimWrite, ipam.Assignment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	shown := shownBy(service)
	request.Now = time.Now()
	for _, addr := range shown {
		p.ledger.adopt(addr, request)
	}
	p.renewInherited(service, request.Now)
	assignment, err := p.assignKeeping(request)
	if refused, ok := errors.AsType[*ipam.Refusal](err); ok {
		refusal := &v1alpha1.Refusal{Reason: v1alpha1.Reason(refused.Reason), Message: refused.Message}
		if vip := p.conflictOf(request); vip != nil {
			refusal = &v1alpha1.Refusal{Reason: v1alpha1.AddressConflict, Message: conflictMessage(vip) + " " + refused.Message}
		}
		p.waiting[request.Key] = refusal
		return nil, assignment, refusal
	}
	if err != nil {
		return nil, assignment, err
	}
	if refusal := p.proxyAnnounced(&assignment, mode); refusal != nil {
		p.waiting[request.Key] = refusal
		return nil, assignment, refusal
	}
	delete(p.waiting, request.Key)
	if len(assignment.Missing) > 0 {
		missing := assignment.Missing[0]
		lacks = &v1alpha1.Refusal{Reason: v1alpha1.Reason(missing.Reason), Message: missing.Message}
	}
	if lacks != nil {
		p.waiting[request.Key] = lacks
	}
	p.ledger.disown(request.Key, shown)
	p.noteApart(request)
	for _, given := range assignment.Addresses {
		// Advertisements may choose by the labels of the Service, and its source
		// ranges may leave the family of an address open.
		if vip := p.ledger.vips[given.Addr]; len(p.advertisements) > 0 || vip != nil && (restricted(service) || vip.Spec.Hold != "") {
			p.places.Add(given.Addr)
		}
	}
	writes := p.planWrites(service, request.Key, &assignment, shown)
	return writes, assignment, nil
}

// planWrites turns an assignment into writes: claims first, so that the
// Service never has less than before.
func (p *Provider) planWrites(service *corev1.Service, key ipam.Key, assignment *ipam.Assignment, shown []netip.Addr) []*claimWrite {
	var writes []*claimWrite
	claim := claimFor(service)
	for _, given := range assignment.Addresses {
		writes = append(writes, p.planClaim(key, given, claim)...)
	}
	for _, addr := range assignment.Released {
		p.ledger.mirror(addr) // held until the VirtualIP says otherwise
	}
	return append(writes, p.planReleases(key, assignment.Released, shown)...)
}

// planClaim turns an address that the Service has into a write, if that is any.
func (p *Provider) planClaim(key ipam.Key, given ipam.Assigned, claim v1alpha1.Claim) []*claimWrite {
	vip := p.ledger.vips[given.Addr]
	if held, ok := p.ledger.allocator.Claim(given.Addr, key); ok {
		claim.Grandfathered = held.Grandfathered
		if !held.Since.IsZero() {
			claim.Since = &metav1.MicroTime{Time: held.Since}
		}
	}
	desired, changed := claimed(vip, given.Addr, given.Pool, p.reclaimPolicy(given.Pool), claim)
	if !changed && !p.ledger.unsettled[given.Addr] {
		return nil
	}
	owner := ""
	if vip == nil || len(vip.Spec.Claims) == 0 {
		p.placeSpec(given.Addr, desired)
		owner = firstOf(desired.Spec.L2)
	}
	p.ledger.begin(given.Addr, key, owner)
	return []*claimWrite{{addr: given.Addr, key: key, before: vip, desired: desired}}
}

// planReleases turns addresses to release into writes, but not before the
// Service stops showing them.
func (p *Provider) planReleases(key ipam.Key, addresses, shown []netip.Addr) []*claimWrite {
	var writes []*claimWrite
	for _, addr := range addresses {
		vip := p.ledger.vips[addr]
		if vip == nil || findClaim(vip, key.Namespace, key.Name) < 0 || slices.Contains(shown, addr) {
			continue
		}
		p.ledger.begin(addr, key, "")
		writes = append(writes, &claimWrite{addr: addr, key: key, before: vip, desired: unclaimed(vip, key)})
	}
	return writes
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer: it gives
// back every address of the Service.
func (p *Provider) EnsureLoadBalancerDeleted(ctx context.Context, _ string, service *corev1.Service) error {
	if err := p.stale(ctx, service); err != nil {
		return err
	}
	for range attempts {
		err := p.delete(ctx, keyOf(service))
		if !errors.Is(err, errStale) {
			return err
		}
	}
	return busy
}

func (p *Provider) delete(ctx context.Context, key ipam.Key) error {
	p.mu.Lock()
	delete(p.waiting, key)
	delete(p.ignored, key)
	delete(p.apart, key)
	delete(p.keeps, key)
	held := p.ledger.allocator.Held(key)
	p.ledger.disown(key, nil)
	writes := p.planReleases(key, held, nil)
	p.mu.Unlock()
	if err := p.writeAll(ctx, writes); err != nil {
		return err
	}
	if len(held) > len(writes) {
		p.wakeWaiting() // something was adopted
	}
	return nil
}

// claimWrite is one VirtualIP to write for a Service; desired nil deletes it.
type claimWrite struct {
	addr    netip.Addr
	key     ipam.Key
	before  *v1alpha1.VirtualIP
	desired *v1alpha1.VirtualIP
	ended   bool
}

// releases says whether the write takes a Service off an address.
func (w *claimWrite) releases() bool {
	return w.desired == nil || w.before != nil && len(w.desired.Spec.Claims) < len(w.before.Spec.Claims)
}

// writeAll makes the writes in order, up to one that fails. Who waits for an
// address is woken when one may be free.
func (p *Provider) writeAll(ctx context.Context, writes []*claimWrite) error {
	for _, write := range writes {
		if err := p.write(ctx, write); err != nil {
			p.abandon(writes)
			return err
		}
	}
	for _, write := range writes {
		p.wakeSharers(write)
	}
	if slices.ContainsFunc(writes, (*claimWrite).releases) || slices.ContainsFunc(writes, (*claimWrite).opens) {
		p.wakeWaiting()
	}
	return nil
}

// write brings one VirtualIP to the API server and the answer into the ledger.
// The API server refuses it when our knowledge is old: then the ledger learns
// what there is and the error is errStale.
func (p *Provider) write(ctx context.Context, w *claimWrite) error {
	var vip *v1alpha1.VirtualIP
	var err error
	if w.desired != nil {
		w.desired.Spec.Summarize()
	}
	switch {
	case w.desired == nil:
		err = p.Herald.VirtualIPs.Delete(ctx, w.before.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
			UID: &w.before.UID, ResourceVersion: &w.before.ResourceVersion,
		}})
		if apierrors.IsNotFound(err) {
			err = nil
		}
	case w.before == nil:
		vip, err = p.Herald.VirtualIPs.Create(ctx, w.desired, metav1.CreateOptions{})
	default:
		vip, err = p.Herald.VirtualIPs.Update(ctx, w.desired, metav1.UpdateOptions{})
	}
	if apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err) {
		return p.refresh(ctx, w)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil && vip != nil {
		p.ledger.answered(vip)
	}
	if err == nil && vip == nil {
		p.ledger.bury(w.before, false)
	}
	p.end(w)
	if err != nil {
		return fmt.Errorf("writing VirtualIP %s: %w", v1alpha1.VirtualIPName(w.addr), err)
	}
	p.countPool(w.addr, w.desired)
	if w.desired != nil {
		// The claims decide who may announce it, and what else that depends on
		// may have changed while this was written.
		p.places.Add(w.addr)
	}
	return nil
}

// refresh asks the API server for the VirtualIP that could not be written.
func (p *Provider) refresh(ctx context.Context, w *claimWrite) error {
	name := v1alpha1.VirtualIPName(w.addr)
	vip, err := p.Herald.VirtualIPs.Get(ctx, name, metav1.GetOptions{})
	if err == nil {
		p.learn(ctx, vip)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.end(w)
	if apierrors.IsNotFound(err) {
		if w.before != nil {
			p.ledger.bury(w.before, false)
		}
		return errStale
	}
	if err != nil {
		return fmt.Errorf("reading VirtualIP %s: %w", name, err)
	}
	return errStale
}

// end says that a write is over; the caller locks.
func (p *Provider) end(w *claimWrite) {
	if !w.ended {
		w.ended = true
		p.ledger.done(w.addr, w.key)
	}
}

// abandon ends the writes that were not made.
func (p *Provider) abandon(writes []*claimWrite) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range writes {
		p.end(w)
	}
}

// Explain implements the service controller's Explainer: the addresses with
// their pools, and what the Service lacks.
func (p *Provider) Explain(service *corev1.Service) (ready bool, reason v1alpha1.Reason, message string) {
	request, _, refusal := parseRequest(service, p.namespaceLabels(service.Namespace))
	if refusal != nil {
		return false, "", ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	request.Keeps = p.keeps[request.Key]
	var given, remarks []string
	for _, vip := range p.servedAt(request) {
		given = append(given, fmt.Sprintf("%s from pool %q", vip.Spec.Address, vip.Spec.Pool))
		if addr, err := v1alpha1.ParseVirtualIPName(vip.Name); err == nil {
			if _, sentence := p.ledger.allocator.Obstacle(addr, request.Key); sentence != "" {
				remarks = append(remarks, sentence)
			}
			if sentence := p.aside(addr, vip); sentence != "" {
				remarks = append(remarks, sentence)
			}
		}
	}
	if len(given) == 0 {
		return false, "", ""
	}
	message = strings.Join(append([]string{"Assigned " + strings.Join(given, " and ") + "."}, remarks...), " ")
	reason = v1alpha1.AddressAssigned
	for _, note := range p.sharingNotes(request) {
		message += " " + note.Message
	}
	if refusal := p.waiting[request.Key]; refusal != nil {
		reason, message = v1alpha1.AddressPartial, message+" "+refusal.Message
	}
	return true, reason, strings.Join(append([]string{message}, annotations.Ignored(service)...), " ")
}

// servedAt are the VirtualIPs of a Service, without those that are not there
// yet or about to go; the caller holds the lock.
func (p *Provider) servedAt(request *ipam.Request) []*v1alpha1.VirtualIP {
	var vips []*v1alpha1.VirtualIP
	for _, addr := range p.ledger.allocator.Held(request.Key) {
		vip := p.ledger.vips[addr]
		if vip == nil || findClaim(vip, request.Key.Namespace, request.Key.Name) < 0 || p.ledger.allocator.Check(request, addr) != nil {
			continue
		}
		vips = append(vips, vip)
	}
	return vips
}

// status is status.loadBalancer for the addresses; the caller locks.
func (p *Provider) status(addresses []netip.Addr, mode corev1.LoadBalancerIPMode) *corev1.LoadBalancerStatus {
	status := &corev1.LoadBalancerStatus{}
	for _, addr := range addresses {
		of := mode
		if of == "" {
			of = p.ipMode(addr)
		}
		status.Ingress = append(status.Ingress, ingress(addr.String(), of))
	}
	return status
}

// kept is the status of a Service that is refused: what it holds, in the order
// that it shows. A Service that holds nothing and shows something that we
// never said it is served at keeps showing it until we have something better;
// nil says so.
func (p *Provider) kept(service *corev1.Service, forfeited ...netip.Addr) *corev1.LoadBalancerStatus {
	key := keyOf(service)
	held := p.ledger.allocator.Held(key)
	if len(held) == 0 {
		if !wasServed(service) {
			return nil
		}
		return &corev1.LoadBalancerStatus{}
	}
	status := &corev1.LoadBalancerStatus{}
	for _, entry := range service.Status.LoadBalancer.Ingress {
		addr, err := netip.ParseAddr(entry.IP)
		if err == nil && slices.Contains(held, addr) && !slices.Contains(forfeited, addr) {
			status.Ingress = append(status.Ingress, entry)
		}
	}
	return status
}

func (p *Provider) lockedKept(service *corev1.Service, forfeited ...netip.Addr) *corev1.LoadBalancerStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.kept(service, forfeited...)
}

// wasServed reports whether the Service says that it has what it asks for.
func wasServed(service *corev1.Service) bool {
	return meta.IsStatusConditionTrue(service.Status.Conditions, v1alpha1.ServiceReady) ||
		meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced) != nil
}

func hasVerdict(service *corev1.Service) bool {
	return slices.ContainsFunc(service.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == v1alpha1.ServiceReady
	})
}

// shownBy are the addresses in the Service's status.
func shownBy(service *corev1.Service) []netip.Addr {
	var addresses []netip.Addr
	for _, entry := range service.Status.LoadBalancer.Ingress {
		if addr, err := netip.ParseAddr(entry.IP); err == nil && addr.Zone() == "" {
			addresses = append(addresses, addr.Unmap())
		}
	}
	return addresses
}

func (p *Provider) ipMode(addr netip.Addr) corev1.LoadBalancerIPMode {
	if vip := p.ledger.vips[addr]; vip != nil {
		if pool := p.poolObjects[vip.Spec.Pool]; pool != nil {
			return corev1.LoadBalancerIPMode(pool.Spec.IPMode)
		}
	}
	return corev1.LoadBalancerIPModeVIP
}

func (p *Provider) reclaimPolicy(pool string) v1alpha1.ReclaimPolicy {
	if object := p.poolObjects[pool]; object != nil && object.Spec.ReclaimPolicy != "" {
		return object.Spec.ReclaimPolicy
	}
	return v1alpha1.ReclaimDelete
}

func (p *Provider) namespaceLabels(name string) map[string]string {
	object, exists, err := p.namespaces.GetStore().GetByKey(name)
	if err != nil || !exists {
		return nil
	}
	return object.(*corev1.Namespace).Labels
}

// wakeWaiting asks for another look at each Service that lacks an address.
func (p *Provider) wakeWaiting() {
	p.mu.Lock()
	keys := make([]ipam.Key, 0, len(p.waiting))
	for key := range p.waiting {
		keys = append(keys, key)
	}
	keys = slices.AppendSeq(keys, maps.Keys(p.apart))
	p.mu.Unlock()
	for _, key := range keys {
		p.wakeKey(key)
	}
}

func (p *Provider) wakeKey(key ipam.Key) {
	p.wake(types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
}

func (p *Provider) wakeClaims(vips ...*v1alpha1.VirtualIP) {
	for _, vip := range vips {
		if vip == nil {
			continue
		}
		for i := range vip.Spec.Claims {
			p.wake(types.NamespacedName{Namespace: vip.Spec.Claims[i].Namespace, Name: vip.Spec.Claims[i].Name})
		}
	}
}

// event tells something on the Services of an address.
func (p *Provider) event(ctx context.Context, vip *v1alpha1.VirtualIP, kind string, reason v1alpha1.Reason, message string) {
	for i := range vip.Spec.Claims {
		claim := &vip.Spec.Claims[i]
		service, err := p.services.Services(claim.Namespace).Get(claim.Name)
		if err != nil || service.UID != claim.UID {
			klog.FromContext(ctx).V(4).Info("No Service to tell", "service", klog.KRef(claim.Namespace, claim.Name), "reason", reason)
			continue
		}
		p.Recorder.Event(service, kind, string(reason), message)
	}
}
