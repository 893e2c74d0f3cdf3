package moto

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// Classic is a Classic Load Balancer to make as the in-tree provider does.
type Classic struct {
	// Name of the load balancer, and namespace/name of its Service.
	Name, Service  string
	Port, NodePort int32
	Instances      []Instance
}

// MakeClassic makes a Classic Load Balancer with a security group that the
// nodes let in, and returns its DNS name.
func (c *Cloud) MakeClassic(ctx context.Context, v *VPC, want Classic) (hostname string, err error) {
	tags := map[string]string{"kubernetes.io/cluster/" + v.Cluster: "owned", "kubernetes.io/service-name": want.Service}
	var elbTags []elbtypes.Tag
	var ec2Tags []types.Tag
	for key, value := range tags {
		elbTags = append(elbTags, elbtypes.Tag{Key: aws.String(key), Value: aws.String(value)})
		ec2Tags = append(ec2Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
	}
	group, err := c.EC2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{
		GroupName: aws.String("k8s-elb-" + want.Name), Description: aws.String("Security group for Kubernetes ELB " + want.Name), VpcId: aws.String(v.ID),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeSecurityGroup, Tags: ec2Tags}},
	})
	if err != nil {
		return "", err
	}
	for id, permission := range map[string]types.IpPermission{
		aws.ToString(group.GroupId): {IpProtocol: aws.String("tcp"), FromPort: aws.Int32(want.Port), ToPort: aws.Int32(want.Port), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}}},
		v.NodeGroup:                 {IpProtocol: aws.String("-1"), UserIdGroupPairs: []types.UserIdGroupPair{{GroupId: group.GroupId}}},
	} {
		if _, err := c.EC2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{GroupId: aws.String(id), IpPermissions: []types.IpPermission{permission}}); err != nil {
			return "", err
		}
	}
	made, err := c.ELB.CreateLoadBalancer(ctx, &elb.CreateLoadBalancerInput{
		LoadBalancerName: aws.String(want.Name), SecurityGroups: []string{aws.ToString(group.GroupId)}, Subnets: slices.Sorted(maps.Values(v.Public)), Tags: elbTags,
		Listeners: []elbtypes.Listener{{
			Protocol: aws.String("TCP"), LoadBalancerPort: want.Port, InstanceProtocol: aws.String("TCP"), InstancePort: aws.Int32(want.NodePort),
		}},
	})
	if err != nil {
		return "", err
	}
	_, err = c.ELB.ConfigureHealthCheck(ctx, &elb.ConfigureHealthCheckInput{LoadBalancerName: aws.String(want.Name), HealthCheck: &elbtypes.HealthCheck{
		Target: aws.String(fmt.Sprintf("TCP:%d", want.NodePort)), Interval: aws.Int32(10), Timeout: aws.Int32(5), HealthyThreshold: aws.Int32(2), UnhealthyThreshold: aws.Int32(6),
	}})
	if err != nil {
		return "", err
	}
	var ids []elbtypes.Instance
	for _, instance := range want.Instances {
		ids = append(ids, elbtypes.Instance{InstanceId: aws.String(instance.ID)})
	}
	_, err = c.ELB.RegisterInstancesWithLoadBalancer(ctx, &elb.RegisterInstancesWithLoadBalancerInput{LoadBalancerName: aws.String(want.Name), Instances: ids})
	return aws.ToString(made.DNSName), err
}
