package speaker

import (
	"context"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// secretWatches watch Secrets of Herald's namespace one by one, by name: a speaker may read only those that its Role lists. One
// that is withheld does not stop the others. It is asked for again with the informer's backoff, every 30 to 60 seconds in the end.
type secretWatches struct {
	client kubernetes.Interface
	of     typedcorev1.SecretInterface
	heard  func() // that something has changed

	mu      sync.Mutex
	ctx     context.Context // of run; nil before it
	running sync.WaitGroup
	byName  map[string]*secretWatch
}

// secretWatch watches one Secret.
type secretWatch struct {
	informer cache.SharedIndexInformer
	stop     context.CancelFunc // nil before it runs

	mu        sync.Mutex
	forbidden bool // as of the last request
}

func newSecretWatches(client kubernetes.Interface, namespace string, heard func()) *secretWatches {
	return &secretWatches{client: client, of: client.CoreV1().Secrets(namespace), heard: heard, byName: map[string]*secretWatch{}}
}

// run watches what is wanted until ctx is done.
func (w *secretWatches) run(ctx context.Context) {
	w.mu.Lock()
	w.ctx = ctx
	for _, one := range w.byName {
		w.startLocked(one) //nolint:contextcheck // it takes the context that is kept just above
	}
	w.mu.Unlock()
	<-ctx.Done()
	w.running.Wait()
}

// want changes which Secrets are watched.
func (w *secretWatches) want(names map[string]bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.byName, func(name string, one *secretWatch) bool {
		if !names[name] && one.stop != nil {
			one.stop()
		}
		return !names[name]
	})
	for name := range names {
		if w.byName[name] != nil {
			continue
		}
		one, err := w.watch(name)
		if err != nil {
			return err
		}
		w.byName[name] = one
		w.startLocked(one)
	}
	return nil
}

// startLocked starts one watch if run has begun and has not ended; the caller holds the lock.
func (w *secretWatches) startLocked(one *secretWatch) {
	if w.ctx == nil || w.ctx.Err() != nil {
		return
	}
	ctx, stop := context.WithCancel(w.ctx)
	one.stop = stop
	w.running.Go(func() { one.informer.RunWithContext(ctx) })
}

// watch prepares to watch the Secret of that name.
func (w *secretWatches) watch(name string) (*secretWatch, error) {
	one := &secretWatch{}
	only := func(options metav1.ListOptions) metav1.ListOptions {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
		return options
	}
	lists := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := w.of.List(ctx, only(options))
			w.answered(ctx, one, name, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := w.of.Watch(ctx, only(options))
			w.answered(ctx, one, name, err)
			return events, err
		},
	}, w.client)
	one.informer = cache.NewSharedIndexInformer(lists, &corev1.Secret{}, 0, cache.Indexers{})
	if err := one.informer.SetTransform(lean); err != nil {
		return nil, err
	}
	err := one.informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		if !apierrors.IsForbidden(err) { // which has been told once
			cache.DefaultWatchErrorHandler(ctx, r, err)
		}
	})
	if err != nil {
		return nil, err
	}
	heard := func(any) { w.heard() }
	_, err = one.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: heard, UpdateFunc: func(_, after any) { heard(after) }, DeleteFunc: heard,
	})
	return one, err
}

// answered notes whether the API server lets us read the Secret.
func (w *secretWatches) answered(ctx context.Context, one *secretWatch, name string, err error) {
	forbidden := apierrors.IsForbidden(err)
	if err != nil && !forbidden {
		return
	}
	one.mu.Lock()
	changed := one.forbidden != forbidden
	one.forbidden = forbidden
	one.mu.Unlock()
	if !changed {
		return
	}
	if forbidden {
		klog.FromContext(ctx).Error(err, "A Secret may not be read, will ask again now and then", "secret", name)
	}
	w.heard()
}

// get returns the data of a Secret; forbidden reports whether RBAC withholds it. What was read once is known until it is heard
// to be deleted.
func (w *secretWatches) get(name string) (data map[string][]byte, exists, forbidden bool) {
	w.mu.Lock()
	one := w.byName[name]
	w.mu.Unlock()
	if one == nil {
		return nil, false, false
	}
	if items := one.informer.GetStore().List(); len(items) > 0 {
		return items[0].(*corev1.Secret).Data, true, false
	}
	return nil, false, one.withheld()
}

func (one *secretWatch) withheld() bool {
	one.mu.Lock()
	defer one.mu.Unlock()
	return one.forbidden
}

// known reports whether the API server has answered for each of the Secrets.
func (w *secretWatches) known(names map[string]bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range names {
		if one := w.byName[name]; one == nil || !one.informer.HasSynced() && !one.withheld() {
			return false
		}
	}
	return true
}
