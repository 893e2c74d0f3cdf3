package bgp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// attributes are what one router is told of a prefix. They can be compared.
type attributes struct {
	nextHop     netip.Addr // not set: our address on the session
	localPref   number
	med         number
	communities string // packed
	larges      string // packed
	asn         uint32 // of prepend and bandwidth
	prepend     uint8
	bandwidth   float32
}

// mostBandwidth is the last number of its kind that 32 bits can take. The community has a floating-point number, of which FRR
// keeps the lower 32 bits of what is before the point: more would be less there.
const mostBandwidth float32 = 1<<32 - 1<<8

// number is a number or nothing.
type number struct {
	value uint32
	set   bool
}

func optional(p *uint32) number {
	if p == nil {
		return number{}
	}
	return number{*p, true}
}

// told is what a peer is told of a prefix.
type told struct {
	peer string
	attributes
}

// routes are all that is to be advertised: by prefix, sorted by peer.
type routes map[netip.Prefix][]told

// resolve finds what each peer is to be told. The known names are those of peers that exist, though they may be invalid.
func resolve(peers map[string]neighbor, known map[string]bool, desired []Route) (routes, []error) {
	var errs []error
	all := make(routes, len(desired))
	parsed := map[string]communities{}
	for _, r := range desired {
		c, err := r.parse(parsed)
		if err != nil {
			errs = append(errs, fmt.Errorf("route %s: %w", r.Prefix, err))
			continue
		}
		for _, name := range r.Peers {
			n, ok := peers[name]
			if !ok && known[name] {
				continue // the error is the peer's
			}
			if err := r.advertisable(n, ok); err != nil {
				errs = append(errs, fmt.Errorf("route %s to peer %s: %w", r.Prefix, name, err))
				continue
			}
			if err := all.add(r.Prefix, told{name, r.attributes(n, c)}); err != nil {
				errs = append(errs, fmt.Errorf("route %s to peer %s: %w", r.Prefix, name, err))
			}
		}
	}
	return all, errs
}

func (all routes) add(prefix netip.Prefix, t told) error {
	is := all[prefix]
	i, found := slices.BinarySearchFunc(is, t.peer, func(t told, name string) int { return strings.Compare(t.peer, name) })
	switch {
	case found && is[i].attributes != t.attributes:
		return errors.New("there is another route for this prefix and peer, with other attributes")
	case !found:
		all[prefix] = slices.Insert(is, i, t)
	}
	return nil
}

// communities are packed: numbers in network order, one after the other.
type communities struct{ standard, large string }

func (r Route) parse(parsed map[string]communities) (communities, error) {
	switch {
	case !r.Prefix.IsValid() || r.Prefix.Addr().Is4In6() || r.Prefix != r.Prefix.Masked():
		return communities{}, errors.New("not a prefix, or there are bits behind its length")
	case r.NextHop.IsValid() && (r.NextHop.Is4In6() || r.NextHop.IsUnspecified() || r.NextHop.IsMulticast() || r.NextHop.Zone() != ""):
		return communities{}, fmt.Errorf("%s is no next hop", r.NextHop)
	case r.NextHop.Is4() && !r.Prefix.Addr().Is4():
		return communities{}, errors.New("an IPv6 route needs an IPv6 next hop")
	case r.Bandwidth < 0 || math.IsNaN(float64(r.Bandwidth)) || math.IsInf(float64(r.Bandwidth), 0):
		return communities{}, fmt.Errorf("%v is no bandwidth", r.Bandwidth)
	}
	key := strings.Join(r.Communities, " ")
	if c, ok := parsed[key]; ok {
		return c, nil
	}
	standards, larges, err := parseCommunities(r.Communities)
	if err != nil {
		return communities{}, err
	}
	c := communities{pack(standards...), ""}
	for _, l := range larges {
		c.large += pack(l[:]...)
	}
	parsed[key] = c
	return c, nil
}

func pack(ns ...uint32) string {
	b := make([]byte, 0, 4*len(ns))
	for _, n := range ns {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

func unpack(s string) (ns []uint32) {
	for ; s != ""; s = s[4:] {
		ns = append(ns, binary.BigEndian.Uint32([]byte(s[:4])))
	}
	return ns
}

func familyOf(p netip.Prefix) Family {
	if p.Addr().Is4() {
		return IPv4
	}
	return IPv6
}

// advertisable says why a peer cannot be told of a route.
func (r Route) advertisable(n neighbor, exists bool) error {
	family := familyOf(r.Prefix)
	switch {
	case !exists:
		return errors.New("there is no such peer")
	case !n.speaks(family):
		return fmt.Errorf("the peer does not speak of %s", family)
	case family == IPv6 && !r.NextHop.IsValid() && n.Address.Is4():
		return errors.New("over an IPv4 session an IPv6 route needs a next hop")
	}
	return nil
}

// attributes are what the neighbor is told. What would mean nothing there, or harm, is left out: an internal peer takes a
// path with its own autonomous system in it for a loop.
func (r Route) attributes(n neighbor, c communities) attributes {
	a := attributes{nextHop: r.NextHop, med: optional(r.MED), communities: c.standard, larges: c.large}
	a.bandwidth = min(r.Bandwidth, mostBandwidth)
	if n.internal() {
		a.localPref = optional(r.LocalPref)
	} else {
		a.prepend = r.Prepend
	}
	if a.prepend > 0 || a.bandwidth > 0 {
		a.asn = n.LocalASN
	}
	if n.ShutDown {
		standards := append(unpack(a.communities), gracefulShutdown)
		slices.Sort(standards)
		a.communities = pack(slices.Compact(standards)...)
	}
	return a
}

// gobgp are path attributes with the tags added. They are shared by many paths.
func (a attributes) gobgp(family Family, tags []tag) ([]bgp.PathAttributeInterface, error) {
	hop := a.nextHop
	if !hop.IsValid() {
		hop = netip.IPv4Unspecified()
		if family == IPv6 {
			hop = netip.IPv6Unspecified()
		}
	}
	next, err := bgp.NewPathAttributeNextHop(hop)
	if err != nil {
		return nil, err
	}
	attrs := []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(bgp.BGP_ORIGIN_ATTR_TYPE_IGP), next}
	if a.prepend > 0 {
		path := bgp.NewAs4PathParam(bgp.BGP_ASPATH_ATTR_TYPE_SEQ, slices.Repeat([]uint32{a.asn}, int(a.prepend)))
		attrs = append(attrs, bgp.NewPathAttributeAsPath([]bgp.AsPathParamInterface{path}))
	}
	if a.med.set {
		attrs = append(attrs, bgp.NewPathAttributeMultiExitDisc(a.med.value))
	}
	if a.localPref.set {
		attrs = append(attrs, bgp.NewPathAttributeLocalPref(a.localPref.value))
	}
	if a.communities != "" {
		attrs = append(attrs, bgp.NewPathAttributeCommunities(unpack(a.communities)))
	}
	if a.bandwidth > 0 {
		link := bgp.NewLinkBandwidthExtended(shortASN(a.asn), a.bandwidth)
		attrs = append(attrs, bgp.NewPathAttributeExtendedCommunities([]bgp.ExtendedCommunityInterface{link}))
	}
	var larges []*bgp.LargeCommunity
	for _, l := range unpackLarges(a.larges) {
		larges = append(larges, bgp.NewLargeCommunity(l[0], l[1], l[2]))
	}
	for _, t := range tags {
		larges = append(larges, bgp.NewLargeCommunity(tagASN, t.peer, t.variant))
	}
	return append(attrs, bgp.NewPathAttributeLargeCommunities(larges)), nil
}

func unpackLarges(s string) (larges []large) {
	for l := range slices.Chunk(unpack(s), 3) {
		larges = append(larges, large(l))
	}
	return larges
}

// shortASN is an autonomous system where there are but 16 bits for it (RFC 6793).
func shortASN(asn uint32) uint16 {
	if asn > math.MaxUint16 {
		return bgp.AS_TRANS
	}
	return uint16(asn)
}
