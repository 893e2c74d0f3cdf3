package awsfake

import (
	"net/netip"
	"slices"
	"time"

	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// placementErrors are how an API words what is wrong with subnets and security
// groups.
type placementErrors struct {
	notFound, invalid, conflict, group func(format string, args ...any) error
}

// place finds the subnets that a load balancer is to have: of one VPC, one in
// each zone.
func (c *Cloud) place(ids []string, internet bool, wrong placementErrors) ([]*subnet, error) {
	var found []*subnet
	for _, id := range ids {
		s, ok := c.subnets.get(id)
		if !ok {
			return nil, wrong.notFound("The subnet ID '%s' does not exist", id)
		}
		if slices.ContainsFunc(found, func(o *subnet) bool { return o.VPC != s.VPC }) {
			return nil, wrong.conflict("All subnets must belong to the same VPC: '%s'", found[0].VPC)
		}
		if slices.ContainsFunc(found, func(o *subnet) bool { return o.Zone == s.Zone }) {
			return nil, wrong.conflict("A load balancer cannot be attached to multiple subnets in the same Availability Zone")
		}
		if c.zones[s.Zone].kind != AvailabilityZone {
			return nil, wrong.invalid("Subnet '%s' is in zone %s, where this type of load balancer is not supported", s.ID, s.Zone)
		}
		found = append(found, s)
	}
	if v, _ := c.vpcs.get(found[0].VPC); internet && v.NoInternet {
		return nil, wrong.invalid("VPC %s has no internet gateway", v.ID)
	}
	return found, nil
}

// spacious says whether a load balancer may come to subnets: it wants to grow
// there.
func spacious(subnets []*subnet, wrong placementErrors) error {
	for _, s := range subnets {
		if s.free < 8 {
			return wrong.invalid("Not enough IP space available in %s. ELB requires at least 8 free IP addresses in each subnet.", s.ID)
		}
	}
	return nil
}

// shield checks the security groups that a load balancer is to have.
func (c *Cloud) shield(ids []string, vpc string, wrong placementErrors) error {
	if len(ids) > c.limits.SecurityGroupsPerInterface {
		return wrong.conflict("The number of security groups exceeds the maximum of %d", c.limits.SecurityGroupsPerInterface)
	}
	for i, id := range ids {
		g, ok := c.knownGroup(id)
		if !ok {
			return wrong.group("The security group '%s' does not exist", id)
		}
		if g.vpc != vpc {
			return wrong.group("The security group '%s' does not belong to VPC '%s'", id, vpc)
		}
		if slices.Contains(ids[:i], id) {
			return wrong.conflict("The security group '%s' was specified more than once", id)
		}
	}
	return nil
}

// running says whether an instance can be registered.
func running(i *instance) bool { return i.State == ec2types.InstanceStateNameRunning }

// leftover is what a deleted load balancer still has in use for a while.
type leftover struct {
	until     time.Time
	groups    []string
	addresses []string
}

// leave keeps what a deleted load balancer used.
func (c *Cloud) leave(groups, addresses []string) {
	c.leftovers = append(c.leftovers, leftover{until: c.now().Add(c.options.Delays.Interfaces), groups: groups, addresses: addresses})
	c.settle()
}

// settle lets happen what is due by now.
func (c *Cloud) settle() {
	now := c.now()
	c.leftovers = slices.DeleteFunc(c.leftovers, func(l leftover) bool {
		if now.Before(l.until) {
			return false
		}
		for _, id := range l.addresses {
			if a, ok := c.addresses.get(id); ok {
				a.by = ""
			}
		}
		return true
	})
	for _, g := range c.targetGroups.all() {
		g.settle(now)
	}
}

// groupInUse says what still uses a security group, other than itself.
func (c *Cloud) groupInUse(id string) string {
	for _, lb := range c.classics.all() {
		if slices.Contains(lb.groups, id) {
			return "load balancer " + lb.name
		}
	}
	for _, lb := range c.networks.all() {
		if slices.Contains(lb.groups, id) {
			return "load balancer " + lb.name
		}
	}
	for _, l := range c.leftovers {
		if slices.Contains(l.groups, id) {
			return "a network interface"
		}
	}
	for _, i := range c.instances.all() {
		has := slices.ContainsFunc(i.interfaces, func(n Interface) bool { return slices.Contains(n.Groups, id) })
		if has && i.State != ec2types.InstanceStateNameTerminated {
			return "instance " + i.ID
		}
	}
	for _, g := range c.groups.all() {
		if g.id != id && slices.ContainsFunc(g.rules, func(r *rule) bool { return r.source == id }) {
			return "a rule of " + g.id
		}
	}
	return ""
}

// within says whether an address is in one of the prefixes.
func within(a netip.Addr, prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
