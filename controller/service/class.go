package service

import (
	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
)

// Class is what a loadBalancerClass stands for.
type Class struct {
	// Provider serves the Services of the class.
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
	return class, ok && name != ""
}

// foreign says that another controller serves the Service: nothing of it is
// ours, whatever traces it bears.
func (c *Classes) foreign(service *corev1.Service) bool {
	if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.Spec.LoadBalancerClass == nil {
		return false
	}
	_, ours := c.ByName[*service.Spec.LoadBalancerClass]
	return !ours
}
