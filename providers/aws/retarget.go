package aws

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/heraldlb/herald/providers/aws/model"
	"github.com/heraldlb/herald/providers/aws/settings"
)

// retarget brings the targets of what a Service has to its nodes and endpoints
// of today, and nothing else.
func (p *Provider) retarget(ctx context.Context, e *entry, service *corev1.Service, nodes []*corev1.Node) error {
	labels, known := settings.NodeLabels(service)
	if !known {
		return nil
	}
	p.expire(e)
	held, _, err := p.recall(ctx, e)
	if err != nil || held.state.NLB == nil && held.state.CLB == nil {
		return err
	}
	instances, _, err := p.livingTargets(ctx, targetNodes(nodes, labels))
	if err != nil {
		return err
	}
	desired := held.state.Clone()
	if desired.CLB != nil {
		desired.CLB.Instances = instances
	}
	p.mu.Lock()
	e.ips = slices.ContainsFunc(desired.TargetGroups, func(group model.TargetGroup) bool { return group.IPs })
	p.mu.Unlock()
	in := &model.Input{Instances: instances}
	for i := range desired.TargetGroups {
		group := &desired.TargetGroups[i]
		if group.IPs {
			if _, err := p.aim(ctx, in, service, group.IPv6, time.Time{}); err != nil {
				return err
			}
		}
		model.Retarget(in, group, held.state.NLB)
	}
	plan := planFor(desired, &held.state, held)
	plan.steps, plan.partial = slices.DeleteFunc(plan.steps, needsFresh), true
	return p.advance(ctx, e, service, plan)
}
