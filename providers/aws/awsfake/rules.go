package awsfake

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

var ruleKind = resource{"sgr-", "InvalidSecurityGroupRuleId", "security group rule ID"}

// rule is an inbound rule of a security group.
type rule struct {
	id string
	match
	description string
	tags        tags
	egress      bool
}

// match is what a rule lets in, and its identity: the description is no part
// of it.
type match struct {
	protocol string
	from, to int
	// source is a CIDR in its canonical form, a prefix list or a security group.
	source string
}

// protocols are the names of protocol numbers.
var protocols = map[string]string{"6": "tcp", "17": "udp", "1": "icmp", "58": "icmpv6", "all": "-1"}

// rulesOf reads permissions as the API takes them: each source is a rule.
func (c *Cloud) rulesOf(g *securityGroup, permissions []types.IpPermission) ([]*rule, error) {
	var list []*rule
	for _, p := range permissions {
		base, err := readPorts(p)
		if err != nil {
			return nil, err
		}
		before := len(list)
		add := func(source string, err error, description *string) error {
			if err != nil {
				return err
			}
			if !validText(aws.ToString(description)) {
				return refuse("InvalidParameterValue", "Invalid rule description. Valid descriptions are strings less than 256 characters of a-zA-Z0-9%s",
					inDescriptions)
			}
			r := &rule{match: base, description: aws.ToString(description), tags: tags{}}
			r.source = source
			list = append(list, r)
			return nil
		}
		for _, s := range p.IpRanges {
			source, err := cidr(aws.ToString(s.CidrIp), true)
			if err := add(source, err, s.Description); err != nil {
				return nil, err
			}
		}
		for _, s := range p.Ipv6Ranges {
			source, err := cidr(aws.ToString(s.CidrIpv6), false)
			if err := add(source, err, s.Description); err != nil {
				return nil, err
			}
		}
		for _, s := range p.PrefixListIds {
			source, err := c.prefixList(aws.ToString(s.PrefixListId))
			if err := add(source, err, s.Description); err != nil {
				return nil, err
			}
		}
		for _, s := range p.UserIdGroupPairs {
			source, err := c.sourceGroup(g, s)
			if err := add(source, err, s.Description); err != nil {
				return nil, err
			}
		}
		if len(list) == before {
			return nil, refuse("MissingParameter", "A permission needs a source: a CIDR, a prefix list or a security group")
		}
	}
	if len(list) == 0 {
		return nil, refuse("MissingParameter", "The request must contain the parameter ipPermissions")
	}
	return list, nil
}

// readPorts reads the protocol and the ports of a permission.
func readPorts(p types.IpPermission) (match, error) {
	m := match{protocol: strings.ToLower(aws.ToString(p.IpProtocol)), from: -1, to: -1}
	if name, ok := protocols[m.protocol]; ok {
		m.protocol = name
	}
	if p.FromPort != nil {
		m.from = int(*p.FromPort)
	}
	if p.ToPort != nil {
		m.to = int(*p.ToPort)
	}
	switch m.protocol {
	case "-1":
		// Ports of all protocols mean nothing.
		m.from, m.to = -1, -1
	case "tcp", "udp":
		if p.FromPort == nil || p.ToPort == nil {
			return m, refuse("InvalidParameterValue", "Invalid value 'Must specify both from and to ports with TCP/UDP.' for portRange.")
		}
		if m.from < 0 || m.to > 65535 {
			return m, refuse("InvalidParameterValue", "Invalid port range %d-%d", m.from, m.to)
		}
		if m.from > m.to {
			return m, refuse("InvalidParameterValue", "Invalid TCP/UDP port range (%d:%d)", m.from, m.to)
		}
	case "icmp", "icmpv6":
		if p.FromPort == nil || p.ToPort == nil {
			if m.protocol == "icmp" {
				return m, refuse("InvalidParameterValue", "ICMP type and code must be specified")
			}
			break
		}
		if m.from < -1 || m.from > 255 || m.to < -1 || m.to > 255 {
			return m, refuse("InvalidParameterValue", "Invalid ICMP type and code %d, %d", m.from, m.to)
		}
	default:
		if !inRange(m.protocol, 0, 255) {
			return m, refuse("InvalidParameterValue", "Invalid value '%s' for IP protocol. Unknown protocol.", m.protocol)
		}
		m.from, m.to = -1, -1
	}
	return m, nil
}

// cidr is a block in its canonical form.
func cidr(value string, four bool) (string, error) {
	p, err := netip.ParsePrefix(value)
	if err != nil || p.Addr().Is4() != four {
		return "", refuse("InvalidParameterValue", "CIDR block %s is malformed", value)
	}
	return p.Masked().String(), nil
}

func (c *Cloud) prefixList(id string) (string, error) {
	if _, ok := c.prefixLists[id]; !ok {
		return "", refuse("InvalidPrefixListID.NotFound", "The prefix list ID '%s' does not exist", id)
	}
	return id, nil
}

// sourceGroup is the security group that a rule lets in, of the same VPC.
func (c *Cloud) sourceGroup(g *securityGroup, p types.UserIdGroupPair) (string, error) {
	id := aws.ToString(p.GroupId)
	if id == "" {
		return "", refuse("MissingParameter", "The request must contain the parameter groupId")
	}
	if p.UserId != nil && *p.UserId != c.options.Account {
		return "", refuse("InvalidGroup.NotFound", "The security group '%s' does not exist in account %s", id, *p.UserId)
	}
	source, err := c.groupBy(&id)
	if err != nil {
		return "", err
	}
	if source.vpc != g.vpc {
		return "", refuse("InvalidGroup.NotFound", "You have specified two resources that belong to different networks.")
	}
	return id, nil
}

// permissionsOf are the permissions of a call, also where it names one in the
// old way.
func permissionsOf(permissions []types.IpPermission, cidr, protocol *string, from, to *int32) ([]types.IpPermission, error) {
	if cidr == nil && protocol == nil && from == nil && to == nil {
		return permissions, nil
	}
	if len(permissions) > 0 {
		return nil, refuse("InvalidParameterCombination", "The parameter 'ipPermissions' may not be used in combination with 'ipProtocol'")
	}
	return []types.IpPermission{{IpProtocol: protocol, FromPort: from, ToPort: to, IpRanges: []types.IpRange{{CidrIp: cidr}}}}, nil
}

// authorizeIngress adds all rules or none.
func (c *Cloud) authorizeIngress(in *ec2.AuthorizeSecurityGroupIngressInput) (*ec2.AuthorizeSecurityGroupIngressOutput, error) {
	g, err := c.groupBy(in.GroupId)
	if err != nil {
		return nil, err
	}
	permissions, err := permissionsOf(in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort)
	if err != nil {
		return nil, err
	}
	wanted, err := c.rulesOf(g, permissions)
	if err != nil {
		return nil, err
	}
	set, err := c.specified(in.TagSpecifications, types.ResourceTypeSecurityGroupRule)
	if err != nil {
		return nil, err
	}
	all := slices.Clone(g.rules)
	for _, r := range wanted {
		if slices.ContainsFunc(all, func(o *rule) bool { return o.match == r.match }) {
			return nil, refuse("InvalidPermission.Duplicate", "the specified rule \"peer: %s, %s, from port: %d, to port: %d, ALLOW\" already exists",
				r.source, strings.ToUpper(r.protocol), r.from, r.to)
		}
		all = append(all, r)
	}
	if err := c.checkRules(all); err != nil {
		return nil, err
	}
	out := &ec2.AuthorizeSecurityGroupIngressOutput{Return: aws.Bool(true)}
	for _, r := range wanted {
		r.id, r.tags = c.id("sgr"), set.with(nil)
		out.SecurityGroupRules = append(out.SecurityGroupRules, c.ruleOut(g, r))
	}
	g.rules = all
	return out, nil
}

// checkRules is the quota of rules. It is one of each IP family: a group
// counts for both, a prefix list with all of its entries.
func (c *Cloud) checkRules(rules []*rule) error {
	var four, six int
	for _, r := range rules {
		p, err := netip.ParsePrefix(r.source)
		switch {
		case err == nil && p.Addr().Is4():
			four++
		case err == nil:
			six++
		case strings.HasPrefix(r.source, "pl-"):
			four += c.prefixLists[r.source]
			six += c.prefixLists[r.source]
		default:
			four++
			six++
		}
	}
	if max(four, six) > c.limits.RulesPerSecurityGroup {
		return refuse("RulesPerSecurityGroupLimitExceeded", "The maximum number of rules per security group has been reached.")
	}
	return nil
}

// revokeIngress removes all rules that are named or none.
func (c *Cloud) revokeIngress(in *ec2.RevokeSecurityGroupIngressInput) (*ec2.RevokeSecurityGroupIngressOutput, error) {
	g, err := c.groupBy(in.GroupId)
	if err != nil {
		return nil, err
	}
	gone, err := c.named(g, in)
	if err != nil {
		return nil, err
	}
	out := &ec2.RevokeSecurityGroupIngressOutput{Return: aws.Bool(true)}
	for _, r := range gone {
		out.RevokedSecurityGroupRules = append(out.RevokedSecurityGroupRules, revokedOut(g, r))
	}
	g.rules = slices.DeleteFunc(slices.Clone(g.rules), func(r *rule) bool { return slices.Contains(gone, r) })
	return out, nil
}

// named are the rules that a call names, by ID or by what they let in.
func (c *Cloud) named(g *securityGroup, in *ec2.RevokeSecurityGroupIngressInput) ([]*rule, error) {
	var found []*rule
	for _, id := range in.SecurityGroupRuleIds {
		i := slices.IndexFunc(g.rules, func(r *rule) bool { return r.id == id })
		if i < 0 {
			return nil, refuse("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%s' does not exist", id)
		}
		found = append(found, g.rules[i])
	}
	if len(found) > 0 && len(in.IpPermissions) == 0 {
		return found, nil
	}
	if len(found) > 0 {
		return nil, refuse("InvalidParameterCombination",
			"The parameter 'securityGroupRuleIds' may not be used in combination with 'ipPermissions'")
	}
	permissions, err := permissionsOf(in.IpPermissions, in.CidrIp, in.IpProtocol, in.FromPort, in.ToPort)
	if err != nil {
		return nil, err
	}
	wanted, err := c.rulesOf(g, permissions)
	if err != nil {
		return nil, err
	}
	for _, w := range wanted {
		i := slices.IndexFunc(g.rules, func(r *rule) bool { return r.match == w.match })
		if i < 0 {
			return nil, refuse("InvalidPermission.NotFound", "The specified rule does not exist in this security group.")
		}
		found = append(found, g.rules[i])
	}
	return found, nil
}

func (c *Cloud) describeSecurityGroupRules(in *ec2.DescribeSecurityGroupRulesInput) (*ec2.DescribeSecurityGroupRulesOutput, error) {
	type owned struct {
		group *securityGroup
		*rule
	}
	var list []numbered[owned]
	for _, n := range c.groups.seen(c.now(), c.options.Delays) {
		list = append(list, numbered[owned]{serial: n.serial, key: "sgr-egress-" + n.key, value: owned{n.value, outward(n.key)}})
		for _, r := range n.value.rules {
			serial, _ := strconv.ParseInt(strings.TrimPrefix(r.id, "sgr-"), 16, 64)
			list = append(list, numbered[owned]{serial: int(serial), key: r.id, value: owned{n.value, r}})
		}
	}
	slices.SortFunc(list, func(a, b numbered[owned]) int { return a.serial - b.serial })
	q := question{in.SecurityGroupRuleIds, in.Filters, in.NextToken, in.MaxResults}
	part, next, err := answer(c, list, q, ruleKind, 1000, func(o owned) fields {
		if o.rule == nil {
			return orTags(nil, table(map[string][]string{"group-id": nil, "security-group-rule-id": nil}))
		}
		return orTags(o.rule.tags, table(map[string][]string{"group-id": {o.group.id}, "security-group-rule-id": {o.rule.id}}))
	})
	if err != nil {
		return nil, err
	}
	out := &ec2.DescribeSecurityGroupRulesOutput{NextToken: next}
	for _, n := range part {
		out.SecurityGroupRules = append(out.SecurityGroupRules, c.ruleOut(n.value.group, n.value.rule))
	}
	return out, nil
}

// outward is the outbound rule that each security group has.
func outward(group string) *rule {
	return &rule{id: "sgr-egress-" + group, match: match{protocol: "-1", from: -1, to: -1, source: "0.0.0.0/0"}, egress: true}
}

func (c *Cloud) ruleOut(g *securityGroup, r *rule) types.SecurityGroupRule {
	out := types.SecurityGroupRule{
		SecurityGroupRuleId: aws.String(r.id), GroupId: aws.String(g.id), GroupOwnerId: aws.String(c.options.Account), IsEgress: aws.Bool(r.egress),
		IpProtocol: aws.String(r.protocol), FromPort: aws.Int32(int32(r.from)), ToPort: aws.Int32(int32(r.to)),
		Description: optional(r.description), Tags: ec2Tags(r.tags),
	}
	var group *string
	if out.CidrIpv4, out.CidrIpv6, out.PrefixListId, group = sourceOut(r.source); group != nil {
		out.ReferencedGroupInfo = &types.ReferencedSecurityGroup{GroupId: group, UserId: aws.String(c.options.Account)}
	}
	return out
}

func revokedOut(g *securityGroup, r *rule) types.RevokedSecurityGroupRule {
	out := types.RevokedSecurityGroupRule{
		SecurityGroupRuleId: aws.String(r.id), GroupId: aws.String(g.id), IsEgress: aws.Bool(false), IpProtocol: aws.String(r.protocol),
		FromPort: aws.Int32(int32(r.from)), ToPort: aws.Int32(int32(r.to)), Description: optional(r.description),
	}
	out.CidrIpv4, out.CidrIpv6, out.PrefixListId, out.ReferencedGroupId = sourceOut(r.source)
	return out
}

// sourceOut tells a source as the one of these that it is.
func sourceOut(source string) (v4, v6, prefixList, group *string) {
	p, err := netip.ParsePrefix(source)
	switch {
	case err == nil && p.Addr().Is4():
		v4 = &source
	case err == nil:
		v6 = &source
	case strings.HasPrefix(source, "pl-"):
		prefixList = &source
	default:
		group = &source
	}
	return v4, v6, prefixList, group
}

// permissions tells rules as EC2 does: those with the same protocol and ports
// together.
func (c *Cloud) permissions(rules []*rule) []types.IpPermission {
	sorted := slices.Clone(rules)
	slices.SortFunc(sorted, byMatch)
	var out []types.IpPermission
	var last match
	for i, r := range sorted {
		ports := match{protocol: r.protocol, from: r.from, to: r.to}
		if i == 0 || ports != last {
			p := types.IpPermission{IpProtocol: aws.String(r.protocol)}
			if r.protocol != "-1" {
				p.FromPort, p.ToPort = aws.Int32(int32(r.from)), aws.Int32(int32(r.to))
			}
			out = append(out, p)
			last = ports
		}
		c.addSource(&out[len(out)-1], r)
	}
	return out
}

func (c *Cloud) addSource(p *types.IpPermission, r *rule) {
	source, err := netip.ParsePrefix(r.source)
	switch {
	case err == nil && source.Addr().Is4():
		p.IpRanges = append(p.IpRanges, types.IpRange{CidrIp: aws.String(r.source), Description: optional(r.description)})
	case err == nil:
		p.Ipv6Ranges = append(p.Ipv6Ranges, types.Ipv6Range{CidrIpv6: aws.String(r.source), Description: optional(r.description)})
	case strings.HasPrefix(r.source, "pl-"):
		p.PrefixListIds = append(p.PrefixListIds, types.PrefixListId{PrefixListId: aws.String(r.source), Description: optional(r.description)})
	default:
		p.UserIdGroupPairs = append(p.UserIdGroupPairs, types.UserIdGroupPair{
			GroupId: aws.String(r.source), UserId: aws.String(c.options.Account), Description: optional(r.description),
		})
	}
}

func byMatch(a, b *rule) int {
	return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), cmp.Compare(a.source, b.source))
}
