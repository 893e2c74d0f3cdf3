package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// rival writes the status of a Service as k3s' servicelb does: whenever it is not what the rival wants, at once.
type rival struct {
	manager string
	patch   func(*corev1.Service) (body string, wanted bool)
}

// shows is a rival that wants the addresses in the status, and nothing else of it.
func shows(manager string, addresses ...string) rival {
	entries := []string{}
	for _, address := range addresses {
		entries = append(entries, fmt.Sprintf(`{"ip":%q}`, address))
	}
	body := `{"status":{"loadBalancer":{"ingress":[` + strings.Join(entries, ",") + `]}}}`
	return rival{manager, func(s *corev1.Service) (string, bool) {
		now := []string{}
		for _, addr := range shown(s) {
			now = append(now, addr.String())
		}
		return body, !slices.Equal(now, addresses)
	}}
}

// write writes once.
func (r rival) write(ctx context.Context, namespace, name, body string) error {
	_, err := kube.CoreV1().Services(namespace).Patch(ctx, name, types.MergePatchType, []byte(body), metav1.PatchOptions{FieldManager: r.manager}, "status")
	return err
}

// against has the rival at a Service until stop is called.
func (w *world) against(name string, r rival) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	watch, err := kube.CoreV1().Services(w.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	w.must(err)
	var running sync.WaitGroup
	running.Go(func() {
		for event := range watch.ResultChan() {
			service, ok := event.Object.(*corev1.Service)
			if !ok {
				continue
			}
			if body, wanted := r.patch(service); wanted {
				if err := r.write(ctx, w.namespace, name, body); err != nil && ctx.Err() == nil {
					w.Error(err)
				}
			}
		}
	})
	stop = sync.OnceFunc(func() { cancel(); watch.Stop(); running.Wait() })
	w.Cleanup(stop)
	return stop
}

// versionsOfService counts the versions of a Service in a span.
func (w *world) versionsOfService(name string, span time.Duration) int {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, span)
	defer cancel()
	service := w.get(name)
	watch, err := kube.CoreV1().Services(w.namespace).Watch(ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + name, ResourceVersion: service.ResourceVersion})
	w.must(err)
	defer watch.Stop()
	versions := 0
	for range watch.ResultChan() {
		versions++
	}
	return versions
}

// Another controller that writes what Herald writes, too, is named, and does not make a flood of writes. When it stops,
// all is well again by itself.
func TestAnotherWriterOfTheStatusIsToldAndNotFought(t *testing.T) {
	for _, c := range []struct {
		name   string
		rivals []rival
	}{
		{"the nodes' addresses", []rival{shows("k3s", "198.51.100.31", "198.51.100.32")}},
		{"two of them", []rival{shows("k3s", "198.51.100.31"), shows("other-ccm", "198.51.100.77")}},
		{"the whole status", []rival{{"k3s", func(s *corev1.Service) (string, bool) {
			return `{"status":{"conditions":null,"loadBalancer":{"ingress":[{"ip":"198.51.100.31"}]}}}`, len(s.Status.Conditions) > 0
		}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.pool("public", nil, w.v4.String())
			w.pods("web", "node1")
			w.service("web", nil)
			addr := w.address("web")
			w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)

			var stops []func()
			for _, r := range c.rivals {
				stops = append(stops, w.against("web", r))
			}
			// Two rivals write over each other without end: what Herald adds cannot be told by versions.
			span := 15 * time.Second
			if versions := w.versionsOfService("web", span); len(c.rivals) == 1 && versions > 20 {
				t.Errorf("%d versions of the Service in %v", versions, span)
			}
			w.eventually("the Service is told", func() error {
				events := w.events("Service", "web", v1alpha1.StatusContested)
				for _, r := range c.rivals {
					if !slices.ContainsFunc(events, func(e corev1.Event) bool { return strings.Contains(e.Message, fmt.Sprintf("%q", r.manager)) }) {
						return fmt.Errorf("not of %q: %v", r.manager, events)
					}
				}
				return nil
			})
			if events := w.events("Service", "web", v1alpha1.StatusContested); len(events) > len(c.rivals)+1 {
				t.Errorf("%d events: %v", len(events), events)
			}
			if c.name != "the whole status" { // which has no conditions most of the time
				w.says("web", metav1.ConditionFalse, v1alpha1.StatusContested, `"k3s"`)
				w.always("it stands", 3*time.Second, func() error {
					if r := ready(w.get("web")); r == nil || r.Reason != string(v1alpha1.StatusContested) {
						return fmt.Errorf("condition %+v", r)
					}
					return nil
				})
			}
			for _, stop := range stops {
				stop()
			}
			w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
			if now := w.get("web"); !slices.Equal(shown(now), []netip.Addr{addr}) || len(now.Finalizers) != 1 {
				t.Errorf("status %+v, finalizers %v", now.Status, now.Finalizers)
			}
		})
	}
}

// Who writes once is put right at once, and it is no news.
func TestAStatusThatIsWrittenOnceIsPutRightAtOnce(t *testing.T) {
	w := newWorld(t)
	w.pool("public", nil, w.v4.String())
	w.pods("web", "node1")
	w.service("web", nil)
	addr := w.address("web")
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	r := shows("kubectl-edit", "198.51.100.31")
	body, _ := r.patch(&corev1.Service{})
	w.must(r.write(w.ctx, w.namespace, "web", body))
	w.quickly("it is put right", 2*time.Second, func() error {
		if now := shown(w.get("web")); !slices.Equal(now, []netip.Addr{addr}) {
			return fmt.Errorf("shows %v", now)
		}
		return nil
	})
	w.says("web", metav1.ConditionTrue, v1alpha1.AddressAssigned)
	if versions := w.versionsOfService("web", 3*time.Second); versions > 0 {
		t.Errorf("%d versions at rest", versions)
	}
	if events := w.events("Service", "web", v1alpha1.StatusContested); len(events) > 0 {
		t.Errorf("told: %v", events)
	}
}
