package awsfake

import (
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

var groupKind = resource{"sg-", "InvalidGroup", "security group"}

// securityGroup is a security group with its inbound rules.
type securityGroup struct {
	id, name, vpc, description string
	tags                       tags
	rules                      []*rule
	// foreign says that it was not made by a call.
	foreign bool
}

// knownGroup is a security group that calls may name already.
func (c *Cloud) knownGroup(id string) (*securityGroup, bool) {
	g, ok := c.groups.get(id)
	if ok && c.groups.age(id, c.now()) < c.options.Delays.Known {
		return nil, false
	}
	return g, ok
}

func (c *Cloud) groupBy(id *string) (*securityGroup, error) {
	key := aws.ToString(id)
	if key == "" {
		return nil, refuse("MissingParameter", "The request must contain the parameter groupName or groupId")
	}
	if !strings.HasPrefix(key, "sg-") {
		return nil, refuse("InvalidGroupId.Malformed", "Invalid id: \"%s\" (expecting \"sg-...\")", key)
	}
	g, ok := c.knownGroup(key)
	if !ok {
		return nil, refuse("InvalidGroup.NotFound", "The security group '%s' does not exist", key)
	}
	return g, nil
}

// inDescriptions are the characters of names and descriptions beside letters
// and digits.
const inDescriptions = " ._-:/()#,@[]+=&;{}!$*"

func validText(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune(inDescriptions, r) })
}

var ec2TagErrors = tagErrors{
	invalid:   func(f string, a ...any) error { return refuse("InvalidParameterValue", f, a...) },
	duplicate: func(f string, a ...any) error { return refuse("InvalidParameterValue", f, a...) },
	tooMany:   func(f string, a ...any) error { return refuse("TagLimitExceeded", f, a...) },
}

func ec2Pairs(list []types.Tag) []pair {
	var pairs []pair
	for _, t := range list {
		pairs = append(pairs, pair{aws.ToString(t.Key), aws.ToString(t.Value)})
	}
	return pairs
}

// specified are the tags that a thing is made with.
func (c *Cloud) specified(list []types.TagSpecification, resource types.ResourceType) (tags, error) {
	var pairs []pair
	for _, s := range list {
		if s.ResourceType != resource {
			return nil, refuse("InvalidParameterValue", "'%s' is not a valid taggable resource type for this operation.", s.ResourceType)
		}
		pairs = append(pairs, ec2Pairs(s.Tags)...)
	}
	return c.tag(nil, pairs, ec2TagErrors)
}

func (c *Cloud) createSecurityGroup(in *ec2.CreateSecurityGroupInput) (*ec2.CreateSecurityGroupOutput, error) {
	g := &securityGroup{name: aws.ToString(in.GroupName), vpc: aws.ToString(in.VpcId), description: aws.ToString(in.Description)}
	switch {
	case g.name == "" || !validText(g.name):
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter GroupName is invalid. Character sets beyond ASCII are not supported.",
			g.name)
	case strings.HasPrefix(g.name, "sg-"):
		return nil, refuse("InvalidParameterValue", "Group names may not be in the format sg-*")
	case g.name == "default":
		return nil, refuse("InvalidGroup.Reserved", "The security group 'default' is reserved")
	case g.description == "" || !validText(g.description):
		return nil, refuse("InvalidParameterValue", "Value (%s) for parameter GroupDescription is invalid. Character sets beyond ASCII are not supported.",
			g.description)
	case g.vpc == "":
		return nil, refuse("VPCIdNotSpecified", "No default VPC for this user")
	}
	if _, ok := c.vpcs.get(g.vpc); !ok {
		return nil, refuse("InvalidVpcID.NotFound", "The vpc ID '%s' does not exist", g.vpc)
	}
	var err error
	if g.tags, err = c.specified(in.TagSpecifications, types.ResourceTypeSecurityGroup); err != nil {
		return nil, err
	}
	for _, o := range c.groups.all() {
		if o.name == g.name && o.vpc == g.vpc {
			return nil, refuse("InvalidGroup.Duplicate", "The security group '%s' already exists for VPC '%s'", g.name, g.vpc)
		}
	}
	if len(c.groups.live) >= c.limits.SecurityGroups {
		return nil, refuse("SecurityGroupLimitExceeded", "The maximum number of security groups has been reached.")
	}
	g.id = c.id("sg")
	c.groups.add(g.id, g, c.next(), c.now())
	return &ec2.CreateSecurityGroupOutput{GroupId: aws.String(g.id), Tags: ec2Tags(g.tags), SecurityGroupArn: aws.String(c.groupARN(g.id))}, nil
}

func (c *Cloud) groupARN(id string) string {
	return "arn:aws:ec2:" + c.options.Region + ":" + c.options.Account + ":security-group/" + id
}

func (c *Cloud) deleteSecurityGroup(in *ec2.DeleteSecurityGroupInput) (*ec2.DeleteSecurityGroupOutput, error) {
	g, err := c.groupBy(in.GroupId)
	if err != nil {
		return nil, err
	}
	if g.name == "default" {
		return nil, refuse("CannotDelete", "the specified group: \"%s\" name: \"default\" cannot be deleted by a user", g.id)
	}
	if c.groupInUse(g.id) != "" {
		return nil, refuse("DependencyViolation", "resource %s has a dependent object", g.id)
	}
	c.groups.remove(g.id, c.now())
	return &ec2.DeleteSecurityGroupOutput{GroupId: aws.String(g.id), Return: aws.Bool(true)}, nil
}

func (c *Cloud) describeSecurityGroups(in *ec2.DescribeSecurityGroupsInput) (*ec2.DescribeSecurityGroupsOutput, error) {
	list := c.groups.seen(c.now(), c.options.Delays)
	if len(in.GroupNames) > 0 {
		return nil, refuse("VPCIdNotSpecified", "Group names need a default VPC; filter by group-name")
	}
	q := question{in.GroupIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, list, q, groupKind, 1000, func(g *securityGroup) fields {
		if g == nil {
			g = &securityGroup{}
		}
		return orTags(g.tags, g.fields)
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeSecurityGroupsOutput{NextToken: next}
	for _, n := range part {
		out.SecurityGroups = append(out.SecurityGroups, c.groupOut(n.value))
	}
	return out, nil
}

// fields are what a security group can be filtered by.
func (g *securityGroup) fields(name string) ([]string, bool) {
	switch name {
	case "group-id":
		return []string{g.id}, true
	case "group-name":
		return []string{g.name}, true
	case "vpc-id":
		return []string{g.vpc}, true
	case "description":
		return []string{g.description}, true
	case "ip-permission.group-id", "ip-permission.cidr", "ip-permission.ipv6-cidr", "ip-permission.prefix-list-id":
		var sources []string
		for _, r := range g.rules {
			sources = append(sources, r.source)
		}
		return sources, true
	}
	return nil, false
}

func (c *Cloud) groupOut(g *securityGroup) types.SecurityGroup {
	return types.SecurityGroup{
		GroupId: aws.String(g.id), GroupName: aws.String(g.name), VpcId: aws.String(g.vpc), Description: aws.String(g.description),
		OwnerId: aws.String(c.options.Account), SecurityGroupArn: aws.String(c.groupARN(g.id)), Tags: ec2Tags(g.tags),
		IpPermissions: c.permissions(g.rules),
		IpPermissionsEgress: []types.IpPermission{{
			IpProtocol: aws.String("-1"), IpRanges: []types.IpRange{{CidrIp: aws.String("0.0.0.0/0")}},
		}},
	}
}

// taggable are the tags of a thing that CreateTags names.
func (c *Cloud) taggable(id string) (*tags, error) {
	switch {
	case strings.HasPrefix(id, "sg-"):
		g, err := c.groupBy(&id)
		if err != nil {
			return nil, err
		}
		return &g.tags, nil
	case strings.HasPrefix(id, "sgr-"):
		for _, g := range c.groups.all() {
			for _, r := range g.rules {
				if r.id == id {
					return &r.tags, nil
				}
			}
		}
		return nil, refuse("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
	case strings.HasPrefix(id, "subnet-"):
		if s, ok := c.subnets.get(id); ok {
			return (*tags)(&s.Tags), nil
		}
		return nil, refuse("InvalidSubnetID.NotFound", "The subnet ID '%s' does not exist", id)
	case strings.HasPrefix(id, "i-"):
		if i, ok := c.instances.get(id); ok {
			return (*tags)(&i.Tags), nil
		}
		return nil, refuse("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
	}
	return nil, refuse("InvalidID", "The ID '%s' is not valid", id)
}

// createTags tags all things or none.
func (c *Cloud) createTags(in *ec2.CreateTagsInput) (*ec2.CreateTagsOutput, error) {
	if len(in.Resources) > 1000 {
		return nil, refuse("InvalidParameterValue", "Up to 1000 resources can be specified in a single request")
	}
	found := make([]*tags, len(in.Resources))
	changed := make([]tags, len(in.Resources))
	for i, id := range in.Resources {
		var err error
		if found[i], err = c.taggable(id); err != nil {
			return nil, err
		}
		if changed[i], err = c.tag(*found[i], ec2Pairs(in.Tags), ec2TagErrors); err != nil {
			return nil, err
		}
	}
	for i := range found {
		*found[i] = changed[i]
	}
	return &ec2.CreateTagsOutput{}, nil
}

// deleteTags removes tags: those with the value that is given, or whatever the
// value if none is given, or all if no tags are given.
func (c *Cloud) deleteTags(in *ec2.DeleteTagsInput) (*ec2.DeleteTagsOutput, error) {
	found := make([]*tags, len(in.Resources))
	for i, id := range in.Resources {
		var err error
		if found[i], err = c.taggable(id); err != nil {
			return nil, err
		}
	}
	for _, t := range found {
		if len(in.Tags) == 0 {
			*t = tags{}
		}
		for _, d := range in.Tags {
			if d.Value == nil || (*t)[aws.ToString(d.Key)] == *d.Value {
				delete(*t, aws.ToString(d.Key))
			}
		}
	}
	return &ec2.DeleteTagsOutput{}, nil
}
