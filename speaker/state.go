package speaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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
)

// saved is what a speaker keeps on disk to start with while the API server is away. It is a file of its own, which only the
// speaker's user can read, since it has the speakers' key and the
// passwords of routers.
type saved struct {
	SavedAt    time.Time             `json:"savedAt"`
	Node       corev1.Node           `json:"node"`
	VirtualIPs []*v1alpha1.VirtualIP `json:"virtualIPs"`

	Advertisements []*v1alpha1.Advertisement `json:"advertisements,omitempty"`
	BGPPeers       []*v1alpha1.BGPPeer       `json:"bgpPeers,omitempty"`
	// Secrets that BGPPeers name, by name.
	Secrets map[string]map[string][]byte `json:"secrets,omitempty"`

	Key      []byte `json:"key,omitempty"`
	OtherKey []byte `json:"otherKey,omitempty"`
}

func (s *saved) node() *corev1.Node { return &s.Node }

// load reads what the speaker of a node kept. An error says why it is of no use.
func load(dir, node string) (*saved, error) {
	path := filepath.Join(dir, stateFile)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
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
	s.SavedAt = later(s.SavedAt, info.ModTime()) // it was looked at then, and still held
	return &s, nil
}

// store replaces the file as a whole, so that a crash leaves the old one or the new one.
func (s *saved) store(dir string) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(dir, stateFile+".*") // for its owner alone
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(file.Name()) }()
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), filepath.Join(dir, stateFile))
}

// save keeps on disk what is known, from when the API server has told it, each time it has changed.
func (s *Speaker) save(ctx context.Context) {
	if s.StateDir == "" {
		return
	}
	var last string
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(saveDelay):
		}
		if !s.synced() {
			continue
		}
		now := s.toSave()
		version := now.version()
		if version == last {
			s.touch()
			continue
		}
		if err := now.store(s.StateDir); err != nil {
			klog.FromContext(ctx).Error(err, "What is known was not saved; a start without the API server would go by older knowledge")
			continue
		}
		last = version
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

// toSave is what is known: no more of each object than a decision needs.
func (s *Speaker) toSave() *saved {
	k := s.keys()
	now := &saved{SavedAt: time.Now(), Key: k.now, OtherKey: k.other}
	node := s.node
	if object, exists, err := s.nodes.GetStore().GetByKey(s.Node); err == nil && exists {
		node = object.(*corev1.Node)
	}
	now.Node.ObjectMeta = metav1.ObjectMeta{Name: s.node.Name, UID: s.node.UID, ResourceVersion: s.node.ResourceVersion, Labels: node.Labels}
	now.Node.Spec = corev1.NodeSpec{Unschedulable: node.Spec.Unschedulable, Taints: node.Spec.Taints}
	now.Node.Status.Addresses = node.Status.Addresses
	now.VirtualIPs = kept(client.Objects[*v1alpha1.VirtualIP](s.vips.GetStore()), (*v1alpha1.VirtualIP).DeepCopy)
	now.Advertisements = kept(client.Objects[*v1alpha1.Advertisement](s.adverts.GetStore()), (*v1alpha1.Advertisement).DeepCopy)
	now.BGPPeers = kept(client.Objects[*v1alpha1.BGPPeer](s.peers.GetStore()), (*v1alpha1.BGPPeer).DeepCopy)
	now.Secrets = s.passwords(now.BGPPeers)
	return now
}

// kept are copies of objects without what only the API server needs, by name.
func kept[T metav1.Object](objects []T, copied func(T) T) []T {
	for i := range objects {
		objects[i] = copied(objects[i])
		objects[i].SetManagedFields(nil)
	}
	slices.SortFunc(objects, func(a, b T) int { return strings.Compare(a.GetName(), b.GetName()) })
	return objects
}

// version changes when there is something new to save.
func (s *saved) version() string {
	var b strings.Builder
	fmt.Fprint(&b, s.Node.UID, s.Node.Status.Addresses, s.Node.Labels, s.Node.Spec.Unschedulable, s.Node.Spec.Taints, len(s.Key), s.Key, s.OtherKey, s.Secrets)
	for _, vip := range s.VirtualIPs {
		fmt.Fprintf(&b, " %s/%s", vip.UID, vip.ResourceVersion)
	}
	for _, a := range s.Advertisements {
		fmt.Fprintf(&b, " %s/%s", a.UID, a.ResourceVersion)
	}
	for _, p := range s.BGPPeers {
		fmt.Fprintf(&b, " %s/%s", p.UID, p.ResourceVersion)
	}
	return b.String()
}
