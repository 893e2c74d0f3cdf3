package awsfake_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"

	"github.com/heraldlb/herald/providers/aws/awsfake"
)

// bench has a cloud at hand and makes things in it in one line.
type bench struct {
	*testing.T
	*awsfake.Cloud
	ctx context.Context
}

func newBench(t *testing.T, options awsfake.Options) *bench {
	return &bench{T: t, Cloud: world(options), ctx: context.Background()}
}

func (b *bench) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// nlbInput is an internal load balancer in two zones.
func nlbInput(name string, change func(*elbv2.CreateLoadBalancerInput)) *elbv2.CreateLoadBalancerInput {
	in := &elbv2.CreateLoadBalancerInput{
		Name: aws.String(name), Type: types.LoadBalancerTypeEnumNetwork, Scheme: types.LoadBalancerSchemeEnumInternal, Subnets: []string{"subnet-a", "subnet-b"},
	}
	if change != nil {
		change(in)
	}
	return in
}

func (b *bench) createNLB(name string, change func(*elbv2.CreateLoadBalancerInput)) error {
	_, err := b.ELBV2().CreateLoadBalancer(b.ctx, nlbInput(name, change))
	return err
}

func (b *bench) nlb(name string, change func(*elbv2.CreateLoadBalancerInput)) *string {
	b.Helper()
	out, err := b.ELBV2().CreateLoadBalancer(b.ctx, nlbInput(name, change))
	b.check(err)
	return out.LoadBalancers[0].LoadBalancerArn
}

func groupInput(name string, change func(*elbv2.CreateTargetGroupInput)) *elbv2.CreateTargetGroupInput {
	in := &elbv2.CreateTargetGroupInput{Name: aws.String(name), Protocol: types.ProtocolEnumTcp, Port: aws.Int32(31000), VpcId: aws.String("vpc-1")}
	if change != nil {
		change(in)
	}
	return in
}

func (b *bench) createGroup(name string, change func(*elbv2.CreateTargetGroupInput)) error {
	_, err := b.ELBV2().CreateTargetGroup(b.ctx, groupInput(name, change))
	return err
}

func (b *bench) group(name string, change func(*elbv2.CreateTargetGroupInput)) *string {
	b.Helper()
	out, err := b.ELBV2().CreateTargetGroup(b.ctx, groupInput(name, change))
	b.check(err)
	return out.TargetGroups[0].TargetGroupArn
}

func protocol(p types.ProtocolEnum) func(*elbv2.CreateTargetGroupInput) {
	return func(in *elbv2.CreateTargetGroupInput) { in.Protocol = p }
}

func addresses(in *elbv2.CreateTargetGroupInput) { in.TargetType = types.TargetTypeEnumIp }

func listenerInput(lb, group *string, port int32, change func(*elbv2.CreateListenerInput)) *elbv2.CreateListenerInput {
	in := &elbv2.CreateListenerInput{
		LoadBalancerArn: lb, Port: aws.Int32(port), Protocol: types.ProtocolEnumTcp,
		DefaultActions: []types.Action{{Type: types.ActionTypeEnumForward, TargetGroupArn: group}},
	}
	if change != nil {
		change(in)
	}
	return in
}

func (b *bench) createListener(lb, group *string, port int32, change func(*elbv2.CreateListenerInput)) error {
	_, err := b.ELBV2().CreateListener(b.ctx, listenerInput(lb, group, port, change))
	return err
}

func (b *bench) listener(lb, group *string, port int32, change func(*elbv2.CreateListenerInput)) *string {
	b.Helper()
	out, err := b.ELBV2().CreateListener(b.ctx, listenerInput(lb, group, port, change))
	b.check(err)
	return out.Listeners[0].ListenerArn
}

func tls(in *elbv2.CreateListenerInput) {
	in.Protocol, in.Certificates = types.ProtocolEnumTls, []types.Certificate{{CertificateArn: aws.String(certificate)}}
}

func (b *bench) register(group *string, ids ...string) error {
	in := &elbv2.RegisterTargetsInput{TargetGroupArn: group}
	for _, id := range ids {
		in.Targets = append(in.Targets, types.TargetDescription{Id: aws.String(id)})
	}
	_, err := b.ELBV2().RegisterTargets(b.ctx, in)
	return err
}

func (b *bench) deregister(group *string, ids ...string) error {
	in := &elbv2.DeregisterTargetsInput{TargetGroupArn: group}
	for _, id := range ids {
		in.Targets = append(in.Targets, types.TargetDescription{Id: aws.String(id)})
	}
	_, err := b.ELBV2().DeregisterTargets(b.ctx, in)
	return err
}

func (b *bench) setLoadBalancer(lb *string, key, value string) error {
	_, err := b.ELBV2().ModifyLoadBalancerAttributes(b.ctx, &elbv2.ModifyLoadBalancerAttributesInput{
		LoadBalancerArn: lb, Attributes: []types.LoadBalancerAttribute{{Key: aws.String(key), Value: aws.String(value)}},
	})
	return err
}

func (b *bench) setGroup(group *string, key, value string) error {
	_, err := b.ELBV2().ModifyTargetGroupAttributes(b.ctx, &elbv2.ModifyTargetGroupAttributesInput{
		TargetGroupArn: group, Attributes: []types.TargetGroupAttribute{{Key: aws.String(key), Value: aws.String(value)}},
	})
	return err
}

func (b *bench) setListener(listener *string, key, value string) error {
	_, err := b.ELBV2().ModifyListenerAttributes(b.ctx, &elbv2.ModifyListenerAttributesInput{
		ListenerArn: listener, Attributes: []types.ListenerAttribute{{Key: aws.String(key), Value: aws.String(value)}},
	})
	return err
}

// code is what AWS calls an error; "" is none, and what is no answer of AWS is
// its own text.
func code(err error) string {
	if err == nil {
		return ""
	}
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return err.Error()
}

// fact is something that a cloud refuses, with the code, or takes.
type fact struct {
	name string
	call func(b *bench) error
	code string
}

// prove proves facts, and of each call that is refused that it changed nothing.
func prove(t *testing.T, facts []fact) {
	for _, f := range facts {
		t.Run(f.name, func(t *testing.T) {
			b := newBench(t, awsfake.Options{})
			var before string
			b.Before(func(awsfake.Call) error {
				before = b.String()
				return nil
			})
			err := f.call(b)
			if got := code(err); got != f.code {
				t.Errorf("answered %q, want %q", got, f.code)
			}
			// What the SDK refuses is no call.
			if _, called := errors.AsType[smithy.APIError](err); !called {
				return
			}
			if after := b.String(); before != after {
				t.Errorf("the refused call changed (-before +after):\n%s", cmp.Diff(before, after))
			}
		})
	}
}

const (
	refused   = "ValidationError"
	wrong     = "InvalidConfigurationRequest"
	tagsValid = "+ - = . _ : / @"
)

func TestNetworkLoadBalancerFacts(t *testing.T) {
	type in = elbv2.CreateLoadBalancerInput
	mapped := func(scheme types.LoadBalancerSchemeEnum, mappings ...types.SubnetMapping) func(*in) {
		return func(i *in) { i.Scheme, i.Subnets, i.SubnetMappings = scheme, nil, mappings }
	}
	public, internal := types.LoadBalancerSchemeEnumInternetFacing, types.LoadBalancerSchemeEnumInternal
	elastic := func(subnet, allocation string) types.SubnetMapping {
		return types.SubnetMapping{SubnetId: aws.String(subnet), AllocationId: aws.String(allocation)}
	}
	private := func(address string) types.SubnetMapping {
		return types.SubnetMapping{SubnetId: aws.String("subnet-a"), PrivateIPv4Address: aws.String(address)}
	}
	create := func(name string, change func(*in)) func(*bench) error {
		return func(b *bench) error { return b.createNLB(name, change) }
	}
	subnets := func(ids ...string) func(*bench) error {
		return create("web", func(i *in) { i.Subnets = ids })
	}
	again := func(change func(*in)) func(*bench) error {
		return func(b *bench) error {
			b.nlb("web", func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}} })
			return b.createNLB("web", change)
		}
	}
	tagged := func(tags ...string) func(*bench) error {
		return create("web", func(i *in) {
			for _, tag := range tags {
				key, value, _ := strings.Cut(tag, "|")
				i.Tags = append(i.Tags, types.Tag{Key: aws.String(key), Value: aws.String(value)})
			}
		})
	}
	prove(t, []fact{
		{"a name has 32 characters", create(strings.Repeat("a", 32), nil), ""},
		{"a name has not 33", create(strings.Repeat("a", 33), nil), refused},
		{"a name has no dots", create("a.b", nil), refused},
		{"a name begins with no hyphen", create("-a", nil), refused},
		{"a name ends with no hyphen", create("a-", nil), refused},
		{"a name does not begin with internal-", create("internal-a", nil), refused},
		{"a name is not empty", create("", nil), refused},
		{"the SDK misses a name", create("web", func(i *in) { i.Name = nil }),
			"operation error Elastic Load Balancing v2: CreateLoadBalancer, 1 validation error(s) found.\n- missing required field, CreateLoadBalancerInput.Name.\n"},
		{"a scheme is one of two", create("web", func(i *in) { i.Scheme = "public" }), "InvalidScheme"},
		{"application load balancers are not here", create("web", func(i *in) { i.Type = types.LoadBalancerTypeEnumApplication }), refused},

		{"a subnet is needed", subnets(), refused},
		{"subnets or mappings, not both", create("web", func(i *in) { i.SubnetMappings = []types.SubnetMapping{{SubnetId: aws.String("subnet-c")}} }), refused},
		{"a subnet exists", subnets("subnet-z"), "SubnetNotFound"},
		{"one subnet of a zone", subnets("subnet-a", "subnet-a2"), wrong},
		{"the same subnet twice", subnets("subnet-a", "subnet-a"), wrong},
		{"subnets of one VPC", func(b *bench) error {
			b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
			b.AddSubnet(awsfake.Subnet{ID: "subnet-9", VPC: "vpc-2", Zone: "eu-west-1b", CIDR: netip.MustParsePrefix("10.9.0.0/24")})
			return subnets("subnet-a", "subnet-9")(b)
		}, wrong},
		{"no local zones", func(b *bench) error {
			b.AddZone("eu-west-1-lhr-1a", awsfake.LocalZone)
			b.AddSubnet(awsfake.Subnet{ID: "subnet-l", VPC: "vpc-1", Zone: "eu-west-1-lhr-1a", CIDR: netip.MustParsePrefix("10.0.9.0/24")})
			return subnets("subnet-l")(b)
		}, "InvalidSubnet"},
		{"eight addresses are free", func(b *bench) error {
			b.AddSubnet(awsfake.Subnet{ID: "subnet-8", VPC: "vpc-1", Zone: "eu-west-1c", CIDR: netip.MustParsePrefix("10.0.9.0/24"), Free: aws.Int(7)})
			return subnets("subnet-8")(b)
		}, "InvalidSubnet"},
		{"a private address needs no free ones", func(b *bench) error {
			b.AddSubnet(awsfake.Subnet{ID: "subnet-8", VPC: "vpc-1", Zone: "eu-west-1c", CIDR: netip.MustParsePrefix("10.0.9.0/24"), Free: aws.Int(1)})
			return create("web", mapped(internal, types.SubnetMapping{SubnetId: aws.String("subnet-8"), PrivateIPv4Address: aws.String("10.0.9.9")}))(b)
		}, ""},
		{"the internet needs a gateway", func(b *bench) error {
			b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}, NoInternet: true})
			b.AddSubnet(awsfake.Subnet{ID: "subnet-9", VPC: "vpc-2", Zone: "eu-west-1b", CIDR: netip.MustParsePrefix("10.9.0.0/24")})
			return create("web", func(i *in) { i.Scheme, i.Subnets = public, []string{"subnet-9"} })(b)
		}, "InvalidSubnet"},

		{"the same again", again(func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}} }), ""},
		{"the same in another order", again(func(i *in) {
			i.Tags, i.Subnets = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}, []string{"subnet-b", "subnet-a"}
		}), ""},
		{"again with other tags", again(nil), "DuplicateLoadBalancerName"},
		{"again in other subnets", again(func(i *in) {
			i.Tags, i.Subnets = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}, []string{"subnet-a"}
		}), "DuplicateLoadBalancerName"},
		{"again for the internet", again(func(i *in) {
			i.Tags, i.Scheme = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}, public
		}), "DuplicateLoadBalancerName"},
		{"again with security groups", again(func(i *in) {
			i.Tags, i.SecurityGroups = []types.Tag{{Key: aws.String("a"), Value: aws.String("1")}}, []string{"sg-nodes"}
		}), "DuplicateLoadBalancerName"},

		{"a security group exists", create("web", func(i *in) { i.SecurityGroups = []string{"sg-no"} }), "InvalidSecurityGroup"},
		{"a security group once", create("web", func(i *in) { i.SecurityGroups = []string{"sg-nodes", "sg-nodes"} }), wrong},
		{"five security groups", create("web", func(i *in) { i.SecurityGroups = []string{"1", "2", "3", "4", "5", "6"} }), wrong},

		{"dual stack", create("web", func(i *in) { i.IpAddressType = types.IpAddressTypeDualstack }), ""},
		{"dual stack needs IPv6 in each subnet", create("web", func(i *in) {
			i.IpAddressType, i.Subnets = types.IpAddressTypeDualstack, []string{"subnet-a", "subnet-c"}
		}), "InvalidSubnet"},
		{"no third IP address type", create("web", func(i *in) { i.IpAddressType = "ipv6" }), refused},
		{"source NAT needs dual stack", create("web", func(i *in) { i.EnablePrefixForIpv6SourceNat = "on" }), wrong},

		{"an elastic address for each subnet", create("web", mapped(public, elastic("subnet-a", "eipalloc-a"), elastic("subnet-b", "eipalloc-b"))), ""},
		{"an elastic address for one of two subnets", create("web", mapped(public, elastic("subnet-a", "eipalloc-a"), types.SubnetMapping{SubnetId: aws.String("subnet-b")})), wrong},
		{"one elastic address twice", create("web", mapped(public, elastic("subnet-a", "eipalloc-a"), elastic("subnet-b", "eipalloc-a"))), "ResourceInUse"},
		{"an elastic address exists", create("web", mapped(public, elastic("subnet-a", "eipalloc-z"))), "AllocationIdNotFound"},
		{"an elastic address inside", create("web", mapped(internal, elastic("subnet-a", "eipalloc-a"))), wrong},
		{"an elastic address is free", func(b *bench) error {
			b.nlb("first", mapped(public, elastic("subnet-a", "eipalloc-a")))
			return b.createNLB("web", mapped(public, elastic("subnet-a", "eipalloc-a")))
		}, "ResourceInUse"},
		{"an elastic address is free once the interfaces are gone", func(b *bench) error {
			lb := b.nlb("first", mapped(public, elastic("subnet-a", "eipalloc-a")))
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: lb})
			b.check(err)
			if got := code(b.createNLB("web", mapped(public, elastic("subnet-a", "eipalloc-a")))); got != "ResourceInUse" {
				b.Errorf("at once: %q, want ResourceInUse", got)
			}
			b.Advance(time.Minute)
			return b.createNLB("web", mapped(public, elastic("subnet-a", "eipalloc-a")))
		}, ""},

		{"a private address", create("web", mapped(internal, private("10.0.0.100"))), ""},
		{"a private address of another subnet", create("web", mapped(internal, private("10.0.1.100"))), wrong},
		{"a private address that EC2 keeps", create("web", mapped(internal, private("10.0.0.2"))), wrong},
		{"the last address of a subnet", create("web", mapped(internal, private("10.0.0.255"))), wrong},
		{"a private address of an instance", create("web", mapped(internal, private("10.0.0.4"))), "ResourceInUse"},
		{"a private address for the internet", create("web", mapped(public, private("10.0.0.100"))), wrong},
		{"a private address that is none", create("web", mapped(internal, private("ten"))), refused},
		{"an IPv6 address needs dual stack", create("web", mapped(public, types.SubnetMapping{
			SubnetId: aws.String("subnet-a"), IPv6Address: aws.String("2001:db8:0:a::10"),
		})), wrong},
		{"an IPv6 address", create("web", func(i *in) {
			mapped(public, types.SubnetMapping{SubnetId: aws.String("subnet-a"), IPv6Address: aws.String("2001:db8:0:a::10")})(i)
			i.IpAddressType = types.IpAddressTypeDualstack
		}), ""},

		{"tags", tagged("kubernetes.io/cluster/one|owned", "a|"+tagsValid), ""},
		{"a tag twice", tagged("a|1", "a|2"), "DuplicateTagKeys"},
		{"a tag of AWS", tagged("aws:a|1"), refused},
		{"a tag with an asterisk", tagged("a|*"), refused},
		{"a tag with a long key", tagged(strings.Repeat("k", 129) + "|1"), refused},
		{"a tag with a long value", tagged("a|" + strings.Repeat("v", 257)), refused},
		{"50 tags", tagged(many(50)...), ""},
		{"51 tags", tagged(many(51)...), "TooManyTags"},
		{"50 load balancers", func(b *bench) error {
			for i := range 50 {
				b.nlb(fmt.Sprint("web-", i), nil)
			}
			return b.createNLB("web", nil)
		}, "TooManyLoadBalancers"},
	})
}

func many(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint("key-", i, "|value")
	}
	return list
}

func TestNetworkLoadBalancerChanges(t *testing.T) {
	type in = elbv2.CreateLoadBalancerInput
	setSubnets := func(b *bench, lb *string, ids ...string) error {
		_, err := b.ELBV2().SetSubnets(b.ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: lb, Subnets: ids})
		return err
	}
	setGroups := func(b *bench, lb *string, ids ...string) error {
		_, err := b.ELBV2().SetSecurityGroups(b.ctx, &elbv2.SetSecurityGroupsInput{LoadBalancerArn: lb, SecurityGroups: ids})
		return err
	}
	setFamily := func(b *bench, lb *string, family types.IpAddressType) error {
		_, err := b.ELBV2().SetIpAddressType(b.ctx, &elbv2.SetIpAddressTypeInput{LoadBalancerArn: lb, IpAddressType: family})
		return err
	}
	remove := func(b *bench, arn *string) error {
		_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: arn})
		return err
	}
	grouped := func(i *in) { i.SecurityGroups = []string{"sg-nodes"} }
	set := func(key, value string) func(*bench) error {
		return func(b *bench) error { return b.setLoadBalancer(b.nlb("web", nil), key, value) }
	}
	prove(t, []fact{
		{"more subnets", func(b *bench) error { return setSubnets(b, b.nlb("web", nil), "subnet-a", "subnet-b", "subnet-c") }, ""},
		{"other subnets", func(b *bench) error { return setSubnets(b, b.nlb("web", nil), "subnet-c") }, ""},
		{"another subnet of a zone", func(b *bench) error { return setSubnets(b, b.nlb("web", nil), "subnet-a2", "subnet-b") }, wrong},
		{"another subnet of a zone just after the first is gone", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(setSubnets(b, lb, "subnet-b"))
			return setSubnets(b, lb, "subnet-a2", "subnet-b")
		}, wrong},
		{"another subnet of a zone a minute after the first is gone", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(setSubnets(b, lb, "subnet-b"))
			b.Advance(time.Minute)
			return setSubnets(b, lb, "subnet-a2", "subnet-b")
		}, ""},
		{"a subnet that has become full stays", func(b *bench) error {
			b.AddSubnet(awsfake.Subnet{ID: "subnet-8", VPC: "vpc-1", Zone: "eu-west-1c", CIDR: netip.MustParsePrefix("10.0.9.0/24"), Free: aws.Int(8)})
			return setSubnets(b, b.nlb("web", func(i *in) { i.Subnets = []string{"subnet-8"} }), "subnet-8", "subnet-a")
		}, ""},
		{"no subnets", func(b *bench) error { return setSubnets(b, b.nlb("web", nil)) }, refused},
		{"subnets of one zone", func(b *bench) error { return setSubnets(b, b.nlb("web", nil), "subnet-a", "subnet-a2") }, wrong},
		{"an elastic address does not change", func(b *bench) error {
			lb := b.nlb("web", func(i *in) {
				i.Scheme, i.Subnets = types.LoadBalancerSchemeEnumInternetFacing, nil
				i.SubnetMappings = []types.SubnetMapping{{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-a")}}
			})
			_, err := b.ELBV2().SetSubnets(b.ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: lb, SubnetMappings: []types.SubnetMapping{
				{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-b")},
			}})
			return err
		}, wrong},
		{"a further subnet has its elastic address", func(b *bench) error {
			lb := b.nlb("web", func(i *in) {
				i.Scheme, i.Subnets = types.LoadBalancerSchemeEnumInternetFacing, nil
				i.SubnetMappings = []types.SubnetMapping{{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-a")}}
			})
			if got := code(setSubnets(b, lb, "subnet-a", "subnet-b")); got != wrong {
				b.Errorf("without one: %q, want %q", got, wrong)
			}
			_, err := b.ELBV2().SetSubnets(b.ctx, &elbv2.SetSubnetsInput{LoadBalancerArn: lb, SubnetMappings: []types.SubnetMapping{
				{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-a")}, {SubnetId: aws.String("subnet-b"), AllocationId: aws.String("eipalloc-b")},
			}})
			return err
		}, ""},

		{"other security groups", func(b *bench) error { return setGroups(b, b.nlb("web", grouped), "sg-default-vpc-1") }, ""},
		{"security groups where there never were any", func(b *bench) error { return setGroups(b, b.nlb("web", nil), "sg-nodes") }, wrong},
		{"no security groups any more", func(b *bench) error { return setGroups(b, b.nlb("web", grouped), []string{}...) }, wrong},
		{"security groups that are not", func(b *bench) error { return setGroups(b, b.nlb("web", grouped), "sg-no") }, "InvalidSecurityGroup"},

		{"dual stack later", func(b *bench) error { return setFamily(b, b.nlb("web", nil), types.IpAddressTypeDualstack) }, ""},
		{"dual stack without IPv6", func(b *bench) error {
			return setFamily(b, b.nlb("web", func(i *in) { i.Subnets = []string{"subnet-c"} }), types.IpAddressTypeDualstack)
		}, "InvalidSubnet"},
		{"dual stack with UDP", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.listener(lb, b.group("dns", protocol(types.ProtocolEnumUdp)), 53, func(i *elbv2.CreateListenerInput) { i.Protocol = types.ProtocolEnumUdp })
			return setFamily(b, lb, types.IpAddressTypeDualstack)
		}, wrong},

		{"an attribute", set("load_balancing.cross_zone.enabled", "true"), ""},
		{"an attribute that is none", set("load_balancing.cross_zone", "true"), refused},
		{"an attribute of others", set("idle_timeout.timeout_seconds", "60"), refused},
		{"an attribute with a wrong value", set("load_balancing.cross_zone.enabled", "yes"), refused},
		{"a routing policy", set("dns_record.client_routing_policy", "availability_zone_affinity"), ""},
		{"a routing policy that is none", set("dns_record.client_routing_policy", "random"), refused},
		{"access logs need a bucket", set("access_logs.s3.enabled", "true"), wrong},
		{"access logs need a bucket that exists", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(b.setLoadBalancer(lb, "access_logs.s3.bucket", "logs"))
			return b.setLoadBalancer(lb, "access_logs.s3.enabled", "true")
		}, wrong},
		{"access logs", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.AddBucket("logs")
			b.check(b.setLoadBalancer(lb, "access_logs.s3.bucket", "logs"))
			return b.setLoadBalancer(lb, "access_logs.s3.enabled", "true")
		}, ""},
		{"secondary addresses do not go", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(b.setLoadBalancer(lb, "secondary_ips.auto_assigned.per_subnet", "2"))
			return b.setLoadBalancer(lb, "secondary_ips.auto_assigned.per_subnet", "1")
		}, wrong},

		{"deletion protection", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(b.setLoadBalancer(lb, "deletion_protection.enabled", "true"))
			return remove(b, lb)
		}, "OperationNotPermitted"},
		{"a second deletion", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(remove(b, lb))
			return remove(b, lb)
		}, ""},
		{"a deletion by name", func(b *bench) error { return remove(b, aws.String("web")) }, refused},
		{"changes after the deletion", func(b *bench) error {
			lb := b.nlb("web", nil)
			b.check(remove(b, lb))
			return b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "true")
		}, "LoadBalancerNotFound"},
		{"describe by a name that is not", func(b *bench) error {
			_, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{"no"}})
			return err
		}, "LoadBalancerNotFound"},
		{"describe 21 names", func(b *bench) error {
			_, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{Names: make([]string, 21)})
			return err
		}, refused},
		{"a page of 401", func(b *bench) error {
			_, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{PageSize: aws.Int32(401)})
			return err
		}, refused},
		{"a marker that is none", func(b *bench) error {
			_, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{Marker: aws.String("no")})
			return err
		}, refused},
		{"what is not here", func(b *bench) error {
			_, err := b.ELBV2().DescribeAccountLimits(b.ctx, &elbv2.DescribeAccountLimitsInput{})
			return err
		}, "InvalidAction"},
	})
}

func TestTargetGroupFacts(t *testing.T) {
	type in = elbv2.CreateTargetGroupInput
	create := func(name string, change func(*in)) func(*bench) error {
		return func(b *bench) error { return b.createGroup(name, change) }
	}
	again := func(change func(*in)) func(*bench) error {
		return func(b *bench) error {
			b.group("web", nil)
			return b.createGroup("web", change)
		}
	}
	modify := func(change func(*elbv2.ModifyTargetGroupInput)) func(*bench) error {
		return func(b *bench) error {
			i := &elbv2.ModifyTargetGroupInput{TargetGroupArn: b.group("web", nil)}
			change(i)
			_, err := b.ELBV2().ModifyTargetGroup(b.ctx, i)
			return err
		}
	}
	set := func(key, value string, change func(*in)) func(*bench) error {
		return func(b *bench) error { return b.setGroup(b.group("web", change), key, value) }
	}
	remove := func(b *bench, arn *string) error {
		_, err := b.ELBV2().DeleteTargetGroup(b.ctx, &elbv2.DeleteTargetGroupInput{TargetGroupArn: arn})
		return err
	}
	http := func(path, codes string) func(*in) {
		return func(i *in) {
			i.HealthCheckProtocol, i.HealthCheckPath = types.ProtocolEnumHttp, aws.String(path)
			if codes != "" {
				i.Matcher = &types.Matcher{HttpCode: aws.String(codes)}
			}
		}
	}
	prove(t, []fact{
		{"a name has not 33 characters", create(strings.Repeat("a", 33), nil), refused},
		{"a name may begin with internal-", create("internal-a", nil), ""},
		{"a name has no underscore", create("a_b", nil), refused},
		{"no HTTP", create("web", protocol(types.ProtocolEnumHttp)), "UnsupportedProtocol"},
		{"TCP_UDP", create("web", protocol(types.ProtocolEnumTcpUdp)), ""},
		{"no port 0", create("web", func(i *in) { i.Port = aws.Int32(0) }), refused},
		{"no lambda", create("web", func(i *in) { i.TargetType = types.TargetTypeEnumLambda }), refused},
		{"a VPC", create("web", func(i *in) { i.VpcId = nil }), refused},
		{"a VPC that exists", create("web", func(i *in) { i.VpcId = aws.String("vpc-9") }), refused},

		{"interval 300", create("web", func(i *in) { i.HealthCheckIntervalSeconds = aws.Int32(300) }), ""},
		{"interval 301", create("web", func(i *in) { i.HealthCheckIntervalSeconds = aws.Int32(301) }), refused},
		{"interval 4", create("web", func(i *in) { i.HealthCheckIntervalSeconds = aws.Int32(4) }), refused},
		{"interval 10 is not above the usual timeout of TCP", create("web", func(i *in) { i.HealthCheckIntervalSeconds = aws.Int32(10) }), refused},
		{"interval 10 is above the usual timeout of HTTP", create("web", func(i *in) {
			http("/", "")(i)
			i.HealthCheckIntervalSeconds = aws.Int32(10)
		}), ""},
		{"timeout 1", create("web", func(i *in) { i.HealthCheckTimeoutSeconds = aws.Int32(1) }), refused},
		{"timeout 30 of 30", create("web", func(i *in) { i.HealthCheckTimeoutSeconds = aws.Int32(30) }), refused},
		{"healthy 11", create("web", func(i *in) { i.HealthyThresholdCount = aws.Int32(11) }), refused},
		{"unhealthy 1", create("web", func(i *in) { i.UnhealthyThresholdCount = aws.Int32(1) }), refused},
		{"a check by UDP", create("web", func(i *in) { i.HealthCheckProtocol = types.ProtocolEnumUdp }), refused},
		{"a check on a port", create("web", func(i *in) { i.HealthCheckPort = aws.String("10256") }), ""},
		{"a check on a named port", create("web", func(i *in) { i.HealthCheckPort = aws.String("http") }), refused},
		{"a path of TCP", create("web", func(i *in) { i.HealthCheckPath = aws.String("/") }), refused},
		{"a path", create("web", http("/healthz", "200-399,404")), ""},
		{"a path without a slash", create("web", http("healthz", "")), refused},
		{"a code beyond 599", create("web", http("/", "200-600")), refused},
		{"a code that is none", create("web", http("/", "ok")), refused},
		{"checks cannot be off", create("web", func(i *in) { i.HealthCheckEnabled = aws.Bool(false) }), refused},

		{"the same again", again(nil), ""},
		{"again with another port", again(func(i *in) { i.Port = aws.Int32(31001) }), "DuplicateTargetGroupName"},
		{"again with another protocol", again(protocol(types.ProtocolEnumUdp)), "DuplicateTargetGroupName"},
		{"again with other targets", again(addresses), "DuplicateTargetGroupName"},
		{"again with another check", again(func(i *in) { i.HealthyThresholdCount = aws.Int32(3) }), "DuplicateTargetGroupName"},
		{"again with other tags", again(func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a")}} }), "DuplicateTargetGroupName"},

		{"another interval", modify(func(i *elbv2.ModifyTargetGroupInput) { i.HealthCheckIntervalSeconds = aws.Int32(11) }), ""},
		{"an interval under the timeout", modify(func(i *elbv2.ModifyTargetGroupInput) { i.HealthCheckIntervalSeconds = aws.Int32(9) }), refused},
		{"another check", modify(func(i *elbv2.ModifyTargetGroupInput) {
			i.HealthCheckProtocol, i.HealthCheckPath = types.ProtocolEnumHttp, aws.String("/healthz")
		}), ""},
		{"a group that is not", func(b *bench) error {
			arn := b.group("web", nil)
			b.check(remove(b, arn))
			_, err := b.ELBV2().ModifyTargetGroup(b.ctx, &elbv2.ModifyTargetGroupInput{TargetGroupArn: arn})
			return err
		}, "TargetGroupNotFound"},
		{"describe by a name that is not", func(b *bench) error {
			_, err := b.ELBV2().DescribeTargetGroups(b.ctx, &elbv2.DescribeTargetGroupsInput{Names: []string{"no"}})
			return err
		}, "TargetGroupNotFound"},

		{"a delay", set("deregistration_delay.timeout_seconds", "3600", nil), ""},
		{"a longer delay", set("deregistration_delay.timeout_seconds", "3601", nil), refused},
		{"stickiness by source", set("stickiness.type", "source_ip", nil), ""},
		{"stickiness by cookie", set("stickiness.type", "lb_cookie", nil), refused},
		{"stickiness with TLS", set("stickiness.enabled", "true", protocol(types.ProtocolEnumTls)), wrong},
		{"client addresses lost with TCP", set("preserve_client_ip.enabled", "false", nil), ""},
		{"client addresses lost with UDP", set("preserve_client_ip.enabled", "false", protocol(types.ProtocolEnumUdp)), refused},
		{"unhealthy UDP is not ended", set("target_health_state.unhealthy.connection_termination.enabled", "true", protocol(types.ProtocolEnumUdp)), refused},
		{"unhealthy drains only if not ended", set("target_health_state.unhealthy.draining_interval_seconds", "10", nil), wrong},
		{"DNS failover off", set("target_group_health.dns_failover.minimum_healthy_targets.count", "off", nil), ""},
		{"an attribute that is none", set("stickiness", "true", nil), refused},
		{"an attribute of others", set("slow_start.duration_seconds", "30", nil), refused},

		{"a deletion in use", func(b *bench) error {
			group := b.group("web", nil)
			b.listener(b.nlb("web", nil), group, 80, nil)
			return remove(b, group)
		}, "ResourceInUse"},
		{"a deletion just after the load balancer's", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			b.listener(lb, group, 80, nil)
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: lb})
			b.check(err)
			return remove(b, group)
		}, "ResourceInUse"},
		{"a deletion some time after the load balancer's", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			b.listener(lb, group, 80, nil)
			_, err := b.ELBV2().DeleteLoadBalancer(b.ctx, &elbv2.DeleteLoadBalancerInput{LoadBalancerArn: lb})
			b.check(err)
			b.Advance(10 * time.Second)
			return remove(b, group)
		}, ""},
		{"a second deletion", func(b *bench) error {
			group := b.group("web", nil)
			b.check(remove(b, group))
			return remove(b, group)
		}, ""},
	})
}

func TestListenerFacts(t *testing.T) {
	type in = elbv2.CreateListenerInput
	create := func(group func(*elbv2.CreateTargetGroupInput), change func(*in)) func(*bench) error {
		return func(b *bench) error { return b.createListener(b.nlb("web", nil), b.group("web", group), 80, change) }
	}
	of := func(listener, group types.ProtocolEnum) func(*bench) error {
		return create(protocol(group), func(i *in) {
			if tls(i); listener != types.ProtocolEnumTls {
				i.Certificates = nil
			}
			i.Protocol = listener
		})
	}
	again := func(change func(*in)) func(*bench) error {
		return func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", protocol(types.ProtocolEnumTcpUdp))
			b.listener(lb, group, 80, nil)
			return b.createListener(lb, group, 80, change)
		}
	}
	sourceNAT := func(i *elbv2.CreateLoadBalancerInput) {
		i.IpAddressType, i.EnablePrefixForIpv6SourceNat = types.IpAddressTypeDualstack, types.EnablePrefixForIpv6SourceNatEnumOn
	}
	ipv6UDP := func(i *elbv2.CreateTargetGroupInput) {
		protocol(types.ProtocolEnumUdp)(i)
		i.IpAddressType = types.TargetGroupIpAddressTypeEnumIpv6
	}
	secure := func(change func(*in)) func(*bench) error {
		return create(nil, func(i *in) {
			tls(i)
			change(i)
		})
	}
	modify := func(before func(*in), change func(*elbv2.ModifyListenerInput)) func(*bench) error {
		return func(b *bench) error {
			i := &elbv2.ModifyListenerInput{ListenerArn: b.listener(b.nlb("web", nil), b.group("web", nil), 80, before)}
			change(i)
			_, err := b.ELBV2().ModifyListener(b.ctx, i)
			return err
		}
	}
	set := func(change func(*in), key, value string) func(*bench) error {
		return func(b *bench) error {
			return b.setListener(b.listener(b.nlb("web", nil), b.group("web", nil), 80, change), key, value)
		}
	}
	tcp, udp, both, encrypted := types.ProtocolEnumTcp, types.ProtocolEnumUdp, types.ProtocolEnumTcpUdp, types.ProtocolEnumTls
	prove(t, []fact{
		{"TCP to TCP", of(tcp, tcp), ""},
		{"TCP to TCP_UDP", of(tcp, both), ""},
		{"TCP to UDP", of(tcp, udp), "IncompatibleProtocols"},
		{"TCP to TLS", of(tcp, encrypted), "IncompatibleProtocols"},
		{"UDP to UDP", of(udp, udp), ""},
		{"UDP to TCP", of(udp, tcp), "IncompatibleProtocols"},
		{"TCP_UDP to TCP_UDP", of(both, both), ""},
		{"TCP_UDP to TCP", of(both, tcp), "IncompatibleProtocols"},
		{"TLS to TCP", of(encrypted, tcp), ""},
		{"TLS to TLS", of(encrypted, encrypted), ""},
		{"TLS to UDP", of(encrypted, udp), "IncompatibleProtocols"},
		{"HTTP", of(types.ProtocolEnumHttp, tcp), "UnsupportedProtocol"},

		{"the same again", again(nil), ""},
		{"UDP on the port of TCP", again(func(i *in) { i.Protocol = udp }), "DuplicateListener"},
		{"TLS on the port of TCP", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			b.listener(lb, group, 80, nil)
			return b.createListener(lb, group, 80, tls)
		}, "DuplicateListener"},
		{"again with other tags", again(func(i *in) { i.Tags = []types.Tag{{Key: aws.String("a")}} }), "DuplicateListener"},
		{"port 0", create(nil, func(i *in) { i.Port = aws.Int32(0) }), refused},
		{"port 65536", create(nil, func(i *in) { i.Port = aws.Int32(65536) }), refused},
		{"a fixed response", create(nil, func(i *in) { i.DefaultActions[0].Type = types.ActionTypeEnumFixedResponse }), "InvalidLoadBalancerAction"},
		{"two actions", create(nil, func(i *in) { i.DefaultActions = append(i.DefaultActions, i.DefaultActions[0]) }), "TooManyActions"},
		{"no target group", create(nil, func(i *in) { i.DefaultActions[0].TargetGroupArn = nil }), refused},
		{"a target group that is not", create(nil, func(i *in) {
			i.DefaultActions[0].TargetGroupArn = aws.String(*i.DefaultActions[0].TargetGroupArn + "0")
		}), "TargetGroupNotFound"},
		{"a load balancer that is not", create(nil, func(i *in) { i.LoadBalancerArn = aws.String(*i.LoadBalancerArn + "0") }), "LoadBalancerNotFound"},
		{"a target group of another VPC", func(b *bench) error {
			b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
			return create(func(i *elbv2.CreateTargetGroupInput) { i.VpcId = aws.String("vpc-2") }, nil)(b)
		}, wrong},
		{"a target group of two listeners", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			b.listener(lb, group, 80, nil)
			return b.createListener(lb, group, 81, nil)
		}, ""},
		{"a target group of two load balancers", func(b *bench) error {
			group := b.group("web", nil)
			b.listener(b.nlb("first", nil), group, 80, nil)
			return b.createListener(b.nlb("second", nil), group, 80, nil)
		}, "TargetGroupAssociationLimit"},
		{"IPv6 targets without dual stack", create(func(i *elbv2.CreateTargetGroupInput) {
			i.TargetType, i.IpAddressType = types.TargetTypeEnumIp, types.TargetGroupIpAddressTypeEnumIpv6
		}, nil), wrong},
		{"UDP with dual stack", func(b *bench) error {
			lb := b.nlb("web", func(i *elbv2.CreateLoadBalancerInput) { i.IpAddressType = types.IpAddressTypeDualstack })
			return b.createListener(lb, b.group("web", protocol(udp)), 80, func(i *in) { i.Protocol = udp })
		}, wrong},
		{"UDP with dual stack and source NAT", func(b *bench) error {
			return b.createListener(b.nlb("web", sourceNAT), b.group("web", ipv6UDP), 80, func(i *in) { i.Protocol = udp })
		}, ""},
		{"UDP with dual stack to IPv4", func(b *bench) error {
			return b.createListener(b.nlb("web", sourceNAT), b.group("web", protocol(udp)), 80, func(i *in) { i.Protocol = udp })
		}, wrong},
		{"50 listeners", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			for port := range int32(50) {
				b.listener(lb, group, 1000+port, nil)
			}
			return b.createListener(lb, group, 80, nil)
		}, "TooManyListeners"},

		{"TLS without a certificate", secure(func(i *in) { i.Certificates = nil }), refused},
		{"TLS with two certificates", secure(func(i *in) { i.Certificates = append(i.Certificates, i.Certificates[0]) }), "TooManyCertificates"},
		{"TLS with a certificate that is not", secure(func(i *in) { i.Certificates[0].CertificateArn = aws.String("arn:aws:acm:no") }), "CertificateNotFound"},
		{"a default that says so", secure(func(i *in) { i.Certificates[0].IsDefault = aws.Bool(true) }), refused},
		{"a certificate of TCP", secure(func(i *in) { i.Protocol = tcp }), refused},
		{"a policy", secure(func(i *in) { i.SslPolicy = aws.String("ELBSecurityPolicy-TLS13-1-2-2021-06") }), ""},
		{"a policy that is none", secure(func(i *in) { i.SslPolicy = aws.String("best") }), "SSLPolicyNotFound"},
		{"a policy of TCP", create(nil, func(i *in) { i.SslPolicy = aws.String("ELBSecurityPolicy-2016-08") }), refused},
		{"ALPN", secure(func(i *in) { i.AlpnPolicy = []string{"HTTP2Preferred"} }), ""},
		{"ALPN that is none", secure(func(i *in) { i.AlpnPolicy = []string{"h2"} }), "ALPNPolicyNotFound"},
		{"two ALPN", secure(func(i *in) { i.AlpnPolicy = []string{"HTTP2Preferred", "None"} }), refused},
		{"ALPN of TCP", create(nil, func(i *in) { i.AlpnPolicy = []string{"None"} }), refused},
		{"TLS with stickiness", func(b *bench) error {
			group := b.group("web", nil)
			b.check(b.setGroup(group, "stickiness.enabled", "true"))
			return b.createListener(b.nlb("web", nil), group, 443, tls)
		}, wrong},

		{"to TLS", modify(nil, func(i *elbv2.ModifyListenerInput) {
			i.Protocol, i.Certificates = encrypted, []types.Certificate{{CertificateArn: aws.String(certificate)}}
		}), ""},
		{"to TLS without a certificate", modify(nil, func(i *elbv2.ModifyListenerInput) { i.Protocol = encrypted }), refused},
		{"from TLS", modify(tls, func(i *elbv2.ModifyListenerInput) { i.Protocol = tcp }), ""},
		{"to another policy", modify(tls, func(i *elbv2.ModifyListenerInput) { i.SslPolicy = aws.String("ELBSecurityPolicy-FS-2018-06") }), ""},
		{"to UDP", modify(nil, func(i *elbv2.ModifyListenerInput) { i.Protocol = udp }), "IncompatibleProtocols"},
		{"to a port that is taken", func(b *bench) error {
			lb, group := b.nlb("web", nil), b.group("web", nil)
			b.listener(lb, group, 80, nil)
			_, err := b.ELBV2().ModifyListener(b.ctx, &elbv2.ModifyListenerInput{ListenerArn: b.listener(lb, group, 81, nil), Port: aws.Int32(80)})
			return err
		}, "DuplicateListener"},
		{"a second deletion", func(b *bench) error {
			arn := b.listener(b.nlb("web", nil), b.group("web", nil), 80, nil)
			_, err := b.ELBV2().DeleteListener(b.ctx, &elbv2.DeleteListenerInput{ListenerArn: arn})
			b.check(err)
			_, err = b.ELBV2().DeleteListener(b.ctx, &elbv2.DeleteListenerInput{ListenerArn: arn})
			return err
		}, "ListenerNotFound"},

		{"an idle timeout", set(nil, "tcp.idle_timeout.seconds", "6000"), ""},
		{"a short idle timeout", set(nil, "tcp.idle_timeout.seconds", "59"), refused},
		{"an idle timeout of TLS", set(tls, "tcp.idle_timeout.seconds", "100"), refused},
		{"an attribute that is none", set(nil, "idle", "100"), refused},
		{"describe without saying of what", func(b *bench) error {
			_, err := b.ELBV2().DescribeListeners(b.ctx, &elbv2.DescribeListenersInput{})
			return err
		}, refused},
	})
}

func TestCertificatesOfListeners(t *testing.T) {
	add := func(b *bench, listener *string, arn string) error {
		_, err := b.ELBV2().AddListenerCertificates(b.ctx, &elbv2.AddListenerCertificatesInput{
			ListenerArn: listener, Certificates: []types.Certificate{{CertificateArn: aws.String(arn)}},
		})
		return err
	}
	remove := func(b *bench, listener *string, arn string) error {
		_, err := b.ELBV2().RemoveListenerCertificates(b.ctx, &elbv2.RemoveListenerCertificatesInput{
			ListenerArn: listener, Certificates: []types.Certificate{{CertificateArn: aws.String(arn)}},
		})
		return err
	}
	secure := func(b *bench) *string { return b.listener(b.nlb("web", nil), b.group("web", nil), 443, tls) }
	prove(t, []fact{
		{"one that is not", func(b *bench) error { return add(b, secure(b), "arn:no") }, "CertificateNotFound"},
		{"the default one goes not", func(b *bench) error { return remove(b, secure(b), certificate) }, "OperationNotPermitted"},
		{"one that was not there goes", func(b *bench) error { return remove(b, secure(b), "arn:no") }, ""},
		{"of TCP", func(b *bench) error {
			return add(b, b.listener(b.nlb("web", nil), b.group("web", nil), 80, nil), certificate)
		}, "UnsupportedProtocol"},
		{"26 beside the default", func(b *bench) error {
			listener := secure(b)
			for i := range 26 {
				b.AddCertificate(fmt.Sprint("arn:", i))
				if i < 25 {
					b.check(add(b, listener, fmt.Sprint("arn:", i)))
				}
			}
			b.check(add(b, listener, "arn:0"))
			return add(b, listener, "arn:25")
		}, "TooManyCertificates"},
	})

	b := newBench(t, awsfake.Options{PageSize: 2})
	listener := secure(b)
	for _, arn := range []string{"arn:one", "arn:two"} {
		b.AddCertificate(arn)
		b.check(add(b, listener, arn))
	}
	var got []string
	pages := elbv2.NewDescribeListenerCertificatesPaginator(b.ELBV2(), &elbv2.DescribeListenerCertificatesInput{ListenerArn: listener})
	for pages.HasMorePages() {
		page, err := pages.NextPage(b.ctx)
		b.check(err)
		for _, c := range page.Certificates {
			got = append(got, fmt.Sprint(*c.CertificateArn, *c.IsDefault))
		}
	}
	if diff := cmp.Diff([]string{certificate + "true", "arn:onefalse", "arn:twofalse"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTargetFacts(t *testing.T) {
	outside := func(b *bench, zone *string) error {
		_, err := b.ELBV2().RegisterTargets(b.ctx, &elbv2.RegisterTargetsInput{
			TargetGroupArn: b.group("web", addresses), Targets: []types.TargetDescription{{Id: aws.String("192.168.7.7"), AvailabilityZone: zone}},
		})
		return err
	}
	instances := func(ids ...string) func(*bench) error {
		return func(b *bench) error { return b.register(b.group("web", nil), ids...) }
	}
	pods := func(ids ...string) func(*bench) error {
		return func(b *bench) error { return b.register(b.group("web", addresses), ids...) }
	}
	var crowd []string
	for i := range 101 {
		crowd = append(crowd, fmt.Sprint("10.0.0.", 50+i))
	}
	prove(t, []fact{
		{"instances", instances("i-1", "i-2"), ""},
		{"an instance that is not", instances("i-1", "i-9"), "InvalidTarget"},
		{"an instance that is stopped", func(b *bench) error {
			b.SetInstanceState("i-2", ec2types.InstanceStateNameStopped)
			return instances("i-1", "i-2")(b)
		}, "InvalidTarget"},
		{"an instance of another VPC", func(b *bench) error {
			b.AddVPC(awsfake.VPC{ID: "vpc-2", CIDRs: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")}})
			b.AddSubnet(awsfake.Subnet{ID: "subnet-9", VPC: "vpc-2", Zone: "eu-west-1b", CIDR: netip.MustParsePrefix("10.9.0.0/24")})
			b.AddInstance(awsfake.Instance{ID: "i-4", Subnet: "subnet-9"})
			return instances("i-4")(b)
		}, "InvalidTarget"},
		{"an instance with a zone", func(b *bench) error {
			_, err := b.ELBV2().RegisterTargets(b.ctx, &elbv2.RegisterTargetsInput{
				TargetGroupArn: b.group("web", nil), Targets: []types.TargetDescription{{Id: aws.String("i-1"), AvailabilityZone: aws.String("eu-west-1a")}},
			})
			return err
		}, refused},
		{"an instance twice", instances("i-1", "i-1"), refused},
		{"an address as an instance", instances("10.0.0.9"), "InvalidTarget"},
		{"no targets", instances(),
			"operation error Elastic Load Balancing v2: RegisterTargets, 1 validation error(s) found.\n- missing required field, RegisterTargetsInput.Targets.\n"},
		{"addresses of the VPC", pods("10.0.0.9", "10.0.1.9"), ""},
		{"an instance as an address", pods("i-1"), refused},
		{"an address of the internet", pods("8.8.8.8"), "InvalidTarget"},
		{"an IPv6 address among IPv4", pods("2001:db8:0:a::9"), refused},
		{"a private address outside of the VPC", func(b *bench) error { return outside(b, nil) }, refused},
		{"a private address outside of the VPC for all zones", func(b *bench) error { return outside(b, aws.String("all")) }, ""},
		{"a zone that is none", func(b *bench) error { return outside(b, aws.String("mars")) }, refused},
		{"100 at once", pods(crowd[:100]...), ""},
		{"101 at once", pods(crowd...), refused},
		{"deregister 101 at once", func(b *bench) error { return b.deregister(b.group("web", addresses), crowd...) }, refused},
		{"deregister what is not registered", func(b *bench) error { return b.deregister(b.group("web", nil), "i-9") }, ""},
		{"deregister what is no instance", func(b *bench) error { return b.deregister(b.group("web", nil), "9") }, refused},
		{"the health of an instance that is not", func(b *bench) error {
			_, err := b.ELBV2().DescribeTargetHealth(b.ctx, &elbv2.DescribeTargetHealthInput{
				TargetGroupArn: b.group("web", nil), Targets: []types.TargetDescription{{Id: aws.String("i-9")}},
			})
			return err
		}, "InvalidTarget"},
	})

	b := newBench(t, awsfake.Options{Limits: awsfake.Limits{TargetsPerGroup: 5, TargetsPerZone: 2, TargetsPerNetwork: 4}})
	group, lb := b.group("web", addresses), b.nlb("web", nil)
	b.listener(lb, group, 80, nil)
	b.check(b.register(group, "10.0.0.50", "10.0.0.51"))
	if got := code(b.register(group, "10.0.0.52")); got != "TooManyTargets" {
		t.Errorf("a third target of a zone: %q", got)
	}
	b.check(b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "true"))
	if got := code(b.register(group, "10.0.1.52")); got != "TooManyTargets" {
		t.Errorf("a third target across zones: %q", got)
	}
	b.check(b.register(group, "10.0.0.50"))
	full := b.group("full", addresses)
	b.check(b.register(full, "10.0.1.50"))
	if got := code(b.createListener(lb, full, 81, nil)); got != "TooManyTargets" {
		t.Errorf("a listener to a third target: %q", got)
	}
	if got := code(b.register(b.group("other", addresses), "10.0.0.50", "10.0.0.51", "10.0.0.52", "10.0.0.53", "10.0.0.54", "10.0.0.55")); got != "TooManyTargets" {
		t.Errorf("a sixth target of a group: %q", got)
	}
}

// states are the targets of a group with their states and reasons.
func (b *bench) states(group *string) []string {
	b.Helper()
	out, err := b.ELBV2().DescribeTargetHealth(b.ctx, &elbv2.DescribeTargetHealthInput{TargetGroupArn: group})
	b.check(err)
	var list []string
	for _, d := range out.TargetHealthDescriptions {
		list = append(list, strings.TrimSpace(fmt.Sprintf("%s %s %s", *d.Target.Id, d.TargetHealth.State, d.TargetHealth.Reason)))
	}
	return list
}

func TestTargetsChangeTheirState(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	group, lb := b.group("web", nil), b.nlb("web", nil)
	wants := func(when string, want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, b.states(group)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	b.check(b.register(group, "i-1", "i-2", "i-3"))
	wants("without a listener", "i-1 unused Target.NotInUse", "i-2 unused Target.NotInUse", "i-3 unused Target.NotInUse")
	b.Advance(time.Hour)
	b.check(b.deregister(group, "i-2"))
	wants("an unused one does not drain", "i-1 unused Target.NotInUse", "i-3 unused Target.NotInUse")
	b.check(b.register(group, "i-2"))

	b.listener(lb, group, 80, nil)
	wants("with a listener", "i-1 initial Elb.RegistrationInProgress", "i-2 initial Elb.RegistrationInProgress", "i-3 unused Target.NotInUse")
	b.Advance(time.Minute)
	wants("after a minute", "i-1 healthy", "i-2 healthy", "i-3 unused Target.NotInUse")
	b.check(b.setLoadBalancer(lb, "load_balancing.cross_zone.enabled", "true"))
	wants("across zones", "i-1 healthy", "i-2 healthy", "i-3 healthy")

	b.SetUnhealthy("i-2", true)
	b.SetInstanceState("i-3", ec2types.InstanceStateNameStopped)
	wants("when they fail", "i-1 healthy", "i-2 unhealthy Target.FailedHealthChecks", "i-3 unused Target.InvalidState")
	b.check(b.deregister(group, "i-1", "i-2", "i-3"))
	wants("deregistered", "i-1 draining Target.DeregistrationInProgress", "i-2 draining Target.DeregistrationInProgress")
	b.check(b.register(group, "i-1"))
	wants("registered again", "i-1 initial Elb.RegistrationInProgress", "i-2 draining Target.DeregistrationInProgress")
	b.Advance(5 * time.Minute)
	wants("drained", "i-1 healthy")
	b.SetInstanceState("i-1", ec2types.InstanceStateNameTerminated)
	wants("terminated")
}

func TestLoadBalancerComesUp(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	lb := b.nlb("web", func(i *elbv2.CreateLoadBalancerInput) {
		i.Scheme, i.Subnets = types.LoadBalancerSchemeEnumInternetFacing, nil
		i.SubnetMappings = []types.SubnetMapping{{SubnetId: aws.String("subnet-a"), AllocationId: aws.String("eipalloc-a")}}
	})
	for i, want := range []types.LoadBalancerStateEnum{types.LoadBalancerStateEnumProvisioning, types.LoadBalancerStateEnumActive} {
		b.Advance(time.Duration(i) * 2 * time.Minute)
		out, err := b.ELBV2().DescribeLoadBalancers(b.ctx, &elbv2.DescribeLoadBalancersInput{LoadBalancerArns: []string{*lb}})
		b.check(err)
		got := out.LoadBalancers[0]
		if got.State.Code != want {
			t.Errorf("state %s, want %s", got.State.Code, want)
		}
		if id := aws.ToString(got.AvailabilityZones[0].LoadBalancerAddresses[0].AllocationId); id != "eipalloc-a" {
			t.Errorf("allocation %q", id)
		}
	}
}

func TestAttributesBeginAsInAWS(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	lb := b.nlb("web", nil)
	listener := b.listener(lb, b.group("web", nil), 80, nil)
	var got []string
	balancer, err := b.ELBV2().DescribeLoadBalancerAttributes(b.ctx, &elbv2.DescribeLoadBalancerAttributesInput{LoadBalancerArn: lb})
	b.check(err)
	for _, a := range balancer.Attributes {
		got = append(got, *a.Key+"="+*a.Value)
	}
	for _, arn := range []*string{b.group("tcp", nil), b.group("udp", protocol(types.ProtocolEnumUdp)), b.group("pods", addresses)} {
		out, err := b.ELBV2().DescribeTargetGroupAttributes(b.ctx, &elbv2.DescribeTargetGroupAttributesInput{TargetGroupArn: arn})
		b.check(err)
		got = append(got, "---")
		for _, a := range out.Attributes {
			if !strings.HasPrefix(*a.Key, "target_group_health.") && !strings.HasPrefix(*a.Key, "stickiness.") {
				got = append(got, *a.Key+"="+*a.Value)
			}
		}
	}
	out, err := b.ELBV2().DescribeListenerAttributes(b.ctx, &elbv2.DescribeListenerAttributesInput{ListenerArn: listener})
	b.check(err)
	got = append(got, "---", *out.Attributes[0].Key+"="+*out.Attributes[0].Value)
	want := strings.Split(`access_logs.s3.bucket=
access_logs.s3.enabled=false
access_logs.s3.prefix=
deletion_protection.enabled=false
dns_record.client_routing_policy=any_availability_zone
ipv6.deny_all_igw_traffic=true
load_balancing.cross_zone.enabled=false
secondary_ips.auto_assigned.per_subnet=0
zonal_shift.config.enabled=false
---
deregistration_delay.connection_termination.enabled=false
deregistration_delay.timeout_seconds=300
load_balancing.cross_zone.enabled=use_load_balancer_configuration
preserve_client_ip.enabled=true
proxy_protocol_v2.enabled=false
target_health_state.unhealthy.connection_termination.enabled=true
target_health_state.unhealthy.draining_interval_seconds=0
---
deregistration_delay.connection_termination.enabled=true
deregistration_delay.timeout_seconds=300
load_balancing.cross_zone.enabled=use_load_balancer_configuration
preserve_client_ip.enabled=true
proxy_protocol_v2.enabled=false
target_health_state.unhealthy.connection_termination.enabled=false
target_health_state.unhealthy.draining_interval_seconds=0
---
deregistration_delay.connection_termination.enabled=false
deregistration_delay.timeout_seconds=300
load_balancing.cross_zone.enabled=use_load_balancer_configuration
preserve_client_ip.enabled=false
proxy_protocol_v2.enabled=false
target_health_state.unhealthy.connection_termination.enabled=true
target_health_state.unhealthy.draining_interval_seconds=0
---
tcp.idle_timeout.seconds=350`, "\n")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTagsOfNetworkLoadBalancers(t *testing.T) {
	b := newBench(t, awsfake.Options{})
	lb, group := b.nlb("web", nil), b.group("web", nil)
	listener := b.listener(lb, group, 80, nil)
	all := []string{*lb, *group, *listener}
	_, err := b.ELBV2().AddTags(b.ctx, &elbv2.AddTagsInput{ResourceArns: all, Tags: []types.Tag{
		{Key: aws.String("a"), Value: aws.String("1")}, {Key: aws.String("b"), Value: aws.String("2")},
	}})
	b.check(err)
	_, err = b.ELBV2().RemoveTags(b.ctx, &elbv2.RemoveTagsInput{ResourceArns: all[:1], TagKeys: []string{"a", "c"}})
	b.check(err)
	out, err := b.ELBV2().DescribeTags(b.ctx, &elbv2.DescribeTagsInput{ResourceArns: all})
	b.check(err)
	var got []string
	for _, d := range out.TagDescriptions {
		for _, tag := range d.Tags {
			got = append(got, *tag.Key+"="+*tag.Value)
		}
	}
	if diff := cmp.Diff([]string{"b=2", "a=1", "b=2", "a=1", "b=2"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for want, arns := range map[string][]string{
		refused: make([]string, 21), "LoadBalancerNotFound": {*lb + "0"}, "TargetGroupNotFound": {*lb, *group + "0"}, "ListenerNotFound": {*listener + "0"},
	} {
		if _, err := b.ELBV2().DescribeTags(b.ctx, &elbv2.DescribeTagsInput{ResourceArns: arns}); code(err) != want {
			t.Errorf("answered %q, want %q", code(err), want)
		}
	}
}
