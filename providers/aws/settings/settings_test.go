package settings

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/heraldlb/herald/api/v1alpha1"
)

type texts = map[string]string

// service has the annotations, named without the prefix.
func service(annotations texts, edits ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: texts{"example.com/mine": "x"}},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyCluster, HealthCheckNodePort: 32000,
			Ports: []corev1.ServicePort{
				{Name: "http", Port: 80, NodePort: 30080, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8080)},
				{Name: "https", Port: 443, NodePort: 30443, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("tls")},
			},
		},
	}
	for name, value := range annotations {
		s.Annotations[Prefix+name] = value
	}
	for _, edit := range edits {
		edit(s)
	}
	return s
}

// plain is what a Service gets that asks for nothing.
func plain(kind Kind) Settings {
	s := Settings{
		Kind: kind, ManageNodeRules: true, ALPN: "None", Draining: Draining{Timeout: 300 * time.Second}, AccessLog: AccessLog{Interval: time.Hour},
		Ports: []Port{
			{Name: "http", Port: 80, Listener: TCP, Target: TCP, NodePort: 30080, TargetPort: "8080"},
			{Name: "https", Port: 443, Listener: TCP, Target: TCP, NodePort: 30443, TargetPort: "tls"},
		},
		Health: Health{Protocol: HTTP, Port: 10256, Path: "/healthz", Codes: "200-399", Healthy: 3, Unhealthy: 3, Interval: 10 * time.Second, Timeout: 6 * time.Second},
	}
	if kind == Classic {
		s.Health.Codes, s.Health.Healthy, s.Health.Unhealthy, s.Health.Timeout = "", 2, 6, 5*time.Second
	}
	return s
}

func TestParse(t *testing.T) {
	protocols := func(pairs ...Protocol) func(*Settings) {
		return func(s *Settings) {
			for i := range s.Ports {
				s.Ports[i].Listener, s.Ports[i].Target = pairs[2*i], pairs[2*i+1]
			}
		}
	}
	secure := func(certificates ...string) func(*Settings) {
		return func(s *Settings) { s.Certificates = certificates }
	}
	both := func(edits ...func(*Settings)) func(*Settings) {
		return func(s *Settings) {
			for _, edit := range edits {
				edit(s)
			}
		}
	}
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	for _, c := range []struct {
		name        string
		annotations texts
		edit        func(*corev1.Service)
		kinds       []Kind
		want        func(*Settings)
	}{
		{"nothing", nil, nil, []Kind{Classic, Network}, func(*Settings) {}},
		{"internal", texts{"internal": " true "}, nil, []Kind{Classic, Network}, func(s *Settings) { s.Internal = true }},
		{"internal, empty", texts{"internal": ""}, nil, []Kind{Classic, Network}, func(*Settings) {}},
		{"the scheme before internal", texts{"internal": "true", "scheme": "internet-facing"}, nil, []Kind{Network}, func(*Settings) {}},
		{"draining", texts{"connection-draining-enabled": "true", "connection-draining-timeout": "60"}, nil, []Kind{Classic, Network},
			func(s *Settings) { s.Draining = Draining{Given: true, Enabled: true, Timeout: time.Minute} }},
		{"logs", texts{"access-log-enabled": "true", "access-log-s3-bucket-name": "b", "access-log-s3-bucket-prefix": "p"}, nil, []Kind{Classic, Network},
			func(s *Settings) { s.AccessLog = AccessLog{true, "b", "p", time.Hour} }},
		{"tags", texts{"additional-resource-tags": "a=b, c= ,d,e=f=g"}, nil, []Kind{Classic, Network}, func(s *Settings) { s.Tags = texts{"a": "b", "c": "", "d": "", "e": "f=g"} }},
		{"groups", texts{"extra-security-groups": "sg-2, my group ,"}, nil, []Kind{Classic, Network}, func(s *Settings) { s.ExtraGroups = []string{"sg-2", "my group"} }},

		{"TLS", texts{"ssl-cert": "arn:a"}, nil, []Kind{Classic}, both(secure("arn:a"), protocols(SSL, TCP, SSL, TCP))},
		{"TLS of one port by name", texts{"ssl-cert": "arn:a", "ssl-ports": " https "}, nil, []Kind{Classic}, both(secure("arn:a"), protocols(TCP, TCP, SSL, TCP))},
		{"TLS of one port by number", texts{"ssl-cert": "arn:a", "ssl-ports": "443"}, nil, []Kind{Network}, both(secure("arn:a"), protocols(TCP, TCP, TLS, TCP))},
		{"HTTPS to HTTP", texts{"ssl-cert": "arn:a", "ssl-ports": "443", "backend-protocol": "HTTP"}, nil, []Kind{Classic}, both(secure("arn:a"), protocols(HTTP, HTTP, HTTPS, HTTP))},
		{"HTTPS to HTTPS", texts{"ssl-cert": "arn:a", "backend-protocol": "https"}, nil, []Kind{Classic}, both(secure("arn:a"), protocols(HTTPS, HTTPS, HTTPS, HTTPS))},
		{"TLS to TLS", texts{"ssl-cert": "arn:a,arn:b", "backend-protocol": "ssl"}, nil, []Kind{Network}, both(secure("arn:a", "arn:b"), protocols(TLS, TLS, TLS, TLS))},
		{"HTTP", texts{"backend-protocol": "http"}, nil, []Kind{Classic}, protocols(HTTP, HTTP, HTTP, HTTP)},

		{"Local", nil, local, []Kind{Classic}, func(s *Settings) { s.Health.Port = 32000 }},
		{"Local", nil, local, []Kind{Network}, func(s *Settings) { s.Health.Port, s.Health.Healthy, s.Health.Unhealthy = 32000, 2, 2 }},
		{"health of the pods", texts{"healthcheck-path": "/ready"}, nil, []Kind{Classic, Network}, func(s *Settings) { s.Health.Port, s.Health.Path = 0, "/ready" }},
		{"health by TCP", texts{"healthcheck-protocol": "tcp"}, nil, []Kind{Classic, Network},
			func(s *Settings) { s.Health.Protocol, s.Health.Port, s.Health.Path, s.Health.Codes = TCP, 0, "", "" }},
		{"health at a port by name", texts{"healthcheck-port": "https"}, nil, []Kind{Classic, Network}, func(s *Settings) { s.Health.Port = 30443 }},
		{"health at a port by name, of pods", texts{"healthcheck-port": "http", "target-type": "ip"}, nil, []Kind{Network},
			func(s *Settings) {
				s.TargetIPs = true
				s.Health.Protocol, s.Health.Port, s.Health.Path, s.Health.Codes = TCP, 8080, "", ""
			}},
		{"as the documentation of Services has them", texts{"healthcheck-healthy-threshold": "", "target-node-labels": "ingress-gw,gw-name=public-api"}, nil, []Kind{Classic, Network},
			func(s *Settings) { s.NodeLabels = texts{"ingress-gw": "", "gw-name": "public-api"} }},
		{"health, more slowly", texts{"healthcheck-interval": "60", "healthcheck-timeout": "30", "healthcheck-healthy-threshold": "4", "healthcheck-unhealthy-threshold": "5"}, nil, []Kind{Classic, Network},
			func(s *Settings) {
				s.Health.Interval, s.Health.Timeout, s.Health.Healthy, s.Health.Unhealthy = time.Minute, 30*time.Second, 4, 5
			}},

		{"source ranges as AWS writes them", nil, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.1.2.3/8"} }, []Kind{Classic, Network},
			func(s *Settings) { s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }},
		{"source ranges of both families", texts{"ip-address-type": "dualstack"}, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.1.2.3/8", "2001:db8::1/32"} }, []Kind{Network},
			func(s *Settings) {
				s.DualStack, s.NeedsIPv6 = true, true
				s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32")}
			}},
		{"source ranges of a family that is not there", nil, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"10.1.2.3/8", "2001:db8::1/32"} }, []Kind{Classic, Network},
			func(s *Settings) {
				s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
				s.Ignored = []string{"spec.loadBalancerSourceRanges has IPv6, which the load balancer does not have."}
			}},
		{"affinity", nil, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, []Kind{Network}, func(s *Settings) { s.Affinity = true }},
		{"two families", nil, func(s *corev1.Service) {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}, []Kind{Network}, func(s *Settings) { s.DualStack = true }},
		{"IPv6 alone", nil, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }, []Kind{Network}, func(s *Settings) { s.DualStack, s.NeedsIPv6, s.TargetIPv6 = true, true, true }},
		{"IPv6 before IPv4, with UDP", nil, func(s *corev1.Service) {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
			s.Spec.Ports[1].Protocol = corev1.ProtocolUDP
		}, []Kind{Network}, func(s *Settings) {
			s.DualStack, s.NeedsIPv6, s.TargetIPv6 = true, true, true
			s.Ports[1].Listener, s.Ports[1].Target = UDP, UDP
		}},
		{"two families by annotation", texts{"ip-address-type": "dualstack"}, nil, []Kind{Network}, func(s *Settings) { s.DualStack, s.NeedsIPv6 = true, true }},
		{"two protocols at one port", nil, func(s *corev1.Service) {
			s.Spec.Ports[1].Port, s.Spec.Ports[1].NodePort, s.Spec.Ports[1].Protocol = 80, 30080, corev1.ProtocolUDP
		}, []Kind{Network}, func(s *Settings) {
			s.Ports = s.Ports[:1]
			s.Ports[0].Listener, s.Ports[0].Target = TCPUDP, TCPUDP
		}},
		{"attributes", texts{"attributes": "dns_record.client_routing_policy=partial_availability_zone_affinity", "target-group-attributes": "target_group_health.dns_failover.minimum_healthy_targets.count=off,load_balancing.cross_zone.enabled=use_load_balancer_configuration,deregistration_delay.timeout_seconds=0"}, nil, []Kind{Network},
			func(s *Settings) {
				s.Attributes = texts{"dns_record.client_routing_policy": "partial_availability_zone_affinity"}
				s.TargetGroupAttributes = texts{"target_group_health.dns_failover.minimum_healthy_targets.count": "off", "load_balancing.cross_zone.enabled": "use_load_balancer_configuration", "deregistration_delay.timeout_seconds": "0"}
			}},
		{"attributes of a listener", texts{"listener-attributes.TCP-443": "tcp.idle_timeout.seconds=60"}, nil, []Kind{Network},
			func(s *Settings) {
				s.ListenerAttributes = map[int32]map[string]string{443: {"tcp.idle_timeout.seconds": "60"}}
			}},
	} {
		for _, kind := range c.kinds {
			t.Run(c.name+" "+string(kind), func(t *testing.T) {
				edit := c.edit
				if edit == nil {
					edit = func(*corev1.Service) {}
				}
				got, refusal := Parse(service(c.annotations, edit), kind)
				if refusal != nil {
					t.Fatal(refusal)
				}
				want := plain(kind)
				c.want(&want)
				if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
					t.Errorf("-want +got\n%s", diff)
				}
			})
		}
	}
}

func TestParseRefuses(t *testing.T) {
	udp := func(s *corev1.Service) { s.Spec.Ports[0].Protocol = corev1.ProtocolUDP }
	for _, c := range []struct {
		name        string
		annotations texts
		edit        func(*corev1.Service)
		kind        Kind
		named       []string
	}{
		{"any text as internal", texts{"internal": "0.0.0.0/0"}, nil, Classic, []string{"internal", "true or false"}},
		{"a scheme of nobody", texts{"scheme": "public"}, nil, Network, []string{"scheme", "internal or internet-facing"}},
		{"a name too long", texts{"name": strings.Repeat("a", 33)}, nil, Network, []string{"name", "32"}},
		{"a name of AWS", texts{"name": "internal-web"}, nil, Network, []string{"name", "internal-"}},
		{"two certificates", texts{"ssl-cert": "arn:a,arn:b"}, nil, Classic, []string{"ssl-cert", `"arn:a,arn:b"`, "one certificate"}},
		{"a label without key", texts{"target-node-labels": "gw=yes,=no"}, nil, Network, []string{"target-node-labels", "key=value or key"}},
		{"labels without comma", texts{"target-node-labels": "gw role=front"}, nil, Network, []string{"target-node-labels", "separated by commas"}},
		{"no ARN", texts{"ssl-cert": "web.pem"}, nil, Network, []string{"ssl-cert", `"web.pem"`}},
		{"TLS of no port", texts{"ssl-cert": "arn:a", "ssl-ports": "HTTPS"}, nil, Network, []string{"ssl-ports", `"HTTPS"`}},
		{"a wrong backend without a certificate", texts{"backend-protocol": "quic"}, nil, Classic, []string{"backend-protocol", "tcp or ssl or http or https"}},
		{"HTTP on an NLB", texts{"backend-protocol": "http"}, nil, Network, []string{"backend-protocol", "tcp or ssl"}},
		{"PROXY protocol of one port", texts{"proxy-protocol": "80"}, nil, Network, []string{"proxy-protocol", "*"}},
		{"logs to nowhere", texts{"access-log-enabled": "true"}, nil, Network, []string{"access-log-enabled", "access-log-s3-bucket-name"}},
		{"logs every hour", texts{"access-log-emit-interval": "30"}, nil, Classic, []string{"access-log-emit-interval", "5 or 60"}},
		{"a timeout too long", texts{"healthcheck-timeout": "61"}, nil, Classic, []string{"healthcheck-timeout", "2 to 60"}},
		{"a timeout as long as the interval", texts{"healthcheck-timeout": "10"}, nil, Network, []string{"healthcheck-timeout", "healthcheck-interval"}},
		{"no number", texts{"healthcheck-interval": "10s"}, nil, Network, []string{"healthcheck-interval", "5 to 300"}},
		{"a threshold too low", texts{"healthcheck-healthy-threshold": "1"}, nil, Network, []string{"healthcheck-healthy-threshold", "2 to 10"}},
		{"a port of nobody", texts{"healthcheck-port": "web"}, nil, Network, []string{"healthcheck-port", "http, https"}},
		{"a port without number, of pods", texts{"healthcheck-port": "https", "target-type": "ip"}, nil, Network, []string{"healthcheck-port", "https"}},
		{"no path", texts{"healthcheck-path": "ready"}, nil, Network, []string{"healthcheck-path", "/"}},
		{"no codes", texts{"healthcheck-success-codes": "ok"}, nil, Network, []string{"healthcheck-success-codes"}},
		{"an attribute of nobody", texts{"attributes": "a.b=c"}, nil, Network, []string{"attributes", "deletion_protection.enabled"}},
		{"a switch that is neither on nor off", texts{"attributes": "deletion_protection.enabled=yes"}, nil, Network, []string{"attributes", "deletion_protection.enabled (true or false)"}},
		{"UDP without the client's address", texts{"target-group-attributes": "preserve_client_ip.enabled=false"}, udp, Network, []string{"target-group-attributes", "preserve_client_ip.enabled", "UDP"}},
		{"UDP that ends connections", texts{"target-group-attributes": "target_health_state.unhealthy.connection_termination.enabled=true"}, udp, Network, []string{"target-group-attributes", "UDP"}},
		{"stickiness with TLS", texts{"target-group-attributes": "stickiness.enabled=true", "ssl-cert": "arn:a"}, nil, Network, []string{"target-group-attributes", "stickiness.enabled", "TLS"}},
		{"logs to nowhere by an attribute", texts{"attributes": "access_logs.s3.enabled=true"}, nil, Network, []string{"attributes", "access_logs.s3.bucket"}},
		{"a delay too long", texts{"target-group-attributes": "deregistration_delay.timeout_seconds=3601"}, nil, Network, []string{"target-group-attributes", "deregistration_delay.timeout_seconds (0 to 3600)"}},
		{"an attribute deferred to itself", texts{"attributes": "load_balancing.cross_zone.enabled=use_load_balancer_configuration"}, nil, Network, []string{"attributes", "cross_zone"}},
		{"idle for too short", texts{"listener-attributes.TCP-80": "tcp.idle_timeout.seconds=59"}, nil, Network, []string{"listener-attributes.TCP-80", "tcp.idle_timeout.seconds"}},
		{"codes that are no answer", texts{"healthcheck-success-codes": "100-199"}, nil, Network, []string{"healthcheck-success-codes", "200 to 599"}},
		{"a tag that AWS cannot write", texts{"additional-resource-tags": "team=web;shop"}, nil, Classic, []string{"additional-resource-tags", "team=web;shop"}},
		{"attributes of no listener", texts{"listener-attributes.TCP-81": "tcp.idle_timeout.seconds=60"}, nil, Network, []string{"listener-attributes.TCP-81", "TCP-80 or TCP-443"}},
		{"a tag of ours", texts{"additional-resource-tags": "kubernetes.io/service-name=x"}, nil, Network, []string{"additional-resource-tags", "kubernetes.io/service-name"}},
		{"a tag of AWS", texts{"additional-resource-tags": "aws:x=y"}, nil, Classic, []string{"additional-resource-tags", "aws:"}},
		{"an Elastic IP, internal", texts{"eip-allocations": "eipalloc-1", "internal": "true"}, nil, Network, []string{"eip-allocations", "scheme"}},
		{"private addresses on the internet", texts{"private-ipv4-addresses": "10.0.0.7"}, nil, Network, []string{"private-ipv4-addresses", "internal"}},
		{"IPv6 addresses without IPv6", texts{"ipv6-addresses": "2001:db8::7"}, nil, Network, []string{"ipv6-addresses", "dualstack"}},
		{"fewer addresses than subnets", texts{"eip-allocations": "eipalloc-1", "subnets": "a,b"}, nil, Network, []string{"eip-allocations", "subnets"}},
		{"a subnet twice", texts{"subnets": "a,b,a"}, nil, Classic, []string{"subnets", `"a"`}},
		{"loadBalancerIP", nil, func(s *corev1.Service) { s.Spec.LoadBalancerIP = "203.0.113.1" }, Network, []string{"spec.loadBalancerIP", "eip-allocations"}},
		{"affinity on a CLB", nil, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, Classic, []string{"spec.sessionAffinity"}},
		{"affinity with TLS", texts{"ssl-cert": "arn:a"}, func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }, Network, []string{"spec.sessionAffinity", "ssl-ports"}},
		{"no node ports on a CLB", nil, func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }, Classic, []string{"port 80", "Network Load Balancer"}},
		{"no node ports", nil, func(s *corev1.Service) { s.Spec.Ports[0].NodePort = 0 }, Network, []string{"port 80", "target-type ip"}},
		{"IPv6 on a CLB", nil, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }, Classic, []string{"spec.ipFamilies"}},
		{"IPv6 with UDP", texts{"ip-address-type": "dualstack"}, udp, Network, []string{"UDP", "ip-address-type", "starts with IPv6"}},
		{"IPv6 without IPv6", texts{"ip-address-type": "ipv4"}, func(s *corev1.Service) { s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol} }, Network, []string{"ip-address-type", "spec.ipFamilies"}},
		{"nothing but SCTP", nil, func(s *corev1.Service) {
			s.Spec.Ports = s.Spec.Ports[:1]
			s.Spec.Ports[0].Protocol = corev1.ProtocolSCTP
		}, Network, []string{"port 80", "SCTP"}},
		{"UDP beside TLS at one port", texts{"ssl-cert": "arn:a"}, func(s *corev1.Service) {
			s.Spec.Ports[1].Port, s.Spec.Ports[1].Protocol = 80, corev1.ProtocolUDP
		}, Network, []string{"port 80", "ssl-ports"}},
		{"two protocols at one port, which nobody wants", texts{"enable-tcp-udp-listener": "false"}, func(s *corev1.Service) {
			s.Spec.Ports[1].Port, s.Spec.Ports[1].Protocol = 80, corev1.ProtocolUDP
		}, Network, []string{"port 80", "enable-tcp-udp-listener"}},
		{"nobody can come", nil, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"2001:db8::/32"} }, Network, []string{"spec.loadBalancerSourceRanges", "IPv6"}},
		{"no prefix", nil, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"everyone"} }, Network, []string{"spec.loadBalancerSourceRanges", "everyone"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			edit := c.edit
			if edit == nil {
				edit = func(*corev1.Service) {}
			}
			_, refusal := Parse(service(c.annotations, edit), c.kind)
			if refusal == nil || refusal.Reason == "" {
				t.Fatalf("got %#v, want a refusal", refusal)
			}
			for _, name := range c.named {
				if !strings.Contains(refusal.Message, name) {
					t.Errorf("%q does not name %s", refusal, name)
				}
			}
		})
	}
}

// What a kind of load balancer does not have, or nobody knows, is told of and
// changes nothing.
func TestWhatSaysNothingIsTold(t *testing.T) {
	for _, c := range []struct {
		kind Kind
		name string
		text texts
	}{
		{Network, "access-log-emit-interval", texts{"access-log-emit-interval": "5"}},
		{Classic, "target-type", texts{"target-type": "ip"}},
		{Classic, "alpn-policy", texts{"alpn-policy": "nonsense"}},
		{Network, "nonsense", texts{"nonsense": "x"}},
		{Network, "multi-cluster-target-group", texts{"multi-cluster-target-group": "true"}},
		{Network, "ssl-ports", texts{"ssl-ports": "443"}},
		{Network, "type", texts{"type": "external"}},
	} {
		got, refusal := Parse(service(c.text), c.kind)
		if refusal != nil {
			t.Errorf("%s: %v", c.name, refusal)
			continue
		}
		if !slices.ContainsFunc(got.Ignored, func(sentence string) bool { return strings.Contains(sentence, Prefix+c.name) }) {
			t.Errorf("%s is not told of: %q", c.name, got.Ignored)
		}
		got.Ignored = nil
		if diff := cmp.Diff(plain(c.kind), got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

func TestChoose(t *testing.T) {
	for value, want := range map[string]Choice{
		"": {Kind: Network}, "nlb": {Kind: Network}, "clb": {Kind: Classic}, "elb": {Kind: Classic},
		"external": {Others: true}, "nlb-ip": {Others: true},
	} {
		if got := Choose(service(texts{"type": value}), Network); got != want {
			t.Errorf("%q: %+v, want %+v", value, got, want)
		}
	}
	if got := Choose(service(nil), Classic); got.Kind != Classic {
		t.Errorf("by default %+v", got)
	}
}

func TestEachIsDeclaredOnceForAKind(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range Declared {
		if d.Doc == "" || d.Values.Text == "" || len(d.On) == 0 {
			t.Errorf("%s lacks a doc", d.Name)
		}
		for _, kind := range d.On {
			if seen[d.Name+string(kind)] {
				t.Errorf("%s is declared twice for %s", d.Name, kind)
			}
			seen[d.Name+string(kind)] = true
		}
	}
}

// Whatever stands there, it is read, or refused by its name.
func FuzzParse(f *testing.F) {
	f.Add("a=b", "arn:x", "80", uint8(3), uint8(20), uint16(80), false)
	f.Add("internal", "2", "traffic-port", uint8(1), uint8(40), uint16(443), true)
	f.Add("", ",", "*", uint8(0), uint8(9), uint16(0), true)
	f.Fuzz(func(t *testing.T, one, two, three string, first, second uint8, port uint16, classic bool) {
		names := []string{Declared[int(first)%len(Declared)].Name, Declared[int(second)%len(Declared)].Name, "healthcheck-port"}
		s := service(texts{names[0]: one, names[1]: two, names[2]: three}, func(s *corev1.Service) { s.Spec.Ports[0].Port = int32(port) })
		kind := Network
		if classic {
			kind = Classic
		}
		got, refusal := Parse(s, kind)
		if refusal != nil {
			named := refusal.Reason == v1alpha1.InvalidRequest || refusal.Reason == v1alpha1.PortNotServed
			for _, name := range names {
				named = named || strings.Contains(refusal.Message, name)
			}
			if !named {
				t.Errorf("%q names none of %q", refusal, names)
			}
			return
		}
		if got.Health.Timeout >= got.Health.Interval || len(got.Ports) == 0 {
			t.Errorf("%+v", got)
		}
		for _, port := range got.Ports {
			if (port.Listener == TLS || port.Listener == SSL || port.Listener == HTTPS) && len(got.Certificates) == 0 {
				t.Errorf("%+v speaks TLS without a certificate", port)
			}
		}
	})
}
