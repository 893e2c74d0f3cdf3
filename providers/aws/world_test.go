package aws

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/record"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"sigs.k8s.io/yaml"

	"github.com/heraldlb/herald/providers/aws/awsfake"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// world is a VPC of two zones with a cluster in it, and the provider.
type world struct {
	t        *testing.T
	cloud    *awsfake.Cloud
	provider *Provider
	options  Options
	events   *record.FakeRecorder
	nodes    []*corev1.Node
	services map[types.NamespacedName]*corev1.Service
	slices   []*discoveryv1.EndpointSlice
	// kill ends the attempt that is under way.
	kill context.CancelFunc
}

const (
	certificate = "arn:aws:acm:eu-west-1:111122223333:certificate/one"
	another     = "arn:aws:acm:eu-west-1:111122223333:certificate/two"
)

// newWorld makes a world inside a bubble of synctest, whose clock is AWS's.
func newWorld(t *testing.T, nodes int, options awsfake.Options) *world {
	options.Now = time.Now
	cloud := awsfake.New(options)
	prefix := netip.MustParsePrefix
	cloud.AddVPC(awsfake.VPC{ID: "vpc-1", CIDRs: []netip.Prefix{prefix("10.0.0.0/16"), prefix("2001:db8::/56")}})
	for i, zone := range []string{"eu-west-1a", "eu-west-1b"} {
		tags := map[string]string{"kubernetes.io/cluster/prod": "shared", "Name": "public-" + zone[len(zone)-1:]}
		cloud.AddSubnet(awsfake.Subnet{
			ID: fmt.Sprintf("subnet-public%d", i+1), VPC: "vpc-1", Zone: zone, Public: true, Tags: tags,
			CIDR: prefix(fmt.Sprintf("10.0.%d.0/24", i+1)), CIDRv6: prefix(fmt.Sprintf("2001:db8:0:%d::/64", i+1)),
		})
		tags = map[string]string{"kubernetes.io/cluster/prod": "shared", "kubernetes.io/role/internal-elb": "1", "Name": "private-" + zone[len(zone)-1:]}
		cloud.AddSubnet(awsfake.Subnet{
			ID: fmt.Sprintf("subnet-private%d", i+1), VPC: "vpc-1", Zone: zone, Tags: tags,
			CIDR: prefix(fmt.Sprintf("10.0.%d.0/24", i+11)), CIDRv6: prefix(fmt.Sprintf("2001:db8:0:%d::/64", i+11)),
		})
	}
	for _, name := range []string{"sg-nodes", "sg-extra", "sg-mine"} {
		cloud.AddSecurityGroup(awsfake.SecurityGroup{ID: name, Name: name, VPC: "vpc-1", Tags: map[string]string{"Name": name[3:]}})
	}
	for _, arn := range []string{certificate, another} {
		cloud.AddCertificate(arn)
	}
	for i := range 3 {
		cloud.AddAddress(awsfake.Address{ID: fmt.Sprintf("eipalloc-%d", i+1), IP: netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)})})
	}
	cloud.AddBucket("logs")
	cloud.AddPrefixList("pl-office", 2)
	w := &world{t: t, cloud: cloud, events: record.NewFakeRecorder(10000), services: map[types.NamespacedName]*corev1.Service{}}
	for i := range nodes {
		w.addNode(i + 1)
	}
	w.options = Options{
		ELB: cloud.ELB(), ELBV2: cloud.ELBV2(), EC2: cloud.EC2(), Recorder: w.events,
		ClusterName: "prod", VPCID: "vpc-1", Types: map[string]Type{"heraldlb.io/nlb": NLB, "heraldlb.io/clb": CLB},
		CallsPerSecond: 1e6, CallBurst: 1e6,
	}
	w.restart()
	return w
}

// restart starts the provider anew: it knows nothing of what it did. The
// election of a leader takes its time.
func (w *world) restart() {
	time.Sleep(15 * time.Second)
	w.options.Informers = informers.NewSharedInformerFactory(fake.NewClientset(), 0)
	provider, err := New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.provider = provider
	for _, service := range w.services {
		w.store(service)
	}
	for _, node := range w.nodes {
		w.storeNode(node)
	}
	for _, slice := range w.slices {
		if err := w.provider.slices.GetStore().Update(slice); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) storeNode(node *corev1.Node) {
	if err := w.options.Informers.Core().V1().Nodes().Informer().GetStore().Update(node); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) store(service *corev1.Service) {
	store := w.options.Informers.Core().V1().Services().Informer().GetStore()
	if err := store.Update(service); err != nil {
		w.t.Fatal(err)
	}
}

// addNode adds a node with its instance.
func (w *world) addNode(n int) {
	id := fmt.Sprintf("i-%017x", n)
	zone := (n-1)%2 + 1
	w.cloud.AddInstance(awsfake.Instance{ID: id, Subnet: fmt.Sprintf("subnet-private%d", zone), Groups: []string{"sg-nodes"}})
	w.nodes = append(w.nodes, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", n), Labels: map[string]string{"zone": fmt.Sprint(zone)}},
		Spec:       corev1.NodeSpec{ProviderID: fmt.Sprintf("aws:///eu-west-1%c/%s", 'a'+zone-1, id)},
	})
	if w.provider != nil {
		w.storeNode(w.nodes[len(w.nodes)-1])
	}
}

// service is a Service of two ports; edit may change it.
func service(class string, edit func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{}
	text := `
metadata: {namespace: shop, name: web, uid: 0f9e8d7c-6b5a-4938-2716-05f4e3d2c1b0, annotations: {}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Cluster
  sessionAffinity: None
  ipFamilies: [IPv4]
  ports:
  - {name: http, port: 80, nodePort: 30080, protocol: TCP, targetPort: 8080}
  - {name: https, port: 443, nodePort: 30443, protocol: TCP, targetPort: 8443}
`
	if err := yaml.Unmarshal([]byte(text), s); err != nil {
		panic(err)
	}
	if class != "" {
		s.Spec.LoadBalancerClass = &class
	}
	if edit != nil {
		edit(s)
	}
	return s
}

func annotate(name, value string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Annotations[settings.Prefix+name] = value }
}

// sync is one attempt of the service controller at a Service.
func (w *world) sync(ctx context.Context, service *corev1.Service) (*corev1.LoadBalancerStatus, error) {
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	given := service.DeepCopy()
	if known := w.services[key]; known != nil && known.UID == service.UID {
		given.Finalizers = known.Finalizers
	}
	kept := given.DeepCopy()
	kept.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
	w.services[key] = kept
	w.store(kept)
	return w.provider.EnsureLoadBalancer(ctx, "", given, w.nodes)
}

// remove is one attempt of the service controller to give up a Service.
func (w *world) remove(ctx context.Context, service *corev1.Service) error {
	gone := service.DeepCopy()
	gone.Finalizers = []string{servicehelper.LoadBalancerCleanupFinalizer}
	gone.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	w.services[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}] = gone
	w.store(gone)
	_, exists, err := w.provider.GetLoadBalancer(ctx, "", gone)
	if err != nil || !exists {
		return err
	}
	return w.provider.EnsureLoadBalancerDeleted(ctx, "", gone)
}

// until tries until it succeeds, as the service controller does.
func until(t *testing.T, try func() error) {
	t.Helper()
	var err error
	wait := 50 * time.Millisecond
	for range 60 {
		if err = try(); err == nil {
			return
		}
		if retry, ok := errors.AsType[*api.RetryError](err); ok {
			time.Sleep(retry.RetryAfter())
			continue
		}
		time.Sleep(wait)
		wait = min(2*wait, time.Minute)
	}
	t.Fatalf("still fails: %v", err)
}

// ensure syncs until the Service is served.
func (w *world) ensure(service *corev1.Service) *corev1.LoadBalancerStatus {
	w.t.Helper()
	var status *corev1.LoadBalancerStatus
	until(w.t, func() (err error) {
		status, err = w.sync(w.t.Context(), service)
		return err
	})
	return status
}

// delete gives up until nothing is left.
func (w *world) delete(service *corev1.Service) {
	w.t.Helper()
	until(w.t, func() error { return w.remove(w.t.Context(), service) })
}

func (w *world) calls() string {
	var lines []string
	for _, call := range w.cloud.Calls() {
		lines = append(lines, call.String())
	}
	return strings.Join(lines, "\n")
}

// bubble runs a test in a world.
func bubble(t *testing.T, nodes int, options awsfake.Options, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld(t, nodes, options)) })
}
