package aws

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cloud-provider/api"
	servicehelper "k8s.io/cloud-provider/service/helpers"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// entry is what Herald remembers of a Service.
type entry struct {
	identity model.Identity
	// held is what AWS holds for it; nil is not known. It is replaced, never
	// changed.
	held *holding
	// left is what remains to be done of a plan when AWS asks to wait.
	left *leftover
	// written is when a call was begun last that makes something.
	written time.Time
	// touched is when any call was begun last that may change something.
	touched time.Time
	// check is when to observe again what others may have changed.
	check time.Time
	// again is when to look again whether there is now in AWS what was missing.
	again time.Time
	// ips says that endpoints are its targets.
	ips bool
	// told is what Explain says.
	told explanation
}

// leftover is the rest of a plan.
type leftover struct {
	desired model.State
	steps   []model.Step
	held    *holding
	since   time.Time
}

const (
	// settle is how long AWS may not show what was just made: until then, that
	// there is nothing is no proof.
	settle = 10 * time.Second
	// checkEvery is how often others' changes are looked for; the actual time
	// differs by up to a half, so that not all Services come at once.
	checkEvery = 4 * time.Hour
	// patience is how long AWS may ask to wait until that is an error, and all
	// is observed anew.
	patience = 2 * time.Minute
)

// unfinished is AWS's wish to wait before what remains.
type unfinished struct {
	after time.Duration
	err   error
}

func (u *unfinished) Error() string { return u.err.Error() }
func (u *unfinished) Unwrap() error { return u.err }

// retryOf is an error as the service controller takes it.
func retryOf(err error) error {
	if wait, ok := err.(*unfinished); ok { //nolint:errorlint // it is never wrapped
		return api.NewRetryError(wait.Error(), wait.after)
	}
	return err
}

// begin returns the entry of a Service that is to be served. One without
// finalizer never had anything.
func (p *Provider) begin(service *corev1.Service) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	e := p.entries[key]
	if e == nil || e.identity.UID != string(service.UID) {
		e = &entry{identity: p.identityOf(service), written: p.started}
		if !servicehelper.HasLBFinalizer(service) {
			e.held = newHolding()
		}
		p.entries[key] = e
	}
	return e
}

// entryOf returns the entry of a Service that may have something; nil is that
// it cannot have. A Service that is gone is known by its name.
func (p *Provider) entryOf(service *corev1.Service) *entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := types.NamespacedName{Namespace: service.Namespace, Name: service.Name}
	e := p.entries[key]
	switch {
	case e != nil && (service.UID == "" || e.identity.UID == string(service.UID)):
		return e
	case service.UID == "" || !servicehelper.HasLBFinalizer(service):
		return nil
	}
	e = &entry{identity: p.identityOf(service), written: p.started}
	p.entries[key] = e
	return e
}

// forget forgets a Service that is gone and has nothing.
func (p *Provider) forget(e *entry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.entries, types.NamespacedName{Namespace: e.identity.Namespace, Name: e.identity.Name})
}

func (p *Provider) held(e *entry) *holding {
	p.mu.Lock()
	defer p.mu.Unlock()
	return e.latest()
}

// latest is what is known of what AWS holds, be it in the middle of a plan.
func (e *entry) latest() *holding {
	if e.held == nil && e.left != nil {
		return e.left.held
	}
	return e.held
}

// recall returns what AWS holds for a Service, observing it when that is not
// known. sure is false when AWS may not show all of it yet.
func (p *Provider) recall(ctx context.Context, e *entry) (held *holding, sure bool, err error) {
	now := time.Now()
	p.mu.Lock()
	held, sure = e.latest(), true
	after := now.Add(-snapshotAge)
	if e.touched.After(after) {
		after = e.touched
	}
	if soon := e.written.Add(settle); now.Before(soon) {
		sure = false
	} else if soon.After(after) {
		after = soon // what is read from then on is the proof
	}
	p.mu.Unlock()
	if held != nil {
		return held, true, nil
	}
	held, err = p.observe(ctx, e.identity, after)
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		e.touched = time.Now() // what was read may be out of date, and the cause
		return nil, false, err
	}
	if sure || !held.state.Empty() {
		e.held = held
	}
	return held, sure, nil
}

// reconcile brings what AWS holds to what the Service asks for.
func (p *Provider) reconcile(ctx context.Context, e *entry, service *corev1.Service, s *settings.Settings, nodes []*corev1.Node) error {
	p.mu.Lock()
	e.ips = s.TargetIPs
	if !e.check.IsZero() && time.Now().After(e.check) {
		e.held, e.left = nil, nil
	}
	known := e.held != nil
	p.mu.Unlock()

	held, sure, err := p.recall(ctx, e)
	if err != nil {
		return err
	}
	// What is known is first looked at with what all Services know, be it old.
	desired, notes, err := p.build(ctx, e, service, s, nodes, held, known)
	if err != nil {
		return err
	}
	observed := p.observedFor(e, &desired, held)
	if known && slices.ContainsFunc(model.Plan(&desired, &observed), needsFresh) {
		if desired, notes, err = p.build(ctx, e, service, s, nodes, held, false); err != nil {
			return err
		}
		observed = p.observedFor(e, &desired, held)
	}
	if sharesRules(model.Plan(&desired, &observed)) {
		// Whether others need them has to be seen, and nobody may change them meanwhile.
		p.groupless.Lock()
		defer p.groupless.Unlock()
		if held, err = p.observe(ctx, e.identity, time.Now()); err != nil {
			return err
		}
		if desired, notes, err = p.build(ctx, e, service, s, nodes, held, false); err != nil {
			return err
		}
		observed = p.observedFor(e, &desired, held)
	}
	p.tell(e, service, s, &desired, notes)
	if err := p.advance(ctx, e, service, desired, observed, held); err != nil {
		return err
	}
	if !sure {
		return p.lookAgain(e)
	}
	return nil
}

// lookAgain has a Service observed once more when what it had may not have
// been all there to see: something that was just made for it, and is not
// wanted any more. Who has all that it needs after a restart needs no such look.
func (p *Provider) lookAgain(e *entry) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !e.written.After(p.started) {
		return nil
	}
	e.check = e.written.Add(settle)
	return &unfinished{time.Until(e.check) + time.Millisecond, errors.New("looking again whether something else is left")}
}

// needsFresh says whether a step should not be taken by what all Services know
// if that is old: who serves does not depend on it.
func needsFresh(step model.Step) bool {
	switch step.(type) {
	case model.Register, model.Deregister, model.RegisterInstances, model.DeregisterInstances:
		return false
	}
	return true
}

// observedFor is what there is as a plan for the desired state sees it.
func (p *Provider) observedFor(e *entry, desired *model.State, held *holding) model.State {
	observed := held.state.Clone()
	if held.raw {
		model.Heed(desired, &observed)
	}
	for i := range observed.NodeRules {
		rule := &observed.NodeRules[i]
		if rule.Rule.Description == model.SharedRuleDescription(p.ClusterName) {
			rule.Shared = p.shares(e.identity, rule.Rule.Source)
		}
	}
	return observed
}

// build says what there should be, given what there is. When old will do, what
// all Services share is not read again.
func (p *Provider) build(ctx context.Context, e *entry, service *corev1.Service, s *settings.Settings, nodes []*corev1.Node, held *holding, old bool) (model.State, []string, error) {
	since := time.Now().Add(-snapshotAge)
	if old {
		since = time.Time{}
	}
	in := &model.Input{Identity: e.identity, Settings: *s, Tags: p.Tags, Observed: held.state}
	var err error
	if in.Network, err = p.network.get(ctx, since); err != nil {
		return model.State{}, nil, err
	}
	if in.GroupIDs, err = p.namedGroups.find(ctx, p, slices.Concat(s.Groups, s.ExtraGroups), since); err != nil {
		return model.State{}, nil, err
	}
	chosen := targetNodes(nodes, s.NodeLabels)
	if in.Instances, in.NodeGroups, err = p.livingTargets(ctx, chosen); err != nil {
		return model.State{}, nil, err
	}
	if s.TargetIPs {
		if in.Network.Prefixes, err = p.prefixes.get(ctx, since); err != nil {
			return model.State{}, nil, err
		}
		in.Endpoints = p.endpoints(service, s)
	}
	if refusal, err := p.checkAllocations(ctx, in); refusal != nil || err != nil {
		return model.State{}, nil, p.missing(e, refusal, err)
	}
	desired, notes, refusal := model.Build(in)
	if refusal != nil {
		return model.State{}, nil, p.missing(e, refusal, nil)
	}
	if len(chosen) > 0 && len(in.NodeGroups) == 0 && len(desired.NodeRules) == 0 && s.ManageNodeRules && len(in.Instances) > 0 {
		return model.State{}, nil, v1alpha1.Refuse(v1alpha1.GroupNotFound, "no security group of the nodes is known, to let the load balancer in at")
	}
	return desired, notes, nil
}

// missing has a refused Service looked at again later: what AWS lacks may come
// without a word.
func (p *Provider) missing(e *entry, refusal *v1alpha1.Refusal, err error) error {
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	e.again = time.Now().Add(snapshotAge + time.Second)
	return refusal
}

// checkAllocations refuses Elastic IPs that do not exist, of those that the
// load balancer does not have.
func (p *Provider) checkAllocations(ctx context.Context, in *model.Input) (*v1alpha1.Refusal, error) {
	unknown := slices.DeleteFunc(slices.Clone(in.Settings.Allocations), func(id string) bool {
		return in.Observed.NLB != nil && slices.ContainsFunc(in.Observed.NLB.Mappings, func(m model.Mapping) bool { return m.Allocation == id })
	})
	if len(unknown) == 0 {
		return nil, nil
	}
	out, err := call(ctx, p, p.EC2.DescribeAddresses, &ec2.DescribeAddressesInput{
		Filters: []ec2types.Filter{{Name: awssdk.String("allocation-id"), Values: unknown}},
	})
	if err != nil {
		return nil, err
	}
	for _, id := range unknown {
		if !slices.ContainsFunc(out.Addresses, func(address ec2types.Address) bool { return awssdk.ToString(address.AllocationId) == id }) {
			return v1alpha1.Refuse(v1alpha1.InvalidAnnotation, "%seip-allocations has %s, which is no Elastic IP of this account and region", settings.Prefix, id), nil
		}
	}
	return nil, nil
}

// advance takes the steps to the desired state, those first that a plan for
// the same has left.
func (p *Provider) advance(ctx context.Context, e *entry, service *corev1.Service, desired, observed model.State, held *holding) error {
	steps := model.Plan(&desired, &observed)
	since := time.Now()
	p.mu.Lock()
	if left := e.left; left != nil {
		if !reflect.DeepEqual(left.desired, desired) {
			// Something else is wanted now: see first how far that plan came.
			e.held, e.left = nil, nil
			p.mu.Unlock()
			return &unfinished{time.Millisecond, errors.New("observing anew")}
		}
		steps, held, since = left.steps, left.held, left.since
	}
	p.mu.Unlock()
	if len(steps) == 0 {
		p.finish(e, desired, held)
		return nil
	}
	return p.take(ctx, e, service, &leftover{desired: desired, steps: steps, held: held.clone(), since: since})
}

// sharesRules says whether steps change rules that NLBs without security
// groups share.
func sharesRules(steps []model.Step) bool {
	isShared := func(rule model.Rule) bool { return strings.HasPrefix(rule.Description, model.MTURule) }
	return slices.ContainsFunc(steps, func(step model.Step) bool {
		switch step := step.(type) {
		case model.Authorize:
			return slices.ContainsFunc(step.Rules, isShared)
		case model.Revoke:
			return slices.ContainsFunc(step.Rules, isShared)
		}
		return false
	})
}

// take takes steps in order. When one fails it is not known any more what AWS
// holds, but when AWS asks to wait, it is known what is left.
func (p *Provider) take(ctx context.Context, e *entry, service *corev1.Service, plan *leftover) error {
	logger := klog.FromContext(ctx)
	a := &applier{Provider: p, holding: plan.held}
	for i, step := range plan.steps {
		p.touch(e, makes(step))
		p.announce(service, step)
		logger.V(2).Info("Taking a step", "step", step.String())
		err := a.take(ctx, step)
		if err == nil {
			continue
		}
		p.leaveOut(service, a.refused)
		plan.steps = plan.steps[i:]
		return p.stumble(e, plan, err)
	}
	p.leaveOut(service, a.refused)
	p.finish(e, withoutTargets(plan.desired, a.refused), plan.held)
	return nil
}

// makes says whether a step makes something that AWS may not show at once.
func makes(step model.Step) bool {
	switch step.(type) {
	case model.CreateGroup, model.CreateTargetGroup, model.CreateNLB, model.CreateListener, model.CreateCLB, model.Authorize:
		return true
	}
	return false
}

func (p *Provider) touch(e *entry, makes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	e.held, e.touched = nil, now
	if makes {
		e.written = now
	}
}

// waitFor says that AWS asks to wait before a step, and for how long. Nothing
// is done when AWS answers so.
func waitFor(step model.Step, code string) (after time.Duration, wait bool) {
	_, deletesTargets := step.(model.DeleteTargetGroup)
	switch {
	case code == "DependencyViolation": // network interfaces go some time after their load balancer
		return 10 * time.Second, true
	case code == "ResourceInUse" && deletesTargets, code == "TargetGroupAssociationLimit": // so do listeners
		return 5 * time.Second, true
	case code == "InvalidGroup.NotFound", code == "InvalidSecurityGroup": // a new group is not known everywhere at once
		return 2 * time.Second, true
	}
	return 0, false
}

// stumble remembers how far a plan came, if waiting helps, but not for ever.
func (p *Provider) stumble(e *entry, plan *leftover, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	after, wait := waitFor(plan.steps[0], codeOf(err))
	if !wait || time.Since(plan.since) > patience {
		e.held, e.left = nil, nil
		return err
	}
	e.left = plan
	return &unfinished{after, err}
}

// finish remembers that all is as it should be.
func (p *Provider) finish(e *entry, state model.State, held *holding) {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := held.clone()
	done.state, done.raw = state, false
	e.held, e.left = done, nil
	if e.check.IsZero() || time.Now().After(e.check) {
		e.check = time.Now().Add(checkEvery/2 + rand.N(checkEvery))
	}
}

// withoutTargets is a state without the targets that AWS does not take.
func withoutTargets(state model.State, refused []string) model.State {
	if len(refused) == 0 {
		return state
	}
	state = state.Clone()
	for i := range state.TargetGroups {
		group := &state.TargetGroups[i]
		group.Targets = slices.DeleteFunc(group.Targets, func(target model.Target) bool { return slices.Contains(refused, target.ID) })
	}
	if state.CLB != nil {
		state.CLB.Instances = slices.DeleteFunc(state.CLB.Instances, func(id string) bool { return slices.Contains(refused, id) })
	}
	return state
}

// remove deletes what AWS holds for a Service.
func (p *Provider) remove(ctx context.Context, e *entry, service *corev1.Service) error {
	held, sure, err := p.recall(ctx, e)
	if err != nil {
		return err
	}
	if hasMTURule(&held.state) {
		// Whether others need it has to be seen, not remembered.
		p.groupless.Lock()
		defer p.groupless.Unlock()
		if held, err = p.observe(ctx, e.identity, time.Now()); err != nil {
			return err
		}
	}
	nothing := model.State{}
	observed := p.observedFor(e, &nothing, held)
	plan := &leftover{desired: nothing, steps: model.Plan(&nothing, &observed), held: held.clone(), since: time.Now()}
	p.mu.Lock()
	if left := e.left; left != nil {
		if !reflect.DeepEqual(left.desired, nothing) {
			e.held, e.left = nil, nil
			p.mu.Unlock()
			return &unfinished{time.Millisecond, errors.New("observing anew")}
		}
		plan = left
	}
	p.mu.Unlock()
	if err := p.take(ctx, e, service, plan); err != nil {
		return err
	}
	if !sure {
		p.mu.Lock()
		e.held = nil
		wait := settle - time.Since(e.written)
		p.mu.Unlock()
		return &unfinished{max(wait, 0) + time.Millisecond, errors.New("looking again whether anything is left")}
	}
	return nil
}

func hasMTURule(state *model.State) bool {
	return slices.ContainsFunc(state.NodeRules, func(rule model.NodeRule) bool { return strings.HasPrefix(rule.Rule.Description, model.MTURule) })
}

// shares says whether the Service of another identity lets a security group
// that is not of our making in to the nodes.
func (p *Provider) shares(identity model.Identity, group string) bool {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return true
	}
	return slices.ContainsFunc(services, func(other *corev1.Service) bool {
		if other.Spec.Type != corev1.ServiceTypeLoadBalancer || other.DeletionTimestamp != nil || string(other.UID) == identity.UID {
			return false
		}
		first, _, _ := strings.Cut(other.Annotations[settings.Prefix+"security-groups"], ",")
		first = strings.TrimSpace(first)
		return first == group || first != "" && !strings.HasPrefix(first, "sg-") && p.namedGroups.mayBe(first, group)
	})
}

// endpoints are the addresses of pods by the port of the Service: those that
// are ready, or if there are none, those that still serve.
func (p *Provider) endpoints(service *corev1.Service, s *settings.Settings) map[int32][]netip.AddrPort {
	objects, err := p.slices.GetIndexer().ByIndex(byService, service.Namespace+"/"+service.Name)
	if err != nil {
		return nil
	}
	family := discoveryv1.AddressTypeIPv4
	if s.TargetIPv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	ready, serving := map[int32][]netip.AddrPort{}, map[int32][]netip.AddrPort{}
	for _, object := range objects {
		slice := object.(*discoveryv1.EndpointSlice)
		if slice.AddressType != family {
			continue
		}
		for i := range service.Spec.Ports {
			port := &service.Spec.Ports[i]
			addAddresses(ready, port, slice, func(c *discoveryv1.EndpointConditions) bool { return c.Ready == nil || *c.Ready })
			addAddresses(serving, port, slice, func(c *discoveryv1.EndpointConditions) bool { return c.Serving != nil && *c.Serving })
		}
	}
	for port, addresses := range serving {
		if len(ready[port]) == 0 {
			ready[port] = addresses
		}
	}
	return ready
}

// addAddresses adds the endpoints of a slice that are good to a port.
func addAddresses(to map[int32][]netip.AddrPort, port *corev1.ServicePort, slice *discoveryv1.EndpointSlice, good func(*discoveryv1.EndpointConditions) bool) {
	for _, at := range slice.Ports {
		if at.Port == nil || at.Name == nil && port.Name != "" || at.Name != nil && *at.Name != port.Name {
			continue
		}
		if at.Protocol != nil && *at.Protocol != cmp.Or(port.Protocol, corev1.ProtocolTCP) {
			continue
		}
		for i := range slice.Endpoints {
			endpoint := &slice.Endpoints[i]
			if !good(&endpoint.Conditions) {
				continue
			}
			for _, text := range endpoint.Addresses {
				if addr, err := netip.ParseAddr(text); err == nil {
					to[port.Port] = append(to[port.Port], netip.AddrPortFrom(addr, uint16(*at.Port)))
				}
			}
		}
	}
}
