package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

// fuzzed is how many of each kind are tried: E2E_FUZZED=5000 takes some minutes.
func fuzzed(t *testing.T) int {
	t.Helper()
	text := os.Getenv("E2E_FUZZED")
	if text == "" {
		return 1000
	}
	count, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("E2E_FUZZED: %v", err)
	}
	return count
}

// pick is one of the choices.
func pick[T any](random *rand.Rand, choices ...T) T { return choices[random.IntN(len(choices))] }

// addressText is something that may be an address or a range of them, within
// 198.19.128.0/17 and 2001:db8:19::/48 if it is any.
func addressText(random *rand.Rand) string {
	four := func() string { return fmt.Sprintf("198.19.%d.%d", 128+random.IntN(128), random.IntN(256)) }
	six := func() string { return fmt.Sprintf("2001:db8:19:%x::%x", random.IntN(65536), random.IntN(65536)) }
	switch random.IntN(12) {
	case 0:
		return four() + "/" + fmt.Sprint(24+random.IntN(10))
	case 1:
		return six() + "/" + fmt.Sprint(60+random.IntN(72))
	case 2:
		return four() + "-" + four()
	case 3:
		return six() + " - " + six()
	case 4:
		return four() + "-" + six()
	case 5:
		return four()
	case 6:
		return six()
	case 7:
		return "::ffff:" + four() + "/120"
	case 8:
		return "198.19.200.0/25"
	case 9:
		return six() + "%eth0/64"
	case 10:
		return strings.Repeat("9", random.IntN(80)) + "/" + pick(random, "", "-1", "0", "24")
	}
	return pick(random, "", "-", "/", "a-b-c", "198.19.0.0/255.255.0.0", "0.0.0.0/33", " 198.19.200.0/28 ", "fe80::/10", "224.0.0.0/28", "198.019.1.0/24", "\u0661.2.3.4/24")
}

func fuzzedPool(random *rand.Rand, name string) *v1alpha1.AddressPool {
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for range random.IntN(4) {
		pool.Spec.Addresses = append(pool.Spec.Addresses, addressText(random))
	}
	for range random.IntN(3) {
		pool.Spec.Exclude = append(pool.Spec.Exclude, addressText(random))
	}
	// Nobody's pool, lest it serve the other tests.
	pool.Spec.Namespaces = []string{"nobody"}
	pool.Spec.AvoidBuggyIPs = random.IntN(2) == 0
	pool.Spec.Priority = pick[int32](random, 0, 1, -1, 1<<31-1, -1<<31)
	pool.Spec.MaxPerNamespace = pick[int32](random, 0, 1, -1)
	if random.IntN(2) == 0 {
		band := pick(random, intstr.FromString("Auto"), intstr.FromString("None"), intstr.FromString("12"), intstr.FromInt32(0), intstr.FromInt32(-5), intstr.FromInt32(1<<30))
		pool.Spec.StaticBand = &band
	}
	if random.IntN(4) == 0 {
		pool.Spec.ServiceSelector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: pick(random, "a", "a/b/c", ""), Operator: pick[metav1.LabelSelectorOperator](random, "In", "Exists", "Like"), Values: pick(random, nil, []string{"x"}),
		}}}
	}
	return pool
}

func TestFuzzedPoolsAreRefusedOrTakenWithAReasonAndHarmNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	random := seed(t)
	w.dualPool()
	w.service("canary", families(corev1.IPFamilyPolicyRequireDualStack))
	canary := fmt.Sprint(w.addresses("canary", 2))
	refused, broken := 0, 0
	const batch = 100
	count := fuzzed(t)
	for done := 0; done < count; done += batch {
		pools, made := make([]*v1alpha1.AddressPool, batch), make([]bool, batch)
		for i := range pools {
			pools[i] = fuzzedPool(random, fmt.Sprintf("%s-fuzz-%d", w.namespace, done+i))
		}
		w.must(each(w.ctx, batch, func(ctx context.Context, i int) error {
			_, err := herald.AddressPools.Create(ctx, pools[i], metav1.CreateOptions{})
			made[i] = err == nil
			if err != nil && !apierrors.IsInvalid(err) {
				return fmt.Errorf("%+v: %w", pools[i].Spec, err)
			}
			return nil
		}))
		for i, pool := range pools {
			if !made[i] {
				refused++
				continue
			}
			name := pool.Name
			condition := w.poolCondition(name)
			if condition.Status == metav1.ConditionFalse {
				broken++
			}
			if condition.Reason == "" || condition.Message == "" {
				t.Errorf("pool %s: condition %+v without reason", name, condition)
			}
			w.must(herald.AddressPools.Delete(w.ctx, name, metav1.DeleteOptions{}))
		}
	}
	t.Logf("of %d pools the API server refused %d; of the others %d had something wrong", count, refused, broken)
	if now := fmt.Sprint(shown(w.get("canary"))); now != canary {
		t.Errorf("the canary had %s and has %s", canary, now)
	}
}

// poolCondition waits for the pool to be judged.
func (w *world) poolCondition(name string) metav1.Condition {
	w.Helper()
	var condition *metav1.Condition
	w.quietly("AddressPool "+name+" is judged", func() error {
		pool, err := herald.AddressPools.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		if condition = meta.FindStatusCondition(pool.Status.Conditions, v1alpha1.ConditionReady); condition == nil {
			return fmt.Errorf("no condition")
		}
		return nil
	})
	return *condition
}

func fuzzedAnnotations(random *rand.Rand) map[string]string {
	names := []string{corev1.AnnotationLoadBalancerSourceRangesKey}
	for _, own := range annotations.Own {
		names = append(names, own.Name)
	}
	for _, alias := range annotations.Aliases {
		names = append(names, alias.Name)
	}
	set := map[string]string{}
	for range random.IntN(4) {
		value := addressText(random)
		if random.IntN(3) == 0 {
			value = pick(random, "Internal", "External", "VIP", "Proxy", "true", "false", "key", "", ",", "198.19.200.7,2001:db8:19::7", strings.Repeat("x", 300), "a\nb")
		}
		set[names[random.IntN(len(names))]] = value
	}
	return set
}

func TestFuzzedAnnotationsAreServedOrRefusedWithAReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	random := seed(t)
	w.dualPool()
	const batch = 250
	count := fuzzed(t)
	served, refused, rejected := 0, 0, 0
	for done := 0; done < count; done += batch {
		sets := make([]map[string]string, batch)
		for i := range sets {
			sets[i] = fuzzedAnnotations(random)
		}
		made := make([]bool, batch)
		w.must(each(w.ctx, batch, func(ctx context.Context, i int) error {
			service := w.serviceObject(fmt.Sprintf("fuzz-%d", i), families(corev1.IPFamilyPolicyPreferDualStack))
			service.Annotations = sets[i]
			_, err := kube.CoreV1().Services(w.namespace).Create(ctx, service, metav1.CreateOptions{})
			made[i] = err == nil
			if apierrors.IsInvalid(err) {
				return nil // the API server knows the source ranges
			}
			return err
		}))
		for i := range sets {
			if !made[i] {
				rejected++
				continue
			}
			condition := w.judged(fmt.Sprintf("fuzz-%d", i))
			if assigned(w.get(fmt.Sprintf("fuzz-%d", i))) {
				served++
			} else if refused++; condition.Reason == string(v1alpha1.SyncFailed) {
				t.Errorf("%v: %s", sets[i], condition.Message)
			}
		}
		w.must(w.deleteServices())
	}
	t.Logf("of %d Services %d were served, %d refused, %d were not let in by the API server", count, served, refused, rejected)
}

// judged waits until the Service has a condition, with a reason and a message.
func (w *world) judged(name string) metav1.Condition {
	w.Helper()
	var condition *metav1.Condition
	w.quietly("Service "+name+" is judged", func() error {
		service := w.get(name)
		condition = ready(service)
		if condition == nil || condition.Reason == "" || condition.Message == "" {
			return fmt.Errorf("%v: condition %+v", service.Annotations, condition)
		}
		return nil
	})
	return *condition
}

func (w *world) deleteServices() error {
	list, err := kube.CoreV1().Services(w.namespace).List(w.ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	return each(context.WithoutCancel(w.ctx), len(list.Items), func(ctx context.Context, i int) error {
		return kube.CoreV1().Services(w.namespace).Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{})
	})
}

// each calls f for each number, some at a time.
func each(ctx context.Context, count int, f func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for i := range count {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}
