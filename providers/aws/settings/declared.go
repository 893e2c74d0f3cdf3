// Package settings reads what a Service asks of its load balancer in AWS: the
// annotations service.beta.kubernetes.io/aws-load-balancer-… and the fields of
// the Service that matter there. What AWS would reject is refused here, by the
// name of the annotation and what may stand in it.
package settings

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Prefix of every annotation declared here.
const Prefix = "service.beta.kubernetes.io/aws-load-balancer-"

// Kind is a kind of load balancer.
type Kind string

// The kinds of load balancers.
const (
	Classic Kind = "clb"
	Network Kind = "nlb"
)

// Title is how AWS calls it.
func (k Kind) Title() string {
	if k == Classic {
		return "Classic Load Balancer"
	}
	return "Network Load Balancer"
}

// Declaration is one annotation: what the reference says of it, and what may
// stand in it. One that differs between the kinds is declared for each.
type Declaration struct {
	// Name after Prefix; one that ends in a dot is continued by a listener.
	Name string
	// On are the kinds that heed it.
	On []Kind
	// Values that it may have.
	Values  Values
	Default string
	Doc     string
}

// Values is what may stand in an annotation.
type Values struct {
	// Text says it to people.
	Text string
	good func(value string) bool
}

var (
	both    = []Kind{Classic, Network}
	classic = []Kind{Classic}
	network = []Kind{Network}
)

// Declared are the annotations that Herald heeds on Services in AWS.
var Declared = []Declaration{
	{"type", both, text("nlb or clb; external and nlb-ip are another controller's"), "that of the class", "The type of load balancer of a Service without loadBalancerClass. With a class it says nothing. Changing it replaces the load balancer."},
	{"internal", both, oneOf("true", "false", ""), "false", "Whether only the VPC reaches it. Changing it replaces the load balancer."},
	{"scheme", network, oneOf("internal", "internet-facing"), "internet-facing", "The same as internal, and counts before it."},
	{"name", network, pattern("at most 32 letters, digits and hyphens, with no hyphen at an end and not starting with internal-", validName), "a and the Service's UID", "Name of the load balancer. Changing it replaces the load balancer."},
	{"subnets", both, list("ID or Name tag of a subnet", filled), "aws.subnets of the cloud config, or found by role", "The subnets to be in, one of each zone. Without it: of each zone one that is public (or not, for an internal one), those with the tag kubernetes.io/role/elb (kubernetes.io/role/internal-elb) first, of those that aws.subnets of the cloud config lists, if it does; what is there keeps its own. Not found by themselves are those of local zones and Outposts, and those with less than 8 free addresses."},
	{"eip-allocations", network, list("ID of an Elastic IP allocation", prefixed("eipalloc-")), "addresses of AWS", "Elastic IPs, one for each subnet: in the order of the annotation subnets, or of the zones. What a zone has it keeps. Only for one that faces the internet."},
	{"private-ipv4-addresses", network, list("IPv4 address", isIPv4), "addresses of AWS", "Private addresses, one in each subnet. Only for an internal one."},
	{"ipv6-addresses", network, list("IPv6 address", isIPv6), "addresses of AWS", "IPv6 addresses, one in each subnet. Only with dualstack."},
	{"ip-address-type", network, oneOf("ipv4", "dualstack"), "by ipFamilies", "Address families of the load balancer. Its subnets must all have IPv6 for dualstack; ipFamilies with PreferDualStack does without where they have not. UDP over IPv6 goes only to targets by IPv6: ipFamilies must start with it."},

	{"security-groups", both, list("ID or Name tag of a security group", filled), "one of its own", "Security groups in place of the one that Herald makes. Their rules are yours; the first is let in to the nodes."},
	{"extra-security-groups", both, list("ID or Name tag of a security group", filled), "none", "Security groups beside the one that Herald makes."},
	{"manage-backend-security-group-rules", network, oneOf("true", "false"), "true", "Whether Herald lets the load balancer in to the nodes."},
	{"security-group-prefix-lists", network, list("ID of a prefix list", prefixed("pl-")), "none", "Prefix lists of clients that may come, beside loadBalancerSourceRanges."},

	{"ssl-cert", classic, pattern("the ARN of one certificate", one(prefixed("arn:"))), "none", "The certificate of the ports that speak TLS."},
	{"ssl-cert", network, list("ARN of a certificate", prefixed("arn:")), "none", "The certificates of the ports that speak TLS: the first is the default, the others are found by SNI."},
	{"ssl-ports", both, list("name or number of a port of the Service, or *", word), "*", "The ports that speak TLS, when there is a certificate."},
	{"ssl-negotiation-policy", both, pattern("the name of a TLS policy of AWS", word), "that of AWS", "Protocols and ciphers of the ports that speak TLS."},
	{"backend-protocol", classic, oneOfFolded("tcp", "ssl", "http", "https"), "tcp", "What is spoken to the nodes. With a certificate, tcp and ssl make the port SSL, http and https make it HTTPS; without one, http makes it HTTP."},
	{"backend-protocol", network, oneOfFolded("tcp", "ssl"), "tcp", "What is spoken to the targets of a port that speaks TLS: ssl encrypts it again."},
	{"alpn-policy", network, oneOf("None", "HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred"), "None", "ALPN of the ports that speak TLS."},
	{"proxy-protocol", classic, oneOf("*"), "off", "PROXY protocol version 1 to every port of the nodes."},
	{"proxy-protocol", network, oneOf("*"), "off", "PROXY protocol version 2 to every target."},
	{"enable-tcp-udp-listener", network, oneOf("true", "false"), "true", "Whether a port number with both TCP and UDP becomes one listener TCP_UDP. Without it such a Service is refused: a port number has one listener."},

	{"access-log-enabled", both, oneOf("true", "false"), "false", "Access logs to S3."},
	{"access-log-s3-bucket-name", both, pattern("the name of a bucket", word), "", "The bucket of the access logs."},
	{"access-log-s3-bucket-prefix", both, text("a prefix of S3 objects"), "none", "The prefix of the access logs in the bucket."},
	{"access-log-emit-interval", classic, oneOf("5", "60"), "60", "Minutes from one access log to the next."},
	{"connection-draining-enabled", both, oneOf("true", "false"), "false; an NLB drains for 300 s", "Whether connections of a node that goes may end. On an NLB it is deregistration_delay.timeout_seconds, and false is 0."},
	{"connection-draining-timeout", both, number(1, 3600), "300", "Seconds that they may take."},
	{"connection-idle-timeout", classic, number(1, 4000), "60", "Seconds without data until a connection is closed."},
	{"connection-idle-timeout", network, number(60, 6000), "350", "Seconds without data until a TCP connection is closed (tcp.idle_timeout.seconds of the listeners)."},
	{"cross-zone-load-balancing-enabled", both, oneOf("true", "false"), "false", "Whether each zone sends to the nodes of all zones."},
	{"additional-resource-tags", both, text("key=value, separated by commas"), "none", "Tags on all that is made for the Service."},

	{"healthcheck-protocol", classic, oneOfFolded("tcp", "ssl", "http", "https"), "http", "Protocol of the health check."},
	{"healthcheck-protocol", network, oneOfFolded("tcp", "http", "https"), "http; tcp for IP targets", "Protocol of the health check."},
	{"healthcheck-port", both, pattern("traffic-port, a port number, or the name of a port of the Service", word), "healthCheckNodePort, or kube-proxy's 10256", "Port of the health check. When protocol or path are given and the traffic policy is Cluster it is traffic-port."},
	{"healthcheck-path", both, pattern("a path that starts with /", prefixed("/")), "/healthz", "Path of an HTTP health check."},
	{"healthcheck-success-codes", network, pattern("HTTP status codes from 200 to 599, such as 200, 200-299 or 200,204", validCodes), "200-399", "Status codes that are healthy."},
	{"healthcheck-healthy-threshold", classic, number(2, 10), "2", "Checks to pass until a node is healthy."},
	{"healthcheck-healthy-threshold", network, number(2, 10), "3; 2 for Local", "Checks to pass until a target is healthy."},
	{"healthcheck-unhealthy-threshold", classic, number(2, 10), "6", "Checks to fail until a node is unhealthy."},
	{"healthcheck-unhealthy-threshold", network, number(2, 10), "3; 2 for Local", "Checks to fail until a target is unhealthy."},
	{"healthcheck-interval", both, number(5, 300), "10", "Seconds from one check to the next, more than the timeout."},
	{"healthcheck-timeout", classic, number(2, 60), "5", "Seconds until a check has failed."},
	{"healthcheck-timeout", network, number(2, 120), "6", "Seconds until a check has failed."},

	{"attributes", network, attributes(LoadBalancerAttributes), "none", "Attributes of the load balancer. One that was given and is no longer goes back to what AWS takes by default."},
	{"target-group-attributes", network, attributes(TargetGroupAttributes), "none", "Attributes of the target groups."},
	{"listener-attributes.", network, attributes(ListenerAttributes), "none", "Attributes of one listener: the name ends in its protocol and port, as in listener-attributes.TCP-80."},
	{"target-type", network, oneOf("instance", "ip"), "instance", "Whether to send to the node ports of instances, or to pods by their addresses in the VPC. Without node ports it must be ip. Changing it replaces the target groups."},
	{"nlb-target-type", network, oneOf("instance", "ip"), "instance", "The same as target-type, which counts before it."},
	{"target-node-labels", both, pattern("key=value or key, separated by commas", validPairs), "all nodes", "Labels of the nodes to send to. A key without value is any value."},
}

// The attributes that AWS knows, with what it takes by default.
var (
	LoadBalancerAttributes = map[string]string{
		"access_logs.s3.bucket":                  "",
		"access_logs.s3.enabled":                 "false",
		"access_logs.s3.prefix":                  "",
		"deletion_protection.enabled":            "false",
		"dns_record.client_routing_policy":       "any_availability_zone",
		"load_balancing.cross_zone.enabled":      "false",
		"secondary_ips.auto_assigned.per_subnet": "", // 0, but AWS takes none back
		"zonal_shift.config.enabled":             "false",
		"ipv6.deny_all_igw_traffic":              "false",
	}
	TargetGroupAttributes = map[string]string{
		"deregistration_delay.connection_termination.enabled":                            "false",
		"deregistration_delay.timeout_seconds":                                           "300",
		"load_balancing.cross_zone.enabled":                                              "use_load_balancer_configuration",
		"preserve_client_ip.enabled":                                                     "", // by type and protocol
		"proxy_protocol_v2.enabled":                                                      "false",
		"stickiness.enabled":                                                             "false",
		"stickiness.type":                                                                "source_ip",
		"target_group_health.dns_failover.minimum_healthy_targets.count":                 "1",
		"target_group_health.dns_failover.minimum_healthy_targets.percentage":            "off",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      "1",
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": "off",
		"target_health_state.unhealthy.connection_termination.enabled":                   "true",
		"target_health_state.unhealthy.draining_interval_seconds":                        "0",
	}
	ListenerAttributes = map[string]string{
		"tcp.idle_timeout.seconds": "350",
	}
)

func text(what string) Values {
	return Values{what, func(string) bool { return true }}
}

func pattern(what string, good func(string) bool) Values { return Values{what, good} }

func oneOf(values ...string) Values {
	shown := slices.DeleteFunc(slices.Clone(values), func(v string) bool { return v == "" })
	return Values{strings.Join(shown, " or "), func(value string) bool { return slices.Contains(values, value) }}
}

func oneOfFolded(values ...string) Values {
	v := oneOf(values...)
	return Values{v.Text, func(value string) bool { return v.good(strings.ToLower(value)) }}
}

// number may be left empty, as in the documentation of Services: that is as
// not given.
func number(low, high int) Values {
	return Values{fmt.Sprintf("a number from %d to %d", low, high), func(value string) bool {
		n, err := strconv.Atoi(value)
		return value == "" || err == nil && low <= n && n <= high
	}}
}

func list(what string, good func(string) bool) Values {
	return Values{"a list, separated by commas, of: " + what, func(value string) bool {
		items := split(value)
		return len(items) > 0 && !slices.ContainsFunc(items, func(item string) bool { return !good(item) })
	}}
}

func attributes(known map[string]string) Values {
	var shown []string
	for _, key := range slices.Sorted(maps.Keys(known)) {
		shown = append(shown, key+valuesOf(key, known[key]))
	}
	return Values{"key=value, separated by commas, of " + strings.Join(shown, ", "), func(value string) bool {
		for key, v := range pairs(value) {
			if _, ok := known[key]; !ok || v == "" || !goodAttribute(key, known[key], v) {
				return false
			}
		}
		return true
	}}
}

// choices are the values of attributes that are neither switches nor numbers.
var choices = map[string][]string{
	"dns_record.client_routing_policy":  {"any_availability_zone", "availability_zone_affinity", "partial_availability_zone_affinity"},
	"load_balancing.cross_zone.enabled": {"true", "false", "use_load_balancer_configuration"},
	"stickiness.type":                   {"source_ip"},
}

// bounds are those of attributes that are numbers, and what they may be besides.
var bounds = map[string]struct {
	low, high int
	or        string
}{
	"secondary_ips.auto_assigned.per_subnet":                                         {0, 7, ""},
	"deregistration_delay.timeout_seconds":                                           {0, 3600, ""},
	"tcp.idle_timeout.seconds":                                                       {60, 6000, ""},
	"target_health_state.unhealthy.draining_interval_seconds":                        {0, 360000, ""},
	"target_group_health.dns_failover.minimum_healthy_targets.count":                 {1, 1000, "off"},
	"target_group_health.dns_failover.minimum_healthy_targets.percentage":            {1, 100, "off"},
	"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      {1, 1000, ""},
	"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": {1, 100, "off"},
}

// valuesOf says what goodAttribute takes.
func valuesOf(key, byDefault string) string {
	options := slices.DeleteFunc([]string{"true", "false", "use_load_balancer_configuration"}, func(v string) bool { return !goodAttribute(key, byDefault, v) })
	b, isNumber := bounds[key]
	switch {
	case isNumber && b.or != "":
		return fmt.Sprintf(" (%d to %d, or %s)", b.low, b.high, b.or)
	case isNumber:
		return fmt.Sprintf(" (%d to %d)", b.low, b.high)
	case choices[key] != nil && len(options) == 0:
		options = choices[key]
	case choices[key] == nil && len(options) > 2:
		return ""
	}
	return " (" + strings.Join(options, " or ") + ")"
}

// goodAttribute says whether AWS takes a value of an attribute. The load
// balancer's own cross-zone switch knows no configuration to defer to.
func goodAttribute(key, byDefault, value string) bool {
	if options, ok := choices[key]; ok {
		return slices.Contains(options, value) && (value != "use_load_balancer_configuration" || byDefault == value)
	}
	if b, ok := bounds[key]; ok {
		n, err := strconv.Atoi(value)
		return value == b.or || err == nil && b.low <= n && n <= b.high
	}
	return !strings.HasSuffix(key, ".enabled") && !strings.HasSuffix(key, "_traffic") || value == "true" || value == "false"
}

func filled(value string) bool { return value != "" }

func word(value string) bool { return value != "" && !strings.ContainsAny(value, " \t\n") }

func prefixed(prefix string) func(string) bool {
	return func(value string) bool { return strings.HasPrefix(value, prefix) && word(value) }
}

func one(good func(string) bool) func(string) bool {
	return func(value string) bool { return good(value) && !strings.Contains(value, ",") }
}

func isIPv4(value string) bool {
	addr, err := netip.ParseAddr(value)
	return err == nil && addr.Is4()
}

func isIPv6(value string) bool {
	addr, err := netip.ParseAddr(value)
	return err == nil && addr.Is6() && !addr.Is4In6() && addr.Zone() == ""
}

var (
	nameShape  = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,30}[A-Za-z0-9])?$`)
	codesShape = regexp.MustCompile(`^[2-5][0-9]{2}(-[2-5][0-9]{2})?(,[2-5][0-9]{2}(-[2-5][0-9]{2})?)*$`)
	tagShape   = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

func validName(value string) bool {
	return nameShape.MatchString(value) && !strings.HasPrefix(value, "internal-")
}

func validCodes(value string) bool { return codesShape.MatchString(value) }

func validPairs(value string) bool {
	for item := range strings.SplitSeq(value, ",") {
		if key, _, _ := strings.Cut(strings.TrimSpace(item), "="); key == "" || strings.ContainsAny(key, " \t") {
			return false
		}
	}
	return true
}

// split returns the items of a list, without the spaces around them and
// without those that are empty.
func split(value string) []string {
	var items []string
	for item := range strings.SplitSeq(value, ",") {
		if item = strings.TrimSpace(item); item != "" {
			items = append(items, item)
		}
	}
	return items
}

// pairs reads key=value, key= and key; the first = counts.
func pairs(value string) map[string]string {
	all := map[string]string{}
	for _, item := range split(value) {
		key, v, _ := strings.Cut(item, "=")
		all[strings.TrimSpace(key)] = strings.TrimSpace(v)
	}
	return all
}
