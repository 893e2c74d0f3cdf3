package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	node = "node1"
	// writers is how many write objects at a time.
	writers = 16
	// limit is how long something may take.
	limit = 10 * time.Minute
)

func duration(text string) *metav1.Duration {
	d, err := time.ParseDuration(text)
	if err != nil {
		panic(err)
	}
	return &metav1.Duration{Duration: d}
}

// converge measures how long it takes until the router has so many routes from one
// speaker: from the moment that the speaker, which knows the addresses, is told of
// the router; and from its start, when it knows nothing.
func (b *bench) converge(ctx context.Context, counts []int) error {
	if err := b.Box.InstallHerald(ctx); err != nil {
		return err
	}
	if err := b.advertise(ctx); err != nil {
		return err
	}
	written := 0
	for _, count := range slices.Sorted(slices.Values(counts)) {
		if err := b.addresses(ctx, written, count); err != nil {
			return err
		}
		written = count
		if err := b.count(ctx, count); err != nil {
			return fmt.Errorf("%d routes: %w", count, err)
		}
	}
	return nil
}

// count measures with as many routes as there are addresses.
func (b *bench) count(ctx context.Context, count int) error {
	if err := b.Box.StartSpeaker(ctx, node); err != nil {
		return err
	}
	if err := b.idle(ctx); err != nil {
		return err
	}
	start := time.Now()
	if err := b.peer(ctx, nil); err != nil {
		return err
	}
	if err := b.routes(ctx, count); err != nil {
		return err
	}
	told, rss := time.Since(start), b.rss()

	// Nothing of before is left in the router: it is told everything again.
	if err := b.Box.Kill(ctx, "speaker-"+node); err != nil {
		return err
	}
	if err := b.routes(ctx, 0); err != nil {
		return err
	}
	start = time.Now()
	if err := b.Box.StartAgain("speaker-" + node); err != nil {
		return err
	}
	if err := b.routes(ctx, count); err != nil {
		return err
	}
	fmt.Printf("case=%s routes=%d seconds=%.1f start_seconds=%.1f rss_mib=%d\n", converge, count, told.Seconds(), time.Since(start).Seconds(), rss)
	if err := b.Box.Kill(ctx, "speaker-"+node); err != nil {
		return err
	}
	return b.Herald.BGPPeers.Delete(ctx, object, metav1.DeleteOptions{})
}

// addresses writes VirtualIPs as the controller would, without one, until there
// are so many.
func (b *bench) addresses(ctx context.Context, written, count int) error {
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for n := written; n < count; n++ {
		vip := virtualIP(netip.AddrFrom4([4]byte{100, byte(80 + n>>16), byte(n >> 8), byte(n)}))
		group.Go(func() error {
			_, err := b.Herald.VirtualIPs.Create(ctx, vip, metav1.CreateOptions{})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "%d addresses written in %.1f s\n", count-written, time.Since(start).Seconds())
	return nil
}

func virtualIP(addr netip.Addr) *v1alpha1.VirtualIP {
	name := v1alpha1.VirtualIPName(addr)
	return &v1alpha1.VirtualIP{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.VirtualIPSpec{
			Address: addr.String(), Pool: object,
			Claims: []v1alpha1.Claim{{
				Namespace: object, Name: strings.ReplaceAll(name, ".", "-"),
				Ports:                 []v1alpha1.ClaimPort{{Protocol: corev1.ProtocolTCP, Port: 80}},
				ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster,
			}},
			BGP: &v1alpha1.BGPPlacement{Advertisements: []string{object}},
		},
	}
}

// idle waits until the speaker does nothing for a second: it has read everything.
func (b *bench) idle(ctx context.Context) error {
	last := b.cpu()
	for start := time.Now(); time.Since(start) < limit; {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
		now := b.cpu()
		if now-last < 20 && time.Since(start) > 5*time.Second {
			return nil
		}
		last = now
	}
	return fmt.Errorf("the speaker was not idle within %v", limit)
}

// cpu is the time that the speaker has used, in hundredths of a second.
func (b *bench) cpu() int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.Box.PID("speaker-"+node)))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(after)
	var user, system int
	if len(fields) > 12 {
		fmt.Sscan(fields[11]+" "+fields[12], &user, &system)
	}
	return user + system
}

// routes waits until the router has so many routes, by its own word.
func (b *bench) routes(ctx context.Context, count int) error {
	var seen int
	for start := time.Now(); time.Since(start) < limit; {
		var err error
		if seen, err = b.received(ctx); err != nil {
			return err
		}
		if seen == count {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
	return fmt.Errorf("the router has %d routes after %v, want %d", seen, limit, count)
}

// received is how many paths FRR has in its table.
func (b *bench) received(ctx context.Context) (int, error) {
	var tables map[string]struct {
		RIBCount int `json:"ribCount"`
		Peers    map[string]struct{ PfxRcd int }
	}
	if err := b.frr.Read(ctx, "show bgp summary", &tables); err != nil {
		return 0, err
	}
	sum := 0
	for _, p := range tables["ipv4Unicast"].Peers {
		sum += p.PfxRcd
	}
	if sum == 0 {
		// Routes of a peer that is gone may still be there.
		return tables["ipv4Unicast"].RIBCount, nil
	}
	return sum, nil
}

// rss is the memory of the speaker, in MiB.
func (b *bench) rss() int {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.Box.PID("speaker-"+node)))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(data), "VmRSS:")
	kib := 0
	fmt.Sscan(after, &kib)
	return kib / 1024
}
