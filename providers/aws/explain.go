package aws

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// explanation is what there is to say of a Service that has a load balancer.
type explanation struct {
	kind     settings.Kind
	name     string
	rejected []settings.RejectedPort
	// asides change nothing about whether it is served.
	asides []string
}

// Explain implements the service controller's Explainer.
func (p *Provider) Explain(service *corev1.Service) (ready bool, reason v1alpha1.Reason, message string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.entries[types.NamespacedName{Namespace: service.Namespace, Name: service.Name}]
	if e == nil || e.latest() == nil {
		return false, "", ""
	}
	held, lb := e.latest(), fmt.Sprintf("%s %s", e.told.kind.Title(), e.told.name)
	hostname := held.hostnames[e.told.kind]
	if hostname == "" {
		return false, "", ""
	}
	ready, reason = true, v1alpha1.LoadBalancerMade
	sentences := []string{fmt.Sprintf("Served at %s by the %s.", hostname, lb)}
	if held.provisioning && e.told.kind == NLB {
		ready, reason = false, v1alpha1.Provisioning
		sentences[0] = fmt.Sprintf("AWS is making the %s; its name %s may not resolve yet.", lb, hostname)
	}
	if held.problem != "" && e.told.kind == NLB {
		ready, reason = false, v1alpha1.SyncFailed
		sentences[0] = fmt.Sprintf("AWS could not make the %s: %s.", lb, held.problem)
	}
	for _, port := range e.told.rejected {
		ready, reason = false, v1alpha1.PortNotServed
		sentences = append(sentences, capital(port.Why)+".")
	}
	return ready, reason, strings.Join(append(sentences, e.told.asides...), " ")
}

func capital(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// remark is a sentence for the Service's author, and why it is said.
type remark struct {
	reason   v1alpha1.Reason
	sentence string
}

// strange is what there is to say of pods whose addresses AWS does not take.
func strange(addresses []netip.Addr) []remark {
	const shown = 3
	if len(addresses) == 0 {
		return nil
	}
	var names []string
	for _, addr := range addresses[:min(shown, len(addresses))] {
		names = append(names, addr.String())
	}
	list := strings.Join(names, ", ")
	if more := len(addresses) - shown; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return []remark{{v1alpha1.TargetRefused, fmt.Sprintf("Left out are pods at %s: AWS takes no targets outside of the VPC but of 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 and 100.64.0.0/10.", list)}}
}

// tell remembers what there is to say, and says what is news about annotations
// and targets.
func (p *Provider) tell(e *entry, service *corev1.Service, s *settings.Settings, desired *model.State, remarks []remark) {
	var all []remark
	for _, sentence := range s.Ignored {
		all = append(all, remark{v1alpha1.AnnotationIgnored, sentence})
	}
	all = append(all, remarks...)
	for _, sentence := range targetless(s, desired) {
		all = append(all, remark{v1alpha1.NoTargets, sentence})
	}
	var asides []string
	for _, remark := range all {
		asides = append(asides, remark.sentence)
	}
	p.mu.Lock()
	said := strings.Join(e.told.asides, " ")
	e.told = explanation{kind: s.Kind, name: nameOf(desired), rejected: s.Rejected, asides: asides}
	p.mu.Unlock()
	if condition := meta.FindStatusCondition(service.Status.Conditions, v1alpha1.ServiceReady); condition != nil && said == "" {
		said = condition.Message
	}
	for _, remark := range all {
		if !strings.Contains(said, remark.sentence) {
			p.Recorder.Event(service, corev1.EventTypeWarning, string(remark.reason), remark.sentence)
		}
	}
}

// targetless says why a load balancer has no node behind it, if it has none.
func targetless(s *settings.Settings, desired *model.State) []string {
	switch {
	case s.TargetIPs || desired.CLB != nil && len(desired.CLB.Instances) > 0:
		return nil
	case slices.ContainsFunc(desired.TargetGroups, func(group model.TargetGroup) bool { return len(group.Targets) > 0 }):
		return nil
	case len(s.NodeLabels) > 0:
		return []string{"No node is behind it: none that may be has the labels of " + settings.Prefix + "target-node-labels."}
	}
	return []string{"No node is behind it: none that may be is an instance in EC2, by its spec.providerID."}
}

func nameOf(state *model.State) string {
	if state.NLB != nil {
		return state.NLB.Name
	}
	return state.CLB.Name
}

// announce says before a load balancer goes that another one follows, and why.
func (p *Provider) announce(service *corev1.Service, step model.Step) {
	var why, name string
	switch step := step.(type) {
	case model.DeleteNLB:
		why, name = step.Why, step.Name
	case model.DeleteCLB:
		why, name = step.Why, step.Name
	}
	if why != "" {
		p.Recorder.Eventf(service, corev1.EventTypeWarning, string(v1alpha1.LoadBalancerReplaced), "The load balancer %s is replaced by another one, with another name: %s.", name, why)
	}
}

// blamed are the annotations that AWS means by a code and does not name.
var blamed = map[string]string{"CertificateNotFound": "ssl-cert", "SSLPolicyNotFound": "ssl-negotiation-policy"}

// blame finds the annotation that AWS does not take. A security group that AWS
// does not know may be new, and that of Herald; one that the Service names by
// its ID is a mistake.
func (p *Provider) blame(ctx context.Context, e *entry, s *settings.Settings, err error) error {
	code := codeOf(err)
	if name := blamed[code]; name != "" {
		return fmt.Errorf("%s%s: %w", settings.Prefix, name, err)
	}
	if code != "InvalidGroup.NotFound" && code != "InvalidSecurityGroup" {
		return err
	}
	if failed := p.namedGroups.verify(ctx, p, slices.Concat(s.Groups, s.ExtraGroups)); failed != nil {
		return err
	}
	refusal := p.unknownGroup(s)
	if refusal == nil {
		return err
	}
	p.mu.Lock()
	e.held, e.left = nil, nil
	p.mu.Unlock()
	return p.missing(e, refusal, nil)
}

// unknownGroup refuses the ID of a security group that is none of the VPC, as
// far as it is known.
func (p *Provider) unknownGroup(s *settings.Settings) *v1alpha1.Refusal {
	for _, given := range []struct {
		annotation string
		groups     []string
	}{{"security-groups", s.Groups}, {"extra-security-groups", s.ExtraGroups}} {
		for _, id := range given.groups {
			if p.namedGroups.unknown(id) {
				return v1alpha1.Refuse(v1alpha1.GroupNotFound, "%s%s has %s, which is no security group of the VPC", settings.Prefix, given.annotation, id)
			}
		}
	}
	return nil
}

// leaveOut keeps targets away from load balancers that AWS does not take.
func (p *Provider) leaveOut(service *corev1.Service, ids []string) {
	slices.Sort(ids)
	if news := p.instances.haunt(time.Now(), slices.Compact(ids)...); len(news) > 0 {
		p.Recorder.Eventf(service, corev1.EventTypeWarning, string(v1alpha1.TargetRefused), "AWS does not take %s as targets; they will be tried again.", strings.Join(news, ", "))
	}
}

// portNotServed is the error of a port in status.loadBalancer.
const portNotServed = v1alpha1.GroupName + "/" + string(v1alpha1.PortNotServed)

func portStatuses(service *corev1.Service, rejected []settings.RejectedPort) []corev1.PortStatus {
	var all []corev1.PortStatus
	for _, port := range service.Spec.Ports {
		status := corev1.PortStatus{Port: port.Port, Protocol: port.Protocol}
		if slices.ContainsFunc(rejected, func(r settings.RejectedPort) bool { return r.Port == port.Port && r.Protocol == port.Protocol }) {
			text := portNotServed
			status.Error = &text
		}
		all = append(all, status)
	}
	return all
}
