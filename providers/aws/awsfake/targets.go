package awsfake

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// target is an instance or an address with a port.
type target struct {
	id   string
	port int32
	// zone is of an address only; all is one outside of the VPC.
	zone string
	// since is when it was registered, or when its group came to be used.
	since time.Time
	// drained is when it is gone, if it is deregistered.
	drained time.Time
}

// settle drops what has drained.
func (g *targetGroup) settle(now time.Time) {
	g.targets = slices.DeleteFunc(g.targets, func(t *target) bool { return !t.drained.IsZero() && !now.Before(t.drained) })
}

// orphan ends the draining in a group that no load balancer uses any more:
// there are no connections left.
func (c *Cloud) orphan(g *targetGroup) {
	if c.networkOf(g) == nil {
		g.targets = slices.DeleteFunc(g.targets, func(t *target) bool { return !t.drained.IsZero() })
	}
}

func (g *targetGroup) find(id string, port int32) *target {
	i := slices.IndexFunc(g.targets, func(t *target) bool { return t.id == id && t.port == port })
	if i < 0 {
		return nil
	}
	return g.targets[i]
}

func (c *Cloud) registerTargets(in *elbv2.RegisterTargetsInput) (*elbv2.RegisterTargetsOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	wanted, err := c.wantedTargets(g, in.Targets)
	if err != nil {
		return nil, err
	}
	if err := c.checkRoom(g, wanted); err != nil {
		return nil, err
	}
	for _, t := range wanted {
		old := g.find(t.id, t.port)
		switch {
		case old == nil:
			t.since = c.now()
			g.targets = append(g.targets, t)
		case !old.drained.IsZero():
			old.drained, old.since = time.Time{}, c.now()
		}
	}
	return &elbv2.RegisterTargetsOutput{}, nil
}

// wantedTargets are targets as they would be registered: one that cannot be
// fails all.
func (c *Cloud) wantedTargets(g *targetGroup, list []types.TargetDescription) ([]*target, error) {
	if err := c.checkTargetList(list); err != nil {
		return nil, err
	}
	var wanted []*target
	var absent, idle []string
	for _, d := range list {
		t := &target{id: aws.ToString(d.Id), port: g.port, zone: aws.ToString(d.AvailabilityZone)}
		set(&t.port, d.Port)
		if t.port < 1 || t.port > 65535 {
			return nil, invalid("Port '%d' must be between 1 and 65535", t.port)
		}
		if slices.ContainsFunc(wanted, func(o *target) bool { return o.id == t.id && o.port == t.port }) {
			return nil, invalid("The target '%s' was specified more than once", t.id)
		}
		wanted = append(wanted, t)
		if g.kind == types.TargetTypeEnumIp {
			if err := c.checkAddress(g, t); err != nil {
				return nil, err
			}
			continue
		}
		if t.zone != "" {
			return nil, invalid("An Availability Zone cannot be specified for target groups with the target type 'instance'")
		}
		switch i, ok := c.instances.get(t.id); {
		case !ok:
			absent = append(absent, "'"+t.id+"'")
		case !running(i):
			idle = append(idle, "'"+t.id+"'")
		case i.vpc != g.vpc:
			return nil, &types.InvalidTargetException{
				Message: text("The following targets are not in the target group VPC '%s': '%s'", g.vpc, t.id),
			}
		}
	}
	if len(absent) > 0 {
		return nil, &types.InvalidTargetException{Message: text("The following targets do not exist: %s", strings.Join(absent, ", "))}
	}
	if len(idle) > 0 {
		return nil, &types.InvalidTargetException{
			Message: text("The following targets are not in a running state and cannot be registered: %s", strings.Join(idle, ", ")),
		}
	}
	return wanted, nil
}

func (c *Cloud) checkTargetList(list []types.TargetDescription) error {
	if len(list) == 0 {
		return invalid("At least one target must be specified")
	}
	if len(list) > c.limits.TargetsPerCall {
		return invalid("Up to %d targets can be specified in a single request", c.limits.TargetsPerCall)
	}
	return nil
}

var (
	private4 = []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("100.64.0.0/10"),
		netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	}
)

// checkAddress is the rule of address targets: of the VPC's subnets, whose zone
// is then known, or of the private ranges, with the zone "all".
func (c *Cloud) checkAddress(g *targetGroup, t *target) error {
	a, err := netip.ParseAddr(t.id)
	if err != nil {
		return invalid("The IP address '%s' is not a valid IPv4 or IPv6 address", t.id)
	}
	if a.Is6() != (g.ipType == types.TargetGroupIpAddressTypeEnumIpv6) {
		return invalid("The IP address '%s' does not match the IP address type '%s' of the target group", t.id, g.ipType)
	}
	if _, ok := c.zones[t.zone]; t.zone != "" && t.zone != "all" && !ok {
		return invalid("The Availability Zone '%s' is not valid", t.zone)
	}
	for _, s := range c.subnets.all() {
		if s.VPC != g.vpc || !s.CIDR.Contains(a) && !(s.CIDRv6.IsValid() && s.CIDRv6.Contains(a)) {
			continue
		}
		if t.zone != "" && t.zone != s.Zone && t.zone != "all" {
			return invalid("The IP address '%s' is not in the Availability Zone '%s'", t.id, t.zone)
		}
		t.zone = or(t.zone, s.Zone)
		return nil
	}
	v, _ := c.vpcs.get(g.vpc)
	if !within(a, private4) && !within(a, v.CIDRs) {
		return &types.InvalidTargetException{Message: text("The IP address '%s' is not in the VPC or in an allowed private range", t.id)}
	}
	if t.zone == "" {
		return invalid("The Availability Zone is required for IP address '%s' because it is not in the VPC", t.id)
	}
	return nil
}

// checkRoom is the quota of targets of a group and of the load balancer that
// uses it.
func (c *Cloud) checkRoom(g *targetGroup, wanted []*target) error {
	fresh := slices.DeleteFunc(slices.Clone(wanted), func(t *target) bool { return g.find(t.id, t.port) != nil })
	if len(g.targets)+len(fresh) > c.limits.TargetsPerGroup {
		return &types.TooManyTargetsException{
			Message: text("The quota of %d targets for the target group has been reached", c.limits.TargetsPerGroup),
		}
	}
	if lb := c.networkOf(g); lb != nil {
		return c.checkLoad(lb, fresh)
	}
	return nil
}

// checkLoad is the quota of a load balancer's targets, with some that are to
// come.
func (c *Cloud) checkLoad(lb *network, fresh []*target) error {
	total, zones := len(fresh), map[string]int{}
	for _, t := range fresh {
		zones[c.zoneOf(t)]++
	}
	for _, used := range c.targetGroupsOf(lb) {
		total += len(used.targets)
		for _, t := range used.targets {
			zones[c.zoneOf(t)]++
		}
	}
	most := c.limits.TargetsPerNetwork
	if lb.attributes.get("load_balancing.cross_zone.enabled") == "true" {
		most = c.limits.TargetsPerZone
	}
	for zone, n := range zones {
		if n > c.limits.TargetsPerZone {
			return &types.TooManyTargetsException{
				Message: text("The quota of %d targets in zone '%s' has been reached", c.limits.TargetsPerZone, zone),
			}
		}
	}
	if total > most {
		return &types.TooManyTargetsException{Message: text("The quota of %d targets for the load balancer has been reached", most)}
	}
	return nil
}

// zoneOf is the zone of a target.
func (c *Cloud) zoneOf(t *target) string {
	if i, ok := c.instances.get(t.id); ok {
		return i.zone
	}
	return t.zone
}

func (c *Cloud) targetGroupsOf(lb *network) []*targetGroup {
	var groups []*targetGroup
	for _, l := range c.listenersOf(lb) {
		if !slices.Contains(groups, l.group) {
			groups = append(groups, l.group)
		}
	}
	return groups
}

func (c *Cloud) deregisterTargets(in *elbv2.DeregisterTargetsInput) (*elbv2.DeregisterTargetsOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	if err := c.checkTargetList(in.Targets); err != nil {
		return nil, err
	}
	for _, d := range in.Targets {
		if g.kind == types.TargetTypeEnumIp {
			if _, err := netip.ParseAddr(aws.ToString(d.Id)); err != nil {
				return nil, invalid("The IP address '%s' is not a valid IPv4 or IPv6 address", aws.ToString(d.Id))
			}
		} else if !strings.HasPrefix(aws.ToString(d.Id), "i-") {
			return nil, invalid("Instance ID '%s' is not valid", aws.ToString(d.Id))
		}
	}
	for _, d := range in.Targets {
		port := g.port
		set(&port, d.Port)
		// One that is not registered is as it should be.
		if t := g.find(aws.ToString(d.Id), port); t != nil && t.drained.IsZero() {
			t.drained = c.drained(g, t)
		}
	}
	g.settle(c.now())
	return &elbv2.DeregisterTargetsOutput{}, nil
}

// drained is when a target that is deregistered now is gone: at once, if there
// is no load balancer that has connections to it.
func (c *Cloud) drained(g *targetGroup, t *target) time.Time {
	if c.networkOf(g) == nil {
		return c.now()
	}
	seconds, _ := strconv.Atoi(g.attributes.get("deregistration_delay.timeout_seconds"))
	if state := c.state(g, t).State; state == types.TargetHealthStateEnumUnused {
		return c.now()
	}
	return c.now().Add(time.Duration(seconds) * time.Second)
}

func (c *Cloud) describeTargetHealth(in *elbv2.DescribeTargetHealthInput) (*elbv2.DescribeTargetHealthOutput, error) {
	g, err := c.targetGroupBy(in.TargetGroupArn)
	if err != nil {
		return nil, err
	}
	shown := slices.Clone(g.targets)
	slices.SortFunc(shown, byTarget)
	if len(in.Targets) > 0 {
		if shown, err = c.askedTargets(g, in.Targets); err != nil {
			return nil, err
		}
	}
	out := &elbv2.DescribeTargetHealthOutput{}
	for _, t := range shown {
		d := &types.TargetDescription{Id: aws.String(t.id), Port: aws.Int32(t.port), AvailabilityZone: optional(t.zone)}
		port := g.check.port
		if port == "traffic-port" {
			port = strconv.Itoa(int(t.port))
		}
		out.TargetHealthDescriptions = append(out.TargetHealthDescriptions, types.TargetHealthDescription{
			Target: d, HealthCheckPort: aws.String(port), TargetHealth: c.state(g, t),
		})
	}
	return out, nil
}

func byTarget(a, b *target) int {
	return cmp.Or(cmp.Compare(a.id, b.id), cmp.Compare(a.port, b.port))
}

// askedTargets are the targets that are asked for. An instance that exists but
// is not registered is told as unused.
func (c *Cloud) askedTargets(g *targetGroup, list []types.TargetDescription) ([]*target, error) {
	var asked []*target
	for _, d := range list {
		id, port := aws.ToString(d.Id), g.port
		set(&port, d.Port)
		t := g.find(id, port)
		if t == nil {
			if _, ok := c.instances.get(id); !ok && g.kind == types.TargetTypeEnumInstance {
				return nil, &types.InvalidTargetException{Message: text("The following targets do not exist: '%s'", id)}
			}
			t = &target{id: id, port: port}
		}
		asked = append(asked, t)
	}
	return asked, nil
}

// state is the health of a target.
func (c *Cloud) state(g *targetGroup, t *target) *types.TargetHealth {
	lb := c.networkOf(g)
	i, machine := c.instances.get(t.id)
	switch {
	case g.find(t.id, t.port) != t:
		return health(types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotRegistered, "Target is not registered to the target group")
	case !t.drained.IsZero():
		return health(types.TargetHealthStateEnumDraining, types.TargetHealthReasonEnumDeregistrationInProgress, "Target deregistration is in progress")
	case lb == nil:
		return health(types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotInUse,
			"Target group is not configured to receive traffic from the load balancer")
	case machine && !running(i):
		return health(types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumInvalidState, "Target is in the stopped state")
	case !c.serves(lb, g, c.zoneOf(t)):
		return health(types.TargetHealthStateEnumUnused, types.TargetHealthReasonEnumNotInUse,
			"Target is in an Availability Zone that is not enabled for the load balancer")
	case c.now().Sub(t.since) < c.options.Delays.Healthy:
		return health(types.TargetHealthStateEnumInitial, types.TargetHealthReasonEnumRegistrationInProgress, "Target registration is in progress")
	case c.unhealthy[t.id]:
		return health(types.TargetHealthStateEnumUnhealthy, types.TargetHealthReasonEnumFailedHealthChecks, "Health checks failed")
	}
	return &types.TargetHealth{State: types.TargetHealthStateEnumHealthy}
}

// serves says whether a load balancer sends traffic to a zone.
func (c *Cloud) serves(lb *network, g *targetGroup, zone string) bool {
	cross := g.attributes.get("load_balancing.cross_zone.enabled")
	if cross == asBalancer {
		cross = lb.attributes.get("load_balancing.cross_zone.enabled")
	}
	return zone == "all" || cross == "true" || slices.ContainsFunc(lb.zones, func(z attachment) bool { return z.subnet.Zone == zone })
}

func health(state types.TargetHealthStateEnum, reason types.TargetHealthReasonEnum, description string) *types.TargetHealth {
	return &types.TargetHealth{State: state, Reason: reason, Description: aws.String(description)}
}

// use starts the health checks of a group that a load balancer begins to use,
// if that can bear them.
func (c *Cloud) use(l *listener) error {
	if c.networkOf(l.group) != nil {
		return nil
	}
	if err := c.checkLoad(l.lb, l.group.targets); err != nil {
		return err
	}
	for _, t := range l.group.targets {
		t.since = c.now()
	}
	return nil
}
