package baremetal

// What addresses are beside the address of a Service: a node has one on an interface, one stands for a subnet, a Service
// has one as an external IP. Herald gives none of these, and refuses them by name. The objects that say so are Nodes,
// Speakers, Services and ServiceCIDRs; here they are read, and the allocator is told when they change.

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	networkinginformers "k8s.io/client-go/informers/networking/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/ipam"
)

// maxUses is how many addresses of one object count. More than a node ever has, it keeps what a broken one says small.
const maxUses = 4096

// source is an object that says what addresses are used for.
type source struct{ kind, namespace, name string }

func (s source) compare(o source) int {
	return cmp.Or(strings.Compare(s.kind, o.kind), strings.Compare(s.namespace, o.namespace), strings.Compare(s.name, o.name))
}

// addressUse is what one object says of one address.
type addressUse struct {
	addr netip.Addr
	use  ipam.Use
}

// uses is what all objects say.
type uses struct {
	said map[source][]addressUse
	of   map[netip.Addr]map[source]ipam.Use
}

func newUses() uses {
	return uses{said: map[source][]addressUse{}, of: map[netip.Addr]map[source]ipam.Use{}}
}

// set replaces what the object says, and returns the addresses for which that is a change. Of an address that an object
// names twice, what it says first counts.
func (u *uses) set(from source, now []addressUse) []netip.Addr {
	now = now[:min(len(now), maxUses)]
	before := u.said[from]
	if slices.Equal(before, now) {
		return nil
	}
	var changed []netip.Addr
	for _, b := range before {
		changed = append(changed, b.addr)
		delete(u.of[b.addr], from)
		if len(u.of[b.addr]) == 0 {
			delete(u.of, b.addr)
		}
	}
	for _, n := range now {
		changed = append(changed, n.addr)
		if u.of[n.addr] == nil {
			u.of[n.addr] = map[source]ipam.Use{}
		}
		if _, named := u.of[n.addr][from]; !named {
			u.of[n.addr][from] = n.use
		}
	}
	if len(now) == 0 {
		delete(u.said, from)
	} else {
		u.said[from] = now
	}
	slices.SortFunc(changed, netip.Addr.Compare)
	return slices.Compact(changed)
}

// foremost returns those uses of an address that decide for every Service: one that is no Service's, or else two of
// different Services, since none stands in its own way. Many nodes may say the same.
func (u *uses) foremost(addr netip.Addr) []ipam.Use {
	var best [3]source // no Service's; a Service's; another one's
	var found [3]bool
	offer := func(i int, from source) {
		if !found[i] || from.compare(best[i]) < 0 {
			best[i], found[i] = from, true
		}
	}
	all := u.of[addr]
	for from, use := range all {
		if use.By == (ipam.Key{}) {
			offer(0, from)
		} else {
			offer(1, from)
		}
	}
	for from, use := range all {
		if found[1] && use.By != (ipam.Key{}) && from != best[1] {
			offer(2, from)
		}
	}
	var foremost []ipam.Use
	for i := range best {
		if found[i] {
			foremost = append(foremost, all[best[i]])
		}
		if i == 0 && found[0] {
			break
		}
	}
	return foremost
}

// nodeUses are the addresses that a Node says it has.
func nodeUses(node *corev1.Node) []addressUse {
	var found []addressUse
	if node == nil {
		return nil
	}
	for _, address := range node.Status.Addresses {
		if address.Type != corev1.NodeInternalIP && address.Type != corev1.NodeExternalIP {
			continue
		}
		if addr, err := netip.ParseAddr(address.Address); err == nil {
			what := fmt.Sprintf("the %s of node %s", address.Type, node.Name)
			found = append(found, addressUse{addr.Unmap().WithZone(""), ipam.Use{Reason: ipam.NodeAddress, What: what}})
		}
	}
	return found
}

// speakerUses are the addresses on the interfaces of a node, and those that stand for their subnets.
func speakerUses(speaker *v1alpha1.Speaker) []addressUse {
	var own, subnets []addressUse
	if speaker == nil {
		return nil
	}
	for _, i := range speaker.Status.Interfaces {
		if notTheNodes(i.Name) {
			continue
		}
		for _, text := range i.Prefixes {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || prefix.Addr().Is4In6() {
				continue
			}
			what := fmt.Sprintf("an address of node %s, on %s", speaker.Name, i.Name)
			own = append(own, addressUse{prefix.Addr(), ipam.Use{Reason: ipam.NodeAddress, What: what}})
			on := fmt.Sprintf("%s, which node %s has on %s", prefix.Masked(), speaker.Name, i.Name)
			subnets = append(subnets, subnetUses(prefix, on)...)
		}
	}
	return append(own, subnets...)
}

// notTheNodes reports whether the addresses of an interface are not its node's own: on kube-ipvs0 kube-proxy in mode
// IPVS has every virtual IP, and on lo some keep virtual IPs of load balancers that route to the node.
func notTheNodes(name string) bool { return name == "lo" || name == "kube-ipvs0" }

// subnetUses are the addresses that stand for a subnet. With one or two addresses a subnet has none (RFC 3021, RFC 6164).
// The anycast addresses of RFC 2526 are left out: they are in use only where somebody sets them up.
func subnetUses(prefix netip.Prefix, on string) []addressUse {
	if prefix.Bits() == 0 || prefix.Bits() > prefix.Addr().BitLen()-2 {
		return nil
	}
	subnet := ipam.Use{Reason: ipam.SubnetAddress}
	first, last := prefix.Masked().Addr(), lastOf(prefix)
	if first.Is6() {
		subnet.What = "the subnet-router anycast address of " + on
		return []addressUse{{first, subnet}}
	}
	network, broadcast := subnet, subnet
	network.What, broadcast.What = "the network address of "+on, "the broadcast address of "+on
	return []addressUse{{first, network}, {last, broadcast}}
}

// lastOf is the highest address of an IPv4 prefix; of an IPv6 prefix nobody asks.
func lastOf(prefix netip.Prefix) netip.Addr {
	addr := prefix.Masked().Addr()
	if !addr.Is4() {
		return addr
	}
	b := addr.As4()
	for bit := prefix.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// serviceUses are the addresses that a Service has by other means than ours. Cluster IPs count where a pool has them;
// most clusters tell of their range besides. What the status shows counts where another provider gave it.
func serviceUses(service *corev1.Service, pooled, foreign func(netip.Addr) bool) []addressUse {
	if service == nil {
		return nil
	}
	var found []addressUse
	add := func(text, what string, counts func(netip.Addr) bool) {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" && counts(addr.Unmap()) {
			found = append(found, addressUse{addr.Unmap(), ipam.Use{Reason: ipam.ServiceAddress, What: what, By: keyOf(service)}})
		}
	}
	always := func(netip.Addr) bool { return true }
	for _, text := range service.Spec.ClusterIPs {
		add(text, "the cluster IP", pooled)
	}
	for _, text := range service.Spec.ExternalIPs {
		add(text, "an external IP", always)
	}
	if service.Spec.Type == corev1.ServiceTypeLoadBalancer {
		for _, entry := range service.Status.LoadBalancer.Ingress {
			add(entry.IP, "the load balancer's address", foreign)
		}
	}
	return found
}

// usesOfService returns what the Service uses; the caller locks. A Service that is not ours, or no longer, may show what
// we gave it until that is released.
func (p *Provider) usesOfService(service *corev1.Service) []addressUse {
	pooled := func(addr netip.Addr) bool {
		_, pooled := p.ledger.allocator.GivenBy(addr)
		return pooled
	}
	ours := service != nil && p.serves(service)
	return serviceUses(service, pooled, func(addr netip.Addr) bool { return !ours && !p.claims(addr, service) })
}

// readUses takes in what all objects say, before the first assignment; the caller locks.
func (p *Provider) readUses() {
	for _, node := range client.Objects[*corev1.Node](p.nodes.GetStore()) {
		p.setUses(source{kind: "Node", name: node.Name}, nodeUses(node))
	}
	for _, speaker := range client.Objects[*v1alpha1.Speaker](p.speakers.GetStore()) {
		p.setUses(source{kind: "Speaker", name: speaker.Name}, speakerUses(speaker))
	}
	p.readServiceUses()
}

// readServiceUses takes in what Services say, some of which depends on the pools; the caller locks.
func (p *Provider) readServiceUses() (changed []netip.Addr) {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return nil // a lister over a cache does not fail
	}
	for _, service := range services {
		changed = append(changed, p.setUses(source{"Service", service.Namespace, service.Name}, p.usesOfService(service))...)
	}
	return changed
}

// setUses tells the allocator what the object says, and returns the addresses for which that is news; the caller locks.
func (p *Provider) setUses(from source, now []addressUse) []netip.Addr {
	changed := p.uses.set(from, now)
	return slices.DeleteFunc(changed, func(addr netip.Addr) bool {
		foremost := p.uses.foremost(addr)
		if slices.Equal(p.ledger.allocator.Uses(addr), foremost) {
			return true
		}
		p.ledger.allocator.SetUses(addr, foremost)
		return false
	})
}

// usesChanged takes in what an object says from now on.
func (p *Provider) usesChanged(from source, now []addressUse) {
	p.mu.Lock()
	changed := p.setUses(from, now)
	p.mu.Unlock()
	p.followUses(changed)
}

// followUses has everything looked at that depends on what the addresses are used for.
func (p *Provider) followUses(changed []netip.Addr) {
	if len(changed) == 0 {
		return
	}
	p.mu.Lock()
	pools := map[string]bool{}
	var used []netip.Addr
	for _, addr := range changed {
		if name, ok := p.ledger.allocator.PoolOf(addr); ok {
			pools[name] = true
		}
		if p.ledger.vips[addr] != nil {
			used = append(used, addr)
		}
	}
	p.mu.Unlock()
	for name := range pools {
		p.poolStatuses.AddAfter(name, statusDelay)
	}
	for _, addr := range used {
		p.places.Add(addr) // its status says so
	}
	p.wakeWaiting() // an address may be free
}

func (p *Provider) serviceChanged(before, after *corev1.Service) {
	service := cmp.Or(after, before)
	p.mu.Lock()
	if after != nil && p.serves(after) && (before == nil || !p.serves(before)) {
		p.adoptShown(after) // before those hear of it who wait for what another provider gave it
	}
	changed := p.setUses(source{"Service", service.Namespace, service.Name}, p.usesOfService(after))
	p.mu.Unlock()
	p.followUses(changed)
}

// Waits of the watch of ServiceCIDRs.
const (
	// cidrsFirst is how long the start waits for them, cidrsAgain how long until an API server that has none is asked again.
	cidrsFirst = 3 * time.Second
	cidrsAgain = 10 * time.Minute
)

// serviceCIDRs watches the ranges of cluster IPs. Kubernetes tells of them from 1.33 on; before, and where it is not
// allowed, Services' own cluster IPs must do.
type serviceCIDRs struct {
	informer cache.SharedIndexInformer
	ready    chan struct{} // closed when they are known, or cannot be
}

func newServiceCIDRs(of kubernetes.Interface) *serviceCIDRs {
	return &serviceCIDRs{informer: networkinginformers.NewServiceCIDRInformer(of, 0, cache.Indexers{}), ready: make(chan struct{})}
}

// run asks whether there are ServiceCIDRs, and watches them from when there are until ctx is done.
func (s *serviceCIDRs) run(ctx context.Context, of kubernetes.Interface) {
	known := sync.OnceFunc(func() { close(s.ready) })
	for {
		_, err := of.NetworkingV1().ServiceCIDRs().List(ctx, metav1.ListOptions{Limit: 1})
		if err == nil {
			break
		}
		wait := time.Second
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
			klog.FromContext(ctx).Info("ServiceCIDRs cannot be read: of cluster IPs only those in use are kept from being given", "reason", err.Error())
			known()
			wait = cidrsAgain + rand.N(time.Minute)
		}
		if !sleep(ctx, wait) {
			return
		}
	}
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), s.informer.HasSynced) {
			known()
		}
	}()
	s.informer.RunWithContext(ctx)
}

func sleep(ctx context.Context, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// wait returns when the ServiceCIDRs are known, or not soon.
func (s *serviceCIDRs) wait(ctx context.Context) {
	timer := time.NewTimer(cidrsFirst)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-s.ready:
	case <-timer.C:
	}
}

// blocks are the ranges that no pool gives.
func (s *serviceCIDRs) blocks() []ipam.Block {
	var blocks []ipam.Block
	for _, object := range client.Objects[*networkingv1.ServiceCIDR](s.informer.GetStore()) {
		for _, text := range object.Spec.CIDRs {
			if r, err := ipam.ParseRange(text); err == nil {
				what := fmt.Sprintf("of the range of cluster IPs %s (ServiceCIDR %s)", r, object.Name)
				blocks = append(blocks, ipam.Block{Range: r, Use: ipam.Use{Reason: ipam.ServiceRange, What: what}})
			}
		}
	}
	slices.SortFunc(blocks, func(a, b ipam.Block) int { return cmp.Or(a.First.Compare(b.First), strings.Compare(a.What, b.What)) })
	return blocks
}

// serviceCIDRChanged lays the pools out anew.
func (p *Provider) serviceCIDRChanged(before, after *networkingv1.ServiceCIDR) {
	if before != nil && after != nil && slices.Equal(before.Spec.CIDRs, after.Spec.CIDRs) {
		return
	}
	p.mu.Lock()
	p.readPools()
	changed := p.readServiceUses()
	names := slices.Collect(maps.Keys(p.poolObjects))
	p.mu.Unlock()
	for _, name := range names {
		p.poolStatuses.AddAfter(name, statusDelay)
	}
	p.followUses(changed)
	p.placeAll()
	p.wakeWaiting()
}

// obstacle returns what an address is beside the address of its Services, "" if nothing. The caller locks.
func (p *Provider) obstacle(addr netip.Addr, vip *v1alpha1.VirtualIP) (reason v1alpha1.Reason, sentence string) {
	for i := range vip.Spec.Claims {
		key := ipam.Key{Namespace: vip.Spec.Claims[i].Namespace, Name: vip.Spec.Claims[i].Name}
		if why, sentence := p.ledger.allocator.Obstacle(addr, key); why != "" {
			return v1alpha1.Reason(why), sentence
		}
	}
	return "", ""
}

// tellUse says in the status of an address that it is something else, too, or is it no more. Its Services are told once.
func (p *Provider) tellUse(ctx context.Context, addr netip.Addr) error {
	p.mu.Lock()
	vip := p.ledger.vips[addr]
	if vip == nil {
		p.mu.Unlock()
		return nil
	}
	reason, sentence := p.obstacle(addr, vip)
	p.mu.Unlock()
	said := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionUnusable)
	condition := metav1.Condition{
		Type: v1alpha1.ConditionUnusable, Status: metav1.ConditionTrue, Reason: string(reason), ObservedGeneration: vip.Generation,
		Message: sentence + " It stays with its Services until they ask for another one.",
	}
	if reason == "" {
		condition.Status, condition.Reason = metav1.ConditionFalse, string(v1alpha1.NoObstacle)
		condition.Message = "The address is nothing but the address of its Services any more."
	}
	if said == nil && reason == "" || said != nil && said.Status == condition.Status && said.Reason == condition.Reason && said.Message == condition.Message {
		return nil
	}
	desired := vip.DeepCopy()
	meta.SetStatusCondition(&desired.Status.Conditions, condition)
	written, err := p.Herald.VirtualIPs.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return p.reread(ctx, vip)
	}
	if err != nil {
		return fmt.Errorf("writing the status of VirtualIP %s: %w", vip.Name, err)
	}
	p.learn(ctx, written)
	p.wakeClaims(written) // their conditions say it
	if reason == "" {
		return nil
	}
	p.Recorder.Event(written, corev1.EventTypeWarning, condition.Reason, condition.Message)
	for i := range written.Spec.Claims {
		p.tellUseTo(addr, &written.Spec.Claims[i])
	}
	return nil
}

// tellUseTo tells the Service of a claim, without the names of Services of other namespaces.
func (p *Provider) tellUseTo(addr netip.Addr, claim *v1alpha1.Claim) {
	p.mu.Lock()
	reason, sentence := p.ledger.allocator.Obstacle(addr, ipam.Key{Namespace: claim.Namespace, Name: claim.Name})
	p.mu.Unlock()
	service, err := p.services.Services(claim.Namespace).Get(claim.Name)
	if reason == "" || err != nil {
		return
	}
	p.Recorder.Event(service, corev1.EventTypeWarning, string(reason), sentence+" The Service keeps it until it asks for another one.")
}

// usesIn are the sentences about the addresses of a pool that are something else: those that a node has, and the others.
// The caller locks.
func (p *Provider) usesIn(pool string) (nodes, others []string) {
	var in []netip.Addr
	for addr := range p.uses.of {
		if name, ok := p.ledger.allocator.GivenBy(addr); ok && name == pool {
			in = append(in, addr)
		}
	}
	slices.SortFunc(in, netip.Addr.Compare)
	for _, addr := range in {
		use := p.uses.foremost(addr)[0]
		sentence := fmt.Sprintf("%s is %s", addr, use.String())
		if use.Reason == ipam.NodeAddress {
			nodes = append(nodes, sentence)
		} else {
			others = append(others, sentence)
		}
	}
	return nodes, others
}

// outsideOf names the addresses in use that were given from a pool and are not in it any more, each with its Services.
// The caller locks.
func (p *Provider) outsideOf(pool string) []string {
	var outside []string
	for _, addr := range p.ledger.allocator.Outside(pool) {
		var names []string
		for _, key := range p.ledger.allocator.Holders(addr) {
			names = append(names, key.String())
		}
		outside = append(outside, fmt.Sprintf("%s (%s)", addr, some(names, ", ")))
	}
	return outside
}

// shownNames is how many things a message names before it counts the rest.
const shownNames = 5

// some joins the first few, and counts the others.
func some(all []string, separator string) string {
	if more := len(all) - shownNames; more > 0 {
		return strings.Join(all[:shownNames], separator) + fmt.Sprintf("%sand %d more", separator, more)
	}
	return strings.Join(all, separator)
}
