package awsfake

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// network is a Network Load Balancer.
type network struct {
	arn, name, dns string
	scheme         types.LoadBalancerSchemeEnum
	ipType         types.IpAddressType
	sourceNAT      types.EnablePrefixForIpv6SourceNatEnum
	vpc            string
	zones          []attachment
	groups         []string
	// grouped says that it was made with security groups; another one can never
	// have any.
	grouped     bool
	privateLink string
	// left is since when it has no subnet any more in a zone that it had.
	left       map[string]time.Time
	attributes attributes
	tags       tags
	created    time.Time
}

// attachment is a load balancer's foot in a zone.
type attachment struct {
	subnet     *subnet
	allocation string
	private    netip.Addr
	v6         netip.Addr
}

func (c *Cloud) networkOperations() map[string]handler {
	return map[string]handler{
		"CreateLoadBalancer":             on(c.createNetwork),
		"DeleteLoadBalancer":             on(c.deleteNetwork),
		"DescribeLoadBalancers":          on(c.describeNetworks),
		"DescribeLoadBalancerAttributes": on(c.describeNetworkAttributes),
		"ModifyLoadBalancerAttributes":   on(c.modifyNetworkAttributes),
		"SetSubnets":                     on(c.setSubnets),
		"SetSecurityGroups":              on(c.setSecurityGroups),
		"SetIpAddressType":               on(c.setIPAddressType),

		"CreateTargetGroup":             on(c.createTargetGroup),
		"DeleteTargetGroup":             on(c.deleteTargetGroup),
		"DescribeTargetGroups":          on(c.describeTargetGroups),
		"ModifyTargetGroup":             on(c.modifyTargetGroup),
		"DescribeTargetGroupAttributes": on(c.describeTargetGroupAttributes),
		"ModifyTargetGroupAttributes":   on(c.modifyTargetGroupAttributes),

		"RegisterTargets":      on(c.registerTargets),
		"DeregisterTargets":    on(c.deregisterTargets),
		"DescribeTargetHealth": on(c.describeTargetHealth),

		"CreateListener":             on(c.createListener),
		"DeleteListener":             on(c.deleteListener),
		"DescribeListeners":          on(c.describeListeners),
		"ModifyListener":             on(c.modifyListener),
		"DescribeListenerAttributes": on(c.describeListenerAttributes),
		"ModifyListenerAttributes":   on(c.modifyListenerAttributes),

		"AddListenerCertificates":      on(c.addListenerCertificates),
		"RemoveListenerCertificates":   on(c.removeListenerCertificates),
		"DescribeListenerCertificates": on(c.describeListenerCertificates),

		"AddTags":      on(c.addNetworkTags),
		"RemoveTags":   on(c.removeNetworkTags),
		"DescribeTags": on(c.describeNetworkTags),
	}
}

var networkPlacement = placementErrors{
	notFound: func(f string, a ...any) error { return &types.SubnetNotFoundException{Message: text(f, a...)} },
	invalid:  func(f string, a ...any) error { return &types.InvalidSubnetException{Message: text(f, a...)} },
	conflict: misconfigured,
	group:    func(f string, a ...any) error { return &types.InvalidSecurityGroupException{Message: text(f, a...)} },
}

func misconfigured(f string, a ...any) error {
	return &types.InvalidConfigurationRequestException{Message: text(f, a...)}
}

func (c *Cloud) createNetwork(in *elbv2.CreateLoadBalancerInput) (*elbv2.CreateLoadBalancerOutput, error) {
	lb, err := c.newNetwork(in)
	if err != nil {
		return nil, err
	}
	for _, old := range c.networks.all() {
		if old.name != lb.name {
			continue
		}
		if !sameNetwork(old, lb) {
			return nil, &types.DuplicateLoadBalancerNameException{
				Message: text("A load balancer with the same name '%s' exists, but with different settings", lb.name),
			}
		}
		return &elbv2.CreateLoadBalancerOutput{LoadBalancers: []types.LoadBalancer{c.networkOut(old)}}, nil
	}
	if len(c.networks.live) >= c.limits.NetworkLoadBalancers {
		return nil, &types.TooManyLoadBalancersException{
			Message: text("The quota of %d load balancers has been reached", c.limits.NetworkLoadBalancers),
		}
	}
	if err := c.claimAddresses(lb, lb.zones); err != nil {
		return nil, err
	}
	lb.arn = c.arn("loadbalancer/net/" + lb.name)
	id := lb.arn[strings.LastIndex(lb.arn, "/")+1:]
	lb.dns = lb.name + "-" + id + ".elb." + c.options.Region + ".amazonaws.com"
	lb.created = c.now()
	for _, z := range lb.zones {
		z.subnet.free--
	}
	c.networks.add(lb.arn, lb, c.next(), lb.created)
	return &elbv2.CreateLoadBalancerOutput{LoadBalancers: []types.LoadBalancer{c.networkOut(lb)}}, nil
}

// newNetwork is the load balancer that is asked for, or why there cannot be
// such a one.
func (c *Cloud) newNetwork(in *elbv2.CreateLoadBalancerInput) (*network, error) {
	lb := &network{
		name: aws.ToString(in.Name), scheme: or(in.Scheme, types.LoadBalancerSchemeEnumInternetFacing),
		ipType: or(in.IpAddressType, types.IpAddressTypeIpv4), groups: slices.Clone(in.SecurityGroups), grouped: len(in.SecurityGroups) > 0,
		sourceNAT: or(in.EnablePrefixForIpv6SourceNat, types.EnablePrefixForIpv6SourceNatEnumOff), left: map[string]time.Time{},
	}
	if in.Type != types.LoadBalancerTypeEnumNetwork {
		return nil, invalid("awsfake knows load balancers of type network only, not '%s'", in.Type)
	}
	if err := checkName("load balancer", lb.name, true); err != nil {
		return nil, err
	}
	if !slices.Contains(lb.scheme.Values(), lb.scheme) {
		return nil, &types.InvalidSchemeException{Message: text("The scheme '%s' is not valid", lb.scheme)}
	}
	if err := checkIPType(lb.ipType); err != nil {
		return nil, err
	}
	zones, err := c.attach(lb, in.Subnets, in.SubnetMappings)
	if err != nil {
		return nil, err
	}
	lb.zones, lb.vpc = zones, zones[0].subnet.VPC
	if err := checkFamilies(lb.ipType, lb.sourceNAT, zones); err != nil {
		return nil, err
	}
	if err := c.shield(lb.groups, lb.vpc, networkPlacement); err != nil {
		return nil, err
	}
	lb.attributes = networkAttributes(lb.scheme)
	if lb.grouped {
		lb.privateLink = "on"
	}
	lb.tags, err = c.tag(nil, networkPairs(in.Tags), networkTagErrors)
	return lb, err
}

// checkName is the rule of the names of load balancers and target groups.
func checkName(what, name string, noInternal bool) error {
	switch {
	case name == "":
		return invalid("The %s name must not be empty", what)
	case len(name) > 32:
		return invalid("The %s name '%s' cannot be longer than '32' characters", what, name)
	case strings.ContainsFunc(name, func(r rune) bool { return !alphanumeric(r) && r != '-' }):
		return invalid("The %s name '%s' can only contain characters that are alphanumeric characters and hyphens(-)", what, name)
	case strings.HasPrefix(name, "-") || strings.HasSuffix(name, "-"):
		return invalid("The %s name '%s' cannot begin or end with a hyphen(-)", what, name)
	case noInternal && strings.HasPrefix(name, "internal-"):
		return invalid("The %s name '%s' cannot begin with 'internal-'", what, name)
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

func checkIPType(t types.IpAddressType) error {
	if t != types.IpAddressTypeIpv4 && t != types.IpAddressTypeDualstack {
		return invalid("The IP address type '%s' is not valid for load balancers of type 'network'", t)
	}
	return nil
}

// checkFamilies says whether the subnets can serve an IP address type.
func checkFamilies(t types.IpAddressType, nat types.EnablePrefixForIpv6SourceNatEnum, zones []attachment) error {
	if t != types.IpAddressTypeDualstack {
		if nat == types.EnablePrefixForIpv6SourceNatEnumOn {
			return misconfigured("Prefixes for source NAT need the IP address type 'dualstack'")
		}
		return nil
	}
	for _, z := range zones {
		if !z.subnet.CIDRv6.IsValid() {
			return &types.InvalidSubnetException{
				Message: text("You must specify subnets with an associated IPv6 CIDR block: '%s' has none", z.subnet.ID),
			}
		}
	}
	return nil
}

// attach decides on a load balancer's subnets and its addresses in them.
func (c *Cloud) attach(lb *network, subnets []string, mappings []types.SubnetMapping) ([]attachment, error) {
	switch {
	case len(subnets) == 0 && len(mappings) == 0:
		return nil, invalid("At least one subnet must be specified")
	case len(subnets) > 0 && len(mappings) > 0:
		return nil, invalid("Either subnets or subnet mappings can be specified, but not both")
	}
	for _, id := range subnets {
		mappings = append(mappings, types.SubnetMapping{SubnetId: aws.String(id)})
	}
	ids := make([]string, len(mappings))
	for i, m := range mappings {
		ids[i] = aws.ToString(m.SubnetId)
	}
	found, err := c.place(ids, lb.scheme == types.LoadBalancerSchemeEnumInternetFacing, networkPlacement)
	if err != nil {
		return nil, err
	}
	zones := make([]attachment, len(found))
	for i, m := range mappings {
		if zones[i], err = c.mapped(lb, found[i], m); err != nil {
			return nil, err
		}
		if lb.at(found[i]) != nil || zones[i].private.IsValid() {
			continue
		}
		if err := spacious(found[i:i+1], networkPlacement); err != nil {
			return nil, err
		}
	}
	return zones, nil
}

// at is a load balancer's attachment to a subnet, if it has one.
func (lb *network) at(s *subnet) *attachment {
	i := slices.IndexFunc(lb.zones, func(z attachment) bool { return z.subnet == s })
	if i < 0 {
		return nil
	}
	return &lb.zones[i]
}

// mapped is a subnet with the addresses that are asked for in it.
func (c *Cloud) mapped(lb *network, s *subnet, m types.SubnetMapping) (attachment, error) {
	a := attachment{subnet: s, allocation: aws.ToString(m.AllocationId)}
	internal := lb.scheme == types.LoadBalancerSchemeEnumInternal
	if a.allocation != "" && internal {
		return a, misconfigured("Elastic IP addresses cannot be specified for internal load balancers")
	}
	if m.PrivateIPv4Address != nil {
		if !internal {
			return a, misconfigured("Private IPv4 addresses can only be specified for internal load balancers")
		}
		var err error
		if a.private, err = addressIn(*m.PrivateIPv4Address, s.CIDR); err != nil {
			return a, err
		}
	}
	if m.IPv6Address != nil {
		if lb.ipType != types.IpAddressTypeDualstack {
			return a, misconfigured("IPv6 addresses need the IP address type 'dualstack'")
		}
		var err error
		if a.v6, err = addressIn(*m.IPv6Address, s.CIDRv6); err != nil {
			return a, err
		}
	}
	return a, nil
}

// addressIn is an address of a subnet that EC2 does not keep for itself.
func addressIn(value string, cidr netip.Prefix) (netip.Addr, error) {
	a, err := netip.ParseAddr(value)
	if err != nil {
		return a, invalid("'%s' is not a valid IP address", value)
	}
	if !cidr.IsValid() || !cidr.Contains(a) {
		return a, misconfigured("The address '%s' is not in the subnet's CIDR block '%s'", value, cidr)
	}
	kept := cidr.Masked().Addr()
	for range 4 {
		if kept == a {
			return a, misconfigured("The address '%s' is reserved", value)
		}
		kept = kept.Next()
	}
	if !cidr.Contains(a.Next()) {
		return a, misconfigured("The address '%s' is reserved", value)
	}
	return a, nil
}

// claimAddresses takes the elastic and private addresses of a load balancer's
// new zones. Elastic ones are for all zones or for none.
func (c *Cloud) claimAddresses(lb *network, zones []attachment) error {
	var elastic int
	for i, z := range zones {
		if z.allocation != "" {
			elastic++
		}
		if z.private.IsValid() && c.privateTaken(z.private) {
			return &types.ResourceInUseException{Message: text("The private IPv4 address '%s' is in use", z.private)}
		}
		if z.allocation == "" {
			continue
		}
		a, ok := c.addresses.get(z.allocation)
		if !ok {
			return &types.AllocationIdNotFoundException{Message: text("The allocation IDs '%s' do not exist", z.allocation)}
		}
		used := slices.ContainsFunc(zones[:i], func(o attachment) bool { return o.allocation == z.allocation })
		if a.Taken || a.by != "" || used {
			return &types.ResourceInUseException{Message: text("The allocation IDs '%s' are not available for use", z.allocation)}
		}
	}
	if elastic > 0 && elastic < len(zones) {
		return misconfigured("You must specify an allocation ID for each subnet or for none")
	}
	for _, z := range zones {
		if a, ok := c.addresses.get(z.allocation); ok {
			a.by = lb.name
		}
	}
	return nil
}

// privateTaken says whether an instance or a load balancer has an address.
func (c *Cloud) privateTaken(a netip.Addr) bool {
	for _, i := range c.instances.all() {
		if slices.ContainsFunc(i.interfaces, func(n Interface) bool { return slices.Contains(n.Addresses, a) }) {
			return true
		}
	}
	for _, lb := range c.networks.all() {
		if slices.ContainsFunc(lb.zones, func(z attachment) bool { return z.private == a }) {
			return true
		}
	}
	return false
}

// sameNetwork says whether a load balancer is what is asked for again.
func sameNetwork(a, b *network) bool {
	zones := func(lb *network) []attachment {
		return slices.SortedFunc(slices.Values(lb.zones), func(x, y attachment) int { return strings.Compare(x.subnet.ID, y.subnet.ID) })
	}
	return a.scheme == b.scheme && a.ipType == b.ipType && a.sourceNAT == b.sourceNAT && a.grouped == b.grouped &&
		slices.Equal(zones(a), zones(b)) && sameSet(a.groups, b.groups) && slices.Equal(a.tags.sorted(), b.tags.sorted())
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

func (c *Cloud) deleteNetwork(in *elbv2.DeleteLoadBalancerInput) (*elbv2.DeleteLoadBalancerOutput, error) {
	arn := aws.ToString(in.LoadBalancerArn)
	if err := checkARN(arn, "loadbalancer/net/", "load balancer"); err != nil {
		return nil, err
	}
	lb, ok := c.networks.get(arn)
	if !ok {
		// What is gone already counts as deleted.
		return &elbv2.DeleteLoadBalancerOutput{}, nil
	}
	if lb.attributes.get("deletion_protection.enabled") == "true" {
		return nil, &types.OperationNotPermittedException{
			Message: text("Load balancer '%s' cannot be deleted because deletion protection is enabled", arn),
		}
	}
	now := c.now()
	for _, l := range c.listenersOf(lb) {
		l.group.held = later(l.group.held, now.Add(c.options.Delays.Groups))
		c.listeners.remove(l.arn, now)
		c.orphan(l.group)
	}
	var elastic []string
	for _, z := range lb.zones {
		z.subnet.free++
		if z.allocation != "" {
			elastic = append(elastic, z.allocation)
		}
	}
	c.networks.remove(arn, now)
	c.leave(lb.groups, elastic)
	return &elbv2.DeleteLoadBalancerOutput{}, nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// checkARN is the shape of an ARN of this API.
func checkARN(arn, path, what string) error {
	if !strings.HasPrefix(arn, "arn:aws:elasticloadbalancing:") || !strings.Contains(arn, ":"+path) {
		return invalid("'%s' is not a valid %s ARN", arn, what)
	}
	return nil
}

// networkBy finds a load balancer.
func (c *Cloud) networkBy(arn *string) (*network, error) {
	if err := checkARN(aws.ToString(arn), "loadbalancer/", "load balancer"); err != nil {
		return nil, err
	}
	lb, ok := c.networks.get(aws.ToString(arn))
	if !ok {
		return nil, &types.LoadBalancerNotFoundException{Message: text("Load balancer '%s' not found", aws.ToString(arn))}
	}
	return lb, nil
}

func (c *Cloud) describeNetworks(in *elbv2.DescribeLoadBalancersInput) (*elbv2.DescribeLoadBalancersOutput, error) {
	list := c.networks.seen(c.now(), c.options.Delays)
	list, err := chosen(list, in.LoadBalancerArns, in.Names,
		func(lb *network) string { return lb.arn }, func(lb *network) string { return lb.name },
		func(key string) error {
			return &types.LoadBalancerNotFoundException{Message: text("Load balancers '[%s]' not found", key)}
		})
	if err != nil {
		return nil, err
	}
	part, next, err := balancingPage(c, list, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeLoadBalancersOutput{NextMarker: next}
	for _, n := range part {
		out.LoadBalancers = append(out.LoadBalancers, c.networkOut(n.value))
	}
	return out, nil
}

// chosen is the part of a list that is asked for by ARN or by name, 20 at most.
func chosen[T any](list []numbered[T], arns, names []string, arn, name func(T) string, missing func(string) error) ([]numbered[T], error) {
	switch {
	case len(arns) > 0 && len(names) > 0:
		return nil, invalid("ARNs and names cannot be specified at the same time")
	case len(arns) > 20 || len(names) > 20:
		return nil, invalid("Up to 20 ARNs or names can be specified in a single request")
	case len(arns) == 0 && len(names) == 0:
		return list, nil
	}
	keys, key := arns, arn
	if len(names) > 0 {
		keys, key = names, name
	}
	// A name may have been given again after a deletion: the youngest has it.
	slices.Reverse(list)
	picked, absent := pick(list, keys, key)
	if absent != "" {
		return nil, missing(absent)
	}
	slices.SortFunc(picked, func(a, b numbered[T]) int { return a.serial - b.serial })
	return picked, nil
}

func (c *Cloud) networkState(lb *network) types.LoadBalancerStateEnum {
	if c.now().Sub(lb.created) < c.options.Delays.Provisioning {
		return types.LoadBalancerStateEnumProvisioning
	}
	return types.LoadBalancerStateEnumActive
}

func (c *Cloud) networkOut(lb *network) types.LoadBalancer {
	out := types.LoadBalancer{
		LoadBalancerArn: aws.String(lb.arn), LoadBalancerName: aws.String(lb.name), DNSName: aws.String(lb.dns),
		CanonicalHostedZoneId: aws.String("Z2IFOLAFXWLO4F"), CreatedTime: aws.Time(lb.created), Scheme: lb.scheme, IpAddressType: lb.ipType,
		SecurityGroups: slices.Clone(lb.groups), VpcId: aws.String(lb.vpc), Type: types.LoadBalancerTypeEnumNetwork,
		State: &types.LoadBalancerState{Code: c.networkState(lb)}, AvailabilityZones: zonesOut(lb), EnablePrefixForIpv6SourceNat: lb.sourceNAT,
	}
	if lb.privateLink != "" {
		out.EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic = aws.String(lb.privateLink)
	}
	return out
}

func zonesOut(lb *network) []types.AvailabilityZone {
	var zones []types.AvailabilityZone
	for _, z := range lb.zones {
		zone := types.AvailabilityZone{SubnetId: aws.String(z.subnet.ID), ZoneName: aws.String(z.subnet.Zone)}
		if z.allocation != "" || z.private.IsValid() || z.v6.IsValid() {
			zone.LoadBalancerAddresses = []types.LoadBalancerAddress{{
				AllocationId: optional(z.allocation), PrivateIPv4Address: optionalAddr(z.private), IPv6Address: optionalAddr(z.v6),
			}}
		}
		zones = append(zones, zone)
	}
	return zones
}

func optional(value string) *string {
	if value == "" {
		return nil
	}
	return &value
}

func optionalAddr(a netip.Addr) *string {
	if !a.IsValid() {
		return nil
	}
	return aws.String(a.String())
}

func (c *Cloud) setSubnets(in *elbv2.SetSubnetsInput) (*elbv2.SetSubnetsOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	changed := *lb
	changed.ipType = or(in.IpAddressType, lb.ipType)
	changed.sourceNAT = or(in.EnablePrefixForIpv6SourceNat, lb.sourceNAT)
	if err := checkIPType(changed.ipType); err != nil {
		return nil, err
	}
	zones, err := c.attach(&changed, in.Subnets, in.SubnetMappings)
	if err != nil {
		return nil, err
	}
	if zones[0].subnet.VPC != lb.vpc {
		return nil, &types.InvalidSubnetException{Message: text("The subnet '%s' is not in VPC '%s'", zones[0].subnet.ID, lb.vpc)}
	}
	if err := checkFamilies(changed.ipType, changed.sourceNAT, zones); err != nil {
		return nil, err
	}
	if err := c.checkSwitch(lb, &changed); err != nil {
		return nil, err
	}
	if zones, err = c.replaceZones(lb, zones); err != nil {
		return nil, err
	}
	lb.zones, lb.ipType, lb.sourceNAT = zones, changed.ipType, changed.sourceNAT
	return &elbv2.SetSubnetsOutput{AvailabilityZones: zonesOut(lb), IpAddressType: lb.ipType, EnablePrefixForIpv6SourceNat: lb.sourceNAT}, nil
}

// replaceZones keeps a load balancer's addresses in the subnets that it keeps:
// they cannot be changed there. It takes those of new subnets and gives back
// those of old ones.
func (c *Cloud) replaceZones(lb *network, zones []attachment) ([]attachment, error) {
	var fresh []attachment
	for i, z := range zones {
		had := lb.at(z.subnet)
		if had == nil {
			if err := c.vacant(lb, z.subnet); err != nil {
				return nil, err
			}
			fresh = append(fresh, z)
			continue
		}
		if z.allocation != "" && z.allocation != had.allocation || z.private.IsValid() && z.private != had.private ||
			z.v6.IsValid() && had.v6.IsValid() && z.v6 != had.v6 {
			return nil, misconfigured("The addresses in the subnet '%s' cannot be changed", z.subnet.ID)
		}
		zones[i].allocation, zones[i].private = had.allocation, had.private
		if !z.v6.IsValid() {
			zones[i].v6 = had.v6
		}
	}
	if len(fresh) > 0 && len(fresh) < len(zones) {
		elastic := func(z attachment) bool { return z.allocation != "" }
		if slices.ContainsFunc(zones, elastic) && slices.ContainsFunc(zones, func(z attachment) bool { return !elastic(z) }) {
			return nil, misconfigured("You must specify an allocation ID for each subnet or for none")
		}
	}
	if err := c.claimAddresses(lb, fresh); err != nil {
		return nil, err
	}
	for _, z := range fresh {
		z.subnet.free--
	}
	for _, o := range lb.zones {
		if slices.ContainsFunc(zones, func(z attachment) bool { return z.subnet == o.subnet }) {
			continue
		}
		o.subnet.free++
		lb.left[o.subnet.Zone] = c.now()
		if o.allocation != "" {
			c.leave(nil, []string{o.allocation})
		}
	}
	return zones, nil
}

// vacant says whether a load balancer may come to a subnet as far as its own
// other subnet of that zone goes: that one must be gone first.
func (c *Cloud) vacant(lb *network, s *subnet) error {
	has := slices.ContainsFunc(lb.zones, func(z attachment) bool { return z.subnet.Zone == s.Zone })
	left, had := lb.left[s.Zone]
	if has || had && c.now().Sub(left) < c.options.Delays.Interfaces {
		return misconfigured("You cannot specify an additional subnet from an Availability Zone that is already associated with the load balancer. "+
			"The Availability Zone '%s' corresponding to the new subnet '%s' is already associated with the load balancer.", s.Zone, s.ID)
	}
	return nil
}

func (c *Cloud) setSecurityGroups(in *elbv2.SetSecurityGroupsInput) (*elbv2.SetSecurityGroupsOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	if !lb.grouped {
		return nil, misconfigured("Security groups cannot be set on load balancer '%s', which was created without any", lb.name)
	}
	if len(in.SecurityGroups) == 0 {
		return nil, misconfigured("At least one security group must be specified for load balancer '%s'", lb.name)
	}
	if err := c.shield(in.SecurityGroups, lb.vpc, networkPlacement); err != nil {
		return nil, err
	}
	lb.groups = slices.Clone(in.SecurityGroups)
	lb.privateLink = or(string(in.EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic), lb.privateLink)
	return &elbv2.SetSecurityGroupsOutput{
		SecurityGroupIds: slices.Clone(lb.groups),
		EnforceSecurityGroupInboundRulesOnPrivateLinkTraffic: types.EnforceSecurityGroupInboundRulesOnPrivateLinkTrafficEnum(lb.privateLink),
	}, nil
}

func (c *Cloud) setIPAddressType(in *elbv2.SetIpAddressTypeInput) (*elbv2.SetIpAddressTypeOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	if err := checkIPType(in.IpAddressType); err != nil {
		return nil, err
	}
	changed := *lb
	changed.ipType = in.IpAddressType
	if err := checkFamilies(in.IpAddressType, lb.sourceNAT, lb.zones); err != nil {
		return nil, err
	}
	if err := c.checkSwitch(lb, &changed); err != nil {
		return nil, err
	}
	lb.ipType = in.IpAddressType
	return &elbv2.SetIpAddressTypeOutput{IpAddressType: lb.ipType}, nil
}

// checkSwitch says whether a load balancer's listeners can serve another IP
// address type: UDP over IPv6 needs prefixes for source NAT and IPv6 targets,
// and what has IPv6 targets needs IPv6.
func (c *Cloud) checkSwitch(lb, changed *network) error {
	for _, l := range c.listenersOf(lb) {
		if err := checkUDP(changed, l); err != nil {
			return err
		}
		if l.group.ipType == types.TargetGroupIpAddressTypeEnumIpv6 && changed.ipType != types.IpAddressTypeDualstack {
			return misconfigured("Load balancer '%s' has a target group with IPv6 targets", lb.name)
		}
	}
	return nil
}

func checkUDP(lb *network, l *listener) error {
	udp := l.protocol == types.ProtocolEnumUdp || l.protocol == types.ProtocolEnumTcpUdp
	switch {
	case !udp || lb.ipType != types.IpAddressTypeDualstack:
		return nil
	case lb.sourceNAT != types.EnablePrefixForIpv6SourceNatEnumOn:
		return misconfigured("The protocol '%s' needs prefixes for source NAT on a dualstack load balancer", l.protocol)
	case l.group.ipType != types.TargetGroupIpAddressTypeEnumIpv6:
		return misconfigured("The protocol '%s' needs an IPv6 target group on a dualstack load balancer, and '%s' is none", l.protocol, l.group.name)
	}
	return nil
}
