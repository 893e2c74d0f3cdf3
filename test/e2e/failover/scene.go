package failover

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/test/sandbox"
)

const (
	// calm is for how long all must be well before something is broken.
	calm = time.Second
	// steadyLimit bounds the wait for that: what uses the API server may come
	// back to it a minute after it did. restoreLimit bounds the repair before it.
	steadyLimit  = 2 * time.Minute
	restoreLimit = time.Minute
	// apiServer is the name of its process.
	apiServer = "kube-apiserver"
)

// Scene is a Service with one IPv4 address on a cluster, with all that lies
// below it.
type Scene struct {
	Box    *sandbox.Sandbox
	Kube   kubernetes.Interface
	Herald *client.Clients
	// Namespace and Service are what is asked for; its pods are <service>-<node>
	// with the label app=<service>.
	Namespace, Service string
	// Addr is the address of the Service, which serves on port 80.
	Addr netip.Addr
	// Nodes are those with a pod: Restore sees to it that there are no others.
	Nodes []string
	// Client asks, Watcher watches the LAN: hosts of the sandbox.
	Client, Watcher string
	// Patience is how long the client waits for its connection, and then for its answer; 200 ms when it is zero. Below a second
	// a lost SYN is a failed request.
	Patience time.Duration
	// Grace is how long a pod serves on when it is to end; 2 s when it is zero.
	Grace time.Duration

	ports ports
}

func (s *Scene) virtualIP(ctx context.Context) (*v1alpha1.VirtualIP, error) {
	return s.Herald.VirtualIPs.Get(ctx, v1alpha1.VirtualIPName(s.Addr), metav1.GetOptions{})
}

// Run is a round that is under way.
type Run struct {
	*Scene
	// Owner is the node that had the address when the round began.
	Owner string
	// Candidates is what they were then.
	Candidates []string

	client *Client
	watch  *Watch
	names  map[MAC]string
	from   time.Time
}

// Begin starts a client and a watch, and returns when all has been well for a
// second: the nodes that can be candidates are, they hold each other to be up and
// have the rules for the address, one of them answers, and no request failed.
func (s *Scene) Begin(ctx context.Context) (*Run, error) {
	r := &Run{Scene: s, names: map[MAC]string{}}
	for _, node := range s.Box.Nodes() {
		mac, err := s.Box.MAC(node)
		if err != nil {
			return nil, err
		}
		r.names[MAC(mac)] = node
	}
	var err error
	if r.watch, err = WatchLAN(s.Box, s.Watcher, s.Addr); err != nil {
		return nil, err
	}
	r.client = s.ask()
	ctx, cancel := context.WithTimeout(ctx, steadyLimit)
	defer cancel()
	if err := poll(ctx, r.steady); err != nil {
		_, end := r.End()
		return nil, errors.Join(fmt.Errorf("it was not all well: %w", err), end)
	}
	r.Mark()
	return r, nil
}

// steady fails while something is not well.
func (r *Run) steady(ctx context.Context) error {
	if err := r.client.served(calm); err != nil {
		return err
	}
	mac, err := r.watch.only(calm)
	if err != nil {
		return err
	}
	r.Owner = r.names[mac]
	vip, err := r.virtualIP(ctx)
	if err != nil {
		return err
	}
	if vip.Status.Owner != r.Owner || !meta.IsStatusConditionTrue(vip.Status.Conditions, v1alpha1.ConditionAnnounced) {
		return fmt.Errorf("%s answers for the address and the VirtualIP says %+v", r.Owner, vip.Status)
	}
	if vip.Spec.L2 == nil {
		return fmt.Errorf("the VirtualIP has no candidates: %+v", vip.Spec)
	}
	r.Candidates = vip.Spec.L2.Candidates
	if want, err := r.eligible(ctx); err != nil || len(r.Candidates) != min(3, len(want)) || !slices.Contains(r.Candidates, r.Owner) {
		return errors.Join(err, fmt.Errorf("the candidates are %v, the owner is %s, and %v could be candidates", r.Candidates, r.Owner, want))
	}
	if err := r.watched(ctx); err != nil {
		return err
	}
	return r.programmed(ctx)
}

// programmed fails while the service proxy of a candidate has no rules for the
// address: it may be late after the API server was away.
func (r *Run) programmed(ctx context.Context) error {
	for _, node := range r.Candidates {
		rules, err := r.Box.Exec(ctx, node, "nft", "list", "map", "ip", "kube-proxy", "service-ips")
		if err != nil {
			return err
		}
		if !strings.Contains(rules, r.Addr.String()+" ") {
			return fmt.Errorf("the proxy of %s has no rules for %s", node, r.Addr)
		}
	}
	return nil
}

// eligible are the nodes that can have the address when all is well.
func (s *Scene) eligible(ctx context.Context) ([]string, error) {
	service, err := s.Kube.CoreV1().Services(s.Namespace).Get(ctx, s.Service, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	nodes, err := s.balancing(ctx)
	if service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal {
		nodes = slices.DeleteFunc(nodes, func(node string) bool { return !slices.Contains(s.Nodes, node) })
	}
	return nodes, err
}

// balancing are the nodes that are not excluded from load balancing.
func (s *Scene) balancing(ctx context.Context) ([]string, error) {
	list, err := s.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: "!" + corev1.LabelNodeExcludeBalancers})
	if err != nil {
		return nil, err
	}
	var nodes []string
	for _, node := range list.Items {
		nodes = append(nodes, node.Name)
	}
	return nodes, nil
}

// watched fails while a candidate's Speaker is not well or does not hold the
// other candidates to be up. Speakers that watch nobody by BFD show no peers.
func (r *Run) watched(ctx context.Context) error {
	for _, node := range r.Candidates {
		speaker, err := r.Herald.Speakers.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if c := meta.FindStatusCondition(speaker.Status.Conditions, v1alpha1.ConditionServiceProxyHealthy); c != nil && c.Status != metav1.ConditionTrue {
			return fmt.Errorf("speaker %s: %s: %s", node, c.Reason, c.Message)
		}
		for _, peer := range speaker.Status.Peers {
			if slices.Contains(r.Candidates, peer.Node) && peer.BFD != "Up" {
				return fmt.Errorf("speaker %s: peer %s is %s", node, peer.Node, peer.BFD)
			}
		}
		if n := len(speaker.Status.Peers); n > 0 && n < len(r.Candidates)-1 {
			return fmt.Errorf("speaker %s: %d peers, and the candidates are %v", node, n, r.Candidates)
		}
	}
	return nil
}

// Mark says that what is measured begins now.
func (r *Run) Mark() { r.from = time.Now() }

// Settle waits until the address has moved so many times since the mark, one
// host alone answers for it, and the client is served, the last two for half a second; and in any
// case for a second. It does not take more than limit.
func (r *Run) Settle(ctx context.Context, moves int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return poll(ctx, func(context.Context) error {
		if past := time.Since(r.from); past < time.Second {
			return fmt.Errorf("%v have passed", past)
		}
		if n := len(r.trace().Moves()); n < moves {
			return fmt.Errorf("%d moves were seen, %d are due", n, moves)
		}
		if err := r.client.served(calm / 2); err != nil {
			return err
		}
		_, err := r.watch.only(calm / 2)
		return err
	})
}

// trace is what the watch has seen so far.
func (r *Run) trace() Trace {
	return Trace{From: r.from, Until: time.Now(), Probes: r.watch.since(time.Time{}), Names: r.names}
}

// Answering waits until one node, or other host, alone answers for the address, and
// has for a quarter of a second. It does not take more than limit.
func (r *Run) Answering(ctx context.Context, limit time.Duration) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	err = poll(ctx, func(context.Context) error {
		mac, err := r.watch.only(calm / 4)
		name = r.trace().Name(mac)
		return err
	})
	return name, err
}

// End stops the client and the watch and returns what they saw.
func (r *Run) End() (Trace, error) {
	until := time.Now()
	requests := r.client.Stop()
	probes, err := r.watch.Stop()
	if err != nil {
		err = fmt.Errorf("watching the LAN: %w", err)
	}
	return Trace{From: r.from, Until: until, Requests: requests, Probes: probes, Names: r.names}, err
}

// Restore makes the cluster whole, whatever was broken, also when it is
// only half broken. On a whole cluster it does nothing.
func (s *Scene) Restore(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), restoreLimit)
	defer cancel()
	return errors.Join(s.restoreNetwork(ctx), s.restoreProcesses(ctx), s.restoreNodes(ctx), s.restorePods(ctx))
}

func (s *Scene) restoreNetwork(ctx context.Context) error {
	var errs []error
	for _, node := range s.Box.Nodes() {
		errs = append(errs, s.Box.LinkUp(ctx, node), s.Box.Rejoin(ctx, node), s.Box.UnblockUDP(ctx, node))
	}
	return errors.Join(errs...)
}

// breakable says whether a case may end processes of that name; the controller
// manager ends itself when it loses its leadership in an outage. Others that do
// not run were stopped by somebody else, for good.
func breakable(name string) bool {
	return name == "controller" || strings.HasPrefix(name, "kube-") || strings.HasPrefix(name, "speaker-")
}

// restoreProcesses starts what a case may have ended and does not run, the API
// server first; and wakes what was put to sleep.
func (s *Scene) restoreProcesses(ctx context.Context) error {
	processes, err := s.Box.Processes()
	if err != nil {
		return err
	}
	if pid, ok := processes[apiServer]; ok && pid == 0 {
		if err := s.restoreAPI(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(processes)) {
		switch {
		case name == apiServer, !breakable(name):
		case processes[name] == 0:
			errs = append(errs, s.Box.StartAgain(name))
		case strings.HasPrefix(name, "kube-proxy-"):
			errs = append(errs, s.Box.Signal(name, syscall.SIGCONT))
		}
	}
	for _, node := range s.Box.Nodes() {
		errs = append(errs, s.Box.WaitForProxy(ctx, node))
	}
	return errors.Join(errs...)
}

func (s *Scene) restoreAPI(ctx context.Context) error {
	if err := s.Box.StartAgain(apiServer); err != nil {
		return err
	}
	if err := s.Box.WaitForAPI(ctx); err != nil {
		return err
	}
	return s.RenewClients(ctx)
}

// RenewClients starts the clients of the API server anew that are not Herald's:
// when it was away they would wait up to a minute until they try again.
func (s *Scene) RenewClients(ctx context.Context) error {
	clients := []string{"kube-controller-manager"}
	for _, node := range s.Box.Nodes() {
		clients = append(clients, "kube-proxy-"+node)
	}
	var errs []error
	for _, name := range clients {
		if s.Box.Running(name) {
			errs = append(errs, s.Box.Restart(ctx, name))
		}
	}
	return errors.Join(errs...)
}

func (s *Scene) restoreNodes(ctx context.Context) error {
	list, err := s.Kube.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var errs []error
	for _, node := range list.Items {
		if node.Spec.Unschedulable {
			errs = append(errs, s.cordon(ctx, node.Name, false))
		}
	}
	return errors.Join(errs...)
}

// cordon says whether pods may be scheduled to a node, as kubectl cordon and
// uncordon do.
func (s *Scene) cordon(ctx context.Context, node string, cordoned bool) error {
	patch := fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, cordoned)
	_, err := s.Kube.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

// restorePods sees to it that each of Nodes has a pod of the Service that is
// ready, and no other node has one.
func (s *Scene) restorePods(ctx context.Context) error {
	pods, err := s.Box.Pods()
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, pod := range pods {
		if pod.Namespace != s.Namespace || pod.Labels["app"] != s.Service {
			continue
		}
		object, err := s.Kube.CoreV1().Pods(s.Namespace).Get(ctx, pod.Name, metav1.GetOptions{})
		if err == nil && object.DeletionTimestamp == nil && slices.Contains(s.Nodes, pod.Node) {
			there[pod.Node] = true
			continue
		}
		if err := s.Box.DeletePod(ctx, pod.Namespace, pod.Name); err != nil {
			return err
		}
	}
	for _, node := range s.Nodes {
		if there[node] {
			continue
		}
		if err := s.addPod(ctx, node); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scene) addPod(ctx context.Context, node string) error {
	_, err := s.Box.AddPod(ctx, sandbox.Pod{
		Namespace: s.Namespace, Name: s.pod(node), Node: node, Labels: map[string]string{"app": s.Service},
	})
	return err
}

func (s *Scene) pod(node string) string { return s.Service + "-" + node }

// served waits until the EndpointSlices name the pod of a node as ready.
func (s *Scene) served(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, restoreLimit)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		list, err := s.Kube.DiscoveryV1().EndpointSlices(s.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: discoveryv1.LabelServiceName + "=" + s.Service,
		})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			for _, endpoint := range slice.Endpoints {
				ready := endpoint.Conditions.Ready
				if endpoint.NodeName != nil && *endpoint.NodeName == node && ready != nil && *ready {
					return nil
				}
			}
		}
		return fmt.Errorf("no EndpointSlice has the pod on %s", node)
	})
}

// poll calls f until it succeeds; when ctx ends first, it returns f's last error.
func poll(ctx context.Context, f func(context.Context) error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := f(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-ticker.C:
		}
	}
}
