package speaker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
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
	if want.version() != got.version() {
		t.Error("the version differs")
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
