package v1alpha1

// The condition types that Herald writes.
const (
	// ServiceReady is on every Service that is Herald's: whether it has its
	// addresses and somebody announces them, and if not why.
	ServiceReady = GroupName + "/Ready"

	// ServiceAnnounced is on a Service with addresses from pools: whether all of
	// them are announced, and by whom.
	ServiceAnnounced = GroupName + "/Announced"

	// ConditionReady is on an AddressPool, an Advertisement, a BGPPeer and a
	// Speaker: whether all of it is in force.
	ConditionReady = "Ready"

	// ConditionAnnounced is on a VirtualIP: whether a speaker answers for it.
	ConditionAnnounced = "Announced"

	// ConditionConflict is on a VirtualIP: whether a host that is no candidate
	// answers for the address. The message has its MAC address.
	ConditionConflict = "Conflict"

	// ConditionUnusable is on a VirtualIP that Services have and that is
	// something else, too: the address of a node, of a subnet, or of another
	// Service. It says what. Nobody loses the address by it.
	ConditionUnusable = "Unusable"

	// ConditionServiceProxyHealthy is on a Speaker: whether the service proxy of
	// its node says that it is well.
	ConditionServiceProxyHealthy = "ServiceProxyHealthy"

	// ConditionWatched is on a Speaker: whether it and the others watch each
	// other, so that a lost node is noticed within a second.
	ConditionWatched = "Watched"
)

// ReasonDoc declares a reason: what docs/reference says of it.
//
// +kubebuilder:object:generate=false
type ReasonDoc struct {
	Reason Reason
	// On is the kind of object whose condition and events carry the reason.
	On  string
	Doc string
}

// Reasons on a Service, in the condition heraldlb.io/Ready and in events.
const (
	AddressAssigned  Reason = "AddressAssigned"
	AddressPartial   Reason = "AddressPartial"
	AddressReleased  Reason = "AddressReleased"
	AddressAdopted   Reason = "AddressAdopted"
	AddressReplaced  Reason = "AddressReplaced"
	VirtualIPRemade  Reason = "VirtualIPRemade"
	LoadBalancerMade Reason = "LoadBalancerMade"
	SyncFailed       Reason = "SyncFailed"
	StatusContested  Reason = "StatusContested"

	SharingEnded         Reason = "SharingEnded"
	SharedWithoutConsent Reason = "SharedWithoutConsent"

	Provisioning         Reason = "Provisioning"
	Releasing            Reason = "Releasing"
	PortNotServed        Reason = "PortNotServed"
	LoadBalancerReplaced Reason = "LoadBalancerReplaced"
	AnnotationIgnored    Reason = "AnnotationIgnored"
	TargetRefused        Reason = "TargetRefused"
	NoTargets            Reason = "NoTargets"
	SubnetsNotFound      Reason = "SubnetsNotFound"
	GroupNotFound        Reason = "GroupNotFound"

	// Announcing is between the assignment of an address and its first announcement.
	Announcing     Reason = "Announcing"
	NotUnicast     Reason = "NotUnicast"
	NodeAddress    Reason = "NodeAddress"
	SubnetAddress  Reason = "SubnetAddress"
	ServiceAddress Reason = "ServiceAddress"
	ServiceRange   Reason = "ServiceRange"
	NoObstacle     Reason = "NoObstacle"

	AddressConflict    Reason = "AddressConflict"
	HostAnswersAll     Reason = "HostAnswersAll"
	SourceRangesCopied Reason = "SourceRangesCopied"

	InvalidAnnotation  Reason = "InvalidAnnotation"
	InvalidAddress     Reason = "InvalidAddress"
	InvalidSourceRange Reason = "InvalidSourceRange"

	SourceRangesIncomplete Reason = "SourceRangesIncomplete"
	ConflictingRequests    Reason = "ConflictingRequests"
	InvalidRequest         Reason = "InvalidRequest"
	WrongFamily            Reason = "WrongFamily"
	TwoOfOneFamily         Reason = "TwoOfOneFamily"
	UnknownPool            Reason = "UnknownPool"
	NoPool                 Reason = "NoPool"
	PoolExhausted          Reason = "PoolExhausted"
	NamespaceQuota         Reason = "NamespaceQuota"
	OutsidePools           Reason = "OutsidePools"
	NotInPool              Reason = "NotInPool"
	PoolNotServing         Reason = "PoolNotServing"
	Excluded               Reason = "Excluded"
	BuggyAddress           Reason = "BuggyAddress"
	Reserved               Reason = "Reserved"
	NotShared              Reason = "NotShared"
	OtherShareKey          Reason = "OtherShareKey"
	PortConflict           Reason = "PortConflict"
	PolicyConflict         Reason = "PolicyConflict"
	NotRequested           Reason = "NotRequested"
	OtherScope             Reason = "OtherScope"
)

// Reasons on an AddressPool or Advertisement.
const (
	Valid             Reason = "Valid"
	InvalidRange      Reason = "InvalidRange"
	InvalidStaticBand Reason = "InvalidStaticBand"
	InvalidSelector   Reason = "InvalidSelector"
	Overlap           Reason = "Overlap"
	Repeated          Reason = "Repeated"
	DuplicatePool     Reason = "DuplicatePool"
	UnknownPeer       Reason = "UnknownPeer"
	InvalidInterface  Reason = "InvalidInterface"
)

// Reasons on a VirtualIP, in spec.hold and in the condition Announced.
const (
	Announced        Reason = "Announced"
	Unclaimed        Reason = "Unclaimed"
	NoReadyEndpoints Reason = "NoReadyEndpoints"
	NoCandidates     Reason = "NoCandidates"
	NotAnnouncedByL2 Reason = "NotAnnouncedByL2"
	NoInterface      Reason = "NoInterface"
	AnnounceFailed   Reason = "AnnounceFailed"
	NotCandidate     Reason = "NotCandidate"
	NotFirst         Reason = "NotFirst"
	Leaving          Reason = "Leaving"
	Asking           Reason = "Asking"
	OwnedByOther     Reason = "OwnedByOther"
	Conflict         Reason = "Conflict"
	NoConflict       Reason = "NoConflict"
	ProxyNotReady    Reason = "ProxyNotReady"
	ProxyNotHealthy  Reason = "ProxyNotHealthy"
	ProxyHealthy     Reason = "ProxyHealthy"
	NotServedLocally Reason = "NotServedLocally"
	SpeakerLost      Reason = "SpeakerLost"
	AnnounceNone     Reason = "AnnounceNone"
)

// Reasons why a node does not advertise an address by BGP.
const (
	NotAdvertisedByBGP   Reason = "NotAdvertisedByBGP"
	UnknownAdvertisement Reason = "UnknownAdvertisement"
	OverMaxNodes         Reason = "OverMaxNodes"
	NoPeer               Reason = "NoPeer"
	Advertised           Reason = "Advertised"
	NoSession            Reason = "NoSession"
)

// Reasons on a BGPPeer.
const (
	Established        Reason = "Established"
	NotEstablished     Reason = "NotEstablished"
	SecretForbidden    Reason = "SecretForbidden"
	SecretMissing      Reason = "SecretMissing"
	SecretKeyMissing   Reason = "SecretKeyMissing"
	InvalidPeer        Reason = "InvalidPeer"
	NoGateway          Reason = "NoGateway"
	FamilyNotAgreed    Reason = "FamilyNotAgreed"
	NoHoldTime         Reason = "NoHoldTime"
	NoNode             Reason = "NoNode"
	SessionEstablished Reason = "SessionEstablished"
	SessionLost        Reason = "SessionLost"
)

// Reasons why a node is no candidate.
const (
	NodeExcluded     Reason = "NodeExcluded"
	NodeBeingDeleted Reason = "NodeBeingDeleted"
	NodeShuttingDown Reason = "NodeShuttingDown"
	NodeNotReady     Reason = "NodeNotReady"
	NetworkDown      Reason = "NetworkUnavailable"
	NoSpeaker        Reason = "NoSpeaker"
	NotSelected      Reason = "NotSelected"
	NoLocalEndpoint  Reason = "NoLocalEndpoint"
	NodeCordoned     Reason = "NodeCordoned"
	NotOnLink        Reason = "NotOnLink"
)

// Reasons on a Speaker.
const (
	Running      Reason = "Running"
	LeaseExpired Reason = "LeaseExpired"
	Watching     Reason = "Watching"
	NoKey        Reason = "NoKey"
)

// Reasons declares every reason: conditions and events use no other.
var Reasons = []ReasonDoc{
	{AddressAssigned, "Service", "Every address that the Service needs is assigned; status.loadBalancer has them."},
	{AddressPartial, "Service", "A Service with ipFamilyPolicy PreferDualStack has an address of one family; the message says why not of the other. It gets the second when it can. An address that its source ranges leave open counts as missing."},
	{AddressReleased, "Service", "The Service is no longer Herald's to serve; its addresses are free."},
	{AddressAdopted, "Service", "The status already showed addresses, from before Herald or from another provider; they are Herald's to announce from now on."},
	{AddressReplaced, "Service", "What the status showed before, from another provider, could not be kept; the message says what replaced it."},
	{SourceRangesCopied, "Service", "The annotation service.beta.kubernetes.io/load-balancer-source-ranges was copied into spec.loadBalancerSourceRanges, which is what kube-proxy enforces."},
	{VirtualIPRemade, "Service", "The VirtualIP of an address in use was deleted and has been made again: to free an address, delete or change the Service."},
	{LoadBalancerMade, "Service", "The load balancer is there; status.loadBalancer names it."},
	{Provisioning, "Service", "The load balancer is being made; its name may not resolve yet."},
	{Releasing, "Service", "The load balancer is being removed; the Service goes, or is no longer Herald's, when that is done."},
	{PortNotServed, "Service", "A port has a protocol that this load balancer does not have; status.loadBalancer.ingress[].ports says which. The others are served."},
	{LoadBalancerReplaced, "Service", "The load balancer has to be made anew, because what changed cannot be changed in place; the message says what."},
	{AnnotationIgnored, "Service", "An annotation or a field is not known, or says nothing for this load balancer."},
	{TargetRefused, "Service", "AWS does not take some of the nodes or pods as targets; the others are served."},
	{NoTargets, "Service", "A load balancer in AWS has no node behind it: none has the labels asked for, or is an instance in EC2."},
	{SubnetsNotFound, "Service", "There is no subnet for the load balancer, in the VPC or among aws.subnets of the cloud config, or two of one zone; the message says what is there."},
	{GroupNotFound, "Service", "A security group that is named does not exist, or no group of the nodes can be found."},
	{AddressConflict, "Service", "A host that is not Herald's answers for the address; the message has its MAC address. An address that was not asked for is replaced; one that was waits until the host is gone."},
	{HostAnswersAll, "Service, AddressPool", "A host answers for every new address of the pool, as routers with proxy ARP or an NDP proxy do; the message has its MAC address. Addresses are not replaced then: the Service keeps the one that it has, which is announced when nobody answers any more."},
	{NoConflict, "Service", "The host that answered for the address as well is silent now, or the address is not announced on the network any more."},
	{Announcing, "Service", "The address is assigned, and is about to be announced."},
	{NotUnicast, "Service, AddressPool, VirtualIP", "The address is none that a host can have: multicast, loopback, link-local, unspecified or reserved. It is not given; the rest of the pool is."},
	{NodeAddress, "Service, AddressPool, VirtualIP", "A node has the address itself; the message says which one and where. It is not given; a Service that has it keeps it."},
	{SubnetAddress, "Service, VirtualIP", "The address stands for a subnet that a node is on: the network's own, its broadcast address, or its subnet-router anycast address (RFC 4291). It is not given; a Service that has it keeps it."},
	{ServiceAddress, "Service, VirtualIP", "A Service uses the address otherwise: as an external IP, as its cluster IP, or from another provider. It is not given until that ends; a Service that has it keeps it."},
	{ServiceRange, "Service, AddressPool, VirtualIP", "The API server gives cluster IPs from the range. None of it is given; a Service that has one keeps it."},
	{NoObstacle, "VirtualIP", "The address is nothing but the address of its Services any more."},
	{SharingEnded, "Service", "A guest leaves a shared address because the holder, which has had it for longest, was edited: a port, the policy, the key or the consent. Both are told."},
	{SharedWithoutConsent, "Service", "The Service shares its address with one of another namespace from before that took consent. It stays so, and nobody joins without consent."},
	{StatusContested, "Service", "Another controller writes the status, the conditions or the finalizer that Herald writes, again and again; the message says which. Herald writes its own ever more seldom, every two minutes at last, until the other one stops: let only one controller serve the Service."},
	{SyncFailed, "Service", "Something failed that is not the Service's fault, the API server for one; it is tried again."},

	{InvalidAnnotation, "Service", "An annotation has a value that it cannot have."},
	{InvalidAddress, "Service", "An address that is asked for is no address, or there are two of one family."},
	{InvalidSourceRange, "Service", "A source range is not a prefix."},
	{SourceRangesIncomplete, "Service, VirtualIP", "loadBalancerSourceRanges has no prefix of an IP family that the Service has, and kube-proxy would let everybody in over that family. Add the prefixes of the clients, or 0.0.0.0/0 or ::/0 if everybody may."},
	{ConflictingRequests, "VirtualIP, AddressPool", "ipMode is Proxy and the pool is announced: kube-proxy makes no rule for such an address, so nobody could answer. Set announce: None in the pool, or ipMode to VIP."},
	{ConflictingRequests, "Service", "Two annotations, or an annotation and a field, ask for different things."},
	{InvalidRequest, "Service", "The request contradicts itself."},
	{WrongFamily, "Service", "An address is asked for of a family that the Service does not have."},
	{TwoOfOneFamily, "Service", "Two addresses of one family are asked for."},
	{UnknownPool, "Service", "No AddressPool has the name that is asked for."},
	{NoPool, "Service", "There is no AddressPool, or none serves this Service; the message says why not, pool by pool."},
	{PoolExhausted, "Service", "Every AddressPool that serves the Service is full. It is served when an address is freed or a pool grows."},
	{NamespaceQuota, "Service", "The Services of the namespace hold as many addresses of the pool as maxPerNamespace allows."},
	{OutsidePools, "Service", "The address that is asked for is in no AddressPool."},
	{NotInPool, "Service", "The address that is asked for is not in the AddressPool that is asked for."},
	{PoolNotServing, "Service", "The selectors of the AddressPool leave the Service out."},
	{Excluded, "Service", "The AddressPool excludes the address that is asked for."},
	{BuggyAddress, "Service", "The address that is asked for ends in .0 or .255 and the AddressPool avoids those."},
	{Reserved, "Service", "The address that is asked for is kept for another Service, or for nobody."},
	{NotShared, "Service", "The address that is asked for is another Service's, and one of the two has no sharing key; or it is one of another namespace and they do not share, whatever the cause."},
	{OtherShareKey, "Service", "The address that is asked for is shared under another key."},
	{PortConflict, "Service", "The address is shared, or was to be by its sharing key, and another Service on it has the same port."},
	{PolicyConflict, "Service", "The address is shared, or was to be by its sharing key, and the traffic policies do not go together."},
	{NotRequested, "Service", "The Service holds an address and asks for another one."},
	{OtherScope, "Service", "The Service was turned from external to internal, or back."},

	{Valid, "AddressPool, Advertisement", "All of the object is in force."},
	{InvalidRange, "AddressPool", "An entry of addresses or exclude is not what it should be; it is left out, the rest works."},
	{InvalidStaticBand, "AddressPool", "staticBand is not Auto, None or a number; Auto is used."},
	{InvalidSelector, "AddressPool, Advertisement", "A selector cannot be read; the object serves nothing until it can."},
	{Overlap, "AddressPool", "An older AddressPool has some of the addresses; they stay with the older one."},
	{Repeated, "AddressPool", "An address is in two entries of the pool; it counts once."},
	{DuplicatePool, "AddressPool", "An older AddressPool has the name."},
	{UnknownPool, "Advertisement", "A pool that the Advertisement names does not exist."},
	{UnknownPeer, "Advertisement", "A BGPPeer that the Advertisement names does not exist."},
	{InvalidInterface, "Advertisement", "A pattern of interfaces cannot be read; it matches none."},

	{Announced, "VirtualIP, Service", "The owner answers for the address by ARP or NDP."},
	{Unclaimed, "VirtualIP", "No Service has the address: it is reserved."},
	{NoReadyEndpoints, "VirtualIP, Service", "No Service on the address has an endpoint that could serve a request."},
	{NoCandidates, "VirtualIP, Service", "No node can announce the address; the condition's message says why not, node by node."},
	{NotAnnouncedByL2, "VirtualIP", "The Advertisements that apply announce the address by BGP only."},
	{NoInterface, "VirtualIP, Service", "The node has no interface to announce the address on: none has its prefix, none matches the Advertisement, or those that do have no carrier."},
	{AnnounceFailed, "VirtualIP, Service", "The node cannot answer for the address: it is not unicast, or the kernel refuses a socket or a multicast group; the message says what. It is tried again every 15 s."},
	{NotCandidate, "VirtualIP", "This node is not among the candidates."},
	{NotFirst, "VirtualIP", "A node before this one in the candidates is alive: the address is that node's."},
	{Leaving, "VirtualIP", "The speaker is stopping."},
	{Asking, "VirtualIP", "The network is asked whether another host answers for the address, before this node does."},
	{OwnedByOther, "VirtualIP", "Another node has the address, and keeps it as long as it lives."},
	{Conflict, "VirtualIP", "A host that is no candidate answers for the address; the message has its MAC address."},
	{NoConflict, "VirtualIP", "No other host answers for the address, or it is not announced on the network any more, where one did."},
	{ProxyNotReady, "VirtualIP, Service", "The service proxy of the node has not yet written its rules for the address."},
	{ProxyNotHealthy, "VirtualIP, Service, Speaker", "The service proxy of the node is dead, hangs, or says that it is not well; the message says which."},
	{ProxyHealthy, "Speaker", "The service proxy of the node says that it is well."},
	{NotServedLocally, "VirtualIP, Service", "A Service on the address has externalTrafficPolicy Local, and its health check node port on this node does not say that it is served here."},

	{SpeakerLost, "VirtualIP, Service", "The Lease of the speaker that announced the address has ended, and no other has taken over. It may go on to answer if it is only cut off from the API server."},
	{AnnounceNone, "VirtualIP, Service", "The AddressPool has announce None: somebody else routes the address. The Service is Ready all the same."},

	{NotAdvertisedByBGP, "VirtualIP", "The Advertisements that apply announce the address by ARP and NDP only."},
	{UnknownAdvertisement, "VirtualIP", "The Advertisement that applied is gone, or has no bgp any more."},
	{OverMaxNodes, "VirtualIP", "As many other nodes advertise the address as maxNodes of the Advertisement allows, or as sessionAffinity ClientIP does: one."},
	{NoPeer, "VirtualIP", "No BGPPeer of the Advertisement is for this node, or none of them can be used."},
	{Advertised, "VirtualIP, Service", "The address is advertised by BGP to at least one router."},
	{NoSession, "VirtualIP, Service", "No node that can serve the address has a BGP session with a router that it is to be advertised to."},

	{Established, "BGPPeer", "Every node that is to keep a session has one."},
	{NotEstablished, "BGPPeer", "Some node has no session; the message says why not, node by node."},
	{SecretForbidden, "BGPPeer", "Speakers may not read the Secret with the password: the Role herald-speaker-secrets in Herald's namespace does not name it."},
	{SecretMissing, "BGPPeer", "The Secret with the password does not exist in Herald's namespace; there is no session until it does."},
	{SecretKeyMissing, "BGPPeer", "The Secret with the password has no such key, or nothing in it."},
	{InvalidPeer, "BGPPeer", "What the BGPPeer asks for is not possible; the message says what. There is no session until it is."},
	{InvalidSelector, "BGPPeer", "The nodeSelector cannot be read; no node keeps a session until it can."},
	{NoGateway, "BGPPeer", "The node has no default gateway of the family."},
	{FamilyNotAgreed, "BGPPeer", "There is a session, and the router does not speak of a family that is asked for; its routes are not advertised there."},
	{NoHoldTime, "BGPPeer", "There is a session, with a hold time of 0, which the router asks for: neither side notices when the other is gone. Give the router a hold time."},
	{NoNode, "BGPPeer", "No node with a live speaker is selected."},
	{SessionEstablished, "BGPPeer", "A node has a session with the router; told as an event."},
	{SessionLost, "BGPPeer", "A node has no session with the router any more; told as an event, with the reason."},

	{NodeExcluded, "Node", "The node has the label node.kubernetes.io/exclude-from-external-load-balancers."},
	{NodeBeingDeleted, "Node", "The node has a taint that announces its end."},
	{NodeShuttingDown, "Node", "kubelet says that the node is shutting down."},
	{NodeNotReady, "Node", "The node is not Ready."},
	{NetworkDown, "Node", "The node's network is not configured (condition NetworkUnavailable)."},
	{NoSpeaker, "Node", "No speaker runs on the node: its Lease is missing or has expired."},
	{NotSelected, "Node", "No Advertisement of the pool selects the node."},
	{NoLocalEndpoint, "Node", "The Service has externalTrafficPolicy Local and no ready endpoint on the node."},
	{NotOnLink, "Node", "Other nodes have the prefix of the address on a link, and this one has not: hosts there would not find it. Name interfaces or nodes in an Advertisement to announce it here all the same."},
	{NodeCordoned, "Node", "The node is unschedulable, and others can have the address."},

	{Running, "Speaker", "The speaker runs."},
	{LeaseExpired, "Speaker", "The Lease of the speaker has ended: it is dead, cannot start, or is cut off from the API server. What the Speaker said before is not known to be so."},
	{Watching, "Speaker", "The speaker and the others watch each other by BFD."},
	{NoKey, "Speaker", "The Secret herald-bfd is missing or has no key, so speakers do not watch each other: a lost node is noticed by its Lease alone, after ten seconds and more. The controller makes the Secret."},
}
