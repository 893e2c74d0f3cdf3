// Package speaker announces virtual IPs from one node. It watches VirtualIPs
// and its own Node, decides what to announce, has that done, and says so in
// the objects' status. It is the only package of the speaker that knows
// Kubernetes.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/speaker/l2"
	"github.com/heraldlb/herald/speaker/link"
)

// Responder answers for addresses on the local network: *l2.Responder.
type Responder interface {
	Run(ctx context.Context) error
	Set(interfaces []l2.Interface, announcements []l2.Announcement, questions []l2.Question) error
}

// Options of a Speaker.
type Options struct {
	Client kubernetes.Interface
	Herald *client.Clients
	// Node the speaker runs on.
	Node string
	// Namespace of the speakers' Leases.
	Namespace string
	// Version to report.
	Version   string
	Responder Responder
	// Watch tells of the node's interfaces: link.Watch.
	Watch func(ctx context.Context, notify func([]link.Link)) error
	// Metrics takes the speaker's own.
	Metrics prometheus.Registerer
}

// Speaker announces addresses from its node.
type Speaker struct {
	Options
	node    *corev1.Node // as it was at the start
	vips    cache.SharedIndexInformer
	nodes   cache.SharedIndexInformer
	changed chan struct{} // something in the snapshot did
	status  *statusWriter
	metrics metrics

	mu    sync.Mutex
	links []link.Link
	known bool // the links
}

// handOver is how long a speaker that stops goes on answering while the
// others take over.
const handOver = 4 * time.Second

// New returns a Speaker. It asks for the Node, and fails when there is none:
// a speaker that misspells its node would never be a candidate, and not say why.
func New(ctx context.Context, options Options) (*Speaker, error) {
	node, err := getNode(ctx, options.Client, options.Node)
	if err != nil {
		return nil, err
	}
	s := &Speaker{
		Options: options,
		node:    node,
		vips:    client.Informer(options.Herald.VirtualIPs, &v1alpha1.VirtualIP{}),
		nodes: coreinformers.NewFilteredNodeInformer(options.Client, 0, cache.Indexers{}, func(list *metav1.ListOptions) {
			list.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, options.Node).String()
		}),
		changed: make(chan struct{}, 1),
		metrics: newMetrics(),
	}
	s.status = newStatusWriter(options, node)
	if err := s.metrics.register(options.Metrics); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return s, nil
}

// getNode waits for the API server, but not for the Node.
func getNode(ctx context.Context, kube kubernetes.Interface, name string) (*corev1.Node, error) {
	for {
		node, err := kube.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
		if err == nil {
			return node, nil
		}
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("there is no Node %q: --node-name must be the name of the Node that the speaker runs on", name)
		}
		if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			return nil, fmt.Errorf("reading Node %q: %w", name, err)
		}
		klog.FromContext(ctx).Error(err, "The API server does not answer, will ask again", "node", name)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// Run announces until ctx is done. Then it lets go: it gives up its Lease, and
// goes on answering until others have taken over, so that nothing is lost.
func (s *Speaker) Run(ctx context.Context) error {
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, work := errgroup.WithContext(work)
	// The responder falls silent last.
	answer, silence := context.WithCancel(context.WithoutCancel(work))
	defer silence()
	answering := make(chan error, 1)
	go func() { answering <- s.Responder.Run(answer) }()

	lease := newLease(s.Options, s.node)
	group.Go(func() error { s.vips.RunWithContext(work); return nil })
	group.Go(func() error { s.nodes.RunWithContext(work); return nil })
	group.Go(func() error { return s.Watch(work, s.setLinks) })
	group.Go(func() error { return s.decide(work) })
	group.Go(func() error { s.status.run(work); return nil })
	group.Go(func() error { lease.keep(ctx); return nil })
	group.Go(func() error {
		defer stop()
		select {
		case <-work.Done():
		case err := <-answering:
			answering <- err
			return fmt.Errorf("answering ARP and NDP: %w", errors.Join(err, errors.New("the responder ended")))
		case <-ctx.Done():
			s.leave(work, lease)
		}
		return nil
	})
	err := group.Wait()
	silence()
	return errors.Join(err, <-answering)
}

// leave hands over: without the Lease this node is no candidate any more, and
// when the controller has said so the next one announces. Announce before
// releasing: a gap of one packet is an outage, a duplicate is not.
func (s *Speaker) leave(ctx context.Context, lease *lease) {
	ctx, cancel := context.WithTimeout(ctx, handOver)
	defer cancel()
	logger := klog.FromContext(ctx)
	logger.Info("Leaving", "announcing", s.status.announcing())
	if err := lease.release(ctx); err != nil {
		logger.Error(err, "The Lease could not be given up: it will expire")
	}
	for s.status.announcing() > 0 {
		select {
		case <-ctx.Done():
			logger.Info("Nobody took over in time", "announcing", s.status.announcing())
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// decide follows every change with a decision and has it done.
func (s *Speaker) decide(ctx context.Context) error {
	if !cache.WaitForNamedCacheSyncWithContext(ctx, s.vips.HasSynced, s.nodes.HasSynced) {
		return nil
	}
	poke := func(any) { s.poke() }
	handler := cache.ResourceEventHandlerFuncs{AddFunc: poke, UpdateFunc: func(_, after any) { poke(after) }, DeleteFunc: poke}
	for _, informer := range []cache.SharedIndexInformer{s.vips, s.nodes} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching VirtualIPs and the Node: %w", err)
		}
	}
	logger := klog.FromContext(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.changed:
		}
		snapshot, ok := s.snapshot()
		if !ok {
			continue
		}
		start := time.Now()
		decision := Decide(snapshot)
		if err := s.Responder.Set(interfaces(snapshot.Links), decision.L2, nil); err != nil {
			logger.Error(err, "Not everything can be announced")
		}
		s.metrics.decided(time.Since(start), decision)
		s.status.want(snapshot, decision)
	}
}

func (s *Speaker) poke() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

func (s *Speaker) setLinks(links []link.Link) {
	s.mu.Lock()
	s.links, s.known = links, true
	s.mu.Unlock()
	s.poke()
}

// snapshot gathers what there is to decide by; not before the links are known.
func (s *Speaker) snapshot() (Snapshot, bool) {
	s.mu.Lock()
	links, known := s.links, s.known
	s.mu.Unlock()
	node := s.node
	if object, exists, err := s.nodes.GetStore().GetByKey(s.Node); err == nil && exists {
		node = object.(*corev1.Node)
	}
	return Snapshot{
		Node:        s.Node,
		InternalIPs: internalIPs(node),
		Links:       links,
		VirtualIPs:  client.Objects[*v1alpha1.VirtualIP](s.vips.GetStore()),
	}, known
}

func internalIPs(node *corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, address := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(address.Address); err == nil && address.Type == corev1.NodeInternalIP {
			addresses = append(addresses, addr)
		}
	}
	return addresses
}

// interfaces are the links as the responder sees them.
func interfaces(links []link.Link) []l2.Interface {
	var all []l2.Interface
	for _, l := range links {
		if l.ARP {
			all = append(all, l2.Interface{Name: l.Name, Index: l.Index, MAC: l.MAC, Up: l.Up})
		}
	}
	slices.SortFunc(all, func(a, b l2.Interface) int { return strings.Compare(a.Name, b.Name) })
	return all
}
