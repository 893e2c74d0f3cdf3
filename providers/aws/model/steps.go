package model

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// Step is one call to AWS, as data.
type Step interface{ fmt.Stringer }

// The steps. What they name is as in the State they come from.
type (
	// Tag sets tags on a piece.
	Tag struct {
		Piece Piece
		Tags  map[string]string
	}
	// Untag removes tags from a piece.
	Untag struct {
		Piece Piece
		Keys  []string
	}

	// CreateGroup makes the security group of the load balancer, without rules.
	CreateGroup struct{ Group *Group }
	// DeleteGroup removes it.
	DeleteGroup struct{ Name string }
	// Authorize adds rules to a security group: OwnGroup or an ID.
	Authorize struct {
		Group string
		Rules []Rule
	}
	// Revoke removes rules from a security group.
	Revoke struct {
		Group string
		Rules []Rule
	}

	// CreateTargetGroup makes a target group without targets.
	CreateTargetGroup struct{ TargetGroup *TargetGroup }
	// DeleteTargetGroup removes it.
	DeleteTargetGroup struct{ Name string }
	// SetHealth changes the health check of a target group.
	SetHealth struct {
		TargetGroup string
		Protocol    settings.Protocol
		Health      settings.Health
	}
	// SetTargetGroupAttributes changes attributes of a target group.
	SetTargetGroupAttributes struct {
		TargetGroup string
		Attributes  map[string]string
	}
	// Register adds targets.
	Register struct {
		TargetGroup string
		Targets     []Target
	}
	// Deregister removes targets.
	Deregister struct {
		TargetGroup string
		Targets     []Target
	}

	// CreateNLB makes a Network Load Balancer without listeners.
	CreateNLB struct{ NLB *NLB }
	// DeleteNLB removes it with its listeners; Why says what forces it when
	// another one is to follow.
	DeleteNLB struct{ Name, Why string }
	// SetNLBAttributes changes attributes of an NLB.
	SetNLBAttributes struct {
		Name       string
		Attributes map[string]string
	}
	// SetMappings says in which subnets an NLB is, and its address families.
	SetMappings struct {
		Name                 string
		Mappings             []Mapping
		DualStack, SourceNAT bool
	}
	// SetGroups says in which security groups an NLB is.
	SetGroups struct {
		Name   string
		Groups []string
	}
	// SetDualStack changes the address families of an NLB.
	SetDualStack struct {
		Name      string
		DualStack bool
	}
	// CreateListener makes a listener of an NLB.
	CreateListener struct {
		NLB      string
		Listener *Listener
	}
	// ModifyListener changes target group, default certificate, policy and ALPN,
	// and the protocol when that was another one.
	ModifyListener struct {
		Listener *Listener
		Was      settings.Protocol
	}
	// DeleteListener removes a listener.
	DeleteListener struct{ Port int32 }
	// SetListenerAttributes changes attributes of a listener.
	SetListenerAttributes struct {
		Port       int32
		Attributes map[string]string
	}
	// AddCertificate adds a certificate that is found by SNI.
	AddCertificate struct {
		Port        int32
		Certificate string
	}
	// RemoveCertificate removes such a certificate.
	RemoveCertificate struct {
		Port        int32
		Certificate string
	}

	// CreateCLB makes a Classic Load Balancer with its listeners.
	CreateCLB struct{ CLB *CLB }
	// DeleteCLB removes it; Why says what forces it when another one is to follow.
	DeleteCLB struct{ Name, Why string }
	// SetCLBAttributes changes the attributes of a CLB.
	SetCLBAttributes struct {
		Name       string
		Attributes ClassicAttributes
	}
	// SetCLBHealth changes the health check of a CLB.
	SetCLBHealth struct {
		Name   string
		Health settings.Health
	}
	// CreateCLBListeners adds listeners.
	CreateCLBListeners struct {
		Name      string
		Listeners []ClassicListener
	}
	// DeleteCLBListeners removes listeners.
	DeleteCLBListeners struct {
		Name  string
		Ports []int32
	}
	// SetCLBCertificate changes the certificate of a listener.
	SetCLBCertificate struct {
		Name        string
		Port        int32
		Certificate string
	}
	// CreateCLBPolicy makes a policy that is not yet in force.
	CreateCLBPolicy struct{ Name, Policy string }
	// DeleteCLBPolicy removes one that is no longer in force.
	DeleteCLBPolicy struct{ Name, Policy string }
	// SetCLBTLSPolicy puts a policy in force for a listener.
	SetCLBTLSPolicy struct {
		Name   string
		Port   int32
		Policy string
	}
	// SetCLBProxy turns PROXY protocol to a port of the nodes on or off.
	SetCLBProxy struct {
		Name string
		Port int32
		On   bool
	}
	// AttachSubnets adds subnets to a CLB.
	AttachSubnets struct {
		Name    string
		Subnets []string
	}
	// DetachSubnets removes subnets from a CLB.
	DetachSubnets struct {
		Name    string
		Subnets []string
	}
	// SetCLBGroups says in which security groups a CLB is.
	SetCLBGroups struct {
		Name   string
		Groups []string
	}
	// RegisterInstances adds instances to a CLB.
	RegisterInstances struct {
		Name      string
		Instances []string
	}
	// DeregisterInstances removes instances from a CLB.
	DeregisterInstances struct {
		Name      string
		Instances []string
	}
)

func (s Tag) String() string   { return fmt.Sprintf("tag %s %s", s.Piece, equalities(s.Tags)) }
func (s Untag) String() string { return fmt.Sprintf("untag %s %s", s.Piece, words(s.Keys)) }

func (s CreateGroup) String() string { return fmt.Sprintf("create group %s", s.Group.Name) }
func (s DeleteGroup) String() string { return "delete group " + s.Name }
func (s Authorize) String() string   { return fmt.Sprintf("authorize %s: %s", s.Group, rules(s.Rules)) }
func (s Revoke) String() string      { return fmt.Sprintf("revoke %s: %s", s.Group, rules(s.Rules)) }

func (s CreateTargetGroup) String() string {
	g := s.TargetGroup
	kind := "instances"
	if g.IPs {
		kind = "addresses"
	}
	if g.IPv6 {
		kind += " by IPv6"
	}
	return fmt.Sprintf("create target-group %s %s to %s, health %s", g.Name, g.Protocol, kind, health(g.Health))
}
func (s DeleteTargetGroup) String() string { return "delete target-group " + s.Name }
func (s SetHealth) String() string {
	return fmt.Sprintf("set health of %s: %s", s.TargetGroup, health(s.Health))
}
func (s SetTargetGroupAttributes) String() string {
	return fmt.Sprintf("set attributes of %s: %s", s.TargetGroup, equalities(s.Attributes))
}
func (s Register) String() string {
	return fmt.Sprintf("register with %s: %s", s.TargetGroup, targets(s.Targets))
}
func (s Deregister) String() string {
	return fmt.Sprintf("deregister from %s: %s", s.TargetGroup, targets(s.Targets))
}

func (s CreateNLB) String() string {
	scheme := "internet-facing"
	if s.NLB.Internal {
		scheme = "internal"
	}
	return fmt.Sprintf("create nlb %s %s %s in %s, groups %s", s.NLB.Name, scheme, families(s.NLB.DualStack, s.NLB.SourceNAT), mappings(s.NLB.Mappings), words(s.NLB.Groups))
}
func (s DeleteNLB) String() string { return "delete nlb " + s.Name + because(s.Why) }
func (s SetNLBAttributes) String() string {
	return fmt.Sprintf("set attributes of %s: %s", s.Name, equalities(s.Attributes))
}
func (s SetMappings) String() string {
	return fmt.Sprintf("set subnets of %s: %s, %s", s.Name, mappings(s.Mappings), families(s.DualStack, s.SourceNAT))
}
func (s SetGroups) String() string {
	return fmt.Sprintf("set groups of %s: %s", s.Name, words(s.Groups))
}
func (s SetDualStack) String() string {
	return fmt.Sprintf("set dualstack of %s: %t", s.Name, s.DualStack)
}
func (s CreateListener) String() string {
	return fmt.Sprintf("create listener %s", s.Listener)
}
func (s ModifyListener) String() string {
	text := fmt.Sprintf("modify listener %s", s.Listener)
	if s.Was != s.Listener.Protocol {
		text += fmt.Sprintf(", which was %s", s.Was)
	}
	return text
}
func (s DeleteListener) String() string { return fmt.Sprintf("delete listener %d", s.Port) }
func (s SetListenerAttributes) String() string {
	return fmt.Sprintf("set attributes of listener %d: %s", s.Port, equalities(s.Attributes))
}
func (s AddCertificate) String() string {
	return fmt.Sprintf("add certificate to listener %d: %s", s.Port, s.Certificate)
}
func (s RemoveCertificate) String() string {
	return fmt.Sprintf("remove certificate from listener %d: %s", s.Port, s.Certificate)
}

func (l *Listener) String() string {
	text := fmt.Sprintf("%d %s -> %s", l.Port, l.Protocol, l.TargetGroup)
	if len(l.Certificates) > 0 {
		text += fmt.Sprintf(" (%s, %s, ALPN %s)", l.Certificates[0], l.TLSPolicy, l.ALPN)
	}
	return text
}

func (s CreateCLB) String() string {
	scheme := "internet-facing"
	if s.CLB.Internal {
		scheme = "internal"
	}
	return fmt.Sprintf("create clb %s %s in %s, groups %s, listeners %s", s.CLB.Name, scheme, words(s.CLB.Subnets), words(s.CLB.Groups), classicListeners(s.CLB.Listeners))
}
func (s DeleteCLB) String() string { return "delete clb " + s.Name + because(s.Why) }
func (s SetCLBAttributes) String() string {
	a := s.Attributes
	log := "off"
	if a.LogBucket != "" {
		log = fmt.Sprintf("to %s/%s every %d min", a.LogBucket, a.LogPrefix, a.LogMinutes)
	}
	return fmt.Sprintf("set attributes of %s: cross-zone %t, drain %d s, idle %d s, log %s", s.Name, a.CrossZone, a.DrainSeconds, a.IdleSeconds, log)
}
func (s SetCLBHealth) String() string {
	return fmt.Sprintf("set health of %s: %s", s.Name, health(s.Health))
}
func (s CreateCLBListeners) String() string {
	return fmt.Sprintf("create listeners of %s: %s", s.Name, classicListeners(s.Listeners))
}
func (s DeleteCLBListeners) String() string {
	return fmt.Sprintf("delete listeners of %s: %s", s.Name, words(s.Ports))
}
func (s SetCLBCertificate) String() string {
	return fmt.Sprintf("set certificate of %s:%d: %s", s.Name, s.Port, s.Certificate)
}
func (s CreateCLBPolicy) String() string {
	return fmt.Sprintf("create policy of %s: %s", s.Name, s.Policy)
}
func (s DeleteCLBPolicy) String() string {
	return fmt.Sprintf("delete policy of %s: %s", s.Name, s.Policy)
}
func (s SetCLBTLSPolicy) String() string {
	return fmt.Sprintf("set policy of %s:%d: %s", s.Name, s.Port, s.Policy)
}
func (s SetCLBProxy) String() string {
	return fmt.Sprintf("set PROXY protocol of %s to port %d: %t", s.Name, s.Port, s.On)
}
func (s AttachSubnets) String() string {
	return fmt.Sprintf("attach subnets to %s: %s", s.Name, words(s.Subnets))
}
func (s DetachSubnets) String() string {
	return fmt.Sprintf("detach subnets from %s: %s", s.Name, words(s.Subnets))
}
func (s SetCLBGroups) String() string {
	return fmt.Sprintf("set groups of %s: %s", s.Name, words(s.Groups))
}
func (s RegisterInstances) String() string {
	return fmt.Sprintf("register with %s: %s", s.Name, words(s.Instances))
}
func (s DeregisterInstances) String() string {
	return fmt.Sprintf("deregister from %s: %s", s.Name, words(s.Instances))
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " to make it anew: " + why
}

func words[T any](all []T) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Trim(fmt.Sprint(all), "[]")
}

func equalities(all map[string]string) string {
	var items []string
	for _, key := range slices.Sorted(maps.Keys(all)) {
		items = append(items, key+"="+all[key])
	}
	return strings.Join(items, " ")
}

func rules(all []Rule) string {
	items := make([]string, len(all))
	for i, rule := range all {
		items[i] = rule.String()
	}
	return strings.Join(items, ", ")
}

func (r Rule) String() string {
	var text string
	switch {
	case r.Protocol == "-1":
		text = "all"
	case r.From == r.To:
		text = fmt.Sprintf("%s %d", r.Protocol, r.From)
	default:
		text = fmt.Sprintf("%s %d/%d", r.Protocol, r.From, r.To)
	}
	text += " from " + r.Source
	if r.Description != "" {
		text += fmt.Sprintf(" (%s)", r.Description)
	}
	return text
}

func targets(all []Target) string {
	items := make([]string, len(all))
	for i, target := range all {
		items[i] = fmt.Sprintf("%s:%d", target.ID, target.Port)
		if target.Zone != "" {
			items[i] += "@" + target.Zone
		}
	}
	return strings.Join(items, " ")
}

func families(dualStack, sourceNAT bool) string {
	switch {
	case sourceNAT:
		return "dualstack with source NAT"
	case dualStack:
		return "dualstack"
	}
	return "ipv4"
}

func mappings(all []Mapping) string {
	items := make([]string, len(all))
	for i, m := range all {
		items[i] = m.Subnet
		for _, address := range []string{m.Allocation, m.PrivateIPv4, m.IPv6} {
			if address != "" {
				items[i] += "=" + address
			}
		}
	}
	return words(items)
}

func health(h settings.Health) string {
	port := "traffic-port"
	if h.Port > 0 {
		port = fmt.Sprint(h.Port)
	}
	text := fmt.Sprintf("%s:%s%s every %s within %s, %d/%d", h.Protocol, port, h.Path, h.Interval, h.Timeout, h.Healthy, h.Unhealthy)
	if h.Codes != "" {
		text += ", " + h.Codes
	}
	return text
}

func classicListeners(all []ClassicListener) string {
	items := make([]string, len(all))
	for i, l := range all {
		items[i] = fmt.Sprintf("%d %s -> %d %s", l.Port, l.Protocol, l.InstancePort, l.InstanceProtocol)
		if l.Certificate != "" {
			items[i] += " (" + l.Certificate + ")"
		}
	}
	return strings.Join(items, ", ")
}
