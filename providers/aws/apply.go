package aws

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// applier takes the steps of a plan. Each is taken as if it might have been
// taken before: what is so already is no error.
type applier struct {
	*Provider
	*holding
	// refused are targets that AWS does not take.
	refused []string
}

// take takes one step.
func (a *applier) take(ctx context.Context, step model.Step) error {
	switch step := step.(type) {
	case model.Tag:
		return a.tag(ctx, step)
	case model.Untag:
		return a.untag(ctx, step)
	case model.CreateGroup, model.DeleteGroup, model.Authorize, model.Revoke:
		return a.takeGroup(ctx, step)
	case model.CreateTargetGroup, model.DeleteTargetGroup, model.SetHealth, model.SetTargetGroupAttributes, model.Register, model.Deregister:
		return a.takeTargetGroup(ctx, step)
	case model.CreateListener, model.ModifyListener, model.DeleteListener, model.SetListenerAttributes, model.AddCertificate, model.RemoveCertificate:
		return a.takeListener(ctx, step)
	case model.CreateNLB, model.DeleteNLB, model.SetNLBAttributes, model.SetMappings, model.SetGroups, model.SetDualStack:
		return a.takeNLB(ctx, step)
	}
	return a.takeClassic(ctx, step)
}

// id is what AWS calls a piece.
func (a *applier) id(kind model.PieceKind, name string) *string {
	return awssdk.String(a.ids[model.Piece{Kind: kind, Name: name}])
}

func (a *applier) nlb(name string) *string         { return a.id(model.PieceNLB, name) }
func (a *applier) targetGroup(name string) *string { return a.id(model.PieceTargetGroup, name) }
func (a *applier) listener(port int32) *string {
	return a.id(model.PieceListener, strconv.Itoa(int(port)))
}

func (a *applier) learn(kind model.PieceKind, name string, id *string) {
	a.ids[model.Piece{Kind: kind, Name: name}] = awssdk.ToString(id)
}

func (a *applier) forget(kind model.PieceKind, name string) {
	delete(a.ids, model.Piece{Kind: kind, Name: name})
}

// groups puts the ID of our own group where OwnGroup stands.
func (a *applier) groups(groups []string) []string {
	ids := slices.Clone(groups)
	for i := range ids {
		if ids[i] == model.OwnGroup {
			ids[i] = a.groupID()
		}
	}
	return ids
}

func (a *applier) takeGroup(ctx context.Context, step model.Step) error {
	switch step := step.(type) {
	case model.CreateGroup:
		out, err := call(ctx, a.Provider, a.EC2.CreateSecurityGroup, &ec2.CreateSecurityGroupInput{
			GroupName: &step.Group.Name, Description: &step.Group.Description, VpcId: &a.VPCID,
			TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeSecurityGroup, Tags: ec2TagList(step.Group.Tags)}},
		})
		if codeOf(err) == "InvalidGroup.Duplicate" {
			return errors.Join(err, a.claimGroup(ctx, step.Group))
		}
		if err != nil {
			return err
		}
		a.learn(model.PieceGroup, step.Group.Name, out.GroupId)
	case model.DeleteGroup:
		_, err := call(ctx, a.Provider, a.EC2.DeleteSecurityGroup, &ec2.DeleteSecurityGroupInput{GroupId: awssdk.String(a.groupID())})
		if err != nil && codeOf(err) != "InvalidGroup.NotFound" {
			return err
		}
		a.forget(model.PieceGroup, step.Name)
	case model.Authorize:
		return a.eachRule(step.Rules, "InvalidPermission.Duplicate", func(rules []model.Rule) error {
			_, err := call(ctx, a.Provider, a.EC2.AuthorizeSecurityGroupIngress, &ec2.AuthorizeSecurityGroupIngressInput{
				GroupId: &a.groups([]string{step.Group})[0], IpPermissions: a.permissions(rules),
			})
			return err
		})
	case model.Revoke:
		err := a.eachRule(step.Rules, "InvalidPermission.NotFound", func(rules []model.Rule) error {
			_, err := call(ctx, a.Provider, a.EC2.RevokeSecurityGroupIngress, &ec2.RevokeSecurityGroupIngressInput{
				GroupId: &a.groups([]string{step.Group})[0], IpPermissions: a.permissions(rules),
			})
			return err
		})
		if codeOf(err) == "InvalidGroup.NotFound" && step.Group != model.OwnGroup {
			return nil // the nodes' group is gone with its rules
		}
		return err
	}
	return nil
}

// claimGroup gives a security group of the name the tags that it is found by:
// it is there, and was not found. The next attempt does.
func (a *applier) claimGroup(ctx context.Context, group *model.Group) error {
	groups, err := a.securityGroups(ctx, "group-name", group.Name)
	if err != nil || len(groups) == 0 {
		return err
	}
	_, err = call(ctx, a.Provider, a.EC2.CreateTags, &ec2.CreateTagsInput{Resources: []string{awssdk.ToString(groups[0].GroupId)}, Tags: ec2TagList(group.Tags)})
	return err
}

// eachRule has all rules changed in one call. EC2 refuses all of them for one
// that is so already: then each is changed by itself.
func (*applier) eachRule(rules []model.Rule, already string, change func([]model.Rule) error) error {
	err := change(rules)
	if codeOf(err) != already {
		return err
	}
	if len(rules) == 1 {
		return nil
	}
	for i := range rules {
		if err := change(rules[i : i+1]); err != nil && codeOf(err) != already {
			return err
		}
	}
	return nil
}

// permissions have their descriptions also when they are revoked: EC2 does not
// look at them then, and others that stand in for it want the rule as it is.
func (a *applier) permissions(rules []model.Rule) []ec2types.IpPermission {
	var all []ec2types.IpPermission
	for _, rule := range rules {
		permission := ec2types.IpPermission{IpProtocol: awssdk.String(rule.Protocol)}
		if rule.Protocol != "-1" {
			permission.FromPort, permission.ToPort = awssdk.Int32(rule.From), awssdk.Int32(rule.To)
		}
		description := optional(rule.Description)
		source := a.groups([]string{rule.Source})[0]
		switch {
		case strings.HasPrefix(source, "sg-"):
			permission.UserIdGroupPairs = []ec2types.UserIdGroupPair{{GroupId: &source, Description: description}}
		case strings.HasPrefix(source, "pl-"):
			permission.PrefixListIds = []ec2types.PrefixListId{{PrefixListId: &source, Description: description}}
		case strings.Contains(source, ":"):
			permission.Ipv6Ranges = []ec2types.Ipv6Range{{CidrIpv6: &source, Description: description}}
		default:
			permission.IpRanges = []ec2types.IpRange{{CidrIp: &source, Description: description}}
		}
		all = append(all, permission)
	}
	return all
}

func (a *applier) takeTargetGroup(ctx context.Context, step model.Step) error {
	var err error
	switch step := step.(type) {
	case model.CreateTargetGroup:
		return a.createTargetGroup(ctx, step.TargetGroup)
	case model.DeleteTargetGroup:
		_, err = call(ctx, a.Provider, a.ELBV2.DeleteTargetGroup, &elbv2.DeleteTargetGroupInput{TargetGroupArn: a.targetGroup(step.Name)})
		if err == nil {
			a.forget(model.PieceTargetGroup, step.Name)
		}
	case model.SetHealth:
		h := &step.Health
		in := &elbv2.ModifyTargetGroupInput{
			TargetGroupArn: a.targetGroup(step.TargetGroup), HealthCheckProtocol: elbv2types.ProtocolEnum(h.Protocol), HealthCheckPort: healthPort(h),
			HealthCheckIntervalSeconds: seconds(h.Interval), HealthCheckTimeoutSeconds: seconds(h.Timeout),
			HealthyThresholdCount: &h.Healthy, UnhealthyThresholdCount: &h.Unhealthy, HealthCheckPath: optional(h.Path),
		}
		if h.Codes != "" {
			in.Matcher = &elbv2types.Matcher{HttpCode: &h.Codes}
		}
		_, err = call(ctx, a.Provider, a.ELBV2.ModifyTargetGroup, in)
	case model.SetTargetGroupAttributes:
		in := &elbv2.ModifyTargetGroupAttributesInput{TargetGroupArn: a.targetGroup(step.TargetGroup)}
		for _, key := range slices.Sorted(maps.Keys(step.Attributes)) {
			in.Attributes = append(in.Attributes, elbv2types.TargetGroupAttribute{Key: awssdk.String(key), Value: awssdk.String(step.Attributes[key])})
		}
		_, err = call(ctx, a.Provider, a.ELBV2.ModifyTargetGroupAttributes, in)
	case model.Register:
		return a.register(ctx, step)
	case model.Deregister:
		_, err = call(ctx, a.Provider, a.ELBV2.DeregisterTargets, &elbv2.DeregisterTargetsInput{TargetGroupArn: a.targetGroup(step.TargetGroup), Targets: descriptions(step.Targets)})
	}
	return err
}

func (a *applier) createTargetGroup(ctx context.Context, group *model.TargetGroup) error {
	h := &group.Health
	in := &elbv2.CreateTargetGroupInput{
		Name: &group.Name, Protocol: elbv2types.ProtocolEnum(group.Protocol), Port: &group.Port, VpcId: &a.VPCID,
		TargetType: elbv2types.TargetTypeEnumInstance, Tags: v2TagList(group.Tags),
		HealthCheckProtocol: elbv2types.ProtocolEnum(h.Protocol), HealthCheckPort: healthPort(h), HealthCheckPath: optional(h.Path),
		HealthCheckIntervalSeconds: seconds(h.Interval), HealthCheckTimeoutSeconds: seconds(h.Timeout),
		HealthyThresholdCount: &h.Healthy, UnhealthyThresholdCount: &h.Unhealthy,
	}
	if h.Codes != "" {
		in.Matcher = &elbv2types.Matcher{HttpCode: &h.Codes}
	}
	if group.IPs {
		in.TargetType = elbv2types.TargetTypeEnumIp
	}
	if group.IPv6 {
		in.IpAddressType = elbv2types.TargetGroupIpAddressTypeEnumIpv6
	}
	out, err := call(ctx, a.Provider, a.ELBV2.CreateTargetGroup, in)
	if err != nil {
		return err
	}
	if len(out.TargetGroups) != 1 {
		return fmt.Errorf("AWS made %d target groups of one", len(out.TargetGroups))
	}
	a.learn(model.PieceTargetGroup, group.Name, out.TargetGroups[0].TargetGroupArn)
	return nil
}

func (a *applier) register(ctx context.Context, step model.Register) error {
	refused, err := sift(step.Targets, func(target model.Target) string { return target.ID }, func(targets []model.Target) error {
		_, err := call(ctx, a.Provider, a.ELBV2.RegisterTargets, &elbv2.RegisterTargetsInput{TargetGroupArn: a.targetGroup(step.TargetGroup), Targets: descriptions(targets)})
		return err
	})
	for _, target := range refused {
		a.refused = append(a.refused, target.ID)
	}
	return err
}

func descriptions(targets []model.Target) []elbv2types.TargetDescription {
	all := make([]elbv2types.TargetDescription, len(targets))
	for i := range targets {
		all[i] = elbv2types.TargetDescription{Id: &targets[i].ID, Port: &targets[i].Port, AvailabilityZone: optional(targets[i].Zone)}
	}
	return all
}

func (a *applier) takeNLB(ctx context.Context, step model.Step) error {
	var err error
	switch step := step.(type) {
	case model.CreateNLB:
		return a.createNLB(ctx, step.NLB)
	case model.DeleteNLB:
		_, err = call(ctx, a.Provider, a.ELBV2.DeleteLoadBalancer, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: a.nlb(step.Name)})
		if err == nil {
			a.forget(model.PieceNLB, step.Name)
			delete(a.hostnames, NLB)
			maps.DeleteFunc(a.ids, func(piece model.Piece, _ string) bool { return piece.Kind == model.PieceListener })
		}
	case model.SetNLBAttributes:
		in := &elbv2.ModifyLoadBalancerAttributesInput{LoadBalancerArn: a.nlb(step.Name)}
		for _, key := range slices.Sorted(maps.Keys(step.Attributes)) {
			in.Attributes = append(in.Attributes, elbv2types.LoadBalancerAttribute{Key: awssdk.String(key), Value: awssdk.String(step.Attributes[key])})
		}
		_, err = call(ctx, a.Provider, a.ELBV2.ModifyLoadBalancerAttributes, in)
	case model.SetMappings:
		_, err = call(ctx, a.Provider, a.ELBV2.SetSubnets, &elbv2.SetSubnetsInput{
			LoadBalancerArn: a.nlb(step.Name), SubnetMappings: subnetMappings(step.Mappings),
			IpAddressType: addressType(step.DualStack), EnablePrefixForIpv6SourceNat: sourceNAT(step.SourceNAT),
		})
	case model.SetGroups:
		_, err = call(ctx, a.Provider, a.ELBV2.SetSecurityGroups, &elbv2.SetSecurityGroupsInput{LoadBalancerArn: a.nlb(step.Name), SecurityGroups: a.groups(step.Groups)})
	case model.SetDualStack:
		_, err = call(ctx, a.Provider, a.ELBV2.SetIpAddressType, &elbv2.SetIpAddressTypeInput{LoadBalancerArn: a.nlb(step.Name), IpAddressType: addressType(step.DualStack)})
	}
	return err
}

func (a *applier) createNLB(ctx context.Context, nlb *model.NLB) error {
	in := &elbv2.CreateLoadBalancerInput{
		Name: &nlb.Name, Type: elbv2types.LoadBalancerTypeEnumNetwork, Scheme: elbv2types.LoadBalancerSchemeEnumInternetFacing,
		IpAddressType: addressType(nlb.DualStack), SubnetMappings: subnetMappings(nlb.Mappings),
		SecurityGroups: a.groups(nlb.Groups), Tags: v2TagList(nlb.Tags),
	}
	if nlb.SourceNAT {
		in.EnablePrefixForIpv6SourceNat = sourceNAT(true)
	}
	if nlb.Internal {
		in.Scheme = elbv2types.LoadBalancerSchemeEnumInternal
	}
	out, err := call(ctx, a.Provider, a.ELBV2.CreateLoadBalancer, in)
	if err != nil {
		return err
	}
	if len(out.LoadBalancers) != 1 {
		return fmt.Errorf("AWS made %d load balancers of one", len(out.LoadBalancers))
	}
	made := &out.LoadBalancers[0]
	a.learn(model.PieceNLB, nlb.Name, made.LoadBalancerArn)
	a.hostnames[NLB] = awssdk.ToString(made.DNSName)
	a.provisioning, a.problem = provisioning(made.State)
	return nil
}

func addressType(dualStack bool) elbv2types.IpAddressType {
	if dualStack {
		return elbv2types.IpAddressTypeDualstack
	}
	return elbv2types.IpAddressTypeIpv4
}

// sourceNAT has AWS choose the prefixes, one of each subnet.
func sourceNAT(on bool) elbv2types.EnablePrefixForIpv6SourceNatEnum {
	if on {
		return elbv2types.EnablePrefixForIpv6SourceNatEnumOn
	}
	return elbv2types.EnablePrefixForIpv6SourceNatEnumOff
}

func subnetMappings(mappings []model.Mapping) []elbv2types.SubnetMapping {
	all := make([]elbv2types.SubnetMapping, len(mappings))
	for i := range mappings {
		m := &mappings[i]
		all[i] = elbv2types.SubnetMapping{
			SubnetId: &m.Subnet, AllocationId: optional(m.Allocation),
			PrivateIPv4Address: optional(m.PrivateIPv4), IPv6Address: optional(m.IPv6),
		}
	}
	return all
}

func (a *applier) takeListener(ctx context.Context, step model.Step) error {
	var err error
	switch step := step.(type) {
	case model.CreateListener:
		l := step.Listener
		in := &elbv2.CreateListenerInput{
			LoadBalancerArn: a.nlb(step.NLB), Port: &l.Port, Protocol: elbv2types.ProtocolEnum(l.Protocol),
			DefaultActions: a.forward(l), Tags: v2TagList(l.Tags),
		}
		in.Certificates, in.SslPolicy, in.AlpnPolicy = secure(l)
		out, err := call(ctx, a.Provider, a.ELBV2.CreateListener, in)
		if err != nil {
			return err
		}
		if len(out.Listeners) != 1 {
			return fmt.Errorf("AWS made %d listeners of one", len(out.Listeners))
		}
		a.learn(model.PieceListener, strconv.Itoa(int(l.Port)), out.Listeners[0].ListenerArn)
	case model.ModifyListener:
		l := step.Listener
		in := &elbv2.ModifyListenerInput{ListenerArn: a.listener(l.Port), DefaultActions: a.forward(l)}
		if step.Was != l.Protocol {
			in.Protocol = elbv2types.ProtocolEnum(l.Protocol)
		}
		in.Certificates, in.SslPolicy, in.AlpnPolicy = secure(l)
		_, err = call(ctx, a.Provider, a.ELBV2.ModifyListener, in)
	case model.DeleteListener:
		_, err = call(ctx, a.Provider, a.ELBV2.DeleteListener, &elbv2.DeleteListenerInput{ListenerArn: a.listener(step.Port)})
		if codeOf(err) == "ListenerNotFound" {
			err = nil
		}
	case model.SetListenerAttributes:
		in := &elbv2.ModifyListenerAttributesInput{ListenerArn: a.listener(step.Port)}
		for _, key := range slices.Sorted(maps.Keys(step.Attributes)) {
			in.Attributes = append(in.Attributes, elbv2types.ListenerAttribute{Key: awssdk.String(key), Value: awssdk.String(step.Attributes[key])})
		}
		_, err = call(ctx, a.Provider, a.ELBV2.ModifyListenerAttributes, in)
	case model.AddCertificate:
		_, err = call(ctx, a.Provider, a.ELBV2.AddListenerCertificates, &elbv2.AddListenerCertificatesInput{
			ListenerArn: a.listener(step.Port), Certificates: []elbv2types.Certificate{{CertificateArn: &step.Certificate}},
		})
	case model.RemoveCertificate:
		_, err = call(ctx, a.Provider, a.ELBV2.RemoveListenerCertificates, &elbv2.RemoveListenerCertificatesInput{
			ListenerArn: a.listener(step.Port), Certificates: []elbv2types.Certificate{{CertificateArn: &step.Certificate}},
		})
	}
	return err
}

func (a *applier) forward(l *model.Listener) []elbv2types.Action {
	return []elbv2types.Action{{Type: elbv2types.ActionTypeEnumForward, TargetGroupArn: a.targetGroup(l.TargetGroup)}}
}

// secure is what a listener of TLS has besides.
func secure(l *model.Listener) (certificates []elbv2types.Certificate, policy *string, alpn []string) {
	if l.Protocol != settings.TLS {
		return nil, nil, nil
	}
	return []elbv2types.Certificate{{CertificateArn: &l.Certificates[0]}}, &l.TLSPolicy, []string{l.ALPN}
}
