package awsfake_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

// failure is the error of a call, without its output.
func failure[T any](_ T, err error) error { return err }

func TestNothingIsDoneToWhatIsNot(t *testing.T) {
	const prefix = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:"
	lb, group, listener := aws.String(prefix+"loadbalancer/net/no/1"), aws.String(prefix+"targetgroup/no/1"), aws.String(prefix+"listener/net/no/1/1")
	certificates := []types.Certificate{{CertificateArn: aws.String(certificate)}}
	targets := []types.TargetDescription{{Id: aws.String("i-1")}}
	tags := []types.Tag{{Key: aws.String("a")}}
	instances := []elbtypes.Instance{{InstanceId: aws.String("i-1")}}
	foreign := ports("tcp", 1, 2, "sg-nodes")
	foreign.UserIdGroupPairs[0].UserId = aws.String("999999999999")
	b := newBench(t, awsfake.Options{})
	b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
	v1, v2, compute, ctx := b.ELB(), b.ELBV2(), b.EC2(), b.ctx
	for want, errs := range map[string][]error{
		"LoadBalancerNotFound": {
			failure(v2.DescribeLoadBalancerAttributes(ctx, &elbv2.DescribeLoadBalancerAttributesInput{LoadBalancerArn: lb})),
			b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "true"),
			failure(v2.SetSubnets(ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: lb, Subnets: []string{"subnet-a"}})),
			failure(v2.SetSecurityGroups(ctx, &elbv2.SetSecurityGroupsInput{LoadBalancerArn: lb, SecurityGroups: []string{"sg-nodes"}})),
			failure(v2.SetIpAddressType(ctx, &elbv2.SetIpAddressTypeInput{LoadBalancerArn: lb, IpAddressType: types.IpAddressTypeIpv4})),
			failure(v2.DescribeListeners(ctx, &elbv2.DescribeListenersInput{LoadBalancerArn: lb})),
			failure(v2.DescribeTargetGroups(ctx, &elbv2.DescribeTargetGroupsInput{LoadBalancerArn: lb})),
			failure(v2.AddTags(ctx, &elbv2.AddTagsInput{ResourceArns: []string{*lb}, Tags: tags})),
			failure(v2.RemoveTags(ctx, &elbv2.RemoveTagsInput{ResourceArns: []string{*lb}, TagKeys: []string{"a"}})),

			failure(v1.DescribeLoadBalancerAttributes(ctx, &elb.DescribeLoadBalancerAttributesInput{LoadBalancerName: web})),
			failure(v1.ModifyLoadBalancerAttributes(ctx, &elb.ModifyLoadBalancerAttributesInput{LoadBalancerName: web, LoadBalancerAttributes: &elbtypes.LoadBalancerAttributes{}})),
			failure(v1.DeleteLoadBalancerListeners(ctx, &elb.DeleteLoadBalancerListenersInput{LoadBalancerName: web, LoadBalancerPorts: []int32{80}})),
			failure(v1.SetLoadBalancerListenerSSLCertificate(ctx, &elb.SetLoadBalancerListenerSSLCertificateInput{LoadBalancerName: web, SSLCertificateId: aws.String(certificate)})),
			failure(v1.CreateLoadBalancerPolicy(ctx, &elb.CreateLoadBalancerPolicyInput{LoadBalancerName: web, PolicyName: aws.String("a"), PolicyTypeName: aws.String("a")})),
			failure(v1.DeleteLoadBalancerPolicy(ctx, &elb.DeleteLoadBalancerPolicyInput{LoadBalancerName: web, PolicyName: aws.String("a")})),
			failure(v1.DescribeLoadBalancerPolicies(ctx, &elb.DescribeLoadBalancerPoliciesInput{LoadBalancerName: web})),
			failure(v1.SetLoadBalancerPoliciesForBackendServer(ctx, &elb.SetLoadBalancerPoliciesForBackendServerInput{LoadBalancerName: web, InstancePort: aws.Int32(1), PolicyNames: []string{}})),
			failure(v1.ConfigureHealthCheck(ctx, &elb.ConfigureHealthCheckInput{LoadBalancerName: web, HealthCheck: &elbtypes.HealthCheck{
				Target: aws.String("TCP:1"), Interval: aws.Int32(1), Timeout: aws.Int32(1), HealthyThreshold: aws.Int32(1), UnhealthyThreshold: aws.Int32(1),
			}})),
			failure(v1.RegisterInstancesWithLoadBalancer(ctx, &elb.RegisterInstancesWithLoadBalancerInput{LoadBalancerName: web, Instances: instances})),
			failure(v1.DeregisterInstancesFromLoadBalancer(ctx, &elb.DeregisterInstancesFromLoadBalancerInput{LoadBalancerName: web, Instances: instances})),
			failure(v1.DescribeInstanceHealth(ctx, &elb.DescribeInstanceHealthInput{LoadBalancerName: web})),
			failure(v1.AttachLoadBalancerToSubnets(ctx, &elb.AttachLoadBalancerToSubnetsInput{LoadBalancerName: web, Subnets: []string{}})),
			failure(v1.DetachLoadBalancerFromSubnets(ctx, &elb.DetachLoadBalancerFromSubnetsInput{LoadBalancerName: web, Subnets: []string{}})),
			failure(v1.ApplySecurityGroupsToLoadBalancer(ctx, &elb.ApplySecurityGroupsToLoadBalancerInput{LoadBalancerName: web, SecurityGroups: []string{}})),
			failure(v1.AddTags(ctx, &elb.AddTagsInput{LoadBalancerNames: []string{"web"}, Tags: []elbtypes.Tag{}})),
			failure(v1.RemoveTags(ctx, &elb.RemoveTagsInput{LoadBalancerNames: []string{"web"}, Tags: []elbtypes.TagKeyOnly{}})),
			failure(v1.DescribeTags(ctx, &elb.DescribeTagsInput{LoadBalancerNames: []string{"web"}})),
		},
		"TargetGroupNotFound": {
			failure(v2.DescribeTargetGroupAttributes(ctx, &elbv2.DescribeTargetGroupAttributesInput{TargetGroupArn: group})),
			b.setGroup(group, "stickiness.enabled", "true"),
			b.register(group, "i-1"),
			b.deregister(group, "i-1"),
			failure(v2.DescribeTargetHealth(ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: group, Targets: targets})),
			failure(v2.DescribeTargetGroups(ctx, &elbv2.DescribeTargetGroupsInput{TargetGroupArns: []string{*group}})),
			failure(v2.AddTags(ctx, &elbv2.AddTagsInput{ResourceArns: []string{*group}, Tags: tags})),
		},
		"ListenerNotFound": {
			failure(v2.DescribeListenerAttributes(ctx, &elbv2.DescribeListenerAttributesInput{ListenerArn: listener})),
			b.setListener(listener, "tcp.idle_timeout.seconds", "100"),
			failure(v2.ModifyListener(ctx, &elbv2.ModifyListenerInput{ListenerArn: listener})),
			failure(v2.DescribeListeners(ctx, &elbv2.DescribeListenersInput{ListenerArns: []string{*listener}})),
			failure(v2.DescribeListenerCertificates(ctx, &elbv2.DescribeListenerCertificatesInput{ListenerArn: listener})),
			failure(v2.AddListenerCertificates(ctx, &elbv2.AddListenerCertificatesInput{ListenerArn: listener, Certificates: certificates})),
			failure(v2.RemoveListenerCertificates(ctx, &elbv2.RemoveListenerCertificatesInput{ListenerArn: listener, Certificates: certificates})),
		},
		refused: {
			b.setLoadBalancer(group, "load_balancing.cross_zone.enabled", "true"),
			b.register(lb, "i-1"),
			failure(v2.DeleteTargetGroup(ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: lb})),
			failure(v2.DeleteListener(ctx, &elbv2.DeleteListenerInput{ListenerArn: lb})),
			failure(v2.DescribeLoadBalancers(ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{"a"}, LoadBalancerArns: []string{*lb}})),
			failure(v2.DescribeListeners(ctx, &elbv2.DescribeListenersInput{ListenerArns: []string{*listener}, LoadBalancerArn: lb})),
		},
		"InvalidGroup.NotFound": {
			b.revoke("sg-no", ports("tcp", 1, 2, "10.0.0.0/8")),
			failure(compute.DeleteTags(ctx, &ec2.DeleteTagsInput{Resources: []string{"sg-no"}, Tags: []ec2types.Tag{{Key: aws.String("a")}}})),
			b.authorize("sg-nodes", foreign),
			b.authorize("sg-nodes", ports("tcp", 1, 2, "sg-default-vpc-2")),
		},
	} {
		for i, err := range errs {
			if got := code(err); got != want {
				t.Errorf("call %d is answered %q, want %q", i, got, want)
			}
		}
	}
}

func TestThingsAreFound(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.AddAddress(awsfake.Address{ID: "eipalloc-c", IP: netip.MustParseAddr("198.51.100.3"), Taken: true, Tags: map[string]string{"Name": "mail"}})
	first, second := b.nlb("first", nil), b.nlb("second", nil)
	one, two := b.group("one", nil), b.group("two", nil)
	b.listener(first, one, 80, nil)
	other := b.listener(second, two, 80, nil)
	filter := func(name string, values ...string) []ec2types.Filter {
		return []ec2types.Filter{{Name: aws.String(name), Values: values}}
	}

	groups, err := b.ELBV2().DescribeTargetGroups(b.ctx, &elbv2.DescribeTargetGroupsInput{LoadBalancerArn: second})
	b.check(err)
	if g := groups.TargetGroups; len(g) != 1 || *g[0].TargetGroupArn != *two || g[0].LoadBalancerArns[0] != *second {
		t.Errorf("target groups of the second: %v", g)
	}
	listeners, err := b.ELBV2().DescribeListeners(b.ctx, &elbv2.DescribeListenersInput{ListenerArns: []string{*other}})
	b.check(err)
	if l := listeners.Listeners; len(l) != 1 || *l[0].LoadBalancerArn != *second || *l[0].DefaultActions[0].TargetGroupArn != *two {
		t.Errorf("the other listener: %v", l)
	}
	health, err := b.ELBV2().DescribeTargetHealth(b.ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: one, Targets: []types.TargetDescription{{Id: aws.String("i-1")}}})
	b.check(err)
	if h := health.TargetHealthDescriptions[0].TargetHealth; h.Reason != types.TargetHealthReasonEnumNotRegistered {
		t.Errorf("an instance that is not registered: %s", h.Reason)
	}

	var found []string
	addresses, err := b.EC2().DescribeAddresses(b.ctx, &ec2.DescribeAddressesInput{Filters: filter("tag:Name", "mail")})
	b.check(err)
	for _, a := range addresses.Addresses {
		found = append(found, *a.AllocationId+" "+*a.PublicIp+" "+*a.AssociationId)
	}
	addresses, err = b.EC2().DescribeAddresses(b.ctx, &ec2.DescribeAddressesInput{PublicIps: []string{"198.51.100.1"}})
	b.check(err)
	for _, a := range addresses.Addresses {
		found = append(found, *a.AllocationId)
	}
	if _, err := b.EC2().DescribeAddresses(b.ctx, &ec2.DescribeAddressesInput{PublicIps: []string{"198.51.100.9"}}); code(err) != "InvalidAddress.NotFound" {
		t.Errorf("an address that is not: %q", code(err))
	}
	zones, err := b.EC2().DescribeAvailabilityZones(b.ctx, &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{"eu-west-1b"}})
	b.check(err)
	for _, z := range zones.AvailabilityZones {
		found = append(found, *z.ZoneName)
	}
	if _, err := b.EC2().DescribeAvailabilityZones(b.ctx, &ec2.DescribeAvailabilityZonesInput{ZoneNames: []string{"mars"}}); code(err) != "InvalidParameterValue" {
		t.Errorf("a zone that is not: %q", code(err))
	}
	b.check(b.authorize("sg-nodes", ports("tcp", 1, 2, "10.0.0.0/8")))
	for _, f := range [][]ec2types.Filter{
		filter("group-name", "sg-n?des"), filter("description", "foreign"), filter("ip-permission.cidr", "10.0.0.0/8"),
		append(filter("vpc-id", "vpc-1", "vpc-2"), filter("group-id", "*nodes")...),
	} {
		out, err := b.EC2().DescribeSecurityGroups(b.ctx, &ec2.DescribeSecurityGroupsInput{Filters: f})
		b.check(err)
		for _, g := range out.SecurityGroups {
			found = append(found, *g.GroupId)
		}
	}
	want := []string{"eipalloc-c 198.51.100.3 eipassoc-eipalloc-c", "eipalloc-a", "eu-west-1b", "sg-nodes", "sg-nodes", "sg-nodes", "sg-nodes"}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRulesInTheOldWay(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	_, err := b.EC2().AuthorizeSecurityGroupIngress(b.ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: aws.String("sg-nodes"), IpProtocol: aws.String("udp"), FromPort: aws.Int32(53), ToPort: aws.Int32(53), CidrIp: aws.String("10.0.0.0/8"),
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeSecurityGroupRule, Tags: []ec2types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}}},
	})
	b.check(err)
	if !strings.Contains(b.String(), "rule sg-nodes udp 53 10.0.0.0/8 a=1\n") {
		t.Errorf("the rule is missing:\n%s", b)
	}
	_, err = b.EC2().RevokeSecurityGroupIngress(b.ctx, &ec2.RevokeSecurityGroupIngressInput{
		GroupId: aws.String("sg-nodes"), IpProtocol: aws.String("udp"), FromPort: aws.Int32(53), ToPort: aws.Int32(53), CidrIp: aws.String("10.0.0.0/8"),
	})
	b.check(err)
	if strings.Contains(b.String(), "rule ") {
		t.Errorf("the rule is still there:\n%s", b)
	}
}

func TestDualStackStays(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	lb := b.nlb("web", func(in *elbv2.CreateLoadBalancerInput) { in.IpAddressType = types.IpAddressTypeDualstack })
	group := b.group("web", func(in *elbv2.CreateTargetGroupInput) {
		in.TargetType, in.IpAddressType = types.TargetTypeEnumIp, types.TargetGroupIpAddressTypeEnumIpv6
	})
	b.listener(lb, group, 80, nil)
	b.check(b.register(group, "2001:db8:0:a::9"))
	if got := code(b.register(group, "10.0.0.9")); got != refused {
		t.Errorf("an IPv4 address among IPv6: %q", got)
	}
	_, err := b.ELBV2().SetIpAddressType(b.ctx, &elbv2.SetIpAddressTypeInput{LoadBalancerArn: lb, IpAddressType: types.IpAddressTypeIpv4})
	if code(err) != wrong {
		t.Errorf("back to IPv4 with IPv6 targets: %q", code(err))
	}
	_, err = b.ELBV2().SetSubnets(b.ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: lb, Subnets: []string{"subnet-c"}})
	if code(err) != "InvalidSubnet" {
		t.Errorf("to a subnet without IPv6: %q", code(err))
	}
	want := `nlb web internal subnet-a,subnet-b dualstack
listener web TCP:80 -> web
target-group web TCP:31000 ip ipv6
health web TCP:traffic-port interval=30 timeout=10 healthy=5 unhealthy=2
target web 2001:db8:0:a::9 initial
security-group sg-nodes
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
