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
	// endpointBandwidth stands for one endpoint in the link bandwidth of a weighted route, in bytes per second: 1 Gbit/s.
	// Routers compare the numbers and nothing else.
	endpointBandwidth = 125e6
	// settleBGP is the longest wait, after the start, for the answers of what is asked for its health. What a speaker that
	// restarts does not repeat in its first word, routers forget.
	settleBGP = 3 * time.Second
)

// share is the part that an Advertisement has in a prefix.
type share struct {
	advertisement string
	bandwidth     float32
}

// routes decides which addresses to advertise, and gathers them into routes.
func (c *course) routes() {
	prefixes := map[netip.Prefix][]share{}
	adverts := map[string]*v1alpha1.Advertisement{}
	for _, a := range c.Advertisements {
		adverts[a.Name] = a
	}
	reached := map[string][]string{}
	for _, vip := range c.VirtualIPs {
		addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
		if err != nil || vip.Spec.BGP == nil {
			continue
		}
		verdict := c.route(vip, addr, adverts, reached)
		c.Routed[vip.Name] = verdict
		if verdict.Reason != "" {
			continue
		}
		for _, name := range verdict.Advertisements {
			prefix := aggregate(addr, adverts[name].Spec.BGP)
			part := share{advertisement: name}
			if adverts[name].Spec.BGP.Weighted {
				part.bandwidth = float32(c.endpoints(vip, addr)) * endpointBandwidth
			}
			i := slices.IndexFunc(prefixes[prefix], func(s share) bool { return s.advertisement == name })
			if i < 0 {
				prefixes[prefix] = append(prefixes[prefix], part)
				continue
			}
			prefixes[prefix][i].bandwidth += part.bandwidth
		}
	}
	for _, prefix := range slices.SortedFunc(maps.Keys(prefixes), netip.Prefix.Compare) {
		c.advertise(prefix, prefixes[prefix], adverts, reached)
	}
	c.unspoken()
	c.settle()
}

// route decides about one address. Of several reasons, the one that holds for all nodes comes first.
func (c *course) route(vip *v1alpha1.VirtualIP, addr netip.Addr, adverts map[string]*v1alpha1.Advertisement, reached map[string][]string) RouteVerdict {
	switch {
	case vip.Spec.Hold != "":
		return RouteVerdict{Reason: vip.Spec.Hold}
	case len(vip.Spec.Claims) == 0:
		return RouteVerdict{Reason: v1alpha1.Unclaimed}
	case c.Barred == v1alpha1.NetworkDown:
		return RouteVerdict{Reason: v1alpha1.NetworkDown}
	}
	verdict := c.applying(vip, addr, adverts, reached)
	if len(verdict.Advertisements) == 0 {
		return verdict
	}
	// Whether it is served is asked also while the node departs: it may stay.
	unserved, why := c.local(vip, addr)
	switch {
	case c.proxy != "":
		verdict.Reason = c.proxy
		verdict.Why = string(c.Health[health.Target{Kind: health.Proxy, URL: c.ProxyURL}].Reason)
	case unserved != "":
		verdict.Reason, verdict.Why = unserved, why
	case c.goesWithout(vip, verdict, adverts):
		verdict.Reason = c.Departs
	default:
		verdict.Reason = c.rulesMissing(vip, addr)
	}
	return verdict
}

// applying are the Advertisements that have the address advertised from here, or why there is none.
func (c *course) applying(vip *v1alpha1.VirtualIP, addr netip.Addr, adverts map[string]*v1alpha1.Advertisement, reached map[string][]string) RouteVerdict {
	verdict := RouteVerdict{Reason: v1alpha1.UnknownAdvertisement}
	for _, name := range slices.Sorted(slices.Values(vip.Spec.BGP.Advertisements)) {
		a := adverts[name]
		limit := slices.IndexFunc(vip.Spec.BGP.Limits, func(l v1alpha1.BGPLimit) bool { return l.Advertisement == name })
		switch {
		case a == nil || a.Spec.BGP == nil:
			continue
		case !selects(a.Spec.NodeSelector, c.Labels):
			verdict.Reason = v1alpha1.NotSelected
		case limit >= 0 && !slices.Contains(vip.Spec.BGP.Limits[limit].Nodes, c.Node) && !c.parting(vip.Name, name):
			verdict.Reason = v1alpha1.OverMaxNodes
		case len(c.routersOf(a, familyOf(addr), reached)) == 0:
			verdict.Reason, verdict.Why = v1alpha1.NoPeer, ""
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

// routersOf are the peers of an Advertisement that routes of the family go to, by name. They are found once.
func (c *course) routersOf(a *v1alpha1.Advertisement, family bgp.Family, reached map[string][]string) []string {
	key := string(family) + a.Name
	if names, ok := reached[key]; ok {
		return names
	}
	names := []string{}
	for _, p := range c.Peers {
		if len(a.Spec.BGP.Peers) == 0 || slices.Contains(a.Spec.BGP.Peers, p.Name) {
			names = append(names, p.Name)
		}
	}
	usable := []string{}
	for _, group := range c.nextHops(family, names) {
		usable = append(usable, group...)
	}
	slices.Sort(usable)
	reached[key] = usable
	return usable
}

// goesWithout says whether this node, which departs, leaves the address to others now. A node that is cordoned goes on as long
// as there is no other, and with a Service of policy Local as long as its endpoints are here: the next may have none yet.
func (c *course) goesWithout(vip *v1alpha1.VirtualIP, verdict RouteVerdict, adverts map[string]*v1alpha1.Advertisement) bool {
	if c.Departs == "" || !c.departed() {
		return false
	}
	switch c.Departs {
	case v1alpha1.Leaving:
		return false // the end of the sessions withdraws all routes
	case v1alpha1.NodeCordoned:
		local := slices.ContainsFunc(vip.Spec.Claims, func(claim v1alpha1.Claim) bool { return claim.HealthCheckNodePort != 0 })
		alone := slices.ContainsFunc(verdict.Advertisements, func(name string) bool { return adverts[name].Status.Nodes == 0 })
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
func aggregate(addr netip.Addr, spec *v1alpha1.BGPAdvertisement) netip.Prefix {
	length := spec.AggregationLength
	if addr.Is6() {
		length = spec.AggregationLengthV6
	}
	bits := addr.BitLen()
	if length != nil && *length > 0 {
		bits = min(bits, int(*length))
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// advertise adds the routes of a prefix. A router that several Advertisements name is told of the prefix by the first of them
// by name: a route has one set of attributes.
func (c *course) advertise(prefix netip.Prefix, parts []share, adverts map[string]*v1alpha1.Advertisement, reached map[string][]string) {
	slices.SortFunc(parts, func(a, b share) int { return strings.Compare(a.advertisement, b.advertisement) })
	family := familyOf(prefix.Addr())
	var told []string
	for _, part := range parts {
		a := adverts[part.advertisement]
		names := slices.DeleteFunc(slices.Clone(c.routersOf(a, family, reached)), func(name string) bool { return slices.Contains(told, name) })
		told = append(told, names...)
		for _, name := range names {
			c.tells[tale{name, family}] = true
		}
		groups := c.nextHops(family, names)
		for _, hop := range slices.SortedFunc(maps.Keys(groups), netip.Addr.Compare) {
			c.Routes = append(c.Routes, routeOf(prefix, hop, groups[hop], part, a.Spec.BGP))
		}
	}
}

func routeOf(prefix netip.Prefix, hop netip.Addr, peers []string, part share, spec *v1alpha1.BGPAdvertisement) bgp.Route {
	return bgp.Route{
		Prefix: prefix, Peers: peers, NextHop: hop,
		LocalPref: number(spec.LocalPreference), MED: number(spec.MED),
		Communities: spec.Communities, Prepend: uint8(spec.Prepend), Bandwidth: part.bandwidth,
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
