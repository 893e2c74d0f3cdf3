// Command aws counts what load balancers cost in calls of AWS's APIs, on a
// cluster of its own and moto: "make bench-aws". It prints one key=value line a
// case on stdout, and the calls by their names on stderr.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/test/e2e/bench/rig"
	"github.com/heraldlb/herald/test/e2e/moto"
	"github.com/heraldlb/herald/test/sandbox"
)

const (
	cluster   = "bench"
	namespace = "bench-aws"
	ports     = 2
	// calm is how long nothing must be called for a case to be over: longer
	// than Herald waits to look again at a load balancer that AWS makes.
	calm     = 17 * time.Second
	patience = 5 * time.Minute
)

const config = `apiVersion: config.heraldlb.io/v1alpha1
kind: CloudConfig
clusterName: ` + cluster + `
default: ""
classes:
  heraldlb.io/nlb: {provider: aws, type: nlb}
  heraldlb.io/clb: {provider: aws, type: clb}
aws: {region: %s, vpcID: %s, endpoint: %q}
`

func main() {
	services := flag.Int("services", 50, "Services of the cases in which many are made and deleted at once; 0 leaves those out")
	logs := rig.Logs()
	rig.Main("bench-aws", func(ctx context.Context) error {
		config := sandbox.Config{Name: fmt.Sprintf("ba-%d", os.Getpid()), WithoutHerald: true}
		return rig.Up(ctx, config, *logs, func(r rig.Rig) (bool, error) { return false, measure(ctx, r, *services) })
	})
}

// bench is the cluster with its AWS.
type bench struct {
	rig.Rig
	cloud *moto.Cloud
}

func measure(ctx context.Context, r rig.Rig, services int) error {
	b := &bench{Rig: r}
	if err := b.prepare(ctx); err != nil {
		return err
	}
	for _, kind := range []string{"nlb", "clb"} {
		// What is asked of AWS once in a while, as for its subnets, is asked by
		// the first.
		if err := b.warmUp(ctx, kind); err != nil {
			return fmt.Errorf("warming up for %s: %w", kind, err)
		}
		if err := b.one(ctx, kind); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if services == 0 {
			continue
		}
		if err := b.many(ctx, kind, services); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
	}
	return nil
}

// prepare starts AWS, gives the nodes their instances, and starts Herald.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.cloud, err = moto.Start(ctx, b.Box); err != nil {
		return err
	}
	vpc, err := b.cloud.MakeVPC(ctx, cluster, 20)
	if err != nil {
		return err
	}
	instances, err := b.cloud.RunInstances(ctx, vpc, len(b.Box.Nodes()))
	if err != nil {
		return err
	}
	_, err = b.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for i, node := range b.Box.Nodes() {
		if err := b.patchNode(ctx, node, fmt.Sprintf(`{"spec":{"providerID":%q}}`, instances[i].ProviderID())); err != nil {
			return err
		}
	}
	path := filepath.Join(b.Box.Dir(), "cloud-config.yaml")
	if err := os.WriteFile(path, fmt.Appendf(nil, config, moto.Region, vpc.ID, b.cloud.Endpoint), 0o644); err != nil {
		return err
	}
	if err := b.Box.InstallHerald(ctx); err != nil {
		return err
	}
	return b.Box.RunController(ctx, []string{"--cloud-config=" + path}, moto.Env)
}

func (b *bench) warmUp(ctx context.Context, kind string) error {
	if err := b.create(ctx, kind, "warm-up"); err != nil {
		return err
	}
	if err := b.served(ctx, "warm-up"); err != nil {
		return err
	}
	if err := b.remove(ctx, "warm-up"); err != nil {
		return err
	}
	_, _, err := b.settled(ctx)
	return err
}

// step is a case: it changes something, and returns when that shows. Without
// anything to show it is over with the last call.
type step struct {
	name string
	do   func() error
	show func() error
}

// one counts what one Service costs.
func (b *bench) one(ctx context.Context, kind string) error {
	const name, node = "one", "node3"
	exclude := func(value string) error {
		return b.patchNode(ctx, node, fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, corev1.LabelNodeExcludeBalancers, value))
	}
	if err := exclude(`""`); err != nil {
		return err
	}
	for _, s := range []step{
		{"create", func() error { return b.create(ctx, kind, name) }, func() error { return b.served(ctx, name) }},
		{"resync", func() error { return b.touch(ctx, name) }, nil},
		{"node-added", func() error { return exclude("null") }, nil},
		{"delete", func() error { return b.delete(ctx, name) }, func() error { return b.gone(ctx, name) }},
	} {
		if err := b.play(ctx, kind, s, ""); err != nil {
			return err
		}
	}
	return nil
}

// many counts what many Services at once cost.
func (b *bench) many(ctx context.Context, kind string, services int) error {
	names := make([]string, services)
	for i := range names {
		names[i] = fmt.Sprintf("many-%d", i)
	}
	all := func(do func(string) error) func() error {
		return func() error {
			for _, name := range names {
				if err := do(name); err != nil {
					return err
				}
			}
			return nil
		}
	}
	for _, s := range []step{
		{"create-many", all(func(name string) error { return b.create(ctx, kind, name) }), all(func(name string) error { return b.served(ctx, name) })},
		{"delete-many", all(func(name string) error { return b.delete(ctx, name) }), all(func(name string) error { return b.gone(ctx, name) })},
	} {
		if err := b.play(ctx, kind, s, fmt.Sprintf("services=%d ", services)); err != nil {
			return err
		}
	}
	return nil
}

// play does a step and prints its line.
func (b *bench) play(ctx context.Context, kind string, s step, keys string) error {
	b.cloud.Proxy.Calls()
	start := time.Now()
	if err := s.do(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	end := start
	if s.show != nil {
		if err := s.show(); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		end = time.Now()
	}
	calls, last, err := b.settled(ctx)
	if err != nil {
		return err
	}
	if s.show == nil && len(calls) > 0 {
		end = last
	}
	polls := 0
	if s.name == "create" || s.name == "create-many" {
		polls = pollsAtEnd(calls)
		keys += fmt.Sprintf("polls=%d ", polls)
	}
	fmt.Printf("case=%s-%s ports=%d nodes=%d calls=%d %sseconds=%.2f\n",
		kind, s.name, ports, len(b.Box.Nodes()), len(calls)-polls, keys, end.Sub(start).Seconds())
	fmt.Fprintf(os.Stderr, "%s-%s: %s\n", kind, s.name, moto.Tally(calls))
	return nil
}

// pollsAtEnd is how many calls, after all that make something, ask whether
// load balancers are ready: for all Services together, every now and then.
func pollsAtEnd(calls []moto.Call) int {
	count := 0
	for _, call := range slices.Backward(calls) {
		if call.Action != "DescribeLoadBalancers" {
			break
		}
		count++
	}
	return count
}

// settled waits until nothing is called any more; it returns what was, and
// about when the last call was.
func (b *bench) settled(ctx context.Context) (calls []moto.Call, last time.Time, err error) {
	start := time.Now()
	for last = start; time.Since(last) < calm; time.Sleep(10 * time.Millisecond) {
		if more := b.cloud.Proxy.Calls(); len(more) > 0 {
			calls, last = append(calls, more...), time.Now()
		}
		if time.Since(start) > patience {
			return nil, last, fmt.Errorf("calls without end: %s", moto.Tally(calls))
		}
		if ctx.Err() != nil {
			return nil, last, context.Cause(ctx)
		}
	}
	return calls, last, nil
}

func (b *bench) create(ctx context.Context, kind, name string) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, LoadBalancerClass: ptr.To("heraldlb.io/" + kind), Selector: map[string]string{"app": name},
		},
	}
	for i := range ports {
		service.Spec.Ports = append(service.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Port: int32(80 + i)})
	}
	_, err := b.Kube.CoreV1().Services(namespace).Create(ctx, service, metav1.CreateOptions{})
	return err
}

// served waits until a Service shows the name of its load balancer.
func (b *bench) served(ctx context.Context, name string) error {
	return b.until(ctx, name+" is served", func() error {
		service, err := b.Kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && len(service.Status.LoadBalancer.Ingress) == 0 {
			err = fmt.Errorf("conditions %v", service.Status.Conditions)
		}
		return err
	})
}

// touch changes something of a Service that is no matter of load balancers.
func (b *bench) touch(ctx context.Context, name string) error {
	patch := fmt.Sprintf(`{"metadata":{"annotations":{"example.com/touched":%q}}}`, time.Now())
	_, err := b.Kube.CoreV1().Services(namespace).Patch(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}

func (b *bench) delete(ctx context.Context, name string) error {
	return b.Kube.CoreV1().Services(namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// gone waits until a Service is deleted for good.
func (b *bench) gone(ctx context.Context, name string) error {
	return b.until(ctx, name+" is gone", func() error {
		_, err := b.Kube.CoreV1().Services(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return errors.Join(err, errors.New("it is there"))
	})
}

// remove deletes a Service and waits until it is gone.
func (b *bench) remove(ctx context.Context, name string) error {
	return errors.Join(b.delete(ctx, name), b.gone(ctx, name))
}

func (b *bench) until(ctx context.Context, what string, check func() error) error {
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		if time.Since(start) > patience || ctx.Err() != nil {
			return fmt.Errorf("not within %v: %s: %w", patience, what, err)
		}
	}
}

func (b *bench) patchNode(ctx context.Context, name, patch string) error {
	_, err := b.Kube.CoreV1().Nodes().Patch(ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	return err
}
