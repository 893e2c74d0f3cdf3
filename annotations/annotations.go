// Package annotations declares every annotation that Herald reads on a
// Service, and reads them. Annotations of other providers that say the same
// are declared as aliases, so that manifests written for them keep working.
package annotations

import (
	"slices"
	"strings"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// The annotations of Herald.
const (
	// Addresses requests addresses, at most one of each family.
	Addresses = "heraldlb.io/addresses"
	// Pool requests an AddressPool by name.
	Pool = "heraldlb.io/pool"
	// Share is the key of Services that may share an address.
	Share = "heraldlb.io/share"
	// ShareNamespaces are the namespaces whose Services may share the address.
	ShareNamespaces = "heraldlb.io/share-namespaces"
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
	{ShareNamespaces, "names of namespaces, separated by commas, or *", "the Service's own namespace", "The other namespaces whose Services may share the address with this one, under the same key. Both sides have to name each other. * stands for every namespace: then the key is all that keeps others away."},
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
	// stands for the value Means of ours, and Unless those that say nothing;
	// others are refused, or with Else taken as When. Without When the value is
	// taken as it is. An empty value never says anything.
	When, Unless []string
	Else         bool
	Means        string
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

	{Name: "lbipam.cilium.io/sharing-cross-namespace", Owner: "Cilium", Of: ShareNamespaces},

	// What clouds call an internal load balancer: the page on Services in the
	// documentation of Kubernetes, with its older forms, and clouds' own pages.
	internal("networking.gke.io/load-balancer-type", "GKE", "internal", "external"),
	internal("cloud.google.com/load-balancer-type", "GKE", "internal", "external"),
	// The in-tree provider took any value but false: 0.0.0.0/0 was the documented one.
	{Name: "service.beta.kubernetes.io/aws-load-balancer-internal", Owner: "AWS", Of: Scope, When: yes, Unless: no, Else: true, Means: "Internal"},
	internal("service.beta.kubernetes.io/aws-load-balancer-scheme", "AWS", "internal", "internet-facing"),
	{Name: "service.beta.kubernetes.io/azure-load-balancer-internal", Owner: "Azure", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	internal("service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type", "IBM Cloud", "private", "public"),
	{Name: "service.beta.kubernetes.io/openstack-internal-load-balancer", Owner: "OpenStack", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/cce-load-balancer-internal-vpc", Owner: "Baidu CCE", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	{Name: "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid", Owner: "Tencent", Of: Scope, Any: true, Means: "Internal"},
	{Name: "service.kubernetes.io/qcloud-loadbalancer-internal", Owner: "Tencent", Of: Scope, Any: true, Means: "Internal"},
	internal("service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type", "Alibaba Cloud", "intranet", "internet"),
	internal("service.beta.kubernetes.io/alicloud-loadbalancer-address-type", "Alibaba Cloud", "intranet", "internet"),
	{Name: "service.beta.kubernetes.io/oci-load-balancer-internal", Owner: "OCI", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	{Name: "oci-network-load-balancer.oraclecloud.com/internal", Owner: "OCI", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	internal("service.beta.kubernetes.io/do-loadbalancer-network", "DigitalOcean", "internal", "external"),
	{Name: "load-balancer.hetzner.cloud/disable-public-network", Owner: "Hetzner", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	{Name: "service.beta.kubernetes.io/scw-loadbalancer-private", Owner: "Scaleway", Of: Scope, When: yes, Unless: no, Means: "Internal"},
	internal("yandex.cloud/load-balancer-type", "Yandex Cloud", "internal", "external"),
}

// The words for true and false that clouds' own parsers take.
var (
	yes = []string{"true", "yes", "on", "1", "t", "y"}
	no  = []string{"false", "no", "off", "0", "f", "n"}
)

// internal declares an alias whose value says whether the load balancer is
// internal or public.
func internal(name, owner, internal, public string) Alias {
	return Alias{Name: name, Owner: owner, Of: Scope, When: []string{internal}, Unless: []string{public}, Means: "Internal"}
}

// said is what one annotation or field says of one of our annotations.
type said struct{ by, value string }

// quoted is the value for a message.
func (s said) quoted() string { return v1alpha1.Quoted(s.value) }

// say collects what a Service's annotations say of each of ours, ours first.
// An annotation with an empty value says nothing: templates leave those.
func say(annotations map[string]string) (map[string][]said, *v1alpha1.Refusal) {
	all := map[string][]said{}
	for _, own := range Own {
		if value := strings.TrimSpace(annotations[own.Name]); value != "" {
			all[own.Name] = append(all[own.Name], said{own.Name, value})
		}
	}
	for i := range Aliases {
		alias := &Aliases[i]
		value := strings.TrimSpace(annotations[alias.Name])
		if value == "" {
			continue
		}
		value, says, refusal := alias.read(value)
		if refusal != nil {
			return nil, refusal
		}
		if says {
			all[alias.Of] = append(all[alias.Of], said{alias.Name, value})
		}
	}
	return all, nil
}

// read returns the value that an alias stands for, or that it says nothing. A
// value that nobody documents is refused: who wrote it may have meant to keep
// the Service from the public, and must not get a public address.
func (a *Alias) read(value string) (means string, says bool, refusal *v1alpha1.Refusal) {
	if a.Any {
		return a.Means, true, nil
	}
	if a.When == nil {
		return value, true, nil
	}
	lower := strings.ToLower(value)
	switch {
	case slices.Contains(a.When, lower):
		return a.Means, true, nil
	case slices.Contains(a.Unless, lower):
		return "", false, nil
	case a.Else:
		return a.Means, true, nil
	}
	return "", false, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s is %q: want %s, or %s, which says nothing",
		a.Name, v1alpha1.Quoted(value), strings.Join(a.When, " or "), strings.Join(a.Unless, " or "))
}
