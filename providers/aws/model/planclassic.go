package model

import (
	"slices"
)

// newClassicAttributes are those of a new CLB.
var newClassicAttributes = ClassicAttributes{IdleSeconds: 60}

func (p *planner) classicIn() {
	desired, observed := p.desired.CLB, p.observed.CLB
	if desired == nil {
		return
	}
	if why := replaceCLB(desired, observed); why != "" {
		p.add(DeleteCLB{observed.Name, why})
		observed = nil
	}
	made := observed == nil
	if made {
		p.add(CreateCLB{desired})
		observed = &CLB{Subnets: desired.Subnets, Groups: desired.Groups, Listeners: fresh(desired.Listeners), Attributes: newClassicAttributes, Tags: desired.Tags}
	}
	p.tags(PieceCLB, desired.Name, desired.Tags, observed.Tags)
	p.classicNetwork(desired, observed)
	if desired.Health != observed.Health {
		p.add(SetCLBHealth{desired.Name, desired.Health})
	}
	if desired.Attributes != observed.Attributes {
		p.add(SetCLBAttributes{desired.Name, desired.Attributes})
	}
	for _, policy := range without(desired.Policies, observed.Policies) {
		p.add(CreateCLBPolicy{desired.Name, policy})
	}
	p.classicListeners(desired, observed)
	for _, port := range without(desired.ProxyPorts, observed.ProxyPorts) {
		p.add(SetCLBProxy{desired.Name, port, true})
	}
	for _, port := range without(observed.ProxyPorts, desired.ProxyPorts) {
		// AWS forgets a port of the nodes with its last listener.
		if slices.ContainsFunc(desired.Listeners, func(l ClassicListener) bool { return l.InstancePort == port }) {
			p.add(SetCLBProxy{desired.Name, port, false})
		}
	}
	for _, policy := range without(observed.Policies, desired.Policies) {
		p.add(DeleteCLBPolicy{desired.Name, policy})
	}
	if made {
		p.registerInstances(desired, observed)
	}
}

// replaceCLB says why a CLB cannot become another one; empty is that it can.
func replaceCLB(desired, observed *CLB) string {
	switch {
	case desired == nil || observed == nil:
		return ""
	case desired.Internal && !observed.Internal:
		return "it becomes internal"
	case observed.Internal && !desired.Internal:
		return "it becomes internet-facing"
	case len(without(desired.Subnets, desired.Clashing)) == 0 && len(without(desired.Subnets, observed.Subnets)) == len(desired.Subnets):
		return "all of its subnets change within their zones"
	}
	return ""
}

// classicNetwork brings subnets and groups to where they should be. A zone has
// one subnet, and the last subnet cannot go.
func (p *planner) classicNetwork(desired, observed *CLB) {
	attach := func(subnets []string) {
		if len(subnets) > 0 {
			p.add(AttachSubnets{desired.Name, subnets})
		}
	}
	add := without(desired.Subnets, observed.Subnets)
	free := without(add, desired.Clashing)
	attach(free)
	if remove := without(observed.Subnets, desired.Subnets); len(remove) > 0 {
		p.add(DetachSubnets{desired.Name, remove})
	}
	attach(without(add, free))
	if !sameSet(desired.Groups, observed.Groups) {
		p.add(SetCLBGroups{desired.Name, desired.Groups})
	}
}

// fresh are the listeners as AWS makes them, with its own policy.
func fresh(listeners []ClassicListener) []ClassicListener {
	made := slices.Clone(listeners)
	for i := range made {
		if made[i].TLSPolicy != "" {
			made[i].TLSPolicy = DefaultTLSPolicy
		}
	}
	return made
}

// classicListeners changes what can be changed of a listener, and otherwise
// makes it anew, which AWS allows only once the old one is gone.
func (p *planner) classicListeners(desired, observed *CLB) {
	there := map[int32]ClassicListener{}
	for _, listener := range observed.Listeners {
		there[listener.Port] = listener
	}
	var add []ClassicListener
	var remove []int32
	for _, listener := range desired.Listeners {
		old, ok := there[listener.Port]
		delete(there, listener.Port)
		switch {
		case !ok:
			add = append(add, listener)
		case !sameWiring(old, listener):
			remove = append(remove, listener.Port)
			add = append(add, listener)
		case old.Certificate != listener.Certificate:
			p.add(SetCLBCertificate{desired.Name, listener.Port, listener.Certificate})
		}
	}
	for _, listener := range observed.Listeners {
		if _, left := there[listener.Port]; left {
			remove = append(remove, listener.Port)
		}
	}
	if len(remove) > 0 {
		p.add(DeleteCLBListeners{desired.Name, remove})
	}
	if len(add) > 0 {
		p.add(CreateCLBListeners{desired.Name, add})
	}
	for _, listener := range desired.Listeners {
		now := DefaultTLSPolicy
		for _, old := range observed.Listeners {
			if old.Port == listener.Port && !slices.Contains(remove, listener.Port) {
				now = old.TLSPolicy
			}
		}
		if listener.TLSPolicy != "" && listener.TLSPolicy != now {
			p.add(SetCLBTLSPolicy{desired.Name, listener.Port, TLSPolicyName(listener.TLSPolicy)})
		}
	}
}

func sameWiring(a, b ClassicListener) bool {
	return a.Protocol == b.Protocol && a.InstancePort == b.InstancePort && a.InstanceProtocol == b.InstanceProtocol
}
