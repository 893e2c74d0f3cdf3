package bgp

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"golang.org/x/sys/unix"
)

// MostRefused is how many routes of a family a router may advertise to us, unless its Peer says otherwise. GoBGP counts all of
// them at each message with routes, which has to stay cheap.
const MostRefused = 10_000

const (
	defaultHoldTime    = 90 * time.Second
	defaultRestartTime = 120 * time.Second
)

// identity is what peers must have in common to share a server. An unnumbered peer has one to itself: GoBGP's policies do not
// look at zones, and the routers on two links may have the same link-local address.
type identity struct {
	routerID netip.Addr
	passive  bool
	link     string
}

func (i identity) compare(o identity) int {
	return cmp.Or(cmp.Compare(b2i(i.passive), b2i(o.passive)), cmp.Compare(i.link, o.link), i.routerID.Compare(o.routerID))
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// neighbor is a peer with what has been found out about an unnumbered one: its Address and our Source may have a zone, or not
// be known.
type neighbor struct {
	Peer
}

func (p Peer) identity() identity { return identity{p.RouterID, p.Passive, p.Interface} }
func (p Peer) unnumbered() bool   { return !p.Address.IsValid() }
func (p Peer) internal() bool     { return p.PeerType == Internal || p.PeerASN == p.LocalASN }
func (p Peer) speaks(f Family) bool {
	return slices.Contains(p.Families, f)
}

func (p Peer) validate(o Options) error {
	id := p.RouterID
	if !id.IsValid() {
		id = o.RouterID
	}
	switch {
	case p.Name == "":
		return errors.New("a peer needs a name")
	case !id.Is4() || id.IsUnspecified():
		return errors.New("the router ID must be written as an IPv4 address")
	}
	return errors.Join(p.validateASN(), p.validateAddress(), p.validateTimers(), p.validateTransport())
}

func (p Peer) validateASN() error {
	switch {
	case p.LocalASN == 0:
		return errors.New("the local ASN must not be 0")
	case p.PeerType != "" && p.PeerType != External && p.PeerType != Internal:
		return fmt.Errorf("peer type %q is neither External nor Internal", p.PeerType)
	case p.PeerASN == 0 && p.PeerType == "":
		return errors.New("a peer needs an ASN or a type")
	// With its defaults an internal peer has both.
	case p.PeerASN != 0 && p.PeerType != "" && (p.PeerType != Internal || p.PeerASN != p.LocalASN):
		return errors.New("an ASN and a type exclude each other")
	}
	return nil
}

func (p Peer) validateAddress() error {
	switch {
	case !p.Address.IsValid() && p.Interface == "":
		return errors.New("a peer needs an address or an interface")
	case p.Address.IsValid() && p.Interface != "":
		return errors.New("an address and an interface exclude each other")
	case len(p.Interface) >= unix.IFNAMSIZ:
		return errors.New("the interface's name is too long")
	case p.Address.IsValid() && (p.Address.IsUnspecified() || p.Address.IsMulticast() || p.Address.Is4In6()):
		return fmt.Errorf("%s is not the address of a router", p.Address)
	case p.Address.IsLinkLocalUnicast() && p.Address.Is6() && p.Address.Zone() == "":
		return errors.New("a link-local address needs a zone: use the interface instead")
	case p.Passive && p.unnumbered():
		return errors.New("a peer on an interface cannot be passive")
	case p.Source.IsValid() && p.unnumbered():
		return errors.New("a peer on an interface has no source address")
	case p.Source.IsValid() && p.Source.Is4() != p.Address.Is4():
		return fmt.Errorf("the source address %s is of another family than the peer's", p.Source)
	}
	for _, f := range p.Families {
		if f != IPv4 && f != IPv6 {
			return fmt.Errorf("there is no family %q", f)
		}
	}
	return nil
}

func (p Peer) validateTimers() error {
	switch {
	case p.HoldTime != 0 && (p.HoldTime < 3*time.Second || p.HoldTime > 65535*time.Second):
		return fmt.Errorf("a hold time of %s is not between 3s and 65535s", p.HoldTime)
	case p.KeepaliveTime < 0 || p.KeepaliveTime >= cmp.Or(p.HoldTime, defaultHoldTime):
		return fmt.Errorf("a keepalive time of %s is not shorter than the hold time", p.KeepaliveTime)
	case p.ConnectRetryTime < 0 || p.ConnectRetryTime > 65535*time.Second:
		return fmt.Errorf("a connect retry time of %s is not between 0s and 65535s", p.ConnectRetryTime)
	case p.GracefulRestart.RestartTime < 0 || p.GracefulRestart.RestartTime > 4095*time.Second:
		return fmt.Errorf("a restart time of %s is not between 0s and 4095s", p.GracefulRestart.RestartTime)
	}
	for _, d := range []time.Duration{p.HoldTime, p.KeepaliveTime, p.ConnectRetryTime, p.GracefulRestart.RestartTime} {
		if d%time.Second != 0 {
			return fmt.Errorf("a time of %s is not in whole seconds", d)
		}
	}
	return nil
}

func (p Peer) validateTransport() error {
	switch {
	case p.TTLSecurityHops != 0 && p.EBGPMultiHop != 0:
		return errors.New("TTL security and multi-hop exclude each other")
	case p.TTLSecurityHops == 255:
		return errors.New("TTL security is for 254 hops at most")
	case p.EBGPMultiHop != 0 && p.internal():
		return errors.New("multi-hop is for external peers; internal ones may be any distance away")
	case len(p.Password) > unix.TCP_MD5SIG_MAXKEYLEN:
		return fmt.Errorf("the password is longer than %d bytes", unix.TCP_MD5SIG_MAXKEYLEN)
	}
	return nil
}

// withDefaults also takes on what GoBGP calls by another name.
func (p Peer) withDefaults(o Options) Peer {
	if !p.RouterID.IsValid() {
		p.RouterID = o.RouterID
	}
	if p.PeerType == Internal {
		p.PeerASN = p.LocalASN
	}
	if len(p.Families) == 0 {
		p.Families = []Family{IPv4, IPv6}
	}
	p.Families = slices.Compact(slices.Sorted(slices.Values(p.Families)))
	p.Port = cmp.Or(p.Port, 179)
	p.MostRefused = cmp.Or(p.MostRefused, MostRefused)
	p.HoldTime = cmp.Or(p.HoldTime, defaultHoldTime)
	p.KeepaliveTime = cmp.Or(p.KeepaliveTime, (p.HoldTime / 3).Truncate(time.Second))
	if p.GracefulRestart.Enabled {
		p.GracefulRestart.RestartTime = cmp.Or(p.GracefulRestart.RestartTime, defaultRestartTime)
	}
	return p
}

// sameSession says whether two peers need the same connection and OPEN message.
func (n neighbor) sameSession(o neighbor) bool {
	if !slices.Equal(n.Families, o.Families) {
		return false
	}
	return n.session() == o.session()
}

// session is a neighbor without what can change while a session lasts.
func (n neighbor) session() (s struct {
	LocalASN, PeerASN             uint32
	Address, Source               netip.Addr
	Port                          uint16
	HoldTime, KeepaliveTime       time.Duration
	Passive                       bool
	EBGPMultiHop, TTLSecurityHops uint8
	Password                      Secret
	GracefulRestart               GracefulRestart
}) {
	s.LocalASN, s.PeerASN = n.LocalASN, n.PeerASN
	s.Address, s.Source, s.Port = n.Address, n.Source, n.Port
	s.HoldTime, s.KeepaliveTime, s.Passive = n.HoldTime, n.KeepaliveTime, n.Passive
	s.EBGPMultiHop, s.TTLSecurityHops = n.EBGPMultiHop, n.TTLSecurityHops
	s.Password, s.GracefulRestart = n.Password, n.GracefulRestart
	return s
}

// gobgp is the neighbor in GoBGP's words.
func (n neighbor) gobgp(restarting, eagerly bool) *api.Peer {
	peer := &api.Peer{
		Conf: &api.PeerConf{
			NeighborAddress: n.Address.String(),
			LocalAsn:        n.LocalASN,
			PeerAsn:         n.PeerASN, // 0 is any
			AuthPassword:    string(n.Password),
		},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime:          seconds(n.HoldTime),
			KeepaliveInterval: max(1, seconds(n.KeepaliveTime)),
			ConnectRetry:      seconds(n.retry(eagerly)),
		}},
		Transport: &api.Transport{RemotePort: uint32(n.Port), PassiveMode: n.Passive},
	}
	if n.Source.IsValid() {
		peer.Transport.LocalAddress = n.Source.String()
	}
	if n.EBGPMultiHop != 0 {
		peer.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.EBGPMultiHop)}
	}
	if n.TTLSecurityHops != 0 {
		peer.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(n.TTLSecurityHops)}
	}
	restart := n.GracefulRestart.Enabled
	if restart {
		peer.GracefulRestart = &api.GracefulRestart{
			Enabled:     true,
			RestartTime: uint32(seconds(n.GracefulRestart.RestartTime)),
			// We select nothing from what routers say, so there is nothing to wait for (RFC 4724, section 4.1). GoBGP would
			// wait for all peers, 360 s for one that is down.
			DeferralTime:    1,
			LocalRestarting: restarting,
		}
	}
	for _, f := range n.Families {
		peer.AfiSafis = append(peer.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: f.gobgp(), Enabled: true},
			PrefixLimits:      &api.PrefixLimit{Family: f.gobgp(), MaxPrefixes: n.MostRefused},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: restart}},
		})
	}
	return peer
}

func seconds(d time.Duration) uint64 { return uint64(d / time.Second) }

func (f Family) gobgp() *api.Family {
	if f == IPv4 {
		return &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	}
	return &api.Family{Afi: api.Family_AFI_IP6, Safi: api.Family_SAFI_UNICAST}
}
