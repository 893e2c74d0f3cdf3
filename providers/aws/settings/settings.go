package settings

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/annotations"
	"github.com/heraldlb/herald/api/v1alpha1"
)

// Settings is what a Service asks of its load balancer, all of it possible.
type Settings struct {
	Kind     Kind
	Internal bool
	// Name of the load balancer; empty is the one made of the Service's UID.
	Name string

	// Subnets are IDs or Name tags; none means to find them.
	Subnets     []string
	Allocations []string
	PrivateIPv4 []netip.Addr
	IPv6        []netip.Addr
	DualStack   bool
	// NeedsIPv6 says that IPv4 alone will not do.
	NeedsIPv6 bool
	// TargetIPv6 says that the targets are reached by IPv6.
	TargetIPv6 bool

	// Groups are IDs or Name tags of security groups in place of our own.
	Groups          []string
	ExtraGroups     []string
	ManageNodeRules bool
	PrefixLists     []string
	// SourceRanges are where clients may come from; none means everywhere.
	SourceRanges []netip.Prefix

	Ports []Port
	// Rejected are the ports that this kind of load balancer cannot serve.
	Rejected []RejectedPort

	Certificates []string
	TLSPolicy    string
	ALPN         string

	ProxyProtocol bool
	AccessLog     AccessLog
	Draining      Draining
	// IdleTimeout is zero for what AWS takes by default.
	IdleTimeout time.Duration
	CrossZone   bool
	Affinity    bool

	Health     Health
	TargetIPs  bool
	NodeLabels map[string]string
	Tags       map[string]string

	Attributes            map[string]string
	TargetGroupAttributes map[string]string
	// ListenerAttributes by the port of the listener.
	ListenerAttributes map[int32]map[string]string

	// Ignored are sentences about annotations that say nothing here.
	Ignored []string
}

// Port is one listener.
type Port struct {
	// Name of the Service's port.
	Name string
	Port int32
	// Listener and Target are the protocols towards clients and targets.
	Listener, Target Protocol
	NodePort         int32
	// TargetPort is that of the pods, by name or number.
	TargetPort string
}

// Protocol of a listener, a target group or a health check, as AWS spells it.
type Protocol string

// The protocols.
const (
	TCP    Protocol = "TCP"
	UDP    Protocol = "UDP"
	TCPUDP Protocol = "TCP_UDP"
	TLS    Protocol = "TLS"
	SSL    Protocol = "SSL"
	HTTP   Protocol = "HTTP"
	HTTPS  Protocol = "HTTPS"
)

// HasUDP says whether it is, or has beside TCP, UDP.
func (p Protocol) HasUDP() bool { return p == UDP || p == TCPUDP }

// RejectedPort is a port of the Service that is not served.
type RejectedPort struct {
	Port     int32
	Protocol corev1.Protocol
	Why      string
}

// AccessLog is where requests are logged.
type AccessLog struct {
	Enabled        bool
	Bucket, Prefix string
	// Interval is for a Classic Load Balancer.
	Interval time.Duration
}

// Draining is how long connections of a node that goes may take.
type Draining struct {
	// Given says that an annotation asks for it, on or off.
	Given, Enabled bool
	Timeout        time.Duration
}

// Health is the health check.
type Health struct {
	Protocol Protocol
	// Port is zero for the port that the traffic goes to.
	Port               int32
	Path               string
	Codes              string
	Healthy, Unhealthy int32
	Interval, Timeout  time.Duration
}

// ProxyHealthPort is where kube-proxy says whether its node can be used (KEP-3836).
const ProxyHealthPort = 10256

// Parse reads the settings of a Service that is to have a load balancer of the
// kind. The refusal names the annotation or field, its value, and what would
// be right.
func Parse(service *corev1.Service, kind Kind) (Settings, *v1alpha1.Refusal) {
	r, refusal := read(service, kind)
	if refusal != nil {
		return Settings{}, refusal
	}
	s := Settings{
		Kind:        kind,
		Name:        r.text("name", ""),
		Internal:    r.is("internal"),
		Subnets:     r.list("subnets"),
		Allocations: r.list("eip-allocations"),
		Groups:      r.list("security-groups"),
		ExtraGroups: r.list("extra-security-groups"),
		PrefixLists: r.list("security-group-prefix-lists"),

		ManageNodeRules: r.text("manage-backend-security-group-rules", "true") == "true",

		Certificates: r.list("ssl-cert"),
		TLSPolicy:    r.text("ssl-negotiation-policy", ""),
		ALPN:         r.text("alpn-policy", "None"),

		ProxyProtocol: r.text("proxy-protocol", "") == "*",
		IdleTimeout:   r.seconds("connection-idle-timeout", 0),
		CrossZone:     r.is("cross-zone-load-balancing-enabled"),
		Affinity:      service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,

		TargetIPs:  r.text("target-type", r.text("nlb-target-type", "instance")) == "ip",
		NodeLabels: r.pairs("target-node-labels"),
		Tags:       r.pairs("additional-resource-tags"),

		Attributes:            r.pairs("attributes"),
		TargetGroupAttributes: r.pairs("target-group-attributes"),
	}
	if scheme := r.text("scheme", ""); scheme != "" {
		s.Internal = scheme == "internal"
	}
	s.AccessLog = AccessLog{
		Enabled:  r.is("access-log-enabled"),
		Bucket:   r.text("access-log-s3-bucket-name", ""),
		Prefix:   r.text("access-log-s3-bucket-prefix", ""),
		Interval: time.Duration(r.number("access-log-emit-interval", 60)) * time.Minute,
	}
	s.Draining = Draining{Given: r.has("connection-draining-enabled"), Enabled: r.is("connection-draining-enabled"), Timeout: r.seconds("connection-draining-timeout", 300)}
	s.PrivateIPv4, s.IPv6 = r.addresses("private-ipv4-addresses"), r.addresses("ipv6-addresses")
	if s.SourceRanges, refusal = sourceRanges(service); refusal != nil {
		return Settings{}, refusal
	}
	for _, settle := range []func(*reader, *Settings) *v1alpha1.Refusal{
		families, ports, listenerAttributes, health, consistent, addressing, logging, tags,
	} {
		if refusal := settle(r, &s); refusal != nil {
			return Settings{}, refusal
		}
	}
	s.Ignored = r.ignored
	return s, nil
}

// Choice is what the annotation type says of a Service without class.
type Choice struct {
	Kind Kind
	// Others says that the Service is another controller's.
	Others bool
}

// Choose reads the annotation type of a Service that names no class; byDefault
// is what it means to say nothing.
func Choose(service *corev1.Service, byDefault Kind) Choice {
	switch strings.TrimSpace(service.Annotations[Prefix+"type"]) {
	case "external", "nlb-ip":
		return Choice{Others: true}
	case "nlb":
		return Choice{Kind: Network}
	case "":
		return Choice{Kind: byDefault}
	}
	return Choice{Kind: Classic}
}

func sourceRanges(service *corev1.Service) ([]netip.Prefix, *v1alpha1.Refusal) {
	ranges, refusal := annotations.SourceRanges(service)
	if refusal != nil {
		return nil, refusal
	}
	for i := range ranges {
		ranges[i] = ranges[i].Masked() // what AWS makes of it anyway
	}
	return ranges, nil
}

// families decides on the address families of the load balancer and of its targets.
func families(r *reader, s *Settings) *v1alpha1.Refusal {
	spec := &r.service.Spec
	wantsIPv6 := slices.Contains(spec.IPFamilies, corev1.IPv6Protocol)
	s.TargetIPv6 = len(spec.IPFamilies) > 0 && spec.IPFamilies[0] == corev1.IPv6Protocol
	must := wantsIPv6 && (s.TargetIPv6 || spec.IPFamilyPolicy != nil && *spec.IPFamilyPolicy == corev1.IPFamilyPolicyRequireDualStack)
	if s.Kind == Classic {
		if must {
			return v1alpha1.Refuse(v1alpha1.WrongFamily, "spec.ipFamilies needs IPv6, which a Classic Load Balancer does not have: want IPv4, or a Network Load Balancer")
		}
		if wantsIPv6 {
			r.ignore("spec.ipFamilies has IPv6, which a Classic Load Balancer does not have: it serves IPv4.")
		}
		return nil
	}
	s.DualStack = wantsIPv6
	switch r.text("ip-address-type", "") {
	case "dualstack":
		s.DualStack = true
		must = true
	case "ipv4":
		if must {
			return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%sip-address-type is ipv4 and spec.ipFamilies needs IPv6: remove the annotation, or want dualstack", Prefix)
		}
		s.DualStack = false
	}
	udp := slices.ContainsFunc(spec.Ports, func(port corev1.ServicePort) bool { return port.Protocol == corev1.ProtocolUDP })
	s.NeedsIPv6 = must
	switch {
	case !s.DualStack || !udp || s.TargetIPv6:
	case must:
		return v1alpha1.Refuse(v1alpha1.WrongFamily, "spec.ipFamilies or %sip-address-type needs IPv6, which a Network Load Balancer has for UDP only towards targets with IPv6, and spec.ipFamilies starts with IPv4: want a Service whose spec.ipFamilies starts with IPv6, or serve UDP by a Service of its own", Prefix)
	default:
		r.ignore("spec.ipFamilies has IPv6, which a Network Load Balancer has for UDP only when spec.ipFamilies starts with IPv6: it serves IPv4.")
		s.DualStack = false
	}
	return nil
}

// health decides on the health check: that of the traffic policy, each part of
// which an annotation may change.
func health(r *reader, s *Settings) *v1alpha1.Refusal {
	spec := &r.service.Spec
	local := spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal && !s.TargetIPs
	h := Health{Protocol: HTTP, Port: ProxyHealthPort, Path: "/healthz", Codes: "200-399", Healthy: 3, Unhealthy: 3, Timeout: 6 * time.Second}
	if local {
		h.Port, h.Healthy, h.Unhealthy = spec.HealthCheckNodePort, 2, 2
		if h.Port == 0 {
			return v1alpha1.Refuse(v1alpha1.InvalidRequest, "spec.healthCheckNodePort is not set, and externalTrafficPolicy Local needs it")
		}
	}
	if s.TargetIPs {
		h.Protocol, h.Port = TCP, 0
	}
	if s.Kind == Classic {
		h.Codes, h.Healthy, h.Unhealthy, h.Timeout = "", 2, 6, 5*time.Second
	}
	if !local && (r.has("healthcheck-protocol") || r.has("healthcheck-path")) {
		h.Port = 0
	}
	h.Protocol = Protocol(strings.ToUpper(r.text("healthcheck-protocol", string(h.Protocol))))
	h.Path = r.text("healthcheck-path", h.Path)
	h.Codes = r.text("healthcheck-success-codes", h.Codes)
	h.Healthy = int32(r.number("healthcheck-healthy-threshold", int(h.Healthy)))
	h.Unhealthy = int32(r.number("healthcheck-unhealthy-threshold", int(h.Unhealthy)))
	h.Interval = r.seconds("healthcheck-interval", 10)
	h.Timeout = r.seconds("healthcheck-timeout", int(h.Timeout/time.Second))
	if h.Protocol != HTTP && h.Protocol != HTTPS {
		for _, name := range []string{"healthcheck-path", "healthcheck-success-codes"} {
			if r.has(name) {
				r.ignore("%s%s says nothing: the health check is %s.", Prefix, name, h.Protocol)
			}
		}
		h.Path, h.Codes = "", ""
	}
	if h.Timeout >= h.Interval {
		return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%shealthcheck-timeout is %d and %shealthcheck-interval is %d: the timeout must be less than the interval",
			Prefix, h.Timeout/time.Second, Prefix, h.Interval/time.Second)
	}
	var refusal *v1alpha1.Refusal
	if h.Port, refusal = healthPort(r, s, h.Port); refusal != nil {
		return refusal
	}
	s.Health = h
	return nil
}

func healthPort(r *reader, s *Settings, byDefault int32) (int32, *v1alpha1.Refusal) {
	value := r.text("healthcheck-port", "")
	switch value {
	case "":
		return byDefault, nil
	case "traffic-port":
		return 0, nil
	}
	if n, err := strconv.Atoi(value); err == nil && n >= 1 && n <= 65535 {
		return int32(n), nil
	}
	var names []string
	for _, port := range r.service.Spec.Ports {
		if port.Name == value && value != "" {
			if !s.TargetIPs {
				return port.NodePort, nil
			}
			if port.TargetPort.IntVal > 0 {
				return port.TargetPort.IntVal, nil
			}
			return 0, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%shealthcheck-port is %q, whose targetPort is a name: want the number of the port of the pods", Prefix, value)
		}
		if port.Name != "" {
			names = append(names, port.Name)
		}
	}
	return 0, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%shealthcheck-port is %q: want traffic-port, a number from 1 to 65535, or the name of a port (%s)", Prefix, value, strings.Join(names, ", "))
}

// consistent refuses settings that AWS rejects together.
func consistent(r *reader, s *Settings) *v1alpha1.Refusal {
	spec := &r.service.Spec
	if spec.LoadBalancerIP != "" {
		if s.Kind == Classic {
			return v1alpha1.Refuse(v1alpha1.InvalidRequest, "spec.loadBalancerIP is %q, and the addresses of a Classic Load Balancer are AWS's to choose: remove it", spec.LoadBalancerIP)
		}
		return v1alpha1.Refuse(v1alpha1.InvalidRequest, "spec.loadBalancerIP is %q: want the annotation %seip-allocations, or %sprivate-ipv4-addresses for an internal load balancer", spec.LoadBalancerIP, Prefix, Prefix)
	}
	if refusal := reachable(r, s); refusal != nil {
		return refusal
	}
	if s.Affinity && s.Kind == Classic {
		return v1alpha1.Refuse(v1alpha1.InvalidRequest, "spec.sessionAffinity is ClientIP, which a Classic Load Balancer does not have: want None, or a Network Load Balancer")
	}
	tls := slices.ContainsFunc(s.Ports, func(port Port) bool { return port.Listener == TLS || port.Target == TLS })
	if s.Affinity && tls {
		return v1alpha1.Refuse(v1alpha1.InvalidRequest, "spec.sessionAffinity is ClientIP, which a Network Load Balancer does not have for ports that speak TLS (%sssl-ports): want None, or no TLS", Prefix)
	}
	if refusal := unfit(s, tls); refusal != nil {
		return refusal
	}
	if s.ALPN != "None" && !tls {
		r.ignore("%salpn-policy says nothing: no port speaks TLS (%sssl-cert).", Prefix, Prefix)
	}
	if len(s.Groups) > 0 && len(s.PrefixLists) > 0 {
		r.ignore("%ssecurity-group-prefix-lists says nothing: the rules of %ssecurity-groups are yours.", Prefix, Prefix)
		s.PrefixLists = nil
	}
	if len(s.Groups) > 0 && len(s.SourceRanges) > 0 {
		r.ignore("spec.loadBalancerSourceRanges says nothing: the rules of %ssecurity-groups are yours.", Prefix)
	}
	return nil
}

// unfit refuses attributes of target groups that do not go with the protocols
// of the ports.
func unfit(s *Settings, tls bool) *v1alpha1.Refusal {
	udp := slices.ContainsFunc(s.Ports, func(port Port) bool { return port.Target.HasUDP() })
	for _, c := range []struct {
		key, value string
		there      bool
		of         string
	}{
		{"preserve_client_ip.enabled", "false", udp, "UDP, which always has it"},
		{"target_health_state.unhealthy.connection_termination.enabled", "true", udp, "UDP, which has no connections"},
		{"stickiness.enabled", "true", tls, "TLS, which does not have it"},
	} {
		if c.there && s.TargetGroupAttributes[c.key] == c.value {
			return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%starget-group-attributes has %s=%s, and a port of the Service has %s: remove it, or serve that port by a Service of its own", Prefix, c.key, c.value, c.of)
		}
	}
	return nil
}

// reachable refuses source ranges that nobody could come from.
func reachable(r *reader, s *Settings) *v1alpha1.Refusal {
	isIPv6 := func(prefix netip.Prefix) bool { return prefix.Addr().Is6() }
	if s.DualStack || !slices.ContainsFunc(s.SourceRanges, isIPv6) {
		return nil
	}
	s.SourceRanges = slices.DeleteFunc(s.SourceRanges, isIPv6)
	if len(s.SourceRanges) == 0 {
		return v1alpha1.Refuse(v1alpha1.InvalidSourceRange, "spec.loadBalancerSourceRanges has IPv6 only, and the load balancer has IPv4: want prefixes of IPv4, or ipFamilies with IPv6 and a Network Load Balancer")
	}
	r.ignore("spec.loadBalancerSourceRanges has IPv6, which the load balancer does not have.")
	return nil
}

// addressing refuses addresses that do not go with the rest.
func addressing(_ *reader, s *Settings) *v1alpha1.Refusal {
	for _, c := range []struct {
		given int
		name  string
		ok    bool
		needs string
	}{
		{len(s.Allocations), "eip-allocations", !s.Internal, "a load balancer that faces the internet (" + Prefix + "scheme)"},
		{len(s.PrivateIPv4), "private-ipv4-addresses", s.Internal, "an internal load balancer (" + Prefix + "scheme)"},
		{len(s.IPv6), "ipv6-addresses", s.DualStack, "dualstack (" + Prefix + "ip-address-type)"},
	} {
		if c.given == 0 {
			continue
		}
		if !c.ok {
			return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%s%s needs %s", Prefix, c.name, c.needs)
		}
		if len(s.Subnets) > 0 && len(s.Subnets) != c.given {
			return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "%s%s has %d and %ssubnets has %d: want one for each subnet", Prefix, c.name, c.given, Prefix, len(s.Subnets))
		}
	}
	for _, items := range []struct {
		name string
		list []string
	}{{"subnets", s.Subnets}, {"eip-allocations", s.Allocations}, {"security-groups", s.Groups}, {"extra-security-groups", s.ExtraGroups}} {
		if twice := repeated(items.list); twice != "" {
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s%s has %q twice", Prefix, items.name, twice)
		}
	}
	return nil
}

func logging(_ *reader, s *Settings) *v1alpha1.Refusal {
	if s.Attributes["access_logs.s3.enabled"] == "true" && s.Attributes["access_logs.s3.bucket"] == "" && s.AccessLog.Bucket == "" {
		return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%sattributes has access_logs.s3.enabled=true: want the name of the bucket in access_logs.s3.bucket", Prefix)
	}
	if s.AccessLog.Enabled && s.AccessLog.Bucket == "" {
		return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%saccess-log-enabled is true: want the name of the bucket in %saccess-log-s3-bucket-name", Prefix, Prefix)
	}
	return nil
}

// tagLimit is how many tags AWS takes on a load balancer, less those of ours.
const tagLimit = 50 - 2

func tags(_ *reader, s *Settings) *v1alpha1.Refusal {
	name := Prefix + "additional-resource-tags"
	if len(s.Tags) > tagLimit {
		return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %d tags: want at most %d", name, len(s.Tags), tagLimit)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Tags)) {
		switch value := s.Tags[key]; {
		case !tagShape.MatchString(key) || !tagShape.MatchString(value):
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %q: want letters, digits, spaces and _.:/=+-@", name, key+"="+value)
		case key == "" || utf8.RuneCountInString(key) > 128 || utf8.RuneCountInString(value) > 256:
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %q: want a key of 1 to 128 and a value of at most 256 characters", name, key+"="+value)
		case strings.HasPrefix(strings.ToLower(key), "aws:"):
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %q: keys that start with aws: are AWS's", name, key)
		case key == "kubernetes.io/service-name" || strings.HasPrefix(key, "kubernetes.io/cluster/"):
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s has %q: Herald finds what it made by that tag", name, key)
		}
	}
	return nil
}

func listenerAttributes(r *reader, s *Settings) *v1alpha1.Refusal {
	const name = "listener-attributes."
	for _, full := range slices.Sorted(maps.Keys(r.values)) {
		rest, ok := strings.CutPrefix(full, name)
		if !ok {
			continue
		}
		i := slices.IndexFunc(s.Ports, func(port Port) bool { return fmt.Sprintf("%s-%d", port.Listener, port.Port) == rest })
		if i < 0 {
			shown := make([]string, len(s.Ports))
			for i, port := range s.Ports {
				shown[i] = fmt.Sprintf("%s-%d", port.Listener, port.Port)
			}
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s%s names no listener: want %s", Prefix, full, strings.Join(shown, " or "))
		}
		if s.Ports[i].Listener != TCP {
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%s%s: only listeners of TCP have attributes", Prefix, full)
		}
		if s.ListenerAttributes == nil {
			s.ListenerAttributes = map[int32]map[string]string{}
		}
		s.ListenerAttributes[s.Ports[i].Port] = r.pairs(full)
	}
	return nil
}

func repeated(items []string) string {
	seen := map[string]bool{}
	for _, item := range items {
		if seen[item] {
			return item
		}
		seen[item] = true
	}
	return ""
}
