package awsfake_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

func forward(protocol string, port, backend int32) types.Listener {
	return types.Listener{Protocol: aws.String(protocol), LoadBalancerPort: port, InstanceProtocol: aws.String(protocol), InstancePort: aws.Int32(backend)}
}

// secured is a listener with TLS in front and plain instances.
func secured(port, backend int32) types.Listener {
	l := forward("SSL", port, backend)
	l.InstanceProtocol, l.SSLCertificateId = aws.String("TCP"), aws.String(certificate)
	return l
}

// clb makes an internal load balancer "web" in two zones with a TCP port 80,
// and maybe other than that.
func (b *bench) clb(changes ...func(*elb.CreateLoadBalancerInput)) error {
	in := &elb.CreateLoadBalancerInput{
		LoadBalancerName: aws.String("web"), Scheme: aws.String("internal"), Subnets: []string{"subnet-a", "subnet-b"},
		SecurityGroups: []string{"sg-nodes"}, Listeners: []types.Listener{forward("TCP", 80, 31080)},
	}
	for _, change := range changes {
		change(in)
	}
	_, err := b.ELB().CreateLoadBalancer(b.ctx, in)
	return err
}

func (b *bench) described() types.LoadBalancerDescription {
	b.Helper()
	out, err := b.ELB().DescribeLoadBalancers(b.ctx, &elb.DescribeLoadBalancersInput{LoadBalancerNames: []string{"web"}})
	b.check(err)
	return out.LoadBalancerDescriptions[0]
}

var web = aws.String("web")

func TestClassicLoadBalancerFacts(t *testing.T) {
	type in = elb.CreateLoadBalancerInput
	create := func(change func(*in)) func(*bench) error {
		return func(b *bench) error { return b.clb(change) }
	}
	named := func(name string) func(*bench) error {
		return create(func(i *in) { i.LoadBalancerName = aws.String(name) })
	}
	with := func(listeners ...types.Listener) func(*bench) error {
		return create(func(i *in) { i.Listeners = listeners })
	}
	again := func(change func(*in)) func(*bench) error {
		return func(b *bench) error {
			b.check(b.clb())
			return b.clb(change)
		}
	}
	one := func(change func(*types.Listener)) func(*bench) error {
		l := forward("TCP", 80, 31080)
		change(&l)
		return with(l)
	}
	prove(t, []fact{
		{"a name has 32 characters", named(strings.Repeat("a", 32)), ""},
		{"a name has not 33", named(strings.Repeat("a", 33)), refused},
		{"a name has no dots", named("a.b"), refused},
		{"a scheme is one of two", create(func(i *in) { i.Scheme = aws.String("public") }), "InvalidScheme"},
		{"a subnet is needed", create(func(i *in) { i.Subnets = nil }), refused},
		{"a subnet exists", create(func(i *in) { i.Subnets = []string{"subnet-z"} }), "SubnetNotFound"},
		{"one subnet of a zone", create(func(i *in) { i.Subnets = []string{"subnet-a", "subnet-a2"} }), wrong},
		{"a security group exists", create(func(i *in) { i.SecurityGroups = []string{"sg-no"} }), "InvalidSecurityGroup"},
		{"five security groups", create(func(i *in) { i.SecurityGroups = []string{"1", "2", "3", "4", "5", "6"} }), wrong},
		{"no security group is the default one", create(func(i *in) { i.SecurityGroups = nil }), ""},

		{"a listener is needed", with(), "operation error Elastic Load Balancing: CreateLoadBalancer, 1 validation error(s) found.\n- missing required field, CreateLoadBalancerInput.Listeners.\n"},
		{"a listener really is needed", create(func(i *in) { i.Listeners = []types.Listener{} }), refused},
		{"no UDP", with(forward("UDP", 80, 31080)), "UnsupportedProtocol"},
		{"no TLS by that name", with(forward("TLS", 80, 31080)), "UnsupportedProtocol"},
		{"small letters", with(forward("tcp", 80, 31080)), ""},
		{"port 0", with(forward("TCP", 0, 31080)), refused},
		{"instance port 65536", with(forward("TCP", 80, 65536)), refused},
		{"layers differ", one(func(l *types.Listener) { l.InstanceProtocol = aws.String("HTTP") }), wrong},
		{"no instance protocol", one(func(l *types.Listener) { l.InstanceProtocol = nil }), ""},
		{"SSL without a certificate", with(forward("SSL", 80, 31080)), refused},
		{"TCP with a certificate", one(func(l *types.Listener) { l.SSLCertificateId = aws.String(certificate) }), refused},
		{"a certificate that is not", one(func(l *types.Listener) { l.Protocol, l.SSLCertificateId = aws.String("SSL"), aws.String("arn:no") }), "CertificateNotFound"},
		{"SSL", with(secured(443, 31443)), ""},
		{"a port twice", with(forward("TCP", 80, 31080), forward("TCP", 80, 31081)), "DuplicateListener"},
		{"an instance port twice", with(forward("TCP", 80, 31080), forward("TCP", 81, 31080)), ""},
		{"an instance port secure and not", func(b *bench) error {
			l := secured(443, 31080)
			l.InstanceProtocol = aws.String("SSL")
			return with(forward("TCP", 80, 31080), l)(b)
		}, wrong},

		{"the same again", again(func(*in) {}), ""},
		{"again with another port", again(func(i *in) { i.Listeners = append(i.Listeners, forward("TCP", 81, 31081)) }), "DuplicateLoadBalancerName"},
		{"again in other subnets", again(func(i *in) { i.Subnets = i.Subnets[:1] }), "DuplicateLoadBalancerName"},
		{"again with other tags", again(func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a")}} }), "DuplicateLoadBalancerName"},
		{"21 load balancers", func(b *bench) error {
			for n := range 20 {
				b.check(named(fmt.Sprint("web-", n))(b))
			}
			return named("web")(b)
		}, "TooManyLoadBalancers"},
		{"a tag twice", create(func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a")}, {Key: aws.String("a")}} }), "DuplicateTagKeys"},
		{"describe one that is not", func(b *bench) error {
			_, err := b.ELB().DescribeLoadBalancers(b.ctx, &elb.DescribeLoadBalancersInput{LoadBalancerNames: []string{"no"}})
			return err
		}, "LoadBalancerNotFound"},
		{"delete one that is not", func(b *bench) error {
			_, err := b.ELB().DeleteLoadBalancer(b.ctx, &elb.DeleteLoadBalancerInput{LoadBalancerName: aws.String("no")})
			return err
		}, ""},
	})
}

func TestClassicListenersAndPolicies(t *testing.T) {
	listen := func(b *bench, listeners ...types.Listener) error {
		_, err := b.ELB().CreateLoadBalancerListeners(b.ctx, &elb.CreateLoadBalancerListenersInput{LoadBalancerName: web, Listeners: listeners})
		return err
	}
	unlisten := func(b *bench, ports ...int32) error {
		_, err := b.ELB().DeleteLoadBalancerListeners(b.ctx, &elb.DeleteLoadBalancerListenersInput{LoadBalancerName: web, LoadBalancerPorts: ports})
		return err
	}
	policy := func(b *bench, name, kind string, attributes ...string) error {
		in := &elb.CreateLoadBalancerPolicyInput{LoadBalancerName: web, PolicyName: aws.String(name), PolicyTypeName: aws.String(kind)}
		for _, a := range attributes {
			key, value, _ := strings.Cut(a, "=")
			in.PolicyAttributes = append(in.PolicyAttributes, types.PolicyAttribute{AttributeName: aws.String(key), AttributeValue: aws.String(value)})
		}
		_, err := b.ELB().CreateLoadBalancerPolicy(b.ctx, in)
		return err
	}
	drop := func(b *bench, name string) error {
		_, err := b.ELB().DeleteLoadBalancerPolicy(b.ctx, &elb.DeleteLoadBalancerPolicyInput{LoadBalancerName: web, PolicyName: aws.String(name)})
		return err
	}
	backend := func(b *bench, port int32, names ...string) error {
		_, err := b.ELB().SetLoadBalancerPoliciesForBackendServer(b.ctx, &elb.SetLoadBalancerPoliciesForBackendServerInput{
			LoadBalancerName: web, InstancePort: aws.Int32(port), PolicyNames: append([]string{}, names...),
		})
		return err
	}
	front := func(b *bench, port int32, names ...string) error {
		_, err := b.ELB().SetLoadBalancerPoliciesOfListener(b.ctx, &elb.SetLoadBalancerPoliciesOfListenerInput{
			LoadBalancerName: web, LoadBalancerPort: port, PolicyNames: append([]string{}, names...),
		})
		return err
	}
	cert := func(b *bench, port int32, arn string) error {
		_, err := b.ELB().SetLoadBalancerListenerSSLCertificate(b.ctx, &elb.SetLoadBalancerListenerSSLCertificateInput{
			LoadBalancerName: web, LoadBalancerPort: port, SSLCertificateId: aws.String(arn),
		})
		return err
	}
	const ssl, proxy = "SSLNegotiationPolicyType", "ProxyProtocolPolicyType"
	// on has a load balancer with a plain and a secure listener.
	on := func(call func(*bench) error) func(*bench) error {
		return func(b *bench) error {
			b.check(b.clb(func(i *elb.CreateLoadBalancerInput) { i.Listeners = append(i.Listeners, secured(443, 31443)) }))
			b.check(policy(b, "proxy", proxy, "ProxyProtocol=true"))
			b.check(policy(b, "ssl", ssl, "Reference-Security-Policy=ELBSecurityPolicy-TLS-1-2-2017-01"))
			return call(b)
		}
	}
	prove(t, []fact{
		{"another listener", on(func(b *bench) error { return listen(b, forward("TCP", 81, 31081)) }), ""},
		{"a listener that is there", on(func(b *bench) error { return listen(b, forward("TCP", 80, 31080)) }), ""},
		{"a port that is taken", on(func(b *bench) error { return listen(b, forward("TCP", 80, 31081)) }), "DuplicateListener"},
		{"of no load balancer", func(b *bench) error { return listen(b, forward("TCP", 80, 31080)) }, "LoadBalancerNotFound"},
		{"101 listeners", on(func(b *bench) error {
			for port := range int32(98) {
				b.check(listen(b, forward("TCP", 1000+port, 31080)))
			}
			return listen(b, forward("TCP", 2000, 31080))
		}), "TooManyListeners"},
		{"listeners go", on(func(b *bench) error { return unlisten(b, 80, 443, 81) }), ""},

		{"a policy twice", on(func(b *bench) error { return policy(b, "proxy", proxy, "ProxyProtocol=true") }), "DuplicatePolicyName"},
		{"a policy type that is not", on(func(b *bench) error { return policy(b, "other", "Other") }), "PolicyTypeNotFound"},
		{"a proxy policy without its attribute", on(func(b *bench) error { return policy(b, "other", proxy) }), wrong},
		{"a security policy that is not", on(func(b *bench) error { return policy(b, "other", ssl, "Reference-Security-Policy=best") }), "PolicyNotFound"},
		{"a security policy of others", on(func(b *bench) error {
			return policy(b, "other", ssl, "Reference-Security-Policy=ELBSecurityPolicy-TLS13-1-2-2021-06")
		}), "PolicyNotFound"},
		{"ciphers of one's own", on(func(b *bench) error {
			return policy(b, "other", ssl, "Protocol-TLSv1.2=true", "ECDHE-RSA-AES128-GCM-SHA256=true")
		}), ""},
		{"a policy name with a dot", on(func(b *bench) error { return policy(b, "a.b", proxy, "ProxyProtocol=true") }), refused},

		{"proxy for instances", on(func(b *bench) error { return backend(b, 31080, "proxy") }), ""},
		{"proxy for an instance port that is not", on(func(b *bench) error { return backend(b, 31999, "proxy") }), wrong},
		{"a policy that is not for instances", on(func(b *bench) error { return backend(b, 31080, "no") }), "PolicyNotFound"},
		{"security for instances", on(func(b *bench) error { return backend(b, 31080, "ssl") }), wrong},
		{"proxy for a listener", on(func(b *bench) error { return front(b, 443, "proxy") }), wrong},
		{"security for a listener", on(func(b *bench) error { return front(b, 443, "ssl") }), ""},
		{"security for a plain listener", on(func(b *bench) error { return front(b, 80, "ssl") }), wrong},
		{"security for a listener that is not", on(func(b *bench) error { return front(b, 81, "ssl") }), "ListenerNotFound"},
		{"two security policies", on(func(b *bench) error { return front(b, 443, "ssl", "ELBSecurityPolicy-2016-08") }), wrong},
		{"a policy in use by instances stays", on(func(b *bench) error {
			b.check(backend(b, 31080, "proxy"))
			return drop(b, "proxy")
		}), wrong},
		{"a policy in use by a listener stays", on(func(b *bench) error { return drop(b, "ELBSecurityPolicy-2016-08") }), wrong},
		{"a policy goes", on(func(b *bench) error {
			b.check(backend(b, 31080, "proxy"))
			b.check(backend(b, 31080))
			return drop(b, "proxy")
		}), ""},
		{"a policy goes with the listener that used it", on(func(b *bench) error {
			b.check(backend(b, 31080, "proxy"))
			b.check(unlisten(b, 80))
			return drop(b, "proxy")
		}), ""},
		{"a policy that is not goes", on(func(b *bench) error { return drop(b, "no") }), ""},

		{"another certificate", on(func(b *bench) error { return cert(b, 443, certificate) }), ""},
		{"another certificate that is not", on(func(b *bench) error { return cert(b, 443, "arn:no") }), "CertificateNotFound"},
		{"a certificate for a plain listener", on(func(b *bench) error { return cert(b, 80, certificate) }), wrong},
		{"a certificate for no listener", on(func(b *bench) error { return cert(b, 81, certificate) }), "ListenerNotFound"},
		{"policies that AWS has", func(b *bench) error {
			_, err := b.ELB().DescribeLoadBalancerPolicies(b.ctx, &elb.DescribeLoadBalancerPoliciesInput{PolicyNames: []string{"ELBSecurityPolicy-2016-08"}})
			return err
		}, ""},
		{"a policy that a load balancer has not", on(func(b *bench) error {
			_, err := b.ELB().DescribeLoadBalancerPolicies(b.ctx, &elb.DescribeLoadBalancerPoliciesInput{LoadBalancerName: web, PolicyNames: []string{"no"}})
			return err
		}), "PolicyNotFound"},
	})
}

func TestClassicHealthCheckAndAttributes(t *testing.T) {
	health := func(target string, interval, timeout, healthy, unhealthy int32) func(*bench) error {
		return func(b *bench) error {
			b.check(b.clb())
			_, err := b.ELB().ConfigureHealthCheck(b.ctx, &elb.ConfigureHealthCheckInput{LoadBalancerName: web, HealthCheck: &types.HealthCheck{
				Target: aws.String(target), Interval: aws.Int32(interval), Timeout: aws.Int32(timeout),
				HealthyThreshold: aws.Int32(healthy), UnhealthyThreshold: aws.Int32(unhealthy),
			}})
			return err
		}
	}
	set := func(change func(*types.LoadBalancerAttributes)) func(*bench) error {
		return func(b *bench) error {
			b.check(b.clb())
			attributes := &types.LoadBalancerAttributes{}
			change(attributes)
			_, err := b.ELB().ModifyLoadBalancerAttributes(b.ctx, &elb.ModifyLoadBalancerAttributesInput{LoadBalancerName: web, LoadBalancerAttributes: attributes})
			return err
		}
	}
	idle := func(seconds int32) func(*bench) error {
		return set(func(a *types.LoadBalancerAttributes) {
			a.ConnectionSettings = &types.ConnectionSettings{IdleTimeout: aws.Int32(seconds)}
		})
	}
	drain := func(seconds int32) func(*bench) error {
		return set(func(a *types.LoadBalancerAttributes) {
			a.ConnectionDraining = &types.ConnectionDraining{Enabled: true, Timeout: aws.Int32(seconds)}
		})
	}
	log := func(bucket string, minutes int32) func(*bench) error {
		call := set(func(a *types.LoadBalancerAttributes) {
			a.AccessLog = &types.AccessLog{Enabled: true, EmitInterval: aws.Int32(minutes), S3BucketName: aws.String(bucket)}
		})
		return func(b *bench) error {
			b.AddBucket("logs")
			return call(b)
		}
	}
	prove(t, []fact{
		{"TCP", health("TCP:31080", 10, 5, 2, 6), ""},
		{"HTTP", health("HTTP:10256/healthz", 300, 60, 10, 10), ""},
		{"HTTP without a path", health("HTTP:10256", 10, 5, 2, 6), refused},
		{"TCP with a path", health("TCP:10256/healthz", 10, 5, 2, 6), refused},
		{"UDP", health("UDP:31080", 10, 5, 2, 6), refused},
		{"port 0", health("TCP:0", 10, 5, 2, 6), refused},
		{"interval 4", health("TCP:31080", 4, 2, 2, 6), refused},
		{"interval 301", health("TCP:31080", 301, 5, 2, 6), refused},
		{"timeout 1", health("TCP:31080", 10, 1, 2, 6), refused},
		{"timeout 61", health("TCP:31080", 100, 61, 2, 6), refused},
		{"timeout is the interval", health("TCP:31080", 10, 10, 2, 6), refused},
		{"healthy 1", health("TCP:31080", 10, 5, 1, 6), refused},
		{"unhealthy 11", health("TCP:31080", 10, 5, 2, 11), refused},

		{"idle 4000", idle(4000), ""},
		{"idle 4001", idle(4001), refused},
		{"idle 0", idle(0), refused},
		{"drain 3600", drain(3600), ""},
		{"drain 3601", drain(3601), refused},
		{"drain 0", drain(0), refused},
		{"log every 5", log("logs", 5), ""},
		{"log every 10", log("logs", 10), refused},
		{"log to no bucket", log("", 60), wrong},
		{"log to a bucket that is not", log("other", 60), wrong},
		{"an attribute that is none", set(func(a *types.LoadBalancerAttributes) {
			a.AdditionalAttributes = []types.AdditionalAttribute{{Key: aws.String("no"), Value: aws.String("1")}}
		}), "LoadBalancerAttributeNotFound"},
	})

	b := newBench(t, awsfake.Options{})
	b.check(b.clb(func(i *elb.CreateLoadBalancerInput) { i.SecurityGroups = nil }))
	first := b.described()
	if diff := cmp.Diff([]string{"sg-default-vpc-1"}, first.SecurityGroups); diff != "" {
		t.Errorf("security groups (-want +got):\n%s", diff)
	}
	h := first.HealthCheck
	if got := fmt.Sprint(*h.Target, *h.Interval, *h.Timeout, *h.UnhealthyThreshold, *h.HealthyThreshold); got != "TCP:3108030 5 2 10" {
		t.Errorf("AWS begins with the check %s", got)
	}
	out, err := b.ELB().DescribeLoadBalancerAttributes(b.ctx, &elb.DescribeLoadBalancerAttributesInput{LoadBalancerName: web})
	b.check(err)
	a := out.LoadBalancerAttributes
	got := fmt.Sprint(a.AccessLog.Enabled, a.ConnectionDraining.Enabled, *a.ConnectionDraining.Timeout, *a.ConnectionSettings.IdleTimeout, a.CrossZoneLoadBalancing.Enabled)
	if got != "false false 300 60 false" {
		t.Errorf("AWS begins with the attributes %s", got)
	}
}

func TestClassicInstancesSubnetsAndGroups(t *testing.T) {
	list := func(ids []string) []types.Instance {
		out := []types.Instance{}
		for _, id := range ids {
			out = append(out, types.Instance{InstanceId: aws.String(id)})
		}
		return out
	}
	register := func(b *bench, ids ...string) error {
		_, err := b.ELB().RegisterInstancesWithLoadBalancer(b.ctx, &elb.RegisterInstancesWithLoadBalancerInput{LoadBalancerName: web, Instances: list(ids)})
		return err
	}
	deregister := func(b *bench, ids ...string) error {
		_, err := b.ELB().DeregisterInstancesFromLoadBalancer(b.ctx, &elb.DeregisterInstancesFromLoadBalancerInput{LoadBalancerName: web, Instances: list(ids)})
		return err
	}
	attach := func(b *bench, ids ...string) error {
		_, err := b.ELB().AttachLoadBalancerToSubnets(b.ctx, &elb.AttachLoadBalancerToSubnetsInput{LoadBalancerName: web, Subnets: ids})
		return err
	}
	detach := func(b *bench, ids ...string) error {
		_, err := b.ELB().DetachLoadBalancerFromSubnets(b.ctx, &elb.DetachLoadBalancerFromSubnetsInput{LoadBalancerName: web, Subnets: ids})
		return err
	}
	apply := func(b *bench, ids ...string) error {
		_, err := b.ELB().ApplySecurityGroupsToLoadBalancer(b.ctx, &elb.ApplySecurityGroupsToLoadBalancerInput{LoadBalancerName: web, SecurityGroups: append([]string{}, ids...)})
		return err
	}
	on := func(call func(*bench) error) func(*bench) error {
		return func(b *bench) error {
			b.check(b.clb())
			return call(b)
		}
	}
	prove(t, []fact{
		{"one that is not fails all", on(func(b *bench) error {
			err := register(b, "i-1", "i-9")
			if n := len(b.described().Instances); n != 0 {
				b.Errorf("%d instances are registered", n)
			}
			return err
		}), "InvalidInstance"},
		{"one that is stopped", on(func(b *bench) error {
			b.SetInstanceState("i-1", ec2types.InstanceStateNameStopped)
			return register(b, "i-1")
		}), "InvalidInstance"},
		{"twice", on(func(b *bench) error {
			b.check(register(b, "i-1"))
			err := register(b, "i-1", "i-2")
			if n := len(b.described().Instances); n != 2 {
				b.Errorf("%d instances are registered", n)
			}
			return err
		}), ""},
		{"one that never was registered goes not", on(func(b *bench) error { return deregister(b, "i-1") }), "InvalidInstance"},
		{"one that once was registered goes", on(func(b *bench) error {
			b.check(register(b, "i-1"))
			b.check(deregister(b, "i-1"))
			return deregister(b, "i-1")
		}), ""},
		{"one that EC2 forgot goes", on(func(b *bench) error {
			b.check(register(b, "i-1"))
			b.RemoveInstance("i-1")
			return deregister(b, "i-1")
		}), ""},
		{"one that EC2 forgot comes not", on(func(b *bench) error {
			b.RemoveInstance("i-1")
			return register(b, "i-1")
		}), "InvalidInstance"},

		{"another subnet", on(func(b *bench) error { return attach(b, "subnet-c") }), ""},
		{"another subnet of a zone", on(func(b *bench) error { return attach(b, "subnet-a2") }), wrong},
		{"a subnet that is not", on(func(b *bench) error { return attach(b, "subnet-z") }), "SubnetNotFound"},
		{"one subnet less", on(func(b *bench) error { return detach(b, "subnet-a") }), ""},
		{"all subnets less", on(func(b *bench) error { return detach(b, "subnet-a", "subnet-b") }), wrong},
		{"a subnet that it has not", on(func(b *bench) error { return detach(b, "subnet-c") }), wrong},
		{"the other subnet of a zone, in two steps", on(func(b *bench) error {
			b.check(detach(b, "subnet-a"))
			return attach(b, "subnet-a2")
		}), ""},
		{"another security group", on(func(b *bench) error { return apply(b, "sg-default-vpc-1") }), ""},
		{"no security group", on(func(b *bench) error { return apply(b) }), wrong},
		{"a security group that is not", on(func(b *bench) error { return apply(b, "sg-no") }), "InvalidSecurityGroup"},
		{"tags of two load balancers", on(func(b *bench) error {
			_, err := b.ELB().AddTags(b.ctx, &elb.AddTagsInput{LoadBalancerNames: []string{"web", "web"}, Tags: []types.Tag{{Key: aws.String("a")}}})
			return err
		}), refused},
		{"tags of 21 load balancers", on(func(b *bench) error {
			_, err := b.ELB().DescribeTags(b.ctx, &elb.DescribeTagsInput{LoadBalancerNames: make([]string, 21)})
			return err
		}), refused},
	})

	b := newBench(t, awsfake.Options{})
	b.check(b.clb())
	b.check(register(b, "i-1", "i-2", "i-3"))
	states := func() []string {
		out, err := b.ELB().DescribeInstanceHealth(b.ctx, &elb.DescribeInstanceHealthInput{LoadBalancerName: web})
		b.check(err)
		var got []string
		for _, s := range out.InstanceStates {
			got = append(got, *s.InstanceId+" "+*s.State+" "+*s.ReasonCode)
		}
		return got
	}
	if diff := cmp.Diff([]string{"i-1 OutOfService ELB", "i-2 OutOfService ELB", "i-3 OutOfService ELB"}, states()); diff != "" {
		t.Errorf("registered (-want +got):\n%s", diff)
	}
	b.Advance(time.Minute)
	b.SetUnhealthy("i-2", true)
	if diff := cmp.Diff([]string{"i-1 InService N/A", "i-2 OutOfService Instance", "i-3 OutOfService ELB"}, states()); diff != "" {
		t.Errorf("later (-want +got):\n%s", diff)
	}
	_, err := b.ELB().AddTags(b.ctx, &elb.AddTagsInput{LoadBalancerNames: []string{"web"}, Tags: []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b")}}})
	b.check(err)
	_, err = b.ELB().RemoveTags(b.ctx, &elb.RemoveTagsInput{LoadBalancerNames: []string{"web"}, Tags: []types.TagKeyOnly{{Key: aws.String("b")}}})
	b.check(err)
	out, err := b.ELB().DescribeTags(b.ctx, &elb.DescribeTagsInput{LoadBalancerNames: []string{"web"}})
	b.check(err)
	if tags := out.TagDescriptions[0].Tags; len(tags) != 1 || *tags[0].Key+*tags[0].Value != "a1" {
		t.Errorf("tags %v, want a=1", tags)
	}
}

func TestSecureListenerHasADefaultPolicy(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	b.check(b.clb(func(i *elb.CreateLoadBalancerInput) { i.Listeners = append(i.Listeners, secured(443, 31443)) }))
	lb := b.described()
	if diff := cmp.Diff([]string{"ELBSecurityPolicy-2016-08"}, lb.ListenerDescriptions[1].PolicyNames); diff != "" {
		t.Errorf("of the listener (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"ELBSecurityPolicy-2016-08"}, lb.Policies.OtherPolicies); diff != "" {
		t.Errorf("of the load balancer (-want +got):\n%s", diff)
	}
	if got := *lb.ListenerDescriptions[1].Listener.InstanceProtocol; got != "TCP" {
		t.Errorf("instance protocol %s, want TCP", got)
	}
}
