package v1alpha1

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The taints by which the cluster autoscaler and Karpenter announce the end of
// a node (KEP-3836 for the first).
const (
	taintToBeDeleted = "ToBeDeletedByClusterAutoscaler"
	taintDisrupted   = "karpenter.sh/disrupted"
)

// shuttingDown is what kubelet says of a node that goes down gracefully, in
// the message of its condition Ready (KEP-2000). It says so nowhere else.
const shuttingDown = "node is shutting down"

// NodeBarred says why a node is to announce no address at all, whatever runs
// on it; nothing of a node that is cordoned.
func NodeBarred(node *corev1.Node) Reason {
	// The stock controller looks for the label alone; "false" means false here.
	if value, ok := node.Labels[corev1.LabelNodeExcludeBalancers]; ok && value != "false" {
		return NodeExcluded
	}
	if node.DeletionTimestamp != nil {
		return NodeBeingDeleted
	}
	for _, taint := range node.Spec.Taints {
		if taint.Key == taintToBeDeleted || taint.Key == taintDisrupted {
			return NodeBeingDeleted
		}
	}
	for _, condition := range node.Status.Conditions {
		switch {
		case condition.Type == corev1.NodeNetworkUnavailable && condition.Status == corev1.ConditionTrue:
			return NetworkDown
		case condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionFalse && strings.Contains(condition.Message, shuttingDown):
			return NodeShuttingDown
		}
	}
	return ""
}
