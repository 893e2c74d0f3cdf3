package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// within is the world for a part of its test.
func (w *world) within(t testing.TB) *world {
	return &world{TB: t, ctx: t.Context(), namespace: w.namespace, v4: w.v4, v6: w.v6}
}

// unnumbered is a router with node1 on a port of its own.
const unnumbered = `
router bgp 64513
 bgp router-id 198.51.100.2
 no bgp ebgp-requires-policy
 neighbor node1 interface remote-as external
 neighbor node1 timers connect 1
 neighbor node1 bfd
 address-family ipv6 unicast
  neighbor node1 activate
`

// knownConfig is a router with a neighbour for each node, which it connects to
// itself. Unlike neighbours from a range these are sent packets with a TTL of 1.
func knownConfig(nodes ...string) string {
	config := "router bgp 64513\n no bgp ebgp-requires-policy\n"
	for _, node := range nodes {
		v4, _ := box.Addrs(node)
		config += fmt.Sprintf(" neighbor %[1]s remote-as 64512\n neighbor %[1]s timers connect 1\n"+
			" address-family ipv6 unicast\n  neighbor %[1]s activate\n exit-address-family\n", v4)
	}
	return config
}

// farConfig is the core, which reaches the nodes by its default route.
func farConfig(lines ...string) string {
	return "ip nht resolve-via-default\nipv6 nht resolve-via-default\n" +
		torConfig("core", torASN, nodeASN, append(lines, "ebgp-multihop 5")...)
}

func address(host string) func(*v1alpha1.BGPPeerSpec) {
	return func(s *v1alpha1.BGPPeerSpec) {
		v4, _ := box.Addrs(host)
		s.Address = v4.String()
	}
}

// neighborSays waits until FRR knows of a neighbour what it should.
func (r *tor) neighborSays(name, what string, check func(neighbor) bool) {
	r.Helper()
	r.eventually(fmt.Sprintf("%s knows of %s: %s", r.host, name, what), func() error {
		n := r.neighbors()[name]
		if n.State != "Established" || !check(n) {
			return fmt.Errorf("it knows %+v", n)
		}
		return nil
	})
}

// bfdPeer is a BFD session of FRR.
type bfdPeer struct {
	Peer, Status string
	MultiHop     bool `json:"multihop"`
	Receive      int  `json:"remote-receive-interval"`
	Transmit     int  `json:"remote-transmit-interval"`
	Multiplier   int  `json:"remote-detect-multiplier"`
}

func (r *tor) bfd() (peers []bfdPeer) {
	r.Helper()
	r.must(r.Read(r.ctx, "show bfd peers", &peers))
	return peers
}

func TestEachFieldOfABGPPeer(t *testing.T) {
	w := newRoutedWorld(t)
	w.dualPool()
	w.advertise("a", nil)
	v4, v6 := w.routedService("web", nil, "node1")
	for _, c := range []struct {
		name, host, config string
		// neighbor is what FRR calls node1 when it does not know its address; hop is whom its routes lead to then.
		neighbor, hop string
		prepare       func(w *world)
		peer          func(*v1alpha1.BGPPeerSpec)
		check         func(w *world, r *tor, peer string)
	}{
		{
			name: "address, of IPv6", host: "router2", config: torConfig("router2", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) { s.Address = "2001:db8:51::2" },
		},
		{
			name: "defaultGateway of IPv4", host: "router", config: torConfig("router", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) { s.Address, s.DefaultGateway = "", "IPv4" },
			check: func(w *world, _ *tor, peer string) {
				if s := w.session("node1", peer); s.Address != "198.51.100.1" {
					w.Errorf("the peer is %s", s.Address)
				}
			},
		},
		{
			name: "defaultGateway of IPv6", host: "router", config: torConfig("router", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) { s.Address, s.DefaultGateway = "", "IPv6" },
			check: func(w *world, _ *tor, peer string) {
				if s := w.session("node1", peer); s.Address != "2001:db8:51::1" {
					w.Errorf("the peer is %s", s.Address)
				}
			},
		},
		{
			name: "localASN, peerType External", host: "router2", config: torConfig("router2", torASN, 65010),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.LocalASN, s.PeerASN, s.PeerType = 65010, nil, "External"
			},
			check: func(_ *world, r *tor, _ string) {
				r.neighborSays("node1", "its AS", func(n neighbor) bool { return n.RemoteAS == 65010 })
			},
		},
		{
			name: "peerASN of our own", host: "router2", config: torConfig("router2", nodeASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.PeerASN = ptr.To[int64](nodeASN)
			},
		},
		{
			name: "interface", host: "router2", config: unnumbered, neighbor: "node1", hop: "link-local",
			prepare: func(w *world) {
				w.must(box.Link(w.ctx, "node1", "fabric", "router2", "node1"))
				w.Cleanup(func() { box.Unlink(context.Background(), "node1", "fabric") })
			},
			peer: func(s *v1alpha1.BGPPeerSpec) {
				s.Address, s.PeerASN, s.PeerType, s.Interface, s.BFD = "", nil, "External", "fabric", &v1alpha1.BFD{}
			},
			check: func(_ *world, r *tor, _ string) {
				r.neighborSays("node1", "BFD is up with the first session", func(n neighbor) bool { return n.BFD.Status == "Up" && n.Sessions == 1 })
			},
		},
		{
			name: "sourceAddress", host: "router2", config: torConfig("router2", torASN, nodeASN), neighbor: "198.51.100.91", hop: "198.51.100.91",
			prepare: func(w *world) {
				_, err := box.Exec(w.ctx, "node1", "ip", "addr", "add", "198.51.100.91/24", "dev", "eth0")
				w.must(err)
				w.Cleanup(func() {
					box.Exec(context.Background(), "node1", "ip", "addr", "del", "198.51.100.91/24", "dev", "eth0")
				})
			},
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.SourceAddress = "198.51.100.91"
			},
		},
		{
			name: "routerID", host: "router2", config: torConfig("router2", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.RouterID = "192.0.2.99"
			},
			check: func(_ *world, r *tor, _ string) {
				r.neighborSays("node1", "its router ID", func(n neighbor) bool { return n.RouterID == "192.0.2.99" })
			},
		},
		{
			name: "holdTime, keepaliveTime", host: "router2", config: torConfig("router2", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.HoldTime, s.KeepaliveTime = seconds(42), seconds(1)
			},
			check: func(w *world, r *tor, _ string) {
				r.neighborSays("node1", "the hold time", func(n neighbor) bool { return n.HoldMs == 42000 })
				// With a third of the hold time there would be five at most while that is waited for, at once none.
				const count = 6
				before, start := r.neighbors()["node1"].Stats.Keepalives, time.Now()
				r.neighborSays("node1", "six keepalives more", func(n neighbor) bool { return n.Stats.Keepalives-before >= count })
				if n := r.neighbors()["node1"].Stats.Keepalives - before; time.Duration(n-2)*time.Second > time.Since(start) {
					w.Errorf("%d keepalives in %v: want one a second", n, time.Since(start))
				}
			},
		},
		{
			name: "passive", host: "router2", config: knownConfig("node1"),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.Passive = true
			},
			check: func(_ *world, r *tor, _ string) {
				r.neighborSays("node1", "that it has been called", func(n neighbor) bool { return n.LocalPort != 179 })
			},
		},
		{
			name: "ebgpMultiHop, bfd.minimumTTL", host: "core", config: farConfig("bfd"),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("core")(s)
				s.EBGPMultiHop, s.BFD = 5, &v1alpha1.BFD{MinimumTTL: 254}
			},
			check: func(w *world, r *tor, peer string) {
				r.neighborSays("node1", "BFD is up", func(n neighbor) bool { return n.BFD.Status == "Up" })
				if peers := r.bfd(); len(peers) != 1 || !peers[0].MultiHop {
					w.Errorf("BFD sessions %+v: want one over several hops", peers)
				}
				// There is a hop, so packets come with 254.
				w.editPeer(peer, func(s *v1alpha1.BGPPeerSpec) { s.BFD.MinimumTTL = 255 })
				w.eventually("BFD is down", func() error {
					if s := w.session("node1", peer); s.BFD == "Up" {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
			},
		},
		{
			name: "ttlSecurityHops", host: "router2", config: torConfig("router2", torASN, nodeASN, "ttl-security hops 1"),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.TTLSecurityHops = 1
			},
		},
		{
			name: "passwordSecretRef.name, .key", host: "router2", config: torConfig("router2", torASN, nodeASN, "password very-secret"),
			prepare: func(w *world) { w.secret(w.namespace+"-key", "tcp-md5", "very-secret") },
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: w.namespace + "-key", Key: "tcp-md5"}
			},
		},
		{
			name: "gracefulRestart.enabled, .restartTime", host: "router2", config: torConfig("router2", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.GracefulRestart = &v1alpha1.GracefulRestart{RestartTime: seconds(77)}
			},
			check: func(w *world, r *tor, peer string) {
				r.neighborSays("node1", "its restart time", func(n neighbor) bool {
					return n.Restart.Remote == "Restart" && n.Restart.Timers.Received == 77
				})
				w.editPeer(peer, func(s *v1alpha1.BGPPeerSpec) { s.GracefulRestart.Enabled = ptr.To(false) })
				r.neighborSays("node1", "that it does not restart", func(n neighbor) bool { return n.Restart.Remote != "Restart" && n.Restart.Remote != "" })
			},
		},
		{
			name: "bfd.receiveInterval, .transmitInterval, .detectMultiplier, .enabled", host: "router2",
			config: torConfig("router2", torASN, nodeASN, "bfd"),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.BFD = &v1alpha1.BFD{ReceiveInterval: milliseconds(150), TransmitInterval: milliseconds(250), DetectMultiplier: 5}
			},
			check: func(w *world, r *tor, peer string) {
				r.neighborSays("node1", "BFD is up", func(n neighbor) bool { return n.BFD.Status == "Up" })
				w.eventually("FRR hears the intervals", func() error {
					if peers := r.bfd(); len(peers) != 1 || peers[0].Receive != 150 || peers[0].Transmit != 250 || peers[0].Multiplier != 5 {
						return fmt.Errorf("BFD sessions %+v", peers)
					}
					return nil
				})
				w.editPeer(peer, func(s *v1alpha1.BGPPeerSpec) { s.BFD.Enabled = ptr.To(false) })
				w.eventually("there is no BFD any more", func() error {
					if s := w.session("node1", peer); s.BFD != "" {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
			},
		},
		{
			name: "bfd.passive", host: "router2", config: torConfig("router2", torASN, nodeASN, "bfd profile silent") + "bfd\n profile silent\n  passive-mode\n exit\nexit\n",
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.BFD = &v1alpha1.BFD{Passive: true}
			},
			check: func(w *world, r *tor, peer string) {
				// Each waits for the other to begin.
				w.always("BFD is down", 3*time.Second, func() error {
					if s := w.session("node1", peer); s.BFD == "Up" {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
				w.must(r.Configure(w.ctx, "bfd", "profile silent", "no passive-mode"))
				w.eventually("BFD is up once the router begins", func() error {
					if s := w.session("node1", peer); s.BFD != "Up" {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
			},
		},
		{
			name: "families", host: "router2", config: torConfig("router2", torASN, nodeASN),
			peer: func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				s.Families = []string{"IPv4"}
			},
			check: func(w *world, r *tor, peer string) {
				if s := w.session("node1", peer); !slices.Equal(s.Families, []string{"IPv4"}) || s.AdvertisedIPv6 != 0 {
					w.Errorf("the session is %+v", s)
				}
				if paths := r.paths(host(v6)); len(paths) > 0 {
					w.Errorf("the router has %v to %s", paths, v6)
				}
				w.editPeer(peer, func(s *v1alpha1.BGPPeerSpec) { s.Families = []string{"IPv6"} })
				r.has(host(v6), from("path 64512", "node1"))
				r.has(host(v4), nil)
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.within(t)
			if c.prepare != nil {
				c.prepare(w)
			}
			router := w.frr(c.host, c.config)
			peer := w.peer("field", func(s *v1alpha1.BGPPeerSpec) {
				s.NodeSelector = onNodes("node1")
				c.peer(s)
			})
			w.established(peer, "node1")
			name := c.neighbor
			if name == "" {
				name = "node1"
			}
			router.neighborSays(name, "a session", func(neighbor) bool { return true })
			if neighbors := router.neighbors(); len(neighbors) != 1 {
				t.Errorf("the neighbours are %v: the peer selects node1 alone", slices.Collect(maps.Keys(neighbors)))
			}
			prefixes := []string{host(v4)}
			if c.name != "families" {
				prefixes = append(prefixes, host(v6))
			}
			for _, prefix := range prefixes {
				w.eventually(prefix+" is in the router's table", func() error {
					for hop, path := range router.paths(prefix) {
						local, _ := netip.ParseAddr(hop)
						if strings.HasPrefix(path, "path") && !strings.Contains(path, "invalid") &&
							(hop == "node1" || hop == c.hop || c.hop == "link-local" && local.IsLinkLocalUnicast()) {
							return nil
						}
					}
					return fmt.Errorf("paths %v", router.paths(prefix))
				})
			}
			if c.check != nil {
				c.check(w, router, peer)
			}
			w.dropPeer(peer)
			w.eventually("the session ends with its peer", func() error {
				if s := w.session("node1", peer); s.Peer != "" {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		})
	}
}

// elsewhere is a BIRD that listens on another port.
const elsewhere = `
router id 198.51.100.2;
protocol device {}
protocol bgp nodes {
	local 198.51.100.2 port 1790 as 64513;
	neighbor range 198.51.100.0/24 as 64512;
	ipv4 { import all; export none; };
	ipv6 { import all; export none; };
}`

func TestRoutersOnAnotherPortThatComeLate(t *testing.T) {
	w := newRoutedWorld(t)
	w.dualPool()
	w.advertise("a", nil)
	v4, _ := w.routedService("web", nil, "node1")
	peer := w.peer("bird", func(s *v1alpha1.BGPPeerSpec) {
		address("router2")(s)
		s.Port, s.ConnectRetryTime = 1790, seconds(2)
	})
	for _, node := range box.Nodes() {
		w.eventually(node+" is refused", func() error { return has(w.session(node, peer).LastError, "connection refused by 198.51.100.2:1790") })
	}
	w.peerSays(peer, metav1.ConditionFalse, v1alpha1.NotEstablished, "connection refused")
	w.event(peer, v1alpha1.NotEstablished, "connection refused")
	time.Sleep(10 * time.Second) // It is tried in vain for a while.
	bird, err := box.StartBIRD(w.ctx, "router2", elsewhere)
	w.must(err)
	w.Cleanup(func() { bird.Stop(context.Background()) })
	w.established(peer, box.Nodes()...) // GoBGP's own interval is two minutes, longer than that is waited for.
	w.eventually("BIRD has the route", func() error {
		routes, err := bird.Show(w.ctx, "route for "+host(v4)+" all")
		if err == nil && strings.Count(routes, "BGP.next_hop: 198.51.100.3") != 3 {
			err = fmt.Errorf("%s", routes)
		}
		return err
	})
	w.peerSays(peer, metav1.ConditionTrue, v1alpha1.Established)
}

func TestWhatIsWrongWithASessionIsTold(t *testing.T) {
	w := newRoutedWorld(t)
	w.secret(w.namespace, "password", "one")
	w.mayRead("none")
	w.withheld(w.namespace+"-withheld", "password", "one")
	steady := w.frr("router", torConfig("router", torASN, nodeASN))
	good := w.peer("good", nil)
	w.established(good, box.Nodes()...)
	sessions := steady.since()
	for _, c := range []struct {
		name, host, config string
		peer               func(*v1alpha1.BGPPeerSpec)
		reason             v1alpha1.Reason
		want               []string
	}{
		{
			"wrong password", "router2", torConfig("router2", torASN, nodeASN, "password other"),
			func(s *v1alpha1.BGPPeerSpec) { s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: w.namespace} },
			v1alpha1.NotEstablished,
			[]string{"no answer from 198.51.100.2:179", "wrong password"},
		},
		{
			"a password on one side", "router2", torConfig("router2", torASN, nodeASN, "password other"),
			func(*v1alpha1.BGPPeerSpec) {},
			v1alpha1.NotEstablished,
			[]string{"no answer from 198.51.100.2:179", "a password that the router wants"},
		},
		{
			"wrong AS of the router", "router2", torConfig("router2", 64999, nodeASN),
			func(*v1alpha1.BGPPeerSpec) {},
			v1alpha1.NotEstablished,
			[]string{"wrong AS: the router is not in AS 64513"},
		},
		{
			"wrong AS of ours", "router2", torConfig("router2", torASN, 64999),
			func(*v1alpha1.BGPPeerSpec) {},
			v1alpha1.NotEstablished,
			[]string{"the router refuses our OPEN message: it expects another AS than 64512"},
		},
		{
			"the router's TTL is too low", "router2", knownConfig(box.Nodes()...),
			func(s *v1alpha1.BGPPeerSpec) { s.TTLSecurityHops = 1 },
			v1alpha1.NotEstablished,
			[]string{"TTL below 255"},
		},
		{
			"our TTL is too low", "core", farConfig(),
			address("core"),
			v1alpha1.NotEstablished,
			[]string{"100.64.0.2:179", "multi-hop"},
		},
		{
			"no Secret", "router2", torConfig("router2", torASN, nodeASN),
			func(s *v1alpha1.BGPPeerSpec) { s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: "none"} },
			v1alpha1.SecretMissing,
			[]string{"none"},
		},
		{
			"a Secret that speakers may not read", "router2", torConfig("router2", torASN, nodeASN),
			func(s *v1alpha1.BGPPeerSpec) {
				s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: w.namespace + "-withheld"}
			},
			v1alpha1.SecretForbidden,
			[]string{w.namespace + "-withheld", "the Role herald-speaker-secrets"},
		},
		{
			"no key in the Secret", "router2", torConfig("router2", torASN, nodeASN),
			func(s *v1alpha1.BGPPeerSpec) {
				s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: w.namespace, Key: "other"}
			},
			v1alpha1.SecretKeyMissing,
			[]string{w.namespace, "other"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.within(t)
			w.frr(c.host, c.config)
			peer := w.peer("bad", func(s *v1alpha1.BGPPeerSpec) {
				address("router2")(s)
				c.peer(s)
			})
			for _, node := range box.Nodes() {
				w.eventually(node+" says so", func() error {
					s := w.session(node, peer)
					if s.State == "Established" || s.Reason != c.reason {
						return fmt.Errorf("%+v", s)
					}
					return has(s.LastError, c.want...)
				})
			}
			w.peerSays(peer, metav1.ConditionFalse, c.reason, append(c.want, "node1", "node2", "node3")...)
			w.event(peer, c.reason, c.want...)
			w.dropPeer(peer)
		})
	}
	steady.unmoved(sessions, box.Nodes()...)
}

func TestAPasswordIsRotatedWithoutARestart(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	w.secret(w.namespace, "password", "one")
	other := w.frr("router2", torConfig("router2", torASN, nodeASN))
	second := w.peer("other", address("router2"))
	router := w.frr("router", torConfig("router", torASN, nodeASN, "password one"))
	peer := w.peer("tor", func(s *v1alpha1.BGPPeerSpec) {
		s.PasswordSecretRef = &v1alpha1.SecretKeyReference{Name: w.namespace}
	})
	w.dualPool()
	w.advertise("a", nil)
	v4, _ := w.routedService("web", nil, nodes...)
	w.established(peer, nodes...)
	w.established(second, nodes...)
	router.has(host(v4), from("path 64512", nodes...))
	sessions, pids := other.since(), w.speakers()

	w.must(router.Configure(w.ctx, "router bgp 64513", "neighbor NODES password two"))
	patch := []byte(`{"stringData":{"password":"two"}}`)
	_, err := kube.CoreV1().Secrets("herald-system").Patch(w.ctx, w.namespace, types.MergePatchType, patch, metav1.PatchOptions{})
	w.must(err)
	w.eventually("the routes are back with the new password", func() error {
		if paths := router.paths(host(v4)); !maps.Equal(paths, from("path 64512", nodes...)) {
			return fmt.Errorf("paths %v", paths)
		}
		return nil
	})
	w.established(peer, nodes...)
	w.spreadAny(v4)
	other.unmoved(sessions, nodes...)
	if now := w.speakers(); !maps.Equal(now, pids) {
		t.Errorf("the speakers are %v and were %v", now, pids)
	}

	// The Secret is gone: so is the session, and nothing else.
	w.must(kube.CoreV1().Secrets("herald-system").Delete(w.ctx, w.namespace, metav1.DeleteOptions{}))
	w.peerSays(peer, metav1.ConditionFalse, v1alpha1.SecretMissing, w.namespace)
	router.has(host(v4), nil)
	other.has(host(v4), from("path 64512", nodes...))
	other.unmoved(sessions, nodes...)
}

// speakers are the processes of the speakers.
func (w *world) speakers() map[string]int {
	pids := map[string]int{}
	for _, node := range box.Nodes() {
		pids[node] = box.PID("speaker-" + node)
	}
	return pids
}

func TestPeersComeChangeAndGoWithoutTheOthersNoticing(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	steady := w.frr("router", torConfig("router", torASN, nodeASN))
	changing := w.frr("router2", torConfig("router2", torASN, nodeASN))
	far := w.frr("core", farConfig())
	first := w.peer("steady", nil)
	w.dualPool()
	w.advertise("a", nil)
	v4, v6 := w.routedService("web", nil, nodes...)
	w.established(first, nodes...)
	steady.has(host(v4), from("path 64512", nodes...))
	sessions := steady.since()

	second := w.peer("changing", address("router2"))
	changing.has(host(v4), from("path 64512", nodes...))
	third := w.peer("far", func(s *v1alpha1.BGPPeerSpec) {
		address("core")(s)
		s.EBGPMultiHop = 5
	})
	w.established(second, nodes...)
	w.established(third, nodes...)
	w.eventually("the far router has the route", func() error {
		if paths := far.paths(host(v4)); len(paths) != 3 {
			return fmt.Errorf("paths %v", paths)
		}
		return nil
	})
	farSessions := far.since()

	w.editPeer(second, func(s *v1alpha1.BGPPeerSpec) { s.HoldTime = seconds(33) })
	for _, node := range nodes {
		changing.neighborSays(node, "the new hold time", func(n neighbor) bool { return n.HoldMs == 33000 })
	}
	changing.has(host(v6), from("path 64512", nodes...))
	// What no message carries changes nothing.
	before := changing.since()
	w.editPeer(second, func(s *v1alpha1.BGPPeerSpec) { s.ConnectRetryTime = seconds(5) })
	w.always("the session stays", 2*time.Second, func() error {
		if s := w.session("node1", second); s.State != "Established" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	changing.unmoved(before, nodes...)
	w.editPeer(second, func(s *v1alpha1.BGPPeerSpec) { s.NodeSelector = onNodes("node2") })
	changing.has(host(v4), from("path 64512", "node2"))
	w.dropPeer(second)
	changing.has(host(v4), nil)
	w.eventually("no node has the peer", func() error {
		for _, node := range nodes {
			if s := w.session(node, second); s.Peer != "" {
				return fmt.Errorf("%s: %+v", node, s)
			}
		}
		return nil
	})
	steady.has(host(v4), from("path 64512", nodes...))
	steady.unmoved(sessions, nodes...)
	far.unmoved(farSessions, nodes...)
}
