// Package link watches the node's network interfaces.
package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// settle is how long changes are gathered before the list is read again: a link that comes up is a handful of messages.
const settle = 5 * time.Millisecond

// Link is a network interface of the node.
type Link struct {
	Index int
	Name  string
	MAC   [6]byte // zero when the link has no Ethernet address
	MTU   int     // bytes
	// Up says that the link can carry frames: administratively up, and with a carrier.
	Up       bool
	Loopback bool
	// ARP says that the link is Ethernet-like, so that ARP and Neighbour Discovery work on it: not a tunnel, not the
	// loopback, not a link set to "arp off".
	ARP bool
	// Prefixes are the addresses of global and of link-local scope, each with the length of its prefix, sorted.
	Prefixes []netip.Prefix
}

// List returns the interfaces of the network namespace it is called in, sorted by index.
func List() ([]Link, error) {
	return list(netns.None())
}

// Watch calls notify with all interfaces at once, and with all of them again each time something has changed, until ctx
// is done; then it returns nil. Changes a few milliseconds apart come as one. It fails when the kernel cannot be asked.
func Watch(ctx context.Context, notify func([]Link)) error {
	return watch(ctx, netns.None(), notify)
}

func watch(ctx context.Context, ns netns.NsHandle, notify func([]Link)) error {
	all := func(syscall.NetlinkMessage) bool { return true }
	return follow(ctx, ns, all, func() ([]Link, error) { return list(ns) }, notify,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR)
}

// follow passes on a list at once, and again when it has changed after a message of the groups that matters.
func follow[T any](
	ctx context.Context, ns netns.NsHandle, matters func(syscall.NetlinkMessage) bool, list func() ([]T, error), notify func([]T), groups ...uint,
) error {
	// Subscribe before the first list: what changes in between is then not lost.
	socket, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, groups...)
	if err != nil {
		return fmt.Errorf("subscribing to changes of the network: %w", err)
	}
	next := func() error {
		for {
			messages, _, err := socket.Receive()
			if err != nil || slices.ContainsFunc(messages, matters) {
				return err
			}
		}
	}
	changes := make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return receive(ctx, next, changes) })
	group.Go(func() error { return relist(ctx, list, changes, notify) })
	group.Go(func() error {
		<-ctx.Done()
		socket.Close()
		return nil
	})
	return group.Wait()
}

// receive says on changes that something has changed. What it was does not matter, the list is read anew; so a message
// that the kernel had to drop (ENOBUFS) is as good as one that arrived.
func receive(ctx context.Context, next func() error, changes chan<- struct{}) error {
	for {
		err := next()
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx has closed the socket
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return fmt.Errorf("receiving changes of the network: %w", err)
		}
		select {
		case changes <- struct{}{}:
		default: // the list is to be read anyway
		}
	}
}

// relist reads the list at once and after changes, and passes on each list that differs from the one before.
func relist[T any](ctx context.Context, list func() ([]T, error), changes <-chan struct{}, notify func([]T)) error {
	var last []T
	for first := true; ctx.Err() == nil; first = false {
		now, err := list()
		if err != nil {
			return err
		}
		if first || !reflect.DeepEqual(last, now) {
			notify(now)
			last = now
		}
		select {
		case <-ctx.Done():
		case <-changes:
			sleep(ctx, settle)
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

func list(ns netns.NsHandle) ([]Link, error) {
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	defer handle.Close()

	devices, err := dump(handle.LinkList)
	if err != nil {
		return nil, fmt.Errorf("listing interfaces: %w", err)
	}
	addresses, err := dump(func() ([]netlink.Addr, error) { return handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("listing addresses: %w", err)
	}
	links := make([]Link, 0, len(devices))
	for _, device := range devices {
		links = append(links, linkFrom(device.Attrs(), addresses))
	}
	slices.SortFunc(links, func(a, b Link) int { return cmp.Compare(a.Index, b.Index) })
	return links, nil
}

// dump asks again when something changed while the kernel was answering, since the answer may then have holes.
func dump[T any](ask func() ([]T, error)) (answer []T, err error) {
	for range 5 {
		if answer, err = ask(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		return answer, nil // the change that interrupted brings the next list
	}
	return answer, err
}

func linkFrom(device *netlink.LinkAttrs, addresses []netlink.Addr) Link {
	l := Link{
		Index:    device.Index,
		Name:     device.Name,
		MTU:      device.MTU,
		Up:       device.RawFlags&unix.IFF_UP != 0 && device.RawFlags&unix.IFF_RUNNING != 0,
		Loopback: device.RawFlags&unix.IFF_LOOPBACK != 0,
	}
	if device.EncapType == "ether" && len(device.HardwareAddr) == len(l.MAC) {
		l.MAC = [6]byte(device.HardwareAddr)
		l.ARP = device.RawFlags&unix.IFF_NOARP == 0
	}
	for _, a := range addresses {
		if a.LinkIndex == l.Index && a.Scope < int(netlink.SCOPE_HOST) {
			l.Prefixes = append(l.Prefixes, prefixFrom(a.IPNet))
		}
	}
	slices.SortFunc(l.Prefixes, netip.Prefix.Compare)
	return l
}

// prefixFrom keeps the address as it is: 192.0.2.7/24, not 192.0.2.0/24.
func prefixFrom(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}
