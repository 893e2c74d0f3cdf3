package baremetal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/ipam"
)

// problem is something wrong with an object that leaves the rest of it in force.
type problem struct {
	reason  v1alpha1.Reason
	message string
}

// readyCondition sums up the problems of an object.
func readyCondition(problems []problem, good string, generation int64) metav1.Condition {
	condition := metav1.Condition{
		Type:               v1alpha1.ConditionReady,
		Status:             metav1.ConditionTrue,
		Reason:             string(v1alpha1.Valid),
		Message:            good,
		ObservedGeneration: generation,
	}
	if len(problems) == 0 {
		return condition
	}
	messages := make([]string, len(problems))
	for i, p := range problems {
		messages[i] = p.message
	}
	condition.Status = metav1.ConditionFalse
	condition.Reason = string(problems[0].reason)
	condition.Message = truncate(strings.Join(messages, " "), 4096)
	return condition
}

// poolCondition is the condition Ready of a pool. That nodes have some of its addresses is a problem; that a subnet or a
// Service has one is said, and so is who has addresses that the pool has no more.
func poolCondition(problems []problem, nodes, others, outside []string, offLink bool, generation int64) metav1.Condition {
	if len(nodes) > 0 {
		problems = append(problems, problem{v1alpha1.NodeAddress, fmt.Sprintf(
			"Addresses of nodes are not given: %s. Take them out of the pool.", some(nodes, "; "))})
	}
	good := "All addresses of the pool can be given."
	if len(others) > 0 {
		good = fmt.Sprintf("All addresses of the pool can be given but for %d that are something else: %s.", len(others), some(others, "; "))
	}
	if offLink {
		good += " None is on a link of a node: they are announced on the link of the nodes' InternalIPs, and other hosts need a route to them there."
	}
	condition := readyCondition(problems, good, generation)
	if len(outside) > 0 {
		condition.Message = truncate(condition.Message, 4096) + fmt.Sprintf(
			" In use, given from the pool and in it no more: %s.", some(outside, "; "))
	}
	return condition
}

func truncate(s string, length int) string {
	if len(s) <= length {
		return s
	}
	return strings.ToValidUTF8(s[:length-3], "") + "..."
}

// parsePools reads the AddressPools, oldest first, as the allocator wants
// them, and says by name what is wrong with each.
func parsePools(objects []*v1alpha1.AddressPool) ([]ipam.Pool, map[string][]problem) {
	objects = slices.Clone(objects)
	slices.SortFunc(objects, func(a, b *v1alpha1.AddressPool) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
	})
	pools := make([]ipam.Pool, 0, len(objects))
	problems := map[string][]problem{}
	for _, object := range objects {
		pool, wrong := parsePool(object)
		pools = append(pools, pool)
		if len(wrong) > 0 {
			problems[object.Name] = wrong
		}
	}
	return pools, problems
}

// parsePool reads one AddressPool. What is wrong is left out and told.
func parsePool(object *v1alpha1.AddressPool) (ipam.Pool, []problem) {
	spec := &object.Spec
	pool := ipam.Pool{
		Name:            object.Name,
		AvoidBuggyIPs:   spec.AvoidBuggyIPs,
		AutoAssign:      spec.AutoAssign == nil || *spec.AutoAssign,
		Internal:        spec.Scope == v1alpha1.ScopeInternal,
		Priority:        spec.Priority,
		MaxPerNamespace: int(spec.MaxPerNamespace),
	}
	var problems, more []problem
	pool.Ranges, problems = parseRanges("spec.addresses", spec.Addresses)
	pool.Exclude, more = parseRanges("spec.exclude", spec.Exclude)
	problems = append(problems, more...)
	if spec.StaticBand != nil {
		band, err := ipam.ParseBand(spec.StaticBand.String())
		if err != nil {
			problems = append(problems, problem{v1alpha1.InvalidStaticBand, fmt.Sprintf("spec.staticBand: %v.", err)})
		}
		pool.StaticBand = band
	}
	if spec.IPMode == v1alpha1.IPModeProxy && spec.Announce != v1alpha1.AnnounceNever {
		// The API server refuses it; pools from before it did so may have it.
		problems = append(problems, problem{v1alpha1.ConflictingRequests,
			"spec.ipMode is Proxy and the pool is announced: kube-proxy makes no rule for such an address, so nobody could answer. " +
				"Set announce: None if something else routes the addresses, or ipMode: VIP."})
	}
	serves, more := parseServes(spec)
	pool.Serves = serves
	return pool, append(problems, more...)
}

func parseRanges(field string, texts []string) ([]ipam.Range, []problem) {
	var ranges []ipam.Range
	var problems []problem
	for _, text := range texts {
		r, err := ipam.ParseRange(text)
		if err != nil {
			problems = append(problems, problem{v1alpha1.InvalidRange, fmt.Sprintf("%s: %v.", field, err)})
			continue
		}
		ranges = append(ranges, r)
	}
	return ranges, problems
}

// parseServes turns the selectors into a predicate. A selector that cannot be
// read selects nothing: to serve nobody is safer than to serve everybody.
func parseServes(spec *v1alpha1.AddressPoolSpec) (func(*ipam.Request) bool, []problem) {
	services, problems := parseSelector("spec.serviceSelector", spec.ServiceSelector)
	namespaces, more := parseSelector("spec.namespaceSelector", spec.NamespaceSelector)
	problems = append(problems, more...)
	if spec.ServiceSelector == nil && spec.NamespaceSelector == nil && len(spec.Namespaces) == 0 {
		return nil, problems
	}
	byName := slices.Clone(spec.Namespaces)
	slices.Sort(byName)
	limited := spec.NamespaceSelector != nil || len(byName) > 0
	return func(r *ipam.Request) bool {
		if !services.Matches(labels.Set(r.Labels)) {
			return false
		}
		if !limited {
			return true
		}
		if _, named := slices.BinarySearch(byName, r.Key.Namespace); named {
			return true
		}
		return spec.NamespaceSelector != nil && namespaces.Matches(labels.Set(r.NamespaceLabels))
	}, problems
}

// parseSelector reads a selector; none selects everything, a broken one nothing.
func parseSelector(field string, selector *metav1.LabelSelector) (labels.Selector, []problem) {
	if selector == nil {
		return labels.Everything(), nil
	}
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing(), []problem{{v1alpha1.InvalidSelector, fmt.Sprintf("%s: %v.", field, err)}}
	}
	return parsed, nil
}
