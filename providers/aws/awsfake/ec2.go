package awsfake

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

func (c *Cloud) computeOperations() map[string]handler {
	return map[string]handler{
		"DescribeSubnets":           on(c.describeSubnets),
		"DescribeRouteTables":       on(c.describeRouteTables),
		"DescribeAvailabilityZones": on(c.describeZones),
		"DescribeVpcs":              on(c.describeVPCs),
		"DescribeInstances":         on(c.describeInstances),
		"DescribeAddresses":         on(c.describeAddresses),

		"DescribeSecurityGroups":        on(c.describeSecurityGroups),
		"DescribeSecurityGroupRules":    on(c.describeSecurityGroupRules),
		"CreateSecurityGroup":           on(c.createSecurityGroup),
		"DeleteSecurityGroup":           on(c.deleteSecurityGroup),
		"AuthorizeSecurityGroupIngress": on(c.authorizeIngress),
		"RevokeSecurityGroupIngress":    on(c.revokeIngress),

		"CreateTags": on(c.createTags),
		"DeleteTags": on(c.deleteTags),
	}
}

// How EC2 speaks of what it describes.
var (
	subnetKind   = resource{"subnet-", "InvalidSubnetID", "subnet ID"}
	tableKind    = resource{"rtb-", "InvalidRouteTableID", "routeTable ID"}
	vpcKind      = resource{"vpc-", "InvalidVpcID", "vpc ID"}
	instanceKind = resource{"i-", "InvalidInstanceID", "instance ID"}
	addressKind  = resource{"eipalloc-", "InvalidAllocationID", "allocation ID"}
)

func ec2Tags(t tags) []types.Tag {
	var out []types.Tag
	for _, p := range t.sorted() {
		out = append(out, types.Tag{Key: aws.String(p.key), Value: aws.String(p.value)})
	}
	return out
}

func (c *Cloud) describeSubnets(in *ec2.DescribeSubnetsInput) (*ec2.DescribeSubnetsOutput, error) {
	q := question{in.SubnetIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, c.subnets.seen(c.now(), Delays{}), q, subnetKind, 1000, func(s *subnet) fields {
		if s == nil {
			s = &subnet{}
		}
		return orTags(s.Tags, table(map[string][]string{
			"subnet-id": {s.ID}, "vpc-id": {s.VPC}, "availability-zone": {s.Zone}, "state": {"available"}, "cidr-block": {s.CIDR.String()},
		}))
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeSubnetsOutput{NextToken: next}
	for _, n := range part {
		out.Subnets = append(out.Subnets, c.subnetOut(n.value))
	}
	return out, nil
}

func (c *Cloud) subnetOut(s *subnet) types.Subnet {
	out := types.Subnet{
		SubnetId: aws.String(s.ID), VpcId: aws.String(s.VPC), AvailabilityZone: aws.String(s.Zone), AvailabilityZoneId: aws.String(c.zones[s.Zone].id),
		CidrBlock: aws.String(s.CIDR.String()), State: types.SubnetStateAvailable, AvailableIpAddressCount: aws.Int32(int32(s.free)),
		OwnerId: aws.String(c.options.Account), MapPublicIpOnLaunch: aws.Bool(s.Public), DefaultForAz: aws.Bool(false), Tags: ec2Tags(s.Tags),
		SubnetArn: aws.String("arn:aws:ec2:" + c.options.Region + ":" + c.options.Account + ":subnet/" + s.ID),
	}
	if s.CIDRv6.IsValid() {
		out.Ipv6CidrBlockAssociationSet = []types.SubnetIpv6CidrBlockAssociation{{
			AssociationId: aws.String("subnet-cidr-assoc-" + s.ID), Ipv6CidrBlock: aws.String(s.CIDRv6.String()),
			Ipv6CidrBlockState: &types.SubnetCidrBlockState{State: types.SubnetCidrBlockStateCodeAssociated},
		}}
	}
	return out
}

// routeTables are the main table of each VPC, and one for its public subnets
// if it has any.
func (c *Cloud) routeTables() []numbered[types.RouteTable] {
	var list []numbered[types.RouteTable]
	for _, v := range c.vpcs.all() {
		id := "rtb-main-" + v.ID
		main := types.RouteTable{
			RouteTableId: aws.String(id), VpcId: aws.String(v.ID), OwnerId: aws.String(c.options.Account), Routes: routes(v, v.MainPublic),
			Associations: []types.RouteTableAssociation{{
				Main: aws.Bool(true), RouteTableId: aws.String(id), RouteTableAssociationId: aws.String("rtbassoc-main-" + v.ID),
			}},
		}
		list = append(list, numbered[types.RouteTable]{serial: 2 * v.serial, key: id, value: main})
		id = "rtb-public-" + v.ID
		public := types.RouteTable{RouteTableId: aws.String(id), VpcId: aws.String(v.ID), OwnerId: aws.String(c.options.Account), Routes: routes(v, true)}
		for _, s := range c.subnets.all() {
			if s.VPC == v.ID && s.Public {
				public.Associations = append(public.Associations, types.RouteTableAssociation{
					Main: aws.Bool(false), RouteTableId: aws.String(id), SubnetId: aws.String(s.ID), RouteTableAssociationId: aws.String("rtbassoc-" + s.ID),
				})
			}
		}
		if len(public.Associations) > 0 {
			list = append(list, numbered[types.RouteTable]{serial: 2*v.serial + 1, key: id, value: public})
		}
	}
	return list
}

// routes are those of a table: within the VPC, and to the internet.
func routes(v *vpc, public bool) []types.Route {
	var list []types.Route
	for _, p := range v.CIDRs {
		r := types.Route{GatewayId: aws.String("local"), State: types.RouteStateActive, Origin: types.RouteOriginCreateRouteTable}
		if p.Addr().Is4() {
			r.DestinationCidrBlock = aws.String(p.String())
		} else {
			r.DestinationIpv6CidrBlock = aws.String(p.String())
		}
		list = append(list, r)
	}
	if public && !v.NoInternet {
		list = append(list, types.Route{
			DestinationCidrBlock: aws.String("0.0.0.0/0"), GatewayId: aws.String("igw-" + v.ID),
			State: types.RouteStateActive, Origin: types.RouteOriginCreateRoute,
		})
	}
	return list
}

func (c *Cloud) describeRouteTables(in *ec2.DescribeRouteTablesInput) (*ec2.DescribeRouteTablesOutput, error) {
	q := question{in.RouteTableIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, c.routeTables(), q, tableKind, 100, func(t types.RouteTable) fields {
		var subnets, main, gateways []string
		for _, a := range t.Associations {
			subnets = append(subnets, aws.ToString(a.SubnetId))
			main = append(main, strconv.FormatBool(aws.ToBool(a.Main)))
		}
		for _, r := range t.Routes {
			gateways = append(gateways, aws.ToString(r.GatewayId))
		}
		return orTags(nil, table(map[string][]string{
			"route-table-id": {aws.ToString(t.RouteTableId)}, "vpc-id": {aws.ToString(t.VpcId)}, "association.subnet-id": subnets,
			"association.main": main, "route.gateway-id": gateways,
		}))
	})
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeRouteTablesOutput{RouteTables: values(part), NextToken: next}, nil
}

func (c *Cloud) describeZones(in *ec2.DescribeAvailabilityZonesInput) (*ec2.DescribeAvailabilityZonesOutput, error) {
	for _, name := range in.ZoneNames {
		if _, ok := c.zones[name]; !ok {
			return nil, refuse("InvalidParameterValue", "Invalid availability zone: [%s]", name)
		}
	}
	out := &ec2.DescribeAvailabilityZonesOutput{}
	for _, name := range slices.Sorted(maps.Keys(c.zones)) {
		z := c.zones[name]
		pass, err := matches(in.Filters, table(map[string][]string{
			"zone-name": {z.name}, "zone-id": {z.id}, "zone-type": {z.kind}, "state": {"available"}, "region-name": {c.options.Region},
			"opt-in-status": {"opt-in-not-required"},
		}))
		if err != nil {
			return nil, err
		}
		if !pass || len(in.ZoneNames) > 0 && !slices.Contains(in.ZoneNames, name) || len(in.ZoneIds) > 0 && !slices.Contains(in.ZoneIds, z.id) {
			continue
		}
		out.AvailabilityZones = append(out.AvailabilityZones, types.AvailabilityZone{
			ZoneName: aws.String(z.name), ZoneId: aws.String(z.id), ZoneType: aws.String(z.kind), RegionName: aws.String(c.options.Region),
			State: types.AvailabilityZoneStateAvailable, OptInStatus: types.AvailabilityZoneOptInStatusOptInNotRequired,
		})
	}
	return out, nil
}

func (c *Cloud) describeVPCs(in *ec2.DescribeVpcsInput) (*ec2.DescribeVpcsOutput, error) {
	q := question{in.VpcIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, c.vpcs.seen(c.now(), Delays{}), q, vpcKind, 1000, func(v *vpc) fields {
		if v == nil {
			v = &vpc{}
		}
		return orTags(v.Tags, table(map[string][]string{"vpc-id": {v.ID}, "state": {"available"}, "is-default": {"false"}}))
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeVpcsOutput{NextToken: next}
	for _, n := range part {
		out.Vpcs = append(out.Vpcs, c.vpcOut(n.value))
	}
	return out, nil
}

func (c *Cloud) vpcOut(v *vpc) types.Vpc {
	out := types.Vpc{
		VpcId: aws.String(v.ID), State: types.VpcStateAvailable, IsDefault: aws.Bool(false), OwnerId: aws.String(c.options.Account), Tags: ec2Tags(v.Tags),
	}
	for _, p := range v.CIDRs {
		if !p.Addr().Is4() {
			out.Ipv6CidrBlockAssociationSet = append(out.Ipv6CidrBlockAssociationSet, types.VpcIpv6CidrBlockAssociation{
				Ipv6CidrBlock: aws.String(p.String()), Ipv6CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
			})
			continue
		}
		if out.CidrBlock == nil {
			out.CidrBlock = aws.String(p.String())
		}
		out.CidrBlockAssociationSet = append(out.CidrBlockAssociationSet, types.VpcCidrBlockAssociation{
			CidrBlock: aws.String(p.String()), CidrBlockState: &types.VpcCidrBlockState{State: types.VpcCidrBlockStateCodeAssociated},
		})
	}
	return out
}

func (c *Cloud) describeInstances(in *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	if len(in.InstanceIds) > 1000 {
		return nil, refuse("InvalidParameterValue", "Up to 1000 instance IDs can be specified in a single request")
	}
	q := question{in.InstanceIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, c.instances.seen(c.now(), Delays{}), q, instanceKind, 1000, func(i *instance) fields {
		if i == nil {
			i = &instance{interfaces: []Interface{{}}}
		}
		return orTags(i.Tags, table(i.filters()))
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeInstancesOutput{NextToken: next}
	for _, n := range part {
		out.Reservations = append(out.Reservations, types.Reservation{
			ReservationId: aws.String("r-" + n.value.ID), OwnerId: aws.String(c.options.Account), Instances: []types.Instance{c.instanceOut(n.value)},
		})
	}
	return out, nil
}

func (i *instance) filters() map[string][]string {
	var groups, private []string
	for _, nic := range i.interfaces {
		groups = append(groups, nic.Groups...)
		for _, a := range nic.Addresses {
			private = append(private, a.String())
		}
	}
	return map[string][]string{
		"instance-id": {i.ID}, "vpc-id": {i.vpc}, "subnet-id": {i.Subnet}, "availability-zone": {i.zone},
		"instance-state-name": {string(i.State)}, "private-dns-name": {i.DNSName}, "private-ip-address": private,
		"network-interface.addresses.private-ip-address": private, "instance.group-id": groups, "instance-type": {string(i.Type)},
	}
}

var stateCodes = map[types.InstanceStateName]int32{
	types.InstanceStateNamePending: 0, types.InstanceStateNameRunning: 16, types.InstanceStateNameShuttingDown: 32,
	types.InstanceStateNameTerminated: 48, types.InstanceStateNameStopping: 64, types.InstanceStateNameStopped: 80,
}

func (c *Cloud) instanceOut(i *instance) types.Instance {
	out := types.Instance{
		InstanceId: aws.String(i.ID), InstanceType: i.Type, LaunchTime: aws.Time(i.launched), Tags: ec2Tags(i.Tags),
		State:     &types.InstanceState{Name: i.State, Code: aws.Int32(stateCodes[i.State])},
		Placement: &types.Placement{AvailabilityZone: aws.String(i.zone), AvailabilityZoneId: aws.String(c.zones[i.zone].id)},
	}
	if i.State == types.InstanceStateNameTerminated {
		// Its network is gone.
		return out
	}
	out.VpcId, out.SubnetId = aws.String(i.vpc), aws.String(i.Subnet)
	out.PrivateDnsName, out.PublicDnsName = aws.String(i.DNSName), aws.String(i.PublicDNSName)
	first := i.interfaces[0]
	out.SecurityGroups = c.identifiers(first.Groups)
	out.PublicIpAddress = optionalAddr(first.Public)
	for n, nic := range i.interfaces {
		out.NetworkInterfaces = append(out.NetworkInterfaces, c.interfaceOut(i, nic, n))
	}
	for _, a := range first.Addresses {
		if a.Is4() && out.PrivateIpAddress == nil {
			out.PrivateIpAddress = aws.String(a.String())
		}
		if a.Is6() && out.Ipv6Address == nil {
			out.Ipv6Address = aws.String(a.String())
		}
	}
	return out
}

func (c *Cloud) identifiers(groups []string) []types.GroupIdentifier {
	var out []types.GroupIdentifier
	for _, id := range groups {
		identifier := types.GroupIdentifier{GroupId: aws.String(id)}
		if g, ok := c.groups.get(id); ok {
			identifier.GroupName = aws.String(g.name)
		}
		out = append(out, identifier)
	}
	return out
}

func (c *Cloud) interfaceOut(i *instance, nic Interface, n int) types.InstanceNetworkInterface {
	out := types.InstanceNetworkInterface{
		NetworkInterfaceId: aws.String("eni-" + strings.TrimPrefix(i.ID, "i-") + "-" + strconv.Itoa(n)),
		Attachment: &types.InstanceNetworkInterfaceAttachment{
			DeviceIndex: aws.Int32(int32(nic.DeviceIndex)), Status: types.AttachmentStatusAttached,
		},
		Groups: c.identifiers(nic.Groups), SubnetId: aws.String(cmp.Or(nic.Subnet, i.Subnet)), VpcId: aws.String(i.vpc),
		Status: types.NetworkInterfaceStatusInUse, InterfaceType: aws.String("interface"),
	}
	for _, a := range nic.Addresses {
		if a.Is6() {
			out.Ipv6Addresses = append(out.Ipv6Addresses, types.InstanceIpv6Address{Ipv6Address: aws.String(a.String())})
			continue
		}
		private := types.InstancePrivateIpAddress{PrivateIpAddress: aws.String(a.String()), Primary: aws.Bool(out.PrivateIpAddress == nil)}
		if out.PrivateIpAddress == nil {
			out.PrivateIpAddress = private.PrivateIpAddress
			private.Association = associationOut(nic.Public)
		}
		out.PrivateIpAddresses = append(out.PrivateIpAddresses, private)
	}
	out.Association = associationOut(nic.Public)
	return out
}

func associationOut(public netip.Addr) *types.InstanceNetworkInterfaceAssociation {
	if !public.IsValid() {
		return nil
	}
	return &types.InstanceNetworkInterfaceAssociation{PublicIp: aws.String(public.String())}
}

func (c *Cloud) describeAddresses(in *ec2.DescribeAddressesInput) (*ec2.DescribeAddressesOutput, error) {
	list, err := lookup(c.addresses.seen(c.now(), Delays{}), in.AllocationIds, in.Filters, addressKind, func(a *address) fields {
		if a == nil {
			a = &address{}
		}
		return orTags(a.Tags, table(map[string][]string{"allocation-id": {a.ID}, "public-ip": {a.IP.String()}, "domain": {"vpc"}}))
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeAddressesOutput{}
	for _, wanted := range in.PublicIps {
		if !slices.ContainsFunc(list, func(n numbered[*address]) bool { return n.value.IP.String() == wanted }) {
			return nil, refuse("InvalidAddress.NotFound", "Address '%s' not found.", wanted)
		}
	}
	for _, n := range list {
		a := n.value
		if len(in.PublicIps) > 0 && !slices.Contains(in.PublicIps, a.IP.String()) {
			continue
		}
		shown := types.Address{AllocationId: aws.String(a.ID), PublicIp: aws.String(a.IP.String()), Domain: types.DomainTypeVpc, Tags: ec2Tags(a.Tags)}
		if a.Taken || a.by != "" {
			shown.AssociationId = aws.String("eipassoc-" + a.ID)
		}
		out.Addresses = append(out.Addresses, shown)
	}
	return out, nil
}
