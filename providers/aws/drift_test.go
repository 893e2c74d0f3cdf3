package aws

import (
	"github.com/heraldlb/herald/providers/aws/model"
)

// drift is what somebody might change by hand.
func drift(state *model.State) []model.Step {
	group := &state.TargetGroups[0]
	health := group.Health
	health.Healthy = 9
	return []model.Step{
		model.Deregister{TargetGroup: group.Name, Targets: group.Targets[:1]},
		model.SetHealth{TargetGroup: group.Name, Protocol: group.Protocol, Health: health},
		model.DeleteListener{Port: 443},
		model.Revoke{Group: model.OwnGroup, Rules: state.Group.Rules[:1]},
		model.Revoke{Group: "sg-nodes", Rules: []model.Rule{state.NodeRules[0].Rule}},
		model.SetNLBAttributes{Name: state.NLB.Name, Attributes: map[string]string{"load_balancing.cross_zone.enabled": "true"}},
		model.Tag{Piece: model.Piece{Kind: model.PieceNLB, Name: state.NLB.Name}, Tags: map[string]string{"kubernetes.io/service-name": "x/y"}},
	}
}

// loss is the load balancer gone.
func loss(state *model.State) []model.Step {
	if state.CLB != nil {
		return []model.Step{model.DeleteCLB{Name: state.CLB.Name}}
	}
	return []model.Step{model.DeleteNLB{Name: state.NLB.Name}}
}
