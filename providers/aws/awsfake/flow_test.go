package awsfake_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

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

const certificate = "arn:aws:acm:eu-west-1:111122223333:certificate/shop"

// world is a VPC with three public subnets and a private one, three nodes, a
// certificate and two elastic addresses.
func world(options awsfake.Options) *awsfake.Cloud {
	cloud := awsfake.New(options)
	cloud.AddVPC(awsfake.VPC{ID: "vpc-1", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("2001:db8::/56")}})
	subnet := func(id, zone, cidr, cidr6 string, public bool) {
		s := awsfake.Subnet{ID: id, VPC: "vpc-1", Zone: zone, CIDR: netip.MustParsePrefix(cidr), Public: public, Tags: map[string]string{"Name": id}}
		if cidr6 != "" {
			s.CIDRv6 = netip.MustParsePrefix(cidr6)
		}
		cloud.AddSubnet(s)
	}
	subnet("subnet-a", "eu-west-1a", "10.0.0.0/24", "2001:db8:0:a::/64", true)
	subnet("subnet-b", "eu-west-1b", "10.0.1.0/24", "2001:db8:0:b::/64", true)
	subnet("subnet-c", "eu-west-1c", "10.0.2.0/24", "", true)
	subnet("subnet-a2", "eu-west-1a", "10.0.3.0/24", "", false)
	cloud.AddSecurityGroup(awsfake.SecurityGroup{ID: "sg-nodes", VPC: "vpc-1"})
	for i, s := range []string{"subnet-a", "subnet-b", "subnet-c"} {
		cloud.AddInstance(awsfake.Instance{ID: "i-" + string(rune('1'+i)), Subnet: s, Groups: []string{"sg-nodes"}})
	}
	cloud.AddCertificate(certificate)
	cloud.AddAddress(awsfake.Address{ID: "eipalloc-a", IP: netip.MustParseAddr("198.51.100.1")})
	cloud.AddAddress(awsfake.Address{ID: "eipalloc-b", IP: netip.MustParseAddr("198.51.100.2")})
	return cloud
}

func must[T any](t *testing.T) func(out T, err error) T {
	return func(out T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func TestNetworkLoadBalancerLives(t *testing.T) {
	cloud, ctx := world(awsfake.Options{}), context.Background()
	v2, compute := cloud.ELBV2(), cloud.EC2()

	group := must[*ec2.CreateSecurityGroupOutput](t)(compute.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("k8s-web"), Description: aws.String("web"), VpcId: aws.String("vpc-1"),
	}))
	must[*ec2.AuthorizeSecurityGroupIngressOutput](t)(compute.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: aws.String("sg-nodes"), IpPermissions: []ec2types.IpPermission{{
			IpProtocol: aws.String("tcp"), FromPort: aws.Int32(30000), ToPort: aws.Int32(32767),
			UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: group.GroupId, Description: aws.String("kubernetes.io/rule/nlb/client=web")}},
		}},
	}))
	lb := must[*elbv2.CreateLoadBalancerOutput](t)(v2.CreateLoadBalancer(ctx, &elbv2.CreateLoadBalancerInput{
		Name: aws.String("web"), Type: types.LoadBalancerTypeEnumNetwork, Subnets: []string{"subnet-b", "subnet-a"}, SecurityGroups: []string{*group.GroupId},
		Tags: []types.Tag{{Key: aws.String("owner"), Value: aws.String("shop")}},
	})).LoadBalancers[0]
	if lb.State.Code != types.LoadBalancerStateEnumProvisioning {
		t.Errorf("a new load balancer is %s, want provisioning", lb.State.Code)
	}
	tg := must[*elbv2.CreateTargetGroupOutput](t)(v2.CreateTargetGroup(ctx, &elbv2.CreateTargetGroupInput{
		Name: aws.String("web-80"), Protocol: types.ProtocolEnumTcp, Port: aws.Int32(31000), VpcId: aws.String("vpc-1"),
		HealthCheckProtocol: types.ProtocolEnumHttp, HealthCheckPort: aws.String("10256"), HealthCheckPath: aws.String("/healthz"),
		HealthCheckIntervalSeconds: aws.Int32(10),
	})).TargetGroups[0]
	must[*elbv2.RegisterTargetsOutput](t)(v2.RegisterTargets(ctx, &elbv2.RegisterTargetsInput{
		TargetGroupArn: tg.TargetGroupArn, Targets: []types.TargetDescription{{Id: aws.String("i-1")}, {Id: aws.String("i-2")}, {Id: aws.String("i-3")}},
	}))
	listener := must[*elbv2.CreateListenerOutput](t)(v2.CreateListener(ctx, &elbv2.CreateListenerInput{
		LoadBalancerArn: lb.LoadBalancerArn, Port: aws.Int32(443), Protocol: types.ProtocolEnumTls,
		Certificates:   []types.Certificate{{CertificateArn: aws.String(certificate)}},
		DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: tg.TargetGroupArn}},
	})).Listeners[0]

	rest := `attribute web load_balancing.cross_zone.enabled=true
tag web owner=shop
target-group web-80 TCP:31000 instance
health web-80 HTTP:10256/healthz interval=10 timeout=6 healthy=5 unhealthy=2 codes=200-399
`
	groups := `security-group k8s-web
security-group sg-nodes
rule sg-nodes tcp 30000-32767 k8s-web "kubernetes.io/rule/nlb/client=web"
`
	wants := func(when, want string) {
		t.Helper()
		if diff := cmp.Diff(want, cloud.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	cloud.Advance(time.Minute)
	must[*elbv2.ModifyLoadBalancerAttributesOutput](t)(v2.ModifyLoadBalancerAttributes(ctx, &elbv2.ModifyLoadBalancerAttributesInput{
		LoadBalancerArn: lb.LoadBalancerArn,
		Attributes:      []types.LoadBalancerAttribute{{Key: aws.String("load_balancing.cross_zone.enabled"), Value: aws.String("true")}},
	}))
	head := "nlb web internet-facing subnet-a,subnet-b k8s-web\n"
	secure := "listener web TLS:443 -> web-80 cert=" + certificate + " policy=ELBSecurityPolicy-2016-08\n"
	wants("after a minute", head+secure+rest+"target web-80 i-1 healthy\ntarget web-80 i-2 healthy\ntarget web-80 i-3 healthy\n"+groups)

	must[*elbv2.DeregisterTargetsOutput](t)(v2.DeregisterTargets(ctx, &elbv2.DeregisterTargetsInput{
		TargetGroupArn: tg.TargetGroupArn, Targets: []types.TargetDescription{{Id: aws.String("i-1")}, {Id: aws.String("i-9")}},
	}))
	wants("after a deregistration", head+secure+rest+"target web-80 i-1 draining\ntarget web-80 i-2 healthy\ntarget web-80 i-3 healthy\n"+groups)
	cloud.Advance(5 * time.Minute)
	wants("after the delay", head+secure+rest+"target web-80 i-2 healthy\ntarget web-80 i-3 healthy\n"+groups)

	must[*elbv2.ModifyListenerOutput](t)(v2.ModifyListener(ctx, &elbv2.ModifyListenerInput{ListenerArn: listener.ListenerArn, Protocol: types.ProtocolEnumTcp}))
	wants("without TLS", head+"listener web TCP:443 -> web-80\n"+rest+"target web-80 i-2 healthy\ntarget web-80 i-3 healthy\n"+groups)

	must[*elbv2.DeleteLoadBalancerOutput](t)(v2.DeleteLoadBalancer(ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: lb.LoadBalancerArn}))
	cloud.Advance(time.Minute)
	must[*elbv2.DeleteTargetGroupOutput](t)(v2.DeleteTargetGroup(ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: tg.TargetGroupArn}))
	must[*ec2.RevokeSecurityGroupIngressOutput](t)(compute.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{
		GroupId: aws.String("sg-nodes"), IpPermissions: []ec2types.IpPermission{{
			IpProtocol: aws.String("tcp"), FromPort: aws.Int32(30000), ToPort: aws.Int32(32767),
			UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: group.GroupId}},
		}},
	}))
	must[*ec2.DeleteSecurityGroupOutput](t)(compute.DeleteSecurityGroup(ctx, &ec2.DeleteSecurityGroupInput{GroupId: group.GroupId}))
	wants("after the deletion", "security-group sg-nodes\n")
}

func TestClassicLoadBalancerLives(t *testing.T) {
	cloud, ctx := world(awsfake.Options{}), context.Background()
	classic, name := cloud.ELB(), aws.String("web")
	must[*elb.CreateLoadBalancerOutput](t)(classic.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{
		LoadBalancerName: name, Subnets: []string{"subnet-a", "subnet-b"}, SecurityGroups: []string{"sg-nodes"}, Scheme: aws.String("internal"),
		Listeners: []elbtypes.Listener{
			{Protocol: aws.String("TCP"), LoadBalancerPort: 80, InstanceProtocol: aws.String("TCP"), InstancePort: aws.Int32(31080)},
			{Protocol: aws.String("SSL"), LoadBalancerPort: 443, InstanceProtocol: aws.String("TCP"), InstancePort: aws.Int32(31443), SSLCertificateId: aws.String(certificate)},
		},
		Tags: []elbtypes.Tag{{Key: aws.String("owner"), Value: aws.String("shop")}},
	}))
	must[*elb.CreateLoadBalancerPolicyOutput](t)(classic.CreateLoadBalancerPolicy(ctx, &elb.CreateLoadBalancerPolicyInput{
		LoadBalancerName: name, PolicyName: aws.String("proxy"), PolicyTypeName: aws.String("ProxyProtocolPolicyType"),
		PolicyAttributes: []elbtypes.PolicyAttribute{{AttributeName: aws.String("ProxyProtocol"), AttributeValue: aws.String("true")}},
	}))
	must[*elb.SetLoadBalancerPoliciesForBackendServerOutput](t)(classic.SetLoadBalancerPoliciesForBackendServer(ctx, &elb.SetLoadBalancerPoliciesForBackendServerInput{
		LoadBalancerName: name, InstancePort: aws.Int32(31080), PolicyNames: []string{"proxy"},
	}))
	must[*elb.ConfigureHealthCheckOutput](t)(classic.ConfigureHealthCheck(ctx, &elb.ConfigureHealthCheckInput{
		LoadBalancerName: name, HealthCheck: &elbtypes.HealthCheck{
			Target: aws.String("HTTP:10256/healthz"), Interval: aws.Int32(10), Timeout: aws.Int32(5), HealthyThreshold: aws.Int32(2), UnhealthyThreshold: aws.Int32(6),
		},
	}))
	must[*elb.ModifyLoadBalancerAttributesOutput](t)(classic.ModifyLoadBalancerAttributes(ctx, &elb.ModifyLoadBalancerAttributesInput{
		LoadBalancerName: name, LoadBalancerAttributes: &elbtypes.LoadBalancerAttributes{
			ConnectionSettings: &elbtypes.ConnectionSettings{IdleTimeout: aws.Int32(90)}, CrossZoneLoadBalancing: &elbtypes.CrossZoneLoadBalancing{Enabled: true},
		},
	}))
	must[*elb.RegisterInstancesWithLoadBalancerOutput](t)(classic.RegisterInstancesWithLoadBalancer(ctx, &elb.RegisterInstancesWithLoadBalancerInput{
		LoadBalancerName: name, Instances: []elbtypes.Instance{{InstanceId: aws.String("i-2")}, {InstanceId: aws.String("i-1")}, {InstanceId: aws.String("i-1")}},
	}))
	cloud.Advance(time.Minute)
	want := `clb web internal subnet-a,subnet-b sg-nodes
health web HTTP:10256/healthz interval=10 timeout=5 healthy=2 unhealthy=6
listener web TCP:80 -> TCP:31080
listener web SSL:443 -> TCP:31443 cert=` + certificate + ` policies=ELBSecurityPolicy-2016-08
backend web 31080 policies=proxy
policy web ELBSecurityPolicy-2016-08 SSLNegotiationPolicyType Reference-Security-Policy=ELBSecurityPolicy-2016-08
policy web proxy ProxyProtocolPolicyType ProxyProtocol=true
instance web i-1 InService
instance web i-2 InService
attribute web cross-zone=true
attribute web idle-timeout=90
tag web owner=shop
security-group sg-nodes
`
	if diff := cmp.Diff(want, cloud.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	must[*elb.DeleteLoadBalancerOutput](t)(classic.DeleteLoadBalancer(ctx, &elb.DeleteLoadBalancerInput{LoadBalancerName: name}))
	if diff := cmp.Diff("security-group sg-nodes\n", cloud.String()); diff != "" {
		t.Errorf("after the deletion (-want +got):\n%s", diff)
	}
}
