// Package bgp advertises routes to routers by BGP (RFC 4271), and takes none from them. It embeds GoBGP.
//
// It is told the whole set of peers and routes, and finds out itself what to change. A session is reset only when its own
// peer changes in what an OPEN message or a TCP connection carries.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"k8s.io/klog/v2"
)

// Type of a peer whose autonomous system is not named.
type Type string

// External is any other autonomous system, Internal our own.
const (
	External Type = "External"
	Internal Type = "Internal"
)

// Family of routes.
type Family string

// The families.
const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

// Peer is a router.
type Peer struct {
	// Name is what errors, statuses and routes call the peer.
	Name string
	// LocalASN is our autonomous system towards this peer.
	LocalASN uint32
	// PeerASN is the router's autonomous system; 0 with a PeerType.
	PeerASN  uint32
	PeerType Type
	// RouterID is our BGP identifier; by default the one of the Options.
	RouterID netip.Addr

	// Address of the router. When it is not set, the router is the one that is heard on Interface by its router
	// advertisements (an unnumbered session), and we advertise ourselves there too.
	Address   netip.Addr
	Interface string
	// Port of the router; 179 when zero.
	Port uint16
	// Source address of the session. It should be set: what the kernel would choose may be an address that the router does
	// not know.
	Source netip.Addr
	// Families to speak of; both when empty.
	Families []Family

	// HoldTime after which a silent router is taken for dead: whole seconds, at least 3; 90 s when zero.
	HoldTime time.Duration
	// KeepaliveTime is in whole seconds; a third of HoldTime when zero.
	KeepaliveTime time.Duration
	// ConnectRetryTime is in whole seconds; 120 s when zero. GoBGP never waits less than 2 s. In the first minute with a peer,
	// or after its session has ended, it is 5 s at most.
	ConnectRetryTime time.Duration
	// Passive waits for the router to connect, on port 179.
	Passive bool

	// EBGPMultiHop is the TTL towards an external router that is not on the same link; 0 means that it is.
	EBGPMultiHop uint8
	// TTLSecurityHops is how many hops away the router may be when packets that may come from further are to be dropped
	// (RFC 5082); 0 drops nothing.
	TTLSecurityHops uint8
	// Password signs TCP segments by MD5 (RFC 2385).
	Password Secret

	GracefulRestart GracefulRestart

	// MostRefused is how many routes of a family the router may advertise to us: the constant when zero. They are refused, and
	// take memory all the same. With one more the session ends, for a minute at first and up to half an hour. During a session it
	// can only grow.
	MostRefused uint32
	// ShutDown adds the GRACEFUL_SHUTDOWN community (RFC 8326) to all routes to this peer.
	ShutDown bool
}

// Secret is not printed.
type Secret string

func (Secret) String() string { return "(secret)" }

// GoString is of fmt.GoStringer.
func (Secret) GoString() string { return "(secret)" }

// GracefulRestart is RFC 4724 with us as the one who restarts.
type GracefulRestart struct {
	Enabled bool
	// RestartTime is how long the router keeps the routes of a session that is gone: whole seconds, at most 4095; 120 s when
	// zero.
	RestartTime time.Duration
}

// Route is a prefix to advertise to some peers.
type Route struct {
	Prefix netip.Prefix
	// Peers by name.
	Peers []string
	// NextHop is our address on the session when not set. An IPv6 route over an IPv4 session needs one.
	NextHop netip.Addr
	// LocalPref is for internal peers only; 100 when nil.
	LocalPref *uint32
	MED       *uint32
	// Communities: standard "64512:100" (RFC 1997), large "64512:1:2" (RFC 8092), and well-known names such as "no-export".
	Communities []string
	// Prepend is how many times more our autonomous system is in the path that external peers see.
	Prepend uint8
	// Bandwidth in bytes per second is advertised as the link bandwidth (draft-ietf-idr-link-bandwidth), up to what 32 bits
	// can take; 0 is not.
	Bandwidth float32
}

// Status is a peer as it is now.
type Status struct {
	Peer string
	// Address of the router, and ours on the session; not set as long as an unnumbered one is not known.
	Address, Source netip.Addr
	// State of RFC 4271, section 8.2.2: Idle, Connect, Active, OpenSent, OpenConfirm or Established.
	State string
	// Since when it is in this State.
	Since time.Time
	// Without is since when there is no session; zero when Established.
	Without time.Time
	// LastError is why the session is not, in words; empty when it is Established.
	LastError string
	// NoHoldTime says that the router has asked for a hold time of 0 (RFC 4271, section 4.4): there are no keepalives, and
	// neither side notices when the other is gone.
	NoHoldTime bool
	// Families that both sides speak, when Established.
	Families []Family
	// Advertised counts the routes sent, by family.
	Advertised map[Family]int
	// RefusedRoutes counts what the router has advertised to us, since the peer was set; but for routes with our AS in their path,
	// as those of other nodes have.
	RefusedRoutes uint64
}

// Options of a Speaker.
type Options struct {
	// RouterID is the BGP identifier for peers that have none of their own. It is written as an IPv4 address.
	RouterID netip.Addr
	// Restarting says that a Speaker before us may have left routes that the routers still keep (RFC 4724, section 4.1). The
	// first set of routes with a peer must then be complete.
	Restarting bool
	// Notify is told of each change of a peer's State or LastError, in their order, from Run's goroutine.
	Notify func(Status)
}

// Speaker keeps sessions and advertises routes while it runs. It is a prometheus.Collector.
type Speaker struct {
	options Options
	board   board

	// setting is held while the servers are changed.
	setting sync.Mutex
	running bool
	calls   context.Context // of calls of GoBGP: it outlives Run's, as there are some to make at the end
	told    map[string]bool // names of neighbors that there has been an attempt with
	quiet   bool
	peers   []Peer // valid ones
	routes  []Route
	known   map[string]bool // names of peers, valid or not
	links   map[string]link // by interface, what is known of the router there
	servers map[identity]*server
	// incomplete says that GoBGP has refused something, which it may take later: a port that it is to listen on may get free.
	incomplete bool

	// changed tells Run that the interfaces to watch may be others.
	changed chan struct{}
}

// New returns a Speaker that does nothing until it is run.
func New(o Options) *Speaker {
	return &Speaker{
		options: o, told: map[string]bool{},
		board: newBoard(), links: map[string]link{}, servers: map[identity]*server{}, changed: make(chan struct{}, 1),
	}
}

// Set replaces the peers and the routes. Calling it again with the same ones changes nothing. Before Run, they are kept.
//
// An error concerns the peers and routes it names; all others are kept.
func (s *Speaker) Set(peers []Peer, routes []Route) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	valid, wrong := Valid(peers, s.options)
	s.known, s.peers = map[string]bool{}, valid
	var invalid []error
	for _, p := range peers {
		s.known[p.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		invalid = append(invalid, fmt.Errorf("peer %s: %w", name, wrong[name]))
	}
	s.routes = slices.Clone(routes)
	s.board.keep(s.peers)
	return errors.Join(append(invalid, s.apply()...)...)
}

// Valid returns the peers that there can be sessions with, with their defaults, and by name what is wrong with the others. Of
// two that exclude each other it is the later one.
func Valid(peers []Peer, o Options) (valid []Peer, wrong map[string]error) {
	wrong = map[string]error{}
	for _, p := range peers {
		err := p.validate(o)
		switch {
		case err != nil:
		case slices.ContainsFunc(valid, func(v Peer) bool { return v.Name == p.Name }):
			err = errors.New("there is another peer of this name")
		case p.Address.IsValid() && slices.ContainsFunc(valid, func(v Peer) bool { return v.Address == p.Address }):
			err = errors.New("there is another peer with this address")
		case p.unnumbered() && slices.ContainsFunc(valid, func(v Peer) bool { return v.unnumbered() && v.Interface == p.Interface }):
			err = errors.New("there is another peer on this interface")
		case p.Passive && slices.ContainsFunc(valid, func(v Peer) bool { return v.Passive && v.RouterID != p.withDefaults(o).RouterID }):
			// Each router ID has a server of its own, and two of them cannot listen on one port.
			err = errors.New("there is another passive peer with another router ID")
		}
		if err != nil {
			wrong[p.Name] = err
			continue
		}
		valid = append(valid, p.withDefaults(o))
	}
	return valid, wrong
}

// LeaveQuietly has Run end without a word to routers that do graceful restart, so that they keep the routes for the Speaker
// that comes next. All others are told.
func (s *Speaker) LeaveQuietly() {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.quiet = true
}

// Statuses returns the peers, sorted by name. It may be called from anywhere.
func (s *Speaker) Statuses() []Status { return s.board.statuses() }

// Run keeps the sessions until ctx is done. Then it withdraws all routes and ends the sessions, see LeaveQuietly.
func (s *Speaker) Run(ctx context.Context) error {
	log := klog.FromContext(ctx)
	if err := s.start(ctx); err != nil {
		return err
	}
	watch := newLinkWatch(s)
	defer watch.stop()
	watch.follow(ctx, s.interfaces())
	silence := time.NewTicker(answerTime)
	defer silence.Stop()
	renewal := time.NewTimer(0)
	defer renewal.Stop()
	for {
		select {
		case <-renewal.C:
			s.comeBack(log, renewal)
		case now := <-silence.C:
			s.board.unanswered(now)
			s.complete(log)
		case <-ctx.Done():
			watch.stop()
			return s.stop(log)
		case <-s.changed:
			watch.follow(ctx, s.interfaces())
		case <-s.board.news:
			for _, status := range s.board.take() {
				if status.State == established {
					status.NoHoldTime = s.askHoldTime(ctx, status)
				}
				log.Info("BGP session", "peer", status.Peer, "state", status.State, "reason", status.LastError)
				if s.options.Notify != nil {
					s.options.Notify(status)
				}
			}
			s.comeBack(log, renewal)
		}
	}
}

func (s *Speaker) start(ctx context.Context) error {
	log := klog.FromContext(ctx)
	s.setting.Lock()
	defer s.setting.Unlock()
	if s.running {
		return errors.New("the BGP speaker is running already")
	}
	s.running, s.calls, s.board.log = true, context.WithoutCancel(ctx), log
	for _, err := range s.apply() {
		log.Error(err, "Starting BGP")
	}
	return nil
}

// stop ends all servers at the same time, so that no router waits for another.
func (s *Speaker) stop(log klog.Logger) error {
	s.setting.Lock()
	defer s.setting.Unlock()
	var ends sync.WaitGroup
	failed := make(chan error, len(s.servers))
	for _, server := range s.servers {
		ends.Go(func() { failed <- server.stop(s.quiet) })
	}
	ends.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	s.running = false
	clear(s.servers)
	if len(s.peers) > 0 {
		log.Info("BGP has ended", "peers", len(s.peers), "quietly", s.quiet)
	}
	return errors.Join(errs...)
}

// askHoldTime finds out whether a session has no hold time, which GoBGP does not tell by itself.
func (s *Speaker) askHoldTime(ctx context.Context, of Status) (none bool) {
	s.setting.Lock()
	defer s.setting.Unlock()
	for _, server := range s.servers {
		if n, ok := server.neighbors[of.Peer]; ok {
			_ = server.ListPeer(ctx, &api.ListPeerRequest{Address: n.Address.String()}, func(p *api.Peer) {
				none = p.GetState().GetSessionState() == api.PeerState_SESSION_STATE_ESTABLISHED && p.GetTimers().GetState().GetNegotiatedHoldTime() == 0
			})
		}
	}
	s.board.change(of.Peer, func(e *entry) { e.status.NoHoldTime = none && e.status.State == established })
	return none
}

// apply brings the servers to what is desired.
func (s *Speaker) apply() (errs []error) {
	neighbors := map[identity][]neighbor{}
	var all []neighbor
	for _, p := range s.peers {
		n := neighbor{Peer: p}
		if p.unnumbered() {
			n.Address, n.Source = s.links[p.Interface].router, s.links[p.Interface].ours
		}
		neighbors[p.identity()] = append(neighbors[p.identity()], n)
		all = append(all, n)
	}
	routes, invalid := s.resolve(all)
	errs = append(errs, invalid...)
	if !s.running {
		return errs
	}
	s.incomplete = false
	for id, running := range s.servers {
		if neighbors[id] == nil {
			delete(s.servers, id)
			errs = append(errs, running.stop(false))
		}
	}
	for _, id := range slices.SortedFunc(maps.Keys(neighbors), identity.compare) {
		running, err := s.server(id)
		if err != nil {
			s.incomplete = true
			for _, n := range neighbors[id] {
				errs = append(errs, fmt.Errorf("peer %s: %w", n.Name, err))
				s.board.failed(n.Name, err.Error())
			}
			continue
		}
		refused := running.set(neighbors[id], routes, s.restarts)
		s.incomplete = s.incomplete || len(refused) > 0
		errs = append(errs, refused...)
	}
	s.board.advertised(routes)
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return errs
}

// complete tries again what GoBGP has refused.
func (s *Speaker) complete(log klog.Logger) {
	s.setting.Lock()
	defer s.setting.Unlock()
	if !s.incomplete {
		return
	}
	for _, err := range s.apply() {
		log.V(1).Info("Applying BGP again", "reason", err.Error())
	}
}

// restarts says that a neighbor is told for the first time of us, who may have been there before: its routes may still be kept.
func (s *Speaker) restarts(name string) bool {
	if !s.options.Restarting || s.told[name] {
		return false
	}
	s.told[name] = true
	return true
}

// resolve is what each prefix is to look like to each peer.
func (s *Speaker) resolve(peers []neighbor) (routes, []error) {
	byName := make(map[string]neighbor, len(peers))
	for _, n := range peers {
		byName[n.Name] = n
	}
	return resolve(byName, s.known, s.routes)
}

// server returns the running server of an identity.
func (s *Speaker) server(id identity) (*server, error) {
	if running := s.servers[id]; running != nil {
		return running, nil
	}
	started, err := newServer(s.calls, id, &s.board)
	if err != nil {
		return nil, err
	}
	s.servers[id] = started
	return started, nil
}

// interfaces that have an unnumbered peer.
func (s *Speaker) interfaces() (names []string) {
	s.setting.Lock()
	defer s.setting.Unlock()
	for _, p := range s.peers {
		if p.unnumbered() {
			names = append(names, p.Interface)
		}
	}
	return names
}

// heard is called with what is known of the router on an interface, when that changes.
func (s *Speaker) heard(name string, l link) {
	s.setting.Lock()
	defer s.setting.Unlock()
	s.links[name] = l
	for _, err := range s.apply() {
		s.board.log.V(1).Info("Applying BGP", "interface", name, "reason", err.Error())
	}
}
