package speaker

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
)

// Router is a BGPPeer that selects this node.
type Router struct {
	Name string
	// Reason why there can be no session, and Why in words; empty when there can.
	Reason v1alpha1.Reason
	Why    string
	// Peer is what the session is to be, with its defaults; valid without a Reason.
	Peer bgp.Peer
	// Asked are the families that the BGPPeer names.
	Asked []bgp.Family
	// Lacks is a family that the router does not speak of, and should.
	Lacks bgp.Family
	// Quiet says that the router keeps the routes of a speaker that ends, for the one that starts.
	Quiet bool
	// BFD is the path that is watched; the zero value when none is.
	BFD bfd.Path
}

// shutdownWait is how long a node that departs goes on advertising with the GRACEFUL_SHUTDOWN community (RFC 8326), so that
// routers have other ways before this one goes.
const shutdownWait = 2 * time.Second

// depart finds out whether this node is about to serve no more, and since when.
func (c *course) depart() {
	switch {
	case c.Barred != "":
		c.Departs = c.Barred
	case c.Cordoned:
		c.Departs = v1alpha1.NodeCordoned
	case c.Leaving:
		c.Departs = v1alpha1.Leaving
	default:
		return
	}
	c.Departure = c.Before.Departure
	if c.Departure.IsZero() {
		c.Departure = c.Now
	}
	if !c.departed() {
		c.again(c.Departure.Add(shutdownWait))
	}
}

// departed says that routers have had the time to find other ways.
func (c *course) departed() bool {
	return !c.Departure.IsZero() && c.Now.Sub(c.Departure) >= shutdownWait
}

// returns says that the speaker ends and the node stays: another speaker is to follow soon, and finds the routes in place where
// there is graceful restart.
func (c *course) returns() bool { return c.Departs == v1alpha1.Leaving }

// routers makes sessions of the BGPPeers that select this node.
func (c *course) routers() {
	var peers []bgp.Peer
	objects := map[string]*v1alpha1.BGPPeer{}
	for _, object := range slices.SortedFunc(slices.Values(c.BGPPeers), func(a, b *v1alpha1.BGPPeer) int { return strings.Compare(a.Name, b.Name) }) {
		if !selects(object.Spec.NodeSelector, c.Labels) {
			continue
		}
		r := Router{Name: object.Name}
		objects[r.Name] = object
		r.Peer, r.Reason, r.Why = c.peerOf(object)
		r.Peer.MostRefused = mostRefused(len(c.VirtualIPs))
		r.Asked, r.Quiet = r.Peer.Families, r.Peer.GracefulRestart.Enabled
		if c.Departs != "" && !(c.returns() && r.Quiet) {
			r.Peer.ShutDown = true
		}
		if r.Reason == "" {
			peers = append(peers, r.Peer)
		}
		c.Routers = append(c.Routers, r)
	}
	// Of two that cannot both be, the older keeps its session.
	slices.SortStableFunc(peers, func(a, b bgp.Peer) int {
		return objects[a.Name].CreationTimestamp.Compare(objects[b.Name].CreationTimestamp.Time)
	})
	valid, wrong := bgp.Valid(peers, bgp.Options{})
	for i := range c.Routers {
		r := &c.Routers[i]
		if err := wrong[r.Name]; err != nil && r.Reason == "" {
			r.Reason, r.Why = v1alpha1.InvalidPeer, err.Error()
		}
		if r.Reason != "" {
			continue
		}
		r.Peer = valid[slices.IndexFunc(valid, func(p bgp.Peer) bool { return p.Name == r.Name })]
		c.Peers = append(c.Peers, r.Peer)
		r.BFD = c.watchRouter(r, objects[r.Name].Spec.BFD)
	}
}

// mostRefused is how many routes of a family a router may advertise to us where there are so many addresses. It may know them
// all from other nodes; FRR tells a node even of its own, unless that is alone in its group of peers. Much the same number of
// addresses has the same answer, so that sessions are rarely changed.
func mostRefused(addresses int) uint32 {
	return max(bgp.MostRefused, uint32(4)<<bits.Len(uint(max(addresses, 1)-1)))
}

// selects says whether a selector has the labels; one that cannot be read has none.
func selects(selector *metav1.LabelSelector, has map[string]string) bool {
	if selector == nil {
		return true
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && parsed.Matches(labels.Set(has))
}

// peerOf is the session that a BGPPeer asks for.
func (c *course) peerOf(object *v1alpha1.BGPPeer) (p bgp.Peer, reason v1alpha1.Reason, why string) {
	spec := &object.Spec
	p = bgp.Peer{
		Name:             object.Name,
		LocalASN:         uint32(spec.LocalASN),
		PeerType:         bgp.Type(spec.PeerType),
		RouterID:         c.routerID(spec.RouterID),
		Interface:        spec.Interface,
		Port:             uint16(spec.Port),
		HoldTime:         duration(spec.HoldTime),
		KeepaliveTime:    duration(spec.KeepaliveTime),
		ConnectRetryTime: duration(spec.ConnectRetryTime),
		Passive:          spec.Passive,
		EBGPMultiHop:     uint8(spec.EBGPMultiHop),
		TTLSecurityHops:  uint8(spec.TTLSecurityHops),
	}
	if spec.PeerASN != nil {
		p.PeerASN = uint32(*spec.PeerASN)
	}
	for _, family := range spec.Families {
		p.Families = append(p.Families, bgp.Family(family))
	}
	if restart := spec.GracefulRestart; restart != nil && (restart.Enabled == nil || *restart.Enabled) {
		p.GracefulRestart = bgp.GracefulRestart{Enabled: true, RestartTime: duration(restart.RestartTime)}
	}
	if spec.DefaultGateway != "" {
		gateway := c.gateway(spec.DefaultGateway)
		if !gateway.IsValid() {
			return p, v1alpha1.NoGateway, fmt.Sprintf("the node has no default gateway of %s", spec.DefaultGateway)
		}
		p.Address = gateway
	} else if spec.Address != "" {
		p.Address, _ = netip.ParseAddr(spec.Address)
	}
	if p.Interface == "" {
		p.Source = c.sourceFor(p.Address, spec.SourceAddress)
	}
	p.Password, reason, why = c.password(spec.PasswordSecretRef)
	return p, reason, why
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return d.Duration
}

// routerID is the BGP identifier of this node: what the BGPPeer says, its IPv4 address, or when it has none a number made of
// its name (RFC 6286: it need only be unique within the autonomous system).
func (c *course) routerID(said string) netip.Addr {
	if id, err := netip.ParseAddr(said); err == nil {
		return id
	}
	if i := slices.IndexFunc(c.InternalIPs, netip.Addr.Is4); i >= 0 {
		return c.InternalIPs[i]
	}
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(c.Node))
	sum := hash.Sum32()
	// As that of a host: some routers refuse what would be a multicast address (RFC 4271, section 6.2).
	return netip.AddrFrom4([4]byte{byte(sum>>24)%223 + 1, byte(sum >> 16), byte(sum >> 8), byte(sum)})
}

// gateway is the best default gateway of a family.
func (c *course) gateway(family string) netip.Addr {
	for _, g := range c.Gateways {
		if g.Addr.Is4() == (family == string(bgp.IPv4)) {
			return g.Addr
		}
	}
	return netip.Addr{}
}

// onLink is the interface that is in one network with an address, and our addresses there.
func (c *course) onLink(addr netip.Addr) (name string, ours []netip.Addr) {
	for i := range c.Links {
		l := &c.Links[i]
		if zone := addr.Zone(); zone != "" && zone != l.Name {
			continue
		}
		for _, prefix := range l.Prefixes {
			if prefix.Contains(addr.WithZone("")) && prefix.Addr() != addr {
				name, ours = l.Name, append(ours, prefix.Addr())
			}
		}
		if name != "" {
			return name, ours
		}
	}
	return "", nil
}

// sourceFor is our address on the session with a router: what the BGPPeer says, ours in the router's network, or the node's
// InternalIP. The kernel's choice would do as well until there is another address (RFC 6724).
func (c *course) sourceFor(router netip.Addr, said string) netip.Addr {
	if source, err := netip.ParseAddr(said); err == nil {
		return source
	}
	name, ours := c.onLink(router)
	for _, addr := range ours {
		if slices.Contains(c.InternalIPs, addr) {
			return addr
		}
	}
	if len(ours) > 0 {
		if ours[0].IsLinkLocalUnicast() && ours[0].Is6() {
			return ours[0].WithZone(name)
		}
		return ours[0]
	}
	return c.internalIP(router)
}

// password of a session, from a Secret of Herald's namespace.
func (c *course) password(ref *v1alpha1.SecretKeyReference) (password bgp.Secret, reason v1alpha1.Reason, why string) {
	if ref == nil {
		return "", "", ""
	}
	key := cmp.Or(ref.Key, "password")
	data, ok := c.Secrets[ref.Name]
	switch {
	case c.Forbidden[ref.Name]:
		return "", v1alpha1.SecretForbidden, fmt.Sprintf("RBAC does not let speakers read Secret %q: add its name to the Role herald-speaker-secrets in Herald's namespace", ref.Name)
	case !ok:
		return "", v1alpha1.SecretMissing, fmt.Sprintf("there is no Secret %q in Herald's namespace", ref.Name)
	case len(data[key]) == 0:
		return "", v1alpha1.SecretKeyMissing, fmt.Sprintf("Secret %q has no key %q, or nothing in it", ref.Name, key)
	}
	return bgp.Secret(data[key]), "", ""
}

const (
	// parting is how long a path is still watched after the end of a session with a router, which may not know of it yet.
	parting = time.Second
	// strict is how long there is no session until its path is watched all the same: a router may want BFD before it
	// (draft-ietf-idr-bgp-bfd-strict-mode).
	strict = 10 * time.Second
)

// toWatch says whether BFD is to watch the path to a router: while there is a session, or to get one. FRR 8.4 begins with BFD as
// soon as it has a neighbor configured, and once more when there is a session; it takes the end of the first for a failure, if
// it was up by then. So the session may come before BFD.
func (c *course) toWatch(router string, path bfd.Path) bool {
	status := c.BGP[router]
	if status.State == established {
		return true
	}
	if status.Without.IsZero() {
		return false
	}
	_, watched := c.Before.RouterPaths[path]
	until, from := status.Without.Add(parting), status.Without.Add(strict)
	switch {
	case watched && c.Now.Before(until):
		c.again(until)
		return true
	case c.Now.Before(from):
		c.again(from)
		return false
	}
	return true
}

// watchRouter has the path to a router watched by BFD, if that is asked for and the router is known.
func (c *course) watchRouter(r *Router, spec *v1alpha1.BFD) bfd.Path {
	if spec == nil || spec.Enabled != nil && !*spec.Enabled {
		return bfd.Path{}
	}
	router, ours := r.Peer.Address, r.Peer.Source
	if r.Peer.Interface != "" {
		router, ours = c.BGP[r.Name].Address, c.BGP[r.Name].Source
	}
	if !router.IsValid() {
		return bfd.Path{}
	}
	name, _ := c.onLink(router)
	path := bfd.Path{Peer: router.WithZone(""), Local: ours.WithZone(""), Interface: name, MultiHop: name == ""}
	if _, watched := c.RouterPaths[path]; watched || !c.toWatch(r.Name, path) {
		return path
	}
	c.RouterPaths[path] = r.Name
	c.sessions[path] = true
	c.Sessions = append(c.Sessions, bfd.Session{
		Path: path, Transmit: duration(spec.TransmitInterval), Receive: duration(spec.ReceiveInterval),
		Multiplier: uint8(spec.DetectMultiplier), MinTTL: uint8(spec.MinimumTTL), Passive: spec.Passive,
	})
	return path
}

// nextHop is what a router is to be told for routes of a family: none is our address on the session. An IPv6 route over an IPv4
// session needs one.
func (c *course) nextHop(family bgp.Family, p *bgp.Peer) (netip.Addr, bool) {
	if family != bgp.IPv6 || !p.Address.Is4() {
		return netip.Addr{}, true
	}
	hop := c.globalIPv6(p.Address)
	return hop, hop.IsValid()
}

// globalIPv6 is an IPv6 address of this node that a router reaches: on its network if there is one.
func (c *course) globalIPv6(router netip.Addr) netip.Addr {
	global := func(p netip.Prefix) bool { return p.Addr().Is6() && !p.Addr().IsLinkLocalUnicast() }
	name, _ := c.onLink(router)
	for i := range c.Links {
		if c.Links[i].Name != name {
			continue
		}
		for _, prefix := range c.Links[i].Prefixes {
			if global(prefix) && slices.Contains(c.InternalIPs, prefix.Addr()) {
				return prefix.Addr()
			}
		}
		if j := slices.IndexFunc(c.Links[i].Prefixes, global); j >= 0 {
			return c.Links[i].Prefixes[j].Addr()
		}
	}
	return c.internalIP(netip.IPv6Unspecified())
}

// loud says whether some router is yet to be told that this node departs before its speaker ends.
func (d *Decision) loud() bool {
	return slices.ContainsFunc(d.Peers, func(p bgp.Peer) bool { return p.ShutDown }) && len(d.Routes) > 0
}

// String says what the session with a router is to be.
func (r Router) String() string {
	if r.Reason != "" {
		return fmt.Sprintf("no peer %s, %s (%s)", r.Name, r.Reason, r.Why)
	}
	p := r.Peer
	text := fmt.Sprintf("peer %s: AS %d, ", r.Name, p.LocalASN)
	switch {
	case p.Interface != "":
		text += "on " + p.Interface
	default:
		text += fmt.Sprintf("%s from %s", netip.AddrPortFrom(p.Address, p.Port), p.Source)
	}
	for _, word := range []struct {
		say  bool
		text string
	}{
		{p.PeerType == bgp.External, ", any other AS"},
		{p.PeerASN != 0, fmt.Sprintf(" in AS %d", p.PeerASN)},
		{p.Password != "", ", with a password"},
		{r.BFD != bfd.Path{}, ", BFD"},
		{r.Quiet, ", graceful restart"},
		{p.ShutDown, ", GRACEFUL_SHUTDOWN"},
	} {
		if word.say {
			text += word.text
		}
	}
	return text
}

func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
