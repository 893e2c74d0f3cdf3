package awsfake

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// registration is an instance of a Classic Load Balancer.
type registration struct {
	id    string
	since time.Time
}

// classicCheck is the health check of a Classic Load Balancer.
type classicCheck struct {
	target                                string
	interval, timeout, healthy, unhealthy int32
}

func (k classicCheck) out() *types.HealthCheck {
	return &types.HealthCheck{
		Target: aws.String(k.target), Interval: aws.Int32(k.interval), Timeout: aws.Int32(k.timeout),
		HealthyThreshold: aws.Int32(k.healthy), UnhealthyThreshold: aws.Int32(k.unhealthy),
	}
}

func (k classicCheck) String() string {
	return fmt.Sprintf("%s interval=%d timeout=%d healthy=%d unhealthy=%d", k.target, k.interval, k.timeout, k.healthy, k.unhealthy)
}

// valid is the rule of health checks.
func (k classicCheck) valid() error {
	protocol, rest, _ := strings.Cut(k.target, ":")
	port, path, hasPath := strings.Cut(rest, "/")
	switch {
	case !slices.Contains([]string{"TCP", "SSL", "HTTP", "HTTPS"}, protocol):
		return invalid("HealthCheck target must specify a valid protocol (HTTP, HTTPS, TCP or SSL): '%s'", k.target)
	case !inRange(port, 1, 65535):
		return invalid("HealthCheck target port must be between 1 and 65535: '%s'", k.target)
	case httpProtocol(protocol) && !hasPath:
		return invalid("HealthCheck HTTP Target must specify a port followed by a path that begins with a slash: '%s'", k.target)
	case !httpProtocol(protocol) && hasPath:
		return invalid("HealthCheck %s Target must be a port only: '%s'", protocol, k.target)
	case len(path) > 1023:
		return invalid("HealthCheck target path is longer than 1024 characters")
	case k.interval < 5 || k.interval > 300:
		return invalid("HealthCheck interval must be between 5 and 300 seconds: %d", k.interval)
	case k.timeout < 2 || k.timeout > 60:
		return invalid("HealthCheck timeout must be between 2 and 60 seconds: %d", k.timeout)
	case k.timeout >= k.interval:
		return invalid("HealthCheck timeout must be less than interval: %d and %d", k.timeout, k.interval)
	case k.healthy < 2 || k.healthy > 10 || k.unhealthy < 2 || k.unhealthy > 10:
		return invalid("HealthCheck thresholds must be between 2 and 10: %d and %d", k.healthy, k.unhealthy)
	}
	return nil
}

func (c *Cloud) configureHealthCheck(in *elb.ConfigureHealthCheckInput) (*elb.ConfigureHealthCheckOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	h := in.HealthCheck
	k := classicCheck{
		target: aws.ToString(h.Target), interval: aws.ToInt32(h.Interval), timeout: aws.ToInt32(h.Timeout),
		healthy: aws.ToInt32(h.HealthyThreshold), unhealthy: aws.ToInt32(h.UnhealthyThreshold),
	}
	if err := k.valid(); err != nil {
		return nil, err
	}
	lb.check = k
	return &elb.ConfigureHealthCheckOutput{HealthCheck: k.out()}, nil
}

func (lb *classic) registered(id string) bool {
	return slices.ContainsFunc(lb.instances, func(r registration) bool { return r.id == id })
}

func noInstance(id string) error {
	return &types.InvalidEndPointException{Message: text("Could not find EC2 instance %s.", id)}
}

// registerInstances registers all or none.
func (c *Cloud) registerInstances(in *elb.RegisterInstancesWithLoadBalancerInput) (*elb.RegisterInstancesWithLoadBalancerOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	if len(in.Instances) == 0 {
		return nil, invalid("At least one instance must be specified")
	}
	has := slices.Clone(lb.instances)
	for _, wanted := range in.Instances {
		id := aws.ToString(wanted.InstanceId)
		i, ok := c.instances.get(id)
		switch {
		case !ok:
			return nil, noInstance(id)
		case !running(i):
			return nil, &types.InvalidEndPointException{Message: text("EC2 instance %s is not running", id)}
		case i.vpc != lb.vpc:
			return nil, &types.InvalidEndPointException{Message: text("EC2 instance %s is not in the same VPC as load balancer.", id)}
		}
		if !slices.ContainsFunc(has, func(r registration) bool { return r.id == id }) {
			has = append(has, registration{id: id, since: c.now()})
		}
	}
	if len(has) > c.limits.InstancesPerClassic {
		return nil, refuse("TooManyInstances", "The quota of %d instances for the load balancer has been reached", c.limits.InstancesPerClassic)
	}
	lb.instances = has
	for _, r := range has {
		lb.known[r.id] = true
	}
	return &elb.RegisterInstancesWithLoadBalancerOutput{Instances: lb.instancesOut()}, nil
}

func (lb *classic) instancesOut() []types.Instance {
	var out []types.Instance
	for _, r := range lb.instances {
		out = append(out, types.Instance{InstanceId: aws.String(r.id)})
	}
	return out
}

// deregisterInstances deregisters all or none. An instance that never was
// registered is an error, whatever the documentation says.
func (c *Cloud) deregisterInstances(in *elb.DeregisterInstancesFromLoadBalancerInput) (*elb.DeregisterInstancesFromLoadBalancerOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	if len(in.Instances) == 0 {
		return nil, invalid("At least one instance must be specified")
	}
	var ids []string
	for _, i := range in.Instances {
		id := aws.ToString(i.InstanceId)
		if !lb.known[id] {
			return nil, noInstance(id)
		}
		ids = append(ids, id)
	}
	lb.instances = slices.DeleteFunc(slices.Clone(lb.instances), func(r registration) bool { return slices.Contains(ids, r.id) })
	return &elb.DeregisterInstancesFromLoadBalancerOutput{Instances: lb.instancesOut()}, nil
}

func (c *Cloud) describeInstanceHealth(in *elb.DescribeInstanceHealthInput) (*elb.DescribeInstanceHealthOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	asked := in.Instances
	if len(asked) == 0 {
		asked = lb.instancesOut()
	}
	out := &elb.DescribeInstanceHealthOutput{}
	for _, i := range asked {
		id := aws.ToString(i.InstanceId)
		if _, ok := c.instances.get(id); !ok && !lb.registered(id) {
			return nil, noInstance(id)
		}
		state, reason, description := c.classicState(lb, id)
		out.InstanceStates = append(out.InstanceStates, types.InstanceState{
			InstanceId: aws.String(id), State: aws.String(state), ReasonCode: aws.String(reason), Description: aws.String(description),
		})
	}
	return out, nil
}

// classicState is the health of an instance.
func (c *Cloud) classicState(lb *classic, id string) (state, reason, description string) {
	const in, out = "InService", "OutOfService"
	if !lb.registered(id) {
		return out, "Instance", "Instance is not currently registered with the LoadBalancer."
	}
	r := lb.instances[slices.IndexFunc(lb.instances, func(r registration) bool { return r.id == id })]
	i, ok := c.instances.get(id)
	switch {
	case !ok || !running(i):
		return out, "Instance", "Instance is in stopped state."
	case !slices.ContainsFunc(lb.subnets, func(s *subnet) bool { return s.Zone == i.zone }):
		return out, "ELB", "Instance is in the EC2 Availability Zone for which LoadBalancer is not configured to route traffic to."
	case c.now().Sub(r.since) < c.options.Delays.Healthy:
		return out, "ELB", "Instance registration is still in progress."
	case c.unhealthy[id]:
		return out, "Instance", "Instance has failed at least the UnhealthyThreshold number of health checks consecutively."
	}
	return in, "N/A", "N/A"
}
