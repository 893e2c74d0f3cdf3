package awsfake_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func (b *bench) createSecurityGroup(name string) (string, error) {
	out, err := b.EC2().CreateSecurityGroup(b.ctx, &ec2.CreateSecurityGroupInput{GroupName: aws.String(name), Description: aws.String("web"), VpcId: aws.String("vpc-1")})
	if err != nil {
		return "", err
	}
	return *out.GroupId, nil
}

func (b *bench) securityGroup(name string) string {
	b.Helper()
	id, err := b.createSecurityGroup(name)
	b.check(err)
	return id
}

func (b *bench) deleteSecurityGroup(id string) error {
	_, err := b.EC2().DeleteSecurityGroup(b.ctx, &ec2.DeleteSecurityGroupInput{GroupId: aws.String(id)})
	return err
}

func ports(protocol string, from, to int32, sources ...string) types.IpPermission {
	p := types.IpPermission{IpProtocol: aws.String(protocol), FromPort: aws.Int32(from), ToPort: aws.Int32(to)}
	for _, s := range sources {
		source, description, _ := strings.Cut(s, "|")
		var text *string
		if description != "" {
			text = aws.String(description)
		}
		switch {
		case strings.HasPrefix(source, "sg-"):
			p.UserIdGroupPairs = append(p.UserIdGroupPairs, types.UserIdGroupPair{GroupId: aws.String(source), Description: text})
		case strings.HasPrefix(source, "pl-"):
			p.PrefixListIds = append(p.PrefixListIds, types.PrefixListId{PrefixListId: aws.String(source), Description: text})
		case strings.Contains(source, ":"):
			p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: aws.String(source), Description: text})
		default:
			p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: aws.String(source), Description: text})
		}
	}
	return p
}

func (b *bench) authorize(group string, permissions ...types.IpPermission) error {
	_, err := b.EC2().AuthorizeSecurityGroupIngress(b.ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: aws.String(group), IpPermissions: permissions})
	return err
}

func (b *bench) revoke(group string, permissions ...types.IpPermission) error {
	_, err := b.EC2().RevokeSecurityGroupIngress(b.ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String(group), IpPermissions: permissions})
	return err
}

func TestSecurityGroupFacts(t *testing.T) {
	create := func(change func(*ec2.CreateSecurityGroupInput)) func(*bench) error {
		return func(b *bench) error {
			in := &ec2.CreateSecurityGroupInput{GroupName: aws.String("web"), Description: aws.String("web"), VpcId: aws.String("vpc-1")}
			change(in)
			_, err := b.EC2().CreateSecurityGroup(b.ctx, in)
			return err
		}
	}
	// afterwards deletes a security group that something else uses.
	afterwards := func(use func(b *bench, id string)) func(*bench) error {
		return func(b *bench) error {
			id := b.securityGroup("web")
			use(b, id)
			return b.deleteSecurityGroup(id)
		}
	}
	prove(t, []fact{
		{"a name", create(func(*ec2.CreateSecurityGroupInput) {}), ""},
		{"a name of another kind", create(func(i *ec2.CreateSecurityGroupInput) { i.GroupName = aws.String("sg-web") }), "InvalidParameterValue"},
		{"a name beyond ASCII", create(func(i *ec2.CreateSecurityGroupInput) { i.GroupName = aws.String("wéb") }), "InvalidParameterValue"},
		{"a long name", create(func(i *ec2.CreateSecurityGroupInput) { i.GroupName = aws.String(strings.Repeat("a", 256)) }), "InvalidParameterValue"},
		{"the name default", create(func(i *ec2.CreateSecurityGroupInput) { i.GroupName = aws.String("default") }), "InvalidGroup.Reserved"},
		{"a description with an apostrophe", create(func(i *ec2.CreateSecurityGroupInput) { i.Description = aws.String("the shop's") }), "InvalidParameterValue"},
		{"no VPC", create(func(i *ec2.CreateSecurityGroupInput) { i.VpcId = nil }), "VPCIdNotSpecified"},
		{"a VPC that is not", create(func(i *ec2.CreateSecurityGroupInput) { i.VpcId = aws.String("vpc-9") }), "InvalidVpcID.NotFound"},
		{"tags of another kind", create(func(i *ec2.CreateSecurityGroupInput) {
			i.TagSpecifications = []types.TagSpecification{{ResourceType: types.ResourceTypeInstance}}
		}), "InvalidParameterValue"},
		{"the same again", func(b *bench) error {
			b.securityGroup("web")
			_, err := b.createSecurityGroup("web")
			return err
		}, "InvalidGroup.Duplicate"},
		{"the same name in another VPC", func(b *bench) error {
			b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
			b.securityGroup("web")
			return create(func(i *ec2.CreateSecurityGroupInput) { i.VpcId = aws.String("vpc-2") })(b)
		}, ""},

		{"a deletion", afterwards(func(*bench, string) {}), ""},
		{"a deletion while it names itself", afterwards(func(b *bench, id string) { b.check(b.authorize(id, ports("tcp", 1, 2, id))) }), ""},
		{"a deletion while an NLB has it", afterwards(func(b *bench, id string) {
			b.nlb("web", func(i *elbv2.CreateLoadBalancerInput) { i.SecurityGroups = []string{id} })
		}), "DependencyViolation"},
		{"a deletion just after the NLB", afterwards(func(b *bench, id string) {
			arn := b.nlb("web", func(i *elbv2.CreateLoadBalancerInput) { i.SecurityGroups = []string{id} })
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: arn})
			b.check(err)
		}), "DependencyViolation"},
		{"a deletion a minute after the NLB", afterwards(func(b *bench, id string) {
			arn := b.nlb("web", func(i *elbv2.CreateLoadBalancerInput) { i.SecurityGroups = []string{id} })
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: arn})
			b.check(err)
			b.Advance(time.Minute)
		}), ""},
		{"a deletion while a CLB has it", afterwards(func(b *bench, id string) {
			b.check(b.clb(func(i *elb.CreateLoadBalancerInput) { i.SecurityGroups = []string{id} }))
		}), "DependencyViolation"},
		{"a deletion just after the CLB", afterwards(func(b *bench, id string) {
			b.check(b.clb(func(i *elb.CreateLoadBalancerInput) { i.SecurityGroups = []string{id} }))
			_, err := b.ELB().DeleteLoadBalancer(b.ctx, &elb.DeleteLoadBalancerInput{LoadBalancerName: web})
			b.check(err)
		}), "DependencyViolation"},
		{"a deletion while a rule names it", afterwards(func(b *bench, id string) { b.check(b.authorize("sg-nodes", ports("tcp", 1, 2, id))) }), "DependencyViolation"},
		{"a deletion while an instance has it", func(b *bench) error { return b.deleteSecurityGroup("sg-nodes") }, "DependencyViolation"},
		{"a deletion of the default one", func(b *bench) error { return b.deleteSecurityGroup("sg-default-vpc-1") }, "CannotDelete"},
		{"a second deletion", afterwards(func(b *bench, id string) { b.check(b.deleteSecurityGroup(id)) }), "InvalidGroup.NotFound"},
		{"a deletion by name", func(b *bench) error { return b.deleteSecurityGroup("web") }, "InvalidGroupId.Malformed"},
		{"a deletion of nothing", func(b *bench) error { return b.deleteSecurityGroup("") }, "MissingParameter"},

		{"describe one that is not", func(b *bench) error {
			_, err := b.EC2().DescribeSecurityGroups(b.ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"sg-no"}})
			return err
		}, "InvalidGroup.NotFound"},
		{"filter one that is not", func(b *bench) error {
			out, err := b.EC2().DescribeSecurityGroups(b.ctx, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{{Name: aws.String("group-id"), Values: []string{"sg-no"}}}})
			if err == nil && len(out.SecurityGroups) > 0 {
				b.Errorf("found %v", out.SecurityGroups)
			}
			return err
		}, ""},
		{"a filter that is none", func(b *bench) error {
			_, err := b.EC2().DescribeSecurityGroups(b.ctx, &ec2.DescribeSecurityGroupsInput{Filters: []types.Filter{{Name: aws.String("name"), Values: []string{"a"}}}})
			return err
		}, "InvalidParameterValue"},
	})
}

func TestRuleFacts(t *testing.T) {
	add := func(permissions ...types.IpPermission) func(*bench) error {
		return func(b *bench) error { return b.authorize("sg-nodes", permissions...) }
	}
	then := func(first types.IpPermission, call func(*bench) error) func(*bench) error {
		return func(b *bench) error {
			b.check(b.authorize("sg-nodes", first))
			return call(b)
		}
	}
	remove := func(permissions ...types.IpPermission) func(*bench) error {
		return func(b *bench) error { return b.revoke("sg-nodes", permissions...) }
	}
	client := ports("tcp", 30000, 30000, "0.0.0.0/0|kubernetes.io/rule/nlb/client=web")
	var blocks []string
	for i := range 61 {
		blocks = append(blocks, fmt.Sprintf("10.1.%d.0/24", i))
	}
	prove(t, []fact{
		{"CIDRs of both families", add(ports("tcp", 1, 2, "10.0.0.0/8", "2001:db8::/32")), ""},
		{"a CIDR that is none", add(ports("tcp", 1, 2, "10.0.0.0")), "InvalidParameterValue"},
		{"ports upside down", add(ports("tcp", 2, 1, "10.0.0.0/8")), "InvalidParameterValue"},
		{"port 65536", add(ports("tcp", 1, 65536, "10.0.0.0/8")), "InvalidParameterValue"},
		{"TCP without ports", add(types.IpPermission{IpProtocol: aws.String("tcp"), IpRanges: []types.IpRange{{CidrIp: aws.String("10.0.0.0/8")}}}), "InvalidParameterValue"},
		{"a protocol that is none", add(ports("sctp4", 1, 2, "10.0.0.0/8")), "InvalidParameterValue"},
		{"path MTU", add(ports("icmp", 3, 4, "10.0.0.0/8")), ""},
		{"all ICMP", add(ports("icmp", -1, -1, "10.0.0.0/8")), ""},
		{"ICMP type 256", add(ports("icmp", 256, 0, "10.0.0.0/8")), "InvalidParameterValue"},
		{"no source", add(ports("tcp", 1, 2)), "MissingParameter"},
		{"nothing", add(), "MissingParameter"},
		{"a group that is not", add(ports("tcp", 1, 2, "sg-no")), "InvalidGroup.NotFound"},
		{"a prefix list that is not", add(ports("tcp", 1, 2, "pl-no")), "InvalidPrefixListID.NotFound"},
		{"a description with an apostrophe", add(ports("tcp", 1, 2, "10.0.0.0/8|the shop's")), "InvalidParameterValue"},
		{"a description of 256", add(ports("tcp", 1, 2, "10.0.0.0/8|"+strings.Repeat("a", 256))), "InvalidParameterValue"},
		{"a group that is not, to itself", func(b *bench) error { return b.authorize("sg-no", client) }, "InvalidGroup.NotFound"},

		{"a rule again", then(client, add(client)), "InvalidPermission.Duplicate"},
		{"a rule again with another description", then(client, add(ports("tcp", 30000, 30000, "0.0.0.0/0|mine"))), "InvalidPermission.Duplicate"},
		{"a rule again by number", then(client, add(ports("6", 30000, 30000, "0.0.0.0/0"))), "InvalidPermission.Duplicate"},
		{"a rule again in another form", then(ports("tcp", 1, 2, "10.0.0.0/8"), add(ports("tcp", 1, 2, "10.1.2.3/8"))), "InvalidPermission.Duplicate"},
		{"a rule twice", add(client, client), "InvalidPermission.Duplicate"},
		{"a duplicate adds nothing", then(client, func(b *bench) error {
			err := b.authorize("sg-nodes", ports("tcp", 1, 2, "10.0.0.0/8"), client)
			if n := strings.Count(b.String(), "\nrule "); n != 1 {
				b.Errorf("%d rules, want 1", n)
			}
			return err
		}), "InvalidPermission.Duplicate"},
		{"all protocols ignore ports", then(ports("-1", 1, 2, "10.0.0.0/8"), add(ports("-1", 3, 4, "10.0.0.0/8"))), "InvalidPermission.Duplicate"},

		{"a rule goes, whatever its description", then(client, remove(ports("tcp", 30000, 30000, "0.0.0.0/0"))), ""},
		{"a rule that is not", then(client, remove(ports("tcp", 30000, 30001, "0.0.0.0/0"))), "InvalidPermission.NotFound"},
		{"one that is not keeps all", then(client, func(b *bench) error {
			err := b.revoke("sg-nodes", client, ports("tcp", 1, 2, "10.0.0.0/8"))
			if n := strings.Count(b.String(), "\nrule "); n != 1 {
				b.Errorf("%d rules, want 1", n)
			}
			return err
		}), "InvalidPermission.NotFound"},
		{"a rule ID that is not", func(b *bench) error {
			_, err := b.EC2().RevokeSecurityGroupIngress(b.ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String("sg-nodes"), SecurityGroupRuleIds: []string{"sgr-9"}})
			return err
		}, "InvalidSecurityGroupRuleId.NotFound"},

		{"60 rules", add(ports("tcp", 1, 2, blocks[:60]...)), ""},
		{"61 rules", add(ports("tcp", 1, 2, blocks...)), "RulesPerSecurityGroupLimitExceeded"},
		{"60 rules of each family", add(ports("tcp", 1, 2, append(slices.Clone(blocks[:60]), "2001:db8::/32")...)), ""},
		{"60 rules and a group", add(ports("tcp", 1, 2, append(slices.Clone(blocks[:60]), "sg-nodes")...)), "RulesPerSecurityGroupLimitExceeded"},
		{"a prefix list of 60", func(b *bench) error {
			b.AddPrefixList("pl-1", 60)
			return add(ports("tcp", 1, 2, "pl-1"))(b)
		}, ""},
		{"a prefix list of 60 and a rule", func(b *bench) error {
			b.AddPrefixList("pl-1", 60)
			return add(ports("tcp", 1, 2, "pl-1", "10.0.0.0/8"))(b)
		}, "RulesPerSecurityGroupLimitExceeded"},
	})
}

func TestRulesAreDescribed(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.AddRule("sg-nodes", awsfake.Rule{Protocol: "tcp", From: 22, To: 22, Source: "192.0.2.0/24", Description: "admin"})
	b.check(b.authorize("sg-nodes", ports("tcp", 30000, 30001, "10.1.2.3/8|one", "2001:db8::/32|two", "sg-nodes|three"), ports("icmp", 3, 4, "0.0.0.0/0")))
	out, err := b.EC2().DescribeSecurityGroups(b.ctx, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{"sg-nodes"}})
	b.check(err)
	var got []string
	for _, p := range out.SecurityGroups[0].IpPermissions {
		line := fmt.Sprint(*p.IpProtocol, " ", *p.FromPort, "-", *p.ToPort)
		for _, s := range p.IpRanges {
			line += " " + *s.CidrIp + " " + aws.ToString(s.Description)
		}
		for _, s := range p.Ipv6Ranges {
			line += " " + *s.CidrIpv6 + " " + aws.ToString(s.Description)
		}
		for _, s := range p.UserIdGroupPairs {
			line += " " + *s.GroupId + " " + aws.ToString(s.Description)
		}
		got = append(got, line)
	}
	want := []string{"icmp 3-4 0.0.0.0/0 ", "tcp 22-22 192.0.2.0/24 admin", "tcp 30000-30001 10.0.0.0/8 one 2001:db8::/32 two sg-nodes three"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}

	var ids []string
	rules := ec2.NewDescribeSecurityGroupRulesPaginator(b.EC2(), &ec2.DescribeSecurityGroupRulesInput{
		Filters: []types.Filter{{Name: aws.String("group-id"), Values: []string{"sg-nodes"}}}, MaxResults: aws.Int32(5),
	})
	for rules.HasMorePages() {
		page, err := rules.NextPage(b.ctx)
		b.check(err)
		for _, r := range page.SecurityGroupRules {
			if !*r.IsEgress {
				ids = append(ids, *r.SecurityGroupRuleId)
			}
		}
	}
	if len(ids) != 5 {
		t.Fatalf("%d inbound rules, want 5", len(ids))
	}
	_, err = b.EC2().RevokeSecurityGroupIngress(b.ctx, &ec2.RevokeSecurityGroupIngressInput{GroupId: aws.String("sg-nodes"), SecurityGroupRuleIds: ids[1:]})
	b.check(err)
	if diff := cmp.Diff("security-group sg-nodes\nrule sg-nodes tcp 22 192.0.2.0/24 \"admin\"\n", b.String()); diff != "" {
		t.Errorf("after the revocation (-want +got):\n%s", diff)
	}
}

func TestWorldIsDescribed(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.AddZone("eu-west-1-lhr-1a", awsfake.LocalZone)
	b.AddInstance(awsfake.Instance{
		ID: "i-4", Subnet: "subnet-a", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.40"), netip.MustParseAddr("10.0.0.41"), netip.MustParseAddr("2001:db8:0:a::40")},
		Public: netip.MustParseAddr("198.51.100.40"), Groups: []string{"sg-nodes"}, Tags: map[string]string{"role": "node"},
		Interfaces: []awsfake.Interface{{DeviceIndex: 1, Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.50")}}},
	})
	filter := func(name string, values ...string) []types.Filter {
		return []types.Filter{{Name: aws.String(name), Values: values}}
	}

	subnets, err := b.EC2().DescribeSubnets(b.ctx, &ec2.DescribeSubnetsInput{Filters: filter("tag:Name", "subnet-a*")})
	b.check(err)
	var got []string
	for _, s := range subnets.Subnets {
		got = append(got, fmt.Sprint(*s.SubnetId, *s.AvailabilityZone, *s.CidrBlock, len(s.Ipv6CidrBlockAssociationSet)))
	}
	if diff := cmp.Diff([]string{"subnet-aeu-west-1a10.0.0.0/241", "subnet-a2eu-west-1a10.0.3.0/240"}, got); diff != "" {
		t.Errorf("subnets (-want +got):\n%s", diff)
	}

	tables, err := b.EC2().DescribeRouteTables(b.ctx, &ec2.DescribeRouteTablesInput{Filters: filter("vpc-id", "vpc-1")})
	b.check(err)
	got = nil
	for _, table := range tables.RouteTables {
		line := *table.RouteTableId
		for _, a := range table.Associations {
			line += fmt.Sprint(" ", *a.Main, aws.ToString(a.SubnetId))
		}
		for _, r := range table.Routes {
			line += " " + aws.ToString(r.DestinationCidrBlock) + ">" + *r.GatewayId
		}
		got = append(got, line)
	}
	want := []string{
		"rtb-main-vpc-1 true 10.0.0.0/16>local >local",
		"rtb-public-vpc-1 falsesubnet-a falsesubnet-b falsesubnet-c 10.0.0.0/16>local >local 0.0.0.0/0>igw-vpc-1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("route tables (-want +got):\n%s", diff)
	}

	zones, err := b.EC2().DescribeAvailabilityZones(b.ctx, &ec2.DescribeAvailabilityZonesInput{Filters: filter("zone-type", "availability-zone")})
	b.check(err)
	if n := len(zones.AvailabilityZones); n != 3 {
		t.Errorf("%d availability zones, want 3", n)
	}
	vpcs, err := b.EC2().DescribeVpcs(b.ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-1"}})
	b.check(err)
	if v := vpcs.Vpcs[0]; *v.CidrBlock != "10.0.0.0/16" || len(v.Ipv6CidrBlockAssociationSet) != 1 {
		t.Errorf("VPC %v", v)
	}

	instances, err := b.EC2().DescribeInstances(b.ctx, &ec2.DescribeInstancesInput{Filters: filter("tag:role", "no?e")})
	b.check(err)
	i := instances.Reservations[0].Instances[0]
	facts := []string{*i.InstanceId, string(i.State.Name), *i.PrivateIpAddress, *i.PublicIpAddress, *i.Ipv6Address, *i.PrivateDnsName, *i.Placement.AvailabilityZone, *i.SecurityGroups[0].GroupId}
	for _, nic := range i.NetworkInterfaces {
		facts = append(facts, fmt.Sprint(*nic.Attachment.DeviceIndex, " ", *nic.PrivateIpAddress, " ", len(nic.PrivateIpAddresses), len(nic.Ipv6Addresses)))
	}
	if diff := cmp.Diff([]string{
		"i-4", "running", "10.0.0.40", "198.51.100.40", "2001:db8:0:a::40", "ip-10-0-0-40.eu-west-1.compute.internal", "eu-west-1a", "sg-nodes", "0 10.0.0.40 2 1", "1 10.0.0.50 1 0",
	}, facts); diff != "" {
		t.Errorf("instance (-want +got):\n%s", diff)
	}
}

func TestWorldFacts(t *testing.T) {
	instances := func(in *ec2.DescribeInstancesInput) func(*bench) error {
		return func(b *bench) error {
			_, err := b.EC2().DescribeInstances(b.ctx, in)
			return err
		}
	}
	prove(t, []fact{
		{"an instance that is not", instances(&ec2.DescribeInstancesInput{InstanceIds: []string{"i-1", "i-9"}}), "InvalidInstanceID.NotFound"},
		{"an ID that is none", instances(&ec2.DescribeInstancesInput{InstanceIds: []string{"web"}}), "InvalidInstanceID.Malformed"},
		{"a filter for what is not", instances(&ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-id"), Values: []string{"i-9"}}}}), ""},
		{"a filter that is none", instances(&ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("id"), Values: []string{"i-9"}}}}), "InvalidParameterValue"},
		{"a filter of 201 values", instances(&ec2.DescribeInstancesInput{Filters: []types.Filter{{Name: aws.String("instance-id"), Values: make([]string, 201)}}}), "FilterLimitExceeded"},
		{"pages of IDs", instances(&ec2.DescribeInstancesInput{InstanceIds: []string{"i-1"}, MaxResults: aws.Int32(5)}), "InvalidParameterCombination"},
		{"pages of 4", instances(&ec2.DescribeInstancesInput{MaxResults: aws.Int32(4)}), "InvalidParameterValue"},
		{"a token that is none", instances(&ec2.DescribeInstancesInput{NextToken: aws.String("no")}), "InvalidNextToken"},
		{"a subnet that is not", func(b *bench) error {
			_, err := b.EC2().DescribeSubnets(b.ctx, &ec2.DescribeSubnetsInput{SubnetIds: []string{"subnet-z"}})
			return err
		}, "InvalidSubnetID.NotFound"},
		{"a VPC that is not", func(b *bench) error {
			_, err := b.EC2().DescribeVpcs(b.ctx, &ec2.DescribeVpcsInput{VpcIds: []string{"vpc-9"}})
			return err
		}, "InvalidVpcID.NotFound"},
		{"an allocation that is not", func(b *bench) error {
			_, err := b.EC2().DescribeAddresses(b.ctx, &ec2.DescribeAddressesInput{AllocationIds: []string{"eipalloc-z"}})
			return err
		}, "InvalidAllocationID.NotFound"},
		{"tags of something that is not", func(b *bench) error {
			_, err := b.EC2().CreateTags(b.ctx, &ec2.CreateTagsInput{Resources: []string{"sg-nodes", "sg-no"}, Tags: []types.Tag{{Key: aws.String("a")}}})
			if strings.Contains(b.String(), "tag ") {
				b.Error("the other one is tagged")
			}
			return err
		}, "InvalidGroup.NotFound"},
		{"tags of what has none", func(b *bench) error {
			_, err := b.EC2().CreateTags(b.ctx, &ec2.CreateTagsInput{Resources: []string{"web"}, Tags: []types.Tag{{Key: aws.String("a")}}})
			return err
		}, "InvalidID"},
		{"51 tags", func(b *bench) error {
			var tags []types.Tag
			for i := range 51 {
				tags = append(tags, types.Tag{Key: aws.String(fmt.Sprint(i))})
			}
			_, err := b.EC2().CreateTags(b.ctx, &ec2.CreateTagsInput{Resources: []string{"sg-nodes"}, Tags: tags})
			return err
		}, "TagLimitExceeded"},
	})
}

func TestTagsOfSecurityGroups(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	tag := func(key, value string) types.Tag { return types.Tag{Key: aws.String(key), Value: aws.String(value)} }
	_, err := b.EC2().CreateTags(b.ctx, &ec2.CreateTagsInput{Resources: []string{"sg-nodes", "subnet-a", "i-1"}, Tags: []types.Tag{tag("a", "1"), tag("b", "2"), tag("c", "3")}})
	b.check(err)
	_, err = b.EC2().DeleteTags(b.ctx, &ec2.DeleteTagsInput{Resources: []string{"sg-nodes"}, Tags: []types.Tag{{Key: aws.String("a")}, tag("b", "other"), tag("c", "3")}})
	b.check(err)
	if diff := cmp.Diff("security-group sg-nodes\ntag sg-nodes b=2\n", b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	out, err := b.EC2().DescribeSubnets(b.ctx, &ec2.DescribeSubnetsInput{Filters: []types.Filter{{Name: aws.String("tag-key"), Values: []string{"c"}}}})
	b.check(err)
	if len(out.Subnets) != 1 || *out.Subnets[0].SubnetId != "subnet-a" {
		t.Errorf("tagged subnets %v", out.Subnets)
	}
}
