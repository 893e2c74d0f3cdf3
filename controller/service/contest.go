package service

// Other controllers may write what Herald writes into a Service: the load balancer of k3s writes the status of every
// Service that names no class. Each write of Herald's would be answered by one of theirs, for ever. So what another one
// wrote over is put right at once the first time, and ever more seldom after that, and the Service says who it is.
//
//	        written over             written over again             nothing for a while
//	calm ------------------> count 1 ------------------> contested ---------------------> count 1
//	  ^      put right at once  |        put right after 2 s, 4 s, … 2 min                   |
//	  +-------------------------+------------------------------------------------------------+
//	                              nothing for ten minutes

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	// Waits until what was written over again is put right.
	contestFirst = 2 * time.Second
	contestLast  = 2 * time.Minute
	// What was put right has to stay so for quietLeast before the contest is over: longer where the other writer took
	// longer to answer, but no longer than quietMost.
	quietLeast = 15 * time.Second
	quietMost  = 5 * time.Minute
	// contestMemory is how long one write by another is remembered.
	contestMemory = 10 * time.Minute
	// maxRivals is how many other writers are named.
	maxRivals = 3
)

// words are what of a Service is Herald's to write.
type words struct {
	status    corev1.LoadBalancerStatus
	ready     said
	announced said
	finalizer bool
}

// said is what a condition says, whenever it began to.
type said struct {
	status          metav1.ConditionStatus
	reason, message string
}

func wordsOf(service *corev1.Service) words {
	of := func(kind string) said {
		if c := meta.FindStatusCondition(service.Status.Conditions, kind); c != nil {
			return said{c.Status, c.Reason, c.Message}
		}
		return said{}
	}
	return words{
		status: service.Status.LoadBalancer, finalizer: servicehelper.HasLBFinalizer(service),
		ready: of(v1alpha1.ServiceReady), announced: of(v1alpha1.ServiceAnnounced),
	}
}

func sameStatus(a, b *corev1.LoadBalancerStatus) bool { return equality.Semantic.DeepEqual(a, b) }

func (w *words) equal(o *words) bool {
	return w.ready == o.ready && w.announced == o.announced && w.finalizer == o.finalizer && sameStatus(&w.status, &o.status)
}

// contest is what is remembered of others that write over what Herald wrote into a Service. The zero value is calm.
type contest struct {
	uid types.UID
	// wrote is what Herald wrote last, nil if that is not known.
	wrote *words
	// count is how often that was written over, pending that it still is.
	count   int
	pending bool
	// last is when it was noticed, until when it is put right, corrected when that was done before.
	last, until, corrected time.Time
	// quiet is how long it has to stay as Herald wrote it.
	quiet time.Duration
	// rivals are the others, message says so. twin is that the other one is a controller like this one, with other words
	// about the same facts, as for a moment when the leader changes: that passes, and words about it would not.
	rivals  []string
	message string
	twin    bool
}

// see takes in a version of the Service that is not older than what Herald wrote.
func (c *contest) see(service *corev1.Service, now time.Time) {
	if c.uid != service.UID {
		*c = contest{uid: service.UID}
	}
	is := wordsOf(service)
	if c.wrote == nil {
		if c.count == 0 && is.ready.reason == string(v1alpha1.StatusContested) { // told by a controller before this one
			c.count, c.last, c.corrected, c.quiet, c.message = 2, now, now, quietLeast, is.ready.message
		}
		return
	}
	if c.wrote.equal(&is) {
		c.settle(now)
		return
	}
	if !c.pending {
		if c.settle(now); c.count == 0 {
			c.rivals, c.message = nil, ""
		}
		c.pending, c.last = true, now
		c.count++
		c.until = now.Add(c.delay())
		c.quiet = min(max(quietLeast, 2*now.Sub(c.corrected)), quietMost)
	}
	rival := rivalOf(service, c.wrote, &is)
	c.twin = rival == "" && is.ready.reason != "" && is.finalizer == c.wrote.finalizer && sameStatus(&is.status, &c.wrote.status)
	c.name(rival)
}

// agree ends a contest where the Service shows what Herald would write now, and that is not what this controller wrote last:
// a controller like this one has written it.
func (c *contest) agree(service *corev1.Service, status *corev1.LoadBalancerStatus) {
	if c.wrote == nil || status == nil {
		return
	}
	if is := wordsOf(service); sameStatus(status, &is.status) && !sameStatus(&c.wrote.status, &is.status) {
		*c = contest{uid: c.uid, wrote: &is}
	}
}

// settle ends a contest that nobody goes on with.
func (c *contest) settle(now time.Time) {
	c.pending = false
	switch {
	case now.Sub(c.last) >= contestMemory:
		c.count = 0
	case !c.stands(now):
		c.count = min(c.count, 1)
	}
}

// stands reports whether the contest is to be told of.
func (c *contest) stands(now time.Time) bool {
	return c.count > 1 && (c.pending || now.Before(c.corrected.Add(c.quiet)))
}

func (c *contest) delay() time.Duration {
	if c.count < 2 {
		return 0
	}
	delay := contestFirst
	for range c.count - 2 {
		if delay *= 2; delay >= contestLast {
			return contestLast
		}
	}
	return delay
}

// wait is how long it is until what others wrote over may be put right.
func (c *contest) wait(now time.Time) time.Duration {
	if !c.pending {
		return 0
	}
	return max(0, c.until.Sub(now))
}

// next is when the Service is to be looked at again, 0 is never.
func (c *contest) next(now time.Time) time.Duration {
	switch {
	case c.pending:
		return c.wait(now)
	case c.stands(now):
		return c.corrected.Add(c.quiet).Sub(now)
	}
	return 0
}

// name takes in who another writer is.
func (c *contest) name(rival string) {
	if rival != "" && !slices.Contains(c.rivals, rival) && len(c.rivals) < maxRivals {
		c.rivals = append(c.rivals, rival)
		c.message = ""
	}
	if c.message != "" {
		return
	}
	who := "Another controller"
	if len(c.rivals) > 0 {
		who = strings.Join(c.rivals, " and ")
	}
	c.message = who + " also writes what Herald writes into this Service, so nodes and clients may not find what Herald assigned. " +
		"Let only one controller serve the Service: turn the other one off, or create the Service with a loadBalancerClass of Herald's."
}

// verdict returns what the Service says: as long as others write over it, it is not Ready.
func (c *contest) verdict(v verdict, now time.Time) verdict {
	if !c.stands(now) || c.twin {
		return v
	}
	if v.ready {
		v.ready, v.reason = false, v1alpha1.StatusContested
	}
	v.message = strings.TrimSpace(v.message + " " + c.message)
	return v
}

// hold leaves in desired what others wrote over and is not to be put right yet. What Herald says anew is not held.
func (c *contest) hold(service, desired *corev1.Service, now time.Time) {
	if c.wrote == nil || c.wait(now) == 0 {
		return
	}
	is, want := wordsOf(service), wordsOf(desired)
	if sameStatus(&want.status, &c.wrote.status) {
		desired.Status.LoadBalancer = service.Status.LoadBalancer
	}
	if want.finalizer == c.wrote.finalizer && want.finalizer != is.finalizer {
		desired.Finalizers = service.Finalizers
	}
	if want.ready == c.wrote.ready && want.announced == c.wrote.announced {
		desired.Status.Conditions = service.Status.Conditions
	}
}

// written takes in that Herald wrote the Service. What it left as others wrote it stays to be put right.
func (c *contest) written(before, after *corev1.Service, now time.Time) {
	was, is := wordsOf(before), wordsOf(after)
	if c.wrote == nil {
		c.wrote = &is
		c.corrected = now
		return
	}
	wrote := *c.wrote
	if !sameStatus(&was.status, &is.status) {
		wrote.status = is.status
	}
	if was.finalizer != is.finalizer {
		wrote.finalizer = is.finalizer
	}
	if was.ready != is.ready || was.announced != is.announced {
		wrote.ready, wrote.announced = is.ready, is.announced
	}
	c.wrote = &wrote
	if c.pending && wrote.equal(&is) {
		c.pending, c.corrected = false, now
	}
}

// refused takes in that the API server knows a newer version than the one that was to be written: where another one
// writes without pause, Herald does not try as often.
func (c *contest) refused(now time.Time) {
	if c.pending {
		c.until = now.Add(max(contestFirst, c.delay()))
	}
}

// stays takes in that there is nothing to write.
func (c *contest) stays(service *corev1.Service) {
	if c.wrote == nil {
		is := wordsOf(service)
		c.wrote = &is
	}
}

// contestOf returns the contest about a Service, which only the worker that has the Service touches.
func (c *Controller) contestOf(key types.NamespacedName) *contest {
	c.mu.Lock()
	defer c.mu.Unlock()
	return &c.paceOf(key).contest
}

// calm ends the contest about a Service that is not Herald's, or no longer.
func (c *Controller) calm(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if pace := c.paces[key]; pace != nil {
		pace.contest = contest{}
	}
}

// recall has the Service looked at when its contest has come further.
func (c *Controller) recall(key types.NamespacedName, contest *contest) {
	if rest := contest.next(time.Now()); rest > 0 {
		c.queue.AddAfter(key, rest)
	}
}
