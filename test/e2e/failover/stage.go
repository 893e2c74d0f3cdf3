package failover

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/test/sandbox"
)

// Stage makes the Service of a scene and its pods, and finds out its address.
func (s *Scene) Stage(ctx context.Context, policy corev1.ServiceExternalTrafficPolicy) error {
	service := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: s.Service},
		Spec: corev1.ServiceSpec{
			Type:                          corev1.ServiceTypeLoadBalancer,
			ExternalTrafficPolicy:         policy,
			AllocateLoadBalancerNodePorts: ptr.To(false),
			Selector:                      map[string]string{"app": s.Service},
			Ports:                         []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(sandbox.DefaultPodPort)}},
		},
	}
	if _, err := s.Kube.CoreV1().Services(s.Namespace).Create(ctx, service, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := s.Restore(ctx); err != nil { // makes the pods
		return err
	}
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(50 * time.Millisecond) {
		found, err := s.Kube.CoreV1().Services(s.Namespace).Get(ctx, s.Service, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if ingress := found.Status.LoadBalancer.Ingress; len(ingress) == 1 {
			s.Addr, err = netip.ParseAddr(ingress[0].IP)
			return err
		}
	}
	return fmt.Errorf("service %s has no address after a minute", s.Service)
}

// Strike removes the Service and its pods.
func (s *Scene) Strike(ctx context.Context) error {
	if err := s.Kube.CoreV1().Services(s.Namespace).Delete(ctx, s.Service, metav1.DeleteOptions{}); err != nil {
		return err
	}
	s.Nodes = nil
	return s.Restore(ctx)
}
