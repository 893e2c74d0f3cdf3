package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// advertSays waits until the condition Ready of an Advertisement is False for the
// reason, with the words.
func (w *world) advertSays(name string, reason v1alpha1.Reason, words ...string) {
	w.Helper()
	w.condition("Advertisement "+name, reason, func() ([]metav1.Condition, error) {
		advert, err := herald.Advertisements.Get(w.ctx, name, metav1.GetOptions{})
		return advert.Status.Conditions, err
	}, words...)
}

func TestWhatIsWrongWithObjectsOfBGPIsToldOnThem(t *testing.T) {
	w := newRoutedWorld(t)
	nodes := box.Nodes()
	steady := w.frr("router", torConfig("router", torASN, nodeASN))
	good := w.peer("good", nil)
	w.dualPool()
	w.advertise("good", nil, good)
	v4, _ := w.routedService("web", nil, nodes...)
	w.established(good, nodes...)
	steady.has(host(v4), from("path 64512", nodes...))
	sessions := steady.since()

	t.Run("an unknown peer", func(t *testing.T) {
		w := w.within(t)
		advert := w.advertise("nobody", nil, "nobody")
		w.advertSays(advert, v1alpha1.UnknownPeer, "spec.bgp.peers", "nobody")
		w.told("Advertisement", advert, v1alpha1.UnknownPeer)
	})
	t.Run("an unknown pool", func(t *testing.T) {
		w := w.within(t)
		advert := w.advertise("poolless", func(s *v1alpha1.AdvertisementSpec) { s.Pools = []string{"none-such"} }, good)
		w.advertSays(advert, v1alpha1.UnknownPool, "none-such")
	})
	t.Run("no default gateway", func(t *testing.T) {
		w := w.within(t)
		gateway, _ := box.Addrs("router")
		_, err := box.Exec(w.ctx, "node3", "ip", "route", "del", "default")
		w.must(err)
		peer := w.peer("gateway", func(s *v1alpha1.BGPPeerSpec) {
			s.Address, s.DefaultGateway, s.NodeSelector = "", "IPv4", onNodes("node3")
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.NoGateway, "node3", "IPv4")
		_, err = box.Exec(w.ctx, "node3", "ip", "route", "add", "default", "via", gateway.String())
		w.must(err)
		// The good peer has the gateway's address already: two sessions cannot be.
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.InvalidPeer, "node3", "another peer with this address")
	})
	t.Run("no router behind an interface", func(t *testing.T) {
		w := w.within(t)
		peer := w.peer("nowhere", func(s *v1alpha1.BGPPeerSpec) { s.Address, s.Interface = "", "nowhere" })
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.NotEstablished, "node1", "no router has been heard on nowhere")
	})
	t.Run("multi-hop to our own AS", func(t *testing.T) {
		w := w.within(t)
		peer := w.peer("far", func(s *v1alpha1.BGPPeerSpec) {
			address("core")(s)
			s.PeerASN, s.PeerType, s.EBGPMultiHop = nil, "Internal", 3
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.InvalidPeer, "multi-hop is for external peers")
	})
	t.Run("a source address of the other family", func(t *testing.T) {
		w := w.within(t)
		peer := w.peer("crossed", func(s *v1alpha1.BGPPeerSpec) {
			address("router2")(s)
			s.SourceAddress = "2001:db8:51::31"
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.InvalidPeer, "2001:db8:51::31")
	})
	t.Run("a family that the router does not speak", func(t *testing.T) {
		w := w.within(t)
		w.frr("router2", "router bgp 64513\n no bgp ebgp-requires-policy\n neighbor NODES peer-group\n neighbor NODES remote-as 64512\n"+
			" bgp listen range 198.51.100.0/24 peer-group NODES\n")
		peer := w.peer("ipv4", func(s *v1alpha1.BGPPeerSpec) {
			address("router2")(s)
			s.Families = []string{"IPv4", "IPv6"}
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.FamilyNotAgreed, "IPv6")
		w.established(peer, nodes...)
	})
	t.Run("a selector that chooses nobody", func(t *testing.T) {
		w := w.within(t)
		peer := w.peer("lonely", func(s *v1alpha1.BGPPeerSpec) {
			address("router2")(s)
			s.NodeSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"no": "node"}}
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.NoNode)
	})
	t.Run("a selector that cannot be read", func(t *testing.T) {
		w := w.within(t)
		peer := w.peer("unread", func(s *v1alpha1.BGPPeerSpec) {
			address("router2")(s)
			s.NodeSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like", Values: []string{"b"}}}}
		})
		w.peerSays(peer, metav1.ConditionFalse, v1alpha1.InvalidSelector, "nodeSelector")
	})

	steady.has(host(v4), from("path 64512", nodes...))
	steady.unmoved(sessions, nodes...)
	w.spreadAny(v4)
	w.peerSays(good, metav1.ConditionTrue, v1alpha1.Established)
}

func TestAPIServerRefusesBrokenObjectsOfBGP(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ name, kind, spec, want string }{
		{"an aggregation longer than IPv4", "Advertisement", `{"bgp": {"aggregationLength": 33}}`, "spec.bgp.aggregationLength"},
		{"an aggregation longer than IPv6", "Advertisement", `{"bgp": {"aggregationLengthV6": 129}}`, "spec.bgp.aggregationLengthV6"},
		{"an aggregation of 0", "Advertisement", `{"bgp": {"aggregationLength": 0}}`, "spec.bgp.aggregationLength"},
		{"too much prepended", "Advertisement", `{"bgp": {"prepend": 17}}`, "spec.bgp.prepend"},
		{"a MED below 0", "Advertisement", `{"bgp": {"med": -1}}`, "spec.bgp.med"},
		{"a peer in AS 0", "BGPPeer", `{"localASN": 64512, "peerASN": 0, "address": "198.51.100.1"}`, "spec.peerASN"},
		{"an AS beyond 32 bits", "BGPPeer", `{"localASN": 4294967296, "peerASN": 1, "address": "198.51.100.1"}`, "spec.localASN"},
		{"a number and a type", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "peerType": "External", "address": "198.51.100.1"}`, "exactly one of peerASN and peerType"},
		{"two ways to a peer", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "address": "198.51.100.1", "interface": "eth1"}`, "exactly one of address, interface"},
		{"multi-hop and TTL security", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "address": "198.51.100.1", "ebgpMultiHop": 2, "ttlSecurityHops": 2}`, "exclude each other"},
		{"an address that is none", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "address": "198.51.100"}`, "address must be"},
		{"a router ID of IPv6", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "address": "198.51.100.1", "routerID": "2001:db8::1"}`, "routerID must be"},
		{"a hold time of 0", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "holdTime": "0s"}`, "holdTime must be whole seconds"},
		{"a hold time that no message can carry", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "holdTime": "20h"}`, "holdTime must be whole seconds"},
		{"a hold time that is no time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "holdTime": "long"}`, "holdTime must be whole seconds"},
		{"a keepalive time that is no time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "keepaliveTime": "soon"}`, "keepaliveTime must be whole seconds"},
		{"half a second between keepalives", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "keepaliveTime": "500ms"}`, "keepaliveTime must be whole seconds"},
		{"keepalives as rare as the hold time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "holdTime": "9s", "keepaliveTime": "9s"}`, "keepaliveTime must be shorter than holdTime"},
		{"keepalives as rare as the default hold time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "keepaliveTime": "90s"}`, "keepaliveTime must be shorter than holdTime"},
		{"a connect retry time that is no time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "connectRetryTime": "1 s"}`, "connectRetryTime must be whole seconds"},
		{"a restart time of 13 bits", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "gracefulRestart": {"restartTime": "4096s"}}`, "restartTime must be whole seconds"},
		{"a restart time that is no time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "gracefulRestart": {"restartTime": "2 minutes"}}`, "restartTime must be whole seconds"},
		{"BFD by the microsecond", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "bfd": {"receiveInterval": "50us"}}`, "receiveInterval must be a time"},
		{"a BFD interval that is no time", "BGPPeer", `{"localASN": 64512, "peerASN": 64513, "address": "198.51.100.1", "bfd": {"transmitInterval": "300"}}`, "transmitInterval must be a time"},
		{"AS_TRANS", "BGPPeer", `{"localASN": 23456, "peerASN": 64513, "address": "198.51.100.1"}`, "AS 23456"},
		{"a router in AS_TRANS", "BGPPeer", `{"localASN": 64512, "peerASN": 23456, "address": "198.51.100.1"}`, "AS 23456"},
		{"a standard community of a long AS", "Advertisement", `{"bgp": {"communities": ["70000:1"]}}`, "must not be over 65535"},
		{"a standard community with a long number", "Advertisement", `{"bgp": {"communities": ["64512:65536"]}}`, "must not be over 65535"},
		{"a large community beyond 32 bits", "Advertisement", `{"bgp": {"communities": ["64512:4294967296:1"]}}`, "may be up to 4294967295"},
		{"a large community of nobody", "Advertisement", `{"bgp": {"communities": ["4294967295:1:1"]}}`, "is reserved (RFC 7300)"},
		{"a well-known community in capitals", "Advertisement", `{"bgp": {"communities": ["NO-EXPORT"]}}`, "a well-known name: no-export"},
		{"a family of nobody", "BGPPeer", `{"localASN": 64512, "peerASN": 1, "address": "198.51.100.1", "families": ["IPX"]}`, `"IPv4", "IPv6"`},
	} {
		manifest := fmt.Sprintf(`{"apiVersion": "heraldlb.io/v1alpha1", "kind": %q, "metadata": {"name": %q}, "spec": %s}`, c.kind, w.namespace, c.spec)
		err := box.KubectlApply(w.ctx, manifest)
		if err == nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if err := has(err.Error(), c.want); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAnAddressThatNobodyAdvertisesSaysWhy(t *testing.T) {
	w := newRoutedWorld(t)
	w.dualPool()
	w.advertise("a", nil, w.peer("down", func(s *v1alpha1.BGPPeerSpec) { s.Address = "198.51.100.99" }))
	v4, _ := w.routedService("web", func(s *corev1.Service) { s.Spec.IPFamilyPolicy = ptr.To(corev1.IPFamilyPolicyRequireDualStack) }, "node1")
	w.eventually("the VirtualIP says that no router is told", func() error {
		vip := w.virtualIP(v4)
		condition := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionAnnounced)
		if condition == nil || condition.Status != metav1.ConditionFalse || condition.Reason != string(v1alpha1.NoSession) {
			return fmt.Errorf("conditions %+v", vip.Status.Conditions)
		}
		return nil
	})
}
