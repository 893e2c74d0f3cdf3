package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// seed is printed, and replays a run when it is given as E2E_SEED.
func seed(t *testing.T) *rand.Rand {
	t.Helper()
	n := uint64(time.Now().UnixNano())
	if text := os.Getenv("E2E_SEED"); text != "" {
		parsed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		n = parsed
	}
	t.Logf("E2E_SEED=%d", n)
	return rand.New(rand.NewPCG(n, n))
}

// Two controllers are active at once, by force, and are killed at random,
// while many writers make and delete Services.
func TestTwoControllersAndABurstOfServicesGiveNoAddressTwice(t *testing.T) {
	w := newWorld(t)
	random := seed(t)
	w.pool("burst", nil, "198.19.0.0/21", w.v6.String())
	w.must(box.Stop(w.ctx, "controller"))
	for _, name := range []string{"forced-1", "forced-2"} {
		w.startController(name, "--leader-elect=false")
	}

	const count, writers = 1000, 32
	deleted := make([]bool, count)
	for i := range deleted {
		deleted[i] = random.IntN(2) == 0
	}
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	kills := random.Perm(6)
	chaos.Go(func() {
		for _, k := range kills {
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(400+100*k) * time.Millisecond):
			}
			name := fmt.Sprintf("forced-%d", 1+k%2)
			if err := box.Kill(w.ctx, name); err != nil {
				t.Error(err)
			}
			if err := box.StartAgain(name); err != nil {
				t.Error(err)
			}
		}
	})
	next := make(chan int)
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for i := range next {
				if err := w.makeAndMaybeDelete(i, deleted[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range count {
		next <- i
	}
	close(next)
	writing.Wait()
	close(stop)
	chaos.Wait()

	w.eventually("every Service left has an address, and nothing else is claimed", func() error { return w.consistent() })
	before := w.settled()
	// Ten restarts with Services that wait: no address moves.
	for i := range 5 {
		w.service(fmt.Sprintf("pending-%d", i), annotated("heraldlb.io/pool", "nowhere"))
	}
	for i := range 10 {
		name := fmt.Sprintf("forced-%d", 1+i%2)
		w.must(box.Kill(w.ctx, name))
		w.must(box.StartAgain(name))
		time.Sleep(300 * time.Millisecond)
	}
	w.service("after", nil)
	w.address("after")
	w.must(w.consistent())
	after := w.versions()
	for name, version := range before {
		if after[name] != version {
			t.Errorf("%s was written by a restart", name)
		}
	}
	w.must(box.Stop(w.ctx, "forced-1"))
	w.must(box.Stop(w.ctx, "forced-2"))
	w.resume()
}

func (w *world) makeAndMaybeDelete(i int, remove bool) error {
	ctx := context.WithoutCancel(w.ctx)
	name := fmt.Sprintf("burst-%d", i)
	service := w.serviceObject(name, nil)
	if i%3 == 0 {
		families(corev1.IPFamilyPolicyRequireDualStack)(service)
	}
	if _, err := kube.CoreV1().Services(w.namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	if !remove {
		return nil
	}
	return kube.CoreV1().Services(w.namespace).Delete(ctx, name, metav1.DeleteOptions{})
}

// consistent says what is wrong between the Services and the VirtualIPs.
func (w *world) consistent() error {
	services, err := kube.CoreV1().Services(w.namespace).List(w.ctx, metav1.ListOptions{})
	w.must(err)
	holder := map[netip.Addr]string{}
	for i := range services.Items {
		service := &services.Items[i]
		condition := ready(service)
		if condition == nil {
			return fmt.Errorf("service %s has no condition", service.Name)
		}
		if condition.Reason == string(v1alpha1.UnknownPool) {
			continue
		}
		if !assigned(service) || len(shown(service)) != len(service.Spec.IPFamilies) {
			return fmt.Errorf("service %s: %+v", service.Name, service.Status)
		}
		for _, addr := range shown(service) {
			if other, taken := holder[addr]; taken {
				w.Fatalf("%s is given twice: to %s and %s", addr, other, service.Name)
			}
			holder[addr] = service.Name
		}
	}
	for _, vip := range w.virtualIPs() {
		addr := netip.MustParseAddr(vip.Spec.Address)
		if len(vip.Spec.Claims) != 1 || vip.Spec.Claims[0].Name != holder[addr] {
			return fmt.Errorf("VirtualIP %s has claims %+v, and %q shows it", vip.Name, vip.Spec.Claims, holder[addr])
		}
		delete(holder, addr)
	}
	if len(holder) > 0 {
		return fmt.Errorf("without a VirtualIP: %v", holder)
	}
	return nil
}
