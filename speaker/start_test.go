package speaker

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
	"github.com/heraldlb/herald/internal/fakeapi"
	"github.com/heraldlb/herald/speaker/bfd"
	"github.com/heraldlb/herald/speaker/link"
)

// optionsFor are those of a speaker of node-1 that does nothing but talk to the API server.
func optionsFor(t *testing.T, config *rest.Config, dir string) Options {
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	herald, err := client.New(config)
	if err != nil {
		t.Fatal(err)
	}
	eth0 := []link.Link{{Index: 2, Name: "eth0", MAC: nodeMAC("node-1"), Up: true, ARP: true}}
	return Options{
		Client: kube, Herald: herald, Node: "node-1", Namespace: "herald-system", StateDir: dir, ProxyURL: proxyTarget.URL,
		Responder: stillResponder{}, Watcher: stillWatcher{}, Prober: stillProber{}, Advertiser: stillAdvertiser{}, Senses: NewSenses(),
		Watch:         func(ctx context.Context, notify func([]link.Link)) error { notify(eth0); <-ctx.Done(); return nil },
		WatchGateways: func(ctx context.Context, notify func([]link.Gateway)) error { <-ctx.Done(); return nil },
	}
}

// begun runs a speaker until the test ends.
func begun(t *testing.T, options Options) *Speaker {
	t.Helper()
	ctx, cancel := context.WithCancel(quiet(t))
	s, err := New(ctx, options)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	var err error
	for start := time.Now(); time.Since(start) < 30*time.Second; time.Sleep(5 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// kept is a folder with the state of node-1, whose Node has another UID by now.
func kept(t *testing.T) string {
	dir := t.TempDir()
	state := &saved{SavedAt: time.Now(), Node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "old"}}, VirtualIPs: []*v1alpha1.VirtualIP{byL2(0)}}
	if err := state.store(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

func registerNode(t *testing.T, options Options) *corev1.Node {
	t.Helper()
	node, err := options.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node
}

// ownedAnew waits for the Lease and the Speaker to belong to a Node.
func ownedAnew(t *testing.T, options Options, uid types.UID) {
	t.Helper()
	eventually(t, "the Lease and the Speaker belong to the Node", func() error {
		lease, err := options.Client.CoordinationV1().Leases("herald-system").Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		speaker, err := options.Herald.Speakers.Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, owners := range [][]metav1.OwnerReference{lease.OwnerReferences, speaker.OwnerReferences} {
			if len(owners) != 1 || owners[0].UID != uid {
				return fmt.Errorf("owners %+v, want %s", owners, uid)
			}
		}
		if !meta.IsStatusConditionTrue(speaker.Status.Conditions, v1alpha1.ConditionReady) {
			return fmt.Errorf("conditions %+v", speaker.Status.Conditions)
		}
		return nil
	})
}

// An API server that refuses, or does not know the Node, is waited for as one that does not answer is.
func TestWithAStateTheSpeakerStartsWhateverTheAPIServerSays(t *testing.T) {
	nodes := schema.GroupResource{Resource: "nodes"}
	for name, refusal := range map[string]error{
		"401": apierrors.NewUnauthorized("no"),
		"403": apierrors.NewForbidden(nodes, "node-1", nil),
		"404": nil, // the fake API server has no Node
	} {
		t.Run(name, func(t *testing.T) {
			api := fakeapi.New(t)
			var open atomic.Bool
			if refusal != nil {
				api.Before = func(string) error {
					if open.Load() {
						return nil
					}
					return refusal
				}
			}
			options := optionsFor(t, api.Config(), kept(t))
			s := begun(t, options)
			eventually(t, "it decides by what is on disk", func() error {
				if d := s.decision.Load(); d == nil || len(d.Verdicts) != 1 && !s.synced() {
					return fmt.Errorf("decision %v", d)
				}
				return nil
			})
			open.Store(true)
			ownedAnew(t, options, registerNode(t, options).UID)
		})
	}
	t.Run("without a state it says why it ends", func(t *testing.T) {
		_, err := New(quiet(t), optionsFor(t, fakeapi.New(t).Config(), t.TempDir()))
		if err == nil || !strings.Contains(err.Error(), `no Node "node-1"`) {
			t.Error(err)
		}
	})
}

func TestAnAPIServerThatAcceptsAndIsSilentDoesNotHoldTheStart(t *testing.T) {
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
	}()
	s := begun(t, optionsFor(t, &rest.Config{Host: "http://" + listener.Addr().String()}, kept(t)))
	eventually(t, "it decides by what is on disk", func() error {
		if d := s.decision.Load(); d == nil || len(d.Verdicts) != 1 {
			return fmt.Errorf("decision %v", d)
		}
		return nil
	})
	if err := s.Healthy(); err != nil {
		t.Error(err)
	}
}

// What belongs to a Node that was deleted and registered anew is made again with the new UID, and nothing is made in between.
func TestANodeRegisteredAnewOwnsItsObjects(t *testing.T) {
	api := fakeapi.New(t)
	options := optionsFor(t, api.Config(), "")
	first := registerNode(t, options)
	s := begun(t, options)
	ownedAnew(t, options, first.UID)

	ctx := t.Context()
	if err := options.Client.CoreV1().Nodes().Delete(ctx, "node-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the speaker hears of it", func() error {
		if s.owner() != nil {
			return fmt.Errorf("owner %+v", s.owner())
		}
		return nil
	})
	// as the garbage collector does
	if err := options.Herald.Speakers.Delete(ctx, "node-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := options.Client.CoordinationV1().Leases("herald-system").Delete(ctx, "node-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.lease.hurry()
	for start := time.Now(); time.Since(start) < time.Second; time.Sleep(20 * time.Millisecond) {
		if _, err := options.Herald.Speakers.Get(ctx, "node-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("a Speaker is made for a node that is gone: %v", err)
		}
		if _, err := options.Client.CoordinationV1().Leases("herald-system").Get(ctx, "node-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("a Lease is made for a node that is gone: %v", err)
		}
	}
	ownedAnew(t, options, registerNode(t, options).UID)
}

// While the Lease cannot be renewed, the controller says that the speaker is lost, and the speaker does not contradict.
func TestASpeakerWithoutItsLeaseSaysNothing(t *testing.T) {
	api := fakeapi.New(t)
	var closed atomic.Bool
	closed.Store(true)
	api.Before = func(request string) error {
		if closed.Load() && strings.Contains(request, "leases") {
			return apierrors.NewForbidden(schema.GroupResource{Resource: "leases"}, "node-1", nil)
		}
		return nil
	}
	options := optionsFor(t, api.Config(), "")
	node := registerNode(t, options)
	s := begun(t, options)
	eventually(t, "it decides", func() error {
		if s.decision.Load() == nil {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	for start := time.Now(); time.Since(start) < 300*time.Millisecond; time.Sleep(20 * time.Millisecond) {
		if _, err := options.Herald.Speakers.Get(t.Context(), "node-1", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Fatalf("it says that it runs: %v", err)
		}
	}
	closed.Store(false)
	ownedAnew(t, options, node.UID)
}

func TestAStateThatIsNoneDoesNoHarm(t *testing.T) {
	whole := &bytes.Buffer{}
	if err := (&saved{Node: corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}, VirtualIPs: []*v1alpha1.VirtualIP{byL2(0)}}).write(whole); err != nil {
		t.Fatal(err)
	}
	node := `{"node":{"metadata":{"name":"node-1"}},`
	states := map[string]string{
		"null": "null", "empty": "", "a list": "[]", "a number": "7", "zeros": strings.Repeat("\x00", 4096), "no node": "{}",
		"a null VirtualIP": node + `"virtualIPs":[null]}`, "a null Advertisement": node + `"advertisements":[null]}`, "a null BGPPeer": node + `"bgpPeers":[null]}`,
		"nested": strings.Repeat("[", 100_000),
	}
	for cut := 1; cut < whole.Len(); cut += 7 {
		states[fmt.Sprintf("cut at %d", cut)] = whole.String()[:cut]
	}
	for name, text := range states {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if known, err := load(dir, "node-1"); err == nil {
			t.Errorf("%s: loaded %+v", name, known)
		}
	}
	// what may be anything is taken without a panic
	odd := t.TempDir()
	text := node + `"virtualIPs":[{},{"metadata":{"name":"nonsense"},"spec":{"l2":{"candidates":["node-1"],"peers":[{}]}}},{"metadata":{"name":"10.0.0.1"},"status":{"conditions":[{}]}}],"advertisements":[{}],"bgpPeers":[{}]}`
	if err := os.WriteFile(filepath.Join(odd, stateFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	known, err := load(odd, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	Decide(Snapshot{Now: epoch, Node: "node-1", VirtualIPs: known.VirtualIPs, Advertisements: known.Advertisements, BGPPeers: known.BGPPeers})
	huge := t.TempDir()
	if err := os.WriteFile(filepath.Join(huge, stateFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(huge, stateFile), mostState+1); err != nil {
		t.Fatal(err)
	}
	if _, err := load(huge, "node-1"); err == nil {
		t.Error("a huge file is loaded")
	}
}

// A speaker that is killed while it writes leaves keys behind.
func TestLeftoversAreRemovedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{stateFile, stateFile + ".123", stateFile + ".456", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := PrepareStateDir(dir); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != "other" || entries[1].Name() != stateFile {
		t.Errorf("%v, %v", entries, err)
	}
	if err := PrepareStateDir(filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a folder that is not there is of use")
	}
	if err := PrepareStateDir(""); err != nil {
		t.Error(err)
	}
}

// What is saved and what is read from disk at the start touch each other in no way that the race detector minds.
func TestTheStartFromDiskDoesNotRaceWithSaving(t *testing.T) {
	api := fakeapi.New(t)
	var open atomic.Bool
	api.Before = func(request string) error {
		if strings.HasPrefix(request, "get nodes") || open.Load() {
			return nil
		}
		return apierrors.NewForbidden(schema.GroupResource{Resource: "virtualips"}, "", nil)
	}
	dir := kept(t)
	options := optionsFor(t, api.Config(), dir)
	before := api.Before
	api.Before = nil
	registerNode(t, options)
	api.Before = before
	ctx, cancel := context.WithCancel(quiet(t))
	s, err := New(ctx, options)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			s.resume(ctx, nil)
			time.Sleep(time.Millisecond)
		}
	}()
	for start := time.Now(); time.Since(start) < 100*time.Millisecond; {
		s.version()
		s.nodeToSave()
		s.owner()
	}
	cancel()
	<-done
}

type hangingWatcher struct {
	stillWatcher
	hang chan struct{}
}

func (h hangingWatcher) States() []bfd.Status { <-h.hang; return nil }

// A decision that does not come to its end is told, and so is one that is not made; waiting is neither.
func TestHealthzTellsOfALoopThatHangs(t *testing.T) {
	hang := make(chan struct{})
	options := optionsFor(t, fakeapi.New(t).Config(), "")
	options.Watcher = hangingWatcher{hang: hang}
	s := &Speaker{Options: options}
	late := time.Now().Add(-time.Second)
	for _, tt := range []struct {
		name string
		due  *time.Time
		want string
	}{
		{"before the start, and the watcher hangs", nil, "the BFD watcher does not answer"},
		{"a decision is overdue", &late, "no decision was made in time"},
	} {
		s.pulse.due.Store(tt.due)
		if err := s.Healthy(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	close(hang)
	s.pulse.beat(0)
	eventually(t, "it is healthy again", s.Healthy)
}
