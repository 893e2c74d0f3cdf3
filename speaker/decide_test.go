package speaker

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/tools/txtar"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/internal/golden"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// TestDecide plays what happens to node-1, and compares what it decides with the golden files. A file has the VirtualIPs, a
// line for each thing that happens, and the decisions, each when it differs from the one before it.
func TestDecide(t *testing.T) {
	golden.Test(t, func(t *testing.T, sections []txtar.File) []txtar.File {
		parts := map[string]*txtar.File{}
		for i := range sections {
			parts[sections[i].Name] = &sections[i]
		}
		p := newPlay(t, parts["virtualips"].Data)
		for line := range strings.Lines(string(parts["happens"].Data)) {
			p.happens(strings.Fields(line))
		}
		parts["decides"].Data = p.log.Bytes()
		return sections
	})
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// play is the time that passes on node-1.
type play struct {
	t    *testing.T
	s    Snapshot
	log  bytes.Buffer
	last string
}

func newPlay(t *testing.T, objects []byte) *play {
	p := &play{t: t, s: Snapshot{
		Now:         epoch,
		Node:        "node-1",
		InternalIPs: []netip.Addr{nodeAddr("node-1"), netip.MustParseAddr("2001:db8:51::1")},
		Links: []link.Link{
			{Index: 1, Name: "lo", Loopback: true},
			{Index: 2, Name: "eth0", MAC: nodeMAC("node-1"), Up: true, ARP: true, Prefixes: []netip.Prefix{
				netip.PrefixFrom(nodeAddr("node-1"), 24), netip.MustParsePrefix("2001:db8:51::1/64"),
			}},
			{Index: 3, Name: "eth1", MAC: [6]byte{2, 0, 0, 1, 0, 1}, Up: true, ARP: true, Prefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.1/24")}},
		},
		Watch:    &Watch{Interval: 100 * time.Millisecond, Multiplier: 3, Auth: auth([]byte("secret"))},
		ProxyURL: health.DefaultProxyURL,
		Health:   map[health.Target]health.State{proxyTarget: {Healthy: true, Since: epoch}},
		States:   map[bfd.Path]bfd.Status{},
		Claims:   map[netip.Addr][]l2.Claim{},
	}}
	for document := range bytes.SplitSeq(objects, []byte("\n---\n")) {
		if p.other(document) {
			continue
		}
		vip := &v1alpha1.VirtualIP{}
		if err := yaml.UnmarshalStrict(document, vip); err != nil {
			t.Fatal(err)
		}
		if vip.Name == "" {
			continue // nothing but a comment
		}
		vip.CreationTimestamp = metav1.NewTime(epoch)
		vip.Generation = 1
		for i := range vip.Spec.Claims {
			vip.Spec.Claims[i].Ports = []v1alpha1.ClaimPort{{Protocol: "TCP", Port: 80}}
		}
		if vip.Spec.L2 != nil && vip.Spec.L2.Peers == nil {
			vip.Spec.L2.Peers = peersOf(vip.Spec.L2.Candidates)
		}
		leanVirtualIP(vip) // as the informers keep it
		p.s.VirtualIPs = append(p.s.VirtualIPs, vip)
	}
	return p
}

// other takes in an object that is no VirtualIP: it says its kind.
func (p *play) other(document []byte) bool {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(document, &meta); err != nil {
		p.t.Fatal(err)
	}
	var object any
	switch meta.Kind {
	case "":
		return false
	case "BGPPeer":
		peer := &v1alpha1.BGPPeer{}
		p.s.BGPPeers, object = append(p.s.BGPPeers, peer), peer
	case "Advertisement":
		a := &v1alpha1.Advertisement{}
		p.s.Advertisements, object = append(p.s.Advertisements, a), a
	default:
		p.t.Fatalf("kind %s?", meta.Kind)
	}
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		p.t.Fatal(err)
	}
	return true
}

var proxyTarget = health.Target{Kind: health.Proxy, URL: health.DefaultProxyURL}

func nodeNumber(node string) byte {
	n, err := strconv.Atoi(strings.TrimPrefix(node, "node-"))
	if err != nil {
		panic(err)
	}
	return byte(n)
}

func nodeAddr(node string) netip.Addr {
	return netip.AddrFrom4([4]byte{198, 51, 100, nodeNumber(node)})
}
func nodeMAC(node string) [6]byte { return [6]byte{2, 0, 0, 0, 0, nodeNumber(node)} }

func peersOf(candidates []string) []v1alpha1.L2Peer {
	var peers []v1alpha1.L2Peer
	for _, node := range candidates {
		peers = append(peers, v1alpha1.L2Peer{Node: node, Address: nodeAddr(node).String(), MAC: fmt.Sprintf("02:00:00:00:00:%02x", nodeNumber(node))})
	}
	return peers
}

func pathTo(node string) bfd.Path {
	return bfd.Path{Peer: nodeAddr(node), Local: nodeAddr("node-1"), Interface: "eth0"}
}

// happens lets time pass until a thing happens: "+100ms bfd node-2 up".
func (p *play) happens(words []string) {
	if len(words) == 0 {
		return
	}
	after, err := time.ParseDuration(strings.TrimPrefix(words[0], "+"))
	if err != nil {
		p.t.Fatal(err)
	}
	at := p.s.Now.Add(after)
	for p.s.Before != nil && !p.s.Before.Again.IsZero() && p.s.Before.Again.Before(at) {
		p.s.Now = later(p.s.Before.Again, p.s.Now.Add(time.Millisecond))
		p.decide("")
	}
	p.s.Now = at
	p.change(words[1:])
	p.decide(strings.Join(words[1:], " "))
}

func (p *play) change(words []string) {
	if len(words) == 0 {
		return
	}
	words = slices.Concat(words, []string{"", "", "", "", ""})
	switch words[0] {
	case "leaving":
		p.s.Leaving = true
	case "proxy":
		p.s.Health[proxyTarget] = health.State{Healthy: words[1] == "well", Reason: map[bool]health.Reason{false: health.ProxyHung}[words[1] == "well"], Since: p.s.Now}
		p.s.ProxyFailed = p.s.ProxyFailed || words[1] != "well"
	case "rules":
		state := p.s.Health[proxyTarget]
		state.Written = health.Written{IPv4: p.s.Now, IPv6: p.s.Now}
		if words[1] == "old" {
			state.Written = health.Written{IPv4: epoch.Add(-time.Hour), IPv6: epoch.Add(-time.Hour)}
		}
		p.s.Health[proxyTarget] = state
	case "local":
		state := health.State{Healthy: words[2] == "well", Since: p.s.Now}
		state.LocalEndpoints, _ = strconv.Atoi(words[3])
		if !state.Healthy {
			state.Reason = health.NoLocalEndpoints
		}
		for _, target := range Decide(p.s).Targets {
			if target.Service == words[1] {
				p.s.Health[target] = state
			}
		}
	case "carrier": // link, off or on
		p.s.Links = slices.Clone(p.s.Links)
		p.s.Links[slices.IndexFunc(p.s.Links, func(l link.Link) bool { return l.Name == words[1] })].Up = words[2] == "on"
	case "bfd":
		status := bfd.Status{Event: bfd.Event{Path: pathTo(words[1]), Time: p.s.Now}}
		switch words[2] {
		case "up":
			status.State, status.RemoteState = bfd.Up, bfd.Up
		case "new":
			status.State, status.RemoteState = bfd.Down, bfd.Down
		case "lost":
			status.State, status.RemoteState, status.Diag = bfd.Down, bfd.Down, bfd.DetectionTimeExpired
		case "admindown":
			status.State, status.RemoteState, status.Diag = bfd.Down, bfd.AdminDown, bfd.NeighborSignaledDown
		default:
			p.t.Fatalf("bfd %s?", words[2])
		}
		p.s.States[status.Path] = status
	case "claim": // address, host, yielding, newer or older
		addr := netip.MustParseAddr(words[1])
		c := l2.Claim{Addr: addr, Interface: "eth0", MAC: [6]byte{0xfe, 1, 2, 3, 4, 5}, Time: p.s.Now}
		switch {
		case words[3] == "unmarked":
			c.MAC = nodeMAC(words[2])
		case words[2] != "stranger":
			c.MAC, c.Marked, c.Yielding = nodeMAC(words[2]), true, words[3] == "yielding"
			c.Term = term(p.vip(words[1]))
			switch words[3] {
			case "newer":
				c.Term++
			case "older":
				c.Term--
			}
		}
		p.s.Claims[addr] = append(slices.DeleteFunc(slices.Clone(p.s.Claims[addr]), func(o l2.Claim) bool { return o.MAC == c.MAC }), c)
	case "link": // name, address
		prefixes := []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(words[2]), 32)}
		p.s.Links = append(slices.Clone(p.s.Links), link.Link{Index: 9, Name: words[1], MAC: [6]byte{2, 0, 0, 9, 0, 1}, Up: true, ARP: words[1] != "lo", Prefixes: prefixes})
	case "unlink":
		p.s.Links = slices.DeleteFunc(slices.Clone(p.s.Links), func(l link.Link) bool { return l.Name == words[1] })
	case "present":
		addr := nodeAddr(words[1])
		p.s.Claims[addr] = []l2.Claim{{Addr: addr, Interface: "eth0", MAC: nodeMAC(words[1]), Time: p.s.Now}}
	case "vip":
		p.edit(words)
	case "comes": // address, like another
		vip := p.vip(words[2]).DeepCopy()
		vip.Name, vip.Spec.Address = words[1], words[1]
		vip.CreationTimestamp = metav1.NewTime(p.s.Now.Truncate(time.Second)) // as the API server does
		p.s.VirtualIPs = append(p.s.VirtualIPs, vip)
	case "label":
		key, value, _ := strings.Cut(words[1], "=")
		p.s.Labels = map[string]string{key: value}
	case "cordon":
		p.s.Cordoned = words[1] != "off"
	case "barred":
		p.s.Barred = v1alpha1.Reason(words[1])
	case "gateway":
		p.s.Gateways = append(p.s.Gateways, link.Gateway{Addr: netip.MustParseAddr(words[1]), Interface: "eth0"})
	case "secret": // name, key, value
		p.s.Secrets = map[string]map[string][]byte{words[1]: {words[2]: []byte(words[3])}}
	case "session": // peer, state
		p.s.BGP = maps.Clone(p.s.BGP)
		if p.s.BGP == nil {
			p.s.BGP = map[string]bgp.Status{}
		}
		status := bgp.Status{Peer: words[1], State: words[2], Since: p.s.Now, Without: p.s.BGP[words[1]].Without}
		if status.State == established {
			status.Without = time.Time{}
		} else if status.Without.IsZero() {
			status.Without = p.s.Now
		}
		p.s.BGP[words[1]] = status
	case "unpeer":
		p.s.BGPPeers = slices.DeleteFunc(p.s.BGPPeers, func(o *v1alpha1.BGPPeer) bool { return o.Name == words[1] })
	case "nodes": // of an Advertisement
		i := slices.IndexFunc(p.s.Advertisements, func(a *v1alpha1.Advertisement) bool { return a.Name == words[1] })
		a := p.s.Advertisements[i].DeepCopy()
		a.Status.Nodes = int32(nodeNumber("node-" + words[2]))
		p.s.Advertisements[i] = a
	case "key":
		p.s.Watch = nil
	default:
		p.t.Fatalf("%v?", words)
	}
}

// edit is "vip 198.51.100.200 owner node-2", or candidates, or hold.
func (p *play) edit(words []string) {
	before := p.vip(words[1])
	vip := before.DeepCopy()
	switch words[2] {
	case "owner":
		vip.Status.Owner = words[3]
	case "candidates":
		vip.Spec.L2.Candidates = strings.Split(words[3], ",")
		vip.Spec.L2.Peers = peersOf(vip.Spec.L2.Candidates)
		vip.Generation++
	case "limit":
		vip.Spec.BGP.Limits = []v1alpha1.BGPLimit{{Advertisement: words[3], Nodes: strings.Split(words[4], ",")}}
	case "terminating":
		vip.Spec.TerminatingNodes = slices.DeleteFunc(strings.Split(words[3], ","), func(node string) bool { return node == "" })
		vip.Generation++
	case "hold":
		vip.Spec.Hold = v1alpha1.Reason(words[3])
		vip.Generation++
	default:
		p.t.Fatalf("%v?", words)
	}
	p.s.VirtualIPs[slices.Index(p.s.VirtualIPs, before)] = vip
}

func (p *play) vip(address string) *v1alpha1.VirtualIP {
	for _, vip := range p.s.VirtualIPs {
		if vip.Spec.Address == address {
			return vip
		}
	}
	p.t.Fatalf("there is no VirtualIP %s", address)
	return nil
}

func (p *play) decide(what string) {
	d := Decide(p.s)
	p.s.Before = d
	text := d.String()
	if text == p.last {
		return
	}
	p.last = text
	fmt.Fprintf(&p.log, "%s\n", strings.TrimSpace(fmt.Sprintf("after %s: %s", p.s.Now.Sub(epoch), what)))
	for line := range strings.Lines(text) {
		p.log.WriteString("    " + line)
	}
}

// Routers refuse a BGP identifier that could be a multicast address.
func TestRouterIDOfANodeWithoutIPv4IsThatOfAHost(t *testing.T) {
	ids := map[netip.Addr]bool{}
	for i := range 1000 {
		c := course{Snapshot: Snapshot{Node: fmt.Sprint("node-", i), InternalIPs: []netip.Addr{netip.MustParseAddr("2001:db8::1")}}}
		id := c.routerID("")
		if !id.Is4() || id.As4()[0] == 0 || id.As4()[0] > 223 || id != c.routerID("") {
			t.Errorf("%s has the router ID %s", c.Node, id)
		}
		ids[id] = true
	}
	if len(ids) < 999 {
		t.Errorf("1000 nodes have %d router IDs", len(ids))
	}
}

func BenchmarkDecideRoutes(b *testing.B) {
	s := Snapshot{
		Now: epoch, Node: "node-1", InternalIPs: []netip.Addr{nodeAddr("node-1")},
		Links:    []link.Link{{Index: 2, Name: "eth0", Up: true, ARP: true, Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr("node-1"), 24)}}},
		ProxyURL: health.DefaultProxyURL,
		Health:   map[health.Target]health.State{proxyTarget: {Healthy: true, Since: epoch}},
		BGPPeers: []*v1alpha1.BGPPeer{
			{ObjectMeta: metav1.ObjectMeta{Name: "tor-a"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerType: "External", Address: "198.51.100.253"}},
			{ObjectMeta: metav1.ObjectMeta{Name: "tor-b"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerType: "External", Address: "198.51.100.254"}},
		},
		Advertisements: []*v1alpha1.Advertisement{{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}, Spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}}}},
	}
	for i := range 10_000 {
		addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		s.VirtualIPs = append(s.VirtualIPs, &v1alpha1.VirtualIP{
			ObjectMeta: metav1.ObjectMeta{Name: addr.String(), CreationTimestamp: metav1.NewTime(epoch)},
			Spec: v1alpha1.VirtualIPSpec{
				Address: addr.String(), Claims: []v1alpha1.Claim{{Namespace: "shop", Name: "web"}}, BGP: &v1alpha1.BGPPlacement{Advertisements: []string{"fabric"}},
			},
		})
	}
	for b.Loop() {
		s.Before = Decide(s)
	}
	if len(s.Before.Routes) != len(s.VirtualIPs) {
		b.Fatal(len(s.Before.Routes), "routes")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(s.VirtualIPs)), "ns/address")
}
