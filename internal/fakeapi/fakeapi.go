// Package fakeapi is an API server in memory, for tests. It speaks HTTP to real
// clients and informers, and keeps the rules on which those who write at once
// rely: names are taken once, a write by an old version is a conflict, so is a
// precondition that does not hold, and who watches hears everything in order.
// Its connections are in memory too, so a test with it may be in a bubble of
// testing/synctest.
package fakeapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/rest"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// kinds are the resources that there are, with an example of each.
var kinds = map[schema.GroupVersionResource]struct {
	kind    string
	example any
}{
	core("services"):   {"Service", &corev1.Service{}},
	core("nodes"):      {"Node", &corev1.Node{}},
	core("namespaces"): {"Namespace", &corev1.Namespace{}},
	core("secrets"):    {"Secret", &corev1.Secret{}},
	discoveryv1.SchemeGroupVersion.WithResource("endpointslices"): {"EndpointSlice", &discoveryv1.EndpointSlice{}},
	coordinationv1.SchemeGroupVersion.WithResource("leases"):      {"Lease", &coordinationv1.Lease{}},
	networkingv1.SchemeGroupVersion.WithResource("servicecidrs"):  {"ServiceCIDR", &networkingv1.ServiceCIDR{}},
	v1alpha1.GroupVersion.WithResource("addresspools"):            {"AddressPool", &v1alpha1.AddressPool{}},
	v1alpha1.GroupVersion.WithResource("virtualips"):              {"VirtualIP", &v1alpha1.VirtualIP{}},
	v1alpha1.GroupVersion.WithResource("advertisements"):          {"Advertisement", &v1alpha1.Advertisement{}},
	v1alpha1.GroupVersion.WithResource("bgppeers"):                {"BGPPeer", &v1alpha1.BGPPeer{}},
	v1alpha1.GroupVersion.WithResource("speakers"):                {"Speaker", &v1alpha1.Speaker{}},
}

func core(resource string) schema.GroupVersionResource {
	return corev1.SchemeGroupVersion.WithResource(resource)
}

// Server is the API server.
type Server struct {
	// Before, if set, may refuse a request before anything is done; After may
	// hold back the answer. Both are called by many at once, with resource, name
	// and subresource as in "update virtualips/203.0.113.17/status".
	Before func(request string) error
	After  func(request string)

	transport *http.Transport
	stop      chan struct{}

	mu      sync.Mutex
	version int64
	objects map[schema.GroupVersionResource]map[string]*unstructured.Unstructured
	history []event
	changed chan struct{} // closed at the next change
	ending  chan struct{} // closed when all watches end
	writes  []string
}

type event struct {
	resource schema.GroupVersionResource
	version  int64
	kind     string // ADDED, MODIFIED, DELETED
	object   *unstructured.Unstructured
}

// New starts a Server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{
		stop:    make(chan struct{}),
		objects: map[schema.GroupVersionResource]map[string]*unstructured.Unstructured{},
		changed: make(chan struct{}),
		ending:  make(chan struct{}),
	}
	connections := &listener{conns: make(chan net.Conn), closed: make(chan struct{})}
	s.transport = &http.Transport{DialContext: connections.dial, MaxIdleConnsPerHost: 100}
	server, served := &http.Server{Handler: s}, make(chan struct{})
	go func() {
		defer close(served)
		if err := server.Serve(connections); !errors.Is(err, http.ErrServerClosed) {
			t.Errorf("the API server has ended: %v", err)
		}
	}()
	t.Cleanup(func() {
		close(s.stop)
		s.transport.CloseIdleConnections()
		_ = server.Close()
		<-served
	})
	return s
}

// listener hands the server's ends of connections in memory over to it.
type listener struct {
	conns  chan net.Conn
	closed chan struct{}
	close  sync.Once
}

func (l *listener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

func (*listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// Config is how clients reach the Server.
func (s *Server) Config() *rest.Config {
	return &rest.Config{Host: "http://memory", Transport: s.transport, QPS: -1, ContentConfig: rest.ContentConfig{ContentType: "application/json", AcceptContentTypes: "application/json"}}
}

// Writes are the writes that changed something, in order: "create
// virtualips/203.0.113.17".
func (s *Server) Writes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.writes)
}

// Version is that of the last change.
func (s *Server) Version() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.version
}

// Restore makes the Server what it was at a version, as a backup of etcd does, and ends every watch.
func (s *Server) Restore(version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version, s.history = version, slices.Clone(s.history[:version])
	clear(s.objects)
	for _, e := range s.history {
		if s.objects[e.resource] == nil {
			s.objects[e.resource] = map[string]*unstructured.Unstructured{}
		}
		key := e.object.GetNamespace() + "/" + e.object.GetName()
		s.objects[e.resource][key] = e.object
		if e.kind == "DELETED" {
			delete(s.objects[e.resource], key)
		}
	}
	close(s.ending)
	s.ending = make(chan struct{})
}

// tooLarge refuses to wait for a version that there is not yet; a plain watch from one is silent until there is. The caller
// locks.
func (s *Server) tooLarge(r *request) error {
	query := r.URL.Query()
	after, _ := strconv.ParseInt(query.Get("resourceVersion"), 10, 64) // none is 0
	if r.verb == "watch" && query.Get("sendInitialEvents") != "true" || after <= s.version {
		return nil
	}
	err := apierrors.NewTimeoutError(fmt.Sprintf("Too large resource version: %d, current: %d", after, s.version), 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge, Message: "Too large resource version"}}
	return err
}

// request is what a client wants.
type request struct {
	*http.Request
	resource                     schema.GroupVersionResource
	namespace, name, subresource string
	verb                         string
}

func (r *request) String() string {
	words := []string{r.resource.Resource}
	for _, word := range []string{r.namespace, r.name, r.subresource} {
		if word != "" {
			words = append(words, word)
		}
	}
	return r.verb + " " + strings.Join(words, "/")
}

func (r *request) key() string { return r.namespace + "/" + r.name }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r, err := parse(hr)
	if err == nil && s.Before != nil {
		err = s.Before(r.String())
	}
	if err != nil {
		answer(w, nil, err)
		return
	}
	if r.verb == "watch" {
		s.watch(w, r)
		return
	}
	body, err := io.ReadAll(hr.Body)
	if err != nil {
		answer(w, nil, err)
		return
	}
	object, err := s.do(r, body)
	if s.After != nil {
		s.After(r.String())
	}
	answer(w, object, err)
}

func parse(hr *http.Request) (*request, error) {
	r := &request{Request: hr, verb: map[string]string{"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}[hr.Method]}
	parts := strings.Split(strings.Trim(hr.URL.Path, "/"), "/")
	var group, version string
	switch {
	case parts[0] == "api" && len(parts) > 2:
		version, parts = parts[1], parts[2:]
	case parts[0] == "apis" && len(parts) > 3:
		group, version, parts = parts[1], parts[2], parts[3:]
	default:
		return nil, apierrors.NewNotFound(schema.GroupResource{}, hr.URL.Path)
	}
	if parts[0] == "namespaces" && len(parts) > 2 && parts[2] != "status" {
		r.namespace, parts = parts[1], parts[2:]
	}
	parts = append(parts, "", "")
	r.resource = schema.GroupVersionResource{Group: group, Version: version, Resource: parts[0]}
	r.name, r.subresource = parts[1], parts[2]
	if _, ok := kinds[r.resource]; !ok {
		return nil, apierrors.NewNotFound(r.resource.GroupResource(), r.name)
	}
	if r.verb == "get" && r.name == "" {
		r.verb = "list"
		if hr.URL.Query().Get("watch") != "" {
			r.verb = "watch"
		}
	}
	return r, nil
}

func answer(w http.ResponseWriter, object any, err error) {
	w.Header().Set("Content-Type", "application/json")
	code := http.StatusOK
	if err != nil {
		status, ok := errors.AsType[*apierrors.StatusError](err)
		if !ok {
			status = apierrors.NewInternalError(err)
		}
		s := status.Status()
		s.Kind, s.APIVersion = "Status", "v1"
		code, object = int(s.Code), s
	}
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object) // the client has gone
}

// do serves what is not a watch.
func (s *Server) do(r *request, body []byte) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.objects[r.resource] == nil {
		s.objects[r.resource] = map[string]*unstructured.Unstructured{}
	}
	if r.verb == "list" {
		if err := s.tooLarge(r); err != nil {
			return nil, err
		}
		return s.list(r)
	}
	object := &unstructured.Unstructured{}
	if r.verb == "create" {
		if err := json.Unmarshal(body, &object.Object); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		return s.create(r, object)
	}
	current := s.objects[r.resource][r.key()]
	if current == nil {
		return nil, apierrors.NewNotFound(r.resource.GroupResource(), r.name)
	}
	switch r.verb {
	case "get":
		return current, nil
	case "delete":
		return s.delete(r, current, body)
	case "patch":
		patched, err := patch(r, current, body)
		if err != nil {
			return nil, err
		}
		return s.update(r, current, patched)
	}
	if err := json.Unmarshal(body, &object.Object); err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	if object.GetResourceVersion() == "" {
		return nil, apierrors.NewBadRequest("metadata.resourceVersion must be specified for an update")
	}
	return s.update(r, current, object)
}

func (s *Server) list(r *request) (any, error) {
	items := make([]any, 0)
	for _, object := range s.objects[r.resource] {
		if r.wants(object) {
			items = append(items, object)
		}
	}
	return map[string]any{
		"apiVersion": r.resource.GroupVersion().String(), "kind": kinds[r.resource].kind + "List",
		"metadata": map[string]any{"resourceVersion": strconv.FormatInt(s.version, 10)}, "items": items,
	}, nil
}

// wants says whether the request's namespace and selectors choose the object.
func (r *request) wants(object *unstructured.Unstructured) bool {
	query := r.URL.Query()
	byLabel, err := labels.Parse(query.Get("labelSelector"))
	if err != nil || !byLabel.Matches(labels.Set(object.GetLabels())) {
		return false
	}
	byField, err := fields.ParseSelector(query.Get("fieldSelector"))
	return err == nil && byField.Matches(fields.Set{"metadata.name": object.GetName()}) &&
		(r.namespace == "" || r.namespace == object.GetNamespace())
}

func (s *Server) create(r *request, object *unstructured.Unstructured) (any, error) {
	r.name = object.GetName()
	if r.namespace != "" {
		object.SetNamespace(r.namespace)
	}
	if s.objects[r.resource][r.key()] != nil {
		return nil, apierrors.NewAlreadyExists(r.resource.GroupResource(), r.name)
	}
	delete(object.Object, "status")
	object.SetUID(types.UID(fmt.Sprintf("uid-%d", s.version+1)))
	object.SetCreationTimestamp(metav1.Now())
	object.SetGeneration(1)
	object.SetAPIVersion(r.resource.GroupVersion().String())
	object.SetKind(kinds[r.resource].kind)
	return s.put(r, "ADDED", object), nil
}

// put makes the object the newest version of it and tells who watches.
func (s *Server) put(r *request, kind string, object *unstructured.Unstructured) *unstructured.Unstructured {
	s.version++
	object.SetResourceVersion(strconv.FormatInt(s.version, 10))
	if kind == "DELETED" {
		delete(s.objects[r.resource], r.key())
	} else {
		s.objects[r.resource][r.key()] = object
	}
	s.history = append(s.history, event{r.resource, s.version, kind, object})
	s.writes = append(s.writes, r.String())
	close(s.changed)
	s.changed = make(chan struct{})
	return object
}

func conflict(r *request, format string, args ...any) error {
	return apierrors.NewConflict(r.resource.GroupResource(), r.name, fmt.Errorf(format, args...))
}

func (s *Server) update(r *request, current, object *unstructured.Unstructured) (any, error) {
	if version := object.GetResourceVersion(); version != "" && version != current.GetResourceVersion() {
		return nil, conflict(r, "the object has been modified: version %s, not %s", current.GetResourceVersion(), version)
	}
	if uid := object.GetUID(); uid != "" && uid != current.GetUID() {
		return nil, conflict(r, "UID %s, not %s", current.GetUID(), uid)
	}
	desired := current.DeepCopy()
	if r.subresource == "status" {
		setField(desired, "status", object.Object["status"])
		if r.resource == core("services") {
			desired.SetFinalizers(object.GetFinalizers()) // so does the real one, which leaves out the spec alone
		}
	} else {
		status := desired.Object["status"]
		generation := current.GetGeneration()
		made, uid := current.GetCreationTimestamp(), current.GetUID()
		desired = object.DeepCopy()
		desired.SetCreationTimestamp(made)
		desired.SetUID(uid)
		desired.SetResourceVersion(current.GetResourceVersion())
		desired.SetDeletionTimestamp(current.GetDeletionTimestamp())
		setField(desired, "status", status)
		desired.SetAPIVersion(current.GetAPIVersion())
		desired.SetKind(current.GetKind())
		if !same(desired.Object["spec"], current.Object["spec"]) {
			generation++
		}
		desired.SetGeneration(generation)
	}
	if same(desired.Object, current.Object) {
		return current, nil // as the real one does: no new version
	}
	if desired.GetDeletionTimestamp() != nil && len(desired.GetFinalizers()) == 0 {
		return s.put(r, "DELETED", desired), nil
	}
	return s.put(r, "MODIFIED", desired), nil
}

func setField(object *unstructured.Unstructured, name string, value any) {
	if value == nil {
		delete(object.Object, name)
		return
	}
	object.Object[name] = value
}

func same(a, b any) bool {
	one, err := json.Marshal(a)
	if err != nil {
		return false
	}
	two, err := json.Marshal(b)
	return err == nil && bytes.Equal(one, two)
}

// patch is a strategic merge patch; a UID and a version in it must hold.
func patch(r *request, current *unstructured.Unstructured, body []byte) (*unstructured.Unstructured, error) {
	if kind := r.Header.Get("Content-Type"); kind != string(types.StrategicMergePatchType) {
		return nil, apierrors.NewBadRequest("not a strategic merge patch: " + kind)
	}
	text, err := json.Marshal(current)
	if err != nil {
		return nil, err
	}
	patched, err := strategicpatch.StrategicMergePatch(text, body, kinds[r.resource].example)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	object := &unstructured.Unstructured{}
	return object, json.Unmarshal(patched, &object.Object)
}

func (s *Server) delete(r *request, current *unstructured.Unstructured, body []byte) (any, error) {
	var options metav1.DeleteOptions
	if len(body) > 0 {
		if err := json.Unmarshal(body, &options); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
	}
	if p := options.Preconditions; p != nil {
		if p.UID != nil && *p.UID != current.GetUID() {
			return nil, conflict(r, "UID %s, not %s", current.GetUID(), *p.UID)
		}
		if p.ResourceVersion != nil && *p.ResourceVersion != current.GetResourceVersion() {
			return nil, conflict(r, "version %s, not %s", current.GetResourceVersion(), *p.ResourceVersion)
		}
	}
	last := current.DeepCopy()
	if len(last.GetFinalizers()) == 0 {
		s.put(r, "DELETED", last)
		return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}, nil
	}
	if last.GetDeletionTimestamp() == nil {
		now := metav1.NewTime(time.Now())
		last.SetDeletionTimestamp(&now)
		s.put(r, "MODIFIED", last)
	}
	return last, nil
}

// watch tells of every change after the version asked for, and with
// sendInitialEvents of everything that there is before.
func (s *Server) watch(w http.ResponseWriter, r *request) {
	query := r.URL.Query()
	after, _ := strconv.ParseInt(query.Get("resourceVersion"), 10, 64) // none is 0
	flusher, ok := w.(http.Flusher)
	if !ok {
		answer(w, nil, errors.New("a watch needs an http.Flusher"))
		return
	}
	s.mu.Lock()
	ending, err := s.ending, s.tooLarge(r)
	s.mu.Unlock()
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	encoder := json.NewEncoder(w)
	send := func(kind string, object any) bool {
		return encoder.Encode(map[string]any{"type": kind, "object": object}) == nil
	}
	if query.Get("sendInitialEvents") == "true" || query.Get("resourceVersion") == "" {
		initial, version := s.initial(r)
		for _, object := range initial {
			send("ADDED", object)
		}
		send("BOOKMARK", map[string]any{
			"apiVersion": r.resource.GroupVersion().String(), "kind": kinds[r.resource].kind,
			"metadata": map[string]any{"resourceVersion": strconv.FormatInt(version, 10), "annotations": map[string]any{metav1.InitialEventsAnnotationKey: "true"}},
		})
		after = version
	}
	for {
		flusher.Flush()
		events, changed := s.since(r, after)
		for _, e := range events {
			if !send(e.kind, e.object) {
				return
			}
			after = e.version
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-ending:
			return
		case <-s.stop:
			return
		}
	}
}

func (s *Server) initial(r *request) (objects []*unstructured.Unstructured, version int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, object := range s.objects[r.resource] {
		if r.wants(object) {
			objects = append(objects, object)
		}
	}
	return objects, s.version
}

func (s *Server) since(r *request, after int64) (events []event, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Versions are those of the whole history, one each.
	for _, e := range s.history[min(after, int64(len(s.history))):] {
		if e.resource == r.resource && r.wants(e.object) {
			events = append(events, e)
		}
	}
	return events, s.changed
}
