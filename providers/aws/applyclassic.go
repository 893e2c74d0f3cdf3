package aws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

func (a *applier) takeClassic(ctx context.Context, step model.Step) error {
	var err error
	switch step := step.(type) {
	case model.CreateCLB:
		return a.createCLB(ctx, step.CLB)
	case model.DeleteCLB:
		_, err = call(ctx, a.Provider, a.ELB.DeleteLoadBalancer, &elb.DeleteLoadBalancerInput{LoadBalancerName: &step.Name})
		delete(a.hostnames, CLB)
	case model.SetCLBAttributes:
		_, err = call(ctx, a.Provider, a.ELB.ModifyLoadBalancerAttributes, &elb.ModifyLoadBalancerAttributesInput{
			LoadBalancerName: &step.Name, LoadBalancerAttributes: classicAttributes(&step.Attributes),
		})
	case model.SetCLBHealth:
		h := &step.Health
		_, err = call(ctx, a.Provider, a.ELB.ConfigureHealthCheck, &elb.ConfigureHealthCheckInput{
			LoadBalancerName: &step.Name,
			HealthCheck: &elbtypes.HealthCheck{
				Target:           awssdk.String(fmt.Sprintf("%s:%d%s", h.Protocol, h.Port, h.Path)),
				HealthyThreshold: &h.Healthy, UnhealthyThreshold: &h.Unhealthy,
				Interval: seconds(h.Interval), Timeout: seconds(h.Timeout),
			},
		})
	case model.AttachSubnets:
		_, err = call(ctx, a.Provider, a.ELB.AttachLoadBalancerToSubnets, &elb.AttachLoadBalancerToSubnetsInput{LoadBalancerName: &step.Name, Subnets: step.Subnets})
	case model.DetachSubnets:
		_, err = call(ctx, a.Provider, a.ELB.DetachLoadBalancerFromSubnets, &elb.DetachLoadBalancerFromSubnetsInput{LoadBalancerName: &step.Name, Subnets: step.Subnets})
	case model.SetCLBGroups:
		_, err = call(ctx, a.Provider, a.ELB.ApplySecurityGroupsToLoadBalancer, &elb.ApplySecurityGroupsToLoadBalancerInput{
			LoadBalancerName: &step.Name, SecurityGroups: a.groups(step.Groups),
		})
	case model.RegisterInstances:
		return a.registerInstances(ctx, step)
	case model.DeregisterInstances:
		return a.deregisterInstances(ctx, step)
	default:
		return a.takeClassicListener(ctx, step)
	}
	return err
}

func (a *applier) takeClassicListener(ctx context.Context, step model.Step) error {
	var err error
	switch step := step.(type) {
	case model.CreateCLBListeners:
		_, err = call(ctx, a.Provider, a.ELB.CreateLoadBalancerListeners, &elb.CreateLoadBalancerListenersInput{LoadBalancerName: &step.Name, Listeners: classicListeners(step.Listeners)})
	case model.DeleteCLBListeners:
		_, err = call(ctx, a.Provider, a.ELB.DeleteLoadBalancerListeners, &elb.DeleteLoadBalancerListenersInput{LoadBalancerName: &step.Name, LoadBalancerPorts: step.Ports})
	case model.SetCLBCertificate:
		_, err = call(ctx, a.Provider, a.ELB.SetLoadBalancerListenerSSLCertificate, &elb.SetLoadBalancerListenerSSLCertificateInput{
			LoadBalancerName: &step.Name, LoadBalancerPort: step.Port, SSLCertificateId: &step.Certificate,
		})
	case model.CreateCLBPolicy:
		return a.createPolicy(ctx, step)
	case model.DeleteCLBPolicy:
		_, err = call(ctx, a.Provider, a.ELB.DeleteLoadBalancerPolicy, &elb.DeleteLoadBalancerPolicyInput{LoadBalancerName: &step.Name, PolicyName: &step.Policy})
	case model.SetCLBTLSPolicy:
		_, err = call(ctx, a.Provider, a.ELB.SetLoadBalancerPoliciesOfListener, &elb.SetLoadBalancerPoliciesOfListenerInput{
			LoadBalancerName: &step.Name, LoadBalancerPort: step.Port, PolicyNames: []string{step.Policy},
		})
	case model.SetCLBProxy:
		names := []string{}
		if step.On {
			names = []string{model.ProxyPolicy}
		}
		_, err = call(ctx, a.Provider, a.ELB.SetLoadBalancerPoliciesForBackendServer, &elb.SetLoadBalancerPoliciesForBackendServerInput{
			LoadBalancerName: &step.Name, InstancePort: &step.Port, PolicyNames: names,
		})
	default:
		return fmt.Errorf("no way to take the step %q", step)
	}
	return err
}

func (a *applier) createCLB(ctx context.Context, clb *model.CLB) error {
	in := &elb.CreateLoadBalancerInput{
		LoadBalancerName: &clb.Name, Subnets: clb.Subnets, SecurityGroups: a.groups(clb.Groups),
		Listeners: classicListeners(clb.Listeners), Tags: classicTagList(clb.Tags),
	}
	if clb.Internal {
		in.Scheme = awssdk.String("internal")
	}
	out, err := call(ctx, a.Provider, a.ELB.CreateLoadBalancer, in)
	if err != nil {
		return err
	}
	a.hostnames[CLB] = awssdk.ToString(out.DNSName)
	return nil
}

func classicListeners(listeners []model.ClassicListener) []elbtypes.Listener {
	all := make([]elbtypes.Listener, len(listeners))
	for i := range listeners {
		l := &listeners[i]
		all[i] = elbtypes.Listener{
			LoadBalancerPort: l.Port, Protocol: awssdk.String(string(l.Protocol)),
			InstancePort: &l.InstancePort, InstanceProtocol: awssdk.String(string(l.InstanceProtocol)),
			SSLCertificateId: optional(l.Certificate),
		}
	}
	return all
}

// classicAttributes names all that Herald sets: what it leaves out stays.
func classicAttributes(in *model.ClassicAttributes) *elbtypes.LoadBalancerAttributes {
	out := &elbtypes.LoadBalancerAttributes{
		CrossZoneLoadBalancing: &elbtypes.CrossZoneLoadBalancing{Enabled: in.CrossZone},
		ConnectionDraining:     &elbtypes.ConnectionDraining{Enabled: in.DrainSeconds > 0},
		ConnectionSettings:     &elbtypes.ConnectionSettings{IdleTimeout: &in.IdleSeconds},
		AccessLog:              &elbtypes.AccessLog{Enabled: in.LogBucket != ""},
	}
	if in.DrainSeconds > 0 {
		out.ConnectionDraining.Timeout = &in.DrainSeconds
	}
	if in.LogBucket != "" {
		out.AccessLog.S3BucketName, out.AccessLog.S3BucketPrefix, out.AccessLog.EmitInterval = &in.LogBucket, &in.LogPrefix, &in.LogMinutes
	}
	return out
}

func (a *applier) createPolicy(ctx context.Context, step model.CreateCLBPolicy) error {
	in := &elb.CreateLoadBalancerPolicyInput{LoadBalancerName: &step.Name, PolicyName: &step.Policy}
	attribute := elbtypes.PolicyAttribute{AttributeName: awssdk.String("ProxyProtocol"), AttributeValue: awssdk.String("true")}
	in.PolicyTypeName = awssdk.String("ProxyProtocolPolicyType")
	if predefined, ok := model.Predefined(step.Policy); ok {
		attribute = elbtypes.PolicyAttribute{AttributeName: awssdk.String("Reference-Security-Policy"), AttributeValue: &predefined}
		in.PolicyTypeName = awssdk.String("SSLNegotiationPolicyType")
	}
	in.PolicyAttributes = []elbtypes.PolicyAttribute{attribute}
	_, err := call(ctx, a.Provider, a.ELB.CreateLoadBalancerPolicy, in)
	if codeOf(err) == "DuplicatePolicyName" {
		return nil
	}
	return err
}

func instanceList(ids []string) []elbtypes.Instance {
	all := make([]elbtypes.Instance, len(ids))
	for i := range ids {
		all[i].InstanceId = &ids[i]
	}
	return all
}

func (a *applier) registerInstances(ctx context.Context, step model.RegisterInstances) error {
	refused, err := sift(step.Instances, func(id string) string { return id }, func(ids []string) error {
		_, err := call(ctx, a.Provider, a.ELB.RegisterInstancesWithLoadBalancer, &elb.RegisterInstancesWithLoadBalancerInput{LoadBalancerName: &step.Name, Instances: instanceList(ids)})
		return err
	})
	a.refused = append(a.refused, refused...)
	return err
}

// deregisterInstances takes instances out; one that is gone is out.
func (a *applier) deregisterInstances(ctx context.Context, step model.DeregisterInstances) error {
	_, err := sift(step.Instances, func(id string) string { return id }, func(ids []string) error {
		_, err := call(ctx, a.Provider, a.ELB.DeregisterInstancesFromLoadBalancer, &elb.DeregisterInstancesFromLoadBalancerInput{LoadBalancerName: &step.Name, Instances: instanceList(ids)})
		return err
	})
	return err
}

// sift makes a call for all items that fails for all when AWS does not know
// one of them. Then it is made without those that the error names, or, when it
// names none or all of them, for each half.
func sift[T any](items []T, id func(T) string, do func([]T) error) (refused []T, err error) {
	err = do(items)
	if code := codeOf(err); code != "InvalidTarget" && code != "InvalidInstance" {
		return nil, err
	}
	if len(items) == 1 {
		return items, nil
	}
	named := func(item T) bool { return namedIn(err.Error(), id(item)) }
	var bad, good []T
	for _, item := range items {
		if named(item) {
			bad = append(bad, item)
			continue
		}
		good = append(good, item)
	}
	if len(bad) > 0 && len(good) > 0 {
		refused, err = sift(good, id, do)
		return append(refused, bad...), err
	}
	half := len(items) / 2
	first, err := sift(items[:half], id, do)
	if err != nil {
		return first, err
	}
	second, err := sift(items[half:], id, do)
	return append(first, second...), err
}

// namedIn says whether a text has an ID, not as a part of a longer one.
func namedIn(text, id string) bool {
	for {
		i := strings.Index(text, id)
		if i < 0 {
			return false
		}
		text = text[i+len(id):]
		if text == "" || !strings.ContainsAny(text[:1], "0123456789abcdef.:") {
			return true
		}
	}
}

func (a *applier) tag(ctx context.Context, step model.Tag) error {
	var err error
	switch step.Piece.Kind {
	case model.PieceGroup:
		_, err = call(ctx, a.Provider, a.EC2.CreateTags, &ec2.CreateTagsInput{Resources: []string{a.groupID()}, Tags: ec2TagList(step.Tags)})
	case model.PieceCLB:
		_, err = call(ctx, a.Provider, a.ELB.AddTags, &elb.AddTagsInput{LoadBalancerNames: []string{step.Piece.Name}, Tags: classicTagList(step.Tags)})
	default:
		_, err = call(ctx, a.Provider, a.ELBV2.AddTags, &elbv2.AddTagsInput{ResourceArns: []string{a.ids[step.Piece]}, Tags: v2TagList(step.Tags)})
	}
	return err
}

func (a *applier) untag(ctx context.Context, step model.Untag) error {
	var err error
	switch step.Piece.Kind {
	case model.PieceGroup:
		in := &ec2.DeleteTagsInput{Resources: []string{a.groupID()}}
		for i := range step.Keys {
			in.Tags = append(in.Tags, ec2types.Tag{Key: &step.Keys[i]})
		}
		_, err = call(ctx, a.Provider, a.EC2.DeleteTags, in)
	case model.PieceCLB:
		in := &elb.RemoveTagsInput{LoadBalancerNames: []string{step.Piece.Name}}
		for i := range step.Keys {
			in.Tags = append(in.Tags, elbtypes.TagKeyOnly{Key: &step.Keys[i]})
		}
		_, err = call(ctx, a.Provider, a.ELB.RemoveTags, in)
	default:
		_, err = call(ctx, a.Provider, a.ELBV2.RemoveTags, &elbv2.RemoveTagsInput{ResourceArns: []string{a.ids[step.Piece]}, TagKeys: step.Keys})
	}
	return err
}

func ec2TagList(tags map[string]string) []ec2types.Tag {
	var all []ec2types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, ec2types.Tag{Key: awssdk.String(key), Value: awssdk.String(tags[key])})
	}
	return all
}

func v2TagList(tags map[string]string) []elbv2types.Tag {
	var all []elbv2types.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, elbv2types.Tag{Key: awssdk.String(key), Value: awssdk.String(tags[key])})
	}
	return all
}

func classicTagList(tags map[string]string) []elbtypes.Tag {
	var all []elbtypes.Tag
	for _, key := range slices.Sorted(maps.Keys(tags)) {
		all = append(all, elbtypes.Tag{Key: awssdk.String(key), Value: awssdk.String(tags[key])})
	}
	return all
}

func optional(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

func seconds(d time.Duration) *int32 { return awssdk.Int32(int32(d / time.Second)) }

func healthPort(h *settings.Health) *string {
	if h.Port == 0 {
		return awssdk.String("traffic-port")
	}
	return awssdk.String(strconv.Itoa(int(h.Port)))
}
