package service

import (
	"cmp"
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

// verdict is what the conditions of a Service say: whether it has what it asks
// for, and whether somebody announces that.
type verdict struct {
	ready     bool
	reason    v1alpha1.Reason
	message   string
	announced announcement
}

// announcement is what the condition heraldlb.io/Announced says. Without a
// status there is no such condition: the provider announces nothing.
type announcement struct {
	status  metav1.ConditionStatus
	reason  v1alpha1.Reason
	message string
}

// lacks reports whether the announcement keeps a Service that has all else from
// being Ready.
func (a announcement) lacks() bool {
	return a.status != "" && a.status != metav1.ConditionTrue && a.reason != v1alpha1.AnnounceNone
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

// condition is the verdict as heraldlb.io/Ready says it.
func (v verdict) condition(now metav1.Time) metav1.Condition {
	condition := metav1.Condition{
		Type:               v1alpha1.ServiceReady,
		Status:             metav1.ConditionTrue,
		Reason:             string(v.reason),
		Message:            v.message,
		LastTransitionTime: now,
	}
	switch {
	case !v.ready:
		condition.Status = metav1.ConditionFalse
	case v.announced.lacks():
		condition.Status, condition.Reason = v.announced.status, string(v.announced.reason)
		condition.Message = cut(v.message + " " + v.announced.message)
	}
	return condition
}

// cut shortens a message to what a condition and an event may have.
func cut(message string) string { return v1alpha1.Cut(message, v1alpha1.MaxMessage) }

// served returns the Service with the verdict, and with the load balancer's
// status unless that is nil, which leaves it as it is. Who is given an address
// gets the finalizer with it. changed says whether anything of it is new.
func served(service *corev1.Service, status *corev1.LoadBalancerStatus, v verdict, now metav1.Time) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	if status != nil {
		desired.Status.LoadBalancer = *status
		if len(status.Ingress) > 0 {
			finalize(desired)
		}
	}
	meta.SetStatusCondition(&desired.Status.Conditions, v.condition(now))
	if slices.ContainsFunc(v.news(service), news.isNo) {
		// Reminders count from here.
		meta.FindStatusCondition(desired.Status.Conditions, v1alpha1.ServiceReady).LastTransitionTime = now
	}
	if v.announced.status == "" {
		meta.RemoveStatusCondition(&desired.Status.Conditions, v1alpha1.ServiceAnnounced)
	} else {
		meta.SetStatusCondition(&desired.Status.Conditions, metav1.Condition{
			Type: v1alpha1.ServiceAnnounced, Status: v.announced.status, Reason: string(v.announced.reason),
			Message: cut(v.announced.message), LastTransitionTime: now,
		})
	}
	return desired, !equality.Semantic.DeepEqual(service, desired)
}

func finalize(service *corev1.Service) {
	if !servicehelper.HasLBFinalizer(service) {
		service.Finalizers = append(service.Finalizers, servicehelper.LoadBalancerCleanupFinalizer)
	}
}

// news is an event that tells of a verdict.
type news struct {
	kind    string
	reason  v1alpha1.Reason
	message string
}

func (n news) isNo() bool { return n.kind == corev1.EventTypeWarning }

// waits are the reasons whose message tells of pools and other hosts, which
// change without the Service's doing: the condition follows, an event is told
// once.
var waits = map[v1alpha1.Reason]bool{
	v1alpha1.NoPool: true, v1alpha1.PoolExhausted: true, v1alpha1.NamespaceQuota: true, v1alpha1.AddressPartial: true,
	v1alpha1.AddressConflict: true,
}

// news are the events that tell what of the verdict the Service does not say yet.
func (v verdict) news(service *corev1.Service) []news {
	var all []news
	before := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	switch {
	case v.ready && v.assignedAlready(service):
	case before != nil && before.Reason == string(v.reason) && (before.Message == v.message || waits[v.reason]):
	default:
		all = append(all, news{v.kind(), v.reason, v.message})
	}
	if !v.ready {
		return all
	}
	a := v.announced
	said := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced)
	switch {
	case a.lacks() && a.reason != v1alpha1.Announcing:
		if said == nil || said.Reason != string(a.reason) {
			all = append(all, news{corev1.EventTypeWarning, a.reason, cut(a.message)})
		}
	case a.status == metav1.ConditionTrue:
		if said != nil && said.Status != metav1.ConditionTrue && said.Reason != string(v1alpha1.Announcing) {
			all = append(all, news{corev1.EventTypeNormal, a.reason, cut(a.message)})
		}
	}
	return all
}

// kind is the type of the event that tells what the Service has.
func (v verdict) kind() string {
	if v.ready || v.reason == v1alpha1.Provisioning {
		return corev1.EventTypeNormal
	}
	return corev1.EventTypeWarning
}

// assignedAlready reports whether the Service says already that it has what it
// has, whatever it says of the announcement.
func (v verdict) assignedAlready(service *corev1.Service) bool {
	before := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	if before == nil {
		return false
	}
	if before.Status == metav1.ConditionTrue {
		return before.Reason == string(v.reason) && (before.Message == v.message || waits[v.reason])
	}
	return isUnannounced(service) && strings.HasPrefix(before.Message, v.message)
}

// refusedAlready reports whether the Service says already why it is not served.
func (v verdict) refusedAlready(service *corev1.Service) bool {
	before := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	return !v.ready && before != nil && before.Status == metav1.ConditionFalse && before.Reason == string(v.reason) && before.Message == v.message
}

// isUnannounced reports whether a Service has all but an announcement.
func isUnannounced(service *corev1.Service) bool {
	ready := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	said := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceAnnounced)
	return ready != nil && said != nil && ready.Status != metav1.ConditionTrue && ready.Reason == said.Reason
}

// announcementAlone reports whether two versions of a Service differ in what
// they say of the announcement, and in nothing else.
func (v verdict) announcementAlone(service, desired *corev1.Service) bool {
	return (v.ready && v.assignedAlready(service) || v.refusedAlready(service)) &&
		equality.Semantic.DeepEqual(service.Status.LoadBalancer, desired.Status.LoadBalancer) &&
		slices.Equal(service.Finalizers, desired.Finalizers)
}

// reminder is the event that tells a standing no again.
func reminder(ready *metav1.Condition, announced *metav1.Condition) news {
	n := news{corev1.EventTypeWarning, v1alpha1.Reason(ready.Reason), ready.Message}
	if announced != nil && announced.Reason == ready.Reason {
		n.message = announced.Message // as it was told first
	}
	if n.reason == v1alpha1.Provisioning {
		n.kind = corev1.EventTypeNormal
	}
	n.message = cmp.Or(n.message, ready.Reason)
	return n
}

// guarded returns the Service with the finalizer, and with a condition: who
// has both is ours to clean up after.
func guarded(service *corev1.Service, now metav1.Time) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	finalize(desired)
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

// withdrawn returns the Service as it is while its load balancer goes, with what
// remains in its status.
func withdrawn(service *corev1.Service, remaining corev1.LoadBalancerStatus, now metav1.Time) (desired *corev1.Service, changed bool) {
	leaving := verdict{reason: v1alpha1.Releasing, message: "Its load balancer is being removed."}
	return served(service, &remaining, leaving, now)
}

// released returns the Service without anything of ours, with what remains in
// its status. The finalizer goes even if another controller put it there, who
// will not take it off a Service that it does not serve.
func released(service *corev1.Service, remaining corev1.LoadBalancerStatus) (desired *corev1.Service, changed bool) {
	desired = service.DeepCopy()
	desired.Status.LoadBalancer = remaining
	desired.Status.Conditions = slices.DeleteFunc(desired.Status.Conditions, func(condition metav1.Condition) bool {
		return strings.HasPrefix(condition.Type, v1alpha1.GroupName+"/")
	})
	if len(desired.Status.Conditions) == 0 {
		desired.Status.Conditions = nil
	}
	desired.Finalizers = slices.DeleteFunc(desired.Finalizers, func(name string) bool { return name == servicehelper.LoadBalancerCleanupFinalizer })
	return desired, !equality.Semantic.DeepEqual(service, desired)
}
