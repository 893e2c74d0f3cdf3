package instances

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
)

const (
	region = "eu-central-1"
	zone   = "eu-central-1a"
)

// account is EC2 as far as DescribeInstances shows it.
type account struct {
	mu        sync.Mutex
	instances map[string]types.Instance
	// silent rejections do not name the IDs that are unknown.
	silent bool
	// fail answers every request when set.
	fail error
	// requests has the number of IDs or names of each request.
	requests []int
}

func (a *account) DescribeInstances(ctx context.Context, input *ec2.DescribeInstancesInput, _ ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(input.InstanceIds) > 0 {
		a.requests = append(a.requests, len(input.InstanceIds))
		return a.byID(input.InstanceIds)
	}
	return a.byFilter(input)
}

func (a *account) byID(ids []string) (*ec2.DescribeInstancesOutput, error) {
	if a.fail != nil {
		return nil, a.fail
	}
	if len(ids) > 1000 {
		return nil, &smithy.GenericAPIError{Code: "InvalidParameterValue", Message: "too many"}
	}
	var unknown []string
	out := &ec2.DescribeInstancesOutput{}
	for _, id := range ids {
		instance, ok := a.instances[id]
		if !ok {
			unknown = append(unknown, id)
			continue
		}
		out.Reservations = append(out.Reservations, types.Reservation{Instances: []types.Instance{instance}})
	}
	if len(unknown) > 0 {
		message := fmt.Sprintf("The instance IDs '%s' do not exist", strings.Join(unknown, ", "))
		if a.silent {
			message = "Some of the instances do not exist"
		}
		return nil, &smithy.GenericAPIError{Code: codeNotFound, Message: message}
	}
	return out, nil
}

// byFilter answers in pages of one.
func (a *account) byFilter(input *ec2.DescribeInstancesInput) (*ec2.DescribeInstancesOutput, error) {
	values := map[string][]string{}
	for _, filter := range input.Filters {
		if len(filter.Values) > 200 {
			return nil, &smithy.GenericAPIError{Code: "FilterLimitExceeded", Message: "too many"}
		}
		values[aws.ToString(filter.Name)] = filter.Values
	}
	if input.NextToken == nil {
		a.requests = append(a.requests, len(values["private-dns-name"]))
	}
	if a.fail != nil {
		return nil, a.fail
	}
	var found []string
	for id, instance := range a.instances {
		if slices.Contains(values["private-dns-name"], aws.ToString(instance.PrivateDnsName)) &&
			slices.Contains(values["instance-state-name"], string(instance.State.Name)) {
			found = append(found, id)
		}
	}
	slices.Sort(found)
	from := 0
	if input.NextToken != nil {
		from = slices.Index(found, *input.NextToken)
	}
	out := &ec2.DescribeInstancesOutput{}
	if from < len(found) {
		out.Reservations = []types.Reservation{{Instances: []types.Instance{a.instances[found[from]]}}}
	}
	if from+1 < len(found) {
		out.NextToken = aws.String(found[from+1])
	}
	return out, nil
}

func (a *account) asked() []int {
	a.mu.Lock()
	defer a.mu.Unlock()
	asked := a.requests
	a.requests = nil
	return asked
}

func newAccount(instances ...types.Instance) *account {
	a := &account{instances: map[string]types.Instance{}}
	for _, instance := range instances {
		a.instances[aws.ToString(instance.InstanceId)] = instance
	}
	return a
}

func id(n int) string { return fmt.Sprintf("i-%017x", n) }

func dnsName(n int) string { return fmt.Sprintf("ip-10-0-0-%d.%s.compute.internal", n, region) }

func instance(n int, state types.InstanceStateName) types.Instance {
	return types.Instance{
		InstanceId:     aws.String(id(n)),
		InstanceType:   types.InstanceTypeM5Large,
		PrivateDnsName: aws.String(dnsName(n)),
		Placement:      &types.Placement{AvailabilityZone: aws.String(zone), AvailabilityZoneId: aws.String("euc1-az2")},
		State:          &types.InstanceState{Name: state},
		NetworkInterfaces: []types.InstanceNetworkInterface{{
			Status: types.NetworkInterfaceStatusInUse, PrivateIpAddress: aws.String(fmt.Sprintf("10.0.0.%d", n)),
		}},
	}
}

func node(name, providerID string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{ProviderID: providerID}}
}

func waiting(n *corev1.Node) *corev1.Node {
	n.Spec.Taints = []corev1.Taint{{Key: cloudproviderapi.TaintExternalCloudProvider, Effect: corev1.TaintEffectNoSchedule}}
	return n
}

func of(n int) *corev1.Node { return node(fmt.Sprint("node-", n), "aws:///"+zone+"/"+id(n)) }

func TestExistsAndShutdown(t *testing.T) {
	a := newAccount(
		instance(1, types.InstanceStateNameRunning), instance(2, types.InstanceStateNameStopped), instance(3, types.InstanceStateNameTerminated),
		instance(4, types.InstanceStateNamePending), instance(5, types.InstanceStateNameStopping), instance(6, types.InstanceStateNameShuttingDown))
	for _, c := range []struct {
		name             string
		node             *corev1.Node
		exists, shutdown bool
		// err is a word of the error of both, missing that only InstanceExists
		// has none.
		err     string
		missing bool
	}{
		{name: "running", node: of(1), exists: true},
		{name: "pending", node: of(4), exists: true},
		{name: "stopped", node: of(2), exists: true, shutdown: true},
		{name: "stopping may still run pods", node: of(5), exists: true},
		{name: "shutting down is not gone yet", node: of(6), exists: true},
		{name: "terminated", node: of(3)},
		{name: "unknown to EC2", node: of(7), missing: true},
		{name: "no zone in the providerID", node: node("a", "aws:///"+id(1)), exists: true},
		{name: "the short form", node: node("a", "aws://"+id(2)), exists: true, shutdown: true},
		{name: "an ID of another form", node: node("a", "aws:///"+zone+"/i-xyz"), err: `"i-xyz"`},
		{name: "another region would not know it", node: node("a", "aws:///us-east-1a/"+id(7)), err: region},
		{name: "another cloud's machine", node: node("a", "gce://project/zone/name"), exists: true},
		{name: "Fargate has no instance", node: node("a", "aws:///"+zone+"/9c0b/fargate-ip-10-0-0-9"), exists: true},
		{name: "by private DNS name", node: node(dnsName(1), ""), exists: true},
		{name: "by private DNS name, stopped", node: node(dnsName(2), ""), exists: true, shutdown: true},
		{name: "by a name made of the ID", node: node(id(2)+"."+region+".compute.internal", ""), exists: true, shutdown: true},
		{name: "by a name made of the ID, unknown", node: node(id(7)+"."+region+".compute.internal", ""), missing: true},
		{name: "never claimed by a cloud", node: node("rack1", ""), exists: true},
		{name: "waits for a cloud, may be any machine", node: waiting(node("rack1", "")), err: "any machine"},
		{name: "waits for a cloud, with a name of EC2's", node: waiting(node(dnsName(9), "")), missing: true},
		{name: "terminated, the name is free", node: waiting(node(dnsName(3), "")), missing: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := New(a, region)
			exists, err := i.InstanceExists(t.Context(), c.node)
			check(t, err, c.err)
			if exists != c.exists {
				t.Errorf("InstanceExists: %v, want %v", exists, c.exists)
			}
			shutdown, err := i.InstanceShutdown(t.Context(), c.node)
			if c.missing {
				if !errors.Is(err, cloudprovider.InstanceNotFound) {
					t.Errorf("InstanceShutdown: error %v, want InstanceNotFound", err)
				}
				return
			}
			check(t, err, c.err)
			if shutdown != c.shutdown {
				t.Errorf("InstanceShutdown: %v, want %v", shutdown, c.shutdown)
			}
		})
	}
}

func check(t *testing.T, err error, word string) {
	t.Helper()
	if word == "" && err != nil || word != "" && (err == nil || !strings.Contains(err.Error(), word)) {
		t.Errorf("error %v, want one with %q", err, word)
	}
}

// Whatever EC2 answers other than that there is no such instance is no reason
// to give up a Node.
func TestNoErrorMakesAnInstanceGone(t *testing.T) {
	for _, code := range []string{
		"RequestLimitExceeded", "UnauthorizedOperation", "AuthFailure", "InternalError", "InvalidParameterValue", codeMalformed,
		"ExpiredToken", "NotFound", "InvalidInstanceID", "OptInRequired", "Unavailable",
	} {
		a := newAccount(instance(1, types.InstanceStateNameRunning))
		a.fail = &smithy.GenericAPIError{Code: code, Message: "no"}
		for _, n := range []*corev1.Node{of(1), of(7), waiting(node(dnsName(9), ""))} {
			exists, err := New(a, region).InstanceExists(t.Context(), n)
			if err == nil {
				t.Errorf("%s: %s exists: %v, without error", code, n.Name, exists)
			}
		}
	}
	a := newAccount()
	a.fail = errors.New("connection refused")
	if exists, err := New(a, region).InstanceExists(t.Context(), of(1)); err == nil {
		t.Errorf("no connection: exists %v, without error", exists)
	}
}

func TestMetadata(t *testing.T) {
	attached := func(card, device int32, status types.NetworkInterfaceStatus, v4 string, v6 ...string) types.InstanceNetworkInterface {
		n := types.InstanceNetworkInterface{
			Status: status, PrivateIpAddress: aws.String(v4),
			PrivateIpAddresses: []types.InstancePrivateIpAddress{{PrivateIpAddress: aws.String(v4)}, {PrivateIpAddress: aws.String("10.9.9.9")}},
			Attachment:         &types.InstanceNetworkInterfaceAttachment{DeviceIndex: aws.Int32(device), NetworkCardIndex: aws.Int32(card)},
		}
		for _, address := range v6 {
			n.Ipv6Addresses = append(n.Ipv6Addresses, types.InstanceIpv6Address{Ipv6Address: aws.String(address)})
		}
		return n
	}
	many := instance(1, types.InstanceStateNameRunning)
	many.PublicIpAddress, many.PublicDnsName = aws.String("203.0.113.7"), aws.String("ec2-203-0-113-7.compute.amazonaws.com")
	many.NetworkInterfaces = []types.InstanceNetworkInterface{
		attached(1, 1, "in-use", "10.0.3.1"),
		attached(0, 2, "in-use", "10.0.2.1", "2001:db8::2", "2001:db8::3"),
		attached(0, 1, "detaching", "10.0.4.1"),
		attached(0, 0, "in-use", "10.0.1.1", "2001:db8::1"),
	}
	bare := instance(2, types.InstanceStateNamePending)
	bare.NetworkInterfaces, bare.PrivateDnsName, bare.PrivateIpAddress = nil, aws.String(""), aws.String("10.0.0.2")
	bare.Placement.AvailabilityZoneId = nil
	nowhere := instance(3, types.InstanceStateNameRunning)
	nowhere.Placement = nil
	i := New(newAccount(many, bare, nowhere), region)

	type address = corev1.NodeAddress
	for _, c := range []struct {
		name string
		node *corev1.Node
		want *cloudprovider.InstanceMetadata
		err  string
	}{
		{name: "addresses by device, IPv4 first", node: of(1), want: &cloudprovider.InstanceMetadata{
			ProviderID: "aws:///" + zone + "/" + id(1), InstanceType: "m5.large", Zone: zone, Region: region,
			AdditionalLabels: map[string]string{"topology.k8s.aws/zone-id": "euc1-az2"},
			NodeAddresses: []address{
				{Type: "InternalIP", Address: "10.0.1.1"}, {Type: "InternalIP", Address: "10.0.2.1"}, {Type: "InternalIP", Address: "10.0.3.1"},
				{Type: "InternalIP", Address: "2001:db8::1"}, {Type: "InternalIP", Address: "2001:db8::2"},
				{Type: "ExternalIP", Address: "203.0.113.7"}, {Type: "InternalDNS", Address: dnsName(1)},
				{Type: "ExternalDNS", Address: "ec2-203-0-113-7.compute.amazonaws.com"},
			},
		}},
		{name: "nothing but an address", node: of(2), want: &cloudprovider.InstanceMetadata{
			ProviderID: "aws:///" + zone + "/" + id(2), InstanceType: "m5.large", Zone: zone, Region: region,
			NodeAddresses: []address{{Type: "InternalIP", Address: "10.0.0.2"}},
		}},
		{name: "no zone", node: of(3), err: "zone"},
		{name: "unknown", node: of(7), err: "not found"},
		{name: "another cloud's keeps its addresses", node: node("a", "gce://b"), want: &cloudprovider.InstanceMetadata{}},
		{name: "another cloud's goes on waiting for it", node: waiting(node("a", "gce://b"))},
		{name: "never claimed by a cloud", node: node("rack1", ""), want: &cloudprovider.InstanceMetadata{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := i.InstanceMetadata(t.Context(), c.node)
			check(t, err, c.err)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// exists asks for all at once and returns the numbers of those that exist.
func exists(t *testing.T, i *Instances, nodes []*corev1.Node) (found []int, errs []error) {
	t.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	for n, node := range nodes {
		group.Go(func() {
			yes, err := i.InstanceExists(t.Context(), node)
			mu.Lock()
			defer mu.Unlock()
			if yes {
				found = append(found, n)
			}
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	group.Wait()
	return found, errs
}

func TestBatches(t *testing.T) {
	for _, c := range []struct {
		name     string
		nodes    int
		ghosts   []int
		silent   bool
		requests []int
	}{
		{name: "one", nodes: 1, requests: []int{1}},
		{name: "five hundred", nodes: 500, requests: []int{500}},
		{name: "one more than fit", nodes: 501, requests: []int{1, 500}},
		{name: "a ghost among five hundred", nodes: 500, ghosts: []int{123}, requests: []int{1, 499, 500}},
		{name: "three ghosts", nodes: 500, ghosts: []int{0, 123, 499}, requests: []int{1, 1, 1, 2, 3, 497, 500}},
		{name: "a rejection without names is bisected", nodes: 8, ghosts: []int{5}, silent: true, requests: []int{1, 1, 2, 2, 4, 4, 8}},
		{name: "ghosts alone", nodes: 2, ghosts: []int{0, 1}, requests: []int{1, 1, 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAccount()
				a.silent = c.silent
				var nodes []*corev1.Node
				var want []int
				for n := range c.nodes {
					nodes = append(nodes, of(n))
					if !slices.Contains(c.ghosts, n) {
						a.instances[id(n)] = instance(n, types.InstanceStateNameRunning)
						want = append(want, n)
					}
				}
				found, errs := exists(t, New(a, region), nodes)
				slices.Sort(found)
				if diff := cmp.Diff(want, found); diff != "" || len(errs) > 0 {
					t.Errorf("exist: -want +got\n%s, errors %v", diff, errs)
				}
				asked := a.asked()
				slices.Sort(asked)
				if diff := cmp.Diff(c.requests, asked); diff != "" {
					t.Errorf("requests: -want +got\n%s", diff)
				}
			})
		})
	}
}

// A malformed ID that EC2 rejects costs the others nothing, and is no proof
// that its instance is gone.
func TestMalformedIDStandsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &picky{account: newAccount(instance(1, types.InstanceStateNameRunning), instance(2, types.InstanceStateNameRunning)), bad: id(3)}
		found, errs := exists(t, New(a, region), []*corev1.Node{of(1), of(2), of(3)})
		if len(found) != 2 || len(errs) != 1 {
			t.Errorf("%v exist, errors %v; want two, and one error", found, errs)
		}
	})
}

// picky calls an ID malformed.
type picky struct {
	*account
	bad string
}

func (p *picky) DescribeInstances(ctx context.Context, input *ec2.DescribeInstancesInput, options ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	if slices.Contains(input.InstanceIds, p.bad) {
		return nil, &smithy.GenericAPIError{Code: codeMalformed, Message: fmt.Sprintf("Invalid id: %q", p.bad)}
	}
	return p.account.DescribeInstances(ctx, input, options...)
}

func TestNamesAreAskedInBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount()
		var nodes []*corev1.Node
		for n := range 250 {
			a.instances[id(n)] = instance(n, types.InstanceStateNameRunning)
			nodes = append(nodes, node(dnsName(n), ""))
		}
		found, errs := exists(t, New(a, region), nodes)
		asked := a.asked()
		slices.Sort(asked)
		if len(found) != 250 || len(errs) > 0 || !slices.Equal(asked, []int{50, 200}) {
			t.Errorf("%d of 250 exist, errors %v, requests %v; want 50 and 200", len(found), errs, asked)
		}
	})
}

func TestNameOfSeveralIsRefused(t *testing.T) {
	one, two := instance(1, types.InstanceStateNameRunning), instance(2, types.InstanceStateNameRunning)
	two.PrivateDnsName = one.PrivateDnsName
	_, err := New(newAccount(one, two), region).InstanceExists(t.Context(), node(dnsName(1), ""))
	check(t, err, "several")
}

// The questions about one Node that follow each other cost one request, and
// what EC2 said is soon asked again.
func TestAnswersAreFresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(instance(1, types.InstanceStateNameRunning))
		i := New(a, region)
		ask := func() (exists, shutdown bool) {
			exists, err := i.InstanceExists(t.Context(), of(1))
			if err != nil {
				t.Fatal(err)
			}
			shutdown, err = i.InstanceShutdown(t.Context(), of(1))
			if err != nil {
				t.Fatal(err)
			}
			return exists, shutdown
		}
		if exists, shutdown := ask(); !exists || shutdown {
			t.Errorf("running: exists %v, shutdown %v", exists, shutdown)
		}
		if asked := a.asked(); !slices.Equal(asked, []int{1}) {
			t.Errorf("requests of %v IDs, want one", asked)
		}
		a.instances[id(1)] = instance(1, types.InstanceStateNameStopped)
		time.Sleep(fresh)
		if exists, shutdown := ask(); !exists || !shutdown {
			t.Errorf("stopped: exists %v, shutdown %v", exists, shutdown)
		}
	})
}

// Who asks first waits for others; when it gives up they get their answers.
func TestOthersOutliveTheFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := New(newAccount(instance(1, types.InstanceStateNameRunning), instance(2, types.InstanceStateNameRunning)), region)
		first, giveUp := context.WithCancel(t.Context())
		go func() { _, _ = i.InstanceExists(first, of(1)) }()
		synctest.Wait()
		giveUp()
		if exists, err := i.InstanceExists(t.Context(), of(2)); err != nil || !exists {
			t.Errorf("exists %v, %v", exists, err)
		}
	})
}

// Who follows another does not wait longer than it wants to.
func TestFollowersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := New(newAccount(), region)
		go func() { _, _ = i.InstanceExists(t.Context(), of(1)) }()
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if exists, err := i.InstanceExists(ctx, of(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("exists %v, %v; want an error", exists, err)
		}
		time.Sleep(window)
	})
}
