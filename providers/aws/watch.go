package aws

import (
	"context"
	"maps"
	"slices"
	"time"

	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/providers/aws/model"
)

// watchEvery is how often it is looked for what becomes due.
const watchEvery = 15 * time.Second

// Start implements the service controller's Starter: from then on a Service is
// woken when its nodes or endpoints change, when its load balancer has been
// provisioned, and when it is time to look for others' changes.
func (p *Provider) Start(ctx context.Context, wake func(types.NamespacedName), _ func(*corev1.Service) bool) error {
	p.mu.Lock()
	p.wake, p.started = wake, time.Now()
	p.mu.Unlock()
	if !cache.WaitForNamedCacheSyncWithContext(ctx, p.nodes.HasSynced, p.slices.HasSynced) {
		return ctx.Err()
	}
	nodes, err := p.nodes.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { p.wakeAll() },
		UpdateFunc: func(before, after any) {
			if !sameTarget(before.(*corev1.Node), after.(*corev1.Node)) {
				p.wakeAll()
			}
		},
		DeleteFunc: func(any) { p.wakeAll() },
	})
	if err != nil {
		return err
	}
	endpoints, err := p.slices.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    p.endpointsChanged,
		UpdateFunc: func(_, after any) { p.endpointsChanged(after) },
		DeleteFunc: p.endpointsChanged,
	})
	if err != nil {
		return err
	}
	p.running.Go(func() {
		defer func() {
			_ = p.nodes.RemoveEventHandler(nodes)
			_ = p.slices.RemoveEventHandler(endpoints)
		}()
		p.watch(ctx)
	})
	return nil
}

// Wait returns when everything has ended that Start began. Its context has to be done.
func (p *Provider) Wait() { p.running.Wait() }

// sameTarget says whether nothing of a node changed that load balancers care for.
func sameTarget(a, b *corev1.Node) bool {
	return a.Spec.ProviderID == b.Spec.ProviderID && eligible(a) == eligible(b) && maps.Equal(a.Labels, b.Labels)
}

func (p *Provider) endpointsChanged(object any) {
	if deleted, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = deleted.Obj
	}
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return
	}
	key := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Labels[discoveryv1.LabelServiceName]}
	p.mu.Lock()
	e := p.entries[key]
	ips := e != nil && e.ips
	p.mu.Unlock()
	if ips {
		p.wake(key)
	}
}

// wakeAll wakes every Service that has a load balancer.
func (p *Provider) wakeAll() {
	for _, key := range p.keys(func(*entry) bool { return true }) {
		p.wake(key)
	}
}

func (p *Provider) keys(of func(*entry) bool) []types.NamespacedName {
	p.mu.Lock()
	defer p.mu.Unlock()
	var keys []types.NamespacedName
	for key, e := range p.entries {
		if of(e) {
			keys = append(keys, key)
		}
	}
	return keys
}

// watch looks for what becomes due until ctx is done.
func (p *Provider) watch(ctx context.Context) {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		p.lookAtProvisioning(ctx)
		at := time.Now()
		for _, key := range p.keys(func(e *entry) bool { return e.due(at) }) {
			p.wake(key)
		}
		p.forgetNodes(at)
		if p.instances.due(at) {
			p.wakeAll()
		}
	}
}

// due says whether it is time to look for what others changed, or made.
func (e *entry) due(at time.Time) bool {
	if !e.again.IsZero() && at.After(e.again) {
		e.again = time.Time{}
		return true
	}
	return !e.check.IsZero() && at.After(e.check)
}

// forgetNodes forgets the instances of nodes that are gone.
func (p *Provider) forgetNodes(at time.Time) {
	var ids []string
	for _, node := range p.knownNodes() {
		if id, ok := instanceOf(node); ok {
			ids = append(ids, id)
		}
	}
	p.instances.keep(ids, at)
}

// lookAtProvisioning asks about all load balancers at once that are being made.
func (p *Provider) lookAtProvisioning(ctx context.Context) {
	p.mu.Lock()
	waiting := map[string]types.NamespacedName{}
	for key, e := range p.entries {
		if e.held != nil && e.held.provisioning && e.held.state.NLB != nil {
			waiting[e.held.ids[model.Piece{Kind: model.PieceNLB, Name: e.held.state.NLB.Name}]] = key
		}
	}
	p.mu.Unlock()
	for arns := range slices.Chunk(slices.Sorted(maps.Keys(waiting)), tagChunk) {
		out, err := call(ctx, p, p.ELBV2.DescribeLoadBalancers, &elbv2.DescribeLoadBalancersInput{LoadBalancerArns: arns})
		if codeOf(err) == "LoadBalancerNotFound" {
			for _, arn := range arns {
				p.observeAnew(waiting[arn])
			}
			continue
		}
		if err != nil {
			klog.FromContext(ctx).V(2).Info("Load balancers that are being made could not be looked at, will be tried again", "err", err)
			return
		}
		for i := range out.LoadBalancers {
			lb := &out.LoadBalancers[i]
			if lb.State != nil && lb.State.Code != elbv2types.LoadBalancerStateEnumProvisioning {
				p.provisioned(waiting[*lb.LoadBalancerArn], lb)
			}
		}
	}
}

// provisioned remembers that a load balancer is there, or why it is not.
func (p *Provider) provisioned(key types.NamespacedName, lb *elbv2types.LoadBalancer) {
	p.mu.Lock()
	e := p.entries[key]
	if e != nil && e.held != nil && e.held.state.NLB != nil && e.held.ids[model.Piece{Kind: model.PieceNLB, Name: e.held.state.NLB.Name}] == *lb.LoadBalancerArn {
		done := e.held.clone()
		done.provisioning, done.problem = provisioning(lb.State)
		e.held = done
	}
	p.mu.Unlock()
	p.wake(key)
}

// observeAnew has a Service observed that is not as it is remembered.
func (p *Provider) observeAnew(key types.NamespacedName) {
	p.mu.Lock()
	if e := p.entries[key]; e != nil {
		e.check = time.Now()
	}
	p.mu.Unlock()
	p.wake(key)
}
