package annotations

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// SourceRanges returns the prefixes that clients must come from; none means
// everywhere. The field loadBalancerSourceRanges counts; when it is empty, the
// old annotation service.beta.kubernetes.io/load-balancer-source-ranges.
func SourceRanges(service *corev1.Service) ([]netip.Prefix, *v1alpha1.Refusal) {
	by, ranges := "spec.loadBalancerSourceRanges", service.Spec.LoadBalancerSourceRanges
	if len(ranges) == 0 {
		value := strings.TrimSpace(service.Annotations[corev1.AnnotationLoadBalancerSourceRangesKey])
		if value == "" {
			return nil, nil
		}
		by, ranges = corev1.AnnotationLoadBalancerSourceRangesKey, strings.Split(value, ",")
	}
	prefixes := make([]netip.Prefix, 0, len(ranges))
	for _, field := range ranges {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(field))
		if err != nil {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidSourceRange, "%s has %q: want a prefix such as 198.51.100.0/24 or 2001:db8::/32", by, v1alpha1.Quoted(field))
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}
