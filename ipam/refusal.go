package ipam

import (
	"fmt"
	"net/netip"
)

// Reason is why not. The zero value means yes.
type Reason string

const (
	// The request contradicts itself.
	InvalidRequest Reason = "InvalidRequest" // no family, one twice, or something that is not a plain address
	WrongFamily    Reason = "WrongFamily"    // an address of a family that the Service does not have
	TwoOfOneFamily Reason = "TwoOfOneFamily" // two addresses asked for where one is given

	// The pools do not have it.
	UnknownPool    Reason = "UnknownPool"    // no pool has the name asked for
	NoPool         Reason = "NoPool"         // no pool at all, or none serves this Service
	PoolExhausted  Reason = "PoolExhausted"  // every pool that serves the Service is full
	NamespaceQuota Reason = "NamespaceQuota" // maxPerNamespace is reached
	OutsidePools   Reason = "OutsidePools"   // no pool has the address
	NotInPool      Reason = "NotInPool"      // the address is not in the pool asked for
	PoolNotServing Reason = "PoolNotServing" // the selectors of the address's pool leave the Service out
	Excluded       Reason = "Excluded"       // the pool excludes the address
	BuggyAddress   Reason = "BuggyAddress"   // the pool avoids .0 and .255

	// Somebody else has it.
	Reserved       Reason = "Reserved"       // kept for another Service, or for nobody
	NotShared      Reason = "NotShared"      // held, and the holder or the Service has no sharing key
	OtherShareKey  Reason = "OtherShareKey"  // held under another sharing key
	PortConflict   Reason = "PortConflict"   // shared, but both serve the same port
	PolicyConflict Reason = "PolicyConflict" // shared, but Local traffic would go to nodes without the other's pods

	AddressConflict Reason = "AddressConflict" // a host that is none of ours uses it

	// The Service asks for two things that exclude each other.
	ConflictingRequests Reason = "ConflictingRequests" // an internal load balancer, and a pool or an address of scope External

	// The address is, or serves as, something else.
	NotUnicast     Reason = "NotUnicast"     // no host can have it
	NodeAddress    Reason = "NodeAddress"    // a node has it
	SubnetAddress  Reason = "SubnetAddress"  // it stands for the subnet: the network's, broadcast, or subnet-router anycast
	ServiceAddress Reason = "ServiceAddress" // a Service has it otherwise: as an external IP, a cluster IP, or from another provider
	ServiceRange   Reason = "ServiceRange"   // cluster IPs are given from there

	// A held address is not right any more.
	NotRequested Reason = "NotRequested" // the Service asks for another one
	OtherScope   Reason = "OtherScope"   // the Service was turned internal or external
)

// Why a pool turned a Service away, told within the message of NoPool.
const (
	manualPool Reason = "ManualPool" // autoAssign: false
	noFamily   Reason = "NoFamily"   // no addresses of the family
)

// Refusal is a no: the error of Assign, the answer of Check. What does not apply is zero.
type Refusal struct {
	Reason  Reason
	Message string // a sentence for an operator: what is in the way, and the remedy
	Family  Family
	Addr    netip.Addr
	Pool    string
	Holder  Key // the Service in the way
}

// Error is the message.
func (r *Refusal) Error() string { return r.Message }

func refuse(reason Reason, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Message: fmt.Sprintf(format, args...)}
}

func (r *Refusal) at(addr netip.Addr, pool string) *Refusal {
	r.Addr, r.Family, r.Pool = addr, FamilyOf(addr), pool
	return r
}

func (r *Refusal) by(holder Key) *Refusal {
	r.Holder = holder
	return r
}

func (r *Refusal) of(family int, pool string) *Refusal {
	r.Family, r.Pool = families[family], pool
	return r
}
