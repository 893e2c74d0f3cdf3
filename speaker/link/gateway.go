package link

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Gateway is a default gateway of the node.
type Gateway struct {
	// Addr has a zone if it is link-local.
	Addr netip.Addr
	// Interface that leads to it.
	Interface string
	// Metric of the route: the lowest one is used.
	Metric int
}

// Gateways returns the default gateways of the main table, best first, IPv4 before IPv6.
func Gateways() ([]Gateway, error) { return gateways(netns.None()) }

// WatchGateways calls notify with all default gateways at once, and again each time they have changed, until ctx is done; then
// it returns nil. Routes that are no default routes do not wake it.
func WatchGateways(ctx context.Context, notify func([]Gateway)) error {
	return watchGateways(ctx, netns.None(), notify)
}

func watchGateways(ctx context.Context, ns netns.NsHandle, notify func([]Gateway)) error {
	updates, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	changes := make(chan struct{}, 1)
	failed := make(chan error, 1)
	options := netlink.RouteSubscribeOptions{ErrorCallback: func(err error) {
		select {
		case failed <- err:
		default:
		}
	}}
	if ns.IsOpen() {
		options.Namespace = &ns
	}
	if err := netlink.RouteSubscribeWithOptions(updates, done, options); err != nil {
		return fmt.Errorf("subscribing to route changes: %w", err)
	}
	// IPv4 routes go without a word when their link or its address does.
	socket, err := nl.SubscribeAt(ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR)
	if err != nil {
		close(done)
		return fmt.Errorf("subscribing to interface changes: %w", err)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return receive(ctx, func() error { _, _, err := socket.Receive(); return err }, changes)
	})
	group.Go(func() error {
		defer socket.Close()
		defer close(done)
		for {
			select {
			case <-ctx.Done():
				return nil
			case update, ok := <-updates:
				if !ok {
					return lost(ctx, failed)
				}
				if !isDefault(&update.Route) {
					continue
				}
			}
			select {
			case changes <- struct{}{}:
			default: // they are to be read anyway
			}
		}
	})
	group.Go(func() error { return relist(ctx, func() ([]Gateway, error) { return gateways(ns) }, changes, notify) })
	return group.Wait()
}

// lost says why there are no more changes told.
func lost(ctx context.Context, failed <-chan error) error {
	if ctx.Err() != nil {
		return nil //nolint:nilerr // whoever ended it knows
	}
	select {
	case err := <-failed:
		return fmt.Errorf("receiving route changes: %w", err)
	default:
		return fmt.Errorf("receiving route changes: %w", unix.ECONNRESET)
	}
}

func isDefault(r *netlink.Route) bool {
	if r.Table != unix.RT_TABLE_MAIN {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0
}

func gateways(ns netns.NsHandle) ([]Gateway, error) {
	handle, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("listing routes: %w", err)
	}
	defer handle.Close()
	var found []Gateway
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump(func() ([]netlink.Route, error) {
			return handle.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("listing routes: %w", err)
		}
		for i := range routes {
			if isDefault(&routes[i]) {
				found = append(found, hops(handle, &routes[i])...)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Gateway) int {
		return cmp.Or(cmp.Compare(a.Addr.BitLen(), b.Addr.BitLen()), cmp.Compare(a.Metric, b.Metric), a.Addr.Compare(b.Addr))
	})
	return found, nil
}

// hops are the gateways of a route, which has several if the load is spread over them.
func hops(handle *netlink.Handle, route *netlink.Route) (found []Gateway) {
	add := func(ip []byte, index int) {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return
		}
		device, err := handle.LinkByIndex(index)
		if err != nil {
			return // it has gone
		}
		name := device.Attrs().Name
		if addr = addr.Unmap(); addr.Is6() && addr.IsLinkLocalUnicast() {
			addr = addr.WithZone(name)
		}
		found = append(found, Gateway{addr, name, route.Priority})
	}
	add(route.Gw, route.LinkIndex)
	for _, hop := range route.MultiPath {
		add(hop.Gw, hop.LinkIndex)
	}
	return found
}
