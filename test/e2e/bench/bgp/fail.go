package main

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/heraldlb/herald/api/v1alpha1"
	"github.com/heraldlb/herald/test/e2e/bench/rig"
	"github.com/heraldlb/herald/test/e2e/failover"
)

// fail plays the cases and prints a line each. wrong says that a round had an error.
func (b *bench) fail(ctx context.Context, cases []failover.RoutedCase, rounds int) (wrong bool, err error) {
	if err := b.advertise(ctx); err != nil {
		return false, err
	}
	if err := b.peer(ctx, &v1alpha1.GracefulRestart{}); err != nil {
		return false, err
	}
	_, err = b.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: object}}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	pool := &v1alpha1.AddressPool{ObjectMeta: metav1.ObjectMeta{Name: object}, Spec: v1alpha1.AddressPoolSpec{Addresses: []string{"203.0.113.0/24"}}}
	if _, err := b.Herald.AddressPools.Create(ctx, pool, metav1.CreateOptions{}); err != nil {
		return false, err
	}
	for _, c := range cases {
		summary, err := b.play(ctx, c, rounds)
		wrong = wrong || summary.Errors > 0
		if err != nil {
			return wrong, fmt.Errorf("%s: %w", c.Name, err)
		}
		fmt.Println(summary)
	}
	return wrong, nil
}

// play plays the rounds of a case on a Service of its own. It happens to node1 and
// node2 in turn.
func (b *bench) play(ctx context.Context, c failover.RoutedCase, rounds int) (failover.RoutedSummary, error) {
	summary := failover.RoutedSummary{Case: c}
	scene, err := b.stage(ctx, c)
	if err != nil {
		return summary, err
	}
	summary.Traces, summary.Errors, err = rig.Rounds(ctx, c.Name, rounds, func(round int) (*failover.RoutedTrace, error) {
		return scene.Play(ctx, c, fmt.Sprintf("node%d", 1+round%2))
	})
	if err != nil {
		return summary, err
	}
	return summary, scene.Strike(ctx)
}

// stage makes the Service of a case with its pods. Where a node is lost they are
// on the last one, so that it takes a way to the pods and none of them.
func (b *bench) stage(ctx context.Context, c failover.RoutedCase) (*failover.Routed, error) {
	scene := &failover.Routed{Router: "router", Peer: object, Scene: &failover.Scene{
		Box: b.Box, Kube: b.Kube, Herald: b.Herald, Namespace: object, Service: c.Name, Client: "client", Nodes: b.Box.Nodes(),
	}}
	if c.Far {
		scene.Nodes = []string{"node3"}
	}
	err := scene.Stage(ctx, corev1.ServiceExternalTrafficPolicyCluster)
	return scene, err
}
