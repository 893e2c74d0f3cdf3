package aws

import (
	"context"
	"maps"
	"slices"
	"strings"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"

	"github.com/heraldlb/herald/providers/aws/model"
)

// inventory is what there is in the region, read in a few calls for all
// Services. Each finds its own in it, also what its annotations of today do
// not lead to.
type inventory struct {
	networks     []elbv2types.LoadBalancer
	targetGroups []elbv2types.TargetGroup
	classics     []elbtypes.LoadBalancerDescription
	// groups are the security groups of the cluster, those that let them in,
	// and those of the nodes, by ID.
	groups map[string]ec2types.SecurityGroup
	// tags of load balancers and target groups by ARN.
	tags map[string]map[string]string
}

// pageSize is how many load balancers or target groups a page has.
const pageSize = 400

func (p *Provider) readInventory(ctx context.Context) (*inventory, error) {
	inv := &inventory{groups: map[string]ec2types.SecurityGroup{}}
	var err error
	inv.networks, err = collect(func(token *string) ([]elbv2types.LoadBalancer, *string, error) {
		out, err := call(ctx, p, p.ELBV2.DescribeLoadBalancers, &elbv2.DescribeLoadBalancersInput{Marker: token, PageSize: awssdk.Int32(pageSize)})
		if err != nil {
			return nil, nil, err
		}
		return out.LoadBalancers, out.NextMarker, nil
	})
	if err != nil {
		return nil, err
	}
	inv.networks = slices.DeleteFunc(inv.networks, func(lb elbv2types.LoadBalancer) bool {
		return lb.Type != elbv2types.LoadBalancerTypeEnumNetwork || awssdk.ToString(lb.VpcId) != p.VPCID
	})
	inv.targetGroups, err = collect(func(token *string) ([]elbv2types.TargetGroup, *string, error) {
		out, err := call(ctx, p, p.ELBV2.DescribeTargetGroups, &elbv2.DescribeTargetGroupsInput{Marker: token, PageSize: awssdk.Int32(pageSize)})
		if err != nil {
			return nil, nil, err
		}
		return out.TargetGroups, out.NextMarker, nil
	})
	if err != nil {
		return nil, err
	}
	inv.targetGroups = slices.DeleteFunc(inv.targetGroups, func(group elbv2types.TargetGroup) bool {
		ours := strings.HasPrefix(awssdk.ToString(group.TargetGroupName), model.TargetGroupsPrefix) || inv.uses(group.LoadBalancerArns)
		return !ours || awssdk.ToString(group.VpcId) != p.VPCID
	})
	inv.classics, err = collect(func(token *string) ([]elbtypes.LoadBalancerDescription, *string, error) {
		out, err := call(ctx, p, p.ELB.DescribeLoadBalancers, &elb.DescribeLoadBalancersInput{Marker: token, PageSize: awssdk.Int32(pageSize)})
		if err != nil {
			return nil, nil, err
		}
		return out.LoadBalancerDescriptions, out.NextMarker, nil
	})
	if err != nil {
		return nil, err
	}
	if inv.tags, err = p.networkTags(ctx, inv.arns()); err != nil {
		return nil, err
	}
	return inv, p.readGroups(ctx, inv)
}

// uses says whether one of the load balancers is an NLB of the VPC.
func (inv *inventory) uses(arns []string) bool {
	return slices.ContainsFunc(inv.networks, func(lb elbv2types.LoadBalancer) bool {
		return slices.Contains(arns, awssdk.ToString(lb.LoadBalancerArn))
	})
}

func (inv *inventory) arns() []string {
	var arns []string
	for i := range inv.networks {
		arns = append(arns, awssdk.ToString(inv.networks[i].LoadBalancerArn))
	}
	for i := range inv.targetGroups {
		arns = append(arns, awssdk.ToString(inv.targetGroups[i].TargetGroupArn))
	}
	return arns
}

// tagChunk is how many pieces one DescribeTags names.
const tagChunk = 20

// networkTags returns the tags by ARN.
func (p *Provider) networkTags(ctx context.Context, arns []string) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for some := range slices.Chunk(arns, tagChunk) {
		if err := p.addTags(ctx, all, some); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// addTags adds the tags of some pieces. AWS tells of none when one of them is
// gone meanwhile, which may be anybody's: then each half is asked about.
func (p *Provider) addTags(ctx context.Context, all map[string]map[string]string, arns []string) error {
	out, err := call(ctx, p, p.ELBV2.DescribeTags, &elbv2.DescribeTagsInput{ResourceArns: arns})
	switch code := codeOf(err); {
	case code == "LoadBalancerNotFound" || code == "TargetGroupNotFound" || code == "ListenerNotFound":
		if len(arns) == 1 {
			return nil
		}
		half := len(arns) / 2
		if err := p.addTags(ctx, all, arns[:half]); err != nil {
			return err
		}
		return p.addTags(ctx, all, arns[half:])
	case err != nil:
		return err
	}
	for _, description := range out.TagDescriptions {
		tags := map[string]string{}
		for _, tag := range description.Tags {
			tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
		}
		all[awssdk.ToString(description.ResourceArn)] = withoutReserved(tags)
	}
	return nil
}

// withoutReserved leaves out the tags that AWS keeps to itself.
func withoutReserved(tags map[string]string) map[string]string {
	maps.DeleteFunc(tags, func(key, _ string) bool { return strings.HasPrefix(key, "aws:") })
	return tags
}

// readGroups reads the security groups that matter: those of load balancers,
// those that let them in, and those of the nodes of today.
func (p *Provider) readGroups(ctx context.Context, inv *inventory) error {
	tagged, err := p.readClusterGroups(ctx)
	if err != nil {
		return err
	}
	var own []string
	for i := range tagged {
		id := awssdk.ToString(tagged[i].GroupId)
		inv.groups[id] = tagged[i]
		if strings.HasPrefix(awssdk.ToString(tagged[i].GroupName), model.GroupPrefix) {
			own = append(own, id)
		}
	}
	referring, err := p.securityGroups(ctx, "ip-permission.group-id", own...)
	if err != nil {
		return err
	}
	// Also when no Service asks where its nodes are, as after a restart.
	_, nodeGroups, err := p.livingTargets(ctx, p.knownNodes())
	if err != nil {
		return err
	}
	nodes, err := p.securityGroups(ctx, "group-id", nodeGroups...)
	if err != nil {
		return err
	}
	for _, group := range slices.Concat(referring, nodes) {
		inv.groups[awssdk.ToString(group.GroupId)] = group
	}
	return nil
}

// rulesOf are the inbound rules of a security group.
func rulesOf(group *ec2types.SecurityGroup) []model.Rule {
	var rules []model.Rule
	for i := range group.IpPermissions {
		permission := &group.IpPermissions[i]
		add := func(source, description *string) {
			rule := model.Rule{Protocol: awssdk.ToString(permission.IpProtocol), Source: awssdk.ToString(source), Description: awssdk.ToString(description)}
			if rule.Protocol != "-1" {
				rule.From, rule.To = awssdk.ToInt32(permission.FromPort), awssdk.ToInt32(permission.ToPort)
			}
			rules = append(rules, rule)
		}
		for _, source := range permission.IpRanges {
			add(source.CidrIp, source.Description)
		}
		for _, source := range permission.Ipv6Ranges {
			add(source.CidrIpv6, source.Description)
		}
		for _, source := range permission.PrefixListIds {
			add(source.PrefixListId, source.Description)
		}
		for _, source := range permission.UserIdGroupPairs {
			add(source.GroupId, source.Description)
		}
	}
	return rules
}
