package service

import (
	"hash/fnv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	// announcementDelay is the least time between two writes to a Service that
	// change nothing but what it says of its announcement.
	announcementDelay = 10 * time.Second
	// arrival is how long a Service that is about to be announced again may take
	// before that is written.
	arrival = 3 * time.Second
	// A standing no is told again after remindAfter and up to remindWithin more:
	// the API server forgets events after an hour.
	remindAfter  = 40 * time.Minute
	remindWithin = 10 * time.Minute
)

// pace is what is remembered of a Service so that it is neither written nor
// told of too often. All of it may be forgotten: a controller that starts
// writes the next change at once, and counts reminders from the condition.
type pace struct {
	// written is when the announcement alone was last written.
	written time.Time
	// arriving is since when the Service is about to be announced again.
	arriving time.Time
	// remind is when its standing no is told again, which stands since then.
	remind, since time.Time
	// contest is with others that write what Herald writes.
	contest contest
}

// wait is how long a change of the announcement alone has to wait.
func (p *pace) wait(service *corev1.Service, v verdict, now time.Time) time.Duration {
	until := p.written.Add(announcementDelay)
	said := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced)
	if v.announced.reason == v1alpha1.Announcing && said != nil && said.Reason != string(v1alpha1.Announcing) {
		if p.arriving.IsZero() {
			p.arriving = now
		}
		if arrived := p.arriving.Add(arrival); arrived.After(until) {
			until = arrived
		}
	} else {
		p.arriving = time.Time{}
	}
	return max(0, until.Sub(now))
}

// due is how long it is until the standing no is told again, and whether that is now.
func (p *pace) due(since time.Time, every time.Duration, now time.Time) (rest time.Duration, tell bool) {
	if !p.since.Equal(since) {
		p.since, p.remind = since, since.Add(every)
		if late := now.Sub(p.remind); late >= 0 {
			p.remind = p.remind.Add(late - late%every + every) // of what we did not see, we tell nothing
		}
	}
	if late := now.Sub(p.remind); late >= 0 {
		p.remind, tell = p.remind.Add(late-late%every+every), true
	}
	return p.remind.Sub(now), tell
}

// remindEvery is how often a Service is reminded of: not all of them at once.
func remindEvery(uid types.UID) time.Duration {
	hash := fnv.New32a()
	_, _ = hash.Write([]byte(uid))
	return remindAfter + time.Duration(hash.Sum32()%uint32(remindWithin/time.Second))*time.Second
}

// postpone reports how long a write is to wait; 0 is to write now.
func (c *Controller) postpone(key types.NamespacedName, service, desired *corev1.Service, v verdict) time.Duration {
	if !v.announcementAlone(service, desired) {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.paceOf(key).wait(service, v, time.Now())
}

// paced takes down that the announcement of a Service was written.
func (c *Controller) paced(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.paceOf(key)
	p.written, p.arriving = time.Now(), time.Time{}
}

// paceOf is the pace of a Service; the caller holds the lock.
func (c *Controller) paceOf(key types.NamespacedName) *pace {
	if c.paces[key] == nil {
		c.paces[key] = &pace{}
	}
	return c.paces[key]
}

// remind tells the standing no of a Service again when it is time, and has the
// Service looked at when it is time next.
func (c *Controller) remind(key types.NamespacedName, service *corev1.Service) {
	ready := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	if ready == nil || ready.Status == metav1.ConditionTrue || ready.Reason == string(v1alpha1.Announcing) {
		return
	}
	c.mu.Lock()
	if _, behind := c.written[key]; behind {
		c.mu.Unlock()
		return // it was just written, and comes again
	}
	rest, tell := c.paceOf(key).due(ready.LastTransitionTime.Time, remindEvery(service.UID), time.Now())
	c.mu.Unlock()
	if tell {
		n := reminder(ready, meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced))
		c.Recorder.Event(service, n.kind, string(n.reason), n.message)
	}
	c.queue.AddAfter(key, rest)
}
