package baremetal

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// secretLength is how many bytes the key of the speakers has.
const secretLength = 32

// secretInformer watches the one Secret of that name: the controller may read no
// other.
func secretInformer(client kubernetes.Interface, namespace, name string) (cache.SharedIndexInformer, error) {
	informer := coreinformers.NewFilteredSecretInformer(client, namespace, 0, cache.Indexers{}, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()
	})
	err := informer.SetWatchErrorHandlerWithContext(func(ctx context.Context, r *cache.Reflector, err error) {
		if !apierrors.IsForbidden(err) { // reconcileSecret tells of it
			cache.DefaultWatchErrorHandler(ctx, r, err)
		}
	})
	if err != nil {
		return nil, err
	}
	// What is in it is nobody's to remember.
	err = informer.SetTransform(func(object any) (any, error) {
		if secret, ok := object.(*corev1.Secret); ok {
			return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
				Namespace: secret.Namespace, Name: secret.Name, UID: secret.UID, ResourceVersion: secret.ResourceVersion,
			}}, nil
		}
		return object, nil
	})
	return informer, err
}

// watchSecret has the Secret looked at when it has changed, until ctx is done.
// That it cannot be watched keeps nobody from working.
func (p *Provider) watchSecret(ctx context.Context) error {
	_, err := p.secret.AddEventHandler(cache.ResourceEventHandlerFuncs{
		UpdateFunc: func(any, any) { p.secrets.Add(v1alpha1.BFDSecret) },
		DeleteFunc: func(any) { p.secrets.Add(v1alpha1.BFDSecret) },
	})
	if err != nil {
		return fmt.Errorf("watching Secret %s/%s: %w", p.Namespace, v1alpha1.BFDSecret, err)
	}
	p.running.Go(func() { p.secret.RunWithContext(ctx) })
	return nil
}

// reconcileSecret makes the Secret by which speakers know each other, if there
// is none. It never changes one.
func (p *Provider) reconcileSecret(ctx context.Context, name string) error {
	secrets := p.Client.CoreV1().Secrets(p.Namespace)
	secret, err := secrets.Get(ctx, name, metav1.GetOptions{})
	if err == nil && len(secret.Data[v1alpha1.BFDSecretKey]) == 0 {
		return fmt.Errorf("secret %s/%s has no %q: delete it, and it is made anew", p.Namespace, name, v1alpha1.BFDSecretKey)
	}
	if err == nil {
		return nil
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("reading Secret %s/%s: %w", p.Namespace, name, err)
	}
	key := make([]byte, secretLength)
	_, _ = rand.Read(key) // never fails
	_, err = secrets.Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: name},
		Type:       corev1.SecretTypeOpaque,
		Data:       map[string][]byte{v1alpha1.BFDSecretKey: key},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("creating Secret %s/%s: %w", p.Namespace, name, err)
	}
	return nil
}
