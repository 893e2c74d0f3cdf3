package awsfake

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	elb "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancing/types"
)

// classicListener forwards a port of a Classic Load Balancer to a port of the
// instances.
type classicListener struct {
	port, backend           int32
	protocol, instanceProto string
	certificate             string
	policies                []string
}

func secureProtocol(protocol string) bool { return protocol == "HTTPS" || protocol == "SSL" }

func httpProtocol(protocol string) bool { return protocol == "HTTP" || protocol == "HTTPS" }

// String is how a listener is compared and printed.
func (l classicListener) String() string {
	text := fmt.Sprintf("%s:%d -> %s:%d", l.protocol, l.port, l.instanceProto, l.backend)
	if l.certificate != "" {
		text += " cert=" + l.certificate
	}
	return text
}

func (l classicListener) out() *types.Listener {
	return &types.Listener{
		LoadBalancerPort: l.port, InstancePort: aws.Int32(l.backend), Protocol: aws.String(l.protocol),
		InstanceProtocol: aws.String(l.instanceProto), SSLCertificateId: optional(l.certificate),
	}
}

// listen adds listeners to a load balancer, all or none. One that is there
// with the same settings stays as it is.
func (c *Cloud) listen(lb *classic, list []types.Listener) error {
	has := slices.Clone(lb.listeners)
	policies := slices.Clone(lb.policies)
	for _, in := range list {
		l, err := c.newClassicListener(in)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(has, func(o classicListener) bool { return o.port == l.port }); i >= 0 {
			if has[i].String() != l.String() {
				return &types.DuplicateListenerException{
					Message: text("A listener already exists for %s with LoadBalancerPort %d, but with different settings", lb.name, l.port),
				}
			}
			continue
		}
		for _, o := range has {
			if o.backend == l.backend && secureProtocol(o.instanceProto) != secureProtocol(l.instanceProto) {
				return misconfiguredClassic("Instance port %d must have instance protocols of one kind, secure or not", l.backend)
			}
		}
		// AWS gives a secure listener its default policy, and the policy to the
		// load balancer.
		if secureProtocol(l.protocol) {
			l.policies = []string{defaultPolicy}
			if !slices.ContainsFunc(policies, func(p policy) bool { return p.name == defaultPolicy }) {
				policies = append(policies, policy{name: defaultPolicy, kind: sslPolicyType, attributes: []pair{{referenceAttribute, defaultPolicy}}})
			}
		}
		has = append(has, l)
	}
	if len(has) > c.limits.ListenersPerClassic {
		return refuse("TooManyListeners", "The quota of %d listeners for the load balancer has been reached", c.limits.ListenersPerClassic)
	}
	slices.SortFunc(has, func(a, b classicListener) int { return int(a.port) - int(b.port) })
	lb.listeners, lb.policies = has, policies
	return nil
}

// newClassicListener is a listener as it is asked for, or why there cannot be
// such a one.
func (c *Cloud) newClassicListener(in types.Listener) (classicListener, error) {
	l := classicListener{
		port: in.LoadBalancerPort, backend: aws.ToInt32(in.InstancePort), protocol: strings.ToUpper(aws.ToString(in.Protocol)),
		instanceProto: strings.ToUpper(aws.ToString(in.InstanceProtocol)), certificate: aws.ToString(in.SSLCertificateId),
	}
	if l.instanceProto == "" {
		l.instanceProto = "TCP"
		if httpProtocol(l.protocol) {
			l.instanceProto = "HTTP"
		}
	}
	known := []string{"HTTP", "HTTPS", "TCP", "SSL"}
	switch {
	case !slices.Contains(known, l.protocol) || !slices.Contains(known, l.instanceProto):
		return l, &types.UnsupportedProtocolException{
			Message: text("The protocols of a listener must be of %s; got %s and %s", known, l.protocol, l.instanceProto),
		}
	case l.port < 1 || l.port > 65535 || l.backend < 1 || l.backend > 65535:
		return l, invalid("The ports of a listener must be between 1 and 65535; got %d and %d", l.port, l.backend)
	case httpProtocol(l.protocol) != httpProtocol(l.instanceProto):
		return l, misconfiguredClassic("The listener protocol %s and the instance protocol %s are of different layers",
			l.protocol, l.instanceProto)
	case secureProtocol(l.protocol) && l.certificate == "":
		return l, invalid("Secure Listeners need to specify a SSLCertificateId")
	case !secureProtocol(l.protocol) && l.certificate != "":
		return l, invalid("An SSLCertificateId can be specified for secure listeners only")
	case l.certificate != "" && !c.certificates[l.certificate]:
		return l, &types.CertificateNotFoundException{Message: text("Server Certificate not found for the key: %s", l.certificate)}
	}
	return l, nil
}

func (c *Cloud) createClassicListeners(in *elb.CreateLoadBalancerListenersInput) (*elb.CreateLoadBalancerListenersOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	if err := c.listen(lb, in.Listeners); err != nil {
		return nil, err
	}
	return &elb.CreateLoadBalancerListenersOutput{}, nil
}

func (c *Cloud) deleteClassicListeners(in *elb.DeleteLoadBalancerListenersInput) (*elb.DeleteLoadBalancerListenersOutput, error) {
	lb, err := c.classicBy(in.LoadBalancerName)
	if err != nil {
		return nil, err
	}
	lb.listeners = slices.DeleteFunc(slices.Clone(lb.listeners), func(l classicListener) bool { return slices.Contains(in.LoadBalancerPorts, l.port) })
	// The policies of an instance port go with its last listener.
	used := lb.usedPorts()
	maps.DeleteFunc(lb.backends, func(port int32, _ []string) bool { return !slices.Contains(used, port) })
	return &elb.DeleteLoadBalancerListenersOutput{}, nil
}

// usedPorts are the instance ports of a load balancer's listeners.
func (lb *classic) usedPorts() []int32 {
	var ports []int32
	for _, l := range lb.listeners {
		ports = append(ports, l.backend)
	}
	return slices.Compact(slices.Sorted(slices.Values(ports)))
}

// backendPorts are the instance ports that have policies.
func (lb *classic) backendPorts() []int32 { return slices.Sorted(maps.Keys(lb.backends)) }

func (lb *classic) listener(port int32) *classicListener {
	i := slices.IndexFunc(lb.listeners, func(l classicListener) bool { return l.port == port })
	if i < 0 {
		return nil
	}
	return &lb.listeners[i]
}

// classicListenerBy finds a listener that changes.
func (c *Cloud) classicListenerBy(name *string, port int32) (*classic, *classicListener, error) {
	lb, err := c.classicBy(name)
	if err != nil {
		return nil, nil, err
	}
	l := lb.listener(port)
	if l == nil {
		return nil, nil, &types.ListenerNotFoundException{Message: text("The load balancer does not have a listener on port %d", port)}
	}
	return lb, l, nil
}

func (c *Cloud) setClassicCertificate(in *elb.SetLoadBalancerListenerSSLCertificateInput) (*elb.SetLoadBalancerListenerSSLCertificateOutput, error) {
	_, l, err := c.classicListenerBy(in.LoadBalancerName, in.LoadBalancerPort)
	if err != nil {
		return nil, err
	}
	if !secureProtocol(l.protocol) {
		return nil, misconfiguredClassic("The listener on port %d is not a secure one", l.port)
	}
	arn := aws.ToString(in.SSLCertificateId)
	if !c.certificates[arn] {
		return nil, &types.CertificateNotFoundException{Message: text("Server Certificate not found for the key: %s", arn)}
	}
	l.certificate = arn
	return &elb.SetLoadBalancerListenerSSLCertificateOutput{}, nil
}
