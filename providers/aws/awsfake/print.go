package awsfake

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String is the state of what calls can change, a line for each thing, in an
// order that does not depend on the order of the calls: load balancers and
// what belongs to them, target groups, security groups. A security group that
// a call made is called by its name, another one by its ID.
func (c *Cloud) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.settle()
	var p printer
	for _, name := range slices.Sorted(maps.Keys(c.classics.live)) {
		lb, _ := c.classics.get(name)
		c.printClassic(&p, lb)
	}
	networks := slices.Clone(c.networks.all())
	slices.SortFunc(networks, func(a, b *network) int { return strings.Compare(a.name, b.name) })
	for _, lb := range networks {
		c.printNetwork(&p, lb)
	}
	groups := slices.Clone(c.targetGroups.all())
	slices.SortFunc(groups, func(a, b *targetGroup) int { return strings.Compare(a.name, b.name) })
	for _, g := range groups {
		c.printTargetGroup(&p, g)
	}
	security := slices.Clone(c.groups.all())
	slices.SortFunc(security, func(a, b *securityGroup) int { return strings.Compare(c.called(a.id), c.called(b.id)) })
	for _, g := range security {
		c.printSecurityGroup(&p, g)
	}
	return p.String()
}

type printer struct{ strings.Builder }

// line is words with spaces between them, but for empty ones.
func (p *printer) line(words ...string) {
	words = slices.DeleteFunc(words, func(w string) bool { return w == "" })
	p.WriteString(strings.Join(words, " ") + "\n")
}

// pairs is a line for each attribute or tag of a thing.
func (p *printer) pairs(kind, of string, list []pair) {
	for _, one := range list {
		p.line(kind, of, one.key+"="+one.value)
	}
}

// labelled is "name=value", or nothing.
func labelled(name string, values ...string) string {
	if joined := strings.Join(values, ","); joined != "" {
		return name + "=" + joined
	}
	return ""
}

func joined(list []string) string { return strings.Join(slices.Sorted(slices.Values(list)), ",") }

// called is how a security group is printed.
func (c *Cloud) called(id string) string {
	if g, ok := c.groups.get(id); ok && !g.foreign && g.name != "default" {
		return g.name
	}
	return id
}

func (c *Cloud) allCalled(ids []string) string {
	var names []string
	for _, id := range ids {
		names = append(names, c.called(id))
	}
	return joined(names)
}

func (c *Cloud) printClassic(p *printer, lb *classic) {
	p.line("clb", lb.name, lb.scheme, joined(subnetIDs(lb.subnets)), c.allCalled(lb.groups))
	p.line("health", lb.name, lb.check.String())
	for _, l := range lb.listeners {
		p.line("listener", lb.name, l.String(), labelled("policies", l.policies...))
	}
	for _, port := range lb.backendPorts() {
		p.line("backend", lb.name, fmt.Sprint(port), labelled("policies", lb.backends[port]...))
	}
	policies := slices.Clone(lb.policies)
	slices.SortFunc(policies, func(a, b policy) int { return strings.Compare(a.name, b.name) })
	for _, one := range policies {
		words := []string{"policy", lb.name, one.name, one.kind}
		for _, a := range one.attributes {
			words = append(words, a.key+"="+a.value)
		}
		p.line(words...)
	}
	var ids []string
	for _, r := range lb.instances {
		ids = append(ids, r.id)
	}
	for _, id := range slices.Sorted(slices.Values(ids)) {
		state, _, _ := c.classicState(lb, id)
		p.line("instance", lb.name, id, state)
	}
	p.pairs("attribute", lb.name, lb.attributes.changed())
	p.pairs("tag", lb.name, lb.tags.sorted())
}

func (c *Cloud) printNetwork(p *printer, lb *network) {
	var subnets []string
	for _, z := range lb.zones {
		at := z.subnet.ID
		for _, a := range []string{z.allocation, addrText(z.private.IsValid(), z.private), addrText(z.v6.IsValid(), z.v6)} {
			if a != "" {
				at += "@" + a
			}
		}
		subnets = append(subnets, at)
	}
	family := ""
	if lb.ipType != "ipv4" {
		family = string(lb.ipType)
	}
	nat := ""
	if lb.sourceNAT == "on" {
		nat = "source-nat"
	}
	p.line("nlb", lb.name, string(lb.scheme), joined(subnets), c.allCalled(lb.groups), family, nat)
	listeners := c.listenersOf(lb)
	slices.SortFunc(listeners, func(a, b *listener) int { return cmp.Compare(a.port, b.port) })
	for _, l := range listeners {
		p.line("listener", lb.name, fmt.Sprintf("%s:%d -> %s", l.protocol, l.port, l.group.name), labelled("cert", l.certificate),
			labelled("sni", slices.Sorted(slices.Values(l.further))...), labelled("policy", l.policy), labelled("alpn", l.alpn))
		name := fmt.Sprintf("%s:%d", lb.name, l.port)
		p.pairs("attribute", name, l.attributes.changed())
		p.pairs("tag", name, l.tags.sorted())
	}
	p.pairs("attribute", lb.name, lb.attributes.changed())
	p.pairs("tag", lb.name, lb.tags.sorted())
}

func addrText(valid bool, a fmt.Stringer) string {
	if !valid {
		return ""
	}
	return a.String()
}

func (c *Cloud) printTargetGroup(p *printer, g *targetGroup) {
	family := ""
	if g.ipType != "ipv4" {
		family = string(g.ipType)
	}
	p.line("target-group", g.name, fmt.Sprintf("%s:%d", g.protocol, g.port), string(g.kind), family)
	p.line("health", g.name, g.check.String(), labelled("codes", g.check.codes))
	targets := slices.Clone(g.targets)
	slices.SortFunc(targets, byTarget)
	for _, t := range targets {
		id := t.id
		if t.port != g.port {
			id = fmt.Sprintf("%s:%d", t.id, t.port)
		}
		p.line("target", g.name, id, string(c.state(g, t).State))
	}
	p.pairs("attribute", g.name, g.attributes.changed())
	p.pairs("tag", g.name, g.tags.sorted())
}

func (c *Cloud) printSecurityGroup(p *printer, g *securityGroup) {
	if g.name == "default" && len(g.rules) == 0 && len(g.tags) == 0 {
		return
	}
	name := c.called(g.id)
	p.line("security-group", name)
	var lines []string
	for _, r := range g.rules {
		lines = append(lines, c.ruleText(r))
	}
	for _, line := range slices.Sorted(slices.Values(lines)) {
		p.line("rule", name, line)
	}
	p.pairs("tag", name, g.tags.sorted())
}

// ruleText is a rule with its tags.
func (c *Cloud) ruleText(r *rule) string {
	words := []string{r.protocol}
	switch {
	case r.from != r.to:
		words = append(words, fmt.Sprintf("%d-%d", r.from, r.to))
	case r.from != -1:
		words = append(words, fmt.Sprint(r.from))
	}
	words = append(words, c.called(r.source))
	if r.description != "" {
		words = append(words, fmt.Sprintf("%q", r.description))
	}
	for _, t := range r.tags.sorted() {
		words = append(words, t.key+"="+t.value)
	}
	return strings.Join(words, " ")
}
