package l2

import (
	"errors"
	"fmt"
	"net/netip"
)

// AddressError is why an address is not answered for, or not asked about, on an interface: all others are.
type AddressError struct {
	Addr      netip.Addr
	Interface string
	Err       error
	Question  bool // it is the question about the address that is refused
}

func (e *AddressError) Error() string {
	doing := "announcing"
	if e.Question {
		doing = "asking for"
	}
	return fmt.Sprintf("%s %s on %s: %v", doing, e.Addr, e.Interface, e.Err)
}

// Unwrap is for errors.Is.
func (e *AddressError) Unwrap() error { return e.Err }

// Refused are the AddressErrors in an error of Set.
func Refused(err error) []*AddressError {
	if refused, ok := err.(*AddressError); ok { //nolint:errorlint // what it wraps is no AddressError
		return []*AddressError{refused}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return nil
	}
	var all []*AddressError
	for _, err := range joined.Unwrap() {
		all = append(all, Refused(err)...)
	}
	return all
}

// refusedAll is one error that concerns each of the addresses.
func refusedAll(addrs []netip.Addr, name string, err error) error {
	refused := make([]error, 0, len(addrs))
	for _, addr := range addrs {
		refused = append(refused, &AddressError{Addr: addr, Interface: name, Err: err})
	}
	return errors.Join(refused...)
}

// refusing are the addresses whose group could not be joined: a switch that snoops MLD lets no question for them pass.
func (p *port) refusing(err error) error {
	var without []netip.Addr
	for _, addr := range p.answered(ndp) {
		if _, joined := p.groups.joined[solicitedNode(addr)]; !joined {
			without = append(without, addr)
		}
	}
	return refusedAll(without, p.Name, err)
}
