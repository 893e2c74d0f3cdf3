package aws

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	ec2types "github.com/aws/aws-sdk-go-v2/service/ec2/types"
	corev1 "k8s.io/api/core/v1"
)

// targetNodes are the nodes that load balancers send to: also those that are
// not ready, for the health checks know better and sooner.
func targetNodes(nodes []*corev1.Node, labels map[string]string) []*corev1.Node {
	var chosen []*corev1.Node
	for _, node := range nodes {
		if eligible(node) && matches(node, labels) {
			chosen = append(chosen, node)
		}
	}
	return chosen
}

// Taints that announce the end of a node.
const (
	autoscalerTaint = "ToBeDeletedByClusterAutoscaler"
	karpenterTaint  = "karpenter.sh/disrupted"
)

func eligible(node *corev1.Node) bool {
	if excluded, ok := node.Labels[corev1.LabelNodeExcludeBalancers]; ok && excluded != "false" {
		return false
	}
	leaving := slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == autoscalerTaint || taint.Key == karpenterTaint && taint.Effect == corev1.TaintEffectNoSchedule
	})
	return node.DeletionTimestamp == nil && !leaving
}

// matches says whether the node has the labels; one without value is any value.
func matches(node *corev1.Node, labels map[string]string) bool {
	for key, value := range labels {
		if has, ok := node.Labels[key]; !ok || has != value && value != "" {
			return false
		}
	}
	return true
}

// instanceOf is the ID of the node's instance: the provider ID is
// aws:///zone/i-….
func instanceOf(node *corev1.Node) (id string, ok bool) {
	rest, ok := strings.CutPrefix(node.Spec.ProviderID, "aws://")
	if !ok {
		return "", false
	}
	id = rest[strings.LastIndex(rest, "/")+1:]
	return id, strings.HasPrefix(id, "i-")
}

// instances knows the security groups of the nodes, and which instances AWS
// does not take as targets for now.
type instances struct {
	// asking is the turn of who asks EC2 for groups.
	asking turn

	mu sync.Mutex
	// group by instance, to let load balancers in at.
	group map[string]string
	// ghosts are instances that AWS does not know or not take, and addresses of
	// pods that it does not take.
	ghosts map[string]ghost
}

func newInstances() *instances {
	return &instances{asking: newTurn(), group: map[string]string{}, ghosts: map[string]ghost{}}
}

// ghost is a target to leave out until a time.
type ghost struct {
	until time.Time
	wait  time.Duration
	// told says that its time is over and somebody knows.
	told bool
}

// Waits until a target is tried again that AWS did not take.
const (
	ghostFirst = 30 * time.Second
	ghostLast  = 16 * time.Minute
)

// haunt leaves targets out for a while, each time for longer. It returns
// those that are news.
func (i *instances) haunt(now time.Time, ids ...string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	var news []string
	for _, id := range ids {
		if _, known := i.ghosts[id]; !known {
			news = append(news, id)
		}
		i.bury(id, now)
	}
	return news
}

// haunted says whether a target is left out.
func (i *instances) haunted(id string, now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ghosts[id].until.After(now)
}

// bury leaves a target out for a while; the caller locks.
func (i *instances) bury(id string, now time.Time) {
	wait := min(max(2*i.ghosts[id].wait, ghostFirst), ghostLast)
	i.ghosts[id] = ghost{until: now.Add(wait), wait: wait}
}

// due says whether the time of a ghost is over that nobody was told of.
func (i *instances) due(now time.Time) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	due := false
	for id, ghost := range i.ghosts {
		if !ghost.told && !ghost.until.After(now) {
			ghost.told, due = true, true
			i.ghosts[id] = ghost
		}
	}
	return due
}

// keep forgets instances that no node has, and addresses that were not tried
// again when their time was over.
func (i *instances) keep(ids []string, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	gone := func(id string) bool { return !slices.Contains(ids, id) }
	maps.DeleteFunc(i.ghosts, func(id string, ghost ghost) bool {
		if !strings.HasPrefix(id, "i-") {
			return now.After(ghost.until.Add(ghostLast))
		}
		return gone(id)
	})
	maps.DeleteFunc(i.group, func(id, _ string) bool { return gone(id) })
}

// living returns the instances of nodes that are no ghosts, and those of them
// whose group is not known.
func (i *instances) living(nodes []*corev1.Node, now time.Time) (ids, unknown []string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, node := range nodes {
		id, ok := instanceOf(node)
		if !ok || i.ghosts[id].until.After(now) {
			continue
		}
		ids = append(ids, id)
		if i.group[id] == "" {
			unknown = append(unknown, id)
		}
	}
	return ids, unknown
}

// groupsOf are the groups of instances, as far as they are known.
func (i *instances) groupsOf(ids []string) []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	groups := map[string]bool{}
	for _, id := range ids {
		if group := i.group[id]; group != "" {
			groups[group] = true
		}
	}
	return slices.Sorted(maps.Keys(groups))
}

// learn remembers the groups of instances. One that EC2 does not name is a
// ghost, and no error for the others: filters are not strict about what they
// name.
func (i *instances) learn(ids []string, groups map[string]string, now time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, id := range ids {
		if i.group[id] = groups[id]; i.group[id] == "" {
			i.bury(id, now)
		}
	}
}

// livingTargets returns the instances to send to and their security groups.
func (p *Provider) livingTargets(ctx context.Context, nodes []*corev1.Node) (ids, groups []string, err error) {
	now := time.Now()
	ids, unknown := p.instances.living(nodes, now)
	if len(p.NodeSecurityGroups) > 0 {
		return ids, slices.Sorted(slices.Values(p.NodeSecurityGroups)), nil
	}
	if len(unknown) > 0 {
		done, err := p.instances.asking.take(ctx)
		if err != nil {
			return nil, nil, err
		}
		defer done()
		_, unknown = p.instances.living(nodes, now)
		if err := p.learnInstances(ctx, unknown, now); err != nil {
			return nil, nil, err
		}
		ids, _ = p.instances.living(nodes, now)
	}
	return ids, p.instances.groupsOf(ids), nil
}

// learnInstances reads the groups of instances, whose turn it is.
func (p *Provider) learnInstances(ctx context.Context, ids []string, now time.Time) error {
	for some := range slices.Chunk(ids, filterLimit) {
		reservations, err := collect(func(token *string) ([]ec2types.Reservation, *string, error) {
			out, err := call(ctx, p, p.EC2.DescribeInstances, &ec2.DescribeInstancesInput{
				Filters: []ec2types.Filter{{Name: awssdk.String("instance-id"), Values: some}}, NextToken: token,
			})
			if err != nil {
				return nil, nil, err
			}
			return out.Reservations, out.NextToken, nil
		})
		if err != nil {
			return err
		}
		groups := map[string]string{}
		for _, reservation := range reservations {
			for at := range reservation.Instances {
				instance := &reservation.Instances[at]
				group, err := p.groupOf(ctx, instance)
				if err != nil {
					return err
				}
				groups[awssdk.ToString(instance.InstanceId)] = group
			}
		}
		p.instances.learn(some, groups, now)
	}
	return nil
}

// groupOf is the security group of an instance to let load balancers in at:
// its only one, or the one with the cluster's tag, or the first.
func (p *Provider) groupOf(ctx context.Context, instance *ec2types.Instance) (string, error) {
	var ids []string
	for _, group := range instance.SecurityGroups {
		ids = append(ids, awssdk.ToString(group.GroupId))
	}
	slices.Sort(ids)
	if len(ids) < 2 {
		return strings.Join(ids, ""), nil
	}
	tagged, err := p.clusterGroups.get(ctx, time.Now().Add(-snapshotAge))
	if err != nil {
		return "", err
	}
	for _, id := range ids {
		if slices.ContainsFunc(tagged, func(group ec2types.SecurityGroup) bool { return awssdk.ToString(group.GroupId) == id }) {
			return id, nil
		}
	}
	return ids[0], nil
}

// knownNodes are all nodes of the cluster.
func (p *Provider) knownNodes() []*corev1.Node {
	var nodes []*corev1.Node
	for _, object := range p.nodes.GetStore().List() {
		nodes = append(nodes, object.(*corev1.Node))
	}
	return nodes
}
