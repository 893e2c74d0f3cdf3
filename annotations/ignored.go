package annotations

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

const (
	// own is the prefix of Herald's annotations.
	own = v1alpha1.GroupName + "/"
	// maxNamed is how many annotations are named; a Service can have very many.
	maxNamed = 8
)

// others are the prefixes of annotations by which clouds and other providers
// are told how to make a load balancer. What is not among Aliases does nothing
// on bare metal.
var others = []string{
	"service.beta.kubernetes.io/", "service.kubernetes.io/", "service.alpha.kubernetes.io/",
	"cloud.google.com/load-balancer-", "networking.gke.io/load-balancer-", "cloud.google.com/l4-",
	"kubernetes.io/elb.", "load-balancer.hetzner.cloud/", "loadbalancer.openstack.org/", "yandex.cloud/",
	"oci-network-load-balancer.oraclecloud.com/", "oci.oraclecloud.com/",
	"metallb.io/", "metallb.universe.tf/", "lbipam.cilium.io/", "io.cilium/lb-ipam-", "kube-vip.io/", "purelb.io/",
}

// harmless are annotations with such a prefix that ask a load balancer for
// nothing: Kubernetes' own, and what other providers note down for themselves.
var harmless = []string{
	corev1.AnnotationLoadBalancerSourceRangesKey,
	corev1.AnnotationTopologyMode, corev1.DeprecatedAnnotationTopologyAwareHints,
	"metallb.io/ip-allocated-from-pool", "metallb.universe.tf/ip-allocated-from-pool",
	"kube-vip.io/vipHost", "kube-vip.io/hwaddr", "kube-vip.io/requestedIP", "kube-vip.io/active-endpoint",
	"purelb.io/allocated-by", "purelb.io/allocated-from", "purelb.io/announcing-IPv4", "purelb.io/announcing-IPv6",
}

// Unknown returns the annotations with Herald's prefix that Herald does not
// have, in order: misspelt ones, as a rule.
func Unknown(service *corev1.Service) []string {
	return slices.DeleteFunc(named(service), func(name string) bool {
		return !strings.HasPrefix(name, own) || isOwn(name)
	})
}

// Ignored returns sentences that name the annotations that do nothing for a
// Service on bare metal, though their author expects something of them.
func Ignored(service *corev1.Service) []string {
	var sentences []string
	if unknown := Unknown(service); len(unknown) > 0 {
		sentences = append(sentences, UnknownSentence(unknown))
	}
	var foreign []string
	for _, name := range named(service) {
		has := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
		if slices.ContainsFunc(others, has) && !slices.Contains(harmless, name) && !isAlias(name) {
			foreign = append(foreign, name)
		}
	}
	if len(foreign) > 0 {
		sentences = append(sentences, fmt.Sprintf("Of another provider, and without effect here: %s.", list(foreign)))
	}
	return sentences
}

// UnknownSentence names annotations with Herald's prefix that Herald does not
// have, and those that it has.
func UnknownSentence(unknown []string) string {
	var known []string
	for i := range Own {
		known = append(known, strings.TrimPrefix(Own[i].Name, own))
	}
	return fmt.Sprintf("Herald does not know %s. After %s it knows %s.", list(unknown), own, strings.Join(known, ", "))
}

// named are the names of the annotations with a value, in order.
func named(service *corev1.Service) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(service.Annotations)), func(name string) bool {
		return strings.TrimSpace(service.Annotations[name]) == ""
	})
}

func isOwn(name string) bool {
	return slices.ContainsFunc(Own, func(a Annotation) bool { return a.Name == name })
}

func isAlias(name string) bool {
	return slices.ContainsFunc(Aliases, func(a Alias) bool { return a.Name == name })
}

// list joins names, few and short enough to read.
func list(names []string) string {
	more := ""
	if n := len(names) - maxNamed; n > 0 {
		names, more = names[:maxNamed], fmt.Sprintf(" and %d more", n)
	}
	short := make([]string, len(names))
	for i, name := range names {
		short[i] = v1alpha1.Quoted(name)
	}
	return strings.Join(short, ", ") + more
}
