// Command bgp measures BGP with FRR as the router, on clusters of its own: "make
// bench-bgp". It prints one key=value line a case on stdout, and how it goes on
// stderr.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
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
	rounds      int
	routes      string
	cases       string
	speakerArgs string
	realtime    bool
	logs        string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "rounds of each failure")
	flag.StringVar(&o.routes, "routes", "1000,10000,100000", "numbers of routes, with commas")
	flag.StringVar(&o.cases, "cases", "", "cases, with commas; all when empty")
	flag.StringVar(&o.speakerArgs, "speaker-args", "", "further arguments of the speakers")
	flag.BoolVar(&o.realtime, "realtime", false, "let speakers have real-time threads (CAP_SYS_NICE)")
	flag.StringVar(&o.logs, "logs", "", "folder for the logs of a cluster in which something went wrong")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-bgp:", err)
		os.Exit(1)
	}
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
	if names == "" {
		return true, failover.RoutedCases, nil
	}
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		i := slices.IndexFunc(failover.RoutedCases, func(c failover.RoutedCase) bool { return c.Name == name })
		switch {
		case name == converge:
			counting = true
		case i >= 0:
			failures = append(failures, failover.RoutedCases[i])
		default:
			all := []string{converge}
			for _, c := range failover.RoutedCases {
				all = append(all, c.Name)
			}
			return false, nil, fmt.Errorf("there is no case %q, but: %s", name, strings.Join(all, ", "))
		}
	}
	return counting, failures, nil
}

// bench is a cluster with its clients and its router.
type bench struct {
	box    *sandbox.Sandbox
	kube   kubernetes.Interface
	herald *client.Clients
	frr    *sandbox.FRR
}

// inCluster has something measured in a new cluster: a bare one of one node, with
// Herald's objects and nothing that runs, or a whole one of three. wrong says that
// the logs are of interest.
func (o options) inCluster(ctx context.Context, bare bool, measure func(*bench) (wrong bool, err error)) error {
	config := sandbox.Config{
		Name: fmt.Sprintf("bb-%d", os.Getpid()), Nodes: 3, Progress: os.Stderr, SpeakerArgs: strings.Fields(o.speakerArgs),
	}
	if bare {
		config.Nodes, config.WithoutHerald = 1, true
	}
	if o.realtime {
		config.SpeakerCapabilities = []sandbox.Capability{sandbox.CapSysNice}
	}
	box, err := sandbox.Up(ctx, config)
	if err != nil {
		return err
	}
	b := &bench{box: box}
	wrong := false
	err = b.connect(ctx)
	if err == nil {
		wrong, err = measure(b)
	}
	if (wrong || err != nil) && o.logs != "" {
		err = errors.Join(err, os.RemoveAll(o.logs), os.CopyFS(o.logs, os.DirFS(box.Dir()+"/log")))
		fmt.Fprintln(os.Stderr, "the logs are in", o.logs)
	}
	return errors.Join(err, box.Down(context.WithoutCancel(ctx)))
}

func (b *bench) connect(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", b.box.Kubeconfig())
	if err != nil {
		return err
	}
	config.QPS, config.Burst = -1, 0
	if b.kube, err = kubernetes.NewForConfig(config); err != nil {
		return err
	}
	if b.herald, err = client.New(config); err != nil {
		return err
	}
	b.frr, err = b.box.StartFRR(ctx, "router", torConfig)
	return err
}

// advertise makes the Advertisement of all pools.
func (b *bench) advertise(ctx context.Context) error {
	advert := &v1alpha1.Advertisement{
		ObjectMeta: metav1.ObjectMeta{Name: object}, Spec: v1alpha1.AdvertisementSpec{BGP: &v1alpha1.BGPAdvertisement{}},
	}
	_, err := b.herald.Advertisements.Create(ctx, advert, metav1.CreateOptions{})
	return err
}

// peer makes the BGPPeer for the router.
func (b *bench) peer(ctx context.Context, restart *v1alpha1.GracefulRestart) error {
	router, _ := b.box.Addrs("router")
	peer := &v1alpha1.BGPPeer{
		ObjectMeta: metav1.ObjectMeta{Name: object},
		Spec: v1alpha1.BGPPeerSpec{
			LocalASN: nodeASN, PeerASN: ptr.To[int64](torASN), Address: router.String(), ConnectRetryTime: duration("1s"),
			GracefulRestart: restart,
			BFD:             &v1alpha1.BFD{ReceiveInterval: duration("100ms"), TransmitInterval: duration("100ms")},
		},
	}
	_, err := b.herald.BGPPeers.Create(ctx, peer, metav1.CreateOptions{})
	return err
}
