package model

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/heraldlb/herald/providers/aws/settings"
)

// Identity says whose the pieces are. Names follow from it, not from what the
// Service asks for: what was made for it is found whatever it asks for today.
type Identity struct {
	Cluster         string
	Namespace, Name string
	UID             string
}

// The tags on every piece.
const (
	clusterTagPrefix = "kubernetes.io/cluster/"
	// ServiceTag has the namespace/name of the Service.
	ServiceTag = "kubernetes.io/service-name"
)

// ClusterTag is the key of the tag that marks what is the cluster's.
func ClusterTag(cluster string) string { return clusterTagPrefix + cluster }

// IsClusterTag says whether the key is one of a cluster.
func IsClusterTag(key string) bool { return strings.HasPrefix(key, clusterTagPrefix) }

// Tags of every piece.
func (id Identity) Tags() map[string]string {
	return map[string]string{ClusterTag(id.Cluster): "owned", ServiceTag: id.Namespace + "/" + id.Name}
}

// Owns says whether the tags of a piece are those of this Service.
func (id Identity) Owns(tags map[string]string) bool {
	_, ours := tags[ClusterTag(id.Cluster)]
	return ours && tags[ServiceTag] == id.Namespace+"/"+id.Name
}

// LoadBalancerName is the name that the in-tree provider gives as well: what
// it made is found, and kept.
func (id Identity) LoadBalancerName() string {
	return clip("a"+strings.ReplaceAll(id.UID, "-", ""), 32)
}

// GroupPrefix is how the names of security groups of load balancers start.
const GroupPrefix = "k8s-elb-"

// GroupName is the name of the security group of the load balancer.
func (id Identity) GroupName() string { return GroupPrefix + id.LoadBalancerName() }

// TargetGroupsPrefix is how the names of all target groups of Services start.
const TargetGroupsPrefix = "k8s-"

// targetGroupName is made of what can never change of a target group, and
// starts as the in-tree provider has it: two hyphens in a row, as a name that is
// cut may leave them, are not taken everywhere.
func (id Identity) targetGroupName(port int32, protocol settings.Protocol, ips, ipv6 bool) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s/%d/%s/%t/%t", id.Cluster, id.UID, port, protocol, ips, ipv6))
	return fmt.Sprintf("%s%s-%s-%s", TargetGroupsPrefix, clip(unhyphened(id.Namespace), 8), clip(unhyphened(id.Name), 8), hex.EncodeToString(sum[:])[:10])
}

func unhyphened(name string) string { return strings.ReplaceAll(name, "-", "") }

func clip(text string, length int) string { return text[:min(len(text), length)] }
