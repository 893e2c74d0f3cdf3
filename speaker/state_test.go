package speaker

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/internal/fakeapi"
)

func TestWhatIsSavedIsLoaded(t *testing.T) {
	dir := t.TempDir()
	want := &saved{
		SavedAt: time.Now().Add(-time.Hour).UTC().Truncate(time.Second),
		Node: corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "u"},
			Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "198.51.100.1"}}},
		},
		VirtualIPs: []*v1alpha1.VirtualIP{newPlay(t, []byte(vipYAML)).s.VirtualIPs[0]},
		Key:        []byte{1, 2, 3}, OtherKey: []byte{4},
	}
	for range 2 { // the second time over the first
		if err := want.store(dir); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, stateFile)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v: the file has a key", info.Mode(), err)
	}
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("left behind: %v", files)
	}
	touched := want.SavedAt.Add(time.Minute)
	if err := os.Chtimes(path, time.Time{}, touched); err != nil {
		t.Fatal(err)
	}
	got, err := load(dir, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if !got.SavedAt.Equal(touched) {
		t.Errorf("saved at %v, want %v: it still held then", got.SavedAt, touched)
	}
	got.SavedAt = want.SavedAt
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A start without the API server is to go by the last word of it, whatever object it was about.
func TestEachChangeIsSaved(t *testing.T) {
	ctx, cancel := context.WithCancel(quiet(t))
	defer cancel()
	api := fakeapi.New(t)
	s := newStill(t, api.Config())
	if err := s.follow(); err != nil {
		t.Fatal(err)
	}
	saving := make(chan struct{})
	go func() { s.save(ctx, 10*time.Millisecond); close(saving) }()

	vips, adverts, peers := s.Herald.VirtualIPs, s.Herald.Advertisements, s.Herald.BGPPeers
	secrets, nodes := s.Client.CoreV1().Secrets("herald-system"), s.Client.CoreV1().Nodes()
	secret := func(name, key, value string) func() error {
		return func() error {
			_, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{key: []byte(value)}}, metav1.CreateOptions{})
			return err
		}
	}
	for _, tt := range []struct {
		name string
		do   func() error
		is   func(*saved) bool
	}{
		{"nothing but the start", func() error { return nil }, func(k *saved) bool {
			return len(k.VirtualIPs) == 0 && len(k.Advertisements) == 1 && len(k.BGPPeers) == 1 && len(k.Node.Status.Addresses) == 1
		}},
		{"two VirtualIPs", func() error {
			_, one := vips.Create(ctx, byL2(1), metav1.CreateOptions{})
			_, other := vips.Create(ctx, byBGP(2), metav1.CreateOptions{})
			return errors.Join(one, other)
		}, func(k *saved) bool {
			return len(k.VirtualIPs) == 2 && k.VirtualIPs[0].Name == "10.0.0.1" && k.VirtualIPs[0].Spec.L2 != nil && k.VirtualIPs[1].Spec.BGP != nil
		}},
		{"a status", func() error {
			vip, err := vips.Get(ctx, "10.0.0.1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			vip.Status.Owner = "node-3"
			_, err = vips.UpdateStatus(ctx, vip, metav1.UpdateOptions{})
			return err
		}, func(k *saved) bool { return k.VirtualIPs[0].Status.Owner == "node-3" }},
		{"a VirtualIP less", func() error { return vips.Delete(ctx, "10.0.0.1", metav1.DeleteOptions{}) }, func(k *saved) bool { return len(k.VirtualIPs) == 1 }},
		{"no VirtualIP", func() error { return vips.Delete(ctx, "10.0.0.2", metav1.DeleteOptions{}) }, func(k *saved) bool { return len(k.VirtualIPs) == 0 }},
		{"an Advertisement", func() error {
			_, err := adverts.Create(ctx, &v1alpha1.Advertisement{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
			return err
		}, func(k *saved) bool { return len(k.Advertisements) == 2 }},
		{"a password that nobody names", secret("tor", "password", "hush"), func(k *saved) bool { return k.Secrets["tor"] == nil }},
		{"a router that names it", func() error {
			peer := &v1alpha1.BGPPeer{ObjectMeta: metav1.ObjectMeta{Name: "tor2"}, Spec: v1alpha1.BGPPeerSpec{LocalASN: 64512, PasswordSecretRef: &v1alpha1.SecretKeyReference{Name: "tor"}}}
			_, err := peers.Create(ctx, peer, metav1.CreateOptions{})
			return err
		}, func(k *saved) bool { return len(k.BGPPeers) == 2 && string(k.Secrets["tor"]["password"]) == "hush" }},
		{"the speakers' key", secret(v1alpha1.BFDSecret, v1alpha1.BFDSecretKey, "key"), func(k *saved) bool { return string(k.Key) == "key" }},
		{"the node", func() error {
			node, err := nodes.Get(ctx, "node-1", metav1.GetOptions{})
			if err != nil {
				return err
			}
			node.Labels = map[string]string{"rack": "a"}
			_, err = nodes.Update(ctx, node, metav1.UpdateOptions{})
			return err
		}, func(k *saved) bool { return k.Node.Labels["rack"] == "a" }},
	} {
		if err := tt.do(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
			known, err := load(s.StateDir, "node-1")
			if err == nil && tt.is(known) {
				break
			}
			if time.Since(start) > time.Minute {
				t.Fatalf("%s is not saved: %+v, %v", tt.name, known, err)
			}
		}
	}

	// The last word is saved by a speaker that ends, too.
	cancel()
	<-saving
	s.edits.Add(1)
	before, _ := load(s.StateDir, "node-1")
	s.save(ctx, time.Hour)
	if after, err := load(s.StateDir, "node-1"); err != nil || !after.SavedAt.After(before.SavedAt) {
		t.Errorf("saved at %v, not once more at the end (%v)", after.SavedAt, err)
	}
}

// Nothing is written for as long as nothing has changed.
func TestWhatIsTheSameIsNotSavedAgain(t *testing.T) {
	ctx := quiet(t)
	s := newStill(t, fakeapi.New(t).Config())
	if err := s.follow(); err != nil {
		t.Fatal(err)
	}
	node, err := s.Client.CoreV1().Nodes().Get(ctx, "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); s.edits.Load() < 2; time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatal("the Advertisement and the BGPPeer are not heard of")
		}
	}
	before := s.version()
	node.Status.Images = []corev1.ContainerImage{{Names: []string{"pause"}}}
	if err := s.nodes.GetStore().Update(node); err != nil {
		t.Fatal(err)
	}
	if after := s.version(); after != before {
		t.Errorf("%+v became %+v by a heartbeat", before, after)
	}
}

func TestWhatIsOfNoUseIsRefused(t *testing.T) {
	for name, content := range map[string]string{"missing": "", "broken": `{"savedAt":`, "of node": `{"node":{"metadata":{"name":"node-2"}}}`} {
		dir := t.TempDir()
		if content != "" {
			if err := os.WriteFile(filepath.Join(dir, stateFile), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := load(dir, "node-1"); err == nil {
			t.Errorf("%s: loaded", name)
		} else if name == "of node" && !strings.Contains(err.Error(), "node-2") {
			t.Errorf("%v does not name the other node", err)
		}
	}
}

const vipYAML = `metadata: {name: 198.51.100.200, resourceVersion: "7"}
spec:
  address: 198.51.100.200
  claims: [{namespace: shop, name: web}]
  l2: {candidates: [node-1, node-2]}
`

func TestKeys(t *testing.T) {
	s := &Speaker{Options: Options{Interval: time.Second, Multiplier: 4}}
	if w := s.watch(keys{}); w != nil {
		t.Errorf("watches without a key: %+v", w)
	}
	w := s.watch(keys{now: []byte("a key that is longer than the twenty bytes of a packet")})
	if w == nil || len(w.Auth.Key) != 20 || w.AlsoAccept.Key != "" || w.Interval != time.Second || w.Multiplier != 4 {
		t.Fatalf("%+v", w)
	}
	both := s.watch(keys{now: []byte("one"), other: []byte("two")})
	turned := s.watch(keys{now: []byte("two"), other: []byte("one")})
	if both.Auth != turned.AlsoAccept || both.AlsoAccept != turned.Auth {
		t.Error("two speakers in the middle of a change do not understand each other")
	}
	if same := s.watch(keys{now: []byte("one"), other: []byte("one")}); same.AlsoAccept.Key != "" {
		t.Error("one key twice")
	}
}
