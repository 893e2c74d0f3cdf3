package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/heraldlb/herald/test/e2e/moto"
)

const awsCluster = "e2e"

// amazon is the AWS of the tests: started when the first one needs it, ended
// with the sandbox.
type amazon struct {
	*moto.Cloud
	vpc *moto.VPC
	// instances are the machines of node1, node2, node3.
	instances []moto.Instance
}

var startAmazon = sync.OnceValues(func() (*amazon, error) {
	ctx := context.Background()
	cloud, err := moto.Start(ctx, box)
	if err != nil {
		return nil, err
	}
	a := &amazon{Cloud: cloud}
	if a.vpc, err = cloud.MakeVPC(ctx, awsCluster, 20); err != nil {
		return nil, fmt.Errorf("making a VPC: %w", err)
	}
	a.instances, err = cloud.RunInstances(ctx, a.vpc, len(box.Nodes()))
	return a, err
})

// inAWS runs Herald with a cloud config until the test ends, for which %s is
// the section aws.
func (w *world) inAWS(config string, args ...string) *amazon {
	w.Helper()
	a, err := startAmazon()
	w.must(err)
	section := fmt.Sprintf("aws: {region: %s, vpcID: %s, endpoint: %q}", moto.Region, a.vpc.ID, a.Endpoint)
	text := "apiVersion: config.heraldlb.io/v1alpha1\nkind: CloudConfig\nclusterName: " + awsCluster + "\n" + fmt.Sprintf(config, section) + "\n"
	path := filepath.Join(box.Dir(), "cloud-config.yaml")
	w.must(os.WriteFile(path, []byte(text), 0o644))

	before := box.Config()
	w.must(box.Stop(w.ctx, "controller"))
	w.vacate()
	w.must(box.RunController(w.ctx, append(slices.Clone(before.ControllerArgs), append(args, "--cloud-config="+path)...), moto.Env))
	w.Cleanup(func() {
		w.ctx = context.Background()
		w.must(box.Stop(w.ctx, "controller"))
		w.vacate()
		w.must(box.RunController(w.ctx, before.ControllerArgs, before.ControllerEnv))
	})
	a.Proxy.Calls()
	w.Cleanup(func() { a.Proxy.Fail(nil) })
	return a
}

// node makes a Node that has no machine in the sandbox.
func (w *world) node(name, providerID string, taints ...corev1.Taint) {
	w.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerID, Taints: taints}}
	_, err := kube.CoreV1().Nodes().Create(w.ctx, node, metav1.CreateOptions{})
	w.must(err)
	w.Cleanup(func() {
		if err := ignoreNotFound(kube.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{})); err != nil {
			w.Error(err)
		}
	})
	w.nodeReady(name, true)
}

func (w *world) nodeReady(name string, ready bool) {
	w.Helper()
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	patch := fmt.Sprintf(`{"status":{"conditions":[{"type":"Ready","status":%q}]}}`, status)
	_, err := kube.CoreV1().Nodes().Patch(w.ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{}, "status")
	w.must(err)
}

// nodeGone waits until a Node is deleted.
func (w *world) nodeGone(name string) {
	w.Helper()
	w.eventually("Node "+name+" is deleted", func() error {
		_, err := kube.CoreV1().Nodes().Get(w.ctx, name, metav1.GetOptions{})
		if err == nil {
			return errors.New("it is there")
		}
		return ignoreNotFound(err)
	})
}

// stay checks that Nodes are not deleted while Herald asks for instances.
func (w *world) stay(a *amazon, names ...string) {
	w.Helper()
	a.Proxy.Calls()
	asked := 0
	for start := time.Now(); asked < 3; time.Sleep(50 * time.Millisecond) {
		asked += len(a.Proxy.Calls())
		for _, name := range names {
			if _, err := kube.CoreV1().Nodes().Get(w.ctx, name, metav1.GetOptions{}); err != nil {
				w.Fatal(err)
			}
		}
		if time.Since(start) > patience {
			w.Fatalf("AWS was asked %d times in %v", asked, patience)
		}
	}
}

var uninitialized = corev1.Taint{Key: "node.cloudprovider.kubernetes.io/uninitialized", Value: "true", Effect: corev1.TaintEffectNoSchedule}

// The stock node controllers run from Herald's program with the rights of
// deploy/kustomize-nodes: Nodes are initialised from their instances, and
// deleted only when these are gone.
func TestAWSNodes(t *testing.T) {
	w := newWorld(t)
	_, err := box.Kubectl(w.ctx, "apply", "-f", filepath.Join(box.Config().Root, "deploy/kustomize-nodes/rights.yaml"))
	w.must(err)
	w.Cleanup(func() {
		if _, err := box.Kubectl(context.Background(), "delete", "clusterrole,clusterrolebinding", "herald-node-controllers"); err != nil {
			w.Error(err)
		}
	})
	a := w.inAWS("%s", "--controllers=*,cloud-node,cloud-node-lifecycle", "--node-monitor-period=500ms", "--node-status-update-frequency=1s")
	machines, err := a.RunInstances(w.ctx, a.vpc, 3)
	w.must(err)
	stopped, lost, kept := machines[0], machines[1], machines[2]
	for _, machine := range machines {
		w.node(machine.Name, "", uninitialized)
	}
	// Machines that are none of EC2's: one of no cloud, one of another.
	w.node("rack1", "")
	w.node("other1", "other://rack/1")
	// An instance that EC2 has never heard of.
	ghost := moto.Instance{ID: "i-0123456789abcdef0", Zone: moto.Zones()[0]}
	w.node("ghost1", ghost.ProviderID())

	for _, machine := range machines {
		w.eventually("Node "+machine.Name+" is initialised", func() error { return w.initialised(a, machine) })
	}
	w.Logf("initialising three Nodes: %s", moto.Tally(a.Proxy.Calls()))

	for _, name := range []string{stopped.Name, lost.Name, kept.Name, "rack1", "other1"} {
		w.nodeReady(name, false)
	}
	for _, fault := range []moto.Fault{{Code: "UnauthorizedOperation", Status: 403}, {Code: "InternalError", Status: 500}} {
		a.Proxy.Fail(func(moto.Call) *moto.Fault { return &fault })
		w.nodeReady("ghost1", false)
		w.stay(a, stopped.Name, lost.Name, kept.Name, "rack1", "other1", "ghost1")
	}
	a.Proxy.Fail(nil)
	w.nodeGone("ghost1")

	_, err = a.EC2.StopInstances(w.ctx, &ec2.StopInstancesInput{InstanceIds: []string{stopped.ID}})
	w.must(err)
	w.eventually("the stopped node is tainted", func() error { return w.shutdown(stopped.Name, true) })
	_, err = a.EC2.TerminateInstances(w.ctx, &ec2.TerminateInstancesInput{InstanceIds: []string{lost.ID}})
	w.must(err)
	w.nodeGone(lost.Name)
	w.stay(a, stopped.Name, kept.Name, "rack1", "other1")
	w.must(w.shutdown(kept.Name, false))
	w.nodeReady(stopped.Name, true)
	w.eventually("the node that runs again is no longer tainted", func() error { return w.shutdown(stopped.Name, false) })

	// The sandbox's own nodes are none of EC2's either: nothing of them changed.
	for _, name := range box.Nodes() {
		node, err := kube.CoreV1().Nodes().Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		v4, _ := box.Addrs(name)
		if len(node.Status.Addresses) == 0 || node.Status.Addresses[0].Address != v4.String() || node.Labels[corev1.LabelTopologyZone] != "" {
			w.Errorf("%s: addresses %v, labels %v", name, node.Status.Addresses, node.Labels)
		}
	}
}

// initialised compares a Node with its instance.
func (w *world) initialised(a *amazon, machine moto.Instance) error {
	node, err := kube.CoreV1().Nodes().Get(w.ctx, machine.Name, metav1.GetOptions{})
	w.must(err)
	for _, c := range []struct{ what, got, want string }{
		{"providerID", node.Spec.ProviderID, machine.ProviderID()},
		{"zone", node.Labels[corev1.LabelTopologyZone], machine.Zone},
		{"region", node.Labels[corev1.LabelTopologyRegion], moto.Region},
		{"type", node.Labels[corev1.LabelInstanceTypeStable], "m5.large"},
	} {
		if c.got != c.want {
			return fmt.Errorf("%s %q, want %q", c.what, c.got, c.want)
		}
	}
	if len(node.Spec.Taints) > 0 {
		return fmt.Errorf("taints %v", node.Spec.Taints)
	}
	described, err := a.EC2.DescribeInstances(w.ctx, &ec2.DescribeInstancesInput{InstanceIds: []string{machine.ID}})
	w.must(err)
	instance := described.Reservations[0].Instances[0]
	want := []corev1.NodeAddress{{Type: "InternalIP", Address: *instance.PrivateIpAddress}, {Type: "InternalDNS", Address: machine.Name}}
	for _, address := range want {
		if !slices.Contains(node.Status.Addresses, address) {
			return fmt.Errorf("addresses %v, want %v", node.Status.Addresses, want)
		}
	}
	return nil
}

// shutdown says whether a Node has the taint of stopped instances or not.
func (w *world) shutdown(name string, want bool) error {
	node, err := kube.CoreV1().Nodes().Get(w.ctx, name, metav1.GetOptions{})
	w.must(err)
	has := slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return strings.HasSuffix(t.Key, "/shutdown") })
	if has != want {
		return fmt.Errorf("taints %v", node.Spec.Taints)
	}
	return nil
}
