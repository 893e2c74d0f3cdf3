package speaker

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
)

// RouteVerdict says whether an address is advertised from here by BGP, or why not.
type RouteVerdict struct {
	// Reason why no route covers the address; empty when one does.
	Reason v1alpha1.Reason
	// Why tells more of it.
	Why string
	// Advertisements that apply here.
	Advertisements []string
}

const (
	// endpointBandwidth stands for one endpoint in the link bandwidth of a weighted route, in bytes per second: 1 Mbit/s.
	// Routers compare the numbers and nothing else, but some keep them in 32 bits: there is room for 34,000 endpoints.
	endpointBandwidth = 125e3
	// lastWord is how long a route stays after the last ready endpoint of this node: the controller may know that no other
	// node has one either, and that those of this node still serve while they terminate.
	lastWord = 500 * time.Millisecond
	// settleBGP is the longest wait, after the start, for the answers of what is asked for its health. What a speaker that
	// restarts does not repeat in its first word, routers forget.
	settleBGP = 3 * time.Second
)

// share is the part that an Advertisement has in a prefix.
type share struct {
	advertisement string
	bandwidth     float32
}

// offer is an Advertisement as this node takes part in it.
type offer struct {
	*v1alpha1.BGPAdvertisement
	// selected says that it is for this node, nodes how many can take part in it.
	selected bool
	nodes    int32
	// routers that routes of a family go to, with the next hop that each is to be told: none is our address on the session.
	routers map[bgp.Family]map[string]netip.Addr
	// groups are the same routers as a route has them that no other Advertisement has a part in.
	groups map[bgp.Family][]group
}

// group are routers, by name, that are told of one next hop.
type group struct {
	hop     netip.Addr
	routers []string
}

// part is what an Advertisement does for a prefix.
type part struct {
	prefix netip.Prefix
	share
}

// offer finds out once what all addresses of the Advertisements have in common.
func (c *course) offer() {
	for _, a := range c.Advertisements {
		if a.Spec.BGP == nil {
			continue
		}
		o := &offer{BGPAdvertisement: a.Spec.BGP, selected: selects(a.Spec.NodeSelector, c.Labels), nodes: a.Status.Nodes}
		o.routers = map[bgp.Family]map[string]netip.Addr{bgp.IPv4: {}, bgp.IPv6: {}}
		for i := range c.Peers {
			p := &c.Peers[i]
			if len(o.Peers) > 0 && !slices.Contains(o.Peers, p.Name) {
				continue
			}
			for _, family := range p.Families {
				if hop, ok := c.nextHop(family, p); ok {
					o.routers[family][p.Name] = hop
				}
			}
		}
		o.groups = map[bgp.Family][]group{}
		for family := range o.routers {
			o.groups[family] = o.grouped(family, map[string]bool{})
		}
		c.offers[a.Name] = o
	}
}

// routes decides which addresses to advertise, and gathers them into routes.
func (c *course) routes() {
	c.offer()
	parts := make([]part, 0, len(c.Before.Routes))
	for _, vip := range c.VirtualIPs {
		addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
		if err != nil || vip.Spec.BGP == nil {
			continue
		}
		verdict := c.route(vip, addr)
		c.Routed[vip.Name] = verdict
		if verdict.Reason != "" {
			continue
		}
		for _, name := range verdict.Advertisements {
			o := c.offers[name]
			p := part{prefix: aggregate(addr, o), share: share{advertisement: name}}
			if o.Weighted {
				p.bandwidth = float32(c.endpoints(vip, addr)) * endpointBandwidth
			}
			parts = append(parts, p)
		}
	}
	slices.SortFunc(parts, func(a, b part) int {
		return cmp.Or(a.prefix.Compare(b.prefix), strings.Compare(a.advertisement, b.advertisement))
	})
	var shares []share
	for i := range parts {
		p := &parts[i]
		if last := len(shares) - 1; last >= 0 && shares[last].advertisement == p.advertisement {
			shares[last].bandwidth += p.bandwidth
		} else {
			shares = append(shares, p.share)
		}
		if i == len(parts)-1 || parts[i+1].prefix != p.prefix {
			c.advertise(p.prefix, shares)
			shares = shares[:0]
		}
	}
	c.unspoken()
	c.settle()
}

// route decides about one address. Of several reasons, the one that holds for all nodes comes first.
func (c *course) route(vip *v1alpha1.VirtualIP, addr netip.Addr) RouteVerdict {
	switch {
	case vip.Spec.Hold != "":
		return RouteVerdict{Reason: vip.Spec.Hold}
	case len(vip.Spec.Claims) == 0:
		return RouteVerdict{Reason: v1alpha1.Unclaimed}
	case c.Barred == v1alpha1.NetworkDown:
		return RouteVerdict{Reason: v1alpha1.NetworkDown}
	}
	verdict := c.applying(vip, addr)
	if len(verdict.Advertisements) == 0 {
		return verdict
	}
	// Whether it is served is asked also while the node departs: it may stay.
	unserved, state, why := c.local(vip, addr)
	switch {
	case c.proxy != "":
		verdict.Reason = c.proxy
		verdict.Why = string(c.Health[health.Target{Kind: health.Proxy, URL: c.ProxyURL}].Reason)
	case unserved != "" && !c.awaitsWord(vip, state):
		verdict.Reason, verdict.Why = unserved, why
	case c.goesWithout(vip, verdict):
		verdict.Reason = c.Departs
	default:
		verdict.Reason = c.rulesMissing(vip, addr)
	}
	return verdict
}

// awaitsWord reports whether an address that was advertised stays so for a moment though its last ready endpoint here is gone.
func (c *course) awaitsWord(vip *v1alpha1.VirtualIP, state health.State) bool {
	before, advertised := c.Before.Routed[vip.Name]
	until := state.Since.Add(lastWord)
	if !advertised || before.Reason != "" || state.Reason != health.NoLocalEndpoints || !c.Now.Before(until) {
		return false
	}
	c.again(until)
	return true
}

// applying are the Advertisements that have the address advertised from here, or why there is none.
func (c *course) applying(vip *v1alpha1.VirtualIP, addr netip.Addr) RouteVerdict {
	verdict := RouteVerdict{Reason: v1alpha1.UnknownAdvertisement}
	names := vip.Spec.BGP.Advertisements
	if !slices.IsSorted(names) {
		names = slices.Sorted(slices.Values(names))
	}
	for i, name := range names {
		o := c.offers[name]
		limit := slices.IndexFunc(vip.Spec.BGP.Limits, func(l v1alpha1.BGPLimit) bool { return l.Advertisement == name })
		switch {
		case o == nil:
			continue
		case !o.selected:
			verdict.Reason = v1alpha1.NotSelected
		case limit >= 0 && !slices.Contains(vip.Spec.BGP.Limits[limit].Nodes, c.Node) && !c.parting(vip.Name, name):
			verdict.Reason = v1alpha1.OverMaxNodes
		case len(o.routers[familyOf(addr)]) == 0:
			verdict.Reason, verdict.Why = v1alpha1.NoPeer, ""
		case len(verdict.Advertisements) == i:
			verdict.Advertisements = slices.Clip(names[:i+1]) // all so far, as they are there
		default:
			verdict.Advertisements = append(verdict.Advertisements, name)
		}
	}
	if len(verdict.Advertisements) > 0 {
		verdict.Reason = ""
	}
	return verdict
}

// parting says that this node departs and has advertised the address so far: another node is in its place already, and routers
// are to have the time to go there.
func (c *course) parting(name, advertisement string) bool {
	before := c.Before.Routed[name]
	return c.Departs != "" && !c.departed() && before.Reason == "" && slices.Contains(before.Advertisements, advertisement)
}

// goesWithout says whether this node, which departs, leaves the address to others now. A node that is cordoned goes on as long
// as there is no other, and with a Service of policy Local as long as its endpoints are here: the next may have none yet.
func (c *course) goesWithout(vip *v1alpha1.VirtualIP, verdict RouteVerdict) bool {
	if c.Departs == "" || !c.departed() {
		return false
	}
	switch c.Departs {
	case v1alpha1.Leaving:
		return false // the end of the sessions withdraws all routes
	case v1alpha1.NodeCordoned:
		local := slices.ContainsFunc(vip.Spec.Claims, func(claim v1alpha1.Claim) bool { return claim.HealthCheckNodePort != 0 })
		alone := slices.ContainsFunc(verdict.Advertisements, func(name string) bool { return c.offers[name].nodes == 0 })
		return !local && !alone
	}
	return true
}

// rulesMissing says that the service proxy has not yet written its rules of an address that is new here.
func (c *course) rulesMissing(vip *v1alpha1.VirtualIP, addr netip.Addr) v1alpha1.Reason {
	if before, ok := c.Before.Routed[vip.Name]; c.ready(vip, addr) || ok && before.Reason == "" {
		return ""
	}
	since, waiting := c.Before.Unready[vip.Name]
	if !waiting {
		since = c.Now
	}
	if c.Now.Sub(since) >= rulesDelay {
		return ""
	}
	c.Unready[vip.Name] = since
	c.again(since.Add(rulesDelay))
	c.again(c.Now.Add(rulesAgain))
	return v1alpha1.ProxyNotReady
}

// endpoints counts the endpoints on this node of the Services of policy Local on an address.
func (c *course) endpoints(vip *v1alpha1.VirtualIP, addr netip.Addr) (count int) {
	for i := range vip.Spec.Claims {
		if target, ok := c.localTarget(&vip.Spec.Claims[i], addr); ok {
			count += c.Health[target].LocalEndpoints
		}
	}
	return count
}

func familyOf(addr netip.Addr) bgp.Family {
	if addr.Is4() {
		return bgp.IPv4
	}
	return bgp.IPv6
}

// aggregate is the prefix that an address is advertised as.
func aggregate(addr netip.Addr, o *offer) netip.Prefix {
	length := o.AggregationLength
	if addr.Is6() {
		length = o.AggregationLengthV6
	}
	bits := addr.BitLen()
	if length != nil && *length > 0 {
		bits = min(bits, int(*length))
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// advertise adds the routes of a prefix. A router that several Advertisements name is told of the prefix by the first of them
// by name: a route has one set of attributes.
func (c *course) advertise(prefix netip.Prefix, shares []share) {
	family := familyOf(prefix.Addr())
	var told map[string]bool
	if len(shares) > 1 {
		told = map[string]bool{}
	}
	for _, s := range shares {
		o := c.offers[s.advertisement]
		groups := o.groups[family]
		if told != nil {
			groups = o.grouped(family, told)
		}
		for _, g := range groups {
			c.Routes = append(c.Routes, routeOf(prefix, g.hop, g.routers, s, o.BGPAdvertisement))
			for _, name := range g.routers {
				c.tells[tale{name, family}] = true
			}
		}
	}
}

// grouped are the routers of a family by next hop, without those that have been told, which these are from then on.
func (o *offer) grouped(family bgp.Family, told map[string]bool) []group {
	byHop := map[netip.Addr][]string{}
	for _, name := range sortedKeys(o.routers[family]) {
		if !told[name] {
			hop := o.routers[family][name]
			byHop[hop] = append(byHop[hop], name)
			told[name] = true
		}
	}
	groups := make([]group, 0, len(byHop))
	for _, hop := range slices.SortedFunc(maps.Keys(byHop), netip.Addr.Compare) {
		groups = append(groups, group{hop, slices.Clip(byHop[hop])})
	}
	return groups
}

func routeOf(prefix netip.Prefix, hop netip.Addr, peers []string, s share, spec *v1alpha1.BGPAdvertisement) bgp.Route {
	return bgp.Route{
		Prefix: prefix, Peers: peers, NextHop: hop,
		LocalPref: number(spec.LocalPreference), MED: number(spec.MED),
		Communities: spec.Communities, Prepend: uint8(spec.Prepend), Bandwidth: s.bandwidth,
	}
}

func number(n *int64) *uint32 {
	if n == nil {
		return nil
	}
	value := uint32(*n)
	return &value
}

// settle says when enough is known for the first word to routers: everything that is asked for its health has answered, or
// has had the time to.
func (c *course) settle() {
	c.Settled = c.Before.Settled
	if c.Settled {
		return
	}
	c.Started = c.Before.Started
	if c.Started.IsZero() {
		c.Started = c.Now
	}
	unknown := func(t health.Target) bool {
		state, ok := c.Health[t]
		return !ok || !state.Healthy && (state.Reason == health.Unknown || state.Reason == "")
	}
	c.Settled = !slices.ContainsFunc(slices.Collect(maps.Keys(c.targets)), unknown) || c.Now.Sub(c.Started) >= settleBGP
	if !c.Settled {
		c.again(c.Started.Add(settleBGP))
	}
}

// routeLines tell which addresses are advertised, how, and to whom.
func (d *Decision) routeLines() (lines []string) {
	for _, r := range d.Routers {
		lines = append(lines, r.String()+"\n")
	}
	for _, name := range sortedKeys(d.Routed) {
		v := d.Routed[name]
		line := fmt.Sprintf("%s: advertised by %s", name, strings.Join(v.Advertisements, ", "))
		if v.Reason != "" {
			line = fmt.Sprintf("%s: not advertised, %s", name, v.Reason)
		}
		if v.Why != "" {
			line += " (" + v.Why + ")"
		}
		lines = append(lines, line+"\n")
	}
	for i := range d.Routes {
		lines = append(lines, routeLine(&d.Routes[i]))
	}
	if len(d.Routers) > 0 && !d.Settled {
		lines = append(lines, "nothing is said to routers yet\n")
	}
	return lines
}

func routeLine(r *bgp.Route) string {
	line := fmt.Sprintf("route %s to %s", r.Prefix, strings.Join(r.Peers, ", "))
	if r.NextHop.IsValid() {
		line += fmt.Sprintf(" by %s", r.NextHop)
	}
	if r.LocalPref != nil {
		line += fmt.Sprintf(", local preference %d", *r.LocalPref)
	}
	if r.MED != nil {
		line += fmt.Sprintf(", MED %d", *r.MED)
	}
	if len(r.Communities) > 0 {
		line += ", communities " + strings.Join(r.Communities, " ")
	}
	if r.Prepend > 0 {
		line += fmt.Sprintf(", prepended %d times", r.Prepend)
	}
	if r.Bandwidth > 0 {
		line += fmt.Sprintf(", weight %g", r.Bandwidth/endpointBandwidth)
	}
	return line + "\n"
}

// tale is that a router is told of routes of a family.
type tale struct {
	router string
	family bgp.Family
}

// unspoken finds the routers that do not speak of a family that is asked for by name, or that there are routes of to tell.
func (c *course) unspoken() {
	for i := range c.Routers {
		r := &c.Routers[i]
		status := c.BGP[r.Name]
		if r.Reason != "" || status.State != established {
			continue
		}
		for _, family := range r.Peer.Families {
			if !slices.Contains(status.Families, family) && (c.tells[tale{r.Name, family}] || slices.Contains(r.Asked, family)) {
				r.Lacks = family
			}
		}
	}
}

const established = "Established"

// sameRoutes compares what matters to routers.
func sameRoutes(a, b []bgp.Route) bool {
	return slices.EqualFunc(a, b, func(a, b bgp.Route) bool {
		return a.Prefix == b.Prefix && a.NextHop == b.NextHop && a.Prepend == b.Prepend && a.Bandwidth == b.Bandwidth &&
			slices.Equal(a.Peers, b.Peers) && slices.Equal(a.Communities, b.Communities) &&
			equal(a.LocalPref, b.LocalPref) && equal(a.MED, b.MED)
	})
}

func equal(a, b *uint32) bool {
	return (a == nil) == (b == nil) && (a == nil || cmp.Compare(*a, *b) == 0)
}
