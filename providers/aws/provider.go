// Package aws gives Services of type LoadBalancer a load balancer in AWS, a
// Classic or a Network Load Balancer. For each Service it builds the model of
// what there should be, observes what there is, plans the steps from one to
// the other, and takes them.
package aws

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/record"
	cloudprovider "k8s.io/cloud-provider"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Type is a type of load balancer.
type Type string

// The types of load balancers.
const (
	NLB Type = "nlb"
	CLB Type = "clb"
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
}

var _ cloudprovider.LoadBalancer = (*Provider)(nil)

// New returns a Provider; it registers the informers that it needs.
func New(options Options) (*Provider, error) {
	if options.VPCID == "" || options.ClusterName == "" {
		return nil, fmt.Errorf("the VPC %q and the name of the cluster %q must be known", options.VPCID, options.ClusterName)
	}
	return &Provider{Options: options}, nil
}

// Start implements the service controller's Starter.
func (*Provider) Start(context.Context, func(types.NamespacedName)) error { return nil }

// Explain implements the service controller's Explainer.
func (*Provider) Explain(*corev1.Service) (ready bool, reason v1alpha1.Reason, message string) {
	return true, "", ""
}

// Leaves implements the service controller's Chooser: a Service without class
// may say by the annotation aws-load-balancer-type that it is another
// controller's.
func (*Provider) Leaves(*corev1.Service) bool { return false }

// Outside implements the service controller's Outsider.
func (*Provider) Outside() {}

var errUnfinished = errors.New("not there yet")

// GetLoadBalancerName implements cloudprovider.LoadBalancer.
func (*Provider) GetLoadBalancerName(context.Context, string, *corev1.Service) string { return "" }

// GetLoadBalancer implements cloudprovider.LoadBalancer: exists is true while
// any piece is left.
func (*Provider) GetLoadBalancer(context.Context, string, *corev1.Service) (status *corev1.LoadBalancerStatus, exists bool, err error) {
	return nil, false, nil
}

// EnsureLoadBalancer implements cloudprovider.LoadBalancer.
func (*Provider) EnsureLoadBalancer(context.Context, string, *corev1.Service, []*corev1.Node) (*corev1.LoadBalancerStatus, error) {
	return nil, errUnfinished
}

// UpdateLoadBalancer implements cloudprovider.LoadBalancer.
func (p *Provider) UpdateLoadBalancer(ctx context.Context, cluster string, service *corev1.Service, nodes []*corev1.Node) error {
	_, err := p.EnsureLoadBalancer(ctx, cluster, service, nodes)
	return err
}

// EnsureLoadBalancerDeleted implements cloudprovider.LoadBalancer.
func (*Provider) EnsureLoadBalancerDeleted(context.Context, string, *corev1.Service) error {
	return errUnfinished
}
