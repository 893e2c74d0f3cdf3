// Package annotations declares every annotation that Herald reads on a
// Service, and reads them. Annotations of other providers that say the same
// are declared as aliases, so that manifests written for them keep working.
package annotations

import (
	"slices"
	"strings"
)

// The annotations of Herald.
const (
	// Addresses requests addresses, at most one of each family.
	Addresses = "heraldlb.io/addresses"
	// Pool requests an AddressPool by name.
	Pool = "heraldlb.io/pool"
	// Share is the key of Services that may share an address.
	Share = "heraldlb.io/share"
	// Scope asks for a pool of that scope.
	Scope = "heraldlb.io/scope"
	// IPMode overrides the ipMode of the pool.
	IPMode = "heraldlb.io/ip-mode"
)

// Annotation is the declaration of one annotation: what docs/reference says of it.
type Annotation struct {
	Name    string
	Type    string
	Default string
	Doc     string
}

// Own are the annotations of Herald.
var Own = []Annotation{
	{Addresses, "IP addresses, separated by commas", "chosen from a pool", "Addresses that the Service wants, at most one of each family. The field loadBalancerIP, which is deprecated, is read as well; both together must agree."},
	{Pool, "name of an AddressPool", "any pool that serves the Service", "The pool to take addresses from, also one with autoAssign false."},
	{Share, "string", "an address of its own", "Services with the same value may share an address when their ports differ and their traffic policies go together: all Cluster, or equal selectors."},
	{Scope, "External or Internal", "External", "Which pools to take addresses from."},
	{IPMode, "VIP or Proxy", "ipMode of the pool", "Value of status.loadBalancer.ingress[].ipMode."},
}

// Alias is an annotation of another provider that says the same as one of ours.
type Alias struct {
	// Name of the annotation, and the project that owns it.
	Name, Owner string
	// Of is our annotation that it stands for.
	Of string
	// When, if set, are the values, in lower case, on which the annotation
	// stands for the value Means of ours; other values say nothing. Without
	// When the value is taken as it is.
	When  []string
	Means string
	// Any takes every value for Means.
	Any bool
}

// Aliases are the annotations of others that Herald honours.
var Aliases = []Alias{
	{Name: "metallb.io/loadBalancerIPs", Owner: "MetalLB", Of: Addresses},
	{Name: "metallb.universe.tf/loadBalancerIPs", Owner: "MetalLB", Of: Addresses},
	{Name: "lbipam.cilium.io/ips", Owner: "Cilium", Of: Addresses},
	{Name: "io.cilium/lb-ipam-ips", Owner: "Cilium", Of: Addresses},
	{Name: "kube-vip.io/loadbalancerIPs", Owner: "kube-vip", Of: Addresses},
	{Name: "purelb.io/addresses", Owner: "PureLB", Of: Addresses},

	{Name: "metallb.io/address-pool", Owner: "MetalLB", Of: Pool},
	{Name: "metallb.universe.tf/address-pool", Owner: "MetalLB", Of: Pool},
	{Name: "purelb.io/service-group", Owner: "PureLB", Of: Pool},

	{Name: "metallb.io/allow-shared-ip", Owner: "MetalLB", Of: Share},
	{Name: "metallb.universe.tf/allow-shared-ip", Owner: "MetalLB", Of: Share},
	{Name: "lbipam.cilium.io/sharing-key", Owner: "Cilium", Of: Share},
	{Name: "io.cilium/lb-ipam-sharing-key", Owner: "Cilium", Of: Share},
	{Name: "purelb.io/allow-shared-ip", Owner: "PureLB", Of: Share},

	{Name: "networking.gke.io/load-balancer-type", Owner: "GKE", Of: Scope, When: []string{"internal"}, Means: "Internal"},
	{Name: "cloud.google.com/load-balancer-type", Owner: "GKE", Of: Scope, When: []string{"internal"}, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/aws-load-balancer-internal", Owner: "AWS", Of: Scope, When: []string{"true"}, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/aws-load-balancer-scheme", Owner: "AWS", Of: Scope, When: []string{"internal"}, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/azure-load-balancer-internal", Owner: "Azure", Of: Scope, When: []string{"true"}, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/openstack-internal-load-balancer", Owner: "OpenStack", Of: Scope, When: []string{"true"}, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/cce-load-balancer-internal-vpc", Owner: "Baidu CCE", Of: Scope, When: []string{"true"}, Means: "Internal"},
	{Name: "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid", Owner: "Tencent", Of: Scope, Any: true, Means: "Internal"},
}

// said is what one annotation or field says of one of our annotations.
type said struct{ by, value string }

// say collects what a Service's annotations say of each of ours, ours first.
func say(annotations map[string]string) map[string][]said {
	all := map[string][]said{}
	for _, own := range Own {
		if value, ok := annotations[own.Name]; ok {
			all[own.Name] = append(all[own.Name], said{own.Name, strings.TrimSpace(value)})
		}
	}
	for _, alias := range Aliases {
		value, ok := annotations[alias.Name]
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		if alias.When != nil || alias.Any {
			if !alias.Any && !slices.Contains(alias.When, strings.ToLower(value)) {
				continue
			}
			value = alias.Means
		}
		all[alias.Of] = append(all[alias.Of], said{alias.Name, value})
	}
	return all
}
