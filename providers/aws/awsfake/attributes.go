package awsfake

import (
	"maps"
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// attribute is a setting of a load balancer, target group or listener: what it
// is at first, and which values it may have.
type attribute struct {
	initial string
	value   string
	valid   func(string) bool
}

// attributes are the settings of one thing. AWS shows all of them, set or not.
type attributes map[string]attribute

func (a attributes) get(key string) string { return a[key].value }

func fixed(initial string, values ...string) attribute {
	return attribute{initial: initial, value: initial, valid: func(v string) bool { return slices.Contains(values, v) }}
}

func boolean(initial string) attribute { return fixed(initial, "true", "false") }

func number(initial string, low, high int) attribute {
	return attribute{initial: initial, value: initial, valid: func(v string) bool { return inRange(v, low, high) }}
}

// offOr is a number that may be off.
func offOr(initial string, high int) attribute {
	return attribute{initial: initial, value: initial, valid: func(v string) bool { return v == "off" || inRange(v, 1, high) }}
}

func free(most int) attribute {
	return attribute{valid: func(v string) bool { return len(v) <= most }}
}

func inRange(v string, low, high int) bool {
	n, err := strconv.Atoi(v)
	return err == nil && n >= low && n <= high
}

func networkAttributes(scheme types.LoadBalancerSchemeEnum) attributes {
	deny := "false"
	if scheme == types.LoadBalancerSchemeEnumInternal {
		deny = "true"
	}
	return attributes{
		"access_logs.s3.enabled":            boolean("false"),
		"access_logs.s3.bucket":             free(63),
		"access_logs.s3.prefix":             free(1024),
		"deletion_protection.enabled":       boolean("false"),
		"ipv6.deny_all_igw_traffic":         boolean(deny),
		"load_balancing.cross_zone.enabled": boolean("false"),
		"zonal_shift.config.enabled":        boolean("false"),
		"dns_record.client_routing_policy": fixed("any_availability_zone",
			"any_availability_zone", "availability_zone_affinity", "partial_availability_zone_affinity"),
		"secondary_ips.auto_assigned.per_subnet": number("0", 0, 7),
	}
}

// asBalancer is the value of an attribute that follows the load balancer.
const asBalancer = "use_load_balancer_configuration"

func targetGroupAttributes(g *targetGroup) attributes {
	terminate, preserve := "false", "true"
	unhealthy := boolean("true")
	if g.udp() {
		terminate = "true"
		unhealthy = fixed("false", "false")
	} else if g.kind == types.TargetTypeEnumIp {
		preserve = "false"
	}
	keep := boolean(preserve)
	if g.udp() {
		keep = fixed("true", "true")
	}
	return attributes{
		"deregistration_delay.timeout_seconds":                                           number("300", 0, 3600),
		"deregistration_delay.connection_termination.enabled":                            boolean(terminate),
		"load_balancing.cross_zone.enabled":                                              fixed(asBalancer, "true", "false", asBalancer),
		"preserve_client_ip.enabled":                                                     keep,
		"proxy_protocol_v2.enabled":                                                      boolean("false"),
		"stickiness.enabled":                                                             boolean("false"),
		"stickiness.type":                                                                fixed("source_ip", "source_ip"),
		"target_group_health.dns_failover.minimum_healthy_targets.count":                 offOr("1", 1000),
		"target_group_health.dns_failover.minimum_healthy_targets.percentage":            offOr("off", 100),
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.count":      number("1", 1, 1000),
		"target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage": offOr("off", 100),
		"target_health_state.unhealthy.connection_termination.enabled":                   unhealthy,
		"target_health_state.unhealthy.draining_interval_seconds":                        number("0", 0, 360000),
	}
}

func listenerAttributes(protocol types.ProtocolEnum) attributes {
	// UDP knows no connections, and the idle timeout of TLS is fixed.
	if protocol != types.ProtocolEnumTcp {
		return attributes{}
	}
	return attributes{"tcp.idle_timeout.seconds": number("350", 60, 6000)}
}

// with are the attributes after a change, or why it cannot be.
func (a attributes) with(what string, changes []pair) (attributes, error) {
	if key := twice(changes); key != "" {
		return nil, invalid("%s attribute key '%s' was specified more than once", what, key)
	}
	out := maps.Clone(a)
	for _, p := range changes {
		known, ok := out[p.key]
		if !ok {
			return nil, invalid("%s attribute key '%s' is not known", what, p.key)
		}
		if !known.valid(p.value) {
			return nil, invalid("%s attribute value '%s' is invalid for '%s'", what, p.value, p.key)
		}
		known.value = p.value
		out[p.key] = known
	}
	return out, nil
}

func (a attributes) sorted() []pair {
	var list []pair
	for _, key := range slices.Sorted(maps.Keys(a)) {
		list = append(list, pair{key, a[key].value})
	}
	return list
}

// changed are the attributes that are not as AWS makes them.
func (a attributes) changed() []pair {
	return slices.DeleteFunc(a.sorted(), func(p pair) bool { return a[p.key].initial == p.value })
}

func networkAttributesOut(a attributes) []types.LoadBalancerAttribute {
	var out []types.LoadBalancerAttribute
	for _, p := range a.sorted() {
		out = append(out, types.LoadBalancerAttribute{Key: aws.String(p.key), Value: aws.String(p.value)})
	}
	return out
}

func targetGroupAttributesOut(a attributes) []types.TargetGroupAttribute {
	var out []types.TargetGroupAttribute
	for _, p := range a.sorted() {
		out = append(out, types.TargetGroupAttribute{Key: aws.String(p.key), Value: aws.String(p.value)})
	}
	return out
}

func listenerAttributesOut(a attributes) []types.ListenerAttribute {
	var out []types.ListenerAttribute
	for _, p := range a.sorted() {
		out = append(out, types.ListenerAttribute{Key: aws.String(p.key), Value: aws.String(p.value)})
	}
	return out
}

func (c *Cloud) describeNetworkAttributes(in *elbv2.DescribeLoadBalancerAttributesInput) (*elbv2.DescribeLoadBalancerAttributesOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeLoadBalancerAttributesOutput{Attributes: networkAttributesOut(lb.attributes)}, nil
}

func (c *Cloud) modifyNetworkAttributes(in *elbv2.ModifyLoadBalancerAttributesInput) (*elbv2.ModifyLoadBalancerAttributesOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	var changes []pair
	for _, a := range in.Attributes {
		changes = append(changes, pair{aws.ToString(a.Key), aws.ToString(a.Value)})
	}
	changed, err := lb.attributes.with("Load balancer", changes)
	if err != nil {
		return nil, err
	}
	if err := c.checkNetworkAttributes(lb.attributes, changed); err != nil {
		return nil, err
	}
	lb.attributes = changed
	return &elbv2.ModifyLoadBalancerAttributesOutput{Attributes: networkAttributesOut(changed)}, nil
}

func (c *Cloud) checkNetworkAttributes(old, changed attributes) error {
	bucket := changed.get("access_logs.s3.bucket")
	if changed.get("access_logs.s3.enabled") == "true" {
		if bucket == "" {
			return misconfigured("The value of 'access_logs.s3.bucket' cannot be empty")
		}
		if !c.buckets3[bucket] {
			return misconfigured("Access Denied for bucket: %s. Please check S3bucket permission", bucket)
		}
	}
	before, _ := strconv.Atoi(old.get("secondary_ips.auto_assigned.per_subnet"))
	after, _ := strconv.Atoi(changed.get("secondary_ips.auto_assigned.per_subnet"))
	if after < before {
		return misconfigured("The number of secondary IP addresses cannot be decreased")
	}
	return nil
}

func (c *Cloud) describeTargetGroupAttributes(in *elbv2.DescribeTargetGroupAttributesInput) (*elbv2.DescribeTargetGroupAttributesOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeTargetGroupAttributesOutput{Attributes: targetGroupAttributesOut(g.attributes)}, nil
}

func (c *Cloud) modifyTargetGroupAttributes(in *elbv2.ModifyTargetGroupAttributesInput) (*elbv2.ModifyTargetGroupAttributesOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	var changes []pair
	for _, a := range in.Attributes {
		changes = append(changes, pair{aws.ToString(a.Key), aws.ToString(a.Value)})
	}
	changed, err := g.attributes.with("Target group", changes)
	if err != nil {
		return nil, err
	}
	if changed.get("stickiness.enabled") == "true" && (g.protocol == types.ProtocolEnumTls || c.usedByTLS(g)) {
		return nil, misconfigured("Stickiness is not supported with TLS")
	}
	if changed.get("target_health_state.unhealthy.draining_interval_seconds") != "0" &&
		changed.get("target_health_state.unhealthy.connection_termination.enabled") == "true" {
		return nil, misconfigured("A draining interval for unhealthy targets needs their connection termination to be off")
	}
	g.attributes = changed
	return &elbv2.ModifyTargetGroupAttributesOutput{Attributes: targetGroupAttributesOut(changed)}, nil
}

func (c *Cloud) describeListenerAttributes(in *elbv2.DescribeListenerAttributesInput) (*elbv2.DescribeListenerAttributesOutput, error) {
	l, err := c.listenerBy(in.ListenerArn)
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeListenerAttributesOutput{Attributes: listenerAttributesOut(l.attributes)}, nil
}

func (c *Cloud) modifyListenerAttributes(in *elbv2.ModifyListenerAttributesInput) (*elbv2.ModifyListenerAttributesOutput, error) {
	l, err := c.listenerBy(in.ListenerArn)
	if err != nil {
		return nil, err
	}
	var changes []pair
	for _, a := range in.Attributes {
		changes = append(changes, pair{aws.ToString(a.Key), aws.ToString(a.Value)})
	}
	changed, err := l.attributes.with("Listener", changes)
	if err != nil {
		return nil, err
	}
	l.attributes = changed
	return &elbv2.ModifyListenerAttributesOutput{Attributes: listenerAttributesOut(changed)}, nil
}
