package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	gobgp "github.com/osrg/gobgp/v4/pkg/server"
)

const (
	// batch is how many paths GoBGP is given at a time. It does nothing else meanwhile.
	batch = 1000
	// goodbye is how long withdrawals and notifications may take to get out.
	goodbye = 500 * time.Millisecond
	// patience is how long GoBGP may take to stop. It does not look at its context.
	patience = 3 * time.Second
)

// server is a GoBGP server and what it has been told.
type server struct {
	*gobgp.BgpServer
	board     *board
	ctx       context.Context // of calls of GoBGP
	cancel    context.CancelFunc
	numbers   numbering
	neighbors map[string]neighbor
	plan      plan
}

// newServer starts a GoBGP server. It listens only if its peers are passive.
//
// GoBGP wants an autonomous system of its own, but as each peer names ours, it is never seen: AS_TRANS is nobody's.
func newServer(ctx context.Context, id identity, b *board) (*server, error) {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{
		BgpServer: gobgp.NewBgpServer(gobgp.LoggerOption(slog.New(tap{board: b}), nil)),
		board:     b, ctx: ctx, cancel: cancel,
		numbers: newNumbering(), neighbors: map[string]neighbor{},
	}
	go s.Serve()
	port := int32(-1)
	if id.passive {
		port = bgp.BGP_PORT
	}
	err := s.begin(ctx, &api.Global{
		Asn: bgp.AS_TRANS, RouterId: id.routerID.String(), ListenPort: port,
		Families: []uint32{0, 1}, // IPv4 and IPv6 unicast, by their place in a table of GoBGP
	})
	if err != nil {
		return nil, errors.Join(err, s.stop(true))
	}
	return s, nil
}

func (s *server) begin(ctx context.Context, global *api.Global) error {
	if err := s.StartBgp(ctx, &api.StartBgpRequest{Global: global}); err != nil {
		return fmt.Errorf("starting BGP: %w", err)
	}
	if err := s.SetPolicies(ctx, rules{}.gobgp()); err != nil {
		return fmt.Errorf("setting policies: %w", err)
	}
	for name, direction := range map[string]api.PolicyDirection{
		importPolicy: api.PolicyDirection_POLICY_DIRECTION_IMPORT,
		exportPolicy: api.PolicyDirection_POLICY_DIRECTION_EXPORT,
	} {
		err := s.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
			Name: "global", Direction: direction, Policies: []*api.Policy{{Name: name}},
			DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		}})
		if err != nil {
			return fmt.Errorf("assigning the %s policy: %w", name, err)
		}
	}
	err := s.WatchEvent(ctx, gobgp.WatchEventMessageCallbacks{
		OnPeerUpdate: func(e *apiutil.WatchEventMessage_PeerEvent, at time.Time) {
			if e.Type != apiutil.PEER_EVENT_STATE {
				return
			}
			if wrong := s.board.moved(e.Peer, at); wrong {
				_ = s.ShutdownPeer(ctx, &api.ShutdownPeerRequest{Address: e.Peer.State.NeighborAddress.String()})
			}
		},
		OnPathUpdate: func(paths []*apiutil.Path, _ time.Time) { s.board.refused(paths) },
	}, gobgp.WatchPeer(), gobgp.WatchUpdate(false, "", ""))
	if err != nil {
		return fmt.Errorf("watching peers: %w", err)
	}
	return nil
}

// set brings GoBGP to what is desired. A path passes to a peer only while there is a rule for its tag, and when it is replaced
// by one that does not pass, that rule is why GoBGP withdraws it. So the rules that come are set before the paths, and those
// that go are taken away after them. New peers come last: the first thing that they hear is complete.
func (s *server) set(neighbors []neighbor, all routes, restarts func(name string) bool) (errs []error) {
	plan := s.numbers.plan(neighbors, all)
	desired := map[string]neighbor{}
	for _, n := range neighbors {
		if n.Address.IsValid() {
			desired[n.Name] = n
		}
	}
	errs = append(errs, s.removePeers(desired)...)
	between := maps.Clone(s.plan.rules)
	if between == nil {
		between = rules{}
	}
	maps.Copy(between, plan.rules)
	if err := s.setRules(between); err != nil {
		return append(errs, err)
	}
	errs = append(errs, s.setPaths(plan.announcements)...)
	errs = append(errs, s.addPeers(neighbors, restarts)...)
	if err := s.setRules(plan.rules); err != nil {
		return append(errs, err)
	}
	s.forget()
	return errs
}

// forget gives up the numbers that no rule has.
func (s *server) forget() {
	used := map[uint32]bool{}
	for t := range s.plan.rules {
		used[t.peer], used[t.variant] = true, true
	}
	maps.DeleteFunc(s.numbers.peers, func(_ string, n uint32) bool { return !used[n] })
	maps.DeleteFunc(s.numbers.variants, func(_ attributes, n uint32) bool { return !used[n] })
}

func (s *server) setRules(rs rules) error {
	if maps.Equal(s.plan.rules, rs) {
		return nil
	}
	if err := s.SetPolicies(s.ctx, rs.gobgp()); err != nil {
		return fmt.Errorf("setting policies: %w", err)
	}
	s.plan.rules = maps.Clone(rs)
	return nil
}

// removePeers also removes those whose session is to be another one.
func (s *server) removePeers(desired map[string]neighbor) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(s.neighbors)) {
		is := s.neighbors[name]
		if n, ok := desired[name]; ok && n.sameSession(is) {
			continue
		}
		if err := s.removePeer(is); err != nil {
			errs = append(errs, fmt.Errorf("peer %s: ending the session: %w", name, err))
		}
		delete(s.neighbors, name)
		s.board.gone(is)
	}
	return errs
}

func (s *server) removePeer(n neighbor) error {
	if n.Passive && n.Password != "" {
		// Deleting a peer does not take its password from the listening socket; changing it does.
		n.Password = ""
		if _, err := s.UpdatePeer(s.ctx, &api.UpdatePeerRequest{Peer: n.gobgp(false, false)}); err != nil {
			return err
		}
	}
	return s.DeletePeer(s.ctx, &api.DeletePeerRequest{Address: n.Address.String()})
}

// addPeers also changes those whose session stays.
func (s *server) addPeers(neighbors []neighbor, restarts func(name string) bool) (errs []error) {
	for _, n := range neighbors {
		is, exists := s.neighbors[n.Name]
		if exists {
			n.MostRefused = max(n.MostRefused, is.MostRefused) // the router may be beyond the other one already
		}
		var err error
		switch {
		case !n.Address.IsValid():
			continue
		case !exists:
			restarting := restarts(n.Name)
			s.board.added(n, restarting)
			err = s.AddPeer(s.ctx, &api.AddPeerRequest{Peer: n.gobgp(restarting, true)})
		case is.ConnectRetryTime != n.ConnectRetryTime || is.MostRefused < n.MostRefused:
			s.board.changed(n)
			_, err = s.UpdatePeer(s.ctx, &api.UpdatePeerRequest{Peer: n.gobgp(false, s.board.eager(n.Name))})
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", n.Name, err))
			s.board.failed(n.Name, err.Error())
			continue
		}
		s.neighbors[n.Name] = n
	}
	return errs
}

// setPaths withdraws and advertises what has changed.
func (s *server) setPaths(desired map[netip.Prefix]announcement) (errs []error) {
	var withdraw, advertise []*apiutil.Path
	for prefix := range s.plan.announcements {
		if _, ok := desired[prefix]; !ok {
			withdraw = append(withdraw, withdrawal(prefix))
		}
	}
	type shared struct {
		announcement
		Family
	}
	made := map[shared][]bgp.PathAttributeInterface{}
	for prefix, a := range desired {
		if is, ok := s.plan.announcements[prefix]; ok && is == a {
			continue
		}
		key := shared{a, familyOf(prefix)}
		if made[key] == nil {
			attrs, err := a.gobgp(key.Family, a.unpackTags())
			if err != nil {
				errs = append(errs, fmt.Errorf("route %s: %w", prefix, err))
				continue
			}
			made[key] = attrs
		}
		path := withdrawal(prefix)
		path.Withdrawal, path.Attrs, path.Age = false, made[key], time.Now().Unix()
		advertise = append(advertise, path)
	}
	for paths := range slices.Chunk(withdraw, batch) {
		if err := s.DeletePath(apiutil.DeletePathRequest{Paths: paths}); err != nil {
			errs = append(errs, fmt.Errorf("withdrawing routes: %w", err))
		}
	}
	for paths := range slices.Chunk(advertise, batch) {
		if _, err := s.AddPath(apiutil.AddPathRequest{Paths: paths}); err != nil {
			errs = append(errs, fmt.Errorf("advertising routes: %w", err))
		}
	}
	s.plan.announcements = desired
	return errs
}

func withdrawal(prefix netip.Prefix) *apiutil.Path {
	family := bgp.RF_IPv4_UC
	if !prefix.Addr().Is4() {
		family = bgp.RF_IPv6_UC
	}
	nlri, _ := bgp.NewIPAddrPrefix(prefix)
	return &apiutil.Path{Family: family, Nlri: nlri, Withdrawal: true}
}

// stop ends all sessions: quietly as far as routers will keep the routes, else with withdrawals and a NOTIFICATION.
func (s *server) stop(quietly bool) error {
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if !quietly {
			s.sayGoodbye()
		}
		s.cancel()
		// An error says that there is nothing to stop, as Stop does in the log.
		_ = s.StopBgp(s.ctx, &api.StopBgpRequest{AllowGracefulRestart: quietly})
		s.Stop()
	}()
	var err error
	select {
	case <-stopped:
	case <-time.After(patience):
		err = errors.New("BGP did not stop in time")
	}
	for _, n := range s.neighbors {
		s.board.gone(n)
	}
	return err
}

func (s *server) sayGoodbye() {
	if errs := s.setPaths(nil); len(errs) > 0 {
		s.board.log.V(1).Info("Withdrawing", "reason", errors.Join(errs...).Error())
	}
	waiting := false
	for _, n := range s.neighbors {
		if s.board.established(n.Name) {
			_ = s.ShutdownPeer(s.ctx, &api.ShutdownPeerRequest{Address: n.Address.String()})
			waiting = true
		}
	}
	for deadline := time.Now().Add(goodbye); waiting && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		waiting = false
		for _, n := range s.neighbors {
			waiting = waiting || s.board.established(n.Name)
		}
	}
}
