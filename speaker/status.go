package speaker

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	// statusWriters write the status of VirtualIPs at a time.
	statusWriters = 4
	// speakerDelay gathers changes of the Speaker's status into one write.
	speakerDelay = 2 * time.Second
	retryFirst   = 50 * time.Millisecond
	retryLast    = 30 * time.Second
)

// statusWriter says in the status of VirtualIPs and of the Speaker what this
// node does, each time that changes.
type statusWriter struct {
	Options
	owner metav1.OwnerReference
	queue workqueue.TypedRateLimitingInterface[string] // names of VirtualIPs; "" is the Speaker

	mu       sync.Mutex
	snapshot Snapshot
	decision Decision
	vips     map[string]*v1alpha1.VirtualIP
	speaker  *v1alpha1.Speaker // as we wrote it
}

func newStatusWriter(options Options, node *corev1.Node) *statusWriter {
	return &statusWriter{
		Options: options,
		owner:   ownedBy(node),
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[string](retryFirst, retryLast),
			workqueue.TypedRateLimitingQueueConfig[string]{Name: "status"}),
	}
}

// want takes in what is so from now on.
func (w *statusWriter) want(snapshot Snapshot, decision Decision) {
	vips := make(map[string]*v1alpha1.VirtualIP, len(snapshot.VirtualIPs))
	for _, vip := range snapshot.VirtualIPs {
		vips[vip.Name] = vip
	}
	w.mu.Lock()
	first := w.vips == nil
	w.snapshot, w.decision, w.vips = snapshot, decision, vips
	w.mu.Unlock()
	for name, verdict := range decision.Verdicts {
		if _, changed := announced(vips[name], w.Node, verdict, time.Time{}); changed {
			w.queue.Add(name)
		}
	}
	delay := speakerDelay
	if first {
		delay = 0
	}
	w.queue.AddAfter("", delay)
}

// announcing is how many addresses this node answers for.
func (w *statusWriter) announcing() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.decision.announced()
}

func (d Decision) announced() int {
	count := 0
	for _, verdict := range d.Verdicts {
		if verdict.Reason == "" {
			count++
		}
	}
	return count
}

func (w *statusWriter) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, w.queue.ShutDown)
	defer stop()
	var workers sync.WaitGroup
	for range statusWriters {
		workers.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	workers.Wait()
}

func (w *statusWriter) next(ctx context.Context) bool {
	name, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(name)
	write := w.writeVirtualIP
	if name == "" {
		write = w.writeSpeaker
	}
	if err := write(ctx, name); err != nil && ctx.Err() == nil {
		klog.FromContext(ctx).V(2).Info("A status was not written, will be tried again", "name", name, "err", err)
		w.queue.AddRateLimited(name)
		return true
	}
	w.queue.Forget(name)
	return true
}

func (w *statusWriter) writeVirtualIP(ctx context.Context, name string) error {
	w.mu.Lock()
	vip, verdict := w.vips[name], w.decision.Verdicts[name]
	w.mu.Unlock()
	if vip == nil {
		return nil
	}
	desired, changed := announced(vip, w.Node, verdict, time.Now())
	if !changed {
		return nil
	}
	_, err := w.Herald.VirtualIPs.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("writing the status of VirtualIP %s: %w", name, err)
	}
	return nil
}

// announced is the VirtualIP with the status that this node gives it. Only the
// owner writes; whoever is owner no more leaves that to the next one.
func announced(vip *v1alpha1.VirtualIP, node string, verdict Verdict, now time.Time) (desired *v1alpha1.VirtualIP, changed bool) {
	if !verdict.Owner {
		return vip, false
	}
	desired = vip.DeepCopy()
	condition := metav1.Condition{
		Type:               v1alpha1.ConditionAnnounced,
		Status:             metav1.ConditionTrue,
		Reason:             string(v1alpha1.Announced),
		Message:            fmt.Sprintf("Node %s answers on %s.", node, strings.Join(verdict.Interfaces, ", ")),
		LastTransitionTime: metav1.NewTime(now),
	}
	if verdict.Reason != "" {
		condition.Status = metav1.ConditionFalse
		condition.Reason = string(verdict.Reason)
		condition.Message = fmt.Sprintf("Node %s has no interface to announce the address on.", node)
	}
	changed = meta.SetStatusCondition(&desired.Status.Conditions, condition)
	if desired.Status.Owner != node {
		since := metav1.NewTime(now)
		desired.Status.Owner, desired.Status.OwnerSince = node, &since
		changed = true
	}
	return desired, changed
}

func (w *statusWriter) writeSpeaker(ctx context.Context, _ string) error {
	w.mu.Lock()
	status := speakerStatus(w.Node, w.Version, w.snapshot, w.decision)
	speaker := w.speaker
	w.mu.Unlock()
	if speaker == nil {
		found, err := w.getSpeaker(ctx)
		if err != nil {
			return err
		}
		speaker = found
	}
	desired := speaker.DeepCopy()
	status.Conditions = desired.Status.Conditions
	meta.SetStatusCondition(&status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: string(v1alpha1.Running), Message: "The speaker runs.",
	})
	desired.Status = status
	if equality.Semantic.DeepEqual(speaker.Status, desired.Status) {
		w.keep(speaker)
		return nil
	}
	written, err := w.Herald.Speakers.UpdateStatus(ctx, desired, metav1.UpdateOptions{})
	w.keep(written)
	if err != nil {
		w.keep(nil) // ask anew
		return fmt.Errorf("writing the status of Speaker %s: %w", w.Node, err)
	}
	return nil
}

func (w *statusWriter) keep(speaker *v1alpha1.Speaker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.speaker = speaker
}

// getSpeaker asks for our Speaker, and makes it if there is none.
func (w *statusWriter) getSpeaker(ctx context.Context) (*v1alpha1.Speaker, error) {
	speaker, err := w.Herald.Speakers.Get(ctx, w.Node, metav1.GetOptions{})
	if err == nil {
		return speaker, nil
	}
	if !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading Speaker %s: %w", w.Node, err)
	}
	speaker, err = w.Herald.Speakers.Create(ctx, &v1alpha1.Speaker{
		ObjectMeta: metav1.ObjectMeta{Name: w.Node, OwnerReferences: []metav1.OwnerReference{w.owner}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("creating Speaker %s: %w", w.Node, err)
	}
	return speaker, nil
}

// speakerStatus is what the Speaker object says, but for its conditions.
func speakerStatus(node, version string, s Snapshot, d Decision) v1alpha1.SpeakerStatus {
	status := v1alpha1.SpeakerStatus{Node: node, Version: version, Announcing: int32(d.announced())}
	for _, l := range s.Links {
		if !l.ARP {
			continue
		}
		entry := v1alpha1.SpeakerInterface{Name: l.Name, MAC: net.HardwareAddr(l.MAC[:]).String(), Up: l.Up}
		for _, prefix := range l.Prefixes {
			if !prefix.Addr().IsLinkLocalUnicast() {
				entry.Prefixes = append(entry.Prefixes, prefix.String())
			}
		}
		// Links without addresses (the pods' ends of veth pairs) come and go
		// and say nothing.
		if len(entry.Prefixes) > 0 {
			status.Interfaces = append(status.Interfaces, entry)
		}
	}
	slices.SortFunc(status.Interfaces, func(a, b v1alpha1.SpeakerInterface) int { return cmp.Compare(a.Name, b.Name) })
	return status
}
