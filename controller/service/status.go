package service

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// verdict is what the condition heraldlb.io/Ready says of a Service.
type verdict struct {
	ready   bool
	reason  v1alpha1.Reason
	message string
}

// judge turns what a provider returned into a verdict.
func judge(status *corev1.LoadBalancerStatus, err error) verdict {
	if err == nil {
		return verdict{ready: true, reason: v1alpha1.AddressAssigned, message: "Served at " + join(status) + "."}
	}
	if refusal, ok := errors.AsType[*v1alpha1.Refusal](err); ok {
		return verdict{reason: refusal.Reason, message: refusal.Message}
	}
	return verdict{reason: v1alpha1.SyncFailed, message: fmt.Sprintf("It will be tried again: %v", err)}
}

func join(status *corev1.LoadBalancerStatus) string {
	var names []string
	for _, ingress := range status.Ingress {
		if ingress.IP != "" {
			names = append(names, ingress.IP)
			continue
		}
		names = append(names, ingress.Hostname)
	}
	return strings.Join(names, " and ")
}

// condition is the verdict as it stands on the Service since now.
func (v verdict) condition(now metav1.Time) metav1.Condition {
	condition := metav1.Condition{
		Type:               v1alpha1.ServiceReady,
		Status:             metav1.ConditionFalse,
		Reason:             string(v.reason),
		Message:            v.message,
		LastTransitionTime: now,
	}
	if v.ready {
		condition.Status = metav1.ConditionTrue
	}
	return condition
}

// served returns the Service with the verdict, and with the load balancer's
// status unless that is nil, which leaves it as it is. changed says whether
// anything of it is new.
func served(service *corev1.Service, status *corev1.LoadBalancerStatus, v verdict, now metav1.Time) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	if status != nil {
		desired.Status.LoadBalancer = *status
	}
	meta.SetStatusCondition(&desired.Status.Conditions, v.condition(now))
	return desired, !equality.Semantic.DeepEqual(service.Status, desired.Status)
}

// guarded returns the Service with the finalizer, and with a condition: who
// has both is ours to clean up after.
func guarded(service *corev1.Service, now metav1.Time) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	if !servicehelper.HasLBFinalizer(desired) {
		desired.Finalizers = append(desired.Finalizers, servicehelper.LoadBalancerCleanupFinalizer)
	}
	if !marked(desired) {
		pending := verdict{reason: v1alpha1.Provisioning, message: "A load balancer is going to be made."}
		meta.SetStatusCondition(&desired.Status.Conditions, pending.condition(now))
	}
	return desired, !equality.Semantic.DeepEqual(service, desired)
}

// marked says that the Service has a condition of ours.
func marked(service *corev1.Service) bool {
	return meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady) != nil
}

// withdrawn returns the Service as it is while its load balancer goes.
func withdrawn(service *corev1.Service, now metav1.Time) (desired *corev1.Service, changed bool) {
	leaving := verdict{reason: v1alpha1.Releasing, message: "Its load balancer is being removed."}
	return served(service, &corev1.LoadBalancerStatus{}, leaving, now)
}

// released returns the Service without anything of ours.
func released(service *corev1.Service, guard bool) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	desired.Status.LoadBalancer = corev1.LoadBalancerStatus{}
	meta.RemoveStatusCondition(&desired.Status.Conditions, v1alpha1.ServiceReady)
	if len(desired.Status.Conditions) == 0 {
		desired.Status.Conditions = nil
	}
	if guard {
		desired.Finalizers = slices.DeleteFunc(desired.Finalizers, func(name string) bool { return name == servicehelper.LoadBalancerCleanupFinalizer })
	}
	return desired, !equality.Semantic.DeepEqual(service, desired)
}
