package speaker

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/internal/fakeapi"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/bgp"
	"github.com/heraldlb/herald/speaker/health"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// still does what it is told, and tells nothing.
type still struct{}

func (still) Run(ctx context.Context) error { <-ctx.Done(); return nil }
func (still) LeaveQuietly()                 {}

type (
	stillResponder  struct{ still }
	stillWatcher    struct{ still }
	stillProber     struct{ still }
	stillAdvertiser struct{ still }
)

func (stillResponder) Set([]l2.Interface, []l2.Announcement, []l2.Question) error { return nil }
func (stillResponder) SetKeys([]byte, []byte)                                     {}
func (stillWatcher) Set([]bfd.Session) error                                      { return nil }
func (stillWatcher) States() []bfd.Status                                         { return nil }
func (stillProber) Set([]health.Target) error                                     { return nil }
func (stillProber) SetHosts([]netip.Addr)                                         {}
func (stillProber) States() map[health.Target]health.State {
	return map[health.Target]health.State{proxyTarget: {Healthy: true, Since: epoch}}
}
func (stillAdvertiser) Set([]bgp.Peer, []bgp.Route) error { return nil }
func (stillAdvertiser) Statuses() []bgp.Status            { return nil }

// crowd is an API server with many VirtualIPs, which it makes up when it is asked for them, as the controller and the speakers
// write them.
type crowd struct {
	*fakeapi.Server
	count int
	vip   func(n int) *v1alpha1.VirtualIP
}

func (c *crowd) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/virtualips") || r.URL.Query().Get("watch") == "" {
		c.Server.ServeHTTP(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	type event struct {
		Type   string `json:"type"`
		Object any    `json:"object"`
	}
	if r.URL.Query().Get("sendInitialEvents") == "true" {
		for i := range c.count {
			_ = encoder.Encode(event{"ADDED", c.vip(i)}) // the client has gone
		}
		end := &v1alpha1.VirtualIP{TypeMeta: vipType, ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: "1000000", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}}
		_ = encoder.Encode(event{"BOOKMARK", end})
	}
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

var vipType = metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "VirtualIP"}

// vipOf is the nth VirtualIP without its placement.
func vipOf(n int) *v1alpha1.VirtualIP {
	addr := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)})
	written := metav1.NewTime(epoch)
	return &v1alpha1.VirtualIP{
		TypeMeta: vipType,
		ObjectMeta: metav1.ObjectMeta{
			Name: v1alpha1.VirtualIPName(addr), UID: types.UID(fmt.Sprintf("4f1c5a52-8b1e-4c1f-9d0b-%012x", n)), ResourceVersion: fmt.Sprint(n + 1), Generation: 1, CreationTimestamp: written,
			ManagedFields: []metav1.ManagedFieldsEntry{
				{
					Manager: "herald-controller-manager", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: vipType.APIVersion, Time: &written, FieldsType: "FieldsV1",
					FieldsV1: metav1.NewFieldsV1(`{"f:spec":{".":{},"f:address":{},"f:bgp":{".":{},"f:advertisements":{".":{},"v:\"fabric\"":{}}},"f:claims":{".":{},"k:{\"name\":\"web\",\"namespace\":\"shop\"}":{".":{},"f:externalTrafficPolicy":{},"f:name":{},"f:namespace":{},"f:ports":{},"f:uid":{}}},"f:pool":{},"f:reclaimPolicy":{}}}`),
				},
				{
					Manager: "herald-speaker", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: vipType.APIVersion, Time: &written, FieldsType: "FieldsV1", Subresource: "status",
					FieldsV1: metav1.NewFieldsV1(`{"f:status":{".":{},"f:conditions":{".":{},"k:{\"type\":\"Announced\"}":{".":{},"f:lastTransitionTime":{},"f:message":{},"f:reason":{},"f:status":{},"f:type":{}}},"f:owner":{},"f:ownerSince":{}}}`),
				},
			},
		},
		Spec: v1alpha1.VirtualIPSpec{
			Address: addr.String(), Pool: "public", ReclaimPolicy: v1alpha1.ReclaimDelete,
			Claims: []v1alpha1.Claim{{
				Namespace: fmt.Sprintf("team-%d", n%100), Name: fmt.Sprintf("web-%d", n), UID: types.UID(fmt.Sprintf("4f1c5a52-8b1e-4c1f-9d0b-%012x", n+1<<24)),
				Ports:                 []v1alpha1.ClaimPort{{Protocol: corev1.ProtocolTCP, Port: 80}, {Protocol: corev1.ProtocolTCP, Port: 443}},
				ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			}},
		},
	}
}

// byL2 is the nth VirtualIP announced by one of three nodes.
func byL2(n int) *v1alpha1.VirtualIP {
	vip := vipOf(n)
	names := []string{"node-1", "node-2", "node-3"}
	candidates := slices.Concat(names[n%3:], names[:n%3])
	vip.Spec.L2 = &v1alpha1.L2Placement{Candidates: candidates, Peers: peersOf(candidates)}
	vip, _ = told(vip, candidates[0], Verdict{Interfaces: []string{"eth0"}, Why: "had it before"}, epoch)
	return vip
}

// byBGP is the nth VirtualIP advertised by each node.
func byBGP(n int) *v1alpha1.VirtualIP {
	vip := vipOf(n)
	vip.Spec.BGP = &v1alpha1.BGPPlacement{Advertisements: []string{"fabric"}}
	vip.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Advertised), ObservedGeneration: 1,
		Message: "Advertised by BGP; the Speakers and BGPPeers tell of the sessions.", LastTransitionTime: metav1.NewTime(epoch),
	}}
	return vip
}

// newCrowded returns a speaker of node-1 that knows of many VirtualIPs and has decided about them.
func newCrowded(b *testing.B, count int, vip func(int) *v1alpha1.VirtualIP) *Speaker {
	api := &crowd{Server: fakeapi.New(b), count: count, vip: vip}
	server := httptest.NewServer(api)
	b.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	config := api.Config()
	config.Host, config.Transport = server.URL, nil
	s := newStill(b, config)
	if known := len(s.vips.GetStore().ListKeys()); known != count {
		b.Fatalf("%d VirtualIPs are known of %d", known, count)
	}
	for range 3 {
		if _, ok := s.decideOnce(quiet(b)); !ok {
			b.Fatal("nothing is decided")
		}
	}
	return s
}

// quiet is the context of a test without its log.
func quiet(t testing.TB) context.Context { return klog.NewContext(t.Context(), klog.Logger{}) }

// newStill returns a speaker of node-1 that hears the API server, and nothing else.
func newStill(b testing.TB, config *rest.Config) *Speaker {
	ctx, cancel := context.WithCancel(quiet(b))
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		b.Fatal(err)
	}
	herald, err := client.New(config)
	if err != nil {
		b.Fatal(err)
	}
	node, err := kube.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddr("node-1").String()}}
	if _, err := kube.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
		b.Fatal(err)
	}
	advert := &v1alpha1.Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "fabric"}, Spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{Communities: []string{"64512:100"}}}}
	if _, err := herald.Advertisements.Create(ctx, advert, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	asn := int64(64513)
	router := &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor1"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PeerASN: &asn, Address: "198.51.100.254"}}
	if _, err := herald.BGPPeers.Create(ctx, router, metav1.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	s, err := New(ctx, Options{
		Client: kube, Herald: herald, Node: "node-1", Namespace: "herald-system", StateDir: b.TempDir(), ProxyURL: proxyTarget.URL,
		Responder: stillResponder{}, Watcher: stillWatcher{}, Prober: stillProber{}, Advertiser: stillAdvertiser{}, Senses: NewSenses(),
	})
	if err != nil {
		b.Fatal(err)
	}
	s.setLinks([]link.Link{{Index: 2, Name: "eth0", MAC: nodeMAC("node-1"), Up: true, ARP: true, Prefixes: []netip.Prefix{netip.PrefixFrom(nodeAddr("node-1"), 24)}}})
	stopped := make(chan struct{}, len(s.informers())+1)
	s.watchSecrets()
	go func() { s.secrets.run(ctx); stopped <- struct{}{} }()
	for _, informer := range s.informers() {
		go func() { informer.RunWithContext(ctx); stopped <- struct{}{} }()
	}
	b.Cleanup(func() {
		cancel()
		for range cap(stopped) {
			<-stopped
		}
	})
	for start := time.Now(); !s.synced(); time.Sleep(10 * time.Millisecond) {
		if time.Since(start) > 5*time.Minute {
			b.Fatal("the informers do not hear")
		}
	}
	return s
}

// held is the memory in use, in bytes.
func held() uint64 {
	runtime.GC()
	runtime.GC() // what the first has found to be finalised
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkMany is what a speaker holds of each VirtualIP, and what a decision costs after a change of one of them. A third of
// those announced by L2 are this node's, and all of those by BGP. What the BGP speaker itself holds is not in it: see
// BenchmarkConvergence.
func BenchmarkMany(b *testing.B) {
	for _, way := range []struct {
		name string
		vip  func(int) *v1alpha1.VirtualIP
	}{{"L2", byL2}, {"BGP", byBGP}} {
		for _, count := range []int{10_000, 100_000} {
			b.Run(fmt.Sprintf("%s/virtualIPs=%d", way.name, count), func(b *testing.B) {
				before := held()
				s := newCrowded(b, count, way.vip)
				retained := held() - before
				store := s.vips.GetStore()
				for n := 0; b.Loop(); n++ {
					object, _, _ := store.GetByKey(vipOf(n % count).Name)
					changed := object.(*v1alpha1.VirtualIP).DeepCopy()
					changed.Generation++
					_ = store.Update(changed)
					if _, ok := s.decideOnce(quiet(b)); !ok {
						b.Fatal("nothing is decided")
					}
				}
				b.ReportMetric(float64(retained)/float64(count), "held-B/VirtualIP")
			})
		}
	}
}

func TestRoutesThatMayBeRefused(t *testing.T) {
	for addresses, want := range map[int]uint32{0: 10_000, 1: 10_000, 2048: 10_000, 2049: 16_384, 4096: 16_384, 100_000: 524_288} {
		if got := mostRefused(addresses); got != want {
			t.Errorf("%d addresses: %d, want %d", addresses, got, want)
		}
	}
}
