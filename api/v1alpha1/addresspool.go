package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// AddressPool names addresses that Services of type LoadBalancer may get, and
// which Services may get them.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=pool;pools
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="IPv4 Used",type=integer,JSONPath=`.status.ipv4.allocated`
// +kubebuilder:printcolumn:name="IPv4 Free",type=integer,JSONPath=`.status.ipv4.free`
// +kubebuilder:printcolumn:name="IPv6 Used",type=integer,JSONPath=`.status.ipv6.allocated`
// +kubebuilder:printcolumn:name="IPv6 Free",type=integer,JSONPath=`.status.ipv6.free`
// +kubebuilder:printcolumn:name="Outside",type=integer,JSONPath=`.status.addressesOutside`
// +kubebuilder:printcolumn:name="Addresses",type=string,JSONPath=`.status.addresses`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AddressPool struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   AddressPoolSpec   `json:"spec"`
	Status AddressPoolStatus `json:"status,omitempty"`
}

// AddressPoolList is a list of AddressPools.
//
// +kubebuilder:object:root=true
type AddressPoolList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AddressPool `json:"items"`
}

// Scope says which Services a pool serves by itself.
//
// +kubebuilder:validation:Enum=External;Internal
type Scope string

// The scopes of a pool and of a Service.
const (
	ScopeExternal Scope = "External"
	ScopeInternal Scope = "Internal"
)

// IPMode is how the ingress address of a Service behaves: KEP-1860.
//
// +kubebuilder:validation:Enum=VIP;Proxy
type IPMode string

// IPModeProxy is for addresses of a proxy that rewrites the destination: kube-proxy makes no rule for them.
const IPModeProxy IPMode = "Proxy"

// Announce says whether Herald announces the addresses of a pool.
//
// +kubebuilder:validation:Enum=Auto;None
type Announce string

const (
	// AnnounceAuto announces the addresses as the Advertisements say, by default by L2.
	AnnounceAuto Announce = "Auto"
	// AnnounceNever announces nothing: somebody else routes the addresses.
	AnnounceNever Announce = "None"
)

// ReclaimPolicy says what becomes of an address whose last Service has gone.
//
// +kubebuilder:validation:Enum=Delete;Retain
type ReclaimPolicy string

// The reclaim policies.
const (
	// ReclaimDelete gives the address back to its pool.
	ReclaimDelete ReclaimPolicy = "Delete"
	// ReclaimRetain keeps the address for a Service of the same namespace and name.
	ReclaimRetain ReclaimPolicy = "Retain"
)

// StaticBandAuto and StaticBandNone are the named values of AddressPoolSpec.StaticBand.
const (
	StaticBandAuto = "Auto"
	StaticBandNone = "None"
)

// AddressPoolSpec is what an operator says of a pool.
//
// An edit never changes the address of a Service that has one: addresses that
// are in use and no longer in the pool are counted in status.addressesOutside.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.ipMode) && self.ipMode == 'Proxy') || has(self.announce) && self.announce == 'None'",message="ipMode Proxy needs announce: None: kube-proxy makes no rule for such addresses, so nobody could answer for them where they are announced"
type AddressPoolSpec struct {
	// Addresses of the pool: prefixes ("203.0.113.0/24"), ranges
	// ("198.51.100.10-198.51.100.50") and single addresses, IPv4 and IPv6. What a
	// Service cannot have is not given: addresses that are not unicast, those of
	// nodes and of their subnets, and those that Services use otherwise.
	//
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=90
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.contains('/') ? isCIDR(a) : (a.split('-').size() <= 2 && a.split('-').all(p, isIP(p.trim()))))",message="each entry must be a prefix such as 203.0.113.0/24, a range such as 203.0.113.10-203.0.113.50, or an address"
	// +listType=set
	Addresses []string `json:"addresses"`

	// Exclude takes addresses out: single addresses, prefixes or ranges.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=90
	// +kubebuilder:validation:XValidation:rule="self.all(a, a.contains('/') ? isCIDR(a) : a.split('-').all(p, isIP(p.trim())) && a.split('-').size() <= 2)",message="each exclusion must be an address, a prefix or a range of addresses"
	// +listType=set
	Exclude []string `json:"exclude,omitempty"`

	// AvoidBuggyIPs leaves out IPv4 addresses that end in .0 or .255, which
	// some old clients refuse.
	//
	// +optional
	AvoidBuggyIPs bool `json:"avoidBuggyIPs,omitempty"`

	// StaticBand is how many addresses at the low end of each range are kept
	// for Services that request an address; others get them only when the rest
	// is used up. Auto (as for ClusterIPs, KEP-3070: min(max(16, size/16), 256),
	// none below 16 addresses), None, or a number of addresses.
	//
	// +optional
	// +kubebuilder:default=Auto
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 0 && self <= 2147483647 : self in ['Auto', 'None']",message="staticBand must be Auto, None or a number of addresses"
	StaticBand *intstr.IntOrString `json:"staticBand,omitempty"`

	// AutoAssign false gives addresses of this pool only to Services that ask
	// for the pool or for an address in it.
	//
	// +optional
	// +kubebuilder:default=true
	AutoAssign *bool `json:"autoAssign,omitempty"`

	// Scope Internal serves the Services that ask for an internal load balancer
	// (annotation heraldlb.io/scope, or that of a cloud); External the others.
	//
	// +optional
	// +kubebuilder:default=External
	Scope Scope `json:"scope,omitempty"`

	// Priority orders pools: higher is tried first, then by name.
	//
	// +optional
	Priority int32 `json:"priority,omitempty"`

	// ServiceSelector chooses Services by their labels; empty means all.
	//
	// +optional
	ServiceSelector *metav1.LabelSelector `json:"serviceSelector,omitempty"`

	// NamespaceSelector chooses Services by the labels of their namespace;
	// empty means all. A namespace in Namespaces is chosen as well.
	//
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`

	// Namespaces chooses Services by the name of their namespace.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=1024
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`

	// IPMode is written to status.loadBalancer.ingress[].ipMode of the Services:
	// VIP when traffic arrives with the address as its destination, Proxy when
	// something in between rewrites it (kube-proxy then makes no rule for it).
	// Proxy needs announce None: nobody could answer for an announced address.
	//
	// +optional
	// +kubebuilder:default=VIP
	IPMode IPMode `json:"ipMode,omitempty"`

	// Announce None gives the addresses of the pool to Services and announces
	// nothing: somebody else routes them. Auto announces them as the
	// Advertisements say, by default by L2.
	//
	// +optional
	// +kubebuilder:default=Auto
	Announce Announce `json:"announce,omitempty"`

	// ReclaimPolicy says what becomes of an address whose last Service has
	// gone: Delete gives it back, Retain keeps it for the same namespace/name.
	//
	// +optional
	// +kubebuilder:default=Delete
	ReclaimPolicy ReclaimPolicy `json:"reclaimPolicy,omitempty"`

	// MaxPerNamespace is how many addresses of each family the Services of one
	// namespace may hold in this pool; 0 means no limit.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	MaxPerNamespace int32 `json:"maxPerNamespace,omitempty"`
}

// AddressPoolStatus is what Herald says of a pool.
type AddressPoolStatus struct {
	// Addresses has spec.addresses in one line, for kubectl get.
	//
	// +optional
	Addresses string `json:"addresses,omitempty"`

	// IPv4 counts the IPv4 addresses.
	//
	// +optional
	IPv4 AddressCount `json:"ipv4,omitempty"`

	// IPv6 counts the IPv6 addresses.
	//
	// +optional
	IPv6 AddressCount `json:"ipv6,omitempty"`

	// AddressesOutside counts addresses in use that were given from this pool
	// and are no longer in it.
	//
	// +optional
	AddressesOutside int64 `json:"addressesOutside,omitempty"`

	// Conditions: Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// AddressCount counts the addresses of one family. Numbers above 2^63-1 are
// reported as 2^63-1.
type AddressCount struct {
	// Capacity is how many addresses the pool has.
	Capacity int64 `json:"capacity"`
	// Allocated is how many of them are in use or reserved.
	Allocated int64 `json:"allocated"`
	// Free is how many can still be given: not those that are reserved, that
	// another host answers for, or that are something else already.
	Free int64 `json:"free"`
}
