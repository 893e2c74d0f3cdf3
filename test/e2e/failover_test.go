package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/failover"
)

// The tests here break what all others rely on, so they are not parallel, and
// each makes the cluster whole again. They judge the order and the number of
// events; "make bench-failover" measures how long it takes.

// foreign is a host that has no business with Herald's addresses.
const foreign = "router"

const (
	// clientPatience is as long as it can be while a lost SYN is a failed request: the kernel sends it again after a second. The
	// pods that answer are processes on a busy machine too.
	clientPatience = 900 * time.Millisecond
	// podGrace is time for Kubernetes and the service proxies to notice that a pod is to end. Half a minute is usual.
	podGrace = 5 * time.Second
)

// scene makes a Service with pods on those nodes, as something to break.
func (w *world) scene(edit func(*corev1.Service), nodes ...string) *failover.Scene {
	w.Helper()
	w.dualPool()
	w.pods("web", nodes...)
	service := w.service("web", edit)
	scene := &failover.Scene{
		Box: box, Kube: kube, Herald: herald, Namespace: w.namespace, Service: "web", Addr: w.addresses("web", len(service.Spec.IPFamilies))[0],
		Nodes: nodes, Client: "client", Watcher: "client2", Patience: clientPatience, Grace: podGrace,
	}
	w.Cleanup(func() {
		if err := scene.Restore(context.Background()); err != nil {
			w.Errorf("making the cluster whole: %v", err)
		}
	})
	return scene
}

// farScene is a scene whose only pod is on the last candidate, so that losing
// the first one costs no pod.
func (w *world) farScene() *failover.Scene {
	w.Helper()
	scene := w.scene(nil, "node3")
	w.eventually("all nodes are candidates", func() error {
		candidates := w.virtualIP(scene.Addr).Spec.L2.Candidates
		if len(candidates) != 3 {
			return fmt.Errorf("candidates %v", candidates)
		}
		scene.Nodes = candidates[2:]
		return nil
	})
	w.must(scene.Restore(w.ctx))
	return scene
}

// round is a failover.Run in a test. Its end returns what was seen.
type round struct {
	*failover.Run
	w   *world
	end func() failover.Trace
}

// begin returns when all has been well for a second.
func (w *world) begin(scene *failover.Scene) *round {
	w.Helper()
	run, err := scene.Begin(w.ctx)
	w.must(err)
	return &round{run, w, endOf(w, run.End)}
}

// endOf ends a run once: when it is called, or with the test.
func endOf[Trace fmt.Stringer](w *world, run func() (Trace, error)) func() Trace {
	over := false
	w.Cleanup(func() {
		if !over {
			trace, _ := run()
			w.Logf("the test ended early: %s", trace)
		}
	})
	return func() Trace {
		w.Helper()
		over = true
		trace, err := run()
		w.must(err)
		w.Log(trace)
		return trace
	}
}

// settle waits until the address has moved so often and is served by one node.
func (r *round) settle(moves int) {
	r.w.Helper()
	r.w.must(r.Settle(r.w.ctx, moves, patience))
}

// moved checks that the address moved exactly once, from the owner to the node.
func (r *round) moved(trace failover.Trace, to string) {
	r.w.Helper()
	moves := trace.Moves()
	if len(moves) != 1 || trace.Name(moves[0].From) != r.Owner || trace.Name(moves[0].To) != to {
		r.w.Fatalf("want one move, %s → %s: %s", r.Owner, to, trace)
	}
	if owner := r.w.ownerOtherThan(r.Addr, r.Owner); owner != to {
		r.w.Errorf("the VirtualIP says that %s is the owner: want %s", owner, to)
	}
}

// next is the candidate after the owner.
func (r *round) next() string {
	r.w.Helper()
	if len(r.Candidates) < 2 || r.Candidates[0] != r.Owner {
		r.w.Fatalf("the owner is %s: want the first of the candidates %v", r.Owner, r.Candidates)
	}
	return r.Candidates[1]
}

// unfailed checks that no request failed, but for those that the moves of the address account for.
func unfailed(t testing.TB, trace failover.Trace) {
	t.Helper()
	answered(t, trace.Unaccounted())
}

func answered(t testing.TB, failed []failover.Request) {
	t.Helper()
	if len(failed) > 0 {
		t.Errorf("%d requests failed, the first after %v: %v", len(failed), failed[0].Took, failed[0].Err)
	}
}

// neverSilent checks that each question after the break had an answer, so that
// the next owner claimed the address before the last one fell silent.
func neverSilent(t testing.TB, trace failover.Trace) {
	t.Helper()
	if silent := trace.Silent(); silent > 0 {
		t.Errorf("nobody answered for the address for %v", silent)
	}
}

func TestCandidatesWatchEachOther(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(nil, "node1", "node2", "node3")
		r := w.begin(scene)
		vip := w.virtualIP(scene.Addr)
		for _, node := range r.Candidates {
			i := slices.IndexFunc(vip.Spec.L2.Peers, func(p v1alpha1.L2Peer) bool { return p.Node == node })
			if i < 0 {
				t.Errorf("peers %+v: %s is missing", vip.Spec.L2.Peers, node)
				continue
			}
			addr, _ := box.Addrs(node)
			mac, err := box.MAC(node)
			w.must(err)
			if p := vip.Spec.L2.Peers[i]; p.Address != addr.String() || p.MAC != mac.String() {
				t.Errorf("peer %+v: want %s and %s", p, addr, mac)
			}
			w.eventually(node+" holds the others to be up", func() error {
				speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
				w.must(err)
				up := map[string]bool{}
				for _, p := range speaker.Status.Peers {
					up[p.Node] = p.BFD == "Up"
				}
				for _, other := range r.Candidates {
					if other != node && !up[other] {
						return fmt.Errorf("peers %+v", speaker.Status.Peers)
					}
				}
				return nil
			})
		}
		r.end()
	})
}

func TestPowerLossMovesTheAddressOnceToTheNextCandidate(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		r := w.begin(w.farScene())
		next := r.next()
		w.must(failover.PowerLoss(w.ctx, r.Run))
		r.settle(1)
		trace := r.end()
		r.moved(trace, next)
		if dual := trace.Dual(); dual > 0 {
			t.Errorf("two answered for %v", dual)
		}
	})
}

func TestPowerLossMovesTheAddressWhileTheAPIServerIsDown(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.farScene()
		r := w.begin(scene)
		next := r.next()
		w.must(failover.PowerLossWithoutAPI(w.ctx, r.Run))
		r.settle(1)
		w.must(box.StartAgain("kube-apiserver"))
		w.must(box.WaitForAPI(w.ctx))
		r.settle(1) // for another second: that the API server is back moves nothing
		r.moved(r.end(), next)
		w.must(scene.RenewClients(w.ctx))
	})
}

func TestSpeakersThatStartWhileTheAPIServerIsDownGoOnFromTheirStateDir(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(nil, "node1", "node2", "node3")
		r := w.begin(scene)
		w.must(box.Kill(w.ctx, "kube-apiserver"))
		for _, node := range box.Nodes() {
			w.must(box.Kill(w.ctx, "speaker-"+node))
		}
		for _, node := range box.Nodes() {
			w.must(box.StartAgain("speaker-" + node))
		}
		r.Mark()
		r.settle(0)
		owner, err := r.Answering(w.ctx, patience)
		w.must(err)
		if !slices.Contains(r.Candidates, owner) {
			t.Errorf("%s answers: want one of the candidates %v", owner, r.Candidates)
		}
		r.Mark()
		w.must(box.StartAgain("kube-apiserver"))
		w.must(box.WaitForAPI(w.ctx))
		w.eventually("the VirtualIP names the owner", func() error {
			if now := w.virtualIP(scene.Addr).Status.Owner; now != owner {
				return fmt.Errorf("owner %q, %s answers", now, owner)
			}
			return nil
		})
		r.settle(0)
		if trace := r.end(); len(trace.Moves()) > 0 || trace.Dual() > 0 {
			t.Errorf("when the API server came back: %s", trace)
		}
		w.must(scene.RenewClients(w.ctx))
	})
}

func TestStoppedSpeakerHandsOverBeforeItFallsSilent(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		r := w.begin(w.scene(nil, "node1", "node2", "node3"))
		next := r.next()
		w.must(failover.StopSpeaker(w.ctx, r.Run))
		r.settle(1)
		trace := r.end()
		r.moved(trace, next)
		neverSilent(t, trace)
		unfailed(t, trace)
		// It comes back and takes nothing away from the one that serves.
		w.must(box.StartAgain("speaker-" + r.Owner))
		w.always("no failback", 2*time.Second, func() error {
			if now := w.virtualIP(r.Addr).Status.Owner; now != next {
				return fmt.Errorf("owner %s", now)
			}
			return nil
		})
		w.eventually("the one that came back is the last candidate", func() error {
			candidates := w.virtualIP(r.Addr).Spec.L2.Candidates
			if len(candidates) != 3 || candidates[2] != r.Owner {
				return fmt.Errorf("candidates %v", candidates)
			}
			return nil
		})
	})
}

func TestDrainedNodeHandsOverBeforeItFallsSilent(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(nil, "node1", "node2", "node3")
		r := w.begin(scene)
		next := r.next()
		w.must(failover.Drain(w.ctx, r.Run))
		r.settle(1)
		trace := r.end()
		r.moved(trace, next)
		neverSilent(t, trace)
		unfailed(t, trace)
		// When it is back, nothing moves back.
		w.must(scene.Restore(w.ctx))
		again := w.begin(scene)
		if again.Owner != next {
			t.Errorf("after the end of the drain %s is the owner: want %s", again.Owner, next)
		}
		again.end()
	})
}

func TestCrashedSpeakerThatComesBackDoesNotTakeTheAddressBack(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(nil, "node1", "node2", "node3")
		r := w.begin(scene)
		next := r.next()
		w.must(failover.KillSpeaker(w.ctx, r.Run))
		r.settle(1)
		w.must(box.StartAgain("speaker-" + r.Owner))
		w.eventually("the one that came back is the last candidate", func() error {
			if candidates := w.virtualIP(scene.Addr).Spec.L2.Candidates; len(candidates) != 3 || candidates[2] != r.Owner {
				return fmt.Errorf("candidates %v", candidates)
			}
			return nil
		})
		r.settle(1)
		trace := r.end()
		r.moved(trace, next)
		unfailed(t, trace)

		// One that is back at once may keep the address or lose it, but not both.
		r = w.begin(scene)
		w.must(failover.KillSpeaker(w.ctx, r.Run))
		w.must(box.StartAgain("speaker-" + r.Owner))
		again := w.begin(scene)
		again.end()
		trace = r.end()
		if len(trace.Moves()) > 1 {
			t.Errorf("want one move at most: %s", trace)
		}
		unfailed(t, trace)
	})
}

func TestNodeWhoseServiceProxyDoesNotServeHandsOverUntilItDoes(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault func(context.Context, *failover.Run) error
		mend  func(ctx context.Context, node string) error
	}{
		{"killed, with its rules", failover.KillProxy, box.StartProxy},
		{"hung", failover.HangProxy, func(_ context.Context, node string) error {
			return box.Signal("kube-proxy-"+node, syscall.SIGCONT)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(t testing.TB) {
				w := newWorld(t)
				r := w.begin(w.farScene())
				next := r.next()
				w.must(c.fault(w.ctx, r.Run))
				r.settle(1)
				w.speakerSays(r.Owner, metav1.ConditionFalse)
				w.must(c.mend(w.ctx, r.Owner))
				w.speakerSays(r.Owner, metav1.ConditionTrue)
				r.settle(1)
				r.moved(r.end(), next)
			})
		})
	}
}

// speakerSays waits for the condition ServiceProxyHealthy of a Speaker.
func (w *world) speakerSays(node string, healthy metav1.ConditionStatus) {
	w.Helper()
	w.eventually(fmt.Sprintf("Speaker %s: ServiceProxyHealthy is %s", node, healthy), func() error {
		speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
		w.must(err)
		condition := meta.FindStatusCondition(speaker.Status.Conditions, v1alpha1.ConditionServiceProxyHealthy)
		if condition == nil || condition.Status != healthy {
			return fmt.Errorf("condition %+v", condition)
		}
		if healthy == metav1.ConditionFalse && condition.Reason != string(v1alpha1.ProxyNotHealthy) {
			return fmt.Errorf("reason %s", condition.Reason)
		}
		return nil
	})
}

func TestSpeakersThatLoseSightOfEachOtherMoveNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		r := w.begin(w.scene(nil, "node1", "node2", "node3"))
		w.must(failover.CutMesh(w.ctx, r.Run))
		r.settle(0)
		trace := r.end()
		if len(trace.Moves()) > 0 || trace.Dual() > 0 {
			t.Errorf("want one owner all along: %s", trace)
		}
		neverSilent(t, trace)
		unfailed(t, trace)
	})
}

func TestHealedPartitionEndsWithOneOwner(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.farScene()
		r := w.begin(scene)
		next := r.next()
		w.must(failover.CutAndHeal(w.ctx, r.Run))
		r.settle(0)
		trace := r.end()
		if len(trace.Moves()) > 1 {
			t.Errorf("want one move at most after the heal: %s", trace)
		}
		again := w.begin(scene) // one owner, which the VirtualIP names too
		if again.Owner != r.Owner && again.Owner != next {
			t.Errorf("%s is the owner: want %s or %s", again.Owner, r.Owner, next)
		}
		again.settle(0)
		if trace := again.end(); len(trace.Moves()) > 0 || trace.Dual() > 0 {
			t.Errorf("it is not over after the heal: %s", trace)
		}
	})
}

func TestLocalServiceIsOnlyEverAnnouncedWhereItsPodIs(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(local, "node1")
		for range 2 {
			r := w.begin(scene)
			w.must(failover.MovePod(w.ctx, r.Run)) // returns when the old pod is gone
			gone := time.Now()
			r.settle(1)
			trace := r.end()
			r.moved(trace, scene.Nodes[0])
			neverSilent(t, trace)
			unfailed(t, trace)
			for _, p := range trace.Probes {
				for _, mac := range p.Answers {
					node := trace.Name(mac)
					if node != scene.Nodes[0] && (node != r.Owner || p.Sent.After(gone)) {
						t.Fatalf("%s answered %v after the pod left %s for %s", node, p.Sent.Sub(gone), r.Owner, scene.Nodes[0])
					}
				}
			}
			for _, request := range trace.Requests {
				if request.Err == nil && request.Pod != "web-"+r.Owner && request.Pod != "web-"+scene.Nodes[0] {
					t.Fatalf("pod %s answered", request.Pod)
				}
			}
		}
	})
}

// take gives an address to the foreign host, which says so if it is to.
func (w *world) take(addr netip.Addr, announce bool) (mac string, release func()) {
	w.Helper()
	prefix := fmt.Sprintf("%s/%d", addr, addr.BitLen())
	_, err := box.Exec(w.ctx, foreign, "ip", "addr", "add", prefix, "dev", "eth0")
	w.must(err)
	held := true
	release = func() {
		if held {
			held = false
			if _, err := box.Exec(context.Background(), foreign, "ip", "addr", "del", prefix, "dev", "eth0"); err != nil {
				w.Error(err)
			}
		}
	}
	w.Cleanup(release)
	if announce {
		_, err = box.Exec(w.ctx, foreign, "arping", "-U", "-c", "2", "-I", "eth0", addr.String())
		w.must(err)
	}
	own, err := box.MAC(foreign)
	w.must(err)
	return own.String(), release
}

// conflicting waits until the VirtualIP says that a host has its address.
func (w *world) conflicting(addr netip.Addr, mac string) {
	w.Helper()
	w.eventually(fmt.Sprintf("VirtualIP %s is in conflict with %s", addr, mac), func() error {
		vip, err := herald.VirtualIPs.Get(w.ctx, v1alpha1.VirtualIPName(addr), metav1.GetOptions{})
		if err != nil {
			return err // not made yet
		}
		condition := meta.FindStatusCondition(vip.Status.Conditions, v1alpha1.ConditionConflict)
		if condition == nil || condition.Status != metav1.ConditionTrue {
			return fmt.Errorf("condition %+v", condition)
		}
		return has(condition.Message, mac)
	})
}

func (w *world) unconflicting(addr netip.Addr) {
	w.Helper()
	w.eventually(fmt.Sprintf("VirtualIP %s is in conflict no more", addr), func() error {
		if conditions := w.virtualIP(addr).Status.Conditions; meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionConflict) {
			return fmt.Errorf("conditions %+v", conditions)
		}
		return nil
	})
}

// toldOfConflict waits for the event on the Service, with the MAC address.
func (w *world) toldOfConflict(name, mac string) {
	w.Helper()
	w.told("Service", name, v1alpha1.AddressConflict)
	if err := has(w.events("Service", name, v1alpha1.AddressConflict)[0].Message, mac); err != nil {
		w.Error(err)
	}
}

func TestAddressThatAForeignHostHasIsReplacedBeforeItIsAnnounced(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.pool("few", nil, w.v4.Addr().String()+"/29")
		w.pods("web", "node1", "node2", "node3")
		// The same Service gets the same address, if it is free: see which.
		w.service("web", nil)
		taken := w.address("web")
		w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "web", metav1.DeleteOptions{}))
		w.gone(taken)
		w.silent(taken)
		mac, _ := w.take(taken, false)
		watch, err := failover.WatchLAN(box, "client2", taken)
		w.must(err)
		w.service("web", nil)
		w.toldOfConflict("web", mac)
		var given netip.Addr
		w.eventually("the Service has another address", func() error {
			given = w.address("web")
			if given == taken {
				return fmt.Errorf("it has %s", given)
			}
			return nil
		})
		w.owner(given)
		w.reachable(given)
		probes, err := watch.Stop()
		w.must(err)
		for _, p := range probes {
			for _, from := range p.Answers {
				if from.String() != mac {
					t.Fatalf("%s answered for %s, which is the foreign host's", from, taken)
				}
			}
		}
	})
}

func TestRequestedAddressThatAForeignHostHasIsServedWhenThatIsGone(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.dualPool()
		w.pods("web", "node1", "node2", "node3")
		addr := w.v4.Addr().Next().Next()
		mac, release := w.take(addr, false)
		w.service("web", annotated("heraldlb.io/addresses", addr.String()))
		w.conflicting(addr, mac)
		w.toldOfConflict("web", mac)
		w.always("only the foreign host answers", time.Second, func() error {
			if got := w.answered(addr); got.String() != mac {
				return fmt.Errorf("%s answers", got)
			}
			return nil
		})
		release()
		w.unconflicting(addr)
		w.owner(addr)
		w.reachable(addr)
		if got := w.address("web"); got != addr {
			t.Errorf("the Service has %s: want the requested %s", got, addr)
		}
	})
}

func TestForeignHostThatComesLaterIsReportedAndMovesNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		scene := w.scene(nil, "node1", "node2", "node3")
		r := w.begin(scene)
		mac, release := w.take(scene.Addr, true)
		w.conflicting(scene.Addr, mac)
		w.toldOfConflict("web", mac)
		if got := w.address("web"); got != scene.Addr {
			t.Errorf("the Service has %s: want %s, which clients know", got, scene.Addr)
		}
		release()
		_, err := box.Exec(w.ctx, "client", "ip", "neigh", "flush", "to", scene.Addr.String())
		w.must(err)
		r.settle(0) // that the host has gone is noticed when the owner asks again, after half a minute
		if trace := r.end(); len(trace.Moves()) > 0 {
			t.Errorf("want no move: %s", trace)
		}
		if owner := w.owner(scene.Addr); owner != r.Owner {
			t.Errorf("%s is the owner: want %s", owner, r.Owner)
		}
	})
}

func TestBusyCoresMoveNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		quiet := 20 * time.Second
		if text := os.Getenv("E2E_QUIET"); text != "" {
			seconds, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("E2E_QUIET: %v", err)
			}
			quiet = time.Duration(seconds * float64(time.Second))
		}
		w := newWorld(t)
		r := w.begin(w.scene(nil, "node1", "node2", "node3"))
		ctx, stop := context.WithTimeout(w.ctx, quiet)
		defer stop()
		var busy sync.WaitGroup
		for range runtime.NumCPU() {
			// Not in this process, which has to watch.
			busy.Go(func() { _ = exec.CommandContext(ctx, "sh", "-c", "while :; do :; done").Run() })
		}
		busy.Wait()
		trace := r.end()
		if len(trace.Moves()) > 0 || trace.Dual() > 0 {
			t.Errorf("want one owner all along: %s", trace)
		}
		if failed := trace.Failed(); len(failed) > 0 {
			t.Logf("%d of %d requests failed, which busy cores may cause: %s", len(failed), len(trace.Requests), strings.TrimSpace(failed[0].Err.Error()))
		}
	})
}
