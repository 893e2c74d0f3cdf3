package service

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// fieldManager is the name under which the API server keeps what this package writes.
const fieldManager = "herald-controller-manager"

// writers are the names under which the API server keeps who wrote the parts
// of a Service's status last; empty is unknown.
type writers struct {
	// status is the writer of status.loadBalancer.ingress, condition that of our
	// condition Ready, which is us.
	status, condition string
}

// writersOf reads the managed fields of a Service. The API server takes a field
// away from a manager when another one changes its value, so of several who
// wrote the same value each is named; the last one counts.
func writersOf(service *corev1.Service) writers {
	var w writers
	var status, condition metav1.Time
	for i := range service.ManagedFields {
		entry := &service.ManagedFields[i]
		fields, at := fieldsOf(entry)
		if fields.ingress() && !at.Before(&status) {
			w.status, status = entry.Manager, at
		}
		if fields.condition(v1alpha1.ServiceReady) && !at.Before(&condition) {
			w.condition, condition = entry.Manager, at
		}
	}
	return w
}

// rivalOf names who wrote last over what Herald wrote into a Service, "" if the
// API server keeps nobody for it: nobody has what is not there any more.
func rivalOf(service *corev1.Service, wrote, is *words) string {
	rival, last := "", metav1.Time{}
	for i := range service.ManagedFields {
		entry := &service.ManagedFields[i]
		fields, at := fieldsOf(entry)
		status := fields.ingress() && !sameStatus(&wrote.status, &is.status)
		conditions := entry.Manager != fieldManager && (wrote.ready != is.ready && fields.condition(v1alpha1.ServiceReady) ||
			wrote.announced != is.announced && fields.condition(v1alpha1.ServiceAnnounced))
		if (status || conditions) && !at.Before(&last) {
			rival, last = entry.Manager, at
		}
	}
	switch rival {
	case "":
		return ""
	case fieldManager:
		return fmt.Sprintf("another %q", rival)
	}
	return fmt.Sprintf("%q", v1alpha1.Quoted(rival))
}

// managed are the fields of one manager, as far as they are of interest here.
type managed struct {
	Status struct {
		LoadBalancer map[string]json.RawMessage `json:"f:loadBalancer"`
		Conditions   map[string]json.RawMessage `json:"f:conditions"`
	} `json:"f:status"`
}

func (m *managed) ingress() bool {
	_, ok := m.Status.LoadBalancer["f:ingress"]
	return ok
}

func (m *managed) condition(kind string) bool {
	_, ok := m.Status.Conditions[`k:{"type":"`+kind+`"}`]
	return ok
}

// fieldsOf reads the fields of a manager, none if they are not in a form that we know.
func fieldsOf(entry *metav1.ManagedFieldsEntry) (fields managed, at metav1.Time) {
	if entry.FieldsV1 == nil || json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields) != nil {
		return managed{}, metav1.Time{}
	}
	if entry.Time != nil {
		at = *entry.Time
	}
	return fields, at
}
