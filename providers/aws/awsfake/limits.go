package awsfake

import "time"

// Limits are the quotas of an account. A field that is 0 has AWS's default.
type Limits struct {
	// Load balancers of a region.
	NetworkLoadBalancers, ClassicLoadBalancers int
	// Of one Network Load Balancer: listeners, certificates beside the default
	// ones, targets of a zone and of all zones. With cross-zone load balancing
	// the limit of a zone is the limit of all.
	ListenersPerNetwork, CertificatesPerNetwork, TargetsPerZone, TargetsPerNetwork int
	// Target groups of a region, and the targets of one.
	TargetGroups, TargetsPerGroup int
	// TargetsPerCall is how many targets one RegisterTargets or
	// DeregisterTargets may name.
	TargetsPerCall int
	// Of one Classic Load Balancer.
	ListenersPerClassic, InstancesPerClassic, PoliciesPerClassic int
	// Security groups of a region, inbound rules of one for each IP family, and
	// groups on one network interface.
	SecurityGroups, RulesPerSecurityGroup, SecurityGroupsPerInterface int
	// Tags of one thing.
	Tags int
}

func (l Limits) complete() Limits {
	return Limits{
		NetworkLoadBalancers:       or(l.NetworkLoadBalancers, 50),
		ClassicLoadBalancers:       or(l.ClassicLoadBalancers, 20),
		ListenersPerNetwork:        or(l.ListenersPerNetwork, 50),
		CertificatesPerNetwork:     or(l.CertificatesPerNetwork, 25),
		TargetsPerZone:             or(l.TargetsPerZone, 500),
		TargetsPerNetwork:          or(l.TargetsPerNetwork, 3000),
		TargetGroups:               or(l.TargetGroups, 3000),
		TargetsPerGroup:            or(l.TargetsPerGroup, 1000),
		TargetsPerCall:             or(l.TargetsPerCall, 100),
		ListenersPerClassic:        or(l.ListenersPerClassic, 100),
		InstancesPerClassic:        or(l.InstancesPerClassic, 1000),
		PoliciesPerClassic:         or(l.PoliciesPerClassic, 100),
		SecurityGroups:             or(l.SecurityGroups, 2500),
		RulesPerSecurityGroup:      or(l.RulesPerSecurityGroup, 60),
		SecurityGroupsPerInterface: or(l.SecurityGroupsPerInterface, 5),
		Tags:                       or(l.Tags, 50),
	}
}

// Rate is how often an operation may be called: so many at once, and so many
// more each second.
type Rate struct {
	Burst     int
	PerSecond float64
}

// bucket is a token bucket.
type bucket struct {
	rate   Rate
	tokens float64
	filled time.Time
}

// take takes a token if there is one.
func (b *bucket) take(now time.Time) bool {
	if passed := now.Sub(b.filled); passed > 0 {
		b.tokens = min(float64(b.rate.Burst), b.tokens+passed.Seconds()*b.rate.PerSecond)
		b.filled = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// throttled says whether a call comes too soon.
func (c *Cloud) throttled(call Call) bool {
	for _, key := range []string{call.String(), call.API, ""} {
		rate, ok := c.options.Rates[key]
		if !ok {
			continue
		}
		b, ok := c.buckets[key]
		if !ok {
			b = &bucket{rate: rate, tokens: float64(rate.Burst), filled: c.now()}
			c.buckets[key] = b
		}
		return !b.take(c.now())
	}
	return false
}
