package awsfake

import (
	"slices"
	"strconv"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// classicAttributes are the settings of a Classic Load Balancer.
type classicAttributes struct {
	crossZone      bool
	draining       bool
	drainingTime   int32
	idle           int32
	log            bool
	logInterval    int32
	bucket, prefix string
	desync         string
}

func usualClassicAttributes() classicAttributes {
	return classicAttributes{drainingTime: 300, idle: 60, logInterval: 60, desync: "defensive"}
}

const desyncKey = "elb.http.desyncmitigationmode"

func (a classicAttributes) out() *types.LoadBalancerAttributes {
	out := &types.LoadBalancerAttributes{
		AccessLog:              &types.AccessLog{Enabled: a.log},
		ConnectionDraining:     &types.ConnectionDraining{Enabled: a.draining, Timeout: aws.Int32(a.drainingTime)},
		ConnectionSettings:     &types.ConnectionSettings{IdleTimeout: aws.Int32(a.idle)},
		CrossZoneLoadBalancing: &types.CrossZoneLoadBalancing{Enabled: a.crossZone},
		AdditionalAttributes:   []types.AdditionalAttribute{{Key: aws.String(desyncKey), Value: aws.String(a.desync)}},
	}
	if a.log {
		out.AccessLog.EmitInterval = aws.Int32(a.logInterval)
		out.AccessLog.S3BucketName = optional(a.bucket)
		out.AccessLog.S3BucketPrefix = aws.String(a.prefix)
	}
	return out
}

// changed are the attributes that are not as AWS makes them.
func (a classicAttributes) changed() []pair {
	usual := usualClassicAttributes()
	all := []struct {
		pair
		usual string
	}{
		{pair{"access-log", strconv.FormatBool(a.log)}, "false"},
		{pair{"access-log-bucket", a.bucket}, ""},
		{pair{"access-log-interval", strconv.Itoa(int(a.logInterval))}, strconv.Itoa(int(usual.logInterval))},
		{pair{"access-log-prefix", a.prefix}, ""},
		{pair{"cross-zone", strconv.FormatBool(a.crossZone)}, "false"},
		{pair{"desync", a.desync}, usual.desync},
		{pair{"draining", strconv.FormatBool(a.draining)}, "false"},
		{pair{"draining-timeout", strconv.Itoa(int(a.drainingTime))}, strconv.Itoa(int(usual.drainingTime))},
		{pair{"idle-timeout", strconv.Itoa(int(a.idle))}, strconv.Itoa(int(usual.idle))},
	}
	var out []pair
	for _, one := range all {
		if one.value != one.usual {
			out = append(out, one.pair)
		}
	}
	return out
}

// with are the attributes after a change: what is not named stays.
func (a classicAttributes) with(in *types.LoadBalancerAttributes) (classicAttributes, error) {
	if in.CrossZoneLoadBalancing != nil {
		a.crossZone = in.CrossZoneLoadBalancing.Enabled
	}
	if s := in.ConnectionSettings; s != nil {
		set(&a.idle, s.IdleTimeout)
	}
	if d := in.ConnectionDraining; d != nil {
		a.draining = d.Enabled
		set(&a.drainingTime, d.Timeout)
	}
	if l := in.AccessLog; l != nil {
		a.log = l.Enabled
		a.logInterval, a.bucket, a.prefix = 60, aws.ToString(l.S3BucketName), aws.ToString(l.S3BucketPrefix)
		set(&a.logInterval, l.EmitInterval)
	}
	for _, extra := range in.AdditionalAttributes {
		if aws.ToString(extra.Key) != desyncKey {
			return a, &types.LoadBalancerAttributeNotFoundException{Message: text("There is no attribute '%s'", aws.ToString(extra.Key))}
		}
		a.desync = aws.ToString(extra.Value)
	}
	switch {
	case a.idle < 1 || a.idle > 4000:
		return a, invalid("ConnectionSettings IdleTimeout must be between 1 and 4000 seconds: %d", a.idle)
	case a.drainingTime < 1 || a.drainingTime > 3600:
		return a, invalid("ConnectionDraining Timeout must be between 1 and 3600 seconds: %d", a.drainingTime)
	case a.logInterval != 5 && a.logInterval != 60:
		return a, invalid("AccessLog EmitInterval must be 5 or 60 minutes: %d", a.logInterval)
	case a.log && a.bucket == "":
		return a, misconfiguredClassic("S3BucketName must be specified when access logs are enabled")
	case !slices.Contains([]string{"monitor", "defensive", "strictest"}, a.desync):
		return a, invalid("Value '%s' of '%s' must be monitor, defensive or strictest", a.desync, desyncKey)
	}
	return a, nil
}

func (c *Cloud) describeClassicAttributes(in *elb.DescribeLoadBalancerAttributesInput) (*elb.DescribeLoadBalancerAttributesOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	return &elb.DescribeLoadBalancerAttributesOutput{LoadBalancerAttributes: lb.attributes.out()}, nil
}

func (c *Cloud) modifyClassicAttributes(in *elb.ModifyLoadBalancerAttributesInput) (*elb.ModifyLoadBalancerAttributesOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	changed, err := lb.attributes.with(in.LoadBalancerAttributes)
	if err != nil {
		return nil, err
	}
	if changed.log && !c.buckets3[changed.bucket] {
		return nil, misconfiguredClassic("Access Denied for bucket: %s. Please check S3bucket permission", changed.bucket)
	}
	lb.attributes = changed
	return &elb.ModifyLoadBalancerAttributesOutput{LoadBalancerName: aws.String(lb.name), LoadBalancerAttributes: changed.out()}, nil
}
