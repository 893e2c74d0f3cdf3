package aws

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// reconcile brings what AWS holds to what the Service asks for.
func (p *Provider) reconcile(ctx context.Context, e *entry, service *corev1.Service, s *settings.Settings, nodes []*corev1.Node) error {
	p.expire(e)
	p.mu.Lock()
	e.ips = s.TargetIPs
	known := e.held != nil
	p.mu.Unlock()

	held, _, err := p.recall(ctx, e)
	if err != nil {
		return err
	}
	// What is known is first looked at with what all Services know, be it old.
	desired, remarks, err := p.build(ctx, e, service, s, nodes, held, known)
	if _, refused := errors.AsType[*v1alpha1.Refusal](err); refused {
		if _, fresh := p.network.known(time.Now().Add(-snapshotAge)); !fresh {
			// What was missing then may be there now.
			desired, remarks, err = p.build(ctx, e, service, s, nodes, held, false)
		}
	}
	if err != nil {
		return err
	}
	observed := p.observedFor(e, &desired, held)
	if known && slices.ContainsFunc(model.Plan(&desired, &observed), needsFresh) {
		if desired, remarks, err = p.build(ctx, e, service, s, nodes, held, false); err != nil {
			return err
		}
		observed = p.observedFor(e, &desired, held)
	}
	if sharesRules(model.Plan(&desired, &observed)) {
		// Whether others need them has to be seen, and nobody may change them meanwhile.
		p.groupless.Lock()
		defer p.groupless.Unlock()
		if held, err = p.observe(ctx, e.identity, time.Now()); err != nil {
			return err
		}
		if desired, remarks, err = p.build(ctx, e, service, s, nodes, held, false); err != nil {
			return err
		}
		observed = p.observedFor(e, &desired, held)
	}
	p.tell(e, service, s, &desired, remarks)
	if err := p.advance(ctx, e, service, planFor(desired, &observed, held)); err != nil {
		return p.blame(ctx, e, s, err)
	}
	return p.accept(e, s)
}

// accept remembers the settings of a Service that has what it asks for. It is
// observed once more when what it had may not have been all there to see:
// something that was just made for it, and is not wanted any more. Who has all
// that it needs after a restart needs no such look.
func (p *Provider) accept(e *entry, s *settings.Settings) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e.accepted = s; !e.unsure {
		return nil
	}
	if e.unsure = false; !e.written.After(p.started) {
		return nil
	}
	e.check = e.written.Add(settle)
	return &unfinished{time.Until(e.check) + time.Millisecond, errors.New("looking again whether something else is left")}
}

// needsFresh says whether a step should not be taken by what all Services know
// if that is old: who serves does not depend on it.
func needsFresh(step model.Step) bool {
	switch step.(type) {
	case model.Register, model.Deregister, model.RegisterInstances, model.DeregisterInstances:
		return false
	}
	return true
}

// observedFor is what there is as a plan for the desired state sees it.
func (p *Provider) observedFor(e *entry, desired *model.State, held *holding) model.State {
	observed := held.state.Clone()
	if held.raw {
		model.Heed(desired, &observed)
	}
	for i := range observed.NodeRules {
		rule := &observed.NodeRules[i]
		if rule.Rule.Description == model.SharedRuleDescription(p.ClusterName) {
			rule.Shared = p.shares(e.identity, rule.Rule.Source)
		}
	}
	return observed
}

// build says what there should be, given what there is. When old will do, what
// all Services share is not read again.
func (p *Provider) build(ctx context.Context, e *entry, service *corev1.Service, s *settings.Settings, nodes []*corev1.Node, held *holding, old bool) (desired model.State, remarks []remark, err error) {
	since := time.Now().Add(-snapshotAge)
	if old {
		since = time.Time{}
	}
	in := &model.Input{Identity: e.identity, Settings: *s, Subnets: p.Subnets, Tags: p.Tags, Observed: held.state}
	if in.Network, err = p.network.get(ctx, since); err != nil {
		return model.State{}, nil, err
	}
	if in.GroupIDs, err = p.namedGroups.find(ctx, p, slices.Concat(s.Groups, s.ExtraGroups), since); err != nil {
		return model.State{}, nil, err
	}
	chosen := targetNodes(nodes, s.NodeLabels)
	if in.Instances, in.NodeGroups, err = p.livingTargets(ctx, chosen); err != nil {
		return model.State{}, nil, err
	}
	if s.TargetIPs {
		others, err := p.aim(ctx, in, service, s.TargetIPv6, since)
		if err != nil {
			return model.State{}, nil, err
		}
		remarks = append(remarks, strange(others)...)
	}
	for _, check := range []func(context.Context, *model.Input) (*v1alpha1.Refusal, error){p.checkAllocations, p.checkName} {
		if refusal, err := check(ctx, in); refusal != nil || err != nil {
			return model.State{}, nil, p.missing(e, refusal, err)
		}
	}
	if refusal := p.unknownGroup(s); refusal != nil {
		return model.State{}, nil, p.missing(e, refusal, nil)
	}
	desired, notes, refusal := model.Build(in)
	for _, note := range notes {
		remarks = append(remarks, remark{v1alpha1.AnnotationIgnored, note})
	}
	if refusal != nil {
		return model.State{}, nil, p.missing(e, refusal, nil)
	}
	if len(in.Instances) > 0 && len(in.NodeGroups) == 0 && s.ManageNodeRules {
		refusal := v1alpha1.Refuse(v1alpha1.GroupNotFound, "no security group of the nodes is known, to let the load balancer in at")
		return model.State{}, nil, p.missing(e, refusal, nil)
	}
	return desired, remarks, nil
}

// missing has a refused Service looked at again later: what AWS lacks may come
// without a word.
func (p *Provider) missing(e *entry, refusal *v1alpha1.Refusal, err error) error {
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e.again = time.Now().Add(snapshotAge + time.Second)
	return refusal
}

// checkAllocations refuses Elastic IPs that do not exist, of those that the
// load balancer does not have.
func (p *Provider) checkAllocations(ctx context.Context, in *model.Input) (*v1alpha1.Refusal, error) {
	unknown := slices.DeleteFunc(slices.Clone(in.Settings.Allocations), func(id string) bool {
		return in.Observed.NLB != nil && slices.ContainsFunc(in.Observed.NLB.Mappings, func(m model.Mapping) bool { return m.Allocation == id })
	})
	if len(unknown) == 0 {
		return nil, nil
	}
	out, err := call(ctx, p, p.EC2.DescribeAddresses, &ec2.DescribeAddressesInput{
		Filters: []ec2types.Filter{{Name: awssdk.String("allocation-id"), Values: unknown}},
	})
	if err != nil {
		return nil, err
	}
	for _, id := range unknown {
		if !slices.ContainsFunc(out.Addresses, func(address ec2types.Address) bool { return awssdk.ToString(address.AllocationId) == id }) {
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%seip-allocations has %s, which is no Elastic IP of this account and region", settings.Prefix, id), nil
		}
	}
	return nil, nil
}

// checkName refuses a name that a load balancer of somebody else has.
func (p *Provider) checkName(ctx context.Context, in *model.Input) (*v1alpha1.Refusal, error) {
	name := in.Settings.Name
	if name == "" || in.Observed.NLB != nil && in.Observed.NLB.Name == name {
		return nil, nil
	}
	out, err := call(ctx, p, p.ELBV2.DescribeLoadBalancers, &elbv2.DescribeLoadBalancersInput{Names: []string{name}})
	if codeOf(err) == "LoadBalancerNotFound" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for i := range out.LoadBalancers {
		arn := awssdk.ToString(out.LoadBalancers[i].LoadBalancerArn)
		tags, err := p.networkTags(ctx, []string{arn})
		if err != nil {
			return nil, err
		}
		if !in.Identity.Owns(tags[arn]) {
			return v1alpha1.Refuse(v1alpha1.ConflictingRequests,
				"%sname is %q, which is the name of another load balancer: want one that is free in the account and region", settings.Prefix, name), nil
		}
	}
	return nil, nil
}

// shares says whether the Service of another identity lets a security group
// that is not of our making in to the nodes.
func (p *Provider) shares(identity model.Identity, group string) bool {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return true
	}
	return slices.ContainsFunc(services, func(other *corev1.Service) bool {
		if other.Spec.Type != corev1.ServiceTypeLoadBalancer || other.DeletionTimestamp != nil || string(other.UID) == identity.UID {
			return false
		}
		first, _, _ := strings.Cut(other.Annotations[settings.Prefix+"security-groups"], ",")
		first = strings.TrimSpace(first)
		return first == group || first != "" && !strings.HasPrefix(first, "sg-") && p.namedGroups.mayBe(first, group)
	})
}
