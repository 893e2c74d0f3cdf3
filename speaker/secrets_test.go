package speaker

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"

	"github.com/heraldlb/herald/internal/fakeapi"
)

// withholding answers as RBAC does for Secrets that are asked for other than by an allowed name.
type withholding struct {
	http.RoundTripper
	allowed atomic.Pointer[string]
	refused atomic.Int32
}

func (w *withholding) RoundTrip(r *http.Request) (*http.Response, error) {
	name, byName := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	if r.Method != http.MethodGet || byName && strings.Contains(*w.allowed.Load(), name) {
		return w.RoundTripper.RoundTrip(r)
	}
	w.refused.Add(1)
	return nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, name, nil)
}

func TestSecretsAreWatchedOneByOne(t *testing.T) {
	ctx, cancel := context.WithCancel(quiet(t))
	gate := &withholding{}
	allow := func(names string) { gate.allowed.Store(&names) }
	allow("herald-bfd herald-bgp")
	config := fakeapi.New(t).Config()
	config.Wrap(func(inner http.RoundTripper) http.RoundTripper {
		gate.RoundTripper = inner
		return gate
	})
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	var heard atomic.Int32
	watches := newSecretWatches(kube, "herald-system", func() { heard.Add(1) })
	ended := make(chan struct{})
	go func() { watches.run(ctx); close(ended) }()
	defer func() { cancel(); <-ended }()

	create := func(name string) {
		t.Helper()
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"password": []byte(name)}}
		if _, err := kube.CoreV1().Secrets("herald-system").Create(ctx, secret, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually := func(what string, is func() bool) {
		t.Helper()
		for start := time.Now(); !is(); time.Sleep(5 * time.Millisecond) {
			if time.Since(start) > time.Minute {
				t.Fatalf("not within a minute: %s", what)
			}
		}
	}
	create("herald-bfd")
	create("withheld")
	wanted := map[string]bool{"herald-bfd": true, "herald-bgp": true, "withheld": true}
	if err := watches.want(wanted); err != nil {
		t.Fatal(err)
	}
	eventually("all are known, the withheld one too", func() bool { return watches.known(wanted) })
	for _, fact := range []struct {
		name              string
		exists, forbidden bool
	}{{"herald-bfd", true, false}, {"herald-bgp", false, false}, {"withheld", false, true}, {"nobody names it", false, false}} {
		data, exists, forbidden := watches.get(fact.name)
		if exists != fact.exists || forbidden != fact.forbidden || exists && string(data["password"]) != fact.name {
			t.Errorf("%s: %v, exists %t, forbidden %t", fact.name, data, exists, forbidden)
		}
	}
	if watches.known(map[string]bool{"nobody names it": true}) {
		t.Error("a Secret is known that nobody has asked for")
	}

	before := heard.Load()
	create("herald-bgp")
	eventually("a Secret that is made is heard of", func() bool { _, exists, _ := watches.get("herald-bgp"); return exists && heard.Load() > before })
	if n := gate.refused.Load(); n > 10 {
		t.Errorf("a withheld Secret was asked for %d times", n)
	}
	allow("herald-bfd herald-bgp withheld")
	eventually("a Secret that is allowed later is read", func() bool { _, exists, forbidden := watches.get("withheld"); return exists && !forbidden })

	if err := watches.want(map[string]bool{"herald-bfd": true}); err != nil {
		t.Fatal(err)
	}
	if _, exists, _ := watches.get("herald-bgp"); exists || watches.known(wanted) {
		t.Error("a Secret that nobody names any more is kept")
	}
}
