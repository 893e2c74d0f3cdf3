// Command bench measures Herald on a cluster of its own: "make bench". It
// prints one key=value line a case. Times are this machine's; what counts are
// the ratios within one run, and the numbers of writes.
package main

import (
	"context"
	"flag"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/bench/rig"
	"github.com/heraldlb/herald/test/sandbox"
)

// writers make Services at a time.
const writers = 32

func main() {
	sizes := flag.String("services", "1000,3000", "how many Services, a run each")
	rig.Main("bench", func(ctx context.Context) error { return run(ctx, *sizes) })
}

func run(ctx context.Context, sizes string) error {
	for field := range strings.SplitSeq(sizes, ",") {
		count, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("-services: %w", err)
		}
		measure := func(r rig.Rig) (bool, error) { return false, (&bench{r, count}).measure(ctx) }
		if err := rig.Up(ctx, sandbox.Config{Name: "bench"}, "", measure); err != nil {
			return fmt.Errorf("%d Services: %w", count, err)
		}
	}
	return nil
}

// bench is one cluster with its clients.
type bench struct {
	rig.Rig
	count int
}

func (b *bench) measure(ctx context.Context) error {
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: "bench"}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"198.18.0.0/16"}}}
	if _, err := b.Herald.AddressPools.Create(ctx, pool, metav1.CreateOptions{}); err != nil {
		return err
	}
	for _, c := range []func(context.Context) error{b.storm, b.rest, b.restart} {
		if err := c(ctx); err != nil {
			return err
		}
	}
	return nil
}

// storm makes Services in a burst and waits for all to have an address. The
// floor is the same client making as many, and patching as many statuses
// itself, with nobody else at work. Half of the floor is measured before and
// half after, so that a machine that slows down does not flatter us.
func (b *bench) storm(ctx context.Context) error {
	before, err := b.floor(ctx, "floor-a", b.count/2)
	if err != nil {
		return err
	}
	writesBefore, err := b.writes(ctx)
	if err != nil {
		return err
	}
	took, err := b.served(ctx)
	if err != nil {
		return err
	}
	writes, err := b.settledWrites(ctx)
	if err != nil {
		return err
	}
	after, err := b.floor(ctx, "floor-b", b.count-b.count/2)
	if err != nil {
		return err
	}
	floor := before + after
	written := writes.minus(writesBefore)
	per := func(resources ...string) float64 {
		return math.Round(100*written.of(resources...)/float64(b.count)) / 100
	}
	fmt.Printf("case=service-storm services=%d floor_ms=%d took_ms=%d ratio=%.2f services_per_s=%.0f virtualip_writes_per_service=%v service_status_writes_per_service=%v events_per_service=%v\n",
		b.count, floor.Milliseconds(), took.Milliseconds(), took.Seconds()/floor.Seconds(), float64(b.count)/took.Seconds(),
		per("virtualips"), per("services/status"), per("events"))
	return nil
}

// floor makes Services that Herald leaves alone, and patches their statuses.
func (b *bench) floor(ctx context.Context, namespace string, count int) (time.Duration, error) {
	if err := b.namespace(ctx, namespace); err != nil {
		return 0, err
	}
	start := time.Now()
	err := b.each(ctx, count, func(ctx context.Context, i int) error {
		service, err := b.create(ctx, namespace, i, "example.com/floor")
		if err != nil {
			return err
		}
		patch := fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.19.%d.%d","ipMode":"VIP"}]},"conditions":[{"type":"example.com/Ready","status":"True","reason":"AddressAssigned","message":"Assigned.","lastTransitionTime":"2026-01-01T00:00:00Z"}]}}`, i/256%256, i%256)
		_, err = b.Kube.CoreV1().Services(namespace).Patch(ctx, service.Name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
		return err
	})
	return time.Since(start), err
}

// served makes Services of our class and waits until each has an address.
func (b *bench) served(ctx context.Context) (time.Duration, error) {
	const namespace = "storm"
	if err := b.namespace(ctx, namespace); err != nil {
		return 0, err
	}
	watch, err := b.Kube.CoreV1().Services(namespace).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		return 0, err
	}
	defer watch.Stop()
	start := time.Now()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return b.each(ctx, b.count, func(ctx context.Context, i int) error {
			_, err := b.create(ctx, namespace, i, "heraldlb.io/bare-metal")
			return err
		})
	})
	group.Go(func() error {
		ready := map[string]bool{}
		for event := range watch.ResultChan() {
			service, ok := event.Object.(*corev1.Service)
			if !ok {
				return fmt.Errorf("watching Services: %v", event.Object)
			}
			if assigned(service) {
				ready[service.Name] = true
			}
			if len(ready) == b.count {
				return nil
			}
		}
		return fmt.Errorf("the watch ended with %d of %d served", len(ready), b.count)
	})
	err = group.Wait()
	return time.Since(start), err
}

// assigned reports whether a Service has its address, announced or not: there
// are no endpoints.
func assigned(service *corev1.Service) bool {
	return len(service.Status.LoadBalancer.Ingress) > 0 && meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced) != nil
}

// rest counts what is written while nothing happens.
func (b *bench) rest(ctx context.Context) error {
	const span = 10 * time.Second
	before, err := b.settledWrites(ctx)
	if err != nil {
		return err
	}
	time.Sleep(span)
	after, err := b.writes(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("case=rest services=%d seconds=%.0f writes=%.0f\n", b.count, span.Seconds(), after.minus(before).of())
	return nil
}

// restart kills the controller manager and measures, from the start of the
// next one, when a Service made meanwhile is served and what that wrote. It
// waits for the Lease of the killed one to expire, so that leader election is
// not part of it.
func (b *bench) restart(ctx context.Context) error {
	if err := b.Box.Kill(ctx, "controller"); err != nil {
		return err
	}
	err := b.Kube.CoordinationV1().Leases("herald-system").Delete(ctx, "herald-controller-manager", metav1.DeleteOptions{})
	if err != nil {
		return err
	}
	if err := b.namespace(ctx, "restart"); err != nil {
		return err
	}
	if _, err := b.create(ctx, "restart", 0, "heraldlb.io/bare-metal"); err != nil {
		return err
	}
	before, err := b.settledWrites(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.Box.StartAgain("controller"); err != nil {
		return err
	}
	for {
		service, err := b.Kube.CoreV1().Services("restart").Get(ctx, name(0), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if assigned(service) {
			break
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("not served a minute after the restart: %+v", service.Status)
		}
		time.Sleep(5 * time.Millisecond)
	}
	took := time.Since(start)
	after, err := b.settledWrites(ctx)
	if err != nil {
		return err
	}
	written := after.minus(before)
	fmt.Printf("case=cold-restart services=%d served_ms=%d virtualip_writes=%.0f service_status_writes=%.0f other_writes=%.0f\n", b.count, took.Milliseconds(),
		written.of("virtualips"), written.of("services/status"), written.of()-written.of("virtualips", "services/status", "events"))
	return nil
}

func name(i int) string { return fmt.Sprintf("service-%d", i) }

func (b *bench) namespace(ctx context.Context, name string) error {
	_, err := b.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	return err
}

func (b *bench) create(ctx context.Context, namespace string, i int, class string) (*corev1.Service, error) {
	return b.Kube.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name(i)},
		Spec: corev1.ServiceSpec{
			Type:                          corev1.ServiceTypeLoadBalancer,
			LoadBalancerClass:             &class,
			AllocateLoadBalancerNodePorts: ptr.To(false),
			Selector:                      map[string]string{"app": "none"},
			Ports:                         []corev1.ServicePort{{Port: 80}},
		},
	}, metav1.CreateOptions{})
}

// each calls f for each number, some at a time.
func (b *bench) each(ctx context.Context, count int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(writers)
	for i := range count {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}

// counts are writes by resource, or resource/subresource.
type counts map[string]float64

// of sums up the writes of the resources, or all without any.
func (c counts) of(resources ...string) float64 {
	sum := 0.0
	for resource, count := range c {
		if len(resources) == 0 || slices.Contains(resources, resource) {
			sum += count
		}
	}
	return sum
}

func (c counts) minus(before counts) counts {
	difference := counts{}
	for resource, count := range c {
		difference[resource] = count - before[resource]
	}
	return difference
}

var (
	metric = regexp.MustCompile(`(?m)^apiserver_request_total\{(.*)\} ([0-9.e+]+)$`)
	label  = regexp.MustCompile(`(\w+)="([^"]*)"`)
)

// writes asks the API server how much was written; Leases are left out, and so
// is what is asked with a POST.
func (b *bench) writes(ctx context.Context) (counts, error) {
	text, err := b.Box.API(ctx, http.MethodGet, "/metrics", "", nil)
	if err != nil {
		return nil, err
	}
	all := counts{}
	for _, match := range metric.FindAllStringSubmatch(string(text), -1) {
		labels := map[string]string{}
		for _, l := range label.FindAllStringSubmatch(match[1], -1) {
			labels[l[1]] = l[2]
		}
		writing := slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, labels["verb"])
		if !writing || labels["resource"] == "leases" || strings.HasSuffix(labels["resource"], "reviews") {
			continue
		}
		count, err := strconv.ParseFloat(match[2], 64)
		if err != nil {
			return nil, err
		}
		resource := labels["resource"]
		if labels["subresource"] != "" {
			resource += "/" + labels["subresource"]
		}
		all[resource] += count
	}
	return all, nil
}

// settledWrites waits until nothing has been written for a while.
func (b *bench) settledWrites(ctx context.Context) (counts, error) {
	before, err := b.writes(ctx)
	for err == nil {
		time.Sleep(4 * time.Second)
		var now counts
		if now, err = b.writes(ctx); err == nil && now.of() == before.of() {
			return now, nil
		}
		before = now
	}
	return nil, err
}
