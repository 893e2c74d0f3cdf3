package fakeapi

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/client"
)

func TestRules(t *testing.T) {
	ctx, s := t.Context(), New(t)
	clients, err := client.New(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	vips := clients.VirtualIPs
	made, err := vips.Create(ctx, &v1alpha1.VirtualIP{ObjectMeta: metav1.ObjectMeta{Name: "203.0.113.17"}, Status: v1alpha1.VirtualIPStatus{Owner: "x"}}, metav1.CreateOptions{})
	if err != nil || made.UID == "" || made.ResourceVersion == "" || made.Generation != 1 || made.Status.Owner != "" {
		t.Fatalf("created %+v, %v", made, err)
	}
	if _, err := vips.Create(ctx, made, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("created twice: %v", err)
	}
	edit := made.DeepCopy()
	edit.Spec.Pool, edit.Status.Owner = "public", "x"
	edited, err := vips.Update(ctx, edit, metav1.UpdateOptions{})
	if err != nil || edited.Generation != 2 || edited.Spec.Pool != "public" || edited.Status.Owner != "" {
		t.Errorf("updated %+v, %v", edited, err)
	}
	if _, err := vips.Update(ctx, made, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("updated by an old version: %v", err)
	}
	if again, err := vips.Update(ctx, edited, metav1.UpdateOptions{}); err != nil || again.ResourceVersion != edited.ResourceVersion {
		t.Errorf("updated with nothing: %v, %v", again, err)
	}
	edit = edited.DeepCopy()
	edit.Spec.Pool, edit.Status.Owner = "other", "a"
	owned, err := vips.UpdateStatus(ctx, edit, metav1.UpdateOptions{})
	if err != nil || owned.Status.Owner != "a" || owned.Spec.Pool != "public" || owned.Generation != 2 {
		t.Errorf("status updated %+v, %v", owned, err)
	}
	other := types.UID("other")
	for name, p := range map[string]*metav1.Preconditions{"UID": {UID: &other}, "version": {ResourceVersion: &made.ResourceVersion}} {
		if err := vips.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: p}); !apierrors.IsConflict(err) {
			t.Errorf("deleted although the %s is another: %v", name, err)
		}
	}
	if err := vips.Delete(ctx, made.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &made.UID, ResourceVersion: &owned.ResourceVersion}}); err != nil {
		t.Errorf("deleted: %v", err)
	}
	if _, err := vips.Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("read after its deletion: %v", err)
	}
	want := []string{"create virtualips/203.0.113.17", "update virtualips/203.0.113.17", "update virtualips/203.0.113.17/status", "delete virtualips/203.0.113.17"}
	if diff := cmp.Diff(want, s.Writes()); diff != "" {
		t.Errorf("writes: -want +got\n%s", diff)
	}
}

func TestInformersHearEverything(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s := New(t)
	clients, err := client.New(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	create := func(name string) *v1alpha1.AddressPool {
		pool, err := clients.AddressPools.Create(ctx, &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return pool
	}
	create("before")
	informer := client.Informer(clients.AddressPools, &v1alpha1.AddressPool{})
	heard := make(chan string, 10)
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { heard <- "added " + o.(*v1alpha1.AddressPool).Name },
		UpdateFunc: func(_, o any) { heard <- "changed " + o.(*v1alpha1.AddressPool).Name },
		DeleteFunc: func(o any) { heard <- "deleted " + o.(*v1alpha1.AddressPool).Name },
	}); err != nil {
		t.Fatal(err)
	}
	go informer.RunWithContext(ctx)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-heard:
			if got != want {
				t.Fatalf("heard %q, want %q", got, want)
			}
		case <-ctx.Done():
			t.Fatalf("heard nothing, want %q", want)
		}
	}
	next("added before")
	pool := create("after")
	next("added after")
	pool.Spec.Priority = 1
	if _, err := clients.AddressPools.Update(ctx, pool, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	next("changed after")
	if err := clients.AddressPools.Delete(ctx, "before", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	next("deleted before")
}

func TestPatchOfServiceStatus(t *testing.T) {
	ctx, s := t.Context(), New(t)
	kube, err := kubernetes.NewForConfig(s.Config())
	if err != nil {
		t.Fatal(err)
	}
	services := kube.CoreV1().Services("shop")
	made, err := services.Create(ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	body := `{"metadata":{"uid":"` + string(made.UID) + `"},"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.17"}]}}}`
	patched, err := services.Patch(ctx, "web", types.StrategicMergePatchType, []byte(body), metav1.PatchOptions{}, "status")
	if err != nil || len(patched.Status.LoadBalancer.Ingress) != 1 {
		t.Errorf("patched %+v, %v", patched, err)
	}
	if _, err := services.Patch(ctx, "web", types.StrategicMergePatchType, []byte(`{"metadata":{"uid":"other"},"status":{}}`), metav1.PatchOptions{}, "status"); !apierrors.IsConflict(err) {
		t.Errorf("patched although the UID is another: %v", err)
	}
}
