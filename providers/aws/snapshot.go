package aws

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"github.com/heraldlb/herald/providers/aws/model"
)

// snapshotAge is how old what all Services share may be when something is to
// be done by it.
const snapshotAge = 10 * time.Minute

// turn is had by one at a time, who may keep it over calls to AWS: who waits
// for it can give up, and who needs no call does not wait.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

func (t turn) take(ctx context.Context) (done func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// snapshot is something read from AWS that all Services share.
type snapshot[T any] struct {
	read func(ctx context.Context) (T, error)
	// reading is the turn of who reads it.
	reading turn

	mu    sync.Mutex
	value T
	taken time.Time
}

func newSnapshot[T any](read func(ctx context.Context) (T, error)) *snapshot[T] {
	return &snapshot[T]{read: read, reading: newTurn()}
}

// get returns what was read after a time, reading it now if need be. Who comes
// meanwhile and needs that waits for it.
func (s *snapshot[T]) get(ctx context.Context, after time.Time) (T, error) {
	if value, ok := s.known(after); ok {
		return value, nil
	}
	var none T
	done, err := s.reading.take(ctx)
	if err != nil {
		return none, err
	}
	defer done()
	if value, ok := s.known(after); ok {
		return value, nil
	}
	begun := time.Now()
	value, err := s.read(ctx)
	if err != nil {
		return none, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.taken = value, begun
	return value, nil
}

// known returns what was read last, if that was after a time.
func (s *snapshot[T]) known(after time.Time) (value T, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.value, s.taken.After(after)
}

// roomNeeded is how many addresses ELB wants free in a subnet.
const roomNeeded = 8

// readNetwork reads the subnets of the VPC.
func (p *Provider) readNetwork(ctx context.Context) (model.Network, error) {
	inVPC := []ec2types.Filter{{Name: awssdk.String("vpc-id"), Values: []string{p.VPCID}}}
	subnets, err := collect(func(token *string) ([]ec2types.Subnet, *string, error) {
		out, err := call(ctx, p, p.EC2.DescribeSubnets, &ec2.DescribeSubnetsInput{Filters: inVPC, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.Subnets, out.NextToken, nil
	})
	if err != nil {
		return model.Network{}, err
	}
	tables, err := collect(func(token *string) ([]ec2types.RouteTable, *string, error) {
		out, err := call(ctx, p, p.EC2.DescribeRouteTables, &ec2.DescribeRouteTablesInput{Filters: inVPC, NextToken: token})
		if err != nil {
			return nil, nil, err
		}
		return out.RouteTables, out.NextToken, nil
	})
	if err != nil {
		return model.Network{}, err
	}
	zones, err := call(ctx, p, p.EC2.DescribeAvailabilityZones, &ec2.DescribeAvailabilityZonesInput{})
	if err != nil {
		return model.Network{}, err
	}
	usual := map[string]bool{}
	for _, zone := range zones.AvailabilityZones {
		usual[awssdk.ToString(zone.ZoneName)] = awssdk.ToString(zone.ZoneType) == "availability-zone"
	}
	public := publicSubnets(tables)
	network := model.Network{}
	for i := range subnets {
		subnet := p.subnet(&subnets[i])
		// On an Outpost and with IPv6 alone there are no such load balancers either.
		subnet.Local = !usual[subnet.Zone] || subnets[i].OutpostArn != nil || awssdk.ToBool(subnets[i].Ipv6Native)
		subnet.Full = subnets[i].AvailableIpAddressCount != nil && *subnets[i].AvailableIpAddressCount < roomNeeded
		subnet.Public = public(subnet.ID)
		network.Subnets = append(network.Subnets, subnet)
	}
	return network, nil
}

func (p *Provider) subnet(in *ec2types.Subnet) model.Subnet {
	subnet := model.Subnet{ID: awssdk.ToString(in.SubnetId), Zone: awssdk.ToString(in.AvailabilityZone)}
	if prefix, err := netip.ParsePrefix(awssdk.ToString(in.CidrBlock)); err == nil {
		subnet.Prefixes = append(subnet.Prefixes, prefix)
	}
	for _, association := range in.Ipv6CidrBlockAssociationSet {
		state := association.Ipv6CidrBlockState
		if state != nil && state.State != ec2types.SubnetCidrBlockStateCodeAssociated {
			continue
		}
		if prefix, err := netip.ParsePrefix(awssdk.ToString(association.Ipv6CidrBlock)); err == nil {
			subnet.Prefixes = append(subnet.Prefixes, prefix)
		}
	}
	for _, tag := range in.Tags {
		switch key := awssdk.ToString(tag.Key); {
		case key == "Name":
			subnet.Name = awssdk.ToString(tag.Value)
		case key == model.RolePublicTag:
			subnet.RolePublic = true
		case key == model.RoleInternalTag:
			subnet.RoleInternal = true
		case key == model.ClusterTag(p.ClusterName):
			subnet.Ours = true
		case model.IsClusterTag(key):
			subnet.Others = true
		}
	}
	return subnet
}

// publicSubnets says which subnets have a route to an internet gateway: by
// their own table, else by the main one.
func publicSubnets(tables []ec2types.RouteTable) func(subnet string) bool {
	var main bool
	own := map[string]bool{}
	for _, table := range tables {
		public := slices.ContainsFunc(table.Routes, func(route ec2types.Route) bool {
			return strings.HasPrefix(awssdk.ToString(route.GatewayId), "igw-")
		})
		for _, association := range table.Associations {
			if awssdk.ToBool(association.Main) {
				main = public
			}
			if association.SubnetId != nil {
				own[*association.SubnetId] = public
			}
		}
	}
	return func(subnet string) bool {
		if public, ok := own[subnet]; ok {
			return public
		}
		return main
	}
}

// readPrefixes reads the prefixes of the VPC.
func (p *Provider) readPrefixes(ctx context.Context) ([]netip.Prefix, error) {
	out, err := call(ctx, p, p.EC2.DescribeVpcs, &ec2.DescribeVpcsInput{VpcIds: []string{p.VPCID}})
	if err != nil {
		return nil, err
	}
	var prefixes []netip.Prefix
	add := func(text *string) {
		if prefix, err := netip.ParsePrefix(awssdk.ToString(text)); err == nil {
			prefixes = append(prefixes, prefix)
		}
	}
	for _, vpc := range out.Vpcs {
		for _, association := range vpc.CidrBlockAssociationSet {
			add(association.CidrBlock)
		}
		for _, association := range vpc.Ipv6CidrBlockAssociationSet {
			add(association.Ipv6CidrBlock)
		}
	}
	return prefixes, nil
}

// securityGroups reads those of the VPC that pass the filter.
func (p *Provider) securityGroups(ctx context.Context, filter string, values ...string) ([]ec2types.SecurityGroup, error) {
	var all []ec2types.SecurityGroup
	for some := range slices.Chunk(values, filterLimit) {
		filters := []ec2types.Filter{
			{Name: awssdk.String("vpc-id"), Values: []string{p.VPCID}},
			{Name: awssdk.String(filter), Values: some},
		}
		groups, err := collect(func(token *string) ([]ec2types.SecurityGroup, *string, error) {
			out, err := call(ctx, p, p.EC2.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{Filters: filters, NextToken: token})
			if err != nil {
				return nil, nil, err
			}
			return out.SecurityGroups, out.NextToken, nil
		})
		if err != nil {
			return nil, err
		}
		all = append(all, groups...)
	}
	return all, nil
}

// filterLimit is how many values a filter of EC2 takes.
const filterLimit = 200

// readClusterGroups reads the security groups with the cluster's tag.
func (p *Provider) readClusterGroups(ctx context.Context) ([]ec2types.SecurityGroup, error) {
	return p.securityGroups(ctx, "tag-key", model.ClusterTag(p.ClusterName))
}

// groupIDs finds security groups by their Name tags.
type groupIDs struct {
	// asking is the turn of who asks for names.
	asking turn

	mu    sync.Mutex
	byTag map[string]named
	// absent are IDs that EC2 does not know, and when it said so.
	absent map[string]time.Time
}

type named struct {
	id    string
	found time.Time
}

func newGroupIDs() *groupIDs {
	return &groupIDs{asking: newTurn(), byTag: map[string]named{}, absent: map[string]time.Time{}}
}

// find returns the IDs of those that are there. What was found since a time is
// not looked for again.
func (g *groupIDs) find(ctx context.Context, p *Provider, names []string, since time.Time) (map[string]string, error) {
	names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return strings.HasPrefix(name, "sg-") })
	ids, missing := g.known(names, since)
	if len(missing) == 0 {
		return ids, nil
	}
	done, err := g.asking.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if ids, missing = g.known(names, since); len(missing) == 0 {
		return ids, nil
	}
	groups, err := p.securityGroups(ctx, "tag:Name", missing...)
	if err != nil {
		return nil, err
	}
	g.learn(missing, groups)
	ids, _ = g.known(names, time.Time{})
	return ids, nil
}

// known returns the IDs that are known since a time, and the names of the
// others.
func (g *groupIDs) known(names []string, since time.Time) (ids map[string]string, missing []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	ids = map[string]string{}
	for _, name := range names {
		known, ok := g.byTag[name]
		if !ok || known.found.Before(since) {
			missing = append(missing, name)
			continue
		}
		ids[name] = known.id
	}
	return ids, missing
}

// learn remembers what EC2 says of names.
func (g *groupIDs) learn(names []string, groups []ec2types.SecurityGroup) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, name := range names {
		delete(g.byTag, name)
	}
	for i := range groups {
		if name := ec2Tags(groups[i].Tags)["Name"]; slices.Contains(names, name) {
			g.byTag[name] = named{awssdk.ToString(groups[i].GroupId), time.Now()}
		}
	}
}

// verify asks which of the groups that are named by their IDs there are. It is
// asked only when AWS complains: mostly they are.
func (g *groupIDs) verify(ctx context.Context, p *Provider, names []string) error {
	ids := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return !strings.HasPrefix(name, "sg-") })
	groups, err := p.securityGroups(ctx, "group-id", ids...)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range ids {
		g.absent[id] = time.Now()
	}
	for i := range groups {
		delete(g.absent, awssdk.ToString(groups[i].GroupId))
	}
	return nil
}

// unknown says whether EC2 said not long ago that there is no group of an ID.
func (g *groupIDs) unknown(id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	since, absent := g.absent[id]
	if absent && time.Since(since) > snapshotAge {
		delete(g.absent, id)
		return false
	}
	return absent
}

func ec2Tags(in []ec2types.Tag) map[string]string {
	tags := map[string]string{}
	for _, tag := range in {
		tags[awssdk.ToString(tag.Key)] = awssdk.ToString(tag.Value)
	}
	return tags
}

// mayBe says whether a name is that of a group, as far as it is known.
func (g *groupIDs) mayBe(name, id string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	known, ok := g.byTag[name]
	return !ok || known.id == id
}
