package awsfake

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

// Kinds of zones.
const (
	AvailabilityZone = "availability-zone"
	LocalZone        = "local-zone"
	WavelengthZone   = "wavelength-zone"
)

// VPC is a network. Its main route table leads to the internet if MainPublic.
type VPC struct {
	ID         string
	CIDRs      []netip.Prefix // of both families; the first of IPv4 is the VPC's own
	Tags       map[string]string
	NoInternet bool // no internet gateway
	MainPublic bool
}

// Subnet is a part of a VPC in one zone. A public one has a route table of its
// own with a route to the internet gateway; another one has the VPC's main
// table.
type Subnet struct {
	ID, VPC, Zone string
	CIDR, CIDRv6  netip.Prefix
	Public        bool
	Tags          map[string]string
	// Free is how many addresses are left, by default all of them.
	Free *int
}

// Interface is a network interface of an instance. The first address of each
// family is the primary one.
type Interface struct {
	DeviceIndex int
	Subnet      string
	Addresses   []netip.Addr
	Public      netip.Addr
	Groups      []string
}

// Instance is a machine. Addresses, Public and Groups are those of its first
// interface, Interfaces are further ones. Without addresses it has one of its
// subnet. State is running if empty, and DNSName what EC2 makes of the first
// address.
type Instance struct {
	ID, Subnet             string
	State                  types.InstanceStateName
	Type                   types.InstanceType
	DNSName, PublicDNSName string
	Addresses              []netip.Addr
	Public                 netip.Addr
	Groups                 []string
	Interfaces             []Interface
	Tags                   map[string]string
}

// Address is an elastic IP address.
type Address struct {
	ID   string // eipalloc-…
	IP   netip.Addr
	Tags map[string]string
	// Taken says that something other than a load balancer uses it.
	Taken bool
}

// SecurityGroup is a security group that somebody else made.
type SecurityGroup struct {
	ID, Name, VPC, Description string
	Tags                       map[string]string
	Rules                      []Rule
}

// Rule is an inbound rule: a source is a CIDR, a prefix list or a security
// group. Protocol is tcp, udp, icmp, icmpv6, -1 or a number.
type Rule struct {
	Protocol    string
	From, To    int
	Source      string
	Description string
}

type zone struct{ name, id, kind string }

type vpc struct {
	VPC
	defaultGroup string
	serial       int
}

type subnet struct {
	Subnet
	free   int
	serial int
}

type address struct {
	Address
	// by is the load balancer that has it.
	by string
}

type instance struct {
	Instance
	interfaces []Interface
	vpc, zone  string
	launched   time.Time
	serial     int
}

// AddZone adds a zone of a kind. Subnets add availability zones by
// themselves.
func (c *Cloud) AddZone(name, kind string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.zones[name] = &zone{name: name, id: fmt.Sprintf("az%d", len(c.zones)+1), kind: kind}
}

// AddVPC adds a network with its default security group, whose ID is
// "sg-default-" and that of the VPC.
func (c *Cloud) AddVPC(v VPC) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v.Tags = maps.Clone(v.Tags)
	v.CIDRs = slices.Clone(v.CIDRs)
	made := &vpc{VPC: v, defaultGroup: "sg-default-" + v.ID, serial: c.next()}
	c.vpcs.add(v.ID, made, made.serial, time.Time{})
	group := &securityGroup{id: made.defaultGroup, name: "default", vpc: v.ID, description: "default VPC security group", tags: tags{}}
	c.groups.add(group.id, group, c.next(), time.Time{})
}

// AddSubnet adds a subnet to a VPC that is there.
func (c *Cloud) AddSubnet(s Subnet) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.vpcs.get(s.VPC); !ok {
		panic("awsfake: subnet " + s.ID + " in unknown VPC " + s.VPC)
	}
	if _, ok := c.zones[s.Zone]; !ok {
		c.zones[s.Zone] = &zone{name: s.Zone, id: fmt.Sprintf("az%d", len(c.zones)+1), kind: AvailabilityZone}
	}
	s.Tags = maps.Clone(s.Tags)
	made := &subnet{Subnet: s, serial: c.next()}
	// EC2 keeps five addresses of each subnet.
	made.free = 1<<(32-s.CIDR.Bits()) - 5
	if s.Free != nil {
		made.free = *s.Free
	}
	c.subnets.add(s.ID, made, made.serial, time.Time{})
}

// AddInstance adds a machine to a subnet that is there.
func (c *Cloud) AddInstance(i Instance) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in, ok := c.subnets.get(i.Subnet)
	if !ok {
		panic("awsfake: instance " + i.ID + " in unknown subnet " + i.Subnet)
	}
	i.Tags = maps.Clone(i.Tags)
	i.State = or(i.State, types.InstanceStateNameRunning)
	i.Type = or(i.Type, types.InstanceTypeM5Large)
	if len(i.Addresses) == 0 {
		i.Addresses = []netip.Addr{c.freeAddress(in)}
	}
	i.DNSName = or(i.DNSName, "ip-"+strings.ReplaceAll(i.Addresses[0].String(), ".", "-")+"."+c.options.Region+".compute.internal")
	made := &instance{Instance: i, vpc: in.VPC, zone: in.Zone, launched: c.now(), serial: c.next()}
	if len(i.Groups) == 0 {
		v, _ := c.vpcs.get(in.VPC)
		i.Groups = []string{v.defaultGroup}
	}
	first := Interface{Subnet: i.Subnet, Addresses: i.Addresses, Public: i.Public, Groups: i.Groups}
	made.interfaces = append([]Interface{first}, i.Interfaces...)
	c.instances.add(i.ID, made, made.serial, time.Time{})
}

// freeAddress is the first address of a subnet that no instance has.
func (c *Cloud) freeAddress(s *subnet) netip.Addr {
	used := map[netip.Addr]bool{}
	for _, i := range c.instances.all() {
		for _, nic := range i.interfaces {
			for _, a := range nic.Addresses {
				used[a] = true
			}
		}
	}
	a := s.CIDR.Masked().Addr()
	for range 4 {
		a = a.Next()
	}
	for used[a] {
		a = a.Next()
	}
	if !s.CIDR.Contains(a.Next()) {
		panic("awsfake: subnet " + s.ID + " is full")
	}
	return a
}

// SetInstanceState starts, stops or terminates a machine. A terminated one
// leaves the load balancers.
func (c *Cloud) SetInstanceState(id string, state types.InstanceStateName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.instances.get(id)
	if !ok {
		panic("awsfake: no instance " + id)
	}
	i.State = state
	if state == types.InstanceStateNameTerminated {
		c.evict(id)
	}
}

// RemoveInstance makes EC2 forget a machine, as it does some time after its
// termination.
func (c *Cloud) RemoveInstance(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.instances.remove(id, time.Time{})
	c.evict(id)
}

// evict takes a machine out of all load balancers.
func (c *Cloud) evict(id string) {
	for _, lb := range c.classics.all() {
		lb.instances = slices.DeleteFunc(lb.instances, func(r registration) bool { return r.id == id })
	}
	for _, g := range c.targetGroups.all() {
		g.targets = slices.DeleteFunc(g.targets, func(t *target) bool { return t.id == id })
	}
}

// AddCertificate makes an ARN of ACM or IAM exist.
func (c *Cloud) AddCertificate(arn string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.certificates[arn] = true
}

// AddBucket makes an S3 bucket exist that takes access logs.
func (c *Cloud) AddBucket(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.buckets3[name] = true
}

// AddPrefixList adds a managed prefix list that counts as so many rules.
func (c *Cloud) AddPrefixList(id string, entries int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prefixLists[id] = entries
}

// AddAddress adds an elastic IP address.
func (c *Cloud) AddAddress(a Address) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a.Tags = maps.Clone(a.Tags)
	c.addresses.add(a.ID, &address{Address: a}, c.next(), time.Time{})
}

// AddSecurityGroup adds a security group with rules, as somebody else would
// have made it. String calls it by its ID.
func (c *Cloud) AddSecurityGroup(g SecurityGroup) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := &securityGroup{
		id: g.ID, name: or(g.Name, g.ID), vpc: g.VPC, description: or(g.Description, "foreign"),
		tags: tags(maps.Clone(g.Tags)), foreign: true,
	}
	if group.tags == nil {
		group.tags = tags{}
	}
	c.groups.add(g.ID, group, c.next(), time.Time{})
	for _, r := range g.Rules {
		group.rules = append(group.rules, c.foreignRule(r))
	}
}

// AddRule adds an inbound rule to a security group, as somebody else would.
func (c *Cloud) AddRule(group string, r Rule) {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.groups.get(group)
	if !ok {
		panic("awsfake: no security group " + group)
	}
	g.rules = append(g.rules, c.foreignRule(r))
}

func (c *Cloud) foreignRule(r Rule) *rule {
	made := &rule{id: c.id("sgr"), description: r.Description, tags: tags{}}
	made.protocol, made.from, made.to, made.source = r.Protocol, r.From, r.To, r.Source
	if prefix, err := netip.ParsePrefix(r.Source); err == nil {
		made.source = prefix.Masked().String()
	}
	return made
}

// SetUnhealthy makes an instance or an address fail its health checks, or pass
// them again.
func (c *Cloud) SetUnhealthy(id string, unhealthy bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unhealthy[id] = unhealthy
}
