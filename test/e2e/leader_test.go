package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/test/sandbox"
)

// The tests here are not parallel: they end the controller.

func (w *world) leader() string {
	w.Helper()
	lease, err := kube.CoordinationV1().Leases("herald-system").Get(w.ctx, "herald-controller-manager", metav1.GetOptions{})
	w.must(err)
	return ptr.Deref(lease.Spec.HolderIdentity, "")
}

// A controller that is told to end gives its Lease up, so that the next one
// need not wait until it runs out.
func TestLeaderThatEndsReleasesItsLease(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1")
	w.service("before", nil)
	w.address("before")
	first := w.leader()
	w.startController("second")
	w.eventually("the second waits", func() error {
		if log := box.LogPath("second"); !contains(log, "Waiting to lead") {
			return fmt.Errorf("not in %s", log)
		}
		return nil
	})
	if now := w.leader(); now != first {
		t.Fatalf("%s leads beside %s", now, first)
	}
	w.must(box.Stop(w.ctx, "controller"))
	ended := time.Now()
	w.eventually("the second leads", func() error {
		if now := w.leader(); now == first || now == "" {
			return fmt.Errorf("leader %q", now)
		}
		return nil
	})
	took := time.Since(ended)
	t.Logf("led again after %s", took.Round(time.Millisecond))
	if took > 10*time.Second {
		t.Errorf("led again after %s: the Lease was not released", took)
	}
	if !contains(box.LogPath("controller"), "Released the Lease") {
		t.Error("the first does not say that it released the Lease")
	}
	w.service("after", nil)
	w.address("after")
	w.must(box.Stop(w.ctx, "second"))
	w.eventually("nobody leads", func() error {
		if now := w.leader(); now != "" {
			return fmt.Errorf("leader %q", now)
		}
		return nil
	})
	w.must(box.StartAgain("controller"))
	w.service("last", nil)
	w.address("last")
}

// A controller that starts while the API server hangs waits for it: it lives,
// says so, and serves when the API server answers.
func TestControllerStartsBeforeTheAPIServerAnswers(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1")
	w.must(box.Stop(w.ctx, "controller"))
	w.service("web", nil)
	w.must(box.Signal("kube-apiserver", syscall.SIGSTOP))
	t.Cleanup(func() { w.must(box.Signal("kube-apiserver", syscall.SIGCONT)) })
	w.must(box.StartAgain("controller"))
	pid := box.PID("controller")
	time.Sleep(20 * time.Second)
	if now := box.PID("controller"); now != pid || !box.Running("controller") {
		t.Errorf("the controller ended: process %d, now %d", pid, now)
	}
	answer, err := box.Exec(w.ctx, "cp", "curl", "-sk", "--max-time", "5", "https://127.0.0.1:10258/healthz")
	if err != nil || strings.TrimSpace(answer) != "ok" {
		t.Errorf("/healthz says %q, %v", answer, err)
	}
	w.must(box.Signal("kube-apiserver", syscall.SIGCONT))
	w.address("web")
	if now := box.PID("controller"); now != pid {
		t.Errorf("the controller was started again: process %d, now %d", pid, now)
	}
}

// uninstall runs --uninstall with the rights of the shipped ServiceAccount.
func (w *world) uninstall(args ...string) (string, error) {
	w.Helper()
	kubeconfig, err := box.KubeconfigFor(w.ctx, "cp", "herald-system", "herald-controller-manager")
	w.must(err)
	return box.Run(w.ctx, sandbox.Process{Name: "uninstall", Host: "cp", Args: append([]string{
		filepath.Join(box.Config().BinDir, "herald-controller-manager"), "--cloud-provider=herald", "--kubeconfig=" + kubeconfig, "--uninstall", "--uninstall-timeout=1m",
	}, args...)})
}

func TestUninstall(t *testing.T) {
	w := newWorld(t)
	w.dualPool()
	w.pods("web", "node1", "node2")
	w.service("web", families(corev1.IPFamilyPolicyRequireDualStack))
	w.service("local", func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal })
	w.service("refused", annotated("heraldlb.io/pool", "nowhere"))
	w.service("foreign", func(s *corev1.Service) {
		s.Spec.LoadBalancerClass = ptr.To("example.com/other")
		s.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"}
	})
	w.addresses("web", 2)
	w.address("local")

	// Another controller would serve again what is released.
	out, err := w.uninstall()
	if err == nil || !strings.Contains(out, "another controller leads") {
		t.Fatalf("beside a controller: %v\n%s", err, out)
	}
	if said := strings.TrimSpace(out); strings.Contains(said, "\n") {
		t.Errorf("more than one line:\n%s", said)
	}
	w.addresses("web", 2)

	w.must(box.Stop(w.ctx, "controller"))
	foreign := w.get("foreign").ResourceVersion
	for _, again := range []bool{false, true} {
		out, err = w.uninstall()
		t.Log(out)
		if lines := strings.Split(strings.TrimSpace(out), "\n"); err != nil || !strings.Contains(lines[len(lines)-1], "nothing is left") {
			t.Fatalf("again %v: %v\n%s", again, err, out)
		}
		for _, name := range []string{"web", "local", "refused"} {
			s := w.get(name)
			if len(s.Finalizers) > 0 || len(s.Status.Conditions) > 0 || len(s.Status.LoadBalancer.Ingress) > 0 {
				t.Errorf("Service %s has finalizers %v and status %+v", name, s.Finalizers, s.Status)
			}
		}
	}
	if now := w.get("foreign").ResourceVersion; now != foreign {
		t.Error("the Service of another class was written")
	}
	if vips := w.virtualIPs(); len(vips) > 0 {
		t.Errorf("%d VirtualIPs are left", len(vips))
	}
	// Without a controller, what was released can be deleted.
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "web", metav1.DeleteOptions{}))
	if _, err := kube.CoreV1().Services(w.namespace).Get(w.ctx, "web", metav1.GetOptions{}); err == nil {
		t.Error("the Service is kept")
	}
	w.eventually("the foreign one is freed by its own controller", func() error {
		s := w.get("foreign")
		s.Finalizers = nil
		_, err := kube.CoreV1().Services(w.namespace).Update(w.ctx, s, metav1.UpdateOptions{})
		return err
	})
	// A controller that comes back serves again.
	w.must(box.StartAgain("controller"))
	w.address("local")
}

// contains reports whether a log has a text.
func contains(log, text string) bool {
	data, err := os.ReadFile(log)
	return err == nil && strings.Contains(string(data), text)
}
