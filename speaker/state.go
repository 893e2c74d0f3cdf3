package speaker

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
)

const (
	stateFile = "state.json"
	// saveDelay gathers changes into one write.
	saveDelay = time.Second
	// touchAfter bounds by how much the age of what was saved is overstated.
	touchAfter = 30 * time.Second
	// saveShare is how many times as long as a write the pause after it is at least: very much is written less often.
	saveShare = 9
	// saveAgain bounds the pause after a write that failed: a disk that is full is not written to each second.
	saveAgain = time.Minute
	// mostState bounds what is read, in bytes: 100,000 VirtualIPs are some 100 MB.
	mostState = 1 << 30
)

// saved is what a speaker keeps on disk to start with while the API server is away. It is a file of its own, which only the
// speaker's user can read, since it has the speakers' key and the
// passwords of routers.
type saved struct {
	SavedAt    time.Time             `json:"savedAt"`
	Node       corev1.Node           `json:"node"`
	VirtualIPs []*v1alpha1.VirtualIP `json:"virtualIPs,omitempty"`

	Advertisements []*v1alpha1.Advertisement `json:"advertisements,omitempty"`
	BGPPeers       []*v1alpha1.BGPPeer       `json:"bgpPeers,omitempty"`
	// Secrets that BGPPeers name, by name.
	Secrets map[string]map[string][]byte `json:"secrets,omitempty"`

	Key      []byte `json:"key,omitempty"`
	OtherKey []byte `json:"otherKey,omitempty"`
}

func (s *saved) node() *corev1.Node { return &s.Node }

// PrepareStateDir removes what a speaker that was killed has left behind in its folder, which has keys in it, and returns an
// error when nothing can be kept there. The folder is no more than a cache: the speaker works without.
func PrepareStateDir(dir string) error {
	if dir == "" {
		return nil
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("--state-dir: %w", err)
	}
	var failed []error
	for _, entry := range left {
		if strings.HasPrefix(entry.Name(), stateFile+".") {
			failed = append(failed, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	file, err := os.CreateTemp(dir, stateFile+".*")
	if err != nil {
		return errors.Join(append(failed, fmt.Errorf("--state-dir: %w", err))...)
	}
	_, err = file.WriteString("probe")
	return errors.Join(append(failed, err, file.Close(), os.Remove(file.Name()))...)
}

// load reads what the speaker of a node kept. An error says why it is of no use: whatever the file may have become, it is no
// more than that.
func load(dir, node string) (*saved, error) {
	path := filepath.Join(dir, stateFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > mostState {
		return nil, fmt.Errorf("%s is no file, or larger than %d bytes", path, mostState)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var s saved
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	if s.Node.Name != node {
		return nil, fmt.Errorf("%s is of node %q", path, s.Node.Name)
	}
	if slices.Contains(s.VirtualIPs, nil) || slices.Contains(s.Advertisements, nil) || slices.Contains(s.BGPPeers, nil) {
		return nil, fmt.Errorf("reading %s: an object is null", path)
	}
	for _, vip := range s.VirtualIPs {
		leanVirtualIP(vip)
	}
	s.SavedAt = later(s.SavedAt, info.ModTime()) // it was looked at then, and still held
	return &s, nil
}

// store replaces the file as a whole, so that a crash leaves the old one or the new one.
func (s *saved) store(dir string) error {
	file, err := os.CreateTemp(dir, stateFile+".*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	err = s.write(file)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(dir, stateFile))
}

// write writes VirtualIPs one by one: the text of very many is never in memory as a whole.
func (s *saved) write(to io.Writer) error {
	rest := *s
	rest.VirtualIPs = nil
	head, err := json.Marshal(&rest)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(to, 1<<16) // keeps its first error for Flush
	_, _ = w.Write(head[:len(head)-1])
	between := `,"virtualIPs":[`
	for _, vip := range s.VirtualIPs {
		_, _ = w.WriteString(between)
		between = ","
		text, err := json.Marshal(vip)
		if err != nil {
			return err
		}
		_, _ = w.Write(text)
	}
	if len(s.VirtualIPs) > 0 {
		_ = w.WriteByte(']')
	}
	_ = w.WriteByte('}')
	return w.Flush()
}

// save keeps on disk what is known, from when the API server has told it, each time it has changed, and once more at the end.
func (s *Speaker) save(ctx context.Context, delay time.Duration) {
	if s.StateDir == "" {
		return
	}
	var last version
	pause, retry := delay, time.Duration(0)
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-time.After(pause):
		}
		pause = delay
		if !s.synced() {
			continue
		}
		// What changes from here on is saved the next time.
		now := s.version()
		if now == last {
			s.touch()
			continue
		}
		start := time.Now()
		if err := s.toSave().store(s.StateDir); err != nil {
			retry = min(max(2*retry, delay), saveAgain)
			pause = retry
			klog.FromContext(ctx).Error(err, "What is known was not saved; a start without the API server would go by older knowledge")
			continue
		}
		last, retry = now, 0
		pause = max(delay, saveShare*time.Since(start))
	}
}

// touch says on disk, now and then, that what is there still holds.
func (s *Speaker) touch() {
	path := filepath.Join(s.StateDir, stateFile)
	contact := s.contact.Load()
	if info, err := os.Stat(path); err != nil || contact == nil || contact.Sub(info.ModTime()) < touchAfter {
		return
	}
	_ = os.Chtimes(path, time.Time{}, *contact) // the age is for people to see
}

// toSave is what is known: no more of each object than a decision needs. Objects are the informers' own, and not to be changed.
func (s *Speaker) toSave() *saved {
	k := s.keys()
	now := &saved{SavedAt: time.Now(), Key: k.now, OtherKey: k.other, Node: s.nodeToSave()}
	now.VirtualIPs = byName(client.Objects[*v1alpha1.VirtualIP](s.vips.GetStore()))
	now.Advertisements = byName(client.Objects[*v1alpha1.Advertisement](s.adverts.GetStore()))
	now.BGPPeers = byName(client.Objects[*v1alpha1.BGPPeer](s.peers.GetStore()))
	now.Secrets, _ = s.passwords(now.BGPPeers)
	return now
}

func (s *Speaker) nodeToSave() (kept corev1.Node) {
	node := s.ownNode()
	kept.ObjectMeta = metav1.ObjectMeta{Name: node.Name, UID: node.UID, ResourceVersion: node.ResourceVersion, Labels: node.Labels}
	kept.Spec = corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints, PodCIDR: node.Spec.PodCIDR, PodCIDRs: node.Spec.PodCIDRs}
	kept.Status.Addresses = node.Status.Addresses
	return kept
}

func byName[T metav1.Object](objects []T) []T {
	slices.SortFunc(objects, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return objects
}

// version changes when there is something new to save.
type version struct {
	edits uint64 // of objects that there may be many of
	few   string // the node, and what is secret
}

func (s *Speaker) version() version {
	edits := s.edits.Load()
	k, node := s.keys(), s.nodeToSave()
	secrets, _ := s.passwords(client.Objects[*v1alpha1.BGPPeer](s.peers.GetStore()))
	return version{edits + 1, fmt.Sprint(node.UID, node.Status.Addresses, node.Labels, node.Spec.Unschedulable, node.Spec.Taints, len(k.now), k.now, k.other, secrets)}
}
