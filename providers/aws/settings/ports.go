package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
)

// ports turns the ports of the Service into listeners. A port that cannot be
// one is rejected by itself; a Service of nothing else is refused.
func ports(r *reader, s *Settings) *v1alpha1.Refusal {
	spec := &r.service.Spec
	tlsPorts, refusal := tlsPorts(r, s)
	if refusal != nil {
		return refusal
	}
	for i := range spec.Ports {
		port := &spec.Ports[i]
		if why := unservable(s, port); why != "" {
			s.Rejected = append(s.Rejected, RejectedPort{port.Port, port.Protocol, why})
			continue
		}
		if port.NodePort == 0 && !s.TargetIPs {
			if s.Kind == Classic {
				return v1alpha1.Refuse(v1alpha1.InvalidRequest, "port %d has no node port, and a Classic Load Balancer sends to node ports: want allocateLoadBalancerNodePorts true, or a Network Load Balancer", port.Port)
			}
			return v1alpha1.Refuse(v1alpha1.InvalidRequest, "port %d has no node port: want %starget-type ip, or allocateLoadBalancerNodePorts true", port.Port, Prefix)
		}
		listener := Port{Name: port.Name, Port: port.Port, NodePort: port.NodePort, TargetPort: port.TargetPort.String(), Listener: Protocol(port.Protocol), Target: Protocol(port.Protocol)}
		if port.Protocol == "" {
			listener.Listener, listener.Target = TCP, TCP
		}
		if listener.Listener == TCP {
			listener.Listener, listener.Target = protocols(r, s, tlsPorts[port.Port])
		}
		if refusal := s.add(r, listener, port); refusal != nil {
			return refusal
		}
	}
	if len(s.Ports) == 0 && len(s.Rejected) > 0 {
		return v1alpha1.Refuse(v1alpha1.PortNotServed, "no port can be served: %s", s.Rejected[0].Why)
	}
	slices.SortFunc(s.Ports, func(a, b Port) int { return int(a.Port) - int(b.Port) })
	return nil
}

func unservable(s *Settings, port *corev1.ServicePort) string {
	switch {
	case port.Protocol == corev1.ProtocolSCTP:
		return fmt.Sprintf("port %d is SCTP, which no load balancer of AWS has", port.Port)
	case port.Protocol == corev1.ProtocolUDP && s.Kind == Classic:
		return fmt.Sprintf("port %d is UDP, which a Classic Load Balancer does not have: want a Network Load Balancer", port.Port)
	}
	return ""
}

// add adds a listener, which may join the one that has the port already.
func (s *Settings) add(r *reader, listener Port, port *corev1.ServicePort) *v1alpha1.Refusal {
	i := slices.IndexFunc(s.Ports, func(other Port) bool { return other.Port == listener.Port })
	if i < 0 {
		s.Ports = append(s.Ports, listener)
		return nil
	}
	other := &s.Ports[i]
	if r.text("enable-tcp-udp-listener", "true") == "false" {
		return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "port %d has TCP and UDP, and %senable-tcp-udp-listener is false: a port number has one listener", port.Port, Prefix)
	}
	if other.Listener == TLS || listener.Listener == TLS {
		return v1alpha1.Refuse(v1alpha1.ConflictingRequests, "port %d has UDP, and TCP with TLS: a port number has one listener; take it out of %sssl-ports", port.Port, Prefix)
	}
	if other.NodePort != listener.NodePort && !s.TargetIPs {
		s.Rejected = append(s.Rejected, RejectedPort{port.Port, port.Protocol, fmt.Sprintf(
			"port %d has node port %d for %s and %d for %s: one listener needs one node port", port.Port, other.NodePort, other.Listener, listener.NodePort, listener.Listener)})
		return nil
	}
	if other.TargetPort != listener.TargetPort && s.TargetIPs {
		s.Rejected = append(s.Rejected, RejectedPort{port.Port, port.Protocol, fmt.Sprintf(
			"port %d has target port %s for %s and %s for %s: one listener needs one target port", port.Port, other.TargetPort, other.Listener, listener.TargetPort, listener.Listener)})
		return nil
	}
	other.Listener, other.Target = TCPUDP, TCPUDP
	return nil
}

// protocols of a port over TCP.
func protocols(r *reader, s *Settings, secure bool) (listener, target Protocol) {
	backend := Protocol(strings.ToUpper(r.text("backend-protocol", "tcp")))
	switch {
	case s.Kind == Network && secure && backend == SSL:
		return TLS, TLS
	case s.Kind == Network && secure:
		return TLS, TCP
	case s.Kind == Network:
		return TCP, TCP
	case secure && (backend == HTTP || backend == HTTPS):
		return HTTPS, backend
	case secure:
		return SSL, backend
	case backend == HTTP:
		return HTTP, HTTP
	}
	return TCP, TCP
}

// tlsPorts are the ports that speak TLS.
func tlsPorts(r *reader, s *Settings) (map[int32]bool, *v1alpha1.Refusal) {
	named := r.list("ssl-ports")
	if len(named) == 0 {
		named = []string{"*"}
	}
	secure := map[int32]bool{}
	for _, item := range named {
		found := item == "*"
		for _, port := range r.service.Spec.Ports {
			if item == "*" || item == port.Name || item == strconv.Itoa(int(port.Port)) {
				found, secure[port.Port] = true, true
			}
		}
		if !found {
			return nil, v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%sssl-ports has %q, which is no port of the Service: want names or numbers of its ports, or *", Prefix, item)
		}
	}
	if len(s.Certificates) > 0 {
		return secure, nil
	}
	for _, name := range []string{"ssl-ports", "ssl-negotiation-policy"} {
		if r.has(name) {
			r.ignore("%s%s says nothing without %sssl-cert.", Prefix, name, Prefix)
		}
	}
	s.TLSPolicy = ""
	return nil, nil
}
