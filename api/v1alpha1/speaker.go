package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Speaker is what the speaker of one node says of itself. It is named after
// the node and has only a status, written when it changes.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Announcing",type=integer,JSONPath=`.status.announcing`
// +kubebuilder:printcolumn:name="Proxy",type=string,JSONPath=`.status.conditions[?(@.type=="ServiceProxyHealthy")].status`
// +kubebuilder:printcolumn:name="Interfaces",type=string,JSONPath=`.status.interfaceNames`
// +kubebuilder:printcolumn:name="Version",type=string,JSONPath=`.status.version`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Speaker struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Status SpeakerStatus `json:"status,omitempty"`
}

// SpeakerList is a list of Speakers.
//
// +kubebuilder:object:root=true
type SpeakerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Speaker `json:"items"`
}

// SpeakerStatus is the state of one speaker.
type SpeakerStatus struct {
	// Node the speaker runs on.
	//
	// +optional
	Node string `json:"node,omitempty"`

	// Version of the speaker.
	//
	// +optional
	Version string `json:"version,omitempty"`

	// Conditions: Ready, ServiceProxyHealthy, Watched.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Interfaces that addresses can be announced on.
	//
	// +optional
	// +listType=map
	// +listMapKey=name
	Interfaces []SpeakerInterface `json:"interfaces,omitempty"`

	// InterfaceNames has the names of the interfaces in one line, for kubectl get.
	//
	// +optional
	InterfaceNames string `json:"interfaceNames,omitempty"`

	// Announcing is how many addresses the speaker answers for by ARP and NDP.
	// It is unset when that is not known: the Lease of the speaker has ended.
	//
	// +optional
	Announcing *int32 `json:"announcing,omitempty"`

	// BGP is the sessions of the speaker.
	//
	// +optional
	// +listType=map
	// +listMapKey=peer
	BGP []SpeakerBGPSession `json:"bgp,omitempty"`

	// Peers are the other speakers that this one watches.
	//
	// +optional
	// +listType=map
	// +listMapKey=node
	Peers []SpeakerPeer `json:"peers,omitempty"`

	// SignsMarks says that the speaker signs what it says on the network: it has
	// the key of the Secret herald-bfd, and is not of an earlier version.
	//
	// +optional
	SignsMarks bool `json:"signsMarks,omitempty"`
}

// SpeakerInterface is a network interface of the node.
type SpeakerInterface struct {
	// Name of the interface.
	Name string `json:"name"`
	// MAC address that the speaker answers with.
	// +optional
	MAC string `json:"mac,omitempty"`
	// Up says that the interface has carrier.
	// +optional
	Up bool `json:"up"`
	// Prefixes of the interface's addresses.
	// +optional
	// +listType=atomic
	Prefixes []string `json:"prefixes,omitempty"`
}

// SpeakerBGPSession is the real state of a session.
type SpeakerBGPSession struct {
	// Peer is the name of the BGPPeer.
	Peer string `json:"peer"`
	// Address of the router, as it was given or found.
	// +optional
	Address string `json:"address,omitempty"`
	// State of the session (RFC 4271): Idle, Connect, Active, OpenSent, OpenConfirm, Established;
	// Unknown when the Lease of the speaker has ended.
	// +optional
	State string `json:"state,omitempty"`
	// Since when.
	// +optional
	Since *metav1.Time `json:"since,omitempty"`
	// Reason why there is no session, or not all of it; empty when all is well.
	// +optional
	Reason Reason `json:"reason,omitempty"`
	// LastError says it in words.
	// +optional
	LastError string `json:"lastError,omitempty"`
	// Families agreed on.
	// +optional
	// +listType=atomic
	Families []string `json:"families,omitempty"`
	// Advertised routes.
	// +optional
	Advertised int32 `json:"advertised"`
	// AdvertisedIPv4 is how many of them are IPv4 routes.
	// +optional
	AdvertisedIPv4 int32 `json:"advertisedIPv4,omitempty"`
	// AdvertisedIPv6 is how many of them are IPv6 routes.
	// +optional
	AdvertisedIPv6 int32 `json:"advertisedIPv6,omitempty"`
	// Refused is how many routes the router has advertised to us; none is taken.
	// It is written when it has doubled; herald_bgp_refused_routes_total is exact.
	// +optional
	Refused int64 `json:"refused,omitempty"`
	// BFD state of the path to the router: Up, Down, AdminDown; empty without BFD.
	// +optional
	BFD string `json:"bfd,omitempty"`
}

// SpeakerPeer is another speaker as seen from this one.
type SpeakerPeer struct {
	// Node of the other speaker.
	Node string `json:"node"`
	// BFD state: Up, Down, AdminDown, Init.
	// +optional
	BFD string `json:"bfd,omitempty"`
}
