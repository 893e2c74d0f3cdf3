package moto

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// Inventory is all that there is in the account of load balancers, target
// groups and security groups, each with its parts, a line for each.
func (c *Cloud) Inventory(ctx context.Context) ([]string, error) {
	var lines []string
	for _, part := range []func(context.Context) ([]string, error){c.networks, c.classics, c.targetGroups, c.securityGroups} {
		found, err := part(ctx)
		if err != nil {
			return nil, err
		}
		lines = append(lines, found...)
	}
	slices.Sort(lines)
	return lines, nil
}

func (c *Cloud) networks(ctx context.Context) ([]string, error) {
	balancers, err := c.ELBV2.DescribeLoadBalancers(ctx, &elbv2.DescribeLoadBalancersInput{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, b := range balancers.LoadBalancers {
		name := aws.ToString(b.LoadBalancerName)
		lines = append(lines, fmt.Sprintf("nlb %s %s", name, b.Scheme))
		listeners, err := c.ELBV2.DescribeListeners(ctx, &elbv2.DescribeListenersInput{LoadBalancerArn: b.LoadBalancerArn})
		if err != nil {
			return nil, err
		}
		for _, l := range listeners.Listeners {
			lines = append(lines, fmt.Sprintf("nlb %s listener %s %d", name, ProtocolOf(&l), aws.ToInt32(l.Port)))
		}
	}
	return lines, nil
}

func (c *Cloud) classics(ctx context.Context) ([]string, error) {
	balancers, err := c.ELB.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, b := range balancers.LoadBalancerDescriptions {
		name := aws.ToString(b.LoadBalancerName)
		lines = append(lines, fmt.Sprintf("clb %s %s", name, aws.ToString(b.Scheme)))
		for _, l := range b.ListenerDescriptions {
			lines = append(lines, fmt.Sprintf("clb %s listener %s %d", name, aws.ToString(l.Listener.Protocol), l.Listener.LoadBalancerPort))
		}
	}
	return lines, nil
}

func (c *Cloud) targetGroups(ctx context.Context) ([]string, error) {
	groups, err := c.ELBV2.DescribeTargetGroups(ctx, &elbv2.DescribeTargetGroupsInput{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, g := range groups.TargetGroups {
		lines = append(lines, fmt.Sprintf("target-group %s %s %d", aws.ToString(g.TargetGroupName), g.Protocol, aws.ToInt32(g.Port)))
	}
	return lines, nil
}

func (c *Cloud) securityGroups(ctx context.Context) ([]string, error) {
	groups, err := c.EC2.DescribeSecurityGroups(ctx, &ec2.DescribeSecurityGroupsInput{})
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, g := range groups.SecurityGroups {
		name := aws.ToString(g.GroupId) + " " + aws.ToString(g.GroupName)
		lines = append(lines, "security-group "+name)
		for _, permission := range g.IpPermissions {
			for _, source := range sources(permission) {
				ports := fmt.Sprintf("%d-%d", aws.ToInt32(permission.FromPort), aws.ToInt32(permission.ToPort))
				lines = append(lines, fmt.Sprintf("security-group %s lets in %s %s from %s", name, aws.ToString(permission.IpProtocol), ports, source))
			}
		}
	}
	return lines, nil
}

// sources are from where a permission lets traffic in, with its description.
func sources(p ec2types.IpPermission) []string {
	var found []string
	add := func(source, description *string) {
		found = append(found, strings.TrimSpace(aws.ToString(source)+" "+aws.ToString(description)))
	}
	for _, r := range p.IpRanges {
		add(r.CidrIp, r.Description)
	}
	for _, r := range p.Ipv6Ranges {
		add(r.CidrIpv6, r.Description)
	}
	for _, r := range p.PrefixListIds {
		add(r.PrefixListId, r.Description)
	}
	for _, r := range p.UserIdGroupPairs {
		add(r.GroupId, r.Description)
	}
	return found
}

// Targets are the instances or addresses that a Network Load Balancer sends
// to, by the port of its listener.
func (c *Cloud) Targets(ctx context.Context, name string) (map[int32][]string, error) {
	arn, err := c.arn(ctx, name)
	if err != nil {
		return nil, err
	}
	listeners, err := c.ELBV2.DescribeListeners(ctx, &elbv2.DescribeListenersInput{LoadBalancerArn: arn})
	if err != nil {
		return nil, err
	}
	targets := map[int32][]string{}
	for _, l := range listeners.Listeners {
		for _, action := range l.DefaultActions {
			group := action.TargetGroupArn
			if group == nil && action.ForwardConfig != nil && len(action.ForwardConfig.TargetGroups) == 1 {
				group = action.ForwardConfig.TargetGroups[0].TargetGroupArn
			}
			health, err := c.ELBV2.DescribeTargetHealth(ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: group})
			if err != nil {
				return nil, err
			}
			port := aws.ToInt32(l.Port)
			for _, d := range health.TargetHealthDescriptions {
				targets[port] = append(targets[port], fmt.Sprintf("%s:%d", aws.ToString(d.Target.Id), aws.ToInt32(d.Target.Port)))
			}
			slices.Sort(targets[port])
		}
	}
	return targets, nil
}

func (c *Cloud) arn(ctx context.Context, name string) (*string, error) {
	found, err := c.ELBV2.DescribeLoadBalancers(ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{name}})
	if err != nil {
		return nil, err
	}
	return found.LoadBalancers[0].LoadBalancerArn, nil
}

// Classic returns what there is of a Classic Load Balancer: its listeners as
// "TCP 80 TCP 30080", and its instances.
func (c *Cloud) Classic(ctx context.Context, name string) (listeners, instances []string, err error) {
	found, err := c.ELB.DescribeLoadBalancers(ctx, &elb.DescribeLoadBalancersInput{LoadBalancerNames: []string{name}})
	if err != nil {
		return nil, nil, err
	}
	for _, d := range found.LoadBalancerDescriptions[0].ListenerDescriptions {
		l := d.Listener
		listeners = append(listeners, fmt.Sprintf("%s %d %s %d", aws.ToString(l.Protocol), l.LoadBalancerPort, aws.ToString(l.InstanceProtocol), aws.ToInt32(l.InstancePort)))
	}
	for _, i := range found.LoadBalancerDescriptions[0].Instances {
		instances = append(instances, aws.ToString(i.InstanceId))
	}
	slices.Sort(listeners)
	slices.Sort(instances)
	return listeners, slices.Compact(instances), nil
}

// Tags are those of a Network Load Balancer.
func (c *Cloud) Tags(ctx context.Context, name string) (map[string]string, error) {
	arn, err := c.arn(ctx, name)
	if err != nil {
		return nil, err
	}
	found, err := c.ELBV2.DescribeTags(ctx, &elbv2.DescribeTagsInput{ResourceArns: []string{aws.ToString(arn)}})
	if err != nil {
		return nil, err
	}
	tags := map[string]string{}
	for _, t := range found.TagDescriptions[0].Tags {
		tags[aws.ToString(t.Key)] = aws.ToString(t.Value)
	}
	return tags, nil
}
