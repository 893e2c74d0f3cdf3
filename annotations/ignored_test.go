package annotations

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

func TestIgnored(t *testing.T) {
	const unknown = "Herald does not know heraldlb.io/adresses. After heraldlb.io/ it knows "
	for _, c := range []struct {
		name        string
		annotations texts
		want        []string // beginnings
	}{
		{"nothing", nil, nil},
		{"all of ours", texts{Addresses: "203.0.113.1", Pool: "p", Share: "s", Scope: "Internal", IPMode: "VIP"}, nil},
		{"one misspelt", texts{"heraldlb.io/adresses": "203.0.113.1"}, []string{unknown}},
		{"one misspelt and empty", texts{"heraldlb.io/adresses": " "}, nil},
		{"aliases", texts{"metallb.io/address-pool": "p", "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type": "public"}, nil},
		{"certificates of AWS", texts{
			"service.beta.kubernetes.io/aws-load-balancer-ssl-cert": "arn:…", "service.beta.kubernetes.io/aws-load-balancer-proxy-protocol": "*",
		}, []string{"Of another provider, and without effect here: service.beta.kubernetes.io/aws-load-balancer-proxy-protocol, service.beta.kubernetes.io/aws-load-balancer-ssl-cert."}},
		{"those of Tencent", texts{
			"service.kubernetes.io/qcloud-loadbalancer-backends-label":                "key in (value1, value2)",
			"service.kubernetes.io/tke-existed-lbid":                                  "lb-6swtxxxx",
			"service.kubernetes.io/service.extensiveParameters":                       "{}",
			"service.kubernetes.io/service.listenerParameters":                        "{}",
			"service.kubernetes.io/loadbalance-type":                                  "classic",
			"service.kubernetes.io/qcloud-loadbalancer-internet-charge-type":          "x",
			"service.kubernetes.io/qcloud-loadbalancer-internet-max-bandwidth-out":    "10",
			"service.kubernetes.io/local-svc-only-bind-node-with-pod":                 "true",
			"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid-is-no-alias": "x",
		}, []string{"Of another provider, and without effect here: service.kubernetes.io/loadbalance-type, service.kubernetes.io/local-svc-only-bind-node-with-pod, service.kubernetes.io/qcloud-loadbalancer-backends-label, "}},
		{"ours and theirs", texts{"heraldlb.io/adresses": "x", "metallb.io/loadBalancerIP": "x"}, []string{unknown, "Of another provider, and without effect here: metallb.io/loadBalancerIP."}},
		{"Kubernetes' own, and notes of others", texts{
			corev1.AnnotationTopologyMode: "Auto", corev1.AnnotationLoadBalancerSourceRangesKey: "10.0.0.0/8",
			"metallb.universe.tf/ip-allocated-from-pool": "p", "kube-vip.io/vipHost": "n", "example.com/x": "y",
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Ignored(service(c.annotations, ""))
			for i := range min(len(got), len(c.want)) {
				if strings.HasPrefix(got[i], c.want[i]) {
					got[i] = c.want[i]
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatIsIgnoredIsNamedInBoundedLength(t *testing.T) {
	set := texts{}
	for i := range 5000 {
		set[fmt.Sprintf("heraldlb.io/%d-%s", i, strings.Repeat("x", 50))] = "x"
		set[fmt.Sprintf("metallb.io/%d-%s", i, strings.Repeat("x", 50))] = "x"
	}
	for _, sentence := range Ignored(service(set, "")) {
		if len(sentence) > 900 || !strings.Contains(sentence, "and 4992 more") {
			t.Errorf("%d bytes: %s", len(sentence), sentence)
		}
	}
}
