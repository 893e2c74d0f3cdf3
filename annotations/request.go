package annotations

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// Request is what a Service asks of a provider beside its typed fields.
type Request struct {
	// Addresses wanted, IPv4 before IPv6, at most one of each; empty means any.
	Addresses []netip.Addr
	// Pool wanted; empty means any.
	Pool string
	// Share is the sharing key; empty means an address of its own.
	Share string
	// ShareNamespaces are the other namespaces whose Services may share the
	// address, sorted; "*" alone is every namespace.
	ShareNamespaces []string
	// Internal asks for a pool of scope Internal.
	Internal bool
	// IPMode to report; empty means that of the pool.
	IPMode corev1.LoadBalancerIPMode
}

// maxName is how long a name or a key may be: as long as that of an object.
const maxName = 253

// Parse reads the annotations and the deprecated field loadBalancerIP of a
// Service. The refusal, if any, names the annotation, its value and what would
// be right.
func Parse(service *corev1.Service) (Request, *v1alpha1.Refusal) {
	var request Request
	all, refusal := say(service.Annotations)
	if refusal != nil {
		return request, refusal
	}
	if service.Spec.LoadBalancerIP != "" {
		all[Addresses] = append(all[Addresses], said{"spec.loadBalancerIP", service.Spec.LoadBalancerIP})
	}

	addresses, refusal := parseAddresses(all[Addresses])
	if refusal != nil {
		return request, refusal
	}
	request.Addresses = addresses
	if request.Pool, refusal = agreed(all[Pool], nil); refusal != nil {
		return request, refusal
	}
	if request.Share, refusal = agreed(all[Share], nil); refusal != nil {
		return request, refusal
	}
	if request.ShareNamespaces, refusal = parseNamespaces(all[ShareNamespaces], service.Namespace); refusal != nil {
		return request, refusal
	}
	scope, refusal := agreed(all[Scope], []string{"External", "Internal"})
	if refusal != nil {
		return request, refusal
	}
	request.Internal = scope == "Internal"
	mode, refusal := agreed(all[IPMode], []string{"VIP", "Proxy"})
	if refusal != nil {
		return request, refusal
	}
	request.IPMode = corev1.LoadBalancerIPMode(mode)
	return request, nil
}

// agreed returns the one value that all say, one of allowed if that is given.
func agreed(all []said, allowed []string) (string, *v1alpha1.Refusal) {
	if len(all) == 0 {
		return "", nil
	}
	for _, s := range all {
		if allowed != nil && !slices.Contains(allowed, s.value) {
			return "", v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s is %q: want %s", s.by, s.quoted(), strings.Join(allowed, " or "))
		}
		if len(s.value) > maxName {
			return "", v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %d characters, %q: want %d at most", s.by, len(s.value), s.quoted(), maxName)
		}
		if s.value != all[0].value {
			return "", v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%s says %q and %s says %q: remove one, or make them agree", all[0].by, all[0].quoted(), s.by, s.quoted())
		}
	}
	return all[0].value, nil
}

func parseAddresses(all []said) ([]netip.Addr, *v1alpha1.Refusal) {
	var first []netip.Addr
	for i, s := range all {
		addresses, refusal := parseAddressList(s)
		if refusal != nil {
			return nil, refusal
		}
		if i == 0 {
			first = addresses
			continue
		}
		// loadBalancerIP holds one address: it agrees with a list that has it.
		if s.by == "spec.loadBalancerIP" && len(addresses) == 1 && slices.Contains(first, addresses[0]) {
			continue
		}
		if !slices.Equal(first, addresses) {
			return nil, v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%s says %q and %s says %q: remove one, or make them agree", all[0].by, all[0].quoted(), s.by, s.quoted())
		}
	}
	return first, nil
}

func parseAddressList(s said) ([]netip.Addr, *v1alpha1.Refusal) {
	var addresses []netip.Addr
	for field := range strings.SplitSeq(s.value, ",") {
		field = strings.TrimSpace(field)
		addr, err := netip.ParseAddr(field)
		if err != nil || addr.Zone() != "" || addr.Is4In6() {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAddress, "%s has %q, which is not an IP address: want one such as 203.0.113.17 or 2001:db8::17, or one of each family separated by a comma", s.by, v1alpha1.Quoted(field))
		}
		for _, other := range addresses {
			if other.Is4() == addr.Is4() {
				return nil, v1alpha1.Refuse(v1alpha1.InvalidAddress, "%s has two addresses of one family, %s and %s: a Service takes at most one IPv4 and one IPv6 address", s.by, other, addr)
			}
		}
		addresses = append(addresses, addr)
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return addresses, nil
}

// maxNamespaces is how many namespaces a Service may name.
const maxNamespaces = 64

// parseNamespaces reads the namespaces that a Service of the namespace own
// consents to share with. An empty value names none.
func parseNamespaces(all []said, own string) ([]string, *v1alpha1.Refusal) {
	var first []string
	var by string
	for _, s := range all {
		if s.value == "" {
			continue
		}
		names, refusal := parseNamespaceList(s, own)
		if refusal != nil {
			return nil, refusal
		}
		if by != "" && !slices.Equal(first, names) {
			return nil, v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%s and %s name different namespaces: remove one, or make them agree", by, s.by)
		}
		first, by = names, s.by
	}
	return first, nil
}

func parseNamespaceList(s said, own string) ([]string, *v1alpha1.Refusal) {
	var names []string
	for field := range strings.SplitSeq(s.value, ",") {
		field = strings.TrimSpace(field)
		if field == "*" {
			return []string{"*"}, nil
		}
		if len(validation.IsDNS1123Label(field)) > 0 {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %.63q, which is no name of a namespace: want names separated by commas, or * for every namespace", s.by, field)
		}
		if field != own {
			names = append(names, field)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) > maxNamespaces {
		return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s names %d namespaces: want at most %d, or * for every namespace", s.by, len(names), maxNamespaces)
	}
	return names, nil
}
