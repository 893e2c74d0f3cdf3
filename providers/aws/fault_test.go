package aws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/heraldlb/herald/providers/aws/awsfake"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// operation takes a Service from one state to another; no second state is its
// deletion.
type operation struct {
	name   string
	before *corev1.Service
	after  *corev1.Service
	// hasty says that the state before is asked for once only, just before.
	hasty bool
	// prepare makes the state before when that is not ours.
	prepare func(w *world)
	// meanwhile happens before the operation, to the world around it.
	meanwhile func(w *world)
}

func change(name string, before, after *corev1.Service) operation {
	return operation{name: name, before: before, after: after}
}

func hasty(name string, before, after *corev1.Service) operation {
	return operation{name: name, before: before, after: after, hasty: true}
}

// create is a change from nothing.
func create(name string, after *corev1.Service) operation { return change(name, nil, after) }

// adopt takes over what another provider has made.
func adopt(name string, prepare func(w *world), after *corev1.Service) operation {
	return operation{name: name, prepare: prepare, after: after}
}

// withNodes is a Service whose nodes go, and others come.
func withNodes(name string, s *corev1.Service) operation {
	return operation{name: name, before: s, after: s, meanwhile: func(w *world) {
		w.addNode(5)
		w.addNode(6)
		w.nodes = w.nodes[2:]
	}}
}

func all(edits ...func(*corev1.Service)) func(*corev1.Service) {
	return func(s *corev1.Service) {
		for _, edit := range edits {
			edit(s)
		}
	}
}

func port(i int, edit func(*corev1.ServicePort)) func(*corev1.Service) {
	return func(s *corev1.Service) { edit(&s.Spec.Ports[i]) }
}

func local(s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceExternalTrafficPolicyLocal, 32000
}

// much is a Service with most of what there is.
var much = all(
	annotate("ssl-cert", certificate), annotate("ssl-ports", "https"), annotate("ssl-negotiation-policy", "ELBSecurityPolicy-TLS-1-2-2017-01"),
	annotate("proxy-protocol", "*"), annotate("access-log-enabled", "true"), annotate("access-log-s3-bucket-name", "logs"),
	annotate("connection-draining-enabled", "true"), annotate("connection-draining-timeout", "60"), annotate("connection-idle-timeout", "120"),
	annotate("cross-zone-load-balancing-enabled", "true"), annotate("additional-resource-tags", "team=web,cost=a=b"),
	annotate("extra-security-groups", "extra"), annotate("healthcheck-interval", "20"), annotate("target-node-labels", "zone=1"),
	func(s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = []string{"198.51.100.0/24", "203.0.113.0/24"}
	},
)

var operations = []operation{
	hasty("nlb-changes-its-mind", service("heraldlb.io/nlb", nil), nil),
	hasty("nlb-to-clb-at-once", service("heraldlb.io/nlb", nil), service("heraldlb.io/clb", nil)),
	hasty("clb-changes-its-mind", service("heraldlb.io/clb", nil), nil),
	change("nlb-create", nil, service("heraldlb.io/nlb", nil)),
	change("nlb-create-much", nil, service("heraldlb.io/nlb", much)),
	change("nlb-delete", service("heraldlb.io/nlb", nil), nil),
	change("nlb-more", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", much)),
	change("nlb-less", service("heraldlb.io/nlb", much), service("heraldlb.io/nlb", nil)),
	change("nlb-ports", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", all(
		port(0, func(p *corev1.ServicePort) { p.Protocol = corev1.ProtocolUDP }), port(1, func(p *corev1.ServicePort) { p.Port, p.NodePort = 8443, 30444 })))),
	change("nlb-local", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", local)),
	change("nlb-internal", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", annotate("internal", "true"))),
	change("nlb-own-groups", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", annotate("security-groups", "mine"))),
	change("nlb-renamed", service("heraldlb.io/nlb", annotate("name", "web-one")), service("heraldlb.io/nlb", nil)),
	change("nlb-to-clb", service("heraldlb.io/nlb", nil), service("heraldlb.io/clb", nil)),
	change("clb-create", nil, service("heraldlb.io/clb", nil)),
	change("clb-create-much", nil, service("heraldlb.io/clb", much)),
	change("clb-delete", service("heraldlb.io/clb", nil), nil),
	change("clb-more", service("heraldlb.io/clb", nil), service("heraldlb.io/clb", much)),
	change("clb-less", service("heraldlb.io/clb", much), service("heraldlb.io/clb", nil)),
	change("clb-ports", service("heraldlb.io/clb", nil), service("heraldlb.io/clb", port(1, func(p *corev1.ServicePort) { p.Port, p.NodePort = 8443, 30444 }))),
	change("clb-internal", service("heraldlb.io/clb", nil), service("heraldlb.io/clb", annotate("internal", "true"))),
	change("clb-to-nlb", service("heraldlb.io/clb", nil), service("heraldlb.io/nlb", nil)),

	change("nlb-public", service("heraldlb.io/nlb", annotate("internal", "true")), service("heraldlb.io/nlb", nil)),
	change("clb-public", service("heraldlb.io/clb", annotate("internal", "true")), service("heraldlb.io/clb", nil)),
	withNodes("nlb-nodes", service("heraldlb.io/nlb", nil)),
	withNodes("clb-nodes", service("heraldlb.io/clb", nil)),
	create("nlb-pods-create", service("heraldlb.io/nlb", toPods)),
	change("nlb-pods-delete", service("heraldlb.io/nlb", toPods), nil),
	change("nlb-nodes-to-pods", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", toPods)),
	change("nlb-pods-to-nodes", service("heraldlb.io/nlb", toPods), service("heraldlb.io/nlb", nil)),
	{name: "nlb-pods-move", before: service("heraldlb.io/nlb", toPods), after: service("heraldlb.io/nlb", toPods), meanwhile: func(w *world) {
		w.setEndpoints(discoveryv1.AddressTypeIPv4, pod{"10.0.12.9", true, true}, pod{"10.0.12.10", true, true})
	}},
	change("nlb-pods-by-ipv6", service("heraldlb.io/nlb", toPods), service("heraldlb.io/nlb", all(toPods, dualStack(corev1.IPv6Protocol, corev1.IPv4Protocol)))),
	create("nlb-sni-create", service("heraldlb.io/nlb", annotate("ssl-cert", certificate+","+another))),
	change("nlb-sni-swap", service("heraldlb.io/nlb", annotate("ssl-cert", certificate+","+another)), service("heraldlb.io/nlb", all(annotate("ssl-cert", another+","+certificate), annotate("backend-protocol", "ssl")))),
	change("nlb-sni-less", service("heraldlb.io/nlb", annotate("ssl-cert", certificate+","+another)), service("heraldlb.io/nlb", all(annotate("ssl-cert", another), annotate("ssl-ports", "443"), annotate("alpn-policy", "HTTP2Only")))),
	change("clb-certificate", service("heraldlb.io/clb", annotate("ssl-cert", certificate)), service("heraldlb.io/clb", all(annotate("ssl-cert", another), annotate("backend-protocol", "https")))),
	create("nlb-dualstack-create", service("heraldlb.io/nlb", dualStack(corev1.IPv4Protocol, corev1.IPv6Protocol))),
	change("nlb-dualstack-more", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", dualStack(corev1.IPv4Protocol, corev1.IPv6Protocol))),
	change("nlb-dualstack-less", service("heraldlb.io/nlb", dualStack(corev1.IPv4Protocol, corev1.IPv6Protocol)), service("heraldlb.io/nlb", nil)),
	change("nlb-dualstack-to-udp", service("heraldlb.io/nlb", dualStack(corev1.IPv4Protocol, corev1.IPv6Protocol)), service("heraldlb.io/nlb", tcpAndUDP)),
	create("nlb-dualstack-udp-create", service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP))),
	change("nlb-dualstack-udp-more", service("heraldlb.io/nlb", byIPv6), service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP))),
	change("nlb-dualstack-udp-less", service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP)), service("heraldlb.io/nlb", byIPv6)),
	change("nlb-udp-to-dualstack", service("heraldlb.io/nlb", tcpAndUDP), service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP))),
	change("nlb-udp-from-dualstack", service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP)), service("heraldlb.io/nlb", tcpAndUDP)),
	change("nlb-dualstack-udp-subnets", service("heraldlb.io/nlb", byIPv6), service("heraldlb.io/nlb", all(byIPv6, tcpAndUDP, annotate("subnets", "public-b")))),
	change("nlb-tcp-udp", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", tcpAndUDP)),
	create("nlb-eip-create", service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-1,eipalloc-2"))),
	change("nlb-eip-other", service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-1,eipalloc-2")), service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-3,eipalloc-1"))),
	change("nlb-eip-delete", service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-1,eipalloc-2")), nil),
	change("nlb-private-addresses", service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-1,eipalloc-2")), service("heraldlb.io/nlb", all(annotate("scheme", "internal"), annotate("private-ipv4-addresses", "10.0.11.50,10.0.12.50")))),
	change("nlb-subnets", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", annotate("subnets", "public-b"))),
	change("clb-subnets", service("heraldlb.io/clb", nil), service("heraldlb.io/clb", annotate("subnets", "public-b"))),
	change("clb-own-groups", service("heraldlb.io/clb", nil), service("heraldlb.io/clb", annotate("security-groups", "mine"))),
	change("nlb-attributes", service("heraldlb.io/nlb", nil), service("heraldlb.io/nlb", all(
		annotate("security-group-prefix-lists", "pl-office"), annotate("listener-attributes.TCP-80", "tcp.idle_timeout.seconds=90"),
		annotate("attributes", "zonal_shift.config.enabled=true"), annotate("target-group-attributes", "preserve_client_ip.enabled=false"),
		func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }))),
	adopt("nlb-adopted", func(w *world) { w.inTreeNLB(service("", nil)) }, service("", all(withFinalizer, annotate("type", "nlb")))),
	adopt("nlb-adopted-local", func(w *world) { w.inTreeNLB(service("", nil)) }, service("", all(withFinalizer, local, annotate("type", "nlb")))),
	adopt("nlb-adopted-internal", func(w *world) { w.inTreeNLB(service("", nil)) }, service("", all(withFinalizer, annotate("internal", "true"), annotate("type", "nlb")))),
	adopt("nlb-adopted-to-clb", func(w *world) { w.inTreeNLB(service("", nil)) }, service("", withFinalizer)),
	adopt("clb-adopted", func(w *world) { w.inTreeCLB(service("", nil)) }, service("", withFinalizer)),
	adopt("clb-adopted-to-nlb", func(w *world) { w.inTreeCLB(service("", nil)) }, service("", all(withFinalizer, annotate("type", "nlb")))),
}

func toPods(s *corev1.Service) { annotate("target-type", "ip")(s) }

func dualStack(families ...corev1.IPFamily) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.IPFamilies = families }
}

// byIPv6 has both families, and targets by IPv6.
func byIPv6(s *corev1.Service) { dualStack(corev1.IPv6Protocol, corev1.IPv4Protocol)(s) }

// tcpAndUDP has both at the port 80.
func tcpAndUDP(s *corev1.Service) {
	s.Spec.Ports[1].Port, s.Spec.Ports[1].NodePort, s.Spec.Ports[1].TargetPort = 80, s.Spec.Ports[0].NodePort, s.Spec.Ports[0].TargetPort
	s.Spec.Ports[1].Protocol = corev1.ProtocolUDP
}

// perform takes an operation, with something that goes wrong in between, until
// it is done. It returns the state after it, what is left after the Service is
// deleted, and how many calls the operation made.
func perform(t *testing.T, op operation, options awsfake.Options, wrong func(w *world)) (after, left string, calls int) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 4, options)
		empty := w.cloud.String()
		w.runPods()
		if op.prepare != nil {
			op.prepare(w)
			time.Sleep(5 * time.Minute)
		}
		if op.before != nil && !op.hasty {
			w.ensure(op.before)
			time.Sleep(5 * time.Minute) // AWS has done all that it does later
		}
		if op.meanwhile != nil {
			op.meanwhile(w)
		}
		w.cloud.ResetCalls()
		if wrong != nil {
			wrong(w)
		}
		first := op.hasty
		until(t, func() error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			w.kill = cancel
			var err error
			if first {
				_, _ = w.sync(ctx, op.before)
				first, err = false, errors.New("something else is wanted")
			} else {
				err = w.attempt(ctx, op)
			}
			if ctx.Err() != nil {
				w.cloud.Heal()
				w.restart()
			}
			return err
		})
		calls = len(w.cloud.Calls())
		w.cloud.Heal()
		time.Sleep(10 * time.Minute)
		after = w.cloud.String()
		if op.after != nil {
			w.delete(op.after)
		}
		if left = w.cloud.String(); left == empty {
			left = ""
		}
	})
	return after, left, calls
}

// runPods has pods behind the Service.
func (w *world) runPods() {
	w.setEndpoints(discoveryv1.AddressTypeIPv4, pod{"10.0.11.9", true, true}, pod{"10.0.12.9", true, true})
	w.setEndpoints(discoveryv1.AddressTypeIPv6, pod{"2001:db8:0:11::9", true, true})
}

// attempt is one attempt at an operation.
func (w *world) attempt(ctx context.Context, op operation) error {
	if op.after == nil {
		return w.remove(ctx, op.before)
	}
	_, err := w.sync(ctx, op.after)
	return err
}

// comparable is a state without the names of target groups when others have
// given them: one that has lost its load balancer is made anew under another.
func (op *operation) comparable(state string) []string {
	if op.prepare != nil {
		for line := range strings.Lines(state) {
			if words := strings.Fields(line); len(words) > 2 && words[0] == "target-group" {
				state = strings.ReplaceAll(state, words[1], words[2])
			}
		}
	}
	return slices.Sorted(strings.SplitSeq(state, "\n"))
}

// slow is an AWS that takes its time to show what was done.
var slow = awsfake.Options{PageSize: 5, Delays: awsfake.Delays{Visible: 4 * time.Second, Known: 3 * time.Second, Gone: 4 * time.Second}}

// errBroken is what a caller sees of a connection that breaks.
var errBroken = errors.New("connection reset by peer")

// faults are the ways in which one call goes wrong.
var faults = []struct {
	name string
	// inTime says that a cloud that is slow to show things changes nothing about
	// it: nothing was done.
	inTime bool
	of     func(w *world) awsfake.Fault
}{
	{"fails", false, func(*world) awsfake.Fault { return awsfake.Fault{Err: awsfake.ServerError(awsfake.Call{})} }},
	{"throttled", true, func(*world) awsfake.Fault { return awsfake.Fault{Times: 3} }},
	{"answer lost", false, func(*world) awsfake.Fault { return awsfake.Fault{Late: true, Err: errBroken} }},
	{"killed before", true, func(w *world) awsfake.Fault { return awsfake.Fault{Err: errBroken, Do: func() { w.kill() }} }},
	{"killed after", false, func(w *world) awsfake.Fault {
		return awsfake.Fault{Late: true, Err: errBroken, Do: func() { w.kill() }}
	}},
}

// Whatever happens to one call of an operation, the next attempts lead to where
// it leads when nothing happens, and deletion leaves nothing.
func TestConvergesWhateverCallGoesWrong(t *testing.T) {
	for _, cloud := range []struct {
		name    string
		options awsfake.Options
	}{{"", awsfake.Options{}}, {"-slow", slow}} {
		for _, op := range operations {
			t.Run(op.name+cloud.name, func(t *testing.T) {
				t.Parallel()
				want, left, calls := perform(t, op, cloud.options, nil)
				if left != "" {
					t.Fatalf("without faults, deletion leaves:\n%s", left)
				}
				if calls == 0 {
					t.Fatal("the operation makes no call")
				}
				for _, fault := range faults {
					if fault.inTime && cloud.name != "" {
						continue
					}
					for n := 1; n <= calls; n++ {
						name := fmt.Sprintf("call %d of %d %s", n, calls, fault.name)
						got, left, _ := perform(t, op, cloud.options, func(w *world) {
							f := fault.of(w)
							f.Nth = n
							w.cloud.Inject(f)
						})
						if diff := cmp.Diff(op.comparable(want), op.comparable(got)); diff != "" {
							t.Errorf("%s: -want +got\n%s", name, diff)
						}
						if left != "" {
							t.Errorf("%s: deletion leaves:\n%s", name, left)
						}
						if t.Failed() {
							return
						}
					}
				}
			})
		}
	}
}

// On whatever way a Service came to be as it is, and whatever went wrong on
// it, it has what it would have been given at first.
func TestEveryWayLeadsThere(t *testing.T) {
	var stations []*corev1.Service
	for _, op := range operations {
		if op.after != nil && op.prepare == nil && op.meanwhile == nil && !lingers(op.after) {
			stations = append(stations, op.after)
		}
	}
	stations = append(stations,
		service("heraldlb.io/nlb", all(annotate("ssl-cert", certificate+","+another), annotate("backend-protocol", "ssl"))),
		service("heraldlb.io/nlb", all(annotate("attributes", "deletion_protection.enabled=false,dns_record.client_routing_policy=availability_zone_affinity"), annotate("target-group-attributes", "preserve_client_ip.enabled=false"))),
		service("heraldlb.io/nlb", func(s *corev1.Service) {
			s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}
		}),
		service("heraldlb.io/nlb", func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }),
		service("heraldlb.io/nlb", annotate("security-group-prefix-lists", "pl-office")),
		service("heraldlb.io/clb", all(annotate("ssl-cert", another), annotate("backend-protocol", "https"))),
	)
	// Addresses stay when nobody asks for them any longer: these come last.
	through := len(stations)
	stations = append(stations,
		service("heraldlb.io/nlb", annotate("eip-allocations", "eipalloc-1,eipalloc-2")),
		service("heraldlb.io/nlb", all(annotate("scheme", "internal"), annotate("private-ipv4-addresses", "10.0.11.50,10.0.12.50"))),
	)
	direct := map[*corev1.Service]string{}
	for _, station := range stations {
		want, left, _ := perform(t, operation{after: station}, awsfake.Options{}, nil)
		if left != "" {
			t.Fatalf("deletion leaves:\n%s", left)
		}
		direct[station] = want
	}
	for seed := range uint64(400) {
		random := rand.New(rand.NewPCG(seed, 1))
		synctest.Test(t, func(t *testing.T) {
			options := awsfake.Options{}
			if seed%2 == 1 {
				options = slow
			}
			w := newWorld(t, 4, options)
			empty := w.cloud.String()
			w.runPods()
			var way []int
			var last *corev1.Service
			for length := 1 + random.IntN(5); length >= 0; length-- {
				i := random.IntN(through)
				if length == 0 {
					i = random.IntN(len(stations))
				}
				way, last = append(way, i), stations[i]
				fault := faults[random.IntN(len(faults))].of(w)
				fault.Nth = 1 + random.IntN(30)
				w.cloud.Inject(fault)
				ctx, cancel := context.WithCancel(t.Context())
				w.kill = cancel
				for range random.IntN(3) {
					_, _ = w.sync(ctx, last) // the next comes before this is there
				}
				if ctx.Err() != nil || random.IntN(4) == 0 {
					w.restart()
				}
				cancel()
				w.cloud.Heal()
				time.Sleep(time.Duration(random.IntN(120)) * time.Second)
			}
			if random.IntN(3) == 0 {
				w.delete(last)
				if left := w.cloud.String(); left != empty {
					t.Errorf("seed %d, way %v: deletion in between leaves\n%s", seed, way, left)
				}
				return
			}
			status := w.ensure(last)
			time.Sleep(10 * time.Minute)
			w.checkHostname(last, status)
			if diff := cmp.Diff(lasting(direct[last]), lasting(w.cloud.String())); diff != "" {
				t.Errorf("seed %d, way %v: -direct +got\n%s", seed, way, diff)
			}
			w.delete(last)
			if left := w.cloud.String(); left != empty {
				t.Errorf("seed %d, way %v: deletion leaves\n%s", seed, way, left)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// lingers says that a Service gets what stays when it asks for it no longer:
// subnets and addresses, and attributes after a restart.
func lingers(s *corev1.Service) bool {
	return slices.ContainsFunc([]string{"subnets", "eip-allocations", "private-ipv4-addresses", "attributes"}, func(name string) bool {
		return s.Annotations[settings.Prefix+name] != ""
	})
}

// lasting is a state without what stays and has no effect: details of what is
// off, AWS's own policy, and attributes that nobody asks for any longer, and
// that a provider that was restarted since does not know to be its own.
func lasting(state string) []string {
	effectless := []string{
		"access_logs.s3.bucket", "access-log-", "draining-timeout", "dns_record.client_routing_policy", "preserve_client_ip.enabled",
		"ELBSecurityPolicy-2016-08 SSLNegotiationPolicyType",
	}
	return slices.DeleteFunc(strings.Split(state, "\n"), func(line string) bool {
		kind, _, _ := strings.Cut(line, " ")
		return (kind == "attribute" || kind == "policy") && slices.ContainsFunc(effectless, func(text string) bool { return strings.Contains(line, text) })
	})
}

// checkHostname checks that a status has the name of the load balancer of the
// type that the Service asks for.
func (w *world) checkHostname(s *corev1.Service, status *corev1.LoadBalancerStatus) {
	w.t.Helper()
	var name string
	if w.provider.typeOf(s) == NLB {
		out := must[*elbv2.DescribeLoadBalancersOutput](w.t)(w.cloud.ELBV2().DescribeLoadBalancers(w.t.Context(), &elbv2.DescribeLoadBalancersInput{}))
		name = *out.LoadBalancers[0].DNSName
	} else {
		out := must[*elb.DescribeLoadBalancersOutput](w.t)(w.cloud.ELB().DescribeLoadBalancers(w.t.Context(), &elb.DescribeLoadBalancersInput{}))
		name = *out.LoadBalancerDescriptions[0].DNSName
	}
	if len(status.Ingress) != 1 || status.Ingress[0].Hostname != name {
		w.t.Errorf("%v does not say %s", status, name)
	}
}
