package ipam

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Key names who holds an address: a Service.
type Key struct{ Namespace, Name string }

// String is namespace/name.
func (k Key) String() string { return k.Namespace + "/" + k.Name }

func (k Key) compare(o Key) int {
	return cmp.Or(strings.Compare(k.Namespace, o.Namespace), strings.Compare(k.Name, o.Name))
}

// Family is an IP family, written as Kubernetes writes it.
type Family string

const (
	IPv4 Family = "IPv4"
	IPv6 Family = "IPv6"
)

var families = [2]Family{IPv4, IPv6}

// index is where addr's family is in families.
func index(addr netip.Addr) int {
	if addr.Is4() {
		return 0
	}
	return 1
}

// FamilyOf is the family of addr.
func FamilyOf(addr netip.Addr) Family { return families[index(addr)] }

// Protocol is "TCP", "UDP" or "SCTP".
type Protocol string

// Port is a port that a Service serves on its addresses.
type Port struct {
	Protocol Protocol
	Port     uint16
}

// String is "TCP port 443".
func (p Port) String() string { return fmt.Sprintf("%s port %d", p.Protocol, p.Port) }

// Scope is who an address is for.
type Scope string

const (
	External Scope = "External"
	Internal Scope = "Internal"
)

// Claim is what one holder does with an address; it decides who may share it.
type Claim struct {
	Pool    string // the pool it was given from; "" when not known
	Scope   Scope  // what its Service asked for when it was given; "" when not known
	Share   string // the sharing key; "" is shared with nobody
	Consent Consent
	Ports   []Port // not changed after Hold
	Local   bool   // externalTrafficPolicy: Local
	Backend string // the selector in a comparable form; "" selects nothing and is like no other

	// Since is when the Service got the address: the oldest claim is the holder's, the others are guests.
	Since time.Time
	// Grandfathered Services share the address without consent, as they did before it took any.
	Grandfathered bool
	// Outdated: the Service asks for another key, consent or policy by now, and has not got it. No Service of another
	// namespace joins it.
	Outdated bool
}

// Consent is the other namespaces that may share an address with a Service. Everyone alone is all of them.
type Consent []string

// Everyone in a Consent stands for every namespace.
const Everyone = "*"

// to reports whether the Consent takes the namespace in.
func (c Consent) to(namespace string) bool {
	return slices.Contains(c, namespace) || slices.Contains(c, Everyone)
}

// Request is what one Service wants. The zero value of an option is the usual case.
type Request struct {
	Key      Key
	Families []Family // wanted, in order
	Partial  bool     // PreferDualStack: take the families that can be had, at least one; else all or nothing

	// Addresses asked for, at most one of a family. Static band, autoAssign and scope do not apply to them.
	Addresses []netip.Addr
	// Keeps are addresses that it holds and is to keep though a host that is none of ours uses them.
	Keeps []netip.Addr
	// Pool asked for by name, "" for any. autoAssign and scope do not stop it.
	Pool string
	// Internal asks for an internal load balancer: only pools of that scope are then tried, and else only the others.
	Internal bool

	Share   string // sharing key, "" is not shared
	Consent Consent
	Ports   []Port
	Local   bool   // externalTrafficPolicy: Local
	Backend string // as in Claim

	Labels, NamespaceLabels map[string]string // for Pool.Serves

	Now time.Time // of claims that are made
}

func (r *Request) scope() Scope {
	if r.Internal {
		return Internal
	}
	return External
}

func (r *Request) claim(pool string) Claim {
	return Claim{Pool: pool, Scope: r.scope(), Share: r.Share, Consent: r.Consent, Ports: slices.Clone(r.Ports), Local: r.Local, Backend: r.Backend}
}

// asked is the address asked for of the family.
func (r *Request) asked(family Family) (netip.Addr, bool) {
	for _, addr := range r.Addresses {
		if FamilyOf(addr) == family {
			return addr, true
		}
	}
	return netip.Addr{}, false
}

// validate says what in the request contradicts itself.
func (r *Request) validate() *Refusal {
	if len(r.Families) == 0 {
		return refuse(InvalidRequest, "The Service names no IP family: set spec.ipFamilies.")
	}
	for i, family := range r.Families {
		if family != IPv4 && family != IPv6 || slices.Contains(r.Families[:i], family) {
			return refuse(InvalidRequest, "The Service asks for the IP families %v: IPv4 and IPv6 are possible, each once.", r.Families)
		}
	}
	for _, addr := range r.Addresses {
		if !plain(addr) {
			return refuse(InvalidRequest, "The Service asks for %q, which is not a plain address: write it like 203.0.113.10 or 2001:db8::10.",
				addr).at(addr, "")
		}
		if first, _ := r.asked(FamilyOf(addr)); first != addr {
			return refuse(TwoOfOneFamily, "The Service asks for %s and %s, both %s: ask for one address of a family.",
				first, addr, FamilyOf(addr)).at(addr, "")
		}
		if no := r.wants(addr); no != nil {
			return no
		}
	}
	return nil
}

// wants says whether addr is of a family that the Service wants, and the one it asks for if it asks for one.
func (r *Request) wants(addr netip.Addr) *Refusal {
	family := FamilyOf(addr)
	if !slices.Contains(r.Families, family) {
		return refuse(WrongFamily, "Address %s is %s and the Service has only %s: change the address or spec.ipFamilies.",
			addr, family, join(r.Families)).at(addr, "")
	}
	if asked, ok := r.asked(family); ok && asked != addr {
		return refuse(NotRequested, "The Service asks for %s instead of %s.", asked, addr).at(addr, "")
	}
	return nil
}

func join[S ~string](words []S) string {
	var b strings.Builder
	for i, word := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(string(word))
	}
	return b.String()
}
