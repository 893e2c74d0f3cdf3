package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cloudprovider "k8s.io/cloud-provider"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// holdings are what the providers have for a Service.
type holdings struct {
	// by are the providers that have something, maybe for an earlier Service of
	// the same name.
	by []cloudprovider.LoadBalancer
	// given are the entries of the status that they gave to this very Service.
	given []corev1.LoadBalancerIngress
	// outside reports whether something of this Service is outside the cluster.
	outside bool
}

// survey asks every provider but one what it has for the Service. A Service
// without UID is one that is gone.
func (c *Controller) survey(ctx context.Context, service *corev1.Service, but cloudprovider.LoadBalancer) (*holdings, error) {
	h := &holdings{}
	insider := false // a provider inside the cluster has given it something
	for _, provider := range c.insidersFirst() {
		_, outside := provider.(Outsider)
		if outside && (provider == but || service.UID != "" && (insider || !c.guards(service))) {
			continue
		}
		status, exists, err := provider.GetLoadBalancer(ctx, c.ClusterName, service)
		if err != nil {
			return nil, err
		}
		gave := exists && status != nil && len(status.Ingress) > 0
		insider = insider || gave && !outside
		if !exists || provider == but {
			continue
		}
		h.by = append(h.by, provider)
		h.outside = h.outside || outside && service.UID != ""
		if gave {
			h.given = append(h.given, status.Ingress...)
		}
	}
	return h, nil
}

// insidersFirst lists the providers, those that make nothing outside the
// cluster first: what one of them gave explains the finalizer, so that nobody
// has to ask a cloud.
func (c *Controller) insidersFirst() []cloudprovider.LoadBalancer {
	var insiders, outsiders []cloudprovider.LoadBalancer
	for provider := range c.providers() {
		if _, outside := provider.(Outsider); outside {
			outsiders = append(outsiders, provider)
			continue
		}
		insiders = append(insiders, provider)
	}
	return append(insiders, outsiders...)
}

// giveBack has the providers give up what they have for the Service.
func (c *Controller) giveBack(ctx context.Context, service *corev1.Service, h *holdings) error {
	var errs []error
	for _, provider := range h.by {
		errs = append(errs, provider.EnsureLoadBalancerDeleted(ctx, c.ClusterName, service))
	}
	return errors.Join(errs...)
}

// release takes everything of ours from a Service that is not ours, or no
// longer: first out of its status, so that no address is free while a Service
// still shows it. While something is left outside the cluster, the condition
// and the finalizer stay. A Service that Herald never served is not written to.
func (c *Controller) release(ctx context.Context, service *corev1.Service) error {
	h, err := c.survey(ctx, service, nil)
	if err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	if !c.concerns(service, h) {
		c.calm(key)
		return c.giveBack(ctx, service, h) // of an earlier Service of its name
	}
	remaining := c.remaining(service, h)
	desired, changed := released(service, remaining)
	if h.outside {
		desired, changed = c.withdraw(key, service, remaining)
	}
	if changed {
		if service, err = c.patch(ctx, service, desired); err != nil || service == nil {
			return err
		}
	}
	if err := c.giveBack(ctx, service, h); err != nil {
		return c.lament(ctx, service, h, err)
	}
	if desired, changed := released(service, remaining); h.outside && changed {
		if service, err = c.patch(ctx, service, desired); err != nil || service == nil {
			return err
		}
	}
	c.calm(key)
	if service.DeletionTimestamp == nil {
		message := "The Service is no longer Herald's to serve: its load balancer is gone."
		if c.Releasing {
			message = "Herald is being removed: its load balancer is gone."
		}
		c.Recorder.Event(service, corev1.EventTypeNormal, string(v1alpha1.AddressReleased), message)
	}
	return nil
}

// withdraw returns the Service as it is to be while its load balancer goes, and
// whether that is to be written now: others may write something else.
func (c *Controller) withdraw(key types.NamespacedName, service *corev1.Service, remaining corev1.LoadBalancerStatus) (desired *corev1.Service, changed bool) {
	contest := c.contestOf(key)
	contest.see(service, time.Now())
	desired, _ = withdrawn(service, remaining, metav1.Now())
	contest.hold(service, desired, time.Now())
	c.recall(key, contest)
	return desired, !equality.Semantic.DeepEqual(service, desired)
}

// concerns reports whether a Service that is to be released has anything of
// ours. It has if a provider gave it something, if it is ours and is being
// deleted, or if it bears our condition and no other controller's name: a class
// that is not ours names one, and that one may be another Herald.
func (c *Controller) concerns(service *corev1.Service, h *holdings) bool {
	_, ours := c.Classes.Of(service)
	if len(h.given) > 0 || ours && (!c.Releasing || service.DeletionTimestamp != nil) {
		return true
	}
	return c.bears(service)
}

// bears reports whether a Service bears our condition as that of this very
// Herald.
func (c *Controller) bears(service *corev1.Service) bool {
	condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady)
	if condition == nil {
		return false
	}
	if _, ours := c.Classes.Of(service); ours {
		return true
	}
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.LoadBalancerClass == nil {
		return true
	}
	// What we began to release as another type goes to its end.
	return condition.Reason == string(v1alpha1.Releasing) && service.DeletionTimestamp == nil
}

// Unreleased lists the Services that bear something of ours, each with what its
// condition says, as the API server has them.
func (c *Controller) Unreleased(ctx context.Context) ([]string, error) {
	var left []string
	options := metav1.ListOptions{Limit: 500}
	for {
		services, err := c.Client.CoreV1().Services("").List(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("listing Services: %w", err)
		}
		for i := range services.Items {
			service := &services.Items[i]
			_, ours := c.Classes.Of(service)
			held := ours && service.DeletionTimestamp != nil && servicehelper.HasLBFinalizer(service)
			if !held && !c.bears(service) {
				continue
			}
			name := fmt.Sprintf("Service %s/%s", service.Namespace, service.Name)
			if condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady); condition != nil {
				name += fmt.Sprintf(" (%s: %s)", condition.Reason, v1alpha1.Cut(condition.Message, 200))
			}
			left = append(left, name)
		}
		if options.Continue = services.Continue; options.Continue == "" {
			return left, nil
		}
	}
}

// remaining is what the status shows when the Service is released: nothing, or
// what others gave to a Service that is theirs to serve.
func (c *Controller) remaining(service *corev1.Service, h *holdings) corev1.LoadBalancerStatus {
	if _, ours := c.Classes.Of(service); ours || service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return corev1.LoadBalancerStatus{}
	}
	if len(h.given) == 0 && shownByUs(service) {
		return corev1.LoadBalancerStatus{} // what gave it is gone already
	}
	remaining := *service.Status.LoadBalancer.DeepCopy()
	remaining.Ingress = slices.DeleteFunc(remaining.Ingress, func(entry corev1.LoadBalancerIngress) bool {
		return slices.ContainsFunc(h.given, func(given corev1.LoadBalancerIngress) bool {
			return given.IP == entry.IP && given.Hostname == entry.Hostname
		})
	})
	if len(remaining.Ingress) == 0 {
		remaining.Ingress = nil
	}
	return remaining
}

// shownByUs reports whether the condition says that the Service is served, and
// whoever wrote that also wrote the addresses in the status last.
func shownByUs(service *corev1.Service) bool {
	writers := writersOf(service)
	return isReady(service) && writers.status != "" && writers.status == writers.condition
}

// lament writes down why the load balancer of a Service cannot be removed, if
// it does not just take time.
func (c *Controller) lament(ctx context.Context, service *corev1.Service, h *holdings, err error) error {
	if _, waits := errors.AsType[*api.RetryError](err); waits || !h.outside {
		return err
	}
	v := verdict{reason: v1alpha1.SyncFailed, message: fmt.Sprintf("Its load balancer could not be removed, which will be tried again: %v", err)}
	return errors.Join(err, c.write(ctx, service, nil, v, false))
}

// guards reports whether the finalizer on a Service is ours: there may be
// things outside the cluster.
func (c *Controller) guards(service *corev1.Service) bool {
	if !servicehelper.HasLBFinalizer(service) {
		return false
	}
	_, ours := c.Classes.Of(service)
	return ours || marked(service)
}
