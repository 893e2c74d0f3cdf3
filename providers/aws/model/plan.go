package model

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// chunk is how many targets one call takes.
const chunk = 100

// Plan returns the steps from what there is to what there should be, in order:
// what is new before what goes, so that something serves all the time. To
// delete is to plan towards the zero State.
func Plan(desired, observed *State) []Step {
	p := &planner{desired: desired, observed: observed}
	p.replacing = replaceNLB(desired.NLB, observed.NLB)
	p.join()
	p.groupIn()
	p.nodeRulesIn()
	p.targetGroupsIn()
	p.networkIn()
	p.listeners()
	p.add(p.later...)
	p.classicIn()

	p.deregister()
	p.loadBalancersOut()
	p.targetGroupsOut()
	p.nodeRulesOut()
	p.groupOut()
	return p.steps
}

type planner struct {
	desired, observed *State
	// replacing says why the NLB that is there cannot become the desired one.
	replacing string
	// there are the listeners of the NLB that can become others.
	there []Listener
	steps []Step
	// later are steps that follow those of the listeners.
	later []Step
}

func (p *planner) add(steps ...Step) { p.steps = append(p.steps, steps...) }

// tags brings the tags of a piece to where they should be.
func (p *planner) tags(kind PieceKind, name string, desired, observed map[string]string) {
	piece := Piece{kind, name}
	set := map[string]string{}
	for key, value := range desired {
		if old, ok := observed[key]; !ok || old != value {
			set[key] = value
		}
	}
	var gone []string
	for _, key := range slices.Sorted(maps.Keys(observed)) {
		if _, ok := desired[key]; !ok {
			gone = append(gone, key)
		}
	}
	if len(set) > 0 {
		p.add(Tag{piece, set})
	}
	if len(gone) > 0 {
		p.add(Untag{piece, gone})
	}
}

// changed returns the attributes to set: those that differ, and those that
// were there and nobody asks for any longer, as AWS takes them by default.
func changed(desired, observed, defaults map[string]string) map[string]string {
	set := map[string]string{}
	for key, value := range desired {
		old, ok := observed[key]
		if !ok {
			old = defaults[key]
		}
		if old != value {
			set[key] = value
		}
	}
	for key, old := range observed {
		if _, ok := desired[key]; !ok && old != defaults[key] && defaults[key] != "" {
			set[key] = defaults[key]
		}
	}
	return set
}

// without returns the items of all that are not in the others.
func without[T comparable](all, others []T) []T {
	have := make(map[T]bool, len(others))
	for _, item := range others {
		have[item] = true
	}
	var rest []T
	for _, item := range all {
		if !have[item] {
			rest = append(rest, item)
		}
	}
	return rest
}

func sameSet[T cmp.Ordered](a, b []T) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// rulesBut returns the rules that are not among the others, as EC2 knows them.
func rulesBut(rules, others []Rule) []Rule {
	have := map[Rule]bool{}
	for _, rule := range others {
		have[rule.key()] = true
	}
	return slices.DeleteFunc(slices.Clone(rules), func(rule Rule) bool { return have[rule.key()] })
}

func (p *planner) groupIn() {
	desired, observed := p.desired.Group, p.observed.Group
	if desired == nil {
		return
	}
	if observed == nil {
		observed = &Group{Name: desired.Name, Tags: desired.Tags}
		p.add(CreateGroup{desired})
	}
	p.tags(PieceGroup, desired.Name, desired.Tags, observed.Tags)
	if rules := rulesBut(desired.Rules, observed.Rules); len(rules) > 0 {
		p.add(Authorize{OwnGroup, rules})
	}
}

// groupOut removes rules only now that the listeners they were for are gone.
func (p *planner) groupOut() {
	desired, observed := p.desired.Group, p.observed.Group
	switch {
	case observed == nil:
	case desired == nil:
		p.add(DeleteGroup{observed.Name})
	default:
		if rules := rulesBut(observed.Rules, desired.Rules); len(rules) > 0 {
			p.add(Revoke{OwnGroup, rules})
		}
	}
}

func byNodeGroup(all []NodeRule, skipShared bool) map[string][]Rule {
	groups := map[string][]Rule{}
	for _, rule := range all {
		if !skipShared || !rule.Shared {
			groups[rule.Group] = append(groups[rule.Group], rule.Rule)
		}
	}
	return groups
}

func (p *planner) nodeRulesIn() {
	desired, observed := byNodeGroup(p.desired.NodeRules, false), byNodeGroup(p.observed.NodeRules, false)
	for _, group := range slices.Sorted(maps.Keys(desired)) {
		if rules := rulesBut(desired[group], observed[group]); len(rules) > 0 {
			p.add(Authorize{group, rules})
		}
	}
}

func (p *planner) nodeRulesOut() {
	desired, observed := byNodeGroup(p.desired.NodeRules, false), byNodeGroup(p.observed.NodeRules, true)
	for _, group := range slices.Sorted(maps.Keys(observed)) {
		if rules := rulesBut(observed[group], desired[group]); len(rules) > 0 {
			p.add(Revoke{group, rules})
		}
	}
}

// join registers what is new with what is there, before all else: a step that
// AWS refuses for good, such as one rule too many, keeps no new node out.
func (p *planner) join() {
	for i := range p.desired.TargetGroups {
		desired := &p.desired.TargetGroups[i]
		if observed := p.observed.TargetGroup(desired.Name); observed != nil {
			p.register(desired, observed)
		}
	}
	desired, observed := p.desired.CLB, p.observed.CLB
	if desired != nil && observed != nil && replaceCLB(desired, observed) == "" {
		p.registerInstances(desired, observed)
	}
}

func (p *planner) register(desired, observed *TargetGroup) {
	for targets := range slices.Chunk(without(desired.Targets, observed.Targets), chunk) {
		p.add(Register{desired.Name, targets})
	}
}

func (p *planner) registerInstances(desired, observed *CLB) {
	for instances := range slices.Chunk(without(desired.Instances, observed.Instances), chunk) {
		p.add(RegisterInstances{desired.Name, instances})
	}
}

func (p *planner) targetGroupsIn() {
	for i := range p.desired.TargetGroups {
		desired := &p.desired.TargetGroups[i]
		observed := p.observed.TargetGroup(desired.Name)
		if observed == nil {
			observed = &TargetGroup{Health: desired.Health, Tags: desired.Tags}
			p.add(CreateTargetGroup{desired})
			p.register(desired, observed)
		}
		p.tags(PieceTargetGroup, desired.Name, desired.Tags, observed.Tags)
		if desired.Health != observed.Health {
			p.add(SetHealth{desired.Name, desired.Protocol, desired.Health})
		}
		if set := changed(desired.Attributes, observed.Attributes, targetGroupDefaults(desired)); len(set) > 0 {
			step := SetTargetGroupAttributes{desired.Name, set}
			if set["stickiness.enabled"] == "true" {
				p.later = append(p.later, step) // the listener may speak TLS so far, which has none
				continue
			}
			p.add(step)
		}
	}
}

// targetGroupDefaults are the attributes that a new target group has.
func targetGroupDefaults(group *TargetGroup) map[string]string {
	udp := group.Protocol.HasUDP()
	return merged(settings.TargetGroupAttributes, map[string]string{
		"preserve_client_ip.enabled":                                   strconv.FormatBool(!group.IPs || udp),
		"deregistration_delay.connection_termination.enabled":          strconv.FormatBool(udp),
		"target_health_state.unhealthy.connection_termination.enabled": strconv.FormatBool(!udp),
	})
}

// loadBalancerDefaults are the attributes that a new NLB has.
func loadBalancerDefaults(nlb *NLB) map[string]string {
	return merged(settings.LoadBalancerAttributes, map[string]string{"ipv6.deny_all_igw_traffic": strconv.FormatBool(nlb.Internal)})
}

// deregister takes targets out once those that replace them are in.
func (p *planner) deregister() {
	for i := range p.desired.TargetGroups {
		desired := &p.desired.TargetGroups[i]
		observed := p.observed.TargetGroup(desired.Name)
		if observed == nil {
			continue
		}
		for targets := range slices.Chunk(without(observed.Targets, desired.Targets), chunk) {
			p.add(Deregister{desired.Name, targets})
		}
	}
	desired, observed := p.desired.CLB, p.observed.CLB
	if desired == nil || observed == nil || replaceCLB(desired, observed) != "" {
		return
	}
	for instances := range slices.Chunk(without(observed.Instances, desired.Instances), chunk) {
		p.add(DeregisterInstances{desired.Name, instances})
	}
}

func (p *planner) targetGroupsOut() {
	for i := range p.observed.TargetGroups {
		if name := p.observed.TargetGroups[i].Name; p.desired.TargetGroup(name) == nil {
			p.add(DeleteTargetGroup{name})
		}
	}
}

// replaceNLB says why an NLB cannot become another one; empty is that it can.
func replaceNLB(desired, observed *NLB) string {
	switch {
	case desired == nil || observed == nil:
		return ""
	case desired.Name != observed.Name:
		return "its name changes from " + observed.Name + " to " + desired.Name
	case desired.Internal && !observed.Internal:
		return "it becomes internal"
	case observed.Internal && !desired.Internal:
		return "it becomes internet-facing"
	case len(unclashing(desired)) == 0:
		return "all of its subnets change within their zones"
	}
	for _, old := range observed.Mappings {
		i := slices.IndexFunc(desired.Mappings, func(m Mapping) bool { return m.Subnet == old.Subnet })
		if i >= 0 && desired.Mappings[i] != old {
			return fmt.Sprintf("its address in %s changes", old.Subnet)
		}
	}
	return ""
}

func (p *planner) networkIn() {
	desired, observed := p.desired.NLB, p.observed.NLB
	if desired == nil {
		return
	}
	if p.replacing != "" {
		// The target groups can be attached to one load balancer only.
		p.add(DeleteNLB{observed.Name, p.replacing})
		observed = nil
	}
	if observed == nil {
		p.add(CreateNLB{desired})
		observed = &NLB{Mappings: desired.Mappings, Groups: desired.Groups, DualStack: desired.DualStack, SourceNAT: desired.SourceNAT, Tags: desired.Tags}
	}
	p.tags(PieceNLB, desired.Name, desired.Tags, observed.Tags)
	p.there = observed.Listeners
	if desired.DualStack != observed.DualStack {
		p.dropUnfit(desired.DualStack)
	}
	p.mappings(desired, observed)
	if !sameSet(desired.Groups, observed.Groups) {
		p.add(SetGroups{desired.Name, desired.Groups})
	}
	if set := changed(desired.Attributes, observed.Attributes, loadBalancerDefaults(desired)); len(set) > 0 {
		p.add(SetNLBAttributes{desired.Name, set})
	}
}

// mappings bring an NLB to its subnets and address families.
func (p *planner) mappings(desired, observed *NLB) {
	free := desired.Mappings
	if !sameMappings(desired.Mappings, observed.Mappings) {
		free = unclashing(desired)
	}
	// Listeners of UDP need it until they are gone.
	sourceNAT := desired.SourceNAT || observed.SourceNAT && desired.DualStack
	switch {
	case !sameMappings(free, observed.Mappings) || sourceNAT != observed.SourceNAT:
		p.add(SetMappings{desired.Name, free, desired.DualStack, sourceNAT})
	case desired.DualStack != observed.DualStack:
		p.add(SetDualStack{desired.Name, desired.DualStack})
	}
	// It takes AWS minutes to leave a zone: let all else go on before.
	if len(free) < len(desired.Mappings) || sourceNAT != desired.SourceNAT {
		p.later = append(p.later, SetMappings{desired.Name, desired.Mappings, desired.DualStack, desired.SourceNAT})
	}
}

// unclashing are the mappings that an NLB can have at once.
func unclashing(nlb *NLB) []Mapping {
	return slices.DeleteFunc(slices.Clone(nlb.Mappings), func(m Mapping) bool { return slices.Contains(nlb.Clashing, m.Subnet) })
}

// dropUnfit removes the listeners that keep an NLB from its new address
// families: dualstack has no UDP to targets by IPv4, and IPv4 no targets by
// IPv6.
func (p *planner) dropUnfit(dualStack bool) {
	p.there = slices.DeleteFunc(slices.Clone(p.there), func(listener Listener) bool {
		unfit := listener.Protocol.HasUDP()
		if !dualStack {
			group := p.observed.TargetGroup(listener.TargetGroup)
			unfit = group != nil && group.IPv6
		}
		if unfit {
			p.add(DeleteListener{listener.Port})
		}
		return unfit
	})
}

func sameMappings(a, b []Mapping) bool {
	return len(a) == len(b) && len(without(a, b)) == 0
}

func (p *planner) listeners() {
	if p.desired.NLB == nil {
		return
	}
	for i := range p.desired.NLB.Listeners {
		desired := &p.desired.NLB.Listeners[i]
		observed := &Listener{}
		if at := slices.IndexFunc(p.there, func(l Listener) bool { return l.Port == desired.Port }); at >= 0 {
			observed = &p.there[at]
		}
		p.listener(desired, observed)
	}
	for i := range p.there {
		gone := !slices.ContainsFunc(p.desired.NLB.Listeners, func(l Listener) bool { return l.Port == p.there[i].Port })
		if gone {
			p.add(DeleteListener{p.there[i].Port})
		}
	}
}

// listener makes or changes a listener; one without protocol is not there.
func (p *planner) listener(desired, observed *Listener) {
	switch {
	case observed.Protocol == "":
		p.add(CreateListener{p.desired.NLB.Name, desired})
		observed = &Listener{Tags: desired.Tags, Certificates: first(desired.Certificates)}
	case desired.String() != observed.String():
		p.add(ModifyListener{desired, observed.Protocol})
	}
	p.tags(PieceListener, strconv.Itoa(int(desired.Port)), desired.Tags, observed.Tags)
	if set := changed(desired.Attributes, observed.Attributes, settings.ListenerAttributes); len(set) > 0 && desired.Protocol == settings.TCP {
		p.add(SetListenerAttributes{desired.Port, set})
	}
	if len(desired.Certificates) == 0 {
		return
	}
	others := desired.Certificates[1:]
	var had []string
	if len(observed.Certificates) > 0 {
		had = observed.Certificates[1:]
	}
	for _, certificate := range without(others, had) {
		p.add(AddCertificate{desired.Port, certificate})
	}
	for _, certificate := range without(had, others) {
		p.add(RemoveCertificate{desired.Port, certificate})
	}
}

func first(all []string) []string { return all[:min(len(all), 1)] }

func (p *planner) loadBalancersOut() {
	if nlb := p.observed.NLB; nlb != nil && p.desired.NLB == nil {
		p.add(DeleteNLB{nlb.Name, p.because()})
	}
	if clb := p.observed.CLB; clb != nil && p.desired.CLB == nil {
		p.add(DeleteCLB{clb.Name, p.because()})
	}
}

// because says why a load balancer of one type goes when one of the other comes.
func (p *planner) because() string {
	switch {
	case p.desired.CLB != nil:
		return "it becomes a " + settings.Classic.Title()
	case p.desired.NLB != nil:
		return "it becomes a " + settings.Network.Title()
	}
	return ""
}
