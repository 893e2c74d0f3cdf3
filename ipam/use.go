package ipam

import (
	"fmt"
	"net/netip"
)

// Use is what an address is, or serves as, so that a Service cannot have it.
type Use struct {
	Reason Reason
	What   string // completes "Address A is …": "the InternalIP of node a"
	By     Key    // the Service that uses it; zero when no Service does. It does not stand in its own way.
}

// Block is a range that pools do not give, and why.
type Block struct {
	Range
	Use
}

// notUnicast is what no host can have as its address on a network. It is blocked in every pool.
var notUnicast = []Block{
	special("0.0.0.0/8", `of "this network" (RFC 1122)`),
	special("127.0.0.0/8", "a loopback address (RFC 1122)"),
	special("169.254.0.0/16", "a link-local address (RFC 3927)"),
	special("224.0.0.0/4", "a multicast address (RFC 5771)"),
	special("240.0.0.0/4", "reserved (RFC 1112)"),
	special("::/128", "the unspecified address (RFC 4291)"),
	special("::1/128", "the loopback address (RFC 4291)"),
	special("::ffff:0:0/96", "an IPv4 address in IPv6 (RFC 4291)"),
	special("fe80::/10", "a link-local address (RFC 4291)"),
	special("ff00::/8", "a multicast address (RFC 4291)"),
}

func special(prefix, what string) Block {
	p := netip.MustParsePrefix(prefix)
	return Block{Range{p.Addr(), lastOf(p)}, Use{Reason: NotUnicast, What: what}}
}

// SetUses replaces what the address is used for: while there is any use, no Service gets the address but one that the
// use is by, if it asks for it. Who holds the address goes on holding it. The slice is not changed after.
func (a *Allocator) SetUses(addr netip.Addr, uses []Use) {
	if len(uses) == 0 && len(a.uses[addr]) == 0 {
		return
	}
	h := a.holding(addr)
	a.forget(addr, h)
	h.used = len(uses) > 0
	if h.used {
		a.uses[addr] = uses
	} else {
		delete(a.uses, addr)
	}
	a.learn(addr, h)
}

// Uses returns what the address is used for, but for what it is in a range of.
func (a *Allocator) Uses(addr netip.Addr) []Use { return a.uses[addr] }

// inUse returns the use that stands in the way of the Service, nil if there is none.
func (a *Allocator) inUse(addr netip.Addr, key Key) *Use {
	for i := range a.blocks {
		if a.blocks[i].Contains(addr) {
			return &a.blocks[i].Use
		}
	}
	uses := a.uses[addr]
	for i := range uses {
		if uses[i].By == (Key{}) || uses[i].By != key {
			return &uses[i]
		}
	}
	return nil
}

// Obstacle returns why the address that the Service holds should not be a Service's, "" if nothing speaks against it.
func (a *Allocator) Obstacle(addr netip.Addr, key Key) (reason Reason, sentence string) {
	if use := a.inUse(addr, key); use != nil {
		return use.Reason, fmt.Sprintf("Address %s is %s.", addr, use.For(key.Namespace))
	}
	return "", ""
}

// For returns what the use is, as a namespace may know it: a Service of another one is not named.
func (u *Use) For(namespace string) string {
	switch {
	case u.By == Key{}:
		return u.What
	case u.By.Namespace == namespace:
		return u.What + " of Service " + u.By.String()
	}
	return u.What + " of a Service in another namespace"
}

// String names the Service, too.
func (u *Use) String() string { return u.For(u.By.Namespace) }

// used refuses an address for what it is used for.
func used(addr netip.Addr, use *Use, key Key) *Refusal {
	if addr.IsUnspecified() {
		return refuse(use.Reason, "The Service asks for %s, which is no address of a Service. With some providers it asks for an address by DHCP, "+
			"which Herald does not do: remove it, and the Service gets an address from a pool.", addr).at(addr, "")
	}
	return refuse(use.Reason, "Address %s is %s: ask for another address.", addr, use.For(key.Namespace)).at(addr, "")
}

// blocked tells a pool which parts of a range it does not give.
func blocked(written Range, blocks []Block) []Problem {
	var problems []Problem
	for i := range blocks {
		if b := &blocks[i]; b.Overlaps(written) {
			part := written.meet(b.Range).String()
			if part != written.String() {
				part += " in " + written.String()
			}
			problems = append(problems, Problem{b.Reason, fmt.Sprintf("%s is not given: each address of it is %s. Take it out of the pool.", part, b.Use.String())})
		}
	}
	return problems
}
