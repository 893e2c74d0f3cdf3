package e2e

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	elbv2types "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/test/e2e/moto"
)

// Policies of AWS: that of a listener for which none is asked for, one for
// Network, one for Classic Load Balancers.
const (
	policyByDefault = "ELBSecurityPolicy-2016-08"
	networkPolicy   = "ELBSecurityPolicy-TLS13-1-2-2021-06"
	classicPolicy   = "ELBSecurityPolicy-TLS-1-2-2017-01"
)

// certificates imports so many, each for a name of its own.
func (w *world) certificates(a *amazon, count int) []string {
	w.Helper()
	arns := make([]string, count)
	for i := range arns {
		arn, err := a.ImportCertificate(w.ctx, fmt.Sprintf("www%d.example.com", i))
		w.must(err)
		arns[i] = arn
	}
	return arns
}

// changes are the calls that changed something, in order and without their API.
func changes(calls []moto.Call) []string {
	var actions []string
	for _, call := range calls {
		if !strings.HasPrefix(call.Action, "Describe") {
			actions = append(actions, call.Action)
		}
	}
	return actions
}

// changed checks that something was done by these calls and no others.
func (w *world) changed(a *amazon, what string, want ...string) []moto.Call {
	w.Helper()
	calls := w.quiet(a)
	if got := changes(calls); !slices.Equal(got, want) {
		w.Errorf("%s calls %v, want %v", what, got, want)
	}
	return calls
}

// secureFacts are those of the listeners of a Network Load Balancer.
func (w *world) secureFacts(a *amazon, name string) (facts, error) {
	found, err := a.ELBV2.DescribeLoadBalancers(w.ctx, &elbv2.DescribeLoadBalancersInput{Names: []string{name}})
	if err != nil {
		return nil, err
	}
	arn := found.LoadBalancers[0].LoadBalancerArn
	// moto does not say of a target group that a modified listener sends to it.
	groups, err := a.ELBV2.DescribeTargetGroups(w.ctx, &elbv2.DescribeTargetGroupsInput{})
	if err != nil {
		return nil, err
	}
	protocols := map[string]string{}
	for _, group := range groups.TargetGroups {
		protocols[aws.ToString(group.TargetGroupArn)] = string(group.Protocol)
	}
	listeners, err := a.ELBV2.DescribeListeners(w.ctx, &elbv2.DescribeListenersInput{LoadBalancerArn: arn})
	if err != nil {
		return nil, err
	}
	got := facts{"arn": aws.ToString(arn)}
	for i := range listeners.Listeners {
		l := &listeners.Listeners[i]
		port, protocol := fmt.Sprint(aws.ToInt32(l.Port)), moto.ProtocolOf(l)
		group := aws.ToString(l.DefaultActions[0].TargetGroupArn)
		got[port] = fmt.Sprintf("%s to %s", protocol, protocols[group])
		got[port+" arn"], got[port+" group"] = aws.ToString(l.ListenerArn), group
		if protocol != elbv2types.ProtocolEnumTls {
			continue // moto does not take certificate and policy off
		}
		certificates, err := a.ELBV2.DescribeListenerCertificates(w.ctx, &elbv2.DescribeListenerCertificatesInput{ListenerArn: l.ListenerArn})
		if err != nil {
			return nil, err
		}
		for i, certificate := range certificates.Certificates {
			if aws.ToBool(certificate.IsDefault) != (i == 0) {
				return nil, fmt.Errorf("port %s: certificate %d is the default, or the first is not", port, i)
			}
			got[port+" certificates"] += " " + aws.ToString(certificate.CertificateArn)
		}
		// AWS tells the default one with the listener, moto all of them.
		if len(l.Certificates) == 0 || !strings.HasPrefix(got[port+" certificates"], " "+aws.ToString(l.Certificates[0].CertificateArn)) {
			return nil, fmt.Errorf("port %s: the listener has %v, of %s", port, l.Certificates, got[port+" certificates"])
		}
		got[port+" policy"], got[port+" ALPN"] = aws.ToString(l.SslPolicy), strings.Join(l.AlpnPolicy, " ")
	}
	return got, nil
}

// secureNetwork puts TLS on ports of a Network Load Balancer, changes each part
// of it in place, and takes it off again.
func secureNetwork(w *world, a *amazon) {
	arns := w.certificates(a, 3)
	one, two, three := arns[0], arns[1], arns[2]
	w.service("web", all(class("heraldlb.io/nlb"), twoPorts, annotated(
		awsAnnotation+"ssl-cert", one+", "+two, awsAnnotation+"ssl-ports", "https", awsAnnotation+"ssl-negotiation-policy", networkPolicy,
		awsAnnotation+"backend-protocol", "ssl", awsAnnotation+"alpn-policy", "HTTP2Preferred",
	)))
	name := w.made("web")
	read := func() (facts, error) { return w.secureFacts(a, name) }
	w.shows("TLS at one port", facts{
		"443": "TLS to TLS", "443 certificates": " " + one + " " + two, "443 policy": networkPolicy, "443 ALPN": "HTTP2Preferred", "80": "TCP to TCP",
	}, read)
	made, err := read()
	w.must(err)
	w.sendsTo(a, "web", name)
	w.quiet(a)

	// What is there is known again, and needs nothing.
	w.must(box.Stop(w.ctx, "controller"))
	w.resume()
	w.eventually("the controller has looked at it", func() error {
		if !slices.ContainsFunc(a.Proxy.Calls(), func(call moto.Call) bool { return call.Action == "DescribeTargetHealth" }) {
			return errors.New("not yet")
		}
		return nil
	})
	w.changed(a, "a restart")

	w.annotate("web", awsAnnotation+"ssl-cert", three+","+two)
	w.shows("another certificate, by the same listener", facts{
		"443": "TLS to TLS", "443 certificates": " " + three + " " + two, "443 arn": made["443 arn"], "443 group": made["443 group"], "443 policy": networkPolicy,
	}, read)
	for _, call := range w.changed(a, "another certificate", "ModifyListener") {
		if call.Action == "ModifyListener" && (call.Form.Has("Protocol") || call.Form.Get("AlpnPolicy.member.1") != "HTTP2Preferred") {
			w.Errorf("ModifyListener is sent %v: want ALPN as it was, and no protocol", call.Form)
		}
	}

	w.annotate("web", awsAnnotation+"ssl-cert", three+","+one)
	w.shows("another certificate for SNI", facts{"443 certificates": " " + three + " " + one, "443 arn": made["443 arn"]}, read)
	w.changed(a, "another certificate for SNI", "AddListenerCertificates", "RemoveListenerCertificates")

	w.annotate("web", awsAnnotation+"ssl-negotiation-policy", "")
	w.shows("the policy of AWS", facts{"443 policy": policyByDefault, "443 certificates": " " + three + " " + one, "443 arn": made["443 arn"]}, read)
	w.changed(a, "another policy", "ModifyListener")

	w.annotate("web", awsAnnotation+"ssl-ports", "https,80")
	w.shows("TLS at both ports", facts{
		"80": "TLS to TLS", "80 certificates": " " + three + " " + one, "80 policy": policyByDefault, "80 arn": made["80 arn"],
		"443": "TLS to TLS", "443 certificates": " " + three + " " + one, "443 arn": made["443 arn"], "443 group": made["443 group"],
	}, read)
	for _, call := range w.changed(a, "TLS at a port that had none",
		"CreateTargetGroup", "RegisterTargets", "ModifyListener", "AddListenerCertificates", "DeleteTargetGroup") {
		// moto forgets the ALPN of a listener that is modified.
		if call.Action == "ModifyListener" && (call.Form.Get("Protocol") != "TLS" || call.Form.Get("AlpnPolicy.member.1") != "HTTP2Preferred") {
			w.Errorf("ModifyListener is sent %v: want TLS with ALPN", call.Form)
		}
	}
	w.sendsTo(a, "web", name)

	w.annotate("web", awsAnnotation+"backend-protocol", "")
	w.shows("TLS that ends at the load balancer", facts{"80": "TLS to TCP", "443": "TLS to TCP", "80 arn": made["80 arn"], "443 arn": made["443 arn"]}, read)
	w.sendsTo(a, "web", name)

	w.annotate("web", awsAnnotation+"ssl-cert", "")
	w.shows("no TLS any more", facts{"arn": made["arn"], "80": "TCP to TCP", "443": "TCP to TCP", "80 arn": made["80 arn"], "443 arn": made["443 arn"]}, read)
	w.sendsTo(a, "web", name)
}

// secureClassicFacts are those of the listeners of a Classic Load Balancer. The
// protocol towards the nodes is left out: moto always says the other one.
func (w *world) secureClassicFacts(a *amazon, name string) (facts, error) {
	found, err := a.ELB.DescribeLoadBalancers(w.ctx, &elb.DescribeLoadBalancersInput{LoadBalancerNames: []string{name}})
	if err != nil {
		return nil, err
	}
	lb := found.LoadBalancerDescriptions[0]
	got := facts{"made": lb.CreatedTime.String(), "listeners": fmt.Sprint(len(lb.ListenerDescriptions))}
	for _, d := range lb.ListenerDescriptions {
		port := fmt.Sprint(d.Listener.LoadBalancerPort)
		got[port] = fmt.Sprintf("%s to %d", aws.ToString(d.Listener.Protocol), aws.ToInt32(d.Listener.InstancePort))
		got[port+" certificate"] = aws.ToString(d.Listener.SSLCertificateId)
		got[port+" policies"] = strings.Join(d.PolicyNames, " ")
	}
	policies, err := a.ELB.DescribeLoadBalancerPolicies(w.ctx, &elb.DescribeLoadBalancerPoliciesInput{LoadBalancerName: aws.String(name)})
	if err != nil {
		return nil, err
	}
	for _, policy := range policies.PolicyDescriptions {
		text := aws.ToString(policy.PolicyTypeName)
		for _, attribute := range policy.PolicyAttributeDescriptions {
			text += fmt.Sprintf(" %s=%s", aws.ToString(attribute.AttributeName), aws.ToString(attribute.AttributeValue))
		}
		got["policy "+aws.ToString(policy.PolicyName)] = text
	}
	return got, nil
}

// wiring is what a call that makes listeners of a Classic Load Balancer says of
// them, as in "443 HTTPS to HTTP", by port.
func wiring(call moto.Call) []string {
	var all []string
	for i := 1; ; i++ {
		of := func(field string) string { return call.Form.Get(fmt.Sprintf("Listeners.member.%d.%s", i, field)) }
		if of("LoadBalancerPort") == "" {
			slices.Sort(all)
			return all
		}
		all = append(all, fmt.Sprintf("%s %s to %s", of("LoadBalancerPort"), of("Protocol"), of("InstanceProtocol")))
	}
}

// secureClassic puts TLS on ports of Classic Load Balancers, one for each
// protocol towards the nodes.
func secureClassic(w *world, a *amazon) {
	arns := w.certificates(a, 2)
	for _, c := range []struct{ backend, plain, secure string }{
		{"http", "HTTP to HTTP", "HTTPS to HTTP"},
		{"https", "TCP to TCP", "HTTPS to HTTPS"},
		{"ssl", "TCP to TCP", "SSL to SSL"},
		{"tcp", "TCP to TCP", "SSL to TCP"},
	} {
		w.service(c.backend, all(class("heraldlb.io/clb"), twoPorts, annotated(
			awsAnnotation+"ssl-cert", arns[0], awsAnnotation+"ssl-ports", "443", awsAnnotation+"ssl-negotiation-policy", classicPolicy,
			awsAnnotation+"backend-protocol", c.backend,
		)))
		name := w.made(c.backend)
		s := w.get(c.backend)
		made := w.secureClassicMade(a, name, c.plain, c.secure, s, arns[0])

		w.annotate(c.backend, awsAnnotation+"ssl-cert", arns[1])
		read := func() (facts, error) { return w.secureClassicFacts(a, name) }
		w.shows("another certificate, by the same listener", facts{"443 certificate": arns[1], "443 policies": made["443 policies"], "made": made["made"]}, read)
		w.changed(a, "another certificate", "SetLoadBalancerListenerSSLCertificate")
	}
	secureClassicChanges(w, a, arns[1])
}

// secureClassicMade checks a load balancer that was just made.
func (w *world) secureClassicMade(a *amazon, name, plain, secure string, s *corev1.Service, certificate string) facts {
	w.Helper()
	protocol := func(both string) string { return strings.Fields(both)[0] }
	policy := "k8s-SSLNegotiationPolicy-" + classicPolicy
	read := func() (facts, error) { return w.secureClassicFacts(a, name) }
	w.shows("TLS at one port", facts{
		"listeners":        "2",
		"80":               fmt.Sprintf("%s to %d", protocol(plain), s.Spec.Ports[0].NodePort),
		"80 certificate":   "",
		"80 policies":      "",
		"443":              fmt.Sprintf("%s to %d", protocol(secure), s.Spec.Ports[1].NodePort),
		"443 certificate":  certificate,
		"443 policies":     policy,
		"policy " + policy: "SSLNegotiationPolicyType Reference-Security-Policy=" + classicPolicy,
	}, read)
	calls := w.quiet(a)
	i := slices.IndexFunc(calls, func(call moto.Call) bool { return call.String() == "ELB CreateLoadBalancer" })
	want := []string{"443 " + secure, "80 " + plain}
	if i < 0 || !slices.Equal(wiring(calls[i]), want) {
		w.Errorf("%s is not made with %q: %s", name, want, moto.Tally(calls))
	}
	made, err := read()
	w.must(err)
	return made
}

// secureClassicChanges changes the Service of TCP behind TLS.
func secureClassicChanges(w *world, a *amazon, certificate string) {
	name := w.made("tcp")
	s := w.get("tcp")
	read := func() (facts, error) { return w.secureClassicFacts(a, name) }
	made, err := read()
	w.must(err)

	w.annotate("tcp", awsAnnotation+"ssl-ports", "http,https")
	w.shows("TLS at both ports", facts{
		"made": made["made"], "listeners": "2", "80": fmt.Sprintf("SSL to %d", s.Spec.Ports[0].NodePort), "80 certificate": certificate,
		"80 policies": made["443 policies"], "443": made["443"], "443 certificate": certificate, "443 policies": made["443 policies"],
	}, read)
	calls := w.changed(a, "TLS at a port that had none", "DeleteLoadBalancerListeners", "CreateLoadBalancerListeners", "SetLoadBalancerPoliciesOfListener")
	if i := slices.IndexFunc(calls, func(call moto.Call) bool { return call.Action == "CreateLoadBalancerListeners" }); i < 0 || wiring(calls[i])[0] != "80 SSL to TCP" {
		w.Errorf("port 80 is not made anew as SSL to TCP")
	}

	w.annotate("tcp", awsAnnotation+"ssl-negotiation-policy", "")
	w.shows("the policy of AWS", facts{"80 policies": policyByDefault, "443 policies": policyByDefault, "policy " + made["443 policies"]: ""}, read)
	w.changed(a, "no policy any more", "SetLoadBalancerPoliciesOfListener", "SetLoadBalancerPoliciesOfListener", "DeleteLoadBalancerPolicy")

	w.annotate("tcp", awsAnnotation+"ssl-cert", "")
	w.shows("no TLS any more", facts{
		"made": made["made"], "listeners": "2", "80": fmt.Sprintf("TCP to %d", s.Spec.Ports[0].NodePort), "80 certificate": "",
		"443": fmt.Sprintf("TCP to %d", s.Spec.Ports[1].NodePort), "443 certificate": "",
	}, read)
	w.changed(a, "no TLS any more", "DeleteLoadBalancerListeners", "CreateLoadBalancerListeners")
}
