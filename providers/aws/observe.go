package aws

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// holding is what AWS holds for a Service, and what AWS calls it.
type holding struct {
	state model.State
	// raw says that the state is as AWS tells it, with what others set.
	raw bool
	// ids has the ARN of each piece of the NLB and the ID of the group.
	ids map[model.Piece]string
	// hostnames of the load balancers by type; provisioning says that that of
	// the NLB may not resolve yet.
	hostnames    map[Type]string
	provisioning bool
	// problem is what AWS says when it could not make it.
	problem string
}

func newHolding() *holding {
	return &holding{ids: map[model.Piece]string{}, hostnames: map[Type]string{}}
}

// clone is a copy whose IDs can change; states are replaced, never changed.
func (h *holding) clone() *holding {
	copied := *h
	copied.ids, copied.hostnames = maps.Clone(h.ids), maps.Clone(h.hostnames)
	return &copied
}

// observe reads what AWS holds for a Service, by an inventory taken since a time.
func (p *Provider) observe(ctx context.Context, identity model.Identity, since time.Time) (*holding, error) {
	inv, err := p.inventory.get(ctx, since)
	if err != nil {
		return nil, err
	}
	o := &observer{p, identity, inv, newHolding()}
	o.group()
	if err := o.network(ctx); err != nil {
		return nil, err
	}
	if err := o.targetGroups(ctx); err != nil {
		return nil, err
	}
	if err := o.classic(ctx); err != nil {
		return nil, err
	}
	o.nodeRules()
	o.raw = true
	return o.holding, nil
}

type observer struct {
	*Provider
	identity model.Identity
	inv      *inventory
	*holding
}

// group finds the security group of the load balancer.
func (o *observer) group() {
	for id, group := range o.inv.groups {
		if awssdk.ToString(group.GroupName) != o.identity.GroupName() {
			continue
		}
		o.ids[model.Piece{Kind: model.PieceGroup, Name: o.identity.GroupName()}] = id
		o.state.Group = &model.Group{
			Name:        o.identity.GroupName(),
			Description: awssdk.ToString(group.Description),
			Tags:        withoutReserved(ec2Tags(group.Tags)),
			Rules:       rulesOf(&group),
		}
	}
}

// groupID is the ID of the load balancer's own group.
func (h *holding) groupID() string {
	for piece, id := range h.ids {
		if piece.Kind == model.PieceGroup {
			return id
		}
	}
	return ""
}

// symbols puts OwnGroup where the ID of our group stands.
func (h *holding) symbols(ids []string) []string {
	var groups []string
	for _, id := range ids {
		if id == h.groupID() {
			id = model.OwnGroup
		}
		groups = append(groups, id)
	}
	return groups
}

// network finds the NLB: by its name, by its tags, or by what it has of ours.
func (o *observer) network(ctx context.Context) error {
	i := slices.IndexFunc(o.inv.networks, func(lb elbv2types.LoadBalancer) bool {
		return awssdk.ToString(lb.LoadBalancerName) == o.identity.LoadBalancerName() ||
			o.identity.Owns(o.inv.tags[awssdk.ToString(lb.LoadBalancerArn)])
	})
	if i < 0 {
		return nil
	}
	lb := &o.inv.networks[i]
	arn := awssdk.ToString(lb.LoadBalancerArn)
	nlb := &model.NLB{
		Name:      awssdk.ToString(lb.LoadBalancerName),
		Internal:  lb.Scheme == elbv2types.LoadBalancerSchemeEnumInternal,
		DualStack: lb.IpAddressType == elbv2types.IpAddressTypeDualstack,
		SourceNAT: lb.EnablePrefixForIpv6SourceNat == elbv2types.EnablePrefixForIpv6SourceNatEnumOn,
		Groups:    o.symbols(lb.SecurityGroups),
		Mappings:  mappingsOf(lb.AvailabilityZones),
		Tags:      o.inv.tags[arn],
	}
	o.state.NLB = nlb
	o.ids[model.Piece{Kind: model.PieceNLB, Name: nlb.Name}] = arn
	o.hostnames[NLB] = awssdk.ToString(lb.DNSName)
	o.provisioning, o.problem = provisioning(lb.State)

	attributes, err := call(ctx, o.Provider, o.ELBV2.DescribeLoadBalancerAttributes, &elbv2.DescribeLoadBalancerAttributesInput{LoadBalancerArn: &arn})
	if err != nil {
		return err
	}
	nlb.Attributes = map[string]string{}
	for _, attribute := range attributes.Attributes {
		nlb.Attributes[awssdk.ToString(attribute.Key)] = awssdk.ToString(attribute.Value)
	}
	return o.listeners(ctx, arn)
}

// provisioning reads the state of an NLB: whether AWS is still making it, and
// what AWS says when it could not.
func provisioning(state *elbv2types.LoadBalancerState) (still bool, problem string) {
	switch {
	case state == nil:
		return false, ""
	case state.Code == elbv2types.LoadBalancerStateEnumFailed:
		return false, cmp.Or(awssdk.ToString(state.Reason), "no reason is given")
	}
	return state.Code == elbv2types.LoadBalancerStateEnumProvisioning, ""
}

func mappingsOf(zones []elbv2types.AvailabilityZone) []model.Mapping {
	var mappings []model.Mapping
	for _, zone := range zones {
		mapping := model.Mapping{Subnet: awssdk.ToString(zone.SubnetId)}
		for _, address := range zone.LoadBalancerAddresses {
			mapping.Allocation = cmp.Or(mapping.Allocation, awssdk.ToString(address.AllocationId))
			mapping.PrivateIPv4 = cmp.Or(mapping.PrivateIPv4, awssdk.ToString(address.PrivateIPv4Address))
			mapping.IPv6 = cmp.Or(mapping.IPv6, awssdk.ToString(address.IPv6Address))
		}
		mappings = append(mappings, mapping)
	}
	slices.SortFunc(mappings, func(a, b model.Mapping) int { return strings.Compare(a.Subnet, b.Subnet) })
	return mappings
}

func (o *observer) listeners(ctx context.Context, arn string) error {
	listeners, err := collect(func(token *string) ([]elbv2types.Listener, *string, error) {
		out, err := call(ctx, o.Provider, o.ELBV2.DescribeListeners, &elbv2.DescribeListenersInput{LoadBalancerArn: &arn, Marker: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Listeners, out.NextMarker, nil
	})
	if err != nil {
		return err
	}
	var arns []string
	for i := range listeners {
		arns = append(arns, awssdk.ToString(listeners[i].ListenerArn))
	}
	tags, err := o.networkTags(ctx, arns)
	if err != nil {
		return err
	}
	for i := range listeners {
		listener, err := o.listener(ctx, &listeners[i])
		if err != nil {
			return err
		}
		listener.Tags = tags[arns[i]]
		o.state.NLB.Listeners = append(o.state.NLB.Listeners, listener)
		o.ids[model.Piece{Kind: model.PieceListener, Name: strconv.Itoa(int(listener.Port))}] = arns[i]
	}
	slices.SortFunc(o.state.NLB.Listeners, func(a, b model.Listener) int { return int(a.Port) - int(b.Port) })
	return nil
}

func (o *observer) listener(ctx context.Context, in *elbv2types.Listener) (model.Listener, error) {
	listener := model.Listener{
		Port:      awssdk.ToInt32(in.Port),
		Protocol:  settings.Protocol(in.Protocol),
		TLSPolicy: awssdk.ToString(in.SslPolicy),
	}
	for _, action := range in.DefaultActions {
		for i := range o.inv.targetGroups {
			if awssdk.ToString(o.inv.targetGroups[i].TargetGroupArn) == awssdk.ToString(action.TargetGroupArn) {
				listener.TargetGroup = awssdk.ToString(o.inv.targetGroups[i].TargetGroupName)
			}
		}
	}
	switch listener.Protocol {
	case settings.TCP:
		out, err := call(ctx, o.Provider, o.ELBV2.DescribeListenerAttributes, &elbv2.DescribeListenerAttributesInput{ListenerArn: in.ListenerArn})
		if err != nil {
			return listener, err
		}
		listener.Attributes = map[string]string{}
		for _, attribute := range out.Attributes {
			listener.Attributes[awssdk.ToString(attribute.Key)] = awssdk.ToString(attribute.Value)
		}
	case settings.TLS:
		listener.ALPN = "None"
		if len(in.AlpnPolicy) > 0 {
			listener.ALPN = in.AlpnPolicy[0]
		}
		for _, certificate := range in.Certificates {
			listener.Certificates = append(listener.Certificates, awssdk.ToString(certificate.CertificateArn))
		}
		further, err := o.certificates(ctx, in.ListenerArn)
		if err != nil {
			return listener, err
		}
		listener.Certificates = append(listener.Certificates, further...)
	}
	return listener, nil
}

// certificates are those of a listener that are found by SNI.
func (o *observer) certificates(ctx context.Context, arn *string) ([]string, error) {
	all, err := collect(func(token *string) ([]elbv2types.Certificate, *string, error) {
		out, err := call(ctx, o.Provider, o.ELBV2.DescribeListenerCertificates, &elbv2.DescribeListenerCertificatesInput{ListenerArn: arn, Marker: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Certificates, out.NextMarker, nil
	})
	var further []string
	for _, certificate := range all {
		if !awssdk.ToBool(certificate.IsDefault) {
			further = append(further, awssdk.ToString(certificate.CertificateArn))
		}
	}
	return further, err
}

// targetGroups finds the target groups: those of the NLB, and those with the
// Service's tags whose NLB is gone.
func (o *observer) targetGroups(ctx context.Context) error {
	var nlb string
	if o.state.NLB != nil {
		nlb = o.ids[model.Piece{Kind: model.PieceNLB, Name: o.state.NLB.Name}]
	}
	for i := range o.inv.targetGroups {
		in := &o.inv.targetGroups[i]
		name, arn := awssdk.ToString(in.TargetGroupName), awssdk.ToString(in.TargetGroupArn)
		orphan := strings.HasPrefix(name, model.TargetGroupsPrefix) && o.identity.Owns(o.inv.tags[arn])
		if !orphan && (nlb == "" || !slices.Contains(in.LoadBalancerArns, nlb)) {
			continue
		}
		group, err := o.targetGroup(ctx, in)
		if err != nil {
			return err
		}
		group.Tags = o.inv.tags[arn]
		o.state.TargetGroups = append(o.state.TargetGroups, group)
		o.ids[model.Piece{Kind: model.PieceTargetGroup, Name: name}] = arn
	}
	slices.SortFunc(o.state.TargetGroups, func(a, b model.TargetGroup) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

func (o *observer) targetGroup(ctx context.Context, in *elbv2types.TargetGroup) (model.TargetGroup, error) {
	group := model.TargetGroup{
		Name:       awssdk.ToString(in.TargetGroupName),
		Protocol:   settings.Protocol(in.Protocol),
		Port:       awssdk.ToInt32(in.Port),
		IPs:        in.TargetType == elbv2types.TargetTypeEnumIp,
		IPv6:       in.IpAddressType == elbv2types.TargetGroupIpAddressTypeEnumIpv6,
		Health:     healthOf(in),
		Attributes: map[string]string{},
	}
	attributes, err := call(ctx, o.Provider, o.ELBV2.DescribeTargetGroupAttributes, &elbv2.DescribeTargetGroupAttributesInput{TargetGroupArn: in.TargetGroupArn})
	if err != nil {
		return group, err
	}
	for _, attribute := range attributes.Attributes {
		group.Attributes[awssdk.ToString(attribute.Key)] = awssdk.ToString(attribute.Value)
	}
	health, err := call(ctx, o.Provider, o.ELBV2.DescribeTargetHealth, &elbv2.DescribeTargetHealthInput{TargetGroupArn: in.TargetGroupArn})
	if err != nil {
		return group, err
	}
	for _, description := range health.TargetHealthDescriptions {
		if description.TargetHealth != nil && description.TargetHealth.State == elbv2types.TargetHealthStateEnumDraining {
			continue
		}
		target := model.Target{ID: awssdk.ToString(description.Target.Id), Port: awssdk.ToInt32(description.Target.Port)}
		if awssdk.ToString(description.Target.AvailabilityZone) == "all" {
			target.Zone = "all"
		}
		group.Targets = append(group.Targets, target)
	}
	slices.SortFunc(group.Targets, func(a, b model.Target) int {
		return cmp.Or(strings.Compare(a.ID, b.ID), cmp.Compare(a.Port, b.Port))
	})
	return group, nil
}

func healthOf(in *elbv2types.TargetGroup) settings.Health {
	health := settings.Health{
		Protocol:  settings.Protocol(in.HealthCheckProtocol),
		Path:      awssdk.ToString(in.HealthCheckPath),
		Healthy:   awssdk.ToInt32(in.HealthyThresholdCount),
		Unhealthy: awssdk.ToInt32(in.UnhealthyThresholdCount),
		Interval:  time.Duration(awssdk.ToInt32(in.HealthCheckIntervalSeconds)) * time.Second,
		Timeout:   time.Duration(awssdk.ToInt32(in.HealthCheckTimeoutSeconds)) * time.Second,
	}
	if port, err := strconv.Atoi(awssdk.ToString(in.HealthCheckPort)); err == nil {
		health.Port = int32(port)
	}
	if in.Matcher != nil {
		health.Codes = awssdk.ToString(in.Matcher.HttpCode)
	}
	if health.Protocol == settings.TCP {
		health.Path, health.Codes = "", ""
	}
	return health
}

// classic finds the CLB by its name.
func (o *observer) classic(ctx context.Context) error {
	name := o.identity.LoadBalancerName()
	i := slices.IndexFunc(o.inv.classics, func(lb elbtypes.LoadBalancerDescription) bool { return awssdk.ToString(lb.LoadBalancerName) == name })
	if i < 0 {
		return nil
	}
	lb := &o.inv.classics[i]
	clb := classicOf(lb)
	clb.Groups = o.symbols(lb.SecurityGroups)
	attributes, err := call(ctx, o.Provider, o.ELB.DescribeLoadBalancerAttributes, &elb.DescribeLoadBalancerAttributesInput{LoadBalancerName: &name})
	if err != nil {
		return err
	}
	clb.Attributes = classicAttributesOf(attributes.LoadBalancerAttributes)
	tags, err := call(ctx, o.Provider, o.ELB.DescribeTags, &elb.DescribeTagsInput{LoadBalancerNames: []string{name}})
	if err != nil {
		return err
	}
	clb.Tags = map[string]string{}
	for _, description := range tags.TagDescriptions {
		for _, tag := range description.Tags {
			clb.Tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
		}
	}
	withoutReserved(clb.Tags)
	o.state.CLB = clb
	o.hostnames[CLB] = awssdk.ToString(lb.DNSName)
	return nil
}

func classicOf(lb *elbtypes.LoadBalancerDescription) *model.CLB {
	clb := &model.CLB{
		Name:     awssdk.ToString(lb.LoadBalancerName),
		Internal: awssdk.ToString(lb.Scheme) == "internal",
		Subnets:  slices.Sorted(slices.Values(lb.Subnets)),
		Health:   classicHealthOf(lb.HealthCheck),
	}
	for _, description := range lb.ListenerDescriptions {
		in := description.Listener
		listener := model.ClassicListener{
			Port:             in.LoadBalancerPort,
			Protocol:         settings.Protocol(awssdk.ToString(in.Protocol)),
			InstancePort:     awssdk.ToInt32(in.InstancePort),
			InstanceProtocol: settings.Protocol(awssdk.ToString(in.InstanceProtocol)),
			Certificate:      awssdk.ToString(in.SSLCertificateId),
		}
		for _, policy := range description.PolicyNames {
			if predefined, ok := model.Predefined(policy); ok {
				listener.TLSPolicy = predefined
			}
		}
		clb.Listeners = append(clb.Listeners, listener)
	}
	slices.SortFunc(clb.Listeners, func(a, b model.ClassicListener) int { return int(a.Port) - int(b.Port) })
	for _, backend := range lb.BackendServerDescriptions {
		if slices.Contains(backend.PolicyNames, model.ProxyPolicy) {
			clb.ProxyPorts = append(clb.ProxyPorts, awssdk.ToInt32(backend.InstancePort))
		}
	}
	slices.Sort(clb.ProxyPorts)
	if lb.Policies != nil {
		for _, policy := range lb.Policies.OtherPolicies {
			if model.OwnPolicy(policy) {
				clb.Policies = append(clb.Policies, policy)
			}
		}
	}
	slices.Sort(clb.Policies)
	for _, instance := range lb.Instances {
		clb.Instances = append(clb.Instances, awssdk.ToString(instance.InstanceId))
	}
	slices.Sort(clb.Instances)
	return clb
}

// classicHealthOf reads a target such as HTTP:10256/healthz.
func classicHealthOf(in *elbtypes.HealthCheck) settings.Health {
	if in == nil {
		return settings.Health{}
	}
	protocol, rest, _ := strings.Cut(awssdk.ToString(in.Target), ":")
	port, path, _ := strings.Cut(rest, "/")
	number, err := strconv.Atoi(port)
	if err != nil {
		number = 0 // never what is desired
	}
	health := settings.Health{
		Protocol:  settings.Protocol(protocol),
		Port:      int32(number),
		Healthy:   awssdk.ToInt32(in.HealthyThreshold),
		Unhealthy: awssdk.ToInt32(in.UnhealthyThreshold),
		Interval:  time.Duration(awssdk.ToInt32(in.Interval)) * time.Second,
		Timeout:   time.Duration(awssdk.ToInt32(in.Timeout)) * time.Second,
	}
	if path != "" || strings.Contains(rest, "/") {
		health.Path = "/" + path
	}
	return health
}

func classicAttributesOf(in *elbtypes.LoadBalancerAttributes) model.ClassicAttributes {
	var attributes model.ClassicAttributes
	if in == nil {
		return attributes
	}
	if in.CrossZoneLoadBalancing != nil {
		attributes.CrossZone = in.CrossZoneLoadBalancing.Enabled
	}
	if drain := in.ConnectionDraining; drain != nil && drain.Enabled {
		attributes.DrainSeconds = awssdk.ToInt32(drain.Timeout)
	}
	if in.ConnectionSettings != nil {
		attributes.IdleSeconds = awssdk.ToInt32(in.ConnectionSettings.IdleTimeout)
	}
	if log := in.AccessLog; log != nil && log.Enabled {
		attributes.LogBucket, attributes.LogPrefix = awssdk.ToString(log.S3BucketName), awssdk.ToString(log.S3BucketPrefix)
		attributes.LogMinutes = awssdk.ToInt32(log.EmitInterval)
	}
	return attributes
}

// nodeRules finds the rules that let the load balancer in to the nodes.
func (o *observer) nodeRules() {
	own := o.groupID()
	for _, id := range slices.Sorted(maps.Keys(o.inv.groups)) {
		group := o.inv.groups[id]
		if id == own {
			continue
		}
		rules := rulesOf(&group)
		for _, rule := range rules {
			switch {
			case own != "" && rule.Source == own:
				rule.Source = model.OwnGroup
				o.state.NodeRules = append(o.state.NodeRules, model.NodeRule{Group: id, Rule: rule})
			case model.IsGrouplessRule(rule, o.identity.LoadBalancerName()):
				o.state.NodeRules = append(o.state.NodeRules, model.NodeRule{Group: id, Rule: rule})
			case strings.HasPrefix(rule.Description, model.MTURule):
				ours, others := clientsOf(rules, rule.Source, o.identity.LoadBalancerName())
				if ours {
					o.state.NodeRules = append(o.state.NodeRules, model.NodeRule{Group: id, Rule: rule, Shared: others})
				}
			case rule.Description == model.SharedRuleDescription(o.ClusterName):
				o.state.NodeRules = append(o.state.NodeRules, model.NodeRule{Group: id, Rule: rule, Shared: o.shares(o.identity, rule.Source)})
			}
		}
	}
}

// clientsOf says whether a rule lets in clients from the source for the NLB of
// the name, and whether one does for another NLB.
func clientsOf(rules []model.Rule, source, name string) (ours, others bool) {
	for _, rule := range rules {
		if of, ok := model.ClientRuleOf(rule); ok && rule.Source == source {
			ours, others = ours || of == name, others || of != name
		}
	}
	return ours, others
}
