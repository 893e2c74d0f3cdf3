// Package aws gives Services of type LoadBalancer a load balancer in AWS, a
// Classic or a Network Load Balancer. For each Service it builds the model of
// what there should be, observes what there is, plans the steps from one to
// the other, and takes them. What it knows it remembers: a Service that does
// not change costs no call.
package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// Type is a type of load balancer.
type Type = settings.Kind

// The types of load balancers.
const (
	NLB Type = settings.Network
	CLB Type = settings.Classic
)

// Options of a Provider.
type Options struct {
	ELB       ELB
	ELBV2     ELBV2
	EC2       EC2
	Informers informers.SharedInformerFactory
	Recorder  record.EventRecorder
	// ClusterName is in the tags of all that is made: kubernetes.io/cluster/<ClusterName>=owned.
	ClusterName string
	// VPCID is the network of the cluster's nodes.
	VPCID string
	// Types has the type of load balancer that each loadBalancerClass stands for.
	Types map[string]Type
	// DefaultType is that of a Service that names no class and has no annotation
	// aws-load-balancer-type; empty is CLB.
	DefaultType Type
	// Subnets are the IDs of those that may be found for load balancers; empty
	// is all of the VPC.
	Subnets []string
	// NodeSecurityGroups are the groups that let load balancers in to the
	// nodes; empty finds them by the instances: the only group of an instance,
	// or the one with the cluster's tag.
	NodeSecurityGroups []string
	// Tags are on all that is made, beside those of each Service.
	Tags map[string]string
	// CallsPerSecond and CallBurst limit each operation of the API by itself;
	// zero takes 20 and 100.
	CallsPerSecond float64
	CallBurst      int
}

// Provider serves Services of all classes of load balancers in AWS. It is one
// for all of them, so that a Service can go from one to another.
type Provider struct {
	Options
	services corelisters.ServiceLister
	nodes    cache.SharedIndexInformer
	slices   cache.SharedIndexInformer

	buckets       *buckets
	network       *snapshot[model.Network]
	prefixes      *snapshot[[]netip.Prefix]
	clusterGroups *snapshot[[]ec2types.SecurityGroup]
	inventory     *snapshot[*inventory]
	namedGroups   *groupIDs
	instances     *instances
	// groupless is held while rules change that NLBs without security groups
	// share.
	groupless sync.Mutex

	// wake asks the service controller to look at a Service again.
	wake func(types.NamespacedName)
	// started is when another controller may have written last.
	started time.Time

	running sync.WaitGroup // what Start began

	mu      sync.Mutex
	entries map[types.NamespacedName]*entry
}

var _ cloudprovider.LoadBalancer = (*Provider)(nil)

// byService is the index of EndpointSlices by namespace/name of the Service.
// The informer is shared: other providers have indexes of their own.
const byService = "aws/service"

// New returns a Provider; it registers the informers that it needs.
func New(options Options) (*Provider, error) {
	if options.VPCID == "" || options.ClusterName == "" {
		return nil, fmt.Errorf("the VPC %q and the name of the cluster %q must be known", options.VPCID, options.ClusterName)
	}
	if options.DefaultType == "" {
		options.DefaultType = CLB
	}
	if options.CallsPerSecond == 0 {
		options.CallsPerSecond = 20
	}
	if options.CallBurst == 0 {
		options.CallBurst = 100
	}
	core := options.Informers.Core().V1()
	p := &Provider{
		Options:     options,
		services:    core.Services().Lister(),
		nodes:       core.Nodes().Informer(),
		slices:      options.Informers.Discovery().V1().EndpointSlices().Informer(),
		buckets:     newBuckets(options.CallsPerSecond, options.CallBurst),
		namedGroups: newGroupIDs(),
		instances:   newInstances(),
		wake:        func(types.NamespacedName) {},
		started:     time.Now(),
		entries:     map[types.NamespacedName]*entry{},
	}
	p.network = newSnapshot(p.readNetwork)
	p.prefixes = newSnapshot(p.readPrefixes)
	p.clusterGroups = newSnapshot(p.readClusterGroups)
	p.inventory = newSnapshot(p.readInventory)
	if err := client.IndexSlices(p.slices, byService); err != nil {
		return nil, err
	}
	return p, nil
}

// Outside implements the service controller's Outsider: what is in AWS would
// be left behind if the Service went first.
func (*Provider) Outside() {}

// Leaves implements the service controller's Chooser: a Service without class
// may say by the annotation aws-load-balancer-type that it is another
// controller's.
func (p *Provider) Leaves(service *corev1.Service) bool {
	return service.Spec.LoadBalancerClass == nil && settings.Choose(service, p.DefaultType).Others
}

// typeOf is the type of load balancer that a Service is to have.
func (p *Provider) typeOf(service *corev1.Service) Type {
	if class := service.Spec.LoadBalancerClass; class != nil {
		if known, ok := p.Types[*class]; ok {
			return known
		}
	}
	return settings.Choose(service, p.DefaultType).Kind
}

// GetLoadBalancerName implements cloudprovider.LoadBalancer.
func (p *Provider) GetLoadBalancerName(_ context.Context, _ string, service *corev1.Service) string {
	return p.identityOf(service).LoadBalancerName()
}

func (p *Provider) identityOf(service *corev1.Service) model.Identity {
	return model.Identity{Cluster: p.ClusterName, Namespace: service.Namespace, Name: service.Name, UID: string(service.UID)}
}

// GetLoadBalancer implements cloudprovider.LoadBalancer: exists is true while
// any piece is left, or might be. The status has the names of all that there is,
// also of a type that the Service does not ask for any more.
func (p *Provider) GetLoadBalancer(ctx context.Context, _ string, service *corev1.Service) (status *corev1.LoadBalancerStatus, exists bool, err error) {
	e := p.entryOf(service)
	if e == nil {
		return nil, false, nil
	}
	held, sure, err := p.recall(ctx, e)
	if err != nil {
		return nil, false, err
	}
	if exists = !sure || p.underway(e) || !held.state.Empty(); !exists && service.UID == "" {
		p.forget(e)
	}
	status = &corev1.LoadBalancerStatus{}
	for _, kind := range slices.Sorted(maps.Keys(held.hostnames)) {
		status.Ingress = append(status.Ingress, statusOf(service, held.hostnames[kind], nil).Ingress...)
	}
	return status, exists, nil
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (p *Provider) EnsureLoadBalancer(ctx context.Context, _ string, service *corev1.Service, nodes []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	e := p.begin(service)
	s, refusal := settings.Parse(service, p.typeOf(service))
	if refusal != nil {
		return nil, p.keep(ctx, e, service, nodes, refusal)
	}
	err := p.reconcile(ctx, e, service, &s, nodes)
	if refusal, refused := errors.AsType[*v1alpha1.Refusal](err); refused {
		return nil, p.keep(ctx, e, service, nodes, refusal)
	}
	if _, waits := errors.AsType[*unfinished](err); err != nil && !waits {
		return nil, err
	}
	held := p.held(e)
	if held == nil || held.hostnames[s.Kind] == "" {
		return nil, retryOf(err)
	}
	return statusOf(service, held.hostnames[s.Kind], s.Rejected), retryOf(err)
}

// keep keeps what a Service has that is refused now: its nodes come and go
// also while its author looks for the mistake. What it asked for before is not
// known after a restart: then only targets change of what there is.
func (p *Provider) keep(ctx context.Context, e *entry, service *corev1.Service, nodes []*corev1.Node, refusal *v1alpha1.Refusal) error {
	p.mu.Lock()
	accepted := e.accepted
	p.mu.Unlock()
	var err error
	if accepted != nil {
		err = p.reconcile(ctx, e, service, accepted, nodes)
	} else {
		err = p.retarget(ctx, e, service, nodes)
	}
	if _, refused := errors.AsType[*v1alpha1.Refusal](err); err != nil && !refused {
		return retryOf(err)
	}
	return refusal
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (p *Provider) UpdateLoadBalancer(ctx context.Context, cluster string, service *corev1.Service, nodes []*corev1.Node) error {
	_, err := p.EnsureLoadBalancer(ctx, cluster, service, nodes)
	return err
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (p *Provider) EnsureLoadBalancerDeleted(ctx context.Context, _ string, service *corev1.Service) error {
	e := p.entryOf(service)
	if e == nil {
		return nil
	}
	return retryOf(p.remove(ctx, e, service))
}

// statusOf is status.loadBalancer of a Service; ports that are not served have
// an error each.
func statusOf(service *corev1.Service, hostname string, rejected []settings.RejectedPort) *corev1.LoadBalancerStatus {
	if hostname == "" {
		return &corev1.LoadBalancerStatus{}
	}
	ingress := corev1.LoadBalancerIngress{Hostname: hostname}
	if len(rejected) > 0 {
		ingress.Ports = portStatuses(service, rejected)
	}
	return &corev1.LoadBalancerStatus{Ingress: []corev1.LoadBalancerIngress{ingress}}
}
