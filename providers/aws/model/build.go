package model

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// Input is all that decides what a Service should have.
type Input struct {
	Identity Identity
	Settings settings.Settings
	Network  Network
	// Subnets are the IDs of those that may be found; empty is all of the network.
	Subnets []string
	// Instances to send to.
	Instances []string
	// NodeGroups are the security groups of the nodes.
	NodeGroups []string
	// Endpoints by port of the Service, for IP targets.
	Endpoints map[int32][]netip.AddrPort
	// GroupIDs has the ID of each security group that is named by its Name tag.
	GroupIDs map[string]string
	// Tags beside those that the Service asks for.
	Tags map[string]string
	// Observed is what there is: what can do is kept.
	Observed State
}

// maxTags is how many tags AWS takes on a piece.
const maxTags = 50

// Build says what there should be; notes are sentences for the Service's
// author.
func Build(in *Input) (desired State, notes []string, refusal *v1alpha1.Refusal) {
	b := &builder{Input: *in, tags: merged(in.Tags, in.Settings.Tags, in.Identity.Tags())}
	if len(b.tags) > maxTags {
		return State{}, nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%sadditional-resource-tags and aws.tags of the cloud config make %d tags with those of Herald: AWS takes %d",
			settings.Prefix, len(b.tags), maxTags)
	}
	if in.Settings.Kind == settings.Classic {
		desired, refusal = b.buildClassic()
	} else {
		desired, refusal = b.buildNetwork()
	}
	return desired, b.notes, refusal
}

type builder struct {
	Input
	tags  map[string]string
	notes []string
	// groupless says that the NLB was made without security groups.
	groupless bool
}

func (b *builder) buildClassic() (State, *v1alpha1.Refusal) {
	var has []string
	if clb := b.Observed.CLB; clb != nil && clb.Internal == b.Settings.Internal {
		has = clb.Subnets
	}
	subnets, refusal := chooseSubnets(&b.Input, has)
	if refusal != nil {
		return State{}, refusal
	}
	groups, refusal := b.groups()
	if refusal != nil {
		return State{}, refusal
	}
	return State{CLB: b.classic(subnets, groups), Group: b.group(groups), NodeRules: b.nodeRules(groups)}, nil
}

func (b *builder) buildNetwork() (State, *v1alpha1.Refusal) {
	var has []Mapping
	if nlb := b.Observed.NLB; nlb != nil && nlb.Internal == b.Settings.Internal && nlb.Name == b.nlbName() {
		has = nlb.Mappings
		if b.groupless = len(nlb.Groups) == 0; b.groupless {
			b.settleGroupless()
		}
	}
	ids := make([]string, len(has))
	for i := range has {
		ids[i] = has[i].Subnet
	}
	subnets, refusal := chooseSubnets(&b.Input, ids)
	if refusal != nil {
		return State{}, refusal
	}
	if refusal := b.settleFamilies(subnets); refusal != nil {
		return State{}, refusal
	}
	mappings, refusal := mapAddresses(subnets, &b.Settings, has)
	if refusal != nil {
		return State{}, refusal
	}
	groups, refusal := b.groups()
	if refusal != nil {
		return State{}, refusal
	}
	state := State{NLB: b.network(mappings, groups), Group: b.group(groups), NodeRules: b.nodeRules(groups)}
	state.NLB.Clashing = b.clashing(subnets, ids)
	if b.groupless {
		state.NodeRules = b.grouplessRules(subnets)
	}
	for i, port := range b.Settings.Ports {
		group := b.targetGroup(port)
		state.NLB.Listeners[i].TargetGroup = group.Name
		state.TargetGroups = append(state.TargetGroups, group)
	}
	slices.SortFunc(state.TargetGroups, func(a, b TargetGroup) int { return strings.Compare(a.Name, b.Name) })
	return state, nil
}

// settleFamilies has an NLB without IPv6 where a subnet has none: AWS makes it
// dualstack only in subnets that all have both.
func (b *builder) settleFamilies(subnets []Subnet) *v1alpha1.Refusal {
	if !b.Settings.DualStack {
		return nil
	}
	for _, subnet := range subnets {
		// One that is not known the load balancer is in already.
		if len(subnet.Prefixes) == 0 || slices.ContainsFunc(subnet.Prefixes, func(prefix netip.Prefix) bool { return prefix.Addr().Is6() }) {
			continue
		}
		if b.Settings.NeedsIPv6 {
			return v1alpha1.Refuse(v1alpha1.WrongFamily, "spec.ipFamilies or %sip-address-type needs IPv6, and the subnet %s has no prefix of it: give it one, or name other subnets in %ssubnets",
				settings.Prefix, subnet.ID, settings.Prefix)
		}
		b.notes = append(b.notes, fmt.Sprintf("spec.ipFamilies has IPv6, which the subnet %s does not have: the Network Load Balancer serves IPv4.", subnet.ID))
		b.Settings.DualStack = false
		return nil
	}
	return nil
}

func (b *builder) nlbName() string { return cmp.Or(b.Settings.Name, b.Identity.LoadBalancerName()) }

// settleGroupless has an NLB without security groups checked at the ports of
// the traffic: those alone are let in to the nodes.
func (b *builder) settleGroupless() {
	if b.Settings.Health.Port == settings.ProxyHealthPort {
		h := &b.Settings.Health
		h.Protocol, h.Port, h.Path, h.Codes = settings.TCP, 0, "", ""
	}
	for name, given := range map[string][]string{"security-groups": b.Settings.Groups, "extra-security-groups": b.Settings.ExtraGroups, "security-group-prefix-lists": b.Settings.PrefixLists} {
		if len(given) > 0 {
			b.notes = append(b.notes, fmt.Sprintf("%s%s says nothing: the Network Load Balancer was made without security groups and can never have any. To get them, change its %sname, which replaces it.", settings.Prefix, name, settings.Prefix))
		}
	}
	slices.Sort(b.notes)
	b.Settings.PrefixLists = nil
}

// groups are the security groups of the load balancer.
func (b *builder) groups() ([]string, *v1alpha1.Refusal) {
	if b.groupless {
		return nil, nil
	}
	var groups []string
	if len(b.Settings.Groups) == 0 {
		groups = []string{OwnGroup}
	}
	for _, given := range []struct {
		annotation string
		names      []string
	}{{"security-groups", b.Settings.Groups}, {"extra-security-groups", b.Settings.ExtraGroups}} {
		for _, name := range given.names {
			id := name
			if !strings.HasPrefix(name, "sg-") {
				id = b.GroupIDs[name]
			}
			if id == "" {
				return nil, v1alpha1.Refuse(v1alpha1.GroupNotFound, "%s%s has %q, which is neither ID nor Name tag of a security group of the VPC", settings.Prefix, given.annotation, name)
			}
			if !slices.Contains(groups, id) {
				groups = append(groups, id)
			}
		}
	}
	return groups, nil
}

// group is the security group of our own, if the load balancer is in it:
// clients come in at the listeners.
func (b *builder) group(groups []string) *Group {
	if !slices.Contains(groups, OwnGroup) {
		return nil
	}
	group := &Group{
		Name:        b.Identity.GroupName(),
		Description: fmt.Sprintf("Security group for Kubernetes ELB %s (%s/%s)", b.Identity.LoadBalancerName(), b.Identity.Namespace, b.Identity.Name),
		Tags:        b.tags,
	}
	for _, source := range b.clients() {
		for _, port := range b.Settings.Ports {
			for _, protocol := range transports(port.Listener) {
				group.Rules = append(group.Rules, Rule{Protocol: protocol, From: port.Port, To: port.Port, Source: source})
			}
		}
		// Without it a client never learns that its packets are too big.
		switch addr, err := netip.ParsePrefix(source); {
		case err != nil:
		case addr.Addr().Is4():
			group.Rules = append(group.Rules, Rule{Protocol: "icmp", From: 3, To: 4, Source: source})
		default:
			group.Rules = append(group.Rules, Rule{Protocol: "icmpv6", From: 2, To: 0, Source: source})
		}
	}
	slices.SortFunc(group.Rules, compareRules)
	return group
}

// clients are the prefixes and prefix lists that may come.
func (b *builder) clients() []string {
	var sources []string
	for _, prefix := range b.Settings.SourceRanges {
		if text := prefix.String(); !slices.Contains(sources, text) {
			sources = append(sources, text)
		}
	}
	sources = append(sources, b.Settings.PrefixLists...)
	if len(b.Settings.SourceRanges) > 0 || len(b.Settings.PrefixLists) > 0 {
		return sources
	}
	sources = []string{"0.0.0.0/0"}
	if b.Settings.DualStack {
		sources = append(sources, "::/0")
	}
	return sources
}

func transports(protocol settings.Protocol) []string {
	switch protocol {
	case settings.UDP:
		return []string{"udp"}
	case settings.TCPUDP:
		return []string{"tcp", "udp"}
	}
	return []string{"tcp"}
}

// nodeRules let the load balancer in to the nodes, for traffic and health
// checks, by the first of its groups.
func (b *builder) nodeRules(groups []string) []NodeRule {
	if len(groups) == 0 || !b.Settings.ManageNodeRules {
		return nil
	}
	rule := Rule{Protocol: "-1", Source: groups[0]}
	if groups[0] != OwnGroup {
		rule.Description = SharedRuleDescription(b.Identity.Cluster)
	}
	var rules []NodeRule
	for _, group := range b.NodeGroups {
		rules = append(rules, NodeRule{Group: group, Rule: rule})
	}
	return rules
}

// SharedRuleDescription marks a rule from a security group that is not of our
// making, and that load balancers of other Services may be in as well.
func SharedRuleDescription(cluster string) string { return ClusterTag(cluster) }

// Descriptions of the rules for NLBs without security groups, as the in-tree
// provider writes them.
const (
	healthRule = "kubernetes.io/rule/nlb/health="
	clientRule = "kubernetes.io/rule/nlb/client="
	// MTURule stands on a rule that such NLBs share.
	MTURule = "kubernetes.io/rule/nlb/mtu"
)

// ClientRuleOf returns the name of the NLB whose clients the rule lets in.
func ClientRuleOf(rule Rule) (name string, ok bool) {
	return strings.CutPrefix(rule.Description, clientRule)
}

// IsGrouplessRule says whether a rule is one of the NLB of that name, which
// has no security groups.
func IsGrouplessRule(rule Rule, name string) bool {
	return rule.Description == healthRule+name || rule.Description == clientRule+name
}

// grouplessRules let in health checks, clients and what they say of the MTU,
// for an NLB without security groups.
func (b *builder) grouplessRules(subnets []Subnet) []NodeRule {
	name := b.Identity.LoadBalancerName()
	rules := map[Rule]Rule{}
	let := func(rule Rule) { rules[rule.key()] = rule }
	for _, port := range b.Settings.Ports {
		at := port.NodePort
		if b.Settings.Health.Port > 0 {
			at = b.Settings.Health.Port
		}
		if b.Settings.TargetIPs {
			continue // pods are let in by their own groups
		}
		for _, subnet := range subnets {
			for _, prefix := range subnet.Prefixes {
				if prefix.Addr().Is4() || b.Settings.DualStack {
					let(Rule{Protocol: "tcp", From: at, To: at, Source: prefix.String(), Description: healthRule + name})
				}
			}
		}
	}
	for _, source := range b.clients() {
		for _, port := range b.Settings.Ports {
			for _, protocol := range transports(port.Listener) {
				if !b.Settings.TargetIPs {
					let(Rule{Protocol: protocol, From: port.NodePort, To: port.NodePort, Source: source, Description: clientRule + name})
				}
			}
		}
		if prefix, err := netip.ParsePrefix(source); err == nil && prefix.Addr().Is4() {
			let(Rule{Protocol: "icmp", From: 3, To: 4, Source: source, Description: MTURule})
		}
	}
	var all []NodeRule
	for _, group := range b.NodeGroups {
		for _, rule := range slices.SortedFunc(maps.Values(rules), compareRules) {
			all = append(all, NodeRule{Group: group, Rule: rule})
		}
	}
	return all
}

func compareRules(a, b Rule) int {
	return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Source, b.Source))
}

func (b *builder) network(mappings []Mapping, groups []string) *NLB {
	s := &b.Settings
	nlb := &NLB{
		Name:      b.nlbName(),
		Internal:  s.Internal,
		DualStack: s.DualStack,
		SourceNAT: s.DualStack && slices.ContainsFunc(s.Ports, func(port settings.Port) bool { return port.Listener.HasUDP() }),
		Mappings:  mappings,
		Groups:    groups,
		Tags:      b.tags,
	}
	dedicated := map[string]string{
		"access_logs.s3.enabled":            strconv.FormatBool(s.AccessLog.Enabled),
		"load_balancing.cross_zone.enabled": strconv.FormatBool(s.CrossZone),
	}
	if s.AccessLog.Enabled {
		dedicated["access_logs.s3.bucket"] = s.AccessLog.Bucket
		dedicated["access_logs.s3.prefix"] = s.AccessLog.Prefix
	}
	nlb.Attributes = merged(dedicated, s.Attributes)
	for _, port := range s.Ports {
		listener := Listener{Port: port.Port, Protocol: port.Listener, Tags: b.tags}
		if port.Listener == settings.TLS {
			listener.Certificates = s.Certificates
			listener.TLSPolicy = cmp.Or(s.TLSPolicy, DefaultTLSPolicy)
			listener.ALPN = s.ALPN
		}
		if port.Listener == settings.TCP {
			idle := map[string]string{"tcp.idle_timeout.seconds": settings.ListenerAttributes["tcp.idle_timeout.seconds"]}
			if s.IdleTimeout > 0 {
				idle["tcp.idle_timeout.seconds"] = seconds(s.IdleTimeout)
			}
			listener.Attributes = merged(idle, s.ListenerAttributes[port.Port])
		}
		nlb.Listeners = append(nlb.Listeners, listener)
	}
	return nlb
}

func seconds(d time.Duration) string { return strconv.Itoa(int(d / time.Second)) }

func (b *builder) targetGroup(port settings.Port) TargetGroup {
	s := &b.Settings
	group := TargetGroup{
		Name:     b.targetGroupName(port),
		Protocol: port.Target,
		Port:     port.NodePort,
		IPs:      s.TargetIPs,
		IPv6:     s.TargetIPv6,
		Health:   s.Health,
		Tags:     b.tags,
	}
	drain := settings.TargetGroupAttributes["deregistration_delay.timeout_seconds"]
	if s.Draining.Given {
		drain = "0"
	}
	if s.Draining.Enabled {
		drain = seconds(s.Draining.Timeout)
	}
	dedicated := map[string]string{
		"deregistration_delay.timeout_seconds": drain,
		"proxy_protocol_v2.enabled":            strconv.FormatBool(s.ProxyProtocol),
		"stickiness.enabled":                   strconv.FormatBool(s.Affinity),
	}
	if s.Affinity {
		dedicated["stickiness.type"] = "source_ip"
	}
	group.Attributes = merged(dedicated, s.TargetGroupAttributes)
	if s.TargetIPs {
		group.Port, group.Targets = port.Port, b.endpoints(port.Port)
	} else {
		group.Targets = b.instances(port.NodePort)
	}
	slices.SortFunc(group.Targets, compareTargets)
	group.Targets = slices.Compact(group.Targets)
	return group
}

// Retarget gives a target group of an NLB the targets of today: the instances
// at the ports that it has, or the endpoints of the port of its listener. One
// that has neither stays as it is.
func Retarget(in *Input, group *TargetGroup, nlb *NLB) {
	b := &builder{Input: *in}
	var targets []Target
	if !group.IPs {
		ports := map[int32]bool{}
		for _, target := range group.Targets {
			ports[target.Port] = true
		}
		if len(ports) == 0 {
			ports[group.Port] = true
		}
		for port := range ports {
			targets = append(targets, b.instances(port)...)
		}
	} else {
		i := -1
		if nlb != nil {
			i = slices.IndexFunc(nlb.Listeners, func(listener Listener) bool { return listener.TargetGroup == group.Name })
		}
		if i < 0 {
			return
		}
		targets = b.endpoints(nlb.Listeners[i].Port)
	}
	slices.SortFunc(targets, compareTargets)
	group.Targets = slices.Compact(targets)
}

func (b *builder) instances(port int32) []Target {
	var targets []Target
	for _, id := range b.Instances {
		targets = append(targets, Target{ID: id, Port: port})
	}
	return targets
}

func (b *builder) endpoints(port int32) []Target {
	var targets []Target
	for _, endpoint := range b.Endpoints[port] {
		targets = append(targets, Target{ID: endpoint.Addr().String(), Port: int32(endpoint.Port()), Zone: b.zoneOf(endpoint.Addr())})
	}
	return targets
}

// private are the ranges outside of the VPC that AWS takes targets of.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("100.64.0.0/10"),
}

// Registrable parts the endpoints that AWS takes as targets from the addresses
// of the others. Which of IPv6 it takes is for AWS to say.
func Registrable(endpoints map[int32][]netip.AddrPort, vpc []netip.Prefix) (taken map[int32][]netip.AddrPort, others []netip.Addr) {
	taken = map[int32][]netip.AddrPort{}
	for port, all := range endpoints {
		for _, at := range all {
			within := func(prefix netip.Prefix) bool { return prefix.Contains(at.Addr()) }
			if at.Addr().Is4() && !slices.ContainsFunc(private, within) && !slices.ContainsFunc(vpc, within) {
				others = append(others, at.Addr())
				continue
			}
			taken[port] = append(taken[port], at)
		}
	}
	slices.SortFunc(others, netip.Addr.Compare)
	return taken, slices.Compact(others)
}

// targetGroupName is that of the target group that the listener sends to
// already, if that can be made to do.
func (b *builder) targetGroupName(port settings.Port) string {
	if nlb := b.Observed.NLB; nlb != nil {
		for _, listener := range nlb.Listeners {
			group := b.Observed.TargetGroup(listener.TargetGroup)
			if listener.Port == port.Port && group != nil && group.Protocol == port.Target && group.IPs == b.Settings.TargetIPs && group.IPv6 == b.Settings.TargetIPv6 {
				return group.Name
			}
		}
	}
	return b.Identity.targetGroupName(port.Port, port.Target, b.Settings.TargetIPs, b.Settings.TargetIPv6)
}

// zoneOf is what AWS wants to be told about an address that is not the VPC's.
func (b *builder) zoneOf(addr netip.Addr) string {
	if slices.ContainsFunc(b.Network.Prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
		return ""
	}
	return "all"
}

func compareTargets(a, b Target) int {
	return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Port, b.Port))
}

func (b *builder) classic(subnets []Subnet, groups []string) *CLB {
	s := &b.Settings
	clb := &CLB{
		Name:       b.Identity.LoadBalancerName(),
		Internal:   s.Internal,
		Groups:     groups,
		Health:     s.Health,
		Attributes: ClassicAttributes{CrossZone: s.CrossZone, IdleSeconds: int32(cmp.Or(s.IdleTimeout, 60*time.Second) / time.Second)},
		Instances:  slices.Sorted(slices.Values(b.Instances)),
		Tags:       b.tags,
	}
	for _, subnet := range subnets {
		clb.Subnets = append(clb.Subnets, subnet.ID)
	}
	slices.Sort(clb.Subnets)
	if b.Observed.CLB != nil {
		clb.Clashing = b.clashing(subnets, b.Observed.CLB.Subnets)
	}
	if s.Draining.Enabled {
		clb.Attributes.DrainSeconds = int32(s.Draining.Timeout / time.Second)
	}
	if s.AccessLog.Enabled {
		clb.Attributes.LogBucket, clb.Attributes.LogPrefix = s.AccessLog.Bucket, s.AccessLog.Prefix
		clb.Attributes.LogMinutes = int32(s.AccessLog.Interval / time.Minute)
	}
	if clb.Health.Port == 0 && len(s.Ports) > 0 {
		clb.Health.Port = s.Ports[0].NodePort
	}
	for _, port := range s.Ports {
		listener := ClassicListener{Port: port.Port, Protocol: port.Listener, InstancePort: port.NodePort, InstanceProtocol: port.Target}
		if port.Listener == settings.SSL || port.Listener == settings.HTTPS {
			listener.Certificate = s.Certificates[0]
			listener.TLSPolicy = cmp.Or(s.TLSPolicy, DefaultTLSPolicy)
			if name := TLSPolicyName(listener.TLSPolicy); OwnPolicy(name) && !slices.Contains(clb.Policies, name) {
				clb.Policies = append(clb.Policies, name)
			}
		}
		clb.Listeners = append(clb.Listeners, listener)
		if s.ProxyProtocol {
			clb.ProxyPorts = append(clb.ProxyPorts, port.NodePort)
		}
	}
	if s.ProxyProtocol {
		clb.Policies = append(clb.Policies, ProxyPolicy)
	}
	slices.Sort(clb.ProxyPorts)
	slices.Sort(clb.Policies)
	return clb
}

// clashing are the subnets in whose zone the load balancer is by another one
// so far.
func (b *builder) clashing(chosen []Subnet, has []string) []string {
	var clashing []string
	for _, old := range b.Network.subnets(has) {
		for _, subnet := range chosen {
			if subnet.Zone == old.Zone && subnet.ID != old.ID {
				clashing = append(clashing, subnet.ID)
			}
		}
	}
	return clashing
}
