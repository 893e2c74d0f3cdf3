package speaker

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/lan"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// Snapshot is all that a speaker knows when it decides.
type Snapshot struct {
	Now time.Time
	// Node the speaker runs on, and its addresses of type InternalIP.
	Node        string
	InternalIPs []netip.Addr
	// PodCIDRs of the node.
	PodCIDRs []netip.Prefix
	// Links are the interfaces of the node, and Gateways its default gateways, best first.
	Links    []link.Link
	Gateways []link.Gateway
	// Labels of the node. Barred says why it is to announce nothing, and Cordoned that it is to be empty soon.
	Labels   map[string]string
	Barred   v1alpha1.Reason
	Cordoned bool
	// Advertisements and BGPPeers in any order, and the data of the Secrets in Herald's namespace by name.
	Advertisements []*v1alpha1.Advertisement
	BGPPeers       []*v1alpha1.BGPPeer
	Secrets        map[string]map[string][]byte
	// Forbidden are the Secrets that BGPPeers name and that may not be read.
	Forbidden map[string]bool
	// BGP is how the sessions with routers are, by the name of the BGPPeer.
	BGP map[string]bgp.Status
	// VirtualIPs in any order.
	VirtualIPs []*v1alpha1.VirtualIP
	// Leaving says that the speaker is about to stop.
	Leaving bool
	// Timing and keys of the sessions with other speakers; nil as long as there is no key.
	Watch *Watch
	// MarkKeys are the key to sign marks with, and the other one that is accepted. Either may be empty.
	MarkKeys [2][]byte
	// ProxyURL is where the service proxy tells how it is; empty for nowhere.
	ProxyURL string
	// Health of what was decided to ask. ProxyFailed says that the service proxy has been unwell before.
	Health      map[health.Target]health.State
	ProxyFailed bool
	// States of the sessions with other speakers.
	States map[bfd.Path]bfd.Status
	// Claims of other hosts to addresses, the last one of each host.
	Claims map[netip.Addr][]l2.Claim
	// Before is the decision before this one.
	Before *Decision
}

// Watch is how speakers watch each other.
type Watch struct {
	Interval   time.Duration
	Multiplier uint8
	Auth       bfd.Auth
	AlsoAccept bfd.Auth
}

// Decision is what a speaker should do.
type Decision struct {
	// L2 are the addresses to answer for, and Questions those to ask the network about, sorted.
	L2        []l2.Announcement
	Questions []l2.Question
	// Sessions with other speakers, and Targets to ask for their health, sorted.
	Sessions []bfd.Session
	Targets  []health.Target
	// Failures are what the responder has refused, and until when it is not tried again.
	Failures []Failure
	// Interfaces are those for the Speaker's status. Shared are addresses that are, or were, on several interfaces at once.
	Interfaces []v1alpha1.SpeakerInterface
	Shared     []netip.Addr
	// OwnAddresses are the node's, sorted: kube-proxy may listen on any of them.
	OwnAddresses []netip.Addr
	// Peers and Routes of BGP. Routers has those that there cannot be a session with, too, by name.
	Peers   []bgp.Peer
	Routes  []bgp.Route
	Routers []Router
	// Routed say for each VirtualIP that is to be advertised by BGP whether it is from here, or why not.
	Routed map[string]RouteVerdict
	// Settled says that routers may be told: what is known is complete. Started is when it was waited for first.
	Settled bool
	Started time.Time
	// Departs says why this node is to serve no more soon, and Departure since when.
	Departs   v1alpha1.Reason
	Departure time.Time
	// Unready are the VirtualIPs that the service proxy has no rules for yet, and since when.
	Unready map[string]time.Time
	// Came are the VirtualIPs that are newer than the rules of the service proxy, and when they came here.
	Came map[string]time.Time
	// Vacant are the VirtualIPs that this node can serve and the candidates before it do not take, and since when.
	Vacant map[string]time.Time
	// Refused are the VirtualIPs that this node is expected to serve and cannot, and since when.
	Refused map[string]time.Time
	// RouterPaths are the sessions of BFD with routers, by the name of the BGPPeer.
	RouterPaths map[bfd.Path]string
	// Unfit says why this node can serve no address at all.
	Unfit v1alpha1.Reason
	// Verdicts say for each VirtualIP, by its name, whether this node answers for it or why not.
	Verdicts map[string]Verdict
	// Roles by the name of the VirtualIP, but for idle ones.
	Roles map[string]Role
	// Absent are the addresses of speakers that are not heard and that the network does not know either, Up those of
	// speakers that are heard.
	Absent map[netip.Addr]bool
	Up     map[netip.Addr]bool
	// Lingering are sessions that no address needs any more, and until when they are kept.
	Lingering map[bfd.Path]time.Time
	// Nodes are the other speakers of the sessions of BFD.
	Nodes map[bfd.Path]string
	// Hosts are the nodes by their MACs, those of late too.
	Hosts map[[6]byte]string
	// Again is when to decide again though nothing has happened; zero for never.
	Again time.Time
}

// Verdict is yes, with the interfaces, or no, with the reason.
type Verdict struct {
	// Of is the VirtualIP that was decided about.
	Of *v1alpha1.VirtualIP
	// Reason why the address is not announced from here; empty when it is.
	Reason v1alpha1.Reason
	// Why tells in a sentence, without its subject, how it came that this node has the address, or what stands in the way.
	Why string
	// Interfaces that it is announced on.
	Interfaces []string
	// Heirs says that there are other candidates.
	Heirs bool
	// Tells says that it is this node's part to say that nobody announces the address.
	Tells bool
	// Asked says that this node has asked the network for the address long enough to tell of strangers; Foreign is the
	// stranger that has it, or nobody.
	Asked   bool
	Foreign [6]byte
	// Conflict says that there is a stranger.
	Conflict bool
	// Role tells one time in a role from the next. Yielding: the address is answered until another node takes it.
	Role     role
	Yielding bool
}

// same says that the same was decided about the same version of a VirtualIP.
func (v Verdict) same(o Verdict) bool {
	return v.Of == o.Of && v.Reason == o.Reason && v.Why == o.Why && slices.Equal(v.Interfaces, o.Interfaces) &&
		v.Heirs == o.Heirs && v.Tells == o.Tells && v.Asked == o.Asked && v.Foreign == o.Foreign && v.Conflict == o.Conflict &&
		v.Role == o.Role && v.Yielding == o.Yielding
}

// proxySettle is how long a service proxy that has failed and does not say when it writes its rules has to be well again
// before it counts.
const proxySettle = 2 * time.Second

// Decide says what to do on this node. It reads nothing but the snapshot.
func Decide(s Snapshot) *Decision {
	if s.Before == nil {
		s.Before = &Decision{}
	}
	// There is about as much as before, and room for that costs less than growing to it.
	d := &Decision{
		L2:        make([]l2.Announcement, 0, len(s.Before.L2)),
		Questions: make([]l2.Question, 0, len(s.Before.Questions)),
		Routes:    make([]bgp.Route, 0, len(s.Before.Routes)),
		Verdicts:  make(map[string]Verdict, len(s.VirtualIPs)),
		Roles:     make(map[string]Role, len(s.Before.Roles)),
		Absent:    map[netip.Addr]bool{},
		Up:        map[netip.Addr]bool{},
		Lingering: map[bfd.Path]time.Time{},
		Nodes:     map[bfd.Path]string{},

		Routed:      make(map[string]RouteVerdict, len(s.Before.Routed)),
		Unready:     map[string]time.Time{},
		Came:        map[string]time.Time{},
		Vacant:      map[string]time.Time{},
		Refused:     map[string]time.Time{},
		RouterPaths: map[bfd.Path]string{},
	}
	c := &course{Snapshot: s, Decision: d, lans: lanInterfaces(s.Links), dark: withoutCarrier(s.Links), targets: map[health.Target]bool{}, sessions: map[bfd.Path]bool{}, refusals: map[bfd.Path]bool{}, tells: map[tale]bool{}, offers: map[string]*offer{}}
	c.ipvs = slices.ContainsFunc(s.Links, func(l link.Link) bool { return l.Name == ipvsLink })
	c.recall()
	c.near = c.homes()
	c.Interfaces = c.reported()
	c.unfit()
	c.depart()
	c.learn()
	for _, vip := range s.VirtualIPs {
		c.address(vip)
	}
	c.linger()
	c.routers()
	c.routes()
	c.finish()
	return d
}

// mostHosts bounds how many hosts are remembered.
const mostHosts = 10_000

// course is a decision in the making.
type course struct {
	Snapshot
	*Decision
	lans     []lan.Interface
	near     []lan.Interface // of these, those that an address can live on without being named
	ipvs     bool            // kube-proxy keeps virtual IPs on an interface of every node
	dark     []string        // names of links without carrier
	targets  map[health.Target]bool
	sessions map[bfd.Path]bool
	back     map[netip.Addr]bool
	proxy    v1alpha1.Reason // why the service proxy cannot serve
	tells    map[tale]bool
	offers   map[string]*offer // by the name of the Advertisement
	refusals map[bfd.Path]bool // sessions whose other side is told that this node cannot serve an address
	room     room
}

// room is what one VirtualIP after the other is decided in: there may be very many, and little else would be garbage.
type room struct {
	place      place
	view       view
	interfaces []string // names that many verdicts have, and nobody changes
}

// names are those of interfaces.
func (r *room) names(interfaces []lan.Interface) []string {
	if !slices.EqualFunc(r.interfaces, interfaces, func(name string, i lan.Interface) bool { return name == i.Name }) {
		r.interfaces = make([]string, 0, len(interfaces))
		for _, i := range interfaces {
			r.interfaces = append(r.interfaces, i.Name)
		}
	}
	return slices.Clip(r.interfaces)
}

// unfit finds out whether this node can serve at all.
func (c *course) unfit() {
	if c.ProxyURL != "" {
		proxy := health.Target{Kind: health.Proxy, URL: c.ProxyURL}
		c.targets[proxy] = true
		state := c.Health[proxy]
		settled := state.Written != (health.Written{}) || !c.ProxyFailed || c.Now.Sub(state.Since) >= proxySettle
		switch {
		case !state.Healthy:
			c.proxy = v1alpha1.ProxyNotHealthy
		case !settled:
			c.proxy = v1alpha1.ProxyNotHealthy
			c.again(state.Since.Add(proxySettle))
		}
	}
	c.Unfit = c.proxy
	if c.Leaving {
		c.Unfit = v1alpha1.Leaving
	}
}

// learn gathers what all addresses need: who has which MAC, and which speakers are back.
func (c *course) learn() {
	c.Hosts = maps.Clone(c.Before.Hosts)
	if c.Hosts == nil || len(c.Hosts) > mostHosts {
		c.Hosts = map[[6]byte]string{}
	}
	for _, vip := range c.VirtualIPs {
		if vip.Spec.L2 == nil {
			continue
		}
		for i := range vip.Spec.L2.Peers {
			if mac, ok := v1alpha1.ParseMAC(vip.Spec.L2.Peers[i].MAC); ok {
				c.Hosts[mac] = vip.Spec.L2.Peers[i].Node
			}
		}
	}
	c.back = map[netip.Addr]bool{}
	for path, status := range c.States {
		if status.State == bfd.Up {
			c.Up[path.Peer] = true
			c.back[path.Peer] = !c.Before.Up[path.Peer]
		}
	}
	for addr := range c.Before.Absent {
		for _, claim := range c.Claims[addr] {
			if c.Now.Sub(claim.Time) < presence {
				c.back[addr] = true
			}
		}
	}
}

// address decides about one VirtualIP.
func (c *course) address(vip *v1alpha1.VirtualIP) {
	addr, err := v1alpha1.ParseVirtualIPName(vip.Name)
	if err != nil {
		return // the API server lets none pass
	}
	c.meet(vip, addr)
	p := c.place(vip, addr)
	before := c.Before.Roles[vip.Name]
	v := c.view(vip, addr, p, before)
	role := next(before, v)
	if role.Phase == Owning && slices.ContainsFunc(p.peers, func(o peer) bool { return c.back[o.addr] }) {
		role.Round++ // the network may have been in parts: whoever else has the address is to hear of us
	}
	if role != (Role{}) {
		c.Roles[vip.Name] = role
	}
	c.again(role.wake(v))
	c.refuse(vip.Name, v, p, role)
	c.act(vip, addr, p, v, role)
}

// act is what the role for an address means.
func (c *course) act(vip *v1alpha1.VirtualIP, addr netip.Addr, p *place, v *view, role Role) {
	verdict := Verdict{Of: vip, Reason: c.reason(v, role), Conflict: role.conflict(c.Now), Foreign: role.Foreign, Heirs: len(p.peers) > 0}
	verdict.Asked = role.answers() || role.Phase == Blocked
	verdict.Role, verdict.Yielding = roleOf(role), role.Phase == Yielding
	every, ask := role.question(c.Now)
	if role.answers() && len(p.interfaces) > 0 {
		verdict.Interfaces = c.room.names(p.interfaces)
	}
	for _, i := range p.interfaces {
		if role.answers() {
			c.L2 = append(c.L2, l2.Announcement{
				Addr: addr, Interface: i.Name, Term: v.term, Yielding: role.Phase == Yielding, Round: role.Round,
			})
		}
		if ask {
			c.Questions = append(c.Questions, l2.Question{Addr: addr, Interface: i.Name, Every: every, Round: role.Asks})
		}
	}
	switch {
	case role.answers():
		verdict.Why = role.Why
	case verdict.Reason == v1alpha1.Conflict || verdict.Reason == v1alpha1.OwnedByOther:
		verdict.Why = role.Other
	case verdict.Reason == v1alpha1.ProxyNotHealthy:
		verdict.Why = string(c.Health[health.Target{Kind: health.Proxy, URL: c.ProxyURL}].Reason)
	case verdict.Reason == v1alpha1.NotServedLocally:
		verdict.Why = p.notServed
	case verdict.Reason == v1alpha1.NoInterface:
		verdict.Why = p.dark
	case verdict.Reason == v1alpha1.AnnounceFailed:
		verdict.Why = p.failed
	}
	// Another candidate that sees a foreign host knows more than one that cannot serve.
	outdone := v.unfit != "" && meta.IsStatusConditionTrue(vip.Status.Conditions, v1alpha1.ConditionConflict)
	verdict.Tells = (role.Phase == Idle || role.Phase == Blocked) && v.turn && !outdone &&
		(v.quarantined || v.listed && (v.bar == "" || v.bar == v1alpha1.NoInterface || v.bar == v1alpha1.AnnounceFailed) && (v.owner == "" || v.owner == c.Node))
	c.Verdicts[vip.Name] = verdict
	switch role.Phase {
	case Owning:
		c.watchAbsent(p)
	case Asking:
		c.askHosts(p, role)
	}
}

// reason says why this node does not answer; empty if it does.
func (c *course) reason(v *view, role Role) v1alpha1.Reason {
	switch {
	case role.answers():
		return ""
	case v.quarantined || role.Phase == Blocked:
		return v1alpha1.Conflict
	case v.bar != "":
		return v.bar
	case !v.listed:
		return v1alpha1.NotCandidate
	case v.unfit != "":
		return v.unfit
	case role.Phase == Waiting:
		return v1alpha1.OwnedByOther
	case role.Phase == Asking && role.First && !v.ready && c.Now.Sub(role.Since) >= askFirst:
		return v1alpha1.ProxyNotReady
	case role.Phase == Asking:
		return v1alpha1.Asking
	}
	return v1alpha1.NotFirst
}

// place is where an address lives, and who may have it.
type place struct {
	interfaces []lan.Interface
	rank       int // of this node among the candidates, -1 if it is none
	peers      []peer
	notServed  string
	// unknown: the health check node ports have not answered yet.
	unknown bool
	// none: there is no interface to announce the address on. dark names those that lack nothing but a carrier.
	none bool
	dark string
	// failed says why the responder has refused the address on each of its interfaces.
	failed string
}

// peer is another candidate.
type peer struct {
	node string
	rank int
	addr netip.Addr // invalid when it is not known
	mac  [6]byte
	path bfd.Path // without a peer when it is not watched
	life life
	// refuses: it lives, and says that it cannot serve some address.
	refuses bool
}

// place finds out where an address lives, and has the other candidates watched.
func (c *course) place(vip *v1alpha1.VirtualIP, addr netip.Addr) *place {
	p := &c.room.place
	*p = place{rank: -1, peers: p.peers[:0]}
	spec := vip.Spec.L2
	if spec == nil {
		return p
	}
	p.rank = slices.Index(spec.Candidates, c.Node)
	if p.rank < 0 && !c.Before.Roles[vip.Name].answers() {
		return p
	}
	among := c.near
	if len(spec.Interfaces) > 0 {
		among = c.lans
	}
	p.interfaces = lan.Choose(addr, spec.Interfaces, c.InternalIPs, among)
	c.carrying(p)
	c.working(p, addr)
	own, on := c.reached(spec.Peers)
	for rank, node := range spec.Candidates {
		if node == c.Node {
			continue
		}
		o := peer{node: node, rank: rank}
		if i := slices.IndexFunc(spec.Peers, func(l v1alpha1.L2Peer) bool { return l.Node == node }); i >= 0 {
			o.addr, _ = netip.ParseAddr(spec.Peers[i].Address)
			o.mac, _ = v1alpha1.ParseMAC(spec.Peers[i].MAC)
		}
		if p.rank >= 0 && own.IsValid() && o.addr.IsValid() && own.Is4() == o.addr.Is4() {
			o.path = bfd.Path{Peer: o.addr, Local: own, Interface: on}
			c.watch(o.path, node)
		}
		o.life, o.refuses = c.lifeOf(o.path), c.refuses(o.path)
		p.peers = append(p.peers, o)
	}
	return p
}

// carrying leaves the interfaces that can carry frames. An address does not move to another interface of the node when the
// cable of its own is out: the address would be on the wrong LAN.
func (c *course) carrying(p *place) {
	if len(c.dark) > 0 {
		var dark []string
		p.interfaces = slices.DeleteFunc(p.interfaces, func(i lan.Interface) bool {
			down := slices.Contains(c.dark, i.Name)
			if down {
				dark = append(dark, i.Name)
			}
			return down
		})
		p.dark = strings.Join(dark, ", ")
	}
	p.none = len(p.interfaces) == 0
}

// withoutCarrier names the links that cannot carry frames.
func withoutCarrier(links []link.Link) (names []string) {
	for i := range links {
		if l := &links[i]; l.ARP && !l.Up {
			names = append(names, l.Name)
		}
	}
	return names
}

// reached is by which of this node's addresses the other candidates reach it, and the interface that has it.
func (c *course) reached(peers []v1alpha1.L2Peer) (netip.Addr, string) {
	i := slices.IndexFunc(peers, func(l v1alpha1.L2Peer) bool { return l.Node == c.Node })
	if i < 0 {
		return netip.Addr{}, ""
	}
	own, err := netip.ParseAddr(peers[i].Address)
	if err != nil {
		return netip.Addr{}, ""
	}
	for _, l := range c.lans {
		if slices.ContainsFunc(l.Prefixes, func(p netip.Prefix) bool { return p.Addr() == own }) {
			return own, l.Name
		}
	}
	return netip.Addr{}, ""
}

// view is what the role for an address depends on.
func (c *course) view(vip *v1alpha1.VirtualIP, addr netip.Addr, p *place, before Role) *view {
	v := &c.room.view
	*v = view{
		now:    c.Now,
		node:   c.Node,
		peers:  p.peers,
		listed: p.rank >= 0,
		rank:   p.rank,
		unfit:  c.Unfit,
		turn:   p.rank >= 0,
		owner:  vip.Status.Owner,
		fresh:  vip.Status.Owner == "",
		term:   term(vip),
		ready:  c.ready(vip, addr),
	}
	v.bar = bar(vip, p)
	c.turn(v, p, before)
	v.quarantined = vip.Spec.Hold == v1alpha1.Conflict && p.rank >= 0 && v.turn && len(p.interfaces) > 0
	if p.rank >= 0 {
		reason, state, why := c.local(vip, addr)
		if v.unfit == "" && reason != "" {
			v.unfit, p.notServed = reason, why
			p.unknown = state.Reason == "" || state.Reason == health.Unknown
		}
	}
	c.vacancy(vip, v, p, before)
	v.kernel = c.kernelMAC(addr)
	for _, heard := range c.Claims[addr] {
		known := claim{Claim: heard, node: c.Hosts[heard.MAC], rank: -1}
		if known.Unsigned && !c.counts(vip, &known) {
			known.Marked, known.Unsigned, known.Term, known.Yielding = false, false, 0, false
		}
		if known.node != "" && !known.Marked && !known.Recorded && c.ipvs {
			continue // its kernel has every virtual IP
		}
		for _, o := range p.peers {
			if o.node == known.node {
				known.rank = o.rank
			}
		}
		v.claims = append(v.claims, known)
	}
	return v
}

// counts reports whether an unsigned mark counts, which anybody can send: that of a node, as long as a candidate is of a
// version that does not sign, or has no key. Nobody can do better who has no key either.
func (c *course) counts(vip *v1alpha1.VirtualIP, known *claim) bool {
	signed := vip.Spec.L2 != nil && vip.Spec.L2.SignedMarks && len(c.MarkKeys[0]) > 0
	return known.node != "" && !signed
}

// ipvsLink is where kube-proxy in IPVS mode keeps the virtual IPs of all Services, on every node.
const ipvsLink = "kube-ipvs0"

// kernelMAC is the MAC of an interface of this node that has an address, so that its kernel answers for it; zero when none
// has. Virtual IPs on the loopback or on the interface of IPVS are there for kube-proxy and programs, not for the LAN.
func (c *course) kernelMAC(addr netip.Addr) [6]byte {
	for i := range c.lans {
		on := func(p netip.Prefix) bool { return p.Addr() == addr }
		if l := &c.lans[i]; l.Name != ipvsLink && slices.ContainsFunc(l.Prefixes, on) {
			return l.MAC
		}
	}
	return [6]byte{}
}

// turn finds out whether it is this node's turn, and what is known of the owner before.
func (c *course) turn(v *view, p *place, before Role) {
	living := 0
	owner := peer{}
	for _, o := range p.peers {
		if o.rank < p.rank && o.life.alive() {
			living++
		}
		if o.node == v.owner || v.owner == "" && o.rank == 0 {
			owner = o
		}
	}
	if owner.node != "" && !owner.life.alive() {
		v.present = c.heardSince(owner.addr, before.Since)
		if c.Watch != nil {
			v.stall = c.Watch.Interval * time.Duration(c.Watch.Multiplier)
		}
	}
	if living == 0 {
		return
	}
	v.turn = false
	if owner.node == "" || owner.life.alive() {
		return
	}
	// Those before this one should have taken the address. They may not be able to serve it, or go by another version of the
	// VirtualIP and wait for this one.
	at := c.States[owner.path].Time.Add(time.Duration(living) * (letLie + v.stall))
	v.turn = !c.Now.Before(at)
	if !v.turn {
		c.again(at)
	}
}

// heardSince says whether a host has claimed an address of its own since then.
func (c *course) heardSince(addr netip.Addr, since time.Time) bool {
	return slices.ContainsFunc(c.Claims[addr], func(claim l2.Claim) bool { return !claim.Time.Before(since) })
}

// bar says why nobody may answer for an address.
func bar(vip *v1alpha1.VirtualIP, p *place) v1alpha1.Reason {
	switch {
	case vip.Spec.Hold != "":
		return vip.Spec.Hold
	case len(vip.Spec.Claims) == 0:
		return v1alpha1.Unclaimed
	case vip.Spec.L2 == nil:
		return v1alpha1.NotAnnouncedByL2
	case p.failed != "":
		return v1alpha1.AnnounceFailed
	case p.none:
		return v1alpha1.NoInterface
	}
	return ""
}

// term orders what speakers go by: the newer version of a VirtualIP has the higher term, and so has one made again.
func term(vip *v1alpha1.VirtualIP) uint64 {
	return uint64(vip.CreationTimestamp.Unix())<<24 | uint64(vip.Generation)&(1<<24-1)
}

// meet notes when a VirtualIP came here, until the service proxy has written its rules since. The API server tells no more
// than the second: the proxy often writes in that very second, of a Service that has no address yet, and then not for
// another one.
func (c *course) meet(vip *v1alpha1.VirtualIP, addr netip.Addr) {
	came, waits := c.Before.Came[vip.Name]
	if _, known := c.Before.Verdicts[vip.Name]; !known && c.Before.Verdicts != nil {
		came, waits = c.Now, true
	}
	if written, says := c.written(addr); waits && says && !written.After(came) {
		c.Came[vip.Name] = came
	}
}

// written is when the service proxy last wrote its rules for the family of an address, if it says so.
func (c *course) written(addr netip.Addr) (at time.Time, says bool) {
	proxy := c.Health[health.Target{Kind: health.Proxy, URL: c.ProxyURL}]
	if addr.Is6() {
		return proxy.Written.IPv6, proxy.Written != (health.Written{})
	}
	return proxy.Written.IPv4, proxy.Written != (health.Written{})
}

// ready says whether the service proxy has written its rules since the address was given. One that does not say so is
// believed to have.
func (c *course) ready(vip *v1alpha1.VirtualIP, addr netip.Addr) bool {
	written, says := c.written(addr)
	_, newer := c.Came[vip.Name]
	return !says || !newer && written.After(vip.CreationTimestamp.Time)
}

// local says whether this node serves all Services of policy Local on an address, by their health check node ports, which
// it has asked.
func (c *course) local(vip *v1alpha1.VirtualIP, addr netip.Addr) (reason v1alpha1.Reason, state health.State, why string) {
	for i := range vip.Spec.Claims {
		target, ok := c.localTarget(&vip.Spec.Claims[i], addr)
		if !ok {
			continue
		}
		c.targets[target] = true
		said := c.Health[target]
		// kube-proxy counts ready endpoints, and forwards to terminating ones where no other is left.
		terminating := said.Reason == health.NoLocalEndpoints && slices.Contains(vip.Spec.TerminatingNodes, c.Node)
		if !said.Healthy && !terminating && reason == "" {
			reason, state, why = v1alpha1.NotServedLocally, said, fmt.Sprintf("%s: %s", target.Service, cmp.Or(said.Reason, health.Unknown))
		}
	}
	return reason, state, why
}

// localTarget is what tells whether a Service of policy Local is served here; false for one of policy Cluster.
func (c *course) localTarget(service *v1alpha1.Claim, addr netip.Addr) (health.Target, bool) {
	if service.HealthCheckNodePort == 0 {
		return health.Target{}, false
	}
	at := c.internalIP(addr)
	if !at.IsValid() { // the prober asks at other addresses of the family too
		at = health.Loopback(addr)
	}
	return health.Target{
		Kind:    health.Local,
		URL:     fmt.Sprintf("http://%s/healthz", netip.AddrPortFrom(at, uint16(service.HealthCheckNodePort))),
		Service: service.Namespace + "/" + service.Name,
	}, true
}

// internalIP is the node's address of the family: a health check node port is of one family.
func (c *course) internalIP(addr netip.Addr) netip.Addr {
	i := slices.IndexFunc(c.InternalIPs, func(a netip.Addr) bool { return a.Is4() == addr.Is4() })
	if i < 0 {
		return netip.Addr{}
	}
	return c.InternalIPs[i]
}

// ownAddresses are those that kube-proxy may listen on.
func (c *course) ownAddresses() {
	c.OwnAddresses = slices.Clone(c.InternalIPs)
	for _, i := range c.near {
		for _, prefix := range i.Prefixes {
			if addr := prefix.Addr(); !addr.IsLinkLocalUnicast() {
				c.OwnAddresses = append(c.OwnAddresses, addr)
			}
		}
	}
	slices.SortFunc(c.OwnAddresses, netip.Addr.Compare)
	c.OwnAddresses = slices.Compact(c.OwnAddresses)
}

// finish puts the decision in order.
func (c *course) finish() {
	c.ownAddresses()
	for i := range c.Sessions {
		c.Sessions[i].ConcatenatedDown = c.refusals[c.Sessions[i].Path]
	}
	slices.SortFunc(c.L2, func(a, b l2.Announcement) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Interface, b.Interface))
	})
	slices.SortFunc(c.Questions, func(a, b l2.Question) int {
		return cmp.Or(a.Addr.Compare(b.Addr), strings.Compare(a.Interface, b.Interface), cmp.Compare(b.Every, a.Every))
	})
	c.Questions = slices.CompactFunc(c.Questions, func(a, b l2.Question) bool { return a.Addr == b.Addr && a.Interface == b.Interface })
	for target := range c.targets {
		c.Targets = append(c.Targets, target)
	}
	slices.SortFunc(c.Targets, func(a, b health.Target) int {
		return cmp.Or(strings.Compare(string(b.Kind), string(a.Kind)), strings.Compare(a.URL, b.URL), strings.Compare(a.Service, b.Service))
	})
	slices.SortFunc(c.Sessions, func(a, b bfd.Session) int { return a.Peer.Compare(b.Peer) })
}

func (c *course) again(at time.Time) {
	if !at.IsZero() && (c.Again.IsZero() || at.Before(c.Again)) {
		c.Again = at
	}
}

// lanInterfaces are the links that ARP works on.
func lanInterfaces(links []link.Link) []lan.Interface {
	var all []lan.Interface
	for i := range links {
		if l := &links[i]; l.ARP {
			all = append(all, lan.Interface{Name: l.Name, MAC: l.MAC, Prefixes: l.Prefixes})
		}
	}
	return all
}

// announced is how many addresses this node answers for.
func (d *Decision) announced() int {
	count := 0
	for _, verdict := range d.Verdicts {
		if verdict.Reason == "" {
			count++
		}
	}
	return count
}

// String tells the decision, a line an address.
func (d *Decision) String() string {
	lines := make([]string, 0, len(d.Verdicts))
	for name, v := range d.Verdicts {
		if _, routed := d.Routed[name]; routed && v.Reason == v1alpha1.NotAnnouncedByL2 {
			continue
		}
		line := fmt.Sprintf("%s: no, %s", name, v.Reason)
		if v.Reason == "" {
			line = fmt.Sprintf("%s: %s on %s", name, strings.ToLower(string(d.Roles[name].Phase)), strings.Join(v.Interfaces, ", "))
		}
		if v.Why != "" {
			line += " (" + v.Why + ")"
		}
		if v.Conflict {
			line += ", a stranger has it"
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	for _, q := range d.Questions {
		lines = append(lines, fmt.Sprintf("ask for %s on %s every %s\n", q.Addr, q.Interface, q.Every))
	}
	lines = append(lines, d.routeLines()...)
	for i := range d.Sessions {
		s := &d.Sessions[i]
		word := ""
		if s.AdminDown {
			word = ", AdminDown"
		}
		if s.ConcatenatedDown {
			word += ", ConcatenatedPathDown"
		}
		lines = append(lines, fmt.Sprintf("watch %s, %s%s\n", cmp.Or(d.Nodes[s.Path], d.RouterPaths[s.Path]), s.Path, word))
	}
	for _, t := range d.Targets {
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("probe %s %s", t.URL, t.Service))+"\n")
	}
	return strings.Join(lines, "")
}
