package e2e

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// The key of the speakers is made again when it is deleted, and they watch each other with the new one.
func TestTheKeyOfTheSpeakersIsMadeAgain(t *testing.T) {
	w := newWorld(t)
	secrets := kube.CoreV1().Secrets("herald-system")
	old, err := secrets.Get(w.ctx, v1alpha1.BFDSecret, metav1.GetOptions{})
	w.must(err)
	w.must(secrets.Delete(w.ctx, v1alpha1.BFDSecret, metav1.DeleteOptions{}))
	w.quickly("there is another key", 5*time.Second, func() error {
		made, err := secrets.Get(w.ctx, v1alpha1.BFDSecret, metav1.GetOptions{})
		if err == nil && (made.UID == old.UID || len(made.Data[v1alpha1.BFDSecretKey]) == 0 || bytes.Equal(made.Data[v1alpha1.BFDSecretKey], old.Data[v1alpha1.BFDSecretKey])) {
			err = fmt.Errorf("it is the old one, or empty")
		}
		return err
	})
	w.dualPool()
	w.pods("web", box.Nodes()...)
	w.service("web", nil)
	w.reachable(w.address("web"))
	for _, node := range box.Nodes() {
		w.eventually("speaker "+node+" is watched", func() error {
			speaker, err := herald.Speakers.Get(w.ctx, node, metav1.GetOptions{})
			w.must(err)
			if c := meta.FindStatusCondition(speaker.Status.Conditions, v1alpha1.ConditionWatched); c == nil || c.Status != metav1.ConditionTrue {
				return fmt.Errorf("condition %+v", c)
			}
			return nil
		})
	}
}
