package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// VirtualIP is one address that is given to Services, or kept for one. It is
// named after the address, so that the API server refuses to give an address
// twice. It holds all that a speaker needs to know to announce the address.
//
// A person may create one to reserve an address ahead of its Service.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=vip;vips
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Pool",type=string,JSONPath=`.spec.pool`
// +kubebuilder:printcolumn:name="Services",type=string,JSONPath=`.spec.summary.services`
// +kubebuilder:printcolumn:name="Owner",type=string,JSONPath=`.status.owner`
// +kubebuilder:printcolumn:name="Announced",type=string,JSONPath=`.status.conditions[?(@.type=="Announced")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Announced")].reason`
// +kubebuilder:printcolumn:name="Hold",type=string,JSONPath=`.spec.hold`
// +kubebuilder:printcolumn:name="Since",type=date,JSONPath=`.status.ownerSince`
// +kubebuilder:printcolumn:name="Candidates",type=string,JSONPath=`.spec.summary.candidates`,priority=1
// +kubebuilder:printcolumn:name="Advertisements",type=string,JSONPath=`.spec.summary.advertisements`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="isIP(self.spec.address) && (ip(self.spec.address).family() == 4 ? self.metadata.name == self.spec.address : self.metadata.name.matches('^([0-9a-f]{4}-){7}[0-9a-f]{4}$') && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address))",message="the name must be the address: 203.0.113.17 for IPv4; for IPv6 all eight groups of four lower-case hex digits joined by dashes, 2001-0db8-0000-0000-0000-0000-0000-0001"
type VirtualIP struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   VirtualIPSpec   `json:"spec"`
	Status VirtualIPStatus `json:"status,omitempty"`
}

// VirtualIPList is a list of VirtualIPs.
//
// +kubebuilder:object:root=true
type VirtualIPList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualIP `json:"items"`
}

// VirtualIPSpec says whose the address is and who may announce it. The
// controller writes it, but for address, reclaimPolicy and reservedFor of a
// reservation that a person makes.
type VirtualIPSpec struct {
	// Address is the IPv4 or IPv6 address.
	//
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the address of a VirtualIP cannot change"
	Address string `json:"address"`

	// Pool is the AddressPool that the address was given from.
	//
	// +optional
	Pool string `json:"pool,omitempty"`

	// ReclaimPolicy says what becomes of the address after its last claim.
	//
	// +optional
	// +kubebuilder:default=Delete
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// ReservedFor is the Service that the address is kept for.
	//
	// +optional
	ReservedFor *ServiceReference `json:"reservedFor,omitempty"`

	// Claims are the Services that have the address, by namespace and name.
	//
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +listMapKey=name
	Claims []Claim `json:"claims,omitempty"`

	// Hold is a reason not to announce the address; empty means announce.
	//
	// +optional
	Hold Reason `json:"hold,omitempty"`

	// TerminatingNodes are the nodes with the last endpoints of the Services of
	// policy Local on the address: none is ready, and these are terminating and
	// still serve. kube-proxy forwards to them, though its health check node port
	// says 503, so these nodes go on announcing the address.
	//
	// +optional
	// +listType=atomic
	TerminatingNodes []string `json:"terminatingNodes,omitempty"`

	// L2 says which nodes may announce the address by ARP or NDP.
	//
	// +optional
	L2 *L2Placement `json:"l2,omitempty"`

	// BGP says through which Advertisements the address is advertised.
	//
	// +optional
	BGP *BGPPlacement `json:"bgp,omitempty"`

	// Summary has the lists of the spec in one line each, for kubectl get. The
	// controller writes it together with them.
	//
	// +optional
	Summary *VirtualIPSummary `json:"summary,omitempty"`
}

// VirtualIPSummary is what kubectl get shows of the lists of a VirtualIP.
type VirtualIPSummary struct {
	// Services that have the address, as namespace/name.
	// +optional
	Services string `json:"services,omitempty"`
	// Candidates are the nodes that may own the address, best first.
	// +optional
	Candidates string `json:"candidates,omitempty"`
	// Advertisements by which the address is advertised by BGP.
	// +optional
	Advertisements string `json:"advertisements,omitempty"`
}

// ServiceReference names a Service.
type ServiceReference struct {
	// Namespace of the Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// Name of the Service.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// Claim is one Service on an address, with what a speaker must know of it.
type Claim struct {
	// Namespace of the Service.
	Namespace string `json:"namespace"`
	// Name of the Service.
	Name string `json:"name"`
	// UID of the Service.
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// Since is when the Service got the address. The oldest claim is the holder's;
	// the others are its guests. Claims of the same time are ordered by namespace and name.
	// +optional
	Since *metav1.MicroTime `json:"since,omitempty"`
	// Scope that the Service asked for when it got the address.
	// +optional
	Scope Scope `json:"scope,omitempty"`
	// Share is the sharing key under which the Service has the address; empty is shared with nobody.
	// +optional
	Share string `json:"share,omitempty"`
	// ShareNamespaces are the other namespaces whose Services may share the address
	// with this one; "*" stands for every namespace.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	ShareNamespaces []string `json:"shareNamespaces,omitempty"`
	// Grandfathered is set on Services of several namespaces that shared the
	// address before that took consent. It ends when the Service names namespaces.
	// +optional
	Grandfathered bool `json:"grandfathered,omitempty"`
	// Ports that the Service serves on the address.
	// +optional
	// +listType=atomic
	Ports []ClaimPort `json:"ports,omitempty"`
	// ExternalTrafficPolicy of the Service.
	// +optional
	ExternalTrafficPolicy corev1.ServiceExternalTrafficPolicy `json:"externalTrafficPolicy,omitempty"`
	// HealthCheckNodePort answers on each node for a Service of policy Local.
	// +optional
	HealthCheckNodePort int32 `json:"healthCheckNodePort,omitempty"`
}

// ClaimPort is a port on an address.
type ClaimPort struct {
	// Protocol: TCP, UDP or SCTP.
	Protocol corev1.Protocol `json:"protocol"`
	// Port number.
	Port int32 `json:"port"`
}

// L2Placement is who may announce an address on the local network.
type L2Placement struct {
	// Candidates are the nodes that may own the address, best first: the first
	// that is alive and healthy answers.
	//
	// +optional
	// +listType=atomic
	Candidates []string `json:"candidates,omitempty"`

	// Interfaces to announce on, by name or pattern ("bond*"). Empty means those
	// whose prefix contains the address, else the one of the node's InternalIP.
	//
	// +optional
	// +listType=atomic
	Interfaces []string `json:"interfaces,omitempty"`

	// Peers is how the candidates reach each other on the network of the address:
	// they watch one another there.
	//
	// +optional
	// +listType=map
	// +listMapKey=node
	Peers []L2Peer `json:"peers,omitempty"`

	// SignedMarks says that the speakers of all candidates sign what they say on
	// the network. What bears an unsigned mark is then a foreign host's.
	//
	// +optional
	SignedMarks bool `json:"signedMarks,omitempty"`
}

// L2Peer is a candidate as the other candidates see it.
type L2Peer struct {
	// Node is the name of the candidate.
	Node string `json:"node"`
	// Address of the node on the network that the virtual IP is announced on.
	// Empty when it is not known; the node is then watched by its Lease alone.
	//
	// +optional
	Address string `json:"address,omitempty"`
	// MAC address that the node answers ARP and NDP with on that network.
	//
	// +optional
	MAC string `json:"mac,omitempty"`
}

// BGPPlacement is how an address is advertised by BGP.
type BGPPlacement struct {
	// Advertisements that apply, by name.
	//
	// +optional
	// +listType=set
	Advertisements []string `json:"advertisements,omitempty"`

	// Limits are the nodes that advertise through an Advertisement with maxNodes;
	// through others every node does that can serve. With sessionAffinity ClientIP
	// all Advertisements are limited to one node.
	//
	// +optional
	// +listType=map
	// +listMapKey=advertisement
	Limits []BGPLimit `json:"limits,omitempty"`
}

// BGPLimit is who advertises through an Advertisement that is limited.
type BGPLimit struct {
	// Advertisement by name.
	Advertisement string `json:"advertisement"`
	// Nodes that advertise, by name.
	//
	// +optional
	// +listType=atomic
	Nodes []string `json:"nodes,omitempty"`
}

// VirtualIPStatus is what the speakers say of an address.
type VirtualIPStatus struct {
	// Owner is the node that answers for the address by ARP or NDP.
	//
	// +optional
	Owner string `json:"owner,omitempty"`

	// OwnerSince is when the owner took the address, or while it has none the
	// last one did. It is empty as long as the address was never in use.
	//
	// +optional
	OwnerSince *metav1.Time `json:"ownerSince,omitempty"`

	// Conditions: Announced, Conflict, Unusable.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
