package instances

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const scheme = "aws://"

// errForeign says that a Node is no EC2 instance: a machine of another cloud or
// of none, or what AWS runs without one, as Fargate does.
var errForeign = errors.New("not an EC2 instance")

var idPattern = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)

// instanceID returns the instance that a Node names, by its providerID or by
// a name that AWS makes of the ID; "" when it names none.
func instanceID(node *corev1.Node, region string) (string, error) {
	providerID := node.Spec.ProviderID
	if providerID == "" {
		first, _, _ := strings.Cut(node.Name, ".")
		if idPattern.MatchString(first) {
			return first, nil
		}
		return "", nil
	}
	if !strings.HasPrefix(providerID, scheme) {
		return "", errForeign
	}
	zone, id := "", strings.TrimPrefix(providerID, scheme)
	if cut := strings.LastIndexByte(id, '/'); cut >= 0 {
		zone, id = strings.Trim(id[:cut], "/"), id[cut+1:]
	}
	if !strings.HasPrefix(id, "i-") {
		return "", errForeign
	}
	if !idPattern.MatchString(id) {
		return "", fmt.Errorf("providerID %q: %q is no ID of an instance", providerID, id)
	}
	// EC2 of another region would say that there is no such instance.
	if zone != "" && !strings.HasPrefix(zone, region) {
		return "", fmt.Errorf("providerID %q is not of region %s", providerID, region)
	}
	return id, nil
}

// nameOfEC2 says that only EC2 gives names like this one.
func nameOfEC2(name string) bool {
	return strings.HasSuffix(name, ".ec2.internal") || strings.HasSuffix(name, ".compute.internal")
}
