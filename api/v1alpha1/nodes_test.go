package v1alpha1

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestNodeBarred(t *testing.T) {
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, message string) func(*corev1.Node) {
		return func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: kind, Status: status, Message: message}}
		}
	}
	taint := func(key string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: key}} }
	}
	label := func(value string) func(*corev1.Node) {
		return func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelNodeExcludeBalancers: value} }
	}
	tests := []struct {
		name   string
		change func(*corev1.Node)
		want   Reason
	}{
		{"nothing", func(*corev1.Node) {}, ""},
		{"excluded", label(""), NodeExcluded},
		{"expressly not excluded", label("false"), ""},
		{"deleted", func(n *corev1.Node) { n.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, NodeBeingDeleted},
		{"the autoscaler's taint", taint("ToBeDeletedByClusterAutoscaler"), NodeBeingDeleted},
		{"Karpenter's taint", taint("karpenter.sh/disrupted"), NodeBeingDeleted},
		{"another taint", taint("node-role.kubernetes.io/control-plane"), ""},
		{"no network", condition(corev1.NodeNetworkUnavailable, corev1.ConditionTrue, ""), NetworkDown},
		{"shutting down", condition(corev1.NodeReady, corev1.ConditionFalse, "node is shutting down"), NodeShuttingDown},
		{"not ready", condition(corev1.NodeReady, corev1.ConditionFalse, "container runtime is down"), ""},
		{"unknown", condition(corev1.NodeReady, corev1.ConditionUnknown, "Kubelet stopped posting node status."), ""},
		{"cordoned", func(n *corev1.Node) { n.Spec.Unschedulable = true }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := &corev1.Node{}
			tt.change(node)
			if got := NodeBarred(node); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
