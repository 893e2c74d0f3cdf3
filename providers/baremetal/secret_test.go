package baremetal

import (
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// secret is the key of the speakers, "" if there is none.
func (w *world) secret() string {
	secret, err := w.kube.CoreV1().Secrets("herald-system").Get(w.ctx, v1alpha1.BFDSecret, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	return string(secret.Data[v1alpha1.BFDSecretKey])
}

func TestSecretIsMadeOnce(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		_, stop := w.controller()
		w.until("length", "32", func() string { return strconv.Itoa(len(w.secret())) })
		key := w.secret()
		stop()
		w.controller()
		w.rest()
		if w.secret() != key {
			w.Error("it was changed")
		}
		writes := slices.DeleteFunc(w.api.Writes(), func(write string) bool { return !strings.Contains(write, "secrets/") })
		if want := []string{"create secrets/herald-system/herald-bfd"}; !slices.Equal(writes, want) {
			w.Errorf("writes %q, want %q", writes, want)
		}
		other := newWorld(w.T)
		other.controller()
		other.until("another cluster has another key", "true", func() string {
			made := other.secret()
			return strconv.FormatBool(made != "" && made != key)
		})
	})
}

func TestSecretOfSomebodyIsKept(t *testing.T) {
	t.Parallel()
	for name, data := range map[string]map[string][]byte{"a key": {v1alpha1.BFDSecretKey: []byte("theirs")}, "no key": {"x": []byte("y")}} {
		inWorld(t, func(w *world) {
			must(w, first(w.kube.CoreV1().Secrets("herald-system").Create(w.ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.BFDSecret}, Data: data,
			}, metav1.CreateOptions{})))
			before := len(w.api.Writes())
			w.controller()
			if writes := w.rest(); len(writes) > before {
				w.Errorf("%s: written %q", name, writes[before:])
			}
		})
	}
}

// Without the right to it, all else goes on, and it is made once there is one.
func TestSecretIsForbidden(t *testing.T) {
	t.Parallel()
	inWorld(t, func(w *world) {
		var allow atomic.Bool
		w.api.Before = func(request string) error {
			if strings.Contains(request, "secrets") && !allow.Load() {
				return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, v1alpha1.BFDSecret, nil)
			}
			return nil
		}
		w.pool("public", nil, "203.0.113.17/32")
		w.controller()
		w.create(lb("web"))
		w.untilService("web", "203.0.113.17 AddressAssigned")
		allow.Store(true)
		w.until("length", "32", func() string { return strconv.Itoa(len(w.secret())) })
	})
}

// It is made again when it is deleted or its key is taken out and it is deleted then, and the one Secret alone is read.
func TestSecretIsMadeAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		var others atomic.Int32
		w.api.Before = func(request string) error {
			if strings.Contains(request, "secrets") && strings.HasPrefix(request, "get") && !strings.HasSuffix(request, "/"+v1alpha1.BFDSecret) {
				others.Add(1)
			}
			return nil
		}
		w.controller()
		for range 3 {
			w.until("length", "32", func() string { return strconv.Itoa(len(w.secret())) })
			key := w.secret()
			must(w, w.kube.CoreV1().Secrets("herald-system").Delete(w.ctx, v1alpha1.BFDSecret, metav1.DeleteOptions{}))
			start := time.Now()
			w.until("another key", "true", func() string {
				made := w.secret()
				return strconv.FormatBool(made != "" && made != key)
			})
			if took := time.Since(start); took > time.Second {
				t.Errorf("made again after %v", took)
			}
		}
		w.rest()
		creates := slices.DeleteFunc(w.api.Writes(), func(write string) bool { return write != "create secrets/herald-system/herald-bfd" })
		if len(creates) != 4 || others.Load() > 0 {
			t.Errorf("created %d times, want 4; %d other Secrets read", len(creates), others.Load())
		}
	})
}
