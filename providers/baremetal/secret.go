package baremetal

import (
	"context"
	"crypto/rand"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// secretLength is how many bytes the key of the speakers has.
const secretLength = 32

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
