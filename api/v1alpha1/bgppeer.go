package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// BGPPeer is a router that speakers keep a BGP session with (RFC 4271).
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,shortName=peer;peers
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name="Address",type=string,JSONPath=`.spec.address`
// +kubebuilder:printcolumn:name="Interface",type=string,JSONPath=`.spec.interface`
// +kubebuilder:printcolumn:name="Gateway",type=string,JSONPath=`.spec.defaultGateway`,priority=1
// +kubebuilder:printcolumn:name="Peer ASN",type=integer,JSONPath=`.spec.peerASN`
// +kubebuilder:printcolumn:name="Peer Type",type=string,JSONPath=`.spec.peerType`,priority=1
// +kubebuilder:printcolumn:name="Established",type=integer,JSONPath=`.status.established`
// +kubebuilder:printcolumn:name="Nodes",type=integer,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   BGPPeerSpec   `json:"spec"`
	Status BGPPeerStatus `json:"status,omitempty"`
}

// BGPPeerList is a list of BGPPeers.
//
// +kubebuilder:object:root=true
type BGPPeerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BGPPeer `json:"items"`
}

// BGPPeerSpec is what an operator says of a peer.
//
// +kubebuilder:validation:XValidation:rule="[has(self.address), has(self.interface), has(self.defaultGateway)].filter(x, x).size() == 1",message="exactly one of address, interface and defaultGateway is needed"
// +kubebuilder:validation:XValidation:rule="has(self.peerASN) != has(self.peerType)",message="exactly one of peerASN and peerType is needed"
// +kubebuilder:validation:XValidation:rule="!(has(self.ttlSecurityHops) && self.ttlSecurityHops > 0 && has(self.ebgpMultiHop) && self.ebgpMultiHop > 0)",message="ttlSecurityHops and ebgpMultiHop exclude each other"
// +kubebuilder:validation:XValidation:rule="!has(self.keepaliveTime) || !has(self.holdTime) || duration(self.keepaliveTime) < duration(self.holdTime)",message="keepaliveTime must be shorter than holdTime: a third of it is usual"
// +kubebuilder:validation:XValidation:rule="self.localASN != 23456 && (!has(self.peerASN) || self.peerASN != 23456)",message="AS 23456 stands for numbers that do not fit (RFC 6793), and is no AS itself"
type BGPPeerSpec struct {
	// NodeSelector chooses the nodes that keep the session; empty means all.
	//
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`

	// LocalASN is the autonomous system of the nodes.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	LocalASN int64 `json:"localASN"`

	// PeerASN is the autonomous system of the peer.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=4294967295
	PeerASN *int64 `json:"peerASN,omitempty"`

	// PeerType takes any other autonomous system (External) or our own
	// (Internal) instead of a number.
	//
	// +optional
	// +kubebuilder:validation:Enum=External;Internal
	PeerType string `json:"peerType,omitempty"`

	// Address of the peer.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="address must be an IPv4 or IPv6 address"
	Address string `json:"address,omitempty"`

	// Interface with one peer behind it, found by its router advertisements
	// (an unnumbered session).
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	Interface string `json:"interface,omitempty"`

	// DefaultGateway takes the node's default gateway of a family as the peer.
	//
	// +optional
	// +kubebuilder:validation:Enum=IPv4;IPv6
	DefaultGateway string `json:"defaultGateway,omitempty"`

	// Port of the peer.
	//
	// +optional
	// +kubebuilder:default=179
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`

	// SourceAddress of the session; by default the node's on the peer's network.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=45
	// +kubebuilder:validation:XValidation:rule="isIP(self)",message="sourceAddress must be an IPv4 or IPv6 address"
	SourceAddress string `json:"sourceAddress,omitempty"`

	// RouterID of the speaker; by default its IPv4 address.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=15
	// +kubebuilder:validation:XValidation:rule="isIP(self) && ip(self).family() == 4",message="routerID must be written like an IPv4 address"
	RouterID string `json:"routerID,omitempty"`

	// Families of routes to exchange; by default both.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=2
	// +kubebuilder:validation:items:Enum=IPv4;IPv6
	// +listType=set
	Families []string `json:"families,omitempty"`

	// HoldTime after which a silent peer is taken for dead, in whole seconds. A
	// hold time of 0, which RFC 4271 allows, is not offered: a dead peer would
	// never be noticed.
	//
	// +optional
	// +kubebuilder:default="90s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('3s') && duration(self) <= duration('65535s') && duration(self).getMilliseconds() % 1000 == 0",message="holdTime must be whole seconds such as 90s, from 3s to 65535s (RFC 4271)"
	HoldTime *metav1.Duration `json:"holdTime,omitempty"`

	// KeepaliveTime between keepalives, in whole seconds; by default a third of the
	// hold time.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) < duration('65535s') && duration(self).getMilliseconds() % 1000 == 0",message="keepaliveTime must be whole seconds such as 30s, from 1s"
	KeepaliveTime *metav1.Duration `json:"keepaliveTime,omitempty"`

	// ConnectRetryTime between attempts to connect, in whole seconds; by default
	// 120s. In the first minute without a session it is 5s at most, and one that has
	// ended is tried again within 2s unless it keeps ending.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('65535s') && duration(self).getMilliseconds() % 1000 == 0",message="connectRetryTime must be whole seconds such as 10s, from 1s to 65535s"
	ConnectRetryTime *metav1.Duration `json:"connectRetryTime,omitempty"`

	// Passive waits for the peer to connect, on port 179 of the node. Passive peers
	// of one node must have the same router ID.
	//
	// +optional
	Passive bool `json:"passive,omitempty"`

	// EBGPMultiHop is how many hops away an external peer may be; 0 means one.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=255
	EBGPMultiHop int32 `json:"ebgpMultiHop,omitempty"`

	// TTLSecurityHops refuses packets from further away (GTSM, RFC 5082); 0 is off.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=254
	TTLSecurityHops int32 `json:"ttlSecurityHops,omitempty"`

	// PasswordSecretRef is the TCP-MD5 password (RFC 2385), in a Secret of
	// Herald's namespace.
	//
	// +optional
	PasswordSecretRef *SecretKeyReference `json:"passwordSecretRef,omitempty"`

	// GracefulRestart keeps routes while a speaker restarts (RFC 4724). Without it
	// there is none. Use it with bfd: routers would keep the routes of a dead node.
	//
	// +optional
	GracefulRestart *GracefulRestart `json:"gracefulRestart,omitempty"`

	// BFD watches the path to the peer (RFC 5880).
	//
	// +optional
	BFD *BFD `json:"bfd,omitempty"`
}

// SecretKeyReference is one value of a Secret in Herald's namespace.
type SecretKeyReference struct {
	// Name of the Secret.
	// +kubebuilder:validation:MinLength=1
	Name string `json:"name"`
	// Key in the Secret.
	//
	// +optional
	// +kubebuilder:default=password
	Key string `json:"key,omitempty"`
}

// GracefulRestart is RFC 4724 towards a peer.
type GracefulRestart struct {
	// Enabled announces the capability.
	//
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// RestartTime the peer keeps the routes for, in whole seconds.
	//
	// +optional
	// +kubebuilder:default="120s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('4095s') && duration(self).getMilliseconds() % 1000 == 0",message="restartTime must be whole seconds such as 120s, from 1s to 4095s (RFC 4724)"
	RestartTime *metav1.Duration `json:"restartTime,omitempty"`
}

// BFD is a BFD session (RFC 5880, 5881, 5883).
type BFD struct {
	// Enabled keeps a session to the peer.
	//
	// +optional
	// +kubebuilder:default=true
	Enabled *bool `json:"enabled,omitempty"`
	// ReceiveInterval is the shortest time between packets we can take.
	//
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="receiveInterval must be a time such as 300ms, from 10ms to 60s"
	ReceiveInterval *metav1.Duration `json:"receiveInterval,omitempty"`
	// TransmitInterval is the shortest time between packets we want to send.
	//
	// +optional
	// +kubebuilder:default="300ms"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('60s')",message="transmitInterval must be a time such as 300ms, from 10ms to 60s"
	TransmitInterval *metav1.Duration `json:"transmitInterval,omitempty"`
	// DetectMultiplier is how many packets may be lost.
	//
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	DetectMultiplier int32 `json:"detectMultiplier,omitempty"`
	// MinimumTTL of packets of a multi-hop session.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=255
	MinimumTTL int32 `json:"minimumTTL,omitempty"`
	// Passive waits for the peer's first packet.
	//
	// +optional
	Passive bool `json:"passive,omitempty"`
}

// BGPPeerStatus is what Herald says of a peer.
type BGPPeerStatus struct {
	// Nodes is how many nodes are to keep a session.
	//
	// +optional
	Nodes int32 `json:"nodes"`

	// Established is how many of them have one.
	//
	// +optional
	Established int32 `json:"established"`

	// Conditions: Ready.
	//
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
