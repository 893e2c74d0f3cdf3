// Command failover measures what failures cost the clients of a Service, on a
// cluster of its own: "make bench-failover". It prints one key=value line a
// case on stdout, and each round on stderr.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/test/e2e/failover"
	"github.com/heraldlb/herald/test/sandbox"
)

const (
	// nodes may all own the address but the last, where the pods are: what is
	// lost is then the way to the pods, and never the pods.
	nodes       = 4
	backendNode = "node4"
	namespace   = "failover"
	// unsteady rounds in a row end a case: the next one starts afresh.
	unsteady = 3
)

type options struct {
	rounds      int
	cases       string
	speakerArgs string
	realtime    bool
	logs        string
}

func main() {
	var o options
	flag.IntVar(&o.rounds, "rounds", 20, "rounds of each case")
	flag.StringVar(&o.cases, "cases", "", "cases, with commas; all when empty")
	flag.StringVar(&o.speakerArgs, "speaker-args", "", "further arguments of the speakers")
	flag.BoolVar(&o.realtime, "realtime", false, "let speakers have real-time threads (CAP_SYS_NICE)")
	flag.StringVar(&o.logs, "logs", "", "folder for the logs of the cluster after a round with an error")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-failover:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	cases, err := choose(o.cases)
	if err != nil {
		return err
	}
	config := sandbox.Config{
		Name: fmt.Sprintf("bf-%d", os.Getpid()), Nodes: nodes, Progress: os.Stderr, SpeakerArgs: strings.Fields(o.speakerArgs),
	}
	if o.realtime {
		config.SpeakerCapabilities = []sandbox.Capability{sandbox.CapSysNice}
	}
	box, err := sandbox.Up(ctx, config)
	if err != nil {
		return err
	}
	failed, err := measure(ctx, box, cases, o.rounds)
	if failed && o.logs != "" {
		err = errors.Join(err, os.RemoveAll(o.logs), os.CopyFS(o.logs, os.DirFS(box.Dir()+"/log")))
		fmt.Fprintln(os.Stderr, "the logs are in", o.logs)
	}
	return errors.Join(err, box.Down(context.WithoutCancel(ctx)))
}

// choose returns the cases by their names, in the order of those.
func choose(names string) ([]failover.Case, error) {
	if names == "" {
		return failover.Cases, nil
	}
	var chosen []failover.Case
	for name := range strings.SplitSeq(names, ",") {
		i := slices.IndexFunc(failover.Cases, func(c failover.Case) bool { return c.Name == strings.TrimSpace(name) })
		if i < 0 {
			var all []string
			for _, c := range failover.Cases {
				all = append(all, c.Name)
			}
			return nil, fmt.Errorf("there is no case %q, but: %s", name, strings.Join(all, ", "))
		}
		chosen = append(chosen, failover.Cases[i])
	}
	return chosen, nil
}

// bench is the cluster with its clients.
type bench struct {
	box    *sandbox.Sandbox
	kube   kubernetes.Interface
	herald *client.Clients
}

// measure plays the cases and prints a line each. failed says that a round had
// an error.
func measure(ctx context.Context, box *sandbox.Sandbox, cases []failover.Case, rounds int) (failed bool, err error) {
	b := &bench{box: box}
	if err := b.connect(ctx); err != nil {
		return false, err
	}
	for _, c := range cases {
		summary, err := b.play(ctx, c, rounds)
		failed = failed || summary.Errors > 0
		if err != nil {
			return failed, fmt.Errorf("%s: %w", c.Name, err)
		}
		fmt.Println(summary)
	}
	return failed, nil
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
	_, err = b.kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, corev1.LabelNodeExcludeBalancers)
	if _, err := b.kube.CoreV1().Nodes().Patch(ctx, backendNode, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "failover"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.100.128/25"}}}
	_, err = b.herald.AddressPools.Create(ctx, pool, metav1.CreateOptions{})
	return err
}

// play plays the rounds of a case on a Service of its own.
func (b *bench) play(ctx context.Context, c failover.Case, rounds int) (failover.Summary, error) {
	summary := failover.Summary{Case: c}
	scene, err := b.stage(ctx, c)
	if err != nil {
		return summary, err
	}
	missed := 0
	for round := 1; round <= rounds && missed < unsteady; round++ {
		start := time.Now()
		trace, err := scene.Play(ctx, c)
		if ctx.Err() != nil {
			return summary, context.Cause(ctx)
		}
		missed++
		if trace != nil {
			missed = 0
			summary.Traces = append(summary.Traces, *trace)
			fmt.Fprintf(os.Stderr, "%s %d/%d: %s (%.1f s)\n", c.Name, round, rounds, trace, time.Since(start).Seconds())
		}
		if err != nil {
			summary.Errors++
			fmt.Fprintf(os.Stderr, "%s %d/%d: error: %s\n", c.Name, round, rounds, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
	if missed == unsteady {
		fmt.Fprintf(os.Stderr, "%s: no round could be played %d times in a row, the rest is left out\n", c.Name, unsteady)
	}
	return summary, scene.Strike(ctx)
}

// stage makes the Service of a case with its pods.
func (b *bench) stage(ctx context.Context, c failover.Case) (*failover.Scene, error) {
	scene := &failover.Scene{
		Box: b.box, Kube: b.kube, Herald: b.herald, Namespace: namespace, Service: c.Name, Client: "client", Watcher: "client2",
		Nodes: []string{backendNode},
	}
	policy := corev1.ServiceExternalTrafficPolicyCluster
	switch {
	case c.Local:
		policy, scene.Nodes = corev1.ServiceExternalTrafficPolicyLocal, []string{"node1"}
	case c.Everywhere:
		scene.Nodes = b.box.Nodes()
	}
	err := scene.Stage(ctx, policy)
	return scene, err
}
