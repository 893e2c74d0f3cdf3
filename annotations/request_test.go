package annotations

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

type texts = map[string]string

func service(annotations map[string]string, loadBalancerIP string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Annotations: annotations},
		Spec:       corev1.ServiceSpec{LoadBalancerIP: loadBalancerIP},
	}
}

func addrs(texts ...string) []netip.Addr {
	var all []netip.Addr
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

func diff(want, got Request) string {
	return cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}))
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		name        string
		annotations map[string]string
		ip          string
		want        Request
	}{
		{"nothing", nil, "", Request{}},
		{"annotations of nobody", texts{"heraldlb.io/unknown": "x", "example.com/pool": "y"}, "", Request{}},

		{"one address", texts{Addresses: "203.0.113.17"}, "", Request{Addresses: addrs("203.0.113.17")}},
		{"both families, IPv4 first", texts{Addresses: " 2001:db8::17 , 203.0.113.17 "}, "", Request{Addresses: addrs("203.0.113.17", "2001:db8::17")}},
		{"the field", nil, "203.0.113.17", Request{Addresses: addrs("203.0.113.17")}},
		{"the field, IPv6", nil, "2001:DB8:0::17", Request{Addresses: addrs("2001:db8::17")}},
		{"field and annotation agree", texts{Addresses: "203.0.113.17"}, "203.0.113.17", Request{Addresses: addrs("203.0.113.17")}},
		{"field is one of the annotation's", texts{Addresses: "203.0.113.17,2001:db8::17"}, "2001:db8::17", Request{Addresses: addrs("203.0.113.17", "2001:db8::17")}},
		{"the same address in two spellings", texts{Addresses: "2001:db8::17", "metallb.io/loadBalancerIPs": "2001:0db8:0::0017"}, "", Request{Addresses: addrs("2001:db8::17")}},
		{"the same addresses in another order", texts{Addresses: "203.0.113.17,2001:db8::17", "lbipam.cilium.io/ips": "2001:db8::17, 203.0.113.17"}, "", Request{Addresses: addrs("203.0.113.17", "2001:db8::17")}},

		{"a pool", texts{Pool: "public"}, "", Request{Pool: "public"}},
		{"a sharing key", texts{Share: "web"}, "", Request{Share: "web"}},
		{"namespaces to share with", texts{ShareNamespaces: " mail,dns , dns"}, "", Request{ShareNamespaces: []string{"dns", "mail"}}},
		{"every namespace", texts{ShareNamespaces: "mail,*"}, "", Request{ShareNamespaces: []string{"*"}}},
		{"no namespace", texts{ShareNamespaces: " "}, "", Request{}},
		{"no namespace beside an alias that names one", texts{ShareNamespaces: "", "lbipam.cilium.io/sharing-cross-namespace": "dns"}, "", Request{ShareNamespaces: []string{"dns"}}},
		{"the same namespaces in another order", texts{ShareNamespaces: "dns,mail", "lbipam.cilium.io/sharing-cross-namespace": "mail,dns"}, "", Request{ShareNamespaces: []string{"dns", "mail"}}},
		{"internal", texts{Scope: "Internal"}, "", Request{Internal: true}},
		{"external", texts{Scope: "External"}, "", Request{}},
		{"mode VIP", texts{IPMode: "VIP"}, "", Request{IPMode: corev1.LoadBalancerIPModeVIP}},
		{"mode Proxy", texts{IPMode: "Proxy"}, "", Request{IPMode: corev1.LoadBalancerIPModeProxy}},
		{"spaces around", texts{Pool: " public\n", Scope: " Internal ", IPMode: " Proxy ", Share: " web "}, "",
			Request{Pool: "public", Share: "web", Internal: true, IPMode: corev1.LoadBalancerIPModeProxy}},

		{"ours and an alias agree", texts{Pool: "public", "metallb.io/address-pool": "public"}, "", Request{Pool: "public"}},
		{"an alias that says nothing leaves ours", texts{Scope: "External", "service.beta.kubernetes.io/azure-load-balancer-internal": "false"}, "", Request{}},
		{"ours and a cloud agree on internal", texts{Scope: "Internal", "networking.gke.io/load-balancer-type": "Internal"}, "", Request{Internal: true}},
		{"annotations that a template left empty", texts{Addresses: "", Pool: " ", Share: "", Scope: "", IPMode: "\n",
			"metallb.universe.tf/loadBalancerIPs": "", "metallb.universe.tf/address-pool": "", "metallb.universe.tf/allow-shared-ip": "",
			"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid": ""}, "", Request{}},
		{"an empty alias beside one with a value", texts{"kube-vip.io/loadbalancerIPs": "", "lbipam.cilium.io/ips": "203.0.113.17"}, "", Request{Addresses: addrs("203.0.113.17")}},
		{"an empty one of ours beside an alias", texts{Pool: "", "metallb.io/address-pool": "public"}, "", Request{Pool: "public"}},
		{"what AWS documented before true", texts{"service.beta.kubernetes.io/aws-load-balancer-internal": "0.0.0.0/0"}, "", Request{Internal: true}},
		{"not internal in AWS", texts{"service.beta.kubernetes.io/aws-load-balancer-internal": "false"}, "", Request{}},
		{"internal at IBM", texts{"service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type": "private"}, "", Request{Internal: true}},
		{"internal at Alibaba", texts{"service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type": "intranet"}, "", Request{Internal: true}},
		{"public at Alibaba", texts{"service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type": "internet"}, "", Request{}},
		{"internal at Oracle", texts{"service.beta.kubernetes.io/oci-load-balancer-internal": "true"}, "", Request{Internal: true}},
		{"a subnet of Tencent, whichever", texts{"service.kubernetes.io/qcloud-loadbalancer-internal-subnetid": "subnet-1"}, "", Request{Internal: true}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, refusal := Parse(service(c.annotations, c.ip))
			if refusal != nil {
				t.Fatal(refusal)
			}
			if diff := diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	const field = "spec.loadBalancerIP"
	for _, c := range []struct {
		name        string
		annotations map[string]string
		ip          string
		want        v1alpha1.Reason
		named       []string
	}{
		{"no address", texts{Addresses: "web"}, "", v1alpha1.InvalidAddress, []string{Addresses, `"web"`}},
		{"a comma too many", texts{Addresses: "203.0.113.17,"}, "", v1alpha1.InvalidAddress, []string{Addresses, `""`}},
		{"a prefix", texts{Addresses: "203.0.113.0/24"}, "", v1alpha1.InvalidAddress, []string{Addresses, `"203.0.113.0/24"`}},
		{"leading zeros", texts{Addresses: "203.0.113.017"}, "", v1alpha1.InvalidAddress, []string{Addresses}},
		{"IPv4 written as IPv6", texts{Addresses: "::ffff:203.0.113.17"}, "", v1alpha1.InvalidAddress, []string{Addresses, `"::ffff:203.0.113.17"`}},
		{"a zone", texts{Addresses: "fe80::1%eth0"}, "", v1alpha1.InvalidAddress, []string{Addresses, `"fe80::1%eth0"`}},
		{"two IPv4", texts{Addresses: "203.0.113.17,203.0.113.18"}, "", v1alpha1.InvalidAddress, []string{Addresses, "203.0.113.17", "203.0.113.18"}},
		{"two IPv6", texts{Addresses: "2001:db8::1,203.0.113.17,2001:db8::2"}, "", v1alpha1.InvalidAddress, []string{Addresses, "2001:db8::1", "2001:db8::2"}},
		{"one twice", texts{Addresses: "203.0.113.17,203.0.113.17"}, "", v1alpha1.InvalidAddress, []string{Addresses}},
		{"the field is no address", nil, "web.example.com", v1alpha1.InvalidAddress, []string{field, `"web.example.com"`}},
		{"the field with a zone", nil, "fe80::1%eth0", v1alpha1.InvalidAddress, []string{field}},
		{"field and annotation differ", texts{Addresses: "203.0.113.17"}, "203.0.113.18", v1alpha1.ConflictingRequests, []string{Addresses, field, "203.0.113.17", "203.0.113.18"}},
		{"one of the field's is not the annotation's", texts{Addresses: "203.0.113.17,2001:db8::1"}, "203.0.113.17,2001:db8::2", v1alpha1.ConflictingRequests, []string{Addresses, field}},
		{"two aliases differ", texts{"metallb.io/loadBalancerIPs": "203.0.113.17", "kube-vip.io/loadbalancerIPs": "203.0.113.18"}, "",
			v1alpha1.ConflictingRequests, []string{"metallb.io/loadBalancerIPs", "kube-vip.io/loadbalancerIPs"}},
		{"one asks for less", texts{Addresses: "203.0.113.17,2001:db8::17", "purelb.io/addresses": "203.0.113.17"}, "",
			v1alpha1.ConflictingRequests, []string{Addresses, "purelb.io/addresses"}},

		{"a key too long", texts{Share: strings.Repeat("x", 200_000)}, "", v1alpha1.InvalidAnnotation, []string{Share, "200000"}},
		{"a pool too long", texts{"metallb.io/address-pool": strings.Repeat("x", 254)}, "", v1alpha1.InvalidAnnotation, []string{"metallb.io/address-pool", "254"}},
		{"an address too long", texts{Addresses: strings.Repeat("1", 200_000)}, "", v1alpha1.InvalidAddress, []string{Addresses}},
		{"a scope too long", texts{Scope: strings.Repeat("x", 200_000)}, "", v1alpha1.InvalidAnnotation, []string{Scope}},
		{"a cloud's word that nobody documents", texts{"networking.gke.io/load-balancer-type": "private"}, "", v1alpha1.InvalidAnnotation,
			[]string{"networking.gke.io/load-balancer-type", `"private"`, "internal", "external"}},
		{"neither true nor false", texts{"service.beta.kubernetes.io/azure-load-balancer-internal": "maybe"}, "", v1alpha1.InvalidAnnotation,
			[]string{"service.beta.kubernetes.io/azure-load-balancer-internal", `"maybe"`}},
		{"pools differ", texts{Pool: "a", "metallb.io/address-pool": "b"}, "", v1alpha1.ConflictingRequests, []string{Pool, "metallb.io/address-pool", `"a"`, `"b"`}},
		{"shares differ", texts{"metallb.io/allow-shared-ip": "a", "lbipam.cilium.io/sharing-key": "b"}, "",
			v1alpha1.ConflictingRequests, []string{"metallb.io/allow-shared-ip", "lbipam.cilium.io/sharing-key"}},
		{"scope of another case", texts{Scope: "internal"}, "", v1alpha1.InvalidAnnotation, []string{Scope, `"internal"`, "External or Internal"}},
		{"scope and cloud differ", texts{Scope: "External", "service.beta.kubernetes.io/aws-load-balancer-internal": "true"}, "",
			v1alpha1.ConflictingRequests, []string{Scope, "service.beta.kubernetes.io/aws-load-balancer-internal"}},
		{"unknown mode", texts{IPMode: "vip"}, "", v1alpha1.InvalidAnnotation, []string{IPMode, `"vip"`, "VIP or Proxy"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, refusal := Parse(service(c.annotations, c.ip))
			if refusal == nil || refusal.Reason != c.want {
				t.Fatalf("got %#v, want %s", refusal, c.want)
			}
			for _, name := range c.named {
				if !strings.Contains(refusal.Message, name) {
					t.Errorf("%q does not name %s", refusal, name)
				}
			}
		})
	}
}

// good and other are values of each annotation, as Parse reads the first.
var good = map[string]struct {
	value, other string
	want         Request
}{
	Addresses:       {"203.0.113.17", "203.0.113.18", Request{Addresses: addrs("203.0.113.17")}},
	Pool:            {"public", "private", Request{Pool: "public"}},
	Share:           {"key", "other", Request{Share: "key"}},
	ShareNamespaces: {"mail, dns,mail", "dns", Request{ShareNamespaces: []string{"dns", "mail"}}},
	Scope:           {"Internal", "External", Request{Internal: true}},
	IPMode:          {"Proxy", "VIP", Request{IPMode: corev1.LoadBalancerIPModeProxy}},
}

func TestEveryAliasSaysWhatItStandsFor(t *testing.T) {
	for _, alias := range Aliases {
		t.Run(alias.Name, func(t *testing.T) {
			own, ok := good[alias.Of]
			if !ok {
				t.Fatalf("%q is not an annotation of ours", alias.Of)
			}
			if alias.Owner == "" {
				t.Error("it has no owner")
			}
			values := []string{own.value}
			switch {
			case alias.Any:
				values = []string{"x", "true", "false"}
			case alias.When != nil:
				values = nil
				for _, value := range alias.When {
					values = append(values, value, strings.ToUpper(value), " "+value+" ")
				}
				for _, value := range append(alias.Unless, "") {
					got, refusal := Parse(service(texts{alias.Name: value}, ""))
					if diff := diff(Request{}, got); diff != "" || refusal != nil {
						t.Errorf("a value that says nothing, %q: %v\n%s", value, refusal, diff)
					}
				}
				got, refusal := Parse(service(texts{alias.Name: "something-else"}, ""))
				if !got.Internal && (refusal == nil || !strings.Contains(refusal.Message, alias.Name)) {
					t.Errorf("a value that nobody documents: %+v, %v", got, refusal)
				}
			}
			for _, value := range values {
				got, refusal := Parse(service(texts{alias.Name: value}, ""))
				if refusal != nil {
					t.Fatalf("%q: %v", value, refusal)
				}
				if diff := diff(own.want, got); diff != "" {
					t.Errorf("%q: -want +got\n%s", value, diff)
				}
			}
			both := texts{alias.Of: own.value, alias.Name: values[0]}
			if got, refusal := Parse(service(both, "")); refusal != nil || diff(own.want, got) != "" {
				t.Errorf("beside ours that agrees: %v, %v", got, refusal)
			}
			both[alias.Of] = own.other
			_, refusal := Parse(service(both, ""))
			if refusal == nil || refusal.Reason != v1alpha1.ConflictingRequests ||
				!strings.Contains(refusal.Message, alias.Of) || !strings.Contains(refusal.Message, alias.Name) {
				t.Errorf("beside ours that disagrees: %v, want a conflict that names both", refusal)
			}
		})
	}
}

func TestAnnotationsAreDeclaredOnce(t *testing.T) {
	seen := map[string]bool{}
	for _, own := range Own {
		if seen[own.Name] || !strings.HasPrefix(own.Name, v1alpha1.GroupName+"/") {
			t.Errorf("%s is declared twice or not ours", own.Name)
		}
		if _, ok := good[own.Name]; !ok || own.Type == "" || own.Default == "" || own.Doc == "" {
			t.Errorf("%s lacks a test or a doc", own.Name)
		}
		seen[own.Name] = true
	}
	for _, alias := range Aliases {
		if seen[alias.Name] {
			t.Errorf("%s is declared twice", alias.Name)
		}
		seen[alias.Name] = true
	}
}

func TestSourceRanges(t *testing.T) {
	const old = corev1.AnnotationLoadBalancerSourceRangesKey
	for _, c := range []struct {
		name        string
		field       []string
		annotations map[string]string
		want        []string
		refused     []string // what the refusal names
	}{
		{"none", nil, nil, nil, nil},
		{"the field", []string{"198.51.100.0/24", " 2001:db8::/32 "}, nil, []string{"198.51.100.0/24", "2001:db8::/32"}, nil},
		{"the old annotation", nil, texts{old: "198.51.100.0/24, 2001:db8::/32"}, []string{"198.51.100.0/24", "2001:db8::/32"}, nil},
		{"the field before the annotation", []string{"10.0.0.0/8"}, texts{old: "198.51.100.0/24"}, []string{"10.0.0.0/8"}, nil},
		{"a broken annotation beside the field", []string{"10.0.0.0/8"}, texts{old: "x"}, []string{"10.0.0.0/8"}, nil},
		{"the annotation empty", nil, texts{old: " "}, nil, nil},
		{"no prefix", []string{"10.0.0.0/8", "198.51.100.1"}, nil, nil, []string{"spec.loadBalancerSourceRanges", `"198.51.100.1"`}},
		{"a prefix too long", []string{"10.0.0.0/33"}, nil, nil, []string{"spec.loadBalancerSourceRanges", `"10.0.0.0/33"`}},
		{"no prefix in the annotation", nil, texts{old: "10.0.0.0/8,everyone"}, nil, []string{old, `"everyone"`}},
		{"a comma too many in the annotation", nil, texts{old: "10.0.0.0/8,"}, nil, []string{old, `""`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := service(c.annotations, "")
			s.Spec.LoadBalancerSourceRanges = c.field
			prefixes, refusal := SourceRanges(s)
			var got []string
			for _, prefix := range prefixes {
				got = append(got, prefix.String())
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
			if (refusal != nil) != (c.refused != nil) {
				t.Fatalf("refusal %v, want one that names %q", refusal, c.refused)
			}
			for _, name := range c.refused {
				if refusal.Reason != v1alpha1.InvalidSourceRange || !strings.Contains(refusal.Message, name) {
					t.Errorf("%s: %q does not name %s", refusal.Reason, refusal, name)
				}
			}
		})
	}
}

// Whatever stands there, it is read or refused, and the refusal names where it
// stands.
func FuzzParse(f *testing.F) {
	f.Add("203.0.113.17", "Internal", "", uint8(0), uint8(14))
	f.Add("2001:db8::1,203.0.113.17", "public", "203.0.113.17", uint8(0), uint8(1))
	f.Add("VIP", "10.0.0.0/8,x", "::ffff:1.2.3.4", uint8(4), uint8(255))
	f.Add(",", "\x00", "%", uint8(3), uint8(7))
	names := []string{corev1.AnnotationLoadBalancerSourceRangesKey}
	for _, own := range Own {
		names = append(names, own.Name)
	}
	for _, alias := range Aliases {
		names = append(names, alias.Name)
	}
	f.Fuzz(func(t *testing.T, one, two, ip string, first, second uint8) {
		set := texts{names[int(first)%len(names)]: one, names[int(second)%len(names)]: two}
		s := service(set, ip)
		request, refusal := Parse(s)
		_, ranges := SourceRanges(s)
		for _, refusal := range []*v1alpha1.Refusal{refusal, ranges} {
			if refusal == nil {
				continue
			}
			named := strings.Contains(refusal.Message, "spec.loadBalancerIP")
			for name := range set {
				named = named || strings.Contains(refusal.Message, name)
			}
			if refusal.Reason == "" || !named || len(refusal.Message) > v1alpha1.MaxMessage {
				t.Errorf("%v, %q: refused for %q %q, which names no annotation", set, ip, refusal.Reason, refusal.Message)
			}
		}
		if refusal != nil {
			return
		}
		if n := len(request.Addresses); n > 2 || n == 2 && !(request.Addresses[0].Is4() && request.Addresses[1].Is6()) {
			t.Errorf("%v, %q: addresses %v", set, ip, request.Addresses)
		}
		for _, addr := range request.Addresses {
			if !addr.IsValid() || addr.Zone() != "" || addr.Is4In6() {
				t.Errorf("%v, %q: %v is no plain address", set, ip, addr)
			}
		}
	})
}
