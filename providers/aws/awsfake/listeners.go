package awsfake

import (
	"slices"

	"github.com/aws/aws-sdk-go-v2/aws"
	elbv2 "github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2"
	"github.com/aws/aws-sdk-go-v2/service/elasticloadbalancingv2/types"
)

// listener forwards a port of a Network Load Balancer to a target group.
type listener struct {
	arn         string
	lb          *network
	port        int32
	protocol    types.ProtocolEnum
	group       *targetGroup
	certificate string
	// further are certificates that are chosen by SNI.
	further    []string
	policy     string
	alpn       string
	attributes attributes
	tags       tags
}

// defaultPolicy is what a secure listener has if none is named.
const defaultPolicy = "ELBSecurityPolicy-2016-08"

// networkPolicies are the security policies of TLS listeners.
var networkPolicies = []string{
	defaultPolicy, "ELBSecurityPolicy-2015-05", "ELBSecurityPolicy-TLS-1-0-2015-04", "ELBSecurityPolicy-TLS-1-1-2017-01",
	"ELBSecurityPolicy-TLS-1-2-2017-01", "ELBSecurityPolicy-TLS-1-2-Ext-2018-06", "ELBSecurityPolicy-FS-2018-06",
	"ELBSecurityPolicy-FS-1-1-2019-08", "ELBSecurityPolicy-FS-1-2-2019-08", "ELBSecurityPolicy-FS-1-2-Res-2019-08",
	"ELBSecurityPolicy-FS-1-2-Res-2020-10", "ELBSecurityPolicy-TLS13-1-0-2021-06", "ELBSecurityPolicy-TLS13-1-1-2021-06",
	"ELBSecurityPolicy-TLS13-1-2-2021-06", "ELBSecurityPolicy-TLS13-1-2-Res-2021-06", "ELBSecurityPolicy-TLS13-1-2-Ext1-2021-06",
	"ELBSecurityPolicy-TLS13-1-2-Ext2-2021-06", "ELBSecurityPolicy-TLS13-1-3-2021-06", "ELBSecurityPolicy-TLS13-1-0-FIPS-2023-04",
	"ELBSecurityPolicy-TLS13-1-1-FIPS-2023-04", "ELBSecurityPolicy-TLS13-1-2-FIPS-2023-04", "ELBSecurityPolicy-TLS13-1-2-Res-FIPS-2023-04",
	"ELBSecurityPolicy-TLS13-1-2-Ext0-FIPS-2023-04", "ELBSecurityPolicy-TLS13-1-2-Ext1-FIPS-2023-04",
	"ELBSecurityPolicy-TLS13-1-2-Ext2-FIPS-2023-04", "ELBSecurityPolicy-TLS13-1-3-FIPS-2023-04",
	"ELBSecurityPolicy-TLS13-1-2-PQ-2025-09", "ELBSecurityPolicy-TLS13-1-2-Res-PQ-2025-09", "ELBSecurityPolicy-TLS13-1-3-PQ-2025-09",
}

var alpnPolicies = []string{"HTTP1Only", "HTTP2Only", "HTTP2Optional", "HTTP2Preferred", "None"}

// forwards are the target group protocols that a listener protocol may have.
var forwards = map[types.ProtocolEnum][]types.ProtocolEnum{
	types.ProtocolEnumTcp:    {types.ProtocolEnumTcp, types.ProtocolEnumTcpUdp},
	types.ProtocolEnumTls:    {types.ProtocolEnumTcp, types.ProtocolEnumTls},
	types.ProtocolEnumUdp:    {types.ProtocolEnumUdp, types.ProtocolEnumTcpUdp},
	types.ProtocolEnumTcpUdp: {types.ProtocolEnumTcpUdp},
}

func (c *Cloud) createListener(in *elbv2.CreateListenerInput) (*elbv2.CreateListenerOutput, error) {
	lb, err := c.networkBy(in.LoadBalancerArn)
	if err != nil {
		return nil, err
	}
	l := &listener{lb: lb, attributes: listenerAttributes(in.Protocol)}
	wish := listenerWish{
		port: in.Port, protocol: in.Protocol, actions: in.DefaultActions, certificates: in.Certificates, policy: in.SslPolicy, alpn: in.AlpnPolicy,
	}
	if err := c.wish(l, wish); err != nil {
		return nil, err
	}
	if l.tags, err = c.tag(nil, networkPairs(in.Tags), networkTagErrors); err != nil {
		return nil, err
	}
	others := c.listenersOf(lb)
	if i := slices.IndexFunc(others, func(o *listener) bool { return o.port == l.port }); i >= 0 {
		// One port is one listener, also for TCP and UDP.
		if old := others[i]; !sameListener(old, l) {
			return nil, &types.DuplicateListenerException{
				Message: text("A listener already exists on this port for this load balancer '%s'", lb.arn),
			}
		}
		return &elbv2.CreateListenerOutput{Listeners: []types.Listener{listenerOut(others[i])}}, nil
	}
	if len(others) >= c.limits.ListenersPerNetwork {
		return nil, &types.TooManyListenersException{
			Message: text("The quota of %d listeners for the load balancer has been reached", c.limits.ListenersPerNetwork),
		}
	}
	if err := c.use(l); err != nil {
		return nil, err
	}
	l.arn = c.arn("listener/net/" + lb.name)
	c.listeners.add(l.arn, l, c.next(), c.now())
	return &elbv2.CreateListenerOutput{Listeners: []types.Listener{listenerOut(l)}}, nil
}

func sameListener(a, b *listener) bool {
	return a.port == b.port && a.protocol == b.protocol && a.group == b.group && a.certificate == b.certificate &&
		a.policy == b.policy && a.alpn == b.alpn && slices.Equal(a.tags.sorted(), b.tags.sorted())
}

// listenerWish is what a caller says that a listener should be.
type listenerWish struct {
	port         *int32
	protocol     types.ProtocolEnum
	actions      []types.Action
	certificates []types.Certificate
	policy       *string
	alpn         []string
}

// wish makes a listener as it is asked for, or says why it cannot be.
func (c *Cloud) wish(l *listener, w listenerWish) error {
	set(&l.port, w.port)
	secureBefore := l.protocol == types.ProtocolEnumTls
	l.protocol = or(w.protocol, l.protocol)
	if l.port < 1 || l.port > 65535 {
		return invalid("Port '%d' must be between 1 and 65535", l.port)
	}
	if !slices.Contains(networkProtocols, l.protocol) {
		return &types.UnsupportedProtocolException{
			Message: text("Listener protocol '%s' is not supported by load balancers of type 'network'", l.protocol),
		}
	}
	if len(w.actions) > 0 || l.group == nil {
		group, err := c.forwarded(w.actions)
		if err != nil {
			return err
		}
		l.group = group
	}
	if err := checkUDP(l.lb, l); err != nil {
		return err
	}
	if secureBefore && l.protocol != types.ProtocolEnumTls {
		l.certificate, l.further, l.policy, l.alpn = "", nil, "", ""
	}
	if err := c.secure(l, w); err != nil {
		return err
	}
	return c.checkForward(l)
}

// forwarded is the target group of a listener's only action.
func (c *Cloud) forwarded(actions []types.Action) (*targetGroup, error) {
	if len(actions) != 1 {
		return nil, &types.TooManyActionsException{Message: text("Exactly one default action must be specified")}
	}
	a := actions[0]
	if a.Type != types.ActionTypeEnumForward {
		return nil, &types.InvalidLoadBalancerActionException{
			Message: text("The action type '%s' is not valid with network load balancers", a.Type),
		}
	}
	arn := a.TargetGroupArn
	if f := a.ForwardConfig; f != nil {
		if len(f.TargetGroups) != 1 {
			return nil, &types.InvalidLoadBalancerActionException{Message: text("awsfake forwards to one target group only")}
		}
		if arn != nil && *arn != aws.ToString(f.TargetGroups[0].TargetGroupArn) {
			return nil, invalid("The target group ARN and the forward configuration contradict each other")
		}
		arn = f.TargetGroups[0].TargetGroupArn
	}
	if arn == nil {
		return nil, invalid("A target group ARN must be specified")
	}
	return c.targetGroupBy(arn)
}

// checkForward says whether a listener may forward to its target group.
func (c *Cloud) checkForward(l *listener) error {
	g := l.group
	switch {
	case g.vpc != l.lb.vpc:
		return misconfigured("The target group '%s' is not in the VPC of the load balancer", g.name)
	case !slices.Contains(forwards[l.protocol], g.protocol):
		return &types.IncompatibleProtocolsException{
			Message: text("The protocol '%s' of target group '%s' is not compatible with the listener protocol '%s'", g.protocol, g.name, l.protocol),
		}
	case g.ipType == types.TargetGroupIpAddressTypeEnumIpv6 && l.lb.ipType != types.IpAddressTypeDualstack:
		return misconfigured("Target group '%s' has the IP address type ipv6, which needs a dualstack load balancer", g.name)
	case l.protocol == types.ProtocolEnumTls && g.attributes.get("stickiness.enabled") == "true":
		return misconfigured("Stickiness is not supported with TLS")
	}
	if other := c.networkOf(g); other != nil && other != l.lb {
		return &types.TargetGroupAssociationLimitException{
			Message: text("The following target groups cannot be associated with more than one load balancer: %s", g.arn),
		}
	}
	return nil
}

// secure is the part of a wish that is for TLS only.
func (c *Cloud) secure(l *listener, w listenerWish) error {
	if l.protocol != types.ProtocolEnumTls {
		if len(w.certificates) > 0 || w.policy != nil || len(w.alpn) > 0 {
			return invalid("Certificates, security policies and ALPN policies cannot be specified for listeners with the protocol '%s'",
				l.protocol)
		}
		return nil
	}
	if len(w.certificates) > 1 {
		return &types.TooManyCertificatesException{Message: text("Exactly one default certificate can be specified")}
	}
	if len(w.certificates) == 1 {
		arn, err := c.certificate(w.certificates[0])
		if err != nil {
			return err
		}
		l.certificate = arn
	}
	if l.certificate == "" {
		return invalid("A certificate must be specified for TLS listeners")
	}
	l.policy = or(l.policy, defaultPolicy)
	set(&l.policy, w.policy)
	if !slices.Contains(networkPolicies, l.policy) {
		return &types.SSLPolicyNotFoundException{Message: text("SSL policy '%s' not found", l.policy)}
	}
	if len(w.alpn) > 1 {
		return invalid("Only one ALPN policy can be specified")
	}
	if len(w.alpn) == 1 {
		l.alpn = w.alpn[0]
	}
	if l.alpn != "" && !slices.Contains(alpnPolicies, l.alpn) {
		return &types.ALPNPolicyNotSupportedException{Message: text("ALPN policy '%s' is not supported", l.alpn)}
	}
	return nil
}

// certificate is the ARN of a certificate that exists.
func (c *Cloud) certificate(in types.Certificate) (string, error) {
	arn := aws.ToString(in.CertificateArn)
	if in.IsDefault != nil {
		return "", invalid("IsDefault cannot be specified")
	}
	if !c.certificates[arn] {
		return "", &types.CertificateNotFoundException{Message: text("Certificate '%s' not found", arn)}
	}
	return arn, nil
}

func (c *Cloud) listenerBy(arn *string) (*listener, error) {
	if err := checkARN(aws.ToString(arn), "listener/", "listener"); err != nil {
		return nil, err
	}
	l, ok := c.listeners.get(aws.ToString(arn))
	if !ok {
		return nil, &types.ListenerNotFoundException{Message: text("One or more listeners not found: %s", aws.ToString(arn))}
	}
	return l, nil
}

func (c *Cloud) listenersOf(lb *network) []*listener {
	var found []*listener
	for _, l := range c.listeners.all() {
		if l.lb == lb {
			found = append(found, l)
		}
	}
	return found
}

func (c *Cloud) deleteListener(in *elbv2.DeleteListenerInput) (*elbv2.DeleteListenerOutput, error) {
	l, err := c.listenerBy(in.ListenerArn)
	if err != nil {
		return nil, err
	}
	c.listeners.remove(l.arn, c.now())
	c.orphan(l.group)
	return &elbv2.DeleteListenerOutput{}, nil
}

func (c *Cloud) modifyListener(in *elbv2.ModifyListenerInput) (*elbv2.ModifyListenerOutput, error) {
	l, err := c.listenerBy(in.ListenerArn)
	if err != nil {
		return nil, err
	}
	changed := *l
	wish := listenerWish{
		port: in.Port, protocol: in.Protocol, actions: in.DefaultActions, certificates: in.Certificates, policy: in.SslPolicy, alpn: in.AlpnPolicy,
	}
	if err := c.wish(&changed, wish); err != nil {
		return nil, err
	}
	for _, o := range c.listenersOf(l.lb) {
		if o != l && o.port == changed.port {
			return nil, &types.DuplicateListenerException{
				Message: text("A listener already exists on this port for this load balancer '%s'", l.lb.arn),
			}
		}
	}
	if changed.protocol != l.protocol {
		changed.attributes = carry(listenerAttributes(changed.protocol), l.attributes)
	}
	if err := c.use(&changed); err != nil {
		return nil, err
	}
	left := l.group
	*l = changed
	c.orphan(left)
	return &elbv2.ModifyListenerOutput{Listeners: []types.Listener{listenerOut(l)}}, nil
}

// carry keeps the values of attributes that are still there.
func carry(fresh, old attributes) attributes {
	for key, a := range fresh {
		if had, ok := old[key]; ok {
			a.value = had.value
			fresh[key] = a
		}
	}
	return fresh
}

func (c *Cloud) describeListeners(in *elbv2.DescribeListenersInput) (*elbv2.DescribeListenersOutput, error) {
	list := c.listeners.seen(c.now(), c.options.Delays)
	switch {
	case in.LoadBalancerArn == nil && len(in.ListenerArns) == 0:
		return nil, invalid("You must specify either listener ARNs or a load balancer ARN")
	case in.LoadBalancerArn != nil && len(in.ListenerArns) > 0:
		return nil, invalid("You cannot specify both listener ARNs and a load balancer ARN")
	case in.LoadBalancerArn != nil:
		lb, err := c.networkBy(in.LoadBalancerArn)
		if err != nil {
			return nil, err
		}
		list = slices.DeleteFunc(list, func(n numbered[*listener]) bool { return n.value.lb != lb })
	}
	list, err := chosen(list, in.ListenerArns, nil, func(l *listener) string { return l.arn }, nil, func(key string) error {
		return &types.ListenerNotFoundException{Message: text("One or more listeners not found: %s", key)}
	})
	if err != nil {
		return nil, err
	}
	part, next, err := balancingPage(c, list, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	out := &elbv2.DescribeListenersOutput{NextMarker: next}
	for _, n := range part {
		out.Listeners = append(out.Listeners, listenerOut(n.value))
	}
	return out, nil
}

func listenerOut(l *listener) types.Listener {
	out := types.Listener{
		ListenerArn: aws.String(l.arn), LoadBalancerArn: aws.String(l.lb.arn), Port: aws.Int32(l.port), Protocol: l.protocol,
		SslPolicy: optional(l.policy),
		DefaultActions: []types.Action{{
			Type: types.ActionTypeEnumForward, TargetGroupArn: aws.String(l.group.arn),
			ForwardConfig: &types.ForwardActionConfig{TargetGroups: []types.TargetGroupTuple{{TargetGroupArn: aws.String(l.group.arn), Weight: aws.Int32(1)}}},
		}},
	}
	if l.certificate != "" {
		out.Certificates = []types.Certificate{{CertificateArn: aws.String(l.certificate)}}
	}
	if l.alpn != "" {
		out.AlpnPolicy = []string{l.alpn}
	}
	return out
}

func (c *Cloud) addListenerCertificates(in *elbv2.AddListenerCertificatesInput) (*elbv2.AddListenerCertificatesOutput, error) {
	l, err := c.secureListener(in.ListenerArn, in.Certificates)
	if err != nil {
		return nil, err
	}
	arn, err := c.certificate(in.Certificates[0])
	if err != nil {
		return nil, err
	}
	if !slices.Contains(l.further, arn) {
		var has int
		for _, o := range c.listenersOf(l.lb) {
			has += len(o.further)
		}
		if has >= c.limits.CertificatesPerNetwork {
			return nil, &types.TooManyCertificatesException{
				Message: text("The quota of %d certificates for the load balancer has been reached", c.limits.CertificatesPerNetwork),
			}
		}
		l.further = append(slices.Clone(l.further), arn)
	}
	return &elbv2.AddListenerCertificatesOutput{Certificates: []types.Certificate{{CertificateArn: aws.String(arn), IsDefault: aws.Bool(false)}}}, nil
}

// secureListener is a TLS listener whose one certificate changes.
func (c *Cloud) secureListener(arn *string, certificates []types.Certificate) (*listener, error) {
	l, err := c.listenerBy(arn)
	if err != nil {
		return nil, err
	}
	if l.protocol != types.ProtocolEnumTls {
		return nil, &types.UnsupportedProtocolException{Message: text("Certificates need a TLS listener, '%s' is %s", l.arn, l.protocol)}
	}
	if len(certificates) != 1 {
		return nil, invalid("Exactly one certificate must be specified")
	}
	return l, nil
}

func (c *Cloud) removeListenerCertificates(in *elbv2.RemoveListenerCertificatesInput) (*elbv2.RemoveListenerCertificatesOutput, error) {
	l, err := c.secureListener(in.ListenerArn, in.Certificates)
	if err != nil {
		return nil, err
	}
	arn := aws.ToString(in.Certificates[0].CertificateArn)
	if arn == l.certificate && !slices.Contains(l.further, arn) {
		return nil, &types.OperationNotPermittedException{Message: text("The default certificate of listener '%s' cannot be removed", l.arn)}
	}
	l.further = slices.DeleteFunc(slices.Clone(l.further), func(has string) bool { return has == arn })
	return &elbv2.RemoveListenerCertificatesOutput{}, nil
}

func (c *Cloud) describeListenerCertificates(in *elbv2.DescribeListenerCertificatesInput) (*elbv2.DescribeListenerCertificatesOutput, error) {
	l, err := c.listenerBy(in.ListenerArn)
	if err != nil {
		return nil, err
	}
	var list []numbered[types.Certificate]
	if l.certificate != "" {
		list = append(list, numbered[types.Certificate]{value: types.Certificate{CertificateArn: aws.String(l.certificate), IsDefault: aws.Bool(true)}})
	}
	for i, arn := range l.further {
		further := types.Certificate{CertificateArn: aws.String(arn), IsDefault: aws.Bool(false)}
		list = append(list, numbered[types.Certificate]{serial: i + 1, value: further})
	}
	part, next, err := balancingPage(c, list, in.Marker, in.PageSize)
	if err != nil {
		return nil, err
	}
	return &elbv2.DescribeListenerCertificatesOutput{Certificates: values(part), NextMarker: next}, nil
}
