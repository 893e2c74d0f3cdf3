package failover

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/sandbox"
)

// Routed is a Scene whose address is advertised by BGP: the kernel of a router,
// the client's default gateway, spreads connections over the nodes.
type Routed struct {
	*Scene
	// Router is the host that has the routes.
	Router string
	// Peer is the BGPPeer that stands for it.
	Peer string
}

// Ways are the nodes that the router's kernel leads the address to, from a moment on.
type Ways struct {
	At    time.Time
	Nodes []string
	// Before is when the ways before these were last seen.
	Before time.Time
}

// RoutedTrace is what was seen of a round: what came of the requests, and each
// change of the ways, the last one before From among them.
type RoutedTrace struct {
	Trace
	Ways []Ways
}

// Unaccounted are the failed requests but those whose connection was reset and open while the ways changed: it may end up at
// another node, which no routing protocol can prevent.
func (t RoutedTrace) Unaccounted() []Request {
	var changes []span
	for _, w := range t.Ways {
		if w.At.After(t.From) {
			changes = append(changes, span{w.Before, w.At})
		}
	}
	return unaccounted(t.Failed(), changes)
}

// Without is the time from From until the router led nothing to a node any more;
// negative when it always did.
func (t RoutedTrace) Without(node string) time.Duration {
	for _, w := range t.Ways {
		if w.At.After(t.From) && !slices.Contains(w.Nodes, node) {
			return w.At.Sub(t.From)
		}
	}
	return -1
}

// String tells the round in a line.
func (t RoutedTrace) String() string {
	failed := t.Failed()
	text := fmt.Sprintf("%d requests, %d failed", len(t.Requests), len(failed))
	if len(failed) > 0 {
		text += fmt.Sprintf(" (%v), the last after %d ms", failed[0].Err, t.Recovered().Milliseconds())
	}
	if late := t.Late(); late > 5*interval {
		text += fmt.Sprintf(", the client itself stood still for %d ms", late.Milliseconds())
	}
	for _, w := range t.Ways {
		text += fmt.Sprintf(", %s at %d ms", strings.Join(w.Nodes, "+"), w.At.Sub(t.From).Milliseconds())
	}
	return text
}

// wayWatch reads the router's routes to an address every 10 ms.
type wayWatch struct {
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu     sync.Mutex
	ways   []Ways
	failed error
}

func watchWays(box *sandbox.Sandbox, router string, addr netip.Addr) *wayWatch {
	names := map[netip.Addr]string{}
	for _, node := range box.Nodes() {
		v4, v6 := box.Addrs(node)
		names[v4], names[v6] = node, node
	}
	ctx, stop := context.WithCancel(context.Background())
	w := &wayWatch{stop: stop}
	w.ended.Go(func() {
		err := box.Do(router, func() error { return w.run(ctx, addr, names) })
		w.mu.Lock()
		defer w.mu.Unlock()
		w.failed = err
	})
	return w
}

func (w *wayWatch) run(ctx context.Context, addr netip.Addr, names map[netip.Addr]string) error {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for before := time.Now(); ; {
		now := time.Now()
		hops, err := nextHops(addr)
		if err != nil {
			return err
		}
		nodes := []string{}
		for _, hop := range hops {
			nodes = append(nodes, names[hop])
		}
		slices.Sort(nodes)
		w.mu.Lock()
		if n := len(w.ways); n == 0 || !slices.Equal(w.ways[n-1].Nodes, nodes) {
			w.ways = append(w.ways, Ways{At: time.Now(), Nodes: nodes, Before: before})
		}
		before = now
		w.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (w *wayWatch) now() ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.failed != nil || len(w.ways) == 0 {
		return nil, errors.Join(errors.New("the router's routes are not known yet"), w.failed)
	}
	return w.ways[len(w.ways)-1].Nodes, nil
}

// end returns the changes from the last one before a moment on.
func (w *wayWatch) end(from time.Time) ([]Ways, error) {
	w.stop()
	w.ended.Wait()
	first := 0
	for i, way := range w.ways {
		if !way.At.After(from) {
			first = i
		}
	}
	return w.ways[first:], w.failed
}

// nextHops are those of the host route to an address in this thread's namespace.
func nextHops(addr netip.Addr) ([]netip.Addr, error) {
	family := syscall.AF_INET
	if addr.Is6() {
		family = syscall.AF_INET6
	}
	table, err := syscall.NetlinkRIB(syscall.RTM_GETROUTE, family)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseNetlinkMessage(table)
	if err != nil {
		return nil, err
	}
	var hops []netip.Addr
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWROUTE || int(m.Data[1]) != addr.BitLen() {
			continue
		}
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(attributes, func(a syscall.NetlinkRouteAttr) bool {
			return a.Attr.Type == syscall.RTA_DST && bytes.Equal(a.Value, addr.AsSlice())
		}) {
			hops = append(hops, hopsOf(attributes)...)
		}
	}
	return hops, nil
}

func hopsOf(attributes []syscall.NetlinkRouteAttr) (hops []netip.Addr) {
	for _, a := range attributes {
		switch a.Attr.Type {
		case syscall.RTA_GATEWAY:
			hop, _ := netip.AddrFromSlice(a.Value)
			hops = append(hops, hop)
		case syscall.RTA_MULTIPATH:
			hops = append(hops, multipath(a.Value)...)
		}
	}
	return hops
}

// multipath reads the rtnexthop structures of rtnetlink(7), each with attributes.
func multipath(list []byte) (hops []netip.Addr) {
	for len(list) >= syscall.SizeofRtNexthop {
		size := int(binary.NativeEndian.Uint16(list))
		if size < syscall.SizeofRtNexthop || size > len(list) {
			return hops
		}
		for rest := list[syscall.SizeofRtNexthop:size]; len(rest) >= syscall.SizeofRtAttr; {
			length := int(binary.NativeEndian.Uint16(rest))
			if length < syscall.SizeofRtAttr || length > len(rest) {
				break
			}
			if binary.NativeEndian.Uint16(rest[2:]) == syscall.RTA_GATEWAY {
				hop, _ := netip.AddrFromSlice(rest[syscall.SizeofRtAttr:length])
				hops = append(hops, hop)
			}
			rest = rest[min(len(rest), (length+3)&^3):]
		}
		list = list[min(len(list), (size+3)&^3):]
	}
	return hops
}

// RoutedRun is a round that is under way.
type RoutedRun struct {
	*Routed

	client *Client
	watch  *wayWatch
	from   time.Time
}

// Begin starts a client and returns when all has been well for a second: the
// router leads to every node that can serve, each has a session with it and sees
// it by BFD, and no request failed.
func (s *Routed) Begin(ctx context.Context) (*RoutedRun, error) {
	r := &RoutedRun{Routed: s, watch: watchWays(s.Box, s.Router, s.Addr)}
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
func (r *RoutedRun) steady(ctx context.Context) error {
	want, err := r.advertising(ctx)
	if err != nil {
		return err
	}
	if err := r.led(want); err != nil {
		return err
	}
	for _, node := range want {
		if err := r.session(ctx, node); err != nil {
			return err
		}
	}
	return r.client.served(calm)
}

// advertising are the nodes that are to advertise the address.
func (s *Routed) advertising(ctx context.Context) ([]string, error) {
	nodes, err := s.eligible(ctx)
	if err != nil {
		return nil, err
	}
	vip, err := s.Herald.VirtualIPs.Get(ctx, v1alpha1.VirtualIPName(s.Addr), metav1.GetOptions{})
	if err != nil || vip.Spec.BGP == nil || len(vip.Spec.BGP.Limits) == 0 {
		return nodes, err
	}
	limited := func(node string) bool {
		return slices.ContainsFunc(vip.Spec.BGP.Limits, func(l v1alpha1.BGPLimit) bool { return slices.Contains(l.Nodes, node) })
	}
	return slices.DeleteFunc(nodes, func(node string) bool { return !limited(node) }), nil
}

// led fails while the router leads to other nodes than those.
func (r *RoutedRun) led(want []string) error {
	now, err := r.watch.now()
	if err != nil {
		return err
	}
	if want = slices.Sorted(slices.Values(want)); !slices.Equal(now, want) {
		return fmt.Errorf("the router leads to %v, not %v", now, want)
	}
	return nil
}

// session fails while a node has no session with the router, or does not see it.
func (s *Routed) session(ctx context.Context, node string) error {
	_, err := s.since(ctx, node)
	return err
}

// since is when the session of a node with the router began, by its Speaker; it fails
// while there is none, or the node does not see the router.
func (s *Routed) since(ctx context.Context, node string) (time.Time, error) {
	speaker, err := s.Herald.Speakers.Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return time.Time{}, err
	}
	for _, session := range speaker.Status.BGP {
		if session.Peer != s.Peer {
			continue
		}
		if session.State != "Established" || session.BFD != "" && session.BFD != "Up" || session.Since == nil {
			return time.Time{}, fmt.Errorf("speaker %s: %+v", node, session)
		}
		return session.Since.Time, nil
	}
	return time.Time{}, fmt.Errorf("speaker %s has no session with %s", node, s.Peer)
}

// Mark says that what is measured begins now.
func (r *RoutedRun) Mark() { r.from = time.Now() }

// Settle waits until the router leads to those nodes alone and the client has been
// served for half a second; and in any case for a second.
func (r *RoutedRun) Settle(ctx context.Context, limit time.Duration, nodes ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return poll(ctx, func(context.Context) error {
		if past := time.Since(r.from); past < time.Second {
			return fmt.Errorf("%v have passed", past)
		}
		if err := r.led(nodes); err != nil {
			return err
		}
		return r.client.served(calm / 2)
	})
}

// Led waits until the router leads to those nodes alone.
func (r *RoutedRun) Led(ctx context.Context, limit time.Duration, nodes ...string) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return poll(ctx, func(context.Context) error { return r.led(nodes) })
}

// End stops the client and returns what was seen.
func (r *RoutedRun) End() (RoutedTrace, error) {
	until := time.Now()
	requests := r.client.Stop()
	ways, err := r.watch.end(r.from)
	return RoutedTrace{Trace{From: r.from, Until: until, Requests: requests}, ways}, err
}

// RoutedCase is a way to break things where addresses are advertised by BGP.
type RoutedCase struct {
	Name string
	// Far is for pods on the last node alone, which is never the one.
	Far bool
	// Lost says that the node is left out at the end.
	Lost bool
	// Break does it to a node.
	Break func(ctx context.Context, r *RoutedRun, node string) error
}

// RoutedCases are all, in the order in which they are best read.
var RoutedCases = []RoutedCase{
	{Name: "bgp-power-loss", Far: true, Lost: true, Break: LosePower},
	{Name: "bgp-restart", Break: RestartSpeaker},
	{Name: "bgp-drain", Lost: true, Break: DrainAndStop},
}

// LosePower takes the power from the node: its links go down, all at once.
func LosePower(ctx context.Context, r *RoutedRun, node string) error {
	return r.Box.PowerOff(ctx, node)
}

// RestartSpeaker ends the node's speaker by SIGTERM and starts it again, as an
// update of the DaemonSet does. It returns when there is a session again: until it
// says so, the Speaker says what the speaker before it did.
func RestartSpeaker(ctx context.Context, r *RoutedRun, node string) error {
	before, err := r.since(ctx, node)
	if err != nil {
		return err
	}
	if err := r.Box.Restart(ctx, "speaker-"+node); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, recovery)
	defer cancel()
	return poll(ctx, func(ctx context.Context) error {
		since, err := r.since(ctx, node)
		if err == nil && since.Equal(before) {
			err = fmt.Errorf("speaker %s has not said that it has a session again", node)
		}
		return err
	})
}

// DrainAndStop cordons the node, ends its pods and then its speaker, as before a
// reboot.
func DrainAndStop(ctx context.Context, r *RoutedRun, node string) error {
	if err := r.cordon(ctx, node, true); err != nil {
		return err
	}
	if slices.Contains(r.Nodes, node) {
		if err := r.endPod(ctx, node); err != nil {
			return err
		}
	}
	return r.Box.Stop(ctx, "speaker-"+node)
}

// EndPod ends the pod of a node as a kubelet does: it serves on for its grace
// period.
func (s *Scene) EndPod(ctx context.Context, node string) error { return s.endPod(ctx, node) }

// StartPod makes the pod of a node, and returns when the EndpointSlices have it.
func (s *Scene) StartPod(ctx context.Context, node string) error {
	if err := s.addPod(ctx, node); err != nil {
		return err
	}
	return s.served(ctx, node)
}

// Cordon says whether pods may be scheduled to a node.
func (s *Scene) Cordon(ctx context.Context, node string, cordoned bool) error {
	return s.cordon(ctx, node, cordoned)
}

// Play plays one round of a case on a node. The trace is good if there is one, also
// beside an error. The cluster is whole when Play returns, or the error says why not.
func (s *Routed) Play(ctx context.Context, c RoutedCase, node string) (trace *RoutedTrace, err error) {
	run, err := s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	rest, err := s.eligible(ctx)
	if c.Lost {
		rest = slices.DeleteFunc(rest, func(n string) bool { return n == node })
	}
	if err == nil {
		run.Mark()
		err = c.Break(ctx, run, node)
	}
	if err != nil {
		_, end := run.End()
		return nil, errors.Join(fmt.Errorf("breaking it: %w", err), end, s.Restore(ctx))
	}
	settled := run.Settle(ctx, recovery, rest...)
	seen, end := run.End()
	return &seen, errors.Join(settled, end, s.Restore(ctx))
}

// RoutedSummary is what the rounds of a case come to.
type RoutedSummary struct {
	Case   RoutedCase
	Traces []RoutedTrace
	// Errors counts the rounds that could not be played, or did not end well.
	Errors int
}

// String is the line that the benchmark prints. The milliseconds are the time from
// the break until no request failed any more; failed is a sum.
func (s RoutedSummary) String() string {
	var spans []time.Duration
	failed := 0
	for _, t := range s.Traces {
		spans = append(spans, t.Recovered())
		failed += len(t.Failed())
	}
	line := fmt.Sprintf("case=%s rounds=%d p50_ms=%d p99_ms=%d max_ms=%d failed=%d", s.Case.Name, len(s.Traces),
		milliseconds(percentile(spans, 50)), milliseconds(percentile(spans, 99)), milliseconds(percentile(spans, 100)), failed)
	if s.Errors > 0 {
		line += fmt.Sprintf(" errors=%d", s.Errors)
	}
	return line
}
