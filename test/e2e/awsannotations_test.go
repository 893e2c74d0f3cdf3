package e2e

import (
	"fmt"
	"maps"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbtypes "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
)

// facts are what AWS tells of a load balancer, by words of ours.
type facts map[string]string

// shows waits until AWS tells these facts of a load balancer, and maybe others.
func (w *world) shows(what string, want facts, read func() (facts, error)) {
	w.Helper()
	w.eventually("AWS shows "+what, func() error {
		got, err := read()
		for key, value := range want {
			if err == nil && got[key] != value {
				err = fmt.Errorf("%s is %q, want %q, of %v", key, got[key], value, got)
			}
		}
		return err
	})
}

func (w *world) annotateAll(service string, annotations map[string]string) {
	w.Helper()
	for name, value := range annotations {
		w.annotate(service, awsAnnotation+name, value)
	}
}

// networkFacts are those of a Network Load Balancer with one port.
func (w *world) networkFacts(a *amazon, name string) (facts, error) {
	found, err := a.ELBV2.DescribeLoadBalancers(w.ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{name}})
	if err != nil {
		return nil, err
	}
	arn := found.LoadBalancers[0].LoadBalancerArn
	got := facts{"arn": aws.ToString(arn)}
	attributes, err := a.ELBV2.DescribeLoadBalancerAttributes(w.ctx, &elbv2.DescribeLoadBalancerAttributesInput{LoadBalancerArn: arn})
	if err != nil {
		return nil, err
	}
	for _, attribute := range attributes.Attributes {
		got[aws.ToString(attribute.Key)] = aws.ToString(attribute.Value)
	}
	groups, err := a.ELBV2.DescribeTargetGroups(w.ctx, &elbv2.DescribeTargetGroupsInput{LoadBalancerArn: arn})
	if err != nil || len(groups.TargetGroups) != 1 {
		return nil, fmt.Errorf("%d target groups, %w", len(groups.TargetGroups), err)
	}
	group := groups.TargetGroups[0]
	got["group"] = aws.ToString(group.TargetGroupArn)
	got["interval"] = fmt.Sprint(aws.ToInt32(group.HealthCheckIntervalSeconds))
	got["health"] = fmt.Sprintf("%s %s", group.HealthCheckProtocol, aws.ToString(group.HealthCheckPort))
	ofGroup, err := a.ELBV2.DescribeTargetGroupAttributes(w.ctx, &elbv2.DescribeTargetGroupAttributesInput{TargetGroupArn: group.TargetGroupArn})
	if err != nil {
		return nil, err
	}
	for _, attribute := range ofGroup.Attributes {
		got["group "+aws.ToString(attribute.Key)] = aws.ToString(attribute.Value)
	}
	tags, err := a.Tags(w.ctx, name)
	for key, value := range tags {
		got["tag "+key] = value
	}
	return got, err
}

// annotatedNetwork changes in place what annotations say, and back.
func annotatedNetwork(w *world, a *amazon) {
	w.service("web", class("heraldlb.io/nlb"))
	name := w.hostname("web")
	read := func() (facts, error) { return w.networkFacts(a, name) }
	before, err := read()
	w.must(err)

	annotations := map[string]string{
		"cross-zone-load-balancing-enabled": "true", "additional-resource-tags": "team=a,formula=b=c", "healthcheck-interval": "20",
		"healthcheck-protocol": "tcp", "healthcheck-port": "traffic-port", "proxy-protocol": "*",
		"target-group-attributes": "deregistration_delay.timeout_seconds=17", "attributes": "deletion_protection.enabled=false",
	}
	w.annotateAll("web", annotations)
	want := facts{
		"arn": before["arn"], "group": before["group"], "load_balancing.cross_zone.enabled": "true", "tag team": "a", "tag formula": "b=c", "interval": "20",
		"health": "TCP traffic-port", "group proxy_protocol_v2.enabled": "true", "group deregistration_delay.timeout_seconds": "17",
	}
	w.shows("what the annotations say", want, read)

	w.annotate("web", awsAnnotation+"additional-resource-tags", "team=z")
	w.shows("another tag", facts{"tag team": "z", "tag formula": ""}, read)

	for key := range annotations {
		annotations[key] = ""
	}
	w.annotateAll("web", annotations)
	back := maps.Clone(before)
	maps.DeleteFunc(back, func(key, _ string) bool { _, said := want[key]; return !said })
	w.shows("what it was before", back, read)
}

// classicFacts are those of a Classic Load Balancer.
func (w *world) classicFacts(a *amazon, name string) (facts, error) {
	found, err := a.ELB.DescribeLoadBalancers(w.ctx, &elb.DescribeLoadBalancersInput{LoadBalancerNames: []string{name}})
	if err != nil {
		return nil, err
	}
	check := found.LoadBalancerDescriptions[0].HealthCheck
	got := facts{
		"health": fmt.Sprintf("%s every %d", aws.ToString(check.Target), aws.ToInt32(check.Interval)), "made": found.LoadBalancerDescriptions[0].CreatedTime.String(),
	}
	answer, err := a.ELB.DescribeLoadBalancerAttributes(w.ctx, &elb.DescribeLoadBalancerAttributesInput{LoadBalancerName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	attributes := answer.LoadBalancerAttributes
	got["cross-zone"] = fmt.Sprint(attributes.CrossZoneLoadBalancing != nil && attributes.CrossZoneLoadBalancing.Enabled)
	if attributes.ConnectionSettings != nil {
		got["idle"] = fmt.Sprint(aws.ToInt32(attributes.ConnectionSettings.IdleTimeout))
	}
	got["draining"] = draining(attributes)
	tags, err := a.ELB.DescribeTags(w.ctx, &elb.DescribeTagsInput{LoadBalancerNames: []string{name}})
	if err != nil {
		return nil, err
	}
	for _, tag := range tags.TagDescriptions[0].Tags {
		got["tag "+aws.ToString(tag.Key)] = aws.ToString(tag.Value)
	}
	return got, nil
}

func draining(attributes *elbtypes.LoadBalancerAttributes) string {
	d := attributes.ConnectionDraining
	if d == nil || !d.Enabled {
		return "off"
	}
	return fmt.Sprint(aws.ToInt32(d.Timeout))
}

func annotatedClassic(w *world, a *amazon) {
	w.service("web", class("heraldlb.io/clb"))
	name := w.hostname("web")
	read := func() (facts, error) { return w.classicFacts(a, name) }
	before, err := read()
	w.must(err)

	annotations := map[string]string{
		"cross-zone-load-balancing-enabled": "true", "additional-resource-tags": "team=a", "healthcheck-interval": "20", "healthcheck-protocol": "tcp",
		"healthcheck-port": "traffic-port", "connection-idle-timeout": "120", "connection-draining-enabled": "true", "connection-draining-timeout": "17",
	}
	w.annotateAll("web", annotations)
	want := facts{
		"made": before["made"], "cross-zone": "true", "tag team": "a", "idle": "120", "draining": "17",
		"health": fmt.Sprintf("TCP:%d every 20", w.get("web").Spec.Ports[0].NodePort),
	}
	w.shows("what the annotations say", want, read)

	for key := range annotations {
		annotations[key] = ""
	}
	w.annotateAll("web", annotations)
	back := maps.Clone(before)
	maps.DeleteFunc(back, func(key, _ string) bool { _, said := want[key]; return !said })
	w.shows("what it was before", back, read)
}
