package baremetal

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

func keyOf(service *corev1.Service) ipam.Key {
	return ipam.Key{Namespace: service.Namespace, Name: service.Name}
}

// parseRequest reads from a Service what it wants of the allocator.
func parseRequest(service *corev1.Service, namespaceLabels map[string]string) (*ipam.Request, annotations.Request, *v1alpha1.Refusal) {
	asked, refusal := annotations.Parse(service)
	if refusal != nil {
		return nil, asked, refusal
	}
	if _, refusal := annotations.SourceRanges(service); refusal != nil {
		return nil, asked, refusal
	}
	request := factsOf(service)
	request.Addresses, request.Pool, request.Internal = asked.Addresses, asked.Pool, asked.Internal
	request.Share, request.Consent = asked.Share, asked.ShareNamespaces
	request.NamespaceLabels = namespaceLabels
	return request, asked, nil
}

// factsOf is what a Service does on its addresses, whatever its annotations ask for.
func factsOf(service *corev1.Service) *ipam.Request {
	request := &ipam.Request{
		Key:     keyOf(service),
		Local:   isLocal(service),
		Backend: backendOf(service),
		Labels:  service.Labels,
	}
	for _, family := range service.Spec.IPFamilies {
		request.Families = append(request.Families, ipam.Family(family))
	}
	if policy := service.Spec.IPFamilyPolicy; policy != nil {
		request.Partial = *policy == corev1.IPFamilyPolicyPreferDualStack
	}
	for _, port := range service.Spec.Ports {
		request.Ports = append(request.Ports, ipam.Port{Protocol: ipam.Protocol(port.Protocol), Port: uint16(port.Port)})
	}
	return request
}

func isLocal(service *corev1.Service) bool {
	return service.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

// backendOf is the selector in a form that can be compared: Services of policy
// Local share an address only if the same pods serve them.
func backendOf(service *corev1.Service) string {
	if len(service.Spec.Selector) == 0 {
		return ""
	}
	return service.Namespace + "/" + labels.Set(service.Spec.Selector).String()
}

// claimFor is what a VirtualIP says of a Service.
func claimFor(service *corev1.Service) v1alpha1.Claim {
	claim := v1alpha1.Claim{
		Namespace:             service.Namespace,
		Name:                  service.Name,
		UID:                   service.UID,
		ExternalTrafficPolicy: service.Spec.ExternalTrafficPolicy,
		HealthCheckNodePort:   service.Spec.HealthCheckNodePort,
	}
	if asked, refusal := annotations.Parse(service); refusal == nil {
		claim.Share, claim.ShareNamespaces, claim.Scope = asked.Share, asked.ShareNamespaces, v1alpha1.ScopeExternal
		if asked.Internal {
			claim.Scope = v1alpha1.ScopeInternal
		}
	}
	for _, port := range service.Spec.Ports {
		claim.Ports = append(claim.Ports, v1alpha1.ClaimPort{Protocol: port.Protocol, Port: port.Port})
	}
	return claim
}

// holdingFor is what the allocator should know of a claim that a VirtualIP
// has. Only the selector stands on the Service, as far as there is one. What
// the Service asks for now it may have been refused, and those who share the
// address with it must not suffer from that.
func holdingFor(claim *v1alpha1.Claim, pool string, service *corev1.Service) ipam.Claim {
	holding := ipam.Claim{
		Pool:          pool,
		Scope:         ipam.Scope(claim.Scope),
		Share:         claim.Share,
		Consent:       claim.ShareNamespaces,
		Grandfathered: claim.Grandfathered,
		Local:         claim.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal,
	}
	if claim.Since != nil {
		holding.Since = claim.Since.Time
	}
	for _, port := range claim.Ports {
		holding.Ports = append(holding.Ports, ipam.Port{Protocol: ipam.Protocol(port.Protocol), Port: uint16(port.Port)})
	}
	if service != nil {
		holding.Backend = backendOf(service)
		holding.Outdated = asksOtherwise(claim, service)
	}
	return holding
}

// asksOtherwise reports whether the Service asks to be shared in another way than its claim says, as far as it can be read.
func asksOtherwise(claim *v1alpha1.Claim, service *corev1.Service) bool {
	if claim.Share == "" {
		return false // nobody joins anyway
	}
	if claim.ExternalTrafficPolicy != service.Spec.ExternalTrafficPolicy {
		return true
	}
	asked, refusal := annotations.Parse(service)
	return refusal == nil && (asked.Share != claim.Share || !slices.Equal(asked.ShareNamespaces, claim.ShareNamespaces))
}

// ingress is the entry of status.loadBalancer for an address.
func ingress(address string, mode corev1.LoadBalancerIPMode) corev1.LoadBalancerIngress {
	if mode == "" {
		mode = corev1.LoadBalancerIPModeVIP
	}
	return corev1.LoadBalancerIngress{IP: address, IPMode: &mode}
}
