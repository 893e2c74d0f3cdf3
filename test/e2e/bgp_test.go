package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

// recipe is a block of docs/how-to/bgp.md: the one after a comment with its name.
func recipe(t testing.TB, name string) string {
	t.Helper()
	document, err := os.ReadFile(filepath.Join(box.Config().Root, "docs/how-to/bgp.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(document), "<!-- "+name+" -->\n```")
	_, after, cut := strings.Cut(after, "\n")
	block, _, end := strings.Cut(after, "\n```")
	if !found || !cut || !end {
		t.Fatalf("docs/how-to/bgp.md has no block %s", name)
	}
	return block + "\n"
}

// secret makes one in Herald's namespace that speakers may read.
func (w *world) secret(name, key, value string) {
	w.Helper()
	if name != "herald-bgp" { // which the shipped Role names
		w.mayRead(name)
	}
	w.withheld(name, key, value)
}

// withheld makes a Secret in Herald's namespace.
func (w *world) withheld(name, key, value string) {
	w.Helper()
	secrets := kube.CoreV1().Secrets("herald-system")
	_, err := secrets.Create(w.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: map[string]string{key: value}}, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		if err := ignoreNotFound(secrets.Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
			w.Error(err)
		}
	})
}

// mayRead lets speakers read a Secret of that name, as docs/how-to/bgp.md says.
func (w *world) mayRead(name string) {
	w.Helper()
	manifests := strings.ReplaceAll(recipe(w, "rights.yaml"), "tor-password", name)
	w.must(box.KubectlApply(w.ctx, manifests))
	w.Cleanup(func() {
		for _, kind := range []string{"role/", "rolebinding/"} {
			if _, err := box.Kubectl(context.Background(), "delete", "-n", "herald-system", kind+"herald-speaker-"+name); err != nil {
				w.Error(err)
			}
		}
	})
	// Whoever asks before the API server knows of the Role has to ask again.
	w.eventually("speakers may read the Secret", func() error {
		out, err := box.Kubectl(w.ctx, "auth", "can-i", "watch", "secrets/"+name, "-n", "herald-system", "--as=system:serviceaccount:herald-system:herald-speaker")
		if err != nil {
			return fmt.Errorf("%s: %w", out, err)
		}
		return nil
	})
}

func TestBGPRecipes(t *testing.T) {
	w := newRoutedWorld(t)
	w.secret("herald-bgp", "password", "change-me")
	manifests := recipe(t, "herald.yaml")
	w.must(box.KubectlApply(w.ctx, manifests))
	w.Cleanup(func() {
		for _, object := range []string{"advertisement/fabric", "bgppeer/tor", "addresspool/public"} {
			if _, err := box.Kubectl(context.Background(), "delete", object); err != nil {
				w.Error(err)
			}
		}
	})
	nodes := box.Nodes()
	v4, v6 := w.routedService("web", all(local, annotated("heraldlb.io/pool", "public")), nodes...)
	served := func(t *testing.T) {
		w := w.within(t)
		w.established("tor", nodes...)
		w.peerSays("tor", metav1.ConditionTrue, v1alpha1.Established)
		w.spread("web", v4, nodes...)
		w.spread("web", v6, nodes...)
		w.eventually("BFD is up everywhere", func() error {
			for _, node := range nodes {
				if s := w.session(node, "tor"); s.BFD != "Up" || s.AdvertisedIPv4 != 1 || s.AdvertisedIPv6 != 1 || s.Advertised != 2 {
					return fmt.Errorf("%s: %+v", node, s)
				}
			}
			return nil
		})
		w.eventually("the objects say so", func() error {
			peer, err := herald.BGPPeers.Get(w.ctx, "tor", metav1.GetOptions{})
			w.must(err)
			advert, err := herald.Advertisements.Get(w.ctx, "fabric", metav1.GetOptions{})
			w.must(err)
			if peer.Status.Nodes != 3 || peer.Status.Established != 3 || advert.Status.Nodes != 3 ||
				!meta.IsStatusConditionTrue(advert.Status.Conditions, v1alpha1.ConditionReady) {
				return fmt.Errorf("peer %+v, Advertisement %+v", peer.Status, advert.Status)
			}
			return nil
		})
		if vip := w.virtualIP(v4); vip.Spec.L2 != nil && len(vip.Spec.L2.Candidates) > 0 {
			t.Errorf("the address has candidates for L2: %+v", vip.Spec.L2)
		}
		answer := w.reachable(v4)
		if client, _ := box.Addrs("client"); !strings.Contains(answer, "client="+client.String()) {
			t.Errorf("policy Local does not keep the client's address: %s", answer)
		}
	}
	t.Run("FRR", func(t *testing.T) {
		frr, err := box.StartFRR(t.Context(), "router", recipe(t, "frr.conf"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { frr.Stop(context.Background()) })
		served(t)
		w.within(t).backAfterPowerCut("tor", "node2")
		served(t)
		if err := frr.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		w.peerSays("tor", metav1.ConditionFalse, v1alpha1.NotEstablished, "node1", "node2", "node3")
		w.event("tor", v1alpha1.SessionEstablished, "node1")
		w.event("tor", v1alpha1.SessionLost, "node1")
	})
	t.Run("BIRD", func(t *testing.T) {
		bird, err := box.StartBIRD(t.Context(), "router", recipe(t, "bird.conf"))
		if err != nil {
			t.Fatal(err)
		}
		defer bird.Stop(context.Background())
		served(t)
		w.within(t).backAfterPowerCut("tor", "node2")
		served(t)
	})
}

// sessionLimit is how long a node may be without its session after its power is back: the speaker has to start, and the
// router may make it wait for some seconds.
const sessionLimit = 15 * time.Second

// backAfterPowerCut takes the power from a node until its router has noticed, and checks how soon there is a session again.
func (w *world) backAfterPowerCut(peer, node string) {
	w.Helper()
	before := w.session(node, peer).Since
	w.Cleanup(func() {
		if err := box.PowerOn(context.Background(), node); err != nil {
			w.Error(err)
		}
	})
	w.must(box.PowerOff(w.ctx, node))
	time.Sleep(3 * time.Second) // BFD of the recipes needs 0.9 s.
	w.must(box.PowerOn(w.ctx, node))
	start := time.Now()
	w.eventually(node+" has a new session with "+peer, func() error {
		if s := w.session(node, peer); s.State != "Established" || s.Since.Equal(before) {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	took := time.Since(start)
	w.Logf("%s has its session %v after its power is back", node, took.Round(100*time.Millisecond))
	if took > sessionLimit {
		w.Errorf("%s has its session %v after its power is back, want at most %v", node, took.Round(100*time.Millisecond), sessionLimit)
	}
	w.must(box.WaitForProxy(w.ctx, node))
}

// External and internal routers: AS 64513 in router, the nodes' own in router2.
func (w *world) twoRouters() (external, internal *tor, externalPeer, internalPeer string) {
	w.Helper()
	external = w.frr("router", torConfig("router", torASN, nodeASN))
	internal = w.frr("router2", torConfig("router2", nodeASN, nodeASN))
	second, _ := box.Addrs("router2")
	externalPeer = w.peer("external", nil)
	internalPeer = w.peer("internal", func(s *v1alpha1.BGPPeerSpec) {
		s.PeerASN, s.PeerType, s.Address = nil, "Internal", second.String()
	})
	return external, internal, externalPeer, internalPeer
}

func TestAdvertisementsInTheTablesOfRouters(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	external, internal, externalPeer, internalPeer := w.twoRouters()
	w.dualPool()
	advert := w.advertise("a", nil)
	v4, v6 := w.routedService("web", nil, nodes...)
	w.established(externalPeer, nodes...)
	w.established(internalPeer, nodes...)
	sessions := external.since()

	other := w.pool("other", nil, fmt.Sprintf("10.201.%d.0/24", w.v4.Addr().As4()[2]))
	const ours, own = "path 64512", "path Local pref 100"
	aggregate4, aggregate6 := netip.PrefixFrom(v4, 28).Masked().String(), netip.PrefixFrom(v6, 120).Masked().String()
	for _, c := range []struct {
		name string
		spec v1alpha1.AdvertisementSpec
		// v4 and v6 are prefixes to look for; the Service's own addresses when empty.
		v4, v6             string
		external, internal map[string]string
	}{
		{
			name: "nothing in particular", spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}},
			external: from(ours, nodes...), internal: from(own, nodes...),
		},
		{
			name: "all attributes",
			spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{
				LocalPreference: ptr.To[int64](300), MED: ptr.To[int64](77), Prepend: 2,
				Communities: []string{"64512:100", "no-peer", "64512:1:2"},
			}},
			external: from("path 64512 64512 64512 med 77 [64512:100 no-peer] [64512:1:2]", nodes...),
			internal: from("path Local med 77 pref 300 [64512:100 no-peer] [64512:1:2]", nodes...),
		},
		{
			name:     "one peer",
			spec:     v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{Peers: []string{internalPeer}}},
			internal: from(own, nodes...),
		},
		{
			name:     "one node",
			spec:     v1alpha1.AdvertisementSpec{NodeSelector: onNodes("node2"), BGP: &v1alpha1.BGPAdvertisement{}},
			external: from(ours, "node2"), internal: from(own, "node2"),
		},
		{
			name: "aggregates",
			spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{
				AggregationLength: ptr.To[int32](28), AggregationLengthV6: ptr.To[int32](120),
			}},
			v4: aggregate4, v6: aggregate6, external: from(ours, nodes...), internal: from(own, nodes...),
		},
		{name: "the aggregates are gone", spec: v1alpha1.AdvertisementSpec{NodeSelector: onNodes("none"), BGP: &v1alpha1.BGPAdvertisement{}}, v4: aggregate4, v6: aggregate6},
		{
			name: "a pool by its labels",
			spec: v1alpha1.AdvertisementSpec{
				PoolSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"test": w.namespace}}, BGP: &v1alpha1.BGPAdvertisement{},
			},
			external: from(ours, nodes...), internal: from(own, nodes...),
		},
		{
			name: "another Service",
			spec: v1alpha1.AdvertisementSpec{
				ServiceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}, BGP: &v1alpha1.BGPAdvertisement{},
			},
		},
		{
			name: "our namespace",
			spec: v1alpha1.AdvertisementSpec{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.namespace}}, BGP: &v1alpha1.BGPAdvertisement{},
			},
			external: from(ours, nodes...), internal: from(own, nodes...),
		},
		{
			name: "another namespace",
			spec: v1alpha1.AdvertisementSpec{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: "default"}}, BGP: &v1alpha1.BGPAdvertisement{},
			},
		},
		{name: "another pool", spec: v1alpha1.AdvertisementSpec{Pools: []string{other.Name}, BGP: &v1alpha1.BGPAdvertisement{}}},
		{
			name:     "both pools",
			spec:     v1alpha1.AdvertisementSpec{Pools: []string{other.Name, w.namespace + "-dual"}, BGP: &v1alpha1.BGPAdvertisement{}},
			external: from(ours, nodes...), internal: from(own, nodes...),
		},
	} {
		w.Log(c.name)
		if c.name == "a pool by its labels" {
			w.must(label(w.ctx, w.namespace+"-dual", w.namespace))
		}
		w.readvertise(advert, c.spec)
		if c.v4 == "" {
			c.v4, c.v6 = host(v4), host(v6)
		}
		for _, prefix := range []string{c.v4, c.v6} {
			external.has(prefix, c.external)
			internal.has(prefix, c.internal)
		}
		if c.v4 == aggregate4 {
			external.has(host(v4), nil)
			external.has(host(v6), nil)
		}
	}
	external.unmoved(sessions, nodes...)
}

// label gives a pool the label test.
func label(ctx context.Context, pool, value string) error {
	patch := fmt.Sprintf(`{"metadata":{"labels":{"test":%q}}}`, value)
	_, err := herald.AddressPools.Patch(ctx, pool, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func TestMaxNodesCapsThePathsToAnAddress(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", nil)
	w.dualPool()
	advert := w.advertise("a", func(s *v1alpha1.AdvertisementSpec) { s.BGP.MaxNodes = 2 })
	v4, v6 := w.routedService("web", nil, nodes...)
	w.established(peer, nodes...)
	for _, addr := range []netip.Addr{v4, v6} {
		w.eventually("two nodes advertise "+addr.String(), func() error {
			limits := w.virtualIP(addr).Spec.BGP.Limits
			if len(limits) != 1 || len(limits[0].Nodes) != 2 {
				return fmt.Errorf("limits %+v", limits)
			}
			return nil
		})
		router.has(host(addr), from("path 64512", w.virtualIP(addr).Spec.BGP.Limits[0].Nodes...))
	}
	// A node that is lost is replaced by the one that was left out.
	gone := w.virtualIP(v4).Spec.BGP.Limits[0].Nodes[0]
	scene := w.routedScene("web", v4, peer, nodes...)
	w.must(scene.Cordon(w.ctx, gone, true))
	left := slices.DeleteFunc(slices.Clone(nodes), func(n string) bool { return n == gone })
	router.has(host(v4), from("path 64512", left...))
	w.spreadAny(v4)
	w.must(scene.Cordon(w.ctx, gone, false))
	w.readvertise(advert, v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}})
	router.has(host(v4), from("path 64512", nodes...))
}

// spreadAny makes some requests that all have to be answered, by whatever pod.
func (w *world) spreadAny(addr netip.Addr) {
	w.Helper()
	w.reachable(addr)
	w.answers(addr, 30)
}

func TestL2AndBGPOnOnePool(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		// The client takes these for its own network's, and the second client does not.
		w.v4 = netip.MustParsePrefix(fmt.Sprintf("198.18.%d.0/24", w.v4.Addr().As4()[2]))
		nodes := box.Nodes()
		router := w.frr("router", torConfig("router", torASN, nodeASN))
		peer := w.peer("tor", nil)
		w.dualPool()
		w.advertise("both", func(s *v1alpha1.AdvertisementSpec) { s.L2 = &v1alpha1.L2Advertisement{} })
		v4, _ := w.routedService("web", local, nodes...)
		w.established(peer, nodes...)
		router.has(host(v4), from("path 64512", nodes...))
		owner := w.owner(v4)
		// By L2 one node answers the client; through the router, all do.
		if pods := w.answers(v4, 20); pods["web-"+owner] != 20 {
			t.Errorf("by L2 the answers are of %v, the owner is %s", pods, owner)
		}
		way := []string{"ip", "route", "replace", v4.String(), "via", "198.51.100.1"}
		_, err := box.Exec(w.ctx, "client", way...)
		w.must(err)
		w.Cleanup(func() { box.Exec(context.Background(), "client", "ip", "route", "del", v4.String()) })
		w.spread("web", v4, nodes...)
	})
}

func TestWeightedRoutesFollowTheNumberOfPods(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", nil)
	w.dualPool()
	w.advertise("weighted", func(s *v1alpha1.AdvertisementSpec) { s.BGP.Weighted = true })
	v4, _ := w.routedService("web", local, "node1", "node2")
	w.morePods("web", "node2", 2)
	w.established(peer, nodes...)
	weighs := func(node1, node2 int) {
		t.Helper()
		w.eventually(fmt.Sprintf("the router's paths weigh %d to %d", node1, node2), func() error {
			paths := router.paths(host(v4))
			one, two := bandwidth(paths["node1"]), bandwidth(paths["node2"])
			if len(paths) != 2 || one == 0 || one*node2 != two*node1 {
				return fmt.Errorf("paths %v", paths)
			}
			if one/node1 > 1<<32/10_000 {
				return fmt.Errorf("paths %v: FRR counts to 2^32, which is not enough for 10,000 pods on a node", paths)
			}
			return nil
		})
	}
	weighs(1, 3)
	w.reachable(v4)
	counts := map[string]int{}
	const requests = 400
	for range requests {
		answer, err := requestWithin(w.ctx, patience, "client", v4, 80)
		w.must(err)
		counts[strings.TrimPrefix(strings.Fields(answer)[1], "node=")]++
	}
	w.Logf("answers by node: %v", counts)
	// 300 of 400 are due; a share of a fair hash is outside of ±40 once in 100,000 times.
	if n := counts["node2"]; n < 260 || n > 340 {
		t.Errorf("node2 has three of four pods and answered %d of %d", n, requests)
	}
	w.morePods("web", "node1", 1)
	weighs(2, 3)
	w.must(box.DeletePod(w.ctx, w.namespace, "web-node2-0"))
	weighs(2, 2)
}

// morePods adds so many pods of an app to a node.
func (w *world) morePods(app, node string, count int) {
	w.Helper()
	for i := range count {
		_, err := box.AddPod(w.ctx, sandbox.Pod{
			Namespace: w.namespace, Name: fmt.Sprintf("%s-%s-%d", app, node, i), Node: node, Labels: map[string]string{"app": app},
		})
		w.must(err)
	}
}

// bandwidth is that of the link bandwidth community in a path, in bytes a second.
func bandwidth(path string) int {
	_, after, found := strings.Cut(path, "[LB:64512:")
	if !found {
		return 0
	}
	n := 0
	fmt.Sscanf(after, "%d", &n)
	return n
}

func TestNothingIsTakenFromRouters(t *testing.T) {
	w := newRoutedWorld(t)
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", nil)
	w.dualPool()
	w.advertise("a", nil)
	v4, _ := w.routedService("web", nil, "node1")
	router.has(host(v4), from("path 64512", box.Nodes()...))
	w.must(router.Configure(w.ctx, "router bgp 64513", "no bgp network import-check", "address-family ipv4 unicast",
		"network 192.0.2.0/24", "network 0.0.0.0/0", "network 198.51.100.32/32"))
	for _, node := range box.Nodes() {
		w.eventually(node+" has refused routes", func() error {
			if s := w.session(node, peer); s.Refused == 0 || s.State != "Established" {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		routes, err := box.Exec(w.ctx, node, "ip", "route", "show", "proto", "bgp")
		w.must(err)
		if routes != "" {
			t.Errorf("%s has taken %s", node, routes)
		}
		w.eventually(node+" has counted them", func() error {
			metrics, err := box.Get(w.ctx, node, "http://127.0.0.1:7472/metrics")
			if err != nil {
				return err
			}
			return has(metrics, fmt.Sprintf("herald_bgp_refused_routes_total{peer=%q} 3", peer))
		})
	}
	router.has(host(v4), from("path 64512", box.Nodes()...))
	w.spreadAny(v4)
}
