package aws

import (
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/cloud-provider/api"
	"k8s.io/klog/v2"

	"github.com/heraldlb/herald/providers/aws/model"
)

// leftover is the rest of a plan.
type leftover struct {
	desired model.State
	steps   []model.Step
	held    *holding
	since   time.Time
	// partial says that it is about targets alone, and all else is as it was
	// observed.
	partial bool
}

const (
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
	if wait, ok := errors.AsType[*unfinished](err); ok {
		return api.NewRetryError(wait.Error(), wait.after)
	}
	return err
}

// planFor are the steps from what is known to the desired state.
func planFor(desired model.State, observed *model.State, held *holding) *leftover {
	return &leftover{desired: desired, steps: model.Plan(&desired, observed), held: held.clone(), since: time.Now()}
}

// advance takes the steps of a plan, or what is left of one that leads to the
// same. When another one is under way, it is seen first how far that came.
func (p *Provider) advance(ctx context.Context, e *entry, service *corev1.Service, plan *leftover) error {
	p.mu.Lock()
	if left := e.left; left != nil {
		if left.partial != plan.partial || !reflect.DeepEqual(left.desired, plan.desired) {
			e.held, e.left = nil, nil
			p.mu.Unlock()
			return &unfinished{time.Millisecond, errors.New("observing anew")}
		}
		rest := *left
		rest.held = left.held.clone()
		plan = &rest
	}
	p.mu.Unlock()
	return p.take(ctx, e, service, plan)
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
	raw := plan.partial && plan.held.raw
	p.finish(e, withoutTargets(plan.desired, a.refused), plan.held, raw)
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
	_, moves := step.(model.SetMappings)
	switch {
	case code == "DependencyViolation": // network interfaces go some time after their load balancer
		return 10 * time.Second, true
	case code == "ResourceInUse" && deletesTargets, code == "TargetGroupAssociationLimit": // so do listeners
		return 5 * time.Second, true
	case code == "InvalidConfigurationRequest" && moves: // and what it has in a zone that it leaves
		return 15 * time.Second, true
	case code == "InvalidGroup.NotFound", code == "InvalidSecurityGroup": // a new group is not known everywhere at once
		return 2 * time.Second, true
	}
	return 0, false
}

// stumble remembers how far a plan came, if waiting helps, but not for ever.
func (p *Provider) stumble(e *entry, plan *leftover, err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if throttled(err) {
		// To observe all anew would be more of what there is too much of.
		e.left = plan
		return &unfinished{time.Second + rand.N(4*time.Second), err}
	}
	after, wait := waitFor(plan.steps[0], codeOf(err))
	if !wait || time.Since(plan.since) > patience {
		e.held, e.left = nil, nil
		return err
	}
	e.left = plan
	return &unfinished{after, err}
}

// finish remembers that all is as it should be; raw says that what others set
// is among it.
func (p *Provider) finish(e *entry, state model.State, held *holding, raw bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	done := held.clone()
	done.state, done.raw = state, raw
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
	if err := p.advance(ctx, e, service, planFor(nothing, &observed, held)); err != nil {
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
