package baremetal

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

func affinity(nodes ...string) tenant {
	t := serves(nodes...)
	t.affine = true
	return t
}

func called(name string, edits ...func(*v1alpha1.AdvertisementSpec)) advertisement {
	a := fabric(edits...)
	a.name = name
	return a
}

// With sessionAffinity ClientIP one node advertises the address, the same one to all routers, and it stays as long as it may.
func TestOneNodeAdvertisesWithAffinity(t *testing.T) {
	type edits = map[string]func(*corev1.Node)
	excluded := labelled(corev1.LabelNodeExcludeBalancers, "")
	local := affinity("b", "c")
	local.local = true
	for _, c := range []struct {
		name     string
		by       []advertisement
		tenants  []tenant
		current  string // "fabric=a,b other=c"
		sessions string // "a=tor b=tor,rot": who has which; all have all by default
		asleep   string
		back     string
		nodes    edits
		want     string
	}{
		{name: "one by hashing, whatever maxNodes says", by: []advertisement{fabric(atMost(3))}, want: "fabric=b"},
		{name: "without maxNodes, too", want: "fabric=b"},
		{name: "who has it keeps it", current: "fabric=a", want: "fabric=a"},
		{name: "of several that advertise it already, one of them", current: "fabric=a,b", by: []advertisement{fabric(atMost(2))}, want: "fabric=b"},
		{name: "no affinity", tenants: []tenant{serves("x")}, want: ""},
		{name: "of two Services one has it", tenants: []tenant{serves("x"), affinity("x")}, current: "fabric=a", want: "fabric=a"},
		{name: "who died is replaced", current: "fabric=a", asleep: "a", want: "fabric=b"},
		{name: "who restarts is not, where routers keep its routes", current: "fabric=a", asleep: "a", back: "a", want: "fabric=a"},
		{name: "a cordoned node makes way", current: "fabric=a", nodes: edits{"a": cordoned}, want: "fabric=b"},
		{name: "an excluded node makes way", current: "fabric=a", nodes: edits{"a": excluded}, want: "fabric=b"},
		{name: "Local: a node with an endpoint", tenants: []tenant{local}, current: "fabric=a", want: "fabric=b"},
		{name: "one that has no session makes way for one that has", current: "fabric=a", sessions: "b=tor c=tor", want: "fabric=b"},
		{name: "unless none has", current: "fabric=a", sessions: "a=", want: "fabric=a"},
		{name: "no speaker seems to live: it stays", current: "fabric=a", asleep: "abcd", want: "fabric=a"},
		{name: "the same to all routers", by: []advertisement{called("one", towards("tor")), called("two", towards("rot"))}, current: "two=a", want: "one=a two=a"},
		{name: "racks with a router each: one rack has it", by: []advertisement{called("one", from("rack", "r1")), called("two", from("rack", "r2"))}, current: "one=a",
			nodes: edits{"a": labelled("rack", "r1"), "b": labelled("rack", "r2")}, want: "one=a two="},
		{name: "and the other one, if the first has no session", by: []advertisement{called("one", from("rack", "r1")), called("two", from("rack", "r2"))}, current: "one=a", sessions: "b=tor",
			nodes: edits{"a": labelled("rack", "r1"), "b": labelled("rack", "r2")}, want: "one= two=b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sessions := map[string][]v1alpha1.SpeakerBGPSession{}
			for _, pair := range strings.Fields(c.sessions) {
				node, peers, _ := strings.Cut(pair, "=")
				sessions[node] = nil
				for _, peer := range strings.FieldsFunc(peers, func(r rune) bool { return r == ',' }) {
					sessions[node] = append(sessions[node], established(peer))
				}
			}
			s := &scene{
				addr: seventeen, tenants: c.tenants, nodes: fourNodes(c.nodes), bgpPeers: []bgpPeer{keeping("tor"), keeping("rot")},
				alive:     func(node string) bool { return !strings.Contains(c.asleep, node) },
				returning: func(node string) bool { return strings.Contains(c.back, node) },
				speaker: func(node string) *v1alpha1.Speaker {
					if c.sessions != "" {
						return speakerWith(node, sessions[node]...)
					}
					return speakerWith(node, established("tor"), established("rot"))
				},
			}
			if c.tenants == nil {
				s.tenants = []tenant{affinity("x")}
			}
			if c.by == nil {
				c.by = []advertisement{fabric()}
			}
			for _, pair := range strings.Fields(c.current) {
				name, nodes, _ := strings.Cut(pair, "=")
				s.limits = append(s.limits, v1alpha1.BGPLimit{Advertisement: name, Nodes: strings.Split(nodes, ",")})
			}
			for range 2 { // it comes to rest at once
				placed := s.byBGP(c.by)
				var words []string
				for _, limit := range placed.Limits {
					words = append(words, limit.Advertisement+"="+strings.Join(limit.Nodes, ","))
				}
				if got := strings.Join(words, " "); got != c.want {
					t.Errorf("got %s, want %s", got, c.want)
				}
				s.limits = placed.Limits
			}
		})
	}
}

// The Service says which node has its address alone, and follows an edit of its affinity.
func TestAffinityIsToldOnTheService(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		must(w, first(w.herald.BGPPeers.Create(w.ctx, &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: v1alpha1.BGPPeerSpec{Address: "203.0.113.1"}}, metav1.CreateOptions{})))
		must(w, first(w.herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{
			ObjectMeta: metav1.ObjectMeta{Name: "fabric"}, Spec: v1alpha1.AdvertisementSpec{Pools: []string{"public"}, BGP: &v1alpha1.BGPAdvertisement{}},
		}, metav1.CreateOptions{})))
		for _, name := range []string{"a", "b", "c"} {
			w.speaker(name, func(s *v1alpha1.SpeakerStatus) { s.BGP = []v1alpha1.SpeakerBGPSession{established("tor")} })
		}
		w.create(lb("web", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }))
		w.endpoints("web", "a")
		w.controller()
		advertises := func() string {
			v := w.vip("203.0.113.17")
			if v.Spec.BGP == nil || len(v.Spec.BGP.Limits) == 0 {
				return "all"
			}
			return strings.Join(v.Spec.BGP.Limits[0].Nodes, " ")
		}
		told := func() string {
			_, after, _ := strings.Cut(w.ready("web").Message, "is advertised by BGP from node ")
			node, _, _ := strings.Cut(after, " ")
			return node
		}
		w.untilService("web", "203.0.113.17 AddressAssigned")
		first := advertises()
		if len(first) != 1 {
			w.Fatalf("%s advertise", first)
		}
		w.rest()
		w.until("the Service names the node", first, told)
		if c := w.ready("web"); c.Status != metav1.ConditionTrue {
			w.Errorf("condition %+v", c)
		}
		w.editNode(first, cordoned)
		w.rest()
		if now := advertises(); now == first || len(now) != 1 || told() != now {
			w.Errorf("%s advertises, told is %s; it was %s", now, told(), first)
		}
		w.edit("web", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityNone })
		w.rest()
		if now := advertises(); now != "all" || told() != "" {
			w.Errorf("%s advertises, told is %s: want all, and nothing", now, told())
		}
		before := len(w.rest())
		if writes := w.since(before); len(writes) > 0 {
			w.Errorf("written at rest: %q", writes)
		}
	})
}

// An address for BGP alone says that no node may announce it, and what to do.
func TestAllNodesExcludedIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		w.pool("public", nil, "203.0.113.17/32")
		must(w, first(w.herald.Advertisements.Create(w.ctx, &v1alpha1.Advertisement{
			ObjectMeta: metav1.ObjectMeta{Name: "fabric"}, Spec: v1alpha1.AdvertisementSpec{Pools: []string{"public"}, BGP: &v1alpha1.BGPAdvertisement{}},
		}, metav1.CreateOptions{})))
		must(w, first(w.herald.BGPPeers.Create(w.ctx, &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor"}, Spec: v1alpha1.BGPPeerSpec{Address: "203.0.113.1"}}, metav1.CreateOptions{})))
		for _, name := range []string{"a", "b", "c"} {
			w.speaker(name, func(s *v1alpha1.SpeakerStatus) { s.BGP = []v1alpha1.SpeakerBGPSession{established("tor")} })
			w.editNode(name, labelled(corev1.LabelNodeExcludeBalancers, ""))
		}
		w.create(lb("web"))
		w.endpoints("web", "a")
		w.controller()
		w.untilService("web", "203.0.113.17 NoCandidates")
		w.rest()
		condition := w.ready("web")
		for _, word := range []string{"NodeExcluded: a, b, c", "without the label " + corev1.LabelNodeExcludeBalancers} {
			if condition.Status != metav1.ConditionFalse || !strings.Contains(condition.Message, word) {
				w.Errorf("condition %+v: want %q", condition, word)
			}
		}
		w.editNode("b", func(n *corev1.Node) { delete(n.Labels, corev1.LabelNodeExcludeBalancers) })
		w.rest()
		if condition := w.ready("web"); condition.Status != metav1.ConditionTrue {
			w.Errorf("condition %+v", condition)
		}
	})
}
