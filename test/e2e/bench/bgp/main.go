// Command bgp measures BGP with FRR as the router, on clusters of its own: "make
// bench-bgp". It prints one key=value line a case on stdout, and how it goes on
// stderr.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/bench/rig"
	"github.com/heraldlb/herald/test/e2e/failover"
	"github.com/heraldlb/herald/test/sandbox"
)

const (
	nodeASN = 64512
	torASN  = 64513
	// converge is the name of the case that counts routes.
	converge = "converge"
	// object is the name of all that is made.
	object = "bench"
)

// torConfig is a router that takes every node, and watches it by BFD at 100 ms × 3.
const torConfig = `
bfd
 profile fast
  receive-interval 100
  transmit-interval 100
  detect-multiplier 3
 exit
exit
router bgp 64513
 bgp router-id 198.51.100.1
 no bgp ebgp-requires-policy
 neighbor NODES peer-group
 neighbor NODES remote-as 64512
 neighbor NODES bfd profile fast
 bgp listen range 198.51.100.0/24 peer-group NODES
 address-family ipv4 unicast
  maximum-paths 16
 exit-address-family
 address-family ipv6 unicast
  neighbor NODES activate
  maximum-paths 16
 exit-address-family
exit
`

type options struct {
	rounds        int
	routes, cases string
	speakers      rig.Speakers
	logs          *string
}

func main() {
	o := options{speakers: rig.SpeakerFlags(), logs: rig.Logs()}
	flag.IntVar(&o.rounds, "rounds", 20, "rounds of each failure")
	flag.StringVar(&o.routes, "routes", "1000,10000,100000", "numbers of routes, with commas")
	flag.StringVar(&o.cases, "cases", "", "cases, with commas; all when empty")
	rig.Main("bench-bgp", func(ctx context.Context) error { return run(ctx, o) })
}

func run(ctx context.Context, o options) error {
	counts, err := numbers(o.routes)
	if err != nil {
		return err
	}
	counting, failures, err := choose(o.cases)
	if err != nil {
		return err
	}
	if counting {
		if err := o.inCluster(ctx, true, func(b *bench) (bool, error) { return false, b.converge(ctx, counts) }); err != nil {
			return err
		}
	}
	if len(failures) == 0 {
		return nil
	}
	return o.inCluster(ctx, false, func(b *bench) (bool, error) { return b.fail(ctx, failures, o.rounds) })
}

func numbers(text string) (counts []int, err error) {
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(word))
		if err != nil || n < 1 || n > 1<<20 {
			return nil, fmt.Errorf("%q is not a number of routes up to %d", word, 1<<20)
		}
		counts = append(counts, n)
	}
	return counts, nil
}

// choose returns the cases by their names, in the order of those.
func choose(names string) (counting bool, failures []failover.RoutedCase, err error) {
	all := append([]failover.RoutedCase{{Name: converge}}, failover.RoutedCases...)
	chosen, err := rig.Choose(names, all, func(c failover.RoutedCase) string { return c.Name })
	for _, c := range chosen {
		if c.Name == converge {
			counting = true
			continue
		}
		failures = append(failures, c)
	}
	return counting, failures, err
}

// bench is a cluster with its clients and its router.
type bench struct {
	rig.Rig
	frr *sandbox.FRR
}

// inCluster has something measured in a new cluster: a bare one of one node, with
// Herald's objects and nothing that runs, or a whole one of three. wrong says that
// the logs are of interest.
func (o options) inCluster(ctx context.Context, bare bool, measure func(*bench) (wrong bool, err error)) error {
	config := sandbox.Config{Name: fmt.Sprintf("bb-%d", os.Getpid()), Nodes: 3}
	if bare {
		config.Nodes, config.WithoutHerald = 1, true
	}
	o.speakers.Configure(&config)
	return rig.Up(ctx, config, *o.logs, func(r rig.Rig) (bool, error) {
		frr, err := r.Box.StartFRR(ctx, "router", torConfig)
		if err != nil {
			return false, err
		}
		return measure(&bench{r, frr})
	})
}

// advertise makes the Advertisement of all pools.
func (b *bench) advertise(ctx context.Context) error {
	advert := &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: object}, Spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}},
	}
	_, err := b.Herald.Advertisements.Create(ctx, advert, metav1.CreateOptions{})
	return err
}

// peer makes the BGPPeer for the router.
func (b *bench) peer(ctx context.Context, restart *v1alpha1.GracefulRestart) error {
	router, _ := b.Box.Addrs("router")
	peer := &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: object},
		Spec: v1alpha1.BGPPeerSpec{
			LocalASN: nodeASN, PeerASN: ptr.To[int64](torASN), Address: router.String(), ConnectRetryTime: duration("1s"),
			GracefulRestart: restart,
			BFD:             &v1alpha1.BFD{ReceiveInterval: duration("100ms"), TransmitInterval: duration("100ms")},
		},
	}
	_, err := b.Herald.BGPPeers.Create(ctx, peer, metav1.CreateOptions{})
	return err
}
