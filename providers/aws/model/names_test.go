package model

import (
	"regexp"
	"strings"
	"testing"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// Whatever a Service is called, the names of its pieces are such as AWS takes:
// of 32 characters, letters, digits and single hyphens, none at an end.
func TestNames(t *testing.T) {
	good := regexp.MustCompile(`^[A-Za-z0-9]+(-[A-Za-z0-9]+)*$`)
	names := map[string]string{}
	for _, namespace := range []string{"shop", "a", "a-b-c-d-e-f-g", strings.Repeat("n", 63), "kube-system"} {
		for _, name := range []string{"web", "account-svc", "a--b", "checkout-", "x-y-z-x-y-z", strings.Repeat("s", 63)} {
			id := Identity{Cluster: "prod", Namespace: namespace, Name: name, UID: "0f9e8d7c-6b5a-4938-2716-" + namespace + name}
			for _, port := range []int32{80, 65535} {
				group := id.targetGroupName(port, settings.TCPUDP, true, false)
				if !good.MatchString(group) || len(group) > 32 {
					t.Errorf("%s/%s: %q", namespace, name, group)
				}
				if other, twice := names[group]; twice {
					t.Errorf("%s/%s and %s have %q", namespace, name, other, group)
				}
				names[group] = namespace + "/" + name
			}
		}
	}
	id := Identity{Cluster: "prod", Namespace: "my-namespace", Name: "account-svc", UID: "1"}
	if got := id.targetGroupName(80, settings.TCP, false, false); !strings.HasPrefix(got, "k8s-mynamesp-accounts-") {
		t.Errorf("%q does not start as the in-tree provider has it", got)
	}
}
