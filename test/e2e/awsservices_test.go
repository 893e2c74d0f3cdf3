package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/heraldlb/herald/test/e2e/moto"
)

const bothWorlds = `
classes:
  heraldlb.io/bare-metal: {provider: baremetal}
  heraldlb.io/nlb: {provider: aws, type: nlb}
  heraldlb.io/clb: {provider: aws, type: clb}
%s`

const awsAlone = `
default: heraldlb.io/clb
classes:
  heraldlb.io/nlb: {provider: aws, type: nlb}
  heraldlb.io/clb: {provider: aws, type: clb}
%s`

const awsAnnotation = "service.beta.kubernetes.io/aws-load-balancer-"

// onInstances gives the nodes the instances that they run on.
func (w *world) onInstances(a *amazon) {
	w.Helper()
	for i, name := range box.Nodes() {
		patch := fmt.Sprintf(`{"spec":{"providerID":%q}}`, a.instances[i].ProviderID())
		_, err := kube.CoreV1().Nodes().Patch(w.ctx, name, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
		w.must(err)
	}
}

// exclude takes a node out of load balancers, or lets it in again.
func (w *world) exclude(node string, out bool) {
	w.Helper()
	value := "null"
	if out {
		value = `""`
	}
	patch := fmt.Sprintf(`{"metadata":{"labels":{%q:%s}}}`, corev1.LabelNodeExcludeBalancers, value)
	_, err := kube.CoreV1().Nodes().Patch(w.ctx, node, types.StrategicMergePatchType, []byte(patch), metav1.PatchOptions{})
	w.must(err)
}

func class(name string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerClass = ptr.To(name) }
}

func twoPorts(s *corev1.Service) {
	s.Spec.Ports = []corev1.ServicePort{
		{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: podPort},
		{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP, TargetPort: podPort},
	}
}

// hostname waits until a Service shows a name of AWS, which may still be making
// the load balancer, and returns the load balancer's own: it has that from the
// Service's UID.
func (w *world) hostname(service string) string {
	w.Helper()
	name := ""
	w.eventually("Service "+service+" has a hostname", func() error {
		s := w.get(service)
		if len(s.Status.LoadBalancer.Ingress) != 1 {
			return fmt.Errorf("has %v, condition %+v", s.Status.LoadBalancer.Ingress, ready(s))
		}
		name = ("a" + strings.ReplaceAll(string(s.UID), "-", ""))[:32]
		return has(s.Status.LoadBalancer.Ingress[0].Hostname, name, ".elb.", "amazonaws.com")
	})
	return name
}

// made waits until AWS has made the load balancer of a Service.
func (w *world) made(service string) string {
	w.Helper()
	name := w.hostname(service)
	w.eventually("the load balancer of Service "+service+" is made", func() error {
		if condition := ready(w.get(service)); condition == nil || condition.Status != metav1.ConditionTrue {
			return fmt.Errorf("condition %+v", condition)
		}
		return nil
	})
	return name
}

func (w *world) inventory(a *amazon) []string {
	w.Helper()
	lines, err := a.Inventory(w.ctx)
	w.must(err)
	return lines
}

// inInventory waits until each of the pieces is there.
func (w *world) inInventory(a *amazon, pieces ...string) {
	w.Helper()
	w.eventually(fmt.Sprintf("AWS has %q", pieces), func() error {
		lines, err := a.Inventory(w.ctx)
		if err != nil {
			return err
		}
		return has(strings.Join(lines, "\n")+"\n", pieces...)
	})
}

// notInInventory waits until a piece is gone.
func (w *world) notInInventory(a *amazon, piece string) {
	w.Helper()
	w.eventually(fmt.Sprintf("AWS no longer has %q", piece), func() error {
		lines, err := a.Inventory(w.ctx)
		if text := strings.Join(lines, "\n") + "\n"; err == nil && strings.Contains(text, piece) {
			err = errors.New(text)
		}
		return err
	})
}

// quiet waits until nothing is called any more, and says what was.
func (w *world) quiet(a *amazon) []moto.Call {
	w.Helper()
	var calls []moto.Call
	for last := time.Now(); time.Since(last) < time.Second; time.Sleep(50 * time.Millisecond) {
		if more := a.Proxy.Calls(); len(more) > 0 {
			calls, last = append(calls, more...), time.Now()
		}
	}
	return calls
}

// cost logs what something called, and checks that it is no more than most.
func (w *world) cost(a *amazon, what string, most int) {
	w.Helper()
	calls := w.quiet(a)
	w.Logf("%s: %s", what, moto.Tally(calls))
	if len(calls) > most {
		w.Errorf("%s takes %d calls, want at most %d", what, len(calls), most)
	}
}

// removedInTheEnd has the test end with AWS as it is now: its Services are
// deleted, whatever became of it.
func (w *world) removedInTheEnd(a *amazon) {
	w.Helper()
	before := w.inventory(a)
	w.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		defer cancel()
		w.ctx = ctx
		a.Proxy.Fail(nil)
		w.must(w.deleteServices())
		w.eventually("AWS has what it had before, and the Services are gone", func() error {
			after, err := a.Inventory(w.ctx)
			if err != nil || !slices.Equal(before, after) {
				return fmt.Errorf("had %q, has %q, %w", before, after, err)
			}
			list, err := kube.CoreV1().Services(w.namespace).List(w.ctx, metav1.ListOptions{})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("%d Services are left", len(list.Items))
			}
			return err
		})
	})
}

// everyTarget are the instances of the nodes at a port, sorted.
func (a *amazon) everyTarget(port int32, but ...int) []string {
	var targets []string
	for i, instance := range a.instances {
		if !slices.Contains(but, i) {
			targets = append(targets, fmt.Sprintf("%s:%d", instance.ID, port))
		}
	}
	slices.Sort(targets)
	return targets
}

// sendsTo waits until a Network Load Balancer sends the Service's ports to the
// nodes, all but some.
func (w *world) sendsTo(a *amazon, service, name string, but ...int) {
	w.Helper()
	w.eventually(fmt.Sprintf("%s has the targets that it should", name), func() error {
		targets, err := a.Targets(w.ctx, name)
		if err != nil {
			return err
		}
		for _, port := range w.get(service).Spec.Ports {
			if want := a.everyTarget(port.NodePort, but...); !slices.Equal(targets[port.Port], want) {
				return fmt.Errorf("port %d: targets %v, want %v", port.Port, targets[port.Port], want)
			}
		}
		return nil
	})
}

// One program serves both worlds: Services of the class of bare metal, and of
// no class, get addresses of pools, those of AWS's classes load balancers there.
func TestAWSBesideBareMetal(t *testing.T) {
	w := newWorld(t)
	a := w.inAWS(bothWorlds)
	w.onInstances(a)
	for _, c := range []struct {
		name string
		test func(*world, *amazon)
	}{
		{"Network", networkLoadBalancer},
		{"Classic", classicLoadBalancer},
		{"NetworkAnnotations", annotatedNetwork},
		{"ClassicAnnotations", annotatedClassic},
		{"NetworkTLS", secureNetwork},
		{"ClassicTLS", secureClassic},
		{"BareMetal", besideOnBareMetal},
		{"Refusals", refusedInAWS},
		{"Internal", internalInAWS},
		{"SecurityGroups", groupedInAWS},
		{"KilledMidway", killedMidway},
		{"FaultsOfAWS", faultsOfAWS},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.removedInTheEnd(a)
			c.test(w, a)
		})
	}
}

func networkLoadBalancer(w *world, a *amazon) {
	w.service("first", class("heraldlb.io/nlb")) // what is asked of AWS once is asked for it
	w.made("first")
	w.quiet(a)

	w.service("web", all(class("heraldlb.io/nlb"), twoPorts))
	name := w.hostname("web")
	w.inInventory(a, "nlb "+name+" internet-facing", "nlb "+name+" listener TCP 80", "nlb "+name+" listener TCP 443", "nodes-"+awsCluster+" lets in -1 ")
	w.sendsTo(a, "web", name)
	w.cost(a, "an NLB with two ports", 10)
	w.made("web")
	w.quiet(a) // whether it is made is asked every now and then
	tags, err := a.Tags(w.ctx, name)
	w.must(err)
	for key, want := range map[string]string{
		"kubernetes.io/cluster/" + awsCluster: "owned", "kubernetes.io/service-name": w.namespace + "/web",
	} {
		if tags[key] != want {
			w.Errorf("tags %v, want %s=%s", tags, key, want)
		}
	}

	w.annotate("web", "example.com/unrelated", "yes")
	w.cost(a, "a Service that did not change", 0)

	w.exclude("node3", true)
	w.sendsTo(a, "web", name, 2)
	w.cost(a, "a node less, of three ports", 3)
	w.exclude("node3", false)
	w.sendsTo(a, "web", name)
	w.cost(a, "a node more, of three ports", 3)

	w.edit("web", func(s *corev1.Service) { s.Spec.Ports = s.Spec.Ports[1:] })
	w.notInInventory(a, "nlb "+name+" listener TCP 80\n")
}

func classicLoadBalancer(w *world, a *amazon) {
	w.service("first", class("heraldlb.io/clb"))
	w.made("first")
	w.quiet(a)

	w.service("web", all(class("heraldlb.io/clb"), twoPorts, func(s *corev1.Service) { s.Spec.LoadBalancerSourceRanges = []string{"203.0.113.0/24"} }))
	name := w.hostname("web")
	s := w.get("web")
	w.inInventory(a, "clb "+name+" internet-facing", "from 203.0.113.0/24")
	instances := make([]string, len(a.instances))
	for i, instance := range a.instances {
		instances[i] = instance.ID
	}
	slices.Sort(instances)
	w.eventually("it sends to all nodes", func() error {
		listeners, sendsTo, err := a.Classic(w.ctx, name)
		want := []string{fmt.Sprintf("TCP 443 TCP %d", s.Spec.Ports[1].NodePort), fmt.Sprintf("TCP 80 TCP %d", s.Spec.Ports[0].NodePort)}
		if err != nil || !slices.Equal(listeners, want) || !slices.Equal(sendsTo, instances) {
			return fmt.Errorf("listeners %q, instances %v, %w", listeners, sendsTo, err)
		}
		return nil
	})
	w.cost(a, "a CLB with two ports", 7)

	w.annotate("web", "example.com/unrelated", "yes")
	w.cost(a, "a Service that did not change", 0)

	w.exclude("node3", true)
	w.eventually("it sends to the others", func() error {
		_, sendsTo, err := a.Classic(w.ctx, name)
		if err != nil || len(sendsTo) != 2 || slices.Contains(sendsTo, a.instances[2].ID) {
			return fmt.Errorf("instances %v, %w", sendsTo, err)
		}
		return nil
	})
	w.cost(a, "a node less, of two CLBs", 2)
	w.exclude("node3", false)
	w.eventually("it sends to all again", func() error {
		_, sendsTo, err := a.Classic(w.ctx, name)
		if err != nil || !slices.Equal(sendsTo, instances) {
			return fmt.Errorf("instances %v, %w", sendsTo, err)
		}
		return nil
	})
	w.cost(a, "a node more, of two CLBs", 2)
}

// besideOnBareMetal costs no call of AWS.
func besideOnBareMetal(w *world, a *amazon) {
	w.quiet(a)
	w.dualPool()
	w.pods("web", "node1")
	w.service("web", nil)
	w.reachable(w.address("web"))
	w.cost(a, "a Service on bare metal", 0)
}

// refusedInAWS is told before anything is called.
func refusedInAWS(w *world, a *amazon) {
	w.quiet(a)
	for name, annotation := range map[string][2]string{
		"internal": {"internal", "perhaps"}, "timeout": {"connection-idle-timeout", "5000"}, "protocol": {"backend-protocol", "udp"},
	} {
		w.service(name, all(class("heraldlb.io/clb"), annotated(awsAnnotation+annotation[0], annotation[1])))
		w.eventually("Service "+name+" is refused", func() error {
			condition := ready(w.get(name))
			if condition == nil || condition.Status != metav1.ConditionFalse {
				return fmt.Errorf("condition %+v", condition)
			}
			return has(condition.Message, awsAnnotation+annotation[0], annotation[1])
		})
	}
	w.cost(a, "three refusals", 0)
	w.annotate("internal", awsAnnotation+"internal", "")
	w.hostname("internal")
}

func internalInAWS(w *world, a *amazon) {
	w.service("network", all(class("heraldlb.io/nlb"), annotated(awsAnnotation+"internal", "true")))
	w.service("classic", all(class("heraldlb.io/clb"), annotated(awsAnnotation+"internal", "true")))
	w.inInventory(a, "nlb "+w.hostname("network")+" internal\n", "clb "+w.hostname("classic")+" internal\n")
}

// groupedInAWS are in a security group that is there: the nodes let it in as
// long as one of them is in it.
func groupedInAWS(w *world, a *amazon) {
	groups, err := a.EC2.DescribeSecurityGroups(w.ctx, &ec2.DescribeSecurityGroupsInput{Filters: []ec2types.Filter{
		{Name: aws.String("vpc-id"), Values: []string{a.vpc.ID}}, {Name: aws.String("group-name"), Values: []string{"default"}},
	}})
	w.must(err)
	id := aws.ToString(groups.SecurityGroups[0].GroupId)
	in := annotated(awsAnnotation+"security-groups", id)
	w.service("network", all(class("heraldlb.io/nlb"), in))
	w.service("classic", all(class("heraldlb.io/clb"), in))
	network, classic := w.hostname("network"), w.hostname("classic")
	rule := "nodes-" + awsCluster + " lets in -1 0-0 from " + id
	w.inInventory(a, rule, "nlb "+network, "clb "+classic)

	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "network", metav1.DeleteOptions{}))
	w.notInInventory(a, "nlb "+network)
	w.inInventory(a, rule, "clb "+classic)
	w.must(kube.CoreV1().Services(w.namespace).Delete(w.ctx, "classic", metav1.DeleteOptions{}))
	w.notInInventory(a, rule)

	// One that is not there is told, and not waited for.
	w.service("unknown", all(class("heraldlb.io/clb"), annotated(awsAnnotation+"security-groups", "sg-0123456789abcdef0")))
	w.eventually("Service unknown is refused", func() error {
		condition := ready(w.get("unknown"))
		if condition == nil {
			return errors.New("no condition")
		}
		return has(condition.Reason+condition.Message, "GroupNotFound", awsAnnotation+"security-groups", "sg-0123456789abcdef0")
	})
}

// killedMidway loses the controller after a call whose answer it never got.
func killedMidway(w *world, a *amazon) {
	for name, action := range map[string]string{"nlb": "CreateTargetGroup", "clb": "CreateSecurityGroup"} {
		hit := make(chan struct{})
		once := moto.Once(action, moto.Fault{Code: "InternalError", Status: 500, After: true})
		a.Proxy.Fail(func(call moto.Call) *moto.Fault {
			fault := once(call)
			if fault != nil {
				close(hit)
			}
			return fault
		})
		w.service(name, all(class("heraldlb.io/"+name), twoPorts))
		select {
		case <-hit:
		case <-time.After(patience):
			w.Fatalf("%s was never called", action)
		}
		w.must(box.Kill(w.ctx, "controller"))
		w.resume()
		w.inInventory(a, name+" "+w.hostname(name))
	}
}

// faultsOfAWS are got over, one for each call that makes a load balancer: it is
// refused, or done and the answer lost.
func faultsOfAWS(w *world, a *amazon) {
	for i, fault := range []moto.Fault{{Code: "Throttling", Status: 400}, {Code: "InternalError", Status: 500, After: true}} {
		for kind, actions := range map[string][]string{
			"nlb": {"CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateLoadBalancer", "CreateTargetGroup", "CreateListener", "RegisterTargets"},
			"clb": {"CreateSecurityGroup", "AuthorizeSecurityGroupIngress", "CreateLoadBalancer", "ConfigureHealthCheck", "RegisterInstancesWithLoadBalancer"},
		} {
			for j, action := range actions {
				a.Proxy.Calls()
				a.Proxy.Fail(moto.Once(action, fault))
				name := fmt.Sprintf("%s-%d-%d", kind, i, j)
				w.service(name, class("heraldlb.io/"+kind))
				w.inInventory(a, kind+" "+w.hostname(name))
				hit := func(call moto.Call) bool { return call.Action == action && call.Status == fault.Status }
				if calls := a.Proxy.Calls(); !slices.ContainsFunc(calls, hit) {
					w.Errorf("%s: no %s went wrong in %s", name, action, moto.Tally(calls))
				}
			}
		}
	}
}

// Without bare metal nothing of it runs: its class is another controller's, a
// Service of no class is AWS's, of the type that it asks for.
func TestAWSAlone(t *testing.T) {
	w := newWorld(t)
	a := w.inAWS(awsAlone)
	w.onInstances(a)
	t.Run("Services", func(t *testing.T) {
		w := newWorld(t)
		w.removedInTheEnd(a)
		w.dualPool()
		w.service("metal", class("heraldlb.io/bare-metal"))
		w.service("classic", nil)
		w.service("network", annotated(awsAnnotation+"type", "nlb"))
		w.inInventory(a, "clb "+w.made("classic"), "nlb "+w.made("network"))
		if s := w.get("metal"); len(s.Status.LoadBalancer.Ingress) > 0 || ready(s) != nil {
			w.Errorf("a Service of a class that is nobody's has the status %+v", s.Status)
		}
	})
	t.Run("Switched", func(t *testing.T) {
		w := newWorld(t)
		w.removedInTheEnd(a)
		switched(w, a)
	})
	t.Run("Adopted", func(t *testing.T) {
		w := newWorld(t)
		w.removedInTheEnd(a)
		adopted(w, a)
	})
}

// switched goes from one type to the other and back, and leaves nothing of it
// behind.
func switched(w *world, a *amazon) {
	w.service("web", annotated(awsAnnotation+"type", "nlb"))
	name := w.hostname("web")
	w.inInventory(a, "nlb "+name)
	w.annotate("web", awsAnnotation+"type", "clb")
	w.inInventory(a, "clb "+name)
	w.notInInventory(a, "nlb "+name)
	w.annotate("web", awsAnnotation+"type", "nlb")
	w.inInventory(a, "nlb "+name)
	w.notInInventory(a, "clb "+name)
}

// adopted takes over, as it is, what the in-tree provider has made.
func adopted(w *world, a *amazon) {
	w.must(box.Stop(w.ctx, "controller"))
	s := w.service("old", func(s *corev1.Service) { s.Finalizers = []string{"service.kubernetes.io/load-balancer-cleanup"} })
	name := ("a" + strings.ReplaceAll(string(s.UID), "-", ""))[:32]
	hostname, err := a.MakeClassic(w.ctx, a.vpc, moto.Classic{
		Name: name, Service: w.namespace + "/old", Port: 80, NodePort: s.Spec.Ports[0].NodePort, Instances: a.instances,
	})
	w.must(err)
	a.Proxy.Calls()
	w.resume()
	w.made("old")
	if got := w.get("old").Status.LoadBalancer.Ingress[0].Hostname; got != hostname {
		w.Errorf("served at %s, want %s as before", got, hostname)
	}
	calls := w.quiet(a)
	w.Logf("taking over: %s", moto.Tally(calls))
	for _, call := range calls {
		if strings.HasPrefix(call.Action, "Delete") || call.Action == "CreateLoadBalancer" {
			w.Errorf("taking over calls %s", call)
		}
	}
}
