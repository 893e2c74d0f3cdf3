// Package model has all that AWS holds for one Service as a value: Build says
// what there should be, and Plan which steps lead there from what there is.
// It is pure: it calls nobody.
package model

import (
	"maps"
	"slices"
	"strings"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// State is all that AWS holds for a Service, desired or observed. The zero
// State is nothing.
type State struct {
	NLB *NLB
	CLB *CLB
	// TargetGroups of the NLB.
	TargetGroups []TargetGroup
	// Group is the security group that Herald makes for the load balancer.
	Group *Group
	// NodeRules let the load balancer in to the nodes.
	NodeRules []NodeRule
}

// Empty says that nothing is left.
func (s *State) Empty() bool {
	return s.NLB == nil && s.CLB == nil && len(s.TargetGroups) == 0 && s.Group == nil &&
		!slices.ContainsFunc(s.NodeRules, func(rule NodeRule) bool { return !rule.Shared })
}

// TargetGroup returns the target group of a name, or nil.
func (s *State) TargetGroup(name string) *TargetGroup {
	i := slices.IndexFunc(s.TargetGroups, func(group TargetGroup) bool { return group.Name == name })
	if i < 0 {
		return nil
	}
	return &s.TargetGroups[i]
}

// OwnGroup stands for the security group that Herald makes for the Service,
// wherever an ID of a group stands: its own is known only once it is there.
const OwnGroup = "own"

// NLB is a Network Load Balancer.
type NLB struct {
	Name      string
	Internal  bool
	DualStack bool
	// SourceNAT says that it sends UDP by prefixes of its subnets, as one with
	// DualStack must.
	SourceNAT bool
	// Mappings by subnet ID.
	Mappings []Mapping
	// Clashing are subnets whose zone has another one so far, which has to go first.
	Clashing []string
	// Groups are IDs of security groups; one made without can never have any.
	Groups     []string
	Attributes map[string]string
	Tags       map[string]string
	// Listeners by port.
	Listeners []Listener
}

// Mapping is a subnet of an NLB with the addresses there that were asked for.
type Mapping struct {
	Subnet      string
	Allocation  string
	PrivateIPv4 string
	IPv6        string
}

// Listener is a listener of an NLB.
type Listener struct {
	Port        int32
	Protocol    settings.Protocol
	TargetGroup string
	// Certificates of TLS: the first is the default.
	Certificates []string
	TLSPolicy    string
	ALPN         string
	Attributes   map[string]string
	Tags         map[string]string
}

// TargetGroup is where a listener sends to.
type TargetGroup struct {
	Name     string
	Protocol settings.Protocol
	// Port is a formality: each target has its own.
	Port int32
	// IPs says that targets are addresses, not instances.
	IPs        bool
	IPv6       bool
	Health     settings.Health
	Attributes map[string]string
	Tags       map[string]string
	Targets    []Target
}

// Target is an instance or an address with the port to send to.
type Target struct {
	ID   string
	Port int32
	// Zone is "all" for an address outside the VPC.
	Zone string
}

// Group is a security group.
type Group struct {
	Name        string
	Description string
	Tags        map[string]string
	Rules       []Rule
}

// Rule lets something in to a security group. EC2 knows a rule by all but its
// description.
type Rule struct {
	// Protocol is tcp, udp, icmp, icmpv6, or -1 for all.
	Protocol string
	From, To int32
	// Source is a prefix, or the ID of a security group or a prefix list.
	Source      string
	Description string
}

func (r Rule) key() Rule {
	r.Description = ""
	return r
}

// NodeRule is a rule in a security group of nodes.
type NodeRule struct {
	// Group is the ID of the nodes' security group.
	Group string
	Rule  Rule
	// Shared says that other load balancers need the rule as well.
	Shared bool
}

// CLB is a Classic Load Balancer.
type CLB struct {
	Name     string
	Internal bool
	Subnets  []string
	// Clashing are subnets whose zone has another one so far, which has to go first.
	Clashing   []string
	Groups     []string
	Listeners  []ClassicListener
	Health     settings.Health
	Attributes ClassicAttributes
	// ProxyPorts are the ports of the nodes that are spoken to by PROXY protocol.
	ProxyPorts []int32
	// Policies that Herald made on it.
	Policies  []string
	Instances []string
	Tags      map[string]string
}

// ClassicListener is a listener of a CLB.
type ClassicListener struct {
	Port             int32
	Protocol         settings.Protocol
	InstancePort     int32
	InstanceProtocol settings.Protocol
	Certificate      string
	// TLSPolicy is the predefined policy that the listener refers to.
	TLSPolicy string
}

// ClassicAttributes are the attributes of a CLB; what is off has no details.
type ClassicAttributes struct {
	CrossZone bool
	// DrainSeconds is zero for no draining.
	DrainSeconds int32
	IdleSeconds  int32
	// LogBucket is empty for no access log.
	LogBucket, LogPrefix string
	LogMinutes           int32
}

// DefaultTLSPolicy is that of a listener for which none is asked for, the
// default of AWS's API.
const DefaultTLSPolicy = "ELBSecurityPolicy-2016-08"

// Names of policies on a CLB, as the in-tree provider makes them.
const (
	tlsPolicyPrefix = "k8s-SSLNegotiationPolicy-"
	// ProxyPolicy speaks PROXY protocol.
	ProxyPolicy = "k8s-proxyprotocol-enabled"
)

// TLSPolicyName is the name on a CLB of the policy that refers to a predefined
// one. AWS itself puts the default one there.
func TLSPolicyName(predefined string) string {
	if predefined == DefaultTLSPolicy {
		return predefined
	}
	return tlsPolicyPrefix + predefined
}

// Predefined is the policy that one on a CLB refers to; ok says that it is
// one for TLS.
func Predefined(name string) (predefined string, ok bool) {
	if rest, ours := strings.CutPrefix(name, tlsPolicyPrefix); ours {
		return rest, true
	}
	return name, strings.HasPrefix(name, "ELBSecurityPolicy-")
}

// OwnPolicy says whether a policy on a CLB is one that Herald makes.
func OwnPolicy(name string) bool {
	return name == ProxyPolicy || strings.HasPrefix(name, tlsPolicyPrefix)
}

// Piece is one thing that AWS holds; what AWS calls it is learnt when it is
// made or seen.
type Piece struct {
	Kind PieceKind
	// Name of it; of a listener, its port.
	Name string
}

func (p Piece) String() string { return string(p.Kind) + " " + p.Name }

// PieceKind is the kind of a Piece.
type PieceKind string

// The kinds of pieces.
const (
	PieceNLB         PieceKind = "nlb"
	PieceCLB         PieceKind = "clb"
	PieceTargetGroup PieceKind = "target-group"
	PieceListener    PieceKind = "listener"
	PieceGroup       PieceKind = "group"
)

// merged is the union of maps; the later counts.
func merged(all ...map[string]string) map[string]string {
	union := map[string]string{}
	for _, one := range all {
		maps.Copy(union, one)
	}
	return union
}

// Heed leaves out of what is observed the attributes that nobody asks for:
// somebody else may have set them.
func Heed(desired, observed *State) {
	if desired.NLB != nil && observed.NLB != nil {
		observed.NLB.Attributes = only(observed.NLB.Attributes, desired.NLB.Attributes)
		for i := range observed.NLB.Listeners {
			l := &observed.NLB.Listeners[i]
			at := slices.IndexFunc(desired.NLB.Listeners, func(d Listener) bool { return d.Port == l.Port })
			if at >= 0 {
				l.Attributes = only(l.Attributes, desired.NLB.Listeners[at].Attributes)
			}
		}
	}
	for i := range observed.TargetGroups {
		if group := desired.TargetGroup(observed.TargetGroups[i].Name); group != nil {
			observed.TargetGroups[i].Attributes = only(observed.TargetGroups[i].Attributes, group.Attributes)
		}
	}
}

// only is the part of a map with the keys of another.
func only(all, keys map[string]string) map[string]string {
	part := map[string]string{}
	for key, value := range all {
		if _, ok := keys[key]; ok {
			part[key] = value
		}
	}
	return part
}

// Clone is a copy of which everything can change that Heed and callers change:
// attributes, targets, instances and rules.
func (s *State) Clone() State {
	c := *s
	if s.NLB != nil {
		nlb := *s.NLB
		nlb.Listeners = slices.Clone(nlb.Listeners)
		c.NLB = &nlb
	}
	if s.CLB != nil {
		clb := *s.CLB
		clb.Instances = slices.Clone(clb.Instances)
		c.CLB = &clb
	}
	c.TargetGroups = slices.Clone(s.TargetGroups)
	for i := range c.TargetGroups {
		c.TargetGroups[i].Targets = slices.Clone(c.TargetGroups[i].Targets)
	}
	c.NodeRules = slices.Clone(s.NodeRules)
	return c
}
