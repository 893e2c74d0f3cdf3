package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// speakerRuns waits for the Speaker of a node to say that it runs and that it is owned by a Node.
func (w *world) speakerRuns(node string, owner types.UID) {
	w.Helper()
	w.eventually("Speaker "+node+" runs", func() error {
		speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !meta.IsStatusConditionTrue(speaker.Status.Conditions, v1alpha1.ConditionReady) || len(speaker.Status.Interfaces) == 0 {
			return fmt.Errorf("status %+v", speaker.Status)
		}
		if owners := speaker.OwnerReferences; len(owners) != 1 || owners[0].UID != owner {
			return fmt.Errorf("owners %+v, want %s", owners, owner)
		}
		return nil
	})
}

// What anybody changes in a Speaker or in a VirtualIP, its speaker says again.
func TestASpeakerSaysAgainWhatWasChanged(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.dualPool()
		w.pods("web", "node1", "node2", "node3")
		w.service("web", nil)
		addr := w.address("web")
		owner := w.owner(addr)
		node, err := kube.CoreV1().Nodes().Get(w.ctx, owner, metav1.GetOptions{})
		w.must(err)
		w.speakerRuns(owner, node.UID)

		w.must(herald.Speakers.Delete(w.ctx, owner, metav1.DeleteOptions{}))
		w.speakerRuns(owner, node.UID)

		w.eventually("the Speaker is overwritten", func() error {
			speaker, err := herald.Speakers.Get(w.ctx, owner, metav1.GetOptions{})
			w.must(err)
			speaker.Status = v1alpha1.SpeakerStatus{Conditions: []metav1.Condition{{
				Type: v1alpha1.ConditionReady, Status: metav1.ConditionUnknown, Reason: "LeaseExpired", LastTransitionTime: metav1.Now(),
			}}}
			_, err = herald.Speakers.UpdateStatus(w.ctx, speaker, metav1.UpdateOptions{})
			return err
		})
		w.speakerRuns(owner, node.UID)

		w.eventually("the VirtualIP is overwritten", func() error {
			vip := w.virtualIP(addr)
			meta.SetStatusCondition(&vip.Status.Conditions, metav1.Condition{
				Type: v1alpha1.ConditionAnnounced, Status: metav1.ConditionUnknown, Reason: "SpeakerLost", Message: "lost",
			})
			_, err := herald.VirtualIPs.UpdateStatus(w.ctx, vip, metav1.UpdateOptions{})
			return err
		})
		if now := w.owner(addr); now != owner {
			t.Errorf("owner %s, want %s", now, owner)
		}
		if count := w.versionsOf(addr, 2*time.Second); count > 0 {
			t.Errorf("%d versions of the VirtualIP at rest", count)
		}
	})
}

// A node that is deleted and registered anew has another UID: what belongs to it is made again, once.
func TestANodeRegisteredAnewIsACandidateAgain(t *testing.T) {
	play(t, func(t testing.TB) {
		w := newWorld(t)
		w.dualPool()
		w.pods("web", "node1", "node2", "node3")
		w.service("web", nil)
		addr := w.address("web")
		lost := w.owner(addr)
		nodes := kube.CoreV1().Nodes()
		old, err := nodes.Get(w.ctx, lost, metav1.GetOptions{})
		w.must(err)
		register := func() {
			node := old.DeepCopy()
			node.ObjectMeta = metav1.ObjectMeta{Name: old.Name, Labels: old.Labels, Annotations: old.Annotations}
			made, err := nodes.Create(context.Background(), node, metav1.CreateOptions{})
			w.must(err)
			made.Status = old.Status
			_, err = nodes.UpdateStatus(context.Background(), made, metav1.UpdateOptions{})
			w.must(err)
			// kube-proxy ends when its Node does; a kubelet would start it again.
			w.quietly("kube-proxy has ended", func() error {
				if box.Running("kube-proxy-" + lost) {
					return fmt.Errorf("it runs")
				}
				return nil
			})
			w.must(box.StartProxy(context.Background(), lost))
		}
		w.must(nodes.Delete(w.ctx, lost, metav1.DeleteOptions{}))
		gone := true
		w.Cleanup(func() {
			if gone {
				register()
			}
		})
		w.ownerOtherThan(addr, lost)
		w.eventually("the garbage collector has taken the Speaker", func() error {
			_, err := herald.Speakers.Get(w.ctx, lost, metav1.GetOptions{})
			if err == nil {
				return fmt.Errorf("it is there")
			}
			return ignoreNotFound(err)
		})
		w.always("nothing is made for a node that is gone", 3*time.Second, func() error {
			if _, err := herald.Speakers.Get(w.ctx, lost, metav1.GetOptions{}); err == nil {
				return fmt.Errorf("Speaker %s is there", lost)
			}
			return nil
		})

		register()
		gone = false
		node, err := nodes.Get(w.ctx, lost, metav1.GetOptions{})
		w.must(err)
		w.speakerRuns(lost, node.UID)
		w.eventually("its Lease belongs to the new Node", func() error {
			lease, err := kube.CoordinationV1().Leases("herald-system").Get(w.ctx, lost, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if owners := lease.OwnerReferences; len(owners) != 1 || owners[0].UID != node.UID {
				return fmt.Errorf("owners %+v", owners)
			}
			return nil
		})
		speaker, err := herald.Speakers.Get(w.ctx, lost, metav1.GetOptions{})
		w.must(err)
		w.always("the Speaker stays", 5*time.Second, func() error {
			now, err := herald.Speakers.Get(w.ctx, lost, metav1.GetOptions{})
			if err == nil && now.UID != speaker.UID {
				err = fmt.Errorf("it was made again")
			}
			return err
		})
		w.eventually("it is a candidate again", func() error {
			if candidates := w.virtualIP(addr).Spec.L2.Candidates; len(candidates) != 3 {
				return fmt.Errorf("candidates %v", candidates)
			}
			return nil
		})
	})
}
