package aws

import (
	"fmt"
	"strings"
	"testing"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// inTreeTags are those that the in-tree provider gives.
func inTreeTags(s *corev1.Service) (v2 []elbv2types.Tag, v1 []elbtypes.Tag) {
	for key, value := range map[string]string{"kubernetes.io/cluster/prod": "owned", "kubernetes.io/service-name": s.Namespace + "/" + s.Name} {
		v2 = append(v2, elbv2types.Tag{Key: awssdk.String(key), Value: awssdk.String(value)})
		v1 = append(v1, elbtypes.Tag{Key: awssdk.String(key), Value: awssdk.String(value)})
	}
	return v2, v1
}

func (w *world) authorize(group string, rules ...ec2types.IpPermission) {
	w.t.Helper()
	must[*ec2.AuthorizeSecurityGroupIngressOutput](w.t)(w.cloud.EC2().AuthorizeSecurityGroupIngress(w.t.Context(), &ec2.AuthorizeSecurityGroupIngressInput{GroupId: &group, IpPermissions: rules}))
}

func fromPrefix(protocol string, from, to int32, prefix, description string) ec2types.IpPermission {
	return ec2types.IpPermission{
		IpProtocol: &protocol, FromPort: &from, ToPort: &to,
		IpRanges: []ec2types.IpRange{{CidrIp: &prefix, Description: &description}},
	}
}

// inTreeNLB makes an NLB as the in-tree provider does: without security
// groups, with health checks of the traffic port and rules at the nodes.
func (w *world) inTreeNLB(s *corev1.Service) (arn string) {
	w.t.Helper()
	ctx := w.t.Context()
	tags, _ := inTreeTags(s)
	name := w.provider.identityOf(s).LoadBalancerName()
	lb := must[*elbv2.CreateLoadBalancerOutput](w.t)(w.cloud.ELBV2().CreateLoadBalancer(ctx, &elbv2.CreateLoadBalancerInput{
		Name: &name, Type: elbv2types.LoadBalancerTypeEnumNetwork, Subnets: []string{"subnet-public1"}, Tags: tags,
	})).LoadBalancers[0]
	for i, p := range s.Spec.Ports {
		group := must[*elbv2.CreateTargetGroupOutput](w.t)(w.cloud.ELBV2().CreateTargetGroup(ctx, &elbv2.CreateTargetGroupInput{
			Name: awssdk.String(fmt.Sprintf("k8s-shop-%s-%010d", s.Name, i)), Protocol: elbv2types.ProtocolEnum(p.Protocol), Port: awssdk.Int32(p.NodePort),
			VpcId: awssdk.String("vpc-1"), HealthCheckIntervalSeconds: awssdk.Int32(30), Tags: tags,
		})).TargetGroups[0]
		must[*elbv2.RegisterTargetsOutput](w.t)(w.cloud.ELBV2().RegisterTargets(ctx, &elbv2.RegisterTargetsInput{
			TargetGroupArn: group.TargetGroupArn, Targets: []elbv2types.TargetDescription{{Id: awssdk.String("i-00000000000000001"), Port: awssdk.Int32(p.NodePort)}},
		}))
		must[*elbv2.CreateListenerOutput](w.t)(w.cloud.ELBV2().CreateListener(ctx, &elbv2.CreateListenerInput{
			LoadBalancerArn: lb.LoadBalancerArn, Port: awssdk.Int32(p.Port), Protocol: elbv2types.ProtocolEnum(p.Protocol), Tags: tags,
			DefaultActions: []elbv2types.Action{{Type: elbv2types.ActionTypeEnumForward, TargetGroupArn: group.TargetGroupArn}},
		}))
		w.authorize("sg-nodes",
			fromPrefix("tcp", p.NodePort, p.NodePort, "10.0.1.0/24", "kubernetes.io/rule/nlb/health="+name),
			fromPrefix("tcp", p.NodePort, p.NodePort, "0.0.0.0/0", "kubernetes.io/rule/nlb/client="+name))
	}
	if !strings.Contains(w.cloud.String(), "kubernetes.io/rule/nlb/mtu") {
		w.authorize("sg-nodes", fromPrefix("icmp", 3, 4, "0.0.0.0/0", "kubernetes.io/rule/nlb/mtu"))
	}
	return *lb.LoadBalancerArn
}

func withFinalizer(s *corev1.Service) {
	s.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
}

// What the in-tree provider made is kept: the same load balancer and target
// groups, brought in place to what Herald would make, but for what AWS does
// not let be changed.
func TestNLBOfTheInTreeProviderIsAdopted(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		w.authorize("sg-nodes", fromPrefix("tcp", 22, 22, "192.0.2.0/24", "mine"))
		before := w.cloud.String()
		one, two := other("one", "", all(withFinalizer, annotate("type", "nlb"))), other("two", "", all(withFinalizer, annotate("type", "nlb"), port(0, func(p *corev1.ServicePort) { p.NodePort++ }), port(1, func(p *corev1.ServicePort) { p.NodePort++ })))
		arn := w.inTreeNLB(one)
		w.inTreeNLB(two)
		w.cloud.ResetCalls()
		status := w.ensure(one)
		for call := range w.cloud.Counts() {
			if strings.Contains(call, "Create") || strings.Contains(call, "Delete") || strings.Contains(call, "Deregister") || strings.Contains(call, "Revoke") {
				t.Errorf("%s when it should be kept", call)
			}
		}
		if !strings.Contains(status.Ingress[0].Hostname, arn[strings.LastIndex(arn, "/")+1:]) {
			t.Errorf("%v is not %s", status, arn)
		}
		if n := sum(w.counted(func() { w.ensure(one) })); n != 0 {
			t.Errorf("%d calls when nothing changed: %s", n, w.calls())
		}
		state := w.cloud.String()
		for _, want := range []string{
			"health k8s-shop-one-0000000000 TCP:traffic-port interval=10 timeout=6 healthy=3 unhealthy=3",
			"target k8s-shop-one-0000000001 i-00000000000000002",
		} {
			if !strings.Contains(state, want) {
				t.Errorf("no %q in\n%s", want, state)
			}
		}
		w.ensure(two)
		mtu := "kubernetes.io/rule/nlb/mtu"
		w.restart()
		w.delete(one)
		if !strings.Contains(w.cloud.String(), mtu) {
			t.Errorf("the rule of two went with the first:\n%s", w.cloud)
		}
		w.delete(two)
		time.Sleep(10 * time.Minute)
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
	})
}

// Rules of health checks go when the traffic policy no longer needs them.
func TestHealthRulesFollowTheTrafficPolicy(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		s := service("heraldlb.io/nlb", withFinalizer)
		w.inTreeNLB(s)
		w.ensure(s)
		cluster := w.cloud.String()
		w.ensure(service("heraldlb.io/nlb", all(withFinalizer, local)))
		if !strings.Contains(w.cloud.String(), "tcp 32000 10.0.1.0/24") {
			t.Errorf("no rule for the health check:\n%s", w.cloud)
		}
		w.ensure(s)
		if diff := cmp.Diff(cluster, w.cloud.String()); diff != "" {
			t.Errorf("-cluster +again\n%s", diff)
		}
	})
}

// inTreeCLB makes a CLB as the in-tree provider does, in one zone.
func (w *world) inTreeCLB(s *corev1.Service) (hostname string) {
	w.t.Helper()
	ctx := w.t.Context()
	_, tags := inTreeTags(s)
	name := w.provider.identityOf(s).LoadBalancerName()
	group := must[*ec2.CreateSecurityGroupOutput](w.t)(w.cloud.EC2().CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: awssdk.String("k8s-elb-" + name), Description: awssdk.String("for the CLB"), VpcId: awssdk.String("vpc-1"),
		TagSpecifications: []ec2types.TagSpecification{{ResourceType: ec2types.ResourceTypeSecurityGroup, Tags: []ec2types.Tag{{Key: awssdk.String("kubernetes.io/cluster/prod"), Value: awssdk.String("owned")}}}},
	})).GroupId
	time.Sleep(time.Minute) // until all of AWS knows it
	w.authorize(*group, fromPrefix("tcp", 80, 80, "0.0.0.0/0", ""), fromPrefix("tcp", 443, 443, "0.0.0.0/0", ""))
	w.authorize("sg-nodes", ec2types.IpPermission{IpProtocol: awssdk.String("-1"), UserIdGroupPairs: []ec2types.UserIdGroupPair{{GroupId: group}}})
	var listeners []elbtypes.Listener
	for _, p := range s.Spec.Ports {
		listeners = append(listeners, elbtypes.Listener{LoadBalancerPort: p.Port, InstancePort: awssdk.Int32(p.NodePort), Protocol: awssdk.String("tcp"), InstanceProtocol: awssdk.String("tcp")})
	}
	return *must[*elb.CreateLoadBalancerOutput](w.t)(w.cloud.ELB().CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{
		LoadBalancerName: &name, Subnets: []string{"subnet-public2"}, SecurityGroups: []string{*group}, Listeners: listeners, Tags: tags,
	})).DNSName
}

func TestCLBOfTheInTreeProviderIsAdopted(t *testing.T) {
	bubble(t, 2, awsfake.Options{}, func(t *testing.T, w *world) {
		before := w.cloud.String()
		s := service("", withFinalizer)
		hostname := w.inTreeCLB(s)
		w.cloud.ResetCalls()
		status := w.ensure(s)
		for call := range w.cloud.Counts() {
			if strings.Contains(call, "elb.Create") || strings.Contains(call, "Delete") || strings.Contains(call, "Detach") || strings.Contains(call, "CreateSecurityGroup") {
				t.Errorf("%s when it should be kept", call)
			}
		}
		if status.Ingress[0].Hostname != hostname {
			t.Errorf("%v is not %s", status, hostname)
		}
		w.delete(s)
		if diff := cmp.Diff(before, w.cloud.String()); diff != "" {
			t.Errorf("-before +after\n%s", diff)
		}
	})
}
