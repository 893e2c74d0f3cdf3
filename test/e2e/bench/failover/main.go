// Command failover measures what failures cost the clients of a Service, on a
// cluster of its own: "make bench-failover". It prints one key=value line a
// case on stdout, and each round on stderr.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/bench/rig"
	"github.com/heraldlb/herald/test/e2e/failover"
	"github.com/heraldlb/herald/test/sandbox"
)

const (
	// nodes may all own the address but the last, where the pods are: what is
	// lost is then the way to the pods, and never the pods.
	nodes       = 4
	backendNode = "node4"
	namespace   = "failover"
)

func main() {
	rounds := flag.Int("rounds", 20, "rounds of each case")
	names := flag.String("cases", "", "cases, with commas; all when empty")
	speakers, logs := rig.SpeakerFlags(), rig.Logs()
	rig.Main("bench-failover", func(ctx context.Context) error {
		cases, err := rig.Choose(*names, failover.Cases, func(c failover.Case) string { return c.Name })
		if err != nil {
			return err
		}
		config := sandbox.Config{Name: fmt.Sprintf("bf-%d", os.Getpid()), Nodes: nodes}
		speakers.Configure(&config)
		return rig.Up(ctx, config, *logs, func(r rig.Rig) (bool, error) { return bench{r}.measure(ctx, cases, *rounds) })
	})
}

// bench is the cluster with its clients.
type bench struct{ rig.Rig }

// measure plays the cases and prints a line each. failed says that a round had
// an error.
func (b bench) measure(ctx context.Context, cases []failover.Case, rounds int) (failed bool, err error) {
	if err := b.prepare(ctx); err != nil {
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

func (b bench) prepare(ctx context.Context) error {
	_, err := b.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:""}}}`, corev1.LabelNodeExcludeBalancers)
	if _, err := b.Kube.CoreV1().Nodes().Patch(ctx, backendNode, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err != nil {
		return err
	}
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "failover"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"198.51.100.128/25"}}}
	_, err = b.Herald.AddressPools.Create(ctx, pool, metav1.CreateOptions{})
	return err
}

// play plays the rounds of a case on a Service of its own.
func (b bench) play(ctx context.Context, c failover.Case, rounds int) (failover.Summary, error) {
	summary := failover.Summary{Case: c}
	scene, err := b.stage(ctx, c)
	if err != nil {
		return summary, err
	}
	summary.Traces, summary.Errors, err = rig.Rounds(ctx, c.Name, rounds, func(int) (*failover.Trace, error) {
		return scene.Play(ctx, c)
	})
	if err != nil {
		return summary, err
	}
	return summary, scene.Strike(ctx)
}

// stage makes the Service of a case with its pods.
func (b bench) stage(ctx context.Context, c failover.Case) (*failover.Scene, error) {
	scene := &failover.Scene{
		Box: b.Box, Kube: b.Kube, Herald: b.Herald, Namespace: namespace, Service: c.Name, Client: "client", Watcher: "client2",
		Nodes: []string{backendNode},
	}
	policy := corev1.ServiceExternalTrafficPolicyCluster
	switch {
	case c.Local:
		policy, scene.Nodes = corev1.ServiceExternalTrafficPolicyLocal, []string{"node1"}
	case c.Everywhere:
		scene.Nodes = b.Box.Nodes()
	}
	err := scene.Stage(ctx, policy)
	return scene, err
}
