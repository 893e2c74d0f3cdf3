// Package instances tells the stock node controllers of the EC2 instances
// behind Nodes. It never calls an instance gone because of an error, nor a
// machine that is none of EC2's.
package instances

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
	corev1 "k8s.io/api/core/v1"
	cloudprovider "k8s.io/cloud-provider"
	cloudproviderapi "k8s.io/cloud-provider/api"
)

// API is what is called of EC2.
type API interface {
	DescribeInstances(ctx context.Context, input *ec2.DescribeInstancesInput, options ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
}

// What EC2 takes in one request, and how long questions wait for others to
// share it. An answer is good for as long as the controllers take from their
// first question about a Node to the second.
const (
	maxIDs   = 500
	maxNames = 200
	window   = 50 * time.Millisecond
	fresh    = 2 * time.Second
	patience = 30 * time.Second
)

// labelZoneID is the Node label of the zone's ID, which is the same in all
// accounts where its name is not.
const labelZoneID = "topology.k8s.aws/zone-id"

// The codes by which EC2 rejects all of a request for one of its IDs.
const (
	codeNotFound  = "InvalidInstanceID.NotFound"
	codeMalformed = "InvalidInstanceID.Malformed"
)

// Instances is a cloudprovider.InstancesV2. Questions that come together are
// asked in one request.
type Instances struct {
	api    API
	region string
	byID   *queue
	byName *queue

	mu     sync.Mutex
	recent map[string]seen
}

// seen is an instance as EC2 told of it.
type seen struct {
	instance *types.Instance
	at       time.Time
}

var _ cloudprovider.InstancesV2 = (*Instances)(nil)

// New returns the Instances of a region.
func New(api API, region string) *Instances {
	i := &Instances{api: api, region: region, recent: map[string]seen{}}
	i.byID = &queue{limit: maxIDs, ask: i.describe}
	i.byName = &queue{limit: maxNames, ask: i.find}
	return i
}

// InstanceExists is false when EC2 says so of the ID, or that the instance is
// terminated. A Node that is no instance exists as long as it is not ours.
func (i *Instances) InstanceExists(ctx context.Context, node *corev1.Node) (bool, error) {
	instance, err := i.of(ctx, node)
	switch {
	case errors.Is(err, errForeign):
		return true, nil
	case errors.Is(err, cloudprovider.InstanceNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return state(instance) != types.InstanceStateNameTerminated, nil
}

// InstanceShutdown is true for an instance that is stopped. One that is about
// to be may still run pods.
func (i *Instances) InstanceShutdown(ctx context.Context, node *corev1.Node) (bool, error) {
	instance, err := i.of(ctx, node)
	if errors.Is(err, errForeign) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return state(instance) == types.InstanceStateNameStopped, nil
}

// InstanceMetadata is what EC2 knows of a Node's instance. A Node that is none
// gets nothing: while it waits for a cloud to claim it nil, by which the node
// controller leaves it waiting, and else no addresses, by which it keeps those
// that it has.
func (i *Instances) InstanceMetadata(ctx context.Context, node *corev1.Node) (*cloudprovider.InstanceMetadata, error) {
	instance, err := i.of(ctx, node)
	if errors.Is(err, errForeign) && uninitialized(node) {
		return nil, nil
	}
	if errors.Is(err, errForeign) {
		return &cloudprovider.InstanceMetadata{}, nil
	}
	if err != nil {
		return nil, err
	}
	return metadata(instance, i.region)
}

func metadata(instance *types.Instance, region string) (*cloudprovider.InstanceMetadata, error) {
	id := aws.ToString(instance.InstanceId)
	if instance.Placement == nil || aws.ToString(instance.Placement.AvailabilityZone) == "" {
		return nil, fmt.Errorf("instance %s: EC2 names no zone", id)
	}
	zone := aws.ToString(instance.Placement.AvailabilityZone)
	known := &cloudprovider.InstanceMetadata{
		ProviderID:    "aws:///" + zone + "/" + id,
		InstanceType:  string(instance.InstanceType),
		NodeAddresses: addresses(instance),
		Zone:          zone,
		Region:        region,
	}
	if zoneID := aws.ToString(instance.Placement.AvailabilityZoneId); zoneID != "" {
		known.AdditionalLabels = map[string]string{labelZoneID: zoneID}
	}
	return known, nil
}

// addresses are those of a Node on the instance: the first address of each
// interface, in the order of the devices and IPv4 first, then what leads to it
// from outside, then names. Further addresses of an interface are those of
// pods where the VPC gives pods theirs.
func addresses(instance *types.Instance) []corev1.NodeAddress {
	var found []corev1.NodeAddress
	add := func(kind corev1.NodeAddressType, address *string) {
		entry := corev1.NodeAddress{Type: kind, Address: aws.ToString(address)}
		if entry.Address != "" && !slices.Contains(found, entry) {
			found = append(found, entry)
		}
	}
	interfaces := slices.DeleteFunc(slices.Clone(instance.NetworkInterfaces), func(n types.InstanceNetworkInterface) bool {
		return n.Status != "" && n.Status != types.NetworkInterfaceStatusInUse
	})
	slices.SortStableFunc(interfaces, func(a, b types.InstanceNetworkInterface) int {
		return int(deviceIndex(a) - deviceIndex(b))
	})
	for _, n := range interfaces {
		add(corev1.NodeInternalIP, n.PrivateIpAddress)
	}
	if len(interfaces) == 0 {
		add(corev1.NodeInternalIP, instance.PrivateIpAddress)
	}
	for _, n := range interfaces {
		if len(n.Ipv6Addresses) > 0 {
			add(corev1.NodeInternalIP, n.Ipv6Addresses[0].Ipv6Address)
		}
	}
	add(corev1.NodeExternalIP, instance.PublicIpAddress)
	add(corev1.NodeInternalDNS, instance.PrivateDnsName)
	add(corev1.NodeExternalDNS, instance.PublicDnsName)
	return found
}

// deviceIndex orders the interfaces of an instance: those of its first network
// card come first.
func deviceIndex(n types.InstanceNetworkInterface) int32 {
	if n.Attachment == nil {
		return 0
	}
	return aws.ToInt32(n.Attachment.NetworkCardIndex)<<16 + aws.ToInt32(n.Attachment.DeviceIndex)
}

// of returns a Node's instance. The error is cloudprovider.InstanceNotFound
// only when EC2 was asked and knows of none, and errForeign when the Node is
// no instance.
func (i *Instances) of(ctx context.Context, node *corev1.Node) (*types.Instance, error) {
	id, err := instanceID(node, i.region)
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", node.Name, err)
	}
	if id != "" {
		return i.ofID(ctx, id)
	}
	found := i.byName.get(ctx, node.Name)
	switch {
	case found.err != nil:
		return nil, fmt.Errorf("node %s: %w", node.Name, found.err)
	case found.instance != nil:
		return found.instance, nil
	case !uninitialized(node):
		return nil, errForeign // no cloud ever claimed it
	case !nameOfEC2(node.Name):
		return nil, fmt.Errorf("node %s: it has no providerID, and no instance has this private DNS name: it may be any machine", node.Name)
	}
	return nil, fmt.Errorf("node %s: no instance has this private DNS name: %w", node.Name, cloudprovider.InstanceNotFound)
}

func (i *Instances) ofID(ctx context.Context, id string) (*types.Instance, error) {
	if instance := i.recall(id, time.Now()); instance != nil {
		return instance, nil
	}
	found := i.byID.get(ctx, id)
	if found.err != nil {
		return nil, fmt.Errorf("instance %s: %w", id, found.err)
	}
	if found.instance == nil {
		return nil, fmt.Errorf("instance %s: %w", id, cloudprovider.InstanceNotFound)
	}
	return found.instance, nil
}

// recall returns an instance that EC2 told of just now.
func (i *Instances) recall(id string, now time.Time) *types.Instance {
	i.mu.Lock()
	defer i.mu.Unlock()
	if s, ok := i.recent[id]; ok && now.Sub(s.at) < fresh {
		return s.instance
	}
	return nil
}

func (i *Instances) remember(found map[string]answer, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for id, s := range i.recent {
		if now.Sub(s.at) >= fresh {
			delete(i.recent, id)
		}
	}
	for id, a := range found {
		if a.instance != nil {
			i.recent[id] = seen{a.instance, now}
		}
	}
}

// describe asks for instances by ID. EC2 rejects all of a request in which it
// does not know one: what is asked is then split, until the one stands alone.
func (i *Instances) describe(ctx context.Context, ids []string) map[string]answer {
	found, err := i.request(ctx, &ec2.DescribeInstancesInput{InstanceIds: ids})
	answers := make(map[string]answer, len(ids))
	if err == nil {
		for _, id := range ids {
			answers[id] = answer{instance: found[id]}
		}
		i.remember(answers, time.Now())
		return answers
	}
	rejected, _ := errors.AsType[smithy.APIError](err)
	if rejected == nil || rejected.ErrorCode() != codeNotFound && rejected.ErrorCode() != codeMalformed {
		for _, id := range ids {
			answers[id] = answer{err: err}
		}
		return answers
	}
	if len(ids) == 1 {
		if rejected.ErrorCode() == codeNotFound {
			err = nil
		}
		return map[string]answer{ids[0]: {err: err}}
	}
	for _, part := range split(ids, rejected.ErrorMessage()) {
		for id, a := range i.describe(ctx, part) {
			answers[id] = a
		}
	}
	return answers
}

// split parts the IDs that the message of a rejection names from the others.
// If it does not tell them apart, it parts them in halves.
func split(ids []string, message string) [2][]string {
	words := map[string]bool{}
	for word := range strings.FieldsFuncSeq(message, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') }) {
		words[word] = true
	}
	var parts [2][]string
	for _, id := range ids {
		if words[id] {
			parts[0] = append(parts[0], id)
		} else {
			parts[1] = append(parts[1], id)
		}
	}
	if len(parts[0]) == 0 || len(parts[1]) == 0 {
		half := len(ids) / 2
		return [2][]string{ids[:half], ids[half:]}
	}
	return parts
}

// find asks for instances by private DNS name. Terminated ones are left out:
// another may have their name by now.
func (i *Instances) find(ctx context.Context, names []string) map[string]answer {
	found, err := i.request(ctx, &ec2.DescribeInstancesInput{Filters: []types.Filter{
		{Name: aws.String("private-dns-name"), Values: names},
		{Name: aws.String("instance-state-name"), Values: []string{
			string(types.InstanceStateNamePending), string(types.InstanceStateNameRunning), string(types.InstanceStateNameShuttingDown),
			string(types.InstanceStateNameStopping), string(types.InstanceStateNameStopped),
		}},
	}})
	byName := map[string]*types.Instance{}
	twice := map[string]bool{}
	for _, instance := range found {
		name := aws.ToString(instance.PrivateDnsName)
		twice[name] = byName[name] != nil
		byName[name] = instance
	}
	answers := make(map[string]answer, len(names))
	for _, name := range names {
		answers[name] = answer{instance: byName[name], err: err}
		if twice[name] {
			answers[name] = answer{err: errors.New("several instances have this private DNS name")}
		}
	}
	return answers
}

// request returns all instances of an answer by their IDs.
func (i *Instances) request(ctx context.Context, input *ec2.DescribeInstancesInput) (map[string]*types.Instance, error) {
	found := map[string]*types.Instance{}
	for {
		page, err := i.api.DescribeInstances(ctx, input)
		if err != nil {
			return nil, fmt.Errorf("asking EC2: %w", err)
		}
		for _, reservation := range page.Reservations {
			for n := range reservation.Instances {
				found[aws.ToString(reservation.Instances[n].InstanceId)] = &reservation.Instances[n]
			}
		}
		if aws.ToString(page.NextToken) == "" {
			return found, nil
		}
		input.NextToken = page.NextToken
	}
}

// state is what the instance does; pending when EC2 does not say.
func state(instance *types.Instance) types.InstanceStateName {
	if instance.State == nil {
		return types.InstanceStateNamePending
	}
	return instance.State.Name
}

// uninitialized says that the Node waits for a cloud to claim it.
func uninitialized(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == cloudproviderapi.TaintExternalCloudProvider })
}
