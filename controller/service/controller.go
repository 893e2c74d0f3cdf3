// Package service is the service controller of a cloud controller manager, in
// place of the stock one: it chooses a provider for each Service by its
// loadBalancerClass, has the provider serve it, and writes the outcome into
// the Service's status with the reason.
package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Starter is a provider that has work of its own. Start returns when the
// provider knows what it holds; until ctx is done it calls wake for each
// Service that is worth another look: one it holds something for, and one
// whose obstacle is gone. serves reports whether a Service is the provider's to
// serve: what any other Service shows in its status, somebody else gave it.
type Starter interface {
	Start(ctx context.Context, wake func(service types.NamespacedName), serves func(service *corev1.Service) bool) error
}

// Waiter is a Starter whose work takes a while to end. Wait returns when it has
// ended, after the context of Start is done.
type Waiter interface{ Wait() }

// Explainer is a provider that can say more of what it did for a Service than
// its status does, and that it is not enough. An empty reason leaves the usual
// words.
type Explainer interface {
	Explain(service *corev1.Service) (ready bool, reason v1alpha1.Reason, message string)
}

// Announcer is a provider whose addresses have to be announced. Announced says
// whether all addresses that the Service has are, and by whom, or why not; an
// empty status says nothing, as the Service has none. The Service is woken when
// that changes.
type Announcer interface {
	Announced(service *corev1.Service) (status metav1.ConditionStatus, reason v1alpha1.Reason, message string)
}

// Options of a Controller.
type Options struct {
	Client      kubernetes.Interface
	Informers   informers.SharedInformerFactory
	Recorder    record.EventRecorder
	Classes     Classes
	ClusterName string
	// Workers is how many Services are worked on at a time.
	Workers int
	// Releasing has every Service released: Herald is being removed.
	Releasing bool
}

// Controller gives each Service of ours a load balancer.
type Controller struct {
	Options
	services cache.SharedIndexInformer
	lister   corelisters.ServiceLister
	nodes    corelisters.NodeLister
	synced   []cache.InformerSynced
	queue    workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu sync.Mutex
	// written is our last write to each Service that the cache may not have yet.
	// To decide by an older one would write twice.
	written map[types.NamespacedName]write
	paces   map[types.NamespacedName]*pace
}

// write is when a Service was written, and its resource version since then.
type write struct {
	version string
	at      time.Time
}

// behindMost is how long the cache may take to have a write: it has none that
// was lost when etcd was restored from a backup.
const behindMost = 10 * time.Second

// Waits between two attempts at a Service that fails.
const (
	retryFirst = 50 * time.Millisecond
	retryLast  = time.Minute
)

// New returns a Controller; it registers the informers that it needs.
func New(options Options) *Controller {
	services, nodes := options.Informers.Core().V1().Services(), options.Informers.Core().V1().Nodes()
	return &Controller{
		Options:  options,
		services: services.Informer(),
		lister:   services.Lister(),
		nodes:    nodes.Lister(),
		synced:   []cache.InformerSynced{services.Informer().HasSynced, nodes.Informer().HasSynced},
		queue: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](retryFirst, retryLast),
			workqueue.TypedRateLimitingQueueConfig[types.NamespacedName]{Name: "service"}),
		written: map[types.NamespacedName]write{},
		paces:   map[types.NamespacedName]*pace{},
	}
}

// Run works until ctx is done. It returns when all work has ended, that of the
// providers too.
func (c *Controller) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.wait()
	defer cancel()
	defer c.queue.ShutDown()
	if !cache.WaitForNamedCacheSyncWithContext(ctx, c.synced...) {
		return ctx.Err()
	}
	for provider := range c.providers() {
		starter, ok := provider.(Starter)
		if !ok {
			continue
		}
		serves := func(service *corev1.Service) bool {
			class, ours := c.Classes.Of(service)
			return ours && class.Provider == provider
		}
		if err := starter.Start(ctx, c.queue.Add, serves); err != nil {
			return fmt.Errorf("starting a provider: %w", err)
		}
	}
	registration, err := c.services.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: c.changed,
		UpdateFunc: func(before, after any) {
			c.updated(before.(*corev1.Service), after.(*corev1.Service))
		},
		DeleteFunc: c.changed,
	})
	if err != nil {
		return fmt.Errorf("watching Services: %w", err)
	}
	defer func() { _ = c.services.RemoveEventHandler(registration) }()

	done := make(chan struct{})
	for range c.Workers {
		go func() {
			defer func() { done <- struct{}{} }()
			for c.next(ctx) {
			}
		}()
	}
	klog.FromContext(ctx).Info("Serving Services", "workers", c.Workers)
	<-ctx.Done()
	c.queue.ShutDown()
	for range c.Workers {
		<-done
	}
	return nil
}

// wait returns when the providers' own work has ended.
func (c *Controller) wait() {
	for provider := range c.providers() {
		if waiter, ok := provider.(Waiter); ok {
			waiter.Wait()
		}
	}
}

// providers yields each provider once.
func (c *Controller) providers() map[cloudprovider.LoadBalancer]bool {
	all := map[cloudprovider.LoadBalancer]bool{}
	for _, class := range c.Classes.ByName {
		if class.Provider != nil {
			all[class.Provider] = true
		}
	}
	return all
}

func (c *Controller) changed(object any) {
	key, err := cache.DeletionHandlingObjectToName(object)
	if err != nil {
		return
	}
	c.queue.Add(types.NamespacedName{Namespace: key.Namespace, Name: key.Name})
}

// updated has a Service looked at that is not what it was. An older version than
// before comes from a backup: then nothing that was written since counts.
func (c *Controller) updated(before, after *corev1.Service) {
	if before.ResourceVersion == after.ResourceVersion {
		return
	}
	if older(after.ResourceVersion, before.ResourceVersion) {
		c.mu.Lock()
		clear(c.written)
		c.mu.Unlock()
	}
	c.changed(after)
}

// older reports whether a resource version is older than another one. What
// cannot be compared is not.
func older(version, than string) bool {
	order, err := resourceversion.CompareResourceVersion(version, than)
	return err == nil && order < 0
}

func (c *Controller) next(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)

	logger := klog.FromContext(ctx).WithValues("service", klog.KRef(key.Namespace, key.Name))
	start := time.Now()
	err := c.sync(klog.NewContext(ctx, logger), key)
	observe(time.Since(start), err)
	if retry, ok := errors.AsType[*api.RetryError](err); ok {
		c.queue.Forget(key)
		c.queue.AddAfter(key, retry.RetryAfter())
		return true
	}
	if err != nil && ctx.Err() == nil {
		logger.Error(err, "Service failed, will be tried again")
		c.queue.AddRateLimited(key)
		return true
	}
	c.queue.Forget(key)
	return true
}

// sync brings one Service, or what is left of it, to where it should be.
func (c *Controller) sync(ctx context.Context, key types.NamespacedName) error {
	service, err := c.lister.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.forget(key)
		gone := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		h, err := c.survey(ctx, gone, nil)
		if err != nil {
			return err
		}
		return c.giveBack(ctx, gone, h)
	}
	if err != nil {
		return err
	}
	if rest := c.behind(key, service, time.Now()); rest > 0 {
		c.queue.AddAfter(key, rest) // the cache is about to call us before
		return nil
	}
	class, ours := c.Classes.Of(service)
	if !ours || service.DeletionTimestamp != nil || c.Releasing {
		return c.release(ctx, service)
	}
	others, err := c.survey(ctx, service, class.Provider)
	if err != nil {
		return err
	}
	if err := c.giveBack(ctx, service, others); err != nil {
		return err
	}
	if err := c.ensure(ctx, service, class.Provider); err != nil {
		return err
	}
	c.remind(key, service)
	return nil
}

// ensure has the provider serve the Service and writes down the outcome. A
// refusal is an outcome; other errors are returned, to be tried again.
func (c *Controller) ensure(ctx context.Context, service *corev1.Service, provider cloudprovider.LoadBalancer) error {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return err
	}
	known := service
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	contest := c.contestOf(key)
	contest.see(service, time.Now())
	if _, outside := provider.(Outsider); outside {
		if desired, changed := guarded(service, metav1.Now()); changed {
			if rest := contest.wait(time.Now()); rest > 0 {
				c.queue.AddAfter(key, rest)
				return nil
			}
			if service, err = c.patch(ctx, service, desired); err != nil || service == nil {
				return err
			}
		}
	}
	// The provider sees the Service as it was: without the finalizer until now,
	// it has nothing there, and nobody needs to look.
	status, err := provider.EnsureLoadBalancer(ctx, c.ClusterName, known, nodes)
	_, waits := errors.AsType[*api.RetryError](err)
	if waits && status == nil {
		return err
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return nil
	}
	failure := err
	if waits {
		failure = nil // it is served; something else remains to be done
	}
	verdict := judge(status, failure)
	if explainer, ok := provider.(Explainer); ok && failure == nil {
		if ready, reason, message := explainer.Explain(service); reason != "" {
			verdict.ready, verdict.reason, verdict.message = ready, reason, message
		}
	}
	if announcer, ok := provider.(Announcer); ok {
		verdict.announced.status, verdict.announced.reason, verdict.announced.message = announcer.Announced(service)
	}
	_, refused := errors.AsType[*v1alpha1.Refusal](err)
	if failure != nil && !refused && hasAll(service) {
		return err // it has what it asks for, and a passing fault is no news
	}
	written := c.write(ctx, service, status, verdict, !marked(known))
	if refused {
		err = nil
	}
	return errors.Join(err, written)
}

func isReady(service *corev1.Service) bool {
	return meta.IsStatusConditionTrue(service.Status.Conditions, v1alpha1.ServiceReady)
}

// hasAll reports whether a Service has what it asks for, as far as that is for
// the provider to give.
func hasAll(service *corev1.Service) bool {
	ready := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	return isReady(service) || isUnannounced(service) || ready != nil && ready.Reason == string(v1alpha1.StatusContested)
}

// write brings the verdict into the Service's status, and tells it as an event
// when it is news. first says that there was none before.
func (c *Controller) write(ctx context.Context, service *corev1.Service, status *corev1.LoadBalancerStatus, v verdict, first bool) error {
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	contest := c.contestOf(key)
	first = first && contest.wrote == nil
	contest.agree(service, status)
	v = contest.verdict(v, time.Now())
	v.message = v1alpha1.Cut(v.message, v1alpha1.MaxMessage)
	desired, changed := served(service, status, v, metav1.Now())
	if changed {
		contest.hold(service, desired, time.Now())
	}
	if equality.Semantic.DeepEqual(service, desired) {
		contest.stays(service)
		c.recall(key, contest)
		return nil
	}
	if rest := c.postpone(key, service, desired, v); rest > 0 {
		c.queue.AddAfter(key, rest)
		return nil
	}
	patched, err := c.patch(ctx, service, desired)
	c.recall(key, contest)
	if err != nil || patched == nil {
		return err
	}
	if v.announcementAlone(service, desired) {
		c.paced(key)
	}
	if first && v.ready {
		c.tellTakeover(service, desired)
	}
	for _, n := range v.news(service) {
		c.Recorder.Event(service, n.kind, string(n.reason), n.message)
	}
	return nil
}

// tellTakeover tells what became of a status that was there before us.
func (c *Controller) tellTakeover(before, after *corev1.Service) {
	old, now := join(&before.Status.LoadBalancer), join(&after.Status.LoadBalancer)
	switch {
	case old == "":
	case old == now:
		c.Recorder.Eventf(before, corev1.EventTypeNormal, string(v1alpha1.AddressAdopted), "The status showed %s before: Herald serves it from now on.", old)
	case now != "":
		c.Recorder.Eventf(before, corev1.EventTypeNormal, string(v1alpha1.AddressReplaced), "The status showed %s before, which is not Herald's to keep: %s replaces it.", old, now)
	}
}

// patch writes the difference between the finalizers and the statuses, in one
// request, and returns the Service after it. It is for this very Service as we
// know it: what was decided for an older one, or for one of the same name, is
// not written, and the newer one decided about anew; then there is nothing to
// return.
func (c *Controller) patch(ctx context.Context, service, desired *corev1.Service) (*corev1.Service, error) {
	before := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Finalizers: service.Finalizers}, Status: service.Status}
	after := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{UID: service.UID, ResourceVersion: service.ResourceVersion, Finalizers: desired.Finalizers},
		Status:     desired.Status,
	}
	beforeJSON, err := json.Marshal(before)
	if err != nil {
		return nil, err
	}
	afterJSON, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(beforeJSON, afterJSON, &corev1.Service{})
	if err != nil {
		return nil, err
	}
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	contest, options := c.contestOf(key), metav1.PatchOptions{FieldManager: fieldManager}
	patched, err := c.Client.CoreV1().Services(service.Namespace).Patch(ctx, service.Name, types.StrategicMergePatchType, patch, options, "status")
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		contest.refused(time.Now())
		return nil, nil // changed meanwhile: that is on its way to us
	}
	if err != nil {
		return nil, fmt.Errorf("writing the status of Service %s/%s: %w", service.Namespace, service.Name, err)
	}
	contest.written(service, patched, time.Now())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.written[key] = write{patched.ResourceVersion, time.Now()}
	return patched, nil
}

// behind returns how long to wait for the cache, which may have a Service that
// is older than our last write to it.
func (c *Controller) behind(key types.NamespacedName, cached *corev1.Service, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	written, ok := c.written[key]
	if !ok {
		return 0
	}
	if rest := written.at.Add(behindMost).Sub(now); rest > 0 && older(cached.ResourceVersion, written.version) {
		return rest
	}
	delete(c.written, key)
	return 0
}

func (c *Controller) forget(key types.NamespacedName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.written, key)
	delete(c.paces, key)
}
