package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/failover"
)

// The tests here disturb a Service that a client asks every 10 ms through a router's
// ECMP. They judge order and numbers; "make bench-bgp" measures how long it takes.

// routedRound is a failover.RoutedRun in a test. Its end returns what was seen.
type routedRound struct {
	*failover.RoutedRun
	w   *world
	end func() failover.RoutedTrace
}

// beginRouted returns when all has been well for a second.
func (w *world) beginRouted(scene *failover.Routed) *routedRound {
	w.Helper()
	run, err := scene.Begin(w.ctx)
	w.must(err)
	return &routedRound{run, w, endOf(w, run.End)}
}

// settle waits until the router leads to those nodes alone, and all is served.
func (r *routedRound) settle(nodes ...string) {
	r.w.Helper()
	r.w.must(r.Settle(r.w.ctx, patience, nodes...))
}

// led waits until the router leads to those nodes alone.
func (r *routedRound) led(nodes ...string) {
	r.w.Helper()
	r.w.must(r.Led(r.w.ctx, patience, nodes...))
}

// undisturbed checks that no request failed, but for those that the changes of the router's ways account for.
func undisturbed(t testing.TB, trace failover.RoutedTrace) {
	t.Helper()
	answered(t, trace.Unaccounted())
}

// routedTo makes a Service behind FRR in the host router, with a pod on each of
// the nodes and sessions as edit says.
func (w *world) routedTo(edit func(*v1alpha1.BGPPeerSpec), service func(*corev1.Service), nodes ...string) (*failover.Routed, *tor) {
	w.Helper()
	router := w.frr("router", torConfig("router", torASN, nodeASN, "bfd profile fast"))
	peer := w.peer("tor", func(s *v1alpha1.BGPPeerSpec) {
		s.BFD = &v1alpha1.BFD{}
		edit(s)
	})
	w.dualPool()
	w.advertise("a", nil)
	v4, _ := w.routedService("web", service, nodes...)
	w.established(peer, box.Nodes()...)
	return w.routedScene("web", v4, peer, nodes...), router
}

func restarts(s *v1alpha1.BGPPeerSpec) { s.GracefulRestart = &v1alpha1.GracefulRestart{} }

func doesNotRestart(*v1alpha1.BGPPeerSpec) {}

// others are the nodes but one.
func others(node string) []string {
	return slices.DeleteFunc(slices.Clone(box.Nodes()), func(n string) bool { return n == node })
}

func TestRestartedSpeakerKeepsItsRoutes(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		nodes := box.Nodes()
		scene, router := w.routedTo(restarts, nil, nodes...)
		r := w.beginRouted(scene)
		steady := router.since()
		w.must(failover.RestartSpeaker(w.ctx, r.RoutedRun, "node2"))
		w.established(scene.Peer, nodes...)
		r.settle(nodes...)
		trace := r.end()
		undisturbed(t, trace)
		if after := trace.Without("node2"); after >= 0 || len(trace.Ways) > 1 {
			t.Errorf("the router has lost its way to node2 after %v: %v", after, trace.Ways)
		}
		router.unmoved(steady, "node1", "node3")
		router.has(host(scene.Addr), from("path 64512", nodes...))
	})
}

func TestKilledSpeakerKeepsItsRoutesUntilItIsBack(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		nodes := box.Nodes()
		scene, router := w.routedTo(restarts, nil, nodes...)
		r := w.beginRouted(scene)
		w.must(box.Kill(w.ctx, "speaker-node2"))
		w.eventually("the route of node2 is stale", func() error {
			if path := router.paths(host(scene.Addr))["node2"]; path != "path 64512 stale" {
				return fmt.Errorf("path %q", path)
			}
			return nil
		})
		time.Sleep(time.Second) // BFD has long been down by now.
		w.must(box.StartAgain("speaker-node2"))
		w.established(scene.Peer, nodes...)
		router.has(host(scene.Addr), from("path 64512", nodes...))
		r.settle(nodes...)
		trace := r.end()
		undisturbed(t, trace)
		if len(trace.Ways) > 1 {
			t.Errorf("the ways to the address changed: %v", trace.Ways)
		}
	})
}

func TestStoppedSpeakerTellsItsRoutersFirst(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		nodes := box.Nodes()
		scene, router := w.routedTo(doesNotRestart, nil, nodes...)
		r := w.beginRouted(scene)
		stopped := make(chan error, 1)
		go func() { stopped <- box.Stop(w.ctx, "speaker-node2") }()
		// First the routes have the community, and nobody goes there any more; then
		// they are withdrawn.
		w.eventually("the route of node2 is being shut down", func() error {
			if path := router.paths(host(scene.Addr))["node2"]; path != "path 64512 pref 0 [graceful-shutdown]" {
				return fmt.Errorf("path %q", path)
			}
			return nil
		})
		r.led(others("node2")...)
		w.must(<-stopped)
		router.has(host(scene.Addr), from("path 64512", others("node2")...))
		r.settle(others("node2")...)
		trace := r.end()
		undisturbed(t, trace)
		if len(trace.Ways) != 2 {
			t.Errorf("the ways to the address changed more than once: %v", trace.Ways)
		}
		w.eventually("the router was told why", func() error {
			if n := router.neighbors()["node2"]; n.State == "Established" {
				return fmt.Errorf("%+v", n)
			}
			return nil
		})
	})
}

func TestADrainedNodeIsLeftBeforeItStopsServing(t *testing.T) {
	for _, c := range []struct {
		name string
		peer func(*v1alpha1.BGPPeerSpec)
	}{{"with graceful restart", restarts}, {"without", doesNotRestart}} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(t testing.TB) {
				w := newRoutedWorld(t)
				nodes := box.Nodes()
				scene, router := w.routedTo(c.peer, nil, nodes...)
				r := w.beginRouted(scene)
				w.must(failover.DrainAndStop(w.ctx, r.RoutedRun, "node2"))
				r.settle(others("node2")...)
				trace := r.end()
				undisturbed(t, trace)
				if after := trace.Without("node2"); after < 0 {
					t.Errorf("the router leads to node2 all along: %v", trace.Ways)
				}
				router.has(host(scene.Addr), from("path 64512", others("node2")...))
			})
		})
	}
}

func TestACordonedNodeIsLeftAndComesBack(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		nodes := box.Nodes()
		scene, router := w.routedTo(restarts, nil, "node3")
		r := w.beginRouted(scene)
		w.must(scene.Cordon(w.ctx, "node1", true))
		r.led("node2", "node3")
		router.has(host(scene.Addr), from("path 64512", "node2", "node3"))
		w.must(scene.Cordon(w.ctx, "node1", false))
		r.settle(nodes...)
		router.has(host(scene.Addr), from("path 64512", nodes...))
		undisturbed(t, r.end())
	})
}

func TestRollingUpdateOfALocalServiceLosesNothing(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		scene, router := w.routedTo(restarts, local, "node1", "node2")
		r := w.beginRouted(scene)
		now := []string{"node1", "node2"}
		for _, step := range []struct{ comes, goes string }{{"node3", "node1"}, {"node1", "node2"}, {"node2", "node3"}} {
			w.must(scene.StartPod(w.ctx, step.comes))
			now = append(now, step.comes)
			r.led(now...)
			w.must(scene.EndPod(w.ctx, step.goes))
			now = slices.DeleteFunc(now, func(n string) bool { return n == step.goes })
			r.led(now...)
		}
		r.settle(now...)
		scene.Nodes = now
		trace := r.end()
		undisturbed(t, trace)
		router.has(host(scene.Addr), from("path 64512", now...))
		if len(trace.Ways) != 7 {
			t.Errorf("the ways changed %d times, and should six times: %v", len(trace.Ways)-1, trace.Ways)
		}
	})
}

func TestPowerLossIsNoticedByBFDInSpiteOfGracefulRestart(t *testing.T) {
	for _, c := range []struct {
		name string
		peer func(*v1alpha1.BGPPeerSpec)
	}{{"with graceful restart", restarts}, {"without", doesNotRestart}} {
		t.Run(c.name, func(t *testing.T) {
			play(t, func(t testing.TB) {
				w := newRoutedWorld(t)
				scene, router := w.routedTo(c.peer, nil, "node3")
				r := w.beginRouted(scene)
				w.must(failover.LosePower(w.ctx, r.RoutedRun, "node1"))
				r.settle("node2", "node3") // The hold time is 90 s, longer than that is waited for.
				trace := r.end()
				router.has(host(scene.Addr), from("path 64512", "node2", "node3"))
				if len(trace.Ways) != 2 {
					t.Errorf("the ways to the address changed more than once: %v", trace.Ways)
				}
				for _, f := range trace.Unaccounted() {
					if f.Sent.Sub(trace.From) > trace.Without("node1") {
						t.Errorf("a request failed %v after the loss, when node1 was no way any more: %v", f.Sent.Sub(trace.From), f.Err)
					}
				}
			})
		})
	}
}

func TestANodeWhoseProxyDiesIsLeft(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newRoutedWorld(t)
		scene, router := w.routedTo(restarts, nil, "node3")
		w.beginRouted(scene).end()
		w.must(box.KillProxy(w.ctx, "node1"))
		router.has(host(scene.Addr), from("path 64512", "node2", "node3"))
		w.spreadAny(scene.Addr)
		w.must(box.StartProxy(w.ctx, "node1"))
		router.has(host(scene.Addr), from("path 64512", box.Nodes()...))
		w.spreadAny(scene.Addr)
	})
}

func TestWithoutEndpointsNothingIsAdvertised(t *testing.T) {
	w := newRoutedWorld(t)
	router := w.frr("router", torConfig("router", torASN, nodeASN))
	peer := w.peer("tor", func(s *v1alpha1.BGPPeerSpec) { s.PeerASN, s.PeerType = nil, "External" })
	w.dualPool()
	w.advertise("a", nil)
	v4, v6 := w.routedService("web", nil)
	w.established(peer, box.Nodes()...)
	w.always("no route", 2*time.Second, func() error {
		if paths := router.paths(host(v4)); len(paths) > 0 {
			return fmt.Errorf("paths %v", paths)
		}
		return nil
	})
	w.pod("web", "node1")
	for _, addr := range []netip.Addr{v4, v6} {
		router.has(host(addr), from("path 64512", box.Nodes()...))
	}
	w.edit("web", local)
	for _, addr := range []netip.Addr{v4, v6} {
		router.has(host(addr), from("path 64512", "node1"))
	}
	w.must(box.SetPodReady(w.ctx, w.namespace, "web-node1", false))
	for _, addr := range []netip.Addr{v4, v6} {
		router.has(host(addr), nil)
	}
}
