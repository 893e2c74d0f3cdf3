package service

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

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
		if entry.FieldsV1 == nil {
			continue
		}
		var fields struct {
			Status struct {
				LoadBalancer map[string]json.RawMessage `json:"f:loadBalancer"`
				Conditions   map[string]json.RawMessage `json:"f:conditions"`
			} `json:"f:status"`
		}
		if err := json.Unmarshal(entry.FieldsV1.GetRawBytes(), &fields); err != nil {
			continue // not in a form that we know
		}
		var at metav1.Time
		if entry.Time != nil {
			at = *entry.Time
		}
		if _, ok := fields.Status.LoadBalancer["f:ingress"]; ok && !at.Before(&status) {
			w.status, status = entry.Manager, at
		}
		if _, ok := fields.Status.Conditions[`k:{"type":"`+v1alpha1.ServiceReady+`"}`]; ok && !at.Before(&condition) {
			w.condition, condition = entry.Manager, at
		}
	}
	return w
}
