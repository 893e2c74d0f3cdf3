package service

import (
	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
)

// Outsider is a provider that makes things outside the cluster. Its Services
// get the finalizer service.kubernetes.io/load-balancer-cleanup before anything
// is made, so that they outlive it: a Service without the finalizer has nothing
// there.
type Outsider interface{ Outside() }

// Chooser is a provider that leaves some of the Services that name no class to
// other controllers, because they say so in its own way.
type Chooser interface {
	Leaves(service *corev1.Service) bool
}

// Class is what a loadBalancerClass stands for.
type Class struct {
	// Provider serves the Services of the class. It may be nil where every
	// Service is released: what it gave is gone already.
	Provider cloudprovider.LoadBalancer
}

// Classes maps each loadBalancerClass that is ours to what it stands for.
type Classes struct {
	// ByName has every class that we serve.
	ByName map[string]Class
	// Default is the class of Services that name none; empty leaves those alone.
	Default string
}

// Of returns the class of a Service. A Service of another type, of a class
// that is not ours, or without class while there is no default, has none and
// is not ours to touch.
func (c *Classes) Of(service *corev1.Service) (Class, bool) {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer {
		return Class{}, false
	}
	name := c.Default
	if service.Spec.LoadBalancerClass != nil {
		name = *service.Spec.LoadBalancerClass
	}
	class, ok := c.ByName[name]
	if !ok || name == "" || class.leaves(service) {
		return Class{}, false
	}
	return class, true
}

// leaves says that the provider leaves a Service of no class to others.
func (c *Class) leaves(service *corev1.Service) bool {
	chooser, ok := c.Provider.(Chooser)
	return ok && service.Spec.LoadBalancerClass == nil && chooser.Leaves(service)
}
