package awsfake

import (
	"fmt"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// classic is a Classic Load Balancer. Its name is its identity.
type classic struct {
	name, dns, scheme, vpc string
	subnets                []*subnet
	groups                 []string
	listeners              []classicListener
	policies               []policy
	// backends are the policies of instance ports.
	backends  map[int32][]string
	instances []registration
	// known are instances that were registered once: deregistering one of them
	// again is no error.
	known      map[string]bool
	check      classicCheck
	attributes classicAttributes
	tags       tags
	created    time.Time
}

func (c *Cloud) classicOperations() map[string]handler {
	return map[string]handler{
		"CreateLoadBalancer":             on(c.createClassic),
		"DeleteLoadBalancer":             on(c.deleteClassic),
		"DescribeLoadBalancers":          on(c.describeClassics),
		"DescribeLoadBalancerAttributes": on(c.describeClassicAttributes),
		"ModifyLoadBalancerAttributes":   on(c.modifyClassicAttributes),

		"CreateLoadBalancerListeners":           on(c.createClassicListeners),
		"DeleteLoadBalancerListeners":           on(c.deleteClassicListeners),
		"SetLoadBalancerListenerSSLCertificate": on(c.setClassicCertificate),

		"CreateLoadBalancerPolicy":                on(c.createPolicy),
		"DeleteLoadBalancerPolicy":                on(c.deletePolicy),
		"DescribeLoadBalancerPolicies":            on(c.describePolicies),
		"SetLoadBalancerPoliciesOfListener":       on(c.setListenerPolicies),
		"SetLoadBalancerPoliciesForBackendServer": on(c.setBackendPolicies),

		"ConfigureHealthCheck":                on(c.configureHealthCheck),
		"RegisterInstancesWithLoadBalancer":   on(c.registerInstances),
		"DeregisterInstancesFromLoadBalancer": on(c.deregisterInstances),
		"DescribeInstanceHealth":              on(c.describeInstanceHealth),

		"AttachLoadBalancerToSubnets":       on(c.attachSubnets),
		"DetachLoadBalancerFromSubnets":     on(c.detachSubnets),
		"ApplySecurityGroupsToLoadBalancer": on(c.applySecurityGroups),

		"AddTags":      on(c.addClassicTags),
		"RemoveTags":   on(c.removeClassicTags),
		"DescribeTags": on(c.describeClassicTags),
	}
}

var classicPlacement = placementErrors{
	notFound: func(f string, a ...any) error { return &types.SubnetNotFoundException{Message: text(f, a...)} },
	invalid:  func(f string, a ...any) error { return &types.InvalidSubnetException{Message: text(f, a...)} },
	conflict: misconfiguredClassic,
	group:    func(f string, a ...any) error { return &types.InvalidSecurityGroupException{Message: text(f, a...)} },
}

func misconfiguredClassic(f string, a ...any) error {
	return &types.InvalidConfigurationRequestException{Message: text(f, a...)}
}

func (c *Cloud) createClassic(in *elb.CreateLoadBalancerInput) (*elb.CreateLoadBalancerOutput, error) {
	lb, err := c.newClassic(in)
	if err != nil {
		return nil, err
	}
	if old, ok := c.classics.get(lb.name); ok {
		switch {
		case !sameClassic(old, lb):
			return nil, &types.DuplicateAccessPointNameException{
				Message: text("Load Balancer named %s already exists and it is configured with different parameters.", lb.name),
			}
		case !slices.Equal(old.tags.sorted(), lb.tags.sorted()):
			return nil, &types.DuplicateAccessPointNameException{
				Message: text("Load Balancer named %s already exists and it is configured with different tags.", lb.name),
			}
		}
		return &elb.CreateLoadBalancerOutput{DNSName: aws.String(old.dns)}, nil
	}
	if len(c.classics.live) >= c.limits.ClassicLoadBalancers {
		return nil, &types.TooManyAccessPointsException{
			Message: text("The quota of %d load balancers has been reached", c.limits.ClassicLoadBalancers),
		}
	}
	serial := c.next()
	lb.dns = fmt.Sprintf("%s-%d.%s.elb.amazonaws.com", lb.name, 1000000000+serial, c.options.Region)
	if lb.scheme == internalScheme {
		lb.dns = "internal-" + lb.dns
	}
	lb.created = c.now()
	for _, s := range lb.subnets {
		s.free--
	}
	c.classics.add(lb.name, lb, serial, lb.created)
	return &elb.CreateLoadBalancerOutput{DNSName: aws.String(lb.dns)}, nil
}

const (
	internalScheme = "internal"
	publicScheme   = "internet-facing"
)

// newClassic is the load balancer that is asked for, or why there cannot be
// such a one.
func (c *Cloud) newClassic(in *elb.CreateLoadBalancerInput) (*classic, error) {
	lb := &classic{
		name: aws.ToString(in.LoadBalancerName), scheme: or(aws.ToString(in.Scheme), publicScheme), groups: slices.Clone(in.SecurityGroups),
		backends: map[int32][]string{}, known: map[string]bool{}, attributes: usualClassicAttributes(),
	}
	if err := checkName("load balancer", lb.name, true); err != nil {
		return nil, err
	}
	if lb.scheme != internalScheme && (lb.scheme != publicScheme || in.Scheme != nil && *in.Scheme != publicScheme) {
		return nil, &types.InvalidSchemeException{Message: text("The scheme '%s' is not valid", lb.scheme)}
	}
	if len(in.Subnets) == 0 {
		return nil, invalid("Either AvailabilityZones or SubnetIds must be specified; awsfake knows subnets only")
	}
	if len(in.AvailabilityZones) > 0 {
		return nil, invalid("Only one of Subnets or AvailabilityZones can be specified")
	}
	var err error
	if lb.subnets, err = c.place(in.Subnets, lb.scheme == publicScheme, classicPlacement); err != nil {
		return nil, err
	}
	if err := spacious(lb.subnets, classicPlacement); err != nil {
		return nil, err
	}
	lb.vpc = lb.subnets[0].VPC
	if len(lb.groups) == 0 {
		v, _ := c.vpcs.get(lb.vpc)
		lb.groups = []string{v.defaultGroup}
	}
	if err := c.shield(lb.groups, lb.vpc, classicPlacement); err != nil {
		return nil, err
	}
	if len(in.Listeners) == 0 {
		return nil, invalid("At least one listener must be specified")
	}
	if err := c.listen(lb, in.Listeners); err != nil {
		return nil, err
	}
	// The check that AWS begins with.
	lb.check = classicCheck{target: fmt.Sprintf("TCP:%d", lb.listeners[0].backend), interval: 30, timeout: 5, unhealthy: 2, healthy: 10}
	lb.tags, err = c.tag(nil, classicPairs(in.Tags), classicTagErrors)
	return lb, err
}

// sameClassic says whether a load balancer is what is asked for again.
func sameClassic(a, b *classic) bool {
	ids := func(lb *classic) []string { return slices.Sorted(slices.Values(subnetIDs(lb.subnets))) }
	ports := func(lb *classic) []string {
		var list []string
		for _, l := range lb.listeners {
			list = append(list, l.String())
		}
		return slices.Sorted(slices.Values(list))
	}
	return a.scheme == b.scheme && slices.Equal(ids(a), ids(b)) && sameSet(a.groups, b.groups) && slices.Equal(ports(a), ports(b))
}

func subnetIDs(list []*subnet) []string {
	ids := make([]string, len(list))
	for i, s := range list {
		ids[i] = s.ID
	}
	return ids
}

func (c *Cloud) classicBy(name *string) (*classic, error) {
	lb, ok := c.classics.get(aws.ToString(name))
	if !ok {
		return nil, &types.AccessPointNotFoundException{Message: text("There is no ACTIVE Load Balancer named '%s'", aws.ToString(name))}
	}
	return lb, nil
}

func (c *Cloud) deleteClassic(in *elb.DeleteLoadBalancerInput) (*elb.DeleteLoadBalancerOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		// What is gone already counts as deleted.
		return &elb.DeleteLoadBalancerOutput{}, nil //nolint:nilerr // as AWS has it
	}
	for _, s := range lb.subnets {
		s.free++
	}
	c.classics.remove(lb.name, c.now())
	c.leave(lb.groups, nil)
	return &elb.DeleteLoadBalancerOutput{}, nil
}

func (c *Cloud) describeClassics(in *elb.DescribeLoadBalancersInput) (*elb.DescribeLoadBalancersOutput, error) {
	list := c.classics.seen(c.now(), c.options.Delays)
	if len(in.LoadBalancerNames) > 0 {
		var missing string
		if list, missing = pick(list, in.LoadBalancerNames, func(lb *classic) string { return lb.name }); missing != "" {
			return nil, &types.AccessPointNotFoundException{Message: text("There is no ACTIVE Load Balancer named '%s'", missing)}
		}
		slices.SortFunc(list, func(a, b numbered[*classic]) int { return a.serial - b.serial })
	}
	part, next, err := balancingPage(c, list, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elb.DescribeLoadBalancersOutput{NextMarker: next}
	for _, n := range part {
		out.LoadBalancerDescriptions = append(out.LoadBalancerDescriptions, c.classicOut(n.value))
	}
	return out, nil
}

func (c *Cloud) classicOut(lb *classic) types.LoadBalancerDescription {
	out := types.LoadBalancerDescription{
		LoadBalancerName: aws.String(lb.name), DNSName: aws.String(lb.dns), CanonicalHostedZoneName: aws.String(lb.dns),
		CanonicalHostedZoneNameID: aws.String("Z32O12XQLNTSW2"), CreatedTime: aws.Time(lb.created), Scheme: aws.String(lb.scheme),
		VPCId: aws.String(lb.vpc), Subnets: subnetIDs(lb.subnets), SecurityGroups: slices.Clone(lb.groups),
		HealthCheck: lb.check.out(), Policies: &types.Policies{},
	}
	for _, s := range lb.subnets {
		out.AvailabilityZones = append(out.AvailabilityZones, s.Zone)
	}
	if g, ok := c.groups.get(lb.groups[0]); ok {
		out.SourceSecurityGroup = &types.SourceSecurityGroup{GroupName: aws.String(g.name), OwnerAlias: aws.String(c.options.Account)}
	}
	for _, l := range lb.listeners {
		out.ListenerDescriptions = append(out.ListenerDescriptions, types.ListenerDescription{Listener: l.out(), PolicyNames: slices.Clone(l.policies)})
	}
	for _, port := range lb.backendPorts() {
		out.BackendServerDescriptions = append(out.BackendServerDescriptions, types.BackendServerDescription{
			InstancePort: aws.Int32(port), PolicyNames: slices.Clone(lb.backends[port]),
		})
	}
	for _, p := range lb.policies {
		out.Policies.OtherPolicies = append(out.Policies.OtherPolicies, p.name)
	}
	for _, r := range lb.instances {
		out.Instances = append(out.Instances, types.Instance{InstanceId: aws.String(r.id)})
	}
	return out
}

func (c *Cloud) attachSubnets(in *elb.AttachLoadBalancerToSubnetsInput) (*elb.AttachLoadBalancerToSubnetsOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	wanted := subnetIDs(lb.subnets)
	for _, id := range in.Subnets {
		if !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	subnets, err := c.place(wanted, lb.scheme == publicScheme, classicPlacement)
	if err != nil {
		return nil, err
	}
	fresh := subnets[len(lb.subnets):]
	if err := spacious(fresh, classicPlacement); err != nil {
		return nil, err
	}
	for _, s := range fresh {
		s.free--
	}
	lb.subnets = subnets
	return &elb.AttachLoadBalancerToSubnetsOutput{Subnets: subnetIDs(lb.subnets)}, nil
}

func (c *Cloud) detachSubnets(in *elb.DetachLoadBalancerFromSubnetsInput) (*elb.DetachLoadBalancerFromSubnetsOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	for _, id := range in.Subnets {
		if !slices.ContainsFunc(lb.subnets, func(s *subnet) bool { return s.ID == id }) {
			return nil, misconfiguredClassic("The subnet '%s' is not attached to the load balancer", id)
		}
	}
	left := slices.DeleteFunc(slices.Clone(lb.subnets), func(s *subnet) bool { return slices.Contains(in.Subnets, s.ID) })
	if len(left) == 0 {
		return nil, misconfiguredClassic("The last subnet of a load balancer cannot be detached")
	}
	for _, s := range lb.subnets {
		if !slices.Contains(left, s) {
			s.free++
		}
	}
	lb.subnets = left
	return &elb.DetachLoadBalancerFromSubnetsOutput{Subnets: subnetIDs(left)}, nil
}

func (c *Cloud) applySecurityGroups(in *elb.ApplySecurityGroupsToLoadBalancerInput) (*elb.ApplySecurityGroupsToLoadBalancerOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	if len(in.SecurityGroups) == 0 {
		return nil, misconfiguredClassic("At least one security group must be specified")
	}
	if err := c.shield(in.SecurityGroups, lb.vpc, classicPlacement); err != nil {
		return nil, err
	}
	lb.groups = slices.Clone(in.SecurityGroups)
	return &elb.ApplySecurityGroupsToLoadBalancerOutput{SecurityGroups: slices.Clone(lb.groups)}, nil
}
