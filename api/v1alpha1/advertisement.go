package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Advertisement says which pools are announced how, and from where. A pool
// that no Advertisement selects is announced by L2 from every node.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=adv;advs
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Pools",type=string,JSONPath=`.status.pools`
// +kubebuilder:printcolumn:name="L2 Interfaces",type=string,JSONPath=`.status.interfaces`
// +kubebuilder:printcolumn:name="BGP Peers",type=string,JSONPath=`.status.peers`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Advertisement struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AdvertisementSpec   `json:"spec"`
	Status AdvertisementStatus `json:"status,omitempty"`
}

// AdvertisementList is a list of Advertisements.
//
// +kubebuilder:object:root=true
type AdvertisementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Advertisement `json:"items"`
}

// AdvertisementSpec is what an operator says of an Advertisement. An address
// is announced so when its pool, its Services and the node all match.
//
// +kubebuilder:validation:XValidation:rule="has(self.l2) || has(self.bgp)",message="an Advertisement needs l2, bgp or both: l2: {} announces by ARP and NDP"
// +kubebuilder:validation:XValidation:rule="!(has(self.pools) && self.pools.size() > 0 && has(self.poolSelector))",message="pools and poolSelector exclude each other"
type AdvertisementSpec struct {
	// Pools by name. Without pools and poolSelector all pools are meant.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	Pools []string `json:"pools,omitempty"`

	// PoolSelector chooses pools by their labels.
	//
	// +optional
	PoolSelector *metav1.LabelSelector `json:"poolSelector,omitempty"`

	// ServiceSelector chooses Services by their labels; empty means all.
	//
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// NamespaceSelector chooses Services by the labels of their namespace.
	//
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// NodeSelector chooses the nodes that announce; empty means all.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// L2 announces by ARP and NDP from one node at a time.
	//
	// +optional
	L2 *L2Advertisement `json:"l2,omitempty"`

	// BGP advertises routes from every node that can serve.
	//
	// +optional
	BGP *BGPAdvertisement `json:"bgp,omitempty"`
}

// L2Advertisement is how addresses are announced on the local network.
type L2Advertisement struct {
	// Interfaces by name or pattern ("bond*"). Empty means those whose prefix
	// contains the address, else the one of the node's InternalIP.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=15
	// +listType=set
	Interfaces []string `json:"interfaces,omitempty"`

	// PreferredNodes move matching nodes ahead of the others.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	PreferredNodes []PreferredNodes `json:"preferredNodes,omitempty"`
}

// PreferredNodes adds a weight to nodes.
type PreferredNodes struct {
	// Weight is added to the nodes that match, 1 to 100; a node with a higher
	// sum comes first.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight"`

	// NodeSelector chooses the nodes.
	NodeSelector metav1.LabelSelector `json:"nodeSelector"`
}

// BGPAdvertisement is how addresses are advertised to routers. Of several
// Advertisements that lead to one prefix and router, the first by name counts.
type BGPAdvertisement struct {
	// Peers are BGPPeers by name; empty means all.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +listType=set
	Peers []string `json:"peers,omitempty"`

	// AggregationLength is the length of the IPv4 prefixes to advertise.
	//
	// +optional
	// +kubebuilder:default=32
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=32
	AggregationLength *int32 `json:"aggregationLength,omitempty"`

	// AggregationLengthV6 is the length of the IPv6 prefixes to advertise.
	//
	// +optional
	// +kubebuilder:default=128
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	AggregationLengthV6 *int32 `json:"aggregationLengthV6,omitempty"`

	// LocalPreference is the LOCAL_PREF attribute towards internal peers.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	LocalPreference *int64 `json:"localPreference,omitempty"`

	// MED is the MULTI_EXIT_DISC attribute.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4294967295
	MED *int64 `json:"med,omitempty"`

	// Communities to attach: standard ("64512:100", RFC 1997), large
	// ("64512:1:2", RFC 8092) and well-known names ("no-export").
	//
	// +optional
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=32
	// +kubebuilder:validation:XValidation:rule="self.all(c, c.matches('^[0-9]{1,10}(:[0-9]{1,10}){1,2}$') || c in ['no-export', 'no-advertise', 'local-as', 'no-peer', 'blackhole', 'graceful-shutdown', 'accept-own'])",message="each community must be 64512:100, 64512:1:2 or a well-known name: no-export, no-advertise, local-as, no-peer, blackhole, graceful-shutdown, accept-own"
	// +kubebuilder:validation:XValidation:rule="self.all(c, !c.matches('^[0-9]{1,10}(:[0-9]{1,10}){1,2}$') || c.split(':').all(n, int(n) <= (c.split(':').size() == 2 ? 65535 : 4294967295)))",message="the two numbers of a standard community must not be over 65535: for an AS with a longer number use a large community such as 4200000000:1:2, the numbers of which may be up to 4294967295"
	// +kubebuilder:validation:XValidation:rule="!self.exists(c, c.matches('^0*4294967295:[0-9]+:[0-9]+$'))",message="no large community may be of AS 4294967295, which is reserved (RFC 7300)"
	// +listType=set
	Communities []string `json:"communities,omitempty"`

	// Prepend is how many times the local ASN is prepended to the AS path.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16
	Prepend int32 `json:"prepend,omitempty"`

	// Weighted attaches the link-bandwidth community with this node's share of
	// a Local Service's endpoints.
	//
	// +optional
	Weighted bool `json:"weighted,omitempty"`

	// MaxNodes caps how many nodes advertise an address; 0 means all. A node
	// keeps its part while its speaker restarts, for 10 s, if all its BGPPeers
	// have gracefulRestart: then routers keep its routes, too.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxNodes int32 `json:"maxNodes,omitempty"`
}

// AdvertisementStatus is what Herald says of an Advertisement.
type AdvertisementStatus struct {
	// Nodes is how many nodes can take part: selected, with a live speaker, and
	// neither excluded, nor about to be deleted, nor cordoned; with bgp, a BGPPeer
	// that it advertises to must be for the node, too. A node that is cordoned
	// leaves it to them, once there are any.
	//
	// +optional
	Nodes int32 `json:"nodes"`

	// Pools has spec.pools in one line, for kubectl get.
	//
	// +optional
	Pools string `json:"pools,omitempty"`

	// Interfaces has spec.l2.interfaces in one line, for kubectl get.
	//
	// +optional
	Interfaces string `json:"interfaces,omitempty"`

	// Peers has spec.bgp.peers in one line, for kubectl get.
	//
	// +optional
	Peers string `json:"peers,omitempty"`

	// Conditions: Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
