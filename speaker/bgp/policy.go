package bgp

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/osrg/gobgp/v4/api"
)

// GoBGP has one table for all peers, and one export policy. So each path carries tags that say which peers are to be told of
// it, and the policy lets a path with a peer's tag pass to that peer, and takes the tags off. A tag is a large community of
// an autonomous system that nobody has.
//
// When all peers of a path are told the same, that is in the path, and its tags are of variant 0. When they are not, the
// path is bare, and each tag's variant is a statement of the policy that sets what its peer is told.
const tagASN = math.MaxUint32 // reserved by RFC 7300

type tag struct{ peer, variant uint32 }

func (t tag) String() string { return fmt.Sprintf("%d:%d:%d", uint32(tagASN), t.peer, t.variant) }

// announcement is a path of the table.
type announcement struct {
	attributes
	tags string // packed
}

// rule is a statement of the export policy: it is for the neighbor with this address and for paths with a certain tag.
type rule struct {
	neighbor netip.Addr
	attributes
}

// rules by tag.
type rules map[tag]rule

// numbering gives numbers to peers and variants. A number is never given twice.
type numbering struct {
	last     uint32
	peers    map[string]uint32
	variants map[attributes]uint32
}

func newNumbering() numbering {
	return numbering{peers: map[string]uint32{}, variants: map[attributes]uint32{}}
}

func (n *numbering) next() uint32 {
	n.last++
	return n.last
}

func (n *numbering) peer(name string) uint32 {
	if n.peers[name] == 0 {
		n.peers[name] = n.next()
	}
	return n.peers[name]
}

func (n *numbering) variant(a attributes) uint32 {
	if n.variants[a] == 0 {
		n.variants[a] = n.next()
	}
	return n.variants[a]
}

// plan is what a server's table and policy are to be.
type plan struct {
	announcements map[netip.Prefix]announcement
	rules         rules
}

// plan is made for the neighbors that have an address.
func (n *numbering) plan(neighbors []neighbor, all routes) plan {
	p := plan{make(map[netip.Prefix]announcement, len(all)), rules{}}
	address := map[string]netip.Addr{}
	for _, neighbor := range neighbors {
		address[neighbor.Name] = neighbor.Address
		if neighbor.Address.IsValid() {
			p.rules[tag{n.peer(neighbor.Name), 0}] = rule{neighbor: neighbor.Address}
		}
	}
	for prefix, tolds := range all {
		tolds = slices.DeleteFunc(slices.Clone(tolds), func(t told) bool { return !address[t.peer].IsValid() })
		if len(tolds) == 0 {
			continue
		}
		a := announcement{attributes: tolds[0].attributes}
		same := !slices.ContainsFunc(tolds, func(t told) bool { return t.attributes != a.attributes })
		if !same {
			// A policy cannot set a local preference of 0, so that is what it may leave. External peers do not see it.
			a.attributes = attributes{localPref: number{0, true}}
		}
		for _, t := range tolds {
			tag := tag{peer: n.peer(t.peer)}
			if !same {
				tag.variant = n.variant(t.attributes)
				p.rules[tag] = rule{address[t.peer], t.attributes}
			}
			a.tags += pack(tag.peer, tag.variant)
		}
		p.announcements[prefix] = a
	}
	return p
}

func (a announcement) unpackTags() (tags []tag) {
	for t := range slices.Chunk(unpack(a.tags), 2) {
		tags = append(tags, tag{t[0], t[1]})
	}
	return tags
}

const (
	importPolicy = "import"
	exportPolicy = "export"
	ownTags      = "^4294967295:"
)

// gobgp are the policies in GoBGP's words. The import policy takes our own paths alone; there is a default to reject for
// both.
func (rs rules) gobgp() *api.SetPoliciesRequest {
	accept := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	local := &api.Statement{
		Name:       "local",
		Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL},
		Actions:    accept,
	}
	export := &api.Policy{Name: exportPolicy}
	request := &api.SetPoliciesRequest{Policies: []*api.Policy{{Name: importPolicy, Statements: []*api.Statement{local}}, export}}
	for _, t := range rs.sorted() {
		r := rs[t]
		peer, path := fmt.Sprintf("peer-%d-%d", t.peer, t.variant), fmt.Sprintf("tag-%d-%d", t.peer, t.variant)
		request.DefinedSets = append(request.DefinedSets,
			&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: peer, List: []string{hostPrefix(r.neighbor)}},
			&api.DefinedSet{DefinedType: api.DefinedType_DEFINED_TYPE_LARGE_COMMUNITY, Name: path, List: []string{"^" + t.String() + "$"}})
		export.Statements = append(export.Statements, &api.Statement{
			Name: fmt.Sprintf("export-%d-%d", t.peer, t.variant),
			Conditions: &api.Conditions{
				NeighborSet:       &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: peer},
				LargeCommunitySet: &api.MatchSet{Type: api.MatchSet_TYPE_ANY, Name: path},
			},
			Actions: r.actions(t.variant),
		})
	}
	return request
}

func (rs rules) sorted() []tag {
	tags := make([]tag, 0, len(rs))
	for t := range rs {
		tags = append(tags, t)
	}
	slices.SortFunc(tags, func(a, b tag) int {
		return slices.Compare([]uint32{a.peer, a.variant}, []uint32{b.peer, b.variant})
	})
	return tags
}

// hostPrefix leaves out a zone, which GoBGP's sets of neighbors do not know.
func hostPrefix(a netip.Addr) string {
	a = a.WithZone("")
	return netip.PrefixFrom(a, a.BitLen()).String()
}

func (r rule) actions(variant uint32) *api.Actions {
	actions := &api.Actions{
		RouteAction:    api.RouteAction_ROUTE_ACTION_ACCEPT,
		LargeCommunity: &api.CommunityAction{Type: api.CommunityAction_TYPE_REMOVE, Communities: []string{ownTags}},
	}
	if variant == 0 {
		return actions
	}
	if larges := unpackLarges(r.larges); len(larges) > 0 {
		actions.LargeCommunity = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: texts(larges)}
	}
	if r.communities != "" {
		var list []string
		for _, c := range unpack(r.communities) {
			list = append(list, fmt.Sprintf("%d:%d", c>>16, c&0xffff))
		}
		actions.Community = &api.CommunityAction{Type: api.CommunityAction_TYPE_REPLACE, Communities: list}
	}
	if r.bandwidth > 0 {
		// A policy takes a whole number of 32 bits, as some routers do.
		actions.ExtCommunity = &api.CommunityAction{
			Type:        api.CommunityAction_TYPE_REPLACE,
			Communities: []string{fmt.Sprintf("lb:%d:%d", shortASN(r.asn), uint32(r.bandwidth))},
		}
	}
	if r.med.set {
		actions.Med = &api.MedAction{Type: api.MedAction_TYPE_REPLACE, Value: int64(r.med.value)}
	}
	switch {
	case !r.localPref.set:
		actions.LocalPref = &api.LocalPrefAction{Value: 100}
	case r.localPref.value > 0:
		actions.LocalPref = &api.LocalPrefAction{Value: r.localPref.value}
	}
	if r.prepend > 0 {
		actions.AsPrepend = &api.AsPrependAction{Asn: r.asn, Repeat: uint32(r.prepend)}
	}
	if r.nextHop.IsValid() {
		actions.Nexthop = &api.NexthopAction{Address: r.nextHop.String()}
	}
	return actions
}

func texts[T fmt.Stringer](values []T) (texts []string) {
	for _, v := range values {
		texts = append(texts, v.String())
	}
	return texts
}

func (rs rules) String() string {
	var b strings.Builder
	for _, t := range rs.sorted() {
		fmt.Fprintf(&b, "%d:%d to %s\n", t.peer, t.variant, rs[t].neighbor)
	}
	return b.String()
}
