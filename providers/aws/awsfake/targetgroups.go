package awsfake

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// targetGroup is a set of targets that listeners forward to. Its protocol,
// port, kind, IP family and VPC never change.
type targetGroup struct {
	arn, name, vpc string
	protocol       types.ProtocolEnum
	port           int32
	kind           types.TargetTypeEnum
	ipType         types.TargetGroupIpAddressTypeEnum
	check          check
	attributes     attributes
	tags           tags
	targets        []*target
	// held is until when it counts as in use after its load balancer is gone.
	held time.Time
}

// check is the health check of a target group.
type check struct {
	protocol                              types.ProtocolEnum
	port, path, codes                     string
	interval, timeout, healthy, unhealthy int32
}

func (g *targetGroup) udp() bool {
	return g.protocol == types.ProtocolEnumUdp || g.protocol == types.ProtocolEnumTcpUdp
}

// usualCheck is what AWS takes where the caller says nothing.
func usualCheck(protocol types.ProtocolEnum) check {
	k := check{protocol: protocol, port: "traffic-port", interval: 30, timeout: 10, healthy: 5, unhealthy: 2}
	if protocol == types.ProtocolEnumHttp {
		k.timeout = 6
	}
	if k.http() {
		k.path, k.codes = "/", "200-399"
	}
	return k
}

func (k check) http() bool {
	return k.protocol == types.ProtocolEnumHttp || k.protocol == types.ProtocolEnumHttps
}

// valid is the rule of health checks.
func (k check) valid() error {
	between := func(name string, value, low, high int32) error {
		if value < low || value > high {
			return invalid("%s '%d' must be between %d and %d", name, value, low, high)
		}
		return nil
	}
	for _, err := range []error{
		between("Health check interval", k.interval, 5, 300),
		between("Health check timeout", k.timeout, 2, 120),
		between("Healthy threshold count", k.healthy, 2, 10),
		between("Unhealthy threshold count", k.unhealthy, 2, 10),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case k.timeout >= k.interval:
		return invalid("Health check interval must be greater than the timeout.")
	case k.protocol != types.ProtocolEnumTcp && !k.http():
		return invalid("Health check protocol '%s' is not supported", k.protocol)
	case k.port != "traffic-port" && !inRange(k.port, 1, 65535):
		return invalid("Health check port '%s' must be 'traffic-port' or an integer between 1 and 65535", k.port)
	case !k.http() && (k.path != "" || k.codes != ""):
		return invalid("A path and a matcher are not supported for health checks of the TCP protocol")
	case k.http() && (!strings.HasPrefix(k.path, "/") || len(k.path) > 1024 || strings.ContainsAny(k.path, " \t\n")):
		return invalid("Health check path '%s' must begin with a '/' and have up to 1024 characters", k.path)
	case k.http() && !validCodes(k.codes):
		return invalid("Health check matcher HTTP code '%s' must be within '200-599' inclusive", k.codes)
	}
	return nil
}

// validCodes reads "200,202" and "200-299".
func validCodes(codes string) bool {
	for part := range strings.SplitSeq(codes, ",") {
		low, high, is := strings.Cut(part, "-")
		if !is {
			high = low
		}
		if !inRange(low, 200, 599) || !inRange(high, 200, 599) || low > high {
			return false
		}
	}
	return true
}

// settings are the parts of a health check that a caller may name.
type settings struct {
	enabled                               *bool
	protocol                              types.ProtocolEnum
	port, path                            *string
	matcher                               *types.Matcher
	interval, timeout, healthy, unhealthy *int32
}

// with is a health check with some parts changed.
func (k check) with(s settings) (check, error) {
	if s.enabled != nil && !*s.enabled {
		return k, invalid("Health checks cannot be disabled for this target type")
	}
	if s.protocol != "" && s.protocol != k.protocol {
		was := k
		k = usualCheck(s.protocol)
		k.port, k.interval, k.timeout, k.healthy, k.unhealthy = was.port, was.interval, was.timeout, was.healthy, was.unhealthy
	}
	set(&k.port, s.port)
	set(&k.path, s.path)
	set(&k.interval, s.interval)
	set(&k.timeout, s.timeout)
	set(&k.healthy, s.healthy)
	set(&k.unhealthy, s.unhealthy)
	if s.matcher != nil {
		set(&k.codes, s.matcher.HttpCode)
	}
	return k, k.valid()
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

func (c *Cloud) createTargetGroup(in *elbv2.CreateTargetGroupInput) (*elbv2.CreateTargetGroupOutput, error) {
	g, err := c.newTargetGroup(in)
	if err != nil {
		return nil, err
	}
	for _, old := range c.targetGroups.all() {
		if old.name != g.name {
			continue
		}
		if !sameTargetGroup(old, g) {
			return nil, &types.DuplicateTargetGroupNameException{
				Message: text("A target group with the same name '%s' exists, but with different settings", g.name),
			}
		}
		return &elbv2.CreateTargetGroupOutput{TargetGroups: []types.TargetGroup{c.targetGroupOut(old)}}, nil
	}
	if len(c.targetGroups.live) >= c.limits.TargetGroups {
		return nil, &types.TooManyTargetGroupsException{Message: text("The quota of %d target groups has been reached", c.limits.TargetGroups)}
	}
	g.arn = c.arn("targetgroup/" + g.name)
	c.targetGroups.add(g.arn, g, c.next(), c.now())
	return &elbv2.CreateTargetGroupOutput{TargetGroups: []types.TargetGroup{c.targetGroupOut(g)}}, nil
}

// newTargetGroup is the target group that is asked for, or why there cannot be
// such a one.
func (c *Cloud) newTargetGroup(in *elbv2.CreateTargetGroupInput) (*targetGroup, error) {
	g := &targetGroup{
		name: aws.ToString(in.Name), vpc: aws.ToString(in.VpcId), protocol: in.Protocol, port: aws.ToInt32(in.Port),
		kind: or(in.TargetType, types.TargetTypeEnumInstance), ipType: or(in.IpAddressType, types.TargetGroupIpAddressTypeEnumIpv4),
	}
	if err := checkName("target group", g.name, false); err != nil {
		return nil, err
	}
	switch {
	case !slices.Contains(networkProtocols, g.protocol):
		return nil, &types.UnsupportedProtocolException{Message: text("The protocol '%s' is not supported by Network Load Balancers", g.protocol)}
	case in.ProtocolVersion != nil:
		return nil, invalid("A protocol version cannot be specified for target groups with the protocol '%s'", g.protocol)
	case g.port < 1 || g.port > 65535:
		return nil, invalid("Port '%d' must be between 1 and 65535", g.port)
	case g.kind != types.TargetTypeEnumInstance && g.kind != types.TargetTypeEnumIp:
		return nil, invalid("awsfake knows the target types instance and ip only, not '%s'", g.kind)
	case !slices.Contains(g.ipType.Values(), g.ipType):
		return nil, invalid("IP address type '%s' is not valid", g.ipType)
	case g.vpc == "":
		return nil, invalid("A VPC ID must be specified")
	}
	if _, ok := c.vpcs.get(g.vpc); !ok {
		return nil, invalid("The VPC ID '%s' is not found", g.vpc)
	}
	var err error
	usual := usualCheck(or(in.HealthCheckProtocol, types.ProtocolEnumTcp))
	g.check, err = usual.with(settings{
		enabled: in.HealthCheckEnabled, port: in.HealthCheckPort, path: in.HealthCheckPath, matcher: in.Matcher,
		interval: in.HealthCheckIntervalSeconds, timeout: in.HealthCheckTimeoutSeconds,
		healthy: in.HealthyThresholdCount, unhealthy: in.UnhealthyThresholdCount,
	})
	if err != nil {
		return nil, err
	}
	g.attributes = targetGroupAttributes(g)
	g.tags, err = c.tag(nil, networkPairs(in.Tags), networkTagErrors)
	return g, err
}

var networkProtocols = []types.ProtocolEnum{types.ProtocolEnumTcp, types.ProtocolEnumTls, types.ProtocolEnumUdp, types.ProtocolEnumTcpUdp}

func sameTargetGroup(a, b *targetGroup) bool {
	return a.protocol == b.protocol && a.port == b.port && a.vpc == b.vpc && a.kind == b.kind && a.ipType == b.ipType &&
		a.check == b.check && slices.Equal(a.tags.sorted(), b.tags.sorted())
}

func (c *Cloud) targetGroupBy(arn *string) (*targetGroup, error) {
	if err := checkARN(aws.ToString(arn), "targetgroup/", "target group"); err != nil {
		return nil, err
	}
	g, ok := c.targetGroups.get(aws.ToString(arn))
	if !ok {
		return nil, &types.TargetGroupNotFoundException{Message: text("Target groups '%s' not found", aws.ToString(arn))}
	}
	return g, nil
}

func (c *Cloud) deleteTargetGroup(in *elbv2.DeleteTargetGroupInput) (*elbv2.DeleteTargetGroupOutput, error) {
	arn := aws.ToString(in.TargetGroupArn)
	if err := checkARN(arn, "targetgroup/", "target group"); err != nil {
		return nil, err
	}
	g, ok := c.targetGroups.get(arn)
	if !ok {
		// What is gone already counts as deleted.
		return &elbv2.DeleteTargetGroupOutput{}, nil
	}
	if c.networkOf(g) != nil || c.now().Before(g.held) {
		return nil, &types.ResourceInUseException{Message: text("Target group '%s' is currently in use by a listener or a rule", arn)}
	}
	c.targetGroups.remove(arn, c.now())
	return &elbv2.DeleteTargetGroupOutput{}, nil
}

func (c *Cloud) describeTargetGroups(in *elbv2.DescribeTargetGroupsInput) (*elbv2.DescribeTargetGroupsOutput, error) {
	list := c.targetGroups.seen(c.now(), c.options.Delays)
	if in.LoadBalancerArn != nil {
		lb, err := c.networkBy(in.LoadBalancerArn)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(n numbered[*targetGroup]) bool { return c.networkOf(n.value) != lb })
	}
	list, err := chosen(list, in.TargetGroupArns, in.Names,
		func(g *targetGroup) string { return g.arn }, func(g *targetGroup) string { return g.name },
		func(key string) error {
			return &types.TargetGroupNotFoundException{Message: text("One or more target groups not found: %s", key)}
		})
	if err != nil {
		return nil, err
	}
	part, next, err := balancingPage(c, list, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeTargetGroupsOutput{NextMarker: next}
	for _, n := range part {
		out.TargetGroups = append(out.TargetGroups, c.targetGroupOut(n.value))
	}
	return out, nil
}

func (c *Cloud) modifyTargetGroup(in *elbv2.ModifyTargetGroupInput) (*elbv2.ModifyTargetGroupOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	changed, err := g.check.with(settings{
		enabled: in.HealthCheckEnabled, protocol: in.HealthCheckProtocol, port: in.HealthCheckPort, path: in.HealthCheckPath, matcher: in.Matcher,
		interval: in.HealthCheckIntervalSeconds, timeout: in.HealthCheckTimeoutSeconds,
		healthy: in.HealthyThresholdCount, unhealthy: in.UnhealthyThresholdCount,
	})
	if err != nil {
		return nil, err
	}
	g.check = changed
	return &elbv2.ModifyTargetGroupOutput{TargetGroups: []types.TargetGroup{c.targetGroupOut(g)}}, nil
}

func (c *Cloud) targetGroupOut(g *targetGroup) types.TargetGroup {
	out := types.TargetGroup{
		TargetGroupArn: aws.String(g.arn), TargetGroupName: aws.String(g.name), VpcId: aws.String(g.vpc),
		Protocol: g.protocol, Port: aws.Int32(g.port), TargetType: g.kind, IpAddressType: g.ipType, HealthCheckEnabled: aws.Bool(true),
		HealthCheckProtocol: g.check.protocol, HealthCheckPort: aws.String(g.check.port), HealthCheckPath: optional(g.check.path),
		HealthCheckIntervalSeconds: aws.Int32(g.check.interval), HealthCheckTimeoutSeconds: aws.Int32(g.check.timeout),
		HealthyThresholdCount: aws.Int32(g.check.healthy), UnhealthyThresholdCount: aws.Int32(g.check.unhealthy),
	}
	if g.check.codes != "" {
		out.Matcher = &types.Matcher{HttpCode: aws.String(g.check.codes)}
	}
	if lb := c.networkOf(g); lb != nil {
		out.LoadBalancerArns = []string{lb.arn}
	}
	return out
}

// networkOf is the load balancer that forwards to a target group, if one does.
func (c *Cloud) networkOf(g *targetGroup) *network {
	for _, l := range c.listeners.all() {
		if l.group == g {
			return l.lb
		}
	}
	return nil
}

// usedByTLS says whether a TLS listener forwards to a target group.
func (c *Cloud) usedByTLS(g *targetGroup) bool {
	return slices.ContainsFunc(c.listeners.all(), func(l *listener) bool { return l.group == g && l.protocol == types.ProtocolEnumTls })
}

func (k check) String() string {
	return string(k.protocol) + ":" + k.port + k.path + " interval=" + strconv.Itoa(int(k.interval)) + " timeout=" + strconv.Itoa(int(k.timeout)) +
		" healthy=" + strconv.Itoa(int(k.healthy)) + " unhealthy=" + strconv.Itoa(int(k.unhealthy))
}
