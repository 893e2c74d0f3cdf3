package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The tests here are not parallel: they disturb what others rely on.

func TestRestartedControllerMovesNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.pool("few", nil, w.v4.Addr().String()+"/30", w.v6.String())
		w.pods("web", "node1", "node2", "node3")
		before := map[string][]netip.Addr{}
		owners := map[netip.Addr]string{}
		for _, name := range []string{"a", "b", "c"} {
			w.service(name, all(families(corev1.IPFamilyPolicyRequireDualStack), func(s *corev1.Service) {
				s.Spec.Selector = map[string]string{"app": "web"}
			}))
			before[name] = w.addresses(name, 2)
			for _, addr := range before[name] {
				owners[addr] = w.owner(addr)
			}
		}
		versions := w.settled()
		for i := range 3 {
			w.must(box.Kill(w.ctx, "controller"))
			// What was asked for meanwhile is served by the next one.
			name := fmt.Sprintf("meanwhile-%d", i)
			w.service(name, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} })
			w.resume()
			w.address(name)
		}
		for name, addresses := range before {
			if now := w.addresses(name, 2); !slices.Equal(now, addresses) {
				t.Errorf("Service %s had %v and now has %v", name, addresses, now)
			}
		}
		for addr, owner := range owners {
			if now := w.owner(addr); now != owner {
				t.Errorf("%s was announced by %s and now is by %s", addr, owner, now)
			}
		}
		for name, version := range versions {
			if now := w.versions()[name]; now != version {
				t.Errorf("%s was written: version %s, now %s", name, version, now)
			}
		}
	})
}

// versions are the resource versions of what the controller writes.
func (w *world) versions() map[string]string {
	w.Helper()
	versions := map[string]string{}
	for _, vip := range w.virtualIPs() {
		versions["VirtualIP "+vip.Name] = vip.ResourceVersion
	}
	services, err := kube.CoreV1().Services(w.namespace).List(w.ctx, metav1.ListOptions{})
	w.must(err)
	for _, s := range services.Items {
		versions["Service "+s.Name] = s.ResourceVersion
	}
	return versions
}

// settled waits until nothing of the test has been written for a while: longer than a status is held back that changes often.
func (w *world) settled() (versions map[string]string) {
	w.Helper()
	const quiet = 11 * time.Second
	versions, since := w.versions(), time.Now()
	w.quietly("nothing is written any more", func() error {
		if now := w.versions(); !maps.Equal(now, versions) {
			versions, since = now, time.Now()
		}
		if calm := time.Since(since); calm < quiet {
			return fmt.Errorf("something was written %s ago", calm.Round(time.Second))
		}
		return nil
	})
	return versions
}

func TestReleasesWhileTheControllerIsAwayAreMadeUpFor(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	for _, name := range []string{"deleted", "turned"} {
		w.service(name, func(s *corev1.Service) { s.Spec.Selector = map[string]string{"app": "web"} })
	}
	deleted, turned := w.address("deleted"), w.address("turned")
	w.reachable(deleted)
	w.reachable(turned)
	w.must(box.Kill(w.ctx, "controller"))
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "deleted", metav1.DeleteOptions{}))
	w.edit("turned", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP })
	w.resume()
	for _, addr := range []netip.Addr{deleted, turned} {
		w.gone(addr)
		w.silent(addr)
	}
	w.eventually("the status is clear", func() error {
		if s := w.get("turned"); len(s.Status.LoadBalancer.Ingress) > 0 || ready(s) != nil {
			return fmt.Errorf("status %+v", s.Status)
		}
		return nil
	})
}

func TestKilledSpeakerThatComesBackMovesNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.dualPool()
		w.pods("web", "node1", "node2", "node3")
		w.service("web", families(corev1.IPFamilyPolicyRequireDualStack))
		for _, addr := range w.addresses("web", 2) {
			owner := w.owner(addr)
			killed := time.Now()
			w.must(box.Kill(w.ctx, "speaker-"+owner))
			w.must(box.StartAgain("speaker-" + owner))
			w.eventually("the speaker is back", func() error {
				_, err := box.Get(w.ctx, owner, "http://127.0.0.1:7472/metrics")
				return err
			})
			away := time.Since(killed)
			w.silentThenAnswers(addr)
			now := w.owner(addr)
			switch {
			case now == owner:
			case away < silence/2:
				t.Errorf("%s moved from %s to %s, whose speaker was away for %v", addr, owner, now, away)
			default:
				t.Logf("%s moved from %s to %s: its speaker was away for %v, and may be for %v", addr, owner, now, away, silence)
			}
		}
	})
}

// silence is how long a speaker may be silent whose host is there: three packets, and as long again.
const silence = 1800 * time.Millisecond

// silentThenAnswers waits for the address to be reachable by a fresh question.
func (w *world) silentThenAnswers(addr netip.Addr) {
	w.Helper()
	_, err := box.Exec(w.ctx, "client", "ip", "neigh", "flush", "to", addr.String())
	w.must(err)
	w.reachable(addr)
}

func TestLostNodeMovesTheAddress(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.dualPool()
		w.pods("web", "node1", "node2", "node3")
		w.service("web", families(corev1.IPFamilyPolicyRequireDualStack))
		addresses := w.addresses("web", 2)
		for _, addr := range addresses {
			w.reachable(addr)
		}
		lost := w.owner(addresses[0])
		owners := map[netip.Addr]string{addresses[1]: w.owner(addresses[1])}
		w.must(box.PowerOff(w.ctx, lost))
		w.Cleanup(func() {
			w.ctx = context.Background()
			w.must(box.PowerOn(w.ctx, lost))
			w.must(box.WaitForProxy(w.ctx, lost))
			w.eventually("the speaker is a candidate again", func() error {
				_, err := kube.CoordinationV1().Leases("herald-system").Get(w.ctx, lost, metav1.GetOptions{})
				return err
			})
		})
		// The pod that went with its node is no endpoint any more.
		w.must(box.SetPodReady(w.ctx, w.namespace, "web-"+lost, false))
		next := w.ownerOtherThan(addresses[0], lost)
		t.Logf("%s moved from %s to %s", addresses[0], lost, next)
		if owner := owners[addresses[1]]; owner != lost && w.owner(addresses[1]) != owner {
			t.Errorf("%s was not the lost node's and moved", addresses[1])
		}
		for _, addr := range addresses {
			w.reachable(addr)
		}
		if events := w.events("Service", "web", "Announced"); len(events) == 0 {
			t.Error("no event tells that the address moved")
		}
	})
}

var writeMetric = regexp.MustCompile(`(?m)^apiserver_request_total\{(.*verb="(?:POST|PUT|PATCH|DELETE|APPLY)".*)\} ([0-9.e+]+)$`)

// writes counts the writes that the API server has had, by what was written.
// Leases are left out, and so is what is asked with a POST.
func (w *world) writes() map[string]float64 {
	w.Helper()
	text, err := box.API(w.ctx, http.MethodGet, "/metrics", "", nil)
	w.must(err)
	counts := map[string]float64{}
	for _, match := range writeMetric.FindAllStringSubmatch(string(text), -1) {
		labels := match[1]
		if strings.Contains(labels, `resource="leases"`) || strings.Contains(labels, "reviews") {
			continue
		}
		count, err := strconv.ParseFloat(match[2], 64)
		w.must(err)
		counts[labels] += count
	}
	return counts
}

func TestNothingIsWrittenAtRestButLeases(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2", "node3")
	for i := range 10 {
		w.service(fmt.Sprintf("web-%d", i), all(families(corev1.IPFamilyPolicyPreferDualStack), func(s *corev1.Service) {
			s.Spec.Selector = map[string]string{"app": "web"}
		}))
	}
	w.service("waiting", annotated("heraldlb.io/pool", "nowhere"))
	for i := range 10 {
		for _, addr := range w.addresses(fmt.Sprintf("web-%d", i), 2) {
			w.owner(addr)
		}
	}
	// What is gathered is written within seconds: statuses of pools and speakers. On a busy machine speakers lose sight of each
	// other for a moment, and say so. What writes without end writes in each of the spans.
	const spans = 5
	for n := 1; ; n++ {
		before := w.writes()
		time.Sleep(12 * time.Second)
		err := difference(before, w.writes())
		if err == nil {
			break
		}
		if n == spans {
			t.Fatalf("written at rest, in span %d: %v", n, err)
		}
		t.Logf("written in span %d: %v", n, err)
	}
}

func difference(before, after map[string]float64) error {
	for labels, count := range after {
		if count != before[labels] {
			return fmt.Errorf("%v of %s", count-before[labels], labels)
		}
	}
	return nil
}

func TestShippedRightsSuffice(t *testing.T) {
	for _, name := range []string{"controller", "speaker-node1", "speaker-node2", "speaker-node3"} {
		text, err := os.ReadFile(box.LogPath(name))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if strings.Contains(line, "forbidden") && !strings.Contains(line, "-withheld") { // a test's, on purpose
				t.Errorf("%s: %s", name, line)
			}
		}
	}
}
