package l2

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// groupSocket is a socket that holds multicast memberships; closing it leaves them.
type groupSocket interface {
	join(group netip.Addr) error
	leave(group netip.Addr) error
	Close() error
}

// groups are the multicast groups that an interface is a member of. Solicitations are sent to a group, and a switch that
// snoops MLD (RFC 4541) delivers them only to ports from which the group was reported.
//
// A socket holds some thousand groups (net.core.optmem_max), then ENOMEM says to use another.
type groups struct {
	open    func() (groupSocket, error)
	sockets []*memberships
	joined  map[netip.Addr]*memberships
}

type memberships struct {
	groupSocket
	count int
	full  bool // as far as known: joining another group failed
}

// set joins and leaves so that the memberships are the desired ones. After an error it has done what it could.
func (g *groups) set(desired map[netip.Addr]struct{}) error {
	for group, socket := range g.joined {
		if _, ok := desired[group]; !ok {
			g.leave(group, socket)
		}
	}
	var failed []error
	for group := range desired {
		if _, ok := g.joined[group]; ok {
			continue
		}
		if err := g.join(group); err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("joining %d of %d multicast groups: %w", len(failed), len(desired), failed[0])
	}
	return nil
}

func (g *groups) join(group netip.Addr) error {
	for _, socket := range g.sockets {
		if socket.full {
			continue
		}
		err := socket.join(group)
		if err == nil {
			g.note(group, socket)
			return nil
		}
		if !errors.Is(err, syscall.ENOMEM) {
			return err
		}
		socket.full = true
	}
	fresh, err := g.open()
	if err != nil {
		return err
	}
	if err := fresh.join(group); err != nil {
		_ = fresh.Close()
		return err
	}
	socket := &memberships{groupSocket: fresh}
	g.sockets = append(g.sockets, socket)
	g.note(group, socket)
	return nil
}

func (g *groups) note(group netip.Addr, socket *memberships) {
	if g.joined == nil {
		g.joined = map[netip.Addr]*memberships{}
	}
	g.joined[group] = socket
	socket.count++
}

// leave forgets the group even when the kernel has done so before us, as it does when the interface is gone.
func (g *groups) leave(group netip.Addr, socket *memberships) {
	delete(g.joined, group)
	socket.count--
	socket.full = false
	if socket.count > 0 {
		_ = socket.leave(group)
		return
	}
	_ = socket.Close()
	g.sockets = slices.DeleteFunc(g.sockets, func(s *memberships) bool { return s == socket })
}

func (g *groups) close() { _ = g.set(nil) }
