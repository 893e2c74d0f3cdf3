package awsfake

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// policy is a named setting of a Classic Load Balancer, for listeners or for
// instance ports.
type policy struct {
	name, kind string
	attributes []pair
}

// Types of policies and their attributes.
const (
	sslPolicyType      = "SSLNegotiationPolicyType"
	proxyPolicyType    = "ProxyProtocolPolicyType"
	referenceAttribute = "Reference-Security-Policy"
	proxyAttribute     = "ProxyProtocol"
)

// classicPolicies are the security policies that AWS has for Classic Load
// Balancers.
var classicPolicies = []string{
	defaultPolicy, "ELBSecurityPolicy-TLS-1-2-2017-01", "ELBSecurityPolicy-TLS-1-1-2017-01", "ELBSecurityPolicy-2015-05",
	"ELBSecurityPolicy-2015-03", "ELBSecurityPolicy-2015-02", "ELBSecurityPolicy-2014-10", "ELBSecurityPolicy-2014-01",
	"ELBSecurityPolicy-2011-08", "ELBSample-ELBDefaultNegotiationPolicy", "ELBSample-OpenSSLDefaultNegotiationPolicy",
}

func (c *Cloud) createPolicy(in *elb.CreateLoadBalancerPolicyInput) (*elb.CreateLoadBalancerPolicyOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	p := policy{name: aws.ToString(in.PolicyName), kind: aws.ToString(in.PolicyTypeName)}
	for _, a := range in.PolicyAttributes {
		p.attributes = append(p.attributes, pair{aws.ToString(a.AttributeName), aws.ToString(a.AttributeValue)})
	}
	if err := p.valid(); err != nil {
		return nil, err
	}
	if lb.policy(p.name) != nil {
		return nil, &types.DuplicatePolicyNameException{Message: text("Policy %s already exists for load balancer %s", p.name, lb.name)}
	}
	if len(lb.policies) >= c.limits.PoliciesPerClassic {
		return nil, &types.TooManyPoliciesException{Message: text("The quota of %d policies has been reached", c.limits.PoliciesPerClassic)}
	}
	lb.policies = append(lb.policies, p)
	return &elb.CreateLoadBalancerPolicyOutput{}, nil
}

// valid is the rule of policies.
func (p policy) valid() error {
	for _, r := range p.name {
		if !alphanumeric(r) && r != '-' {
			return invalid("Policy name '%s' may have alphanumeric characters and hyphens only", p.name)
		}
	}
	if p.name == "" {
		return invalid("A policy name must be specified")
	}
	switch p.kind {
	case proxyPolicyType:
		if len(p.attributes) != 1 || p.attributes[0].key != proxyAttribute || p.attributes[0].value != "true" && p.attributes[0].value != "false" {
			return misconfiguredClassic("A policy of type %s needs the attribute %s, true or false", p.kind, proxyAttribute)
		}
	case sslPolicyType:
		for _, a := range p.attributes {
			if a.key == referenceAttribute && !slices.Contains(classicPolicies, a.value) {
				return &types.PolicyNotFoundException{Message: text("There is no security policy named '%s'", a.value)}
			}
			if a.key == referenceAttribute && len(p.attributes) > 1 {
				return misconfiguredClassic("%s cannot be combined with other attributes", referenceAttribute)
			}
			if a.key != referenceAttribute && a.value != "true" && a.value != "false" {
				return misconfiguredClassic("Attribute '%s' must be true or false", a.key)
			}
		}
	default:
		return &types.PolicyTypeNotFoundException{Message: text("There is no policy type named '%s' in awsfake", p.kind)}
	}
	return nil
}

func (lb *classic) policy(name string) *policy {
	i := slices.IndexFunc(lb.policies, func(p policy) bool { return p.name == name })
	if i < 0 {
		return nil
	}
	return &lb.policies[i]
}

func (c *Cloud) deletePolicy(in *elb.DeleteLoadBalancerPolicyInput) (*elb.DeleteLoadBalancerPolicyOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	name := aws.ToString(in.PolicyName)
	for _, l := range lb.listeners {
		if slices.Contains(l.policies, name) {
			return nil, misconfiguredClassic("Policy %s is in use by the listener on port %d", name, l.port)
		}
	}
	for port, names := range lb.backends {
		if slices.Contains(names, name) {
			return nil, misconfiguredClassic("Policy %s is in use by instance port %d", name, port)
		}
	}
	lb.policies = slices.DeleteFunc(slices.Clone(lb.policies), func(p policy) bool { return p.name == name })
	return &elb.DeleteLoadBalancerPolicyOutput{}, nil
}

func (c *Cloud) describePolicies(in *elb.DescribeLoadBalancerPoliciesInput) (*elb.DescribeLoadBalancerPoliciesOutput, error) {
	var list []policy
	if in.LoadBalancerName != nil {
		lb, err := c.classicBy(in.LoadBalancerName)
		if err != nil {
			return nil, err
		}
		list = lb.policies
	} else {
		for _, name := range classicPolicies {
			list = append(list, policy{name: name, kind: sslPolicyType, attributes: []pair{{referenceAttribute, name}}})
		}
	}
	out := &elb.DescribeLoadBalancerPoliciesOutput{}
	for _, name := range in.PolicyNames {
		if !slices.ContainsFunc(list, func(p policy) bool { return p.name == name }) {
			return nil, &types.PolicyNotFoundException{Message: text("There is no policy with name %s", name)}
		}
	}
	for _, p := range list {
		if len(in.PolicyNames) > 0 && !slices.Contains(in.PolicyNames, p.name) {
			continue
		}
		d := types.PolicyDescription{PolicyName: aws.String(p.name), PolicyTypeName: aws.String(p.kind)}
		for _, a := range p.attributes {
			d.PolicyAttributeDescriptions = append(d.PolicyAttributeDescriptions, types.PolicyAttributeDescription{
				AttributeName: aws.String(a.key), AttributeValue: aws.String(a.value),
			})
		}
		out.PolicyDescriptions = append(out.PolicyDescriptions, d)
	}
	return out, nil
}

// checkPolicies says whether a load balancer has policies, and of one type.
func (lb *classic) checkPolicies(names []string, kind string) error {
	for _, name := range names {
		p := lb.policy(name)
		if p == nil {
			return &types.PolicyNotFoundException{Message: text("There is no policy with name %s for load balancer %s", name, lb.name)}
		}
		if p.kind != kind {
			return misconfiguredClassic("Policy %s of type %s cannot be used here", name, p.kind)
		}
	}
	return nil
}

func (c *Cloud) setListenerPolicies(in *elb.SetLoadBalancerPoliciesOfListenerInput) (*elb.SetLoadBalancerPoliciesOfListenerOutput, error) {
	lb, l, err := c.classicListenerBy(in.LoadBalancerName, in.LoadBalancerPort)
	if err != nil {
		return nil, err
	}
	if err := lb.checkPolicies(in.PolicyNames, sslPolicyType); err != nil {
		return nil, err
	}
	if len(in.PolicyNames) > 0 && !secureProtocol(l.protocol) {
		return nil, misconfiguredClassic("The listener on port %d is not a secure one", l.port)
	}
	if len(in.PolicyNames) > 1 {
		return nil, misconfiguredClassic("A listener has one policy of type %s", sslPolicyType)
	}
	l.policies = slices.Clone(in.PolicyNames)
	return &elb.SetLoadBalancerPoliciesOfListenerOutput{}, nil
}

func (c *Cloud) setBackendPolicies(in *elb.SetLoadBalancerPoliciesForBackendServerInput) (*elb.SetLoadBalancerPoliciesForBackendServerOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	port := aws.ToInt32(in.InstancePort)
	if !slices.Contains(lb.usedPorts(), port) {
		return nil, misconfiguredClassic("No listener of %s has the instance port %d", lb.name, port)
	}
	if err := lb.checkPolicies(in.PolicyNames, proxyPolicyType); err != nil {
		return nil, err
	}
	if len(in.PolicyNames) == 0 {
		delete(lb.backends, port)
		return &elb.SetLoadBalancerPoliciesForBackendServerOutput{}, nil
	}
	lb.backends[port] = slices.Clone(in.PolicyNames)
	return &elb.SetLoadBalancerPoliciesForBackendServerOutput{}, nil
}
