package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/internal/vtysh"
	"github.com/heraldlb/herald/test/e2e/failover"
	"github.com/heraldlb/herald/test/sandbox"
)

// The tests of BGP have FRR and BIRD in the hosts router, router2 and core. They
// are not parallel: there is one of each.

// nodeASN is the autonomous system of the nodes, torASN that of routers.
const (
	nodeASN = 64512
	torASN  = 64513
)

// newRoutedWorld makes a world with addresses outside the LAN: 10.200.N.0/24 and
// 2001:db8:200:N::/64. The client's way to them is its default gateway, router.
func newRoutedWorld(t testing.TB) *world {
	t.Helper()
	if _, err := os.Stat("/usr/lib/frr/bgpd"); err != nil {
		t.Skip("FRR is not installed: run hack/deps test")
	}
	w := newWorld(t)
	n := w.v4.Addr().As4()[2]
	w.v4 = netip.MustParsePrefix(fmt.Sprintf("10.200.%d.0/24", n))
	w.v6 = netip.MustParsePrefix(fmt.Sprintf("2001:db8:200:%x::/64", n))
	return w
}

// peer makes a BGPPeer for the host router, with changes. Its timers are short.
func (w *world) peer(name string, edit func(*v1alpha1.BGPPeerSpec)) string {
	w.Helper()
	gateway, _ := box.Addrs("router")
	peer := &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-" + name},
		Spec: v1alpha1.BGPPeerSpec{
			LocalASN: nodeASN, PeerASN: ptr.To[int64](torASN), Address: gateway.String(),
			ConnectRetryTime: seconds(1),
		},
	}
	if edit != nil {
		edit(&peer.Spec)
	}
	_, err := herald.BGPPeers.Create(w.ctx, peer, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.dropPeer(peer.Name) })
	return peer.Name
}

func (w *world) dropPeer(name string) {
	w.Helper()
	if err := ignoreNotFound(herald.BGPPeers.Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
		w.Error(err)
	}
}

func (w *world) editPeer(name string, edit func(*v1alpha1.BGPPeerSpec)) {
	w.Helper()
	w.quietly("edit of BGPPeer "+name, func() error {
		peer, err := herald.BGPPeers.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		edit(&peer.Spec)
		_, err = herald.BGPPeers.Update(w.ctx, peer, metav1.UpdateOptions{})
		return err
	})
}

// advertise makes an Advertisement of the test's pool to a peer.
func (w *world) advertise(name string, edit func(*v1alpha1.AdvertisementSpec), peers ...string) string {
	w.Helper()
	advert := &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: w.namespace + "-" + name},
		Spec:       v1alpha1.AdvertisementSpec{Pools: []string{w.namespace + "-dual"}, BGP: &v1alpha1.BGPAdvertisement{Peers: peers}},
	}
	if edit != nil {
		edit(&advert.Spec)
	}
	_, err := herald.Advertisements.Create(w.ctx, advert, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() { w.dropAdvertisement(advert.Name) })
	return advert.Name
}

func (w *world) dropAdvertisement(name string) {
	w.Helper()
	if err := ignoreNotFound(herald.Advertisements.Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
		w.Error(err)
	}
}

// readvertise replaces the spec of an Advertisement, but for its pools.
func (w *world) readvertise(name string, spec v1alpha1.AdvertisementSpec) {
	w.Helper()
	w.quietly("edit of Advertisement "+name, func() error {
		advert, err := herald.Advertisements.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		if spec.Pools == nil && spec.PoolSelector == nil {
			spec.Pools = advert.Spec.Pools
		}
		advert.Spec = spec
		_, err = herald.Advertisements.Update(w.ctx, advert, metav1.UpdateOptions{})
		return err
	})
}

// routedService makes a dual-stack Service with a pod on each of the nodes, and
// returns its addresses. The pool is there, and announced by whatever was made before.
func (w *world) routedService(name string, edit func(*corev1.Service), nodes ...string) (v4, v6 netip.Addr) {
	w.Helper()
	w.pods(name, nodes...)
	w.service(name, func(s *corev1.Service) {
		families(corev1.IPFamilyPolicyRequireDualStack, corev1.IPv4Protocol, corev1.IPv6Protocol)(s)
		if edit != nil {
			edit(s)
		}
	})
	addresses := w.addresses(name, 2)
	if addresses[0].Is6() {
		addresses[0], addresses[1] = addresses[1], addresses[0]
	}
	return addresses[0], addresses[1]
}

func seconds(n int) *metav1.Duration {
	return &metav1.Duration{Duration: time.Duration(n) * time.Second}
}

func milliseconds(n int) *metav1.Duration {
	return &metav1.Duration{Duration: time.Duration(n) * time.Millisecond}
}

// onNodes selects nodes by name.
func onNodes(nodes ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: corev1.LabelHostname, Operator: metav1.LabelSelectorOpIn, Values: nodes},
	}}
}

// session is what a node's speaker says of a peer.
func (w *world) session(node, peer string) v1alpha1.SpeakerBGPSession {
	w.Helper()
	speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
	w.must(ignoreNotFound(err))
	for _, s := range speaker.Status.BGP {
		if s.Peer == peer {
			return s
		}
	}
	return v1alpha1.SpeakerBGPSession{}
}

// established waits until the nodes have a session with a peer, by their own word.
func (w *world) established(peer string, nodes ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("%v have a session with %s", nodes, peer), func() error {
		for _, node := range nodes {
			if s := w.session(node, peer); s.State != "Established" {
				return fmt.Errorf("%s: %+v", node, s)
			}
		}
		return nil
	})
}

// peerSays waits until the condition Ready of a BGPPeer has the status, the reason
// and the words.
func (w *world) peerSays(name string, status metav1.ConditionStatus, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("BGPPeer %s says %s", name, reason), func() error {
		peer, err := herald.BGPPeers.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		condition := meta.FindStatusCondition(peer.Status.Conditions, v1alpha1.ConditionReady)
		if condition == nil || condition.Status != status || condition.Reason != string(reason) {
			return fmt.Errorf("status %+v", peer.Status)
		}
		return has(condition.Message, words...)
	})
}

// event waits for an event on a BGPPeer with the words.
func (w *world) event(peer string, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("an event %s on BGPPeer %s", reason, peer), func() error {
		var said []string
		for _, e := range w.events("BGPPeer", peer, reason) {
			if has(e.Message, words...) == nil {
				return nil
			}
			said = append(said, e.Message)
		}
		return fmt.Errorf("events: %q", said)
	})
}

// tor is FRR in a host.
type tor struct {
	*world
	*sandbox.FRR
	host string
}

// frr starts FRR in a host, which ends with the test.
func (w *world) frr(host, config string) *tor {
	w.Helper()
	frr, err := box.StartFRR(w.ctx, host, config)
	w.must(err)
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := frr.Stop(ctx); err != nil {
			w.Error(err)
		}
	})
	return &tor{w, frr, host}
}

// torConfig is a router that takes all nodes for neighbours, over IPv4 and IPv6,
// with more lines for each.
func torConfig(host string, asn, nodeASN int, lines ...string) string {
	id, _ := box.Addrs(host)
	more := ""
	for _, line := range lines {
		more += " neighbor NODES " + line + "\n"
	}
	return fmt.Sprintf(`
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
  detect-multiplier 3
 exit
exit
router bgp %d
 bgp router-id %s
 no bgp ebgp-requires-policy
 bgp bestpath as-path multipath-relax
 neighbor NODES peer-group
 neighbor NODES remote-as %d
%s bgp listen range 198.51.100.0/24 peer-group NODES
 bgp listen range 2001:db8:51::/64 peer-group NODES
 address-family ipv4 unicast
  neighbor NODES activate
  maximum-paths 16
  maximum-paths ibgp 16
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
  maximum-paths 16
  maximum-paths ibgp 16
 exit-address-family
exit
`, asn, id, nodeASN, more)
}

// neighbor is what FRR knows of one.
type neighbor struct {
	State     string `json:"bgpState"`
	Up        int64  `json:"bgpTimerUpEstablishedEpoch"`
	HoldMs    int    `json:"bgpTimerHoldTimeMsecs"`
	KeepMs    int    `json:"bgpTimerKeepAliveIntervalMsecs"`
	RouterID  string `json:"remoteRouterId"`
	RemoteAS  int64  `json:"remoteAs"`
	LocalPort int    `json:"portLocal"`
	Reset     string `json:"lastResetDueTo"`
	Sessions  int    `json:"connectionsEstablished"`
	BFD       struct {
		Status string `json:"status"`
	} `json:"peerBfdInfo"`
	Stats struct {
		Keepalives int `json:"keepalivesRecv"`
	} `json:"messageStats"`
	Restart struct {
		Remote string `json:"remoteGrMode"`
		Timers struct {
			Received int `json:"receivedRestartTimer"`
		} `json:"timers"`
	} `json:"gracefulRestartInfo"`
}

// neighbors are those of FRR by the node that they are, or by their address or interface.
func (r *tor) neighbors() map[string]neighbor {
	r.Helper()
	var all map[string]neighbor
	if err := r.Read(r.ctx, "show bgp neighbors", &all); err != nil {
		return nil // There are none, which FRR does not say in JSON.
	}
	named := map[string]neighbor{}
	for name, n := range all {
		if addr, err := netip.ParseAddr(name); err == nil {
			name = nodeOf(addr)
		}
		named[name] = n
	}
	return named
}

// nodeOf is the node with an address, or the address.
func nodeOf(addr netip.Addr) string {
	for _, node := range box.Nodes() {
		if v4, v6 := box.Addrs(node); addr == v4 || addr == v6 {
			return node
		}
	}
	return addr.String()
}

// since is when each established session of FRR began: it stays the same as long
// as none of them flaps.
func (r *tor) since() map[string]int64 {
	r.Helper()
	ups := map[string]int64{}
	for name, n := range r.neighbors() {
		if n.State == "Established" {
			ups[name] = n.Up
		}
	}
	return ups
}

// unmoved checks that the sessions of the nodes are those of before. FRR's clock
// is one of whole seconds, which it rounds anew each time.
func (r *tor) unmoved(before map[string]int64, nodes ...string) {
	r.Helper()
	now := r.since()
	for _, node := range nodes {
		if d := now[node] - before[node]; before[node] == 0 || d < -1 || d > 1 {
			r.Errorf("%s: the session of %s has been up since %d: it was %d", r.host, node, now[node], before[node])
		}
	}
}

// paths are those of FRR to a prefix, by node.
func (r *tor) paths(prefix string) map[string]string {
	r.Helper()
	show := vtysh.ShowTable(prefix)
	var table vtysh.Table
	out, err := r.Show(r.ctx, show+" json")
	r.must(err)
	found := map[string]string{}
	if strings.Contains(out, "not in table") {
		return found
	}
	r.must(r.Read(r.ctx, show, &table))
	for _, p := range table.Paths {
		via, _ := netip.ParseAddr(p.Via())
		found[nodeOf(via)] = p.String()
	}
	return found
}

// from says the same of each of the nodes.
func from(line string, nodes ...string) map[string]string {
	want := map[string]string{}
	for _, node := range nodes {
		want[node] = line
	}
	return want
}

// has waits until FRR has those paths to a prefix, and no others.
func (r *tor) has(prefix string, want map[string]string) {
	r.Helper()
	r.eventually(fmt.Sprintf("%s has %s from %v", r.host, prefix, slices.Sorted(maps.Keys(want))), func() error {
		if got := r.paths(prefix); !maps.Equal(got, want) {
			return fmt.Errorf("%s has %q, want %q", r.host, got, want)
		}
		return nil
	})
}

func host(addr netip.Addr) string { return netip.PrefixFrom(addr, addr.BitLen()).String() }

// answers makes so many requests from the client and counts them by who answered
// them: by pod.
func (w *world) answers(addr netip.Addr, count int) map[string]int {
	w.Helper()
	pods := map[string]int{}
	for range count {
		answer, err := requestWithin(w.ctx, patience, "client", addr, 80)
		if err != nil {
			w.Fatalf("%s: %v, after %v", addr, err, pods)
		}
		pods[strings.TrimPrefix(strings.Fields(answer)[0], "pod=")]++
	}
	return pods
}

// spread waits until connections to the address reach the pods of all the nodes.
// For a Service of policy Local, that is by way of each of them.
func (w *world) spread(app string, addr netip.Addr, nodes ...string) {
	w.Helper()
	w.reachable(addr)
	w.eventually(fmt.Sprintf("connections to %s are spread over %v", addr, nodes), func() error {
		pods := w.answers(addr, 20*len(nodes))
		for _, node := range nodes {
			if pods[app+"-"+node] == 0 {
				return fmt.Errorf("answers: %v", pods)
			}
		}
		if len(pods) != len(nodes) {
			return fmt.Errorf("answers: %v", pods)
		}
		return nil
	})
}

// routedScene is a Service to break things at.
func (w *world) routedScene(service string, addr netip.Addr, peer string, nodes ...string) *failover.Routed {
	w.Helper()
	scene := &failover.Routed{Router: "router", Peer: peer, Scene: &failover.Scene{
		Box: box, Kube: kube, Herald: herald, Namespace: w.namespace, Service: service, Addr: addr, Nodes: nodes, Client: "client",
		Patience: clientPatience, Grace: podGrace,
	}}
	w.Cleanup(func() {
		if err := scene.Restore(context.Background()); err != nil {
			w.Errorf("making the cluster whole: %v", err)
		}
	})
	return scene
}
